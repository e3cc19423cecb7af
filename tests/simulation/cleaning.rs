//! Cleaning on its own: a volume that is overwritten for ever, and what damage becomes when its segment is cleaned.
//!
//! The lives of `life` have most of it: small volumes, crashes while bytes are moved, failing disks. What they cannot
//! have is damage, which would weaken all that they demand.

use crate::content::Content;
use crate::full::put;
use crate::workload::Engine;
use std::cell::RefCell;
use std::rc::Rc;
use weft::engine::{BucketId, Message, Refusal, Sizes};
use weft::io::sim::{DiskImage, Options, Outcome, Rng, World};
use weft::io::{CoreId, Io, VolumeShape};

const SEEDS: u64 = 8;
const STEPS_MAX: u64 = 100_000_000;
pub const SHAPE: VolumeShape = VolumeShape {
    segment_size_bytes: 1 << 20,
    segments_max: 52,
};
/// Of which so much is for bodies: the rest is what the cores keep open, and the reserve.
pub const CAPACITY: u64 = 44 * SHAPE.segment_size_bytes as u64;
const BUCKET: &str = "cleaned";
/// Bytes by which a body is found on the disk.
const NEEDLE_BYTES: usize = 32;

pub type Objects = Vec<(Vec<u8>, Content)>;

#[test]
fn a_volume_is_overwritten_many_times_without_a_refusal() {
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let cores = 1 + seed as usize % 2;
        let mut world = World::new(seed, Options::new(cores, SHAPE));
        let engines = start(&mut world, cores);
        let engine = engines[rng.index(cores)].clone();
        let core = engine.io().core();
        let work = async move {
            let objects = store(&engine, &mut rng, CAPACITY * 55 / 100).await;
            let (objects, written) = overwrite(&engine, objects, &mut rng, 2 * CAPACITY).await;
            for (key, content) in &objects {
                assert_eq!(state_of(&engine, key, content).await, State::Whole);
            }
            written
        };
        let written = world.run_task(core, work, STEPS_MAX).expect("it ends");
        let counted = |count: fn(&Engine) -> u64| engines.iter().map(count).sum::<u64>();
        let moved = counted(|engine| engine.counters().bytes_moved.get());
        let cleaned = counted(|engine| engine.counters().segments_cleaned.get());
        println!("seed {seed}: {written} bytes written, {moved} moved, {cleaned} segments cleaned");
        assert!(cleaned > 10, "only {cleaned} segments were cleaned");
        assert!(moved < 2 * written, "{moved} bytes moved for {written}");
    }
}

#[test]
fn what_fails_its_checksum_is_not_moved_and_never_served() {
    for seed in 0..SEEDS {
        if let Err(error) = drill(seed) {
            panic!("seed {seed}: {error}");
        }
    }
}

/// Says what is wrong after segments with damaged bodies were cleaned, if anything is.
pub fn drill(seed: u64) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let mut world = World::new(seed, Options::new(1, SHAPE));
    let engine = start(&mut world, 1).remove(0);
    let mut all_rng = rng.fork();
    let work = async move { store(&engine, &mut all_rng, CAPACITY / 2).await };
    let objects = world.run_task(CoreId(0), work, STEPS_MAX).expect("it ends");
    world.run(|| false, STEPS_MAX);
    let mut image = world.kill();

    // Every fourth stays as it is; of those a large and a small one are damaged.
    let (cold, hot): (Vec<_>, Vec<_>) = objects
        .into_iter()
        .enumerate()
        .partition(|(number, _)| number % 4 == 0);
    let unnumbered = |numbered: Vec<(usize, (Vec<u8>, Content))>| -> Objects {
        numbered.into_iter().map(|(_, object)| object).collect()
    };
    let (cold, hot) = (unnumbered(cold), unnumbered(hot));
    let is_large = |content: &Content| content.length() > 100_000;
    let of_size = |large: bool| cold.iter().position(|(_, content)| is_large(content) == large);
    let damaged = [true, false].map(|large| of_size(large).expect("one of either size"));
    for at in damaged {
        damage(&mut image, &cold[at].1, &mut rng);
    }

    let cores = rng.between(1, 2) as usize;
    let mut world = World::restart(image, rng.next_u64(), Options::new(cores, SHAPE));
    let engine = start(&mut world, cores).remove(0);
    let work = {
        let engine = engine.clone();
        let cold = cold.clone();
        async move {
            let (hot, _) = overwrite(&engine, hot, &mut rng, 2 * CAPACITY).await;
            check(&engine, &cold, &hot, damaged).await.map(|()| hot)
        }
    };
    let hot = world.run_task(CoreId(0), work, STEPS_MAX).expect("it ends")?;
    if engine.counters().segments_cleaned.get() < 10 {
        return Err("hardly anything was cleaned".to_owned());
    }
    world.run(|| false, STEPS_MAX);
    let mut world = World::restart(world.crash(), seed, Options::new(3 - cores, SHAPE));
    let engine = start(&mut world, 3 - cores).remove(0);
    let work = async move { check(&engine, &cold, &hot, damaged).await };
    world.run_task(CoreId(0), work, STEPS_MAX).expect("it ends")
}

async fn check(engine: &Engine, cold: &Objects, hot: &Objects, damaged: [usize; 2]) -> Result<(), String> {
    for (at, (key, content)) in cold.iter().chain(hot).enumerate() {
        let expected = match damaged.contains(&at) {
            true => State::Damaged,
            false => State::Whole,
        };
        let found = state_of(engine, key, content).await;
        if found != expected {
            let key = String::from_utf8_lossy(key);
            return Err(format!("{key} is {found:?}, and should be {expected:?}"));
        }
    }
    Ok(())
}

#[derive(PartialEq, Eq, Debug)]
enum State {
    Whole,
    /// It is there, and what it holds is not served.
    Damaged,
    /// Other bytes were served.
    Wrong,
    Missing,
}

async fn state_of(engine: &Engine, key: &[u8], content: &Content) -> State {
    let found = match engine.get(bucket_of(engine), key).await {
        Ok(found) => found,
        Err(Refusal::Damaged) => return State::Damaged,
        Err(_) => return State::Missing,
    };
    let mut reader = found.read(0..content.length());
    let mut at = 0;
    loop {
        let piece = match reader.next().await {
            Ok(Some(piece)) => piece,
            Ok(None) if at == content.length() => return State::Whole,
            Ok(None) => return State::Wrong,
            Err(_) => return State::Damaged,
        };
        for slice in piece.slices() {
            if !content.is_at(at, slice) {
                return State::Wrong;
            }
            at += slice.len() as u64;
        }
    }
}

fn bucket_of(engine: &Engine) -> BucketId {
    engine.bucket(BUCKET).expect("it was made first").id
}

/// Flips a bit somewhere near the start of a body, where it lies on the disk.
pub fn damage(image: &mut DiskImage, content: &Content, rng: &mut Rng) {
    let mut needle = [0; NEEDLE_BYTES];
    content.fill(0, &mut needle);
    let segments: Vec<_> = image.segments().collect();
    for id in segments {
        let bytes = image
            .read(id, 0, SHAPE.segment_size_bytes)
            .expect("within the segment");
        if let Some(at) = bytes.windows(NEEDLE_BYTES).position(|window| window == needle) {
            let offset = at as u32 + rng.below(NEEDLE_BYTES as u64) as u32;
            return image.flip_bit(id, offset, rng.below(8) as u32);
        }
    }
    panic!("a body is nowhere on the disk");
}

/// Stores objects of many sizes, until they are so many bytes.
pub async fn store(engine: &Engine, rng: &mut Rng, bytes_min: u64) -> Objects {
    engine.create_bucket(BUCKET, "").await.expect("a bucket");
    let mut objects = Objects::new();
    let mut bytes = 0;
    while bytes < bytes_min {
        let content = any_content(rng);
        bytes += content.length();
        let key = format!("object-{}", objects.len()).into_bytes();
        put(engine, bucket_of(engine), &key, &content)
            .await
            .expect("room for a body");
        objects.push((key, content));
    }
    objects
}

fn any_content(rng: &mut Rng) -> Content {
    let length = match rng.below(3) {
        0 => 1_000 + rng.below(8_000),
        1 => 10_000 + rng.below(50_000),
        _ => 100_000 + rng.below(500_000),
    };
    Content::of(rng.next_u64(), length)
}

/// Overwrites objects at random; also how many bytes that took.
pub async fn overwrite(
    engine: &Engine,
    mut objects: Objects,
    rng: &mut Rng,
    bytes_min: u64,
) -> (Objects, u64) {
    let mut written = 0;
    while written < bytes_min {
        let at = rng.index(objects.len());
        let (key, content) = &mut objects[at];
        // Of the same size, so that as much is live as before.
        *content = Content::of(rng.next_u64(), content.length());
        written += content.length();
        let taken = put(engine, bucket_of(engine), key, content).await;
        assert_eq!(taken, Ok(()), "after {written} bytes: {:?}", engine.space_use());
    }
    (objects, written)
}

/// The engines of a world, in order of core, once all are up.
pub fn start(world: &mut World<Message>, cores: usize) -> Vec<Engine> {
    start_with(Sizes::default(), world, cores)
}

/// As [`start`], with other sizes.
pub fn start_with(sizes: Sizes, world: &mut World<Message>, cores: usize) -> Vec<Engine> {
    let engines: Rc<RefCell<Vec<Engine>>> = Rc::default();
    for core in (0..cores as u16).map(CoreId) {
        let (io, engines) = (world.machine(core), engines.clone());
        world.spawn_on(core, async move {
            let (engine, _) = Engine::start(io, &sizes).await.expect("a disk without faults");
            engines.borrow_mut().push(engine);
        });
    }
    let up = engines.clone();
    let all_up = world.run(|| up.borrow().len() == cores, STEPS_MAX);
    assert_eq!(all_up, Outcome::Reached);
    let mut engines = engines.take();
    engines.sort_by_key(|engine| engine.io().core());
    engines
}
