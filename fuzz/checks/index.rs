//! Pages of the index's runs, whatever they hold.
//!
//! The first byte chooses what the rest is: pages, whose checksums and places are then made to fit, so that what reads
//! them is reached; or a script that builds runs, damages their pages, and holds searches and walks to a map. No input
//! may panic or walk for ever, no page may be followed that does not fit, and no item may be shown that was not pushed.

use std::collections::BTreeMap;
use std::rc::Rc;

use weft::index::{MergeCursor, Need, Page, PageAddress, Pages, Run, RunBuilder, RunCursor, find};
use weft::log::body_crc32;

const TAG: u64 = 7;
const SEGMENT: u32 = 3;
const PAGE_BYTES: usize = 4096;
/// Bytes of the input for each page; the rest of it is zeros.
const CHUNK_BYTES: usize = 256;
const STEPS_MAX: usize = 5_000;

type Model = BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)>;

pub fn check(data: &[u8]) {
    let Some((&mode, rest)) = data.split_first() else {
        return;
    };
    match mode % 2 {
        0 => pages(rest),
        _ => script(rest),
    }
}

/// Pages by offset; what does not verify is not there.
struct Verified(BTreeMap<u32, Rc<Page>>);

impl Pages for Verified {
    fn page(&self, run: &Run, address: PageAddress) -> Option<Rc<Page>> {
        let page = self.0.get(&address.offset)?;
        (page.address() == address && run.tag == TAG).then(|| page.clone())
    }
}

fn address(number: usize) -> PageAddress {
    PageAddress {
        segment: SEGMENT,
        offset: (number * PAGE_BYTES) as u32,
        length: PAGE_BYTES as u32,
    }
}

/// Chunks of the input as pages of one run, the first as its root.
fn pages(data: &[u8]) {
    let mut verified = Verified(BTreeMap::new());
    for (number, chunk) in data.chunks(CHUNK_BYTES).take(64).enumerate() {
        let at = address(number);
        let mut bytes = chunk.to_vec();
        bytes.resize(PAGE_BYTES, 0);
        bytes[4..10].copy_from_slice(b"WFTI\x01\0");
        for (field, value) in [(20, at.segment), (24, at.offset), (28, at.length)] {
            bytes[field..field + 4].copy_from_slice(&value.to_le_bytes());
        }
        bytes[32..40].copy_from_slice(&TAG.to_le_bytes());
        let crc = body_crc32(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        match Page::verify(&bytes, at, TAG) {
            Ok(page) => _ = verified.0.insert(at.offset, Rc::new(page)),
            Err(error) => assert!(error.to_string().contains("makes no sense")),
        }
    }
    let run = Run {
        tag: TAG,
        root: address(0),
        entries: 0,
        tombstones: 0,
        bytes: 0,
    };
    walk(run, &verified);
    let mut merge = MergeCursor::new(&[run, run]);
    if step(merge.seek(&data[..data.len().min(3)], &verified)) {
        for _ in 0..STEPS_MAX {
            if merge.item().is_none() || !step(merge.advance(&verified)) {
                break;
            }
        }
    }
}

/// Walks a run for as long as its pages are there, and looks for what it shows.
fn walk(run: Run, verified: &Verified) {
    let mut cursor = RunCursor::new(run);
    assert!(cursor.item().is_none());
    if !step(cursor.seek(b"", verified)) {
        return;
    }
    for _ in 0..STEPS_MAX {
        let Some(item) = cursor.item() else {
            break;
        };
        let (key, sequence) = (item.key.to_vec(), item.sequence);
        let value = item.value.map(<[u8]>::to_vec);
        // In a tree of one page no key is hidden by a separator or a filter.
        if verified.0[&run.root.offset].level() == 0 {
            let hit = find(&run, &key, verified).expect("the root is there");
            let hit = hit.expect("what a walk shows is found");
            assert_eq!((hit.sequence(), hit.value()), (sequence, value.as_deref()));
        } else {
            let _ = step(find(&run, &key, verified));
        }
        let mut other = RunCursor::new(run);
        let _ = step(other.seek(&key, verified));
        if !step(cursor.advance(verified)) {
            let shown = cursor.item().expect("a move that fails moves nothing");
            assert_eq!((shown.key, shown.sequence), (&*key, sequence));
            break;
        }
    }
}

/// Whether a step had all that it needs.
fn step<T>(step: Result<T, Need>) -> bool {
    if let Err(Need(run, address)) = &step {
        assert!(address.length >= 4096 && address.length.is_multiple_of(4096));
        assert_eq!(run.tag, TAG);
    }
    step.is_ok()
}

/// Builds up to four runs, damages pages, and compares what is read with what was pushed.
fn script(data: &[u8]) {
    let mut script = data.iter().copied();
    let mut next = || script.next();
    let mut written = BTreeMap::new();
    let mut merged = Model::new();
    let mut runs: Vec<(Run, Model)> = Vec::new();
    for _ in 0..1 + next().unwrap_or(0) % 4 {
        let mut model = Model::new();
        for sequence in 0..u64::from(next().unwrap_or(0)) {
            let Some(shape) = next() else {
                break;
            };
            let key = (0..shape % 8).map(|_| next().unwrap_or(0)).collect();
            let fill = next().unwrap_or(0);
            let value = (shape < 0xf0).then(|| vec![fill; usize::from(shape / 8) * usize::from(fill)]);
            model.insert(key, (sequence, value));
        }
        runs.extend(build(&model, &mut written).map(|run| (run, model.clone())));
        merged.extend(model);
    }
    runs.reverse();
    let damaged = damage(&mut written, &mut next);
    let mut verified = Verified(BTreeMap::new());
    for (at, bytes) in &written {
        match Page::verify(bytes, *at, TAG) {
            Ok(page) => _ = verified.0.insert(at.offset, Rc::new(page)),
            Err(_) => assert!(damaged.contains(at), "{at} is refused as it was written"),
        }
    }
    for (run, model) in &runs {
        for (key, content) in model {
            match find(run, key, &verified) {
                Ok(hit) => {
                    let hit = hit.expect("what was pushed is found");
                    assert_eq!((hit.sequence(), hit.value()), (content.0, content.1.as_deref()));
                }
                Err(Need(_, at)) => assert!(damaged.contains(&at)),
            }
            let absent = [key, &[0][..]].concat();
            if let Ok(hit) = find(run, &absent, &verified) {
                assert_eq!(hit.is_some(), model.contains_key(&absent));
            }
        }
    }
    let runs: Vec<Run> = runs.into_iter().map(|(run, _)| run).collect();
    let from = next().map_or_else(Vec::new, |byte| vec![byte]);
    let mut cursor = MergeCursor::new(&runs);
    if let Err(Need(_, at)) = cursor.seek(&from, &verified) {
        assert!(damaged.contains(&at));
        return;
    }
    for (key, (sequence, value)) in merged.range(from..) {
        let item = cursor.item().expect("all that was pushed is shown");
        assert_eq!(
            (item.key, item.sequence, item.value),
            (&**key, *sequence, value.as_deref())
        );
        if let Err(Need(_, at)) = cursor.advance(&verified) {
            assert!(damaged.contains(&at));
            return;
        }
    }
    assert!(cursor.item().is_none());
}

/// Pages of the run go behind those of the ones before.
fn build(model: &Model, written: &mut BTreeMap<PageAddress, Vec<u8>>) -> Option<Run> {
    let mut builder = RunBuilder::new(TAG);
    let offset = written.keys().next_back().map_or(0, |at| at.offset + at.length);
    builder.give_room(PageAddress {
        segment: SEGMENT,
        offset,
        length: 64 << 20,
    });
    for (key, (sequence, value)) in model {
        builder.push(key, *sequence, value.as_deref());
    }
    builder.finish();
    assert_eq!(builder.wants_room(), None);
    while let Some((at, bytes)) = builder.take_output(0) {
        assert!(written.insert(at, bytes).is_none());
    }
    let run = builder.finished();
    assert_eq!(run.is_some(), !model.is_empty());
    run
}

/// Flips bits, or puts a page in another's place, as the script says. Returns the pages that may be damaged.
fn damage(
    written: &mut BTreeMap<PageAddress, Vec<u8>>,
    next: &mut impl FnMut() -> Option<u8>,
) -> Vec<PageAddress> {
    let places: Vec<PageAddress> = written.keys().copied().collect();
    let mut damaged = Vec::new();
    while let (Some(which), Some(high), Some(low), Some(flip)) = (next(), next(), next(), next()) {
        let Some(at) = places.get(usize::from(which % 0x80) % places.len().max(1)) else {
            break;
        };
        let other = written[&places[usize::from(low) % places.len()]].clone();
        let bytes = written.get_mut(at).expect("a page that was written");
        if which < 0x80 {
            let at = usize::from(high) << 8 | usize::from(low);
            let length = bytes.len();
            bytes[at % length] ^= flip;
        } else {
            *bytes = other;
        }
        damaged.push(*at);
    }
    damaged
}
