//! The kernel's side: FUSE requests become work on the store, now or when what holds them up is over.
//!
//! Nothing is cached by the kernel: files are opened with FOPEN_DIRECT_IO, and names and attributes are valid for no time.
//! A synced write (O_DSYNC, RWF_DSYNC) comes with that flag; no fsync follows it.

use crate::faults::{Effect, Kind, Rule};
use crate::store::{Dice, Error, ROOT, Store, Synced, Toll};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, SystemTime};

/// A power cut waits this long for a write to fall into.
const CUT_PATIENCE: Duration = Duration::from_millis(50);
/// Requests that the kernel has under way at a time, those that hang included.
const UNDER_WAY_MAX: u16 = 4096;
/// How long names and attributes are valid.
const VALID: Duration = Duration::ZERO;
/// How the bytes of a request without any are written.
const NO_BYTES: Range<u64> = 0..1;

/// Clones are handles on the same disk.
#[derive(Clone, Default)]
pub struct Disk(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    power_went: Condvar,
}

#[derive(Default)]
struct State {
    store: Store,
    rules: Vec<Rule>,
    power: Power,
    dice: Dice,
    toll: Toll,
    hanging: BTreeMap<u64, Job>,
    next_hanging: u64,
    seen: [u64; 5],
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Power {
    #[default]
    On,
    /// It goes at the next write.
    Going,
    Off,
}

/// A request that is carried out later.
type Job = Box<dyn FnOnce(&mut State) + Send>;

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no request panics")
    }

    /// Cuts the power; says what that took.
    pub fn cut(&self, seed: u64) -> String {
        let mut state = self.state();
        state.dice = Dice(seed);
        state.power = Power::Going;
        let is_going = |state: &mut State| state.power == Power::Going;
        let waited = self
            .0
            .power_went
            .wait_timeout_while(state, CUT_PATIENCE, is_going);
        let mut state = waited.expect("no request panics").0;
        if state.power == Power::Going {
            state.lose_power();
        }
        let Toll { kept, lost, torn } = state.toll;
        // What hung is told that the device is gone.
        state.carry_out_hanging();
        format!("kept={kept} lost={lost} torn={torn}")
    }

    pub fn restore(&self) -> Result<(), String> {
        let mut state = self.state();
        match state.power {
            Power::Off => {
                state.power = Power::On;
                Ok(())
            }
            Power::On | Power::Going => Err("the power is not off".to_owned()),
        }
    }

    pub fn fault(&self, rule: Rule) -> Result<(), String> {
        self.state().rules.push(rule);
        Ok(())
    }

    /// Ends all faults; says how many requests hung.
    pub fn clear(&self) -> usize {
        let mut state = self.state();
        state.rules.clear();
        state.carry_out_hanging()
    }

    pub fn bound(&self, which: impl Fn(&mut Store) -> &mut u64, bytes: u64) -> Result<String, String> {
        *which(&mut self.state().store) = bytes;
        Ok(String::new())
    }

    pub fn hanging(&self) -> usize {
        self.state().hanging.len()
    }

    pub fn seen(&self) -> String {
        let [reads, writes, syncs, allocations, others] = self.state().seen;
        format!("reads={reads} writes={writes} syncs={syncs} allocations={allocations} others={others}")
    }

    /// Does what a request of these kinds asks for, which `work` does in full.
    fn serve<T: 'static>(
        &self,
        kinds: &[Kind],
        id: u64,
        bytes: Range<u64>,
        work: impl FnOnce(&mut State, Option<Effect>) -> Result<T, Error> + Send + 'static,
        answer: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) {
        let mut state = self.state();
        for kind in kinds {
            state.seen[*kind as usize] += 1;
        }
        let name = state
            .store
            .node(id)
            .map_or(String::new(), |node| node.name.clone());
        let mut rules = state.rules.iter_mut();
        let effect = rules.find_map(|rule| rule.strike(kinds, &name, &bytes));
        let job = move |state: &mut State, effect| {
            let result = match state.power {
                Power::Off => Err(libc::EIO),
                Power::On | Power::Going => work(state, effect),
            };
            answer(result.map_err(Errno::from_i32));
        };
        match effect {
            Some(Effect::Hang(limit)) => {
                let number = state.next_hanging;
                state.next_hanging += 1;
                state
                    .hanging
                    .insert(number, Box::new(move |state| job(state, None)));
                if let Some(limit) = limit {
                    let disk = self.clone();
                    thread::spawn(move || {
                        thread::sleep(limit);
                        let mut state = disk.state();
                        if let Some(job) = state.hanging.remove(&number) {
                            job(&mut state);
                        }
                    });
                }
            }
            _ => job(&mut state, effect),
        }
        if state.power == Power::Off {
            self.0.power_went.notify_all();
        }
    }

    fn serve_names<T: 'static>(
        &self,
        id: INodeNo,
        work: impl FnOnce(&mut Store) -> Result<T, Error> + Send + 'static,
        answer: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) {
        let work = move |state: &mut State, effect| match effect {
            Some(Effect::Fail(error)) => Err(error),
            _ => work(&mut state.store),
        };
        self.serve(&[Kind::Other], id.0, NO_BYTES, work, answer);
    }
}

impl State {
    fn lose_power(&mut self) {
        self.toll = self.store.cut(&mut self.dice);
        self.power = Power::Off;
    }

    fn carry_out_hanging(&mut self) -> usize {
        let hanging = std::mem::take(&mut self.hanging);
        let count = hanging.len();
        for job in hanging.into_values() {
            job(self);
        }
        count
    }

    fn write(
        &mut self,
        id: u64,
        offset: u64,
        bytes: &[u8],
        is_synced: bool,
        effect: Option<Effect>,
    ) -> Result<u32, Error> {
        if self.power == Power::Going {
            // It was under way: it may be there, in part, and nobody is told.
            let _ = self.store.write(id, offset, bytes, Synced::No);
            self.lose_power();
            return Err(libc::EIO);
        }
        let synced = if is_synced { Synced::Yes } else { Synced::No };
        match effect {
            Some(Effect::Fail(error)) if is_synced && self.dice.below(2) == 0 => {
                self.store.write(id, offset, bytes, Synced::Failed)?;
                Err(error)
            }
            Some(Effect::Fail(error)) => {
                self.store.write_some(id, offset, bytes, &mut self.dice);
                Err(error)
            }
            Some(Effect::Short) => {
                let half = bytes.len() / 2;
                self.store.write(id, offset, &bytes[..half], synced)?;
                Ok(half as u32)
            }
            Some(Effect::Hang(_)) | None => {
                self.store.write(id, offset, bytes, synced)?;
                Ok(bytes.len() as u32)
            }
        }
    }
}

fn attributes(store: &Store, id: u64) -> Result<FileAttr, Error> {
    let is_dir = store.node(id)?.is_dir;
    let then = SystemTime::UNIX_EPOCH;
    let size = store.size(id);
    Ok(FileAttr {
        ino: INodeNo(id),
        size,
        blocks: size.div_ceil(512),
        atime: then,
        mtime: then,
        ctime: then,
        crtime: then,
        kind: if is_dir {
            FileType::Directory
        } else {
            FileType::RegularFile
        },
        perm: if is_dir { 0o755 } else { 0o644 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

/// Answers with a node's attributes, or the error.
fn entry(reply: ReplyEntry) -> impl FnOnce(Result<FileAttr, Errno>) + Send {
    move |found| match found {
        Ok(attributes) => reply.entry(&VALID, &attributes, Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn empty(reply: ReplyEmpty) -> impl FnOnce(Result<(), Errno>) + Send {
    move |done| match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Disk {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Without the first direct I/O would be asynchronous to nobody: io_uring's caller would hang with a request that does.
        let wanted = InitFlags::FUSE_ASYNC_DIO;
        config
            .add_capabilities(wanted)
            .map_err(|_| std::io::ErrorKind::Unsupported)?;
        // Without room for many, those that hang would hold up all others.
        config
            .set_max_background(UNDER_WAY_MAX)
            .map_err(|_| std::io::ErrorKind::InvalidInput)?;
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.to_owned();
        let work = move |store: &mut Store| attributes(store, store.find(parent.0, &name)?);
        self.serve_names(parent, work, entry(reply));
    }

    fn getattr(&self, _request: &Request, id: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let answer = |found| match found {
            Ok(attributes) => reply.attr(&VALID, &attributes),
            Err(error) => reply.error(error),
        };
        self.serve_names(id, move |store| attributes(store, id.0), answer);
    }

    fn setattr(
        &self,
        _request: &Request,
        id: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let work = move |store: &mut Store| {
            if let Some(size) = size {
                store.set_size(id.0, size)?;
            }
            attributes(store, id.0)
        };
        let answer = |found| match found {
            Ok(attributes) => reply.attr(&VALID, &attributes),
            Err(error) => reply.error(error),
        };
        self.serve_names(id, work, answer);
    }

    fn mkdir(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let name = name.to_owned();
        let work = move |store: &mut Store| {
            let id = store.create(parent.0, name, true)?;
            attributes(store, id)
        };
        self.serve_names(parent, work, entry(reply));
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let name = name.to_owned();
        let work = move |store: &mut Store| {
            let id = store.create(parent.0, name, false)?;
            attributes(store, id)
        };
        let answer = |made| match made {
            Ok(attributes) => reply.created(
                &VALID,
                &attributes,
                Generation(0),
                FileHandle(0),
                FopenFlags::FOPEN_DIRECT_IO,
            ),
            Err(error) => reply.error(error),
        };
        self.serve_names(parent, work, answer);
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.serve_names(parent, move |store| store.remove(parent.0, name), empty(reply));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        let work = move |store: &mut Store| {
            let id = store.find(parent.0, &name)?;
            match store.list(id).is_empty() {
                true => store.remove(parent.0, name),
                false => Err(libc::ENOTEMPTY),
            }
        };
        self.serve_names(parent, work, empty(reply));
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let (from, to) = ((parent.0, name.to_owned()), (new_parent.0, new_name.to_owned()));
        self.serve_names(parent, move |store| store.rename(from, to), empty(reply));
    }

    fn open(&self, _request: &Request, id: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let answer = |found: Result<(), Errno>| match found {
            Ok(()) => reply.opened(
                FileHandle(0),
                FopenFlags::FOPEN_DIRECT_IO
                    | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
                    | FopenFlags::FOPEN_NOFLUSH,
            ),
            Err(error) => reply.error(error),
        };
        self.serve_names(id, move |store| store.node(id.0).map(drop), answer);
    }

    fn flush(
        &self,
        _request: &Request,
        _id: INodeNo,
        _handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn read(
        &self,
        _request: &Request,
        id: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let work = move |state: &mut State, effect| match effect {
            Some(Effect::Fail(error)) => Err(error),
            Some(Effect::Short) => state.store.read(id.0, offset, u64::from(size) / 2),
            Some(Effect::Hang(_)) | None => state.store.read(id.0, offset, u64::from(size)),
        };
        let answer = |read: Result<Vec<u8>, Errno>| match read {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        };
        self.serve(
            &[Kind::Read],
            id.0,
            offset..offset + u64::from(size),
            work,
            answer,
        );
    }

    fn write(
        &self,
        _request: &Request,
        id: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let is_synced = flags.0 & libc::O_DSYNC != 0;
        let kinds: &[Kind] = match is_synced {
            true => &[Kind::Write, Kind::Sync],
            false => &[Kind::Write],
        };
        let bytes = offset..offset + data.len() as u64;
        let data = data.to_vec();
        let work = move |state: &mut State, effect| state.write(id.0, offset, &data, is_synced, effect);
        let answer = |written| match written {
            Ok(count) => reply.written(count),
            Err(error) => reply.error(error),
        };
        self.serve(kinds, id.0, bytes, work, answer);
    }

    fn fsync(
        &self,
        _request: &Request,
        id: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let work = move |state: &mut State, effect| match effect {
            Some(Effect::Fail(error)) => {
                state.store.fail_sync(id.0);
                Err(error)
            }
            _ => state.store.sync(id.0),
        };
        self.serve(&[Kind::Sync], id.0, NO_BYTES, work, empty(reply));
    }

    fn fsyncdir(
        &self,
        request: &Request,
        id: INodeNo,
        handle: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.fsync(request, id, handle, datasync, reply);
    }

    fn readdir(
        &self,
        _request: &Request,
        id: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let work = move |store: &mut Store| {
            let list = store.list(id.0);
            let entries = [(ROOT, ".".into()), (ROOT, "..".into())].into_iter().chain(list);
            let typed = entries.map(|(id, name)| (id, store.node(id).is_ok_and(|node| node.is_dir), name));
            Ok(typed.collect::<Vec<_>>())
        };
        let answer = move |entries: Result<Vec<_>, Errno>| match entries {
            Ok(entries) => {
                for (at, (id, is_dir, name)) in entries.iter().enumerate().skip(offset as usize) {
                    let kind = if *is_dir {
                        FileType::Directory
                    } else {
                        FileType::RegularFile
                    };
                    if reply.add(INodeNo(*id), at as u64 + 1, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(error),
        };
        self.serve_names(id, work, answer);
    }

    fn statfs(&self, _request: &Request, id: INodeNo, reply: ReplyStatfs) {
        let answer = |found: Result<(u64, u64), Errno>| match found {
            Ok((all, free)) => reply.statfs(
                all / 4096,
                free / 4096,
                free / 4096,
                1 << 20,
                1 << 20,
                4096,
                255,
                4096,
            ),
            Err(error) => reply.error(error),
        };
        self.serve_names(id, |store| Ok((store.room_bytes, store.free_bytes())), answer);
    }

    fn fallocate(
        &self,
        _request: &Request,
        id: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        let work = move |state: &mut State, effect| match effect {
            Some(Effect::Fail(error)) => Err(error),
            _ if offset + length > state.store.size(id.0) => state.store.set_size(id.0, offset + length),
            _ => Ok(()),
        };
        self.serve(
            &[Kind::Allocate],
            id.0,
            offset..offset + length,
            work,
            empty(reply),
        );
    }
}
