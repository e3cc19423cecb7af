//! `Transfer-Encoding: chunked`, decoded without copying (RFC 9112 7.1).
//!
//! A decoder says where in the caller's bytes the payload lies. It keeps a handful of integers and
//! holds nothing of what it has read.
//!
//! Invariant: the items that a body gives do not depend on how its bytes were split over calls, but
//! for where data is cut. What follows the body is never consumed: it is the next request.

use std::ops::Range;

use crate::limits::{CHUNK_HEAD_BYTES_MAX, TRAILER_BYTES_MAX};

/// Hex digits of a chunk's size, leading zeroes included.
const SIZE_DIGITS_MAX: u8 = 16;

/// Why a chunked body was refused. The connection's framing is lost: answer and close.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyError {
    /// A size that is not 1 to 16 hex digits followed by CRLF or an extension.
    MalformedSize,
    /// A size past `i64::MAX`.
    ChunkTooLarge,
    /// A size line past [`CHUNK_HEAD_BYTES_MAX`].
    SizeLineTooLong,
    /// A chunk's data is not followed by CRLF.
    MalformedChunkEnd,
    /// A trailer line with a control byte, or that does not end in CRLF.
    MalformedTrailer,
    /// A trailer section past [`TRAILER_BYTES_MAX`].
    TrailerTooLarge,
}

/// What a call of [`ChunkedDecoder::step`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// All of the input was consumed; the body goes on.
    NeedMore,
    /// Payload, as a range of the input. Never empty, and the last thing consumed.
    Data(Range<usize>),
    /// The body is complete. What was not consumed belongs to the next request.
    End,
}

/// One item, and how many bytes of the input to drop before the next call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    pub consumed: usize,
    pub item: Item,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Size,
    Extension,
    SizeLineFeed,
    Data,
    DataCarriageReturn,
    DataLineFeed,
    TrailerLineStart,
    TrailerLine,
    TrailerLineFeed,
    FinalLineFeed,
    End,
    Failed(BodyError),
}

/// Decodes one body; a new one is made for each request. Its trailer section is read and discarded.
#[derive(Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// Size of the chunk, then what remains of its data.
    remaining: u64,
    size_digits: u8,
    /// Of the size line, or of the trailer section.
    line_bytes: usize,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        ChunkedDecoder::new()
    }
}

impl ChunkedDecoder {
    pub fn new() -> ChunkedDecoder {
        ChunkedDecoder {
            state: State::Size,
            remaining: 0,
            size_digits: 0,
            line_bytes: 0,
        }
    }

    /// Reads `input`, the bytes that follow those consumed so far, up to the next item.
    /// After [`Item::End`] it gives that again and consumes nothing; an error is given again too.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, BodyError> {
        let mut at = 0;
        loop {
            match self.state {
                State::End => {
                    return Ok(Step {
                        consumed: at,
                        item: Item::End,
                    });
                }
                State::Failed(error) => return Err(error),
                State::Data if at < input.len() => return Ok(self.take_data(input, at)),
                _ => {}
            }
            let Some(&byte) = input.get(at) else {
                return Ok(Step {
                    consumed: at,
                    item: Item::NeedMore,
                });
            };
            at += 1;
            self.state = self.advance(byte).unwrap_or_else(State::Failed);
        }
    }

    fn take_data(&mut self, input: &[u8], at: usize) -> Step {
        let available = input.len() - at;
        let length = usize::try_from(self.remaining).map_or(available, |remaining| remaining.min(available));
        self.remaining -= length as u64;
        if self.remaining == 0 {
            self.state = State::DataCarriageReturn;
        }
        Step {
            consumed: at + length,
            item: Item::Data(at..at + length),
        }
    }

    /// The state after `byte`, which is not payload.
    fn advance(&mut self, byte: u8) -> Result<State, BodyError> {
        match (self.state, byte) {
            (State::Size, b'\r') if self.size_digits > 0 => Ok(State::SizeLineFeed),
            (State::Size, b';') if self.size_digits > 0 => self.count_size_line(State::Extension),
            (State::Size, _) => self.add_size_digit(byte),
            (State::Extension, b'\r') => Ok(State::SizeLineFeed),
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => self.count_size_line(State::Extension),
            (State::SizeLineFeed, b'\n') => Ok(self.begin_chunk()),
            (State::Extension | State::SizeLineFeed, _) => Err(BodyError::MalformedSize),

            (State::DataCarriageReturn, b'\r') => Ok(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => Ok(State::Size),
            (State::Data | State::DataCarriageReturn | State::DataLineFeed, _) => {
                Err(BodyError::MalformedChunkEnd)
            }

            (State::TrailerLineStart, b'\r') => Ok(State::FinalLineFeed),
            (State::FinalLineFeed, b'\n') => Ok(State::End),
            (State::TrailerLine, b'\r') => Ok(State::TrailerLineFeed),
            (State::TrailerLineFeed, b'\n') => self.count_trailer(State::TrailerLineStart),
            (State::TrailerLineStart | State::TrailerLine, b'\t' | b' '..=b'~' | 0x80..) => {
                self.count_trailer(State::TrailerLine)
            }
            (
                State::TrailerLineStart | State::TrailerLine | State::TrailerLineFeed | State::FinalLineFeed,
                _,
            ) => Err(BodyError::MalformedTrailer),

            (State::End, _) => Ok(State::End),
            (State::Failed(error), _) => Err(error),
        }
    }

    fn add_size_digit(&mut self, byte: u8) -> Result<State, BodyError> {
        let digit = char::from(byte).to_digit(16).ok_or(BodyError::MalformedSize)?;
        if self.size_digits == SIZE_DIGITS_MAX {
            return Err(BodyError::MalformedSize);
        }
        self.size_digits += 1;
        self.remaining = self.remaining << 4 | u64::from(digit);
        if self.remaining > i64::MAX as u64 {
            return Err(BodyError::ChunkTooLarge);
        }
        self.count_size_line(State::Size)
    }

    fn begin_chunk(&mut self) -> State {
        self.size_digits = 0;
        self.line_bytes = 0;
        if self.remaining == 0 {
            State::TrailerLineStart
        } else {
            State::Data
        }
    }

    fn count_size_line(&mut self, next: State) -> Result<State, BodyError> {
        self.line_bytes += 1;
        if self.line_bytes > CHUNK_HEAD_BYTES_MAX {
            Err(BodyError::SizeLineTooLong)
        } else {
            Ok(next)
        }
    }

    fn count_trailer(&mut self, next: State) -> Result<State, BodyError> {
        self.line_bytes += 1;
        if self.line_bytes > TRAILER_BYTES_MAX {
            Err(BodyError::TrailerTooLarge)
        } else {
            Ok(next)
        }
    }
}
