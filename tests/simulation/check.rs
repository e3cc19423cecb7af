//! What must hold after a restart, and whenever nothing is under way.
//!
//! Invariant: nothing changes while a check runs; what it finds is from then on what the model says.

use crate::listing::glance_at;
use crate::model::{BucketState, Presence};
use crate::workload::{Client, Engine, check_object, id_of};
use std::collections::BTreeMap;
use weft::engine::{
    BucketId, BucketWalk, Configuration, KeyWalk, ListedUpload, Refusal, UploadWalk, WalkItem,
};

const READABLE: &str = "an index that can be read";

impl Client {
    /// After a restart: buckets, uploads, parts, keys, bodies and listings are what they may be.
    pub async fn verify(&mut self) {
        self.verify_buckets();
        let buckets = self.model().present_buckets();
        for (_, bucket) in &buckets {
            self.verify_uploads(*bucket).await;
        }
        for (_, bucket) in &buckets {
            self.verify_objects(*bucket).await;
            let all = KeyWalk {
                prefix: Vec::new(),
                delimiter: Vec::new(),
                after: None,
                max: 1000,
            };
            self.list_page(*bucket, all).await;
            self.list().await;
        }
        self.count("volume verified");
    }

    fn verify_buckets(&mut self) {
        let all = |engine: &Engine| engine.buckets(&BucketWalk::ALL).map(|page| page.buckets);
        let listed = all(&self.engine).expect("the buckets can be read");
        for other in &self.shared.engines {
            assert_eq!(all(other).as_ref(), Ok(&listed), "cores know different buckets");
        }
        let listed: BTreeMap<_, _> = listed.into_iter().collect();
        let mut model = self.model();
        let mut gone = Vec::new();
        for (name, state) in &mut model.buckets {
            let found = listed.get(name).map(|bucket| bucket.id);
            match (state.presence, state.id, found) {
                (Presence::Yes, Some(id), found) => {
                    assert_eq!(found, Some(id), "bucket {name} was acknowledged");
                }
                (Presence::No, _, found) => assert_eq!(found, None, "bucket {name} was deleted"),
                (Presence::Maybe, Some(id), Some(found)) => {
                    assert_eq!(found, id, "bucket {name} was not made again");
                    state.presence = Presence::Yes;
                }
                (Presence::Maybe, None, Some(found)) => {
                    *state = BucketState {
                        id: Some(found),
                        presence: Presence::Yes,
                        taken: false,
                        disturbed: 0,
                        configuration: std::mem::take(&mut state.configuration),
                    };
                }
                (Presence::Maybe, id, None) => {
                    gone.extend(id);
                    *state = BucketState {
                        id: None,
                        presence: Presence::No,
                        taken: false,
                        disturbed: 0,
                        configuration: std::mem::take(&mut state.configuration),
                    };
                }
                (Presence::Yes, None, _) => unreachable!("a bucket that is there has an id"),
            }
        }
        for (name, state) in &mut model.buckets {
            match listed.get(name) {
                None => state.configuration.clear(),
                Some(bucket) => check_configuration(name, state, &bucket.configuration),
            }
        }
        for name in listed.keys() {
            assert!(model.buckets.contains_key(name), "bucket {name} was never made");
        }
        for id in gone {
            model.forget_bucket(id);
        }
    }

    async fn verify_uploads(&mut self, bucket: BucketId) {
        let max = if self.chance(2) {
            1000
        } else {
            1 + self.rng.index(3)
        };
        let mut walk = all_uploads(max);
        let mut listed = Vec::new();
        loop {
            let page = self
                .insist(async |engine| engine.list_uploads(bucket, walk.clone(), glance_at).await)
                .await
                .expect(READABLE);
            assert!(page.items.len() <= max && (!page.truncated || page.items.len() == max));
            listed.extend(uploads_of(page.items));
            let Some((key, upload)) = listed.last().filter(|_| page.truncated) else {
                break;
            };
            (walk.keys.after, walk.after_upload) = (Some(key.clone()), Some(upload.id));
        }
        assert!(listed.is_sorted_by(|(a, a_upload), (b, b_upload)| (a, a_upload.id) < (b, b_upload.id)));
        let mut found = BTreeMap::new();
        {
            let mut model = self.model();
            for (key, upload) in listed {
                let (id, number) = (upload.id, id_of(&upload.glance));
                let Some(known) = model.uploads.get_mut(&number) else {
                    panic!(
                        "upload {number} of {:?} is over, or never began",
                        String::from_utf8_lossy(&key)
                    )
                };
                assert_eq!((&known.key, known.bucket), (&key, bucket));
                assert!(
                    known.presence != Presence::No && known.id.is_none_or(|known| known == id),
                    "{known:?}"
                );
                (known.presence, known.id) = (Presence::Yes, Some(id));
                found.insert(number, (key, id));
            }
            let here: Vec<u64> = model
                .uploads
                .iter()
                .filter(|(_, upload)| upload.bucket == bucket)
                .map(|(number, _)| *number)
                .collect();
            for number in here.into_iter().filter(|number| !found.contains_key(number)) {
                let lost = model.uploads.remove(&number).expect("just found");
                assert!(
                    lost.presence == Presence::Maybe,
                    "upload {number} was acknowledged: {lost:?}"
                );
                // It ended either by its completion or by nothing: then that has happened.
                if let Some(version) = lost.completing {
                    let now = model.tick();
                    model.key(bucket, &lost.key).happened(version, now);
                }
            }
        }
        for (number, (key, id)) in found {
            let parts = self
                .insist(async |engine| engine.list_parts(bucket, &key, id, 0, 1000).await)
                .await;
            match parts {
                Ok(page) => self.check_parts(number, &page),
                Err(refusal) => panic!("parts of upload {number}: {refusal:?}"),
            }
        }
    }

    async fn verify_objects(&mut self, bucket: BucketId) {
        let keys: Vec<Vec<u8>> = {
            let model = self.model();
            model
                .keys
                .keys()
                .filter(|(of, _)| *of == bucket)
                .map(|(_, key)| key.clone())
                .collect()
        };
        for key in keys {
            let found = match self.insist(async |engine| engine.head(bucket, &key).await).await {
                Ok(found) => Some(found),
                Err(Refusal::NoSuchKey) => None,
                Err(refusal) => panic!("a lookup was refused: {refusal:?}"),
            };
            let id = found.as_ref().map(|found| id_of(&found.object.attributes));
            let (settled, version) = {
                let mut model = self.model();
                let now = model.tick();
                let state = model.key(bucket, &key);
                let settled = state.settle(id, now);
                (settled, id.and_then(|id| state.version(id)))
            };
            self.demand(bucket, &key, settled);
            let Some(found) = found else { continue };
            let version = version.expect("it was settled");
            check_object(&version, &found);
            let completed = {
                let model = self.model();
                model
                    .uploads
                    .values()
                    .any(|upload| upload.completing == Some(version.id))
            };
            assert!(
                !completed,
                "an upload and the object that was made of it are both there: {version:?}"
            );
            if !self.read_whole(&version, found).await {
                self.count("object not read after a restart");
            }
        }
        // An upload that is still there was not completed.
        for upload in self
            .model()
            .uploads
            .values_mut()
            .filter(|upload| upload.bucket == bucket)
        {
            upload.completing = None;
        }
    }

    /// Deletes all that there is.
    pub async fn delete_everything(&mut self) {
        let all = self.engine.buckets(&BucketWalk::ALL);
        for (name, bucket) in all.expect("the buckets can be read").buckets {
            let uploads = self
                .engine
                .list_uploads(bucket.id, all_uploads(10_000), glance_at);
            for (key, upload) in uploads_of(uploads.await.expect(READABLE).items) {
                if self.rng.coin() {
                    self.engine
                        .abort_upload(bucket.id, &key, upload.id)
                        .await
                        .expect("an abort");
                }
            }
            let walk = KeyWalk {
                prefix: Vec::new(),
                delimiter: Vec::new(),
                after: None,
                max: 10_000,
            };
            let page = self
                .engine
                .list_objects(bucket.id, walk, glance_at)
                .await
                .expect(READABLE);
            let keys: Vec<Vec<u8>> = page.items.iter().map(|item| item.name().to_vec()).collect();
            for outcome in self.engine.delete_many(bucket.id, &keys).await {
                outcome.expect("a delete");
            }
            self.engine
                .delete_bucket(&name)
                .await
                .expect("an empty bucket is deleted");
        }
    }
}

fn all_uploads(max: usize) -> UploadWalk {
    UploadWalk {
        keys: KeyWalk {
            prefix: Vec::new(),
            delimiter: Vec::new(),
            after: None,
            max,
        },
        after_upload: None,
    }
}

/// The uploads of a page without common prefixes.
fn uploads_of(items: Vec<WalkItem<ListedUpload>>) -> impl Iterator<Item = (Vec<u8>, ListedUpload)> {
    items.into_iter().map(|item| match item {
        WalkItem::Key(key, upload) => (key, upload),
        WalkItem::CommonPrefix(prefix) => panic!("nobody asked to fold at {prefix:?}"),
    })
}

/// Live bytes of bodies that follow from what all buckets hold, read through the engine itself.
pub async fn implied_live_bytes(client: &Client) -> u64 {
    let engine = &client.engine;
    let mut bytes = 0;
    let all = engine.buckets(&BucketWalk::ALL);
    for (_, bucket) in all.expect("the buckets can be read").buckets {
        let walk = KeyWalk {
            prefix: Vec::new(),
            delimiter: Vec::new(),
            after: None,
            max: 10_000,
        };
        let objects = client
            .insist(async |engine| engine.list_objects(bucket.id, walk.clone(), glance_at).await)
            .await;
        for item in objects.expect(READABLE).items {
            let found = client
                .insist(async |engine| engine.head(bucket.id, item.name()).await)
                .await
                .expect("it was listed");
            bytes += found
                .object
                .extents
                .iter()
                .map(|extent| u64::from(extent.disk_bytes()))
                .sum::<u64>();
        }
        let uploads = client
            .insist(async |engine| {
                engine
                    .list_uploads(bucket.id, all_uploads(10_000), glance_at)
                    .await
            })
            .await;
        for (name, ListedUpload { id, .. }) in uploads_of(uploads.expect(READABLE).items) {
            let page = client
                .insist(async |engine| engine.list_parts(bucket.id, &name, id, 0, 10_000).await)
                .await
                .expect("it was listed");
            for (_, _, part) in page.parts {
                bytes += part
                    .extents
                    .iter()
                    .map(|extent| u64::from(extent.disk_bytes()))
                    .sum::<u64>();
            }
        }
    }
    bytes
}

/// Each kind of a bucket's configuration is what it may be; from now on that is what it is.
fn check_configuration(name: &str, state: &mut BucketState, found: &Configuration) {
    for (kind, _) in found.iter() {
        assert!(
            state.configuration.contains_key(&kind),
            "nobody set kind {kind} of bucket {name}"
        );
    }
    for (kind, possible) in &mut state.configuration {
        let found = found.get(*kind).map(<[u8]>::to_vec);
        assert!(
            possible.contains(&found),
            "kind {kind} of bucket {name} is none that it may be"
        );
        *possible = [found].into();
    }
}
