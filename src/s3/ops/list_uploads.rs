//! ListMultipartUploads (S3 API reference, "ListMultipartUploads"): by key, then by when they began; a common prefix costs
//! one seek.

use crate::engine::{KeyPage, KeyWalk, Machine, UploadWalk, WalkItem};
use crate::s3::error::{S3Error, S3Result};
use crate::s3::metadata::Shown;
use crate::s3::names::BucketName;
use crate::s3::ops::list_objects::{key_encoding, prefixes};
use crate::s3::ops::{glance_at, hold_page, upload_id};
use crate::s3::request::Request;
use crate::s3::service::{Response, Service};
use crate::s3::xml::responses::{self, UploadView, UploadsPage};

pub async fn list_uploads<I: Machine>(
    service: &Service<I>,
    request: &Request<'_>,
    name: &BucketName,
) -> S3Result<Response<I>> {
    let bucket = service.bucket(name)?;
    let text = |name| request.query.get(name).unwrap_or("");
    let (key_marker, id_marker) = (text("key-marker"), text("upload-id-marker"));
    // An id marker counts only with a key marker, as S3 has it.
    let after_upload = match (key_marker, id_marker) {
        ("", _) | (_, "") => None,
        (_, id) => Some(
            upload_id::parse(id)
                .map_err(|_| S3Error::invalid_argument("Invalid uploadId marker", "upload-id-marker", id))?,
        ),
    };
    let walk = UploadWalk {
        keys: KeyWalk {
            prefix: text("prefix").as_bytes().to_vec(),
            delimiter: text("delimiter").as_bytes().to_vec(),
            after: (!key_marker.is_empty()).then(|| key_marker.as_bytes().to_vec()),
            max: request.page_size("max-uploads")?,
        },
        after_upload,
    };
    let _held = hold_page(service, walk.keys.max).await?;
    let listed = match walk.keys.max {
        // S3 says of no entries that there are no more.
        0 => KeyPage::default(),
        _ => {
            let walk = walk.clone();
            service.engine.list_uploads(bucket.id, walk, glance_at).await?
        }
    };

    let last = listed.items.last().filter(|_| listed.truncated);
    let next_id = match last {
        Some(WalkItem::Key(_, upload)) => Some(upload_id::text(upload.id)),
        Some(WalkItem::CommonPrefix(_)) | None => None,
    };
    let owner = service.owner(&bucket);
    let page = UploadsPage {
        bucket: name.as_str(),
        key_marker: key_marker.as_bytes(),
        upload_id_marker: id_marker.as_bytes(),
        next_key_marker: last.map(WalkItem::name),
        next_upload_id_marker: next_id.as_deref(),
        prefix: &walk.keys.prefix,
        delimiter: &walk.keys.delimiter,
        max_uploads: walk.keys.max,
        encoding: key_encoding(request)?,
        truncated: listed.truncated,
        owner: owner.as_owner(),
    };
    let uploads = listed.items.iter().filter_map(|item| match item {
        WalkItem::Key(key, upload) => Some((key, upload, upload_id::text(upload.id))),
        WalkItem::CommonPrefix(_) => None,
    });
    let uploads: Vec<_> = uploads.collect();
    let uploads = uploads.iter().map(|(key, upload, id)| {
        let shown = Shown::of(upload.glance);
        UploadView {
            key,
            upload_id: id,
            initiated_unix_ms: upload.initiated_ms,
            storage_class: shown.storage_class.as_str(),
            checksum: shown.checksum,
        }
    });
    let mut out = Vec::new();
    responses::list_uploads(&mut out, &page, uploads, prefixes(&listed));
    Ok(Response::xml(200, out))
}
