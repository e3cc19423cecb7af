//! Walks the log of one segment's life, from windows of the segment that the caller reads.
//!
//! One write is in flight at a time, and the next batch is not written before the one before it is on stable
//! storage. So only the last batch can be torn, and a header of this life *behind* an invalid place proves
//! that what lay in that place was once durable: that is damage, not a tail. The scanner therefore never ends
//! a log before it has looked for a later header at every aligned offset up to the watermark, behind which no
//! batch was acknowledged, unless the log was sealed.
//!
//! Invariant: it yields each record of a whole batch once, in order, and nothing of an earlier life or of a
//! torn tail. Each call returns a step or names bytes that it needs; given them, the next call gets further.

use super::batch::{BATCH_HEADER_BYTES, BatchHeader, BatchRef};
use super::{ALIGN_BYTES, LOG_START, SegmentHeader, SegmentKind};

/// What the scanner found, or what it needs.
#[derive(Debug)]
pub enum ScanStep<'a> {
    /// A whole batch.
    Batch(BatchRef<'a>),
    /// Call again with a window that covers `length_min` bytes from `from` (both multiples of 4096, within
    /// the segment); a longer one saves calls.
    NeedMore { from: u32, length_min: u32 },
    /// Bytes `from..to` of the segment held batches that were durable once, and are not whole any more. At
    /// least `batches_lost` are gone. An alarm: acknowledged changes are missing. The scan goes on behind
    /// them.
    Damaged { from: u32, to: u32, batches_lost: u32 },
    /// What is left of a damaged batch that was just reported: its records up to the first that is not whole.
    /// Their changes are verified, and were acknowledged; their bodies are not verified.
    Salvaged(BatchRef<'a>),
    /// The log ends at `tail`, where batch `next_number` would have started.
    End {
        tail: u32,
        next_number: u32,
        end: LogEnd,
    },
}

/// How a log ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogEnd {
    /// With a batch that says so, or at the segment's very end.
    Sealed,
    /// With the last whole batch: behind it is nothing of this life.
    Open,
    /// With a batch of which only a part is there: a crash came in the middle of its write.
    Torn,
}

/// A scan of one life of a log segment.
#[derive(Debug)]
pub struct LogScanner {
    segment: SegmentHeader,
    watermark: u32,
    /// The number of the next batch that may be believed.
    next_number: u32,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// A batch should start at `at`.
    Follow { at: u32 },
    /// From `from` on there is no whole batch (`torn`: but the header of one); a later one may start at `at`
    /// or behind.
    Search {
        from: u32,
        torn: Option<BatchHeader>,
        at: u32,
    },
    /// The damage that holds batch `torn` was reported; the log goes on at `resume`.
    Salvage { torn: BatchHeader, resume: u32 },
    /// The log has ended.
    Done { tail: u32, end: LogEnd },
}

impl LogScanner {
    /// A scan of the log whose segment begins with `header`. Without a watermark
    /// ([`super::decode_watermark`]) it has the segment's end for one.
    ///
    /// # Panics
    /// When `header` is not that of a log.
    pub fn new(header: &SegmentHeader, watermark: Option<u32>) -> LogScanner {
        assert!(header.kind == SegmentKind::Log, "only a log is scanned");
        let state = State::Follow { at: LOG_START };
        LogScanner {
            segment: *header,
            watermark: watermark.map_or(header.segment_size_bytes, |watermark| {
                watermark.min(header.segment_size_bytes)
            }),
            next_number: 0,
            state,
        }
    }

    /// Begins at a place between two batches, instead of the first.
    pub fn from(mut self, offset: u32, number: u32) -> LogScanner {
        self.state = State::Follow {
            at: offset.clamp(LOG_START, self.segment.segment_size_bytes),
        };
        self.next_number = number;
        self
    }

    /// The next step, from `window`: the bytes of the segment from `window_offset` on. Windows may overlap,
    /// and may be anywhere; only what they cover is looked at.
    pub fn next<'a>(&mut self, window: &'a [u8], window_offset: u32) -> ScanStep<'a> {
        let window = Window {
            bytes: window,
            offset: window_offset,
        };
        loop {
            let step = match self.state {
                State::Follow { at } => self.follow(window, at),
                State::Search { from, torn, at } => self.search(window, from, torn, at),
                State::Salvage { torn, resume } => self.salvage(window, torn, resume),
                State::Done { tail, end } => Some(ScanStep::End {
                    tail,
                    next_number: self.next_number,
                    end,
                }),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    fn follow<'a>(&mut self, window: Window<'a>, at: u32) -> Option<ScanStep<'a>> {
        if at >= self.segment.segment_size_bytes {
            self.state = State::Done {
                tail: at,
                end: LogEnd::Sealed,
            };
            return None;
        }
        let Some(start) = window.piece(at, BATCH_HEADER_BYTES as u32) else {
            return Some(ScanStep::NeedMore {
                from: at,
                length_min: ALIGN_BYTES,
            });
        };
        let header = BatchHeader::decode(start, &self.segment, at);
        let Some(header) = header.filter(|header| header.number == self.next_number) else {
            self.state = State::Search {
                from: at,
                torn: None,
                at,
            };
            return None;
        };
        let Some(bytes) = window.piece(at, header.disk_length_bytes()) else {
            return Some(ScanStep::NeedMore {
                from: at,
                length_min: header.disk_length_bytes(),
            });
        };
        let Some(batch) = header.verify(bytes) else {
            // Whatever else lies inside this batch, no batch starts there.
            self.state = State::Search {
                from: at,
                torn: Some(header),
                at: header.end(),
            };
            return None;
        };
        self.next_number = self.next_number.saturating_add(1);
        self.state = match header.sealed {
            true => State::Done {
                tail: header.end(),
                end: LogEnd::Sealed,
            },
            false => State::Follow { at: header.end() },
        };
        Some(ScanStep::Batch(batch))
    }

    fn search<'a>(
        &mut self,
        window: Window<'a>,
        from: u32,
        torn: Option<BatchHeader>,
        mut at: u32,
    ) -> Option<ScanStep<'a>> {
        while at < self.watermark {
            let Some(start) = window.piece(at, BATCH_HEADER_BYTES as u32) else {
                self.state = State::Search { from, torn, at };
                return Some(ScanStep::NeedMore {
                    from: at,
                    length_min: ALIGN_BYTES,
                });
            };
            if let Some(header) = BatchHeader::decode(start, &self.segment, at)
                && header.number >= self.next_number
            {
                return Some(self.damaged(from, torn, header));
            }
            at += ALIGN_BYTES;
        }
        let end = if torn.is_some() {
            LogEnd::Torn
        } else {
            LogEnd::Open
        };
        self.state = State::Done { tail: from, end };
        None
    }

    fn damaged(&mut self, from: u32, torn: Option<BatchHeader>, later: BatchHeader) -> ScanStep<'static> {
        let batches_lost = later.number - self.next_number;
        self.next_number = later.number;
        self.state = match torn {
            Some(torn) => State::Salvage {
                torn,
                resume: later.offset,
            },
            None => State::Follow { at: later.offset },
        };
        ScanStep::Damaged {
            from,
            to: later.offset,
            batches_lost,
        }
    }

    fn salvage<'a>(&mut self, window: Window<'a>, torn: BatchHeader, resume: u32) -> Option<ScanStep<'a>> {
        let length_min = torn.disk_length_bytes();
        let Some(bytes) = window.piece(torn.offset, length_min) else {
            return Some(ScanStep::NeedMore {
                from: torn.offset,
                length_min,
            });
        };
        self.state = State::Follow { at: resume };
        torn.salvage(bytes).map(ScanStep::Salvaged)
    }
}

#[derive(Clone, Copy)]
struct Window<'a> {
    bytes: &'a [u8],
    offset: u32,
}

impl<'a> Window<'a> {
    /// `length` bytes of the segment at `at`, if the window covers them.
    fn piece(&self, at: u32, length: u32) -> Option<&'a [u8]> {
        let start = at.checked_sub(self.offset)? as usize;
        self.bytes.get(start..)?.get(..length as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::super::chance::Chance;
    use super::super::{
        BatchWriter, Change, Poison, RecordKind, RecordRef, WATERMARK_OFFSET, decode_watermark,
        encode_watermark, record_bytes_max, watermark_past,
    };
    use super::*;

    const SIZE: u32 = 1 << 20;
    const GENERATION: u64 = 77;
    const START: usize = LOG_START as usize;
    const WATERMARK: usize = WATERMARK_OFFSET as usize;

    fn header(generation: u64) -> SegmentHeader {
        SegmentHeader {
            kind: SegmentKind::Log,
            segment: 3,
            generation,
            epoch: 2,
            core: 1,
            volume_id: *b"sixteen bytes id",
            segment_size_bytes: SIZE,
        }
    }

    /// A record, owned, so that what went in can be compared with what came out.
    #[derive(Clone, PartialEq, Eq)]
    struct Owned {
        sequence: u64,
        poison: Option<Poison>,
        changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
        body: Vec<u8>,
    }

    impl std::fmt::Debug for Owned {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            let (crc32, length) = (super::super::body_crc32(&self.body), self.body.len());
            write!(
                f,
                "{} {:?} {:?} body {crc32:08x}+{length}",
                self.sequence, self.poison, self.changes
            )
        }
    }

    impl Owned {
        fn of(record: &RecordRef<'_>) -> Owned {
            let poison = match record.kind() {
                RecordKind::Commit => None,
                RecordKind::Poison(poison) => Some(poison),
            };
            let changes = record.changes().map(|change| match change {
                Change::Put { key, value } => (key.to_vec(), Some(value.to_vec())),
                Change::Delete { key } => (key.to_vec(), None),
            });
            let (sequence, body) = (record.sequence(), record.body().to_vec());
            Owned {
                sequence,
                poison,
                changes: changes.collect(),
                body,
            }
        }

        fn commit(chance: &mut Chance, sequence: u64, body_length: usize) -> Owned {
            let changes = (0..chance.below(4))
                .map(|_| {
                    let (key_length, value_length) = (chance.below(40), chance.below(90));
                    let value = (chance.below(4) > 0).then(|| chance.bytes(value_length));
                    (chance.bytes(key_length), value)
                })
                .collect();
            Owned {
                sequence,
                poison: None,
                changes,
                body: chance.bytes(body_length),
            }
        }

        fn push<B: AsRef<[u8]> + AsMut<[u8]>>(&self, writer: &mut BatchWriter<B>) {
            let changes: Vec<Change<'_>> = self
                .changes
                .iter()
                .map(|(key, value)| match value {
                    Some(value) => Change::Put { key, value },
                    None => Change::Delete { key },
                })
                .collect();
            match &self.poison {
                Some(poison) => writer.push_poison(self.sequence, poison),
                None => writer.push(self.sequence, &changes, &self.body),
            };
        }
    }

    /// A segment with batches, and what was put into each.
    #[derive(Clone)]
    struct Log {
        header: SegmentHeader,
        bytes: Vec<u8>,
        batches: Vec<(u32, Vec<Owned>)>,
        tail: u32,
        watermark: u32,
    }

    impl Log {
        fn new(generation: u64) -> Log {
            let header = header(generation);
            let mut bytes = vec![0; SIZE as usize];
            bytes[..WATERMARK].copy_from_slice(&header.encode());
            bytes[WATERMARK..START].copy_from_slice(&encode_watermark(&header, LOG_START));
            Log {
                header,
                bytes,
                batches: Vec::new(),
                tail: LOG_START,
                watermark: LOG_START,
            }
        }

        /// Appends a batch by way of a buffer with undefined content.
        fn append(&mut self, records: Vec<Owned>, seal: bool) {
            let buffer = vec![0xee; (SIZE - self.tail) as usize];
            let mut writer = BatchWriter::new(buffer, &self.header, self.tail, self.batches.len() as u32);
            records.iter().for_each(|record| record.push(&mut writer));
            let (buffer, length) = if seal {
                writer.finish_sealed()
            } else {
                writer.finish()
            };
            let at = self.tail as usize;
            self.bytes[at..at + length as usize].copy_from_slice(&buffer[..length as usize]);
            self.batches.push((self.tail, records));
            self.tail += length;
            if self.tail > self.watermark {
                self.watermark = watermark_past(self.tail, SIZE);
                let block = encode_watermark(&self.header, self.watermark);
                self.bytes[WATERMARK..START].copy_from_slice(&block);
            }
        }

        fn append_small(&mut self, chance: &mut Chance) {
            let sequence = self.tail.into();
            let records = (0..1 + chance.below(3)).map(|_| {
                let length = chance.below(2000);
                Owned::commit(chance, sequence, length)
            });
            let records = records.collect();
            self.append(records, false);
        }

        fn with_batches(seed: u64, generation: u64, count: usize) -> Log {
            let mut chance = Chance(seed);
            let mut log = Log::new(generation);
            (0..count).for_each(|_| log.append_small(&mut chance));
            log
        }

        fn end_of(&self, batch: usize) -> u32 {
            self.batches
                .get(batch + 1)
                .map_or(self.tail, |(offset, _)| *offset)
        }

        /// Where the records of a batch end and its padding begins.
        fn written_end(&self, batch: usize) -> usize {
            let at = self.batches[batch].0 as usize;
            at + u32::from_le_bytes(*self.bytes[at + 44..].first_chunk().expect("a header")) as usize
        }
    }

    #[derive(Clone, PartialEq, Eq, Debug)]
    enum Event {
        Batch(u32, Vec<Owned>),
        Damaged(u32, u32, u32),
        Salvaged(u32, Vec<Owned>),
        End(u32, u32, LogEnd),
    }

    /// Scans as recovery does, in windows of at least `window_bytes`, and holds the scanner to its promises.
    fn scan(header: &SegmentHeader, bytes: &[u8], window_bytes: u32) -> Vec<Event> {
        let watermark = bytes
            .get(WATERMARK..)
            .and_then(|bytes| decode_watermark(bytes, header));
        let mut scanner = LogScanner::new(header, watermark);
        let mut events = Vec::new();
        let mut window = 0..0;
        let mut asked = None;
        for _ in 0..100_000 {
            match scanner.next(&bytes[window.start as usize..window.end as usize], window.start) {
                ScanStep::Batch(batch) => {
                    let records: Vec<Owned> = batch.records().map(|record| Owned::of(&record)).collect();
                    assert_eq!(records.len(), batch.record_count() as usize);
                    events.push(Event::Batch(batch.offset_in_segment(), records));
                }
                ScanStep::NeedMore { from, length_min } => {
                    assert!(from % 4096 == 0 && length_min % 4096 == 0 && length_min > 0);
                    assert!(from + length_min <= SIZE);
                    assert_ne!(asked, Some((from, length_min)), "asked for the same bytes twice");
                    asked = Some((from, length_min));
                    window = from..(from + length_min.max(window_bytes)).min(SIZE);
                    continue;
                }
                ScanStep::Damaged {
                    from,
                    to,
                    batches_lost,
                } => events.push(Event::Damaged(from, to, batches_lost)),
                ScanStep::Salvaged(batch) => {
                    let records = batch.records().map(|record| Owned::of(&record)).collect();
                    events.push(Event::Salvaged(batch.offset_in_segment(), records));
                }
                ScanStep::End {
                    tail,
                    next_number,
                    end,
                } => {
                    events.push(Event::End(tail, next_number, end));
                    return events;
                }
            }
            asked = None;
        }
        panic!("the scan does not end");
    }

    fn scan_all(log: &Log) -> Vec<Event> {
        scan(&log.header, &log.bytes, SIZE)
    }

    fn batches(log: &Log, which: std::ops::Range<usize>) -> Vec<Event> {
        which
            .map(|i| Event::Batch(log.batches[i].0, log.batches[i].1.clone()))
            .collect()
    }

    fn first_body_offset(log: &Log) -> usize {
        match LogScanner::new(&log.header, None).next(&log.bytes, 0) {
            ScanStep::Batch(batch) => {
                batch.records().next().expect("a record").body_offset_in_segment() as usize
            }
            step => panic!("{step:?}"),
        }
    }

    #[test]
    fn what_was_pushed_is_read_back_through_windows_of_any_size() {
        for seed in 0..20 {
            let mut chance = Chance(seed);
            let mut log = Log::new(GENERATION);
            for sequence in 0..1 + chance.below(12) as u64 {
                let lengths = [0, 1, 4096, 65_536, chance.below(90_000)];
                let mut records = Vec::new();
                for _ in 0..chance.below(4) {
                    let length = lengths[chance.below(lengths.len())];
                    records.push(Owned::commit(&mut chance, sequence << 32, length));
                }
                let poison = Poison {
                    segment: 9,
                    generation: chance.next(),
                    offset: 8192,
                };
                records.push(Owned {
                    sequence,
                    poison: Some(poison),
                    changes: vec![],
                    body: vec![],
                });
                if u64::from(log.tail) + 4 * 100_000 < u64::from(SIZE) {
                    log.append(records, false);
                }
            }
            let count = log.batches.len();
            let mut expected = batches(&log, 0..count);
            expected.push(Event::End(log.tail, count as u32, LogEnd::Open));
            for window_bytes in [4096, 16_384, 1 << 18, SIZE] {
                assert_eq!(
                    scan(&log.header, &log.bytes, window_bytes),
                    expected,
                    "seed {seed}"
                );
            }
        }
    }

    #[test]
    fn a_window_that_ends_anywhere_never_yields_more_than_it_holds() {
        let log = Log::with_batches(5, GENERATION, 3);
        for end in (START..log.tail as usize + 9000).step_by(7) {
            let mut scanner = LogScanner::new(&log.header, Some(log.watermark));
            loop {
                match scanner.next(&log.bytes[..end], 0) {
                    ScanStep::Batch(batch) => {
                        assert!((batch.offset_in_segment() + batch.disk_length_bytes()) as usize <= end);
                    }
                    ScanStep::NeedMore { from, length_min } => {
                        assert!((from + length_min) as usize > end);
                        break;
                    }
                    step => panic!("{step:?} of a log that goes on"),
                }
            }
        }
    }

    #[test]
    fn the_longest_record_that_a_segment_takes_is_read_back() {
        let mut log = Log::new(GENERATION);
        let length = record_bytes_max(SIZE) - super::super::record_length(0, 0);
        let record = Owned {
            sequence: 1,
            poison: None,
            changes: vec![],
            body: Chance(1).bytes(length),
        };
        log.append(vec![record], false);
        assert_eq!(log.tail, SIZE);
        let mut expected = batches(&log, 0..1);
        expected.push(Event::End(SIZE, 1, LogEnd::Sealed));
        assert_eq!(scan(&log.header, &log.bytes, 4096), expected);
    }

    #[test]
    fn torn_tail_is_dropped() {
        let stale = Chance(9).bytes(SIZE as usize);
        for seed in 0..6 {
            let log = Log::with_batches(seed, GENERATION, 4);
            let older = Log::with_batches(seed, GENERATION - 1, 5);
            let start = log.batches[3].0 as usize;
            for background in [&vec![0; SIZE as usize], &stale, &older.bytes] {
                // Sectors reach the disk in any order: a prefix, a suffix, every other one, all but one.
                let sectors = (log.tail as usize - start) / 512;
                for keep in 0..sectors {
                    for shape in 0..4 {
                        let mut torn = log.clone();
                        for sector in 0..sectors {
                            let kept = match shape {
                                0 => sector < keep,
                                1 => sector >= keep,
                                2 => sector % 2 == keep % 2,
                                _ => sector != keep,
                            };
                            if !kept {
                                let at = start + sector * 512;
                                torn.bytes[at..at + 512].copy_from_slice(&background[at..at + 512]);
                            }
                        }
                        torn.bytes[log.tail as usize..].copy_from_slice(&background[log.tail as usize..]);
                        let written = start..log.written_end(3);
                        let is_whole = torn.bytes[written.clone()] == log.bytes[written];
                        let found = scan_all(&torn);
                        if is_whole {
                            assert_eq!(found[..4], batches(&log, 0..4)[..]);
                            assert_eq!(found[4], Event::End(log.tail, 4, LogEnd::Open));
                            continue;
                        }
                        assert_eq!(found[..3], batches(&log, 0..3)[..]);
                        let kept_header = torn.bytes[start..start + 64] == log.bytes[start..start + 64];
                        let end = if kept_header { LogEnd::Torn } else { LogEnd::Open };
                        assert_eq!(found[3..], [Event::End(log.batches[3].0, 3, end)]);
                    }
                }
            }
        }
    }

    #[test]
    fn an_earlier_life_behind_the_tail_stays_there() {
        // The same layout and the same numbers: only the generation tells the lives apart.
        for kept in 0..5 {
            let older = Log::with_batches(3, GENERATION - 1, 6);
            let mut log = Log::with_batches(3, GENERATION, kept);
            let tail = log.tail as usize;
            log.bytes[tail..].copy_from_slice(&older.bytes[tail..]);
            let mut expected = batches(&log, 0..kept);
            expected.push(Event::End(log.tail, kept as u32, LogEnd::Open));
            assert_eq!(scan_all(&log), expected);
        }
    }

    #[test]
    fn damage_in_the_middle_is_reported_and_what_follows_is_kept() {
        let log = Log::with_batches(11, GENERATION, 6);
        let (from, to) = (log.batches[2].0, log.end_of(2));

        let mut header_lost = log.clone();
        header_lost.bytes[from as usize..to as usize].fill(0);
        let mut expected = batches(&log, 0..2);
        expected.push(Event::Damaged(from, to, 1));
        expected.extend(batches(&log, 3..6));
        expected.push(Event::End(log.tail, 6, LogEnd::Open));
        for window_bytes in [4096, SIZE] {
            assert_eq!(scan(&log.header, &header_lost.bytes, window_bytes), expected);
        }

        let to = log.end_of(3);
        header_lost.bytes[log.batches[3].0 as usize + 20] ^= 1;
        expected.splice(2..4, [Event::Damaged(from, to, 2)]);
        assert_eq!(scan_all(&header_lost), expected);
    }

    #[test]
    fn nothing_is_looked_for_behind_the_watermark() {
        // What lies there has every mark of this life: only the watermark says that it was never durable.
        let written = Log::with_batches(13, GENERATION, 8);
        for kept in 0..6 {
            let tail = written.batches[kept].0;
            let mut torn = written.clone();
            torn.bytes[tail as usize] ^= 1;
            for watermark in (tail..written.batches[kept + 1].0).step_by(4096) {
                let mut expected = batches(&written, 0..kept);
                expected.push(Event::End(tail, kept as u32, LogEnd::Open));
                let block = encode_watermark(&torn.header, watermark);
                torn.bytes[WATERMARK..START].copy_from_slice(&block);
                assert_eq!(scan_all(&torn), expected, "watermark {watermark}");
            }
            // Not even read: this is what a restart costs.
            let first =
                LogScanner::new(&torn.header, Some(tail)).next(&torn.bytes[..tail as usize + 4096], 0);
            assert!(!matches!(first, ScanStep::NeedMore { .. }), "{first:?}");
        }
    }

    #[test]
    fn a_batch_that_outran_its_watermark_is_read() {
        // It was in flight: it landed, and the raised watermark did not.
        let mut log = Log::with_batches(14, GENERATION, 3);
        let block = encode_watermark(&log.header, log.batches[2].0);
        log.bytes[WATERMARK..START].copy_from_slice(&block);
        let mut expected = batches(&log, 0..3);
        expected.push(Event::End(log.tail, 3, LogEnd::Open));
        assert_eq!(scan_all(&log), expected);
    }

    #[test]
    fn damage_before_a_torn_tail_is_still_damage() {
        let log = Log::with_batches(12, GENERATION, 4);
        let mut hurt = log.clone();
        hurt.bytes[log.batches[2].0 as usize] ^= 1;
        hurt.bytes[log.batches[3].0 as usize + 70] ^= 1;
        let mut expected = batches(&log, 0..2);
        expected.push(Event::Damaged(log.batches[2].0, log.batches[3].0, 1));
        expected.push(Event::End(log.batches[3].0, 3, LogEnd::Torn));
        assert_eq!(scan_all(&hurt), expected);
    }

    #[test]
    fn a_damaged_batch_gives_back_the_records_that_are_whole() {
        let mut chance = Chance(4);
        let mut log = Log::new(GENERATION);
        let records: Vec<Owned> = (0..3).map(|i| Owned::commit(&mut chance, i, 3000)).collect();
        log.append(records.clone(), false);
        log.append_small(&mut chance);
        let rest = [batches(&log, 1..2), vec![Event::End(log.tail, 2, LogEnd::Open)]].concat();
        let first_body = first_body_offset(&log);

        // A rotten body: its record is still true, and its checksum says what its bytes are not.
        let mut hurt = log.clone();
        hurt.bytes[first_body + 2000] ^= 1;
        let found = scan(&log.header, &hurt.bytes, 4096);
        assert_eq!(found[0], Event::Damaged(LOG_START, log.end_of(0), 1));
        let Event::Salvaged(LOG_START, salvaged) = &found[1] else {
            panic!("{:?}", found[1])
        };
        assert_eq!(salvaged.len(), 3);
        assert_eq!(salvaged[0].changes, records[0].changes);
        assert_ne!(salvaged[0].body, records[0].body);
        assert_eq!(salvaged[1..], records[1..]);
        assert_eq!(found[2..], rest);

        // A rotten header: the length cannot be believed, so nothing behind it can.
        let mut hurt = log.clone();
        hurt.bytes[START + 64 + 8] ^= 1;
        let found = scan(&log.header, &hurt.bytes, 4096);
        assert_eq!(found[1], Event::Salvaged(LOG_START, vec![]));
        assert_eq!(found[2..], rest);
    }

    #[test]
    fn a_sector_of_an_earlier_life_inside_a_damaged_batch_is_not_salvaged() {
        // One layout in both lives, one record a sector; only the bodies' and sequences' content differs.
        let records = |first: u64| -> Vec<Owned> {
            let body = |i: u64| vec![(first + i) as u8; 512 - 28];
            (0..20)
                .map(|i| Owned {
                    sequence: first + i,
                    poison: None,
                    changes: vec![],
                    body: body(i),
                })
                .collect()
        };
        let (mut log, mut older) = (Log::new(GENERATION), Log::new(GENERATION - 1));
        for (log, first) in [(&mut log, 100), (&mut older, 10)] {
            log.append(records(first), false);
            log.append(records(first + 20), false);
        }
        // The records start 64 bytes into a sector: a lost range from one record's start to another's.
        for record in 0..19 {
            let at = START + 64 + record * 512;
            let mut hurt = log.clone();
            hurt.bytes[at..at + 512].copy_from_slice(&older.bytes[at..at + 512]);
            let found = scan_all(&hurt);
            assert_eq!(found[0], Event::Damaged(LOG_START, log.end_of(0), 1));
            assert_eq!(
                found[1],
                Event::Salvaged(LOG_START, log.batches[0].1[..record].to_vec())
            );
        }
    }

    #[test]
    fn a_sealed_log_ends_at_its_seal_and_shows_damage_to_its_last_batch() {
        let mut log = Log::with_batches(8, GENERATION, 3);
        log.append(vec![], true);
        let mut expected = batches(&log, 0..4);
        expected.push(Event::End(log.tail, 4, LogEnd::Sealed));
        // Nothing behind the seal is asked for.
        assert_eq!(scan(&log.header, &log.bytes[..log.tail as usize], 4096), expected);

        log.bytes[log.batches[2].0 as usize + 10] ^= 4;
        expected[2] = Event::Damaged(log.batches[2].0, log.batches[3].0, 1);
        assert_eq!(scan_all(&log), expected);
    }

    #[test]
    fn a_batch_that_lies_where_it_was_not_written_is_not_believed() {
        let log = Log::with_batches(2, GENERATION, 2);
        let (first, second) = (log.batches[0].0 as usize, log.batches[1].0 as usize);

        // A misdirected write: the first batch again, behind the tail.
        let mut copied = log.clone();
        let tail = log.tail as usize;
        copied.bytes.copy_within(first..second, tail);
        let whole = [batches(&log, 0..2), vec![Event::End(log.tail, 2, LogEnd::Open)]].concat();
        assert_eq!(scan_all(&copied), whole);

        // The same bytes in another segment, life or volume.
        let mut other_volume = log.header.volume_id;
        other_volume[15] ^= 1;
        for header in [
            SegmentHeader {
                segment: 4,
                ..log.header
            },
            SegmentHeader {
                generation: GENERATION + 1,
                ..log.header
            },
            SegmentHeader {
                volume_id: other_volume,
                ..log.header
            },
        ] {
            assert_eq!(
                scan(&header, &log.bytes, SIZE),
                [Event::End(LOG_START, 0, LogEnd::Open)]
            );
        }
    }

    #[test]
    fn batch_numbers_are_consecutive_or_it_is_damage() {
        let numbered = |numbers: &[u32]| {
            let mut bytes = Log::new(GENERATION).bytes;
            bytes[WATERMARK..START].copy_from_slice(&encode_watermark(&header(GENERATION), SIZE));
            for (i, &number) in numbers.iter().enumerate() {
                let at = START + 4096 * i;
                let dst = &mut bytes[at..at + 4096];
                BatchWriter::new(dst, &header(GENERATION), at as u32, number).finish();
            }
            scan(&header(GENERATION), &bytes, SIZE)
        };
        let (first, open) = (Event::Batch(LOG_START, vec![]), LogEnd::Open);
        let second = LOG_START + 4096;
        // A gap: batches whose very place is gone.
        let found = numbered(&[0, 3]);
        let lost = Event::Damaged(second, second, 2);
        assert_eq!(
            found,
            [
                first.clone(),
                lost,
                Event::Batch(second, vec![]),
                Event::End(second + 4096, 4, open)
            ]
        );
        // A number that was there before: nothing that follows the log.
        assert_eq!(numbered(&[0, 0]), [first, Event::End(second, 1, open)]);
    }

    #[test]
    fn a_body_that_looks_like_a_batch_of_this_log_is_never_read_as_one() {
        let mut log = Log::new(GENERATION);
        // A batch as it would lie at the second aligned offset inside the first one.
        let second = START + 4096;
        let mut forged = BatchWriter::new(vec![0; 4096], &log.header, second as u32, 1);
        forged.push(666, &[Change::Delete { key: b"victim" }], b"");
        let (forged, _) = forged.finish();
        let mut body = vec![0; 3 * 4096];
        let body_at = START + 64 + 28;
        body[second - body_at..][..4096].copy_from_slice(&forged);
        log.append(
            vec![Owned {
                sequence: 1,
                poison: None,
                changes: vec![],
                body,
            }],
            false,
        );
        assert_eq!(log.bytes[second..second + 4096], forged[..]);

        let whole = [batches(&log, 0..1), vec![Event::End(log.tail, 1, LogEnd::Open)]].concat();
        assert_eq!(scan_all(&log), whole);
        let mut torn = log.clone();
        torn.bytes[log.tail as usize - 4096..].fill(0xaa);
        assert_eq!(scan_all(&torn), [Event::End(LOG_START, 0, LogEnd::Torn)]);
    }

    /// What a scan may say of `log` after damage to the bytes `hurt`: every batch that the damage missed is
    /// there, exactly; nothing is there that was not written; and damage before the last batch is reported.
    fn check_after_damage(log: &Log, bytes: &[u8], hurt: std::ops::Range<usize>) {
        let found = scan(&log.header, bytes, SIZE);
        let mut alarmed = false;
        for event in &found {
            match event {
                Event::Batch(offset, records) => {
                    let batch = log.batches.iter().find(|batch| batch.0 == *offset);
                    assert_eq!(batch.map(|batch| &batch.1), Some(records), "hurt {hurt:?}");
                }
                Event::Salvaged(offset, records) => {
                    let batch = log
                        .batches
                        .iter()
                        .find(|batch| batch.0 == *offset)
                        .expect("a batch was there");
                    for (found, written) in records.iter().zip(&batch.1) {
                        let body = &written.body;
                        assert_eq!(
                            &Owned {
                                body: body.clone(),
                                ..found.clone()
                            },
                            written,
                            "hurt {hurt:?}"
                        );
                    }
                }
                Event::Damaged(from, to, _) => {
                    assert!(
                        hurt.start < *to as usize && *from as usize <= hurt.end,
                        "hurt {hurt:?}"
                    );
                    alarmed = true;
                }
                Event::End(tail, ..) => assert!(*tail <= log.tail),
            }
        }
        for (i, (offset, records)) in log.batches.iter().enumerate() {
            let batch = Event::Batch(*offset, records.clone());
            let is_missed = hurt.end <= *offset as usize || hurt.start >= log.end_of(i) as usize;
            let is_found = found.contains(&batch);
            assert!(is_found || !is_missed, "batch {i} is gone, hurt {hurt:?}");
            let is_last = i + 1 == log.batches.len();
            assert!(
                is_found || is_last || alarmed,
                "batch {i} went without an alarm, hurt {hurt:?}"
            );
        }
    }

    #[test]
    fn any_flipped_bit_is_told_or_harmless() {
        let log = Log::with_batches(21, GENERATION, 3);
        let mut bytes = log.bytes.clone();
        for at in WATERMARK..log.tail as usize {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                check_after_damage(&log, &bytes, at..at + 1);
                bytes[at] ^= 1 << bit;
            }
        }
    }

    #[test]
    fn a_flipped_bit_in_what_was_pushed_always_costs_its_batch() {
        let log = Log::with_batches(22, GENERATION, 2);
        for batch in 0..2 {
            for at in log.batches[batch].0 as usize..log.written_end(batch) {
                let mut hurt = log.bytes.clone();
                hurt[at] ^= 0x10;
                let found = scan(&log.header, &hurt, SIZE);
                assert!(!found.contains(&batches(&log, batch..batch + 1)[0]), "byte {at}");
            }
        }
    }

    #[test]
    fn any_overwritten_sector_is_told_or_harmless() {
        for seed in 0..8 {
            let mut chance = Chance(seed);
            let log = Log::with_batches(seed, GENERATION, 5);
            let older = Log::with_batches(seed, GENERATION - 1, 5);
            for at in (WATERMARK..log.tail as usize).step_by(512) {
                let elsewhere = chance.below(SIZE as usize / 512) * 512;
                let sources = [
                    vec![0; 512],
                    chance.bytes(512),
                    older.bytes[at..at + 512].to_vec(),
                    log.bytes[elsewhere..elsewhere + 512].to_vec(),
                ];
                for source in sources {
                    let mut bytes = log.bytes.clone();
                    bytes[at..at + 512].copy_from_slice(&source);
                    check_after_damage(&log, &bytes, at..at + 512);
                }
            }
        }
    }

    #[test]
    fn a_log_cut_off_anywhere_keeps_what_lies_before_the_cut() {
        let log = Log::with_batches(31, GENERATION, 4);
        for cut in (WATERMARK..log.tail as usize).step_by(13) {
            let mut bytes = log.bytes.clone();
            bytes[cut..].fill(0);
            let found = scan(&log.header, &bytes, SIZE);
            let whole = (0..4).filter(|&i| log.end_of(i) as usize <= cut).count();
            assert_eq!(found[..whole], batches(&log, 0..whole)[..], "cut at {cut}");
            assert!(
                !found.iter().any(|event| matches!(event, Event::Damaged(..))),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn disorder_never_panics() {
        for seed in 0..60 {
            let mut chance = Chance(seed);
            let mut log = Log::with_batches(seed, GENERATION, 6);
            for _ in 0..1 + chance.below(40) {
                let at = WATERMARK + chance.below(log.tail as usize - WATERMARK);
                let to = WATERMARK + chance.below(log.tail as usize - WATERMARK);
                let length = chance.below(3000).min(SIZE as usize - at.max(to));
                match chance.below(3) {
                    0 => log.bytes.copy_within(at..at + length, to),
                    1 => log.bytes[at..at + length].copy_from_slice(&chance.bytes(length)),
                    _ => log.bytes[at] ^= 1 << chance.below(8),
                }
            }
            let window_bytes = 4096 << chance.below(9);
            for event in scan(&log.header, &log.bytes, window_bytes) {
                if let Event::Batch(offset, records) = event {
                    assert!(log.batches.contains(&(offset, records)), "seed {seed}");
                }
            }
        }
    }
}
