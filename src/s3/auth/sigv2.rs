//! Signature Version 2, in the Authorization header and in presigned URLs, for clients that still have only
//! that (boto3 with `signature_version='s3'`).
//!
//! Source: Amazon S3 API Reference, "Signing and authenticating REST requests (AWS signature version 2)".
//! It covers the method, three headers, every `x-amz-*` header, the path and those parameters that choose
//! the operation or change the answer; not the host, other parameters, or the body. Invariant: a parameter
//! that turns one operation into another is in [`SIGNED_PARAMETERS`]. It must not offer signed chunks.

use super::canonical::is_amz;
use super::date;
use super::error::{EXPIRED, NO_DATE, UNSUPPORTED_AUTHORIZATION, WRONG_CONTENT_SHA256, query as message};
use super::query::{self, decode, decode_bytes};
use super::{
    AuthError, Authenticated, Credentials, Fields, Headers, Payload, PayloadClaim, Placement, SKEW_S_MAX,
    SignatureVersion, SignedRequest,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// Checks `Authorization: AWS access-key:signature`.
pub(super) fn authenticate_header<H: Headers + ?Sized>(
    request: &SignedRequest<'_, H>,
    fields: &Fields<'_>,
    authorization: &[u8],
    now_unix_s: i64,
    credentials: &impl Credentials,
) -> Result<Authenticated, AuthError> {
    let malformed = AuthError::InvalidArgument(UNSUPPORTED_AUTHORIZATION);
    let text = std::str::from_utf8(authorization).map_err(|_| malformed)?;
    let credential = text.strip_prefix("AWS ").ok_or(malformed)?.trim_ascii();
    let (access_key, signature) = credential.rsplit_once(':').ok_or(malformed)?;
    // A date among the x-amz headers is signed there, and the Date header is ignored.
    let (date, signed_date) = match (fields.amz_date, fields.date) {
        (Some(amz_date), _) => (amz_date, b"".as_slice()),
        (None, Some(date)) => (date, date),
        (None, None) => return Err(AuthError::AccessDenied(NO_DATE)),
    };
    let time = date::Timestamp::from_date_header(date).ok_or(AuthError::AccessDenied(NO_DATE))?;
    if (now_unix_s - time.unix_s).abs() > SKEW_S_MAX {
        return Err(AuthError::RequestTimeTooSkewed);
    }
    let claim = Claim {
        access_key,
        signature,
        date: signed_date,
        placement: Placement::Header,
    };
    verify(request, fields, &claim, credentials)
}

/// Checks a query with `AWSAccessKeyId`, `Expires` (seconds since 1970) and `Signature`.
pub(super) fn authenticate_query<H: Headers + ?Sized>(
    request: &SignedRequest<'_, H>,
    fields: &Fields<'_>,
    now_unix_s: i64,
    credentials: &impl Credentials,
) -> Result<Authenticated, AuthError> {
    let [mut access_key, mut expires, mut signature] = [None; 3];
    for parameter in query::parameters(request.query) {
        let place = match parameter.name {
            query::V2_ACCESS_KEY => &mut access_key,
            query::V2_SIGNATURE => &mut signature,
            "Expires" => &mut expires,
            // There are no sessions; a token that Version 2 does not sign must not pass unnoticed.
            "x-amz-security-token" | "X-Amz-Security-Token" => return Err(AuthError::InvalidToken),
            _ => continue,
        };
        if place.replace(parameter.value).is_some() {
            return Err(AuthError::AccessDenied(message::V2_MISSING));
        }
    }
    let (Some(access_key), Some(expires), Some(signature)) = (access_key, expires, signature) else {
        return Err(AuthError::AccessDenied(message::V2_MISSING));
    };
    let (access_key, expires) = (decode(access_key), decode(expires));
    let expires_unix_s = expires
        .parse::<i64>()
        .map_err(|_| AuthError::AccessDenied(message::V2_EXPIRES))?;
    if now_unix_s > expires_unix_s {
        return Err(AuthError::AccessDenied(EXPIRED));
    }
    let claim = Claim {
        access_key: &access_key,
        // Some clients leave the plus signs of base64 unescaped.
        signature: &decode(signature).replace(' ', "+"),
        date: expires.as_bytes(),
        placement: Placement::Query,
    };
    verify(request, fields, &claim, credentials)
}

struct Claim<'a> {
    access_key: &'a str,
    /// HMAC-SHA1 in base64.
    signature: &'a str,
    /// What stands in the date's place in the string to sign.
    date: &'a [u8],
    placement: Placement,
}

fn verify<H: Headers + ?Sized>(
    request: &SignedRequest<'_, H>,
    fields: &Fields<'_>,
    claim: &Claim<'_>,
    credentials: &impl Credentials,
) -> Result<Authenticated, AuthError> {
    let payload = payload(fields.content_sha256)?;
    let secret = credentials
        .secret(claim.access_key)
        .ok_or(AuthError::InvalidAccessKeyId)?;
    if fields.security_token.is_some() {
        return Err(AuthError::InvalidToken);
    }
    let signature = STANDARD
        .decode(claim.signature)
        .map_err(|_| AuthError::SignatureDoesNotMatch)?;
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    hmac::verify(&key, &string_to_sign(request, claim.date), &signature)
        .map_err(|_| AuthError::SignatureDoesNotMatch)?;
    let access_key = claim.access_key.to_owned();
    Ok(Authenticated {
        access_key,
        payload,
        placement: claim.placement,
        version: SignatureVersion::V2,
    })
}

/// Version 2 signs `x-amz-content-sha256` like any other header, so what it promises holds. Signed chunks
/// need a key of Version 4.
fn payload(content_sha256: Option<&[u8]>) -> Result<Payload, AuthError> {
    match content_sha256.map(PayloadClaim::parse).transpose()? {
        None | Some(PayloadClaim::Unsigned) => Ok(Payload::Unsigned),
        Some(PayloadClaim::Sha256(sha256)) => Ok(Payload::Sha256(sha256)),
        Some(PayloadClaim::UnsignedTrailer) => Ok(Payload::Streaming {
            chunks: None,
            trailer: true,
        }),
        Some(PayloadClaim::SignedChunks | PayloadClaim::SignedChunksTrailer) => {
            Err(AuthError::InvalidArgument(WRONG_CONTENT_SHA256))
        }
    }
}

fn string_to_sign<H: Headers + ?Sized>(request: &SignedRequest<'_, H>, date: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(512);
    let first = |wanted: &str| {
        let mut values = request
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        values
            .next()
            .map_or(b"".as_slice(), |(_, value)| value.trim_ascii())
    };
    for line in [
        request.method.as_bytes(),
        first("content-md5"),
        first("content-type"),
        date,
    ] {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    amz_headers(&mut text, request.headers);
    if let Some(bucket) = request.host_bucket {
        text.push(b'/');
        text.extend_from_slice(bucket.as_bytes());
    }
    // The path is signed as it was sent, escapes and all.
    text.extend_from_slice(
        if request.path.is_empty() {
            "/"
        } else {
            request.path
        }
        .as_bytes(),
    );
    parameters(&mut text, request.query);
    text
}

/// CanonicalizedAmzHeaders: `name:value,value\n`, sorted by name.
fn amz_headers<H: Headers + ?Sized>(text: &mut Vec<u8>, headers: &H) {
    let mut sorted: Vec<(String, &[u8])> = headers
        .iter()
        .filter(|(name, _)| is_amz(name))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim_ascii()))
        .collect();
    // Stable: values of one name stay in the order sent.
    sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
    for group in sorted.chunk_by(|(a, _), (b, _)| a == b) {
        for (i, (name, value)) in group.iter().enumerate() {
            match i {
                0 => text.extend_from_slice(&[name.as_bytes(), b":"].concat()),
                _ => text.push(b','),
            }
            text.extend_from_slice(value);
        }
        text.push(b'\n');
    }
}

/// The parameters that are signed, sorted by name, values decoded; `=` only before a value.
fn parameters(text: &mut Vec<u8>, query: &str) {
    let mut signed: Vec<_> = query::parameters(query)
        .filter(|parameter| SIGNED_PARAMETERS.contains(&parameter.name))
        .collect();
    signed.sort_by_key(|parameter| parameter.name);
    for (i, parameter) in signed.iter().enumerate() {
        text.push(if i == 0 { b'?' } else { b'&' });
        text.extend_from_slice(parameter.name.as_bytes());
        if !parameter.value.is_empty() {
            text.push(b'=');
            text.extend_from_slice(&decode_bytes(parameter.value));
        }
    }
}

/// What AWS's page lists, and every parameter since that names a subresource, as SDKs sign them.
const SIGNED_PARAMETERS: [&str; 44] = [
    "accelerate",
    "acl",
    "analytics",
    "attributes",
    "cors",
    "defaultObjectAcl",
    "delete",
    "encryption",
    "intelligent-tiering",
    "inventory",
    "legal-hold",
    "lifecycle",
    "location",
    "logging",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "partNumber",
    "policy",
    "policyStatus",
    "publicAccessBlock",
    "replication",
    "requestPayment",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "restore",
    "retention",
    "select",
    "select-type",
    "session",
    "storageClass",
    "tagging",
    "torrent",
    "uploadId",
    "uploads",
    "versionId",
    "versioning",
    "versions",
    "website",
];
