//! Blocks: how a large body lies in a data segment, so that a range reads and verifies only what it touches.
//!
//! An extent of `length` body bytes is a run of blocks, each a 16-byte header and up to 65,520 body bytes. All are 64 KiB on
//! disk but the last, which is padded with zeros to 4096. The checksum covers the block's index and its extent's
//! tag with the payload, so a block of another extent, another place or an earlier life is refused.
//!
//! Invariant: [`verify_block`] returns body bytes only as they were sealed. Lengths and tags are not stored with
//! the extent: the commit record has them.

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

/// Completes a block whose `payload_length` body bytes the caller has put at [`BLOCK_HEADER_BYTES`] of `block`:
/// writes the header, and zeros behind the payload. `block` is all that goes to disk, padding included.
///
/// `tag` names the extent: no other extent of the volume, of this life of the segment or an earlier one, has the same.
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

/// A run of blocks of an extent, with the part of each that is wanted. It yields each block; to read several in one
/// operation, split them off with [`BlockRange::split_front`].
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
    /// The wanted bytes of this block, from `read`: bytes of the extent from `read_offset` (of the extent) on.
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
