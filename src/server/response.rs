//! Responses onto the wire.
//!
//! A head and what fits beside it leave in one system call. An object's bytes go from the buffer that the disk
//! filled to the socket without a copy of ours, in pieces as they are verified.
//!
//! Invariant: what is announced is sent whole or the connection ends, so that a body cut short never looks
//! like a whole one. A first piece that cannot be read becomes an error response: nothing was sent yet.

use super::Machine;
use super::answer;
use super::core::{Core, RequestId};
use super::watch::{Phase, Watch};
use crate::engine::{BodyReader, Piece};
use crate::http::{Head, Method, ResponseHead};
use crate::io::Io;
use crate::io::uring::Stream;
use crate::limits::{BLOCKS_PER_IO, TURN_BYTES};
use crate::s3::error::ErrorCode;
use crate::s3::service::{HeaderLines, Response, ResponseBody};
use std::io::{self, IoSlice};

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
    /// This is the connection's last response.
    pub closes: bool,
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
        match body {
            ResponseBody::Empty => {
                // RFC 9110 8.6: no length where there cannot be a body, and none of a 304's is known.
                let length = (status >= 200 && status != 204 && status != 304).then_some(0);
                self.send_with(status, &headers, length, &[]).await
            }
            ResponseBody::HeadOnly { length } => self.send_with(status, &headers, Some(length), &[]).await,
            ResponseBody::Bytes(bytes) => {
                let sent = if is_head { &[][..] } else { &bytes };
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
        write_all(self.stream, self.watch, &mut slices).await
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
            Err(_) => {
                let path = self.head.map_or("", Head::path);
                let refused = answer::error(ErrorCode::InternalError.into(), path, self.request_id);
                let ResponseBody::Bytes(body) = &refused.body else {
                    return Err(short());
                };
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
            write_piece(self.stream, self.watch, lead, &piece).await?;
            lead = &[];
            turn_bytes += piece.length();
            drop(piece);
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
        write_all(self.stream, self.watch, &mut [IoSlice::new(lead)]).await
    }

    fn put_head(&mut self, status: u16, headers: &HeaderLines, length: Option<u64>) {
        let unix_s = self.core.machine.unix_ms() / 1000;
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

async fn write_piece(
    stream: &mut Stream,
    watch: &Watch,
    lead: &[u8],
    piece: &Piece<Machine>,
) -> io::Result<()> {
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    slices[0] = IoSlice::new(lead);
    let mut count = 1;
    for slice in piece.slices() {
        if count == SLICES_MAX {
            write_all(stream, watch, &mut slices).await?;
            count = 0;
        }
        slices[count] = IoSlice::new(slice);
        count += 1;
    }
    write_all(stream, watch, &mut slices[..count]).await
}

/// Writes all of `slices`; as long as enough of it goes, the peer has time.
async fn write_all(stream: &mut Stream, watch: &Watch, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    // Leading empty slices would be written as nothing.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        watch.enter(Phase::Sending);
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
