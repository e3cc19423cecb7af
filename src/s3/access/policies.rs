//! The policies of buckets as this core has read them.
//!
//! Reading JSON for each request would cost more than the request. Invariants: a policy is of use for the very configuration
//! that it was read from, and no other; at most [`KEPT_MAX`] are kept; one that cannot be read denies everything.

use crate::engine::{Bucket, BucketId, Configuration};
use crate::policy::{Kind, Policy, is_public};
use crate::s3::configuration::StoredPolicy;
use crate::s3::names::BucketName;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

const KEPT_MAX: usize = 256;

/// A bucket's policy, read.
pub struct Kept {
    /// `None` if it cannot be read.
    pub policy: Option<Policy>,
    pub is_public: bool,
    pub binds_owner: bool,
}

#[derive(Default)]
pub struct Policies(RefCell<HashMap<BucketId, (Configuration, Rc<Kept>)>>);

impl Policies {
    /// The policy of a bucket, if it has one.
    pub fn of(&self, name: &BucketName, bucket: &Bucket) -> Option<Rc<Kept>> {
        let stored = StoredPolicy::of(bucket)?;
        let mut kept = self.0.borrow_mut();
        if let Some((read_from, kept)) = kept.get(&bucket.id)
            && read_from.is_same(&bucket.configuration)
        {
            return Some(Rc::clone(kept));
        }
        let policy = Policy::parse(stored.text, Kind::Bucket(name.as_str())).ok();
        let read = Rc::new(Kept {
            is_public: policy.as_ref().is_some_and(is_public),
            policy,
            binds_owner: stored.binds_owner,
        });
        if kept.len() >= KEPT_MAX {
            // Whose policies are in use are read again; it is rare that there are so many.
            kept.clear();
        }
        kept.insert(bucket.id, (bucket.configuration.clone(), Rc::clone(&read)));
        Some(read)
    }
}
