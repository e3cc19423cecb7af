//! How far a start has come, told while it goes on.
//!
//! All cores of a run share one. They count up in it when they have read a segment's front or a window of a log, which
//! is what a start's time goes into; whoever tells the operator or a balancer reads it.
//!
//! Invariant: nothing is decided by it.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Shared by the cores of a run.
#[derive(Default, Debug)]
pub struct StartProgress {
    stage: AtomicU8,
    /// Fronts of segments.
    segments: Share,
    /// Bytes of the logs that are read.
    log: Share,
}

/// So much of so much.
#[derive(Default, Debug)]
struct Share {
    total: AtomicU64,
    done: AtomicU64,
}

/// What a start is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartStage {
    /// What is in each segment is found out.
    Segments,
    /// The logs behind the last manifests are read.
    Log,
    /// What was read is made an index of.
    Index,
}

/// How far a start had come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StartedSoFar {
    pub stage: StartStage,
    /// Of 100, of this stage.
    pub percent: u8,
}

impl StartProgress {
    pub fn so_far(&self) -> StartedSoFar {
        let (stage, percent) = match self.stage.load(Ordering::Relaxed) {
            0 => (StartStage::Segments, self.segments.percent()),
            1 => (StartStage::Log, self.log.percent()),
            _ => (StartStage::Index, 100),
        };
        StartedSoFar { stage, percent }
    }

    /// A core found so many segments to look at.
    pub fn segments_found(&self, count: u64) {
        self.segments.total.fetch_add(count, Ordering::Relaxed);
    }

    pub fn segment_read(&self) {
        self.segments.done.fetch_add(1, Ordering::Relaxed);
    }

    /// A core has so many bytes of logs to read, at most.
    pub fn log_found(&self, bytes: u64) {
        self.log.total.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn log_read(&self, bytes: u64) {
        self.log.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What every core had to do before `stage` is done.
    pub fn begin(&self, stage: StartStage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }
}

impl Share {
    fn percent(&self) -> u8 {
        let total = self.total.load(Ordering::Relaxed);
        let done = self.done.load(Ordering::Relaxed).min(total);
        (done * 100).checked_div(total).unwrap_or(0) as u8
    }
}

impl fmt::Display for StartedSoFar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.percent;
        match self.stage {
            StartStage::Segments => write!(f, "recovering: {percent} % of the segments looked at"),
            StartStage::Log => write!(f, "recovering: {percent} % of the log read"),
            StartStage::Index => f.write_str("recovering: the log is read, the index is put together"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_told_by_its_stage_and_how_much_of_that_is_done() {
        let progress = StartProgress::default();
        let told = || progress.so_far().to_string();
        assert_eq!(told(), "recovering: 0 % of the segments looked at");
        progress.segments_found(3);
        progress.segment_read();
        assert_eq!(told(), "recovering: 33 % of the segments looked at");
        progress.begin(StartStage::Log);
        assert_eq!(told(), "recovering: 0 % of the log read");
        progress.log_found(1 << 40);
        progress.log_found(1 << 40);
        progress.log_read((1 << 40) - 1);
        assert_eq!(told(), "recovering: 49 % of the log read");
        // A log may go on behind what was expected of it.
        progress.log_read(1 << 42);
        assert_eq!(told(), "recovering: 100 % of the log read");
        progress.begin(StartStage::Index);
        assert_eq!(told(), "recovering: the log is read, the index is put together");
    }
}
