//! Builds a run in one pass, from items in order to pages with their places.
//!
//! A page names its own place, and the page above it names it too, so a page is done only when there is room for it.
//! Leaves that fill wait for room in order; whatever gets its place becomes a child of the open page above, which
//! in turn fills. At the end the open pages are closed from below until one is alone: the root.
//!
//! Invariant: of every level, pages get their places in the order of their keys. Memory: one open page a level, pages
//! that wait for room, and output that was not taken.

use std::collections::VecDeque;

use super::filter;
use super::page::{
    AT_COUNT, AT_CRC32, AT_LENGTH, AT_LEVEL, AT_MAGIC, AT_OFFSET, AT_PREFIX_LENGTH, AT_SEGMENT, AT_TAG,
    AT_VERSION, DELETED, HEADER_BYTES, INNER_ITEM_BYTES, LEAF_ITEM_BYTES, MAGIC, PAGE_ALIGN_BYTES,
    PAGE_VERSION, PageAddress, RUN_KEY_BYTES_MAX, RUN_VALUE_BYTES_MAX, TABLE_ENTRY_BYTES, head_at, head_of,
    padded, start_at,
};
use super::run::Run;

/// Bytes of a leaf, unless one item needs more.
const LEAF_BYTES: usize = 4096;
/// Bytes of an inner page, at most.
const INNER_BYTES: usize = 8192;
/// An inner page takes this many children whatever their length, so that every level is shorter than the one below.
const CHILDREN_MIN: usize = 2;

const _: () = assert!(
    HEADER_BYTES
        + CHILDREN_MIN * (TABLE_ENTRY_BYTES + INNER_ITEM_BYTES)
        + 2 * LEAF_BYTES / 8
        + RUN_KEY_BYTES_MAX
        <= INNER_BYTES
);

/// Builds one run.
pub struct RunBuilder {
    leaf: OpenLeaf,
    /// Of levels 1, 2…
    inner: Vec<OpenInner>,
    /// Closed pages without a place.
    waiting: VecDeque<ClosedPage>,
    /// What is left of the stretch that was given last.
    room: PageAddress,
    /// How many were given.
    stretches: u64,
    output: VecDeque<Output>,
    output_bytes: usize,
    is_finishing: bool,
    /// Its root is an address of no length until the root has its place.
    run: Run,
}

/// A page without a place.
struct ClosedPage {
    level: u8,
    /// What tells its keys from those of the page before.
    separator: Vec<u8>,
    /// Of the keys of a leaf.
    filter: Vec<u8>,
    bytes: Vec<u8>,
}

/// A page that can be written.
struct Output {
    stretch: u64,
    address: PageAddress,
    bytes: Vec<u8>,
}

impl RunBuilder {
    /// `tag`: of no other run, past or present, of the volume.
    pub fn new(tag: u64) -> RunBuilder {
        let nowhere = PageAddress {
            segment: 0,
            offset: 0,
            length: 0,
        };
        RunBuilder {
            leaf: OpenLeaf::default(),
            inner: Vec::new(),
            waiting: VecDeque::new(),
            room: nowhere,
            stretches: 0,
            output: VecDeque::new(),
            output_bytes: 0,
            is_finishing: false,
            run: Run {
                tag,
                root: nowhere,
                entries: 0,
                tombstones: 0,
                bytes: 0,
            },
        }
    }

    /// Adds an item; `value` is `None` for a key that was deleted. Pages that fill wait inside until there is room
    /// for them, so ask [`RunBuilder::wants_room`] now and then.
    ///
    /// # Panics
    /// When the key is not greater than the one before; when key or value are longer than
    /// [`RUN_KEY_BYTES_MAX`] or [`RUN_VALUE_BYTES_MAX`]; after [`RunBuilder::finish`].
    pub fn push(&mut self, key: &[u8], sequence: u64, value: Option<&[u8]>) {
        assert!(!self.is_finishing, "an item behind the end");
        assert!(key.len() <= RUN_KEY_BYTES_MAX, "a key of {} bytes", key.len());
        let value_length = value.map_or(0, <[u8]>::len);
        assert!(
            value_length <= RUN_VALUE_BYTES_MAX,
            "a value of {value_length} bytes"
        );
        assert!(
            self.run.entries == 0 || self.leaf.last_key() < key,
            "keys must rise"
        );
        if !self.leaf.has_room_for(key, value_length) {
            self.close_leaf(shortest_separator(self.leaf.last_key(), key));
            self.settle();
        }
        self.leaf.push(key, sequence, value);
        self.run.entries += 1;
        self.run.tombstones += u64::from(value.is_none());
    }

    /// Length of the first page that waits for room; `None` if none does. A stretch at least as long must be given.
    pub fn wants_room(&self) -> Option<u32> {
        self.waiting.front().map(ClosedPage::length)
    }

    /// Gives a stretch of disk for the next pages. No page straddles two stretches: what is left of the one before is
    /// given up.
    ///
    /// # Panics
    /// When it is not aligned, or reaches beyond what a segment can have.
    pub fn give_room(&mut self, stretch: PageAddress) {
        let is_aligned = |bytes: u32| bytes.is_multiple_of(PAGE_ALIGN_BYTES);
        assert!(
            is_aligned(stretch.offset) && is_aligned(stretch.length),
            "{stretch}"
        );
        assert!(stretch.offset.checked_add(stretch.length).is_some(), "{stretch}");
        self.room = stretch;
        self.stretches += 1;
        self.settle();
    }

    /// What can be written now, with its place: consecutive pages of one stretch, together at most `max` bytes, but
    /// at least one page.
    pub fn take_output(&mut self, max: usize) -> Option<(PageAddress, Vec<u8>)> {
        let first = self.output.pop_front()?;
        let (mut length, mut pages) = (first.bytes.len(), 0);
        for page in &self.output {
            if page.stretch != first.stretch || length + page.bytes.len() > max {
                break;
            }
            length += page.bytes.len();
            pages += 1;
        }
        let mut bytes = first.bytes;
        bytes.reserve_exact(length - bytes.len());
        for page in self.output.drain(..pages) {
            bytes.extend_from_slice(&page.bytes);
        }
        self.output_bytes -= length;
        let address = PageAddress {
            length: length as u32,
            ..first.address
        };
        Some((address, bytes))
    }

    /// Bytes that [`RunBuilder::take_output`] has to give.
    pub fn output_bytes(&self) -> usize {
        self.output_bytes
    }

    /// Ends the run: what is open is closed, as far as there is room. Give room and take output until
    /// [`RunBuilder::finished`] has the run, or, if there were no items, neither is asked for.
    pub fn finish(&mut self) {
        if self.is_finishing {
            return;
        }
        self.is_finishing = true;
        if !self.leaf.items.is_empty() {
            self.close_leaf(Vec::new());
        }
        self.settle();
    }

    /// The run, after [`RunBuilder::finish`], when its root has a place and all output was taken. A run without items
    /// has no pages: it is always `None`.
    pub fn finished(&self) -> Option<Run> {
        (self.run.root.length > 0 && self.output.is_empty()).then_some(self.run)
    }

    /// Closes the open leaf. `next_separator` tells the next one from it.
    fn close_leaf(&mut self, next_separator: Vec<u8>) {
        let page = self.leaf.close();
        self.leaf.separator = next_separator;
        self.waiting.push_back(page);
    }

    /// Gives places to the pages that wait, as far as there is room, and to those that are closed by that.
    fn settle(&mut self) {
        while self.run.root.length == 0 {
            if let Some(page) = self.waiting.front() {
                if page.length() > self.room.length {
                    return;
                }
                self.place_first();
            } else if !self.is_finishing || !self.close_lowest() {
                return;
            }
        }
    }

    /// Gives the first page that waits the start of the room.
    fn place_first(&mut self) {
        let mut page = self.waiting.pop_front().expect("a page waits");
        let length = page.length();
        let address = PageAddress { length, ..self.room };
        self.room.offset += length;
        self.room.length -= length;
        seal(&mut page.bytes, page.level, address, self.run.tag);
        self.run.bytes += u64::from(length);
        self.output_bytes += page.bytes.len();
        self.output.push_back(Output {
            stretch: self.stretches,
            address,
            bytes: page.bytes,
        });
        let child = OpenChild {
            separator: page.separator,
            filter: page.filter,
            address,
        };
        let above = usize::from(page.level);
        if above == self.inner.len() {
            self.inner.push(OpenInner::default());
        }
        if !self.inner[above].has_room_for(&child) {
            self.close_inner(above);
        }
        self.inner[above].push(child);
    }

    /// Closes the lowest open page, or finds that its only child is the root. All closed pages have places. Returns
    /// whether there was one: there is none in a run without items.
    fn close_lowest(&mut self) -> bool {
        let Some(lowest) = self.inner.iter().position(|page| !page.children.is_empty()) else {
            return false;
        };
        let is_top = lowest + 1 == self.inner.len();
        match self.inner[lowest].children.as_slice() {
            [root] if is_top => self.run.root = root.address,
            _ => self.close_inner(lowest),
        }
        true
    }

    fn close_inner(&mut self, number: usize) {
        let level = u8::try_from(number + 1).expect("a few levels");
        self.waiting.push_back(self.inner[number].close(level));
    }
}

impl ClosedPage {
    fn length(&self) -> u32 {
        self.bytes.len() as u32
    }
}

/// The leaf that items go into.
#[derive(Default)]
struct OpenLeaf {
    separator: Vec<u8>,
    items: Vec<OpenItem>,
    hashes: Vec<u64>,
    /// Of the items, in order, as their values.
    keys: Vec<u8>,
    values: Vec<u8>,
    last_key_start: usize,
    /// Bytes that all keys have in common.
    prefix_length: usize,
}

struct OpenItem {
    sequence: u64,
    key_end: usize,
    value_end: usize,
    is_deleted: bool,
}

impl OpenLeaf {
    fn last_key(&self) -> &[u8] {
        &self.keys[self.last_key_start..]
    }

    fn first_key(&self) -> &[u8] {
        &self.keys[..self.items.first().map_or(0, |item| item.key_end)]
    }

    fn has_room_for(&self, key: &[u8], value_length: usize) -> bool {
        if self.items.is_empty() {
            return true;
        }
        let count = self.items.len() + 1;
        let prefix = common_prefix_length(&self.first_key()[..self.prefix_length], key);
        let heads = count * (TABLE_ENTRY_BYTES + LEAF_ITEM_BYTES);
        let suffixes = self.keys.len() + key.len() - count * prefix;
        HEADER_BYTES + heads + prefix + suffixes + self.values.len() + value_length <= LEAF_BYTES
    }

    fn push(&mut self, key: &[u8], sequence: u64, value: Option<&[u8]>) {
        self.prefix_length = match self.items.as_slice() {
            [] => key.len(),
            _ => common_prefix_length(&self.first_key()[..self.prefix_length], key),
        };
        self.last_key_start = self.keys.len();
        self.keys.extend_from_slice(key);
        self.values.extend_from_slice(value.unwrap_or_default());
        self.hashes.push(filter::hash(key));
        self.items.push(OpenItem {
            sequence,
            key_end: self.keys.len(),
            value_end: self.values.len(),
            is_deleted: value.is_none(),
        });
    }

    /// Empties the leaf.
    fn close(&mut self) -> ClosedPage {
        let mut filter = Vec::with_capacity(filter::bytes_for(self.hashes.len()));
        filter::write(&self.hashes, &mut filter);
        let mut page = PageWriter::new(self.items.len(), &self.first_key()[..self.prefix_length]);
        let (mut key_start, mut value_start) = (0, 0);
        for item in &self.items {
            let suffix = &self.keys[key_start + self.prefix_length..item.key_end];
            let value = &self.values[value_start..item.value_end];
            let value_length = if item.is_deleted {
                DELETED
            } else {
                value.len() as u32
            };
            page.begin_item(suffix);
            page.bytes.extend_from_slice(&item.sequence.to_le_bytes());
            page.bytes.extend_from_slice(&value_length.to_le_bytes());
            page.bytes.extend_from_slice(&(suffix.len() as u16).to_le_bytes());
            page.bytes.extend_from_slice(suffix);
            page.bytes.extend_from_slice(value);
            (key_start, value_start) = (item.key_end, item.value_end);
        }
        self.items.clear();
        self.hashes.clear();
        // A huge value's memory is not kept for small ones.
        self.values.clear();
        self.values.shrink_to(LEAF_BYTES);
        self.keys.clear();
        ClosedPage {
            level: 0,
            separator: std::mem::take(&mut self.separator),
            filter,
            bytes: page.finish(),
        }
    }
}

/// The inner page that children of one level go into.
#[derive(Default)]
struct OpenInner {
    children: Vec<OpenChild>,
    /// Bytes that the separators of all children but the first have in common.
    prefix_length: usize,
    /// Of the separators of all children but the first, and of all filters.
    bytes: usize,
}

struct OpenChild {
    separator: Vec<u8>,
    filter: Vec<u8>,
    address: PageAddress,
}

impl OpenInner {
    fn prefix_with(&self, separator: &[u8]) -> usize {
        match self.children.get(1) {
            None => separator.len(),
            Some(second) => common_prefix_length(&second.separator[..self.prefix_length], separator),
        }
    }

    fn has_room_for(&self, child: &OpenChild) -> bool {
        if self.children.len() < CHILDREN_MIN {
            return true;
        }
        let prefix = self.prefix_with(&child.separator);
        let heads = (self.children.len() + 1) * (TABLE_ENTRY_BYTES + INNER_ITEM_BYTES);
        // All but the first have a separator, without what they have in common, which is stored once.
        let separators = self.bytes + child.separator.len() + prefix - self.children.len() * prefix;
        HEADER_BYTES + heads + separators + child.filter.len() <= INNER_BYTES
    }

    fn push(&mut self, child: OpenChild) {
        if !self.children.is_empty() {
            self.prefix_length = self.prefix_with(&child.separator);
            self.bytes += child.separator.len();
        }
        self.bytes += child.filter.len();
        self.children.push(child);
    }

    fn close(&mut self, level: u8) -> ClosedPage {
        let prefix_length = self.prefix_length;
        let prefix = self.children.get(1).map_or(&[][..], |second| &second.separator);
        let mut page = PageWriter::new(self.children.len(), &prefix[..prefix_length]);
        for (index, child) in self.children.iter().enumerate() {
            let suffix = match index {
                0 => &[],
                _ => &child.separator[prefix_length..],
            };
            page.begin_item(suffix);
            page.bytes.extend_from_slice(&child.address.segment.to_le_bytes());
            page.bytes.extend_from_slice(&child.address.offset.to_le_bytes());
            page.bytes.extend_from_slice(&child.address.length.to_le_bytes());
            page.bytes.extend_from_slice(&(suffix.len() as u16).to_le_bytes());
            page.bytes
                .extend_from_slice(&(child.filter.len() as u16).to_le_bytes());
            page.bytes.extend_from_slice(suffix);
            page.bytes.extend_from_slice(&child.filter);
        }
        let separator = std::mem::take(&mut self.children[0].separator);
        *self = OpenInner::default();
        ClosedPage {
            level,
            separator,
            filter: Vec::new(),
            bytes: page.finish(),
        }
    }
}

/// Writes what a page holds, but for what [`seal`] knows.
struct PageWriter {
    bytes: Vec<u8>,
    count: usize,
    begun: usize,
}

impl PageWriter {
    fn new(count: usize, prefix: &[u8]) -> PageWriter {
        let mut bytes = Vec::with_capacity(LEAF_BYTES);
        bytes.resize(HEADER_BYTES + count * TABLE_ENTRY_BYTES, 0);
        bytes[AT_COUNT..AT_COUNT + 4].copy_from_slice(&(count as u32).to_le_bytes());
        bytes[AT_PREFIX_LENGTH..AT_PREFIX_LENGTH + 2].copy_from_slice(&(prefix.len() as u16).to_le_bytes());
        bytes.extend_from_slice(prefix);
        PageWriter {
            bytes,
            count,
            begun: 0,
        }
    }

    fn begin_item(&mut self, suffix: &[u8]) {
        let start = (self.bytes.len() as u32).to_le_bytes();
        let at = start_at(self.count, self.begun);
        self.bytes[at..at + start.len()].copy_from_slice(&start);
        self.bytes[head_at(self.begun)..head_at(self.begun + 1)].copy_from_slice(&head_of(suffix));
        self.begun += 1;
    }

    /// The bytes, with their padding.
    fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(padded(self.bytes.len()) as usize, 0);
        self.bytes
    }
}

/// Completes a page that has its place.
fn seal(page: &mut [u8], level: u8, address: PageAddress, tag: u64) {
    page[AT_MAGIC..AT_VERSION].copy_from_slice(&MAGIC);
    page[AT_VERSION..AT_LEVEL].copy_from_slice(&PAGE_VERSION.to_le_bytes());
    page[AT_LEVEL] = level;
    page[AT_SEGMENT..AT_OFFSET].copy_from_slice(&address.segment.to_le_bytes());
    page[AT_OFFSET..AT_LENGTH].copy_from_slice(&address.offset.to_le_bytes());
    page[AT_LENGTH..AT_TAG].copy_from_slice(&address.length.to_le_bytes());
    page[AT_TAG..HEADER_BYTES].copy_from_slice(&tag.to_le_bytes());
    let crc = crc32fast::hash(&page[AT_MAGIC..]);
    page[AT_CRC32..AT_MAGIC].copy_from_slice(&crc.to_le_bytes());
}

/// The shortest key that is greater than `before` and not greater than `key`: a start of `key`.
fn shortest_separator(before: &[u8], key: &[u8]) -> Vec<u8> {
    key[..common_prefix_length(before, key) + 1].to_vec()
}

fn common_prefix_length(one: &[u8], other: &[u8]) -> usize {
    one.iter()
        .zip(other)
        .take_while(|(one, other)| one == other)
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::testing::{Chance, Disk, Model};

    fn stretch(segment: u32, offset: u32, length: u32) -> PageAddress {
        PageAddress {
            segment,
            offset,
            length,
        }
    }

    #[test]
    fn a_run_without_items_has_no_pages() {
        let mut builder = RunBuilder::new(1);
        builder.give_room(stretch(1, 4096, 1 << 20));
        builder.finish();
        assert_eq!(builder.wants_room(), None);
        assert_eq!(builder.take_output(1 << 20), None);
        assert_eq!(builder.finished(), None);
    }

    #[test]
    fn one_item_is_a_run_of_one_leaf() {
        let model = Model::from([(b"key".to_vec(), (5, None))]);
        let mut disk = Disk::default();
        let run = disk.build(&model, 1, &mut Chance(1)).unwrap();
        assert_eq!((run.entries, run.tombstones, run.bytes), (1, 1, 4096));
        assert_eq!(disk.written.keys().collect::<Vec<_>>(), [&run.root]);
    }

    #[test]
    fn the_longest_item_fits_a_page() {
        let (key, value) = (vec![b'k'; RUN_KEY_BYTES_MAX], vec![7; RUN_VALUE_BYTES_MAX]);
        let model = Model::from([
            (b"a".to_vec(), (1, Some(vec![]))),
            (key.clone(), (2, Some(value.clone()))),
        ]);
        let mut disk = Disk::default();
        let run = disk.build(&model, 1, &mut Chance(1)).unwrap();
        let hit = disk
            .with(|pages| crate::index::find(&run, &key, pages))
            .expect("it is there");
        assert!(hit.value() == Some(&value));
        let longest = disk.written.keys().map(|page| page.length).max();
        assert_eq!(longest, Some(crate::index::PAGE_BYTES_MAX));
    }

    #[test]
    fn pages_keep_to_their_stretch_and_output_to_its_bound() {
        let mut builder = RunBuilder::new(1);
        for number in 0..2000_u32 {
            builder.push(&number.to_be_bytes(), 1, Some(&[1; 900]));
        }
        assert_eq!(builder.take_output(1 << 20), None, "there was no room");
        assert_eq!(builder.wants_room(), Some(4096));
        // Two stretches, side by side.
        builder.give_room(stretch(3, 0, 5 * 4096));
        builder.give_room(stretch(3, 5 * 4096, 3 * 4096));
        let mut taken = Vec::new();
        while let Some((address, bytes)) = builder.take_output(4 * 4096) {
            assert_eq!(address.length as usize, bytes.len());
            taken.push(address);
        }
        assert_eq!(
            taken,
            [
                stretch(3, 0, 4 * 4096),
                stretch(3, 4 * 4096, 4096),
                stretch(3, 5 * 4096, 3 * 4096)
            ]
        );
        assert_eq!(builder.output_bytes(), 0);
        builder.give_room(stretch(4, 0, 4 << 20));
        builder.finish();
        assert_eq!(builder.finished(), None, "its output was not taken");
        let (address, _) = builder.take_output(usize::MAX).unwrap();
        let run = builder.finished().unwrap();
        assert_eq!(
            run.root.offset + run.root.length,
            address.length,
            "the root is the last page"
        );
        assert_eq!(run.bytes, u64::from(address.length) + 8 * 4096);
    }

    #[test]
    fn a_stretch_that_is_too_short_changes_nothing() {
        let mut builder = RunBuilder::new(1);
        builder.push(b"key", 1, Some(&[0; 5000]));
        builder.finish();
        builder.give_room(stretch(1, 4096, 4096));
        assert_eq!((builder.wants_room(), builder.take_output(0)), (Some(8192), None));
        builder.give_room(stretch(2, 4096, 8192));
        assert_eq!(builder.wants_room(), None);
        let (address, _) = builder.take_output(0).expect("one page whatever the bound");
        assert_eq!(builder.finished().map(|run| run.root), Some(address));
    }

    #[test]
    fn leaves_are_full() {
        for value_length in [0, 10, 100, 700] {
            let mut model = Model::new();
            for number in 0..3000 {
                let key = format!("some/common/path/{number:07}").into_bytes();
                model.insert(key, (1, Some(vec![1; value_length])));
            }
            let mut disk = Disk::default();
            let run = disk.build(&model, 1, &mut Chance(1)).unwrap();
            // Each item: value, number, head and table entry; beside it a filter and a share of the page above.
            let least = 3000 * (value_length as u64 + 7 - 4 + 18);
            assert!(run.bytes < least * 5 / 4 + 3 * 8192, "{} for {least}", run.bytes);
        }
    }

    #[test]
    fn separators_are_short_and_between() {
        assert_eq!(shortest_separator(b"apple", b"banana"), b"b");
        assert_eq!(shortest_separator(b"photos/1", b"photos/2/3"), b"photos/2");
        assert_eq!(shortest_separator(b"a", b"a\0\0"), b"a\0");
        assert_eq!(shortest_separator(b"", b"xyz"), b"x");
    }

    #[test]
    #[should_panic(expected = "keys must rise")]
    fn a_key_twice_is_refused() {
        let mut builder = RunBuilder::new(1);
        builder.push(b"key", 1, None);
        builder.push(b"key", 2, None);
    }
}
