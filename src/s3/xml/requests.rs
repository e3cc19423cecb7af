//! Request bodies in XML, read into values.
//!
//! Unknown elements are passed over, as S3 does, because SDKs send more than a server knows. Elements that
//! must be there, must be there once, or must spell a number are checked; everything else is
//! `MalformedXML`.
//!
//! Invariant: what comes out is bounded by [`PARTS_MAX`] parts or [`DELETE_KEYS_MAX`] keys, whatever came in; a key by
//! [`KEY_BYTES_MAX`] bytes and the rest of a character more, every other text by [`XML_TEXT_BYTES_MAX`].
//! Keys, tags and checksums in it are text as sent: the operation validates them, because S3 answers a bad
//! one with an error of its own.

use std::borrow::Cow;

use super::{Elements, malformed};
use crate::limits::{DELETE_KEYS_MAX, KEY_BYTES_MAX, PARTS_MAX, XML_TEXT_BYTES_MAX};
use crate::s3::checksum::Algorithm;
use crate::s3::error::S3Result;

/// A document with many entries.
pub trait Document: Default {
    type Value;
    const ROOT: &'static str;

    /// Reads the next child of the root; `false` if there is none.
    fn read_child(&mut self, elements: &mut Elements<'_>) -> S3Result<bool>;

    /// What was read.
    fn value(self) -> S3Result<Self::Value>;
}

/// Reads a long document a turn at a time.
pub struct DocumentReader<'a, D> {
    elements: Elements<'a>,
    document: D,
}

impl<'a, D: Document> DocumentReader<'a, D> {
    /// Errors: `MalformedXML`, `MaxMessageLengthExceeded`; so for all that follows.
    pub fn open(body: &'a [u8]) -> S3Result<DocumentReader<'a, D>> {
        Ok(DocumentReader {
            elements: Elements::open(body, D::ROOT)?,
            document: D::default(),
        })
    }

    /// Reads for a turn; `false` if there is no more to read.
    pub fn read_on(&mut self) -> S3Result<bool> {
        while !self.elements.takes_a_break() {
            if !self.document.read_child(&mut self.elements)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What was read, once there is no more.
    pub fn finish(self) -> S3Result<D::Value> {
        self.elements.finish()?;
        self.document.value()
    }
}

fn read<D: Document>(body: &[u8]) -> S3Result<D::Value> {
    let mut reader = DocumentReader::<D>::open(body)?;
    while reader.read_on()? {}
    reader.finish()
}

/// A part that CompleteMultipartUpload names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompletedPart {
    /// `PartNumber`, not yet checked to be 1 to 10,000.
    pub number: u32,
    /// `ETag` as sent, in quotes or not.
    pub etag: String,
    /// `ChecksumCRC32` and the like: base64 as sent, not yet checked.
    pub checksums: Vec<(Algorithm, String)>,
}

/// Reads `CompleteMultipartUpload`: its parts in the order in which they were sent.
///
/// Errors: `MalformedXML`, also for no parts and for more than [`PARTS_MAX`].
/// Source: S3 API reference, CompleteMultipartUpload.
pub fn complete_multipart_upload(body: &[u8]) -> S3Result<Vec<CompletedPart>> {
    read::<CompletionDocument>(body)
}

/// A [`complete_multipart_upload`] that is being read.
#[derive(Default)]
pub struct CompletionDocument {
    parts: Vec<CompletedPart>,
}

impl Document for CompletionDocument {
    type Value = Vec<CompletedPart>;
    const ROOT: &'static str = "CompleteMultipartUpload";

    fn read_child(&mut self, elements: &mut Elements<'_>) -> S3Result<bool> {
        match elements.child()? {
            None => return Ok(false),
            Some("Part") if self.parts.len() == usize::from(PARTS_MAX) => return Err(malformed()),
            Some("Part") => self.parts.push(part(elements)?),
            Some(_) => elements.skip()?,
        }
        Ok(true)
    }

    fn value(self) -> S3Result<Vec<CompletedPart>> {
        match self.parts.is_empty() {
            true => Err(malformed()),
            false => Ok(self.parts),
        }
    }
}

/// `Delete`: what DeleteObjects is to remove.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delete {
    /// Whether only failures are to be listed in the answer.
    pub quiet: bool,
    /// The objects, in the order in which they were sent; 1 to [`DELETE_KEYS_MAX`].
    pub objects: Vec<ObjectIdentifier>,
}

/// One object of a [`Delete`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ObjectIdentifier {
    /// `Key`: not empty, not yet checked for its length. Of one that is too long the beginning, which is too long.
    pub key: String,
    /// `VersionId`.
    pub version_id: Option<String>,
    /// `ETag` that the object must have.
    pub etag: Option<String>,
    /// `Size` in bytes that the object must have.
    pub size: Option<u64>,
    /// `LastModifiedTime` that the object must have, as sent.
    pub last_modified: Option<String>,
}

/// Reads `Delete`.
///
/// Errors: `MalformedXML`, also for no objects and for more than [`DELETE_KEYS_MAX`].
/// Source: S3 API reference, DeleteObjects.
pub fn delete(body: &[u8]) -> S3Result<Delete> {
    read::<DeleteDocument>(body)
}

/// A [`delete`] that is being read.
#[derive(Default)]
pub struct DeleteDocument {
    quiet: Option<bool>,
    objects: Vec<ObjectIdentifier>,
}

impl Document for DeleteDocument {
    type Value = Delete;
    const ROOT: &'static str = "Delete";

    fn read_child(&mut self, elements: &mut Elements<'_>) -> S3Result<bool> {
        match elements.child()? {
            None => return Ok(false),
            Some("Quiet") => set(&mut self.quiet, boolean(&text(elements)?)?)?,
            Some("Object") if self.objects.len() == DELETE_KEYS_MAX => return Err(malformed()),
            Some("Object") => self.objects.push(object(elements)?),
            Some(_) => elements.skip()?,
        }
        Ok(true)
    }

    fn value(self) -> S3Result<Delete> {
        if self.objects.is_empty() {
            return Err(malformed());
        }
        Ok(Delete {
            quiet: self.quiet.unwrap_or(false),
            objects: self.objects,
        })
    }
}

/// What CreateBucket says of the bucket to make.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BucketConfiguration {
    /// `LocationConstraint`, if it is not empty.
    pub location: Option<String>,
    /// Whether `Tags` has any.
    pub has_tags: bool,
}

/// Reads `CreateBucketConfiguration`. An empty body says nothing.
///
/// Errors: `MalformedXML`.
/// Source: S3 API reference, CreateBucket.
pub fn create_bucket_configuration(body: &[u8]) -> S3Result<BucketConfiguration> {
    if body.is_empty() {
        return Ok(BucketConfiguration::default());
    }
    let mut elements = Elements::open(body, "CreateBucketConfiguration")?;
    let mut location = None;
    let mut has_tags = false;
    while let Some(name) = elements.child()? {
        match name {
            "LocationConstraint" => {
                let text = text(&mut elements)?.trim().to_owned();
                set(&mut location, text)?;
            }
            "Tags" => {
                while elements.child()?.is_some() {
                    elements.skip()?;
                    has_tags = true;
                }
            }
            _ => elements.skip()?,
        }
    }
    elements.finish()?;
    Ok(BucketConfiguration {
        location: location.filter(|location| !location.is_empty()),
        has_tags,
    })
}

/// Reads `PublicAccessBlockConfiguration`: BlockPublicAcls, IgnorePublicAcls, BlockPublicPolicy, RestrictPublicBuckets. What
/// it does not say is false.
///
/// Errors: `MalformedXML`.
/// Source: S3 API reference, PutPublicAccessBlock.
pub fn public_access_block(body: &[u8]) -> S3Result<[bool; 4]> {
    let mut elements = Elements::open(body, "PublicAccessBlockConfiguration")?;
    let mut flags = [None; 4];
    while let Some(name) = elements.child()? {
        let place = match name {
            "BlockPublicAcls" => &mut flags[0],
            "IgnorePublicAcls" => &mut flags[1],
            "BlockPublicPolicy" => &mut flags[2],
            "RestrictPublicBuckets" => &mut flags[3],
            _ => {
                elements.skip()?;
                continue;
            }
        };
        set(place, boolean(&text(&mut elements)?)?)?;
    }
    elements.finish()?;
    Ok(flags.map(|flag| flag.unwrap_or(false)))
}

/// Reads `OwnershipControls`: the one `ObjectOwnership` in its one rule.
///
/// Errors: `MalformedXML`.
/// Source: S3 API reference, PutBucketOwnershipControls.
pub fn ownership_controls(body: &[u8]) -> S3Result<String> {
    let mut elements = Elements::open(body, "OwnershipControls")?;
    let mut ownership = None;
    while let Some(name) = elements.child()? {
        if name != "Rule" {
            elements.skip()?;
            continue;
        }
        while let Some(name) = elements.child()? {
            match name {
                "ObjectOwnership" => {
                    let text = text(&mut elements)?.trim().to_owned();
                    set(&mut ownership, text)?;
                }
                _ => elements.skip()?,
            }
        }
    }
    elements.finish()?;
    ownership.ok_or_else(malformed)
}

fn part(elements: &mut Elements<'_>) -> S3Result<CompletedPart> {
    let mut number = None;
    let mut etag = None;
    let mut checksums: Vec<(Algorithm, String)> = Vec::new();
    while let Some(name) = elements.child()? {
        match name {
            "PartNumber" => set(&mut number, decimal(&text(elements)?)?)?,
            "ETag" => set(&mut etag, text(elements)?.into_owned())?,
            name => match Algorithm::from_element(name) {
                Some(algorithm) if checksums.iter().any(|(present, _)| *present == algorithm) => {
                    return Err(malformed());
                }
                Some(algorithm) => checksums.push((algorithm, text(elements)?.trim().to_owned())),
                None => elements.skip()?,
            },
        }
    }
    let number = number
        .and_then(|number| u32::try_from(number).ok())
        .ok_or_else(malformed)?;
    Ok(CompletedPart {
        number,
        etag: etag.ok_or_else(malformed)?,
        checksums,
    })
}

fn object(elements: &mut Elements<'_>) -> S3Result<ObjectIdentifier> {
    let mut key = None;
    let mut object = ObjectIdentifier::default();
    while let Some(name) = elements.child()? {
        match name {
            "Key" => set(&mut key, elements.text(KEY_BYTES_MAX)?)?,
            "VersionId" => set(&mut object.version_id, text(elements)?.into_owned())?,
            "ETag" => set(&mut object.etag, text(elements)?.into_owned())?,
            "Size" => set(&mut object.size, decimal(&text(elements)?)?)?,
            "LastModifiedTime" => set(&mut object.last_modified, text(elements)?.into_owned())?,
            _ => elements.skip()?,
        }
    }
    object.key = key
        .map(Cow::into_owned)
        .filter(|key| !key.is_empty())
        .ok_or_else(malformed)?;
    Ok(object)
}

/// A text that is not a key.
fn text<'a>(elements: &mut Elements<'a>) -> S3Result<Cow<'a, str>> {
    let text = elements.text(XML_TEXT_BYTES_MAX)?;
    match text.len() <= XML_TEXT_BYTES_MAX {
        true => Ok(text),
        false => Err(malformed()),
    }
}

/// Fills a place that may be filled once.
fn set<T>(place: &mut Option<T>, value: T) -> S3Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(malformed()),
    }
}

fn boolean(text: &str) -> S3Result<bool> {
    match text.trim() {
        text if text.eq_ignore_ascii_case("true") => Ok(true),
        text if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(malformed()),
    }
}

fn decimal(text: &str) -> S3Result<u64> {
    let text = text.trim();
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed());
    }
    text.parse().map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::error::ErrorCode;

    fn completed(number: u32, etag: &str) -> CompletedPart {
        CompletedPart {
            number,
            etag: etag.into(),
            checksums: Vec::new(),
        }
    }

    #[test]
    fn completion_lists_parts_in_the_order_sent() {
        let body = r#"<?xml version="1.0" encoding="UTF-8"?>
            <CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
              <Part><ETag>"a54357aff0632cce46d942af68356b38"</ETag><PartNumber>2</PartNumber></Part>
              <Part><PartNumber> 1 </PartNumber><ETag>&quot;b&quot;</ETag><Unknown><x/></Unknown></Part>
              <Part><PartNumber>3</PartNumber><ETag>c</ETag><ChecksumCRC32>y/Q5Jg==</ChecksumCRC32>
                <ChecksumXXHASH128> q </ChecksumXXHASH128></Part>
            </CompleteMultipartUpload>"#;
        let mut third = completed(3, "c");
        third.checksums = vec![
            (Algorithm::Crc32, "y/Q5Jg==".into()),
            (Algorithm::Xxh128, "q".into()),
        ];
        let expected = [
            completed(2, "\"a54357aff0632cce46d942af68356b38\""),
            completed(1, "\"b\""),
            third,
        ];
        assert_eq!(complete_multipart_upload(body.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn completion_that_lacks_or_repeats_something_is_malformed() {
        let table = [
            "",
            "<CompleteMultipartUpload/>",
            "<CompleteMultipartUpload><Part/></CompleteMultipartUpload>",
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber></Part></CompleteMultipartUpload>",
            "<CompleteMultipartUpload><Part><ETag>x</ETag></Part></CompleteMultipartUpload>",
            "<Delete><Part><ETag>x</ETag><PartNumber>1</PartNumber></Part></Delete>",
        ];
        for body in table {
            assert_eq!(
                complete_multipart_upload(body.as_bytes()).unwrap_err().code,
                ErrorCode::MalformedXML,
                "{body}"
            );
        }
        for inside in [
            "<ETag>x</ETag><PartNumber>-1</PartNumber>",
            "<ETag>x</ETag><PartNumber>1.5</PartNumber>",
            "<ETag>x</ETag><PartNumber></PartNumber>",
            "<ETag>x</ETag><PartNumber>4294967296</PartNumber>",
            "<ETag>x</ETag><PartNumber>1</PartNumber><PartNumber>1</PartNumber>",
            "<ETag>x</ETag><ETag>x</ETag><PartNumber>1</PartNumber>",
            "<ETag>x<b/></ETag><PartNumber>1</PartNumber>",
            "<ETag>x</ETag><PartNumber>1</PartNumber><ChecksumSHA1/><ChecksumSHA1/>",
        ] {
            let body = format!("<CompleteMultipartUpload><Part>{inside}</Part></CompleteMultipartUpload>");
            assert_eq!(
                complete_multipart_upload(body.as_bytes()).unwrap_err().code,
                ErrorCode::MalformedXML,
                "{body}"
            );
        }
    }

    #[test]
    fn completion_holds_ten_thousand_parts_and_no_more() {
        let body = |parts: u32| {
            let parts: String = (1..=parts)
                .map(|n| format!("<Part><ETag>x</ETag><PartNumber>{n}</PartNumber></Part>"))
                .collect();
            format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>")
        };
        assert_eq!(
            complete_multipart_upload(body(10_000).as_bytes()).unwrap().len(),
            10_000
        );
        assert!(complete_multipart_upload(body(10_001).as_bytes()).is_err());
    }

    #[test]
    fn delete_names_keys_as_they_are() {
        let body = "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>\
            <Object><Key>a&amp;b&#xD;&#x1; /../c</Key></Object>\
            <Object><Key> </Key><VersionId>null</VersionId><ETag>e</ETag><Size>12</Size>\
            <LastModifiedTime>Mon, 12 Oct 2009 17:50:30 GMT</LastModifiedTime></Object></Delete>";
        let expected = Delete {
            quiet: true,
            objects: vec![
                ObjectIdentifier {
                    key: "a&b\r\u{1} /../c".into(),
                    ..ObjectIdentifier::default()
                },
                ObjectIdentifier {
                    key: " ".into(),
                    version_id: Some("null".into()),
                    etag: Some("e".into()),
                    size: Some(12),
                    last_modified: Some("Mon, 12 Oct 2009 17:50:30 GMT".into()),
                },
            ],
        };
        assert_eq!(delete(body.as_bytes()).unwrap(), expected);
        let loud = delete(b"<Delete><Object><Key>k</Key></Object></Delete>").unwrap();
        assert!(!loud.quiet);
    }

    #[test]
    fn delete_has_one_to_a_thousand_keys() {
        let body = |keys: usize| {
            format!(
                "<Delete>{}</Delete>",
                "<Object><Key>k</Key></Object>".repeat(keys)
            )
        };
        assert_eq!(delete(body(1000).as_bytes()).unwrap().objects.len(), 1000);
        assert_eq!(
            delete(body(0).as_bytes()).unwrap_err().code,
            ErrorCode::MalformedXML
        );
        assert_eq!(
            delete(body(1001).as_bytes()).unwrap_err().code,
            ErrorCode::MalformedXML
        );
    }

    #[test]
    fn delete_that_lacks_or_repeats_something_is_malformed() {
        for inside in [
            "<Object></Object>",
            "<Object><Key></Key></Object>",
            "<Object><Key>a</Key><Key>b</Key></Object>",
            "<Object><Key>a</Key><Size>-1</Size></Object>",
            "<Quiet>maybe</Quiet><Object><Key>a</Key></Object>",
            "<Quiet>true</Quiet><Quiet>true</Quiet><Object><Key>a</Key></Object>",
            "text<Object><Key>a</Key></Object>",
        ] {
            let body = format!("<Delete>{inside}</Delete>");
            assert_eq!(
                delete(body.as_bytes()).unwrap_err().code,
                ErrorCode::MalformedXML,
                "{body}"
            );
        }
    }

    #[test]
    fn a_key_that_is_too_long_is_cut_and_stays_too_long() {
        for (unit, kept) in [
            ("k", 1025),
            ("&quot;", 1025),
            ("\u{1F600}", 1028),
            ("<![CDATA[kkk]]>", 1025),
        ] {
            let key = unit.repeat(5000);
            let body = format!("<Delete><Object><Key>{key}</Key></Object></Delete>");
            let objects = delete(body.as_bytes()).unwrap().objects;
            assert_eq!(objects[0].key.len(), kept, "{unit}");
        }
    }

    #[test]
    fn other_texts_that_are_too_long_are_malformed() {
        let long = "1".repeat(XML_TEXT_BYTES_MAX + 1);
        for field in ["VersionId", "ETag", "Size", "LastModifiedTime"] {
            let body = |text: &str| {
                format!("<Delete><Object><Key>k</Key><{field}>{text}</{field}></Object></Delete>")
            };
            assert!(delete(body(&long).as_bytes()).is_err(), "{field}");
            assert_eq!(
                delete(body(&long[1..]).as_bytes()).is_ok(),
                field != "Size",
                "{field}"
            );
        }
        for field in ["ETag", "ChecksumSHA256", "PartNumber"] {
            let others = ["ETag", "PartNumber"].into_iter().filter(|other| *other != field);
            let others: String = others.map(|other| format!("<{other}>1</{other}>")).collect();
            let body = format!(
                "<CompleteMultipartUpload><Part>{others}<{field}>{long}</{field}></Part></CompleteMultipartUpload>"
            );
            assert!(complete_multipart_upload(body.as_bytes()).is_err(), "{field}");
        }
    }

    #[test]
    fn a_long_document_is_read_in_many_turns_and_a_short_one_in_one() {
        let turns = |keys: usize| {
            let body = format!(
                "<Delete>{}</Delete>",
                "<Object><Key>k</Key></Object>".repeat(keys)
            );
            let mut reader = DocumentReader::<DeleteDocument>::open(body.as_bytes()).unwrap();
            let turns = std::iter::from_fn(|| reader.read_on().unwrap().then_some(())).count();
            assert_eq!(reader.finish().unwrap().objects.len(), keys);
            turns
        };
        assert_eq!((turns(1), turns(500), turns(1000)), (0, 0, 1));
    }

    #[test]
    fn bucket_configuration_has_a_location_and_tags() {
        let wrap = |inside: &str| format!("<CreateBucketConfiguration>{inside}</CreateBucketConfiguration>");
        let says = |location: Option<&str>, has_tags| {
            Ok(BucketConfiguration {
                location: location.map(str::to_owned),
                has_tags,
            })
        };
        let table = [
            (String::new(), says(None, false)),
            (wrap(""), says(None, false)),
            (wrap("<LocationConstraint/>"), says(None, false)),
            (
                wrap("<LocationConstraint>eu-west-1</LocationConstraint>"),
                says(Some("eu-west-1"), false),
            ),
            (
                wrap("<Tags> </Tags><x><y/></x><LocationConstraint>x</LocationConstraint>"),
                says(Some("x"), false),
            ),
            (
                wrap("<Tags><Tag><Key>k</Key></Tag><Tag/></Tags><LocationConstraint>x</LocationConstraint>"),
                says(Some("x"), true),
            ),
            ("<x/>".to_owned(), Err(ErrorCode::MalformedXML)),
            (
                wrap("<LocationConstraint><x/></LocationConstraint>"),
                Err(ErrorCode::MalformedXML),
            ),
        ];
        for (body, expected) in table {
            let got = create_bucket_configuration(body.as_bytes()).map_err(|error| error.code);
            assert_eq!(got, expected, "{body}");
        }
    }

    /// The seeds of the fuzz target, each damaged in ten thousand ways: a value or an error, never a panic.
    #[test]
    fn damaged_bodies_are_read_or_refused() {
        let seeds: [&[u8]; 6] = [
            include_bytes!("../../../fuzz/seeds/xml/complete"),
            include_bytes!("../../../fuzz/seeds/xml/delete"),
            include_bytes!("../../../fuzz/seeds/xml/entities"),
            include_bytes!("../../../fuzz/seeds/xml/location"),
            include_bytes!("../../../fuzz/seeds/xml/pi"),
            include_bytes!("../../../fuzz/seeds/xml/prefixes"),
        ];
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |bound: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % bound as u64) as usize
        };
        for seed in seeds {
            for _ in 0..10_000 {
                let mut body = seed.to_vec();
                for _ in 0..=below(4) {
                    let at = below(body.len());
                    match below(4) {
                        0 => body[at] = b"<>/&;!?-[]'\"=# x\0\xff"[below(18)],
                        1 => body.truncate(at.max(1)),
                        2 => drop(body.drain(at..(at + below(20)).min(body.len()))),
                        _ => body
                            .extend_from_within(at..(at + below(40)).min(seed.len().min(body.len())).max(at)),
                    }
                    if body.is_empty() {
                        break;
                    }
                }
                let _ = complete_multipart_upload(&body);
                let _ = delete(&body);
                let _ = create_bucket_configuration(&body);
            }
        }
    }
}
