//! The manifest of a core's index: which runs hold it, and from which place of its log on they lack what is there.
//!
//! It lies in front of the core's latest index segment, in two slots that are written in turn, each slot twice, one
//! copy after the other: a torn write leaves the other slot, a copy that rots the other copy.
//!
//! Invariant: a manifest that decodes was written by us, whole, in this life of this segment.

use super::{PageAddress, Run};
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::log::{ALIGN_BYTES, INDEX_VERSION, SegmentHeader, VolumeId, field, put};

/// Bytes that one copy of a manifest may take.
pub const MANIFEST_BYTES: u32 = 16 * 1024;
/// Where in an index segment the manifest's slots lie.
pub const MANIFEST_OFFSET: u32 = SEGMENT_HEADER_BYTES;
/// Slots, and copies in each.
const SLOTS: u32 = 2;
const COPIES: u32 = 2;
/// Where in an index segment pages begin.
pub const INDEX_START: u32 = MANIFEST_OFFSET + SLOTS * COPIES * MANIFEST_BYTES;

const MAGIC: [u8; 4] = *b"WFTC";
const FLAG_CONFIRMED: u16 = 1;
const AT_MAGIC: usize = 0;
const AT_VERSION: usize = 4;
const AT_FLAGS: usize = 6;
const AT_GENERATION: usize = 8;
const AT_VOLUME_ID: usize = 16;
const AT_SEGMENT: usize = 32;
const AT_LENGTH: usize = 36;
const AT_EPOCH: usize = 40;
const AT_CORE: usize = 44;
const AT_CORES: usize = 46;
const AT_NUMBER: usize = 48;
const AT_COVERED_GENERATION: usize = 56;
const AT_COVERED_OFFSET: usize = 64;
const AT_COVERED_BATCH: usize = 68;
const AT_RUNS: usize = 72;
const AT_CRC32: usize = 76;
const HEAD_BYTES: usize = 80;
const RUN_BYTES: usize = 48;
const EXTENT_BYTES: usize = 12;

/// A place between two batches of a core's logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct LogPosition {
    /// The life of the log; 0 before the first.
    pub generation: u64,
    /// Offset in its segment, and number, of the batch behind the place.
    pub offset: u32,
    pub batch: u32,
}

/// A run and where its pages lie.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunPlace {
    pub run: Run,
    /// Stretches of index segments that hold its pages.
    pub extents: Vec<PageAddress>,
}

/// What lies where a copy of a manifest may.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ManifestCopy {
    /// Zeros: none was written in this life, or it is lost.
    Blank,
    Whole(Manifest),
    /// It is not as it was written.
    Damaged,
}

/// What a core's index is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// The boot that wrote it, which core of how many, and the how manieth of that core in that boot.
    pub epoch: u32,
    pub core: u16,
    pub cores: u16,
    pub number: u64,
    /// Every core of that boot had written one when this was: those of earlier boots count no more.
    pub is_confirmed: bool,
    /// The runs have all of this boot's log before that, and all logs of earlier boots.
    pub covered: LogPosition,
    /// Newest first.
    pub runs: Vec<RunPlace>,
}

/// Where a copy of a manifest with that number lies.
pub fn manifest_offset(number: u64, copy: u32) -> u32 {
    let slot = (number % u64::from(SLOTS)) as u32;
    MANIFEST_OFFSET + (slot * COPIES + copy) * MANIFEST_BYTES
}

/// The copies of a slot, in the order in which they are written.
pub fn manifest_copies() -> std::ops::Range<u32> {
    0..COPIES
}

impl Manifest {
    /// The manifest's bytes in this life of an index segment, padded to the alignment; `None` if they are more than
    /// there is room for.
    pub fn encode(&self, segment: &SegmentHeader) -> Option<Vec<u8>> {
        let extents: usize = self.runs.iter().map(|run| run.extents.len()).sum();
        let length = HEAD_BYTES + self.runs.len() * RUN_BYTES + extents * EXTENT_BYTES;
        if length > MANIFEST_BYTES as usize {
            return None;
        }
        let mut bytes = vec![0; HEAD_BYTES];
        put(&mut bytes, AT_MAGIC, MAGIC);
        put(&mut bytes, AT_VERSION, INDEX_VERSION.to_le_bytes());
        let flags = if self.is_confirmed { FLAG_CONFIRMED } else { 0 };
        put(&mut bytes, AT_FLAGS, flags.to_le_bytes());
        put(&mut bytes, AT_GENERATION, segment.generation.to_le_bytes());
        put(&mut bytes, AT_VOLUME_ID, segment.volume_id);
        put(&mut bytes, AT_SEGMENT, segment.segment.to_le_bytes());
        put(&mut bytes, AT_LENGTH, (length as u32).to_le_bytes());
        put(&mut bytes, AT_EPOCH, self.epoch.to_le_bytes());
        put(&mut bytes, AT_CORE, self.core.to_le_bytes());
        put(&mut bytes, AT_CORES, self.cores.to_le_bytes());
        put(&mut bytes, AT_NUMBER, self.number.to_le_bytes());
        put(
            &mut bytes,
            AT_COVERED_GENERATION,
            self.covered.generation.to_le_bytes(),
        );
        put(&mut bytes, AT_COVERED_OFFSET, self.covered.offset.to_le_bytes());
        put(&mut bytes, AT_COVERED_BATCH, self.covered.batch.to_le_bytes());
        put(&mut bytes, AT_RUNS, (self.runs.len() as u32).to_le_bytes());
        for RunPlace { run, extents } in &self.runs {
            bytes.extend_from_slice(&run.tag.to_le_bytes());
            put_address(&mut bytes, run.root);
            bytes.extend_from_slice(&(extents.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&run.entries.to_le_bytes());
            bytes.extend_from_slice(&run.tombstones.to_le_bytes());
            bytes.extend_from_slice(&run.bytes.to_le_bytes());
            for &extent in extents {
                put_address(&mut bytes, extent);
            }
        }
        let crc = checksum(&bytes);
        put(&mut bytes, AT_CRC32, crc.to_le_bytes());
        bytes.resize(length.next_multiple_of(ALIGN_BYTES as usize), 0);
        Some(bytes)
    }

    /// The manifest that `bytes` begin with, if it was written in this life of this segment.
    pub fn decode(bytes: &[u8], segment: &SegmentHeader) -> Option<Manifest> {
        let head: &[u8; HEAD_BYTES] = bytes.first_chunk()?;
        let volume_id: VolumeId = field(head, AT_VOLUME_ID);
        let length = u32::from_le_bytes(field(head, AT_LENGTH)) as usize;
        let whole = bytes.get(..length)?;
        let is_ours = field(head, AT_MAGIC) == MAGIC
            && length >= HEAD_BYTES
            && checksum(whole) == u32::from_le_bytes(field(head, AT_CRC32))
            && u16::from_le_bytes(field(head, AT_VERSION)) == INDEX_VERSION
            && volume_id == segment.volume_id
            && u64::from_le_bytes(field(head, AT_GENERATION)) == segment.generation
            && u32::from_le_bytes(field(head, AT_SEGMENT)) == segment.segment;
        let flags = u16::from_le_bytes(field(head, AT_FLAGS));
        if !is_ours || flags & !FLAG_CONFIRMED != 0 {
            return None;
        }
        let mut rest = Reader(&whole[HEAD_BYTES..]);
        let mut runs = Vec::new();
        for _ in 0..u32::from_le_bytes(field(head, AT_RUNS)) {
            runs.push(rest.run(segment.segment_size_bytes)?);
        }
        let manifest = Manifest {
            epoch: u32::from_le_bytes(field(head, AT_EPOCH)),
            core: u16::from_le_bytes(field(head, AT_CORE)),
            cores: u16::from_le_bytes(field(head, AT_CORES)),
            number: u64::from_le_bytes(field(head, AT_NUMBER)),
            is_confirmed: flags & FLAG_CONFIRMED != 0,
            covered: LogPosition {
                generation: u64::from_le_bytes(field(head, AT_COVERED_GENERATION)),
                offset: u32::from_le_bytes(field(head, AT_COVERED_OFFSET)),
                batch: u32::from_le_bytes(field(head, AT_COVERED_BATCH)),
            },
            runs,
        };
        (rest.0.is_empty() && manifest.core < manifest.cores).then_some(manifest)
    }

    /// The latest manifest in the front of an index segment.
    pub fn latest(front: &[u8], segment: &SegmentHeader) -> Option<Manifest> {
        let copies = Manifest::slots(front, segment).into_iter().flatten();
        let manifests = copies.filter_map(|(_, copy)| match copy {
            ManifestCopy::Whole(manifest) => Some(manifest),
            ManifestCopy::Blank | ManifestCopy::Damaged => None,
        });
        manifests.max_by_key(|manifest| (manifest.epoch, manifest.number))
    }

    /// The two copies of each slot in the front of an index segment, and where in it they lie.
    pub fn slots(front: &[u8], segment: &SegmentHeader) -> [[(u32, ManifestCopy); 2]; 2] {
        [0, 1].map(|slot| {
            [0, 1].map(|copy| {
                let offset = manifest_offset(slot, copy);
                let bytes = front.get(offset as usize..(offset + MANIFEST_BYTES) as usize);
                let bytes = bytes.unwrap_or_default();
                let copy = match Manifest::decode(bytes, segment) {
                    Some(manifest) => ManifestCopy::Whole(manifest),
                    None if bytes.iter().all(|&byte| byte == 0) => ManifestCopy::Blank,
                    None => ManifestCopy::Damaged,
                };
                (offset, copy)
            })
        })
    }

    /// Slots of which both copies are lost. A crash tears one of them at most; one in the first moment of a life leaves
    /// what lay there before, but no manifest of this life beside it.
    pub fn slots_lost(front: &[u8], segment: &SegmentHeader) -> usize {
        let slots = Manifest::slots(front, segment);
        let is_of_this_life = |(offset, copy): &(u32, ManifestCopy)| match copy {
            ManifestCopy::Whole(_) => true,
            ManifestCopy::Blank => false,
            ManifestCopy::Damaged => {
                front[*offset as usize..]
                    .first_chunk()
                    .is_some_and(|head: &[u8; HEAD_BYTES]| {
                        field(head, AT_MAGIC) == MAGIC
                            && u64::from_le_bytes(field(head, AT_GENERATION)) == segment.generation
                    })
            }
        };
        if !slots.iter().flatten().any(is_of_this_life) {
            return 0;
        }
        let is_damaged = |(_, copy): &(u32, ManifestCopy)| *copy == ManifestCopy::Damaged;
        slots.iter().filter(|slot| slot.iter().all(is_damaged)).count()
    }
}

/// Of all the bytes but the checksum's own.
fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..AT_CRC32]);
    crc.update(&bytes[HEAD_BYTES..]);
    crc.finalize()
}

fn put_address(bytes: &mut Vec<u8>, address: PageAddress) {
    bytes.extend_from_slice(&address.segment.to_le_bytes());
    bytes.extend_from_slice(&address.offset.to_le_bytes());
    bytes.extend_from_slice(&address.length.to_le_bytes());
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A stretch of a segment.
    fn address(&mut self, segment_bytes: u32) -> Option<PageAddress> {
        let address = PageAddress {
            segment: self.u32()?,
            offset: self.u32()?,
            length: self.u32()?,
        };
        let is_aligned = |value: u32| value.is_multiple_of(ALIGN_BYTES);
        let end = address.offset.checked_add(address.length)?;
        let is_within = address.length > 0 && address.offset >= INDEX_START && end <= segment_bytes;
        (is_within && is_aligned(address.offset) && is_aligned(address.length)).then_some(address)
    }

    fn run(&mut self, segment_bytes: u32) -> Option<RunPlace> {
        let tag = self.u64()?;
        let root = self.address(segment_bytes)?;
        let count = self.u32()?;
        let run = Run {
            tag,
            root,
            entries: self.u64()?,
            tombstones: self.u64()?,
            bytes: self.u64()?,
        };
        let mut extents = Vec::new();
        for _ in 0..count {
            extents.push(self.address(segment_bytes)?);
        }
        Some(RunPlace { run, extents })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::SegmentKind;

    fn segment() -> SegmentHeader {
        SegmentHeader {
            kind: SegmentKind::Index,
            segment: 7,
            generation: 9,
            epoch: 3,
            core: 1,
            volume_id: *b"a volume, 16 b..",
            segment_size_bytes: 1 << 20,
        }
    }

    fn address(offset: u32, length: u32) -> PageAddress {
        PageAddress {
            segment: 7,
            offset,
            length,
        }
    }

    fn manifest(runs: usize) -> Manifest {
        let run = |number: usize| RunPlace {
            run: Run {
                tag: number as u64,
                root: address(INDEX_START + 4096, 4096),
                entries: 10,
                tombstones: 2,
                bytes: 8192,
            },
            extents: vec![address(INDEX_START, 8192)],
        };
        Manifest {
            epoch: 3,
            core: 1,
            cores: 2,
            number: 5,
            is_confirmed: true,
            covered: LogPosition {
                generation: 4,
                offset: 65_536,
                batch: 11,
            },
            runs: (0..runs).map(run).collect(),
        }
    }

    #[test]
    fn golden_bytes() {
        let bytes = manifest(1).encode(&segment()).expect("it is short");
        assert_eq!(bytes.len(), 4096);
        let golden = [
            b"WFTC\x02\0\x01\0".as_slice(),
            &[9, 0, 0, 0, 0, 0, 0, 0],
            b"a volume, 16 b..",
            &[
                7, 0, 0, 0, 140, 0, 0, 0, 3, 0, 0, 0, 1, 0, 2, 0, 5, 0, 0, 0, 0, 0, 0, 0,
            ],
            &[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 11, 0, 0, 0, 1, 0, 0, 0],
        ]
        .concat();
        assert_eq!(bytes[..76], golden);
        let run = [
            [0; 8].as_slice(),
            &[7, 0, 0, 0, 0, 0x20, 1, 0, 0, 0x10, 0, 0, 1, 0, 0, 0],
            &[
                10, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0,
            ],
            &[7, 0, 0, 0, 0, 0x10, 1, 0, 0, 0x20, 0, 0],
        ]
        .concat();
        assert_eq!(bytes[80..140], run);
        assert!(bytes[140..].iter().all(|&byte| byte == 0));
        assert_eq!(Manifest::decode(&bytes, &segment()), Some(manifest(1)));
    }

    #[test]
    fn whatever_is_cut_or_flipped_is_refused() {
        let bytes = manifest(3).encode(&segment()).expect("it is short");
        for at in 0..HEAD_BYTES + 3 * (RUN_BYTES + EXTENT_BYTES) {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert_eq!(Manifest::decode(&flipped, &segment()), None, "bit {bit} of {at}");
            }
            assert_eq!(Manifest::decode(&bytes[..at], &segment()), None, "cut at {at}");
        }
        let other = SegmentHeader {
            generation: 8,
            ..segment()
        };
        assert_eq!(Manifest::decode(&bytes, &other), None);
    }

    #[test]
    fn one_that_does_not_fit_is_not_written() {
        let fitting = (MANIFEST_BYTES as usize - HEAD_BYTES) / (RUN_BYTES + EXTENT_BYTES);
        assert!(manifest(fitting).encode(&segment()).is_some());
        assert!(manifest(fitting + 1).encode(&segment()).is_none());
    }

    #[test]
    fn the_latest_of_the_slots_counts_and_either_copy_will_do() {
        let mut front = vec![0; INDEX_START as usize];
        for number in [5, 6] {
            let bytes = Manifest {
                number,
                ..manifest(2)
            }
            .encode(&segment())
            .expect("short");
            for copy in manifest_copies() {
                let at = manifest_offset(number, copy) as usize;
                front[at..at + bytes.len()].copy_from_slice(&bytes);
            }
        }
        let latest = |front: &[u8]| Manifest::latest(front, &segment()).map(|manifest| manifest.number);
        assert_eq!(latest(&front), Some(6));
        front[manifest_offset(6, 0) as usize + 100] ^= 1;
        assert_eq!(latest(&front), Some(6));
        assert_eq!(Manifest::slots_lost(&front, &segment()), 0);
        front[manifest_offset(6, 1) as usize + 100] ^= 1;
        assert_eq!(latest(&front), Some(5));
        assert_eq!(Manifest::slots_lost(&front, &segment()), 1);
        let mut before = front.clone();
        before[MANIFEST_OFFSET as usize..INDEX_START as usize].fill(7);
        assert_eq!(
            Manifest::slots_lost(&before, &segment()),
            0,
            "what lay there before this life"
        );
        let second = manifest_offset(6, 1) as usize;
        front[second..second + MANIFEST_BYTES as usize].fill(0);
        assert_eq!(
            Manifest::slots_lost(&front, &segment()),
            0,
            "a crash may have left that"
        );
        assert_eq!(latest(&front[..4096]), None);
    }
}
