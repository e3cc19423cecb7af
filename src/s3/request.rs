//! A request as the operations see it: what it is about, and what its head says.

use crate::engine::Refusal;
use crate::http::{Framing, Head, Query};
use crate::s3::auth::{Headers, Payload, Placement, SignatureVersion, Signed, User};
use crate::s3::checksum::Algorithm;
use crate::s3::error::{ErrorCode, S3Error, S3Result};
use crate::s3::metadata::USER_PREFIX;
use crate::s3::names::{BucketName, Key};
use std::net::IpAddr;

/// A request of somebody, or of nobody.
pub struct Request<'a> {
    pub head: &'a Head,
    pub query: &'a Query,
    /// Who asks.
    pub user: &'a User,
    /// Its signature; `None` if it has none.
    pub signed: Option<Signed>,
    /// The other end of the connection.
    pub peer: Option<IpAddr>,
    /// When it came: milliseconds since 1970.
    pub now_ms: u64,
    /// How the body is framed and what it must agree with; taken by the one who reads it.
    pub payload: Payload,
    /// Which parameters of the query count as headers, because they are signed.
    query_fields: QueryFields,
}

/// Signers put headers into the query of a presigned URL.
#[derive(Clone, Copy, PartialEq, Eq)]
enum QueryFields {
    /// The signature is in a header.
    None,
    /// Version 2 signs `x-amz-*`.
    Amz,
    /// Version 4 signs the whole query, so that the conditions of a write in it are meant.
    AmzAndConditions,
}

impl QueryFields {
    fn of(signed: Option<Signed>) -> QueryFields {
        let Some(signed) = signed else {
            return QueryFields::None;
        };
        match (signed.placement, signed.version) {
            (Placement::Header, _) => QueryFields::None,
            (Placement::Query, SignatureVersion::V2) => QueryFields::Amz,
            (Placement::Query, SignatureVersion::V4) => QueryFields::AmzAndConditions,
        }
    }

    fn has(self, name: &str) -> bool {
        let is_amz = || begins(name, "x-amz-");
        let is_condition =
            || name.eq_ignore_ascii_case("if-match") || name.eq_ignore_ascii_case("if-none-match");
        match self {
            QueryFields::None => false,
            QueryFields::Amz => is_amz(),
            QueryFields::AmzAndConditions => is_amz() || is_condition(),
        }
    }
}

/// Whose key the headers of SSE-C are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum KeyHeaders {
    Object,
    CopySource,
}

impl Headers for Head {
    fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers()
    }
}

impl<'a> Request<'a> {
    pub fn new(
        head: &'a Head,
        query: &'a Query,
        user: &'a User,
        payload: Payload,
        signed: Option<Signed>,
        peer: Option<IpAddr>,
        now_ms: u64,
    ) -> Request<'a> {
        Request {
            head,
            query,
            user,
            signed,
            peer,
            now_ms,
            query_fields: QueryFields::of(signed),
            payload,
        }
    }

    /// Header fields, then those parameters of the query that count as such.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let query_fields = self.query_fields;
        let query = self.query.iter().filter(move |(name, _)| query_fields.has(name));
        self.head
            .headers()
            .chain(query.map(|(name, value)| (name, value.as_bytes())))
    }

    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.fields()
            .find(|(present, _)| present.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// A query parameter that is a number: digits only.
    ///
    /// Errors: `InvalidArgument`.
    pub fn number<T: std::str::FromStr>(&self, name: &'static str) -> S3Result<Option<T>> {
        let Some(text) = self.query.get(name).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let invalid = || {
            S3Error::invalid_argument(
                format!("Provided {name} not an integer or within integer range"),
                name,
                text,
            )
        };
        number(text.as_bytes()).map(Some).ok_or_else(invalid)
    }

    /// How many items a page may have: `name`, at most and by default 1,000.
    ///
    /// Errors: `InvalidArgument`.
    pub fn page_size(&self, name: &'static str) -> S3Result<usize> {
        if let Some(text) = self.query.get(name).filter(|text| text.starts_with('-')) {
            return Err(S3Error::invalid_argument(
                format!("Argument {name} must be an integer between 0 and 2147483647"),
                name,
                text,
            ));
        }
        let asked = self
            .number::<i32>(name)?
            .map_or(crate::limits::PAGE_MAX, |asked| asked as usize);
        Ok(asked.min(crate::limits::PAGE_MAX))
    }

    /// A field that came twice is signed as one list and acted on as one of its values: another request, under
    /// the same signature. User metadata is joined as it is signed. Times, tokens and hashes are the signature's to
    /// judge: they may be in the query and in a header.
    ///
    /// Errors: `InvalidArgument`.
    pub fn refuse_repeated_fields(&self) -> S3Result<()> {
        // The checksum that some SDKs sign in a query is of no body, and passed over: one in a header is the only one.
        let passed_over = |name| {
            Algorithm::from_header(name).is_some()
                || name.eq_ignore_ascii_case("x-amz-sdk-checksum-algorithm")
        };
        let in_query = self.query.iter().map(|(name, _)| name);
        let in_query = in_query.filter(|name| self.query_fields.has(name) && !passed_over(name));
        let mut names: Vec<&str> = self
            .head
            .headers()
            .map(|(name, _)| name)
            .chain(in_query)
            .filter(|name| is_single(name))
            .collect();
        names.sort_unstable_by(|a, b| ignoring_case(a).cmp(ignoring_case(b)));
        match names
            .windows(2)
            .find(|pair| pair[0].eq_ignore_ascii_case(pair[1]))
        {
            None => Ok(()),
            Some(pair) => Err(S3Error::invalid_argument(
                "A header may be given once",
                pair[0],
                "",
            )),
        }
    }

    /// A body must say how long it is. Chunked coding alone does not, and S3 takes it only around `aws-chunked`.
    ///
    /// Errors: `MissingContentLength`.
    pub fn require_length(&self) -> S3Result<()> {
        let is_told = match self.head.framing() {
            Framing::Length(_) => true,
            Framing::Chunked => matches!(self.payload, Payload::Streaming { .. }),
            Framing::None => false,
        };
        is_told
            .then_some(())
            .ok_or(S3Error::new(ErrorCode::MissingContentLength))
    }

    /// Refuses what would change the meaning of a write and is not there yet, rather than pass over it.
    ///
    /// Errors: `NotImplemented`.
    pub fn refuse_unbuilt(&self) -> S3Result<()> {
        const UNBUILT: [&str; 5] = [
            "x-amz-server-side-encryption",
            "x-amz-tagging",
            "x-amz-object-lock-",
            "x-amz-grant-",
            "x-amz-write-offset-bytes",
        ];
        for (name, value) in self.fields() {
            let name = name.to_ascii_lowercase();
            if let Some(unbuilt) = UNBUILT
                .into_iter()
                .find(|unbuilt| name.starts_with(unbuilt) && name != "x-amz-tagging-directive")
            {
                return Err(S3Error::header_not_implemented(unbuilt));
            }
            let is_private = matches!(
                value,
                b"private" | b"bucket-owner-full-control" | b"bucket-owner-read"
            );
            if name == "x-amz-acl" && !is_private {
                return Err(S3Error::header_not_implemented("x-amz-acl"));
            }
            if name == "x-amz-bucket-object-lock-enabled" && value.eq_ignore_ascii_case(b"true") {
                return Err(S3Error::header_not_implemented(
                    "x-amz-bucket-object-lock-enabled",
                ));
            }
        }
        Ok(())
    }

    /// Refuses conditions, of an operation that has none built.
    ///
    /// Errors: `NotImplemented`.
    pub fn refuse_conditions(&self) -> S3Result<()> {
        const CONDITIONS: [&str; 4] = [
            "If-Match",
            "If-None-Match",
            "If-Modified-Since",
            "If-Unmodified-Since",
        ];
        match CONDITIONS.into_iter().find(|name| self.field(name).is_some()) {
            None => Ok(()),
            Some(condition) => Err(S3Error::header_not_implemented(condition)),
        }
    }

    /// Refuses the customer's key of an object, or of a copy's source: nothing here is encrypted with one, and a client
    /// that thinks so must know.
    ///
    /// Errors: `InvalidRequest`.
    pub fn refuse_customer_key(&self, of: KeyHeaders) -> S3Result<()> {
        let begin = match of {
            KeyHeaders::Object => "x-amz-server-side-encryption-customer-",
            KeyHeaders::CopySource => "x-amz-copy-source-server-side-encryption-customer-",
        };
        match self.fields().any(|(name, _)| begins(name, begin)) {
            true => Err(S3Error::invalid_request(
                "The encryption parameters are not applicable to this object.",
            )),
            false => Ok(()),
        }
    }

    /// `versionId`: a bucket that never had versions knows only `null`.
    ///
    /// Errors: `NoSuchVersion`, `InvalidArgument`.
    pub fn check_version(&self) -> S3Result<()> {
        match self.query.get("versionId") {
            None | Some("null") => Ok(()),
            Some("") => Err(S3Error::invalid_argument(
                "Version id cannot be the empty string",
                "versionId",
                "",
            )),
            Some(version) => Err(S3Error::new(ErrorCode::NoSuchVersion).detail("VersionId", version)),
        }
    }
}

/// Reads digits: no sign, no blank, nothing else.
pub fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits)
        .ok()
        .filter(|_| is_number)?
        .parse()
        .ok()
}

/// Whether a field has one value, and S3 or this server acts on it.
fn is_single(name: &str) -> bool {
    const SIGNATURES_OWN: [&str; 3] = ["x-amz-content-sha256", "x-amz-date", "x-amz-security-token"];
    const SINGLE: [&str; 9] = [
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-md5",
        "content-type",
        "expect",
        "expires",
        "range",
    ];
    let is = |other: &&str| name.eq_ignore_ascii_case(other);
    match begins(name, "x-amz-") {
        true => !begins(name, USER_PREFIX) && !SIGNATURES_OWN.iter().any(is),
        false => begins(name, "if-") || SINGLE.iter().any(is),
    }
}

fn begins(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len())
        .is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
}

fn ignoring_case(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().map(|byte| byte.to_ascii_lowercase())
}

/// The object that a request is about.
#[derive(Clone, Copy)]
pub struct ObjectName<'a> {
    pub bucket: &'a BucketName,
    pub key: &'a Key,
}

impl ObjectName<'_> {
    /// `NoSuchKey` for this key.
    pub fn no_such_key(&self) -> S3Error {
        S3Error::new(ErrorCode::NoSuchKey).detail("Key", String::from_utf8_lossy(self.key.as_bytes()))
    }

    /// Why this key could not be looked up.
    pub fn lookup_error(&self, refusal: Refusal) -> S3Error {
        match refusal {
            Refusal::NoSuchKey => self.no_such_key(),
            other => other.into(),
        }
    }
}
