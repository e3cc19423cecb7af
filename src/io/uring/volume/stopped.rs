//! A volume that no daemon runs on, to be looked at: what its superblock says, and the bytes of its segments.
//!
//! Blocking calls, for tools. Invariant: nothing of the volume is written but the lock's pid, and while a
//! [`StoppedVolume`] is there no daemon can start on it. What is damaged is given as such, not refused: whoever looks
//! wants to see it.

use super::directory::{
    Directory, LOCK_NAME, SUPERBLOCK_NAME, lock, pid_in, segment_file_name, segment_of_file_name,
};
use super::error::{VolumeError, during};
use super::superblock::{COPY_BYTES, CopyError, Superblock};
use crate::io::{SegmentId, VolumeShape};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A data directory that is looked at.
pub struct StoppedVolume {
    dir: PathBuf,
    /// The superblock's copies: `None` for one that is damaged.
    copies: [Option<StoredShape>; 2],
    segments: Vec<SegmentId>,
    _lock: Option<File>,
}

/// What a superblock says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredShape {
    pub id: [u8; 16],
    pub shape: VolumeShape,
    /// The newest start.
    pub boot_epoch: u32,
    /// Segments that were there at some start: as many from 0 on.
    pub segments_known: u32,
}

/// A segment of a volume that is looked at.
pub struct StoppedSegment {
    file: File,
    /// Its bytes end before its size.
    pub length_bytes: u64,
}

impl StoppedVolume {
    /// Takes the lock of the volume in `dir`, shared with other lookers where the directory cannot be written.
    ///
    /// # Errors
    /// `InUse` while a daemon runs, `NoVolume` where there is none, `CannotLook` for a device or one of several volumes,
    /// `NewerVersion`, and what the system says.
    pub fn open(dir: &Path) -> Result<StoppedVolume, VolumeError> {
        if dir.exists() && !dir.is_dir() {
            return Err(VolumeError::CannotLook { path: dir.to_owned() });
        }
        if !dir.join(SUPERBLOCK_NAME).exists() && !segments_dir(dir).is_dir() {
            return Err(VolumeError::NoVolume { dir: dir.to_owned() });
        }
        let lock = lock_to_look(dir)?;
        let copies = superblock_copies(&dir.join(SUPERBLOCK_NAME))?;
        let mut segments = list_segments(&segments_dir(dir))?;
        // Without a superblock, the numbers of segments are all that tells of other volumes.
        let is_unknown = copies.iter().all(Option::is_none);
        if is_unknown && segments.iter().any(|id| id.volume() != 0) {
            return Err(VolumeError::CannotLook { path: dir.to_owned() });
        }
        // As a start does, which passes over them.
        segments.retain(|id| id.volume() == 0);
        segments.sort_unstable();
        Ok(StoppedVolume {
            copies,
            dir: dir.to_owned(),
            segments,
            _lock: lock,
        })
    }

    /// The directory as it was given.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The superblock's copies in order; `None` for one that is damaged or missing.
    pub fn copies(&self) -> [Option<StoredShape>; 2] {
        self.copies
    }

    /// The segments that are there, in order.
    pub fn segments(&self) -> &[SegmentId] {
        &self.segments
    }

    /// Opens a segment, past the page cache where the file system can.
    ///
    /// # Errors
    /// What the system says.
    pub fn segment(&self, id: SegmentId) -> io::Result<StoppedSegment> {
        let path = segments_dir(&self.dir).join(segment_file_name(id));
        let direct = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path);
        let file = match direct {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => File::open(&path)?,
            opened => opened?,
        };
        let length_bytes = file.metadata()?.len();
        Ok(StoppedSegment { file, length_bytes })
    }
}

impl StoppedSegment {
    /// Fills `into`, which is aligned to 4096 bytes in memory, place and length.
    ///
    /// # Errors
    /// What the system says; `UnexpectedEof` behind the file's end.
    pub fn read(&self, offset: u32, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, u64::from(offset))
    }
}

fn segments_dir(dir: &Path) -> PathBuf {
    Directory::at(dir).segments()
}

fn lock_to_look(dir: &Path) -> Result<Option<File>, VolumeError> {
    match lock(dir) {
        Ok(file) => Ok(Some(file)),
        Err(VolumeError::Io { source, .. }) if is_read_only(&source) => lock_shared(dir),
        Err(error) => Err(error),
    }
}

/// For a directory that this process may only read.
fn lock_shared(dir: &Path) -> Result<Option<File>, VolumeError> {
    let path = dir.join(LOCK_NAME);
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(during("open", &path))?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(VolumeError::InUse {
            dir: dir.to_owned(),
            pid: pid_in(&file),
        }),
        Err(TryLockError::Error(source)) => Err(during("lock", &path)(source)),
    }
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
    )
}

fn superblock_copies(path: &Path) -> Result<[Option<StoredShape>; 2], VolumeError> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        opened => {
            let file = opened.map_err(during("open", path))?;
            let read = file.take(2 * COPY_BYTES as u64).read_to_end(&mut bytes);
            read.map_err(during("read", path))?;
        }
    }
    let (whole, _) = bytes.as_chunks::<COPY_BYTES>();
    let mut copies = [None; 2];
    for (copy, bytes) in copies.iter_mut().zip(whole) {
        *copy = match Superblock::decode(bytes) {
            Ok(superblock) if superblock.members.len() > 1 => {
                let path = path.parent().unwrap_or(path).to_owned();
                return Err(VolumeError::CannotLook { path });
            }
            Ok(superblock) => Some(StoredShape {
                id: superblock.set,
                shape: superblock.shape,
                boot_epoch: superblock.boot_epoch,
                segments_known: superblock.segments_known,
            }),
            Err(CopyError::Damaged) => None,
            Err(CopyError::NewerVersion(version)) => {
                let path = path.to_owned();
                return Err(VolumeError::NewerVersion { path, version });
            }
        };
    }
    Ok(copies)
}

fn list_segments(dir: &Path) -> Result<Vec<SegmentId>, VolumeError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(during("list", dir))?,
    };
    let mut segments = Vec::new();
    for entry in entries {
        let name = entry.map_err(during("list", dir))?.file_name();
        segments.extend(name.to_str().and_then(segment_of_file_name));
    }
    Ok(segments)
}
