//! Simulated time: what is to happen when, and what the wall clock says.
//!
//! Time goes on only when the world says so: a little for each poll of a task, and to the next
//! event when no task is ready. So an hour of time-outs costs no waiting.
//!
//! Invariant: events come out ordered by time, and by when they were put in where times are equal.
//! Monotonic time never goes back; the wall clock may, when asked to.

use super::rng::Rng;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// The furthest that the wall clock jumps at once, in milliseconds.
const WALL_JUMP_MS_MAX: u64 = 2 * 60 * 60 * 1000;

pub(super) struct Clock<E> {
    now_ns: u64,
    /// What the wall clock showed when monotonic time was 0; moved by jumps.
    wall_base_ms: u64,
    agenda: BinaryHeap<Entry<E>>,
    entries: u64,
}

struct Entry<E> {
    at_ns: u64,
    number: u64,
    event: E,
}

impl<E> Clock<E> {
    pub fn new(now_ns: u64, unix_ms: u64) -> Clock<E> {
        Clock {
            now_ns,
            wall_base_ms: unix_ms.saturating_sub(now_ns / 1_000_000),
            agenda: BinaryHeap::new(),
            entries: 0,
        }
    }

    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    pub fn unix_ms(&self) -> u64 {
        self.wall_base_ms + self.now_ns / 1_000_000
    }

    /// Moves the wall clock, back as often as forward.
    pub fn jump(&mut self, rng: &mut Rng) {
        let by_ms = rng.between(1, WALL_JUMP_MS_MAX);
        self.wall_base_ms = match rng.coin() {
            true => self.wall_base_ms.saturating_add(by_ms),
            false => self.wall_base_ms.saturating_sub(by_ms),
        };
    }

    pub fn advance(&mut self, by_ns: u64) {
        self.now_ns += by_ns;
    }

    pub fn schedule_in(&mut self, delay_ns: u64, event: E) {
        self.schedule_at(self.now_ns.saturating_add(delay_ns), event);
    }

    /// A time that is past already means now.
    pub fn schedule_at(&mut self, at_ns: u64, event: E) {
        let number = self.entries;
        self.entries += 1;
        self.agenda.push(Entry { at_ns, number, event });
    }

    /// The first event whose time has come.
    pub fn take_due(&mut self) -> Option<E> {
        if self.agenda.peek()?.at_ns > self.now_ns {
            return None;
        }
        self.agenda.pop().map(|entry| entry.event)
    }

    /// The first event, whose time it becomes.
    pub fn take_next(&mut self) -> Option<E> {
        let entry = self.agenda.pop()?;
        self.now_ns = self.now_ns.max(entry.at_ns);
        Some(entry.event)
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    /// Reversed: `BinaryHeap` gives the greatest first, and the earliest is wanted.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_ns, other.number).cmp(&(self.at_ns, self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_by_entry() {
        let mut clock = Clock::new(0, 0);
        clock.schedule_in(5, "b");
        clock.schedule_in(9, "d");
        clock.schedule_in(5, "c");
        clock.schedule_in(1, "a");
        let order: Vec<_> = std::iter::from_fn(|| clock.take_next()).collect();
        assert_eq!(order, ["a", "b", "c", "d"]);
        assert_eq!(clock.now_ns(), 9);
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let mut clock = Clock::new(100, 0);
        clock.schedule_in(10, ());
        clock.advance(9);
        assert_eq!(clock.take_due(), None);
        clock.advance(1);
        assert_eq!(clock.take_due(), Some(()));
    }

    #[test]
    fn only_the_wall_clock_jumps() {
        let mut clock: Clock<()> = Clock::new(7_000_000, 1_700_000_000_000);
        let mut rng = Rng::new(1);
        let mut went_back = false;
        for _ in 0..20 {
            let before = clock.unix_ms();
            clock.jump(&mut rng);
            went_back |= clock.unix_ms() < before;
            assert_eq!(clock.now_ns(), 7_000_000);
        }
        assert!(went_back);
    }
}
