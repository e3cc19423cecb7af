//! The bytes of a volume, whatever they are: segment headers, logs, blocks.
//!
//! The first byte chooses what the rest is: bytes of a log as they are; records, whose checksums are then
//! made to fit, so that what parses them is reached; or a script that builds a log, damages it, and holds the
//! scanner to what it promises. No input may panic, and no batch may be read that was not written.

use std::cell::RefCell;

use weft::log::{
    BatchWriter, Change, LOG_START, LogScanner, Poison, RecordKind, ScanStep, SegmentHeader, SegmentKind,
    WATERMARK_OFFSET, block_range, blocks_for, body_crc32, decode_watermark, disk_bytes_for,
    encode_watermark, verify_block, watermark_past,
};

const SIZE: u32 = 1 << 20;
const START: usize = LOG_START as usize;
const WATERMARK: usize = WATERMARK_OFFSET as usize;
const GENERATION: u64 = 7;
const SEGMENT: u32 = 3;
const VOLUME_ID: [u8; 16] = *b"sixteen bytes id";
const STEPS_MAX: usize = 10_000;

pub fn check(data: &[u8]) {
    let Some((&mode, rest)) = data.split_first() else {
        return;
    };
    match mode % 4 {
        0 => with_segment(|bytes| raw_log(rest, bytes)),
        1 => with_segment(|bytes| sealed_records(rest, bytes)),
        2 => with_segment(|bytes| script(rest, bytes)),
        _ => headers_and_blocks(rest),
    }
}

/// Lends a zeroed segment. It is kept: fresh pages for each input would cost more than all that is checked.
fn with_segment(run: impl FnOnce(&mut [u8])) {
    thread_local! {
        static BYTES: RefCell<Vec<u8>> = RefCell::new(vec![0; SIZE as usize]);
    }
    BYTES.with_borrow_mut(|bytes| {
        bytes.fill(0);
        run(bytes);
    });
}

fn header() -> SegmentHeader {
    SegmentHeader {
        kind: SegmentKind::Log,
        segment: SEGMENT,
        generation: GENERATION,
        epoch: 1,
        core: 0,
        volume_id: VOLUME_ID,
        segment_size_bytes: SIZE,
    }
}

fn raw_log(data: &[u8], bytes: &mut [u8]) {
    let length = data.len().min(bytes.len() - WATERMARK);
    bytes[WATERMARK..WATERMARK + length].copy_from_slice(&data[..length]);
    scan(bytes, 4096, |_, _| {});
}

/// Bytes taken as the records of batch 0, with all checksums right.
fn sealed_records(data: &[u8], bytes: &mut [u8]) {
    let length = data.len().min(bytes.len() - START - 4096);
    let end = START + 64 + length;
    bytes[START + 64..end].copy_from_slice(&data[..length]);
    let mut at = START + 64;
    let mut count = 0_u32;
    while at + 28 <= end {
        let word =
            |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
        let (record_length, body_length) = (word(at), word(at + 16));
        if record_length < 28 || record_length > end - at || body_length > record_length - 28 {
            break;
        }
        let content = &bytes[at + 28..at + record_length - body_length];
        let place = [&GENERATION.to_le_bytes()[..], &(at as u32).to_le_bytes()].concat();
        let crc = body_crc32(&[&place, &bytes[at..at + 24], content].concat());
        bytes[at + 24..at + 28].copy_from_slice(&crc.to_le_bytes());
        count += 1;
        at += record_length;
    }
    let payload_crc = body_crc32(&bytes[START + 64..at]);
    let mut header = b"WFTB\x01\0\0\0".to_vec();
    header.extend(GENERATION.to_le_bytes());
    header.extend(VOLUME_ID);
    for field in [SEGMENT, LOG_START, 0, (at - START) as u32, count, payload_crc, 0] {
        header.extend(field.to_le_bytes());
    }
    header.extend(body_crc32(&header).to_le_bytes());
    bytes[START..START + 64].copy_from_slice(&header);
    scan(bytes, SIZE, |_, _| {});
}

/// Builds a log of up to eight batches, applies the script's damage, and compares what is read with what was
/// written.
fn script(data: &[u8], bytes: &mut [u8]) {
    let mut script = data.iter().copied();
    let mut written: Vec<(u32, u32)> = Vec::new();
    let mut tail = LOG_START;
    for number in 0..1 + u32::from(script.next().unwrap_or(0) % 8) {
        let mut writer = BatchWriter::new(&mut bytes[tail as usize..], &header(), tail, number);
        for sequence in 0..script.next().unwrap_or(0) % 4 {
            let (key, value) = ([sequence; 5], [script.next().unwrap_or(0); 30]);
            let body = vec![number as u8; usize::from(script.next().unwrap_or(0)) * 40];
            let changes = [
                Change::Put {
                    key: &key,
                    value: &value,
                },
                Change::Delete { key: &value },
            ];
            let at = writer.next_body_offset(weft::log::changes_length(&changes));
            let placed = writer.push(u64::from(sequence), &changes, &body);
            assert_eq!(placed.body_offset_in_segment, at);
        }
        writer.push_poison(
            9,
            &Poison {
                segment: number,
                generation: 1,
                offset: tail,
            },
        );
        let (_, length) = writer.finish();
        written.push((tail, length));
        tail += length;
    }
    let block = encode_watermark(&header(), watermark_past(tail, SIZE));
    bytes[WATERMARK..START].copy_from_slice(&block);
    let whole = bytes[..tail as usize].to_vec();
    while let (Some(kind), Some(high), Some(low), Some(fill)) =
        (script.next(), script.next(), script.next(), script.next())
    {
        let at = WATERMARK + (usize::from(high) << 8 | usize::from(low)) * 4 % (tail as usize - WATERMARK);
        let sector = at / 512 * 512;
        match kind % 4 {
            0 => bytes[at] ^= fill,
            1 => bytes[sector..sector + 512].fill(fill),
            2 => bytes.copy_within(sector..sector + 512, WATERMARK + usize::from(fill) * 512),
            _ => bytes[sector..].fill(0),
        }
    }
    scan(bytes, 4096 << (data.len() % 9), |offset, length| {
        assert!(
            written.contains(&(offset, length)),
            "a batch at {offset} that nobody wrote"
        );
        let at = offset as usize;
        let end = at
            + u32::from_le_bytes([whole[at + 44], whole[at + 45], whole[at + 46], whole[at + 47]]) as usize;
        assert_eq!(
            bytes[at..end],
            whole[at..end],
            "a batch at {offset} that is not as it was written"
        );
    });
}

/// Walks everything; `batch` sees the place of each whole batch.
fn scan(bytes: &[u8], window_bytes: u32, mut batch: impl FnMut(u32, u32)) {
    let mut scanner = LogScanner::new(&header(), decode_watermark(&bytes[WATERMARK..], &header()));
    let mut window = 0..0;
    let mut position = LOG_START;
    for _ in 0..STEPS_MAX {
        match scanner.next(&bytes[window.start as usize..window.end as usize], window.start) {
            ScanStep::Batch(found) => {
                assert!(found.offset_in_segment() >= position, "batches go forward");
                position = found.offset_in_segment() + found.disk_length_bytes();
                assert_eq!(found.records().count(), found.record_count() as usize);
                walk(&found, bytes);
                batch(found.offset_in_segment(), found.disk_length_bytes());
            }
            ScanStep::Salvaged(found) => walk(&found, bytes),
            ScanStep::NeedMore { from, length_min } => {
                assert!(from + length_min <= SIZE && length_min > 0);
                window = from..(from + length_min.max(window_bytes)).min(SIZE);
            }
            ScanStep::Damaged { from, to, .. } => assert!(position <= from && from <= to && to < SIZE),
            ScanStep::End { tail, .. } => {
                assert!(position <= tail && tail <= SIZE);
                return;
            }
        }
    }
    panic!("the scan does not end");
}

fn walk(batch: &weft::log::BatchRef<'_>, bytes: &[u8]) {
    for record in batch.records() {
        let body_at = record.body_offset_in_segment() as usize;
        assert_eq!(&bytes[body_at..body_at + record.body().len()], record.body());
        let length: usize = record
            .changes()
            .map(|change| 8 + change.key().len() + change.value().len())
            .sum();
        let content = match record.kind() {
            RecordKind::Commit => length,
            RecordKind::Poison(_) => 16,
        };
        assert_eq!(record.length_bytes() as usize, 28 + content + record.body().len());
    }
}

fn headers_and_blocks(data: &[u8]) {
    let mut page = vec![0; 4096];
    let length = data.len().min(4096);
    page[..length].copy_from_slice(&data[..length]);
    if let Ok(header) = SegmentHeader::decode(&page) {
        assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
    }
    let crc = body_crc32(&[&page[..12], &[0; 4], &page[16..2048]].concat());
    page[12..16].copy_from_slice(&crc.to_le_bytes());
    page.copy_within(..2048, 2048);
    if let Ok(header) = SegmentHeader::decode(&page) {
        assert_eq!(header.encode()[..], page[..]);
    }
    let number = |at: usize| {
        data.get(at..at + 4)
            .map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    };
    for payload_length in [number(0) as usize, number(0) as usize % 70_000] {
        let _ = verify_block(data, payload_length, 1, number(4));
    }
    let extent = u64::from(number(8)) << (number(12) % 10);
    let start = u64::from(number(16)).min(extent);
    let end = (start + u64::from(number(20)) % (1 << 20)).min(extent);
    let range = block_range(extent, start..end);
    assert!(range.disk_offset() + range.disk_length() <= disk_bytes_for(extent) || start == end);
    assert!(range.len() <= blocks_for(extent) as usize);
    let wanted: u64 = range.map(|block| block.wanted.len() as u64).sum();
    assert_eq!(wanted, end - start);
}
