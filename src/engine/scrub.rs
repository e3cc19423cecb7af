//! Scrubbing: all that is stored is read at a bounded rate and verified, so that damage is known before a client meets it.
//!
//! A pass has two parts. First the sealed segments, of which each core has a share: the header of each, and of a log that
//! the next start would read its watermark and every batch. Then each core walks its own index, from the first key to
//! the last: that reads every page of its runs, and what entries refer to is read as the walk comes by, blocks and small
//! bodies. A finding is one line on standard error, and is counted; `weft check` names the same, and more.
//!
//! Where it is can be told and taken up again, by any number of cores: what was read since then is read once more.
//!
//! Invariants: what is read is held in place by a guard from before it is looked up, then by pins, and by neither while
//! the scrub rests. It changes nothing, has one disk operation in flight on a core, and rests for at least as long as it
//! reads. What it calls damaged is live: the index still says so after it was found.

use crate::engine::Machine;
use crate::engine::apply::extents_of;
use crate::engine::core::{COORDINATOR, Core, count};
use crate::engine::entry::{Extent, Layout};
use crate::engine::message::{Refusal, Reply, Request};
use crate::engine::pages::Held;
use crate::engine::reads::Pins;
use crate::index::key::{self, Named};
use crate::index::{Cursor, EntryRef, Go, LogPosition, Need, PageAddress, Walked};
use crate::io::{DISK_ALIGN_BYTES, SegmentId};
use crate::limits::{
    BLOCK_BYTES, SCRUB_GAP_BYTES, SCRUB_PAUSE_MAX, SCRUB_READ_BYTES, SCRUB_SLICE_BYTES, SCRUB_TOLD_MAX,
};
use crate::log::{
    BlockRange, LOG_START, LogScanner, ScanStep, SegmentHeader, SegmentKind, WATERMARK_OFFSET, block_range,
    blocks_for, body_crc32, decode_watermark,
};
use std::cell::Cell;
use std::cmp::Ordering;
use std::fmt::Arguments;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// A rest is gathered until it is worth a timer.
const REST_NS_MIN: u64 = 5_000_000;
/// Between two passes at least: one over an empty volume costs nothing.
const PAUSE_MIN: Duration = Duration::from_secs(10);

/// How a core scrubs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScrubPlan {
    pub bytes_per_s: u64,
    /// From the beginning of a pass to that of the next, if it takes no longer.
    pub period: Duration,
    /// Before anything is read.
    pub delay: Duration,
}

/// How far a core has come. What is less was read before.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct ScrubPosition {
    pub pass: u64,
    pub next: ScrubNext,
    /// When this pass, or while none is under way the last one, began: seconds since 1970.
    pub began_s: u64,
    /// When the last one ended; 0: none did.
    pub ended_s: u64,
}

/// What is read next.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ScrubNext {
    /// The first sealed segment from this number on.
    Segment(u32),
    Index(IndexPlace),
}

/// From a key of the index on: of its own extents from one on, and of that from a block on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct IndexPlace {
    pub index_key: Vec<u8>,
    pub extent: u32,
    pub block: u32,
}

impl Default for ScrubNext {
    fn default() -> ScrubNext {
        ScrubNext::Segment(0)
    }
}

/// A segment that is sealed, in that life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealedSegment {
    pub segment: SegmentId,
    pub generation: u64,
}

/// One core's scrub.
struct Scrub<I: Machine> {
    core: Rc<Core<I>>,
    bytes_per_s: u64,
    owed_ns: Cell<u64>,
    /// Findings of this pass.
    told: Cell<u64>,
}

/// A walk over the index, which goes on from slice to slice.
struct IndexWalk<'c> {
    at: IndexPlace,
    cursor: Cursor,
    held: Held<'c>,
    /// The page that was passed over last.
    passed_over: Option<PageAddress>,
}

/// What is read before the next rest.
struct Slice<'a> {
    at: &'a IndexPlace,
    pieces: Vec<Piece>,
    bytes: u64,
    /// The last key that the walk came by.
    last_key: Option<Vec<u8>>,
    /// Where the next slice begins; `None` at the end.
    next: Option<IndexPlace>,
}

/// A part of a live extent that is read in one go.
struct Piece {
    index_key: Rc<[u8]>,
    extent: Extent,
    /// `None`: a small body, whole.
    blocks: Option<BlockRange>,
}

impl<I: Machine> Core<I> {
    /// Reads and verifies this core's share of what is stored, pass after pass. `tell` is told of each place that it
    /// comes to.
    pub async fn scrub(self: Rc<Self>, plan: ScrubPlan, from: ScrubPosition, tell: impl Fn(&ScrubPosition)) {
        self.counters.scrub_ended_s.set(from.ended_s);
        let scrub = Scrub {
            bytes_per_s: plan.bytes_per_s.max(1),
            owed_ns: Cell::new(0),
            told: Cell::new(0),
            core: self,
        };
        let mut position = from;
        scrub.core.io.sleep(plan.delay).await;
        loop {
            if position.next == ScrubNext::default() {
                scrub.wait_for_turn(&position, plan.period).await;
                position.began_s = scrub.now_s();
                scrub.told.set(0);
            }
            scrub.pass(&mut position, &tell).await;
            count(&scrub.core.counters.scrub_passes, 1);
            position = ScrubPosition {
                pass: position.pass + 1,
                next: ScrubNext::default(),
                ended_s: scrub.now_s(),
                ..position
            };
            scrub.core.counters.scrub_ended_s.set(position.ended_s);
            tell(&position);
            scrub.core.io.sleep(PAUSE_MIN).await;
        }
    }
}

impl<I: Machine> Scrub<I> {
    fn now_s(&self) -> u64 {
        self.core.io.unix_ms() / 1000
    }

    /// Whatever becomes of the clock, it waits no longer than the period.
    async fn wait_for_turn(&self, position: &ScrubPosition, period: Duration) {
        if position.began_s == 0 {
            return;
        }
        let since_ns = self.core.io.monotonic_ns();
        loop {
            let waited = Duration::from_nanos(self.core.io.monotonic_ns().saturating_sub(since_ns));
            let passed = Duration::from_secs(self.now_s().saturating_sub(position.began_s)).max(waited);
            match period.checked_sub(passed) {
                None | Some(Duration::ZERO) => return,
                Some(left) => self.core.io.sleep(left.min(SCRUB_PAUSE_MAX)).await,
            }
        }
    }

    /// From there to the end.
    async fn pass(&self, position: &mut ScrubPosition, tell: &impl Fn(&ScrubPosition)) {
        while let ScrubNext::Segment(from) = position.next {
            position.next = match self.scrub_segment_from(SegmentId(from)).await {
                Some(last) => ScrubNext::Segment(last.0 + 1),
                None => ScrubNext::Index(IndexPlace::default()),
            };
            tell(position);
        }
        let ScrubNext::Index(from) = position.next.clone() else {
            unreachable!("segments come to an end")
        };
        let mut walk = IndexWalk {
            cursor: Cursor::new(from.index_key.clone()),
            at: from,
            held: Held::of_disk(&self.core.pages),
            passed_over: None,
        };
        while let Some(next) = self.scrub_slice(&mut walk).await {
            position.next = ScrubNext::Index(next.clone());
            tell(position);
            walk.at = next;
            self.rest().await;
        }
        self.rest().await;
    }

    /// Verifies the first sealed segment from there on; `None` behind the last.
    async fn scrub_segment_from(&self, from: SegmentId) -> Option<SegmentId> {
        let (sealed, pins) = self.hold_sealed(from).await?;
        drop(pins);
        self.scrub_segment(sealed).await;
        Some(sealed.segment)
    }

    /// The first sealed segment of this core's share from there on, held in place.
    async fn hold_sealed(&self, from: SegmentId) -> Option<(SealedSegment, Pins)> {
        // Before the question: what is sealed now is not reused before the pin is there.
        let guard = self.core.guard();
        let core = self.core.io.core();
        let found = match self.core.call(COORDINATOR, Request::Sealed { from, core }).await {
            Reply::Sealed(found) => found?,
            other => unreachable!("a sealed segment is answered by one, not {other:?}"),
        };
        Some((found, guard.pin([found.segment].into_iter())))
    }

    /// Its life may end meanwhile: then the rest of it is nobody's.
    async fn scrub_segment(&self, sealed: SealedSegment) {
        let Some(front) = self.read_sealed(sealed, 0, LOG_START).await else {
            return;
        };
        let (segment, io) = (sealed.segment, &self.core.io);
        let header = SegmentHeader::decode(&front).and_then(|header| {
            header.expect(&io.volume_id(), io.volume().segment_size_bytes, segment.0)?;
            Ok(header)
        });
        let header = match header {
            Ok(header) => header,
            Err(error) => return self.found(format_args!("segment {segment}: {error}")),
        };
        if SegmentHeader::decode_copies(&front).iter().any(Result::is_err) {
            self.found(format_args!("segment {segment}: a copy of the header is damaged"));
        }
        if header.kind == SegmentKind::Log
            && let Some(from) = self.needed_from(&header)
        {
            let watermark = decode_watermark(&front[WATERMARK_OFFSET as usize..], &header);
            if watermark.is_none() {
                self.found(format_args!("log segment {segment}: the watermark is damaged"));
            }
            let scanner = LogScanner::new(&header, watermark).from(from.offset, from.batch);
            self.scrub_log(sealed, &header, scanner).await;
        }
    }

    /// From where on the next start reads a log; `None` if it does not.
    fn needed_from(&self, header: &SegmentHeader) -> Option<LogPosition> {
        let whole = LogPosition {
            generation: header.generation,
            offset: LOG_START,
            batch: 0,
        };
        let is_of_this_boot = header.epoch == self.core.io.boot_epoch();
        let Some(covered) = self.core.checkpoints.confirmed() else {
            return match is_of_this_boot {
                true => Some(whole),
                false => self.core.checkpoints.needed_at_start(header),
            };
        };
        match header.generation.cmp(&covered.generation) {
            _ if !is_of_this_boot => None,
            Ordering::Less => None,
            Ordering::Equal => Some(covered),
            Ordering::Greater => Some(whole),
        }
    }

    async fn scrub_log(&self, sealed: SealedSegment, header: &SegmentHeader, mut scanner: LogScanner) {
        let segment = sealed.segment;
        let (mut window, mut window_from) = (Vec::new(), 0);
        loop {
            match scanner.next(&window, window_from) {
                ScanStep::NeedMore { from, length_min } => {
                    let rest = header.segment_size_bytes - from;
                    let length = length_min.max(SCRUB_READ_BYTES).min(rest);
                    let Some(read) = self.read_sealed(sealed, from, length).await else {
                        return;
                    };
                    (window, window_from) = (read, from);
                }
                ScanStep::Damaged { from, to, .. } => self.found(format_args!(
                    "log segment {segment}: bytes {from} to {to} held batches and are damaged"
                )),
                ScanStep::Batch(_) | ScanStep::Salvaged(_) => {}
                ScanStep::End { .. } => return,
            }
        }
    }

    /// Bytes of a sealed segment, in pieces; `None` when they cannot be read, or its life has come to its end.
    async fn read_sealed(&self, sealed: SealedSegment, from: u32, length: u32) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length as usize);
        while bytes.len() < length as usize {
            let at = from + bytes.len() as u32;
            let piece = (from + length - at).min(SCRUB_READ_BYTES);
            let (found, pins) = self.hold_sealed(sealed.segment).await?;
            if found != sealed {
                return None;
            }
            let read = self.read(sealed.segment, at, piece).await;
            drop(pins);
            self.rest().await;
            match read {
                Ok(read) => bytes.extend_from_slice(read.as_ref()),
                Err(error) => {
                    let segment = sealed.segment;
                    self.found(format_args!(
                        "segment {segment}: it cannot be read at {at}: {error}"
                    ));
                    return None;
                }
            }
        }
        Some(bytes)
    }

    /// Walks on, and reads what lies on the way; gives the place behind it.
    async fn scrub_slice(&self, walk: &mut IndexWalk<'_>) -> Option<IndexPlace> {
        let guard = self.core.guard();
        let Slice { mut pieces, next, .. } = self.gather(walk).await;
        let pins = guard.pin(pieces.iter().map(|piece| piece.extent.segment));
        pieces.sort_unstable_by_key(|piece| (piece.extent.segment, piece.range().start));
        let is_near = |before: &Piece, piece: &Piece| {
            before.extent.segment == piece.extent.segment
                && piece.range().start <= before.range().end.saturating_add(SCRUB_GAP_BYTES)
        };
        for near in pieces.chunk_by(is_near) {
            let mut rest = near;
            while let Some(first) = rest.first() {
                let from = first.range().start;
                let within = |piece: &&Piece| piece.range().end.saturating_sub(from) <= SCRUB_READ_BYTES;
                let together = rest.iter().take_while(within).count().max(1);
                let (read, behind) = rest.split_at(together);
                self.verify(read).await;
                rest = behind;
            }
        }
        drop(pins);
        next
    }

    /// Pages are read on the way.
    async fn gather<'a>(&self, walk: &'a mut IndexWalk<'_>) -> Slice<'a> {
        let IndexWalk {
            at,
            cursor,
            held,
            passed_over,
        } = walk;
        let mut slice = Slice {
            at,
            pieces: Vec::new(),
            bytes: 0,
            last_key: None,
            next: None,
        };
        let mut read_bytes = 0;
        loop {
            let walked = (self.core.index.borrow()).walk(cursor, held, |key, entry| slice.take(key, entry));
            match walked {
                Ok(Walked::Ended) => return slice,
                Ok(Walked::Paused) => self.core.io.yield_now().await,
                Err(need) => read_bytes += self.fetch(need, held, passed_over).await,
            }
            if read_bytes >= SCRUB_SLICE_BYTES {
                let behind = |key: Vec<u8>| IndexPlace {
                    index_key: [&*key, &[0]].concat(),
                    ..IndexPlace::default()
                };
                slice.next = Some(slice.last_key.take().map_or(at.clone(), behind));
                return slice;
            }
        }
    }

    /// Reads a page that the walk needs, or has it passed over; gives how many bytes it read.
    async fn fetch(&self, need: Need, held: &Held<'_>, passed_over: &mut Option<PageAddress>) -> u64 {
        let Need(_, address) = need;
        let (read_before, begun_ns) = (held.read_bytes(), self.core.io.monotonic_ns());
        let mut fetched = self.core.fetch(need, held).await;
        if fetched == Err(Refusal::DiskFailed) {
            held.read_ahead(false);
            fetched = self.core.fetch(need, held).await;
            held.read_ahead(true);
        }
        let read_bytes = held.read_bytes() - read_before;
        count(&self.core.counters.scrub_bytes, read_bytes);
        self.owe(read_bytes, begun_ns);
        if fetched.is_err() {
            held.pass_over(need);
            // It was told by who read it. A walk that must seek anew comes by it once more.
            if passed_over.replace(address) != Some(address) {
                count(&self.core.counters.scrub_findings, 1);
            }
        }
        read_bytes
    }

    /// Reads pieces that lie near each other, and verifies each.
    async fn verify(&self, pieces: &[Piece]) {
        let (Some(first), Some(end)) = (pieces.first(), pieces.iter().map(|piece| piece.range().end).max())
        else {
            return;
        };
        let (segment, from) = (first.extent.segment, first.range().start);
        match self.read(segment, from, end - from).await {
            Ok(read) => {
                for piece in pieces {
                    self.judge(piece, read.as_ref(), from).await;
                }
            }
            // One by one, to find the place.
            Err(_) => {
                for part in pieces.iter().flat_map(Piece::parts) {
                    let range = part.range();
                    match self.read(segment, range.start, range.end - range.start).await {
                        Ok(read) => self.judge(&part, read.as_ref(), range.start).await,
                        Err(error) => {
                            let text = format!("it cannot be read at {}: {error}", range.start);
                            self.found_live(&part, &text).await;
                        }
                    }
                }
            }
        }
    }

    async fn judge(&self, piece: &Piece, read: &[u8], read_from: u32) {
        let Piece { extent, blocks, .. } = piece;
        let start = (piece.range().start - read_from) as usize;
        let Some(blocks) = blocks else {
            let start = (extent.offset - read_from) as usize;
            let body = &read[start..start + extent.length as usize];
            if u64::from(body_crc32(body)) != extent.check {
                let text = format!("the small body at {} is damaged", extent.offset);
                self.found_live(piece, &text).await;
            }
            return;
        };
        for slice in blocks.clone() {
            if let Err(error) = slice.verify(&read[start..], blocks.disk_offset(), extent.check) {
                let text = format!("{error}, at {}", extent.offset + slice.disk_offset as u32);
                self.found_live(piece, &text).await;
            }
        }
    }

    /// Something of an extent is not right: a finding, if the index still refers to it.
    async fn found_live(&self, piece: &Piece, text: &str) {
        let Piece {
            index_key, extent, ..
        } = piece;
        let _guard = self.core.guard();
        let Ok(Some(entry)) = self.core.find_entry(index_key).await else {
            return;
        };
        if extents_of(index_key, &entry.value).contains(extent) {
            let name = self.told_name(index_key);
            self.found(format_args!("segment {}: {text}, of {name}", extent.segment));
        }
    }

    fn told_name(&self, index_key: &[u8]) -> String {
        let (bucket, key) = match key::parse(index_key) {
            Some(
                Named::Object { bucket, key }
                | Named::Upload { bucket, key, .. }
                | Named::Part { bucket, key, .. },
            ) => (bucket, key),
            Some(Named::Bucket { .. }) | None => return String::new(),
        };
        let name = self.core.buckets.borrow().name_of(bucket).unwrap_or_default();
        format!("{name}/{}", String::from_utf8_lossy(&key).escape_debug())
    }

    fn found(&self, what: Arguments<'_>) {
        count(&self.core.counters.scrub_findings, 1);
        self.told.update(|told| told + 1);
        match self.told.get().cmp(&SCRUB_TOLD_MAX) {
            Ordering::Less => warn!("weft: scrub: {what}"),
            Ordering::Equal => warn!("weft: scrub: {what}; of this pass no more is told: ask weft check"),
            Ordering::Greater => {}
        }
    }

    async fn read(&self, segment: SegmentId, from: u32, length: u32) -> std::io::Result<I::ReadBuf> {
        let begun_ns = self.core.io.monotonic_ns();
        let read = self.core.io.read(segment, from, length).await;
        self.owe(u64::from(length), begun_ns);
        match read {
            Ok(_) => count(&self.core.counters.scrub_bytes, u64::from(length)),
            Err(_) => count(&self.core.counters.disk_errors, 1),
        }
        read
    }

    /// A rest is due for what was read, as long as the reading at least.
    fn owe(&self, bytes: u64, begun_ns: u64) {
        let took_ns = self.core.io.monotonic_ns().saturating_sub(begun_ns);
        let due_ns = bytes.saturating_mul(1_000_000_000) / self.bytes_per_s;
        self.owed_ns
            .update(|owed| owed.saturating_add(due_ns.max(took_ns)));
    }

    async fn rest(&self) {
        if self.owed_ns.get() < REST_NS_MIN {
            return self.core.io.yield_now().await;
        }
        let owed_ns = self.owed_ns.replace(0);
        self.core.io.sleep(Duration::from_nanos(owed_ns)).await;
    }
}

impl Slice<'_> {
    fn is_full(&self) -> bool {
        self.bytes >= SCRUB_SLICE_BYTES
    }

    fn stop_at(&mut self, index_key: &[u8], extent: usize, block: u32) -> Go {
        self.next = Some(IndexPlace {
            index_key: index_key.to_vec(),
            extent: extent as u32,
            block,
        });
        Go::Stop
    }

    fn push(&mut self, piece: Piece) {
        let range = piece.range();
        self.bytes += u64::from(range.end - range.start);
        self.pieces.push(piece);
    }

    /// Takes what an entry refers to, as far as there is room for it.
    fn take(&mut self, index_key: &[u8], entry: EntryRef<'_>) -> Go {
        if self.is_full() {
            return self.stop_at(index_key, 0, 0);
        }
        let (first, first_block) = match *self.at.index_key == *index_key {
            true => (self.at.extent as usize, self.at.block),
            false => (0, 0),
        };
        let extents = extents_of(index_key, entry.value);
        let shared: Rc<[u8]> = index_key.into();
        for (number, &extent) in extents.iter().enumerate().skip(first) {
            let piece = |blocks| Piece {
                index_key: shared.clone(),
                extent,
                blocks,
            };
            if extent.layout == Layout::Inline {
                self.push(piece(None));
            } else {
                let length = u64::from(extent.length);
                let mut rest = block_range(length, 0..length);
                let mut done = if number == first { first_block } else { 0 };
                rest.split_front(done);
                while let Some(front) = rest.split_front(SCRUB_READ_BYTES / BLOCK_BYTES as u32) {
                    done += front.len() as u32;
                    self.push(piece(Some(front)));
                    if self.is_full() && done < blocks_for(length) {
                        return self.stop_at(index_key, number, done);
                    }
                }
            }
            if self.is_full() {
                return self.stop_at(index_key, number + 1, 0);
            }
        }
        let last_key = self.last_key.get_or_insert_default();
        last_key.clear();
        last_key.extend_from_slice(index_key);
        Go::On
    }
}

impl Piece {
    /// Bytes of its segment to read for it, aligned.
    fn range(&self) -> Range<u32> {
        let Extent { offset, length, .. } = self.extent;
        match &self.blocks {
            Some(blocks) => {
                let from = offset + blocks.disk_offset() as u32;
                from..from + blocks.disk_length() as u32
            }
            None => {
                let align = DISK_ALIGN_BYTES as u32;
                offset - offset % align..(offset + length).next_multiple_of(align)
            }
        }
    }

    /// Block by block.
    fn parts(&self) -> Vec<Piece> {
        let part = |blocks| Piece {
            index_key: self.index_key.clone(),
            extent: self.extent,
            blocks,
        };
        let Some(mut rest) = self.blocks.clone() else {
            return vec![part(None)];
        };
        std::iter::from_fn(|| rest.split_front(1))
            .map(|block| part(Some(block)))
            .collect()
    }
}
