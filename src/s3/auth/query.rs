//! The query of a request: its parameters as sent, and whether they claim an identity.
//!
//! Names are compared as sent: S3's own parameters need no escapes, so an escaped one is not one of them
//! (and leaves the request without an identity, or its signature wrong). It must not allocate for a
//! parameter that has no escape.

use super::canonical::Part;
use std::borrow::Cow;

pub(super) const ALGORITHM: &str = "X-Amz-Algorithm";
pub(super) const CREDENTIAL: &str = "X-Amz-Credential";
pub(super) const SIGNATURE: &str = "X-Amz-Signature";
pub(super) const V2_ACCESS_KEY: &str = "AWSAccessKeyId";
pub(super) const V2_SIGNATURE: &str = "Signature";

/// One parameter, percent-encoded as sent. Without `=` its value is empty.
#[derive(Clone, Copy)]
pub(super) struct Parameter<'a> {
    pub name: &'a str,
    pub value: &'a str,
}

/// The parameters in the order sent; empty ones (`&&`) are skipped.
pub(super) fn parameters(query: &str) -> impl Iterator<Item = Parameter<'_>> {
    query.split('&').filter(|piece| !piece.is_empty()).map(|piece| {
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        Parameter { name, value }
    })
}

/// What kind of identity a query claims.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Claimed {
    Nothing,
    V2,
    V4,
}

impl Claimed {
    /// A single parameter is claim enough: half a claim must never pass for none.
    pub(super) fn of(query: &str) -> Self {
        let mut claimed = Self::Nothing;
        for parameter in parameters(query) {
            match parameter.name {
                ALGORITHM | CREDENTIAL | SIGNATURE => return Self::V4,
                V2_ACCESS_KEY | V2_SIGNATURE => claimed = Self::V2,
                _ => {}
            }
        }
        claimed
    }
}

/// The parameter's value; bytes that are not UTF-8 become U+FFFD, which no valid value contains.
pub(super) fn decode(raw: &str) -> Cow<'_, str> {
    if !raw.bytes().any(|b| b == b'%' || b == b'+') {
        return Cow::Borrowed(raw);
    }
    let bytes = decode_bytes(raw);
    Cow::Owned(
        String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()),
    )
}

/// The bytes that `raw` stands for.
pub(super) fn decode_bytes(raw: &str) -> Vec<u8> {
    let mut rest = raw.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((byte, taken)) = Part::Query.decode_first(rest) {
        bytes.push(byte);
        rest = &rest[taken..];
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_parameter_of_a_mechanism_is_a_claim() {
        assert_eq!(Claimed::of(""), Claimed::Nothing);
        assert_eq!(
            Claimed::of("acl&prefix=X-Amz-Signature&Expires=1"),
            Claimed::Nothing
        );
        assert_eq!(Claimed::of("a&X-Amz-Credential"), Claimed::V4);
        assert_eq!(Claimed::of("X-Amz-Algorithm=&b"), Claimed::V4);
        assert_eq!(Claimed::of("Signature=s"), Claimed::V2);
        assert_eq!(Claimed::of("AWSAccessKeyId=s&X-Amz-Signature=t"), Claimed::V4);
    }

    #[test]
    fn decoding() {
        assert_eq!(decode("a-b"), "a-b");
        assert_eq!(decode("AKIA%2F2013%2fs3+x%2B"), "AKIA/2013/s3 x+");
        assert_eq!(decode("%ff%"), "\u{fffd}%");
    }
}
