//! The S3 operations, one file each. A handler reads its request, asks the engine, and words the answer.

pub mod abort_upload;
pub mod bucket;
pub mod bucket_policy;
pub mod complete_upload;
pub mod copy_object;
pub mod create_upload;
pub mod delete_object;
pub mod delete_objects;
pub mod get_object;
pub mod list_buckets;
pub mod list_objects;
pub mod list_parts;
pub mod list_uploads;
pub mod public_access;
pub mod put_object;
pub mod settings;
pub mod upload_part;

mod continuation_token;
mod upload_id;

use crate::engine::{Glance, HeldBytes, Machine};
use crate::limits::LISTING_ENTRY_BYTES;
use crate::s3::checksum::Checksum;
use crate::s3::error::S3Result;
use crate::s3::metadata::{AttributesView, Shown};
use crate::s3::service::Service;
use crate::s3::xml::requests::{Document, DocumentReader};

const STORED: &str = "attributes are stored as they were encoded";

/// The attributes that an operation stored.
fn view(attributes: &[u8]) -> AttributesView<'_> {
    AttributesView::parse(attributes).expect(STORED)
}

/// What a listing shows of the attributes that an operation stored with an object or an upload.
fn glance_at(attributes: &[u8]) -> Glance {
    let view = view(attributes);
    let checksum = view.checksum.map(|checksum| (checksum.algorithm, checksum.kind));
    let announced = view.upload_checksum;
    Shown {
        storage_class: view.storage_class,
        checksum: checksum.or(announced.map(|announced| (announced.algorithm, announced.kind))),
    }
    .to_bytes()
}

/// Waits for the memory of a page of so many entries, before it is made. The response is counted by who sends it.
async fn hold_page<I: Machine>(service: &Service<I>, entries: usize) -> S3Result<HeldBytes> {
    Ok(service.engine.hold_bytes(entries * LISTING_ENTRY_BYTES).await?)
}

/// Reads a long document; others of this core have their turns in between.
async fn read_document<I: Machine, D: Document>(service: &Service<I>, xml: &[u8]) -> S3Result<D::Value> {
    let mut reader = DocumentReader::<D>::open(xml)?;
    while reader.read_on()? {
        service.engine.io().yield_now().await;
    }
    reader.finish()
}

/// The header of a checksum: its name and value.
fn checksum_header(checksum: &Checksum) -> (&'static str, String) {
    (checksum.algorithm.header(), checksum.value())
}
