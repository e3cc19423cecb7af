//! A durable record made true: its changes enter the index, and what they replace gives its room back.
//!
//! Invariant: bytes that an entry of the index keeps in place are counted once, in the segment where they lie: from the
//! moment of the entry to that of its end. It must not wait: a record's changes become true together.

use crate::engine::Machine;
use crate::engine::core::Core;
use crate::engine::entry::{Extent, Object, Part};
use crate::engine::group_commit::Record;
use crate::engine::message::Refusal;
use crate::engine::planted::{Fault, planted};
use crate::index::key::{self, Named};
use crate::index::{Entry, Go};
use crate::io::SegmentId;
use crate::log;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What a change takes in the log at least, if it has a batch for itself.
const RECORD_BYTES_MIN: u64 = log::ALIGN_BYTES as u64;

impl<I: Machine> Core<I> {
    /// Makes the changes of a durable record in the index, and accounts for what they replace.
    pub fn apply(self: &Rc<Self>, record: &Record, home: SegmentId) {
        if let Some(moved) = &record.moved
            && !self.is_still_said_by(record)
        {
            return self.discard(moved);
        }
        if record.moved.is_none() {
            self.note_change(RECORD_BYTES_MIN + record.body.len() as u64);
        }
        let kept = kept_extents(record);
        if !record.body.is_empty() {
            self.account_here(home, record.body.len() as i64);
        }
        for change in &record.changes {
            let replaced = match &change.value {
                Some(value) => {
                    self.holdings.came(&change.key, value);
                    let entry = Entry {
                        sequence: record.sequence,
                        value: value.as_slice().into(),
                    };
                    self.index.borrow_mut().put(&change.key, entry)
                }
                None => {
                    self.drop_parts(&change.key, &kept, record.sequence);
                    self.index.borrow_mut().remove(&change.key, record.sequence)
                }
            };
            // Before the room of what was replaced is given back: whoever still finds it holds a guard by then.
            self.versions.raise(&change.key);
            let is_released = record.moved.is_some() && planted(Fault::MovedFreedEarly);
            if let Some(replaced) = replaced.filter(|_| !planted(Fault::ReplacedKept) && !is_released) {
                self.release(&change.key, &replaced, &kept);
                if record.moved.is_none() {
                    let ended = extents_of(&change.key, &replaced.value);
                    self.note_change(ended.iter().map(|extent| u64::from(extent.disk_bytes())).sum());
                }
            }
        }
    }

    /// Whether the entry that a record of the cleaner moves is still there. A bucket that went, or an upload, took
    /// those in it along.
    fn is_still_said_by(&self, record: &Record) -> bool {
        let index = self.index.borrow();
        let entry = record.changes.first().and_then(|change| index.get(&change.key));
        entry.is_some_and(|entry| entry.sequence == record.sequence) || planted(Fault::MovedUnchecked)
    }

    /// When an upload ends its parts go, all but the extents that the object made of them keeps.
    pub fn drop_parts(self: &Rc<Self>, index_key: &[u8], kept: &BTreeSet<(SegmentId, u32)>, sequence: u64) {
        if !key::is_upload(index_key) {
            return;
        }
        let parts = self.index.borrow().prefixed_in_memory(index_key);
        for part in parts.iter().filter(|part| *part != index_key) {
            let entry = self.index.borrow_mut().remove(part, sequence);
            self.release(part, &entry.expect("found above"), kept);
        }
    }

    /// What the entries of this core, and the runs of its index, keep in place, by segment.
    ///
    /// # Errors
    /// `DiskFailed`, `Damaged`.
    pub async fn live_bytes_implied(self: &Rc<Self>) -> Result<BTreeMap<SegmentId, i64>, Refusal> {
        let _guard = self.guard();
        let mut live = BTreeMap::new();
        self.walk_index(Vec::new(), |index_key, entry| {
            for extent in extents_of(index_key, entry.value) {
                *live.entry(extent.segment).or_default() += i64::from(extent.disk_bytes());
            }
            Go::On
        })
        .await?;
        for extent in self.checkpoints.extents() {
            *live.entry(SegmentId(extent.segment)).or_default() += i64::from(extent.length);
        }
        Ok(live)
    }

    /// Accounts for an entry that is no more.
    pub fn release(self: &Rc<Self>, index_key: &[u8], entry: &Entry, kept: &BTreeSet<(SegmentId, u32)>) {
        self.holdings.went(index_key, &entry.value);
        for extent in extents_of(index_key, &entry.value) {
            if kept.is_empty() || !kept.contains(&(extent.segment, extent.offset)) {
                self.account_here(extent.segment, -i64::from(extent.disk_bytes()));
            }
        }
    }
}

/// Extents that a record's new values share with values that it replaces.
fn kept_extents(record: &Record) -> BTreeSet<(SegmentId, u32)> {
    // A record with a body of its own shares nothing; nor does a delete.
    if !record.body.is_empty() {
        return BTreeSet::new();
    }
    let puts = record
        .changes
        .iter()
        .filter_map(|change| Some((&change.key, change.value.as_ref()?)));
    puts.flat_map(|(key, value)| extents_of(key, value))
        .map(|extent| (extent.segment, extent.offset))
        .collect()
}

/// The extents that an entry keeps in place.
pub fn extents_of(index_key: &[u8], value: &[u8]) -> Box<[Extent]> {
    const CHECKED: &str = "the index holds values that were checked";
    match key::parse(index_key).expect(CHECKED) {
        Named::Object { .. } => Object::decode(value).expect(CHECKED).extents,
        Named::Part { .. } => Part::decode(value).expect(CHECKED).extents,
        Named::Upload { .. } | Named::Bucket { .. } => Box::default(),
    }
}
