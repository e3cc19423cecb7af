//! The runs that the manifests name: every page that can be reached from a root is read and verified.
//!
//! A damaged page hides what is below it, and nothing else: the walk goes on with the page behind it. Pages that lie one
//! behind the other are read at once.
//!
//! Invariant: what is given out was verified, with the tag of its run, in its place, on the level that leads to it.

use super::report::{Findings, Place, What};
use super::segment::{Buffer, Reading};
use super::volume::Checked;
use super::{Progress, in_parallel};
use crate::index::{PAGE_ALIGN_BYTES, PAGE_BYTES_MAX, Page, PageAddress, PageError, PageFault, RunPlace};
use crate::io::SegmentId;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Bytes of pages that are read at a time, unless one is longer.
const READ_BYTES: u32 = 1 << 20;

/// What was read.
#[derive(Clone, Copy, Default)]
pub struct RunsRead {
    pub runs: u64,
    pub pages: u64,
    /// Tombstones included.
    pub entries: u64,
    pub read_bytes: u64,
}

/// Reads all runs that a start goes by, several at a time, and gives `see` each page; before it, the place of its run among
/// those of its core, of which 0 is the newest.
pub fn read(volume: &Checked, findings: &Findings, see: impl Fn(usize, &Page) + Sync) -> RunsRead {
    let manifests = volume.base.manifests.values();
    let runs: Vec<(usize, &RunPlace)> = manifests
        .flat_map(|manifest| manifest.runs.iter().enumerate())
        .collect();
    let progress = Progress::new("index", runs.iter().map(|(_, place)| place.run.bytes).sum());
    let all = Mutex::new(RunsRead::default());
    in_parallel(&runs, Buffer::default, |buffer, (rank, place)| {
        let walk = read_run(volume, place, findings, &progress, buffer, |page| {
            see(*rank, page)
        });
        let mut all = all.lock().expect("no thread panics");
        all.runs += 1;
        all.pages += walk.pages;
        all.entries += walk.entries;
        all.read_bytes += walk.read_bytes;
    });
    all.into_inner().expect("no thread panics")
}

fn read_run(
    volume: &Checked,
    place: &RunPlace,
    findings: &Findings,
    progress: &Progress,
    buffer: &mut Buffer,
    see: impl FnMut(&Page),
) -> RunsRead {
    let mut walk = Walk {
        volume,
        place,
        findings,
        progress,
        buffer,
        see,
        readings: BTreeMap::new(),
        read: RunsRead::default(),
        tombstones: 0,
        last_key: None,
        is_damaged: false,
    };
    walk.visit(&[place.run.root], None);
    let run = &place.run;
    let counted = (walk.read.entries, walk.tombstones, walk.read.read_bytes);
    if !walk.is_damaged && counted != (run.entries, run.tombstones, run.bytes) {
        let text = "a run has not as many entries, tombstones or bytes as its manifest says";
        findings.add(What::Page, place_of(&run.root), text);
    }
    walk.read
}

/// A walk over one run.
struct Walk<'a, S> {
    volume: &'a Checked,
    place: &'a RunPlace,
    findings: &'a Findings,
    progress: &'a Progress,
    buffer: &'a mut Buffer,
    see: S,
    readings: BTreeMap<u32, Reading<'a>>,
    read: RunsRead,
    tombstones: u64,
    last_key: Option<Vec<u8>>,
    is_damaged: bool,
}

impl<S: FnMut(&Page)> Walk<'_, S> {
    /// Reads these pages, which should be of that level (`None`: any), and all below them, in order.
    fn visit(&mut self, addresses: &[PageAddress], level: Option<u8>) {
        let mut rest = addresses;
        while let Some(first) = rest.first() {
            let mut end = u64::from(first.offset) + u64::from(first.length);
            let mut count = 1;
            for next in &rest[1..] {
                let next_end = end + u64::from(next.length);
                let follows = next.segment == first.segment && u64::from(next.offset) == end;
                if !follows || next_end - u64::from(first.offset) > u64::from(READ_BYTES) {
                    break;
                }
                end = next_end;
                count += 1;
            }
            let (together, behind) = rest.split_at(count);
            rest = behind;
            for page in self.read_pages(together, level) {
                self.take(&page);
            }
        }
    }

    fn take(&mut self, page: &Page) {
        self.read.pages += 1;
        (self.see)(page);
        let mut has_risen = true;
        page.for_each_item(|key, _, value| {
            self.read.entries += 1;
            self.tombstones += u64::from(value.is_none());
            has_risen &= self.last_key.as_deref().is_none_or(|last| last < key);
            let last = self.last_key.get_or_insert_default();
            last.clear();
            last.extend_from_slice(key);
        });
        if !has_risen {
            self.tell(
                &page.address(),
                "its keys are not behind those of the page before",
            );
        }
        if let Some(below) = page.level().checked_sub(1) {
            self.visit(&page.children(), Some(below));
        }
    }

    /// Those of the pages that are whole. They lie one behind the other.
    fn read_pages(&mut self, addresses: &[PageAddress], level: Option<u8>) -> Vec<Page> {
        let first = addresses[0];
        let Some(length) = self.readable(addresses) else {
            addresses
                .iter()
                .for_each(|address| self.tell(address, "no page can lie there"));
            return Vec::new();
        };
        let (volume, findings) = (self.volume, self.findings);
        let id = SegmentId(first.segment);
        let reading = self
            .readings
            .entry(first.segment)
            .or_insert_with(|| volume.reading(id, findings));
        let bytes = reading.read(first.offset, length, self.buffer);
        let mut verified: Vec<Result<Page, PageError>> = Vec::new();
        for address in addresses {
            let bytes = &bytes[(address.offset - first.offset) as usize..][..address.length as usize];
            verified.push(Page::verify(bytes, *address, self.place.run.tag));
        }
        self.read.read_bytes += u64::from(length);
        self.progress.add(u64::from(length));
        let mut pages = Vec::new();
        for (page, address) in verified.into_iter().zip(addresses) {
            match page {
                Ok(page) if level.is_some_and(|level| level != page.level()) => {
                    self.tell(address, "it is not on the level below the page that leads to it");
                }
                Ok(page) => {
                    if !self.is_within_run(address) {
                        self.tell(address, "it lies outside of the stretches of its run");
                    }
                    pages.push(page);
                }
                Err(error) => self.tell(address, &fault(&error.fault)),
            }
        }
        pages
    }

    /// How many bytes the pages take, if they can lie there.
    fn readable(&self, addresses: &[PageAddress]) -> Option<u32> {
        let first = addresses.first()?;
        let mut length = 0u32;
        for address in addresses {
            let is_possible = (PAGE_ALIGN_BYTES..=PAGE_BYTES_MAX).contains(&address.length)
                && address.length.is_multiple_of(PAGE_ALIGN_BYTES)
                && address.offset.is_multiple_of(PAGE_ALIGN_BYTES);
            length = length.checked_add(address.length).filter(|_| is_possible)?;
        }
        let end = first.offset.checked_add(length)?;
        let is_there = self.volume.segments.contains_key(&SegmentId(first.segment));
        (is_there && end <= self.volume.segment_size_bytes).then_some(length)
    }

    fn is_within_run(&self, address: &PageAddress) -> bool {
        let end = address.offset + address.length;
        self.place.extents.iter().any(|extent| {
            extent.segment == address.segment
                && extent.offset <= address.offset
                && end <= extent.offset + extent.length
        })
    }

    fn tell(&mut self, address: &PageAddress, what: &str) {
        self.is_damaged = true;
        self.findings.add(
            What::Page,
            place_of(address),
            format!("a page of the index cannot be used: {what}"),
        );
    }
}

fn place_of(address: &PageAddress) -> Place {
    Place::new(SegmentId(address.segment), address.offset, address.length)
}

fn fault(fault: &PageFault) -> String {
    match fault {
        PageFault::Length => "no page can lie there".to_owned(),
        PageFault::Damaged => "it is damaged".to_owned(),
        PageFault::Magic => "what lies there is none".to_owned(),
        PageFault::Version(version) => format!("it is of version {version}"),
        PageFault::Misplaced { .. } => "another page lies there".to_owned(),
        PageFault::Malformed(what) => format!("it is whole and makes no sense: {what}"),
    }
}
