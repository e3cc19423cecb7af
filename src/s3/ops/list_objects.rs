//! ListObjects, ListObjectsV2, and ListObjectVersions on buckets that never had versions (S3 API reference,
//! by those names). Order is that of the keys' UTF-8 bytes.

use crate::engine::{Bucket, KeyPage, KeyWalk, ListedObject, Machine, WalkItem};
use crate::s3::error::{S3Error, S3Result};
use crate::s3::metadata::Shown;
use crate::s3::names::BucketName;
use crate::s3::ops::continuation_token::{self, Scope};
use crate::s3::ops::{glance_at, hold_page};
use crate::s3::refusal::etag;
use crate::s3::request::Request;
use crate::s3::service::{Response, Service};
use crate::s3::xml::responses::{self, KeyEncoding, ListPage, ListV2, ListVersions, ObjectView, Owner};

pub async fn list_objects_v2<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    name: &BucketName,
) -> S3Result<Response<I>> {
    let bucket = service.bucket(name)?;
    let scope = Scope::Objects(bucket.id.0);
    let token = request.query.get("continuation-token");
    let start_after = request.query.get("start-after").map(str::as_bytes);
    let after = match token {
        Some("") => {
            let message = "The continuation token provided is incorrect";
            return Err(S3Error::invalid_argument(message, "continuation-token", ""));
        }
        Some(token) => Some(continuation_token::open(&service.token_key, scope, token)?),
        None => start_after.map(<[u8]>::to_vec),
    };
    let listing = Listing::read(request)?;
    let _held = hold_page(service, listing.max).await?;
    let page = listing.walk(service, &bucket, after).await?;
    let next = page.items.last().filter(|_| page.truncated);
    let next = next.map(|last| continuation_token::seal(&service.token_key, scope, last.name()));
    let fetch_owner = request.query.get("fetch-owner") == Some("true");
    let owner = service.owner(&bucket);
    let head = listing.head(name, &page, fetch_owner.then(|| owner.as_owner()));
    let v2 = ListV2 {
        key_count: page.items.len(),
        continuation_token: token.map(str::as_bytes),
        next_continuation_token: next.as_deref(),
        start_after: start_after.filter(|_| token.is_none()),
    };
    let mut out = Vec::with_capacity(512 + 320 * page.items.len());
    responses::list_objects_v2(&mut out, &head, &v2, objects(&page), prefixes(&page));
    Ok(Response::xml(200, out))
}

pub async fn list_objects_v1<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    name: &BucketName,
) -> S3Result<Response<I>> {
    let bucket = service.bucket(name)?;
    let listing = Listing::read(request)?;
    let _held = hold_page(service, listing.max).await?;
    let marker = request.query.get("marker").unwrap_or("").as_bytes();
    let page = listing.walk(service, &bucket, some_text(marker)).await?;
    let owner = service.owner(&bucket);
    let head = listing.head(name, &page, Some(owner.as_owner()));
    let next = page
        .items
        .last()
        .filter(|_| page.truncated && !listing.delimiter.is_empty());
    let mut out = Vec::with_capacity(512 + 400 * page.items.len());
    let next = next.map(WalkItem::name);
    responses::list_objects_v1(&mut out, &head, marker, next, objects(&page), prefixes(&page));
    Ok(Response::xml(200, out))
}

pub async fn list_versions<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    name: &BucketName,
) -> S3Result<Response<I>> {
    let bucket = service.bucket(name)?;
    let listing = Listing::read(request)?;
    let _held = hold_page(service, listing.max).await?;
    let key_marker = request.query.get("key-marker").unwrap_or("").as_bytes();
    let version_id_marker = request.query.get("version-id-marker").unwrap_or("").as_bytes();
    if key_marker.is_empty() && !version_id_marker.is_empty() {
        let message = "A version-id marker cannot be specified without a key marker.";
        return Err(S3Error::invalid_argument(message, "version-id-marker", ""));
    }
    let page = listing.walk(service, &bucket, some_text(key_marker)).await?;
    let owner = service.owner(&bucket);
    let head = listing.head(name, &page, Some(owner.as_owner()));
    let next = page.items.last().filter(|_| page.truncated);
    let versions = ListVersions {
        key_marker,
        version_id_marker,
        next_key_marker: next.map(WalkItem::name),
        next_version_id_marker: next.and_then(|next| matches!(next, WalkItem::Key(..)).then_some("null")),
    };
    let mut out = Vec::with_capacity(512 + 460 * page.items.len());
    responses::list_versions(&mut out, &head, &versions, objects(&page), prefixes(&page));
    Ok(Response::xml(200, out))
}

/// What all listings ask for.
struct Listing<'a> {
    prefix: &'a [u8],
    delimiter: &'a [u8],
    encoding: KeyEncoding,
    max: usize,
}

impl<'a> Listing<'a> {
    fn read(request: &Request<'a>) -> S3Result<Listing<'a>> {
        Ok(Listing {
            prefix: request.query.get("prefix").unwrap_or("").as_bytes(),
            delimiter: request.query.get("delimiter").unwrap_or("").as_bytes(),
            encoding: key_encoding(request)?,
            max: request.page_size("max-keys")?,
        })
    }

    async fn walk<I: Machine>(
        &self,
        service: &Service<I>,
        bucket: &Bucket,
        after: Option<Vec<u8>>,
    ) -> S3Result<KeyPage<ListedObject>> {
        if self.max == 0 {
            return Ok(KeyPage::default());
        }
        let walk = KeyWalk {
            prefix: self.prefix.to_vec(),
            delimiter: self.delimiter.to_vec(),
            after,
            max: self.max,
        };
        Ok(service.engine.list_objects(bucket.id, walk, glance_at).await?)
    }

    fn head(
        &self,
        bucket: &'a BucketName,
        page: &KeyPage<ListedObject>,
        owner: Option<Owner<'a>>,
    ) -> ListPage<'a> {
        ListPage {
            bucket: bucket.as_str(),
            prefix: self.prefix,
            delimiter: self.delimiter,
            max_keys: self.max,
            encoding: self.encoding,
            truncated: page.truncated,
            owner,
        }
    }
}

/// `encoding-type`.
///
/// Errors: `InvalidArgument`.
pub fn key_encoding(request: &Request<'_>) -> S3Result<KeyEncoding> {
    match request.query.get("encoding-type") {
        None => Ok(KeyEncoding::Xml),
        Some("url") => Ok(KeyEncoding::Url),
        Some(other) => Err(S3Error::invalid_argument(
            "Invalid Encoding Method specified in Request",
            "encoding-type",
            other,
        )),
    }
}

fn some_text(marker: &[u8]) -> Option<Vec<u8>> {
    (!marker.is_empty()).then(|| marker.to_vec())
}

fn objects(page: &KeyPage<ListedObject>) -> impl Iterator<Item = ObjectView<'_>> {
    page.items.iter().filter_map(|item| match item {
        WalkItem::CommonPrefix(_) => None,
        WalkItem::Key(key, object) => {
            let shown = Shown::of(object.glance);
            Some(ObjectView {
                key,
                modified_unix_ms: object.modified_ms,
                etag: etag(object.etag),
                size: object.size,
                storage_class: shown.storage_class.as_str(),
                checksum: shown.checksum,
            })
        }
    })
}

/// The common prefixes of a page.
pub fn prefixes<T>(page: &KeyPage<T>) -> impl Iterator<Item = &[u8]> {
    page.items.iter().filter_map(|item| match item {
        WalkItem::CommonPrefix(prefix) => Some(prefix.as_slice()),
        WalkItem::Key(..) => None,
    })
}
