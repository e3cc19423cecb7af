//! What a start makes of damage in a log, and of a disk that fails once.
//!
//! Damage in the middle of a log is told, and of all that was acknowledged only what lay in it is missing. Each seed
//! stores objects until logs have passed their watermarks several times, ends, loses one batch that is not a log's last,
//! in half of the seeds that of the bucket, and starts again with another number of cores. What tells a lost batch from a
//! torn tail is looked for up to the watermark, so first each log's must be past all that was acknowledged.
//!
//! A start that met damage ends no life that began before it, whatever is deleted in its run, and the next start finds
//! the same damage.

use crate::content::Content;
use crate::full::{is_whole, put};
use crate::workload::Engine;
use futures_util::future::join_all;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use weft::engine::{
    Bucket, BucketId, BucketWalk, KeyWalk, Loss, Message, RecoverError, Recovered, Refusal, Sizes, Start,
};
use weft::io::sim::{DiskImage, FailAt, Options, Repeat, Rng, World};
use weft::io::{CoreId, Io, SegmentId, VolumeShape};

const SEEDS: u64 = 40;
const STEPS_MAX: u64 = 50_000_000;
const SHAPE: VolumeShape = VolumeShape {
    segment_size_bytes: 1 << 20,
    segments_max: 60,
};
const BUCKET: &str = "bucket-of-the-drill";
const OBJECTS_BYTES: u64 = 3 << 20;
/// Bodies that are put at a time, so that batches hold several records.
const WIDTH: usize = 4;
const PAGE_BYTES: u32 = 4096;

#[test]
fn a_damaged_batch_costs_what_lay_in_it_and_nothing_behind_it() {
    for seed in 0..SEEDS {
        if let Err(missing) = drill(seed) {
            panic!("seed {seed}: {missing}");
        }
    }
}

/// Says what is wrong after the damage, if anything is.
pub fn drill(seed: u64) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let cores = rng.between(1, 3) as usize;
    let mut world = World::new(rng.next_u64(), Options::new(cores, SHAPE));
    let (engines, _) = start(&mut world, cores).expect("a start on a disk without faults");
    let engine = engines[rng.index(cores)].clone();
    let core = engine.io().core();
    let filled = world.run_task(core, fill(engine, rng.fork(), OBJECTS_BYTES), STEPS_MAX);
    let objects = filled.expect("puts on a disk without faults");
    let mut image = match rng.below(4) {
        0 => world.kill(),
        1 => world.crash(),
        // Sealed at the end of a run, or by the next start: then even the last batch's loss is told.
        2 => {
            seal_all(&mut world, &engines);
            world.kill()
        }
        _ => {
            let image = world.kill();
            let mut world = World::restart(image, rng.next_u64(), Options::new(cores, SHAPE));
            start(&mut world, cores).expect("a start on a disk without faults");
            world.crash()
        }
    };
    if let Some((id, offset)) = batch_behind_its_watermark(&image) {
        return Err(format!(
            "the batch at {offset} of {id} was acknowledged and ends behind the watermark"
        ));
    }
    let lost = lose_a_batch(&mut image, &mut rng);
    let kept: Objects = objects
        .into_iter()
        .filter(|(key, _)| !holds(&lost, key))
        .collect();
    let found = outlive(image, &mut rng, kept)?;
    match (found.batches_damaged, holds(&lost, BUCKET.as_bytes())) {
        (0, _) => Err("a batch was lost without a word".to_owned()),
        (_, is_of_bucket) if found.buckets_lost != u64::from(is_of_bucket) => Err(format!(
            "the bucket's record is lost: {is_of_bucket}, but {found:?}"
        )),
        _ => Ok(()),
    }
}

/// Starts twice on a damaged volume, with work in between; what the starts found, or what is wrong.
fn outlive(image: DiskImage, rng: &mut Rng, kept: Objects) -> Result<Recovered, String> {
    let lives = lives_of(&image);
    let cores = rng.between(1, 3) as usize;
    let mut world = World::restart(image, rng.next_u64(), Options::new(cores, SHAPE));
    let (engines, found) = start(&mut world, cores).expect("a start on a disk without faults");
    if let Some(key) = missing(&mut world, &engines[0], kept.clone()) {
        return Err(format!("{key} is gone"));
    }
    let engine = engines[rng.index(cores)].clone();
    let core = engine.io().core();
    let worked = world.run_task(core, write_and_delete(engine, rng.fork()), STEPS_MAX);
    worked.expect("new segments take writes");
    world.run(|| false, STEPS_MAX);
    let image = world.crash();
    let lives_now = lives_of(&image);
    if let Some((id, _)) = lives.iter().find(|(id, life)| lives_now.get(id) != Some(life)) {
        return Err(format!("the life of {id} was ended by a start that met damage"));
    }
    let cores = rng.between(1, 3) as usize;
    let mut world = World::restart(image, rng.next_u64(), Options::new(cores, SHAPE));
    let (engines, again) = start(&mut world, cores).expect("a start on a disk without faults");
    let damage = |found: &Recovered| Recovered {
        objects: 0,
        buckets: 0,
        records: 0,
        ..*found
    };
    if damage(&again) != damage(&found) {
        return Err(format!("found {found:?}, and then {again:?}"));
    }
    match missing(&mut world, &engines[0], kept) {
        Some(key) => Err(format!("{key} is gone at the second start")),
        None => Ok(found),
    }
}

#[test]
fn a_log_whose_header_is_zeroed_and_a_segment_that_is_gone_are_told() {
    for seed in 0..SEEDS / 4 {
        let mut rng = Rng::new(seed);
        let cores = rng.between(1, 3) as usize;
        let mut world = World::new(rng.next_u64(), Options::new(cores, SHAPE));
        let (engines, _) = start(&mut world, cores).expect("a start on a disk without faults");
        let filled = world.run_task(
            CoreId(0),
            fill(engines[0].clone(), rng.fork(), OBJECTS_BYTES),
            STEPS_MAX,
        );
        let objects = filled.expect("puts on a disk without faults");
        let mut image = world.kill();
        let zeroed = rng.coin();
        let bytes = lose_a_log(&mut image, zeroed, &mut rng);
        let kept = objects
            .into_iter()
            .filter(|(key, _)| !holds(&bytes, key))
            .collect();
        let found = outlive(image, &mut rng, kept).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        let told = (found.segments_unreadable, found.segments_missing);
        assert_eq!(
            told,
            if zeroed { (1, 0) } else { (0, 1) },
            "seed {seed}: {found:?}"
        );
    }
}

#[test]
fn what_is_lost_and_given_up_is_forgotten_and_all_room_comes_back() {
    for seed in 0..SEEDS / 4 {
        let mut rng = Rng::new(seed);
        let cores = rng.between(1, 3) as usize;
        let mut world = World::new(rng.next_u64(), Options::new(cores, SHAPE));
        let (engines, _) = start(&mut world, cores).expect("a start on a disk without faults");
        let work = fill(engines[0].clone(), rng.fork(), OBJECTS_BYTES);
        let objects = world.run_task(CoreId(0), work, STEPS_MAX);
        let objects = objects.expect("puts on a disk without faults");
        let mut image = world.kill();
        let lost = match rng.below(3) {
            0 => lose_a_batch(&mut image, &mut rng),
            way => lose_a_log(&mut image, way == 1, &mut rng),
        };
        let kept = objects.into_iter().filter(|(key, _)| !holds(&lost, key));
        let kept: Objects = kept.collect();

        let cores = rng.between(1, 3) as usize;
        let mut world = World::restart(image, rng.next_u64(), Options::new(cores, SHAPE));
        let started = start_after(Loss::Accepted, Sizes::default(), &mut world, cores);
        let (engines, found) = started.expect("a start on a disk without faults");
        assert!(found.is_damaged(), "seed {seed}: {found:?}");
        assert_eq!(
            missing(&mut world, &engines[0], kept.clone()),
            None,
            "seed {seed}"
        );
        let (engine, mut chance) = (engines[rng.index(cores)].clone(), rng.fork());
        let work = async move {
            // Four times what the volume holds.
            for _ in 0..120 {
                write_and_delete(engine.clone(), chance.fork()).await;
            }
            delete_all(&engine).await;
        };
        let core = CoreId(0);
        world.run_task(core, work, STEPS_MAX).expect("room comes back");
        world.run(|| false, STEPS_MAX);
        let image = world.crash();

        let mut world = World::restart(image, rng.next_u64(), Options::new(cores, SHAPE));
        let (engines, found) = start(&mut world, cores).expect("a start on a disk without faults");
        assert!(!found.is_damaged(), "seed {seed}: {found:?}");
        world.run(|| false, STEPS_MAX);
        compact(&mut world, &engines);
        let space = engines[0].space_use().expect("core 0 keeps the table");
        assert_eq!(space.live_bytes, 0, "seed {seed}: {space:?}");
        // A log each, and where the manifest lies.
        assert_eq!(space.free + 2 * cores, space.segments, "seed {seed}: {space:?}");
    }
}

#[test]
fn pages_of_the_index_that_are_lost_and_given_up_cost_what_lay_in_them() {
    let mut lost = 0;
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let sizes = Sizes {
            table_bytes: 2_000,
            page_cache_bytes: 10_000,
            ..Sizes::default()
        };
        let cores = rng.between(1, 3) as usize;
        let mut world = World::new(rng.next_u64(), Options::new(cores, SHAPE));
        let started = start_after(Loss::MayBeMended, sizes, &mut world, cores);
        let (engines, _) = started.expect("a start on a disk without faults");
        let work = fill(engines[0].clone(), rng.fork(), OBJECTS_BYTES);
        let objects = world.run_task(CoreId(0), work, STEPS_MAX);
        let objects = objects.expect("puts on a disk without faults");
        world.run(|| false, STEPS_MAX);
        compact(&mut world, &engines);
        let mut image = world.kill();
        lose_a_page(&mut image, &mut rng);

        let cores = rng.between(1, 3) as usize;
        let mut world = World::restart(image, rng.next_u64(), Options::new(cores, SHAPE));
        let started = start_after(Loss::Accepted, sizes, &mut world, cores);
        let (engines, found) = started.expect("a start on a disk without faults");
        lost += found.pages_unreadable;
        let engine = engines[rng.index(cores)].clone();
        let (core, mut chance) = (engine.io().core(), rng.fork());
        let work = async move {
            let kept = present(&engine, &objects).await;
            // More than the volume holds, so that what is given up is used again.
            for _ in 0..40 {
                write_and_delete(engine.clone(), chance.fork()).await;
            }
            assert_eq!(present(&engine, &objects).await, kept);
            (objects, kept)
        };
        let (objects, kept) = world.run_task(core, work, STEPS_MAX).expect("room comes back");
        world.run(|| false, STEPS_MAX);
        let image = world.crash();

        let mut world = World::restart(image, rng.next_u64(), Options::new(cores, SHAPE));
        let started = start_after(Loss::MayBeMended, sizes, &mut world, cores);
        let (engines, again) = started.expect("a start on a disk without faults");
        world.run(|| false, STEPS_MAX);
        let only_of_buckets = Recovered {
            buckets: again.buckets,
            entries: again.entries,
            records: again.records,
            buckets_lost: again.buckets_lost,
            ..Recovered::default()
        };
        assert_eq!(again, only_of_buckets, "seed {seed}");
        let engine = engines[0].clone();
        let work = async move { present(&engine, &objects).await };
        let found = world.run_task(CoreId(0), work, STEPS_MAX);
        assert_eq!(found, Some(kept), "seed {seed}");
    }
    assert!(lost > 10, "only {lost} pages were lost");
}

/// Which of the objects are there, whole; none may be there and not be whole.
async fn present(engine: &Engine, objects: &Objects) -> Vec<bool> {
    let buckets = buckets_of(engine);
    let holds_the_objects = |name: &str| name == BUCKET || name.starts_with("lost-");
    let bucket = buckets.iter().find(|(name, _)| holds_the_objects(name));
    let Some((_, bucket)) = bucket else {
        return vec![false; objects.len()];
    };
    let mut present = Vec::new();
    for (key, content) in objects {
        let is_there = !matches!(engine.head(bucket.id, key).await, Err(Refusal::NoSuchKey));
        assert!(!is_there || is_whole(engine, bucket.id, key, content).await);
        present.push(is_there);
    }
    present
}

fn buckets_of(engine: &Engine) -> Vec<(String, Bucket)> {
    let all = engine.buckets(&BucketWalk::ALL);
    all.expect("the buckets can be read").buckets
}

/// Has the index of each core be one run, or none.
fn compact(world: &mut World<Message>, engines: &[Engine]) {
    for engine in engines {
        let (core, engine) = (engine.io().core(), engine.clone());
        world.spawn_on(core, async move { engine.compact().await });
    }
    world.run(|| false, STEPS_MAX);
}

/// Makes a page unreadable that looks like one of a run. It need not be in use.
pub fn lose_a_page(image: &mut DiskImage, rng: &mut Rng) {
    let mut pages = Vec::new();
    for id in image.segments() {
        for offset in (0..SHAPE.segment_size_bytes).step_by(PAGE_BYTES as usize) {
            let front = image.read(id, offset, 16).expect("within the segment");
            if &front[4..8] == b"WFTI" {
                pages.push((id, offset));
            }
        }
    }
    let (id, offset) = pages[rng.index(pages.len())];
    image.overwrite(id, offset, &[0; 64]);
}

/// Deletes every object, and every bucket that has its record.
async fn delete_all(engine: &Engine) {
    for (name, bucket) in buckets_of(engine) {
        let walk = KeyWalk {
            prefix: Vec::new(),
            delimiter: Vec::new(),
            after: None,
            max: 10_000,
        };
        let page = engine.list_objects(bucket.id, walk, |_| [0; 8]).await;
        for item in page.expect("an index that can be read").items {
            engine.delete(bucket.id, item.name()).await.expect("a delete");
        }
        if !name.starts_with("lost-") {
            engine.delete_bucket(&name).await.expect("it is empty");
        }
    }
}

/// Zeroes the header of a log that is not the last segment, or takes it away; gives what it held.
fn lose_a_log(image: &mut DiskImage, zeroed: bool, rng: &mut Rng) -> Vec<u8> {
    let last = image.segments().last();
    let logs: Vec<SegmentId> = image
        .segments()
        .filter(|&id| Some(id) != last && !batches_of(image, id).is_empty())
        .collect();
    let id = logs[rng.index(logs.len())];
    let bytes = image.read(id, 0, SHAPE.segment_size_bytes).expect("a segment");
    match zeroed {
        true => image.overwrite(id, 0, &[0; PAGE_BYTES as usize]),
        false => assert!(image.remove_segment(id)),
    }
    bytes
}

/// Fills more than a segment, and deletes it again.
async fn write_and_delete(engine: Engine, mut rng: Rng) {
    // It may be there from the last time.
    let _ = engine.create_bucket("afterwards", "").await;
    let bucket = engine.bucket("afterwards").expect("it was made").id;
    for at in 0..40u32 {
        let content = Content::of(rng.next_u64(), 1 + rng.below(100_000));
        let key = at.to_string().into_bytes();
        put(&engine, bucket, &key, &content)
            .await
            .expect("room for a body");
        assert!(is_whole(&engine, bucket, &key, &content).await);
        engine.delete(bucket, &key).await.expect("a delete");
    }
}

/// What each segment's header says of its life: its kind and generation.
fn lives_of(image: &DiskImage) -> BTreeMap<SegmentId, Vec<u8>> {
    let life = |id| image.read(id, 0, 24).expect("a header");
    image.segments().map(|id| (id, life(id))).collect()
}

#[test]
fn a_start_on_a_log_without_a_seal_outlives_one_failed_write_or_sync() {
    let mut world = World::new(1, Options::new(2, SHAPE));
    let (engines, _) = start(&mut world, 2).expect("a start on a disk without faults");
    let filled = world.run_task(
        CoreId(0),
        fill(engines[0].clone(), Rng::new(2), 1 << 19),
        STEPS_MAX,
    );
    let objects = filled.expect("puts on a disk without faults");
    // So that each core has a spare log too.
    world.run(|| false, STEPS_MAX);
    let image = world.kill();
    let mut outlived = 0;
    for operation in 0.. {
        let mut options = Options::new(2, SHAPE);
        options.faults.fail_at = Some(FailAt {
            operation,
            repeat: Repeat::Once,
        });
        let mut world = World::restart(image.clone(), 3, options);
        let started = start(&mut world, 2);
        let stats = world.stats();
        let unread = stats.read_errors + stats.list_errors;
        match started {
            Ok((engines, found)) => {
                assert!(!found.is_damaged(), "{found:?}");
                let gone = missing(&mut world, &engines[0], objects.clone());
                assert_eq!(gone, None, "after operation {operation} failed");
            }
            Err(error) => assert!(unread == 1, "operation {operation} failed: {error}"),
        }
        if unread + stats.write_errors + stats.sync_errors == 0 {
            break;
        }
        outlived += stats.write_errors + stats.sync_errors;
    }
    // Two logs with batches and two spare ones: a batch, a seal, and a sync for each of these.
    assert!(outlived >= 12, "only {outlived} writes and syncs failed");
}

fn seal_all(world: &mut World<Message>, engines: &[Engine]) {
    for engine in engines {
        let (core, engine) = (engine.io().core(), engine.clone());
        let sealed = world.run_task(core, async move { engine.settle().await }, STEPS_MAX);
        sealed.expect("a seal on a disk without faults");
    }
}

type Objects = Vec<(Vec<u8>, Content)>;

/// An object that is not there as it was stored.
fn missing(world: &mut World<Message>, engine: &Engine, objects: Objects) -> Option<String> {
    let engine = engine.clone();
    let check = async move {
        let buckets = buckets_of(&engine);
        let holds_the_objects = |name: &str| name == BUCKET || name.starts_with("lost-");
        let bucket = buckets.iter().find(|(name, _)| holds_the_objects(name));
        let bucket = bucket.expect("it was made first").1.id;
        for (key, content) in objects {
            if !is_whole(&engine, bucket, &key, &content).await {
                return Some(String::from_utf8_lossy(&key).into_owned());
            }
        }
        None
    };
    let checked = world.run_task(CoreId(0), check, STEPS_MAX);
    checked.expect("reads come to an end")
}

/// Starts all cores; also what they found.
fn start(world: &mut World<Message>, cores: usize) -> Result<(Vec<Engine>, Recovered), RecoverError> {
    start_after(Loss::MayBeMended, Sizes::default(), world, cores)
}

fn start_after(
    loss: Loss,
    sizes: Sizes,
    world: &mut World<Message>,
    cores: usize,
) -> Result<(Vec<Engine>, Recovered), RecoverError> {
    type Started = Vec<(CoreId, Result<(Engine, Recovered), RecoverError>)>;
    let started: Rc<RefCell<Started>> = Rc::default();
    for core in (0..cores as u16).map(CoreId) {
        let (io, started) = (world.machine(core), started.clone());
        let start = Start {
            loss,
            ..Start::default()
        };
        world.spawn_on(core, async move {
            let up = Engine::start_with(start, io, &sizes).await;
            started.borrow_mut().push((core, up));
        });
    }
    let up = started.clone();
    // A core that fails lets the others wait.
    let over = || up.borrow().len() == cores || up.borrow().iter().any(|(_, up)| up.is_err());
    world.run(over, STEPS_MAX);
    let mut started = started.take();
    started.sort_by_key(|(core, _)| *core);
    let up: Vec<(Engine, Recovered)> = started.into_iter().map(|(_, up)| up).collect::<Result<_, _>>()?;
    assert_eq!(up.len(), cores, "a start does not end");
    let mut sum = Recovered::default();
    up.iter().for_each(|(_, found)| sum.add(found));
    Ok((up.into_iter().map(|(engine, _)| engine).collect(), sum))
}

/// Stores `bytes` of objects in a bucket of their own, some at a time.
async fn fill(engine: Engine, mut rng: Rng, bytes_min: u64) -> Objects {
    let bucket: BucketId = engine.create_bucket(BUCKET, "").await.expect("a bucket").id;
    let mut objects = Vec::new();
    let mut bytes = 0;
    while bytes < bytes_min {
        let some: Vec<(Vec<u8>, Content)> = (0..WIDTH)
            .map(|at| {
                let content = Content::of(rng.next_u64(), 1 + rng.below(40_000));
                let key = format!("object-{:06}-", objects.len() + at).into_bytes();
                (key, content)
            })
            .collect();
        let puts = some
            .iter()
            .map(|(key, content)| put(&engine, bucket, key, content));
        for done in join_all(puts).await {
            done.expect("room for a body");
        }
        bytes += some.iter().map(|(_, content)| content.length()).sum::<u64>();
        objects.extend(some);
    }
    objects
}

/// All batches were acknowledged: there are no others when nobody writes.
fn batch_behind_its_watermark(image: &DiskImage) -> Option<(SegmentId, u32)> {
    image.segments().find_map(|id| {
        let block = image.read(id, PAGE_BYTES, 40).expect("within the segment");
        let watermark = u32::from_le_bytes([block[36], block[37], block[38], block[39]]);
        let batches = batches_of(image, id);
        let behind = batches
            .iter()
            .find(|(offset, length)| offset + length > watermark);
        behind.map(|&(offset, _)| (id, offset))
    })
}

/// Makes a batch unreadable, from its header on; gives what it held.
pub fn lose_a_batch(image: &mut DiskImage, rng: &mut Rng) -> Vec<u8> {
    let segments: Vec<SegmentId> = image.segments().collect();
    let mut middles = Vec::new();
    let mut of_bucket = Vec::new();
    for id in segments {
        let batches = batches_of(image, id);
        // The last one would be a torn tail, which is dropped without a word.
        for &(offset, length) in batches.iter().rev().skip(1) {
            let bytes = image.read(id, offset, length).expect("within the segment");
            match holds(&bytes, BUCKET.as_bytes()) {
                true => of_bucket.push((id, offset, bytes)),
                false => middles.push((id, offset, bytes)),
            }
        }
    }
    assert!(
        middles.len() > 20,
        "only {} batches to choose from",
        middles.len()
    );
    if rng.coin() && !of_bucket.is_empty() {
        middles = of_bucket;
    }
    let (id, offset, bytes) = middles.swap_remove(rng.index(middles.len()));
    match rng.coin() {
        true => image.flip_bit(id, offset + rng.below(64) as u32, 0),
        false => image.overwrite(id, offset, &vec![0; bytes.len()]),
    }
    bytes
}

/// Offsets and lengths on disk of a segment's batches, taken from their headers as docs/format.md has them.
fn batches_of(image: &DiskImage, id: SegmentId) -> Vec<(u32, u32)> {
    let mut batches = Vec::new();
    let mut at = 2 * PAGE_BYTES;
    while at < SHAPE.segment_size_bytes {
        let header = image.read(id, at, 64).expect("within the segment");
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if !header.starts_with(b"WFTB") || (word(32), word(36)) != (id.0, at) {
            break;
        }
        let length = word(44).next_multiple_of(PAGE_BYTES);
        batches.push((at, length));
        at += length;
    }
    batches
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}
