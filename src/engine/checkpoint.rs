//! Checkpoints: what the index has in memory goes to a run on disk, so that the log before it is not needed any more.
//!
//! When the active table has grown enough, or the log behind the last checkpoint, the table is frozen together with the
//! place of the log up to which it is true. It is written as a run of sorted pages, which takes its place in front of the
//! older runs; then a manifest says so. Runs of like size are merged, one merge at a time, beside all that.
//!
//! Invariants: a manifest names runs that are on stable storage, and a place of the log before which they have
//! everything. What a manifest names stays in place until a later one, on stable storage, does not name it. The latest
//! manifest lies in the index segment that is being filled.

use crate::engine::Machine;
use crate::engine::core::{COORDINATOR, Core, count};
use crate::engine::message::{Note, Purpose, Refusal};
use crate::engine::pages::Held;
use crate::engine::planted::{Fault, planted};
use crate::engine::run_writer::RunWriter;
use crate::engine::segments::DataSegment;
use crate::engine::signal::Waiters;
use crate::engine::sizes::Sizes;
use crate::index::{
    Base, LogPosition, Manifest, MergeCursor, PageAddress, Run, RunPlace, Table, dismantle, manifest_copies,
    manifest_offset,
};
use crate::io::SegmentId;
use crate::limits::ROOM_TIMEOUT;
use crate::log::SegmentHeader;
use futures_util::future::{Either, select};
use futures_util::lock::Mutex;
use std::cell::{Cell, RefCell};
use std::ops::{Bound, Range};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// Items that are written before others of the core get their turn.
const ITEMS_AT_ONCE: usize = 500;
/// Bytes that a merge reads of each run at once.
const MERGE_READ_BYTES: u32 = 256 * 1024;
/// Bytes of the shortest page.
const PAGE_BYTES: u64 = 4096;
/// Runs of like size that become one.
const FANOUT: usize = 4;
/// With more runs any merge will do: a lookup may ask all of them.
const RUNS_MAX: usize = 20;
/// After a checkpoint that failed the next is not tried for so long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// One core's runs, and what is written of them.
pub struct Checkpoints {
    table_bytes_max: usize,
    log_tail_bytes_max: u64,
    /// Newest first, as the index has them.
    runs: RefCell<Vec<RunPlace>>,
    /// Tags of those that the start found.
    found: RefCell<Vec<u64>>,
    /// They have all of the log before that.
    covered: Cell<LogPosition>,
    /// What the start went by, without its runs.
    base: RefCell<Base>,
    /// The place that the frozen table has.
    frozen_at: Cell<LogPosition>,
    /// How much log this run had written then.
    frozen_at_bytes: Cell<u64>,
    /// The latest manifest of this boot that is on stable storage.
    written: RefCell<Option<Manifest>>,
    /// How many were begun: one that failed may have landed all the same, and must not have the number of another.
    begun: Cell<u64>,
    is_confirmed: Cell<bool>,
    /// What the manifest on stable storage may name, and the next one will not.
    dropped: RefCell<Vec<RunPlace>>,
    /// This run writes no manifests: what is missing may come back, and the logs with it.
    is_off: Cell<bool>,
    /// The runs hold keys of other cores as well: no manifest names such.
    is_mixed: Cell<bool>,
    /// The runs have what was read from the logs at the start. Before that, a manifest of this boot would lose it.
    is_based: Cell<bool>,
    /// Merges wait until the runs found at the start have been accounted for.
    is_audited: Cell<bool>,
    freezing: Mutex<()>,
    merging: Mutex<()>,
    writing: Mutex<()>,
    /// Told when the table is small again.
    told: Waiters,
    is_wanted: Cell<bool>,
    /// A merge met a page that cannot be read: another one would, too.
    is_unmergeable: Cell<bool>,
    has_failed: Cell<bool>,
}

/// What a core's index takes, on disk and in memory.
#[derive(Clone, Copy, Debug)]
pub struct IndexUse {
    pub runs: usize,
    pub run_bytes: u64,
    /// Entries of runs: a key counts in each that has it.
    pub run_entries: u64,
    /// Of the table that is not yet being written to a run.
    pub table_bytes: usize,
    /// Of pages in the cache, and how often one was found there.
    pub page_bytes: u64,
    pub page_hits: u64,
    /// Bytes of log behind the last checkpoint.
    pub tail_bytes: u64,
}

impl Checkpoints {
    pub fn new(sizes: &Sizes) -> Checkpoints {
        Checkpoints {
            table_bytes_max: sizes.table_bytes,
            log_tail_bytes_max: sizes.log_tail_bytes,
            runs: RefCell::default(),
            found: RefCell::default(),
            covered: Cell::default(),
            base: RefCell::default(),
            frozen_at: Cell::default(),
            frozen_at_bytes: Cell::default(),
            written: RefCell::default(),
            begun: Cell::default(),
            is_confirmed: Cell::default(),
            dropped: RefCell::default(),
            is_off: Cell::default(),
            is_mixed: Cell::default(),
            is_based: Cell::default(),
            is_audited: Cell::default(),
            freezing: Mutex::default(),
            merging: Mutex::default(),
            writing: Mutex::default(),
            told: Waiters::default(),
            is_wanted: Cell::default(),
            is_unmergeable: Cell::default(),
            has_failed: Cell::default(),
        }
    }

    /// Stretches of segments that runs keep in place: those of the index, and those that the manifest on stable storage
    /// may name.
    pub fn extents(&self) -> Vec<PageAddress> {
        let (runs, dropped) = (self.runs.borrow(), self.dropped.borrow());
        let all = runs.iter().chain(&*dropped);
        all.flat_map(|place| place.extents.iter().copied()).collect()
    }

    /// Before which place of this core's logs of this boot the next start reads nothing; `None`: it reads all of them, and
    /// those of earlier boots.
    pub fn confirmed(&self) -> Option<LogPosition> {
        let written = self.written.borrow();
        let manifest = written.as_ref().filter(|manifest| manifest.is_confirmed)?;
        Some(manifest.covered)
    }

    /// The runs, newest first.
    pub fn places(&self) -> Vec<RunPlace> {
        self.runs.borrow().clone()
    }

    /// At the start: the runs that the last manifests name; `is_mixed`: keys of other cores are among them.
    pub fn adopt(&self, places: Vec<RunPlace>, is_mixed: bool) {
        *self.found.borrow_mut() = places.iter().map(|place| place.run.tag).collect();
        *self.runs.borrow_mut() = places;
        self.is_mixed.set(is_mixed);
    }

    /// At the start: the manifests that it goes by.
    pub fn note_base(&self, mut base: Base) {
        for manifest in base.manifests.values_mut() {
            manifest.runs = Vec::new();
        }
        *self.base.borrow_mut() = base;
    }

    /// From where on the start read a log of an earlier boot; `None`: it did not.
    pub fn needed_at_start(&self, log: &SegmentHeader) -> Option<LogPosition> {
        self.base.borrow().tail_of(log)
    }

    /// No manifest is written in this run.
    pub fn switch_off(&self) {
        self.is_off.set(true);
    }

    /// What the runs of the start keep in place is known.
    pub fn set_audited(&self) {
        self.is_audited.set(true);
    }

    /// Whether it is.
    pub fn is_audited(&self) -> bool {
        self.is_audited.get()
    }

    /// The runs as the index wants them.
    pub fn list(&self) -> Rc<[Run]> {
        self.runs.borrow().iter().map(|place| place.run).collect()
    }
}

impl<I: Machine> Core<I> {
    /// Begins a checkpoint if the table has grown enough, or the log.
    pub fn consider_checkpoint(self: &Rc<Self>) {
        if self.checkpoints.is_wanted.get() || !self.is_checkpoint_due() {
            return;
        }
        self.checkpoints.is_wanted.set(true);
        let core = self.clone();
        self.io.spawn(async move {
            while core.is_checkpoint_due() {
                // Whoever waits for room in memory waits for this one.
                if !core.checkpoint().await && core.index.borrow().frozen().is_some() {
                    core.io.sleep(RETRY_AFTER).await;
                }
                core.merge_while_due().await;
            }
            core.checkpoints.is_wanted.set(false);
        });
    }

    fn is_checkpoint_due(&self) -> bool {
        let state = &self.checkpoints;
        let tail_bytes = self.commits.written_bytes() - state.frozen_at_bytes.get();
        self.index.borrow().active_bytes() > state.table_bytes_max
            || tail_bytes > state.log_tail_bytes_max && !state.is_off.get()
    }

    /// Whether the index has far more in memory than it should: nothing may be added before it is written.
    pub fn is_index_behind(&self) -> bool {
        self.index.borrow().active_bytes() > 4 * self.checkpoints.table_bytes_max
    }

    /// Waits while the index has far more in memory than it should.
    ///
    /// # Errors
    /// `Busy` when it takes too long, counted from `since_ns`.
    pub async fn index_room(self: &Rc<Self>, since_ns: u64) -> Result<(), Refusal> {
        self.consider_checkpoint();
        let waited = Duration::from_nanos(self.io.monotonic_ns().saturating_sub(since_ns));
        let left = ROOM_TIMEOUT.checked_sub(waited).ok_or(Refusal::Busy)?;
        let told = self.checkpoints.told.until(|| !self.is_index_behind());
        match select(pin!(told), pin!(self.io.sleep(left))).await {
            Either::Left(_) => Ok(()),
            Either::Right(_) => Err(Refusal::Busy),
        }
    }

    /// How the index of this core stands.
    pub fn index_use(&self) -> IndexUse {
        let state = &self.checkpoints;
        let runs = state.runs.borrow();
        IndexUse {
            runs: runs.len(),
            run_bytes: runs.iter().map(|place| place.run.bytes).sum(),
            run_entries: runs.iter().map(|place| place.run.entries).sum(),
            table_bytes: self.index.borrow().active_bytes(),
            page_bytes: self.pages.bytes(),
            page_hits: self.pages.hits(),
            tail_bytes: self.commits.written_bytes() - state.frozen_at_bytes.get(),
        }
    }

    fn ns_since(&self, begun_ns: u64) -> u64 {
        self.io.monotonic_ns().saturating_sub(begun_ns)
    }

    /// Has the runs hold all that is in the index now, and a manifest say so; says whether that is on stable storage.
    pub async fn checkpoint(self: &Rc<Self>) -> bool {
        let _turn = self.checkpoints.freezing.lock().await;
        let state = &self.checkpoints;
        let is_frozen = self.index.borrow().frozen().is_some();
        if is_frozen && !self.write_frozen().await {
            return false;
        }
        // No batch is half true here: those on disk are in the index, and the place is behind them.
        state.frozen_at.set(self.commits.position());
        state.frozen_at_bytes.set(self.commits.written_bytes());
        if !self.index.borrow().is_clean() {
            self.index.borrow_mut().freeze();
            self.checkpoints.told.wake();
            if !self.write_frozen().await {
                return false;
            }
        }
        let is_said = state.written.borrow().as_ref().is_some_and(|written| {
            written.covered == state.frozen_at.get() && state.dropped.borrow().is_empty()
        });
        state.covered.set(state.frozen_at.get());
        state.is_based.set(true);
        is_said || self.write_manifest().await
    }

    /// Writes the frozen table to a run, which takes its place.
    async fn write_frozen(self: &Rc<Self>) -> bool {
        let state = &self.checkpoints;
        let begun_ns = self.io.monotonic_ns();
        let frozen = self.index.borrow().frozen().expect("the caller looked").clone();
        match self.write_table(&frozen).await {
            Ok(place) => {
                drop(frozen);
                state.has_failed.set(false);
                count(&self.counters.checkpoint_bytes, bytes_of(&place));
                state.runs.borrow_mut().splice(0..0, place);
                state.covered.set(state.frozen_at.get());
                count(&self.counters.checkpoints, 1);
                self.counters.checkpoint_ns.observe(self.ns_since(begun_ns));
                let thawed = {
                    let pending = self.commits.pending_keys();
                    let mut index = self.index.borrow_mut();
                    index.thaw(state.list(), &pending)
                };
                self.dismantle(thawed).await;
                true
            }
            Err(refusal) => {
                if !state.has_failed.replace(true) {
                    warn!("weft: a part of the index cannot be written: {refusal:?}; it is tried again");
                }
                false
            }
        }
    }

    /// Gives a table's memory back, a little at a time.
    async fn dismantle(&self, table: Option<Rc<Table>>) {
        let Some(mut table) = table.and_then(|table| Rc::try_unwrap(table).ok()) else {
            return;
        };
        while dismantle(&mut table, ITEMS_AT_ONCE).is_some() {
            self.io.yield_now().await;
        }
    }

    async fn write_table(self: &Rc<Self>, table: &Table) -> Result<Option<RunPlace>, Refusal> {
        let is_oldest = self.checkpoints.runs.borrow().is_empty();
        let mut writer = RunWriter::new(self.clone(), Purpose::Index);
        let mut from = Bound::Unbounded;
        loop {
            let mut last = None;
            let range = table.range::<[u8], _>((from, Bound::Unbounded));
            for (key, slot) in range.take(ITEMS_AT_ONCE) {
                // There is nothing that a tombstone would hide.
                if slot.value.is_some() || !is_oldest {
                    writer.push(key, slot.sequence, slot.value.as_deref());
                }
                last = Some(&**key);
            }
            let Some(last) = last else { break };
            from = Bound::Excluded(last);
            writer.write().await?;
            self.io.yield_now().await;
        }
        writer.finish().await
    }

    /// Merges runs of like size for as long as there are some.
    async fn merge_while_due(self: &Rc<Self>) {
        let state = &self.checkpoints;
        if !state.is_audited.get() || state.is_unmergeable.get() {
            return;
        }
        let Some(_turn) = state.merging.try_lock() else {
            return; // Whoever merges looks again.
        };
        loop {
            let due = match state.is_mixed.get() {
                true => Some(0..state.runs.borrow().len()),
                false => due(&state.runs.borrow(), state.table_bytes_max as u64),
            };
            let Some(range) = due else { return };
            let purpose = match (state.is_mixed.get(), state.runs.borrow().len() > RUNS_MAX) {
                (true, _) => Purpose::Index,
                // Not what is kept for manifests: those must go on.
                (false, true) => Purpose::Moves,
                (false, false) => Purpose::Growth,
            };
            if !self.merge(range, purpose).await {
                return;
            }
        }
    }

    /// What was found at the start is accounted for: from here on runs may be merged.
    pub async fn merge_when_audited(self: &Rc<Self>) {
        if self.io.is_read_only() {
            return;
        }
        self.merge_while_due().await;
        self.consider_checkpoint();
    }

    /// Makes one run of all.
    pub async fn merge_all(self: &Rc<Self>, purpose: Purpose) {
        let state = &self.checkpoints;
        if !state.is_audited.get() || state.is_unmergeable.get() {
            return;
        }
        let _turn = state.merging.lock().await;
        let runs = state.runs.borrow().len();
        if runs > 0 {
            self.merge(0..runs, purpose).await;
        }
    }

    async fn merge(self: &Rc<Self>, range: Range<usize>, purpose: Purpose) -> bool {
        let state = &self.checkpoints;
        let (picked, is_oldest) = {
            let runs = state.runs.borrow();
            (runs[range.clone()].to_vec(), range.end == runs.len())
        };
        let begun_ns = self.io.monotonic_ns();
        let merged = match self.write_merged(&picked, is_oldest, purpose).await {
            Ok(merged) => merged,
            Err(Refusal::Full) => {
                if state.is_mixed.get() && !state.has_failed.replace(true) {
                    warn!(
                        "weft: there is no room to give each core its part of the index: until there is, no log is freed; \
                         start with as many cores as last time, or give a larger --capacity"
                    );
                }
                return false;
            }
            Err(refusal) => {
                warn!("weft: runs of the index cannot be merged: {refusal:?}");
                state.is_unmergeable.set(refusal == Refusal::Damaged);
                return false;
            }
        };
        {
            count(&self.counters.merge_bytes, bytes_of(&merged));
            self.counters.merge_ns.observe(self.ns_since(begun_ns));
            // New ones came in front of them, and nothing else.
            let mut runs = state.runs.borrow_mut();
            let first = runs
                .iter()
                .position(|place| place.run.tag == picked[0].run.tag)
                .expect("only merges take runs away, one at a time");
            runs.splice(first..first + picked.len(), merged);
        }
        match state.is_off.get() {
            // No manifest names what this run wrote; what it found stays.
            true => {
                let is_found = |place: &RunPlace| state.found.borrow().contains(&place.run.tag);
                let (found, written): (Vec<_>, Vec<_>) = picked.into_iter().partition(is_found);
                state.dropped.borrow_mut().extend(found);
                self.forget(&written);
            }
            false => state.dropped.borrow_mut().extend(picked),
        }
        let is_all_mine = state.is_mixed.get() && is_oldest && range.start == 0;
        {
            let mut index = self.index.borrow_mut();
            index.set_runs(state.list());
            if is_all_mine {
                state.is_mixed.set(false);
                index.show_only(None);
            }
        }
        count(&self.counters.merges, 1);
        self.write_manifest().await || !state.is_based.get()
    }

    async fn write_merged(
        self: &Rc<Self>,
        picked: &[RunPlace],
        is_oldest: bool,
        purpose: Purpose,
    ) -> Result<Option<RunPlace>, Refusal> {
        let places = picked.iter().flat_map(|place| &place.extents);
        let _pins = self.guard().pin(places.map(|extent| SegmentId(extent.segment)));
        let runs: Vec<Run> = picked.iter().map(|place| place.run).collect();
        let held = Held::passing(&self.pages, MERGE_READ_BYTES);
        let is_shown = self.index.borrow().is_shown();
        let mut cursor = MergeCursor::new(&runs);
        while let Err(need) = cursor.seek(&[], &held) {
            self.fetch(need, &held).await?;
        }
        let mut writer = RunWriter::new(self.clone(), purpose);
        let mut items = 0;
        while let Some(item) = cursor.item() {
            let hides = !is_oldest && !planted(Fault::TombstoneDropped);
            if (item.value.is_some() || hides) && is_shown(item.key) {
                writer.push(item.key, item.sequence, item.value);
            }
            while let Err(need) = cursor.advance(&held) {
                self.fetch(need, &held).await?;
            }
            items += 1;
            if items % ITEMS_AT_ONCE == 0 {
                writer.write().await?;
                self.io.yield_now().await;
            }
        }
        writer.finish().await
    }

    /// Writes a manifest of the runs as they are; says whether it is on stable storage.
    async fn write_manifest(self: &Rc<Self>) -> bool {
        let state = &self.checkpoints;
        if state.is_off.get() || state.is_mixed.get() || !state.is_based.get() {
            return false;
        }
        loop {
            let Ok(segment) = self.index_segment().await else {
                return false;
            };
            let _turn = state.writing.lock().await;
            // While this waited for its turn the tail may have moved on.
            let is_current = self
                .runs
                .current()
                .is_some_and(|current| Rc::ptr_eq(&current, &segment));
            if !is_current || segment.failed.get() {
                continue;
            }
            let number = state.begun.get() + 1;
            state.begun.set(number);
            let manifest = Manifest {
                epoch: self.io.boot_epoch(),
                core: self.io.core().0,
                cores: self.io.cores() as u16,
                number,
                is_confirmed: state.is_confirmed.get(),
                covered: state.covered.get(),
                runs: state.places(),
            };
            let dropped = state.dropped.take();
            if planted(Fault::DroppedEarly) {
                self.forget(&dropped);
            }
            if !self.put_manifest(&segment, &manifest).await {
                state.dropped.borrow_mut().extend(dropped);
                return false;
            }
            let generation = manifest.covered.generation;
            *state.written.borrow_mut() = Some(manifest);
            if !planted(Fault::DroppedEarly) {
                self.forget(&dropped);
            }
            self.flush_ledger();
            self.note(COORDINATOR, Note::Covered { generation });
            return true;
        }
    }

    /// Gives back the room of runs that nothing names any more.
    fn forget(self: &Rc<Self>, dropped: &[RunPlace]) {
        for extent in dropped.iter().flat_map(|place| &place.extents) {
            self.account_here(SegmentId(extent.segment), -i64::from(extent.length));
        }
    }

    /// Every core has a manifest of this boot: says so in this core's.
    pub async fn confirm_manifest(self: &Rc<Self>) -> bool {
        self.checkpoints.is_confirmed.set(true);
        self.write_manifest().await
    }

    /// Has a new index segment begin with the manifest that there is.
    pub async fn copy_manifest(&self, segment: &DataSegment) -> bool {
        let state = &self.checkpoints;
        let _turn = state.writing.lock().await;
        let written = state.written.borrow().clone();
        match written {
            Some(manifest) => self.put_manifest(segment, &manifest).await,
            None => true,
        }
    }

    async fn put_manifest(&self, segment: &DataSegment, manifest: &Manifest) -> bool {
        let Some(bytes) = manifest.encode(&segment.header) else {
            warn!(
                "weft: the index lies in more pieces than a manifest can name; it is not written until merges made fewer"
            );
            return false;
        };
        // One after the other: a crash tears one of them at most.
        for copy in manifest_copies() {
            let mut buffer = self.io.buffer(bytes.len());
            buffer.as_mut().copy_from_slice(&bytes);
            count(&self.counters.bytes_written, bytes.len() as u64);
            let offset = manifest_offset(manifest.number, copy);
            let written = match planted(Fault::ManifestUnsynced) {
                true => self.io.write(segment.id, offset, buffer).await,
                false => self.io.write_synced(segment.id, offset, buffer).await,
            };
            if let Err(error) = written {
                warn!("weft: index segment {}: the manifest: {error}", segment.id);
                count(&self.counters.disk_errors, 1);
                segment.failed.set(true);
                return false;
            }
        }
        true
    }
}

/// Bytes of a run's pages, if there is one.
fn bytes_of(place: &Option<RunPlace>) -> u64 {
    place.as_ref().map_or(0, |place| place.run.bytes)
}

/// The newest runs of like size, and smaller ones among them, if there are enough to be merged. Sizes are alike within a factor of
/// [`FANOUT`]; all that one table makes are.
fn due(runs: &[RunPlace], table_bytes: u64) -> Option<Range<usize>> {
    let class_of = |bytes: u64| (bytes / table_bytes.max(PAGE_BYTES)).max(1).ilog(FANOUT as u64);
    let classes: Vec<u32> = runs.iter().map(|place| class_of(place.run.bytes)).collect();
    for last in 0..classes.len() {
        let is_larger = |class: &u32| *class > classes[last];
        let first = classes[..last]
            .iter()
            .rposition(is_larger)
            .map_or(0, |larger| larger + 1);
        let is_last = classes.get(last + 1).is_none_or(is_larger);
        let alike = classes[first..=last]
            .iter()
            .filter(|class| **class == classes[last])
            .count();
        if is_last && alike >= FANOUT {
            return Some(first..last + 1);
        }
    }
    (runs.len() > RUNS_MAX).then_some(0..runs.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(mib: &[u64]) -> Vec<RunPlace> {
        let root = PageAddress {
            segment: 0,
            offset: 0,
            length: 0,
        };
        let place = |&mib| RunPlace {
            run: Run {
                tag: 0,
                root,
                entries: 0,
                tombstones: 0,
                bytes: mib << 20,
            },
            extents: Vec::new(),
        };
        mib.iter().map(place).collect()
    }

    fn due_of(mib: &[u64]) -> Option<Range<usize>> {
        due(&runs(mib), 1 << 20)
    }

    #[test]
    fn four_runs_of_like_size_are_merged() {
        assert_eq!(due_of(&[]), None);
        assert_eq!(due_of(&[1, 1, 1]), None);
        assert_eq!(due_of(&[1, 1, 1, 1]), Some(0..4));
        assert_eq!(due_of(&[1, 1, 5, 70]), None);
        assert_eq!(due_of(&[1, 1, 1, 5, 5, 5, 70]), None);
        assert_eq!(due_of(&[1, 5, 1, 5, 5, 5, 70]), Some(0..6));
        assert_eq!(due_of(&[70, 5, 5, 5, 5, 300]), Some(1..5));
        assert_eq!(due_of(&[0, 1, 2, 3, 70]), Some(0..4));
    }

    #[test]
    fn one_run_in_place_of_many_whatever_their_sizes() {
        let falling: Vec<u64> = (0..=RUNS_MAX as u32)
            .rev()
            .map(|run| 1 << (2 * (run / 3)))
            .collect();
        assert_eq!(due_of(&falling), Some(0..RUNS_MAX + 1));
    }
}
