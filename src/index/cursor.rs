//! Walks one run in order.
//!
//! Invariant: a cursor that stands on an item holds the pages from the root to it, so it never depends on what a
//! cache keeps. A move that fails has not moved it, and what the move had found is kept for the next try, so that a
//! move ends after as many reads as it needs pages, even if nothing else remembers them.

use std::rc::Rc;

use super::page::{Page, PageAddress};
use super::run::{Item, Need, Pages, Run};

/// A place in one run.
pub struct RunCursor {
    run: Run,
    /// From the root to the leaf; empty: behind the end, or nowhere yet.
    path: Vec<Step>,
    /// The path that a move makes; empty between moves.
    next: Vec<Step>,
    /// Pages of the move that failed last, those that this move has used in front.
    kept: Vec<Rc<Page>>,
    used: usize,
    /// The key of the item.
    key: Vec<u8>,
}

#[derive(Clone)]
struct Step {
    page: Rc<Page>,
    /// Child, or item of a leaf.
    at: usize,
}

impl RunCursor {
    /// Nowhere yet: seek first.
    pub fn new(run: Run) -> RunCursor {
        RunCursor {
            run,
            path: Vec::new(),
            next: Vec::new(),
            kept: Vec::new(),
            used: 0,
            key: Vec::new(),
        }
    }

    /// Moves to the first item with a key of `key` or greater; behind the end if there is none.
    ///
    /// # Errors
    /// The page that must be read first. The cursor stands where it stood.
    pub fn seek(&mut self, key: &[u8], pages: &impl Pages) -> Result<(), Need> {
        self.begin();
        let mut page = self.root(pages)?;
        while page.level() > 0 {
            let at = page.child_for(key);
            page = self.descend(page, at, pages)?;
        }
        let at = page.search(key).unwrap_or_else(|behind| behind);
        let is_behind_leaf = at == page.count();
        self.next.push(Step { page, at });
        if is_behind_leaf {
            self.enter_leaf_behind(pages)?;
        }
        self.arrive();
        Ok(())
    }

    /// The item that it stands on. `None`: behind the end, or never moved.
    pub fn item(&self) -> Option<Item<'_>> {
        let Step { page, at } = self.path.last()?;
        Some(Item {
            key: &self.key,
            sequence: page.sequence(*at),
            value: page.value(*at),
        })
    }

    /// The key of [`RunCursor::item`].
    pub fn key(&self) -> Option<&[u8]> {
        (!self.path.is_empty()).then_some(&*self.key)
    }

    /// Moves to the next item; behind the end it stays there.
    ///
    /// # Errors
    /// The page that must be read first. The cursor stands where it stood.
    pub fn advance(&mut self, pages: &impl Pages) -> Result<(), Need> {
        let Some(Step { page, at }) = self.path.last_mut() else {
            return Ok(());
        };
        if *at + 1 < page.count() {
            *at += 1;
            self.key.truncate(page.prefix().len());
            self.key.extend_from_slice(page.suffix(*at));
            return Ok(());
        }
        self.begin();
        self.next.extend_from_slice(&self.path);
        self.enter_leaf_behind(pages)?;
        self.arrive();
        Ok(())
    }

    fn begin(&mut self) {
        self.next.clear();
        self.used = 0;
    }

    /// Makes `next` the path.
    fn arrive(&mut self) {
        std::mem::swap(&mut self.path, &mut self.next);
        self.next.clear();
        self.kept.clear();
        self.key.clear();
        if let Some(Step { page, at }) = self.path.last() {
            self.key.extend_from_slice(page.prefix());
            self.key.extend_from_slice(page.suffix(*at));
        }
    }

    /// Leaves the leaf at the end of `next` for the first item of the one behind it. `next` is empty if there is none.
    fn enter_leaf_behind(&mut self, pages: &impl Pages) -> Result<(), Need> {
        while let Some(Step { page, at }) = self.next.pop() {
            if at + 1 >= page.count() {
                continue;
            }
            let mut page = self.descend(page, at + 1, pages)?;
            while page.level() > 0 {
                page = self.descend(page, 0, pages)?;
            }
            if page.is_lost() {
                continue;
            }
            self.next.push(Step { page, at: 0 });
            return Ok(());
        }
        Ok(())
    }

    /// Takes the step to a child of `page`, which is an inner page: returns the child's page.
    fn descend(&mut self, page: Rc<Page>, at: usize, pages: &impl Pages) -> Result<Rc<Page>, Need> {
        let child = page.child(at).expect("an inner page");
        let below = self
            .page(child.address, pages)
            .filter(|p| p.level() == child.level || p.is_lost());
        let below = below.ok_or(child.address);
        self.next.push(Step { page, at });
        below.or_else(|address| self.fail(address))
    }

    fn root(&mut self, pages: &impl Pages) -> Result<Rc<Page>, Need> {
        match self.page(self.run.root, pages) {
            Some(page) => Ok(page),
            None => self.fail(self.run.root),
        }
    }

    fn fail<T>(&mut self, address: PageAddress) -> Result<T, Need> {
        self.kept.truncate(self.used);
        self.next.clear();
        Err(Need(self.run, address))
    }

    /// The page, if it is at hand: of this move's last try, of the path, or in `pages`.
    fn page(&mut self, address: PageAddress, pages: &impl Pages) -> Option<Rc<Page>> {
        let is_it = |page: &Rc<Page>| page.address() == address;
        if let Some(at) = self.kept[self.used..].iter().position(is_it) {
            self.kept.swap(self.used, self.used + at);
        } else {
            let held = self.path.iter().map(|step| &step.page).find(|page| is_it(page));
            let page = held.cloned().or_else(|| pages.page(&self.run, address))?;
            self.kept.insert(self.used, page);
        }
        self.used += 1;
        Some(self.kept[self.used - 1].clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::testing::{Chance, Disk, Model, as_item};

    fn run_of(seed: u64, disk: &mut Disk) -> (Run, Model, Chance) {
        let mut chance = Chance(seed);
        let items = 1 + chance.below(2000);
        let model = chance.model(items, seed as usize);
        let run = disk.build(&model, seed, &mut chance).unwrap();
        (run, model, chance)
    }

    #[test]
    fn a_walk_shows_all_items_in_order() {
        for seed in 0..40 {
            let mut disk = Disk::default();
            let (run, model, _) = run_of(seed, &mut disk);
            let mut cursor = RunCursor::new(run);
            assert_eq!(cursor.item(), None);
            disk.with_one_page(|pages| cursor.seek(b"", pages));
            for expected in model.iter().map(as_item) {
                assert_eq!(cursor.item(), Some(expected), "seed {seed}");
                disk.with_one_page(|pages| cursor.advance(pages));
            }
            for _ in 0..2 {
                assert_eq!(cursor.item(), None, "seed {seed}");
                disk.with_one_page(|pages| cursor.advance(pages));
            }
            assert_eq!(disk.reads.get(), disk.written.len(), "each page is read once");
        }
    }

    #[test]
    fn a_seek_stands_where_a_map_would() {
        for seed in 0..40 {
            let mut disk = Disk::default();
            let (run, model, mut chance) = run_of(seed, &mut disk);
            let mut cursor = RunCursor::new(run);
            for _ in 0..500 {
                let key = chance.key(seed as usize);
                disk.with_one_page(|pages| cursor.seek(&key, pages));
                let mut expected = model.range(key..).map(as_item);
                for _ in 0..chance.below(3) {
                    assert_eq!(cursor.item(), expected.next(), "seed {seed}");
                    disk.with_one_page(|pages| cursor.advance(pages));
                }
                assert_eq!(cursor.item(), expected.next(), "seed {seed}");
            }
        }
    }

    #[test]
    fn a_move_that_fails_moves_nothing() {
        let mut disk = Disk::default();
        let (run, model, mut chance) = run_of(4, &mut disk);
        let mut cursor = RunCursor::new(run);
        disk.with_one_page(|pages| cursor.seek(b"", pages));
        disk.forget();
        let mut failures = 0;
        for expected in model.iter().map(as_item) {
            let elsewhere = chance.key(4);
            if cursor.seek(&elsewhere, &disk).is_err() {
                failures += 1;
            } else {
                disk.with(|pages| cursor.seek(expected.key, pages));
                disk.forget();
            }
            assert_eq!(cursor.item(), Some(expected));
            if cursor.advance(&disk).is_err() {
                assert_eq!(cursor.item(), Some(expected));
                disk.with(|pages| cursor.advance(pages));
                disk.forget();
            }
        }
        assert_eq!(cursor.item(), None);
        assert!(failures > model.len() / 2, "{failures} seeks failed");
    }
}
