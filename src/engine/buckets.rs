//! Buckets: every core knows all of them, the coordinator's log holds them.
//!
//! A bucket is true once it is on stable storage there and every core has it. Deleting one stops changes in
//! it on all cores, sees that all are empty, commits or goes back. Changes of the set come one at a time.

use crate::engine::Machine;
use crate::engine::configuration::Configuration;
use crate::engine::core::{COORDINATOR, Core, ReplyTo};
use crate::engine::entry::Bucket;
use crate::engine::message::{Mutation, Outcome, Purpose, Refusal, Reply, Request};
use crate::engine::planted::{Fault, planted};
use crate::engine::recover::Loss;
use crate::index::key::{self, BucketId};
use crate::index::{Entry, Go};
use crate::limits::{BUCKETS_MAX, CONFIGURATION_BYTES_MAX, CONFIGURATIONS_BYTES_MAX};
use futures_channel::oneshot;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::rc::Rc;

/// The buckets as one core knows them.
#[derive(Default)]
pub struct BucketTable {
    by_name: BTreeMap<String, Bucket>,
    state: HashMap<BucketId, State>,
    /// There may be others that could not be read: an unknown name may be one of theirs.
    may_miss: bool,
}

/// Which buckets to list.
#[derive(Clone, Copy, Debug)]
pub struct BucketWalk<'a> {
    /// Only names that start with this.
    pub prefix: &'a str,
    /// Only names greater than this.
    pub after: Option<&'a str>,
    /// Only buckets of this location.
    pub location: Option<&'a str>,
    /// Only buckets whose configuration of this kind is this, or that have none of it.
    pub configured: Option<(u8, Option<&'a [u8]>)>,
    pub max: usize,
}

impl BucketWalk<'_> {
    /// Every bucket.
    pub const ALL: BucketWalk<'static> = BucketWalk {
        prefix: "",
        after: None,
        location: None,
        configured: None,
        max: usize::MAX,
    };
}

/// Buckets in order of name, and whether there are more behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketPage {
    pub buckets: Vec<(String, Bucket)>,
    pub truncated: bool,
}

/// Entries that the end of a bucket drops before others get their turn.
const DROPPED_AT_ONCE: usize = 1000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Being deleted.
    Frozen,
    /// Its record is lost, and its name with it: it shows what is in it, and takes no change. One that came might be
    /// void as soon as the damage is mended, or be in the way of that.
    Lost,
    /// Its record is lost, and given up: what is in it may be deleted.
    GivenUp,
}

impl BucketTable {
    pub fn get(&self, name: &str) -> Option<&Bucket> {
        self.by_name.get(name)
    }

    /// At start: others could not be read.
    pub fn note_missing(&mut self) {
        self.may_miss = true;
    }

    pub fn may_miss(&self) -> bool {
        self.may_miss
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.by_name.len()
    }

    /// Those that `walk` asks for. It costs what the page has, and a look at those of another location in between.
    pub fn walk(&self, walk: &BucketWalk<'_>) -> BucketPage {
        let from = match walk.after {
            Some(after) if after >= walk.prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(walk.prefix),
        };
        let mut wanted = self
            .by_name
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(name, _)| name.starts_with(walk.prefix))
            .filter(|(_, bucket)| walk.location.is_none_or(|location| bucket.location == location))
            .filter(|(_, bucket)| {
                let is_configured = |(kind, value)| bucket.configuration.get(kind) == value;
                walk.configured.is_none_or(is_configured)
            });
        let page = wanted.by_ref().take(walk.max);
        let buckets = page
            .map(|(name, bucket)| (name.clone(), bucket.clone()))
            .collect();
        BucketPage {
            buckets,
            truncated: wanted.next().is_some(),
        }
    }

    /// Bytes of all configurations.
    fn configuration_bytes(&self) -> usize {
        self.by_name
            .values()
            .map(|bucket| bucket.configuration.bytes())
            .sum()
    }

    /// Whether no bucket may be made but one that is there already, which is refused for that.
    fn is_full_for(&self, name: &str) -> bool {
        self.by_name.len() >= BUCKETS_MAX && !self.by_name.contains_key(name)
    }

    /// The name of a bucket. It costs a look at all of them.
    pub fn name_of(&self, id: BucketId) -> Option<String> {
        let mut named = self.by_name.iter();
        let (name, _) = named.find(|(_, bucket)| bucket.id == id)?;
        Some(name.clone())
    }

    pub fn contains(&self, id: BucketId) -> bool {
        self.state.contains_key(&id)
    }

    /// Whether changes in the bucket may be queued.
    pub fn accepts(&self, id: BucketId) -> Result<(), Refusal> {
        match self.state.get(&id) {
            None => Err(Refusal::NoSuchBucket),
            Some(State::Frozen | State::Lost | State::GivenUp) => Err(Refusal::BucketBusy),
            Some(State::Open) => Ok(()),
        }
    }

    /// Whether deletes of objects in the bucket may be queued.
    pub fn accepts_deletes(&self, id: BucketId) -> Result<(), Refusal> {
        match self.state.get(&id) {
            Some(State::GivenUp) => Ok(()),
            _ => self.accepts(id),
        }
    }

    pub fn install(&mut self, name: String, bucket: Bucket) {
        self.state.insert(bucket.id, State::Open);
        self.by_name.insert(name, bucket);
    }

    /// A bucket that objects are in, and whose record is lost. If its name is taken they are kept unseen.
    pub fn install_lost(&mut self, id: BucketId, loss: Loss) {
        let state = match loss {
            Loss::MayBeMended => State::Lost,
            Loss::Accepted => State::GivenUp,
        };
        self.state.insert(id, state);
        let bucket = Bucket {
            id,
            created_ms: 0,
            location: String::new(),
            configuration: Configuration::default(),
        };
        self.by_name
            .entry(format!("{LOST_BUCKET_PREFIX}{:016x}", id.0))
            .or_insert(bucket);
    }

    pub fn is_lost(&self, id: BucketId) -> bool {
        matches!(self.state.get(&id), Some(State::Lost | State::GivenUp))
    }

    pub fn thaw(&mut self, id: BucketId) {
        self.set(id, State::Open);
    }

    fn freeze(&mut self, id: BucketId) {
        self.set(id, State::Frozen);
    }

    fn set(&mut self, id: BucketId, state: State) {
        if let Some(present) = self.state.get_mut(&id) {
            *present = state;
        }
    }

    fn remove(&mut self, name: &str, id: BucketId) {
        self.state.remove(&id);
        self.by_name.remove(name);
    }
}

/// What the names of buckets begin with that stand for lost ones; their id follows.
pub const LOST_BUCKET_PREFIX: &str = "lost-";

impl<I: Machine> Core<I> {
    /// Coordinator: makes a bucket true everywhere.
    pub async fn create_bucket_everywhere(
        self: &Rc<Self>,
        name: String,
        location: String,
        configuration: Configuration,
    ) -> Result<Bucket, Refusal> {
        let _turn = self.bucket_changes.lock().await;
        if self.buckets.borrow().get(&name).is_some() {
            return Err(Refusal::BucketExists);
        }
        if self.buckets.borrow().may_miss() {
            return Err(Refusal::Damaged);
        }
        if self.buckets.borrow().is_full_for(&name) {
            return Err(Refusal::TooManyBuckets);
        }
        self.check_configuration(&configuration, &Configuration::default())?;
        let made = Mutation::PutBucket {
            name: name.clone(),
            location: location.clone(),
            configuration: configuration.clone(),
        };
        let outcome = self.mutate_here(made).await?;
        let bucket = Bucket {
            id: BucketId(outcome.sequence),
            created_ms: outcome.modified_ms,
            location,
            configuration,
        };
        self.call_all(|| Request::InstallBucket {
            name: name.clone(),
            bucket: bucket.clone(),
        })
        .await;
        Ok(bucket)
    }

    /// Coordinator: makes one kind of a bucket's configuration true everywhere, or its absence.
    pub async fn configure_bucket_everywhere(
        self: &Rc<Self>,
        name: String,
        id: BucketId,
        kind: u8,
        value: Option<Vec<u8>>,
    ) -> Result<Bucket, Refusal> {
        let _turn = self.bucket_changes.lock().await;
        let before = self.known_bucket(&name)?;
        if before.id != id {
            return Err(Refusal::NoSuchBucket);
        }
        if self.buckets.borrow().is_lost(id) {
            return Err(Refusal::BucketBusy);
        }
        if before.configuration.get(kind) == value.as_deref() {
            // A change that failed may be on disk, and come true at the next start.
            if self.commits.is_unsettled() && !self.failed_change_is_void().await {
                return Err(Refusal::DiskFailed);
            }
            return Ok(before);
        }
        let purpose = match value {
            Some(_) => Purpose::Growth,
            None => Purpose::Release,
        };
        let bucket = Bucket {
            configuration: before.configuration.with(kind, value),
            ..before.clone()
        };
        self.check_configuration(&bucket.configuration, &before.configuration)?;
        let changed = Mutation::ConfigureBucket {
            name: name.clone(),
            bucket: bucket.clone(),
            purpose,
        };
        // Sync before it counts: a policy that is obeyed and then lost would let in whom it kept out.
        if !planted(Fault::ConfigurationUnlogged) {
            self.mutate_here(changed).await?;
        }
        self.call_all(|| Request::InstallBucket {
            name: name.clone(),
            bucket: bucket.clone(),
        })
        .await;
        Ok(bucket)
    }

    /// Whether there is room for a configuration in the place of another.
    fn check_configuration(&self, new: &Configuration, old: &Configuration) -> Result<(), Refusal> {
        let all = self.buckets.borrow().configuration_bytes() - old.bytes() + new.bytes();
        let is_shorter = new.bytes() <= old.bytes();
        match is_shorter || (new.bytes() <= CONFIGURATION_BYTES_MAX && all <= CONFIGURATIONS_BYTES_MAX) {
            true => Ok(()),
            false => Err(Refusal::TooLarge),
        }
    }

    /// Coordinator: deletes a bucket everywhere, if it is empty.
    pub async fn delete_bucket_everywhere(self: &Rc<Self>, name: String) -> Result<Bucket, Refusal> {
        let _turn = self.bucket_changes.lock().await;
        let bucket = self.known_bucket(&name)?;
        if self.buckets.borrow().is_lost(bucket.id) {
            return Err(Refusal::BucketBusy);
        }
        let replies = self
            .call_all(|| Request::FreezeBucket { bucket: bucket.id })
            .await;
        let empty: Result<Vec<bool>, Refusal> = replies
            .into_iter()
            .map(|reply| match reply {
                Reply::Empty(empty) => empty,
                other => unreachable!("a freeze is answered by what it found, not {other:?}"),
            })
            .collect();
        let removed = match empty {
            Ok(empty) if empty.iter().all(|&empty| empty) => {
                self.mutate_here(Mutation::RemoveBucket { name: name.clone() })
                    .await
            }
            Ok(_) => Err(Refusal::BucketNotEmpty),
            Err(refusal) => Err(refusal),
        };
        match removed {
            Ok(_) => {
                self.call_all(|| Request::DropBucket {
                    name: name.clone(),
                    bucket: bucket.id,
                })
                .await;
                Ok(bucket)
            }
            Err(refusal) => {
                // The bucket's end may be on disk. Nothing may be acknowledged in it until that is void; if the
                // log cannot say so, changes stay refused until the next start knows.
                if self.commits.is_unsettled() && !self.failed_change_is_void().await {
                    return Err(refusal);
                }
                self.call_all(|| Request::ThawBucket { bucket: bucket.id }).await;
                Err(refusal)
            }
        }
    }

    /// Refuses changes in the bucket from now on; says whether it holds no object once those queued are through.
    pub async fn freeze_bucket(self: &Rc<Self>, bucket: BucketId) -> Result<bool, Refusal> {
        self.buckets.borrow_mut().freeze(bucket);
        self.commits_settled().await;
        // An object of a failed batch may be there at the next start, when its bucket would be gone.
        if self.commits.is_unsettled() && !self.failed_change_is_void().await {
            return Ok(false);
        }
        let prefix = key::object_prefix(bucket, b"");
        let _guard = self.guard();
        let mut is_empty = true;
        let walked = self.walk_index(prefix.clone(), |key, _| {
            is_empty = !key.starts_with(&prefix);
            Go::Stop
        });
        walked.await.map(|()| is_empty)
    }

    /// Forgets a bucket, and the uploads in it that nobody finished.
    pub async fn drop_bucket(self: &Rc<Self>, name: &str, bucket: BucketId) -> Result<(), Refusal> {
        self.buckets.borrow_mut().remove(name, bucket);
        self.drop_uploads(bucket).await
    }

    /// Forgets the uploads of a bucket that is no more.
    ///
    /// # Errors
    /// `DiskFailed`, `Damaged`: some are left, and the next start forgets them.
    pub async fn drop_uploads(self: &Rc<Self>, bucket: BucketId) -> Result<(), Refusal> {
        let prefix = key::upload_prefix(bucket, b"");
        loop {
            let shape = self.index.borrow().shape();
            let mut found: Vec<(Vec<u8>, Entry)> = Vec::new();
            {
                let _guard = self.guard();
                self.walk_index(prefix.clone(), |key, entry| {
                    if !key.starts_with(&prefix) || found.len() == DROPPED_AT_ONCE {
                        return Go::Stop;
                    }
                    found.push((key.to_vec(), entry.to_entry()));
                    Go::On
                })
                .await?;
            }
            if found.is_empty() {
                return Ok(());
            }
            if self.index.borrow().shape() != shape {
                continue;
            }
            let sequence = self.next_sequence();
            for (key, entry) in found {
                let removed = {
                    let mut index = self.index.borrow_mut();
                    if index.in_memory(&key).is_none() {
                        index.load(&key, Some(entry));
                    }
                    index.remove(&key, sequence)
                };
                if let Some(removed) = removed {
                    self.release(&key, &removed, &BTreeSet::new());
                }
            }
        }
    }

    async fn mutate_here(self: &Rc<Self>, mutation: Mutation) -> Result<Outcome, Refusal> {
        assert!(
            self.io.core() == COORDINATOR,
            "the coordinator's log holds the buckets"
        );
        let (sender, receiver) = oneshot::channel();
        self.mutate(mutation, ReplyTo::Local(sender));
        match receiver.await.expect("every change is answered") {
            Reply::Outcome(outcome) => outcome,
            other => unreachable!("a change is answered by its outcome, not {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(id: u64, location: &str) -> Bucket {
        Bucket {
            id: BucketId(id),
            created_ms: 0,
            location: location.to_owned(),
            configuration: Configuration::default(),
        }
    }

    #[test]
    fn a_page_of_buckets_has_those_that_were_asked_for_in_order() {
        let mut table = BucketTable::default();
        for (id, name) in ["b1", "a2", "b3", "a1", "b2"].into_iter().enumerate() {
            table.install(name.to_owned(), bucket(id as u64, ["here", "there"][id % 2]));
        }
        let names = |prefix, after, location, max| {
            let walk = BucketWalk {
                prefix,
                after,
                location,
                configured: None,
                max,
            };
            let page = table.walk(&walk);
            let names = page.buckets.into_iter().map(|(name, _)| name);
            names
                .chain(page.truncated.then(|| "...".to_owned()))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(names("", None, None, usize::MAX), "a1 a2 b1 b2 b3");
        assert_eq!(names("", None, None, 5), "a1 a2 b1 b2 b3");
        assert_eq!(names("", None, None, 4), "a1 a2 b1 b2 ...");
        assert_eq!(names("b", None, None, 2), "b1 b2 ...");
        assert_eq!(names("b", Some("a1"), None, 9), "b1 b2 b3");
        assert_eq!(names("b", Some("b1"), None, 9), "b2 b3");
        assert_eq!(names("b", Some("c"), None, 9), "");
        assert_eq!(names("", None, Some("there"), 1), "a1 ...");
        assert_eq!(names("", Some("a1"), Some("there"), 1), "a2");
    }

    #[test]
    fn a_full_table_takes_no_other_bucket() {
        let mut table = BucketTable::default();
        for id in 0..BUCKETS_MAX as u64 {
            assert!(!table.is_full_for("new"));
            table.install(format!("bucket-{id}"), bucket(id, ""));
        }
        assert!(table.is_full_for("new") && !table.is_full_for("bucket-1"));
        table.remove("bucket-1", BucketId(1));
        assert!(!table.is_full_for("new"));
    }
}
