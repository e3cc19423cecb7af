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
    /// Not answered at all.
    Unbuilt,
}

/// The query parameters that make a request about a bucket's setting.
const BUCKET_SETTINGS: [(&str, Unset); 22] = [
    ("accelerate", Unset::Document("AccelerateConfiguration")),
    ("acl", Unset::OwnerOnly),
    ("analytics", Unset::Unbuilt),
    ("cors", Unset::Missing(ErrorCode::NoSuchCORSConfiguration)),
    (
        "encryption",
        Unset::Missing(ErrorCode::ServerSideEncryptionConfigurationNotFoundError),
    ),
    ("intelligent-tiering", Unset::Unbuilt),
    ("inventory", Unset::Unbuilt),
    (
        "lifecycle",
        Unset::Missing(ErrorCode::NoSuchLifecycleConfiguration),
    ),
    ("logging", Unset::Document("BucketLoggingStatus")),
    ("metadataTable", Unset::Unbuilt),
    ("metrics", Unset::Unbuilt),
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
    ("requestPayment", Unset::Unbuilt),
    ("tagging", Unset::Missing(ErrorCode::NoSuchTagSet)),
    ("versioning", Unset::Document("VersioningConfiguration")),
    ("website", Unset::Missing(ErrorCode::NoSuchWebsiteConfiguration)),
];

/// The query parameters that make a request about something else than an object's bytes.
const OBJECT_SETTINGS: [&str; 10] = [
    "acl",
    "annotation",
    "attributes",
    "encryption",
    "legal-hold",
    "renameObject",
    "restore",
    "retention",
    "select",
    "torrent",
];

/// Whether a request on a bucket is about a setting.
pub fn is_bucket_setting(request: &Request<'_>) -> bool {
    BUCKET_SETTINGS.iter().any(|(name, _)| request.query.has(name))
}

/// Whether a request on an object is about something else than its bytes.
pub fn is_object_setting(request: &Request<'_>) -> bool {
    request.query.has("tagging") || OBJECT_SETTINGS.iter().any(|name| request.query.has(name))
}

pub fn bucket_setting<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    name: &BucketName,
) -> S3Result<Response<I>> {
    service.bucket(name)?;
    let (setting, unset) = BUCKET_SETTINGS
        .iter()
        .find(|(name, _)| request.query.has(name))
        .expect("the request was routed here");
    match (request.head.method(), unset) {
        (Method::Get, Unset::Missing(code)) => Err(S3Error::new(*code).detail("BucketName", name.as_str())),
        (Method::Get, Unset::Document(root)) => Ok(document(root)),
        (Method::Get, Unset::OwnerOnly) => Ok(owner_only(service)),
        (Method::Delete, Unset::Missing(_)) if *setting != "object-lock" && *setting != "policyStatus" => {
            Ok(Response::empty(204))
        }
        _ => Err(not_implemented(request, setting)),
    }
}

pub async fn object_setting<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    name: ObjectName<'_>,
) -> S3Result<Response<I>> {
    let bucket = service.bucket(name.bucket)?;
    request.check_version()?;
    let is_get = request.head.method() == Method::Get;
    if !is_get || !(request.query.has("acl") || request.query.has("tagging")) {
        let mut settings = OBJECT_SETTINGS.iter().chain(&["tagging"]);
        let setting = settings.find(|name| request.query.has(name));
        return Err(not_implemented(
            request,
            setting.expect("the request was routed here"),
        ));
    }
    service
        .engine
        .head(bucket.id, name.key.as_bytes())
        .await
        .map_err(|_| name.no_such_key())?;
    match request.query.has("acl") {
        true => Ok(owner_only(service)),
        false => Ok(Response::xml(200, wrap("Tagging", "<TagSet></TagSet>"))),
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
