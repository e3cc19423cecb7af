//! Names: buckets, keys, and the parts of a request line and headers that spell them.
//!
//! A key is bytes. `..`, `//` and a leading `/` mean nothing here, and nothing here ever makes a path of
//! a file system out of one.
//!
//! Invariant: a [`BucketName`] keeps S3's naming rules; a [`Key`] is 1 to 1,024 bytes of UTF-8. Percent
//! signs are decoded exactly once.
//!
//! Source: S3 user guide, "General purpose bucket naming rules", "Naming Amazon S3 objects" and
//! "Virtual hosting of general purpose buckets".

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::net::Ipv4Addr;

use crate::http::uri::decode_path;
use crate::limits::KEY_BYTES_MAX;
use crate::s3::error::{ErrorCode, S3Error, S3Result};

/// Fewest bytes of a bucket's name.
pub const BUCKET_NAME_BYTES_MIN: usize = 3;
/// Most bytes of a bucket's name.
pub const BUCKET_NAME_BYTES_MAX: usize = 63;

const RESERVED_PREFIXES: [&str; 3] = ["xn--", "sthree-", "amzn-s3-demo-"];
const RESERVED_SUFFIXES: [&str; 5] = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];

/// The name of a bucket, valid by S3's rules.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketName(Box<str>);

impl BucketName {
    /// Checks `name`.
    ///
    /// Errors: `InvalidBucketName`.
    pub fn parse(name: &[u8]) -> S3Result<BucketName> {
        let invalid =
            || S3Error::new(ErrorCode::InvalidBucketName).detail("BucketName", String::from_utf8_lossy(name));
        match std::str::from_utf8(name) {
            Ok(text) if is_bucket_name(text) => Ok(BucketName(text.into())),
            Ok(_) | Err(_) => Err(invalid()),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The key of an object.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Box<[u8]>);

impl Key {
    /// Checks `key`, which is decoded already.
    ///
    /// Errors: `KeyTooLongError`; `InvalidURI` if it is not UTF-8; `InvalidArgument` if it is empty.
    pub fn new(key: impl Into<Box<[u8]>>) -> S3Result<Key> {
        let key = key.into();
        if key.is_empty() {
            return Err(S3Error::invalid_argument(
                "The object key must not be empty",
                "Key",
                "",
            ));
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(S3Error::new(ErrorCode::KeyTooLongError)
                .detail("Size", key.len().to_string())
                .detail("MaxSizeAllowed", KEY_BYTES_MAX.to_string()));
        }
        if std::str::from_utf8(&key).is_err() {
            return Err(S3Error::new(ErrorCode::InvalidURI));
        }
        Ok(Key(key))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, given away.
    pub fn into_bytes(self) -> Box<[u8]> {
        self.0
    }
}

/// What a request is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// The service: the list of buckets.
    Service,
    /// A bucket.
    Bucket(BucketName),
    /// An object, or a key that may become one.
    Object(BucketName, Key),
}

/// Reads the target out of the `Host` header and the path of the request line.
///
/// - `host`: as sent, with or without a port; empty if there was none.
/// - `path_raw`: the path as sent, still percent-encoded, without the query.
/// - `domain`: below this name each label is a bucket (`bucket.domain`). Without it, and for every other
///   host, the bucket is the first part of the path.
///
/// Errors: `InvalidURI` (no leading slash, broken percent-encoding, not UTF-8), `InvalidBucketName`,
/// `KeyTooLongError`.
pub fn split(host: &[u8], path_raw: &[u8], domain: Option<&str>) -> S3Result<Target> {
    let path = path_raw
        .strip_prefix(b"/")
        .ok_or(S3Error::new(ErrorCode::InvalidURI))?;
    if let Some(label) = domain.and_then(|domain| bucket_label(host, domain)) {
        let bucket = BucketName::parse(&label.to_ascii_lowercase())?;
        return target(bucket, path);
    }
    if path.is_empty() {
        return Ok(Target::Service);
    }
    let (bucket, key) = match path.iter().position(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (path, &path[path.len()..]),
    };
    target(BucketName::parse(&decode(bucket)?)?, key)
}

/// The bucket that the `Host` header names below `domain`, as a signature of Version 2 covers it.
pub fn host_bucket(host: &[u8], domain: &str) -> Option<String> {
    let label = bucket_label(host, domain)?;
    std::str::from_utf8(label).ok().map(str::to_ascii_lowercase)
}

/// Where a copy reads from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopySource {
    /// The source's bucket.
    pub bucket: BucketName,
    /// The source's key.
    pub key: Key,
    /// `versionId`, decoded.
    pub version_id: Option<String>,
}

impl CopySource {
    /// Reads `x-amz-copy-source`: `[/]bucket/key[?versionId=id]`, percent-encoded.
    ///
    /// A `?` in the key must be encoded; a bare one that does not begin `?versionId=` is taken as part of
    /// the key, as S3 does. `+` is a space, as in a form.
    ///
    /// Errors: `InvalidArgument`, and `KeyTooLongError`.
    pub fn parse(value: &[u8]) -> S3Result<CopySource> {
        let invalid = |why: &'static str| {
            S3Error::invalid_argument(why, "x-amz-copy-source", &String::from_utf8_lossy(value))
        };
        let (source, version_id) = split_version(value);
        let source: Vec<u8> = source
            .iter()
            .map(|&byte| if byte == b'+' { b' ' } else { byte })
            .collect();
        let source = decode_path(&source).map_err(|_| invalid("Invalid copy source encoding"))?;
        let source = source.strip_prefix(b"/").unwrap_or(&source);
        let slash = source
            .iter()
            .position(|&byte| byte == b'/')
            .ok_or_else(|| invalid("Invalid copy source object key"))?;
        let bucket =
            BucketName::parse(&source[..slash]).map_err(|_| invalid("Invalid copy source bucket name"))?;
        let key = Key::new(&source[slash + 1..]).map_err(|error| match error.code {
            ErrorCode::KeyTooLongError => error,
            _ => invalid("Invalid copy source object key"),
        })?;
        let version_id = match version_id {
            None => None,
            Some(b"") => return Err(invalid("Version id cannot be the empty string")),
            Some(id) => {
                let id = decode_path(id).map_err(|_| invalid("Invalid copy source encoding"))?;
                Some(
                    String::from_utf8(id.into_owned())
                        .map_err(|_| invalid("Invalid copy source encoding"))?,
                )
            }
        };
        Ok(CopySource {
            bucket,
            key,
            version_id,
        })
    }
}

/// Decodes `%XX`. Everything else, `+` too, stands for itself.
fn decode(raw: &[u8]) -> S3Result<Cow<'_, [u8]>> {
    decode_path(raw).map_err(|_| S3Error::new(ErrorCode::InvalidURI))
}

fn target(bucket: BucketName, key_raw: &[u8]) -> S3Result<Target> {
    if key_raw.is_empty() {
        return Ok(Target::Bucket(bucket));
    }
    let key = Key::new(decode(key_raw)?)?;
    Ok(Target::Object(bucket, key))
}

/// The part of `host` before `.domain`. `None` if it is the domain itself or another host.
fn bucket_label<'a>(host: &'a [u8], domain: &str) -> Option<&'a [u8]> {
    let host = match host.iter().rposition(|&byte| byte == b':') {
        Some(colon) if host[colon + 1..].iter().all(u8::is_ascii_digit) => &host[..colon],
        Some(_) | None => host,
    };
    let host = host.strip_suffix(b".").unwrap_or(host);
    let (label, end) = host.split_at_checked(host.len().checked_sub(domain.len())?)?;
    if !end.eq_ignore_ascii_case(domain.as_bytes()) {
        return None;
    }
    label.strip_suffix(b".").filter(|label| !label.is_empty())
}

/// Cuts `?versionId=id` off. The last one counts: an earlier one belongs to the key.
fn split_version(value: &[u8]) -> (&[u8], Option<&[u8]>) {
    const MARK: &[u8] = b"?versionId=";
    match value.windows(MARK.len()).rposition(|window| window == MARK) {
        Some(at) => (&value[..at], Some(&value[at + MARK.len()..])),
        None => (value, None),
    }
}

fn is_bucket_name(name: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'));
    let is_label = |label: &str| edge(label.bytes().next()) && edge(label.bytes().next_back());
    (BUCKET_NAME_BYTES_MIN..=BUCKET_NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'))
        && name.split('.').all(is_label)
        && !is_like_an_address(name)
        && !RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        && !RESERVED_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// Four numbers and dots, `192.168.005.004` too.
fn is_like_an_address(name: &str) -> bool {
    name.parse::<Ipv4Addr>().is_ok()
        || (name.split('.').count() == 4
            && name
                .split('.')
                .all(|part| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())))
}

impl fmt::Debug for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for BucketName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(name: &str) -> BucketName {
        BucketName::parse(name.as_bytes()).unwrap()
    }

    fn object(name: &str, key: &[u8]) -> Target {
        Target::Object(bucket(name), Key::new(key).unwrap())
    }

    #[test]
    fn bucket_names_keep_the_rules_of_s3() {
        let longest = "a".repeat(63);
        for name in [
            "abc",
            "a-b",
            "a.b.c",
            "1a2",
            "123",
            "warp-benchmark-bucket",
            "a--b",
            "1.2.3",
            "256.1.1.1a",
            &longest,
        ] {
            assert!(BucketName::parse(name.as_bytes()).is_ok(), "{name}");
        }
        let long = "a".repeat(64);
        let bad = [
            "",
            "a",
            "ab",
            &long,
            "Abc",
            "a_b",
            "a b",
            "-abc",
            "abc-",
            ".abc",
            "abc.",
            "a..b",
            "a-.b",
            "a.-b",
            "192.168.5.4",
            "192.168.005.004",
            "999.999.999.999",
            "xn--abc",
            "sthree-abc",
            "amzn-s3-demo-abc",
            "abc-s3alias",
            "abc--ol-s3",
            "abc.mrap",
            "abc--x-s3",
            "abc--table-s3",
            "a/b",
            "a\\b",
            "abé",
            "a\0b",
            "..",
            "%2e",
        ];
        for name in bad {
            let error = BucketName::parse(name.as_bytes()).expect_err(name);
            assert_eq!(error.code, ErrorCode::InvalidBucketName, "{name}");
        }
        assert!(BucketName::parse(b"ab\xff").is_err());
    }

    #[test]
    fn keys_are_bytes_and_never_paths() {
        let table: &[(&str, &[u8])] = &[
            ("/bkt/a", b"a"),
            ("/bkt/a/b", b"a/b"),
            ("/bkt/a/", b"a/"),
            ("/bkt//", b"/"),
            ("/bkt//a", b"/a"),
            ("/bkt/a//b", b"a//b"),
            ("/bkt/.", b"."),
            ("/bkt/..", b".."),
            ("/bkt/../victim/k", b"../victim/k"),
            ("/bkt/%2e%2e/victim", b"../victim"),
            ("/bkt/a%2Fb", b"a/b"),
            ("/bkt/%252e", b"%2e"),
            ("/bkt/a+b%20c", b"a+b c"),
            ("/bkt/%0A%0d", b"\n\r"),
            ("/bkt/%00", b"\0"),
            ("/bkt/a\\b", b"a\\b"),
            ("/bkt/%F0%9F%98%80", "\u{1F600}".as_bytes()),
            ("/bkt/\u{1F600}", "\u{1F600}".as_bytes()),
        ];
        for (path, key) in table {
            assert_eq!(
                split(b"h:9000", path.as_bytes(), None).unwrap(),
                object("bkt", key),
                "{path}"
            );
        }
        assert_eq!(split(b"", b"/", None).unwrap(), Target::Service);
        assert_eq!(split(b"", b"/bkt", None).unwrap(), Target::Bucket(bucket("bkt")));
        assert_eq!(split(b"", b"/bkt/", None).unwrap(), Target::Bucket(bucket("bkt")));
        assert_eq!(split(b"", b"/b%6Bt/k", None).unwrap(), object("bkt", b"k"));
    }

    #[test]
    fn paths_that_cannot_be_decoded_are_refused() {
        let long = format!("/bkt/{}", "a".repeat(1025));
        let encoded = format!("/bkt/{}", "%61".repeat(1025));
        let table: &[(&[u8], ErrorCode)] = &[
            (b"", ErrorCode::InvalidURI),
            (b"bkt/k", ErrorCode::InvalidURI),
            (b"*", ErrorCode::InvalidURI),
            (b"/bkt/%", ErrorCode::InvalidURI),
            (b"/bkt/%2", ErrorCode::InvalidURI),
            (b"/bkt/%zz", ErrorCode::InvalidURI),
            (b"/bkt/%+1", ErrorCode::InvalidURI),
            (b"/bkt/%ff", ErrorCode::InvalidURI),
            (b"/bkt/%C3", ErrorCode::InvalidURI),
            (b"/bkt/\xff", ErrorCode::InvalidURI),
            (b"/bkt/%ED%A0%80", ErrorCode::InvalidURI),
            (b"//k", ErrorCode::InvalidBucketName),
            (b"/../bkt/k", ErrorCode::InvalidBucketName),
            (b"/a%2Fb/k", ErrorCode::InvalidBucketName),
            (b"/Bkt/k", ErrorCode::InvalidBucketName),
            (long.as_bytes(), ErrorCode::KeyTooLongError),
            (encoded.as_bytes(), ErrorCode::KeyTooLongError),
        ];
        for (path, code) in table {
            let error = split(b"h", path, None).expect_err("a bad path");
            assert_eq!(error.code, *code, "{}", String::from_utf8_lossy(path));
        }
        let longest = format!("/bkt/{}", "%61".repeat(1024));
        assert!(split(b"h", longest.as_bytes(), None).is_ok());
    }

    #[test]
    fn the_host_names_the_bucket_below_the_domain() {
        let domain = Some("s3.example.com");
        let table: &[(&str, &str, Target)] = &[
            ("s3.example.com", "/bkt/k", object("bkt", b"k")),
            ("s3.example.com:9000", "/", Target::Service),
            ("bkt.s3.example.com", "/", Target::Bucket(bucket("bkt"))),
            ("bkt.s3.example.com:9000", "/k/bkt", object("bkt", b"k/bkt")),
            ("BKT.S3.Example.COM", "/k", object("bkt", b"k")),
            ("bkt.s3.example.com.", "/k", object("bkt", b"k")),
            ("a.b.s3.example.com", "/k", object("a.b", b"k")),
            ("bkt.s3.example.com", "//k", object("bkt", b"/k")),
            ("127.0.0.1:9000", "/bkt/k", object("bkt", b"k")),
            ("[::1]:9000", "/bkt/k", object("bkt", b"k")),
            ("xs3.example.com", "/bkt/k", object("bkt", b"k")),
            ("", "/bkt/k", object("bkt", b"k")),
            (".s3.example.com", "/bkt/k", object("bkt", b"k")),
        ];
        for (host, path, expected) in table {
            assert_eq!(
                split(host.as_bytes(), path.as_bytes(), domain).unwrap(),
                *expected,
                "{host}{path}"
            );
        }
        let error = split(b"b_t.s3.example.com", b"/k", domain).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidBucketName);
        let plain = split(b"bkt.s3.example.com", b"/abc/k", None).unwrap();
        assert_eq!(plain, object("abc", b"k"), "without a domain the path decides");
    }

    #[test]
    fn copy_sources_are_decoded_once() {
        let table: &[(&str, &str, &[u8], Option<&str>)] = &[
            ("bkt/k", "bkt", b"k", None),
            ("/bkt/k", "bkt", b"k", None),
            ("bkt/a/b", "bkt", b"a/b", None),
            ("%2Fbkt%2Fa%2Fb", "bkt", b"a/b", None),
            ("bkt//k", "bkt", b"/k", None),
            ("bkt/../victim", "bkt", b"../victim", None),
            ("bkt/a%3Fb%2525", "bkt", b"a?b%25", None),
            ("bkt/a+b%2Bc", "bkt", b"a b+c", None),
            ("bkt/a?b", "bkt", b"a?b", None),
            ("bkt/k?versionId=null", "bkt", b"k", Some("null")),
            ("bkt/k?versionId=a%2Fb", "bkt", b"k", Some("a/b")),
            ("bkt/k%3FversionId=x", "bkt", b"k?versionId=x", None),
            (
                "bkt/k?versionId=x?versionId=y",
                "bkt",
                b"k?versionId=x",
                Some("y"),
            ),
            ("bkt/%C3%A9", "bkt", "é".as_bytes(), None),
        ];
        for (value, name, key, version_id) in table {
            let source =
                CopySource::parse(value.as_bytes()).unwrap_or_else(|error| panic!("{value}: {error}"));
            let expected = CopySource {
                bucket: bucket(name),
                key: Key::new(*key).unwrap(),
                version_id: version_id.map(str::to_owned),
            };
            assert_eq!(source, expected, "{value}");
        }
    }

    #[test]
    fn copy_sources_without_bucket_or_key_are_refused() {
        let long = format!("bkt/{}", "a".repeat(1025));
        let table: &[(&[u8], ErrorCode)] = &[
            (b"", ErrorCode::InvalidArgument),
            (b"/", ErrorCode::InvalidArgument),
            (b"bkt", ErrorCode::InvalidArgument),
            (b"bkt/", ErrorCode::InvalidArgument),
            (b"/bkt/", ErrorCode::InvalidArgument),
            (b"//bkt/k", ErrorCode::InvalidArgument),
            (b"../bkt/k", ErrorCode::InvalidArgument),
            (b"B_T/k", ErrorCode::InvalidArgument),
            (b"bkt/%zz", ErrorCode::InvalidArgument),
            (b"bkt/%ff", ErrorCode::InvalidArgument),
            (b"bkt/\xff", ErrorCode::InvalidArgument),
            (b"bkt/k?versionId=%ff", ErrorCode::InvalidArgument),
            (b"bkt/k?versionId=", ErrorCode::InvalidArgument),
            (
                b"arn:aws:s3:us-east-1:1:accesspoint/ap/object/k",
                ErrorCode::InvalidArgument,
            ),
            (long.as_bytes(), ErrorCode::KeyTooLongError),
        ];
        for (value, code) in table {
            let error = CopySource::parse(value).expect_err("a bad copy source");
            assert_eq!(error.code, *code, "{}", String::from_utf8_lossy(value));
        }
    }
}
