//! What the tests of runs share: a disk of pages that forgets, items made by chance, and the run built of them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Item, Need, Page, PageAddress, Pages, Run, RunBuilder};

/// Sequence and value by key: what a run should hold.
pub type Model = BTreeMap<Vec<u8>, Content>;
pub type Content = (u64, Option<Vec<u8>>);

/// What a cursor shows on that entry of a model.
pub fn as_item<'a>((key, (sequence, value)): (&'a Vec<u8>, &'a Content)) -> Item<'a> {
    Item {
        key,
        sequence: *sequence,
        value: value.as_deref(),
    }
}

/// SplitMix64.
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Keys of one run look alike: numbers in a path, a few letters, or anything up to the longest.
    pub fn key(&mut self, style: usize) -> Vec<u8> {
        match style % 4 {
            0 => format!("bucket/photos/{:03}/{:06}.jpg", self.below(5), self.below(3000)).into_bytes(),
            1 => (0..self.below(7)).map(|_| b'a' + self.below(3) as u8).collect(),
            2 => (0..self.below(40)).map(|_| self.next() as u8).collect(),
            _ => {
                let mut key = vec![0xff; self.below(super::RUN_KEY_BYTES_MAX - 2)];
                key.extend((0..self.below(3)).map(|_| self.next() as u8));
                key
            }
        }
    }

    pub fn value(&mut self) -> Option<Vec<u8>> {
        let length = match self.below(100) {
            0 => 4000 + self.below(40_000),
            1..10 => self.below(4200),
            10..20 => return None,
            _ => self.below(200),
        };
        Some(vec![self.next() as u8; length])
    }

    pub fn model(&mut self, items: usize, style: usize) -> Model {
        (0..items)
            .map(|_| (self.key(style), (self.next(), self.value())))
            .collect()
    }
}

/// Pages as they were written, and those that somebody remembers.
#[derive(Default)]
pub struct Disk {
    pub written: BTreeMap<PageAddress, Vec<u8>>,
    remembered: RefCell<BTreeMap<PageAddress, Rc<Page>>>,
    pub reads: Cell<usize>,
}

impl Pages for Disk {
    fn page(&self, _: &Run, address: PageAddress) -> Option<Rc<Page>> {
        self.remembered.borrow().get(&address).cloned()
    }
}

impl Disk {
    pub fn read(&self, Need(run, address): Need) {
        let page = Page::verify(&self.written[&address], address, run.tag).unwrap();
        self.remembered.borrow_mut().insert(address, Rc::new(page));
        self.reads.set(self.reads.get() + 1);
    }

    pub fn forget(&self) {
        self.remembered.borrow_mut().clear();
    }

    /// Takes a step that reads what it needs and remembers it until it succeeds.
    pub fn with<T>(&self, mut step: impl FnMut(&Disk) -> Result<T, Need>) -> T {
        loop {
            match step(self) {
                Ok(done) => return done,
                Err(need) => self.read(need),
            }
        }
    }

    /// Takes a step that is never given more than the page that it just asked for.
    pub fn with_one_page<T>(&self, mut step: impl FnMut(&Disk) -> Result<T, Need>) -> T {
        self.forget();
        for _ in 0..1000 {
            match step(self) {
                Ok(done) => return done,
                Err(need) => {
                    self.forget();
                    self.read(need);
                }
            }
        }
        panic!("a step that does not end");
    }

    /// Builds the run of `model` in stretches and pieces of output that are as chance will have them.
    pub fn build(&mut self, model: &Model, tag: u64, chance: &mut Chance) -> Option<Run> {
        let mut builder = RunBuilder::new(tag);
        let mut segment = (tag as u32).wrapping_mul(1000);
        for (key, (sequence, value)) in model {
            builder.push(key, *sequence, value.as_deref());
            if chance.below(20) == 0 {
                self.serve(&mut builder, &mut segment, chance);
            }
        }
        builder.finish();
        while builder.wants_room().is_some() || builder.output_bytes() > 0 {
            assert_eq!(builder.finished(), None);
            self.serve(&mut builder, &mut segment, chance);
        }
        builder.finished()
    }

    fn serve(&mut self, builder: &mut RunBuilder, segment: &mut u32, chance: &mut Chance) {
        if let Some(length) = builder.wants_room() {
            let more = chance.below(20) as u32 * 4096;
            *segment += 1;
            builder.give_room(PageAddress {
                segment: *segment,
                offset: 4096 * chance.below(9) as u32,
                length: length + more,
            });
        }
        while chance.below(4) > 0
            && let Some((address, bytes)) = builder.take_output(4096 * chance.below(12))
        {
            assert_eq!(bytes.len(), address.length as usize);
            self.write(address, bytes);
        }
    }

    /// Cuts what was taken into pages, as their headers say.
    pub fn write(&mut self, address: PageAddress, bytes: Vec<u8>) {
        let mut at = 0;
        while at < bytes.len() {
            let length = u32::from_le_bytes(bytes[at + 28..at + 32].try_into().unwrap());
            let page = PageAddress {
                offset: address.offset + at as u32,
                length,
                ..address
            };
            let end = at + length as usize;
            assert!(self.written.insert(page, bytes[at..end].to_vec()).is_none());
            at = end;
        }
        assert_eq!(at, bytes.len(), "an output ends with a page");
    }
}
