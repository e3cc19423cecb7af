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

/// Bytes consumed, and the item that they completed.
type Progress = (usize, Option<Item>);
/// A line with its LF: a part of the input, or gathered over several calls.
type Line<'a> = Cow<'a, [u8]>;

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

    /// How much data of the chunk is still to come, if that is what comes next: whoever gives exactly so much, or less,
    /// gets it back as [`Item::Data`] whole.
    pub fn data_left(&self) -> Option<u64> {
        match self.state {
            State::Data { remaining } => Some(remaining),
            _ => None,
        }
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

    /// One transition of the state.
    fn advance(&mut self, input: &[u8]) -> Result<Progress, AwsChunkedError> {
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

    fn read_chunk_head(&mut self, input: &[u8]) -> Result<Progress, AwsChunkedError> {
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

    fn read_data(&mut self, remaining: u64, input: &[u8]) -> Result<Progress, AwsChunkedError> {
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

    fn read_byte(&mut self, expected: u8, next: State, input: &[u8]) -> Result<Progress, AwsChunkedError> {
        match input.first() {
            None => Ok((0, self.starved(0, input)?)),
            Some(&byte) if byte == expected => {
                self.state = next;
                Ok((1, None))
            }
            Some(_) => Err(AwsChunkedError::MalformedChunkEnd),
        }
    }

    fn read_final_line(&mut self, input: &[u8]) -> Result<Progress, AwsChunkedError> {
        let (consumed, line) = self.take_line(input, 2, AwsChunkedError::MalformedTrailer)?;
        match line {
            Some(line) if *line == *b"\r\n" => self.state = State::End,
            Some(_) => return Err(AwsChunkedError::MalformedTrailer),
            None if self.is_closed && self.partial_line.is_empty() => self.state = State::End,
            None => return Ok((consumed, self.starved(consumed, input)?)),
        }
        Ok((consumed, None))
    }

    fn read_trailer(&mut self, before: LineBefore, input: &[u8]) -> Result<Progress, AwsChunkedError> {
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
    ) -> Result<(usize, Option<Line<'a>>), AwsChunkedError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const UNSIGNED: Expect = Expect {
        signed: false,
        trailers: true,
    };
    const SIGNED: Expect = Expect {
        signed: true,
        trailers: false,
    };
    const SIGNED_TRAILERS: Expect = Expect {
        signed: true,
        trailers: true,
    };
    const PLAIN: Expect = Expect {
        signed: false,
        trailers: false,
    };

    fn signature(digit: char) -> String {
        digit.to_string().repeat(SIGNATURE_DIGITS)
    }

    /// Feeds `body` in pieces of `piece_bytes`, then closes; data that was cut is joined into text such as
    /// `head 5 data hello end trailer a=b signed c done`.
    fn decode(
        body: &[u8],
        expect: Expect,
        declared: Option<u64>,
        piece_bytes: usize,
    ) -> Result<String, AwsChunkedError> {
        let mut decoder = AwsChunkedDecoder::new(expect, declared);
        let mut seen = String::new();
        let mut in_data = false;
        let mut pieces = body.chunks(piece_bytes);
        let mut input: &[u8] = &[];
        loop {
            let step = decoder.step(input)?;
            let was_in_data = std::mem::replace(&mut in_data, matches!(step.item, Item::Data(_)));
            let text = match step.item {
                Item::NeedMore => {
                    assert_eq!(step.consumed, input.len(), "NeedMore leaves nothing");
                    in_data = was_in_data;
                    input = pieces.next().unwrap_or_else(|| {
                        decoder.close();
                        &[]
                    });
                    continue;
                }
                Item::ChunkHead {
                    size,
                    signature: None,
                } => format!("head {size:x} "),
                Item::ChunkHead {
                    size,
                    signature: Some(text),
                } => format!("head {size:x} {} ", char::from(text[0])),
                Item::Data(range) => {
                    assert!(!range.is_empty() && range.end == step.consumed);
                    let text = input[range].escape_ascii().to_string();
                    if was_in_data { text } else { format!("data {text}") }
                }
                Item::ChunkEnd => if was_in_data { " end " } else { "end " }.to_owned(),
                Item::Trailer(trailer) => format!("trailer {}={} ", trailer.name, trailer.value),
                Item::TrailerSignature(text) => format!("signed {} ", char::from(text[0])),
                Item::End if step.consumed == input.len() => {
                    for piece in pieces.by_ref() {
                        decoder.step(piece)?;
                    }
                    return Ok(seen + "done");
                }
                Item::End => String::new(),
            };
            seen.push_str(&text);
            input = &input[step.consumed..];
        }
    }

    /// The result of `body`, the same however it is split.
    fn decode_all_ways(body: &str, expect: Expect, declared: Option<u64>) -> Result<String, AwsChunkedError> {
        let whole = decode(body.as_bytes(), expect, declared, body.len().max(1));
        for piece_bytes in 1..body.len().min(200) {
            let pieces = decode(body.as_bytes(), expect, declared, piece_bytes);
            assert_eq!(pieces, whole, "in pieces of {piece_bytes}: {body:?}");
        }
        whole
    }

    fn accepted(body: &str, expect: Expect) -> String {
        decode_all_ways(body, expect, None).expect(body)
    }

    fn refusal(body: &str, expect: Expect) -> AwsChunkedError {
        decode_all_ways(body, expect, None).expect_err(body)
    }

    #[test]
    fn every_clients_unsigned_trailer_is_read() {
        let table = [
            (
                "botocore and the SDKs",
                "0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n",
            ),
            ("minio-go", "0\r\nx-amz-checksum-crc32:AAAAAA==\n\r\n\r\n"),
            (
                "the documentation, unsigned",
                "0\r\nx-amz-checksum-crc32:AAAAAA==\n\r\n",
            ),
            ("LF alone", "0\r\nx-amz-checksum-crc32:AAAAAA==\n\n"),
            ("no last CRLF", "0\r\nx-amz-checksum-crc32:AAAAAA==\r\n"),
            ("no line end", "0\r\nx-amz-checksum-crc32:AAAAAA=="),
            (
                "whitespace and case",
                "0\r\nX-Amz-Checksum-CRC32 : AAAAAA== \r\n\r\n",
            ),
        ];
        for (client, end) in table {
            let seen = accepted(&format!("5\r\nhello\r\n{end}"), UNSIGNED);
            assert_eq!(
                seen, "head 5 data hello end head 0 end trailer x-amz-checksum-crc32=AAAAAA== done",
                "{client}"
            );
        }
    }

    #[test]
    fn every_clients_signed_trailer_is_read() {
        let (a, b, c) = (signature('a'), signature('b'), signature('c'));
        for line_end in ["\r\n", "\n", "\n\r\n"] {
            for end in ["\r\n\r\n", "\r\n", "\n\r\n", "\n\r\n\r\n", ""] {
                let body = format!(
                    "2;chunk-signature={a}\r\nhi\r\n0;chunk-signature={b}\r\nx-amz-checksum-crc32c:sOO8/Q=={line_end}\
                     x-amz-trailer-signature:{c}{end}"
                );
                assert_eq!(
                    accepted(&body, SIGNED_TRAILERS),
                    "head 2 a data hi end head 0 b end trailer x-amz-checksum-crc32c=sOO8/Q== signed c done"
                );
            }
        }
    }

    #[test]
    fn the_last_line_end_may_be_missing_without_trailers() {
        let b = signature('b');
        for end in ["\r\n", ""] {
            assert_eq!(
                accepted(&format!("1\r\nx\r\n0\r\n{end}"), PLAIN),
                "head 1 data x end head 0 end done"
            );
            assert_eq!(
                accepted(&format!("0;chunk-signature={b}\r\n{end}"), SIGNED),
                "head 0 b end done"
            );
            // SDK for JavaScript v3 announces trailers and sends none when it has no checksum.
            assert_eq!(accepted(&format!("0\r\n{end}"), UNSIGNED), "head 0 end done");
        }
        for end in ["\r", "\n", "x", "\r\n\r\n", "a:b\r\n\r\n"] {
            let error = refusal(&format!("0\r\n{end}"), PLAIN);
            assert!(
                matches!(
                    error,
                    AwsChunkedError::MalformedTrailer
                        | AwsChunkedError::TrailingBytes
                        | AwsChunkedError::Incomplete
                ),
                "{end:?} {error:?}"
            );
        }
    }

    #[test]
    fn several_trailers_come_in_order_and_are_hashed_so() {
        let seen = accepted("0\r\nB: 2\r\na:1\n\r\nempty:\r\n\r\n", UNSIGNED);
        assert_eq!(seen, "head 0 end trailer b=2 trailer a=1 trailer empty= done");
        let mut hashed = Vec::new();
        Trailer {
            name: "b".into(),
            value: "2".into(),
        }
        .write_canonical(&mut hashed);
        Trailer {
            name: "a".into(),
            value: "1".into(),
        }
        .write_canonical(&mut hashed);
        assert_eq!(hashed, b"b:2\na:1\n");
    }

    #[test]
    fn chunk_heads_are_strict() {
        use AwsChunkedError::*;
        let a = signature('a');
        let short = &a[1..];
        let table = [
            ("\r\n".to_owned(), PLAIN, MalformedChunkHead),
            ("g\r\n".to_owned(), PLAIN, MalformedChunkHead),
            (" 1\r\n".to_owned(), PLAIN, MalformedChunkHead),
            ("1 \r\n".to_owned(), PLAIN, MalformedChunkHead),
            ("-1\r\n".to_owned(), PLAIN, MalformedChunkHead),
            ("1\nx\r\n".to_owned(), PLAIN, MalformedChunkHead),
            ("1;\r\n".to_owned(), PLAIN, MalformedChunkHead),
            ("1;name=value\r\n".to_owned(), PLAIN, MalformedChunkHead),
            ("00000000000000001\r\n".to_owned(), PLAIN, MalformedChunkHead),
            (format!("1;chunk-signature={a}\r\n"), PLAIN, MalformedChunkHead),
            ("1\r\n".to_owned(), SIGNED, MalformedChunkHead),
            (
                format!("1;chunk-signature={short}\r\n"),
                SIGNED,
                MalformedChunkHead,
            ),
            (format!("1;chunk-signature={a}a\r\n"), SIGNED, MalformedChunkHead),
            (
                format!("1;chunk-signature={short}g\r\n"),
                SIGNED,
                MalformedChunkHead,
            ),
            (format!("1; chunk-signature={a}\r\n"), SIGNED, MalformedChunkHead),
            (
                format!("1;chunk-signature={a};chunk-signature={a}\r\n"),
                SIGNED,
                MalformedChunkHead,
            ),
            (format!(";chunk-signature={a}\r\n"), SIGNED, MalformedChunkHead),
            (
                format!("{}\r\n", "0".repeat(CHUNK_HEAD_BYTES_MAX)),
                PLAIN,
                ChunkHeadTooLong,
            ),
            ("ffffffffffffffff\r\n".to_owned(), PLAIN, TooLarge),
            ("140000001\r\n".to_owned(), PLAIN, TooLarge),
            ("1\r\nxy\r\n".to_owned(), PLAIN, MalformedChunkEnd),
            ("1\r\nx\n".to_owned(), PLAIN, MalformedChunkEnd),
            ("1\r\nx\ry".to_owned(), PLAIN, MalformedChunkEnd),
        ];
        for (body, expect, error) in table {
            assert_eq!(refusal(&body, expect), error, "{body:?}");
        }
    }

    #[test]
    fn trailers_are_strict() {
        use AwsChunkedError::*;
        let c = signature('c');
        let table = [
            ("no colon\r\n\r\n".to_owned(), UNSIGNED, MalformedTrailer),
            (":value\r\n\r\n".to_owned(), UNSIGNED, MalformedTrailer),
            ("a b:value\r\n\r\n".to_owned(), UNSIGNED, MalformedTrailer),
            ("a:b\rc\r\n\r\n".to_owned(), UNSIGNED, MalformedTrailer),
            ("a:b\r\r\n\r\n".to_owned(), UNSIGNED, MalformedTrailer),
            ("a:\0\r\n\r\n".to_owned(), UNSIGNED, MalformedTrailer),
            ("a:é\r\n\r\n".to_owned(), UNSIGNED, MalformedTrailer),
            ("0\r\na:b\r\n\r\n".to_owned(), UNSIGNED, MalformedTrailer),
            (
                format!("x-amz-trailer-signature:{c}\r\n\r\n"),
                UNSIGNED,
                MalformedTrailer,
            ),
            (
                "x-amz-trailer-signature:abc\r\n\r\n".to_owned(),
                SIGNED_TRAILERS,
                MalformedTrailer,
            ),
            (
                format!("x-amz-trailer-signature:{c}\r\na:b\r\n\r\n"),
                SIGNED_TRAILERS,
                MalformedTrailer,
            ),
            ("a:b\r\n\r\n".to_owned(), SIGNED_TRAILERS, MissingTrailerSignature),
            ("".to_owned(), SIGNED_TRAILERS, MissingTrailerSignature),
            ("a:b\r\n\r\nc:d\r\n\r\n".to_owned(), UNSIGNED, TrailingBytes),
            ("a:b\n\r\n\r\n\r\n".to_owned(), UNSIGNED, TrailingBytes),
            ("a:b\r\n".repeat(TRAILERS_MAX + 1), UNSIGNED, TrailerTooLarge),
            (
                format!("a:{}\r\n", "x".repeat(TRAILER_BYTES_MAX)),
                UNSIGNED,
                TrailerTooLarge,
            ),
        ];
        for (trailers, expect, error) in table {
            let head = match expect.signed {
                true => format!("0;chunk-signature={c}\r\n"),
                false => "0\r\n".to_owned(),
            };
            assert_eq!(
                refusal(&format!("{head}{trailers}"), expect),
                error,
                "{trailers:?}"
            );
        }
        let most = format!("0\r\n{}\r\n", "a:b\r\n".repeat(TRAILERS_MAX));
        assert!(accepted(&most, UNSIGNED).ends_with("trailer a=b done"));
    }

    #[test]
    fn the_declared_length_is_held_to() {
        use AwsChunkedError::*;
        let body = "5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n";
        assert!(decode_all_ways(body, PLAIN, Some(10)).is_ok());
        assert_eq!(decode_all_ways(body, PLAIN, Some(9)), Err(MoreThanDeclared));
        assert_eq!(decode_all_ways(body, PLAIN, Some(11)), Err(LessThanDeclared));
        assert_eq!(
            decode_all_ways("0\r\n\r\n", PLAIN, Some(0)).as_deref(),
            Ok("head 0 end done")
        );
        // A chunk that says too much is refused before any of its data.
        let mut decoder = AwsChunkedDecoder::new(PLAIN, Some(10));
        assert_eq!(decoder.step(b"b\r\nx"), Err(MoreThanDeclared));
        assert_eq!(decoder.step(b""), Err(MoreThanDeclared));
    }

    #[test]
    fn chunks_together_may_not_pass_one_put() {
        let mut decoder = AwsChunkedDecoder::new(PLAIN, None);
        decoder.decoded_bytes = PUT_BYTES_MAX - 1;
        assert_eq!(decoder.step(b"2\r\n"), Err(AwsChunkedError::TooLarge));
    }

    #[test]
    fn a_body_cut_before_its_last_chunk_is_incomplete() {
        let body = "5\r\nhello\r\n0\r\n";
        for length in 0..body.len() {
            assert_eq!(
                refusal(&body[..length], PLAIN),
                AwsChunkedError::Incomplete,
                "at {length}"
            );
        }
    }

    #[test]
    fn a_declared_size_costs_nothing() {
        let mut decoder = AwsChunkedDecoder::new(PLAIN, None);
        decoder.step(b"140000000\r\n").unwrap();
        assert_eq!(
            decoder.step(b"x").unwrap(),
            Step {
                consumed: 1,
                item: Item::Data(0..1)
            }
        );
        assert_eq!(decoder.partial_line.capacity(), 0);
    }
}
