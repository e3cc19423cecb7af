//! Uploads that nobody has finished: the end of those that are too old.
//!
//! Invariant: an upload is ended as its client would end it, and one that is being finished is not disturbed.

use crate::engine::Machine;
use crate::engine::core::{Core, count};
use crate::engine::entry::Upload;
use crate::engine::message::{Mutation, Refusal, Reply, Request};
use crate::index::Go;
use crate::index::key::{self, BucketId, Named};
use std::rc::Rc;
use std::time::Duration;

/// Entries of uploads and parts that a sweep looks at before others of its core get their turn.
const SWEEP_ENTRIES: usize = 1000;

/// Where a sweep goes on, and what it has found on the way there.
#[derive(Default)]
struct Slice {
    aborts: Vec<Mutation>,
    looked_at: usize,
    next: Option<Vec<u8>>,
}

impl<I: Machine> Core<I> {
    /// Ends the uploads of this core that began more than `age` ago.
    ///
    /// # Errors
    /// `DiskFailed`, `Damaged`: some were not looked at.
    pub async fn abort_uploads_older_than(self: &Rc<Self>, age: Duration) -> Result<(), Refusal> {
        // What the start found is counted a while after it: until then there may seem to be none.
        if self.checkpoints.is_audited() && self.holdings.uploads.get() == 0 {
            return Ok(());
        }
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let begun_before_ms = self.io.unix_ms().saturating_sub(age_ms);
        let mut next = Some(key::upload_prefix(BucketId(0), b""));
        while let Some(from) = next {
            let slice = self.find_uploads(from, begun_before_ms).await?;
            for abort in slice.aborts {
                // One that ended meanwhile, or whose bucket does, needs no end; others have it in the next sweep.
                let reply = self.call(self.io.core(), Request::Mutate(abort)).await;
                if matches!(reply, Reply::Outcome(Ok(_))) {
                    count(&self.counters.uploads_expired, 1);
                }
            }
            next = slice.next;
            self.io.yield_now().await;
        }
        Ok(())
    }

    async fn find_uploads(&self, from: Vec<u8>, begun_before_ms: u64) -> Result<Slice, Refusal> {
        let _guard = self.guard();
        let table = from[0];
        let mut slice = Slice::default();
        self.walk_index(from, |index_key, entry| {
            if index_key[0] != table {
                return Go::Stop;
            }
            if slice.looked_at == SWEEP_ENTRIES {
                slice.next = Some(index_key.to_vec());
                return Go::Stop;
            }
            slice.looked_at += 1;
            if let Some(Named::Upload { bucket, key, upload }) = key::parse(index_key)
                && Upload::decode(entry.value).is_some_and(|begun| begun.initiated_ms < begun_before_ms)
            {
                slice.aborts.push(Mutation::AbortUpload { bucket, key, upload });
            }
            Go::On
        })
        .await?;
        Ok(slice)
    }
}
