//! What is wrong with a request's credentials, in S3's words.
//!
//! A variant is one error code of S3; where S3 has several messages for a code, the variant carries the
//! message. Invariant: nothing here holds a byte of the request or of a secret.

/// Why a request is not authenticated. Sources: Amazon S3 API Reference, "Error responses", and the messages
/// that S3 sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuthError {
    /// The request claims nobody.
    Anonymous,
    /// Missing date, expired, not valid yet, headers that were not signed.
    AccessDenied(&'static str),
    /// Nobody has this access key.
    InvalidAccessKeyId,
    SignatureDoesNotMatch,
    /// The request's time is more than 15 minutes from ours.
    RequestTimeTooSkewed,
    AuthorizationHeaderMalformed(&'static str),
    AuthorizationQueryParametersError(&'static str),
    /// A session token came, and there are no sessions.
    InvalidToken,
    /// A required header is missing.
    InvalidRequest(&'static str),
    /// Two ways of authentication, one unknown, or a bad `x-amz-content-sha256`.
    InvalidArgument(&'static str),
    /// The body is not the one that `x-amz-content-sha256` promised. For whoever reads the body.
    ContentSha256Mismatch,
}

impl AuthError {
    /// S3's error code, HTTP status and message.
    pub fn describe(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::Anonymous => ("AccessDenied", 403, "Access Denied"),
            Self::AccessDenied(message) => ("AccessDenied", 403, message),
            Self::InvalidAccessKeyId => (
                "InvalidAccessKeyId",
                403,
                "The AWS Access Key Id you provided does not exist in our records.",
            ),
            Self::SignatureDoesNotMatch => (
                "SignatureDoesNotMatch",
                403,
                "The request signature we calculated does not match the signature you provided. \
                 Check your key and signing method.",
            ),
            Self::RequestTimeTooSkewed => (
                "RequestTimeTooSkewed",
                403,
                "The difference between the request time and the current time is too large.",
            ),
            Self::AuthorizationHeaderMalformed(message) => ("AuthorizationHeaderMalformed", 400, message),
            Self::AuthorizationQueryParametersError(message) => {
                ("AuthorizationQueryParametersError", 400, message)
            }
            Self::InvalidToken => (
                "InvalidToken",
                400,
                "The provided token is malformed or otherwise invalid.",
            ),
            Self::InvalidRequest(message) => ("InvalidRequest", 400, message),
            Self::InvalidArgument(message) => ("InvalidArgument", 400, message),
            Self::ContentSha256Mismatch => (
                "XAmzContentSHA256Mismatch",
                400,
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
            ),
        }
    }
}

pub(super) const NO_DATE: &str = "AWS authentication requires a valid Date or x-amz-date header";
pub(super) const EXPIRED: &str = "Request has expired";
pub(super) const NOT_VALID_YET: &str = "Request is not valid yet";
pub(super) const UNSIGNED_HEADERS: &str = "There were headers present in the request which were not signed";
pub(super) const NO_CONTENT_SHA256: &str = "Missing required header for this request: x-amz-content-sha256";
pub(super) const WRONG_CONTENT_SHA256: &str = "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, \
    STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, \
    STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.";
pub(super) const MULTIPLE_MECHANISMS: &str = "Only one auth mechanism allowed; only the X-Amz-Algorithm query \
    parameter, Signature query string parameter or the Authorization header should be specified";
pub(super) const UNSUPPORTED_AUTHORIZATION: &str = "Unsupported Authorization Type";
pub(super) const TOO_MANY_HEADERS: &str = "Your request has too many headers";

/// Messages of AuthorizationHeaderMalformed.
pub(super) mod header {
    pub const COMPONENTS: &str = "The authorization header is malformed; the authorization header requires three \
        components: Credential, SignedHeaders, and Signature.";
    pub const CREDENTIAL: &str = "The authorization header is malformed; the Credential is mal-formed; expecting \
        \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".";
    pub const DATE: &str = "The authorization header is malformed; Invalid credential date. \
        Date is not the same as X-Amz-Date.";
    pub const SERVICE: &str =
        "The authorization header is malformed; incorrect service. This endpoint belongs to \"s3\".";
    pub const TERMINATOR: &str =
        "The authorization header is malformed; incorrect terminal. This endpoint uses \"aws4_request\".";
    pub const SIGNED_HEADERS: &str =
        "The authorization header is malformed; the SignedHeaders are mal-formed.";
    pub const SIGNATURE: &str = "The authorization header is malformed; the Signature is mal-formed.";
}

/// Messages of AuthorizationQueryParametersError, and of Version 2's AccessDenied.
pub(super) mod query {
    pub const MISSING: &str = "Query-string authentication version 4 requires the X-Amz-Algorithm, \
        X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.";
    pub const REPEATED: &str = "Query-string authentication version 4 allows each of its parameters once.";
    pub const ALGORITHM: &str = "X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\"";
    pub const CREDENTIAL: &str = "Error parsing the X-Amz-Credential parameter; the Credential is mal-formed; \
        expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".";
    pub const DATE_MISMATCH: &str = "Invalid credential date. This date is not the same as X-Amz-Date.";
    pub const SERVICE: &str =
        "Error parsing the X-Amz-Credential parameter; incorrect service. This endpoint belongs to \"s3\".";
    pub const TERMINATOR: &str = "Error parsing the X-Amz-Credential parameter; incorrect terminal. This endpoint uses \"aws4_request\".";
    pub const DATE: &str = "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"";
    pub const EXPIRES_NUMBER: &str = "X-Amz-Expires should be a number";
    pub const EXPIRES_NEGATIVE: &str = "X-Amz-Expires must be non-negative";
    pub const EXPIRES_TOO_LARGE: &str = "X-Amz-Expires must be less than a week (in seconds) that is 604800";
    pub const SIGNED_HEADERS: &str = "Error parsing the X-Amz-SignedHeaders parameter.";
    pub const V2_MISSING: &str =
        "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters";
    pub const V2_EXPIRES: &str = "Invalid date (should be seconds since epoch)";
}
