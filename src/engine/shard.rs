//! Changes, decided at the owner of their key: checked against what is true or about to be, then queued.
//!
//! What is queued but not yet on stable storage is *pending*: later changes of the same key are checked
//! against it, readers never see it. A change that is refused because of a pending one is answered together
//! with it, so that no answer reveals what a crash could still undo.

use crate::engine::Machine;
use crate::engine::core::{Core, ReplyTo};
use crate::engine::entry::{ETag, Extent, Layout, Object, Part, Summary, Upload};
use crate::engine::group_commit::{Change, Queued, Record};
use crate::engine::loading::Names;
use crate::engine::message::{
    Completion, Mutation, NewBody, NewObject, NewPart, Outcome, Purpose, Refusal, Reply, WriteCondition,
};
use crate::engine::planted::{Fault, planted};
use crate::index::key::{self, BucketId, UploadId};
use crate::io::SegmentId;
use futures_channel::oneshot;
use std::rc::Rc;

impl<I: Machine> Core<I> {
    /// Decides a change and queues it; `to` is answered when it is on stable storage, or refused.
    pub fn mutate(self: &Rc<Self>, mutation: Mutation, to: ReplyTo) {
        self.mutate_since(mutation, to, self.io.monotonic_ns());
    }

    /// As [`Core::mutate`], for a change that came at `since_ns`.
    fn mutate_since(self: &Rc<Self>, mutation: Mutation, to: ReplyTo, since_ns: u64) {
        if self.io.is_read_only() {
            return self.reply_outcome(to, Err(Refusal::Degraded));
        }
        if !self.supply.is_cleaning(mutation.purpose())
            && !self.uses_what_moves(&mutation)
            && !self.is_index_behind()
            && self.load_at_once(&mutation)
        {
            return self.decide(mutation, to);
        }
        let core = self.clone();
        self.io.spawn(async move {
            match core.ready(&mutation, since_ns).await {
                Ok(()) => core.decide(mutation, to),
                Err(refusal) => {
                    core.unload(&mutation);
                    core.discard(&mutation.into_extents());
                    core.reply_outcome(to, Err(refusal));
                }
            }
        });
    }

    /// Waits for what a change needs before it can be decided. When it returns, nothing may come in between.
    async fn ready(self: &Rc<Self>, mutation: &Mutation, since_ns: u64) -> Result<(), Refusal> {
        let purpose = mutation.purpose();
        loop {
            if self.supply.is_cleaning(purpose) {
                self.room(purpose, since_ns).await?;
            } else if self.uses_what_moves(mutation) {
                self.commits_settled().await;
            } else if self.is_index_behind() {
                self.index_room(since_ns).await?;
            } else if self.load_at_once(mutation) {
                return Ok(());
            } else {
                self.load(mutation).await?;
                if !self.supply.is_cleaning(purpose) && !self.uses_what_moves(mutation) {
                    return Ok(());
                }
                self.unload(mutation);
            }
        }
    }

    /// Whether a change takes over extents that the cleaner is about to swap for others. It then comes right behind.
    fn uses_what_moves(&self, mutation: &Mutation) -> bool {
        match mutation {
            Mutation::PutObject {
                bucket, key, object, ..
            } => match object.body {
                NewBody::Keep { sequence } => self.commits.is_moving(&key::object(*bucket, key), sequence),
                NewBody::Inline(_) | NewBody::Extents { .. } => false,
            },
            Mutation::CompleteUpload {
                bucket,
                key,
                upload,
                completion,
                ..
            } => completion.parts.iter().any(|&(number, sequence)| {
                let part = key::part(*bucket, key, *upload, number);
                self.commits.is_moving(&part, sequence)
            }),
            _ => false,
        }
    }

    /// Decides on a change of which memory knows all that it looks at.
    fn decide(self: &Rc<Self>, mutation: Mutation, to: ReplyTo) {
        let loaded = (self.index.borrow().loaded_len() > 0).then(|| mutation.names());
        self.decide_loaded(mutation, to);
        if let Some(names) = loaded {
            self.unload_names(&names);
        }
    }

    fn decide_loaded(self: &Rc<Self>, mutation: Mutation, to: ReplyTo) {
        let checked = self.admit(&mutation).and_then(|()| self.check(&mutation));
        // Only what changes nothing must wait for those that are pending: a change queues behind them.
        let is_pending = |mutation: &Mutation| mutation.rests_on(|key| self.commits.is_pending(key));
        match checked {
            Ok(Verdict::Change) => {
                let (record, outcome) = self.plan(mutation);
                self.enqueue(Queued {
                    record: Some(record),
                    outcome: Ok(outcome),
                    to,
                });
            }
            Ok(Verdict::Nothing) => {
                // A failed change of this key may lie on disk. That nothing is there is acknowledged only once it
                // is void: a record without changes takes the poison along.
                if self.commits.is_unsettled() {
                    let outcome = Outcome {
                        sequence: self.next_sequence(),
                        modified_ms: self.io.unix_ms(),
                    };
                    let record = Record::without_changes(outcome.sequence);
                    return self.enqueue(Queued {
                        record: Some(record),
                        outcome: Ok(outcome),
                        to,
                    });
                }
                let outcome = Ok(Outcome {
                    sequence: 0,
                    modified_ms: self.io.unix_ms(),
                });
                self.answer_after(is_pending(&mutation), outcome, to);
            }
            Err(refusal) => {
                let pending = is_pending(&mutation);
                self.discard(&mutation.into_extents());
                self.answer_after(pending, Err(refusal), to);
            }
        }
    }

    /// Several changes of this core's keys; their outcomes in the same order.
    pub async fn mutate_many(self: &Rc<Self>, mutations: Vec<Mutation>) -> Reply {
        let mut receivers = Vec::with_capacity(mutations.len());
        for mutation in mutations {
            let (sender, receiver) = oneshot::channel();
            self.mutate(mutation, ReplyTo::Local(sender));
            receivers.push(receiver);
        }
        let mut outcomes = Vec::with_capacity(receivers.len());
        for receiver in receivers {
            match receiver.await.expect("every change is answered") {
                Reply::Outcome(outcome) => outcomes.push(outcome),
                other => unreachable!("a change is answered by its outcome, not {other:?}"),
            }
        }
        Reply::Outcomes(outcomes)
    }

    /// Gives back the room of extents that nothing will refer to.
    pub fn discard(self: &Rc<Self>, extents: &[Extent]) {
        for extent in extents {
            self.account_here(extent.segment, -i64::from(extent.disk_bytes()));
        }
    }

    fn answer_after(self: &Rc<Self>, pending: bool, outcome: Result<Outcome, Refusal>, to: ReplyTo) {
        if pending && !planted(Fault::EarlyRefusal) {
            self.enqueue(Queued {
                record: None,
                outcome,
                to,
            });
        } else {
            self.reply_outcome(to, outcome);
        }
    }

    /// Whether there is room for the change, and its bucket takes changes.
    fn admit(self: &Rc<Self>, mutation: &Mutation) -> Result<(), Refusal> {
        if let Some(bucket) = mutation.bucket() {
            let buckets = self.buckets.borrow();
            match mutation {
                Mutation::DeleteObject { .. } => buckets.accepts_deletes(bucket)?,
                _ => buckets.accepts(bucket)?,
            }
        }
        if self.supply.is_read_only() {
            return Err(Refusal::ReadOnly);
        }
        if mutation.grows() && self.supply.is_full() {
            self.ask_again();
            return Err(Refusal::Full);
        }
        if self.commits.is_at_bound() {
            return Err(Refusal::Busy);
        }
        Ok(())
    }

    /// Whether the change may happen, given what is true or pending.
    fn check(&self, mutation: &Mutation) -> Result<Verdict, Refusal> {
        match mutation {
            Mutation::PutObject {
                bucket,
                key,
                object,
                condition,
            } => {
                self.check_condition(*bucket, key, *condition)?;
                if let NewBody::Keep { sequence } = object.body {
                    self.check_unchanged(&key::object(*bucket, key), sequence)?;
                }
                Ok(Verdict::Change)
            }
            Mutation::DeleteObject { bucket, key } => {
                Ok(self.current(&key::object(*bucket, key), |current| match current {
                    Some(_) => Verdict::Change,
                    None => Verdict::Nothing,
                }))
            }
            Mutation::CreateUpload { .. } => Ok(Verdict::Change),
            Mutation::PutPart {
                bucket, key, upload, ..
            }
            | Mutation::AbortUpload { bucket, key, upload } => {
                self.check_upload(*bucket, key, *upload)?;
                Ok(Verdict::Change)
            }
            Mutation::CompleteUpload {
                bucket,
                key,
                upload,
                completion,
                condition,
            } => {
                self.check_upload(*bucket, key, *upload)?;
                for &(number, sequence) in &completion.parts {
                    self.check_unchanged(&key::part(*bucket, key, *upload, number), sequence)?;
                }
                self.check_condition(*bucket, key, *condition)?;
                Ok(Verdict::Change)
            }
            Mutation::PutBucket { name, .. } => self.current(&key::bucket(name), |current| match current {
                Some(_) => Err(Refusal::BucketExists),
                None => Ok(Verdict::Change),
            }),
            Mutation::ConfigureBucket { name, .. } | Mutation::RemoveBucket { name } => {
                self.current(&key::bucket(name), |current| match current {
                    Some(_) => Ok(Verdict::Change),
                    None => Err(Refusal::NoSuchBucket),
                })
            }
        }
    }

    fn check_condition(
        &self,
        bucket: BucketId,
        key: &[u8],
        condition: WriteCondition,
    ) -> Result<(), Refusal> {
        if condition == WriteCondition::None {
            return Ok(());
        }
        self.current(&key::object(bucket, key), |current| {
            let etag: Option<ETag> = current.map(|(_, value)| {
                Summary::decode(value)
                    .expect("the index holds values that were checked")
                    .etag
            });
            match (condition, etag) {
                (WriteCondition::None, _)
                | (WriteCondition::IfAbsent, None)
                | (WriteCondition::IfExists, Some(_)) => Ok(()),
                (WriteCondition::IfAbsent, Some(_)) => Err(Refusal::PreconditionFailed),
                (
                    WriteCondition::IfExists | WriteCondition::IfMatch(_) | WriteCondition::IfMatchNone,
                    None,
                ) => Err(Refusal::NoSuchKey),
                (WriteCondition::IfMatch(wanted), Some(etag)) if wanted == etag => Ok(()),
                (WriteCondition::IfMatch(_) | WriteCondition::IfMatchNone, Some(_)) => {
                    Err(Refusal::PreconditionFailed)
                }
            }
        })
    }

    fn check_upload(&self, bucket: BucketId, key: &[u8], upload: UploadId) -> Result<(), Refusal> {
        self.current(&key::upload(bucket, key, upload), |current| {
            current.map(|_| ()).ok_or(Refusal::NoSuchUpload)
        })
    }

    /// The committed entry must still be this one, with nothing pending: its extents are about to be used.
    fn check_unchanged(&self, index_key: &[u8], sequence: u64) -> Result<(), Refusal> {
        let unchanged = !self.commits.is_pending(index_key)
            && self
                .index
                .borrow()
                .get(index_key)
                .is_some_and(|entry| entry.sequence == sequence);
        unchanged.then_some(()).ok_or(Refusal::Stale)
    }

    /// What is true of a key, or about to be: its sequence and value.
    fn current<T>(&self, index_key: &[u8], view: impl FnOnce(Option<(u64, &[u8])>) -> T) -> T {
        self.commits.with_pending(index_key, |pending| match pending {
            Some((sequence, value)) if !planted(Fault::PendingIgnored) => {
                view(value.map(|value| (sequence, value)))
            }
            _ => view(
                self.index
                    .borrow()
                    .get(index_key)
                    .map(|entry| (entry.sequence, entry.value)),
            ),
        })
    }

    /// The record of a change that was checked.
    fn plan(&self, mutation: Mutation) -> (Record, Outcome) {
        let outcome = Outcome {
            sequence: self.next_sequence(),
            modified_ms: self.io.unix_ms(),
        };
        let fresh_extents = mutation.has_fresh_extents();
        let (changes, body) = match mutation {
            Mutation::PutObject {
                bucket, key, object, ..
            } => self.plan_object(bucket, &key, object, outcome),
            Mutation::DeleteObject { bucket, key } => {
                (vec![Change::delete(key::object(bucket, &key))], Vec::new())
            }
            Mutation::CreateUpload {
                bucket,
                key,
                upload,
                attributes,
            } => {
                let value = Upload {
                    initiated_ms: outcome.modified_ms,
                    attributes,
                }
                .encode();
                (
                    vec![Change::put(key::upload(bucket, &key, upload), value)],
                    Vec::new(),
                )
            }
            Mutation::PutPart {
                bucket,
                key,
                upload,
                number,
                part,
            } => plan_part(key::part(bucket, &key, upload, number), part, outcome),
            Mutation::CompleteUpload {
                bucket,
                key,
                upload,
                completion,
                ..
            } => (
                self.plan_completion(bucket, &key, upload, completion, outcome),
                Vec::new(),
            ),
            Mutation::AbortUpload { bucket, key, upload } => (
                vec![Change::delete(key::upload(bucket, &key, upload))],
                Vec::new(),
            ),
            Mutation::PutBucket {
                name,
                location,
                configuration,
            } => {
                let id = BucketId(outcome.sequence);
                let value = super::entry::Bucket {
                    id,
                    created_ms: outcome.modified_ms,
                    location,
                    configuration,
                }
                .encode();
                (vec![Change::put(key::bucket(&name), value)], Vec::new())
            }
            Mutation::ConfigureBucket { name, bucket, .. } => {
                (vec![Change::put(key::bucket(&name), bucket.encode())], Vec::new())
            }
            Mutation::RemoveBucket { name } => (vec![Change::delete(key::bucket(&name))], Vec::new()),
        };
        (
            Record {
                sequence: outcome.sequence,
                changes,
                body,
                fresh_extents,
                moved: None,
            },
            outcome,
        )
    }

    fn plan_object(
        &self,
        bucket: BucketId,
        key: &[u8],
        new: NewObject,
        outcome: Outcome,
    ) -> (Vec<Change>, Vec<u8>) {
        let index_key = key::object(bucket, key);
        let mut object = Object {
            size: 0,
            modified_ms: outcome.modified_ms,
            etag: new.etag,
            attributes: new.attributes,
            part_sizes: Box::default(),
            upload: None,
            extents: Box::default(),
        };
        let mut inline = Vec::new();
        match new.body {
            NewBody::Inline(body) => {
                object.size = body.len() as u64;
                object.extents = inline_extent(&body);
                inline = body;
            }
            NewBody::Extents { size, extents } => {
                object.size = size;
                object.extents = extents.into();
            }
            NewBody::Keep { .. } => {
                let index = self.index.borrow();
                let entry = index.get(&index_key).expect("checked to be there");
                let kept = Object::decode(entry.value).expect("the index holds values that were checked");
                object = Object {
                    modified_ms: object.modified_ms,
                    attributes: object.attributes,
                    ..kept
                };
            }
        }
        (vec![Change::put(index_key, object.encode())], inline)
    }

    fn plan_completion(
        &self,
        bucket: BucketId,
        key: &[u8],
        upload: UploadId,
        completion: Completion,
        outcome: Outcome,
    ) -> Vec<Change> {
        let index = self.index.borrow();
        let mut part_sizes = Vec::with_capacity(completion.parts.len());
        let mut extents = Vec::with_capacity(completion.parts.len());
        for (number, _) in completion.parts {
            let entry = index
                .get(&key::part(bucket, key, upload, number))
                .expect("checked to be there");
            let part = Part::decode(entry.value).expect("the index holds values that were checked");
            part_sizes.push(part.size);
            extents.extend_from_slice(&part.extents);
        }
        let object = Object {
            size: part_sizes.iter().sum(),
            modified_ms: outcome.modified_ms,
            etag: completion.etag,
            attributes: completion.attributes,
            part_sizes: part_sizes.into(),
            upload: Some(upload),
            extents: extents.into(),
        };
        vec![
            Change::put(key::object(bucket, key), object.encode()),
            Change::delete(key::upload(bucket, key, upload)),
        ]
    }
}

enum Verdict {
    Change,
    /// It is so already.
    Nothing,
}

fn plan_part(index_key: Vec<u8>, new: NewPart, outcome: Outcome) -> (Vec<Change>, Vec<u8>) {
    let (size, extents, inline) = match new.body {
        NewBody::Inline(body) => (body.len() as u64, inline_extent(&body), body),
        NewBody::Extents { size, extents } => (size, extents.into(), Vec::new()),
        NewBody::Keep { .. } => unreachable!("a part has bytes of its own"),
    };
    let part = Part {
        size,
        modified_ms: outcome.modified_ms,
        md5: new.md5,
        attributes: new.attributes,
        extents,
    };
    (vec![Change::put(index_key, part.encode())], inline)
}

/// The extent of a body that will lie in the record; the group commit fills in where.
fn inline_extent(body: &[u8]) -> Box<[Extent]> {
    if body.is_empty() {
        return Box::default();
    }
    let length = body.len() as u32;
    [Extent {
        layout: Layout::Inline,
        segment: SegmentId(0),
        offset: 0,
        length,
        check: 0,
    }]
    .into()
}

impl Mutation {
    /// Whether a change is pending of one of the keys that decide when a refusal is answered: all that `check` looks at.
    fn rests_on(&self, is_pending: impl Fn(&[u8]) -> bool) -> bool {
        match self {
            Mutation::PutObject { bucket, key, .. } | Mutation::DeleteObject { bucket, key } => {
                is_pending(&key::object(*bucket, key))
            }
            Mutation::CompleteUpload {
                bucket,
                key,
                upload,
                completion,
                ..
            } => {
                let mut parts = completion.parts.iter();
                is_pending(&key::object(*bucket, key))
                    || is_pending(&key::upload(*bucket, key, *upload))
                    || parts.any(|&(number, _)| is_pending(&key::part(*bucket, key, *upload, number)))
            }
            Mutation::CreateUpload {
                bucket, key, upload, ..
            }
            | Mutation::PutPart {
                bucket, key, upload, ..
            }
            | Mutation::AbortUpload { bucket, key, upload } => {
                is_pending(&key::upload(*bucket, key, *upload))
            }
            Mutation::PutBucket { name, .. }
            | Mutation::ConfigureBucket { name, .. }
            | Mutation::RemoveBucket { name } => is_pending(&key::bucket(name)),
        }
    }

    fn bucket(&self) -> Option<BucketId> {
        match self {
            Mutation::PutObject { bucket, .. }
            | Mutation::DeleteObject { bucket, .. }
            | Mutation::CreateUpload { bucket, .. }
            | Mutation::PutPart { bucket, .. }
            | Mutation::CompleteUpload { bucket, .. }
            | Mutation::AbortUpload { bucket, .. } => Some(*bucket),
            Mutation::PutBucket { .. } | Mutation::ConfigureBucket { .. } | Mutation::RemoveBucket { .. } => {
                None
            }
        }
    }

    /// The keys that it looks at.
    pub fn names(&self) -> Names {
        let exact = |keys| Names {
            exact: keys,
            upload: None,
        };
        match self {
            Mutation::PutObject { bucket, key, .. } | Mutation::DeleteObject { bucket, key } => {
                exact(vec![key::object(*bucket, key)])
            }
            Mutation::CreateUpload { .. } => exact(Vec::new()),
            Mutation::PutPart {
                bucket,
                key,
                upload,
                number,
                ..
            } => exact(vec![
                key::upload(*bucket, key, *upload),
                key::part(*bucket, key, *upload, *number),
            ]),
            Mutation::CompleteUpload {
                bucket, key, upload, ..
            } => Names {
                exact: vec![key::object(*bucket, key)],
                upload: Some(key::upload(*bucket, key, *upload)),
            },
            Mutation::AbortUpload { bucket, key, upload } => Names {
                exact: Vec::new(),
                upload: Some(key::upload(*bucket, key, *upload)),
            },
            Mutation::PutBucket { name, .. }
            | Mutation::ConfigureBucket { name, .. }
            | Mutation::RemoveBucket { name } => exact(vec![key::bucket(name)]),
        }
    }

    /// What room it needs.
    fn purpose(&self) -> Purpose {
        match self.grows() {
            true => Purpose::Growth,
            false => Purpose::Release,
        }
    }

    /// Whether it leaves more stored than before.
    fn grows(&self) -> bool {
        match self {
            Mutation::PutObject { .. }
            | Mutation::CreateUpload { .. }
            | Mutation::PutPart { .. }
            | Mutation::CompleteUpload { .. }
            | Mutation::PutBucket { .. } => true,
            Mutation::ConfigureBucket { purpose, .. } => *purpose == Purpose::Growth,
            Mutation::DeleteObject { .. } | Mutation::AbortUpload { .. } | Mutation::RemoveBucket { .. } => {
                false
            }
        }
    }

    fn has_fresh_extents(&self) -> bool {
        match self {
            Mutation::PutObject { object, .. } => matches!(object.body, NewBody::Extents { .. }),
            Mutation::PutPart { part, .. } => matches!(part.body, NewBody::Extents { .. }),
            _ => false,
        }
    }

    /// The extents on disk that a refused change leaves behind.
    fn into_extents(self) -> Vec<Extent> {
        let body = match self {
            Mutation::PutObject { object, .. } => object.body,
            Mutation::PutPart { part, .. } => part.body,
            _ => return Vec::new(),
        };
        match body {
            NewBody::Extents { extents, .. } => extents,
            NewBody::Inline(_) | NewBody::Keep { .. } => Vec::new(),
        }
    }
}
