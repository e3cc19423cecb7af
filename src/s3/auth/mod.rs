//! Who is asking: checks the signature of a request's head and says how its body must be checked.
//!
//! Signature Version 4 in the Authorization header (`sigv4`) and in presigned URLs (`presigned`), its
//! signed chunks (`streaming`), and Signature Version 2 in both places (`sigv2`). Everything here takes the
//! parts of a request, the time and the credentials, and returns values.
//!
//! Invariants:
//! - An [`Authenticated`] exists only if a signature made with the secret of its access key covers the
//!   method, the path, the query, the host and every `x-amz-*` header of the request (Version 2: what that
//!   version covers), at a time that is still good.
//! - The body is as signed only once the caller has held it against [`Authenticated::payload`].
//! - Signatures are compared in constant time; nothing is cached for a request that failed.
//!
//! It must not do I/O, read a clock, or decide what an identity may do.

mod canonical;
mod date;
mod error;
mod key_cache;
mod presigned;
mod query;
mod sigv2;
mod sigv4;
mod streaming;
#[cfg(test)]
mod testing;
mod users;

pub use error::AuthError;
pub use key_cache::KeyCache;
pub use streaming::ChunkSigner;
pub use users::{Rank, Secret, User, Users, root_account};

use error::{MULTIPLE_MECHANISMS, UNSUPPORTED_AUTHORIZATION, WRONG_CONTENT_SHA256};

/// A request's time may differ from ours by this many seconds, either way.
pub const SKEW_S_MAX: i64 = 15 * 60;
/// A presigned URL of Version 4 lives at most this many seconds: a week.
pub const PRESIGNED_EXPIRY_S_MAX: i64 = 604_800;

/// The parts of a request head that signatures cover, as they came over the wire.
pub struct SignedRequest<'a, H: Headers + ?Sized> {
    /// `GET`, `PUT`, ...
    pub method: &'a str,
    /// The path, percent-encoded as sent.
    pub path: &'a str,
    /// What followed the first `?`, as sent; empty without one.
    pub query: &'a str,
    pub headers: &'a H,
    /// The bucket that the Host header names, if the request is in virtual-hosted style.
    pub host_bucket: Option<&'a str>,
}

/// The header fields of a request, in the order in which they came.
///
/// Only the first [`HEADERS_MAX`](crate::limits::HEADERS_MAX) count; a request with more is refused.
pub trait Headers {
    /// Names in any case, values without leading and trailing blanks.
    fn iter(&self) -> impl Iterator<Item = (&str, &[u8])>;
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Headers for [(N, V)] {
    fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        <[(N, V)]>::iter(self).map(|(name, value)| (name.as_ref(), value.as_ref()))
    }
}

/// Where secrets come from.
pub trait Credentials {
    /// The secret key of `access_key`, if there is such a key and it may be used.
    fn secret(&self, access_key: &str) -> Option<&[u8]>;
}

/// The one user that the daemon was started with.
pub struct RootUser {
    pub access_key: String,
    pub secret_key: String,
}

impl Credentials for RootUser {
    fn secret(&self, access_key: &str) -> Option<&[u8]> {
        (access_key == self.access_key).then_some(self.secret_key.as_bytes())
    }
}

/// A request whose head bears a good signature.
#[derive(Debug)]
pub struct Authenticated {
    pub access_key: String,
    pub payload: Payload,
    pub signed: Signed,
}

/// The signature of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signed {
    pub placement: Placement,
    pub version: SignatureVersion,
    /// When it was made, in seconds since 1970, if it says so.
    pub unix_s: Option<i64>,
}

/// Where the signature was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// In the Authorization header.
    Header,
    /// In the query: a presigned URL.
    Query,
}

/// How the signature was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignatureVersion {
    V2,
    V4,
}

/// How the body is framed and what it must agree with. It follows from `x-amz-content-sha256` alone.
#[derive(Debug)]
pub enum Payload {
    /// The signature says nothing about the body.
    Unsigned,
    /// The body has this SHA-256, or the answer is [`AuthError::ContentSha256Mismatch`].
    Sha256([u8; 32]),
    /// The body is `aws-chunked`.
    Streaming {
        /// With it every chunk, the last empty one too, must pass [`ChunkSigner::verify_chunk`].
        /// Boxed, because few bodies have one and every answer would carry its size.
        chunks: Option<Box<ChunkSigner>>,
        /// Trailing header fields follow the last chunk; with `chunks` they are signed.
        trailer: bool,
    },
}

/// Says who signed `request`.
///
/// `now_unix_s` is the time in seconds since 1970-01-01T00:00:00Z.
///
/// Errors: [`AuthError::Anonymous`] if the request claims nobody, else what S3 answers for the defect found
/// first (Amazon S3 API Reference, "Authenticating Requests (AWS Signature Version 4)" and "Signing and
/// authenticating REST requests (AWS signature version 2)").
pub fn authenticate<H: Headers + ?Sized>(
    request: &SignedRequest<'_, H>,
    now_unix_s: i64,
    credentials: &impl Credentials,
    cache: &mut KeyCache,
) -> Result<Authenticated, AuthError> {
    let fields = Fields::of(request.headers)?;
    let claimed = query::Claimed::of(request.query);
    match (fields.authorization, claimed) {
        (None, query::Claimed::Nothing) => Err(AuthError::Anonymous),
        (None, query::Claimed::V4) => {
            presigned::authenticate(request, &fields, now_unix_s, credentials, cache)
        }
        (None, query::Claimed::V2) => sigv2::authenticate_query(request, &fields, now_unix_s, credentials),
        (Some(_), query::Claimed::V4 | query::Claimed::V2) => {
            Err(AuthError::InvalidArgument(MULTIPLE_MECHANISMS))
        }
        (Some(authorization), query::Claimed::Nothing) => match authorization.split(|&b| b == b' ').next() {
            Some(b"AWS4-HMAC-SHA256") => {
                sigv4::authenticate(request, &fields, authorization, now_unix_s, credentials, cache)
            }
            Some(b"AWS") => {
                sigv2::authenticate_header(request, &fields, authorization, now_unix_s, credentials)
            }
            _ => Err(AuthError::InvalidArgument(UNSUPPORTED_AUTHORIZATION)),
        },
    }
}

/// How the body of a request that claims nobody is framed: what its header says, but for chunks that somebody would have
/// to have signed.
///
/// # Errors
/// `AccessDenied` for those, `InvalidArgument` for a header that says nothing.
pub fn unsigned_payload<H: Headers + ?Sized>(headers: &H) -> Result<Payload, AuthError> {
    let Some(content_sha256) = Fields::of(headers)?.content_sha256 else {
        return Ok(Payload::Unsigned);
    };
    match PayloadClaim::parse(content_sha256)? {
        PayloadClaim::Unsigned => Ok(Payload::Unsigned),
        PayloadClaim::Sha256(sha256) => Ok(Payload::Sha256(sha256)),
        PayloadClaim::UnsignedTrailer => Ok(Payload::Streaming {
            chunks: None,
            trailer: true,
        }),
        PayloadClaim::SignedChunks | PayloadClaim::SignedChunksTrailer => Err(AuthError::Anonymous),
    }
}

/// The header fields that say who asks, when, and with what body.
#[derive(Default)]
struct Fields<'a> {
    authorization: Option<&'a [u8]>,
    amz_date: Option<&'a [u8]>,
    date: Option<&'a [u8]>,
    content_sha256: Option<&'a [u8]>,
    security_token: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    /// A field that came twice would be read by one layer and signed by another: it is refused.
    fn of<H: Headers + ?Sized>(headers: &'a H) -> Result<Self, AuthError> {
        let mut fields = Self::default();
        for (name, value) in headers.iter() {
            // Lengths are all different, so most names cost one comparison.
            let (field, expected) = match name.len() {
                4 => (&mut fields.date, "date"),
                10 => (&mut fields.amz_date, "x-amz-date"),
                13 => (&mut fields.authorization, "authorization"),
                20 => match name.as_bytes()[6] | 0x20 {
                    b'c' => (&mut fields.content_sha256, "x-amz-content-sha256"),
                    _ => (&mut fields.security_token, "x-amz-security-token"),
                },
                _ => continue,
            };
            if !name.eq_ignore_ascii_case(expected) {
                continue;
            }
            if field.replace(value.trim_ascii()).is_some() {
                return Err(match expected {
                    "authorization" => AuthError::InvalidArgument(MULTIPLE_MECHANISMS),
                    "x-amz-content-sha256" => AuthError::InvalidArgument(WRONG_CONTENT_SHA256),
                    "x-amz-security-token" => AuthError::InvalidToken,
                    _ => AuthError::AccessDenied(error::NO_DATE),
                });
            }
        }
        Ok(fields)
    }
}

/// What an `x-amz-content-sha256` promises, before a signature gives chunks their key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PayloadClaim {
    Unsigned,
    Sha256([u8; 32]),
    UnsignedTrailer,
    SignedChunks,
    SignedChunksTrailer,
}

impl PayloadClaim {
    fn parse(content_sha256: &[u8]) -> Result<Self, AuthError> {
        match content_sha256 {
            b"UNSIGNED-PAYLOAD" => Ok(Self::Unsigned),
            b"STREAMING-UNSIGNED-PAYLOAD-TRAILER" => Ok(Self::UnsignedTrailer),
            b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => Ok(Self::SignedChunks),
            b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => Ok(Self::SignedChunksTrailer),
            hex => canonical::hex_decode::<32>(hex)
                .map(Self::Sha256)
                .ok_or(AuthError::InvalidArgument(WRONG_CONTENT_SHA256)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;

    #[test]
    fn no_credentials_are_anonymous() {
        let request = Request::get("/examplebucket/key").header("Host", "localhost:9000");
        assert_eq!(request.authenticate(NOW).unwrap_err(), AuthError::Anonymous);
        assert_eq!(
            AuthError::Anonymous.describe(),
            ("AccessDenied", 403, "Access Denied")
        );
    }

    #[test]
    fn unsigned_streaming_without_a_signature_is_anonymous() {
        let request = Request::put("/b/k")
            .header("host", "h")
            .header("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
            .header("x-amz-trailer", "x-amz-checksum-crc32");
        assert_eq!(request.authenticate(NOW).unwrap_err(), AuthError::Anonymous);
    }

    #[test]
    fn two_mechanisms_are_refused() {
        for query in [
            "X-Amz-Credential=a",
            "X-Amz-Signature=a",
            "X-Amz-Algorithm=a",
            "Signature=a",
            "AWSAccessKeyId=a",
        ] {
            let request = Request::get("/").query(query).header("authorization", "AWS a:b");
            assert_eq!(
                request.authenticate(NOW).unwrap_err(),
                AuthError::InvalidArgument(MULTIPLE_MECHANISMS)
            );
        }
        let request = Request::get("/")
            .header("authorization", "AWS a:b")
            .header("Authorization", "AWS a:c");
        assert_eq!(
            request.authenticate(NOW).unwrap_err(),
            AuthError::InvalidArgument(MULTIPLE_MECHANISMS)
        );
    }

    #[test]
    fn other_schemes_are_refused() {
        for value in [
            "",
            "Bearer token",
            "Basic dTpw",
            "AWS4-ECDSA-P256-SHA256 Credential=a",
            "aws a:b",
            "AWS4-HMAC-SHA256x",
        ] {
            let request = Request::get("/").header("authorization", value);
            assert_eq!(
                request.authenticate(NOW).unwrap_err(),
                AuthError::InvalidArgument(UNSUPPORTED_AUTHORIZATION)
            );
        }
    }

    #[test]
    fn published_examples_and_client_requests_pass() {
        for (name, text) in SEEDS {
            let (now, request) = Request::parse_seed(text);
            let authenticated = request
                .authenticate(now)
                .unwrap_or_else(|e| panic!("{name}: {e:?}"));
            assert_eq!(authenticated.access_key, ACCESS_KEY);
            let in_query = name.contains("presigned");
            assert_eq!(
                authenticated.signed.placement == Placement::Query,
                in_query,
                "{name}"
            );
            assert_eq!(
                authenticated.signed.version == SignatureVersion::V2,
                name.contains("-v2-"),
                "{name}"
            );
            match (*name, authenticated.payload) {
                (
                    "aws-v4-chunked",
                    Payload::Streaming {
                        chunks: Some(_),
                        trailer: false,
                    },
                )
                | (
                    "aws-v4-chunked-trailer",
                    Payload::Streaming {
                        chunks: Some(_),
                        trailer: true,
                    },
                )
                | (
                    "boto-put-unsigned-trailer",
                    Payload::Streaming {
                        chunks: None,
                        trailer: true,
                    },
                ) => {}
                (_, Payload::Sha256(_)) => assert!(!in_query, "{name}"),
                (_, Payload::Unsigned) => assert!(in_query || name.contains("-v2-"), "{name}"),
                (_, other) => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_changed_signature_never_passes() {
        for (name, text) in SEEDS {
            let (now, request) = Request::parse_seed(text);
            let in_query = request.query.contains("Signature=");
            let marker = if name.contains("-v2-") && !in_query {
                ":"
            } else {
                "Signature="
            };
            let sent = match in_query {
                true => request.query.clone(),
                false => request.value("authorization").unwrap(),
            };
            let start = sent.find(marker).unwrap() + marker.len();
            let length = sent[start..].split('&').next().unwrap().len();
            for at in start..start + length {
                // One bit, and what is there instead of a character of another kind.
                for other in [sent.as_bytes()[at] ^ 1, sent.as_bytes()[at] ^ 4, b'A', b'Z', b'-'] {
                    let mut changed = sent.clone().into_bytes();
                    changed[at] = other;
                    let (Ok(changed), false) = (String::from_utf8(changed), other == sent.as_bytes()[at])
                    else {
                        continue;
                    };
                    let request = match in_query {
                        true => request.clone().query(&changed),
                        false => request.clone().set("authorization", &changed),
                    };
                    let result = request.authenticate(now);
                    assert!(result.is_err(), "{name}: {changed}");
                }
            }
        }
    }

    #[test]
    fn a_changed_method_path_or_query_never_passes() {
        for (name, text) in SEEDS {
            let (now, request) = Request::parse_seed(text);
            let mut changed = vec![Request {
                method: "DELETE".into(),
                ..request.clone()
            }];
            for path in [
                format!("{}x", request.path),
                format!("/x{}", request.path),
                format!("{}/", request.path),
                "/a/..".into(),
            ] {
                changed.push(Request {
                    path,
                    ..request.clone()
                });
            }
            let parameters: &[&str] = if name.contains("-v2-") {
                &["acl", "uploadId=x", "versionId=1"]
            } else {
                &["x", "acl", "prefix=K"]
            };
            for parameter in parameters {
                if request.query.split('&').any(|sent| sent == *parameter) {
                    continue;
                }
                changed.push(request.clone().query(&format!("{parameter}&{}", request.query)));
                changed.push(request.clone().query(&format!("{}&{parameter}", request.query)));
            }
            for request in changed {
                let result = request.authenticate(now);
                assert_eq!(
                    result.unwrap_err(),
                    AuthError::SignatureDoesNotMatch,
                    "{name}: {request:?}"
                );
            }
        }
    }

    #[test]
    fn a_changed_missing_or_added_header_never_passes() {
        for (name, text) in SEEDS {
            let (now, request) = Request::parse_seed(text);
            let signed: Vec<String> = match name.contains("-v2-") {
                true => request
                    .headers
                    .iter()
                    .map(|(name, _)| name.to_ascii_lowercase())
                    .filter(|name| {
                        canonical::is_amz(name) || ["content-type", "content-md5"].contains(&name.as_str())
                    })
                    .collect(),
                false => {
                    let all = format!(
                        "{} {}",
                        request.query.replace("%3B", ";"),
                        request.value("authorization").unwrap_or_default()
                    );
                    let list = all.split("SignedHeaders=").nth(1).unwrap();
                    list.split(['&', ',', ' '])
                        .next()
                        .unwrap()
                        .split(';')
                        .map(str::to_owned)
                        .collect()
                }
            };
            for header in &signed {
                let value = request.value(header).unwrap();
                assert!(
                    request
                        .clone()
                        .set(header, &format!("{value}x"))
                        .authenticate(now)
                        .is_err(),
                    "{name} {header}"
                );
                assert!(
                    request.clone().without(header).authenticate(now).is_err(),
                    "{name} {header}"
                );
                if header != "host" {
                    assert!(
                        request.clone().header(header, "x").authenticate(now).is_err(),
                        "{name} {header}"
                    );
                }
            }
            for added in ["x-amz-copy-source", "X-Amz-Acl", "x-amz-", "x-amz-meta-x"] {
                let error = request
                    .clone()
                    .header(added, "/b/k")
                    .authenticate(now)
                    .unwrap_err();
                assert!(error.describe().1 == 403, "{name} {added}: {error:?}");
            }
            assert!(
                request.clone().header("X-Other", "x").authenticate(now).is_ok(),
                "{name}"
            );
        }
    }

    #[test]
    fn requests_are_good_for_a_quarter_of_an_hour() {
        for (name, text) in SEEDS.iter().filter(|(name, _)| !name.contains("presigned")) {
            let (now, request) = Request::parse_seed(text);
            for late in [SKEW_S_MAX, -SKEW_S_MAX] {
                assert!(request.authenticate(now + late).is_ok(), "{name}");
                let error = request.authenticate(now + late + late.signum()).unwrap_err();
                assert_eq!(error, AuthError::RequestTimeTooSkewed, "{name}");
            }
        }
    }

    #[test]
    fn a_session_token_is_refused() {
        for (name, text) in SEEDS {
            let (now, request) = Request::parse_seed(text);
            let error = request
                .header("x-amz-security-token", "t")
                .authenticate(now)
                .unwrap_err();
            assert_eq!(error, AuthError::InvalidToken, "{name}");
        }
    }

    #[test]
    fn an_unknown_access_key_is_refused() {
        for (name, text) in SEEDS {
            let (now, request) = Request::parse_seed(&text.replace(ACCESS_KEY, "AKIAIOSFODNN7NOBODY"));
            assert_eq!(
                request.authenticate(now).unwrap_err(),
                AuthError::InvalidAccessKeyId,
                "{name}"
            );
        }
    }

    #[test]
    fn payload_claims() {
        let parse = PayloadClaim::parse;
        assert_eq!(parse(b"UNSIGNED-PAYLOAD"), Ok(PayloadClaim::Unsigned));
        assert_eq!(
            parse(b"STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
            Ok(PayloadClaim::UnsignedTrailer)
        );
        assert_eq!(
            parse(b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
            Ok(PayloadClaim::SignedChunks)
        );
        assert_eq!(
            parse(b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"),
            Ok(PayloadClaim::SignedChunksTrailer)
        );
        assert_eq!(parse([b'0'; 64].as_slice()), Ok(PayloadClaim::Sha256([0; 32])));
        let wrong = Err(AuthError::InvalidArgument(WRONG_CONTENT_SHA256));
        assert_eq!(parse(b""), wrong);
        assert_eq!(parse(b"unsigned-payload"), wrong);
        assert_eq!(parse([b'0'; 63].as_slice()), wrong);
        assert_eq!(parse([b'g'; 64].as_slice()), wrong);
        assert_eq!(parse(b"STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"), wrong);
    }
}
