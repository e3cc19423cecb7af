//! Signature Version 4 in the Authorization header, and the check that presigned URLs share with it.
//!
//! Source: Amazon S3 API Reference, "Authenticating Requests: Using the Authorization Header". The region is
//! the client's choice. Invariant: [`verify`] is the only place that lets a Version 4 request pass.
//! It must not decide how old a request may be: the two placements differ in that.

use super::canonical::{self, hex};
use super::date::Timestamp;
use super::error::{NO_CONTENT_SHA256, NO_DATE, header};
use super::key_cache::{KeyCache, KeyId};
use super::streaming::{ChunkSigner, decode_signature};
use super::{
    AuthError, Authenticated, Credentials, Fields, Headers, Payload, PayloadClaim, Placement, SKEW_S_MAX,
    SignatureVersion, SignedRequest,
};
use ring::{digest, hmac};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Checks a request whose Authorization header starts with `AWS4-HMAC-SHA256`.
pub(super) fn authenticate<H: Headers + ?Sized>(
    request: &SignedRequest<'_, H>,
    fields: &Fields<'_>,
    authorization: &[u8],
    now_unix_s: i64,
    credentials: &impl Credentials,
    cache: &mut KeyCache,
) -> Result<Authenticated, AuthError> {
    let components = Components::parse(authorization)?;
    let scope = Scope::parse(components.credential, &HEADER_DEFECTS)?;
    let timestamp = match (fields.amz_date, fields.date) {
        (Some(amz_date), _) => Timestamp::from_compact(amz_date),
        (None, Some(date)) => Timestamp::from_date_header(date),
        (None, None) => None,
    };
    let timestamp = timestamp.ok_or(AuthError::AccessDenied(NO_DATE))?;
    let content_sha256 = fields
        .content_sha256
        .ok_or(AuthError::InvalidRequest(NO_CONTENT_SHA256))?;
    if (now_unix_s - timestamp.unix_s).abs() > SKEW_S_MAX {
        return Err(AuthError::RequestTimeTooSkewed);
    }
    let claim = Claim {
        scope,
        signed_headers: components.signed_headers,
        signature: components.signature.as_bytes(),
        timestamp,
        content_sha256,
        security_token: fields.security_token.is_some(),
        placement: Placement::Header,
    };
    verify(request, &claim, credentials, cache)
}

/// A Version 4 signature and what it was made from, wherever it was placed.
pub(super) struct Claim<'a> {
    pub scope: Scope<'a>,
    pub signed_headers: &'a str,
    pub signature: &'a [u8],
    pub timestamp: Timestamp,
    /// The last line of the canonical request.
    pub content_sha256: &'a [u8],
    pub security_token: bool,
    pub placement: Placement,
}

/// Checks everything but the age of the request.
pub(super) fn verify<H: Headers + ?Sized>(
    request: &SignedRequest<'_, H>,
    claim: &Claim<'_>,
    credentials: &impl Credentials,
    cache: &mut KeyCache,
) -> Result<Authenticated, AuthError> {
    let defects = match claim.placement {
        Placement::Header => &HEADER_DEFECTS,
        Placement::Query => &super::presigned::QUERY_DEFECTS,
    };
    let scope = &claim.scope;
    if scope.day.as_bytes() != claim.timestamp.day() {
        return Err(defects.day);
    }
    let payload = PayloadClaim::parse(claim.content_sha256)?;
    let secret = credentials
        .secret(scope.access_key)
        .ok_or(AuthError::InvalidAccessKeyId)?;
    if claim.security_token {
        return Err(AuthError::InvalidToken);
    }
    let hash = canonical::request_hash(
        request,
        claim.signed_headers,
        claim.content_sha256,
        claim.placement,
        defects.headers,
    )?;
    let string_to_sign = string_to_sign(claim, &hash);
    let signature = decode_signature(claim.signature).ok_or(AuthError::SignatureDoesNotMatch)?;
    let id = KeyId {
        access_key: scope.access_key,
        secret,
        day: scope.day.as_bytes(),
        region: scope.region,
    };
    let payload = cache.with_key(id, |key| {
        hmac::verify(key, &string_to_sign, &signature).map_err(|_| AuthError::SignatureDoesNotMatch)?;
        let chunks = || {
            Some(ChunkSigner::new(
                key.clone(),
                &claim.timestamp,
                scope.text.as_bytes(),
                hex(&signature),
            ))
        };
        Ok(match payload {
            PayloadClaim::Unsigned => Payload::Unsigned,
            PayloadClaim::Sha256(sha256) => Payload::Sha256(sha256),
            PayloadClaim::UnsignedTrailer => Payload::Streaming {
                chunks: None,
                trailer: true,
            },
            PayloadClaim::SignedChunks => Payload::Streaming {
                chunks: chunks(),
                trailer: false,
            },
            PayloadClaim::SignedChunksTrailer => Payload::Streaming {
                chunks: chunks(),
                trailer: true,
            },
        })
    })?;
    let access_key = scope.access_key.to_owned();
    Ok(Authenticated {
        access_key,
        payload,
        placement: claim.placement,
        version: SignatureVersion::V4,
    })
}

fn string_to_sign(claim: &Claim<'_>, request_hash: &digest::Digest) -> Vec<u8> {
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(request_hash.as_ref());
    let scope = claim.scope.text.as_bytes();
    let mut text = Vec::with_capacity(ALGORITHM.len() + 16 + scope.len() + 64 + 3);
    for line in [ALGORITHM.as_bytes(), &claim.timestamp.compact, scope] {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.extend_from_slice(&hex(&sha256));
    text
}

/// What a placement answers for each defect of a claim.
pub(super) struct Defects {
    pub credential: AuthError,
    pub service: AuthError,
    pub terminator: AuthError,
    pub day: AuthError,
    pub headers: AuthError,
}

const HEADER_DEFECTS: Defects = Defects {
    credential: AuthError::AuthorizationHeaderMalformed(header::CREDENTIAL),
    service: AuthError::AuthorizationHeaderMalformed(header::SERVICE),
    terminator: AuthError::AuthorizationHeaderMalformed(header::TERMINATOR),
    day: AuthError::AuthorizationHeaderMalformed(header::DATE),
    headers: AuthError::AuthorizationHeaderMalformed(header::SIGNED_HEADERS),
};

/// A credential: `access-key/20130524/us-east-1/s3/aws4_request`.
pub(super) struct Scope<'a> {
    /// May itself contain slashes.
    pub access_key: &'a str,
    pub day: &'a str,
    pub region: &'a str,
    /// All but the access key, as the string to sign has it.
    pub text: &'a str,
}

impl<'a> Scope<'a> {
    pub(super) fn parse(credential: &'a str, defects: &Defects) -> Result<Self, AuthError> {
        let mut parts = credential.rsplitn(5, '/');
        let (Some(terminator), Some(service), Some(region), Some(day), Some(access_key)) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(defects.credential);
        };
        let day_is_wrong = day.len() != 8 || !day.bytes().all(|b| b.is_ascii_digit());
        if access_key.is_empty() || region.is_empty() || region.len() > REGION_BYTES_MAX || day_is_wrong {
            return Err(defects.credential);
        }
        if service != "s3" {
            return Err(defects.service);
        }
        if terminator != "aws4_request" {
            return Err(defects.terminator);
        }
        Ok(Self {
            access_key,
            day,
            region,
            text: &credential[access_key.len() + 1..],
        })
    }
}

/// Bytes of a region's name; AWS's longest has 14.
const REGION_BYTES_MAX: usize = 64;

/// The three components of the header, as sent.
struct Components<'a> {
    credential: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

impl<'a> Components<'a> {
    /// Components come in any order, separated by commas with or without blanks.
    fn parse(authorization: &'a [u8]) -> Result<Self, AuthError> {
        let malformed = AuthError::AuthorizationHeaderMalformed(header::COMPONENTS);
        let text = std::str::from_utf8(authorization).map_err(|_| malformed)?;
        let list = text.strip_prefix(ALGORITHM).ok_or(malformed)?;
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for component in list.split(',') {
            let (name, value) = component.trim_ascii().split_once('=').ok_or(malformed)?;
            let place = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(malformed),
            };
            if place.replace(value).is_some() {
                return Err(malformed);
            }
        }
        let (Some(credential), Some(signed_headers), Some(signature)) =
            (credential, signed_headers, signature)
        else {
            return Err(malformed);
        };
        if signature.is_empty() {
            return Err(AuthError::AuthorizationHeaderMalformed(header::SIGNATURE));
        }
        Ok(Self {
            credential,
            signed_headers,
            signature,
        })
    }
}
