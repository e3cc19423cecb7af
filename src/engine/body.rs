//! Bodies on their way in: received into the buffers that go to disk.
//!
//! A body of up to `INLINE_BYTES_MAX` travels to the owner of its key and lies in the commit record. A larger
//! one is cut into checksummed blocks in this core's data segment while it arrives. The caller receives
//! straight into the blocks' payload, so a body's byte is copied once, by the kernel.
//!
//! Dropping a writer, or a stored body that no record took, gives its room back, but only after its last
//! write has ended: a segment with a write in flight is never reused.

use crate::engine::Machine;
use crate::engine::budget::HeldBytes;
use crate::engine::core::{Core, count};
use crate::engine::entry::{Extent, Layout};
use crate::engine::message::{NewBody, Refusal};
use crate::engine::segments::{DataSegment, Reservation};
use crate::engine::signal::Waiters;
use crate::limits::{
    BLOCK_BYTES, BLOCK_HEADER_BYTES, BLOCK_PAYLOAD_BYTES, BLOCKS_PER_IO, BODY_IO_DEPTH,
    FIRST_RESERVATION_BYTES, INLINE_BYTES_MAX,
};
use crate::log::{disk_bytes_for, seal_block};
use std::cell::Cell;
use std::rc::Rc;

/// Body bytes of a full buffer.
const CHUNK_PAYLOAD_BYTES: u64 = (BLOCKS_PER_IO * BLOCK_PAYLOAD_BYTES) as u64;

/// A body being received.
pub struct BodyWriter<I: Machine> {
    core: Rc<Core<I>>,
    /// Body bytes still to come, if the client said how many there are.
    expected: Option<u64>,
    received: u64,
    /// What a small body is gathered in, once some of it comes: its memory, how much it may be, and is.
    inline: Vec<u8>,
    inline_held: Option<HeldBytes>,
    inline_max: usize,
    inline_filled: usize,
    chunk: Option<Chunk<I>>,
    run: Option<Run>,
    extents: Vec<Extent>,
    segments: Vec<Rc<DataSegment>>,
    writes: Rc<Writes>,
}

/// Blocks that are filled and then written in one operation.
struct Chunk<I: Machine> {
    buffer: I::WriteBuf,
    held: HeldBytes,
    /// Block of the buffer that is being filled, and how many body bytes are in it.
    block: usize,
    filled: usize,
    /// Index in the extent of the buffer's first block.
    first_index: u32,
}

/// A reservation that is being filled: an extent to be.
struct Run {
    reservation: Reservation,
    tag: u64,
    /// Body bytes in it so far.
    length: u64,
    /// Bytes on disk that chunks were made for.
    disk_taken: u32,
}

/// Writes of one body that are in flight.
#[derive(Default)]
struct Writes {
    count: Cell<usize>,
    failed: Cell<bool>,
    ended: Waiters,
}

/// A body that is stored, or small enough to go with its record. Dropped untaken, it gives its room back.
pub struct StoredBody<I: Machine> {
    core: Rc<Core<I>>,
    body: Option<NewBody>,
}

impl<I: Machine> StoredBody<I> {
    /// A body that keeps the bytes of an object's version.
    pub fn kept(core: Rc<Core<I>>, sequence: u64) -> StoredBody<I> {
        StoredBody {
            core,
            body: Some(NewBody::Keep { sequence }),
        }
    }

    /// Bytes that were received for it; a body that stays where it is has none.
    pub fn bytes(&self) -> u64 {
        match &self.body {
            Some(NewBody::Inline(bytes)) => bytes.len() as u64,
            Some(NewBody::Extents { size, .. }) => *size,
            Some(NewBody::Keep { .. }) | None => 0,
        }
    }

    /// Bytes that go into the record.
    pub fn inline_bytes(&self) -> u64 {
        match &self.body {
            Some(NewBody::Inline(bytes)) => bytes.len() as u64,
            Some(NewBody::Extents { .. } | NewBody::Keep { .. }) | None => 0,
        }
    }

    pub fn take(mut self) -> NewBody {
        self.body.take().expect("taken once")
    }
}

impl<I: Machine> Drop for StoredBody<I> {
    fn drop(&mut self) {
        if let Some(NewBody::Extents { extents, .. }) = self.body.take() {
            self.core.discard(&extents);
        }
    }
}

impl<I: Machine> BodyWriter<I> {
    /// For a body of `expected` bytes, or of any length.
    pub fn new(core: Rc<Core<I>>, expected: Option<u64>) -> BodyWriter<I> {
        let inline_max = match expected {
            Some(expected) if expected > INLINE_BYTES_MAX as u64 => 0,
            Some(expected) => expected as usize,
            None => INLINE_BYTES_MAX,
        };
        BodyWriter {
            core,
            expected,
            received: 0,
            inline: Vec::new(),
            inline_held: None,
            inline_max,
            inline_filled: 0,
            chunk: None,
            run: None,
            extents: Vec::new(),
            segments: Vec::new(),
            writes: Rc::default(),
        }
    }

    /// Where the next bytes go: at least one byte, unless the expected length is reached.
    pub async fn space(&mut self) -> Result<&mut [u8], Refusal> {
        if self.inline_filled < self.inline_max {
            if self.inline.is_empty() {
                self.inline_held = Some(self.core.hold_bytes(self.inline_max).await?);
                self.inline = vec![0; self.inline_max];
            }
            return Ok(&mut self.inline[self.inline_filled..]);
        }
        if self.expected == Some(self.received) {
            return Ok(&mut []);
        }
        if self.extents.is_empty() && self.run.is_none() && self.inline_filled > 0 {
            self.spill().await?;
        }
        self.block_space().await
    }

    /// `count` bytes were put at the start of the space.
    pub fn advance(&mut self, count: usize) {
        self.received += count as u64;
        if self.inline_filled < self.inline_max {
            self.inline_filled += count;
            return;
        }
        let chunk = self.chunk.as_mut().expect("space was given in a chunk");
        chunk.filled += count;
        self.run.as_mut().expect("a chunk is part of a run").length += count as u64;
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The body is complete and verified: makes it durable.
    pub async fn finish(mut self) -> Result<StoredBody<I>, Refusal> {
        let core = self.core.clone();
        if self.run.is_none() && self.extents.is_empty() {
            let mut inline = std::mem::take(&mut self.inline);
            inline.truncate(self.inline_filled);
            return Ok(StoredBody {
                core,
                body: Some(NewBody::Inline(inline)),
            });
        }
        self.write_chunk();
        self.end_run();
        self.writes.wait_below(1).await;
        for segment in &self.segments {
            if self.writes.failed.get() || segment.failed.get() {
                return Err(Refusal::DiskFailed);
            }
            self.core.sync_data(segment).await?;
        }
        let extents = std::mem::take(&mut self.extents);
        Ok(StoredBody {
            core,
            body: Some(NewBody::Extents {
                size: self.received,
                extents,
            }),
        })
    }

    /// A body without a length outgrew what goes with a record: what came so far becomes blocks.
    async fn spill(&mut self) -> Result<(), Refusal> {
        let inline = std::mem::take(&mut self.inline);
        let mut rest = &inline[..self.inline_filled];
        // Given back first: who holds some and waits for more could wait for another who does.
        self.inline_held = None;
        (self.inline_max, self.inline_filled) = (0, 0);
        self.received -= rest.len() as u64;
        while !rest.is_empty() {
            let space = self.block_space().await?;
            let count = space.len().min(rest.len());
            space[..count].copy_from_slice(&rest[..count]);
            self.advance(count);
            rest = &rest[count..];
        }
        Ok(())
    }

    async fn block_space(&mut self) -> Result<&mut [u8], Refusal> {
        if self.chunk.as_ref().is_some_and(|chunk| chunk.is_full()) {
            self.write_chunk();
        }
        if let Some(chunk) = &mut self.chunk
            && chunk.filled == BLOCK_PAYLOAD_BYTES
        {
            chunk.block += 1;
            chunk.filled = 0;
        }
        if self.chunk.is_none() {
            self.open_chunk().await?;
        }
        let chunk = self.chunk.as_mut().expect("opened above");
        let left = self
            .expected
            .map_or(u64::MAX, |expected| expected - self.received);
        let start = chunk.block * BLOCK_BYTES + BLOCK_HEADER_BYTES + chunk.filled;
        let room = (chunk.block_end() - start).min(usize::try_from(left).unwrap_or(usize::MAX));
        Ok(&mut chunk.buffer.as_mut()[start..start + room])
    }

    async fn open_chunk(&mut self) -> Result<(), Refusal> {
        self.writes.wait_below(BODY_IO_DEPTH).await;
        if self.writes.failed.get() {
            return Err(Refusal::DiskFailed);
        }
        if self
            .run
            .as_ref()
            .is_some_and(|run| run.disk_taken == run.reservation.disk_bytes)
        {
            self.end_run();
        }
        if self.run.is_none() {
            self.open_run().await?;
        }
        let run = self.run.as_mut().expect("opened above");
        let bytes = (run.reservation.disk_bytes - run.disk_taken).min((BLOCKS_PER_IO * BLOCK_BYTES) as u32);
        self.core.pace(u64::from(bytes)).await;
        self.chunk = Some(Chunk {
            held: self.core.hold_bytes(bytes as usize).await?,
            buffer: self.core.io.buffer(bytes as usize),
            block: 0,
            filled: 0,
            first_index: run.disk_taken / BLOCK_BYTES as u32,
        });
        run.disk_taken += bytes;
        Ok(())
    }

    async fn open_run(&mut self) -> Result<(), Refusal> {
        // Reservations grow with the body: what a client announces and never sends takes little room.
        let grown = self
            .received
            .max(FIRST_RESERVATION_BYTES)
            .next_multiple_of(CHUNK_PAYLOAD_BYTES);
        let left = self
            .expected
            .map_or(u64::MAX, |expected| expected - self.received)
            .min(grown);
        let reservation = self.core.reserve(left).await?;
        if !self
            .segments
            .iter()
            .any(|segment| Rc::ptr_eq(segment, &reservation.segment))
        {
            self.segments.push(reservation.segment.clone());
        }
        self.run = Some(Run {
            reservation,
            tag: self.core.next_tag(),
            length: 0,
            disk_taken: 0,
        });
        Ok(())
    }

    /// Seals the blocks of the chunk and writes them, in a task of their own.
    fn write_chunk(&mut self) {
        let Some(mut chunk) = self.chunk.take() else {
            return;
        };
        let run = self.run.as_ref().expect("a chunk is part of a run");
        chunk.seal(run.tag);
        let segment = run.reservation.segment.clone();
        let offset = run.reservation.offset + chunk.first_index * BLOCK_BYTES as u32;
        let (core, writes) = (self.core.clone(), self.writes.clone());
        writes.count.set(writes.count.get() + 1);
        count(&core.counters.bytes_written, chunk.buffer.as_ref().len() as u64);
        self.core.io.spawn(async move {
            if let Err(error) = core.io.write(segment.id, offset, chunk.buffer).await {
                warn!(
                    "weft: data segment {}: write at {offset}: {error}; it takes no more",
                    segment.id
                );
                core.counters.disk_errors.set(core.counters.disk_errors.get() + 1);
                core.fail_data(&segment);
                writes.failed.set(true);
            }
            drop(chunk.held);
            writes.count.set(writes.count.get() - 1);
            writes.ended.wake();
        });
    }

    /// Closes the extent: what of its reservation was not needed is given back.
    fn end_run(&mut self) {
        let Some(run) = self.run.take() else { return };
        let length = run.length as u32;
        let unused = run.reservation.disk_bytes - disk_bytes_for(run.length) as u32;
        let Reservation {
            segment,
            offset,
            disk_bytes,
        } = run.reservation;
        segment.give_back(offset + disk_bytes, disk_bytes - run.disk_taken);
        if unused > 0 {
            self.core.account_here(segment.id, -i64::from(unused));
        }
        if length > 0 {
            self.extents.push(Extent {
                layout: Layout::Blocks,
                segment: segment.id,
                offset,
                length,
                check: run.tag,
            });
        }
        // The segment may be sealed once the writes of this run have ended.
        let (core, writes) = (self.core.clone(), self.writes.clone());
        if writes.count.get() == 0 {
            core.end_reservation(&segment);
        } else {
            self.core.io.spawn(async move {
                writes.wait_below(1).await;
                core.end_reservation(&segment);
            });
        }
    }
}

impl<I: Machine> Drop for BodyWriter<I> {
    fn drop(&mut self) {
        self.end_run();
        let extents = std::mem::take(&mut self.extents);
        if extents.is_empty() {
            return;
        }
        let (core, writes) = (self.core.clone(), self.writes.clone());
        self.core.io.spawn(async move {
            writes.wait_below(1).await;
            core.discard(&extents);
        });
    }
}

impl<I: Machine> Chunk<I> {
    /// Where the payload of the block being filled ends in the buffer.
    fn block_end(&self) -> usize {
        ((self.block + 1) * BLOCK_BYTES).min(self.buffer.as_ref().len())
    }

    fn is_full(&self) -> bool {
        let end = self.block * BLOCK_BYTES + BLOCK_HEADER_BYTES + self.filled;
        end == self.buffer.as_ref().len()
    }

    /// Gives every filled block its header, and zeroes what lies behind the last.
    fn seal(&mut self, tag: u64) {
        let (last, filled, first_index) = (self.block, self.filled, self.first_index);
        let buffer = self.buffer.as_mut();
        let mut end = 0;
        for block in 0..=last {
            let payload = if block == last {
                filled
            } else {
                BLOCK_PAYLOAD_BYTES
            };
            if payload == 0 {
                break;
            }
            let start = block * BLOCK_BYTES;
            end = start + disk_bytes_for(payload as u64) as usize;
            seal_block(&mut buffer[start..end], payload, tag, first_index + block as u32);
        }
        buffer[end..].fill(0);
    }
}

impl Writes {
    async fn wait_below(&self, count: usize) {
        self.ended.until(|| self.count.get() < count).await;
    }
}
