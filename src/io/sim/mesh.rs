//! Messages between the simulated cores.
//!
//! A message takes a random time. Between two cores they arrive once each and in order, as the
//! trait promises; nothing orders those of different senders. A power loss forgets them all.

use super::rng::Rng;
use crate::io::CoreId;
use std::collections::VecDeque;
use std::task::Waker;

/// The usual longest way of a message, in nanoseconds.
const TRANSIT_NS_MAX: u64 = 20_000;
/// One in this many takes up to [`LATE_FACTOR`] times as long.
const LATE_ONE_IN: u64 = 16;
const LATE_FACTOR: u64 = 50;

pub(super) struct Mesh<M> {
    cores: usize,
    /// Per pair, sender first: what is under way, and when its last message arrives.
    pairs: Vec<Pair<M>>,
    inboxes: Vec<Inbox<M>>,
}

struct Pair<M> {
    transit: VecDeque<M>,
    last_arrival_ns: u64,
}

struct Inbox<M> {
    arrived: Vec<(CoreId, M)>,
    waiter: Option<Waker>,
}

impl<M> Mesh<M> {
    pub fn new(cores: usize) -> Mesh<M> {
        Mesh {
            cores,
            pairs: (0..cores * cores)
                .map(|_| Pair {
                    transit: VecDeque::new(),
                    last_arrival_ns: 0,
                })
                .collect(),
            inboxes: (0..cores)
                .map(|_| Inbox {
                    arrived: Vec::new(),
                    waiter: None,
                })
                .collect(),
        }
    }

    /// Puts a message on its way and says when [`Mesh::deliver`] is to be called for the pair.
    pub fn send(&mut self, from: CoreId, to: CoreId, message: M, now_ns: u64, rng: &mut Rng) -> u64 {
        assert!(from != to, "core {} sent a message to itself", from.0);
        assert!(usize::from(to.0) < self.cores, "there is no core {}", to.0);
        let mut transit_ns = rng.below(TRANSIT_NS_MAX);
        if rng.below(LATE_ONE_IN) == 0 {
            transit_ns *= rng.between(1, LATE_FACTOR);
        }
        let pair = self.pair(from, to);
        pair.transit.push_back(message);
        pair.last_arrival_ns = pair.last_arrival_ns.max(now_ns + transit_ns);
        pair.last_arrival_ns
    }

    /// The oldest message of the pair arrives.
    pub fn deliver(&mut self, from: CoreId, to: CoreId) {
        let message = self
            .pair(from, to)
            .transit
            .pop_front()
            .expect("a delivery for each message sent");
        let inbox = &mut self.inboxes[usize::from(to.0)];
        inbox.arrived.push((from, message));
        if let Some(waiter) = inbox.waiter.take() {
            waiter.wake();
        }
    }

    /// What has arrived; when that is nothing, `waiter` is woken by the next arrival.
    pub fn receive(&mut self, core: CoreId, waiter: &Waker) -> Option<Vec<(CoreId, M)>> {
        let inbox = &mut self.inboxes[usize::from(core.0)];
        if inbox.arrived.is_empty() {
            inbox.waiter = Some(waiter.clone());
            return None;
        }
        Some(std::mem::take(&mut inbox.arrived))
    }

    fn pair(&mut self, from: CoreId, to: CoreId) -> &mut Pair<M> {
        &mut self.pairs[usize::from(from.0) * self.cores + usize::from(to.0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_never_overtakes_and_pairs_do() {
        let mut rng = Rng::new(5);
        let mut mesh = Mesh::new(3);
        let mut last = [0, 0];
        let mut overtaken = false;
        for number in 0..1000u64 {
            let from = (number % 2) as usize;
            let at = mesh.send(CoreId(from as u16), CoreId(2), number, number, &mut rng);
            assert!(at >= last[from]);
            overtaken |= at < last[1 - from];
            last[from] = at;
        }
        assert!(overtaken);
    }
}
