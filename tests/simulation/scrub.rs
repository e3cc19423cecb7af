//! The scrub on the simulated machine: it finds what is damaged, and nothing else, whatever goes on meanwhile.

use crate::cleaning::{CAPACITY, Objects, SHAPE, damage, overwrite, start_with, store};
use crate::content::Content;
use crate::damage::{lose_a_batch, lose_a_page};
use crate::workload::Engine;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;
use weft::engine::{IndexPlace, Message, ScrubNext, ScrubPlan, ScrubPosition, Sizes};
use weft::io::sim::{DiskImage, Options, Rng, World};
use weft::io::{CoreId, Io};

const SEEDS: u64 = 8;
const STEPS_MAX: u64 = 100_000_000;
const PASSES: u64 = 3;
/// Of a core: a pass takes some seconds, and rests often.
const PLAN: ScrubPlan = ScrubPlan {
    bytes_per_s: 20 << 20,
    period: Duration::ZERO,
    delay: Duration::ZERO,
};
/// So little memory that runs are written and merged all the time.
const SMALL: Sizes = Sizes {
    table_bytes: 2_000,
    page_cache_bytes: 10_000,
    lookup_cache_bytes: 64 << 20,
    log_tail_bytes: 1 << 20,
};

#[test]
fn nothing_is_found_while_a_volume_is_overwritten_cleaned_and_merged() {
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let cores = 1 + seed as usize % 2;
        let mut world = World::new(seed, Options::new(cores, SHAPE));
        let engines = start_with(SMALL, &mut world, cores);
        begin(&engines, PLAN, &ScrubPosition::default());
        let engine = engines[rng.index(cores)].clone();
        let core = engine.io().core();
        let work = {
            let engines = engines.clone();
            async move {
                let objects = store(&engine, &mut rng, CAPACITY / 2).await;
                overwrite(&engine, objects, &mut rng, 2 * CAPACITY).await;
                passes(&engines).await;
            }
        };
        world.run_task(core, work, STEPS_MAX).expect("it ends");
        let sum = |of: fn(&Engine) -> u64| engines.iter().map(of).sum::<u64>();
        let cleaned = sum(|engine| engine.counters().segments_cleaned.get());
        let merged = sum(|engine| engine.counters().merges.get());
        let read = sum(|engine| engine.counters().scrub_bytes.get());
        println!("seed {seed}: {cleaned} segments cleaned, {merged} merges, {read} bytes read");
        assert!(cleaned > 10, "seed {seed}: only {cleaned} segments were cleaned");
        assert!(merged > 10, "seed {seed}: only {merged} merges");
        assert!(read > CAPACITY, "seed {seed}: only {read} bytes were read");
        assert_eq!(errors(&engines), 0, "seed {seed}");
    }
}

#[test]
fn damage_to_a_body_of_either_kind_is_found_in_every_pass() {
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        // In half of the seeds all logs are behind the index: then nobody but the scrub looks at small bodies.
        let sizes = if rng.coin() { SMALL } else { Sizes::default() };
        let cores = 1 + seed as usize % 3;
        let (mut image, objects) = stored(sizes, cores, &mut rng);
        let is_large = |content: &Content| content.length() > 100_000;
        let of_size = |large: bool| objects.iter().find(|(_, content)| is_large(content) == large);
        for large in [true, false] {
            let (_, content) = of_size(large).expect("one of either size");
            damage(&mut image, content, &mut rng);
        }

        let cores = rng.between(1, 3) as usize;
        let mut world = World::restart(image, rng.next_u64(), Options::new(cores, SHAPE));
        let engines = start_with(sizes, &mut world, cores);
        let told = begin(&engines, PLAN, &ScrubPosition::default());
        wait_for_passes(&mut world, &engines);
        let found = errors(&engines);
        // The batch that the small one is in is one more, where a start needs it.
        assert!(
            found == 2 * PASSES || found == 3 * PASSES,
            "seed {seed}: {found} findings in {PASSES} passes"
        );
        // Of each pass every core tells both parts, in order.
        let told = told.borrow();
        for core in 0..cores as u16 {
            let of_core = told.iter().filter(|(of, _)| *of == core);
            let places: Vec<&ScrubPosition> = of_core.map(|(_, place)| place).collect();
            assert!(places.is_sorted(), "seed {seed}: a core went back");
            let kinds: BTreeSet<bool> = places
                .iter()
                .map(|place| matches!(place.next, ScrubNext::Segment(_)))
                .collect();
            assert_eq!(kinds.len(), 2);
        }
    }
}

#[test]
fn a_damaged_page_of_the_index_is_found_in_every_pass() {
    let mut live = 0;
    for seed in 0..4 * SEEDS {
        let mut rng = Rng::new(seed);
        let cores = 1 + seed as usize % 2;
        let (mut image, _) = stored(SMALL, cores, &mut rng);
        lose_a_page(&mut image, &mut rng);
        let mut world = World::restart(image, rng.next_u64(), Options::new(cores, SHAPE));
        let engines = start_with(SMALL, &mut world, cores);
        begin(&engines, PLAN, &ScrubPosition::default());
        wait_for_passes(&mut world, &engines);
        for engine in &engines {
            let walked = {
                let engine = engine.clone();
                async move { engine.holdings_implied().await }
            };
            let walked = world.run_task(engine.io().core(), walked, STEPS_MAX);
            let is_live = walked.expect("it ends").is_err();
            let found = engine.counters().scrub_findings.get();
            let expected = if is_live { PASSES } else { 0 };
            assert_eq!(found, expected, "seed {seed}: the page is in use: {is_live}");
            live += u64::from(is_live);
        }
    }
    assert!(live >= SEEDS / 2, "only {live} pages were in use");
}

#[test]
fn a_damaged_batch_that_a_start_needs_is_found_in_every_pass() {
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let cores = 1 + seed as usize % 2;
        let (mut image, _) = stored(Sizes::default(), cores, &mut rng);
        lose_a_batch(&mut image, &mut rng);
        let mut world = World::restart(image, rng.next_u64(), Options::new(cores, SHAPE));
        let engines = start_with(Sizes::default(), &mut world, cores);
        begin(&engines, PLAN, &ScrubPosition::default());
        wait_for_passes(&mut world, &engines);
        assert_eq!(errors(&engines), PASSES, "seed {seed}");
    }
}

#[test]
fn a_pass_goes_on_where_it_was() {
    let mut world = World::new(1, Options::new(1, SHAPE));
    let engine = start_with(Sizes::default(), &mut world, 1).remove(0);
    let work = {
        let engine = engine.clone();
        async move { store(&engine, &mut Rng::new(1), CAPACITY / 3).await }
    };
    let objects = world.run_task(CoreId(0), work, STEPS_MAX).expect("it ends");
    let stored: u64 = objects.iter().map(|(_, content)| content.length()).sum();
    // Behind all segments and all keys: nothing of this pass is left.
    let last = ScrubPosition {
        pass: 7,
        next: ScrubNext::Index(IndexPlace {
            index_key: vec![0xff],
            ..IndexPlace::default()
        }),
        ..ScrubPosition::default()
    };
    let told = begin(std::slice::from_ref(&engine), PLAN, &last);
    let read_after = |world: &mut World<Message>, passes: u64| {
        let engine = engine.clone();
        let wait = async move {
            while engine.counters().scrub_passes.get() < passes {
                engine.io().sleep(Duration::from_millis(1)).await;
            }
            engine.counters().scrub_bytes.get()
        };
        world.run_task(CoreId(0), wait, STEPS_MAX).expect("it ends")
    };
    assert_eq!(read_after(&mut world, 1), 0);
    let read = read_after(&mut world, 2);
    assert!(read > stored, "{read} bytes were read of {stored}");
    assert_eq!(told.borrow().last().map(|(_, place)| place.pass), Some(9));
}

#[test]
fn a_pass_begins_when_its_time_has_come() {
    let mut world = World::new(2, Options::new(1, SHAPE));
    let engine = start_with(Sizes::default(), &mut world, 1).remove(0);
    let plan = ScrubPlan {
        period: Duration::from_secs(24 * 3600),
        ..PLAN
    };
    begin(std::slice::from_ref(&engine), plan, &ScrubPosition::default());
    let wait = async move {
        let since_ns = engine.io().monotonic_ns();
        while engine.counters().scrub_passes.get() < 3 {
            engine.io().sleep(Duration::from_secs(60)).await;
        }
        (engine.io().monotonic_ns() - since_ns) / 1_000_000_000 / 3600
    };
    assert_eq!(world.run_task(CoreId(0), wait, STEPS_MAX), Some(48));
}

/// A volume with objects, after a kill.
fn stored(sizes: Sizes, cores: usize, rng: &mut Rng) -> (DiskImage, Objects) {
    let mut world = World::new(rng.next_u64(), Options::new(cores, SHAPE));
    let engine = start_with(sizes, &mut world, cores).remove(0);
    let mut own_rng = rng.fork();
    let work = async move { store(&engine, &mut own_rng, CAPACITY / 3).await };
    let objects = world.run_task(CoreId(0), work, STEPS_MAX).expect("it ends");
    world.run(|| false, STEPS_MAX);
    (world.kill(), objects)
}

/// Begins a scrub on each core; what they tell.
fn begin(
    engines: &[Engine],
    plan: ScrubPlan,
    from: &ScrubPosition,
) -> Rc<RefCell<Vec<(u16, ScrubPosition)>>> {
    let told: Rc<RefCell<Vec<(u16, ScrubPosition)>>> = Rc::default();
    for engine in engines {
        let (told, core) = (told.clone(), engine.io().core().0);
        engine.scrub(plan, from.clone(), move |place| {
            told.borrow_mut().push((core, place.clone()));
        });
    }
    told
}

fn wait_for_passes(world: &mut World<Message>, engines: &[Engine]) {
    let waiting = engines.to_vec();
    let passed = world.run_task(CoreId(0), async move { passes(&waiting).await }, STEPS_MAX);
    passed.expect("passes come to an end");
}

/// Waits until every core has ended so many more passes. Those that are ahead pause meanwhile.
async fn passes(engines: &[Engine]) {
    let ended = |engine: &Engine| engine.counters().scrub_passes.get();
    let before: Vec<u64> = engines.iter().map(ended).collect();
    for (engine, before) in engines.iter().zip(before) {
        while ended(engine) < before + PASSES {
            engines[0].io().sleep(Duration::from_millis(200)).await;
        }
    }
}

fn errors(engines: &[Engine]) -> u64 {
    let of = |engine: &Engine| engine.counters().scrub_findings.get();
    engines.iter().map(of).sum()
}
