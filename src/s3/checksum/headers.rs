//! What request headers and trailers say about checksums, read as S3 reads them.
//!
//! Three requests differ: a body that comes with its checksum ([`BodyChecksum`]: PutObject, UploadPart,
//! DeleteObjects), an upload that announces one ([`UploadChecksum`]: CreateMultipartUpload), and the
//! completion of an upload that states the result ([`CompleteChecksum`]).
//!
//! Invariant: at most one algorithm comes out of a request; a value that comes out has its exact length.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Algorithm, Checksum, ChecksumType, Digest};
use crate::limits::PARTS_MAX;
use crate::s3::error::{ErrorCode, S3Error, S3Result};

const PREFIX: &str = "x-amz-checksum-";

/// The checksum that a client sends with a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BodyChecksum {
    /// What it is computed with.
    pub algorithm: Algorithm,
    /// The digest if it came in a header; `None` if it comes in the trailer.
    pub expected: Option<Digest>,
}

impl BodyChecksum {
    /// Reads `x-amz-checksum-*`, `x-amz-trailer` and `x-amz-sdk-checksum-algorithm`.
    ///
    /// Errors: `InvalidRequest`, in S3's words.
    pub fn from_headers<'a>(
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> S3Result<Option<BodyChecksum>> {
        let mut value: Option<(Algorithm, &[u8])> = None;
        let mut trailer: Option<Algorithm> = None;
        let mut sdk: Option<Algorithm> = None;
        for (name, text) in headers {
            if let Some(algorithm) = digest_header(name)? {
                if value.replace((algorithm, text)).is_some() {
                    return Err(several());
                }
            } else if name.eq_ignore_ascii_case("x-amz-trailer") {
                if trailer.replace(trailer_algorithm(text)?).is_some() {
                    return Err(several());
                }
            } else if name.eq_ignore_ascii_case("x-amz-sdk-checksum-algorithm") {
                sdk = Some(algorithm_value(text)?);
            }
        }
        let sent = match (value, trailer) {
            (Some(_), Some(_)) => return Err(several()),
            (Some((algorithm, text)), None) => {
                let digest = algorithm
                    .parse_digest(text)
                    .ok_or_else(|| invalid_value(algorithm.header()))?;
                Some(BodyChecksum {
                    algorithm,
                    expected: Some(digest),
                })
            }
            (None, Some(algorithm)) => Some(BodyChecksum {
                algorithm,
                expected: None,
            }),
            (None, None) => None,
        };
        match (sdk, sent) {
            (Some(_), None) => Err(S3Error::invalid_request(
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer \
                 headers were found.",
            )),
            (Some(algorithm), Some(sent)) if algorithm != sent.algorithm => {
                Err(invalid_value("x-amz-sdk-checksum-algorithm"))
            }
            _ => Ok(sent),
        }
    }

    /// The digest that a trailer carries, when [`BodyChecksum::expected`] is `None`.
    ///
    /// Errors: `InvalidRequest` for a value that is no digest of this algorithm.
    pub fn parse_trailer(&self, value: &[u8]) -> S3Result<Digest> {
        self.algorithm.parse_digest(value).ok_or_else(|| {
            let header = self.algorithm.header();
            S3Error::invalid_request(format!("Value for {header} trailing header is invalid."))
        })
    }
}

/// The checksum that an upload announces for its parts and its object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UploadChecksum {
    /// What each part is checked with.
    pub algorithm: Algorithm,
    /// How they are joined.
    pub kind: ChecksumType,
}

impl UploadChecksum {
    /// Reads `x-amz-checksum-algorithm` and `x-amz-checksum-type` of CreateMultipartUpload.
    ///
    /// Errors: `InvalidRequest` for values that S3 does not have, or not together.
    pub fn from_headers<'a>(
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> S3Result<Option<UploadChecksum>> {
        let mut algorithm = None;
        let mut kind = None;
        for (name, value) in headers {
            if name.eq_ignore_ascii_case("x-amz-checksum-algorithm") {
                algorithm = Some(algorithm_value(value)?);
            } else if name.eq_ignore_ascii_case("x-amz-checksum-type") {
                kind = Some(type_value(value)?);
            }
        }
        match (algorithm, kind) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(S3Error::invalid_request(
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            )),
            (Some(algorithm), None) => Ok(Some(UploadChecksum {
                algorithm,
                kind: algorithm.default_type(),
            })),
            (Some(algorithm), Some(kind)) if algorithm.allows(kind) => {
                Ok(Some(UploadChecksum { algorithm, kind }))
            }
            (Some(algorithm), Some(kind)) => Err(S3Error::invalid_request(format!(
                "The {} checksum type cannot be used with the {} checksum algorithm.",
                kind.name(),
                algorithm.name().to_ascii_lowercase()
            ))),
        }
    }
}

/// What CompleteMultipartUpload says of the object's checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CompleteChecksum {
    /// The object's digest, and the `-N` behind it if there was one.
    pub expected: Option<(Algorithm, Digest, Option<u16>)>,
    /// `x-amz-checksum-type`.
    pub kind: Option<ChecksumType>,
}

impl CompleteChecksum {
    /// Reads `x-amz-checksum-*` and `x-amz-checksum-type`.
    ///
    /// Errors: `InvalidRequest`, in S3's words.
    pub fn from_headers<'a>(
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> S3Result<CompleteChecksum> {
        let mut complete = CompleteChecksum::default();
        for (name, value) in headers {
            if name.eq_ignore_ascii_case("x-amz-checksum-type") {
                complete.kind = Some(type_value(value)?);
            } else if let Some(algorithm) = digest_header(name)? {
                let (digest, parts) = split_parts(value);
                let parts =
                    parts.map(|parts| part_count(parts).ok_or_else(|| invalid_value(algorithm.header())));
                let digest = algorithm
                    .parse_digest(digest)
                    .ok_or_else(|| invalid_value(algorithm.header()))?;
                if complete
                    .expected
                    .replace((algorithm, digest, parts.transpose()?))
                    .is_some()
                {
                    return Err(several());
                }
            }
        }
        Ok(complete)
    }

    /// Whether `computed` is what was announced.
    ///
    /// Errors: `InvalidRequest` if the type differs, `BadDigest` if the value does.
    pub fn check(&self, computed: &Checksum) -> S3Result<()> {
        if self.kind.is_some_and(|kind| kind != computed.kind) {
            return Err(S3Error::invalid_request(format!(
                "The upload was created using the {} checksum mode. The complete request must use the same checksum \
                 mode.",
                computed.kind.name()
            )));
        }
        match self.expected {
            None => Ok(()),
            Some((algorithm, ..)) if algorithm != computed.algorithm => {
                Err(type_mismatch(Some(computed.algorithm), Some(algorithm)))
            }
            Some((_, digest, parts))
                if digest == computed.digest && parts.is_none_or(|parts| parts == computed.parts) =>
            {
                Ok(())
            }
            Some((algorithm, ..)) => Err(bad_digest(algorithm)),
        }
    }
}

/// `Content-MD5`: base64 of 16 bytes.
///
/// Errors: `InvalidDigest`.
pub fn parse_content_md5(value: &[u8]) -> S3Result<[u8; 16]> {
    let mut bytes = [0; 18];
    match STANDARD.decode_slice(value, &mut bytes) {
        Ok(16) => {
            let mut digest = [0; 16];
            digest.copy_from_slice(&bytes[..16]);
            Ok(digest)
        }
        Ok(_) | Err(_) => {
            Err(S3Error::new(ErrorCode::InvalidDigest).detail("Content-MD5", String::from_utf8_lossy(value)))
        }
    }
}

/// The body's checksum is not what the client said: S3's words.
pub fn bad_digest(algorithm: Algorithm) -> S3Error {
    S3Error::new(ErrorCode::BadDigest).message(format!(
        "The {} you specified did not match the calculated checksum.",
        algorithm.name()
    ))
}

/// A part or completion uses another algorithm than its upload: S3's words.
pub fn type_mismatch(expected: Option<Algorithm>, actual: Option<Algorithm>) -> S3Error {
    let name =
        |algorithm: Option<Algorithm>| algorithm.map_or("null".into(), |a| a.name().to_ascii_lowercase());
    S3Error::invalid_request(format!(
        "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
        name(expected),
        name(actual)
    ))
}

/// The algorithm of a header that carries a digest; `None` for every other header.
fn digest_header(name: &str) -> S3Result<Option<Algorithm>> {
    let Some(prefix) = name.get(..PREFIX.len()) else {
        return Ok(None);
    };
    if !prefix.eq_ignore_ascii_case(PREFIX) {
        return Ok(None);
    }
    let suffix = &name[PREFIX.len()..];
    if ["type", "algorithm", "mode"]
        .iter()
        .any(|other| suffix.eq_ignore_ascii_case(other))
    {
        return Ok(None);
    }
    Algorithm::from_header(name).map(Some).ok_or_else(|| {
        S3Error::invalid_request("The algorithm type you specified in x-amz-checksum- header is invalid.")
    })
}

fn trailer_algorithm(value: &[u8]) -> S3Result<Algorithm> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|name| Algorithm::from_header(name.trim()))
        .ok_or_else(|| {
            S3Error::invalid_request("The value specified in the x-amz-trailer header is not supported")
        })
}

fn algorithm_value(value: &[u8]) -> S3Result<Algorithm> {
    Algorithm::from_name(value).ok_or_else(|| {
        S3Error::invalid_request(
            "Checksum algorithm provided is unsupported. Please try again with any of the valid types: \
             [CRC32, CRC32C, CRC64NVME, MD5, SHA1, SHA256, SHA512, XXHASH128, XXHASH3, XXHASH64]",
        )
    })
}

fn type_value(value: &[u8]) -> S3Result<ChecksumType> {
    ChecksumType::from_name(value).ok_or_else(|| invalid_value("x-amz-checksum-type"))
}

fn invalid_value(header: &str) -> S3Error {
    S3Error::invalid_request(format!("Value for {header} header is invalid."))
}

fn several() -> S3Error {
    S3Error::invalid_request(
        "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
    )
}

/// Base64 has no `-`, so the first one begins the count of parts.
fn split_parts(value: &[u8]) -> (&[u8], Option<&[u8]>) {
    match value.iter().position(|&byte| byte == b'-') {
        Some(at) => (&value[..at], Some(&value[at + 1..])),
        None => (value, None),
    }
}

fn part_count(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u16 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (1..=PARTS_MAX).contains(&count).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    type List<'a> = &'a [(&'a str, &'a str)];

    fn headers<'a>(list: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        list.iter().map(|(name, value)| (*name, value.as_bytes()))
    }

    #[test]
    fn a_body_has_one_checksum_in_a_header_or_a_trailer() {
        let crc = Algorithm::Crc32.digest(b"123456789");
        let in_header = Some(BodyChecksum {
            algorithm: Algorithm::Crc32,
            expected: Some(crc),
        });
        let in_trailer = Some(BodyChecksum {
            algorithm: Algorithm::Crc32,
            expected: None,
        });
        let table: &[(List<'_>, Option<BodyChecksum>)] = &[
            (&[], None),
            (&[("host", "x"), ("x-amz-checksum-mode", "ENABLED")], None),
            (&[("X-Amz-Checksum-Crc32", "y/Q5Jg==")], in_header),
            (
                &[
                    ("x-amz-sdk-checksum-algorithm", "crc32"),
                    ("x-amz-checksum-crc32", "y/Q5Jg=="),
                ],
                in_header,
            ),
            (
                &[
                    ("x-amz-sdk-checksum-algorithm", "CRC32"),
                    ("x-amz-trailer", "x-amz-checksum-crc32"),
                ],
                in_trailer,
            ),
            (&[("x-amz-trailer", " X-Amz-Checksum-CRC32 ")], in_trailer),
        ];
        for (list, expected) in table {
            assert_eq!(
                BodyChecksum::from_headers(headers(list)).unwrap(),
                *expected,
                "{list:?}"
            );
        }
    }

    #[test]
    fn a_body_with_checksums_that_do_not_agree_is_refused() {
        let table: &[(List<'_>, &str)] = &[
            (
                &[("x-amz-checksum-crc32", "AAAA")],
                "Value for x-amz-checksum-crc32 header is invalid.",
            ),
            (
                &[("x-amz-checksum-crc32", "")],
                "Value for x-amz-checksum-crc32 header is invalid.",
            ),
            (
                &[("x-amz-checksum-crc32", "y/Q5Jg==-1")],
                "Value for x-amz-checksum-crc32 header is invalid.",
            ),
            (
                &[("x-amz-checksum-crc33", "AAAA")],
                "The algorithm type you specified in x-amz-checksum- header is invalid.",
            ),
            (
                &[
                    ("x-amz-checksum-crc32", "y/Q5Jg=="),
                    ("x-amz-checksum-crc32c", "y/Q5Jg=="),
                ],
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
            ),
            (
                &[
                    ("x-amz-checksum-crc32", "y/Q5Jg=="),
                    ("x-amz-checksum-crc32", "y/Q5Jg=="),
                ],
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
            ),
            (
                &[
                    ("x-amz-checksum-crc32", "y/Q5Jg=="),
                    ("x-amz-trailer", "x-amz-checksum-crc32"),
                ],
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
            ),
            (
                &[("x-amz-trailer", "x-evil")],
                "The value specified in the x-amz-trailer header is not supported",
            ),
            (
                &[
                    ("x-amz-sdk-checksum-algorithm", "CRC32C"),
                    ("x-amz-checksum-crc32", "y/Q5Jg=="),
                ],
                "Value for x-amz-sdk-checksum-algorithm header is invalid.",
            ),
        ];
        for (list, message) in table {
            let error = BodyChecksum::from_headers(headers(list)).expect_err(message);
            assert_eq!(
                (error.code, error.message.as_ref()),
                (ErrorCode::InvalidRequest, *message),
                "{list:?}"
            );
        }
        for list in [
            [("x-amz-sdk-checksum-algorithm", "CRC32")],
            [("x-amz-sdk-checksum-algorithm", "CRC99")],
        ] {
            assert_eq!(
                BodyChecksum::from_headers(headers(&list)).unwrap_err().code,
                ErrorCode::InvalidRequest
            );
        }
    }

    #[test]
    fn a_trailer_is_checked_for_its_length() {
        let checksum = BodyChecksum {
            algorithm: Algorithm::Crc32,
            expected: None,
        };
        assert_eq!(
            checksum.parse_trailer(b"y/Q5Jg==").unwrap(),
            Algorithm::Crc32.digest(b"123456789")
        );
        let error = checksum.parse_trailer(b"y/Q5").unwrap_err();
        assert_eq!(
            error.message,
            "Value for x-amz-checksum-crc32 trailing header is invalid."
        );
    }

    #[test]
    fn an_upload_announces_algorithm_and_type() {
        let upload = |list: &[(&str, &str)]| UploadChecksum::from_headers(headers(list));
        assert_eq!(upload(&[]).unwrap(), None);
        for algorithm in Algorithm::ALL {
            let name = algorithm.name();
            let announced = upload(&[("x-amz-checksum-algorithm", name)]).unwrap();
            assert_eq!(
                announced,
                Some(UploadChecksum {
                    algorithm,
                    kind: algorithm.default_type()
                })
            );
            for kind in [ChecksumType::FullObject, ChecksumType::Composite] {
                let list = [
                    ("x-amz-checksum-algorithm", name),
                    ("x-amz-checksum-type", kind.name()),
                ];
                assert_eq!(
                    upload(&list).is_ok(),
                    algorithm.allows(kind),
                    "{name} {}",
                    kind.name()
                );
            }
        }
        assert!(upload(&[("x-amz-checksum-type", "COMPOSITE")]).is_err());
        assert!(
            upload(&[
                ("x-amz-checksum-algorithm", "CRC32"),
                ("x-amz-checksum-type", "HALF")
            ])
            .is_err()
        );
        assert!(upload(&[("x-amz-checksum-algorithm", "")]).is_err());
    }

    #[test]
    fn completion_is_checked_against_what_was_computed() {
        let digests = [
            (Algorithm::Crc32.digest(b"a"), 1),
            (Algorithm::Crc32.digest(b"b"), 1),
        ];
        let composite = Checksum::of_parts(Algorithm::Crc32, ChecksumType::Composite, digests).unwrap();
        let value = composite.value();
        let bare = &value[..value.len() - 2];
        let check = |list: &[(&str, &str)]| {
            CompleteChecksum::from_headers(headers(list)).and_then(|complete| complete.check(&composite))
        };
        check(&[]).unwrap();
        check(&[("x-amz-checksum-crc32", &value)]).unwrap();
        check(&[
            ("x-amz-checksum-crc32", bare),
            ("x-amz-checksum-type", "COMPOSITE"),
        ])
        .unwrap();
        let refused: &[(List<'_>, ErrorCode)] = &[
            (
                &[("x-amz-checksum-type", "FULL_OBJECT")],
                ErrorCode::InvalidRequest,
            ),
            (&[("x-amz-checksum-crc32", "AAAAAA==-2")], ErrorCode::BadDigest),
            (
                &[("x-amz-checksum-crc32c", "AAAAAA==-2")],
                ErrorCode::InvalidRequest,
            ),
            (
                &[("x-amz-checksum-crc32", "AAAAAA==-x")],
                ErrorCode::InvalidRequest,
            ),
            (
                &[("x-amz-checksum-crc32", "AAAAAA==-0")],
                ErrorCode::InvalidRequest,
            ),
            (
                &[("x-amz-checksum-crc32", "AAAAAA==-10001")],
                ErrorCode::InvalidRequest,
            ),
        ];
        for (list, code) in refused {
            assert_eq!(check(list).unwrap_err().code, *code, "{list:?}");
        }
        let three = format!("{bare}-3");
        assert_eq!(
            check(&[("x-amz-checksum-crc32", &three)]).unwrap_err().code,
            ErrorCode::BadDigest
        );
    }

    #[test]
    fn content_md5_is_sixteen_bytes() {
        assert_eq!(
            parse_content_md5(b"1B2M2Y8AsgTpgAmY7PhCfg==").unwrap()[..2],
            [0xd4, 0x1d]
        );
        for bad in [
            &b""[..],
            b"YWJj",
            b"not base64",
            b"1B2M2Y8AsgTpgAmY7PhCfg",
            &[b'A'; 10_000],
        ] {
            assert_eq!(parse_content_md5(bad).unwrap_err().code, ErrorCode::InvalidDigest);
        }
    }
}
