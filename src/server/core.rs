//! What the connections of one core share, and how a core takes and drains them.
//!
//! Invariant: everything here belongs to one core but for [`Progress`], whose counters say how far the cores
//! have come and steer nothing but `/-/ready`.

use super::input::Spares;
use super::metrics::{Recovery, ServerReport};
use super::tally::{Tally, count};
use super::watch::Watches;
use super::{Connections, Machine, Setup, connection};
use crate::engine::StartProgress;
use crate::http::DateCache;
use crate::io::{CoreId, Io};
use crate::limits::DRAIN_TIMEOUT;
use crate::s3::auth::Users;
use crate::s3::service::Service;
use futures_util::future::select;
use std::cell::{Cell, OnceCell, RefCell};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

thread_local! {
    /// What the core that this thread is serves with: where other cores find it that ask what it has counted.
    static HERE: RefCell<Weak<Core>> = const { RefCell::new(Weak::new()) };
}

/// What the connections of a core are for.
pub enum Role {
    S3,
    /// They ask what the daemon tells of itself; beside them this one serves S3.
    Admin(Rc<Core>),
}

pub struct Core {
    pub machine: Machine,
    pub role: Role,
    pub tally: Tally,
    pub watches: Rc<Watches>,
    pub spares: Spares,
    pub dates: RefCell<DateCache>,
    pub domain: Option<String>,
    /// Who may ask, for when the engine has started.
    users: RefCell<Arc<Users>>,
    /// Set once the engines have recovered.
    service: OnceCell<Rc<Service<Machine>>>,
    recovery: OnceCell<Recovery>,
    progress: Arc<Progress>,
    request_ids: RequestIds,
    draining: Cell<bool>,
}

impl Core {
    pub fn new(machine: Machine, setup: &Setup, role: Role, connections: Connections) -> Core {
        Core {
            watches: Watches::new(machine.clone(), connections),
            role,
            tally: Tally::default(),
            spares: Spares::default(),
            dates: RefCell::default(),
            domain: setup.domain.clone(),
            users: RefCell::new(setup.users.clone()),
            service: OnceCell::new(),
            recovery: OnceCell::new(),
            progress: setup.progress.clone(),
            request_ids: RequestIds::new(setup.boot_seed, machine.core()),
            draining: Cell::new(false),
            machine,
        }
    }

    /// From now on the core of this thread is known by it.
    pub fn settle_here(self: &Rc<Self>) {
        HERE.set(Rc::downgrade(self));
    }

    /// The one that serves S3 on the core that calls this, if it has begun.
    pub fn here() -> Option<Rc<Core>> {
        HERE.with_borrow(Weak::upgrade)
    }

    /// What this core has counted, and how it stands.
    pub fn report(&self) -> ServerReport {
        ServerReport {
            tally: self.tally.clone(),
            connections: self.watches.open(),
            busy: self.machine.busy(),
            engine: self.service().map(|service| service.engine.report()),
            recovery: self.recovery.get().copied(),
        }
    }

    /// From now on requests go to `service`, whose engine found so much.
    pub fn open(&self, service: Service<Machine>, recovery: Recovery) {
        self.watches.relieve(service.engine.clone());
        let _ = self.recovery.set(recovery);
        if self.service.set(Rc::new(service)).is_ok() {
            self.progress.core_started();
        }
    }

    /// Who may ask, as of now.
    pub fn users(&self) -> Arc<Users> {
        self.users.borrow().clone()
    }

    /// From now on others may ask.
    pub fn set_users(&self, users: Arc<Users>) {
        if let Some(service) = self.service() {
            service.set_users(users.clone());
        }
        self.users.replace(users);
    }

    /// Where requests go; `None` before the engine has started.
    pub fn service(&self) -> Option<&Rc<Service<Machine>>> {
        self.service.get()
    }

    /// Whether the engines of all cores have started, none is about to end, and the disk answers.
    pub fn is_ready(&self) -> bool {
        self.why_not_ready().is_none()
    }

    /// What the daemon does instead of taking requests, if it does not.
    pub fn why_not_ready(&self) -> Option<String> {
        if self.is_draining() {
            Some("stopping".to_owned())
        } else if !self.machine.does_disk_answer() {
            Some("the disk does not answer".to_owned())
        } else if !self.progress.have_all_started() {
            Some(self.progress.start.so_far().to_string())
        } else {
            None
        }
    }

    /// Whether connections end with the request that they are at.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    pub fn next_request_id(&self) -> RequestId {
        self.request_ids.next()
    }

    /// Serves the connections that this core is given.
    pub async fn take_connections(self: Rc<Self>) {
        loop {
            let stream = self.machine.next_connection().await;
            if self.watches.is_full() {
                // Those that came before it have their turn before one of them gives way.
                self.machine.yield_now().await;
            }
            // A request that came before the word to stop is in flight.
            if !self.is_draining() || stream.handle().has_unread() {
                count(&self.tally.connections, 1);
                let watch = self.watches.add(stream.handle());
                self.machine.spawn(connection::serve(self.clone(), stream, watch));
            }
        }
    }

    /// Ends idle connections, and waits for requests that are in flight, though not for ever.
    pub async fn drain(&self) {
        self.draining.set(true);
        self.watches.end_idle();
        let timeout = pin!(self.machine.sleep(DRAIN_TIMEOUT));
        select(pin!(self.watches.all_closed()), timeout).await;
        self.watches.end_all();
    }
}

/// How far the cores have come.
pub struct Progress {
    cores: usize,
    /// Of the engines.
    start: Arc<StartProgress>,
    started: AtomicUsize,
    settled: AtomicUsize,
    listener_failed: AtomicBool,
}

impl Progress {
    pub fn new(cores: usize, start: Arc<StartProgress>) -> Progress {
        Progress {
            cores,
            start,
            started: AtomicUsize::new(0),
            settled: AtomicUsize::new(0),
            listener_failed: AtomicBool::new(false),
        }
    }

    fn core_started(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    fn have_all_started(&self) -> bool {
        self.started.load(Ordering::Relaxed) == self.cores
    }

    pub fn core_settled(&self) {
        self.settled.fetch_add(1, Ordering::Release);
    }

    pub fn have_all_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire) == self.cores
    }

    pub fn listener_failed(&self) {
        self.listener_failed.store(true, Ordering::Relaxed);
    }

    pub fn has_listener_failed(&self) -> bool {
        self.listener_failed.load(Ordering::Relaxed)
    }
}

/// Names requests: a counter, scattered so that two ids are told apart at a glance.
struct RequestIds {
    seed: u64,
    next: Cell<u64>,
}

/// 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RequestId([u8; 16]);

impl RequestIds {
    fn new(seed: u64, core: CoreId) -> RequestIds {
        RequestIds {
            seed,
            next: Cell::new(u64::from(core.0) << 48),
        }
    }

    fn next(&self) -> RequestId {
        let number = self.next.get();
        self.next.set(number + 1);
        // Each step can be undone, so that different numbers have different ids (splitmix64).
        let mut mixed = number.wrapping_add(self.seed);
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        RequestId::of(mixed ^ mixed >> 31)
    }
}

impl RequestId {
    fn of(number: u64) -> RequestId {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        RequestId(std::array::from_fn(|digit| {
            HEX[(number >> (60 - 4 * digit)) as usize & 15]
        }))
    }

    pub fn as_str(&self) -> &str {
        // Made from ASCII above.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn request_ids_differ_within_and_between_cores() {
        let cores = [0, 1, 63].map(|core| RequestIds::new(u64::MAX - 5, CoreId(core)));
        let ids: HashSet<RequestId> = cores
            .iter()
            .flat_map(|core| (0..1000).map(|_| core.next()))
            .collect();
        assert_eq!(ids.len(), 3000);
    }

    #[test]
    fn a_request_id_is_sixteen_hexadecimal_digits() {
        assert_eq!(RequestId::of(0x0123_4567_89ab_cdef).as_str(), "0123456789ABCDEF");
        assert_eq!(RequestId::of(1).as_str(), "0000000000000001");
    }
}
