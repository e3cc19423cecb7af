//! The bytes of a volume: segment headers, batches of commit records, and blocks of large bodies.
//!
//! Bytes in, values out: nothing here names a runtime, a file or a clock. docs/format.md is the normative
//! text; its layout tables are repeated here as named offsets, and golden bytes in the tests hold both.
//!
//! Invariant: what a checksum, a generation or a place refuses never becomes a value, and no bytes from a
//! disk reach a panic or an unbounded allocation. A wrong argument of our own callers is an assert.

mod batch;
mod block;
mod record;
mod scanner;
mod segment;
mod watermark;

pub use batch::{BATCH_HEADER_BYTES, BatchRef, BatchWriter, Placed, is_damaged_batch_header};
pub use block::{
    BlockError, BlockRange, BlockSlice, block_payload_length, block_range, blocks_for, disk_bytes_for,
    seal_block, verify_block,
};
pub use record::{
    Change, ChangeIter, POISON_RECORD_BYTES, Poison, RECORD_HEADER_BYTES, RecordIter, RecordKind, RecordRef,
    body_crc32, change_length, changes_length, record_bytes_max, record_length,
};
pub use scanner::{LogEnd, LogScanner, ScanStep};
pub use segment::{HeaderError, SegmentHeader, SegmentKind, VolumeId};
pub use watermark::{
    LOG_START, WATERMARK_BYTES, WATERMARK_OFFSET, decode_watermark, encode_watermark, is_of_an_empty_log,
    watermark_past,
};

use crate::limits::{KEY_BYTES_MAX, SEGMENT_HEADER_BYTES};

/// The version of everything in docs/format.md. A batch and a block have the version of their segment's
/// header.
pub const FORMAT_VERSION: u16 = 1;
/// The version of an index segment and what is in it. It came later: who knows version 1 alone must not touch a volume
/// that has one, for its logs do not tell all any more.
pub const INDEX_VERSION: u16 = 2;
/// Alignment, in bytes, of batches, extents and blocks in a segment.
pub const ALIGN_BYTES: u32 = 4096;
/// Bytes of an encoded index key: an object key with every byte escaped, a bucket id, a suffix.
pub const INDEX_KEY_BYTES_MAX: usize = 2 * KEY_BYTES_MAX + 64;

const _: () = assert!(SEGMENT_HEADER_BYTES == ALIGN_BYTES);
const _: () = assert!(INDEX_KEY_BYTES_MAX <= u16::MAX as usize);

/// `length` rounded up to [`ALIGN_BYTES`].
const fn padded(length: u64) -> u64 {
    length.next_multiple_of(ALIGN_BYTES as u64)
}

/// The `N` bytes of `header` at a layout offset, for `from_le_bytes`.
pub(crate) fn field<const N: usize, const H: usize>(header: &[u8; H], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&header[at..at + N]);
    bytes
}

/// Writes `bytes` at a layout offset of `header`.
pub(crate) fn put<const N: usize>(header: &mut [u8], at: usize, bytes: [u8; N]) {
    header[at..at + N].copy_from_slice(&bytes);
}

/// Deterministic disorder for the tests of this layer.
#[cfg(test)]
mod chance {
    /// SplitMix64.
    pub struct Chance(pub u64);

    impl Chance {
        pub fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        pub fn below(&mut self, bound: usize) -> usize {
            (self.next() % bound as u64) as usize
        }

        pub fn bytes(&mut self, length: usize) -> Vec<u8> {
            (0..length).map(|_| self.next() as u8).collect()
        }
    }
}
