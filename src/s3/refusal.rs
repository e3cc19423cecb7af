//! What the engine and the signatures refuse, in S3's words.

use crate::engine::{Refusal, WriteCondition as EngineCondition};
use crate::s3::auth::AuthError;
use crate::s3::conditions::{ETag, WriteCondition};
use crate::s3::error::{ErrorCode, S3Error};

impl From<Refusal> for S3Error {
    fn from(refusal: Refusal) -> S3Error {
        let error = S3Error::new(match refusal {
            Refusal::NoSuchBucket => ErrorCode::NoSuchBucket,
            Refusal::NoSuchKey => ErrorCode::NoSuchKey,
            Refusal::NoSuchUpload => ErrorCode::NoSuchUpload,
            Refusal::BucketExists => ErrorCode::BucketAlreadyOwnedByYou,
            Refusal::TooManyBuckets => ErrorCode::TooManyBuckets,
            Refusal::BucketNotEmpty => ErrorCode::BucketNotEmpty,
            Refusal::BucketBusy => ErrorCode::OperationAborted,
            Refusal::PreconditionFailed => ErrorCode::PreconditionFailed,
            Refusal::Stale => ErrorCode::ConditionalRequestConflict,
            Refusal::Full => ErrorCode::InsufficientStorage,
            Refusal::Busy => ErrorCode::SlowDown,
            Refusal::DiskFailed | Refusal::Damaged => ErrorCode::InternalError,
            Refusal::ReadOnly | Refusal::Degraded | Refusal::OutOfReach => ErrorCode::ServiceUnavailable,
            Refusal::TooLarge => ErrorCode::EntityTooLarge,
        });
        match refusal {
            Refusal::DiskFailed => error.message("A disk failed this request. Please try again."),
            Refusal::Damaged => error.message("What is stored there is damaged."),
            Refusal::ReadOnly => {
                error.message("The disk has failed too often: nothing is written any more, only read.")
            }
            Refusal::Degraded => {
                error.message("A volume of the server is missing: what is left can be read, and not changed.")
            }
            Refusal::OutOfReach => {
                error.message("A volume of the server is missing, and what was asked for may be on it.")
            }
            _ => error,
        }
    }
}

/// What a signature's defect is answered with.
pub fn auth_error(error: AuthError) -> S3Error {
    let (code, status, message) = error.describe();
    let known = ErrorCode::from_name(code);
    debug_assert!(
        known.is_some_and(|known| known.status() == status),
        "{code} {status}"
    );
    S3Error::new(known.unwrap_or(ErrorCode::AccessDenied)).message(message)
}

/// The engine's form of a condition on a write.
pub fn engine_condition(condition: WriteCondition) -> EngineCondition {
    match condition {
        WriteCondition::None => EngineCondition::None,
        WriteCondition::IfAbsent => EngineCondition::IfAbsent,
        WriteCondition::IfExists => EngineCondition::IfExists,
        WriteCondition::IfMatch(etag) => EngineCondition::IfMatch(engine_etag(etag)),
        WriteCondition::IfMatchNone => EngineCondition::IfMatchNone,
    }
}

/// The protocol's form of a tag.
pub fn etag(etag: crate::engine::ETag) -> ETag {
    ETag {
        md5: etag.md5,
        parts: etag.parts,
    }
}

/// The engine's form of a tag.
pub fn engine_etag(etag: ETag) -> crate::engine::ETag {
    crate::engine::ETag {
        md5: etag.md5,
        parts: etag.parts,
    }
}
