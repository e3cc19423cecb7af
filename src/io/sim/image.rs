//! What is left of a world when the power goes or its process dies: the disk, between two boots.
//!
//! A copy is cheap (pages are shared), so one image can be restarted many times, under many seeds.
//! It can be damaged on purpose, to see that nothing wrong is served afterwards.
//!
//! Invariant: an image alone decides, with a seed and options, everything that its next boot does.

use super::history::{History, Stats};
use super::rng::Rng;
use super::segment::Segment;
use crate::io::{DISK_ALIGN_BYTES, SegmentId, VolumeShape};
use std::collections::BTreeMap;
use std::rc::Rc;

#[derive(Clone)]
pub struct DiskImage {
    pub(super) shape: VolumeShape,
    pub(super) volumes: usize,
    pub(super) boot_epoch: u32,
    pub(super) unix_ms: u64,
    pub(super) completions: u64,
    pub(super) segments: BTreeMap<SegmentId, Segment>,
    pub(super) blanks: Blanks,
    pub(super) history: History,
}

/// What segments that were just allocated are filled with.
#[derive(Clone)]
pub(super) struct Blanks {
    pub zeros: Rc<Vec<u8>>,
}

impl DiskImage {
    /// Empty volumes, never booted.
    pub(super) fn empty(shape: VolumeShape, volumes: usize, unix_ms: u64, blanks: Blanks) -> DiskImage {
        DiskImage {
            shape,
            volumes,
            boot_epoch: 0,
            unix_ms,
            completions: 0,
            segments: BTreeMap::new(),
            blanks,
            history: History::default(),
        }
    }

    pub fn shape(&self) -> VolumeShape {
        self.shape
    }

    /// The epoch of the boot that ended with this image.
    pub fn boot_epoch(&self) -> u32 {
        self.boot_epoch
    }

    pub fn stats(&self) -> Stats {
        self.history.stats
    }

    /// Equal for two histories that did the same at the same times with the same bytes.
    pub fn fingerprint(&self) -> u64 {
        self.history.fingerprint()
    }

    /// The last events as text, the oldest first.
    pub fn trace(&self) -> impl Iterator<Item = &str> {
        self.history.lines()
    }

    /// The segments that exist, ascending.
    pub fn segments(&self) -> impl Iterator<Item = SegmentId> {
        self.segments.keys().copied()
    }

    /// `length` bytes at `offset` of a segment, neither aligned. `None` if it does not exist or end there.
    pub fn read(&self, id: SegmentId, offset: u32, length: u32) -> Option<Vec<u8>> {
        let end = self.end(offset, length as usize)?;
        let segment = self.segments.get(&id)?;
        let page_bytes = DISK_ALIGN_BYTES as u32;
        let first_page = offset / page_bytes;
        let pages = (end as u32).div_ceil(page_bytes) - first_page;
        if pages == 0 {
            return Some(Vec::new());
        }
        let (blob, start) = segment.read(first_page, pages, &mut Rng::new(0));
        let within = start + (offset % page_bytes) as usize;
        Some(blob[within..within + length as usize].to_vec())
    }

    /// Flips bit `bit` (0 to 7) of the byte at `offset`. Panics for a place that does not exist.
    pub fn flip_bit(&mut self, id: SegmentId, offset: u32, bit: u32) {
        assert!(bit < 8, "a byte has no bit {bit}");
        let byte = self.read(id, offset, 1).expect("a place that exists")[0];
        self.overwrite(id, offset, &[byte ^ (1 << bit)]);
    }

    /// Puts `bytes` at `offset`, not necessarily aligned. Panics for a place that does not exist.
    pub fn overwrite(&mut self, id: SegmentId, offset: u32, bytes: &[u8]) {
        self.end(offset, bytes.len()).expect("a place within the segment");
        let segment = self.segments.get_mut(&id).expect("a segment that exists");
        let (mut at, mut rest) = (offset as usize, bytes);
        while !rest.is_empty() {
            let within = at % DISK_ALIGN_BYTES;
            let (now, later) = rest.split_at(rest.len().min(DISK_ALIGN_BYTES - within));
            segment.damage((at / DISK_ALIGN_BYTES) as u32, |page| {
                page[within..within + now.len()].copy_from_slice(now);
            });
            (at, rest) = (at + now.len(), later);
        }
    }

    /// The segment is gone, as a file that somebody deleted. Says whether there was one.
    pub fn remove_segment(&mut self, id: SegmentId) -> bool {
        self.segments.remove(&id).is_some()
    }

    fn end(&self, offset: u32, length: usize) -> Option<usize> {
        let end = (offset as usize).checked_add(length)?;
        (end <= self.shape.segment_size_bytes as usize).then_some(end)
    }
}

impl Blanks {
    pub fn new() -> Blanks {
        Blanks {
            zeros: Rc::new(vec![0; DISK_ALIGN_BYTES]),
        }
    }
}
