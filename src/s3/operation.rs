//! Which operation of S3's a request asks for: what decides who answers it, and by what it is counted.
//!
//! Invariant: it is known from method, target and query alone, once those are valid; nothing else is looked at twice.

use crate::http::{Method, Query};
use crate::s3::error::{ErrorCode, S3Error, S3Result};
use crate::s3::subresource;

macro_rules! operations {
    ($($(#[$doc:meta])* $operation:ident,)*) => {
        /// An operation, by the name that S3's API reference has for it.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Operation {
            $($(#[$doc])* $operation,)*
        }

        impl Operation {
            pub const ALL: &[Operation] = &[$(Operation::$operation,)*];

            pub const fn name(self) -> &'static str {
                match self {
                    $(Operation::$operation => stringify!($operation),)*
                }
            }
        }
    };
}

operations! {
    /// The request was refused before its operation was known: by its signature, mostly.
    Unknown,
    ListBuckets,
    CreateBucket,
    HeadBucket,
    DeleteBucket,
    GetBucketLocation,
    /// Any of the operations that read or change a setting of a bucket.
    BucketSetting,
    ListObjects,
    ListObjectsV2,
    ListObjectVersions,
    ListMultipartUploads,
    DeleteObjects,
    GetObject,
    HeadObject,
    PutObject,
    CopyObject,
    DeleteObject,
    /// Any of the operations that read or change a setting of an object.
    ObjectSetting,
    CreateMultipartUpload,
    UploadPart,
    UploadPartCopy,
    ListParts,
    CompleteMultipartUpload,
    AbortMultipartUpload,
}

impl Operation {
    /// What is asked of the service.
    ///
    /// # Errors
    /// `MethodNotAllowed`.
    pub fn on_service(method: Method) -> S3Result<Operation> {
        match method {
            Method::Get => Ok(Operation::ListBuckets),
            _ => Err(not_allowed()),
        }
    }

    /// What is asked of a bucket, of which `named` is the subresource.
    ///
    /// # Errors
    /// `MethodNotAllowed`, `NotImplemented`, `InvalidArgument`.
    pub fn on_bucket(
        method: Method,
        method_str: &str,
        named: Option<&'static str>,
        query: &Query,
    ) -> S3Result<Operation> {
        match (method, named) {
            (Method::Options | Method::Other, _) => Err(not_allowed()),
            (Method::Get, Some("location")) => Ok(Operation::GetBucketLocation),
            (Method::Post, Some("delete")) => Ok(Operation::DeleteObjects),
            (Method::Get, Some("uploads")) => Ok(Operation::ListMultipartUploads),
            (Method::Get, Some("versions")) => Ok(Operation::ListObjectVersions),
            (_, Some(other @ ("location" | "delete" | "uploads" | "versions")))
            | (Method::Head, Some(other)) => Err(subresource::not_allowed(method_str, other)),
            (_, Some(_)) => Ok(Operation::BucketSetting),
            (Method::Head, None) => Ok(Operation::HeadBucket),
            (Method::Get, None) => match query.get("list-type") {
                Some("2") => Ok(Operation::ListObjectsV2),
                None | Some("" | "1") => Ok(Operation::ListObjects),
                Some(other) => Err(S3Error::invalid_argument(
                    "Invalid list type specified",
                    "list-type",
                    other,
                )),
            },
            (Method::Put, None) => Ok(Operation::CreateBucket),
            (Method::Delete, None) => Ok(Operation::DeleteBucket),
            (Method::Post, None) => Err(S3Error::not_implemented("POST on a bucket without ?delete")),
        }
    }

    /// What is asked of an object, of which `named` is the subresource; `is_copy` if it comes with a source.
    ///
    /// # Errors
    /// `MethodNotAllowed`, `NotImplemented`.
    pub fn on_object(
        method: Method,
        method_str: &str,
        named: Option<&'static str>,
        query: &Query,
        is_copy: bool,
    ) -> S3Result<Operation> {
        let is_of_upload = query.has("uploadId");
        match (method, named) {
            (Method::Options | Method::Other, _) => Err(not_allowed()),
            (Method::Post, Some("uploads")) => Ok(Operation::CreateMultipartUpload),
            (_, Some(other @ "uploads")) | (Method::Head, Some(other)) => {
                Err(subresource::not_allowed(method_str, other))
            }
            (_, Some(_)) => Ok(Operation::ObjectSetting),
            (Method::Get, None) if is_of_upload => Ok(Operation::ListParts),
            (Method::Get, None) => Ok(Operation::GetObject),
            (Method::Head, None) => Ok(Operation::HeadObject),
            (Method::Put, None) if is_of_upload || query.has("partNumber") => match is_copy {
                true => Ok(Operation::UploadPartCopy),
                false => Ok(Operation::UploadPart),
            },
            (Method::Put, None) if is_copy => Ok(Operation::CopyObject),
            (Method::Put, None) => Ok(Operation::PutObject),
            (Method::Delete, None) if is_of_upload => Ok(Operation::AbortMultipartUpload),
            (Method::Delete, None) => Ok(Operation::DeleteObject),
            (Method::Post, None) if is_of_upload => Ok(Operation::CompleteMultipartUpload),
            (Method::Post, None) => Err(S3Error::not_implemented(
                "POST on an object without ?uploads or ?uploadId",
            )),
        }
    }
}

fn not_allowed() -> S3Error {
    S3Error::new(ErrorCode::MethodNotAllowed)
}
