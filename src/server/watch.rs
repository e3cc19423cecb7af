//! Time-outs of connections, without a timer for each.
//!
//! Each connection says what it is waiting for; one task per core looks once in `SWEEP_INTERVAL` for those
//! that are past their time and ends what they wait for. That task lives only while there are connections, so
//! an idle core is never woken. A time-out is therefore up to two intervals late.
//!
//! Invariant: what the hot path does here is to store an integer or two. No clock is read: time is the number
//! of sweeps.

use super::Machine;
use crate::io::Io;
use crate::io::uring::ShutdownHandle;
use crate::limits::{COOL_AFTER, HEAD_TIMEOUT, IDLE_TIMEOUT, LINGER_TIMEOUT, STALL_TIMEOUT, SWEEP_INTERVAL};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

const NEVER: u32 = u32::MAX;

/// What a connection is waiting for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// A request.
    Idle,
    /// The rest of a head.
    Head,
    /// Bytes of a body.
    Body,
    /// An operation: the connection is not waiting for its peer, and has no time limit here.
    Serving,
    /// Room to send a response.
    Sending,
    /// The peer's end of the stream, before closing.
    Lingering,
}

impl Phase {
    fn limit(self) -> Option<Duration> {
        match self {
            Phase::Idle => Some(IDLE_TIMEOUT),
            Phase::Head => Some(HEAD_TIMEOUT),
            Phase::Body | Phase::Sending => Some(STALL_TIMEOUT),
            Phase::Lingering => Some(LINGER_TIMEOUT),
            Phase::Serving => None,
        }
    }
}

/// The connections of a core.
pub struct Watches {
    machine: Machine,
    /// Sweeps so far.
    now: Cell<u32>,
    watched: RefCell<Vec<Weak<Watch>>>,
    sweeping: Cell<bool>,
    open: Cell<usize>,
    on_all_closed: Cell<Option<Waker>>,
}

/// One connection's place among them.
pub struct Watch {
    watches: Rc<Watches>,
    handle: ShutdownHandle,
    phase: Cell<Phase>,
    entered: Cell<u32>,
    deadline: Cell<u32>,
    expired: Cell<bool>,
    /// Who waits to be told that the connection has been idle for a while.
    on_cool: Cell<Option<Waker>>,
}

impl Watches {
    pub fn new(machine: Machine) -> Rc<Watches> {
        Rc::new(Watches {
            machine,
            now: Cell::new(0),
            watched: RefCell::default(),
            sweeping: Cell::new(false),
            open: Cell::new(0),
            on_all_closed: Cell::default(),
        })
    }

    /// Watches a connection, idle for now, until the [`Watch`] is dropped.
    pub fn add(self: &Rc<Self>, handle: ShutdownHandle) -> Rc<Watch> {
        let watch = Rc::new(Watch {
            watches: self.clone(),
            handle,
            phase: Cell::new(Phase::Idle),
            entered: Cell::new(0),
            deadline: Cell::new(NEVER),
            expired: Cell::new(false),
            on_cool: Cell::default(),
        });
        watch.enter(Phase::Idle);
        self.open.set(self.open.get() + 1);
        self.watched.borrow_mut().push(Rc::downgrade(&watch));
        if !self.sweeping.replace(true) {
            self.machine.spawn(self.clone().sweep());
        }
        watch
    }

    /// Ends connections that are between requests.
    pub fn end_idle(&self) {
        self.each(|watch| {
            if watch.phase.get() == Phase::Idle {
                watch.handle.shut_down();
            }
        });
    }

    /// Ends all connections, whatever they are at.
    pub fn end_all(&self) {
        self.each(|watch| watch.handle.shut_down());
    }

    /// Completes when there is no connection. One task waits for it.
    pub async fn all_closed(&self) {
        poll_fn(|cx| {
            if self.open.get() == 0 {
                return Poll::Ready(());
            }
            self.on_all_closed.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await
    }

    async fn sweep(self: Rc<Self>) {
        loop {
            self.machine.sleep(SWEEP_INTERVAL).await;
            self.now.set(self.now.get().wrapping_add(1));
            self.each(Watch::sweep);
            if self.watched.borrow().is_empty() {
                break;
            }
        }
        self.sweeping.set(false);
    }

    /// Calls `act` with each connection, and forgets those that are closed. `act` adds none.
    fn each(&self, act: impl Fn(&Watch)) {
        self.watched.borrow_mut().retain(|watch| match watch.upgrade() {
            Some(watch) => {
                act(&watch);
                true
            }
            None => false,
        });
    }
}

impl Watch {
    /// The connection waits for this from now on, or for more of it: its time starts again.
    pub fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.entered.set(self.watches.now.get());
        self.deadline.set(match phase.limit() {
            // One more: the sweep that comes next may come at once.
            Some(limit) => self.watches.now.get().saturating_add(limit.as_secs() as u32 + 1),
            None => NEVER,
        });
    }

    /// Whether a wait was ended because it took too long.
    pub fn has_expired(&self) -> bool {
        self.expired.get()
    }

    /// Completes as `wait` does, or with `None` when the connection has been in its phase for `COOL_AFTER`.
    pub async fn until_cool<T>(&self, wait: impl Future<Output = T>) -> Option<T> {
        let mut wait = pin!(wait);
        let completed = poll_fn(|cx| {
            if let Poll::Ready(value) = wait.as_mut().poll(cx) {
                return Poll::Ready(Some(value));
            }
            if self.is_cool() {
                return Poll::Ready(None);
            }
            self.on_cool.set(Some(cx.waker().clone()));
            Poll::Pending
        });
        let completed = completed.await;
        self.on_cool.set(None);
        completed
    }

    fn is_cool(&self) -> bool {
        let sweeps = self.watches.now.get().wrapping_sub(self.entered.get());
        u64::from(sweeps) > COOL_AFTER.as_secs()
    }

    fn sweep(&self) {
        if self.watches.now.get() >= self.deadline.get() {
            self.expire();
        } else if self.is_cool()
            && let Some(waker) = self.on_cool.take()
        {
            waker.wake();
        }
    }

    fn expire(&self) {
        self.expired.set(true);
        self.deadline.set(NEVER);
        match self.phase.get() {
            // The peer may still be told why.
            Phase::Head | Phase::Body => self.handle.end_reads(),
            Phase::Idle | Phase::Sending | Phase::Lingering | Phase::Serving => self.handle.shut_down(),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let open = self.watches.open.get() - 1;
        self.watches.open.set(open);
        if open == 0
            && let Some(waker) = self.watches.on_all_closed.take()
        {
            waker.wake();
        }
    }
}
