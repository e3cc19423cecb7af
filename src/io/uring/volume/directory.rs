//! A volume in a directory: one file a segment, and the superblock in a file of its own.
//!
//! ```text
//! DIR/weft.lock              flock'ed for as long as a daemon runs or a write of its is in flight; holds its pid as text
//! DIR/superblock             two copies
//! DIR/scrub                  how far the scrub is, of no promise (`memo`)
//! DIR/segments/%08x.seg      one segment each, at its full size
//! DIR/segments/%08x.seg.new  a segment being made; removed at the next start
//! ```
//!
//! The superblock is replaced as a whole (temporary file, fsync, rename, fsync of the directory). Two copies because
//! one bad sector must not make a whole volume unreadable.
//!
//! Invariant: a file named `.seg` has its full size, and its name is on stable storage.

use super::error::{VolumeError, during};
use super::superblock::{COPY_BYTES, CopyError, Superblock};
use super::{CAPACITY_BYTES_MIN, Made, check_is_not_polled};
use crate::io::SegmentId;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// The default capacity, in per cent of what is free at the first start.
const CAPACITY_DEFAULT_PERCENT: u64 = 80;
pub(super) const LOCK_NAME: &str = "weft.lock";
/// How long the writes of a process that is gone are waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);
const LOCK_RETRY_DELAY: Duration = Duration::from_millis(5);
pub(super) const SUPERBLOCK_NAME: &str = "superblock";
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

/// A directory that may hold a volume.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Closing it, and all rings that keep it open, gives the directory up. Until the directory is used there is none.
    lock: Option<File>,
}

/// Segments that a directory holds.
#[derive(Default)]
pub(super) struct SegmentFiles {
    pub count: u64,
    pub highest: Option<SegmentId>,
}

impl Directory {
    /// Looks at a directory, or at where it will be made, and changes nothing in it.
    pub fn look(path: &Path) -> Result<(Directory, Option<Superblock>), VolumeError> {
        check_is_not_in_memory(path)?;
        check_is_ours(path)?;
        let mut directory = Directory::at(path);
        if !path.join(SUPERBLOCK_NAME).exists() {
            if has_segments(&directory.segments()) {
                return Err(VolumeError::SuperblockMissing { dir: path.to_owned() });
            }
            return Ok((directory, None));
        }
        directory.take()?;
        let superblock = directory.read_superblock()?;
        Ok((directory, Some(superblock)))
    }

    /// For a look at it, without the lock.
    pub fn at(path: &Path) -> Directory {
        Directory {
            path: path.to_owned(),
            lock: None,
        }
    }

    /// A directory that holds a volume, whatever state its superblock is in.
    pub fn of_a_volume(path: &Path) -> Result<Directory, VolumeError> {
        check_is_not_in_memory(path)?;
        let mut directory = Directory::at(path);
        directory.take()?;
        Ok(directory)
    }

    /// Makes the directory what a volume needs, and takes it for this process.
    pub fn take(&mut self) -> Result<(), VolumeError> {
        if self.lock.is_some() {
            return Ok(());
        }
        let segments = self.segments();
        fs::create_dir_all(&segments).map_err(during("create", &segments))?;
        self.lock = Some(lock(&self.path)?);
        check_direct_io(&self.path)?;
        let dev = fs::metadata(&self.path)
            .map_err(during("stat", &self.path))?
            .dev();
        check_is_not_polled(&self.path, dev)
    }

    pub fn lock_file(&self) -> Option<&File> {
        self.lock.as_ref()
    }

    /// Where the segments lie.
    pub fn segments(&self) -> PathBuf {
        self.path.join(SEGMENTS_NAME)
    }

    /// The file of a segment.
    pub fn segment_path(&self, id: SegmentId) -> PathBuf {
        self.segments().join(segment_file_name(id))
    }

    /// Reads the superblock without the lock: good for a look.
    pub fn read_superblock(&self) -> Result<Superblock, VolumeError> {
        let path = self.path.join(SUPERBLOCK_NAME);
        let mut bytes = Vec::with_capacity(2 * COPY_BYTES);
        File::open(&path)
            .and_then(|file| file.take(2 * COPY_BYTES as u64).read_to_end(&mut bytes))
            .map_err(during("read", &path))?;
        let (copies, _) = bytes.as_chunks::<COPY_BYTES>();
        Superblock::latest(copies).map_err(|error| match error {
            CopyError::NewerVersion(version) => VolumeError::NewerVersion { path, version },
            CopyError::Damaged => VolumeError::Damaged { path },
        })
    }

    pub fn write_superblock(&self, superblock: &Superblock) -> Result<(), VolumeError> {
        let path = self.path.join(SUPERBLOCK_NAME);
        let new = self.path.join(SUPERBLOCK_NEW_NAME);
        let copy = superblock.encode();
        let write = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&copy)?;
            file.write_all(&copy)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            // The segments directory may be new too: its entry is in the same directory.
            File::open(&self.path)?.sync_all()
        };
        write().map_err(during("write", &path))
    }

    /// Removes the volume that is there, if any: first what makes it one.
    pub fn clear(&self) -> Result<(), VolumeError> {
        let remove = |path: &Path| match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(during("remove", path)(error)),
            _ => Ok(()),
        };
        remove(&self.path.join(SUPERBLOCK_NAME))?;
        let sync = || File::open(&self.path)?.sync_all();
        sync().map_err(during("sync", &self.path))?;
        let segments = self.segments();
        for id in list_segments(&segments).map_err(during("list", &segments))? {
            remove(&self.segment_path(id))?;
        }
        Ok(())
    }

    /// Removes segments that were being made when the last run ended; gives those that there are.
    pub fn sweep(&self, volume: usize) -> Result<SegmentFiles, VolumeError> {
        sweep_segments(&self.segments(), volume)
    }

    /// The segments that exist, by their files. Blocking.
    pub fn list(&self) -> io::Result<Vec<SegmentId>> {
        list_segments(&self.segments())
    }

    /// Makes a segment. Blocking.
    pub fn make(&self, id: SegmentId, size_bytes: u32) -> io::Result<Made> {
        make_segment(&self.segments(), id, size_bytes)
    }

    /// What this process may still take.
    pub fn free_bytes(&self) -> Result<u64, VolumeError> {
        free_bytes(&self.path)
    }

    /// A share of what is free, for one of so many directories on this file system.
    pub fn default_capacity_bytes(&self, sharers: u64) -> Result<u64, VolumeError> {
        let free_bytes = self.free_bytes()? / sharers.max(1);
        let capacity_bytes = free_bytes / 100 * CAPACITY_DEFAULT_PERCENT;
        if capacity_bytes < CAPACITY_BYTES_MIN {
            return Err(VolumeError::TooLittleFree {
                dir: self.path.clone(),
                free_bytes,
            });
        }
        Ok(capacity_bytes)
    }
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

/// What this process may still take.
fn free_bytes(dir: &Path) -> Result<u64, VolumeError> {
    let stat = rustix::fs::statvfs(dir)
        .map_err(io::Error::from)
        .map_err(during("measure", dir))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

pub(super) fn lock(dir: &Path) -> Result<File, VolumeError> {
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

pub(super) fn pid_in(file: &File) -> Option<u32> {
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
        Some(name) if !has_segments(&dir.join(SEGMENTS_NAME)) => Err(VolumeError::Foreign {
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

/// Removes segments that were being made when the last run ended; gives those that there are.
fn sweep_segments(segments_dir: &Path, volume: usize) -> Result<SegmentFiles, VolumeError> {
    let mut found = SegmentFiles::default();
    for entry in fs::read_dir(segments_dir).map_err(during("list", segments_dir))? {
        let entry = entry.map_err(during("list", segments_dir))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(id) = segment_of_file_name(name) {
            if id.volume() != volume {
                continue;
            }
            found.count += 1;
            found.highest = found.highest.max(Some(id));
        } else if name.strip_suffix(".new").and_then(segment_of_file_name).is_some() {
            fs::remove_file(entry.path()).map_err(during("remove", &entry.path()))?;
        }
    }
    Ok(found)
}

/// Blocking: not for a core's thread.
fn make_segment(dir: &Path, id: SegmentId, size_bytes: u32) -> io::Result<Made> {
    let path = dir.join(segment_file_name(id));
    if path.try_exists()? {
        // Its making may have ended between the name and the sync of the name: killed, or by an error.
        File::open(dir)?.sync_all()?;
        return Ok(Made::Before);
    }
    let new = path.with_extension("seg.new");
    let make = || -> io::Result<()> {
        let file = File::create(&new)?;
        rustix::fs::fallocate(
            &file,
            rustix::fs::FallocateFlags::empty(),
            0,
            u64::from(size_bytes),
        )?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(dir)?.sync_all()
    };
    make().inspect_err(|_| {
        // It failed for want of space, perhaps: give back what it took.
        let _ = fs::remove_file(&new);
    })?;
    Ok(Made::Now)
}

/// Blocking: not for a core's thread.
fn list_segments(dir: &Path) -> io::Result<Vec<SegmentId>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir)? {
        segments.extend(entry?.file_name().to_str().and_then(segment_of_file_name));
    }
    Ok(segments)
}
