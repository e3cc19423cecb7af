//! One core's io_uring, and the operations on it that tasks wait for.
//!
//! Everything that a core waits for completes here: disk operations, sockets that become readable, bells,
//! timers. A turn of the core's loop is one system call, [`Ring::turn`]: it hands the kernel what was queued,
//! waits if there is nothing to run, and wakes whoever waits for what has completed.
//!
//! Invariants: what an operation points to, and the file that it works on, is held in `operations` until the
//! kernel has said that it is done, whether or not somebody still waits. Only the core's own thread enters
//! the ring.
//!
//! Operations on a disk are told to whoever waits when they are overdue ([`Ring::sweep`]); they go on all the same.

use super::buffer::Buffer;
use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use slab::Slab;
use std::cell::RefCell;
use std::ffi::CString;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Entries of the submission queue. A full one is handed to the kernel, and then has room.
const SUBMISSIONS: u32 = 512;
/// Entries of the completion queue; what does not fit waits in the kernel.
const COMPLETIONS: u32 = 4096;
/// Names completions that nobody waits for.
const UNWATCHED: u64 = u64::MAX;
/// Threads that the kernel may use for what cannot be begun without waiting. Those that hang must not hold up the rest.
const KERNEL_THREADS: u32 = 64;
/// How often an end looks whether the last operations have completed.
const DRAIN_INTERVAL: Duration = Duration::from_millis(50);

pub(super) struct Ring {
    uring: RefCell<IoUring>,
    operations: RefCell<Slab<Operation>>,
    /// Tasks that let others go first; they run after the next turn.
    yielded: RefCell<Vec<Waker>>,
    /// What the last turn found; kept for its memory.
    completed: RefCell<Vec<(u64, i32)>>,
}

struct Operation {
    state: State,
    held: Held,
    age: Age,
}

/// How long an operation has been under way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    /// It may take for ever.
    Untimed,
    /// So many sweeps have seen it.
    Sweeps(u8),
    Overdue,
}

/// What a sweep found under way, of what has a time to keep.
#[derive(Clone, Copy, Default)]
pub(super) struct Swept {
    pub(super) timed: usize,
    pub(super) overdue: usize,
}

enum State {
    Waiting(Option<Waker>),
    /// What the kernel said.
    Completed(i32),
    /// Nobody waits any more.
    Abandoned,
}

/// What the kernel uses until an operation has completed.
#[derive(Default)]
enum Held {
    #[default]
    Nothing,
    File(#[expect(dead_code, reason = "held open")] Rc<File>),
    Buffer(#[expect(dead_code, reason = "held open")] Rc<File>, Buffer),
    Shared(
        #[expect(dead_code, reason = "held open")] Rc<File>,
        #[expect(dead_code, reason = "held in place")] Rc<Buffer>,
    ),
    Path(#[expect(dead_code, reason = "held in place")] CString),
}

/// What is promised when a write has completed.
#[derive(Clone, Copy)]
pub(super) enum Durability {
    None,
    /// What was written is on stable storage, as after fdatasync.
    Synced,
}

/// Readiness of a descriptor to wait for.
#[derive(Clone, Copy)]
enum Readiness {
    Readable,
    Writable,
}

impl Ring {
    /// The ring of the thread that calls this, which alone may use it.
    ///
    /// # Errors
    /// io_uring is forbidden, or older than Linux 6.1.
    pub(super) fn new() -> io::Result<Rc<Ring>> {
        let uring = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(SUBMISSIONS)?;
        uring
            .submitter()
            .register_iowq_max_workers(&mut [KERNEL_THREADS, 0])?;
        Ok(Rc::new(Ring {
            uring: RefCell::new(uring),
            operations: RefCell::default(),
            yielded: RefCell::default(),
            completed: RefCell::default(),
        }))
    }

    /// Keeps `files` open until the last operation of this ring has ended, however its process does: a killed process is
    /// gone, and its locks with it, while the kernel still has writes of its in flight.
    pub(super) fn keep_open<'a>(&self, files: impl Iterator<Item = &'a File>) -> io::Result<()> {
        let descriptors: Vec<i32> = files.map(|file| file.as_raw_fd()).collect();
        self.uring.borrow().submitter().register_files(&descriptors)
    }

    /// Reads into `buffer` what `file` has at `offset`; gives how many bytes came, and the buffer.
    ///
    /// Dropped early, it reads all the same, into memory that nobody sees.
    pub(super) fn read(self: &Rc<Self>, file: Rc<File>, offset: u64, buffer: Buffer) -> Pending {
        let entry = opcode::Read::new(fd(&*file), buffer.address().as_ptr(), buffer.len() as u32)
            .offset(offset)
            .build();
        self.start_timed(entry, Held::Buffer(file, buffer))
    }

    /// The next 8 bytes of a descriptor that counts events, when there is an event. Dropped early, it reads none.
    pub(super) async fn read_count(
        self: &Rc<Self>,
        counter: Rc<File>,
        buffer: Buffer,
    ) -> (io::Result<usize>, Buffer) {
        let entry = opcode::Read::new(fd(&*counter), buffer.address().as_ptr(), 8).build();
        let done = self
            .start(entry, Held::Buffer(counter, buffer), OnDrop::Cancel)
            .await;
        (done.length(), done.into_buffer())
    }

    /// Writes `buffer` to `file` at `offset`; gives how many bytes were written. Dropped early, it writes all the same.
    pub(super) fn write(
        self: &Rc<Self>,
        file: Rc<File>,
        offset: u64,
        buffer: Rc<Buffer>,
        durability: Durability,
    ) -> Pending {
        let entry = opcode::Write::new(fd(&*file), buffer.address().as_ptr(), buffer.len() as u32)
            .offset(offset)
            .rw_flags(match durability {
                Durability::None => 0,
                Durability::Synced => libc::RWF_DSYNC,
            })
            .build();
        self.start_timed(entry, Held::Shared(file, buffer))
    }

    /// fdatasync.
    pub(super) fn sync_data(self: &Rc<Self>, file: Rc<File>) -> Pending {
        let entry = opcode::Fsync::new(fd(&*file)).flags(FsyncFlags::DATASYNC).build();
        self.start_timed(entry, Held::File(file))
    }

    /// Opens the file at `path` for direct reading and writing. Dropped early, the file stays open.
    pub(super) fn open_direct(self: &Rc<Self>, path: CString) -> Pending {
        let entry = opcode::OpenAt::new(Fd(libc::AT_FDCWD), path.as_ptr())
            .flags(libc::O_RDWR | libc::O_DIRECT | libc::O_CLOEXEC)
            .build();
        self.start_timed(entry, Held::Path(path))
    }

    /// Completes when there is something to read from `descriptor`, or its end, or an error.
    pub(super) async fn readable(self: &Rc<Self>, descriptor: &impl AsFd) -> io::Result<()> {
        self.ready(descriptor, Readiness::Readable).await
    }

    /// Completes when there is room to write to `descriptor`, or an error.
    pub(super) async fn writable(self: &Rc<Self>, descriptor: &impl AsFd) -> io::Result<()> {
        self.ready(descriptor, Readiness::Writable).await
    }

    /// Should the descriptor be closed before the kernel was asked, it may be asked about another with
    /// the same number: that does no harm, because this is then cancelled, and its answer is not looked at.
    async fn ready(self: &Rc<Self>, descriptor: &impl AsFd, readiness: Readiness) -> io::Result<()> {
        let events = match readiness {
            Readiness::Readable => libc::POLLIN,
            Readiness::Writable => libc::POLLOUT,
        };
        let entry = opcode::PollAdd::new(fd(descriptor), events as u32).build();
        let done = self.start(entry, Held::Nothing, OnDrop::Cancel).await;
        done.length().map(drop)
    }

    /// Counts for all that has a time to keep that it took another while. What more than `sweeps_max` sweeps have seen is
    /// overdue, and whoever waits for it is told ([`Pending::in_time`]).
    pub(super) fn sweep(&self, sweeps_max: u8) -> Swept {
        let mut swept = Swept::default();
        let mut told = Vec::new();
        for (_, operation) in self.operations.borrow_mut().iter_mut() {
            match operation.age {
                _ if matches!(operation.state, State::Completed(_)) => continue,
                Age::Untimed => continue,
                Age::Overdue => swept.overdue += 1,
                Age::Sweeps(sweeps) if sweeps < sweeps_max => operation.age = Age::Sweeps(sweeps + 1),
                Age::Sweeps(_) => {
                    operation.age = Age::Overdue;
                    swept.overdue += 1;
                    if let State::Waiting(waker) = &mut operation.state {
                        told.extend(waker.take());
                    }
                }
            }
            swept.timed += 1;
        }
        for waker in told {
            waker.wake();
        }
        swept
    }

    /// Lets the tasks that are ready run first, and those that become ready by what has completed.
    pub(super) async fn yield_now(&self) {
        let mut yielded = false;
        poll_fn(|cx| {
            if yielded {
                return Poll::Ready(());
            }
            yielded = true;
            self.yielded.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Hands the kernel what was queued, and wakes those who wait for what has completed.
    ///
    /// Waits for something to complete if `idle`, unless a task has yielded.
    pub(super) fn turn(&self, idle: bool) {
        let yielded = self.yielded.take();
        self.enter(idle && yielded.is_empty());
        let mut completed = self.completed.take();
        completed.extend(
            self.uring
                .borrow_mut()
                .completion()
                .map(|entry| (entry.user_data(), entry.result())),
        );
        for (key, result) in completed.drain(..) {
            self.complete(key, result);
        }
        self.completed.replace(completed);
        for waker in yielded {
            waker.wake();
        }
    }

    /// Waits until the kernel is done with all that was asked of it. Nobody asks for more.
    ///
    /// # Errors
    /// How many operations it still has after `patience`, or if all that it has is overdue. The ring must not be dropped
    /// then: the kernel uses what they point to.
    pub(super) fn drain(&self, patience: Duration) -> Result<(), usize> {
        let until = Instant::now() + patience;
        loop {
            let (left, overdue) = {
                let operations = self.operations.borrow();
                let overdue = operations.iter().filter(|(_, one)| one.age == Age::Overdue);
                (operations.len(), overdue.count())
            };
            if left == 0 {
                return Ok(());
            }
            if left == overdue || Instant::now() > until {
                return Err(left);
            }
            let interval = Timespec::new().nsec(DRAIN_INTERVAL.as_nanos() as u32);
            let waited = self
                .uring
                .borrow()
                .submitter()
                .submit_with_args(1, &SubmitArgs::new().timespec(&interval));
            // That nothing came in time is no error here, and for any other the turn asks again.
            drop(waited);
            self.turn(false);
        }
    }

    fn enter(&self, wait: bool) {
        if !wait && !self.needs_kernel() {
            return;
        }
        let entered = self.uring.borrow().submitter().submit_and_wait(usize::from(wait));
        match entered.as_ref().map_err(io::Error::raw_os_error) {
            // Interrupted by a signal; or the kernel wants its completions taken, or some memory freed, first.
            Ok(_) | Err(Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {}
            Err(_) => panic!("io_uring_enter: {entered:?}"),
        }
    }

    fn needs_kernel(&self) -> bool {
        let mut uring = self.uring.borrow_mut();
        let submissions = uring.submission();
        !submissions.is_empty() || submissions.taskrun() || submissions.cq_overflow()
    }

    fn complete(&self, key: u64, result: i32) {
        if key == UNWATCHED {
            return;
        }
        let mut operations = self.operations.borrow_mut();
        let operation = &mut operations[key as usize];
        match std::mem::replace(&mut operation.state, State::Completed(result)) {
            State::Waiting(waker) => {
                drop(operations);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            State::Abandoned => {
                let operation = operations.remove(key as usize);
                drop(operations);
                drop(operation);
            }
            State::Completed(_) => unreachable!("an operation completes once"),
        }
    }

    fn start(self: &Rc<Self>, entry: squeue::Entry, held: Held, on_drop: OnDrop) -> Pending {
        self.start_at(Age::Untimed, entry, held, on_drop)
    }

    fn start_timed(self: &Rc<Self>, entry: squeue::Entry, held: Held) -> Pending {
        self.start_at(Age::Sweeps(0), entry, held, OnDrop::Leave)
    }

    fn start_at(self: &Rc<Self>, age: Age, entry: squeue::Entry, held: Held, on_drop: OnDrop) -> Pending {
        let key = self.operations.borrow_mut().insert(Operation {
            state: State::Waiting(None),
            held,
            age,
        });
        self.queue(&entry.user_data(key as u64));
        Pending {
            ring: Rc::clone(self),
            key: Some(key),
            on_drop,
        }
    }

    fn queue(&self, entry: &squeue::Entry) {
        // SAFETY: what the entry points to is in `operations` until it has completed.
        while unsafe { self.uring.borrow_mut().submission().push(entry) }.is_err() {
            self.enter(false);
        }
    }

    /// Takes the result of an operation that has completed; else notes who is to be woken.
    fn take(&self, key: usize, waker: &Waker) -> Option<Done> {
        let mut operations = self.operations.borrow_mut();
        match &mut operations[key].state {
            State::Completed(result) => {
                let result = *result;
                let held = operations.remove(key).held;
                Some(Done { result, held })
            }
            State::Waiting(waiting) => {
                if !waiting.as_ref().is_some_and(|waiting| waiting.will_wake(waker)) {
                    *waiting = Some(waker.clone());
                }
                None
            }
            State::Abandoned => unreachable!("nobody waits for what was abandoned"),
        }
    }

    fn abandon(&self, key: usize, on_drop: OnDrop) {
        let mut operations = self.operations.borrow_mut();
        match std::mem::replace(&mut operations[key].state, State::Abandoned) {
            State::Waiting(_) => {
                drop(operations);
                if on_drop == OnDrop::Cancel {
                    let cancel = opcode::AsyncCancel::new(key as u64).build();
                    self.queue(&cancel.user_data(UNWATCHED));
                }
            }
            State::Completed(_) | State::Abandoned => {
                let operation = operations.remove(key);
                drop(operations);
                drop(operation);
            }
        }
    }
}

/// What becomes of an operation that nobody waits for any more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnDrop {
    Leave,
    Cancel,
}

/// An operation that somebody waits for.
#[must_use]
pub(super) struct Pending {
    ring: Rc<Ring>,
    key: Option<usize>,
    on_drop: OnDrop,
}

/// An operation that has completed, and what it gives back.
pub(super) struct Done {
    result: i32,
    held: Held,
}

impl Done {
    /// Bytes that were read or written.
    pub(super) fn length(&self) -> io::Result<usize> {
        length(self.result)
    }

    /// The buffer that was read into.
    pub(super) fn into_buffer(self) -> Buffer {
        match self.held {
            Held::Buffer(_, buffer) => buffer,
            _ => unreachable!("an operation gives back what it was given"),
        }
    }

    /// Nobody wants it: a file that was opened is closed.
    pub(super) fn discard(self) {
        if matches!(self.held, Held::Path(_)) {
            drop(self.into_file());
        }
    }

    /// The file that was opened.
    pub(super) fn into_file(self) -> io::Result<File> {
        let descriptor = self.length()? as i32;
        // SAFETY: the kernel has just opened it for us, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }.into())
    }
}

impl Pending {
    /// What it comes to; `None` as soon as it is overdue. It goes on then, and may be waited for again.
    pub(super) async fn in_time(&mut self) -> Option<Done> {
        poll_fn(|cx| match Pin::new(&mut *self).poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if self.is_overdue() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    fn is_overdue(&self) -> bool {
        let operations = self.ring.operations.borrow();
        self.key.is_some_and(|key| operations[key].age == Age::Overdue)
    }
}

impl Future for Pending {
    type Output = Done;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Done> {
        let key = self.key.expect("polled after it completed");
        match self.ring.take(key, cx.waker()) {
            Some(output) => {
                self.key = None;
                Poll::Ready(output)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.ring.abandon(key, self.on_drop);
        }
    }
}

fn fd(descriptor: &impl AsFd) -> Fd {
    Fd(descriptor.as_fd().as_raw_fd())
}

/// The kernel's result: a length, or an error's number negated.
fn length(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}
