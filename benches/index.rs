//! Runs of the index, all pages at hand: the search for one key, walks, building, verifying a page.
//!
//! `cargo bench --bench index`. Keys are those of objects in one bucket, 33 bytes; values have 120 bytes. Throughput is
//! items a second: the time of a case is for `ITEMS_PER_CASE` of them, and that of `verify` for one page.

use std::rc::Rc;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use weft::index::key::{self, BucketId};
use weft::index::{MergeCursor, Need, Page, PageAddress, Pages, Run, RunBuilder, RunCursor, find};

const ITEMS_PER_CASE: usize = 1_000;
/// Items of a run: one whose pages fit a processor's cache, and one that is far larger.
const SIZES: [u32; 2] = [10_000, 1_000_000];

fn main() {
    divan::main();
}

/// Pages of one segment, by their offset.
struct AtHand(Vec<Option<Rc<Page>>>);

impl Pages for AtHand {
    fn page(&self, run: &Run, address: PageAddress) -> Option<Rc<Page>> {
        debug_assert_eq!(run.root.segment, address.segment);
        self.0[address.offset as usize / 4096].clone()
    }
}

/// Objects with even numbers are there, others are not.
fn key(number: u32) -> Vec<u8> {
    key::object(BucketId(7), format!("photos/2026/{number:08}.jpg").as_bytes())
}

/// Numbers from 0 to `bound`, in disorder, always the same.
fn disorder(bound: u32) -> impl Iterator<Item = u32> {
    let mut state = 1_u64;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % u64::from(bound)) as u32
    })
}

/// Pages as they were written, and where.
type Written = Vec<(PageAddress, Vec<u8>)>;

/// Builds runs with every `runs`th item each, one behind the other in a segment.
fn build(items: u32, runs: u32) -> (Vec<Run>, AtHand, Written) {
    let mut at_hand = AtHand(Vec::new());
    let mut outputs = Vec::new();
    let mut start = 0;
    let runs = (0..runs).map(|number| {
        let mut builder = RunBuilder::new(number.into());
        builder.give_room(PageAddress {
            segment: 1,
            offset: start,
            length: (1 << 30) - start,
        });
        for item in (number..items).step_by(runs as usize) {
            builder.push(&key(2 * item), item.into(), Some(&[9; 120]));
        }
        builder.finish();
        while let Some((address, bytes)) = builder.take_output(1) {
            let page = Page::verify(&bytes, address, number.into()).expect("what was just built");
            start = address.offset + address.length;
            at_hand.0.resize_with(start as usize / 4096, || None);
            at_hand.0[address.offset as usize / 4096] = Some(Rc::new(page));
            outputs.push((address, bytes));
        }
        builder.finished().expect("it has items")
    });
    (runs.collect(), at_hand, outputs)
}

fn done<T>(step: Result<T, Need>) -> T {
    step.unwrap_or_else(|need| panic!("all pages are at hand: {need:?}"))
}

fn find_all(bencher: Bencher, items: u32, odd: u32) {
    let (runs, pages, _) = build(items, 1);
    let keys: Vec<Vec<u8>> = disorder(items).take(200_000).map(|n| key(2 * n + odd)).collect();
    let mut keys = keys.iter().cycle();
    bencher.counter(ItemsCount::new(ITEMS_PER_CASE)).bench_local(|| {
        for key in keys.by_ref().take(ITEMS_PER_CASE) {
            black_box(done(find(&runs[0], key, &pages)).map(|hit| hit.sequence()));
        }
    });
}

#[divan::bench(args = SIZES)]
fn find_present(bencher: Bencher, items: u32) {
    find_all(bencher, items, 0);
}

#[divan::bench(args = SIZES)]
fn find_absent(bencher: Bencher, items: u32) {
    find_all(bencher, items, 1);
}

#[divan::bench(args = SIZES)]
fn walk(bencher: Bencher, items: u32) {
    let (runs, pages, _) = build(items, 1);
    let mut cursor = RunCursor::new(runs[0]);
    bencher.counter(ItemsCount::new(ITEMS_PER_CASE)).bench_local(|| {
        for _ in 0..ITEMS_PER_CASE {
            match cursor.item() {
                Some(item) => _ = black_box(item),
                None => done(cursor.seek(b"", &pages)),
            }
            done(cursor.advance(&pages));
        }
    });
}

/// An item behind another, from run to run: the worst order for a merge.
#[divan::bench(args = [1, 2, 4, 12])]
fn walk_merged(bencher: Bencher, number_of_runs: u32) {
    let (runs, pages, _) = build(200_000, number_of_runs);
    let mut cursor = MergeCursor::new(&runs);
    bencher.counter(ItemsCount::new(ITEMS_PER_CASE)).bench_local(|| {
        for _ in 0..ITEMS_PER_CASE {
            match cursor.item() {
                Some(item) => _ = black_box(item),
                None => done(cursor.seek(b"", &pages)),
            }
            done(cursor.advance(&pages));
        }
    });
}

#[divan::bench(args = [1, 2, 4, 12])]
fn seek_merged(bencher: Bencher, number_of_runs: u32) {
    let (runs, pages, _) = build(200_000, number_of_runs);
    let keys: Vec<Vec<u8>> = disorder(200_000).take(20_000).map(|n| key(2 * n + 1)).collect();
    let mut keys = keys.iter().cycle();
    let mut cursor = MergeCursor::new(&runs);
    bencher.counter(ItemsCount::new(ITEMS_PER_CASE)).bench_local(|| {
        for key in keys.by_ref().take(ITEMS_PER_CASE) {
            done(cursor.seek(key, &pages));
            black_box(cursor.item());
        }
    });
}

#[divan::bench]
fn build_run(bencher: Bencher) {
    let keys: Vec<Vec<u8>> = (0..100_000).map(key).collect();
    bencher.counter(ItemsCount::new(keys.len())).bench_local(|| {
        let mut builder = RunBuilder::new(1);
        builder.give_room(PageAddress {
            segment: 1,
            offset: 0,
            length: 1 << 30,
        });
        for key in &keys {
            builder.push(key, 1, Some(&[9; 120]));
            if builder.output_bytes() >= 1 << 20 {
                black_box(builder.take_output(1 << 20));
            }
        }
        builder.finish();
        while builder.take_output(1 << 20).is_some() {}
        black_box(builder.finished())
    });
}

/// Level 0 is a leaf of 4 KiB, level 1 the page above.
#[divan::bench(args = [0, 1])]
fn verify(bencher: Bencher, level: u8) {
    let (_, pages, outputs) = build(10_000, 1);
    let (address, bytes) = outputs
        .into_iter()
        .find(|(at, _)| {
            let page = pages.0[at.offset as usize / 4096].as_ref();
            page.is_some_and(|page| page.level() == level)
        })
        .expect("a page of each level");
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench_local(|| Page::verify(black_box(&bytes), address, 0));
}
