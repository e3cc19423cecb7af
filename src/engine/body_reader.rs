//! Bodies on their way out: sent from the buffers that the disk filled.
//!
//! Every block is verified before a byte of it is given. Pieces are read ahead of need as far as the core's budget of
//! memory has room, and given in order. A reader whose client takes nothing gives all of that back ([`BodyReader::rewind`])
//! and reads it again when it goes on.
//!
//! Invariant: the segments that it reads are pinned, before the lookup's guard goes and until the reader is dropped: what
//! it reads stays where it is, however long it takes.

use crate::engine::Machine;
use crate::engine::budget::HeldBytes;
use crate::engine::core::{Core, count};
use crate::engine::entry::{Extent, Layout, Object};
use crate::engine::message::Refusal;
use crate::engine::reads::{Pins, ReadGuard};
use crate::io::{DISK_ALIGN_BYTES, SegmentId};
use crate::limits::{BLOCK_HEADER_BYTES, BLOCKS_PER_IO, BODY_IO_DEPTH};
use crate::log::{BlockRange, BlockSlice, block_payload_length, block_range, body_crc32};
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesOrdered;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// A body being sent: verified pieces in order, read ahead of need.
pub struct BodyReader<I: Machine> {
    core: Rc<Core<I>>,
    object: Rc<Object>,
    memory: Memory,
    /// Bytes of the object that were not given yet.
    left: Range<u64>,
    /// How they will be read, but for what `reads` has.
    plan: VecDeque<Planned>,
    /// Made for the first read: a body that is in memory needs none.
    reads: Option<FuturesOrdered<Read<I>>>,
    /// Something was given: it is too late for a refusal.
    begun: bool,
    _pins: Pins,
}

/// Where a reader's memory comes from.
pub enum Memory {
    /// The budget of the core's bodies: it waits for it like all others.
    Shared,
    /// One piece at a time, which it has from the start: for a copy. Its writer waits for memory while it holds a piece;
    /// were that of the same budget, copies could wait for each other for ever.
    Own { _held: HeldBytes },
}

/// A read of one piece in flight.
type Read<I> = LocalBoxFuture<'static, Result<Piece<I>, Refusal>>;

enum Planned {
    Held { body: Arc<[u8]>, wanted: Range<u64> },
    Inline { extent: Extent, wanted: Range<u64> },
    Blocks { extent: Extent, blocks: BlockRange },
}

impl Planned {
    /// Bytes of the buffer that it is read into.
    fn disk_bytes(&self) -> usize {
        match self {
            Planned::Held { .. } => 0,
            Planned::Inline { extent, .. } => inline_pages(extent).len(),
            Planned::Blocks { blocks, .. } => blocks.disk_length() as usize,
        }
    }
}

/// Bytes of a body that were read and verified.
pub struct Piece<I: Machine> {
    bytes: Bytes<I>,
    /// Body bytes within them, in order; at most `BLOCKS_PER_IO`.
    slices: Vec<Range<usize>>,
    _held: Option<HeldBytes>,
}

enum Bytes<I: Machine> {
    Read(I::ReadBuf),
    Held(Arc<[u8]>),
}

impl<I: Machine> AsRef<[u8]> for Bytes<I> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Bytes::Read(buffer) => buffer.as_ref(),
            Bytes::Held(body) => body,
        }
    }
}

impl<I: Machine> Piece<I> {
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.slices
            .iter()
            .map(|range| &self.bytes.as_ref()[range.clone()])
    }

    /// Body bytes in the piece.
    pub fn length(&self) -> usize {
        self.slices.iter().map(Range::len).sum()
    }
}

impl<I: Machine> BodyReader<I> {
    /// Reads bytes `range` of `object`, whose whole body may be in memory; the guard has kept its extents in place.
    pub fn new(
        core: Rc<Core<I>>,
        object: Rc<Object>,
        body: Option<Arc<[u8]>>,
        range: Range<u64>,
        memory: Memory,
        guard: ReadGuard,
    ) -> BodyReader<I> {
        let pins = guard.pin(segments(&object.extents, &range));
        let plan = match body {
            Some(body) => VecDeque::from([Planned::Held {
                body,
                wanted: range.clone(),
            }]),
            None => plan(&object.extents, &range),
        };
        BodyReader {
            core,
            object,
            memory,
            left: range,
            plan,
            reads: None,
            begun: false,
            _pins: pins,
        }
    }

    /// The next piece; `None` at the end. Dropped early, the reader is of no more use.
    ///
    /// # Errors
    /// `Damaged` when a checksum refused what the disk returned, `DiskFailed` when it returned nothing, `Busy` when
    /// there was no memory for the first piece.
    pub async fn next(&mut self) -> Result<Option<Piece<I>>, Refusal> {
        let piece = match self.take_held() {
            Some(piece) => Some(piece),
            None => self.read_next().await?,
        };
        if let Some(piece) = &piece {
            self.left.start += piece.length() as u64;
            self.begun = true;
        }
        Ok(piece)
    }

    /// Gives all memory back; `bytes` at the end of what was given will be given again.
    pub fn rewind(&mut self, bytes: u64) {
        self.left.start -= bytes;
        self.reads = None;
        self.plan = plan(&self.object.extents, &self.left);
    }

    fn take_held(&mut self) -> Option<Piece<I>> {
        match self
            .plan
            .pop_front_if(|planned| matches!(planned, Planned::Held { .. }))
        {
            Some(Planned::Held { body, wanted }) => {
                let wanted = wanted.start as usize..wanted.end as usize;
                Some(Piece {
                    bytes: Bytes::Held(body),
                    slices: Vec::from([wanted]),
                    _held: None,
                })
            }
            _ => None,
        }
    }

    async fn read_next(&mut self) -> Result<Option<Piece<I>>, Refusal> {
        if self.reads.as_ref().is_none_or(FuturesOrdered::is_empty)
            && let Some(read) = self.next_read()
        {
            let held = self.hold_first(read.disk_bytes()).await?;
            self.begin(read, held);
        }
        // More only when a body has more, and there is memory: the first byte leaves early.
        while self.may_read_ahead()
            && let Some(read) = self.next_read()
        {
            let Some(held) = self.core.buffers.try_hold(read.disk_bytes()) else {
                self.plan.push_front(read);
                break;
            };
            self.begin(read, Some(held));
        }
        match &mut self.reads {
            Some(reads) => reads.next().await.transpose(),
            None => Ok(None),
        }
    }

    fn may_read_ahead(&self) -> bool {
        matches!(self.memory, Memory::Shared)
            && self
                .reads
                .as_ref()
                .is_none_or(|reads| reads.len() < BODY_IO_DEPTH)
    }

    /// Memory for a read that nothing is in flight before. Until it is there, this reader holds none.
    async fn hold_first(&self, bytes: usize) -> Result<Option<HeldBytes>, Refusal> {
        match self.memory {
            Memory::Own { .. } => Ok(None),
            Memory::Shared if self.begun => Ok(Some(self.core.hold_bytes_in_time(bytes).await)),
            Memory::Shared => self.core.hold_bytes(bytes).await.map(Some),
        }
    }

    /// Takes one read off the plan.
    fn next_read(&mut self) -> Option<Planned> {
        while let Some(planned) = self.plan.front_mut() {
            match planned {
                Planned::Held { .. } | Planned::Inline { .. } => return self.plan.pop_front(),
                Planned::Blocks { extent, blocks } => match blocks.split_front(BLOCKS_PER_IO as u32) {
                    Some(front) => {
                        let (extent, blocks) = (*extent, front);
                        return Some(Planned::Blocks { extent, blocks });
                    }
                    None => drop(self.plan.pop_front()),
                },
            }
        }
        None
    }

    fn begin(&mut self, read: Planned, held: Option<HeldBytes>) {
        let core = self.core.clone();
        let read: Read<I> = match read {
            Planned::Held { .. } => unreachable!("a body in memory is a plan of its own"),
            Planned::Inline { extent, wanted } => {
                Box::pin(async move { core.read_inline_piece(extent, wanted, held).await })
            }
            Planned::Blocks { extent, blocks } => {
                Box::pin(async move { core.read_blocks(extent, blocks, held).await })
            }
        };
        self.reads.get_or_insert_default().push_back(read);
    }
}

/// The extents that bytes `range` lie in, and which of their bytes.
fn within(extents: &[Extent], range: &Range<u64>) -> impl Iterator<Item = (Extent, Range<u64>)> {
    let mut at = 0;
    let parts = extents.iter().map(move |&extent| {
        let length = u64::from(extent.length);
        let start = range.start.clamp(at, at + length) - at;
        let end = range.end.clamp(at, at + length) - at;
        at += length;
        (extent, start..end)
    });
    parts.filter(|(_, wanted)| !wanted.is_empty())
}

/// The reads of bytes `range` of what `extents` hold.
fn plan(extents: &[Extent], range: &Range<u64>) -> VecDeque<Planned> {
    let reads = within(extents, range).map(|(extent, wanted)| match extent.layout {
        Layout::Inline => Planned::Inline { extent, wanted },
        Layout::Blocks => Planned::Blocks {
            extent,
            blocks: block_range(u64::from(extent.length), wanted),
        },
    });
    reads.collect()
}

/// The segments that bytes `range` lie in; one that comes up again behind another is named again.
fn segments(extents: &[Extent], range: &Range<u64>) -> impl Iterator<Item = SegmentId> {
    let mut last = None;
    within(extents, range)
        .map(|(extent, _)| extent.segment)
        .filter(move |&segment| last.replace(segment) != Some(segment))
}

/// The aligned bytes of its segment that a small body lies within.
fn inline_pages(extent: &Extent) -> Range<u32> {
    let align = DISK_ALIGN_BYTES as u32;
    let from = extent.offset - extent.offset % align;
    from..(extent.offset + extent.length).next_multiple_of(align)
}

impl<I: Machine> Core<I> {
    /// Reads and verifies a small body.
    pub async fn read_inline(&self, extent: Extent) -> Result<Arc<[u8]>, Refusal> {
        let whole = 0..u64::from(extent.length);
        let piece = self.read_inline_piece(extent, whole, None).await?;
        Ok(piece.slices().next().unwrap_or_default().into())
    }

    async fn read_inline_piece(
        &self,
        extent: Extent,
        wanted: Range<u64>,
        held: Option<HeldBytes>,
    ) -> Result<Piece<I>, Refusal> {
        let pages = inline_pages(&extent);
        let buffer = self
            .read_extent(&extent, pages.start, pages.end - pages.start)
            .await?;
        let start = (extent.offset - pages.start) as usize;
        let body = &buffer.as_ref()[start..start + extent.length as usize];
        if u64::from(body_crc32(body)) != extent.check {
            return Err(self.damaged(&extent, "a small body"));
        }
        let wanted = start + wanted.start as usize..start + wanted.end as usize;
        Ok(Piece {
            bytes: Bytes::Read(buffer),
            slices: Vec::from([wanted]),
            _held: held,
        })
    }

    async fn read_blocks(
        &self,
        extent: Extent,
        blocks: BlockRange,
        held: Option<HeldBytes>,
    ) -> Result<Piece<I>, Refusal> {
        let from = extent.offset + blocks.disk_offset() as u32;
        let buffer = self
            .read_extent(&extent, from, blocks.disk_length() as u32)
            .await?;
        let read_offset = blocks.disk_offset();
        let mut slices = Vec::with_capacity(BLOCKS_PER_IO);
        for block in blocks {
            let BlockSlice {
                disk_offset,
                payload_length,
                ref wanted,
                index,
                ..
            } = block;
            debug_assert!(payload_length == block_payload_length(u64::from(extent.length), index));
            if block.verify(buffer.as_ref(), read_offset, extent.check).is_err() {
                return Err(self.damaged(&extent, "a block"));
            }
            let start = (disk_offset - read_offset) as usize + BLOCK_HEADER_BYTES;
            slices.push(start + wanted.start..start + wanted.end);
        }
        Ok(Piece {
            bytes: Bytes::Read(buffer),
            slices,
            _held: held,
        })
    }

    async fn read_extent(&self, extent: &Extent, from: u32, length: u32) -> Result<I::ReadBuf, Refusal> {
        if self.is_out_of_reach(extent.segment) {
            return Err(Refusal::OutOfReach);
        }
        count(&self.counters.bytes_read, u64::from(length));
        self.io.read(extent.segment, from, length).await.map_err(|error| {
            warn!(
                "weft: segment {}: read of {length} bytes at {from}: {error}",
                extent.segment
            );
            self.counters.disk_errors.set(self.counters.disk_errors.get() + 1);
            Refusal::DiskFailed
        })
    }

    fn damaged(&self, extent: &Extent, what: &str) -> Refusal {
        warn!(
            "weft: segment {}: {what} of the extent at {} fails its checksum",
            extent.segment, extent.offset
        );
        self.counters
            .checksum_errors
            .set(self.counters.checksum_errors.get() + 1);
        self.not_verified()
    }
}
