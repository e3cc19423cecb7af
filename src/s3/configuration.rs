//! What S3 keeps in a bucket's configuration: the kinds that the engine holds without reading them.
//!
//! Invariants: a kind's number and form are for ever (docs/format.md lists them); bytes that cannot be read are as strict as
//! can be, never as if nothing were set.

use crate::engine::Bucket;

/// Numbers of kinds.
pub mod kind {
    /// The canonical id of the account that the bucket belongs to; without it root's.
    pub const OWNER: u8 = 1;
    /// A byte of flags, and the policy as it was given.
    pub const POLICY: u8 = 2;
    /// A byte of flags.
    pub const PUBLIC_ACCESS_BLOCK: u8 = 3;
    /// A byte.
    pub const OWNERSHIP: u8 = 4;
}

/// The account that a bucket belongs to, if it is not root's.
pub fn owner(bucket: &Bucket) -> Option<&str> {
    let id = bucket.configuration.get(kind::OWNER)?;
    // An id that cannot be read is nobody's: only root may use the bucket.
    Some(std::str::from_utf8(id).unwrap_or(""))
}

/// A bucket's policy as it is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredPolicy<'a> {
    /// Whoever set it meant to lock out the owner of the bucket too.
    pub binds_owner: bool,
    pub text: &'a str,
}

impl<'a> StoredPolicy<'a> {
    /// The policy of a bucket; an empty one, which allows nothing to anyone, if it cannot be read.
    pub fn of(bucket: &'a Bucket) -> Option<StoredPolicy<'a>> {
        let unreadable = StoredPolicy {
            binds_owner: false,
            text: "",
        };
        let (flags, text) = match bucket.configuration.get(kind::POLICY)?.split_first() {
            None => return Some(unreadable),
            Some(split) => split,
        };
        Some(match std::str::from_utf8(text) {
            Ok(text) => StoredPolicy {
                binds_owner: *flags == 1,
                text,
            },
            Err(_) => unreadable,
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        [&[u8::from(self.binds_owner)], self.text.as_bytes()].concat()
    }
}

/// What a bucket refuses to be public by (S3 user guide, "Blocking public access to your Amazon S3 storage").
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PublicAccessBlock {
    pub block_public_acls: bool,
    pub ignore_public_acls: bool,
    pub block_public_policy: bool,
    pub restrict_public_buckets: bool,
}

impl PublicAccessBlock {
    /// That of a bucket: nothing is blocked where none was set.
    pub fn of(bucket: &Bucket) -> PublicAccessBlock {
        PublicAccessBlock::set_of(bucket).unwrap_or_default()
    }

    pub fn set_of(bucket: &Bucket) -> Option<PublicAccessBlock> {
        let bytes = bucket.configuration.get(kind::PUBLIC_ACCESS_BLOCK)?;
        let flags = match *bytes {
            [flags] => flags,
            _ => u8::MAX,
        };
        Some(PublicAccessBlock {
            block_public_acls: flags & 1 != 0,
            ignore_public_acls: flags & 2 != 0,
            block_public_policy: flags & 4 != 0,
            restrict_public_buckets: flags & 8 != 0,
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let flags = [
            self.block_public_acls,
            self.ignore_public_acls,
            self.block_public_policy,
            self.restrict_public_buckets,
        ];
        let bit = |(at, flag): (usize, &bool)| u8::from(*flag) << at;
        vec![flags.iter().enumerate().map(bit).sum()]
    }
}

/// Whom objects belong to (S3 user guide, "Controlling ownership of objects and disabling ACLs").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ownership {
    BucketOwnerEnforced,
    BucketOwnerPreferred,
    ObjectWriter,
}

impl Ownership {
    const ALL: [(Ownership, u8, &'static str); 3] = [
        (Ownership::BucketOwnerEnforced, 1, "BucketOwnerEnforced"),
        (Ownership::BucketOwnerPreferred, 2, "BucketOwnerPreferred"),
        (Ownership::ObjectWriter, 3, "ObjectWriter"),
    ];

    pub fn parse(name: &str) -> Option<Ownership> {
        let found = Ownership::ALL.iter().find(|(_, _, known)| *known == name);
        found.map(|(ownership, ..)| *ownership)
    }

    pub fn name(self) -> &'static str {
        Ownership::ALL
            .iter()
            .find(|(known, ..)| *known == self)
            .map_or("", |(_, _, name)| name)
    }

    /// What was set of a bucket.
    pub fn set_of(bucket: &Bucket) -> Option<Ownership> {
        let bytes = bucket.configuration.get(kind::OWNERSHIP)?;
        let found = Ownership::ALL.iter().find(|(_, code, _)| *bytes == [*code]);
        Some(found.map_or(Ownership::BucketOwnerEnforced, |(ownership, ..)| *ownership))
    }

    pub fn encode(self) -> Vec<u8> {
        let found = Ownership::ALL.iter().find(|(known, ..)| *known == self);
        found.map(|(_, code, _)| vec![*code]).unwrap_or_default()
    }
}
