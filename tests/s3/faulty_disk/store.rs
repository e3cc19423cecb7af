//! The files, and what a power cut leaves of them.
//!
//! - A write is seen at once. It is durable once the file was synced after it, or if it was a synced write itself.
//! - When the power goes, each write that is not durable is kept, lost or torn: each of its 512-byte sectors is there or
//!   is not. What one write fares says nothing of another; a seed decides.
//! - A failed sync dooms what it was for, as Linux does: it is seen until the power goes, no later sync makes it
//!   durable, and then it is gone.
//! - Names (new files, renames, removals) are durable once a directory was synced after them. A power cut keeps as
//!   many of the others as it likes, in their order, as the journals of ext4 and XFS do. A file's name is not made durable by
//!   its own sync.
//! - A file's size is durable as its writes are; preallocated bytes read as zeroes.
//!
//! Invariant: what a successful sync covered is there after every cut.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::sync::Arc;

pub const ROOT: u64 = 1;
const SECTOR_BYTES: u64 = 512;
const PAGE_BYTES: u64 = 4096;

pub type Error = i32;
type Pages = BTreeMap<u64, Arc<[u8; PAGE_BYTES as usize]>>;
/// A name in a directory, and the node that it leads to.
type Name = (u64, OsString);
type Names = BTreeMap<Name, u64>;
/// What names become together.
type NameChange = Vec<(Name, Option<u64>)>;

pub struct Store {
    nodes: BTreeMap<u64, Node>,
    seen: Names,
    durable: Names,
    /// Changes of names that no sync has covered, in their order: what each name becomes.
    changes: Vec<NameChange>,
    next_node: u64,
    pub room_bytes: u64,
    pub thin_bytes: u64,
}

pub struct Node {
    /// What it was called last.
    pub name: String,
    pub is_dir: bool,
    content: Content,
}

#[derive(Default)]
struct Content {
    size: u64,
    durable_size: u64,
    seen: Pages,
    durable: Pages,
    unsynced: Vec<Write>,
}

/// A write that a power cut may take.
struct Write {
    offset: u64,
    bytes: Arc<[u8]>,
    /// A sync failed that was for it.
    doomed: bool,
    /// Sectors that a later write, which is durable, has overwritten.
    covered: BTreeSet<u64>,
}

/// How much a power cut took.
#[derive(Default, Debug)]
pub struct Toll {
    pub kept: u64,
    pub lost: u64,
    pub torn: u64,
}

impl Default for Store {
    fn default() -> Store {
        let root = Node {
            name: String::new(),
            is_dir: true,
            content: Content::default(),
        };
        Store {
            nodes: BTreeMap::from([(ROOT, root)]),
            seen: Names::new(),
            durable: Names::new(),
            changes: Vec::new(),
            next_node: ROOT + 1,
            room_bytes: 1 << 40,
            thin_bytes: 1 << 40,
        }
    }
}

impl Store {
    pub fn node(&self, id: u64) -> Result<&Node, Error> {
        self.nodes.get(&id).ok_or(libc::ENOENT)
    }

    pub fn size(&self, id: u64) -> u64 {
        self.nodes.get(&id).map_or(0, |node| node.content.size)
    }

    pub fn find(&self, dir: u64, name: &OsString) -> Result<u64, Error> {
        self.seen.get(&(dir, name.clone())).copied().ok_or(libc::ENOENT)
    }

    pub fn list(&self, dir: u64) -> Vec<(u64, OsString)> {
        let names = self.seen.iter().filter(|((of, _), _)| *of == dir);
        names.map(|((_, name), &id)| (id, name.clone())).collect()
    }

    pub fn create(&mut self, dir: u64, name: OsString, is_dir: bool) -> Result<u64, Error> {
        if self.find(dir, &name).is_ok() {
            return Err(libc::EEXIST);
        }
        let id = self.next_node;
        self.next_node += 1;
        let node = Node {
            name: name.to_string_lossy().into_owned(),
            is_dir,
            content: Content::default(),
        };
        self.nodes.insert(id, node);
        self.change(vec![((dir, name), Some(id))]);
        Ok(id)
    }

    pub fn remove(&mut self, dir: u64, name: OsString) -> Result<(), Error> {
        self.find(dir, &name)?;
        self.change(vec![((dir, name), None)]);
        Ok(())
    }

    pub fn rename(&mut self, from: Name, to: Name) -> Result<(), Error> {
        let id = self.find(from.0, &from.1)?;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.name = to.1.to_string_lossy().into_owned();
        }
        self.change(vec![(from, None), (to, Some(id))]);
        Ok(())
    }

    fn change(&mut self, change: NameChange) {
        set_names(&mut self.seen, &change);
        self.changes.push(change);
    }

    /// Makes all names durable.
    pub fn sync_names(&mut self) {
        self.changes.clear();
        self.durable = self.seen.clone();
    }

    fn content(&mut self, id: u64) -> Result<&mut Content, Error> {
        match self.nodes.get_mut(&id) {
            Some(node) if !node.is_dir => Ok(&mut node.content),
            Some(_) => Err(libc::EISDIR),
            None => Err(libc::ENOENT),
        }
    }

    pub fn read(&self, id: u64, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
        let content = &self.node(id)?.content;
        let end = (offset + length).min(content.size);
        let mut bytes = Vec::with_capacity(length as usize);
        let mut at = offset;
        while at < end {
            let (page, within) = (at / PAGE_BYTES, (at % PAGE_BYTES) as usize);
            let count = ((PAGE_BYTES - at % PAGE_BYTES).min(end - at)) as usize;
            match content.seen.get(&page) {
                Some(page) => bytes.extend_from_slice(&page[within..within + count]),
                None => bytes.resize(bytes.len() + count, 0),
            }
            at += count as u64;
        }
        Ok(bytes)
    }

    /// Writes, and makes it durable if it is to be `synced`.
    pub fn write(&mut self, id: u64, offset: u64, bytes: &[u8], synced: Synced) -> Result<(), Error> {
        let end = offset + bytes.len() as u64;
        let grows = end.saturating_sub(self.size(id));
        if grows > 0 && self.taken_bytes() + grows > self.room_bytes {
            return Err(libc::ENOSPC);
        }
        let pages = offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES);
        let seen = &self.content(id)?.seen;
        let new = pages.filter(|page| !seen.contains_key(page)).count() as u64;
        if new > 0 && self.written_bytes() + new * PAGE_BYTES > self.thin_bytes {
            return Err(libc::ENOSPC);
        }
        let content = self.content(id)?;
        content.size = content.size.max(end);
        put(&mut content.seen, offset, bytes, |_| true);
        match synced {
            Synced::Yes => content.put_durable(offset, bytes),
            Synced::No | Synced::Failed => content.unsynced.push(Write {
                offset,
                bytes: bytes.into(),
                doomed: synced == Synced::Failed,
                covered: BTreeSet::new(),
            }),
        }
        Ok(())
    }

    /// Some sectors of a write that fails.
    pub fn write_some(&mut self, id: u64, offset: u64, bytes: &[u8], dice: &mut Dice) {
        for (at, sector) in (offset..)
            .step_by(SECTOR_BYTES as usize)
            .zip(bytes.chunks(SECTOR_BYTES as usize))
        {
            if dice.below(2) == 0 {
                // What has no room does not land.
                let _ = self.write(id, at, sector, Synced::No);
            }
        }
    }

    /// Makes what was written durable, but what an earlier sync failed for.
    pub fn sync(&mut self, id: u64) -> Result<(), Error> {
        let Ok(content) = self.content(id) else {
            self.sync_names();
            return Ok(());
        };
        content.durable_size = content.size;
        for write in std::mem::take(&mut content.unsynced) {
            match write.doomed {
                true => content.unsynced.push(write),
                false => write.land(&mut content.durable, |_| true),
            }
        }
        Ok(())
    }

    /// A sync that fails: nothing that it was for will ever be durable.
    pub fn fail_sync(&mut self, id: u64) {
        if let Ok(content) = self.content(id) {
            for write in &mut content.unsynced {
                write.doomed = true;
            }
        }
    }

    pub fn set_size(&mut self, id: u64, size: u64) -> Result<(), Error> {
        let grows = size.saturating_sub(self.size(id));
        if self.taken_bytes() + grows > self.room_bytes {
            return Err(libc::ENOSPC);
        }
        let content = self.content(id)?;
        content.size = size;
        // Small files are cut to nothing before they are written anew; no more is needed here.
        if size == 0 {
            content.seen.clear();
            content.unsynced.clear();
        }
        Ok(())
    }

    fn taken_bytes(&self) -> u64 {
        self.nodes.values().map(|node| node.content.size).sum()
    }

    fn written_bytes(&self) -> u64 {
        let pages: usize = self.nodes.values().map(|node| node.content.seen.len()).sum();
        pages as u64 * PAGE_BYTES
    }

    pub fn free_bytes(&self) -> u64 {
        self.room_bytes.saturating_sub(self.taken_bytes())
    }

    /// What is durable, and what `dice` leave of the rest, is all that there is.
    pub fn cut(&mut self, dice: &mut Dice) -> Toll {
        let mut toll = Toll::default();
        let mood = Mood::draw(dice);
        let kept = dice.below(self.changes.len() as u64 + 1) as usize;
        for change in self.changes.drain(..).take(kept) {
            set_names(&mut self.durable, &change);
        }
        self.seen = self.durable.clone();
        let named: BTreeSet<u64> = self.seen.values().copied().chain([ROOT]).collect();
        self.nodes.retain(|id, _| named.contains(id));
        for node in self.nodes.values_mut() {
            node.content.cut(mood, dice, &mut toll);
        }
        toll
    }
}

/// What becomes durable with a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Synced {
    No,
    Yes,
    /// It was to be synced, and the sync failed.
    Failed,
}

impl Content {
    fn put_durable(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        self.durable_size = self.durable_size.max(end);
        put(&mut self.durable, offset, bytes, |_| true);
        for write in &mut self.unsynced {
            let from = write.offset.max(offset).div_ceil(SECTOR_BYTES);
            let to = (write.offset + write.bytes.len() as u64).min(end) / SECTOR_BYTES;
            write.covered.extend(from..to);
        }
    }

    fn cut(&mut self, mood: Mood, dice: &mut Dice, toll: &mut Toll) {
        for write in std::mem::take(&mut self.unsynced) {
            let fate = match mood {
                _ if write.doomed => Fate::Lost,
                Mood::All(fate) => fate,
                Mood::Mixed => Fate::draw(dice),
            };
            match fate {
                Fate::Kept => {
                    toll.kept += 1;
                    self.durable_size = self.durable_size.max(write.offset + write.bytes.len() as u64);
                    write.land(&mut self.durable, |_| true);
                }
                Fate::Lost => toll.lost += 1,
                Fate::Torn => {
                    toll.torn += 1;
                    self.durable_size = self.durable_size.max(write.offset + write.bytes.len() as u64);
                    // Up to some sector, or any of them.
                    let first = write.offset / SECTOR_BYTES;
                    let sectors = write.bytes.len() as u64 / SECTOR_BYTES + 1;
                    let from_front = dice.below(2) == 0;
                    let landed: BTreeSet<u64> = match from_front {
                        true => (first..first + dice.below(sectors)).collect(),
                        false => (first..first + sectors).filter(|_| dice.below(2) == 0).collect(),
                    };
                    write.land(&mut self.durable, |sector| landed.contains(&sector));
                }
            }
        }
        self.seen = self.durable.clone();
        self.size = self.durable_size;
    }
}

impl Write {
    fn land(&self, pages: &mut Pages, lands: impl Fn(u64) -> bool) {
        put(pages, self.offset, &self.bytes, |sector| {
            !self.covered.contains(&sector) && lands(sector)
        });
    }
}

/// How the writes of a cut fare. Independent chances alone would hardly ever keep or lose many alike.
#[derive(Clone, Copy)]
enum Mood {
    All(Fate),
    Mixed,
}

#[derive(Clone, Copy)]
enum Fate {
    Kept,
    Lost,
    Torn,
}

impl Mood {
    fn draw(dice: &mut Dice) -> Mood {
        match dice.below(2) {
            0 => Mood::All(Fate::draw(dice)),
            _ => Mood::Mixed,
        }
    }
}

impl Fate {
    fn draw(dice: &mut Dice) -> Fate {
        match dice.below(3) {
            0 => Fate::Kept,
            1 => Fate::Lost,
            _ => Fate::Torn,
        }
    }
}

fn set_names(names: &mut Names, change: &[(Name, Option<u64>)]) {
    for (name, id) in change {
        match id {
            Some(id) => names.insert(name.clone(), *id),
            None => names.remove(name),
        };
    }
}

/// Puts those sectors of `bytes` at `offset` that `lands` names.
fn put(pages: &mut Pages, offset: u64, bytes: &[u8], lands: impl Fn(u64) -> bool) {
    let end = offset + bytes.len() as u64;
    let mut at = offset;
    while at < end {
        let next = (at + 1).next_multiple_of(SECTOR_BYTES).min(end);
        if lands(at / SECTOR_BYTES) {
            let page = pages
                .entry(at / PAGE_BYTES)
                .or_insert_with(|| Arc::new([0; PAGE_BYTES as usize]));
            let within = (at % PAGE_BYTES) as usize;
            let (from, to) = ((at - offset) as usize, (next - offset) as usize);
            Arc::make_mut(page)[within..within + to - from].copy_from_slice(&bytes[from..to]);
        }
        at = next;
    }
}

/// Numbers out of a seed (splitmix64).
#[derive(Default)]
pub struct Dice(pub u64);

impl Dice {
    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (Store, u64) {
        let mut store = Store::default();
        let id = store.create(ROOT, "file".into(), false).unwrap();
        store.sync_names();
        (store, id)
    }

    fn sectors(store: &Store, id: u64) -> Vec<u8> {
        let bytes = store.read(id, 0, 1 << 20).unwrap();
        bytes
            .chunks(SECTOR_BYTES as usize)
            .inspect(|sector| assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is torn"))
            .map(|sector| sector[0])
            .collect()
    }

    #[test]
    fn what_was_synced_outlives_every_cut_and_the_rest_is_kept_lost_or_torn() {
        let (mut kept, mut lost, mut torn) = (0, 0, 0);
        for seed in 0..300 {
            let (mut store, id) = store();
            store.write(id, 0, &[1; 8192], Synced::No).unwrap();
            store.sync(id).unwrap();
            store.write(id, 8192, &[2; 4096], Synced::Yes).unwrap();
            store.write(id, 4096, &[3; 8192], Synced::No).unwrap();
            let toll = store.cut(&mut Dice(seed));
            kept += toll.kept;
            lost += toll.lost;
            torn += toll.torn;
            let found = sectors(&store, id);
            assert!(found[..8].iter().all(|sector| *sector == 1));
            assert!(found[8..16].iter().all(|sector| [1, 3].contains(sector)));
            assert!(found[16..24].iter().all(|sector| [2, 3].contains(sector)));
        }
        assert!(kept > 50 && lost > 50 && torn > 50, "{kept} {lost} {torn}");
    }

    #[test]
    fn an_older_write_never_comes_back_over_a_synced_one() {
        for seed in 0..100 {
            let (mut store, id) = store();
            store.write(id, 0, &[1; 16384], Synced::No).unwrap();
            store.write(id, 4096, &[2; 4096], Synced::Yes).unwrap();
            store.cut(&mut Dice(seed));
            assert!(sectors(&store, id)[8..16].iter().all(|sector| *sector == 2));
        }
    }

    #[test]
    fn what_a_failed_sync_was_for_is_gone_whatever_is_synced_later() {
        for seed in 0..100 {
            let (mut store, id) = store();
            store.write(id, 0, &[1; 8192], Synced::Yes).unwrap();
            store.write(id, 0, &[2; 4096], Synced::No).unwrap();
            store.fail_sync(id);
            store.write(id, 4096, &[3; 4096], Synced::Failed).unwrap();
            store.sync(id).unwrap();
            assert_eq!(sectors(&store, id), [[2; 8], [3; 8]].concat());
            store.cut(&mut Dice(seed));
            assert_eq!(sectors(&store, id), [1; 16]);
        }
    }

    #[test]
    fn names_are_durable_when_the_directory_was_synced_and_are_lost_from_the_end() {
        let mut ends = BTreeSet::new();
        for seed in 0..100 {
            let (mut store, id) = store();
            store
                .rename((ROOT, "file".into()), (ROOT, "renamed".into()))
                .unwrap();
            store.create(ROOT, "second".into(), false).unwrap();
            store.cut(&mut Dice(seed));
            let names: Vec<OsString> = store.list(ROOT).into_iter().map(|(_, name)| name).collect();
            let renamed = store.find(ROOT, &"renamed".into()) == Ok(id);
            assert!(renamed != (store.find(ROOT, &"file".into()) == Ok(id)));
            assert!(renamed || names.len() == 1);
            ends.insert(names);
        }
        assert_eq!(ends.len(), 3);
    }

    #[test]
    fn room_is_bounded_for_what_is_allocated_and_for_what_is_written() {
        let (mut store, id) = store();
        store.room_bytes = 8192;
        assert_eq!(store.set_size(id, 8193), Err(libc::ENOSPC));
        assert_eq!(store.set_size(id, 8192), Ok(()));
        assert_eq!(store.write(id, 8192, &[1; 512], Synced::No), Err(libc::ENOSPC));
        store.thin_bytes = 4096;
        assert_eq!(store.write(id, 0, &[1; 4096], Synced::No), Ok(()));
        assert_eq!(store.write(id, 4096, &[1; 4096], Synced::No), Err(libc::ENOSPC));
    }
}
