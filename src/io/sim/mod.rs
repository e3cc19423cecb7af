//! The simulated machine: many cores, their messages, a clock and a disk, in one thread, from one seed.
//!
//! [`World`] runs tasks written against [`Io`] step by step: it polls one ready task, drawn by
//! chance, or lets one disk operation, message or timer come to its end. A test may stop after any
//! step and take the power away; so it can crash at every await. What the disk may then have
//! forgotten is the fault model in the header of `disk`.
//!
//! ```text
//! let mut world = World::<Message>::new(seed, Options::new(3, shape));
//! world.spawn_on(CoreId(0), engine(world.machine(CoreId(0))));
//! world.run(|| done.get(), steps_max);
//! let mut world = World::restart(world.crash(), seed + 1, Options::new(2, shape));
//! ```
//!
//! Invariant: the same seed, options and tasks do the same, to the byte ([`World::fingerprint`]
//! tells). Hence no thread, no clock, no address, no hash map's order may decide anything here or in
//! a simulated task. What is not simulated: time that code takes (each poll takes a random moment),
//! memory alignment of buffers, and several machines.

mod clock;
mod disk;
mod executor;
mod history;
mod image;
mod mesh;
mod options;
mod rng;
mod segment;

pub use history::Stats;
pub use image::DiskImage;
pub use options::{FailAt, Faults, Options, Repeat};
pub use rng::{Chance, Rng};
pub use segment::SECTOR_BYTES;

use super::{CoreId, DISK_ALIGN_BYTES, Io, SegmentId, VolumeShape, VolumeState};
use clock::Clock;
use disk::{Accepted, Disk, Operation, Surroundings};
use executor::{Executor, Kept, Promise, Yield};
use history::History;
use image::Blanks;
use mesh::Mesh;
use segment::Segment;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// What the wall clock shows at the first boot: 2023-11-14T22:13:20Z.
const FIRST_BOOT_UNIX_MS: u64 = 1_700_000_000_000;
/// The longest that a machine stays down, in milliseconds.
const DOWN_MS_MAX: u64 = 30_000;
/// What one poll of a task takes, in nanoseconds.
const POLL_NS_MAX: u64 = 1_000;
/// How late a timer may be, in nanoseconds.
const TIMER_LATE_NS_MAX: u64 = 50_000;
/// A sleep longer than this, in nanoseconds (three years), never ends, lest time run out.
const FOREVER_NS: u128 = 3 * 365 * 86_400 * 1_000_000_000;
/// The longest pause of a core, in nanoseconds.
const PAUSE_NS_MAX: u64 = 10_000_000;

/// A machine under simulation. `M` is what its cores send each other.
pub struct World<M: Send + 'static> {
    shared: Rc<Shared<M>>,
}

/// One core's handle of a [`World`]; useless once that has crashed (nothing it asks for ends).
pub struct Machine<M: Send + 'static> {
    core: CoreId,
    shared: Rc<Shared<M>>,
}

/// How [`World::run`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What was waited for is there.
    Reached,
    /// Nothing is ready and nothing will be: all tasks ended, or wait for each other.
    Idle,
    /// The steps were used up.
    StepLimit,
}

/// Memory for a write: garbage when handed out, never zeros.
pub struct WriteBuf {
    bytes: Vec<u8>,
}

/// What a read found; shares memory with the disk.
#[derive(Clone)]
pub struct ReadBuf {
    blob: Rc<Vec<u8>>,
    start: usize,
    length: usize,
}

struct Shared<M> {
    cores: usize,
    shape: VolumeShape,
    volumes: Vec<VolumeState>,
    boot_epoch: u32,
    faults: Faults,
    /// Borrowed for the length of one call, never while a task runs or is dropped.
    executor: RefCell<Executor>,
    /// The same holds here. Nothing in it can hold a [`Machine`].
    state: RefCell<State<M>>,
    halted: Cell<bool>,
}

struct State<M> {
    clock: Clock<Event>,
    disk: Disk,
    mesh: Mesh<M>,
    rng: Rng,
    history: History,
}

/// What a run is told of its volumes.
fn states(options: &Options) -> Vec<VolumeState> {
    let state = |volume| match options.missing == Some(volume) {
        true => VolumeState::Missing,
        false => VolumeState::Present {
            segments_max: options.shape.segments_max,
            segments_known: 0,
        },
    };
    (0..options.volumes).map(state).collect()
}

enum Event {
    Timer(Rc<Promise<()>>),
    Disk(Operation),
    Deliver { from: CoreId, to: CoreId },
    Resume(CoreId),
}

/// The kinds of events that the fingerprint tells apart beside those of the disk.
const NOTE_MESSAGE: u64 = 1 << 60;
const NOTE_END: u64 = 3 << 60;

impl<M: Send + 'static> World<M> {
    /// A machine with an empty volume, at its first boot (epoch 1).
    pub fn new(seed: u64, options: Options) -> World<M> {
        let blanks = Blanks::new();
        World::restart(
            DiskImage::empty(options.shape, options.volumes, FIRST_BOOT_UNIX_MS, blanks),
            seed,
            options,
        )
    }

    /// The next boot of what `image` is left of; its epoch is one higher.
    pub fn restart(mut image: DiskImage, seed: u64, options: Options) -> World<M> {
        assert!(options.cores > 0 && options.cores <= usize::from(u16::MAX));
        assert_eq!(options.shape, image.shape, "a volume's shape is fixed for ever");
        assert!(options.volumes >= image.volumes, "a set keeps its volumes");
        image.volumes = options.volumes;
        let volumes = states(&options);
        let mut rng = Rng::new(seed);
        let executor = Executor::new(options.cores, rng.fork());
        let now_ns = rng.below(1 << 50);
        let mut clock = Clock::new(now_ns, image.unix_ms + rng.below(DOWN_MS_MAX));
        if rng.happens(options.faults.clock_jump) {
            clock.jump(&mut rng);
        }
        let disk = Disk::new(&mut image, options, &mut rng);
        // A run that writes nothing has no epoch of its own.
        let boot_epoch = image.boot_epoch + u32::from(options.missing.is_none());
        let mut history = image.history;
        history.keep_lines(options.trace_events);
        history.boot(now_ns, boot_epoch, seed, options.cores);
        World {
            shared: Rc::new(Shared {
                cores: options.cores,
                shape: options.shape,
                volumes,
                boot_epoch,
                faults: options.faults,
                executor: RefCell::new(executor),
                state: RefCell::new(State {
                    clock,
                    disk,
                    mesh: Mesh::new(options.cores),
                    rng,
                    history,
                }),
                halted: Cell::new(false),
            }),
        }
    }

    /// The handle of a core; panics if there is no such core.
    pub fn machine(&self, core: CoreId) -> Machine<M> {
        assert!(
            usize::from(core.0) < self.shared.cores,
            "there is no core {}",
            core.0
        );
        Machine {
            core,
            shared: self.shared.clone(),
        }
    }

    pub fn spawn_on(&self, core: CoreId, task: impl Future<Output = ()> + 'static) {
        self.machine(core).spawn(task);
    }

    /// Runs until `until` says so, which is asked before each step.
    pub fn run(&mut self, mut until: impl FnMut() -> bool, steps_max: u64) -> Outcome {
        for _ in 0..steps_max {
            if until() {
                return Outcome::Reached;
            }
            if !self.step() {
                return Outcome::Idle;
            }
        }
        if until() {
            Outcome::Reached
        } else {
            Outcome::StepLimit
        }
    }

    /// Runs `task` on `core`, and everything else, until it ends; `None` if it does not.
    pub fn run_task<T: 'static>(
        &mut self,
        core: CoreId,
        task: impl Future<Output = T> + 'static,
        steps_max: u64,
    ) -> Option<T> {
        let result = Rc::new(RefCell::new(None));
        let slot = result.clone();
        self.spawn_on(core, async move {
            let value = task.await;
            *slot.borrow_mut() = Some(value);
        });
        self.run(|| result.borrow().is_some(), steps_max);
        result.take()
    }

    /// Does one thing: brings what is due to its end, or polls a ready task, or if none is ready lets
    /// time go on to the next event. Says whether there was anything to do.
    pub fn step(&mut self) -> bool {
        let event = self.begin_step();
        if let Some(event) = event {
            self.fire(event);
            return true;
        }
        let ready = self.shared.executor.borrow_mut().take_ready();
        if let Some((id, mut task)) = ready {
            match task.poll() {
                Poll::Pending => self.shared.executor.borrow_mut().put_back(id, task),
                Poll::Ready(()) => {
                    drop(task);
                    self.shared.executor.borrow_mut().finish(id);
                }
            }
            let mut state = self.shared.state.borrow_mut();
            let took_ns = state.rng.between(1, POLL_NS_MAX);
            state.clock.advance(took_ns);
            return true;
        }
        let event = self.shared.state.borrow_mut().clock.take_next();
        match event {
            Some(event) => self.fire(event),
            None => return false,
        }
        true
    }

    /// Counts the step, perhaps pauses a core, and takes an event that is due.
    fn begin_step(&mut self) -> Option<Event> {
        let mut state = self.shared.state.borrow_mut();
        let state = &mut *state;
        state.history.stats.steps += 1;
        if state.rng.happens(self.shared.faults.core_pause)
            && let Some(core) = self.shared.executor.borrow_mut().pause_one()
        {
            let pause_ns = state.rng.below(PAUSE_NS_MAX);
            state.clock.schedule_in(pause_ns, Event::Resume(core));
        }
        state.clock.take_due()
    }

    fn fire(&mut self, event: Event) {
        let mut state = self.shared.state.borrow_mut();
        match event {
            Event::Timer(promise) => promise.keep(()),
            Event::Disk(operation) => state.with_disk(|disk, with| disk.finish(operation, with)),
            Event::Deliver { from, to } => state.mesh.deliver(from, to),
            Event::Resume(core) => self.shared.executor.borrow_mut().resume(core),
        }
    }

    /// The power goes: all tasks are dropped where they stand, and the disk keeps what it keeps.
    pub fn crash(self) -> DiskImage {
        self.end(|state, image| {
            state.history.stats.crashes += 1;
            state.note_end("the power goes");
            state.with_disk(|disk, with| disk.lose_power(image, with));
        })
    }

    /// The process dies, the machine does not (SIGKILL): completed writes are all there at the next
    /// boot, but no more durable than they were.
    pub fn kill(self) -> DiskImage {
        self.end(|state, image| {
            state.history.stats.kills += 1;
            state.note_end("the process is killed");
            state.disk.lose_process(image, &mut state.rng);
        })
    }

    fn end(self, lose: impl FnOnce(&mut State<M>, &mut DiskImage)) -> DiskImage {
        self.shared.halt();
        let mut state = self.shared.state.borrow_mut();
        let blanks = state.disk.blanks();
        let mut image = DiskImage::empty(
            self.shared.shape,
            self.shared.volumes.len(),
            state.clock.unix_ms(),
            blanks,
        );
        image.boot_epoch = self.shared.boot_epoch;
        lose(&mut state, &mut image);
        image.history = std::mem::take(&mut state.history);
        image
    }

    /// Counts since the first boot of this volume.
    pub fn stats(&self) -> Stats {
        self.shared.state.borrow().history.stats
    }

    /// Equal for two worlds that did the same at the same times with the same bytes.
    pub fn fingerprint(&self) -> u64 {
        self.shared.state.borrow().history.fingerprint()
    }

    /// The last events as text, the oldest first; see [`Options::trace_events`].
    pub fn trace(&self) -> Vec<String> {
        self.shared
            .state
            .borrow()
            .history
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Disk operations asked for since this boot: what [`FailAt`] counts.
    pub fn disk_operations(&self) -> u64 {
        self.shared.state.borrow().disk.operations()
    }
}

impl<M: Send + 'static> Drop for World<M> {
    /// Drops the tasks, which hold the world. (Its history prints itself if a test panics.)
    fn drop(&mut self) {
        self.shared.halt();
    }
}

impl<M> Shared<M> {
    /// Drops every task. What a task asks for while it is dropped is ignored.
    fn halt(&self) {
        self.halted.set(true);
        let tasks = self.executor.try_borrow_mut().map(|mut executor| executor.halt());
        drop(tasks);
    }
}

impl<M> State<M> {
    fn with_disk<R>(&mut self, call: impl FnOnce(&mut Disk, &mut Surroundings<'_>) -> R) -> R {
        let now_ns = self.clock.now_ns();
        let mut with = Surroundings {
            now_ns,
            rng: &mut self.rng,
            history: &mut self.history,
        };
        call(&mut self.disk, &mut with)
    }

    fn note_end(&mut self, how: &str) {
        let now_ns = self.clock.now_ns();
        let stats = &self.history.stats;
        let words = [NOTE_END, stats.steps, stats.crashes, stats.kills];
        self.history
            .note(now_ns, words, || format!("{how} after step {}", words[1]));
    }
}

impl<M: Send + 'static> Machine<M> {
    /// Has the disk begin something, and waits for its end.
    async fn disk<T>(
        &self,
        begin: impl FnOnce(&mut Disk, Rc<Promise<io::Result<T>>>, &mut Surroundings<'_>) -> Accepted,
    ) -> io::Result<T> {
        let answer = Promise::new();
        if !self.shared.halted.get() {
            let mut state = self.shared.state.borrow_mut();
            let accepted = state.with_disk(|disk, with| begin(disk, answer.clone(), with));
            if let Some((delay_ns, operation)) = accepted {
                state.clock.schedule_in(delay_ns, Event::Disk(operation));
            }
        }
        Kept(answer).await
    }
}

impl<M: Send + 'static> Clone for Machine<M> {
    fn clone(&self) -> Self {
        Machine {
            core: self.core,
            shared: self.shared.clone(),
        }
    }
}

impl<M: Send + 'static> Io for Machine<M> {
    type Message = M;
    type WriteBuf = WriteBuf;
    type ReadBuf = ReadBuf;

    fn core(&self) -> CoreId {
        self.core
    }

    fn cores(&self) -> usize {
        self.shared.cores
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let task: Pin<Box<dyn Future<Output = ()>>> = Box::pin(task);
        let refused = self.shared.executor.borrow_mut().spawn(self.core, task);
        drop(refused);
    }

    async fn yield_now(&self) {
        Yield::default().await;
    }

    async fn sleep(&self, duration: Duration) {
        let promise = Promise::new();
        if duration.as_nanos() < FOREVER_NS {
            let mut state = self.shared.state.borrow_mut();
            let delay_ns = duration.as_nanos() as u64 + state.rng.below(TIMER_LATE_NS_MAX);
            state.clock.schedule_in(delay_ns, Event::Timer(promise.clone()));
        }
        Kept(promise).await;
    }

    fn monotonic_ns(&self) -> u64 {
        self.shared.state.borrow().clock.now_ns()
    }

    fn unix_ms(&self) -> u64 {
        let mut state = self.shared.state.borrow_mut();
        let state = &mut *state;
        if state.rng.happens(self.shared.faults.clock_jump) {
            state.clock.jump(&mut state.rng);
        }
        state.clock.unix_ms()
    }

    fn send(&self, to: CoreId, message: M) {
        if self.shared.halted.get() {
            return;
        }
        let mut state = self.shared.state.borrow_mut();
        let state = &mut *state;
        let now_ns = state.clock.now_ns();
        state.history.stats.messages += 1;
        let words = [
            NOTE_MESSAGE,
            u64::from(self.core.0),
            u64::from(to.0),
            state.history.stats.messages,
        ];
        state.history.note(now_ns, words, || {
            format!(
                "core {} sends message {} to core {}",
                words[1], words[3], words[2]
            )
        });
        let arrival_ns = state.mesh.send(self.core, to, message, now_ns, &mut state.rng);
        state
            .clock
            .schedule_at(arrival_ns, Event::Deliver { from: self.core, to });
    }

    async fn receive(&self) -> Vec<(CoreId, M)> {
        poll_fn(|context| {
            let mut state = self.shared.state.borrow_mut();
            match state.mesh.receive(self.core, context.waker()) {
                Some(messages) => Poll::Ready(messages),
                None => Poll::Pending,
            }
        })
        .await
    }

    fn volume_id(&self) -> [u8; 16] {
        *b"simulated volume"
    }

    fn volume(&self) -> VolumeShape {
        let present = self
            .shared
            .volumes
            .iter()
            .filter(|state| **state != VolumeState::Missing);
        VolumeShape {
            segments_max: self.shared.shape.segments_max * present.count() as u32,
            ..self.shared.shape
        }
    }

    fn volumes(&self) -> &[VolumeState] {
        &self.shared.volumes
    }

    fn boot_epoch(&self) -> u32 {
        self.shared.boot_epoch
    }

    fn buffer(&self, length_bytes: usize) -> WriteBuf {
        assert!(
            length_bytes > 0 && length_bytes.is_multiple_of(DISK_ALIGN_BYTES),
            "a buffer of {length_bytes} bytes"
        );
        let garbage = self.shared.state.borrow_mut().rng.between(1, 255) as u8;
        WriteBuf {
            bytes: vec![garbage; length_bytes],
        }
    }

    async fn segments(&self) -> io::Result<Vec<SegmentId>> {
        self.disk(|disk, answer, with| disk.list(self.core, answer, with))
            .await
    }

    async fn allocate(&self, id: SegmentId) -> io::Result<()> {
        self.disk(|disk, answer, with| disk.allocate(self.core, id, answer, with))
            .await
    }

    async fn leave(&self, _id: SegmentId) {}

    async fn write(&self, id: SegmentId, offset: u32, buf: WriteBuf) -> io::Result<()> {
        self.disk(|disk, answer, with| disk.write(self.core, id, offset, buf, answer, with))
            .await
    }

    async fn read(&self, id: SegmentId, offset: u32, length: u32) -> io::Result<ReadBuf> {
        self.disk(|disk, answer, with| disk.read(self.core, id, offset, length, answer, with))
            .await
    }

    async fn sync(&self, id: SegmentId) -> io::Result<()> {
        self.disk(|disk, answer, with| disk.sync(self.core, id, answer, with))
            .await
    }
}

impl AsRef<[u8]> for WriteBuf {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<[u8]> for WriteBuf {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl ReadBuf {
    fn at(segment: &Segment, first_page: u32, pages: u32, rng: &mut Rng) -> ReadBuf {
        let (blob, start) = segment.read(first_page, pages, rng);
        ReadBuf {
            blob,
            start,
            length: pages as usize * DISK_ALIGN_BYTES,
        }
    }
}

impl AsRef<[u8]> for ReadBuf {
    fn as_ref(&self) -> &[u8] {
        &self.blob[self.start..self.start + self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::ops::Range;

    const PAGE: u32 = DISK_ALIGN_BYTES as u32;
    const SHAPE: VolumeShape = VolumeShape {
        segment_size_bytes: 1 << 20,
        segments_max: 16,
    };
    const STEPS_MAX: u64 = 100_000;

    type Acknowledged = Rc<RefCell<BTreeMap<(u32, u32), u8>>>;

    /// What page `page` of segment `segment` is to hold; never a byte of a fresh segment by chance alone.
    fn stamp(segment: u32, page: u32) -> u8 {
        (segment * 31 + page * 7 + 1) as u8
    }

    /// Each core but the first fills a segment with pairs of pages, syncs, and tells core 0, which
    /// acknowledges. A core stops at its first error.
    fn toy(world: &World<(u32, u32)>, pages: Range<u32>) -> Acknowledged {
        let acknowledged = Acknowledged::default();
        let cores = world.shared.cores as u16;
        for core in (1..cores).map(CoreId) {
            let (io, pages) = (world.machine(core), pages.clone());
            world.spawn_on(core, async move {
                let _ = fill(io, u32::from(core.0), pages).await;
            });
        }
        let (io, done) = (world.machine(CoreId(0)), acknowledged.clone());
        world.spawn_on(CoreId(0), async move {
            loop {
                for (_, (segment, page)) in io.receive().await {
                    done.borrow_mut().insert((segment, page), stamp(segment, page));
                }
            }
        });
        acknowledged
    }

    async fn fill(io: Machine<(u32, u32)>, segment: u32, pages: Range<u32>) -> io::Result<()> {
        io.allocate(SegmentId(segment)).await?;
        for page in pages.step_by(2) {
            write_page(&io, segment, page).await?;
            write_page(&io, segment, page + 1).await?;
            io.sync(SegmentId(segment)).await?;
            io.send(CoreId(0), (segment, page));
            io.send(CoreId(0), (segment, page + 1));
        }
        Ok(())
    }

    fn assert_kept(image: &DiskImage, acknowledged: &Acknowledged) {
        for ((segment, page), byte) in acknowledged.borrow().iter() {
            let bytes = image.read(SegmentId(*segment), page * PAGE, PAGE).unwrap();
            assert!(
                bytes.iter().all(|found| found == byte),
                "page {page} of segment {segment}"
            );
        }
    }

    async fn write_page(io: &Machine<(u32, u32)>, segment: u32, page: u32) -> io::Result<()> {
        let mut buf = io.buffer(DISK_ALIGN_BYTES);
        buf.as_mut().fill(stamp(segment, page));
        io.write(SegmentId(segment), page * PAGE, buf).await
    }

    fn options(cores: usize) -> Options {
        Options::new(cores, SHAPE)
    }

    fn noisy(cores: usize) -> Options {
        let faults = Faults {
            slow: Chance::one_in(50),
            clock_jump: Chance::one_in(3),
            core_pause: Chance::one_in(40),
            stale_segment: Chance::one_in(2),
            ..Faults::default()
        };
        Options {
            faults,
            trace_events: 1_000_000,
            ..options(cores)
        }
    }

    fn world(seed: u64) -> World<(u32, u32)> {
        World::new(seed, options(2))
    }

    #[test]
    fn a_seed_decides_everything() {
        let run = |seed| {
            let mut world = World::new(seed, noisy(4));
            let acknowledged = toy(&world, 0..20);
            assert_eq!(
                world.run(|| acknowledged.borrow().len() == 60, STEPS_MAX),
                Outcome::Reached
            );
            let image = world.crash();
            let world = World::<()>::restart(image, seed, noisy(2));
            (world.fingerprint(), world.trace(), world.stats())
        };
        let (first, second, other) = (run(11), run(11), run(12));
        assert!(first.1.len() > 200);
        assert!(first == second, "the same seed, another course");
        assert_ne!(first.0, other.0);
        assert_ne!(first.1, other.1);
    }

    #[test]
    fn a_crash_at_any_step_keeps_what_was_acknowledged() {
        for seed in 0..4 {
            let mut steps = 0;
            loop {
                let mut world = World::new(seed, options(3));
                let acknowledged = toy(&world, 0..6);
                let outcome = world.run(|| acknowledged.borrow().len() == 12, steps);
                let image = world.crash();
                assert_kept(&image, &acknowledged);
                if outcome == Outcome::Reached {
                    break;
                }
                steps += 1;
            }
            assert!(steps > 50);
        }
    }

    #[test]
    fn boots_on_failing_disks_keep_what_each_of_them_acknowledged() {
        let mut total = Stats::default();
        for seed in 0..150 {
            let mut rng = Rng::new(seed);
            let mut image = World::<()>::new(seed, options(1)).crash();
            let mut all = Vec::new();
            for boot in 0..8 {
                let faults = Faults::failing(&mut rng);
                let drawn = Options {
                    faults,
                    ..options(2 + rng.index(3))
                };
                let mut world = World::restart(image, rng.next_u64(), drawn);
                all.push(toy(&world, boot * 10..boot * 10 + 10));
                world.run(|| false, rng.below(400));
                image = if rng.below(3) == 0 {
                    world.kill()
                } else {
                    world.crash()
                };
                all.iter()
                    .for_each(|acknowledged| assert_kept(&image, acknowledged));
            }
            let stats = image.stats();
            total.crashes += stats.crashes;
            total.kills += stats.kills;
            total.write_errors += stats.write_errors;
            total.sync_errors += stats.sync_errors;
            total.stuck += stats.stuck;
            total.writes_torn += stats.writes_torn;
        }
        let seen = [
            total.crashes,
            total.kills,
            total.write_errors,
            total.sync_errors,
            total.stuck,
        ];
        assert!(
            seen.iter().all(|count| *count > 5) && total.writes_torn > 50,
            "{total}"
        );
    }

    /// The reverse of the above: a toy that acknowledges before its sync must be caught.
    #[test]
    fn an_acknowledgement_before_the_sync_is_found() {
        let found = (0..50).filter(|seed| {
            let mut world = world(*seed);
            let io = world.machine(CoreId(0));
            let task = async move {
                io.allocate(SegmentId(0)).await.unwrap();
                write_page(&io, 0, 0).await.unwrap();
            };
            world.run_task(CoreId(0), task, STEPS_MAX).unwrap();
            let bytes = world.crash().read(SegmentId(0), 0, PAGE).unwrap();
            bytes.iter().any(|byte| *byte != stamp(0, 0))
        });
        assert!(found.count() > 20);
    }

    #[test]
    fn a_kill_keeps_completed_writes_and_a_power_loss_after_it_may_not() {
        let mut lost = 0;
        for seed in 0..50 {
            let mut first = world(seed);
            let io = first.machine(CoreId(0));
            let task = async move {
                io.allocate(SegmentId(0)).await.unwrap();
                write_page(&io, 0, 0).await.unwrap();
            };
            first.run_task(CoreId(0), task, STEPS_MAX).unwrap();
            let mut second = World::<()>::restart(first.kill(), seed, options(1));
            let io = second.machine(CoreId(0));
            let read = async move { io.read(SegmentId(0), 0, PAGE).await.unwrap() };
            let found = second.run_task(CoreId(0), read, STEPS_MAX).unwrap();
            assert!(found.as_ref().iter().all(|byte| *byte == stamp(0, 0)));
            let left = second.crash().read(SegmentId(0), 0, PAGE).unwrap();
            lost += u32::from(left.iter().any(|byte| *byte != stamp(0, 0)));
        }
        assert!(lost > 10, "{lost}");
    }

    #[test]
    fn messages_of_a_pair_arrive_once_each_and_in_order() {
        let mut world = World::<u32>::new(
            5,
            Options {
                faults: noisy(3).faults,
                ..options(3)
            },
        );
        for core in [1, 2].map(CoreId) {
            let io = world.machine(core);
            world.spawn_on(core, async move {
                for number in 0..200 {
                    io.send(CoreId(0), number);
                    if number % 3 == 0 {
                        io.yield_now().await;
                    }
                }
            });
        }
        let io = world.machine(CoreId(0));
        let task = async move {
            let mut received = Vec::new();
            while received.len() < 400 {
                received.extend(io.receive().await);
            }
            received
        };
        let received = world.run_task(CoreId(0), task, STEPS_MAX).unwrap();
        for sender in [1, 2].map(CoreId) {
            let numbers = received
                .iter()
                .filter(|(from, _)| *from == sender)
                .map(|(_, number)| *number);
            assert!(numbers.eq(0..200));
        }
        let alternations = received.windows(2).filter(|pair| pair[0].0 != pair[1].0).count();
        assert!(alternations > 1, "the senders' messages mix");
    }

    #[test]
    fn timers_take_their_time_and_no_longer_in_steps() {
        let mut world = world(3);
        let io = world.machine(CoreId(1));
        let task = async move {
            let (before_ns, before_ms) = (io.monotonic_ns(), io.unix_ms());
            io.sleep(Duration::from_secs(3600)).await;
            (io.monotonic_ns() - before_ns, io.unix_ms() - before_ms)
        };
        let (slept_ns, slept_ms) = world.run_task(CoreId(1), task, 10).unwrap();
        assert!(
            (3_600_000_000_000..3_600_001_000_000).contains(&slept_ns),
            "{slept_ns}"
        );
        assert!((3_600_000..=3_600_001).contains(&slept_ms), "{slept_ms}");
    }

    #[test]
    fn a_task_that_only_yields_does_not_stop_time() {
        let mut world = world(4);
        let (io, spinner) = (world.machine(CoreId(0)), world.machine(CoreId(0)));
        world.spawn_on(CoreId(0), async move {
            loop {
                spinner.yield_now().await;
            }
        });
        let task = async move { io.sleep(Duration::from_micros(100)).await };
        assert_eq!(world.run_task(CoreId(0), task, STEPS_MAX), Some(()));
    }

    #[test]
    fn tasks_that_wait_for_each_other_are_idle() {
        let mut world = world(4);
        let io = world.machine(CoreId(0));
        world.spawn_on(CoreId(0), async move {
            io.receive().await;
        });
        assert_eq!(world.run(|| false, STEPS_MAX), Outcome::Idle);
    }

    #[test]
    fn a_restart_raises_the_epoch_and_goes_on_with_other_cores() {
        let world = world(1);
        assert_eq!(world.machine(CoreId(0)).boot_epoch(), 1);
        let before_ms = world.machine(CoreId(0)).unix_ms();
        let world = World::<()>::restart(world.crash(), 2, options(5));
        let io = world.machine(CoreId(4));
        assert_eq!((io.boot_epoch(), io.cores(), io.volume()), (2, 5, SHAPE));
        assert!(io.unix_ms() >= before_ms);
        assert_eq!((world.stats().boots, world.stats().crashes), (2, 1));
    }

    #[test]
    fn an_allocated_segment_survives_and_is_not_made_twice() {
        for seed in 0..20 {
            let mut world = world(seed);
            let io = world.machine(CoreId(0));
            let task = async move {
                io.allocate(SegmentId(3)).await.unwrap();
                write_page(&io, 3, 0).await.unwrap();
                io.sync(SegmentId(3)).await.unwrap();
                io.allocate(SegmentId(3)).await.unwrap();
                io.segments().await.unwrap()
            };
            assert_eq!(
                world.run_task(CoreId(0), task, STEPS_MAX).unwrap(),
                [SegmentId(3)]
            );
            let image = world.crash();
            assert!(image.segments().eq([SegmentId(3)]));
            assert_eq!(image.read(SegmentId(3), 1, 1).unwrap(), [stamp(3, 0)]);
        }
    }

    #[test]
    fn a_write_whose_future_was_dropped_may_land_later() {
        let mut landed = 0;
        for seed in 0..20 {
            let mut world = world(seed);
            let io = world.machine(CoreId(0));
            let task = async move {
                io.allocate(SegmentId(0)).await.unwrap();
                let mut write = Box::pin(write_page(&io, 0, 0));
                assert!(
                    poll_fn(|context| Poll::Ready(write.as_mut().poll(context)))
                        .await
                        .is_pending()
                );
                drop(write);
                io.sleep(Duration::from_secs(1)).await;
                io.read(SegmentId(0), 0, PAGE).await.unwrap()
            };
            let found = world.run_task(CoreId(0), task, STEPS_MAX).unwrap();
            landed += u32::from(found.as_ref().iter().all(|byte| *byte == stamp(0, 0)));
        }
        assert_eq!(landed, 20);
    }

    #[test]
    fn writes_that_overlap_in_flight_are_counted() {
        let mut world = world(1);
        let io = world.machine(CoreId(0));
        let task = async move {
            io.allocate(SegmentId(0)).await.unwrap();
            for page in [3, 4, 3] {
                let io = io.clone();
                io.clone()
                    .spawn(async move { write_page(&io, 0, page).await.unwrap() });
            }
            io.sleep(Duration::from_secs(1)).await;
            write_page(&io, 0, 3).await.unwrap();
        };
        world.run_task(CoreId(0), task, STEPS_MAX).unwrap();
        assert_eq!(world.stats().overlapping_writes, 1);
    }

    #[test]
    fn a_buffer_is_never_handed_out_zeroed() {
        let world = world(1);
        let io = world.machine(CoreId(0));
        assert!((0..300).all(|_| !io.buffer(DISK_ALIGN_BYTES).as_ref().contains(&0)));
    }

    #[test]
    fn the_nth_operation_fails_once_or_with_all_that_follow() {
        let errors = |repeat, operation| {
            let fail_at = Some(FailAt { operation, repeat });
            let faults = Faults {
                fail_at,
                ..Faults::default()
            };
            let mut world = World::<(u32, u32)>::new(7, Options { faults, ..options(1) });
            let io = world.machine(CoreId(0));
            let task = async move {
                let mut errors = vec![io.allocate(SegmentId(0)).await.is_err()];
                if errors[0] {
                    return errors;
                }
                errors.push(write_page(&io, 0, 0).await.is_err());
                errors.push(io.sync(SegmentId(0)).await.is_err());
                errors.push(io.read(SegmentId(0), 0, PAGE).await.is_err());
                errors.push(io.segments().await.is_err());
                errors
            };
            let errors = world.run_task(CoreId(0), task, STEPS_MAX).unwrap();
            assert!(errors[0] || world.disk_operations() == 5);
            errors
        };
        assert_eq!(errors(Repeat::Once, 0), [true]);
        assert_eq!(errors(Repeat::Once, 2), [false, false, true, false, false]);
        assert_eq!(errors(Repeat::Forever, 2), [false, false, true, true, true]);
        assert_eq!(errors(Repeat::Once, 5), [false; 5]);
    }

    #[test]
    fn faults_that_are_always_on_always_show() {
        let with = |faults| {
            let mut world = World::<(u32, u32)>::new(8, Options { faults, ..options(1) });
            let io = world.machine(CoreId(0));
            let task = async move {
                io.allocate(SegmentId(0))
                    .await
                    .map_err(|error| error.raw_os_error())?;
                write_page(&io, 0, 0)
                    .await
                    .map_err(|error| error.raw_os_error())?;
                io.sync(SegmentId(0))
                    .await
                    .map_err(|error| error.raw_os_error())?;
                let found = io
                    .read(SegmentId(0), 0, PAGE)
                    .await
                    .map_err(|error| error.raw_os_error())?;
                if found.as_ref().iter().all(|byte| *byte == stamp(0, 0)) {
                    Ok(())
                } else {
                    Err(None)
                }
            };
            (world.run_task(CoreId(0), task, STEPS_MAX), world.stats())
        };
        let (always, none) = (Chance::ALWAYS, Faults::default());
        let (eio, enospc) = (Some(Err(Some(libc::EIO))), Some(Err(Some(libc::ENOSPC))));
        assert_eq!(with(none).0, Some(Ok(())));
        assert_eq!(
            with(Faults {
                read_error: always,
                ..none
            })
            .0,
            eio
        );
        assert_eq!(
            with(Faults {
                write_error: always,
                ..none
            })
            .0,
            eio
        );
        assert_eq!(
            with(Faults {
                sync_error: always,
                ..none
            })
            .0,
            eio
        );
        assert_eq!(
            with(Faults {
                no_space: always,
                ..none
            })
            .0,
            enospc
        );
        assert_eq!(
            with(Faults {
                segments_until_no_space: Some(0),
                ..none
            })
            .0,
            enospc
        );
        assert_eq!(
            with(Faults {
                stuck: always,
                ..none
            })
            .0,
            None
        );
        assert_eq!(with(Faults { slow: always, ..none }).0, Some(Ok(())));
        assert_eq!(
            with(Faults {
                lost_write: always,
                ..none
            })
            .0,
            Some(Err(None))
        );
        assert_eq!(
            with(Faults {
                misdirected_write: always,
                ..none
            })
            .0,
            Some(Err(None))
        );
        assert_eq!(
            with(Faults {
                bit_rot: always,
                ..none
            })
            .0,
            Some(Err(None))
        );
        assert_eq!(
            with(Faults {
                bit_rot: always,
                ..none
            })
            .1
            .bits_rotted,
            1
        );
    }

    #[test]
    fn an_image_can_be_copied_and_damaged() {
        let mut world = world(9);
        let io = world.machine(CoreId(0));
        let task = async move {
            io.allocate(SegmentId(0)).await.unwrap();
            write_page(&io, 0, 0).await.unwrap();
            io.sync(SegmentId(0)).await.unwrap();
        };
        world.run_task(CoreId(0), task, STEPS_MAX).unwrap();
        let whole = world.crash();
        let mut damaged = whole.clone();
        damaged.flip_bit(SegmentId(0), 100, 3);
        damaged.overwrite(SegmentId(0), PAGE - 1, &[1, 2, 3]);
        assert_eq!(damaged.read(SegmentId(0), 100, 1).unwrap(), [stamp(0, 0) ^ 8]);
        assert_eq!(damaged.read(SegmentId(0), PAGE - 1, 3).unwrap(), [1, 2, 3]);
        assert_eq!(whole.read(SegmentId(0), 100, 1).unwrap(), [stamp(0, 0)]);
        assert_eq!(whole.read(SegmentId(0), 1 << 20, 1), None);
        assert_eq!(whole.read(SegmentId(1), 0, 1), None);
    }

    #[test]
    fn what_a_dying_task_asks_for_is_ignored() {
        struct SpawnsWhenDropped(Machine<(u32, u32)>);
        impl Drop for SpawnsWhenDropped {
            fn drop(&mut self) {
                let io = self.0.clone();
                self.0.send(CoreId(0), (0, 0));
                self.0.spawn(async move { io.yield_now().await });
            }
        }
        let mut world = world(1);
        let guard = SpawnsWhenDropped(world.machine(CoreId(1)));
        world.spawn_on(CoreId(1), async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        world.run(|| false, 10);
        let shared = Rc::downgrade(&world.shared);
        world.crash();
        assert!(shared.upgrade().is_none(), "nothing holds the world any more");
    }

    #[test]
    #[should_panic(expected = "never allocated")]
    fn a_write_to_a_segment_never_allocated_is_a_bug() {
        let mut world = world(1);
        let io = world.machine(CoreId(0));
        world.run_task(CoreId(0), async move { write_page(&io, 0, 0).await }, STEPS_MAX);
    }

    #[test]
    #[should_panic(expected = "past the segment's end")]
    fn a_write_past_the_end_is_a_bug() {
        let mut world = world(1);
        let io = world.machine(CoreId(0));
        let task = async move {
            io.allocate(SegmentId(0)).await.unwrap();
            io.write(SegmentId(0), (1 << 20) - PAGE, io.buffer(2 * DISK_ALIGN_BYTES))
                .await
        };
        world.run_task(CoreId(0), task, STEPS_MAX);
    }
}
