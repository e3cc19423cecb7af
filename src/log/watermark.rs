//! The watermark of a log: no batch whose sync succeeded ends behind it.
//!
//! It lies in a block of its own behind the segment's header, and is raised ahead of the batches that will pass
//! it, in the sync of the first of them. So it bounds the search for what may follow a batch that is not whole: what
//! lies behind the watermark was never acknowledged, whatever it looks like.
//!
//! Invariant: it only rises in a life. A watermark that is damaged, missing or of another life bounds nothing, and the
//! search goes on to the segment's end: losing it costs time, and never a batch.

use super::{ALIGN_BYTES, FORMAT_VERSION, SegmentHeader, VolumeId, field, padded, put};
use crate::limits::{SEGMENT_HEADER_BYTES, WATERMARK_STEP_BYTES_MAX};

/// Where in a log segment the watermark lies.
pub const WATERMARK_OFFSET: u32 = SEGMENT_HEADER_BYTES;
/// Bytes of the block that holds the watermark.
pub const WATERMARK_BYTES: u32 = ALIGN_BYTES;
/// Where in a log segment the first batch lies.
pub const LOG_START: u32 = WATERMARK_OFFSET + WATERMARK_BYTES;

/// A segment of the smallest size still has so many steps.
const STEPS_MIN: u32 = 8;

const MAGIC: [u8; 4] = *b"WFTM";
const AT_MAGIC: usize = 0;
const AT_VERSION: usize = 4;
const AT_RESERVED: usize = 6;
const AT_GENERATION: usize = 8;
const AT_VOLUME_ID: usize = 16;
const AT_SEGMENT: usize = 32;
const AT_WATERMARK: usize = 36;
const AT_CRC32: usize = 40;
const FIELDS_BYTES: usize = 44;

const _: () = assert!(FIELDS_BYTES <= 512);

/// The block that says that no batch of this life ends behind `watermark`.
///
/// # Panics
/// When `watermark` is no place where a batch may end.
pub fn encode_watermark(segment: &SegmentHeader, watermark: u32) -> [u8; WATERMARK_BYTES as usize] {
    assert!(is_valid(watermark, segment), "a watermark at {watermark}");
    let mut block = [0; WATERMARK_BYTES as usize];
    put(&mut block, AT_MAGIC, MAGIC);
    put(&mut block, AT_VERSION, FORMAT_VERSION.to_le_bytes());
    put(&mut block, AT_GENERATION, segment.generation.to_le_bytes());
    put(&mut block, AT_VOLUME_ID, segment.volume_id);
    put(&mut block, AT_SEGMENT, segment.segment.to_le_bytes());
    put(&mut block, AT_WATERMARK, watermark.to_le_bytes());
    let crc = crc32fast::hash(&block[..AT_CRC32]);
    put(&mut block, AT_CRC32, crc.to_le_bytes());
    block
}

/// The watermark of this life in the block that `bytes` begin with, if it holds one that is whole.
pub fn decode_watermark(bytes: &[u8], segment: &SegmentHeader) -> Option<u32> {
    let fields: &[u8; FIELDS_BYTES] = bytes.first_chunk()?;
    let volume_id: VolumeId = field(fields, AT_VOLUME_ID);
    let watermark = u32::from_le_bytes(field(fields, AT_WATERMARK));
    let is_whole = field(fields, AT_MAGIC) == MAGIC
        && crc32fast::hash(&fields[..AT_CRC32]) == u32::from_le_bytes(field(fields, AT_CRC32));
    let is_of_this_life = volume_id == segment.volume_id
        && u64::from_le_bytes(field(fields, AT_GENERATION)) == segment.generation
        && u32::from_le_bytes(field(fields, AT_SEGMENT)) == segment.segment;
    let is_known = u16::from_le_bytes(field(fields, AT_VERSION)) == FORMAT_VERSION
        && u16::from_le_bytes(field(fields, AT_RESERVED)) == 0
        && is_valid(watermark, segment);
    (is_whole && is_of_this_life && is_known).then_some(watermark)
}

/// Whether a block is the watermark of a life of this segment that held nothing yet.
pub fn is_of_an_empty_log(block: &[u8], volume_id: &VolumeId, segment: u32) -> bool {
    let Some(fields) = block.first_chunk::<FIELDS_BYTES>() else {
        return false;
    };
    field(fields, AT_MAGIC) == MAGIC
        && crc32fast::hash(&fields[..AT_CRC32]) == u32::from_le_bytes(field(fields, AT_CRC32))
        && field(fields, AT_VOLUME_ID) == *volume_id
        && u32::from_le_bytes(field(fields, AT_SEGMENT)) == segment
        && u32::from_le_bytes(field(fields, AT_WATERMARK)) == LOG_START
        && block[FIELDS_BYTES..].iter().all(|&byte| byte == 0)
}

/// Where the watermark goes when a batch will end at `end`, which the one before does not reach.
pub fn watermark_past(end: u32, segment_size_bytes: u32) -> u32 {
    let step = (segment_size_bytes / STEPS_MIN).min(WATERMARK_STEP_BYTES_MAX);
    padded(u64::from(end) + u64::from(step)).min(u64::from(segment_size_bytes)) as u32
}

fn is_valid(watermark: u32, segment: &SegmentHeader) -> bool {
    watermark.is_multiple_of(ALIGN_BYTES) && (LOG_START..=segment.segment_size_bytes).contains(&watermark)
}

#[cfg(test)]
mod tests {
    use super::super::SegmentKind;
    use super::*;
    use crate::limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};

    fn header() -> SegmentHeader {
        SegmentHeader {
            kind: SegmentKind::Log,
            segment: 0x0403_0201,
            generation: 0x1817_1615_1413_1211,
            epoch: 1,
            core: 0,
            volume_id: *b"sixteen bytes id",
            segment_size_bytes: SEGMENT_BYTES_MIN,
        }
    }

    #[test]
    fn golden_bytes() {
        let fields = [
            b"WFTM".as_slice(),
            &[1, 0, 0, 0],
            &[0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18],
            b"sixteen bytes id",
            &[1, 2, 3, 4, 0, 0x30, 0, 0],
            &[17, 146, 151, 194],
        ]
        .concat();
        let mut golden = [0; 4096];
        golden[..FIELDS_BYTES].copy_from_slice(&fields);
        assert_eq!(encode_watermark(&header(), 0x3000)[..64], golden[..64]);
        assert!(encode_watermark(&header(), 0x3000) == golden);
        assert_eq!(decode_watermark(&golden, &header()), Some(0x3000));
    }

    #[test]
    fn a_watermark_counts_whole_and_in_its_life_alone() {
        let block = encode_watermark(&header(), LOG_START);
        assert_eq!(decode_watermark(&block, &header()), Some(LOG_START));
        for bit in 0..FIELDS_BYTES * 8 {
            let mut hurt = block;
            hurt[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_watermark(&hurt, &header()), None, "bit {bit}");
        }
        let edits: [fn(&mut SegmentHeader); 3] = [
            |header| header.generation -= 1,
            |header| header.segment += 1,
            |header| header.volume_id[15] ^= 1,
        ];
        for (i, edit) in edits.into_iter().enumerate() {
            let mut other = header();
            edit(&mut other);
            assert_eq!(decode_watermark(&block, &other), None, "edit {i}");
        }
        for length in [0, 1, FIELDS_BYTES - 1] {
            assert_eq!(decode_watermark(&block[..length], &header()), None);
        }
    }

    #[test]
    fn a_whole_watermark_with_values_that_nobody_writes_bounds_nothing() {
        let edits: [fn(&mut [u8]); 6] = [
            |block| put(block, AT_VERSION, 2_u16.to_le_bytes()),
            |block| put(block, AT_RESERVED, [1, 0]),
            |block| put(block, AT_WATERMARK, 0_u32.to_le_bytes()),
            |block| put(block, AT_WATERMARK, (LOG_START - ALIGN_BYTES).to_le_bytes()),
            |block| put(block, AT_WATERMARK, (LOG_START + 512).to_le_bytes()),
            |block| {
                put(
                    block,
                    AT_WATERMARK,
                    (SEGMENT_BYTES_MIN + ALIGN_BYTES).to_le_bytes(),
                )
            },
        ];
        for (i, edit) in edits.into_iter().enumerate() {
            let mut block = encode_watermark(&header(), LOG_START);
            edit(&mut block);
            let crc = crc32fast::hash(&block[..AT_CRC32]);
            put(&mut block, AT_CRC32, crc.to_le_bytes());
            assert_eq!(decode_watermark(&block, &header()), None, "edit {i}");
        }
    }

    #[test]
    fn a_raised_watermark_is_past_the_batch_and_within_the_segment() {
        for shift in SEGMENT_BYTES_MIN.ilog2()..=SEGMENT_BYTES_MAX.ilog2() {
            let size = 1_u32 << shift;
            for end in [LOG_START + ALIGN_BYTES, size / 2, size - ALIGN_BYTES, size] {
                let watermark = watermark_past(end, size);
                let header = SegmentHeader {
                    segment_size_bytes: size,
                    ..header()
                };
                assert!(
                    watermark >= end && is_valid(watermark, &header),
                    "{end} of {size}"
                );
                assert!(watermark > end || end == size);
                assert!(watermark - end <= WATERMARK_STEP_BYTES_MAX);
            }
        }
    }
}
