//! The daemon put together: volume, cores, listeners, and one loop for each connection.
//!
//! The way of a request: `socket`'s acceptor gives a connection to a core, [`connection`] reads its head,
//! [`crate::s3::serve`] answers, reading the body through [`body`], and [`response`] writes. [`core`] is what the
//! connections of a core share, [`watch`] ends those that are past their time, that are too slow ([`pace`]) or
//! that must make room, [`answer`] has what is said without S3: health, heads that are refused, an engine that has
//! not started, no room.
//!
//! Invariant: the lock on the volume is taken before a port is bound, because two daemons could share the
//! port without a word. The port is open while the engines recover, so that `/-/live` can say so.

mod answer;
mod body;
mod connection;
mod core;
mod input;
mod pace;
mod report;
mod response;
mod watch;

use self::core::{Core, Progress};
use crate::config::Config;
use crate::engine::{Engine, Message, RecoverError, Recovered, Sizes};
use crate::io::uring::{
    Acceptor, LaunchError, Listener, Machine as RealMachine, Volume, VolumeError, check_limits, launch,
};
use crate::io::{CoreId, Io};
use crate::limits::{CONNECTIONS_PER_CORE_MAX, RESERVE_CONNECTIONS_MAX};
use crate::s3::auth::RootUser;
use crate::s3::service::Service;
use futures_util::future::{Either, select};
use report::Report;
use std::fmt;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// How long an address may still be in use by a daemon that was killed, and how often it is tried.
const BIND_PATIENCE: Duration = Duration::from_secs(2);
const BIND_RETRY_DELAY: Duration = Duration::from_millis(10);

/// The real machine, carrying the engine's messages.
type Machine = RealMachine<Message>;

/// Why the daemon could not start or go on. Each is one line that says what to do.
#[derive(Debug)]
pub enum ServeError {
    Launch(LaunchError),
    Volume(VolumeError),
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    Recover(RecoverError),
    /// A listening socket was of no use any more.
    ListenerFailed,
}

/// Serves until the process is told to stop.
///
/// # Errors
/// What hinders it, before anything is served or, for a listener that failed, after everything was settled.
pub fn run(config: Config) -> Result<(), ServeError> {
    let cpus = config.cores.cpus()?;
    let descriptors = check_limits(cpus.len())?;
    let volume = Volume::open(&config.data, config.capacity_bytes)?;
    let report = Report::begin(&config, &volume, &cpus);
    let listeners = bind(&config.listen)?;
    let report = report.with_addresses(listeners.iter().filter_map(|listener| listener.local_addr().ok()));

    let progress = Arc::new(Progress::new(cpus.len()));
    let setup = Arc::new(Setup {
        root: config.root,
        domain: config.domain,
        connections: Connections::within(descriptors, cpus.len()),
        boot_seed: boot_seed(&volume),
        listeners: Mutex::new(listeners),
        progress: progress.clone(),
    });
    let (starts, started) = mpsc::channel();
    let since = Instant::now();
    let cores = launch(&cpus, volume, config.disk_timeout, {
        move |machine| run_core(machine, setup.clone(), starts.clone())
    })?;
    let mut sum = Recovered::default();
    let mut running = 0;
    // A core that is told to stop before its engine has started ends its half of the channel unsaid.
    for start in started.iter().take(cpus.len()) {
        sum.add(&start.map_err(ServeError::Recover)?);
        running += 1;
    }
    if running == cpus.len() {
        report.print(&sum, since.elapsed());
    }
    cores.join()?;
    if progress.has_listener_failed() {
        Err(ServeError::ListenerFailed)
    } else {
        Ok(())
    }
}

/// What every core is given.
struct Setup {
    root: RootUser,
    domain: Option<String>,
    connections: Connections,
    boot_seed: u64,
    /// Core 0 takes them.
    listeners: Mutex<Vec<TcpListener>>,
    progress: Arc<Progress>,
}

/// How many connections a core may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Connections {
    max: u32,
    /// Further ones, when all of those are at work.
    reserve: u32,
}

type Start = Result<Recovered, RecoverError>;

/// One core's life: accept, start the engine, serve, drain, settle.
async fn run_core(machine: Machine, setup: Arc<Setup>, starts: mpsc::Sender<Start>) {
    let core = Rc::new(Core::new(machine.clone(), &setup));
    if machine.core() == CoreId(0) {
        let listeners = setup
            .listeners
            .lock()
            .map(|mut listeners| std::mem::take(&mut *listeners));
        for listener in listeners.unwrap_or_default() {
            machine.spawn(accept(machine.clone(), listener, setup.clone()));
        }
    }
    machine.spawn(core.clone().take_connections());

    let engine = match select(
        pin!(Engine::start(machine.clone(), &Sizes::default())),
        pin!(machine.shutdown()),
    )
    .await
    {
        Either::Left((Ok((engine, recovered)), _)) => {
            core.open(service(engine.clone(), &setup));
            let _ = starts.send(Ok(recovered));
            engine
        }
        Either::Left((Err(error), _)) => {
            // The main thread ends the process with it: the other cores wait for this one.
            let _ = starts.send(Err(error));
            return machine.shutdown().await;
        }
        Either::Right(_) => return,
    };
    drop(starts);
    machine.shutdown().await;
    core.drain().await;
    engine.settle().await;
}

async fn accept(machine: Machine, listener: TcpListener, setup: Arc<Setup>) {
    let listening = Listener::new(&machine, listener);
    let ended = match listening {
        Ok(listener) => {
            Acceptor::new(
                machine.clone(),
                listener,
                setup.connections.max + setup.connections.reserve,
            )
            .run()
            .await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        report::warn(format_args!("a listener failed: {error}"));
        setup.progress.listener_failed();
        machine.shut_down();
    }
}

fn service(engine: Engine<Machine>, setup: &Setup) -> Service<Machine> {
    let root = RootUser {
        access_key: setup.root.access_key.clone(),
        secret_key: setup.root.secret_key.clone(),
    };
    Service::new(engine, root, setup.domain.clone())
}

fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, ServeError> {
    let bind = |&address| bind_soon(address).map_err(|source| ServeError::Listen { address, source });
    addresses.iter().map(bind).collect()
}

/// The kernel tears the rings of a process down after its end: for some milliseconds more an address that a killed
/// daemon listened on is in use.
fn bind_soon(address: SocketAddr) -> std::io::Result<TcpListener> {
    let since = Instant::now();
    loop {
        match Listener::bind(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && since.elapsed() < BIND_PATIENCE => {
                std::thread::sleep(BIND_RETRY_DELAY);
            }
            bound => return bound,
        }
    }
}

impl Connections {
    fn within(descriptors: u64, cores: usize) -> Connections {
        let share = descriptors / cores.max(1) as u64;
        let share = share.min(u64::from(CONNECTIONS_PER_CORE_MAX + RESERVE_CONNECTIONS_MAX)) as u32;
        let reserve = (share / 4).clamp(1, RESERVE_CONNECTIONS_MAX);
        Connections {
            max: share.saturating_sub(reserve).max(1),
            reserve,
        }
    }
}

/// Apart from that of other boots and other volumes.
fn boot_seed(volume: &Volume) -> u64 {
    let mut id = [0; 8];
    id.copy_from_slice(&volume.id()[..8]);
    u64::from_le_bytes(id) ^ u64::from(volume.boot_epoch()).rotate_right(24)
}

impl ServeError {
    /// Whether what was given on the command line or in the environment cannot be.
    pub fn is_usage(&self) -> bool {
        match self {
            ServeError::Launch(error) => matches!(
                error,
                LaunchError::BadChoice { .. } | LaunchError::CpuNotAllowed { .. }
            ),
            ServeError::Volume(error) => matches!(
                error,
                VolumeError::CapacityTooSmall { .. } | VolumeError::CapacityBelowUse { .. }
            ),
            ServeError::Recover(_) | ServeError::Listen { .. } | ServeError::ListenerFailed => false,
        }
    }
}

impl From<LaunchError> for ServeError {
    fn from(error: LaunchError) -> ServeError {
        ServeError::Launch(error)
    }
}

impl From<VolumeError> for ServeError {
    fn from(error: VolumeError) -> ServeError {
        ServeError::Volume(error)
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Launch(error) => error.fmt(f),
            ServeError::Volume(error) => error.fmt(f),
            ServeError::Recover(error) => error.fmt(f),
            ServeError::Listen { address, source } => {
                let mend = match source.kind() {
                    ErrorKind::AddrInUse => "stop what listens there, or give another --listen",
                    ErrorKind::PermissionDenied => {
                        "give a port from 1024 on, or the capability CAP_NET_BIND_SERVICE"
                    }
                    _ => "give --listen an address of this machine",
                };
                write!(f, "cannot listen on {address} ({source}): {mend}")
            }
            ServeError::ListenerFailed => write!(f, "stopped, because a listener failed: start it again"),
        }
    }
}

impl std::error::Error for ServeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_bounded_by_descriptors_and_keep_a_reserve() {
        for (descriptors, cores, max, reserve) in [
            (1 << 20, 1, CONNECTIONS_PER_CORE_MAX, RESERVE_CONNECTIONS_MAX),
            (8320, 2, CONNECTIONS_PER_CORE_MAX, RESERVE_CONNECTIONS_MAX),
            (8318, 2, CONNECTIONS_PER_CORE_MAX - 1, RESERVE_CONNECTIONS_MAX),
            (128, 1, 96, 32),
            (128, 64, 1, 1),
            (1, 64, 1, 1),
        ] {
            assert_eq!(
                Connections::within(descriptors, cores),
                Connections { max, reserve }
            );
        }
    }
}
