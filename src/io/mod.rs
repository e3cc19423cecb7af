//! What one core may ask of the machine: disk, messages to other cores, clock, tasks, buffers.
//!
//! The engine is written against [`Io`] and names no runtime. Two machines implement it: `uring`
//! (io_uring, the only folder that names it) and `sim` (one thread, one seed, disks that
//! lose and tear what was not synced). A handle belongs to one core and is cheap to clone.
//!
//! Invariant: nothing here is shared between cores. A message is the only thing that crosses.

pub mod sim;
pub mod uring;

use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

/// Alignment, in bytes, of every disk offset, length and buffer.
pub const DISK_ALIGN_BYTES: usize = 4096;

/// A core of this run: 0 to `cores - 1`. Not stable from one start to the next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct CoreId(pub u16);

/// Segments that one volume has at most: 16 PiB at the largest segment size.
pub const SEGMENTS_PER_VOLUME: u32 = 1 << 24;

/// A segment: its volume's index in the set (upper 8 bits) and its place there, reused life after life.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SegmentId(pub u32);

impl SegmentId {
    /// The segment at `place` of a volume.
    pub const fn new(volume: usize, place: u32) -> SegmentId {
        debug_assert!(volume < 256 && place < SEGMENTS_PER_VOLUME);
        SegmentId((volume as u32) * SEGMENTS_PER_VOLUME + place)
    }

    /// The index of its volume in the set.
    pub const fn volume(self) -> usize {
        (self.0 / SEGMENTS_PER_VOLUME) as usize
    }

    /// Its place in its volume, from 0.
    pub const fn place(self) -> u32 {
        self.0 % SEGMENTS_PER_VOLUME
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The shape of a volume, fixed when it is first started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeShape {
    /// Bytes of one segment; a power of two, at least 1 MiB, at most 1 GiB. The same in all volumes of a set.
    pub segment_size_bytes: u32,
    /// Segments that the capacity allows; their places are `0..segments_max`.
    pub segments_max: u32,
}

/// A volume of the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeState {
    Present {
        /// Segments that its capacity allows; their places are `0..segments_max`.
        segments_max: u32,
        /// Segments that an earlier run made: at least the first so many.
        segments_known: u32,
    },
    /// It is not there, and this run changes nothing ([`Io::is_read_only`]).
    Missing,
}

/// One core's view of the machine.
///
/// Dropping the future of a disk call does not undo it: a write whose future was dropped may still
/// land. Callers therefore give log writes to a task that nothing cancels.
pub trait Io: Clone + 'static {
    /// What cores send each other.
    type Message: Send + 'static;
    /// Memory for a write: aligned to [`DISK_ALIGN_BYTES`]. Its content is undefined when handed out.
    type WriteBuf: AsRef<[u8]> + AsMut<[u8]> + 'static;
    /// Memory that a read filled; clones share it.
    type ReadBuf: AsRef<[u8]> + Clone + 'static;

    /// The core that this handle belongs to.
    fn core(&self) -> CoreId;
    /// How many cores this run has.
    fn cores(&self) -> usize;

    /// Runs `task` on this core until it ends. Tasks are not cancelled.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);
    /// Lets other tasks of this core run, then goes on.
    fn yield_now(&self) -> impl Future<Output = ()>;
    /// Completes after at least `duration`.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()>;
    /// Nanoseconds since an arbitrary start; never goes back.
    fn monotonic_ns(&self) -> u64;
    /// Milliseconds since 1970-01-01T00:00:00Z; may go back.
    fn unix_ms(&self) -> u64;

    /// Queues `message` for `to` (never this core) and returns at once. Messages from one core to
    /// another arrive once each, in order. The caller bounds how many are outstanding.
    fn send(&self, to: CoreId, message: Self::Message);
    /// The messages that have arrived, at least one, in order per sender. One task per core calls this.
    fn receive(&self) -> impl Future<Output = Vec<(CoreId, Self::Message)>>;

    /// The shape of all volumes that are there, taken together.
    fn volume(&self) -> VolumeShape;
    /// The volumes of the set, in order of their index.
    fn volumes(&self) -> &[VolumeState];
    /// Nothing may be written: a volume is missing.
    fn is_read_only(&self) -> bool {
        self.volumes().contains(&VolumeState::Missing)
    }
    /// Names the set of volumes for ever; every segment's header repeats it.
    fn volume_id(&self) -> [u8; 16];
    /// The boot epoch: persisted, and raised by one before any core of this run started.
    fn boot_epoch(&self) -> u32;
    /// A buffer of `length_bytes` (a multiple of [`DISK_ALIGN_BYTES`]).
    fn buffer(&self, length_bytes: usize) -> Self::WriteBuf;
    /// The segments that exist on the volumes that are there, in any order.
    fn segments(&self) -> impl Future<Output = io::Result<Vec<SegmentId>>>;
    /// Makes segment `id` exist at its full size, reading as zeros. One made before is left as it is. That it exists is
    /// durable when this returns.
    fn allocate(&self, id: SegmentId) -> impl Future<Output = io::Result<()>>;
    /// This core writes no more to segment `id`: when this returns, nothing that the machine does by itself
    /// lands there either, and another core may write.
    fn leave(&self, id: SegmentId) -> impl Future<Output = ()>;
    /// Writes all of `buf` at `offset` (aligned). A short write is an error. Durable only after [`Io::sync`].
    fn write(&self, id: SegmentId, offset: u32, buf: Self::WriteBuf) -> impl Future<Output = io::Result<()>>;
    /// As a [`Io::write`] that an [`Io::sync`] follows, but for that write alone: others of the segment may or may
    /// not become durable with it.
    fn write_synced(
        &self,
        id: SegmentId,
        offset: u32,
        buf: Self::WriteBuf,
    ) -> impl Future<Output = io::Result<()>> {
        async move {
            self.write(id, offset, buf).await?;
            self.sync(id).await
        }
    }
    /// Reads `length` bytes at `offset` (both aligned). A short read is an error.
    fn read(
        &self,
        id: SegmentId,
        offset: u32,
        length: u32,
    ) -> impl Future<Output = io::Result<Self::ReadBuf>>;
    /// Makes every write of segment `id` that had completed when this was called durable.
    /// After an error nothing about those writes may be assumed, and the call is not repeated.
    fn sync(&self, id: SegmentId) -> impl Future<Output = io::Result<()>>;
}
