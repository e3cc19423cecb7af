//! What one core of the engine holds, and how cores call each other.
//!
//! Everything here belongs to one core and is reached by its tasks alone. No borrow of a `RefCell` lives
//! across an await.

use crate::engine::buckets::BucketTable;
use crate::engine::budget::BufferBudget;
use crate::engine::cache::{LookupCache, Versions};
use crate::engine::checkpoint::Checkpoints;
use crate::engine::entry::{Bucket, Extent, Object};
use crate::engine::group_commit::CommitQueue;
use crate::engine::histogram::{BatchBytes, Durations, RecordCounts};
use crate::engine::holdings::Holdings;
use crate::engine::message::{Content, Message, Note, Outcome, Refusal, Reply, Request};
use crate::engine::pages::PageCache;
use crate::engine::planted::{Fault, planted};
use crate::engine::progress::StartProgress;
use crate::engine::reads::{OnRetired, ReadGuard, Reads};
use crate::engine::recover::{Assembly, Loss};
use crate::engine::segments::{DataTail, Supply};
use crate::engine::signal::Waiters;
use crate::engine::sizes::Sizes;
use crate::engine::space::{Ledger, SpaceTable};
use crate::engine::{Machine, Start};
use crate::index::Index;
use crate::index::key::BucketId;
use crate::io::{CoreId, SegmentId, VolumeState};
use crate::limits::{
    BODY_BUFFER_BYTES_MAX, COPY_BYTES_MAX, SLOTS, XML_BODY_BYTES_MAX, XML_GATHERED_BYTES_MAX,
};
use futures_channel::oneshot;
use futures_util::lock::Mutex;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// The core that holds the buckets, the space table and the barriers of the start.
pub const COORDINATOR: CoreId = CoreId(0);

/// Bits of a sequence that count changes within one run; the boot epoch has the rest.
const SEQUENCE_COUNTER_BITS: u32 = 40;

const _: () = assert!(crate::limits::BOOT_EPOCH_MAX as u64 >> (64 - SEQUENCE_COUNTER_BITS) == 0);

pub struct Core<I: Machine> {
    pub io: I,
    pub index: RefCell<Index>,
    pub buckets: RefCell<BucketTable>,
    pub commits: CommitQueue,
    pub supply: Supply,
    pub data: DataTail,
    /// Where the cleaner puts large extents: what has lived long apart from what is new.
    pub moved: DataTail,
    /// Where runs of the index go.
    pub runs: DataTail,
    pub ledger: Ledger,
    pub reads: Rc<Reads>,
    pub counters: Counters,
    pub holdings: Holdings,
    /// What this run makes of damage.
    pub loss: Loss,
    /// How far the start has come.
    pub progress: Arc<StartProgress>,
    /// Coordinator: told when everything is counted.
    pub space_opened: Waiters,
    /// Memory of bodies in flight, and of what copies read.
    pub buffers: Rc<BufferBudget>,
    pub copies: Rc<BufferBudget>,
    /// Memory of documents that are gathered, and of the one that goes on when there is none.
    pub documents: Rc<BufferBudget>,
    pub last_document: Rc<BufferBudget>,
    pub cache: LookupCache,
    pub pages: PageCache,
    pub checkpoints: Checkpoints,
    pub versions: Versions,
    /// Those of every core, once it has told them.
    versions_of: RefCell<Vec<Option<Versions>>>,
    /// On the coordinator: which segments are free, and what lives in the others.
    pub space: RefCell<SpaceTable>,
    /// On the coordinator: one change of the set of buckets at a time.
    pub bucket_changes: Mutex<()>,
    /// At start: what was found so far.
    pub assembly: RefCell<Assembly>,
    calls: RefCell<BTreeMap<u64, oneshot::Sender<Reply>>>,
    next_call: Cell<u64>,
    next_change: Cell<u64>,
    next_tag: Cell<u64>,
    retired: RefCell<Option<OnRetired>>,
}

/// The core that owns a key in a run with so many.
pub fn owner_among(cores: usize, bucket: BucketId, key: &[u8]) -> CoreId {
    let slot = xxhash_rust::xxh3::xxh3_64_with_seed(key, bucket.0) % u64::from(SLOTS);
    CoreId((slot % cores as u64) as u16)
}

/// From the volume's name, which clients do not see.
fn cache_seed(volume_id: &[u8; 16]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(volume_id)
}

/// What a core has counted since its start. It alone counts; a copy may go to another core.
#[derive(Clone, Default)]
pub struct Counters {
    pub batches: Cell<u64>,
    pub records: Cell<u64>,
    pub log_syncs: Cell<u64>,
    pub data_syncs: Cell<u64>,
    pub disk_errors: Cell<u64>,
    pub checksum_errors: Cell<u64>,
    /// Bytes that went to log and data segments, headers and padding included.
    pub bytes_written: Cell<u64>,
    /// Bytes of bodies that were asked for in reads of log and data segments, what surrounds them included.
    pub bytes_read: Cell<u64>,
    /// Bytes of the bodies of objects and parts that were stored and acknowledged.
    pub body_bytes: Cell<u64>,
    /// Of each batch: its records, its bytes, and the nanoseconds until it was on stable storage.
    pub batch_records: RecordCounts,
    pub batch_bytes: BatchBytes,
    pub batch_ns: Durations,
    /// Lookups that this core's cache answered, and those that it did not.
    pub cache_hits: Cell<u64>,
    pub cache_misses: Cell<u64>,
    /// Messages that came from other cores.
    pub messages: Cell<u64>,
    /// Entries that the cleaner gave another place, and the bytes that it copied for them.
    pub entries_moved: Cell<u64>,
    pub bytes_moved: Cell<u64>,
    /// Runs of the index that were written out of memory, and made of others; their bytes, and the nanoseconds that each
    /// took.
    pub checkpoints: Cell<u64>,
    pub checkpoint_bytes: Cell<u64>,
    pub checkpoint_ns: Durations,
    pub merges: Cell<u64>,
    pub merge_bytes: Cell<u64>,
    pub merge_ns: Durations,
    /// Pages of the index that were read because they were wanted, and the bytes of these reads, what lay behind included.
    pub pages_read: Cell<u64>,
    pub page_bytes_read: Cell<u64>,
    /// On the coordinator: rounds of cleaning, and the segments that were empty after them.
    pub clean_rounds: Cell<u64>,
    pub segments_cleaned: Cell<u64>,
    /// Bytes that the scrub read, the damage it found, how often it came to the end, and when last, in seconds since 1970.
    pub scrub_bytes: Cell<u64>,
    pub scrub_findings: Cell<u64>,
    pub scrub_passes: Cell<u64>,
    pub scrub_ended_s: Cell<u64>,
    /// Uploads that were ended because they were too old.
    pub uploads_expired: Cell<u64>,
}

/// Counts up.
pub fn count(counter: &Cell<u64>, by: u64) {
    counter.set(counter.get() + by);
}

/// Where the reply of a request goes.
pub enum ReplyTo {
    Local(oneshot::Sender<Reply>),
    Remote { core: CoreId, id: u64 },
}

impl<I: Machine> Core<I> {
    pub fn new(io: I, sizes: &Sizes, start: Start) -> Rc<Core<I>> {
        // Of a set that lacks a member nothing is lost: it is elsewhere.
        let loss = match io.is_read_only() {
            true => Loss::MayBeMended,
            false => start.loss,
        };
        let core = Rc::new(Core {
            index: RefCell::default(),
            buckets: RefCell::default(),
            commits: CommitQueue::default(),
            supply: Supply::default(),
            data: DataTail::of(Content::Data),
            moved: DataTail::of(Content::Data),
            runs: DataTail::of(Content::Index),
            ledger: Ledger::default(),
            reads: Rc::default(),
            counters: Counters::default(),
            holdings: Holdings::default(),
            loss,
            progress: start.progress,
            space_opened: Waiters::default(),
            buffers: BufferBudget::new(BODY_BUFFER_BYTES_MAX),
            copies: BufferBudget::new(COPY_BYTES_MAX),
            documents: BufferBudget::new(XML_GATHERED_BYTES_MAX),
            last_document: BufferBudget::new(XML_BODY_BYTES_MAX),
            cache: LookupCache::new(sizes.lookup_cache_bytes, cache_seed(&io.volume_id())),
            pages: PageCache::new(sizes.page_cache_bytes, cache_seed(&io.volume_id())),
            checkpoints: Checkpoints::new(sizes),
            versions: Versions::new(),
            versions_of: RefCell::new(vec![None; io.cores()]),
            space: RefCell::new(SpaceTable::new(io.volumes(), io.cores())),
            bucket_changes: Mutex::new(()),
            assembly: RefCell::default(),
            calls: RefCell::default(),
            next_call: Cell::new(0),
            next_change: Cell::new(0),
            next_tag: Cell::new(0),
            retired: RefCell::default(),
            io,
        });
        let weak = Rc::downgrade(&core);
        *core.retired.borrow_mut() = Some(Rc::new(move |segment| {
            if let Some(core) = weak.upgrade() {
                core.note(COORDINATOR, Note::Retired { segment });
            }
        }));
        core
    }

    /// The core that owns a key.
    pub fn owner(&self, bucket: BucketId, key: &[u8]) -> CoreId {
        owner_among(self.io.cores(), bucket, key)
    }

    /// What is said of what is not found: `absent`, unless it may be on a volume that is missing.
    pub fn not_found(&self, absent: Refusal) -> Refusal {
        match self.io.is_read_only() {
            true => Refusal::OutOfReach,
            false => absent,
        }
    }

    /// The bucket of that name, as this core knows it.
    ///
    /// # Errors
    /// `NoSuchBucket`; `Damaged` if it may be one that could not be read; `OutOfReach` if it may be on a missing volume.
    pub fn known_bucket(&self, name: &str) -> Result<Bucket, Refusal> {
        let buckets = self.buckets.borrow();
        let absent = match buckets.may_miss() {
            true => Refusal::Damaged,
            false => Refusal::NoSuchBucket,
        };
        buckets.get(name).cloned().ok_or(self.not_found(absent))
    }

    /// Refuses an object that is not on the volumes that are there, before a byte of it is promised.
    pub fn check_is_within_reach(&self, object: &Object) -> Result<(), Refusal> {
        let is_missing = |extent: &Extent| self.is_out_of_reach(extent.segment);
        match object.extents.iter().any(is_missing) {
            true => Err(Refusal::OutOfReach),
            false => Ok(()),
        }
    }

    /// Whether a segment is on a volume that is missing.
    pub fn is_out_of_reach(&self, segment: SegmentId) -> bool {
        self.io.volumes().get(segment.volume()) == Some(&VolumeState::Missing)
    }

    /// What is said of what fails its checksum. Without a volume, what names it may be from before its last change, and
    /// its place have been used for something else since.
    pub fn not_verified(&self) -> Refusal {
        self.not_found(Refusal::Damaged)
    }

    pub fn is_coordinator(&self) -> bool {
        self.io.core() == COORDINATOR
    }

    /// The cores of this run.
    pub fn everyone(&self) -> impl Iterator<Item = CoreId> + use<I> {
        (0..self.io.cores() as u16).map(CoreId)
    }

    /// The next sequence: boot epoch, then a counter of this core.
    pub fn next_sequence(&self) -> u64 {
        let counter = self.next_change.get();
        assert!(
            counter < 1 << SEQUENCE_COUNTER_BITS,
            "a run of 2^40 changes on one core"
        );
        self.next_change.set(counter + 1);
        u64::from(self.io.boot_epoch()) << SEQUENCE_COUNTER_BITS | counter
    }

    /// A number that no other extent or upload of the volume has: a hash of boot epoch, core and a counter.
    pub fn next_tag(&self) -> u64 {
        let counter = self.next_tag.get();
        self.next_tag.set(counter + 1);
        let mut name = [0; 16];
        name[..8].copy_from_slice(&counter.to_le_bytes());
        name[8..12].copy_from_slice(&self.io.boot_epoch().to_le_bytes());
        name[12..14].copy_from_slice(&self.io.core().0.to_le_bytes());
        xxhash_rust::xxh3::xxh3_64(&name)
    }

    /// Holds what a lookup leads to in place.
    pub fn guard(&self) -> ReadGuard {
        let over = self.retired.borrow();
        self.reads
            .guard(over.as_ref().expect("set when the core was made"))
    }

    /// Asks a core and waits for its reply.
    pub async fn call(self: &Rc<Self>, to: CoreId, request: Request) -> Reply {
        if to != self.io.core() {
            return self.call_remote(to, request).await;
        }
        let (sender, receiver) = oneshot::channel();
        self.serve(request, ReplyTo::Local(sender));
        receiver.await.expect("every request is answered")
    }

    /// Asks another core and waits for its reply.
    pub async fn call_remote(&self, to: CoreId, request: Request) -> Reply {
        let (sender, receiver) = oneshot::channel();
        let id = self.next_call.get();
        self.next_call.set(id + 1);
        self.calls.borrow_mut().insert(id, sender);
        self.io.send(to, Message::Request { id, request });
        receiver.await.expect("every request is answered")
    }

    /// Asks every core the same, all at once; replies in order of core.
    pub async fn call_all(self: &Rc<Self>, request: impl Fn() -> Request) -> Vec<Reply> {
        let calls = self.everyone().map(|core| self.call(core, request()));
        futures_util::future::join_all(calls).await
    }

    /// Tells a core something.
    pub fn note(self: &Rc<Self>, to: CoreId, note: Note) {
        if to == self.io.core() {
            self.take_note(self.io.core(), note);
        } else {
            self.io.send(to, Message::Note(note));
        }
    }

    /// Sends a reply on its way. A requester that is gone is no error.
    pub fn reply(&self, to: ReplyTo, reply: Reply) {
        match to {
            ReplyTo::Local(sender) => drop(sender.send(reply)),
            ReplyTo::Remote { core, id } => self.io.send(core, Message::Reply { id, reply }),
        }
    }

    /// Sends the outcome of a mutation on its way.
    pub fn reply_outcome(&self, to: ReplyTo, outcome: Result<Outcome, Refusal>) {
        self.reply(to, Reply::Outcome(outcome));
    }

    /// Requests to other cores that are not answered yet.
    pub fn open_calls(&self) -> usize {
        self.calls.borrow().len()
    }

    /// Tells every core where this one counts its changes.
    pub fn share_versions(self: &Rc<Self>) {
        for core in self.everyone() {
            self.note(core, Note::Versions(self.versions.clone()));
        }
    }

    fn set_versions(&self, of: CoreId, versions: Versions) {
        self.versions_of.borrow_mut()[usize::from(of.0)] = Some(versions);
    }

    /// How often a key has changed, if its owner has told where it counts.
    pub fn version_of(&self, owner: CoreId, index_key: &[u8]) -> Option<u64> {
        let versions = self.versions_of.borrow();
        Some(versions[usize::from(owner.0)].as_ref()?.of(index_key))
    }

    /// Serves what other cores send, until the run ends.
    pub async fn receive(self: Rc<Self>) {
        loop {
            let messages = self.io.receive().await;
            count(&self.counters.messages, messages.len() as u64);
            for (from, message) in messages {
                match message {
                    Message::Request { id, request } => {
                        self.serve(request, ReplyTo::Remote { core: from, id })
                    }
                    Message::Reply { id, reply } => {
                        let sender = self.calls.borrow_mut().remove(&id);
                        drop(sender.expect("a reply answers one request").send(reply));
                    }
                    Message::Note(note) => self.take_note(from, note),
                }
            }
        }
    }

    /// Answers a request now, or has a task or the next group commit answer it.
    fn serve(self: &Rc<Self>, request: Request, to: ReplyTo) {
        match request {
            Request::Lookup { index_key, with_body } => self.answer_lookup(index_key, with_body, to),
            Request::Mutate(mutation) => self.mutate(mutation, to),
            Request::MutateMany(mutations) => {
                self.in_task(to, async move |core| core.mutate_many(mutations).await)
            }
            Request::ListObjects {
                bucket,
                walk,
                glance_at,
            } => self.in_task(to, async move |core| {
                Reply::Objects(core.objects_here(bucket, &walk, glance_at).await)
            }),
            Request::ListUploads {
                bucket,
                walk,
                glance_at,
            } => self.in_task(to, async move |core| {
                Reply::Uploads(core.uploads_here(bucket, &walk, glance_at).await)
            }),
            Request::ListParts {
                bucket,
                key,
                upload,
                after,
                max,
            } => self.in_task(to, async move |core| {
                Reply::Parts(core.parts_here(bucket, &key, upload, after, max).await)
            }),
            Request::CreateBucket {
                name,
                location,
                configuration,
            } => self.in_task(to, async move |core| {
                Reply::Bucket(core.create_bucket_everywhere(name, location, configuration).await)
            }),
            Request::ConfigureBucket {
                name,
                bucket,
                kind,
                value,
            } => self.in_task(to, async move |core| {
                Reply::Bucket(core.configure_bucket_everywhere(name, bucket, kind, value).await)
            }),
            Request::DeleteBucket { name } => self.in_task(to, async move |core| {
                Reply::Bucket(core.delete_bucket_everywhere(name).await)
            }),
            Request::InstallBucket { name, bucket } => {
                self.buckets.borrow_mut().install(name, bucket);
                self.reply(to, Reply::Done);
            }
            Request::BucketsWanted => self.in_task(to, async |core| {
                Reply::BucketsWanted(core.buckets_wanted().await)
            }),
            Request::Checkpoint => self.in_task(to, async |core| {
                Reply::Checkpointed(core.checkpoint().await)
            }),
            Request::Confirm => self.in_task(to, async |core| {
                Reply::Checkpointed(core.confirm_manifest().await)
            }),
            Request::InstallLostBucket { bucket } => {
                self.buckets.borrow_mut().install_lost(bucket, self.loss);
                self.reply(to, Reply::Done);
            }
            Request::Damaged => {
                self.note_damage();
                self.reply(to, Reply::Done);
            }
            Request::BucketsMissing => {
                self.buckets.borrow_mut().note_missing();
                self.reply(to, Reply::Done);
            }
            Request::FreezeBucket { bucket } => self.in_task(to, async move |core| {
                Reply::Empty(core.freeze_bucket(bucket).await)
            }),
            Request::ThawBucket { bucket } => {
                self.buckets.borrow_mut().thaw(bucket);
                self.reply(to, Reply::Done);
            }
            Request::DropBucket { name, bucket } => self.in_task(to, async move |core| {
                if let Err(refusal) = core.drop_bucket(&name, bucket).await {
                    warn!("weft: the unfinished uploads of a deleted bucket stay until the next start: {refusal:?}");
                }
                Reply::Done
            }),
            Request::Allocate { content, purpose } => self.allocate_segment(content, purpose, to),
            Request::Clean(plan) => {
                self.in_task(to, async move |core| Reply::Cleaned(core.clean_here(&plan).await))
            }
            Request::Sealed { from, core } => {
                let found = self.space.borrow().sealed_from(from, core);
                self.reply(to, Reply::Sealed(found));
            }
            Request::Barrier { stage } => self.arrive(stage, to),
            Request::Survey(survey) => self.take_survey(survey, to),
            Request::Recovered(changes) => {
                self.take_recovered(changes);
                self.reply(to, Reply::Done);
            }
        }
    }

    fn take_note(self: &Rc<Self>, from: CoreId, note: Note) {
        match note {
            Note::Space {
                deltas,
                changed_bytes,
            } => self.account(&deltas, changed_bytes),
            Note::Sealed { segment } => self.segment_sealed(segment),
            Note::Retire { segment } if planted(Fault::NoReadGuard) => {
                self.note(COORDINATOR, Note::Retired { segment });
            }
            Note::Retire { segment } => {
                for segment in self.reads.retire(segment) {
                    self.note(COORDINATOR, Note::Retired { segment });
                }
            }
            Note::Retired { segment } => self.segment_retired(segment),
            Note::Damaged => self.note_damage(),
            Note::Uncounted => self.assembly.borrow_mut().uncounted = true,
            Note::Made { segment } => self.segment_made(segment),
            Note::Unmade { segment } => self.segment_unmade(segment, from),
            Note::Unusable { segment } => self.segment_unusable(segment),
            Note::Unneeded { segments } => self.space.borrow_mut().set_unneeded(&segments),
            Note::Covered { generation } => self.core_covered(from, generation),
            Note::Versions(versions) => self.set_versions(from, versions),
            Note::ReadOnly => self.become_read_only(),
            Note::SpaceFreed => self.space_freed(),
        }
    }

    /// Answers from a task, for requests that wait for something.
    pub fn in_task<F>(self: &Rc<Self>, to: ReplyTo, work: F)
    where
        F: AsyncFnOnce(Rc<Self>) -> Reply + 'static,
    {
        let core = self.clone();
        self.io.spawn(async move {
            let reply = work(core.clone()).await;
            core.reply(to, reply);
        });
    }
}
