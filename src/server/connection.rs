//! One connection, from its first byte to its last.
//!
//! It is idle, and then holds no buffers and little memory, or it serves requests one after the other: head,
//! operation, response. Bytes that came after a request are the next one's. A small request costs one read and
//! one write.
//!
//! Invariant: after a head that was refused, a body that broke, or a response that was not sent whole, there
//! is no further request on the connection. Bytes of a body are never read as a head.

use super::body::{Body, Unread};
use super::core::{Core, RequestId, Role};
use super::input::{Buffers, Input};
use super::response::{Sent, Writer};
use super::tally::{Answered, Unheard, count};
use super::watch::{Ended, Phase, Watch};
use super::{Machine, admin, answer};
use crate::http::{Head, HeadError};
use crate::io::Io;
use crate::io::uring::Stream;
use crate::limits::{LINGER_BYTES_MAX, TURN_BYTES, UNREAD_BODY_BYTES_MAX};
use crate::s3;
use crate::s3::operation::Operation;
use crate::s3::service::Response;
use std::io;
use std::net::{IpAddr, Shutdown};
use std::rc::Rc;

/// Serves `stream` until one side closes it.
pub async fn serve(core: Rc<Core>, mut stream: Stream, watch: Rc<Watch>) {
    // Asked once: it stays, and a peer that has hung up has none any more.
    let peer = stream.peer_addr().ok().map(|address| address.ip());
    loop {
        watch.await_request();
        if stream.readable().await.is_err() {
            break;
        }
        let mut buffers = core.spares.take();
        let connection = Connection {
            core: &core,
            stream: &mut stream,
            watch: &watch,
            peer,
        };
        // Boxed: its state is large, and most connections are idle most of the time.
        let after = Box::pin(connection.serve_requests(&mut buffers)).await;
        core.spares.put(buffers);
        match after {
            After::Idle => {}
            After::Linger => {
                linger(&core, &mut stream, &watch).await;
                break;
            }
            After::Close => break,
        }
    }
}

/// A connection that has something to read.
struct Connection<'a> {
    core: &'a Core,
    stream: &'a mut Stream,
    watch: &'a Watch,
    peer: Option<IpAddr>,
}

/// What becomes of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum After {
    /// It waits for its next request.
    Idle,
    /// It is closed once what the peer still sends has been read.
    Linger,
    /// It is closed at once.
    Close,
}

/// What came of waiting for a head.
enum Arrival {
    Head(Head),
    Refused(HeadError),
    /// It was waited for no longer.
    Ended(Ended),
    Closed,
}

impl Connection<'_> {
    async fn serve_requests(mut self, buffers: &mut Buffers) -> After {
        loop {
            let arrival = self.read_head(&mut buffers.input).await;
            let request_id = self.core.next_request_id();
            self.watch.enter(Phase::Serving);
            let after = match arrival {
                Arrival::Head(head) => self.serve_request(&head, &request_id, buffers).await,
                Arrival::Refused(error) => {
                    self.core.tally.note_unheard(Unheard::BadHead);
                    let response = answer::refused_head(error, &request_id);
                    self.tell(response, After::Linger, &request_id, buffers).await
                }
                Arrival::Ended(why) => {
                    self.core.tally.note_unheard(match why {
                        Ended::TooSlow => Unheard::LateHead,
                        Ended::GaveWay => Unheard::NoRoom,
                    });
                    let response = answer::ended_head(why, &request_id);
                    self.tell(response, After::Close, &request_id, buffers).await
                }
                Arrival::Closed => return After::Close,
            };
            match after {
                Ok(After::Idle) => {}
                Ok(after) => return after,
                Err(_) => return After::Close,
            }
            self.watch.await_request();
            if !buffers.input.is_empty() {
                // Requests that came together: others of this core have their turn between them.
                self.core.machine.yield_now().await;
                continue;
            }
            if self.core.is_draining() {
                return After::Close;
            }
            match self.watch.until_cool(self.stream.readable()).await {
                Some(Ok(())) => {}
                Some(Err(_)) => return After::Close,
                None => return After::Idle,
            }
        }
    }

    /// Reads until a head is complete, or can no longer become one.
    async fn read_head(&mut self, input: &mut Input) -> Arrival {
        // A head is looked at again only when a line has ended: else a byte at a time would cost its square.
        let mut has_line = !input.is_empty();
        loop {
            if has_line {
                match Head::parse(input.unread()) {
                    Ok(Some((head, length))) => {
                        input.consume(length);
                        return Arrival::Head(head);
                    }
                    Ok(None) => {}
                    Err(error) => return Arrival::Refused(error),
                }
            }
            let is_first = input.is_empty();
            let space = input.space();
            let length = match self.stream.read(space).await {
                Ok(length) if length > 0 => length,
                _ => match self.watch.ended() {
                    Some(why) if !is_first => return Arrival::Ended(why),
                    Some(_) | None => return Arrival::Closed,
                },
            };
            has_line = is_first || space[..length].contains(&b'\n') || length == space.len();
            input.filled(length);
            if is_first {
                self.watch.head_begun();
            }
        }
    }

    async fn serve_request(
        &mut self,
        head: &Head,
        request_id: &RequestId,
        buffers: &mut Buffers,
    ) -> io::Result<After> {
        let mut body = Body::new(
            &self.core.machine,
            self.stream,
            &mut buffers.input,
            self.watch,
            self.peer,
            head,
        );
        let is_of_reserve = self.watch.is_of_reserve();
        let begun_ns = self.core.machine.monotonic_ns();
        let mut operation = None;
        let (response, phase) = if let Role::Admin(main) = &self.core.role {
            // Boxed: it is rare, and would make every connection's state larger.
            let answer = Box::pin(admin::answer(self.core, main, head, is_of_reserve));
            (answer.await, Phase::Telling)
        } else if let Some(response) = answer::health(self.core, head) {
            (response, Phase::Telling)
        } else if is_of_reserve {
            self.core.tally.note_unheard(Unheard::NoRoom);
            (answer::no_room(head.path(), request_id), Phase::Telling)
        } else if let Some(service) = self.core.service() {
            let operation = operation.insert(Operation::Unknown);
            let response = s3::serve(service, head, &mut body, request_id.as_str(), operation).await;
            // What was not refused was asked for by somebody known.
            let phase = if response.status < 400 {
                Phase::Sending
            } else {
                Phase::Telling
            };
            (response, phase)
        } else {
            self.core.tally.note_unheard(Unheard::Starting);
            (answer::not_started(head, request_id), Phase::Telling)
        };
        body.invite_nothing(phase).await;
        let (unread, bytes_in) = (body.unread(), body.received());
        let after = match unread {
            Unread::Unknown => After::Linger,
            Unread::Bytes(length) if length > UNREAD_BODY_BYTES_MAX => After::Linger,
            Unread::Bytes(_) | Unread::Nothing
                if !head.keep_alive() || self.core.is_draining() || is_of_reserve =>
            {
                After::Linger
            }
            Unread::Bytes(_) | Unread::Nothing => After::Idle,
        };
        let mut sent = Sent::default();
        let writer = self.writer(
            &mut buffers.output,
            request_id,
            Some(head),
            phase,
            after,
            &mut sent,
        );
        let result = writer.send(response).await;
        if let Some(operation) = operation {
            self.core.tally.note(&Answered {
                operation,
                status: sent.status,
                ns: self.core.machine.monotonic_ns() - begun_ns,
                bytes_in,
                bytes_out: sent.body_bytes,
            });
        }
        if result.is_err() {
            count(&self.core.tally.unfinished, 1);
        }
        result?;
        match (after, unread) {
            (After::Idle, Unread::Bytes(length)) => {
                self.read_away(length, &mut buffers.input).await.map(|()| after)
            }
            // Nothing that could be lost is in the way of closing.
            (After::Linger, Unread::Nothing) if buffers.input.is_empty() => Ok(After::Close),
            _ => Ok(after),
        }
    }

    /// Sends what is said without a request.
    async fn tell(
        &mut self,
        response: Response<Machine>,
        after: After,
        request_id: &RequestId,
        buffers: &mut Buffers,
    ) -> io::Result<After> {
        let (output, mut sent) = (&mut buffers.output, Sent::default());
        let writer = self.writer(output, request_id, None, Phase::Telling, after, &mut sent);
        writer.send(response).await.map(|()| after)
    }

    fn writer<'a>(
        &'a mut self,
        output: &'a mut Vec<u8>,
        request_id: &'a RequestId,
        head: Option<&'a Head>,
        phase: Phase,
        after: After,
        sent: &'a mut Sent,
    ) -> Writer<'a> {
        Writer {
            core: self.core,
            stream: self.stream,
            watch: self.watch,
            output,
            request_id,
            head,
            phase,
            closes: after != After::Idle,
            sent,
        }
    }

    /// Reads the `length` bytes of a body that nobody wanted, so that what follows is a head.
    async fn read_away(&mut self, length: u64, input: &mut Input) -> io::Result<()> {
        self.watch.enter(Phase::Lingering);
        let mut remaining = length;
        loop {
            let unused = remaining.min(input.unread().len() as u64);
            input.consume(unused as usize);
            remaining -= unused;
            if remaining == 0 {
                return Ok(());
            }
            match self.stream.read(input.space()).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => input.filled(length),
            }
        }
    }
}

/// Tells the peer that nothing more comes, and reads what it still sends, within bounds. It holds no memory: whoever
/// sends bytes that nobody wants needs no credentials for it.
async fn linger(core: &Core, stream: &mut Stream, watch: &Watch) {
    watch.enter(Phase::Lingering);
    if stream.shutdown(Shutdown::Write).is_err() {
        return;
    }
    let (mut total, mut turn) = (0, 0);
    while total < LINGER_BYTES_MAX {
        match stream.discard(TURN_BYTES).await {
            Ok(length) if length > 0 => (total, turn) = (total + length, turn + length),
            _ => return,
        }
        if turn >= TURN_BYTES {
            turn = 0;
            core.machine.yield_now().await;
        }
    }
}
