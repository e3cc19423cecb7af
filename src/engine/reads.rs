//! Reads in flight on one core, so that a segment is reused only when nobody reads it.
//!
//! A lookup is under a guard from before it asks until it is known where the bytes lie; then the segments that will be
//! read are pinned, and the guard goes. Core 0 retires a segment that holds nothing live; each core answers when every
//! guard that existed at that moment is gone, and every pin of that segment. A guard taken later cannot meet the
//! segment: the index no longer leads there.
//!
//! Guards are short: a slow reader holds the segments that it reads, and no others.

use crate::io::SegmentId;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

/// The guards and pins of one core. Guards count by generation: a generation ends when a segment is retired.
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
    /// How many reads of each segment are in flight.
    pins: BTreeMap<SegmentId, usize>,
    /// Segments that only pins keep from being reported.
    pinned: BTreeSet<SegmentId>,
}

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
    generation: u64,
    over: OnRetired,
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
            generation,
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
    /// Segments whose guards are gone, and that nobody reads; those that are still read are kept for the last pin.
    fn collect(&mut self) -> Vec<SegmentId> {
        let mut over = Vec::new();
        while self.open.len() > 1 && self.open[0].guards == 0 {
            match self.open[0].retiring {
                Some(segment) if self.pins.contains_key(&segment) => drop(self.pinned.insert(segment)),
                Some(segment) => over.push(segment),
                None => {}
            }
            self.open.pop_front();
            self.first += 1;
        }
        over
    }

    /// Takes one pin off; gives whether the segment waited for that.
    fn unpin(&mut self, segment: SegmentId) -> bool {
        let pins = self.pins.get_mut(&segment).expect("a pin is counted");
        *pins -= 1;
        if *pins > 0 {
            return false;
        }
        self.pins.remove(&segment);
        self.pinned.remove(&segment)
    }
}

impl ReadGuard {
    /// Keeps these segments in place, and lets the others go.
    pub fn pin(self, segments: impl Iterator<Item = SegmentId>) -> Pins {
        let segments: Box<[SegmentId]> = segments.collect();
        let mut state = self.reads.state.borrow_mut();
        for &segment in &segments {
            *state.pins.entry(segment).or_default() += 1;
        }
        drop(state);
        Pins {
            reads: self.reads.clone(),
            segments,
            over: self.over.clone(),
        }
    }
}

impl Drop for ReadGuard {
    fn drop(&mut self) {
        let over = {
            let mut state = self.reads.state.borrow_mut();
            let at = (self.generation - state.first) as usize;
            state.open[at].guards -= 1;
            if at == 0 { state.collect() } else { Vec::new() }
        };
        for segment in over {
            (self.over)(segment);
        }
    }
}

/// Holds segments in place that are read.
pub struct Pins {
    reads: Rc<Reads>,
    segments: Box<[SegmentId]>,
    over: OnRetired,
}

impl Drop for Pins {
    fn drop(&mut self) {
        for &segment in &self.segments {
            let is_over = self.reads.state.borrow_mut().unpin(segment);
            if is_over {
                (self.over)(segment);
            }
        }
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
    fn a_read_holds_its_segments_and_no_others() {
        let reads = Rc::new(Reads::default());
        let told = Rc::new(RefCell::new(Vec::new()));
        let over: OnRetired = {
            let told = told.clone();
            Rc::new(move |segment| told.borrow_mut().push(segment))
        };
        let twice = [SegmentId(1), SegmentId(2), SegmentId(1)];
        let pins = reads.guard(&over).pin(twice.into_iter());
        let late = reads.guard(&over).pin([SegmentId(2)].into_iter());
        assert_eq!(reads.retire(SegmentId(3)), [SegmentId(3)]);
        assert_eq!(reads.retire(SegmentId(1)), []);
        assert_eq!(reads.retire(SegmentId(2)), []);
        drop(pins);
        assert_eq!(*told.borrow(), [SegmentId(1)]);
        drop(late);
        assert_eq!(*told.borrow(), [SegmentId(1), SegmentId(2)]);
        // In their next lives they are as others.
        assert_eq!(reads.retire(SegmentId(1)), [SegmentId(1)]);
    }
}
