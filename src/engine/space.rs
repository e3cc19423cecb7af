//! Where there is room: which segments are free, and how many live bytes each of the others holds.
//!
//! The coordinator keeps the table; each core tells it what died and what came to life, gathered by segment
//! (its ledger). Invariants: a segment is reused only when it is sealed, nothing in it is live, and no read
//! that could meet it is in flight; a log, only when a manifest on stable storage says that what it says is in runs; and
//! what earlier boots left of logs and runs, only when every core has such a manifest of this boot.

use crate::engine::Machine;
use crate::engine::core::{COORDINATOR, Core, ReplyTo, count};
use crate::engine::message::{
    Allocation, CleanPlan, Content, Found, Lack, Note, Purpose, Refusal, Reply, Request, SpaceDelta, Survey,
};
use crate::engine::planted::{Fault, planted};
use crate::engine::scrub::SealedSegment;
use crate::engine::spread::{PerSegment, Room, Spread};
use crate::engine::victims::{Candidate, Round, Shortage};
use crate::io::{CoreId, SegmentId, VolumeState};
use crate::limits::CLEAN_VICTIMS_MAX;
use crate::log::SegmentKind;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// A core's changes of live bytes that the coordinator does not know yet.
#[derive(Default)]
pub struct Ledger {
    deltas: RefCell<BTreeMap<SegmentId, i64>>,
    /// Bytes that clients' changes wrote or ended.
    changed_bytes: Cell<u64>,
    flush_planned: Cell<bool>,
}

/// Generations that a start skips when it cannot know all that there were.
const GENERATIONS_SKIPPED: u64 = 1 << 16;
/// How long a change of live bytes may wait for company.
const LEDGER_DELAY: Duration = Duration::from_millis(20);

/// What the coordinator knows of the volume's segments.
pub struct SpaceTable {
    segments: PerSegment<Segment>,
    spread: Spread,
    volumes: usize,
    /// Free and written before: no new blocks to allocate.
    recycled: VecDeque<SegmentId>,
    /// Free and never made.
    fresh: VecDeque<SegmentId>,
    next_generation: u64,
    /// Sealed, and nothing live: free as soon as the rules allow.
    empty: BTreeSet<SegmentId>,
    /// Cores that were refused.
    refused: BTreeSet<CoreId>,
    cores: usize,
    marks: Marks,
    /// Segments that are being marked free on disk.
    marking: usize,
    /// A round of cleaning is under way.
    cleaning: bool,
    /// What rounds of cleaning came to since clients last changed much.
    gain: Gain,
    /// By core of this boot: its logs of lives before this generation are not needed any more. 0: it has no manifest.
    covered: Vec<u64>,
    /// Every core has one, and says so: what earlier boots left counts no more.
    is_confirmed: bool,
    /// The first life of this boot.
    first_generation: u64,
    /// When segments that could not be emptied were last given another chance.
    retried_ns: u64,
    /// False until recovery has accounted for everything.
    open: bool,
    /// Manifests are written in this run.
    may_checkpoint: bool,
    /// The one that is being made: the next comes when it is there, so that none is ever missing in between.
    making: Option<SegmentId>,
    /// Who waits for that.
    waiting: VecDeque<(Content, Purpose, ReplyTo)>,
    /// Lives that began before this generation are not ended.
    kept_before: u64,
    /// Found without a header that can be read, or not at all.
    unreadable: Vec<SegmentId>,
    missing: Vec<SegmentId>,
    /// The last segment that was asked for to store more was refused.
    is_full: bool,
    /// When the operator was last told so.
    told_full_ns: Option<u64>,
    /// The operator was told that the volume is full, and not yet that there is room.
    believed_full: bool,
}

/// What becomes of what was on the volume before this run, once nothing refers to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Before {
    Reused,
    /// Some of what refers to it may be lost.
    Kept,
    /// Some of what refers to it is lost for good, and segments that are lost are made anew.
    GivenUp,
}

/// How many free segments are kept back for what.
#[derive(Clone, Copy)]
struct Marks {
    /// For runs and manifests alone: with them logs become free.
    index: usize,
    /// For them and the cleaner: each core needs a log and a data segment before another one becomes free.
    moves: usize,
    /// For it and for deletes.
    release: usize,
    /// With fewer there is cleaning.
    low: usize,
}

impl Marks {
    fn new(segments: usize, cores: usize) -> Marks {
        let index = cores;
        let moves = index + 2 * cores;
        let release = moves + cores;
        Marks {
            index,
            moves,
            release,
            low: release + (2 * cores).max(segments / LOW_PARTS),
        }
    }

    fn kept_from(&self, purpose: Purpose) -> usize {
        match purpose {
            Purpose::Index => 0,
            Purpose::Moves => self.index,
            Purpose::Release => self.moves,
            Purpose::Growth => self.release,
        }
    }
}

/// Segments that a core has open: a log, a data segment, the next of either, one for what is moved, and one for runs and
/// manifests.
const OPEN_OF_A_CORE: usize = 6;

/// Segments of the smallest volume that so many cores can work on: with all that they may have open there is room for
/// one more segment of bodies.
pub fn segments_min(cores: usize) -> u32 {
    let kept_back = Marks::new(0, cores).release;
    let (part, of) = (LIVE_PARTS.0 as usize, LIVE_PARTS.1 as usize);
    (kept_back + ((OPEN_OF_A_CORE * cores + 1) * of).div_ceil(part)) as u32
}

/// Whether cleaning leads anywhere. What is live may be packed as well as can be: then moving it round and round makes
/// no room, and only what clients change does.
#[derive(Clone, Copy, Default)]
struct Gain {
    /// The most segments that were free, or about to be.
    most_free: usize,
    /// Rounds since there were more than ever before.
    vain_rounds: u32,
    /// Bytes that clients have changed since.
    changed_bytes: u64,
}

/// So many rounds in vain may be followed by one that is not: each leaves segments half full.
const VAIN_ROUNDS_MAX: u32 = 12;
/// Clients must change one segment's size in so many for another attempt.
const CHANGED_PARTS: u64 = 4;

impl Gain {
    fn is_over(&self) -> bool {
        self.vain_rounds >= VAIN_ROUNDS_MAX
    }

    fn note_round(&mut self, free: usize) {
        self.vain_rounds += 1;
        if free > self.most_free {
            self.most_free = free;
            self.vain_rounds = 0;
        }
    }

    fn note_change(&mut self, bytes: u64, segment_bytes: u64) {
        self.changed_bytes += bytes;
        if self.changed_bytes >= segment_bytes / CHANGED_PARTS {
            *self = Gain::default();
        }
    }
}

/// Free segments that are marked so on disk, for each core: what a start gives out before it has counted what lives.
const MARKED_OF_A_CORE: usize = 6;
/// There is cleaning when fewer than one segment in this many is free, beside those that are kept back.
const LOW_PARTS: usize = 32;
/// Of the room that there is, this part may be live: the rest is what headers, padding and ends of segments take, and
/// what makes cleaning worth its while.
const LIVE_PARTS: (u64, u64) = (15, 16);
/// What the operator is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum News {
    Full,
    Room,
}

/// A volume that is full now and then is called so once in so many nanoseconds.
const TELL_NS: u64 = 60_000_000_000;
/// Segments that could not be emptied are tried again after this long, in nanoseconds, if room is lacking then.
const RETRY_NS: u64 = 1_000_000_000;

#[derive(Clone, Copy)]
struct Segment {
    status: Status,
    generation: u64,
    live_bytes: i64,
    /// What a round of cleaning left in it. While that is all there, another would be in vain.
    left_bytes: Option<i64>,
    /// Holds what cannot be moved.
    is_pinned: bool,
    /// The core that fills it, if it is of this boot.
    core: CoreId,
    /// Of an earlier boot, and no start needs what it says.
    is_unneeded: bool,
    /// Free, and its header says so.
    is_marked: bool,
}

impl Segment {
    fn is_sealed(&self) -> bool {
        matches!(self.status, Status::Sealed(_))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Free,
    Open(Content),
    Sealed(Content),
    /// Waiting until no core reads it.
    Retiring {
        cores_left: usize,
    },
    /// Damaged or failed: never reused in this run.
    Unusable,
}

/// How much of the volume is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpaceUse {
    pub segments: usize,
    pub free: usize,
    /// Given to a core, which fills it or keeps it ready.
    pub open: usize,
    /// Empty, and waiting for reads to end or for its mark on disk.
    pub retiring: usize,
    /// Those of `open` that are logs.
    pub open_logs: usize,
    /// Full or ended: only read and cleaned.
    pub sealed_logs: usize,
    pub sealed_data: usize,
    /// Left out of this run: damaged, missing, failed, or held back because something may refer to them.
    pub unusable: usize,
    pub live_bytes: u64,
    /// What sealed segments hold besides: the room that cleaning could make.
    pub dead_bytes: u64,
    /// Segments that would have to be free besides for cleaning to rest, and how short room is: from 0 to 1.
    pub missing: usize,
    pub shortage: f64,
    /// The last segment that was asked for to store more was refused.
    pub is_full: bool,
}

impl SpaceTable {
    pub fn new(volumes: &[VolumeState], cores: usize) -> SpaceTable {
        let free = Segment {
            status: Status::Free,
            generation: 0,
            live_bytes: 0,
            left_bytes: None,
            is_pinned: false,
            core: COORDINATOR,
            is_unneeded: false,
            is_marked: false,
        };
        let segments = PerSegment::new(volumes, free);
        SpaceTable {
            spread: Spread::new(volumes.len()),
            volumes: volumes.len(),
            recycled: VecDeque::new(),
            fresh: segments.ids().collect(),
            next_generation: 1,
            empty: BTreeSet::new(),
            refused: BTreeSet::new(),
            cores,
            marks: Marks::new(segments.len(), cores),
            segments,
            marking: 0,
            cleaning: false,
            gain: Gain::default(),
            covered: vec![0; cores],
            is_confirmed: false,
            first_generation: 1,
            retried_ns: 0,
            open: false,
            may_checkpoint: true,
            making: None,
            waiting: VecDeque::new(),
            kept_before: 0,
            unreadable: Vec::new(),
            missing: Vec::new(),
            is_full: false,
            told_full_ns: None,
            believed_full: false,
        }
    }

    /// Takes what was found at start; every segment in use counts as sealed.
    pub fn survey(&mut self, survey: &Survey) {
        for found in &survey.segments {
            let Some(segment) = self.segments.get_mut(found.segment) else {
                continue;
            };
            self.next_generation = self.next_generation.max(found.generation + 1);
            segment.generation = found.generation;
            segment.status = match found.content {
                Found::Log => Status::Sealed(Content::Log),
                Found::Data => Status::Sealed(Content::Data),
                Found::Index => Status::Sealed(Content::Index),
                Found::Free => Status::Free,
                // It may come back: whatever was made in its place would be overwritten.
                Found::Unreadable | Found::Missing => Status::Unusable,
            };
            match found.content {
                Found::Free => {
                    segment.is_marked = true;
                    self.recycled.push_back(found.segment);
                }
                Found::Unreadable => self.unreadable.push(found.segment),
                Found::Missing => self.missing.push(found.segment),
                Found::Log | Found::Data | Found::Index => {}
            }
        }
        self.first_generation = self.next_generation;
        let known: BTreeSet<SegmentId> = survey.segments.iter().map(|found| found.segment).collect();
        self.fresh.retain(|fresh| !known.contains(fresh));
    }

    /// At start: what no start needs, whether or not this boot writes manifests.
    pub fn set_unneeded(&mut self, segments: &[SegmentId]) {
        for id in segments {
            self.segments[*id].is_unneeded = true;
        }
    }

    pub fn usage(&self, segment_bytes: u64) -> SpaceUse {
        let count = |which: fn(Status) -> bool| {
            self.segments
                .values()
                .filter(|segment| which(segment.status))
                .count()
        };
        let live_in = |segment: &Segment| segment.live_bytes.max(0) as u64;
        let sealed = self.segments.values().filter(|segment| segment.is_sealed());
        let free = self.free();
        let usable = count(|status| !matches!(status, Status::Free | Status::Unusable));
        SpaceUse {
            segments: self.segments.len(),
            free,
            open: count(|status| matches!(status, Status::Open(_))),
            retiring: self.retiring(),
            open_logs: count(|status| status == Status::Open(Content::Log)),
            sealed_logs: count(|status| status == Status::Sealed(Content::Log)),
            sealed_data: count(|status| status == Status::Sealed(Content::Data)),
            unusable: self.segments.len() - free - usable,
            live_bytes: self.segments.values().map(live_in).sum(),
            dead_bytes: sealed
                .map(|segment| segment_bytes.saturating_sub(live_in(segment)))
                .sum(),
            missing: self.marks.low.saturating_sub(free + self.retiring()),
            shortage: self.shortage().part_of(1 << 20) as f64 / (1 << 20) as f64,
            is_full: self.is_full,
        }
    }

    /// Live bytes of each segment that has any.
    pub fn live_bytes(&self) -> BTreeMap<SegmentId, i64> {
        let counted = self.segments.entries();
        let counted = counted.map(|(id, segment)| (id, segment.live_bytes));
        counted.filter(|(_, live_bytes)| *live_bytes != 0).collect()
    }

    /// The first sealed segment from there on that a core is to verify: its own logs of this boot, and of all else those
    /// that fall to it by their number.
    pub fn sealed_from(&self, from: SegmentId, core: CoreId) -> Option<SealedSegment> {
        let falls_to = |id: SegmentId, segment: &Segment| match segment.status {
            Status::Sealed(Content::Log) if segment.generation >= self.first_generation => {
                segment.core == core
            }
            Status::Sealed(_) => id.0 as usize % self.cores == usize::from(core.0),
            Status::Free | Status::Open(_) | Status::Retiring { .. } | Status::Unusable => false,
        };
        let mut sealed = self.segments.entries_from(from);
        let (segment, known) = sealed.find(|(id, segment)| falls_to(*id, segment))?;
        Some(SealedSegment {
            segment,
            generation: known.generation,
        })
    }

    fn allocate(
        &mut self,
        content: Content,
        purpose: Purpose,
        core: CoreId,
        segment_bytes: u64,
    ) -> Result<Allocation, Lack> {
        let kept = self.marks.kept_from(purpose);
        if purpose == Purpose::Growth && !self.may_grow(segment_bytes) {
            return Err(Lack::Refused(Refusal::Full));
        }
        if self.free() <= kept {
            return Err(match kept > 0 && self.can_make_room(segment_bytes) {
                true => Lack::Cleaning,
                false => Lack::Refused(Refusal::Full),
            });
        }
        let id = self.take_free(content);
        let generation = self.next_generation;
        self.next_generation += 1;
        let status = Status::Open(content);
        // What damage brought back may refer to its last life. Before all is counted, that is not known.
        let live_bytes = match self.open {
            true => 0,
            false => self.segments[id].live_bytes,
        };
        self.segments[id] = Segment {
            status,
            generation,
            live_bytes,
            left_bytes: None,
            is_pinned: false,
            core,
            is_unneeded: false,
            is_marked: false,
        };
        Ok(Allocation {
            segment: id,
            generation,
            shortage: self.shortage(),
        })
    }

    /// The next segment for `content`, of the volume that suits best; one at least is free, and none must be waited for.
    fn take_free(&mut self, content: Content) -> SegmentId {
        let rooms = self.rooms();
        let volume = self.spread.choose(&rooms, content).expect("one is free");
        let first = |queue: &VecDeque<SegmentId>| queue.iter().position(|id| id.volume() == volume);
        if let Some(id) = first(&self.recycled).and_then(|at| self.recycled.remove(at)) {
            return id;
        }
        let fresh = first(&self.fresh).and_then(|at| self.fresh.remove(at));
        self.making = fresh;
        fresh.expect("the volume has one ready")
    }

    /// What each volume has room for.
    fn rooms(&self) -> Vec<Room> {
        let mut rooms = vec![Room::default(); self.volumes];
        for id in &self.recycled {
            rooms[id.volume()].ready += 1;
            rooms[id.volume()].free += 1;
        }
        for id in &self.fresh {
            rooms[id.volume()].ready += u64::from(self.making.is_none());
            rooms[id.volume()].free += 1;
        }
        for (id, segment) in self.segments.entries() {
            match segment.status {
                Status::Open(Content::Log) => rooms[id.volume()].open_logs += 1,
                Status::Open(Content::Data | Content::Index) => rooms[id.volume()].open_data += 1,
                Status::Free | Status::Sealed(_) | Status::Retiring { .. } | Status::Unusable => {}
            }
        }
        rooms
    }

    fn free(&self) -> usize {
        self.recycled.len() + self.fresh.len()
    }

    fn retiring(&self) -> usize {
        let is_retiring = |segment: &&Segment| matches!(segment.status, Status::Retiring { .. });
        self.segments.values().filter(is_retiring).count()
    }

    /// Whether all that is live, and one more segment of it, could be cleaned into the room that is not kept back.
    fn may_grow(&self, segment_bytes: u64) -> bool {
        let live_in = |segment: &Segment| match segment.status {
            Status::Free | Status::Retiring { .. } => 0,
            Status::Open(_) | Status::Unusable => segment_bytes,
            Status::Sealed(_) if segment.is_pinned => segment_bytes,
            Status::Sealed(_) => (segment.live_bytes.max(0) as u64).min(segment_bytes),
        };
        let live: u64 = self.segments.values().map(live_in).sum();
        let room = self.segments.len().saturating_sub(self.marks.release) as u64 * segment_bytes;
        live + segment_bytes <= room / LIVE_PARTS.1 * LIVE_PARTS.0
    }

    fn can_make_room(&self, segment_bytes: u64) -> bool {
        !self.open
            || self.cleaning
            || self.retiring() > 0
            || !self.gain.is_over() && self.plan(Shortage::MOST, segment_bytes).is_some()
    }

    /// Of segments that are free, or are about to be without any doing.
    fn shortage(&self) -> Shortage {
        Shortage::of(self.free() + self.retiring(), self.marks.release, self.marks.low)
    }

    /// Begins a round of cleaning, if room is short and there is something to gain.
    fn begin_round(&mut self, segment_bytes: u64) -> Option<CleanPlan> {
        if !self.open || self.cleaning || self.gain.is_over() || self.free() >= self.marks.low {
            return None;
        }
        let shortage = self.shortage();
        if shortage == Shortage::NONE {
            return None;
        }
        let plan = self.plan(shortage, segment_bytes)?;
        self.cleaning = true;
        Some(plan)
    }

    /// What a round would do.
    fn plan(&self, shortage: Shortage, segment_bytes: u64) -> Option<CleanPlan> {
        // What cores have open has room for some of it, and each can get a segment of either kind.
        let spendable = self.free().saturating_sub(self.marks.moves).max(1);
        let round = Round {
            segment_bytes,
            next_generation: self.next_generation,
            live_bytes_max: spendable as u64 * segment_bytes,
            segments_max: CLEAN_VICTIMS_MAX,
            shortage,
        };
        let victims = round.choose(&self.candidates());
        let waits = |id: &SegmentId| self.waits_for_checkpoint(*id);
        let checkpoint = self.empty.iter().any(waits) || victims.iter().any(waits);
        (!victims.is_empty() || checkpoint).then_some(CleanPlan {
            victims,
            checkpoint,
            shortage,
        })
    }

    fn candidates(&self) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for (id, segment) in self.segments.entries() {
            if matches!(segment.status, Status::Sealed(_))
                && !segment.is_pinned
                && segment.left_bytes != Some(segment.live_bytes)
            {
                candidates.push(Candidate {
                    segment: id,
                    generation: segment.generation,
                    live_bytes: segment.live_bytes.max(0) as u64,
                });
            }
        }
        candidates
    }

    /// Whether a segment will be free only when cores have written manifests.
    fn waits_for_checkpoint(&self, id: SegmentId) -> bool {
        let segment = &self.segments[id];
        match segment.status {
            Status::Sealed(Content::Log | Content::Index) => !self.is_covered(segment) && self.may_checkpoint,
            _ => false,
        }
    }

    /// Whether the next start could do without what a segment says, were there nothing live in it.
    fn is_covered(&self, segment: &Segment) -> bool {
        let is_older = segment.generation < self.first_generation;
        match segment.status {
            Status::Sealed(Content::Log | Content::Index) if is_older => {
                self.is_confirmed || segment.is_unneeded
            }
            Status::Sealed(Content::Log) => {
                let covered = self.covered[usize::from(segment.core.0)];
                self.is_confirmed && segment.generation < covered
            }
            _ => true,
        }
    }

    /// The round is over. Counts the victims in which nothing lives any more.
    fn end_round(&mut self, plan: &CleanPlan, pinned: &[SegmentId]) -> u64 {
        self.cleaning = false;
        self.gain
            .note_round(self.free() + self.retiring() + self.empty.len());
        let mut emptied = 0;
        for &id in &plan.victims {
            let segment = &mut self.segments[id];
            if matches!(segment.status, Status::Sealed(_)) && segment.live_bytes != 0 {
                segment.left_bytes = Some(segment.live_bytes);
                segment.is_pinned |= pinned.contains(&id);
            } else {
                emptied += 1;
            }
        }
        emptied
    }

    fn note_fullness(&mut self, is_full: bool, now_ns: u64) -> Option<News> {
        self.is_full = is_full;
        let told_lately = self
            .told_full_ns
            .is_some_and(|told_ns| now_ns.saturating_sub(told_ns) < TELL_NS);
        if is_full && !self.believed_full && !told_lately {
            (self.believed_full, self.told_full_ns) = (true, Some(now_ns));
            return Some(News::Full);
        }
        let has_room_again = !is_full && std::mem::take(&mut self.believed_full);
        has_room_again.then_some(News::Room)
    }

    /// Segments that could not be emptied may be by now.
    fn retry(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.retried_ns) > RETRY_NS {
            self.retried_ns = now_ns;
            for segment in self.segments.values_mut() {
                segment.left_bytes = None;
            }
        }
    }

    fn account(&mut self, deltas: &[SpaceDelta]) {
        for delta in deltas {
            // On a volume that is missing nothing is counted.
            let Some(segment) = self.segments.get_mut(delta.segment) else {
                continue;
            };
            segment.live_bytes += delta.live_bytes;
            self.note_if_empty(delta.segment);
        }
    }

    /// Damage to a log can bring back an entry whose bytes lie in a segment that is free by now. A next life that
    /// started its count at nothing would be thought empty when that entry goes: it is not begun until then.
    fn hold_back_what_is_referred_to(&mut self) {
        let segments = &mut self.segments;
        let mut is_free = |id: &SegmentId| {
            let segment = &mut segments[*id];
            if segment.live_bytes != 0 {
                segment.status = Status::Sealed(Content::Data);
            }
            segment.live_bytes == 0
        };
        self.recycled.retain(&mut is_free);
        self.fresh.retain(&mut is_free);
    }

    /// Segments that are lost are used again, once nothing refers to them.
    fn give_up_what_is_lost(&mut self) {
        self.next_generation += GENERATIONS_SKIPPED;
        for &id in &self.unreadable {
            self.segments[id].status = Status::Sealed(Content::Data);
        }
        for &id in &self.missing {
            let segment = &mut self.segments[id];
            segment.status = Status::Free;
            // What lies in it cannot be moved.
            segment.is_pinned = true;
            // Before all others, so that the next start misses it no more.
            self.recycled.push_front(id);
        }
    }

    /// Keeps all that was there before this run as it is. What cannot be read may have had the greatest generation.
    pub fn keep_what_was_there(&mut self) {
        self.recycled.clear();
        self.may_checkpoint = false;
        self.next_generation += GENERATIONS_SKIPPED;
        self.kept_before = self.next_generation;
        // Nor is anything moved out of it: that would give no room.
        for segment in self.segments.values_mut() {
            segment.is_pinned = true;
        }
    }

    /// Whether the next segment has to be made, while another one is.
    fn must_wait(&self) -> bool {
        self.making.is_some() && self.recycled.is_empty() && !self.fresh.is_empty()
    }

    fn note_if_empty(&mut self, id: SegmentId) {
        let segment = &self.segments[id];
        // Before recovery has accounted for everything, nothing live only means that not all was told.
        if self.open && matches!(segment.status, Status::Sealed(_)) && segment.live_bytes == 0 {
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
            .filter(|&id| self.segments[id].generation >= self.kept_before)
            .filter(|&id| self.is_covered(&self.segments[id]) || planted(Fault::UncoveredFreed))
            .collect();
        for &id in &ready {
            self.empty.remove(&id);
            let segment = &mut self.segments[id];
            segment.status = Status::Retiring {
                cores_left: self.cores,
            };
        }
        ready
    }

    /// One core has no read of the segment any more; says whether it was the last.
    fn retired(&mut self, id: SegmentId) -> bool {
        let Status::Retiring { cores_left } = &mut self.segments[id].status else {
            unreachable!("only a retiring segment is retired")
        };
        *cores_left -= 1;
        *cores_left == 0
    }

    /// A start knows only then that a segment is free, before it has counted all that lives, when it is marked so on
    /// disk: a few are. Gives the life that the mark ends.
    fn begin_mark(&mut self, id: SegmentId) -> Option<u64> {
        let marked = self
            .recycled
            .iter()
            .filter(|id| self.segments[**id].is_marked)
            .count();
        let is_enough = marked + self.marking >= MARKED_OF_A_CORE * self.cores;
        // One whose header was lost has one again.
        if is_enough && !self.unreadable.contains(&id) || self.missing.contains(&id) {
            return None;
        }
        self.marking += 1;
        Some(self.segments[id].generation)
    }

    fn take_back(&mut self, id: SegmentId, status: Status) {
        self.segments[id].status = status;
    }

    /// A segment that was given could not be made: it is as free as before, and its core waits for room.
    pub fn unmade(&mut self, id: SegmentId, core: CoreId) {
        self.take_back(id, Status::Free);
        self.spread.failed(id.volume());
        match self.making == Some(id) {
            true => self.fresh.push_front(id),
            false => self.recycled.push_back(id),
        }
        self.refused.insert(core);
    }

    /// A segment that was given cannot be made or written: it is left out of this run.
    fn unusable(&mut self, id: SegmentId) {
        self.take_back(id, Status::Unusable);
        self.spread.failed(id.volume());
    }

    /// The segment is free on disk too; returns the cores to tell that there is room.
    fn freed(&mut self, id: SegmentId, is_marked: bool) -> BTreeSet<CoreId> {
        let segment = &mut self.segments[id];
        segment.status = Status::Free;
        segment.is_marked = is_marked;
        // Those that are marked are the last to be used, and those whose files are missing the first: the next start
        // misses them no more.
        let missing = self
            .recycled
            .iter()
            .take_while(|id| self.missing.contains(id))
            .count();
        match is_marked {
            true => self.recycled.push_back(id),
            false => self.recycled.insert(missing, id),
        }
        match self.free() > self.marks.moves {
            true => std::mem::take(&mut self.refused),
            false => BTreeSet::new(),
        }
    }
}

impl<I: Machine> Core<I> {
    /// Counts live bytes of a segment up or down.
    pub fn account_here(self: &Rc<Self>, segment: SegmentId, live_bytes: i64) {
        *self.ledger.deltas.borrow_mut().entry(segment).or_default() += live_bytes;
        self.plan_flush();
    }

    /// Counts what a client's change wrote or ended: room may be made of it.
    pub fn note_change(&self, bytes: u64) {
        count(&self.ledger.changed_bytes, bytes);
    }

    /// Tells the coordinator now.
    pub fn flush_ledger(self: &Rc<Self>) {
        let deltas = std::mem::take(&mut *self.ledger.deltas.borrow_mut());
        if !deltas.is_empty() {
            let deltas = deltas.into_iter();
            let deltas = deltas.map(|(segment, live_bytes)| SpaceDelta { segment, live_bytes });
            let note = Note::Space {
                deltas: deltas.collect(),
                changed_bytes: self.ledger.changed_bytes.take(),
            };
            self.note(COORDINATOR, note);
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
        if before == Before::GivenUp {
            table.give_up_what_is_lost();
        }
        table.hold_back_what_is_referred_to();
        if before == Before::Kept && table.kept_before == 0 {
            table.keep_what_was_there();
        }
        for id in table.segments.ids() {
            table.note_if_empty(id);
        }
        drop(table);
        self.free_empty();
        self.space_opened.wake();
    }

    /// Coordinator: whether everything that the start found is counted.
    pub fn is_space_open(&self) -> bool {
        self.space.borrow().open
    }

    /// Coordinator: a segment for a core.
    pub fn allocate_segment(self: &Rc<Self>, content: Content, purpose: Purpose, to: ReplyTo) {
        if self.io.is_read_only() {
            return self.reply(to, Reply::Allocated(Err(Lack::Refused(Refusal::Degraded))));
        }
        if self.space.borrow().must_wait() {
            let mut table = self.space.borrow_mut();
            return table.waiting.push_back((content, purpose, to));
        }
        let segment_bytes = self.segment_bytes();
        let core = match &to {
            ReplyTo::Local(_) => self.io.core(),
            ReplyTo::Remote { core, .. } => *core,
        };
        let allocated = {
            let mut table = self.space.borrow_mut();
            let allocated = table.allocate(content, purpose, core, segment_bytes);
            if allocated == Err(Lack::Refused(Refusal::Full)) {
                table.retry(self.io.monotonic_ns());
                table.allocate(content, purpose, core, segment_bytes)
            } else {
                allocated
            }
        };
        if purpose == Purpose::Growth {
            self.note_fullness(allocated == Err(Lack::Refused(Refusal::Full)));
        }
        if allocated.is_err() {
            self.space.borrow_mut().refused.insert(core);
        }
        self.reply(to, Reply::Allocated(allocated));
        self.consider_cleaning();
    }

    fn segment_bytes(&self) -> u64 {
        u64::from(self.io.volume().segment_size_bytes)
    }

    /// How much of the volume is taken, if this core keeps the table.
    pub fn space_use(&self) -> Option<SpaceUse> {
        self.is_coordinator()
            .then(|| self.space.borrow().usage(self.segment_bytes()))
    }

    /// Coordinator: what grows was refused for want of room, or was not. Tells the operator when that changes.
    fn note_fullness(&self, is_full: bool) {
        match self
            .space
            .borrow_mut()
            .note_fullness(is_full, self.io.monotonic_ns())
        {
            Some(News::Full) => {
                warn!(
                    "weft: the volume is full: writes are refused (507) until there is room: delete something, or start \
                     with a larger --capacity"
                );
            }
            Some(News::Room) => warn!("weft: the volume has room again: writes are accepted"),
            None => {}
        }
    }

    /// Coordinator: has the cores clean, round after round, while room is short and there is some to gain. It is asked
    /// whenever the table changes: nothing waits for a clock.
    fn consider_cleaning(self: &Rc<Self>) {
        if self.supply.is_read_only() || self.io.is_read_only() {
            return;
        }
        let Some(mut plan) = self.space.borrow_mut().begin_round(self.segment_bytes()) else {
            return;
        };
        let core = self.clone();
        self.io.spawn(async move {
            loop {
                let replies = core.call_all(|| Request::Clean(plan.clone())).await;
                let pinned = replies.into_iter().flat_map(|reply| match reply {
                    Reply::Cleaned(pinned) => pinned,
                    other => unreachable!("a round is answered by what it left, not {other:?}"),
                });
                let pinned: Vec<SegmentId> = pinned.collect();
                if plan.checkpoint {
                    core.checkpoint_everywhere().await;
                }
                let emptied = core.space.borrow_mut().end_round(&plan, &pinned);
                count(&core.counters.segments_cleaned, emptied);
                count(&core.counters.clean_rounds, 1);
                core.free_empty();
                let next = core.space.borrow_mut().begin_round(core.segment_bytes());
                match next {
                    Some(next) if !core.supply.is_read_only() => plan = next,
                    Some(_) | None => break,
                }
            }
            // Whoever was told to wait asks again: there is room by now, or none to be had.
            core.tell_refused();
        });
    }

    fn tell_refused(self: &Rc<Self>) {
        let tell = std::mem::take(&mut self.space.borrow_mut().refused);
        for core in tell {
            self.note(core, Note::SpaceFreed);
        }
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

    /// Coordinator: a segment that was given cannot be used.
    pub fn segment_unusable(self: &Rc<Self>, id: SegmentId) {
        self.space.borrow_mut().unusable(id);
        self.segment_made(id);
    }

    /// Coordinator: live bytes changed.
    pub fn account(self: &Rc<Self>, deltas: &[SpaceDelta], changed_bytes: u64) {
        {
            let mut table = self.space.borrow_mut();
            table.account(deltas);
            table.gain.note_change(changed_bytes, self.segment_bytes());
        }
        self.free_empty();
        self.consider_cleaning();
    }

    /// Coordinator: a segment's life has nothing to come.
    pub fn segment_sealed(self: &Rc<Self>, id: SegmentId) {
        {
            let mut table = self.space.borrow_mut();
            let segment = &mut table.segments[id];
            let Status::Open(content) = segment.status else {
                unreachable!("only an open segment is sealed")
            };
            segment.status = Status::Sealed(content);
            table.note_if_empty(id);
        }
        self.free_empty();
        self.consider_cleaning();
    }

    /// Coordinator: a core reads the segment no more.
    pub fn segment_retired(self: &Rc<Self>, id: SegmentId) {
        let is_over = self.space.borrow_mut().retired(id);
        if !is_over {
            return;
        }
        let marks = self.space.borrow_mut().begin_mark(id);
        let Some(generation) = marks else {
            return self.segment_freed(id, false);
        };
        let core = self.clone();
        self.io.spawn(async move {
            let header = core.segment_header(id, SegmentKind::Free, generation);
            let marked = core.write_header(&header).await;
            if let Err(error) = &marked {
                warn!("weft: segment {id} cannot be marked free: {error}");
                count(&core.counters.disk_errors, 1);
                // It may still land, and must not on the header of the next life.
                core.io.leave(id).await;
            }
            core.space.borrow_mut().marking -= 1;
            core.segment_freed(id, marked.is_ok());
        });
    }

    fn segment_freed(self: &Rc<Self>, id: SegmentId, is_marked: bool) {
        let tell = self.space.borrow_mut().freed(id, is_marked);
        for core in tell {
            self.note(core, Note::SpaceFreed);
        }
        self.free_empty();
        self.consider_cleaning();
        let more = self.space.borrow().can_make_room(self.segment_bytes());
        if !more {
            self.tell_refused();
        }
    }

    /// Coordinator: has every core write a manifest, so that logs are not needed any more.
    pub async fn checkpoint_everywhere(self: &Rc<Self>) {
        self.call_all(|| Request::Checkpoint).await;
        self.confirm_when_all_have().await;
    }

    /// Coordinator: when every core has a manifest of this boot, each is told, and says so in it. From then on a start
    /// goes by them, and by nothing that came before.
    async fn confirm_when_all_have(self: &Rc<Self>) {
        let is_due =
            |table: &SpaceTable| !table.is_confirmed && table.covered.iter().all(|&covered| covered > 0);
        if !is_due(&self.space.borrow()) {
            return;
        }
        let replies = self.call_all(|| Request::Confirm).await;
        if replies
            .iter()
            .all(|reply| matches!(reply, Reply::Checkpointed(true)))
        {
            self.space.borrow_mut().is_confirmed = true;
            self.free_empty();
        }
    }

    /// Coordinator: a core has a manifest on stable storage.
    pub fn core_covered(self: &Rc<Self>, from: CoreId, generation: u64) {
        let is_first = {
            let mut table = self.space.borrow_mut();
            let covered = &mut table.covered[usize::from(from.0)];
            let is_first = *covered == 0;
            *covered = (*covered).max(generation).max(1);
            is_first && !table.is_confirmed
        };
        self.free_empty();
        if is_first {
            // One core alone makes no start shorter, and gives no room.
            let core = self.clone();
            self.io.spawn(async move { core.checkpoint_everywhere().await });
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 1 << 20;

    #[test]
    fn the_smallest_volume_has_room_for_bodies_beside_what_its_cores_have_open() {
        for cores in [1, 2, 7, 24, 100] {
            let allocate_all = |segments: u32| {
                let states = vec![VolumeState::Present {
                    segments_max: segments,
                    segments_known: 0,
                }];
                let mut table = SpaceTable::new(&states, cores);
                let all = 0..OPEN_OF_A_CORE * cores;
                let given = |_| {
                    table.making = None;
                    table.allocate(Content::Data, Purpose::Growth, COORDINATOR, SEGMENT)
                };
                all.map(given).all(|given| given.is_ok()) && table.may_grow(SEGMENT)
            };
            let segments = segments_min(cores);
            assert!(allocate_all(segments), "{cores} cores, {segments} segments");
            assert!(!allocate_all(segments - 2), "{cores} cores need fewer segments");
        }
    }
}
