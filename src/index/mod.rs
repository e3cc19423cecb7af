//! One core's ordered index: encoded keys to the content of the commit record that made each true.
//!
//! Pure data: no I/O, no clock. Keys and values are bytes (see `key`), so that sorted runs on disk can hold
//! the same bytes. Invariant: an entry is here only if the record that made it true is on stable storage.

pub mod key;
mod walk;

pub use walk::{KeyPage, KeyWalk, UploadWalk, WalkItem};

use std::collections::BTreeMap;
use std::ops::Bound;

/// What the index knows of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Orders all records of a key, over restarts.
    pub sequence: u64,
    /// Log segment that holds the record.
    pub home_segment: u32,
    /// Bytes of that segment which stay live while this entry does.
    pub home_bytes: u32,
    /// The lives of logs that may still hold a record of the key.
    pub lives: Lives,
    /// Encoded value; the engine's `entry` module knows its layout.
    pub value: Box<[u8]>,
}

/// A run of lives of logs, by generation. In 32 bits each, so that it takes a word of every entry: what is
/// beyond them counts as the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lives {
    first: u32,
    last: u32,
}

impl Lives {
    /// The one life of that generation.
    pub fn one(generation: u64) -> Lives {
        let generation = u32::try_from(generation).unwrap_or(u32::MAX);
        Lives {
            first: generation,
            last: generation,
        }
    }

    /// From the earlier of both firsts to the later of both lasts.
    pub fn and(self, other: Lives) -> Lives {
        Lives {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        }
    }

    /// The generations, none of them missing.
    pub fn generations(self) -> std::ops::RangeInclusive<u64> {
        let last = match self.last {
            u32::MAX => u64::MAX,
            last => u64::from(last),
        };
        u64::from(self.first)..=last
    }
}

/// The ordered map of one core.
#[derive(Default)]
pub struct Index {
    map: BTreeMap<Box<[u8]>, Entry>,
}

impl Index {
    /// The entry of `key`.
    pub fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.map.get(key)
    }

    /// Sets `key`; returns what was there, whose `lives` are added.
    pub fn put(&mut self, key: &[u8], mut entry: Entry) -> Option<Entry> {
        // An overwrite keeps the key's memory: only a new key is copied.
        if let Some(slot) = self.map.get_mut(key) {
            entry.lives = entry.lives.and(slot.lives);
            return Some(std::mem::replace(slot, entry));
        }
        self.map.insert(key.into(), entry)
    }

    /// Removes `key`; returns what was there.
    pub fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        self.map.remove(key)
    }

    /// Entries from `from` on (inclusive), in order.
    pub fn range_from<'a>(&'a self, from: &[u8]) -> impl Iterator<Item = (&'a [u8], &'a Entry)> + use<'a> {
        self.map
            .range::<[u8], _>((Bound::Included(from), Bound::Unbounded))
            .map(|(k, v)| (&**k, v))
    }

    /// Entries whose key starts with `prefix`, in order.
    pub fn prefixed<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a Entry)> + use<'a> {
        self.range_from(prefix)
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// Drops every entry for which `keep` says no.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &mut Entry) -> bool) {
        self.map.retain(|key, entry| keep(key, entry));
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
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
