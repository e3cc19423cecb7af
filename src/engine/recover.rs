//! Recovery: reading the logs of all cores, whoever wrote them, and giving each key to its present owner.
//!
//! 1. Each core reads the headers of its share of the segments, and the first batch of each log: there a
//!    batch that failed is declared void. The coordinator gathers this survey and everyone gets all of it.
//! 2. Each core scans its share of the logs and sends each change to the core that owns the key now, which
//!    keeps the one with the highest sequence.
//! 3. The coordinator, which owns the buckets, makes them known. Then each owner drops tombstones, entries of
//!    buckets that are gone and parts of uploads that are, and accounts for what is left.
//!
//! A torn tail ends a log. Damage in the middle is an alarm, and what follows it is kept.
//!
//! Invariant: a start that met damage knows only a part of what was stored, so it drops nothing for want of what names
//! it, and nothing that was on the volume before is freed in its run. Objects whose bucket's record is lost are in a
//! bucket that says so, and takes no change. All of it comes from what lies on the disk: the next start finds the same.

use crate::engine::Machine;
use crate::engine::apply::extents_of;
use crate::engine::core::{COORDINATOR, Core, ReplyTo};
use crate::engine::entry::{Bucket, Object, Part, Upload};
use crate::engine::message::{
    Found, FoundSegment, Note, PoisonedTail, RecoveredChange, Reply, Request, Survey,
};
use crate::engine::planted::{Fault, planted};
use crate::engine::space::Before;
use crate::index::key::{self, BucketId, Named};
use crate::index::{Entry, Lives};
use crate::io::{CoreId, DISK_ALIGN_BYTES, SegmentId};
use crate::log::{
    BatchRef, BatchWriter, Change, HeaderError, LOG_START, LogEnd, LogScanner, RecordKind, RecordRef,
    ScanStep, SegmentHeader, SegmentKind, WATERMARK_OFFSET, change_length, decode_watermark,
    is_of_an_empty_log,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

/// Bytes that a scan reads at a time.
const SCAN_BYTES: u32 = 1 << 20;
/// How often what makes a log's end durable is begun, when the disk fails.
const SETTLE_ATTEMPTS: usize = 3;
/// Missing segments that are named one by one.
const MISSING_TOLD_MAX: usize = 8;
/// Bytes of changes that go to another core in one message.
const RECOVERED_BYTES_MAX: usize = 256 * 1024;

/// What recovery found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    pub objects: u64,
    pub uploads: u64,
    pub buckets: u64,
    /// Records read from logs.
    pub records: u64,
    /// Batches that were durable once and are damaged now.
    pub batches_damaged: u64,
    /// Segments whose header is damaged.
    pub segments_unreadable: u64,
    /// Segments that an earlier run made, and that are not there.
    pub segments_missing: u64,
    /// Extents of what was recovered that lie in segments that are not there.
    pub extents_missing: u64,
    /// Buckets whose record is lost, and the objects in them.
    pub buckets_lost: u64,
    pub objects_of_lost_buckets: u64,
    /// What is kept and not served: uploads and parts whose bucket or upload is not known, values that cannot be read.
    pub orphans: u64,
}

impl Recovered {
    /// Adds what another core found.
    pub fn add(&mut self, share: &Recovered) {
        for (sum, share) in [
            (&mut self.objects, share.objects),
            (&mut self.uploads, share.uploads),
            (&mut self.buckets, share.buckets),
            (&mut self.records, share.records),
            (&mut self.batches_damaged, share.batches_damaged),
            (&mut self.segments_unreadable, share.segments_unreadable),
            (&mut self.segments_missing, share.segments_missing),
            (&mut self.extents_missing, share.extents_missing),
            (&mut self.buckets_lost, share.buckets_lost),
            (&mut self.objects_of_lost_buckets, share.objects_of_lost_buckets),
            (&mut self.orphans, share.orphans),
        ] {
            *sum += share;
        }
    }

    /// Whether something that was stored may not be among what was found.
    pub fn is_damaged(&self) -> bool {
        let damage = self.batches_damaged
            + self.segments_unreadable
            + self.segments_missing
            + self.extents_missing
            + self.buckets_lost;
        damage > 0
    }
}

/// Why a volume cannot be opened.
#[derive(Debug)]
pub enum RecoverError {
    Disk {
        segment: Option<SegmentId>,
        error: std::io::Error,
    },
    /// A segment was written by a later release.
    Newer { segment: SegmentId, version: u16 },
    /// A segment belongs to another volume.
    Foreign { segment: SegmentId },
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoverError::Disk {
                segment: Some(segment),
                error,
            } => write!(
                f,
                "segment {segment}: {error}: see what the kernel says of the disk (dmesg), then start again, or copy \
                 the directory to a sound disk and start there"
            ),
            RecoverError::Disk { segment: None, error } => {
                write!(
                    f,
                    "the segments cannot be listed: {error}: see that the directory can be read"
                )
            }
            RecoverError::Newer { segment, version } => write!(
                f,
                "segment {segment} has format version {version}, which a later release wrote; start that release"
            ),
            RecoverError::Foreign { segment } => {
                write!(
                    f,
                    "segment {segment} belongs to another volume; take its file away and start again"
                )
            }
        }
    }
}

impl std::error::Error for RecoverError {}

/// What a core, and the coordinator for all, has gathered so far.
#[derive(Default)]
pub struct Assembly {
    /// Of keys that this core owns: the change with the highest sequence.
    changes: BTreeMap<Vec<u8>, RecoveredChange>,
    /// Segments that are there.
    segments: BTreeSet<SegmentId>,
    /// Some core met damage.
    damaged: bool,
    /// Coordinator: surveys that have arrived, and who waits for all of them.
    survey: Survey,
    surveyors: Vec<ReplyTo>,
    /// Coordinator: cores waiting at each stage.
    waiting: BTreeMap<u8, Vec<ReplyTo>>,
}

const STAGE_SCANNED: u8 = 1;
const STAGE_BUCKETS: u8 = 2;
const STAGE_ACCOUNTED: u8 = 3;

impl<I: Machine> Core<I> {
    /// Rebuilds this core's share of the state. Every core of the run calls this once.
    pub async fn recover(self: &Rc<Self>) -> Result<Recovered, RecoverError> {
        let mut recovered = Recovered::default();
        let surveyed = self.survey_share(&mut recovered).await?;
        let logs = surveyed.logs;
        let Reply::Surveyed(survey) = self.call(COORDINATOR, Request::Survey(surveyed.survey)).await else {
            unreachable!("a survey is answered by one")
        };
        self.note_segments(&survey, &mut recovered);
        self.settle_freed(&surveyed.freed, survey.newest_epoch).await?;
        for log in &logs {
            self.scan(log, &survey.poisoned, &mut recovered).await?;
        }
        self.tell_damage(&recovered);
        self.barrier(STAGE_SCANNED).await;
        if self.is_coordinator() {
            self.install_recovered_buckets(&mut recovered).await;
            if self.assembly.borrow().damaged {
                self.call_all(|| Request::Damaged).await;
            }
        }
        self.barrier(STAGE_BUCKETS).await;
        self.adopt(&mut recovered);
        self.flush_ledger();
        self.tell_damage(&recovered);
        self.barrier(STAGE_ACCOUNTED).await;
        if self.is_coordinator() {
            let damaged = self.assembly.borrow().damaged;
            self.open_space(if damaged { Before::Kept } else { Before::Reused });
        }
        Ok(recovered)
    }

    async fn survey_share(&self, recovered: &mut Recovered) -> Result<ShareSurvey, RecoverError> {
        let mut share = ShareSurvey::default();
        let segments = self
            .io
            .segments()
            .await
            .map_err(|error| RecoverError::Disk { segment: None, error })?;
        for segment in segments {
            if segment.0 as usize % self.io.cores() != self.io.core().0 as usize {
                continue;
            }
            let (bytes, header) = self.read_header(segment).await?;
            let (header, content, generation) = match header {
                Ok(header) => {
                    let content = match header.kind {
                        SegmentKind::Log => Found::Log,
                        SegmentKind::Data => Found::Data,
                        SegmentKind::Free => Found::Free,
                    };
                    (Some(header), content, header.generation)
                }
                Err(HeaderError::NotWritten) if self.is_untouched(segment, &bytes).await? => {
                    (None, Found::Free, 0)
                }
                Err(HeaderError::NewerVersion(version)) => {
                    return Err(RecoverError::Newer { segment, version });
                }
                Err(HeaderError::OtherVolume) => return Err(RecoverError::Foreign { segment }),
                Err(error) => {
                    warn!(
                        "weft: segment {segment} has a damaged header ({error:?}); nothing in it is touched"
                    );
                    recovered.segments_unreadable += 1;
                    (None, Found::Unreadable, 0)
                }
            };
            share.survey.segments.push(FoundSegment {
                segment,
                generation,
                content,
            });
            let Some(header) = header else { continue };
            if header.kind == SegmentKind::Free {
                share.freed.push(header);
                continue;
            }
            share.survey.newest_epoch = share.survey.newest_epoch.max(header.epoch);
            if header.kind == SegmentKind::Log {
                let watermark = decode_watermark(&bytes[WATERMARK_OFFSET as usize..], &header);
                let log = FoundLog { header, watermark };
                share.survey.poisoned.extend(self.poison_in(&log).await?);
                share.logs.push(log);
            }
        }
        Ok(share)
    }

    /// What lies in front of a segment's content, and the header in it.
    async fn read_header(
        &self,
        segment: SegmentId,
    ) -> Result<(Vec<u8>, Result<SegmentHeader, HeaderError>), RecoverError> {
        let bytes = self.read_window(segment, 0, LOG_START).await?;
        let shape = self.io.volume();
        let header = SegmentHeader::decode(&bytes).and_then(|header| {
            header.expect(&self.io.volume_id(), shape.segment_size_bytes, segment.0)?;
            Ok(header)
        });
        Ok((bytes, header))
    }

    /// Whether a segment without a header never held anything: a file reads as zeros until it is written. A crash
    /// while it was made ready may leave the watermark of a log that is still empty.
    async fn is_untouched(&self, segment: SegmentId, front: &[u8]) -> Result<bool, RecoverError> {
        let is_zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
        let (header, watermark) = front.split_at(WATERMARK_OFFSET as usize);
        let is_blank = is_zero(watermark) || is_of_an_empty_log(watermark, &self.io.volume_id(), segment.0);
        if !is_zero(header) || !is_blank {
            return Ok(false);
        }
        let size = self.io.volume().segment_size_bytes;
        let mut at = LOG_START;
        while at < size {
            let length = (size - at).min(SCAN_BYTES);
            if !is_zero(&self.read_window(segment, at, length).await?) {
                return Ok(false);
            }
            at += length;
        }
        Ok(true)
    }

    /// Which segments are there, and on the coordinator how many are not.
    fn note_segments(&self, survey: &Survey, recovered: &mut Recovered) {
        let is_missing = |found: &&FoundSegment| found.content == Found::Missing;
        let missing: Vec<SegmentId> = survey
            .segments
            .iter()
            .filter(is_missing)
            .map(|found| found.segment)
            .collect();
        if self.is_coordinator() {
            for segment in missing.iter().take(MISSING_TOLD_MAX) {
                warn!("weft: the file of segment {segment} is missing");
            }
            recovered.segments_missing += missing.len() as u64;
        }
        let there = survey.segments.iter().filter(|found| !is_missing(found));
        self.assembly.borrow_mut().segments = there.map(|found| found.segment).collect();
    }

    /// Before a barrier: behind it, every core's damage is known to the coordinator.
    fn tell_damage(self: &Rc<Self>, recovered: &Recovered) {
        if recovered.is_damaged() {
            self.note(COORDINATOR, Note::Damaged);
        }
    }

    /// Some core met damage.
    pub fn note_damage(&self) {
        self.assembly.borrow_mut().damaged = true;
    }

    /// The poison records at the front of a log's first batch.
    async fn poison_in(&self, log: &FoundLog) -> Result<Vec<PoisonedTail>, RecoverError> {
        let mut scan = Scan::new(log, 64 * 1024);
        let mut poisoned = Vec::new();
        scan.first_batch_only = true;
        self.for_each_batch(&mut scan, |batch, _| {
            for record in batch.records() {
                let RecordKind::Poison(poison) = record.kind() else {
                    break;
                };
                let segment = SegmentId(poison.segment);
                poisoned.push(PoisonedTail {
                    segment,
                    generation: poison.generation,
                    offset: poison.offset,
                });
            }
            Vec::new()
        })
        .await?;
        Ok(poisoned)
    }

    /// Reads a whole log and sends its changes to their owners.
    async fn scan(
        self: &Rc<Self>,
        log: &FoundLog,
        poisoned: &[PoisonedTail],
        recovered: &mut Recovered,
    ) -> Result<(), RecoverError> {
        let header = &log.header;
        let segment = SegmentId(header.segment);
        // Nothing at or behind this place counts.
        let void_from = poisoned
            .iter()
            .filter(|tail| tail.segment == segment && tail.generation == header.generation)
            .filter(|_| !planted(Fault::PoisonIgnored))
            .map(|tail| tail.offset)
            .min();
        let mut scan = Scan::new(log, SCAN_BYTES);
        let mut records = 0;
        let mut shields = None;
        self.for_each_batch(&mut scan, |batch, _| {
            if void_from.is_some_and(|from| batch.offset_in_segment() >= from) {
                return Vec::new();
            }
            let mut changes = Vec::new();
            for record in batch.records() {
                records += 1;
                if let RecordKind::Poison(poison) = record.kind() {
                    shields = shields
                        .into_iter()
                        .chain([Lives::one(poison.generation)])
                        .reduce(Lives::and);
                }
                for change in record.changes() {
                    changes.push(recovered_change(header, &record, change));
                }
            }
            changes
        })
        .await?;
        self.settle_log(&scan, void_from).await?;
        recovered.records += records;
        recovered.batches_damaged += scan.batches_damaged;
        if let Some(lives) = shields {
            self.account_tombstone(segment, lives);
        }
        Ok(())
    }

    /// Makes what was read from a log durable, and ends the log where it ended.
    ///
    /// A process that was killed, or whose sync failed, leaves a last batch that the device may show now and
    /// forget with the power, or the other way round. So the last batch that counts is written again, as it was
    /// read, with the watermark, and behind it a seal takes the place of whatever may still come up there.
    async fn settle_log(&self, scan: &Scan, void_from: Option<u32>) -> Result<(), RecoverError> {
        let Some((tail, next_number, end)) = scan.end else {
            return Ok(());
        };
        let segment = SegmentId(scan.header.segment);
        let size = scan.header.segment_size_bytes;
        let void = void_from.and_then(|from| scan.batches.iter().find(|(offset, ..)| *offset >= from));
        if end == LogEnd::Sealed && tail < size && void.is_none() || planted(Fault::LogUnsettled) {
            return Ok(());
        }
        let (tail, number) = void.map_or((tail, next_number), |&(offset, _, number)| (offset, number));
        // Read once: after a failed sync a read may find something else.
        let last = match scan.batches.iter().rfind(|(offset, ..)| *offset < tail) {
            Some(&(offset, length, _)) => Some((offset, self.read_window(segment, offset, length).await?)),
            None => None,
        };
        let seal_end = (tail + DISK_ALIGN_BYTES as u32).min(size);
        self.insist(segment, async || {
            if let Some((offset, bytes)) = &last {
                let mut buffer = self.io.buffer(bytes.len());
                buffer.as_mut().copy_from_slice(bytes);
                self.io.write(segment, *offset, buffer).await?;
            }
            // It may be as volatile, and the seal is looked for no further than it reaches.
            if let Some(watermark) = scan.watermark {
                self.write_watermark(&scan.header, watermark.max(seal_end))
                    .await?;
            }
            // Before the seal: a header behind a batch that is not there would say that one was lost.
            self.io.sync(segment).await?;
            if tail < size {
                let buffer = self.io.buffer(DISK_ALIGN_BYTES);
                let (buffer, _) = BatchWriter::new(buffer, &scan.header, tail, number).finish_sealed();
                self.io.write(segment, tail, buffer).await?;
            }
            self.io.sync(segment).await
        })
        .await
    }

    /// Makes the marks of freed logs durable that a killed run may have left volatile: tombstones that they
    /// held or outlived may be gone. Each run that came up has settled those of the runs before it.
    async fn settle_freed(&self, freed: &[SegmentHeader], newest_epoch: u32) -> Result<(), RecoverError> {
        for header in freed.iter().filter(|header| header.epoch >= newest_epoch) {
            let segment = SegmentId(header.segment);
            self.insist(segment, async || self.write_header(header).await)
                .await?;
        }
        Ok(())
    }

    /// Writes and syncs; after an error all of it anew, for a failed sync says nothing of the writes before it.
    async fn insist(
        &self,
        segment: SegmentId,
        write_and_sync: impl AsyncFn() -> std::io::Result<()>,
    ) -> Result<(), RecoverError> {
        let mut attempts = 1;
        loop {
            match write_and_sync().await {
                Ok(()) => return Ok(()),
                Err(error) if attempts < SETTLE_ATTEMPTS => {
                    warn!("weft: segment {segment}: {error}; it is written again");
                    attempts += 1;
                }
                Err(error) => {
                    let segment = Some(segment);
                    return Err(RecoverError::Disk { segment, error });
                }
            }
        }
    }

    /// Feeds the batches of a log to `read`, and what it returns to the owners of the keys.
    async fn for_each_batch(
        &self,
        scan: &mut Scan,
        mut read: impl FnMut(BatchRef<'_>, &mut u64) -> Vec<RecoveredChange>,
    ) -> Result<(), RecoverError> {
        let segment = SegmentId(scan.header.segment);
        let mut scanner = LogScanner::new(&scan.header, scan.watermark);
        let (mut window, mut offset) = (Vec::new(), 0);
        loop {
            let out = match scanner.next(&window, offset) {
                // The first batch is not whole: nothing can be said of it without a search.
                ScanStep::NeedMore { from, .. } if scan.first_batch_only && from > LOG_START => return Ok(()),
                ScanStep::NeedMore { from, length_min } => {
                    let rest = scan.header.segment_size_bytes - from;
                    window = self
                        .read_window(segment, from, length_min.max(scan.window_bytes).min(rest))
                        .await?;
                    offset = from;
                    continue;
                }
                ScanStep::Batch(batch) => {
                    scan.batches.push((
                        batch.offset_in_segment(),
                        batch.disk_length_bytes(),
                        batch.number(),
                    ));
                    read(batch, &mut scan.batches_damaged)
                }
                ScanStep::Salvaged(batch) => {
                    if batch.has_all_records() {
                        // No change is lost, and a body is checked whenever it is read.
                        scan.batches_damaged -= 1;
                    }
                    read(batch, &mut scan.batches_damaged)
                }
                ScanStep::Damaged {
                    from,
                    to,
                    batches_lost,
                } => {
                    // Whoever looks for poison is followed by a scan, which comes by here again.
                    if !scan.first_batch_only {
                        warn!(
                            "weft: log segment {segment}: bytes {from} to {to} are damaged: at least {batches_lost} \
                             batches are not whole; what can be read of them is kept, and what follows"
                        );
                    }
                    scan.batches_damaged += u64::from(batches_lost);
                    // What can be read of it is the next step.
                    continue;
                }
                ScanStep::End {
                    tail,
                    next_number,
                    end,
                } => {
                    scan.end = Some((tail, next_number, end));
                    return Ok(());
                }
            };
            self.send_recovered(out).await;
            if scan.first_batch_only {
                return Ok(());
            }
        }
    }

    async fn send_recovered(&self, changes: Vec<RecoveredChange>) {
        let mut by_core: BTreeMap<CoreId, (usize, Vec<RecoveredChange>)> = BTreeMap::new();
        for change in changes {
            let owner = match key::parse(&change.key) {
                Some(Named::Object { bucket, key }) => self.owner(bucket, &key),
                Some(Named::Upload { bucket, key, .. } | Named::Part { bucket, key, .. }) => {
                    self.owner(bucket, &key)
                }
                Some(Named::Bucket { .. }) => COORDINATOR,
                None => {
                    warn!("weft: a record names a key that this release does not know; it is left alone");
                    continue;
                }
            };
            let (bytes, batch) = by_core.entry(owner).or_default();
            *bytes += change.key.len() + change.value.as_ref().map_or(0, |value| value.len());
            batch.push(change);
            if *bytes >= RECOVERED_BYTES_MAX {
                let (_, batch) = by_core.remove(&owner).expect("just filled");
                self.give(owner, batch).await;
            }
        }
        for (owner, (_, batch)) in by_core {
            self.give(owner, batch).await;
        }
    }

    async fn give(&self, owner: CoreId, changes: Vec<RecoveredChange>) {
        if owner == self.io.core() {
            self.take_recovered(changes);
        } else {
            // Waiting for the answer bounds what is in flight to one message a core.
            self.call_remote(owner, Request::Recovered(changes)).await;
        }
    }

    /// Keeps the latest change of each key.
    pub fn take_recovered(&self, changes: Vec<RecoveredChange>) {
        let mut assembly = self.assembly.borrow_mut();
        for change in changes {
            match assembly.changes.get_mut(&change.key) {
                None => drop(assembly.changes.insert(change.key.clone(), change)),
                Some(known) => {
                    let lives = known.lives.and(change.lives);
                    // A change that the cleaner moved keeps its sequence; where it lay before is free by now.
                    if (known.sequence, known.place) < (change.sequence, change.place) {
                        *known = change;
                    }
                    known.lives = lives;
                }
            }
        }
    }

    async fn install_recovered_buckets(self: &Rc<Self>, recovered: &mut Recovered) {
        let found: Vec<(String, Bucket)> = {
            let assembly = self.assembly.borrow();
            let values = assembly
                .changes
                .iter()
                .filter_map(|(key, change)| Some((key, change.value.as_ref()?)));
            let buckets = values.filter_map(|(index_key, value)| match key::parse(index_key)? {
                Named::Bucket { name } => Some((String::from_utf8(name).ok()?, Bucket::decode(value)?)),
                Named::Object { .. } | Named::Upload { .. } | Named::Part { .. } => None,
            });
            buckets.collect()
        };
        recovered.buckets = found.len() as u64;
        for (name, bucket) in found {
            self.call_all(|| Request::InstallBucket {
                name: name.clone(),
                bucket: bucket.clone(),
            })
            .await;
        }
        self.install_lost_buckets(recovered).await;
    }

    /// A bucket is deleted only when it is empty, and no object comes before its bucket: one that has none lost it to
    /// damage, also if nothing else shows it. It is in a bucket of that name from here on, so that it can be read.
    async fn install_lost_buckets(self: &Rc<Self>, recovered: &mut Recovered) {
        let replies = self.call_all(|| Request::BucketsWanted).await;
        let lost: BTreeSet<BucketId> = replies
            .into_iter()
            .flat_map(|reply| match reply {
                Reply::BucketsWanted(wanted) => wanted,
                other => unreachable!("wanted buckets are answered by them, not {other:?}"),
            })
            .collect();
        for &bucket in &lost {
            self.call_all(|| Request::InstallLostBucket { bucket }).await;
        }
        recovered.buckets_lost = lost.len() as u64;
        if !lost.is_empty() {
            self.note_damage();
        }
    }

    /// Buckets that objects of this core are in, and that nobody knows.
    pub fn buckets_wanted(&self) -> BTreeSet<BucketId> {
        let buckets = self.buckets.borrow();
        let assembly = self.assembly.borrow();
        let there = assembly
            .changes
            .iter()
            .filter(|(_, change)| change.value.is_some());
        there
            .filter_map(|(index_key, _)| match key::parse(index_key)? {
                Named::Object { bucket, .. } => Some(bucket),
                Named::Upload { .. } | Named::Part { .. } | Named::Bucket { .. } => None,
            })
            .filter(|bucket| !buckets.contains(*bucket))
            .collect()
    }

    /// Makes what was recovered the index, without what is gone.
    fn adopt(self: &Rc<Self>, recovered: &mut Recovered) {
        let changes = std::mem::take(&mut self.assembly.borrow_mut().changes);
        let damaged = self.assembly.borrow().damaged;
        // The last upload that is known to have ended: its parts come right behind it.
        let mut ended_upload = Vec::new();
        for (index_key, change) in changes {
            let Some(value) = change.value else {
                self.account_tombstone(change.home_segment, change.lives);
                if key::is_upload(&index_key) {
                    ended_upload = index_key;
                }
                continue;
            };
            match self.judge(&index_key, &value, recovered) {
                Verdict::Sound => {}
                Verdict::Unreadable => {
                    recovered.orphans += 1;
                    self.note(COORDINATOR, Note::Damaged);
                    continue;
                }
                Verdict::Orphan => {
                    let has_ended = !ended_upload.is_empty() && index_key.starts_with(&ended_upload);
                    if !damaged || has_ended {
                        continue;
                    }
                    // Nobody asks for it, and what it refers to stays in place.
                    recovered.orphans += 1;
                }
            }
            let entry = Entry {
                sequence: change.sequence,
                home_segment: change.home_segment.0,
                home_bytes: change.home_bytes,
                lives: change.lives,
                value,
            };
            self.account_here(change.home_segment, i64::from(change.home_bytes));
            self.holdings.came(&index_key, &entry.value);
            for extent in extents_of(&index_key, &entry.value) {
                if !self.assembly.borrow().segments.contains(&extent.segment) {
                    recovered.extents_missing += 1;
                }
                self.account_here(extent.segment, i64::from(extent.disk_bytes()));
            }
            self.index.borrow_mut().put(&index_key, entry);
        }
    }

    /// Whether an entry's value can be read, and its bucket and upload exist.
    fn judge(&self, index_key: &[u8], value: &[u8], recovered: &mut Recovered) -> Verdict {
        let buckets = self.buckets.borrow();
        let mut is_orphan = false;
        let is_readable = match key::parse(index_key).expect("checked when it was sent") {
            Named::Object { bucket, .. } => {
                recovered.objects += u64::from(buckets.contains(bucket));
                recovered.objects_of_lost_buckets += u64::from(buckets.is_lost(bucket));
                is_orphan = !buckets.contains(bucket);
                Object::decode(value).is_some_and(|object| self.are_within_volume(&object.extents))
            }
            Named::Upload { bucket, .. } => {
                recovered.uploads += u64::from(buckets.contains(bucket));
                is_orphan = !buckets.contains(bucket);
                Upload::decode(value).is_some()
            }
            Named::Part {
                bucket, key, upload, ..
            } => {
                let index = self.index.borrow();
                // Parts sort right behind their upload, so it was adopted before them if it is still there.
                is_orphan = index.get(&key::upload(bucket, &key, upload)).is_none();
                Part::decode(value).is_some_and(|part| self.are_within_volume(&part.extents))
            }
            Named::Bucket { .. } => Bucket::decode(value).is_some(),
        };
        if !is_readable {
            warn!("weft: a record holds a value that this release cannot read; its key is left out");
            return Verdict::Unreadable;
        }
        if is_orphan {
            Verdict::Orphan
        } else {
            Verdict::Sound
        }
    }

    fn are_within_volume(&self, extents: &[crate::engine::entry::Extent]) -> bool {
        let shape = self.io.volume();
        extents.iter().all(|extent| {
            extent.segment.0 < shape.segments_max
                && u64::from(extent.offset) + u64::from(extent.disk_bytes())
                    <= u64::from(shape.segment_size_bytes)
        })
    }

    /// Reads a stretch of a segment, in operations of at most [`SCAN_BYTES`].
    async fn read_window(&self, segment: SegmentId, from: u32, length: u32) -> Result<Vec<u8>, RecoverError> {
        debug_assert!(length.is_multiple_of(DISK_ALIGN_BYTES as u32));
        let mut window = Vec::with_capacity(length as usize);
        let mut at = from;
        while at < from + length {
            let piece = (from + length - at).min(SCAN_BYTES);
            let read = self.io.read(segment, at, piece).await;
            let read = read.map_err(|error| RecoverError::Disk {
                segment: Some(segment),
                error,
            })?;
            window.extend_from_slice(read.as_ref());
            at += piece;
        }
        Ok(window)
    }

    async fn barrier(self: &Rc<Self>, stage: u8) {
        self.call(COORDINATOR, Request::Barrier { stage }).await;
    }

    /// Coordinator: a core has come to a stage; when all have, all go on.
    pub fn arrive(self: &Rc<Self>, stage: u8, to: ReplyTo) {
        let all = {
            let mut assembly = self.assembly.borrow_mut();
            let waiting = assembly.waiting.entry(stage).or_default();
            waiting.push(to);
            if waiting.len() < self.io.cores() {
                return;
            }
            assembly.waiting.remove(&stage).expect("just filled")
        };
        for to in all {
            self.reply(to, Reply::Done);
        }
    }

    /// Coordinator: a core's survey; when all are in, everyone gets all.
    pub fn take_survey(self: &Rc<Self>, survey: Survey, to: ReplyTo) {
        let (all, surveyors) = {
            let mut assembly = self.assembly.borrow_mut();
            assembly.survey.segments.extend(survey.segments);
            assembly.survey.poisoned.extend(survey.poisoned);
            assembly.survey.newest_epoch = assembly.survey.newest_epoch.max(survey.newest_epoch);
            assembly.surveyors.push(to);
            if assembly.surveyors.len() < self.io.cores() {
                return;
            }
            (
                std::mem::take(&mut assembly.survey),
                std::mem::take(&mut assembly.surveyors),
            )
        };
        let all = Survey {
            segments: with_missing(all.segments, self.io.segments_known()),
            ..all
        };
        self.space.borrow_mut().survey(&all);
        for to in surveyors {
            self.reply(to, Reply::Surveyed(all.clone()));
        }
    }
}

/// Adds those that are not there. Segments are made in order of their number, each when the one before it is there, so
/// one that is missing among them was there once; and so were the first `known`.
fn with_missing(mut segments: Vec<FoundSegment>, known: u32) -> Vec<FoundSegment> {
    let there: BTreeSet<SegmentId> = segments.iter().map(|found| found.segment).collect();
    let made = there.last().map_or(0, |last| last.0 + 1).max(known);
    let missing = (0..made).map(SegmentId).filter(|id| !there.contains(id));
    segments.extend(missing.map(|segment| FoundSegment {
        segment,
        generation: 0,
        content: Found::Missing,
    }));
    segments
}

/// What an entry of the log is to the index.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Sound,
    /// Its bucket or upload is not known.
    Orphan,
    Unreadable,
}

#[derive(Default)]
struct ShareSurvey {
    survey: Survey,
    logs: Vec<FoundLog>,
    /// Of segments that are marked free.
    freed: Vec<SegmentHeader>,
}

/// A log, and how far it was durable at most, if that is known.
struct FoundLog {
    header: SegmentHeader,
    watermark: Option<u32>,
}

/// A scan of one log.
struct Scan {
    header: SegmentHeader,
    watermark: Option<u32>,
    window_bytes: u32,
    first_batch_only: bool,
    batches_damaged: u64,
    /// Whole batches: offset, length on disk, number.
    batches: Vec<(u32, u32, u32)>,
    /// Where and how the log ends, and the number that the next batch would have had.
    end: Option<(u32, u32, LogEnd)>,
}

impl Scan {
    fn new(log: &FoundLog, window_bytes: u32) -> Scan {
        Scan {
            header: log.header,
            watermark: log.watermark,
            window_bytes,
            first_batch_only: false,
            batches_damaged: 0,
            batches: Vec::new(),
            end: None,
        }
    }
}

fn recovered_change(home: &SegmentHeader, record: &RecordRef<'_>, change: Change<'_>) -> RecoveredChange {
    let (key, value) = (change.key(), change.value());
    RecoveredChange {
        key: key.to_vec(),
        sequence: record.sequence(),
        place: (home.generation, record.offset_in_segment()),
        home_segment: SegmentId(home.segment),
        lives: Lives::one(home.generation),
        home_bytes: change_length(key.len(), value.len()) as u32,
        value: match change {
            Change::Put { value, .. } => Some(value.into()),
            Change::Delete { .. } => None,
        },
    }
}
