//! The bytes that a Version 4 signature covers, made from a request and hashed as they are made.
//!
//! The canonical request is never stored: its pieces go through a small buffer into SHA-256.
//! Invariant: two requests that S3 would act on differently never have one canonical form.
//! It must not read the Authorization header or know a secret.

use super::error::{TOO_MANY_HEADERS, UNSIGNED_HEADERS};
use super::query::{self, Parameter};
use super::{AuthError, Headers, Placement, SignedRequest};
use crate::limits::HEADERS_MAX;
use ring::digest;

// The headers that were signed are marked in the bits of one integer.
const _: () = assert!(HEADERS_MAX <= u128::BITS as usize);

/// SHA-256 of the canonical request (Amazon S3 API Reference, "Signature Calculations for the Authorization
/// Header", task 1).
///
/// Errors: AccessDenied if host or an `x-amz-*` header is not among `signed_headers`, SignatureDoesNotMatch
/// if a signed header is absent, `malformed` if the list itself is broken.
pub(super) fn request_hash<H: Headers + ?Sized>(
    request: &SignedRequest<'_, H>,
    signed_headers: &str,
    content_sha256: &[u8],
    placement: Placement,
    malformed: AuthError,
) -> Result<digest::Digest, AuthError> {
    let mut hash = HashSink::new();
    hash.push(request.method.as_bytes());
    hash.push(b"\n");
    uri(&mut hash, request.path);
    hash.push(b"\n");
    if !request.query.is_empty() {
        query_string(&mut hash, request.query, placement);
    }
    hash.push(b"\n");
    headers(&mut hash, request.headers, signed_headers, malformed)?;
    hash.push(b"\n");
    hash.push(signed_headers.as_bytes());
    hash.push(b"\n");
    hash.push(content_sha256);
    Ok(hash.finish())
}

/// Takes bytes: the hash of the canonical request, or a buffer that is sorted before it is hashed.
pub(super) trait Sink {
    fn push(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn push(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// SHA-256 behind a buffer, because the pieces are a few bytes each.
struct HashSink {
    context: digest::Context,
    buffer: [u8; HASH_BUFFER_BYTES],
    filled: usize,
}

/// Holds the usual canonical request whole.
const HASH_BUFFER_BYTES: usize = 1024;

impl HashSink {
    fn new() -> Self {
        Self {
            context: digest::Context::new(&digest::SHA256),
            buffer: [0; HASH_BUFFER_BYTES],
            filled: 0,
        }
    }

    fn finish(mut self) -> digest::Digest {
        self.context.update(&self.buffer[..self.filled]);
        self.context.finish()
    }
}

impl Sink for HashSink {
    fn push(&mut self, bytes: &[u8]) {
        if let Some(room) = self.buffer.get_mut(self.filled..self.filled + bytes.len()) {
            room.copy_from_slice(bytes);
            self.filled += bytes.len();
            return;
        }
        self.context.update(&self.buffer[..self.filled]);
        self.filled = 0;
        if bytes.len() <= HASH_BUFFER_BYTES {
            self.buffer[..bytes.len()].copy_from_slice(bytes);
            self.filled = bytes.len();
        } else {
            self.context.update(bytes);
        }
    }
}

/// S3 signs the decoded path, encoded once; `//`, `.` and `..` stay as they are.
fn uri(out: &mut impl Sink, path: &str) {
    if path.is_empty() {
        return out.push(b"/");
    }
    encode(out, path.as_bytes(), Part::Path);
}

/// The parameters, each encoded anew, sorted by name and then by value.
fn query_string(out: &mut impl Sink, raw: &str, placement: Placement) {
    let signature = |p: &Parameter<'_>| placement == Placement::Query && p.name == query::SIGNATURE;
    let mut encoded = Vec::with_capacity(raw.len() + raw.len() / 4);
    let mut ranges = Vec::with_capacity(8);
    for parameter in query::parameters(raw).filter(|p| !signature(p)) {
        let start = encoded.len();
        encode(&mut encoded, parameter.name.as_bytes(), Part::Query);
        let middle = encoded.len();
        encode(&mut encoded, parameter.value.as_bytes(), Part::Query);
        ranges.push((start, middle, encoded.len()));
    }
    let slices =
        |&(start, middle, end): &(usize, usize, usize)| (&encoded[start..middle], &encoded[middle..end]);
    ranges.sort_unstable_by(|a, b| slices(a).cmp(&slices(b)));
    for (i, range) in ranges.iter().enumerate() {
        let (name, value) = slices(range);
        out.push(if i == 0 { b"" } else { b"&" });
        out.push(name);
        out.push(b"=");
        out.push(value);
    }
}

/// Writes `name:values\n` for each signed header, in the list's order, and sees that none is missing.
/// A name that the list repeats is malformed: its values would be hashed again for a few bytes each.
fn headers<H: Headers + ?Sized>(
    out: &mut impl Sink,
    headers: &H,
    signed: &str,
    malformed: AuthError,
) -> Result<(), AuthError> {
    let mut covered = 0u128;
    let mut host_signed = false;
    for (i, name) in signed.split(';').enumerate() {
        // The bound keeps an unauthenticated list from costing more than a head's worth of comparisons.
        if name.is_empty() || i >= HEADERS_MAX {
            return Err(malformed);
        }
        lowercase(out, name);
        let mut separator: &[u8] = b":";
        for (index, (header, value)) in headers.iter().take(HEADERS_MAX).enumerate() {
            if header.len() != name.len() || !header.eq_ignore_ascii_case(name) {
                continue;
            }
            if covered >> index & 1 == 1 {
                return Err(malformed);
            }
            out.push(separator);
            trimmed(out, value);
            separator = b",";
            covered |= 1 << index;
        }
        if separator == b":" {
            return Err(AuthError::SignatureDoesNotMatch);
        }
        out.push(b"\n");
        host_signed |= name.eq_ignore_ascii_case("host");
    }
    if !host_signed {
        return Err(AuthError::AccessDenied(UNSIGNED_HEADERS));
    }
    for (index, (name, _)) in headers.iter().enumerate() {
        if index >= HEADERS_MAX {
            return Err(AuthError::InvalidRequest(TOO_MANY_HEADERS));
        }
        if covered >> index & 1 == 0 && is_amz(name) && !name.eq_ignore_ascii_case("x-amz-content-sha256") {
            return Err(AuthError::AccessDenied(UNSIGNED_HEADERS));
        }
    }
    Ok(())
}

/// Whether S3 gives a meaning to the header, so that it has to be signed. `x-amz-content-sha256` is the
/// last line of every canonical request and so is signed anyway.
pub(super) fn is_amz(name: &str) -> bool {
    name.as_bytes()
        .first_chunk::<6>()
        .is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"x-amz-"))
}

fn lowercase(out: &mut impl Sink, name: &str) {
    if !name.bytes().any(|b| b.is_ascii_uppercase()) {
        return out.push(name.as_bytes());
    }
    for byte in name.bytes() {
        out.push(&[byte.to_ascii_lowercase()]);
    }
}

/// Trimmed, with every run of blanks inside made one space.
fn trimmed(out: &mut impl Sink, value: &[u8]) {
    let value = value.trim_ascii();
    // No early exit, so that the compiler can test many bytes at once.
    let next = value.get(1..).unwrap_or_default();
    let runs = value
        .iter()
        .zip(next)
        .fold(false, |found, (&a, &b)| found | (a == b' ' && b == b' '));
    let others = value.iter().fold(false, |found, &b| found | (b == b'\t'));
    if !runs & !others {
        return out.push(value);
    }
    let words = value
        .split(|&b| b == b' ' || b == b'\t')
        .filter(|word| !word.is_empty());
    for (i, word) in words.enumerate() {
        out.push(if i == 0 { b"" } else { b" " });
        out.push(word);
    }
}

/// The parts of a URI that are encoded differently.
#[derive(Clone, Copy)]
pub(super) enum Part {
    /// `/` stays; `+` is itself.
    Path,
    /// `/` is encoded; `+` is a space, as forms send it.
    Query,
}

impl Part {
    const fn keeps(self) -> &'static [bool; 256] {
        match self {
            Self::Path => &KEEP_IN_PATH,
            Self::Query => &KEEP_IN_QUERY,
        }
    }

    /// The byte that `raw` starts with, and how many characters it took. A `%` that two hexadecimal digits
    /// do not follow is itself.
    pub(super) fn decode_first(self, raw: &[u8]) -> Option<(u8, usize)> {
        match (raw, self) {
            ([], _) => None,
            ([b'%', high, low, ..], _) => match (hex_digit(*high), hex_digit(*low)) {
                (Some(high), Some(low)) => Some((high << 4 | low, 3)),
                _ => Some((b'%', 1)),
            },
            ([b'+', ..], Self::Query) => Some((b' ', 1)),
            ([byte, ..], _) => Some((*byte, 1)),
        }
    }
}

static KEEP_IN_QUERY: [bool; 256] = kept(b"-._~");
static KEEP_IN_PATH: [bool; 256] = kept(b"-._~/");

const fn kept(marks: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut i = 0;
    while i < marks.len() {
        table[marks[i] as usize] = true;
        i += 1;
    }
    table
}

/// S3's UriEncode of what `raw` decodes to: clients that left a character unescaped still match.
pub(super) fn encode(out: &mut impl Sink, mut raw: &[u8], part: Part) {
    let keep = part.keeps();
    loop {
        let run = raw.iter().position(|&b| !keep[b as usize]).unwrap_or(raw.len());
        let (plain, rest) = raw.split_at(run);
        out.push(plain);
        let Some((byte, taken)) = part.decode_first(rest) else {
            return;
        };
        if keep[byte as usize] {
            out.push(&[byte]);
        } else {
            out.push(&[
                b'%',
                HEX_UPPER[(byte >> 4) as usize],
                HEX_UPPER[(byte & 15) as usize],
            ]);
        }
        raw = &rest[taken..];
    }
}

const HEX_UPPER: &[u8; 16] = b"0123456789ABCDEF";
const HEX_LOWER: &[u8; 16] = b"0123456789abcdef";

/// Lower-case hexadecimal of 32 bytes.
pub(super) fn hex(bytes: &[u8; 32]) -> [u8; 64] {
    let mut text = [0; 64];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = HEX_LOWER[(byte >> 4) as usize];
        pair[1] = HEX_LOWER[(byte & 15) as usize];
    }
    text
}

/// `N` bytes from `2 * N` hexadecimal digits of either case.
pub(super) fn hex_decode<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Some(bytes)
}

fn hex_digit(digit: u8) -> Option<u8> {
    let value = HEX_VALUES[digit as usize];
    (value < 16).then_some(value)
}

/// Digits are as good as random, and a table has no branch to mispredict.
static HEX_VALUES: [u8; 256] = {
    let mut table = [0xff; 256];
    let mut value = 0;
    while value < 16 {
        table[HEX_LOWER[value] as usize] = value as u8;
        table[HEX_UPPER[value] as usize] = value as u8;
        value += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn paths_are_encoded_once_and_never_normalised() {
        for (raw, expected) in [
            ("", "/"),
            ("/", "/"),
            ("/b//.././/k/", "/b//.././/k/"),
            ("/test$file.text", "/test%24file.text"),
            ("/test%24file.text", "/test%24file.text"),
            ("/a%2fb%2Fc", "/a/b/c"),
            ("/a+b%2Bc%20d", "/a%2Bb%2Bc%20d"),
            ("/%c3%a9", "/%C3%A9"),
            ("/é", "/%C3%A9"),
            ("/%41%7e~", "/A~~"),
            ("/%%zz%4", "/%25%25zz%254"),
            ("/%2525", "/%2525"),
            ("/k=v&w:x@y!'()*,;", "/k%3Dv%26w%3Ax%40y%21%27%28%29%2A%2C%3B"),
        ] {
            assert_eq!(text(|out| uri(out, raw)), expected, "{raw}");
        }
    }

    #[test]
    fn encoding_is_idempotent() {
        let all: Vec<u8> = (0..=255).collect();
        for part in [Part::Path, Part::Query] {
            let mut once = Vec::new();
            encode(&mut once, &all, part);
            let mut twice = Vec::new();
            encode(&mut twice, &once, part);
            assert_eq!(once, twice);
        }
    }

    #[test]
    fn queries_are_sorted_by_name_then_value() {
        for (raw, expected) in [
            ("lifecycle", "lifecycle="),
            ("prefix=J&max-keys=2", "max-keys=2&prefix=J"),
            ("a=2&a=10&a=1&A=3", "A=3&a=1&a=10&a=2"),
            ("a-b=1&a=2&a0=3", "a=2&a-b=1&a0=3"),
            ("k=a+b&l=a%2Bb&m=a/b=c", "k=a%20b&l=a%2Bb&m=a%2Fb%3Dc"),
            ("&&a=1&", "a=1"),
            ("=x", "=x"),
            ("%61=1&A=%c3%a9", "A=%C3%A9&a=1"),
            ("é=1&z=2", "%C3%A9=1&z=2"),
        ] {
            assert_eq!(
                text(|out| query_string(out, raw, Placement::Header)),
                expected,
                "{raw}"
            );
        }
    }

    #[test]
    fn only_a_presigned_url_leaves_its_signature_out() {
        let raw = "X-Amz-Signature=s&a=1";
        assert_eq!(text(|out| query_string(out, raw, Placement::Query)), "a=1");
        assert_eq!(
            text(|out| query_string(out, raw, Placement::Header)),
            "X-Amz-Signature=s&a=1"
        );
        assert_eq!(
            text(|out| query_string(out, "x-amz-signature=s", Placement::Query)),
            "x-amz-signature=s"
        );
    }

    #[test]
    fn header_values_are_trimmed_and_joined() {
        let sent = [
            ("Host", "h"),
            ("X-Amz-Meta-A", " a   b \t c "),
            ("x-amz-meta-a", "\"d  e\""),
            ("Empty", ""),
        ];
        let write = |signed: &str| {
            let mut out = Vec::new();
            headers(&mut out, sent.as_slice(), signed, AuthError::Anonymous)
                .map(|()| String::from_utf8(out).unwrap())
        };
        assert_eq!(
            write("empty;host;x-amz-meta-a").unwrap(),
            "empty:\nhost:h\nx-amz-meta-a:a b c,\"d e\"\n"
        );
        assert_eq!(
            write("host;gone;x-amz-meta-a").unwrap_err(),
            AuthError::SignatureDoesNotMatch
        );
        assert_eq!(
            write("host").unwrap_err(),
            AuthError::AccessDenied(UNSIGNED_HEADERS)
        );
        assert_eq!(
            write("x-amz-meta-a").unwrap_err(),
            AuthError::AccessDenied(UNSIGNED_HEADERS)
        );
        for broken in [
            "",
            "host;",
            ";host",
            "host;;x-amz-meta-a",
            "host;x-amz-meta-a;host",
            "host;x-amz-meta-a;X-Amz-Meta-A",
            &";".repeat(10_000),
            &"host;".repeat(10_000),
        ] {
            assert_eq!(write(broken).unwrap_err(), AuthError::Anonymous);
        }
    }

    #[test]
    fn a_list_of_signed_headers_is_as_long_as_a_head_at_most() {
        let sent: Vec<(String, &str)> = (1..=HEADERS_MAX)
            .map(|at| (format!("a{at}"), "x"))
            .chain([("host".to_owned(), "h")])
            .rev()
            .take(HEADERS_MAX)
            .collect();
        let write = |names: usize| {
            let mut signed: Vec<&str> = sent.iter().map(|(name, _)| name.as_str()).collect();
            signed.resize(names, "one-more");
            headers(
                &mut Vec::new(),
                sent.as_slice(),
                &signed.join(";"),
                AuthError::Anonymous,
            )
        };
        assert_eq!(write(HEADERS_MAX), Ok(()));
        assert_eq!(write(HEADERS_MAX + 1), Err(AuthError::Anonymous));
    }

    #[test]
    fn more_headers_than_the_limit_are_refused() {
        let sent = vec![("host", "h"); HEADERS_MAX + 1];
        let mut out = Vec::new();
        let result = headers(&mut out, sent.as_slice(), "host", AuthError::Anonymous);
        assert_eq!(result, Err(AuthError::InvalidRequest(TOO_MANY_HEADERS)));
    }

    #[test]
    fn the_hash_does_not_depend_on_how_pieces_fall() {
        let bytes: Vec<u8> = (0..5000u32).map(|i| (i * 7) as u8).collect();
        let expected = digest::digest(&digest::SHA256, &bytes);
        for piece in [1, 3, 64, 1023, 1024, 1025, 5000] {
            let mut sink = HashSink::new();
            bytes.chunks(piece).for_each(|chunk| sink.push(chunk));
            assert_eq!(sink.finish().as_ref(), expected.as_ref(), "{piece}");
        }
    }

    #[test]
    fn hexadecimal() {
        let bytes: [u8; 32] = std::array::from_fn(|i| (i * 8 + 7) as u8);
        assert_eq!(hex_decode::<32>(&hex(&bytes)), Some(bytes));
        assert_eq!(hex_decode::<2>(b"aF09"), Some([0xaf, 0x09]));
        assert_eq!(hex_decode::<2>(b"aF0"), None);
        assert_eq!(hex_decode::<2>(b"aF0g"), None);
    }
}
