//! The daemon put together: volumes, cores, listeners, and one loop for each connection.
//!
//! The way of a request: `socket`'s acceptor gives a connection to a core, [`connection`] reads its head,
//! [`crate::s3::serve`] answers, reading the body through [`body`], and [`response`] writes. [`core`] is what the
//! connections of a core share, [`watch`] ends those that are past their time, that are too slow ([`pace`]) or
//! that must make room, [`answer`] has what is said without S3: health, heads that are refused, an engine that has
//! not started, no room.
//!
//! Invariant: the locks on the volumes are taken before a port is bound, because two daemons could share the
//! port without a word. The port is open while the engines recover, so that `/-/live` can say so.

mod admin;
mod answer;
mod body;
mod connection;
mod core;
mod exposition;
mod input;
mod memory;
mod metrics;
mod pace;
mod recovery;
mod reload;
mod report;
mod response;
mod scrub;
mod tally;
mod watch;

use self::core::{Core, Progress, Role};
use crate::config::Config;
use crate::engine::{
    Engine, Loss, Message, RecoverError, Recovered, Sizes, SpaceUse, Start as EngineStart, StartProgress,
    segments_min,
};
use crate::io::uring::{
    Acceptor, Hangups, LaunchError, Listener, Machine as RealMachine, VolumeError, VolumeSet, check_limits,
    launch,
};
use crate::io::{CoreId, Io};
use crate::limits::{CONNECTIONS_PER_CORE_MAX, RESERVE_CONNECTIONS_MAX};
use crate::s3::auth::Users;
use crate::s3::service::Service;
use futures_util::future::{Either, join, select};
use memory::{sizes_of, usual_bytes};
use metrics::Recovery;
use report::Report;
use scrub::{Place, Scrub, Told};
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

/// At the end of a run the others are waited for so long, to say what the volume holds.
const SETTLE_PATIENCE: Duration = Duration::from_secs(1);
const SETTLE_POLL: Duration = Duration::from_millis(1);
/// Uploads are looked at so many times in the age at which they are ended, within bounds.
const ABORT_PARTS: u32 = 16;
const ABORT_PAUSE_MIN: Duration = Duration::from_millis(100);
const ABORT_PAUSE_MAX: Duration = Duration::from_secs(3600);

/// The real machine, carrying the engine's messages.
type Machine = RealMachine<Message>;

/// Why the daemon could not start or go on. Each is one line that says what to do.
#[derive(Debug)]
pub enum ServeError {
    Launch(LaunchError),
    Volume(VolumeError),
    Listen {
        flag: &'static str,
        address: SocketAddr,
        source: std::io::Error,
    },
    Recover(RecoverError),
    /// The volume has too few segments for so many cores.
    TooManyCores {
        cores: usize,
        segments: u32,
        segment_bytes: u64,
    },
    /// Less memory than so many cores need.
    Memory {
        cores: usize,
    },
    /// The system refuses a thread.
    Thread {
        source: std::io::Error,
    },
    /// The volumes were not open within the time that a disk has.
    DiskTimeout {
        limit: Duration,
    },
    /// SIGHUP cannot be listened for.
    Signal(std::io::Error),
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
    let memory_bytes = config
        .memory_bytes
        .unwrap_or_else(|| usual_bytes(machine_memory_bytes(), cpus.len()));
    let sizes = sizes_of(memory_bytes, cpus.len()).ok_or(ServeError::Memory { cores: cpus.len() })?;
    let volumes = open_in_time(&config)?;
    check_segments(&volumes, cpus.len())?;
    let report = Report::begin(&config, &volumes, &cpus, memory_bytes);
    let listeners = bind(&config.listen)?;
    let bind_admin = |address| bind_one("--admin-listen", address);
    let admin_listener = config.admin_listen.map(bind_admin).transpose()?;
    let address = |listener: &TcpListener| listener.local_addr().ok();
    let report = report.with_addresses(
        listeners.iter().filter_map(address),
        admin_listener.as_ref().and_then(address),
    );

    let start_progress = Arc::new(StartProgress::default());
    let progress = Arc::new(Progress::new(cpus.len(), start_progress.clone()));
    let root = Arc::new(config.root);
    let source = |path| reload::Source { path, root };
    let reload = match config.users_file.map(source) {
        Some(source) => Some((Hangups::listen().map_err(ServeError::Signal)?, source)),
        None => None,
    };

    let place = Place::of(&volumes);
    let scrub = place.as_ref().and_then(|place| {
        Scrub::new(
            config.scrub_bytes_per_s,
            volumes.capacity_bytes(),
            cpus.len(),
            place,
        )
    });
    let setup = Arc::new(Setup {
        users: Arc::new(config.users),
        reload: Mutex::new(reload),
        domain: config.domain,
        sizes,
        abort_uploads_after: config.abort_uploads_after,
        start: EngineStart {
            loss: match config.accept_damage {
                true => Loss::Accepted,
                false => Loss::MayBeMended,
            },
            progress: start_progress.clone(),
        },
        connections: Connections::within(descriptors, cpus.len()),
        boot_seed: boot_seed(&volumes),
        listeners: Mutex::new(Listeners {
            s3: listeners,
            admin: admin_listener,
        }),
        progress: progress.clone(),
        scrub: scrub.clone(),
    });
    let (starts, started) = mpsc::channel();
    let (counts, counted) = mpsc::channel();
    let (scrubbed, scrub_places) = mpsc::channel();
    if let (Some(place), Some(scrub)) = (place, scrub) {
        place.keep(scrub.from, cpus.len(), scrub_places);
    }
    let since = Instant::now();
    let cores = launch(&cpus, volumes, config.disk_timeout, {
        move |machine| {
            run_core(
                machine,
                setup.clone(),
                starts.clone(),
                counts.clone(),
                scrubbed.clone(),
            )
        }
    })?;
    let found = recovery::wait(&started, cpus.len(), &start_progress).map_err(ServeError::Recover)?;
    if let Some(sum) = found {
        report.print(&sum, since.elapsed());
        // It comes when all of the index was read, or not at all if the run ends before that.
        if let Ok(space) = counted.recv() {
            report::print_space(&space);
        }
    }
    cores.join()?;
    if progress.has_listener_failed() {
        Err(ServeError::ListenerFailed)
    } else {
        Ok(())
    }
}

/// Opens the volumes, on a thread of its own: a disk that hangs keeps whoever asks it something, and no core runs yet
/// that could wait with patience.
fn open_in_time(config: &Config) -> Result<VolumeSet, ServeError> {
    let (data, capacity_bytes, access) = (config.data.clone(), config.capacity_bytes, config.access);
    let (opens, opened) = mpsc::channel();
    let opening = move || drop(opens.send(VolumeSet::open(&data, capacity_bytes, access)));
    std::thread::Builder::new()
        .name("weft-open".to_owned())
        .spawn(opening)
        .map_err(|source| ServeError::Thread { source })?;
    match opened.recv_timeout(config.disk_timeout) {
        Ok(volumes) => Ok(volumes?),
        Err(_) => Err(ServeError::DiskTimeout {
            limit: config.disk_timeout,
        }),
    }
}

fn check_segments(volume: &VolumeSet, cores: usize) -> Result<(), ServeError> {
    let shape = volume.shape();
    let segments = segments_min(cores);
    match shape.segments_max < segments {
        false => Ok(()),
        true => Err(ServeError::TooManyCores {
            cores,
            segments,
            segment_bytes: u64::from(shape.segment_size_bytes),
        }),
    }
}

/// Bytes of the machine's memory.
fn machine_memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram as u64 * u64::from(info.mem_unit)
}

/// What every core is given.
struct Setup {
    /// As the start found them.
    users: Arc<Users>,
    /// Core 0 takes it.
    reload: Mutex<Option<(Hangups, reload::Source)>>,
    domain: Option<String>,
    sizes: Sizes,
    abort_uploads_after: Option<Duration>,
    start: EngineStart,
    connections: Connections,
    boot_seed: u64,
    /// Core 0 takes them.
    listeners: Mutex<Listeners>,
    progress: Arc<Progress>,
    scrub: Option<Scrub>,
}

#[derive(Default)]
struct Listeners {
    s3: Vec<TcpListener>,
    admin: Option<TcpListener>,
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
async fn run_core(
    machine: Machine,
    setup: Arc<Setup>,
    starts: mpsc::Sender<Start>,
    counts: mpsc::Sender<SpaceUse>,
    scrubbed: mpsc::Sender<Told>,
) {
    let core = Rc::new(Core::new(machine.clone(), &setup, Role::S3, setup.connections));
    core.settle_here();
    let admin = match machine.core() {
        CoreId(0) => listen(&core, &setup),
        _ => None,
    };
    machine.spawn(core.clone().take_connections());
    if machine.core() == CoreId(0)
        && let Some((hangups, source)) = setup.reload.lock().ok().and_then(|mut reload| reload.take())
    {
        machine.spawn(reload::watch(core.clone(), hangups, source));
    }

    let engine = match select(
        pin!(Engine::start_with(
            setup.start.clone(),
            machine.clone(),
            &setup.sizes
        )),
        pin!(machine.shutdown()),
    )
    .await
    {
        Either::Left((Ok((engine, recovered)), _)) => {
            let took = Duration::from_nanos(machine.monotonic_ns());
            let recovery = Recovery {
                found: recovered,
                took,
            };
            let users = core.users();
            core.open(
                Service::new(engine.clone(), users, setup.domain.clone()),
                recovery,
            );
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
    let counting = async {
        if let Some(space) = engine.space_counted().await {
            let _ = counts.send(space);
        }
    };
    select(pin!(counting), pin!(machine.shutdown())).await;
    drop(counts);
    if let Some(Scrub { plan, from }) = setup.scrub.clone() {
        engine.scrub(plan, from, scrub::teller(machine.core(), scrubbed));
    }
    if let Some(age) = setup.abort_uploads_after {
        machine.spawn(abort_uploads(machine.clone(), engine.clone(), age));
    }
    machine.shutdown().await;
    match admin {
        Some(admin) => drop(join(core.drain(), admin.drain()).await),
        None => core.drain().await,
    }
    engine.settle().await;
    setup.progress.core_settled();
    if engine.space_use().is_some() {
        // What the others have told this core by then has come before their word that they have.
        let since = Instant::now();
        while !setup.progress.have_all_settled() && since.elapsed() < SETTLE_PATIENCE {
            machine.sleep(SETTLE_POLL).await;
        }
        machine.sleep(SETTLE_POLL).await;
        if let Some(space) = engine.space_use() {
            report::print_space(&space);
        }
    }
}

/// Ends uploads that are too old, now and then, for as long as the run.
async fn abort_uploads(machine: Machine, engine: Engine<Machine>, age: Duration) {
    let pause = (age / ABORT_PARTS).clamp(ABORT_PAUSE_MIN, ABORT_PAUSE_MAX);
    loop {
        machine.sleep(pause).await;
        if let Err(refusal) = engine.abort_uploads_older_than(age).await {
            report::warn(format_args!(
                "not all uploads could be looked at for their age ({refusal:?}): it is tried again"
            ));
        }
    }
}

/// On core 0: begins to listen. Gives what the admin listener's connections share, if there is one.
fn listen(core: &Rc<Core>, setup: &Arc<Setup>) -> Option<Rc<Core>> {
    let listeners = setup
        .listeners
        .lock()
        .map(|mut listeners| std::mem::take(&mut *listeners));
    let Listeners { s3, admin } = listeners.unwrap_or_default();
    let machine = &core.machine;
    for listener in s3 {
        machine.spawn(accept(machine.clone(), listener, setup.clone()));
    }
    let listener = admin?;
    let admin = admin::core(core, setup);
    let (accepting, failed) = (admin::accept(admin.clone(), listener), setup.clone());
    let machine = machine.clone();
    machine.clone().spawn(async move {
        if let Err(error) = accepting.await {
            listener_failed(&machine, &failed, &error);
        }
    });
    Some(admin)
}

fn listener_failed(machine: &Machine, setup: &Setup, error: &std::io::Error) {
    report::warn(format_args!("a listener failed: {error}"));
    setup.progress.listener_failed();
    machine.shut_down();
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
        listener_failed(&machine, &setup, &error);
    }
}

fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, ServeError> {
    let bind = |&address| bind_one("--listen", address);
    addresses.iter().map(bind).collect()
}

fn bind_one(flag: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    bind_soon(address).map_err(|source| ServeError::Listen {
        flag,
        address,
        source,
    })
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
fn boot_seed(volumes: &VolumeSet) -> u64 {
    let mut id = [0; 8];
    id.copy_from_slice(&volumes.id()[..8]);
    u64::from_le_bytes(id) ^ u64::from(volumes.boot_epoch()).rotate_right(24)
}

impl ServeError {
    /// Whether what was given on the command line or in the environment cannot be.
    pub fn is_usage(&self) -> bool {
        match self {
            ServeError::Launch(error) => matches!(
                error,
                LaunchError::BadChoice { .. } | LaunchError::CpuNotAllowed { .. }
            ),
            ServeError::Volume(error) => error.is_usage(),
            ServeError::Memory { .. } | ServeError::TooManyCores { .. } => true,
            ServeError::Recover(_)
            | ServeError::Listen { .. }
            | ServeError::Thread { .. }
            | ServeError::DiskTimeout { .. }
            | ServeError::Signal(_)
            | ServeError::ListenerFailed => false,
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
            ServeError::TooManyCores {
                cores,
                segments,
                segment_bytes,
            } => write!(
                f,
                "{cores} cores need a volume of {segments} segments of {} KiB at least: give --capacity {}MiB or more, \
                 or fewer --cores",
                segment_bytes >> 10,
                (u64::from(*segments) * segment_bytes) >> 20
            ),
            ServeError::Memory { cores } => write!(
                f,
                "{cores} cores need {} MiB of memory: give --memory that much, or fewer --cores",
                (*cores as u64 * memory::CORE_BYTES_MIN) >> 20
            ),
            ServeError::Listen {
                flag,
                address,
                source,
            } => {
                write!(f, "cannot listen on {address} ({source}): ")?;
                match source.kind() {
                    ErrorKind::AddrInUse => write!(f, "stop what listens there, or give another {flag}"),
                    ErrorKind::PermissionDenied => {
                        write!(
                            f,
                            "give {flag} a port from 1024 on, or the capability CAP_NET_BIND_SERVICE"
                        )
                    }
                    _ => write!(f, "give {flag} an address of this machine"),
                }
            }
            ServeError::Thread { source } => write!(
                f,
                "cannot start a thread ({source}): raise the limit of processes (ulimit -u)"
            ),
            ServeError::DiskTimeout { limit } => write!(
                f,
                "the disk has not answered for {} s: see what the kernel says of it (dmesg), then start again, or give it \
                 more time with --disk-timeout",
                limit.as_secs()
            ),
            ServeError::Signal(error) => {
                write!(
                    f,
                    "SIGHUP cannot be listened for ({error}): raise the limit of open files"
                )
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
