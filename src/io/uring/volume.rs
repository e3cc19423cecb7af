//! The data directory: who may use it, and the shape of the volume in it.
//!
//! Opened with plain blocking calls before any core starts, so that everything that can be wrong
//! with the directory is one line on the terminal. What is in it:
//!
//! ```text
//! DIR/weft.lock              flock'ed for as long as a daemon runs or a write of its is in flight; holds its pid as text
//! DIR/superblock             the layout below
//! DIR/segments/%08x.seg      one segment each, at its full size
//! DIR/segments/%08x.seg.new  a segment being made; removed at the next start
//! ```
//!
//! The superblock is two identical copies of 4096 bytes, little-endian:
//!
//! | offset | bytes | field |
//! | ---: | ---: | --- |
//! | 0 | 8 | magic `WEFTSUPR` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | CRC-32 (IEEE) of all 4096 bytes with this field zero |
//! | 16 | 16 | volume id, random |
//! | 32 | 4 | segment size in bytes, a power of two |
//! | 36 | 4 | segments that the capacity allows |
//! | 40 | 4 | boot epoch: 1 at the first start |
//! | 44 | 4 | segments that were there at this start or one before: as many from 0 on |
//! | 48 | 4048 | zero |
//!
//! It is replaced as a whole (temporary file, fsync, rename, fsync of the directory). Two copies
//! because one bad sector must not make a whole volume unreadable: the first that is whole counts. In every
//! version the first 16 bytes and the checksum are as here, so a later one is told from damage.
//!
//! Invariant: a [`Volume`] that exists holds the lock, and its boot epoch is on stable storage and
//! higher than that of any run before. A superblock that this version does not understand is left as
//! it is.

use crate::io::{SegmentId, VolumeShape};
use crate::limits::{BOOT_EPOCH_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of the smallest volume.
pub const CAPACITY_BYTES_MIN: u64 = 256 << 20;
/// A volume has about this many segments, until they reach their largest size.
const SEGMENTS_AIM: u64 = 256;
/// Segments of the largest volume: 16 PiB at the largest segment size.
const SEGMENTS_MAX: u64 = 1 << 24;
/// The default capacity, in per cent of what is free at the first start.
const CAPACITY_DEFAULT_PERCENT: u64 = 80;

const LOCK_NAME: &str = "weft.lock";
/// How long the writes of a process that is gone are waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);
const LOCK_RETRY_DELAY: Duration = Duration::from_millis(5);
const SUPERBLOCK_NAME: &str = "superblock";
const SUPERBLOCK_NEW_NAME: &str = "superblock.new";
const SEGMENTS_NAME: &str = "segments";
const PROBE_NAME: &str = "direct-io.probe";
/// What may lie in a directory that has no superblock yet: what a first start that was cut off leaves, and what
/// mkfs makes.
const NAMES_BEFORE_FIRST_START: [&str; 5] = [
    LOCK_NAME,
    SUPERBLOCK_NEW_NAME,
    SEGMENTS_NAME,
    PROBE_NAME,
    "lost+found",
];

/// File systems that keep nothing through a restart of the machine, by the type that statfs(2) gives. On some kernels
/// they take direct I/O.
const FILE_SYSTEMS_IN_MEMORY: [(i128, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];

const COPY_BYTES: usize = 4096;
const MAGIC: &[u8; 8] = b"WEFTSUPR";
const VERSION: u32 = 1;
const VERSION_AT: usize = 8;
const CRC_AT: usize = 12;
const ID_AT: usize = 16;
const SEGMENT_SIZE_AT: usize = 32;
const SEGMENTS_MAX_AT: usize = 36;
const EPOCH_AT: usize = 40;
const SEGMENTS_KNOWN_AT: usize = 44;
const FIELDS_END: usize = 48;

/// A data directory that this process has to itself.
#[derive(Debug)]
pub struct Volume {
    dir: PathBuf,
    superblock: Superblock,
    lacking_bytes: u64,
    /// Closing it, and all rings that keep it open, gives the directory up.
    lock: File,
}

/// Why a data directory cannot be used. Each is one line that says what to do.
#[derive(Debug)]
pub enum VolumeError {
    /// Another daemon holds the lock.
    InUse { dir: PathBuf, pid: Option<u32> },
    /// The file system lies in memory.
    InMemory { dir: PathBuf, kind: &'static str },
    /// There is no volume, and what is there is not ours.
    Foreign { dir: PathBuf, name: String },
    /// The file system refuses direct I/O.
    NoDirectIo { dir: PathBuf, source: io::Error },
    /// The device has polling queues, which would keep a core spinning while I/O is in flight.
    PolledDevice { dir: PathBuf, device: String },
    /// The capacity is under [`CAPACITY_BYTES_MIN`].
    CapacityTooSmall { capacity_bytes: u64 },
    /// The default capacity, a share of what is free, is under [`CAPACITY_BYTES_MIN`].
    TooLittleFree { dir: PathBuf, free_bytes: u64 },
    /// The capacity given is under what the volume already uses.
    CapacityBelowUse { capacity_bytes: u64, used_bytes: u64 },
    /// Written by a later version.
    NewerVersion { path: PathBuf, version: u32 },
    /// Neither copy of the superblock is whole.
    Damaged { path: PathBuf },
    /// There are segments, but no superblock.
    SuperblockMissing { dir: PathBuf },
    /// [`BOOT_EPOCH_MAX`] starts.
    EpochsExhausted { path: PathBuf },
    /// A system call failed.
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Superblock {
    id: [u8; 16],
    shape: VolumeShape,
    boot_epoch: u32,
    segments_known: u32,
}

impl Volume {
    /// Takes `dir` (made if missing) for this process, and raises its boot epoch by one.
    ///
    /// `capacity_bytes` is rounded down to whole segments. Without it a new volume gets 80 % of what
    /// is free, and one that exists keeps what it has. The segment size is chosen once, at the first start.
    pub fn open(dir: &Path, capacity_bytes: Option<u64>) -> Result<Volume, VolumeError> {
        if let Some(capacity_bytes) = capacity_bytes.filter(|&bytes| bytes < CAPACITY_BYTES_MIN) {
            return Err(VolumeError::CapacityTooSmall { capacity_bytes });
        }
        check_is_not_in_memory(dir)?;
        check_is_ours(dir)?;
        let segments_dir = segments_dir(dir);
        fs::create_dir_all(&segments_dir).map_err(during("create", &segments_dir))?;
        let lock = lock(dir)?;
        check_direct_io(dir)?;
        check_device_is_not_polled(dir)?;
        let segments = sweep_segments(&segments_dir)?;

        let path = dir.join(SUPERBLOCK_NAME);
        let mut superblock = match read_superblock(&path)? {
            Some(before) => before.next_boot(&path, capacity_bytes, segments.highest)?,
            None if segments.highest.is_some() => {
                return Err(VolumeError::SuperblockMissing { dir: dir.to_owned() });
            }
            None => Superblock::first_boot(dir, capacity_bytes)?,
        };
        let made = segments.highest.map_or(0, |highest| highest.0 + 1);
        superblock.segments_known = superblock.segments_known.max(made);
        write_superblock(dir, &path, &superblock)?;
        let segments_to_make = u64::from(superblock.shape.segments_max).saturating_sub(segments.count);
        let bytes_to_take = segments_to_make * u64::from(superblock.shape.segment_size_bytes);
        Ok(Volume {
            dir: dir.to_owned(),
            superblock,
            lacking_bytes: bytes_to_take.saturating_sub(free_bytes(dir)?),
            lock,
        })
    }

    /// Bytes of the capacity that the file system had no room for when the volume was opened.
    pub fn lacking_bytes(&self) -> u64 {
        self.lacking_bytes
    }

    /// The volume's identity, for as long as it exists.
    pub fn id(&self) -> [u8; 16] {
        self.superblock.id
    }

    /// Segment size and count.
    pub fn shape(&self) -> VolumeShape {
        self.superblock.shape
    }

    /// Bytes that the volume may grow to.
    pub fn capacity_bytes(&self) -> u64 {
        u64::from(self.superblock.shape.segments_max) * u64::from(self.superblock.shape.segment_size_bytes)
    }

    /// This run's epoch: higher than that of every run before.
    pub fn boot_epoch(&self) -> u32 {
        self.superblock.boot_epoch
    }

    pub(super) fn lock_file(&self) -> &File {
        &self.lock
    }

    /// Segments that an earlier run made: as many from 0 on, wherever their files are.
    pub fn segments_known(&self) -> u32 {
        self.superblock.segments_known
    }

    /// The directory as it was given.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Superblock {
    fn first_boot(dir: &Path, capacity_bytes: Option<u64>) -> Result<Superblock, VolumeError> {
        let capacity_bytes = match capacity_bytes {
            Some(bytes) => bytes,
            None => default_capacity_bytes(dir)?,
        };
        let segment_size_bytes = segment_size_for(capacity_bytes);
        let mut id = [0; 16];
        let random = Path::new("/dev/urandom");
        File::open(random)
            .and_then(|mut file| file.read_exact(&mut id))
            .map_err(during("read", random))?;
        Ok(Superblock {
            id,
            shape: VolumeShape {
                segment_size_bytes,
                segments_max: segments_in(capacity_bytes, segment_size_bytes),
            },
            boot_epoch: 1,
            segments_known: 0,
        })
    }

    fn next_boot(
        mut self,
        path: &Path,
        capacity_bytes: Option<u64>,
        highest: Option<SegmentId>,
    ) -> Result<Superblock, VolumeError> {
        self.boot_epoch = self
            .boot_epoch
            .checked_add(1)
            .filter(|epoch| *epoch <= BOOT_EPOCH_MAX)
            .ok_or_else(|| VolumeError::EpochsExhausted {
                path: path.to_owned(),
            })?;
        let Some(capacity_bytes) = capacity_bytes else {
            return Ok(self);
        };
        let segments_max = segments_in(capacity_bytes, self.shape.segment_size_bytes);
        let segments_used = highest
            .map_or(0, |highest| highest.0 + 1)
            .max(self.segments_known);
        if segments_used > segments_max {
            let used_bytes = u64::from(segments_used) * u64::from(self.shape.segment_size_bytes);
            return Err(VolumeError::CapacityBelowUse {
                capacity_bytes,
                used_bytes,
            });
        }
        self.shape.segments_max = segments_max.max(1);
        Ok(self)
    }

    fn encode(&self) -> [u8; COPY_BYTES] {
        let mut copy = [0; COPY_BYTES];
        copy[..8].copy_from_slice(MAGIC);
        put_u32(&mut copy, VERSION_AT, VERSION);
        copy[ID_AT..ID_AT + 16].copy_from_slice(&self.id);
        put_u32(&mut copy, SEGMENT_SIZE_AT, self.shape.segment_size_bytes);
        put_u32(&mut copy, SEGMENTS_MAX_AT, self.shape.segments_max);
        put_u32(&mut copy, EPOCH_AT, self.boot_epoch);
        put_u32(&mut copy, SEGMENTS_KNOWN_AT, self.segments_known);
        let crc = crc32fast::hash(&copy);
        put_u32(&mut copy, CRC_AT, crc);
        copy
    }

    fn decode(copy: &[u8; COPY_BYTES]) -> Result<Superblock, CopyError> {
        let mut unsigned = *copy;
        put_u32(&mut unsigned, CRC_AT, 0);
        if !copy.starts_with(MAGIC) || get_u32(copy, CRC_AT) != crc32fast::hash(&unsigned) {
            return Err(CopyError::Damaged);
        }
        let version = get_u32(copy, VERSION_AT);
        if version > VERSION {
            return Err(CopyError::NewerVersion(version));
        }
        let segment_size_bytes = get_u32(copy, SEGMENT_SIZE_AT);
        let segments_max = get_u32(copy, SEGMENTS_MAX_AT);
        let is_written_by_us = version == VERSION
            && segment_size_bytes.is_power_of_two()
            && (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_size_bytes)
            && segments_max > 0
            && copy[FIELDS_END..].iter().all(|&byte| byte == 0);
        if !is_written_by_us {
            return Err(CopyError::Damaged);
        }
        let mut id = [0; 16];
        id.copy_from_slice(&copy[ID_AT..ID_AT + 16]);
        Ok(Superblock {
            id,
            shape: VolumeShape {
                segment_size_bytes,
                segments_max,
            },
            boot_epoch: get_u32(copy, EPOCH_AT),
            segments_known: get_u32(copy, SEGMENTS_KNOWN_AT),
        })
    }
}

/// Why a copy of the superblock does not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CopyError {
    /// It is not as it was written.
    Damaged,
    /// It is whole, and a later release wrote it.
    NewerVersion(u32),
}

/// Where the segments of the volume in `dir` lie.
pub(super) fn segments_dir(dir: &Path) -> PathBuf {
    dir.join(SEGMENTS_NAME)
}

/// The name of a segment's file.
pub(super) fn segment_file_name(id: SegmentId) -> String {
    format!("{id}.seg")
}

/// The segment that a file of this name holds; `None` for any other name.
pub(super) fn segment_of_file_name(name: &str) -> Option<SegmentId> {
    let digits = name.strip_suffix(".seg")?;
    let id = SegmentId(u32::from_str_radix(digits, 16).ok()?);
    (segment_file_name(id) == name).then_some(id)
}

/// The largest power of two that gives the capacity 256 segments, within what a segment may be.
fn segment_size_for(capacity_bytes: u64) -> u32 {
    let aim = capacity_bytes / SEGMENTS_AIM;
    let power = if aim == 0 { 0 } else { 1u64 << aim.ilog2() };
    power.clamp(u64::from(SEGMENT_BYTES_MIN), u64::from(SEGMENT_BYTES_MAX)) as u32
}

fn segments_in(capacity_bytes: u64, segment_size_bytes: u32) -> u32 {
    (capacity_bytes / u64::from(segment_size_bytes)).min(SEGMENTS_MAX) as u32
}

/// What this process may still take.
fn free_bytes(dir: &Path) -> Result<u64, VolumeError> {
    let stat = rustix::fs::statvfs(dir)
        .map_err(io::Error::from)
        .map_err(during("measure", dir))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn default_capacity_bytes(dir: &Path) -> Result<u64, VolumeError> {
    let free_bytes = free_bytes(dir)?;
    let capacity_bytes = free_bytes / 100 * CAPACITY_DEFAULT_PERCENT;
    if capacity_bytes < CAPACITY_BYTES_MIN {
        return Err(VolumeError::TooLittleFree {
            dir: dir.to_owned(),
            free_bytes,
        });
    }
    Ok(capacity_bytes)
}

fn lock(dir: &Path) -> Result<File, VolumeError> {
    let path = dir.join(LOCK_NAME);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(during("open", &path))?;
    let since = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => {
                let pid = pid_in(&file);
                // What a process that is gone has in flight still holds it.
                if pid.is_none_or(is_running) || since.elapsed() > LOCK_PATIENCE {
                    let dir = dir.to_owned();
                    return Err(VolumeError::InUse { dir, pid });
                }
                thread::sleep(LOCK_RETRY_DELAY);
            }
            Err(TryLockError::Error(source)) => return Err(during("lock", &path)(source)),
        }
    }
    let pid = format!("{}\n", std::process::id());
    file.set_len(0)
        .and_then(|()| file.write_all_at(pid.as_bytes(), 0))
        .map_err(during("write", &path))?;
    Ok(file)
}

fn pid_in(file: &File) -> Option<u32> {
    let mut text = [0; 16];
    let length = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(&text[..length]).ok()?.trim().parse().ok()
}

/// Whether there is such a process, and it has not ended (proc(5): states Z and X).
fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    let state = stat
        .ok()
        .and_then(|stat| stat.rsplit_once(") ")?.1.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// Looks at the directory, or at where it will be made.
fn check_is_not_in_memory(dir: &Path) -> Result<(), VolumeError> {
    let absolute = std::path::absolute(dir).map_err(during("find", dir))?;
    let existing = absolute.ancestors().find(|path| path.exists()).unwrap_or(dir);
    let stat = rustix::fs::statfs(existing)
        .map_err(io::Error::from)
        .map_err(during("measure", existing))?;
    let found = FILE_SYSTEMS_IN_MEMORY
        .iter()
        .find(|(magic, _)| *magic == i128::from(stat.f_type));
    match found {
        Some((_, kind)) => Err(VolumeError::InMemory {
            dir: dir.to_owned(),
            kind,
        }),
        None => Ok(()),
    }
}

/// A volume is made in a directory of its own: what others keep there would count as taken, and might be ours one day.
fn check_is_ours(dir: &Path) -> Result<(), VolumeError> {
    if !dir.exists() || dir.join(SUPERBLOCK_NAME).exists() {
        return Ok(());
    }
    let mut foreign = None;
    for entry in fs::read_dir(dir).map_err(during("list", dir))? {
        let name = entry.map_err(during("list", dir))?.file_name();
        let is_ours = NAMES_BEFORE_FIRST_START.iter().any(|ours| name == *ours);
        if !is_ours {
            foreign = Some(name.to_string_lossy().into_owned());
        }
    }
    // With segments it is a volume whose superblock is gone, which is told in other words.
    match foreign {
        Some(name) if !has_segments(&segments_dir(dir)) => Err(VolumeError::Foreign {
            dir: dir.to_owned(),
            name,
        }),
        _ => Ok(()),
    }
}

fn has_segments(segments_dir: &Path) -> bool {
    fs::read_dir(segments_dir).is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| {
                entry
                    .file_name()
                    .to_str()
                    .and_then(segment_of_file_name)
                    .is_some()
            })
        })
    })
}

#[repr(align(4096))]
struct Page([u8; 4096]);

fn check_direct_io(dir: &Path) -> Result<(), VolumeError> {
    let path = dir.join(PROBE_NAME);
    let page = Page([0; 4096]);
    let tried = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path)
        .and_then(|file| file.write_all_at(&page.0, 0));
    // Made by this function only, and of no use to anyone: a leftover is overwritten next time.
    let _ = fs::remove_file(&path);
    match tried {
        Ok(()) => Ok(()),
        Err(source) if source.raw_os_error() == Some(libc::EINVAL) => Err(VolumeError::NoDirectIo {
            dir: dir.to_owned(),
            source,
        }),
        Err(source) => Err(during("write", &path)(source)),
    }
}

/// The runtime polls for completions on a device that has polling queues and is not rotational, and
/// offers no way to say no.
fn check_device_is_not_polled(dir: &Path) -> Result<(), VolumeError> {
    let dev = fs::metadata(dir).map_err(during("stat", dir))?.dev();
    let device = format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev));
    let sys = PathBuf::from(format!("/sys/dev/block/{device}"));
    let Ok(sys) = sys.canonicalize() else {
        return Ok(());
    };
    // A partition's queue is its disk's.
    let queue = [sys.join("queue"), sys.join("../queue")]
        .into_iter()
        .find(|queue| queue.is_dir());
    let on = |attribute: &str| {
        let text = queue
            .as_ref()
            .and_then(|queue| fs::read_to_string(queue.join(attribute)).ok());
        text.is_some_and(|text| text.trim() != "0")
    };
    if on("io_poll") && !on("rotational") {
        return Err(VolumeError::PolledDevice {
            dir: dir.to_owned(),
            device,
        });
    }
    Ok(())
}

/// The segments that exist.
#[derive(Default)]
struct SegmentFiles {
    count: u64,
    highest: Option<SegmentId>,
}

/// Removes segments that were being made when the last run ended; gives those that there are.
fn sweep_segments(segments_dir: &Path) -> Result<SegmentFiles, VolumeError> {
    let mut found = SegmentFiles::default();
    for entry in fs::read_dir(segments_dir).map_err(during("list", segments_dir))? {
        let entry = entry.map_err(during("list", segments_dir))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(id) = segment_of_file_name(name) {
            found.count += 1;
            found.highest = found.highest.max(Some(id));
        } else if name.strip_suffix(".new").and_then(segment_of_file_name).is_some() {
            fs::remove_file(entry.path()).map_err(during("remove", &entry.path()))?;
        }
    }
    Ok(found)
}

fn read_superblock(path: &Path) -> Result<Option<Superblock>, VolumeError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(during("open", path)(error)),
    };
    let mut bytes = Vec::with_capacity(2 * COPY_BYTES);
    file.take(2 * COPY_BYTES as u64)
        .read_to_end(&mut bytes)
        .map_err(during("read", path))?;
    let (copies, _) = bytes.as_chunks::<COPY_BYTES>();
    let whole = copies
        .iter()
        .map(Superblock::decode)
        .find(|decoded| *decoded != Err(CopyError::Damaged));
    let path = path.to_owned();
    match whole {
        Some(Ok(superblock)) => Ok(Some(superblock)),
        Some(Err(CopyError::NewerVersion(version))) => Err(VolumeError::NewerVersion { path, version }),
        Some(Err(CopyError::Damaged)) | None => Err(VolumeError::Damaged { path }),
    }
}

fn write_superblock(dir: &Path, path: &Path, superblock: &Superblock) -> Result<(), VolumeError> {
    let new = dir.join(SUPERBLOCK_NEW_NAME);
    let copy = superblock.encode();
    let write = || -> io::Result<()> {
        let mut file = File::create(&new)?;
        file.write_all(&copy)?;
        file.write_all(&copy)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        // The segments directory may be new too: its entry is in the same directory.
        File::open(dir)?.sync_all()
    };
    write().map_err(during("write", path))
}

fn during(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.to_owned();
    move |source| VolumeError::Io { doing, path, source }
}

fn put_u32(bytes: &mut [u8; COPY_BYTES], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn get_u32(bytes: &[u8; COPY_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl fmt::Display for VolumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        match self {
            VolumeError::InUse { dir, pid: Some(pid) } => {
                write!(f, "{} is in use by another weft (pid {pid})", dir.display())
            }
            VolumeError::InUse { dir, pid: None } => {
                write!(f, "{} is in use by another weft", dir.display())
            }
            VolumeError::InMemory { dir, kind } => write!(
                f,
                "{} lies on {kind}, which is memory: nothing there outlives the machine's next start; give --data a directory on ext4 or XFS",
                dir.display()
            ),
            VolumeError::Foreign { dir, name } => write!(
                f,
                "{} has no volume, and holds {name:?}, which is not weft's: give --data an empty directory, or one that does not exist",
                dir.display()
            ),
            VolumeError::NoDirectIo { dir, source } => write!(
                f,
                "the file system of {} refuses direct I/O ({source}): use a directory on ext4 or XFS",
                dir.display()
            ),
            VolumeError::PolledDevice { dir, device } => write!(
                f,
                "the device of {} ({device}) has polling queues, which weft does not use: boot without nvme.poll_queues",
                dir.display()
            ),
            VolumeError::CapacityTooSmall { capacity_bytes } => write!(
                f,
                "a capacity of {} MiB is too small: give --capacity 256MiB or more",
                capacity_bytes / MIB
            ),
            VolumeError::TooLittleFree { dir, free_bytes } => write!(
                f,
                "only {} MiB are free in {}: a volume needs 256 MiB, and takes 80 % of what is free unless --capacity is given",
                free_bytes / MIB,
                dir.display()
            ),
            VolumeError::CapacityBelowUse {
                capacity_bytes,
                used_bytes,
            } => write!(
                f,
                "a capacity of {} MiB is less than the volume has segments for: give --capacity {}MiB or more",
                capacity_bytes / MIB,
                used_bytes / MIB
            ),
            VolumeError::NewerVersion { path, version } => write!(
                f,
                "{} has format version {version}, this weft knows {VERSION}: use the weft that wrote it, or a later one",
                path.display()
            ),
            VolumeError::Damaged { path } => write!(
                f,
                "{} is damaged in both copies: restore it from a backup; nothing was changed",
                path.display()
            ),
            VolumeError::SuperblockMissing { dir } => write!(
                f,
                "{0}/segments holds data but {0}/superblock is missing: restore it from a backup; nothing was changed",
                dir.display()
            ),
            VolumeError::EpochsExhausted { path } => {
                write!(f, "{} has counted 2^32 starts", path.display())
            }
            VolumeError::Io { doing, path, source } => {
                write!(f, "cannot {doing} {}: {source}", path.display())
            }
        }
    }
}

impl std::error::Error for VolumeError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::uring::scratch::Scratch;

    const MIB: u64 = 1 << 20;

    #[test]
    fn segment_size_follows_capacity() {
        for (capacity_bytes, segment_size_bytes) in [
            (256 * MIB, 1 << 20),
            (511 * MIB, 1 << 20),
            (512 * MIB, 2 << 20),
            (100 << 30, 256 << 20),
            (256 << 30, 1 << 30),
            (2 << 40, 1 << 30),
        ] {
            assert_eq!(
                segment_size_for(capacity_bytes),
                segment_size_bytes,
                "{capacity_bytes}"
            );
        }
    }

    #[test]
    fn epoch_rises_and_identity_stays() {
        let scratch = Scratch::new();
        let first = Volume::open(scratch.dir(), Some(256 * MIB)).unwrap();
        let (id, shape) = (first.id(), first.shape());
        assert_eq!(first.boot_epoch(), 1);
        assert_eq!(
            shape,
            VolumeShape {
                segment_size_bytes: 1 << 20,
                segments_max: 256
            }
        );
        drop(first);
        let second = Volume::open(scratch.dir(), None).unwrap();
        assert_eq!((second.boot_epoch(), second.id(), second.shape()), (2, id, shape));
    }

    #[test]
    fn how_many_segments_there_were_is_known_when_the_last_is_gone() {
        let scratch = Scratch::new();
        drop(Volume::open(scratch.dir(), Some(256 * MIB)).unwrap());
        let segments = segments_dir(scratch.dir());
        for name in ["00000000.seg", "00000001.seg"] {
            File::create(segments.join(name)).unwrap();
        }
        assert_eq!(Volume::open(scratch.dir(), None).unwrap().segments_known(), 2);
        fs::remove_file(segments.join("00000001.seg")).unwrap();
        for _ in 0..2 {
            assert_eq!(Volume::open(scratch.dir(), None).unwrap().segments_known(), 2);
        }
    }

    #[test]
    fn second_open_is_refused() {
        let scratch = Scratch::new();
        let _first = Volume::open(scratch.dir(), Some(256 * MIB)).unwrap();
        let refused = Volume::open(scratch.dir(), None).unwrap_err();
        assert!(matches!(refused, VolumeError::InUse { pid: Some(pid), .. } if pid == std::process::id()));
        assert!(refused.to_string().contains(scratch.dir().to_str().unwrap()));
    }

    #[test]
    fn capacity_grows_keeps_segment_size_and_never_drops_a_segment() {
        let scratch = Scratch::new();
        drop(Volume::open(scratch.dir(), Some(512 * MIB)).unwrap());
        let grown = Volume::open(scratch.dir(), Some(2048 * MIB)).unwrap();
        assert_eq!(
            grown.shape(),
            VolumeShape {
                segment_size_bytes: 2 << 20,
                segments_max: 1024
            }
        );
        drop(grown);
        File::create(segments_dir(scratch.dir()).join("000001ff.seg")).unwrap();
        assert_eq!(
            Volume::open(scratch.dir(), Some(1024 * MIB))
                .unwrap()
                .shape()
                .segments_max,
            512
        );
        let refused = Volume::open(scratch.dir(), Some(1022 * MIB)).unwrap_err();
        assert!(
            matches!(refused, VolumeError::CapacityBelowUse { used_bytes, .. } if used_bytes == 1024 * MIB)
        );
    }

    #[test]
    fn too_small_a_capacity_is_refused_before_anything_is_made() {
        let scratch = Scratch::new();
        let dir = scratch.dir().join("volume");
        let refused = Volume::open(&dir, Some(255 * MIB)).unwrap_err();
        assert!(matches!(refused, VolumeError::CapacityTooSmall { .. }));
        assert!(!dir.exists());
    }

    #[test]
    fn a_directory_in_memory_is_refused_before_anything_is_made() {
        let memory = Path::new("/dev/shm");
        let tmpfs = FILE_SYSTEMS_IN_MEMORY[0].0;
        if !rustix::fs::statfs(memory).is_ok_and(|stat| i128::from(stat.f_type) == tmpfs) {
            eprintln!("/dev/shm is no tmpfs here: nothing to refuse");
            return;
        }
        let dir = memory.join(format!("weft-test-{}/deep/down", std::process::id()));
        let refused = Volume::open(&dir, Some(256 * MIB)).unwrap_err();
        assert!(
            matches!(refused, VolumeError::InMemory { kind: "tmpfs", .. }),
            "{refused}"
        );
        assert!(refused.to_string().contains("--data"));
        assert!(!dir.parent().unwrap().exists());
    }

    #[test]
    fn what_others_keep_in_a_directory_is_not_built_upon() {
        let scratch = Scratch::new();
        for name in ["notes.txt", ".hidden", "segments.old"] {
            let dir = scratch.dir().join(format!("with {name}"));
            fs::create_dir(&dir).unwrap();
            File::create(dir.join(name)).unwrap();
            let refused = Volume::open(&dir, Some(256 * MIB)).unwrap_err();
            assert!(matches!(refused, VolumeError::Foreign { .. }), "{refused}");
            assert!(refused.to_string().contains(name), "{refused}");
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing was made");
        }
        // A disk of its own, and a first start that was cut off.
        let dir = scratch.dir().join("disk");
        for made in ["lost+found", SEGMENTS_NAME] {
            fs::create_dir_all(dir.join(made)).unwrap();
        }
        for made in [LOCK_NAME, SUPERBLOCK_NEW_NAME, PROBE_NAME] {
            File::create(dir.join(made)).unwrap();
        }
        drop(Volume::open(&dir, Some(256 * MIB)).unwrap());
        // What comes into a volume later is left alone.
        File::create(dir.join("notes.txt")).unwrap();
        drop(Volume::open(&dir, None).unwrap());
    }

    #[test]
    fn what_the_file_system_lacks_of_the_capacity_is_known() {
        let scratch = Scratch::new();
        let volume = Volume::open(scratch.dir(), Some(256 * MIB)).unwrap();
        assert_eq!(volume.lacking_bytes(), 0);
        drop(volume);
        let free = free_bytes(scratch.dir()).unwrap();
        let volume = Volume::open(scratch.dir(), Some(free + (1 << 40))).unwrap();
        // Others use the disk meanwhile.
        assert!((1 << 39..1 << 41).contains(&volume.lacking_bytes()));
    }

    #[test]
    fn half_made_segments_are_swept() {
        let scratch = Scratch::new();
        drop(Volume::open(scratch.dir(), Some(256 * MIB)).unwrap());
        let half = segments_dir(scratch.dir()).join("00000007.seg.new");
        File::create(&half).unwrap();
        drop(Volume::open(scratch.dir(), None).unwrap());
        assert!(!half.exists());
    }

    #[test]
    fn either_copy_of_the_superblock_will_do() {
        let scratch = Scratch::new();
        let path = scratch.dir().join("superblock");
        drop(Volume::open(scratch.dir(), Some(256 * MIB)).unwrap());
        for (at, epoch) in [(20, 2), (COPY_BYTES + 20, 3)] {
            let mut bytes = fs::read(&path).unwrap();
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            assert_eq!(Volume::open(scratch.dir(), None).unwrap().boot_epoch(), epoch);
        }
    }

    #[test]
    fn damaged_newer_and_missing_superblocks_are_refused_untouched() {
        let scratch = Scratch::new();
        let path = scratch.dir().join("superblock");
        drop(Volume::open(scratch.dir(), Some(256 * MIB)).unwrap());
        let good = fs::read(&path).unwrap();

        let newer = resealed(&good, |copy| copy[VERSION_AT] = 2);
        let half_newer = [vec![0; COPY_BYTES], newer[COPY_BYTES..].to_vec()].concat();
        for bytes in [newer, half_newer] {
            fs::write(&path, &bytes).unwrap();
            let refused = Volume::open(scratch.dir(), None).unwrap_err();
            assert!(
                matches!(refused, VolumeError::NewerVersion { version: 2, .. }),
                "{refused}"
            );
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }

        let mut damaged = good.clone();
        damaged[ID_AT] ^= 1;
        damaged[COPY_BYTES + EPOCH_AT] ^= 1;
        // A version counts only where the checksum does.
        let mut hurt_version = good.clone();
        hurt_version[VERSION_AT] ^= 2;
        hurt_version[COPY_BYTES + VERSION_AT] ^= 2;
        for bytes in [
            damaged,
            hurt_version,
            resealed(&good, |copy| copy[VERSION_AT] = 0),
            resealed(&good, |copy| copy[FIELDS_END] = 1),
            resealed(&good, |copy| copy[COPY_BYTES - 1] = 1),
            resealed(&good, |copy| put_u32(copy, SEGMENTS_MAX_AT, 0)),
            resealed(&good, |copy| put_u32(copy, SEGMENT_SIZE_AT, (1 << 20) + 1)),
            good[..100].to_vec(),
            Vec::new(),
        ] {
            fs::write(&path, &bytes).unwrap();
            let refused = Volume::open(scratch.dir(), None).unwrap_err();
            assert!(matches!(refused, VolumeError::Damaged { .. }), "{refused}");
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }

        fs::remove_file(&path).unwrap();
        File::create(segments_dir(scratch.dir()).join("00000000.seg")).unwrap();
        let refused = Volume::open(scratch.dir(), None).unwrap_err();
        assert!(matches!(refused, VolumeError::SuperblockMissing { .. }));
    }

    /// Both copies with `edit` made in them, and a checksum that fits.
    fn resealed(superblock: &[u8], edit: fn(&mut [u8; COPY_BYTES])) -> Vec<u8> {
        let mut copy = *superblock.first_chunk::<COPY_BYTES>().unwrap();
        edit(&mut copy);
        put_u32(&mut copy, CRC_AT, 0);
        let crc = crc32fast::hash(&copy);
        put_u32(&mut copy, CRC_AT, crc);
        [copy, copy].concat()
    }

    #[test]
    fn superblock_bytes_are_as_documented() {
        let superblock = Superblock {
            id: *b"0123456789abcdef",
            shape: VolumeShape {
                segment_size_bytes: 1 << 20,
                segments_max: 300,
            },
            boot_epoch: 7,
            segments_known: 9,
        };
        let copy = superblock.encode();
        assert_eq!(&copy[..12], b"WEFTSUPR\x01\0\0\0");
        assert_eq!(&copy[16..44], b"0123456789abcdef\0\0\x10\0\x2c\x01\0\0\x07\0\0\0");
        assert_eq!(copy[44..48], [9, 0, 0, 0]);
        assert!(copy[48..].iter().all(|&byte| byte == 0));
        assert_eq!(copy[12..16], [89, 175, 4, 1]);
        assert_eq!(Superblock::decode(&copy), Ok(superblock));
    }
}
