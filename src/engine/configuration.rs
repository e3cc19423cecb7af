//! What is set of a bucket beside its name: kinds of configuration, each a run of bytes that the engine does not read.
//!
//! It lies in the bucket's own record, so that a change of it is one change of one key, and the bucket's end takes it along.
//! Every core has it with the bucket. Invariant: it never changes; a change makes another, and the cores are given that one.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Kinds and their bytes. Cloning one shares it; a bucket without any costs nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration(Option<Arc<BTreeMap<u8, Box<[u8]>>>>);

impl Configuration {
    /// The bytes of a kind, if it is set.
    pub fn get(&self, kind: u8) -> Option<&[u8]> {
        self.0.as_ref()?.get(&kind).map(|bytes| &**bytes)
    }

    /// The same but for one kind, which is set or, without a value, removed.
    #[must_use]
    pub fn with(&self, kind: u8, value: Option<Vec<u8>>) -> Configuration {
        let mut kinds = self.0.as_deref().cloned().unwrap_or_default();
        match value {
            Some(value) => kinds.insert(kind, value.into()),
            None => kinds.remove(&kind),
        };
        Configuration((!kinds.is_empty()).then(|| Arc::new(kinds)))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Kinds in their order.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        self.0
            .iter()
            .flat_map(|kinds| kinds.iter().map(|(kind, bytes)| (*kind, &**bytes)))
    }

    pub fn count(&self) -> usize {
        self.0.as_ref().map_or(0, |kinds| kinds.len())
    }

    /// Bytes of all values.
    pub fn bytes(&self) -> usize {
        self.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// Whether it is the very same, and not only equal: what was made of one is good for the other. It stays so for as long
    /// as one of them is kept.
    pub fn is_same(&self, other: &Configuration) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl FromIterator<(u8, Vec<u8>)> for Configuration {
    fn from_iter<T: IntoIterator<Item = (u8, Vec<u8>)>>(kinds: T) -> Configuration {
        let set = |all: Configuration, (kind, value)| all.with(kind, Some(value));
        kinds.into_iter().fold(Configuration::default(), set)
    }
}
