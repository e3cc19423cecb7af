//! UploadPart (S3 API reference, "UploadPart"). Parts of one upload come in any order and at the same time.

use crate::engine::{BucketId, Machine, PartPage, UploadId};
use crate::limits::PARTS_MAX;
use crate::s3::checksum::headers::{UploadChecksum, type_mismatch};
use crate::s3::conditions::ETag;
use crate::s3::error::{S3Error, S3Result};
use crate::s3::metadata::Attributes;
use crate::s3::ops::{checksum_header, upload_id, view};
use crate::s3::payload::{Payload, Sums};
use crate::s3::request::{ObjectName, Request, number};
use crate::s3::service::{Receive, Response, Service};

/// Which part of which upload a request is about.
pub struct PartName {
    pub upload: UploadId,
    pub number: u16,
}

impl PartName {
    /// Errors: `NoSuchUpload`, `InvalidArgument`.
    pub fn read(request: &Request<'_>) -> S3Result<PartName> {
        let text = request.query.get("partNumber").unwrap_or("");
        let parsed = number(text.as_bytes()).filter(|number| (1..=PARTS_MAX).contains(number));
        let parsed = parsed.ok_or_else(|| {
            let message = "Part number must be an integer between 1 and 10000, inclusive";
            S3Error::invalid_argument(message, "partNumber", text)
        })?;
        let upload = upload_id::parse(request.query.get("uploadId").unwrap_or(""))?;
        Ok(PartName {
            upload,
            number: parsed,
        })
    }

    /// What the upload announced, if it is there.
    ///
    /// Errors: `NoSuchUpload`.
    pub async fn announced<I: Machine>(
        &self,
        service: &Service<I>,
        bucket: BucketId,
        name: ObjectName<'_>,
    ) -> S3Result<Option<UploadChecksum>> {
        let PartPage { upload, .. } = service
            .engine
            .list_parts(bucket, name.key.as_bytes(), self.upload, PARTS_MAX, 0)
            .await?;
        Ok(view(&upload.attributes).upload_checksum)
    }
}

pub async fn upload_part<I: Machine, R: Receive>(
    service: &Service<I>,
    request: &mut Request<'_>,
    name: ObjectName<'_>,
    body: &mut R,
) -> S3Result<Response<I>> {
    let bucket = service.bucket(name.bucket)?;
    let part = PartName::read(request)?;
    request.refuse_unbuilt()?;
    request.refuse_conditions()?;
    let announced = part.announced(service, bucket.id, name).await?;
    request.require_length()?;
    let mut payload = Payload::open(
        &service.lanes,
        request,
        body,
        announced.map(|announced| announced.algorithm),
    )?;
    if let (Some(announced), Some(sent)) = (announced, payload.checksum_algorithm())
        && announced.algorithm != sent
    {
        return Err(type_mismatch(Some(announced.algorithm), Some(sent)));
    }

    let mut writer = service.engine.receive_body(payload.length());
    payload.store(&mut writer).await?;
    let Sums { md5, checksum } = payload.finish()?;
    let stored = writer.finish().await?;

    let attributes = Attributes::of_part(checksum).encode();
    let key = name.key.as_bytes();
    service
        .engine
        .put_part(bucket.id, key, part.upload, part.number, md5, attributes, stored)
        .await?;

    let tag = ETag { md5, parts: 0 };
    let mut response = Response::empty(200).header("ETag", tag.quoted().to_string());
    if let Some(checksum) = &checksum {
        let (header, value) = checksum_header(checksum);
        response = response.header(header, value);
    }
    Ok(response)
}
