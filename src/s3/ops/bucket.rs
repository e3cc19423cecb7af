//! CreateBucket, HeadBucket, DeleteBucket, GetBucketLocation (S3 API reference, by those names).

use crate::engine::{Configuration, Machine, Refusal};
use crate::s3::configuration::{Ownership, kind};
use crate::s3::error::{ErrorCode, S3Error, S3Result};
use crate::s3::names::BucketName;
use crate::s3::payload::Payload;
use crate::s3::request::Request;
use crate::s3::service::{REGION, Receive, Response, Service};
use crate::s3::xml::{requests, responses};

/// Bytes of the body that says what bucket to make: a location, and tags that are refused.
const CONFIGURATION_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a location constraint; S3's are under 20.
const LOCATION_BYTES_MAX: usize = 64;

/// Any location is accepted: there is one place.
pub async fn create_bucket<I: Machine, R: Receive>(
    service: &Service<I>,
    request: &mut Request<'_>,
    name: &BucketName,
    body: &mut R,
) -> S3Result<Response<I>> {
    request.refuse_unbuilt()?;
    let mut payload = Payload::open(&service.lanes, request, body, None)?;
    let xml = payload.collect(&service.engine, CONFIGURATION_BYTES_MAX).await?;
    payload.finish()?;
    let configuration = requests::create_bucket_configuration(&xml)?;
    if configuration.has_tags {
        let message = "Tags of buckets are not implemented: create the bucket without them";
        return Err(S3Error::new(ErrorCode::NotImplemented).message(message));
    }
    let location = configuration.location.unwrap_or_else(|| REGION.to_owned());
    check_location(&location)?;
    let configured = first_configuration(service, request)?;
    match service
        .engine
        .create_bucket_with(name.as_str(), &location, configured)
        .await
    {
        Ok(_) => Ok(Response::empty(200).header("Location", format!("/{}", name.as_str()))),
        Err(Refusal::BucketExists) => {
            let present = service.bucket(name)?;
            let code = match service.owner_id(&present) == request.user.account {
                true => ErrorCode::BucketAlreadyOwnedByYou,
                false => ErrorCode::BucketAlreadyExists,
            };
            Err(S3Error::new(code).detail("BucketName", name.as_str()))
        }
        Err(refusal) => Err(refusal.into()),
    }
}

/// What a bucket is made with: its owner, if that is not root, and what headers say.
fn first_configuration<I: Machine>(service: &Service<I>, request: &Request<'_>) -> S3Result<Configuration> {
    let mut configured = Configuration::default();
    if request.user.account != service.root_id() {
        let owner = request.user.account.clone().into_bytes();
        configured = configured.with(kind::OWNER, Some(owner));
    }
    if let Some(value) = request.field("x-amz-object-ownership") {
        let name = String::from_utf8_lossy(value);
        let invalid = || {
            S3Error::invalid_argument(
                "Invalid x-amz-object-ownership header",
                "x-amz-object-ownership",
                &name,
            )
        };
        let ownership = Ownership::parse(&name).ok_or_else(invalid)?;
        configured = configured.with(kind::OWNERSHIP, Some(ownership.encode()));
    }
    Ok(configured)
}

pub fn head_bucket<I: Machine>(service: &Service<I>, name: &BucketName) -> S3Result<Response<I>> {
    let bucket = service.bucket(name)?;
    Ok(Response::empty(200).header("x-amz-bucket-region", bucket.location))
}

pub async fn delete_bucket<I: Machine>(service: &Service<I>, name: &BucketName) -> S3Result<Response<I>> {
    let refused = |refusal| S3Error::from(refusal).detail("BucketName", name.as_str());
    service
        .engine
        .delete_bucket(name.as_str())
        .await
        .map_err(refused)?;
    Ok(Response::empty(204))
}

pub fn get_location<I: Machine>(service: &Service<I>, name: &BucketName) -> S3Result<Response<I>> {
    let bucket = service.bucket(name)?;
    let mut out = Vec::new();
    responses::location(&mut out, &bucket.location);
    Ok(Response::xml(200, out))
}

/// A location is a word; more would not come back through XML and headers as it was.
fn check_location(location: &str) -> S3Result<()> {
    let is_word = location.len() <= LOCATION_BYTES_MAX
        && location
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    is_word
        .then_some(())
        .ok_or(S3Error::new(ErrorCode::InvalidLocationConstraint))
}
