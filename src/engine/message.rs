//! What cores say to each other: requests with one reply each, and notes without.
//!
//! Invariant: a message owns all that it carries; nothing in it is shared with its sender but the bytes of a
//! small body, which never change.

use crate::engine::cache::Versions;
use crate::engine::configuration::Configuration;
use crate::engine::entry::{Bucket, ETag, Extent, GlanceAt, ListedObject, ListedUpload, Part, Upload};
use crate::engine::scrub::SealedSegment;
use crate::engine::victims::Shortage;
use crate::index::key::{BucketId, UploadId};
use crate::index::{KeyPage, KeyWalk, Manifest, UploadWalk};
use crate::io::{CoreId, SegmentId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What crosses the mesh.
#[derive(Debug)]
pub enum Message {
    Request { id: u64, request: Request },
    Reply { id: u64, reply: Reply },
    Note(Note),
}

/// Why the engine did not do as asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    NoSuchBucket,
    NoSuchKey,
    NoSuchUpload,
    /// The bucket is there already.
    BucketExists,
    BucketNotEmpty,
    /// There are as many as there may be.
    TooManyBuckets,
    /// The bucket is being deleted.
    BucketBusy,
    PreconditionFailed,
    /// What the request was computed from has changed since; compute it again.
    Stale,
    /// The volume has no room for what grows it.
    Full,
    /// A queue is at its bound.
    Busy,
    /// A volume is missing: nothing is changed in this run.
    Degraded,
    /// It is not found, and may be on the volume that is missing.
    OutOfReach,
    /// A disk said no; the change is not acknowledged, and may or may not have happened.
    DiskFailed,
    /// Too much failed on the volume: it takes no more writes until the next start.
    ReadOnly,
    /// A checksum refused what the disk returned.
    Damaged,
    /// The object cannot be held: more extents than a record takes.
    TooLarge,
}

/// Asked of the core that owns the key, or of core 0 for buckets and space.
#[derive(Debug)]
pub enum Request {
    /// An object, and its body too if that is wanted and small.
    Lookup {
        index_key: Vec<u8>,
        with_body: bool,
    },
    Mutate(Mutation),
    /// Several at once, answered in order.
    MutateMany(Vec<Mutation>),
    ListObjects {
        bucket: BucketId,
        walk: KeyWalk,
        glance_at: GlanceAt,
    },
    ListUploads {
        bucket: BucketId,
        walk: UploadWalk,
        glance_at: GlanceAt,
    },
    ListParts {
        bucket: BucketId,
        key: Vec<u8>,
        upload: UploadId,
        after: u16,
        max: usize,
    },
    /// Core 0: make a bucket true everywhere.
    CreateBucket {
        name: String,
        location: String,
        configuration: Configuration,
    },
    /// Core 0: set one kind of a bucket's configuration everywhere, or remove it.
    ConfigureBucket {
        name: String,
        bucket: BucketId,
        kind: u8,
        value: Option<Vec<u8>>,
    },
    /// Core 0: delete a bucket everywhere, if it is empty.
    DeleteBucket {
        name: String,
    },
    /// Each core: know this bucket.
    InstallBucket {
        name: String,
        bucket: Bucket,
    },
    /// At start: the buckets that this core's objects are in, and that it does not know.
    BucketsWanted,
    /// At start: objects are in this bucket, and its record is lost.
    InstallLostBucket {
        bucket: BucketId,
    },
    /// At start: some core met damage.
    Damaged,
    /// At start: there may be buckets that could not be read.
    BucketsMissing,
    /// Each core: refuse changes in this bucket from now on, and say whether it is empty.
    FreezeBucket {
        bucket: BucketId,
    },
    /// Each core: accept changes again.
    ThawBucket {
        bucket: BucketId,
    },
    /// Each core: forget the bucket and its unfinished uploads.
    DropBucket {
        name: String,
        bucket: BucketId,
    },
    /// Core 0: a segment for this kind of content.
    Allocate {
        content: Content,
        purpose: Purpose,
    },
    /// Core 0, at start: answered when every core has asked for the same stage.
    Barrier {
        stage: u8,
    },
    /// Core 0, at start: what a core found on the volume; answered like a barrier, with what all found.
    Survey(Survey),
    /// At start: changes found in the log that this core owns.
    Recovered(Vec<RecoveredChange>),
    /// Each core: write what the index has in memory to a run, so that the log before it is not needed any more.
    Checkpoint,
    /// Each core: every core has a manifest of this boot; say so in this core's.
    Confirm,
    /// Core 0: the first sealed segment from there on that is for this core to verify.
    Sealed {
        from: SegmentId,
        core: CoreId,
    },
    /// Each core: move what this core's entries keep in the victims, and say what could not be moved.
    Clean(CleanPlan),
}

/// What a request got.
#[derive(Debug)]
pub enum Reply {
    Done,
    Value(Result<Value, Refusal>),
    Outcome(Result<Outcome, Refusal>),
    Outcomes(Vec<Result<Outcome, Refusal>>),
    Objects(Result<KeyPage<ListedObject>, Refusal>),
    Uploads(Result<KeyPage<ListedUpload>, Refusal>),
    Parts(Result<PartPage, Refusal>),
    Bucket(Result<Bucket, Refusal>),
    /// Whether the bucket holds nothing on that core.
    Empty(Result<bool, Refusal>),
    Allocated(Result<Allocation, Lack>),
    Surveyed(Survey),
    /// Victims that hold what cannot be moved, ever.
    Cleaned(Vec<SegmentId>),
    /// And how many pages of the index could not be read.
    Sealed(Option<SealedSegment>),
    BucketsWanted(Result<(BTreeSet<BucketId>, u64), Refusal>),
    /// Whether it is on stable storage.
    Checkpointed(bool),
}

/// An object as its owner knows it.
#[derive(Debug)]
pub struct Value {
    /// The owner's count of changes.
    pub version: u64,
    pub sequence: u64,
    /// As it stands in the index.
    pub encoded: Box<[u8]>,
    /// Verified. Shared with the owner's cache: it never changes.
    pub body: Option<Arc<[u8]>>,
}

/// Told without an answer.
#[derive(Debug)]
pub enum Note {
    /// To core 0: how live bytes changed, by segment, and how many bytes clients wrote or ended.
    Space {
        deltas: Vec<SpaceDelta>,
        changed_bytes: u64,
    },
    /// To core 0: no byte will be added to this segment.
    Sealed { segment: SegmentId },
    /// From core 0: say when all reads that have begun are over.
    Retire { segment: SegmentId },
    /// To core 0: they are.
    Retired { segment: SegmentId },
    /// To core 0: this segment was given, and could not be made.
    Unmade { segment: SegmentId },
    /// To core 0: this segment was given, and cannot be written.
    Unusable { segment: SegmentId },
    /// To core 0, at start: the sender met damage.
    Damaged,
    /// To core 0, at start: the sender could not count all that there is.
    Uncounted,
    /// To core 0, at start: logs and runs of earlier boots that no start needs.
    Unneeded { segments: Vec<SegmentId> },
    /// To core 0: this segment is there, if it was not before.
    Made { segment: SegmentId },
    /// To core 0: the sender's logs of lives before this one, and all logs of earlier boots as far as they are the
    /// sender's, are not needed any more.
    Covered { generation: u64 },
    /// At start: the counters of the sender's changes.
    Versions(Versions),
    /// To all: too much failed on the sender's segments; nothing more is written in this run.
    ReadOnly,
    /// From core 0: there is room again, or whoever was told to wait for it should ask again.
    SpaceFreed,
}

/// A change to what is stored, decided at the owner of its key.
#[derive(Debug)]
pub enum Mutation {
    PutObject {
        bucket: BucketId,
        key: Vec<u8>,
        object: NewObject,
        condition: WriteCondition,
    },
    DeleteObject {
        bucket: BucketId,
        key: Vec<u8>,
    },
    CreateUpload {
        bucket: BucketId,
        key: Vec<u8>,
        upload: UploadId,
        attributes: Box<[u8]>,
    },
    PutPart {
        bucket: BucketId,
        key: Vec<u8>,
        upload: UploadId,
        number: u16,
        part: NewPart,
    },
    CompleteUpload {
        bucket: BucketId,
        key: Vec<u8>,
        upload: UploadId,
        completion: Completion,
        condition: WriteCondition,
    },
    AbortUpload {
        bucket: BucketId,
        key: Vec<u8>,
        upload: UploadId,
    },
    /// Core 0 only.
    PutBucket {
        name: String,
        location: String,
        configuration: Configuration,
    },
    /// Core 0 only: the bucket as it is to be.
    ConfigureBucket {
        name: String,
        bucket: Bucket,
        purpose: Purpose,
    },
    /// Core 0 only.
    RemoveBucket {
        name: String,
    },
}

/// What a write requires of what is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteCondition {
    None,
    /// `If-None-Match: *`
    IfAbsent,
    /// `If-Match: *`
    IfExists,
    /// `If-Match`
    IfMatch(ETag),
    /// `If-Match` with a tag that no object can have.
    IfMatchNone,
}

/// An object to be.
#[derive(Debug)]
pub struct NewObject {
    pub etag: ETag,
    pub attributes: Box<[u8]>,
    pub body: NewBody,
}

/// A part to be.
#[derive(Debug)]
pub struct NewPart {
    pub md5: [u8; 16],
    pub attributes: Box<[u8]>,
    pub body: NewBody,
}

/// Bytes of an object or part to be.
#[derive(Debug)]
pub enum NewBody {
    /// Goes into the commit record.
    Inline(Vec<u8>),
    /// On stable storage already.
    Extents { size: u64, extents: Vec<Extent> },
    /// The bytes of the version with this sequence stay; only attributes change.
    Keep { sequence: u64 },
}

/// An upload to be finished: its parts as the client listed them.
#[derive(Debug)]
pub struct Completion {
    pub etag: ETag,
    pub attributes: Box<[u8]>,
    /// Part numbers, rising, each with the sequence of the part that was checked.
    pub parts: Vec<(u16, u64)>,
}

/// What a mutation did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Orders the change among all of its key.
    pub sequence: u64,
    /// Milliseconds since 1970.
    pub modified_ms: u64,
}

/// Parts of one upload in order of number, each with its sequence.
#[derive(Debug)]
pub struct PartPage {
    pub upload: Upload,
    pub parts: Vec<(u16, u64, Part)>,
    pub truncated: bool,
}

/// What a segment is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    Log,
    Data,
    Index,
}

/// What a segment is needed for: each may use what is kept back from those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Purpose {
    /// What leaves more stored than before.
    Growth,
    /// Deletes and their like, which make room; and records that were queued when there was some.
    Release,
    /// What the cleaner moves.
    Moves,
    /// Runs and manifests that make logs unneeded.
    Index,
}

/// Why a core gets no segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lack {
    Refused(Refusal),
    /// Room is being made: `SpaceFreed` says when to ask again.
    Cleaning,
}

impl From<Refusal> for Lack {
    fn from(refusal: Refusal) -> Lack {
        Lack::Refused(refusal)
    }
}

/// One round of cleaning.
#[derive(Clone, Debug)]
pub struct CleanPlan {
    /// In order.
    pub victims: Vec<SegmentId>,
    /// Whether logs wait for a checkpoint.
    pub checkpoint: bool,
    pub shortage: Shortage,
}

/// A segment given to a core for one life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allocation {
    pub segment: SegmentId,
    pub generation: u64,
    /// How short room is now.
    pub shortage: Shortage,
}

/// How a segment's live content changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceDelta {
    pub segment: SegmentId,
    pub live_bytes: i64,
}

/// A segment as found at start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FoundSegment {
    pub segment: SegmentId,
    pub generation: u64,
    pub content: Found,
}

/// What a segment was found to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    Log,
    Data,
    Index,
    /// Never written, or freed durably.
    Free,
    /// Its header is damaged: nothing in it is reused.
    Unreadable,
    /// It was made once, and is not there.
    Missing,
}

/// Batches of this life of a segment are void from `offset` on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoisonedTail {
    pub segment: SegmentId,
    pub generation: u64,
    pub offset: u32,
}

/// What cores find on the volume at start.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    pub segments: Vec<FoundSegment>,
    pub poisoned: Vec<PoisonedTail>,
    /// The last boot that got as far as beginning a life of a segment.
    pub newest_epoch: u32,
    /// The latest of each core and boot that was found.
    pub manifests: Vec<(SegmentId, Manifest)>,
}

/// A change read from the log.
#[derive(Clone, Debug)]
pub struct RecoveredChange {
    pub key: Vec<u8>,
    pub sequence: u64,
    /// Generation of the log, and offset in it: what was written later of the same change counts.
    pub place: (u64, u32),
    /// `None` for a tombstone.
    pub value: Option<Box<[u8]>>,
}
