//! ETags, and the conditions that requests set on them and on dates.
//!
//! [`ReadConditions`] decide a GET, HEAD or copy once the object is known. [`WriteCondition`] goes with a
//! write to the owner of the key, which decides it in the same step as the commit.
//!
//! Invariant: conditions are judged on one version's ETag and date, never on two looks at an index.
//!
//! Source: RFC 9110 section 13; S3 user guide, "Conditional requests"; S3 API reference, CopyObject.

use std::fmt;
use std::time::UNIX_EPOCH;

use crate::limits::PARTS_MAX;
use crate::s3::error::{ErrorCode, S3Error, S3Result};

/// The entity tag of an object: MD5 of its bytes, or MD5 of its parts' MD5s and how many there were.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ETag {
    /// The digest.
    pub md5: [u8; 16],
    /// Parts; 0 for an object that was put in one piece.
    pub parts: u16,
}

impl ETag {
    /// Reads `hex` or `hex-N`, in quotes or not, weak (`W/`) or not. `None`: no object here has that tag.
    pub fn parse(text: &[u8]) -> Option<ETag> {
        let text = unquote(text);
        let (digits, rest) = text.split_at_checked(32)?;
        let mut md5 = [0; 16];
        for (byte, pair) in md5.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
        }
        let parts = match rest {
            [] => 0,
            [b'-', first @ b'1'..=b'9', others @ ..] if others.len() < 5 => {
                others.iter().try_fold(u32::from(first - b'0'), |number, digit| {
                    digit
                        .is_ascii_digit()
                        .then(|| number * 10 + u32::from(digit - b'0'))
                })?
            }
            _ => return None,
        };
        let parts = u16::try_from(parts).ok().filter(|parts| *parts <= PARTS_MAX)?;
        Some(ETag { md5, parts })
    }

    /// The tag in quotes, as headers have it.
    pub const fn quoted(self) -> QuotedETag {
        QuotedETag(self)
    }

    /// Appends the tag without quotes.
    pub fn write_into(&self, out: &mut Vec<u8>) {
        crate::s3::xml::text::hex_into(out, &self.md5);
        if self.parts > 0 {
            out.push(b'-');
            crate::s3::xml::text::decimal_into(out, u64::from(self.parts));
        }
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Vec::with_capacity(38);
        self.write_into(&mut out);
        f.write_str(std::str::from_utf8(&out).map_err(|_| fmt::Error)?)
    }
}

/// Displays an [`ETag`] as `"hex"` or `"hex-N"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuotedETag(ETag);

impl fmt::Display for QuotedETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// A condition, named as the `Condition` element of the error names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// `If-Match`.
    IfMatch,
    /// `If-None-Match`.
    IfNoneMatch,
    /// `If-Modified-Since`.
    IfModifiedSince,
    /// `If-Unmodified-Since`.
    IfUnmodifiedSince,
}

impl Condition {
    /// The header's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Condition::IfMatch => "If-Match",
            Condition::IfNoneMatch => "If-None-Match",
            Condition::IfModifiedSince => "If-Modified-Since",
            Condition::IfUnmodifiedSince => "If-Unmodified-Since",
        }
    }
}

/// What conditions make of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Go on.
    Proceed,
    /// 304, because of this one.
    NotModified(Condition),
    /// 412, because of this one.
    PreconditionFailed(Condition),
}

/// The error of a condition that did not hold.
pub fn precondition_failed(condition: Condition) -> S3Error {
    S3Error::new(ErrorCode::PreconditionFailed).detail("Condition", condition.as_str())
}

/// The conditions of a GET, a HEAD or a copy's source, as they were sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReadConditions<'a> {
    if_match: Option<&'a [u8]>,
    if_none_match: Option<&'a [u8]>,
    if_modified_since: Option<&'a [u8]>,
    if_unmodified_since: Option<&'a [u8]>,
}

impl<'a> ReadConditions<'a> {
    /// Reads `If-*`. A header that is repeated has been refused.
    pub fn from_headers(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> ReadConditions<'a> {
        ReadConditions::read(headers, "")
    }

    /// Reads `x-amz-copy-source-if-*`.
    pub fn from_copy_headers(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> ReadConditions<'a> {
        ReadConditions::read(headers, "x-amz-copy-source-")
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == ReadConditions::default()
    }

    /// Judges a GET or HEAD in RFC 9110's order (section 13.2.2).
    ///
    /// `modified_unix_ms`: when the version was written, in milliseconds since 1970. HTTP dates have
    /// whole seconds, so its fraction is dropped. A date that cannot be read is ignored, and so is an
    /// `If-Modified-Since` later than `now_unix_ms`, as S3 does.
    pub fn evaluate(&self, etag: &ETag, modified_unix_ms: u64, now_unix_ms: u64) -> Outcome {
        let modified = modified_unix_ms / 1000;
        let since = self
            .if_modified_since
            .and_then(parse_date)
            .filter(|date| *date <= now_unix_ms / 1000);
        match (self.if_match, self.if_unmodified_since.and_then(parse_date)) {
            (Some(tags), _) if !lists(tags, etag) => return Outcome::PreconditionFailed(Condition::IfMatch),
            (None, Some(date)) if modified > date => {
                return Outcome::PreconditionFailed(Condition::IfUnmodifiedSince);
            }
            (Some(_) | None, _) => {}
        }
        match (self.if_none_match, since) {
            (Some(tags), _) if lists(tags, etag) => Outcome::NotModified(Condition::IfNoneMatch),
            (None, Some(date)) if modified <= date => Outcome::NotModified(Condition::IfModifiedSince),
            (Some(_) | None, _) => Outcome::Proceed,
        }
    }

    /// Judges a copy's source: the same order, and every failure is a 412.
    pub fn evaluate_copy(&self, etag: &ETag, modified_unix_ms: u64, now_unix_ms: u64) -> S3Result<()> {
        match self.evaluate(etag, modified_unix_ms, now_unix_ms) {
            Outcome::Proceed => Ok(()),
            Outcome::NotModified(condition) | Outcome::PreconditionFailed(condition) => {
                Err(S3Error::new(ErrorCode::PreconditionFailed)
                    .detail("Condition", format!("x-amz-copy-source-{}", condition.as_str())))
            }
        }
    }

    fn read(headers: impl Iterator<Item = (&'a str, &'a [u8])>, prefix: &'static str) -> ReadConditions<'a> {
        let mut conditions = ReadConditions::default();
        for (name, value) in headers {
            let Some((head, name)) = name.split_at_checked(prefix.len()) else {
                continue;
            };
            if !head.eq_ignore_ascii_case(prefix)
                || !name.get(..3).is_some_and(|n| n.eq_ignore_ascii_case("if-"))
            {
                continue;
            }
            let place = match &name[3..] {
                name if name.eq_ignore_ascii_case("match") => &mut conditions.if_match,
                name if name.eq_ignore_ascii_case("none-match") => &mut conditions.if_none_match,
                name if name.eq_ignore_ascii_case("modified-since") => &mut conditions.if_modified_since,
                name if name.eq_ignore_ascii_case("unmodified-since") => &mut conditions.if_unmodified_since,
                _ => continue,
            };
            *place = Some(value);
        }
        conditions
    }
}

/// Whether `If-Range` lets a `Range` count for this version (RFC 9110 section 13.1.5): a strong tag that is this one's,
/// or a date that is exactly its own, in whole seconds. Else the whole object is served, so that a client that goes
/// on with a download never joins bytes of two versions.
pub fn range_counts(if_range: &[u8], etag: &ETag, modified_unix_ms: u64) -> bool {
    let is_weak = if_range.trim_ascii_start().starts_with(b"W/");
    match ETag::parse(if_range) {
        Some(tag) => !is_weak && tag == *etag,
        None => parse_date(if_range) == Some(modified_unix_ms / 1000),
    }
}

/// What a write demands of the version that it replaces or removes. Decided by the owner of the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WriteCondition {
    /// Nothing.
    #[default]
    None,
    /// `If-None-Match: *`: there is no object. Else `PreconditionFailed`.
    IfAbsent,
    /// `If-Match: *`: there is an object. Else `NoSuchKey`.
    IfExists,
    /// `If-Match`: the object has this tag. No object: `NoSuchKey`; another tag: `PreconditionFailed`.
    IfMatch(ETag),
    /// `If-Match` with a tag that no object here can have. No object: `NoSuchKey`; else `PreconditionFailed`.
    IfMatchNone,
}

impl WriteCondition {
    /// Reads the conditions of PutObject, CompleteMultipartUpload and CopyObject's destination.
    ///
    /// Errors: `NotImplemented` for a condition that S3 does not take on writes.
    pub fn from_headers<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> S3Result<WriteCondition> {
        let conditions = ReadConditions::from_headers(headers);
        let not_implemented = |condition: Condition, why: &str| {
            Err(S3Error::header_not_implemented(condition.as_str()).detail("additionalMessage", why))
        };
        if conditions.if_modified_since.is_some() {
            return not_implemented(Condition::IfModifiedSince, "Not supported on writes");
        }
        if conditions.if_unmodified_since.is_some() {
            return not_implemented(Condition::IfUnmodifiedSince, "Not supported on writes");
        }
        match (conditions.if_match, conditions.if_none_match) {
            (None, None) => Ok(WriteCondition::None),
            (Some(_), Some(_)) => Err(S3Error::header_not_implemented("If-Match,If-None-Match").detail(
                "additionalMessage",
                "Multiple conditional request headers present in the request",
            )),
            (None, Some(tags)) if unquote(tags) == b"*" => Ok(WriteCondition::IfAbsent),
            (None, Some(_)) => not_implemented(
                Condition::IfNoneMatch,
                "We don't accept the provided value of If-None-Match header for this API",
            ),
            (Some(tag), None) => Ok(WriteCondition::if_match(tag)),
        }
    }

    /// The condition of `If-Match: tag`, or of an `ETag` element of DeleteObjects.
    pub fn if_match(tag: &[u8]) -> WriteCondition {
        match (unquote(tag), ETag::parse(tag)) {
            (b"*", _) => WriteCondition::IfExists,
            (_, Some(etag)) => WriteCondition::IfMatch(etag),
            (_, None) => WriteCondition::IfMatchNone,
        }
    }

    /// Judges the condition on what is there now.
    ///
    /// Errors: `PreconditionFailed` or `NoSuchKey`, as each variant says.
    pub fn check(&self, current: Option<&ETag>) -> S3Result<()> {
        match (self, current) {
            (WriteCondition::None, _)
            | (WriteCondition::IfAbsent, None)
            | (WriteCondition::IfExists, Some(_)) => Ok(()),
            (WriteCondition::IfAbsent, Some(_)) => Err(precondition_failed(Condition::IfNoneMatch)),
            (WriteCondition::IfMatch(etag), Some(current)) if etag == current => Ok(()),
            (WriteCondition::IfMatch(_) | WriteCondition::IfMatchNone, Some(_)) => {
                Err(precondition_failed(Condition::IfMatch))
            }
            (WriteCondition::IfExists | WriteCondition::IfMatch(_) | WriteCondition::IfMatchNone, None) => {
                Err(S3Error::new(ErrorCode::NoSuchKey))
            }
        }
    }
}

/// Whether a list of tags, or `*`, has this one. Comparison is weak: a `W/` is not looked at, since S3
/// has no weak tags and proxies add it.
fn lists(tags: &[u8], etag: &ETag) -> bool {
    if unquote(tags) == b"*" {
        return true;
    }
    tags.split(|&byte| byte == b',')
        .any(|tag| ETag::parse(tag).as_ref() == Some(etag))
}

/// The tag without surrounding space, `W/` and quotes.
fn unquote(text: &[u8]) -> &[u8] {
    let text = text.trim_ascii();
    let text = text.strip_prefix(b"W/").unwrap_or(text);
    text.strip_prefix(b"\"")
        .and_then(|text| text.strip_suffix(b"\""))
        .unwrap_or(text)
}

/// Seconds since 1970 of an HTTP date (RFC 9110 section 5.6.7, all three forms).
fn parse_date(text: &[u8]) -> Option<u64> {
    let date = httpdate::parse_http_date(std::str::from_utf8(text).ok()?.trim()).ok()?;
    Some(date.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type List<'a> = &'a [(&'a str, &'a str)];

    const TAG: &str = "d41d8cd98f00b204e9800998ecf8427e";
    const OTHER: &str = "\"00000000000000000000000000000000\"";
    const BEFORE: &str = "Mon, 12 Oct 2009 17:50:29 GMT";
    const SAME: &str = "Mon, 12 Oct 2009 17:50:30 GMT";
    const AFTER: &str = "Mon, 12 Oct 2009 17:50:31 GMT";
    const MODIFIED_MS: u64 = 1_255_369_830_999;
    const NOW_MS: u64 = MODIFIED_MS + 2_000;
    const LATER_THAN_NOW: &str = "Mon, 12 Oct 2009 17:50:33 GMT";

    fn etag() -> ETag {
        ETag::parse(TAG.as_bytes()).unwrap()
    }

    fn headers<'a>(list: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        list.iter().map(|(name, value)| (*name, value.as_bytes()))
    }

    #[test]
    fn tags_are_read_in_every_form_that_clients_send() {
        for text in [
            TAG,
            &format!("\"{TAG}\""),
            &format!("W/\"{TAG}\""),
            &TAG.to_uppercase(),
            &format!(" \"{TAG}\" "),
        ] {
            assert_eq!(ETag::parse(text.as_bytes()), Some(etag()), "{text}");
        }
        let parts = ETag::parse(format!("\"{TAG}-10000\"").as_bytes()).unwrap();
        assert_eq!(parts.parts, 10_000);
        assert_eq!(parts.to_string(), format!("{TAG}-10000"));
        assert_eq!(parts.quoted().to_string(), format!("\"{TAG}-10000\""));
        assert_eq!(etag().quoted().to_string(), format!("\"{TAG}\""));
        let long = format!("{TAG}-99999999999999999999");
        for text in ["", "*", "\"", "abc", "\"abc\"", &TAG[1..], &long] {
            assert_eq!(ETag::parse(text.as_bytes()), None, "{text}");
        }
        for suffix in ["-0", "-", "-01", "-10001", "-x", "-1x", "x", "--1", "-65537"] {
            assert_eq!(ETag::parse(format!("{TAG}{suffix}").as_bytes()), None, "{suffix}");
        }
    }

    #[test]
    fn reads_are_judged_in_the_order_of_rfc_9110() {
        use Condition as C;
        use Outcome::{NotModified, PreconditionFailed, Proceed};
        let quoted = &*format!("\"{TAG}\"");
        let list = &*format!("{OTHER}, W/\"{TAG}\"");
        let table: &[(List<'_>, Outcome)] = &[
            (&[], Proceed),
            (&[("If-Match", quoted)], Proceed),
            (&[("if-match", TAG)], Proceed),
            (&[("If-Match", list)], Proceed),
            (&[("If-Match", "*")], Proceed),
            (&[("If-Match", "\"*\"")], Proceed),
            (&[("If-Match", OTHER)], PreconditionFailed(C::IfMatch)),
            (&[("If-Match", "")], PreconditionFailed(C::IfMatch)),
            (&[("If-Match", "garbage")], PreconditionFailed(C::IfMatch)),
            (&[("If-None-Match", quoted)], NotModified(C::IfNoneMatch)),
            (&[("If-None-Match", list)], NotModified(C::IfNoneMatch)),
            (&[("If-None-Match", "*")], NotModified(C::IfNoneMatch)),
            (&[("If-None-Match", OTHER)], Proceed),
            (&[("If-None-Match", "garbage")], Proceed),
            (&[("If-Modified-Since", BEFORE)], Proceed),
            (&[("If-Modified-Since", SAME)], NotModified(C::IfModifiedSince)),
            (&[("If-Modified-Since", AFTER)], NotModified(C::IfModifiedSince)),
            (&[("If-Modified-Since", "yesterday")], Proceed),
            (
                &[("If-Unmodified-Since", BEFORE)],
                PreconditionFailed(C::IfUnmodifiedSince),
            ),
            (&[("If-Unmodified-Since", SAME)], Proceed),
            (&[("If-Unmodified-Since", AFTER)], Proceed),
            (&[("If-Unmodified-Since", "yesterday")], Proceed),
            // RFC 850 and asctime dates.
            (
                &[("If-Unmodified-Since", "Monday, 12-Oct-09 17:50:29 GMT")],
                PreconditionFailed(C::IfUnmodifiedSince),
            ),
            (&[("If-Unmodified-Since", "Mon Oct 12 17:50:30 2009")], Proceed),
            // The tag decides over the date.
            (&[("If-Match", quoted), ("If-Unmodified-Since", BEFORE)], Proceed),
            (
                &[("If-Match", OTHER), ("If-Unmodified-Since", AFTER)],
                PreconditionFailed(C::IfMatch),
            ),
            (&[("If-None-Match", OTHER), ("If-Modified-Since", AFTER)], Proceed),
            (
                &[("If-None-Match", quoted), ("If-Modified-Since", BEFORE)],
                NotModified(C::IfNoneMatch),
            ),
            // 412 comes before 304.
            (
                &[("If-None-Match", quoted), ("If-Match", OTHER)],
                PreconditionFailed(C::IfMatch),
            ),
            (
                &[("If-None-Match", quoted), ("If-Match", quoted)],
                NotModified(C::IfNoneMatch),
            ),
            (
                &[("If-Modified-Since", SAME), ("If-Unmodified-Since", BEFORE)],
                PreconditionFailed(C::IfUnmodifiedSince),
            ),
            (
                &[("If-Match", quoted), ("If-Modified-Since", SAME)],
                NotModified(C::IfModifiedSince),
            ),
            // A date to come says nothing.
            (&[("If-Modified-Since", AFTER)], NotModified(C::IfModifiedSince)),
            (&[("If-Modified-Since", LATER_THAN_NOW)], Proceed),
            (&[("If-Unmodified-Since", LATER_THAN_NOW)], Proceed),
            // Copy conditions are none of GET's.
            (
                &[
                    ("x-amz-copy-source-if-match", OTHER),
                    ("if-", "x"),
                    ("if-range", "x"),
                ],
                Proceed,
            ),
        ];
        for (list, expected) in table {
            let conditions = ReadConditions::from_headers(headers(list));
            assert_eq!(
                conditions.evaluate(&etag(), MODIFIED_MS, NOW_MS),
                *expected,
                "{list:?}"
            );
        }
    }

    #[test]
    fn a_range_counts_for_the_version_that_it_was_asked_of() {
        let quoted = &*format!("\"{TAG}\"");
        for (if_range, expected) in [
            (quoted, true),
            (OTHER, false),
            (&format!("W/{quoted}"), false),
            (&format!(" W/{quoted}"), false),
            (&format!("\"{TAG}-2\""), false),
            (&format!("{quoted}, {OTHER}"), false),
            ("*", false),
            ("", false),
            ("garbage", false),
            (BEFORE, false),
            (SAME, true),
            (AFTER, false),
        ] {
            let got = range_counts(if_range.as_bytes(), &etag(), MODIFIED_MS);
            assert_eq!(got, expected, "{if_range}");
        }
    }

    #[test]
    fn copies_fail_with_412_only() {
        let quoted = &*format!("\"{TAG}\"");
        let table: &[(List<'_>, Option<&str>)] = &[
            (&[], None),
            (&[("if-match", OTHER)], None),
            (
                &[
                    ("x-amz-copy-source-if-match", quoted),
                    ("x-amz-copy-source-if-unmodified-since", BEFORE),
                ],
                None,
            ),
            (
                &[
                    ("x-amz-copy-source-if-none-match", quoted),
                    ("x-amz-copy-source-if-modified-since", BEFORE),
                ],
                Some("x-amz-copy-source-If-None-Match"),
            ),
            (
                &[("X-Amz-Copy-Source-If-Match", OTHER)],
                Some("x-amz-copy-source-If-Match"),
            ),
            (
                &[("x-amz-copy-source-if-modified-since", SAME)],
                Some("x-amz-copy-source-If-Modified-Since"),
            ),
            (
                &[("x-amz-copy-source-if-unmodified-since", BEFORE)],
                Some("x-amz-copy-source-If-Unmodified-Since"),
            ),
        ];
        for (list, expected) in table {
            let result =
                ReadConditions::from_copy_headers(headers(list)).evaluate_copy(&etag(), MODIFIED_MS, NOW_MS);
            let condition = result.err().map(|error| {
                assert_eq!(error.code, ErrorCode::PreconditionFailed);
                error.details[0].1.clone()
            });
            assert_eq!(condition.as_deref(), *expected, "{list:?}");
        }
    }

    #[test]
    fn writes_take_a_star_or_a_tag() {
        let quoted = &*format!("\"{TAG}\"");
        let table: &[(List<'_>, Result<WriteCondition, ErrorCode>)] = &[
            (&[], Ok(WriteCondition::None)),
            (&[("If-None-Match", "*")], Ok(WriteCondition::IfAbsent)),
            (&[("If-None-Match", quoted)], Err(ErrorCode::NotImplemented)),
            (&[("If-None-Match", "")], Err(ErrorCode::NotImplemented)),
            (&[("If-Match", quoted)], Ok(WriteCondition::IfMatch(etag()))),
            (&[("If-Match", TAG)], Ok(WriteCondition::IfMatch(etag()))),
            (&[("If-Match", "*")], Ok(WriteCondition::IfExists)),
            (&[("If-Match", "garbage")], Ok(WriteCondition::IfMatchNone)),
            (
                &[("If-Match", quoted), ("If-None-Match", "*")],
                Err(ErrorCode::NotImplemented),
            ),
            (&[("If-Modified-Since", BEFORE)], Err(ErrorCode::NotImplemented)),
            (&[("If-Unmodified-Since", BEFORE)], Err(ErrorCode::NotImplemented)),
        ];
        for (list, expected) in table {
            let got = WriteCondition::from_headers(headers(list)).map_err(|error| error.code);
            assert_eq!(got, *expected, "{list:?}");
        }
    }

    #[test]
    fn writes_are_judged_on_what_is_there() {
        let here = etag();
        let other = ETag {
            md5: [0; 16],
            parts: 0,
        };
        let parts = ETag { parts: 2, ..here };
        let table = [
            (WriteCondition::None, None, None),
            (WriteCondition::None, Some(here), None),
            (WriteCondition::IfAbsent, None, None),
            (
                WriteCondition::IfAbsent,
                Some(here),
                Some(ErrorCode::PreconditionFailed),
            ),
            (WriteCondition::IfExists, None, Some(ErrorCode::NoSuchKey)),
            (WriteCondition::IfExists, Some(here), None),
            (WriteCondition::IfMatch(here), None, Some(ErrorCode::NoSuchKey)),
            (WriteCondition::IfMatch(here), Some(here), None),
            (
                WriteCondition::IfMatch(here),
                Some(other),
                Some(ErrorCode::PreconditionFailed),
            ),
            (
                WriteCondition::IfMatch(here),
                Some(parts),
                Some(ErrorCode::PreconditionFailed),
            ),
            (WriteCondition::IfMatchNone, None, Some(ErrorCode::NoSuchKey)),
            (
                WriteCondition::IfMatchNone,
                Some(here),
                Some(ErrorCode::PreconditionFailed),
            ),
        ];
        for (condition, current, expected) in table {
            let got = condition.check(current.as_ref()).err().map(|error| error.code);
            assert_eq!(got, expected, "{condition:?} on {current:?}");
        }
    }
}
