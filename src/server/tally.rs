//! What one core counts of requests: by operation and status, how long, how many bytes, and what was refused unheard.
//!
//! Invariant: plain memory of one core, which alone writes it; a request costs some ten additions and two looks at the
//! clock. What labels can say is fixed here, so no client can make more of them.

use crate::engine::Durations;
use crate::s3::operation::Operation;
use std::array;
use std::cell::Cell;

/// Statuses that responses have; any other is counted as 0.
pub const STATUSES: [u16; 19] = [
    200, 204, 206, 304, 400, 403, 404, 405, 409, 411, 412, 416, 417, 431, 500, 501, 503, 507, 0,
];

/// Requests that never became an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unheard {
    /// The head was none, or too long.
    BadHead,
    /// The head did not come in time.
    LateHead,
    /// All connections were in use.
    NoRoom,
    /// The engine had not started.
    Starting,
}

impl Unheard {
    pub const ALL: [Unheard; 4] = [
        Unheard::BadHead,
        Unheard::LateHead,
        Unheard::NoRoom,
        Unheard::Starting,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Unheard::BadHead => "bad_head",
            Unheard::LateHead => "late_head",
            Unheard::NoRoom => "no_room",
            Unheard::Starting => "starting",
        }
    }
}

/// What a core has counted since its start.
#[derive(Clone)]
pub struct Tally {
    operations: [OperationTally; Operation::ALL.len()],
    unheard: [Cell<u64>; Unheard::ALL.len()],
    /// Connections that were taken.
    pub connections: Cell<u64>,
    /// Responses that ended with their connection before they were whole.
    pub unfinished: Cell<u64>,
}

/// Requests of one operation.
#[derive(Clone, Default)]
pub struct OperationTally {
    by_status: [Cell<u64>; STATUSES.len()],
    /// From the end of the head until the response was handed to the kernel, in nanoseconds.
    pub ns: Durations,
    /// Bytes of bodies, as they were on the connection.
    pub bytes_in: Cell<u64>,
    pub bytes_out: Cell<u64>,
}

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    pub operation: Operation,
    pub status: u16,
    pub ns: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Tally {
    pub fn note(&self, answered: &Answered) {
        let of = self.of(answered.operation);
        let known = STATUSES.iter().position(|&status| status == answered.status);
        count(&of.by_status[known.unwrap_or(STATUSES.len() - 1)], 1);
        of.ns.observe(answered.ns);
        count(&of.bytes_in, answered.bytes_in);
        count(&of.bytes_out, answered.bytes_out);
    }

    pub fn note_unheard(&self, why: Unheard) {
        count(&self.unheard[why as usize], 1);
    }

    pub fn of(&self, operation: Operation) -> &OperationTally {
        &self.operations[operation as usize]
    }

    pub fn unheard(&self, why: Unheard) -> u64 {
        self.unheard[why as usize].get()
    }
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            operations: array::from_fn(|_| OperationTally::default()),
            unheard: Default::default(),
            connections: Cell::default(),
            unfinished: Cell::default(),
        }
    }
}

impl OperationTally {
    /// Each status, and how many responses had it.
    pub fn by_status(&self) -> impl Iterator<Item = (u16, u64)> {
        STATUSES.into_iter().zip(self.by_status.iter().map(Cell::get))
    }
}

/// Counts up.
pub fn count(counter: &Cell<u64>, by: u64) {
    counter.set(counter.get() + by);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::error::ErrorCode;

    #[test]
    fn every_status_of_an_error_has_a_place() {
        for code in ErrorCode::ALL {
            assert!(STATUSES.contains(&code.status()), "{code}: {}", code.status());
        }
    }

    #[test]
    fn operations_and_statuses_are_counted_apart() {
        let tally = Tally::default();
        let put = |status| Answered {
            operation: Operation::PutObject,
            status,
            ns: 1000,
            bytes_in: 7,
            bytes_out: 0,
        };
        for status in [200, 200, 503, 299] {
            tally.note(&put(status));
        }
        let counted = tally.of(Operation::PutObject);
        let filled: Vec<_> = counted.by_status().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(200, 2), (503, 1), (0, 1)]);
        assert_eq!(
            (counted.ns.count(), counted.ns.sum(), counted.bytes_in.get()),
            (4, 4000, 28)
        );
        assert_eq!(tally.of(Operation::GetObject).ns.count(), 0);
    }
}
