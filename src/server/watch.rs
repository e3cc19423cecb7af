//! Time-outs of connections, without a timer for each, and who gives way when there is not enough for all.
//!
//! Each connection says what it is waiting for; one task per core looks once in `SWEEP_INTERVAL` for those
//! that are past their time, or whose peers are too slow, and ends what they wait for. That task lives only while
//! there are connections, so an idle core is never woken. A time-out is therefore up to two intervals late.
//!
//! A slow body is in nobody's way until others wait for the memory that it holds: then it is ended, and so is the reader
//! of a response that is in memory whole. One who reads an object slowly holds none. A connection without a request has
//! its place until a new one needs it.
//!
//! Invariant: what the hot path does here is to store an integer or two. No clock is read: time is the number
//! of sweeps. A peer is judged only while it is waited for: what the server itself holds back is never slow.

use super::pace::Pace;
use super::{Connections, Machine};
use crate::engine::Engine;
use crate::io::Io;
use crate::io::uring::StreamHandle;
use crate::limits::{
    BLOCK_BYTES, BLOCKS_PER_IO, COOL_AFTER, HEAD_TIMEOUT, IDLE_TIMEOUT, INLINE_BYTES_MAX, LINGER_TIMEOUT,
    RESERVE_TIMEOUT, SWEEP_INTERVAL,
};
use std::cell::{Cell, OnceCell, RefCell};
use std::cmp::Reverse;
use std::collections::VecDeque;
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
    /// The only request of a connection of the reserve.
    Reserve,
    /// The rest of a head.
    Head,
    /// Bytes of a body.
    Body,
    /// An operation: the connection is not waiting for its peer, and has no time limit here.
    Serving,
    /// Room to send a response.
    Sending,
    /// Room to send a refusal, or what needs no credentials: nothing is lost but the words.
    Telling,
    /// The peer's end of the stream, before closing.
    Lingering,
}

impl Phase {
    fn limit(self) -> Option<Duration> {
        match self {
            Phase::Idle => Some(IDLE_TIMEOUT),
            Phase::Reserve => Some(RESERVE_TIMEOUT),
            Phase::Head => Some(HEAD_TIMEOUT),
            Phase::Lingering => Some(LINGER_TIMEOUT),
            // By their pace.
            Phase::Body | Phase::Sending | Phase::Telling => None,
            Phase::Serving => None,
        }
    }

    /// Whether nothing is lost but time if the connection ends.
    fn gives_way(self) -> bool {
        match self {
            Phase::Idle | Phase::Reserve | Phase::Head | Phase::Telling | Phase::Lingering => true,
            Phase::Body | Phase::Serving | Phase::Sending => false,
        }
    }
}

/// What of a core's memory a connection holds, and others wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// Bodies on their way in and out, and responses.
    Bodies,
    /// XML bodies that are gathered.
    Documents,
}

/// Why a connection's wait was ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It took too long.
    TooSlow,
    /// Others needed what it held.
    GaveWay,
}

/// The connections of a core.
pub struct Watches {
    machine: Machine,
    connections: Connections,
    /// Sweeps so far.
    now: Cell<u32>,
    watched: RefCell<Vec<Weak<Watch>>>,
    /// Those of the reserve, the first that came in front.
    reserve: RefCell<VecDeque<Weak<Watch>>>,
    /// Those that were idle at the last sweep, the longest idle at the end; `None` until somebody asks.
    idle: RefCell<Option<Vec<Weak<Watch>>>>,
    sweeping: Cell<bool>,
    open: Cell<usize>,
    /// Those of them that gave way and are about to close.
    leaving: Cell<usize>,
    on_all_closed: Cell<Option<Waker>>,
    /// Set once the engines have recovered.
    engine: OnceCell<Engine<Machine>>,
    /// Bytes that bodies, and documents, waited for at the last sweep.
    wanted_bytes: [Cell<usize>; 2],
}

/// One connection's place among them.
pub struct Watch {
    watches: Rc<Watches>,
    handle: StreamHandle,
    is_of_reserve: bool,
    phase: Cell<Phase>,
    entered: Cell<u32>,
    deadline: Cell<u32>,
    pace: Pace,
    /// Bytes of memory, more or less, that others have when it ends: of the buffer that its body is received into, or
    /// of a response that cannot be made again. 0 while it has none.
    holds: Cell<(Memory, usize)>,
    ended: Cell<Option<Ended>>,
    leaving: Cell<bool>,
    /// Who waits to be told that the connection has been idle for a while.
    on_cool: Cell<Option<Waker>>,
}

impl Watches {
    pub fn new(machine: Machine, connections: Connections) -> Rc<Watches> {
        Rc::new(Watches {
            machine,
            connections,
            now: Cell::new(0),
            watched: RefCell::default(),
            reserve: RefCell::default(),
            idle: RefCell::default(),
            sweeping: Cell::new(false),
            open: Cell::new(0),
            leaving: Cell::new(0),
            on_all_closed: Cell::default(),
            engine: OnceCell::new(),
            wanted_bytes: Default::default(),
        })
    }

    /// From now on slow bodies give way to those that wait for the buffers of `engine`.
    pub fn relieve(&self, engine: Engine<Machine>) {
        let _ = self.engine.set(engine);
    }

    /// Connections that there are.
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// Whether one more connection has no place but that of another.
    pub fn is_full(&self) -> bool {
        self.open.get() - self.leaving.get() >= self.connections.max as usize
    }

    /// Watches a connection, idle for now, until the [`Watch`] is dropped. If there is no room for it, another gives
    /// way; if none can, it is one of the reserve.
    pub fn add(self: &Rc<Self>, handle: StreamHandle) -> Rc<Watch> {
        if self.is_full() {
            self.make_room();
        }
        let is_of_reserve = self.is_full();
        let watch = Rc::new(Watch {
            watches: self.clone(),
            handle,
            is_of_reserve,
            phase: Cell::new(Phase::Idle),
            entered: Cell::new(0),
            deadline: Cell::new(NEVER),
            pace: Pace::default(),
            holds: Cell::new((Memory::Bodies, 0)),
            ended: Cell::new(None),
            leaving: Cell::new(false),
            on_cool: Cell::default(),
        });
        watch.await_request();
        self.open.set(self.open.get() + 1);
        self.watched.borrow_mut().push(Rc::downgrade(&watch));
        if is_of_reserve {
            self.make_room_in_reserve();
            self.reserve.borrow_mut().push_back(Rc::downgrade(&watch));
        }
        if !self.sweeping.replace(true) {
            self.machine.spawn(self.clone().sweep());
        }
        watch
    }

    /// Ends connections that are between requests.
    pub fn end_idle(&self) {
        self.each(|watch| {
            if watch.is_between_requests() && !watch.handle.has_unread() {
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
            self.idle.take();
            self.each(Watch::sweep);
            if let Some(engine) = self.engine.get() {
                self.relieve_shortage(Memory::Bodies, engine.wanted_buffer_bytes());
                self.relieve_shortage(Memory::Documents, engine.wanted_document_bytes());
            }
            if self.watched.borrow().is_empty() {
                break;
            }
        }
        self.sweeping.set(false);
    }

    /// Ends the connection that has been idle for longest. One that became so since the last sweep stays: it would
    /// give way before its client could say a word. So none is added to the list before the next sweep, and
    /// looking for them costs little, however many come.
    fn make_room(&self) {
        let mut idle = self.idle.borrow_mut();
        let idle = idle.get_or_insert_with(|| self.idle_since_last_sweep());
        while let Some(watch) = idle.pop() {
            if let Some(watch) = watch.upgrade()
                && watch.is_idle_since_last_sweep()
                && watch.gives_way()
            {
                return watch.leave();
            }
        }
    }

    fn idle_since_last_sweep(&self) -> Vec<Weak<Watch>> {
        let watched = self.watched.borrow();
        let mut idle: Vec<Rc<Watch>> = watched.iter().filter_map(Weak::upgrade).collect();
        idle.retain(|watch| watch.is_idle_since_last_sweep());
        // Stable: of those that began in the same second the first that came is at the end.
        idle.reverse();
        idle.sort_by_key(|watch| Reverse(watch.entered.get()));
        idle.iter().map(Rc::downgrade).collect()
    }

    /// Keeps half of the reserve for those that have something to say: of the others the first that came is ended.
    fn make_room_in_reserve(&self) {
        let mut reserve = self.reserve.borrow_mut();
        reserve.retain(|watch| watch.upgrade().is_some_and(|watch| !watch.leaving.get()));
        if reserve.len() >= self.connections.reserve as usize / 2 {
            let first = reserve
                .iter()
                .filter_map(Weak::upgrade)
                .find(|watch| watch.gives_way());
            first.inspect(|watch| watch.leave());
        }
    }

    /// Ends slow peers if others have waited for that memory since the last sweep: as many as would have room.
    fn relieve_shortage(&self, memory: Memory, wanted: usize) {
        let lasting = wanted.min(self.wanted_bytes[memory as usize].replace(wanted));
        if lasting == 0 {
            return;
        }
        let missing = Cell::new(lasting);
        self.each(|watch| {
            if missing.get() > 0 && watch.is_in_the_way(memory) {
                missing.set(missing.get().saturating_sub(watch.holds.get().1));
                watch.end(Ended::GaveWay);
            }
        });
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
    /// The connection waits for this from now on, or for more of it: its time starts again, but that of a body
    /// or a response.
    pub fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.entered.set(self.watches.now.get());
        self.deadline.set(match phase.limit() {
            // One more: the sweep that comes next may come at once.
            Some(limit) => self.watches.now.get().saturating_add(limit.as_secs() as u32 + 1),
            None => NEVER,
        });
    }

    /// The connection waits for its next request.
    pub fn await_request(&self) {
        self.pace.begin();
        self.holds(Memory::Bodies, 0);
        self.enter(match self.is_of_reserve {
            true => Phase::Reserve,
            false => Phase::Idle,
        });
    }

    /// Some of a head has come.
    pub fn head_begun(&self) {
        if !self.is_of_reserve {
            self.enter(Phase::Head);
        }
    }

    /// A body of so many bytes comes, if that is known.
    pub fn body_begun(&self, length: Option<u64>) {
        let length = length.map_or(INLINE_BYTES_MAX, |length| length as usize);
        self.holds(Memory::Bodies, length.min(BLOCKS_PER_IO * BLOCK_BYTES));
    }

    /// From now on the connection holds so much memory of which others could make use.
    pub fn holds(&self, memory: Memory, bytes: usize) {
        self.holds.set((memory, bytes));
    }

    /// So many bytes of a body or response have moved.
    pub fn moved(&self, bytes: usize) {
        self.pace.moved(bytes);
    }

    /// Whether there is no room for this connection, so that one short answer is all that it gets.
    pub fn is_of_reserve(&self) -> bool {
        self.is_of_reserve
    }

    /// Why a wait was ended, if one was.
    pub fn ended(&self) -> Option<Ended> {
        self.ended.get()
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
        match self.phase.get() {
            Phase::Body => self.pace.wait_a_second(0),
            // What fits into the socket was not taken by the peer yet, and frees no room until much of it is.
            Phase::Sending | Phase::Telling => self.pace.wait_a_second(self.handle.untaken_bytes()),
            Phase::Idle | Phase::Reserve | Phase::Head | Phase::Serving | Phase::Lingering => {}
        }
        let is_late = self.watches.now.get() >= self.deadline.get();
        if is_late || (self.waits_for_bytes() && self.pace.is_too_slow()) {
            self.end(Ended::TooSlow);
        } else if self.is_cool()
            && let Some(waker) = self.on_cool.take()
        {
            waker.wake();
        }
    }

    fn waits_for_bytes(&self) -> bool {
        matches!(self.phase.get(), Phase::Body | Phase::Sending | Phase::Telling)
    }

    /// Whether it holds memory of which others would make use sooner.
    fn is_in_the_way(&self, memory: Memory) -> bool {
        let (held, bytes) = self.holds.get();
        self.waits_for_bytes() && held == memory && bytes > 0 && self.pace.is_too_slow_in_shortage()
    }

    fn is_between_requests(&self) -> bool {
        matches!(self.phase.get(), Phase::Idle | Phase::Reserve)
    }

    /// Whether it may end for another: not if a request is there that is not looked at yet.
    fn gives_way(&self) -> bool {
        self.phase.get().gives_way()
            && !self.leaving.get()
            && !(self.is_between_requests() && self.handle.has_unread())
    }

    fn is_idle_since_last_sweep(&self) -> bool {
        self.phase.get().gives_way() && self.entered.get() != self.watches.now.get()
    }

    /// Ends the connection to make room for another.
    fn leave(&self) {
        self.leaving.set(true);
        self.watches.leaving.set(self.watches.leaving.get() + 1);
        self.end(Ended::GaveWay);
    }

    fn end(&self, why: Ended) {
        self.ended.set(Some(why));
        self.deadline.set(NEVER);
        // For what the peer is still told.
        self.pace.begin();
        match self.phase.get() {
            Phase::Head | Phase::Body => self.handle.end_reads(),
            Phase::Sending | Phase::Telling => self.handle.abort(),
            Phase::Idle | Phase::Reserve | Phase::Lingering | Phase::Serving => self.handle.shut_down(),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let watches = &self.watches;
        watches.open.set(watches.open.get() - 1);
        if self.leaving.get() {
            watches.leaving.set(watches.leaving.get() - 1);
        }
        if watches.open.get() == 0
            && let Some(waker) = watches.on_all_closed.take()
        {
            waker.wake();
        }
    }
}
