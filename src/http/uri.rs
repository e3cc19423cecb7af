//! Percent escapes as S3 reads and writes them, and the pairs of a query.
//!
//! A key is bytes: it is decoded once, never normalised, and `..` means nothing in it. `+` is itself in a
//! path and a space in a query.
//!
//! Invariant: an escape that is not `%` and two hex digits is an error, never a literal. Nothing here
//! splits a path into bucket and key.

use std::borrow::Cow;

use crate::limits::HEAD_BYTES_MAX;

/// Pairs of one query; S3's longest presigned request has under thirty.
const QUERY_PAIRS_MAX: usize = 100;

/// Why a path or query was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UriError {
    /// `%` without two hex digits after it.
    BadEscape,
    /// A query's name or value is not UTF-8 once decoded.
    NotUtf8,
    /// A query past [`HEAD_BYTES_MAX`] or 100 pairs.
    QueryTooLarge,
}

/// What `+` stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plus {
    Itself,
    Space,
}

/// What to do with `/` when encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slash {
    Keep,
    Escape,
}

/// Decodes a path, or a part of one. Borrows if it has no escape. Whether the bytes are UTF-8 is for the caller.
pub fn decode_path(raw: &[u8]) -> Result<Cow<'_, [u8]>, UriError> {
    if !raw.contains(&b'%') {
        return Ok(Cow::Borrowed(raw));
    }
    let mut decoded = Vec::with_capacity(raw.len());
    decode_into(raw, Plus::Itself, &mut decoded)?;
    Ok(Cow::Owned(decoded))
}

fn decode_into(raw: &[u8], plus: Plus, out: &mut Vec<u8>) -> Result<(), UriError> {
    let mut rest = raw;
    loop {
        match *rest {
            [] => return Ok(()),
            [b'%', high, low, ..] => {
                let (high, low) = (hex_value(high)?, hex_value(low)?);
                out.push(high << 4 | low);
                rest = &rest[3..];
            }
            [b'%', ..] => return Err(UriError::BadEscape),
            [b'+', ..] if plus == Plus::Space => {
                out.push(b' ');
                rest = &rest[1..];
            }
            [byte, ..] => {
                out.push(byte);
                rest = &rest[1..];
            }
        }
    }
}

fn hex_value(digit: u8) -> Result<u8, UriError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(UriError::BadEscape),
    }
}

/// Appends `key` as listings with `encoding-type=url` show it: all but unreserved characters and `/` escaped.
pub fn encode_key(key: &[u8], out: &mut String) {
    encode_sigv4(key, Slash::Keep, out);
}

/// Appends `bytes` as SigV4's canonical request has them: all but `A-Za-z0-9-._~` as `%XX`, upper-case;
/// `/` is kept in paths and escaped in queries (S3 API, "Signature calculations", UriEncode).
pub fn encode_sigv4(bytes: &[u8], slash: Slash, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.reserve(bytes.len());
    for &byte in bytes {
        let is_kept = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~')
            || (byte == b'/' && slash == Slash::Keep);
        if is_kept {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

/// The decoded pairs of a query, in the order sent. Empty queries allocate nothing, others twice.
#[derive(Clone, Debug, Default)]
pub struct Query {
    text: String,
    pairs: Vec<Pair>,
}

/// Where in the text a pair lies: name, then value.
#[derive(Clone, Copy, Debug)]
struct Pair {
    name_start: u32,
    value_start: u32,
    value_end: u32,
}

const _: () = assert!(HEAD_BYTES_MAX < u32::MAX as usize);

impl Query {
    /// Parses `name[=value]` pairs between `&`; empty ones are skipped, a missing value is empty.
    pub fn parse(raw: &str) -> Result<Query, UriError> {
        if raw.is_empty() {
            return Ok(Query::default());
        }
        if raw.len() > HEAD_BYTES_MAX {
            return Err(UriError::QueryTooLarge);
        }
        let mut text = Vec::with_capacity(raw.len());
        let mut pairs = Vec::with_capacity(8);
        for pair in raw
            .as_bytes()
            .split(|&byte| byte == b'&')
            .filter(|pair| !pair.is_empty())
        {
            if pairs.len() == QUERY_PAIRS_MAX {
                return Err(UriError::QueryTooLarge);
            }
            let equals = pair.iter().position(|&byte| byte == b'=');
            let (name, value) = match equals {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &[][..]),
            };
            let name_start = text.len() as u32;
            decode_into(name, Plus::Space, &mut text)?;
            let value_start = text.len() as u32;
            decode_into(value, Plus::Space, &mut text)?;
            pairs.push(Pair {
                name_start,
                value_start,
                value_end: text.len() as u32,
            });
        }
        let text = String::from_utf8(text).map_err(|_| UriError::NotUtf8)?;
        // Two halves of a character in neighbouring parts make valid UTF-8 together, but not apart.
        let is_split = |at: u32| !text.is_char_boundary(at as usize);
        if pairs
            .iter()
            .any(|pair| is_split(pair.value_start) || is_split(pair.value_end))
        {
            return Err(UriError::NotUtf8);
        }
        Ok(Query { text, pairs })
    }

    /// The first value of `name`; names are case-sensitive.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|pair| pair.0 == name).map(|pair| pair.1)
    }

    /// Whether `name` is there, with a value or without.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All pairs, decoded, in the order sent.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|pair| {
            let (name_start, value_start) = (pair.name_start as usize, pair.value_start as usize);
            (
                &self.text[name_start..value_start],
                &self.text[value_start..pair.value_end as usize],
            )
        })
    }

    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(raw: &str) -> Vec<(String, String)> {
        let query = Query::parse(raw).expect(raw);
        query
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn paths_are_decoded_to_bytes_once() {
        let table: [(&str, &[u8]); 8] = [
            ("", b""),
            ("/a/../b//", b"/a/../b//"),
            ("/a+b", b"/a+b"),
            ("/a%20b%2Fc%2fd", b"/a b/c/d"),
            ("/%252e", b"/%2e"),
            ("/%2e%2E", b"/.."),
            ("/%00%ff%0A", b"/\0\xff\n"),
            ("/%F0%9F%98%80", "/😀".as_bytes()),
        ];
        for (raw, decoded) in table {
            assert_eq!(decode_path(raw.as_bytes()).unwrap().as_ref(), decoded, "{raw}");
        }
        assert!(matches!(decode_path(b"/plain"), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn broken_escapes_are_refused() {
        for raw in [
            "%", "%1", "%%20", "%g0", "%0g", "a%2", "% 20", "%+1", "%-1", "%2é",
        ] {
            assert_eq!(decode_path(raw.as_bytes()), Err(UriError::BadEscape), "{raw}");
            assert_eq!(Query::parse(raw).unwrap_err(), UriError::BadEscape, "{raw}");
            assert_eq!(
                Query::parse(&format!("a={raw}")).unwrap_err(),
                UriError::BadEscape,
                "{raw}"
            );
        }
    }

    #[test]
    fn keys_are_encoded_as_listings_show_them() {
        let mut out = String::new();
        encode_key("aZ09-_.~/ +%*é\n".as_bytes(), &mut out);
        assert_eq!(out, "aZ09-_.~/%20%2B%25%2A%C3%A9%0A");
        out.clear();
        encode_sigv4(b"a/b=c", Slash::Escape, &mut out);
        assert_eq!(out, "a%2Fb%3Dc");
    }

    #[test]
    fn every_byte_survives_encoding_and_decoding() {
        let all: Vec<u8> = (0..=255).collect();
        for slash in [Slash::Keep, Slash::Escape] {
            let mut encoded = String::new();
            encode_sigv4(&all, slash, &mut encoded);
            assert_eq!(decode_path(encoded.as_bytes()).unwrap().as_ref(), all);
        }
    }

    #[test]
    fn queries_are_split_then_decoded() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(pairs(""), []);
        assert_eq!(pairs("&&"), []);
        assert_eq!(pairs("uploads"), [pair("uploads", "")]);
        assert_eq!(
            pairs("a=1&b=2&a=3"),
            [pair("a", "1"), pair("b", "2"), pair("a", "3")]
        );
        assert_eq!(pairs("a=b=c&=x"), [pair("a", "b=c"), pair("", "x")]);
        assert_eq!(
            pairs("p=a+b%2Bc%26d%3De&x%3D=y"),
            [pair("p", "a b+c&d=e"), pair("x=", "y")]
        );
        assert_eq!(pairs("k=%E2%82%AC"), [pair("k", "€")]);
    }

    #[test]
    fn a_query_is_asked_by_name_and_case() {
        let query = Query::parse("uploads&prefix=a&prefix=b").unwrap();
        assert_eq!(query.get("prefix"), Some("a"));
        assert_eq!((query.get("uploads"), query.has("uploads")), (Some(""), true));
        assert_eq!((query.get("Prefix"), query.has("x")), (None, false));
        assert!(!query.is_empty() && Query::parse("").unwrap().is_empty());
    }

    #[test]
    fn a_query_that_is_not_utf8_is_refused() {
        for raw in ["a=%ff", "%c3=%a9", "a=%c3&%a9=b", "a=%C3%28"] {
            assert_eq!(Query::parse(raw).unwrap_err(), UriError::NotUtf8, "{raw}");
        }
    }

    #[test]
    fn queries_are_bounded() {
        assert_eq!(pairs(&"a&".repeat(QUERY_PAIRS_MAX)).len(), QUERY_PAIRS_MAX);
        assert_eq!(
            Query::parse(&"a&".repeat(QUERY_PAIRS_MAX + 1)).unwrap_err(),
            UriError::QueryTooLarge
        );
        assert_eq!(
            Query::parse(&"a".repeat(HEAD_BYTES_MAX + 1)).unwrap_err(),
            UriError::QueryTooLarge
        );
    }
}
