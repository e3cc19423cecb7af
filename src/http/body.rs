//! `Transfer-Encoding: chunked`, decoded without copying (RFC 9112 7.1).
//!
//! A decoder says where in the caller's bytes the payload lies. It keeps a handful of integers and
//! holds nothing of what it has read.
//!
//! Invariant: the items that a body gives do not depend on how its bytes were split over calls, but
//! for where data is cut. What follows the body is never consumed: it is the next request.

use std::ops::Range;

use super::head::is_token_byte;
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
    /// A trailer line that is not `name:value`, with a control byte, or that does not end in CRLF.
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
    TrailerName,
    TrailerValue,
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
            (State::TrailerName, b':') => self.count_trailer(State::TrailerValue),
            (State::TrailerLineStart | State::TrailerName, _) if is_token_byte(byte) => {
                self.count_trailer(State::TrailerName)
            }
            (State::TrailerValue, b'\r') => Ok(State::TrailerLineFeed),
            (State::TrailerLineFeed, b'\n') => self.count_trailer(State::TrailerLineStart),
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => self.count_trailer(State::TrailerValue),
            (
                State::TrailerLineStart
                | State::TrailerName
                | State::TrailerValue
                | State::TrailerLineFeed
                | State::FinalLineFeed,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The payload, and what is left after the end; `None` if the body does not end.
    type Decoded = Result<Option<(Vec<u8>, usize)>, BodyError>;

    /// Feeds `body` in pieces of `piece_bytes`.
    fn decode(body: &[u8], piece_bytes: usize) -> Decoded {
        let mut decoder = ChunkedDecoder::new();
        let mut payload = Vec::new();
        let mut at = 0;
        while at < body.len() {
            let piece = &body[at..body.len().min(at + piece_bytes)];
            let mut taken = 0;
            loop {
                let step = decoder.step(&piece[taken..])?;
                let input = &piece[taken..];
                taken += step.consumed;
                match step.item {
                    Item::NeedMore => break,
                    Item::Data(range) => payload.extend_from_slice(&input[range]),
                    Item::End => return Ok(Some((payload, body.len() - at - taken))),
                }
            }
            assert_eq!(taken, piece.len(), "NeedMore leaves nothing");
            at += piece.len();
        }
        Ok(None)
    }

    /// The result of `body`, the same however it is split.
    fn decode_all_ways(body: &[u8]) -> Decoded {
        let whole = decode(body, body.len().max(1));
        for piece_bytes in 1..body.len().min(64) {
            assert_eq!(decode(body, piece_bytes), whole, "in pieces of {piece_bytes}");
        }
        whole
    }

    #[test]
    fn bodies_are_decoded_and_what_follows_is_left() {
        // body, payload, bytes left
        let table: [(&[u8], &[u8], usize); 8] = [
            (b"0\r\n\r\n", b"", 0),
            (b"5\r\nhello\r\n0\r\n\r\n", b"hello", 0),
            (
                b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nGET / HTTP/1.1\r\n",
                b"hello world",
                16,
            ),
            (b"0000000000000005\r\n\r\n\0\r\n\r\n0\r\n\r\n", b"\r\n\0\r\n", 0),
            (
                b"a\r\n0123456789\r\nA\r\n0123456789\r\n00\r\n\r\n",
                b"01234567890123456789",
                0,
            ),
            (b"2;name=value;x=\"y z\"\r\nab\r\n0;e\r\n\r\n", b"ab", 0),
            (b"0\r\nTrailer: value\r\nAnother: one\r\n\r\nx", b"", 1),
            (b"0\r\n\r\n\r\n", b"", 2),
        ];
        for (body, payload, left) in table {
            assert_eq!(
                decode_all_ways(body),
                Ok(Some((payload.to_vec(), left))),
                "{}",
                body.escape_ascii()
            );
        }
    }

    #[test]
    fn malformed_bodies_are_refused() {
        use BodyError::*;
        let table: [(&[u8], BodyError); 27] = [
            (b"\r\n", MalformedSize),
            (b";x\r\n", MalformedSize),
            (b"g\r\n", MalformedSize),
            (b"-1\r\n", MalformedSize),
            (b"+1\r\n", MalformedSize),
            (b"0x1\r\n", MalformedSize),
            (b" 1\r\n", MalformedSize),
            (b"1 \r\n", MalformedSize),
            (b"1\t\r\n", MalformedSize),
            (b"1\n", MalformedSize),
            (b"1\rx", MalformedSize),
            (b"1;a\nb\r\n", MalformedSize),
            (b"1;a\0\r\n", MalformedSize),
            (b"00000000000000001\r\n", MalformedSize),
            (b"8000000000000000\r\n", ChunkTooLarge),
            (b"ffffffffffffffff\r\n", ChunkTooLarge),
            (b"1\r\nab\r\n", MalformedChunkEnd),
            (b"1\r\na\n", MalformedChunkEnd),
            (b"1\r\na\r0", MalformedChunkEnd),
            (b"0\r\nA: b\n\r\n", MalformedTrailer),
            (b"0\r\n\n", MalformedTrailer),
            (b"0\r\nA\r\n\r\n", MalformedTrailer),
            (b"0\r\n: b\r\n\r\n", MalformedTrailer),
            (b"0\r\nA : b\r\n\r\n", MalformedTrailer),
            (b"0\r\nA: b\r\n c\r\n\r\n", MalformedTrailer),
            (b"0\r\nA: b\0\r\n\r\n", MalformedTrailer),
            (b"0\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", MalformedTrailer),
        ];
        for (body, error) in table {
            assert_eq!(decode_all_ways(body), Err(error), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn a_body_cut_anywhere_does_not_end() {
        let body = b"5;ext\r\nhello\r\n0\r\nA: b\r\n\r\n";
        for length in 0..body.len() {
            assert_eq!(decode_all_ways(&body[..length]), Ok(None), "at {length}");
        }
    }

    #[test]
    fn a_declared_size_costs_nothing() {
        let mut decoder = ChunkedDecoder::new();
        let step = decoder.step(b"7fffffffffffffff\r\nx").unwrap();
        assert_eq!(
            step,
            Step {
                consumed: 19,
                item: Item::Data(18..19)
            }
        );
        assert_eq!(decoder.remaining, i64::MAX as u64 - 1);
    }

    #[test]
    fn size_lines_and_trailers_are_bounded() {
        let line = |length: usize| format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(length)).into_bytes();
        assert!(
            decode_all_ways(&line(CHUNK_HEAD_BYTES_MAX - 2))
                .unwrap()
                .is_some()
        );
        assert_eq!(
            decode_all_ways(&line(CHUNK_HEAD_BYTES_MAX - 1)),
            Err(BodyError::SizeLineTooLong)
        );
        let trailers = |lines: usize| format!("0\r\n{}\r\n", "A: bcd\r\n".repeat(lines)).into_bytes();
        assert!(decode(&trailers(TRAILER_BYTES_MAX / 8), 7).unwrap().is_some());
        assert_eq!(
            decode(&trailers(TRAILER_BYTES_MAX / 4), 7),
            Err(BodyError::TrailerTooLarge)
        );
    }

    #[test]
    fn the_end_and_an_error_are_given_again() {
        let mut decoder = ChunkedDecoder::new();
        assert_eq!(decoder.step(b"0\r\n\r\n").unwrap().item, Item::End);
        assert_eq!(
            decoder.step(b"5\r\n"),
            Ok(Step {
                consumed: 0,
                item: Item::End
            })
        );
        let mut decoder = ChunkedDecoder::new();
        assert_eq!(decoder.step(b"x"), Err(BodyError::MalformedSize));
        assert_eq!(decoder.step(b"0\r\n\r\n"), Err(BodyError::MalformedSize));
    }
}
