//! What a simulated world is like, and which of its faults are switched on.
//!
//! Everything is off by default but what every disk does: lose, keep, tear and reorder what was not
//! synced. A test that switches on a fault that eats acknowledged data by design (`lost_write`,
//! `misdirected_write`, `bit_rot`) must weaken what it demands to "nothing wrong is served".

use super::rng::{Chance, Rng};
use crate::io::VolumeShape;

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Cores of this run, at least 1; may differ at each restart.
    pub cores: usize,
    /// Each of the volumes; a restart must give the same.
    pub shape: VolumeShape,
    /// How many there are; a restart may give more, which are empty.
    pub volumes: usize,
    /// One that is not there in this run, which must then write nothing.
    pub missing: Option<usize>,
    pub faults: Faults,
    /// How many of the last events are kept as text and printed when a test panics; 0 keeps none.
    pub trace_events: usize,
}

impl Options {
    /// No fault, no trace.
    pub fn new(cores: usize, shape: VolumeShape) -> Options {
        Options {
            cores,
            shape,
            volumes: 1,
            missing: None,
            faults: Faults::default(),
            trace_events: 0,
        }
    }
}

/// The faults of a world, each for one operation of its kind unless it says otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A read fails with EIO.
    pub read_error: Chance,
    /// A write fails with EIO; any of its sectors may have landed.
    pub write_error: Chance,
    /// A sync fails with EIO; see the fault model in `disk`.
    pub sync_error: Chance,
    /// An allocation fails with ENOSPC.
    pub no_space: Chance,
    /// Allocations fail with ENOSPC while this many segments exist, as on a thin file system.
    pub segments_until_no_space: Option<u32>,
    /// A disk operation takes up to [`super::disk::SLOW_FACTOR`] times its time.
    pub slow: Chance,
    /// A disk operation never ends.
    pub stuck: Chance,
    /// A write that succeeds and is not there.
    pub lost_write: Chance,
    /// A write that succeeds and is elsewhere.
    pub misdirected_write: Chance,
    /// A bit of what a read finds has flipped, for good.
    pub bit_rot: Chance,
    /// A segment just allocated shows what another one holds, as recycled blocks of a device do.
    pub stale_segment: Chance,
    /// The wall clock jumps, for each time it is asked.
    pub clock_jump: Chance,
    /// A core stands still for up to 10 ms, for each step of the world.
    pub core_pause: Chance,
    /// Only operations on this volume fail or are stuck, whatever is switched on.
    pub only_volume: Option<usize>,
    /// One disk operation fails by its number, whatever it is.
    pub fail_at: Option<FailAt>,
}

/// "Fail the Nth operation, once and for ever, until all N pass."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailAt {
    /// Disk operations of this world, counted from 0 in the order in which they were asked for.
    pub operation: u64,
    pub repeat: Repeat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    Once,
    /// Every operation from there on: the device is gone.
    Forever,
}

impl Faults {
    /// Some of the faults that no one is told of and that cost nothing acknowledged: slow operations,
    /// pauses, jumps of the wall clock.
    pub fn harmless(rng: &mut Rng) -> Faults {
        Faults {
            slow: sometimes(rng, 100),
            clock_jump: sometimes(rng, 10),
            core_pause: sometimes(rng, 200),
            ..Faults::default()
        }
    }

    /// The same, and some of those that callers see: errors of every kind and operations that never
    /// end. What was acknowledged must still survive all of them.
    pub fn failing(rng: &mut Rng) -> Faults {
        Faults {
            read_error: sometimes(rng, 100),
            write_error: sometimes(rng, 100),
            sync_error: sometimes(rng, 100),
            no_space: sometimes(rng, 10),
            stuck: sometimes(rng, 500),
            ..Faults::harmless(rng)
        }
    }
}

/// Never in half of the worlds; else once in `n` to `16 * n` times.
fn sometimes(rng: &mut Rng, n: u32) -> Chance {
    match rng.coin() {
        true => Chance::NEVER,
        false => Chance::one_in(n << rng.below(5)),
    }
}

impl FailAt {
    pub(super) fn covers(self, operation: u64) -> bool {
        match self.repeat {
            Repeat::Once => operation == self.operation,
            Repeat::Forever => operation >= self.operation,
        }
    }
}
