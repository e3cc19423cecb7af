//! The actions of S3 that policies name, and what each is about.
//!
//! Source: Service authorization reference, "Actions, resources, and condition keys for Amazon S3", those that are about
//! buckets and objects.

/// What an action is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Neither a bucket nor an object: all buckets of an account.
    Service,
    Bucket,
    Object,
}

/// In order of name in lower case.
pub const ACTIONS: &[(&str, About)] = &[
    ("s3:AbortMultipartUpload", About::Object),
    ("s3:BypassGovernanceRetention", About::Object),
    ("s3:CreateBucket", About::Bucket),
    ("s3:DeleteBucket", About::Bucket),
    ("s3:DeleteBucketOwnershipControls", About::Bucket),
    ("s3:DeleteBucketPolicy", About::Bucket),
    ("s3:DeleteBucketPublicAccessBlock", About::Bucket),
    ("s3:DeleteBucketWebsite", About::Bucket),
    ("s3:DeleteObject", About::Object),
    ("s3:DeleteObjectTagging", About::Object),
    ("s3:DeleteObjectVersion", About::Object),
    ("s3:DeleteObjectVersionTagging", About::Object),
    ("s3:GetAccelerateConfiguration", About::Bucket),
    ("s3:GetAnalyticsConfiguration", About::Bucket),
    ("s3:GetBucketAcl", About::Bucket),
    ("s3:GetBucketCORS", About::Bucket),
    ("s3:GetBucketLocation", About::Bucket),
    ("s3:GetBucketLogging", About::Bucket),
    ("s3:GetBucketNotification", About::Bucket),
    ("s3:GetBucketObjectLockConfiguration", About::Bucket),
    ("s3:GetBucketOwnershipControls", About::Bucket),
    ("s3:GetBucketPolicy", About::Bucket),
    ("s3:GetBucketPolicyStatus", About::Bucket),
    ("s3:GetBucketPublicAccessBlock", About::Bucket),
    ("s3:GetBucketRequestPayment", About::Bucket),
    ("s3:GetBucketTagging", About::Bucket),
    ("s3:GetBucketVersioning", About::Bucket),
    ("s3:GetBucketWebsite", About::Bucket),
    ("s3:GetEncryptionConfiguration", About::Bucket),
    ("s3:GetIntelligentTieringConfiguration", About::Bucket),
    ("s3:GetInventoryConfiguration", About::Bucket),
    ("s3:GetLifecycleConfiguration", About::Bucket),
    ("s3:GetMetricsConfiguration", About::Bucket),
    ("s3:GetObject", About::Object),
    ("s3:GetObjectAcl", About::Object),
    ("s3:GetObjectAttributes", About::Object),
    ("s3:GetObjectLegalHold", About::Object),
    ("s3:GetObjectRetention", About::Object),
    ("s3:GetObjectTagging", About::Object),
    ("s3:GetObjectTorrent", About::Object),
    ("s3:GetObjectVersion", About::Object),
    ("s3:GetObjectVersionAcl", About::Object),
    ("s3:GetObjectVersionAttributes", About::Object),
    ("s3:GetObjectVersionForReplication", About::Object),
    ("s3:GetObjectVersionTagging", About::Object),
    ("s3:GetObjectVersionTorrent", About::Object),
    ("s3:GetReplicationConfiguration", About::Bucket),
    ("s3:ListAllMyBuckets", About::Service),
    ("s3:ListBucket", About::Bucket),
    ("s3:ListBucketMultipartUploads", About::Bucket),
    ("s3:ListBucketVersions", About::Bucket),
    ("s3:ListMultipartUploadParts", About::Object),
    ("s3:ListTagsForResource", About::Bucket),
    ("s3:ObjectOwnerOverrideToBucketOwner", About::Object),
    ("s3:PostBucketLogging", About::Bucket),
    ("s3:PutAccelerateConfiguration", About::Bucket),
    ("s3:PutAnalyticsConfiguration", About::Bucket),
    ("s3:PutBucketAcl", About::Bucket),
    ("s3:PutBucketCORS", About::Bucket),
    ("s3:PutBucketLogging", About::Bucket),
    ("s3:PutBucketNotification", About::Bucket),
    ("s3:PutBucketObjectLockConfiguration", About::Bucket),
    ("s3:PutBucketOwnershipControls", About::Bucket),
    ("s3:PutBucketPolicy", About::Bucket),
    ("s3:PutBucketPublicAccessBlock", About::Bucket),
    ("s3:PutBucketRequestPayment", About::Bucket),
    ("s3:PutBucketTagging", About::Bucket),
    ("s3:PutBucketVersioning", About::Bucket),
    ("s3:PutBucketWebsite", About::Bucket),
    ("s3:PutEncryptionConfiguration", About::Bucket),
    ("s3:PutIntelligentTieringConfiguration", About::Bucket),
    ("s3:PutInventoryConfiguration", About::Bucket),
    ("s3:PutLifecycleConfiguration", About::Bucket),
    ("s3:PutMetricsConfiguration", About::Bucket),
    ("s3:PutObject", About::Object),
    ("s3:PutObjectAcl", About::Object),
    ("s3:PutObjectLegalHold", About::Object),
    ("s3:PutObjectRetention", About::Object),
    ("s3:PutObjectTagging", About::Object),
    ("s3:PutObjectVersionAcl", About::Object),
    ("s3:PutObjectVersionTagging", About::Object),
    ("s3:PutReplicationConfiguration", About::Bucket),
    ("s3:ReplicateDelete", About::Object),
    ("s3:ReplicateObject", About::Object),
    ("s3:ReplicateTags", About::Object),
    ("s3:RestoreObject", About::Object),
];

/// What the action of that name is about; in any case, as IAM takes it.
pub fn about(action: &str) -> Option<About> {
    let lower = action.to_ascii_lowercase();
    let found = ACTIONS.binary_search_by(|(name, _)| name.to_ascii_lowercase().as_str().cmp(&lower));
    found.ok().map(|at| ACTIONS[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_found_in_any_case() {
        let lower: Vec<String> = ACTIONS
            .iter()
            .map(|(name, _)| name.to_ascii_lowercase())
            .collect();
        assert!(lower.is_sorted());
        for (name, of) in ACTIONS {
            assert_eq!(about(name), Some(*of));
            assert_eq!(about(&name.to_ascii_uppercase()), Some(*of));
        }
        assert_eq!(about("s3:GetEverything"), None);
    }
}
