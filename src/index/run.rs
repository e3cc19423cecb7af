//! A run: sorted items in immutable pages, each key once, and the search for one of them.
//!
//! A run is a B-tree whose pages are read one by one, whenever they are needed; its owner remembers a [`Run`] and
//! nothing else. What a search needs and has not at hand it says ([`Need`]), and is then called again: no I/O here.
//!
//! Invariant: a page is followed only to pages of the level below, so every search ends. A page that is not of
//! the level that its place wants counts as not at hand: who needs the same page again right after reading and
//! verifying it, and giving it to the search, has found damage.

use std::fmt;
use std::rc::Rc;

use super::filter;
use super::page::{Page, PageAddress};

/// What the owner of a run remembers of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// In every page of the run, and in no page of another.
    pub tag: u64,
    pub root: PageAddress,
    /// Items, tombstones included.
    pub entries: u64,
    /// Items that say that their key was deleted.
    pub tombstones: u64,
    /// Of all pages, on disk.
    pub bytes: u64,
}

/// One item of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item<'a> {
    pub key: &'a [u8],
    pub sequence: u64,
    /// `None`: the key was deleted, which hides it in older runs.
    pub value: Option<&'a [u8]>,
}

/// Where pages are looked for: a cache, or pages that the caller holds.
pub trait Pages {
    /// The page at `address` of `run`, verified with the run's tag. `None`: it must be read first.
    fn page(&self, run: &Run, address: PageAddress) -> Option<Rc<Page>>;
}

/// This page must be read, and verified with the run's tag; then the step is taken again.
///
/// A search begins at the root each time, so hold what was read for a step until it succeeds: a cache that
/// forgot the one page while the next was read would never let it end. Cursors hold such pages themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Need(pub Run, pub PageAddress);

/// An item that was found, in a page that the hit keeps.
pub struct Hit {
    page: Rc<Page>,
    at: usize,
}

impl Hit {
    /// The item's sequence.
    pub fn sequence(&self) -> u64 {
        self.page.sequence(self.at)
    }

    /// The item's value; `None` if the key was deleted.
    pub fn value(&self) -> Option<&[u8]> {
        self.page.value(self.at)
    }
}

impl fmt::Debug for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hit(sequence {}, {:?})", self.sequence(), self.value())
    }
}

/// Looks for `key` in one run. Of a key that is not there, it needs no leaf in about 99 of 100 cases.
///
/// # Errors
/// The page that it cannot go on without.
pub fn find(run: &Run, key: &[u8], pages: &impl Pages) -> Result<Option<Hit>, Need> {
    let mut page = pages.page(run, run.root).ok_or(Need(*run, run.root))?;
    loop {
        let Some(child) = page.child(page.child_for(key)) else {
            return Ok(page.search(key).ok().map(|at| Hit { page, at }));
        };
        if child.level == 0 && !filter::may_hold(child.filter, filter::hash(key)) {
            return Ok(None);
        }
        let below = pages
            .page(run, child.address)
            .filter(|page| page.level() == child.level || page.is_lost());
        page = below.ok_or(Need(*run, child.address))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::testing::{Chance, Disk};

    #[test]
    fn every_item_is_found_and_nothing_else() {
        for seed in 0..40 {
            let mut chance = Chance(seed);
            let items = chance.below(3000);
            let model = chance.model(1 + items, seed as usize);
            let mut disk = Disk::default();
            let run = disk.build(&model, seed, &mut chance).unwrap();
            assert_eq!(run.entries, model.len() as u64, "seed {seed}");
            let tombstones = model.values().filter(|(_, value)| value.is_none()).count();
            assert_eq!(run.tombstones, tombstones as u64, "seed {seed}");
            let lengths = disk.written.keys().map(|address| u64::from(address.length));
            assert_eq!(run.bytes, lengths.sum::<u64>(), "seed {seed}");
            for (key, (sequence, value)) in &model {
                let hit = disk.with(|pages| find(&run, key, pages)).expect("it was pushed");
                assert_eq!((hit.sequence(), hit.value()), (*sequence, value.as_deref()));
                if chance.below(50) == 0 {
                    disk.forget();
                }
            }
            for _ in 0..2000 {
                let key = chance.key(seed as usize);
                let hit = disk.with(|pages| find(&run, &key, pages));
                assert_eq!(
                    hit.is_some(),
                    model.contains_key(&key),
                    "seed {seed}, key {key:?}"
                );
            }
        }
    }

    #[test]
    fn an_absent_key_is_denied_without_its_leaf() {
        let name = |number: u64| format!("photos/2026/{number:08}.jpg").into_bytes();
        let model = (0..20_000)
            .map(|number| (name(2 * number), (number, Some(vec![7; 120]))))
            .collect();
        let mut disk = Disk::default();
        let run = disk.build(&model, 1, &mut Chance(1)).unwrap();
        let levels_above_leaves = disk.with(|pages| {
            let root = pages.page(&run, run.root).ok_or(Need(run, run.root))?;
            Ok(usize::from(root.level()))
        });
        assert!(levels_above_leaves >= 2);
        disk.reads.set(0);
        for number in 0..20_000 {
            disk.forget();
            assert!(
                disk.with(|pages| find(&run, &name(2 * number + 1), pages))
                    .is_none()
            );
        }
        let leaves = disk.reads.get() - 20_000 * levels_above_leaves;
        assert!(leaves < 300, "{leaves} leaves read for 20,000 absent keys");
    }

    #[test]
    fn a_page_of_the_wrong_level_is_not_followed() {
        let mut chance = Chance(3);
        let model = chance.model(300, 0);
        let mut disk = Disk::default();
        let run = disk.build(&model, 1, &mut chance).unwrap();
        // The root, in the place of each of its children.
        struct AlwaysRoot(Rc<Page>);
        impl Pages for AlwaysRoot {
            fn page(&self, _: &Run, _: PageAddress) -> Option<Rc<Page>> {
                Some(self.0.clone())
            }
        }
        let root = Page::verify(&disk.written[&run.root], run.root, run.tag).unwrap();
        let key = model.keys().next().unwrap();
        let need = find(&run, key, &AlwaysRoot(Rc::new(root))).unwrap_err();
        assert_ne!(need.1, run.root);
    }
}
