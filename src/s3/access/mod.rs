//! Who may do what: the one place where a request is allowed or refused.
//!
//! `route` asks here once an operation is known and before anything of it is done; operations ask only about what their
//! bodies name (each key of DeleteObjects). `needs` is the table of what each operation takes, `context` what policies find
//! in a request, `policies` has those of buckets at hand.
//!
//! Invariants: what is not in the table is the root user's alone; what is refused has changed nothing, and says nothing of
//! what is there. The root user's way is short: no policy is looked at where none is kept.

mod context;
mod needs;
mod policies;

pub use policies::Policies;

use crate::engine::Machine;
use crate::limits::POLICY_HEADER_BYTES_MAX;
use crate::policy::{self, Ask};
use crate::s3::auth::Rank;
use crate::s3::configuration::{PublicAccessBlock, kind};
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

/// Whether the bucket of that name has a say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing<'a> {
    Asked,
    /// As for a listing that has only this key.
    Listed(&'a Key),
    /// Another is to be made, and whose this one is comes to light then.
    PassedOver,
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
    let is_root = request.user.rank == Rank::Root;
    let target = match target {
        Target::Service => None,
        Target::Bucket(bucket) => Some(Place { bucket, key: None }),
        Target::Object(bucket, key) => Some(Place {
            bucket,
            key: Some(key),
        }),
    };
    check_expected_owners(service, request, target)?;
    let is_long = |name| {
        request
            .field(name)
            .is_some_and(|value| value.len() > POLICY_HEADER_BYTES_MAX)
    };
    if !is_root && ["user-agent", "referer"].into_iter().any(is_long) {
        return Err(S3Error::invalid_request(
            "User-Agent and Referer may have 1024 bytes each.",
        ));
    }
    // Whoever hung up before it was known from where has no address that a policy could look at.
    if !is_root && request.peer.is_none() {
        return Err(denied());
    }
    if !is_root
        && let Some(target) = target
        && operation != Operation::CreateBucket
    {
        service.bucket(target.bucket)?;
    }
    let is_overriding = || {
        request
            .query
            .iter()
            .any(|(name, _)| name.starts_with("response-"))
    };
    if request.user.rank == Rank::Anonymous && is_overriding() {
        return Err(S3Error::invalid_request(
            "Request specific response headers cannot be used for anonymous GET requests.",
        ));
    }
    let is_copy = matches!(operation, Operation::CopyObject | Operation::UploadPartCopy);
    if is_root && !is_copy && target.is_none_or(|target| !has_policy(service, target.bucket)) {
        return Ok(());
    }
    let Some(needs) = needs::of(operation, request, setting) else {
        return if is_root { Ok(()) } else { Err(denied()) };
    };
    for Need { action, of } in needs {
        let is_allowed = match of {
            Of::Target => is_allowed(service, request, action, target, Existing::Asked),
            Of::NewBucket => is_allowed(service, request, action, target, Existing::PassedOver),
            Of::CopySource => {
                let source = CopySource::parse(request.field("x-amz-copy-source").unwrap_or(b""))?;
                let place = Place {
                    bucket: &source.bucket,
                    key: Some(&source.key),
                };
                if !is_root {
                    service.bucket(&source.bucket)?;
                }
                is_allowed(service, request, action, Some(place), Existing::Asked)
            }
        };
        if !is_allowed {
            return Err(denied());
        }
    }
    Ok(())
}

/// Refuses whoever signs nothing where no policy could let them in, before anything else of the request is looked at.
///
/// # Errors
/// `AccessDenied`, whether there is such a bucket or not.
pub fn check_anonymous<I: Machine>(service: &Service<I>, target: &Target) -> S3Result<()> {
    match target {
        Target::Service => Err(denied()),
        Target::Bucket(bucket) | Target::Object(bucket, _) => match has_policy(service, bucket) {
            true => Ok(()),
            false => Err(denied()),
        },
    }
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
    match is_allowed(
        service,
        request,
        needs::delete(version),
        Some(place),
        Existing::Asked,
    ) {
        true => Ok(()),
        false => Err(denied()),
    }
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
    let (bucket, key) = match (target, &source) {
        (_, Ok(source)) if is_copy => (&source.bucket, &source.key),
        (Target::Object(bucket, key), _) => (bucket, key),
        (Target::Bucket(_) | Target::Service, _) => return error,
    };
    let place = Place { bucket, key: None };
    match is_allowed(
        service,
        request,
        "s3:ListBucket",
        Some(place),
        Existing::Listed(key),
    ) {
        true => error,
        false => denied(),
    }
}

fn is_allowed<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    action: &str,
    place: Option<Place<'_>>,
    existing: Existing<'_>,
) -> bool {
    let user = request.user;
    let is_root = user.rank == Rank::Root;
    // Where there is none the operation will miss it.
    let bucket = place
        .filter(|_| existing != Existing::PassedOver)
        .and_then(|place| Some((place.bucket, service.bucket(place.bucket).ok()?)));
    let owner = bucket.as_ref().map(|(_, bucket)| service.owner_id(bucket));
    let requester = user.requester();
    let is_own = requester.principal.account().is_some() && owner == requester.principal.account();
    let kept = bucket
        .as_ref()
        .and_then(|(name, bucket)| service.policies.of(name, bucket));
    if let Some(kept) = &kept {
        // No policy keeps a bucket's owner from mending it, unless it was set to.
        let is_owner = is_own && user.rank == Rank::Owner && !kept.binds_owner;
        if POLICY_ACTIONS.contains(&action) && (is_root || is_owner) {
            return true;
        }
        if kept.policy.is_none() {
            return is_root;
        }
    }
    let restricts = |(_, bucket): &(_, _)| PublicAccessBlock::of(bucket).restrict_public_buckets;
    let is_restricted =
        !is_own && kept.as_ref().is_some_and(|kept| kept.is_public) && bucket.as_ref().is_some_and(restricts);
    let resource = arn(place);
    let ask = Ask {
        action,
        resource: &resource,
    };
    let context = RequestContext {
        request,
        owner,
        listed: match existing {
            Existing::Listed(key) => Some(key),
            Existing::Asked | Existing::PassedOver => None,
        },
    };
    let policy = kept.as_ref().and_then(|kept| kept.policy.as_ref());
    let verdict = policy::evaluate(&requester, ask, owner, policy, &context);
    match is_root {
        true => !verdict.denied,
        // A public bucket that is restricted gives nothing to others; what it denies stays denied.
        false if is_restricted => false,
        false => verdict.is_allowed(),
    }
}

/// By which a bucket's policy is read, changed and removed.
const POLICY_ACTIONS: [&str; 3] = [
    "s3:GetBucketPolicy",
    "s3:PutBucketPolicy",
    "s3:DeleteBucketPolicy",
];

fn has_policy<I: Machine>(service: &Service<I>, bucket: &BucketName) -> bool {
    let configuration = service.engine.configuration(bucket.as_str());
    configuration.is_some_and(|configuration| configuration.get(kind::POLICY).is_some())
}

/// The headers with which a client makes sure of whose bucket it is about.
fn check_expected_owners<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    target: Option<Place<'_>>,
) -> S3Result<()> {
    let check = |field: &str, bucket: &BucketName| {
        let Some(expected) = request.field(field) else {
            return Ok(());
        };
        let is_expected = match service.engine.bucket(bucket.as_str()) {
            Ok(bucket) => service.owner_id(&bucket).as_bytes() == expected,
            Err(_) => request.user.account.as_bytes() == expected,
        };
        is_expected.then_some(()).ok_or_else(denied)
    };
    if let Some(target) = target {
        check("x-amz-expected-bucket-owner", target.bucket)?;
    } else if let Some(expected) = request.field("x-amz-expected-bucket-owner")
        && expected != request.user.account.as_bytes()
    {
        return Err(denied());
    }
    const OF_SOURCE: &str = "x-amz-source-expected-bucket-owner";
    match request.field(OF_SOURCE) {
        None => Ok(()),
        Some(_) => {
            let source = CopySource::parse(request.field("x-amz-copy-source").unwrap_or(b""));
            source.map_or_else(|_| Err(denied()), |source| check(OF_SOURCE, &source.bucket))
        }
    }
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
