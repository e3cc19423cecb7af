//! Messages between cores: each core has one inbox, which every other core may put things into.
//!
//! Sending is a push onto an unbounded queue (the caller bounds what is outstanding) and never waits.
//! The first message after the receiver found its inbox empty also rings its bell, an eventfd; those
//! that follow do not, so a burst costs one wake-up. A core that has nothing to receive sleeps in the
//! kernel. With one core nothing is ever sent. What a message costs is falling asleep and waking up: figures
//! in ARCHITECTURE.md.
//!
//! Besides the engine's messages an inbox gets what the machine itself sends: sockets accepted
//! elsewhere, results of blocking calls, and the word to shut down.
//!
//! Invariants: messages of one sender arrive in order, once each. All inboxes exist before the first core
//! starts. A message to a core that has ended is dropped. If an inbox is not empty, its bell has rung
//! or its core is emptying it.

use super::buffer::{Buffer, Pool};
use super::ring::Ring;
use crate::io::CoreId;
use futures_channel::oneshot;
use rustix::event::{EventfdFlags, eventfd};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::task::{Poll, Waker};
use std::thread;

/// Messages taken from an inbox before other tasks of the core get their turn.
const BATCH_MESSAGES_MAX: usize = 1024;

/// What goes into an inbox.
enum Parcel<M> {
    Message(CoreId, M),
    Socket(TcpStream),
    /// Run on the core that gets it.
    Call(Box<dyn FnOnce() + Send>),
    Shutdown,
    /// The sender's body has completed.
    Ended,
}

/// The way into one core's inbox, from any thread.
struct Door<M> {
    queue: mpsc::Sender<Parcel<M>>,
    bell: Arc<Bell>,
}

struct Bell {
    eventfd: File,
    /// It was rung and not yet heard. While it is, nobody need ring it.
    rung: AtomicBool,
}

/// One core's part of the mesh; made on one thread and sent to the core's own.
pub(super) struct Ends<M> {
    core: CoreId,
    doors: Vec<Door<M>>,
    queue: mpsc::Receiver<Parcel<M>>,
}

/// One core's place in the mesh.
pub(super) struct Mesh<M> {
    core: CoreId,
    /// Indexed by core.
    doors: Vec<Door<M>>,
    inbox: Rc<Inbox<M>>,
}

/// The parts of `cores` cores.
pub(super) fn join<M>(cores: usize) -> io::Result<Vec<Ends<M>>> {
    let (mut doors, mut queues) = (Vec::with_capacity(cores), Vec::with_capacity(cores));
    for _ in 0..cores {
        let (sender, receiver) = mpsc::channel();
        doors.push(Door {
            queue: sender,
            bell: Arc::new(Bell::new()?),
        });
        queues.push(receiver);
    }
    let ends = (0..).map(CoreId).zip(queues);
    Ok(ends
        .map(|(core, queue)| Ends {
            core,
            doors: doors.clone(),
            queue,
        })
        .collect())
}

impl<M: Send + 'static> Ends<M> {
    /// Takes the place of the core that calls this; gives the task that empties its inbox.
    pub(super) fn connect(
        self,
        ring: &Rc<Ring>,
        pool: &Rc<Pool>,
    ) -> io::Result<(Mesh<M>, impl Future<Output = ()> + use<M>)> {
        let Ends { core, doors, queue } = self;
        let inbox = Rc::new(Inbox::default());
        let bell = Arc::clone(&doors[usize::from(core.0)].bell);
        let hearing = Hearing {
            ring: Rc::clone(ring),
            // Read through a duplicate: senders on other threads keep the original open.
            eventfd: Rc::new(bell.eventfd.try_clone()?),
            count: Some(pool.buffer(size_of::<u64>())),
            bell,
        };
        let emptying = empty(queue, hearing, Rc::clone(&inbox));
        Ok((Mesh { core, doors, inbox }, emptying))
    }
}

impl<M: Send + 'static> Mesh<M> {
    pub(super) fn core(&self) -> CoreId {
        self.core
    }

    pub(super) fn cores(&self) -> usize {
        self.doors.len()
    }

    pub(super) fn send(&self, to: CoreId, message: M) {
        assert_ne!(to, self.core, "a core does not send to itself");
        self.doors[usize::from(to.0)].put(Parcel::Message(self.core, message));
    }

    /// All messages that have arrived, at least one. One task per core calls this.
    pub(super) async fn receive(&self) -> Vec<(CoreId, M)> {
        let messages = &self.inbox.messages;
        arrival(&self.inbox.on_messages, || {
            let mut messages = messages.borrow_mut();
            (!messages.is_empty()).then(|| std::mem::take(&mut *messages))
        })
        .await
    }

    /// Gives `socket` to core `to`, this one included.
    pub(super) fn hand_over(&self, to: CoreId, socket: TcpStream) {
        if to == self.core {
            self.inbox.put_socket(socket);
        } else {
            self.doors[usize::from(to.0)].put(Parcel::Socket(socket));
        }
    }

    /// The next socket handed to this core. One task per core calls this.
    pub(super) async fn next_socket(&self) -> TcpStream {
        arrival(&self.inbox.on_socket, || {
            self.inbox.sockets.borrow_mut().pop_front()
        })
        .await
    }

    /// Runs `work`, which may block, on a thread of its own, and gives its result.
    ///
    /// For what is rare: a thread costs some 50 µs. Dropped early, the work is done all the same.
    pub(super) async fn on_a_thread<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> io::Result<R> {
        let (sender, receiver) = oneshot::channel();
        let door = self.doors[usize::from(self.core.0)].clone();
        thread::Builder::new()
            .name("weft-blocking".to_owned())
            .spawn(move || {
                let result = work();
                // Sent on this core, so that the wake-up does not cross threads. Nobody may want it any more.
                door.put(Parcel::Call(Box::new(move || drop(sender.send(result)))));
            })?;
        receiver.await.map_err(io::Error::other)
    }

    /// Has another core run `work`, which must not wait, between two of its tasks, and gives its result. Dropped early,
    /// the work is done all the same.
    ///
    /// # Errors
    /// That core has ended.
    pub(super) async fn on_core<R: Send + 'static>(
        &self,
        to: CoreId,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> io::Result<R> {
        let (sender, receiver) = oneshot::channel();
        let door = self.doors[usize::from(self.core.0)].clone();
        self.doors[usize::from(to.0)].put(Parcel::Call(Box::new(move || {
            let result = work();
            // Sent on this core, so that the wake-up does not cross threads. Nobody may want it any more.
            door.put(Parcel::Call(Box::new(move || drop(sender.send(result)))));
        })));
        receiver.await.map_err(io::Error::other)
    }

    /// Tells every core, this one included, to shut down.
    pub(super) fn shut_down(&self) {
        self.inbox.shut_down();
        for door in self.doors_of_others() {
            door.put(Parcel::Shutdown);
        }
    }

    pub(super) fn is_shutting_down(&self) -> bool {
        self.inbox.shutting_down.get()
    }

    /// Completes when a core was told to shut down. Any number of tasks may wait.
    pub(super) async fn shutdown(&self) {
        poll_fn(|cx| {
            if self.inbox.shutting_down.get() {
                return Poll::Ready(());
            }
            // A task that waits for something besides polls this often: it is noted once.
            let mut waiting = self.inbox.on_shutdown.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Completes when every core has called this.
    pub(super) async fn end_with_the_others(&self) {
        self.doors_of_others().for_each(|door| door.put(Parcel::Ended));
        let others = self.cores() - 1;
        arrival(&self.inbox.on_ended, || {
            (self.inbox.ended.get() >= others).then_some(())
        })
        .await
    }

    fn doors_of_others(&self) -> impl Iterator<Item = &Door<M>> {
        let own = usize::from(self.core.0);
        self.doors
            .iter()
            .enumerate()
            .filter(move |&(core, _)| core != own)
            .map(|(_, door)| door)
    }
}

/// What has arrived at a core and waits to be taken.
struct Inbox<M> {
    messages: RefCell<Vec<(CoreId, M)>>,
    on_messages: RefCell<Option<Waker>>,
    sockets: RefCell<VecDeque<TcpStream>>,
    on_socket: RefCell<Option<Waker>>,
    shutting_down: Cell<bool>,
    on_shutdown: RefCell<Vec<Waker>>,
    /// Other cores whose body has completed.
    ended: Cell<usize>,
    on_ended: RefCell<Option<Waker>>,
}

impl<M> Default for Inbox<M> {
    fn default() -> Self {
        Inbox {
            messages: RefCell::default(),
            on_messages: RefCell::default(),
            sockets: RefCell::default(),
            on_socket: RefCell::default(),
            shutting_down: Cell::default(),
            on_shutdown: RefCell::default(),
            ended: Cell::default(),
            on_ended: RefCell::default(),
        }
    }
}

impl<M> Inbox<M> {
    fn put(&self, parcel: Parcel<M>) {
        match parcel {
            Parcel::Message(from, message) => {
                self.messages.borrow_mut().push((from, message));
                wake(&self.on_messages);
            }
            Parcel::Socket(socket) => self.put_socket(socket),
            Parcel::Call(call) => call(),
            Parcel::Shutdown => self.shut_down(),
            Parcel::Ended => {
                self.ended.set(self.ended.get() + 1);
                wake(&self.on_ended);
            }
        }
    }

    fn put_socket(&self, socket: TcpStream) {
        self.sockets.borrow_mut().push_back(socket);
        wake(&self.on_socket);
    }

    fn shut_down(&self) {
        self.shutting_down.set(true);
        for waker in self.on_shutdown.take() {
            waker.wake();
        }
    }
}

fn wake(waker: &RefCell<Option<Waker>>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// Completes with what `take` gives once it gives something; `waker` is woken for another try.
fn arrival<T>(
    waker: &RefCell<Option<Waker>>,
    mut take: impl FnMut() -> Option<T>,
) -> impl Future<Output = T> {
    poll_fn(move |cx| match take() {
        Some(taken) => Poll::Ready(taken),
        None => {
            *waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        }
    })
}

/// Moves what arrives in `queue` into `inbox`, for as long as the core runs.
async fn empty<M>(queue: mpsc::Receiver<Parcel<M>>, mut hearing: Hearing, inbox: Rc<Inbox<M>>) {
    loop {
        for parcel in queue.try_iter().take(BATCH_MESSAGES_MAX) {
            inbox.put(parcel);
        }
        // Whoever pushes from here on rings. What was pushed before is seen by the look that follows.
        hearing.bell.rung.swap(false, Ordering::SeqCst);
        if let Ok(parcel) = queue.try_recv() {
            hearing.bell.rung.store(true, Ordering::SeqCst);
            inbox.put(parcel);
            hearing.ring.yield_now().await;
            continue;
        }
        hearing.next().await;
    }
}

/// A core's ear for its own bell.
struct Hearing {
    ring: Rc<Ring>,
    eventfd: Rc<File>,
    bell: Arc<Bell>,
    /// Where the kernel puts the count of rings; `None` while it does.
    count: Option<Buffer>,
}

impl Hearing {
    /// Completes when the bell rings, or has rung for what the last look has already seen.
    async fn next(&mut self) {
        let count = self.count.take().expect("heard by one task");
        let (heard, count) = self.ring.read_count(Rc::clone(&self.eventfd), count).await;
        heard.expect("an eventfd can be read");
        self.count = Some(count);
    }
}

impl<M> Door<M> {
    fn put(&self, parcel: Parcel<M>) {
        if self.queue.send(parcel).is_ok() {
            self.bell.ring();
        }
    }
}

impl<M> Clone for Door<M> {
    fn clone(&self) -> Self {
        Door {
            queue: self.queue.clone(),
            bell: Arc::clone(&self.bell),
        }
    }
}

impl Bell {
    fn new() -> io::Result<Bell> {
        // It may block: a ring that does not block is not waited for by an operation, but refused.
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Bell {
            eventfd: eventfd.into(),
            rung: AtomicBool::new(false),
        })
    }

    fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            // It would wait only if the count, which is read back after each ring, passed 2^64.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Io;
    use crate::io::uring::scratch::{Scratch, run};
    use crate::io::uring::{CAPACITY_BYTES_MIN, CoreChoice, Machine};

    fn two_cores<F, B>(body: F)
    where
        F: Fn(Machine<u64>) -> B + Send + Clone + 'static,
        B: Future<Output = ()> + 'static,
    {
        if CoreChoice::All.cpus().unwrap().len() < 2 {
            return;
        }
        let scratch = Scratch::new();
        let volumes = scratch.volumes(CAPACITY_BYTES_MIN);
        run(2, volumes, body);
    }

    fn other<M: Send>(machine: &Machine<M>) -> CoreId {
        CoreId(1 - machine.core().0)
    }

    async fn expect_in_order(machine: &Machine<u64>, count: u64) {
        let mut next = 0;
        while next < count {
            for (from, number) in machine.receive().await {
                assert_eq!((from, number), (other(machine), next));
                next += 1;
            }
        }
    }

    #[test]
    fn a_flood_arrives_once_and_in_order() {
        const FLOOD: u64 = 100_000;
        two_cores(|machine| async move {
            for number in 0..FLOOD {
                machine.send(other(&machine), number);
            }
            expect_in_order(&machine, FLOOD).await;
        });
    }

    #[test]
    fn order_holds_while_an_inbox_is_emptied() {
        const ROUNDS: u64 = 300;
        const BURST: u64 = 200;
        two_cores(|machine| async move {
            let sender = machine.clone();
            machine.spawn(async move {
                for number in 0..ROUNDS * BURST {
                    sender.send(other(&sender), number);
                    if number % BURST == 0 {
                        sender.yield_now().await;
                    }
                }
            });
            expect_in_order(&machine, ROUNDS * BURST).await;
        });
    }

    #[test]
    fn a_lone_message_always_finds_a_sleeping_core() {
        const TRIPS: u64 = 30_000;
        two_cores(|machine| async move {
            for number in 0..TRIPS {
                if machine.core() == CoreId(0) {
                    machine.send(CoreId(1), number);
                }
                assert_eq!(machine.receive().await, [(other(&machine), number)]);
                if machine.core() == CoreId(1) {
                    machine.send(CoreId(0), number);
                }
            }
        });
    }

    #[test]
    fn a_million_messages_go_back_and_forth() {
        const TRIPS: u64 = 500_000;
        const OUTSTANDING: u64 = 64;
        two_cores(|machine| async move {
            if machine.core() == CoreId(1) {
                let mut echoed = 0;
                while echoed < TRIPS {
                    for (from, number) in machine.receive().await {
                        machine.send(from, number);
                        echoed += 1;
                    }
                }
                return;
            }
            (0..OUTSTANDING).for_each(|number| machine.send(CoreId(1), number));
            let (mut sent, mut back) = (OUTSTANDING, 0);
            while back < TRIPS {
                for (_, number) in machine.receive().await {
                    assert_eq!(number, back);
                    back += 1;
                    if sent < TRIPS {
                        machine.send(CoreId(1), sent);
                        sent += 1;
                    }
                }
            }
        });
    }

    #[test]
    fn shutdown_reaches_every_core_and_every_waiter() {
        two_cores(|machine| async move {
            if machine.core() == CoreId(1) {
                machine.shut_down();
            }
            futures_util::join!(machine.shutdown(), machine.shutdown());
            assert!(machine.is_shutting_down());
        });
    }

    #[test]
    fn a_core_answers_until_all_have_ended() {
        two_cores(|machine| async move {
            let answering = machine.clone();
            if machine.core() == CoreId(1) {
                machine.spawn(async move {
                    loop {
                        for (from, number) in answering.receive().await {
                            answering.send(from, number);
                        }
                    }
                });
                return;
            }
            for number in 0..100 {
                machine.sleep(std::time::Duration::from_micros(100)).await;
                machine.send(CoreId(1), number);
                assert_eq!(machine.receive().await, [(CoreId(1), number)]);
            }
        });
    }
}
