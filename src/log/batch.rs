//! A batch: what one group commit writes, in one write.
//!
//! [`BatchWriter`] encodes records straight into the buffer that goes to the disk: a body is copied once, from
//! where it was received to where it is written. [`BatchRef`] is a batch read back and verified.
//!
//! Invariant: a batch is believed only where it was written (volume, segment, life, offset), only whole, and
//! every byte of the last 4096 that no record fills is zero: the buffer's earlier content never reaches a disk.

use super::record::{
    self, Change, POISON_RECORD_BYTES, Poison, RECORD_HEADER_BYTES, RecordIter, RecordPlace, body_crc32,
};
use super::{ALIGN_BYTES, FORMAT_VERSION, SegmentHeader, SegmentKind, VolumeId, field, padded, put};
use crate::limits::SEGMENT_HEADER_BYTES;

/// Bytes of a batch before its first record.
pub const BATCH_HEADER_BYTES: usize = 64;

const MAGIC: [u8; 4] = *b"WFTB";
const AT_MAGIC: usize = 0;
const AT_VERSION: usize = 4;
const AT_FLAGS: usize = 6;
const AT_GENERATION: usize = 8;
const AT_VOLUME_ID: usize = 16;
const AT_SEGMENT: usize = 32;
const AT_OFFSET: usize = 36;
const AT_NUMBER: usize = 40;
const AT_LENGTH: usize = 44;
const AT_RECORD_COUNT: usize = 48;
const AT_PAYLOAD_CRC32: usize = 52;
const AT_RESERVED: usize = 56;
const AT_HEADER_CRC32: usize = 60;

/// The batch is the last of its segment's life.
const FLAG_SEAL: u16 = 1;

/// Where [`BatchWriter::push`] put a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    /// Bytes from the segment's start to the record.
    pub record_offset_in_segment: u32,
    /// Bytes of the record.
    pub record_length: u32,
    /// Bytes from the segment's start to the record's body.
    pub body_offset_in_segment: u32,
    /// The body's checksum.
    pub body_crc32: u32,
}

/// Fills one batch in the buffer that will be written.
///
/// `B` is an owned buffer of the disk's, or a `&mut [u8]`.
pub struct BatchWriter<B> {
    dst: B,
    header: SegmentHeader,
    offset: u32,
    number: u32,
    capacity: usize,
    length: usize,
    record_count: u32,
    payload_crc32: crc32fast::Hasher,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> BatchWriter<B> {
    /// An empty batch that will be written at `offset` of the segment, as number `number` of its life: the first is
    /// 0 and lies behind the header, each next one lies where the one before ended. It holds what `dst` and the rest of
    /// the segment hold.
    ///
    /// # Panics
    /// When `header` is not that of a log, or `offset` or the buffer's length is not one that a batch can have.
    pub fn new(dst: B, header: &SegmentHeader, offset: u32, number: u32) -> BatchWriter<B> {
        assert!(header.kind == SegmentKind::Log, "a batch belongs into a log");
        assert!(
            offset.is_multiple_of(ALIGN_BYTES) && offset >= SEGMENT_HEADER_BYTES,
            "batch at {offset}"
        );
        assert!(
            offset < header.segment_size_bytes,
            "batch at {offset}, behind the segment's end"
        );
        let length = dst.as_ref().len();
        assert!(
            length > 0 && length.is_multiple_of(ALIGN_BYTES as usize),
            "a buffer of {length} bytes"
        );
        let capacity = length.min((header.segment_size_bytes - offset) as usize);
        BatchWriter {
            dst,
            header: *header,
            offset,
            number,
            capacity,
            length: BATCH_HEADER_BYTES,
            record_count: 0,
            payload_crc32: crc32fast::Hasher::new(),
        }
    }

    /// Whether a record of `record_length` bytes still fits.
    pub fn fits(&self, record_length: usize) -> bool {
        record_length <= self.capacity - self.length
    }

    /// Records in the batch so far.
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Bytes that the batch would take on disk if it were finished now.
    pub fn disk_length_bytes(&self) -> u32 {
        padded(self.length as u64) as u32
    }

    /// Where in the segment the body of the next record would lie, if the record's changes take
    /// `changes_length` bytes ([`record::changes_length`]).
    pub fn next_body_offset(&self, changes_length: usize) -> u32 {
        self.offset + (self.length + RECORD_HEADER_BYTES + changes_length) as u32
    }

    /// Adds a commit of `changes`, with `body` inside.
    ///
    /// # Panics
    /// When the record does not fit, a key is too long, or there are more than 65,535 changes.
    pub fn push(&mut self, sequence: u64, changes: &[Change<'_>], body: &[u8]) -> Placed {
        self.push_with_crc32(sequence, changes, body, body_crc32(body))
    }

    /// As [`BatchWriter::push`], for a body whose checksum ([`body_crc32`]) is known.
    pub fn push_with_crc32(
        &mut self,
        sequence: u64,
        changes: &[Change<'_>],
        body: &[u8],
        body_crc32: u32,
    ) -> Placed {
        let record_length = record::record_length(record::changes_length(changes), body.len());
        let (dst, place) = self.claim(record_length);
        record::encode_commit(dst, place, sequence, changes, body, body_crc32);
        self.settle(record_length);
        Placed {
            record_offset_in_segment: place.offset_in_segment,
            record_length: record_length as u32,
            body_offset_in_segment: place.offset_in_segment + (record_length - body.len()) as u32,
            body_crc32,
        }
    }

    /// Adds a poison record.
    ///
    /// # Panics
    /// When the record does not fit.
    pub fn push_poison(&mut self, sequence: u64, poison: &Poison) -> Placed {
        let (dst, place) = self.claim(POISON_RECORD_BYTES);
        record::encode_poison(dst, place, sequence, poison);
        self.settle(POISON_RECORD_BYTES);
        let end = place.offset_in_segment + POISON_RECORD_BYTES as u32;
        Placed {
            record_offset_in_segment: place.offset_in_segment,
            record_length: POISON_RECORD_BYTES as u32,
            body_offset_in_segment: end,
            body_crc32: body_crc32(&[]),
        }
    }

    /// Completes the batch: the buffer, and how many of its bytes (a multiple of 4096) are to be written.
    pub fn finish(self) -> (B, u32) {
        self.finish_with_flags(0)
    }

    /// Completes the batch as the last of this life, so that damage to any batch of the segment, the last
    /// included, is told from a torn tail. A batch without records will do.
    pub fn finish_sealed(self) -> (B, u32) {
        self.finish_with_flags(FLAG_SEAL)
    }

    fn claim(&mut self, record_length: usize) -> (&mut [u8], RecordPlace) {
        assert!(
            self.fits(record_length),
            "a record of {record_length} bytes does not fit"
        );
        let place = RecordPlace {
            generation: self.header.generation,
            offset_in_segment: self.offset + self.length as u32,
        };
        (
            &mut self.dst.as_mut()[self.length..self.length + record_length],
            place,
        )
    }

    /// Counts the record that [`BatchWriter::claim`] gave room to, while its bytes are in the cache.
    fn settle(&mut self, record_length: usize) {
        self.payload_crc32
            .update(&self.dst.as_ref()[self.length..self.length + record_length]);
        self.length += record_length;
        self.record_count += 1;
    }

    fn finish_with_flags(mut self, flags: u16) -> (B, u32) {
        let disk_length = self.disk_length_bytes();
        let dst = &mut self.dst.as_mut()[..disk_length as usize];
        dst[self.length..].fill(0);
        let header = &mut dst[..BATCH_HEADER_BYTES];
        put(header, AT_MAGIC, MAGIC);
        put(header, AT_VERSION, FORMAT_VERSION.to_le_bytes());
        put(header, AT_FLAGS, flags.to_le_bytes());
        put(header, AT_GENERATION, self.header.generation.to_le_bytes());
        put(header, AT_VOLUME_ID, self.header.volume_id);
        put(header, AT_SEGMENT, self.header.segment.to_le_bytes());
        put(header, AT_OFFSET, self.offset.to_le_bytes());
        put(header, AT_NUMBER, self.number.to_le_bytes());
        put(header, AT_LENGTH, (self.length as u32).to_le_bytes());
        put(header, AT_RECORD_COUNT, self.record_count.to_le_bytes());
        put(
            header,
            AT_PAYLOAD_CRC32,
            self.payload_crc32.finalize().to_le_bytes(),
        );
        put(header, AT_RESERVED, [0; 4]);
        let crc = crc32fast::hash(&header[..AT_HEADER_CRC32]);
        put(header, AT_HEADER_CRC32, crc.to_le_bytes());
        (self.dst, disk_length)
    }
}

/// A batch's header that was written at this place, in this life, by us.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchHeader {
    pub offset: u32,
    pub number: u32,
    pub sealed: bool,
    generation: u64,
    length: u32,
    record_count: u32,
    payload_crc32: u32,
}

impl BatchHeader {
    /// The header of a batch of this life at `offset` of the segment, if `bytes` begin with one.
    pub fn decode(bytes: &[u8], segment: &SegmentHeader, offset: u32) -> Option<BatchHeader> {
        let header: &[u8; BATCH_HEADER_BYTES] = bytes.first_chunk()?;
        // The magic first: a search for a header looks at many places that have none.
        if field(header, AT_MAGIC) != MAGIC
            || crc32fast::hash(&header[..AT_HEADER_CRC32])
                != u32::from_le_bytes(field(header, AT_HEADER_CRC32))
        {
            return None;
        }
        let volume_id: VolumeId = field(header, AT_VOLUME_ID);
        let is_here = volume_id == segment.volume_id
            && u64::from_le_bytes(field(header, AT_GENERATION)) == segment.generation
            && u32::from_le_bytes(field(header, AT_SEGMENT)) == segment.segment
            && u32::from_le_bytes(field(header, AT_OFFSET)) == offset;
        let flags = u16::from_le_bytes(field(header, AT_FLAGS));
        let is_known = u16::from_le_bytes(field(header, AT_VERSION)) == FORMAT_VERSION
            && flags & !FLAG_SEAL == 0
            && u32::from_le_bytes(field(header, AT_RESERVED)) == 0;
        let length = u32::from_le_bytes(field(header, AT_LENGTH));
        let end = u64::from(offset) + padded(u64::from(length));
        let has_room = length as usize >= BATCH_HEADER_BYTES && end <= u64::from(segment.segment_size_bytes);
        (is_here && is_known && has_room).then(|| BatchHeader {
            offset,
            number: u32::from_le_bytes(field(header, AT_NUMBER)),
            sealed: flags & FLAG_SEAL != 0,
            generation: segment.generation,
            length,
            record_count: u32::from_le_bytes(field(header, AT_RECORD_COUNT)),
            payload_crc32: u32::from_le_bytes(field(header, AT_PAYLOAD_CRC32)),
        })
    }

    /// Bytes of the batch on disk.
    pub fn disk_length_bytes(&self) -> u32 {
        padded(u64::from(self.length)) as u32
    }

    /// Where the next batch starts.
    pub fn end(&self) -> u32 {
        self.offset + self.disk_length_bytes()
    }

    /// The batch in `bytes`, which start with this header, if all of it is as it was written.
    pub fn verify<'a>(&self, bytes: &'a [u8]) -> Option<BatchRef<'a>> {
        let batch = self.salvage(bytes)?;
        if crc32fast::hash(batch.payload) != self.payload_crc32 {
            return None;
        }
        let mut records = batch.records();
        let count = records.by_ref().count();
        (count == self.record_count as usize && records.rest().is_empty()).then_some(batch)
    }

    /// The batch in `bytes`, its records unverified: each is checked as it is walked, and its body is not.
    pub fn salvage<'a>(&self, bytes: &'a [u8]) -> Option<BatchRef<'a>> {
        let payload = bytes.get(BATCH_HEADER_BYTES..self.length as usize)?;
        Some(BatchRef {
            header: *self,
            payload,
        })
    }
}

/// A batch that was read back.
#[derive(Clone, Copy, Debug)]
pub struct BatchRef<'a> {
    header: BatchHeader,
    payload: &'a [u8],
}

impl<'a> BatchRef<'a> {
    /// Bytes from the segment's start to the batch.
    pub fn offset_in_segment(&self) -> u32 {
        self.header.offset
    }

    /// Bytes of the batch on disk, its padding included.
    pub fn disk_length_bytes(&self) -> u32 {
        self.header.disk_length_bytes()
    }

    /// Its number in this life: 0, 1, 2...
    pub fn number(&self) -> u32 {
        self.header.number
    }

    /// Records that were written in it.
    pub fn record_count(&self) -> u32 {
        self.header.record_count
    }

    /// The records, in the order in which they were pushed.
    pub fn records(&self) -> RecordIter<'a> {
        let offset = self.header.offset + BATCH_HEADER_BYTES as u32;
        RecordIter::new(self.payload, self.header.generation, offset)
    }
}
