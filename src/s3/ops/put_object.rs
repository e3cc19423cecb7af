//! PutObject (S3 API reference, "PutObject").
//!
//! A body's bytes: received into the blocks that go to disk (or, small, into the memory that travels to the
//! owner of the key), hashed there, written. With `aws-chunked` one copy more, out of the chunk buffer.

use crate::engine::Machine;
use crate::s3::conditions::{Condition, ETag, WriteCondition, precondition_failed};
use crate::s3::error::{ErrorCode, S3Error, S3Result};
use crate::s3::metadata::Attributes;
use crate::s3::ops::checksum_header;
use crate::s3::payload::{Payload, Sums};
use crate::s3::refusal::{engine_condition, engine_etag, etag};
use crate::s3::request::{ObjectName, Request};
use crate::s3::service::{Receive, Response, Service};

pub async fn put_object<I: Machine, R: Receive>(
    service: &Service<I>,
    request: &mut Request<'_>,
    name: ObjectName<'_>,
    body: &mut R,
) -> S3Result<Response<I>> {
    let bucket = service.bucket(name.bucket)?;
    request.refuse_unbuilt()?;
    let condition = WriteCondition::from_headers(request.fields())?;
    let mut attributes = Attributes::from_headers(request.fields())?;
    request.require_length()?;
    let mut payload = Payload::open(&service.lanes, request, body, None)?;
    refuse_early(service, bucket.id, name, condition).await?;

    let mut writer = service.engine.receive_body(payload.length());
    payload.store(&mut writer).await?;
    // Verified before it is stored: what is refused never becomes visible.
    let Sums { md5, checksum } = payload.finish()?;
    let stored = writer.finish().await?;

    attributes.checksum = checksum;
    let tag = ETag { md5, parts: 0 };
    let key = name.key.as_bytes();
    let committed = service
        .engine
        .put(
            bucket.id,
            key,
            engine_etag(tag),
            attributes.encode(),
            stored,
            engine_condition(condition),
        )
        .await;
    committed.map_err(|refusal| condition_error(refusal.into(), condition, name))?;

    let mut response = Response::empty(200).header("ETag", tag.quoted().to_string());
    if let Some(checksum) = &checksum {
        let (header, value) = checksum_header(checksum);
        response = response
            .header(header, value)
            .header("x-amz-checksum-type", checksum.kind.name());
    }
    Ok(response)
}

/// A condition that fails already is answered before the body is asked for; the owner of the key decides again.
pub async fn refuse_early<I: Machine>(
    service: &Service<I>,
    bucket: crate::engine::BucketId,
    name: ObjectName<'_>,
    condition: WriteCondition,
) -> S3Result<()> {
    if condition == WriteCondition::None {
        return Ok(());
    }
    let current = service.engine.head(bucket, name.key.as_bytes()).await.ok();
    let current = current.map(|found| etag(found.object.etag));
    condition
        .check(current.as_ref())
        .map_err(|error| condition_error(error, condition, name))
}

/// Says which condition failed, or which key is missing.
pub fn condition_error(error: S3Error, condition: WriteCondition, name: ObjectName<'_>) -> S3Error {
    match error.code {
        ErrorCode::PreconditionFailed => precondition_failed(match condition {
            WriteCondition::IfAbsent => Condition::IfNoneMatch,
            WriteCondition::None
            | WriteCondition::IfExists
            | WriteCondition::IfMatch(_)
            | WriteCondition::IfMatchNone => Condition::IfMatch,
        }),
        ErrorCode::NoSuchKey => name.no_such_key(),
        _ => error,
    }
}
