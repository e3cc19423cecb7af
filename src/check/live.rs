//! What is true is judged: whether each value can be read, its bucket exists, and its bytes lie where it says.
//!
//! The extents of everything live are gathered by segment; then no two may overlap, and each block is read and verified,
//! several segments at a time, in order of place. Bodies in records were verified when the logs were read.
//!
//! Invariant: what is live here is what a start serves. Parts and uploads whose upload or bucket is gone are not, and
//! nothing is said of their bytes.

use super::replay::{Latest, Replay};
use super::report::{Findings, Owner, Place, What};
use super::segment::{Buffer, Reading};
use super::volume::{Checked, Content};
use super::{Progress, in_parallel};
use crate::engine::{Bucket, BucketId, Extent, Layout, Object, Part, Upload};
use crate::index::PageAddress;
use crate::index::key::{self, Named};
use crate::io::SegmentId;
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::log::{ALIGN_BYTES, BlockSlice, block_range, body_crc32, verify_block};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of blocks that are read at a time.
const READ_BYTES: u32 = 4 << 20;
/// A gap between extents up to this is read over.
const GAP_BYTES: u32 = 64 << 10;

/// What is live, counted.
#[derive(Default)]
pub struct Live {
    pub buckets: u64,
    pub objects: u64,
    pub uploads: u64,
    pub parts: u64,
    pub extents: u64,
    pub blocks: u64,
    pub read_bytes: u64,
    /// What a start counts as live in each segment: bytes of objects and parts, and stretches of runs.
    pub bytes_by_segment: BTreeMap<SegmentId, u64>,
}

/// An extent of something live.
struct LiveExtent<'a> {
    extent: Extent,
    /// Bytes of the object before it.
    object_offset: u64,
    index_key: &'a [u8],
}

/// Names of buckets.
pub struct BucketNames(HashMap<BucketId, String>);

struct Judge<'a> {
    volume: &'a Checked,
    replay: &'a Replay,
    findings: &'a Findings,
    names: BucketNames,
    live: Live,
    by_segment: BTreeMap<SegmentId, Vec<LiveExtent<'a>>>,
    /// Objects of buckets that have no record.
    lost: BTreeMap<BucketId, u64>,
}

/// Judges all that the logs say, and reads all that it refers to.
pub fn verify(volume: &Checked, replay: &Replay, findings: &Findings) -> Live {
    let mut judge = Judge {
        volume,
        replay,
        findings,
        names: BucketNames::of(replay),
        live: Live::default(),
        by_segment: BTreeMap::new(),
        lost: BTreeMap::new(),
    };
    judge.take_runs();
    for (index_key, latest, value) in replay.values() {
        judge.judge(index_key, latest, value);
    }
    judge.tell_lost_buckets();
    judge.find_overlaps();
    judge.verify_extents();
    judge.live
}

impl BucketNames {
    pub fn of(replay: &Replay) -> BucketNames {
        let named = replay.values().filter_map(|(index_key, _, value)| {
            // Most keys are those of objects.
            if key::is_object(index_key) {
                return None;
            }
            match key::parse(index_key)? {
                Named::Bucket { name } => Some((Bucket::decode(value)?.id, text(&name))),
                Named::Object { .. } | Named::Upload { .. } | Named::Part { .. } => None,
            }
        });
        BucketNames(named.collect())
    }

    pub fn contains(&self, bucket: BucketId) -> bool {
        self.0.contains_key(&bucket)
    }

    /// The id of a bucket, by its name or by that which it has when its record is lost.
    pub fn id_of(&self, name: &str) -> Option<BucketId> {
        let known = self.0.iter().find(|(_, known)| *known == name);
        let lost = || {
            u64::from_str_radix(name.strip_prefix("lost-")?, 16)
                .ok()
                .map(BucketId)
        };
        known.map(|(&id, _)| id).or_else(lost)
    }

    /// What a key names, in words.
    pub fn owner(&self, index_key: &[u8]) -> Owner {
        let mut owner = Owner::default();
        let (bucket, key, upload, part) = match key::parse(index_key) {
            Some(Named::Object { bucket, key }) => (bucket, key, None, None),
            Some(Named::Upload { bucket, key, upload }) => (bucket, key, Some(upload), None),
            Some(Named::Part {
                bucket,
                key,
                upload,
                number,
            }) => (bucket, key, Some(upload), Some(number)),
            Some(Named::Bucket { name }) => {
                owner.bucket = text(&name);
                return owner;
            }
            None => return owner,
        };
        owner.bucket = match self.0.get(&bucket) {
            Some(name) => name.clone(),
            None => format!("lost-{:016x}", bucket.0),
        };
        owner.key = Some(text(&key));
        owner.upload = upload.map(|upload| upload.0.iter().map(|byte| format!("{byte:02x}")).collect());
        owner.part = part;
        owner
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl<'a> Judge<'a> {
    fn judge(&mut self, index_key: &'a [u8], latest: &'a Latest, value: &'a [u8]) {
        let Some(named) = key::parse(index_key) else {
            return;
        };
        let extents = match named {
            Named::Object { bucket, .. } => {
                self.live.objects += 1;
                if !self.names.contains(bucket) {
                    *self.lost.entry(bucket).or_default() += 1;
                }
                Object::decode(value)
                    .filter(|object| is_sum(&object.extents, object.size))
                    .map(|object| object.extents)
            }
            Named::Upload { bucket, .. } => {
                if !self.names.contains(bucket) {
                    return;
                }
                self.live.uploads += 1;
                Upload::decode(value).map(|_| Box::default())
            }
            Named::Part {
                bucket, key, upload, ..
            } => {
                let of = self.replay.get(&key::upload(bucket, &key, upload));
                if of.is_none_or(|of| of.value.is_none()) || !self.names.contains(bucket) {
                    return;
                }
                self.live.parts += 1;
                Part::decode(value)
                    .filter(|part| is_sum(&part.extents, part.size))
                    .map(|part| part.extents)
            }
            Named::Bucket { .. } => {
                self.live.buckets += 1;
                Bucket::decode(value).map(|_| Box::default())
            }
        };
        let Some(extents) = extents else {
            let owner = self.names.owner(index_key);
            let text = "a record holds a value that this release cannot read";
            self.findings.add_of(owner, What::Record, latest.record(), text);
            return;
        };
        let mut object_offset = 0;
        for extent in extents {
            self.take_extent(LiveExtent {
                extent,
                object_offset,
                index_key,
            });
            object_offset += u64::from(extent.length);
        }
    }

    /// Stretches of segments that runs keep: no two of them may overlap. Objects never lie beside them.
    fn take_runs(&mut self) {
        let manifests = self.volume.base.manifests.values();
        let runs = manifests.flat_map(|manifest| &manifest.runs);
        let mut extents: Vec<PageAddress> = runs.flat_map(|place| place.extents.iter().copied()).collect();
        extents.sort_unstable();
        let mut last: Option<PageAddress> = None;
        for extent in extents {
            let live_bytes = self.live.bytes_by_segment.entry(SegmentId(extent.segment));
            *live_bytes.or_default() += u64::from(extent.length);
            if last.is_some_and(|last| {
                last.segment == extent.segment && last.offset + last.length > extent.offset
            }) {
                let place = Place::new(SegmentId(extent.segment), extent.offset, extent.length);
                self.findings
                    .add(What::Overlap, place, "two runs of the index have the same bytes");
            }
            last = Some(extent);
        }
    }

    fn take_extent(&mut self, live: LiveExtent<'a>) {
        let extent = live.extent;
        self.live.extents += 1;
        *self.live.bytes_by_segment.entry(extent.segment).or_default() += u64::from(extent.disk_bytes());
        match self.refuse(&extent) {
            Some(why) => {
                let place = Place::new(extent.segment, extent.offset, extent.disk_bytes());
                let owner = self.names.owner(live.index_key);
                self.findings.add_of(owner, What::Extent, place, why);
            }
            None => self.by_segment.entry(extent.segment).or_default().push(live),
        }
    }

    /// Why an extent cannot lie where it says.
    fn refuse(&self, extent: &Extent) -> Option<String> {
        let size = u64::from(self.volume.segment_size_bytes);
        let is_aligned = extent.layout == Layout::Inline || extent.offset.is_multiple_of(ALIGN_BYTES);
        if !self.volume.may_have(extent.segment)
            || extent.offset < SEGMENT_HEADER_BYTES
            || u64::from(extent.offset) + u64::from(extent.disk_bytes()) > size
            || !is_aligned
        {
            return Some("an object lies where no extent can".to_owned());
        }
        let Some(segment) = self.volume.segments.get(&extent.segment) else {
            return Some("an object lies in a segment that is missing".to_owned());
        };
        match (segment.content, extent.layout) {
            (Content::Free, _) => Some("an object lies in a segment that is free".to_owned()),
            (Content::Log(_), Layout::Blocks) => Some("blocks of an object lie in a log".to_owned()),
            (Content::Index(_), _) => Some("an object lies in an index segment".to_owned()),
            (Content::Data(_), Layout::Inline) => Some("a record's body lies in a data segment".to_owned()),
            (Content::Log(_), Layout::Inline)
            | (Content::Data(_), Layout::Blocks)
            | (Content::Unknown, _) => None,
        }
    }

    fn tell_lost_buckets(&self) {
        for (bucket, objects) in &self.lost {
            let owner = Owner {
                bucket: format!("lost-{:016x}", bucket.0),
                ..Owner::default()
            };
            let text = format!("the record of a bucket is lost; {objects} objects are in it");
            self.findings.add_of(owner, What::Bucket, Place::Nowhere, text);
        }
    }

    fn find_overlaps(&mut self) {
        for (&segment, extents) in &mut self.by_segment {
            extents.sort_unstable_by_key(|live| (live.extent.offset, live.index_key));
            let mut end = 0;
            let mut last: Option<&LiveExtent<'_>> = None;
            for live in extents.iter() {
                let start = live.extent.offset;
                if start < end
                    && let Some(last) = last
                {
                    let other = self.names.owner(last.index_key);
                    let place = Place::new(segment, start, end.min(start + live.extent.disk_bytes()) - start);
                    let owner = self.names.owner(live.index_key);
                    let text = format!("two objects have the same bytes; the other is {other}");
                    self.findings.add_of(owner, What::Overlap, place, text);
                }
                if start + live.extent.disk_bytes() > end {
                    end = start + live.extent.disk_bytes();
                    last = Some(live);
                }
            }
        }
    }

    fn verify_extents(&mut self) {
        let blocks = AtomicU64::new(0);
        let read_bytes = AtomicU64::new(0);
        let segments: Vec<_> = self.by_segment.iter().collect();
        let is_blocks = |live: &&LiveExtent<'_>| live.extent.layout == Layout::Blocks;
        let on_disk = |live: &LiveExtent<'_>| u64::from(live.extent.disk_bytes());
        let all = segments.iter().flat_map(|(_, extents)| extents.iter());
        let progress = Progress::new("objects", all.filter(is_blocks).map(on_disk).sum());
        in_parallel(&segments, Buffer::default, |buffer, (segment, extents)| {
            let reader = ExtentReader {
                reading: self.volume.reading(**segment, self.findings),
                replay: self.replay,
                names: &self.names,
                findings: self.findings,
                blocks: &blocks,
                read_bytes: &read_bytes,
                progress: &progress,
            };
            reader.verify(extents, buffer);
        });
        self.live.blocks = blocks.into_inner();
        self.live.read_bytes = read_bytes.into_inner();
    }
}

/// Whether extents are as long together as what they make up.
fn is_sum(extents: &[Extent], size: u64) -> bool {
    extents.iter().map(|extent| u64::from(extent.length)).sum::<u64>() == size
}

/// Reads the live extents of one segment.
struct ExtentReader<'a> {
    reading: Reading<'a>,
    replay: &'a Replay,
    names: &'a BucketNames,
    findings: &'a Findings,
    blocks: &'a AtomicU64,
    read_bytes: &'a AtomicU64,
    progress: &'a Progress,
}

/// A block that is to be verified.
struct Block<'a> {
    /// In the segment.
    offset: u32,
    slice: BlockSlice,
    live: &'a LiveExtent<'a>,
}

impl Block<'_> {
    fn end(&self) -> u32 {
        self.offset + self.slice.disk_length as u32
    }
}

impl ExtentReader<'_> {
    /// `extents` are in order of their place.
    fn verify(&self, extents: &[LiveExtent<'_>], buffer: &mut Buffer) {
        let mut run: Vec<Block<'_>> = Vec::new();
        for live in extents {
            let extent = &live.extent;
            if extent.layout == Layout::Inline {
                self.verify_inline(live, buffer);
                continue;
            }
            let length = u64::from(extent.length);
            for slice in block_range(length, 0..length) {
                let block = Block {
                    offset: extent.offset + slice.disk_offset as u32,
                    slice,
                    live,
                };
                if let (Some(first), Some(last)) = (run.first(), run.last())
                    && (block.end() - first.offset > READ_BYTES || block.offset > last.end() + GAP_BYTES)
                {
                    self.verify_run(&run, buffer);
                    run.clear();
                }
                run.push(block);
            }
        }
        self.verify_run(&run, buffer);
    }

    /// Reads the blocks in one read, and verifies each.
    fn verify_run(&self, run: &[Block<'_>], buffer: &mut Buffer) {
        let Some(first) = run.first() else {
            return;
        };
        let end = run.iter().map(Block::end).max().unwrap_or(first.offset);
        let bytes = self.reading.read(first.offset, end - first.offset, buffer);
        self.count_read(bytes.len());
        self.blocks.fetch_add(run.len() as u64, Ordering::Relaxed);
        for block in run {
            let at = (block.offset - first.offset) as usize;
            let tag = block.live.extent.check;
            let verified = verify_block(&bytes[at..], block.slice.payload_length, tag, block.slice.index);
            if let Err(error) = verified {
                let length = block.slice.disk_length as u32;
                let from = block.live.object_offset + block_start(&block.slice);
                let to = from + block.slice.payload_length as u64;
                self.tell(
                    block.live,
                    What::Block,
                    block.offset,
                    length,
                    format!("{error}: bytes {from} to {to} of"),
                );
            }
        }
    }

    fn verify_inline(&self, live: &LiveExtent<'_>, buffer: &mut Buffer) {
        let extent = &live.extent;
        let (segment, offset, length) = (extent.segment, extent.offset, extent.length);
        if length == 0 || self.replay.has_body(segment, offset, length, extent.check) {
            return;
        }
        let from = offset - offset % ALIGN_BYTES;
        let end = (offset + length).next_multiple_of(ALIGN_BYTES);
        let bytes = self.reading.read(from, end - from, buffer);
        self.count_read(bytes.len());
        let body = &bytes[(offset - from) as usize..][..length as usize];
        if u64::from(body_crc32(body)) != extent.check {
            self.tell(
                live,
                What::Body,
                offset,
                length,
                "a small body is damaged:".to_owned(),
            );
        }
    }

    fn count_read(&self, bytes: usize) {
        self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.progress.add(bytes as u64);
    }

    fn tell(&self, live: &LiveExtent<'_>, what: What, offset: u32, length: u32, text: String) {
        let place = Place::new(live.extent.segment, offset, length);
        self.findings
            .add_of(self.names.owner(live.index_key), what, place, text);
    }
}

/// Body bytes of the extent before a block.
fn block_start(slice: &BlockSlice) -> u64 {
    u64::from(slice.index) * crate::limits::BLOCK_PAYLOAD_BYTES as u64
}
