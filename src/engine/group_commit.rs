//! Group commit: one task per core writes all records of its log, many in one write and one sync.
//!
//! While one batch is being written and synced the next gathers; nothing waits for company. A change enters
//! the index, and its requester gets an answer, only after the sync. After a failed write or sync nothing of
//! that batch is believed: all that was queued fails, the segment takes no more, and the next batch begins by
//! saying that the failed one is void.
//!
//! Bytes copied per record: its changes and inline body once, into the buffer that goes to disk.

use crate::engine::Machine;
use crate::engine::apply::extents_of;
use crate::engine::core::{Core, ReplyTo, count};
use crate::engine::entry::{EXTENT_BYTES, Extent, Layout};
use crate::engine::loading::Names;
use crate::engine::message::{Content, Lack, Outcome, PoisonedTail, Purpose, Refusal, Reply};
use crate::engine::planted::{Fault, planted};
use crate::engine::signal::Signal;
use crate::index::{INDEX_START, LogPosition, key};
use crate::io::SegmentId;
use crate::limits::{BATCH_BYTES_MAX, COMMIT_QUEUE_BYTES_MAX, FAILED_SEGMENTS_MAX, RECORD_BYTES_MAX};
use crate::log::{
    self, ALIGN_BYTES, BATCH_HEADER_BYTES, BatchWriter, LOG_START, POISON_RECORD_BYTES, SegmentHeader,
    watermark_past,
};
use futures_channel::oneshot;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// One change of the index, to be made by a record.
pub struct Change {
    pub key: Vec<u8>,
    /// `None` deletes the key.
    pub value: Option<Vec<u8>>,
}

impl Change {
    pub fn put(key: Vec<u8>, value: Vec<u8>) -> Change {
        Change {
            key,
            value: Some(value),
        }
    }

    pub fn delete(key: Vec<u8>) -> Change {
        Change { key, value: None }
    }

    fn as_log(&self) -> log::Change<'_> {
        match &self.value {
            Some(value) => log::Change::Put {
                key: &self.key,
                value,
            },
            None => log::Change::Delete { key: &self.key },
        }
    }
}

/// A record to be written: changes that become true together.
///
/// A body belongs to the first change, whose value ends with the extent that says where the body lies.
pub struct Record {
    pub sequence: u64,
    pub changes: Vec<Change>,
    pub body: Vec<u8>,
    /// The first change's extents were written for this record alone: if it does not come about, they are void.
    pub fresh_extents: bool,
    /// Of the cleaner: the record says of one key what is true already, and of its bytes that they lie elsewhere. These
    /// were written for it; the entry's other extents stay where they are.
    pub moved: Option<Vec<Extent>>,
}

impl Record {
    /// Changes nothing; it takes what the log has to say before it to stable storage.
    pub fn without_changes(sequence: u64) -> Record {
        Record {
            sequence,
            changes: Vec::new(),
            body: Vec::new(),
            fresh_extents: false,
            moved: None,
        }
    }

    fn length_bytes(&self) -> usize {
        let changes = self.changes.iter().map(|change| {
            log::change_length(
                change.key.len(),
                change.value.as_ref().map_or(0, |value| value.len()),
            )
        });
        log::record_length(changes.sum(), self.body.len())
    }
}

/// What waits for the next batch: a record and its answer, or an answer alone.
pub struct Queued {
    pub record: Option<Record>,
    pub outcome: Result<Outcome, Refusal>,
    pub to: ReplyTo,
}

/// A core's queue of changes, and what they will make true.
#[derive(Default)]
pub struct CommitQueue {
    queue: RefCell<VecDeque<Queued>>,
    /// What the cleaner moves goes before all else, which may wait for the room that it makes. No key is in both but
    /// where its move came first.
    moves: RefCell<VecDeque<Queued>>,
    queued_bytes: Cell<usize>,
    /// By key: the latest queued value, and how many queued records change the key.
    pending: RefCell<BTreeMap<Vec<u8>, Pending>>,
    arrived: Signal,
    /// A batch failed that no later one has declared void yet: what it holds may come true at the next start.
    unsettled: Cell<bool>,
    /// Behind the last batch that has been made true.
    position: Cell<LogPosition>,
    /// Bytes of batches that this run has written.
    written_bytes: Cell<u64>,
    /// Told when the log has been sealed behind what is queued now.
    sealing: RefCell<Vec<oneshot::Sender<()>>>,
}

struct Pending {
    records: usize,
    sequence: u64,
    value: Option<Vec<u8>>,
}

impl CommitQueue {
    pub fn is_pending(&self, key: &[u8]) -> bool {
        let pending = self.pending.borrow();
        !pending.is_empty() && pending.contains_key(key)
    }

    /// Shows the latest pending sequence and value of `key`.
    pub fn with_pending<T>(&self, key: &[u8], view: impl FnOnce(Option<(u64, Option<&[u8]>)>) -> T) -> T {
        let pending = self.pending.borrow();
        view(
            pending
                .get(key)
                .map(|pending| (pending.sequence, pending.value.as_deref())),
        )
    }

    /// Whether the cleaner is about to move what `key` has, and nothing else is about to change it.
    pub fn is_moving(&self, key: &[u8], sequence: u64) -> bool {
        // A change has a sequence of its own; a move has that of what it moves.
        self.with_pending(key, |pending| {
            pending.is_some_and(|(pending, _)| pending == sequence)
        })
    }

    /// All changes before this place of the log are in the index.
    pub fn position(&self) -> LogPosition {
        self.position.get()
    }

    /// Bytes of log that this run has written.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.get()
    }

    /// So many bytes of log were read at the start: a checkpoint spares the next start those, too.
    pub fn note_replayed(&self, bytes: u64) {
        self.written_bytes.set(self.written_bytes.get() + bytes);
    }

    /// Keys that queued records change.
    pub fn pending_keys(&self) -> Vec<Vec<u8>> {
        self.pending.borrow().keys().cloned().collect()
    }

    /// There may be room for what waits.
    pub fn look_again(&self) {
        self.arrived.raise();
    }

    /// Whether the queue takes no more until a batch is through.
    pub fn is_at_bound(&self) -> bool {
        self.queued_bytes.get() >= COMMIT_QUEUE_BYTES_MAX
    }

    /// Changes and answers that wait for the next batch, and bytes of the records among them.
    pub fn depth(&self) -> (usize, usize) {
        let waiting = self.queue.borrow().len() + self.moves.borrow().len();
        (waiting, self.queued_bytes.get())
    }

    /// Whether a failed batch may still come true.
    pub fn is_unsettled(&self) -> bool {
        self.unsettled.get()
    }

    fn push(&self, queued: Queued) {
        if let Some(record) = &queued.record {
            self.queued_bytes
                .set(self.queued_bytes.get() + record.length_bytes());
            let mut pending = self.pending.borrow_mut();
            for change in &record.changes {
                let records = pending.get(&change.key).map_or(0, |pending| pending.records);
                let now = Pending {
                    records: records + 1,
                    sequence: record.sequence,
                    value: change.value.clone(),
                };
                pending.insert(change.key.clone(), now);
            }
        }
        let is_move = queued
            .record
            .as_ref()
            .is_some_and(|record| record.moved.is_some());
        let queue = if is_move { &self.moves } else { &self.queue };
        queue.borrow_mut().push_back(queued);
        self.arrived.raise();
    }

    /// Takes answers and records off the front, up to `bytes_max` of records, but at least one item.
    fn take(&self, bytes_max: usize) -> Vec<Queued> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        // What does not fit holds up all behind it: they may be of the same key.
        'full: for queue in [&self.moves, &self.queue] {
            let mut queue = queue.borrow_mut();
            while let Some(next) = queue.front() {
                let length = next.record.as_ref().map_or(0, Record::length_bytes);
                if bytes + length > bytes_max && !taken.is_empty() {
                    break 'full;
                }
                bytes += length;
                taken.extend(queue.pop_front());
            }
        }
        self.queued_bytes.set(self.queued_bytes.get() - bytes);
        taken
    }

    fn is_empty(&self) -> bool {
        self.moves.borrow().is_empty() && self.queue.borrow().is_empty()
    }

    fn settle(&self, record: &Record) {
        let mut pending = self.pending.borrow_mut();
        for change in &record.changes {
            let waiting = pending.get_mut(&change.key).expect("a queued change is pending");
            waiting.records -= 1;
            if waiting.records == 0 {
                pending.remove(&change.key);
            }
        }
    }

    fn front_record_length(&self) -> Option<usize> {
        let length = |queue: &RefCell<VecDeque<Queued>>| {
            let queue = queue.borrow();
            let mut records = queue.iter().filter_map(|queued| queued.record.as_ref());
            records.next().map(Record::length_bytes)
        };
        length(&self.moves).or_else(|| length(&self.queue))
    }

    /// What the next segment is for. What grows was queued when there was room for it.
    fn purpose(&self) -> Purpose {
        match self.moves.borrow().is_empty() {
            true => Purpose::Release,
            false => Purpose::Moves,
        }
    }
}

/// Whether records that fail were given to the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attempt {
    None,
    Written,
}

/// The writer's place in the log.
#[derive(Default)]
struct Tail {
    open: Option<OpenLog>,
    /// Failed batches that the next one declares void.
    poisoned: Vec<PoisonedTail>,
}

struct OpenLog {
    header: SegmentHeader,
    /// No batch ends behind it before it is raised.
    watermark: u32,
    offset: u32,
    number: u32,
}

impl OpenLog {
    fn room(&self) -> usize {
        (self.header.segment_size_bytes - self.offset) as usize
    }

    fn position(&self) -> LogPosition {
        LogPosition {
            generation: self.header.generation,
            offset: self.offset,
            batch: self.number,
        }
    }
}

impl<I: Machine> Core<I> {
    /// Hands a change, or an answer that must wait for those before it, to the log's writer.
    pub fn enqueue(self: &Rc<Self>, queued: Queued) {
        if let Some(record) = &queued.record
            && record.length_bytes() > self.record_bytes_max()
        {
            self.discard_fresh(record);
            return self.reply_outcome(queued.to, Err(Refusal::TooLarge));
        }
        self.commits.push(queued);
    }

    /// Returns when all that is queued now has been answered.
    pub async fn commits_settled(self: &Rc<Self>) {
        let (sender, receiver) = oneshot::channel();
        let outcome = Ok(Outcome {
            sequence: 0,
            modified_ms: 0,
        });
        self.enqueue(Queued {
            record: None,
            outcome,
            to: ReplyTo::Local(sender),
        });
        receiver.await.expect("every queued answer is given");
    }

    /// Returns when all that is queued now has been answered, and the log is sealed behind it: the next start need not
    /// ask how it ends. What comes later begins another log.
    pub async fn seal_log(self: &Rc<Self>) {
        let (sender, receiver) = oneshot::channel();
        self.commits.sealing.borrow_mut().push(sender);
        self.commits.arrived.raise();
        receiver.await.expect("the log's writer runs as long as the core");
    }

    /// After a change that the disk failed: whether it is void now, on stable storage. Tries for a while.
    pub async fn failed_change_is_void(self: &Rc<Self>) -> bool {
        for _ in 0..VOID_ATTEMPTS {
            let (sender, receiver) = oneshot::channel();
            let outcome = Outcome {
                sequence: self.next_sequence(),
                modified_ms: 0,
            };
            // What matters is the poison before it.
            let record = Record::without_changes(outcome.sequence);
            self.enqueue(Queued {
                record: Some(record),
                outcome: Ok(outcome),
                to: ReplyTo::Local(sender),
            });
            match receiver.await.expect("every change is answered") {
                Reply::Outcome(Ok(_)) => return true,
                _ => self.io.sleep(VOID_PAUSE).await,
            }
        }
        false
    }

    /// The log's writer: one task per core, for as long as the run.
    pub async fn write_log(self: Rc<Self>) {
        let mut tail = Tail::default();
        loop {
            self.commits.arrived.wait().await;
            while !self.commits.is_empty() {
                match self.write_batch(&mut tail).await {
                    Ok(()) => {}
                    Err(Lack::Refused(refusal)) => self.fail_queue(refusal),
                    // Told when there is room; or a move comes, which makes some and has what it needs.
                    Err(Lack::Cleaning) => self.commits.arrived.wait().await,
                }
            }
            let sealing = self.commits.sealing.take();
            if !sealing.is_empty()
                && let Some(open) = tail.open.take()
            {
                self.seal_open(open).await;
            }
            for sender in sealing {
                let _ = sender.send(()); // One that went away need not know.
            }
        }
    }

    /// The longest record that a batch with poison records in front of it can still hold.
    fn record_bytes_max(&self) -> usize {
        let reserve = BATCH_HEADER_BYTES + FAILED_SEGMENTS_MAX * POISON_RECORD_BYTES;
        // An entry of the index must find room in an index segment as well.
        let segment_bytes = self.io.volume().segment_size_bytes - INDEX_START;
        RECORD_BYTES_MAX.min(log::record_bytes_max(segment_bytes) - reserve)
    }

    async fn write_batch(self: &Rc<Self>, tail: &mut Tail) -> Result<(), Lack> {
        let Some(first_length) = self.commits.front_record_length() else {
            self.finish_answers(self.commits.take(0));
            return Ok(());
        };
        if self.supply.is_read_only() {
            return Err(Lack::Refused(Refusal::ReadOnly));
        }
        let overhead = BATCH_HEADER_BYTES + tail.poisoned.len() * POISON_RECORD_BYTES;
        if tail
            .open
            .as_ref()
            .is_none_or(|open| open.room() < overhead + first_length)
        {
            self.open_next(tail).await?;
        }
        let open = tail.open.as_mut().expect("opened above");
        let mut batch = self
            .commits
            .take(open.room().min(BATCH_BYTES_MAX.max(overhead + first_length)) - overhead);
        let buffer = self.encode_batch(open, &tail.poisoned, &mut batch);
        let length = buffer.as_ref().len() as u32;
        if planted(Fault::EarlyAck) {
            self.answer_early(&mut batch);
        }
        if planted(Fault::EarlyIndex) {
            self.apply_all(&batch, SegmentId(open.header.segment));
        }
        let begun_ns = self.io.monotonic_ns();
        match self.write_and_sync(open, buffer).await {
            Ok(()) => {
                open.offset += length;
                open.number += 1;
                tail.poisoned.clear();
                self.commits.unsettled.set(false);
                self.note_batch(&batch, length, begun_ns);
                self.supply.note_success(Content::Log);
                let (home, position) = (SegmentId(open.header.segment), open.position());
                self.finish_batch(batch, home);
                self.commits.position.set(position);
                count(&self.commits.written_bytes, u64::from(length));
                self.consider_checkpoint();
                Ok(())
            }
            Err(error) => {
                warn!(
                    "weft: log segment {}: {error}; it takes no more records",
                    SegmentId(open.header.segment)
                );
                self.abandon(tail);
                let refusal = match error.kind() {
                    // A thin file system: it had promised this room.
                    std::io::ErrorKind::StorageFull => Refusal::Full,
                    _ => Refusal::DiskFailed,
                };
                self.fail(batch, refusal, Attempt::Written);
                Err(Lack::Refused(refusal))
            }
        }
    }

    /// Counts a batch that is on stable storage.
    fn note_batch(&self, batch: &[Queued], length_bytes: u32, begun_ns: u64) {
        let records = batch.iter().filter(|queued| queued.record.is_some()).count();
        count(&self.counters.batches, 1);
        self.counters.batch_records.observe(records as u64);
        self.counters.batch_bytes.observe(u64::from(length_bytes));
        let took_ns = self.io.monotonic_ns().saturating_sub(begun_ns);
        self.counters.batch_ns.observe(took_ns);
    }

    /// Seals the log segment that has no room for the next record, and opens another.
    async fn open_next(self: &Rc<Self>, tail: &mut Tail) -> Result<(), Lack> {
        let header = self.take_segment(Content::Log, self.commits.purpose()).await?;
        if let Some(full) = tail.open.take() {
            self.seal_open(full).await;
        }
        tail.open = Some(OpenLog {
            header,
            watermark: LOG_START,
            offset: LOG_START,
            number: 0,
        });
        Ok(())
    }

    /// Ends a log where it is. The seal holds no record, so nothing is lost when it fails or does not last.
    async fn seal_open(self: &Rc<Self>, mut log: OpenLog) {
        let segment = SegmentId(log.header.segment);
        if log.room() > 0
            && let Err(error) = self.write_seal(&mut log).await
        {
            warn!("weft: log segment {segment}: sealing it: {error}");
        }
        self.seal(segment);
    }

    async fn write_seal(&self, log: &mut OpenLog) -> std::io::Result<()> {
        let segment = SegmentId(log.header.segment);
        // A seal behind the watermark would not be looked for when the batch before it is damaged.
        if self.raise_watermark(log, log.offset + ALIGN_BYTES).await? {
            self.io.sync(segment).await?;
        }
        let buffer = self.io.buffer(ALIGN_BYTES as usize);
        let (buffer, _) = BatchWriter::new(buffer, &log.header, log.offset, log.number).finish_sealed();
        self.io.write(segment, log.offset, buffer).await
    }

    /// Encodes the records of `batch`, and tells their values where their bodies lie.
    fn encode_batch(&self, open: &OpenLog, poisoned: &[PoisonedTail], batch: &mut [Queued]) -> I::WriteBuf {
        let records = batch.iter().filter_map(|queued| queued.record.as_ref());
        let lengths: usize = records.map(Record::length_bytes).sum();
        let length = BATCH_HEADER_BYTES + poisoned.len() * POISON_RECORD_BYTES + lengths;
        let buffer = self.io.buffer(length.next_multiple_of(ALIGN_BYTES as usize));
        let mut writer = BatchWriter::new(buffer, &open.header, open.offset, open.number);
        for tail in poisoned {
            let poison = log::Poison {
                segment: tail.segment.0,
                generation: tail.generation,
                offset: tail.offset,
            };
            writer.push_poison(self.next_sequence(), &poison);
        }
        for record in batch.iter_mut().filter_map(|queued| queued.record.as_mut()) {
            let crc32 = log::body_crc32(&record.body);
            if !record.body.is_empty() {
                let changes: Vec<_> = record.changes.iter().map(Change::as_log).collect();
                let place = Extent {
                    layout: Layout::Inline,
                    segment: SegmentId(open.header.segment),
                    offset: writer.next_body_offset(log::changes_length(&changes)),
                    length: record.body.len() as u32,
                    check: u64::from(crc32),
                };
                let value = record.changes[0]
                    .value
                    .as_mut()
                    .expect("a body belongs to a value");
                let at = value.len() - EXTENT_BYTES;
                value[at..].copy_from_slice(&place.encode());
            }
            let changes: Vec<_> = record.changes.iter().map(Change::as_log).collect();
            writer.push_with_crc32(record.sequence, &changes, &record.body, crc32);
        }
        self.counters
            .records
            .set(self.counters.records.get() + u64::from(writer.record_count()));
        let (buffer, written) = writer.finish();
        assert!(
            written as usize == buffer.as_ref().len(),
            "the batch's length was computed"
        );
        buffer
    }

    async fn write_and_sync(&self, open: &mut OpenLog, buffer: I::WriteBuf) -> std::io::Result<()> {
        let segment = SegmentId(open.header.segment);
        let end = open.offset + buffer.as_ref().len() as u32;
        count(&self.counters.bytes_written, u64::from(end - open.offset));
        let raised = self.raise_watermark(open, end).await?;
        if planted(Fault::LogUnsynced) {
            return self.io.write(segment, open.offset, buffer).await;
        }
        self.counters.log_syncs.set(self.counters.log_syncs.get() + 1);
        if raised {
            // Durable with the batch, in one sync: what is acknowledged never lies behind the watermark.
            self.io.write(segment, open.offset, buffer).await?;
            return self.io.sync(segment).await;
        }
        self.io.write_synced(segment, open.offset, buffer).await
    }

    /// Writes a greater watermark if a batch will end behind the one there is; says whether it did.
    async fn raise_watermark(&self, open: &mut OpenLog, end: u32) -> std::io::Result<bool> {
        if end <= open.watermark || planted(Fault::WatermarkKept) {
            return Ok(false);
        }
        open.watermark = watermark_past(end, open.header.segment_size_bytes);
        self.write_watermark(&open.header, open.watermark).await?;
        Ok(true)
    }

    /// After a failure: the segment takes no more, and the next batch says from where on it is void.
    fn abandon(self: &Rc<Self>, tail: &mut Tail) {
        self.counters.disk_errors.set(self.counters.disk_errors.get() + 1);
        let open = tail.open.take().expect("a batch was written to an open segment");
        self.commits.unsettled.set(true);
        let segment = SegmentId(open.header.segment);
        self.seal(segment);
        tail.poisoned.push(PoisonedTail {
            segment,
            generation: open.header.generation,
            offset: open.offset,
        });
        self.note_failure(Content::Log);
        // Each is a failure since the last batch that was written: so many end all writing.
        assert!(tail.poisoned.len() <= FAILED_SEGMENTS_MAX);
    }

    /// Makes what is now on stable storage true, and answers.
    fn finish_batch(self: &Rc<Self>, batch: Vec<Queued>, home: SegmentId) {
        // Index first, answers after: whoever gets an answer may read at once.
        if !planted(Fault::EarlyIndex) {
            self.apply_all(&batch, home);
        }
        for record in batch.iter().filter_map(|queued| queued.record.as_ref()) {
            self.commits.settle(record);
        }
        self.finish_answers(batch);
    }

    fn apply_all(self: &Rc<Self>, batch: &[Queued], home: SegmentId) {
        for record in batch.iter().filter_map(|queued| queued.record.as_ref()) {
            self.apply(record, home);
        }
    }

    /// What [`Fault::EarlyAck`] does.
    fn answer_early(&self, batch: &mut [Queued]) {
        for queued in batch {
            let nobody = ReplyTo::Local(oneshot::channel().0);
            self.reply_outcome(std::mem::replace(&mut queued.to, nobody), queued.outcome);
        }
    }

    fn finish_answers(&self, batch: Vec<Queued>) {
        for queued in batch {
            self.reply_outcome(queued.to, queued.outcome);
        }
    }

    /// Fails everything that is queued: it was checked against changes that did not happen.
    fn fail_queue(self: &Rc<Self>, refusal: Refusal) {
        let queued = self.commits.take(usize::MAX);
        self.fail(queued, refusal, Attempt::None);
    }

    fn fail(self: &Rc<Self>, batch: Vec<Queued>, refusal: Refusal, attempt: Attempt) {
        for queued in batch {
            if let Some(record) = &queued.record {
                self.commits.settle(record);
                self.unload_record(record);
            }
            // After a failed write the record may be on disk all the same: its extents stay taken until the
            // next start, when recovery knows.
            if attempt == Attempt::None
                && let Some(record) = queued.record
            {
                self.discard_fresh(&record);
            }
            self.reply_outcome(queued.to, Err(refusal));
        }
    }

    /// A record is not made true: forgets what was loaded for it.
    fn unload_record(&self, record: &Record) {
        for change in &record.changes {
            self.unload_key(&change.key);
            if key::is_upload(&change.key) {
                self.unload_names(&Names {
                    exact: Vec::new(),
                    upload: Some(change.key.clone()),
                });
            }
        }
    }

    fn discard_fresh(self: &Rc<Self>, record: &Record) {
        if let Some(moved) = &record.moved {
            self.discard(moved);
        } else if record.fresh_extents
            && let Some(Change {
                key,
                value: Some(value),
            }) = record.changes.first()
        {
            self.discard(&extents_of(key, value));
        }
    }
}

/// How often, and how far apart, a failed change's poison is tried.
const VOID_ATTEMPTS: usize = 5;
const VOID_PAUSE: Duration = Duration::from_millis(200);
