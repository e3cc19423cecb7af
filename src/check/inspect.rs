//! One part of a set of volumes in words: its segments, one of them, one record, or all that logs and runs say of a key.
//!
//! Invariant: what is shown is what the bytes say, void and damaged batches included, each told as such; nothing of the
//! volume's id is shown.

use super::live::BucketNames;
use super::replay::Replay;
use super::report::{Findings, Owner, Size};
use super::runs;
use super::segment::{Buffer, LogToRead, WINDOW_BYTES};
use super::volume::{Checked, Content};
use super::{CheckError, in_parallel};
use crate::engine::{Bucket, Extent, Layout, Object, Part, Upload};
use crate::index::key::{self, Named};
use crate::index::{LogPosition, Manifest, ManifestCopy, Page, PageAddress, RunPlace};
use crate::io::SegmentId;
use crate::io::uring::StoppedSet;
use crate::log::{
    BatchRef, Change, LOG_START, LogEnd, RecordKind, RecordRef, ScanStep, SegmentHeader, blocks_for,
};
use serde::Serialize;
use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Mutex;

/// Bits of a sequence that count within a start; the start has the rest.
const SEQUENCE_COUNTER_BITS: u32 = 40;

/// What is to be shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// All segments, a line each.
    Volume,
    Segment(SegmentId),
    /// The record that lies at that offset, or around it.
    Record(SegmentId, u32),
    /// An object, and the uploads to its key.
    Key {
        bucket: String,
        key: Vec<u8>,
    },
}

/// What is shown, as text or as JSON.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Shown {
    Volume {
        starts: u32,
        segment_size_bytes: u32,
        segments: Vec<ShownSegment>,
    },
    Segment {
        #[serde(flatten)]
        segment: ShownSegment,
        batches: Vec<ShownBatch>,
        /// Of an index segment: what lies where manifests may, and the pages of the runs that a start goes by.
        manifests: Vec<ShownManifest>,
        pages: Vec<ShownPage>,
        /// What lies between whole batches, and how the log ends.
        notes: Vec<String>,
    },
    Key {
        bucket: String,
        key: String,
        /// The sequence of the record that counts; of an object that is deleted, that of its delete.
        current: Option<Sequence>,
        /// What the runs of the index say of it.
        entries: Vec<ShownEntry>,
        records: Vec<ShownRecord>,
    },
    Record(Box<ShownRecord>),
}

#[derive(Serialize)]
pub struct ShownSegment {
    segment: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    core: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    watermark: Option<u32>,
}

/// A copy of a manifest.
#[derive(Serialize)]
pub struct ShownManifest {
    offset: u32,
    damaged: bool,
    /// A start goes by it.
    counts: bool,
    #[serde(flatten)]
    manifest: Option<ShownRuns>,
}

/// What a manifest says.
#[derive(Serialize)]
pub struct ShownRuns {
    length: usize,
    start: u32,
    core: u16,
    cores: u16,
    number: u64,
    confirmed: bool,
    covered: ShownPosition,
    runs: Vec<ShownRun>,
}

#[derive(Serialize)]
pub struct ShownPosition {
    generation: u64,
    offset: u32,
    batch: u32,
}

#[derive(Serialize)]
pub struct ShownRun {
    tag: String,
    root: ShownStretch,
    entries: u64,
    tombstones: u64,
    bytes: u64,
    extents: Vec<ShownStretch>,
}

/// A page, or several that lie one behind the other.
#[derive(Serialize)]
pub struct ShownStretch {
    segment: String,
    offset: u32,
    length: u32,
}

#[derive(Serialize)]
pub struct ShownPage {
    #[serde(flatten)]
    place: ShownStretch,
    level: u8,
    /// Of a leaf.
    entries: Vec<ShownEntry>,
    /// Of an inner page.
    children: Vec<ShownStretch>,
}

/// What a run says of a key.
#[derive(Serialize)]
pub struct ShownEntry {
    /// The page that it is in.
    page: ShownStretch,
    sequence: Sequence,
    #[serde(flatten)]
    change: ShownChange,
}

#[derive(Serialize)]
pub struct ShownBatch {
    offset: u32,
    length: u32,
    number: u32,
    seal: bool,
    damaged: bool,
    records: Vec<ShownRecord>,
}

#[derive(Serialize)]
pub struct ShownRecord {
    segment: String,
    offset: u32,
    length: u32,
    generation: u64,
    sequence: Sequence,
    #[serde(skip_serializing_if = "Option::is_none")]
    poison: Option<String>,
    changes: Vec<ShownChange>,
    body_length: u32,
}

#[derive(Serialize)]
pub struct ShownChange {
    operation: &'static str,
    #[serde(flatten)]
    names: Owner,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<ShownValue>,
}

#[derive(Serialize, Default)]
pub struct ShownValue {
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modified_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    attributes_bytes: usize,
    extents: Vec<ShownExtent>,
    /// Of a bucket.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    configuration: Vec<ShownConfiguration>,
    /// The value is not one of this release.
    unreadable: bool,
}

/// What is set of a bucket.
#[derive(Serialize)]
pub struct ShownConfiguration {
    kind: u8,
    bytes: usize,
}

#[derive(Serialize)]
pub struct ShownExtent {
    layout: &'static str,
    segment: String,
    offset: u32,
    length: u32,
    disk_length: u32,
    blocks: u32,
    /// CRC-32 of a body in a record, or the tag of blocks, in hexadecimal.
    check: String,
}

/// The start, and the number of the change in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Sequence(u64);

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counter = self.0 & ((1 << SEQUENCE_COUNTER_BITS) - 1);
        write!(f, "{}.{counter}", self.0 >> SEQUENCE_COUNTER_BITS)
    }
}

impl Serialize for Sequence {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads what `target` names of the set that the volumes at `paths` are.
///
/// # Errors
/// See [`CheckError`].
pub fn inspect(paths: &[PathBuf], target: &Target) -> Result<Shown, CheckError> {
    let findings = Findings::default();
    let mut sets = StoppedSet::open(paths)?;
    let set = sets
        .pop()
        .filter(|_| sets.is_empty())
        .ok_or(CheckError::SeveralSets)?;
    let volume = Checked::open(set, &findings)?;
    let viewer = |names| Viewer {
        volume: &volume,
        names,
        findings: &findings,
    };
    match target {
        Target::Volume => Ok(Shown::Volume {
            starts: volume.boot_epoch,
            segment_size_bytes: volume.segment_size_bytes,
            segments: volume.segments.keys().map(|&id| shown(&volume, id)).collect(),
        }),
        Target::Segment(id) => {
            let replay = Replay::of(&volume, &findings)?;
            viewer(BucketNames::of(&replay)).segment(*id)
        }
        Target::Record(id, offset) => {
            let replay = Replay::of(&volume, &findings)?;
            viewer(BucketNames::of(&replay)).record(*id, *offset)
        }
        Target::Key { bucket, key } => {
            let replay = Replay::of(&volume, &findings)?;
            viewer(BucketNames::of(&replay)).key(&replay, bucket, key)
        }
    }
}

fn shown(volume: &Checked, id: SegmentId) -> ShownSegment {
    let segment = &volume.segments[&id];
    let (kind, header) = match segment.content {
        Content::Log(header) => ("log", Some(header)),
        Content::Data(header) => ("data", Some(header)),
        Content::Index(header) => ("index", Some(header)),
        Content::Free => ("free", None),
        Content::Unknown => ("damaged", None),
    };
    ShownSegment {
        segment: id.to_string(),
        kind,
        generation: header.map(|header| header.generation),
        start: header.map(|header| header.epoch),
        core: header.map(|header| header.core),
        watermark: segment.watermark,
    }
}

struct Viewer<'a> {
    volume: &'a Checked,
    names: BucketNames,
    findings: &'a Findings,
}

impl Viewer<'_> {
    fn segment(&self, id: SegmentId) -> Result<Shown, CheckError> {
        let segment = self.there(id)?;
        let mut batches = Vec::new();
        let mut notes = Vec::new();
        if let Content::Log(header) = segment.content {
            self.for_each_step(id, &header, |step| {
                match step {
                    ScanStep::Batch(batch) => batches.push(self.batch(&header, &batch, false)),
                    ScanStep::Salvaged(batch) => batches.push(self.batch(&header, &batch, true)),
                    ScanStep::Damaged {
                        from,
                        to,
                        batches_lost,
                    } => notes.push(format!(
                        "damaged from {from} to {to}: at least {batches_lost} batches are not whole"
                    )),
                    ScanStep::End { tail, end, .. } => notes.push(format!(
                        "ends at {tail}, {}",
                        match end {
                            LogEnd::Sealed => "sealed",
                            LogEnd::Open => "without a seal",
                            LogEnd::Torn => "with a batch that is not whole",
                        }
                    )),
                    ScanStep::NeedMore { .. } => {}
                }
                ControlFlow::Continue(())
            });
        }
        let (mut manifests, mut pages) = (Vec::new(), Vec::new());
        if let Content::Index(header) = segment.content {
            manifests = self.manifests(id, &header);
            pages = self.pages(|address| address.segment == id.0);
        }
        Ok(Shown::Segment {
            segment: shown(self.volume, id),
            batches,
            manifests,
            pages,
            notes,
        })
    }

    fn manifests(&self, id: SegmentId, header: &SegmentHeader) -> Vec<ShownManifest> {
        let mut buffer = Buffer::default();
        let front = self.volume.front_of(id, self.findings, &mut buffer);
        let counts = |manifest: &Manifest| self.volume.base.manifests.get(&manifest.core) == Some(manifest);
        let copies = Manifest::slots(front, header).into_iter().flatten();
        let shown = copies.filter_map(|(offset, copy)| match copy {
            ManifestCopy::Blank => None,
            ManifestCopy::Damaged => Some(ShownManifest {
                offset,
                damaged: true,
                counts: false,
                manifest: None,
            }),
            ManifestCopy::Whole(manifest) => Some(ShownManifest {
                offset,
                damaged: false,
                counts: counts(&manifest),
                manifest: Some(ShownRuns::new(&manifest, header)),
            }),
        });
        shown.collect()
    }

    /// Pages of the runs that a start goes by, those in wanted places, in order.
    fn pages(&self, is_wanted: impl Fn(&PageAddress) -> bool + Sync) -> Vec<ShownPage> {
        let pages = Mutex::new(Vec::new());
        runs::read(self.volume, self.findings, |_, page| {
            if is_wanted(&page.address()) {
                let shown = self.page(page, |_| true);
                pages.lock().expect("no thread panics").push(shown);
            }
        });
        let mut pages = pages.into_inner().expect("no thread panics");
        pages.sort_by_key(|page| page.place.offset);
        pages
    }

    /// A page, with those of its entries whose key is wanted.
    fn page(&self, page: &Page, is_wanted: impl Fn(&[u8]) -> bool) -> ShownPage {
        let place = ShownStretch::from(&page.address());
        let mut entries = Vec::new();
        page.for_each_item(|key, sequence, value| {
            if is_wanted(key) {
                let change = match value {
                    Some(value) => Change::Put { key, value },
                    None => Change::Delete { key },
                };
                entries.push(ShownEntry {
                    page: ShownStretch::from(&page.address()),
                    sequence: Sequence(sequence),
                    change: self.shown_change(change),
                });
            }
        });
        ShownPage {
            place,
            level: page.level(),
            entries,
            children: page.children().iter().map(ShownStretch::from).collect(),
        }
    }

    fn record(&self, id: SegmentId, offset: u32) -> Result<Shown, CheckError> {
        let segment = self.there(id)?;
        let mut found = None;
        if let Content::Log(header) = segment.content {
            self.for_each_step(id, &header, |step| {
                let (ScanStep::Batch(batch) | ScanStep::Salvaged(batch)) = step else {
                    return ControlFlow::Continue(());
                };
                let holds = |record: &RecordRef<'_>| {
                    let start = record.offset_in_segment();
                    (start..start + record.length_bytes()).contains(&offset)
                };
                match batch.records().find(holds) {
                    Some(record) => {
                        found = Some(self.shown_record(&header, &record, |_| true));
                        ControlFlow::Break(())
                    }
                    None => ControlFlow::Continue(()),
                }
            });
        }
        match found {
            Some(record) => Ok(Shown::Record(Box::new(record))),
            None => Err(CheckError::NotThere {
                what: format!("record at {offset} of segment {id}"),
            }),
        }
    }

    fn key(&self, replay: &Replay, bucket: &str, key: &[u8]) -> Result<Shown, CheckError> {
        let Some(id) = self.names.id_of(bucket) else {
            let what = format!("bucket {bucket}");
            return Err(CheckError::NotThere { what });
        };
        let object = key::object(id, key);
        let uploads = key::upload(id, key, crate::engine::UploadId([0; 16]));
        let uploads = &uploads[..uploads.len() - 16];
        let is_of_key = |named: &[u8]| named == object || named.starts_with(uploads);
        let records = Mutex::new(Vec::new());
        let logs: Vec<_> = self.volume.logs().collect();
        in_parallel(
            &logs,
            || (),
            |(), (log, header, _)| {
                self.for_each_step(*log, header, |step| {
                    if let ScanStep::Batch(batch) | ScanStep::Salvaged(batch) = step {
                        let names_key =
                            |record: &RecordRef<'_>| record.changes().any(|change| is_of_key(change.key()));
                        let of_key = batch.records().filter(names_key);
                        let shown = of_key.map(|record| self.shown_record(header, &record, is_of_key));
                        records.lock().expect("no thread panics").extend(shown);
                    }
                    ControlFlow::Continue(())
                });
            },
        );
        let mut records = records.into_inner().expect("no thread panics");
        records.sort_by_key(|record| (record.sequence, record.generation, record.offset));
        let current = replay.get(&object).map(|latest| Sequence(latest.sequence));
        let entries = Mutex::new(Vec::new());
        runs::read(self.volume, self.findings, |_, page| {
            let found = self.page(page, is_of_key).entries;
            entries.lock().expect("no thread panics").extend(found);
        });
        let mut entries = entries.into_inner().expect("no thread panics");
        entries.sort_by_key(|entry| (entry.sequence, entry.page.offset));
        if records.is_empty() && entries.is_empty() {
            let key = String::from_utf8_lossy(key);
            let what = format!("record of {bucket}/{key}");
            return Err(CheckError::NotThere { what });
        }
        Ok(Shown::Key {
            bucket: bucket.to_owned(),
            key: String::from_utf8_lossy(key).into_owned(),
            current,
            entries,
            records,
        })
    }

    fn there(&self, id: SegmentId) -> Result<&super::volume::Segment, CheckError> {
        let segment = self.volume.segments.get(&id);
        segment.ok_or_else(|| CheckError::NotThere {
            what: format!("segment {id}"),
        })
    }

    fn for_each_step(
        &self,
        id: SegmentId,
        header: &SegmentHeader,
        take: impl FnMut(ScanStep<'_>) -> ControlFlow<()>,
    ) {
        let log = LogToRead {
            header,
            watermark: self.volume.segments[&id].watermark,
            from: LogPosition {
                generation: header.generation,
                offset: LOG_START,
                batch: 0,
            },
            window_bytes: WINDOW_BYTES,
        };
        let reading = self.volume.reading(id, self.findings);
        reading.for_each_step(&log, &mut Buffer::default(), |_| {}, take);
    }

    fn batch(&self, header: &SegmentHeader, batch: &BatchRef<'_>, damaged: bool) -> ShownBatch {
        ShownBatch {
            offset: batch.offset_in_segment(),
            length: batch.disk_length_bytes(),
            number: batch.number(),
            seal: batch.is_seal(),
            damaged,
            records: batch
                .records()
                .map(|record| self.shown_record(header, &record, |_| true))
                .collect(),
        }
    }

    /// A record, with those of its changes whose key is wanted.
    fn shown_record(
        &self,
        header: &SegmentHeader,
        record: &RecordRef<'_>,
        is_wanted: impl Fn(&[u8]) -> bool,
    ) -> ShownRecord {
        let poison = match record.kind() {
            RecordKind::Poison(poison) => Some(format!(
                "segment {} of generation {} is void from {} on",
                SegmentId(poison.segment),
                poison.generation,
                poison.offset
            )),
            RecordKind::Commit => None,
        };
        let changes = record.changes().filter(|change| is_wanted(change.key()));
        ShownRecord {
            segment: SegmentId(header.segment).to_string(),
            offset: record.offset_in_segment(),
            length: record.length_bytes(),
            generation: header.generation,
            sequence: Sequence(record.sequence()),
            poison,
            changes: changes.map(|change| self.shown_change(change)).collect(),
            body_length: record.body().len() as u32,
        }
    }

    fn shown_change(&self, change: Change<'_>) -> ShownChange {
        ShownChange {
            operation: match change {
                Change::Put { .. } => "put",
                Change::Delete { .. } => "delete",
            },
            names: self.names.owner(change.key()),
            value: match change {
                Change::Put { key, value } => Some(shown_value(key, value)),
                Change::Delete { .. } => None,
            },
        }
    }
}

fn shown_value(index_key: &[u8], value: &[u8]) -> ShownValue {
    let unreadable = ShownValue {
        unreadable: true,
        ..ShownValue::default()
    };
    let decoded = match key::parse(index_key) {
        Some(Named::Object { .. }) => Object::decode(value).map(|object| ShownValue {
            size: Some(object.size),
            modified_ms: Some(object.modified_ms),
            etag: Some(object.etag.to_string()),
            attributes_bytes: object.attributes.len(),
            extents: object.extents.iter().map(ShownExtent::from).collect(),
            ..ShownValue::default()
        }),
        Some(Named::Part { .. }) => Part::decode(value).map(|part| ShownValue {
            size: Some(part.size),
            modified_ms: Some(part.modified_ms),
            etag: Some(part.md5.iter().map(|byte| format!("{byte:02x}")).collect()),
            attributes_bytes: part.attributes.len(),
            extents: part.extents.iter().map(ShownExtent::from).collect(),
            ..ShownValue::default()
        }),
        Some(Named::Upload { .. }) => Upload::decode(value).map(|upload| ShownValue {
            modified_ms: Some(upload.initiated_ms),
            attributes_bytes: upload.attributes.len(),
            ..ShownValue::default()
        }),
        Some(Named::Bucket { .. }) => Bucket::decode(value).map(|bucket| ShownValue {
            modified_ms: Some(bucket.created_ms),
            configuration: bucket
                .configuration
                .iter()
                .map(|(kind, bytes)| ShownConfiguration {
                    kind,
                    bytes: bytes.len(),
                })
                .collect(),
            ..ShownValue::default()
        }),
        None => None,
    };
    decoded.unwrap_or(unreadable)
}

impl ShownRuns {
    fn new(manifest: &Manifest, header: &SegmentHeader) -> ShownRuns {
        ShownRuns {
            length: manifest.encode(header).map_or(0, |bytes| bytes.len()),
            start: manifest.epoch,
            core: manifest.core,
            cores: manifest.cores,
            number: manifest.number,
            confirmed: manifest.is_confirmed,
            covered: ShownPosition {
                generation: manifest.covered.generation,
                offset: manifest.covered.offset,
                batch: manifest.covered.batch,
            },
            runs: manifest.runs.iter().map(ShownRun::from).collect(),
        }
    }
}

impl From<&RunPlace> for ShownRun {
    fn from(place: &RunPlace) -> ShownRun {
        ShownRun {
            tag: format!("{:016x}", place.run.tag),
            root: ShownStretch::from(&place.run.root),
            entries: place.run.entries,
            tombstones: place.run.tombstones,
            bytes: place.run.bytes,
            extents: place.extents.iter().map(ShownStretch::from).collect(),
        }
    }
}

impl From<&PageAddress> for ShownStretch {
    fn from(address: &PageAddress) -> ShownStretch {
        ShownStretch {
            segment: SegmentId(address.segment).to_string(),
            offset: address.offset,
            length: address.length,
        }
    }
}

impl From<&Extent> for ShownExtent {
    fn from(extent: &Extent) -> ShownExtent {
        let (layout, blocks, check) = match extent.layout {
            Layout::Inline => ("record", 0, format!("{:08x}", extent.check)),
            Layout::Blocks => (
                "blocks",
                blocks_for(u64::from(extent.length)),
                format!("{:016x}", extent.check),
            ),
        };
        ShownExtent {
            layout,
            segment: extent.segment.to_string(),
            offset: extent.offset,
            length: extent.length,
            disk_length: extent.disk_bytes(),
            blocks,
            check,
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shown::Volume {
                starts,
                segment_size_bytes,
                segments,
            } => {
                let (count, size) = (segments.len(), Size(u64::from(*segment_size_bytes)));
                writeln!(f, "{count} segments of {size}, started {starts} times")?;
                segments.iter().try_for_each(|segment| writeln!(f, "{segment}"))
            }
            Shown::Segment {
                segment,
                batches,
                manifests,
                pages,
                notes,
            } => {
                writeln!(f, "{segment}")?;
                manifests
                    .iter()
                    .try_for_each(|manifest| write!(f, "{manifest}"))?;
                pages.iter().try_for_each(|page| write!(f, "{page}"))?;
                for batch in batches {
                    write!(
                        f,
                        "  batch {} at {}, {} bytes",
                        batch.number, batch.offset, batch.length
                    )?;
                    let marks = [(batch.seal, ", seal"), (batch.damaged, ", DAMAGED")];
                    for (_, mark) in marks.iter().filter(|(is_so, _)| *is_so) {
                        f.write_str(mark)?;
                    }
                    writeln!(f)?;
                    batch
                        .records
                        .iter()
                        .try_for_each(|record| write!(f, "{record}"))?;
                }
                notes.iter().try_for_each(|note| writeln!(f, "  {note}"))
            }
            Shown::Key {
                bucket,
                key,
                current,
                entries,
                records,
            } => {
                write!(f, "{bucket}/{}", key.escape_debug())?;
                match current {
                    Some(sequence) => writeln!(f, ": {sequence} counts")?,
                    None => writeln!(f, ": no object")?,
                }
                entries.iter().try_for_each(|entry| write!(f, "{entry}"))?;
                records.iter().try_for_each(|record| write!(f, "{record}"))
            }
            Shown::Record(record) => record.fmt(f),
        }
    }
}

impl fmt::Display for ShownSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} {:<7}", self.segment, self.kind)?;
        if let (Some(generation), Some(start), Some(core)) = (self.generation, self.start, self.core) {
            write!(f, " generation {generation}, of start {start} and core {core}")?;
        }
        match (self.kind, self.watermark) {
            (_, Some(watermark)) => write!(f, ", watermark {watermark}"),
            ("log", None) => f.write_str(", watermark DAMAGED"),
            (_, None) => Ok(()),
        }
    }
}

impl fmt::Display for ShownRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "    record {}:{}, {} bytes, sequence {}, generation {}, body of {}",
            self.segment, self.offset, self.length, self.sequence, self.generation, self.body_length
        )?;
        if let Some(poison) = &self.poison {
            writeln!(f, "      poison: {poison}")?;
        }
        self.changes.iter().try_for_each(|change| write!(f, "{change}"))
    }
}

impl fmt::Display for ShownChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "      {} {}", self.operation, self.names)?;
        match &self.value {
            Some(value) => value.fmt(f),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ShownManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(manifest) = &self.manifest else {
            return writeln!(f, "  manifest at {}: DAMAGED", self.offset);
        };
        let covered = &manifest.covered;
        writeln!(
            f,
            "  manifest at {}: {} of start {} and core {} of {}{}{}, logs from {}:{} on",
            self.offset,
            manifest.number,
            manifest.start,
            manifest.core,
            manifest.cores,
            if manifest.confirmed { ", confirmed" } else { "" },
            if self.counts { ", counts" } else { "" },
            covered.generation,
            covered.offset
        )?;
        manifest.runs.iter().try_for_each(|run| {
            writeln!(
                f,
                "    run {}: {} entries, {} of them deletes, in {} bytes, root {}",
                run.tag, run.entries, run.tombstones, run.bytes, run.root
            )
        })
    }
}

impl fmt::Display for ShownPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  page at {}, level {}", self.place, self.level)?;
        self.children
            .iter()
            .try_for_each(|child| writeln!(f, "    page {child}"))?;
        self.entries.iter().try_for_each(|entry| write!(f, "{entry}"))
    }
}

impl fmt::Display for ShownEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "    entry in page {}, sequence {}", self.page, self.sequence)?;
        self.change.fmt(f)
    }
}

impl fmt::Display for ShownStretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}, {} bytes", self.segment, self.offset, self.length)
    }
}

impl fmt::Display for ShownValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.unreadable {
            return writeln!(f, "        a value that this release cannot read");
        }
        if let (Some(size), Some(etag)) = (self.size, &self.etag) {
            writeln!(
                f,
                "        {size} bytes, {etag}, {} bytes of attributes",
                self.attributes_bytes
            )?;
        }
        for extent in &self.extents {
            let (layout, segment, offset, length) =
                (extent.layout, &extent.segment, extent.offset, extent.length);
            writeln!(
                f,
                "        {length} bytes in {layout} at {segment}:{offset}, {} on disk, check {}",
                extent.disk_length, extent.check
            )?;
        }
        Ok(())
    }
}
