//! The scrub's rate, and where it is: a page on the first volume of the set, so that a pass goes on after a restart.
//!
//! Cores tell where they are, now and then; a thread keeps the least of it. It has no other duty, so that a disk on which
//! it hangs holds up nobody. The page promises nothing: one that is lost or damaged costs a pass begun anew, one that is
//! old some reading done twice.
//!
//! ```text
//! 0   8   "WEFTSCRB"              56  8  key's length
//! 8   4   version                 64  4  extent
//! 12  4   CRC-32, while this is 0  68  4  block
//! 16  16  the set                 72     key of the index
//! 32  8   pass                    ...    zeros up to 4096
//! 40  8   when it began (s)
//! 48  8   when the last ended (s)
//! ```
//! In the first part of a pass the key's length is 2^64 - 1, and the extent is the number of a segment.

use crate::engine::{IndexPlace, ScrubNext, ScrubPlan, ScrubPosition};
use crate::io::CoreId;
use crate::io::uring::{MEMO_BYTES, Memo, VolumeSet};
use crate::limits::SCRUB_PERIOD;
use std::cell::Cell;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// A core tells its place this often at most.
const TELL_INTERVAL: Duration = Duration::from_secs(10);
/// Without a rate the scrub begins so long after the start, which has enough to read.
const DELAY: Duration = Duration::from_secs(60);

const MAGIC: &[u8; 8] = b"WEFTSCRB";
const VERSION: u32 = 1;
const CRC_AT: usize = 12;
const SET_AT: usize = 16;
const KEY_AT: usize = 72;
/// The key's length where there is none.
const NO_KEY: u64 = u64::MAX;

/// A core's place.
pub type Told = (CoreId, ScrubPosition);

/// What the cores read by.
#[derive(Clone)]
pub struct Scrub {
    /// For each core.
    pub plan: ScrubPlan,
    pub from: ScrubPosition,
}

/// Where the place is kept.
pub struct Place {
    memo: Memo,
    set: [u8; 16],
}

impl Place {
    /// `None` if nothing may be written.
    pub fn of(volumes: &VolumeSet) -> Option<Place> {
        let memo = volumes.memo().ok().flatten()?;
        let set = volumes.id();
        Some(Place { memo, set })
    }

    /// Keeps the place that all cores have come to, until the last of them is gone.
    pub fn keep(self, from: ScrubPosition, cores: usize, told: mpsc::Receiver<Told>) {
        // Without the thread a pass begins anew.
        let _ = thread::Builder::new()
            .name("weft-scrub".to_owned())
            .spawn(move || self.keep_least(from, cores, &told));
    }

    fn keep_least(&self, from: ScrubPosition, cores: usize, told: &mpsc::Receiver<Told>) {
        let mut kept = from.clone();
        let mut places = vec![from; cores];
        for (core, position) in told {
            places[usize::from(core.0)] = position;
            let Some(least) = places.iter().min().filter(|least| **least > kept) else {
                continue;
            };
            // A disk that takes no page has said so elsewhere.
            if self.memo.write(&encode(least, &self.set)).is_ok() {
                kept = least.clone();
            }
        }
    }

    fn read(&self) -> Option<ScrubPosition> {
        decode(&self.memo.read()?, &self.set)
    }
}

impl Scrub {
    /// `None` when it is off. `bytes_per_s` is for all cores; without it the capacity is read once in two weeks.
    pub fn new(bytes_per_s: Option<u64>, capacity_bytes: u64, cores: usize, place: &Place) -> Option<Scrub> {
        let all_per_s = bytes_per_s.unwrap_or_else(|| (capacity_bytes / SCRUB_PERIOD.as_secs()).max(1));
        let (period, delay) = match bytes_per_s {
            Some(_) => (Duration::ZERO, Duration::ZERO),
            None => (SCRUB_PERIOD, DELAY),
        };
        (all_per_s > 0).then(|| Scrub {
            plan: ScrubPlan {
                bytes_per_s: (all_per_s / cores.max(1) as u64).max(1),
                period,
                delay,
            },
            from: place.read().unwrap_or_default(),
        })
    }
}

/// What a core calls with its place: it passes some of them on.
pub fn teller(core: CoreId, to: mpsc::Sender<Told>) -> impl Fn(&ScrubPosition) {
    let last = Cell::new(Instant::now());
    move |position| {
        if last.get().elapsed() >= TELL_INTERVAL {
            last.set(Instant::now());
            // The thread goes first only when the process ends.
            let _ = to.send((core, position.clone()));
        }
    }
}

fn encode(position: &ScrubPosition, set: &[u8; 16]) -> [u8; MEMO_BYTES] {
    let ScrubPosition {
        pass,
        next,
        began_s,
        ended_s,
    } = position;
    let (key, key_length, extent, block): (&[u8], u64, u32, u32) = match next {
        ScrubNext::Segment(segment) => (&[], NO_KEY, *segment, 0),
        ScrubNext::Index(IndexPlace {
            index_key,
            extent,
            block,
        }) => (index_key, index_key.len() as u64, *extent, *block),
    };
    let mut page = Vec::with_capacity(MEMO_BYTES);
    page.extend_from_slice(MAGIC);
    page.extend_from_slice(&VERSION.to_le_bytes());
    page.extend_from_slice(&[0; 4]);
    page.extend_from_slice(set);
    for field in [*pass, *began_s, *ended_s, key_length] {
        page.extend_from_slice(&field.to_le_bytes());
    }
    page.extend_from_slice(&extent.to_le_bytes());
    page.extend_from_slice(&block.to_le_bytes());
    page.extend_from_slice(key);
    page.resize(MEMO_BYTES, 0);
    let crc = crc32fast::hash(&page);
    page[CRC_AT..][..4].copy_from_slice(&crc.to_le_bytes());
    page.try_into().expect("it was given this length")
}

/// `None` for what is not as it was written, or of another set or release.
fn decode(page: &[u8], set: &[u8; 16]) -> Option<ScrubPosition> {
    let mut page: [u8; MEMO_BYTES] = page.try_into().ok()?;
    let crc = std::mem::take(page[CRC_AT..].first_chunk_mut::<4>()?);
    if u32::from_le_bytes(crc) != crc32fast::hash(&page) {
        return None;
    }
    let u32_at = |at: usize| Some(u32::from_le_bytes(*page[at..].first_chunk()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(*page[at..].first_chunk()?));
    if !page.starts_with(MAGIC) || u32_at(8)? != VERSION || !page[SET_AT..].starts_with(set) {
        return None;
    }
    let (key_length, extent, block) = (u64_at(56)?, u32_at(64)?, u32_at(68)?);
    let next = match key_length {
        NO_KEY => ScrubNext::Segment(extent),
        _ => ScrubNext::Index(IndexPlace {
            index_key: page[KEY_AT..].get(..usize::try_from(key_length).ok()?)?.to_vec(),
            extent,
            block,
        }),
    };
    Some(ScrubPosition {
        pass: u64_at(32)?,
        began_s: u64_at(40)?,
        ended_s: u64_at(48)?,
        next,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::KEY_BYTES_MAX;
    use std::fs;

    const SET: [u8; 16] = [7; 16];

    fn index(index_key: &[u8], extent: u32, block: u32) -> ScrubNext {
        ScrubNext::Index(IndexPlace {
            index_key: index_key.to_vec(),
            extent,
            block,
        })
    }

    fn at(pass: u64, next: ScrubNext) -> ScrubPosition {
        ScrubPosition {
            pass,
            next,
            began_s: 1_700_000_000,
            ended_s: 1_600_000_000,
        }
    }

    #[test]
    fn a_place_is_read_back_and_a_damaged_one_is_none() {
        let longest = [0xff; 2 * KEY_BYTES_MAX + 64];
        for next in [
            ScrubNext::Segment(7),
            index(b"", 0, 0),
            index(b"o\0\xffkey", 3, 250),
            index(&longest, 9, 1),
        ] {
            let position = at(12, next);
            let page = encode(&position, &SET);
            assert_eq!(decode(&page, &SET), Some(position));
            assert_eq!(decode(&page, &[8; 16]), None, "another set's");
            assert_eq!(decode(&page[..4095], &SET), None);
            for byte in (0..MEMO_BYTES).step_by(7) {
                let mut damaged = page;
                damaged[byte] ^= 1;
                assert_eq!(decode(&damaged, &SET), None, "byte {byte}");
            }
        }
    }

    #[test]
    fn places_are_in_the_order_in_which_they_are_read() {
        let ordered = [
            at(0, ScrubNext::Segment(9)),
            at(0, index(b"", 0, 0)),
            at(0, index(b"a", 0, 8)),
            at(0, index(b"a", 1, 0)),
            at(0, index(b"b", 0, 0)),
            at(1, ScrubNext::Segment(0)),
        ];
        assert!(ordered.is_sorted());
    }

    #[test]
    fn the_least_place_of_all_cores_is_kept() {
        let dir = std::env::temp_dir().join(format!("weft-scrub-place-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let place = || Place {
            memo: Memo::at(&dir),
            set: SET,
        };
        let (start, capacity) = (ScrubPosition::default(), 1 << 30);
        let scrub = Scrub::new(Some(1000), capacity, 2, &place()).unwrap();
        assert_eq!((scrub.plan.bytes_per_s, &scrub.from), (500, &start));
        let (teller, told) = mpsc::channel();
        for (core, segment) in [(0, 8), (1, 5), (0, 10)] {
            teller
                .send((CoreId(core), at(0, ScrubNext::Segment(segment))))
                .unwrap();
        }
        drop(teller);
        place().keep_least(start, 2, &told);
        let usual = Scrub::new(None, capacity, 2, &place()).unwrap();
        assert_eq!(usual.from, at(0, ScrubNext::Segment(5)));
        assert_eq!(usual.plan.period, SCRUB_PERIOD);
        assert!(Scrub::new(Some(0), capacity, 2, &place()).is_none());
        fs::remove_dir_all(&dir).unwrap();
    }
}
