//! What a connection has read and not yet used, and the buffers that it borrows for it.
//!
//! Invariant: bytes leave in the order in which they came, and what one request does not use is there for the
//! next. A buffer's size never changes.

use crate::limits::{READ_BUFFER_BYTES, SPARE_BUFFERS_MAX};
use std::cell::RefCell;

/// Bytes of a response's head buffer that are kept from one response to the next.
const OUTPUT_BYTES_KEPT: usize = 16 * 1024;

/// Bytes read from a connection, first in, first out.
pub struct Input {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

/// What a connection works with while it serves requests.
pub struct Buffers {
    pub input: Input,
    /// Where response heads are put together.
    pub output: Vec<u8>,
}

/// A core's buffers that no connection uses.
#[derive(Default)]
pub struct Spares(RefCell<Vec<Buffers>>);

impl Default for Input {
    fn default() -> Self {
        Input {
            bytes: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }
}

impl Input {
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The bytes that have come and are not used.
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The first `count` of them are used.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.end - self.start, "what is used was there");
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Takes up to `dst.len()` bytes; gives how many.
    pub fn take(&mut self, dst: &mut [u8]) -> usize {
        let count = dst.len().min(self.end - self.start);
        dst[..count].copy_from_slice(&self.unread()[..count]);
        self.consume(count);
        count
    }

    /// Where more can be read; empty only if the buffer is full of unused bytes.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.bytes[self.end..]
    }

    /// `count` bytes were put at the start of the space.
    pub fn filled(&mut self, count: usize) {
        assert!(count <= self.bytes.len() - self.end, "what was read fits");
        self.end += count;
    }

    fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }
}

impl Spares {
    pub fn take(&self) -> Buffers {
        let spare = self.0.borrow_mut().pop();
        spare.unwrap_or_else(|| Buffers {
            input: Input::default(),
            output: Vec::new(),
        })
    }

    /// Keeps `buffers` for another connection, or lets go of them if there are enough.
    pub fn put(&self, mut buffers: Buffers) {
        buffers.input.clear();
        buffers.output.clear();
        buffers.output.shrink_to(OUTPUT_BYTES_KEPT);
        let mut spares = self.0.borrow_mut();
        if spares.len() < SPARE_BUFFERS_MAX {
            spares.push(buffers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(input: &mut Input, bytes: &[u8]) {
        input.space()[..bytes.len()].copy_from_slice(bytes);
        input.filled(bytes.len());
    }

    #[test]
    fn bytes_leave_as_they_came() {
        let mut input = Input::default();
        let mut model = Vec::new();
        for round in 0..2000usize {
            let bytes: Vec<u8> = (0..round % 37).map(|at| (round + at) as u8).collect();
            feed(&mut input, &bytes);
            model.extend(bytes);
            let mut dst = vec![0; round % 31];
            let taken = input.take(&mut dst);
            assert!(taken == dst.len().min(model.len()) && dst[..taken] == model[..taken]);
            model.drain(..taken);
            let used = (round % 11).min(model.len());
            input.consume(used);
            model.drain(..used);
            assert_eq!(input.unread(), model);
        }
    }

    #[test]
    fn a_full_buffer_has_no_space_until_some_is_used() {
        let mut input = Input::default();
        feed(&mut input, &[7; READ_BUFFER_BYTES]);
        assert!(input.space().is_empty());
        input.consume(10);
        assert_eq!(
            (input.space().len(), input.unread().len()),
            (10, READ_BUFFER_BYTES - 10)
        );
    }

    #[test]
    fn a_spare_holds_nothing_of_its_last_connection() {
        let spares = Spares::default();
        let mut buffers = spares.take();
        feed(&mut buffers.input, b"secret");
        buffers.output.extend_from_slice(b"secret");
        spares.put(buffers);
        let again = spares.take();
        assert!(again.input.is_empty() && again.output.is_empty());
    }
}
