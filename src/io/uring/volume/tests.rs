use super::*;
use crate::io::uring::scratch::Scratch;

const MIB: u64 = 1 << 20;

/// The volume in one directory.
fn open(dir: &Path, capacity_bytes: Option<u64>) -> Result<VolumeSet, VolumeError> {
    open_all(&[dir.to_owned()], capacity_bytes)
}

fn open_all(paths: &[PathBuf], capacity_bytes: Option<u64>) -> Result<VolumeSet, VolumeError> {
    VolumeSet::open(paths, capacity_bytes, Access::Whole)
}

fn degraded(paths: &[PathBuf]) -> Result<VolumeSet, VolumeError> {
    VolumeSet::open(paths, None, Access::Degraded)
}

fn refusal<T>(result: Result<T, VolumeError>) -> String {
    result.map(drop).expect_err("a refusal").to_string()
}

fn segments(dir: &Path) -> PathBuf {
    dir.join("segments")
}

fn known(set: &VolumeSet) -> u32 {
    match set.states()[0] {
        VolumeState::Present { segments_known, .. } => segments_known,
        VolumeState::Missing => unreachable!("it is there"),
    }
}

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
fn a_segment_size_that_is_given_suits_the_capacity_or_is_refused() {
    assert_eq!(segment_size(Some(4 << 20), 256 * MIB).unwrap(), 4 << 20);
    for (given, capacity_bytes) in [
        (3 << 20, 1 << 40),
        (8 << 20, 256 * MIB),
        (1 << 19, 1 << 30),
        (0, 1 << 30),
    ] {
        assert!(segment_size(Some(given), capacity_bytes).is_err(), "{given}");
    }
}

#[test]
fn epoch_rises_and_identity_stays() {
    let scratch = Scratch::new();
    let first = open(scratch.dir(), Some(256 * MIB)).unwrap();
    let (id, shape) = (first.id(), first.shape());
    assert_eq!(first.boot_epoch(), 1);
    assert_eq!((shape.segment_size_bytes, shape.segments_max), (1 << 20, 256));
    drop(first);
    let second = open(scratch.dir(), None).unwrap();
    assert_eq!((second.boot_epoch(), second.id(), second.shape()), (2, id, shape));
}

#[test]
fn how_many_segments_there_were_is_known_when_the_last_is_gone() {
    let scratch = Scratch::new();
    drop(open(scratch.dir(), Some(256 * MIB)).unwrap());
    for name in ["00000000.seg", "00000001.seg"] {
        File::create(segments(scratch.dir()).join(name)).unwrap();
    }
    assert_eq!(known(&open(scratch.dir(), None).unwrap()), 2);
    fs::remove_file(segments(scratch.dir()).join("00000001.seg")).unwrap();
    for _ in 0..2 {
        assert_eq!(known(&open(scratch.dir(), None).unwrap()), 2);
    }
}

#[test]
fn second_open_is_refused() {
    let scratch = Scratch::new();
    let _first = open(scratch.dir(), Some(256 * MIB)).unwrap();
    let refused = open(scratch.dir(), None).unwrap_err();
    assert!(matches!(refused, VolumeError::InUse { pid: Some(pid), .. } if pid == std::process::id()));
    assert!(refused.to_string().contains(scratch.dir().to_str().unwrap()));
}

#[test]
fn capacity_grows_keeps_segment_size_and_never_drops_a_segment() {
    let scratch = Scratch::new();
    drop(open(scratch.dir(), Some(512 * MIB)).unwrap());
    let grown = open(scratch.dir(), Some(2048 * MIB)).unwrap();
    assert_eq!(
        (grown.shape().segment_size_bytes, grown.shape().segments_max),
        (2 << 20, 1024)
    );
    drop(grown);
    File::create(segments(scratch.dir()).join("000001ff.seg")).unwrap();
    assert_eq!(
        open(scratch.dir(), Some(1024 * MIB))
            .unwrap()
            .shape()
            .segments_max,
        512
    );
    let refused = open(scratch.dir(), Some(1022 * MIB)).unwrap_err();
    assert!(matches!(refused, VolumeError::CapacityBelowUse { used_bytes, .. } if used_bytes == 1024 * MIB));
}

#[test]
fn too_small_a_capacity_is_refused_before_anything_is_made() {
    let scratch = Scratch::new();
    let dir = scratch.dir().join("volume");
    let refused = open(&dir, Some(255 * MIB)).unwrap_err();
    assert!(matches!(refused, VolumeError::CapacityTooSmall { .. }));
    assert!(!dir.exists());
}

#[test]
fn a_directory_in_memory_is_refused_before_anything_is_made() {
    const TMPFS: i128 = 0x0102_1994;
    let memory = Path::new("/dev/shm");
    if !rustix::fs::statfs(memory).is_ok_and(|stat| i128::from(stat.f_type) == TMPFS) {
        eprintln!("/dev/shm is no tmpfs here: nothing to refuse");
        return;
    }
    let dir = memory.join(format!("weft-test-{}/deep/down", std::process::id()));
    let refused = open(&dir, Some(256 * MIB)).unwrap_err();
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
        let format = |purpose| {
            let options = FormatOptions {
                purpose,
                ..FormatOptions::default()
            };
            VolumeSet::format(std::slice::from_ref(&dir), options)
        };
        for refused in [
            open(&dir, Some(256 * MIB)).map(drop),
            format(Formatting::Empty),
            format(Formatting::Force),
        ] {
            let refused = refused.unwrap_err();
            assert!(matches!(refused, VolumeError::Foreign { .. }), "{refused}");
            assert!(refused.to_string().contains(name), "{refused}");
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing was made");
    }
    // A disk of its own, and a first start that was cut off.
    let dir = scratch.dir().join("disk");
    for made in ["lost+found", "segments"] {
        fs::create_dir_all(dir.join(made)).unwrap();
    }
    for made in ["weft.lock", "superblock.new", "direct-io.probe"] {
        File::create(dir.join(made)).unwrap();
    }
    drop(open(&dir, Some(256 * MIB)).unwrap());
    // What comes into a volume later is left alone.
    File::create(dir.join("notes.txt")).unwrap();
    drop(open(&dir, None).unwrap());
}

#[test]
fn what_the_file_system_lacks_of_the_capacity_is_known() {
    let scratch = Scratch::new();
    let lack = |set: &VolumeSet| set.volumes().map(Volume::lacking_bytes).sum::<u64>();
    let set = open(scratch.dir(), Some(256 * MIB)).unwrap();
    assert_eq!(lack(&set), 0);
    drop(set);
    let free = Directory::at(scratch.dir()).free_bytes().unwrap();
    let set = open(scratch.dir(), Some(free + (1 << 40))).unwrap();
    // Others use the disk meanwhile.
    assert!((1 << 39..1 << 41).contains(&lack(&set)));
}

#[test]
fn half_made_segments_are_swept() {
    let scratch = Scratch::new();
    drop(open(scratch.dir(), Some(256 * MIB)).unwrap());
    let half = segments(scratch.dir()).join("00000007.seg.new");
    File::create(&half).unwrap();
    drop(open(scratch.dir(), None).unwrap());
    assert!(!half.exists());
}

#[test]
fn either_copy_of_the_superblock_will_do() {
    let scratch = Scratch::new();
    let path = scratch.dir().join("superblock");
    drop(open(scratch.dir(), Some(256 * MIB)).unwrap());
    for (at, epoch) in [(20, 2), (superblock::COPY_BYTES + 20, 3)] {
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(open(scratch.dir(), None).unwrap().boot_epoch(), epoch);
    }
}

#[test]
fn damaged_and_missing_superblocks_are_refused_untouched() {
    let scratch = Scratch::new();
    let path = scratch.dir().join("superblock");
    drop(open(scratch.dir(), Some(256 * MIB)).unwrap());
    let good = fs::read(&path).unwrap();
    let mut damaged = good.clone();
    for at in [20, superblock::COPY_BYTES + 40] {
        damaged[at] ^= 1;
    }
    for bytes in [damaged, good[..100].to_vec(), Vec::new()] {
        fs::write(&path, &bytes).unwrap();
        let refused = open(scratch.dir(), None).unwrap_err();
        assert!(matches!(refused, VolumeError::Damaged { .. }), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
    fs::remove_file(&path).unwrap();
    File::create(segments(scratch.dir()).join("00000000.seg")).unwrap();
    let refused = open(scratch.dir(), None).unwrap_err();
    assert!(matches!(refused, VolumeError::SuperblockMissing { .. }));
}

#[test]
fn a_volume_of_version_1_is_opened_and_becomes_one_of_this() {
    let scratch = Scratch::new();
    let path = scratch.dir().join("superblock");
    drop(open(scratch.dir(), Some(256 * MIB)).unwrap());
    let mut copy = [0; superblock::COPY_BYTES];
    copy[..12].copy_from_slice(b"WEFTSUPR\x01\0\0\0");
    copy[12..16].copy_from_slice(&[89, 175, 4, 1]);
    copy[16..44].copy_from_slice(b"0123456789abcdef\0\0\x10\0\x2c\x01\0\0\x07\0\0\0");
    copy[44] = 9;
    fs::write(&path, [copy, copy].concat()).unwrap();
    let set = open(scratch.dir(), None).unwrap();
    assert_eq!((set.id(), set.boot_epoch()), (*b"0123456789abcdef", 8));
    assert_eq!((known(&set), set.shape().segments_max), (9, 300));
    drop(set);
    let seen = inspect(scratch.dir()).unwrap();
    assert!(
        seen.id.is_some_and(|id| id != seen.set),
        "it has a name that may be told"
    );
    assert_eq!(open(scratch.dir(), None).unwrap().boot_epoch(), 9);
}

/// Two directories that were a set once.
fn two(scratch: &Scratch) -> Vec<PathBuf> {
    let paths = ["a", "b"].map(|name| scratch.dir().join(name)).to_vec();
    drop(open_all(&paths, Some(256 * MIB)).unwrap());
    paths
}

#[test]
fn empty_directories_become_a_set_whose_segments_are_told_apart() {
    let scratch = Scratch::new();
    let paths = two(&scratch);
    // In any order: a member knows its place.
    let set = open_all(&[paths[1].clone(), paths[0].clone()], None).unwrap();
    assert_eq!(
        (set.boot_epoch(), set.shape().segments_max, set.states().len()),
        (2, 512, 2)
    );
    for id in [SegmentId::new(0, 3), SegmentId::new(1, 3)] {
        assert!(matches!(set.make(id).unwrap(), Made::Now));
        let Home::File(path) = set.home(id).unwrap() else {
            panic!("it is in a directory")
        };
        assert_eq!(path, segments(&paths[id.volume()]).join(format!("{id}.seg")));
        assert_eq!(fs::metadata(path).unwrap().len(), MIB);
    }
    let mut listed = set.list().unwrap();
    listed.sort();
    assert_eq!(listed, [SegmentId(3), SegmentId(0x0100_0003)]);
}

#[test]
fn members_that_are_missing_doubled_or_foreign_are_refused() {
    let scratch = Scratch::new();
    let paths = two(&scratch);
    let other = scratch.dir().join("other");
    drop(open(&other, Some(256 * MIB)).unwrap());
    let empty = scratch.dir().join("empty");
    for (given, words) in [
        (vec![&paths[0]], "volume 2 of the 2 of the set is missing"),
        (vec![&paths[0], &empty], "is empty: is it mounted?"),
        (vec![&paths[0], &paths[1], &other], "does not belong to the set"),
        (vec![&paths[0], &paths[0]], "are one volume"),
        (vec![&paths[0], &paths[1], &empty], "weft format --join"),
    ] {
        let given: Vec<PathBuf> = given.into_iter().cloned().collect();
        let told = refusal(open_all(&given, None));
        assert!(told.contains(words), "{told}");
        assert!(!empty.exists());
    }
    // A copy of a member.
    let copy = scratch.dir().join("copy");
    fs::create_dir_all(segments(&copy)).unwrap();
    fs::copy(paths[0].join("superblock"), copy.join("superblock")).unwrap();
    let told = refusal(open_all(&[paths.clone(), vec![copy.clone()]].concat(), None));
    assert!(told.contains("one is a copy of the other"), "{told}");
    // An old one: the set was started without it since.
    for _ in 0..2 {
        drop(open_all(&paths, None).unwrap());
    }
    let told = refusal(open_all(&[copy, paths[1].clone()], None));
    assert!(told.contains("it is an old copy"), "{told}");
    assert_eq!(open_all(&paths, None).unwrap().boot_epoch(), 4);
}

#[test]
fn a_set_without_a_member_is_read_only_and_nothing_in_it_changes() {
    let scratch = Scratch::new();
    let paths = two(&scratch);
    let before = fs::read(paths[1].join("superblock")).unwrap();
    for given in [
        vec![paths[1].clone()],
        vec![scratch.dir().join("gone"), paths[1].clone()],
    ] {
        let set = degraded(&given).unwrap();
        assert_eq!(set.states()[0], VolumeState::Missing);
        assert_eq!((set.missing(), set.boot_epoch()), (1, 1));
        assert!(set.home(SegmentId(0)).is_err() && set.make(SegmentId(0)).is_err());
        assert!(set.home(SegmentId::new(1, 0)).is_ok());
        drop(set);
        assert_eq!(fs::read(paths[1].join("superblock")).unwrap(), before);
    }
    // One whose superblock is gone is passed over, with the reason.
    fs::write(paths[0].join("superblock"), []).unwrap();
    let set = degraded(&paths).unwrap();
    assert_eq!(set.missing(), 1);
    assert!(matches!(set.passed_over(), [VolumeError::Damaged { .. }]));
    drop(set);
    let told = refusal(degraded(&[scratch.dir().join("gone")]));
    assert!(told.contains("missing"), "{told}");
    assert!(!scratch.dir().join("gone").exists());
}

#[test]
fn a_set_that_is_whole_is_started_whatever_was_allowed() {
    let scratch = Scratch::new();
    let paths = two(&scratch);
    let set = degraded(&paths).unwrap();
    assert_eq!((set.missing(), set.boot_epoch()), (0, 2));
}

#[test]
fn an_empty_volume_joins_a_set() {
    let scratch = Scratch::new();
    let mut paths = two(&scratch);
    drop(open_all(&paths, None).unwrap());
    paths.push(scratch.dir().join("c"));
    let options = FormatOptions {
        capacity_bytes: Some(512 * MIB),
        purpose: Formatting::Join,
        ..FormatOptions::default()
    };
    let told = refusal(VolumeSet::format(&paths[1..], options));
    assert!(told.contains("volume 1 of the 2 of the set is missing"), "{told}");
    VolumeSet::format(&paths, options).unwrap();
    let told = refusal(open_all(&paths[..2], None));
    assert!(told.contains("volume 3 of the 3"), "{told}");
    let set = open_all(&paths, None).unwrap();
    assert_eq!((set.boot_epoch(), set.shape().segments_max), (3, 256 + 256 + 512));
}

#[test]
fn what_is_there_is_only_formatted_by_force() {
    let scratch = Scratch::new();
    let paths = two(&scratch);
    let set = open_all(&paths, None).unwrap();
    let id = set.id();
    set.make(SegmentId(0)).unwrap();
    drop(set);
    let format = |purpose| {
        let options = FormatOptions {
            capacity_bytes: Some(256 * MIB),
            segment_size_bytes: Some(2 << 20),
            purpose,
        };
        VolumeSet::format(&paths, options)
    };
    let told = refusal(format(Formatting::Empty));
    assert!(told.contains("holds a weft volume of 2 starts"), "{told}");
    assert_eq!(open_all(&paths, None).unwrap().id(), id);
    format(Formatting::Force).unwrap();
    let set = open_all(&paths, None).unwrap();
    assert_eq!((set.boot_epoch(), set.shape().segment_size_bytes), (1, 2 << 20));
    assert!(set.id() != id && set.list().unwrap().is_empty());
    drop(set);
    // Also when nobody can say what it was.
    fs::write(paths[0].join("superblock"), b"?").unwrap();
    assert!(refusal(format(Formatting::Empty)).contains("damaged"));
    format(Formatting::Force).unwrap();
}

#[test]
fn a_file_is_no_volume() {
    let scratch = Scratch::new();
    let file = scratch.dir().join("file");
    File::create(&file).unwrap();
    assert!(refusal(open(&file, None)).contains("neither a directory nor a block device"));
}
