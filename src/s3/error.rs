//! S3's errors: codes, statuses, default messages, and the XML that carries them.
//!
//! This is the only file that knows S3 error codes. Layers below have errors of their own, and the
//! operations turn those into an [`S3Error`] at one place each.
//!
//! Invariant: whatever a client sent may stand in `details` or a message, because all text is escaped
//! when it is rendered. Header values given with [`S3Error::header`] are ours and are not escaped.
//! It must not hold secrets: the whole error goes to the client.
//!
//! Source: S3 API reference, "Error responses".

use std::borrow::Cow;
use std::fmt;

use crate::s3::xml::escape_into;

/// Bytes that one element says of what a client sent: the longest key. Whoever has no credentials can be refused too,
/// and a path of quotes is six times as long in XML.
const ELEMENT_BYTES_MAX: usize = crate::limits::KEY_BYTES_MAX;

/// Defines the codes once: variant, status, S3's default message. The code is the variant's name.
macro_rules! error_codes {
    ($($code:ident $status:literal $message:literal;)*) => {
        /// An S3 error code, in the order of S3's list.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum ErrorCode {
            $(#[doc = $message] $code,)*
        }

        impl ErrorCode {
            /// Every code, for tables and metrics.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$code,)*];

            /// The HTTP status that S3 answers with.
            pub const fn status(self) -> u16 {
                match self {
                    $(ErrorCode::$code => $status,)*
                }
            }

            /// The text of the `Code` element.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(ErrorCode::$code => stringify!($code),)*
                }
            }

            /// The text of the `Message` element when nothing more exact is known.
            pub const fn message(self) -> &'static str {
                match self {
                    $(ErrorCode::$code => $message,)*
                }
            }
        }
    };
}

error_codes! {
    AccessControlListNotSupported 400 "The bucket does not allow ACLs";
    AccessDenied 403 "Access Denied";
    AuthorizationHeaderMalformed 400 "The authorization header that you provided is not valid.";
    AuthorizationQueryParametersError 400 "The authorization query parameters that you provided are not valid.";
    BadDigest 400 "The Content-MD5 you specified did not match what we received.";
    BadRequest 400 "An error occurred when parsing the HTTP request.";
    BucketAlreadyExists 409 "The requested bucket name is not available. The bucket namespace is shared by all users of the system. Please select a different name and try again.";
    BucketAlreadyOwnedByYou 409 "Your previous request to create the named bucket succeeded and you already own it.";
    BucketNotEmpty 409 "The bucket you tried to delete is not empty";
    ConditionalRequestConflict 409 "The conditional request cannot succeed due to a conflicting operation against this resource.";
    EntityTooLarge 400 "Your proposed upload exceeds the maximum allowed size";
    EntityTooSmall 400 "Your proposed upload is smaller than the minimum allowed size";
    ExpectationFailed 417 "The expectation given in the Expect request header could not be met.";
    ExpiredToken 400 "The provided token has expired.";
    IllegalLocationConstraintException 400 "The specified location-constraint is not valid";
    IncompleteBody 400 "The request body terminated unexpectedly";
    InsufficientStorage 507 "There is not enough free space to store this.";
    InternalError 500 "We encountered an internal error. Please try again.";
    InvalidAccessKeyId 403 "The AWS Access Key Id you provided does not exist in our records.";
    InvalidArgument 400 "Invalid Argument";
    InvalidBucketName 400 "The specified bucket is not valid.";
    InvalidChunkSizeError 400 "Only the last chunk is allowed to have a size less than 8192 bytes";
    InvalidDigest 400 "The Content-MD5 you specified was invalid.";
    InvalidEncryptionAlgorithmError 400 "The encryption request you specified is not valid.";
    InvalidLocationConstraint 400 "The specified location-constraint is not valid";
    InvalidObjectState 403 "The operation is not valid for the object's storage class";
    InvalidPart 400 "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.";
    InvalidPartNumber 416 "The requested partnumber is not satisfiable";
    InvalidPartOrder 400 "The list of parts was not in ascending order. Parts must be ordered by part number.";
    InvalidRange 416 "The requested range is not satisfiable";
    InvalidRedirectLocation 400 "The website redirect location must have a prefix of 'http://' or 'https://' or '/'.";
    InvalidRequest 400 "Invalid Request";
    InvalidStorageClass 400 "The storage class you specified is not valid";
    InvalidTag 400 "The tag provided was not a valid tag.";
    InvalidToken 400 "The provided token is malformed or otherwise invalid.";
    InvalidURI 400 "Couldn't parse the specified URI.";
    KeyTooLongError 400 "Your key is too long";
    MalformedACLError 400 "The XML you provided was not well-formed or did not validate against our published schema";
    MalformedPolicy 400 "Policies must be valid JSON and the first byte must be '{'";
    MalformedPOSTRequest 400 "The body of your POST request is not well-formed multipart/form-data.";
    MalformedTrailerError 400 "The request contained trailing data that was not well-formed or did not conform to our published schema.";
    MalformedXML 400 "The XML you provided was not well-formed or did not validate against our published schema";
    MaxMessageLengthExceeded 400 "Your request was too big.";
    MetadataTooLarge 400 "Your metadata headers exceed the maximum allowed metadata size";
    MethodNotAllowed 405 "The specified method is not allowed against this resource.";
    MissingContentLength 411 "You must provide the Content-Length HTTP header.";
    MissingRequestBodyError 400 "Request Body is empty";
    MissingSecurityHeader 400 "Your request was missing a required header";
    NoSuchBucket 404 "The specified bucket does not exist";
    NoSuchBucketPolicy 404 "The bucket policy does not exist";
    NoSuchCORSConfiguration 404 "The CORS configuration does not exist";
    NoSuchKey 404 "The specified key does not exist.";
    NoSuchLifecycleConfiguration 404 "The lifecycle configuration does not exist";
    NoSuchObjectLockConfiguration 404 "The specified object does not have a ObjectLock configuration";
    NoSuchPublicAccessBlockConfiguration 404 "The public access block configuration was not found";
    NoSuchTagSet 404 "The TagSet does not exist";
    NoSuchUpload 404 "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.";
    NoSuchVersion 404 "The specified version does not exist.";
    NoSuchWebsiteConfiguration 404 "The specified bucket does not have a website configuration";
    NotImplemented 501 "This functionality is not implemented.";
    NotModified 304 "Not Modified";
    ObjectLockConfigurationNotFoundError 404 "Object Lock configuration does not exist for this bucket";
    OperationAborted 409 "A conflicting conditional operation is currently in progress against this resource. Please try again.";
    OwnershipControlsNotFoundError 404 "The bucket ownership controls were not found";
    PreconditionFailed 412 "At least one of the pre-conditions you specified did not hold";
    ReplicationConfigurationNotFoundError 404 "The replication configuration was not found";
    RequestHeaderSectionTooLarge 400 "Your request header section exceeds the maximum allowed size.";
    RequestTimeout 400 "Your socket connection to the server was not read from or written to within the timeout period. Idle connections will be closed.";
    RequestTimeTooSkewed 403 "The difference between the request time and the current time is too large.";
    ServerSideEncryptionConfigurationNotFoundError 404 "The server side encryption configuration was not found";
    ServiceUnavailable 503 "Service is unable to handle request.";
    SignatureDoesNotMatch 403 "The request signature we calculated does not match the signature you provided. Check your key and signing method.";
    SlowDown 503 "Please reduce your request rate.";
    TooManyBuckets 400 "You have attempted to create more buckets than allowed";
    UnexpectedContent 400 "This request does not support content";
    XAmzContentSHA256Mismatch 400 "The provided 'x-amz-content-sha256' header does not match what was computed.";
}

impl ErrorCode {
    /// The code of that [`ErrorCode::as_str`].
    pub fn from_name(name: &str) -> Option<ErrorCode> {
        ErrorCode::ALL.iter().copied().find(|code| code.as_str() == name)
    }
}

/// What went wrong, as the client is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct S3Error {
    /// The code, which decides the status.
    pub code: ErrorCode,
    /// The text of the `Message` element.
    pub message: Cow<'static, str>,
    /// Further elements, in order: `BucketName`, `Key`, `ArgumentName`, `Condition`, ...
    pub details: Vec<(&'static str, String)>,
    /// Further response headers: `Content-Range` of a 416, `Allow` of a 405. Ours, without CR or LF.
    pub headers: Vec<(&'static str, String)>,
}

/// The result of everything in `s3`.
pub type S3Result<T> = Result<T, S3Error>;

impl S3Error {
    /// The error with its code's default message.
    pub const fn new(code: ErrorCode) -> S3Error {
        S3Error {
            code,
            message: Cow::Borrowed(code.message()),
            details: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// `InvalidArgument` about one argument, as S3 words it.
    pub fn invalid_argument(message: impl Into<Cow<'static, str>>, name: &str, value: &str) -> S3Error {
        S3Error::new(ErrorCode::InvalidArgument)
            .message(message)
            .detail("ArgumentName", name)
            .detail("ArgumentValue", value)
    }

    /// `InvalidRequest` with its reason.
    pub fn invalid_request(message: impl Into<Cow<'static, str>>) -> S3Error {
        S3Error::new(ErrorCode::InvalidRequest).message(message)
    }

    /// `NotImplemented` for something other than a header: `what` names it.
    pub fn not_implemented(what: impl fmt::Display) -> S3Error {
        S3Error::new(ErrorCode::NotImplemented).message(format!("{what} is not implemented."))
    }

    /// `NotImplemented` because of one header, as S3 words it.
    pub fn header_not_implemented(name: &'static str) -> S3Error {
        S3Error::new(ErrorCode::NotImplemented)
            .message("A header you provided implies functionality that is not implemented")
            .detail("Header", name)
    }

    /// Replaces the message.
    #[must_use]
    pub fn message(mut self, message: impl Into<Cow<'static, str>>) -> S3Error {
        self.message = message.into();
        self
    }

    /// Adds an element after `Message`. `element` is an XML name; `value` may be anything.
    #[must_use]
    pub fn detail(mut self, element: &'static str, value: impl Into<String>) -> S3Error {
        self.details.push((element, value.into()));
        self
    }

    /// Adds a response header. `value` must be ours: it is sent as it is.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> S3Error {
        let value = value.into();
        debug_assert!(
            !value.bytes().any(|b| b == b'\r' || b == b'\n'),
            "a header of ours has a line end"
        );
        self.headers.push((name, value));
        self
    }

    /// The HTTP status.
    pub const fn status(&self) -> u16 {
        self.code.status()
    }

    /// Whether the status allows a body (304 does not; neither does any answer to HEAD).
    pub const fn has_body(&self) -> bool {
        self.code.status() != 304
    }

    /// Appends the XML body: S3's `Error` document.
    ///
    /// `resource` is the path as the client sent it or as it was understood. Of long elements the first
    /// `ELEMENT_BYTES_MAX` bytes are told.
    pub fn render(&self, out: &mut Vec<u8>, resource: &[u8], request_id: &str, host_id: &str) {
        out.extend_from_slice(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>");
        element(out, "Code", self.code.as_str().as_bytes());
        element(out, "Message", self.message.as_bytes());
        for (name, value) in &self.details {
            element(out, name, value.as_bytes());
        }
        element(out, "Resource", resource);
        element(out, "RequestId", request_id.as_bytes());
        element(out, "HostId", host_id.as_bytes());
        out.extend_from_slice(b"</Error>");
    }
}

impl From<ErrorCode> for S3Error {
    fn from(code: ErrorCode) -> S3Error {
        S3Error::new(code)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for S3Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.code.as_str(), self.status(), self.message)
    }
}

impl std::error::Error for S3Error {}

fn element(out: &mut Vec<u8>, name: &str, text: &[u8]) {
    out.push(b'<');
    out.extend_from_slice(name.as_bytes());
    out.push(b'>');
    let text = first_bytes(text);
    // Control characters cannot be spelled in XML 1.0, and an error must be readable by every parser.
    match text.iter().any(|byte| is_unspeakable(*byte)) {
        true => escape_into(
            out,
            &text
                .iter()
                .map(|&byte| if is_unspeakable(byte) { b'?' } else { byte })
                .collect::<Vec<_>>(),
        ),
        false => escape_into(out, text),
    }
    out.extend_from_slice(b"</");
    out.extend_from_slice(name.as_bytes());
    out.push(b'>');
}

/// The first `ELEMENT_BYTES_MAX` bytes, or some fewer if a character would be cut in two.
fn first_bytes(text: &[u8]) -> &[u8] {
    if text.len() <= ELEMENT_BYTES_MAX {
        return text;
    }
    let is_within = |at: usize| text[at] & 0xc0 == 0x80;
    let end = (ELEMENT_BYTES_MAX - 3..=ELEMENT_BYTES_MAX).rfind(|&at| !is_within(at));
    &text[..end.unwrap_or(ELEMENT_BYTES_MAX)]
}

fn is_unspeakable(byte: u8) -> bool {
    byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_stand_in_the_order_of_their_names_and_have_error_statuses() {
        for pair in ErrorCode::ALL.windows(2) {
            let (a, b) = (pair[0].as_str(), pair[1].as_str());
            assert!(
                a.to_ascii_lowercase() < b.to_ascii_lowercase(),
                "{a} stands before {b}"
            );
        }
        for code in ErrorCode::ALL {
            assert!(
                matches!(code.status(), 304 | 400..=599),
                "{code} has status {}",
                code.status()
            );
            assert!(!code.message().is_empty(), "{code} has no message");
            assert_eq!(ErrorCode::from_name(code.as_str()), Some(*code));
        }
        assert_eq!(ErrorCode::from_name("NoSuchCode"), None);
    }

    #[test]
    fn statuses_are_those_of_s3() {
        use ErrorCode as C;
        let table = [
            (C::AccessDenied, 403),
            (C::BucketAlreadyOwnedByYou, 409),
            (C::ConditionalRequestConflict, 409),
            (C::EntityTooLarge, 400),
            (C::ExpectationFailed, 417),
            (C::ExpiredToken, 400),
            (C::InsufficientStorage, 507),
            (C::InternalError, 500),
            (C::InvalidAccessKeyId, 403),
            (C::InvalidPartNumber, 416),
            (C::InvalidRange, 416),
            (C::MethodNotAllowed, 405),
            (C::MissingContentLength, 411),
            (C::NoSuchKey, 404),
            (C::NotImplemented, 501),
            (C::NotModified, 304),
            (C::OperationAborted, 409),
            (C::PreconditionFailed, 412),
            (C::RequestTimeTooSkewed, 403),
            (C::RequestTimeout, 400),
            (C::SlowDown, 503),
            (C::ServiceUnavailable, 503),
            (C::SignatureDoesNotMatch, 403),
        ];
        for (code, status) in table {
            assert_eq!(code.status(), status, "{code}");
        }
    }

    #[test]
    fn document_has_details_between_message_and_resource() {
        let error = S3Error::new(ErrorCode::NoSuchKey)
            .detail("Key", "a<b>&\"'\r\n\u{1}é")
            .detail("BucketName", "b");
        let mut out = Vec::new();
        error.render(&mut out, b"/b/a%3Cb", "REQ", "HOST");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchKey</Code>\
             <Message>The specified key does not exist.</Message>\
             <Key>a&lt;b&gt;&amp;&quot;&apos;&#xD;&#xA;?é</Key><BucketName>b</BucketName>\
             <Resource>/b/a%3Cb</Resource><RequestId>REQ</RequestId><HostId>HOST</HostId></Error>"
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_leave_a_document_that_is() {
        let mut out = Vec::new();
        S3Error::new(ErrorCode::InvalidURI).render(&mut out, b"/b/\xff\xc3(", "r", "h");
        assert!(
            String::from_utf8(out)
                .unwrap()
                .contains("<Resource>/b/\u{fffd}\u{fffd}(</Resource>")
        );
    }

    #[test]
    fn what_is_told_of_a_long_path_or_argument_is_bounded() {
        let long = "'".repeat(16_000);
        let mut out = Vec::new();
        S3Error::invalid_argument("no", &long, &long).render(&mut out, long.as_bytes(), "r", "h");
        let text = String::from_utf8(out).unwrap();
        let told = "&apos;".repeat(1024);
        for element in ["ArgumentName", "ArgumentValue", "Resource"] {
            assert!(
                text.contains(&format!("<{element}>{told}</{element}>")),
                "{element}"
            );
        }
        let mut out = Vec::new();
        let wide = format!("a{}", "€".repeat(1000));
        S3Error::new(ErrorCode::InvalidURI).render(&mut out, wide.as_bytes(), "r", "h");
        let told = format!("<Resource>a{}</Resource>", "€".repeat(341));
        assert!(String::from_utf8(out).unwrap().contains(&told));
    }

    #[test]
    fn not_modified_has_no_body() {
        assert!(!S3Error::new(ErrorCode::NotModified).has_body());
        assert!(S3Error::new(ErrorCode::NoSuchKey).has_body());
    }
}
