//! Which requests fare badly, and how.
//!
//! WHAT is `read`, `write`, `sync`, `allocate` or `any` of these and what else there is. A write that must be synced
//! (O_DSYNC) is a `write` and a `sync`. HOW is:
//!
//! | | |
//! | --- | --- |
//! | `EIO`, `ENXIO`, `ENOSPC` | it fails; of a write some sectors may have landed; what a sync was for is never durable |
//! | `hang` | it is carried out when the faults are cleared |
//! | `hang=SECONDS` | it is carried out after so many seconds |
//! | `short` | a read or write stops half-way and says so |

use std::ops::Range;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Read,
    Write,
    /// fsync, fdatasync, and a write that is synced.
    Sync,
    Allocate,
    /// Names, attributes, and all else.
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// The error's number.
    Fail(i32),
    /// For ever, or for some time.
    Hang(Option<Duration>),
    Short,
}

#[derive(Debug)]
pub struct Rule {
    /// `None` is any.
    kind: Option<Kind>,
    effect: Effect,
    /// What comes before and after the star in the names that it is about.
    name: (String, String),
    bytes: Range<u64>,
    /// Only shorter ones.
    length_below: u64,
    /// How often it still applies.
    times: u64,
}

impl Rule {
    pub fn parse(words: &[&str]) -> Result<Rule, String> {
        let [kind, effect, options @ ..] = words else {
            return Err("a fault needs WHAT and HOW".to_owned());
        };
        let mut rule = Rule {
            kind: match *kind {
                "read" => Some(Kind::Read),
                "write" => Some(Kind::Write),
                "sync" => Some(Kind::Sync),
                "allocate" => Some(Kind::Allocate),
                "any" => None,
                other => return Err(format!("nothing is called {other}")),
            },
            effect: match *effect {
                "EIO" => Effect::Fail(libc::EIO),
                "ENXIO" => Effect::Fail(libc::ENXIO),
                "ENOSPC" => Effect::Fail(libc::ENOSPC),
                "hang" => Effect::Hang(None),
                "short" => Effect::Short,
                other => match other.strip_prefix("hang=").map(str::parse) {
                    Some(Ok(seconds)) => Effect::Hang(Some(Duration::from_secs_f64(seconds))),
                    _ => return Err(format!("nothing fares like {other}")),
                },
            },
            name: (String::new(), String::new()),
            bytes: 0..u64::MAX,
            length_below: u64::MAX,
            times: u64::MAX,
        };
        for option in options {
            let (key, value) = option.split_once('=').ok_or(format!("no option: {option}"))?;
            match key {
                "file" => {
                    let (before, after) = value.split_once('*').unwrap_or((value, ""));
                    rule.name = (before.to_owned(), after.to_owned());
                }
                "from" => rule.bytes.start = crate::number(value)?,
                "to" => rule.bytes.end = crate::number(value)?,
                "below" => rule.length_below = crate::number(value)?,
                "times" => rule.times = crate::number(value)?,
                _ => return Err(format!("no option is called {key}")),
            }
        }
        Ok(rule)
    }

    /// How a request fares, if this rule is about it; counts it then.
    pub fn strike(&mut self, kinds: &[Kind], name: &str, bytes: &Range<u64>) -> Option<Effect> {
        let is_meant = self.times > 0
            && self.kind.is_none_or(|kind| kinds.contains(&kind))
            && name.starts_with(&self.name.0)
            && name.ends_with(&self.name.1)
            && bytes.start < self.bytes.end
            && self.bytes.start < bytes.end
            && bytes.end - bytes.start < self.length_below;
        if is_meant {
            self.times -= 1;
        }
        is_meant.then_some(self.effect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_about_some_bytes_of_some_files_so_many_times() {
        let mut rule = Rule::parse(&[
            "write",
            "EIO",
            "file=*.seg",
            "from=4096",
            "to=8192",
            "below=9001",
            "times=2",
        ])
        .unwrap();
        let mut strike = |kind, name, bytes| rule.strike(&[kind], name, &bytes).is_some();
        assert!(!strike(Kind::Read, "1.seg", 0..9000));
        assert!(!strike(Kind::Write, "1.new", 0..9000));
        assert!(!strike(Kind::Write, "1.seg", 0..4096));
        assert!(!strike(Kind::Write, "1.seg", 8192..9000));
        assert!(!strike(Kind::Write, "1.seg", 0..9001));
        assert!(strike(Kind::Write, "1.seg", 0..4097));
        assert!(strike(Kind::Write, "2.seg", 8191..9000));
        assert!(!strike(Kind::Write, "2.seg", 8191..9000));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for words in [
            &["read"][..],
            &["frob", "EIO"],
            &["read", "EWHAT"],
            &["read", "EIO", "from=x"],
        ] {
            assert!(Rule::parse(words).is_err(), "{words:?}");
        }
    }
}
