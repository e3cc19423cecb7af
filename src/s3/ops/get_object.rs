//! GetObject and HeadObject (S3 API reference, "GetObject", "HeadObject").
//!
//! The owner of the key says where the bytes lie; they are read on this core, verified, and sent from the
//! buffers that the disk filled: no copy but the kernel's.

use crate::engine::{BucketId, FoundObject, Machine};
use crate::http::date::http_date;
use crate::s3::checksum::{Checksum, ChecksumType};
use crate::s3::conditions::{Outcome, ReadConditions, precondition_failed, range_counts};
use crate::s3::error::{ErrorCode, S3Error, S3Result};
use crate::s3::metadata::Overrides;
use crate::s3::ops::{checksum_header, view};
use crate::s3::range::{self, Resolved};
use crate::s3::refusal::etag;
use crate::s3::request::{KeyHeaders, ObjectName, Request};
use crate::s3::service::{Response, ResponseBody, Service};

/// GET: the object's bytes, or a range of them.
pub async fn get_object<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    name: ObjectName<'_>,
) -> S3Result<Response<I>> {
    let bucket = bucket_to_read(service, request, name)?;
    let found = service.engine.get(bucket, name.key.as_bytes()).await;
    let found = found.map_err(|refusal| name.lookup_error(refusal))?;
    let now_ms = service.engine.io().unix_ms();
    let Answer { mut response, range } = match describe(&found, request, now_ms)? {
        Described::Answer(answer) => answer,
        Described::NotModified(response) => return Ok(response),
    };
    let (start, length) = (range.start, range.end - range.start);
    response.body = match length {
        0 => ResponseBody::Empty,
        _ => ResponseBody::Object {
            reader: found.read(start..start + length),
            length,
        },
    };
    Ok(response)
}

/// HEAD: what GET would answer, without the bytes.
pub async fn head_object<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    name: ObjectName<'_>,
) -> S3Result<Response<I>> {
    let bucket = bucket_to_read(service, request, name)?;
    let found = service.engine.head(bucket, name.key.as_bytes()).await;
    let found = found.map_err(|refusal| name.lookup_error(refusal))?;
    let now_ms = service.engine.io().unix_ms();
    let Answer { mut response, range } = match describe(&found, request, now_ms)? {
        Described::Answer(answer) => answer,
        Described::NotModified(response) => return Ok(response),
    };
    response.body = ResponseBody::HeadOnly {
        length: range.end - range.start,
    };
    Ok(response)
}

fn bucket_to_read<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    name: ObjectName<'_>,
) -> S3Result<BucketId> {
    let bucket = service.bucket(name.bucket)?;
    request.check_version()?;
    Ok(bucket.id)
}

enum Described<I: Machine> {
    Answer(Answer<I>),
    NotModified(Response<I>),
}

struct Answer<I: Machine> {
    response: Response<I>,
    range: std::ops::Range<u64>,
}

/// The head of the answer, and which bytes it is about.
fn describe<I: Machine>(
    found: &FoundObject<I>,
    request: &Request<'_>,
    now_ms: u64,
) -> S3Result<Described<I>> {
    request.refuse_customer_key(KeyHeaders::Object)?;
    let object = &found.object;
    let tag = etag(object.etag);
    let quoted = tag.quoted().to_string();
    let modified = http_date(object.modified_ms / 1000);
    let conditions = ReadConditions::from_headers(request.head.headers());
    match conditions.evaluate(&tag, object.modified_ms, now_ms) {
        Outcome::Proceed => {}
        Outcome::PreconditionFailed(condition) => return Err(precondition_failed(condition)),
        Outcome::NotModified(_) => {
            let response = Response::empty(304)
                .header("ETag", quoted)
                .header("Last-Modified", modified.as_str());
            return Ok(Described::NotModified(response));
        }
    }
    let overrides =
        Overrides::from_query(request.query.iter().map(|(name, value)| (name, value.as_bytes())))?;
    let selected = select(found, request)?;
    let attributes = view(&object.attributes);
    let mut response = Response::empty(if selected.is_some() { 206 } else { 200 })
        .header("Accept-Ranges", "bytes")
        .header("Last-Modified", modified.as_str())
        .header("ETag", quoted);
    for (name, value) in attributes.headers(&overrides) {
        response = response.header(name, value);
    }
    if let Some(range) = selected {
        response = response.header("Content-Range", range.content_range(object.size).to_string());
    }
    if request.query.has("partNumber") && !object.part_sizes.is_empty() {
        response = response.header("x-amz-mp-parts-count", object.part_sizes.len().to_string());
    }
    let wants_checksum = request
        .field("x-amz-checksum-mode")
        .is_some_and(|mode| mode.eq_ignore_ascii_case(b"ENABLED"));
    // A checksum over the whole object goes with every answer that has all of it.
    let has_all = selected.is_none_or(|range| range.length == object.size);
    let fits = |checksum: &Checksum| match checksum.kind {
        ChecksumType::FullObject => has_all,
        ChecksumType::Composite => selected.is_none(),
    };
    if let Some(checksum) = attributes
        .checksum
        .filter(|checksum| wants_checksum && fits(checksum))
    {
        let (header, value) = checksum_header(&checksum);
        response = response
            .header(header, value)
            .header("x-amz-checksum-type", checksum.kind.name());
    }
    let range = selected.map_or(0..object.size, |range| range.start..range.start + range.length);
    Ok(Described::Answer(Answer { response, range }))
}

/// The bytes that `Range` or `partNumber` selects; `None` for the whole object.
fn select<I: Machine>(found: &FoundObject<I>, request: &Request<'_>) -> S3Result<Option<Resolved>> {
    let object = &found.object;
    let part = request.number::<u32>("partNumber")?;
    match (request.head.header("range"), part) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(S3Error::invalid_request(
            "Cannot specify both Range header and partNumber query parameter",
        )),
        (Some(header), None) => {
            let counts = |if_range| range_counts(if_range, &etag(object.etag), object.modified_ms);
            match request.head.header("if-range").is_none_or(counts) {
                true => range::parse(header, object.size)
                    .map_err(|unsatisfiable| unsatisfiable.into_error(header)),
                false => Ok(None),
            }
        }
        (None, Some(number)) => {
            let sizes: &[u64] = if object.part_sizes.is_empty() {
                &[object.size]
            } else {
                &object.part_sizes
            };
            let at = (number as usize)
                .checked_sub(1)
                .filter(|&at| at < crate::limits::PARTS_MAX as usize);
            let at = at.ok_or_else(|| {
                let message = "Part number must be an integer between 1 and 10000, inclusive";
                S3Error::invalid_argument(message, "partNumber", &number.to_string())
            })?;
            let length = *sizes.get(at).ok_or(S3Error::new(ErrorCode::InvalidPartNumber))?;
            let start = sizes[..at].iter().sum();
            // An empty object has no range to name.
            Ok((length > 0).then_some(Resolved { start, length }))
        }
    }
}
