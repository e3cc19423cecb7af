//! ListParts (S3 API reference, "ListParts").

use crate::engine::Machine;
use crate::limits::PARTS_MAX;
use crate::s3::conditions::ETag;
use crate::s3::error::S3Result;
use crate::s3::ops::{hold_page, upload_id, view};
use crate::s3::request::{ObjectName, Request};
use crate::s3::service::{Response, Service};
use crate::s3::xml::responses::{self, PartView, PartsPage};

pub async fn list_parts<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    name: ObjectName<'_>,
) -> S3Result<Response<I>> {
    let bucket = service.bucket(name.bucket)?;
    let id = request.query.get("uploadId").unwrap_or("");
    let upload = upload_id::parse(id)?;
    let max = request.page_size("max-parts")?;
    let marker = request.number::<u32>("part-number-marker")?.unwrap_or(0);
    let after = u16::try_from(marker).unwrap_or(PARTS_MAX).min(PARTS_MAX);
    let _held = hold_page(service, max).await?;
    let page = service
        .engine
        .list_parts(bucket.id, name.key.as_bytes(), upload, after, max)
        .await?;
    let announced = view(&page.upload.attributes);
    let truncated = page.truncated && max > 0;
    let owner = service.owner(&bucket);
    let head = PartsPage {
        bucket: name.bucket.as_str(),
        key: name.key.as_bytes(),
        upload_id: id,
        part_number_marker: marker,
        next_part_number_marker: page
            .parts
            .last()
            .filter(|_| truncated)
            .map(|&(number, ..)| number.into()),
        max_parts: max,
        truncated,
        owner: owner.as_owner(),
        storage_class: announced.storage_class.as_str(),
        checksum: announced
            .upload_checksum
            .map(|checksum| (checksum.algorithm, checksum.kind)),
    };
    let parts = page.parts.iter().map(|(number, _, part)| PartView {
        number: *number,
        modified_unix_ms: part.modified_ms,
        etag: ETag {
            md5: part.md5,
            parts: 0,
        },
        size: part.size,
        checksum: view(&part.attributes).checksum,
    });
    let mut out = Vec::new();
    responses::list_parts(&mut out, &head, parts);
    Ok(Response::xml(200, out))
}
