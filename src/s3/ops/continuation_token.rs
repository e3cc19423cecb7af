//! Continuation tokens: where a listing goes on, sealed so that nobody can make one or use it elsewhere.
//!
//! A token is base64url of an HMAC-SHA256 over what is listed and where it goes on, and then that place. It is no secret: the client was shown the key.

use crate::s3::error::{S3Error, S3Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

const TAG_BYTES: usize = 32;

/// What is listed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Buckets,
    /// Objects of the bucket with this id.
    Objects(u64),
}

/// A token for a listing that goes on after `place`.
pub fn seal(key: &hmac::Key, scope: Scope, place: &[u8]) -> String {
    let tag = hmac::sign(key, &signed(scope, place));
    URL_SAFE_NO_PAD.encode([tag.as_ref(), place].concat())
}

/// The place in a token.
///
/// Errors: `InvalidArgument` unless it was sealed here for this listing.
pub fn open(key: &hmac::Key, scope: Scope, token: &str) -> S3Result<Vec<u8>> {
    let invalid = || {
        S3Error::invalid_argument(
            "The continuation token provided is incorrect",
            "continuation-token",
            token,
        )
    };
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
    let (given, place) = bytes.split_at_checked(TAG_BYTES).ok_or_else(invalid)?;
    hmac::verify(key, &signed(scope, place), given).map_err(|_| invalid())?;
    Ok(place.to_vec())
}

fn signed(scope: Scope, place: &[u8]) -> Vec<u8> {
    let (kind, id) = match scope {
        Scope::Buckets => (b'b', 0),
        Scope::Objects(id) => (b'o', id),
    };
    [&[kind], id.to_le_bytes().as_slice(), place].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_only_where_it_was_sealed() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let token = seal(&key, Scope::Objects(7), b"a/key");
        assert_eq!(open(&key, Scope::Objects(7), &token).unwrap(), b"a/key");
        assert!(open(&key, Scope::Objects(8), &token).is_err());
        assert!(open(&key, Scope::Buckets, &token).is_err());
        assert!(open(&key, Scope::Objects(7), "").is_err());
        let forged = URL_SAFE_NO_PAD.encode([&[0; TAG_BYTES], b"b/key".as_slice()].concat());
        assert!(open(&key, Scope::Objects(7), &forged).is_err());
    }
}
