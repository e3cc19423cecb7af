//! Settings of buckets and objects: which file answers each. Of those that cannot be made here yet, reading one answers as
//! S3 does when it was never set, setting one is 501, removing one that is not there succeeds as it does on S3.

use crate::engine::{Bucket, Machine};
use crate::http::Method;
use crate::s3::configuration::kind;
use crate::s3::error::{ErrorCode, S3Error, S3Result};
use crate::s3::names::BucketName;
use crate::s3::ops::{bucket_policy, public_access};
use crate::s3::request::{ObjectName, Request};
use crate::s3::service::{Receive, Response, Service};
use crate::s3::xml::responses;

/// What reading a setting that was never made gives.
enum Unset {
    Missing(ErrorCode),
    Document(&'static str),
    /// The owner has full control.
    OwnerOnly,
}

/// The settings of a bucket that are answered; the other subresources are not built.
const BUCKET_SETTINGS: [(&str, Unset); 12] = [
    ("accelerate", Unset::Document("AccelerateConfiguration")),
    ("acl", Unset::OwnerOnly),
    ("cors", Unset::Missing(ErrorCode::NoSuchCORSConfiguration)),
    (
        "encryption",
        Unset::Missing(ErrorCode::ServerSideEncryptionConfigurationNotFoundError),
    ),
    (
        "lifecycle",
        Unset::Missing(ErrorCode::NoSuchLifecycleConfiguration),
    ),
    ("logging", Unset::Document("BucketLoggingStatus")),
    ("notification", Unset::Document("NotificationConfiguration")),
    (
        "object-lock",
        Unset::Missing(ErrorCode::ObjectLockConfigurationNotFoundError),
    ),
    (
        "replication",
        Unset::Missing(ErrorCode::ReplicationConfigurationNotFoundError),
    ),
    ("tagging", Unset::Missing(ErrorCode::NoSuchTagSet)),
    ("versioning", Unset::Document("VersioningConfiguration")),
    ("website", Unset::Missing(ErrorCode::NoSuchWebsiteConfiguration)),
];

pub async fn bucket_setting<I: Machine, R: Receive>(
    service: &Service<I>,
    request: &mut Request<'_>,
    name: &BucketName,
    body: &mut R,
    setting: &str,
) -> S3Result<Response<I>> {
    match (request.head.method(), setting) {
        (Method::Get, "policy") => bucket_policy::get_policy(service, name),
        (Method::Put, "policy") => bucket_policy::put_policy(service, request, name, body).await,
        (Method::Delete, "policy") => public_access::delete(service, name, kind::POLICY).await,
        (Method::Get, "policyStatus") => bucket_policy::get_policy_status(service, name),
        (Method::Get, "publicAccessBlock") => public_access::get_block(service, name),
        (Method::Put, "publicAccessBlock") => public_access::put_block(service, request, name, body).await,
        (Method::Delete, "publicAccessBlock") => {
            public_access::delete(service, name, kind::PUBLIC_ACCESS_BLOCK).await
        }
        (Method::Get, "ownershipControls") => public_access::get_ownership(service, name),
        (Method::Put, "ownershipControls") => {
            public_access::put_ownership(service, request, name, body).await
        }
        (Method::Delete, "ownershipControls") => public_access::delete(service, name, kind::OWNERSHIP).await,
        _ => unset_setting(service, request, name, setting),
    }
}

/// A setting that cannot be made here yet.
fn unset_setting<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    name: &BucketName,
    setting: &str,
) -> S3Result<Response<I>> {
    let bucket = service.bucket(name)?;
    let unset = BUCKET_SETTINGS.iter().find(|(name, _)| *name == setting);
    match (request.head.method(), unset.map(|(_, unset)| unset)) {
        (Method::Get, Some(Unset::Missing(code))) => {
            Err(S3Error::new(*code).detail("BucketName", name.as_str()))
        }
        (Method::Get, Some(Unset::Document(root))) => Ok(document(root)),
        (Method::Get, Some(Unset::OwnerOnly)) => Ok(owner_only(service, &bucket)),
        (Method::Delete, Some(Unset::Missing(_))) if setting != "object-lock" => Ok(Response::empty(204)),
        _ => Err(not_implemented(request, setting)),
    }
}

pub async fn object_setting<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    name: ObjectName<'_>,
    setting: &str,
) -> S3Result<Response<I>> {
    let bucket = service.bucket(name.bucket)?;
    request.check_version()?;
    if request.head.method() != Method::Get || !matches!(setting, "acl" | "tagging") {
        return Err(not_implemented(request, setting));
    }
    service
        .engine
        .head(bucket.id, name.key.as_bytes())
        .await
        .map_err(|_| name.no_such_key())?;
    match setting {
        "acl" => Ok(owner_only(service, &bucket)),
        _ => Ok(Response::xml(200, wrap("Tagging", "<TagSet></TagSet>"))),
    }
}

fn not_implemented(request: &Request<'_>, setting: &str) -> S3Error {
    S3Error::not_implemented(format_args!("{} of ?{setting}", request.head.method_str()))
}

fn owner_only<I: Machine>(service: &Service<I>, bucket: &Bucket) -> Response<I> {
    let mut out = Vec::new();
    let owner = service.owner(bucket);
    responses::access_control_policy(&mut out, owner.as_owner());
    Response::xml(200, out)
}

fn document<I: Machine>(root: &str) -> Response<I> {
    Response::xml(200, wrap(root, ""))
}

fn wrap(root: &str, content: &str) -> Vec<u8> {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <{root} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{content}</{root}>"
    )
    .into_bytes()
}
