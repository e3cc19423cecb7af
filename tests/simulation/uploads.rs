//! Uploads in parts: one client at a time works on each, so that every answer is known exactly.

use crate::content::Content;
use crate::model::{PartVersion, Presence, UploadState, Version};
use crate::workload::{Client, Taken, id_of, patient};
use std::collections::BTreeMap;
use std::rc::Rc;
use weft::engine::{BucketId, Completion, ETag, PartPage, Refusal, UploadId};

const PARTS_OF_AN_UPLOAD: u64 = 5;
const UPLOADS_AT_ONCE: usize = 6;

/// An upload that a client works on.
struct Work {
    /// Its number in the model.
    number: u64,
    bucket: BucketId,
    key: Vec<u8>,
    id: UploadId,
}

impl Client {
    pub async fn upload_step(&mut self) {
        let free: Vec<u64> = {
            let model = self.model();
            let open = model
                .uploads
                .iter()
                .filter(|(_, u)| u.presence == Presence::Yes && u.id.is_some());
            open.filter(|(_, upload)| !upload.taken)
                .map(|(number, _)| *number)
                .collect()
        };
        if free.is_empty() || free.len() < UPLOADS_AT_ONCE && self.chance(4) {
            return self.create_upload().await;
        }
        let number = free[self.rng.index(free.len())];
        let work = {
            let mut model = self.model();
            let upload = model.uploads.get_mut(&number).expect("chosen above");
            upload.taken = true;
            let id = upload.id.expect("chosen for it");
            Work {
                number,
                bucket: upload.bucket,
                key: upload.key.clone(),
                id,
            }
        };
        match self.rng.below(16) {
            0..=8 => self.put_part(&work).await,
            9..=10 => drop(self.list_parts(&work).await),
            11..=14 => self.complete(&work).await,
            _ => self.abort(&work).await,
        }
        self.upload(number, |upload| upload.taken = false);
    }

    fn upload<T>(&self, number: u64, change: impl FnOnce(&mut UploadState) -> T) -> Option<T> {
        self.model().uploads.get_mut(&number).map(change)
    }

    async fn create_upload(&mut self) {
        let Some(bucket) = self.any_bucket() else { return };
        let key = crate::workload::key_name(self.rng.below(self.shared.traits.keys));
        let number = self.model().next_id();
        let attributes = self.attributes(number);
        let begun = self.model().tick();
        let state = UploadState {
            bucket,
            key: key.clone(),
            id: None,
            attributes: attributes.clone(),
            presence: Presence::Maybe,
            taken: true,
            parts: BTreeMap::new(),
            completing: None,
            doubtful: false,
        };
        self.model().uploads.insert(number, state);
        let created = self.engine.create_upload(bucket, &key, attributes.into()).await;
        match created {
            Ok(id) => {
                self.count("upload begun");
                self.upload(number, |upload| {
                    (upload.id, upload.presence, upload.taken) = (Some(id), Presence::Yes, false);
                });
            }
            Err(Refusal::DiskFailed) if self.shared.traits.disk_may_fail => {}
            Err(refusal) => {
                self.check_write_refusal_of(bucket, begun, refusal, "an upload's begin");
                self.model().uploads.remove(&number);
            }
        }
    }

    async fn put_part(&mut self, work: &Work) {
        let part_number = 1 + self.rng.below(PARTS_OF_AN_UPLOAD) as u16;
        let length = self.body_length();
        let content = Content::of(self.rng.next_u64(), length);
        let Some(body) = self.store(&content).await else {
            return;
        };
        let id = self.model().next_id();
        let part = PartVersion {
            id,
            content,
            md5: self.md5(),
            attributes: self.attributes(id),
        };
        let begun = self.model().tick();
        let before = self.upload(work.number, |upload| {
            let candidates = upload.parts.entry(part_number).or_insert_with(|| vec![None]);
            let before = candidates.clone();
            candidates.push(Some(part.clone()));
            before
        });
        let Some(before) = before else { return };
        let engine = self.engine.clone();
        let attributes = part.attributes.clone().into();
        let put = engine.put_part(
            work.bucket,
            &work.key,
            work.id,
            part_number,
            part.md5,
            attributes,
            body,
        );
        let patience = self.patience();
        let outcome = patient(engine.io(), patience, put).await;
        match outcome {
            Some(Ok(_)) => {
                self.count("part stored");
                // One that a caller left alone may still come after it, or not at all.
                self.upload(work.number, |upload| {
                    let now = upload.parts.get_mut(&part_number).expect("entered above");
                    if upload.doubtful {
                        now.retain(|candidate| candidate.is_some());
                    } else {
                        *now = vec![Some(part)];
                    }
                });
            }
            None => {
                self.count("caller of a part gone");
                self.upload(work.number, |upload| upload.doubtful = true);
            }
            // It may lie on disk and come true at the next start, whatever a list shows until then.
            Some(Err(Refusal::DiskFailed)) if self.shared.traits.disk_may_fail => {
                self.upload(work.number, |upload| upload.doubtful = true);
            }
            Some(Err(refusal)) => {
                self.upload(work.number, |upload| upload.parts.insert(part_number, before));
                self.check_upload_refusal(work, begun, refusal, "a part");
            }
        }
    }

    fn check_upload_refusal(&self, work: &Work, begun: u64, refusal: Refusal, what: &str) {
        if refusal == Refusal::NoSuchUpload {
            // A bucket that goes takes its uploads along.
            let going = self.is_going(work.bucket, begun);
            assert!(going, "{what}: there is no upload {}", self.describe(work));
            return;
        }
        self.check_write_refusal_of(work.bucket, begun, refusal, what);
    }

    fn describe(&self, work: &Work) -> String {
        format!(
            "{:?} {:?}",
            String::from_utf8_lossy(&work.key),
            self.model().uploads.get(&work.number)
        )
    }

    /// All parts as listed, held against the model.
    async fn list_parts(&mut self, work: &Work) -> Option<PartPage> {
        let begun = self.model().tick();
        let max = if self.chance(2) {
            1000
        } else {
            1 + self.rng.below(3) as usize
        };
        let mut all: Option<PartPage> = None;
        loop {
            let after = all
                .as_ref()
                .and_then(|page| page.parts.last())
                .map_or(0, |(number, _, _)| *number);
            let asked = self
                .insist(async |engine| {
                    engine
                        .list_parts(work.bucket, &work.key, work.id, after, max)
                        .await
                })
                .await;
            let page = match asked {
                Ok(page) => page,
                Err(refusal) => {
                    self.check_upload_refusal(work, begun, refusal, "a list of parts");
                    return None;
                }
            };
            assert!(page.parts.len() <= max && (!page.truncated || page.parts.len() == max));
            let truncated = page.truncated;
            match &mut all {
                None => all = Some(page),
                Some(all) => all.parts.extend(page.parts),
            }
            if !truncated {
                break;
            }
        }
        let page = all.expect("one page was read");
        self.count("parts listed");
        self.check_parts(work.number, &page);
        Some(page)
    }

    /// What a list of parts shows is what they may be, and from now on what they are.
    pub fn check_parts(&self, number: u64, page: &PartPage) {
        let mut model = self.model();
        let Some(upload) = model.uploads.get_mut(&number) else {
            return;
        };
        assert_eq!(
            *page.upload.attributes, *upload.attributes,
            "attributes of upload {number}"
        );
        for (part_number, candidates) in &mut upload.parts {
            let listed = page.parts.iter().find(|(number, _, _)| number == part_number);
            let found = listed.map(|(_, _, part)| id_of(&part.attributes));
            let same = |candidate: &&Option<PartVersion>| candidate.as_ref().map(|part| part.id) == found;
            let Some(kept) = candidates.iter().find(same).cloned() else {
                panic!("part {part_number} of upload {number} is {listed:?}; possible: {candidates:?}");
            };
            if let (Some((_, _, listed)), Some(part)) = (listed, &kept) {
                assert_eq!(listed.size, part.content.length());
                assert_eq!(listed.md5, part.md5);
                assert_eq!(*listed.attributes, *part.attributes);
            }
            if !upload.doubtful {
                *candidates = vec![kept];
            }
        }
        for (part_number, _, _) in &page.parts {
            assert!(
                upload.parts.contains_key(part_number),
                "part {part_number} of upload {number}: never stored"
            );
        }
    }

    async fn complete(&mut self, work: &Work) {
        let Some(page) = self.list_parts(work).await else {
            return;
        };
        let mut runs = Vec::new();
        let mut parts = Vec::new();
        let mut part_sizes = Vec::new();
        {
            let model = self.shared.model.borrow();
            let Some(upload) = model.uploads.get(&work.number) else {
                return;
            };
            for (number, sequence, part) in &page.parts {
                let known = upload.parts[number]
                    .iter()
                    .flatten()
                    .find(|known| known.id == id_of(&part.attributes));
                if self.rng.below(8) > 0 {
                    runs.extend(
                        known
                            .expect("checked when it was listed")
                            .content
                            .runs
                            .iter()
                            .copied(),
                    );
                    parts.push((*number, *sequence));
                    part_sizes.push(part.size);
                }
            }
        }
        if parts.is_empty() {
            return;
        }
        let id = self.model().next_id();
        let version = Rc::new(Version {
            id,
            content: Content { runs },
            etag: ETag {
                md5: self.md5(),
                parts: parts.len() as u16,
            },
            attributes: self.attributes(id),
            part_sizes,
            upload: Some(work.id),
        });
        let taken = Taken {
            model: self.shared.model.clone(),
            bucket: work.bucket,
            key: work.key.clone(),
            exclusive: false,
        };
        let (condition, requires) = self.condition(&taken);
        let begun = self.model().now;
        let change = self.model().begin(work.bucket, &work.key, Some(version.clone()));
        self.upload(work.number, |upload| {
            (upload.presence, upload.completing) = (Presence::Maybe, Some(id));
        });
        let attributes = version.attributes.clone().into();
        let completion = Completion {
            etag: version.etag,
            attributes,
            parts,
        };
        let engine = self.engine.clone();
        let outcome = engine
            .complete_upload(work.bucket, &work.key, work.id, completion, condition)
            .await;
        if let Err(refusal) = &outcome
            && *refusal != Refusal::DiskFailed
        {
            self.upload(work.number, |upload| {
                (upload.presence, upload.completing) = (Presence::Yes, None);
            });
            let doubtful = self.upload(work.number, |upload| upload.doubtful).unwrap_or(true);
            assert!(
                *refusal != Refusal::Stale || doubtful,
                "nobody else changes parts of {}",
                self.describe(work)
            );
        }
        if let Err(refusal @ Refusal::NoSuchUpload) = outcome {
            let refused = self.model().refuse(work.bucket, &work.key, change);
            self.demand(work.bucket, &work.key, refused);
            return self.check_upload_refusal(work, begun, refusal, "a completion");
        }
        if self
            .end_change(&taken, change, begun, requires, Some(outcome))
            .is_some()
        {
            self.count("upload completed");
            self.model().uploads.remove(&work.number);
        }
    }

    async fn abort(&mut self, work: &Work) {
        let begun = self.model().tick();
        self.upload(work.number, |upload| upload.presence = Presence::Maybe);
        match self.engine.abort_upload(work.bucket, &work.key, work.id).await {
            Ok(_) => {
                self.count("upload aborted");
                self.model().uploads.remove(&work.number);
            }
            Err(Refusal::DiskFailed) if self.shared.traits.disk_may_fail => {}
            Err(refusal) => {
                self.upload(work.number, |upload| upload.presence = Presence::Yes);
                self.check_upload_refusal(work, begun, refusal, "an abort");
            }
        }
    }
}
