//! Messages between cores: one bounded single-producer queue for each ordered pair of cores.
//!
//! Sending never waits: what finds its queue full waits on the sender's side, in order, for a task
//! that lives only as long as it has something to push. Receiving takes all that has arrived at once.
//! A core that is awake finds messages without being woken, so that a burst costs one wake-up at most;
//! a core that sleeps is woken through its eventfd. With one core there are no queues.
//!
//! Besides the engine's messages the queues carry what the machine itself sends: sockets that were
//! accepted elsewhere, and the word to shut down.
//!
//! Invariants: messages of one sender arrive in order, once each. All queues exist before the first
//! core starts. A message to a core that has ended is dropped.

use crate::io::CoreId;
use ::glommio::channels::shared_channel::{
    ConnectedReceiver, ConnectedSender, SharedReceiver, SharedSender, new_bounded,
};
use ::glommio::{GlommioError, ResourceType};
use futures_util::StreamExt;
use futures_util::future::{join, join_all};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::TcpStream;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Messages that a queue holds. The queues of all pairs are allocated up front, so their memory grows
/// with the square of the cores: 100 MiB for 64 cores and messages of 200 bytes.
const QUEUE_MESSAGES: usize = 128;
/// Messages taken from one queue before other tasks get their turn.
const BATCH_MESSAGES_MAX: usize = 1024;

/// What goes through a queue.
pub(super) enum Parcel<M> {
    Message(M),
    Socket(TcpStream),
    Shutdown,
    /// The sender's body has completed.
    Ended,
}

/// One core's ends of all queues, not yet connected; made on one thread and sent to the core's own.
pub(super) struct Ends<M: Send + Sync> {
    core: CoreId,
    to: Vec<(CoreId, SharedSender<Parcel<M>>)>,
    from: Vec<(CoreId, SharedReceiver<Parcel<M>>)>,
}

/// One core's place in the mesh.
pub(super) struct Mesh<M: Send + Sync + 'static> {
    /// Indexed by core; `None` at this core's own place.
    peers: Vec<Option<Rc<Peer<M>>>>,
    inbox: Rc<Inbox<M>>,
}

/// The queues between `cores` cores.
pub(super) fn queues<M: Send + Sync>(cores: usize) -> Vec<Ends<M>> {
    let ids = || (0..cores as u16).map(CoreId);
    let mut ends: Vec<_> = ids()
        .map(|core| Ends {
            core,
            to: Vec::with_capacity(cores),
            from: Vec::with_capacity(cores),
        })
        .collect();
    for from in ids() {
        for to in ids().filter(|&to| to != from) {
            let (sender, receiver) = new_bounded(QUEUE_MESSAGES);
            ends[usize::from(from.0)].to.push((to, sender));
            ends[usize::from(to.0)].from.push((from, receiver));
        }
    }
    ends
}

impl<M: Send + Sync + 'static> Ends<M> {
    pub(super) fn core(&self) -> CoreId {
        self.core
    }

    /// Completes when every other core has connected its ends too.
    pub(super) async fn connect(self) -> Mesh<M> {
        // All at once: each waits for its far end, and the far ends wait for each other.
        let to = join_all(
            self.to
                .into_iter()
                .map(async |(core, sender)| (core, sender.connect().await)),
        );
        let from = join_all(
            self.from
                .into_iter()
                .map(async |(core, receiver)| (core, receiver.connect().await)),
        );
        let (to, from) = join(to, from).await;

        let inbox = Rc::new(Inbox::default());
        for (core, receiver) in from {
            ::glommio::spawn_local(pump(core, receiver, Rc::clone(&inbox))).detach();
        }
        let mut peers: Vec<_> = to
            .into_iter()
            .map(|(_, sender)| Some(Rc::new(Peer::new(sender))))
            .collect();
        peers.insert(usize::from(self.core.0), None);
        Mesh { peers, inbox }
    }
}

impl<M: Send + Sync + 'static> Mesh<M> {
    pub(super) fn send(&self, to: CoreId, message: M) {
        self.peer(to).send(Parcel::Message(message));
    }

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
        match &self.peers[usize::from(to.0)] {
            Some(peer) => peer.send(Parcel::Socket(socket)),
            None => self.inbox.put_socket(socket),
        }
    }

    /// The next socket handed to this core. One task per core calls this.
    pub(super) async fn next_socket(&self) -> TcpStream {
        arrival(&self.inbox.on_socket, || {
            self.inbox.sockets.borrow_mut().pop_front()
        })
        .await
    }

    /// Tells every core, this one included, to shut down.
    pub(super) fn shut_down(&self) {
        self.inbox.shut_down();
        for peer in self.peers.iter().flatten() {
            peer.send(Parcel::Shutdown);
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
        for peer in self.peers.iter().flatten() {
            peer.send(Parcel::Ended);
        }
        let others = self.peers.len() - 1;
        arrival(&self.inbox.on_ended, || {
            (self.inbox.ended.get() >= others).then_some(())
        })
        .await
    }

    fn peer(&self, to: CoreId) -> &Rc<Peer<M>> {
        let peer = self.peers[usize::from(to.0)].as_ref();
        peer.expect("a core does not send to itself")
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
    fn put(&self, from: CoreId, parcel: Parcel<M>) {
        match parcel {
            Parcel::Message(message) => {
                self.messages.borrow_mut().push((from, message));
                wake(&self.on_messages);
            }
            Parcel::Socket(socket) => self.put_socket(socket),
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

/// Moves what arrives from one core into the inbox, until that core ends.
///
/// A task for each queue, because a poll that finds a queue empty leaves a waker with it that only that
/// queue's next message takes away.
async fn pump<M: Send + Sync>(from: CoreId, mut receiver: ConnectedReceiver<Parcel<M>>, inbox: Rc<Inbox<M>>) {
    poll_fn(|cx| {
        for _ in 0..BATCH_MESSAGES_MAX {
            match receiver.poll_next_unpin(cx) {
                Poll::Ready(Some(parcel)) => inbox.put(from, parcel),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The way to one other core.
struct Peer<M: Send + Sync + 'static> {
    sender: ConnectedSender<Parcel<M>>,
    /// What found the queue full, oldest first.
    overflow: RefCell<VecDeque<Parcel<M>>>,
    /// While a task empties `overflow`, everything goes through it, for the order's sake.
    overflowing: Cell<bool>,
}

impl<M: Send + Sync + 'static> Peer<M> {
    fn new(sender: ConnectedSender<Parcel<M>>) -> Peer<M> {
        Peer {
            sender,
            overflow: RefCell::default(),
            overflowing: Cell::new(false),
        }
    }

    fn send(self: &Rc<Self>, parcel: Parcel<M>) {
        if self.overflowing.get() {
            self.overflow.borrow_mut().push_back(parcel);
            return;
        }
        // Any other error means that the peer has ended, and the parcel with it.
        if let Err(GlommioError::WouldBlock(ResourceType::Channel(parcel))) = self.sender.try_send(parcel) {
            self.overflow.borrow_mut().push_back(parcel);
            self.overflowing.set(true);
            ::glommio::spawn_local(Rc::clone(self).drain()).detach();
        }
    }

    async fn drain(self: Rc<Self>) {
        loop {
            let Some(parcel) = self.overflow.borrow_mut().pop_front() else {
                break;
            };
            // Waits for room; fails only if the peer has ended.
            let _ = self.sender.send(parcel).await;
        }
        self.overflowing.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Io;
    use crate::io::glommio::scratch::{Scratch, run};
    use crate::io::glommio::{CAPACITY_BYTES_MIN, CoreChoice, Machine, Volume};

    fn two_cores<F, B>(body: F)
    where
        F: Fn(Machine<u64>) -> B + Send + Clone + 'static,
        B: Future<Output = ()> + 'static,
    {
        if CoreChoice::All.cpus().unwrap().len() < 2 {
            return;
        }
        let scratch = Scratch::new();
        let volume = Volume::open(scratch.dir(), Some(CAPACITY_BYTES_MIN)).unwrap();
        run(2, volume, body);
    }

    fn other<M: Send + Sync>(machine: &Machine<M>) -> CoreId {
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
    fn a_flood_past_every_queue_arrives_once_and_in_order() {
        const FLOOD: u64 = 100_000;
        two_cores(|machine| async move {
            for number in 0..FLOOD {
                machine.send(other(&machine), number);
            }
            expect_in_order(&machine, FLOOD).await;
        });
    }

    #[test]
    fn order_holds_while_a_full_queue_empties() {
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
