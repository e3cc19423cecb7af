//! At a start: what is gone is dropped, and what is there is accounted for.
//!
//! Which bytes of each segment are live follows from the entries of the index and from its runs, so it is counted, not
//! stored. With runs on disk that is a walk over all of them, which goes on while clients are served: it counts what was
//! there when it began, and whatever changes meanwhile is counted as it changes.
//!
//! Invariant: nothing is freed before every core has counted everything, and nothing at all if some of it cannot be read.

use crate::engine::Machine;
use crate::engine::apply::extents_of;
use crate::engine::core::{COORDINATOR, Core};
use crate::engine::message::{Note, Refusal};
use crate::engine::pages::Held;
use crate::engine::reads::Pins;
use crate::engine::recover::{Loss, RecoverError, Recovered};
use crate::index::key::{self, BucketId, Named};
use crate::index::{Cursor, EntryRef, Go, Index, Need, Walked, successor_of_prefix};
use crate::io::SegmentId;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

/// Bytes that the walk reads of a run at once.
const AUDIT_READ_BYTES: u32 = 256 * 1024;

/// How often a page is asked for that the disk does not give, and how far apart.
const FETCHES_MAX: usize = 30;
const FETCH_PAUSE: Duration = Duration::from_secs(1);

/// The index as it was found.
pub struct Stock {
    index: Index,
    _pins: Pins,
}

impl<I: Machine> Core<I> {
    /// Buckets that objects of this core are in, and that nobody knows. One look for each bucket that there is.
    /// And how many pages could not be read for it.
    pub async fn buckets_wanted(self: &Rc<Self>) -> Result<(BTreeSet<BucketId>, u64), Refusal> {
        let held = Held::passing_over(&self.pages);
        let mut wanted = self.buckets_in(key::object_prefix, &held).await?;
        let buckets = self.buckets.borrow();
        wanted.retain(|bucket| !buckets.contains(*bucket));
        Ok((wanted, held.passed_over()))
    }

    /// Buckets that the index has keys of, under what `prefix_of` gives for each.
    async fn buckets_in(
        self: &Rc<Self>,
        prefix_of: fn(BucketId, &[u8]) -> Vec<u8>,
        held: &Held<'_>,
    ) -> Result<BTreeSet<BucketId>, Refusal> {
        let _guard = self.guard();
        let first = prefix_of(BucketId(0), b"");
        let table = first[0];
        let mut found = BTreeSet::new();
        self.walk_with(&mut Cursor::new(first), held, |index_key, _| {
            if index_key[0] != table {
                return Go::Stop;
            }
            let bucket = match key::parse(index_key) {
                Some(
                    Named::Object { bucket, .. } | Named::Upload { bucket, .. } | Named::Part { bucket, .. },
                ) => bucket,
                _ => return Go::On,
            };
            found.insert(bucket);
            successor_of_prefix(&prefix_of(bucket, b"")).map_or(Go::Stop, Go::To)
        })
        .await?;
        Ok(found)
    }

    /// Drops uploads whose bucket is gone, and parts whose upload is. After damage what has no bucket or upload may have
    /// lost it: it is kept, and nobody asks for it.
    pub async fn drop_what_is_gone(self: &Rc<Self>, recovered: &mut Recovered) -> Result<(), RecoverError> {
        let dropped = self.try_to_drop(recovered).await;
        self.unless_damaged(dropped, recovered)?;
        self.tell_damage(recovered);
        Ok(())
    }

    async fn try_to_drop(self: &Rc<Self>, recovered: &mut Recovered) -> Result<(), Refusal> {
        let ended = std::mem::take(&mut self.assembly.borrow_mut().ended_uploads);
        for upload in ended {
            self.drop_from(&upload, false).await?;
        }
        let kept = self.may_be_mended();
        for bucket in self
            .buckets_in(key::upload_prefix, &Held::ahead(&self.pages))
            .await?
        {
            if !self.buckets.borrow().contains(bucket) {
                match kept {
                    false => self.drop_from(&key::upload_prefix(bucket, b""), true).await?,
                    true => recovered.orphans += self.count_from(key::upload_prefix(bucket, b"")).await?,
                }
            }
        }
        // Parts that came in the logs: those in runs had their upload when they were written.
        for upload in self.uploads_of_parts_in_memory() {
            if self.find_entry(&upload).await?.is_none() {
                match kept {
                    false => self.drop_from(&upload, false).await?,
                    true => recovered.orphans += self.count_from(upload).await?,
                }
            }
        }
        Ok(())
    }

    fn uploads_of_parts_in_memory(&self) -> Vec<Vec<u8>> {
        let index = self.index.borrow();
        let mut uploads: Vec<Vec<u8>> = Vec::new();
        for part in index.prefixed_in_memory(&key::upload_prefix(BucketId(0), b"")[..1]) {
            if let Some(Named::Part {
                bucket, key, upload, ..
            }) = key::parse(&part)
            {
                let upload = key::upload(bucket, &key, upload);
                if uploads.last() != Some(&upload) {
                    uploads.push(upload);
                }
            }
        }
        uploads
    }

    async fn count_from(self: &Rc<Self>, prefix: Vec<u8>) -> Result<u64, Refusal> {
        let mut count = 0;
        self.walk_index(prefix.clone(), |index_key, _| {
            if !index_key.starts_with(&prefix) {
                return Go::Stop;
            }
            count += 1;
            Go::On
        })
        .await?;
        Ok(count)
    }

    /// Drops the parts of an upload, or with `and_all` all that begins with that. Nothing of it has been counted yet.
    async fn drop_from(self: &Rc<Self>, prefix: &[u8], and_all: bool) -> Result<(), Refusal> {
        let mut gone: Vec<Vec<u8>> = Vec::new();
        let _guard = self.guard();
        self.walk_index(prefix.to_vec(), |index_key, _| {
            if !index_key.starts_with(prefix) {
                return Go::Stop;
            }
            if and_all || index_key != prefix {
                gone.push(index_key.to_vec());
            }
            Go::On
        })
        .await?;
        let sequence = self.next_sequence();
        for index_key in gone {
            self.index.borrow_mut().remove(&index_key, sequence);
        }
        Ok(())
    }

    /// Sets down what there is, before anything changes.
    pub fn take_stock(self: &Rc<Self>) -> Stock {
        let places = self.checkpoints.places();
        let extents = || places.iter().flat_map(|place| &place.extents);
        for extent in extents() {
            self.account_here(SegmentId(extent.segment), i64::from(extent.length));
        }
        Stock {
            index: self.index.borrow().snapshot(),
            _pins: self
                .guard()
                .pin(extents().map(|extent| SegmentId(extent.segment))),
        }
    }

    /// Counts what the index kept in place when it was set down, and tells what it met.
    pub async fn audit(self: &Rc<Self>, stock: Stock, recovered: &mut Recovered) {
        let mut found = Recovered::default();
        if self.audit_entries(&stock.index, &mut found).await.is_err() {
            found.pages_unreadable += 1;
            self.note(COORDINATOR, Note::Uncounted);
        }
        found.pages_unreadable += self.pages.given_up();
        // With damage that is given up, clients wait until the report has told it.
        if self.io.is_read_only() && found.pages_unreadable > 0 {
            warn!(
                "weft: DEGRADED: a part of the index is on what is missing: of objects that may be in it nothing is said (503)"
            );
        } else if recovered.entries > 0 && found.is_damaged() && self.loss == Loss::MayBeMended {
            warn!(
                "weft: DAMAGE: {} extents of objects lie in segments that are missing, and {} parts of the index cannot be \
                 read: nothing that was there is freed in this run; weft check names the places",
                found.extents_missing, found.pages_unreadable
            );
        }
        recovered.add(&found);
    }

    async fn audit_entries(self: &Rc<Self>, snapshot: &Index, found: &mut Recovered) -> Result<(), Refusal> {
        let held = Held::passing(&self.pages, AUDIT_READ_BYTES);
        let mut cursor = Cursor::new(Vec::new());
        let there = std::mem::take(&mut self.assembly.borrow_mut().segments);
        let mut live: BTreeMap<SegmentId, i64> = BTreeMap::new();
        let mut see = |index_key: &[u8], entry: EntryRef<'_>| {
            self.count_entry(index_key, found);
            self.holdings.came(index_key, entry.value);
            for extent in extents_of(index_key, entry.value) {
                if !there.contains(&extent.segment) && !self.is_out_of_reach(extent.segment) {
                    found.extents_missing += 1;
                }
                *live.entry(extent.segment).or_default() += i64::from(extent.disk_bytes());
            }
            Go::On
        };
        let walked = loop {
            match snapshot.walk(&mut cursor, &held, &mut see) {
                Ok(Walked::Ended) => break Ok(()),
                Ok(Walked::Paused) => self.io.yield_now().await,
                Err(need) => {
                    if let Err(refusal) = self.fetch_patiently(need, &held).await {
                        break Err(refusal);
                    }
                }
            }
        };
        for (segment, bytes) in live {
            self.account_here(segment, bytes);
        }
        walked
    }

    /// A disk that fails may recover, and until all is counted nothing is freed.
    async fn fetch_patiently(&self, need: Need, held: &Held<'_>) -> Result<(), Refusal> {
        for _ in 1..FETCHES_MAX {
            match self.fetch(need, held).await {
                Err(Refusal::DiskFailed) => self.io.sleep(FETCH_PAUSE).await,
                fetched => return fetched,
            }
        }
        self.fetch(need, held).await
    }

    fn count_entry(&self, index_key: &[u8], found: &mut Recovered) {
        let buckets = self.buckets.borrow();
        match key::parse(index_key) {
            Some(Named::Object { bucket, .. }) => {
                found.objects += u64::from(buckets.contains(bucket));
                found.objects_of_lost_buckets += u64::from(buckets.is_lost(bucket));
            }
            Some(Named::Upload { bucket, .. }) => found.uploads += u64::from(buckets.contains(bucket)),
            Some(Named::Part { .. } | Named::Bucket { .. }) | None => {}
        }
    }
}
