//! Bounds of what a client, a core or a volume may take, in one place, and how they relate.
//!
//! A bound that is reached is answered (S3's error, or a closed connection); it never grows.

use std::time::Duration;

/// Bytes of a request head, its final blank line included.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header fields of a request.
pub const HEADERS_MAX: usize = 100;
/// Bytes of an object key in UTF-8 (S3 user guide, "Naming Amazon S3 objects").
pub const KEY_BYTES_MAX: usize = 1024;
/// Bytes of user metadata: names and values, without `x-amz-meta-` (S3 user guide, "Working with object metadata").
pub const USER_METADATA_BYTES_MAX: usize = 2048;
/// Bytes of the other headers that are stored with an object: names and values (ibid., "system-defined metadata").
pub const SYSTEM_METADATA_BYTES_MAX: usize = 2048;
/// Bytes of an XML request body: 1,000 keys of DeleteObjects, each escaped, or 10,000 parts.
pub const XML_BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of XML bodies that one core gathers as they come; behind it one goes on at a time, and others wait.
pub const XML_GATHERED_BYTES_MAX: usize = 24 * 1024 * 1024;
/// Bytes that an XML body holds when its first byte comes, and doubles as often as it fills them.
pub const XML_FIRST_BYTES: usize = 64 * 1024;
/// Bytes of a text in an XML request body that is not a key: tags, checksums, numbers, dates.
pub const XML_TEXT_BYTES_MAX: usize = 1024;
/// Elements that an XML request body may nest.
pub const XML_DEPTH_MAX: usize = 16;
/// Bytes of the head of one aws-chunked chunk: size, extension, signature, line end.
pub const CHUNK_HEAD_BYTES_MAX: usize = 512;
/// Bytes of the trailer of a chunked body.
pub const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// Bytes of an object in one PUT, of a part, of a CopyObject source (S3: 5 GiB).
pub const PUT_BYTES_MAX: u64 = 5 << 30;
/// Bytes of an object made of parts (S3: 5 TiB).
pub const OBJECT_BYTES_MAX: u64 = 5 << 40;
/// Bytes of every part but the last (S3: 5 MiB).
pub const PART_BYTES_MIN: u64 = 5 << 20;
/// Parts of an upload.
pub const PARTS_MAX: u16 = 10_000;
/// Keys, parts, uploads or buckets in one page.
pub const PAGE_MAX: usize = 1_000;
/// Buckets of a volume (S3: of an account, by default). Every core knows all of them.
pub const BUCKETS_MAX: usize = 10_000;
/// Bytes of an access policy (S3 user guide, "Bucket policies": 20 KB).
pub const POLICY_BYTES_MAX: usize = 20 * 1024;
/// Users beside the root user, policies of one, and bytes of the file that has them all.
pub const USERS_MAX: usize = 10_000;
pub const USER_POLICIES_MAX: usize = 20;
pub const USERS_FILE_BYTES_MAX: u64 = 8 << 20;
/// Bytes of all that is configured of one bucket, and of all buckets together. Every core knows all of it, and the
/// cores share it.
pub const CONFIGURATION_BYTES_MAX: usize = 1 << 20;
pub const CONFIGURATIONS_BYTES_MAX: usize = 64 << 20;
/// Bytes of `User-Agent` and of `Referer` of a request that policies are asked about: a pattern takes time in the product of
/// both lengths.
pub const POLICY_HEADER_BYTES_MAX: usize = 1024;
/// Keys of one DeleteObjects.
pub const DELETE_KEYS_MAX: usize = 1_000;

/// A request's head must be complete this long after its first byte.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A body or response that makes no progress for this long ends its connection.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes a second that a peer must send of a body, or take of a response, while it is waited for. What it is behind,
/// or ahead, counts for as long as `STALL_TIMEOUT`. The slowest link still in use, 40 kbit/s of 2G, shared by the ten
/// parts that a transfer manager moves at once, gives each 512; Apache's mod_reqtimeout asks for 500 by default.
pub const PEER_BYTES_PER_S_MIN: u64 = 512;
/// A connection without a request is closed after this long.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(180);
/// In-flight requests have this long to finish after SIGTERM.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a core that has connections looks for those that are past their time.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// A connection without a request gives its buffers back after this long.
pub const COOL_AFTER: Duration = Duration::from_secs(2);
/// After a response that leaves a body unread, the connection is read this long before it is closed.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections of one core. Behind it the one that has waited longest for a request gives way to a new one.
pub const CONNECTIONS_PER_CORE_MAX: u32 = 4096;
/// Further connections of a core, when all of those are at work: asked after its health it still answers, and all
/// else is told to come again. Behind them new ones wait to be accepted.
pub const RESERVE_CONNECTIONS_MAX: u32 = 64;
/// A connection of the reserve must send its only head within this time.
pub const RESERVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a connection's read buffer, which it has while it serves a request.
pub const READ_BUFFER_BYTES: usize = HEAD_BYTES_MAX;
/// Buffers of connections that a core keeps for the next.
pub const SPARE_BUFFERS_MAX: usize = 128;
/// An unread body of up to this length is read away, so that its connection can go on.
pub const UNREAD_BODY_BYTES_MAX: u64 = 64 * 1024;
/// Bytes that are read away before a connection is closed: closing with bytes unread would reset it, and
/// a client that sends its whole body before it reads would never see why it was refused.
pub const LINGER_BYTES_MAX: usize = 64 << 20;
/// Bytes that one connection receives or sends before others of its core get their turn.
pub const TURN_BYTES: usize = 512 * 1024;
/// Connections of the admin listener, and further ones that only health is told.
pub const ADMIN_CONNECTIONS_MAX: u32 = 16;
pub const ADMIN_RESERVE_CONNECTIONS_MAX: u32 = 4;
/// How long cores have to say what they count.
pub const REPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses that a daemon listens on.
pub const LISTENERS_MAX: usize = 16;

/// Volumes of a set. A segment's number has room for 256.
pub const VOLUMES_MAX: usize = 64;
/// A disk operation that has not returned for this long fails, if the operator sets no other time. Linux gives a SCSI
/// disk 30 s before it resets it, and NVMe too; clients give up after 60 s.
pub const DISK_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest time that an operator may set for it, in seconds.
pub const DISK_TIMEOUT_S_MAX: u64 = 3600;
/// Operations of one core that are late, each with up to a MiB of memory that the kernel still uses; behind it new ones
/// fail at once.
pub const LATE_OPERATIONS_MAX: usize = 64;
/// Segments of one core that fail one after the other, of those that hold logs or of those that hold data: then the volume
/// takes no more writes.
pub const FAILED_SEGMENTS_MAX: usize = 16;

/// Starts that a volume can count: they are the upper bits of every sequence.
pub const BOOT_EPOCH_MAX: u32 = (1 << 24) - 1;
/// Slots that the keyspace is hashed into. Fixed for ever: it decides which records belong together.
pub const SLOTS: u32 = 4096;
/// A body up to this length lies inside its commit record.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a block of an extent on disk, its header included.
pub const BLOCK_BYTES: usize = 64 * 1024;
/// Bytes of a block's header.
pub const BLOCK_HEADER_BYTES: usize = 16;
/// Body bytes that a full block holds.
pub const BLOCK_PAYLOAD_BYTES: usize = BLOCK_BYTES - BLOCK_HEADER_BYTES;
/// Blocks that are written or read in one disk operation.
pub const BLOCKS_PER_IO: usize = 4;
/// Bytes that one group commit gathers; a single record may be longer.
pub const BATCH_BYTES_MAX: usize = 512 * 1024;
/// Bytes of one record. An object of 5 TiB has 330,000 extents of 16 MiB and 10,000 parts: 7 MiB.
pub const RECORD_BYTES_MAX: usize = 8 << 20;
/// Bytes of one disk operation. Bodies and scans keep to 1 MiB; only a batch with a huge record is longer.
pub const IO_BYTES_MAX: usize = 16 << 20;
/// Bytes of records that may wait for a core's group commit; behind it, 503.
pub const COMMIT_QUEUE_BYTES_MAX: usize = 16 << 20;
/// Bytes of memory that bodies in flight, in both directions, may hold on one core; behind it they wait, slow ones give
/// way, then 503.
pub const BODY_BUFFER_BYTES_MAX: usize = 64 << 20;
/// Bytes that a copy reads at a time.
pub const COPY_READ_BYTES: usize = BLOCKS_PER_IO * BLOCK_BYTES;
/// Bytes that the copies of one core hold of what they read; behind it they wait, then 503.
pub const COPY_BYTES_MAX: usize = 64 * COPY_READ_BYTES;
/// Bytes of memory that a page of a listing waits for, for each entry that it may have: a key that is all quotes is six
/// times as long in XML.
pub const LISTING_ENTRY_BYTES: usize = 6 * KEY_BYTES_MAX + 512;
/// A body or listing that gets no memory for this long is refused.
pub const BODY_BUFFER_TIMEOUT: Duration = Duration::from_secs(8);
/// Bytes a second that a body must bring while others wait for buffers: slower, it would not fill one in the time that
/// they have.
pub const SHORTAGE_BYTES_PER_S_MIN: u64 =
    (BLOCKS_PER_IO * BLOCK_BYTES) as u64 / BODY_BUFFER_TIMEOUT.as_secs();
/// How long a body may be behind that rate. Others, who wait, are then still in time.
pub const SHORTAGE_PATIENCE: Duration = Duration::from_secs(2);
/// Bytes that a body reserves in a segment at first; what it reserves next grows with what has come.
pub const FIRST_RESERVATION_BYTES: u64 = 1 << 20;
/// Bytes that one body reserves in a segment at a time.
pub const RESERVATION_BYTES_MAX: u64 = 16 << 20;
/// Disk operations that one body has in flight.
pub const BODY_IO_DEPTH: usize = 3;
/// How long a write waits for room that the cleaner is making; then it is told to come again.
pub const ROOM_TIMEOUT: Duration = Duration::from_secs(8);
/// Moves of live data that one core has in flight, each with one disk operation.
pub const CLEAN_IO_DEPTH: usize = 4;
/// Entries that one core moves in a group: their data in few syncs, their records in few batches.
pub const CLEAN_GROUP_ENTRIES: usize = 256;
/// Bytes of small bodies that such a group holds in memory.
pub const CLEAN_GROUP_INLINE_BYTES: usize = 1 << 20;
/// Bytes of data that such a group copies from disk to disk.
pub const CLEAN_GROUP_DATA_BYTES: u64 = 8 << 20;
/// Memory that the cleaner of one core takes, beside what bodies have: a group's small bodies, and for each move in
/// flight what was read and what is written.
pub const CLEAN_MEMORY_BYTES_MAX: usize =
    CLEAN_GROUP_INLINE_BYTES + INLINE_BYTES_MAX + 2 * CLEAN_IO_DEPTH * BLOCKS_PER_IO * BLOCK_BYTES;
/// Segments that a round of cleaning takes at once.
pub const CLEAN_VICTIMS_MAX: usize = 64;
/// Bytes that the scrub of a core reads at a time, and before it rests.
pub const SCRUB_READ_BYTES: u32 = 8 * BLOCK_BYTES as u32;
pub const SCRUB_SLICE_BYTES: u64 = 1 << 20;
/// What lies so near to each other is read together by the scrub.
pub const SCRUB_GAP_BYTES: u32 = 16 * 1024;
/// Findings that the scrub of a core tells in one pass.
pub const SCRUB_TOLD_MAX: u64 = 1000;
/// The scrub looks at the clock this often when it waits for its next pass.
pub const SCRUB_PAUSE_MAX: Duration = Duration::from_secs(3600);
/// Without a rate, what the volumes may hold is read once in this time.
pub const SCRUB_PERIOD: Duration = Duration::from_secs(14 * 24 * 3600);
/// Bytes of lookups, small bodies among them, that a core keeps.
pub const CACHE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a segment's header.
pub const SEGMENT_HEADER_BYTES: u32 = 4096;
/// Bytes of the smallest segment.
pub const SEGMENT_BYTES_MIN: u32 = 1 << 20;
/// Bytes of the largest segment.
pub const SEGMENT_BYTES_MAX: u32 = 1 << 30;
/// Bytes by which the watermark of a log is raised ahead of its batches: what a restart searches at most behind the
/// last one.
pub const WATERMARK_STEP_BYTES_MAX: u32 = 16 << 20;

const _: () = assert!(KEY_BYTES_MAX < u16::MAX as usize);
const _: () =
    assert!(CONFIGURATION_BYTES_MAX < RECORD_BYTES_MAX / 2 && POLICY_BYTES_MAX < CONFIGURATION_BYTES_MAX);
const _: () = assert!(BLOCK_BYTES * BLOCKS_PER_IO < SEGMENT_BYTES_MIN as usize);
const _: () = assert!(INLINE_BYTES_MAX * 4 < SEGMENT_BYTES_MIN as usize);
const _: () = assert!(BATCH_BYTES_MAX + 12288 <= SEGMENT_BYTES_MIN as usize);
const _: () = assert!(READ_BUFFER_BYTES >= HEAD_BYTES_MAX);
const _: () = assert!(SWEEP_INTERVAL.as_secs() == 1 && COOL_AFTER.as_secs() < HEAD_TIMEOUT.as_secs());
const _: () =
    assert!(RECORD_BYTES_MAX + BATCH_BYTES_MAX < IO_BYTES_MAX && RECORD_BYTES_MAX < COMMIT_QUEUE_BYTES_MAX);
const _: () =
    assert!(OBJECT_BYTES_MAX / RESERVATION_BYTES_MAX * 21 + PARTS_MAX as u64 * 8 < RECORD_BYTES_MAX as u64);
const _: () = assert!(XML_BODY_BYTES_MAX < BODY_BUFFER_BYTES_MAX && INLINE_BYTES_MAX < BODY_BUFFER_BYTES_MAX);
const _: () = assert!(XML_BODY_BYTES_MAX <= XML_GATHERED_BYTES_MAX && XML_FIRST_BYTES < XML_BODY_BYTES_MAX);
const _: () = assert!(PAGE_MAX * LISTING_ENTRY_BYTES < BODY_BUFFER_BYTES_MAX);
const _: () = assert!(SHORTAGE_BYTES_PER_S_MIN > PEER_BYTES_PER_S_MIN);
const _: () = assert!(2 * SHORTAGE_PATIENCE.as_secs() <= BODY_BUFFER_TIMEOUT.as_secs());
const _: () = assert!(CLEAN_MEMORY_BYTES_MAX < BODY_BUFFER_BYTES_MAX / 8);
const _: () = assert!(CLEAN_GROUP_INLINE_BYTES < COMMIT_QUEUE_BYTES_MAX / 2);
const _: () = assert!(SCRUB_READ_BYTES < SEGMENT_BYTES_MIN && SCRUB_READ_BYTES as usize <= IO_BYTES_MAX);
const _: () =
    assert!(SCRUB_READ_BYTES as u64 <= SCRUB_SLICE_BYTES && SCRUB_READ_BYTES as usize > INLINE_BYTES_MAX);
const _: () = assert!(SLOTS.is_power_of_two());
