//! Signature Version 2, in the Authorization header and in presigned URLs, for clients that still have only
//! that (boto3 with `signature_version='s3'`).
//!
//! Source: Amazon S3 API Reference, "Signing and authenticating REST requests (AWS signature version 2)".
//! It covers the method, three headers, every `x-amz-*` header (in a presigned URL parameters of such a name
//! count as headers), the path and those parameters that choose the operation or change the answer; not the
//! host, other parameters, or the body. Invariant: a parameter
//! that turns one operation into another is in [`SIGNED_PARAMETERS`]. It must not offer signed chunks.

use super::canonical::is_amz;
use super::date;
use super::error::{EXPIRED, NO_DATE, UNSUPPORTED_AUTHORIZATION, WRONG_CONTENT_SHA256, query as message};
use super::query::{self, decode, decode_bytes};
use super::{
    AuthError, Authenticated, Credentials, Fields, Headers, Payload, PayloadClaim, Placement, SKEW_S_MAX,
    SignatureVersion, Signed, SignedRequest,
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
    // A time before 1970 is no date to S3.
    let time = date::Timestamp::from_date_header(date)
        .filter(|time| time.unix_s >= 0)
        .ok_or(AuthError::AccessDenied(NO_DATE))?;
    if (now_unix_s - time.unix_s).abs() > SKEW_S_MAX {
        return Err(AuthError::RequestTimeTooSkewed);
    }
    let claim = Claim {
        access_key,
        signature,
        date: signed_date,
        unix_s: Some(time.unix_s),
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
        unix_s: None,
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
    /// When it was signed, if it says so.
    unix_s: Option<i64>,
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
    let in_query = match claim.placement {
        Placement::Query => amz_parameters(request.query)?,
        Placement::Header => Vec::new(),
    };
    let matches = |final_slash| {
        let text = string_to_sign(request, &in_query, claim.date, final_slash);
        hmac::verify(&key, &text, &signature).is_ok()
    };
    // boto signs a bucket as `/bucket/` and asks for `/bucket`: both name the same resource.
    let name = request.path.strip_prefix('/').unwrap_or_default();
    let names_bucket = request.host_bucket.is_none() && !name.is_empty() && !name.contains('/');
    if !(matches("") || names_bucket && matches("/")) {
        return Err(AuthError::SignatureDoesNotMatch);
    }
    let access_key = claim.access_key.to_owned();
    Ok(Authenticated {
        access_key,
        payload,
        signed: Signed {
            placement: claim.placement,
            version: SignatureVersion::V2,
            unix_s: claim.unix_s,
        },
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

fn string_to_sign<H: Headers + ?Sized>(
    request: &SignedRequest<'_, H>,
    in_query: &[(String, Vec<u8>)],
    date: &[u8],
    final_slash: &str,
) -> Vec<u8> {
    let mut text = Vec::with_capacity(512);
    text.extend_from_slice(request.method.as_bytes());
    text.push(b'\n');
    for wanted in ["content-md5", "content-type"] {
        let values = request
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        for (i, (_, value)) in values.enumerate() {
            // A second one that nobody signed changes the string.
            text.extend_from_slice(if i == 0 { b"" } else { b"," });
            text.extend_from_slice(value.trim_ascii());
        }
        text.push(b'\n');
    }
    text.extend_from_slice(date);
    text.push(b'\n');
    amz_headers(&mut text, request.headers, in_query);
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
    text.extend_from_slice(final_slash.as_bytes());
    parameters(&mut text, request.query);
    text
}

/// The `x-amz-*` parameters, decoded, names in lower case: SDKs that presign put these headers into the query,
/// and the request is read with them.
///
/// Errors: SignatureDoesNotMatch if one could not be a header: with a line break it would read as two.
fn amz_parameters(query: &str) -> Result<Vec<(String, Vec<u8>)>, AuthError> {
    query::parameters(query)
        .map(|parameter| (decode(parameter.name), parameter.value))
        .filter(|(name, _)| is_amz(name))
        .map(|(name, value)| {
            let value = decode_bytes(value);
            let is_header = name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
                && !value.iter().any(|b| b.is_ascii_control());
            is_header
                .then(|| (name.to_ascii_lowercase(), value))
                .ok_or(AuthError::SignatureDoesNotMatch)
        })
        .collect()
}

/// CanonicalizedAmzHeaders: `name:value,value\n`, sorted by name.
fn amz_headers<H: Headers + ?Sized>(text: &mut Vec<u8>, headers: &H, in_query: &[(String, Vec<u8>)]) {
    let in_query = in_query
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()));
    let mut sorted: Vec<(String, &[u8])> = headers
        .iter()
        .chain(in_query)
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
    // Names are decoded first, as routing does: an escaped name chooses the operation just the same.
    let mut signed: Vec<_> = query::parameters(query)
        .map(|parameter| (decode(parameter.name), parameter.value))
        .filter(|(name, _)| SIGNED_PARAMETERS.contains(&name.as_ref()))
        .collect();
    signed.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (i, (name, value)) in signed.iter().enumerate() {
        text.push(if i == 0 { b'?' } else { b'&' });
        text.extend_from_slice(name.as_bytes());
        if !value.is_empty() {
            text.push(b'=');
            text.extend_from_slice(&decode_bytes(value));
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

#[cfg(test)]
mod tests {
    use super::super::error::MULTIPLE_MECHANISMS;
    use super::super::testing::*;
    use super::*;

    fn refused(now: i64, request: Request) -> AuthError {
        request.authenticate(now).unwrap_err()
    }

    /// Signs `string_to_sign` and puts the signature where the request has `SIGNATURE`.
    fn sign(string_to_sign: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, SECRET_KEY.as_bytes());
        STANDARD.encode(hmac::sign(&key, string_to_sign.as_bytes()))
    }

    #[test]
    fn an_amz_date_is_signed_among_the_headers() {
        // AWS's "Delete" example. The signature that the page prints is made with the date in the other
        // place, against the page's own rule and every SDK.
        let string_to_sign =
            "DELETE\n\n\n\nx-amz-date:Tue, 27 Mar 2007 21:20:26 +0000\n/awsexamplebucket1/photos/puppy.jpg";
        assert_eq!(sign(string_to_sign), "Ri1hpB1zpS9pGqR7y8kuNFCl4sE=");
        let request = Request::new("DELETE", "/awsexamplebucket1/photos/puppy.jpg")
            .header("Host", "s3.us-west-1.amazonaws.com")
            .header("Date", "Tue, 27 Mar 2007 21:20:27 +0000")
            .header("x-amz-date", "Tue, 27 Mar 2007 21:20:26 +0000")
            .header(
                "Authorization",
                "AWS AKIAIOSFODNN7EXAMPLE:Ri1hpB1zpS9pGqR7y8kuNFCl4sE=",
            );
        let now = 1_175_030_426;
        assert!(request.authenticate(now).is_ok());
        assert!(request.clone().set("date", "whenever").authenticate(now).is_ok());
        assert_eq!(
            refused(now + SKEW_S_MAX + 1, request),
            AuthError::RequestTimeTooSkewed
        );
    }

    #[test]
    fn the_bucket_of_the_host_is_signed() {
        let (now, request) = seed("aws-v2-get");
        assert!(
            request
                .clone()
                .host_bucket("awsexamplebucket1")
                .authenticate(now)
                .is_ok()
        );
        assert_eq!(
            refused(now, request.clone().host_bucket("other")),
            AuthError::SignatureDoesNotMatch
        );
        let path_style = Request {
            path: "/awsexamplebucket1/photos/puppy.jpg".into(),
            host_bucket: None,
            ..request
        };
        assert!(path_style.authenticate(now).is_ok());
    }

    #[test]
    fn dates_are_required() {
        let (now, request) = seed("aws-v2-get");
        let no_date = AuthError::AccessDenied(NO_DATE);
        assert_eq!(refused(now, request.clone().without("date")), no_date);
        for date in ["yesterday", "Fri, 07 Jul 1950 21:53:04 GMT"] {
            assert_eq!(refused(now, request.clone().set("date", date)), no_date, "{date}");
        }
        assert_eq!(
            refused(now, request.header("Date", "Tue, 27 Mar 2007 19:36:42 +0000")),
            no_date
        );
    }

    #[test]
    fn malformed_headers() {
        let (now, request) = seed("aws-v2-get");
        for value in ["AWS", "AWS ", "AWS AKIAIOSFODNN7EXAMPLE"] {
            let error = refused(now, request.clone().set("authorization", value));
            assert_eq!(
                error,
                AuthError::InvalidArgument(UNSUPPORTED_AUTHORIZATION),
                "{value}"
            );
        }
        for signature in [
            "",
            "x",
            "qgk2+6Sv9/oM7G3qLEjTH1a1l1g",
            "qgk2+6Sv9/oM7G3qLEjTH1a1l1g==",
        ] {
            let error = refused(
                now,
                request
                    .clone()
                    .set("authorization", &format!("AWS {ACCESS_KEY}:{signature}")),
            );
            assert_eq!(error, AuthError::SignatureDoesNotMatch, "{signature}");
        }
    }

    #[test]
    fn a_presigned_url_is_good_until_it_expires() {
        let (expires, request) = seed("aws-v2-presigned");
        assert!(request.authenticate(0).is_ok());
        assert!(request.authenticate(expires).is_ok());
        assert_eq!(
            refused(expires + 1, request.clone()),
            AuthError::AccessDenied(EXPIRED)
        );
        let later = request
            .clone()
            .edit_query("Expires=1175139620", "Expires=1175139621");
        assert_eq!(refused(expires, later), AuthError::SignatureDoesNotMatch);
        for wrong in ["", "soon", "1175139620.5"] {
            let error = refused(
                expires,
                request.clone().edit_query("=1175139620", &format!("={wrong}")),
            );
            assert_eq!(error, AuthError::AccessDenied(message::V2_EXPIRES));
        }
    }

    #[test]
    fn amz_headers_in_a_presigned_query_are_signed() {
        let signed = |in_query: &str, headers: &[(&str, &str)]| {
            let mut text = Vec::new();
            amz_headers(&mut text, headers, &amz_parameters(in_query).unwrap());
            String::from_utf8(text).unwrap()
        };
        let query = "Expires=1&X-Amz-Meta-B=%20two+words&x-amz-meta-a=%C3%A9&x-other=1";
        assert_eq!(
            signed(query, &[("x-amz-acl", "private"), ("x-b", "1")]),
            "x-amz-acl:private\nx-amz-meta-a:é\nx-amz-meta-b:two words\n"
        );
        // A header does not stand in for a parameter that is signed, nor join it unseen.
        assert!(signed(query, &[("X-Amz-Meta-A", "b")]).starts_with("x-amz-meta-a:b,é\n"));
    }

    #[test]
    fn parameters_that_read_as_several_headers_are_refused() {
        for query in [
            "x-amz-acl=private%0Ax-amz-meta-a:1",
            "x-amz-acl=private%0D",
            "x-amz-acl:private%0Ax-amz-meta-a=1",
            "x-amz-acl:=private",
            "x-amz-%C3%A9=1",
        ] {
            assert_eq!(
                amz_parameters(query),
                Err(AuthError::SignatureDoesNotMatch),
                "{query}"
            );
        }
        assert_eq!(amz_parameters("prefix=a%0Ab").unwrap(), []);
    }

    #[test]
    fn presigned_parameters_are_required_once() {
        let (now, request) = seed("aws-v2-presigned");
        let missing = AuthError::AccessDenied(message::V2_MISSING);
        for parameter in request.query.split('&') {
            let rest: Vec<&str> = request
                .query
                .split('&')
                .filter(|other| *other != parameter)
                .collect();
            let error = refused(now, request.clone().query(&rest.join("&")));
            assert_eq!(error, missing, "{parameter}");
            let twice = request.clone().query(&format!("{}&{parameter}", request.query));
            assert_eq!(refused(now, twice), missing, "{parameter}");
        }
        let token = request
            .clone()
            .query(&format!("{}&x-amz-security-token=t", request.query));
        assert_eq!(refused(now, token), AuthError::InvalidToken);
        let both = request.header("authorization", "AWS4-HMAC-SHA256 x");
        assert_eq!(
            refused(now, both),
            AuthError::InvalidArgument(MULTIPLE_MECHANISMS)
        );
    }

    #[test]
    fn plus_signs_left_in_a_presigned_signature_still_match() {
        let (now, request) = seed("boto-v2-presigned-put");
        assert!(
            request
                .edit_query("a%2BOTnfx6", "a+OTnfx6")
                .authenticate(now)
                .is_ok()
        );
    }

    #[test]
    fn parameters_that_change_the_operation_are_signed_sorted_and_decoded() {
        let mut text = Vec::new();
        parameters(
            &mut text,
            "prefix=a&uploads=&versionId=a%2Bb%20c&acl&x-id=GetObject&response-expires=a+b",
        );
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "?acl&response-expires=a b&uploads&versionId=a+b c"
        );
        assert!(SIGNED_PARAMETERS.is_sorted());
    }

    #[test]
    fn a_promised_payload_is_kept_and_signed_chunks_are_refused() {
        let with = |content_sha256: &str| {
            let date = "Fri, 24 May 2013 00:00:00 GMT";
            let signature = sign(&format!(
                "PUT\n\n\n{date}\nx-amz-content-sha256:{content_sha256}\n/b/k"
            ));
            Request::put("/b/k")
                .header("Host", "h")
                .header("Date", date)
                .header("x-amz-content-sha256", content_sha256)
                .header("Authorization", &format!("AWS {ACCESS_KEY}:{signature}"))
                .authenticate(NOW)
        };
        assert!(matches!(with(EMPTY_SHA256).unwrap().payload, Payload::Sha256(hash) if hash == sha256(b"")));
        assert!(matches!(
            with("UNSIGNED-PAYLOAD").unwrap().payload,
            Payload::Unsigned
        ));
        let trailer = with("STREAMING-UNSIGNED-PAYLOAD-TRAILER").unwrap().payload;
        assert!(matches!(
            trailer,
            Payload::Streaming {
                chunks: None,
                trailer: true
            }
        ));
        let chunks = with("STREAMING-AWS4-HMAC-SHA256-PAYLOAD").unwrap_err();
        assert_eq!(chunks, AuthError::InvalidArgument(WRONG_CONTENT_SHA256));
    }
}
