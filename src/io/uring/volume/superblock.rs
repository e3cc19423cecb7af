//! The superblock of a volume: which set it belongs to, its shape, and how often it was started.
//!
//! docs/format.md has the layout. A superblock is stored in two copies. In a directory both are replaced at once, with
//! the file; on a device one is written after the other, so that a torn write loses nothing. Of two whole copies the
//! one that was written later counts.
//!
//! Invariant: what [`Superblock::decode`] accepts is what [`Superblock::encode`] gives, byte for byte, but for
//! version 1, which is read and never written.

use crate::io::{SEGMENTS_PER_VOLUME, VolumeShape};
use crate::limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, VOLUMES_MAX};
use std::ops::Range;

/// Bytes of one copy.
pub(super) const COPY_BYTES: usize = 4096;
/// The version that is written.
pub(super) const VERSION: u32 = 2;

const MAGIC: &[u8; 8] = b"WEFTSUPR";
const VERSION_AT: usize = 8;
const CRC_AT: usize = 12;
const SET_AT: usize = 16;
const SEGMENT_SIZE_AT: usize = 32;
const SEGMENTS_MAX_AT: usize = 36;
const EPOCH_AT: usize = 40;
const SEGMENTS_KNOWN_AT: usize = 44;
/// Where version 1 ends.
const FIELDS_END_V1: usize = 48;
const VOLUME_AT: usize = 48;
const WRITES_AT: usize = 64;
const COUNT_AT: usize = 72;
const MEMBERS_AT: usize = 80;

/// Names a set, or a volume of one, for ever.
pub(super) type Id = [u8; 16];

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Superblock {
    /// The same in all volumes of a set, and in the header of every segment; told to nobody.
    pub set: Id,
    /// This volume; one of `members`. Version 1 had none, and reads as the id of its set.
    pub volume: Id,
    /// The volumes of the set. A volume's place among them is the upper part of its segments' numbers.
    pub members: Vec<Id>,
    /// Of this volume. The segment size is the same in all of a set.
    pub shape: VolumeShape,
    /// 0 until the first start.
    pub boot_epoch: u32,
    /// Segments that were made: as many from 0 on.
    pub segments_known: u32,
    /// Times that this superblock was written.
    pub writes: u64,
    /// Read from a version 1.
    pub is_old: bool,
}

/// Why a copy of the superblock does not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CopyError {
    /// It is not as it was written.
    Damaged,
    /// It is whole, and a later release wrote it.
    NewerVersion(u32),
}

impl Superblock {
    /// This volume's place in the set.
    pub fn index(&self) -> usize {
        let index = self.members.iter().position(|member| *member == self.volume);
        index.expect("a superblock lists its own volume")
    }

    pub fn encode(&self) -> [u8; COPY_BYTES] {
        let mut copy = [0; COPY_BYTES];
        copy[..8].copy_from_slice(MAGIC);
        put_u32(&mut copy, VERSION_AT, VERSION);
        copy[SET_AT..SET_AT + 16].copy_from_slice(&self.set);
        put_u32(&mut copy, SEGMENT_SIZE_AT, self.shape.segment_size_bytes);
        put_u32(&mut copy, SEGMENTS_MAX_AT, self.shape.segments_max);
        put_u32(&mut copy, EPOCH_AT, self.boot_epoch);
        put_u32(&mut copy, SEGMENTS_KNOWN_AT, self.segments_known);
        copy[VOLUME_AT..VOLUME_AT + 16].copy_from_slice(&self.volume);
        copy[WRITES_AT..WRITES_AT + 8].copy_from_slice(&self.writes.to_le_bytes());
        put_u32(&mut copy, COUNT_AT, self.members.len() as u32);
        for (at, member) in (MEMBERS_AT..).step_by(16).zip(&self.members) {
            copy[at..at + 16].copy_from_slice(member);
        }
        let crc = crc32fast::hash(&copy);
        put_u32(&mut copy, CRC_AT, crc);
        copy
    }

    pub fn decode(copy: &[u8; COPY_BYTES]) -> Result<Superblock, CopyError> {
        let mut unsigned = *copy;
        put_u32(&mut unsigned, CRC_AT, 0);
        if !copy.starts_with(MAGIC) || get_u32(copy, CRC_AT) != crc32fast::hash(&unsigned) {
            return Err(CopyError::Damaged);
        }
        let version = get_u32(copy, VERSION_AT);
        let set = get_id(copy, SET_AT);
        let (volume, members, writes, zeros) = match version {
            1 => (set, vec![set], 0, [FIELDS_END_V1..COPY_BYTES, 0..0]),
            VERSION => {
                let count = get_u32(copy, COUNT_AT) as usize;
                if count == 0 || count > VOLUMES_MAX {
                    return Err(CopyError::Damaged);
                }
                let end = MEMBERS_AT + 16 * count;
                let members = (MEMBERS_AT..end).step_by(16).map(|at| get_id(copy, at));
                let zeros = [COUNT_AT + 4..MEMBERS_AT, end..COPY_BYTES];
                (
                    get_id(copy, VOLUME_AT),
                    members.collect(),
                    get_u64(copy, WRITES_AT),
                    zeros,
                )
            }
            0 => return Err(CopyError::Damaged),
            newer => return Err(CopyError::NewerVersion(newer)),
        };
        let superblock = Superblock {
            set,
            volume,
            members,
            shape: VolumeShape {
                segment_size_bytes: get_u32(copy, SEGMENT_SIZE_AT),
                segments_max: get_u32(copy, SEGMENTS_MAX_AT),
            },
            boot_epoch: get_u32(copy, EPOCH_AT),
            segments_known: get_u32(copy, SEGMENTS_KNOWN_AT),
            writes,
            is_old: version != VERSION,
        };
        let is_zero = |range: Range<usize>| copy[range].iter().all(|&byte| byte == 0);
        match superblock.is_sound() && zeros.into_iter().all(is_zero) {
            true => Ok(superblock),
            false => Err(CopyError::Damaged),
        }
    }

    fn is_sound(&self) -> bool {
        let shape = self.shape;
        let named = |id: &Id| self.members.iter().filter(|member| *member == id).count();
        shape.segment_size_bytes.is_power_of_two()
            && (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&shape.segment_size_bytes)
            && (1..=SEGMENTS_PER_VOLUME).contains(&shape.segments_max)
            && self.segments_known <= SEGMENTS_PER_VOLUME
            && named(&self.volume) == 1
            && self.members.iter().all(|member| named(member) == 1)
    }

    /// The one of several copies that counts.
    pub fn latest(copies: &[[u8; COPY_BYTES]]) -> Result<Superblock, CopyError> {
        let mut latest: Option<Superblock> = None;
        for copy in copies {
            match Superblock::decode(copy) {
                Ok(found) if latest.as_ref().is_none_or(|latest| latest.writes < found.writes) => {
                    latest = Some(found);
                }
                Ok(_) | Err(CopyError::Damaged) => {}
                Err(newer @ CopyError::NewerVersion(_)) => return Err(newer),
            }
        }
        latest.ok_or(CopyError::Damaged)
    }
}

/// Whether this may have been a copy of a superblock once.
pub(super) fn has_magic(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

fn put_u32(bytes: &mut [u8; COPY_BYTES], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn get_u32(bytes: &[u8; COPY_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn get_u64(bytes: &[u8; COPY_BYTES], at: usize) -> u64 {
    u64::from(get_u32(bytes, at)) | u64::from(get_u32(bytes, at + 4)) << 32
}

fn get_id(bytes: &[u8; COPY_BYTES], at: usize) -> Id {
    let mut id = [0; 16];
    id.copy_from_slice(&bytes[at..at + 16]);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock() -> Superblock {
        Superblock {
            set: *b"0123456789abcdef",
            volume: *b"second volume id",
            members: vec![*b"first volume's i", *b"second volume id"],
            shape: VolumeShape {
                segment_size_bytes: 1 << 20,
                segments_max: 300,
            },
            boot_epoch: 7,
            segments_known: 9,
            writes: 0x0102_0304_0506,
            is_old: false,
        }
    }

    /// A copy with `edit` made in it, and a checksum that fits.
    fn resealed(copy: &[u8; COPY_BYTES], edit: impl FnOnce(&mut [u8; COPY_BYTES])) -> [u8; COPY_BYTES] {
        let mut copy = *copy;
        edit(&mut copy);
        put_u32(&mut copy, CRC_AT, 0);
        let crc = crc32fast::hash(&copy);
        put_u32(&mut copy, CRC_AT, crc);
        copy
    }

    #[test]
    fn bytes_are_as_documented() {
        let copy = superblock().encode();
        assert_eq!(&copy[..12], b"WEFTSUPR\x02\0\0\0");
        assert_eq!(copy[12..16], GOLDEN_CRC);
        assert_eq!(&copy[16..44], b"0123456789abcdef\0\0\x10\0\x2c\x01\0\0\x07\0\0\0");
        assert_eq!(&copy[44..64], b"\x09\0\0\0second volume id");
        assert_eq!(&copy[64..80], b"\x06\x05\x04\x03\x02\x01\0\0\x02\0\0\0\0\0\0\0");
        assert_eq!(&copy[80..112], b"first volume's isecond volume id");
        assert!(copy[112..].iter().all(|&byte| byte == 0));
        assert_eq!(Superblock::decode(&copy), Ok(superblock()));
        assert_eq!(superblock().index(), 1);
    }

    const GOLDEN_CRC: [u8; 4] = [236, 133, 238, 9];

    #[test]
    fn version_1_is_a_set_of_one() {
        let mut copy = [0; COPY_BYTES];
        copy[..12].copy_from_slice(b"WEFTSUPR\x01\0\0\0");
        copy[12..16].copy_from_slice(&[89, 175, 4, 1]);
        copy[16..44].copy_from_slice(b"0123456789abcdef\0\0\x10\0\x2c\x01\0\0\x07\0\0\0");
        copy[44] = 9;
        let old = Superblock {
            volume: *b"0123456789abcdef",
            members: vec![*b"0123456789abcdef"],
            writes: 0,
            is_old: true,
            ..superblock()
        };
        assert_eq!(Superblock::decode(&copy), Ok(old));
        let longer = resealed(&copy, |copy| copy[FIELDS_END_V1] = 1);
        assert_eq!(Superblock::decode(&longer), Err(CopyError::Damaged));
    }

    #[test]
    fn any_byte_that_is_not_as_written_is_refused() {
        let good = superblock().encode();
        for at in 0..COPY_BYTES {
            let mut bad = good;
            bad[at] ^= 1;
            assert_eq!(Superblock::decode(&bad), Err(CopyError::Damaged), "byte {at}");
        }
        let edits: [fn(&mut [u8; COPY_BYTES]); 12] = [
            |copy| copy[VERSION_AT] = 0,
            |copy| put_u32(copy, SEGMENT_SIZE_AT, (1 << 20) + 1),
            |copy| put_u32(copy, SEGMENT_SIZE_AT, 1 << 19),
            |copy| put_u32(copy, SEGMENTS_MAX_AT, 0),
            |copy| put_u32(copy, SEGMENTS_MAX_AT, SEGMENTS_PER_VOLUME + 1),
            |copy| put_u32(copy, SEGMENTS_KNOWN_AT, SEGMENTS_PER_VOLUME + 1),
            |copy| put_u32(copy, COUNT_AT, 0),
            |copy| put_u32(copy, COUNT_AT, VOLUMES_MAX as u32 + 1),
            |copy| copy[COUNT_AT + 4] = 1,
            // Not among the members; a member twice; something behind the members.
            |copy| copy[VOLUME_AT] ^= 1,
            |copy| copy.copy_within(MEMBERS_AT + 16..MEMBERS_AT + 32, MEMBERS_AT),
            |copy| copy[COPY_BYTES - 1] = 1,
        ];
        for (number, edit) in edits.into_iter().enumerate() {
            assert_eq!(
                Superblock::decode(&resealed(&good, edit)),
                Err(CopyError::Damaged),
                "edit {number}"
            );
        }
    }

    #[test]
    fn the_copy_written_later_counts_and_a_newer_version_is_refused() {
        let earlier = superblock();
        let later = Superblock {
            writes: earlier.writes + 1,
            boot_epoch: 8,
            ..superblock()
        };
        let (earlier, later) = (earlier.encode(), later.encode());
        for copies in [[earlier, later], [later, earlier], [later, [0; COPY_BYTES]]] {
            assert_eq!(Superblock::latest(&copies).unwrap().boot_epoch, 8);
        }
        let torn = [&later[..64], &earlier[64..]].concat().try_into().unwrap();
        assert_eq!(Superblock::latest(&[earlier, torn]).unwrap().boot_epoch, 7);
        let newer = resealed(&later, |copy| copy[VERSION_AT] = 3);
        for copies in [[newer, newer], [[0; COPY_BYTES], newer], [earlier, newer]] {
            assert_eq!(Superblock::latest(&copies), Err(CopyError::NewerVersion(3)));
        }
        // A version counts only where the checksum does.
        let mut hurt = earlier;
        hurt[VERSION_AT] ^= 1;
        assert_eq!(Superblock::latest(&[hurt, hurt]), Err(CopyError::Damaged));
        assert_eq!(Superblock::latest(&[]), Err(CopyError::Damaged));
    }
}
