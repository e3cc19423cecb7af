//! Why volumes cannot be used. Each error is one line that says what to do.

use super::superblock::VERSION;
use crate::limits::{BOOT_EPOCH_MAX, VOLUMES_MAX};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub enum VolumeError {
    /// Another daemon holds the lock of a directory.
    InUse { dir: PathBuf, pid: Option<u32> },
    /// A device is mounted, or somebody has it to himself.
    DeviceInUse { path: PathBuf },
    /// The file system lies in memory.
    InMemory { dir: PathBuf, kind: &'static str },
    /// There is no volume in a directory, and what is there is not ours.
    Foreign { dir: PathBuf, name: String },
    /// There is no volume on a device.
    NotFormatted { path: PathBuf },
    /// What was to be formatted holds something.
    Occupied { path: PathBuf, what: String },
    /// Neither a directory nor a block device.
    NotAVolume { path: PathBuf },
    /// The file system refuses direct I/O.
    NoDirectIo { dir: PathBuf, source: io::Error },
    /// The device wants larger blocks than ours.
    LargeBlocks { path: PathBuf, block_bytes: u32 },
    /// The device has polling queues, which would keep a core spinning while I/O is in flight.
    PolledDevice { path: PathBuf, device: String },
    /// The capacity is under [`super::CAPACITY_BYTES_MIN`].
    CapacityTooSmall { capacity_bytes: u64 },
    /// The default capacity, a share of what is free, is under [`super::CAPACITY_BYTES_MIN`].
    TooLittleFree { dir: PathBuf, free_bytes: u64 },
    /// The device has no room for the capacity, given now or when it was formatted, or for the least that there may be.
    DeviceTooSmall { path: PathBuf, size_bytes: u64 },
    /// The capacity given is under what the volume already uses.
    CapacityBelowUse { capacity_bytes: u64, used_bytes: u64 },
    /// The capacity gives more segments of that size than there may be, or fewer than are needed.
    SegmentSize { segment_size_bytes: u32 },
    /// Written by a later version.
    NewerVersion { path: PathBuf, version: u32 },
    /// Neither copy of the superblock is whole.
    Damaged { path: PathBuf },
    /// There is nothing to look at.
    NoVolume { dir: PathBuf },
    /// Only some of a set are given to be looked at.
    Partial {
        path: PathBuf,
        /// Their places in the set, from 1.
        missing: Vec<usize>,
        members: usize,
    },
    /// There are segments, but no superblock.
    SuperblockMissing { dir: PathBuf },
    /// [`BOOT_EPOCH_MAX`] starts.
    EpochsExhausted { path: PathBuf },
    /// More than [`VOLUMES_MAX`].
    TooMany { count: usize },
    /// One volume, given twice.
    Doubled { first: PathBuf, second: PathBuf },
    /// A volume of another set.
    OtherSet { path: PathBuf, first: PathBuf },
    /// An empty place beside volumes that form a set without it.
    NotAMember { path: PathBuf, members: Vec<PathBuf> },
    /// An old copy of a member.
    Stale { path: PathBuf, start: u32, newest: u32 },
    /// Members that were not given; and what was given, but is empty.
    Missing {
        /// Their places in the set, from 1.
        missing: Vec<usize>,
        members: usize,
        empty: Vec<PathBuf>,
    },
    /// A system call failed.
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// What a system call's failure becomes.
pub(super) fn during(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.to_owned();
    move |source| VolumeError::Io { doing, path, source }
}

impl VolumeError {
    /// Whether the superblock is what is wrong.
    pub(super) fn is_of_superblock(&self) -> bool {
        matches!(
            self,
            VolumeError::NewerVersion { .. }
                | VolumeError::Damaged { .. }
                | VolumeError::SuperblockMissing { .. }
        )
    }

    /// Whether one volume is out of use, and others need not be.
    pub(super) fn is_of_one_volume(&self) -> bool {
        self.is_of_superblock()
            || matches!(
                self,
                VolumeError::Io { .. }
                    | VolumeError::NotFormatted { .. }
                    | VolumeError::NotAVolume { .. }
                    | VolumeError::Foreign { .. }
            )
    }

    /// Whether what was given on the command line cannot be.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            VolumeError::CapacityTooSmall { .. }
                | VolumeError::CapacityBelowUse { .. }
                | VolumeError::SegmentSize { .. }
                | VolumeError::TooMany { .. }
                | VolumeError::Doubled { .. }
        )
    }
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
            VolumeError::DeviceInUse { path } => write!(
                f,
                "{} is in use: it is mounted, or part of something, or another weft has it; see lsblk",
                path.display()
            ),
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
            VolumeError::NotFormatted { path } => write!(
                f,
                "{0} is a device without a volume: weft format {0} makes one, if nothing else is on it",
                path.display()
            ),
            VolumeError::Occupied { path, what } => write!(
                f,
                "{} holds {what}: nothing was changed; weft format --force destroys it",
                path.display()
            ),
            VolumeError::NotAVolume { path } => write!(
                f,
                "{} is neither a directory nor a block device: give one of these",
                path.display()
            ),
            VolumeError::NoDirectIo { dir, source } => write!(
                f,
                "the file system of {} refuses direct I/O ({source}): use a directory on ext4 or XFS",
                dir.display()
            ),
            VolumeError::LargeBlocks { path, block_bytes } => write!(
                f,
                "{} has blocks of {block_bytes} bytes, and at most 4096 can be used: format the device to those",
                path.display()
            ),
            VolumeError::PolledDevice { path, device } => write!(
                f,
                "the device of {} ({device}) has polling queues, which weft does not use: boot without nvme.poll_queues",
                path.display()
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
            VolumeError::DeviceTooSmall { path, size_bytes } => write!(
                f,
                "{} has {} MiB, of which a volume can use all but 2: it needs 256 MiB, what --capacity says, or what it was formatted for",
                path.display(),
                size_bytes / MIB
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
            VolumeError::SegmentSize { segment_size_bytes } => write!(
                f,
                "segments of {} MiB do not suit the capacity: give a power of two from 1MiB to 1GiB that goes into it 64 to 16777216 times",
                u64::from(*segment_size_bytes) / MIB
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
            VolumeError::NoVolume { dir } => write!(
                f,
                "{} holds no volume: give the directory that `weft serve --data` was given",
                dir.display()
            ),
            VolumeError::Partial {
                path,
                missing,
                members,
            } => {
                let missing: Vec<String> = missing.iter().map(usize::to_string).collect();
                write!(
                    f,
                    "{} is one of a set of {members}, of which volume {} is not given: name all of them, for what one says \
                     may lie on another",
                    path.display(),
                    missing.join(", ")
                )
            }
            VolumeError::SuperblockMissing { dir } => write!(
                f,
                "{0}/segments holds data but {0}/superblock is missing: restore it from a backup; nothing was changed",
                dir.display()
            ),
            VolumeError::EpochsExhausted { path } => {
                write!(f, "{} has counted {BOOT_EPOCH_MAX} starts", path.display())
            }
            VolumeError::TooMany { count } => {
                write!(f, "{count} volumes are too many: a set has at most {VOLUMES_MAX}")
            }
            VolumeError::Doubled { first, second } => write!(
                f,
                "{} and {} are one volume, or one is a copy of the other: give each volume once",
                first.display(),
                second.display()
            ),
            VolumeError::OtherSet { path, first } => write!(
                f,
                "{} does not belong to the set of {}: give --data the volumes of one set; nothing was changed",
                path.display(),
                first.display()
            ),
            VolumeError::NotAMember { path, members } => {
                write!(
                    f,
                    "{0} is empty, and no member of the set: leave it out, or add it with weft format --join",
                    path.display()
                )?;
                for path in members.iter().chain([path]) {
                    write!(f, " {}", path.display())?;
                }
                Ok(())
            }
            VolumeError::Stale { path, start, newest } => write!(
                f,
                "{} has seen start {start}, and the others of its set start {newest}: it is an old copy; give the \
                 volume itself, or leave it out and give --degraded to read what the others hold",
                path.display()
            ),
            VolumeError::Missing {
                missing,
                members,
                empty,
            } => {
                let (noun, verb) = if missing.len() == 1 {
                    ("volume", "is")
                } else {
                    ("volumes", "are")
                };
                write!(f, "{noun}")?;
                for (at, number) in missing.iter().enumerate() {
                    write!(f, "{} {number}", if at == 0 { "" } else { "," })?;
                }
                write!(f, " of the {members} of the set {verb} missing")?;
                for path in empty {
                    write!(f, " ({} is empty: is it mounted?)", path.display())?;
                }
                write!(
                    f,
                    ": give --data for each, or --degraded to read what the others hold"
                )
            }
            VolumeError::Io { doing, path, source } => {
                write!(f, "cannot {doing} {}: {source}", path.display())
            }
        }
    }
}

impl std::error::Error for VolumeError {}
