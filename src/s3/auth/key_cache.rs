//! Signing keys of Version 4, kept for as long as they are used.
//!
//! Deriving one takes four HMACs; checking a signature takes one. A key depends on secret, day, region and
//! service, and the service is always s3. Invariants: at most [`ENTRIES_MAX`] keys; a key is only put in
//! after a signature made with it was right, so that nobody without a secret can push keys out; a key is
//! only found together with the secret that it was derived from, so that a changed secret takes effect at
//! once. A lookup must not allocate.

use ring::hmac;

/// Keys that one core keeps. A user signs with one key per day and region.
const ENTRIES_MAX: usize = 64;

/// The signing keys of one core, bounded; the one unused for longest makes room.
#[derive(Default)]
pub struct KeyCache {
    entries: Vec<Entry>,
    /// Counts lookups, so that entries know when they were last used.
    lookups: u64,
}

struct Entry {
    access_key: Box<str>,
    secret: Box<[u8]>,
    day: Box<[u8]>,
    region: Box<str>,
    key: hmac::Key,
    used: u64,
}

/// What a signing key is derived from, and whose it is.
#[derive(Clone, Copy)]
pub(super) struct KeyId<'a> {
    pub access_key: &'a str,
    pub secret: &'a [u8],
    /// `20130524`
    pub day: &'a [u8],
    pub region: &'a str,
}

impl KeyCache {
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `check` with the key of `id`, and keeps the key if that succeeds.
    pub(super) fn with_key<T, E>(
        &mut self,
        id: KeyId<'_>,
        check: impl FnOnce(&hmac::Key) -> Result<T, E>,
    ) -> Result<T, E> {
        self.lookups += 1;
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.is(id)) {
            entry.used = self.lookups;
            return check(&entry.key);
        }
        let key = derive(id);
        let checked = check(&key)?;
        self.insert(id, key);
        Ok(checked)
    }

    fn insert(&mut self, id: KeyId<'_>, key: hmac::Key) {
        let entry = Entry {
            access_key: id.access_key.into(),
            secret: id.secret.into(),
            day: id.day.into(),
            region: id.region.into(),
            key,
            used: self.lookups,
        };
        if self.entries.len() < ENTRIES_MAX {
            self.entries.push(entry);
        } else if let Some(oldest) = self.entries.iter_mut().min_by_key(|entry| entry.used) {
            *oldest = entry;
        }
    }
}

impl Entry {
    fn is(&self, id: KeyId<'_>) -> bool {
        // Neither secret is the requester's, so how long this comparison takes tells nothing.
        *self.access_key == *id.access_key
            && *self.region == *id.region
            && *self.day == *id.day
            && *self.secret == *id.secret
    }
}

/// Amazon S3 API Reference, "Signature Calculations for the Authorization Header", task 3: the signing key.
fn derive(id: KeyId<'_>) -> hmac::Key {
    let secret = [b"AWS4", id.secret].concat();
    let messages = [id.day, id.region.as_bytes(), b"s3", b"aws4_request"];
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
    messages.iter().fold(key, |key, message| {
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, message).as_ref())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id<'a>(access_key: &'a str, secret: &'a [u8], day: &'a [u8], region: &'a str) -> KeyId<'a> {
        KeyId {
            access_key,
            secret,
            day,
            region,
        }
    }

    fn sign(cache: &mut KeyCache, id: KeyId<'_>) -> Vec<u8> {
        cache
            .with_key(id, |key| Ok::<_, ()>(hmac::sign(key, b"m").as_ref().to_vec()))
            .unwrap()
    }

    #[test]
    fn each_part_of_the_identity_makes_another_key() {
        let mut cache = KeyCache::new();
        let ids = [
            id("a", b"s", b"20130524", "r"),
            id("b", b"s", b"20130524", "r"),
            id("a", b"t", b"20130524", "r"),
            id("a", b"s", b"20130525", "r"),
            id("a", b"s", b"20130524", "q"),
        ];
        for id in ids {
            let expected = hmac::sign(&derive(id), b"m").as_ref().to_vec();
            assert_eq!(sign(&mut cache, id), expected);
            assert_eq!(sign(&mut cache, id), expected);
        }
        assert_eq!(cache.entries.len(), ids.len());
    }

    #[test]
    fn a_failed_check_leaves_nothing() {
        let mut cache = KeyCache::new();
        for i in 0..1000 {
            let region = format!("region-{i}");
            assert_eq!(
                cache.with_key(id("a", b"s", b"20130524", &region), |_| Err::<(), _>("wrong")),
                Err("wrong")
            );
        }
        assert!(cache.entries.is_empty());
    }

    #[test]
    fn the_key_unused_for_longest_makes_room() {
        let mut cache = KeyCache::new();
        let regions: Vec<String> = (0..ENTRIES_MAX).map(|i| format!("region-{i}")).collect();
        for region in &regions {
            sign(&mut cache, id("a", b"s", b"20130524", region));
        }
        sign(&mut cache, id("a", b"s", b"20130524", "region-0"));
        sign(&mut cache, id("a", b"s", b"20130524", "one-more"));
        assert_eq!(cache.entries.len(), ENTRIES_MAX);
        let has = |region: &str| cache.entries.iter().any(|entry| &*entry.region == region);
        assert!(has("region-0") && has("one-more") && !has("region-1") && has("region-2"));
    }
}
