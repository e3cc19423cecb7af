//! A body on its way into the store: decoded, hashed once while it is in cache, and verified.
//!
//! Nothing that [`Payload::fill`] gives counts until [`Payload::finish`] has said so: then every signature,
//! digest and length that the request gave was right. A body's bytes are received straight into the caller's memory,
//! but for those few with `aws-chunked` that come together with the head of their chunk: these are copied.

use crate::engine::{BodyWriter, DocumentMemory, Engine, Machine};
use crate::http::AwsChunkedDecoder;
use crate::http::aws_chunked::{AwsChunkedError, Expect, Item};
use crate::limits::PUT_BYTES_MAX;
use crate::s3::auth::{AuthError, ChunkSigner, Payload as Promise};
use crate::s3::checksum::headers::{BodyChecksum, bad_digest, parse_content_md5};
use crate::s3::checksum::{Algorithm, Checksum, Digest, Digests};
use crate::s3::error::{ErrorCode, S3Error, S3Result};
use crate::s3::md5::{Lanes, Md5};
use crate::s3::refusal::auth_error;
use crate::s3::request::{Request, number};
use crate::s3::service::Receive;
use ring::digest::{Context, SHA256};
use std::ops::{Deref, Range};

/// Bytes of the buffer in which the heads of chunks and the trailers are found.
const CHUNK_BUFFER_BYTES: usize = 4096;

/// Bytes of a body that is gathered which are received, and hashed, at a time.
const COLLECT_BYTES: usize = 16 * 1024;

/// A body being read.
pub struct Payload<'r, R> {
    raw: &'r mut R,
    lanes: &'r Lanes,
    coding: Coding,
    /// Bytes that the client said will come, `aws-chunked` undone.
    length: Option<u64>,
    received: u64,
    whole_sha256: Option<(Context, [u8; 32])>,
    md5: Md5,
    content_md5: Option<[u8; 16]>,
    checksum: Option<BodyChecksum>,
    digests: Digests,
}

enum Coding {
    Plain,
    AwsChunked(Box<Chunks>),
}

struct Chunks {
    decoder: AwsChunkedDecoder,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are not yet decoded.
    left: Range<usize>,
    signer: Option<Box<ChunkSigner>>,
    /// SHA-256 of the current chunk, and the signature that it must fit.
    chunk: Option<(Context, [u8; 64])>,
    trailers: Vec<u8>,
    trailer_digest: Option<Digest>,
    ended: bool,
}

/// A body that was gathered whole. It holds its memory until it is dropped: once the answer to it is made.
pub struct Collected<I: Machine> {
    bytes: Vec<u8>,
    _memory: DocumentMemory<I>,
}

impl<I: Machine> Deref for Collected<I> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What is known of a body that was verified.
pub struct Sums {
    pub md5: [u8; 16],
    /// The checksum that the client sent, or asked for.
    pub checksum: Option<Checksum>,
}

impl<'r, R: Receive> Payload<'r, R> {
    /// Begins to read a body; `wanted` is a checksum to compute even if the client sent none.
    ///
    /// Errors: `MissingContentLength`, `EntityTooLarge`, `InvalidDigest`, `InvalidRequest`: all before a byte of
    /// the body is asked for.
    pub fn open(
        lanes: &'r Lanes,
        request: &mut Request<'_>,
        raw: &'r mut R,
        wanted: Option<Algorithm>,
    ) -> S3Result<Payload<'r, R>> {
        // Headers alone: who presigns a URL cannot know the body, and some SDKs put the checksum of none into the
        // query. S3 passes over it.
        let checksum = BodyChecksum::from_headers(request.head.headers())?;
        Payload::begin(lanes, request, raw, checksum, wanted)
    }

    /// As [`Payload::open`], for a request whose checksum headers are not about its body.
    pub fn open_without_checksum(
        lanes: &'r Lanes,
        request: &mut Request<'_>,
        raw: &'r mut R,
    ) -> S3Result<Payload<'r, R>> {
        Payload::begin(lanes, request, raw, None, None)
    }

    fn begin(
        lanes: &'r Lanes,
        request: &mut Request<'_>,
        raw: &'r mut R,
        checksum: Option<BodyChecksum>,
        wanted: Option<Algorithm>,
    ) -> S3Result<Payload<'r, R>> {
        let content_md5 = request.field("content-md5").map(parse_content_md5).transpose()?;
        let mut digests = Digests::new();
        digests_wanted(&mut digests, checksum, wanted);
        let promise = std::mem::replace(&mut request.payload, Promise::Unsigned);
        let mut whole_sha256 = None;
        let mut length = raw.length();
        let coding = match promise {
            Promise::Unsigned => Coding::Plain,
            Promise::Sha256(expected) => {
                whole_sha256 = Some((Context::new(&SHA256), expected));
                Coding::Plain
            }
            Promise::Streaming { chunks, trailer } => {
                length = Some(decoded_length(request)?);
                let expect = Expect {
                    signed: chunks.is_some(),
                    trailers: trailer,
                };
                Coding::AwsChunked(Box::new(Chunks::new(expect, length, chunks)))
            }
        };
        if length.is_some_and(|length| length > PUT_BYTES_MAX) {
            return Err(S3Error::new(ErrorCode::EntityTooLarge));
        }
        Ok(Payload {
            raw,
            lanes,
            coding,
            length,
            received: 0,
            whole_sha256,
            md5: Md5::new(),
            content_md5,
            checksum,
            digests,
        })
    }

    /// Bytes that the client said will come.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The algorithm of the checksum that the client sends.
    pub fn checksum_algorithm(&self) -> Option<Algorithm> {
        self.checksum.map(|checksum| checksum.algorithm)
    }

    /// Receives the whole body into `writer`.
    ///
    /// Errors: what `fill` gives, and what refuses a write.
    pub async fn store<I: Machine>(&mut self, writer: &mut BodyWriter<I>) -> S3Result<()> {
        loop {
            let space = writer.space().await?;
            if space.is_empty() {
                return self.expect_end().await;
            }
            let count = self.fill(space).await?;
            if count == 0 {
                return Ok(());
            }
            writer.advance(count);
        }
    }

    /// Receives the whole body into memory, which it holds as it comes: see `engine/budget`.
    ///
    /// Errors: `MaxMessageLengthExceeded` behind `bytes_max`, `SlowDown`, and what `fill` gives.
    pub async fn collect<I: Machine>(
        &mut self,
        engine: &Engine<I>,
        bytes_max: usize,
    ) -> S3Result<Collected<I>> {
        let too_long = || S3Error::new(ErrorCode::MaxMessageLengthExceeded);
        if self.length.is_some_and(|length| length > bytes_max as u64) {
            return Err(too_long());
        }
        let length_max = self.length.map_or(bytes_max, |length| length as usize);
        let mut memory = engine.document_memory();
        let mut bytes = Vec::new();
        while bytes.len() < length_max {
            let at = bytes.len();
            if at == memory.bytes() {
                memory.grow(length_max).await?;
                self.raw.gathers(memory.bytes());
                bytes.reserve_exact(memory.bytes().min(length_max) - at);
            }
            let room = memory.bytes().min(length_max) - at;
            bytes.resize(at + room.min(COLLECT_BYTES), 0);
            let count = self.fill(&mut bytes[at..]).await?;
            bytes.truncate(at + count);
            if count == 0 {
                break;
            }
        }
        // With the last byte there may be signatures behind it, and nothing more.
        if self.length.is_some() {
            self.expect_end().await?;
        } else if self.fill(&mut [0]).await? > 0 {
            return Err(too_long());
        }
        Ok(Collected {
            bytes,
            _memory: memory,
        })
    }

    /// Fills `dst`, or what there is left of the body; returns how many bytes, 0 only at the end.
    ///
    /// Errors: `IncompleteBody`, `EntityTooLarge`, `SignatureDoesNotMatch`, and what the transport gives.
    pub async fn fill(&mut self, dst: &mut [u8]) -> S3Result<usize> {
        let mut filled = 0;
        while filled < dst.len() {
            let rest = &mut dst[filled..];
            let count = match &mut self.coding {
                Coding::Plain => self.raw.receive(rest).await?,
                Coding::AwsChunked(chunks) => chunks.fill(self.raw, self.checksum.as_ref(), rest).await?,
            };
            if count == 0 {
                break;
            }
            filled += count;
        }
        self.received += filled as u64;
        if self.received > PUT_BYTES_MAX {
            return Err(S3Error::new(ErrorCode::EntityTooLarge));
        }
        self.hash(&dst[..filled]).await;
        Ok(filled)
    }

    async fn hash(&mut self, bytes: &[u8]) {
        if let Some((sha256, _)) = &mut self.whole_sha256 {
            sha256.update(bytes);
        }
        self.digests.update(bytes);
        // SAFETY: the future is awaited here, in the task that owns the bytes, and forgotten by nobody: the
        // server's tasks run to their end or are dropped.
        unsafe { self.lanes.update_borrowed(&mut self.md5, bytes).await };
    }

    /// Says what the body was, if everything about it is right.
    ///
    /// Errors: `XAmzContentSHA256Mismatch`, `BadDigest`, `IncompleteBody`.
    pub fn finish(self) -> S3Result<Sums> {
        if self.length.is_some_and(|length| length != self.received) {
            return Err(S3Error::new(ErrorCode::IncompleteBody));
        }
        if let Some((sha256, expected)) = self.whole_sha256
            && sha256.finish().as_ref() != expected
        {
            return Err(auth_error(AuthError::ContentSha256Mismatch));
        }
        let md5 = self.md5.finish();
        if self.content_md5.is_some_and(|expected| expected != md5) {
            return Err(S3Error::new(ErrorCode::BadDigest));
        }
        let trailer_digest = match &self.coding {
            Coding::Plain => None,
            Coding::AwsChunked(chunks) => chunks.trailer_digest,
        };
        let mut computed = self.digests.finish();
        if let Some(BodyChecksum { algorithm, expected }) = self.checksum {
            let Some(expected) = expected.or(trailer_digest) else {
                let header = algorithm.header();
                return Err(S3Error::invalid_request(format!(
                    "The trailer {header} was announced and did not come."
                )));
            };
            computed.retain(|checksum| checksum.algorithm == algorithm);
            if computed
                .first()
                .is_none_or(|checksum| checksum.digest != expected)
            {
                return Err(bad_digest(algorithm));
            }
        }
        Ok(Sums {
            md5,
            checksum: computed.pop(),
        })
    }

    /// The writer has all that was announced; what is left is signatures, trailers, and nothing more.
    async fn expect_end(&mut self) -> S3Result<()> {
        let mut beyond = [0; 1];
        match self.fill(&mut beyond).await? {
            0 => Ok(()),
            _ => Err(S3Error::invalid_request("The body is longer than was announced.")),
        }
    }
}

impl Chunks {
    fn new(expect: Expect, length: Option<u64>, signer: Option<Box<ChunkSigner>>) -> Chunks {
        Chunks {
            decoder: AwsChunkedDecoder::new(expect, length),
            buffer: vec![0; CHUNK_BUFFER_BYTES],
            left: 0..0,
            signer,
            chunk: None,
            trailers: Vec::new(),
            trailer_digest: None,
            ended: false,
        }
    }

    async fn fill<R: Receive>(
        &mut self,
        raw: &mut R,
        checksum: Option<&BodyChecksum>,
        dst: &mut [u8],
    ) -> S3Result<usize> {
        while !self.ended {
            if self.left.is_empty()
                && let Some(data_left) = self.decoder.data_left()
            {
                return self.receive_data(raw, data_left, dst).await;
            }
            // Data is taken only as far as it fits, so that none is decoded twice.
            let window = self.left.start..self.left.end.min(self.left.start + dst.len());
            let step = self
                .decoder
                .step(&self.buffer[window.clone()])
                .map_err(chunk_error)?;
            let start = window.start;
            self.left.start += step.consumed;
            match step.item {
                Item::NeedMore if window.end < self.left.end => {}
                Item::NeedMore => self.receive(raw).await?,
                Item::Data(range) => {
                    let data = &self.buffer[start + range.start..start + range.end];
                    dst[..data.len()].copy_from_slice(data);
                    return Ok(self.hash_chunk(&dst[..range.len()]));
                }
                Item::ChunkHead { signature, .. } => {
                    self.chunk = signature.map(|signature| (Context::new(&SHA256), signature));
                }
                Item::ChunkEnd => self.verify_chunk()?,
                Item::Trailer(trailer) => {
                    trailer.write_canonical(&mut self.trailers);
                    // Only the checksum can be announced, and it comes once.
                    let announced = checksum.filter(|checksum| {
                        checksum.expected.is_none()
                            && self.trailer_digest.is_none()
                            && trailer.name == checksum.algorithm.header()
                    });
                    let announced = announced.ok_or(S3Error::new(ErrorCode::MalformedTrailerError))?;
                    self.trailer_digest = Some(announced.parse_trailer(trailer.value.as_bytes())?);
                }
                Item::TrailerSignature(signature) => self.verify_trailer(&signature)?,
                Item::End => self.expect_nothing(raw).await?,
            }
        }
        Ok(0)
    }

    /// Receives data of the chunk where it belongs, and what may follow the chunk's end into the buffer.
    async fn receive_data<R: Receive>(
        &mut self,
        raw: &mut R,
        data_left: u64,
        dst: &mut [u8],
    ) -> S3Result<usize> {
        let wanted = dst.len().min(usize::try_from(data_left).unwrap_or(usize::MAX));
        let beyond = match wanted as u64 == data_left {
            true => &mut self.buffer[..],
            false => &mut [],
        };
        let count = raw.receive_two(&mut dst[..wanted], beyond).await?;
        self.left = 0..count.saturating_sub(wanted);
        let data = &dst[..count.min(wanted)];
        if data.is_empty() {
            self.decoder.close();
        }
        self.decoder.step(data).map_err(chunk_error)?;
        Ok(self.hash_chunk(data))
    }

    fn hash_chunk(&mut self, data: &[u8]) -> usize {
        if let Some((sha256, _)) = &mut self.chunk {
            sha256.update(data);
        }
        data.len()
    }

    /// The encoding has ended, and so must the body.
    async fn expect_nothing<R: Receive>(&mut self, raw: &mut R) -> S3Result<()> {
        if !self.left.is_empty() || raw.receive(&mut self.buffer[..1]).await? > 0 {
            return Err(chunk_error(AwsChunkedError::TrailingBytes));
        }
        self.ended = true;
        Ok(())
    }

    async fn receive<R: Receive>(&mut self, raw: &mut R) -> S3Result<()> {
        debug_assert!(self.left.is_empty(), "the decoder keeps what it needs of a line");
        let count = raw.receive(&mut self.buffer).await?;
        self.left = 0..count;
        if count == 0 {
            self.decoder.close();
        }
        Ok(())
    }

    fn verify_chunk(&mut self) -> S3Result<()> {
        if let (Some(signer), Some((sha256, signature))) = (&mut self.signer, self.chunk.take()) {
            signer
                .verify_chunk(&sha256_bytes(sha256), &signature)
                .map_err(auth_error)?;
        }
        Ok(())
    }

    fn verify_trailer(&mut self, signature: &[u8; 64]) -> S3Result<()> {
        if let Some(signer) = &mut self.signer {
            let mut sha256 = Context::new(&SHA256);
            sha256.update(&self.trailers);
            signer
                .verify_trailer(&sha256_bytes(sha256), signature)
                .map_err(auth_error)?;
        }
        Ok(())
    }
}

fn sha256_bytes(context: Context) -> [u8; 32] {
    context
        .finish()
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes")
}

fn digests_wanted(digests: &mut Digests, sent: Option<BodyChecksum>, wanted: Option<Algorithm>) {
    if let Some(algorithm) = sent.map(|sent| sent.algorithm).or(wanted) {
        digests.add(algorithm);
    }
}

/// `x-amz-decoded-content-length`, which every `aws-chunked` body must have.
fn decoded_length(request: &Request<'_>) -> S3Result<u64> {
    let missing = || S3Error::new(ErrorCode::MissingContentLength);
    let text = request
        .field("x-amz-decoded-content-length")
        .ok_or_else(missing)?;
    number(text).ok_or_else(|| {
        S3Error::invalid_argument(
            "x-amz-decoded-content-length is not a length",
            "x-amz-decoded-content-length",
            &String::from_utf8_lossy(text),
        )
    })
}

fn chunk_error(error: AwsChunkedError) -> S3Error {
    match error {
        AwsChunkedError::LessThanDeclared | AwsChunkedError::Incomplete => {
            S3Error::new(ErrorCode::IncompleteBody)
        }
        AwsChunkedError::TooLarge => S3Error::new(ErrorCode::EntityTooLarge),
        AwsChunkedError::MissingTrailerSignature => S3Error::new(ErrorCode::SignatureDoesNotMatch),
        AwsChunkedError::MalformedChunkHead
        | AwsChunkedError::ChunkHeadTooLong
        | AwsChunkedError::MalformedChunkEnd
        | AwsChunkedError::MoreThanDeclared
        | AwsChunkedError::MalformedTrailer
        | AwsChunkedError::TrailerTooLarge
        | AwsChunkedError::TrailingBytes => {
            S3Error::invalid_request(format!("The aws-chunked body is not well formed: {error:?}"))
        }
    }
}
