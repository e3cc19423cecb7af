//! A record: changes that become true together, and the small body that they may speak of.
//!
//! The body comes last, so that its place is known from the lengths of the changes before their values are
//! encoded: a value may hold the place of its own record's body. The record's checksum covers its header and
//! changes, its generation and its place; the body has a checksum of its own, so that a later read of nothing
//! but the body can verify it, and so that a rotten body does not take the commit with it.
//!
//! Invariant: a [`RecordRef`] was parsed to its end, so its changes can be walked without an error.
//! It must not judge what keys and values mean: they are opaque here.

use super::{ALIGN_BYTES, LOG_START};
use super::{INDEX_KEY_BYTES_MAX, field, put};

/// Bytes of a record before its changes.
pub const RECORD_HEADER_BYTES: usize = 28;
/// Bytes of a change before its key.
pub(super) const CHANGE_HEADER_BYTES: usize = 8;
/// Bytes of a poison record's content.
const POISON_BYTES: usize = 16;

const AT_LENGTH: usize = 0;
const AT_KIND: usize = 4;
const AT_FLAGS: usize = 5;
const AT_CHANGE_COUNT: usize = 6;
const AT_SEQUENCE: usize = 8;
const AT_BODY_LENGTH: usize = 16;
const AT_BODY_CRC32: usize = 20;
const AT_CRC32: usize = 24;

const CHANGE_AT_OP: usize = 0;
const CHANGE_AT_RESERVED: usize = 1;
const CHANGE_AT_KEY_LENGTH: usize = 2;
const CHANGE_AT_VALUE_LENGTH: usize = 4;

const POISON_AT_SEGMENT: usize = 0;
const POISON_AT_OFFSET: usize = 4;
const POISON_AT_GENERATION: usize = 8;

const KIND_COMMIT: u8 = 1;
const KIND_POISON: u8 = 2;
const OP_PUT: u8 = 1;
const OP_DELETE: u8 = 2;

/// One change of the index, keys and values opaque.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change<'a> {
    /// `key` has `value` from here on.
    Put { key: &'a [u8], value: &'a [u8] },
    /// `key` is no more.
    Delete { key: &'a [u8] },
}

impl<'a> Change<'a> {
    /// The key that changes: at most [`INDEX_KEY_BYTES_MAX`] bytes.
    pub fn key(&self) -> &'a [u8] {
        match *self {
            Change::Put { key, .. } | Change::Delete { key } => key,
        }
    }

    /// The new value; empty for a delete.
    pub fn value(&self) -> &'a [u8] {
        match *self {
            Change::Put { value, .. } => value,
            Change::Delete { .. } => &[],
        }
    }
}

/// Every batch of `segment` in life `generation` at or beyond `offset` is void: its write or sync failed, and
/// what the disk holds of it was never acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Poison {
    pub segment: u32,
    pub generation: u64,
    pub offset: u32,
}

/// What a record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordKind {
    /// Its changes became true together.
    Commit,
    /// It has no changes and no body.
    Poison(Poison),
}

/// Bytes that one change takes in a record.
pub const fn change_length(key_length: usize, value_length: usize) -> usize {
    CHANGE_HEADER_BYTES + key_length + value_length
}

/// Bytes that `changes` take in a record.
pub fn changes_length(changes: &[Change<'_>]) -> usize {
    changes
        .iter()
        .map(|change| change_length(change.key().len(), change.value().len()))
        .sum()
}

/// Bytes of a record, of the bytes of its changes ([`changes_length`]) and of its body.
pub const fn record_length(changes_length: usize, body_length: usize) -> usize {
    RECORD_HEADER_BYTES + changes_length + body_length
}

/// Bytes of the longest record that a segment can hold. A longer one is refused before it comes here.
pub const fn record_bytes_max(segment_size_bytes: u32) -> usize {
    (segment_size_bytes - LOG_START - ALIGN_BYTES) as usize
}

/// The checksum of a body, as records hold it (CRC-32, IEEE 802.3).
pub fn body_crc32(body: &[u8]) -> u32 {
    crc32fast::hash(body)
}

/// Encodes a commit into `dst`, which is exactly as long as the record.
pub(super) fn encode_commit(
    dst: &mut [u8],
    place: RecordPlace,
    sequence: u64,
    changes: &[Change<'_>],
    body: &[u8],
    body_crc32: u32,
) {
    let change_count = u16::try_from(changes.len()).expect("a record has at most 65535 changes");
    let (meta, body_dst) = dst.split_at_mut(dst.len() - body.len());
    body_dst.copy_from_slice(body);
    let mut rest = &mut meta[RECORD_HEADER_BYTES..];
    for change in changes {
        let (this, next) = rest.split_at_mut(change_length(change.key().len(), change.value().len()));
        encode_change(this, change);
        rest = next;
    }
    assert!(rest.is_empty(), "changes are shorter than their record");
    seal_meta(
        meta,
        place,
        Fields {
            kind: KIND_COMMIT,
            change_count,
            sequence,
            body_length: body.len(),
            body_crc32,
        },
    );
}

/// Encodes a poison record into `dst`, which is exactly [`POISON_RECORD_BYTES`] long.
pub(super) fn encode_poison(dst: &mut [u8], place: RecordPlace, sequence: u64, poison: &Poison) {
    let content = &mut dst[RECORD_HEADER_BYTES..];
    put(content, POISON_AT_SEGMENT, poison.segment.to_le_bytes());
    put(content, POISON_AT_OFFSET, poison.offset.to_le_bytes());
    put(content, POISON_AT_GENERATION, poison.generation.to_le_bytes());
    seal_meta(
        dst,
        place,
        Fields {
            kind: KIND_POISON,
            change_count: 0,
            sequence,
            body_length: 0,
            body_crc32: body_crc32(&[]),
        },
    );
}

/// Bytes of a poison record.
pub const POISON_RECORD_BYTES: usize = RECORD_HEADER_BYTES + POISON_BYTES;

/// Where a record lies. It is part of the record's checksum, so that a record of an earlier life that shows
/// through in a sector that was never written is told from the one that belongs there.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordPlace {
    pub generation: u64,
    pub offset_in_segment: u32,
}

struct Fields {
    kind: u8,
    change_count: u16,
    sequence: u64,
    body_length: usize,
    body_crc32: u32,
}

fn seal_meta(meta: &mut [u8], place: RecordPlace, fields: Fields) {
    let length =
        u32::try_from(meta.len() + fields.body_length).expect("a record is shorter than its segment");
    put(meta, AT_LENGTH, length.to_le_bytes());
    put(meta, AT_KIND, [fields.kind]);
    put(meta, AT_FLAGS, [0]);
    put(meta, AT_CHANGE_COUNT, fields.change_count.to_le_bytes());
    put(meta, AT_SEQUENCE, fields.sequence.to_le_bytes());
    put(meta, AT_BODY_LENGTH, (fields.body_length as u32).to_le_bytes());
    put(meta, AT_BODY_CRC32, fields.body_crc32.to_le_bytes());
    let crc = meta_crc32(meta, place);
    put(meta, AT_CRC32, crc.to_le_bytes());
}

/// The checksum of a record without its body: its place, its header up to the checksum, its changes.
fn meta_crc32(meta: &[u8], place: RecordPlace) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    let mut salt = [0; 12];
    put(&mut salt, 0, place.generation.to_le_bytes());
    put(&mut salt, 8, place.offset_in_segment.to_le_bytes());
    crc.update(&salt);
    crc.update(&meta[..AT_CRC32]);
    crc.update(&meta[RECORD_HEADER_BYTES..]);
    crc.finalize()
}

fn encode_change(dst: &mut [u8], change: &Change<'_>) {
    let (op, key, value) = match *change {
        Change::Put { key, value } => (OP_PUT, key, value),
        Change::Delete { key } => (OP_DELETE, key, &[][..]),
    };
    assert!(
        key.len() <= INDEX_KEY_BYTES_MAX,
        "an index key of {} bytes",
        key.len()
    );
    put(dst, CHANGE_AT_OP, [op]);
    put(dst, CHANGE_AT_RESERVED, [0]);
    put(dst, CHANGE_AT_KEY_LENGTH, (key.len() as u16).to_le_bytes());
    put(dst, CHANGE_AT_VALUE_LENGTH, (value.len() as u32).to_le_bytes());
    let (key_dst, value_dst) = dst[CHANGE_HEADER_BYTES..].split_at_mut(key.len());
    key_dst.copy_from_slice(key);
    value_dst.copy_from_slice(value);
}

/// A record as it lies in a batch.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    kind: RecordKind,
    sequence: u64,
    offset_in_segment: u32,
    changes: &'a [u8],
    change_count: u16,
    body: &'a [u8],
    body_crc32: u32,
}

impl<'a> RecordRef<'a> {
    /// What the record says.
    pub fn kind(&self) -> RecordKind {
        self.kind
    }

    /// Its place in the order of its core's records.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Bytes from the segment's start to the record.
    pub fn offset_in_segment(&self) -> u32 {
        self.offset_in_segment
    }

    /// Bytes of the record, its body included.
    pub fn length_bytes(&self) -> u32 {
        self.body_offset_in_segment() - self.offset_in_segment + self.body.len() as u32
    }

    /// The changes, in the order in which they were given; none in a poison record.
    pub fn changes(&self) -> ChangeIter<'a> {
        ChangeIter {
            rest: self.changes,
            left: self.change_count,
        }
    }

    /// The body inside the record. In a whole batch it is verified; in a salvaged one it may not be what
    /// [`RecordRef::body_crc32`] says.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Bytes from the segment's start to the body.
    pub fn body_offset_in_segment(&self) -> u32 {
        let content = match self.kind {
            RecordKind::Commit => self.changes.len(),
            RecordKind::Poison(_) => POISON_BYTES,
        };
        self.offset_in_segment + (RECORD_HEADER_BYTES + content) as u32
    }

    /// What [`body_crc32`] gave for the body.
    pub fn body_crc32(&self) -> u32 {
        self.body_crc32
    }

    /// The record at the start of `bytes`, and what follows it. `None` if it is not one that was written
    /// here.
    fn parse(bytes: &'a [u8], place: RecordPlace) -> Option<(RecordRef<'a>, &'a [u8])> {
        let header: &[u8; RECORD_HEADER_BYTES] = bytes.first_chunk()?;
        let length = u32::from_le_bytes(field(header, AT_LENGTH)) as usize;
        let body_length = u32::from_le_bytes(field(header, AT_BODY_LENGTH)) as usize;
        let meta_length = length
            .checked_sub(body_length)
            .filter(|&length| length >= RECORD_HEADER_BYTES)?;
        let (record, rest) = bytes.split_at_checked(length)?;
        let (meta, body) = record.split_at(meta_length);
        if meta_crc32(meta, place) != u32::from_le_bytes(field(header, AT_CRC32)) || header[AT_FLAGS] != 0 {
            return None;
        }
        let content = &meta[RECORD_HEADER_BYTES..];
        let change_count = u16::from_le_bytes(field(header, AT_CHANGE_COUNT));
        let (kind, changes) = match header[AT_KIND] {
            KIND_COMMIT => (RecordKind::Commit, content),
            KIND_POISON => (
                RecordKind::Poison(parse_poison(content, body)?),
                &content[POISON_BYTES..],
            ),
            _ => return None,
        };
        let record = RecordRef {
            kind,
            sequence: u64::from_le_bytes(field(header, AT_SEQUENCE)),
            offset_in_segment: place.offset_in_segment,
            changes,
            change_count,
            body,
            body_crc32: u32::from_le_bytes(field(header, AT_BODY_CRC32)),
        };
        changes_are_whole(changes, change_count).then_some((record, rest))
    }
}

fn parse_poison(content: &[u8], body: &[u8]) -> Option<Poison> {
    let content: &[u8; POISON_BYTES] = content.try_into().ok()?;
    if !body.is_empty() {
        return None;
    }
    Some(Poison {
        segment: u32::from_le_bytes(field(content, POISON_AT_SEGMENT)),
        generation: u64::from_le_bytes(field(content, POISON_AT_GENERATION)),
        offset: u32::from_le_bytes(field(content, POISON_AT_OFFSET)),
    })
}

fn changes_are_whole(changes: &[u8], change_count: u16) -> bool {
    let mut rest = changes;
    for _ in 0..change_count {
        let Some((_, next)) = parse_change(rest) else {
            return false;
        };
        rest = next;
    }
    rest.is_empty()
}

fn parse_change(bytes: &[u8]) -> Option<(Change<'_>, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<CHANGE_HEADER_BYTES>()?;
    let key_length = u16::from_le_bytes(field(header, CHANGE_AT_KEY_LENGTH)) as usize;
    let value_length = u32::from_le_bytes(field(header, CHANGE_AT_VALUE_LENGTH)) as usize;
    if header[CHANGE_AT_RESERVED] != 0 || key_length > INDEX_KEY_BYTES_MAX {
        return None;
    }
    let (key, rest) = rest.split_at_checked(key_length)?;
    let (value, rest) = rest.split_at_checked(value_length)?;
    match header[CHANGE_AT_OP] {
        OP_PUT => Some((Change::Put { key, value }, rest)),
        OP_DELETE if value.is_empty() => Some((Change::Delete { key }, rest)),
        _ => None,
    }
}

/// The changes of a record.
#[derive(Clone, Debug)]
pub struct ChangeIter<'a> {
    rest: &'a [u8],
    left: u16,
}

impl<'a> Iterator for ChangeIter<'a> {
    type Item = Change<'a>;

    fn next(&mut self) -> Option<Change<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (change, rest) = parse_change(self.rest)?;
        self.rest = rest;
        Some(change)
    }
}

/// The records of a batch, up to its end or to the first that is not whole.
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    rest: &'a [u8],
    place: RecordPlace,
}

impl<'a> RecordIter<'a> {
    pub(super) fn new(payload: &'a [u8], generation: u64, offset_in_segment: u32) -> RecordIter<'a> {
        RecordIter {
            rest: payload,
            place: RecordPlace {
                generation,
                offset_in_segment,
            },
        }
    }

    /// Bytes of the payload that have not been parsed.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = RecordRef<'a>;

    fn next(&mut self) -> Option<RecordRef<'a>> {
        let (record, rest) = RecordRef::parse(self.rest, self.place)?;
        self.rest = rest;
        self.place.offset_in_segment += record.length_bytes();
        Some(record)
    }
}
