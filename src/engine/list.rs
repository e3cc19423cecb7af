//! Listings: each core's share in order, and the merge of all shares into one page.
//!
//! Every core returns up to a page of its own keys; the first page of the merged order is then complete,
//! since no core has a key before the last that it sent. A common prefix may come from several cores.

use crate::engine::Machine;
use crate::engine::core::Core;
use crate::engine::entry::{GlanceAt, ListedObject, ListedUpload, Part, Summary, Upload};
use crate::engine::message::{PartPage, Refusal, Reply, Request};
use crate::index::key::{self, BucketId, Named, UploadId};
use crate::index::{KeyPage, KeyWalk, UploadWalk, WalkItem};
use std::rc::Rc;

const CHECKED: &str = "the index holds values that were checked";

impl<I: Machine> Core<I> {
    /// A page of a bucket's objects, from all cores.
    pub async fn list_objects(
        self: &Rc<Self>,
        bucket: BucketId,
        walk: KeyWalk,
        glance_at: GlanceAt,
    ) -> KeyPage<ListedObject> {
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
        merge(pages.collect(), walk.max)
    }

    /// A page of a bucket's unfinished uploads, from all cores. Those of one key are all on one core, and stay in order.
    pub async fn list_uploads(
        self: &Rc<Self>,
        bucket: BucketId,
        walk: UploadWalk,
        glance_at: GlanceAt,
    ) -> KeyPage<ListedUpload> {
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
        merge(pages.collect(), walk.keys.max)
    }

    pub fn objects_here(
        &self,
        bucket: BucketId,
        walk: &KeyWalk,
        glance_at: GlanceAt,
    ) -> KeyPage<ListedObject> {
        let index = self.index.borrow();
        index.walk_objects(bucket, walk, |entry| {
            let object = Summary::decode(&entry.value).expect(CHECKED);
            ListedObject {
                size: object.size,
                modified_ms: object.modified_ms,
                etag: object.etag,
                glance: glance_at(object.attributes),
            }
        })
    }

    pub fn uploads_here(
        &self,
        bucket: BucketId,
        walk: &UploadWalk,
        glance_at: GlanceAt,
    ) -> KeyPage<ListedUpload> {
        let index = self.index.borrow();
        index.walk_uploads(bucket, walk, |id, entry| {
            let upload = Upload::decode(&entry.value).expect(CHECKED);
            ListedUpload {
                id,
                initiated_ms: upload.initiated_ms,
                glance: glance_at(&upload.attributes),
            }
        })
    }

    pub fn parts_here(
        &self,
        bucket: BucketId,
        object_key: &[u8],
        upload: UploadId,
        after: u16,
        max: usize,
    ) -> Result<PartPage, Refusal> {
        let scope = key::upload(bucket, object_key, upload);
        let index = self.index.borrow();
        let entry = index.get(&scope).ok_or(Refusal::NoSuchUpload)?;
        let upload_value = Upload::decode(&entry.value).expect(CHECKED);
        let mut page = PartPage {
            upload: upload_value,
            parts: Vec::new(),
            truncated: false,
        };
        let from = key::part(bucket, object_key, upload, after.saturating_add(1));
        for (index_key, entry) in index.range_from(&from) {
            if !index_key.starts_with(&scope) {
                break;
            }
            let Some(Named::Part { number, .. }) = key::parse(index_key) else {
                continue;
            };
            if page.parts.len() == max {
                page.truncated = true;
                break;
            }
            page.parts
                .push((number, entry.sequence, Part::decode(&entry.value).expect(CHECKED)));
        }
        Ok(page)
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
