//! Volumes that no daemon runs on, to be looked at: what their superblocks say, and the bytes of their segments.
//!
//! Blocking calls, for tools. Invariant: nothing of a volume is written but a lock's pid, and while a [`StoppedSet`] is
//! there no daemon can start on it. What is damaged is given as such, not refused: whoever looks wants to see it. What
//! cannot be a whole set is refused, as a start would: one volume of several tells nothing for certain.

use super::device::Device;
use super::directory::{
    Directory, LOCK_NAME, SUPERBLOCK_NAME, lock, pid_in, segment_file_name, segment_of_file_name,
};
use super::error::{VolumeError, during};
use super::members::{Found, Verdict, judge};
use super::superblock::{self, COPY_BYTES, CopyError, Id, Superblock};
use super::{check_are_apart, is_device};
use crate::io::{SEGMENTS_PER_VOLUME, SegmentId, VolumeShape};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// All volumes of a set.
pub struct StoppedSet {
    /// In order of their index.
    volumes: Vec<StoppedVolume>,
}

/// A volume that is looked at.
pub struct StoppedVolume {
    path: PathBuf,
    index: usize,
    /// The superblock's copies: `None` for one that is damaged.
    copies: [Option<Superblock>; 2],
    segments: Vec<SegmentId>,
    source: Source,
}

enum Source {
    Directory { _lock: Option<File> },
    Device { device: Device, segment_bytes: u32 },
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
    /// Where it begins in the file.
    begins_at: u64,
    /// Its bytes end before its size.
    pub length_bytes: u64,
}

/// A place that was given, and what it says that it is.
struct Place {
    volume: StoppedVolume,
    /// From the copy that counts.
    superblock: Option<Superblock>,
}

impl StoppedSet {
    /// Takes the locks of the volumes at `paths`, shared with other lookers where a directory cannot be written, and sorts
    /// them into their sets, in the order in which they are given.
    ///
    /// # Errors
    /// `InUse` and `DeviceInUse` while a daemon runs, `NoVolume` and `NotFormatted` where there is none, `Partial` unless
    /// all volumes of a set are given, what refuses a set at a start, `Damaged` for a device on its own without a
    /// superblock, and what the system says.
    pub fn open(paths: &[PathBuf]) -> Result<Vec<StoppedSet>, VolumeError> {
        check_are_apart(paths)?;
        let mut sets: Vec<Vec<Place>> = Vec::new();
        let mut unknown = Vec::new();
        for path in paths {
            let place = Place::look(path)?;
            let Some(id) = place.set() else {
                unknown.push(place.volume);
                continue;
            };
            match sets.iter_mut().find(|set| set[0].set() == Some(id)) {
                Some(set) => set.push(place),
                None => sets.push(vec![place]),
            }
        }
        let mut gathered = sets
            .into_iter()
            .map(Gathered::of)
            .collect::<Result<Vec<_>, _>>()?;
        for volume in unknown {
            let path = volume.path.clone();
            let mut lacking = gathered.iter_mut().filter(|set| set.lacks(&volume));
            match (lacking.next(), lacking.next()) {
                (Some(set), None) => set.take(volume),
                (None, _) => gathered.push(Gathered::alone(volume)?),
                // Nothing says to which.
                (Some(_), Some(_)) => return Err(VolumeError::Damaged { path }),
            }
        }
        gathered.into_iter().map(Gathered::whole).collect()
    }

    /// The volumes in order of their index.
    pub fn volumes(&self) -> &[StoppedVolume] {
        &self.volumes
    }

    /// The segments that are there, in order.
    pub fn segments(&self) -> impl Iterator<Item = SegmentId> {
        self.volumes
            .iter()
            .flat_map(|volume| volume.segments.iter().copied())
    }

    /// Opens a segment, past the page cache where the file system can.
    ///
    /// # Errors
    /// What the system says.
    pub fn segment(&self, id: SegmentId) -> io::Result<StoppedSegment> {
        let volume = self.volumes.get(id.volume());
        volume.ok_or(ErrorKind::NotFound)?.segment(id)
    }
}

/// Places of one set.
struct Gathered {
    /// By index; `None`: not given.
    volumes: Vec<Option<StoppedVolume>>,
    shape: Option<VolumeShape>,
    first: PathBuf,
}

impl Gathered {
    fn of(places: Vec<Place>) -> Result<Gathered, VolumeError> {
        let found: Vec<(&Path, Found<'_>)> = places
            .iter()
            .filter_map(|place| Some((&*place.volume.path, Found::Volume(place.superblock.as_ref()?))))
            .collect();
        let members = match judge(&found)? {
            Verdict::Set { members, .. } => members,
            // Its making was cut off; what is there was never started.
            Verdict::New => Vec::new(),
        };
        let first = places[0].volume.path.clone();
        let mut gathered = Gathered {
            volumes: members.iter().map(|_| None).collect(),
            shape: None,
            first,
        };
        for Place {
            mut volume,
            superblock,
        } in places
        {
            let Some(superblock) = superblock else { continue };
            let index = members.iter().position(|member| *member == superblock.volume);
            let index = index.unwrap_or(superblock.index());
            gathered.shape = Some(superblock.shape);
            volume.settle(
                index,
                superblock.segments_known,
                superblock.shape.segment_size_bytes,
            );
            if gathered.volumes.len() <= index {
                gathered.volumes.resize_with(index + 1, || None);
            }
            gathered.volumes[index] = Some(volume);
        }
        Ok(gathered)
    }

    /// A directory whose superblock is lost: the numbers of its segments are all that tells of other volumes.
    fn alone(mut volume: StoppedVolume) -> Result<Gathered, VolumeError> {
        let first = volume.path.clone();
        if matches!(volume.source, Source::Device { .. }) {
            return Err(VolumeError::Damaged { path: first });
        }
        let index = volume.index_told().unwrap_or(0);
        volume.settle(index, 0, 0);
        let mut volumes: Vec<Option<StoppedVolume>> = (0..index).map(|_| None).collect();
        volumes.push(Some(volume));
        Ok(Gathered {
            volumes,
            shape: None,
            first,
        })
    }

    /// Whether a volume without a superblock may be the one that is missing.
    fn lacks(&self, volume: &StoppedVolume) -> bool {
        match volume.index_told() {
            // Directories that have all lost theirs are one set.
            Some(index) => (self.volumes.get(index)).map_or(self.shape.is_none(), Option::is_none),
            None => {
                self.shape.is_some() && self.volumes.iter().filter(|volume| volume.is_none()).count() == 1
            }
        }
    }

    fn take(&mut self, mut volume: StoppedVolume) {
        let missing = self.volumes.iter().position(Option::is_none);
        let Some(index) = volume.index_told().or(missing) else {
            return;
        };
        // All that there is room for: those that were never made are zero.
        let segment_bytes = self.shape.map_or(0, |shape| shape.segment_size_bytes);
        volume.settle(index, SEGMENTS_PER_VOLUME, segment_bytes);
        if self.volumes.len() <= index {
            self.volumes.resize_with(index + 1, || None);
        }
        self.volumes[index] = Some(volume);
    }

    fn whole(self) -> Result<StoppedSet, VolumeError> {
        let members = self.volumes.len();
        let absent = self
            .volumes
            .iter()
            .enumerate()
            .filter(|(_, volume)| volume.is_none());
        let missing: Vec<usize> = absent.map(|(index, _)| index + 1).collect();
        match missing.is_empty() {
            true => Ok(StoppedSet {
                volumes: self.volumes.into_iter().flatten().collect(),
            }),
            false => Err(VolumeError::Partial {
                path: self.first,
                missing,
                members,
            }),
        }
    }
}

impl StoppedVolume {
    /// As it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its place in the set.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The superblock's copies in order; `None` for one that is damaged or missing.
    pub fn copies(&self) -> [Option<StoredShape>; 2] {
        let stored = |copy: &Option<Superblock>| {
            copy.as_ref().map(|superblock| StoredShape {
                id: superblock.set,
                shape: superblock.shape,
                boot_epoch: superblock.boot_epoch,
                segments_known: superblock.segments_known,
            })
        };
        [stored(&self.copies[0]), stored(&self.copies[1])]
    }

    /// Where these lie in the file, or on the device.
    pub fn copies_at(&self) -> [u64; 2] {
        match &self.source {
            Source::Directory { .. } => [0, COPY_BYTES as u64],
            Source::Device { .. } => Device::COPIES_AT,
        }
    }

    /// The segments that are there, in order.
    pub fn segments(&self) -> &[SegmentId] {
        &self.segments
    }

    fn index_told(&self) -> Option<usize> {
        self.segments.first().map(|first| first.volume())
    }

    /// Its place is known, and with it which segments are its own: as a start does, others are passed over.
    fn settle(&mut self, index: usize, made: u32, segment_bytes: u32) {
        self.index = index;
        if let Source::Device {
            device,
            segment_bytes: size,
        } = &mut self.source
        {
            *size = segment_bytes;
            let room = (device.room_bytes() / u64::from(segment_bytes.max(1))).min(u64::from(made)) as u32;
            self.segments = (0..room).map(|place| SegmentId::new(index, place)).collect();
        }
        self.segments.retain(|id| id.volume() == index);
    }

    fn segment(&self, id: SegmentId) -> io::Result<StoppedSegment> {
        let size = match &self.source {
            Source::Directory { .. } => return segment_in(&self.path, id),
            Source::Device { segment_bytes, .. } => *segment_bytes,
        };
        let Source::Device { device, .. } = &self.source else {
            unreachable!("a directory was looked at above")
        };
        Ok(StoppedSegment {
            file: device.file().try_clone()?,
            begins_at: Device::offset_of(id.place(), size),
            length_bytes: u64::from(size),
        })
    }
}

impl Place {
    fn look(path: &Path) -> Result<Place, VolumeError> {
        let (copies, segments, source) = match is_device(path)? {
            true => look_at_device(path)?,
            false => look_at_directory(path)?,
        };
        let counts = copies.iter().flatten().max_by_key(|superblock| superblock.writes);
        Ok(Place {
            superblock: counts.cloned(),
            volume: StoppedVolume {
                path: path.to_owned(),
                index: 0,
                copies,
                segments,
                source,
            },
        })
    }

    fn set(&self) -> Option<Id> {
        self.superblock.as_ref().map(|superblock| superblock.set)
    }
}

type Looked = ([Option<Superblock>; 2], Vec<SegmentId>, Source);

fn look_at_device(path: &Path) -> Result<Looked, VolumeError> {
    let device = Device::open(path)?;
    let copies = device.copies().map_err(during("read", path))?;
    if !copies.iter().any(|copy| superblock::has_magic(copy)) {
        return Err(VolumeError::NotFormatted {
            path: path.to_owned(),
        });
    }
    let source = Source::Device {
        device,
        segment_bytes: 0,
    };
    Ok((decoded(&copies, path)?, Vec::new(), source))
}

fn look_at_directory(dir: &Path) -> Result<Looked, VolumeError> {
    let path = dir.join(SUPERBLOCK_NAME);
    if !path.exists() && !segments_dir(dir).is_dir() {
        return Err(VolumeError::NoVolume { dir: dir.to_owned() });
    }
    let lock = lock_to_look(dir)?;
    let mut bytes = Vec::new();
    match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        opened => {
            let file = opened.map_err(during("open", &path))?;
            let read = file.take(2 * COPY_BYTES as u64).read_to_end(&mut bytes);
            read.map_err(during("read", &path))?;
        }
    }
    let (whole, _) = bytes.as_chunks::<COPY_BYTES>();
    let mut segments = list_segments(&segments_dir(dir))?;
    segments.sort_unstable();
    Ok((
        decoded(whole, &path)?,
        segments,
        Source::Directory { _lock: lock },
    ))
}

fn decoded(copies: &[[u8; COPY_BYTES]], path: &Path) -> Result<[Option<Superblock>; 2], VolumeError> {
    let mut decoded = [None, None];
    for (decoded, bytes) in decoded.iter_mut().zip(copies) {
        *decoded = match Superblock::decode(bytes) {
            Ok(superblock) => Some(superblock),
            Err(CopyError::Damaged) => None,
            Err(CopyError::NewerVersion(version)) => {
                let path = path.to_owned();
                return Err(VolumeError::NewerVersion { path, version });
            }
        };
    }
    Ok(decoded)
}

fn segment_in(dir: &Path, id: SegmentId) -> io::Result<StoppedSegment> {
    let path = segments_dir(dir).join(segment_file_name(id));
    let direct = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path);
    let file = match direct {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => File::open(&path)?,
        opened => opened?,
    };
    let length_bytes = file.metadata()?.len();
    Ok(StoppedSegment {
        file,
        begins_at: 0,
        length_bytes,
    })
}

impl StoppedSegment {
    /// Fills `into`, which is aligned to 4096 bytes in memory, place and length.
    ///
    /// # Errors
    /// What the system says; `UnexpectedEof` behind the segment's end.
    pub fn read(&self, offset: u32, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, self.begins_at + u64::from(offset))
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
