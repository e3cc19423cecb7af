//! Listings: each core's share in order, and the merge of all shares into one page.
//!
//! Every core returns up to a page of its own keys; the first page of the merged order is then complete,
//! since no core has a key before the last that it sent. A common prefix may come from several cores.

use crate::engine::Machine;
use crate::engine::core::Core;
use crate::engine::entry::{GlanceAt, ListedObject, ListedUpload, Part, Summary, Upload};
use crate::engine::message::{PartPage, Refusal, Reply, Request};
use crate::engine::pages::Held;
use crate::index::key::{self, BucketId, Named, UploadId};
use crate::index::{EntryRef, Go, KeyPage, KeyWalk, ObjectWalker, UploadWalk, UploadWalker, WalkItem};
use std::rc::Rc;

const CHECKED: &str = "the index holds values that were checked";

impl<I: Machine> Core<I> {
    /// A page of a bucket's objects, from all cores.
    pub async fn list_objects(
        self: &Rc<Self>,
        bucket: BucketId,
        walk: KeyWalk,
        glance_at: GlanceAt,
    ) -> Result<KeyPage<ListedObject>, Refusal> {
        let replies = self
            .call_all(|| Request::ListObjects {
                bucket,
                walk: walk.clone(),
                glance_at,
            })
            .await;
        let pages = replies.into_iter().map(|reply| match reply {
            Reply::Objects(page) => page,
            other => unreachable!("a listing is answered by a page, not {other:?}"),
        });
        Ok(merge(pages.collect::<Result<_, _>>()?, walk.max))
    }

    /// A page of a bucket's unfinished uploads, from all cores. Those of one key are all on one core, and stay in order.
    pub async fn list_uploads(
        self: &Rc<Self>,
        bucket: BucketId,
        walk: UploadWalk,
        glance_at: GlanceAt,
    ) -> Result<KeyPage<ListedUpload>, Refusal> {
        let replies = self
            .call_all(|| Request::ListUploads {
                bucket,
                walk: walk.clone(),
                glance_at,
            })
            .await;
        let pages = replies.into_iter().map(|reply| match reply {
            Reply::Uploads(page) => page,
            other => unreachable!("a listing is answered by a page, not {other:?}"),
        });
        Ok(merge(pages.collect::<Result<_, _>>()?, walk.keys.max))
    }

    pub async fn objects_here(
        self: &Rc<Self>,
        bucket: BucketId,
        walk: &KeyWalk,
        glance_at: GlanceAt,
    ) -> Result<KeyPage<ListedObject>, Refusal> {
        let _guard = self.guard();
        let mut walker = ObjectWalker::new(bucket, walk, |entry: EntryRef<'_>| {
            let object = Summary::decode(entry.value).expect(CHECKED);
            ListedObject {
                size: object.size,
                modified_ms: object.modified_ms,
                etag: object.etag,
                glance: glance_at(object.attributes),
            }
        });
        let (mut cursor, held) = (walker.cursor(), Held::ahead(&self.pages));
        self.walk_with(&mut cursor, &held, |key, entry| walker.see(key, entry))
            .await?;
        Ok(walker.page)
    }

    pub async fn uploads_here(
        self: &Rc<Self>,
        bucket: BucketId,
        walk: &UploadWalk,
        glance_at: GlanceAt,
    ) -> Result<KeyPage<ListedUpload>, Refusal> {
        let _guard = self.guard();
        let mut walker = UploadWalker::new(bucket, walk, |id, entry: EntryRef<'_>| {
            let upload = Upload::decode(entry.value).expect(CHECKED);
            ListedUpload {
                id,
                initiated_ms: upload.initiated_ms,
                glance: glance_at(&upload.attributes),
            }
        });
        let (mut cursor, held) = (walker.cursor(), Held::ahead(&self.pages));
        self.walk_with(&mut cursor, &held, |key, entry| walker.see(key, entry))
            .await?;
        Ok(walker.page)
    }

    pub async fn parts_here(
        self: &Rc<Self>,
        bucket: BucketId,
        object_key: &[u8],
        upload: UploadId,
        after: u16,
        max: usize,
    ) -> Result<PartPage, Refusal> {
        let _guard = self.guard();
        let scope = key::upload(bucket, object_key, upload);
        let entry = self
            .find_entry(&scope)
            .await?
            .ok_or(self.not_found(Refusal::NoSuchUpload))?;
        let mut page = PartPage {
            upload: Upload::decode(&entry.value).expect(CHECKED),
            parts: Vec::new(),
            truncated: false,
        };
        let from = key::part(bucket, object_key, upload, after.saturating_add(1));
        self.walk_index(from, |index_key, entry| {
            if !index_key.starts_with(&scope) {
                return Go::Stop;
            }
            let Some(Named::Part { number, .. }) = key::parse(index_key) else {
                return Go::On;
            };
            if page.parts.len() == max {
                page.truncated = true;
                return Go::Stop;
            }
            let part = Part::decode(entry.value).expect(CHECKED);
            page.parts.push((number, entry.sequence, part));
            Go::On
        })
        .await?;
        // It may have ended meanwhile, and taken parts along that are missing here.
        match self.find_entry(&scope).await? {
            Some(_) => Ok(page),
            None => Err(Refusal::NoSuchUpload),
        }
    }
}

/// The first `max` items of all pages in order; equal common prefixes are one.
fn merge<T>(pages: Vec<KeyPage<T>>, max: usize) -> KeyPage<T> {
    let mut truncated = pages.iter().any(|page| page.truncated);
    let mut sources: Vec<_> = pages
        .into_iter()
        .map(|page| page.items.into_iter().peekable())
        .collect();
    let mut items: Vec<WalkItem<T>> = Vec::new();
    loop {
        let heads = sources
            .iter_mut()
            .enumerate()
            .filter_map(|(at, source)| Some((source.peek()?.name(), at)));
        let Some((_, at)) = heads.min() else { break };
        let item = sources[at].next().expect("peeked");
        if let (WalkItem::CommonPrefix(name), Some(WalkItem::CommonPrefix(last))) = (&item, items.last())
            && name == last
        {
            continue;
        }
        if items.len() == max {
            truncated = true;
            break;
        }
        items.push(item);
    }
    KeyPage { items, truncated }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(names: &[&str], truncated: bool) -> KeyPage<()> {
        let item = |name: &&str| match name.strip_suffix('/') {
            Some(_) => WalkItem::CommonPrefix(name.as_bytes().to_vec()),
            None => WalkItem::Key(name.as_bytes().to_vec(), ()),
        };
        KeyPage {
            items: names.iter().map(item).collect(),
            truncated,
        }
    }

    #[test]
    fn pages_of_cores_become_one_in_order() {
        let merged = merge(
            vec![page(&["a", "c/", "d"], false), page(&["b", "c/", "e"], false)],
            10,
        );
        assert_eq!(merged, page(&["a", "b", "c/", "d", "e"], false));
    }

    #[test]
    fn what_does_not_fit_makes_the_page_truncated() {
        assert_eq!(
            merge(vec![page(&["a"], false), page(&["b"], false)], 1),
            page(&["a"], true)
        );
        assert_eq!(
            merge(vec![page(&["c/"], false), page(&["c/"], false)], 1),
            page(&["c/"], false)
        );
        assert_eq!(
            merge(vec![page(&["a"], true), page(&[], false)], 1),
            page(&["a"], true)
        );
    }
}
