//! Walking keys in order under a prefix, folding those that share a prefix up to a delimiter.
//!
//! A common prefix costs one seek, however many keys it hides: after it the walk goes on at the first key
//! that does not start with it. The parts of an upload cost one seek as well. The walk compares object keys (unescaped), as S3's listings do.

use super::{EntryRef, Index, MergeCursor, Need, Pages, key};
use std::ops::Bound;

/// Keys that a walk looks at before others of its core get their turn: some 200 us.
const WALK_ENTRIES: usize = 1000;

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

impl<T> Default for KeyPage<T> {
    fn default() -> KeyPage<T> {
        KeyPage {
            items: Vec::new(),
            truncated: false,
        }
    }
}

/// Where a walk goes on.
pub enum Go {
    /// At the next key.
    On,
    /// At the first key that is not less than this one, which lies ahead.
    To(Vec<u8>),
    Stop,
}

/// How far a walk came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Walked {
    /// To the end, or where it was told to stop.
    Ended,
    /// It has looked at many keys, and can go on from there when others had their turn.
    Paused,
}

/// A place in all layers of an index. It stays one while they change: the walk shows what is there when it comes by.
pub struct Cursor {
    /// The least key that was not looked at.
    from: Vec<u8>,
    runs: MergeCursor,
    /// The shape of the index that has these runs.
    shape: Option<u64>,
    /// They stand at the first key from `from` on.
    placed: bool,
}

impl Cursor {
    /// In front of the first key that is not less than `from`.
    pub fn new(from: Vec<u8>) -> Cursor {
        Cursor {
            from,
            runs: MergeCursor::new(&[]),
            shape: None,
            placed: false,
        }
    }

    /// Pages of other runs that the walk which failed last needs as well, to be read at the same time.
    pub fn also_needed(&mut self) -> Vec<Need> {
        self.runs.also_needed()
    }

    fn pass(&mut self, key: &[u8]) {
        self.from.clear();
        self.from.extend_from_slice(key);
        self.from.push(0); // The least key behind it.
    }
}

impl Index {
    /// Shows the entries from the cursor on, in order, until `see` says otherwise. The one at which it stopped is the
    /// next to be shown.
    ///
    /// # Errors
    /// The page of a run that is needed to go on: with it at hand, the call goes on where this one came to.
    pub fn walk(
        &self,
        cursor: &mut Cursor,
        pages: &impl Pages,
        mut see: impl FnMut(&[u8], EntryRef<'_>) -> Go,
    ) -> Result<Walked, Need> {
        let mut looked_at = 0;
        'place: loop {
            if cursor.shape != Some(self.shape) {
                cursor.runs = MergeCursor::new(&self.runs);
                cursor.shape = Some(self.shape);
                cursor.placed = false;
            }
            if !cursor.placed {
                cursor.runs.seek(&cursor.from, pages)?;
                cursor.placed = true;
            }
            let range = (Bound::Included(cursor.from.as_slice()), Bound::Unbounded);
            let mut active = self.active.range::<[u8], _>(range).peekable();
            let mut frozen = self
                .frozen
                .as_ref()
                .map(|frozen| frozen.range::<[u8], _>(range).peekable());
            loop {
                let in_active = active.peek().copied();
                let in_frozen = frozen.as_mut().and_then(|frozen| frozen.peek().copied());
                let in_runs = cursor.runs.item();
                let heads = [
                    in_active.map(|(key, _)| &**key),
                    in_frozen.map(|(key, _)| &**key),
                    in_runs.as_ref().map(|item| item.key),
                ];
                let Some(least) = heads.into_iter().flatten().min() else {
                    return Ok(Walked::Ended);
                };
                let [at_active, at_frozen, at_runs] = heads.map(|head| head == Some(least));
                let entry = if at_active {
                    in_active.and_then(|(_, slot)| slot.entry())
                } else if at_frozen {
                    in_frozen.and_then(|(_, slot)| slot.entry())
                } else {
                    in_runs.as_ref().and_then(|item| {
                        let value = item.value?;
                        Some(EntryRef {
                            sequence: item.sequence,
                            value,
                        })
                    })
                };
                looked_at += 1;
                let is_hidden =
                    || !at_active && !at_frozen && self.shown.as_ref().is_some_and(|shown| !shown(least));
                let go = match entry {
                    Some(entry) if !is_hidden() => see(least, entry),
                    _ => Go::On,
                };
                match go {
                    Go::On => {}
                    Go::Stop => {
                        let from = least.to_vec();
                        cursor.from = from;
                        return Ok(Walked::Ended);
                    }
                    Go::To(ahead) => {
                        cursor.from = ahead;
                        cursor.placed = false;
                        if looked_at >= WALK_ENTRIES {
                            return Ok(Walked::Paused);
                        }
                        continue 'place;
                    }
                }
                if looked_at >= WALK_ENTRIES {
                    let from = least.to_vec();
                    cursor.pass(&from);
                    cursor.placed = false;
                    return Ok(Walked::Paused);
                }
                if at_active {
                    active.next();
                }
                if at_frozen && let Some(frozen) = &mut frozen {
                    frozen.next();
                }
                if at_runs && let Err(need) = cursor.runs.advance(pages) {
                    let from = cursor.runs.item().expect("nothing moved").key.to_vec();
                    drop((active, frozen));
                    cursor.pass(&from);
                    cursor.placed = false;
                    return Err(need);
                }
            }
        }
    }
}

/// Gathers a page of a bucket's objects from a walk; `view` makes what the page holds of each entry.
pub struct ObjectWalker<'w, T, V> {
    bucket: key::BucketId,
    walk: &'w KeyWalk,
    scope: Vec<u8>,
    view: V,
    pub page: KeyPage<T>,
}

impl<'w, T, V: FnMut(EntryRef<'_>) -> T> ObjectWalker<'w, T, V> {
    pub fn new(bucket: key::BucketId, walk: &'w KeyWalk, view: V) -> Self {
        ObjectWalker {
            bucket,
            walk,
            scope: key::object_prefix(bucket, &walk.prefix),
            view,
            page: KeyPage::default(),
        }
    }

    /// Where the walk begins.
    pub fn cursor(&self) -> Cursor {
        Cursor::new(self.walk.first_index_key(&self.scope, self.bucket))
    }

    pub fn see(&mut self, index_key: &[u8], entry: EntryRef<'_>) -> Go {
        if !index_key.starts_with(&self.scope) {
            return Go::Stop;
        }
        let name = key::object_key(index_key);
        let folded = self.walk.common_prefix_of(&name);
        if folded.is_none() && self.walk.after.as_deref().is_some_and(|after| &*name <= after) {
            return Go::On;
        }
        if self.page.items.len() == self.walk.max {
            self.page.truncated = true;
            return Go::Stop;
        }
        let Some(length) = folded else {
            let seen = (self.view)(entry);
            self.page.items.push(WalkItem::Key(name.into_owned(), seen));
            return Go::On;
        };
        let common = name[..length].to_vec();
        let behind = super::successor_of_prefix(&key::object_prefix(self.bucket, &common));
        self.page.items.push(WalkItem::CommonPrefix(common));
        behind.map_or(Go::Stop, Go::To)
    }
}

/// Gathers a page of a bucket's unfinished uploads from a walk, those of a key in the order in which they began.
pub struct UploadWalker<'w, T, V> {
    bucket: key::BucketId,
    walk: &'w UploadWalk,
    scope: Vec<u8>,
    view: V,
    pub page: KeyPage<T>,
}

impl<'w, T, V: FnMut(key::UploadId, EntryRef<'_>) -> T> UploadWalker<'w, T, V> {
    pub fn new(bucket: key::BucketId, walk: &'w UploadWalk, view: V) -> Self {
        UploadWalker {
            bucket,
            walk,
            scope: key::upload_prefix(bucket, &walk.keys.prefix),
            view,
            page: KeyPage::default(),
        }
    }

    /// Where the walk begins.
    pub fn cursor(&self) -> Cursor {
        Cursor::new(self.walk.first_index_key(&self.scope, self.bucket))
    }

    pub fn see(&mut self, index_key: &[u8], entry: EntryRef<'_>) -> Go {
        if !index_key.starts_with(&self.scope) {
            return Go::Stop;
        }
        let hidden = match key::parse(index_key) {
            Some(key::Named::Upload {
                key: name, upload, ..
            }) => {
                let folded = self.walk.keys.common_prefix_of(&name);
                if folded.is_none() && !self.walk.is_behind_marker(&name, upload) {
                    return Go::On;
                }
                if self.page.items.len() == self.walk.keys.max {
                    self.page.truncated = true;
                    return Go::Stop;
                }
                let Some(length) = folded else {
                    let seen = (self.view)(upload, entry);
                    self.page.items.push(WalkItem::Key(name, seen));
                    return Go::On;
                };
                let common = name[..length].to_vec();
                let hidden = key::upload_prefix(self.bucket, &common);
                self.page.items.push(WalkItem::CommonPrefix(common));
                hidden
            }
            // The parts of an upload cost one seek.
            Some(key::Named::Part {
                key: name, upload, ..
            }) => key::upload(self.bucket, &name, upload),
            _ => return Go::On,
        };
        super::successor_of_prefix(&hidden).map_or(Go::Stop, Go::To)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{Entry, Page, PageAddress, Run};
    use key::BucketId;
    use std::rc::Rc;

    struct NoPages;

    impl Pages for NoPages {
        fn page(&self, _: &Run, _: PageAddress) -> Option<Rc<Page>> {
            unreachable!("there is no run")
        }
    }

    fn walk_all(index: &Index, mut cursor: Cursor, mut see: impl FnMut(&[u8], EntryRef<'_>) -> Go) {
        while index
            .walk(&mut cursor, &NoPages, &mut see)
            .expect("there is no run")
            == Walked::Paused
        {}
    }

    fn index(names: &[&str]) -> Index {
        let mut index = Index::default();
        for (sequence, name) in names.iter().enumerate() {
            let entry = Entry {
                sequence: sequence as u64,
                value: Box::default(),
            };
            index.put(&key::object(BucketId(1), name.as_bytes()), entry);
        }
        let other = Entry {
            sequence: 0,
            value: Box::default(),
        };
        index.put(&key::object(BucketId(2), b"other"), other);
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
        let mut walker = ObjectWalker::new(BucketId(1), &walk, |_| ());
        walk_all(index, walker.cursor(), |key, entry| walker.see(key, entry));
        walker.page
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
        let mut walker = UploadWalker::new(BucketId(1), &walk, |id, entry: EntryRef<'_>| {
            assert_eq!(entry.sequence, 0, "a part is no upload");
            id.0[0]
        });
        walk_all(index, walker.cursor(), |key, entry| walker.see(key, entry));
        let page = walker.page;
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
