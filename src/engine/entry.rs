//! What the log and the index hold of objects, uploads, parts and buckets, and its bytes.
//!
//! Invariant: decoding never panics, whatever the bytes; encoding then decoding gives the same value. An
//! extent has a fixed length, so that a record's length is known before the place of its body is.
//! docs/format.md describes each byte.

use crate::engine::configuration::Configuration;
use crate::index::key::{BucketId, UploadId};
use crate::io::SegmentId;
use crate::log::disk_bytes_for;
use std::fmt;

/// Bytes of an encoded extent.
pub const EXTENT_BYTES: usize = 21;
const VALUE_VERSION: u8 = 1;
/// Of a bucket that something is configured of.
const CONFIGURED_VERSION: u8 = 2;

/// An object's entity tag: MD5 of its bytes, or MD5 of its parts' MD5s and how many there were.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ETag {
    pub md5: [u8; 16],
    /// 0 for an object that was not made of parts.
    pub parts: u16,
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.md5 {
            write!(f, "{byte:02x}")?;
        }
        match self.parts {
            0 => Ok(()),
            parts => write!(f, "-{parts}"),
        }
    }
}

/// How the bytes of an extent lie on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// Within a commit record; `check` is the CRC-32 of the bytes.
    Inline,
    /// Checksummed blocks (`log::block`); `check` is the tag that each block carries.
    Blocks,
}

/// Where a run of an object's bytes lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    pub layout: Layout,
    pub segment: SegmentId,
    /// Byte offset in the segment.
    pub offset: u32,
    /// Body bytes.
    pub length: u32,
    pub check: u64,
}

impl Extent {
    /// Bytes of its segment that it keeps from being reused.
    pub fn disk_bytes(&self) -> u32 {
        match self.layout {
            Layout::Inline => self.length,
            Layout::Blocks => disk_bytes_for(u64::from(self.length)) as u32,
        }
    }

    /// The extent's bytes, at a fixed length.
    pub fn encode(&self) -> [u8; EXTENT_BYTES] {
        let mut out = [0; EXTENT_BYTES];
        out[0] = match self.layout {
            Layout::Inline => 1,
            Layout::Blocks => 2,
        };
        out[1..5].copy_from_slice(&self.segment.0.to_le_bytes());
        out[5..9].copy_from_slice(&self.offset.to_le_bytes());
        out[9..13].copy_from_slice(&self.length.to_le_bytes());
        out[13..21].copy_from_slice(&self.check.to_le_bytes());
        out
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Extent> {
        let layout = match reader.u8()? {
            1 => Layout::Inline,
            2 => Layout::Blocks,
            _ => return None,
        };
        Some(Extent {
            layout,
            segment: SegmentId(reader.u32()?),
            offset: reader.u32()?,
            length: reader.u32()?,
            check: reader.u64()?,
        })
    }
}

/// What is kept of an object, and what a GET or HEAD needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub size: u64,
    /// Milliseconds since 1970.
    pub modified_ms: u64,
    pub etag: ETag,
    /// What the protocol keeps with the object (headers, checksums); opaque here.
    pub attributes: Box<[u8]>,
    /// Sizes of the parts that it was made of; empty if it was not.
    pub part_sizes: Box<[u64]>,
    /// The upload that made it.
    pub upload: Option<UploadId>,
    /// Where its bytes lie, in order.
    pub extents: Box<[Extent]>,
}

/// The head of an object's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary<'a> {
    pub size: u64,
    pub modified_ms: u64,
    pub etag: ETag,
    pub attributes: &'a [u8],
}

/// What a listing shows of attributes, in the protocol's own code; opaque here. Attributes themselves may be a hundred
/// times as long as all else in an entry of a listing, and so never leave the core that has them.
pub type Glance = [u8; 8];
/// Takes a [`Glance`] at attributes.
pub type GlanceAt = fn(&[u8]) -> Glance;

/// What a listing shows of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedObject {
    pub size: u64,
    pub modified_ms: u64,
    pub etag: ETag,
    pub glance: Glance,
}

/// What a listing shows of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedUpload {
    pub id: UploadId,
    pub initiated_ms: u64,
    pub glance: Glance,
}

/// An upload in parts that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    pub initiated_ms: u64,
    /// What the protocol keeps for the object to be; opaque here.
    pub attributes: Box<[u8]>,
}

/// A part of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub size: u64,
    pub modified_ms: u64,
    pub md5: [u8; 16],
    /// What the protocol keeps with the part (checksums); opaque here.
    pub attributes: Box<[u8]>,
    pub extents: Box<[Extent]>,
}

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub id: BucketId,
    pub created_ms: u64,
    /// Where its maker wanted it: what the protocol gives back as its location.
    pub location: String,
    pub configuration: Configuration,
}

impl Object {
    /// The value's bytes. Its extents come last, so that their place is known from the end.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.attributes.len() + self.extents.len() * EXTENT_BYTES);
        out.push(VALUE_VERSION);
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.modified_ms.to_le_bytes());
        out.extend_from_slice(&self.etag.md5);
        out.extend_from_slice(&self.etag.parts.to_le_bytes());
        put_bytes(&mut out, &self.attributes);
        match &self.upload {
            Some(upload) => {
                out.push(1);
                out.extend_from_slice(&upload.0);
            }
            None => out.push(0),
        }
        out.extend_from_slice(&(self.part_sizes.len() as u16).to_le_bytes());
        for size in &self.part_sizes {
            out.extend_from_slice(&size.to_le_bytes());
        }
        put_extents(&mut out, &self.extents);
        out
    }

    /// Reads a value; `None` if it is not one of this version.
    pub fn decode(bytes: &[u8]) -> Option<Object> {
        let (summary, mut reader) = Summary::read(bytes)?;
        let upload = match reader.u8()? {
            0 => None,
            1 => Some(UploadId(reader.array()?)),
            _ => return None,
        };
        let parts = reader.u16()? as usize;
        let part_sizes = (0..parts).map(|_| reader.u64()).collect::<Option<_>>()?;
        let extents = reader.extents()?;
        reader.end()?;
        Some(Object {
            size: summary.size,
            modified_ms: summary.modified_ms,
            etag: summary.etag,
            attributes: summary.attributes.into(),
            part_sizes,
            upload,
            extents,
        })
    }
}

impl<'a> Summary<'a> {
    /// Reads the head of an object's value.
    pub fn decode(bytes: &'a [u8]) -> Option<Summary<'a>> {
        Summary::read(bytes).map(|(summary, _)| summary)
    }

    fn read(bytes: &'a [u8]) -> Option<(Summary<'a>, Reader<'a>)> {
        let mut reader = Reader::new(bytes)?;
        let summary = Summary {
            size: reader.u64()?,
            modified_ms: reader.u64()?,
            etag: ETag {
                md5: reader.array()?,
                parts: reader.u16()?,
            },
            attributes: reader.bytes()?,
        };
        Some((summary, reader))
    }
}

impl Upload {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VALUE_VERSION];
        out.extend_from_slice(&self.initiated_ms.to_le_bytes());
        put_bytes(&mut out, &self.attributes);
        out
    }

    pub fn decode(bytes: &[u8]) -> Option<Upload> {
        let mut reader = Reader::new(bytes)?;
        let upload = Upload {
            initiated_ms: reader.u64()?,
            attributes: reader.bytes()?.into(),
        };
        reader.end()?;
        Some(upload)
    }
}

impl Part {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VALUE_VERSION];
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.modified_ms.to_le_bytes());
        out.extend_from_slice(&self.md5);
        put_bytes(&mut out, &self.attributes);
        put_extents(&mut out, &self.extents);
        out
    }

    pub fn decode(bytes: &[u8]) -> Option<Part> {
        let mut reader = Reader::new(bytes)?;
        let part = Part {
            size: reader.u64()?,
            modified_ms: reader.u64()?,
            md5: reader.array()?,
            attributes: reader.bytes()?.into(),
            extents: reader.extents()?,
        };
        reader.end()?;
        Some(part)
    }
}

impl Bucket {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![match self.configuration.is_empty() {
            true => VALUE_VERSION,
            false => CONFIGURED_VERSION,
        }];
        out.extend_from_slice(&self.id.0.to_le_bytes());
        out.extend_from_slice(&self.created_ms.to_le_bytes());
        put_bytes(&mut out, self.location.as_bytes());
        if !self.configuration.is_empty() {
            out.push(self.configuration.count() as u8);
            for (kind, bytes) in self.configuration.iter() {
                out.push(kind);
                put_bytes(&mut out, bytes);
            }
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Option<Bucket> {
        let mut reader = Reader { rest: bytes };
        let version = reader.u8()?;
        let mut bucket = Bucket {
            id: BucketId(reader.u64()?),
            created_ms: reader.u64()?,
            location: std::str::from_utf8(reader.bytes()?).ok()?.to_owned(),
            configuration: Configuration::default(),
        };
        match version {
            VALUE_VERSION => {}
            CONFIGURED_VERSION => bucket.configuration = reader.configuration()?,
            _ => return None,
        }
        reader.end()?;
        Some(bucket)
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_extents(out: &mut Vec<u8>, extents: &[Extent]) {
    out.extend_from_slice(&(extents.len() as u32).to_le_bytes());
    for extent in extents {
        out.extend_from_slice(&extent.encode());
    }
}

/// An object's or part's value with other extents, and all else as it is; `extents` of them are there.
pub fn with_extents(value: &[u8], extents: usize, new: &[Extent]) -> Vec<u8> {
    let head = value.len() - extents * EXTENT_BYTES - 4;
    let mut out = value[..head].to_vec();
    put_extents(&mut out, new);
    out
}

/// Whether one of the extents of an object's value is such; nothing else of the value is decoded.
pub fn any_extent(object: &[u8], is_such: impl Fn(&Extent) -> bool) -> Option<bool> {
    let mut reader = Reader::new(object)?;
    reader.array::<34>()?;
    reader.bytes()?;
    if reader.u8()? == 1 {
        reader.array::<16>()?;
    }
    for _ in 0..reader.u16()? {
        reader.u64()?;
    }
    for _ in 0..reader.u32()? {
        if is_such(&Extent::decode(&mut reader)?) {
            return Some(true);
        }
    }
    Some(false)
}

/// Takes fields off the front of a value.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Option<Reader<'a>> {
        let mut reader = Reader { rest: bytes };
        (reader.u8()? == VALUE_VERSION).then_some(reader)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        let (head, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(head)
    }

    fn extents(&mut self) -> Option<Box<[Extent]>> {
        let count = self.u32()? as usize;
        if count != self.rest.len() / EXTENT_BYTES {
            return None;
        }
        (0..count).map(|_| Extent::decode(self)).collect()
    }

    /// At least one kind, and each greater than the one before.
    fn configuration(&mut self) -> Option<Configuration> {
        let count = self.u8()?;
        let mut kinds: Vec<(u8, Vec<u8>)> = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let (kind, bytes) = (self.u8()?, self.bytes()?);
            if kinds.last().is_some_and(|(last, _)| *last >= kind) {
                return None;
            }
            kinds.push((kind, bytes.to_vec()));
        }
        (count > 0).then(|| kinds.into_iter().collect())
    }

    fn end(self) -> Option<()> {
        self.rest.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(layout: Layout) -> Extent {
        Extent {
            layout,
            segment: SegmentId(3),
            offset: 8192,
            length: 70_000,
            check: 0x1122_3344_5566,
        }
    }

    fn object() -> Object {
        Object {
            size: 70_000,
            modified_ms: 1_700_000_000_123,
            etag: ETag {
                md5: [7; 16],
                parts: 2,
            },
            attributes: b"opaque".to_vec().into(),
            part_sizes: vec![5 << 20, 9].into(),
            upload: Some(UploadId([4; 16])),
            extents: vec![extent(Layout::Blocks), extent(Layout::Inline)].into(),
        }
    }

    /// 21 bytes each: inline in segment 3, and blocks in segment 0x0403_0201.
    const GOLDEN_EXTENTS: [&[u8]; 3] = [
        &[2, 0, 0, 0],
        &[
            1, 3, 0, 0, 0, 0, 0x20, 0, 0, 0x70, 0x11, 1, 0, 0x66, 0x55, 0x44, 0x33, 0, 0, 0, 0,
        ],
        &[
            2, 1, 2, 3, 4, 0, 0x30, 0, 0, 9, 0, 0, 0, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11,
        ],
    ];

    fn golden_extents() -> Box<[Extent]> {
        let inline = Extent {
            check: 0x3344_5566,
            ..extent(Layout::Inline)
        };
        let blocks = Extent {
            layout: Layout::Blocks,
            segment: SegmentId(0x0403_0201),
            offset: 0x3000,
            length: 9,
            check: 0x1112_1314_1516_1718,
        };
        [inline, blocks].into()
    }

    #[test]
    fn golden_bytes_of_an_object() {
        let mut object = Object {
            size: 0x0807_0605_0403_0201,
            modified_ms: 0x1817_1615_1413_1211,
            etag: ETag {
                md5: *b"md5 of 16 bytes.",
                parts: 0x2221,
            },
            attributes: b"attr".to_vec().into(),
            part_sizes: vec![0x3837_3635_3433_3231, 7].into(),
            upload: Some(UploadId(*b"upload, 16 bytes")),
            extents: golden_extents(),
        };
        let head = [
            [1].as_slice(),
            &[1, 2, 3, 4, 5, 6, 7, 8],
            &[0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18],
            b"md5 of 16 bytes.",
            &[0x21, 0x22],
            &[4, 0, 0, 0],
            b"attr",
        ]
        .concat();
        let parts = [
            [2, 0].as_slice(),
            &[0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38],
            &[7, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        let extents = GOLDEN_EXTENTS.concat();
        let golden = [&head, [1].as_slice(), b"upload, 16 bytes", &parts, &extents].concat();
        assert_eq!(object.encode(), golden);
        assert_eq!(Object::decode(&golden), Some(object.clone()));

        object.upload = None;
        object.part_sizes = Box::default();
        let golden = [&head, [0, 0, 0].as_slice(), &extents].concat();
        assert_eq!(object.encode(), golden);
        assert_eq!(Object::decode(&golden), Some(object));
    }

    #[test]
    fn golden_bytes_of_an_upload_a_part_and_a_bucket() {
        let upload = Upload {
            initiated_ms: 0x1817_1615_1413_1211,
            attributes: b"attr".to_vec().into(),
        };
        let golden = b"\x01\x11\x12\x13\x14\x15\x16\x17\x18\x04\0\0\0attr";
        assert_eq!(upload.encode(), golden);
        assert_eq!(Upload::decode(golden), Some(upload));

        let part = Part {
            size: 0x0807_0605_0403_0201,
            modified_ms: 0x1817_1615_1413_1211,
            md5: *b"md5 of 16 bytes.",
            attributes: b"a".to_vec().into(),
            extents: golden_extents(),
        };
        let golden = [
            b"\x01\x01\x02\x03\x04\x05\x06\x07\x08\x11\x12\x13\x14\x15\x16\x17\x18".as_slice(),
            b"md5 of 16 bytes.\x01\0\0\0a",
            &GOLDEN_EXTENTS.concat(),
        ]
        .concat();
        assert_eq!(part.encode(), golden);
        assert_eq!(Part::decode(&golden), Some(part));

        let bucket = Bucket {
            id: BucketId(0x0807_0605_0403_0201),
            created_ms: 0x1817_1615_1413_1211,
            location: "ü".to_owned(),
            configuration: Configuration::default(),
        };
        let golden =
            b"\x01\x01\x02\x03\x04\x05\x06\x07\x08\x11\x12\x13\x14\x15\x16\x17\x18\x02\0\0\0\xc3\xbc";
        assert_eq!(bucket.encode(), golden);
        assert_eq!(Bucket::decode(golden), Some(bucket.clone()));
        let configured = Bucket {
            configuration: [(2, b"policy".to_vec()), (1, Vec::new())].into_iter().collect(),
            ..bucket
        };
        let golden = [
            b"\x02".as_slice(),
            &golden[1..],
            b"\x02\x01\0\0\0\0\x02\x06\0\0\0policy",
        ]
        .concat();
        assert_eq!(configured.encode(), golden);
        assert_eq!(Bucket::decode(&golden), Some(configured));
    }

    #[test]
    fn values_that_nobody_writes_are_refused() {
        let bytes = object().encode();
        let has_upload_at = 1 + 8 + 8 + 16 + 2 + 4 + object().attributes.len();
        assert_eq!(bytes[has_upload_at], 1);
        let extent_at = bytes.len() - EXTENT_BYTES;
        for (at, value) in [
            (0, 0),
            (0, 2),
            (has_upload_at, 0),
            (has_upload_at, 2),
            (has_upload_at, 255),
            (extent_at, 0),
            (extent_at, 3),
        ] {
            let mut edited = bytes.clone();
            edited[at] = value;
            assert_eq!(Object::decode(&edited), None, "{value} at {at}");
        }
        let bucket = b"\x01\x01\x02\x03\x04\x05\x06\x07\x08\x11\x12\x13\x14\x15\x16\x17\x18\x01\0\0\0\xff";
        assert_eq!(Bucket::decode(bucket), None, "a location that is not UTF-8");
        let head = [b"\x02".as_slice(), &[0; 16], b"\0\0\0\0"].concat();
        for (kinds, why) in [
            (b"\0".as_slice(), "nothing is configured"),
            (b"\x02\x02\0\0\0\0\x01\0\0\0\0", "out of order"),
            (b"\x02\x01\0\0\0\0\x01\0\0\0\0", "twice"),
            (b"\x01\x01\xff\xff\xff\xff", "longer than what is there"),
            (b"\x01\x01\0\0\0\0\0", "more than what is there"),
        ] {
            assert_eq!(Bucket::decode(&[&head, kinds].concat()), None, "{why}");
        }
    }

    #[test]
    fn values_are_read_back() {
        let object = object();
        assert_eq!(Object::decode(&object.encode()), Some(object.clone()));
        let part = Part {
            size: 1,
            modified_ms: 2,
            md5: [3; 16],
            attributes: Box::default(),
            extents: vec![extent(Layout::Blocks)].into(),
        };
        assert_eq!(Part::decode(&part.encode()), Some(part));
        let upload = Upload {
            initiated_ms: 5,
            attributes: b"x".to_vec().into(),
        };
        assert_eq!(Upload::decode(&upload.encode()), Some(upload));
        let bucket = Bucket {
            id: BucketId(9),
            created_ms: 10,
            location: "eu-west-1".to_owned(),
            configuration: Configuration::default().with(255, Some(vec![7; 300])),
        };
        assert_eq!(Bucket::decode(&bucket.encode()), Some(bucket));
    }

    #[test]
    fn cut_or_extended_values_are_refused() {
        let bytes = object().encode();
        for length in 0..bytes.len() {
            assert_eq!(Object::decode(&bytes[..length]), None, "cut at {length}");
        }
        assert_eq!(Object::decode(&[bytes.as_slice(), &[0]].concat()), None);
    }

    #[test]
    fn extents_are_found_and_replaced_without_the_rest() {
        for upload in [None, Some(UploadId([4; 16]))] {
            let object = Object { upload, ..object() };
            let bytes = object.encode();
            let in_segment = |segment| any_extent(&bytes, |extent| extent.segment == SegmentId(segment));
            assert_eq!((in_segment(3), in_segment(4)), (Some(true), Some(false)));
            let new = [extent(Layout::Blocks)];
            let moved = with_extents(&bytes, object.extents.len(), &new);
            let expected = Object {
                extents: new.into(),
                ..object
            };
            assert_eq!(Object::decode(&moved), Some(expected));
        }
    }

    #[test]
    fn extents_end_the_value() {
        let object = object();
        let bytes = object.encode();
        assert_eq!(
            bytes[bytes.len() - EXTENT_BYTES..],
            extent(Layout::Inline).encode()
        );
    }
}
