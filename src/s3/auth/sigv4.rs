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
    SignatureVersion, Signed, SignedRequest,
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
            let scope = scope.text.as_bytes();
            Some(Box::new(ChunkSigner::new(
                key.clone(),
                &claim.timestamp,
                scope,
                hex(&signature),
            )))
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
        signed: Signed {
            placement: claim.placement,
            version: SignatureVersion::V4,
            unix_s: Some(claim.timestamp.unix_s),
        },
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

#[cfg(test)]
mod tests {
    use super::super::error::{UNSIGNED_HEADERS, WRONG_CONTENT_SHA256};
    use super::super::testing::*;
    use super::super::{RootUser, authenticate};
    use super::*;

    fn good() -> Request {
        seed("aws-v4-get").1
    }

    fn refused(request: &Request) -> AuthError {
        request.authenticate(NOW).unwrap_err()
    }

    fn malformed(request: Request) -> &'static str {
        match refused(&request) {
            AuthError::AuthorizationHeaderMalformed(message) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn components_come_in_any_order_and_spacing() {
        let sent = String::from_utf8(good().headers[1].1.clone()).unwrap();
        let [credential, headers, signature] =
            <[&str; 3]>::try_from(sent["AWS4-HMAC-SHA256 ".len()..].split(',').collect::<Vec<_>>()).unwrap();
        for value in [
            format!("AWS4-HMAC-SHA256 {credential}, {headers}, {signature}"),
            format!("AWS4-HMAC-SHA256   {credential} ,{headers},  {signature} "),
            format!("AWS4-HMAC-SHA256 {signature},{headers},{credential}"),
            format!("AWS4-HMAC-SHA256 {headers},\t{credential},{signature}"),
        ] {
            good()
                .set("authorization", &value)
                .authenticate(NOW)
                .expect(&value);
        }
        for value in [
            "AWS4-HMAC-SHA256".to_owned(),
            "AWS4-HMAC-SHA256 ".to_owned(),
            format!("AWS4-HMAC-SHA256 {credential},{headers}"),
            format!("AWS4-HMAC-SHA256 {credential},{signature}"),
            format!("AWS4-HMAC-SHA256 {headers},{signature}"),
            format!("AWS4-HMAC-SHA256 {credential},{headers},{signature},"),
            format!("AWS4-HMAC-SHA256 {credential},{headers},{signature},x=y"),
            format!("AWS4-HMAC-SHA256 {credential},{headers},{signature},{signature}"),
            format!("AWS4-HMAC-SHA256 {credential} {headers} {signature}"),
        ] {
            assert_eq!(
                malformed(good().set("authorization", &value)),
                header::COMPONENTS,
                "{value}"
            );
        }
        let mut request = good();
        request.headers[1].1.push(0xff);
        assert_eq!(malformed(request), header::COMPONENTS);
    }

    #[test]
    fn credential_scopes() {
        let with = |scope: &str| good().edit("authorization", "20130524/us-east-1/s3/aws4_request", scope);
        for wrong in [
            "",
            "20130524",
            "20130524/s3/aws4_request",
            "2013052/us-east-1/s3/aws4_request",
            "2013052x/us-east-1/s3/aws4_request",
            "20130524//s3/aws4_request",
        ] {
            assert_eq!(malformed(with(wrong)), header::CREDENTIAL, "{wrong}");
        }
        let long = format!("20130524/{}/s3/aws4_request", "r".repeat(REGION_BYTES_MAX + 1));
        assert_eq!(malformed(with(&long)), header::CREDENTIAL);
        assert_eq!(
            malformed(with("20130524/us-east-1/ec2/aws4_request")),
            header::SERVICE
        );
        assert_eq!(
            malformed(with("20130524/us-east-1/s3/aws5_request")),
            header::TERMINATOR
        );
        assert_eq!(
            malformed(with("20130523/us-east-1/s3/aws4_request")),
            header::DATE
        );
        assert_eq!(
            refused(&with("20130524/us-west-1/s3/aws4_request")),
            AuthError::SignatureDoesNotMatch
        );
        let empty_key = good().edit("authorization", ACCESS_KEY, "");
        assert_eq!(malformed(empty_key), header::CREDENTIAL);
    }

    #[test]
    fn access_keys_may_contain_slashes() {
        let scope = Scope::parse("a/b/20130524/r/s3/aws4_request", &HEADER_DEFECTS).unwrap();
        assert_eq!(
            (scope.access_key, scope.text),
            ("a/b", "20130524/r/s3/aws4_request")
        );
    }

    #[test]
    fn signatures_that_are_not_sixty_four_lower_case_digits() {
        let with = |signature: &str| {
            let signature = format!("Signature={signature}");
            let old = "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
            good().edit("authorization", old, &signature)
        };
        let right = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        assert!(with(right).authenticate(NOW).is_ok());
        assert_eq!(malformed(with("")), header::SIGNATURE);
        for wrong in [
            &right[1..],
            &format!("{right}0"),
            &right.to_ascii_uppercase(),
            "garbage",
        ] {
            assert_eq!(refused(&with(wrong)), AuthError::SignatureDoesNotMatch);
        }
    }

    #[test]
    fn every_amz_header_and_host_must_be_signed() {
        let base = || {
            Request::put("/b/k")
                .header("host", "h")
                .header("x-amz-date", "20130524T000000Z")
                .header("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
                .header("x-amz-copy-source", "/b/s")
        };
        assert!(
            base()
                .sign("host;x-amz-content-sha256;x-amz-copy-source;x-amz-date")
                .authenticate(NOW)
                .is_ok()
        );
        // Its value is the last line of what is signed.
        assert!(
            base()
                .sign("host;x-amz-copy-source;x-amz-date")
                .authenticate(NOW)
                .is_ok()
        );
        for unsigned in [
            "x-amz-content-sha256;x-amz-copy-source;x-amz-date",
            "host;x-amz-date",
            "host;x-amz-copy-source",
        ] {
            assert_eq!(
                refused(&base().sign(unsigned)),
                AuthError::AccessDenied(UNSIGNED_HEADERS),
                "{unsigned}"
            );
        }
        let absent = base().sign("host;x-amz-copy-source;x-amz-date;x-amz-gone");
        assert_eq!(refused(&absent), AuthError::SignatureDoesNotMatch);
        for list in [
            "",
            ";",
            "host;",
            "host;;x-amz-date",
            "host;host",
            "host;x-amz-date;Host",
        ] {
            let request = base().sign("host").edit(
                "authorization",
                "SignedHeaders=host",
                &format!("SignedHeaders={list}"),
            );
            assert_eq!(malformed(request), header::SIGNED_HEADERS);
        }
    }

    #[test]
    fn unsigned_streaming_needs_its_signature() {
        let (now, request) = seed("boto-put-unsigned-trailer");
        let garbage = request.edit("authorization", "Signature=b5ab", "Signature=0000");
        assert_eq!(
            garbage.authenticate(now).unwrap_err(),
            AuthError::SignatureDoesNotMatch
        );
    }

    #[test]
    fn repeated_headers_are_joined_in_their_order() {
        let base = |first: &str, second: &str| {
            Request::put("/b/k")
                .header("host", "h")
                .header("X-Amz-Meta-A", first)
                .header("x-amz-date", "20130524T000000Z")
                .header("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
                .header("x-amz-meta-a", second)
        };
        let joined = Request::put("/b/k")
            .header("host", "h")
            .header("x-amz-meta-a", "1,2")
            .header("x-amz-date", "20130524T000000Z")
            .header("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
            .sign("host;x-amz-content-sha256;x-amz-date;x-amz-meta-a");
        let authorization = String::from_utf8(joined.headers.last().unwrap().1.clone()).unwrap();
        assert!(
            base("1", " 2")
                .header("Authorization", &authorization)
                .authenticate(NOW)
                .is_ok()
        );
        assert_eq!(
            refused(&base("2", "1").header("Authorization", &authorization)),
            AuthError::SignatureDoesNotMatch
        );
    }

    #[test]
    fn dates() {
        let base = || {
            Request::get("/")
                .header("host", "h")
                .header("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
        };
        for date in [
            "Fri, 24 May 2013 00:00:00 GMT",
            "Fri, 24 May 2013 00:00:00 +0000",
            "20130524T000000Z",
        ] {
            assert!(
                base()
                    .header("Date", date)
                    .sign("date;host")
                    .authenticate(NOW)
                    .is_ok(),
                "{date}"
            );
        }
        let no_date = AuthError::AccessDenied(NO_DATE);
        assert_eq!(refused(&base().sign("host")), no_date);
        assert_eq!(refused(&base().header("date", "yesterday").sign("host")), no_date);
        assert_eq!(
            refused(&base().header("x-amz-date", "2013-05-24").sign("host;x-amz-date")),
            no_date
        );
        let twice = good().header("x-amz-date", "20130524T000000Z");
        assert_eq!(refused(&twice), no_date);
        // x-amz-date is what counts where both came.
        let both = base()
            .header("date", "Fri, 24 May 2019 00:00:00 GMT")
            .header("x-amz-date", "20130524T000000Z");
        assert!(both.sign("host;x-amz-date").authenticate(NOW).is_ok());
    }

    #[test]
    fn content_sha256_is_required_once_and_known() {
        let missing = AuthError::InvalidRequest(NO_CONTENT_SHA256);
        assert_eq!(refused(&good().without("x-amz-content-sha256")), missing);
        let wrong = AuthError::InvalidArgument(WRONG_CONTENT_SHA256);
        assert_eq!(
            refused(&good().set("x-amz-content-sha256", "STREAMING-PAYLOAD")),
            wrong
        );
        assert_eq!(
            refused(&good().header("x-amz-content-sha256", EMPTY_SHA256)),
            wrong
        );
        let unsigned = good().set("x-amz-content-sha256", "UNSIGNED-PAYLOAD");
        assert_eq!(refused(&unsigned), AuthError::SignatureDoesNotMatch);
    }

    #[test]
    fn clients_that_escape_less_or_more_still_match() {
        let (now, request) = seed("boto-get");
        let path = request
            .path
            .replace("%27%28f%29%2A%21", "'(f)*!")
            .replace("%3D", "=")
            .replace("d~e", "d%7ee");
        assert!(Request { path, ..request }.authenticate(now).is_ok());
        let (now, request) = seed("boto-list");
        let spaces_as_plus = request.edit_query("a%20b", "a+b").edit_query("%2F%2B", "/%2b");
        assert!(spaces_as_plus.authenticate(now).is_ok());
        let (now, request) = seed("boto-list");
        assert!(
            request
                .edit_query("list-type=2&", "&list%2dtype=2&&")
                .authenticate(now)
                .is_ok()
        );
    }

    #[test]
    fn a_key_in_the_cache_passes_only_its_own_signatures() {
        let mut cache = KeyCache::new();
        for _ in 0..2 {
            assert!(good().authenticate_with(NOW, &mut cache).is_ok());
            let wrong = good()
                .set("range", "bytes=0-8")
                .authenticate_with(NOW, &mut cache);
            assert_eq!(wrong.unwrap_err(), AuthError::SignatureDoesNotMatch);
        }
    }

    #[test]
    fn a_new_secret_counts_at_once() {
        let request = good();
        let signed = SignedRequest {
            method: &request.method,
            path: &request.path,
            query: &request.query,
            headers: request.headers.as_slice(),
            host_bucket: None,
        };
        let root = |secret: &str| RootUser {
            access_key: ACCESS_KEY.into(),
            secret_key: secret.into(),
        };
        let mut cache = KeyCache::new();
        assert!(authenticate(&signed, NOW, &root(SECRET_KEY), &mut cache).is_ok());
        let error = authenticate(&signed, NOW, &root("changed"), &mut cache).unwrap_err();
        assert_eq!(error, AuthError::SignatureDoesNotMatch);
    }
}
