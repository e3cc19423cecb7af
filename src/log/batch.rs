//! A batch: what one group commit writes, in one write.
//!
//! [`BatchWriter`] encodes records straight into the buffer that goes to the disk: a body is copied once,
//! from where it was received to where it is written. [`BatchRef`] is a batch read back and verified.
//!
//! Invariant: a batch is believed only where it was written (volume, segment, life, offset), only whole, and
//! every byte of the last 4096 that no record fills is zero: the buffer's earlier content never reaches a
//! disk.

use super::record::{
    self, Change, POISON_RECORD_BYTES, Poison, RECORD_HEADER_BYTES, RecordIter, RecordPlace, body_crc32,
};
use super::{
    ALIGN_BYTES, FORMAT_VERSION, LOG_START, SegmentHeader, SegmentKind, VolumeId, field, padded, put,
};

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
    /// An empty batch that will be written at `offset` of the segment, as number `number` of its life: the
    /// first is 0 and lies at [`LOG_START`], each next one lies where the one before ended. It holds what
    /// `dst` and the rest of the segment hold.
    ///
    /// # Panics
    /// When `header` is not that of a log, or `offset` or the buffer's length is not one that a batch can
    /// have.
    pub fn new(dst: B, header: &SegmentHeader, offset: u32, number: u32) -> BatchWriter<B> {
        assert!(header.kind == SegmentKind::Log, "a batch belongs into a log");
        assert!(
            offset.is_multiple_of(ALIGN_BYTES) && offset >= LOG_START,
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
    /// `changes_length` bytes ([`super::changes_length`]).
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
        batch.has_all_records().then_some(batch)
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

/// Bits in which the generation in a damaged header may differ from the one that was written.
const GENERATION_BITS_OFF_MAX: u32 = 2;

/// Whether `bytes` begin with a header of a batch of this life at `offset` that is not as it was written. A header lies
/// in one sector, so no torn write leaves one like that. `false` for a whole one, and for what has too little of one.
pub fn is_damaged_batch_header(bytes: &[u8], segment: &SegmentHeader, offset: u32) -> bool {
    let Some(header) = bytes.first_chunk::<BATCH_HEADER_BYTES>() else {
        return false;
    };
    if crc32fast::hash(&header[..AT_HEADER_CRC32]) == u32::from_le_bytes(field(header, AT_HEADER_CRC32)) {
        return false;
    }
    let agrees = [
        field(header, AT_MAGIC) == MAGIC,
        field(header, AT_VOLUME_ID) == segment.volume_id,
        u32::from_le_bytes(field(header, AT_SEGMENT)) == segment.segment,
        u32::from_le_bytes(field(header, AT_OFFSET)) == offset,
    ];
    let generation = u64::from_le_bytes(field(header, AT_GENERATION));
    agrees.iter().filter(|agrees| **agrees).count() + 1 >= agrees.len()
        && (generation ^ segment.generation).count_ones() <= GENERATION_BITS_OFF_MAX
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

    /// Whether it is the last of its life.
    pub fn is_seal(&self) -> bool {
        self.header.sealed
    }

    /// Records that were written in it.
    pub fn record_count(&self) -> u32 {
        self.header.record_count
    }

    /// Whether every record says what it said when it was written; of a salvaged batch, all but the bodies then.
    pub fn has_all_records(&self) -> bool {
        let mut records = self.records();
        let count = records.by_ref().count();
        count == self.header.record_count as usize && records.rest().is_empty()
    }

    /// The records, in the order in which they were pushed.
    pub fn records(&self) -> RecordIter<'a> {
        let offset = self.header.offset + BATCH_HEADER_BYTES as u32;
        RecordIter::new(self.payload, self.header.generation, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RecordKind, changes_length, record_bytes_max};
    use super::*;
    use crate::limits::SEGMENT_BYTES_MIN;

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

    fn decode<'a>(bytes: &'a [u8], offset: u32) -> Option<BatchRef<'a>> {
        BatchHeader::decode(bytes, &header(), offset)?.verify(bytes)
    }

    #[test]
    fn a_damaged_header_is_told_from_none_and_from_one_of_another_life() {
        let writer = BatchWriter::new(vec![0; 4096], &header(), 0x2000, 0);
        let (whole, _) = writer.finish();
        let is_damaged = |bytes: &[u8]| is_damaged_batch_header(bytes, &header(), 0x2000);
        assert!(!is_damaged(&whole));
        for bit in 0..8 * BATCH_HEADER_BYTES {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(is_damaged(&damaged), "bit {bit}");
        }
        let mut earlier = header();
        earlier.generation -= 0x100;
        let writer = BatchWriter::new(vec![0; 4096], &earlier, 0x2000, 0);
        let (mut stale, _) = writer.finish();
        assert!(!is_damaged(&stale));
        stale[50] ^= 1;
        assert!(!is_damaged(&stale[..63]) && !is_damaged(&[0; 64]) && !is_damaged(&[0xff; 64]));
    }

    #[test]
    fn golden_bytes() {
        let mut writer = BatchWriter::new(vec![0xee; 8192], &header(), 0x2000, 5);
        let changes = [
            Change::Put {
                key: b"key",
                value: b"val",
            },
            Change::Delete { key: b"x" },
        ];
        writer.push(0x0807_0605_0403_0201, &changes, b"body");
        writer.push_poison(
            9,
            &Poison {
                segment: 7,
                generation: 6,
                offset: 0x3000,
            },
        );
        let (buffer, length) = writer.finish();
        let golden = [
            b"WFTB".as_slice(),
            &[1, 0, 0, 0],
            &[0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18],
            b"sixteen bytes id",
            &[1, 2, 3, 4, 0, 0x20, 0, 0, 5, 0, 0, 0],
            &[163, 0, 0, 0, 2, 0, 0, 0],
            &[105, 202, 2, 251],
            &[0, 0, 0, 0],
            &[218, 157, 173, 218],
            // The commit: 28 + 14 + 9 + 4 bytes.
            &[55, 0, 0, 0, 1, 0, 2, 0, 1, 2, 3, 4, 5, 6, 7, 8, 4, 0, 0, 0],
            &[178, 11, 168, 219],
            &[162, 88, 48, 167],
            &[1, 0, 3, 0, 3, 0, 0, 0],
            b"keyval",
            &[2, 0, 1, 0, 0, 0, 0, 0],
            b"x",
            b"body",
            // The poison.
            &[
                44, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            ],
            &[71, 180, 1, 110],
            &[7, 0, 0, 0, 0, 0x30, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(length, 4096);
        assert_eq!(golden.len(), 163);
        assert_eq!(buffer[..163], golden[..]);
        assert!(buffer[163..4096].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn records_say_where_they_were_placed() {
        let mut writer = BatchWriter::new(vec![0xee; 1 << 17], &header(), 0x4000, 0);
        let mut placed = Vec::new();
        for i in 0..40_u8 {
            let body = vec![i; usize::from(i) * 50];
            // A value of fixed length that holds the place of its own record's body.
            let key = [i; 9];
            let at = writer.next_body_offset(super::super::change_length(key.len(), 4));
            let change = Change::Put {
                key: &key,
                value: &at.to_le_bytes(),
            };
            let here = writer.push(u64::from(i), &[change], &body);
            assert_eq!(here.body_offset_in_segment, at);
            assert_eq!(here.body_crc32, body_crc32(&body));
            placed.push((here, body));
        }
        let (buffer, length) = writer.finish();
        let batch = decode(&buffer[..length as usize], 0x4000).expect("whole");
        assert_eq!(batch.record_count(), 40);
        for (record, (placed, body)) in batch.records().zip(&placed) {
            assert_eq!(record.offset_in_segment(), placed.record_offset_in_segment);
            assert_eq!(record.length_bytes(), placed.record_length);
            assert_eq!(record.body_offset_in_segment(), placed.body_offset_in_segment);
            assert_eq!(record.body(), body);
            let at = (placed.body_offset_in_segment - 0x4000) as usize;
            assert_eq!(buffer[at..at + body.len()], body[..]);
            let Some(Change::Put { value, .. }) = record.changes().next() else {
                panic!("a put")
            };
            assert_eq!(value, placed.body_offset_in_segment.to_le_bytes());
        }
    }

    #[test]
    fn a_batch_fits_what_its_buffer_and_its_segment_hold() {
        let size = SEGMENT_BYTES_MIN;
        let writer = BatchWriter::new(vec![0; size as usize], &header(), LOG_START, 0);
        assert!(writer.fits(record_bytes_max(size)));
        let writer = BatchWriter::new(vec![0; 8192], &header(), size - 4096, 0);
        assert!(writer.fits(4096 - 64));
        assert!(!writer.fits(4096 - 63));
        let mut buffer = vec![0; 4096];
        let mut writer = BatchWriter::new(&mut buffer[..], &header(), LOG_START, 0);
        writer.push(1, &[], &[7; 4096 - 64 - 28]);
        assert!(writer.fits(0) && !writer.fits(1));
        assert_eq!(writer.finish().1, 4096);
        assert!(decode(&buffer, LOG_START).is_some());
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_record_that_does_not_fit_is_our_bug() {
        let mut writer = BatchWriter::new(vec![0; 4096], &header(), LOG_START, 0);
        writer.push(1, &[], &[0; 4096]);
    }

    #[test]
    fn no_byte_of_the_buffers_earlier_content_is_left() {
        for body_length in [0, 1, 3000, 4004, 4005, 8100, 12_000] {
            let batch_in = |fill: u8| {
                let mut writer = BatchWriter::new(vec![fill; 5 * 4096], &header(), LOG_START, 0);
                writer.push(1, &[Change::Delete { key: b"k" }], &vec![1; body_length]);
                writer.push_poison(
                    2,
                    &Poison {
                        segment: 1,
                        generation: 2,
                        offset: 3,
                    },
                );
                let (buffer, length) = writer.finish();
                buffer[..length as usize].to_vec()
            };
            assert_eq!(batch_in(0xee), batch_in(0x11));
        }
    }

    #[test]
    fn the_length_of_changes_is_that_which_they_take() {
        let changes = [
            Change::Put {
                key: b"abc",
                value: &[0; 700],
            },
            Change::Delete { key: &[] },
        ];
        let mut writer = BatchWriter::new(vec![0; 4096], &header(), LOG_START, 0);
        let placed = writer.push(3, &changes, b"1234567");
        assert_eq!(
            placed.record_length as usize,
            record::record_length(changes_length(&changes), 7)
        );
        assert_eq!(placed.record_length as usize, 28 + 8 + 3 + 700 + 8 + 7);
        let (buffer, _) = writer.finish();
        let batch = decode(&buffer, LOG_START).expect("whole");
        let record = batch.records().next().expect("one record");
        assert_eq!(record.kind(), RecordKind::Commit);
        assert_eq!(record.changes().collect::<Vec<_>>(), changes);
    }

    #[test]
    fn a_whole_header_with_values_that_nobody_writes_is_no_batch() {
        let mut writer = BatchWriter::new(vec![0; 4096], &header(), LOG_START, 0);
        writer.push(1, &[], b"body");
        let (whole, _) = writer.finish();
        let edits: [fn(&mut [u8]); 9] = [
            |header| header[AT_VERSION] = 2,
            |header| header[AT_FLAGS] = 2,
            |header| header[AT_RESERVED] = 1,
            |header| put(header, AT_LENGTH, 63_u32.to_le_bytes()),
            |header| put(header, AT_LENGTH, u32::MAX.to_le_bytes()),
            |header| put(header, AT_LENGTH, (SEGMENT_BYTES_MIN - 4095).to_le_bytes()),
            |header| put(header, AT_RECORD_COUNT, 2_u32.to_le_bytes()),
            |header| put(header, AT_RECORD_COUNT, u32::MAX.to_le_bytes()),
            |header| put(header, AT_OFFSET, (LOG_START + 4096).to_le_bytes()),
        ];
        for (i, edit) in edits.into_iter().enumerate() {
            let mut bytes = whole.clone();
            edit(&mut bytes);
            let crc = crc32fast::hash(&bytes[..AT_HEADER_CRC32]);
            put(&mut bytes, AT_HEADER_CRC32, crc.to_le_bytes());
            assert!(decode(&bytes, LOG_START).is_none(), "edit {i}");
        }
        for length in 0..64 + 28 + 4 {
            assert!(decode(&whole[..length], LOG_START).is_none(), "{length} bytes");
        }
    }
}
