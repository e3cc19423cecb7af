//! Listings: each core's share in order, and the merge of all shares into one page.
//!
//! Every core returns up to a page of its own keys; the first page of the merged order is then complete,
//! since no core has a key before the last that it sent. A common prefix may come from several cores.

use crate::engine::Machine;
use crate::engine::core::Core;
use crate::engine::entry::{Part, Summary, Upload};
use crate::engine::message::{PartPage, Refusal, Reply, Request, UploadPage, UploadWalk};
use crate::index::key::{self, BucketId, Named, UploadId};
use crate::index::{KeyPage, KeyWalk, WalkItem};
use std::rc::Rc;

const CHECKED: &str = "the index holds values that were checked";

impl<I: Machine> Core<I> {
    /// A page of a bucket's objects, from all cores.
    pub async fn list_objects(self: &Rc<Self>, bucket: BucketId, walk: KeyWalk) -> KeyPage<Summary> {
        let replies = self
            .call_all(|| Request::ListObjects {
                bucket,
                walk: walk.clone(),
            })
            .await;
        let pages = replies.into_iter().map(|reply| match reply {
            Reply::Objects(page) => page,
            other => unreachable!("a listing is answered by a page, not {other:?}"),
        });
        merge(pages.collect(), walk.max)
    }

    /// A page of a bucket's unfinished uploads, from all cores.
    pub async fn list_uploads(self: &Rc<Self>, bucket: BucketId, walk: UploadWalk) -> UploadPage {
        let replies = self
            .call_all(|| Request::ListUploads {
                bucket,
                walk: walk.clone(),
            })
            .await;
        let mut merged = UploadPage {
            uploads: Vec::new(),
            truncated: false,
        };
        for reply in replies {
            let Reply::Uploads(page) = reply else {
                unreachable!("a listing is answered by a page")
            };
            merged.truncated |= page.truncated;
            merged.uploads.extend(page.uploads);
        }
        merged
            .uploads
            .sort_by(|(a_key, a_id, _), (b_key, b_id, _)| (a_key, a_id).cmp(&(b_key, b_id)));
        merged.truncated |= merged.uploads.len() > walk.max;
        merged.uploads.truncate(walk.max);
        merged
    }

    pub fn objects_here(&self, bucket: BucketId, walk: &KeyWalk) -> KeyPage<Summary> {
        let index = self.index.borrow();
        index.walk_objects(bucket, walk, |entry| {
            Summary::decode(&entry.value).expect(CHECKED)
        })
    }

    pub fn uploads_here(&self, bucket: BucketId, walk: &UploadWalk) -> UploadPage {
        let scope = key::upload_prefix(bucket, &walk.prefix);
        let from = match &walk.after_key {
            Some(key) => {
                key::upload(bucket, key, walk.after_upload.unwrap_or(UploadId([0; 16]))).max(scope.clone())
            }
            None => scope.clone(),
        };
        let mut page = UploadPage {
            uploads: Vec::new(),
            truncated: false,
        };
        let index = self.index.borrow();
        for (index_key, entry) in index.range_from(&from) {
            if !index_key.starts_with(&scope) {
                break;
            }
            let Some(Named::Upload { key, upload, .. }) = key::parse(index_key) else {
                continue;
            };
            if !walk.is_after(&key, upload) {
                continue;
            }
            if page.uploads.len() == walk.max {
                page.truncated = true;
                break;
            }
            page.uploads
                .push((key, upload, Upload::decode(&entry.value).expect(CHECKED)));
        }
        page
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

impl UploadWalk {
    fn is_after(&self, key: &[u8], upload: UploadId) -> bool {
        match (&self.after_key, self.after_upload) {
            (None, _) => true,
            (Some(after), None) => key > after.as_slice(),
            (Some(after), Some(after_upload)) => (key, upload) > (after.as_slice(), after_upload),
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
