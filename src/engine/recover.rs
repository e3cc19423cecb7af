//! Recovery: from the last manifests and the logs behind them, whoever wrote them, to each key's present owner.
//!
//! 1. Each core reads the headers of its share of the segments, and the manifests in index segments. The coordinator
//!    gathers this survey and everyone gets all of it: with it, which boot's manifests count, and which logs are not
//!    in the runs that they name.
//! 2. Of these, each core reads the first batch of its share: there a batch that failed is declared void. Everyone gets
//!    all of that, too.
//! 3. Each core scans its share of the logs and sends each change to the core that owns the key now, which
//!    keeps the one with the highest sequence. That, in front of the runs, is its index.
//! 4. The coordinator, which owns the buckets, makes them known. Then each owner drops what is gone and accounts for
//!    what is left (`audit`).
//!
//! A torn tail ends a log. Damage in the middle is an alarm, and what follows it is kept.
//!
//! Invariant: a start that met damage knows only a part of what was stored, so it drops nothing for want of what names
//! it, and nothing that was on the volume before is freed in its run. One with a volume missing writes nothing at all. Objects whose bucket's record is lost are in a
//! bucket that says so, and takes no change. All of it comes from what lies on the disk: the next start finds the same.
//! Only an operator who gives up what is lost ([`Loss::Accepted`]) has such a start drop and free as any other.

use crate::engine::Machine;
use crate::engine::audit::Stock;
use crate::engine::core::{COORDINATOR, Core, ReplyTo, owner_among};
use crate::engine::entry::{Bucket, Extent, Object, Part, Upload};
use crate::engine::message::{
    Found, FoundSegment, Note, PoisonedTail, Purpose, RecoveredChange, Refusal, Reply, Request, Survey,
};
use crate::engine::pages::Held;
use crate::engine::planted::{Fault, planted};
use crate::engine::progress::StartStage;
use crate::engine::space::Before;
use crate::index::key::{self, Named};
use crate::index::{
    Base, Cursor, Entry, Go, INDEX_START, LogPosition, Manifest, RunPlace, manifest_copies, manifest_offset,
};
use crate::io::{CoreId, DISK_ALIGN_BYTES, SEGMENTS_PER_VOLUME, SegmentId, VolumeState};
use crate::log::{
    BatchRef, BatchWriter, Change, HeaderError, LOG_START, LogEnd, LogScanner, RecordKind, RecordRef,
    ScanStep, SegmentHeader, SegmentKind, WATERMARK_OFFSET, decode_watermark, is_of_an_empty_log,
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
/// Changes that become a part of the index before others of the core have their turn.
const CHANGES_AT_ONCE: usize = 1000;
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
    /// Entries of the index's runs. If there are any, objects and uploads are counted while clients are served, and not
    /// here.
    pub entries: u64,
    /// Batches that were durable once and are damaged now.
    pub batches_damaged: u64,
    /// Segments whose header is damaged.
    pub segments_unreadable: u64,
    /// Segments that an earlier run made, and that are not there.
    pub segments_missing: u64,
    /// Manifests that are lost.
    pub manifests_missing: u64,
    /// Pages of the index that cannot be read.
    pub pages_unreadable: u64,
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
            (&mut self.entries, share.entries),
            (&mut self.batches_damaged, share.batches_damaged),
            (&mut self.segments_unreadable, share.segments_unreadable),
            (&mut self.segments_missing, share.segments_missing),
            (&mut self.manifests_missing, share.manifests_missing),
            (&mut self.pages_unreadable, share.pages_unreadable),
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
            + self.manifests_missing
            + self.pages_unreadable
            + self.extents_missing
            + self.buckets_lost;
        damage > 0
    }
}

/// What a run makes of it when something that was stored is lost.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Loss {
    /// It may come back: whatever was on the volume is kept as it is.
    #[default]
    MayBeMended,
    /// It is given up: what nothing names any more is dropped, and its room used again.
    Accepted,
}

/// Why a volume cannot be opened.
#[derive(Debug)]
pub enum RecoverError {
    /// The disk does not let the index be read.
    Index,
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
            RecoverError::Index => f.write_str(
                "the index cannot be read: see what the kernel says of the disk (dmesg), then start again, or copy the \
                 directory to a sound disk and start there",
            ),
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
    pub segments: BTreeSet<SegmentId>,
    /// Some core met damage.
    pub damaged: bool,
    /// Some core could not count all that there is.
    pub uncounted: bool,
    /// Coordinator: surveys that have arrived, and who waits for all of them.
    survey: Survey,
    surveyors: Vec<ReplyTo>,
    is_surveyed: bool,
    /// Uploads that ended in the logs that were read: their parts are gone.
    pub ended_uploads: Vec<Vec<u8>>,
    /// Coordinator: cores waiting at each stage.
    waiting: BTreeMap<u8, Vec<ReplyTo>>,
}

const STAGE_SCANNED: u8 = 1;
const STAGE_INDEXED: u8 = 2;
const STAGE_BUCKETS: u8 = 3;
const STAGE_TAKEN: u8 = 4;
const STAGE_ACCOUNTED: u8 = 5;
/// What the index says of buckets, in order of their names, comes before all else.
const BUCKETS_FROM: &[u8] = b"b";

impl<I: Machine> Core<I> {
    /// Rebuilds this core's share of the state. Every core of the run calls this once.
    pub async fn recover(self: &Rc<Self>) -> Result<Recovered, RecoverError> {
        let mut recovered = Recovered::default();
        let surveyed = self.survey_share(&mut recovered).await?;
        let survey = self.exchange(surveyed.survey).await;
        self.note_segments(&survey, &mut recovered);
        let found = survey.manifests.iter();
        let base = Base::of(found.map(|(segment, manifest)| (segment.0, manifest)));
        if self.is_coordinator() {
            let is_there = |generation| survey.segments.iter().any(|found| found.generation == generation);
            recovered.manifests_missing += base.missing().count() as u64 + base.outdated(is_there);
            self.tell_what_may_be_missing(&base);
        }
        self.take_runs(&base);
        let (needed, unneeded): (Vec<_>, Vec<_>) = surveyed
            .indexes
            .into_iter()
            .partition(|index| base.segments.contains(&index.header.segment));
        self.settle_manifests(&needed).await?;
        self.settle_freed(&surveyed.freed, survey.newest_epoch).await?;
        let mut unneeded: Vec<SegmentId> = unneeded
            .iter()
            .map(|index| SegmentId(index.header.segment))
            .collect();
        let mut logs: Vec<FoundLog> = Vec::new();
        for log in surveyed.logs {
            let segment = SegmentId(log.header.segment);
            match base.tail_of(&log.header) {
                Some(from) => logs.push(FoundLog { from, ..log }),
                None => unneeded.push(segment),
            }
        }
        for log in &logs {
            self.progress.log_found(log.expected_bytes());
        }
        let poisoned = self.exchange_poison(&logs).await?;
        self.begin_stage(StartStage::Log);
        let mut scanned_bytes = 0;
        for log in &logs {
            let bytes = self.scan(log, &poisoned, &mut recovered).await?;
            scanned_bytes += bytes;
            if bytes == 0 && log.from.batch == 0 {
                unneeded.push(SegmentId(log.header.segment));
            }
        }
        self.note(COORDINATOR, Note::Unneeded { segments: unneeded });
        self.commits.note_replayed(scanned_bytes);
        self.tell_damage(&recovered);
        self.barrier(STAGE_SCANNED).await;
        self.begin_stage(StartStage::Index);
        self.take_tail(&mut recovered).await;
        // Each is asked for the buckets of all its keys next.
        self.barrier(STAGE_INDEXED).await;
        if self.is_coordinator() {
            self.install_recovered_buckets(&mut recovered).await?;
            if self.assembly.borrow().damaged {
                self.call_all(|| Request::Damaged).await;
            }
            if self.may_be_mended() {
                self.space.borrow_mut().keep_what_was_there();
            }
        }
        self.barrier(STAGE_BUCKETS).await;
        if self.may_be_mended() {
            self.checkpoints.switch_off();
        }
        self.drop_what_is_gone(&mut recovered).await?;
        let stock = self.take_stock();
        let is_all_in_logs = base.epoch.is_none();
        self.checkpoints.note_base(base);
        if is_all_in_logs {
            self.account_for_all(stock, &mut recovered).await;
            return Ok(recovered);
        }
        // From here on clients change things: on every core what was there before is set down.
        self.barrier(STAGE_TAKEN).await;
        // All that is on disk is read for that: it takes longer than clients should wait.
        recovered.entries = self
            .checkpoints
            .places()
            .iter()
            .map(|place| place.run.entries)
            .sum();
        let core = self.clone();
        if self.loss == Loss::Accepted {
            // What is given up is known before anything can change: else what is released might not have been counted.
            self.account_for_all(stock, &mut recovered).await;
            self.io.spawn(async move {
                if core.pages.given_up() > 0 {
                    core.merge_all(Purpose::Moves).await;
                }
                core.merge_when_audited().await;
            });
            return Ok(recovered);
        }
        let found = recovered;
        self.io.spawn(async move {
            let mut recovered = found;
            core.account_for_all(stock, &mut recovered).await;
            core.merge_when_audited().await;
        });
        Ok(recovered)
    }

    /// Counts what is live, and with all cores having done so the segments may be reused.
    async fn account_for_all(self: &Rc<Self>, stock: Stock, recovered: &mut Recovered) {
        if planted(Fault::EmptyEarly) && self.is_coordinator() {
            self.open_space(Before::Reused);
        }
        self.audit(stock, recovered).await;
        self.checkpoints.set_audited();
        self.flush_ledger();
        self.tell_damage(recovered);
        self.barrier(STAGE_ACCOUNTED).await;
        if self.is_coordinator() {
            let (damaged, uncounted) = {
                let assembly = self.assembly.borrow();
                (assembly.damaged, assembly.uncounted)
            };
            self.open_space(match (damaged, self.loss) {
                (false, _) => Before::Reused,
                (true, Loss::Accepted) if !uncounted => Before::GivenUp,
                (true, _) => Before::Kept,
            });
            if damaged && self.loss == Loss::Accepted {
                // So that the next start goes by manifests of this boot, and meets no more what is given up.
                let core = self.clone();
                self.io.spawn(async move { core.checkpoint_everywhere().await });
            }
        }
    }

    /// Which manifests a volume that is missing had is not known: the latest that are found may be older ones.
    fn tell_what_may_be_missing(&self, base: &Base) {
        let last = self.io.boot_epoch();
        match base.epoch {
            _ if !self.io.is_read_only() => {}
            Some(epoch) if epoch == last => {}
            Some(epoch) => warn!(
                "weft: DEGRADED: the index is as start {epoch} left it; what start {last} wrote of it, if anything, is on \
                 what is missing: objects may be as they were before"
            ),
            None => warn!(
                "weft: DEGRADED: there is no index but what logs say; what was written of it, if anything, is on what is \
                 missing"
            ),
        }
    }

    /// Every core has come to `stage`, or is about to.
    fn begin_stage(&self, stage: StartStage) {
        if self.is_coordinator() {
            self.progress.begin(stage);
        }
    }

    async fn exchange(self: &Rc<Self>, survey: Survey) -> Survey {
        match self.call(COORDINATOR, Request::Survey(survey)).await {
            Reply::Surveyed(survey) => survey,
            other => unreachable!("a survey is answered by one, not {other:?}"),
        }
    }

    /// What all logs that will be scanned declare void.
    async fn exchange_poison(self: &Rc<Self>, logs: &[FoundLog]) -> Result<Vec<PoisonedTail>, RecoverError> {
        let mut poisoned = Vec::new();
        for log in logs {
            poisoned.extend(self.poison_in(log).await?);
        }
        let survey = Survey {
            poisoned,
            ..Survey::default()
        };
        Ok(self.exchange(survey).await.poisoned)
    }

    /// The runs that hold this core's keys: its own, or those of all if there were other cores.
    fn take_runs(&self, base: &Base) {
        let (core, cores) = (self.io.core().0, self.io.cores() as u16);
        let manifests = base.manifests.values();
        let mixed = base.cores != cores;
        let mine = manifests.filter(|manifest| mixed || manifest.core == core);
        let places: Vec<RunPlace> = mine.flat_map(|manifest| manifest.runs.iter().cloned()).collect();
        let others_too = mixed && !places.is_empty();
        self.checkpoints.adopt(places, others_too);
        let mut index = self.index.borrow_mut();
        index.set_runs(self.checkpoints.list());
        if others_too {
            let (core, cores) = (self.io.core(), self.io.cores());
            index.show_only(Some(Rc::new(move |key| owner_of(key, cores) == Some(core))));
        }
    }

    async fn survey_share(&self, recovered: &mut Recovered) -> Result<ShareSurvey, RecoverError> {
        let mut share = ShareSurvey::default();
        let segments = self
            .io
            .segments()
            .await
            .map_err(|error| RecoverError::Disk { segment: None, error })?;
        let (cores, core) = (self.io.cores(), usize::from(self.io.core().0));
        let mut segments = segments;
        segments.retain(|segment| segment.0 as usize % cores == core);
        self.progress.segments_found(segments.len() as u64);
        for segment in segments {
            let (bytes, header) = self.read_header(segment).await?;
            let (header, content, generation) = match header {
                Ok(header) => {
                    let content = match header.kind {
                        SegmentKind::Log => Found::Log,
                        SegmentKind::Data => Found::Data,
                        SegmentKind::Free => Found::Free,
                        SegmentKind::Index => Found::Index,
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
            self.progress.segment_read();
            let Some(header) = header else { continue };
            if header.kind == SegmentKind::Free {
                share.freed.push(header);
                continue;
            }
            share.survey.newest_epoch = share.survey.newest_epoch.max(header.epoch);
            match header.kind {
                SegmentKind::Log => share.logs.push(FoundLog {
                    header,
                    watermark: decode_watermark(&bytes[WATERMARK_OFFSET as usize..], &header),
                    from: LogPosition {
                        generation: header.generation,
                        offset: LOG_START,
                        batch: 0,
                    },
                }),
                SegmentKind::Index => {
                    let front = self.read_window(segment, 0, INDEX_START).await?;
                    let manifest = Manifest::latest(&front, &header);
                    let lost = Manifest::slots_lost(&front, &header);
                    if lost > 0 {
                        warn!("weft: index segment {segment}: a manifest is damaged in both copies");
                    }
                    recovered.manifests_missing += lost as u64;
                    let found = manifest.clone().map(|manifest| (segment, manifest));
                    share.survey.manifests.extend(found);
                    share.indexes.push(FoundIndex { header, manifest });
                }
                SegmentKind::Data | SegmentKind::Free => {}
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
    pub fn tell_damage(self: &Rc<Self>, recovered: &Recovered) {
        if recovered.is_damaged() || self.io.is_read_only() {
            self.note(COORDINATOR, Note::Damaged);
        }
    }

    /// Something that was stored is lost, and may come back: what was there is kept as it is.
    pub fn may_be_mended(&self) -> bool {
        self.assembly.borrow().damaged && self.loss == Loss::MayBeMended
    }

    /// Some core met damage.
    pub fn note_damage(&self) {
        self.assembly.borrow_mut().damaged = true;
    }

    /// The poison records at the front of a log's first batch.
    async fn poison_in(&self, log: &FoundLog) -> Result<Vec<PoisonedTail>, RecoverError> {
        // One of which a part is in the runs was begun before that part.
        if log.from.batch > 0 {
            return Ok(Vec::new());
        }
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

    /// Reads a log and sends its changes to their owners; gives how many bytes that were.
    async fn scan(
        self: &Rc<Self>,
        log: &FoundLog,
        poisoned: &[PoisonedTail],
        recovered: &mut Recovered,
    ) -> Result<u64, RecoverError> {
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
        self.for_each_batch(&mut scan, |batch, _| {
            if void_from.is_some_and(|from| batch.offset_in_segment() >= from) {
                return Vec::new();
            }
            let mut changes = Vec::new();
            for record in batch.records() {
                records += 1;
                for change in record.changes() {
                    changes.push(recovered_change(header, &record, change));
                }
            }
            changes
        })
        .await?;
        self.settle_log(&scan, void_from).await?;
        // What was not there need not be read.
        let left = log.expected_bytes().saturating_sub(scan.read_bytes);
        self.progress.log_read(left);
        recovered.records += records;
        recovered.batches_damaged += scan.batches_damaged;
        let tail = scan.end.map_or(scan.from.offset, |(tail, ..)| tail);
        Ok(u64::from(tail.saturating_sub(scan.from.offset)))
    }

    /// Makes what was read from a log durable, and ends the log where it ended.
    ///
    /// A process that was killed, or whose sync failed, leaves a last batch that the device may show now and
    /// forget with the power, or the other way round. So the last batch that counts is written again, as it was
    /// read, with the watermark, and behind it a seal takes the place of whatever may still come up there.
    async fn settle_log(&self, scan: &Scan, void_from: Option<u32>) -> Result<(), RecoverError> {
        let Some((tail, next_number, end)) = scan.end.filter(|_| !self.io.is_read_only()) else {
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

    /// Makes the manifests durable that this start goes by. A killed run may have left one volatile: with the power it
    /// would go, after what only the one before it names was freed.
    async fn settle_manifests(&self, found: &[FoundIndex]) -> Result<(), RecoverError> {
        if self.io.is_read_only() || planted(Fault::ManifestUnsettled) {
            return Ok(());
        }
        for FoundIndex { header, manifest } in found {
            let Some(manifest) = manifest else { continue };
            let bytes = manifest.encode(header).expect("it was read from there");
            for copy in manifest_copies() {
                let (segment, offset) = (SegmentId(header.segment), manifest_offset(manifest.number, copy));
                self.insist(segment, async || {
                    let mut buffer = self.io.buffer(bytes.len());
                    buffer.as_mut().copy_from_slice(&bytes);
                    self.io.write_synced(segment, offset, buffer).await
                })
                .await?;
            }
        }
        Ok(())
    }

    /// Makes the marks of freed logs durable that a killed run may have left volatile: tombstones that they
    /// held or outlived may be gone. Each run that came up has settled those of the runs before it.
    async fn settle_freed(&self, freed: &[SegmentHeader], newest_epoch: u32) -> Result<(), RecoverError> {
        let may_be_volatile =
            |header: &&SegmentHeader| header.epoch >= newest_epoch && !self.io.is_read_only();
        for header in freed.iter().filter(may_be_volatile) {
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
        let mut scanner =
            LogScanner::new(&scan.header, scan.watermark).from(scan.from.offset, scan.from.batch);
        let (mut window, mut offset) = (Vec::new(), 0);
        loop {
            let out = match scanner.next(&window, offset) {
                // The first batch is not whole: nothing can be said of it without a search.
                ScanStep::NeedMore { from, .. } if scan.first_batch_only && from > scan.from.offset => {
                    return Ok(());
                }
                ScanStep::NeedMore { from, length_min } => {
                    let rest = scan.header.segment_size_bytes - from;
                    if !scan.first_batch_only {
                        let read_bytes =
                            u64::from(from.saturating_sub(scan.from.offset)).max(scan.read_bytes);
                        self.progress.log_read(read_bytes - scan.read_bytes);
                        scan.read_bytes = read_bytes;
                    }
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
            let Some(owner) = owner_of(&change.key, self.io.cores()) else {
                warn!("weft: a record names a key that this release does not know; it is left alone");
                continue;
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
                // A change that the cleaner moved keeps its sequence; where it lay before is free by now.
                Some(known) if (known.sequence, known.place) < (change.sequence, change.place) => {
                    *known = change
                }
                Some(_) => {}
            }
        }
    }

    async fn install_recovered_buckets(
        self: &Rc<Self>,
        recovered: &mut Recovered,
    ) -> Result<(), RecoverError> {
        let mut found: Vec<(String, Bucket)> = Vec::new();
        let guard = self.guard();
        let held = Held::passing_over(&self.pages);
        let mut cursor = Cursor::new(BUCKETS_FROM.to_vec());
        let walked = self.walk_with(&mut cursor, &held, |index_key, entry| {
            let Some(Named::Bucket { name }) = key::parse(index_key) else {
                return Go::Stop;
            };
            let name = String::from_utf8(name).ok();
            found.extend(name.zip(Bucket::decode(entry.value)));
            Go::On
        });
        walked.await.map_err(|_| RecoverError::Index)?;
        let passed_over = held.passed_over();
        drop((held, guard));
        if passed_over > 0 {
            // A newer record, or a bucket's end, may lie in what was passed over: only what is sure to be the last word.
            let mut sure = Vec::new();
            for (name, bucket) in std::mem::take(&mut found) {
                let _guard = self.guard();
                if matches!(self.find_entry(&key::bucket(&name)).await, Ok(Some(_))) {
                    sure.push((name, bucket));
                }
            }
            found = sure;
            recovered.pages_unreadable += passed_over;
            self.note_damage();
            self.call_all(|| Request::BucketsMissing).await;
        }
        recovered.buckets = found.len() as u64;
        for (name, bucket) in found {
            self.call_all(|| Request::InstallBucket {
                name: name.clone(),
                bucket: bucket.clone(),
            })
            .await;
        }
        self.install_lost_buckets(recovered).await
    }

    /// A bucket is deleted only when it is empty, and no object comes before its bucket: one that has none lost it to
    /// damage, also if nothing else shows it. It is in a bucket of that name from here on, so that it can be read.
    async fn install_lost_buckets(self: &Rc<Self>, recovered: &mut Recovered) -> Result<(), RecoverError> {
        let replies = self.call_all(|| Request::BucketsWanted).await;
        let mut lost = BTreeSet::new();
        for reply in replies {
            match reply {
                Reply::BucketsWanted(wanted) => {
                    let (wanted, passed_over) = wanted.map_err(|_| RecoverError::Index)?;
                    lost.extend(wanted);
                    if passed_over > 0 {
                        recovered.pages_unreadable += passed_over;
                        self.note_damage();
                    }
                }
                other => unreachable!("wanted buckets are answered by them, not {other:?}"),
            }
        }
        for &bucket in &lost {
            self.call_all(|| Request::InstallLostBucket { bucket }).await;
        }
        recovered.buckets_lost = lost.len() as u64;
        if !lost.is_empty() {
            self.note_damage();
        }
        Ok(())
    }

    /// What was read of the index; `None` if a checksum refused a part of it, which is noted.
    pub fn unless_damaged<T>(
        &self,
        read: Result<T, Refusal>,
        recovered: &mut Recovered,
    ) -> Result<Option<T>, RecoverError> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(Refusal::Damaged | Refusal::OutOfReach) => {
                recovered.pages_unreadable += 1;
                self.note_damage();
                Ok(None)
            }
            Err(_) => Err(RecoverError::Index),
        }
    }

    /// Has what was read from the logs stand in front of the runs.
    async fn take_tail(self: &Rc<Self>, recovered: &mut Recovered) {
        let changes = std::mem::take(&mut self.assembly.borrow_mut().changes);
        for (at, (index_key, change)) in changes.into_iter().enumerate() {
            if at % CHANGES_AT_ONCE == CHANGES_AT_ONCE - 1 {
                self.io.yield_now().await;
            }
            let Some(value) = change.value else {
                if key::is_upload(&index_key) {
                    self.assembly.borrow_mut().ended_uploads.push(index_key.clone());
                }
                self.index.borrow_mut().remove(&index_key, change.sequence);
                continue;
            };
            if !self.is_readable(&index_key, &value) {
                warn!("weft: a record holds a value that this release cannot read; its key is left out");
                recovered.orphans += 1;
                self.note(COORDINATOR, Note::Damaged);
                continue;
            }
            let entry = Entry {
                sequence: change.sequence,
                value,
            };
            self.index.borrow_mut().put(&index_key, entry);
        }
    }

    fn is_readable(&self, index_key: &[u8], value: &[u8]) -> bool {
        match key::parse(index_key).expect("checked when it was sent") {
            Named::Object { .. } => {
                Object::decode(value).is_some_and(|object| self.are_within_volume(&object.extents))
            }
            Named::Upload { .. } => Upload::decode(value).is_some(),
            Named::Part { .. } => {
                Part::decode(value).is_some_and(|part| self.are_within_volume(&part.extents))
            }
            Named::Bucket { .. } => Bucket::decode(value).is_some(),
        }
    }

    fn are_within_volume(&self, extents: &[Extent]) -> bool {
        let shape = self.io.volume();
        extents.iter().all(|extent| {
            is_within(self.io.volumes(), extent.segment)
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
            assembly.survey.manifests.extend(survey.manifests);
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
        // The second one is of what logs declare void.
        let is_first = !std::mem::replace(&mut self.assembly.borrow_mut().is_surveyed, true);
        let all = match is_first {
            true => Survey {
                segments: with_missing(all.segments, self.io.volumes()),
                ..all
            },
            false => all,
        };
        if is_first {
            self.space.borrow_mut().survey(&all);
        }
        for to in surveyors {
            self.reply(to, Reply::Surveyed(all.clone()));
        }
    }
}

/// Adds those that are not there. Segments of a volume are made in order of their number, each when the one before it is there, so
/// one that is missing among them was there once; and so were the first that are known.
fn with_missing(mut segments: Vec<FoundSegment>, volumes: &[VolumeState]) -> Vec<FoundSegment> {
    let there: BTreeSet<SegmentId> = segments.iter().map(|found| found.segment).collect();
    for (volume, state) in volumes.iter().enumerate() {
        // What is on a volume that is missing is not known.
        let VolumeState::Present { segments_known, .. } = *state else {
            continue;
        };
        let all = SegmentId::new(volume, 0)..=SegmentId::new(volume, SEGMENTS_PER_VOLUME - 1);
        let last = there.range(all).next_back();
        let made = last.map_or(0, |last| last.place() + 1).max(segments_known);
        let missing = (0..made).map(|place| SegmentId::new(volume, place));
        let missing = missing.filter(|id| !there.contains(id));
        segments.extend(missing.map(|segment| FoundSegment {
            segment,
            generation: 0,
            content: Found::Missing,
        }));
    }
    segments
}

/// The core that owns an index key in a run with so many; `None` if it is none.
fn owner_of(index_key: &[u8], cores: usize) -> Option<CoreId> {
    Some(match key::parse(index_key)? {
        Named::Object { bucket, key }
        | Named::Upload { bucket, key, .. }
        | Named::Part { bucket, key, .. } => owner_among(cores, bucket, &key),
        Named::Bucket { .. } => COORDINATOR,
    })
}

/// Whether there may be such a segment.
fn is_within(volumes: &[VolumeState], id: SegmentId) -> bool {
    volumes.get(id.volume()).is_some_and(|state| match state {
        VolumeState::Present { segments_max, .. } => id.place() < *segments_max,
        VolumeState::Missing => true,
    })
}

#[derive(Default)]
struct ShareSurvey {
    survey: Survey,
    logs: Vec<FoundLog>,
    indexes: Vec<FoundIndex>,
    /// Of segments that are marked free.
    freed: Vec<SegmentHeader>,
}

/// An index segment, and the latest manifest in it.
struct FoundIndex {
    header: SegmentHeader,
    manifest: Option<Manifest>,
}

/// A log, and how far it was durable at most, if that is known.
struct FoundLog {
    header: SegmentHeader,
    watermark: Option<u32>,
    /// Where what is to be read begins.
    from: LogPosition,
}

impl FoundLog {
    /// How much of it there is to read, as far as can be told before.
    fn expected_bytes(&self) -> u64 {
        let end = self.watermark.unwrap_or(self.header.segment_size_bytes);
        u64::from(end.saturating_sub(self.from.offset))
    }
}

/// A scan of one log.
struct Scan {
    header: SegmentHeader,
    watermark: Option<u32>,
    from: LogPosition,
    window_bytes: u32,
    first_batch_only: bool,
    batches_damaged: u64,
    /// Bytes of it that were told as read.
    read_bytes: u64,
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
            from: log.from,
            window_bytes,
            first_batch_only: false,
            batches_damaged: 0,
            read_bytes: 0,
            batches: Vec::new(),
            end: None,
        }
    }
}

fn recovered_change(home: &SegmentHeader, record: &RecordRef<'_>, change: Change<'_>) -> RecoveredChange {
    RecoveredChange {
        key: change.key().to_vec(),
        sequence: record.sequence(),
        place: (home.generation, record.offset_in_segment()),
        value: match change {
            Change::Put { value, .. } => Some(value.into()),
            Change::Delete { .. } => None,
        },
    }
}
