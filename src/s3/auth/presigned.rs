//! Signature Version 4 in the query: presigned URLs.
//!
//! Source: Amazon S3 API Reference, "Authenticating Requests: Using Query Parameters". The URL is good from
//! `X-Amz-Date` for `X-Amz-Expires` seconds, at most a week. The body is unsigned unless
//! `X-Amz-Content-Sha256`, in the query or as a header, says more. It must not pass a request by itself:
//! [`sigv4::verify`] does.

use super::date::Timestamp;
use super::error::{EXPIRED, NOT_VALID_YET, WRONG_CONTENT_SHA256, query as message};
use super::key_cache::KeyCache;
use super::query::{self, decode};
use super::sigv4::{self, Claim, Defects, Scope};
use super::{
    AuthError, Authenticated, Credentials, Fields, Headers, PRESIGNED_EXPIRY_S_MAX, Placement, SKEW_S_MAX,
    SignedRequest,
};

/// Checks a request whose query has a parameter of Version 4.
pub(super) fn authenticate<H: Headers + ?Sized>(
    request: &SignedRequest<'_, H>,
    fields: &Fields<'_>,
    now_unix_s: i64,
    credentials: &impl Credentials,
    cache: &mut KeyCache,
) -> Result<Authenticated, AuthError> {
    let parameters = Parameters::parse(request.query)?;
    if decode(parameters.algorithm) != "AWS4-HMAC-SHA256" {
        return Err(wrong(message::ALGORITHM));
    }
    let credential = decode(parameters.credential);
    let scope = Scope::parse(&credential, &QUERY_DEFECTS)?;
    let timestamp =
        Timestamp::from_compact(decode(parameters.date).as_bytes()).ok_or(wrong(message::DATE))?;
    let expires_s = parse_expires(&decode(parameters.expires))?;
    if timestamp.unix_s - now_unix_s > SKEW_S_MAX {
        return Err(AuthError::AccessDenied(NOT_VALID_YET));
    }
    if now_unix_s > timestamp.unix_s + expires_s {
        return Err(AuthError::AccessDenied(EXPIRED));
    }
    let in_query = parameters.content_sha256.map(decode);
    let content_sha256 = match (
        in_query.as_ref().map(|text| text.as_bytes()),
        fields.content_sha256,
    ) {
        (Some(query), Some(header)) if query != header => {
            return Err(AuthError::InvalidArgument(WRONG_CONTENT_SHA256));
        }
        (Some(either), _) | (None, Some(either)) => either,
        (None, None) => b"UNSIGNED-PAYLOAD",
    };
    let signature = decode(parameters.signature);
    let claim = Claim {
        scope,
        signed_headers: &decode(parameters.signed_headers),
        signature: signature.as_bytes(),
        timestamp,
        content_sha256,
        security_token: parameters.security_token.is_some() || fields.security_token.is_some(),
        placement: Placement::Query,
    };
    sigv4::verify(request, &claim, credentials, cache)
}

pub(super) const QUERY_DEFECTS: Defects = Defects {
    credential: wrong(message::CREDENTIAL),
    service: wrong(message::SERVICE),
    terminator: wrong(message::TERMINATOR),
    day: wrong(message::DATE_MISMATCH),
    headers: wrong(message::SIGNED_HEADERS),
};

const fn wrong(message: &'static str) -> AuthError {
    AuthError::AuthorizationQueryParametersError(message)
}

/// The parameters of Version 4, as sent.
struct Parameters<'a> {
    algorithm: &'a str,
    credential: &'a str,
    date: &'a str,
    expires: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
    content_sha256: Option<&'a str>,
    security_token: Option<&'a str>,
}

impl<'a> Parameters<'a> {
    fn parse(query: &'a str) -> Result<Self, AuthError> {
        let [mut algorithm, mut credential, mut date, mut expires] = [None; 4];
        let [
            mut signed_headers,
            mut signature,
            mut content_sha256,
            mut security_token,
        ] = [None; 4];
        for parameter in query::parameters(query) {
            let place = match parameter.name {
                query::ALGORITHM => &mut algorithm,
                query::CREDENTIAL => &mut credential,
                query::SIGNATURE => &mut signature,
                "X-Amz-Date" => &mut date,
                "X-Amz-Expires" => &mut expires,
                "X-Amz-SignedHeaders" => &mut signed_headers,
                "X-Amz-Content-Sha256" => &mut content_sha256,
                "X-Amz-Security-Token" => &mut security_token,
                _ => continue,
            };
            if place.replace(parameter.value).is_some() {
                return Err(wrong(message::REPEATED));
            }
        }
        let missing = wrong(message::MISSING);
        Ok(Self {
            algorithm: algorithm.ok_or(missing)?,
            credential: credential.ok_or(missing)?,
            date: date.ok_or(missing)?,
            expires: expires.ok_or(missing)?,
            signed_headers: signed_headers.ok_or(missing)?,
            signature: signature.ok_or(missing)?,
            content_sha256,
            security_token,
        })
    }
}

/// Seconds, 1 to a week.
fn parse_expires(text: &str) -> Result<i64, AuthError> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong(message::EXPIRES_NUMBER));
    }
    if digits.len() < text.len() {
        return Err(wrong(message::EXPIRES_NEGATIVE));
    }
    match digits.parse::<i64>() {
        Ok(0) => Err(wrong(message::EXPIRES_NEGATIVE)),
        Ok(expires_s) if expires_s <= PRESIGNED_EXPIRY_S_MAX => Ok(expires_s),
        _ => Err(wrong(message::EXPIRES_TOO_LARGE)),
    }
}
