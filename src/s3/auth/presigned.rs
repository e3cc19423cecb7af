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

#[cfg(test)]
mod tests {
    use super::super::Payload;
    use super::super::error::UNSIGNED_HEADERS;
    use super::super::testing::*;
    use super::*;

    fn good() -> Request {
        seed("aws-v4-presigned").1
    }

    fn base() -> Request {
        Request::put("/b/k").header("host", "h")
    }

    fn refused(request: &Request) -> AuthError {
        request.authenticate(NOW).unwrap_err()
    }

    #[test]
    fn a_url_is_good_from_its_date_until_it_expires() {
        assert!(good().authenticate(NOW + 86_400).is_ok());
        assert_eq!(
            good().authenticate(NOW + 86_401).unwrap_err(),
            AuthError::AccessDenied(EXPIRED)
        );
        assert!(good().authenticate(NOW - SKEW_S_MAX).is_ok());
        assert_eq!(
            good().authenticate(NOW - SKEW_S_MAX - 1).unwrap_err(),
            AuthError::AccessDenied(NOT_VALID_YET)
        );
    }

    #[test]
    fn expiry_is_one_second_to_a_week() {
        for good in ["1", "900", "604800", "0604800"] {
            assert!(base().presign("host", good).authenticate(NOW).is_ok(), "{good}");
        }
        for (expires, message) in [
            ("604801", message::EXPIRES_TOO_LARGE),
            ("99999999999999999999999", message::EXPIRES_TOO_LARGE),
            ("0", message::EXPIRES_NEGATIVE),
            ("-1", message::EXPIRES_NEGATIVE),
            ("", message::EXPIRES_NUMBER),
            ("-", message::EXPIRES_NUMBER),
            ("1h", message::EXPIRES_NUMBER),
            ("%2B5", message::EXPIRES_NUMBER),
            ("1.5", message::EXPIRES_NUMBER),
        ] {
            assert_eq!(
                refused(&base().presign("host", expires)),
                wrong(message),
                "{expires}"
            );
        }
    }

    #[test]
    fn each_parameter_is_required_once() {
        let query = good().query;
        for parameter in query.split('&') {
            let rest: Vec<&str> = query.split('&').filter(|other| *other != parameter).collect();
            assert_eq!(
                refused(&good().query(&rest.join("&"))),
                wrong(message::MISSING),
                "{parameter}"
            );
            assert_eq!(
                refused(&good().query(&format!("{query}&{parameter}"))),
                wrong(message::REPEATED),
                "{parameter}"
            );
        }
    }

    #[test]
    fn malformed_parameters() {
        for (from, to, message) in [
            ("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256", message::ALGORITHM),
            ("%2F20130524%2F", "%2F2013052%2F", message::CREDENTIAL),
            ("%2F20130524%2F", "%2F20130523%2F", message::DATE_MISMATCH),
            ("AKIAIOSFODNN7EXAMPLE%2F20130524%2F", "", message::CREDENTIAL),
            ("%2Fs3%2F", "%2Fiam%2F", message::SERVICE),
            ("aws4_request", "aws5_request", message::TERMINATOR),
            ("Date=20130524T000000Z", "Date=20130524T0000", message::DATE),
            (
                "Date=20130524T000000Z",
                "Date=Fri,%2024%20May%202013%2000:00:00%20GMT",
                message::DATE,
            ),
            ("SignedHeaders=host", "SignedHeaders=", message::SIGNED_HEADERS),
            ("%2F20130524%2F", "%2F%ff%2F", message::CREDENTIAL),
        ] {
            assert_eq!(refused(&good().edit_query(from, to)), wrong(message), "{to}");
        }
    }

    #[test]
    fn a_url_for_get_does_not_put() {
        let put = Request {
            method: "PUT".into(),
            ..good()
        };
        assert_eq!(refused(&put), AuthError::SignatureDoesNotMatch);
    }

    #[test]
    fn host_and_present_amz_headers_must_be_signed() {
        let unsigned = AuthError::AccessDenied(UNSIGNED_HEADERS);
        let copy = || base().header("x-amz-copy-source", "/b/s");
        assert!(
            copy()
                .presign("host;x-amz-copy-source", "60")
                .authenticate(NOW)
                .is_ok()
        );
        assert_eq!(refused(&copy().presign("host", "60")), unsigned);
        assert_eq!(refused(&copy().presign("x-amz-copy-source", "60")), unsigned);
    }

    #[test]
    fn the_payload_is_unsigned_unless_said() {
        let payload = |request: Request| request.authenticate(NOW).unwrap().payload;
        assert!(matches!(payload(base().presign("host", "60")), Payload::Unsigned));
        let as_header = base()
            .header("x-amz-content-sha256", EMPTY_SHA256)
            .presign("host", "60");
        assert!(matches!(payload(as_header.clone()), Payload::Sha256(hash) if hash == sha256(b"")));
        let in_query = || base().query(&format!("X-Amz-Content-Sha256={EMPTY_SHA256}"));
        let signed = in_query().presign_as("host", "60", EMPTY_SHA256);
        assert!(matches!(payload(signed.clone()), Payload::Sha256(hash) if hash == sha256(b"")));
        assert!(matches!(
            payload(signed.clone().header("x-amz-content-sha256", EMPTY_SHA256)),
            Payload::Sha256(_)
        ));
        // Two that differ would be signed by one and obeyed by the other.
        let both = signed.header("x-amz-content-sha256", "UNSIGNED-PAYLOAD");
        assert_eq!(refused(&both), AuthError::InvalidArgument(WRONG_CONTENT_SHA256));
        assert_eq!(
            refused(&as_header.without("x-amz-content-sha256")),
            AuthError::SignatureDoesNotMatch
        );
    }

    #[test]
    fn a_streaming_body_does_not_excuse_from_the_signature() {
        for kind in [
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        ] {
            let request = base().header("x-amz-content-sha256", kind);
            let signed = request.clone().presign("host;x-amz-content-sha256", "60");
            let payload = signed.authenticate(NOW).unwrap().payload;
            assert!(matches!(payload, Payload::Streaming { trailer: true, .. }));
            let half = request.clone().query(&format!(
                "X-Amz-Credential={ACCESS_KEY}%2F20130524%2Fr%2Fs3%2Faws4_request"
            ));
            assert_eq!(refused(&half), wrong(message::MISSING));
            let start = signed.query.find("X-Amz-Signature=").unwrap();
            let garbage = request.query(&format!(
                "{}X-Amz-Signature={}",
                &signed.query[..start],
                "0".repeat(64)
            ));
            assert_eq!(refused(&garbage), AuthError::SignatureDoesNotMatch);
        }
    }

    #[test]
    fn a_token_in_the_query_is_refused() {
        let request = good().edit_query("X-Amz-Date", "X-Amz-Security-Token=t&X-Amz-Date");
        assert_eq!(refused(&request), AuthError::InvalidToken);
    }

    #[test]
    fn spaces_sent_as_plus_still_match() {
        // minio-go presigns `%20` and sends `+`.
        let (now, request) = seed("minio-presigned-get");
        assert!(request.edit_query("x%20y", "x+y").authenticate(now).is_ok());
    }
}
