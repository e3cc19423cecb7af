//! `weft check` and `weft inspect`: what lies on volumes that no daemon runs on, verified and shown.
//!
//! [`volume`] surveys the segments and manifests, [`runs`] reads the pages of the index, [`replay`] these and the logs behind
//! them as recovery does and gives what is true, [`live`] judges
//! that and verifies every block that it refers to, [`report`] says what was found. [`inspect`] shows the bytes of one
//! segment, record or key in words. [`segment`] reads, [`progress`] draws.
//!
//! Invariant: nothing of a volume is changed. What a checksum refuses becomes a finding with its place, and whoever reads
//! on goes on behind it: one damaged place hides no other.

mod inspect;
mod live;
mod progress;
mod replay;
mod report;
mod runs;
mod segment;
mod volume;

pub use inspect::{Shown, Target, inspect};
pub use report::Report;

use crate::io::uring::{StoppedSet, VolumeError};
use progress::Progress;
use replay::Replay;
use report::Findings;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;
use volume::Checked;

/// Threads that read at least: a disk wants several reads in flight, however few the CPUs are.
const READERS_MIN: usize = 4;
const READERS_MAX: usize = 32;

/// Why there is nothing to say about a volume.
#[derive(Debug)]
pub enum CheckError {
    Volume(VolumeError),
    /// Neither the superblock nor any segment says what the volume is.
    NoShape {
        dir: String,
    },
    /// A segment was written by a later release.
    Newer {
        segment: String,
        version: u16,
    },
    /// What was given are several sets.
    SeveralSets,
    /// What was asked for does not exist.
    NotThere {
        what: String,
    },
}

/// Verifies everything that the volumes at `paths` hold; a report for each set.
///
/// # Errors
/// What hinders it from the start. Damage is no error: it is in the report.
pub fn check(paths: &[PathBuf]) -> Result<Vec<Report>, CheckError> {
    let sets = StoppedSet::open(paths)?;
    sets.into_iter().map(check_set).collect()
}

fn check_set(set: StoppedSet) -> Result<Report, CheckError> {
    let since = Instant::now();
    let findings = Findings::default();
    let volume = Checked::open(set, &findings)?;
    let replay = Replay::of(&volume, &findings)?;
    let live = live::verify(&volume, &replay, &findings);
    Ok(Report::new(
        &volume,
        &replay,
        live,
        findings,
        since.elapsed().as_secs_f64(),
    ))
}

/// Gives `work` each item, on several threads; each has a state of its own.
fn in_parallel<T: Sync, S>(items: &[T], state: impl Fn() -> S + Sync, work: impl Fn(&mut S, &T) + Sync) {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let readers = (2 * cpus).clamp(READERS_MIN, READERS_MAX).min(items.len());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..readers {
            scope.spawn(|| {
                let mut state = state();
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(&mut state, item);
                }
            });
        }
    });
}

impl From<VolumeError> for CheckError {
    fn from(error: VolumeError) -> CheckError {
        CheckError::Volume(error)
    }
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckError::Volume(error) => error.fmt(f),
            CheckError::NoShape { dir } => write!(
                f,
                "{dir} has no superblock that is whole, and no segment header: nothing says what the volume is"
            ),
            CheckError::Newer { segment, version } => write!(
                f,
                "segment {segment} has format version {version}, which a later release wrote: use that release"
            ),
            CheckError::SeveralSets => {
                f.write_str("the volumes given are not of one set: give those of one, all of them")
            }
            CheckError::NotThere { what } => write!(f, "there is no {what}"),
        }
    }
}

impl std::error::Error for CheckError {}
