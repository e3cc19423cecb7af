//! The simulated volumes: what a disk may do to what is asked of it.
//!
//! # Fault model
//! Always on, because every disk does it:
//! - Operations take random times and complete in any order. Of a write in flight a concurrent read
//!   may see any sectors.
//! - A write whose future was dropped goes on, and lands when it would have.
//! - When the power goes, each write not covered by a successful sync, complete or in flight, is kept,
//!   lost or torn: each of its 512-byte sectors is the old one or the new one. What one write fares says
//!   nothing of another, whatever their order. A sync under way promises nothing.
//! - When only the process dies, what completed stays visible, and no more durable than it was.
//! - A segment just allocated reads as zeros. That it exists is durable once the call
//!   returned, and open before.
//!
//! Switched on by [`Faults`]:
//! - EIO from a read: nothing changes. EIO from a write: any of its sectors may have landed.
//! - EIO from a sync: each write that it covered is durable, or visible and not durable, or gone; no
//!   later sync makes it durable, and any of its sectors may be there again after a power loss.
//! - ENOSPC from an allocation, by chance or from a number of segments on.
//! - Slow operations; stuck ones, which never end and whose writes may land at a power loss.
//! - Writes that succeed and are lost, or land elsewhere; bits that flip at rest; fresh segments that
//!   show another's content.
//! - The Nth operation fails, once, or with all that follow.
//! - All of these on one of several volumes only; and a volume that is missing: its segments are not listed and cannot
//!   be read.
//!
//! Not modelled: sectors that are neither old nor new after a power loss, loss of synced data (save by
//! damage on purpose, see [`DiskImage`]), segments that vanish, short writes (they are EIO here).
//!
//! Invariant: what a successful sync covered is read back, from then on, by every boot. It must not
//! take an order from anything but the caller and the seed.

use super::executor::Promise;
use super::history::History;
use super::image::{Blanks, DiskImage};
use super::options::{Faults, Options};
use super::rng::Rng;
use super::segment::{Fill, Segment, Tear, Write};
use super::{ReadBuf, WriteBuf};
use crate::io::{CoreId, DISK_ALIGN_BYTES, SegmentId, VolumeShape};
use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::rc::Rc;

/// The times that operations usually take, in nanoseconds, on the fastest of the simulated disks.
const READ_NS: RangeInclusive<u64> = 5_000..=60_000;
const WRITE_NS: RangeInclusive<u64> = 5_000..=80_000;
const SYNC_NS: RangeInclusive<u64> = 10_000..=300_000;
const ALLOCATE_NS: RangeInclusive<u64> = 20_000..=500_000;
const LIST_NS: RangeInclusive<u64> = 5_000..=50_000;
/// One operation in this many is late, by up to [`LATE_FACTOR`] times its time.
const LATE_ONE_IN: u64 = 32;
const LATE_FACTOR: u64 = 16;
/// A slow operation takes up to this many times its time: seconds.
pub(super) const SLOW_FACTOR: u64 = 20_000;
/// Worlds differ in how slow their disk is, beside cores and messages: up to 2 to this power.
const SLOWNESS_LOG2_MAX: u64 = 5;

/// Who is told how an operation ended.
type Answer<T> = Rc<Promise<io::Result<T>>>;

pub(super) struct Disk {
    shape: VolumeShape,
    volumes: usize,
    missing: Option<usize>,
    faults: Faults,
    slowness: u64,
    segments: BTreeMap<SegmentId, Segment>,
    blanks: Blanks,
    /// Allocations under way.
    allocating: Vec<SegmentId>,
    /// Operations asked for in this world.
    operations: u64,
    /// Orders the completions of writes against the calls of syncs.
    completions: u64,
}

/// An operation under way, to be given to [`Disk::finish`] when its time has come.
pub(super) struct Operation {
    number: u64,
    kind: Kind,
    fails: bool,
}

enum Kind {
    Read {
        id: SegmentId,
        first_page: u32,
        pages: u32,
        sampled: Option<ReadBuf>,
        answer: Answer<ReadBuf>,
    },
    Write {
        id: SegmentId,
        answer: Answer<()>,
    },
    Sync {
        id: SegmentId,
        through: u64,
        answer: Answer<()>,
    },
    Allocate {
        id: SegmentId,
        answer: Answer<()>,
    },
    List {
        answer: Answer<Vec<SegmentId>>,
    },
}

/// An operation accepted; `None` is one that never ends.
pub(super) type Accepted = Option<(u64, Operation)>;

/// What an operation needs beside the disk.
pub(super) struct Surroundings<'a> {
    pub now_ns: u64,
    pub rng: &'a mut Rng,
    pub history: &'a mut History,
}

impl Disk {
    pub fn new(image: &mut DiskImage, options: Options, rng: &mut Rng) -> Disk {
        Disk {
            shape: image.shape,
            volumes: image.volumes,
            missing: options.missing,
            faults: options.faults,
            slowness: 1 << rng.between(0, SLOWNESS_LOG2_MAX),
            segments: std::mem::take(&mut image.segments),
            blanks: image.blanks.clone(),
            allocating: Vec::new(),
            operations: 0,
            completions: image.completions,
        }
    }

    pub fn blanks(&self) -> Blanks {
        self.blanks.clone()
    }

    /// Operations asked for in this world: what `FailAt` counts.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    pub fn read(
        &mut self,
        core: CoreId,
        id: SegmentId,
        offset: u32,
        length: u32,
        answer: Answer<ReadBuf>,
        with: &mut Surroundings<'_>,
    ) -> Accepted {
        let (first_page, pages) = self.pages_of(id, offset, length as usize);
        // A read finds the content of some moment between its call and its end.
        let sampled = match self.segments.get(&id).filter(|_| self.is_there(id)) {
            Some(segment) if with.rng.coin() => Some(ReadBuf::at(segment, first_page, pages, with.rng)),
            _ => None,
        };
        let kind = Kind::Read {
            id,
            first_page,
            pages,
            sampled,
            answer,
        };
        with.history.stats.reads += 1;
        with.history.stats.read_bytes += u64::from(length);
        self.accept(core, kind, [u64::from(offset), u64::from(length)], READ_NS, with)
    }

    pub fn write(
        &mut self,
        core: CoreId,
        id: SegmentId,
        offset: u32,
        buf: WriteBuf,
        answer: Answer<()>,
        with: &mut Surroundings<'_>,
    ) -> Accepted {
        let (first_page, pages) = self.pages_of(id, offset, buf.bytes.len());
        self.assert_may_write(id);
        let write = Write {
            id: self.operations,
            first_page,
            blob: Rc::new(buf.bytes),
        };
        with.history.stats.writes += 1;
        with.history.stats.written_bytes += write.blob.len() as u64;
        let content = u64::from(crc32fast::hash(&write.blob)) << 32 | u64::from(pages);
        let segment = self.segments.get_mut(&id);
        let segment = segment.unwrap_or_else(|| panic!("a write to segment {id}, never allocated"));
        with.history.stats.overlapping_writes += u64::from(segment.begin_write(write));
        self.accept(
            core,
            Kind::Write { id, answer },
            [u64::from(offset), content],
            WRITE_NS,
            with,
        )
    }

    pub fn sync(
        &mut self,
        core: CoreId,
        id: SegmentId,
        answer: Answer<()>,
        with: &mut Surroundings<'_>,
    ) -> Accepted {
        assert!(
            self.segments.contains_key(&id),
            "a sync of segment {id}, never allocated"
        );
        let kind = Kind::Sync {
            id,
            through: self.completions,
            answer,
        };
        with.history.stats.syncs += 1;
        self.accept(core, kind, [self.completions, 0], SYNC_NS, with)
    }

    pub fn allocate(
        &mut self,
        core: CoreId,
        id: SegmentId,
        answer: Answer<()>,
        with: &mut Surroundings<'_>,
    ) -> Accepted {
        self.assert_is_within(id);
        self.assert_may_write(id);
        self.allocating.push(id);
        with.history.stats.allocations += 1;
        self.accept(core, Kind::Allocate { id, answer }, [0, 0], ALLOCATE_NS, with)
    }

    pub fn list(
        &mut self,
        core: CoreId,
        answer: Answer<Vec<SegmentId>>,
        with: &mut Surroundings<'_>,
    ) -> Accepted {
        self.accept(core, Kind::List { answer }, [0, 0], LIST_NS, with)
    }

    fn accept(
        &mut self,
        core: CoreId,
        kind: Kind,
        detail: [u64; 2],
        usual_ns: RangeInclusive<u64>,
        with: &mut Surroundings<'_>,
    ) -> Accepted {
        let number = self.operations;
        self.operations += 1;
        let (chance, name) = match kind {
            Kind::Read { .. } => (self.faults.read_error, "read"),
            Kind::Write { .. } => (self.faults.write_error, "write"),
            Kind::Sync { .. } => (self.faults.sync_error, "sync"),
            Kind::Allocate { .. } => (self.faults.no_space, "allocate"),
            Kind::List { .. } => (Default::default(), "list"),
        };
        let only = self.faults.only_volume;
        let hit = only.is_none() || only == kind.segment().map(SegmentId::volume);
        let fails =
            hit && (with.rng.happens(chance) || self.faults.fail_at.is_some_and(|at| at.covers(number)));
        let stuck = hit && with.rng.happens(self.faults.stuck);
        let place = kind.segment().map_or(u64::MAX, |id| u64::from(id.0));
        with.history
            .note(with.now_ns, [number, place, detail[0], detail[1]], || {
                let place = kind.segment().map_or(String::new(), |id| format!(" {id}"));
                let end = if stuck { " (stuck)" } else { "" };
                format!(
                    "core {} op {number} {name}{place}{}{end}",
                    core.0,
                    kind.describe(detail)
                )
            });
        if stuck {
            with.history.stats.stuck += 1;
            return None;
        }
        Some((
            self.delay_ns(usual_ns, with.rng),
            Operation { number, kind, fails },
        ))
    }

    fn delay_ns(&self, usual_ns: RangeInclusive<u64>, rng: &mut Rng) -> u64 {
        let mut delay_ns = rng.between(*usual_ns.start(), *usual_ns.end()) * self.slowness;
        if rng.below(LATE_ONE_IN) == 0 {
            delay_ns *= rng.between(1, LATE_FACTOR);
        }
        if rng.happens(self.faults.slow) {
            delay_ns *= rng.between(1, SLOW_FACTOR);
        }
        delay_ns
    }

    /// Does what `operation` asks for, and answers.
    pub fn finish(&mut self, operation: Operation, with: &mut Surroundings<'_>) {
        let Operation { number, kind, fails } = operation;
        with.history
            .note(with.now_ns, [number, u64::from(fails), 0, 0], || {
                format!("op {number} {}", if fails { "fails" } else { "ends" })
            });
        match kind {
            Kind::Read {
                id,
                first_page,
                pages,
                sampled,
                answer,
            } => {
                answer.keep(match fails {
                    true => Err(fail(libc::EIO, &mut with.history.stats.read_errors)),
                    false => self.finish_read(id, first_page, pages, sampled, with),
                });
            }
            Kind::Write { id, answer } => answer.keep(self.finish_write(id, number, fails, with)),
            Kind::Sync { id, through, answer } => {
                let segment = self.segments.get_mut(&id).expect("segments stay");
                answer.keep(match fails {
                    true => {
                        segment.fail_sync(through, with.rng);
                        Err(fail(libc::EIO, &mut with.history.stats.sync_errors))
                    }
                    false => {
                        segment.sync(through);
                        Ok(())
                    }
                });
            }
            Kind::Allocate { id, answer } => answer.keep(self.finish_allocate(id, fails, with)),
            Kind::List { answer } => {
                let mut ids: Vec<SegmentId> = self.segments.keys().copied().collect();
                ids.retain(|&id| self.is_there(id));
                with.rng.shuffle(&mut ids);
                answer.keep(match fails {
                    true => Err(fail(libc::EIO, &mut with.history.stats.list_errors)),
                    false => Ok(ids),
                });
            }
        }
    }

    fn finish_read(
        &mut self,
        id: SegmentId,
        first_page: u32,
        pages: u32,
        sampled: Option<ReadBuf>,
        with: &mut Surroundings<'_>,
    ) -> io::Result<ReadBuf> {
        if !self.is_there(id) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let segment = self.segments.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        if with.rng.happens(self.faults.bit_rot) {
            let page = first_page + with.rng.below(u64::from(pages)) as u32;
            let byte = with.rng.index(DISK_ALIGN_BYTES);
            segment.damage(page, |bytes| bytes[byte] ^= 1 << with.rng.below(8));
            with.history.stats.bits_rotted += 1;
            return Ok(ReadBuf::at(segment, first_page, pages, with.rng));
        }
        Ok(sampled.unwrap_or_else(|| ReadBuf::at(segment, first_page, pages, with.rng)))
    }

    fn finish_write(
        &mut self,
        id: SegmentId,
        number: u64,
        fails: bool,
        with: &mut Surroundings<'_>,
    ) -> io::Result<()> {
        self.completions += 1;
        let at = self.completions;
        let segment = self.segments.get_mut(&id).expect("segments stay");
        let mut write = segment.end_write(number);
        if fails {
            segment.land_some(write, at, with.rng);
            return Err(fail(libc::EIO, &mut with.history.stats.write_errors));
        }
        if with.rng.happens(self.faults.lost_write) {
            with.history.stats.silent_writes += 1;
            return Ok(());
        }
        if with.rng.happens(self.faults.misdirected_write) {
            with.history.stats.silent_writes += 1;
            let pages = self.shape.segment_size_bytes / DISK_ALIGN_BYTES as u32;
            let room = u64::from(pages - write.pages_count()) + 1;
            write.first_page = with.rng.below(room) as u32;
            let elsewhere = with.rng.index(self.segments.len());
            self.segments
                .values_mut()
                .nth(elsewhere)
                .expect("an index below its length")
                .land(write, at);
            return Ok(());
        }
        segment.land(write, at);
        Ok(())
    }

    fn finish_allocate(&mut self, id: SegmentId, fails: bool, with: &mut Surroundings<'_>) -> io::Result<()> {
        let index = self
            .allocating
            .iter()
            .position(|under_way| *under_way == id)
            .expect("it is under way");
        self.allocating.swap_remove(index);
        let full = self
            .faults
            .segments_until_no_space
            .is_some_and(|max| self.segments.len() >= max as usize);
        if fails || (full && !self.segments.contains_key(&id)) {
            return Err(fail(libc::ENOSPC, &mut with.history.stats.allocate_errors));
        }
        self.create(id, with.rng);
        Ok(())
    }

    fn create(&mut self, id: SegmentId, rng: &mut Rng) {
        if self.segments.contains_key(&id) {
            return;
        }
        let fill = Fill {
            blob: self.blanks.zeros.clone(),
            rotation: 0,
        };
        let stale = match !self.segments.is_empty() && rng.happens(self.faults.stale_segment) {
            true => self.segments.values().nth(rng.index(self.segments.len())),
            false => None,
        };
        let segment = Segment::new(fill, stale);
        self.segments.insert(id, segment);
    }

    /// The power goes. The disk is empty afterwards: its content is in the image.
    pub fn lose_power(&mut self, image: &mut DiskImage, with: &mut Surroundings<'_>) {
        let Surroundings { now_ns, rng, history } = with;
        for (id, segment) in &mut self.segments {
            segment.lose_power(rng, |write, tear| {
                match tear {
                    Tear::Nothing => history.stats.writes_lost += 1,
                    Tear::Everything => history.stats.writes_kept += 1,
                    Tear::Before(_) | Tear::From(_) | Tear::Except(_) | Tear::Random => {
                        history.stats.writes_torn += 1;
                    }
                }
                let words = [write.id, u64::from(id.0), u64::from(write.first_page), 0];
                history.note(*now_ns, words, || {
                    format!("of op {} to {id} lands: {tear:?}", write.id)
                });
            });
        }
        self.hand_over(image, with.rng);
    }

    /// The process dies and the machine goes on. The disk is empty afterwards, as above.
    pub fn lose_process(&mut self, image: &mut DiskImage, rng: &mut Rng) {
        for segment in self.segments.values_mut() {
            self.completions = segment.lose_process(self.completions, rng);
        }
        self.hand_over(image, rng);
    }

    fn hand_over(&mut self, image: &mut DiskImage, rng: &mut Rng) {
        for id in std::mem::take(&mut self.allocating) {
            if rng.coin() {
                self.create(id, rng);
            }
        }
        image.segments = std::mem::take(&mut self.segments);
        image.completions = self.completions;
    }

    fn assert_is_within(&self, id: SegmentId) {
        assert!(
            id.volume() < self.volumes && id.place() < self.shape.segments_max,
            "segment {id} lies beyond the volumes"
        );
    }

    fn assert_may_write(&self, id: SegmentId) {
        assert!(self.missing.is_none(), "a write to {id}, and a volume is missing");
    }

    fn is_there(&self, id: SegmentId) -> bool {
        self.missing != Some(id.volume())
    }

    /// The first page and the number of pages; panics when the place is not the caller's to name.
    fn pages_of(&self, id: SegmentId, offset: u32, length: usize) -> (u32, u32) {
        let end = offset as usize + length;
        self.assert_is_within(id);
        assert!(length > 0, "an empty operation at {id}+{offset}");
        assert!(
            (offset as usize).is_multiple_of(DISK_ALIGN_BYTES) && length.is_multiple_of(DISK_ALIGN_BYTES),
            "not aligned: {length} bytes at {id}+{offset}"
        );
        assert!(
            end <= self.shape.segment_size_bytes as usize,
            "past the segment's end: {length} bytes at {id}+{offset}"
        );
        (
            offset / DISK_ALIGN_BYTES as u32,
            (length / DISK_ALIGN_BYTES) as u32,
        )
    }
}

fn fail(code: i32, count: &mut u64) -> io::Error {
    *count += 1;
    io::Error::from_raw_os_error(code)
}

impl Kind {
    fn segment(&self) -> Option<SegmentId> {
        match self {
            Kind::Read { id, .. } | Kind::Write { id, .. } => Some(*id),
            Kind::Sync { id, .. } | Kind::Allocate { id, .. } => Some(*id),
            Kind::List { .. } => None,
        }
    }

    fn describe(&self, detail: [u64; 2]) -> String {
        match self {
            Kind::Read { .. } => format!(" {} bytes at {}", detail[1], detail[0]),
            Kind::Write { .. } => {
                let pages = detail[1] & u64::from(u32::MAX);
                format!(" {pages} pages at {}, crc {:08x}", detail[0], detail[1] >> 32)
            }
            Kind::Sync { through, .. } => format!(" through completion {through}"),
            Kind::Allocate { .. } | Kind::List { .. } => String::new(),
        }
    }
}
