//! Listings held against the model: what must be there is, nothing else is, in order, page by page.

use crate::model::Stamp;
use crate::workload::{Client, id_of, key_name};
use std::collections::BTreeSet;
use weft::engine::{BucketId, Glance, KeyPage, KeyWalk, ListedObject, WalkItem};

impl Client {
    pub async fn list(&mut self) {
        let Some(bucket) = self.any_bucket() else { return };
        let some_key = key_name(self.rng.below(self.shared.traits.keys));
        let prefix = match self.rng.below(4) {
            0 => b"dir/".to_vec(),
            1 => b"dir".to_vec(),
            2 => some_key[..self.rng.index(some_key.len() + 1)].to_vec(),
            _ => Vec::new(),
        };
        let delimiter = match self.rng.below(4) {
            0 => b"/".to_vec(),
            1 => b"r/".to_vec(),
            2 => b"//".to_vec(),
            _ => Vec::new(),
        };
        let after = match self.rng.below(4) {
            0 => Some(key_name(self.rng.below(self.shared.traits.keys))),
            1 => Some(b"dir/".to_vec()),
            _ => None,
        };
        let max = if self.rng.coin() { 1000 } else { self.rng.index(5) };
        self.list_page(
            bucket,
            KeyWalk {
                prefix,
                delimiter,
                after,
                max,
            },
        )
        .await;
    }

    pub async fn list_page(&mut self, bucket: BucketId, walk: KeyWalk) -> KeyPage<ListedObject> {
        let since = self.model().tick();
        let page = self
            .insist(async |engine| engine.list_objects(bucket, walk.clone(), glance_at).await)
            .await
            .expect("an index that can be read");
        self.count("page listed");
        self.check_page(bucket, &walk, &page, since);
        page
    }

    fn check_page(&self, bucket: BucketId, walk: &KeyWalk, page: &KeyPage<ListedObject>, since: Stamp) {
        let mut model = self.model();
        let now = model.tick();
        if model.gone.contains(&bucket) {
            return;
        }
        let (mut must, mut may) = (BTreeSet::new(), BTreeSet::new());
        for ((of, key), state) in &model.keys {
            if *of == bucket
                && let Some(name) = fold(walk, key)
                && state.may_be_present(since)
            {
                if !state.may_be_absent(since) {
                    must.insert(name.clone());
                }
                may.insert(name);
            }
        }
        let show = |names: &BTreeSet<Vec<u8>>| -> Vec<String> {
            names
                .iter()
                .map(|name| String::from_utf8_lossy(name).into_owned())
                .collect()
        };
        let names: Vec<&[u8]> = page.items.iter().map(WalkItem::name).collect();
        // Only a failure puts it into words.
        let context = std::fmt::from_fn(|f| {
            write!(f, "{walk:?}: {:?}, ", page.items)?;
            write!(f, "must {:?}, may {:?}", show(&must), show(&may))
        });
        assert!(
            names.is_sorted_by(|a, b| a < b),
            "a page is not in order: {context}"
        );
        assert!(names.len() <= walk.max, "a page is too long: {context}");
        assert!(
            !page.truncated || names.len() == walk.max,
            "a truncated page is not full: {context}"
        );
        assert!(
            names.iter().all(|name| may.contains(*name)),
            "a page shows what is not there: {context}"
        );
        let last = names.last().map(|name| name.to_vec());
        let reached = |name: &Vec<u8>| !page.truncated || last.as_ref().is_some_and(|last| name <= last);
        let missing = must
            .iter()
            .find(|name| reached(name) && !names.contains(&name.as_slice()));
        assert!(missing.is_none(), "a page lacks {missing:?}: {context}");
        let more = may
            .iter()
            .any(|name| last.as_ref().is_none_or(|last| name > last));
        assert!(
            !page.truncated || more,
            "a page promises more, and there is none: {context}"
        );
        for item in &page.items {
            let WalkItem::Key(name, object) = item else {
                continue;
            };
            let id = id_of(&object.glance);
            let key = model.key(bucket, name);
            let checked = key.observe(Some(id), since, now);
            let version = key.version(id);
            if let Err(error) = checked {
                panic!("a listing of {:?}: {error}", String::from_utf8_lossy(name));
            }
            let version = version.expect("it was observed");
            assert_eq!(object.size, version.content.length());
            assert_eq!(object.etag, version.etag);
        }
    }
}

/// A listing shows the id that attributes begin with.
pub fn glance_at(attributes: &[u8]) -> Glance {
    *attributes.first_chunk().expect("attributes begin with an id")
}

/// The name under which a listing shows `key`, if it does.
fn fold(walk: &KeyWalk, key: &[u8]) -> Option<Vec<u8>> {
    let rest = key.strip_prefix(walk.prefix.as_slice())?;
    let folded = |rest: &[u8]| -> Option<usize> {
        let delimiter = walk.delimiter.as_slice();
        (!delimiter.is_empty())
            .then(|| rest.windows(delimiter.len()).position(|w| w == delimiter))
            .flatten()
    };
    let name = match folded(rest) {
        Some(at) => &key[..walk.prefix.len() + at + walk.delimiter.len()],
        None => key,
    };
    let is_prefix = name.len() < key.len() || folded(rest).is_some();
    let behind = match &walk.after {
        None => true,
        Some(after) if is_prefix && after.starts_with(name) => false,
        Some(after) => name > after.as_slice(),
    };
    behind.then(|| name.to_vec())
}
