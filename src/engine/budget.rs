//! Memory of a core for bodies on their way in and out: who has it, and who waits for some.
//!
//! Bodies in both directions and pages of listings come out of one budget a core, first come, first served; what copies
//! read, out of another. Invariant: what is held is counted until it is dropped, and nobody waits for a budget of which
//! he holds some but for writes in flight: so those who hold some go on, and give it back.
//!
//! Documents (XML bodies) are gathered whole, and hold more as more of them comes: what a client announces costs nothing.
//! They have two budgets. One that holds some of the first, `documents`, and needs more waits for that, and at the same
//! time for the second, `last_document`, which one at a time holds whole: it is as much as the longest document takes, so
//! its holder never waits for memory again while it gathers, and gives the budget to the next. An answer is held out of
//! the bodies' budget, after the document. So whoever waits is helped by those who hold of a budget further down the line
//! documents, last document, bodies, and those who hold of the last one go on: no circle can close.

use crate::engine::Machine;
use crate::engine::core::Core;
use crate::engine::message::Refusal;
use crate::limits::{BODY_BUFFER_TIMEOUT, COPY_READ_BYTES, XML_BODY_BYTES_MAX, XML_FIRST_BYTES};
use futures_channel::oneshot;
use futures_util::future::{Either, select};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::pin;
use std::rc::Rc;

/// Bytes of memory that bodies in flight hold on a core, and who waits for some.
pub struct BufferBudget {
    bytes_max: usize,
    used: Cell<usize>,
    waiting: RefCell<VecDeque<Waiting>>,
}

/// How much of a budget is held, how many wait for some, and for how much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryUse {
    pub held_bytes: usize,
    pub waiters: usize,
    pub wanted_bytes: usize,
}

/// One who waits; it may have given up.
struct Waiting {
    bytes: usize,
    granted: oneshot::Sender<HeldBytes>,
}

/// Memory of a core's bodies that somebody holds; dropped, it is given back.
pub struct HeldBytes {
    budget: Rc<BufferBudget>,
    bytes: usize,
}

/// Memory of a document that is gathered; dropped, it is given back.
pub struct DocumentMemory<I: Machine> {
    core: Rc<Core<I>>,
    bytes: usize,
    held: Option<HeldBytes>,
}

impl<I: Machine> DocumentMemory<I> {
    /// Of none yet.
    pub fn new(core: Rc<Core<I>>) -> DocumentMemory<I> {
        DocumentMemory {
            core,
            bytes: 0,
            held: None,
        }
    }

    /// How long the document may become.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes it twice as much, or the first of it, but no more than `bytes_max` unless nobody else has need of it.
    ///
    /// # Errors
    /// `Busy` when there is none for too long.
    pub async fn grow(&mut self, bytes_max: usize) -> Result<(), Refusal> {
        let bytes = (self.bytes * 2).max(XML_FIRST_BYTES).min(bytes_max);
        self.bytes = match &mut self.held {
            None => {
                self.held = Some(self.core.hold_bytes_of(&self.core.documents, bytes).await?);
                bytes
            }
            Some(held) => match self.core.hold_more(bytes - self.bytes).await? {
                Growth::More(more) => {
                    held.add(more);
                    bytes
                }
                Growth::Last(last) => {
                    *held = last;
                    XML_BODY_BYTES_MAX
                }
            },
        };
        Ok(())
    }
}

/// What a document gets that needs more.
enum Growth {
    More(HeldBytes),
    /// All that it may ever need, in place of what it has.
    Last(HeldBytes),
}

impl<I: Machine> Core<I> {
    async fn hold_more(&self, bytes: usize) -> Result<Growth, Refusal> {
        if let Some(more) = self.documents.try_hold(bytes) {
            return Ok(Growth::More(more));
        }
        let growth = {
            let more = pin!(self.hold_bytes_of(&self.documents, bytes));
            let last = pin!(self.hold_bytes_of(&self.last_document, XML_BODY_BYTES_MAX));
            match select(last, more).await {
                Either::Left((last, _)) => last.map(Growth::Last),
                Either::Right((more, _)) => more.map(Growth::More),
            }
        };
        // Whom this one stood before in the other line may have their turn.
        self.documents.grant();
        self.last_document.grant();
        growth
    }
}

impl HeldBytes {
    /// Makes one hold of two on the same budget.
    fn add(&mut self, mut more: HeldBytes) {
        debug_assert!(Rc::ptr_eq(&self.budget, &more.budget));
        self.bytes += std::mem::take(&mut more.bytes);
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        let budget = &self.budget;
        budget.used.set(budget.used.get() - self.bytes);
        budget.grant();
    }
}

impl<I: Machine> Core<I> {
    /// Waits for `bytes` of what this core's bodies may have.
    ///
    /// # Errors
    /// `Busy` when there are none for too long.
    pub async fn hold_bytes(&self, bytes: usize) -> Result<HeldBytes, Refusal> {
        self.hold_bytes_of(&self.buffers, bytes).await
    }

    /// As [`Core::hold_bytes`], for as long as it takes: for who has begun an answer. Slow ones give way to it.
    pub async fn hold_bytes_in_time(&self, bytes: usize) -> HeldBytes {
        loop {
            if let Ok(held) = self.hold_bytes(bytes).await {
                return held;
            }
        }
    }

    /// Waits for the memory that a copy reads into.
    ///
    /// # Errors
    /// `Busy` when there are too many copies for too long.
    pub async fn hold_for_copy(&self) -> Result<HeldBytes, Refusal> {
        self.hold_bytes_of(&self.copies, COPY_READ_BYTES).await
    }

    async fn hold_bytes_of(&self, budget: &Rc<BufferBudget>, bytes: usize) -> Result<HeldBytes, Refusal> {
        if let Some(held) = budget.try_hold(bytes) {
            return Ok(held);
        }
        let (granted, grant) = oneshot::channel();
        budget.waiting.borrow_mut().push_back(Waiting { bytes, granted });
        let timeout = pin!(self.io.sleep(BODY_BUFFER_TIMEOUT));
        if let Either::Left((Ok(held), _)) = select(grant, timeout).await {
            return Ok(held);
        }
        // Those behind may want less.
        budget.grant();
        Err(Refusal::Busy)
    }
}

impl BufferBudget {
    pub fn new(bytes_max: usize) -> Rc<BufferBudget> {
        Rc::new(BufferBudget {
            bytes_max,
            used: Cell::default(),
            waiting: RefCell::default(),
        })
    }

    /// Bytes that bodies wait for.
    pub fn wanted_bytes(&self) -> usize {
        self.usage().wanted_bytes
    }

    /// How much of it is held, and wanted.
    pub fn usage(&self) -> MemoryUse {
        let waiting = self.waiting.borrow();
        let waiting = waiting.iter().filter(|waiting| !waiting.granted.is_canceled());
        let wanted = waiting.fold((0, 0), |(count, bytes), next| (count + 1, bytes + next.bytes));
        MemoryUse {
            held_bytes: self.used.get(),
            waiters: wanted.0,
            wanted_bytes: wanted.1,
        }
    }

    /// Some memory, if nobody has to wait for it.
    pub fn try_hold(self: &Rc<Self>, bytes: usize) -> Option<HeldBytes> {
        (self.waiting.borrow().is_empty() && self.has_room_for(bytes)).then(|| self.hold(bytes))
    }

    /// Counts memory that is there in any case: those who ask afterwards wait for it.
    pub fn hold(self: &Rc<Self>, bytes: usize) -> HeldBytes {
        self.used.set(self.used.get() + bytes);
        HeldBytes {
            budget: self.clone(),
            bytes,
        }
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        self.used.get() + bytes <= self.bytes_max
    }

    /// Serves those who wait, in order, as far as there is room.
    fn grant(self: &Rc<Self>) {
        while let Some(next) = self.next_to_serve() {
            // Nobody gave up in between, so it does not come back here.
            let _ = next.granted.send(self.hold(next.bytes));
        }
    }

    fn next_to_serve(&self) -> Option<Waiting> {
        let mut waiting = self.waiting.borrow_mut();
        while waiting.front().is_some_and(|first| first.granted.is_canceled()) {
            waiting.pop_front();
        }
        waiting.pop_front_if(|first| self.has_room_for(first.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BODY_BUFFER_BYTES_MAX;

    fn wait_for(budget: &BufferBudget, bytes: usize) -> oneshot::Receiver<HeldBytes> {
        let (granted, grant) = oneshot::channel();
        let waiting = Waiting { bytes, granted };
        budget.waiting.borrow_mut().push_back(waiting);
        grant
    }

    fn granted(grant: &mut oneshot::Receiver<HeldBytes>) -> Option<HeldBytes> {
        grant.try_recv().expect("the budget lives")
    }

    #[test]
    fn memory_goes_to_the_first_that_waits_and_past_those_that_gave_up() {
        let budget = BufferBudget::new(BODY_BUFFER_BYTES_MAX);
        let (most, some) = (budget.hold(BODY_BUFFER_BYTES_MAX - 100), budget.hold(100));
        assert!(!budget.has_room_for(1));
        let mut large = wait_for(&budget, 1000);
        let mut small = wait_for(&budget, 60);
        let mut last = wait_for(&budget, 60);
        assert_eq!(budget.wanted_bytes(), 1120);
        drop(some);
        // It would be enough for the second, but the first would never get its turn.
        assert!(granted(&mut large).is_none() && granted(&mut small).is_none());
        drop(large);
        assert_eq!(budget.wanted_bytes(), 120);
        budget.grant();
        assert!(granted(&mut small).is_some_and(|held| held.bytes == 60));
        // That one was dropped at once, and so the next had its turn.
        let held = granted(&mut last);
        assert!(held.is_some() && budget.wanted_bytes() == 0);
        drop((most, held));
        assert_eq!(budget.used.get(), 0);
    }

    #[test]
    fn what_grows_is_one_hold() {
        let budget = BufferBudget::new(100);
        let mut held = budget.hold(40);
        held.add(budget.try_hold(60).expect("there is so much"));
        assert!(budget.try_hold(1).is_none());
        assert_eq!((held.bytes, budget.used.get()), (100, 100));
        drop(held);
        assert_eq!(budget.used.get(), 0);
    }

    #[test]
    fn memory_that_was_granted_to_one_who_is_gone_comes_back() {
        let budget = BufferBudget::new(BODY_BUFFER_BYTES_MAX);
        let all = budget.hold(BODY_BUFFER_BYTES_MAX);
        let grant = wait_for(&budget, 10);
        drop(all);
        assert_eq!(budget.used.get(), 10);
        drop(grant);
        assert_eq!(budget.used.get(), 0);
    }
}
