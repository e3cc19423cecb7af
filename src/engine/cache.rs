//! What lookups found, kept on the core that asked: small bodies too, because direct I/O has no page cache behind it.
//!
//! A hit asks no other core, and must all the same be what the key's owner would say now. So each owner counts
//! changes: its [`Versions`] has many counters, each for the keys that hash to it, and an owner raises a key's
//! counter when a change of it becomes true, before anybody is told. An entry carries the count at which it was
//! looked up, and is of use while the owner's counter stands there. A read is one load of a shared counter; no
//! message and no lock. Overwriting and deleting need not touch the caches: what they leave behind is evicted.
//!
//! Invariants: only the owner writes its counters. What is given out was true, and verified, when the counter was
//! loaded: a change that came to be after that is concurrent with the read. Whoever reads extents of what he
//! finds here took his guard before he looked, as with any lookup (see [`super::reads`]).

use crate::engine::entry::Object;
use crate::engine::planted::{Fault, planted};
use quick_cache::Weighter;
use quick_cache::unsync::Cache;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use xxhash_rust::xxh3::{Xxh3Builder, xxh3_64};

/// Counters of one owner. Two keys that share one cost each other hits, nothing else.
const COUNTERS: usize = 1 << 16;
/// Bytes of an entry besides its key and body.
const ENTRY_BYTES: u64 = 512;
/// Bytes of an encoded object that are still cached: one of many extents is not.
const ENCODED_BYTES_MAX: usize = 4096;
/// The body length that the number of entries is guessed from.
const BODY_BYTES_GUESS: u64 = 4096;

/// How often keys of one owner changed in this run.
#[derive(Clone, Debug)]
pub struct Versions(Arc<[AtomicU64]>);

impl Versions {
    pub fn new() -> Versions {
        Versions((0..COUNTERS).map(|_| AtomicU64::new(0)).collect())
    }

    /// How often the key, or one that shares its counter, has changed. Read before or with the index, never after it.
    pub fn of(&self, index_key: &[u8]) -> u64 {
        self.counter(index_key).load(Ordering::Acquire)
    }

    /// The index says something else of this key from now on. For the owner.
    pub fn raise(&self, index_key: &[u8]) {
        if planted(Fault::StaleCache) {
            return;
        }
        let counter = self.counter(index_key);
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    fn counter(&self, index_key: &[u8]) -> &AtomicU64 {
        &self.0[xxh3_64(index_key) as usize % COUNTERS]
    }
}

/// One core's cache, by index key.
pub struct LookupCache(RefCell<Cache<Box<[u8]>, Cached, Weight, Xxh3Builder>>);

/// What a lookup found.
#[derive(Clone)]
pub struct Cached {
    /// The owner's count when it looked.
    pub version: u64,
    pub sequence: u64,
    pub object: Rc<Object>,
    /// The whole body, verified; of small objects whose body was asked for.
    pub body: Option<Arc<[u8]>>,
}

struct Weight;

impl Weighter<Box<[u8]>, Cached> for Weight {
    fn weight(&self, key: &Box<[u8]>, cached: &Cached) -> u64 {
        let body = cached.body.as_ref().map_or(0, |body| body.len());
        (key.len() + cached.object.attributes.len() + body) as u64 + ENTRY_BYTES
    }
}

impl LookupCache {
    /// An empty cache of up to `bytes_max`. The seed should be unknown to those who choose keys.
    pub fn new(bytes_max: u64, seed: u64) -> LookupCache {
        LookupCache(RefCell::new(Cache::with(
            (bytes_max / BODY_BYTES_GUESS) as usize,
            bytes_max,
            Weight,
            Xxh3Builder::new().with_seed(seed),
            Default::default(),
        )))
    }

    /// What is known of a key, if its owner still counts `version`.
    pub fn get(&self, index_key: &[u8], version: u64) -> Option<Cached> {
        let cache = self.0.borrow();
        let cached = cache.get(index_key)?;
        (cached.version == version).then(|| cached.clone())
    }

    /// Entries, and bytes that they count as.
    pub fn usage(&self) -> (usize, u64) {
        let cache = self.0.borrow();
        (cache.len(), cache.weight())
    }

    /// Keeps what was found, unless it is long. `encoded_bytes` is the length of its object in the index.
    pub fn put(&self, index_key: Vec<u8>, encoded_bytes: usize, cached: Cached) {
        if encoded_bytes <= ENCODED_BYTES_MAX {
            self.0.borrow_mut().insert(index_key.into_boxed_slice(), cached);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::entry::ETag;

    const BYTES_MAX: u64 = 8 << 20;

    fn found(version: u64, body: &[u8]) -> Cached {
        let object = Object {
            size: body.len() as u64,
            etag: ETag {
                md5: [0; 16],
                parts: 0,
            },
            modified_ms: 0,
            upload: None,
            part_sizes: Box::default(),
            attributes: Box::default(),
            extents: Box::default(),
        };
        Cached {
            version,
            sequence: 0,
            object: Rc::new(object),
            body: Some(body.into()),
        }
    }

    #[test]
    fn what_was_found_is_of_use_until_its_owner_counts_a_change() {
        let (cache, versions) = (LookupCache::new(BYTES_MAX, 1), Versions::new());
        let remote = versions.clone();
        cache.put(b"a".to_vec(), 100, found(versions.of(b"a"), b"first"));
        let hit = cache.get(b"a", remote.of(b"a")).expect("nothing has changed");
        assert_eq!(hit.body.as_deref(), Some(&b"first"[..]));
        assert!(cache.get(b"b", remote.of(b"b")).is_none());
        versions.raise(b"a");
        assert!(cache.get(b"a", remote.of(b"a")).is_none());
        cache.put(b"a".to_vec(), 100, found(versions.of(b"a"), b"second"));
        let hit = cache.get(b"a", remote.of(b"a")).expect("looked up again");
        assert_eq!(hit.body.as_deref(), Some(&b"second"[..]));
    }

    #[test]
    fn what_is_cached_stays_within_the_bound() {
        let cache = LookupCache::new(BYTES_MAX, 1);
        for number in 0..4 * BYTES_MAX / 65_536 {
            cache.put(number.to_be_bytes().to_vec(), 100, found(0, &[0; 65_536]));
        }
        cache.put(b"long".to_vec(), ENCODED_BYTES_MAX + 1, found(0, b""));
        assert!(cache.get(b"long", 0).is_none());
        let weight = cache.0.borrow().weight();
        assert!(weight <= BYTES_MAX && weight > BYTES_MAX / 2, "{weight}");
    }
}
