//! A volume on a whole block device: a header of 1 MiB, segments back to back, and 1 MiB that is left empty.
//!
//! ```text
//! 0          superblock, first copy
//! 256 KiB    a page of no promise (`memo`)
//! 512 KiB    superblock, second copy
//! 1 MiB      segment 0, segment 1, ...
//! ```
//!
//! Nobody but the one that opened a device writes to it: it is opened with O_EXCL, which the kernel refuses while the
//! device or a part of it is mounted, swapped to, or held by LVM, MD or another daemon.
//!
//! A segment is made by reading it, writing zeroes where something else is, and counting it in the superblock; so it
//! costs a new device no write. The copies of the superblock are written one after the other, each with direct I/O and
//! fdatasync, which has the device flush its cache: a torn write leaves the other copy, before or after.
//!
//! Invariant: whatever is on a device is left as it is until it has a superblock of ours, which only `weft format` puts
//! there. A segment that the superblock counts has been zero or ours, on stable storage, from then on.

use super::error::{VolumeError, during};
use super::memo::MEMO_BYTES;
use super::probe;
use super::superblock::{self, COPY_BYTES, CopyError, Superblock};
use super::{CAPACITY_BYTES_MIN, Made, check_is_not_polled};
use crate::io::DISK_ALIGN_BYTES;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes before the first segment, and behind the last.
const EDGE_BYTES: u64 = 1 << 20;
/// Where the page of no promise is.
const MEMO_AT: u64 = 256 << 10;
/// Bytes that are read or zeroed at a time.
const STEP_BYTES: usize = 1 << 20;
/// How long the writes of a process that is gone are waited for: it is not known whose they are.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);
const OPEN_RETRY_DELAY: Duration = Duration::from_millis(5);

/// A block device that this process has to itself.
#[derive(Debug)]
pub(super) struct Device {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    /// One segment is made at a time.
    making: Mutex<()>,
}

impl Device {
    /// Where the copies of the superblock are.
    pub const COPIES_AT: [u64; 2] = [0, 512 << 10];

    /// Takes the device, and changes nothing on it.
    pub fn open(path: &Path) -> Result<Device, VolumeError> {
        let file = open_exclusively(path)?;
        let device = Device::with(path, file)?;
        let metadata = device.file.metadata().map_err(during("stat", path))?;
        check_is_not_polled(path, metadata.rdev())?;
        let block_bytes = rustix::fs::ioctl_blksszget(&device.file)
            .map_err(io::Error::from)
            .map_err(during("ask the block size of", path))?;
        match block_bytes as usize > DISK_ALIGN_BYTES {
            true => Err(VolumeError::LargeBlocks {
                path: path.to_owned(),
                block_bytes,
            }),
            false => Ok(device),
        }
    }

    /// Opens the device to look at it, while somebody may be using it.
    pub fn peek(path: &Path) -> Result<Device, VolumeError> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(path);
        Device::with(path, file.map_err(during("open", path))?)
    }

    fn with(path: &Path, mut file: File) -> Result<Device, VolumeError> {
        let size_bytes = file.seek(SeekFrom::End(0)).map_err(during("measure", path))?;
        Ok(Device {
            path: path.to_owned(),
            file,
            size_bytes,
            making: Mutex::new(()),
        })
    }

    /// The same device, open as this one is.
    pub fn again(&self) -> io::Result<Device> {
        Ok(Device {
            path: self.path.clone(),
            file: self.file.try_clone()?,
            size_bytes: self.size_bytes,
            making: Mutex::new(()),
        })
    }

    pub fn read_memo(&self) -> io::Result<Vec<u8>> {
        self.read_at(MEMO_AT, MEMO_BYTES)
    }

    pub fn write_memo(&self, page: &[u8; MEMO_BYTES]) -> io::Result<()> {
        let mut aligned = Aligned::zeroed(MEMO_BYTES);
        aligned.as_mut_slice().copy_from_slice(page);
        self.file.write_all_at(aligned.as_slice(), MEMO_AT)?;
        self.file.sync_data()
    }

    /// Open for direct I/O; closing it, and all rings that keep it open, gives the device up.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where a segment begins.
    pub fn offset_of(place: u32, segment_size_bytes: u32) -> u64 {
        EDGE_BYTES + u64::from(place) * u64::from(segment_size_bytes)
    }

    /// Bytes that segments may take.
    pub fn room_bytes(&self) -> u64 {
        self.size_bytes.saturating_sub(2 * EDGE_BYTES)
    }

    /// What a new volume takes: what is given, or all.
    pub fn capacity_bytes(&self, given: Option<u64>) -> Result<u64, VolumeError> {
        let capacity_bytes = given.unwrap_or(self.room_bytes());
        match capacity_bytes > self.room_bytes() || capacity_bytes < CAPACITY_BYTES_MIN {
            true => Err(VolumeError::DeviceTooSmall {
                path: self.path.clone(),
                size_bytes: self.size_bytes,
            }),
            false => Ok(capacity_bytes),
        }
    }

    /// The superblock, if the device has one.
    pub fn read_superblock(&self) -> Result<Option<Superblock>, VolumeError> {
        if self.size_bytes < 2 * EDGE_BYTES {
            return Ok(None);
        }
        let copies = self.copies().map_err(during("read", &self.path))?;
        match Superblock::latest(&copies) {
            Ok(superblock) => Ok(Some(superblock)),
            Err(CopyError::NewerVersion(version)) => Err(VolumeError::NewerVersion {
                path: self.path.clone(),
                version,
            }),
            Err(CopyError::Damaged) if copies.iter().any(|copy| superblock::has_magic(copy)) => {
                Err(VolumeError::Damaged {
                    path: self.path.clone(),
                })
            }
            Err(CopyError::Damaged) => Ok(None),
        }
    }

    /// The copies of the superblock, as they are. One that cannot be read is zero, if the other can.
    pub fn copies(&self) -> io::Result<[[u8; COPY_BYTES]; 2]> {
        let mut copies = [[0; COPY_BYTES]; 2];
        let mut failed = None;
        for (at, copy) in Device::COPIES_AT.into_iter().zip(&mut copies) {
            match self.read(at, COPY_BYTES) {
                Ok(bytes) => copy.copy_from_slice(bytes.as_slice()),
                Err(error) if failed.is_some() => return Err(error),
                Err(error) => failed = Some(error),
            }
        }
        Ok(copies)
    }

    /// Writes both copies, one after the other: the one that would count, were the other one torn, comes last.
    pub fn write_superblock(&self, superblock: &Superblock) -> Result<(), VolumeError> {
        let mut page = Aligned::zeroed(COPY_BYTES);
        page.as_mut_slice().copy_from_slice(&superblock.encode());
        let write = || -> io::Result<()> {
            let mut order = Device::COPIES_AT;
            let writes = self
                .copies()?
                .map(|copy| Superblock::decode(&copy).map_or(0, |whole| whole.writes));
            if writes[0] > writes[1] {
                order.reverse();
            }
            for at in order {
                self.file.write_all_at(page.as_slice(), at)?;
                self.file.sync_data()?;
            }
            Ok(())
        };
        write().map_err(during("write the superblock of", &self.path))
    }

    /// What hinders that the device be formatted: what is at its edges, or a segment of ours.
    pub fn occupant(&self) -> Result<Option<String>, VolumeError> {
        let read = |at, length| self.read(at, length).map_err(during("read", &self.path));
        let (first, last) = self.edges();
        let front = read(first, STEP_BYTES)?;
        let back = read(last, STEP_BYTES)?;
        if let Some(what) = probe::what_is_at_the_edges(front.as_slice(), back.as_slice()) {
            return Ok(Some(what));
        }
        let segment = read(EDGE_BYTES, DISK_ALIGN_BYTES)?;
        let is_ours = probe::is_segment(segment.as_slice());
        Ok(is_ours.then(|| "segments of a weft volume whose superblock is gone".to_owned()))
    }

    /// Zeroes both edges, so that nobody takes the device for what it was.
    pub fn clear(&self) -> Result<(), VolumeError> {
        let zeroes = Aligned::zeroed(STEP_BYTES);
        let (first, last) = self.edges();
        self.file
            .write_all_at(zeroes.as_slice(), last)
            .and_then(|()| self.file.write_all_at(zeroes.as_slice(), first))
            .and_then(|()| self.file.sync_data())
            .map_err(during("write", &self.path))
    }

    /// Where the first and the last MiB begin.
    fn edges(&self) -> (u64, u64) {
        let end = self.size_bytes - self.size_bytes % DISK_ALIGN_BYTES as u64;
        (0, end.saturating_sub(EDGE_BYTES))
    }

    /// Makes the segment at `place`, and those before it that `superblock` does not count. Blocking.
    pub fn make(&self, place: u32, superblock: &Mutex<Superblock>) -> io::Result<Made> {
        let _alone = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = superblock.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if place < next.segments_known {
            return Ok(Made::Before);
        }
        let size_bytes = next.shape.segment_size_bytes;
        for place in next.segments_known..=place {
            self.zero(Device::offset_of(place, size_bytes), u64::from(size_bytes))?;
        }
        self.file.sync_data()?;
        next.segments_known = place + 1;
        next.writes += 1;
        self.write_superblock(&next).map_err(io::Error::other)?;
        *superblock.lock().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(Made::Now)
    }

    /// Sees that a stretch is zero. What is so already is not written.
    fn zero(&self, from: u64, length: u64) -> io::Result<()> {
        let zeroes = Aligned::zeroed(STEP_BYTES);
        for at in (from..from + length).step_by(STEP_BYTES) {
            if self.read(at, STEP_BYTES)?.as_slice() != zeroes.as_slice() {
                self.file.write_all_at(zeroes.as_slice(), at)?;
            }
        }
        Ok(())
    }

    fn read(&self, at: u64, length: usize) -> io::Result<Aligned> {
        let mut bytes = Aligned::zeroed(length);
        self.file.read_exact_at(bytes.as_mut_slice(), at)?;
        Ok(bytes)
    }

    /// Bytes of the device, for a look at them.
    pub fn read_at(&self, at: u64, length: usize) -> io::Result<Vec<u8>> {
        Ok(self.read(at, length)?.as_slice().to_vec())
    }
}

/// What a process that is gone has in flight still holds the device.
fn open_exclusively(path: &Path) -> Result<File, VolumeError> {
    let since = Instant::now();
    loop {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT | libc::O_EXCL)
            .open(path);
        match opened {
            Ok(file) => return Ok(file),
            Err(error) if error.raw_os_error() != Some(libc::EBUSY) => {
                return Err(during("open", path)(error));
            }
            Err(_) if since.elapsed() > OPEN_PATIENCE => {
                let path = path.to_owned();
                return Err(VolumeError::DeviceInUse { path });
            }
            Err(_) => thread::sleep(OPEN_RETRY_DELAY),
        }
    }
}

/// Memory at an address that direct I/O takes.
struct Aligned {
    bytes: Vec<u8>,
    from: usize,
    length: usize,
}

impl Aligned {
    fn zeroed(length: usize) -> Aligned {
        let bytes = vec![0; length + DISK_ALIGN_BYTES];
        let from = bytes.as_ptr().align_offset(DISK_ALIGN_BYTES);
        Aligned { bytes, from, length }
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[self.from..self.from + self.length]
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.from..self.from + self.length]
    }
}
