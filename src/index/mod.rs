//! One core's ordered index: encoded keys to the content of the commit record that made each true.
//!
//! Three layers, the newer hides the older: the *active* table, in memory, which takes all changes; the *frozen* one,
//! which is being written out as a run; and the *runs* on disk, newest first (see `run`). Deletes leave tombstones
//! where an older layer may have the key.
//!
//! What decides or makes changes must not wait, so it looks at memory alone. Before it does, what the runs have of its
//! keys is *loaded*: kept beside the tables until the change is made or refused.
//!
//! No I/O, no clock: where a page of a run is needed, a step says so (`Need`), and is taken again with the page at hand.
//! Invariant: an entry is here only if the record that made it true is on stable storage.

mod base;
mod build;
mod cursor;
mod filter;
pub mod key;
mod manifest;
mod merge;
mod page;
mod run;
#[cfg(test)]
mod testing;
mod walk;

pub use base::Base;
pub use build::RunBuilder;
pub use cursor::RunCursor;
pub use manifest::{
    INDEX_START, LogPosition, MANIFEST_BYTES, Manifest, ManifestCopy, RunPlace, manifest_copies,
    manifest_offset,
};
pub use merge::MergeCursor;
pub use page::{
    PAGE_ALIGN_BYTES, PAGE_BYTES_MAX, Page, PageAddress, PageError, PageFault, RUN_KEY_BYTES_MAX,
    RUN_VALUE_BYTES_MAX,
};
pub use run::{Hit, Item, Need, Pages, Run, find};
pub use walk::{Cursor, Go, KeyPage, KeyWalk, ObjectWalker, UploadWalk, UploadWalker, WalkItem, Walked};

use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

/// What the index knows of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Orders all records of a key, over restarts.
    pub sequence: u64,
    /// Encoded value; the engine's `entry` module knows its layout.
    pub value: Box<[u8]>,
}

/// An entry where it stands.
#[derive(Clone, Copy, Debug)]
pub struct EntryRef<'a> {
    pub sequence: u64,
    pub value: &'a [u8],
}

/// What a table says of a key.
#[derive(Clone, Debug)]
pub struct Slot {
    pub sequence: u64,
    /// `None`: the key was deleted.
    pub value: Option<Box<[u8]>>,
    /// Whether an older layer may have the key.
    hides: bool,
}

/// A table in memory.
pub type Table = BTreeMap<Box<[u8]>, Slot>;

/// Says whether a key belongs to an index.
pub type Shown = Rc<dyn Fn(&[u8]) -> bool>;

/// Memory that a slot takes besides its key and value.
const SLOT_BYTES: usize = 112;

/// The ordered map of one core.
#[derive(Default)]
pub struct Index {
    active: Table,
    active_bytes: usize,
    frozen: Option<Rc<Table>>,
    runs: Rc<[Run]>,
    /// Counts changes of `frozen` and `runs`.
    shape: u64,
    /// Which keys of the runs belong here, if not all do.
    shown: Option<Shown>,
    /// What the runs say of keys that are about to change; `None`: nothing.
    loaded: BTreeMap<Box<[u8]>, Option<Entry>>,
}

impl Slot {
    fn entry(&self) -> Option<EntryRef<'_>> {
        let value = self.value.as_deref()?;
        Some(EntryRef {
            sequence: self.sequence,
            value,
        })
    }

    fn into_entry(self) -> Option<Entry> {
        let value = self.value?;
        Some(Entry {
            sequence: self.sequence,
            value,
        })
    }

    fn bytes(&self, key: &[u8]) -> usize {
        SLOT_BYTES + key.len() + self.value.as_ref().map_or(0, |value| value.len())
    }
}

impl Entry {
    fn as_ref(&self) -> EntryRef<'_> {
        EntryRef {
            sequence: self.sequence,
            value: &self.value,
        }
    }
}

impl EntryRef<'_> {
    pub fn to_entry(self) -> Entry {
        Entry {
            sequence: self.sequence,
            value: self.value.into(),
        }
    }
}

impl Index {
    /// The entry of a key that memory knows of: one that is in a table or loaded, or that no run can have.
    pub fn get(&self, key: &[u8]) -> Option<EntryRef<'_>> {
        self.in_memory(key).flatten()
    }

    /// What memory says of `key`: `None` if the runs must be asked.
    pub fn in_memory(&self, key: &[u8]) -> Option<Option<EntryRef<'_>>> {
        if let Some(slot) = self.active.get(key) {
            return Some(slot.entry());
        }
        if let Some(slot) = self.frozen.as_ref().and_then(|frozen| frozen.get(key)) {
            return Some(slot.entry());
        }
        if let Some(loaded) = self.loaded.get(key) {
            return Some(loaded.as_ref().map(Entry::as_ref));
        }
        self.runs.is_empty().then_some(None)
    }

    /// Notes what the runs say of a key, until it changes or [`Index::unload`].
    pub fn load(&mut self, key: &[u8], entry: Option<Entry>) {
        self.loaded.insert(key.into(), entry);
    }

    /// Forgets what was loaded of a key.
    pub fn unload(&mut self, key: &[u8]) {
        if !self.loaded.is_empty() {
            self.loaded.remove(key);
        }
    }

    /// Loaded keys that start with `prefix`.
    pub fn loaded_prefixed(&self, prefix: &[u8]) -> Vec<Box<[u8]>> {
        let range = self
            .loaded
            .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
        let keys = range
            .map(|(key, _)| key)
            .take_while(|key| key.starts_with(prefix));
        keys.cloned().collect()
    }

    /// How many keys are loaded.
    pub fn loaded_len(&self) -> usize {
        self.loaded.len()
    }

    /// Sets `key`; returns what was there, as far as memory knows.
    pub fn put(&mut self, key: &[u8], entry: Entry) -> Option<Entry> {
        self.change(key, entry.sequence, Some(entry.value))
    }

    /// Removes `key`; returns what was there, as far as memory knows.
    pub fn remove(&mut self, key: &[u8], sequence: u64) -> Option<Entry> {
        self.change(key, sequence, None)
    }

    fn change(&mut self, key: &[u8], sequence: u64, value: Option<Box<[u8]>>) -> Option<Entry> {
        let loaded = match self.loaded.is_empty() {
            true => None,
            false => self.loaded.remove(key),
        };
        // An overwrite keeps the key's memory: only a new key is copied.
        if let Some(slot) = self.active.get_mut(key) {
            let before = slot.bytes(key);
            let replaced = std::mem::replace(
                slot,
                Slot {
                    sequence,
                    value,
                    hides: slot.hides,
                },
            );
            self.active_bytes = self.active_bytes + slot.bytes(key) - before;
            if slot.value.is_none() && !slot.hides {
                self.active_bytes -= slot.bytes(key);
                self.active.remove(key);
            }
            return replaced.into_entry();
        }
        let frozen = self.frozen.as_ref().and_then(|frozen| frozen.get(key));
        let (replaced, hides) = match (frozen, loaded) {
            (Some(slot), _) => (slot.clone().into_entry(), true),
            (None, Some(entry)) => {
                let hides = entry.is_some();
                (entry, hides)
            }
            // Nobody looked: a key that is new by itself, or what recovery reads.
            (None, None) => (None, !self.runs.is_empty()),
        };
        let slot = Slot {
            sequence,
            value,
            hides,
        };
        if slot.value.is_some() || hides {
            self.active_bytes += slot.bytes(key);
            self.active.insert(key.into(), slot);
        }
        replaced
    }

    /// Keys that start with `prefix` and that memory has an entry of.
    pub fn prefixed_in_memory(&self, prefix: &[u8]) -> Vec<Vec<u8>> {
        let from = || (Bound::Included(prefix), Bound::Unbounded);
        let mut keys: Vec<&[u8]> = Vec::new();
        keys.extend(
            self.active
                .range::<[u8], _>(from())
                .map(|(key, _)| &**key)
                .take_while(|key| key.starts_with(prefix)),
        );
        if let Some(frozen) = &self.frozen {
            keys.extend(
                frozen
                    .range::<[u8], _>(from())
                    .map(|(key, _)| &**key)
                    .take_while(|key| key.starts_with(prefix)),
            );
        }
        keys.extend(
            self.loaded
                .range::<[u8], _>(from())
                .map(|(key, _)| &**key)
                .take_while(|key| key.starts_with(prefix)),
        );
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| self.get(key).is_some());
        keys.into_iter().map(<[u8]>::to_vec).collect()
    }

    /// Whether there is nothing in memory that a run does not have.
    pub fn is_clean(&self) -> bool {
        self.active.is_empty() && self.frozen.is_none()
    }

    /// Memory of the active table.
    pub fn active_bytes(&self) -> usize {
        self.active_bytes
    }

    /// Slots of the active table.
    pub fn active_len(&self) -> usize {
        self.active.len()
    }

    /// The table that is being written out.
    pub fn frozen(&self) -> Option<&Rc<Table>> {
        self.frozen.as_ref()
    }

    /// Sets the active table aside: from here on it is written out. There is no other one under way.
    pub fn freeze(&mut self) -> Rc<Table> {
        assert!(self.frozen.is_none(), "one table is written out at a time");
        let frozen = Rc::new(std::mem::take(&mut self.active));
        self.active_bytes = 0;
        self.frozen = Some(frozen.clone());
        self.shape += 1;
        frozen
    }

    /// The runs have all that the frozen table has. What it says of the wanted keys stays loaded.
    pub fn thaw(&mut self, runs: Rc<[Run]>, wanted: &[Vec<u8>]) -> Option<Rc<Table>> {
        let frozen = self.frozen.take();
        if let Some(frozen) = &frozen {
            for wanted in wanted {
                // The parts of an upload come right behind it, and are wanted with it.
                let with_more = key::is_upload(wanted);
                let range = frozen.range::<[u8], _>((Bound::Included(wanted.as_slice()), Bound::Unbounded));
                for (key, slot) in range.take_while(|(key, _)| match with_more {
                    true => key.starts_with(wanted),
                    false => ***key == **wanted,
                }) {
                    if !self.active.contains_key(key) {
                        self.loaded.insert(key.clone(), slot.clone().into_entry());
                    }
                }
            }
        }
        self.set_runs(runs);
        frozen
    }

    /// The runs on disk, newest first.
    pub fn runs(&self) -> &Rc<[Run]> {
        &self.runs
    }

    /// Other runs hold the same: some were merged.
    pub fn set_runs(&mut self, runs: Rc<[Run]>) {
        self.runs = runs;
        self.shape += 1;
    }

    /// Walks show of the runs only what belongs here; `None`: all does.
    pub fn show_only(&mut self, shown: Option<Shown>) {
        self.shown = shown;
    }

    /// Says whether a key of the runs belongs here.
    pub fn is_shown(&self) -> Shown {
        self.shown.clone().unwrap_or_else(|| Rc::new(|_| true))
    }

    /// What the runs say, as they are now.
    pub fn without_tables(&self) -> Index {
        Index {
            runs: self.runs.clone(),
            shown: self.shown.clone(),
            ..Index::default()
        }
    }

    /// An index that stays as this one is now.
    pub fn snapshot(&self) -> Index {
        let mut table = self.frozen.as_deref().cloned().unwrap_or_default();
        table.extend(self.active.iter().map(|(key, slot)| (key.clone(), slot.clone())));
        Index {
            frozen: Some(Rc::new(table)),
            runs: self.runs.clone(),
            shown: self.shown.clone(),
            ..Index::default()
        }
    }

    /// Changes when the runs do, or the table in front of them: what was looked up before may be out of date.
    pub fn shape(&self) -> u64 {
        self.shape
    }

    /// What the newest run that knows `key` says of it. The tables come before it.
    ///
    /// # Errors
    /// The page that is needed first.
    pub fn find_in_runs(&self, key: &[u8], pages: &impl Pages) -> Result<Option<Entry>, Need> {
        find_in(&self.runs, key, pages)
    }
}

/// What the newest of `runs` that knows `key` says of it.
///
/// # Errors
/// The page that is needed first.
pub fn find_in(runs: &[Run], key: &[u8], pages: &impl Pages) -> Result<Option<Entry>, Need> {
    for run in runs {
        if let Some(hit) = find(run, key, pages)? {
            return Ok(hit.value().map(|value| Entry {
                sequence: hit.sequence(),
                value: value.into(),
            }));
        }
    }
    Ok(None)
}

/// Gives a table's memory back a little at a time; `None` when all is.
pub fn dismantle(table: &mut Table, slots: usize) -> Option<()> {
    for _ in 0..slots {
        table.pop_first()?;
    }
    Some(())
}

/// The least byte string greater than every string that starts with `prefix`; `None` if there is none.
pub fn successor_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&b| b != 0xff)?;
    let mut successor = prefix[..=last].to_vec();
    successor[last] += 1;
    Some(successor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successor_skips_trailing_ff() {
        assert_eq!(successor_of_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(successor_of_prefix(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(successor_of_prefix(b"\xff"), None);
        assert_eq!(successor_of_prefix(b""), None);
    }
}
