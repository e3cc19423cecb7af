//! Cleaning: what lives in segments that are mostly dead is given another place, so that they can be used again.
//!
//! The coordinator chooses victims (`space`, `victims`) and each core moves what its own entries keep in them. It walks
//! its index in short slices, once a round, and moves what it finds in groups: the bytes are read and verified, large
//! extents are written to a data segment of moved data and synced, small bodies go into the record, and the log gets a
//! record that says of the entry what is true already, with the bytes elsewhere. That record keeps the entry's
//! sequence: to clients nothing has changed, and of two records with one sequence recovery takes the later.
//!
//! Invariants: a pointer is swapped only if the entry is as it was read, with nothing pending, and only by a durable
//! record whose data was durable before it. What a victim held is given back after that. What fails its checksum is not
//! moved, and its segment is not used again in this run. A guard holds what is read in place from before its lookup.
//! It must not refuse or change what a client asked for, nor take memory of bodies (`CLEAN_MEMORY_BYTES_MAX` is its own).

use crate::engine::Machine;
use crate::engine::apply::extents_of;
use crate::engine::core::{Core, ReplyTo, count};
use crate::engine::entry::{Extent, Layout, any_extent, with_extents};
use crate::engine::group_commit::{Change, Queued, Record};
use crate::engine::message::{CleanPlan, Lack, Outcome, Purpose, Reply};
use crate::engine::pages::Held;
use crate::engine::planted::{Fault, planted};
use crate::engine::segments::{DataSegment, Reservation};
use crate::index::key::{self, Named};
use crate::index::{Cursor, EntryRef, Go};
use crate::io::{DISK_ALIGN_BYTES, SegmentId};
use crate::limits::{
    BLOCK_BYTES, BLOCK_HEADER_BYTES, BLOCK_PAYLOAD_BYTES, BLOCKS_PER_IO, CLEAN_GROUP_DATA_BYTES,
    CLEAN_GROUP_ENTRIES, CLEAN_GROUP_INLINE_BYTES, CLEAN_IO_DEPTH,
};
use crate::log::{BlockRange, block_range, body_crc32, disk_bytes_for, seal_block};
use futures_channel::oneshot;
use futures_util::StreamExt;
use futures_util::stream;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

/// Bytes that the walk reads of a run of the index at once.
const CLEAN_READ_BYTES: u32 = 256 * 1024;
/// A pause between groups is at most so many times as long as the group took.
const PAUSES_MAX: u64 = 2;
/// No pause is longer, however slow the disk is.
const PAUSE_NS_MAX: u64 = 50_000_000;

/// What a round on one core knows.
struct Round {
    plan: CleanPlan,
    /// Victims that hold what fails its checksum.
    pinned: RefCell<BTreeSet<SegmentId>>,
}

/// An entry that keeps something in a victim.
struct Found {
    index_key: Vec<u8>,
    sequence: u64,
    value: Vec<u8>,
}

/// A part of the index, walked.
#[derive(Default)]
struct Group {
    found: Vec<Found>,
    inline_bytes: usize,
    data_bytes: u64,
}

/// An entry whose bytes have been copied.
struct Moved {
    index_key: Vec<u8>,
    sequence: u64,
    value: Vec<u8>,
    /// Goes into the record.
    body: Vec<u8>,
    /// Written for it.
    fresh: Vec<Extent>,
    segments: Vec<Rc<DataSegment>>,
}

/// Why an entry stays where it is, for now or for good.
enum Stays {
    /// It has changed, or there was no room, or a disk said no: another round may do it.
    Now,
    /// This one fails its checksum.
    Damaged(SegmentId),
}

impl From<Lack> for Stays {
    fn from(_: Lack) -> Stays {
        Stays::Now
    }
}

impl Group {
    fn is_full(&self) -> bool {
        self.found.len() >= CLEAN_GROUP_ENTRIES
            || self.inline_bytes >= CLEAN_GROUP_INLINE_BYTES
            || self.data_bytes >= CLEAN_GROUP_DATA_BYTES
    }
}

impl Round {
    fn is_victim(&self, segment: SegmentId) -> bool {
        self.plan.victims.binary_search(&segment).is_ok()
    }

    fn concerns(&self, index_key: &[u8], entry: EntryRef<'_>) -> bool {
        let is_here = |extent: &Extent| self.is_victim(extent.segment);
        match key::is_object(index_key) {
            true => any_extent(entry.value, is_here).expect("the index holds values that were checked"),
            false => extents_of(index_key, entry.value).iter().any(is_here),
        }
    }
}

impl<I: Machine> Core<I> {
    /// Moves what this core keeps in the victims; gives those that hold what cannot be moved.
    pub async fn clean_here(self: &Rc<Self>, plan: &CleanPlan) -> Vec<SegmentId> {
        let round = Round {
            plan: plan.clone(),
            pinned: RefCell::default(),
        };
        let is_victim = |segment| round.is_victim(segment);
        if self
            .checkpoints
            .extents()
            .iter()
            .any(|extent| is_victim(SegmentId(extent.segment)))
        {
            self.merge_all(Purpose::Moves).await;
        }
        let mut cursor = Cursor::new(Vec::new());
        let mut is_over = plan.victims.is_empty();
        while !is_over {
            let begun_ns = self.io.monotonic_ns();
            // Before the walk: what it finds must still be there when it is read.
            let guard = self.guard();
            let (group, is_last) = self.walk(&round, &mut cursor).await;
            is_over = is_last;
            self.move_group(&round, group).await;
            drop(guard);
            self.pause_after(&round, begun_ns).await;
        }
        // What was given back is known to the coordinator before the round is over.
        self.flush_ledger();
        round.pinned.into_inner().into_iter().collect()
    }

    /// Gathers a group from the cursor on; says whether it came to the end.
    async fn walk(&self, round: &Round, cursor: &mut Cursor) -> (Group, bool) {
        let mut group = Group::default();
        let held = Held::passing(&self.pages, CLEAN_READ_BYTES);
        let walked = self.walk_with(cursor, &held, |index_key, entry| {
            // What is behind a full group is looked at again.
            if group.is_full() {
                return Go::Stop;
            }
            if round.concerns(index_key, entry) {
                for extent in extents_of(index_key, entry.value) {
                    match extent.layout {
                        Layout::Inline => group.inline_bytes += extent.length as usize,
                        Layout::Blocks => group.data_bytes += u64::from(extent.disk_bytes()),
                    }
                }
                group.found.push(Found {
                    index_key: index_key.to_vec(),
                    sequence: entry.sequence,
                    value: entry.value.to_vec(),
                });
            }
            Go::On
        });
        // What cannot be read stays where it is, and what it refers to.
        let is_last = walked.await.is_err() || !group.is_full();
        (group, is_last)
    }

    /// Copies, syncs, swaps: in this order.
    async fn move_group(self: &Rc<Self>, round: &Round, group: Group) {
        let copies = group.found.into_iter().map(|found| self.copy_entry(round, found));
        let mut copied: Vec<Moved> = stream::iter(copies)
            .buffer_unordered(CLEAN_IO_DEPTH)
            .filter_map(async |moved| moved)
            .collect()
            .await;
        let mut synced: Vec<Rc<DataSegment>> = Vec::new();
        for segment in copied.iter().flat_map(|moved| &moved.segments) {
            if !synced.iter().any(|known| Rc::ptr_eq(known, segment)) {
                synced.push(segment.clone());
            }
        }
        for segment in synced {
            if planted(Fault::MovedUnsynced) {
                continue;
            }
            // After a failure its content is not believed, and what it holds for this group is void.
            let failed = self.sync_data(&segment).await.is_err();
            if failed {
                let in_it = |moved: &mut Moved| moved.segments.iter().any(|of| Rc::ptr_eq(of, &segment));
                for moved in copied.extract_if(.., in_it) {
                    self.discard(&moved.fresh);
                }
            }
        }
        let mut swaps = Vec::new();
        for moved in copied {
            match self.load_key(&moved.index_key).await {
                Ok(()) => swaps.extend(self.swap(moved)),
                Err(_) => self.discard(&moved.fresh),
            }
        }
        for (answer, bytes) in swaps {
            if let Ok(Reply::Outcome(Ok(_))) = answer.await {
                count(&self.counters.entries_moved, 1);
                count(&self.counters.bytes_moved, bytes);
            }
        }
    }

    /// Queues the record that says where an entry's bytes lie now, if it is as it was when they were copied.
    fn swap(self: &Rc<Self>, moved: Moved) -> Option<(oneshot::Receiver<Reply>, u64)> {
        if !self.is_unchanged(&moved.index_key, moved.sequence) && !planted(Fault::MovedUnchecked) {
            self.unload_key(&moved.index_key);
            self.discard(&moved.fresh);
            return None;
        }
        let fresh_bytes: u64 = moved
            .fresh
            .iter()
            .map(|extent| u64::from(extent.disk_bytes()))
            .sum();
        let bytes = fresh_bytes + moved.body.len() as u64;
        let (sender, receiver) = oneshot::channel();
        self.enqueue(Queued {
            record: Some(Record {
                sequence: moved.sequence,
                changes: vec![Change::put(moved.index_key, moved.value)],
                body: moved.body,
                fresh_extents: false,
                moved: Some(moved.fresh),
            }),
            outcome: Ok(Outcome {
                sequence: moved.sequence,
                modified_ms: 0,
            }),
            to: ReplyTo::Local(sender),
        });
        Some((receiver, bytes))
    }

    /// Whether nothing newer is true of an entry, or about to be.
    fn is_unchanged(&self, index_key: &[u8], sequence: u64) -> bool {
        // The end of an upload takes the extents of its parts, which are not named by it.
        let ends = match key::parse(index_key) {
            Some(Named::Part {
                bucket, key, upload, ..
            }) => self.commits.is_pending(&key::upload(bucket, &key, upload)),
            _ => false,
        };
        let index = self.index.borrow();
        let entry = index.get(index_key);
        !ends && !self.commits.is_pending(index_key) && entry.is_some_and(|entry| entry.sequence == sequence)
    }

    async fn copy_entry(self: &Rc<Self>, round: &Round, found: Found) -> Option<Moved> {
        let Found {
            index_key,
            sequence,
            value,
        } = found;
        let mut moved = Moved {
            index_key,
            sequence,
            value,
            body: Vec::new(),
            fresh: Vec::new(),
            segments: Vec::new(),
        };
        match self.copy_extents(round, &mut moved).await {
            Ok(()) => Some(moved),
            Err(stays) => {
                self.discard(&moved.fresh);
                if let Stays::Damaged(segment) = stays {
                    round.pinned.borrow_mut().insert(segment);
                }
                None
            }
        }
    }

    /// Copies what lies in victims, and has the value say where it is now.
    async fn copy_extents(self: &Rc<Self>, round: &Round, moved: &mut Moved) -> Result<(), Stays> {
        let extents = extents_of(&moved.index_key, &moved.value);
        if planted(Fault::MovedFreedEarly) {
            self.free_early(round, &moved.index_key, &extents);
        }
        // A small body goes with its record, which lies in the same log.
        if let &[extent] = &*extents
            && extent.layout == Layout::Inline
        {
            if round.is_victim(extent.segment) {
                moved.body = self.read_small(&extent).await?;
            }
            return Ok(());
        }
        let mut places = Vec::with_capacity(extents.len());
        for &extent in &extents {
            if !round.is_victim(extent.segment) {
                places.push(extent);
                continue;
            }
            let first = moved.fresh.len();
            match extent.layout {
                Layout::Inline => self.copy_small(&extent, moved).await?,
                Layout::Blocks => self.copy_blocks(&extent, moved).await?,
            }
            places.extend_from_slice(&moved.fresh[first..]);
        }
        if !extents.is_empty() {
            moved.value = with_extents(&moved.value, extents.len(), &places);
        }
        Ok(())
    }

    /// Copies an extent of blocks, block by block: each is verified, and sealed as one of its new extent.
    async fn copy_blocks(self: &Rc<Self>, extent: &Extent, moved: &mut Moved) -> Result<(), Stays> {
        let length = u64::from(extent.length);
        let mut at = 0;
        while at < length {
            let reservation = self.reserve_for_move(length - at).await?;
            let to = self.begin_extent(&reservation, length - at, moved);
            let mut blocks = block_range(length, at..at + u64::from(to.length));
            let mut copied = Ok(());
            while copied.is_ok()
                && let Some(front) = blocks.split_front(BLOCKS_PER_IO as u32)
            {
                copied = self.copy_run(extent, front, &to, at, &reservation.segment).await;
            }
            self.end_reservation(&reservation.segment);
            copied?;
            at += u64::from(to.length);
        }
        Ok(())
    }

    /// Copies some blocks of `extent` to `to`, which holds the body from byte `skipped` of it on.
    async fn copy_run(
        self: &Rc<Self>,
        extent: &Extent,
        blocks: BlockRange,
        to: &Extent,
        skipped: u64,
        into: &DataSegment,
    ) -> Result<(), Stays> {
        let (read_offset, length) = (blocks.disk_offset(), blocks.disk_length());
        let read = self
            .read_victim(extent, extent.offset + read_offset as u32, length as u32)
            .await?;
        let skipped_blocks = (skipped / BLOCK_PAYLOAD_BYTES as u64) as u32;
        let to_offset = to.offset + read_offset as u32 - skipped_blocks * BLOCK_BYTES as u32;
        let mut buffer = self.io.buffer(length as usize);
        buffer.as_mut().copy_from_slice(read.as_ref());
        for block in blocks {
            if block.verify(read.as_ref(), read_offset, extent.check).is_err() {
                self.cannot_move(extent)?;
            }
            let start = (block.disk_offset - read_offset) as usize;
            let end = start + disk_bytes_for(block.payload_length as u64) as usize;
            let index = block.index - skipped_blocks;
            seal_block(
                &mut buffer.as_mut()[start..end],
                block.payload_length,
                to.check,
                index,
            );
        }
        self.write_copy(into, to_offset, buffer).await
    }

    /// Gives a small body that is one of several extents a place of its own.
    async fn copy_small(self: &Rc<Self>, extent: &Extent, moved: &mut Moved) -> Result<(), Stays> {
        let body = self.read_small(extent).await?;
        let mut rest = body.as_slice();
        while !rest.is_empty() {
            let reservation = self.reserve_for_move(rest.len() as u64).await?;
            let to = self.begin_extent(&reservation, rest.len() as u64, moved);
            let (here, behind) = rest.split_at(to.length as usize);
            let mut buffer = self.io.buffer(to.disk_bytes() as usize);
            for block in block_range(here.len() as u64, 0..here.len() as u64) {
                let (from, payload) = (block.index as usize * BLOCK_PAYLOAD_BYTES, block.payload_length);
                let start = block.disk_offset as usize;
                let end = start + disk_bytes_for(payload as u64) as usize;
                let sealed = &mut buffer.as_mut()[start..end];
                sealed[BLOCK_HEADER_BYTES..][..payload].copy_from_slice(&here[from..from + payload]);
                seal_block(sealed, payload, to.check, block.index);
            }
            let copied = self.write_copy(&reservation.segment, to.offset, buffer).await;
            self.end_reservation(&reservation.segment);
            copied?;
            rest = behind;
        }
        Ok(())
    }

    /// An extent in a reservation, which may be shorter than the `wanted` bytes.
    fn begin_extent(&self, reservation: &Reservation, wanted: u64, moved: &mut Moved) -> Extent {
        let is_all = u64::from(reservation.disk_bytes) == disk_bytes_for(wanted);
        let whole_blocks = reservation.disk_bytes / BLOCK_BYTES as u32 * BLOCK_PAYLOAD_BYTES as u32;
        let extent = Extent {
            layout: Layout::Blocks,
            segment: reservation.segment.id,
            offset: reservation.offset,
            length: if is_all { wanted as u32 } else { whole_blocks },
            check: self.next_tag(),
        };
        moved.fresh.push(extent);
        moved.segments.push(reservation.segment.clone());
        extent
    }

    /// Reads and verifies a small body.
    async fn read_small(&self, extent: &Extent) -> Result<Vec<u8>, Stays> {
        let align = DISK_ALIGN_BYTES as u32;
        let from = extent.offset - extent.offset % align;
        let to = (extent.offset + extent.length).next_multiple_of(align);
        let read = self.read_victim(extent, from, to - from).await?;
        let body = &read.as_ref()[(extent.offset - from) as usize..][..extent.length as usize];
        if u64::from(body_crc32(body)) != extent.check {
            self.cannot_move(extent)?;
        }
        Ok(body.to_vec())
    }

    async fn read_victim(&self, extent: &Extent, from: u32, length: u32) -> Result<I::ReadBuf, Stays> {
        count(&self.counters.bytes_read, u64::from(length));
        self.io.read(extent.segment, from, length).await.map_err(|error| {
            warn!(
                "weft: segment {}: reading what is to be moved: {error}",
                extent.segment
            );
            count(&self.counters.disk_errors, 1);
            Stays::Now
        })
    }

    async fn write_copy(
        self: &Rc<Self>,
        to: &DataSegment,
        offset: u32,
        buffer: I::WriteBuf,
    ) -> Result<(), Stays> {
        count(&self.counters.bytes_written, buffer.as_ref().len() as u64);
        self.io.write(to.id, offset, buffer).await.map_err(|error| {
            warn!(
                "weft: data segment {}: writing what is moved: {error}; it takes no more",
                to.id
            );
            count(&self.counters.disk_errors, 1);
            self.fail_data(to);
            Stays::Now
        })
    }

    /// What fails its checksum stays where it is: copied, it would pass for good.
    fn cannot_move(&self, extent: &Extent) -> Result<(), Stays> {
        if planted(Fault::MovedDamage) {
            return Ok(());
        }
        warn!(
            "weft: segment {}: the extent at {} fails its checksum; it is not moved, and the segment is not used again",
            extent.segment, extent.offset
        );
        count(&self.counters.checksum_errors, 1);
        Err(Stays::Damaged(extent.segment))
    }

    /// Others get their turn: at ease more of it than the cleaner, and when room is short none but the next poll.
    async fn pause_after(&self, round: &Round, begun_ns: u64) {
        let took_ns = self.io.monotonic_ns().saturating_sub(begun_ns);
        let longest_ns = (took_ns * PAUSES_MAX).min(PAUSE_NS_MAX);
        let pause_ns = longest_ns.saturating_sub(round.plan.shortage.part_of(2 * longest_ns));
        match Duration::from_nanos(pause_ns) {
            Duration::ZERO => self.io.yield_now().await,
            pause => self.io.sleep(pause).await,
        }
    }

    /// What [`Fault::MovedFreedEarly`] does.
    fn free_early(self: &Rc<Self>, round: &Round, index_key: &[u8], extents: &[Extent]) {
        let stays = extents.iter().filter(|extent| !round.is_victim(extent.segment));
        let kept = stays.map(|extent| (extent.segment, extent.offset)).collect();
        let entry = self.index.borrow().get(index_key).map(EntryRef::to_entry);
        if let Some(entry) = entry {
            self.release(index_key, &entry, &kept);
            self.flush_ledger();
        }
    }
}
