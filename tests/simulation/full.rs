//! A volume that is full: writes are refused with a word, reads and deletes go on, and room comes back.

use crate::cleaning::start;
use crate::content::Content;
use crate::workload::{Engine, SimIo};
use std::time::Duration;
use weft::engine::{BucketId, ETag, Message, Refusal, WriteCondition};
use weft::io::sim::{Options, Outcome, Rng, World};
use weft::io::{Io, VolumeShape};

const SEEDS: u64 = 12;
const STEPS_MAX: u64 = 50_000_000;
/// How often a write is tried again, every two seconds.
const RETRIES: usize = 2;
/// First everything is deleted, then every other object.
const ROUNDS: u64 = 2;

#[test]
fn a_full_volume_refuses_writes_serves_the_rest_and_recovers() {
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let cores = rng.between(1, 4) as usize;
        let shape = VolumeShape {
            segment_size_bytes: 1 << 20,
            segments_max: 10 + 10 * cores as u32,
        };
        let mut world = World::new(seed, Options::new(cores, shape));
        let engine = start(&mut world, cores).swap_remove(0);
        let core = engine.io().core();
        let length_max = [3_000, 60_000, 300_000][rng.index(3)];
        let done = world.run_task(core, fill_and_empty(engine, rng, length_max), STEPS_MAX);
        assert!(done.is_some(), "seed {seed}: somebody waits for ever");
        quiet(world);
    }
}

fn quiet(mut world: World<Message>) {
    assert_eq!(world.run(|| false, STEPS_MAX), Outcome::Idle);
}

async fn fill_and_empty(engine: Engine, mut rng: Rng, length_max: u64) {
    let bucket = engine.create_bucket("full", "").await.expect("a bucket").id;
    for round in 0..ROUNDS {
        let mut stored = Vec::new();
        let refusal = loop {
            let content = Content::of(rng.next_u64(), 1 + rng.below(length_max));
            let key = format!("{round}/{}", stored.len()).into_bytes();
            match put(&engine, bucket, &key, &content).await {
                Ok(()) => stored.push((key, content)),
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(refusal, Refusal::Full);
        assert!(stored.len() > 4, "only {} objects fit", stored.len());
        for (key, content) in &stored {
            assert!(is_whole(&engine, bucket, key, content).await);
        }
        for (at, (key, _)) in stored.iter().enumerate() {
            if at % 2 == 0 || round % 2 == 0 {
                let deleted = engine.delete(bucket, key).await;
                let context = format!(
                    "round {round}, {at} of {}: {:?}",
                    stored.len(),
                    engine.space_use()
                );
                assert!(
                    deleted.is_ok(),
                    "a full volume takes deletes: {deleted:?} {context}"
                );
            }
        }
        write_again(&engine, bucket, &stored, &mut rng, length_max).await;
        for (key, content) in stored.iter().skip(1).step_by(2).filter(|_| round % 2 == 1) {
            assert!(is_whole(&engine, bucket, key, content).await);
            engine.delete(bucket, key).await.expect("a delete");
        }
        engine.io().sleep(Duration::from_secs(2)).await;
    }
}

/// What was deleted makes room within moments, wherever it lay: a quarter of it is written anew, and deleted.
async fn write_again(
    engine: &Engine,
    bucket: BucketId,
    stored: &[(Vec<u8>, Content)],
    rng: &mut Rng,
    length_max: u64,
) {
    for number in 0..stored.len() / 8 {
        let content = Content::of(rng.next_u64(), 1 + rng.below(length_max));
        let key = format!("again/{number}").into_bytes();
        let mut taken = put(engine, bucket, &key, &content).await;
        for _ in 0..RETRIES {
            if taken.is_ok() {
                break;
            }
            engine.io().sleep(Duration::from_secs(2)).await;
            taken = put(engine, bucket, &key, &content).await;
        }
        let context = format!(
            "{number} of {} of up to {length_max}: {:?}",
            stored.len(),
            engine.space_use()
        );
        assert_eq!(taken, Ok(()), "half was deleted, and there is no room: {context}");
    }
    for number in 0..stored.len() / 8 {
        let key = format!("again/{number}").into_bytes();
        engine.delete(bucket, &key).await.expect("a delete");
    }
}

pub async fn put(engine: &Engine, bucket: BucketId, key: &[u8], content: &Content) -> Result<(), Refusal> {
    let mut writer = engine.receive_body(Some(content.length()));
    while writer.received() < content.length() {
        let at = writer.received();
        let space = writer.space().await?;
        content.fill(at, space);
        let count = space.len();
        writer.advance(count);
    }
    let etag = ETag {
        md5: [7; 16],
        parts: 0,
    };
    let body = writer.finish().await?;
    engine
        .put(bucket, key, etag, Box::default(), body, WriteCondition::None)
        .await
        .map(drop)
}

/// Whether an object is there, with this content.
pub async fn is_whole(engine: &Engine, bucket: BucketId, key: &[u8], content: &Content) -> bool {
    let found: Result<weft::engine::FoundObject<SimIo>, Refusal> = engine.get(bucket, key).await;
    let Ok(found) = found else { return false };
    let mut reader = found.read(0..content.length());
    let mut at = 0;
    while let Some(piece) = reader.next().await.expect("a full volume is read") {
        for slice in piece.slices() {
            assert!(content.is_at(at, slice));
            at += slice.len() as u64;
        }
    }
    at == content.length()
}
