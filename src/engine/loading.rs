//! What changes look at, brought into memory before they are decided: from there on nothing waits.
//!
//! A change is checked, planned and applied against memory alone (`index`). So the entries that it looks at are loaded
//! from the runs first. They stay loaded while the change, or another one of the key, is pending; a change of an upload
//! has the upload's parts stay as well.
//!
//! Invariant: what is loaded is what the runs say, in their present shape, of a key that no table knows.

use crate::engine::Machine;
use crate::engine::core::Core;
use crate::engine::message::{Mutation, Refusal};
use crate::engine::pages::Held;
use crate::index::key::{self, Named};
use crate::index::{Cursor, Entry, Go};
use std::rc::Rc;

/// Keys of the index that a change looks at.
pub struct Names {
    pub exact: Vec<Vec<u8>>,
    /// An upload, and all of its parts.
    pub upload: Option<Vec<u8>>,
}

impl<I: Machine> Core<I> {
    /// Loads what a change looks at, if nothing must be read for it; says whether all is there.
    pub fn load_at_once(&self, mutation: &Mutation) -> bool {
        if self.index.borrow().runs().is_empty() {
            return true;
        }
        let names = mutation.names();
        names.upload.is_none() && names.exact.iter().all(|key| self.load_key_at_once(key))
    }

    fn load_key_at_once(&self, key: &[u8]) -> bool {
        let found = {
            let index = self.index.borrow();
            if index.in_memory(key).is_some() {
                return true;
            }
            index.find_in_runs(key, &self.pages)
        };
        let Ok(found) = found else { return false };
        self.index.borrow_mut().load(key, found);
        true
    }

    /// Loads what a change looks at.
    ///
    /// # Errors
    /// `DiskFailed`, `Damaged`: then nothing stays loaded for it.
    pub async fn load(self: &Rc<Self>, mutation: &Mutation) -> Result<(), Refusal> {
        let names = mutation.names();
        loop {
            let _guard = self.guard();
            // Not what a table says: that may be gone by the end, and the runs would be thought to have it.
            let below = self.index.borrow().without_tables();
            let shape = self.index.borrow().shape();
            let mut found: Vec<(Vec<u8>, Option<Entry>)> = Vec::new();
            for key in names.exact.iter().chain(&names.upload) {
                found.push((key.clone(), self.find_on_disk(below.runs(), key).await?));
            }
            if let Some(upload) = &names.upload {
                let (mut cursor, held) = (Cursor::new(upload.clone()), Held::ahead(&self.pages));
                self.walk_over(&below, &mut cursor, &held, |key, entry| {
                    if !key.starts_with(upload) {
                        return Go::Stop;
                    }
                    found.push((key.to_vec(), Some(entry.to_entry())));
                    Go::On
                })
                .await?;
            }
            if self.load_found(shape, found) {
                return Ok(());
            }
        }
    }

    /// Loads one key.
    ///
    /// # Errors
    /// `DiskFailed`, `Damaged`.
    pub async fn load_key(self: &Rc<Self>, key: &[u8]) -> Result<(), Refusal> {
        loop {
            if self.load_key_at_once(key) {
                return Ok(());
            }
            let _guard = self.guard();
            let (shape, runs) = {
                let index = self.index.borrow();
                (index.shape(), index.runs().clone())
            };
            let found = self.find_on_disk(&runs, key).await?;
            if self.load_found(shape, vec![(key.to_vec(), found)]) {
                return Ok(());
            }
        }
    }

    /// What was found when the index had that shape; false if it has another one by now.
    fn load_found(&self, shape: u64, found: Vec<(Vec<u8>, Option<Entry>)>) -> bool {
        let mut index = self.index.borrow_mut();
        if index.shape() != shape {
            return false;
        }
        for (key, entry) in found {
            // A table has the last word: it may have changed meanwhile.
            if index.in_memory(&key).is_none() {
                index.load(&key, entry);
            }
        }
        true
    }

    /// Forgets what was loaded for a change that is not made now.
    pub fn unload(&self, mutation: &Mutation) {
        self.unload_names(&mutation.names());
    }

    /// Forgets what was loaded of these keys, but for what pending changes need.
    pub fn unload_names(&self, names: &Names) {
        for key in &names.exact {
            self.unload_key(key);
        }
        if let Some(upload) = &names.upload
            && !self.commits.is_pending(upload)
        {
            let loaded = self.index.borrow().loaded_prefixed(upload);
            for key in loaded {
                self.unload_key(&key);
            }
        }
    }

    /// Forgets what was loaded of a key, unless a pending change needs it.
    pub fn unload_key(&self, key: &[u8]) {
        if !self.commits.is_pending(key)
            && !upload_of(key).is_some_and(|upload| self.commits.is_pending(&upload))
        {
            self.index.borrow_mut().unload(key);
        }
    }
}

/// The upload that a part is one of.
fn upload_of(index_key: &[u8]) -> Option<Vec<u8>> {
    match key::parse(index_key)? {
        Named::Part {
            bucket, key, upload, ..
        } => Some(key::upload(bucket, &key, upload)),
        Named::Object { .. } | Named::Upload { .. } | Named::Bucket { .. } => None,
    }
}
