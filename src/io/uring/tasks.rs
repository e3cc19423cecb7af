//! The loop of a core: its tasks run until none can, then the kernel is asked, and waits if need be.
//!
//! Invariant: the ring has its turn after at most `TASKS_PER_TURN` tasks, however many are ready. A core
//! without work sleeps in the kernel.

use super::ring::Ring;
use async_executor::LocalExecutor;
use futures_util::FutureExt;
use std::future::Future;
use std::io::{self, Write};
use std::rc::{Rc, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Tasks that run before the core looks at what has completed.
const TASKS_PER_TURN: usize = 128;

/// How long a core waits for memory that may be locked.
const RING_PATIENCE: Duration = Duration::from_secs(2);
const RING_RETRY_DELAY: Duration = Duration::from_millis(5);

/// Spawns onto a core; of no effect once the core has ended.
#[derive(Clone)]
pub(super) struct Tasks(Weak<LocalExecutor<'static>>);

impl Tasks {
    /// Runs `task` to its end, or to that of the core.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        if let Some(executor) = self.0.upgrade() {
            executor.spawn(task).detach();
        }
    }
}

/// Makes this thread a core until what `begin` gives has completed. All other tasks end with it; what they asked the kernel
/// for is waited for, though not longer than `patience`.
///
/// # Errors
/// io_uring cannot be used, what `begin` says, or the kernel does not give everything back in time.
pub(super) fn run<B>(
    patience: Duration,
    begin: impl FnOnce(&Rc<Ring>, &Tasks) -> io::Result<B>,
) -> io::Result<()>
where
    B: Future<Output = ()> + 'static,
{
    let ring = new_ring()?;
    let executor = Rc::new(LocalExecutor::new());
    let tasks = Tasks(Rc::downgrade(&executor));
    let body = executor.spawn(begin(&ring, &tasks)?);
    while !body.is_finished() {
        let ran = (0..TASKS_PER_TURN).take_while(|_| executor.try_tick()).count();
        if !body.is_finished() {
            ring.turn(ran < TASKS_PER_TURN);
        }
    }
    // In tests a panic goes on from here; else it has ended the process.
    body.now_or_never();
    // Its tasks go with it, and what they waited for is cancelled.
    drop(executor);
    ring.drain(patience).map_err(|left| {
        // The kernel still uses their memory, and does not let this thread end before.
        std::mem::forget(Rc::clone(&ring));
        let text = format!("the disk has not returned {left} operations; what was acknowledged is on it");
        let _ = writeln!(
            io::stderr(),
            "weft: {text}: the process ends when it does, and not before"
        );
        io::Error::new(io::ErrorKind::TimedOut, text)
    })
}

/// Where locked memory is counted, a ring that was let go gives its back only a moment later.
pub(super) fn new_ring() -> io::Result<Rc<Ring>> {
    let since = Instant::now();
    loop {
        match Ring::new() {
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory && since.elapsed() < RING_PATIENCE => {
                thread::sleep(RING_RETRY_DELAY);
            }
            made => return made,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::DISK_TIMEOUT;
    use std::cell::Cell;

    #[test]
    fn the_ring_has_its_turn_among_tasks_that_never_wait() {
        run(DISK_TIMEOUT, |ring, tasks| {
            let (busy, turns) = (Rc::clone(ring), Rc::new(Cell::new(0)));
            let counted = Rc::clone(&turns);
            tasks.spawn(async move {
                loop {
                    busy.yield_now().await;
                    counted.set(counted.get() + 1);
                }
            });
            let (read, write) = std::os::unix::net::UnixStream::pair()?;
            let ring = Rc::clone(ring);
            Ok(async move {
                while turns.get() < 3 {
                    ring.yield_now().await;
                }
                drop(write);
                ring.readable(&read).await.unwrap();
            })
        })
        .unwrap();
    }

    #[test]
    fn tasks_that_wait_end_with_the_core() {
        let dropped = Rc::new(Cell::new(false));
        struct Flag(Rc<Cell<bool>>);
        impl Drop for Flag {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let flag = Flag(Rc::clone(&dropped));
        run(DISK_TIMEOUT, |ring, tasks| {
            let (read, write) = std::os::unix::net::UnixStream::pair()?;
            let waiting = Rc::clone(ring);
            tasks.spawn(async move {
                let _held = (flag, write);
                let _ = waiting.readable(&read).await;
            });
            let ring = Rc::clone(ring);
            Ok(async move { ring.yield_now().await })
        })
        .unwrap();
        assert!(dropped.get());
    }
}
