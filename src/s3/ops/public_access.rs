//! PutPublicAccessBlock, GetPublicAccessBlock, PutBucketOwnershipControls, GetBucketOwnershipControls (S3 API reference, by
//! those names).

use crate::engine::Machine;
use crate::s3::configuration::{Ownership, PublicAccessBlock, kind};
use crate::s3::error::{ErrorCode, S3Error, S3Result};
use crate::s3::names::BucketName;
use crate::s3::payload::Payload;
use crate::s3::request::Request;
use crate::s3::service::{Receive, Response, Service};
use crate::s3::xml::{requests, responses};

/// Bytes of either document; S3's own are under 1 KiB.
const DOCUMENT_BYTES_MAX: usize = 64 * 1024;

pub async fn put_block<I: Machine, R: Receive>(
    service: &Service<I>,
    request: &mut Request<'_>,
    name: &BucketName,
    body: &mut R,
) -> S3Result<Response<I>> {
    let bucket = service.bucket(name)?;
    let mut payload = Payload::open(&service.lanes, request, body, None)?;
    let xml = payload.collect(&service.engine, DOCUMENT_BYTES_MAX).await?;
    payload.finish()?;
    let [
        block_public_acls,
        ignore_public_acls,
        block_public_policy,
        restrict_public_buckets,
    ] = requests::public_access_block(&xml)?;
    let block = PublicAccessBlock {
        block_public_acls,
        ignore_public_acls,
        block_public_policy,
        restrict_public_buckets,
    };
    let value = Some(block.encode());
    service
        .engine
        .configure_bucket(name.as_str(), bucket.id, kind::PUBLIC_ACCESS_BLOCK, value)
        .await?;
    Ok(Response::empty(200))
}

pub fn get_block<I: Machine>(service: &Service<I>, name: &BucketName) -> S3Result<Response<I>> {
    let bucket = service.bucket(name)?;
    let block = PublicAccessBlock::set_of(&bucket).ok_or_else(|| {
        S3Error::new(ErrorCode::NoSuchPublicAccessBlockConfiguration).detail("BucketName", name.as_str())
    })?;
    let mut out = Vec::new();
    let flags = [
        ("BlockPublicAcls", block.block_public_acls),
        ("IgnorePublicAcls", block.ignore_public_acls),
        ("BlockPublicPolicy", block.block_public_policy),
        ("RestrictPublicBuckets", block.restrict_public_buckets),
    ];
    responses::public_access_block(&mut out, flags);
    Ok(Response::xml(200, out))
}

pub async fn put_ownership<I: Machine, R: Receive>(
    service: &Service<I>,
    request: &mut Request<'_>,
    name: &BucketName,
    body: &mut R,
) -> S3Result<Response<I>> {
    let bucket = service.bucket(name)?;
    let mut payload = Payload::open(&service.lanes, request, body, None)?;
    let xml = payload.collect(&service.engine, DOCUMENT_BYTES_MAX).await?;
    payload.finish()?;
    let ownership = requests::ownership_controls(&xml)?;
    let ownership = Ownership::parse(&ownership).ok_or(S3Error::new(ErrorCode::MalformedXML))?;
    let value = Some(ownership.encode());
    service
        .engine
        .configure_bucket(name.as_str(), bucket.id, kind::OWNERSHIP, value)
        .await?;
    Ok(Response::empty(200))
}

pub fn get_ownership<I: Machine>(service: &Service<I>, name: &BucketName) -> S3Result<Response<I>> {
    let bucket = service.bucket(name)?;
    let ownership = Ownership::set_of(&bucket).ok_or_else(|| {
        S3Error::new(ErrorCode::OwnershipControlsNotFoundError).detail("BucketName", name.as_str())
    })?;
    let mut out = Vec::new();
    responses::ownership_controls(&mut out, ownership.name());
    Ok(Response::xml(200, out))
}

/// Removes a kind of a bucket's configuration, set or not.
pub async fn delete<I: Machine>(service: &Service<I>, name: &BucketName, kind: u8) -> S3Result<Response<I>> {
    let bucket = service.bucket(name)?;
    service
        .engine
        .configure_bucket(name.as_str(), bucket.id, kind, None)
        .await?;
    Ok(Response::empty(204))
}
