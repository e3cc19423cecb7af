//! Responses onto the wire.
//!
//! A head and what fits beside it leave in one system call. An object's bytes go from the buffer that the disk
//! filled to the socket without a copy of ours, in pieces as they are verified. While a client takes nothing, none of
//! its object's bytes are kept in memory: they are read again when it goes on.
//!
//! Invariant: what is announced is sent whole or the connection ends, so that a body cut short never looks
//! like a whole one. A first piece that cannot be read becomes an error response: nothing was sent yet.

use super::Machine;
use super::answer;
use super::core::{Core, RequestId};
use super::watch::{Memory, Phase, Watch};
use crate::engine::{BodyReader, HeldBytes, Piece};
use crate::http::{Head, Method, ResponseHead};
use crate::io::Io;
use crate::io::uring::Stream;
use crate::limits::{BLOCKS_PER_IO, TURN_BYTES};
use crate::s3::service::{HeaderLines, Response, ResponseBody};
use std::io::{self, IoSlice};

/// Bytes of a response in memory that are counted: what is shorter hardly exceeds what the socket takes at once.
const COUNTED_BYTES_MIN: usize = 64 * 1024;
/// Slices that go into one write: the head, and the blocks of one piece.
const SLICES_MAX: usize = 1 + BLOCKS_PER_IO;

/// What a response is written with.
pub struct Writer<'a> {
    pub core: &'a Core,
    pub stream: &'a mut Stream,
    pub watch: &'a Watch,
    /// Where the head is put together.
    pub output: &'a mut Vec<u8>,
    pub request_id: &'a RequestId,
    /// The request's head; there is none if it was refused.
    pub head: Option<&'a Head>,
    /// What the connection is at while it waits for room: [`Phase::Sending`], or [`Phase::Telling`] for a refusal.
    pub phase: Phase,
    /// This is the connection's last response.
    pub closes: bool,
    pub sent: &'a mut Sent,
}

/// What was told of a response.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Sent {
    /// Of the head that was sent, or was to be.
    pub status: u16,
    /// Bytes of the body that the kernel has taken.
    pub body_bytes: u64,
}

impl Writer<'_> {
    /// Sends `response`.
    ///
    /// # Errors
    /// The connection is of no use any more: close it at once.
    pub async fn send(mut self, response: Response<Machine>) -> io::Result<()> {
        let Response {
            status,
            headers,
            body,
        } = response;
        let is_head = self.head.is_some_and(|head| head.method() == Method::Head);
        self.watch.holds(Memory::Bodies, 0);
        match body {
            ResponseBody::Empty => {
                // RFC 9110 8.6: no length where there cannot be a body, and none of a 304's is known.
                let length = (status >= 200 && status != 204 && status != 304).then_some(0);
                self.send_with(status, &headers, length, &[]).await
            }
            ResponseBody::HeadOnly { length } => self.send_with(status, &headers, Some(length), &[]).await,
            ResponseBody::Bytes(bytes) => {
                let sent = if is_head { &[][..] } else { &bytes };
                let _counted = self.count(sent.len());
                self.send_with(status, &headers, Some(bytes.len() as u64), sent)
                    .await
            }
            ResponseBody::Object { length, .. } if is_head => {
                self.send_with(status, &headers, Some(length), &[]).await
            }
            ResponseBody::Object { reader, length } => {
                self.send_object(status, &headers, reader, length).await
            }
        }
    }

    async fn send_with(
        &mut self,
        status: u16,
        headers: &HeaderLines,
        length: Option<u64>,
        body: &[u8],
    ) -> io::Result<()> {
        self.put_head(status, headers, length);
        let mut slices = [IoSlice::new(self.output), IoSlice::new(body)];
        write_all(self.stream, self.watch, self.phase, &mut slices).await?;
        self.sent.body_bytes += body.len() as u64;
        Ok(())
    }

    async fn send_object(
        mut self,
        status: u16,
        headers: &HeaderLines,
        mut reader: BodyReader<Machine>,
        length: u64,
    ) -> io::Result<()> {
        let first = match reader.next().await {
            Ok(first) => first,
            Err(refusal) => {
                let path = self.head.map_or("", Head::path);
                let refused = answer::error(refusal.into(), path, self.request_id);
                let ResponseBody::Bytes(body) = &refused.body else {
                    return Err(short());
                };
                self.phase = Phase::Telling;
                return self
                    .send_with(refused.status, &refused.headers, Some(body.len() as u64), body)
                    .await;
            }
        };
        self.put_head(status, headers, Some(length));
        let mut remaining = length;
        let mut turn_bytes = 0;
        let mut next = first;
        let mut lead: &[u8] = self.output;
        while let Some(piece) = next {
            remaining = remaining.checked_sub(piece.length() as u64).ok_or_else(short)?;
            let unsent = write_piece(self.stream, self.watch, &mut lead, &piece).await?;
            turn_bytes += piece.length();
            self.sent.body_bytes += piece.length() as u64 - unsent;
            drop(piece);
            if unsent > 0 {
                reader.rewind(unsent);
                remaining += unsent;
                self.stream.writable().await?;
                self.watch.enter(Phase::Serving);
            }
            if remaining == 0 {
                return Ok(());
            }
            if turn_bytes >= TURN_BYTES {
                turn_bytes = 0;
                self.core.machine.yield_now().await;
            }
            next = reader.next().await.map_err(|_| short())?;
        }
        if remaining > 0 {
            return Err(short());
        }
        // An object of no bytes: its head is still to be sent.
        write_all(self.stream, self.watch, self.phase, &mut [IoSlice::new(lead)]).await
    }

    /// Counts what a long response holds of memory, so that it gives way when others need that and its client is slow.
    fn count(&self, bytes: usize) -> Option<HeldBytes> {
        let service = self.core.service().filter(|_| bytes > COUNTED_BYTES_MIN)?;
        self.watch.holds(Memory::Bodies, bytes);
        Some(service.engine.count_bytes(bytes))
    }

    fn put_head(&mut self, status: u16, headers: &HeaderLines, length: Option<u64>) {
        self.sent.status = status;
        let unix_s = self.core.machine.unix_s();
        self.output.clear();
        let head = ResponseHead::begin(self.output, status)
            .header("Server", "weft")
            .header("Date", self.core.dates.borrow_mut().at(unix_s))
            .header("x-amz-request-id", self.request_id.as_str())
            .lines(&headers.0);
        let head = match length {
            Some(length) => head.header_u64("Content-Length", length),
            None => head,
        };
        let head = if self.closes {
            head.header("Connection", "close")
        } else {
            head
        };
        head.end();
    }
}

/// Writes `lead` and the piece; returns how many bytes of the piece are left because the peer took nothing for a while.
/// What is left of `lead` stays in it.
async fn write_piece(
    stream: &mut Stream,
    watch: &Watch,
    lead: &mut &[u8],
    piece: &Piece<Machine>,
) -> io::Result<u64> {
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    slices[0] = IoSlice::new(lead);
    let mut count = 1;
    for slice in piece.slices() {
        slices[count] = IoSlice::new(slice);
        count += 1;
    }
    let mut slices = &mut slices[..count];
    let mut written = 0;
    let whole = lead.len() + piece.length();
    while written < whole {
        IoSlice::advance_slices(&mut slices, 0);
        watch.enter(Phase::Sending);
        let Some(step) = watch.until_cool(stream.write_vectored(slices)).await else {
            break;
        };
        let step = step?;
        watch.moved(step);
        IoSlice::advance_slices(&mut slices, step);
        written += step;
    }
    if written == whole {
        watch.enter(Phase::Serving);
    }
    let of_lead = written.min(lead.len());
    *lead = &lead[of_lead..];
    Ok((piece.length() - (written - of_lead)) as u64)
}

/// Writes all of `slices`; as long as enough of it goes, the peer has time.
async fn write_all(
    stream: &mut Stream,
    watch: &Watch,
    phase: Phase,
    mut slices: &mut [IoSlice<'_>],
) -> io::Result<()> {
    // Leading empty slices would be written as nothing.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        watch.enter(phase);
        let written = stream.write_vectored(slices).await?;
        watch.moved(written);
        IoSlice::advance_slices(&mut slices, written);
    }
    watch.enter(Phase::Serving);
    Ok(())
}

fn short() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}
