//! MD5 of 64 KiB a stream: alone, many streams together, and through the lanes of a core.
//!
//! `cargo bench --bench md5`. Throughput is that of all streams together.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use futures_executor::block_on;
use futures_util::future::join_all;
use weft::s3::md5::{Lanes, Md5, update_many};

const CHUNK_BYTES: usize = 64 * 1024;
const STREAMS: [usize; 12] = [1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 48];

fn main() {
    divan::main();
}

fn chunks(streams: usize) -> Vec<Vec<u8>> {
    (0..streams).map(|i| vec![i as u8; CHUNK_BYTES]).collect()
}

#[divan::bench(args = STREAMS)]
fn many(bencher: Bencher, streams: usize) {
    let chunks = chunks(streams);
    let mut hashes = vec![Md5::new(); streams];
    bencher
        .counter(BytesCount::new(streams * CHUNK_BYTES))
        .bench_local(|| {
            let mut jobs: Vec<_> = hashes.iter_mut().zip(chunks.iter().map(Vec::as_slice)).collect();
            update_many(black_box(&mut jobs));
        });
}

#[divan::bench(args = STREAMS)]
fn lanes(bencher: Bencher, streams: usize) {
    let lanes = Lanes::new();
    let mut jobs: Vec<_> = chunks(streams)
        .into_iter()
        .map(|chunk| (Md5::new(), chunk))
        .collect();
    bencher
        .counter(BytesCount::new(streams * CHUNK_BYTES))
        .bench_local(|| {
            let updates = std::mem::take(&mut jobs)
                .into_iter()
                .map(|(md5, chunk)| lanes.update(md5, chunk));
            jobs = block_on(join_all(updates));
        });
}

/// The yardstick: RustCrypto's, one stream.
#[divan::bench]
fn rustcrypto(bencher: Bencher) {
    use md5::Digest as _;
    let chunk = vec![1; CHUNK_BYTES];
    let mut hash = md5::Md5::new();
    bencher
        .counter(BytesCount::new(CHUNK_BYTES))
        .bench_local(|| hash.update(black_box(&chunk)));
}
