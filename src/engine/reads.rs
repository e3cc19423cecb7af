//! Reads in flight on one core, so that a segment is reused only when nobody reads it.
//!
//! A read is under a guard from before its lookup until its last byte was read. Core 0 retires a segment that
//! holds nothing live; each core answers when every guard that existed at that moment is gone. A guard taken
//! later cannot meet the segment: the index no longer leads there. Once a lookup has said where the bytes lie, its guard
//! holds those segments alone: however slow a reader is, and whatever he waits for, all others come free.

use crate::io::SegmentId;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

/// The guards of one core, by generation: a generation ends when a segment is retired.
#[derive(Default)]
pub struct Reads {
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// The generation at the front of `open`.
    first: u64,
    /// Guards open in each generation, oldest first; the last one is current.
    open: VecDeque<Generation>,
    /// Segments that guards hold by name, and how many do.
    held: BTreeMap<SegmentId, usize>,
    /// Those of them that are being retired, and wait for nothing else.
    awaited: BTreeSet<SegmentId>,
}

/// More segments are not held by name, but with all others.
const NAMED_MAX: usize = 64;

#[derive(Default)]
struct Generation {
    guards: usize,
    /// What to report when this generation and all before it are over.
    retiring: Option<SegmentId>,
}

/// Is told of a segment that no read of this core holds any more.
pub type OnRetired = Rc<dyn Fn(SegmentId)>;

/// Holds every segment in place that a lookup under it may lead to.
pub struct ReadGuard {
    reads: Rc<Reads>,
    hold: Hold,
    over: OnRetired,
}

enum Hold {
    /// All that a lookup may have met in that generation.
    Generation(u64),
    /// These, each once.
    Segments(BTreeSet<SegmentId>),
}

impl Reads {
    /// Starts a read. `over` is told of each segment whose retirement waited for this guard.
    pub fn guard(self: &Rc<Self>, over: &OnRetired) -> ReadGuard {
        let mut state = self.state.borrow_mut();
        if state.open.is_empty() {
            state.open.push_back(Generation::default());
        }
        let generation = state.first + state.open.len() as u64 - 1;
        state.open.back_mut().expect("one generation is open").guards += 1;
        ReadGuard {
            reads: self.clone(),
            hold: Hold::Generation(generation),
            over: over.clone(),
        }
    }

    /// Ends the current generation; returns the segments that no read holds any more.
    pub fn retire(&self, segment: SegmentId) -> Vec<SegmentId> {
        let mut state = self.state.borrow_mut();
        if state.open.is_empty() {
            state.open.push_back(Generation::default());
        }
        state.open.back_mut().expect("one generation is open").retiring = Some(segment);
        state.open.push_back(Generation::default());
        state.collect()
    }
}

impl State {
    fn collect(&mut self) -> Vec<SegmentId> {
        let mut over = Vec::new();
        while self.open.len() > 1 && self.open[0].guards == 0 {
            match self.open[0].retiring {
                Some(segment) if self.held.contains_key(&segment) => drop(self.awaited.insert(segment)),
                retired => over.extend(retired),
            }
            self.open.pop_front();
            self.first += 1;
        }
        over
    }

    /// A guard is gone, or holds something else; gives the segments that waited for it alone.
    fn leave(&mut self, hold: Hold) -> Vec<SegmentId> {
        match hold {
            Hold::Generation(generation) => {
                let at = (generation - self.first) as usize;
                self.open[at].guards -= 1;
                if at == 0 { self.collect() } else { Vec::new() }
            }
            Hold::Segments(segments) => {
                let mut over = Vec::new();
                for segment in segments {
                    let guards = self.held.get_mut(&segment).expect("counted when it was named");
                    *guards -= 1;
                    if *guards == 0 {
                        self.held.remove(&segment);
                        over.extend(self.awaited.take(&segment));
                    }
                }
                over
            }
        }
    }
}

impl ReadGuard {
    /// The lookup is over, and led to these segments: from here on only they are held.
    pub fn narrow(&mut self, segments: impl Iterator<Item = SegmentId>) {
        let mut named = BTreeSet::new();
        for segment in segments {
            named.insert(segment);
            if named.len() > NAMED_MAX {
                return;
            }
        }
        let over = {
            let mut state = self.reads.state.borrow_mut();
            for &segment in &named {
                *state.held.entry(segment).or_default() += 1;
            }
            // Named first: what leaves its generation here may be one of them.
            let hold = std::mem::replace(&mut self.hold, Hold::Segments(named));
            state.leave(hold)
        };
        self.tell(over);
    }

    fn tell(&self, over: Vec<SegmentId>) {
        for segment in over {
            (self.over)(segment);
        }
    }
}

impl Drop for ReadGuard {
    fn drop(&mut self) {
        let hold = std::mem::replace(&mut self.hold, Hold::Segments(BTreeSet::new()));
        let over = self.reads.state.borrow_mut().leave(hold);
        self.tell(over);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_over_when_earlier_guards_are_gone() {
        let reads = Rc::new(Reads::default());
        let told = Rc::new(RefCell::new(Vec::new()));
        let over: OnRetired = {
            let told = told.clone();
            Rc::new(move |segment| told.borrow_mut().push(segment))
        };
        assert_eq!(reads.retire(SegmentId(1)), [SegmentId(1)]);
        let early = reads.guard(&over);
        assert_eq!(reads.retire(SegmentId(2)), []);
        let late = reads.guard(&over);
        assert_eq!(reads.retire(SegmentId(3)), []);
        drop(late);
        assert_eq!(*told.borrow(), []);
        drop(early);
        assert_eq!(*told.borrow(), [SegmentId(2), SegmentId(3)]);
        assert_eq!(reads.retire(SegmentId(4)), [SegmentId(4)]);
    }

    #[test]
    fn a_guard_that_knows_what_it_reads_holds_nothing_else() {
        let reads = Rc::new(Reads::default());
        let told = Rc::new(RefCell::new(Vec::new()));
        let over: OnRetired = {
            let told = told.clone();
            Rc::new(move |segment| told.borrow_mut().push(segment))
        };
        let ids = |ids: &[u32]| ids.iter().copied().map(SegmentId).collect::<Vec<_>>();
        let mut first = reads.guard(&over);
        let mut second = reads.guard(&over);
        assert_eq!(reads.retire(SegmentId(1)), []);
        assert_eq!(reads.retire(SegmentId(2)), []);
        first.narrow(ids(&[1, 3, 3]).into_iter());
        assert_eq!(*told.borrow(), []);
        // Both generations are over; the first segment is still held by name.
        second.narrow(ids(&[3]).into_iter());
        assert_eq!(*told.borrow(), ids(&[2]));
        assert_eq!(reads.retire(SegmentId(3)), []);
        assert_eq!(reads.retire(SegmentId(4)), ids(&[4]));
        drop(first);
        assert_eq!(*told.borrow(), ids(&[2, 1]));
        drop(second);
        assert_eq!(*told.borrow(), ids(&[2, 1, 3]));
        let mut many = reads.guard(&over);
        many.narrow((100..200).map(SegmentId));
        assert_eq!(reads.retire(SegmentId(5)), []);
        drop(many);
        assert_eq!(told.borrow().last(), Some(&SegmentId(5)));
    }
}
