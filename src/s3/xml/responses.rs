//! Response documents, written straight into a buffer.
//!
//! Each function takes a view that borrows, and appends one whole document. Nothing is built in between:
//! a listing costs one pass over each key and no allocation but the buffer's own growth.
//!
//! Invariant: all text that a client chose goes through [`KeyEncoding`] or [`escape_into`].
//!
//! Source: the response elements of each operation in the S3 API reference.

use super::text::{decimal_into, escape_into, percent_encode_into, timestamp_into};
use crate::s3::checksum::{Algorithm, Checksum, ChecksumType};
use crate::s3::conditions::ETag;
use crate::s3::error::S3Error;

const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
const NAMESPACE: &str = " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";

/// How keys, prefixes, markers and delimiters are written in a listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum KeyEncoding {
    /// As XML text.
    #[default]
    Xml,
    /// `encoding-type=url`.
    Url,
}

/// Whom buckets and objects belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner<'a> {
    /// The canonical id.
    pub id: &'a str,
    /// The name that people read.
    pub display_name: &'a str,
}

/// A bucket in the list of buckets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BucketView<'a> {
    /// Its name.
    pub name: &'a str,
    /// When it was made, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// Its region.
    pub region: &'a str,
}

/// ListBuckets. `next_token` continues a list that did not end; `prefix` is echoed if it was asked for.
pub fn list_buckets<'a>(
    out: &mut Vec<u8>,
    owner: Owner<'_>,
    buckets: impl Iterator<Item = BucketView<'a>>,
    prefix: Option<&[u8]>,
    next_token: Option<&str>,
) {
    open_root(out, "ListAllMyBucketsResult");
    write_owner(out, "Owner", owner);
    raw(out, "<Buckets>");
    for bucket in buckets {
        raw(out, "<Bucket>");
        escaped(out, "Name", bucket.name.as_bytes());
        timestamp(out, "CreationDate", bucket.created_unix_ms);
        escaped(out, "BucketRegion", bucket.region.as_bytes());
        raw(out, "</Bucket>");
    }
    raw(out, "</Buckets>");
    if let Some(prefix) = prefix {
        escaped(out, "Prefix", prefix);
    }
    if let Some(token) = next_token {
        escaped(out, "ContinuationToken", token.as_bytes());
    }
    close(out, "ListAllMyBucketsResult");
}

/// GetBucketLocation. `us-east-1` is written as no location at all.
pub fn location(out: &mut Vec<u8>, region: &str) {
    open_root(out, "LocationConstraint");
    if region != "us-east-1" {
        escape_into(out, region.as_bytes());
    }
    close(out, "LocationConstraint");
}

/// What all listings of objects have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListPage<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// `prefix`, empty if there was none.
    pub prefix: &'a [u8],
    /// `delimiter`, empty if there was none.
    pub delimiter: &'a [u8],
    /// `max-keys` as it was applied.
    pub max_keys: usize,
    /// How keys are written.
    pub encoding: KeyEncoding,
    /// Whether the list goes on.
    pub truncated: bool,
    /// The owner, written with each object if it is there.
    pub owner: Option<Owner<'a>>,
}

/// An object in a listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObjectView<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// When it was written, in milliseconds since 1970.
    pub modified_unix_ms: u64,
    /// Its tag.
    pub etag: ETag,
    /// Its size in bytes.
    pub size: u64,
    /// Its storage class.
    pub storage_class: &'static str,
    /// What its checksum is, if it has one.
    pub checksum: Option<(Algorithm, ChecksumType)>,
}

/// ListObjects (version 1). `next_marker` is written when it is there: S3 does so only with a delimiter.
pub fn list_objects_v1<'a>(
    out: &mut Vec<u8>,
    page: &ListPage<'_>,
    marker: &[u8],
    next_marker: Option<&[u8]>,
    objects: impl Iterator<Item = ObjectView<'a>>,
    prefixes: impl Iterator<Item = &'a [u8]>,
) {
    open_root(out, "ListBucketResult");
    page_head(out, page);
    encoded(out, page.encoding, "Marker", marker);
    if let Some(next) = next_marker {
        encoded(out, page.encoding, "NextMarker", next);
    }
    page_limits(out, page);
    objects.for_each(|object| write_object(out, page, &object));
    common_prefixes(out, page.encoding, prefixes);
    close(out, "ListBucketResult");
}

/// What version 2 has beside the [`ListPage`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ListV2<'a> {
    /// Objects and common prefixes on the page.
    pub key_count: usize,
    /// `continuation-token` as sent.
    pub continuation_token: Option<&'a [u8]>,
    /// The token of the next page.
    pub next_continuation_token: Option<&'a str>,
    /// `start-after`.
    pub start_after: Option<&'a [u8]>,
}

/// ListObjectsV2.
pub fn list_objects_v2<'a>(
    out: &mut Vec<u8>,
    page: &ListPage<'_>,
    v2: &ListV2<'_>,
    objects: impl Iterator<Item = ObjectView<'a>>,
    prefixes: impl Iterator<Item = &'a [u8]>,
) {
    open_root(out, "ListBucketResult");
    page_head(out, page);
    if let Some(token) = v2.continuation_token {
        escaped(out, "ContinuationToken", token);
    }
    if let Some(token) = v2.next_continuation_token {
        escaped(out, "NextContinuationToken", token.as_bytes());
    }
    if let Some(start) = v2.start_after {
        encoded(out, page.encoding, "StartAfter", start);
    }
    decimal(out, "KeyCount", v2.key_count as u64);
    page_limits(out, page);
    objects.for_each(|object| write_object(out, page, &object));
    common_prefixes(out, page.encoding, prefixes);
    close(out, "ListBucketResult");
}

/// What a listing of versions has beside the [`ListPage`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ListVersions<'a> {
    /// `key-marker`.
    pub key_marker: &'a [u8],
    /// `version-id-marker`.
    pub version_id_marker: &'a [u8],
    /// Where the next page begins.
    pub next_key_marker: Option<&'a [u8]>,
    /// Where the next page begins within that key.
    pub next_version_id_marker: Option<&'a str>,
}

/// ListObjectVersions on a bucket that never had versions: each object is its one version, `null`.
pub fn list_versions<'a>(
    out: &mut Vec<u8>,
    page: &ListPage<'_>,
    versions: &ListVersions<'_>,
    objects: impl Iterator<Item = ObjectView<'a>>,
    prefixes: impl Iterator<Item = &'a [u8]>,
) {
    open_root(out, "ListVersionsResult");
    page_head(out, page);
    encoded(out, page.encoding, "KeyMarker", versions.key_marker);
    escaped(out, "VersionIdMarker", versions.version_id_marker);
    if let Some(next) = versions.next_key_marker {
        encoded(out, page.encoding, "NextKeyMarker", next);
    }
    if let Some(next) = versions.next_version_id_marker {
        escaped(out, "NextVersionIdMarker", next.as_bytes());
    }
    page_limits(out, page);
    for object in objects {
        raw(out, "<Version>");
        object_head(out, page.encoding, &object);
        raw(out, "<VersionId>null</VersionId><IsLatest>true</IsLatest>");
        object_tail(out, page.owner, &object);
        raw(out, "</Version>");
    }
    common_prefixes(out, page.encoding, prefixes);
    close(out, "ListVersionsResult");
}

/// CopyObject.
pub fn copy_object(out: &mut Vec<u8>, etag: ETag, modified_unix_ms: u64, checksum: Option<&Checksum>) {
    copied(out, "CopyObjectResult", etag, modified_unix_ms);
    if let Some(checksum) = checksum {
        write_checksum(out, checksum);
        text(out, "ChecksumType", checksum.kind.name());
    }
    close(out, "CopyObjectResult");
}

/// UploadPartCopy.
pub fn copy_part(out: &mut Vec<u8>, etag: ETag, modified_unix_ms: u64, checksum: Option<&Checksum>) {
    copied(out, "CopyPartResult", etag, modified_unix_ms);
    if let Some(checksum) = checksum {
        write_checksum(out, checksum);
    }
    close(out, "CopyPartResult");
}

/// CreateMultipartUpload.
pub fn initiate_multipart_upload(out: &mut Vec<u8>, bucket: &str, key: &[u8], upload_id: &str) {
    open_root(out, "InitiateMultipartUploadResult");
    escaped(out, "Bucket", bucket.as_bytes());
    escaped(out, "Key", key);
    escaped(out, "UploadId", upload_id.as_bytes());
    close(out, "InitiateMultipartUploadResult");
}

/// CompleteMultipartUpload. `location` is the object's URL, encoded.
pub fn complete_multipart_upload(
    out: &mut Vec<u8>,
    location: &str,
    bucket: &str,
    key: &[u8],
    etag: ETag,
    checksum: Option<&Checksum>,
) {
    open_root(out, "CompleteMultipartUploadResult");
    escaped(out, "Location", location.as_bytes());
    escaped(out, "Bucket", bucket.as_bytes());
    escaped(out, "Key", key);
    write_etag(out, etag);
    if let Some(checksum) = checksum {
        write_checksum(out, checksum);
        text(out, "ChecksumType", checksum.kind.name());
    }
    close(out, "CompleteMultipartUploadResult");
}

/// A listing of an upload's parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartsPage<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The key.
    pub key: &'a [u8],
    /// The upload.
    pub upload_id: &'a str,
    /// `part-number-marker`, 0 if there was none.
    pub part_number_marker: u32,
    /// Where the next page begins.
    pub next_part_number_marker: Option<u32>,
    /// `max-parts` as it was applied.
    pub max_parts: usize,
    /// Whether the list goes on.
    pub truncated: bool,
    /// Who began the upload and who will own the object.
    pub owner: Owner<'a>,
    /// The object's storage class.
    pub storage_class: &'static str,
    /// The checksum that the upload announced.
    pub checksum: Option<(Algorithm, ChecksumType)>,
}

/// A part in a listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartView {
    /// Its number.
    pub number: u16,
    /// When it was written, in milliseconds since 1970.
    pub modified_unix_ms: u64,
    /// Its tag.
    pub etag: ETag,
    /// Its size in bytes.
    pub size: u64,
    /// Its checksum.
    pub checksum: Option<Checksum>,
}

/// ListParts.
pub fn list_parts(out: &mut Vec<u8>, page: &PartsPage<'_>, parts: impl Iterator<Item = PartView>) {
    open_root(out, "ListPartsResult");
    escaped(out, "Bucket", page.bucket.as_bytes());
    escaped(out, "Key", page.key);
    escaped(out, "UploadId", page.upload_id.as_bytes());
    decimal(out, "PartNumberMarker", page.part_number_marker.into());
    if let Some(next) = page.next_part_number_marker {
        decimal(out, "NextPartNumberMarker", next.into());
    }
    decimal(out, "MaxParts", page.max_parts as u64);
    boolean(out, "IsTruncated", page.truncated);
    for part in parts {
        raw(out, "<Part>");
        decimal(out, "PartNumber", part.number.into());
        timestamp(out, "LastModified", part.modified_unix_ms);
        write_etag(out, part.etag);
        decimal(out, "Size", part.size);
        if let Some(checksum) = &part.checksum {
            write_checksum(out, checksum);
        }
        raw(out, "</Part>");
    }
    write_owner(out, "Initiator", page.owner);
    write_owner(out, "Owner", page.owner);
    text(out, "StorageClass", page.storage_class);
    checksum_kind(out, page.checksum);
    close(out, "ListPartsResult");
}

/// A listing of a bucket's uploads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UploadsPage<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// `key-marker`.
    pub key_marker: &'a [u8],
    /// `upload-id-marker`.
    pub upload_id_marker: &'a [u8],
    /// Where the next page begins.
    pub next_key_marker: Option<&'a [u8]>,
    /// Where the next page begins within that key.
    pub next_upload_id_marker: Option<&'a str>,
    /// `prefix`, empty if there was none.
    pub prefix: &'a [u8],
    /// `delimiter`, empty if there was none.
    pub delimiter: &'a [u8],
    /// `max-uploads` as it was applied.
    pub max_uploads: usize,
    /// How keys are written.
    pub encoding: KeyEncoding,
    /// Whether the list goes on.
    pub truncated: bool,
    /// Who began the uploads and will own the objects.
    pub owner: Owner<'a>,
}

/// An upload in a listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UploadView<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its id.
    pub upload_id: &'a str,
    /// When it was begun, in milliseconds since 1970.
    pub initiated_unix_ms: u64,
    /// The object's storage class.
    pub storage_class: &'static str,
    /// The checksum that it announced.
    pub checksum: Option<(Algorithm, ChecksumType)>,
}

/// ListMultipartUploads.
pub fn list_uploads<'a>(
    out: &mut Vec<u8>,
    page: &UploadsPage<'_>,
    uploads: impl Iterator<Item = UploadView<'a>>,
    prefixes: impl Iterator<Item = &'a [u8]>,
) {
    open_root(out, "ListMultipartUploadsResult");
    escaped(out, "Bucket", page.bucket.as_bytes());
    encoded(out, page.encoding, "KeyMarker", page.key_marker);
    escaped(out, "UploadIdMarker", page.upload_id_marker);
    if let Some(next) = page.next_key_marker {
        encoded(out, page.encoding, "NextKeyMarker", next);
    }
    if let Some(next) = page.next_upload_id_marker {
        escaped(out, "NextUploadIdMarker", next.as_bytes());
    }
    encoded(out, page.encoding, "Prefix", page.prefix);
    if !page.delimiter.is_empty() {
        encoded(out, page.encoding, "Delimiter", page.delimiter);
    }
    encoding_type(out, page.encoding);
    decimal(out, "MaxUploads", page.max_uploads as u64);
    boolean(out, "IsTruncated", page.truncated);
    for upload in uploads {
        raw(out, "<Upload>");
        encoded(out, page.encoding, "Key", upload.key);
        escaped(out, "UploadId", upload.upload_id.as_bytes());
        write_owner(out, "Initiator", page.owner);
        write_owner(out, "Owner", page.owner);
        text(out, "StorageClass", upload.storage_class);
        timestamp(out, "Initiated", upload.initiated_unix_ms);
        checksum_kind(out, upload.checksum);
        raw(out, "</Upload>");
    }
    common_prefixes(out, page.encoding, prefixes);
    close(out, "ListMultipartUploadsResult");
}

/// What became of one key of DeleteObjects. In quiet mode the caller leaves the deleted ones out.
#[derive(Clone, Copy, Debug)]
pub enum Deleted<'a> {
    /// It is gone, or was not there.
    Done {
        /// Its key.
        key: &'a [u8],
        /// `VersionId` as it was asked for.
        version_id: Option<&'a str>,
    },
    /// It was not deleted.
    Failed {
        /// Its key.
        key: &'a [u8],
        /// `VersionId` as it was asked for.
        version_id: Option<&'a str>,
        /// Why.
        error: &'a S3Error,
    },
}

/// DeleteObjects.
pub fn delete_objects<'a>(out: &mut Vec<u8>, results: impl Iterator<Item = Deleted<'a>>) {
    open_root(out, "DeleteResult");
    for result in results {
        match result {
            Deleted::Done { key, version_id } => {
                raw(out, "<Deleted>");
                deleted_name(out, key, version_id);
                raw(out, "</Deleted>");
            }
            Deleted::Failed {
                key,
                version_id,
                error,
            } => {
                raw(out, "<Error>");
                deleted_name(out, key, version_id);
                text(out, "Code", error.code.as_str());
                escaped(out, "Message", error.message.as_bytes());
                raw(out, "</Error>");
            }
        }
    }
    close(out, "DeleteResult");
}

/// GetBucketPolicyStatus.
pub fn policy_status(out: &mut Vec<u8>, is_public: bool) {
    open_root(out, "PolicyStatus");
    boolean(out, "IsPublic", is_public);
    close(out, "PolicyStatus");
}

/// GetPublicAccessBlock: each of its flags by name.
pub fn public_access_block(out: &mut Vec<u8>, flags: [(&'static str, bool); 4]) {
    open_root(out, "PublicAccessBlockConfiguration");
    for (name, flag) in flags {
        boolean(out, name, flag);
    }
    close(out, "PublicAccessBlockConfiguration");
}

/// GetBucketOwnershipControls.
pub fn ownership_controls(out: &mut Vec<u8>, ownership: &str) {
    open_root(out, "OwnershipControls");
    raw(out, "<Rule>");
    escaped(out, "ObjectOwnership", ownership.as_bytes());
    raw(out, "</Rule>");
    close(out, "OwnershipControls");
}

/// GetBucketAcl and GetObjectAcl: the owner has full control, and nobody else has any.
pub fn access_control_policy(out: &mut Vec<u8>, owner: Owner<'_>) {
    open_root(out, "AccessControlPolicy");
    write_owner(out, "Owner", owner);
    raw(
        out,
        "<AccessControlList><Grant><Grantee xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
         xsi:type=\"CanonicalUser\">",
    );
    escaped(out, "ID", owner.id.as_bytes());
    escaped(out, "DisplayName", owner.display_name.as_bytes());
    raw(
        out,
        "</Grantee><Permission>FULL_CONTROL</Permission></Grant></AccessControlList>",
    );
    close(out, "AccessControlPolicy");
}

fn page_head(out: &mut Vec<u8>, page: &ListPage<'_>) {
    escaped(out, "Name", page.bucket.as_bytes());
    encoded(out, page.encoding, "Prefix", page.prefix);
    if !page.delimiter.is_empty() {
        encoded(out, page.encoding, "Delimiter", page.delimiter);
    }
    encoding_type(out, page.encoding);
}

fn page_limits(out: &mut Vec<u8>, page: &ListPage<'_>) {
    decimal(out, "MaxKeys", page.max_keys as u64);
    boolean(out, "IsTruncated", page.truncated);
}

fn write_object(out: &mut Vec<u8>, page: &ListPage<'_>, object: &ObjectView<'_>) {
    raw(out, "<Contents>");
    object_head(out, page.encoding, object);
    object_tail(out, page.owner, object);
    raw(out, "</Contents>");
}

fn object_head(out: &mut Vec<u8>, encoding: KeyEncoding, object: &ObjectView<'_>) {
    raw(out, "<Key>");
    match encoding {
        KeyEncoding::Xml => escape_into(out, object.key),
        KeyEncoding::Url => percent_encode_into(out, object.key),
    }
    raw(out, "</Key>");
}

fn object_tail(out: &mut Vec<u8>, owner: Option<Owner<'_>>, object: &ObjectView<'_>) {
    raw(out, "<LastModified>");
    timestamp_into(out, object.modified_unix_ms);
    raw(out, "</LastModified><ETag>&quot;");
    object.etag.write_into(out);
    raw(out, "&quot;</ETag>");
    checksum_kind(out, object.checksum);
    raw(out, "<Size>");
    decimal_into(out, object.size);
    raw(out, "</Size>");
    if let Some(owner) = owner {
        write_owner(out, "Owner", owner);
    }
    raw(out, "<StorageClass>");
    raw(out, object.storage_class);
    raw(out, "</StorageClass>");
}

fn common_prefixes<'a>(out: &mut Vec<u8>, encoding: KeyEncoding, prefixes: impl Iterator<Item = &'a [u8]>) {
    for prefix in prefixes {
        raw(out, "<CommonPrefixes>");
        encoded(out, encoding, "Prefix", prefix);
        raw(out, "</CommonPrefixes>");
    }
}

fn copied(out: &mut Vec<u8>, root: &str, etag: ETag, modified_unix_ms: u64) {
    open_root(out, root);
    timestamp(out, "LastModified", modified_unix_ms);
    write_etag(out, etag);
}

fn deleted_name(out: &mut Vec<u8>, key: &[u8], version_id: Option<&str>) {
    escaped(out, "Key", key);
    if let Some(id) = version_id {
        escaped(out, "VersionId", id.as_bytes());
    }
}

fn write_owner(out: &mut Vec<u8>, name: &str, owner: Owner<'_>) {
    open(out, name);
    escaped(out, "ID", owner.id.as_bytes());
    escaped(out, "DisplayName", owner.display_name.as_bytes());
    close(out, name);
}

fn write_etag(out: &mut Vec<u8>, etag: ETag) {
    raw(out, "<ETag>&quot;");
    etag.write_into(out);
    raw(out, "&quot;</ETag>");
}

fn write_checksum(out: &mut Vec<u8>, checksum: &Checksum) {
    open(out, checksum.algorithm.element());
    checksum.value_into(out);
    close(out, checksum.algorithm.element());
}

fn checksum_kind(out: &mut Vec<u8>, checksum: Option<(Algorithm, ChecksumType)>) {
    if let Some((algorithm, kind)) = checksum {
        text(out, "ChecksumAlgorithm", algorithm.name());
        text(out, "ChecksumType", kind.name());
    }
}

fn encoding_type(out: &mut Vec<u8>, encoding: KeyEncoding) {
    match encoding {
        KeyEncoding::Xml => {}
        KeyEncoding::Url => text(out, "EncodingType", "url"),
    }
}

fn encoded(out: &mut Vec<u8>, encoding: KeyEncoding, name: &str, value: &[u8]) {
    open(out, name);
    match encoding {
        KeyEncoding::Xml => escape_into(out, value),
        KeyEncoding::Url => percent_encode_into(out, value),
    }
    close(out, name);
}

fn escaped(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    open(out, name);
    escape_into(out, value);
    close(out, name);
}

/// `value` is a constant of ours.
fn text(out: &mut Vec<u8>, name: &str, value: &'static str) {
    open(out, name);
    raw(out, value);
    close(out, name);
}

fn decimal(out: &mut Vec<u8>, name: &str, value: u64) {
    open(out, name);
    decimal_into(out, value);
    close(out, name);
}

fn boolean(out: &mut Vec<u8>, name: &str, value: bool) {
    text(out, name, if value { "true" } else { "false" });
}

fn timestamp(out: &mut Vec<u8>, name: &str, unix_ms: u64) {
    open(out, name);
    timestamp_into(out, unix_ms);
    close(out, name);
}

fn open_root(out: &mut Vec<u8>, name: &str) {
    raw(out, DECLARATION);
    raw(out, "<");
    raw(out, name);
    raw(out, NAMESPACE);
    raw(out, ">");
}

fn open(out: &mut Vec<u8>, name: &str) {
    raw(out, "<");
    raw(out, name);
    raw(out, ">");
}

fn close(out: &mut Vec<u8>, name: &str) {
    raw(out, "</");
    raw(out, name);
    raw(out, ">");
}

fn raw(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::error::ErrorCode;

    const WHEN: u64 = 1_255_369_830_000;
    const OWNER: Owner<'static> = Owner {
        id: "id",
        display_name: "a&b",
    };
    const TAG: ETag = ETag {
        md5: [0xab; 16],
        parts: 0,
    };
    const TAG_TEXT: &str = "<ETag>&quot;abababababababababababababababab&quot;</ETag>";
    const DATE_TEXT: &str = "<LastModified>2009-10-12T17:50:30.000Z</LastModified>";

    /// The document without its declaration; its elements are balanced.
    fn document(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        let text = String::from_utf8(out).expect("a document is UTF-8");
        let body = text
            .strip_prefix(DECLARATION)
            .expect("a document has a declaration")
            .to_owned();
        let mut reader = quick_xml::reader::Reader::from_str(&body);
        while !matches!(
            reader.read_event().expect("a document is well formed"),
            quick_xml::events::Event::Eof
        ) {}
        body
    }

    fn object(key: &[u8]) -> ObjectView<'_> {
        ObjectView {
            key,
            modified_unix_ms: WHEN,
            etag: TAG,
            size: 12,
            storage_class: "STANDARD",
            checksum: None,
        }
    }

    fn page(encoding: KeyEncoding) -> ListPage<'static> {
        ListPage {
            bucket: "bkt",
            prefix: b"a b/",
            delimiter: b"/",
            max_keys: 1000,
            encoding,
            truncated: true,
            owner: None,
        }
    }

    fn crc() -> Checksum {
        Checksum::of_body(Algorithm::Crc32, Algorithm::Crc32.digest(b"123456789"))
    }

    #[test]
    fn buckets() {
        let bucket = BucketView {
            name: "bkt",
            created_unix_ms: WHEN,
            region: "us-east-1",
        };
        assert_eq!(
            document(|out| list_buckets(out, OWNER, [bucket].into_iter(), Some(b"b"), Some("t"))),
            "<ListAllMyBucketsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <Owner><ID>id</ID><DisplayName>a&amp;b</DisplayName></Owner><Buckets><Bucket><Name>bkt</Name>\
             <CreationDate>2009-10-12T17:50:30.000Z</CreationDate><BucketRegion>us-east-1</BucketRegion></Bucket>\
             </Buckets><Prefix>b</Prefix><ContinuationToken>t</ContinuationToken></ListAllMyBucketsResult>"
        );
        let none = document(|out| list_buckets(out, OWNER, [].into_iter(), None, None));
        assert!(none.contains("<Buckets></Buckets></ListAllMyBucketsResult>"));
    }

    #[test]
    fn the_first_region_is_written_as_none() {
        let root = "<LocationConstraint xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">";
        assert_eq!(
            document(|out| location(out, "us-east-1")),
            format!("{root}</LocationConstraint>")
        );
        assert_eq!(
            document(|out| location(out, "eu-west-1")),
            format!("{root}eu-west-1</LocationConstraint>")
        );
    }

    #[test]
    fn list_v1() {
        let prefixes: [&[u8]; 1] = [b"a b/c/"];
        let got = document(|out| {
            let objects = [object(b"a b/x&\ry")].into_iter();
            let page = ListPage {
                owner: Some(OWNER),
                ..page(KeyEncoding::Xml)
            };
            list_objects_v1(out, &page, b"m", Some(b"n<"), objects, prefixes.into_iter());
        });
        assert_eq!(
            got,
            format!(
                "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>bkt</Name>\
                 <Prefix>a b/</Prefix><Delimiter>/</Delimiter><Marker>m</Marker><NextMarker>n&lt;</NextMarker>\
                 <MaxKeys>1000</MaxKeys><IsTruncated>true</IsTruncated>\
                 <Contents><Key>a b/x&amp;&#xD;y</Key>{DATE_TEXT}{TAG_TEXT}<Size>12</Size>\
                 <Owner><ID>id</ID><DisplayName>a&amp;b</DisplayName></Owner>\
                 <StorageClass>STANDARD</StorageClass></Contents>\
                 <CommonPrefixes><Prefix>a b/c/</Prefix></CommonPrefixes></ListBucketResult>"
            )
        );
    }

    #[test]
    fn list_v2_url_encoded_with_checksums() {
        let prefixes: [&[u8]; 1] = [b"a b/c/"];
        let got = document(|out| {
            let mut view = object("a b/é&<".as_bytes());
            view.checksum = Some((Algorithm::Crc64Nvme, ChecksumType::FullObject));
            view.etag.parts = 7;
            let v2 = ListV2 {
                key_count: 2,
                continuation_token: Some(b"<c>"),
                next_continuation_token: Some("n"),
                start_after: Some(b"s p"),
            };
            list_objects_v2(
                out,
                &page(KeyEncoding::Url),
                &v2,
                [view].into_iter(),
                prefixes.into_iter(),
            );
        });
        assert_eq!(
            got,
            format!(
                "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>bkt</Name>\
                 <Prefix>a%20b/</Prefix><Delimiter>/</Delimiter><EncodingType>url</EncodingType>\
                 <ContinuationToken>&lt;c&gt;</ContinuationToken><NextContinuationToken>n</NextContinuationToken>\
                 <StartAfter>s%20p</StartAfter><KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys>\
                 <IsTruncated>true</IsTruncated><Contents><Key>a%20b/%C3%A9%26%3C</Key>{DATE_TEXT}\
                 <ETag>&quot;abababababababababababababababab-7&quot;</ETag>\
                 <ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>\
                 <Size>12</Size><StorageClass>STANDARD</StorageClass></Contents>\
                 <CommonPrefixes><Prefix>a%20b/c/</Prefix></CommonPrefixes></ListBucketResult>"
            )
        );
    }

    #[test]
    fn an_empty_list_has_its_frame() {
        let page = ListPage {
            prefix: b"",
            delimiter: b"",
            truncated: false,
            max_keys: 0,
            ..page(KeyEncoding::Xml)
        };
        assert_eq!(
            document(|out| list_objects_v2(out, &page, &ListV2::default(), [].into_iter(), [].into_iter())),
            "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>bkt</Name><Prefix></Prefix>\
             <KeyCount>0</KeyCount><MaxKeys>0</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>"
        );
    }

    #[test]
    fn versions_of_a_bucket_without_any() {
        let got = document(|out| {
            let versions = ListVersions {
                key_marker: b"k m",
                version_id_marker: b"null",
                next_key_marker: Some(b"n k"),
                next_version_id_marker: Some("null"),
            };
            list_versions(
                out,
                &page(KeyEncoding::Xml),
                &versions,
                [object(b"k")].into_iter(),
                [].into_iter(),
            );
        });
        assert!(got.contains(&format!(
            "<KeyMarker>k m</KeyMarker><VersionIdMarker>null</VersionIdMarker><NextKeyMarker>n k</NextKeyMarker>\
             <NextVersionIdMarker>null</NextVersionIdMarker><MaxKeys>1000</MaxKeys><IsTruncated>true</IsTruncated>\
             <Version><Key>k</Key><VersionId>null</VersionId><IsLatest>true</IsLatest>{DATE_TEXT}{TAG_TEXT}\
             <Size>12</Size><StorageClass>STANDARD</StorageClass></Version></ListVersionsResult>"
        )));
    }

    #[test]
    fn copies() {
        let object = document(|out| copy_object(out, TAG, WHEN, Some(&crc())));
        assert_eq!(
            object,
            format!(
                "<CopyObjectResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{DATE_TEXT}{TAG_TEXT}\
                 <ChecksumCRC32>y/Q5Jg==</ChecksumCRC32><ChecksumType>FULL_OBJECT</ChecksumType></CopyObjectResult>"
            )
        );
        let part = document(|out| copy_part(out, TAG, WHEN, None));
        assert_eq!(
            part,
            format!(
                "<CopyPartResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{DATE_TEXT}{TAG_TEXT}</CopyPartResult>"
            )
        );
    }

    #[test]
    fn multipart_uploads_begin_and_end() {
        assert_eq!(
            document(|out| initiate_multipart_upload(out, "bkt", b"k<", "u")),
            "<InitiateMultipartUploadResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Bucket>bkt</Bucket>\
             <Key>k&lt;</Key><UploadId>u</UploadId></InitiateMultipartUploadResult>"
        );
        let digests = [(Algorithm::Sha1.digest(b"a"), 1)];
        let checksum = Checksum::of_parts(Algorithm::Sha1, ChecksumType::Composite, digests).unwrap();
        let etag = ETag { parts: 1, ..TAG };
        assert_eq!(
            document(|out| complete_multipart_upload(
                out,
                "http://h/bkt/k",
                "bkt",
                b"k",
                etag,
                Some(&checksum)
            )),
            format!(
                "<CompleteMultipartUploadResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                 <Location>http://h/bkt/k</Location><Bucket>bkt</Bucket><Key>k</Key>\
                 <ETag>&quot;abababababababababababababababab-1&quot;</ETag>\
                 <ChecksumSHA1>{}</ChecksumSHA1><ChecksumType>COMPOSITE</ChecksumType></CompleteMultipartUploadResult>",
                checksum.value()
            )
        );
    }

    #[test]
    fn parts_are_listed() {
        let page = PartsPage {
            bucket: "bkt",
            key: b"k",
            upload_id: "u",
            part_number_marker: 0,
            next_part_number_marker: Some(2),
            max_parts: 2,
            truncated: true,
            owner: OWNER,
            storage_class: "STANDARD",
            checksum: Some((Algorithm::Crc32, ChecksumType::Composite)),
        };
        let part = PartView {
            number: 2,
            modified_unix_ms: WHEN,
            etag: TAG,
            size: 5,
            checksum: Some(crc()),
        };
        assert_eq!(
            document(|out| list_parts(out, &page, [part].into_iter())),
            format!(
                "<ListPartsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Bucket>bkt</Bucket><Key>k</Key>\
                 <UploadId>u</UploadId><PartNumberMarker>0</PartNumberMarker>\
                 <NextPartNumberMarker>2</NextPartNumberMarker><MaxParts>2</MaxParts><IsTruncated>true</IsTruncated>\
                 <Part><PartNumber>2</PartNumber>{DATE_TEXT}{TAG_TEXT}<Size>5</Size>\
                 <ChecksumCRC32>y/Q5Jg==</ChecksumCRC32></Part>\
                 <Initiator><ID>id</ID><DisplayName>a&amp;b</DisplayName></Initiator>\
                 <Owner><ID>id</ID><DisplayName>a&amp;b</DisplayName></Owner><StorageClass>STANDARD</StorageClass>\
                 <ChecksumAlgorithm>CRC32</ChecksumAlgorithm><ChecksumType>COMPOSITE</ChecksumType></ListPartsResult>"
            )
        );
    }

    #[test]
    fn uploads_are_listed() {
        let page = UploadsPage {
            bucket: "bkt",
            key_marker: b"k m",
            upload_id_marker: b"",
            next_key_marker: Some(b"n k"),
            next_upload_id_marker: Some("v"),
            prefix: b"",
            delimiter: b"/",
            max_uploads: 1,
            encoding: KeyEncoding::Url,
            truncated: true,
            owner: OWNER,
        };
        let upload = UploadView {
            key: b"a b",
            upload_id: "u",
            initiated_unix_ms: WHEN,
            storage_class: "STANDARD",
            checksum: None,
        };
        let prefixes: [&[u8]; 1] = [b"p/"];
        assert_eq!(
            document(|out| list_uploads(out, &page, [upload].into_iter(), prefixes.into_iter())),
            "<ListMultipartUploadsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Bucket>bkt</Bucket>\
             <KeyMarker>k%20m</KeyMarker><UploadIdMarker></UploadIdMarker><NextKeyMarker>n%20k</NextKeyMarker>\
             <NextUploadIdMarker>v</NextUploadIdMarker><Prefix></Prefix><Delimiter>/</Delimiter>\
             <EncodingType>url</EncodingType><MaxUploads>1</MaxUploads><IsTruncated>true</IsTruncated>\
             <Upload><Key>a%20b</Key><UploadId>u</UploadId>\
             <Initiator><ID>id</ID><DisplayName>a&amp;b</DisplayName></Initiator>\
             <Owner><ID>id</ID><DisplayName>a&amp;b</DisplayName></Owner><StorageClass>STANDARD</StorageClass>\
             <Initiated>2009-10-12T17:50:30.000Z</Initiated></Upload>\
             <CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes></ListMultipartUploadsResult>"
        );
    }

    #[test]
    fn deletions_are_listed_one_by_one() {
        let error = S3Error::new(ErrorCode::InternalError);
        let results = [
            Deleted::Done {
                key: b"a\r",
                version_id: None,
            },
            Deleted::Failed {
                key: b"b",
                version_id: Some("null"),
                error: &error,
            },
        ];
        assert_eq!(
            document(|out| delete_objects(out, results.into_iter())),
            "<DeleteResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Deleted><Key>a&#xD;</Key></Deleted>\
             <Error><Key>b</Key><VersionId>null</VersionId><Code>InternalError</Code>\
             <Message>We encountered an internal error. Please try again.</Message></Error></DeleteResult>"
        );
    }

    #[test]
    fn an_owner_has_full_control() {
        let policy = document(|out| access_control_policy(out, OWNER));
        assert!(
            policy.contains("<Permission>FULL_CONTROL</Permission>")
                && policy.contains("xsi:type=\"CanonicalUser\"")
        );
    }
}
