//! DeleteObjects: up to 1,000 keys in one request (S3 API reference, "DeleteObjects").

use crate::engine::Machine;
use crate::limits::{
    BODY_BUFFER_BYTES_MAX, DELETE_KEYS_MAX, KEY_BYTES_MAX, XML_BODY_BYTES_MAX, XML_TEXT_BYTES_MAX,
};
use crate::s3::access;
use crate::s3::error::{ErrorCode, S3Error, S3Result};
use crate::s3::names::{BucketName, Key};
use crate::s3::ops::read_document;
use crate::s3::payload::Payload;
use crate::s3::request::Request;
use crate::s3::service::{Receive, Response, Service};
use crate::s3::xml::requests::{DeleteDocument, ObjectIdentifier};
use crate::s3::xml::responses::{self, Deleted};

/// Keys that policies are asked about before others of the core get their turn: there may be 420 KiB of policies.
const CHECKED_AT_ONCE: usize = 4;
/// Bytes of the answer's entry of a key besides its texts: tags, a code, a message.
const ENTRY_BYTES: usize = 512;

const _: () = {
    let texts = 2 * XML_TEXT_BYTES_MAX + 4;
    assert!(
        DELETE_KEYS_MAX * (6 * texts + ENTRY_BYTES) < BODY_BUFFER_BYTES_MAX
            && XML_TEXT_BYTES_MAX >= KEY_BYTES_MAX
    );
};

pub async fn delete_objects<I: Machine, R: Receive>(
    service: &Service<I>,
    request: &mut Request<'_>,
    name: &BucketName,
    body: &mut R,
) -> S3Result<Response<I>> {
    let bucket = service.bucket(name)?;
    let has_md5 = request.field("content-md5").is_some();
    let mut payload = Payload::open(&service.lanes, request, body, None)?;
    if !has_md5 && payload.checksum_algorithm().is_none() {
        return Err(S3Error::invalid_request(
            "Missing required header for this request: Content-MD5",
        ));
    }
    let xml = payload.collect(&service.engine, XML_BODY_BYTES_MAX).await?;
    payload.finish()?;
    let delete = read_document::<_, DeleteDocument>(service, &xml).await?;
    // Before anything is deleted: what was done is answered.
    let _answer = service
        .engine
        .hold_bytes(answer_bytes_max(&delete.objects))
        .await?;

    let allowed = |object: &ObjectIdentifier| {
        let key = check(object)?;
        access::check_delete(service, request, name, &key, object.version_id.as_deref())?;
        Ok(key)
    };
    let mut checked: Vec<S3Result<Key>> = Vec::new();
    for objects in delete.objects.chunks(CHECKED_AT_ONCE) {
        checked.extend(objects.iter().map(allowed));
        service.engine.io().yield_now().await;
    }
    let keys: Vec<Vec<u8>> = checked
        .iter()
        .flatten()
        .map(|key| key.as_bytes().to_vec())
        .collect();
    let mut outcomes = service.engine.delete_many(bucket.id, &keys).await.into_iter();
    let results: Vec<S3Result<()>> = checked
        .into_iter()
        .map(|key| {
            key?;
            outcomes.next().expect("one outcome a key")?;
            Ok(())
        })
        .collect();

    let answers = delete
        .objects
        .iter()
        .zip(&results)
        .filter_map(|(object, result)| {
            let (key, version_id) = (object.key.as_bytes(), object.version_id.as_deref());
            match result {
                Ok(()) if delete.quiet => None,
                Ok(()) => Some(Deleted::Done { key, version_id }),
                Err(error) => Some(Deleted::Failed {
                    key,
                    version_id,
                    error,
                }),
            }
        });
    let mut out = Vec::new();
    responses::delete_objects(&mut out, answers);
    Ok(Response::xml(200, out))
}

/// Bytes that the answer takes at most: text may become six times as long in XML.
fn answer_bytes_max(objects: &[ObjectIdentifier]) -> usize {
    let texts =
        |object: &ObjectIdentifier| object.key.len() + object.version_id.as_ref().map_or(0, String::len);
    objects.iter().map(|object| 6 * texts(object) + ENTRY_BYTES).sum()
}

fn check(object: &ObjectIdentifier) -> S3Result<Key> {
    if object
        .version_id
        .as_deref()
        .is_some_and(|version| !matches!(version, "" | "null"))
    {
        return Err(S3Error::new(ErrorCode::NoSuchVersion));
    }
    if object.etag.is_some() || object.size.is_some() || object.last_modified.is_some() {
        return Err(S3Error::not_implemented("A condition on a key of DeleteObjects"));
    }
    Key::new(object.key.as_bytes())
}
