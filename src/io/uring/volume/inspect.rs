//! A look at a volume that may be in use: its superblock, and the headers of its segments. Nothing is locked or changed.

use super::device::Device;
use super::directory::Directory;
use super::error::{VolumeError, during};
use super::is_device;
use super::superblock::Superblock;
use crate::io::{DISK_ALIGN_BYTES, SegmentId, VolumeShape};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A volume as it lies there.
pub struct Inspected {
    pub path: PathBuf,
    pub is_device: bool,
    /// This volume's; one that no later release has started yet has none.
    pub id: Option<[u8; 16]>,
    /// Of its set; every segment's header repeats it. Told to nobody.
    pub set: [u8; 16],
    /// Its place in the set, and how many there are.
    pub index: usize,
    pub members: usize,
    pub shape: VolumeShape,
    pub boot_epoch: u32,
    /// Segments that are there, ascending.
    pub segments: Vec<SegmentId>,
    /// Segments that were made and are not there.
    pub segments_missing: u64,
    source: Source,
}

enum Source {
    Directory(Directory),
    Device(Device),
}

/// Looks at the volume at `path`.
pub fn inspect(path: &Path) -> Result<Inspected, VolumeError> {
    let (source, superblock) = match is_device(path)? {
        true => {
            let device = Device::peek(path)?;
            let superblock = device.read_superblock()?;
            let superblock = superblock.ok_or_else(|| VolumeError::NotFormatted {
                path: path.to_owned(),
            })?;
            (Source::Device(device), superblock)
        }
        false => {
            let directory = Directory::at(path);
            let superblock = directory.read_superblock()?;
            (Source::Directory(directory), superblock)
        }
    };
    let index = superblock.index();
    let mut segments = match &source {
        Source::Directory(directory) => directory.list().map_err(during("list", path))?,
        Source::Device(_) => made(index, &superblock).collect(),
    };
    segments.retain(|id| id.volume() == index);
    segments.sort();
    Ok(Inspected {
        path: path.to_owned(),
        is_device: matches!(source, Source::Device(_)),
        id: (!superblock.is_old).then_some(superblock.volume),
        set: superblock.set,
        index,
        members: superblock.members.len(),
        shape: superblock.shape,
        boot_epoch: superblock.boot_epoch,
        segments_missing: made(index, &superblock)
            .filter(|id| segments.binary_search(id).is_err())
            .count() as u64,
        segments,
        source,
    })
}

fn made(index: usize, superblock: &Superblock) -> impl Iterator<Item = SegmentId> {
    (0..superblock.segments_known).map(move |place| SegmentId::new(index, place))
}

impl Inspected {
    /// The first bytes of a segment: where its header is.
    pub fn header(&self, id: SegmentId) -> io::Result<Vec<u8>> {
        match &self.source {
            Source::Directory(directory) => {
                let mut bytes = vec![0; DISK_ALIGN_BYTES];
                File::open(directory.segment_path(id))?.read_exact_at(&mut bytes, 0)?;
                Ok(bytes)
            }
            Source::Device(device) => {
                let offset = Device::offset_of(id.place(), self.shape.segment_size_bytes);
                device.read_at(offset, DISK_ALIGN_BYTES)
            }
        }
    }
}
