//! What is answered without S3: health, heads that are refused, requests before the engine has started, and those
//! for which there is no room.
//!
//! Health is for whoever watches the daemon: `/-/live` says that the process answers, `/-/ready` that it takes
//! requests, or what it does instead. No bucket can be called `-`. With virtual-host style the path may be a key's, so there only hosts
//! that name no bucket have health.

use super::Machine;
use super::core::{Core, RequestId};
use super::watch::Ended;
use crate::http::{Head, HeadError, Method};
use crate::s3::error::{ErrorCode, S3Error};
use crate::s3::service::{HeaderLines, Response, ResponseBody};

/// The answer to a question after health; `None` for any other request.
pub fn health(core: &Core, head: &Head) -> Option<Response<Machine>> {
    let path = head.path();
    if !path.starts_with("/-/")
        || !matches!(head.method(), Method::Get | Method::Head)
        || names_bucket(core, head)
    {
        return None;
    }
    let why_not = match path {
        "/-/live" => None,
        "/-/ready" => core.why_not_ready(),
        _ => return None,
    };
    let (status, text) = match why_not {
        None => (200, "ok\n".to_owned()),
        Some(why) => (503, format!("not ready: {why}\n")),
    };
    let mut headers = HeaderLines::default();
    headers.push("Content-Type", "text/plain");
    headers.push("Cache-Control", "no-store");
    Some(Response {
        status,
        headers,
        body: ResponseBody::Bytes(text.into()),
    })
}

/// Whether the host is `BUCKET.DOMAIN`, with or without a port.
fn names_bucket(core: &Core, head: &Head) -> bool {
    let (Some(domain), Some(host)) = (&core.domain, head.host()) else {
        return false;
    };
    crate::s3::names::host_bucket(host.as_bytes(), domain).is_some()
}

/// The answer to a head that is none.
pub fn refused_head(error: HeadError, request_id: &RequestId) -> Response<Machine> {
    let code = match error {
        HeadError::TargetTooLong => ErrorCode::InvalidURI,
        HeadError::BadTarget => ErrorCode::InvalidURI,
        HeadError::TooLarge | HeadError::TooManyHeaders => ErrorCode::RequestHeaderSectionTooLarge,
        HeadError::UnknownTransferCoding | HeadError::UnsupportedVersion => ErrorCode::NotImplemented,
        HeadError::MalformedRequestLine
        | HeadError::MalformedField
        | HeadError::MalformedLineEnd
        | HeadError::BadHost
        | HeadError::BadContentLength
        | HeadError::BadTransferEncoding
        | HeadError::AmbiguousFraming => ErrorCode::BadRequest,
    };
    let error_text = S3Error::new(code).message(match error {
        HeadError::TargetTooLong => "The request target is too long.",
        HeadError::BadTarget => "The request target is not a path or an http URI.",
        HeadError::TooLarge => "The request header section exceeds 16 KiB.",
        HeadError::TooManyHeaders => "The request has more than 100 header fields.",
        HeadError::UnsupportedVersion => "Only HTTP/1.1 and HTTP/1.0 are served here.",
        HeadError::UnknownTransferCoding => "A transfer coding other than chunked is not implemented.",
        HeadError::MalformedRequestLine => "The request line is malformed.",
        HeadError::MalformedField => "A header field is malformed.",
        HeadError::MalformedLineEnd => "A line of the request head does not end in CR LF.",
        HeadError::BadHost => "The Host header is missing, repeated or malformed.",
        HeadError::BadContentLength => "The Content-Length header is repeated or malformed.",
        HeadError::BadTransferEncoding => "The Transfer-Encoding header is repeated or malformed.",
        HeadError::AmbiguousFraming => "The request has both Content-Length and Transfer-Encoding.",
    });
    Response {
        status: error.status(),
        ..self::error(error_text, "", request_id)
    }
}

/// The answer to a head that did not come in time, or before others needed its connection's place.
pub fn ended_head(why: Ended, request_id: &RequestId) -> Response<Machine> {
    match why {
        Ended::TooSlow => error(ErrorCode::RequestTimeout.into(), "", request_id),
        Ended::GaveWay => no_room("", request_id),
    }
}

/// The answer to S3 requests on a connection over the bound.
pub fn no_room(path: &str, request_id: &RequestId) -> Response<Machine> {
    let full = S3Error::new(ErrorCode::SlowDown)
        .message("All connections of this server are in use. Please try again later.")
        .header("Retry-After", "1");
    error(full, path, request_id)
}

/// The answer to S3 requests before the engine has started, and the one for a client to try again.
pub fn not_started(head: &Head, request_id: &RequestId) -> Response<Machine> {
    let starting = S3Error::new(ErrorCode::ServiceUnavailable)
        .message("The service is starting. Please try again.")
        .header("Retry-After", "1");
    error(starting, head.path(), request_id)
}

/// `error` as S3 answers it.
pub fn error(error: S3Error, resource: &str, request_id: &RequestId) -> Response<Machine> {
    let mut headers = HeaderLines::default();
    headers.push("Content-Type", "application/xml");
    for (name, value) in &error.headers {
        headers.push(name, value);
    }
    let mut body = Vec::new();
    error.render(&mut body, resource.as_bytes(), request_id.as_str(), "weft");
    Response {
        status: error.status(),
        headers,
        body: ResponseBody::Bytes(body),
    }
}
