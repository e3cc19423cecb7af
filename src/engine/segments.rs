//! A core's segments: the supply made ready ahead of need, and the one that large bodies go to.
//!
//! A segment is handed out with its header on stable storage. At its end it is sealed: from then on its
//! content only dies. The core writes only to segments that it was given, and each place once, but for the watermark
//! of a log.

use crate::engine::Machine;
use crate::engine::core::{COORDINATOR, Core};
use crate::engine::message::{Allocation, Content, Note, Purpose, Refusal, Reply, Request};
use crate::engine::planted::{Fault, planted};
use crate::io::SegmentId;
use crate::limits::{BLOCK_BYTES, RESERVATION_BYTES_MAX, SEGMENT_HEADER_BYTES};
use crate::log::{
    LOG_START, SegmentHeader, SegmentKind, WATERMARK_BYTES, WATERMARK_OFFSET, disk_bytes_for,
    encode_watermark,
};
use futures_channel::oneshot;
use futures_util::lock::Mutex;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

/// Segments that are ready before anyone needs them, and who waits for one.
#[derive(Default)]
pub struct Supply {
    log: Shelf,
    data: Shelf,
    /// The volume had no segment for growth.
    full: Cell<bool>,
    /// When that was last asked for, in nanoseconds of the machine's clock.
    asked_ns: Cell<u64>,
    /// How often the coordinator said that there is room again.
    freed: Cell<u64>,
}

type Answer = oneshot::Sender<Result<(), Refusal>>;

#[derive(Default)]
struct Shelf {
    spare: RefCell<VecDeque<SegmentHeader>>,
    /// Told that something is in `spare`, or why nothing will be.
    waiting: RefCell<VecDeque<(Purpose, Answer)>>,
    orders: Cell<usize>,
    /// One order at a time, so that a core fills its logs in the order of their generations: what tells that a
    /// record is void lies in a later life than the record.
    ordering: Mutex<()>,
}

/// Segments that fail one after the other before the disk is called bad.
const PREPARE_ATTEMPTS: usize = 3;
/// A volume that was full is asked again after this long, in nanoseconds, if somebody wants to write.
const FULL_RETRY_NS: u64 = 1_000_000_000;

impl Supply {
    /// Whether the volume has no room for what grows it.
    pub fn is_full(&self) -> bool {
        self.full.get()
    }

    fn shelf(&self, content: Content) -> &Shelf {
        match content {
            Content::Log => &self.log,
            Content::Data => &self.data,
        }
    }
}

impl Shelf {
    /// Puts a segment where the next who needs one looks, and tells who waits.
    fn put(&self, header: SegmentHeader) {
        self.spare.borrow_mut().push_back(header);
        while let Some((_, waiting)) = self.waiting.borrow_mut().pop_front() {
            if waiting.send(Ok(())).is_ok() {
                break;
            }
        }
    }

    /// Tells those whom the failure of such an order concerns. What makes room does not fail with growth.
    fn refuse(&self, purpose: Purpose, refusal: Refusal) {
        let waiting = self.waiting.take();
        for (wanted, sender) in waiting {
            if refusal == Refusal::Full && purpose == Purpose::Growth && wanted == Purpose::Release {
                self.waiting.borrow_mut().push_back((wanted, sender));
            } else {
                let _ = sender.send(Err(refusal)); // One that went away needs no answer.
            }
        }
    }
}

impl<I: Machine> Core<I> {
    /// Gets the first segments of both kinds ready.
    pub fn stock(self: &Rc<Self>) {
        self.restock(Content::Log);
        self.restock(Content::Data);
    }

    /// A segment to fill, its header durable; the next one is being made ready.
    pub async fn take_segment(
        self: &Rc<Self>,
        content: Content,
        purpose: Purpose,
    ) -> Result<SegmentHeader, Refusal> {
        let shelf = self.supply.shelf(content);
        loop {
            // A segment stays on its shelf until it is taken: who waits may go away.
            let spare = shelf.spare.borrow_mut().pop_front();
            if let Some(header) = spare {
                self.restock(content);
                return Ok(header);
            }
            let (sender, receiver) = oneshot::channel();
            shelf.waiting.borrow_mut().push_back((purpose, sender));
            if shelf.orders.get() == 0 || purpose == Purpose::Release {
                self.order_segment(content, purpose);
            }
            receiver.await.expect("every order is answered")?;
        }
    }

    /// There is room again: growth is accepted, and the shelves are filled.
    pub fn space_freed(self: &Rc<Self>) {
        self.supply.freed.set(self.supply.freed.get() + 1);
        self.supply.full.set(false);
        self.stock();
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
        let shelf = self.supply.shelf(content);
        if shelf.spare.borrow().is_empty() && shelf.orders.get() == 0 {
            self.order_segment(content, Purpose::Growth);
        }
    }

    fn order_segment(self: &Rc<Self>, content: Content, purpose: Purpose) {
        let core = self.clone();
        let orders = &self.supply.shelf(content).orders;
        orders.set(orders.get() + 1);
        self.io.spawn(async move {
            let shelf = core.supply.shelf(content);
            let turn = shelf.ordering.lock().await;
            let result = core.obtain_segment(content, purpose).await;
            shelf.orders.set(shelf.orders.get() - 1);
            match result {
                Ok(header) => {
                    if purpose == Purpose::Growth {
                        core.supply.full.set(false);
                    }
                    shelf.put(header);
                }
                Err(refusal) => {
                    if refusal == Refusal::Full && purpose == Purpose::Growth {
                        core.supply.full.set(true);
                        core.supply.asked_ns.set(core.io.monotonic_ns());
                    }
                    shelf.refuse(purpose, refusal);
                }
            }
            drop(turn);
        });
    }

    async fn obtain_segment(
        self: &Rc<Self>,
        content: Content,
        purpose: Purpose,
    ) -> Result<SegmentHeader, Refusal> {
        let mut failures = 0;
        loop {
            let freed = self.supply.freed.get();
            match self.prepare_segment(content, purpose).await {
                // The news of room may have come right behind the refusal.
                Err(Refusal::Full) if freed != self.supply.freed.get() => {}
                Err(Refusal::DiskFailed) if failures + 1 < PREPARE_ATTEMPTS => failures += 1,
                result => return result,
            }
        }
    }

    async fn prepare_segment(
        self: &Rc<Self>,
        content: Content,
        purpose: Purpose,
    ) -> Result<SegmentHeader, Refusal> {
        let reply = self
            .call(COORDINATOR, Request::Allocate { content, purpose })
            .await;
        let Reply::Allocated(allocated) = reply else {
            unreachable!("an allocation is answered by one")
        };
        let Allocation { segment, generation } = allocated?;
        let kind = match content {
            Content::Log => SegmentKind::Log,
            Content::Data => SegmentKind::Data,
        };
        let header = self.segment_header(segment, kind, generation);
        if let Err(error) = self.io.allocate(segment).await {
            warn!("weft: segment {segment} cannot be made: {error}");
            let full = error.kind() == std::io::ErrorKind::StorageFull;
            self.note(COORDINATOR, Note::Unmade { segment });
            return Err(if full { Refusal::Full } else { Refusal::DiskFailed });
        }
        self.note(COORDINATOR, Note::Made { segment });
        if let Err(error) = self.write_header(&header).await {
            warn!("weft: segment {segment} cannot be made ready: {error}; it is left out");
            self.counters.disk_errors.set(self.counters.disk_errors.get() + 1);
            self.note(COORDINATOR, Note::Unusable { segment });
            return Err(Refusal::DiskFailed);
        }
        Ok(header)
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

    /// Writes a segment's header, and the watermark of a log that holds nothing yet, and syncs them.
    pub async fn write_header(&self, header: &SegmentHeader) -> std::io::Result<()> {
        let mut bytes = header.encode().to_vec();
        if header.kind == SegmentKind::Log {
            bytes.extend(encode_watermark(header, LOG_START));
        }
        let mut buffer = self.io.buffer(bytes.len());
        buffer.as_mut().copy_from_slice(&bytes);
        self.io.write(SegmentId(header.segment), 0, buffer).await?;
        self.io.sync(SegmentId(header.segment)).await
    }

    /// Writes a log's watermark, to be synced with what will lie before it.
    pub async fn write_watermark(&self, header: &SegmentHeader, watermark: u32) -> std::io::Result<()> {
        let mut block = self.io.buffer(WATERMARK_BYTES as usize);
        block
            .as_mut()
            .copy_from_slice(&encode_watermark(header, watermark));
        let segment = SegmentId(header.segment);
        self.io.write(segment, WATERMARK_OFFSET, block).await
    }
}

/// The segment that large bodies of this core go to.
#[derive(Default)]
pub struct DataTail {
    current: RefCell<Option<Rc<DataSegment>>>,
    /// One task at a time goes for the next segment.
    turning: Mutex<()>,
}

/// A segment that blocks are written to. It is sealed when nothing more will be written: when the tail has
/// moved on and the last reservation in it is over.
pub struct DataSegment {
    pub id: SegmentId,
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
    /// Reserves room for up to `payload_bytes` body bytes; what it gives may hold fewer.
    pub async fn reserve(self: &Rc<Self>, payload_bytes: u64) -> Result<Reservation, Refusal> {
        let payload_bytes = payload_bytes.min(RESERVATION_BYTES_MAX);
        let wanted = disk_bytes_for(payload_bytes).min(RESERVATION_BYTES_MAX) as u32;
        loop {
            if let Some(reservation) = self.reserve_in_current(wanted) {
                return Ok(reservation);
            }
            let _turn = self.data.turning.lock().await;
            if let Some(reservation) = self.reserve_in_current(wanted) {
                return Ok(reservation);
            }
            let header = self.take_segment(Content::Data, Purpose::Growth).await?;
            let next = Rc::new(DataSegment {
                id: SegmentId(header.segment),
                cursor: Cell::new(SEGMENT_HEADER_BYTES),
                end: header.segment_size_bytes,
                reservations: Cell::new(0),
                passed: Cell::new(false),
                failed: Cell::new(false),
                syncing: RefCell::default(),
            });
            let passed = self.data.current.borrow_mut().replace(next);
            if let Some(passed) = passed {
                passed.passed.set(true);
                self.seal_if_over(&passed);
            }
        }
    }

    fn reserve_in_current(self: &Rc<Self>, wanted: u32) -> Option<Reservation> {
        let segment = self
            .data
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

    async fn run_syncs(&self, segment: &DataSegment) {
        loop {
            // Who asks while a sync runs waits for the next: its writes may have come too late for this one.
            let waiting = std::mem::take(&mut segment.syncing.borrow_mut().waiting);
            if waiting.is_empty() {
                segment.syncing.borrow_mut().running = false;
                return;
            }
            if !segment.failed.get() {
                self.counters.data_syncs.set(self.counters.data_syncs.get() + 1);
                if let Err(error) = self.io.sync(segment.id).await {
                    warn!(
                        "weft: data segment {}: sync: {error}; it takes no more",
                        segment.id
                    );
                    self.counters.disk_errors.set(self.counters.disk_errors.get() + 1);
                    segment.failed.set(true);
                }
            }
            for waiting in waiting {
                let _ = waiting.send(!segment.failed.get()); // A requester that is gone is no error.
            }
        }
    }
}
