//! CompleteMultipartUpload (S3 API reference, "CompleteMultipartUpload").
//!
//! Nothing is copied: one commit record lists the extents of the parts. The parts are read and checked here;
//! their owner then makes the object only if none of them has changed meanwhile. Completing again what was
//! completed answers as the first time.

use crate::engine::{BucketId, Completion, Machine, Part, PartPage, Refusal, UploadId};
use crate::limits::{OBJECT_BYTES_MAX, PART_BYTES_MIN, PARTS_MAX, XML_BODY_BYTES_MAX};
use crate::s3::checksum::headers::CompleteChecksum;
use crate::s3::checksum::{Checksum, ChecksumType};
use crate::s3::conditions::{ETag, WriteCondition};
use crate::s3::error::{ErrorCode, S3Error, S3Result};
use crate::s3::md5::Md5;
use crate::s3::metadata::Attributes;
use crate::s3::ops::put_object::{condition_error, refuse_early};
use crate::s3::ops::{read_document, upload_id, view};
use crate::s3::payload::{Collected, Payload};
use crate::s3::refusal::{engine_condition, engine_etag, etag};
use crate::s3::request::{ObjectName, Request, number};
use crate::s3::service::{Receive, Response, Service};
use crate::s3::xml::requests::{CompletedPart, CompletionDocument};
use crate::s3::xml::responses;

/// How often a completion starts again because a part changed under it.
const ATTEMPTS_MAX: usize = 5;

pub async fn complete_upload<I: Machine, R: Receive>(
    service: &Service<I>,
    request: &mut Request<'_>,
    name: ObjectName<'_>,
    body: &mut R,
) -> S3Result<Response<I>> {
    let bucket = service.bucket(name.bucket)?.id;
    let upload = upload_id::parse(request.query.get("uploadId").unwrap_or(""))?;
    let condition = WriteCondition::from_headers(request.fields())?;
    let promised = CompleteChecksum::from_headers(request.fields())?;
    let size = object_size(request)?;
    let xml = read_body(service, request, body).await?;
    let listed = read_document::<_, CompletionDocument>(service, &xml).await?;
    refuse_early(service, bucket, name, condition).await?;

    for _ in 0..ATTEMPTS_MAX {
        let page = match parts_of(service, bucket, name, upload).await {
            Ok(page) => page,
            Err(Refusal::NoSuchUpload) => return completed_before(service, bucket, name, upload).await,
            Err(refusal) => return Err(refusal.into()),
        };
        let assembled = assemble(&page, &listed, &promised, size)?;
        let checksum = assembled.checksum;
        let tag = assembled.etag;
        let completion = Completion {
            etag: engine_etag(tag),
            attributes: assembled.attributes.encode(),
            parts: assembled.parts,
        };
        let key = name.key.as_bytes();
        let completed = service
            .engine
            .complete_upload(bucket, key, upload, completion, engine_condition(condition))
            .await;
        match completed {
            Ok(_) => return Ok(answer(name, tag, checksum.as_ref())),
            Err(Refusal::Stale) => {}
            Err(Refusal::NoSuchUpload) => return completed_before(service, bucket, name, upload).await,
            Err(refusal) => return Err(condition_error(refusal.into(), condition, name)),
        }
    }
    Err(S3Error::new(ErrorCode::ConditionalRequestConflict))
}

async fn read_body<I: Machine, R: Receive>(
    service: &Service<I>,
    request: &mut Request<'_>,
    body: &mut R,
) -> S3Result<Collected<I>> {
    // The checksum headers of this request are about the object, not about the XML.
    let mut payload = Payload::open_without_checksum(&service.lanes, request, body)?;
    let xml = payload.collect(&service.engine, XML_BODY_BYTES_MAX).await?;
    payload.finish()?;
    Ok(xml)
}

async fn parts_of<I: Machine>(
    service: &Service<I>,
    bucket: BucketId,
    name: ObjectName<'_>,
    upload: UploadId,
) -> Result<PartPage, Refusal> {
    service
        .engine
        .list_parts(bucket, name.key.as_bytes(), upload, 0, PARTS_MAX as usize)
        .await
}

/// `x-amz-mp-object-size`.
fn object_size(request: &Request<'_>) -> S3Result<Option<u64>> {
    let Some(text) = request.field("x-amz-mp-object-size") else {
        return Ok(None);
    };
    let invalid = || S3Error::invalid_request("Value for x-amz-mp-object-size header is invalid.");
    number(text).map(Some).ok_or_else(invalid)
}

/// An object made of parts, ready to be committed.
struct Assembled {
    etag: ETag,
    checksum: Option<Checksum>,
    attributes: Attributes,
    parts: Vec<(u16, u64)>,
}

/// Checks the client's list against the parts that are there.
fn assemble(
    page: &PartPage,
    listed: &[CompletedPart],
    promised: &CompleteChecksum,
    size: Option<u64>,
) -> S3Result<Assembled> {
    let mut chosen: Vec<(u16, u64, &Part)> = Vec::with_capacity(listed.len());
    for part in listed {
        let number = u16::try_from(part.number)
            .ok()
            .filter(|number| (1..=PARTS_MAX).contains(number));
        let number = number.ok_or_else(|| invalid_part(part))?;
        if chosen.last().is_some_and(|&(last, ..)| last >= number) {
            return Err(S3Error::new(ErrorCode::InvalidPartOrder));
        }
        let at = page
            .parts
            .binary_search_by_key(&number, |&(number, ..)| number)
            .map_err(|_| invalid_part(part))?;
        let (_, sequence, stored) = &page.parts[at];
        check_part(part, stored)?;
        chosen.push((number, *sequence, stored));
    }
    if let Some((_, small)) = chosen.split_last()
        && let Some((number, _, part)) = small.iter().find(|(.., part)| part.size < PART_BYTES_MIN)
    {
        return Err(S3Error::new(ErrorCode::EntityTooSmall)
            .detail("ProposedSize", part.size.to_string())
            .detail("MinSizeAllowed", PART_BYTES_MIN.to_string())
            .detail("PartNumber", number.to_string()));
    }
    let total: u64 = chosen.iter().map(|(.., part)| part.size).sum();
    if total > OBJECT_BYTES_MAX {
        return Err(S3Error::new(ErrorCode::EntityTooLarge));
    }
    if size.is_some_and(|size| size != total) {
        return Err(S3Error::invalid_request(
            "The provided 'x-amz-mp-object-size' header does not match what was computed.",
        ));
    }
    let mut md5 = Md5::new();
    chosen.iter().for_each(|(.., part)| md5.update(&part.md5));
    check_named(&page.upload.attributes, listed)?;
    let mut attributes =
        Attributes::decode(&page.upload.attributes).expect("attributes are stored as encoded");
    let checksum = join_checksums(&mut attributes, &chosen)?;
    if let Some(checksum) = &checksum {
        promised.check(checksum)?;
    }
    Ok(Assembled {
        etag: ETag {
            md5: md5.finish(),
            parts: chosen.len() as u16,
        },
        checksum,
        attributes,
        parts: chosen
            .into_iter()
            .map(|(number, sequence, _)| (number, sequence))
            .collect(),
    })
}

/// The client must name the part's tag, and its checksum if it names one.
fn check_part(listed: &CompletedPart, stored: &Part) -> S3Result<()> {
    if ETag::parse(listed.etag.as_bytes())
        != Some(ETag {
            md5: stored.md5,
            parts: 0,
        })
    {
        return Err(invalid_part(listed));
    }
    let checksum = view(&stored.attributes).checksum;
    for (algorithm, text) in &listed.checksums {
        let digest = algorithm
            .parse_digest(text.as_bytes())
            .ok_or_else(|| invalid_part(listed))?;
        if checksum.is_none_or(|checksum| checksum.algorithm != *algorithm || checksum.digest != digest) {
            return Err(invalid_part(listed));
        }
    }
    Ok(())
}

/// A composite checksum is made of the parts' own, so the client must name each.
fn check_named(attributes: &[u8], listed: &[CompletedPart]) -> S3Result<()> {
    let Some(announced) = view(attributes).upload_checksum else {
        return Ok(());
    };
    if announced.kind == ChecksumType::FullObject {
        return Ok(());
    }
    match listed.iter().find(|part| part.checksums.is_empty()) {
        None => Ok(()),
        Some(part) => Err(S3Error::invalid_request(format!(
            "The upload was created using a {} checksum. The complete request must include the checksum for each part. \
             It was missing for part {} in the request.",
            announced.algorithm.name().to_ascii_lowercase(),
            part.number
        ))),
    }
}

/// The object's checksum, if the upload announced one.
fn join_checksums(attributes: &mut Attributes, chosen: &[(u16, u64, &Part)]) -> S3Result<Option<Checksum>> {
    let Some(announced) = attributes.upload_checksum.take() else {
        return Ok(None);
    };
    let digests: Option<Vec<_>> = chosen
        .iter()
        .map(|(.., part)| {
            let checksum = view(&part.attributes).checksum;
            let checksum = checksum.filter(|checksum| checksum.algorithm == announced.algorithm)?;
            Some((checksum.digest, part.size))
        })
        .collect();
    let joined = digests.and_then(|digests| Checksum::of_parts(announced.algorithm, announced.kind, digests));
    let joined = joined
        .ok_or_else(|| S3Error::invalid_request("A part lacks the checksum that the upload announced."))?;
    attributes.checksum = Some(joined);
    Ok(Some(joined))
}

fn invalid_part(part: &CompletedPart) -> S3Error {
    S3Error::new(ErrorCode::InvalidPart)
        .detail("PartNumber", part.number.to_string())
        .detail("ETag", part.etag.clone())
}

/// The upload is no more: the answer of before if it became the object that is there.
async fn completed_before<I: Machine>(
    service: &Service<I>,
    bucket: BucketId,
    name: ObjectName<'_>,
    upload: UploadId,
) -> S3Result<Response<I>> {
    let no_such = || S3Error::new(ErrorCode::NoSuchUpload).detail("UploadId", upload_id::text(upload));
    let found = service
        .engine
        .head(bucket, name.key.as_bytes())
        .await
        .map_err(|_| no_such())?;
    if found.object.upload != Some(upload) {
        return Err(no_such());
    }
    let checksum = view(&found.object.attributes).checksum;
    Ok(answer(name, etag(found.object.etag), checksum.as_ref()))
}

fn answer<I: Machine>(name: ObjectName<'_>, tag: ETag, checksum: Option<&Checksum>) -> Response<I> {
    let mut location = format!("/{}/", name.bucket.as_str());
    crate::http::uri::encode_key(name.key.as_bytes(), &mut location);
    let mut out = Vec::new();
    responses::complete_multipart_upload(
        &mut out,
        &location,
        name.bucket.as_str(),
        name.key.as_bytes(),
        tag,
        checksum,
    );
    Response::xml(200, out)
}
