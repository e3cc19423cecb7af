//! The volumes of a daemon: directories and block devices that form one set.
//!
//! Opened with plain blocking calls before any core starts, so that everything that can be wrong with them is one line
//! on the terminal. [`directory`] and [`device`] are the two kinds, [`superblock`] says what each of them holds,
//! [`members`] judges whether what was given is a set, [`memo`] is a page for the daemon, [`probe`] what else is on a device.
//!
//! A segment's number says on which volume it lies: the volume's place in the set is in its upper 8 bits.
//!
//! Invariant: a [`VolumeSet`] that exists holds the locks of its volumes, and unless it is read-only its boot epoch is on
//! stable storage on all of them, and higher than that of any run before. What a superblock does not allow is
//! left as it is.

mod device;
mod directory;
mod error;
mod inspect;
mod members;
mod memo;
mod probe;
mod stopped;
mod superblock;
#[cfg(test)]
mod tests;

pub use error::VolumeError;
pub use inspect::{Inspected, inspect};
pub use memo::{MEMO_BYTES, Memo};
pub use stopped::{StoppedSegment, StoppedSet, StoppedVolume, StoredShape};

use crate::io::{SEGMENTS_PER_VOLUME, SegmentId, VolumeShape, VolumeState};
use crate::limits::{BOOT_EPOCH_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use device::Device;
use directory::Directory;
use error::during;
use members::{Found, Verdict, judge};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use superblock::{Id, Superblock};

/// Bytes of the smallest volume.
pub const CAPACITY_BYTES_MIN: u64 = 256 << 20;
/// A volume has about this many segments, until they reach their largest size.
const SEGMENTS_AIM: u64 = 256;
/// A volume has at least so many, whatever size was asked for.
const SEGMENTS_MIN: u64 = 64;

/// The volumes that this process has to itself.
#[derive(Debug)]
pub struct VolumeSet {
    /// In order of their index; `None` is missing.
    members: Vec<Option<Volume>>,
    states: Vec<VolumeState>,
    id: Id,
    segment_size_bytes: u32,
    boot_epoch: u32,
    /// Why places that were given are passed over.
    passed_over: Vec<VolumeError>,
}

/// A volume that is there.
#[derive(Debug)]
pub struct Volume {
    path: PathBuf,
    store: Store,
    superblock: Mutex<Superblock>,
    lacking_bytes: u64,
}

#[derive(Debug)]
enum Store {
    Directory(Directory),
    Device(Device),
}

/// Where a segment's bytes are.
pub(super) enum Home<'a> {
    /// A file of its own.
    File(PathBuf),
    /// From this byte on of the device that is open.
    Stretch { device: &'a File, offset: u64 },
}

/// Whether a segment was there.
pub(super) enum Made {
    Before,
    Now,
}

/// What a start needs of the set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// All of it.
    Whole,
    /// What is there; read-only if that is not all.
    Degraded,
}

/// What [`VolumeSet::format`] does besides.
#[derive(Clone, Copy, Default, Debug)]
pub struct FormatOptions {
    /// Of each new volume, in bytes.
    pub capacity_bytes: Option<u64>,
    /// A power of two.
    pub segment_size_bytes: Option<u32>,
    pub purpose: Formatting,
}

/// What is formatted.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Formatting {
    /// Empty places become a new set.
    #[default]
    Empty,
    /// They do whatever they hold.
    Force,
    /// The empty ones join the set that the others are.
    Join,
}

/// A place that was given, and what it holds. Nothing in it was changed.
struct Place {
    path: PathBuf,
    store: Store,
    superblock: Option<Superblock>,
}

impl VolumeSet {
    /// Takes the volumes at `paths` for this process, and raises their boot epoch. Empty directories, if there is
    /// nothing else, become a new set.
    ///
    /// `capacity_bytes`, of each volume, is rounded down to whole segments. Without it a new directory gets 80 % of
    /// what is free, and a volume that exists keeps what it has.
    pub fn open(
        paths: &[PathBuf],
        capacity_bytes: Option<u64>,
        access: Access,
    ) -> Result<VolumeSet, VolumeError> {
        check_capacity(capacity_bytes)?;
        check_are_apart(paths)?;
        let (mut places, mut passed_over) = (Vec::new(), Vec::new());
        for path in paths {
            match Place::look(path).and_then(Place::formatted) {
                Ok(place) => places.push(place),
                Err(error) if access == Access::Degraded && error.is_of_one_volume() => {
                    passed_over.push(error)
                }
                Err(error) => return Err(error),
            }
        }
        if places.is_empty()
            && let Some(error) = passed_over.pop()
        {
            return Err(error);
        }
        let (members, missing, boot_epoch) = match judge_places(&places)? {
            Verdict::New if access == Access::Degraded => {
                return Err(VolumeError::Missing {
                    missing: (1..=paths.len()).collect(),
                    members: paths.len(),
                    empty: places.into_iter().map(|place| place.path).collect(),
                });
            }
            Verdict::New => {
                let options = FormatOptions {
                    capacity_bytes,
                    ..FormatOptions::default()
                };
                let made = form(places, options, None)?;
                let members = made[0].read().members.clone();
                return VolumeSet::start(made, members, 0, capacity_bytes);
            }
            verdict => {
                let given: Vec<PathBuf> = places.iter().map(|place| place.path.clone()).collect();
                match verdict.refusal(&given) {
                    Some(VolumeError::Missing { .. }) if access == Access::Degraded => {}
                    Some(refusal) => return Err(refusal),
                    None => {}
                }
                let Verdict::Set {
                    members,
                    missing,
                    boot_epoch,
                    ..
                } = verdict
                else {
                    unreachable!("a new set was made above")
                };
                (members, missing, boot_epoch)
            }
        };
        let volumes: Vec<Volume> = places.into_iter().filter_map(Place::volume).collect();
        if missing.is_empty() {
            return VolumeSet::start(volumes, members, boot_epoch, capacity_bytes);
        }
        let mut set = VolumeSet::assemble(volumes, &members, boot_epoch)?;
        set.passed_over = passed_over;
        Ok(set)
    }

    /// Raises the boot epoch of all members, and gives those that have none their id.
    fn start(
        mut volumes: Vec<Volume>,
        mut members: Vec<Id>,
        boot_epoch: u32,
        capacity_bytes: Option<u64>,
    ) -> Result<VolumeSet, VolumeError> {
        let boot_epoch = boot_epoch + 1;
        if boot_epoch > BOOT_EPOCH_MAX {
            let path = volumes[0].path.clone();
            return Err(VolumeError::EpochsExhausted { path });
        }
        if volumes.iter().any(|volume| volume.read().is_old) {
            // It had one name, which is told to nobody.
            members = vec![random_id()?];
        }
        // All that can be refused, before the first is written.
        for volume in &volumes {
            volume.prepare(&members, capacity_bytes)?;
        }
        // Those that are behind first: none ever is by more than one start.
        volumes.sort_by_key(|volume| volume.read().boot_epoch);
        for volume in &volumes {
            volume.write(|superblock| superblock.boot_epoch = boot_epoch)?;
        }
        for volume in &mut volumes {
            volume.lacking_bytes = volume.measure_lack()?;
        }
        VolumeSet::assemble(volumes, &members, boot_epoch)
    }

    fn assemble(volumes: Vec<Volume>, members: &[Id], boot_epoch: u32) -> Result<VolumeSet, VolumeError> {
        let (id, segment_size_bytes) = {
            let first = volumes[0].read();
            (first.set, first.shape.segment_size_bytes)
        };
        let mut sorted: Vec<Option<Volume>> = members.iter().map(|_| None).collect();
        for volume in volumes {
            let own = volume.read().volume;
            let index = members.iter().position(|member| *member == own);
            sorted[index.expect("it was judged to be a member")] = Some(volume);
        }
        let state = |volume: &Option<Volume>| match volume {
            None => VolumeState::Missing,
            Some(volume) => {
                let superblock = volume.read();
                VolumeState::Present {
                    segments_max: superblock.shape.segments_max,
                    segments_known: superblock.segments_known,
                }
            }
        };
        Ok(VolumeSet {
            states: sorted.iter().map(state).collect(),
            members: sorted,
            id,
            segment_size_bytes,
            boot_epoch,
            passed_over: Vec::new(),
        })
    }

    /// Makes volumes of what is at `paths`, a set of its own or more of one that is there. They are not started.
    pub fn format(paths: &[PathBuf], options: FormatOptions) -> Result<(), VolumeError> {
        check_capacity(options.capacity_bytes)?;
        check_are_apart(paths)?;
        let mut places = Vec::new();
        for path in paths {
            let place = Place::look(path).or_else(|error| match options.purpose {
                Formatting::Force if error.is_of_superblock() => Place::open(path),
                _ => Err(error),
            })?;
            place.check_may_be_formatted(options.purpose)?;
            places.push(place);
        }
        match options.purpose {
            Formatting::Empty => form(places, options, None).map(drop),
            Formatting::Force => {
                for place in &mut places {
                    place.clear()?;
                }
                form(places, options, None).map(drop)
            }
            Formatting::Join => join(places, options),
        }
    }

    /// The volumes that are there.
    pub fn volumes(&self) -> impl Iterator<Item = &Volume> {
        self.members.iter().flatten()
    }

    /// One state for each member, in order of their index.
    pub fn states(&self) -> &[VolumeState] {
        &self.states
    }

    /// Why places that were given are not among the volumes.
    pub fn passed_over(&self) -> &[VolumeError] {
        &self.passed_over
    }

    /// Members that are not there: nothing is written.
    pub fn missing(&self) -> usize {
        self.members.iter().filter(|member| member.is_none()).count()
    }

    /// The set's identity, for as long as it exists.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// The segments of all volumes that are there.
    pub fn shape(&self) -> VolumeShape {
        let segments = self.states.iter().map(|state| match state {
            VolumeState::Present { segments_max, .. } => *segments_max,
            VolumeState::Missing => 0,
        });
        VolumeShape {
            segment_size_bytes: self.segment_size_bytes,
            segments_max: segments.sum(),
        }
    }

    /// Bytes that the volumes that are there may grow to.
    pub fn capacity_bytes(&self) -> u64 {
        self.volumes().map(Volume::capacity_bytes).sum()
    }

    /// This run's epoch: higher than that of every run before, unless the set is read-only.
    pub fn boot_epoch(&self) -> u32 {
        self.boot_epoch
    }

    /// What is to be kept open until the last write has ended.
    pub(super) fn locks(&self) -> impl Iterator<Item = &File> {
        self.volumes().filter_map(|volume| match &volume.store {
            Store::Directory(directory) => directory.lock_file(),
            Store::Device(device) => Some(device.file()),
        })
    }

    /// Where segment `id` is.
    ///
    /// # Errors
    /// `NotFound` on a volume that is missing.
    pub(super) fn home(&self, id: SegmentId) -> io::Result<Home<'_>> {
        let volume = self.volume_of(id)?;
        Ok(match &volume.store {
            Store::Directory(directory) => Home::File(directory.segment_path(id)),
            Store::Device(device) => Home::Stretch {
                device: device.file(),
                offset: Device::offset_of(id.place(), self.segment_size_bytes),
            },
        })
    }

    /// The segments that exist. Blocking.
    pub(super) fn list(&self) -> io::Result<Vec<SegmentId>> {
        let mut segments = Vec::new();
        for (index, volume) in self.members.iter().enumerate() {
            let Some(volume) = volume else { continue };
            segments.extend(volume.list(index)?);
        }
        Ok(segments)
    }

    /// Makes segment `id`, at its full size. Blocking. A file made now holds no zeroes yet.
    pub(super) fn make(&self, id: SegmentId) -> io::Result<Made> {
        let volume = self.volume_of(id)?;
        match &volume.store {
            Store::Directory(directory) => directory.make(id, self.segment_size_bytes),
            Store::Device(device) => match device.make(id.place(), &volume.superblock)? {
                // It is written all over, and its blocks have their place.
                Made::Before | Made::Now => Ok(Made::Before),
            },
        }
    }

    fn volume_of(&self, id: SegmentId) -> io::Result<&Volume> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "its volume is missing");
        self.members
            .get(id.volume())
            .and_then(Option::as_ref)
            .ok_or_else(missing)
    }
}

impl Volume {
    /// As it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that the volume may grow to.
    pub fn capacity_bytes(&self) -> u64 {
        let shape = self.read().shape;
        u64::from(shape.segments_max) * u64::from(shape.segment_size_bytes)
    }

    /// Bytes of the capacity that the file system had no room for when the volume was opened.
    pub fn lacking_bytes(&self) -> u64 {
        self.lacking_bytes
    }

    fn read(&self) -> std::sync::MutexGuard<'_, Superblock> {
        self.superblock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees what the superblock of this start will say, but for its epoch.
    fn prepare(&self, members: &[Id], capacity_bytes: Option<u64>) -> Result<(), VolumeError> {
        let mut superblock = self.read();
        if superblock.is_old {
            superblock.volume = members[0];
            superblock.is_old = false;
        }
        superblock.members = members.to_vec();
        if let Store::Directory(directory) = &self.store {
            let files = directory.sweep(superblock.index())?;
            let made = files.highest.map_or(0, |highest| highest.place() + 1);
            superblock.segments_known = superblock.segments_known.max(made);
        }
        let shape = superblock.shape;
        if let Store::Device(device) = &self.store {
            // It may be another device, with a copy of what was on a larger one.
            let has_bytes = u64::from(shape.segments_max) * u64::from(shape.segment_size_bytes);
            device.capacity_bytes(Some(capacity_bytes.unwrap_or(has_bytes)))?;
        }
        let Some(capacity_bytes) = capacity_bytes else {
            return Ok(());
        };
        let size_bytes = shape.segment_size_bytes;
        let segments_max = segments_in(capacity_bytes, size_bytes);
        if superblock.segments_known > segments_max {
            return Err(VolumeError::CapacityBelowUse {
                capacity_bytes,
                used_bytes: u64::from(superblock.segments_known) * u64::from(size_bytes),
            });
        }
        superblock.shape.segments_max = segments_max.max(1);
        Ok(())
    }

    /// Changes the superblock, on stable storage.
    fn write(&self, change: impl FnOnce(&mut Superblock)) -> Result<(), VolumeError> {
        let mut superblock = self.read();
        change(&mut superblock);
        superblock.writes += 1;
        self.store.write_superblock(&superblock)
    }

    fn measure_lack(&self) -> Result<u64, VolumeError> {
        let Store::Directory(directory) = &self.store else {
            return Ok(0);
        };
        let superblock = self.read();
        let there = directory.sweep(superblock.index())?.count;
        let to_make = u64::from(superblock.shape.segments_max).saturating_sub(there);
        let bytes_to_take = to_make * u64::from(superblock.shape.segment_size_bytes);
        Ok(bytes_to_take.saturating_sub(directory.free_bytes()?))
    }

    fn list(&self, index: usize) -> io::Result<Vec<SegmentId>> {
        match &self.store {
            Store::Directory(directory) => {
                let mut segments = directory.list()?;
                segments.retain(|id| id.volume() == index);
                Ok(segments)
            }
            Store::Device(_) => {
                let made = self.read().segments_known;
                Ok((0..made).map(|place| SegmentId::new(index, place)).collect())
            }
        }
    }
}

impl Store {
    fn write_superblock(&self, superblock: &Superblock) -> Result<(), VolumeError> {
        match self {
            Store::Directory(directory) => directory.write_superblock(superblock),
            Store::Device(device) => device.write_superblock(superblock),
        }
    }
}

impl Place {
    /// What is at `path`, which need not be there yet.
    fn look(path: &Path) -> Result<Place, VolumeError> {
        if !is_device(path)? {
            let (directory, superblock) = Directory::look(path)?;
            return Ok(Place {
                path: path.to_owned(),
                store: Store::Directory(directory),
                superblock,
            });
        }
        let device = Device::open(path)?;
        let superblock = device.read_superblock()?;
        Ok(Place {
            path: path.to_owned(),
            store: Store::Device(device),
            superblock,
        })
    }

    /// As [`Place::look`], whatever its superblock says.
    fn open(path: &Path) -> Result<Place, VolumeError> {
        let store = match is_device(path)? {
            true => Store::Device(Device::open(path)?),
            false => Store::Directory(Directory::of_a_volume(path)?),
        };
        Ok(Place {
            path: path.to_owned(),
            store,
            superblock: None,
        })
    }

    /// A device is only used once it was formatted.
    fn formatted(self) -> Result<Place, VolumeError> {
        match (&self.store, &self.superblock) {
            (Store::Device(_), None) => Err(VolumeError::NotFormatted { path: self.path }),
            _ => Ok(self),
        }
    }

    fn volume(self) -> Option<Volume> {
        Some(Volume {
            path: self.path,
            store: self.store,
            superblock: Mutex::new(self.superblock?),
            lacking_bytes: 0,
        })
    }

    fn check_may_be_formatted(&self, purpose: Formatting) -> Result<(), VolumeError> {
        let occupied = |what: String| VolumeError::Occupied {
            path: self.path.clone(),
            what,
        };
        match purpose {
            Formatting::Force => return Ok(()),
            Formatting::Join if self.superblock.is_some() => return Ok(()),
            Formatting::Empty | Formatting::Join => {}
        }
        if let Some(superblock) = &self.superblock {
            return Err(occupied(format!(
                "a weft volume of {} starts",
                superblock.boot_epoch
            )));
        }
        match &self.store {
            Store::Directory(_) => Ok(()),
            Store::Device(device) => device.occupant()?.map_or(Ok(()), |what| Err(occupied(what))),
        }
    }

    fn clear(&mut self) -> Result<(), VolumeError> {
        self.superblock = None;
        match &mut self.store {
            Store::Directory(directory) => {
                directory.take()?;
                directory.clear()
            }
            Store::Device(device) => device.clear(),
        }
    }

    /// What a new volume here may hold; so many directories share a file system.
    fn capacity_bytes(&self, given: Option<u64>, sharers: u64) -> Result<u64, VolumeError> {
        match (&self.store, given) {
            (Store::Device(device), _) => device.capacity_bytes(given),
            (Store::Directory(_), Some(given)) => Ok(given),
            (Store::Directory(directory), None) => directory.default_capacity_bytes(sharers),
        }
    }
}

fn judge_places(places: &[Place]) -> Result<Verdict, VolumeError> {
    let found = places.iter().map(|place| {
        let found = place.superblock.as_ref().map_or(Found::Empty, Found::Volume);
        (place.path.as_path(), found)
    });
    judge(&found.collect::<Vec<_>>())
}

/// The set that new volumes become part of.
struct Existing {
    set: Id,
    segment_size_bytes: u32,
    boot_epoch: u32,
    members: Vec<Id>,
}

/// Makes a new volume of each place, whatever superblock it had. They know of each other, and of those that exist.
fn form(
    mut places: Vec<Place>,
    options: FormatOptions,
    existing: Option<Existing>,
) -> Result<Vec<Volume>, VolumeError> {
    let mut capacities = Vec::new();
    for place in &mut places {
        if let Store::Directory(directory) = &mut place.store {
            directory.take()?;
        }
    }
    for place in &places {
        let sharers = places
            .iter()
            .filter(|other| file_system(other) == file_system(place));
        capacities.push(place.capacity_bytes(options.capacity_bytes, sharers.count() as u64)?);
    }
    let smallest = capacities.iter().copied().min().unwrap_or(0);
    let existing = match existing {
        Some(existing) => existing,
        None => Existing {
            set: random_id()?,
            segment_size_bytes: segment_size(options.segment_size_bytes, smallest)?,
            boot_epoch: 0,
            members: Vec::new(),
        },
    };
    let mut members = existing.members;
    let first = members.len();
    for _ in &places {
        members.push(random_id()?);
    }
    let mut volumes = Vec::new();
    for ((place, capacity_bytes), &own) in places.into_iter().zip(capacities).zip(&members[first..]) {
        let superblock = Superblock {
            set: existing.set,
            volume: own,
            members: members.clone(),
            shape: VolumeShape {
                segment_size_bytes: existing.segment_size_bytes,
                segments_max: segments_in(capacity_bytes, existing.segment_size_bytes).max(1),
            },
            boot_epoch: existing.boot_epoch,
            segments_known: 0,
            writes: 0,
            is_old: false,
        };
        let made = Place {
            superblock: Some(superblock),
            ..place
        };
        volumes.extend(made.volume());
    }
    for volume in &volumes {
        volume.write(|_| ())?;
    }
    Ok(volumes)
}

/// Makes the empty places members of the set that the others are.
fn join(places: Vec<Place>, options: FormatOptions) -> Result<(), VolumeError> {
    let paths: Vec<PathBuf> = places.iter().map(|place| place.path.clone()).collect();
    let verdict = judge_places(&places)?;
    match verdict.refusal(&paths) {
        Some(VolumeError::NotAMember { .. }) | None => {}
        Some(refusal) => return Err(refusal),
    }
    let Verdict::Set {
        members, boot_epoch, ..
    } = verdict
    else {
        return form(places, options, None).map(drop);
    };
    let (volumes, new): (Vec<Place>, Vec<Place>) =
        places.into_iter().partition(|place| place.superblock.is_some());
    let volumes: Vec<Volume> = volumes.into_iter().filter_map(Place::volume).collect();
    let members = match volumes.iter().any(|volume| volume.read().is_old) {
        true => vec![random_id()?],
        false => members,
    };
    let (set, segment_size_bytes) = {
        let first = volumes[0].read();
        (first.set, first.shape.segment_size_bytes)
    };
    // The new ones first: one that the others do not know of yet may be left out or given, as before.
    let existing = Existing {
        set,
        segment_size_bytes,
        boot_epoch,
        members: members.clone(),
    };
    let made = form(new, options, Some(existing))?;
    let Some(first) = made.first() else {
        return Ok(());
    };
    let all = first.read().members.clone();
    for volume in &volumes {
        volume.write(|superblock| {
            if superblock.is_old {
                superblock.volume = members[0];
                superblock.is_old = false;
            }
            superblock.members = all.clone();
        })?;
    }
    Ok(())
}

fn file_system(place: &Place) -> Option<u64> {
    match place.store {
        Store::Directory(_) => fs::metadata(&place.path).ok().map(|metadata| metadata.dev()),
        Store::Device(_) => None,
    }
}

/// Whether there is a block device at `path`, and not a directory or nothing.
fn is_device(path: &Path) -> Result<bool, VolumeError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.file_type().is_block_device() => Ok(true),
        Ok(metadata) if metadata.is_dir() => Ok(false),
        Ok(_) => Err(VolumeError::NotAVolume {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(during("look at", path)(error)),
    }
}

/// Refuses a place that is given twice, by whatever names.
fn check_are_apart(paths: &[PathBuf]) -> Result<(), VolumeError> {
    let place = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        match metadata.file_type().is_block_device() {
            true => Some((metadata.rdev(), 0)),
            false => Some((metadata.dev(), metadata.ino())),
        }
    };
    let names: Vec<_> = paths
        .iter()
        .map(|path| (path, place(path), std::path::absolute(path).ok()))
        .collect();
    for (at, (second, place, absolute)) in names.iter().enumerate() {
        let is_same = |(_, other, name): &&(_, Option<_>, Option<PathBuf>)| {
            place.is_some() && place == other || absolute.is_some() && absolute == name
        };
        if let Some((first, ..)) = names[..at].iter().find(is_same) {
            return Err(VolumeError::Doubled {
                first: first.to_path_buf(),
                second: second.to_path_buf(),
            });
        }
    }
    Ok(())
}

fn check_capacity(capacity_bytes: Option<u64>) -> Result<(), VolumeError> {
    match capacity_bytes.filter(|&bytes| bytes < CAPACITY_BYTES_MIN) {
        Some(capacity_bytes) => Err(VolumeError::CapacityTooSmall { capacity_bytes }),
        None => Ok(()),
    }
}

fn random_id() -> Result<Id, VolumeError> {
    let mut id = [0; 16];
    let random = Path::new("/dev/urandom");
    File::open(random)
        .and_then(|mut file| file.read_exact(&mut id))
        .map_err(during("read", random))?;
    Ok(id)
}

/// The size that was asked for, or the one that suits the capacity.
fn segment_size(given: Option<u32>, capacity_bytes: u64) -> Result<u32, VolumeError> {
    let Some(segment_size_bytes) = given else {
        return Ok(segment_size_for(capacity_bytes));
    };
    let segments = capacity_bytes / u64::from(segment_size_bytes.max(1));
    let suits = segment_size_bytes.is_power_of_two()
        && (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_size_bytes)
        && (SEGMENTS_MIN..=u64::from(SEGMENTS_PER_VOLUME)).contains(&segments);
    match suits {
        true => Ok(segment_size_bytes),
        false => Err(VolumeError::SegmentSize { segment_size_bytes }),
    }
}

/// The largest power of two that gives the capacity 256 segments, within what a segment may be.
fn segment_size_for(capacity_bytes: u64) -> u32 {
    let aim = capacity_bytes / SEGMENTS_AIM;
    let power = if aim == 0 { 0 } else { 1u64 << aim.ilog2() };
    power.clamp(u64::from(SEGMENT_BYTES_MIN), u64::from(SEGMENT_BYTES_MAX)) as u32
}

fn segments_in(capacity_bytes: u64, segment_size_bytes: u32) -> u32 {
    (capacity_bytes / u64::from(segment_size_bytes)).min(u64::from(SEGMENTS_PER_VOLUME)) as u32
}

/// The runtime polls for completions on a device that has polling queues and is not rotational, and
/// offers no way to say no.
fn check_is_not_polled(path: &Path, dev: u64) -> Result<(), VolumeError> {
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
            path: path.to_owned(),
            device,
        });
    }
    Ok(())
}
