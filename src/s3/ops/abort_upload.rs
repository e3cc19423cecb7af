//! AbortMultipartUpload (S3 API reference, "AbortMultipartUpload").

use crate::engine::Machine;
use crate::s3::error::S3Result;
use crate::s3::ops::upload_id;
use crate::s3::request::{ObjectName, Request};
use crate::s3::service::{Response, Service};

pub async fn abort_upload<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    name: ObjectName<'_>,
) -> S3Result<Response<I>> {
    let bucket = service.bucket(name.bucket)?;
    let upload = upload_id::parse(request.query.get("uploadId").unwrap_or(""))?;
    service
        .engine
        .abort_upload(bucket.id, name.key.as_bytes(), upload)
        .await?;
    Ok(Response::empty(204))
}
