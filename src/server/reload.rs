//! The table of users, read again when the operator says so.
//!
//! A file is read and judged by a thread of its own, so that no core waits for it; what comes of it is given to each core
//! between two of its tasks. Invariant: a file that is wrong in any way changes nothing; requests that are being served go on
//! as they were allowed.

use super::core::Core;
use super::{Machine, report};
use crate::config::users::{self, UsersError};
use crate::io::uring::Hangups;
use crate::io::{CoreId, Io};
use crate::s3::auth::{RootUser, Users};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How often it is looked whether the file has been read.
const READ_POLL: Duration = Duration::from_millis(2);

/// Where users come from, and who is root whatever the file says.
#[derive(Clone)]
pub struct Source {
    pub path: PathBuf,
    pub root: Arc<RootUser>,
}

/// On core 0: has the file read again at each SIGHUP, for as long as the run.
pub async fn watch(main: Rc<Core>, mut hangups: Hangups, source: Source) {
    let machine = main.machine.clone();
    while hangups.next(&machine).await.is_ok() {
        match read(&machine, source.clone()).await {
            Ok(users) => {
                let count = users.count();
                give_out(&main, Arc::new(users)).await;
                report::note(format_args!(
                    "{} was read again: {count} users beside root",
                    source.path.display()
                ));
            }
            Err(error) => report::warn(format_args!("the users stay as they were: {error}")),
        }
    }
}

async fn read(machine: &Machine, source: Source) -> Result<Users, UsersError> {
    let failed = |path: &PathBuf, source| UsersError::Read {
        path: path.clone(),
        source,
    };
    let path = source.path.clone();
    let reader = thread::Builder::new()
        .name("weft-users".to_owned())
        .spawn(move || users::read(&source.path, &source.root))
        .map_err(|error| failed(&path, error))?;
    while !reader.is_finished() {
        machine.sleep(READ_POLL).await;
    }
    reader
        .join()
        .unwrap_or_else(|_| Err(failed(&path, io::Error::other("its reader panicked"))))
}

async fn give_out(main: &Rc<Core>, users: Arc<Users>) {
    let machine = &main.machine;
    main.set_users(users.clone());
    for core in (0..machine.cores() as u16)
        .map(CoreId)
        .filter(|core| *core != machine.core())
    {
        let users = users.clone();
        let taking = machine.on_core(core, || {
            if let Some(core) = Core::here() {
                core.set_users(users);
            }
        });
        // A core that has ended serves nobody.
        let _ = taking.await;
    }
}
