//! Which operation a query asks for: S3's subresources, and the parameters that go with some of them.
//!
//! A parameter that is none of S3's own is passed over, as S3 does. One that is S3's own is never: taken for
//! nothing it would make `DELETE /bucket?abac` the end of the bucket. So the lists here are those of S3's API
//! reference, whether or not an operation is built.
//!
//! Invariant: no operation without a subresource is reached by a query that names one, and none that changes
//! something by a query with a parameter of S3's that belongs to another.
//!
//! Source: S3 API reference, the request syntax of every operation.

use crate::http::{Method, Query};
use crate::s3::error::{ErrorCode, S3Error, S3Result};

/// Subresources of a bucket.
const OF_BUCKET: [&str; 32] = [
    "abac",
    "accelerate",
    "acl",
    "analytics",
    "cors",
    "delete",
    "encryption",
    "intelligent-tiering",
    "inventory",
    "lifecycle",
    "location",
    "logging",
    "metadataAnnotationTable",
    "metadataConfiguration",
    "metadataInventoryTable",
    "metadataJournalTable",
    "metadataTable",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "policy",
    "policyStatus",
    "publicAccessBlock",
    "replication",
    "requestPayment",
    "session",
    "tagging",
    "uploads",
    "versioning",
    "versions",
    "website",
];

/// Subresources of an object.
const OF_OBJECT: [&str; 13] = [
    "acl",
    "annotation",
    "append",
    "attributes",
    "encryption",
    "legal-hold",
    "renameObject",
    "restore",
    "retention",
    "select",
    "tagging",
    "torrent",
    "uploads",
];

/// Parameters that say more of an object's operation, or choose one without a subresource.
const PARTICULARS: [&str; 5] = [
    "annotationName",
    "partNumber",
    "select-type",
    "uploadId",
    "versionId",
];

/// The subresource of a bucket that a query names.
///
/// Errors: `InvalidArgument` for two, or a version; `InvalidRequest` for what only an object has.
pub fn of_bucket(query: &Query) -> S3Result<Option<&'static str>> {
    let named = the_one(query)?;
    if let Some(version) = query.get("versionId") {
        return Err(no_version(version));
    }
    let of_object = query.iter().any(|(name, _)| known(&PARTICULARS, name).is_some());
    if of_object || named.is_some_and(|name| known(&OF_BUCKET, name).is_none()) {
        return Err(S3Error::invalid_request("A key must be specified"));
    }
    Ok(named)
}

/// The subresource of an object that a query names.
///
/// Errors: `InvalidArgument` for two, or a parameter that does not belong to what is asked for; `InvalidRequest` for what
/// only a bucket has.
pub fn of_object(method: Method, query: &Query) -> S3Result<Option<&'static str>> {
    let named = the_one(query)?;
    if let Some(name) = named.filter(|name| known(&OF_OBJECT, name).is_none()) {
        let message = format!("There is no such thing as the ?{name} sub-resource for a key");
        return Err(S3Error::invalid_request(message));
    }
    let taken = particulars(method, named, query);
    let other = query
        .iter()
        .find(|(name, _)| known(&PARTICULARS, name).is_some() && !taken.contains(name));
    match other {
        None => Ok(named),
        Some(("versionId", version)) => Err(no_version(version)),
        Some((name, _)) => Err(S3Error::invalid_argument(
            "Unexpected query string parameter",
            "ResourceType",
            name,
        )),
    }
}

/// The particulars that an operation on an object takes. What only reads passes over those that it does not know.
fn particulars(method: Method, named: Option<&str>, query: &Query) -> &'static [&'static str] {
    let is_part = query.has("uploadId") || query.has("partNumber");
    match (method, named) {
        (Method::Put, None) if is_part => &["partNumber", "uploadId"],
        (Method::Put, None) => &[],
        (Method::Delete, None) if query.has("uploadId") => &["uploadId"],
        (Method::Delete, None) => &["versionId"],
        (Method::Post, None) => &["uploadId"],
        (_, Some("uploads")) => &[],
        (_, Some(_)) | (Method::Get | Method::Head | Method::Options | Method::Other, None) => &PARTICULARS,
    }
}

/// The only subresource in a query, of whatever it is.
fn the_one(query: &Query) -> S3Result<Option<&'static str>> {
    let known = |(name, _)| known(&OF_BUCKET, name).or_else(|| known(&OF_OBJECT, name));
    let mut named: Vec<&str> = query.iter().filter_map(known).collect();
    named.sort_unstable();
    match *named {
        [] => Ok(None),
        [name] => Ok(Some(name)),
        [first, ..] => Err(S3Error::invalid_argument(
            format!("Conflicting query string parameters: {}", named.join(", ")),
            "ResourceType",
            first,
        )),
    }
}

/// The name as a list has it; lists are sorted.
fn known(list: &[&'static str], name: &str) -> Option<&'static str> {
    list.binary_search(&name).ok().map(|at| list[at])
}

fn no_version(version: &str) -> S3Error {
    S3Error::invalid_argument(
        "This operation does not accept a version-id.",
        "versionId",
        version,
    )
}

/// What a subresource that is built answers to a method that it does not have.
pub fn not_allowed(method: &str, name: &str) -> S3Error {
    S3Error::new(ErrorCode::MethodNotAllowed)
        .detail("Method", method)
        .detail("ResourceType", name.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T>(result: S3Result<T>) -> Result<T, ErrorCode> {
        result.map_err(|error| error.code)
    }

    #[test]
    fn lists_are_sorted() {
        assert!(OF_BUCKET.is_sorted() && OF_OBJECT.is_sorted() && PARTICULARS.is_sorted());
    }

    #[test]
    fn a_bucket_has_one_subresource_and_no_versions() {
        use ErrorCode::{InvalidArgument, InvalidRequest};
        for (query, expected) in [
            ("", Ok(None)),
            ("foo=bar&x-id=DeleteBucket&x-foo=1&prefix=acl", Ok(None)),
            ("ABAC", Ok(None)),
            ("abac", Ok(Some("abac"))),
            ("%61bac=", Ok(Some("abac"))),
            ("policy=x&foo", Ok(Some("policy"))),
            ("uploads", Ok(Some("uploads"))),
            ("policy&acl", Err(InvalidArgument)),
            ("acl&restore", Err(InvalidArgument)),
            ("restore", Err(InvalidRequest)),
            ("uploadId=x", Err(InvalidRequest)),
            ("partNumber=1", Err(InvalidRequest)),
            ("versionId=null", Err(InvalidArgument)),
        ] {
            assert_eq!(
                refusal(of_bucket(&Query::parse(query).unwrap())),
                expected,
                "{query}"
            );
        }
    }

    #[test]
    fn what_changes_an_object_takes_only_its_own_parameters() {
        use ErrorCode::{InvalidArgument, InvalidRequest};
        use Method::{Delete, Get, Head, Post, Put};
        for (method, query, expected) in [
            (Put, "x-id=PutObject&foo=1", Ok(None)),
            (Put, "partNumber=1&uploadId=x", Ok(None)),
            (Put, "tagging&versionId=null", Ok(Some("tagging"))),
            (Put, "versionId=null", Err(InvalidArgument)),
            (Put, "versionId=", Err(InvalidArgument)),
            (
                Put,
                "partNumber=1&uploadId=x&versionId=null",
                Err(InvalidArgument),
            ),
            (Put, "select-type=2", Err(InvalidArgument)),
            (Put, "annotationName=a", Err(InvalidArgument)),
            (Put, "uploads", Ok(Some("uploads"))),
            (Put, "policy", Err(InvalidRequest)),
            (Put, "versions", Err(InvalidRequest)),
            (Put, "acl&tagging", Err(InvalidArgument)),
            (Delete, "", Ok(None)),
            (Delete, "versionId=null", Ok(None)),
            (Delete, "uploadId=x", Ok(None)),
            (Delete, "uploadId=x&versionId=null", Err(InvalidArgument)),
            (Delete, "partNumber=1", Err(InvalidArgument)),
            (Delete, "cors", Err(InvalidRequest)),
            (Post, "uploads", Ok(Some("uploads"))),
            (Post, "uploads&uploadId=x", Err(InvalidArgument)),
            (Post, "uploadId=x", Ok(None)),
            (Post, "uploadId=x&partNumber=1", Err(InvalidArgument)),
            (Post, "select&select-type=2", Ok(Some("select"))),
            (Get, "partNumber=1&versionId=null&select-type=2", Ok(None)),
            (Get, "uploadId=x&partNumber=1", Ok(None)),
            (Get, "versions", Err(InvalidRequest)),
            (Head, "partNumber=1&v=1", Ok(None)),
        ] {
            let got = refusal(of_object(method, &Query::parse(query).unwrap()));
            assert_eq!(got, expected, "{method:?} {query}");
        }
    }
}
