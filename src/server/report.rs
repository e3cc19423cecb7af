//! What the daemon says about itself: the report when it has started, and warnings.
//!
//! Invariant: printing never fails the daemon, wherever the output goes. No secret is printed. The report is at
//! most ten lines, and its last one says `listening on http://ADDR`, which scripts wait for; what the volume holds follows
//! when it is counted.

use crate::config::Config;
use crate::engine::{Recovered, SpaceUse};
use crate::io::uring::{Volume, VolumeSet};
use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

/// What is known before the cores start.
pub struct Report {
    volume: String,
    cores: String,
    domain: Option<String>,
    accepts_damage: bool,
    addresses: Vec<SocketAddr>,
    admin_address: Option<SocketAddr>,
}

impl Report {
    /// Says that the daemon starts, for recovery may take a while.
    pub fn begin(config: &Config, volumes: &VolumeSet, cpus: &[usize], memory_bytes: u64) -> Report {
        let shown = |volume: &Volume| {
            let path = std::path::absolute(volume.path()).unwrap_or_else(|_| volume.path().to_owned());
            path.display().to_string()
        };
        let paths: Vec<String> = volumes.volumes().map(shown).collect();
        say(format_args!(
            "weft {} starts on {}",
            env!("CARGO_PKG_VERSION"),
            paths.join(" ")
        ));
        for volume in volumes.volumes().filter(|volume| volume.lacking_bytes() > 0) {
            warn(format_args!(
                "of the capacity of {} the file system of {} lacks {}: writes are refused when it is full; make room, or give a smaller --capacity",
                Size(volume.capacity_bytes()),
                shown(volume),
                Size(volume.lacking_bytes())
            ));
        }
        for why in volumes.passed_over() {
            warn(format_args!("passed over: {why}"));
        }
        let missing = volumes.missing();
        if missing > 0 {
            warn(format_args!(
                "DEGRADED: {missing} of {} volumes are missing; what the others hold is served, and takes no change: \
                 objects may be as they were before their last change, and what is not found may be on what is missing",
                missing + paths.len()
            ));
        }
        let count = match paths.len() {
            1 => String::new(),
            count => format!(" on {count} volumes"),
        };
        let start = match missing {
            0 => format!("start {}", volumes.boot_epoch()),
            _ => format!("read-only after start {}", volumes.boot_epoch()),
        };
        Report {
            volume: format!(
                "up to {}{count} in segments of {}, {start}",
                Size(volumes.capacity_bytes()),
                Size(u64::from(volumes.shape().segment_size_bytes)),
            ),
            cores: format!(
                "{} on CPU {}, {} of memory",
                cpus.len(),
                Ranges(cpus),
                Size(memory_bytes)
            ),
            domain: config.domain.clone(),
            accepts_damage: config.accept_damage,
            addresses: Vec::new(),
            admin_address: None,
        }
    }

    /// The addresses that were bound: a port of 0 has become one.
    pub fn with_addresses(
        self,
        addresses: impl Iterator<Item = SocketAddr>,
        admin_address: Option<SocketAddr>,
    ) -> Report {
        Report {
            addresses: addresses.collect(),
            admin_address,
            ..self
        }
    }

    /// Says what is served, once it is.
    pub fn print(&self, recovered: &Recovered, took: Duration) {
        let Recovered {
            objects,
            uploads,
            buckets,
            records,
            entries,
            ..
        } = *recovered;
        say(format_args!("  volume     {}", self.volume));
        say(format_args!("  cores      {}", self.cores));
        let took = took.as_secs_f64();
        match entries {
            0 => say(format_args!(
                "  recovered  {objects} objects, {uploads} uploads, {buckets} buckets from {records} records in {took:.3} s"
            )),
            _ => say(format_args!(
                "  recovered  {buckets} buckets, {entries} entries of the index and {records} records behind them in {took:.3} s"
            )),
        }
        say(format_args!(
            "  durability every change is on stable storage before it is acknowledged"
        ));
        if let Some(domain) = &self.domain {
            say(format_args!("  domain     also BUCKET.{domain}"));
        }
        if let Some(address) = self.admin_address {
            say(format_args!("  metrics    http://{address}/metrics"));
        }
        if recovered.is_damaged() || recovered.orphans > 0 {
            let then = match self.accepts_damage {
                true => DAMAGE_ACCEPTED,
                false => DAMAGE_KEPT,
            };
            warn(format_args!("DAMAGE: {}{then}", Damage(recovered)));
        }
        let addresses: Vec<String> = self
            .addresses
            .iter()
            .map(|address| format!("http://{address}"))
            .collect();
        say(format_args!("listening on {}", addresses.join(" ")));
    }
}

/// Prints a line for the operator.
pub fn warn(text: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "weft: {text}");
}

/// Prints a line that is no warning.
pub fn note(text: fmt::Arguments<'_>) {
    say(format_args!("weft: {text}"));
}

fn say(text: fmt::Arguments<'_>) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Bytes in the largest unit that leaves a number worth reading.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (power, unit) = match self.0 {
            0..0x10_0000 => (10, "KiB"),
            0x10_0000..0x4000_0000 => (20, "MiB"),
            0x4000_0000..0x100_0000_0000 => (30, "GiB"),
            _ => (40, "TiB"),
        };
        let whole = self.0 >> power;
        match ((self.0 - (whole << power)) * 10) >> power {
            0 => write!(f, "{whole} {unit}"),
            tenths => write!(f, "{whole}.{tenths} {unit}"),
        }
    }
}

/// What a start could not find, what was made of it, and what to do.
struct Damage<'a>(&'a Recovered);

impl fmt::Display for Damage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.0;
        let counts = [
            (found.batches_damaged, "batches of the log cannot be read"),
            (found.segments_unreadable, "segments cannot be read"),
            (found.segments_missing, "segment files are missing"),
            (found.manifests_missing, "manifests of the index are lost"),
            (found.pages_unreadable, "parts of the index cannot be read"),
            (
                found.extents_missing,
                "extents of objects lie in missing segments",
            ),
            (
                found.buckets_lost,
                "buckets have lost their record and are called lost-ID",
            ),
            (
                found.objects_of_lost_buckets,
                "objects are in those, to be read only",
            ),
            (found.orphans, "uploads, parts or values are kept, but not served"),
        ];
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{count} {what}; ")?;
        }
        Ok(())
    }
}

/// Says what lives on the volume: when a start has counted it, and at the end of a run.
pub fn print_space(space: &SpaceUse) {
    let SpaceUse {
        segments,
        free,
        live_bytes,
        ..
    } = space;
    say(format_args!(
        "  space      {live_bytes} bytes live, {free} of {segments} segments free"
    ));
}

const DAMAGE_KEPT: &str = "what else was there is served, and nothing of it is freed or overwritten in this run: keep a \
     copy of the directory, then bring back what is missing and start again, or copy what is served to a new volume, or \
     give up what is lost with --accept-damage";
const DAMAGE_ACCEPTED: &str =
    "this is given up (--accept-damage): what else was there is served, and room is used again";

/// Numbers with runs of neighbours drawn together: `0-3,8`.
struct Ranges<'a>(&'a [usize]);

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for &number in self.0 {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => runs.push((number, number)),
            }
        }
        for (at, (first, last)) in runs.into_iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (4096, "4 KiB"),
            (1 << 20, "1 MiB"),
            (1536 << 20, "1.5 GiB"),
            (2 << 40, "2 TiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    #[test]
    fn neighbours_are_drawn_together() {
        for (cpus, text) in [
            (&[0, 1, 2, 3][..], "0-3"),
            (&[5], "5"),
            (&[0, 1, 8, 3, 2], "0-1,8,3,2"),
        ] {
            assert_eq!(Ranges(cpus).to_string(), text);
        }
    }
}
