//! TCP for the server: listeners, and streams that read straight into the caller's memory.
//!
//! A socket call is tried first and the reactor asked only when the call would wait, so a request that
//! has already arrived costs one system call. After a read that emptied the socket the reactor is asked
//! first. A wait has no timer of its own: whoever keeps time ends it from outside, through the stream's
//! [`StreamHandle`].
//!
//! One core accepts and hands each connection to the core that has the fewest, because SO_REUSEPORT
//! spreads by a hash: figures at [`Acceptor`].
//!
//! Invariant: a connection that was handed over is counted from then until its [`Stream`] is dropped. The
//! counters are the only memory that cores share; they steer, and nothing depends on their being exact.

use super::Machine;
use super::ring::Ring;
use super::timers::Timers;
use crate::io::CoreId;
use futures_util::future::{Either, select};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Connections that the kernel completes before they are accepted; it caps this at net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// The pause after an accept that failed for want of descriptors or memory, and while all cores are full.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(20);

/// A listening socket, on the core where it was made.
pub struct Listener {
    socket: TcpListener,
    ring: Rc<Ring>,
    /// Given up for a moment when descriptors run out, so that whoever waits to be accepted is told.
    reserve: RefCell<Option<File>>,
    timers: Rc<Timers>,
}

impl Listener {
    /// Binds and listens. Plain and blocking: for the time before the cores start, when an address in use is
    /// an error on the terminal. Connections accepted from it have TCP_NODELAY.
    pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(TcpListener::from(socket))
    }

    /// Serves `socket`, which must not block, on the core of `machine`.
    pub fn new<M: Send + 'static>(machine: &Machine<M>, socket: TcpListener) -> io::Result<Listener> {
        let timers = Rc::clone(&machine.0.timers);
        Ok(Listener {
            socket,
            ring: Rc::clone(&machine.0.ring),
            reserve: RefCell::new(open_reserve().ok()),
            timers,
        })
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next connection. Errors that concern one connection, or pass, are dealt with here; what is
    /// returned means that the listener is of no use any more.
    pub async fn accept(&self) -> io::Result<TcpStream> {
        loop {
            match self.try_accept() {
                Ok(socket) => return Ok(socket),
                Err(error) => self.recover(error).await?,
            }
        }
    }

    /// The next connection, for this core whatever the others have: it is not among those that an [`Acceptor`] spreads.
    pub async fn accept_here(&self) -> io::Result<Stream> {
        let socket = self.accept().await?;
        Ok(Stream::new(socket, Rc::clone(&self.ring), None))
    }

    fn try_accept(&self) -> io::Result<TcpStream> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::accept_with(&self.socket, flags)?;
        Ok(TcpStream::from(socket))
    }

    async fn recover(&self, error: io::Error) -> io::Result<()> {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => self.ring.readable(&self.socket).await,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                self.turn_one_away();
                self.timers.sleep(ACCEPT_RETRY_DELAY).await;
                Ok(())
            }
            Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP | libc::EFAULT) => Err(error),
            // accept(2) also gives what befell the connection that it would have given.
            _ => Ok(()),
        }
    }

    /// Accepts a connection with the reserve descriptor, and closes it: better than silence.
    fn turn_one_away(&self) {
        let mut reserve = self.reserve.borrow_mut();
        if reserve.take().is_some() {
            drop(self.try_accept());
        }
        *reserve = open_reserve().ok();
    }
}

fn open_reserve() -> io::Result<File> {
    File::open("/dev/null")
}

/// Accepts on one core for all.
///
/// Each connection goes to the core that has the fewest, in turns among equals. Of 17, 33 and 1,001
/// connections two cores had 8 and 9, 16 and 17, 500 and 501; with a SO_REUSEPORT listener each they had 6 and
/// 11, 15 and 18, 489 and 512, at the same CPU per request.
pub struct Acceptor<M: Send + 'static> {
    machine: Machine<M>,
    listener: Listener,
    connections_max: u32,
}

impl<M: Send + 'static> Acceptor<M> {
    /// A core that has `connections_max` connections gets no more; what comes when all are full waits, in the
    /// kernel's queue and for what that holds.
    pub fn new(machine: Machine<M>, listener: Listener, connections_max: u32) -> Acceptor<M> {
        Acceptor {
            machine,
            listener,
            connections_max,
        }
    }

    /// Accepts until the machine shuts down, then closes the listener.
    pub async fn run(self) -> io::Result<()> {
        let mut shutdown = pin!(self.machine.shutdown());
        let mut last = CoreId(0);
        loop {
            let socket = match select(&mut shutdown, pin!(self.listener.accept())).await {
                Either::Left(_) => return Ok(()),
                Either::Right((socket, _)) => socket?,
            };
            last = match select(&mut shutdown, pin!(self.core_with_room_after(last))).await {
                Either::Left(_) => return Ok(()),
                Either::Right((core, _)) => core,
            };
            self.machine.0.connections.count(last);
            self.machine.0.mesh.hand_over(last, socket);
        }
    }

    async fn core_with_room_after(&self, last: CoreId) -> CoreId {
        loop {
            let (core, open) = self.machine.0.connections.fewest_after(last);
            if open < self.connections_max {
                return core;
            }
            self.listener.timers.sleep(ACCEPT_RETRY_DELAY).await;
        }
    }
}

/// A connection. It is closed when this is dropped.
pub struct Stream {
    socket: Rc<TcpStream>,
    ring: Rc<Ring>,
    /// The last read took all that there was, so the next would most likely find nothing.
    drained: bool,
    _counted: Option<Counted>,
}

impl Stream {
    pub(super) fn new(socket: TcpStream, ring: Rc<Ring>, counted: Option<Counted>) -> Stream {
        Stream {
            socket: Rc::new(socket),
            ring,
            drained: false,
            _counted: counted,
        }
    }

    /// Reads what has come, up to the length of `dst`, waiting for the first byte. 0 is the end of the stream.
    ///
    /// Dropped early, it has read nothing.
    pub async fn read(&mut self, dst: &mut [u8]) -> io::Result<usize> {
        self.read_two(dst, &mut []).await
    }

    /// Completes when there is something to read, or the end of the stream. It needs no memory to read
    /// into, so that a connection which waits for its next request holds none.
    pub async fn readable(&mut self) -> io::Result<()> {
        self.drained = false;
        self.ring.readable(&self.socket).await
    }

    /// Reads what has come into `first`, and what is left of it into `second`; else as [`Stream::read`].
    pub async fn read_two(&mut self, first: &mut [u8], second: &mut [u8]) -> io::Result<usize> {
        if self.drained {
            self.drained = false;
            self.ring.readable(&self.socket).await?;
        }
        let room = first.len() + second.len();
        loop {
            let read = match second {
                [] => self.tcp().read(first),
                _ => self
                    .tcp()
                    .read_vectored(&mut [IoSliceMut::new(first), IoSliceMut::new(second)]),
            };
            match read {
                Ok(length) => {
                    self.drained = length < room;
                    return Ok(length);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.ring.readable(&self.socket).await?
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what has come away, up to `length` bytes, waiting for the first; gives how many, 0 at the end of the stream.
    /// Nothing is copied, so it takes no memory.
    pub async fn discard(&mut self, length: usize) -> io::Result<usize> {
        self.drained = false;
        loop {
            // SAFETY: with MSG_TRUNC the kernel writes no byte of a TCP stream anywhere (tcp(7)), so the pointer is not
            // used; the descriptor is open as long as `self.socket` is.
            let read = unsafe {
                libc::recv(
                    self.tcp().as_raw_fd(),
                    std::ptr::null_mut(),
                    length,
                    libc::MSG_TRUNC | libc::MSG_DONTWAIT,
                )
            };
            if let Ok(read) = usize::try_from(read) {
                return Ok(read);
            }
            match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => {
                    self.ring.readable(&self.socket).await?
                }
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            }
        }
    }

    /// Completes when there is room to write, or an error: the next write tells.
    pub async fn writable(&self) -> io::Result<()> {
        self.ring.writable(&self.socket).await
    }

    /// Writes some of `slices`, which hold at least a byte; gives how many bytes, at least one.
    ///
    /// Dropped early, it has written nothing.
    pub async fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            let written = self.tcp().write_vectored(slices);
            match self.progress(written).await? {
                0 => {}
                written => return Ok(written),
            }
        }
    }

    /// Writes all of `src`. Dropped early, it has written some of it.
    pub async fn write_all(&mut self, mut src: &[u8]) -> io::Result<()> {
        while !src.is_empty() {
            let written = self.tcp().write(src);
            src = &src[self.progress(written).await?..];
        }
        Ok(())
    }

    /// The other end's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().peer_addr()
    }

    /// Ends one direction or both; the other end reads the end of the stream.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.tcp().shutdown(how)
    }

    /// What watches this connection from another task and ends it, a pending read or write included.
    pub fn handle(&self) -> StreamHandle {
        StreamHandle(Rc::downgrade(&self.socket))
    }

    fn tcp(&self) -> &TcpStream {
        &self.socket
    }

    /// The bytes that a write call took: 0 after waiting, if it would have blocked.
    async fn progress(&self, written: io::Result<usize>) -> io::Result<usize> {
        match written {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => Ok(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.ring.writable(&self.socket).await?;
                Ok(0)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }
}

/// Watches and ends a connection that its owner waits on. Does not keep it open.
#[derive(Clone)]
pub struct StreamHandle(Weak<TcpStream>);

impl StreamHandle {
    /// Bytes that were written and that the other end has not acknowledged: those that the kernel holds for it.
    pub fn untaken_bytes(&self) -> u64 {
        let Some(socket) = self.0.upgrade() else { return 0 };
        let mut bytes: libc::c_int = 0;
        // SAFETY: the descriptor is open as long as `socket` is, and this request (SIOCOUTQ, tcp(7)) writes one int.
        let asked = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        if asked == 0 { bytes.max(0) as u64 } else { 0 }
    }

    /// Whether something has come that was not read yet.
    pub fn has_unread(&self) -> bool {
        let unread = |socket: Rc<TcpStream>| rustix::io::ioctl_fionread(&socket).is_ok_and(|bytes| bytes > 0);
        self.0.upgrade().is_some_and(unread)
    }

    /// A pending or later read gets the end of the stream, a write an error. Of no effect on a connection
    /// that is closed.
    pub fn shut_down(&self) {
        self.end(Shutdown::Both);
    }

    /// A pending read gets the end of the stream, and so do later ones once what has come is read. The
    /// answer can still be written.
    pub fn end_reads(&self) {
        self.end(Shutdown::Read);
    }

    /// As [`StreamHandle::shut_down`], and what the other end has not taken is thrown away: else the kernel would
    /// hold it for a while after the connection is closed.
    pub fn abort(&self) {
        if let Some(socket) = self.0.upgrade() {
            let _ = sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
        }
        self.shut_down();
    }

    fn end(&self, how: Shutdown) {
        if let Some(socket) = self.0.upgrade() {
            // It fails if the other end was faster.
            let _ = socket.shutdown(how);
        }
    }
}

/// How many connections each core has.
#[derive(Clone)]
pub(super) struct OpenConnections(Arc<[CorePlace]>);

#[repr(align(64))]
#[derive(Default)]
struct CorePlace(AtomicU32);

impl OpenConnections {
    pub(super) fn new(cores: usize) -> OpenConnections {
        OpenConnections((0..cores).map(|_| CorePlace::default()).collect())
    }

    /// Takes over the count of a connection that was handed to `core`.
    pub(super) fn counted(&self, core: CoreId) -> Counted {
        Counted {
            connections: self.clone(),
            core,
        }
    }

    fn count(&self, core: CoreId) {
        self.0[usize::from(core.0)].0.fetch_add(1, Ordering::Relaxed);
    }

    /// The core with the fewest, the first such after `last`, and how many it has.
    fn fewest_after(&self, last: CoreId) -> (CoreId, u32) {
        let cores = self.0.len();
        let after = (1..=cores).map(|step| (usize::from(last.0) + step) % cores);
        let open = after.map(|core| (CoreId(core as u16), self.0[core].0.load(Ordering::Relaxed)));
        open.min_by_key(|&(_, open)| open)
            .expect("there is at least one core")
    }
}

/// One connection of a core's.
pub(super) struct Counted {
    connections: OpenConnections,
    core: CoreId,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connections.0[usize::from(self.core.0)]
            .0
            .fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Io;
    use crate::io::uring::scratch::{Scratch, run};
    use crate::io::uring::{CAPACITY_BYTES_MIN, CoreChoice};
    use std::sync::Barrier;
    use std::thread;

    const LOOPBACK: &str = "127.0.0.1:0";

    /// Runs `serve` on one core with the server's end of a connection, and `client` on a thread with the other.
    fn connected<S, B, C>(serve: S, client: C)
    where
        S: Fn(Machine<()>, Stream) -> B + Send + Clone + 'static,
        B: Future<Output = ()> + 'static,
        C: FnOnce(TcpStream) + Send + 'static,
    {
        let scratch = Scratch::new();
        let volumes = scratch.volumes(CAPACITY_BYTES_MIN);
        let socket = Listener::bind(LOOPBACK.parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let client = thread::spawn(move || client(TcpStream::connect(address).unwrap()));
        let socket = Arc::new(socket);
        run(1, volumes, move |machine: Machine<()>| {
            let (socket, serve) = (socket.try_clone().unwrap(), serve.clone());
            async move {
                let acceptor = Acceptor::new(machine.clone(), Listener::new(&machine, socket).unwrap(), 10);
                let stream = async {
                    let stream = machine.next_connection().await;
                    machine.shut_down();
                    stream
                };
                let (stream, accepted) = futures_util::join!(stream, acceptor.run());
                accepted.unwrap();
                serve(machine, stream).await;
            }
        });
        client.join().unwrap();
    }

    #[test]
    fn more_than_the_sockets_hold_is_written_and_read_whole() {
        const HEAD: usize = 100;
        const BODY: usize = 20 << 20;
        connected(
            |_, mut stream| async move {
                let (head, body) = (vec![1; HEAD], vec![2; BODY]);
                let mut slices = &mut [IoSlice::new(&head), IoSlice::new(&body)][..];
                while !slices.is_empty() {
                    let written = stream.write_vectored(slices).await.unwrap();
                    IoSlice::advance_slices(&mut slices, written);
                }
                stream.write_all(&head).await.unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
            },
            |mut client| {
                let mut read = Vec::new();
                client.read_to_end(&mut read).unwrap();
                assert_eq!(read.len(), HEAD + BODY + HEAD);
                assert!(
                    read[..HEAD]
                        .iter()
                        .chain(&read[HEAD + BODY..])
                        .all(|&byte| byte == 1)
                );
                assert!(read[HEAD..HEAD + BODY].iter().all(|&byte| byte == 2));
            },
        );
    }

    #[test]
    fn what_is_discarded_is_not_read() {
        const UNWANTED: usize = 3 << 20;
        connected(
            |_, mut stream| async move {
                let mut discarded = 0;
                while discarded < UNWANTED {
                    let length = stream.discard(UNWANTED - discarded).await.unwrap();
                    assert!(length > 0);
                    discarded += length;
                }
                let mut dst = [0; 8];
                assert_eq!(stream.read(&mut dst).await.unwrap(), 4);
                assert_eq!(&dst[..4], b"next");
                assert_eq!(stream.discard(1).await.unwrap(), 0);
            },
            |mut client| {
                client.write_all(&vec![7; UNWANTED]).unwrap();
                client.write_all(b"next").unwrap();
            },
        );
    }

    #[test]
    fn pieces_are_read_as_they_come() {
        connected(
            |_, mut stream| async move {
                let mut dst = [0; 64];
                for number in 0..100u8 {
                    assert_eq!(stream.read(&mut dst).await.unwrap(), 1);
                    assert_eq!(dst[0], number);
                    stream.write_all(&dst[..1]).await.unwrap();
                }
                assert_eq!(stream.read(&mut dst).await.unwrap(), 0);
            },
            |mut client| {
                for number in 0..100 {
                    client.write_all(&[number]).unwrap();
                    client.read_exact(&mut [0]).unwrap();
                }
            },
        );
    }

    #[test]
    fn a_handle_ends_a_pending_read_and_a_pending_write() {
        let ended = Arc::new(Barrier::new(2));
        let client_ended = Arc::clone(&ended);
        connected(
            move |machine, mut stream| {
                let ended = Arc::clone(&ended);
                async move {
                    let handle = stream.handle();
                    let late = handle.clone();
                    let sweeper = machine.clone();
                    machine.spawn(async move {
                        sweeper.sleep(Duration::from_millis(5)).await;
                        handle.shut_down();
                    });
                    // Waits for ever: the client reads nothing, and this is more than the sockets hold.
                    stream.write_all(&vec![0; 64 << 20]).await.unwrap_err();
                    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
                    drop(stream);
                    late.shut_down();
                    ended.wait();
                }
            },
            move |_client| {
                client_ended.wait();
            },
        );
    }

    #[test]
    fn a_handle_wakes_a_reader() {
        connected(
            |machine, mut stream| async move {
                let handle = stream.handle();
                let sweeper = machine.clone();
                machine.spawn(async move {
                    sweeper.yield_now().await;
                    handle.shut_down();
                });
                assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
            },
            |mut client| {
                client.read_exact(&mut [0]).unwrap_err();
            },
        );
    }

    #[test]
    fn accepted_sockets_have_nodelay_and_know_their_peer() {
        connected(
            |_, stream| async move {
                assert!(stream.tcp().nodelay().unwrap());
                assert!(stream.peer_addr().unwrap().ip().is_loopback());
            },
            drop,
        );
    }

    #[test]
    fn connections_go_to_the_core_that_has_the_fewest() {
        let open = OpenConnections::new(3);
        let mut last = CoreId(0);
        let mut given = Vec::new();
        for _ in 0..6 {
            last = open.fewest_after(last).0;
            open.count(last);
            given.push(last.0);
        }
        assert_eq!(given, [1, 2, 0, 1, 2, 0]);
        drop(open.counted(CoreId(2)));
        assert_eq!(open.fewest_after(CoreId(1)), (CoreId(2), 1));
        assert_eq!(open.fewest_after(CoreId(2)), (CoreId(2), 1));
    }

    #[test]
    fn connections_are_spread_over_cores_and_a_full_server_lets_what_comes_wait() {
        const PER_CORE: usize = 4;
        if CoreChoice::All.cpus().unwrap().len() < 2 {
            return;
        }
        let scratch = Scratch::new();
        let volumes = scratch.volumes(CAPACITY_BYTES_MIN);
        let socket = Listener::bind(LOOPBACK.parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let client = thread::spawn(move || {
            let mut clients: Vec<_> = (0..2 * PER_CORE)
                .map(|_| TcpStream::connect(address).unwrap())
                .collect();
            let mut one_more = TcpStream::connect(address).unwrap();
            one_more.write_all(&[2]).unwrap();
            for client in &mut clients {
                client.write_all(&[1]).unwrap();
            }
            // It is served once one of the others is gone.
            one_more.read_exact(&mut [0]).unwrap();
        });
        let socket = Arc::new(socket);
        run(2, volumes, move |machine: Machine<()>| {
            let socket = socket.try_clone().unwrap();
            async move {
                if machine.core() == CoreId(0) {
                    let listener = Listener::new(&machine, socket).unwrap();
                    let acceptor = Acceptor::new(machine.clone(), listener, PER_CORE as u32);
                    machine.spawn(async move { acceptor.run().await.unwrap() });
                }
                let mut streams = Vec::new();
                for _ in 0..PER_CORE {
                    streams.push(machine.next_connection().await);
                }
                for stream in &mut streams {
                    let mut sent = [0; 8];
                    assert_eq!((stream.read(&mut sent).await.unwrap(), sent[0]), (1, 1));
                }
                if machine.core() == CoreId(0) {
                    drop(streams.pop());
                    let mut one_more = machine.next_connection().await;
                    assert_eq!(one_more.read(&mut [0; 8]).await.unwrap(), 1);
                    one_more.write_all(&[1]).await.unwrap();
                    machine.send(CoreId(1), ());
                } else {
                    machine.receive().await;
                }
            }
        });
        client.join().unwrap();
    }

    #[test]
    fn what_the_other_end_has_not_taken_is_told() {
        let read = Arc::new(Barrier::new(2));
        let client_read = Arc::clone(&read);
        connected(
            move |machine, mut stream| {
                let read = Arc::clone(&read);
                async move {
                    let handle = stream.handle();
                    assert_eq!(handle.untaken_bytes(), 0);
                    // More than both ends' sockets hold: some of it stays here.
                    let mut written = 0;
                    while handle.untaken_bytes() == 0 {
                        let slice = [IoSlice::new(&[0; 1 << 20])];
                        written += stream.write_vectored(&slice).await.unwrap();
                    }
                    assert!(handle.untaken_bytes() <= written as u64);
                    stream.shutdown(Shutdown::Write).unwrap();
                    read.wait();
                    while handle.untaken_bytes() > 0 {
                        machine.sleep(Duration::from_millis(1)).await;
                    }
                    drop(stream);
                    assert_eq!(handle.untaken_bytes(), 0);
                }
            },
            move |mut client| {
                client_read.wait();
                client.read_to_end(&mut Vec::new()).unwrap();
            },
        );
    }
}
