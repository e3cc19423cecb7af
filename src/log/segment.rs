//! The header of a segment: what it holds, and which life of the segment this is.
//!
//! It is the first 4096 bytes: one 2048-byte copy, twice. A life begins with one write of it. All that
//! differs from life to life lies in the first 512-byte sector of each copy, so a torn rewrite leaves the old
//! header or the new one, and one lost sector or flipped bit leaves the other copy.
//!
//! Invariant: a header that decodes was written by us, whole, with a size that the limits allow. Whether it
//! is the header that belongs *here* is [`SegmentHeader::expect`]'s question.

use super::{FORMAT_VERSION, INDEX_VERSION, field, put};
use crate::limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENT_HEADER_BYTES};

/// 16 bytes from the system's random source, drawn when a volume is made, and told to nobody: a client that
/// knew them could store an object that reads as a batch of the log.
pub type VolumeId = [u8; 16];

/// What a life of a segment holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum SegmentKind {
    /// Batches of commit records, small bodies inside.
    Log = 1,
    /// Blocks of large bodies.
    Data = 2,
    /// Freed durably: what lies behind the header must never be read.
    Free = 3,
    /// Pages of index runs, and the manifest of the core that wrote them.
    Index = 4,
}

impl SegmentKind {
    /// The version of the format that knows such a segment.
    fn version(self) -> u16 {
        match self {
            SegmentKind::Log | SegmentKind::Data | SegmentKind::Free => FORMAT_VERSION,
            SegmentKind::Index => INDEX_VERSION,
        }
    }
}

/// The header of one life of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// What this life holds.
    pub kind: SegmentKind,
    /// The segment's number in its volume.
    pub segment: u32,
    /// The life: no other life of any segment of the volume has this number, and later lives have greater
    /// ones.
    pub generation: u64,
    /// The boot epoch in which the life began.
    pub epoch: u32,
    /// The core that fills it (of that epoch; the next start may have other cores).
    pub core: u16,
    /// The volume that the segment belongs to.
    pub volume_id: VolumeId,
    /// Bytes of the segment, this header included: a power of two within the limits.
    pub segment_size_bytes: u32,
}

/// Why a segment has no header that can be believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderError {
    /// Neither copy begins as a header does: never written.
    NotWritten,
    /// A header was written, and neither copy is whole.
    Damaged,
    /// Written by a later release, in this version of the format.
    NewerVersion(u16),
    /// A whole header of another segment: a misdirected write, or files that changed places.
    Misplaced { segment: u32 },
    /// A whole header of another volume.
    OtherVolume,
    /// A whole header of a volume with segments of another size.
    OtherSize { segment_size_bytes: u32 },
}

impl std::fmt::Display for HeaderError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HeaderError::NotWritten => f.write_str("segment header was never written"),
            HeaderError::Damaged => f.write_str("segment header is damaged"),
            HeaderError::NewerVersion(version) => {
                write!(
                    f,
                    "segment has format version {version}, and this release reads up to {INDEX_VERSION}"
                )
            }
            HeaderError::Misplaced { segment } => {
                write!(f, "segment header is that of segment {segment:08x}")
            }
            HeaderError::OtherVolume => f.write_str("segment header is that of another volume"),
            HeaderError::OtherSize { segment_size_bytes } => {
                write!(f, "segment header says segments of {segment_size_bytes} bytes")
            }
        }
    }
}

impl std::error::Error for HeaderError {}

const BYTES: usize = SEGMENT_HEADER_BYTES as usize;
const COPY_BYTES: usize = BYTES / 2;

const MAGIC: [u8; 8] = *b"WEFTSEGM";
const AT_MAGIC: usize = 0;
const AT_VERSION: usize = 8;
const AT_KIND: usize = 10;
const AT_CRC32: usize = 12;
const AT_GENERATION: usize = 16;
const AT_SEGMENT: usize = 24;
const AT_EPOCH: usize = 28;
const AT_VOLUME_ID: usize = 32;
const AT_SEGMENT_SIZE: usize = 48;
const AT_CORE: usize = 52;
const FIELDS_END: usize = 54;

const _: () = assert!(FIELDS_END <= 512);

impl SegmentHeader {
    /// The 4096 bytes at the start of the segment.
    ///
    /// # Panics
    /// When `segment_size_bytes` is not a power of two within the limits.
    pub fn encode(&self) -> [u8; BYTES] {
        assert!(
            size_is_valid(self.segment_size_bytes),
            "segment size {}",
            self.segment_size_bytes
        );
        let mut bytes = [0; BYTES];
        let copy = &mut bytes[..COPY_BYTES];
        put(copy, AT_MAGIC, MAGIC);
        put(copy, AT_VERSION, self.kind.version().to_le_bytes());
        put(copy, AT_KIND, [self.kind as u8]);
        put(copy, AT_GENERATION, self.generation.to_le_bytes());
        put(copy, AT_SEGMENT, self.segment.to_le_bytes());
        put(copy, AT_EPOCH, self.epoch.to_le_bytes());
        put(copy, AT_VOLUME_ID, self.volume_id);
        put(copy, AT_SEGMENT_SIZE, self.segment_size_bytes.to_le_bytes());
        put(copy, AT_CORE, self.core.to_le_bytes());
        let crc = crc32fast::hash(copy);
        put(copy, AT_CRC32, crc.to_le_bytes());
        bytes.copy_within(..COPY_BYTES, COPY_BYTES);
        bytes
    }

    /// The header in the first 4096 bytes of a segment: the first copy, or the second if that one is not
    /// whole.
    ///
    /// # Errors
    /// `NotWritten`, `Damaged` or `NewerVersion`; `Damaged` too when fewer than 4096 bytes are given.
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderError> {
        let (Some(first), Some(second)) = (copy_at(bytes, 0), copy_at(bytes, COPY_BYTES)) else {
            return Err(HeaderError::Damaged);
        };
        match (decode_copy(first), decode_copy(second)) {
            (Ok(header), _) => Ok(header),
            (Err(newer @ HeaderError::NewerVersion(_)), _) => Err(newer),
            (Err(_), Err(newer @ HeaderError::NewerVersion(_))) => Err(newer),
            (Err(_), Ok(header)) => Ok(header),
            (Err(HeaderError::NotWritten), Err(HeaderError::NotWritten)) => Err(HeaderError::NotWritten),
            (Err(_), Err(_)) => Err(HeaderError::Damaged),
        }
    }

    /// Each of the two copies in the first 4096 bytes of a segment, as it is.
    ///
    /// # Errors
    /// As [`SegmentHeader::decode`], for each copy.
    pub fn decode_copies(bytes: &[u8]) -> [Result<SegmentHeader, HeaderError>; 2] {
        [0, COPY_BYTES].map(|at| decode_copy(copy_at(bytes, at).ok_or(HeaderError::Damaged)?))
    }

    /// Whether this header belongs to segment `segment` of this volume.
    ///
    /// # Errors
    /// `OtherVolume`, `OtherSize` or `Misplaced`, the first that applies.
    pub fn expect(
        &self,
        volume_id: &VolumeId,
        segment_size_bytes: u32,
        segment: u32,
    ) -> Result<(), HeaderError> {
        if self.volume_id != *volume_id {
            return Err(HeaderError::OtherVolume);
        }
        if self.segment_size_bytes != segment_size_bytes {
            return Err(HeaderError::OtherSize {
                segment_size_bytes: self.segment_size_bytes,
            });
        }
        if self.segment != segment {
            return Err(HeaderError::Misplaced {
                segment: self.segment,
            });
        }
        Ok(())
    }
}

fn copy_at(bytes: &[u8], at: usize) -> Option<&[u8; COPY_BYTES]> {
    bytes.get(at..)?.first_chunk()
}

fn decode_copy(copy: &[u8; COPY_BYTES]) -> Result<SegmentHeader, HeaderError> {
    if field(copy, AT_MAGIC) != MAGIC {
        return Err(HeaderError::NotWritten);
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(&copy[..AT_CRC32]);
    crc.update(&[0; 4]);
    crc.update(&copy[AT_CRC32 + 4..]);
    if crc.finalize() != u32::from_le_bytes(field(copy, AT_CRC32)) {
        return Err(HeaderError::Damaged);
    }
    let version = u16::from_le_bytes(field(copy, AT_VERSION));
    if version > INDEX_VERSION {
        return Err(HeaderError::NewerVersion(version));
    }
    let kind = match copy[AT_KIND] {
        1 => SegmentKind::Log,
        2 => SegmentKind::Data,
        3 => SegmentKind::Free,
        4 => SegmentKind::Index,
        _ => return Err(HeaderError::Damaged),
    };
    let segment_size_bytes = u32::from_le_bytes(field(copy, AT_SEGMENT_SIZE));
    if version != kind.version() || !size_is_valid(segment_size_bytes) || reserved_is_used(copy) {
        return Err(HeaderError::Damaged);
    }
    Ok(SegmentHeader {
        kind,
        segment: u32::from_le_bytes(field(copy, AT_SEGMENT)),
        generation: u64::from_le_bytes(field(copy, AT_GENERATION)),
        epoch: u32::from_le_bytes(field(copy, AT_EPOCH)),
        core: u16::from_le_bytes(field(copy, AT_CORE)),
        volume_id: field(copy, AT_VOLUME_ID),
        segment_size_bytes,
    })
}

fn reserved_is_used(copy: &[u8; COPY_BYTES]) -> bool {
    copy[AT_KIND + 1] != 0 || copy[FIELDS_END..].iter().any(|&byte| byte != 0)
}

fn size_is_valid(segment_size_bytes: u32) -> bool {
    segment_size_bytes.is_power_of_two()
        && (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_size_bytes)
}

#[cfg(test)]
mod tests {
    use super::super::chance::Chance;
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            kind: SegmentKind::Data,
            segment: 0x0403_0201,
            generation: 0x1817_1615_1413_1211,
            epoch: 0x2423_2221,
            core: 0x3231,
            volume_id: *b"sixteen bytes id",
            segment_size_bytes: SEGMENT_BYTES_MIN,
        }
    }

    #[test]
    fn golden_bytes() {
        let mut copy = vec![0; COPY_BYTES];
        let fields = [
            b"WEFTSEGM".as_slice(),
            &[1, 0, 2, 0],
            &[166, 166, 156, 206],
            &[0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18],
            &[1, 2, 3, 4],
            &[0x21, 0x22, 0x23, 0x24],
            b"sixteen bytes id",
            &[0, 0, 0x10, 0],
            &[0x31, 0x32],
        ]
        .concat();
        copy[..fields.len()].copy_from_slice(&fields);
        let golden = [copy.clone(), copy].concat();
        assert_eq!(header().encode()[..64], golden[..64]);
        assert_eq!(header().encode()[..], golden[..]);
        assert_eq!(SegmentHeader::decode(&golden), Ok(header()));
    }

    #[test]
    fn each_copy_is_judged_by_itself() {
        let mut bytes = header().encode();
        assert_eq!(SegmentHeader::decode_copies(&bytes), [Ok(header()); 2]);
        bytes[COPY_BYTES + 100] = 1;
        assert_eq!(
            SegmentHeader::decode_copies(&bytes),
            [Ok(header()), Err(HeaderError::Damaged)]
        );
        assert_eq!(
            SegmentHeader::decode_copies(&bytes[..COPY_BYTES]),
            [Ok(header()), Err(HeaderError::Damaged)]
        );
    }

    #[test]
    fn every_kind_and_size_decodes_to_what_was_encoded() {
        for kind in [SegmentKind::Log, SegmentKind::Data, SegmentKind::Free] {
            for shift in 20..=30 {
                let header = SegmentHeader {
                    kind,
                    segment_size_bytes: 1 << shift,
                    ..header()
                };
                assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
            }
        }
    }

    #[test]
    fn any_flipped_bit_and_any_lost_sector_leaves_the_other_copy() {
        let mut bytes = header().encode();
        for bit in 0..BYTES * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bytes), Ok(header()), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for sector in 0..8 {
            let mut bytes = header().encode();
            bytes[sector * 512..][..512].copy_from_slice(&Chance(sector as u64).bytes(512));
            assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
        }
    }

    #[test]
    fn damage_to_both_copies_is_told_and_is_not_a_segment_never_written() {
        let mut bytes = header().encode();
        for at in 0..COPY_BYTES {
            for at in [at, COPY_BYTES + at] {
                bytes[at] ^= 0x80;
            }
            let expected = if at < 8 {
                HeaderError::NotWritten
            } else {
                HeaderError::Damaged
            };
            assert_eq!(SegmentHeader::decode(&bytes), Err(expected), "byte {at} of both");
            bytes[COPY_BYTES + at] ^= 0x80;
            bytes[COPY_BYTES + 16] ^= 0x80;
            assert_eq!(
                SegmentHeader::decode(&bytes),
                Err(HeaderError::Damaged),
                "byte {at} of one"
            );
            bytes[at] ^= 0x80;
            bytes[COPY_BYTES + 16] ^= 0x80;
        }
    }

    #[test]
    fn a_torn_rewrite_is_the_old_life_or_the_new_one() {
        let old = header();
        let new = SegmentHeader {
            kind: SegmentKind::Log,
            generation: old.generation + 1,
            core: 0,
            ..old
        };
        for landed in 0..256_u32 {
            let mut bytes = old.encode();
            for sector in (0..8).filter(|sector| landed & (1 << sector) != 0) {
                let at = sector * 512;
                bytes[at..at + 512].copy_from_slice(&new.encode()[at..at + 512]);
            }
            let expected = if landed & 1 == 1 { new } else { old };
            assert_eq!(SegmentHeader::decode(&bytes), Ok(expected));
        }
    }

    #[test]
    fn a_torn_first_header_leaves_a_segment_that_was_never_written_or_the_new_life() {
        // A file that was just made reads as zeros, which is what most of a header is.
        for landed in 0..256_u32 {
            let mut bytes = [0; BYTES];
            for sector in (0..8).filter(|sector| landed & (1 << sector) != 0) {
                let at = sector * 512;
                bytes[at..at + 512].copy_from_slice(&header().encode()[at..at + 512]);
            }
            let expected = match landed & 0b1_0001 {
                0 => Err(HeaderError::NotWritten),
                _ => Ok(header()),
            };
            assert_eq!(SegmentHeader::decode(&bytes), expected, "sectors {landed:08b}");
        }
    }

    #[test]
    fn what_was_never_written_is_told_from_damage_and_from_a_newer_release() {
        assert_eq!(SegmentHeader::decode(&[0; BYTES]), Err(HeaderError::NotWritten));
        assert_eq!(
            SegmentHeader::decode(&Chance(7).bytes(BYTES)),
            Err(HeaderError::NotWritten)
        );
        for length in [0, 1, 64, COPY_BYTES, BYTES - 1] {
            assert_eq!(
                SegmentHeader::decode(&header().encode()[..length]),
                Err(HeaderError::Damaged)
            );
        }
        let newer = resealed(|copy| put(copy, AT_VERSION, 3_u16.to_le_bytes()));
        assert_eq!(SegmentHeader::decode(&newer), Err(HeaderError::NewerVersion(3)));
        let mut half = newer;
        half[0] ^= 1;
        assert_eq!(SegmentHeader::decode(&half), Err(HeaderError::NewerVersion(3)));
    }

    #[test]
    fn a_whole_header_with_values_that_nobody_writes_is_damaged() {
        let edits: [fn(&mut [u8]); 7] = [
            |copy| put(copy, AT_VERSION, [0; 2]),
            |copy| copy[AT_KIND] = 0,
            |copy| copy[AT_KIND] = 4,
            |copy| copy[AT_KIND + 1] = 1,
            |copy| copy[COPY_BYTES - 1] = 1,
            |copy| put(copy, AT_SEGMENT_SIZE, (SEGMENT_BYTES_MIN + 1).to_le_bytes()),
            |copy| put(copy, AT_SEGMENT_SIZE, (SEGMENT_BYTES_MAX * 2).to_le_bytes()),
        ];
        for (i, edit) in edits.into_iter().enumerate() {
            assert_eq!(
                SegmentHeader::decode(&resealed(edit)),
                Err(HeaderError::Damaged),
                "edit {i}"
            );
        }
    }

    /// The header with `edit` made in both copies, and checksums that fit.
    fn resealed(edit: fn(&mut [u8])) -> [u8; BYTES] {
        let mut bytes = header().encode();
        let copy = &mut bytes[..COPY_BYTES];
        edit(copy);
        put(copy, AT_CRC32, [0; 4]);
        let crc = crc32fast::hash(copy);
        put(copy, AT_CRC32, crc.to_le_bytes());
        bytes.copy_within(..COPY_BYTES, COPY_BYTES);
        bytes
    }

    #[test]
    fn a_header_from_elsewhere_is_not_expected_here() {
        let header = header();
        let (volume, size, segment) = (header.volume_id, header.segment_size_bytes, header.segment);
        assert_eq!(header.expect(&volume, size, segment), Ok(()));
        assert_eq!(
            header.expect(&volume, size, 5),
            Err(HeaderError::Misplaced { segment })
        );
        let other_size = HeaderError::OtherSize {
            segment_size_bytes: size,
        };
        assert_eq!(header.expect(&volume, size * 2, segment), Err(other_size));
        assert_eq!(
            header.expect(&[0; 16], size, segment),
            Err(HeaderError::OtherVolume)
        );
    }
}
