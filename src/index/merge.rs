//! Walks several runs as one.
//!
//! Invariant: of a key that several runs have, the newest run's item is shown, whatever it says, and the others are
//! passed with it. Each cursor stands on its first item that is not in front of the shown one.

use super::cursor::RunCursor;
use super::run::{Item, Need, Pages, Run};

/// A place in several runs, newest first. Tombstones are shown.
pub struct MergeCursor {
    /// Newest first.
    cursors: Vec<RunCursor>,
    /// The cursors that stand on an item, by its key, the newer first of equal keys.
    order: Vec<usize>,
    /// Where the seek goes that failed last.
    target: Option<Target>,
    /// What it needs besides the page that it said, for other runs.
    also: Vec<Need>,
}

struct Target {
    key: Vec<u8>,
    /// Which cursors are there.
    arrived: Vec<bool>,
    /// Whether what stands behind the key may stay there, since nothing of its run lies between.
    is_forward: bool,
}

impl MergeCursor {
    /// Nowhere yet: seek first. The runs are given newest first.
    pub fn new(runs: &[Run]) -> MergeCursor {
        MergeCursor {
            cursors: runs.iter().copied().map(RunCursor::new).collect(),
            order: Vec::with_capacity(runs.len()),
            target: None,
            also: Vec::new(),
        }
    }

    /// Pages that the seek which failed last needs as well, to be read at the same time.
    pub fn also_needed(&mut self) -> Vec<Need> {
        std::mem::take(&mut self.also)
    }

    /// Moves to the first item with a key of `key` or greater; behind the end if there is none. A seek forwards
    /// moves only the runs that stand in front of `key`.
    ///
    /// # Errors
    /// The page that must be read first. Until a seek has succeeded the cursor shows nothing.
    pub fn seek(&mut self, key: &[u8], pages: &impl Pages) -> Result<(), Need> {
        let is_forward = self.item().is_some_and(|item| item.key <= key);
        let mut target = match self.target.take() {
            Some(target) if target.key == key => target,
            _ => Target {
                key: key.to_vec(),
                arrived: vec![false; self.cursors.len()],
                is_forward,
            },
        };
        self.also.clear();
        let mut first = None;
        for (cursor, has_arrived) in self.cursors.iter_mut().zip(&mut target.arrived) {
            if *has_arrived {
                continue;
            }
            let stays = target.is_forward && cursor.key().is_none_or(|at| at >= key);
            match if stays { Ok(()) } else { cursor.seek(key, pages) } {
                Ok(()) => *has_arrived = true,
                Err(need) if first.is_none() => first = Some(need),
                Err(need) => self.also.push(need),
            }
        }
        if let Some(need) = first {
            self.target = Some(target);
            return Err(need);
        }
        let cursors = &self.cursors;
        self.order.clear();
        self.order
            .extend((0..cursors.len()).filter(|&number| cursors[number].key().is_some()));
        self.order.sort_by_key(|&number| (cursors[number].key(), number));
        Ok(())
    }

    /// The item that it stands on. `None`: behind the end, or no seek has succeeded.
    pub fn item(&self) -> Option<Item<'_>> {
        match self.target {
            None => self.cursors[*self.order.first()?].item(),
            Some(_) => None,
        }
    }

    /// Moves to the first item with a greater key; behind the end it stays there.
    ///
    /// # Errors
    /// The page that must be read first. The cursor shows what it showed.
    pub fn advance(&mut self, pages: &impl Pages) -> Result<(), Need> {
        if self.target.is_some() || self.order.is_empty() {
            return Ok(());
        }
        let key = |number: usize| self.cursors[number].key();
        let shown = key(self.order[0]);
        let same = self
            .order
            .iter()
            .take_while(|&&number| key(number) == shown)
            .count();
        // The one that is shown moves last: if another fails, nothing is to be seen of it.
        for place in (0..same).rev() {
            let number = self.order[place];
            self.cursors[number].advance(pages)?;
            self.reorder(place);
        }
        Ok(())
    }

    /// Puts the cursor at `place` of the order, which has advanced, where it belongs now.
    fn reorder(&mut self, place: usize) {
        let number = self.order.remove(place);
        let key = |number: usize| self.cursors[number].key();
        if let Some(at) = key(number) {
            // From the front, since one long run usually gives item after item.
            let behind = &self.order[place..];
            let passed = behind
                .iter()
                .take_while(|&&other| (key(other), other) < (Some(at), number));
            self.order.insert(place + passed.count(), number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::testing::{Chance, Disk, Model, as_item};

    /// Several runs, and what they say together.
    fn runs_of(seed: u64, disk: &mut Disk) -> (Vec<Run>, Model, Chance) {
        let mut chance = Chance(seed);
        let mut merged = Model::new();
        let mut runs = Vec::new();
        for tag in 0..chance.below(9) as u64 {
            let items = 1 + chance.below(400);
            let model = chance.model(items, seed as usize);
            runs.insert(0, disk.build(&model, 1 + tag, &mut chance).unwrap());
            merged.extend(model);
        }
        (runs, merged, chance)
    }

    #[test]
    fn the_newest_run_decides_on_each_key() {
        for seed in 0..60 {
            let mut disk = Disk::default();
            let (runs, merged, _) = runs_of(seed, &mut disk);
            let mut cursor = MergeCursor::new(&runs);
            assert_eq!(cursor.item(), None);
            disk.with_one_page(|pages| cursor.seek(b"", pages));
            for expected in merged.iter().map(as_item) {
                assert_eq!(cursor.item(), Some(expected), "seed {seed}");
                disk.with_one_page(|pages| {
                    let moved = cursor.advance(pages);
                    if moved.is_err() {
                        assert_eq!(cursor.item(), Some(expected), "seed {seed}");
                    }
                    moved
                });
            }
            assert_eq!(cursor.item(), None, "seed {seed}");
            disk.with_one_page(|pages| cursor.advance(pages));
            assert_eq!(cursor.item(), None, "seed {seed}");
            assert_eq!(disk.reads.get(), disk.written.len(), "each page is read once");
        }
    }

    #[test]
    fn seeks_stand_where_a_map_would_after_whatever_came_before() {
        for seed in 0..60 {
            let mut disk = Disk::default();
            let (runs, merged, mut chance) = runs_of(seed, &mut disk);
            let mut cursor = MergeCursor::new(&runs);
            for _ in 0..300 {
                let key = chance.key(seed as usize);
                if chance.below(3) == 0 {
                    // Given up half-way.
                    let elsewhere = chance.key(seed as usize);
                    disk.forget();
                    for _ in 0..chance.below(8) {
                        if let Err(need) = cursor.seek(&elsewhere, &disk) {
                            assert_eq!(cursor.item(), None);
                            cursor.advance(&disk).unwrap();
                            disk.read(need);
                        }
                    }
                }
                disk.with_one_page(|pages| cursor.seek(&key, pages));
                let mut expected = merged.range(key..).map(as_item);
                for _ in 0..chance.below(4) {
                    assert_eq!(cursor.item(), expected.next(), "seed {seed}");
                    disk.forget();
                    if chance.below(2) == 0 && cursor.advance(&disk).is_ok() {
                        continue;
                    }
                    // An advance that is given up half-way, for a seek to where it was.
                    if let Some(key) = cursor.item().map(|item| item.key.to_vec()) {
                        disk.with_one_page(|pages| cursor.seek(&key, pages));
                    }
                    disk.with_one_page(|pages| cursor.advance(pages));
                }
                assert_eq!(cursor.item(), expected.next(), "seed {seed}");
            }
        }
    }

    #[test]
    fn a_seek_takes_as_many_rounds_as_the_run_that_needs_most_pages() {
        for seed in 0..60 {
            let mut disk = Disk::default();
            let (runs, merged, mut chance) = runs_of(seed, &mut disk);
            let key = chance.key(seed as usize);
            let alone = runs.iter().map(|&run| {
                disk.forget();
                let before = disk.reads.get();
                disk.with(|pages| RunCursor::new(run).seek(&key, pages));
                disk.reads.get() - before
            });
            let most = alone.max().unwrap_or(0);
            disk.forget();
            let mut cursor = MergeCursor::new(&runs);
            let mut rounds = 0;
            while let Err(need) = cursor.seek(&key, &disk) {
                disk.read(need);
                cursor.also_needed().into_iter().for_each(|need| disk.read(need));
                rounds += 1;
            }
            assert_eq!(rounds, most, "seed {seed}");
            assert_eq!(
                cursor.item(),
                merged.range(key..).map(as_item).next(),
                "seed {seed}"
            );
        }
    }
}
