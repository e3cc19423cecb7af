//! Starts the cores: one executor each, pinned to its CPU, with its [`Machine`].
//!
//! Whatever the system may refuse is tried before the first executor starts, so that it becomes one
//! line with the command that mends it, and not a panic on some thread.
//!
//! SIGTERM and SIGINT are written to a socket that core 0 reads. It tells the others, which is what
//! completes [`Machine::shutdown`]; a second signal ends the process at once.
//!
//! Invariant: a core answers messages until the bodies of all cores have completed.

use super::buffer::Pool;
use super::disk::{Disk, Handles, OPEN_SEGMENTS_MAX};
use super::mesh::{self, Ends};
use super::patience::{Patience, StuckCores};
use super::ring::Ring;
use super::socket::OpenConnections;
use super::tasks::{self, Tasks};
use super::timers::Timers;
use super::volume::VolumeSet;
use super::{Machine, Parts};
use crate::io::CoreId;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt;
use std::future::Future;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Descriptors of one core besides segments and connections: rings, eventfds, listeners.
const DESCRIPTORS_PER_CORE: u64 = 32;
/// Descriptors of the process besides the cores': standard streams, the lock, and 128 connections.
const DESCRIPTORS_BASE: u64 = 256;
/// Locked memory of a core's ring, where it is counted (Linux 6.18: 128 KiB are too little for one core, 160 are enough).
const LOCKED_KIB_PER_CORE: usize = 160;
/// How often the end of a core that could not start is looked for.
const END_RETRY_DELAY: Duration = Duration::from_millis(1);
/// The exit status of a process that a second SIGINT ended.
const EXIT_INTERRUPTED: i32 = 130;

/// Which CPUs to run on, among those that the process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoreChoice {
    /// Every one.
    All,
    /// The first so many.
    Count(usize),
    /// These.
    List(Vec<usize>),
}

/// The cores of a run.
#[must_use = "the process ends with its main thread: join the cores"]
pub struct Cores {
    handles: Vec<JoinHandle<io::Result<()>>>,
}

/// Why the cores cannot start. Each is one line that says what to do.
#[derive(Debug)]
pub enum LaunchError {
    /// The choice names a CPU that the process may not use.
    CpuNotAllowed { cpu: usize, allowed: Vec<usize> },
    /// The choice is empty, names a CPU twice, or asks for more than there are.
    BadChoice { asked: usize, allowed: Vec<usize> },
    /// The CPUs that the process may use cannot be read.
    Affinity(io::Error),
    /// RLIMIT_NOFILE.
    TooFewDescriptors { limit: u64, needed: u64 },
    /// RLIMIT_MEMLOCK.
    TooLittleLockedMemory { needed_kib: usize },
    /// The kernel has no io_uring, or forbids it.
    NoIoUring { reason: String, mend: &'static str },
    /// An executor could not start, or a core ended by a panic.
    Core { reason: String },
}

impl CoreChoice {
    /// The CPUs chosen, in the order of cores.
    pub fn cpus(&self) -> Result<Vec<usize>, LaunchError> {
        let set =
            rustix::thread::sched_getaffinity(None).map_err(|errno| LaunchError::Affinity(errno.into()))?;
        let allowed: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU)
            .filter(|&cpu| set.is_set(cpu))
            .collect();
        self.among(allowed)
    }

    fn among(&self, allowed: Vec<usize>) -> Result<Vec<usize>, LaunchError> {
        let chosen = match self {
            CoreChoice::All => allowed.clone(),
            CoreChoice::Count(count) => allowed.iter().copied().take(*count).collect(),
            CoreChoice::List(cpus) => cpus.clone(),
        };
        let asked = match self {
            CoreChoice::Count(count) => *count,
            CoreChoice::All | CoreChoice::List(_) => chosen.len(),
        };
        if let Some(&cpu) = chosen.iter().find(|cpu| !allowed.contains(cpu)) {
            return Err(LaunchError::CpuNotAllowed { cpu, allowed });
        }
        let twice = chosen
            .iter()
            .enumerate()
            .any(|(at, cpu)| chosen[..at].contains(cpu));
        if twice || chosen.is_empty() || chosen.len() != asked {
            return Err(LaunchError::BadChoice { asked, allowed });
        }
        Ok(chosen)
    }
}

/// Sees that `cores` cores can run here, and raises the soft limit of descriptors as far as it goes. Gives how many descriptors are left for connections.
pub fn check_limits(cores: usize) -> Result<u64, LaunchError> {
    let reserved = cores as u64 * (OPEN_SEGMENTS_MAX as u64 + DESCRIPTORS_PER_CORE);
    let needed = reserved + DESCRIPTORS_BASE;
    let limit = raise_limit(Resource::Nofile);
    if limit < needed {
        return Err(LaunchError::TooFewDescriptors { limit, needed });
    }
    check_io_uring(cores)?;
    Ok(limit - needed + DESCRIPTORS_BASE / 2)
}

/// Runs `body` on each of `cpus`, once per core, and returns when all are running.
///
/// Core `n` runs on the `n`th CPU. The volumes stay locked until the last core has ended. A disk operation that has not
/// returned for `disk_timeout` fails.
pub fn launch<M, F, B>(
    cpus: &[usize],
    volumes: VolumeSet,
    disk_timeout: Duration,
    body: F,
) -> Result<Cores, LaunchError>
where
    M: Send + 'static,
    F: Fn(Machine<M>) -> B + Send + Clone + 'static,
    B: Future<Output = ()> + 'static,
{
    let shared = Shared {
        started: Instant::now(),
        volumes: Arc::new(volumes),
        disk_timeout,
        stuck: StuckCores::default(),
        connections: OpenConnections::new(cpus.len()),
        signals: Arc::new(Mutex::new(Some(signals().map_err(core_error)?))),
    };
    let inboxes = mesh::join::<M>(cpus.len()).map_err(core_error)?;
    let (running, runs) = mpsc::channel();
    let mut handles = Vec::with_capacity(cpus.len());
    for (ends, &cpu) in inboxes.into_iter().zip(cpus) {
        let (shared, body, running) = (shared.clone(), body.clone(), running.clone());
        let core = move || {
            pin_to(cpu)?;
            tasks::run(disk_timeout, move |ring, tasks| {
                Ok(run_core(machine(shared, ends, ring, tasks)?, running, body))
            })
        };
        let handle = thread::Builder::new()
            .name("weft-core".to_owned())
            .spawn(core)
            .map_err(core_error)?;
        handles.push(handle);
    }
    drop(running);
    let cores = Cores { handles };
    // Each core says once that it runs; one that cannot start ends its half of the channel unsaid.
    if runs.iter().take(cpus.len()).count() < cpus.len() {
        return Err(cores.why_one_ended());
    }
    Ok(cores)
}

impl Cores {
    /// What became of the core that could not start. The others wait for it, and end with the process.
    fn why_one_ended(mut self) -> LaunchError {
        let ended = loop {
            match self.handles.iter().position(JoinHandle::is_finished) {
                Some(at) => break self.handles.swap_remove(at),
                None => thread::sleep(END_RETRY_DELAY),
            }
        };
        match ended.join() {
            Ok(Err(error)) => core_error(error),
            Ok(Ok(())) | Err(_) => core_error(io::Error::other("it ended before it ran")),
        }
    }

    /// Waits until every core's body has completed.
    pub fn join(self) -> Result<(), LaunchError> {
        // All are waited for, and the first error told.
        let ends: Vec<_> = self.handles.into_iter().map(JoinHandle::join).collect();
        ends.into_iter().try_for_each(|end| {
            end.unwrap_or_else(|_| Err(io::Error::other("it panicked")))
                .map_err(core_error)
        })
    }
}

/// What all cores are given alike.
#[derive(Clone)]
struct Shared {
    started: Instant,
    volumes: Arc<VolumeSet>,
    disk_timeout: Duration,
    stuck: StuckCores,
    connections: OpenConnections,
    /// Taken by core 0.
    signals: Arc<Mutex<Option<UnixStream>>>,
}

async fn run_core<M, F, B>(machine: Machine<M>, running: mpsc::Sender<()>, body: F)
where
    M: Send + 'static,
    F: Fn(Machine<M>) -> B,
    B: Future<Output = ()>,
{
    // The launcher may have given up, because another core could not start.
    let _ = running.send(());
    drop(running);
    body(machine.clone()).await;
    machine.0.mesh.end_with_the_others().await;
}

/// The machine of the core that calls this, its own tasks begun.
fn machine<M: Send + 'static>(
    shared: Shared,
    ends: Ends<M>,
    ring: &Rc<Ring>,
    tasks: &Tasks,
) -> io::Result<Machine<M>> {
    // The next daemon's writes must not meet the last of this one's.
    ring.keep_open(shared.volumes.locks())?;
    let pool = Rc::new(Pool::default());
    let (timers, keeping_time) = Timers::new(ring, &pool)?;
    let (mesh, emptying_inbox) = ends.connect(ring, &pool)?;
    tasks.spawn(keeping_time);
    tasks.spawn(emptying_inbox);
    let patience = Patience::new(shared.disk_timeout, shared.stuck.clone(), ring, tasks, &timers);
    let handles = Handles {
        ring: Rc::clone(ring),
        pool: Rc::clone(&pool),
        tasks: tasks.clone(),
        timers: Rc::clone(&timers),
        patience: Rc::clone(&patience),
    };
    let machine = Machine(Rc::new(Parts {
        started: shared.started,
        disk: Disk::new(Arc::clone(&shared.volumes), handles),
        volumes: shared.volumes,
        patience,
        stuck: shared.stuck,
        mesh,
        timers,
        ring: Rc::clone(ring),
        pool,
        tasks: tasks.clone(),
        connections: shared.connections,
    }));
    if machine.0.mesh.core() == CoreId(0) {
        let signals = shared.signals.lock().map(|mut signals| signals.take());
        tasks.spawn(watch_signals(machine.clone(), signals.ok().flatten()));
    }
    Ok(machine)
}

/// Where a byte arrives for each SIGTERM and SIGINT of the process.
fn signals() -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(libc::SIGTERM, write.try_clone()?)?;
    signal_hook::low_level::pipe::register(libc::SIGINT, write)?;
    Ok(read)
}

async fn watch_signals<M: Send + 'static>(machine: Machine<M>, signals: Option<UnixStream>) {
    let Some(mut signals) = signals else { return };
    let mut heard = 0;
    while machine.0.ring.readable(&signals).await.is_ok() {
        heard += signals.read(&mut [0; 2]).unwrap_or(0);
        match heard {
            0 => {}
            1 => machine.shut_down(),
            _ => std::process::exit(EXIT_INTERRUPTED),
        }
    }
}

fn pin_to(cpu: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Raises the soft limit to the hard one; gives the limit that then holds.
fn raise_limit(resource: Resource) -> u64 {
    let before = getrlimit(resource);
    // Raising the soft limit needs no privilege; where it fails all the same, the old limit holds.
    let _ = setrlimit(
        resource,
        Rlimit {
            current: before.maximum,
            maximum: before.maximum,
        },
    );
    getrlimit(resource).current.unwrap_or(u64::MAX)
}

/// Makes a ring for each core, on a thread of its own, and lets them go.
fn check_io_uring(cores: usize) -> Result<(), LaunchError> {
    let probe = move || {
        let rings: io::Result<Vec<Rc<Ring>>> = (0..cores).map(|_| tasks::new_ring()).collect();
        rings.map(drop)
    };
    let reason = match thread::spawn(probe).join() {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(reason)) if reason.raw_os_error() == Some(libc::ENOMEM) => {
            return Err(LaunchError::TooLittleLockedMemory {
                needed_kib: cores * LOCKED_KIB_PER_CORE,
            });
        }
        Ok(Err(reason)) => reason.to_string(),
        Err(_) => "the probe panicked".to_owned(),
    };
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let mend = match disabled.trim() {
        "1" | "2" => "sysctl -w kernel.io_uring_disabled=0",
        _ => "in a container, docker run --security-opt seccomp=unconfined; else boot Linux 6.1 or later",
    };
    Err(LaunchError::NoIoUring { reason, mend })
}

fn core_error(error: io::Error) -> LaunchError {
    LaunchError::Core {
        reason: error.to_string(),
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaunchError::CpuNotAllowed { cpu, allowed } => {
                write!(
                    f,
                    "CPU {cpu} is not among those that this process may use: give --cores from {allowed:?}"
                )
            }
            LaunchError::BadChoice { asked, allowed } => write!(
                f,
                "{asked} cores are asked for, of {} that this process may use, each at most once: give --cores 1 to {0}, or a list from {allowed:?}",
                allowed.len()
            ),
            LaunchError::Affinity(source) => {
                write!(f, "cannot read the CPUs that this process may use: {source}")
            }
            LaunchError::TooFewDescriptors { limit, needed } => write!(
                f,
                "at most {limit} open files are allowed, and {needed} are needed: ulimit -n {needed}, or LimitNOFILE={needed} in the systemd unit"
            ),
            LaunchError::TooLittleLockedMemory { needed_kib } => write!(
                f,
                "too little memory may be locked for the rings of so many cores: ulimit -l {needed_kib}, or LimitMEMLOCK={needed_kib}K in the systemd unit, or fewer --cores"
            ),
            LaunchError::NoIoUring { reason, mend } => {
                write!(f, "io_uring cannot be used ({reason}): {mend}")
            }
            LaunchError::Core { reason } => write!(f, "a core failed: {reason}"),
        }
    }
}

impl std::error::Error for LaunchError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_chosen_among_the_allowed() {
        let allowed = vec![1, 3, 5];
        for (choice, cpus) in [
            (CoreChoice::All, Some(vec![1, 3, 5])),
            (CoreChoice::Count(2), Some(vec![1, 3])),
            (CoreChoice::List(vec![5, 1]), Some(vec![5, 1])),
            (CoreChoice::Count(0), None),
            (CoreChoice::Count(4), None),
            (CoreChoice::List(vec![]), None),
            (CoreChoice::List(vec![2]), None),
            (CoreChoice::List(vec![1, 1]), None),
        ] {
            assert_eq!(choice.among(allowed.clone()).ok(), cpus, "{choice:?}");
        }
    }

    #[test]
    fn limits_suffice_for_one_core_and_never_for_a_million() {
        assert!(check_limits(1).unwrap() > 0);
        assert!(matches!(
            check_limits(1 << 40),
            Err(LaunchError::TooFewDescriptors { .. })
        ));
    }
}
