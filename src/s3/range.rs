//! Byte ranges: the `Range` header of GET and HEAD, and `x-amz-copy-source-range`.
//!
//! S3 serves one range. Several ranges, other units and text that is no range are ignored, as RFC 9110
//! section 14.2 allows, and the whole object is served. A copy's range is strict.
//!
//! Invariant: what is resolved lies inside the object and is not empty.

use std::fmt;

use crate::s3::error::{ErrorCode, S3Error, S3Result};

/// A stretch of an object that exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resolved {
    /// Bytes before it.
    pub start: u64,
    /// Bytes in it, at least 1.
    pub length: u64,
}

/// The range is well formed and no byte of the object is in it: 416.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unsatisfiable {
    /// Bytes of the object.
    pub size: u64,
}

/// Resolves `Range` against an object of `size` bytes. `None`: serve the whole object.
///
/// Source: RFC 9110 section 14.1.2 and 14.2.
pub fn parse(header: &[u8], size: u64) -> Result<Option<Resolved>, Unsatisfiable> {
    let Some(spec) = strip_unit(header) else {
        return Ok(None);
    };
    let Some(dash) = spec.iter().position(|&byte| byte == b'-') else {
        return Ok(None);
    };
    let (first, last) = (trim(&spec[..dash]), trim(&spec[dash + 1..]));
    let last = match last {
        [] => None,
        digits => match number(digits) {
            Some(last) => Some(last),
            None => return Ok(None),
        },
    };
    let first = match first {
        [] => None,
        digits => match number(digits) {
            Some(first) => Some(first),
            None => return Ok(None),
        },
    };
    match (first, last) {
        (None, None) => Ok(None),
        (None, Some(suffix)) if suffix == 0 || size == 0 => Err(Unsatisfiable { size }),
        (None, Some(suffix)) => {
            let length = suffix.min(size);
            Ok(Some(Resolved {
                start: size - length,
                length,
            }))
        }
        (Some(first), Some(last)) if last < first => Ok(None),
        (Some(first), _) if first >= size => Err(Unsatisfiable { size }),
        (Some(first), last) => {
            let last = last.unwrap_or(u64::MAX).min(size - 1);
            Ok(Some(Resolved {
                start: first,
                length: last - first + 1,
            }))
        }
    }
}

/// Resolves `x-amz-copy-source-range`, which must be `bytes=first-last` and lie inside the source.
///
/// Errors: `InvalidArgument`, or `InvalidRequest` for a range that begins behind the source, in S3's words.
/// Source: S3 API reference, UploadPartCopy.
pub fn parse_copy_source(header: &[u8], size: u64) -> S3Result<Resolved> {
    let invalid = |message: String| {
        S3Error::invalid_argument(
            message,
            "x-amz-copy-source-range",
            &String::from_utf8_lossy(header),
        )
    };
    let (first, last) = header.strip_prefix(b"bytes=").and_then(exact).ok_or_else(|| {
        invalid(
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the \
             zero-based offsets of the first and last bytes to copy"
                .into(),
        )
    })?;
    if first >= size {
        return Err(S3Error::invalid_request(
            "The specified copy range is invalid for the source object size",
        ));
    }
    if last >= size {
        return Err(invalid(format!(
            "Range specified is not valid for source object of size: {size}"
        )));
    }
    Ok(Resolved {
        start: first,
        length: last - first + 1,
    })
}

impl Resolved {
    /// The offset of the last byte.
    pub const fn last(&self) -> u64 {
        self.start + self.length - 1
    }

    /// The value of `Content-Range` for this stretch of an object of `size` bytes.
    pub const fn content_range(self, size: u64) -> ContentRange {
        ContentRange { range: self, size }
    }
}

/// Writes `bytes first-last/size`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContentRange {
    range: Resolved,
    size: u64,
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "bytes {}-{}/{}",
            self.range.start,
            self.range.last(),
            self.size
        )
    }
}

impl Unsatisfiable {
    /// S3's 416, with `Content-Range: bytes */size`. `header` is the range as it was sent.
    pub fn into_error(self, header: &[u8]) -> S3Error {
        S3Error::new(ErrorCode::InvalidRange)
            .detail("RangeRequested", String::from_utf8_lossy(header))
            .detail("ActualObjectSize", self.size.to_string())
            .header("Content-Range", format!("bytes */{}", self.size))
    }
}

/// What follows `bytes=`, the unit in any case.
fn strip_unit(header: &[u8]) -> Option<&[u8]> {
    let header = trim(header);
    let (unit, rest) = header.split_at_checked(5)?;
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    trim(rest).strip_prefix(b"=")
}

/// `first-last` and nothing else, in order.
fn exact(spec: &[u8]) -> Option<(u64, u64)> {
    let dash = spec.iter().position(|&byte| byte == b'-')?;
    let (first, last) = (number(&spec[..dash])?, number(&spec[dash + 1..])?);
    (first <= last).then_some((first, last))
}

/// A number of any length; beyond what 64 bits hold it is the greatest, which is past every object.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0u64, |number, digit| {
        number.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
    }))
}

fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parsed = Result<Option<Resolved>, Unsatisfiable>;

    #[test]
    fn ranges_resolve_as_s3_resolves_them() {
        let some = |start, length| Ok(Some(Resolved { start, length }));
        let gone = |size| Err(Unsatisfiable { size });
        let table: &[(&str, u64, Parsed)] = &[
            ("bytes=0-0", 10, some(0, 1)),
            ("bytes=0-9", 10, some(0, 10)),
            ("bytes=2-5", 10, some(2, 4)),
            ("bytes=2-", 10, some(2, 8)),
            ("bytes=2-100", 10, some(2, 8)),
            ("bytes=9-99999999999999999999999999", 10, some(9, 1)),
            ("bytes=-3", 10, some(7, 3)),
            ("bytes=-10", 10, some(0, 10)),
            ("bytes=-11", 10, some(0, 10)),
            ("bytes=-99999999999999999999999999", 10, some(0, 10)),
            ("Bytes = 2 - 5 ", 10, some(2, 4)),
            ("bytes=10-", 10, gone(10)),
            ("bytes=10-12", 10, gone(10)),
            ("bytes=99999999999999999999999999-", 10, gone(10)),
            ("bytes=-0", 10, gone(10)),
            ("bytes=0-", 0, gone(0)),
            ("bytes=0-0", 0, gone(0)),
            ("bytes=-1", 0, gone(0)),
            ("", 10, Ok(None)),
            ("bytes", 10, Ok(None)),
            ("bytes=", 10, Ok(None)),
            ("bytes=-", 10, Ok(None)),
            ("bytes=5", 10, Ok(None)),
            ("bytes=5-2", 10, Ok(None)),
            ("bytes=a-b", 10, Ok(None)),
            ("bytes=1-b", 10, Ok(None)),
            ("bytes=+1-2", 10, Ok(None)),
            ("bytes=1--2", 10, Ok(None)),
            ("bytes=0-1,3-4", 10, Ok(None)),
            ("bytes=99-,0-1", 10, Ok(None)),
            ("items=0-1", 10, Ok(None)),
            ("0-1", 10, Ok(None)),
            ("bytes=1-2-3", 10, Ok(None)),
        ];
        for (header, size, expected) in table {
            assert_eq!(parse(header.as_bytes(), *size), *expected, "{header} of {size}");
        }
        assert_eq!(parse(b"bytes=\xff-1", 10), Ok(None));
        assert_eq!(
            parse(b"bytes=0-18446744073709551615", u64::MAX),
            some(0, u64::MAX)
        );
    }

    #[test]
    fn every_resolved_range_is_inside_and_not_empty() {
        for size in 0..6u64 {
            for first in 0..8u64 {
                for last in 0..8u64 {
                    for header in [
                        format!("bytes={first}-{last}"),
                        format!("bytes={first}-"),
                        format!("bytes=-{last}"),
                    ] {
                        if let Ok(Some(range)) = parse(header.as_bytes(), size) {
                            assert!(
                                range.length > 0 && range.start + range.length <= size,
                                "{header} of {size}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn content_range_counts_from_zero_and_includes_the_last_byte() {
        assert_eq!(
            Resolved { start: 2, length: 4 }.content_range(10).to_string(),
            "bytes 2-5/10"
        );
        let error = Unsatisfiable { size: 10 }.into_error(b"bytes=99-");
        assert_eq!(error.status(), 416);
        assert_eq!(error.headers, [("Content-Range", "bytes */10".to_owned())]);
        assert_eq!(error.details[0], ("RangeRequested", "bytes=99-".to_owned()));
    }

    #[test]
    fn a_copy_range_is_strict() {
        assert_eq!(
            parse_copy_source(b"bytes=2-5", 10).unwrap(),
            Resolved { start: 2, length: 4 }
        );
        assert_eq!(
            parse_copy_source(b"bytes=0-9", 10).unwrap(),
            Resolved { start: 0, length: 10 }
        );
        let bad = [
            "",
            "bytes=",
            "bytes=-",
            "bytes=2-",
            "bytes=-2",
            "bytes=5-2",
            "2-5",
            "bytes = 2-5",
            "bytes=2-5,7-8",
            "bytes=0-10",
            "bytes=0-99999999999999999999999",
            "bytes=a-b",
        ];
        for header in bad {
            let error = parse_copy_source(header.as_bytes(), 10).expect_err(header);
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{header}");
        }
        for (header, size) in [(b"bytes=10-11".as_slice(), 10), (b"bytes=0-0", 0)] {
            let error = parse_copy_source(header, size).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidRequest);
        }
        let past = parse_copy_source(b"bytes=0-10", 10).unwrap_err();
        assert_eq!(
            past.message,
            "Range specified is not valid for source object of size: 10"
        );
    }
}
