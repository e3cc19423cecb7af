//! Which actions of IAM each operation of S3 takes, and on what.
//!
//! Invariant: an operation or setting without a row has no needs that a policy could meet, and so is refused to all but the
//! root user.
//!
//! Source: S3 API reference, "Permissions" of each operation; S3 user guide, "Required permissions for Amazon S3 API
//! operations".

use crate::http::Method;
use crate::s3::operation::Operation;
use crate::s3::request::Request;

/// An action, and what it must be allowed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    pub action: &'static str,
    pub of: Of,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The service, bucket or object that the request names.
    Target,
    /// The bucket that it makes.
    NewBucket,
    /// The object that it copies.
    CopySource,
}

/// A setting's name in queries, and the actions that read, change and remove it; empty for what cannot be asked.
type Setting = (&'static str, &'static str, &'static str, &'static str);

const BUCKET_SETTINGS: [Setting; 21] = [
    (
        "accelerate",
        "s3:GetAccelerateConfiguration",
        "s3:PutAccelerateConfiguration",
        "",
    ),
    ("acl", "s3:GetBucketAcl", "s3:PutBucketAcl", ""),
    (
        "analytics",
        "s3:GetAnalyticsConfiguration",
        "s3:PutAnalyticsConfiguration",
        "s3:PutAnalyticsConfiguration",
    ),
    ("cors", "s3:GetBucketCORS", "s3:PutBucketCORS", "s3:PutBucketCORS"),
    (
        "encryption",
        "s3:GetEncryptionConfiguration",
        "s3:PutEncryptionConfiguration",
        "s3:PutEncryptionConfiguration",
    ),
    (
        "intelligent-tiering",
        "s3:GetIntelligentTieringConfiguration",
        "s3:PutIntelligentTieringConfiguration",
        "s3:PutIntelligentTieringConfiguration",
    ),
    (
        "inventory",
        "s3:GetInventoryConfiguration",
        "s3:PutInventoryConfiguration",
        "s3:PutInventoryConfiguration",
    ),
    (
        "lifecycle",
        "s3:GetLifecycleConfiguration",
        "s3:PutLifecycleConfiguration",
        "s3:PutLifecycleConfiguration",
    ),
    ("logging", "s3:GetBucketLogging", "s3:PutBucketLogging", ""),
    (
        "metrics",
        "s3:GetMetricsConfiguration",
        "s3:PutMetricsConfiguration",
        "s3:PutMetricsConfiguration",
    ),
    (
        "notification",
        "s3:GetBucketNotification",
        "s3:PutBucketNotification",
        "",
    ),
    (
        "object-lock",
        "s3:GetBucketObjectLockConfiguration",
        "s3:PutBucketObjectLockConfiguration",
        "",
    ),
    (
        "ownershipControls",
        "s3:GetBucketOwnershipControls",
        "s3:PutBucketOwnershipControls",
        "s3:PutBucketOwnershipControls",
    ),
    (
        "policy",
        "s3:GetBucketPolicy",
        "s3:PutBucketPolicy",
        "s3:DeleteBucketPolicy",
    ),
    ("policyStatus", "s3:GetBucketPolicyStatus", "", ""),
    (
        "publicAccessBlock",
        "s3:GetBucketPublicAccessBlock",
        "s3:PutBucketPublicAccessBlock",
        "s3:PutBucketPublicAccessBlock",
    ),
    (
        "replication",
        "s3:GetReplicationConfiguration",
        "s3:PutReplicationConfiguration",
        "s3:PutReplicationConfiguration",
    ),
    (
        "requestPayment",
        "s3:GetBucketRequestPayment",
        "s3:PutBucketRequestPayment",
        "",
    ),
    (
        "tagging",
        "s3:GetBucketTagging",
        "s3:PutBucketTagging",
        "s3:PutBucketTagging",
    ),
    (
        "versioning",
        "s3:GetBucketVersioning",
        "s3:PutBucketVersioning",
        "",
    ),
    (
        "website",
        "s3:GetBucketWebsite",
        "s3:PutBucketWebsite",
        "s3:DeleteBucketWebsite",
    ),
];

/// The same, each with its action on a version.
const OBJECT_SETTINGS: [(Setting, Setting); 6] = [
    (
        ("acl", "s3:GetObjectAcl", "s3:PutObjectAcl", ""),
        ("acl", "s3:GetObjectVersionAcl", "s3:PutObjectVersionAcl", ""),
    ),
    (
        ("attributes", "s3:GetObjectAttributes", "", ""),
        ("attributes", "s3:GetObjectVersionAttributes", "", ""),
    ),
    (
        ("legal-hold", "s3:GetObjectLegalHold", "s3:PutObjectLegalHold", ""),
        ("legal-hold", "s3:GetObjectLegalHold", "s3:PutObjectLegalHold", ""),
    ),
    (
        ("retention", "s3:GetObjectRetention", "s3:PutObjectRetention", ""),
        ("retention", "s3:GetObjectRetention", "s3:PutObjectRetention", ""),
    ),
    (
        (
            "tagging",
            "s3:GetObjectTagging",
            "s3:PutObjectTagging",
            "s3:DeleteObjectTagging",
        ),
        (
            "tagging",
            "s3:GetObjectVersionTagging",
            "s3:PutObjectVersionTagging",
            "s3:DeleteObjectVersionTagging",
        ),
    ),
    (
        ("torrent", "s3:GetObjectTorrent", "", ""),
        ("torrent", "s3:GetObjectVersionTorrent", "", ""),
    ),
];

/// Headers that make a write do more than write, and the action that each takes.
const OBJECT_HEADERS: [(&str, &str); 10] = [
    ("x-amz-acl", "s3:PutObjectAcl"),
    ("x-amz-grant-full-control", "s3:PutObjectAcl"),
    ("x-amz-grant-read", "s3:PutObjectAcl"),
    ("x-amz-grant-read-acp", "s3:PutObjectAcl"),
    ("x-amz-grant-write", "s3:PutObjectAcl"),
    ("x-amz-grant-write-acp", "s3:PutObjectAcl"),
    ("x-amz-object-lock-legal-hold", "s3:PutObjectLegalHold"),
    ("x-amz-object-lock-mode", "s3:PutObjectRetention"),
    ("x-amz-object-lock-retain-until-date", "s3:PutObjectRetention"),
    ("x-amz-tagging", "s3:PutObjectTagging"),
];

const BUCKET_HEADERS: [(&str, &str); 8] = [
    ("x-amz-acl", "s3:PutBucketAcl"),
    (
        "x-amz-bucket-object-lock-enabled",
        "s3:PutBucketObjectLockConfiguration",
    ),
    ("x-amz-grant-full-control", "s3:PutBucketAcl"),
    ("x-amz-grant-read", "s3:PutBucketAcl"),
    ("x-amz-grant-read-acp", "s3:PutBucketAcl"),
    ("x-amz-grant-write", "s3:PutBucketAcl"),
    ("x-amz-grant-write-acp", "s3:PutBucketAcl"),
    ("x-amz-object-ownership", "s3:PutBucketOwnershipControls"),
];

/// What an operation takes; `None` if no policy can give it. `setting` is the subresource of those that have one.
pub fn of(operation: Operation, request: &Request<'_>, setting: Option<&str>) -> Option<Vec<Need>> {
    let has_version = request.query.has("versionId");
    let versioned = |current, of_version| if has_version { of_version } else { current };
    let one = |action| Some(vec![target(action)]);
    match operation {
        Operation::Unknown => None,
        Operation::ListBuckets => one("s3:ListAllMyBuckets"),
        Operation::CreateBucket => {
            let needs = with_headers("s3:CreateBucket", &BUCKET_HEADERS, request);
            let of_new = |need: Need| Need {
                of: Of::NewBucket,
                ..need
            };
            Some(needs.into_iter().map(of_new).collect())
        }
        Operation::HeadBucket | Operation::ListObjects | Operation::ListObjectsV2 => one("s3:ListBucket"),
        Operation::DeleteBucket => one("s3:DeleteBucket"),
        Operation::GetBucketLocation => one("s3:GetBucketLocation"),
        Operation::BucketSetting => {
            setting_action(&BUCKET_SETTINGS, request.head.method(), setting?).and_then(one)
        }
        Operation::ListObjectVersions => one("s3:ListBucketVersions"),
        Operation::ListMultipartUploads => one("s3:ListBucketMultipartUploads"),
        // Its keys are asked for one by one.
        Operation::DeleteObjects => Some(Vec::new()),
        Operation::GetObject | Operation::HeadObject => one(versioned("s3:GetObject", "s3:GetObjectVersion")),
        Operation::PutObject | Operation::CreateMultipartUpload => {
            Some(with_headers("s3:PutObject", &OBJECT_HEADERS, request))
        }
        Operation::CopyObject => {
            let mut needs = with_headers("s3:PutObject", &OBJECT_HEADERS, request);
            needs.push(source(request));
            Some(needs)
        }
        Operation::UploadPartCopy => Some(vec![target("s3:PutObject"), source(request)]),
        Operation::UploadPart | Operation::CompleteMultipartUpload => one("s3:PutObject"),
        Operation::DeleteObject => one(versioned("s3:DeleteObject", "s3:DeleteObjectVersion")),
        Operation::ObjectSetting => {
            let settings =
                OBJECT_SETTINGS.map(|(current, of_version)| versioned_row(has_version, current, of_version));
            setting_action(&settings, request.head.method(), setting?).and_then(one)
        }
        Operation::ListParts => one("s3:ListMultipartUploadParts"),
        Operation::AbortMultipartUpload => one("s3:AbortMultipartUpload"),
    }
}

/// The action that deletes a key of DeleteObjects.
pub fn delete(version: Option<&str>) -> &'static str {
    match version {
        None | Some("") => "s3:DeleteObject",
        Some(_) => "s3:DeleteObjectVersion",
    }
}

fn versioned_row(has_version: bool, current: Setting, of_version: Setting) -> Setting {
    if has_version { of_version } else { current }
}

fn setting_action(rows: &[Setting], method: Method, setting: &str) -> Option<&'static str> {
    let (_, get, put, delete) = rows.iter().find(|(name, ..)| *name == setting)?;
    let action = match method {
        Method::Get | Method::Head => *get,
        Method::Put => *put,
        Method::Delete => *delete,
        Method::Post | Method::Options | Method::Other => "",
    };
    (!action.is_empty()).then_some(action)
}

fn with_headers(action: &'static str, headers: &[(&str, &'static str)], request: &Request<'_>) -> Vec<Need> {
    let mut needs = vec![target(action)];
    for (header, action) in headers {
        let need = target(action);
        if request.field(header).is_some() && !needs.contains(&need) {
            needs.push(need);
        }
    }
    needs
}

fn target(action: &'static str) -> Need {
    Need {
        action,
        of: Of::Target,
    }
}

fn source(request: &Request<'_>) -> Need {
    let value = request.field("x-amz-copy-source").unwrap_or(b"");
    let has_version = value.windows(11).any(|part| part == b"?versionId=");
    Need {
        action: if has_version {
            "s3:GetObjectVersion"
        } else {
            "s3:GetObject"
        },
        of: Of::CopySource,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::actions::about;

    #[test]
    fn every_action_of_the_table_is_one_of_s3() {
        let of_versions = OBJECT_SETTINGS
            .iter()
            .flat_map(|(current, version)| [current, version]);
        let settings = BUCKET_SETTINGS.iter().chain(of_versions);
        let of_settings = settings.flat_map(|&(_, get, put, delete)| [get, put, delete]);
        let of_headers = OBJECT_HEADERS
            .iter()
            .chain(&BUCKET_HEADERS)
            .map(|(_, action)| *action);
        for action in of_settings.chain(of_headers).filter(|action| !action.is_empty()) {
            assert!(about(action).is_some(), "{action}");
        }
    }
}
