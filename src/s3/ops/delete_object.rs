//! DeleteObject (S3 API reference, "DeleteObject"). Deleting what is not there succeeds.

use crate::engine::Machine;
use crate::s3::error::{S3Error, S3Result};
use crate::s3::request::{ObjectName, Request};
use crate::s3::service::{Response, Service};

/// Headers that make a delete conditional. None is built, and to pass over one would delete what it protects.
const CONDITIONS: [&str; 3] = [
    "If-Match",
    "x-amz-if-match-last-modified-time",
    "x-amz-if-match-size",
];

pub async fn delete_object<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    name: ObjectName<'_>,
) -> S3Result<Response<I>> {
    let bucket = service.bucket(name.bucket)?;
    request.check_version()?;
    if let Some(condition) = CONDITIONS.into_iter().find(|name| request.field(name).is_some()) {
        return Err(S3Error::header_not_implemented(condition));
    }
    service.engine.delete(bucket.id, name.key.as_bytes()).await?;
    Ok(Response::empty(204))
}
