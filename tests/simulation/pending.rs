//! A refusal that rests on a pending change is answered with it: who then looks sees what it rested on.

use crate::cleaning::start;
use crate::workload::Engine;
use weft::engine::{BucketId, Completion, ETag, PartPage, Refusal, UploadId, WriteCondition};
use weft::io::sim::{Options, Rng, World};
use weft::io::{Io, VolumeShape};

const SEEDS: u64 = 20;
const STEPS_MAX: u64 = 1_000_000;
const KEY: &[u8] = b"key";

#[test]
fn a_completion_is_refused_for_a_replaced_part_once_the_new_one_is_there() {
    for seed in 0..SEEDS {
        let cores = Rng::new(seed).between(1, 4) as usize;
        let shape = VolumeShape {
            segment_size_bytes: 1 << 20,
            segments_max: 10 + 10 * cores as u32,
        };
        let mut world = World::new(seed, Options::new(cores, shape));
        let engine = start(&mut world, cores).swap_remove(0);
        let core = engine.io().core();
        let done = world.run_task(core, replace_and_complete(engine, seed), STEPS_MAX);
        assert!(done.is_some(), "seed {seed}: somebody waits for ever");
    }
}

async fn replace_and_complete(engine: Engine, seed: u64) {
    let bucket = engine.create_bucket("pending", "").await.expect("a bucket").id;
    let upload = engine.create_upload(bucket, KEY, Box::default()).await;
    let upload = upload.expect("an upload");
    let old = put_part(&engine, bucket, upload).await.expect("a part").sequence;
    let complete = async {
        let completion = Completion {
            etag: ETag {
                md5: [1; 16],
                parts: 1,
            },
            attributes: Box::default(),
            parts: vec![(1, old)],
        };
        let refused = engine
            .complete_upload(bucket, KEY, upload, completion, WriteCondition::None)
            .await;
        let page: PartPage = engine
            .list_parts(bucket, KEY, upload, 0, 10)
            .await
            .expect("the upload");
        (refused.map(drop), page.parts[0].1)
    };
    let (replaced, (refused, found)) =
        futures_util::future::join(put_part(&engine, bucket, upload), complete).await;
    let new = replaced.expect("another part").sequence;
    assert_eq!(refused, Err(Refusal::Stale), "seed {seed}");
    assert_eq!(found, new, "seed {seed}: refused while the new part was pending");
}

async fn put_part(
    engine: &Engine,
    bucket: BucketId,
    upload: UploadId,
) -> Result<weft::engine::Outcome, Refusal> {
    let body = engine.receive_body(Some(0)).finish().await?;
    engine
        .put_part(bucket, KEY, upload, 1, [2; 16], Box::default(), body)
        .await
}
