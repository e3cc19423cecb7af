//! What the index is, read as recovery reads it: the runs, and of each key the latest change that the logs behind them say.
//!
//! First the runs, then the poison at the front of each log that is not in them, then these logs, several at a time. Each record's body is verified on the way,
//! and its place is kept, so that whoever refers to it need not read it again.
//!
//! Invariant: a change counts here exactly when it counts at a start: batches that are void do not, what can be read of a
//! damaged one does, and of two records with one sequence the later does.

use super::CheckError;
use super::report::{Findings, Place, What};
use super::runs::{self, RunsRead};
use super::segment::{Buffer, LogToRead, WINDOW_BYTES};
use super::volume::Checked;
use super::{Progress, in_parallel};
use crate::index::LogPosition;
use crate::index::key;
use crate::io::SegmentId;
use crate::log::{
    ALIGN_BYTES, BatchRef, LOG_START, LogEnd, Poison, RecordKind, RecordRef, ScanStep, SegmentHeader,
    WATERMARK_BYTES, WATERMARK_OFFSET, body_crc32, is_damaged_batch_header,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Parts that the keys are spread over, so that threads seldom wait for each other.
const SHARDS: usize = 64;
/// Bytes that are read for the poison at the front of a log.
const POISON_WINDOW_BYTES: u32 = 64 << 10;

/// The latest change of a key.
pub struct Latest {
    pub sequence: u64,
    place: Said,
    pub home: SegmentId,
    /// `None` for a delete.
    pub value: Option<Box<[u8]>>,
}

/// What says it, in the order in which it counts: runs, the newest last, then logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    /// Its run: 0 is the newest. And the offset of the page.
    Run(Reverse<usize>, u32),
    /// The sequence, the generation of the log, and the offset of the record.
    Log(u64, u64, u32),
}

impl Latest {
    /// Where its record lies, or the page that it is in.
    pub fn record(&self) -> Place {
        let (Said::Run(_, offset) | Said::Log(.., offset)) = self.place;
        Place::new(self.home, offset, 0)
    }
}

/// The body of a record that is as it was written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Body {
    offset: u32,
    length: u32,
    crc32: u32,
}

/// What runs and logs said.
pub struct Replay {
    shards: Shards,
    /// By segment, in order of their place.
    bodies: BTreeMap<SegmentId, Vec<Body>>,
    pub index: RunsRead,
    pub logs: u64,
    pub batches: u64,
    pub records: u64,
    pub read_bytes: u64,
}

/// The keys, spread by their hash.
type Shards = Vec<Shard>;
type Shard = HashMap<Box<[u8]>, Latest>;

/// A log to be read.
struct Log {
    id: SegmentId,
    header: SegmentHeader,
    watermark: Option<u32>,
    /// What is before is in the runs.
    from: LogPosition,
    /// Nothing at or behind it counts.
    void_from: Option<u32>,
}

/// What the readers of logs share.
struct Readers<'a> {
    volume: &'a Checked,
    findings: &'a Findings,
    shards: Vec<Mutex<Shard>>,
    bodies: Mutex<BTreeMap<SegmentId, Vec<Body>>>,
    batches: AtomicU64,
    records: AtomicU64,
    read_bytes: AtomicU64,
    progress: Progress,
}

impl Replay {
    /// Reads all runs, and the logs behind them.
    pub fn of(volume: &Checked, findings: &Findings) -> Result<Replay, CheckError> {
        let shards: Vec<Mutex<Shard>> = (0..SHARDS).map(|_| Mutex::default()).collect();
        let index = runs::read(volume, findings, |rank, page| {
            let address = page.address();
            page.for_each_item(|index_key, sequence, value| {
                let said = Latest {
                    sequence,
                    place: Said::Run(Reverse(rank), address.offset),
                    home: SegmentId(address.segment),
                    value: value.map(Into::into),
                };
                if key::parse(index_key).is_none() {
                    let text = "a run names a key that this release does not know";
                    findings.add(What::Record, said.record(), text);
                    return;
                }
                take_change(&shards, said, index_key);
            });
        });
        let logs = logs_of(volume);
        let bytes_of = |log: &Log| {
            let end = log.watermark.unwrap_or(volume.segment_size_bytes);
            u64::from(end.saturating_sub(log.from.offset))
        };
        let total = logs.iter().map(bytes_of).sum();
        let readers = Readers {
            volume,
            findings,
            shards,
            bodies: Mutex::default(),
            batches: AtomicU64::new(0),
            records: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            progress: Progress::new("logs", total),
        };
        in_parallel(&logs, Buffer::default, |buffer, log| readers.read(log, buffer));
        Ok(Replay {
            shards: readers
                .shards
                .into_iter()
                .map(|shard| shard.into_inner().expect("no thread panics"))
                .collect(),
            bodies: readers.bodies.into_inner().expect("no thread panics"),
            index,
            logs: logs.len() as u64,
            batches: readers.batches.into_inner(),
            records: readers.records.into_inner(),
            read_bytes: readers.read_bytes.into_inner(),
        })
    }

    /// The latest change of a key.
    pub fn get(&self, index_key: &[u8]) -> Option<&Latest> {
        self.shards[shard_of(index_key)].get(index_key)
    }

    /// Every key that has a value, in any order.
    pub fn values(&self) -> impl Iterator<Item = (&[u8], &Latest, &[u8])> {
        let all = self.shards.iter().flatten();
        all.filter_map(|(index_key, latest)| Some((&**index_key, latest, latest.value.as_deref()?)))
    }

    /// Whether a record's body with that checksum was read from that place.
    pub fn has_body(&self, segment: SegmentId, offset: u32, length: u32, crc32: u64) -> bool {
        let Some(bodies) = self.bodies.get(&segment) else {
            return false;
        };
        let at = bodies.binary_search_by_key(&offset, |body| body.offset);
        at.is_ok_and(|at| bodies[at].length == length && u64::from(bodies[at].crc32) == crc32)
    }
}

/// The logs, and from where on each is void.
fn logs_of(volume: &Checked) -> Vec<Log> {
    let poison: Mutex<Vec<Poison>> = Mutex::default();
    let logs: Vec<_> = volume.tails().collect();
    // Whatever is wrong there is told by whoever reads the whole log.
    let unheard = Findings::default();
    in_parallel(&logs, Buffer::default, |buffer, (id, header, watermark, from)| {
        // One of which a part is in the runs was begun before that part.
        if from.batch > 0 {
            return;
        }
        let log = LogToRead {
            header,
            watermark: *watermark,
            from: *from,
            window_bytes: POISON_WINDOW_BYTES,
        };
        let reading = volume.reading(*id, &unheard);
        reading.for_each_step(
            &log,
            buffer,
            |_| {},
            |step| match step {
                ScanStep::Batch(batch) | ScanStep::Salvaged(batch) => {
                    poison.lock().expect("no thread panics").extend(poison_in(&batch));
                    ControlFlow::Break(())
                }
                ScanStep::Damaged { .. } | ScanStep::End { .. } | ScanStep::NeedMore { .. } => {
                    ControlFlow::Continue(())
                }
            },
        );
    });
    let poison = poison.into_inner().expect("no thread panics");
    logs.into_iter()
        .map(|(id, header, watermark, from)| {
            let voids = |poison: &&Poison| poison.segment == id.0 && poison.generation == header.generation;
            Log {
                id,
                header,
                watermark,
                from,
                void_from: poison.iter().filter(voids).map(|poison| poison.offset).min(),
            }
        })
        .collect()
}

/// The poison records that a batch begins with.
fn poison_in(batch: &BatchRef<'_>) -> Vec<Poison> {
    let kinds = batch.records().map(|record| record.kind());
    kinds
        .map_while(|kind| match kind {
            RecordKind::Poison(poison) => Some(poison),
            RecordKind::Commit => None,
        })
        .collect()
}

/// Damage that was met, and is told when it is known what can be read of it.
struct Damage {
    from: u32,
    to: u32,
    batches_lost: u32,
}

impl Readers<'_> {
    fn read(&self, log: &Log, buffer: &mut Buffer) {
        let to_read = LogToRead {
            header: &log.header,
            watermark: log.watermark,
            from: log.from,
            window_bytes: WINDOW_BYTES,
        };
        let mut bodies = Vec::new();
        let mut damage: Option<Damage> = None;
        let mut last_end = None;
        let mut ended = None;
        let reading = self.volume.reading(log.id, self.findings);
        let count_read = |bytes| {
            self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.progress.add(bytes);
        };
        reading.for_each_step(&to_read, buffer, count_read, |step| {
            let salvaged = match &step {
                ScanStep::Salvaged(batch) => Some(*batch),
                _ => None,
            };
            if let Some(damage) = damage.take() {
                self.tell_damage(log, &damage, salvaged);
            }
            match step {
                ScanStep::Batch(batch) => {
                    self.batches.fetch_add(1, Ordering::Relaxed);
                    if let Some(end) = last_end {
                        self.compare_watermark(log, end);
                    }
                    last_end = Some(batch.offset_in_segment() + batch.disk_length_bytes());
                    self.take(log, &batch, Wholeness::Whole, &mut bodies);
                }
                ScanStep::Salvaged(batch) => self.take(log, &batch, Wholeness::Damaged, &mut bodies),
                ScanStep::Damaged {
                    from,
                    to,
                    batches_lost,
                } => {
                    damage = Some(Damage {
                        from,
                        to,
                        batches_lost,
                    });
                }
                ScanStep::End { tail, end, .. } => ended = Some((tail, end)),
                ScanStep::NeedMore { .. } => {}
            }
            ControlFlow::Continue(())
        });
        let is_used = last_end.is_some();
        if is_used && log.watermark.is_none() {
            let text = "the log's watermark is damaged: nothing bounds the search for its end";
            let place = Place::new(log.id, WATERMARK_OFFSET, WATERMARK_BYTES);
            self.findings.add(What::Watermark, place, text);
        }
        if let Some((tail, end)) = ended {
            let at_tail = reading.read(tail, ALIGN_BYTES, buffer);
            self.judge_end(log, tail, end, at_tail, is_used);
        }
        self.bodies
            .lock()
            .expect("no thread panics")
            .insert(log.id, bodies);
    }

    fn tell_damage(&self, log: &Log, damage: &Damage, salvaged: Option<BatchRef<'_>>) {
        let lost = damage.batches_lost;
        let place = Place::new(log.id, damage.from, damage.to - damage.from);
        let text = match salvaged {
            Some(batch) if batch.has_all_records() => {
                "a batch of the log is damaged; all of its changes could be read".to_owned()
            }
            Some(batch) => format!(
                "a batch of the log is damaged: {} of its {} records could be read; at least {lost} batches are not whole",
                batch.records().count(),
                batch.record_count()
            ),
            None => format!("at least {lost} batches of the log are lost"),
        };
        self.findings.add(What::Log, place, text);
    }

    /// A batch that another one follows was acknowledged, so the watermark was past its end.
    fn compare_watermark(&self, log: &Log, end: u32) {
        if log.watermark.is_some_and(|watermark| watermark < end) {
            let place = Place::new(log.id, WATERMARK_OFFSET, WATERMARK_BYTES);
            let text = "the log's watermark is older than its batches";
            self.findings.add(What::Watermark, place, text);
        }
    }

    fn judge_end(&self, log: &Log, tail: u32, end: LogEnd, at_tail: &[u8], is_used: bool) {
        let place = Place::new(log.id, tail, ALIGN_BYTES);
        let is_void = log.void_from.is_some_and(|from| from <= tail);
        let was_raised = log.watermark.is_none_or(|watermark| watermark > LOG_START);
        match end {
            LogEnd::Sealed => {}
            _ if is_damaged_batch_header(at_tail, &log.header, tail) => {
                let text = "the header of a batch is damaged, and nothing follows it";
                self.findings.add(What::Log, place, text);
            }
            LogEnd::Torn if !is_void => self.findings.note(
                What::Log,
                place,
                "the log ends in a batch that is not whole: a crash tore its write, or it is damaged",
            ),
            LogEnd::Torn => {}
            LogEnd::Open if is_used || was_raised => self.findings.note(
                What::Log,
                place,
                "the log has no seal: its daemon was killed, or what lay here is lost",
            ),
            LogEnd::Open => {}
        }
    }

    fn take(&self, log: &Log, batch: &BatchRef<'_>, wholeness: Wholeness, bodies: &mut Vec<Body>) {
        if log
            .void_from
            .is_some_and(|from| batch.offset_in_segment() >= from)
        {
            return;
        }
        for record in batch.records() {
            self.records.fetch_add(1, Ordering::Relaxed);
            self.take_body(log, &record, wholeness, bodies);
            for change in record.changes() {
                if key::parse(change.key()).is_none() {
                    let place = Place::new(log.id, record.offset_in_segment(), record.length_bytes());
                    let text = "a record names a key that this release does not know";
                    self.findings.add(What::Record, place, text);
                    continue;
                }
                take_change(
                    &self.shards,
                    Latest {
                        sequence: record.sequence(),
                        place: Said::Log(
                            record.sequence(),
                            log.header.generation,
                            record.offset_in_segment(),
                        ),
                        home: log.id,
                        value: match change {
                            crate::log::Change::Put { value, .. } => Some(value.into()),
                            crate::log::Change::Delete { .. } => None,
                        },
                    },
                    change.key(),
                );
            }
        }
    }

    fn take_body(&self, log: &Log, record: &RecordRef<'_>, wholeness: Wholeness, bodies: &mut Vec<Body>) {
        let length = record.body().len() as u32;
        if length == 0 {
            return;
        }
        let (offset, crc32) = (record.body_offset_in_segment(), record.body_crc32());
        if body_crc32(record.body()) == crc32 {
            bodies.push(Body {
                offset,
                length,
                crc32,
            });
        } else if wholeness == Wholeness::Whole {
            let text = "the body in a record is not what its checksum says, though its batch is whole";
            self.findings
                .add(What::Body, Place::new(log.id, offset, length), text);
        }
    }
}

fn take_change(shards: &[Mutex<Shard>], change: Latest, index_key: &[u8]) {
    let mut shard = shards[shard_of(index_key)].lock().expect("no thread panics");
    match shard.get_mut(index_key) {
        None => drop(shard.insert(index_key.into(), change)),
        // A change that the cleaner moved keeps its sequence; where it lay before is free by now.
        Some(known) if known.place < change.place => *known = change,
        Some(_) => {}
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wholeness {
    Whole,
    /// Told as such already.
    Damaged,
}

fn shard_of(index_key: &[u8]) -> usize {
    xxhash_rust::xxh3::xxh3_64(index_key) as usize % SHARDS
}
