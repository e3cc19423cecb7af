//! From a request to its operation: one place where a request is authenticated, one where it is allowed (`access`), and
//! one `match` that says which operation it is.

use crate::engine::Machine;
use crate::http::{Head, Method, Query};
use crate::s3::access;
use crate::s3::auth::{self, AuthError, SignedRequest};
use crate::s3::error::{ErrorCode, S3Error, S3Result};
use crate::s3::names::{self, BucketName, Target};
use crate::s3::operation::Operation;
use crate::s3::ops;
use crate::s3::refusal::auth_error;
use crate::s3::request::{ObjectName, Request};
use crate::s3::service::{Receive, Response, Service};
use crate::s3::subresource;

/// Answers a request, and puts into `operation` which one it is, once that is known. Errors become S3's XML.
pub async fn serve<I: Machine, R: Receive>(
    service: &Service<I>,
    head: &Head,
    body: &mut R,
    request_id: &str,
    operation: &mut Operation,
) -> Response<I> {
    match answer(service, head, body, operation).await {
        Ok(response) => response,
        Err(error) => error_response(&error, head, request_id),
    }
}

/// The response that tells of an error.
pub fn error_response<I: Machine>(error: &S3Error, head: &Head, request_id: &str) -> Response<I> {
    let mut response = match error.has_body() && head.method() != Method::Head {
        true => {
            let mut xml = Vec::new();
            error.render(&mut xml, head.path().as_bytes(), request_id, "weft");
            Response::xml(error.status(), xml)
        }
        false => Response::empty(error.status()),
    };
    for (name, value) in &error.headers {
        response = response.header(name, value);
    }
    response
}

async fn answer<I: Machine, R: Receive>(
    service: &Service<I>,
    head: &Head,
    body: &mut R,
    operation: &mut Operation,
) -> S3Result<Response<I>> {
    let query = Query::parse(head.query()).map_err(|_| S3Error::new(ErrorCode::InvalidURI))?;
    refuse_repeated(&query)?;
    refuse_expectation(head)?;
    let host = head.host().unwrap_or("").as_bytes();
    let domain = service.domain.as_deref();
    let now_ms = service.engine.io().unix_ms();
    let users = service.users();
    let identity = {
        let host_bucket = domain.and_then(|domain| names::host_bucket(host, domain));
        let signed = SignedRequest {
            method: head.method_str(),
            path: head.path(),
            query: head.query(),
            headers: head,
            host_bucket: host_bucket.as_deref(),
        };
        let now_s = (now_ms / 1000) as i64;
        match auth::authenticate(&signed, now_s, &**users, &mut service.keys.borrow_mut()) {
            Err(AuthError::Anonymous) => None,
            identity => Some(identity.map_err(auth_error)?),
        }
    };
    let target = names::split(host, head.path().as_bytes(), domain);
    let (user, payload, signed) = match identity {
        None => {
            let target = target
                .as_ref()
                .map_err(|_| S3Error::new(ErrorCode::AccessDenied))?;
            access::check_anonymous(service, target)?;
            let payload = auth::unsigned_payload(head).map_err(auth_error)?;
            (users.anonymous(), payload, None)
        }
        Some(identity) => {
            let user = users.find(&identity.access_key);
            let user = user.ok_or(S3Error::new(ErrorCode::InvalidAccessKeyId))?;
            (user, identity.payload, Some(identity.signed))
        }
    };
    let target = target?;
    let mut request = Request::new(head, &query, user, payload, signed, body.peer(), now_ms);
    request.refuse_repeated_fields()?;
    let method = head.method();
    let setting = match &target {
        Target::Service => {
            *operation = Operation::on_service(method)?;
            None
        }
        Target::Bucket(_) => {
            let named = subresource::of_bucket(&query)?;
            *operation = Operation::on_bucket(method, head.method_str(), named, &query)?;
            named
        }
        Target::Object(..) => {
            let named = subresource::of_object(method, &query)?;
            let is_copy = request.field("x-amz-copy-source").is_some();
            *operation = Operation::on_object(method, head.method_str(), named, &query, is_copy)?;
            named
        }
    };
    access::check(service, &request, *operation, &target, setting)?;
    let answered = match &target {
        Target::Service => ops::list_buckets::list_buckets(service, &request),
        Target::Bucket(name) => on_bucket(service, &mut request, name, body, *operation, setting).await,
        Target::Object(bucket, key) => {
            let name = ObjectName { bucket, key };
            on_object(service, &mut request, name, body, *operation, setting).await
        }
    };
    answered.map_err(|error| access::veil(service, error, &request, *operation, &target))
}

async fn on_bucket<I: Machine, R: Receive>(
    service: &Service<I>,
    request: &mut Request<'_>,
    name: &BucketName,
    body: &mut R,
    operation: Operation,
    setting: Option<&str>,
) -> S3Result<Response<I>> {
    match operation {
        Operation::CreateBucket => ops::bucket::create_bucket(service, request, name, body).await,
        Operation::HeadBucket => ops::bucket::head_bucket(service, name),
        Operation::DeleteBucket => ops::bucket::delete_bucket(service, name).await,
        Operation::GetBucketLocation => ops::bucket::get_location(service, name),
        Operation::BucketSetting => {
            ops::settings::bucket_setting(service, request, name, body, setting.unwrap_or_default()).await
        }
        Operation::ListObjects => ops::list_objects::list_objects_v1(service, request, name).await,
        Operation::ListObjectsV2 => ops::list_objects::list_objects_v2(service, request, name).await,
        Operation::ListObjectVersions => ops::list_objects::list_versions(service, request, name).await,
        Operation::ListMultipartUploads => ops::list_uploads::list_uploads(service, request, name).await,
        Operation::DeleteObjects => ops::delete_objects::delete_objects(service, request, name, body).await,
        other => unreachable!("{other:?} is not asked of a bucket"),
    }
}

async fn on_object<I: Machine, R: Receive>(
    service: &Service<I>,
    request: &mut Request<'_>,
    name: ObjectName<'_>,
    body: &mut R,
    operation: Operation,
    setting: Option<&str>,
) -> S3Result<Response<I>> {
    match operation {
        Operation::GetObject => ops::get_object::get_object(service, request, name).await,
        Operation::HeadObject => ops::get_object::head_object(service, request, name).await,
        Operation::PutObject => ops::put_object::put_object(service, request, name, body).await,
        Operation::CopyObject => ops::copy_object::copy_object(service, request, name).await,
        Operation::DeleteObject => ops::delete_object::delete_object(service, request, name).await,
        Operation::ObjectSetting => {
            ops::settings::object_setting(service, request, name, setting.unwrap_or_default()).await
        }
        Operation::CreateMultipartUpload => ops::create_upload::create_upload(service, request, name).await,
        Operation::UploadPart => ops::upload_part::upload_part(service, request, name, body).await,
        Operation::UploadPartCopy => ops::copy_object::upload_part_copy(service, request, name).await,
        Operation::ListParts => ops::list_parts::list_parts(service, request, name).await,
        Operation::CompleteMultipartUpload => {
            ops::complete_upload::complete_upload(service, request, name, body).await
        }
        Operation::AbortMultipartUpload => ops::abort_upload::abort_upload(service, request, name).await,
        other => unreachable!("{other:?} is not asked of an object"),
    }
}

/// A parameter that came twice would be signed in one order and read in another.
fn refuse_repeated(query: &Query) -> S3Result<()> {
    let mut names: Vec<&str> = query.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(S3Error::invalid_argument(
            "A query parameter may be given once",
            pair[0],
            "",
        )),
    }
}

/// The only expectation that there is, is that of `100 Continue` (RFC 9110 section 10.1.1).
fn refuse_expectation(head: &Head) -> S3Result<()> {
    match head.header("expect") {
        Some(expected) if !expected.eq_ignore_ascii_case(b"100-continue") => {
            Err(S3Error::new(ErrorCode::ExpectationFailed))
        }
        Some(_) | None => Ok(()),
    }
}
