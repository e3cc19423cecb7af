//! A core's segments: the supply made ready ahead of need, and the one that large bodies go to.
//!
//! A segment is handed out with its header on stable storage. At its end it is sealed: from then on its
//! content only dies. The core writes only to segments that it was given, and each place once, but for the watermark
//! of a log.
//!
//! A segment that fails is left, and the next one taken. When many fail one after the other it is not they: then the
//! volume is *read-only* for the rest of the run, which every core is told.

use crate::engine::Machine;
use crate::engine::core::{COORDINATOR, Core, count};
use crate::engine::message::{Allocation, Content, Lack, Note, Purpose, Refusal, Reply, Request};
use crate::engine::planted::{Fault, planted};
use crate::engine::signal::Waiters;
use crate::engine::victims::Shortage;
use crate::index::INDEX_START;
use crate::io::SegmentId;
use crate::limits::{
    BLOCK_BYTES, FAILED_SEGMENTS_MAX, RESERVATION_BYTES_MAX, ROOM_TIMEOUT, SEGMENT_HEADER_BYTES,
};
use crate::log::{
    LOG_START, SegmentHeader, SegmentKind, WATERMARK_BYTES, WATERMARK_OFFSET, disk_bytes_for,
    encode_watermark,
};
use futures_channel::oneshot;
use futures_util::future::{Either, select};
use futures_util::lock::Mutex;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// Segments that are ready before anyone needs them, and who waits for one.
#[derive(Default)]
pub struct Supply {
    log: Shelf,
    data: Shelf,
    index: Shelf,
    /// There was a need of a data segment.
    had_data: Cell<bool>,
    /// Whether there is room for what grows, and for what releases.
    growth: Cell<Gate>,
    release: Cell<Gate>,
    /// Told when a gate may have opened.
    told: Waiters,
    /// When growth was last asked for in vain, in nanoseconds of the machine's clock.
    asked_ns: Cell<u64>,
    /// How often the coordinator said that there is room again.
    freed: Cell<u64>,
    /// What a write of a MiB waits, so that the cleaner keeps up, in microseconds.
    delay_us_per_mib: Cell<u64>,
    /// Nothing more is written in this run.
    read_only: Cell<bool>,
}

/// What the coordinator last said of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Gate {
    #[default]
    Open,
    /// Room is being made.
    Cleaning,
    Full,
}

type Answer = oneshot::Sender<Result<(), Lack>>;

#[derive(Default)]
struct Shelf {
    spare: RefCell<VecDeque<SegmentHeader>>,
    /// Told that something is in `spare`, or why nothing will be.
    waiting: RefCell<VecDeque<(Purpose, Answer)>>,
    /// By purpose: orders under way, and who needs one.
    orders: [Cell<usize>; PURPOSES],
    wanted: [Cell<usize>; PURPOSES],
    /// One order at a time, so that a core fills its logs in the order of their generations: what tells that a
    /// record is void lies in a later life than the record.
    ordering: Mutex<()>,
    /// Segments of this kind that have failed since one did not.
    failed: Cell<usize>,
}

const PURPOSES: usize = Purpose::Index as usize + 1;
/// Segments that fail one after the other before the disk is called bad.
const PREPARE_ATTEMPTS: usize = 3;
/// How soon a segment must have failed for another one to be tried at once, in nanoseconds.
const PREPARE_AGAIN_NS: u64 = 1_000_000_000;
/// A volume that was full is asked again after this long, in nanoseconds, if somebody wants to write.
const FULL_RETRY_NS: u64 = 1_000_000_000;
/// What a write of a MiB waits at the greatest shortage, in microseconds: 20 MiB/s for each writer. From half of it
/// on the delay grows from nothing.
const DELAY_US_PER_MIB_MAX: u64 = 50_000;
/// Delays are gathered until they are worth a timer.
const DELAY_US_MIN: u64 = 100;

impl Supply {
    fn gate(&self, purpose: Purpose) -> Option<&Cell<Gate>> {
        match purpose {
            Purpose::Growth => Some(&self.growth),
            Purpose::Release => Some(&self.release),
            Purpose::Moves | Purpose::Index => None,
        }
    }

    /// Whether the volume has no room for what grows it.
    pub fn is_full(&self) -> bool {
        self.growth.get() == Gate::Full
    }

    /// What a write of a MiB waits now, so that the cleaner keeps up.
    pub fn delay_per_mib(&self) -> Duration {
        Duration::from_micros(self.delay_us_per_mib.get())
    }

    /// Whether the cleaner is making the room that `purpose` needs.
    pub fn is_cleaning(&self, purpose: Purpose) -> bool {
        self.gate(purpose)
            .is_some_and(|gate| gate.get() == Gate::Cleaning)
    }

    /// Whether too much has failed for anything more to be written.
    pub fn is_read_only(&self) -> bool {
        self.read_only.get()
    }

    /// What was written to a segment is on stable storage.
    pub fn note_success(&self, content: Content) {
        self.shelf(content).failed.set(0);
    }

    fn shelf(&self, content: Content) -> &Shelf {
        match content {
            Content::Log => &self.log,
            Content::Data => &self.data,
            Content::Index => &self.index,
        }
    }
}

/// Somebody needs a segment. If he goes away without one, others may have it.
struct Want<'a> {
    shelf: &'a Shelf,
    purpose: Purpose,
}

impl<'a> Want<'a> {
    fn new(shelf: &'a Shelf, purpose: Purpose) -> Want<'a> {
        let wanted = &shelf.wanted[purpose as usize];
        wanted.set(wanted.get() + 1);
        Want { shelf, purpose }
    }
}

impl Drop for Want<'_> {
    fn drop(&mut self) {
        let wanted = &self.shelf.wanted[self.purpose as usize];
        wanted.set(wanted.get() - 1);
        if !self.shelf.spare.borrow().is_empty() {
            self.shelf.wake();
        }
    }
}

impl Shelf {
    /// Puts a segment where the next who needs one looks, and tells who waits.
    fn put(&self, header: SegmentHeader) {
        self.spare.borrow_mut().push_back(header);
        self.wake();
    }

    fn wake(&self) {
        for (_, waiting) in self.waiting.take() {
            let _ = waiting.send(Ok(())); // One that went away need not know.
        }
    }

    /// A spare one, if nobody is there who may take what is kept back from `purpose`: it may be just that.
    fn take(&self, purpose: Purpose) -> Option<SegmentHeader> {
        let goes_before = self.wanted[purpose as usize + 1..]
            .iter()
            .any(|count| count.get() > 0);
        match goes_before {
            true => None,
            false => self.spare.borrow_mut().pop_front(),
        }
    }

    /// Whether what is ordered would be given to `purpose`.
    fn is_ordered_for(&self, purpose: Purpose) -> bool {
        self.orders[purpose as usize..]
            .iter()
            .any(|count| count.get() > 0)
    }

    /// Tells those whom the failure of such an order concerns. What is kept back for others is not lacking to them.
    fn refuse(&self, purpose: Purpose, lack: Lack) {
        let waiting = self.waiting.take();
        for (wanted, sender) in waiting {
            if lack != Lack::Refused(Refusal::DiskFailed) && wanted > purpose {
                self.waiting.borrow_mut().push_back((wanted, sender));
            } else {
                let _ = sender.send(Err(lack)); // One that went away needs no answer.
            }
        }
    }
}

impl<I: Machine> Core<I> {
    /// Gets the next segments ready: a log, and a data segment once there was a body for one.
    pub fn stock(self: &Rc<Self>) {
        self.restock(Content::Log);
        if self.supply.had_data.get() {
            self.restock(Content::Data);
        }
    }

    /// A segment to fill, its header durable; the next one is being made ready.
    pub async fn take_segment(
        self: &Rc<Self>,
        content: Content,
        purpose: Purpose,
    ) -> Result<SegmentHeader, Lack> {
        if content == Content::Data {
            self.supply.had_data.set(true);
        }
        let shelf = self.supply.shelf(content);
        let _want = Want::new(shelf, purpose);
        loop {
            if self.supply.is_read_only() {
                return Err(Lack::Refused(Refusal::ReadOnly));
            }
            // A segment stays on its shelf until it is taken: who waits may go away.
            if let Some(header) = shelf.take(purpose) {
                self.restock(content);
                return Ok(header);
            }
            let (sender, receiver) = oneshot::channel();
            shelf.waiting.borrow_mut().push_back((purpose, sender));
            if !shelf.is_ordered_for(purpose) {
                self.order_segment(content, purpose);
            }
            receiver.await.expect("every order is answered")?;
        }
    }

    /// A segment failed. One that cannot be written is one thing, many in a row another.
    pub fn note_failure(self: &Rc<Self>, content: Content) {
        let failed = &self.supply.shelf(content).failed;
        failed.set(failed.get() + 1);
        if failed.get() >= FAILED_SEGMENTS_MAX && !self.supply.is_read_only() {
            warn!(
                "weft: {FAILED_SEGMENTS_MAX} segments have failed one after the other: READ-ONLY until the next start; what \
                 is stored is served, writes are refused: look after the disk, then start again"
            );
            for core in self.everyone() {
                self.note(core, Note::ReadOnly);
            }
        }
    }

    /// A data segment failed: nothing in it is acknowledged any more.
    pub fn fail_data(self: &Rc<Self>, segment: &DataSegment) {
        if !segment.failed.replace(true) {
            self.note_failure(Content::Data);
        }
    }

    /// Nothing more is written in this run: whoever waits to write is told.
    pub fn become_read_only(self: &Rc<Self>) {
        self.supply.read_only.set(true);
        self.supply.told.wake();
        self.commits.look_again();
    }

    /// There is room again, or may be: writes are accepted, and the shelves are filled.
    pub fn space_freed(self: &Rc<Self>) {
        self.supply.freed.set(self.supply.freed.get() + 1);
        self.supply.growth.set(Gate::Open);
        self.supply.release.set(Gate::Open);
        self.supply.told.wake();
        self.commits.look_again();
        self.stock();
    }

    /// Waits while the cleaner makes room for `purpose`.
    ///
    /// # Errors
    /// `Full`, and `Busy` when it takes too long, counted from `since_ns`.
    pub async fn room(&self, purpose: Purpose, since_ns: u64) -> Result<(), Refusal> {
        let waited = Duration::from_nanos(self.io.monotonic_ns().saturating_sub(since_ns));
        let Some(left) = ROOM_TIMEOUT.checked_sub(waited) else {
            return Err(Refusal::Busy);
        };
        let told = || !self.supply.is_cleaning(purpose) || self.supply.is_read_only();
        let told = self.supply.told.until(told);
        match select(pin!(told), pin!(self.io.sleep(left))).await {
            Either::Left(_) if self.supply.is_read_only() => Err(Refusal::ReadOnly),
            Either::Left(_) if purpose == Purpose::Growth && self.supply.is_full() => Err(Refusal::Full),
            Either::Left(_) => Ok(()),
            Either::Right(_) => Err(Refusal::Busy),
        }
    }

    /// Has a write of that many bytes wait if the cleaner hardly keeps up: the less room, the longer.
    pub async fn pace(&self, bytes: u64) {
        let delay_us = (self.supply.delay_us_per_mib.get() * bytes) >> 20;
        if delay_us >= DELAY_US_MIN {
            self.io.sleep(Duration::from_micros(delay_us)).await;
        }
    }

    fn set_shortage(&self, shortage: Shortage) {
        let delay = shortage.part_of(2 * DELAY_US_PER_MIB_MAX);
        let delay = delay.saturating_sub(DELAY_US_PER_MIB_MAX);
        self.supply.delay_us_per_mib.set(delay);
    }

    /// A write was refused because the volume is full: looks now and then whether it still is.
    pub fn ask_again(self: &Rc<Self>) {
        let now_ns = self.io.monotonic_ns();
        if now_ns - self.supply.asked_ns.get() > FULL_RETRY_NS {
            self.supply.asked_ns.set(now_ns);
            self.stock();
        }
    }

    /// No byte will be added to a segment, and none is being written.
    pub fn seal(self: &Rc<Self>, segment: SegmentId) {
        self.flush_ledger();
        // Sealed, it may become another core's: what this machine still zeroes in it must have ended first.
        let core = self.clone();
        self.io.spawn(async move {
            core.io.leave(segment).await;
            core.note(COORDINATOR, Note::Sealed { segment });
        });
    }

    /// Has a segment made ready, unless one is or is about to be.
    fn restock(self: &Rc<Self>, content: Content) {
        if content == Content::Index {
            return; // Nobody waits for it but who writes a run, and that is rare.
        }
        let shelf = self.supply.shelf(content);
        let asks = shelf.spare.borrow().is_empty() && !shelf.is_ordered_for(Purpose::Growth);
        if self.supply.is_read_only() {
            return;
        }
        if asks && !self.supply.is_cleaning(Purpose::Growth) {
            self.order_segment(content, Purpose::Growth);
        }
    }

    fn order_segment(self: &Rc<Self>, content: Content, purpose: Purpose) {
        let core = self.clone();
        let orders = &self.supply.shelf(content).orders[purpose as usize];
        orders.set(orders.get() + 1);
        self.io.spawn(async move {
            let shelf = core.supply.shelf(content);
            let turn = shelf.ordering.lock().await;
            let result = core.obtain_segment(content, purpose).await;
            let orders = &shelf.orders[purpose as usize];
            orders.set(orders.get() - 1);
            match result {
                Ok(header) => {
                    if let Some(gate) = core.supply.gate(purpose) {
                        gate.set(Gate::Open);
                    }
                    shelf.put(header);
                }
                Err(lack) => {
                    core.close_gate(purpose, lack);
                    shelf.refuse(purpose, lack);
                }
            }
            drop(turn);
        });
    }

    fn close_gate(&self, purpose: Purpose, lack: Lack) {
        let Some(gate) = self.supply.gate(purpose) else {
            return;
        };
        match lack {
            Lack::Cleaning => gate.set(Gate::Cleaning),
            // Deletes are not refused ahead: each asks.
            Lack::Refused(Refusal::Full) if purpose == Purpose::Growth => {
                gate.set(Gate::Full);
                self.supply.asked_ns.set(self.io.monotonic_ns());
            }
            Lack::Refused(_) => gate.set(Gate::Open),
        }
        self.supply.told.wake();
    }

    async fn obtain_segment(
        self: &Rc<Self>,
        content: Content,
        purpose: Purpose,
    ) -> Result<SegmentHeader, Lack> {
        let (mut failures, mut full) = (0, 1);
        loop {
            let begun_ns = self.io.monotonic_ns();
            let freed = self.supply.freed.get();
            match self.prepare_segment(content, purpose).await {
                // The news of room may have come right behind the refusal.
                Err(Lack::Refused(Refusal::Full) | Lack::Cleaning) if freed != self.supply.freed.get() => {}
                // A file system is full; that of another volume need not be.
                Err(Lack::Refused(Refusal::Full)) if full < self.io.volumes().len() => full += 1,
                // One that is slow to say no is not asked again: somebody waits.
                Err(Lack::Refused(Refusal::DiskFailed))
                    if failures + 1 < PREPARE_ATTEMPTS
                        && !self.supply.is_read_only()
                        && self.io.monotonic_ns() - begun_ns < PREPARE_AGAIN_NS =>
                {
                    failures += 1
                }
                result => return result,
            }
        }
    }

    async fn prepare_segment(
        self: &Rc<Self>,
        content: Content,
        purpose: Purpose,
    ) -> Result<SegmentHeader, Lack> {
        let reply = self
            .call(COORDINATOR, Request::Allocate { content, purpose })
            .await;
        let Reply::Allocated(allocated) = reply else {
            unreachable!("an allocation is answered by one")
        };
        let Allocation {
            segment,
            generation,
            shortage,
        } = allocated?;
        self.set_shortage(shortage);
        let kind = match content {
            Content::Log => SegmentKind::Log,
            Content::Data => SegmentKind::Data,
            Content::Index => SegmentKind::Index,
        };
        let header = self.segment_header(segment, kind, generation);
        if let Err(error) = self.io.allocate(segment).await {
            warn!("weft: segment {segment} cannot be made: {error}");
            return Err(Lack::Refused(self.unmade(segment, content, &error)));
        }
        self.note(COORDINATOR, Note::Made { segment });
        if let Err(error) = self.write_header(&header).await {
            warn!("weft: segment {segment} cannot be made ready: {error}; it is left out");
            self.counters.disk_errors.set(self.counters.disk_errors.get() + 1);
            self.note(COORDINATOR, Note::Unusable { segment });
            self.note_failure(content);
            return Err(Lack::Refused(Refusal::DiskFailed));
        }
        if content == Content::Index {
            // What is written to it is not counted.
            self.supply.note_success(content);
        }
        Ok(header)
    }

    /// A segment could not be made: gives it back.
    fn unmade(self: &Rc<Self>, segment: SegmentId, content: Content, error: &std::io::Error) -> Refusal {
        match error.kind() {
            ErrorKind::StorageFull => {
                self.note(COORDINATOR, Note::Unmade { segment });
                return Refusal::Full;
            }
            // It is still being made, and must not be made twice at a time.
            ErrorKind::TimedOut => self.note(COORDINATOR, Note::Unusable { segment }),
            _ => self.note(COORDINATOR, Note::Unmade { segment }),
        }
        self.counters.disk_errors.set(self.counters.disk_errors.get() + 1);
        self.note_failure(content);
        Refusal::DiskFailed
    }

    pub fn segment_header(&self, segment: SegmentId, kind: SegmentKind, generation: u64) -> SegmentHeader {
        let shape = self.io.volume();
        SegmentHeader {
            kind,
            segment: segment.0,
            generation,
            epoch: self.io.boot_epoch(),
            core: self.io.core().0,
            volume_id: self.io.volume_id(),
            segment_size_bytes: shape.segment_size_bytes,
        }
    }

    /// Writes a segment's header, and the watermark of a log that holds nothing yet, or room for manifests without one,
    /// and syncs them.
    pub async fn write_header(&self, header: &SegmentHeader) -> std::io::Result<()> {
        let mut bytes = header.encode().to_vec();
        match header.kind {
            SegmentKind::Log => bytes.extend(encode_watermark(header, LOG_START)),
            SegmentKind::Index => bytes.resize(INDEX_START as usize, 0),
            SegmentKind::Data | SegmentKind::Free => {}
        }
        count(&self.counters.bytes_written, bytes.len() as u64);
        let mut buffer = self.io.buffer(bytes.len());
        buffer.as_mut().copy_from_slice(&bytes);
        self.io.write(SegmentId(header.segment), 0, buffer).await?;
        self.io.sync(SegmentId(header.segment)).await
    }

    /// Writes a log's watermark, to be synced with what will lie before it.
    pub async fn write_watermark(&self, header: &SegmentHeader, watermark: u32) -> std::io::Result<()> {
        count(&self.counters.bytes_written, u64::from(WATERMARK_BYTES));
        let mut block = self.io.buffer(WATERMARK_BYTES as usize);
        block
            .as_mut()
            .copy_from_slice(&encode_watermark(header, watermark));
        let segment = SegmentId(header.segment);
        self.io.write(segment, WATERMARK_OFFSET, block).await
    }
}

/// A segment that large bodies of this core go to: new ones, or those that the cleaner moves.
pub struct DataTail {
    content: Content,
    current: RefCell<Option<Rc<DataSegment>>>,
    /// One task at a time goes for the next segment.
    turning: Mutex<()>,
}

impl DataTail {
    pub fn of(content: Content) -> DataTail {
        DataTail {
            content,
            current: RefCell::default(),
            turning: Mutex::default(),
        }
    }

    /// The segment that is being filled.
    pub fn current(&self) -> Option<Rc<DataSegment>> {
        self.current.borrow().clone()
    }
}

/// A segment that blocks are written to. It is sealed when nothing more will be written: when the tail has
/// moved on and the last reservation in it is over.
pub struct DataSegment {
    pub id: SegmentId,
    pub header: SegmentHeader,
    cursor: Cell<u32>,
    end: u32,
    reservations: Cell<usize>,
    passed: Cell<bool>,
    /// Set by a failed write or sync: nothing in it is acknowledged any more.
    pub failed: Cell<bool>,
    syncing: RefCell<GroupSync>,
}

/// Callers that share a sync.
#[derive(Default)]
struct GroupSync {
    running: bool,
    waiting: Vec<oneshot::Sender<bool>>,
}

/// Bytes on disk that a body is given at a time.
fn wanted_for(payload_bytes: u64) -> u32 {
    disk_bytes_for(payload_bytes.min(RESERVATION_BYTES_MAX)).min(RESERVATION_BYTES_MAX) as u32
}

/// A place for a run of blocks.
pub struct Reservation {
    pub segment: Rc<DataSegment>,
    pub offset: u32,
    /// Bytes on disk; a multiple of the alignment.
    pub disk_bytes: u32,
}

impl DataSegment {
    /// The last `bytes` of a reservation that ends at `end` were never written. If nothing was reserved behind
    /// them, they are the next to be.
    pub fn give_back(&self, end: u32, bytes: u32) {
        if self.cursor.get() == end {
            self.cursor.set(end - bytes);
        }
    }

    fn take(&self, wanted_bytes: u32) -> Option<u32> {
        let room = self.end - self.cursor.get();
        let whole_blocks = room - room % BLOCK_BYTES as u32;
        let taken = if wanted_bytes <= room {
            wanted_bytes
        } else {
            whole_blocks
        };
        (taken > 0).then(|| {
            self.cursor.set(self.cursor.get() + taken);
            self.reservations.set(self.reservations.get() + 1);
            taken
        })
    }
}

impl<I: Machine> Core<I> {
    /// Reserves room for up to `payload_bytes` of a new body; what it gives may hold fewer.
    ///
    /// # Errors
    /// `Full`, `DiskFailed`, and `Busy` when the cleaner takes too long to make room.
    pub async fn reserve(self: &Rc<Self>, payload_bytes: u64) -> Result<Reservation, Refusal> {
        let since_ns = self.io.monotonic_ns();
        loop {
            match self
                .reserve_in(&self.data, wanted_for(payload_bytes), Purpose::Growth)
                .await
            {
                Ok(reservation) => return Ok(reservation),
                Err(Lack::Refused(refusal)) => return Err(refusal),
                Err(Lack::Cleaning) => self.room(Purpose::Growth, since_ns).await?,
            }
        }
    }

    /// As [`Core::reserve`], for what is moved: it never waits for the cleaner.
    pub async fn reserve_for_move(self: &Rc<Self>, payload_bytes: u64) -> Result<Reservation, Lack> {
        self.reserve_in(&self.moved, wanted_for(payload_bytes), Purpose::Moves)
            .await
    }

    /// Reserves room for pages of a run: `wanted` bytes on disk, or fewer, but not less than `least`.
    pub async fn reserve_for_run(
        self: &Rc<Self>,
        least: u32,
        wanted: u32,
        purpose: Purpose,
    ) -> Result<Reservation, Lack> {
        if least > self.io.volume().segment_size_bytes - INDEX_START {
            return Err(Lack::Refused(Refusal::TooLarge));
        }
        let mut wanted = wanted.max(least);
        loop {
            let reservation = self.reserve_in(&self.runs, wanted, purpose).await?;
            if reservation.disk_bytes >= least {
                return Ok(reservation);
            }
            self.account_here(reservation.segment.id, -i64::from(reservation.disk_bytes));
            self.end_reservation(&reservation.segment);
            // What is more than a segment has is given in whole blocks, and this may just fit.
            wanted = least;
        }
    }

    async fn reserve_in(
        self: &Rc<Self>,
        tail: &DataTail,
        wanted: u32,
        purpose: Purpose,
    ) -> Result<Reservation, Lack> {
        if self.supply.is_read_only() {
            return Err(Lack::Refused(Refusal::ReadOnly));
        }
        loop {
            if let Some(reservation) = self.reserve_in_current(tail, wanted) {
                return Ok(reservation);
            }
            let _turn = tail.turning.lock().await;
            if let Some(reservation) = self.reserve_in_current(tail, wanted) {
                return Ok(reservation);
            }
            self.begin_segment(tail, purpose).await?;
        }
    }

    /// The segment that runs and manifests go to.
    pub async fn index_segment(self: &Rc<Self>) -> Result<Rc<DataSegment>, Lack> {
        let sound = || self.runs.current().filter(|segment| !segment.failed.get());
        loop {
            if let Some(segment) = sound() {
                return Ok(segment);
            }
            let _turn = self.runs.turning.lock().await;
            if sound().is_none() {
                self.begin_segment(&self.runs, Purpose::Index).await?;
            }
        }
    }

    /// Has a tail go on in a new segment. The caller has the turn.
    async fn begin_segment(self: &Rc<Self>, tail: &DataTail, purpose: Purpose) -> Result<(), Lack> {
        let header = self.take_segment(tail.content, purpose).await?;
        let is_index = tail.content == Content::Index;
        let next = Rc::new(DataSegment {
            id: SegmentId(header.segment),
            header,
            cursor: Cell::new(if is_index {
                INDEX_START
            } else {
                SEGMENT_HEADER_BYTES
            }),
            end: header.segment_size_bytes,
            reservations: Cell::new(0),
            passed: Cell::new(false),
            failed: Cell::new(false),
            syncing: RefCell::default(),
        });
        // The latest manifest is always in the segment that is being filled.
        if is_index && !self.copy_manifest(&next).await {
            self.seal(next.id);
            return Err(Lack::Refused(Refusal::DiskFailed));
        }
        let passed = tail.current.borrow_mut().replace(next);
        if let Some(passed) = passed {
            passed.passed.set(true);
            self.seal_if_over(&passed);
        }
        Ok(())
    }

    fn reserve_in_current(self: &Rc<Self>, tail: &DataTail, wanted: u32) -> Option<Reservation> {
        let segment = tail
            .current
            .borrow()
            .clone()
            .filter(|segment| !segment.failed.get())?;
        let offset = segment.cursor.get();
        let disk_bytes = segment.take(wanted)?;
        self.account_here(segment.id, i64::from(disk_bytes));
        Some(Reservation {
            segment,
            offset,
            disk_bytes,
        })
    }

    /// A reservation has no write in flight and gets no more.
    pub fn end_reservation(self: &Rc<Self>, segment: &Rc<DataSegment>) {
        segment.reservations.set(segment.reservations.get() - 1);
        self.seal_if_over(segment);
    }

    fn seal_if_over(self: &Rc<Self>, segment: &DataSegment) {
        if segment.passed.get() && segment.reservations.get() == 0 {
            self.seal(segment.id);
        }
    }

    /// Makes what was written to `segment` before this call durable, in one sync with all who ask meanwhile.
    pub async fn sync_data(self: &Rc<Self>, segment: &Rc<DataSegment>) -> Result<(), Refusal> {
        if planted(Fault::DataUnsynced) {
            return Ok(());
        }
        let (sender, receiver) = oneshot::channel();
        let start = {
            let mut syncing = segment.syncing.borrow_mut();
            syncing.waiting.push(sender);
            !std::mem::replace(&mut syncing.running, true)
        };
        if start {
            let (core, segment) = (self.clone(), segment.clone());
            self.io.spawn(async move { core.run_syncs(&segment).await });
        }
        match receiver.await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Refusal::DiskFailed),
        }
    }

    async fn run_syncs(self: &Rc<Self>, segment: &DataSegment) {
        loop {
            // Who asks while a sync runs waits for the next: its writes may have come too late for this one.
            let waiting = std::mem::take(&mut segment.syncing.borrow_mut().waiting);
            if waiting.is_empty() {
                segment.syncing.borrow_mut().running = false;
                return;
            }
            if !segment.failed.get() {
                self.counters.data_syncs.set(self.counters.data_syncs.get() + 1);
                match self.io.sync(segment.id).await {
                    Ok(()) => self.supply.note_success(Content::Data),
                    Err(error) => {
                        warn!(
                            "weft: data segment {}: sync: {error}; it takes no more",
                            segment.id
                        );
                        self.counters.disk_errors.set(self.counters.disk_errors.get() + 1);
                        self.fail_data(segment);
                    }
                }
            }
            for waiting in waiting {
                let _ = waiting.send(!segment.failed.get()); // A requester that is gone is no error.
            }
        }
    }
}
