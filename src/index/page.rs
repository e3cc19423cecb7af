//! Pages of runs: the bytes of a leaf or an inner page, verified once, then searched without a check.
//!
//! ```text
//! header   40 bytes
//! heads    4 bytes each: what an item's suffix starts with, zeros behind a shorter one
//! starts   u32 each: where an item starts
//! prefix   what all keys of the page start with (of an inner page: all separators but the first child's)
//! items    back to back, in order; zeros up to the page's length
//!
//! item of a leaf      sequence u64, value length u32 (0xffff_ffff: deleted), suffix length u16, suffix, value
//! item of an inner    child's segment u32, offset u32, length u32, suffix length u16, filter length u16, suffix, filter
//! ```
//! A search is decided by the heads, which lie side by side, and looks at suffixes only where heads are equal.
//! The first child's separator is not stored: nothing smaller comes to the page. docs/format.md is normative.
//!
//! Invariant: in a [`Page`] every offset and length stays within it and its keys strictly rise, so that no access can
//! fail, whatever once lay on the disk.

use std::cmp::Ordering;
use std::fmt;

use crate::limits::{KEY_BYTES_MAX, RECORD_BYTES_MAX};

/// Alignment, in bytes, of pages and of their lengths.
pub const PAGE_ALIGN_BYTES: u32 = 4096;
/// Bytes of a key in a run: an object key with every byte escaped, a bucket id, a suffix.
pub const RUN_KEY_BYTES_MAX: usize = 2 * KEY_BYTES_MAX + 64;
/// Bytes of a value in a run.
pub const RUN_VALUE_BYTES_MAX: usize = RECORD_BYTES_MAX;
/// Bytes of the longest page: one item of a leaf, with the longest key and value.
pub const PAGE_BYTES_MAX: u32 = padded(LEAF_BYTES_MIN + RUN_KEY_BYTES_MAX + RUN_VALUE_BYTES_MAX);
/// Levels of a run, leaves included. Every inner page has two children or more, but for the last of its level.
pub const LEVELS_MAX: u8 = 40;

pub(super) const PAGE_VERSION: u16 = 1;
pub(super) const MAGIC: [u8; 4] = *b"WFTI";
pub(super) const AT_CRC32: usize = 0;
pub(super) const AT_MAGIC: usize = 4;
pub(super) const AT_VERSION: usize = 8;
pub(super) const AT_LEVEL: usize = 10;
const AT_ZERO: usize = 11;
pub(super) const AT_PREFIX_LENGTH: usize = 12;
const AT_ZEROS: usize = 14;
pub(super) const AT_COUNT: usize = 16;
pub(super) const AT_SEGMENT: usize = 20;
pub(super) const AT_OFFSET: usize = 24;
pub(super) const AT_LENGTH: usize = 28;
pub(super) const AT_TAG: usize = 32;
pub(super) const HEADER_BYTES: usize = 40;
pub(super) const HEAD_BYTES: usize = 4;
const START_BYTES: usize = 4;
/// Of each item, in front of all items.
pub(super) const TABLE_ENTRY_BYTES: usize = HEAD_BYTES + START_BYTES;

// Of an item, from where it starts.
const AT_SEQUENCE: usize = 0;
const AT_VALUE_LENGTH: usize = 8;
const AT_CHILD_SEGMENT: usize = 0;
const AT_CHILD_OFFSET: usize = 4;
const AT_CHILD_LENGTH: usize = 8;
const AT_SUFFIX_LENGTH: usize = 12;
const AT_FILTER_LENGTH: usize = 14;
pub(super) const LEAF_ITEM_BYTES: usize = 14;
pub(super) const INNER_ITEM_BYTES: usize = 16;
/// The value length of a key that was deleted.
pub(super) const DELETED: u32 = u32::MAX;

const LEAF_BYTES_MIN: usize = HEADER_BYTES + TABLE_ENTRY_BYTES + LEAF_ITEM_BYTES;
const _: () = assert!(RUN_KEY_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(RUN_VALUE_BYTES_MAX < DELETED as usize);

/// `bytes` rounded up to [`PAGE_ALIGN_BYTES`].
pub(super) const fn padded(bytes: usize) -> u32 {
    assert!(bytes < 1 << 31, "a page is shorter");
    (bytes as u32).next_multiple_of(PAGE_ALIGN_BYTES)
}

/// Where a page lies. Bytes; offset and length are multiples of 4096.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PageAddress {
    pub segment: u32,
    pub offset: u32,
    pub length: u32,
}

impl fmt::Display for PageAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PageAddress {
            segment,
            offset,
            length,
        } = self;
        write!(f, "segment {segment}, offset {offset}, length {length}")
    }
}

impl PageAddress {
    /// Whether a page can lie there: aligned, not empty, not longer than any page is.
    fn is_possible(&self) -> bool {
        self.offset.is_multiple_of(PAGE_ALIGN_BYTES)
            && self.length.is_multiple_of(PAGE_ALIGN_BYTES)
            && (PAGE_ALIGN_BYTES..=PAGE_BYTES_MAX).contains(&self.length)
            && self.offset.checked_add(self.length).is_some()
    }
}

/// Why bytes are not the page that was looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageError {
    /// Where it was looked for.
    pub address: PageAddress,
    pub fault: PageFault,
}

/// What is wrong with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageFault {
    /// No page can lie at such an address, or not all of its bytes were given.
    Length,
    /// Its checksum does not hold.
    Damaged,
    /// It is none of an index.
    Magic,
    /// It is of a version that this code does not know.
    Version(u16),
    /// It is whole, and of another run or place.
    Misplaced { tag: u64, address: PageAddress },
    /// It is whole and in its place, and does not hold together.
    Malformed(&'static str),
}

impl fmt::Display for PageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index page at {}: ", self.address)?;
        match self.fault {
            PageFault::Length => write!(f, "was read short, or cannot lie there"),
            PageFault::Damaged => write!(f, "is damaged"),
            PageFault::Magic => write!(f, "is no page of an index"),
            PageFault::Version(version) => write!(f, "is of version {version}"),
            PageFault::Misplaced { tag, address } => {
                write!(f, "in its place lies one of run {tag:016x} from {address}")
            }
            PageFault::Malformed(what) => write!(f, "is whole and makes no sense: {what}"),
        }
    }
}

impl std::error::Error for PageError {}

/// A verified page.
pub struct Page {
    bytes: Box<[u8]>,
    address: PageAddress,
    count: usize,
    prefix_length: usize,
    level: u8,
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Page({}: level {}, {} items)",
            self.address, self.level, self.count
        )
    }
}

/// A child of an inner page.
pub(super) struct Child<'a> {
    pub address: PageAddress,
    /// Level of the child's page.
    pub level: u8,
    /// Of the child's keys, if it is a leaf.
    pub filter: &'a [u8],
}

impl Page {
    /// The length of the page that `bytes` seem to begin with; it may be any.
    pub fn length_in(bytes: &[u8]) -> Option<u32> {
        let header = bytes.get(..HEADER_BYTES)?;
        (header[AT_MAGIC..AT_VERSION] == MAGIC).then(|| u32_at(header, AT_LENGTH))
    }

    /// Verifies what was read at `address` as a page of the run with that tag: checksum, tag, address, and that
    /// every offset and length in it stays within it and its keys rise, so that later accesses cannot fail. Copies
    /// `bytes`, which is `address.length` long.
    ///
    /// # Errors
    /// The first thing that is wrong. What lies there must not be used.
    pub fn verify(bytes: &[u8], address: PageAddress, tag: u64) -> Result<Page, PageError> {
        verified_shape(bytes, address, tag)
            .map(|shape| Page {
                bytes: bytes.into(),
                address,
                count: shape.count,
                prefix_length: shape.prefix_length,
                level: shape.level,
            })
            .map_err(|fault| PageError { address, fault })
    }

    /// A page without an item, which leads nowhere: it stands for one that is lost.
    pub fn lost(address: PageAddress) -> Page {
        Page {
            bytes: vec![0; HEADER_BYTES].into(),
            address,
            count: 0,
            prefix_length: 0,
            level: 0,
        }
    }

    /// Whether it stands for one that is lost.
    pub(super) fn is_lost(&self) -> bool {
        self.count == 0
    }

    /// Bytes of memory that the page takes.
    pub fn bytes_held(&self) -> usize {
        size_of::<Page>() + self.bytes.len()
    }

    /// Where it lies.
    pub fn address(&self) -> PageAddress {
        self.address
    }

    /// Levels below it: 0 for a leaf.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Items of a leaf, children of an inner page: at least one, but for a page that is lost.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Where the pages of the level below lie, in order; none for a leaf.
    pub fn children(&self) -> Vec<PageAddress> {
        let children = (0..self.count).map_while(|index| self.child(index));
        children.map(|child| child.address).collect()
    }

    /// Gives `see` each item of a leaf, in order: key, sequence, and value (`None`: the key was deleted).
    pub fn for_each_item(&self, mut see: impl FnMut(&[u8], u64, Option<&[u8]>)) {
        if self.level > 0 {
            return;
        }
        let mut key = self.prefix().to_vec();
        for index in 0..self.count {
            key.truncate(self.prefix_length);
            key.extend_from_slice(self.suffix(index));
            see(&key, self.sequence(index), self.value(index));
        }
    }

    /// What its keys start with.
    pub(super) fn prefix(&self) -> &[u8] {
        let at = HEADER_BYTES + TABLE_ENTRY_BYTES * self.count;
        &self.bytes[at..at + self.prefix_length]
    }

    /// What follows the prefix in a key.
    pub(super) fn suffix(&self, index: usize) -> &[u8] {
        let item = self.item(index);
        let head = item_head_bytes(self.level);
        &item[head..head + usize::from(u16_at(item, AT_SUFFIX_LENGTH))]
    }

    /// The sequence of an item of a leaf.
    pub(super) fn sequence(&self, index: usize) -> u64 {
        debug_assert_eq!(self.level, 0, "an inner page has no items");
        u64_at(self.item(index), AT_SEQUENCE)
    }

    /// The value of an item of a leaf; `None` if its key was deleted.
    pub(super) fn value(&self, index: usize) -> Option<&[u8]> {
        debug_assert_eq!(self.level, 0, "an inner page has no items");
        let item = self.item(index);
        let length = u32_at(item, AT_VALUE_LENGTH);
        let start = LEAF_ITEM_BYTES + usize::from(u16_at(item, AT_SUFFIX_LENGTH));
        (length != DELETED).then(|| &item[start..start + length as usize])
    }

    /// A child; `None` if this is a leaf.
    pub(super) fn child(&self, index: usize) -> Option<Child<'_>> {
        let level = self.level.checked_sub(1)?;
        let item = self.item(index);
        let start = INNER_ITEM_BYTES + usize::from(u16_at(item, AT_SUFFIX_LENGTH));
        Some(Child {
            address: child_address(item),
            level,
            filter: &item[start..start + usize::from(u16_at(item, AT_FILTER_LENGTH))],
        })
    }

    /// Of a leaf: the item with that key, else the first with a greater one (the count if there is none).
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        self.search_from(0, key)
    }

    /// Of an inner page: the child where `key` is if it is anywhere.
    pub(super) fn child_for(&self, key: &[u8]) -> usize {
        match self.search_from(self.count.min(1), key) {
            Ok(index) => index,
            Err(behind) => behind.saturating_sub(1),
        }
    }

    fn search_from(&self, first: usize, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        let Some(rest) = key.strip_prefix(prefix) else {
            return Err(if key < prefix { first } else { self.count });
        };
        let (heads, _) = self.bytes[HEADER_BYTES..HEADER_BYTES + HEAD_BYTES * self.count].as_chunks();
        let head = head_of(rest);
        let mut low = first + heads[first..].partition_point(|other| *other < head);
        let mut high = low + heads[low..].partition_point(|other| *other == head);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.suffix(middle).cmp(rest) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    /// From where an item starts to the end of the page.
    fn item(&self, index: usize) -> &[u8] {
        let start = u32_at(&self.bytes, start_at(self.count, index));
        &self.bytes[start as usize..]
    }
}

/// Where the head of an item lies.
pub(super) const fn head_at(index: usize) -> usize {
    HEADER_BYTES + HEAD_BYTES * index
}

/// Where it says where an item starts, in a page of `count`.
pub(super) const fn start_at(count: usize, index: usize) -> usize {
    HEADER_BYTES + HEAD_BYTES * count + START_BYTES * index
}

/// What a suffix starts with. If heads differ, suffixes have the order of their heads.
pub(super) fn head_of(suffix: &[u8]) -> [u8; HEAD_BYTES] {
    match suffix.first_chunk() {
        Some(head) => *head,
        None => {
            let mut head = [0; HEAD_BYTES];
            head[..suffix.len()].copy_from_slice(suffix);
            head
        }
    }
}

/// What a page's header says, once all of the page is known to be sound.
struct Shape {
    count: usize,
    prefix_length: usize,
    level: u8,
}

fn verified_shape(bytes: &[u8], address: PageAddress, tag: u64) -> Result<Shape, PageFault> {
    if !address.is_possible() || bytes.len() != address.length as usize {
        return Err(PageFault::Length);
    }
    if crc32fast::hash(&bytes[AT_MAGIC..]) != u32_at(bytes, AT_CRC32) {
        return Err(PageFault::Damaged);
    }
    if bytes[AT_MAGIC..AT_VERSION] != MAGIC {
        return Err(PageFault::Magic);
    }
    let version = u16_at(bytes, AT_VERSION);
    if version != PAGE_VERSION {
        return Err(PageFault::Version(version));
    }
    let found = PageAddress {
        segment: u32_at(bytes, AT_SEGMENT),
        offset: u32_at(bytes, AT_OFFSET),
        length: u32_at(bytes, AT_LENGTH),
    };
    let found_tag = u64_at(bytes, AT_TAG);
    if (found_tag, found) != (tag, address) {
        return Err(PageFault::Misplaced {
            tag: found_tag,
            address: found,
        });
    }
    if bytes[AT_ZERO] != 0 || u16_at(bytes, AT_ZEROS) != 0 {
        return Err(PageFault::Malformed("its header is not zero where zeros are"));
    }
    let shape = Shape {
        count: u32_at(bytes, AT_COUNT) as usize,
        prefix_length: usize::from(u16_at(bytes, AT_PREFIX_LENGTH)),
        level: bytes[AT_LEVEL],
    };
    check_items(bytes, &shape).map_err(PageFault::Malformed)?;
    Ok(shape)
}

/// Walks the items: each starts where the one before ends, as the table says, with a greater key.
fn check_items(bytes: &[u8], shape: &Shape) -> Result<(), &'static str> {
    let (count, head) = (shape.count, item_head_bytes(shape.level));
    if shape.level >= LEVELS_MAX {
        return Err("its level");
    }
    if count == 0 || count > (bytes.len() - HEADER_BYTES) / (TABLE_ENTRY_BYTES + head) {
        return Err("its item count");
    }
    if shape.prefix_length > RUN_KEY_BYTES_MAX {
        return Err("its prefix");
    }
    let mut at = HEADER_BYTES + TABLE_ENTRY_BYTES * count + shape.prefix_length;
    let mut before: Option<&[u8]> = None;
    for index in 0..count {
        if u32_at(bytes, start_at(count, index)) as usize != at {
            return Err("where its items start");
        }
        let item = bytes.get(at..).filter(|item| item.len() >= head);
        let item = item.ok_or("an item reaches beyond it")?;
        let suffix_end = head + usize::from(u16_at(item, AT_SUFFIX_LENGTH));
        let rest = match shape.level {
            0 => leaf_value_length(item)?,
            level => checked_filter_length(item, level)?,
        };
        if item.len() - head < suffix_end - head + rest {
            return Err("an item reaches beyond it");
        }
        let suffix = &item[head..suffix_end];
        if bytes[head_at(index)..head_at(index + 1)] != head_of(suffix) {
            return Err("its heads");
        }
        if shape.prefix_length + suffix.len() > RUN_KEY_BYTES_MAX {
            return Err("a key is too long");
        }
        if shape.level > 0 && index == 0 {
            // All that is smaller than the second separator goes to the first child.
            if !suffix.is_empty() {
                return Err("its first child has a separator");
            }
        } else if before.replace(suffix).is_some_and(|before| before >= suffix) {
            return Err("its keys do not rise");
        }
        at += suffix_end + rest;
    }
    if bytes[at..].iter().fold(0, |any, &byte| any | byte) != 0 {
        return Err("its padding");
    }
    Ok(())
}

fn leaf_value_length(item: &[u8]) -> Result<usize, &'static str> {
    match u32_at(item, AT_VALUE_LENGTH) {
        DELETED => Ok(0),
        length if length as usize <= RUN_VALUE_BYTES_MAX => Ok(length as usize),
        _ => Err("a value is too long"),
    }
}

fn checked_filter_length(item: &[u8], level: u8) -> Result<usize, &'static str> {
    if !child_address(item).is_possible() {
        return Err("a child's address");
    }
    match usize::from(u16_at(item, AT_FILTER_LENGTH)) {
        length if level == 1 || length == 0 => Ok(length),
        _ => Err("a filter of a page that is no leaf"),
    }
}

fn child_address(item: &[u8]) -> PageAddress {
    PageAddress {
        segment: u32_at(item, AT_CHILD_SEGMENT),
        offset: u32_at(item, AT_CHILD_OFFSET),
        length: u32_at(item, AT_CHILD_LENGTH),
    }
}

/// Bytes of an item in front of its suffix.
const fn item_head_bytes(level: u8) -> usize {
    if level == 0 {
        LEAF_ITEM_BYTES
    } else {
        INNER_ITEM_BYTES
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let mut field = [0; 2];
    field.copy_from_slice(&bytes[at..at + 2]);
    u16::from_le_bytes(field)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::RunBuilder;
    use crate::index::testing::{Chance, Disk};

    const TAG: u64 = 0x0102_0304_0506_0708;

    type Written = (PageAddress, Vec<u8>);

    /// A leaf and an inner page.
    fn pages() -> Vec<Written> {
        let mut chance = Chance(7);
        let mut disk = Disk::default();
        let model = (0..500_u64)
            .map(|number| {
                (
                    format!("some/path/{number:04}").into_bytes(),
                    (number, chance.value()),
                )
            })
            .collect();
        let run = disk.build(&model, TAG, &mut chance).unwrap();
        let leaf = disk
            .written
            .iter()
            .find(|(at, _)| **at != run.root && at.length == 4096);
        [leaf, disk.written.get_key_value(&run.root)]
            .into_iter()
            .flatten()
            .map(|(at, bytes)| (*at, bytes.clone()))
            .collect()
    }

    fn fault(bytes: &[u8], address: PageAddress, tag: u64) -> Option<PageFault> {
        let error = Page::verify(bytes, address, tag).err()?;
        assert_eq!(error.address, address);
        assert!(error.to_string().contains(&format!("offset {}", address.offset)));
        Some(error.fault)
    }

    /// With a checksum that fits.
    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let crc = crc32fast::hash(&bytes[AT_MAGIC..]);
        bytes[..AT_MAGIC].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn golden_bytes() {
        let mut builder = RunBuilder::new(TAG);
        builder.push(b"key/a", 0x1112_1314_1516_1718, Some(b"value"));
        builder.push(b"key/bc", 9, None);
        builder.push(b"key/d", 7, Some(&[0xee; 4000]));
        builder.finish();
        builder.give_room(PageAddress {
            segment: 5,
            offset: 0x2000,
            length: 0x4000,
        });
        let (address, bytes) = builder.take_output(usize::MAX).unwrap();
        assert_eq!(
            (address.segment, address.offset, bytes.len()),
            (5, 0x2000, 0x3000)
        );
        let first_leaf = [
            b"\x39\x5d\xc5\x4eWFTI\x01\0\0\0\x04\0\0\0\x02\0\0\0".as_slice(),
            b"\x05\0\0\0\0\x20\0\0\0\x10\0\0\x08\x07\x06\x05\x04\x03\x02\x01",
            b"a\0\0\0bc\0\0\x3c\0\0\0\x50\0\0\0key/",
            b"\x18\x17\x16\x15\x14\x13\x12\x11\x05\0\0\0\x01\0avalue",
            b"\x09\0\0\0\0\0\0\0\xff\xff\xff\xff\x02\0bc",
        ]
        .concat();
        assert_eq!(bytes[..first_leaf.len()], first_leaf);
        let second_leaf = [
            b"\x1d\xf7\x9a\x25WFTI\x01\0\0\0\x05\0\0\0\x01\0\0\0".as_slice(),
            b"\x05\0\0\0\0\x30\0\0\0\x10\0\0\x08\x07\x06\x05\x04\x03\x02\x01",
            b"\0\0\0\0\x35\0\0\0key/d\x07\0\0\0\0\0\0\0\xa0\x0f\0\0\0\0\xee\xee",
        ]
        .concat();
        assert_eq!(bytes[0x1000..][..second_leaf.len()], second_leaf);
        let root = [
            b"\xd1\x87\x4f\xcfWFTI\x01\0\x01\0\x05\0\0\0\x02\0\0\0".as_slice(),
            b"\x05\0\0\0\0\x40\0\0\0\x10\0\0\x08\x07\x06\x05\x04\x03\x02\x01",
            b"\0\0\0\0\0\0\0\0\x3d\0\0\0\x55\0\0\0key/d",
            b"\x05\0\0\0\0\x20\0\0\0\x10\0\0\0\0\x08\0",
            b"\x80\x80\x42\x84\x88\x10\xa0\xc0",
            b"\x05\0\0\0\0\x30\0\0\0\x10\0\0\0\0\x08\0",
            b"\0\0\0\x84\x10\x42\x10\x02",
        ]
        .concat();
        assert_eq!(bytes[0x2000..][..root.len()], root);
        assert!(bytes[0x2000 + root.len()..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        for (address, bytes) in pages() {
            assert_eq!(fault(&bytes, address, TAG), None);
            let mut damaged = bytes.clone();
            for bit in 0..bytes.len() * 8 {
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(fault(&damaged, address, TAG), Some(PageFault::Damaged));
                damaged[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn every_cut_is_refused() {
        for (address, bytes) in pages() {
            for end in 0..bytes.len() {
                assert_eq!(fault(&bytes[..end], address, TAG), Some(PageFault::Length));
                let mut torn = bytes.clone();
                torn[end..].fill(0);
                assert_eq!(fault(&torn, address, TAG).is_some(), torn != bytes);
            }
            let longer = [&bytes[..], &[0; 4096]].concat();
            assert_eq!(fault(&longer, address, TAG), Some(PageFault::Length));
            let all = PageAddress {
                length: longer.len() as u32,
                ..address
            };
            assert_eq!(fault(&longer, all, TAG), Some(PageFault::Damaged));
        }
    }

    #[test]
    fn a_page_counts_only_in_its_run_and_place() {
        for (address, bytes) in pages() {
            let misplaced = Some(PageFault::Misplaced { tag: TAG, address });
            let PageAddress { segment, offset, .. } = address;
            assert_eq!(fault(&bytes, address, TAG + 1), misplaced);
            let elsewhere = |segment, offset| PageAddress {
                segment,
                offset,
                ..address
            };
            assert_eq!(fault(&bytes, elsewhere(segment + 1, offset), TAG), misplaced);
            assert_eq!(fault(&bytes, elsewhere(segment, offset + 4096), TAG), misplaced);
            assert_eq!(
                fault(&bytes, elsewhere(segment, offset + 1), TAG),
                Some(PageFault::Length)
            );
            let end = elsewhere(segment, u32::MAX - 4095);
            assert_eq!(fault(&bytes, end, TAG), Some(PageFault::Length));
            let nothing = PageAddress { length: 0, ..address };
            assert_eq!(fault(&[], nothing, TAG), Some(PageFault::Length));
        }
    }

    #[test]
    fn nonsense_with_a_right_checksum_is_refused() {
        let pages = pages();
        let (leaf, inner) = (&pages[0], &pages[1]);
        let start_of_first = start_at(u32_at(&leaf.1, AT_COUNT) as usize, 0);
        let first = |(_, page): &Written| {
            let start = start_at(u32_at(page, AT_COUNT) as usize, 0);
            u32_at(page, start) as usize
        };
        let (of_leaf, of_inner) = (first(leaf), first(inner));
        let cases: [(&Written, usize, &[u8], &str); 18] = [
            (leaf, AT_LEVEL, &[40], "its level"),
            (leaf, AT_ZERO, &[1], "its header is not zero where zeros are"),
            (leaf, AT_ZEROS, &[0, 1], "its header is not zero where zeros are"),
            (leaf, AT_COUNT, &[0, 0], "its item count"),
            (leaf, AT_COUNT, &[0xff, 0xff, 0xff, 0xff], "its item count"),
            (leaf, AT_COUNT, &[1], "where its items start"),
            (leaf, AT_PREFIX_LENGTH, &[0xff, 0xff], "its prefix"),
            (leaf, AT_PREFIX_LENGTH, &[1], "where its items start"),
            (leaf, head_at(1), &[0], "its heads"),
            (leaf, start_of_first, &[0xff], "where its items start"),
            (
                leaf,
                of_leaf + AT_VALUE_LENGTH,
                &[0xfe, 0xff, 0xff, 0xff],
                "a value is too long",
            ),
            (
                leaf,
                of_leaf + AT_VALUE_LENGTH,
                &[0, 0x10, 0, 0],
                "an item reaches beyond it",
            ),
            (
                leaf,
                of_leaf + AT_SUFFIX_LENGTH,
                &[0xff, 0xff],
                "an item reaches beyond it",
            ),
            (leaf, of_leaf + LEAF_ITEM_BYTES, &[0xff], "its heads"),
            (leaf, 4095, &[1], "its padding"),
            (inner, of_inner + AT_CHILD_OFFSET, &[1], "a child's address"),
            (
                inner,
                of_inner + AT_CHILD_LENGTH,
                &[0, 0, 0, 0],
                "a child's address",
            ),
            (inner, AT_LEVEL, &[2], "a filter of a page that is no leaf"),
        ];
        for ((address, bytes), at, patch, what) in cases {
            let mut bytes = bytes.clone();
            bytes[at..at + patch.len()].copy_from_slice(patch);
            let found = fault(&sealed(bytes), *address, TAG);
            assert_eq!(found, Some(PageFault::Malformed(what)), "{patch:?} at {at}");
        }
        let mut falling = leaf.1.clone();
        for at in [head_at(0), of_leaf + LEAF_ITEM_BYTES] {
            falling[at] = 0xff;
        }
        let found = fault(&sealed(falling), leaf.0, TAG);
        assert_eq!(found, Some(PageFault::Malformed("its keys do not rise")));
        let mut separated = inner.1.clone();
        separated[of_inner + AT_SUFFIX_LENGTH] = 1;
        separated[of_inner + AT_FILTER_LENGTH] -= 1;
        separated[head_at(0)] = separated[of_inner + INNER_ITEM_BYTES];
        let found = fault(&sealed(separated), inner.0, TAG);
        assert_eq!(
            found,
            Some(PageFault::Malformed("its first child has a separator"))
        );
        for (at, patch, expected) in [
            (AT_MAGIC, b"WFTX\x01\0".as_slice(), PageFault::Magic),
            (AT_VERSION, &[2, 0], PageFault::Version(2)),
        ] {
            let mut bytes = leaf.1.clone();
            bytes[at..at + patch.len()].copy_from_slice(patch);
            assert_eq!(fault(&sealed(bytes), leaf.0, TAG), Some(expected));
        }
    }

    #[test]
    fn what_verify_lets_through_never_fails() {
        let mut chance = Chance(11);
        let mut let_through = 0;
        for (address, bytes) in pages() {
            for _ in 0..30_000 {
                let mut bytes = bytes.clone();
                for _ in 0..1 + chance.below(3) {
                    let within = [400, bytes.len()][chance.below(2)];
                    let at = chance.below(within);
                    bytes[at] = chance.next() as u8 >> chance.below(8);
                }
                bytes[AT_TAG..HEADER_BYTES].copy_from_slice(&TAG.to_le_bytes());
                let Ok(page) = Page::verify(&sealed(bytes), address, TAG) else {
                    continue;
                };
                let_through += 1;
                for index in 0..page.count() {
                    let key = [page.prefix(), page.suffix(index)].concat();
                    match page.child(index) {
                        None => {
                            assert_eq!(page.search(&key), Ok(index));
                            let _ = (page.sequence(index), page.value(index));
                        }
                        Some(child) => {
                            assert!(child.level < page.level() && child.address.is_possible());
                            assert!(index == 0 || page.child_for(&key) == index);
                        }
                    }
                }
            }
        }
        assert!(let_through > 1000, "{let_through} of 60,000 let through");
    }
}
