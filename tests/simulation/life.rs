//! One seed's volume: boots, work, crashes, restarts, and at last all deleted and all room back.
//!
//! Invariant: the same seed does the same, to the byte.

use crate::check::implied_live_bytes;
use crate::model::Model;
use crate::shrink::Trim;
use crate::workload::{Client, Engine, Shared, SimIo, Tally, Traits};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use weft::engine::{Message, RecoverError, Recovered, Sizes, SpaceUse};
use weft::io::sim::{DiskImage, Faults, Options, Outcome, Rng, Stats, World};
use weft::io::{CoreId, SegmentId, VolumeShape};

/// Steps in which a start, a check or the end of all calls must come.
const STEPS_MAX: u64 = 20_000_000;

/// With fewer a core has nowhere to put anything.
const SEGMENTS_OF_A_CORE: u32 = 12;

/// What a seed's disks do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weather {
    Fair,
    Harmless,
    Failing,
}

/// A seed's volume and what is known of it.
pub struct Life {
    rng: Rng,
    trim: Trim,
    weather: Weather,
    shape: VolumeShape,
    volumes: usize,
    traits: Traits,
    model: Rc<RefCell<Model>>,
    tally: Rc<RefCell<Tally>>,
    image: Option<DiskImage>,
    trace_events: usize,
    sizes: Sizes,
    /// The faults of this boot include errors and operations that never end.
    failing_now: bool,
}

/// What came of a seed.
#[derive(Default)]
pub struct Report {
    pub stats: Stats,
    pub fingerprint: u64,
}

struct Running {
    world: World<Message>,
    shared: Rc<Shared>,
}

enum Start {
    Running(Running),
    /// It did not come up: the power went, or the disk said no.
    Ended,
}

impl Life {
    pub fn new(seed: u64, trim: Trim, tally: Rc<RefCell<Tally>>, trace_events: usize) -> Life {
        let mut rng = Rng::new(seed);
        let weather = match rng.below(8) * trim.of("faults") {
            0..=3 => Weather::Fair,
            4 | 5 => Weather::Harmless,
            _ => Weather::Failing,
        };
        // Most volumes are so small that little is free but for what the cleaner makes.
        let segments_max = match rng.below(8) {
            0..=4 => rng.between(18, 34),
            5 | 6 => rng.between(34, 60),
            _ => rng.between(60, 200),
        } as u32;
        let traits = Traits {
            keys: rng.between(2, 40).min(trim.of("keys")),
            buckets: rng.between(1, 3).min(trim.of("buckets")),
            body_bytes_max: [200, 9_000, 70_000, 200_000, 600_000, 600_000][rng.index(6)]
                .min(trim.of("body_bytes")),
            deletes: rng.below(4),
            disk_may_fail: false,
            rude: rng.below(3) > 0,
        };
        // Of its own, so that a seed's life is the same but for its volumes.
        let volumes = [1, 1, 2, 3][Rng::new(seed ^ 0x0070_1e5e).index(4)].min(trim.of("volumes") as usize);
        Life {
            rng,
            trim,
            weather,
            shape: VolumeShape {
                segment_size_bytes: 1 << 20,
                segments_max: segments_max.div_ceil(volumes as u32),
            },
            volumes,
            traits,
            model: Rc::default(),
            tally,
            image: None,
            trace_events,
            sizes: Sizes::default(),
            failing_now: false,
        }
    }

    /// Runs the seed through `crashes` crashes and to its end.
    pub fn run(mut self, crashes: u64) -> Report {
        for _ in 0..crashes {
            self.boot_and_crash();
        }
        self.last_boots()
    }

    fn world(&mut self, calm: bool) -> World<Message> {
        // Each core holds some segments ready, and each has its share of the reserve.
        let segments = self.shape.segments_max * self.volumes as u32;
        let cores_max = (segments / SEGMENTS_OF_A_CORE).clamp(1, 4);
        let cores = self
            .rng
            .between(1, u64::from(cores_max))
            .min(self.trim.of("cores")) as usize;
        let mut options = Options::new(cores, self.shape);
        options.volumes = self.volumes;
        options.trace_events = self.trace_events;
        if !calm {
            options.faults = match self.weather {
                Weather::Fair => Faults::default(),
                Weather::Harmless => Faults::harmless(&mut self.rng),
                Weather::Failing => Faults::failing(&mut self.rng),
            };
            if self.volumes > 1 && self.rng.coin() {
                options.faults.only_volume = Some(self.rng.index(self.volumes));
            }
        }
        self.failing_now = !calm && self.weather == Weather::Failing;
        self.sizes = any_sizes(&mut self.rng);
        let seed = self.rng.next_u64();
        match self.image.take() {
            None => World::new(seed, options),
            Some(image) => World::restart(image, seed, options),
        }
    }

    fn end(&mut self, world: World<Message>) {
        self.model.borrow_mut().crash();
        let image = if self.rng.below(3) == 0 {
            world.kill()
        } else {
            world.crash()
        };
        self.image = Some(image);
    }

    /// Boots, checks, works, and ends at a random step.
    fn boot_and_crash(&mut self) {
        let mut steps = match self.rng.below(6) {
            0 => self.rng.below(400),
            1 => self.rng.below(3_000),
            2..=4 => self.rng.below(12_000),
            _ => self.rng.below(40_000),
        }
        .min(self.trim.of("steps"));
        // Of two thirds of the boots the start and the check take no steps off the rest of the boot's life.
        let work_steps = steps;
        let spared = self.rng.below(3) > 0;
        if spared {
            steps = u64::MAX;
        }
        let Start::Running(mut running) = self.start(false, &mut steps) else {
            return;
        };
        let verified = self.with_client(&mut running, &mut steps, async |client| client.verify().await);
        if spared {
            steps = work_steps;
        }
        if verified.is_some() && steps > 0 {
            self.work(&mut running, &mut steps);
            if self.rng.below(3) == 0 {
                self.quiesce(&mut running);
            }
        }
        self.end_of(running);
    }

    fn end_of(&mut self, running: Running) {
        self.check_counters(&running);
        self.end(running.world);
    }

    fn start(&mut self, calm: bool, steps: &mut u64) -> Start {
        let mut world = self.world(calm);
        let cores = world.machine(CoreId(0)).cores_of();
        type Started = Vec<Option<Result<(Engine, Recovered), RecoverError>>>;
        let started: Rc<RefCell<Started>> = Rc::new(RefCell::new((0..cores).map(|_| None).collect()));
        for core in 0..cores {
            let (io, started) = (world.machine(CoreId(core as u16)), started.clone());
            let sizes = self.sizes;
            world.spawn_on(CoreId(core as u16), async move {
                let result = Engine::start(io, &sizes).await;
                started.borrow_mut()[core] = Some(result);
            });
        }
        let done = || {
            let started = started.borrow();
            started.iter().all(Option::is_some) || started.iter().flatten().any(Result::is_err)
        };
        let outcome = run(&mut world, done, steps);
        let failed = started.borrow().iter().flatten().any(Result::is_err);
        if failed {
            for result in started.borrow().iter().flatten() {
                if let Err(error) = result {
                    assert!(self.failing_now, "recovery: {error}");
                }
            }
        }
        if outcome != Outcome::Reached || failed {
            self.check_liveness(&world, outcome, *steps, "a start");
            self.tally.borrow_mut().count("start cut off");
            self.end(world);
            return Start::Ended;
        }
        let mut engines = Vec::new();
        let mut recovered = Recovered::default();
        for result in started.take() {
            let Some(Ok((engine, share))) = result else {
                unreachable!("all have started")
            };
            engines.push(engine);
            recovered.add(&share);
        }
        assert!(
            !recovered.is_damaged() && recovered.orphans == 0,
            "nothing was damaged: {recovered:?}"
        );
        let shared = Rc::new(Shared {
            engines,
            model: self.model.clone(),
            stop: Cell::new(false),
            running: Cell::new(0),
            traits: Traits {
                disk_may_fail: self.failing_now,
                ..self.traits
            },
            tally: self.tally.clone(),
        });
        Start::Running(Running { world, shared })
    }

    /// Nothing left to do while somebody waits is a deadlock, unless an operation is stuck.
    fn check_liveness(&self, world: &World<Message>, outcome: Outcome, steps_left: u64, what: &str) {
        match outcome {
            Outcome::Reached => {}
            Outcome::Idle => assert!(
                self.failing_now && world.stats().stuck > 0,
                "{what} waits for ever"
            ),
            Outcome::StepLimit => assert!(steps_left == 0, "{what} does not end"),
        }
    }

    fn client(&mut self, shared: &Rc<Shared>) -> (CoreId, Client) {
        let core = self.rng.index(shared.engines.len());
        let (engine, rng) = (shared.engines[core].clone(), self.rng.fork());
        (
            CoreId(core as u16),
            Client {
                shared: shared.clone(),
                engine,
                rng,
            },
        )
    }

    /// Has one client do something; `None` if the steps were used up or the disk is stuck.
    fn with_client<T: 'static>(
        &mut self,
        running: &mut Running,
        steps: &mut u64,
        work: impl AsyncFnOnce(&mut Client) -> T + 'static,
    ) -> Option<T> {
        let (core, mut client) = self.client(&running.shared);
        let result = Rc::new(RefCell::new(None));
        let slot = result.clone();
        running.world.spawn_on(core, async move {
            let value = work(&mut client).await;
            *slot.borrow_mut() = Some(value);
        });
        let outcome = run(&mut running.world, || result.borrow().is_some(), steps);
        self.check_liveness(&running.world, outcome, *steps, "a check");
        result.take()
    }

    fn work(&mut self, running: &mut Running, steps: &mut u64) {
        let clients = self.rng.between(1, 8).min(self.trim.of("clients")) as usize;
        running.shared.stop.set(false);
        running.shared.running.set(clients);
        for _ in 0..clients {
            let (core, client) = self.client(&running.shared);
            running.world.spawn_on(core, client.run());
        }
        let outcome = run(&mut running.world, || false, steps);
        self.check_liveness(&running.world, outcome, *steps, "the work");
    }

    /// Lets everything end, then holds the engine's accounts against what it stores.
    fn quiesce(&mut self, running: &mut Running) {
        running.shared.stop.set(true);
        let shared = running.shared.clone();
        let mut steps = STEPS_MAX;
        let outcome = run(&mut running.world, || shared.running.get() == 0, &mut steps);
        assert!(outcome != Outcome::StepLimit, "the clients do not come to an end");
        self.check_liveness(&running.world, outcome, 0, "a client");
        if outcome == Outcome::Reached && self.settle(running) {
            self.tally.borrow_mut().count("quiesced");
        }
    }

    /// Settles all cores and checks their accounts; false if the disk did not let it.
    fn settle(&mut self, running: &mut Running) -> bool {
        let engines = running.shared.engines.clone();
        let settled = Rc::new(Cell::new(0));
        for (core, engine) in engines.iter().enumerate() {
            let (engine, settled) = (engine.clone(), settled.clone());
            running.world.spawn_on(CoreId(core as u16), async move {
                engine.settle().await;
                settled.set(settled.get() + 1);
            });
        }
        let outcome = running.world.run(|| false, STEPS_MAX);
        assert_eq!(
            outcome,
            Outcome::Idle,
            "an engine without work does not come to rest"
        );
        self.check_liveness(
            &running.world,
            outcome_of(settled.get() == engines.len()),
            0,
            "settling",
        );
        if settled.get() < engines.len() || running.world.stats().stuck > 0 {
            return false;
        }
        let mut steps = STEPS_MAX;
        let implied = self.with_client(running, &mut steps, async |client| {
            let implied = implied_live_bytes(client).await;
            let mut by_index: BTreeMap<SegmentId, i64> = BTreeMap::new();
            for engine in &client.shared.engines {
                let implied = client.insist(async |_| engine.live_bytes_implied().await).await;
                for (segment, bytes) in implied.expect("an index that can be read") {
                    *by_index.entry(segment).or_default() += bytes;
                }
                let held = client.insist(async |_| engine.holdings_implied().await).await;
                assert_eq!(
                    *engine.holdings(),
                    held.expect("an index that can be read"),
                    "what a core's index holds as counted, and as it is"
                );
            }
            (implied, by_index)
        });
        let Some((implied, by_index)) = implied else {
            return false;
        };
        running.world.run(|| false, STEPS_MAX);
        self.check_space(running, implied, by_index);
        true
    }

    fn check_space(&self, running: &Running, implied: u64, by_index: BTreeMap<SegmentId, i64>) {
        let engines = &running.shared.engines;
        let space = engines[0].space_use().expect("core 0 keeps the table");
        let failed = engines
            .iter()
            .any(|engine| engine.counters().disk_errors.get() > 0);
        if failed {
            assert!(
                space.live_bytes >= implied,
                "{space:?}, but {implied} bytes are live"
            );
            return;
        }
        let in_runs: u64 = engines.iter().map(Engine::index_bytes).sum();
        assert_eq!(
            space.live_bytes,
            implied + in_runs,
            "live bytes as counted, and as they are: {space:?}"
        );
        assert_eq!(
            engines[0].live_bytes_counted(),
            Some(by_index),
            "live bytes of each segment as counted, and as the indexes say"
        );
        // A log and a data segment, one spare of each, where moved data goes, and where runs do.
        let open_max = 6 * engines.len();
        assert!(
            space.open <= open_max,
            "segments are open that nobody fills: {space:?}"
        );
        assert_eq!(
            space.retiring, 0,
            "a segment is being retired, and nobody reads: {space:?}"
        );
    }

    fn check_counters(&self, running: &Running) {
        for engine in &running.shared.engines {
            let counters = engine.counters();
            let mut tally = self.tally.borrow_mut();
            *tally.counts.entry("entries moved").or_default() += counters.entries_moved.get();
            *tally.counts.entry("bytes moved").or_default() += counters.bytes_moved.get();
            *tally.counts.entry("rounds of cleaning").or_default() += counters.clean_rounds.get();
            *tally.counts.entry("segments cleaned").or_default() += counters.segments_cleaned.get();
            *tally.counts.entry("checkpoints").or_default() += counters.checkpoints.get();
            *tally.counts.entry("merges of runs").or_default() += counters.merges.get();
            *tally.counts.entry("bytes written").or_default() += counters.bytes_written.get();
            assert_eq!(
                engine.counters().checksum_errors.get(),
                0,
                "a checksum failed, and nothing was damaged"
            );
        }
    }

    /// A calm boot in which all is checked and deleted, and one in which all room is there again.
    fn last_boots(mut self) -> Report {
        let mut steps = u64::MAX;
        let Start::Running(mut running) = self.start(true, &mut steps) else {
            unreachable!("nothing is in its way")
        };
        self.with_client(&mut running, &mut steps, async |client| client.verify().await)
            .expect("a check");
        self.settle(&mut running);
        self.with_client(&mut running, &mut steps, async |client| {
            client.delete_everything().await
        })
        .expect("an end of all");
        self.settle(&mut running);
        self.check_counters(&running);
        let image = running.world.kill();
        self.image = Some(image);
        let Start::Running(mut running) = self.start(true, &mut steps) else {
            unreachable!("nothing is in its way")
        };
        self.settle(&mut running);
        self.compact(&mut running);
        let space: SpaceUse = running.shared.engines[0]
            .space_use()
            .expect("core 0 keeps the table");
        assert_eq!(space.live_bytes, 0, "everything was deleted");
        // A log to begin with, and where the manifest lies.
        let stock = 2 * running.shared.engines.len();
        assert_eq!(space.free + stock, space.segments, "segments leaked: {space:?}");
        let (stats, fingerprint) = (running.world.stats(), running.world.fingerprint());
        assert_eq!(
            stats.overlapping_writes, 0,
            "a place was written while it was being written"
        );
        Report { stats, fingerprint }
    }

    /// Has the index of each core be one run, or none.
    fn compact(&mut self, running: &mut Running) {
        for (core, engine) in running.shared.engines.iter().enumerate() {
            let engine = engine.clone();
            let core = CoreId(core as u16);
            running
                .world
                .spawn_on(core, async move { engine.compact().await });
        }
        let outcome = running.world.run(|| false, STEPS_MAX);
        assert_eq!(outcome, Outcome::Idle, "merges do not come to an end");
    }

    pub fn describe(&self) -> String {
        format!(
            "{:?}, {} volumes of {} segments, {:?}",
            self.weather, self.volumes, self.shape.segments_max, self.traits
        )
    }
}

/// So little memory that runs are written and merged all the time, or so much that none is.
fn any_sizes(rng: &mut Rng) -> Sizes {
    Sizes {
        table_bytes: [500, 2_000, 10_000, 1 << 20][rng.index(4)],
        page_cache_bytes: [10_000, 100_000, 1 << 20][rng.index(3)],
        lookup_cache_bytes: 64 << 20,
        log_tail_bytes: [60_000, 1 << 20, 256 << 20][rng.index(3)],
    }
}

fn outcome_of(reached: bool) -> Outcome {
    if reached { Outcome::Reached } else { Outcome::Idle }
}

/// Runs until `until`, taking what it takes off `steps`; with none left it stops where it is.
fn run(world: &mut World<Message>, until: impl FnMut() -> bool, steps: &mut u64) -> Outcome {
    let before = world.stats().steps;
    let outcome = world.run(until, (*steps).min(STEPS_MAX));
    let taken = world.stats().steps - before;
    *steps = steps.saturating_sub(taken);
    outcome
}

/// How many cores a machine has.
trait CoresOf {
    fn cores_of(&self) -> usize;
}

impl CoresOf for SimIo {
    fn cores_of(&self) -> usize {
        weft::io::Io::cores(self)
    }
}
