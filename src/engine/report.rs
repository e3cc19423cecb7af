//! All that one core of the engine counts, copied at one moment: what another core may look at.
//!
//! Invariant: it owns all that it has, and making it waits for nothing and changes nothing. Its cost does not depend on
//! how much is stored, but on the segments of the volume (on the coordinator).

use crate::engine::Machine;
use crate::engine::budget::MemoryUse;
use crate::engine::checkpoint::IndexUse;
use crate::engine::core::{Core, Counters};
use crate::engine::holdings::Holdings;
use crate::engine::space::SpaceUse;
use std::time::Duration;

/// What a core counts, at one moment.
#[derive(Clone)]
pub struct CoreReport {
    pub counters: Counters,
    pub holdings: Holdings,
    /// Changes and answers that wait for the next batch, and bytes of the records among them.
    pub commits_waiting: usize,
    pub commit_bytes: usize,
    /// Requests to other cores that are not answered yet.
    pub open_calls: usize,
    /// Memory of bodies, of copies, of documents, and of the one document that may be long.
    pub bodies: MemoryUse,
    pub copies: MemoryUse,
    pub documents: MemoryUse,
    pub last_document: MemoryUse,
    pub cache_entries: usize,
    pub cache_bytes: u64,
    pub index: IndexUse,
    /// What a write of a MiB waits, so that the cleaner keeps up.
    pub delay_per_mib: Duration,
    /// Of the core that keeps the table: the volume's segments, and the buckets, which all cores know.
    pub space: Option<SpaceUse>,
    pub segment_bytes: u64,
    pub buckets: usize,
}

impl<I: Machine> Core<I> {
    /// What this core counts, now.
    pub fn report(&self) -> CoreReport {
        let (commits_waiting, commit_bytes) = self.commits.depth();
        let (cache_entries, cache_bytes) = self.cache.usage();
        CoreReport {
            counters: self.counters.clone(),
            holdings: self.holdings.clone(),
            commits_waiting,
            commit_bytes,
            open_calls: self.open_calls(),
            bodies: self.buffers.usage(),
            copies: self.copies.usage(),
            documents: self.documents.usage(),
            last_document: self.last_document.usage(),
            cache_entries,
            cache_bytes,
            index: self.index_use(),
            delay_per_mib: self.supply.delay_per_mib(),
            space: self.space_use(),
            segment_bytes: u64::from(self.io.volume().segment_size_bytes),
            buckets: self.buckets.borrow().count(),
        }
    }
}
