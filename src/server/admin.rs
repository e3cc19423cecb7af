//! The admin listener: what the daemon tells of itself, to anyone who can reach it.
//!
//! Its connections are core 0's, served by the same loop as all others, and bounded apart from them: clients of S3 never
//! take its place, nor it theirs. A scrape asks every core for a copy of what it counts; nothing is counted for it on
//! the way of a request but in that core's own memory.
//!
//! Invariant: it changes nothing, needs no credentials, and tells no key, no bucket and no secret.

use super::core::{Core, Role};
use super::exposition;
use super::metrics::{self, ServerReport};
use super::{Connections, Machine, Setup, answer, connection};
use crate::http::{Head, Method};
use crate::io::uring::Listener;
use crate::io::{CoreId, Io};
use crate::limits::{ADMIN_CONNECTIONS_MAX, ADMIN_RESERVE_CONNECTIONS_MAX, REPORT_TIMEOUT};
use crate::s3::service::{HeaderLines, Response, ResponseBody};
use futures_util::future::{Either, select, try_join_all};
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

const CONNECTIONS: Connections = Connections {
    max: ADMIN_CONNECTIONS_MAX,
    reserve: ADMIN_RESERVE_CONNECTIONS_MAX,
};
/// How often a place is looked for when all connections are taken.
const ROOM_RETRY_DELAY: Duration = Duration::from_millis(20);

/// What the admin connections of `main`'s core share.
pub fn core(main: &Rc<Core>, setup: &Setup) -> Rc<Core> {
    Rc::new(Core::new(
        main.machine.clone(),
        setup,
        Role::Admin(main.clone()),
        CONNECTIONS,
    ))
}

/// Serves what connects to `listener` until the machine shuts down.
///
/// # Errors
/// The listener is of no use any more.
pub async fn accept(admin: Rc<Core>, listener: TcpListener) -> io::Result<()> {
    let machine = admin.machine.clone();
    let listener = Listener::new(&machine, listener)?;
    let mut shutdown = pin!(machine.shutdown());
    loop {
        let next = async {
            let stream = listener.accept_here().await?;
            while admin.watches.open() >= (CONNECTIONS.max + CONNECTIONS.reserve) as usize {
                machine.sleep(ROOM_RETRY_DELAY).await;
            }
            io::Result::Ok(stream)
        };
        let stream = match select(&mut shutdown, pin!(next)).await {
            Either::Left(_) => return Ok(()),
            Either::Right((stream, _)) => stream?,
        };
        let watch = admin.watches.add(stream.handle());
        machine.spawn(connection::serve(admin.clone(), stream, watch));
    }
}

/// The answer to a request on an admin connection, of whose core `main` is the one that clients of S3 use.
pub async fn answer(admin: &Core, main: &Rc<Core>, head: &Head, is_of_reserve: bool) -> Response<Machine> {
    if let Some(health) = answer::health(admin, head) {
        return health;
    }
    let is_read = matches!(head.method(), Method::Get | Method::Head);
    match head.path() {
        "/metrics" if is_read && is_of_reserve => text(503, "all connections are in use\n"),
        "/metrics" if is_read => match gather(main).await {
            Some(reports) => {
                let families = metrics::families(&reports, admin.is_ready());
                let metrics = exposition::render(families);
                typed(200, exposition::CONTENT_TYPE, metrics.into_bytes())
            }
            None => text(503, "a core does not answer\n"),
        },
        "/metrics" | "/-/live" | "/-/ready" => {
            text(405, "GET and HEAD are served here\n").header("Allow", "GET, HEAD")
        }
        _ => text(404, "/metrics, /-/live and /-/ready are served here\n"),
    }
}

/// What all cores report, in their order; `None` if one does not, or not in time.
async fn gather(main: &Rc<Core>) -> Option<Vec<ServerReport>> {
    let machine = &main.machine;
    let reports = (0..machine.cores() as u16).map(CoreId).map(async |core| {
        let report = match core == machine.core() {
            true => Some(main.report()),
            // Boxed on the way: it is some 10 KiB.
            false => machine
                .on_core(core, || Core::here().map(|core| Box::new(core.report())))
                .await
                .ok()
                .flatten()
                .map(|report| *report),
        };
        report.ok_or(())
    });
    match select(pin!(try_join_all(reports)), pin!(machine.sleep(REPORT_TIMEOUT))).await {
        Either::Left((reports, _)) => reports.ok(),
        Either::Right(_) => None,
    }
}

fn text(status: u16, text: &str) -> Response<Machine> {
    typed(status, "text/plain", text.into())
}

fn typed(status: u16, content_type: &str, body: Vec<u8>) -> Response<Machine> {
    let mut headers = HeaderLines::default();
    headers.push("Content-Type", content_type);
    headers.push("Cache-Control", "no-store");
    Response {
        status,
        headers,
        body: ResponseBody::Bytes(body),
    }
}
