//! Whether a peer sends or takes its bytes fast enough.
//!
//! Two allowances of bytes, each with its rate: every second in which the peer is waited for costs what the rate asks
//! for, every byte that moves is given back, and no more is saved up than the allowance had at first. So an
//! allowance is spent by a silence, or by a longer time below the rate. One decides when a peer is given up, the
//! other when it must not be in the way of others.
//!
//! Invariant: a peer at its rate is never too slow, and neither is one that is not waited for. Time is counted in
//! the seconds that it is told of; there is no clock here.

use crate::limits::{
    PEER_BYTES_PER_S_MIN, SHORTAGE_BYTES_PER_S_MIN, SHORTAGE_PATIENCE, STALL_TIMEOUT, SWEEP_INTERVAL,
};
use std::cell::Cell;

const _: () = assert!(SWEEP_INTERVAL.as_secs() == 1);

/// One second more than was promised: the first one may be told of at once.
const PATIENCE_BYTES: u64 = (STALL_TIMEOUT.as_secs() + 1) * PEER_BYTES_PER_S_MIN;
const SHORTAGE_PATIENCE_BYTES: u64 = (SHORTAGE_PATIENCE.as_secs() + 1) * SHORTAGE_BYTES_PER_S_MIN;

/// How fast the peer of one connection is.
pub struct Pace {
    /// Bytes that were received and sent.
    moved: Cell<u64>,
    /// What of them has been given back.
    credited: Cell<u64>,
    patience_bytes: Cell<u64>,
    shortage_patience_bytes: Cell<u64>,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            moved: Cell::new(0),
            credited: Cell::new(0),
            patience_bytes: Cell::new(PATIENCE_BYTES),
            shortage_patience_bytes: Cell::new(SHORTAGE_PATIENCE_BYTES),
        }
    }
}

impl Pace {
    /// Something new begins: the peer has all its time again.
    pub fn begin(&self) {
        self.patience_bytes.set(PATIENCE_BYTES);
        self.shortage_patience_bytes.set(SHORTAGE_PATIENCE_BYTES);
    }

    /// So many bytes were received, or handed to the socket.
    pub fn moved(&self, bytes: usize) {
        self.moved.set(self.moved.get() + bytes as u64);
    }

    /// The peer is waited for this second; of what was handed to the socket it has yet to take `untaken` bytes.
    pub fn wait_a_second(&self, untaken: u64) {
        let taken = self.moved.get().saturating_sub(untaken);
        let gained = taken.saturating_sub(self.credited.get());
        self.credited.set(self.credited.get() + gained);
        charge(&self.patience_bytes, gained, PATIENCE_BYTES, PEER_BYTES_PER_S_MIN);
        charge(
            &self.shortage_patience_bytes,
            gained,
            SHORTAGE_PATIENCE_BYTES,
            SHORTAGE_BYTES_PER_S_MIN,
        );
    }

    /// Whether it is given up.
    pub fn is_too_slow(&self) -> bool {
        self.patience_bytes.get() == 0
    }

    /// Whether it is given up if others wait for the buffer that it fills.
    pub fn is_too_slow_in_shortage(&self) -> bool {
        self.shortage_patience_bytes.get() == 0
    }
}

fn charge(left: &Cell<u64>, gained: u64, bytes_max: u64, cost: u64) {
    let saved = left.get().saturating_add(gained).min(bytes_max);
    left.set(saved.saturating_sub(cost));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second in which a peer is given up that moves `bytes(second)` in each, if it is within a day.
    fn given_up(is_slow: fn(&Pace) -> bool, bytes: impl Fn(u64) -> u64) -> Option<u64> {
        let pace = Pace::default();
        (1..86_400).find(|&second| {
            pace.moved(bytes(second) as usize);
            pace.wait_a_second(0);
            is_slow(&pace)
        })
    }

    #[test]
    fn a_peer_is_given_up_for_silence_and_for_a_long_time_below_the_rate() {
        let given_up = |bytes: &dyn Fn(u64) -> u64| given_up(Pace::is_too_slow, bytes);
        assert_eq!(given_up(&|_| 0), Some(61));
        assert_eq!(given_up(&|second| u64::from(second % 59 == 0)), Some(62));
        assert_eq!(given_up(&|_| 1), Some(62));
        assert_eq!(given_up(&|_| PEER_BYTES_PER_S_MIN / 2), Some(121));
        assert_eq!(
            given_up(&|_| PEER_BYTES_PER_S_MIN - 1).map(|second| second / 3600),
            Some(8)
        );
        for fast in [PEER_BYTES_PER_S_MIN, 10_000, 1 << 40] {
            assert_eq!(given_up(&|_| fast), None);
        }
        // In bursts, as a link that comes and goes.
        assert_eq!(
            given_up(&|second| if second % 50 == 0 { 30_000 } else { 0 }),
            None
        );
        // However much came before, a silence is one.
        assert_eq!(
            given_up(&|second| if second <= 100 { 1 << 30 } else { 0 }),
            Some(100 + 60)
        );
    }

    #[test]
    fn in_shortage_a_peer_must_fill_a_buffer_in_the_time_that_others_wait() {
        let given_up = |bytes: &dyn Fn(u64) -> u64| given_up(Pace::is_too_slow_in_shortage, bytes);
        assert_eq!(SHORTAGE_BYTES_PER_S_MIN, 32 * 1024);
        assert_eq!(given_up(&|_| 0), Some(3));
        assert_eq!(given_up(&|_| 1000), Some(4));
        assert_eq!(given_up(&|second| if second == 1 { 1 << 30 } else { 0 }), Some(3));
        assert_eq!(given_up(&|_| SHORTAGE_BYTES_PER_S_MIN), None);
    }

    #[test]
    fn what_the_socket_holds_is_not_taken_yet() {
        let pace = Pace::default();
        pace.moved(4 << 20);
        // It takes 600 bytes a second of them: fast enough, though nothing more fits into the socket.
        for second in 1..6000 {
            pace.wait_a_second((4 << 20) - 600 * second);
            assert!(!pace.is_too_slow(), "{second}");
        }
        let left = (4 << 20) - 600 * 5999;
        let given_up = (1..100).find(|_| {
            pace.wait_a_second(left);
            pace.is_too_slow()
        });
        assert_eq!(given_up, Some(60));
    }

    #[test]
    fn a_new_request_has_all_its_time() {
        let pace = Pace::default();
        for _ in 0..10 {
            for _ in 0..60 {
                pace.wait_a_second(0);
                assert!(!pace.is_too_slow());
            }
            assert!(pace.is_too_slow_in_shortage());
            pace.begin();
            assert!(!pace.is_too_slow_in_shortage());
        }
    }
}
