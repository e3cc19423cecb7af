//! What happened in a world: counts, a fingerprint, and if wanted the last events as text.
//!
//! A history goes with the disk from one boot to the next, so that a failing seed shows what came
//! before the restart. It only watches: nothing in the world depends on it. One that is dropped by a
//! panic prints itself, seeds first, because that is what brings one here again.

use std::collections::VecDeque;
use std::fmt;

/// Counts since the first boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub boots: u64,
    pub crashes: u64,
    pub kills: u64,
    pub steps: u64,
    pub messages: u64,
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub written_bytes: u64,
    pub syncs: u64,
    pub allocations: u64,
    /// Writes not durable when the power went, by what became of them.
    pub writes_kept: u64,
    pub writes_lost: u64,
    pub writes_torn: u64,
    pub read_errors: u64,
    pub write_errors: u64,
    pub sync_errors: u64,
    pub allocate_errors: u64,
    pub list_errors: u64,
    pub stuck: u64,
    /// Writes that a fault lost or misdirected though they succeeded.
    pub silent_writes: u64,
    pub bits_rotted: u64,
    /// Writes begun while another of one of their pages was in flight: which lands last is open, so an
    /// engine should have none.
    pub overlapping_writes: u64,
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} boots, {} crashes, {} kills, {} steps, {} messages; {} reads ({} KiB), {} writes ({} KiB), \
             {} syncs, {} allocations; unsynced writes: {} kept, {} lost, {} torn; errors: {} read, {} write, \
             {} sync, {} allocate, {} list, {} stuck; {} silent writes, {} bits rotted, {} overlapping writes",
            self.boots,
            self.crashes,
            self.kills,
            self.steps,
            self.messages,
            self.reads,
            self.read_bytes / 1024,
            self.writes,
            self.written_bytes / 1024,
            self.syncs,
            self.allocations,
            self.writes_kept,
            self.writes_lost,
            self.writes_torn,
            self.read_errors,
            self.write_errors,
            self.sync_errors,
            self.allocate_errors,
            self.list_errors,
            self.stuck,
            self.silent_writes,
            self.bits_rotted,
            self.overlapping_writes,
        )
    }
}

/// Told apart from the numbers of disk operations in the fingerprint.
const NOTE_BOOT: u64 = 2 << 60;
/// Boots whose seeds are remembered.
const BOOTS_MAX: usize = 32;

#[derive(Clone, Default)]
pub(super) struct History {
    pub stats: Stats,
    fingerprint: u64,
    boots: VecDeque<Boot>,
    lines: VecDeque<String>,
    lines_max: usize,
}

#[derive(Clone, Copy)]
struct Boot {
    epoch: u32,
    seed: u64,
    cores: usize,
}

impl History {
    pub fn boot(&mut self, now_ns: u64, epoch: u32, seed: u64, cores: usize) {
        self.stats.boots += 1;
        if self.boots.len() == BOOTS_MAX {
            self.boots.pop_front();
        }
        self.boots.push_back(Boot { epoch, seed, cores });
        let words = [NOTE_BOOT, seed, u64::from(epoch), cores as u64];
        self.note(now_ns, words, || {
            format!("boot {epoch} with {cores} cores from seed {seed}")
        });
    }

    pub fn keep_lines(&mut self, lines_max: usize) {
        self.lines_max = lines_max;
        self.lines.drain(..self.lines.len().saturating_sub(lines_max));
    }

    /// Notes an event: `words` go into the fingerprint, `text` into the trace if there is one.
    pub fn note(&mut self, now_ns: u64, words: [u64; 4], text: impl FnOnce() -> String) {
        for word in words.into_iter().chain([now_ns]) {
            self.fingerprint = (self.fingerprint ^ word)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29);
        }
        if self.lines_max == 0 {
            return;
        }
        if self.lines.len() == self.lines_max {
            self.lines.pop_front();
        }
        self.lines.push_back(format!(
            "{:>12}.{:03} us  {}",
            now_ns / 1000,
            now_ns % 1000,
            text()
        ));
    }

    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

impl Drop for History {
    fn drop(&mut self) {
        if !std::thread::panicking() || self.stats.boots == 0 {
            return;
        }
        for boot in &self.boots {
            eprintln!(
                "simulated boot {} with {} cores from seed {}",
                boot.epoch, boot.cores, boot.seed
            );
        }
        for line in &self.lines {
            eprintln!("{line}");
        }
        eprintln!("simulated world at its end: {}", self.stats);
    }
}
