//! How long a core waits for its disk.
//!
//! An operation on the disk that has not returned for a time, which the operator sets, fails whoever waits for it. The kernel
//! still has it: its memory stays where it is, and a write may land at any moment. So a segment with such a write
//! is left alone until the kernel has returned it: [`Patience::late_writes_returned`] waits for that, and
//! more writes to it fail ([`Patience::check`]).
//!
//! It costs nothing per operation: while there are any, a sweep looks at all of them, a few times in that time. So what is
//! late is told up to a quarter later. With many late ones new ones fail at once, lest their memory add up.

use super::ring::{Done, Pending, Ring};
use super::tasks::Tasks;
use super::timers::Timers;
use crate::io::SegmentId;
use crate::limits::LATE_OPERATIONS_MAX;
use futures_util::future::{Either, select};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

/// Sweeps in the time that an operation has.
const SWEEPS: u8 = 4;

pub(super) struct Patience {
    limit: Duration,
    ring: Rc<Ring>,
    tasks: Tasks,
    timers: Rc<Timers>,
    stuck: StuckCores,
    sweeping: Cell<bool>,
    /// Operations that are late by now.
    late: Cell<usize>,
    /// How many of them are writes, by segment, and who waits until there are none.
    late_writes: RefCell<HashMap<SegmentId, usize>>,
    waiting: RefCell<Vec<Waker>>,
}

/// How many cores wait for a disk in vain. Shared by all, and touched only when that changes.
#[derive(Clone, Default)]
pub(super) struct StuckCores(Arc<AtomicUsize>);

impl StuckCores {
    pub(super) fn are_some(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Patience {
    pub(super) fn new(
        limit: Duration,
        stuck: StuckCores,
        ring: &Rc<Ring>,
        tasks: &Tasks,
        timers: &Rc<Timers>,
    ) -> Rc<Patience> {
        Rc::new(Patience {
            limit,
            ring: Rc::clone(ring),
            tasks: tasks.clone(),
            timers: Rc::clone(timers),
            stuck,
            sweeping: Cell::new(false),
            late: Cell::new(0),
            late_writes: RefCell::default(),
            waiting: RefCell::default(),
        })
    }

    /// Whether another operation may begin; for a write, on segment `written`.
    ///
    /// # Errors
    /// `TimedOut`: too many are late, or a write to that segment is.
    pub(super) fn check(&self, written: Option<SegmentId>) -> io::Result<()> {
        let is_late = |id| self.late_writes.borrow().contains_key(&id);
        match self.late.get() >= LATE_OPERATIONS_MAX || written.is_some_and(is_late) {
            true => Err(self.too_late()),
            false => Ok(()),
        }
    }

    /// What an operation that changes nothing comes to.
    ///
    /// # Errors
    /// `TimedOut`: it is still under way.
    pub(super) async fn wait(self: &Rc<Self>, mut pending: Pending) -> io::Result<Done> {
        self.keep_sweeping();
        match pending.in_time().await {
            Some(done) => Ok(done),
            None => {
                self.tasks.spawn(async move { pending.await.discard() });
                Err(self.too_late())
            }
        }
    }

    /// What a write to segment `id` comes to.
    ///
    /// # Errors
    /// `TimedOut`: it is still under way, and may land.
    pub(super) async fn wait_for_write(
        self: &Rc<Self>,
        id: SegmentId,
        mut pending: Pending,
    ) -> io::Result<Done> {
        self.keep_sweeping();
        if let Some(done) = pending.in_time().await {
            return Ok(done);
        }
        *self.late_writes.borrow_mut().entry(id).or_default() += 1;
        let patience = Rc::clone(self);
        self.tasks.spawn(async move {
            drop(pending.await);
            patience.write_returned(id);
        });
        Err(self.too_late())
    }

    /// Blocking work on a thread of its own, which goes on when it is late.
    ///
    /// # Errors
    /// `TimedOut`.
    pub(super) async fn wait_for_thread<T>(&self, work: impl Future<Output = T>) -> io::Result<T> {
        match select(pin!(work), pin!(self.timers.sleep(self.limit))).await {
            Either::Left((done, _)) => Ok(done),
            Either::Right(_) => Err(self.too_late()),
        }
    }

    /// Returns when no late write can land in segment `id` any more.
    pub(super) async fn late_writes_returned(&self, id: SegmentId) {
        poll_fn(|cx| {
            if !self.late_writes.borrow().contains_key(&id) {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn write_returned(&self, id: SegmentId) {
        {
            let mut late = self.late_writes.borrow_mut();
            if let Some(count) = late.get_mut(&id) {
                *count -= 1;
            }
            late.retain(|_, count| *count > 0);
        }
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Looks at what is under way, until there is nothing.
    fn keep_sweeping(self: &Rc<Self>) {
        if self.sweeping.replace(true) {
            return;
        }
        let patience = Rc::clone(self);
        self.tasks.spawn(async move {
            loop {
                patience.timers.sleep(patience.limit / u32::from(SWEEPS)).await;
                let swept = patience.ring.sweep(SWEEPS);
                patience.note_late(swept.overdue);
                if swept.timed == 0 {
                    break;
                }
            }
            patience.sweeping.set(false);
        });
    }

    fn note_late(&self, late: usize) {
        let before = self.late.replace(late);
        match (before > 0, late > 0) {
            (false, true) => drop(self.stuck.0.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.stuck.0.fetch_sub(1, Ordering::Relaxed)),
            (true, true) | (false, false) => {}
        }
    }

    fn too_late(&self) -> io::Error {
        let text = format!("the disk has not answered for {} s", self.limit.as_secs());
        io::Error::new(io::ErrorKind::TimedOut, text)
    }
}
