//! What a check found: gathered from all threads, told as a table or as JSON.
//!
//! Invariant: the report does not depend on which thread found what first, and its length is bounded. The volume's id is
//! in none of it: who knew it could forge a log.

use super::live::Live;
use super::replay::Replay;
use super::volume::Checked;
use crate::io::SegmentId;
use serde::Serialize;
use std::fmt::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Findings that are kept one by one; further ones are counted.
const FINDINGS_MAX: usize = 100_000;
/// Findings that the table shows.
const SHOWN_MAX: usize = 200;

/// What is wrong with a place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Neither copy of the superblock counts.
    Superblock,
    /// One copy does, the other does not.
    SuperblockCopy,
    /// The file of a segment is not there.
    SegmentMissing,
    /// A segment is shorter or longer than its size.
    SegmentSize,
    /// Neither copy of a segment's header counts, or it is not the header of this segment.
    SegmentHeader,
    /// One copy does, the other does not.
    SegmentHeaderCopy,
    /// Two lives have one generation.
    Generation,
    /// A log's watermark does not count, or bounds too little.
    Watermark,
    /// A manifest of the index is lost.
    Manifest,
    /// One copy of it is; the other one is whole.
    ManifestCopy,
    /// A page of the index is not as it was written, or a run is not what its manifest says.
    Page,
    /// Bytes of a log that held batches are not as they were written.
    Log,
    /// A record of a batch that is whole has a body that is not.
    Body,
    /// A key or value that this release cannot read, or that contradicts itself.
    Record,
    /// Objects are in a bucket that has no record.
    Bucket,
    /// What an object refers to is not in a segment that can hold it.
    Extent,
    /// Two objects refer to the same bytes.
    Overlap,
    /// A block of an object is not as it was written.
    Block,
    /// The disk does not give these bytes.
    Unreadable,
}

/// Where it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// In the superblock of the volume with that index, at that offset.
    Superblock { volume: usize, offset: u32, length: u32 },
    /// In a segment.
    Segment { id: SegmentId, offset: u32, length: u32 },
    /// In no place that is known.
    Nowhere,
}

/// Whose it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize)]
pub struct Owner {
    pub bucket: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Of an upload that has not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<u16>,
}

/// One thing that is wrong, or worth to be known.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Finding {
    pub place: Place,
    pub what: What,
    pub owner: Option<Owner>,
    pub text: String,
}

/// What all threads find.
#[derive(Default)]
pub struct Findings {
    kept: Mutex<Vec<Finding>>,
    left_out: AtomicU64,
    notes: Mutex<Vec<Finding>>,
}

/// What is known of a set after a check.
#[derive(Serialize)]
pub struct Report {
    /// The paths of its volumes, in their order in the set.
    pub volumes: Vec<String>,
    /// Nothing was found.
    pub clean: bool,
    #[serde(flatten)]
    counts: Counts,
    findings: Vec<Told>,
    /// Further findings, which were only counted.
    findings_left_out: u64,
    /// What is no damage, and worth to be known.
    notes: Vec<Told>,
    live_bytes_by_segment: Vec<SegmentUse>,
}

#[derive(Serialize)]
struct Counts {
    starts: u32,
    segment_size_bytes: u32,
    segments: usize,
    log_segments: usize,
    data_segments: usize,
    index_segments: usize,
    free_segments: usize,
    runs: u64,
    pages: u64,
    entries: u64,
    logs_read: u64,
    batches: u64,
    records: u64,
    buckets: u64,
    objects: u64,
    uploads: u64,
    parts: u64,
    extents: u64,
    blocks: u64,
    live_bytes: u64,
    read_bytes: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct SegmentUse {
    segment: String,
    live_bytes: u64,
}

/// A finding as JSON has it.
#[derive(Serialize)]
struct Told {
    what: What,
    #[serde(rename = "where")]
    region: &'static str,
    /// The path of the volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    volume: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<u32>,
    #[serde(flatten)]
    owner: Option<Owner>,
    text: String,
}

impl Place {
    pub fn new(id: SegmentId, offset: u32, length: u32) -> Place {
        Place::Segment { id, offset, length }
    }

    /// A segment as a whole.
    pub fn whole(id: SegmentId) -> Place {
        Place::new(id, 0, 0)
    }
}

impl Findings {
    pub fn add(&self, what: What, place: Place, text: impl Into<String>) {
        self.push(what, place, None, text.into());
    }

    pub fn add_of(&self, owner: Owner, what: What, place: Place, text: impl Into<String>) {
        self.push(what, place, Some(owner), text.into());
    }

    /// Says something that is no damage.
    pub fn note(&self, what: What, place: Place, text: impl Into<String>) {
        let mut notes = self.notes.lock().expect("no thread panics");
        if notes.len() < FINDINGS_MAX {
            notes.push(Finding {
                place,
                what,
                owner: None,
                text: text.into(),
            });
        }
    }

    fn push(&self, what: What, place: Place, owner: Option<Owner>, text: String) {
        let mut kept = self.kept.lock().expect("no thread panics");
        if kept.len() >= FINDINGS_MAX {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        kept.push(Finding {
            place,
            what,
            owner,
            text,
        });
    }
}

impl Report {
    pub(super) fn new(
        volume: &Checked,
        replay: &Replay,
        live: Live,
        findings: Findings,
        seconds: f64,
    ) -> Report {
        let left_out = findings.left_out.into_inner();
        let mut kept = findings.kept.into_inner().expect("no thread panics");
        let mut notes = findings.notes.into_inner().expect("no thread panics");
        kept.sort();
        kept.dedup();
        notes.sort();
        let paths = volume.store.volumes().iter();
        let paths: Vec<String> = paths.map(|volume| volume.path().display().to_string()).collect();
        let told = |findings: Vec<Finding>| {
            let told = findings.into_iter().map(|finding| Told::of(finding, &paths));
            told.collect()
        };
        Report {
            clean: kept.is_empty(),
            counts: Counts {
                starts: volume.boot_epoch,
                segment_size_bytes: volume.segment_size_bytes,
                segments: volume.segments.len(),
                log_segments: volume.logs().count(),
                data_segments: volume.data_segments(),
                free_segments: volume.free_segments(),
                index_segments: volume.indexes().count(),
                runs: replay.index.runs,
                pages: replay.index.pages,
                entries: replay.index.entries,
                logs_read: replay.logs,
                batches: replay.batches,
                records: replay.records,
                buckets: live.buckets,
                objects: live.objects,
                uploads: live.uploads,
                parts: live.parts,
                extents: live.extents,
                blocks: live.blocks,
                live_bytes: live.bytes_by_segment.values().sum(),
                read_bytes: replay.index.read_bytes + replay.read_bytes + live.read_bytes,
                seconds,
            },
            findings: told(kept),
            findings_left_out: left_out,
            notes: told(notes),
            volumes: paths.clone(),
            live_bytes_by_segment: live
                .bytes_by_segment
                .iter()
                .map(|(segment, &live_bytes)| SegmentUse {
                    segment: segment.to_string(),
                    live_bytes,
                })
                .collect(),
        }
    }
}

impl Told {
    fn of(finding: Finding, paths: &[String]) -> Told {
        let (region, volume, segment, offset, length) = match finding.place {
            Place::Superblock {
                volume,
                offset,
                length,
            } => ("superblock", Some(volume), None, Some(offset), Some(length)),
            Place::Segment { id, offset, length } => (
                "segment",
                Some(id.volume()),
                Some(id.to_string()),
                Some(offset),
                Some(length),
            ),
            Place::Nowhere => ("volume", None, None, None, None),
        };
        Told {
            what: finding.what,
            region,
            volume: volume.and_then(|volume| paths.get(volume).cloned()),
            segment,
            offset,
            length,
            owner: finding.owner,
            text: finding.text,
        }
    }
}

/// The table for people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        let rate = counts.read_bytes as f64 / counts.seconds.max(1e-9) / 1e9;
        writeln!(f, "{}", self.volumes.join(" "))?;
        writeln!(
            f,
            "  segments  {} of {}: {} log, {} data, {} index, {} free; started {} times",
            counts.segments,
            Size(u64::from(counts.segment_size_bytes)),
            counts.log_segments,
            counts.data_segments,
            counts.index_segments,
            counts.free_segments,
            counts.starts
        )?;
        writeln!(
            f,
            "  index     {} entries in {} pages of {} runs; behind them {} records in {} batches of {} logs",
            counts.entries, counts.pages, counts.runs, counts.records, counts.batches, counts.logs_read
        )?;
        writeln!(
            f,
            "  live      {} objects, {} uploads, {} parts, {} buckets; {} in {} extents",
            counts.objects,
            counts.uploads,
            counts.parts,
            counts.buckets,
            Size(counts.live_bytes),
            counts.extents
        )?;
        writeln!(
            f,
            "  read      {} in {:.1} s ({rate:.2} GB/s), {} blocks verified",
            Size(counts.read_bytes),
            counts.seconds,
            counts.blocks
        )?;
        table(f, "note", &self.notes)?;
        table(f, "DAMAGE", &self.findings)?;
        match self.findings.len() as u64 + self.findings_left_out {
            0 => writeln!(f, "  clean"),
            1 => writeln!(f, "  DAMAGED in 1 place"),
            many => writeln!(f, "  DAMAGED in {many} places"),
        }
    }
}

fn table(f: &mut fmt::Formatter<'_>, title: &str, lines: &[Told]) -> fmt::Result {
    for told in lines.iter().take(SHOWN_MAX) {
        let place = match (&told.segment, told.offset, told.length) {
            (Some(segment), Some(_), Some(0)) => format!("segment {segment}"),
            (Some(segment), Some(offset), Some(length)) => format!("segment {segment} {offset}+{length}"),
            (None, Some(offset), Some(length)) => {
                let of = told.volume.as_deref().unwrap_or_default();
                format!("superblock of {of} {offset}+{length}")
            }
            _ => told.region.to_owned(),
        };
        write!(f, "  {title:<8}  {place:<40}  {}", told.text)?;
        match &told.owner {
            Some(owner) => writeln!(f, "  {owner}")?,
            None => writeln!(f)?,
        }
    }
    match lines.len().saturating_sub(SHOWN_MAX) {
        0 => Ok(()),
        more => writeln!(f, "  {title:<8}  and {more} more, which --json shows"),
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.bucket)?;
        if let Some(key) = &self.key {
            f.write_char('/')?;
            // A key is any text: what would move the cursor is spelled.
            for c in key.chars() {
                match c.is_control() {
                    true => write!(f, "{}", c.escape_default())?,
                    false => f.write_char(c)?,
                }
            }
        }
        if let Some(upload) = &self.upload {
            write!(f, " upload {upload}")?;
        }
        if let Some(part) = self.part {
            write!(f, " part {part}")?;
        }
        Ok(())
    }
}

/// Bytes in the largest unit that leaves a number worth reading.
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [
            (1 << 40, "TiB"),
            (1 << 30, "GiB"),
            (1 << 20, "MiB"),
            (1 << 10, "KiB"),
        ];
        match UNITS.iter().find(|(unit, _)| self.0 >= *unit) {
            Some((unit, name)) => write!(f, "{:.1} {name}", self.0 as f64 / *unit as f64),
            None => write!(f, "{} bytes", self.0),
        }
    }
}
