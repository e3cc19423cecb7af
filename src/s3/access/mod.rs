//! Who may do what: the one place where a request is allowed or refused.
//!
//! `route` asks here once an operation is known and before anything of it is done; operations ask only about what their
//! bodies name (each key of DeleteObjects). `needs` is the table of what each operation takes, `context` what policies find
//! in a request.
//!
//! Invariants: what is not in the table is the root user's alone; what is refused has changed nothing, and says nothing of
//! what is there. The root user's way is short: no policy is looked at where none is kept.

mod context;
mod needs;

use crate::engine::Machine;
use crate::policy::{self, Ask};
use crate::s3::auth::Rank;
use crate::s3::error::{ErrorCode, S3Error, S3Result};
use crate::s3::names::{BucketName, CopySource, Key, Target};
use crate::s3::operation::Operation;
use crate::s3::request::Request;
use crate::s3::service::Service;
use context::RequestContext;
use needs::{Need, Of};

/// What is asked for: a bucket, or what is or could be in it.
#[derive(Clone, Copy)]
struct Place<'a> {
    bucket: &'a BucketName,
    key: Option<&'a Key>,
}

/// Refuses what the requester may not do.
///
/// # Errors
/// `AccessDenied`; `NoSuchBucket`, which S3 tells everyone; what is wrong with the name of a copy's source.
pub fn check<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    operation: Operation,
    target: &Target,
    setting: Option<&str>,
) -> S3Result<()> {
    if request.user.rank == Rank::Root {
        return Ok(());
    }
    // Whoever hung up before it was known from where has no address that a policy could look at.
    if request.peer.is_none() {
        return Err(denied());
    }
    let target = match target {
        Target::Service => None,
        Target::Bucket(bucket) => Some(Place { bucket, key: None }),
        Target::Object(bucket, key) => Some(Place {
            bucket,
            key: Some(key),
        }),
    };
    if let Some(target) = target
        && operation != Operation::CreateBucket
    {
        service.bucket(target.bucket)?;
    }
    let Some(needs) = needs::of(operation, request, setting) else {
        return Err(denied());
    };
    for Need { action, of } in needs {
        let is_allowed = match of {
            Of::Target => is_allowed(service, request, action, target),
            Of::CopySource => {
                let source = CopySource::parse(request.field("x-amz-copy-source").unwrap_or(b""))?;
                service.bucket(&source.bucket)?;
                let place = Place {
                    bucket: &source.bucket,
                    key: Some(&source.key),
                };
                is_allowed(service, request, action, Some(place))
            }
        };
        if !is_allowed {
            return Err(denied());
        }
    }
    Ok(())
}

/// Refuses to delete a key that the body of a request names.
///
/// # Errors
/// `AccessDenied`.
pub fn check_delete<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    bucket: &BucketName,
    key: &Key,
    version: Option<&str>,
) -> S3Result<()> {
    let place = Place {
        bucket,
        key: Some(key),
    };
    let is_allowed =
        request.user.rank == Rank::Root || is_allowed(service, request, needs::delete(version), Some(place));
    is_allowed.then_some(()).ok_or_else(denied)
}

/// What a requester is told that may not list the bucket: whether something is there is not theirs to know.
pub fn veil<I: Machine>(
    service: &Service<I>,
    error: S3Error,
    request: &Request<'_>,
    operation: Operation,
    target: &Target,
) -> S3Error {
    let is_telling = matches!(error.code, ErrorCode::NoSuchKey | ErrorCode::NoSuchVersion);
    if !is_telling || request.user.rank == Rank::Root {
        return error;
    }
    let is_copy = matches!(operation, Operation::CopyObject | Operation::UploadPartCopy);
    let source = CopySource::parse(request.field("x-amz-copy-source").unwrap_or(b""));
    let bucket = match (target, &source) {
        (_, Ok(source)) if is_copy => &source.bucket,
        (Target::Object(bucket, _) | Target::Bucket(bucket), _) => bucket,
        (Target::Service, _) => return error,
    };
    let place = Place { bucket, key: None };
    match is_allowed(service, request, "s3:ListBucket", Some(place)) {
        true => error,
        false => denied(),
    }
}

fn is_allowed<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    action: &str,
    place: Option<Place<'_>>,
) -> bool {
    let requester = request.user.requester();
    let resource = arn(place);
    let ask = Ask {
        action,
        resource: &resource,
    };
    let owner = Some(service.owner().id);
    let context = RequestContext { request, owner };
    policy::evaluate(&requester, ask, owner, None, &context).is_allowed()
}

/// Keys are UTF-8, so that nothing is lost.
fn arn(place: Option<Place<'_>>) -> String {
    match place {
        None => "arn:aws:s3:::*".to_owned(),
        Some(Place { bucket, key: None }) => format!("arn:aws:s3:::{}", bucket.as_str()),
        Some(Place {
            bucket,
            key: Some(key),
        }) => {
            let key = String::from_utf8_lossy(key.as_bytes());
            format!("arn:aws:s3:::{}/{key}", bucket.as_str())
        }
    }
}

fn denied() -> S3Error {
    S3Error::new(ErrorCode::AccessDenied)
}
