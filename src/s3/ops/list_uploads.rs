//! ListMultipartUploads (S3 API reference, "ListMultipartUploads"): by key, then by when they began.

use crate::engine::{BucketId, KeyWalk, Machine, Upload, UploadId, UploadPage, UploadWalk};
use crate::limits::PAGE_MAX;
use crate::s3::error::{S3Error, S3Result};
use crate::s3::names::BucketName;
use crate::s3::ops::list_objects::key_encoding;
use crate::s3::ops::{hold_page, upload_id, view};
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
    let walk = KeyWalk {
        prefix: text("prefix").as_bytes().to_vec(),
        delimiter: text("delimiter").as_bytes().to_vec(),
        after: (!key_marker.is_empty()).then(|| key_marker.as_bytes().to_vec()),
        max: request.page_size("max-uploads")?,
    };
    let _held = hold_page(service, walk.max).await?;
    let folded = fold(service, bucket.id, &walk, after_upload).await;

    let ids: Vec<String> = folded
        .uploads
        .iter()
        .map(|(_, id, _)| upload_id::text(*id))
        .collect();
    let next_id = match &folded.last {
        Some(Last::Upload(_, id)) => Some(upload_id::text(*id)),
        Some(Last::Prefix(_)) | None => None,
    };
    let page = UploadsPage {
        bucket: name.as_str(),
        key_marker: key_marker.as_bytes(),
        upload_id_marker: id_marker.as_bytes(),
        next_key_marker: folded.last.as_ref().filter(|_| folded.truncated).map(Last::key),
        next_upload_id_marker: next_id.as_deref().filter(|_| folded.truncated),
        prefix: &walk.prefix,
        delimiter: &walk.delimiter,
        max_uploads: walk.max,
        encoding: key_encoding(request)?,
        truncated: folded.truncated,
        owner: service.owner(),
    };
    let uploads = folded.uploads.iter().zip(&ids).map(|((key, _, upload), id)| {
        let attributes = view(&upload.attributes);
        UploadView {
            key,
            upload_id: id,
            initiated_unix_ms: upload.initiated_ms,
            storage_class: attributes.storage_class.as_str(),
            checksum: attributes
                .upload_checksum
                .map(|checksum| (checksum.algorithm, checksum.kind)),
        }
    });
    let mut out = Vec::new();
    responses::list_uploads(
        &mut out,
        &page,
        uploads,
        folded.prefixes.iter().map(Vec::as_slice),
    );
    Ok(Response::xml(200, out))
}

#[derive(Default)]
struct Folded {
    uploads: Vec<(Vec<u8>, UploadId, Upload)>,
    prefixes: Vec<Vec<u8>>,
    last: Option<Last>,
    truncated: bool,
}

/// The last item of a page.
enum Last {
    Upload(Vec<u8>, UploadId),
    Prefix(Vec<u8>),
}

impl Last {
    fn key(&self) -> &[u8] {
        match self {
            Last::Upload(key, _) | Last::Prefix(key) => key,
        }
    }
}

/// Walks uploads page by page, folding keys at the delimiter, until the answer is full.
async fn fold<I: Machine>(
    service: &Service<I>,
    bucket: BucketId,
    walk: &KeyWalk,
    after_upload: Option<UploadId>,
) -> Folded {
    let mut folded = Folded::default();
    let mut at = UploadWalk {
        prefix: walk.prefix.clone(),
        after_key: walk.after.clone(),
        after_upload,
        max: PAGE_MAX,
    };
    // A marker that lies within a common prefix skips all that it hides.
    let skipped = walk
        .after
        .as_deref()
        .filter(|after| after.starts_with(&walk.prefix));
    let skipped = skipped.and_then(|after| Some(after[..walk.common_prefix_of(after)?].to_vec()));
    if walk.max == 0 {
        return folded;
    }
    loop {
        let UploadPage { uploads, truncated } = service.engine.list_uploads(bucket, at.clone()).await;
        let Some((key, id, _)) = uploads.last() else {
            return folded;
        };
        (at.after_key, at.after_upload) = (Some(key.clone()), Some(*id));
        for (key, id, upload) in uploads {
            let common = walk.common_prefix_of(&key).map(|length| key[..length].to_vec());
            if common.is_some() && (common == skipped || common.as_ref() == folded.prefixes.last()) {
                continue;
            }
            if folded.uploads.len() + folded.prefixes.len() == walk.max {
                folded.truncated = true;
                return folded;
            }
            match common {
                Some(common) => {
                    folded.last = Some(Last::Prefix(common.clone()));
                    folded.prefixes.push(common);
                }
                None => {
                    folded.last = Some(Last::Upload(key.clone(), id));
                    folded.uploads.push((key, id, upload));
                }
            }
        }
        if !truncated {
            return folded;
        }
    }
}
