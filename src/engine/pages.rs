//! Pages of index runs: read from disk, verified, and kept while there is room.
//!
//! A lookup or a walk takes steps in memory (`index`), and each says which page it needs if one is missing; here that is
//! read, and the step is taken again. Whoever does so holds its pages itself until he is through, so that the cache may
//! be as small as it likes.
//!
//! Invariant: what is given out was verified. A run's segments stay in place for as long as somebody holds a guard from
//! before he looked at the list of runs, or pins on them.

use crate::engine::Machine;
use crate::engine::core::{Core, count};
use crate::engine::message::Refusal;
use crate::engine::recover::Loss;
use crate::index::{
    Cursor, Entry, EntryRef, Go, Index, Need, Page, PageAddress, Pages, Run, Walked, find_in,
};
use crate::io::SegmentId;
use quick_cache::Weighter;
use quick_cache::unsync::Cache;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use xxhash_rust::xxh3::Xxh3Builder;

/// Bytes that a walk reads at once where it comes to, and at most when it goes on from there: the leaves of a run lie one
/// after the other.
const AHEAD_FIRST_BYTES: u32 = 32 * 1024;
const AHEAD_BYTES_MAX: u32 = 64 * 1024;
/// Memory of a page in the cache, besides its bytes.
const PAGE_OVERHEAD_BYTES: usize = 160;
/// Pages that a step may need at once are few; behind these the oldest go.
const HELD_PAGES_MAX: usize = 512;
/// And so are their bytes.
const HELD_BYTES_MAX: usize = 8 << 20;

/// A page by its run and place. A run's tag is its own for ever, so a place's next life is another page.
type PageKey = (u64, u32, u32);

fn key_of(run: &Run, address: PageAddress) -> PageKey {
    (run.tag, address.segment, address.offset)
}

/// One core's cache of pages.
pub struct PageCache {
    cache: RefCell<Cache<PageKey, Rc<Page>, Weight, Xxh3Builder>>,
    /// Pages that are lost, and given up: they stay so for the run, whatever is read of them.
    given_up: RefCell<BTreeSet<PageKey>>,
    /// How often a page was looked for and found.
    hits: Cell<u64>,
}

struct Weight;

impl Weighter<PageKey, Rc<Page>> for Weight {
    fn weight(&self, _: &PageKey, page: &Rc<Page>) -> u64 {
        (page.bytes_held() + PAGE_OVERHEAD_BYTES) as u64
    }
}

impl PageCache {
    /// An empty cache of up to `bytes_max`.
    pub fn new(bytes_max: u64, seed: u64) -> PageCache {
        PageCache {
            cache: RefCell::new(Cache::with(
                (bytes_max / 4096).max(16) as usize,
                bytes_max,
                Weight,
                Xxh3Builder::new().with_seed(seed),
                Default::default(),
            )),
            given_up: RefCell::default(),
            hits: Cell::new(0),
        }
    }

    /// How often a page was found in it.
    pub fn hits(&self) -> u64 {
        self.hits.get()
    }

    /// How many pages are given up.
    pub fn given_up(&self) -> u64 {
        self.given_up.borrow().len() as u64
    }

    fn give_up(&self, run: &Run, address: PageAddress) {
        self.given_up.borrow_mut().insert(key_of(run, address));
    }

    fn is_given_up(&self, run: &Run, address: PageAddress) -> bool {
        self.given_up.borrow().contains(&key_of(run, address))
    }

    fn put(&self, run: &Run, address: PageAddress, page: Rc<Page>) {
        self.cache.borrow_mut().insert(key_of(run, address), page);
    }

    /// Bytes of the pages in it.
    pub fn bytes(&self) -> u64 {
        self.cache.borrow().weight()
    }
}

impl Pages for PageCache {
    fn page(&self, run: &Run, address: PageAddress) -> Option<Rc<Page>> {
        let found = self.cache.borrow().get(&key_of(run, address)).cloned();
        self.hits.update(|hits| hits + u64::from(found.is_some()));
        found
    }
}

/// The cache, and pages that one lookup or walk has read for itself.
pub struct Held<'c> {
    cache: &'c PageCache,
    held: RefCell<Vec<(PageKey, Rc<Page>)>>,
    /// Bytes to read when a page is missing: at first, and when reading goes on where it ended.
    ahead_first_bytes: u32,
    ahead_bytes_max: u32,
    /// Pages are read one by one.
    is_one_by_one: Cell<bool>,
    /// Where reading ended in each run.
    streams: RefCell<Vec<Stream>>,
    /// Whether pages are worth keeping for others.
    is_shared: bool,
    /// What is on disk is wanted, not what the cache has of it.
    is_of_disk: bool,
    /// Bytes that were read for it.
    read_bytes: Cell<u64>,
    /// What a line about a page begins with.
    told_by: &'static str,
    /// Pages that cannot be read are passed over, as if nothing were in them; and how many were.
    passes_over: bool,
    passed_over: Cell<u64>,
}

struct Stream {
    tag: u64,
    /// Segment and offset.
    end: (u32, u32),
    /// Bytes that were asked for.
    ahead_bytes: u32,
}

impl<'c> Held<'c> {
    /// For a lookup.
    pub fn new(cache: &'c PageCache) -> Held<'c> {
        Held {
            cache,
            held: RefCell::default(),
            ahead_first_bytes: 0,
            ahead_bytes_max: 0,
            is_one_by_one: Cell::new(false),
            streams: RefCell::default(),
            is_shared: true,
            is_of_disk: false,
            read_bytes: Cell::new(0),
            told_by: "",
            passes_over: false,
            passed_over: Cell::new(0),
        }
    }

    /// For a walk: pages that follow are read along.
    pub fn ahead(cache: &'c PageCache) -> Held<'c> {
        Held {
            ahead_first_bytes: AHEAD_FIRST_BYTES,
            ahead_bytes_max: AHEAD_BYTES_MAX,
            ..Held::new(cache)
        }
    }

    /// For a walk over everything, which reads `ahead_bytes` at a time and leaves the cache to others.
    pub fn passing(cache: &'c PageCache, ahead_bytes: u32) -> Held<'c> {
        Held {
            ahead_first_bytes: ahead_bytes,
            ahead_bytes_max: ahead_bytes,
            is_shared: false,
            ..Held::new(cache)
        }
    }

    /// For the scrub: a walk over everything that reads each page from disk.
    pub fn of_disk(cache: &'c PageCache) -> Held<'c> {
        Held {
            is_of_disk: true,
            told_by: "scrub: ",
            ..Held::passing(cache, AHEAD_BYTES_MAX)
        }
    }

    /// From now on pages are read one by one, or `ahead` again: a long read fails with any of its sectors.
    pub fn read_ahead(&self, ahead: bool) {
        self.is_one_by_one.set(!ahead);
    }

    /// Bytes that were read so far.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.get()
    }

    /// Has the walk go on as if nothing were in a page.
    pub fn pass_over(&self, need: Need) {
        let Need(run, address) = need;
        self.hold(&run, address, Rc::new(Page::lost(address)));
    }

    /// For a walk at start, which finds what can be read.
    pub fn passing_over(cache: &'c PageCache) -> Held<'c> {
        Held {
            passes_over: true,
            ..Held::ahead(cache)
        }
    }

    /// How many pages could not be read.
    pub fn passed_over(&self) -> u64 {
        self.passed_over.get()
    }

    /// Bytes to read of a run from a page on.
    fn ahead_bytes(&self, run: &Run, address: PageAddress) -> u32 {
        if self.is_one_by_one.get() {
            return 0;
        }
        let streams = self.streams.borrow();
        let stream = streams.iter().find(|stream| stream.tag == run.tag);
        match stream.filter(|stream| stream.end == (address.segment, address.offset)) {
            Some(stream) => (stream.ahead_bytes * 2).min(self.ahead_bytes_max),
            None => self.ahead_first_bytes,
        }
    }

    fn note_read(&self, run: &Run, end: (u32, u32), ahead_bytes: u32) {
        let mut streams = self.streams.borrow_mut();
        streams.retain(|stream| stream.tag != run.tag);
        streams.push(Stream {
            tag: run.tag,
            end,
            ahead_bytes,
        });
    }

    fn has(&self, run: &Run, address: PageAddress) -> bool {
        let key = key_of(run, address);
        self.held.borrow().iter().any(|(of, _)| *of == key)
    }

    fn hold(&self, run: &Run, address: PageAddress, page: Rc<Page>) {
        let mut held = self.held.borrow_mut();
        let bytes = held.iter().map(|(_, page)| page.bytes_held()).sum::<usize>();
        if held.len() >= HELD_PAGES_MAX || bytes >= HELD_BYTES_MAX {
            let half = held.len().div_ceil(2);
            held.drain(..half);
        }
        held.push((key_of(run, address), page));
    }
}

impl Pages for Held<'_> {
    fn page(&self, run: &Run, address: PageAddress) -> Option<Rc<Page>> {
        let key = key_of(run, address);
        // The latest is the likeliest.
        let held = self.held.borrow();
        if let Some((_, page)) = held.iter().rev().find(|(of, _)| *of == key) {
            return Some(page.clone());
        }
        match self.is_of_disk {
            true => None,
            false => self.cache.page(run, address),
        }
    }
}

impl<I: Machine> Core<I> {
    /// Reads a page that a step needs, and has it held.
    ///
    /// # Errors
    /// `DiskFailed`, `Damaged`; `OutOfReach` if it is, or may be, on a volume that is missing.
    pub async fn fetch(&self, need: Need, into: &Held<'_>) -> Result<(), Refusal> {
        let Need(run, address) = need;
        match self.fetch_page(&run, address, into).await {
            Err(Refusal::Damaged | Refusal::OutOfReach) if into.passes_over => {
                into.passed_over.update(|pages| pages + 1);
                into.pass_over(need);
                Ok(())
            }
            fetched => fetched,
        }
    }

    async fn fetch_page(&self, run: &Run, address: PageAddress, into: &Held<'_>) -> Result<(), Refusal> {
        if self.is_out_of_reach(SegmentId(address.segment)) {
            return Err(Refusal::OutOfReach);
        }
        // It was read, and is not what leads on: whole, and of another level.
        if into.has(run, address) {
            warn!(
                "weft: {}segment {}: the index page at {} is not the one that belongs there",
                into.told_by,
                SegmentId(address.segment),
                address.offset
            );
            count(&self.counters.checksum_errors, 1);
            return Err(self.not_verified());
        }
        if self.pages.is_given_up(run, address) {
            self.keep(run, address, Page::lost(address), into);
            return Ok(());
        }
        match self.read_pages(run, address, into).await {
            Err(Refusal::Damaged) if self.may_give_up() => {
                self.pages.give_up(run, address);
                self.keep(run, address, Page::lost(address), into);
                Ok(())
            }
            read => read,
        }
    }

    /// Reads a page, and those behind it that may be of use.
    async fn read_pages(&self, run: &Run, address: PageAddress, into: &Held<'_>) -> Result<(), Refusal> {
        let segment_bytes = self.io.volume().segment_size_bytes;
        if address.offset.saturating_add(address.length) > segment_bytes {
            warn!(
                "weft: {}segment {}: the index names a page at {}, behind its end",
                into.told_by,
                SegmentId(address.segment),
                address.offset
            );
            count(&self.counters.checksum_errors, 1);
            return Err(self.not_verified());
        }
        let ahead_bytes = into.ahead_bytes(run, address);
        let length = ahead_bytes
            .max(address.length)
            .min(segment_bytes - address.offset);
        into.read_bytes.update(|bytes| bytes + u64::from(length));
        let read = self.io.read(SegmentId(address.segment), address.offset, length);
        let read = read.await.map_err(|error| {
            warn!(
                "weft: {}segment {}: reading the index at {}: {error}",
                into.told_by,
                SegmentId(address.segment),
                address.offset
            );
            count(&self.counters.disk_errors, 1);
            match error.kind() {
                // It was there once.
                std::io::ErrorKind::NotFound => self.not_verified(),
                _ => Refusal::DiskFailed,
            }
        })?;
        let bytes = read.as_ref();
        count(&self.counters.pages_read, 1);
        count(&self.counters.page_bytes_read, bytes.len() as u64);
        let page = Page::verify(&bytes[..address.length as usize], address, run.tag).map_err(|error| {
            warn!(
                "weft: {}segment {}: the index page at {}: {error}",
                into.told_by,
                SegmentId(address.segment),
                address.offset
            );
            count(&self.counters.checksum_errors, 1);
            self.not_verified()
        })?;
        self.keep(run, address, page, into);
        let mut at = address.length;
        while let Some((next, page)) = page_at(bytes, at, run, address) {
            at += next.length;
            self.keep(run, next, page, into);
        }
        into.note_read(run, (address.segment, address.offset + at), ahead_bytes);
        Ok(())
    }

    /// Whether a page that is not whole may be taken for one without an entry: only before what is there has been
    /// counted, for what was counted must be found again when it is released.
    fn may_give_up(&self) -> bool {
        self.loss == Loss::Accepted && !self.checkpoints.is_audited()
    }

    fn keep(&self, run: &Run, address: PageAddress, page: Page, into: &Held<'_>) {
        let page = Rc::new(match self.pages.is_given_up(run, address) {
            true => Page::lost(address),
            false => page,
        });
        if into.is_shared {
            self.pages.put(run, address, page.clone());
        }
        into.hold(run, address, page);
    }

    /// What `runs` say of a key, the newest that knows it first. The caller holds a guard.
    ///
    /// # Errors
    /// `DiskFailed`, `Damaged`.
    pub async fn find_on_disk(&self, runs: &[Run], key: &[u8]) -> Result<Option<Entry>, Refusal> {
        let held = Held::new(&self.pages);
        loop {
            match find_in(runs, key, &held) {
                Ok(found) => return Ok(found),
                Err(need) => self.fetch(need, &held).await?,
            }
        }
    }

    /// The entry of a key, wherever it is. The caller holds a guard.
    ///
    /// # Errors
    /// `DiskFailed`, `Damaged`.
    pub async fn find_entry(&self, key: &[u8]) -> Result<Option<Entry>, Refusal> {
        let runs = {
            let index = self.index.borrow();
            if let Some(known) = index.in_memory(key) {
                return Ok(known.map(EntryRef::to_entry));
            }
            index.runs().clone()
        };
        self.find_on_disk(&runs, key).await
    }

    /// Shows the entries from `from` on, in order, until `see` says otherwise. It may change nothing. The caller holds a guard.
    ///
    /// # Errors
    /// `DiskFailed`, `Damaged`.
    pub async fn walk_index(
        &self,
        from: Vec<u8>,
        see: impl FnMut(&[u8], EntryRef<'_>) -> Go,
    ) -> Result<(), Refusal> {
        self.walk_with(&mut Cursor::new(from), &Held::ahead(&self.pages), see)
            .await
    }

    /// As [`Core::walk_index`], from a cursor on.
    ///
    /// # Errors
    /// `DiskFailed`, `Damaged`.
    pub async fn walk_with(
        &self,
        cursor: &mut Cursor,
        held: &Held<'_>,
        mut see: impl FnMut(&[u8], EntryRef<'_>) -> Go,
    ) -> Result<(), Refusal> {
        loop {
            let walked = self.index.borrow().walk(cursor, held, &mut see);
            match walked {
                Ok(Walked::Ended) => return Ok(()),
                Ok(Walked::Paused) => self.io.yield_now().await,
                Err(need) => self.fetch_all(need, cursor.also_needed(), held).await?,
            }
        }
    }

    /// Reads a page, and others that are needed as well.
    async fn fetch_all(&self, need: Need, also: Vec<Need>, into: &Held<'_>) -> Result<(), Refusal> {
        let also = also.into_iter().map(|need| self.fetch(need, into));
        let fetched =
            futures_util::future::join(self.fetch(need, into), futures_util::future::join_all(also));
        // What the others miss they will ask for by themselves.
        fetched.await.0
    }

    /// As [`Core::walk_with`], over an index that does not change.
    ///
    /// # Errors
    /// `DiskFailed`, `Damaged`.
    pub async fn walk_over(
        &self,
        index: &Index,
        cursor: &mut Cursor,
        held: &Held<'_>,
        mut see: impl FnMut(&[u8], EntryRef<'_>) -> Go,
    ) -> Result<(), Refusal> {
        loop {
            match index.walk(cursor, held, &mut see) {
                Ok(Walked::Ended) => return Ok(()),
                Ok(Walked::Paused) => self.io.yield_now().await,
                Err(need) => self.fetch(need, held).await?,
            }
        }
    }
}

/// The page that lies `at` bytes behind the first of what was read, if it is one of the run.
fn page_at(bytes: &[u8], at: u32, run: &Run, first: PageAddress) -> Option<(PageAddress, Page)> {
    let rest = bytes.get(at as usize..)?;
    let length = Page::length_in(rest)?;
    let address = PageAddress {
        segment: first.segment,
        offset: first.offset + at,
        length,
    };
    let page = Page::verify(rest.get(..length as usize)?, address, run.tag).ok()?;
    Some((address, page))
}
