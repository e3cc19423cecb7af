//! A request's body, as the operations receive it.
//!
//! Bytes that came with the head are copied once, out of the read buffer; all others are read from the socket
//! straight into the caller's memory. Chunked bodies, which S3's clients hardly send, go through the read buffer.
//!
//! Invariant: never a byte past the body's end is taken, and after an error there are no more bytes.

use super::Machine;
use super::input::Input;
use super::watch::{Ended, Memory, Phase, Watch};
use crate::http::body::Item;
use crate::http::response::CONTINUE;
use crate::http::{ChunkedDecoder, Framing, Head};
use crate::io::Io;
use crate::io::uring::Stream;
use crate::limits::TURN_BYTES;
use crate::s3::service::{Receive, ReceiveError};
use std::net::IpAddr;

pub struct Body<'a> {
    machine: &'a Machine,
    stream: &'a mut Stream,
    input: &'a mut Input,
    watch: &'a Watch,
    peer: Option<IpAddr>,
    length: Option<u64>,
    rest: Rest,
    /// The client sends nothing until it is told to.
    awaits_continue: bool,
    /// Bytes received since others of the core had their turn.
    turn_bytes: usize,
    received: u64,
}

/// What of a body is still to come.
enum Rest {
    /// So many bytes.
    Length(u64),
    Chunked(ChunkedDecoder),
    /// A chunked body has ended.
    End,
    Failed(ReceiveError),
}

/// What of a body nobody received, and so is still in the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unread {
    Nothing,
    Bytes(u64),
    /// An unknown number, or a broken body, or one that the client will only send if it is told to.
    Unknown,
}

impl<'a> Body<'a> {
    pub fn new(
        machine: &'a Machine,
        stream: &'a mut Stream,
        input: &'a mut Input,
        watch: &'a Watch,
        peer: Option<IpAddr>,
        head: &Head,
    ) -> Body<'a> {
        let (length, rest) = match head.framing() {
            Framing::None => (Some(0), Rest::Length(0)),
            Framing::Length(length) => (Some(length), Rest::Length(length)),
            Framing::Chunked => (None, Rest::Chunked(ChunkedDecoder::new())),
        };
        watch.body_begun(length);
        let awaits_continue = head.expects_continue();
        Body {
            machine,
            stream,
            input,
            watch,
            peer,
            length,
            rest,
            awaits_continue,
            turn_bytes: 0,
            received: 0,
        }
    }

    /// Bytes that were received of it.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// What is left of it.
    pub fn unread(&self) -> Unread {
        match self.rest {
            Rest::Length(0) | Rest::End => Unread::Nothing,
            // Once some of it is there, the client has not waited.
            Rest::Length(length) if !self.awaits_continue || !self.input.is_empty() => Unread::Bytes(length),
            Rest::Length(_) | Rest::Chunked(_) | Rest::Failed(_) => Unread::Unknown,
        }
    }

    /// Keeps the promise of `100 Continue` where there is no body to ask for.
    ///
    /// botocore expects it also for empty bodies. Given the final response at once it would take that one's
    /// status for the connection's next response too.
    /// It is sent as the response is, so in the phase of that.
    pub async fn invite_nothing(&mut self, phase: Phase) {
        if self.length == Some(0) {
            // Where this fails, sending the response does too.
            let _ = self.invite(phase).await;
        }
    }

    async fn receive_up_to(
        &mut self,
        length: u64,
        first: &mut [u8],
        second: &mut [u8],
    ) -> Result<usize, ReceiveError> {
        let length_max = usize::try_from(length).unwrap_or(usize::MAX);
        let wanted = first.len().min(length_max);
        let first = &mut first[..wanted];
        let wanted = second.len().min(length_max - wanted);
        let second = &mut second[..wanted];
        if first.is_empty() {
            return Ok(0);
        }
        let received = match self.input.take(first) {
            0 => {
                self.invite(Phase::Sending).await?;
                read(self.stream, self.watch, first, second).await?
            }
            taken => taken,
        };
        self.rest = Rest::Length(length - received as u64);
        Ok(received)
    }

    async fn receive_chunked(&mut self, dst: &mut [u8]) -> Result<usize, ReceiveError> {
        loop {
            let Rest::Chunked(decoder) = &mut self.rest else {
                return Ok(0);
            };
            // Data is asked for in the caller's measure, so that all that is given can be copied.
            let unread = self.input.unread();
            let step = decoder.step(&unread[..unread.len().min(dst.len())]);
            let step = step.map_err(|_| ReceiveError::Malformed)?;
            match step.item {
                Item::Data(range) => {
                    let length = range.len();
                    dst[..length].copy_from_slice(&unread[range]);
                    self.input.consume(step.consumed);
                    return Ok(length);
                }
                Item::End => {
                    self.input.consume(step.consumed);
                    self.rest = Rest::End;
                }
                Item::NeedMore => {
                    self.input.consume(step.consumed);
                    if self.input.is_empty() {
                        self.invite(Phase::Sending).await?;
                        let length = read(self.stream, self.watch, self.input.space(), &mut []).await?;
                        self.input.filled(length);
                    }
                }
            }
        }
    }

    /// Tells a client that waits to go on.
    async fn invite(&mut self, phase: Phase) -> Result<(), ReceiveError> {
        if std::mem::take(&mut self.awaits_continue) {
            self.watch.enter(phase);
            let told = self.stream.write_all(CONTINUE).await;
            self.watch.enter(Phase::Serving);
            told.map_err(|_| ReceiveError::Incomplete)?;
        }
        Ok(())
    }

    /// Lets others of this core have their turn if this body has had a long one.
    async fn take_turns(&mut self, bytes: usize) {
        self.turn_bytes += bytes;
        if self.turn_bytes >= TURN_BYTES {
            self.turn_bytes = 0;
            self.machine.yield_now().await;
        }
    }
}

impl Receive for Body<'_> {
    fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    fn length(&self) -> Option<u64> {
        self.length
    }

    fn gathers(&mut self, bytes: usize) {
        self.watch.holds(Memory::Documents, bytes);
    }

    async fn receive_two(&mut self, first: &mut [u8], second: &mut [u8]) -> Result<usize, ReceiveError> {
        let received = match self.rest {
            _ if first.is_empty() => Ok(0),
            Rest::Length(length) => self.receive_up_to(length, first, second).await,
            Rest::Chunked(_) => self.receive_chunked(first).await,
            Rest::End => Ok(0),
            Rest::Failed(error) => Err(error),
        };
        match received {
            Ok(length) => {
                self.received += length as u64;
                self.take_turns(length).await;
            }
            Err(error) => self.rest = Rest::Failed(error),
        }
        received
    }
}

async fn read(
    stream: &mut Stream,
    watch: &Watch,
    first: &mut [u8],
    second: &mut [u8],
) -> Result<usize, ReceiveError> {
    watch.enter(Phase::Body);
    let read = stream.read_two(first, second).await;
    watch.enter(Phase::Serving);
    match (read, watch.ended()) {
        (Ok(length), _) if length > 0 => {
            watch.moved(length);
            Ok(length)
        }
        (_, Some(Ended::TooSlow)) => Err(ReceiveError::TooSlow),
        (_, Some(Ended::GaveWay)) => Err(ReceiveError::GaveWay),
        (_, None) => Err(ReceiveError::Incomplete),
    }
}
