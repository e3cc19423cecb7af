//! GetBucketPolicy, PutBucketPolicy, DeleteBucketPolicy, GetBucketPolicyStatus (S3 API reference, by those names).
//!
//! A policy is given back byte for byte as it came.

use crate::engine::Machine;
use crate::limits::POLICY_BYTES_MAX;
use crate::policy::{Kind, Policy, is_public};
use crate::s3::configuration::{PublicAccessBlock, StoredPolicy, kind};
use crate::s3::error::{ErrorCode, S3Error, S3Result};
use crate::s3::names::BucketName;
use crate::s3::payload::Payload;
use crate::s3::request::Request;
use crate::s3::service::{Receive, Response, ResponseBody, Service};
use crate::s3::xml::responses;

pub async fn put_policy<I: Machine, R: Receive>(
    service: &Service<I>,
    request: &mut Request<'_>,
    name: &BucketName,
    body: &mut R,
) -> S3Result<Response<I>> {
    let bucket = service.bucket(name)?;
    let binds_owner = match request.field("x-amz-confirm-remove-self-bucket-access") {
        Some(value) => value.eq_ignore_ascii_case(b"true"),
        None => false,
    };
    let mut payload = Payload::open(&service.lanes, request, body, None)?;
    // One byte more shows that there is more.
    let bytes = payload.collect(&service.engine, POLICY_BYTES_MAX + 1).await;
    let bytes = bytes.map_err(|error| match error.code {
        ErrorCode::MaxMessageLengthExceeded => malformed("Policy exceeds the maximum allowed document size."),
        _ => error,
    })?;
    payload.finish()?;
    let text = std::str::from_utf8(&bytes).map_err(|_| malformed("Policies must be valid JSON"))?;
    let policy =
        Policy::parse(text, Kind::Bucket(name.as_str())).map_err(|error| malformed(error.to_string()))?;
    if is_public(&policy) && PublicAccessBlock::of(&bucket).block_public_policy {
        return Err(S3Error::new(ErrorCode::AccessDenied));
    }
    let value = StoredPolicy { binds_owner, text }.encode();
    service
        .engine
        .configure_bucket(name.as_str(), bucket.id, kind::POLICY, Some(value))
        .await?;
    Ok(Response::empty(204))
}

pub fn get_policy<I: Machine>(service: &Service<I>, name: &BucketName) -> S3Result<Response<I>> {
    let bucket = service.bucket(name)?;
    let policy = StoredPolicy::of(&bucket).ok_or_else(|| no_policy(name))?;
    let response = Response {
        body: ResponseBody::Bytes(policy.text.as_bytes().to_vec()),
        ..Response::empty(200)
    };
    Ok(response.header("Content-Type", "application/json"))
}

/// Whether whoever comes may do something by the policy. A bucket without a policy is not public.
pub fn get_policy_status<I: Machine>(service: &Service<I>, name: &BucketName) -> S3Result<Response<I>> {
    let bucket = service.bucket(name)?;
    let is_public = service
        .policies
        .of(name, &bucket)
        .is_some_and(|kept| kept.is_public);
    let mut out = Vec::new();
    responses::policy_status(&mut out, is_public);
    Ok(Response::xml(200, out))
}

fn no_policy(name: &BucketName) -> S3Error {
    S3Error::new(ErrorCode::NoSuchBucketPolicy).detail("BucketName", name.as_str())
}

fn malformed(why: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    S3Error::new(ErrorCode::MalformedPolicy).message(why)
}
