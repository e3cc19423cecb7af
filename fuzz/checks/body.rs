//! Both chunked decoders, whatever the bytes: no panic, the same items however the body is split, and what the
//! encoder in here made comes back.
//!
//! The first byte says what is expected, the second how the body is split, the rest is the body.

use weft::http::aws_chunked::{self, AwsChunkedDecoder, AwsChunkedError, Expect, Item as AwsItem};
use weft::http::body::{BodyError, ChunkedDecoder, Item};

pub fn check(data: &[u8]) {
    let [mode, seed, body @ ..] = data else {
        return;
    };
    let splits = Splits::of(*seed);
    let expect = Expect {
        signed: mode & 1 != 0,
        trailers: mode & 2 != 0,
    };
    let declared = (mode & 4 != 0).then(|| u64::from(mode >> 4));

    let whole = decode_chunked(&[body]);
    assert_eq!(decode_chunked(&splits.cut(body)), whole, "chunked, seed {seed}");

    let whole = decode_aws(&[body], expect, declared);
    assert_eq!(
        decode_aws(&splits.cut(body), expect, declared),
        whole,
        "aws-chunked, seed {seed}"
    );

    let encoded = encode(&splits.cut(body));
    let (events, left) = decode_chunked(&splits.cut(&encoded)).expect("our own chunks");
    assert_eq!((events, left), (Some(body.to_vec()), 0));
    let plain = Expect {
        signed: false,
        trailers: false,
    };
    let events = decode_aws(&splits.cut(&encoded), plain, Some(body.len() as u64)).expect("our own chunks");
    let payload: Vec<u8> = events.iter().flat_map(|event| event.data.clone()).collect();
    assert_eq!(payload, body);
}

/// Where a body is cut, decided by a seed.
struct Splits(u8);

impl Splits {
    fn of(seed: u8) -> Splits {
        Splits(seed)
    }

    /// Pieces of 1 to 16 bytes in an irregular order; with seed 0, of 1 byte each.
    fn cut<'a>(&self, body: &'a [u8]) -> Vec<&'a [u8]> {
        let mut state = u32::from(self.0).wrapping_mul(0x9e37_79b9);
        let mut pieces = Vec::new();
        let mut rest = body;
        while !rest.is_empty() {
            state = state
                .wrapping_mul(0x0019_660d)
                .wrapping_add(u32::from(self.0) * 0x3c6e);
            let (piece, after) = rest.split_at(rest.len().min(1 + (state >> 28) as usize));
            pieces.push(piece);
            rest = after;
        }
        pieces
    }
}

/// Each piece as a chunk.
fn encode(pieces: &[&[u8]]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for piece in pieces {
        encoded.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        encoded.extend_from_slice(piece);
        encoded.extend_from_slice(b"\r\n");
    }
    encoded.extend_from_slice(b"0\r\n\r\n");
    encoded
}

/// The payload if the body ended, and how many bytes were left after it.
fn decode_chunked(pieces: &[&[u8]]) -> Result<(Option<Vec<u8>>, usize), BodyError> {
    let mut decoder = ChunkedDecoder::new();
    let mut payload = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        let mut input = *piece;
        loop {
            let step = decoder.step(input)?;
            let after = &input[step.consumed..];
            match step.item {
                Item::NeedMore => assert!(after.is_empty()),
                Item::Data(range) => {
                    assert!(!range.is_empty() && range.end == step.consumed);
                    payload.extend_from_slice(&input[range]);
                }
                Item::End => {
                    let later: usize = pieces[number + 1..].iter().map(|piece| piece.len()).sum();
                    return Ok((Some(payload), after.len() + later));
                }
            }
            input = after;
            if input.is_empty() {
                break;
            }
        }
    }
    Ok((None, 0))
}

/// An item that is not data, and the data before it.
#[derive(PartialEq, Eq, Debug)]
struct Event {
    data: Vec<u8>,
    item: AwsItem,
}

fn decode_aws(
    pieces: &[&[u8]],
    expect: Expect,
    declared: Option<u64>,
) -> Result<Vec<Event>, AwsChunkedError> {
    let mut decoder = AwsChunkedDecoder::new(expect, declared);
    let mut events = Vec::new();
    let mut data = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        loop {
            let aws_chunked::Step { consumed, item } = decoder.step(input)?;
            let after = &input[consumed..];
            match item {
                AwsItem::NeedMore => {
                    assert!(after.is_empty());
                    break;
                }
                AwsItem::Data(range) => {
                    assert!(!range.is_empty() && range.end == consumed);
                    data.extend_from_slice(&input[range]);
                }
                AwsItem::End if after.is_empty() => break,
                item => events.push(Event {
                    data: std::mem::take(&mut data),
                    item,
                }),
            }
            input = after;
        }
    }
    decoder.close();
    loop {
        let aws_chunked::Step { consumed, item } = decoder.step(&[])?;
        assert!(consumed == 0 && !matches!(item, AwsItem::NeedMore | AwsItem::Data(_)));
        let is_end = item == AwsItem::End;
        events.push(Event {
            data: std::mem::take(&mut data),
            item,
        });
        if is_end {
            break;
        }
    }
    check_events(&events, expect, declared);
    Ok(events)
}

/// What a body that ended must have given.
fn check_events(events: &[Event], expect: Expect, declared: Option<u64>) {
    let mut size_of_chunk = 0;
    let mut total = 0;
    let mut signatures_of_trailers = 0;
    for event in events {
        match &event.item {
            AwsItem::ChunkHead { size, signature } => {
                assert_eq!(signature.is_some(), expect.signed);
                size_of_chunk = *size;
                total += size;
            }
            AwsItem::ChunkEnd => assert_eq!(event.data.len() as u64, size_of_chunk),
            AwsItem::Trailer(trailer) => assert!(expect.trailers && !trailer.name.is_empty()),
            AwsItem::TrailerSignature(_) => signatures_of_trailers += 1,
            AwsItem::NeedMore | AwsItem::Data(_) | AwsItem::End => {}
        }
    }
    assert!(declared.is_none_or(|declared| declared == total));
    assert_eq!(
        signatures_of_trailers,
        usize::from(expect.signed && expect.trailers)
    );
}
