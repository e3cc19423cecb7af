//! What clients do: random operations on random cores, each answer held against the model.
//!
//! Invariant: an operation is entered into the model before the engine hears of it, and taken out only when
//! its answer is there. No borrow of the model lives across an await.

use crate::content::Content;
use crate::model::{BucketState, Model, Presence, Requirement, Stamp, Version};
use futures_util::future::{Either, select};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use weft::engine::{
    BodyReader, BucketId, Configuration, ETag, FoundObject, Message, Outcome, Refusal, StoredBody,
    WriteCondition,
};
use weft::io::Io;
use weft::io::sim::{Chance, Machine, Rng};
use weft::limits::INLINE_BYTES_MAX;

/// Kinds of a bucket's configuration.
const KINDS: [u8; 3] = [1, 2, 200];
/// How often a disk that fails is asked.
const ASKED_MAX: usize = 1000;

pub type SimIo = Machine<Message>;
pub type Engine = weft::engine::Engine<SimIo>;

/// What the clients of one boot share.
pub struct Shared {
    pub engines: Vec<Engine>,
    pub model: Rc<RefCell<Model>>,
    pub stop: Cell<bool>,
    pub running: Cell<usize>,
    pub traits: Traits,
    pub tally: Rc<RefCell<Tally>>,
}

/// What one seed's runs are like.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    pub keys: u64,
    pub buckets: u64,
    /// Bodies may be this long.
    pub body_bytes_max: u64,
    /// Of 16 operations, how many are deletes beyond the usual.
    pub deletes: u64,
    /// Disks report errors.
    pub disk_may_fail: bool,
    /// Reads are dropped, bodies abandoned, callers vanish.
    pub rude: bool,
}

/// How often each thing happened.
#[derive(Default)]
pub struct Tally {
    pub counts: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
}

/// One client's doings on one core.
pub struct Client {
    pub shared: Rc<Shared>,
    pub engine: Engine,
    pub rng: Rng,
}

/// What the attributes of everything begin with, so that it is known again.
pub fn id_of(attributes: &[u8]) -> u64 {
    attributes.first_chunk().map_or(0, |id| u64::from_le_bytes(*id))
}

/// The name of key number `number` of a pool.
pub fn key_name(number: u64) -> Vec<u8> {
    match number % 8 {
        0 => format!("dir/{number}").into_bytes(),
        1 => format!("dir/sub/{number}").into_bytes(),
        2 => format!("other//{number}").into_bytes(),
        3 => [b"nul\0".as_slice(), &[number as u8]].concat(),
        4 => format!("plain{number}").into_bytes(),
        5 => format!("ü/ä{number}/☃").into_bytes(),
        6 => [vec![b'l'; 900], number.to_string().into_bytes()].concat(),
        _ => format!("dir{number}/").into_bytes(),
    }
}

impl Client {
    pub async fn run(mut self) {
        while !self.shared.stop.get() {
            self.operation().await;
            if self.rng.below(8) == 0 {
                let pause_us = self.rng.below(2_000);
                self.engine.io().sleep(Duration::from_micros(pause_us)).await;
            }
        }
        self.shared.running.set(self.shared.running.get() - 1);
    }

    async fn operation(&mut self) {
        let deletes = self.shared.traits.deletes;
        match self.rng.below(64 + 4 * deletes) {
            0..=17 => self.put().await,
            18..=31 => self.get().await,
            32..=35 => self.list().await,
            36..=38 => self.keep_body().await,
            39..=54 => self.upload_step().await,
            55 => self.change_buckets().await,
            56..=57 => self.abandon_body().await,
            58..=59 => self.delete_many().await,
            _ => self.delete().await,
        }
    }

    pub fn model(&self) -> std::cell::RefMut<'_, Model> {
        self.shared.model.borrow_mut()
    }

    pub fn count(&self, what: &'static str) {
        self.shared.tally.borrow_mut().count(what);
    }

    pub fn chance(&mut self, one_in: u32) -> bool {
        self.rng.happens(Chance::one_in(one_in))
    }

    pub fn any_bucket(&mut self) -> Option<BucketId> {
        let present = self.model().present_buckets();
        match present.is_empty() {
            true => None,
            false => Some(present[self.rng.index(present.len())].1),
        }
    }

    fn any_key(&mut self) -> Vec<u8> {
        key_name(self.rng.below(self.shared.traits.keys))
    }

    /// A key to change; every other key has one writer at a time.
    fn key_to_change(&mut self, bucket: BucketId) -> Option<Taken> {
        let number = self.rng.below(self.shared.traits.keys);
        let key = key_name(number);
        let exclusive = number.is_multiple_of(2);
        let mut model = self.shared.model.borrow_mut();
        let state = model.key(bucket, &key);
        if exclusive && std::mem::replace(&mut state.taken, true) {
            return None;
        }
        drop(model);
        Some(Taken {
            model: self.shared.model.clone(),
            bucket,
            key,
            exclusive,
        })
    }

    pub fn body_length(&mut self) -> u64 {
        let inline = INLINE_BYTES_MAX as u64;
        let length = match self.rng.below(10) {
            0 => 0,
            1 | 2 => self.rng.below(200),
            3 | 4 => self.rng.below(9000),
            5 => inline - 2 + self.rng.below(5),
            6 => self.rng.below(inline),
            7 | 8 => inline + self.rng.below(200_000),
            _ => self.rng.below(600_000),
        };
        length.min(self.shared.traits.body_bytes_max)
    }

    pub fn attributes(&mut self, id: u64) -> Vec<u8> {
        let mut attributes = id.to_le_bytes().to_vec();
        let length = if self.chance(20) {
            self.rng.below(2500)
        } else {
            self.rng.below(60)
        };
        attributes.resize(8 + length as usize, id as u8);
        attributes
    }

    pub fn etag(&mut self) -> ETag {
        ETag {
            md5: self.md5(),
            parts: 0,
        }
    }

    pub fn md5(&mut self) -> [u8; 16] {
        let mut md5 = [0; 16];
        self.rng.fill(&mut md5);
        md5
    }

    /// Stores a body; `None` if it was refused or abandoned.
    pub async fn store(&mut self, content: &Content) -> Option<StoredBody<SimIo>> {
        let length = content.length();
        let told = (!self.chance(3)).then_some(length);
        let mut writer = self.engine.receive_body(told);
        let give_up_at = (self.shared.traits.rude && self.chance(24)).then(|| self.rng.below(length + 1));
        let patience = match self.shared.traits.rude && self.chance(40) {
            true => self.rng.below(60),
            false => u64::MAX,
        };
        let mut at = 0;
        while at < length {
            let space = match patient(self.engine.io(), patience, writer.space()).await {
                None => {
                    self.count("body dropped while it waited");
                    return None;
                }
                Some(Ok(space)) => space,
                Some(Err(refusal)) => {
                    self.check_write_refusal(refusal, "a body");
                    return None;
                }
            };
            let most = space.len().min((length - at) as usize);
            assert!(most > 0, "no space at {at} of {length} bytes");
            let count = if self.rng.below(4) == 0 {
                1 + self.rng.index(most)
            } else {
                most
            };
            content.fill(at, &mut space[..count]);
            writer.advance(count);
            at += count as u64;
            if give_up_at.is_some_and(|give_up| at >= give_up) {
                self.count("body abandoned half way");
                return None;
            }
        }
        assert_eq!(writer.received(), length);
        let Some(finished) = patient(self.engine.io(), patience, writer.finish()).await else {
            self.count("body dropped while it was synced");
            return None;
        };
        match finished {
            Ok(_) if self.shared.traits.rude && self.chance(30) => {
                self.count("stored body dropped");
                None
            }
            Ok(body) => Some(body),
            Err(refusal) => {
                self.check_write_refusal(refusal, "a body's end");
                None
            }
        }
    }

    async fn abandon_body(&mut self) {
        let length = self.body_length();
        let seed = self.rng.next_u64();
        drop(self.store(&Content::of(seed, length)).await);
    }

    async fn put(&mut self) {
        let Some(bucket) = self.any_bucket() else {
            return self.change_buckets().await;
        };
        let Some(taken) = self.key_to_change(bucket) else {
            return;
        };
        let length = self.body_length();
        let content = Content::of(self.rng.next_u64(), length);
        let Some(body) = self.store(&content).await else {
            return;
        };
        let id = self.model().next_id();
        let version = Rc::new(Version {
            id,
            content,
            etag: self.etag(),
            attributes: self.attributes(id),
            part_sizes: Vec::new(),
            upload: None,
        });
        let (condition, requires) = self.condition(&taken);
        let begun = self.model().now;
        let change = self.model().begin(bucket, &taken.key, Some(version.clone()));
        let engine = self.engine.clone();
        let attributes = version.attributes.clone().into();
        let put = engine.put(bucket, &taken.key, version.etag, attributes, body, condition);
        let patience = self.patience();
        let outcome = patient(engine.io(), patience, put).await;
        self.end_change(&taken, change, begun, requires, outcome);
    }

    /// How long the caller of a change stays.
    pub fn patience(&mut self) -> u64 {
        match self.shared.traits.rude && self.chance(60) {
            true => self.rng.below(60),
            false => u64::MAX,
        }
    }

    pub fn condition(&mut self, taken: &Taken) -> (WriteCondition, Requirement) {
        match self.rng.below(6) {
            0 => (WriteCondition::IfAbsent, Requirement::Absent),
            1 => {
                let tags: Vec<ETag> = {
                    let mut model = self.shared.model.borrow_mut();
                    let now = model.now;
                    let key = model.key(taken.bucket, &taken.key);
                    key.possible(now).flatten().map(|version| version.etag).collect()
                };
                let tag = match tags.is_empty() || self.chance(5) {
                    true => self.etag(),
                    false => tags[self.rng.index(tags.len())],
                };
                (WriteCondition::IfMatch(tag), Requirement::Tag(tag))
            }
            _ => (WriteCondition::None, Requirement::None),
        }
    }

    /// Holds the end of a change of `taken` against the model; says whether it was acknowledged.
    pub fn end_change(
        &mut self,
        taken: &Taken,
        change: u64,
        begun: Stamp,
        requires: Requirement,
        outcome: Option<Result<Outcome, Refusal>>,
    ) -> Option<Outcome> {
        let Taken { bucket, ref key, .. } = *taken;
        let Some(outcome) = outcome else {
            self.count("caller gone");
            self.model().abandon(bucket, key, change);
            return None;
        };
        match outcome {
            Ok(outcome) => {
                self.count("change acknowledged");
                let acknowledged = self
                    .model()
                    .acknowledge(bucket, key, change, outcome.sequence, requires);
                self.demand(bucket, key, acknowledged);
                Some(outcome)
            }
            Err(Refusal::DiskFailed) => {
                self.count("change failed by the disk");
                assert!(self.shared.traits.disk_may_fail, "no disk failed");
                self.model().doubt(bucket, key, change);
                None
            }
            Err(refusal) => {
                let refused = self.model().refuse(bucket, key, change);
                self.demand(bucket, key, refused);
                self.check_refusal(taken, begun, requires, refusal);
                None
            }
        }
    }

    fn check_refusal(&mut self, taken: &Taken, begun: Stamp, requires: Requirement, refusal: Refusal) {
        let Taken { bucket, ref key, .. } = *taken;
        let mut model = self.model();
        if model.gone.contains(&bucket) {
            return;
        }
        let now = model.tick();
        let state = model.key(bucket, key);
        let tag_is = |wanted: bool, tag: ETag| {
            state
                .possible(begun)
                .flatten()
                .any(|version| (version.etag == tag) == wanted)
        };
        let fits = match (refusal, requires) {
            (Refusal::PreconditionFailed, Requirement::Absent) => {
                state.saw_presence(true, begun, now).is_ok()
            }
            (Refusal::PreconditionFailed, Requirement::Tag(tag)) => tag_is(false, tag),
            (Refusal::NoSuchKey, Requirement::Tag(_)) => state.saw_presence(false, begun, now).is_ok(),
            (Refusal::Stale, _) => true,
            _ => {
                drop(model);
                return self.check_write_refusal_of(bucket, begun, refusal, "a change");
            }
        };
        let described = state.describe();
        drop(model);
        assert!(
            fits,
            "{refusal:?} of a change that requires {requires:?} does not fit: {described}"
        );
        self.count("change refused by its condition");
    }

    /// A refusal that says nothing of a key.
    pub fn check_write_refusal(&self, refusal: Refusal, what: &str) {
        match refusal {
            Refusal::Full => self.count("full"),
            Refusal::Busy => self.count("busy"),
            Refusal::TooLarge => self.count("too large"),
            Refusal::DiskFailed if self.shared.traits.disk_may_fail => self.count("disk failed"),
            _ => panic!("{what} was refused: {refusal:?}"),
        }
    }

    pub fn check_write_refusal_of(&self, bucket: BucketId, begun: Stamp, refusal: Refusal, what: &str) {
        if matches!(refusal, Refusal::BucketBusy | Refusal::NoSuchBucket) {
            assert!(
                self.is_going(bucket, begun),
                "{what}: {refusal:?}, and nobody deletes its bucket"
            );
            return self.count("refused by a bucket's end");
        }
        self.check_write_refusal(refusal, what);
    }

    /// Whether somebody has tried to delete the bucket since `begun`.
    pub fn is_going(&self, bucket: BucketId, begun: Stamp) -> bool {
        let model = self.model();
        let disturbed = model
            .buckets
            .values()
            .any(|state| state.id == Some(bucket) && state.disturbed >= begun);
        disturbed || model.gone.contains(&bucket)
    }

    pub fn demand(&self, bucket: BucketId, key: &[u8], checked: Result<(), String>) {
        if let Err(error) = checked {
            panic!(
                "key {:?} of bucket {:x}: {error}",
                String::from_utf8_lossy(key),
                bucket.0
            );
        }
    }

    async fn delete(&mut self) {
        let Some(bucket) = self.any_bucket() else { return };
        let Some(taken) = self.key_to_change(bucket) else {
            return;
        };
        let begun = self.model().now;
        let change = self.model().begin(bucket, &taken.key, None);
        let engine = self.engine.clone();
        let patience = self.patience();
        let outcome = patient(engine.io(), patience, engine.delete(bucket, &taken.key)).await;
        if let Some(Err(Refusal::Full)) = outcome {
            self.count("delete refused: full");
        }
        self.end_change(&taken, change, begun, Requirement::None, outcome);
    }

    async fn delete_many(&mut self) {
        let Some(bucket) = self.any_bucket() else { return };
        let mut all: Vec<Taken> = Vec::new();
        for _ in 0..1 + self.rng.below(6) {
            let taken = self.key_to_change(bucket);
            all.extend(taken.filter(|taken| all.iter().all(|other| other.key != taken.key)));
        }
        let begun = self.model().now;
        let changes: Vec<u64> = all
            .iter()
            .map(|taken| self.model().begin(bucket, &taken.key, None))
            .collect();
        let keys: Vec<Vec<u8>> = all.iter().map(|taken| taken.key.clone()).collect();
        let outcomes = self.engine.delete_many(bucket, &keys).await;
        assert_eq!(outcomes.len(), keys.len());
        for ((taken, change), outcome) in all.iter().zip(changes).zip(outcomes) {
            self.end_change(taken, change, begun, Requirement::None, Some(outcome));
        }
    }

    async fn keep_body(&mut self) {
        let Some(bucket) = self.any_bucket() else { return };
        let Some(taken) = self.key_to_change(bucket) else {
            return;
        };
        let Some((old, found)) = self.find(bucket, &taken.key).await else {
            return;
        };
        let id = self.model().next_id();
        let version = Rc::new(Version {
            id,
            attributes: self.attributes(id),
            ..(*old).clone()
        });
        let body = self.engine.keep_body(found.version);
        drop(found);
        let requires = Requirement::None;
        let begun = self.model().now;
        let change = self.model().begin(bucket, &taken.key, Some(version.clone()));
        let attributes = version.attributes.clone().into();
        let condition = WriteCondition::None;
        let outcome = self
            .engine
            .put(bucket, &taken.key, version.etag, attributes, body, condition)
            .await;
        self.count("attributes changed");
        self.end_change(&taken, change, begun, requires, Some(outcome));
    }

    /// Looks a key up and holds what is found against the model.
    pub async fn find(&mut self, bucket: BucketId, key: &[u8]) -> Option<(Rc<Version>, FoundObject<SimIo>)> {
        let since = self.model().tick();
        let found = self.engine.get(bucket, key).await;
        let mut model = self.model();
        let now = model.tick();
        if !model.keys.contains_key(&(bucket, key.to_vec())) {
            return None;
        }
        match found {
            Ok(found) => {
                let id = id_of(&found.object.attributes);
                let checked = model.key(bucket, key).observe(Some(id), since, now);
                let version = model.key(bucket, key).version(id);
                drop(model);
                self.demand(bucket, key, checked);
                let version = version.expect("it was observed");
                check_object(&version, &found);
                Some((version, found))
            }
            Err(Refusal::NoSuchKey) => {
                let checked = model.key(bucket, key).observe(None, since, now);
                drop(model);
                self.demand(bucket, key, checked);
                None
            }
            // It reads small bodies.
            Err(Refusal::DiskFailed) if self.shared.traits.disk_may_fail => {
                drop(model);
                self.count("lookup failed by the disk");
                None
            }
            Err(other) => panic!("a lookup was refused: {other:?}"),
        }
    }

    async fn get(&mut self) {
        let Some(bucket) = self.any_bucket() else { return };
        let key = self.any_key();
        let Some((version, found)) = self.find(bucket, &key).await else {
            return;
        };
        if self.chance(4) {
            let pause_us = self.rng.below(30_000);
            self.engine.io().sleep(Duration::from_micros(pause_us)).await;
        }
        let size = version.content.length();
        let range = match self.rng.below(3) {
            0 => {
                let start = self.rng.below(size + 1);
                start..start + self.rng.below(size - start + 1)
            }
            _ => 0..size,
        };
        let at = range.start;
        let reader = found.read(range.clone());
        self.read(&version.content, reader, at, range.end - at).await;
    }

    /// Reads to the end, or not; every byte is compared.
    async fn read(&mut self, content: &Content, mut reader: BodyReader<SimIo>, mut at: u64, length: u64) {
        let end = at + length;
        loop {
            if self.shared.traits.rude && self.chance(50) {
                return;
            }
            match reader.next().await {
                Ok(Some(piece)) => {
                    for slice in piece.slices() {
                        assert!(content.is_at(at, slice), "wrong bytes at {at} of {content:?}");
                        at += slice.len() as u64;
                    }
                    // Its client took only some of the piece for a while.
                    if self.chance(8) {
                        let unsent = self.rng.below(piece.length() as u64 + 1);
                        drop(piece);
                        reader.rewind(unsent);
                        at -= unsent;
                    }
                }
                Ok(None) => break,
                Err(Refusal::DiskFailed) if self.shared.traits.disk_may_fail => {
                    return self.count("read failed");
                }
                Err(refusal) => panic!("a read of {content:?} failed at {at}: {refusal:?}"),
            }
            if self.chance(6) {
                let pause_us = self.rng.below(5_000);
                self.engine.io().sleep(Duration::from_micros(pause_us)).await;
            }
        }
        assert_eq!(at, end, "a read of {content:?} ended early");
        self.count("read to the end");
    }

    /// What the index says, however often the disk must be asked.
    pub async fn insist<T>(&self, ask: impl AsyncFn(&Engine) -> Result<T, Refusal>) -> Result<T, Refusal> {
        for _ in 1..ASKED_MAX {
            match ask(&self.engine).await {
                Err(Refusal::DiskFailed) if self.shared.traits.disk_may_fail => {}
                answer => return answer,
            }
        }
        ask(&self.engine).await
    }

    /// Reads a whole object; false if the disk did not let it.
    pub async fn read_whole(&mut self, version: &Version, found: FoundObject<SimIo>) -> bool {
        let mut at = 0;
        let mut reader = found.read(0..version.content.length());
        loop {
            match reader.next().await {
                Ok(Some(piece)) => {
                    for slice in piece.slices() {
                        assert!(
                            version.content.is_at(at, slice),
                            "wrong bytes at {at} of {version:?}"
                        );
                        at += slice.len() as u64;
                    }
                }
                Ok(None) => break,
                Err(Refusal::DiskFailed) if self.shared.traits.disk_may_fail => return false,
                Err(refusal) => panic!("a read of {version:?} failed at {at}: {refusal:?}"),
            }
        }
        assert_eq!(at, version.content.length(), "a read of {version:?} ended early");
        true
    }

    async fn change_buckets(&mut self) {
        let name = format!("bucket-{}", self.rng.below(self.shared.traits.buckets));
        let state = {
            let mut model = self.model();
            let fresh = BucketState {
                id: None,
                presence: Presence::No,
                taken: false,
                disturbed: 0,
                configuration: BTreeMap::new(),
            };
            let state = model.buckets.entry(name.clone()).or_insert(fresh);
            if std::mem::replace(&mut state.taken, true) {
                return;
            }
            state.clone()
        };
        if state.presence == Presence::Yes && self.chance(2) {
            let id = state.id.expect("a bucket that is there has an id");
            self.configure_bucket(&name, id).await;
        } else if state.presence == Presence::Yes {
            self.delete_bucket(&name, state.id.expect("a bucket that is there has an id"))
                .await;
        } else {
            self.create_bucket(&name).await;
        }
        if let Some(state) = self.model().buckets.get_mut(&name) {
            state.taken = false;
        }
    }

    async fn create_bucket(&mut self, name: &str) {
        let value = self.configuration_value();
        let configuration = Configuration::default().with(KINDS[0], value.clone());
        self.bucket_state(name, |state| {
            // One that a failing disk may have made is still possible.
            if state.presence == Presence::No {
                state.configuration.clear();
            }
            state.presence = Presence::Maybe;
            state
                .configuration
                .entry(KINDS[0])
                .or_default()
                .insert(value.clone());
        });
        let created = self.engine.create_bucket_with(name, "here", configuration).await;
        match created {
            Ok(bucket) => {
                self.count("bucket created");
                assert_eq!(self.engine.bucket(name).map(|known| known.id), Ok(bucket.id));
                self.model().gone.remove(&bucket.id);
                self.bucket_state(name, |state| {
                    (state.presence, state.id) = (Presence::Yes, Some(bucket.id));
                    state.configuration = BTreeMap::from([(KINDS[0], BTreeSet::from([value]))]);
                });
            }
            Err(Refusal::DiskFailed) if self.shared.traits.disk_may_fail => {}
            Err(refusal) => {
                self.check_write_refusal(refusal, "a bucket's making");
                self.bucket_state(name, |state| state.presence = Presence::No);
            }
        }
    }

    /// Sets or removes a kind of a bucket's configuration.
    async fn configure_bucket(&mut self, name: &str, id: BucketId) {
        let kind = KINDS[self.rng.index(KINDS.len())];
        let value = self.configuration_value();
        self.bucket_state(name, |state| {
            let possible = state
                .configuration
                .entry(kind)
                .or_insert_with(|| BTreeSet::from([None]));
            possible.insert(value.clone());
        });
        let known = |engine: &Engine| {
            engine
                .bucket(name)
                .map(|bucket| bucket.configuration.get(kind).map(<[u8]>::to_vec))
        };
        let before = known(&self.engine).expect("nobody else changes it");
        let configured = self.engine.configure_bucket(name, id, kind, value.clone()).await;
        let expected = match configured {
            Ok(()) => {
                self.count("bucket configured");
                self.bucket_state(name, |state| {
                    state.configuration.insert(kind, BTreeSet::from([value.clone()]));
                });
                value
            }
            // It may be on disk, and yet counts for nobody in this run.
            Err(Refusal::DiskFailed) if self.shared.traits.disk_may_fail => before,
            Err(refusal) => {
                self.check_write_refusal(refusal, "a bucket's configuration");
                before
            }
        };
        for engine in &self.shared.engines {
            assert_eq!(
                known(engine).as_ref(),
                Ok(&expected),
                "kind {kind} of bucket {name}"
            );
        }
    }

    fn configuration_value(&mut self) -> Option<Vec<u8>> {
        let length = match self.rng.below(8) {
            0 | 1 => return None,
            2 => self.rng.below(60_000),
            _ => self.rng.below(300),
        };
        let mut value = vec![0; length as usize];
        self.rng.fill(&mut value);
        Some(value)
    }

    async fn delete_bucket(&mut self, name: &str, id: BucketId) {
        if self.chance(2) {
            // Mostly it is not empty; half of the time it is made so.
            self.empty_bucket(id).await;
        }
        let since = self.model().tick();
        self.bucket_state(name, |state| {
            (state.presence, state.disturbed) = (Presence::Maybe, u64::MAX);
        });
        let deleted = self.engine.delete_bucket(name).await;
        let now = self.model().tick();
        let mut model = self.model();
        let present = match deleted {
            Ok(()) => {
                for ((bucket, key), state) in &model.keys {
                    let empty = *bucket != id || state.may_be_absent(since);
                    assert!(
                        empty,
                        "a bucket with {:?} in it was deleted",
                        String::from_utf8_lossy(key)
                    );
                }
                model.forget_bucket(id);
                Presence::No
            }
            Err(Refusal::BucketNotEmpty) => {
                let mut keys = model.keys.iter().filter(|((bucket, _), _)| *bucket == id);
                assert!(
                    keys.any(|(_, state)| state.may_be_present(since)),
                    "an empty bucket was called not empty"
                );
                Presence::Yes
            }
            // What failed is made void before the answer.
            Err(Refusal::DiskFailed) if self.shared.traits.disk_may_fail => Presence::Yes,
            Err(Refusal::Full | Refusal::Busy) => Presence::Yes,
            Err(refusal) => panic!("a bucket's end was refused: {refusal:?}"),
        };
        drop(model);
        self.count(if present == Presence::No {
            "bucket deleted"
        } else {
            "bucket not deleted"
        });
        self.bucket_state(name, |state| {
            (state.presence, state.disturbed) = (present, now);
            if present == Presence::No {
                state.id = None;
            }
        });
    }

    async fn empty_bucket(&mut self, bucket: BucketId) {
        let keys: Vec<Vec<u8>> = {
            let model = self.model();
            model
                .keys
                .keys()
                .filter(|(id, _)| *id == bucket)
                .map(|(_, key)| key.clone())
                .collect()
        };
        for key in keys {
            let exclusive = {
                let mut model = self.model();
                let state = model.key(bucket, &key);
                if state.taken {
                    continue;
                }
                state.taken = true;
                true
            };
            let taken = Taken {
                model: self.shared.model.clone(),
                bucket,
                key,
                exclusive,
            };
            let begun = self.model().now;
            let change = self.model().begin(bucket, &taken.key, None);
            let outcome = self.engine.delete(bucket, &taken.key).await;
            self.end_change(&taken, change, begun, Requirement::None, Some(outcome));
        }
    }

    fn bucket_state(&self, name: &str, change: impl FnOnce(&mut BucketState)) {
        if let Some(state) = self.model().buckets.get_mut(name) {
            change(state);
        }
    }
}

/// A key that a client changes.
pub struct Taken {
    pub model: Rc<RefCell<Model>>,
    pub bucket: BucketId,
    pub key: Vec<u8>,
    pub exclusive: bool,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.exclusive {
            return;
        }
        // A crash drops clients while the model may be in use elsewhere; it then frees the keys itself.
        if let Ok(mut model) = self.model.try_borrow_mut()
            && let Some(state) = model.keys.get_mut(&(self.bucket, self.key.clone()))
        {
            state.taken = false;
        }
    }
}

pub fn check_object(version: &Version, found: &FoundObject<SimIo>) {
    let object = &found.object;
    assert_eq!(object.size, version.content.length(), "size of {version:?}");
    assert_eq!(object.etag, version.etag, "etag of {version:?}");
    assert_eq!(
        *object.attributes, *version.attributes,
        "attributes of {version:?}"
    );
    assert_eq!(
        *object.part_sizes, *version.part_sizes,
        "part sizes of {version:?}"
    );
    assert_eq!(object.upload, version.upload, "upload of {version:?}");
}

/// Waits for `work`, but drops it after that many turns of the scheduler.
pub async fn patient<T>(io: &SimIo, turns: u64, work: impl Future<Output = T>) -> Option<T> {
    if turns == u64::MAX {
        return Some(work.await);
    }
    let clock = pin!(async {
        for _ in 0..turns {
            io.sleep(Duration::from_micros(20)).await;
        }
    });
    match select(pin!(work), clock).await {
        Either::Left((result, _)) => Some(result),
        Either::Right(_) => None,
    }
}
