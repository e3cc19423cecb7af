//! The segments of stopped volumes, and what each of them is: superblock, headers, watermarks.
//!
//! Invariant: a segment is judged by its own bytes. One whose header is lost stays in the list, because blocks in it can
//! still be verified by who refers to them.

use super::CheckError;
use super::report::{Findings, Place, What};
use super::segment::{Buffer, Reading};
use crate::index::{Base, INDEX_START, LogPosition, MANIFEST_BYTES, Manifest, ManifestCopy};
use crate::io::SegmentId;
use crate::io::uring::{StoppedSet, StoppedVolume};
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::log::{
    HeaderError, LOG_START, SegmentHeader, SegmentKind, VolumeId, WATERMARK_OFFSET, decode_watermark,
    is_of_an_empty_log,
};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a copy of the superblock, and of a copy of a segment's header.
const SUPERBLOCK_COPY_BYTES: u32 = 4096;
const HEADER_COPY_BYTES: u32 = SEGMENT_HEADER_BYTES / 2;
/// Bytes that a segment without a header is read in.
const BLANK_BYTES: u32 = 4 << 20;

const COPY_DAMAGED: &str = "a copy of a manifest is damaged; the other one is whole";

const COPY_TORN: &str =
    "a copy of a manifest is not whole: a crash tore its write, or it is damaged; the other one is whole";

/// A set of volumes that is being checked.
pub struct Checked {
    pub store: StoppedSet,
    pub volume_id: VolumeId,
    pub segment_size_bytes: u32,
    /// Of each volume.
    segments_max: Vec<u32>,
    pub boot_epoch: u32,
    pub segments: BTreeMap<SegmentId, Segment>,
    /// The latest manifest of each index segment.
    pub manifests: Vec<(SegmentId, Manifest)>,
    /// Those that a start goes by.
    pub base: Base,
}

/// A segment that is there.
#[derive(Clone, Copy)]
pub struct Segment {
    pub content: Content,
    /// Of a log.
    pub watermark: Option<u32>,
}

/// What a segment holds.
#[derive(Clone, Copy)]
pub enum Content {
    Log(SegmentHeader),
    Data(SegmentHeader),
    /// Runs of the index, and a manifest.
    Index(SegmentHeader),
    Free,
    /// Its header is lost.
    Unknown,
}

impl Checked {
    /// Looks at every segment's header.
    ///
    /// # Errors
    /// See [`CheckError`].
    pub fn open(store: StoppedSet, findings: &Findings) -> Result<Checked, CheckError> {
        let mut volume = Checked::from_superblocks(store, findings)?;
        volume.note_missing(findings);
        let mut buffer = Buffer::default();
        let ids: Vec<SegmentId> = volume.store.segments().collect();
        for id in ids {
            let segment = volume.survey(id, &mut buffer, findings)?;
            volume.segments.insert(id, segment);
        }
        volume.compare_generations(findings);
        volume.read_manifests(findings, &mut buffer);
        Ok(volume)
    }

    /// The logs: number, header, watermark.
    pub fn logs(&self) -> impl Iterator<Item = (SegmentId, SegmentHeader, Option<u32>)> {
        self.segments
            .iter()
            .filter_map(|(&id, segment)| match segment.content {
                Content::Log(header) => Some((id, header, segment.watermark)),
                Content::Data(_) | Content::Index(_) | Content::Free | Content::Unknown => None,
            })
    }

    /// The logs that are not in the runs, or not all of them.
    pub fn tails(&self) -> impl Iterator<Item = (SegmentId, SegmentHeader, Option<u32>, LogPosition)> {
        self.logs().filter_map(|(id, header, watermark)| {
            let from = self.base.tail_of(&header)?;
            Some((id, header, watermark, from))
        })
    }

    /// The index segments.
    pub fn indexes(&self) -> impl Iterator<Item = (SegmentId, SegmentHeader)> {
        self.segments
            .iter()
            .filter_map(|(&id, segment)| match segment.content {
                Content::Index(header) => Some((id, header)),
                Content::Log(_) | Content::Data(_) | Content::Free | Content::Unknown => None,
            })
    }

    pub fn data_segments(&self) -> usize {
        let is_data = |segment: &&Segment| matches!(segment.content, Content::Data(_));
        self.segments.values().filter(is_data).count()
    }

    pub fn free_segments(&self) -> usize {
        let is_free = |segment: &&Segment| matches!(segment.content, Content::Free);
        self.segments.values().filter(is_free).count()
    }

    /// Whether a volume may have such a segment.
    pub fn may_have(&self, id: SegmentId) -> bool {
        let segments_max = self.segments_max.get(id.volume());
        segments_max.is_some_and(|&segments_max| id.place() < segments_max)
    }

    fn from_superblocks(store: StoppedSet, findings: &Findings) -> Result<Checked, CheckError> {
        for volume in store.volumes() {
            let copies = volume.copies();
            for (copy, at) in copies.iter().zip(volume.copies_at()) {
                let place = Place::Superblock {
                    volume: volume.index(),
                    offset: at as u32,
                    length: SUPERBLOCK_COPY_BYTES,
                };
                match copies {
                    [None, None] => findings.add(
                        What::Superblock,
                        place,
                        "the superblock is damaged in both copies",
                    ),
                    _ if copy.is_none() => findings.add(
                        What::SuperblockCopy,
                        place,
                        "a copy of the superblock is damaged; the other one is whole",
                    ),
                    _ => {}
                }
            }
        }
        let stored = |volume: &StoppedVolume| volume.copies().into_iter().flatten().next();
        let Some(first) = store.volumes().iter().find_map(stored) else {
            return Checked::from_any_header(store);
        };
        let segments_max = store.volumes().iter().map(|volume| match stored(volume) {
            Some(stored) => stored.shape.segments_max,
            None => made(volume),
        });
        let started = store
            .volumes()
            .iter()
            .filter_map(stored)
            .map(|stored| stored.boot_epoch);
        Ok(Checked {
            volume_id: first.id,
            segment_size_bytes: first.shape.segment_size_bytes,
            segments_max: segments_max.collect(),
            boot_epoch: started.max().unwrap_or(0),
            segments: BTreeMap::new(),
            manifests: Vec::new(),
            base: Base::default(),
            store,
        })
    }

    /// Without a superblock, each segment's header says what volume this is.
    fn from_any_header(store: StoppedSet) -> Result<Checked, CheckError> {
        let mut buffer = Buffer::default();
        let unheard = Findings::default();
        let headers: Vec<SegmentHeader> = store
            .segments()
            .filter_map(|id| {
                let reading = Reading::open(&store, id, SEGMENT_HEADER_BYTES, &unheard);
                SegmentHeader::decode(reading.read(0, SEGMENT_HEADER_BYTES, &mut buffer)).ok()
            })
            .collect();
        let Some(first) = headers.first() else {
            let dir = store.volumes()[0].path().display().to_string();
            return Err(CheckError::NoShape { dir });
        };
        Ok(Checked {
            volume_id: first.volume_id,
            segment_size_bytes: first.segment_size_bytes,
            segments_max: store.volumes().iter().map(made).collect(),
            boot_epoch: headers.iter().map(|header| header.epoch).max().unwrap_or(0),
            segments: BTreeMap::new(),
            manifests: Vec::new(),
            base: Base::default(),
            store,
        })
    }

    /// Segments are made in order of their number, so one that is missing below another was there once.
    fn note_missing(&self, findings: &Findings) {
        for volume in self.store.volumes() {
            let there: BTreeSet<SegmentId> = volume.segments().iter().copied().collect();
            let known = volume.copies().into_iter().flatten().next();
            let made = made(volume).max(known.map_or(0, |known| known.segments_known));
            let all = (0..made).map(|place| SegmentId::new(volume.index(), place));
            for id in all.filter(|id| !there.contains(id)) {
                findings.add(
                    What::SegmentMissing,
                    Place::whole(id),
                    "the segment's file is missing",
                );
            }
        }
    }

    fn survey(&self, id: SegmentId, buffer: &mut Buffer, findings: &Findings) -> Result<Segment, CheckError> {
        let reading = self.reading(id, findings);
        if let Some(length) = reading.length_bytes()
            && length != u64::from(self.segment_size_bytes)
        {
            let text = format!(
                "the segment's file has {length} bytes, and should have {}",
                self.segment_size_bytes
            );
            findings.add(What::SegmentSize, Place::whole(id), text);
        }
        let front = reading.read(0, LOG_START, buffer).to_vec();
        let header = SegmentHeader::decode(&front).and_then(|header| {
            header.expect(&self.volume_id, self.segment_size_bytes, id.0)?;
            Ok(header)
        });
        let mut segment = Segment {
            content: Content::Unknown,
            watermark: None,
        };
        match header {
            Ok(header) => {
                note_copies(id, &front, findings);
                segment.content = match header.kind {
                    SegmentKind::Log => Content::Log(header),
                    SegmentKind::Data => Content::Data(header),
                    SegmentKind::Index => Content::Index(header),
                    SegmentKind::Free => Content::Free,
                };
                if header.kind == SegmentKind::Log {
                    segment.watermark = decode_watermark(&front[WATERMARK_OFFSET as usize..], &header);
                }
            }
            Err(HeaderError::NewerVersion(version)) => {
                let segment = id.to_string();
                return Err(CheckError::Newer { segment, version });
            }
            Err(HeaderError::NotWritten) if self.is_untouched(&reading, &front, buffer) => {
                segment.content = Content::Free;
            }
            Err(error) => {
                let place = Place::new(id, 0, SEGMENT_HEADER_BYTES);
                let error = match error {
                    HeaderError::NotWritten => HeaderError::Damaged,
                    error => error,
                };
                let text =
                    format!("{error}; if it was a log, what it said is lost; if it held a manifest, that is");
                findings.add(What::SegmentHeader, place, text);
            }
        }
        Ok(segment)
    }

    pub fn reading<'a>(&'a self, id: SegmentId, findings: &'a Findings) -> Reading<'a> {
        Reading::open(&self.store, id, self.segment_size_bytes, findings)
    }

    /// As recovery has it: all zeros, but for the watermark of a log that is still empty.
    fn is_untouched(&self, reading: &Reading<'_>, front: &[u8], buffer: &mut Buffer) -> bool {
        let is_zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
        let (header, watermark) = front.split_at(WATERMARK_OFFSET as usize);
        let is_blank = is_zero(watermark) || is_of_an_empty_log(watermark, &self.volume_id, reading.id.0);
        let mut rest = (LOG_START..self.segment_size_bytes).step_by(BLANK_BYTES as usize);
        is_zero(header) && is_blank && rest.all(|at| is_zero(reading.read(at, BLANK_BYTES, buffer)))
    }

    /// The front of an index segment, where manifests lie.
    pub fn front_of<'b>(&self, id: SegmentId, findings: &Findings, buffer: &'b mut Buffer) -> &'b [u8] {
        self.reading(id, findings).read(0, INDEX_START, buffer)
    }

    fn read_manifests(&mut self, findings: &Findings, buffer: &mut Buffer) {
        let indexes: Vec<(SegmentId, SegmentHeader)> = self.indexes().collect();
        for (id, header) in &indexes {
            let manifest = Manifest::latest(self.front_of(*id, findings, buffer), header);
            self.manifests.extend(manifest.map(|manifest| (*id, manifest)));
        }
        self.base = Base::of(self.manifests.iter().map(|(id, manifest)| (id.0, manifest)));
        for (id, header) in &indexes {
            self.judge_manifests(*id, header, findings, buffer);
        }
        for core in self.base.missing() {
            let text = format!("the manifest of core {core} is lost, and with it what its runs held");
            findings.add(What::Manifest, Place::Nowhere, text);
        }
        for manifest in self.base.manifests.values() {
            let covered = manifest.covered;
            let is_it =
                |(_, log, _): &(SegmentId, SegmentHeader, Option<u32>)| log.generation == covered.generation;
            if covered.batch > 0 && !self.logs().any(|log| is_it(&log)) {
                let text = format!(
                    "the log of generation {} is lost, in which core {} goes on behind its runs; or its latest manifest is",
                    covered.generation, manifest.core
                );
                findings.add(What::Manifest, Place::Nowhere, text);
            }
        }
    }

    /// Whether what a start goes by lies in that index segment. Others may be about to be used again.
    pub fn is_in_use(&self, id: SegmentId) -> bool {
        let latest = self.base.manifests.values();
        let mut runs = latest.clone().flat_map(|manifest| &manifest.runs);
        let holds = |(segment, manifest): &(SegmentId, Manifest)| {
            *segment == id && latest.clone().any(|latest| latest == manifest)
        };
        self.manifests.iter().any(holds)
            || runs.any(|place| place.extents.iter().any(|extent| extent.segment == id.0))
    }

    fn judge_manifests(
        &self,
        id: SegmentId,
        header: &SegmentHeader,
        findings: &Findings,
        buffer: &mut Buffer,
    ) {
        let front = self.front_of(id, findings, buffer);
        let newest = Manifest::latest(front, header).map_or(0, |latest| latest.number);
        let is_lost = Manifest::slots_lost(front, header) > 0;
        if !is_lost && !self.is_in_use(id) {
            return;
        }
        for slot in Manifest::slots(front, header) {
            let [(first, _), (second, _)] = slot;
            let place = |offset| Place::new(id, offset, MANIFEST_BYTES);
            match slot.map(|(_, copy)| copy) {
                [ManifestCopy::Whole(one), ManifestCopy::Whole(two)] if one == two => {}
                [ManifestCopy::Blank, ManifestCopy::Blank] => {}
                [ManifestCopy::Damaged, ManifestCopy::Damaged] => {
                    for offset in [first, second] {
                        findings.add(
                            What::Manifest,
                            place(offset),
                            "a manifest is damaged in both copies",
                        );
                    }
                }
                // They are written one after the other: a crash may come between, or tear one.
                [ManifestCopy::Whole(one), _] if one.number == newest => {
                    findings.note(What::ManifestCopy, place(second), COPY_TORN)
                }
                [ManifestCopy::Damaged, two]
                    if match &two {
                        ManifestCopy::Whole(two) => two.number + 1 == newest,
                        ManifestCopy::Blank => true,
                        ManifestCopy::Damaged => false,
                    } =>
                {
                    findings.note(What::ManifestCopy, place(first), COPY_TORN);
                }
                [ManifestCopy::Damaged | ManifestCopy::Blank, _] => {
                    findings.add(What::ManifestCopy, place(first), COPY_DAMAGED)
                }
                [ManifestCopy::Whole(_), _] => findings.add(What::ManifestCopy, place(second), COPY_DAMAGED),
            }
        }
    }

    fn compare_generations(&self, findings: &Findings) {
        let mut seen: BTreeMap<u64, SegmentId> = BTreeMap::new();
        for (&id, segment) in &self.segments {
            let (Content::Log(header) | Content::Data(header) | Content::Index(header)) = segment.content
            else {
                continue;
            };
            if let Some(other) = seen.insert(header.generation, id) {
                let text = format!("generation {} is also that of segment {other}", header.generation);
                findings.add(What::Generation, Place::new(id, 0, SEGMENT_HEADER_BYTES), text);
            }
        }
    }
}

/// Segments of a volume up to the last that is there.
fn made(volume: &StoppedVolume) -> u32 {
    volume.segments().last().map_or(0, |last| last.place() + 1)
}

fn note_copies(id: SegmentId, front: &[u8], findings: &Findings) {
    for (number, copy) in SegmentHeader::decode_copies(front).iter().enumerate() {
        if copy.is_err() {
            let place = Place::new(id, number as u32 * HEADER_COPY_BYTES, HEADER_COPY_BYTES);
            let text = "a copy of the segment's header is damaged; the other one is whole";
            findings.add(What::SegmentHeaderCopy, place, text);
        }
    }
}
