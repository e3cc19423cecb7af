//! What a core's index holds, counted as it changes: objects, and uploads that nobody has finished, with what their
//! parts take.
//!
//! Invariant: every entry that comes into the index is counted once, when it does, and once when it goes. An entry that
//! takes another's place is a coming and a going.

use crate::engine::Machine;
use crate::engine::core::Core;
use crate::engine::entry::Part;
use crate::engine::message::Refusal;
use crate::index::Go;
use crate::index::key::{self, Named};
use std::cell::Cell;

/// Counts of a core's index.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Holdings {
    pub objects: Cell<u64>,
    /// Uploads that were begun, and neither completed nor aborted.
    pub uploads: Cell<u64>,
    /// Parts of those, and the bytes of the bodies that were sent for them.
    pub parts: Cell<u64>,
    pub part_bytes: Cell<u64>,
}

impl Holdings {
    /// An entry has come into the index.
    pub fn came(&self, index_key: &[u8], value: &[u8]) {
        self.note(index_key, value, u64::wrapping_add);
    }

    /// An entry is no more.
    pub fn went(&self, index_key: &[u8], value: &[u8]) {
        self.note(index_key, value, u64::wrapping_sub);
    }

    fn note(&self, index_key: &[u8], value: &[u8], change: fn(u64, u64) -> u64) {
        let by = |count: &Cell<u64>, amount| count.set(change(count.get(), amount));
        // Nearly all are objects, and need no closer look.
        if key::is_object(index_key) {
            return by(&self.objects, 1);
        }
        match key::parse(index_key) {
            Some(Named::Upload { .. }) => by(&self.uploads, 1),
            Some(Named::Part { .. }) => {
                by(&self.parts, 1);
                by(&self.part_bytes, Part::decode(value).map_or(0, |part| part.size));
            }
            Some(Named::Object { .. } | Named::Bucket { .. }) | None => {}
        }
    }
}

impl<I: Machine> Core<I> {
    /// What this core's index holds, counted anew.
    ///
    /// # Errors
    /// `DiskFailed`, `Damaged`.
    pub async fn holdings_implied(&self) -> Result<Holdings, Refusal> {
        let _guard = self.guard();
        let holdings = Holdings::default();
        self.walk_index(Vec::new(), |index_key, entry| {
            holdings.came(index_key, entry.value);
            Go::On
        })
        .await?;
        Ok(holdings)
    }
}
