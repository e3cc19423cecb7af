//! [`Attributes`] as bytes, and those bytes as headers. The layout is in the parent's header.
//!
//! Invariant: an [`AttributesView`] exists only over bytes that were walked from end to end, so what it
//! lends later cannot fail. Bytes that are damaged are a [`DecodeError`], never a panic.

use std::fmt;

use super::{Attributes, CONTENT_TYPE_DEFAULT, Field, Overrides, StorageClass, USER_PREFIX};
use crate::limits::{HEAD_BYTES_MAX, USER_METADATA_BYTES_MAX};
use crate::s3::checksum::headers::UploadChecksum;
use crate::s3::checksum::{Algorithm, Checksum, ChecksumType, Digest};

const VERSION: u8 = 1;
const TAG_STORAGE_CLASS: u8 = 16;
const TAG_CHECKSUM: u8 = 17;
const TAG_UPLOAD_CHECKSUM: u8 = 18;
const TAG_USER: u8 = 32;

/// Tag and length.
const ITEM_HEAD_BYTES: usize = 3;
/// Algorithm, type and parts before a checksum's digest.
const CHECKSUM_HEAD_BYTES: usize = 4;

// An encoded word is at most 8/3 of what it encodes, and 12 bytes around it; its name comes before it.
const _: () = assert!(2 + USER_PREFIX.len() + USER_METADATA_BYTES_MAX * 3 + 12 <= u16::MAX as usize);
const _: () = assert!(HEAD_BYTES_MAX <= u16::MAX as usize);

impl Attributes {
    /// The bytes that stand for this; [`AttributesView::parse`] reads them.
    pub fn encode(&self) -> Box<[u8]> {
        let values = self
            .fields
            .iter()
            .map(|(_, value)| ITEM_HEAD_BYTES + value.len())
            .sum::<usize>();
        let user = self
            .user
            .iter()
            .map(|(name, value)| ITEM_HEAD_BYTES + 2 + name.len() + value.len())
            .sum::<usize>();
        let mut out = Vec::with_capacity(1 + values + user + 80);
        out.push(VERSION);
        for (field, value) in &self.fields {
            item(&mut out, *field as u8, &[value]);
        }
        if self.storage_class != StorageClass::Standard {
            item(&mut out, TAG_STORAGE_CLASS, &[&[self.storage_class as u8]]);
        }
        if let Some(checksum) = &self.checksum {
            let [low, high] = checksum.parts.to_le_bytes();
            let head = [checksum.algorithm as u8, checksum.kind as u8, low, high];
            item(&mut out, TAG_CHECKSUM, &[&head, checksum.digest.as_bytes()]);
        }
        if let Some(UploadChecksum { algorithm, kind }) = self.upload_checksum {
            item(&mut out, TAG_UPLOAD_CHECKSUM, &[&[algorithm as u8, kind as u8]]);
        }
        for (name, value) in &self.user {
            item(&mut out, TAG_USER, &[&length(name.len()), name.as_bytes(), value]);
        }
        out.into_boxed_slice()
    }

    /// The owned form of what [`Attributes::encode`] gave.
    pub fn decode(bytes: &[u8]) -> Result<Attributes, DecodeError> {
        let view = AttributesView::parse(bytes)?;
        let mut attributes = Attributes {
            storage_class: view.storage_class,
            checksum: view.checksum,
            upload_checksum: view.upload_checksum,
            ..Attributes::default()
        };
        for item in view.items() {
            match item {
                Item::Field(field, value) => attributes.fields.push((field, value.into())),
                Item::User(name, value) => attributes.user.push((name.into(), value.into())),
                Item::StorageClass(_) | Item::Checksum(_) | Item::UploadChecksum(_) => {}
            }
        }
        Ok(attributes)
    }
}

/// Attributes as they are stored, checked and lent.
#[derive(Clone, Copy, Debug)]
pub struct AttributesView<'a> {
    items: &'a [u8],
    content_type: Option<&'a [u8]>,
    /// The storage class.
    pub storage_class: StorageClass,
    /// The checksum of the object or part.
    pub checksum: Option<Checksum>,
    /// For an upload: what its parts are to be checked with.
    pub upload_checksum: Option<UploadChecksum>,
}

impl<'a> AttributesView<'a> {
    /// Checks `bytes` from end to end. Does not allocate.
    pub fn parse(bytes: &'a [u8]) -> Result<AttributesView<'a>, DecodeError> {
        let items = match bytes {
            [VERSION, items @ ..] => items,
            [version, ..] => return Err(DecodeError::Version(*version)),
            [] => return Err(DecodeError::Truncated),
        };
        let mut view = AttributesView {
            items,
            content_type: None,
            storage_class: StorageClass::Standard,
            checksum: None,
            upload_checksum: None,
        };
        let mut rest = items;
        let mut before = (0, "");
        while !rest.is_empty() {
            let tag = rest[0];
            let (item, after) = split_item(rest)?;
            let mut here = (tag, "");
            match item {
                Item::Field(Field::ContentType, value) => view.content_type = Some(value),
                Item::Field(..) => {}
                Item::StorageClass(class) => view.storage_class = class,
                Item::Checksum(checksum) => view.checksum = Some(checksum),
                Item::UploadChecksum(checksum) => view.upload_checksum = Some(checksum),
                Item::User(name, _) => here.1 = name,
            }
            if here <= before {
                return Err(DecodeError::Order(tag));
            }
            before = here;
            rest = after;
        }
        Ok(view)
    }

    /// `Content-Type`, the default if none was stored.
    pub fn content_type(&self) -> &'a [u8] {
        self.content_type.unwrap_or(CONTENT_TYPE_DEFAULT.as_bytes())
    }

    /// The headers of a GET or HEAD, in order: `Content-Type` always, what `overrides` says in place of what
    /// is stored, the storage class unless it is STANDARD, user metadata. Checksums are not among them: see
    /// [`AttributesView::checksum`].
    pub fn headers<'s>(&self, overrides: &'s Overrides) -> impl Iterator<Item = (&'s str, &'s [u8])>
    where
        'a: 's,
    {
        let content_type = overrides.get(Field::ContentType).unwrap_or(self.content_type());
        let first = (Field::ContentType.header(), content_type);
        let overridden = overrides
            .0
            .iter()
            .filter(|(field, _)| *field != Field::ContentType)
            .map(|(field, value)| (field.header(), &**value));
        let stored = self.items().filter_map(move |item| match item {
            Item::Field(Field::ContentType, _) => None,
            Item::Field(field, _) if overrides.get(field).is_some() => None,
            Item::Field(field, value) => Some((field.header(), value)),
            Item::StorageClass(class) => Some(("x-amz-storage-class", class.as_str().as_bytes())),
            Item::User(name, value) => Some((name, value)),
            Item::Checksum(_) | Item::UploadChecksum(_) => None,
        });
        std::iter::once(first).chain(overridden).chain(stored)
    }

    fn items(&self) -> Items<'a> {
        Items(self.items)
    }
}

/// Why bytes are no attributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// They are of another version.
    Version(u8),
    /// They end within an item.
    Truncated,
    /// An item with this tag comes after one that it should come before, or again.
    Order(u8),
    /// There is no such tag, or its value is not one that it can have.
    Item(u8),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Version(version) => write!(f, "attributes of unknown version {version}"),
            DecodeError::Truncated => f.write_str("attributes end within an item"),
            DecodeError::Order(tag) => write!(f, "attribute {tag} is out of order"),
            DecodeError::Item(tag) => write!(f, "attribute {tag} is unknown or damaged"),
        }
    }
}

impl std::error::Error for DecodeError {}

enum Item<'a> {
    Field(Field, &'a [u8]),
    StorageClass(StorageClass),
    Checksum(Checksum),
    UploadChecksum(UploadChecksum),
    User(&'a str, &'a [u8]),
}

/// Items of bytes that were checked.
struct Items<'a>(&'a [u8]);

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let (item, rest) = split_item(self.0).ok()?;
        self.0 = rest;
        Some(item)
    }
}

fn split_item(bytes: &[u8]) -> Result<(Item<'_>, &[u8]), DecodeError> {
    let [tag, low, high, rest @ ..] = bytes else {
        return Err(DecodeError::Truncated);
    };
    let length = usize::from(u16::from_le_bytes([*low, *high]));
    let (value, rest) = rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
    let damaged = DecodeError::Item(*tag);
    let item = match *tag {
        TAG_STORAGE_CLASS => match value {
            [code] => Item::StorageClass(StorageClass::from_code(*code).ok_or(damaged)?),
            _ => return Err(damaged),
        },
        TAG_CHECKSUM => Item::Checksum(checksum(value).ok_or(damaged)?),
        TAG_UPLOAD_CHECKSUM => match value {
            [algorithm, kind] => Item::UploadChecksum(UploadChecksum {
                algorithm: Algorithm::from_code(*algorithm).ok_or(damaged)?,
                kind: ChecksumType::from_code(*kind).ok_or(damaged)?,
            }),
            _ => return Err(damaged),
        },
        TAG_USER => {
            let (name, value) = user(value).ok_or(damaged)?;
            Item::User(name, value)
        }
        tag => Item::Field(Field::from_tag(tag).ok_or(damaged)?, value),
    };
    Ok((item, rest))
}

fn checksum(value: &[u8]) -> Option<Checksum> {
    let (head, digest) = value.split_at_checked(CHECKSUM_HEAD_BYTES)?;
    let algorithm = Algorithm::from_code(head[0])?;
    if digest.len() != algorithm.digest_bytes() {
        return None;
    }
    Some(Checksum {
        algorithm,
        kind: ChecksumType::from_code(head[1])?,
        parts: u16::from_le_bytes([head[2], head[3]]),
        digest: Digest::new(digest)?,
    })
}

fn user(value: &[u8]) -> Option<(&str, &[u8])> {
    let [low, high, rest @ ..] = value else {
        return None;
    };
    let (name, value) = rest.split_at_checked(usize::from(u16::from_le_bytes([*low, *high])))?;
    let name = std::str::from_utf8(name).ok()?;
    name.starts_with(USER_PREFIX).then_some((name, value))
}

fn item(out: &mut Vec<u8>, tag: u8, value: &[&[u8]]) {
    out.push(tag);
    out.extend_from_slice(&length(value.iter().map(|part| part.len()).sum()));
    value.iter().for_each(|part| out.extend_from_slice(part));
}

/// A length on disk. Everything that [`Attributes`] lets in is shorter than a head, which fits.
fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes)
        .expect("Attributes bounds what it holds")
        .to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of everything, in the order of the tags.
    fn full() -> Attributes {
        let headers: [(&str, &[u8]); 11] = [
            ("x-amz-meta-b", b"2"),
            ("x-amz-meta-a", b"\xe9"),
            ("x-amz-storage-class", b"GLACIER_IR"),
            ("x-amz-website-redirect-location", b"/r"),
            ("expires", b"e"),
            ("content-language", b"l"),
            ("content-encoding", b"gzip"),
            ("content-disposition", b"d"),
            ("cache-control", b"c"),
            ("content-type", b"t/p"),
            ("x-amz-meta-empty", b""),
        ];
        let mut attributes = Attributes::from_headers(headers.into_iter()).unwrap();
        let digest = Algorithm::Crc32.digest(b"123456789");
        attributes.checksum = Some(Checksum {
            algorithm: Algorithm::Crc32,
            kind: ChecksumType::Composite,
            parts: 300,
            digest,
        });
        attributes.upload_checksum = Some(UploadChecksum {
            algorithm: Algorithm::Sha256,
            kind: ChecksumType::Composite,
        });
        attributes
    }

    const FULL: &[u8] = b"\x01\
        \x01\x03\x00t/p\
        \x02\x01\x00c\
        \x03\x01\x00d\
        \x04\x04\x00gzip\
        \x05\x01\x00l\
        \x06\x01\x00e\
        \x07\x02\x00/r\
        \x10\x01\x00\x07\
        \x11\x08\x00\x01\x02\x2c\x01\xcb\xf4\x39\x26\
        \x12\x02\x00\x05\x02\
        \x20\x1e\x00\x0c\x00x-amz-meta-a=?UTF-8?B?w6k=?=\
        \x20\x0f\x00\x0c\x00x-amz-meta-b2\
        \x20\x12\x00\x10\x00x-amz-meta-empty";

    #[test]
    fn the_bytes_are_those_of_the_document() {
        assert_eq!(
            full().encode().escape_ascii().to_string(),
            FULL.escape_ascii().to_string()
        );
        assert_eq!(Attributes::decode(FULL).unwrap(), full());
    }

    #[test]
    fn an_object_without_attributes_is_one_byte() {
        assert_eq!(&*Attributes::default().encode(), b"\x01");
        let view = AttributesView::parse(b"\x01").unwrap();
        let headers: Vec<_> = view.headers(Overrides::NONE).collect();
        assert_eq!(headers, [("Content-Type", &b"binary/octet-stream"[..])]);
        assert_eq!(
            (view.checksum, view.storage_class),
            (None, StorageClass::Standard)
        );
    }

    #[test]
    fn a_view_lends_the_headers_of_a_get() {
        let view = AttributesView::parse(FULL).unwrap();
        let expected: [(&str, &[u8]); 11] = [
            ("Content-Type", b"t/p"),
            ("Cache-Control", b"c"),
            ("Content-Disposition", b"d"),
            ("Content-Encoding", b"gzip"),
            ("Content-Language", b"l"),
            ("Expires", b"e"),
            ("x-amz-website-redirect-location", b"/r"),
            ("x-amz-storage-class", b"GLACIER_IR"),
            ("x-amz-meta-a", b"=?UTF-8?B?w6k=?="),
            ("x-amz-meta-b", b"2"),
            ("x-amz-meta-empty", b""),
        ];
        assert_eq!(view.headers(Overrides::NONE).collect::<Vec<_>>(), expected);
        assert_eq!(view.checksum, full().checksum);
        assert_eq!(view.upload_checksum, full().upload_checksum);
        assert_eq!(view.content_type(), b"t/p");
    }

    #[test]
    fn overrides_stand_in_place_of_what_is_stored() {
        let query: [(&str, &[u8]); 3] = [
            ("response-content-type", b"text/html"),
            ("response-expires", b"never"),
            ("response-content-language", b""),
        ];
        let overrides = Overrides::from_query(query.into_iter()).unwrap();
        let view = AttributesView::parse(FULL).unwrap();
        let headers: Vec<_> = view.headers(&overrides).collect();
        assert_eq!(headers.len(), 11);
        assert_eq!(
            headers[..3],
            [
                ("Content-Type", &b"text/html"[..]),
                ("Expires", b"never"),
                ("Content-Language", b"")
            ]
        );
        let bare = AttributesView::parse(b"\x01").unwrap();
        assert_eq!(bare.headers(&overrides).count(), 3);
    }

    #[test]
    fn every_checksum_survives() {
        for algorithm in Algorithm::ALL {
            let checksum = Some(Checksum::of_body(algorithm, algorithm.digest(b"x")));
            let attributes = Attributes {
                checksum,
                ..Attributes::default()
            };
            let bytes = attributes.encode();
            assert_eq!(
                bytes.len(),
                1 + ITEM_HEAD_BYTES + CHECKSUM_HEAD_BYTES + algorithm.digest_bytes()
            );
            assert_eq!(Attributes::decode(&bytes).unwrap(), attributes);
        }
    }

    #[test]
    fn the_longest_that_a_head_can_carry_survives() {
        let value = vec![0xe9; USER_METADATA_BYTES_MAX - 1];
        let disposition = vec![b'd'; HEAD_BYTES_MAX];
        let headers: [(&str, &[u8]); 1] = [("x-amz-meta-a", &value)];
        let mut attributes = Attributes::from_headers(headers.into_iter()).unwrap();
        // Older versions stored as much.
        attributes.set(Field::ContentDisposition, &disposition).unwrap();
        assert_eq!(Attributes::decode(&attributes.encode()).unwrap(), attributes);
    }

    #[test]
    fn every_cut_is_noticed_unless_it_falls_between_items() {
        let mut whole = Vec::new();
        for length in 0..FULL.len() {
            match AttributesView::parse(&FULL[..length]) {
                Ok(view) => whole.push(view.items().count()),
                Err(error) => assert_eq!(error, DecodeError::Truncated, "cut at {length}"),
            }
        }
        assert_eq!(whole, (0..13).collect::<Vec<_>>());
    }

    #[test]
    fn damage_is_an_error_or_other_values_but_never_a_panic() {
        for at in 0..FULL.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = FULL.to_vec();
                bytes[at] ^= flip;
                if let Ok(attributes) = Attributes::decode(&bytes) {
                    assert_eq!(
                        &*attributes.encode(),
                        &bytes[..],
                        "one set of attributes has one encoding"
                    );
                }
            }
        }
    }

    #[test]
    fn bytes_that_no_encoder_wrote_are_refused() {
        let table: &[(&[u8], DecodeError)] = &[
            (b"", DecodeError::Truncated),
            (b"\x00", DecodeError::Version(0)),
            (b"\x02", DecodeError::Version(2)),
            (b"\x01\x00\x00\x00", DecodeError::Item(0)),
            (b"\x01\x08\x00\x00", DecodeError::Item(8)),
            (b"\x01\x21\x00\x00", DecodeError::Item(33)),
            (b"\x01\x02\x01\x00c\x01\x01\x00t", DecodeError::Order(1)),
            (b"\x01\x02\x01\x00c\x02\x01\x00c", DecodeError::Order(2)),
            (b"\x01\x10\x01\x00\x08", DecodeError::Item(16)),
            (b"\x01\x10\x00\x00", DecodeError::Item(16)),
            (b"\x01\x11\x04\x00\x01\x01\x00\x00", DecodeError::Item(17)),
            (b"\x01\x11\x08\x00\x0b\x01\x00\x00aaaa", DecodeError::Item(17)),
            (b"\x01\x11\x08\x00\x01\x03\x00\x00aaaa", DecodeError::Item(17)),
            (b"\x01\x12\x02\x00\x01\x00", DecodeError::Item(18)),
            (b"\x01\x20\x00\x00", DecodeError::Item(32)),
            (b"\x01\x20\x03\x00\x02\x00a", DecodeError::Item(32)),
            (b"\x01\x20\x03\x00\x01\x00a", DecodeError::Item(32)),
            (b"\x01\x20\x0e\x00\x0c\x00x-amz-meta-\xff", DecodeError::Item(32)),
            (
                b"\x01\x20\x0e\x00\x0c\x00x-amz-meta-b\x20\x0e\x00\x0c\x00x-amz-meta-a",
                DecodeError::Order(32),
            ),
            (
                b"\x01\x20\x0e\x00\x0c\x00x-amz-meta-a\x20\x0e\x00\x0c\x00x-amz-meta-a",
                DecodeError::Order(32),
            ),
        ];
        for (bytes, expected) in table {
            assert_eq!(
                AttributesView::parse(bytes).unwrap_err(),
                *expected,
                "{}",
                bytes.escape_ascii()
            );
        }
    }
}
