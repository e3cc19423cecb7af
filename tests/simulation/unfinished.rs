//! Uploads that nobody finishes: those that are too old are ended, and what they kept comes back.

use crate::cleaning::start;
use crate::workload::Engine;
use std::time::Duration;
use weft::engine::{BucketId, Refusal, UploadId};
use weft::io::sim::{Options, Rng, World};
use weft::io::{CoreId, Io, VolumeShape};

const SEEDS: u64 = 6;
const STEPS_MAX: u64 = 100_000_000;
const DAY: Duration = Duration::from_secs(86_400);

fn shape(cores: usize) -> VolumeShape {
    VolumeShape {
        segment_size_bytes: 1 << 20,
        segments_max: weft::engine::segments_min(cores),
    }
}

#[test]
fn uploads_that_are_too_old_are_ended_and_no_others() {
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let cores = 1 + seed as usize % 3;
        let mut world = World::new(seed, Options::new(cores, shape(cores)));
        let engines = start(&mut world, cores);
        let engine = engines[rng.index(cores)].clone();
        let (core, all) = (engine.io().core(), engines.clone());
        // What a sweep finds is in memory, or in runs.
        let from_disk = seed % 2 == 1;
        let work = async move {
            let bucket = engine.create_bucket("uploads", "").await.expect("a bucket").id;
            let old = begin_uploads(&engine, bucket, &mut rng).await;
            engine.io().sleep(DAY).await;
            let young = begin_uploads(&engine, bucket, &mut rng).await;
            let begun = uploads_of(&all).await;
            assert_eq!(begun, (old.len() + young.len()) as u64);
            for engine in &all {
                engine.abort_uploads_older_than(DAY * 2).await.expect("a sweep");
            }
            assert_eq!(uploads_of(&all).await, begun, "none is as old as that");
            if from_disk {
                for engine in &all {
                    assert!(engine.checkpoint().await);
                }
            }
            for engine in &all {
                engine.abort_uploads_older_than(DAY / 2).await.expect("a sweep");
            }
            for (uploads, is_there) in [(&old, false), (&young, true)] {
                for (key, upload) in uploads {
                    let parts = engine.list_parts(bucket, key, *upload, 0, 10).await;
                    assert_eq!(parts.is_ok(), is_there, "{parts:?}");
                }
            }
            assert_eq!(uploads_of(&all).await, young.len() as u64);
            let expired = all.iter().map(|engine| engine.counters().uploads_expired.get());
            assert_eq!(expired.sum::<u64>(), old.len() as u64);
            young.len() as u64
        };
        let young = world.run_task(core, work, STEPS_MAX).expect("it ends");
        world.run(|| false, STEPS_MAX);
        let mut world = World::restart(world.crash(), seed, Options::new(1, shape(cores)));
        let engines = start(&mut world, 1);
        world.run(|| false, STEPS_MAX);
        let counted = world.run_task(CoreId(0), async move { uploads_of(&engines).await }, STEPS_MAX);
        assert_eq!(counted, Some(young), "after a restart");
    }
}

/// How many uploads there are, as counted; and that there are as many.
async fn uploads_of(engines: &[Engine]) -> u64 {
    let mut sum = 0;
    for engine in engines {
        let implied = engine
            .holdings_implied()
            .await
            .expect("an index that can be read");
        assert_eq!(*engine.holdings(), implied);
        sum += implied.uploads.get();
    }
    sum
}

/// Begins some uploads with some parts each, small and large.
async fn begin_uploads(engine: &Engine, bucket: BucketId, rng: &mut Rng) -> Vec<(Vec<u8>, UploadId)> {
    let mut uploads = Vec::new();
    for number in 0..12 {
        let key = format!("upload-{}", number % 7).into_bytes();
        let upload = engine.create_upload(bucket, &key, Box::new([7; 8])).await;
        let upload = upload.expect("room for an upload");
        for part in 0..rng.below(4) as u16 {
            let length = [100, 3_000, 90_000][rng.index(3)];
            put_part(engine, bucket, &key, upload, part + 1, length)
                .await
                .expect("room for a part");
        }
        uploads.push((key, upload));
    }
    uploads
}

async fn put_part(
    engine: &Engine,
    bucket: BucketId,
    key: &[u8],
    upload: UploadId,
    number: u16,
    length: u64,
) -> Result<(), Refusal> {
    let mut writer = engine.receive_body(Some(length));
    while writer.received() < length {
        let space = writer.space().await?;
        let count = space.len();
        writer.advance(count);
    }
    let body = writer.finish().await?;
    let part = engine.put_part(bucket, key, upload, number, [7; 16], Box::default(), body);
    part.await.map(drop)
}
