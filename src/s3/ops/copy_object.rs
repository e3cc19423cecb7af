//! CopyObject and UploadPartCopy (S3 API reference, by those names).
//!
//! Bytes are read from their extents and written to new ones, as a GET and a PUT would, on this core. Changing
//! only the metadata of an object copies nothing: the new version keeps the extents of the old.

use crate::engine::{BucketId, FoundObject, Machine, Refusal, StoredBody};
use crate::limits::PUT_BYTES_MAX;
use crate::s3::checksum::headers::UploadChecksum;
use crate::s3::checksum::{Algorithm, Checksum, ChecksumType, Hasher};
use crate::s3::conditions::{ETag, ReadConditions, WriteCondition};
use crate::s3::error::{ErrorCode, S3Error, S3Result};
use crate::s3::md5::Md5;
use crate::s3::metadata::Attributes;
use crate::s3::names::CopySource;
use crate::s3::ops::put_object::condition_error;
use crate::s3::ops::upload_part::PartName;
use crate::s3::range::{self, Resolved};
use crate::s3::refusal::{engine_condition, engine_etag, etag};
use crate::s3::request::{KeyHeaders, ObjectName, Request};
use crate::s3::service::{Response, Service};
use crate::s3::xml::responses;
use std::ops::Range;

/// How often a change of metadata starts again because the object changed under it.
const ATTEMPTS_MAX: usize = 5;

pub async fn copy_object<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    name: ObjectName<'_>,
) -> S3Result<Response<I>> {
    let bucket = service.bucket(name.bucket)?.id;
    request.refuse_unbuilt()?;
    let condition = WriteCondition::from_headers(request.fields())?;
    let replace = is_replace(request)?;
    let source = read_source(request)?;
    let onto_itself = source.bucket == *name.bucket && source.key == *name.key;
    for _ in 0..ATTEMPTS_MAX {
        let found = find_source(service, request, &source).await?;
        let old = Attributes::decode(&found.object.attributes).expect("attributes are stored as encoded");
        let mut attributes = new_attributes(request, &old, replace)?;
        if onto_itself && !replace && !names_a_change(request) {
            return Err(S3Error::invalid_request(
                "This copy request is illegal because it is trying to copy an object to itself without changing \
                 the object's metadata, storage class, website redirect location or encryption attributes.",
            ));
        }
        let wanted = wanted_checksum(request, &old)?;
        let has_wanted = old.checksum.is_some_and(|checksum| is_kept(&checksum, wanted));
        let (tag, stored) = if onto_itself && (wanted.is_none() || has_wanted) {
            attributes.checksum = old.checksum;
            let kept = (etag(found.object.etag), service.engine.keep_body(found.version));
            // Whoever waits for room must not keep any from being reused.
            drop(found);
            kept
        } else {
            let size = found.object.size;
            let copied = copy_bytes(service, found, 0..size, wanted).await?;
            attributes.checksum = copied.checksum;
            (
                ETag {
                    md5: copied.md5,
                    parts: 0,
                },
                copied.stored,
            )
        };
        let checksum = attributes.checksum;
        let key = name.key.as_bytes();
        let committed = service
            .engine
            .put(
                bucket,
                key,
                engine_etag(tag),
                attributes.encode(),
                stored,
                engine_condition(condition),
            )
            .await;
        match committed {
            Ok(outcome) => {
                let mut out = Vec::new();
                responses::copy_object(&mut out, tag, outcome.modified_ms, checksum.as_ref());
                return Ok(Response::xml(200, out));
            }
            Err(Refusal::Stale) => {}
            Err(refusal) => return Err(condition_error(refusal.into(), condition, name)),
        }
    }
    Err(S3Error::new(ErrorCode::ConditionalRequestConflict))
}

pub async fn upload_part_copy<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    name: ObjectName<'_>,
) -> S3Result<Response<I>> {
    let bucket = service.bucket(name.bucket)?.id;
    let part = PartName::read(request)?;
    request.refuse_unbuilt()?;
    request.refuse_conditions()?;
    let announced = part.announced(service, bucket, name).await?;
    let source = read_source(request)?;
    let found = find_source(service, request, &source).await?;
    let size = found.object.size;
    let range = match request.field("x-amz-copy-source-range") {
        Some(header) => {
            let Resolved { start, length } = range::parse_copy_source(header, size)?;
            start..start + length
        }
        None => 0..size,
    };
    let wanted = announced.map(|UploadChecksum { algorithm, .. }| algorithm);
    let copied = copy_bytes(service, found, range, wanted).await?;
    let attributes = Attributes::of_part(copied.checksum).encode();
    let key = name.key.as_bytes();
    let outcome = service
        .engine
        .put_part(
            bucket,
            key,
            part.upload,
            part.number,
            copied.md5,
            attributes,
            copied.stored,
        )
        .await?;
    let mut out = Vec::new();
    let tag = ETag {
        md5: copied.md5,
        parts: 0,
    };
    responses::copy_part(&mut out, tag, outcome.modified_ms, copied.checksum.as_ref());
    Ok(Response::xml(200, out))
}

/// `x-amz-metadata-directive`.
fn is_replace(request: &Request<'_>) -> S3Result<bool> {
    match request.field("x-amz-metadata-directive") {
        None | Some(b"" | b"COPY") => Ok(false),
        Some(b"REPLACE") => Ok(true),
        Some(other) => Err(S3Error::invalid_argument(
            "Unknown metadata directive.",
            "x-amz-metadata-directive",
            &String::from_utf8_lossy(other),
        )),
    }
}

fn read_source(request: &Request<'_>) -> S3Result<CopySource> {
    let source = CopySource::parse(request.field("x-amz-copy-source").unwrap_or(b""))?;
    match source.version_id.as_deref() {
        None | Some("null") => Ok(source),
        Some(version) => Err(S3Error::new(ErrorCode::NoSuchVersion).detail("VersionId", version)),
    }
}

async fn find_source<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    source: &CopySource,
) -> S3Result<FoundObject<I>> {
    let bucket: BucketId = service.bucket(&source.bucket)?.id;
    let name = ObjectName {
        bucket: &source.bucket,
        key: &source.key,
    };
    let found = service
        .engine
        .get(bucket, source.key.as_bytes())
        .await
        .map_err(|refusal| name.lookup_error(refusal))?;
    request.refuse_customer_key(KeyHeaders::CopySource)?;
    ReadConditions::from_copy_headers(request.fields()).evaluate_copy(
        &etag(found.object.etag),
        found.object.modified_ms,
        service.engine.io().unix_ms(),
    )?;
    Ok(found)
}

/// Whether the request names what a copy may change of an object without replacing its metadata. That it names
/// what is there already does not matter.
fn names_a_change(request: &Request<'_>) -> bool {
    let changes = ["x-amz-storage-class", "x-amz-website-redirect-location"];
    changes.into_iter().any(|name| request.field(name).is_some())
}

/// With COPY the source's attributes, but for a storage class or redirect that the request names.
fn new_attributes(request: &Request<'_>, old: &Attributes, replace: bool) -> S3Result<Attributes> {
    let asked = Attributes::from_headers(request.fields())?;
    if replace {
        return Ok(asked);
    }
    let mut kept = old.clone();
    kept.checksum = None;
    if request.field("x-amz-storage-class").is_some() {
        kept.storage_class = asked.storage_class;
    }
    let redirect = crate::s3::metadata::Field::WebsiteRedirectLocation;
    kept.set(redirect, asked.get(redirect).unwrap_or(b""))?;
    Ok(kept)
}

/// The checksum that the copy is to have: the one asked for, or the source's algorithm.
fn wanted_checksum(request: &Request<'_>, old: &Attributes) -> S3Result<Option<Algorithm>> {
    let asked = UploadChecksum::from_headers(request.fields())?;
    Ok(asked
        .map(|asked| asked.algorithm)
        .or(old.checksum.map(|checksum| checksum.algorithm)))
}

fn is_kept(checksum: &Checksum, wanted: Option<Algorithm>) -> bool {
    Some(checksum.algorithm) == wanted && checksum.kind == ChecksumType::FullObject
}

/// A stretch of an object, stored again.
struct Copied<I: Machine> {
    md5: [u8; 16],
    checksum: Option<Checksum>,
    stored: StoredBody<I>,
}

async fn copy_bytes<I: Machine>(
    service: &Service<I>,
    found: FoundObject<I>,
    range: Range<u64>,
    wanted: Option<Algorithm>,
) -> S3Result<Copied<I>> {
    let length = range.end - range.start;
    if length > PUT_BYTES_MAX {
        return Err(S3Error::invalid_request(format!(
            "The specified copy source is larger than the maximum allowable size for a copy source: {PUT_BYTES_MAX}"
        )));
    }
    let mut reader = found.read_to_copy(range).await?;
    let mut writer = service.engine.receive_body(Some(length));
    let mut md5 = Md5::new();
    let mut hasher = wanted.map(Hasher::new);
    while let Some(piece) = reader.next().await? {
        for slice in piece.slices() {
            md5.update(slice);
            if let Some(hasher) = &mut hasher {
                hasher.update(slice);
            }
            let mut rest = slice;
            while !rest.is_empty() {
                let space = writer.space().await?;
                let count = space.len().min(rest.len());
                space[..count].copy_from_slice(&rest[..count]);
                writer.advance(count);
                rest = &rest[count..];
            }
        }
    }
    let checksum = wanted
        .zip(hasher)
        .map(|(algorithm, hasher)| Checksum::of_body(algorithm, hasher.finish()));
    Ok(Copied {
        md5: md5.finish(),
        checksum,
        stored: writer.finish().await?,
    })
}
