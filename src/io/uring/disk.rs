//! One core's segments: files of their own, opened once per core, or stretches of a device. Direct I/O.
//!
//! A segment in a directory is made with fallocate, which is instant but leaves extents that the file system counts as
//! unwritten: the first sync after a write to such a place also commits the journal. On ext4 over
//! virtio a 4 KiB write and its fdatasync took 187 µs there and 111 µs in a place written before; 64
//! and 36 µs of CPU. Writes of 256 KiB hardly notice (284 and 170 µs, less than writing the zeroes
//! costs). So a new segment is filled with zeroes in the background, ahead of its writer, at half the
//! speed that the disk offers, and only while this core writes little at a time or nothing.
//!
//! Invariants: a zero is never in flight where the writer writes: the writer waits for the one in flight, and there will
//! be no other. This holds within a core, so a segment is written by the core that allocated it until
//! that core has left it (`leave`): another core may then be given it.
//!
//! Every operation has a time to keep ([`Patience`]): one that is late fails, and `leave` waits until it is over.
//!
//! It must not sync for the zeroes' sake: a failed flush must reach whoever waits for the segment's own writes.

use super::buffer::{Buffer, Pool};
use super::patience::Patience;
use super::ring::{Durability, Ring};
use super::tasks::Tasks;
use super::timers::Timers;
use super::volume::{Home, Made, VolumeSet};
use crate::io::{DISK_ALIGN_BYTES, SegmentId};
use crate::limits::IO_BYTES_MAX;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// Segments that a core keeps open.
pub(super) const OPEN_SEGMENTS_MAX: usize = 512;
/// Bytes of zeroes in one write.
const ZERO_BYTES: usize = 1 << 20;
/// Bytes that are zeroed before a new segment is handed out: the writer starts on written ground, and
/// the wait is a few milliseconds.
const ZERO_FIRST_BYTES: u64 = 4 << 20;
/// Writes of at least this many bytes on average gain nothing from zeroes.
const ZEROES_PAY_BELOW_BYTES: u64 = 128 << 10;
/// How long zeroing waits before it looks again whether it pays.
const ZERO_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Memory that a read filled. Clones share it.
#[derive(Clone, Debug)]
pub struct ReadBuf(Rc<Buffer>);

impl AsRef<[u8]> for ReadBuf {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

/// One core's segments.
pub(super) struct Disk {
    volumes: Arc<VolumeSet>,
    segment_size_bytes: u32,
    files: RefCell<OpenFiles>,
    zeroing: RefCell<HashMap<SegmentId, Rc<Zeroing>>>,
    traffic: Traffic,
    machine: Handles,
}

/// What a disk needs of its core.
pub(super) struct Handles {
    pub ring: Rc<Ring>,
    pub pool: Rc<Pool>,
    pub tasks: Tasks,
    pub timers: Rc<Timers>,
    pub patience: Rc<Patience>,
}

impl Disk {
    pub(super) fn new(volumes: Arc<VolumeSet>, machine: Handles) -> Rc<Disk> {
        Rc::new(Disk {
            segment_size_bytes: volumes.shape().segment_size_bytes,
            volumes,
            files: RefCell::default(),
            zeroing: RefCell::default(),
            traffic: Traffic::default(),
            machine,
        })
    }

    /// What lists the segments, blocking.
    pub(super) fn lister(&self) -> impl FnOnce() -> io::Result<Vec<SegmentId>> + Send + use<> {
        let volumes = Arc::clone(&self.volumes);
        move || volumes.list()
    }

    /// What makes segment `id`, blocking. A segment that is [`Made::Now`] wants [`Disk::zero_ahead`].
    pub(super) fn maker(&self, id: SegmentId) -> impl FnOnce() -> io::Result<Made> + Send + use<> {
        let volumes = Arc::clone(&self.volumes);
        move || volumes.make(id)
    }

    pub(super) async fn write(
        &self,
        id: SegmentId,
        offset: u32,
        buf: Buffer,
        durability: Durability,
    ) -> io::Result<()> {
        let length = buf.len();
        self.assert_within(offset, length);
        let (file, start) = self.place(id).await?;
        self.leave_zeroes_behind(id, u64::from(offset) + length as u64)
            .await;
        self.machine.patience.check(Some(id))?;
        self.traffic.count(length);
        let writing = self
            .machine
            .ring
            .write(file, start + u64::from(offset), Rc::new(buf), durability);
        let written = self
            .machine
            .patience
            .wait_for_write(id, writing)
            .await?
            .length()?;
        if written != length {
            return Err(short("write", id, written, length));
        }
        Ok(())
    }

    pub(super) async fn read(&self, id: SegmentId, offset: u32, length: u32) -> io::Result<ReadBuf> {
        let length = length as usize;
        self.assert_within(offset, length);
        let (file, start) = self.place(id).await?;
        self.machine.patience.check(None)?;
        let buffer = self.machine.pool.buffer(length);
        let reading = self.machine.ring.read(file, start + u64::from(offset), buffer);
        let done = self.machine.patience.wait(reading).await?;
        let read = done.length()?;
        if read != length {
            return Err(short("read", id, read, length));
        }
        Ok(ReadBuf(Rc::new(done.into_buffer())))
    }

    pub(super) async fn sync(&self, id: SegmentId) -> io::Result<()> {
        let (file, _) = self.place(id).await?;
        self.machine.patience.check(None)?;
        let syncing = self.machine.ring.sync_data(file);
        self.machine.patience.wait(syncing).await?.length().map(drop)
    }

    /// Offsets and lengths are made by the engine, from checked values: a wrong one is a bug.
    fn assert_within(&self, offset: u32, length: usize) {
        assert!(
            length > 0 && length <= IO_BYTES_MAX,
            "disk operation of {length} bytes"
        );
        assert!(
            length.is_multiple_of(DISK_ALIGN_BYTES),
            "length {length} is not aligned"
        );
        assert!(
            (offset as usize).is_multiple_of(DISK_ALIGN_BYTES),
            "offset {offset} is not aligned"
        );
        let end = u64::from(offset) + length as u64;
        assert!(
            end <= u64::from(self.segment_size_bytes),
            "{length} bytes at {offset} pass the segment's end"
        );
    }

    /// The open file that a segment is in, and where in it the segment begins.
    async fn place(&self, id: SegmentId) -> io::Result<(Rc<File>, u64)> {
        if let Some(place) = self.files.borrow_mut().get(id) {
            return Ok(place);
        }
        let (opened, start) = match self.volumes.home(id)? {
            // The same open device for all, by another number.
            Home::Stretch { device, offset } => (device.try_clone()?, offset),
            Home::File(path) => {
                let path = CString::new(path.into_os_string().into_vec())?;
                self.machine.patience.check(None)?;
                let opening = self.machine.ring.open_direct(path);
                (self.machine.patience.wait(opening).await?.into_file()?, 0)
            }
        };
        // One that is closed for it: what was written through it is synced, or reported, through whichever
        // descriptor sync uses.
        Ok(self.files.borrow_mut().insert(id, Rc::new(opened), start))
    }
}

/// How far the zeroes of one segment have come.
#[derive(Default)]
struct Zeroing {
    /// Every byte before this one was written.
    zeroed_bytes: Cell<u64>,
    in_flight: Cell<bool>,
    stopped: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Zeroing {
    async fn settled(&self) {
        poll_fn(|cx| {
            if !self.in_flight.get() {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Disk {
    /// Zeroes the beginning of the new segment `id`, then goes on in the background.
    ///
    /// Not to be dropped early: a zero may be in flight.
    pub(super) async fn zero_ahead(self: &Rc<Self>, id: SegmentId) -> io::Result<()> {
        let (file, _) = self.place(id).await?;
        let zeroing = Rc::new(Zeroing::default());
        let zeroes = Rc::new(self.zeroes());
        let first_bytes = ZERO_FIRST_BYTES.min(u64::from(self.segment_size_bytes));
        while zeroing.zeroed_bytes.get() < first_bytes {
            self.zero_next(id, &file, &zeroing, &zeroes).await?;
        }
        if first_bytes < u64::from(self.segment_size_bytes) {
            self.zeroing.borrow_mut().insert(id, Rc::clone(&zeroing));
            let disk = Rc::clone(self);
            self.machine.tasks.spawn(async move {
                disk.zero_rest(id, &file, &zeroing, &zeroes).await;
                disk.zeroing.borrow_mut().remove(&id);
            });
        }
        Ok(())
    }

    async fn zero_rest(&self, id: SegmentId, file: &Rc<File>, zeroing: &Zeroing, zeroes: &Rc<Buffer>) {
        while zeroing.zeroed_bytes.get() < u64::from(self.segment_size_bytes) {
            if self.traffic.average_since_last_asked() >= ZEROES_PAY_BELOW_BYTES {
                self.machine.timers.sleep(ZERO_RETRY_DELAY).await;
            }
            if zeroing.stopped.get() {
                return;
            }
            let started = Instant::now();
            // Whoever writes to a place that refused zeroes is told by that write.
            if self.zero_next(id, file, zeroing, zeroes).await.is_err() {
                return;
            }
            self.machine.timers.sleep(started.elapsed()).await;
        }
    }

    /// Ends the zeroing of segment `id`; returns when nothing of this core's can land in it any more.
    pub(super) async fn leave(&self, id: SegmentId) {
        self.leave_zeroes_behind(id, u64::MAX).await;
        self.machine.patience.late_writes_returned(id).await;
    }

    /// Returns when no zero can land before `end_bytes` of segment `id` any more.
    async fn leave_zeroes_behind(&self, id: SegmentId, end_bytes: u64) {
        let Some(zeroing) = self.zeroing.borrow().get(&id).cloned() else {
            return;
        };
        if end_bytes > zeroing.zeroed_bytes.get() {
            zeroing.stopped.set(true);
            zeroing.settled().await;
        }
    }

    async fn zero_next(
        &self,
        id: SegmentId,
        file: &Rc<File>,
        zeroing: &Zeroing,
        zeroes: &Rc<Buffer>,
    ) -> io::Result<()> {
        self.machine.patience.check(Some(id))?;
        let at = zeroing.zeroed_bytes.get();
        zeroing.in_flight.set(true);
        let writing = self
            .machine
            .ring
            .write(Rc::clone(file), at, Rc::clone(zeroes), Durability::None);
        // One that is late is a write like any other: whoever writes here next is refused.
        let written = self.machine.patience.wait_for_write(id, writing).await;
        zeroing.in_flight.set(false);
        for waker in zeroing.waiting.take() {
            waker.wake();
        }
        if written?.length()? != ZERO_BYTES {
            return Err(io::ErrorKind::WriteZero.into());
        }
        zeroing.zeroed_bytes.set(at + ZERO_BYTES as u64);
        Ok(())
    }

    fn zeroes(&self) -> Buffer {
        let mut buffer = self.machine.pool.buffer(ZERO_BYTES);
        buffer.as_mut().fill(0);
        buffer
    }
}

/// What this core wrote since it was last asked.
#[derive(Default)]
struct Traffic {
    writes: Cell<u64>,
    bytes: Cell<u64>,
}

impl Traffic {
    fn count(&self, length: usize) {
        self.writes.set(self.writes.get() + 1);
        self.bytes.set(self.bytes.get() + length as u64);
    }

    /// Bytes of the average write; 0 if there was none.
    fn average_since_last_asked(&self) -> u64 {
        self.bytes.take().checked_div(self.writes.take()).unwrap_or(0)
    }
}

/// At most [`OPEN_SEGMENTS_MAX`] files; the one unused for longest gives way.
#[derive(Default)]
struct OpenFiles {
    /// Each with where in it the segment begins, and when it was last used.
    by_id: HashMap<SegmentId, (Rc<File>, u64, u64)>,
    uses: u64,
}

impl OpenFiles {
    fn get(&mut self, id: SegmentId) -> Option<(Rc<File>, u64)> {
        self.uses += 1;
        let (file, start, used) = self.by_id.get_mut(&id)?;
        *used = self.uses;
        Some((Rc::clone(file), *start))
    }

    /// The file to use for `id`, which is another than `file` if two tasks opened it at once.
    fn insert(&mut self, id: SegmentId, file: Rc<File>, start: u64) -> (Rc<File>, u64) {
        if let Some(before) = self.get(id) {
            return before;
        }
        if self.by_id.len() >= OPEN_SEGMENTS_MAX {
            self.remove_oldest();
        }
        self.by_id.insert(id, (Rc::clone(&file), start, self.uses));
        (file, start)
    }

    fn remove_oldest(&mut self) {
        if let Some((&oldest, _)) = self.by_id.iter().min_by_key(|(_, (.., used))| *used) {
            self.by_id.remove(&oldest);
        }
    }
}

fn short(doing: &str, id: SegmentId, done: usize, wanted: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("short {doing} on segment {id}: {done} of {wanted} bytes"),
    )
}
