//! What `weft inspect` shows, as people name it: a segment in hexadecimal, a record in it, a key in its bucket.

use super::ConfigError;
use super::flags::InspectFlags;
use crate::check::Target;
use crate::io::SegmentId;

/// What the flags name; the whole volume if they name nothing.
///
/// # Errors
/// What is no segment, record or key.
pub fn parse(flags: &InspectFlags) -> Result<Target, ConfigError> {
    let wrong = |given: &str| ConfigError::Target {
        given: given.to_owned(),
    };
    if let Some(text) = &flags.segment {
        return segment(text).map(Target::Segment).ok_or_else(|| wrong(text));
    }
    if let Some(text) = &flags.record {
        let record = text.split_once(':').and_then(|(id, offset)| {
            let offset = offset.parse().ok()?;
            Some(Target::Record(segment(id)?, offset))
        });
        return record.ok_or_else(|| wrong(text));
    }
    if let Some(text) = &flags.key {
        let (bucket, key) = text.split_once('/').ok_or_else(|| wrong(text))?;
        return Ok(Target::Key {
            bucket: bucket.to_owned(),
            key: key.as_bytes().to_vec(),
        });
    }
    Ok(Target::Volume)
}

/// As the daemon prints it.
fn segment(text: &str) -> Option<SegmentId> {
    let is_hex = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u32::from_str_radix(text, 16).ok().map(SegmentId))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(segment: Option<&str>, record: Option<&str>, key: Option<&str>) -> InspectFlags {
        InspectFlags {
            paths: vec!["d".into()],
            segment: segment.map(str::to_owned),
            record: record.map(str::to_owned),
            key: key.map(str::to_owned),
            json: false,
        }
    }

    #[test]
    fn segments_records_and_keys_are_named() {
        let id = SegmentId(0x1a);
        assert_eq!(parse(&flags(None, None, None)), Ok(Target::Volume));
        assert_eq!(
            parse(&flags(Some("0000001a"), None, None)),
            Ok(Target::Segment(id))
        );
        assert_eq!(
            parse(&flags(None, Some("1A:8192"), None)),
            Ok(Target::Record(id, 8192))
        );
        let (bucket, key) = ("b".to_owned(), b"/a/b".to_vec());
        assert_eq!(
            parse(&flags(None, None, Some("b//a/b"))),
            Ok(Target::Key { bucket, key })
        );
    }

    #[test]
    fn anything_else_is_refused() {
        for wrong in [
            flags(Some(""), None, None),
            flags(Some("+1"), None, None),
            flags(Some("123456789"), None, None),
            flags(None, Some("1"), None),
            flags(None, Some("1:-1"), None),
            flags(None, None, Some("bucket")),
        ] {
            assert!(parse(&wrong).is_err());
        }
    }
}
