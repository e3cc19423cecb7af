//! SIGHUP, by which operators have a daemon read its configuration again.
//!
//! Invariant: until somebody listens, the signal does what it does to any process: it ends it.

use super::Machine;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;

/// Where a byte arrives for each SIGHUP of the process.
pub struct Hangups(UnixStream);

impl Hangups {
    /// Begins to listen.
    ///
    /// # Errors
    /// No descriptors are left, or the signal cannot be had.
    pub fn listen() -> io::Result<Hangups> {
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(libc::SIGHUP, write)?;
        Ok(Hangups(read))
    }

    /// Completes when there was one since the last time; several may count as one.
    ///
    /// # Errors
    /// There will be no more.
    pub async fn next<M: Send + 'static>(&mut self, machine: &Machine<M>) -> io::Result<()> {
        machine.0.ring.readable(&self.0).await?;
        match self.0.read(&mut [0; 64])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}
