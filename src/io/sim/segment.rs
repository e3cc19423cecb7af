//! The content of one simulated segment: what is durable, and what is merely written.
//!
//! Layers, from what survives anything to what nothing promises:
//! - durable: pages covered by a sync that succeeded;
//! - unsynced: writes that completed, in that order; reads see them (through the overlay);
//! - limbo: pages of writes whose sync failed. No later sync makes them durable; only a new write of
//!   the same page replaces them;
//! - in flight: writes that have not completed.
//!
//! Invariant: durable content changes only by a sync, a power loss, or damage on purpose. Pages share
//! the buffers they were written from, so a copy of a segment copies pointers.
//! It must not: know of time, tasks or probabilities of faults. `disk` decides what happens.

use super::rng::Rng;
use crate::io::DISK_ALIGN_BYTES;
use std::collections::BTreeMap;
use std::rc::Rc;

/// What a disk writes as a whole or not at all.
pub const SECTOR_BYTES: usize = 512;
const SECTORS_PER_PAGE: usize = DISK_ALIGN_BYTES / SECTOR_BYTES;

const _: () = assert!(SECTORS_PER_PAGE == 8, "a page's sectors fit the bits of a u8");

/// A page's worth of a shared buffer.
#[derive(Clone)]
pub(super) struct Page {
    blob: Rc<Vec<u8>>,
    index: u32,
}

/// Pages by number; those absent were never made durable.
type Pages = Vec<Option<Page>>;

/// A write: whole pages from `first_page` on.
#[derive(Clone)]
pub(super) struct Write {
    pub id: u64,
    pub first_page: u32,
    pub blob: Rc<Vec<u8>>,
}

/// What pages that were never written read as.
#[derive(Clone)]
pub(super) struct Fill {
    pub blob: Rc<Vec<u8>>,
    pub rotation: u32,
}

#[derive(Clone)]
pub(super) struct Segment {
    fill: Fill,
    durable: Rc<Pages>,
    /// The newest content of the pages that reads see and that are not durable as such.
    overlay: BTreeMap<u32, Page>,
    unsynced: Vec<Completed>,
    limbo: BTreeMap<u32, Page>,
    in_flight: Vec<Write>,
}

#[derive(Clone)]
struct Completed {
    /// Orders completions and syncs over the whole disk.
    at: u64,
    write: Write,
}

impl Segment {
    /// A segment just allocated. With `stale`, it shows what another one holds, as recycled blocks do.
    pub fn new(fill: Fill, stale: Option<&Segment>) -> Segment {
        Segment {
            fill,
            durable: stale.map(|other| other.durable.clone()).unwrap_or_default(),
            overlay: BTreeMap::new(),
            unsynced: Vec::new(),
            limbo: BTreeMap::new(),
            in_flight: Vec::new(),
        }
    }

    /// Says whether an earlier write of one of its pages is still in flight.
    pub fn begin_write(&mut self, write: Write) -> bool {
        let (first, count) = (write.first_page, write.pages_count());
        let overlaps = self
            .in_flight
            .iter()
            .any(|earlier| earlier.overlaps(first, count));
        self.in_flight.push(write);
        overlaps
    }

    /// Takes a write out of flight. What becomes of it, the caller says by [`Segment::land`] or not.
    pub fn end_write(&mut self, id: u64) -> Write {
        let index = self
            .in_flight
            .iter()
            .position(|write| write.id == id)
            .expect("a write in flight");
        self.in_flight.remove(index)
    }

    /// A write is complete: reads see it, nothing has made it durable.
    pub fn land(&mut self, write: Write, at: u64) {
        for (number, page) in write.pages() {
            self.overlay.insert(number, page);
        }
        self.unsynced.push(Completed { at, write });
    }

    /// A write failed: some of its sectors may have landed, and are unsynced like others.
    pub fn land_some(&mut self, mut write: Write, at: u64, rng: &mut Rng) {
        let tear = Tear::draw(write.sectors(), rng);
        let mut blob = Vec::with_capacity(write.blob.len());
        for (index, (number, page)) in write.pages().enumerate() {
            let merged = self.visible(number).merged(&page, tear.mask(index, rng));
            blob.extend_from_slice(merged.bytes());
        }
        write.blob = Rc::new(blob);
        self.land(write, at);
    }

    /// Everything that completed up to `through` becomes durable.
    pub fn sync(&mut self, through: u64) {
        for write in self.take_unsynced(through) {
            self.make_durable(&write);
        }
    }

    /// A sync of everything up to `through` failed. Each write may have become durable, stay visible
    /// for now, or be gone for now; what did not become durable may be there again after a power loss.
    pub fn fail_sync(&mut self, through: u64, rng: &mut Rng) {
        for write in self.take_unsynced(through) {
            let fate = rng.below(3);
            if fate == 0 {
                self.make_durable(&write);
                continue;
            }
            for (number, page) in write.pages() {
                if fate == 1 {
                    self.uncover(number, &page);
                }
                self.limbo.insert(number, page);
            }
        }
    }

    /// The power goes: each sector of each write that is not durable is kept or lost. `report` hears
    /// what became of each write.
    pub fn lose_power(&mut self, rng: &mut Rng, mut report: impl FnMut(&Write, &Tear)) {
        let mut mood = Mood::draw(rng);
        for (number, page) in std::mem::take(&mut self.limbo) {
            let mask = rng.next_u64() as u8;
            self.merge_durable(number, &page, mask);
        }
        let completed = std::mem::take(&mut self.unsynced)
            .into_iter()
            .map(|completed| completed.write);
        let in_flight = std::mem::take(&mut self.in_flight);
        for write in completed.chain(in_flight) {
            let tear = mood.fate(write.sectors(), rng);
            report(&write, &tear);
            if matches!(tear, Tear::Nothing) {
                continue;
            }
            for (index, (number, page)) in write.pages().enumerate() {
                self.merge_durable(number, &page, tear.mask(index, rng));
            }
        }
        self.overlay.clear();
    }

    /// The process dies and the disk does not: what completed stays, as little durable as before;
    /// what was in flight lands whole, in part or not at all.
    /// Takes and gives the number of the last completion.
    pub fn lose_process(&mut self, mut at: u64, rng: &mut Rng) -> u64 {
        for write in std::mem::take(&mut self.in_flight) {
            at += 1;
            match rng.below(3) {
                0 => {}
                1 => self.land(write, at),
                _ => self.land_some(write, at, rng),
            }
        }
        at
    }

    /// The bytes of `pages` pages as a read finds them now. Of a write in flight it may see any sectors.
    pub fn read(&self, first_page: u32, pages: u32, rng: &mut Rng) -> (Rc<Vec<u8>>, usize) {
        let disturbed = self
            .in_flight
            .iter()
            .any(|write| write.overlaps(first_page, pages));
        if !disturbed && let Some(found) = self.read_shared(first_page, pages) {
            return found;
        }
        let mut bytes = Vec::with_capacity(pages as usize * DISK_ALIGN_BYTES);
        for number in first_page..first_page + pages {
            let mut page = self.visible(number);
            for write in self.in_flight.iter().filter(|write| write.overlaps(number, 1)) {
                page = page.merged(&write.page(number), rng.next_u64() as u8);
            }
            bytes.extend_from_slice(page.bytes());
        }
        (Rc::new(bytes), 0)
    }

    /// Reads without a copy when all pages lie side by side in one buffer.
    fn read_shared(&self, first_page: u32, pages: u32) -> Option<(Rc<Vec<u8>>, usize)> {
        let first = self.visible(first_page);
        let side_by_side = (1..pages).all(|ahead| {
            let page = self.visible(first_page + ahead);
            Rc::ptr_eq(&page.blob, &first.blob) && page.index == first.index + ahead
        });
        let start = first.index as usize * DISK_ALIGN_BYTES;
        side_by_side.then_some((first.blob, start))
    }

    /// Damage on purpose, durable at once: `change` gets the bytes of page `number`. A write of that
    /// page that is not durable yet may undo it when it becomes so.
    pub fn damage(&mut self, number: u32, change: impl FnOnce(&mut [u8])) {
        let mut bytes = self.visible(number).bytes().to_vec();
        change(&mut bytes);
        self.overlay.remove(&number);
        self.set_durable(
            number,
            Page {
                blob: Rc::new(bytes),
                index: 0,
            },
        );
    }

    fn take_unsynced(&mut self, through: u64) -> Vec<Write> {
        let covered = self.unsynced.partition_point(|completed| completed.at <= through);
        self.unsynced
            .drain(..covered)
            .map(|completed| completed.write)
            .collect()
    }

    fn make_durable(&mut self, write: &Write) {
        for (number, page) in write.pages() {
            self.uncover(number, &page);
            self.limbo.remove(&number);
            self.set_durable(number, page);
        }
    }

    /// Takes `page` off the overlay unless a later write covers it.
    fn uncover(&mut self, number: u32, page: &Page) {
        if self.overlay.get(&number).is_some_and(|shown| shown.is(page)) {
            self.overlay.remove(&number);
        }
    }

    fn merge_durable(&mut self, number: u32, page: &Page, mask: u8) {
        match mask {
            0 => {}
            u8::MAX => self.set_durable(number, page.clone()),
            _ => {
                let merged = self.durable_page(number).merged(page, mask);
                self.set_durable(number, merged);
            }
        }
    }

    fn set_durable(&mut self, number: u32, page: Page) {
        let pages = Rc::make_mut(&mut self.durable);
        if pages.len() <= number as usize {
            pages.resize(number as usize + 1, None);
        }
        pages[number as usize] = Some(page);
    }

    fn visible(&self, number: u32) -> Page {
        self.overlay
            .get(&number)
            .cloned()
            .unwrap_or_else(|| self.durable_page(number))
    }

    fn durable_page(&self, number: u32) -> Page {
        self.durable
            .get(number as usize)
            .cloned()
            .flatten()
            .unwrap_or_else(|| self.fill.page(number))
    }
}

impl Page {
    fn bytes(&self) -> &[u8] {
        let start = self.index as usize * DISK_ALIGN_BYTES;
        &self.blob[start..start + DISK_ALIGN_BYTES]
    }

    fn is(&self, other: &Page) -> bool {
        Rc::ptr_eq(&self.blob, &other.blob) && self.index == other.index
    }

    /// This page with the sectors of `newer` whose bit is set in `mask`.
    fn merged(&self, newer: &Page, mask: u8) -> Page {
        match mask {
            0 => return self.clone(),
            u8::MAX => return newer.clone(),
            _ => {}
        }
        let mut bytes = self.bytes().to_vec();
        let sectors = bytes
            .chunks_exact_mut(SECTOR_BYTES)
            .zip(newer.bytes().chunks_exact(SECTOR_BYTES));
        for (sector, (old, new)) in sectors.enumerate() {
            if mask >> sector & 1 == 1 {
                old.copy_from_slice(new);
            }
        }
        Page {
            blob: Rc::new(bytes),
            index: 0,
        }
    }
}

impl Write {
    pub fn pages_count(&self) -> u32 {
        (self.blob.len() / DISK_ALIGN_BYTES) as u32
    }

    fn sectors(&self) -> usize {
        self.blob.len() / SECTOR_BYTES
    }

    fn pages(&self) -> impl Iterator<Item = (u32, Page)> + use<> {
        let (blob, first) = (self.blob.clone(), self.first_page);
        (0..self.pages_count()).map(move |index| {
            (
                first + index,
                Page {
                    blob: blob.clone(),
                    index,
                },
            )
        })
    }

    fn page(&self, number: u32) -> Page {
        Page {
            blob: self.blob.clone(),
            index: number - self.first_page,
        }
    }

    fn overlaps(&self, first_page: u32, pages: u32) -> bool {
        self.first_page < first_page + pages && first_page < self.first_page + self.pages_count()
    }
}

impl Fill {
    fn page(&self, number: u32) -> Page {
        let pages = (self.blob.len() / DISK_ALIGN_BYTES) as u32;
        Page {
            blob: self.blob.clone(),
            index: number.wrapping_add(self.rotation) % pages,
        }
    }
}

/// How a segment's writes fare when the power goes. Independent chances alone would hardly ever keep
/// or lose many writes alike, and bugs hide there too.
enum Mood {
    LoseAll,
    KeepAll,
    TearAll,
    Mixed,
    /// In order, until one is torn: as a disk without reordering would.
    UntilOneFails,
}

impl Mood {
    fn draw(rng: &mut Rng) -> Mood {
        match rng.below(8) {
            0 => Mood::LoseAll,
            1 => Mood::KeepAll,
            2 => Mood::TearAll,
            3 => Mood::UntilOneFails,
            _ => Mood::Mixed,
        }
    }

    fn fate(&mut self, sectors: usize, rng: &mut Rng) -> Tear {
        match self {
            Mood::LoseAll => Tear::Nothing,
            Mood::KeepAll => Tear::Everything,
            Mood::TearAll => Tear::draw(sectors, rng),
            Mood::Mixed => match rng.below(3) {
                0 => Tear::Nothing,
                1 => Tear::Everything,
                _ => Tear::draw(sectors, rng),
            },
            Mood::UntilOneFails if rng.below(4) > 0 => Tear::Everything,
            Mood::UntilOneFails => {
                *self = Mood::LoseAll;
                Tear::draw(sectors, rng)
            }
        }
    }
}

/// Which sectors of a write land.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tear {
    Nothing,
    Everything,
    Before(usize),
    From(usize),
    Except(usize),
    Random,
}

impl Tear {
    fn draw(sectors: usize, rng: &mut Rng) -> Tear {
        match rng.below(4) {
            0 => Tear::Before(rng.index(sectors)),
            1 => Tear::From(rng.index(sectors)),
            2 => Tear::Except(rng.index(sectors)),
            _ => Tear::Random,
        }
    }

    /// The sectors of the write's page `index` that land, as bits.
    fn mask(&self, index: usize, rng: &mut Rng) -> u8 {
        let first = index * SECTORS_PER_PAGE;
        let below = |sector: &usize| (0xff_u16 >> (8 - sector.saturating_sub(first).min(8))) as u8;
        match self {
            Tear::Nothing => 0,
            Tear::Everything => u8::MAX,
            Tear::Before(sector) => below(sector),
            Tear::From(sector) => !below(sector),
            Tear::Except(sector) => !(below(&(sector + 1)) & !below(sector)),
            Tear::Random => rng.next_u64() as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = DISK_ALIGN_BYTES;

    fn segment() -> Segment {
        Segment::new(
            Fill {
                blob: Rc::new(vec![0xee; PAGE]),
                rotation: 0,
            },
            None,
        )
    }

    fn write(id: u64, first_page: u32, pages: usize, byte: u8) -> Write {
        Write {
            id,
            first_page,
            blob: Rc::new(vec![byte; pages * PAGE]),
        }
    }

    fn first_byte(segment: &Segment, page: u32) -> u8 {
        segment.visible(page).bytes()[0]
    }

    #[test]
    fn tears_name_their_sectors() {
        let mut rng = Rng::new(0);
        let masks = |tear: Tear, rng: &mut Rng| [tear.mask(0, rng), tear.mask(1, rng)];
        assert_eq!(masks(Tear::Before(0), &mut rng), [0, 0]);
        assert_eq!(masks(Tear::Before(3), &mut rng), [0b111, 0]);
        assert_eq!(masks(Tear::Before(9), &mut rng), [0xff, 1]);
        assert_eq!(masks(Tear::From(9), &mut rng), [0, 0xfe]);
        assert_eq!(masks(Tear::Except(0), &mut rng), [0xfe, 0xff]);
        assert_eq!(masks(Tear::Except(15), &mut rng), [0xff, 0x7f]);
    }

    #[test]
    fn a_sync_covers_what_completed_before_it_and_no_more() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let mut segment = segment();
            segment.land(write(1, 0, 2, 1), 1);
            segment.land(write(2, 1, 1, 2), 2);
            segment.sync(1);
            assert_eq!((first_byte(&segment, 0), first_byte(&segment, 1)), (1, 2));
            segment.lose_power(&mut rng, |_, _| {});
            assert_eq!(first_byte(&segment, 0), 1);
            assert!(
                segment
                    .visible(1)
                    .bytes()
                    .iter()
                    .all(|byte| [1, 2].contains(byte))
            );
        }
    }

    #[test]
    fn whatever_a_power_loss_leaves_is_whole_sectors_of_old_or_new() {
        let (mut kept, mut lost, mut torn) = (0, 0, 0);
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let mut segment = segment();
            segment.land(write(1, 0, 3, 1), 1);
            segment.begin_write(write(2, 4, 1, 2));
            segment.lose_power(&mut rng, |_, tear| match tear {
                Tear::Everything => kept += 1,
                Tear::Nothing => lost += 1,
                _ => torn += 1,
            });
            for page in 0..6 {
                for sector in segment.visible(page).bytes().chunks(SECTOR_BYTES) {
                    assert!(sector.iter().all(|byte| *byte == sector[0]));
                    let new = if page < 3 { 1 } else { 2 };
                    assert!(sector[0] == 0xee || (sector[0] == new && ![3, 5].contains(&page)));
                }
            }
        }
        assert!(kept > 50 && lost > 50 && torn > 50, "{kept} {lost} {torn}");
    }

    #[test]
    fn after_a_failed_sync_a_later_one_does_not_help() {
        let (mut gone, mut survived) = (0, 0);
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let mut segment = segment();
            segment.land(write(1, 0, 1, 1), 1);
            segment.fail_sync(1, &mut rng);
            segment.sync(2);
            segment.lose_power(&mut rng, |_, _| {});
            match segment.visible(0).bytes().iter().all(|byte| *byte == 1) {
                true => survived += 1,
                false => gone += 1,
            }
        }
        assert!(gone > 50 && survived > 50, "{gone} {survived}");
    }

    #[test]
    fn a_page_written_and_synced_after_a_failed_sync_is_safe() {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let mut segment = segment();
            segment.land(write(1, 0, 1, 1), 1);
            segment.fail_sync(1, &mut rng);
            segment.land(write(2, 0, 1, 2), 2);
            segment.sync(2);
            segment.lose_power(&mut rng, |_, _| {});
            assert!(segment.visible(0).bytes().iter().all(|byte| *byte == 2));
        }
    }

    #[test]
    fn a_killed_process_loses_nothing_that_completed_until_the_power_goes_too() {
        let mut lost = 0;
        for seed in 0..100 {
            let mut rng = Rng::new(seed);
            let mut segment = segment();
            segment.land(write(1, 0, 1, 1), 1);
            segment.begin_write(write(2, 1, 1, 2));
            segment.lose_process(1, &mut rng);
            assert_eq!(first_byte(&segment, 0), 1);
            segment.lose_power(&mut rng, |_, _| {});
            lost += u32::from(first_byte(&segment, 0) == 0xee);
        }
        assert!(lost > 10, "{lost}");
    }

    #[test]
    fn a_clone_is_apart() {
        let mut first = segment();
        first.land(write(1, 0, 1, 1), 1);
        first.sync(1);
        let second = first.clone();
        first.damage(0, |bytes| bytes[0] ^= 2);
        assert_eq!((first_byte(&first, 0), first_byte(&second, 0)), (3, 1));
    }

    #[test]
    fn a_read_beside_a_write_in_flight_may_see_any_of_its_sectors() {
        let mut rng = Rng::new(9);
        let mut segment = segment();
        segment.begin_write(write(1, 0, 1, 1));
        let (mut old, mut new) = (0, 0);
        for _ in 0..50 {
            let (blob, start) = segment.read(0, 2, &mut rng);
            let sectors = blob[start..start + PAGE].chunks(SECTOR_BYTES);
            new += sectors.filter(|sector| sector[0] == 1).count();
            old += blob[start + PAGE..start + 2 * PAGE]
                .iter()
                .filter(|byte| **byte == 0xee)
                .count();
        }
        assert!(new > 100 && new < 300);
        assert_eq!(old, 50 * PAGE);
    }
}
