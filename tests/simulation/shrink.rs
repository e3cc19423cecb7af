//! Makes a failing seed smaller: less of everything, as long as it fails in the same way.
//!
//! Invariant: what is told does fail, for it was run.

use crate::workload::Tally;
use crate::{from_environment, try_seed};
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What a life may be bounded in, the most that it has without a bound, and the least that makes sense. In the order in
/// which they are lowered.
const BOUNDS: [(&str, u64, u64); 9] = [
    ("crashes", crate::CRASHES_OF_A_SEED_MAX, 0),
    ("volumes", 3, 1),
    ("faults", 1, 0),
    ("cores", 4, 1),
    ("clients", 8, 1),
    ("buckets", 3, 1),
    ("keys", 40, 1),
    ("body_bytes", 600_000, 1),
    ("steps", 40_000, 1),
];

const SECONDS: u64 = 60;
/// Other seeds that are tried with less, when the one that failed does not fail with it.
const OTHER_SEEDS: u64 = 6;
/// Characters of what went wrong by which two failures are told to be the same.
const ERROR_CHARS: usize = 30;

/// Bounds of a life, as `WEFT_SIM_TRIM` gives them: `cores=1,keys=2`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Trim([u64; BOUNDS.len()]);

impl Trim {
    pub const NONE: Trim = {
        let mut bounds = [0; BOUNDS.len()];
        let mut at = 0;
        while at < BOUNDS.len() {
            bounds[at] = BOUNDS[at].1;
            at += 1;
        }
        Trim(bounds)
    };

    pub fn from_environment() -> Trim {
        std::env::var("WEFT_SIM_TRIM").map_or(Trim::NONE, |text| Trim::parse(&text))
    }

    fn parse(text: &str) -> Trim {
        let mut trim = Trim::NONE;
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let at = BOUNDS.iter().position(|(known, ..)| *known == name);
            let at = at.unwrap_or_else(|| panic!("WEFT_SIM_TRIM: there is no bound {name}"));
            trim.0[at] = value
                .parse()
                .unwrap_or_else(|_| panic!("WEFT_SIM_TRIM: {pair} has no number"));
        }
        trim
    }

    /// The bound of that name.
    pub fn of(&self, name: &str) -> u64 {
        let at = BOUNDS.iter().position(|(known, ..)| *known == name);
        self.0[at.expect("a bound of the table")]
    }
}

impl fmt::Display for Trim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bounds = BOUNDS
            .iter()
            .zip(self.0)
            .filter(|((_, most, _), value)| value < most);
        let pairs: Vec<String> = bounds
            .map(|((name, ..), value)| format!("{name}={value}"))
            .collect();
        f.write_str(&pairs.join(","))
    }
}

/// A seed that fails in the same way with less, and what it says; within `WEFT_SIM_SHRINK_SECONDS`.
pub fn shrink(seed: u64, error: &str) -> (u64, Trim, String) {
    let end =
        Instant::now() + Duration::from_secs(from_environment("WEFT_SIM_SHRINK_SECONDS").unwrap_or(SECONDS));
    let tally = Rc::new(RefCell::new(Tally::default()));
    let (mut best, mut seed, mut told) = (Trim::NONE, seed, error.to_owned());
    let mut fails = |seed, trim| {
        let error = try_seed(seed, trim, &tally).err()?;
        (kind(&error) == kind(&told))
            .then(|| told.clone_from(&error))
            .map(|()| error)
    };
    let mut last = error.to_owned();
    loop {
        let before = best;
        for (at, (_, _, least)) in BOUNDS.iter().enumerate() {
            let mut low = *least;
            // Down to the least, or half-way there, and so on.
            while low < best.0[at] && Instant::now() < end {
                let mut trim = best;
                trim.0[at] = low;
                let seeds = std::iter::once(seed).chain((1..=OTHER_SEEDS).map(|other| seed ^ other << 40));
                let found = seeds
                    .into_iter()
                    .find_map(|seed| Some((seed, fails(seed, trim)?)));
                match found {
                    Some((other, error)) => (best, seed, last) = (trim, other, error),
                    None => low += (best.0[at] - low).div_ceil(2),
                }
            }
        }
        if best == before || Instant::now() >= end {
            return (seed, best, last);
        }
    }
}

/// What an error says, but for its numbers.
fn kind(error: &str) -> String {
    let letters = error.chars().filter(|letter| !letter.is_ascii_digit());
    letters.take(ERROR_CHARS).collect()
}

#[test]
fn a_trim_is_read_as_it_is_written() {
    for text in ["", "cores=1", "crashes=0,cores=2,keys=3,steps=77"] {
        assert_eq!(Trim::parse(text).to_string(), text);
    }
}
