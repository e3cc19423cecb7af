//! One core's engine: objects, listings, uploads and buckets, over the log, the index and the other cores.
//!
//! A key belongs to one core (`Core::owner`), which checks its changes and commits them in groups; any core
//! takes requests for any key. The way of a PUT: `body` receives and stores the bytes, [`Engine::put`] hands
//! the change to the owner, `shard` checks it, `group_commit` makes it durable and then true. The way of a GET:
//! [`Engine::get`] asks the owner where the bytes lie, `body` reads and verifies them. LIST: `list`.
//!
//! The engine names no runtime: [`Machine`] is the real or the simulated one.

/// Tells the operator on standard error. A terminal that is gone must not end the daemon, as `eprintln` would.
macro_rules! warn {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

mod apply;
mod audit;
mod body;
mod body_reader;
mod buckets;
mod budget;
mod cache;
mod checkpoint;
mod clean;
mod configuration;
mod core;
mod entry;
mod group_commit;
mod histogram;
mod holdings;
mod list;
mod loading;
mod lookup;
mod message;
mod pages;
pub mod planted;
mod progress;
mod reads;
mod recover;
mod report;
mod run_writer;
mod scrub;
mod segments;
mod shard;
mod signal;
mod sizes;
mod space;
mod spread;
mod unfinished;
mod victims;

pub use body::{BodyWriter, StoredBody};
pub use body_reader::{BodyReader, Piece};
pub use buckets::{BucketPage, BucketWalk};
pub use budget::{DocumentMemory, HeldBytes, MemoryUse};
pub use checkpoint::IndexUse;
pub use configuration::Configuration;
pub use core::Counters;
pub use entry::{
    Bucket, ETag, Extent, Glance, GlanceAt, Layout, ListedObject, ListedUpload, Object, Part, Upload,
};
pub use histogram::{Durations, Histogram};
pub use holdings::Holdings;
pub use message::{Completion, Message, Outcome, PartPage, Refusal, WriteCondition};
pub use progress::{StartProgress, StartStage, StartedSoFar};
pub use recover::{Loss, RecoverError, Recovered};
pub use report::CoreReport;
pub use scrub::{IndexPlace, ScrubNext, ScrubPlan, ScrubPosition};
pub use sizes::Sizes;
pub use space::{SpaceUse, segments_min};

pub use crate::index::key::{BucketId, UploadId};
pub use crate::index::{KeyPage, KeyWalk, UploadWalk, WalkItem};

use crate::index::key;
use crate::io::{Io, SegmentId};
use body_reader::Memory;
use core::{COORDINATOR, Core, count};
use message::{Mutation, NewObject, NewPart, Reply, Request};
use reads::ReadGuard;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

// What the log aligns, the machine takes as it is.
const _: () = assert!(crate::log::ALIGN_BYTES as usize == crate::io::DISK_ALIGN_BYTES);

/// The machine that an engine runs on.
pub trait Machine: Io<Message = Message> {}

impl<I: Io<Message = Message>> Machine for I {}

/// One core's engine. Clones are handles on the same one.
pub struct Engine<I: Machine> {
    core: Rc<Core<I>>,
}

impl<I: Machine> Clone for Engine<I> {
    fn clone(&self) -> Self {
        Engine {
            core: self.core.clone(),
        }
    }
}

/// How a start goes, on all cores alike.
#[derive(Clone, Default)]
pub struct Start {
    /// What becomes of damage.
    pub loss: Loss,
    /// Where it is told how far it has come. All cores share it.
    pub progress: Arc<StartProgress>,
}

/// An object found by [`Engine::get`], held in place while its bytes are read.
pub struct FoundObject<I: Machine> {
    pub object: Rc<Object>,
    pub version: Version,
    /// The whole body, if the owner sent it along.
    body: Option<Arc<[u8]>>,
    core: Rc<Core<I>>,
    guard: ReadGuard,
}

impl<I: Machine> FoundObject<I> {
    /// Reads bytes `range` of the object.
    pub fn read(self, range: Range<u64>) -> BodyReader<I> {
        self.read_into(Memory::Shared, range)
    }

    /// Reads bytes `range` of the object for a body that is written meanwhile.
    ///
    /// # Errors
    /// `Busy`: too many do so.
    pub async fn read_to_copy(self, range: Range<u64>) -> Result<BodyReader<I>, Refusal> {
        let memory = Memory::Own {
            _held: self.core.hold_for_copy().await?,
        };
        Ok(self.read_into(memory, range))
    }

    fn read_into(self, memory: Memory, range: Range<u64>) -> BodyReader<I> {
        BodyReader::new(self.core, self.object, self.body, range, memory, self.guard)
    }
}

impl<I: Machine> Engine<I> {
    /// Recovers what the volume holds and starts the engine of this core. Every core of the run does this at
    /// the same time; it returns when all have.
    pub async fn start(io: I, sizes: &Sizes) -> Result<(Engine<I>, Recovered), RecoverError> {
        Engine::start_with(Start::default(), io, sizes).await
    }

    /// As [`Engine::start`], but as `start` says.
    pub async fn start_with(
        start: Start,
        io: I,
        sizes: &Sizes,
    ) -> Result<(Engine<I>, Recovered), RecoverError> {
        let core = Core::new(io, sizes, start);
        core.io.spawn(core.clone().receive());
        core.io.spawn(core.clone().write_log());
        core.share_versions();
        let recovered = core.recover().await?;
        core.stock();
        Ok((Engine { core }, recovered))
    }

    /// Returns when every change that was handed in here has been answered, and the log is sealed behind them.
    pub async fn settle(&self) {
        self.core.seal_log().await;
        self.core.flush_ledger();
    }

    /// Reads what is stored on this core's account and verifies it, pass after pass. `tell` is told of each place that it
    /// comes to, where another run may begin, with any number of cores.
    pub fn scrub(&self, plan: ScrubPlan, from: ScrubPosition, tell: impl Fn(&ScrubPosition) + 'static) {
        let core = self.core.clone();
        core.io.spawn(core.clone().scrub(plan, from, tell));
    }

    /// The machine below.
    pub fn io(&self) -> &I {
        &self.core.io
    }

    /// What this core has counted.
    pub fn counters(&self) -> &Counters {
        &self.core.counters
    }

    /// All that this core counts, as it stands now.
    pub fn report(&self) -> CoreReport {
        self.core.report()
    }

    /// What this core's index holds, as it was counted.
    pub fn holdings(&self) -> &Holdings {
        &self.core.holdings
    }

    /// What this core's index holds, counted anew.
    ///
    /// # Errors
    /// `DiskFailed`, `Damaged`.
    pub async fn holdings_implied(&self) -> Result<Holdings, Refusal> {
        self.core.holdings_implied().await
    }

    /// How much of the volume is taken, if this core keeps the table.
    pub fn space_use(&self) -> Option<SpaceUse> {
        self.core.space_use()
    }

    /// As [`Engine::space_use`], once everything that the start found is counted.
    pub async fn space_counted(&self) -> Option<SpaceUse> {
        if self.core.is_coordinator() {
            self.core.space_opened.until(|| self.core.is_space_open()).await;
        }
        self.space_use()
    }

    /// Ends the uploads that this core owns and that began more than `age` ago.
    ///
    /// # Errors
    /// `DiskFailed`, `Damaged`: some were not looked at.
    pub async fn abort_uploads_older_than(&self, age: Duration) -> Result<(), Refusal> {
        self.core.abort_uploads_older_than(age).await
    }

    /// Live bytes by segment, as the entries of this core's index imply them.
    ///
    /// # Errors
    /// `DiskFailed`, `Damaged`.
    pub async fn live_bytes_implied(&self) -> Result<BTreeMap<SegmentId, i64>, Refusal> {
        self.core.live_bytes_implied().await
    }

    /// Has one run hold all that the index has.
    pub async fn compact(&self) {
        self.core.checkpoint().await;
        self.core.merge_all(message::Purpose::Moves).await;
    }

    /// Bytes on disk that the runs of this core's index take.
    pub fn index_bytes(&self) -> u64 {
        let extents = self.core.checkpoints.extents();
        extents.iter().map(|extent| u64::from(extent.length)).sum()
    }

    /// Has all that is in the log now be in runs of the index, so that the next start need not read it; says whether
    /// that is on stable storage.
    pub async fn checkpoint(&self) -> bool {
        self.core.checkpoint().await
    }

    /// Live bytes by segment, as this core counts them for all, if it keeps the table.
    pub fn live_bytes_counted(&self) -> Option<BTreeMap<SegmentId, i64>> {
        self.core
            .is_coordinator()
            .then(|| self.core.space.borrow().live_bytes())
    }

    /// The bucket of that name.
    ///
    /// # Errors
    /// `NoSuchBucket`; `Damaged` if it may be among those that could not be read; `OutOfReach` if it may be on a volume
    /// that is missing.
    pub fn bucket(&self, name: &str) -> Result<Bucket, Refusal> {
        self.core.known_bucket(name)
    }

    /// The configuration of the bucket of that name, if there is such a bucket: what each request asks for.
    pub fn configuration(&self, name: &str) -> Option<Configuration> {
        let buckets = self.core.buckets.borrow();
        buckets.get(name).map(|bucket| bucket.configuration.clone())
    }

    /// Refuses what changes something while a volume is missing.
    fn check_takes_changes(&self) -> Result<(), Refusal> {
        match self.core.io.is_read_only() {
            true => Err(Refusal::Degraded),
            false => Ok(()),
        }
    }

    /// A page of the buckets.
    ///
    /// # Errors
    /// `Damaged` if some could not be read: who mirrors a list would delete what is not in it. `OutOfReach` if they may
    /// be on a volume that is missing.
    pub fn buckets(&self, walk: &BucketWalk<'_>) -> Result<BucketPage, Refusal> {
        let buckets = self.core.buckets.borrow();
        match buckets.may_miss() {
            true => Err(self.core.not_verified()),
            false => Ok(buckets.walk(walk)),
        }
    }

    /// Makes a bucket; `location` is kept and given back.
    ///
    /// # Errors
    /// `BucketExists`, `TooManyBuckets` and what refuses any write.
    pub async fn create_bucket(&self, name: &str, location: &str) -> Result<Bucket, Refusal> {
        self.create_bucket_with(name, location, Configuration::default())
            .await
    }

    /// Makes a bucket that has a configuration from the first moment on.
    ///
    /// # Errors
    /// Those of [`Engine::create_bucket`], and `TooLarge`.
    pub async fn create_bucket_with(
        &self,
        name: &str,
        location: &str,
        configuration: Configuration,
    ) -> Result<Bucket, Refusal> {
        self.check_takes_changes()?;
        let request = Request::CreateBucket {
            name: name.to_owned(),
            location: location.to_owned(),
            configuration,
        };
        match self.core.call(COORDINATOR, request).await {
            Reply::Bucket(created) => created,
            other => unreachable!("a bucket's making is answered by it, not {other:?}"),
        }
    }

    /// Sets one kind of a bucket's configuration, or without a value removes it. It is true when it is on stable storage and
    /// every core has it. `bucket` makes sure that it is still the one that was looked at.
    ///
    /// # Errors
    /// `NoSuchBucket`, `BucketBusy` for a bucket whose record is lost, `TooLarge`, and what refuses any write.
    pub async fn configure_bucket(
        &self,
        name: &str,
        bucket: BucketId,
        kind: u8,
        value: Option<Vec<u8>>,
    ) -> Result<(), Refusal> {
        self.check_takes_changes()?;
        let request = Request::ConfigureBucket {
            name: name.to_owned(),
            bucket,
            kind,
            value,
        };
        match self.core.call(COORDINATOR, request).await {
            Reply::Bucket(configured) => configured.map(drop),
            other => unreachable!("a bucket's configuration is answered by it, not {other:?}"),
        }
    }

    /// Deletes an empty bucket, with the uploads in it that nobody finished.
    ///
    /// # Errors
    /// `NoSuchBucket`, `BucketNotEmpty` and what refuses any write.
    pub async fn delete_bucket(&self, name: &str) -> Result<(), Refusal> {
        self.check_takes_changes()?;
        match self
            .core
            .call(
                COORDINATOR,
                Request::DeleteBucket {
                    name: name.to_owned(),
                },
            )
            .await
        {
            Reply::Bucket(deleted) => deleted.map(drop),
            other => unreachable!("a bucket's end is answered by it, not {other:?}"),
        }
    }

    /// Receives a body of `length` bytes, or of any length.
    pub fn receive_body(&self, length: Option<u64>) -> BodyWriter<I> {
        BodyWriter::new(self.core.clone(), length)
    }

    /// Memory for a document that is gathered whole; none at first.
    pub fn document_memory(&self) -> DocumentMemory<I> {
        DocumentMemory::new(self.core.clone())
    }

    /// Memory for an answer that is made whole, out of what this core's bodies may have.
    ///
    /// # Errors
    /// `Busy`.
    pub async fn hold_bytes(&self, bytes: usize) -> Result<HeldBytes, Refusal> {
        self.core.hold_bytes(bytes).await
    }

    /// Counts memory that a response has taken: those that ask for some afterwards wait until it is given back.
    pub fn count_bytes(&self, bytes: usize) -> HeldBytes {
        self.core.buffers.hold(bytes)
    }

    /// Bytes of memory that bodies on this core wait for.
    pub fn wanted_buffer_bytes(&self) -> usize {
        self.core.buffers.wanted_bytes()
    }

    /// Bytes of memory that documents on this core wait for.
    pub fn wanted_document_bytes(&self) -> usize {
        self.core.documents.wanted_bytes() + self.core.last_document.wanted_bytes()
    }

    /// The body of an object's version, to be kept while its attributes change ([`Refusal::Stale`] if it changes first).
    pub fn keep_body(&self, version: Version) -> StoredBody<I> {
        StoredBody::kept(self.core.clone(), version.0)
    }

    /// Makes an object of a stored body.
    ///
    /// # Errors
    /// `PreconditionFailed`, `NoSuchKey` (for `IfMatch`), `NoSuchBucket`, and what refuses any write.
    pub async fn put(
        &self,
        bucket: BucketId,
        key: &[u8],
        etag: ETag,
        attributes: Box<[u8]>,
        body: StoredBody<I>,
        condition: WriteCondition,
    ) -> Result<Outcome, Refusal> {
        self.pace(&body).await;
        let body_bytes = body.bytes();
        let object = NewObject {
            etag,
            attributes,
            body: body.take(),
        };
        let mutation = Mutation::PutObject {
            bucket,
            key: key.to_vec(),
            object,
            condition,
        };
        let outcome = self.mutate(bucket, key, mutation).await?;
        count(&self.core.counters.body_bytes, body_bytes);
        Ok(outcome)
    }

    /// Deletes an object; one that is not there is no error.
    pub async fn delete(&self, bucket: BucketId, key: &[u8]) -> Result<Outcome, Refusal> {
        self.mutate(
            bucket,
            key,
            Mutation::DeleteObject {
                bucket,
                key: key.to_vec(),
            },
        )
        .await
    }

    /// Deletes many objects; outcomes in order of `keys`.
    pub async fn delete_many(&self, bucket: BucketId, keys: &[Vec<u8>]) -> Vec<Result<Outcome, Refusal>> {
        let mut shares: Vec<(Vec<usize>, Vec<Mutation>)> =
            self.core.everyone().map(|_| (Vec::new(), Vec::new())).collect();
        for (at, key) in keys.iter().enumerate() {
            let (places, mutations) = &mut shares[self.core.owner(bucket, key).0 as usize];
            places.push(at);
            mutations.push(Mutation::DeleteObject {
                bucket,
                key: key.clone(),
            });
        }
        let mut outcomes: Vec<Result<Outcome, Refusal>> = vec![Err(Refusal::Busy); keys.len()];
        let calls = self
            .core
            .everyone()
            .zip(shares)
            .filter(|(_, (places, _))| !places.is_empty());
        let calls = calls.map(|(owner, (places, mutations))| async move {
            (
                places,
                self.core.call(owner, Request::MutateMany(mutations)).await,
            )
        });
        for (places, reply) in futures_util::future::join_all(calls).await {
            let Reply::Outcomes(share) = reply else {
                unreachable!("many changes are answered by their outcomes")
            };
            for (at, outcome) in places.into_iter().zip(share) {
                outcomes[at] = outcome;
            }
        }
        outcomes
    }

    /// An object, ready to be read. As long as it is held, no segment that it may lie in is used again: it is given up before
    /// waiting for a change, which may wait for that room.
    ///
    /// # Errors
    /// `NoSuchKey`; for a small body also `Damaged` and `DiskFailed`.
    pub async fn get(&self, bucket: BucketId, key: &[u8]) -> Result<FoundObject<I>, Refusal> {
        self.find(bucket, key, true).await
    }

    /// What an object is; its body can be read all the same.
    ///
    /// # Errors
    /// `NoSuchKey`.
    pub async fn head(&self, bucket: BucketId, key: &[u8]) -> Result<FoundObject<I>, Refusal> {
        self.find(bucket, key, false).await
    }

    async fn find(&self, bucket: BucketId, key: &[u8], with_body: bool) -> Result<FoundObject<I>, Refusal> {
        // The guard comes first: what is named must still be there when it is read.
        let guard = self.core.guard();
        let index_key = key::object(bucket, key);
        let found = self
            .core
            .find(self.core.owner(bucket, key), index_key, with_body)
            .await?;
        self.core.check_is_within_reach(&found.object)?;
        Ok(FoundObject {
            object: found.object,
            version: Version(found.sequence),
            body: found.body,
            core: self.core.clone(),
            guard,
        })
    }

    /// A page of a bucket's objects, with a glance at the attributes of each.
    ///
    /// # Errors
    /// `DiskFailed`, `Damaged`.
    pub async fn list_objects(
        &self,
        bucket: BucketId,
        walk: KeyWalk,
        glance_at: GlanceAt,
    ) -> Result<KeyPage<ListedObject>, Refusal> {
        self.core.list_objects(bucket, walk, glance_at).await
    }

    /// Begins an upload in parts.
    pub async fn create_upload(
        &self,
        bucket: BucketId,
        key: &[u8],
        attributes: Box<[u8]>,
    ) -> Result<UploadId, Refusal> {
        // By time, then unique: uploads of a key list in the order in which they began.
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.core.io.unix_ms().to_be_bytes());
        id[8..].copy_from_slice(&self.core.next_tag().to_be_bytes());
        let upload = UploadId(id);
        let mutation = Mutation::CreateUpload {
            bucket,
            key: key.to_vec(),
            upload,
            attributes,
        };
        self.mutate(bucket, key, mutation).await?;
        Ok(upload)
    }

    /// Stores a part; one of the same number is replaced.
    ///
    /// # Errors
    /// `NoSuchUpload` and what refuses any write.
    #[allow(clippy::too_many_arguments)]
    pub async fn put_part(
        &self,
        bucket: BucketId,
        key: &[u8],
        upload: UploadId,
        number: u16,
        md5: [u8; 16],
        attributes: Box<[u8]>,
        body: StoredBody<I>,
    ) -> Result<Outcome, Refusal> {
        self.pace(&body).await;
        let body_bytes = body.bytes();
        let part = NewPart {
            md5,
            attributes,
            body: body.take(),
        };
        let mutation = Mutation::PutPart {
            bucket,
            key: key.to_vec(),
            upload,
            number,
            part,
        };
        let outcome = self.mutate(bucket, key, mutation).await?;
        count(&self.core.counters.body_bytes, body_bytes);
        Ok(outcome)
    }

    /// Makes an object of the parts of an upload.
    ///
    /// # Errors
    /// `Stale` when a listed part has changed since its sequence was read, `NoSuchUpload`,
    /// `PreconditionFailed`, and what refuses any write.
    pub async fn complete_upload(
        &self,
        bucket: BucketId,
        key: &[u8],
        upload: UploadId,
        completion: Completion,
        condition: WriteCondition,
    ) -> Result<Outcome, Refusal> {
        let mutation = Mutation::CompleteUpload {
            bucket,
            key: key.to_vec(),
            upload,
            completion,
            condition,
        };
        self.mutate(bucket, key, mutation).await
    }

    /// Ends an upload and its parts.
    ///
    /// # Errors
    /// `NoSuchUpload` and what refuses any write.
    pub async fn abort_upload(
        &self,
        bucket: BucketId,
        key: &[u8],
        upload: UploadId,
    ) -> Result<Outcome, Refusal> {
        self.mutate(
            bucket,
            key,
            Mutation::AbortUpload {
                bucket,
                key: key.to_vec(),
                upload,
            },
        )
        .await
    }

    /// Parts of an upload with numbers greater than `after`, up to `max`.
    ///
    /// # Errors
    /// `NoSuchUpload`.
    pub async fn list_parts(
        &self,
        bucket: BucketId,
        key: &[u8],
        upload: UploadId,
        after: u16,
        max: usize,
    ) -> Result<PartPage, Refusal> {
        let owner = self.core.owner(bucket, key);
        match self
            .core
            .call(
                owner,
                Request::ListParts {
                    bucket,
                    key: key.to_vec(),
                    upload,
                    after,
                    max,
                },
            )
            .await
        {
            Reply::Parts(page) => page,
            other => unreachable!("parts are answered by a page, not {other:?}"),
        }
    }

    /// A page of a bucket's unfinished uploads, with a glance at the attributes of each.
    ///
    /// # Errors
    /// `DiskFailed`, `Damaged`.
    pub async fn list_uploads(
        &self,
        bucket: BucketId,
        walk: UploadWalk,
        glance_at: GlanceAt,
    ) -> Result<KeyPage<ListedUpload>, Refusal> {
        self.core.list_uploads(bucket, walk, glance_at).await
    }

    /// Large bodies have waited while they were written.
    async fn pace(&self, body: &StoredBody<I>) {
        self.core.pace(RECORD_BYTES_GUESS + body.inline_bytes()).await;
    }

    async fn mutate(&self, bucket: BucketId, key: &[u8], mutation: Mutation) -> Result<Outcome, Refusal> {
        match self
            .core
            .call(self.core.owner(bucket, key), Request::Mutate(mutation))
            .await
        {
            Reply::Outcome(outcome) => outcome,
            other => unreachable!("a change is answered by its outcome, not {other:?}"),
        }
    }
}

/// Bytes that a change takes in the log beside a body: what a batch of one takes.
const RECORD_BYTES_GUESS: u64 = crate::io::DISK_ALIGN_BYTES as u64;

/// A version of an object, as the index numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version(u64);
