//! Lookups of objects: from this core's cache, else asked of the owner of the key, who reads small bodies too.

use crate::engine::Machine;
use crate::engine::cache::Cached;
use crate::engine::core::{Core, ReplyTo, count};
use crate::engine::entry::{Layout, Object, Summary};
use crate::engine::message::{Refusal, Reply, Request, Value};
use crate::index::EntryRef;
use crate::io::CoreId;
use crate::limits::INLINE_BYTES_MAX;
use std::rc::Rc;
use std::sync::Arc;

const CHECKED: &str = "the index holds values that were checked";

impl<I: Machine> Core<I> {
    /// What is true of an object, and its body if that is wanted and small. The caller holds a guard.
    ///
    /// # Errors
    /// `NoSuchKey`; with a body also `Damaged` and `DiskFailed`.
    pub async fn find(
        self: &Rc<Self>,
        owner: CoreId,
        index_key: Vec<u8>,
        with_body: bool,
    ) -> Result<Cached, Refusal> {
        let version = self.version_of(owner, &index_key);
        if let Some(hit) = version.and_then(|version| self.cache.get(&index_key, version))
            && !(with_body && hit.body.is_none() && is_small(hit.object.size))
        {
            count(&self.counters.cache_hits, 1);
            return Ok(hit);
        }
        count(&self.counters.cache_misses, 1);
        let value = if owner == self.io.core() {
            self.look_up(&index_key, with_body).await?
        } else {
            let request = Request::Lookup {
                index_key: index_key.clone(),
                with_body,
            };
            match self.call_remote(owner, request).await {
                Reply::Value(value) => value?,
                other => unreachable!("a lookup is answered by a value, not {other:?}"),
            }
        };
        let found = Cached {
            version: value.version,
            sequence: value.sequence,
            object: Rc::new(Object::decode(&value.encoded).expect(CHECKED)),
            body: value.body,
        };
        self.cache.put(index_key, value.encoded.len(), found.clone());
        Ok(found)
    }

    /// Answers another core: at once, if nothing need be read.
    pub fn answer_lookup(self: &Rc<Self>, index_key: Vec<u8>, with_body: bool, to: ReplyTo) {
        match self.look_up_at_once(&index_key, with_body) {
            Some(Ok(value)) if with_body && value.body.is_none() && has_small_body(&value) => {
                // Whoever asked may go away before the answer, and his guard with him.
                let guard = self.guard();
                self.in_task(to, async move |core| {
                    let _guard = guard;
                    Reply::Value(core.read_small_body(value).await)
                });
            }
            Some(answer) => self.reply(to, Reply::Value(answer)),
            None => {
                let guard = self.guard();
                self.in_task(to, async move |core| {
                    let _guard = guard;
                    Reply::Value(core.look_up(&index_key, with_body).await)
                });
            }
        }
    }

    /// The caller holds a guard.
    async fn look_up(self: &Rc<Self>, index_key: &[u8], with_body: bool) -> Result<Value, Refusal> {
        let value = match self.look_up_at_once(index_key, with_body) {
            Some(value) => value?,
            None => {
                let version = self.versions.of(index_key);
                let entry = self
                    .find_entry(index_key)
                    .await?
                    .ok_or(self.not_found(Refusal::NoSuchKey))?;
                self.value_of(index_key, version, entry.sequence, entry.value, with_body)
            }
        };
        if with_body && value.body.is_none() && has_small_body(&value) {
            return self.read_small_body(value).await;
        }
        Ok(value)
    }

    /// What the index says, with a body that is in the cache; `None` if something must be read to know.
    fn look_up_at_once(&self, index_key: &[u8], with_body: bool) -> Option<Result<Value, Refusal>> {
        let version = self.versions.of(index_key);
        let index = self.index.borrow();
        let entry = match index.in_memory(index_key) {
            Some(known) => known.map(EntryRef::to_entry),
            None => index.find_in_runs(index_key, &self.pages).ok()?,
        };
        Some(
            entry
                .map(|entry| self.value_of(index_key, version, entry.sequence, entry.value, with_body))
                .ok_or(self.not_found(Refusal::NoSuchKey)),
        )
    }

    fn value_of(
        &self,
        index_key: &[u8],
        version: u64,
        sequence: u64,
        encoded: Box<[u8]>,
        with_body: bool,
    ) -> Value {
        let body = with_body
            .then(|| self.cache.get(index_key, version)?.body)
            .flatten();
        Value {
            version,
            sequence,
            encoded,
            body,
        }
    }

    /// Reads the body, if it lies in one piece in a commit record. The caller holds a guard since the lookup.
    async fn read_small_body(self: &Rc<Self>, mut value: Value) -> Result<Value, Refusal> {
        let object = Object::decode(&value.encoded).expect(CHECKED);
        if let &[extent] = &*object.extents
            && extent.layout == Layout::Inline
        {
            let body: Arc<[u8]> = self.read_inline(extent).await?;
            value.body = Some(body);
        }
        Ok(value)
    }
}

fn has_small_body(value: &Value) -> bool {
    is_small(Summary::decode(&value.encoded).expect(CHECKED).size)
}

/// Whether a body of that length may lie in a commit record.
fn is_small(size: u64) -> bool {
    (1..=INLINE_BYTES_MAX as u64).contains(&size)
}
