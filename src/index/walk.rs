//! Walking keys in order under a prefix, folding those that share a prefix up to a delimiter.
//!
//! A common prefix costs one seek, however many keys it hides: after it the walk goes on at the first key
//! that does not start with it. The parts of an upload cost one seek as well. The walk compares object keys (unescaped), as S3's listings do.

use super::{Entry, Index, key};
use std::ops::Bound;

/// What to walk. Keys are object keys, not index keys.
#[derive(Clone, Debug)]
pub struct KeyWalk {
    /// Only keys that start with this.
    pub prefix: Vec<u8>,
    /// Fold keys at the first delimiter behind the prefix; empty: do not fold.
    pub delimiter: Vec<u8>,
    /// Only keys and common prefixes greater than this. A common prefix that this starts with is also left out.
    pub after: Option<Vec<u8>>,
    /// Stop after this many items.
    pub max: usize,
}

/// Which uploads to walk.
#[derive(Clone, Debug)]
pub struct UploadWalk {
    pub keys: KeyWalk,
    /// Of the key that is `keys.after`, those begun after this one; if there is none, none of that key.
    pub after_upload: Option<key::UploadId>,
}

/// One item of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalkItem<T> {
    Key(Vec<u8>, T),
    CommonPrefix(Vec<u8>),
}

impl<T> WalkItem<T> {
    /// What the item sorts by.
    pub fn name(&self) -> &[u8] {
        match self {
            WalkItem::Key(name, _) | WalkItem::CommonPrefix(name) => name,
        }
    }
}

/// A page of items in order, and whether there is more behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPage<T> {
    pub items: Vec<WalkItem<T>>,
    pub truncated: bool,
}

impl Index {
    /// Walks the objects of `bucket`; `view` makes what the page holds of each entry.
    pub fn walk_objects<T>(
        &self,
        bucket: key::BucketId,
        walk: &KeyWalk,
        mut view: impl FnMut(&Entry) -> T,
    ) -> KeyPage<T> {
        let scope = key::object_prefix(bucket, &walk.prefix);
        let mut from = Bound::Included(walk.first_index_key(&scope, bucket));
        let mut page = KeyPage {
            items: Vec::new(),
            truncated: false,
        };
        let mut range = self.map.range::<[u8], _>((borrow(&from), Bound::Unbounded));
        while let Some((index_key, entry)) = range.next() {
            if !index_key.starts_with(&scope) {
                break;
            }
            let name = key::object_key(index_key);
            let folded = walk.common_prefix_of(&name);
            if folded.is_none() && walk.after.as_deref().is_some_and(|after| &*name <= after) {
                continue;
            }
            if page.items.len() == walk.max {
                page.truncated = true;
                break;
            }
            let Some(length) = folded else {
                page.items.push(WalkItem::Key(name.into_owned(), view(entry)));
                continue;
            };
            let common = name[..length].to_vec();
            let Some(behind) = super::successor_of_prefix(&key::object_prefix(bucket, &common)) else {
                break;
            };
            page.items.push(WalkItem::CommonPrefix(common));
            from = Bound::Included(behind);
            range = self.map.range::<[u8], _>((borrow(&from), Bound::Unbounded));
        }
        page
    }
}

impl Index {
    /// Walks the unfinished uploads of `bucket`, those of a key in the order in which they began.
    pub fn walk_uploads<T>(
        &self,
        bucket: key::BucketId,
        walk: &UploadWalk,
        mut view: impl FnMut(key::UploadId, &Entry) -> T,
    ) -> KeyPage<T> {
        let scope = key::upload_prefix(bucket, &walk.keys.prefix);
        let mut from = Bound::Included(walk.first_index_key(&scope, bucket));
        let mut page = KeyPage {
            items: Vec::new(),
            truncated: false,
        };
        let mut range = self.map.range::<[u8], _>((borrow(&from), Bound::Unbounded));
        while let Some((index_key, entry)) = range.next() {
            if !index_key.starts_with(&scope) {
                break;
            }
            let hidden = match key::parse(index_key) {
                Some(key::Named::Upload {
                    key: name, upload, ..
                }) => {
                    let folded = walk.keys.common_prefix_of(&name);
                    if folded.is_none() && !walk.is_behind_marker(&name, upload) {
                        continue;
                    }
                    if page.items.len() == walk.keys.max {
                        page.truncated = true;
                        break;
                    }
                    let Some(length) = folded else {
                        page.items.push(WalkItem::Key(name, view(upload, entry)));
                        continue;
                    };
                    let common = name[..length].to_vec();
                    let hidden = key::upload_prefix(bucket, &common);
                    page.items.push(WalkItem::CommonPrefix(common));
                    hidden
                }
                Some(key::Named::Part {
                    key: name, upload, ..
                }) => key::upload(bucket, &name, upload),
                _ => continue,
            };
            let Some(behind) = super::successor_of_prefix(&hidden) else {
                break;
            };
            from = Bound::Included(behind);
            range = self.map.range::<[u8], _>((borrow(&from), Bound::Unbounded));
        }
        page
    }
}

impl UploadWalk {
    fn is_behind_marker(&self, name: &[u8], upload: key::UploadId) -> bool {
        match (&self.keys.after, self.after_upload) {
            (None, _) => true,
            (Some(after), None) => name > after.as_slice(),
            (Some(after), Some(after_upload)) => (name, upload) > (after.as_slice(), after_upload),
        }
    }

    fn first_index_key(&self, scope: &[u8], bucket: key::BucketId) -> Vec<u8> {
        let Some(after) = &self.keys.after else {
            return scope.to_vec();
        };
        if let Some(length) = self.keys.hidden_by_marker(after)
            && let Some(behind) = super::successor_of_prefix(&key::upload_prefix(bucket, &after[..length]))
        {
            return behind;
        }
        let upload = self.after_upload.unwrap_or(key::UploadId([0xff; 16]));
        key::upload(bucket, after, upload).max(scope.to_vec())
    }
}

impl KeyWalk {
    /// Length of the common prefix that `name` folds into.
    pub fn common_prefix_of(&self, name: &[u8]) -> Option<usize> {
        if self.delimiter.is_empty() {
            return None;
        }
        let rest = &name[self.prefix.len()..];
        let at = match *self.delimiter.as_slice() {
            [byte] => rest.iter().position(|&b| b == byte)?,
            _ => rest
                .windows(self.delimiter.len())
                .position(|w| w == self.delimiter)?,
        };
        Some(self.prefix.len() + at + self.delimiter.len())
    }

    /// A marker inside a common prefix (or that is one) skips all that it hides: the length of that.
    fn hidden_by_marker(&self, after: &[u8]) -> Option<usize> {
        after
            .starts_with(&self.prefix)
            .then(|| self.common_prefix_of(after))
            .flatten()
    }

    fn first_index_key(&self, scope: &[u8], bucket: key::BucketId) -> Vec<u8> {
        let Some(after) = &self.after else {
            return scope.to_vec();
        };
        if let Some(length) = self.hidden_by_marker(after)
            && let Some(behind) = super::successor_of_prefix(&key::object_prefix(bucket, &after[..length]))
        {
            return behind;
        }
        key::object(bucket, after).max(scope.to_vec())
    }
}

fn borrow(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(|key| key.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use key::BucketId;

    fn index(names: &[&str]) -> Index {
        let mut index = Index::default();
        for (sequence, name) in names.iter().enumerate() {
            let entry = Entry {
                sequence: sequence as u64,
                home_segment: 0,
                home_bytes: 0,
                lives: crate::index::Lives::one(0),
                value: Box::default(),
            };
            index.put(&key::object(BucketId(1), name.as_bytes()), entry);
        }
        index.put(
            &key::object(BucketId(2), b"other"),
            index.map.values().next().unwrap().clone(),
        );
        index
    }

    fn names(page: &KeyPage<()>) -> Vec<String> {
        page.items
            .iter()
            .map(|item| match item {
                WalkItem::Key(name, ()) => String::from_utf8(name.clone()).unwrap(),
                WalkItem::CommonPrefix(name) => format!("<{}>", String::from_utf8(name.clone()).unwrap()),
            })
            .collect()
    }

    fn walk(index: &Index, prefix: &str, delimiter: &str, after: Option<&str>, max: usize) -> KeyPage<()> {
        let walk = KeyWalk {
            prefix: prefix.into(),
            delimiter: delimiter.into(),
            after: after.map(|a| a.as_bytes().to_vec()),
            max,
        };
        index.walk_objects(BucketId(1), &walk, |_| ())
    }

    #[test]
    fn keys_fold_at_the_delimiter() {
        let index = index(&["a", "a/b", "a/c", "b/x/y", "b/x/z", "c"]);
        assert_eq!(
            names(&walk(&index, "", "/", None, 10)),
            ["a", "<a/>", "<b/>", "c"]
        );
        assert_eq!(names(&walk(&index, "b/", "/", None, 10)), ["<b/x/>"]);
        assert_eq!(names(&walk(&index, "b", "x/", None, 10)), ["<b/x/>"]);
        assert_eq!(names(&walk(&index, "", "", Some("a/b"), 2)), ["a/c", "b/x/y"]);
    }

    #[test]
    fn a_page_says_whether_more_follows() {
        let index = index(&["a", "b/1", "b/2"]);
        assert!(!walk(&index, "", "/", None, 2).truncated);
        assert!(walk(&index, "", "/", None, 1).truncated);
        assert!(walk(&index, "", "", None, 0).truncated);
    }

    #[test]
    fn a_marker_within_a_common_prefix_skips_it() {
        let index = index(&["a/1", "a/2", "b"]);
        assert_eq!(names(&walk(&index, "", "/", Some("a/"), 10)), ["b"]);
        assert_eq!(names(&walk(&index, "", "/", Some("a/1"), 10)), ["b"]);
        assert_eq!(names(&walk(&index, "", "/", Some("a"), 10)), ["<a/>", "b"]);
    }

    fn uploads(entries: &[(&str, u8, u16)]) -> Index {
        let mut index = Index::default();
        for &(name, id, parts) in entries {
            let id = key::UploadId([id; 16]);
            for part in 0..=parts {
                let index_key = match part {
                    0 => key::upload(BucketId(1), name.as_bytes(), id),
                    part => key::part(BucketId(1), name.as_bytes(), id, part),
                };
                let entry = Entry {
                    sequence: part.into(),
                    home_segment: 0,
                    home_bytes: 0,
                    lives: crate::index::Lives::one(0),
                    value: Box::default(),
                };
                index.put(&index_key, entry);
            }
        }
        index
    }

    fn upload_names(index: &Index, delimiter: &str, after: Option<(&str, u8)>, max: usize) -> Vec<String> {
        let walk = UploadWalk {
            keys: KeyWalk {
                prefix: Vec::new(),
                delimiter: delimiter.into(),
                after: after.map(|(name, _)| name.as_bytes().to_vec()),
                max,
            },
            after_upload: after.and_then(|(_, id)| (id > 0).then_some(key::UploadId([id; 16]))),
        };
        let page = index.walk_uploads(BucketId(1), &walk, |id, entry| {
            assert_eq!(entry.sequence, 0, "a part is no upload");
            id.0[0]
        });
        let name = |item: &WalkItem<u8>| match item {
            WalkItem::Key(name, id) => format!("{}:{id}", str::from_utf8(name).unwrap()),
            WalkItem::CommonPrefix(name) => format!("<{}>", str::from_utf8(name).unwrap()),
        };
        let mut names: Vec<String> = page.items.iter().map(name).collect();
        names.extend(page.truncated.then(|| "...".to_owned()));
        names
    }

    #[test]
    fn uploads_fold_as_keys_do_and_their_parts_are_passed_over() {
        let index = uploads(&[
            ("a", 1, 3),
            ("a", 2, 0),
            ("b/1", 1, 2),
            ("b/2", 3, 9),
            ("c", 4, 1),
        ]);
        let names = |delimiter, after, max| upload_names(&index, delimiter, after, max);
        assert_eq!(names("", None, 9), ["a:1", "a:2", "b/1:1", "b/2:3", "c:4"]);
        assert_eq!(names("/", None, 9), ["a:1", "a:2", "<b/>", "c:4"]);
        assert_eq!(names("/", None, 3), ["a:1", "a:2", "<b/>", "..."]);
        assert_eq!(names("/", None, 4), ["a:1", "a:2", "<b/>", "c:4"]);
        assert_eq!(names("/", Some(("b/1", 1)), 9), ["c:4"]);
        assert_eq!(names("", Some(("a", 1)), 2), ["a:2", "b/1:1", "..."]);
        assert_eq!(names("", Some(("a", 0)), 9), ["b/1:1", "b/2:3", "c:4"]);
        assert_eq!(names("", Some(("c", 4)), 9), Vec::<String>::new());
    }

    #[test]
    fn a_marker_before_or_behind_the_prefix_is_clamped() {
        let index = index(&["a/1", "b/1", "c"]);
        assert_eq!(names(&walk(&index, "b", "", Some("a"), 10)), ["b/1"]);
        assert_eq!(names(&walk(&index, "b", "", Some("c"), 10)), Vec::<String>::new());
    }
}
