//! Settings of buckets and objects that cannot be made here yet: reading one answers as S3 does when it was
//! never set, setting one is 501, removing one that is not there succeeds as it does on S3.

use crate::engine::Machine;
use crate::http::Method;
use crate::s3::error::{ErrorCode, S3Error, S3Result};
use crate::s3::names::BucketName;
use crate::s3::request::{ObjectName, Request};
use crate::s3::service::{Response, Service};
use crate::s3::xml::responses;

/// What reading a setting that was never made gives.
enum Unset {
    Missing(ErrorCode),
    Document(&'static str),
    /// The owner has full control.
    OwnerOnly,
}

/// The settings of a bucket that are answered; the other subresources are not built.
const BUCKET_SETTINGS: [(&str, Unset); 16] = [
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
        "ownershipControls",
        Unset::Missing(ErrorCode::OwnershipControlsNotFoundError),
    ),
    ("policy", Unset::Missing(ErrorCode::NoSuchBucketPolicy)),
    ("policyStatus", Unset::Missing(ErrorCode::NoSuchBucketPolicy)),
    (
        "publicAccessBlock",
        Unset::Missing(ErrorCode::NoSuchPublicAccessBlockConfiguration),
    ),
    (
        "replication",
        Unset::Missing(ErrorCode::ReplicationConfigurationNotFoundError),
    ),
    ("tagging", Unset::Missing(ErrorCode::NoSuchTagSet)),
    ("versioning", Unset::Document("VersioningConfiguration")),
    ("website", Unset::Missing(ErrorCode::NoSuchWebsiteConfiguration)),
];

pub fn bucket_setting<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    name: &BucketName,
    setting: &str,
) -> S3Result<Response<I>> {
    service.bucket(name)?;
    let unset = BUCKET_SETTINGS.iter().find(|(name, _)| *name == setting);
    match (request.head.method(), unset.map(|(_, unset)| unset)) {
        (Method::Get, Some(Unset::Missing(code))) => {
            Err(S3Error::new(*code).detail("BucketName", name.as_str()))
        }
        (Method::Get, Some(Unset::Document(root))) => Ok(document(root)),
        (Method::Get, Some(Unset::OwnerOnly)) => Ok(owner_only(service)),
        (Method::Delete, Some(Unset::Missing(_))) if !matches!(setting, "object-lock" | "policyStatus") => {
            Ok(Response::empty(204))
        }
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
        "acl" => Ok(owner_only(service)),
        _ => Ok(Response::xml(200, wrap("Tagging", "<TagSet></TagSet>"))),
    }
}

fn not_implemented(request: &Request<'_>, setting: &str) -> S3Error {
    S3Error::not_implemented(format_args!("{} of ?{setting}", request.head.method_str()))
}

fn owner_only<I: Machine>(service: &Service<I>) -> Response<I> {
    let mut out = Vec::new();
    responses::access_control_policy(&mut out, service.owner());
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
