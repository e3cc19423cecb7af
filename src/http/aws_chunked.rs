//! S3's `aws-chunked` content encoding: chunks with signatures, then trailers.
//!
//! It lies inside the body that Content-Length or `Transfer-Encoding: chunked` delimits
//! (S3 API, "Signature calculations for the Authorization header: transferring payload in multiple
//! chunks" and "... including trailing headers"):
//! ```text
//! size-hex[;chunk-signature=64hex] CRLF data CRLF      any number of times
//! 0[;chunk-signature=64hex] CRLF
//! [name:value EOL]...                                  with trailers
//! [x-amz-trailer-signature:64hex CRLF]                 with trailers, signed
//! CRLF
//! ```
//! Clients differ in the end: minio-go and the S3 documentation end a trailer with LF CRLF, the SDKs
//! with CRLF; SDK for JavaScript v3 leaves out the last CRLF when it has no trailer; some end
//! the last trailer with nothing. All of these are read.
//!
//! Invariant: the items do not depend on how the bytes were split over calls, but for where data is cut;
//! no more than a line is held; `End` is given only if the payload has the declared length and
//! every signature that was expected was there. It checks no signature: that is for who has the key.

use std::borrow::Cow;
use std::ops::Range;

use super::head::is_token;
use crate::limits::{CHUNK_HEAD_BYTES_MAX, PUT_BYTES_MAX, TRAILER_BYTES_MAX};

/// Trailers of one body; S3 knows one, the checksum.
const TRAILERS_MAX: usize = 16;
/// Hex digits of a chunk's size, leading zeroes included.
const SIZE_DIGITS_MAX: usize = 16;
/// Hex digits of an HMAC-SHA256.
const SIGNATURE_DIGITS: usize = 64;
const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature";

/// What the request's head announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expect {
    /// Each chunk has a signature, and so have the trailers: `STREAMING-AWS4-HMAC-SHA256-PAYLOAD[-TRAILER]`.
    pub signed: bool,
    /// Trailers follow the last chunk: `STREAMING-...-TRAILER`.
    pub trailers: bool,
}

/// Why an aws-chunked body was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AwsChunkedError {
    /// A chunk's first line is not as above, or has a signature where none was expected, or lacks one.
    MalformedChunkHead,
    /// A chunk's first line past [`CHUNK_HEAD_BYTES_MAX`].
    ChunkHeadTooLong,
    /// A chunk, or all of them, past [`PUT_BYTES_MAX`].
    TooLarge,
    /// A chunk's data is not followed by CRLF.
    MalformedChunkEnd,
    /// More payload than x-amz-decoded-content-length said.
    MoreThanDeclared,
    /// Less payload than x-amz-decoded-content-length said.
    LessThanDeclared,
    /// A trailer that is not `name:value` in printable ASCII, or after the trailers' signature, or not expected.
    MalformedTrailer,
    /// Trailers past [`TRAILER_BYTES_MAX`], or more than 16.
    TrailerTooLarge,
    /// Signed trailers without x-amz-trailer-signature.
    MissingTrailerSignature,
    /// The body ended before the encoding did.
    Incomplete,
    /// The encoding ended before the body did.
    TrailingBytes,
}

/// A header after the payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trailer {
    /// In lower case.
    pub name: String,
    /// Without whitespace around it.
    pub value: String,
}

impl Trailer {
    /// Appends what the signature of the trailers hashes for this one: `name:value LF`, in the order received.
    pub fn write_canonical(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.name.as_bytes());
        out.push(b':');
        out.extend_from_slice(self.value.as_bytes());
        out.push(b'\n');
    }
}

/// What a call of [`AwsChunkedDecoder::step`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// All of the input was consumed; the body goes on.
    NeedMore,
    /// A chunk begins. `size` is in bytes; the last chunk's is 0. The signature is there if one was expected.
    ChunkHead {
        size: u64,
        signature: Option<[u8; SIGNATURE_DIGITS]>,
    },
    /// Payload of the chunk, as a range of the input. Never empty, and the last thing consumed.
    Data(Range<usize>),
    /// The chunk is complete, also the last one: its signature can be checked.
    ChunkEnd,
    /// One trailer; after the last chunk.
    Trailer(Trailer),
    /// The signature over all trailers, which came before it.
    TrailerSignature([u8; SIGNATURE_DIGITS]),
    /// The body is complete.
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
    ChunkHead,
    Data {
        remaining: u64,
    },
    DataCarriageReturn,
    DataLineFeed,
    LastChunkEnd,
    /// No trailers are expected: CRLF, or nothing.
    FinalLine,
    Trailers(LineBefore),
    End,
    Failed(AwsChunkedError),
}

/// How the line before a trailer's ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LineBefore {
    /// With CRLF: an empty line is the end.
    Whole,
    /// With LF alone: an empty line may be the rest of its ending.
    BareLineFeed,
}

/// Decodes one body; a new one is made for each request.
#[derive(Debug)]
pub struct AwsChunkedDecoder {
    expect: Expect,
    declared_bytes: Option<u64>,
    decoded_bytes: u64,
    state: State,
    /// The start of a line that was split over calls; at most its limit.
    partial_line: Vec<u8>,
    trailer_bytes: usize,
    trailers: usize,
    has_trailer_signature: bool,
    is_closed: bool,
}

impl AwsChunkedDecoder {
    /// `decoded_length` is x-amz-decoded-content-length in bytes, if the request has it.
    pub fn new(expect: Expect, decoded_length: Option<u64>) -> AwsChunkedDecoder {
        AwsChunkedDecoder {
            expect,
            declared_bytes: decoded_length,
            decoded_bytes: 0,
            state: State::ChunkHead,
            partial_line: Vec::new(),
            trailer_bytes: 0,
            trailers: 0,
            has_trailer_signature: false,
            is_closed: false,
        }
    }

    /// Says that the body has no bytes after those not yet consumed. From then on [`Item::NeedMore`] is not
    /// given: what is left decides between [`Item::End`] and an error. Call it when the outer
    /// framing ends, in any case: only then is a body without its last CRLF complete.
    pub fn close(&mut self) {
        self.is_closed = true;
    }

    /// Reads `input`, the bytes of the body that follow those consumed so far, up to the next item.
    /// The caller passes no byte from after the body: bytes after [`Item::End`] are an error.
    /// With nothing to read, [`Item::End`] is given again; an error is given again always.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, AwsChunkedError> {
        let mut at = 0;
        loop {
            let (consumed, item) = self.advance(&input[at..]).inspect_err(|&error| {
                self.state = State::Failed(error);
            })?;
            let item_start = at;
            at += consumed;
            match item {
                Some(Item::Data(range)) => {
                    let range = item_start + range.start..item_start + range.end;
                    return Ok(Step {
                        consumed: at,
                        item: Item::Data(range),
                    });
                }
                Some(item) => return Ok(Step { consumed: at, item }),
                None => {}
            }
        }
    }

    /// One move: bytes consumed, and the item if they completed one.
    fn advance(&mut self, input: &[u8]) -> Result<(usize, Option<Item>), AwsChunkedError> {
        match self.state {
            State::ChunkHead => self.read_chunk_head(input),
            State::Data { remaining } => self.read_data(remaining, input),
            State::DataCarriageReturn => self.read_byte(b'\r', State::DataLineFeed, input),
            State::DataLineFeed => {
                let (consumed, item) = self.read_byte(b'\n', State::ChunkHead, input)?;
                Ok((consumed, item.or(Some(Item::ChunkEnd))))
            }
            State::LastChunkEnd => {
                self.state = if self.expect.trailers {
                    State::Trailers(LineBefore::Whole)
                } else {
                    State::FinalLine
                };
                Ok((0, Some(Item::ChunkEnd)))
            }
            State::FinalLine => self.read_final_line(input),
            State::Trailers(before) => self.read_trailer(before, input),
            State::End if input.is_empty() => Ok((0, Some(Item::End))),
            State::End => Err(AwsChunkedError::TrailingBytes),
            State::Failed(error) => Err(error),
        }
    }

    fn read_chunk_head(&mut self, input: &[u8]) -> Result<(usize, Option<Item>), AwsChunkedError> {
        let (consumed, line) =
            self.take_line(input, CHUNK_HEAD_BYTES_MAX, AwsChunkedError::ChunkHeadTooLong)?;
        let Some(line) = line else {
            return Ok((consumed, self.starved(consumed, input)?));
        };
        let (size, signature) = parse_chunk_head(&line)?;
        if signature.is_some() != self.expect.signed {
            return Err(AwsChunkedError::MalformedChunkHead);
        }
        self.count(size)?;
        self.state = if size == 0 {
            State::LastChunkEnd
        } else {
            State::Data { remaining: size }
        };
        Ok((consumed, Some(Item::ChunkHead { size, signature })))
    }

    /// Refuses a chunk on its head, before its data is taken in.
    fn count(&mut self, size: u64) -> Result<(), AwsChunkedError> {
        if size > PUT_BYTES_MAX - self.decoded_bytes {
            return Err(AwsChunkedError::TooLarge);
        }
        self.decoded_bytes += size;
        match self.declared_bytes {
            Some(declared) if self.decoded_bytes > declared => Err(AwsChunkedError::MoreThanDeclared),
            Some(declared) if size == 0 && self.decoded_bytes < declared => {
                Err(AwsChunkedError::LessThanDeclared)
            }
            _ => Ok(()),
        }
    }

    fn read_data(&mut self, remaining: u64, input: &[u8]) -> Result<(usize, Option<Item>), AwsChunkedError> {
        if input.is_empty() {
            return Ok((0, self.starved(0, input)?));
        }
        let length = usize::try_from(remaining).map_or(input.len(), |remaining| remaining.min(input.len()));
        let remaining = remaining - length as u64;
        self.state = if remaining == 0 {
            State::DataCarriageReturn
        } else {
            State::Data { remaining }
        };
        Ok((length, Some(Item::Data(0..length))))
    }

    fn read_byte(
        &mut self,
        expected: u8,
        next: State,
        input: &[u8],
    ) -> Result<(usize, Option<Item>), AwsChunkedError> {
        match input.first() {
            None => Ok((0, self.starved(0, input)?)),
            Some(&byte) if byte == expected => {
                self.state = next;
                Ok((1, None))
            }
            Some(_) => Err(AwsChunkedError::MalformedChunkEnd),
        }
    }

    fn read_final_line(&mut self, input: &[u8]) -> Result<(usize, Option<Item>), AwsChunkedError> {
        let (consumed, line) = self.take_line(input, 2, AwsChunkedError::MalformedTrailer)?;
        match line {
            Some(line) if *line == *b"\r\n" => self.state = State::End,
            Some(_) => return Err(AwsChunkedError::MalformedTrailer),
            None if self.is_closed && self.partial_line.is_empty() => self.state = State::End,
            None => return Ok((consumed, self.starved(consumed, input)?)),
        }
        Ok((consumed, None))
    }

    fn read_trailer(
        &mut self,
        before: LineBefore,
        input: &[u8],
    ) -> Result<(usize, Option<Item>), AwsChunkedError> {
        let room = TRAILER_BYTES_MAX - self.trailer_bytes;
        let (consumed, line) = self.take_line(input, room, AwsChunkedError::TrailerTooLarge)?;
        let line = match line {
            Some(line) => line,
            None if !self.is_closed => return Ok((consumed, Some(Item::NeedMore))),
            None => Cow::Owned(std::mem::take(&mut self.partial_line)),
        };
        self.trailer_bytes += line.len();
        let (text, line_end) = split_line_end(&line);
        if text.is_empty() {
            // The end; or, right after a bare LF and with a line end of its own, the CRLF of LF CRLF.
            self.state = match before {
                LineBefore::BareLineFeed if !line.is_empty() => State::Trailers(LineBefore::Whole),
                LineBefore::BareLineFeed | LineBefore::Whole => self.finish_trailers()?,
            };
            return Ok((consumed, None));
        }
        self.state = State::Trailers(line_end);
        Ok((consumed, Some(self.parse_trailer(text)?)))
    }

    fn parse_trailer(&mut self, text: &[u8]) -> Result<Item, AwsChunkedError> {
        let trailer = parse_trailer(text)?;
        if self.has_trailer_signature {
            return Err(AwsChunkedError::MalformedTrailer);
        }
        if trailer.name == TRAILER_SIGNATURE {
            if !self.expect.signed {
                return Err(AwsChunkedError::MalformedTrailer);
            }
            self.has_trailer_signature = true;
            let signature = parse_signature(trailer.value.as_bytes());
            return Ok(Item::TrailerSignature(
                signature.ok_or(AwsChunkedError::MalformedTrailer)?,
            ));
        }
        self.trailers += 1;
        if self.trailers > TRAILERS_MAX {
            return Err(AwsChunkedError::TrailerTooLarge);
        }
        Ok(Item::Trailer(trailer))
    }

    fn finish_trailers(&self) -> Result<State, AwsChunkedError> {
        if self.expect.signed && !self.has_trailer_signature {
            return Err(AwsChunkedError::MissingTrailerSignature);
        }
        Ok(State::End)
    }

    /// What to say when the input does not complete anything: all of it was consumed, or an error is next.
    fn starved(&self, consumed: usize, input: &[u8]) -> Result<Option<Item>, AwsChunkedError> {
        debug_assert_eq!(consumed, input.len());
        if self.is_closed {
            Err(AwsChunkedError::Incomplete)
        } else {
            Ok(Some(Item::NeedMore))
        }
    }

    /// The next line with its LF, at most `max` bytes of it. A line that is split over calls is gathered.
    fn take_line<'a>(
        &mut self,
        input: &'a [u8],
        max: usize,
        too_long: AwsChunkedError,
    ) -> Result<(usize, Option<Cow<'a, [u8]>>), AwsChunkedError> {
        let room = max.saturating_sub(self.partial_line.len());
        let window = &input[..input.len().min(room)];
        match window.iter().position(|&byte| byte == b'\n') {
            Some(at) if self.partial_line.is_empty() => Ok((at + 1, Some(Cow::Borrowed(&window[..=at])))),
            Some(at) => {
                self.partial_line.extend_from_slice(&window[..=at]);
                Ok((at + 1, Some(Cow::Owned(std::mem::take(&mut self.partial_line)))))
            }
            None if window.len() == room && !input.is_empty() => Err(too_long),
            None => {
                self.partial_line.extend_from_slice(window);
                Ok((window.len(), None))
            }
        }
    }
}

/// `size-hex[;chunk-signature=64hex] CRLF`.
fn parse_chunk_head(line: &[u8]) -> Result<(u64, Option<[u8; SIGNATURE_DIGITS]>), AwsChunkedError> {
    let malformed = AwsChunkedError::MalformedChunkHead;
    let text = line.strip_suffix(b"\r\n").ok_or(malformed)?;
    let digits = text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, extension) = text.split_at(digits);
    if digits.is_empty() || digits.len() > SIZE_DIGITS_MAX {
        return Err(malformed);
    }
    let size = digits.iter().fold(0u64, |size, &digit| {
        size << 4 | u64::from(char::from(digit).to_digit(16).unwrap_or_default())
    });
    if extension.is_empty() {
        return Ok((size, None));
    }
    let signature = extension
        .strip_prefix(b";chunk-signature=")
        .and_then(parse_signature);
    Ok((size, Some(signature.ok_or(malformed)?)))
}

fn parse_signature(text: &[u8]) -> Option<[u8; SIGNATURE_DIGITS]> {
    let signature: [u8; SIGNATURE_DIGITS] = text.try_into().ok()?;
    signature.iter().all(u8::is_ascii_hexdigit).then_some(signature)
}

fn split_line_end(line: &[u8]) -> (&[u8], LineBefore) {
    match line {
        [text @ .., b'\r', b'\n'] => (text, LineBefore::Whole),
        [text @ .., b'\n'] => (text, LineBefore::BareLineFeed),
        text => (text, LineBefore::Whole),
    }
}

/// `name:value`, with whitespace allowed around both, as S3 does.
fn parse_trailer(text: &[u8]) -> Result<Trailer, AwsChunkedError> {
    let malformed = AwsChunkedError::MalformedTrailer;
    let text = std::str::from_utf8(text).map_err(|_| malformed)?;
    let (name, value) = text.split_once(':').ok_or(malformed)?;
    let (name, value) = (name.trim_matches([' ', '\t']), value.trim_matches([' ', '\t']));
    let is_value = value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    if !is_token(name) || !is_value {
        return Err(malformed);
    }
    Ok(Trailer {
        name: name.to_ascii_lowercase(),
        value: value.to_owned(),
    })
}
