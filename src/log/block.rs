//! Blocks: how a large body lies in a data segment, so that a range reads and verifies only what it touches.
//!
//! An extent of `length` body bytes is a run of blocks, each a 16-byte header and up to 65,520 body bytes.
//! All are 64 KiB on disk but the last, which is padded with zeros to 4096. The checksum covers the block's
//! index and its extent's tag with the payload, so a block of another extent, another place or an earlier
//! life is refused.
//!
//! Invariant: [`verify_block`] returns body bytes only as they were sealed. Lengths and tags are not stored
//! with the extent: the commit record has them.

use std::fmt;
use std::ops::Range;

use super::{ALIGN_BYTES, field, padded, put};
use crate::limits::{BLOCK_BYTES, BLOCK_HEADER_BYTES, BLOCK_PAYLOAD_BYTES};

const AT_CRC32: usize = 0;
const AT_INDEX: usize = 4;
const AT_TAG: usize = 8;

/// The checksum covers the block from here to the payload's end.
const SUMMED_FROM: usize = AT_INDEX;

const _: () = assert!(AT_TAG + 8 == BLOCK_HEADER_BYTES);
const _: () = assert!(BLOCK_BYTES.is_multiple_of(ALIGN_BYTES as usize));

/// Why a block's bytes are not served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockError {
    /// The bytes are not those that were sealed.
    Damaged { index: u32 },
    /// A whole block, of another extent or another place in this one: a lost or misdirected write.
    Misplaced {
        index: u32,
        found_tag: u64,
        found_index: u32,
    },
    /// Fewer bytes were given than the block has.
    Short { index: u32 },
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlockError::Damaged { index } => write!(f, "block {index} is damaged"),
            BlockError::Misplaced {
                index,
                found_tag,
                found_index,
            } => {
                write!(
                    f,
                    "in the place of block {index} lies block {found_index} of extent {found_tag:016x}"
                )
            }
            BlockError::Short { index } => write!(f, "block {index} was read short"),
        }
    }
}

impl std::error::Error for BlockError {}

/// Blocks of an extent of `length` body bytes.
///
/// # Panics
/// When they are more than a `u32` counts (256 TiB).
pub const fn blocks_for(length: u64) -> u32 {
    let blocks = length.div_ceil(BLOCK_PAYLOAD_BYTES as u64);
    assert!(blocks <= u32::MAX as u64, "an extent is shorter than its segment");
    blocks as u32
}

/// Bytes on disk of an extent of `length` body bytes: a multiple of 4096.
pub const fn disk_bytes_for(length: u64) -> u64 {
    let full = length / BLOCK_PAYLOAD_BYTES as u64;
    let rest = length % BLOCK_PAYLOAD_BYTES as u64;
    let last = if rest == 0 {
        0
    } else {
        padded(rest + BLOCK_HEADER_BYTES as u64)
    };
    full * BLOCK_BYTES as u64 + last
}

/// Body bytes of block `index` of an extent of `length` body bytes; 0 behind its end.
pub const fn block_payload_length(length: u64, index: u32) -> usize {
    let rest = length.saturating_sub(index as u64 * BLOCK_PAYLOAD_BYTES as u64);
    if rest < BLOCK_PAYLOAD_BYTES as u64 {
        rest as usize
    } else {
        BLOCK_PAYLOAD_BYTES
    }
}

/// Completes a block whose `payload_length` body bytes the caller has put at [`BLOCK_HEADER_BYTES`] of
/// `block`: writes the header, and zeros behind the payload. `block` is all that goes to disk, padding
/// included.
///
/// `tag` names the extent: no other extent of the volume, of this life of the segment or an earlier one, has
/// the same.
///
/// # Panics
/// When `block` is not as long as [`disk_bytes_for`] says, or the payload is empty or too long.
pub fn seal_block(block: &mut [u8], payload_length: usize, tag: u64, index: u32) {
    assert!(
        (1..=BLOCK_PAYLOAD_BYTES).contains(&payload_length),
        "a block of {payload_length} body bytes"
    );
    assert!(
        block.len() as u64 == disk_bytes_for(payload_length as u64),
        "a block of {} bytes",
        block.len()
    );
    let end = BLOCK_HEADER_BYTES + payload_length;
    put(block, AT_INDEX, index.to_le_bytes());
    put(block, AT_TAG, tag.to_le_bytes());
    let crc = crc32fast::hash(&block[SUMMED_FROM..end]);
    put(block, AT_CRC32, crc.to_le_bytes());
    block[end..].fill(0);
}

/// The body bytes of block `index` of the extent with `tag`, which starts at the start of `block`.
///
/// # Errors
/// `Damaged`, `Misplaced` or `Short`; the bytes are then not what was written, and must not be served.
pub fn verify_block(block: &[u8], payload_length: usize, tag: u64, index: u32) -> Result<&[u8], BlockError> {
    let short = BlockError::Short { index };
    let header: &[u8; BLOCK_HEADER_BYTES] = block.first_chunk().ok_or(short)?;
    let payload = block[BLOCK_HEADER_BYTES..].get(..payload_length).ok_or(short)?;
    let crc = crc32fast::hash(&block[SUMMED_FROM..BLOCK_HEADER_BYTES + payload_length]);
    let found_index = u32::from_le_bytes(field(header, AT_INDEX));
    let found_tag = u64::from_le_bytes(field(header, AT_TAG));
    if crc != u32::from_le_bytes(field(header, AT_CRC32)) {
        return Err(BlockError::Damaged { index });
    }
    if (found_tag, found_index) != (tag, index) {
        return Err(BlockError::Misplaced {
            index,
            found_tag,
            found_index,
        });
    }
    Ok(payload)
}

/// The blocks that hold body bytes `range` of an extent of `length` body bytes; none when `range` is empty.
///
/// # Panics
/// When `range` is not within the extent.
pub fn block_range(length: u64, range: Range<u64>) -> BlockRange {
    assert!(
        range.start <= range.end && range.end <= length,
        "bytes {range:?} of {length}"
    );
    let first = (range.start / BLOCK_PAYLOAD_BYTES as u64) as u32;
    let end = if range.is_empty() {
        first
    } else {
        blocks_for(range.end)
    };
    BlockRange {
        length,
        range,
        first,
        end,
    }
}

/// A run of blocks of an extent, with the part of each that is wanted. It yields each block; to read several
/// in one operation, split them off with [`BlockRange::split_front`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockRange {
    length: u64,
    range: Range<u64>,
    first: u32,
    end: u32,
}

impl BlockRange {
    /// Bytes from the extent's start to the first block: a multiple of 4096.
    pub fn disk_offset(&self) -> u64 {
        u64::from(self.first) * BLOCK_BYTES as u64
    }

    /// Bytes on disk of all the blocks: a multiple of 4096.
    pub fn disk_length(&self) -> u64 {
        let end = u64::from(self.end) * BLOCK_BYTES as u64;
        end.min(disk_bytes_for(self.length))
            .saturating_sub(self.disk_offset())
    }

    /// Takes up to `blocks_max` blocks off the front; `None` when there is none left.
    pub fn split_front(&mut self, blocks_max: u32) -> Option<BlockRange> {
        let blocks = (self.end - self.first).min(blocks_max);
        let front = BlockRange {
            end: self.first + blocks,
            ..self.clone()
        };
        self.first += blocks;
        (blocks > 0).then_some(front)
    }
}

impl Iterator for BlockRange {
    type Item = BlockSlice;

    fn next(&mut self) -> Option<BlockSlice> {
        let index = self.first;
        if index >= self.end {
            return None;
        }
        self.first += 1;
        let start = u64::from(index) * BLOCK_PAYLOAD_BYTES as u64;
        let payload_length = block_payload_length(self.length, index);
        let within = |at: u64| at.saturating_sub(start).min(payload_length as u64) as usize;
        Some(BlockSlice {
            index,
            disk_offset: u64::from(index) * BLOCK_BYTES as u64,
            disk_length: disk_bytes_for(payload_length as u64) as usize,
            payload_length,
            wanted: within(self.range.start)..within(self.range.end),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.end - self.first) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for BlockRange {}

/// One block of an extent, and the part of its payload that is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockSlice {
    /// Which block of the extent.
    pub index: u32,
    /// Bytes from the extent's start to the block.
    pub disk_offset: u64,
    /// Bytes of the block on disk.
    pub disk_length: usize,
    /// Body bytes in the block.
    pub payload_length: usize,
    /// The body bytes that are wanted, counted from the payload's start.
    pub wanted: Range<usize>,
}

impl BlockSlice {
    /// The wanted bytes of this block, from `read`: bytes of the extent from `read_offset` (of the extent)
    /// on.
    ///
    /// # Errors
    /// As [`verify_block`]; `Short` too when `read` does not hold the block.
    pub fn verify<'a>(&self, read: &'a [u8], read_offset: u64, tag: u64) -> Result<&'a [u8], BlockError> {
        let short = BlockError::Short { index: self.index };
        let start = self.disk_offset.checked_sub(read_offset).ok_or(short)?;
        let block = usize::try_from(start)
            .ok()
            .and_then(|start| read.get(start..))
            .ok_or(short)?;
        let payload = verify_block(block, self.payload_length, tag, self.index)?;
        payload.get(self.wanted.clone()).ok_or(short)
    }
}

#[cfg(test)]
mod tests {
    use super::super::chance::Chance;
    use super::*;

    const FULL: u64 = BLOCK_PAYLOAD_BYTES as u64;
    const TAG: u64 = 0x1817_1615_1413_1211;

    /// An extent on disk, sealed in buffers with undefined content.
    fn extent(body: &[u8], tag: u64) -> Vec<u8> {
        let mut disk = Vec::new();
        for block in block_range(body.len() as u64, 0..body.len() as u64) {
            let mut buffer = vec![0xee; block.disk_length];
            let at = block.index as usize * BLOCK_PAYLOAD_BYTES;
            buffer[BLOCK_HEADER_BYTES..][..block.payload_length]
                .copy_from_slice(&body[at..at + block.payload_length]);
            seal_block(&mut buffer, block.payload_length, tag, block.index);
            disk.extend(buffer);
        }
        assert_eq!(disk.len() as u64, disk_bytes_for(body.len() as u64));
        disk
    }

    #[test]
    fn golden_bytes() {
        let golden = [
            [249, 41, 103, 205].as_slice(),
            &[4, 3, 2, 1],
            &[0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18],
            b"body",
            &[0; 4096 - 20],
        ]
        .concat();
        let mut block = vec![0xee; 4096];
        block[16..20].copy_from_slice(b"body");
        seal_block(&mut block, 4, TAG, 0x0102_0304);
        assert_eq!(block[..20], golden[..20]);
        assert_eq!(block, golden);
    }

    #[test]
    fn lengths_at_the_edges_of_blocks() {
        // Body bytes, blocks, bytes on disk.
        let table = [
            (0, 0, 0),
            (1, 1, 4096),
            (4080, 1, 4096),
            (4081, 1, 8192),
            (FULL - 1, 1, 65_536),
            (FULL, 1, 65_536),
            (FULL + 1, 2, 65_536 + 4096),
            (3 * FULL, 3, 3 * 65_536),
            (5 << 30, 81_941, 5_370_023_936),
        ];
        for (length, blocks, disk) in table {
            assert_eq!(
                (blocks_for(length), disk_bytes_for(length)),
                (blocks, disk),
                "{length}"
            );
            let payloads: u64 = (0..blocks + 2)
                .map(|i| block_payload_length(length, i) as u64)
                .sum();
            assert_eq!(payloads, length);
        }
        assert_eq!(block_payload_length(u64::MAX, u32::MAX), BLOCK_PAYLOAD_BYTES);
    }

    #[test]
    fn any_range_reads_back_in_operations_of_any_size() {
        let mut chance = Chance(3);
        for length in [1, 4081, FULL, FULL + 1, 5 * FULL + 777] {
            let body = chance.bytes(length as usize);
            let disk = extent(&body, TAG);
            let edges = [0, 1, length / 2, FULL - 1, FULL, FULL + 1, length - 1, length];
            for start in edges {
                for end in edges.into_iter().filter(|&end| start <= end && end <= length) {
                    for blocks_max in [1, 2, 4, 100] {
                        let mut range = block_range(length, start..end);
                        let mut read: Vec<u8> = Vec::new();
                        while let Some(blocks) = range.split_front(blocks_max) {
                            assert!(blocks.len() <= blocks_max as usize);
                            let (offset, count) = (blocks.disk_offset(), blocks.disk_length());
                            assert!(offset % 4096 == 0 && count % 4096 == 0);
                            let bytes = &disk[offset as usize..(offset + count) as usize];
                            for block in blocks {
                                read.extend(block.verify(bytes, offset, TAG).expect("whole"));
                            }
                        }
                        assert_eq!(read, body[start as usize..end as usize]);
                    }
                }
            }
        }
    }

    #[test]
    fn an_empty_range_touches_no_block() {
        for at in [0, 1, FULL, 2 * FULL, 2 * FULL + 5] {
            let mut range = block_range(2 * FULL + 5, at..at);
            assert_eq!(
                (range.disk_length(), range.len(), range.split_front(4)),
                (0, 0, None)
            );
        }
    }

    #[test]
    fn any_flipped_bit_is_refused_or_lies_in_the_padding() {
        let body = Chance(4).bytes(700);
        let mut disk = extent(&body, TAG);
        for bit in 0..disk.len() * 8 {
            disk[bit / 8] ^= 1 << (bit % 8);
            let found = verify_block(&disk, 700, TAG, 0);
            if bit / 8 < 716 {
                assert_eq!(found, Err(BlockError::Damaged { index: 0 }), "bit {bit}");
            } else {
                assert_eq!(found, Ok(&body[..]), "bit {bit}");
            }
            disk[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn any_overwritten_sector_of_a_full_block_is_refused() {
        let mut chance = Chance(5);
        let body = chance.bytes(BLOCK_PAYLOAD_BYTES);
        let (disk, older) = (
            extent(&body, TAG),
            extent(&chance.bytes(BLOCK_PAYLOAD_BYTES), TAG - 1),
        );
        for at in (0..disk.len()).step_by(512) {
            for source in [vec![0; 512], chance.bytes(512), older[at..at + 512].to_vec()] {
                let mut hurt = disk.clone();
                hurt[at..at + 512].copy_from_slice(&source);
                assert!(
                    verify_block(&hurt, BLOCK_PAYLOAD_BYTES, TAG, 0).is_err(),
                    "sector at {at}"
                );
            }
        }
    }

    #[test]
    fn a_block_of_another_extent_or_place_is_refused() {
        let body = Chance(6).bytes(2 * BLOCK_PAYLOAD_BYTES);
        let disk = extent(&body, TAG);
        let second = &disk[BLOCK_BYTES..];
        let misplaced = BlockError::Misplaced {
            index: 0,
            found_tag: TAG,
            found_index: 1,
        };
        assert_eq!(verify_block(second, BLOCK_PAYLOAD_BYTES, TAG, 0), Err(misplaced));
        let stale = BlockError::Misplaced {
            index: 1,
            found_tag: TAG,
            found_index: 1,
        };
        assert_eq!(verify_block(second, BLOCK_PAYLOAD_BYTES, TAG + 1, 1), Err(stale));
        // A length that is not the extent's is never served either.
        for length in [1, 4080, BLOCK_PAYLOAD_BYTES - 1] {
            assert_eq!(
                verify_block(&disk, length, TAG, 0),
                Err(BlockError::Damaged { index: 0 })
            );
        }
        assert_eq!(
            verify_block(&disk[..100], 85, TAG, 0),
            Err(BlockError::Short { index: 0 })
        );
        assert_eq!(verify_block(&[], 0, TAG, 0), Err(BlockError::Short { index: 0 }));
        let block = block_range(10, 0..10).next().expect("one block");
        assert_eq!(
            block.verify(&disk, 4096, TAG),
            Err(BlockError::Short { index: 0 })
        );
    }

    #[test]
    fn zeros_are_no_block() {
        for length in [1, 4080, BLOCK_PAYLOAD_BYTES] {
            let zeros = vec![0; BLOCK_BYTES];
            assert_eq!(
                verify_block(&zeros, length, 0, 0),
                Err(BlockError::Damaged { index: 0 })
            );
        }
    }
}
