//! What happened in a world: counts, a fingerprint, and if wanted the last events as text.
//!
//! A history goes with the disk from one boot to the next, so that a failing seed shows what came
//! before the restart. It only watches: nothing in the world depends on it.

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
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} boots, {} crashes, {} kills, {} steps, {} messages; {} reads ({} KiB), {} writes ({} KiB), \
             {} syncs, {} allocations; unsynced writes: {} kept, {} lost, {} torn; errors: {} read, {} write, \
             {} sync, {} allocate, {} list, {} stuck; {} silent writes, {} bits rotted",
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
        )
    }
}

#[derive(Clone, Default)]
pub(super) struct History {
    pub stats: Stats,
    fingerprint: u64,
    lines: VecDeque<String>,
    lines_max: usize,
}

impl History {
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
