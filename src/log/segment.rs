//! The header of a segment: what it holds, and which life of the segment this is.
//!
//! It is the first 4096 bytes: one 2048-byte copy, twice. A life begins with one write of it. All that differs
//! from life to life lies in the first 512-byte sector of each copy, so a torn rewrite leaves the old header or
//! the new one, and one lost sector or flipped bit leaves the other copy.
//!
//! Invariant: a header that decodes was written by us, whole, with a size that the limits allow. Whether it is
//! the header that belongs *here* is [`SegmentHeader::expect`]'s question.

use super::{FORMAT_VERSION, field, put};
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
}

/// The header of one life of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// What this life holds.
    pub kind: SegmentKind,
    /// The segment's number in its volume.
    pub segment: u32,
    /// The life: no other life of any segment of the volume has this number, and later lives have greater ones.
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
                    "segment has format version {version}, and this release reads up to {FORMAT_VERSION}"
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
        put(copy, AT_VERSION, FORMAT_VERSION.to_le_bytes());
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

    /// The header in the first 4096 bytes of a segment: the first copy, or the second if that one is not whole.
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
            (Err(_), Ok(header)) => Ok(header),
            (Err(HeaderError::NotWritten), Err(second)) => Err(second),
            (Err(first), Err(_)) => Err(first),
        }
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
    if version > FORMAT_VERSION {
        return Err(HeaderError::NewerVersion(version));
    }
    let kind = match copy[AT_KIND] {
        1 => SegmentKind::Log,
        2 => SegmentKind::Data,
        3 => SegmentKind::Free,
        _ => return Err(HeaderError::Damaged),
    };
    let segment_size_bytes = u32::from_le_bytes(field(copy, AT_SEGMENT_SIZE));
    if version < FORMAT_VERSION || !size_is_valid(segment_size_bytes) || reserved_is_used(copy) {
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
