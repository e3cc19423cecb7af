//! Several volumes: one that fails leaves the work to the others, and one that is missing is not made up for.
//!
//! The lives of many seeds (`life`) have two or three volumes besides. What a start without a member says is judged
//! before an engine is there (`src/io/uring/volume/members.rs`); here is what an engine makes of a set without it: it
//! writes nothing (the simulated disk panics if it does), serves whole objects or none, and takes no change.

use crate::content::Content;
use crate::full::put;
use crate::workload::Engine;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use weft::engine::{BucketId, BucketWalk, KeyWalk, Message, Recovered, Refusal, Sizes};
use weft::io::sim::{Chance, DiskImage, Faults, Options, Outcome, Rng, World};
use weft::io::{CoreId, Io, SegmentId, VolumeShape};

const SEEDS: u64 = 40;
const STEPS_MAX: u64 = 50_000_000;
const SHAPE: VolumeShape = VolumeShape {
    segment_size_bytes: 1 << 20,
    segments_max: 40,
};
const BUCKET: &str = "bucket-on-two";
/// How often a write is tried while a volume fails.
const TRIES: usize = 40;

type Stored = Vec<(Vec<u8>, Content)>;
/// Keys, each with what it has held.
type Versions = Vec<(Vec<u8>, Vec<Content>)>;

fn options(cores: usize) -> Options {
    Options {
        volumes: 2,
        ..Options::new(cores, SHAPE)
    }
}

/// Stores objects of all sizes, each key once, whatever it takes.
async fn fill(engine: Engine, mut rng: Rng, count: usize) -> Stored {
    let mut bucket = engine.create_bucket(BUCKET, "").await;
    for _ in 0..TRIES {
        if matches!(bucket, Ok(_) | Err(Refusal::BucketExists)) {
            break;
        }
        engine.io().sleep(Duration::from_millis(100)).await;
        bucket = engine.create_bucket(BUCKET, "").await;
    }
    let bucket = engine.bucket(BUCKET).expect("it was made").id;
    let mut stored = Vec::new();
    for number in 0..count {
        let length = 1 + rng.below([2_000, 60_000, 700_000][number % 3]);
        let content = Content::of(rng.next_u64(), length);
        let key = format!("{number:04}").into_bytes();
        let mut taken = Err(Refusal::Busy);
        for _ in 0..TRIES {
            taken = put(&engine, bucket, &key, &content).await;
            if taken.is_ok() {
                break;
            }
            engine.io().sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(taken, Ok(()), "the other volume takes it");
        stored.push((key, content));
    }
    stored
}

fn on_volume(image: &DiskImage, volume: usize) -> usize {
    image.segments().filter(|id| id.volume() == volume).count()
}

#[test]
fn a_volume_that_fails_leaves_the_work_to_the_other() {
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let cores = rng.between(1, 3) as usize;
        let mut world = World::new(rng.next_u64(), options(cores));
        let engines = start(&mut world, cores);
        let core = engines[0].io().core();
        let before = world.run_task(core, fill(engines[0].clone(), rng.fork(), 30), STEPS_MAX);
        let before = before.expect("puts on disks without faults");
        let image = world.crash();
        let bad = rng.index(2);
        let mut failing = options(cores);
        failing.faults = Faults {
            only_volume: Some(bad),
            no_space: [Chance::NEVER, Chance::ALWAYS][rng.index(2)],
            write_error: Chance::one_in(3),
            sync_error: Chance::one_in(3),
            ..Faults::default()
        };
        // A start that cannot make the logs of the bad volume durable is refused: so it fails from then on.
        let mut world = World::restart(image, rng.next_u64(), options(cores));
        start(&mut world, cores);
        let image = world.kill();
        let made = on_volume(&image, bad);
        let mut world = World::restart(image, rng.next_u64(), failing);
        let Some((engines, _)) = try_start(&mut world, cores, &Sizes::default()) else {
            continue;
        };
        let count = rng.between(30, 60) as usize;
        let rest = world.run_task(core, fill(engines[0].clone(), rng.fork(), count), STEPS_MAX);
        let rest = rest.unwrap_or_else(|| panic!("seed {seed}: a put waits for ever"));
        let image = world.crash();
        if failing.faults.no_space == Chance::ALWAYS {
            assert_eq!(
                on_volume(&image, bad),
                made,
                "nothing is made where there is no room"
            );
        }
        let mut world = World::restart(image, rng.next_u64(), options(cores));
        let engine = start(&mut world, cores).swap_remove(0);
        // Keys of the second run took the place of those of the first.
        let kept = rest.iter().cloned().chain(before.into_iter().skip(rest.len()));
        let kept = each_alone(kept);
        let whole = world.run_task(core, count_whole(engine, kept, BUCKET), STEPS_MAX);
        let (whole, refused) = whole.expect("reads");
        assert_eq!((whole, refused), (rest.len().max(30), 0), "seed {seed}");
    }
}

/// All of its life in memory, or as much of it in runs as there can be.
fn any_sizes(rng: &mut Rng) -> Sizes {
    Sizes {
        table_bytes: [500, 2_000, 1 << 20][rng.index(3)],
        page_cache_bytes: 10_000,
        log_tail_bytes: [60_000, 256 << 20][rng.index(2)],
        ..Sizes::default()
    }
}

fn start(world: &mut World<Message>, cores: usize) -> Vec<Engine> {
    start_with(world, cores, &Sizes::default()).0
}

fn start_with(world: &mut World<Message>, cores: usize, sizes: &Sizes) -> (Vec<Engine>, Recovered) {
    try_start(world, cores, sizes).expect("a disk without faults")
}

/// The engines in order of core, and what the first of them recovered; `None` if the disk did not let it.
fn try_start(world: &mut World<Message>, cores: usize, sizes: &Sizes) -> Option<(Vec<Engine>, Recovered)> {
    let up = Rc::new(RefCell::new((Vec::new(), false)));
    for core in (0..cores as u16).map(CoreId) {
        let (io, up, sizes) = (world.machine(core), up.clone(), *sizes);
        world.spawn_on(core, async move {
            match Engine::start(io, &sizes).await {
                Ok(started) => up.borrow_mut().0.push(started),
                Err(_) => up.borrow_mut().1 = true,
            }
        });
    }
    let seen = up.clone();
    world.run(|| seen.borrow().0.len() == cores || seen.borrow().1, STEPS_MAX);
    let (mut started, failed) = up.take();
    if failed {
        return None;
    }
    started.sort_by_key(|(engine, _)| engine.io().core());
    let mut sum = Recovered::default();
    for (_, share) in &started {
        sum.add(share);
    }
    Some((started.into_iter().map(|(engine, _)| engine).collect(), sum))
}

#[test]
fn without_a_volume_whole_objects_are_served_and_nothing_is_changed() {
    let (mut served, mut refused, mut from_runs) = (0, 0, 0);
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let cores = rng.between(1, 3) as usize;
        let sizes = any_sizes(&mut rng);
        let (mut image, mut stored) = (None, Stored::new());
        let mut versions: Versions = Versions::new();
        // Each start leaves manifests behind, and what it stores takes the place of what was there.
        for _ in 0..rng.between(1, 3) {
            let mut world = match image.take() {
                None => World::new(rng.next_u64(), options(cores)),
                Some(image) => World::restart(image, rng.next_u64(), options(cores)),
            };
            let engine = start_with(&mut world, cores, &sizes).0.swap_remove(0);
            let core = engine.io().core();
            let filled = world.run_task(core, fill(engine, rng.fork(), 40), STEPS_MAX);
            stored = filled.expect("puts on disks without faults");
            versions.resize(stored.len(), Default::default());
            for (versions, (key, content)) in versions.iter_mut().zip(&stored) {
                versions.0.clone_from(key);
                versions.1.push(content.clone());
            }
            image = Some(if rng.coin() { world.kill() } else { world.crash() });
        }
        let image = image.expect("a boot");

        let missing = rng.index(2);
        let before = content_of(&image);
        let cores_left = rng.between(1, 3) as usize;
        let mut left = options(cores_left);
        left.missing = Some(missing);
        let mut world = World::restart(image, rng.next_u64(), left);
        let (mut engines, recovered) = start_with(&mut world, cores_left, &sizes);
        let engine = engines.swap_remove(0);
        let reading = read_what_is_left(engine, versions);
        let core = CoreId(0);
        let (whole, absent) = world.run_task(core, reading, STEPS_MAX).expect("reads");
        assert_eq!(whole + absent, stored.len(), "seed {seed}");
        served += whole;
        refused += absent;
        from_runs += recovered.entries;
        assert_eq!(
            world.run(|| false, STEPS_MAX),
            Outcome::Idle,
            "seed {seed}: it rests"
        );
        let image = world.kill();
        assert!(content_of(&image) == before, "seed {seed}: something was written");

        let mut world = World::restart(image, rng.next_u64(), options(cores));
        let engine = start_with(&mut world, cores, &sizes).0.swap_remove(0);
        let reading = count_whole(engine, each_alone(stored.iter().cloned()), BUCKET);
        let whole = world.run_task(core, reading, STEPS_MAX).expect("reads");
        assert_eq!(
            whole,
            (stored.len(), 0),
            "seed {seed}: all is there with all volumes"
        );
    }
    println!("{served} served, {refused} refused, {from_runs} entries in runs");
    assert!(served > 0 && refused > 0 && from_runs > 0);
}

/// The bytes of all segments.
fn content_of(image: &DiskImage) -> Vec<(SegmentId, Vec<u8>)> {
    let read = |id| {
        (
            id,
            image
                .read(id, 0, SHAPE.segment_size_bytes)
                .expect("a whole segment"),
        )
    };
    image.segments().map(read).collect()
}

fn each_alone(stored: impl Iterator<Item = (Vec<u8>, Content)>) -> Versions {
    stored.map(|(key, content)| (key, vec![content])).collect()
}

/// How many objects are whole, and how many out of reach; every change is refused.
async fn read_what_is_left(engine: Engine, stored: Versions) -> (usize, usize) {
    let first = engine
        .buckets(&BucketWalk::ALL)
        .map(|page| page.buckets.into_iter().next());
    let Some((name, bucket)) = first.ok().flatten() else {
        assert_eq!(engine.bucket(BUCKET).map(|_| ()), Err(Refusal::OutOfReach));
        return (0, stored.len());
    };
    assert!(name == BUCKET || name.starts_with("lost-"), "{name}");
    let content = Content::of(1, 100);
    let large = Content::of(2, 200_000);
    for (key, content) in [
        (b"new".as_slice(), &content),
        (b"large", &large),
        (b"0001", &content),
    ] {
        assert_eq!(
            put(&engine, bucket.id, key, content).await,
            Err(Refusal::Degraded)
        );
    }
    assert_eq!(engine.delete(bucket.id, b"0001").await, Err(Refusal::Degraded));
    assert_eq!(engine.create_bucket("other", "").await, Err(Refusal::Degraded));
    assert_eq!(engine.delete_bucket(&name).await, Err(Refusal::Degraded));
    let walk = KeyWalk {
        prefix: Vec::new(),
        delimiter: Vec::new(),
        after: None,
        max: 1000,
    };
    let listed = engine.list_objects(bucket.id, walk, |_| [0; 8]).await;
    assert!(matches!(listed, Ok(_) | Err(Refusal::OutOfReach)), "{listed:?}");
    count_whole(engine, stored, &name).await
}

/// How many objects are there, whole and as they were once, and how many are out of reach.
async fn count_whole(engine: Engine, stored: Versions, bucket: &str) -> (usize, usize) {
    let bucket = engine.bucket(bucket).expect("it was made").id;
    let (mut whole, mut absent) = (0, 0);
    for (key, versions) in stored {
        match is_whole(&engine, bucket, &key, versions).await {
            true => whole += 1,
            false => absent += 1,
        }
    }
    (whole, absent)
}

/// False if it is out of reach. Wrong bytes, and all else, are a failure.
async fn is_whole(engine: &Engine, bucket: BucketId, key: &[u8], mut versions: Vec<Content>) -> bool {
    let found = match engine.get(bucket, key).await {
        Err(Refusal::OutOfReach) => return false,
        found => found.expect("it is there or out of reach"),
    };
    let size = found.object.size;
    versions.retain(|content| content.length() == size);
    let mut reader = found.read(0..size);
    let mut at = 0;
    loop {
        match reader.next().await {
            // It is as it was before its last change, and something else has its place by now.
            Err(Refusal::OutOfReach) => return false,
            Err(other) => panic!("{other:?}"),
            Ok(None) => break,
            Ok(Some(piece)) => {
                for slice in piece.slices() {
                    versions.retain(|content| content.is_at(at, slice));
                    at += slice.len() as u64;
                }
            }
        }
    }
    assert!(at == size && !versions.is_empty(), "wrong bytes");
    true
}
