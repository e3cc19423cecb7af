//! What the engine may answer: for each key the versions that it can have, as calls begin, end and are cut off.
//!
//! A *candidate* is a version (or absence) that a key may have. A change makes one when it begins; it is
//! *effective* once it is known to have happened: it was acknowledged, or somebody read it. Two facts rule
//! out candidates: sequences of acknowledged changes, and that what was effective before another change or
//! read began is older than that. What a crash cut off, or a disk's failure, stays possible until then.
//!
//! Invariant: the model never rules out what a correct engine may show. It must not look into the engine.

use crate::content::Content;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use weft::engine::{BucketId, ETag, UploadId};

/// A version of an object as its writer made it.
#[derive(Clone, Debug)]
pub struct Version {
    /// Unique; the attributes begin with it.
    pub id: u64,
    pub content: Content,
    pub etag: ETag,
    pub attributes: Vec<u8>,
    pub part_sizes: Vec<u64>,
    pub upload: Option<UploadId>,
}

/// Orders beginnings and ends of calls.
pub type Stamp = u64;

#[derive(Clone, Debug)]
struct Candidate {
    change: u64,
    version: Option<Rc<Version>>,
    begun: Stamp,
    ended: Option<Stamp>,
    effective: Option<Stamp>,
    superseded: Option<Stamp>,
    sequence: Option<u64>,
}

/// What a change required of what it replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    None,
    Absent,
    Tag(ETag),
}

#[derive(Clone, Debug)]
struct Link {
    sequence: u64,
    tag: Option<ETag>,
    requires: Requirement,
}

/// One key.
#[derive(Clone, Debug)]
pub struct Key {
    candidates: Vec<Candidate>,
    /// Acknowledged changes of this boot, by sequence.
    chain: Vec<Link>,
    /// A writer that wants to be the only one holds this.
    pub taken: bool,
    /// Some change of this boot has no definite end.
    doubtful: bool,
}

/// Stamps that a lookup may take, its read of a small body from a slow disk included.
const LOOKUP_MAX: Stamp = 20_000;

impl Default for Key {
    fn default() -> Key {
        let absent = Candidate {
            change: 0,
            version: None,
            begun: 0,
            ended: Some(0),
            effective: Some(0),
            superseded: None,
            sequence: Some(0),
        };
        let chain = vec![Link {
            sequence: 0,
            tag: None,
            requires: Requirement::None,
        }];
        Key {
            candidates: vec![absent],
            chain,
            taken: false,
            doubtful: false,
        }
    }
}

impl Key {
    fn find(&mut self, change: u64) -> Option<usize> {
        self.candidates
            .iter()
            .position(|candidate| candidate.change == change)
    }

    fn in_flight(&self) -> bool {
        self.candidates.iter().any(|candidate| candidate.ended.is_none())
    }

    /// Versions that the key may have had at some moment since `since`.
    pub fn possible(&self, since: Stamp) -> impl Iterator<Item = Option<&Rc<Version>>> {
        let current = move |c: &&Candidate| c.superseded.is_none_or(|at| at > since);
        self.candidates.iter().filter(current).map(|c| c.version.as_ref())
    }

    pub fn may_be_absent(&self, since: Stamp) -> bool {
        self.possible(since).any(|version| version.is_none())
    }

    pub fn may_be_present(&self, since: Stamp) -> bool {
        self.possible(since).any(|version| version.is_some())
    }

    fn acknowledge(
        &mut self,
        change: u64,
        sequence: u64,
        requires: Requirement,
        now: Stamp,
    ) -> Result<(), String> {
        let Some(at) = self.find(change) else {
            return Ok(());
        };
        let begun = self.candidates[at].begun;
        let mut newest = true;
        for other in self
            .candidates
            .iter_mut()
            .filter(|c| c.change != change && c.superseded.is_none())
        {
            let older = match other.sequence {
                Some(known) => known < sequence,
                None => other.effective.or(other.ended).is_some_and(|end| end < begun),
            };
            if older {
                other.superseded = Some(now);
            } else if other.sequence.is_some() {
                newest = false;
            }
        }
        let this = &mut self.candidates[at];
        this.ended = Some(now);
        this.sequence = Some(sequence);
        this.effective = this.effective.or(Some(now));
        if !newest && this.superseded.is_none() {
            this.superseded = Some(now);
        }
        let tag = this.version.as_ref().map(|version| version.etag);
        let place = self.chain.partition_point(|link| link.sequence < sequence);
        if self
            .chain
            .get(place)
            .is_some_and(|link| link.sequence == sequence)
        {
            return Err(format!("sequence {sequence} was given out twice"));
        }
        self.chain.insert(
            place,
            Link {
                sequence,
                tag,
                requires,
            },
        );
        self.prune(now);
        self.check_chain()
    }

    /// Each condition held of the change before it, if all changes are known.
    fn check_chain(&mut self) -> Result<(), String> {
        if self.doubtful || self.in_flight() {
            return Ok(());
        }
        for pair in self.chain.windows(2) {
            let met = match pair[1].requires {
                Requirement::None => true,
                Requirement::Absent => pair[0].tag.is_none(),
                Requirement::Tag(tag) => pair[0].tag == Some(tag),
            };
            if !met {
                return Err(format!("a conditional write was let through: {pair:?}"));
            }
        }
        let last = self.chain.len() - 1;
        self.chain.drain(..last);
        Ok(())
    }

    fn prune(&mut self, now: Stamp) {
        if self.candidates.len() > 24 {
            self.candidates
                .retain(|c| c.ended.is_none() || c.superseded.is_none_or(|at| at + LOOKUP_MAX > now));
        }
    }

    /// A read that began at `since` found the version with this id, or nothing.
    pub fn observe(&mut self, found: Option<u64>, since: Stamp, now: Stamp) -> Result<(), String> {
        let matches = |c: &Candidate| {
            c.version.as_ref().map(|version| version.id) == found && c.superseded.is_none_or(|at| at > since)
        };
        let matching: Vec<usize> = (0..self.candidates.len())
            .filter(|&at| matches(&self.candidates[at]))
            .collect();
        let [at] = matching[..] else {
            return match matching.is_empty() {
                true => Err(format!(
                    "found {found:?}; possible since {since} (now {now}): {}",
                    self.describe()
                )),
                false => Ok(()),
            };
        };
        if self.candidates[at].superseded.is_some() {
            return Ok(());
        }
        for (other, candidate) in self.candidates.iter_mut().enumerate() {
            if other != at && candidate.superseded.is_none() && candidate.effective.is_some_and(|e| e < since)
            {
                candidate.superseded = Some(now);
            }
        }
        let this = &mut self.candidates[at];
        this.effective = this.effective.or(Some(now));
        Ok(())
    }

    /// A refusal said that the key was there (or not) at some moment since `since`.
    pub fn saw_presence(&mut self, present: bool, since: Stamp, now: Stamp) -> Result<(), String> {
        let mut fitting = self
            .possible(since)
            .filter(|version| version.is_some() == present);
        let found = fitting.next().map(|version| version.map(|version| version.id));
        let several = fitting.next().is_some();
        drop(fitting);
        match (found, several) {
            (Some(only), false) => self.observe(only, since, now),
            (Some(_), true) => Ok(()),
            (None, _) => Err(format!(
                "seen as present: {present}; since {since}: {}",
                self.describe()
            )),
        }
    }

    /// A change is known to have happened: what was effective before it began is over.
    pub fn happened(&mut self, id: u64, now: Stamp) {
        let is_it = |c: &Candidate| c.version.as_ref().is_some_and(|version| version.id == id);
        let Some(begun) = self.candidates.iter().find(|c| is_it(c)).map(|c| c.begun) else {
            return;
        };
        for candidate in self.candidates.iter_mut() {
            if is_it(candidate) {
                candidate.effective = candidate.effective.or(Some(now));
            } else if candidate.superseded.is_none() && candidate.effective.is_some_and(|e| e < begun) {
                candidate.superseded = Some(now);
            }
        }
    }

    /// After a restart, with no change in flight: what was found is what the key has.
    pub fn settle(&mut self, found: Option<u64>, now: Stamp) -> Result<(), String> {
        self.observe(found, now, now)?;
        let same = |c: &Candidate| c.version.as_ref().map(|version| version.id) == found;
        let mut kept = self
            .candidates
            .iter()
            .rfind(|c| same(c))
            .expect("it was observed")
            .clone();
        kept.superseded = None;
        kept.effective = Some(now);
        kept.ended = Some(now);
        let tag = kept.version.as_ref().map(|version| version.etag);
        self.chain = vec![Link {
            sequence: 0,
            tag,
            requires: Requirement::None,
        }];
        self.candidates = vec![kept];
        self.doubtful = false;
        Ok(())
    }

    pub fn version(&self, id: u64) -> Option<Rc<Version>> {
        let mut versions = self.candidates.iter().filter_map(|c| c.version.as_ref());
        versions.find(|version| version.id == id).cloned()
    }

    pub fn describe(&self) -> String {
        let one = |c: &Candidate| {
            let id = c.version.as_ref().map(|version| version.id);
            let (begun, ended) = (c.begun, c.ended);
            let (effective, superseded, sequence) = (c.effective, c.superseded, c.sequence);
            format!(
                "\n    {id:?} begun {begun} ended {ended:?} effective {effective:?} superseded {superseded:?} \
                 sequence {sequence:x?}"
            )
        };
        self.candidates.iter().map(one).collect()
    }
}

/// Whether something is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    Yes,
    No,
    Maybe,
}

/// A bucket's name.
#[derive(Clone, Debug)]
pub struct BucketState {
    pub id: Option<BucketId>,
    pub presence: Presence,
    pub taken: bool,
    /// Until when an attempt to delete it may refuse changes; `u64::MAX` while one runs.
    pub disturbed: Stamp,
    /// The values that each kind of its configuration may have; of a kind that is not here, none.
    pub configuration: BTreeMap<u8, BTreeSet<Option<Vec<u8>>>>,
}

/// A part as its writer made it.
#[derive(Clone, Debug)]
pub struct PartVersion {
    pub id: u64,
    pub content: Content,
    pub md5: [u8; 16],
    pub attributes: Vec<u8>,
}

/// An upload in parts.
#[derive(Clone, Debug)]
pub struct UploadState {
    pub bucket: BucketId,
    pub key: Vec<u8>,
    /// Known once its creation was answered, or it was listed after a crash.
    pub id: Option<UploadId>,
    pub attributes: Vec<u8>,
    pub presence: Presence,
    pub taken: bool,
    /// What each part may be.
    pub parts: BTreeMap<u16, Vec<Option<PartVersion>>>,
    /// The version that a completion without a definite end would make.
    pub completing: Option<u64>,
    /// A change without a definite end may still be on its way.
    pub doubtful: bool,
}

/// All that was asked of the engine.
#[derive(Default)]
pub struct Model {
    pub now: Stamp,
    next_id: u64,
    pub keys: BTreeMap<(BucketId, Vec<u8>), Key>,
    pub buckets: BTreeMap<String, BucketState>,
    pub uploads: BTreeMap<u64, UploadState>,
    /// Buckets that are gone: answers about them still under way are no longer checked.
    pub gone: BTreeSet<BucketId>,
}

impl Model {
    pub fn tick(&mut self) -> Stamp {
        self.now += 1;
        self.now
    }

    pub fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub fn key(&mut self, bucket: BucketId, key: &[u8]) -> &mut Key {
        self.keys.entry((bucket, key.to_vec())).or_default()
    }

    /// A change begins; returns its number.
    pub fn begin(&mut self, bucket: BucketId, key: &[u8], version: Option<Rc<Version>>) -> u64 {
        let (change, begun) = (self.next_id(), self.tick());
        let candidate = Candidate {
            change,
            version,
            begun,
            ended: None,
            effective: None,
            superseded: None,
            sequence: None,
        };
        self.key(bucket, key).candidates.push(candidate);
        change
    }

    /// The change was acknowledged. A sequence of 0 says that nothing had to be done.
    pub fn acknowledge(
        &mut self,
        bucket: BucketId,
        key: &[u8],
        change: u64,
        sequence: u64,
        requires: Requirement,
    ) -> Result<(), String> {
        let now = self.tick();
        let Some(state) = self.keys.get_mut(&(bucket, key.to_vec())) else {
            return Ok(());
        };
        if sequence > 0 {
            return state.acknowledge(change, sequence, requires, now);
        }
        let Some(at) = state.find(change) else {
            return Ok(());
        };
        let begun = state.candidates.remove(at).begun;
        match state.may_be_absent(begun) {
            // What an answer says of a key is as good as a read.
            true => state.observe(None, begun, now),
            false => Err(format!(
                "a delete found nothing; possible since {begun}: {}",
                state.describe()
            )),
        }
    }

    /// The change certainly did not happen; what it may have seen is checked by the caller.
    pub fn refuse(&mut self, bucket: BucketId, key: &[u8], change: u64) -> Result<(), String> {
        self.tick();
        let Some(state) = self.keys.get_mut(&(bucket, key.to_vec())) else {
            return Ok(());
        };
        let Some(at) = state.find(change) else {
            return Ok(());
        };
        let refused = state.candidates.remove(at);
        if refused.effective.is_some() {
            return Err(format!(
                "a change was refused that somebody has read: {refused:?}"
            ));
        }
        state.check_chain()
    }

    /// The change may or may not have happened, and will not be heard of again.
    pub fn doubt(&mut self, bucket: BucketId, key: &[u8], change: u64) {
        let now = self.tick();
        let Some(state) = self.keys.get_mut(&(bucket, key.to_vec())) else {
            return;
        };
        state.doubtful = true;
        if let Some(at) = state.find(change) {
            state.candidates[at].ended = Some(now);
        }
    }

    /// As [`Model::doubt`], for a caller that went away: the change may even still be on its way.
    pub fn abandon(&mut self, bucket: BucketId, key: &[u8], change: u64) {
        self.tick();
        let Some(state) = self.keys.get_mut(&(bucket, key.to_vec())) else {
            return;
        };
        state.doubtful = true;
        if let Some(at) = state.find(change) {
            // Not ended before anything: only its being read makes it older than something.
            state.candidates[at].ended = Some(u64::MAX);
        }
    }

    /// Everything that ran is cut off.
    pub fn crash(&mut self) {
        let now = self.tick();
        for key in self.keys.values_mut() {
            key.taken = false;
            for candidate in &mut key.candidates {
                candidate.ended = Some(candidate.ended.unwrap_or(now).min(now));
            }
        }
        for upload in self.uploads.values_mut() {
            upload.taken = false;
            upload.doubtful = false;
        }
        for bucket in self.buckets.values_mut() {
            bucket.taken = false;
            bucket.disturbed = bucket.disturbed.min(now);
        }
        self.gone.clear();
    }

    /// A bucket is gone with all that was in it.
    pub fn forget_bucket(&mut self, id: BucketId) {
        self.keys.retain(|(bucket, _), _| *bucket != id);
        self.uploads.retain(|_, upload| upload.bucket != id);
        self.gone.insert(id);
    }

    /// Buckets that are certainly there.
    pub fn present_buckets(&self) -> Vec<(String, BucketId)> {
        let present = self
            .buckets
            .iter()
            .filter(|(_, state)| state.presence == Presence::Yes);
        present
            .filter_map(|(name, state)| Some((name.clone(), state.id?)))
            .collect()
    }
}
