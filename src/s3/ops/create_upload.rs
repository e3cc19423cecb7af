//! CreateMultipartUpload (S3 API reference, "CreateMultipartUpload").

use crate::engine::Machine;
use crate::s3::checksum::headers::UploadChecksum;
use crate::s3::error::S3Result;
use crate::s3::metadata::Attributes;
use crate::s3::ops::upload_id;
use crate::s3::request::{ObjectName, Request};
use crate::s3::service::{Response, Service};
use crate::s3::xml::responses;

pub async fn create_upload<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    name: ObjectName<'_>,
) -> S3Result<Response<I>> {
    let bucket = service.bucket(name.bucket)?;
    request.refuse_unbuilt()?;
    let mut attributes = Attributes::from_headers(request.fields())?;
    attributes.upload_checksum = UploadChecksum::from_headers(request.fields())?;
    let key = name.key.as_bytes();
    let upload = service
        .engine
        .create_upload(bucket.id, key, attributes.encode())
        .await?;

    let mut out = Vec::new();
    responses::initiate_multipart_upload(&mut out, name.bucket.as_str(), key, &upload_id::text(upload));
    let mut response = Response::xml(200, out);
    if let Some(checksum) = attributes.upload_checksum {
        response = response
            .header("x-amz-checksum-algorithm", checksum.algorithm.name())
            .header("x-amz-checksum-type", checksum.kind.name());
    }
    Ok(response)
}
