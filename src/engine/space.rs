//! Where there is room: which segments are free, and how many live bytes each of the others holds.
//!
//! The coordinator keeps the table; each core tells it what died and what came to life, gathered by segment
//! (its ledger). Invariants: a segment is reused only when it is sealed, nothing in it is live, and no read
//! that could meet it is in flight; a log segment that holds tombstones outlives every log that may hold what they
//! delete, and each of those is marked free on disk first, so that no deleted key comes back.

use crate::engine::Machine;
use crate::engine::core::{COORDINATOR, Core, ReplyTo};
use crate::engine::message::{Allocation, Content, Found, Note, Purpose, Refusal, Reply, SpaceDelta, Survey};
use crate::engine::planted::{Fault, planted};
use crate::index::Lives;
use crate::io::{CoreId, SegmentId};
use crate::log::SegmentKind;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// A core's changes of live bytes that the coordinator does not know yet.
#[derive(Default)]
pub struct Ledger {
    deltas: RefCell<BTreeMap<SegmentId, (i64, Option<Lives>)>>,
    flush_planned: Cell<bool>,
}

/// Generations that a start skips when it cannot know all that there were.
const GENERATIONS_SKIPPED: u64 = 1 << 16;
/// How long a change of live bytes may wait for company.
const LEDGER_DELAY: Duration = Duration::from_millis(20);

/// What the coordinator knows of the volume's segments.
pub struct SpaceTable {
    segments: Vec<Segment>,
    /// Free and written before: no new blocks to allocate.
    recycled: VecDeque<SegmentId>,
    /// Free and never made.
    fresh: VecDeque<SegmentId>,
    next_generation: u64,
    /// Lives of log segments that are not free, oldest first.
    logs: BTreeMap<u64, SegmentId>,
    /// Sealed, and nothing live: free as soon as the rules allow.
    empty: BTreeSet<SegmentId>,
    /// Cores that were refused.
    refused: BTreeSet<CoreId>,
    cores: usize,
    /// Segments kept back for what makes room.
    reserve: usize,
    /// False until recovery has accounted for everything.
    open: bool,
    /// The one that is being made: the next comes when it is there, so that none is ever missing in between.
    making: Option<SegmentId>,
    /// Who waits for that.
    waiting: VecDeque<(Content, Purpose, ReplyTo)>,
    /// Lives that began before this generation are not ended.
    kept_before: u64,
}

/// What becomes of what was on the volume before this run, once nothing refers to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Before {
    Reused,
    /// Some of what refers to it may be lost.
    Kept,
}

#[derive(Clone, Copy)]
struct Segment {
    status: Status,
    generation: u64,
    live_bytes: i64,
    /// Logs that may hold what its tombstones delete.
    shields: Option<Lives>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Free,
    Open(Content),
    Sealed(Content),
    /// Waiting until no core reads it.
    Retiring {
        content: Content,
        cores_left: usize,
    },
    /// Damaged or failed: never reused in this run.
    Unusable,
}

/// How much of the volume is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceUse {
    pub segments: usize,
    pub free: usize,
    /// Given to a core, which fills it or keeps it ready.
    pub open: usize,
    /// Empty, and waiting for reads to end or for its mark on disk.
    pub retiring: usize,
    pub live_bytes: u64,
}

impl SpaceTable {
    pub fn new(segments_max: u32, cores: usize) -> SpaceTable {
        let free = Segment {
            status: Status::Free,
            generation: 0,
            live_bytes: 0,
            shields: None,
        };
        SpaceTable {
            segments: vec![free; segments_max as usize],
            recycled: VecDeque::new(),
            fresh: (0..segments_max).map(SegmentId).collect(),
            next_generation: 1,
            logs: BTreeMap::new(),
            empty: BTreeSet::new(),
            refused: BTreeSet::new(),
            cores,
            reserve: 2 * cores,
            open: false,
            making: None,
            waiting: VecDeque::new(),
            kept_before: 0,
        }
    }

    /// Takes what was found at start; every segment in use counts as sealed.
    pub fn survey(&mut self, survey: &Survey) {
        for found in &survey.segments {
            let Some(segment) = self.segments.get_mut(found.segment.0 as usize) else {
                continue;
            };
            self.next_generation = self.next_generation.max(found.generation + 1);
            segment.generation = found.generation;
            segment.status = match found.content {
                Found::Log => Status::Sealed(Content::Log),
                Found::Data => Status::Sealed(Content::Data),
                Found::Free => Status::Free,
                // It may come back: whatever was made in its place would be overwritten.
                Found::Unreadable | Found::Missing => Status::Unusable,
            };
            match found.content {
                Found::Log => drop(self.logs.insert(found.generation, found.segment)),
                Found::Free => self.recycled.push_back(found.segment),
                Found::Data | Found::Unreadable | Found::Missing => {}
            }
        }
        let known: BTreeSet<SegmentId> = survey.segments.iter().map(|found| found.segment).collect();
        self.fresh.retain(|fresh| !known.contains(fresh));
    }

    pub fn usage(&self) -> SpaceUse {
        let count = |which: fn(Status) -> bool| {
            self.segments
                .iter()
                .filter(|segment| which(segment.status))
                .count()
        };
        SpaceUse {
            segments: self.segments.len(),
            free: self.recycled.len() + self.fresh.len(),
            open: count(|status| matches!(status, Status::Open(_))),
            retiring: count(|status| matches!(status, Status::Retiring { .. })),
            live_bytes: self
                .segments
                .iter()
                .map(|segment| segment.live_bytes.max(0) as u64)
                .sum(),
        }
    }

    fn allocate(&mut self, content: Content, purpose: Purpose) -> Result<Allocation, Refusal> {
        let free = self.recycled.len() + self.fresh.len();
        if free == 0 || purpose == Purpose::Growth && free <= self.reserve {
            return Err(Refusal::Full);
        }
        let id = match self.recycled.pop_front() {
            Some(id) => id,
            None => {
                let id = self.fresh.pop_front().expect("one is free");
                self.making = Some(id);
                id
            }
        };
        let generation = self.next_generation;
        self.next_generation += 1;
        let status = Status::Open(content);
        self.segments[id.0 as usize] = Segment {
            status,
            generation,
            live_bytes: 0,
            shields: None,
        };
        if content == Content::Log {
            self.logs.insert(generation, id);
        }
        Ok(Allocation {
            segment: id,
            generation,
        })
    }

    fn account(&mut self, deltas: &[SpaceDelta]) {
        for delta in deltas {
            let segment = &mut self.segments[delta.segment.0 as usize];
            segment.live_bytes += delta.live_bytes;
            segment.shields = segment
                .shields
                .into_iter()
                .chain(delta.shields)
                .reduce(Lives::and);
            self.note_if_empty(delta.segment);
        }
    }

    /// Damage to a log can bring back an entry whose bytes lie in a segment that is free by now. A next life that
    /// started its count at nothing would be thought empty when that entry goes: it is not begun until then.
    fn hold_back_what_is_referred_to(&mut self) {
        let segments = &mut self.segments;
        let mut is_free = |id: &SegmentId| {
            let segment = &mut segments[id.0 as usize];
            if segment.live_bytes != 0 {
                segment.status = Status::Sealed(Content::Data);
            }
            segment.live_bytes == 0
        };
        self.recycled.retain(&mut is_free);
        self.fresh.retain(&mut is_free);
    }

    /// Keeps all that was there before this run as it is. What cannot be read may have had the greatest generation.
    fn keep_what_was_there(&mut self) {
        self.recycled.clear();
        self.next_generation += GENERATIONS_SKIPPED;
        self.kept_before = self.next_generation;
    }

    /// Whether the next segment has to be made, while another one is.
    fn must_wait(&self) -> bool {
        self.making.is_some() && self.recycled.is_empty() && !self.fresh.is_empty()
    }

    fn note_if_empty(&mut self, id: SegmentId) {
        let segment = &self.segments[id.0 as usize];
        // Before recovery has accounted for everything, nothing live only means that not all was told.
        let accounted = self.open || planted(Fault::EmptyEarly);
        if accounted && matches!(segment.status, Status::Sealed(_)) && segment.live_bytes == 0 {
            self.empty.insert(id);
        }
    }

    /// The segments that may be retired now; they are, from here on.
    fn retire_empty(&mut self) -> Vec<SegmentId> {
        if !self.open {
            return Vec::new();
        }
        let ready: Vec<SegmentId> = self
            .empty
            .iter()
            .copied()
            .filter(|&id| self.segments[id.0 as usize].generation >= self.kept_before)
            .filter(|&id| !self.shields(id) || planted(Fault::TombstoneFreedEarly))
            .collect();
        for &id in &ready {
            self.empty.remove(&id);
            let segment = &mut self.segments[id.0 as usize];
            let Status::Sealed(content) = segment.status else {
                unreachable!("only sealed segments are empty")
            };
            segment.status = Status::Retiring {
                content,
                cores_left: self.cores,
            };
        }
        ready
    }

    /// Whether a segment's tombstones may still delete something.
    fn shields(&self, id: SegmentId) -> bool {
        let segment = &self.segments[id.0 as usize];
        // Of its own records it is rid when they go with it.
        segment.shields.is_some_and(|lives| {
            let mut logs = self.logs.range(lives.generations());
            logs.any(|(generation, _)| *generation != segment.generation)
        })
    }

    /// One core has no read of the segment any more; returns its content when it was the last.
    fn retired(&mut self, id: SegmentId) -> Option<Content> {
        let Status::Retiring { content, cores_left } = &mut self.segments[id.0 as usize].status else {
            unreachable!("only a retiring segment is retired")
        };
        *cores_left -= 1;
        (*cores_left == 0).then_some(*content)
    }

    fn take_back(&mut self, id: SegmentId, status: Status) {
        let segment = &mut self.segments[id.0 as usize];
        segment.status = status;
        self.logs.remove(&segment.generation);
    }

    /// A segment that was given could not be made: it is as free as before, and its core waits for room.
    pub fn unmade(&mut self, id: SegmentId, core: CoreId) {
        self.take_back(id, Status::Free);
        match self.making == Some(id) {
            true => self.fresh.push_front(id),
            false => self.recycled.push_back(id),
        }
        self.refused.insert(core);
    }

    /// A segment that was given cannot be written: it is left out of this run.
    pub fn unusable(&mut self, id: SegmentId) {
        self.take_back(id, Status::Unusable);
    }

    /// The segment is free on disk too; returns the cores to tell that there is room.
    fn freed(&mut self, id: SegmentId) -> BTreeSet<CoreId> {
        let segment = &mut self.segments[id.0 as usize];
        segment.status = Status::Free;
        self.logs.remove(&segment.generation);
        self.recycled.push_back(id);
        if self.recycled.len() + self.fresh.len() > self.reserve {
            return std::mem::take(&mut self.refused);
        }
        BTreeSet::new()
    }
}

impl<I: Machine> Core<I> {
    /// Counts live bytes of a segment up or down.
    pub fn account_here(self: &Rc<Self>, segment: SegmentId, live_bytes: i64) {
        self.ledger.deltas.borrow_mut().entry(segment).or_default().0 += live_bytes;
        self.plan_flush();
    }

    /// Counts a tombstone (or poison) in a log, of records that the logs of `lives` may hold.
    pub fn account_tombstone(self: &Rc<Self>, segment: SegmentId, lives: Lives) {
        {
            let mut deltas = self.ledger.deltas.borrow_mut();
            let shields = &mut deltas.entry(segment).or_default().1;
            *shields = Some(shields.map_or(lives, |known| known.and(lives)));
        }
        self.plan_flush();
    }

    /// Tells the coordinator now.
    pub fn flush_ledger(self: &Rc<Self>) {
        let deltas = std::mem::take(&mut *self.ledger.deltas.borrow_mut());
        if !deltas.is_empty() {
            let deltas = deltas.into_iter();
            let deltas = deltas.map(|(segment, (live_bytes, shields))| SpaceDelta {
                segment,
                live_bytes,
                shields,
            });
            self.note(COORDINATOR, Note::Space(deltas.collect()));
        }
    }

    fn plan_flush(self: &Rc<Self>) {
        if self.ledger.flush_planned.replace(true) {
            return;
        }
        let core = self.clone();
        self.io.spawn(async move {
            core.io.sleep(LEDGER_DELAY).await;
            core.ledger.flush_planned.set(false);
            core.flush_ledger();
        });
    }

    /// Coordinator: recovery has accounted for everything; segments may be reused.
    pub fn open_space(self: &Rc<Self>, before: Before) {
        let mut table = self.space.borrow_mut();
        table.open = true;
        table.hold_back_what_is_referred_to();
        if before == Before::Kept {
            table.keep_what_was_there();
        }
        for id in 0..table.segments.len() as u32 {
            table.note_if_empty(SegmentId(id));
        }
        drop(table);
        self.free_empty();
    }

    /// Coordinator: a segment for a core.
    pub fn allocate_segment(self: &Rc<Self>, content: Content, purpose: Purpose, to: ReplyTo) {
        if self.space.borrow().must_wait() {
            let mut table = self.space.borrow_mut();
            return table.waiting.push_back((content, purpose, to));
        }
        let allocated = self.space.borrow_mut().allocate(content, purpose);
        if allocated.is_err() {
            let core = match &to {
                ReplyTo::Local(_) => self.io.core(),
                ReplyTo::Remote { core, .. } => *core,
            };
            self.space.borrow_mut().refused.insert(core);
        }
        self.reply(to, Reply::Allocated(allocated));
    }

    /// Coordinator: a segment that was given is there.
    pub fn segment_made(self: &Rc<Self>, id: SegmentId) {
        let waiting = {
            let mut table = self.space.borrow_mut();
            if table.making != Some(id) {
                return;
            }
            table.making = None;
            std::mem::take(&mut table.waiting)
        };
        for (content, purpose, to) in waiting {
            self.allocate_segment(content, purpose, to);
        }
    }

    /// Coordinator: a segment that was given could not be made.
    pub fn segment_unmade(self: &Rc<Self>, id: SegmentId, core: CoreId) {
        self.space.borrow_mut().unmade(id, core);
        self.segment_made(id);
    }

    /// Coordinator: live bytes changed.
    pub fn account(self: &Rc<Self>, deltas: &[SpaceDelta]) {
        self.space.borrow_mut().account(deltas);
        self.free_empty();
    }

    /// Coordinator: a segment's life has nothing to come.
    pub fn segment_sealed(self: &Rc<Self>, id: SegmentId) {
        {
            let mut table = self.space.borrow_mut();
            let segment = &mut table.segments[id.0 as usize];
            let Status::Open(content) = segment.status else {
                unreachable!("only an open segment is sealed")
            };
            segment.status = Status::Sealed(content);
            table.note_if_empty(id);
        }
        self.free_empty();
    }

    /// Coordinator: a core reads the segment no more.
    pub fn segment_retired(self: &Rc<Self>, id: SegmentId, _from: CoreId) {
        let last = self.space.borrow_mut().retired(id);
        match last {
            None => {}
            Some(Content::Data) => self.segment_freed(id),
            // Free on disk before it counts as gone: younger tombstones may go once it does.
            Some(Content::Log) => {
                let core = self.clone();
                self.io.spawn(async move { core.free_log(id).await });
            }
        }
    }

    async fn free_log(self: &Rc<Self>, id: SegmentId) {
        let generation = self.space.borrow().segments[id.0 as usize].generation;
        let header = self.segment_header(id, SegmentKind::Free, generation);
        match self.write_header(&header).await {
            Ok(()) => self.segment_freed(id),
            Err(error) => {
                warn!("weft: log segment {id} cannot be marked free: {error}; it is left out");
                self.counters.disk_errors.set(self.counters.disk_errors.get() + 1);
                self.space.borrow_mut().segments[id.0 as usize].status = Status::Unusable;
            }
        }
    }

    fn segment_freed(self: &Rc<Self>, id: SegmentId) {
        let tell = self.space.borrow_mut().freed(id);
        for core in tell {
            self.note(core, Note::SpaceFreed);
        }
        self.free_empty();
    }

    fn free_empty(self: &Rc<Self>) {
        let ready = self.space.borrow_mut().retire_empty();
        for segment in ready {
            for core in self.everyone() {
                self.note(core, Note::Retire { segment });
            }
        }
    }
}
