//! What an object carries besides its bytes: from request headers, to disk, and back into headers.
//!
//! [`Attributes`] is the owned form that a write makes. The engine stores what [`Attributes::encode`] gives
//! and does not look into it. A read opens those bytes as an [`AttributesView`], which checks them once and
//! lends header names and values without allocating.
//!
//! Invariants: no value holds a control character other than a tab, so none can end a header line; user
//! metadata is within S3's 2 KiB as it was sent, and so is what else a write stores (an older object may have
//! more of that); every value is shorter than a request head, so lengths fit
//! the 16 bits that they have on disk.
//!
//! # The encoding, version 1
//! ```text
//! version: u8 = 1
//! items, until the end: tag: u8, length: u16 little-endian, value: length bytes
//!   1  Content-Type                     bytes of the header's value; absent means binary/octet-stream
//!   2  Cache-Control                    "
//!   3  Content-Disposition              "
//!   4  Content-Encoding                 " without aws-chunked
//!   5  Content-Language                 "
//!   6  Expires                          "
//!   7  x-amz-website-redirect-location  "
//!  16  storage class                    u8, see StorageClass; absent means STANDARD
//!  17  checksum                         algorithm: u8, type: u8, parts: u16 little-endian, digest
//!  18  announced checksum of an upload  algorithm: u8, type: u8
//!  32  user metadata                    name length: u16 little-endian, name with x-amz-meta-, value
//! ```
//! Tags ascend. Each occurs at most once, except 32, whose names ascend. An unknown tag or version is an
//! error: whoever adds one raises the version.
//!
//! Source: S3 user guide, "Working with object metadata"; S3 API reference, PutObject.

mod codec;
mod mail_safe;

pub use codec::{AttributesView, DecodeError};

use std::borrow::Cow;

use crate::http::is_token;
use crate::limits::{HEAD_BYTES_MAX, SYSTEM_METADATA_BYTES_MAX, USER_METADATA_BYTES_MAX};
use crate::s3::checksum::headers::UploadChecksum;
use crate::s3::checksum::{Algorithm, Checksum, ChecksumType};
use crate::s3::error::{ErrorCode, S3Error, S3Result};

/// The type of an object whose client did not say.
pub const CONTENT_TYPE_DEFAULT: &str = "binary/octet-stream";
/// What names of user metadata begin with.
pub const USER_PREFIX: &str = "x-amz-meta-";
/// Bytes of a website redirect location.
const REDIRECT_BYTES_MAX: usize = 2048;

/// A header that is stored with an object and returned as it was. The numbers are tags on disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Field {
    /// `Content-Type`.
    ContentType = 1,
    /// `Cache-Control`.
    CacheControl = 2,
    /// `Content-Disposition`.
    ContentDisposition = 3,
    /// `Content-Encoding`, without `aws-chunked`.
    ContentEncoding = 4,
    /// `Content-Language`.
    ContentLanguage = 5,
    /// `Expires`, not parsed.
    Expires = 6,
    /// `x-amz-website-redirect-location`.
    WebsiteRedirectLocation = 7,
}

impl Field {
    /// Every field, in the order of tags.
    pub const ALL: [Field; 7] = [
        Field::ContentType,
        Field::CacheControl,
        Field::ContentDisposition,
        Field::ContentEncoding,
        Field::ContentLanguage,
        Field::Expires,
        Field::WebsiteRedirectLocation,
    ];

    /// The header's name.
    pub const fn header(self) -> &'static str {
        match self {
            Field::ContentType => "Content-Type",
            Field::CacheControl => "Cache-Control",
            Field::ContentDisposition => "Content-Disposition",
            Field::ContentEncoding => "Content-Encoding",
            Field::ContentLanguage => "Content-Language",
            Field::Expires => "Expires",
            Field::WebsiteRedirectLocation => "x-amz-website-redirect-location",
        }
    }

    /// The query parameter that overrides it on a signed GET or HEAD.
    pub const fn override_parameter(self) -> Option<&'static str> {
        match self {
            Field::ContentType => Some("response-content-type"),
            Field::CacheControl => Some("response-cache-control"),
            Field::ContentDisposition => Some("response-content-disposition"),
            Field::ContentEncoding => Some("response-content-encoding"),
            Field::ContentLanguage => Some("response-content-language"),
            Field::Expires => Some("response-expires"),
            Field::WebsiteRedirectLocation => None,
        }
    }

    fn from_header(name: &str) -> Option<Field> {
        Field::ALL
            .into_iter()
            .find(|field| name.eq_ignore_ascii_case(field.header()))
    }

    fn from_tag(tag: u8) -> Option<Field> {
        Field::ALL.into_iter().find(|field| *field as u8 == tag)
    }
}

/// A storage class that clients may ask for. It is echoed and changes nothing. The numbers stand on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum StorageClass {
    /// `STANDARD`; not stored.
    #[default]
    Standard = 0,
    /// `REDUCED_REDUNDANCY`.
    ReducedRedundancy = 1,
    /// `STANDARD_IA`.
    StandardIa = 2,
    /// `ONEZONE_IA`.
    OnezoneIa = 3,
    /// `INTELLIGENT_TIERING`.
    IntelligentTiering = 4,
    /// `GLACIER`.
    Glacier = 5,
    /// `DEEP_ARCHIVE`.
    DeepArchive = 6,
    /// `GLACIER_IR`.
    GlacierIr = 7,
}

impl StorageClass {
    const ALL: [StorageClass; 8] = [
        StorageClass::Standard,
        StorageClass::ReducedRedundancy,
        StorageClass::StandardIa,
        StorageClass::OnezoneIa,
        StorageClass::IntelligentTiering,
        StorageClass::Glacier,
        StorageClass::DeepArchive,
        StorageClass::GlacierIr,
    ];

    /// The value in headers and XML.
    pub const fn as_str(self) -> &'static str {
        match self {
            StorageClass::Standard => "STANDARD",
            StorageClass::ReducedRedundancy => "REDUCED_REDUNDANCY",
            StorageClass::StandardIa => "STANDARD_IA",
            StorageClass::OnezoneIa => "ONEZONE_IA",
            StorageClass::IntelligentTiering => "INTELLIGENT_TIERING",
            StorageClass::Glacier => "GLACIER",
            StorageClass::DeepArchive => "DEEP_ARCHIVE",
            StorageClass::GlacierIr => "GLACIER_IR",
        }
    }

    /// Reads `x-amz-storage-class`.
    ///
    /// Errors: `InvalidStorageClass`.
    pub fn parse(value: &[u8]) -> S3Result<StorageClass> {
        StorageClass::ALL
            .into_iter()
            .find(|class| value == class.as_str().as_bytes())
            .ok_or_else(|| {
                S3Error::new(ErrorCode::InvalidStorageClass)
                    .detail("StorageClassRequested", String::from_utf8_lossy(value))
            })
    }

    fn from_code(code: u8) -> Option<StorageClass> {
        StorageClass::ALL.into_iter().find(|class| *class as u8 == code)
    }
}

/// What is stored with an object, a part, or an upload that will become an object.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Attributes {
    /// By field, ascending; no value is empty.
    fields: Vec<(Field, Box<[u8]>)>,
    /// By name, ascending; names with their prefix, in lower case.
    user: Vec<(Box<str>, Box<[u8]>)>,
    /// The storage class.
    pub storage_class: StorageClass,
    /// The checksum of the object or part.
    pub checksum: Option<Checksum>,
    /// For an upload: what its parts are to be checked with.
    pub upload_checksum: Option<UploadChecksum>,
}

impl Attributes {
    /// Reads what PutObject, CreateMultipartUpload and CopyObject with REPLACE store. Checksums are not
    /// read here, since what is stored is what was computed.
    ///
    /// Errors: `MetadataTooLarge`, `InvalidStorageClass`, `InvalidRedirectLocation`, `InvalidArgument`.
    pub fn from_headers<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> S3Result<Attributes> {
        let mut attributes = Attributes::default();
        let mut user = UserMetadata::default();
        for (name, value) in headers {
            if let Some(field) = Field::from_header(name) {
                attributes.set(field, value)?;
            } else if name.eq_ignore_ascii_case("x-amz-storage-class") {
                attributes.storage_class = StorageClass::parse(value)?;
            } else if let Some(suffix) = strip_user_prefix(name) {
                user.add(suffix, value)?;
            }
        }
        attributes.check_size()?;
        attributes.user = user.finish();
        Ok(attributes)
    }

    /// What is stored with a part: its checksum.
    pub fn of_part(checksum: Option<Checksum>) -> Attributes {
        Attributes {
            checksum,
            ..Attributes::default()
        }
    }

    /// Sets a field; an empty value unsets it.
    ///
    /// Errors: `InvalidArgument` for a control character or a value too long for a head;
    /// `InvalidRedirectLocation`.
    pub fn set(&mut self, field: Field, value: &[u8]) -> S3Result<()> {
        let value = value.trim_ascii();
        check_value(field.header(), value)?;
        let value: Cow<'_, [u8]> = match field {
            Field::ContentEncoding => without_aws_chunked(value),
            Field::WebsiteRedirectLocation => {
                check_redirect(value)?;
                Cow::Borrowed(value)
            }
            Field::ContentType if value == CONTENT_TYPE_DEFAULT.as_bytes() => Cow::Borrowed(b""),
            Field::ContentType
            | Field::CacheControl
            | Field::ContentDisposition
            | Field::ContentLanguage
            | Field::Expires => Cow::Borrowed(value),
        };
        let place = self.fields.binary_search_by_key(&field, |(field, _)| *field);
        match (place, value.is_empty()) {
            (Ok(at), true) => {
                self.fields.remove(at);
            }
            (Ok(at), false) => self.fields[at].1 = value.into(),
            (Err(_), true) => {}
            (Err(at), false) => self.fields.insert(at, (field, value.into())),
        }
        Ok(())
    }

    /// Fields are bounded as S3 counts them: names and values.
    fn check_size(&self) -> S3Result<()> {
        let lengths = self
            .fields
            .iter()
            .map(|(field, value)| field.header().len() + value.len());
        metadata_within(lengths.sum(), SYSTEM_METADATA_BYTES_MAX)
    }

    /// The value of a field that is set.
    pub fn get(&self, field: Field) -> Option<&[u8]> {
        self.fields
            .iter()
            .find(|(present, _)| *present == field)
            .map(|(_, value)| &**value)
    }

    /// User metadata: names with their prefix, values as they are returned.
    pub fn user(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.user.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// What a listing shows of attributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shown {
    pub storage_class: StorageClass,
    /// Of an object's checksum, or of the one that an upload announced.
    pub checksum: Option<(Algorithm, ChecksumType)>,
}

impl Shown {
    /// In eight bytes, so that an entry of a listing has a fixed size; [`Shown::of`] reads them. They are stored nowhere.
    pub fn to_bytes(self) -> [u8; 8] {
        let (algorithm, kind) = match self.checksum {
            Some((algorithm, kind)) => (algorithm as u8, kind as u8),
            None => (0, 0),
        };
        [self.storage_class as u8, algorithm, kind, 0, 0, 0, 0, 0]
    }

    pub fn of(bytes: [u8; 8]) -> Shown {
        let [class, algorithm, kind, ..] = bytes;
        let checksum = Algorithm::from_code(algorithm).zip(ChecksumType::from_code(kind));
        Shown {
            storage_class: StorageClass::from_code(class).unwrap_or_default(),
            checksum,
        }
    }
}

/// The `response-*` parameters of a GET or HEAD. They need a signed request: that is the caller's to check.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Overrides(Vec<(Field, Box<[u8]>)>);

impl Overrides {
    /// No overrides.
    pub const NONE: &'static Overrides = &Overrides(Vec::new());

    /// Reads them from the query: names and decoded values.
    ///
    /// Errors: `InvalidArgument` for a control character, CR and LF above all.
    pub fn from_query<'a>(query: impl Iterator<Item = (&'a str, &'a [u8])>) -> S3Result<Overrides> {
        let mut overrides = Overrides::default();
        for (name, value) in query {
            let field = Field::ALL
                .into_iter()
                .find(|field| field.override_parameter() == Some(name));
            let Some(field) = field else { continue };
            check_value(name, value)?;
            overrides.0.retain(|(present, _)| *present != field);
            overrides.0.push((field, value.into()));
        }
        Ok(overrides)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn get(&self, field: Field) -> Option<&[u8]> {
        self.0
            .iter()
            .find(|(present, _)| *present == field)
            .map(|(_, value)| &**value)
    }
}

/// User metadata in the making.
#[derive(Default)]
struct UserMetadata {
    /// Names and values as they were sent; of a name that is repeated the values are joined.
    entries: Vec<(Box<str>, Vec<u8>)>,
    /// Bytes as S3 counts them: names without prefix, and values.
    size_bytes: usize,
}

impl UserMetadata {
    fn add(&mut self, suffix: &str, value: &[u8]) -> S3Result<()> {
        let name = format!("{USER_PREFIX}{}", suffix.to_ascii_lowercase()).into_boxed_str();
        // A header always has such a name; a parameter of a presigned request need not, and could not be returned.
        if !is_token(suffix) {
            return Err(S3Error::invalid_argument(
                "A metadata name must be that of a header: ASCII letters, digits and !#$%&'*+-.^_`|~",
                &name,
                "",
            ));
        }
        check_value(&name, value)?;
        match self.entries.iter_mut().find(|(present, _)| *present == name) {
            Some((_, joined)) => {
                self.size_bytes += 1 + value.len();
                joined.push(b',');
                joined.extend_from_slice(value);
            }
            None => {
                self.size_bytes += suffix.len() + value.len();
                self.entries.push((name, value.to_vec()));
            }
        }
        metadata_within(self.size_bytes, USER_METADATA_BYTES_MAX)
    }

    fn finish(mut self) -> Vec<(Box<str>, Box<[u8]>)> {
        self.entries.sort();
        let safe = |(name, value): (Box<str>, Vec<u8>)| (name, mail_safe::encode(value).into());
        self.entries.into_iter().map(safe).collect()
    }
}

fn metadata_within(bytes: usize, bytes_max: usize) -> S3Result<()> {
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(S3Error::new(ErrorCode::MetadataTooLarge)
        .detail("Size", bytes.to_string())
        .detail("MaxSizeAllowed", bytes_max.to_string()))
}

fn strip_user_prefix(name: &str) -> Option<&str> {
    let (prefix, suffix) = name.split_at_checked(USER_PREFIX.len())?;
    prefix.eq_ignore_ascii_case(USER_PREFIX).then_some(suffix)
}

/// Refuses what would end a header line, and what is longer than a request head.
fn check_value(name: &str, value: &[u8]) -> S3Result<()> {
    let control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
    if value.len() > HEAD_BYTES_MAX || value.iter().any(control) {
        return Err(S3Error::invalid_argument(
            "Header value cannot be represented",
            name,
            &String::from_utf8_lossy(&value[..value.len().min(256)]),
        ));
    }
    Ok(())
}

fn check_redirect(value: &[u8]) -> S3Result<()> {
    let known = [&b"/"[..], b"http://", b"https://"]
        .iter()
        .any(|prefix| value.starts_with(prefix));
    if value.is_empty() || (known && value.len() <= REDIRECT_BYTES_MAX) {
        return Ok(());
    }
    Err(S3Error::new(ErrorCode::InvalidRedirectLocation))
}

/// `aws-chunked` says how the body came, not what it is. The rest stays as it was sent.
fn without_aws_chunked(value: &[u8]) -> Cow<'_, [u8]> {
    let chunked = |token: &[u8]| token.trim_ascii().eq_ignore_ascii_case(b"aws-chunked");
    let tokens = || value.split(|&byte| byte == b',');
    if !tokens().any(chunked) {
        return Cow::Borrowed(value);
    }
    let kept: Vec<&[u8]> = tokens()
        .filter(|token| !chunked(token))
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
        .collect();
    Cow::Owned(kept.join(&b","[..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers<'a>(list: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        list.iter().map(|(name, value)| (*name, value.as_bytes()))
    }

    fn from(list: &[(&str, &str)]) -> Attributes {
        Attributes::from_headers(headers(list)).unwrap()
    }

    fn code(list: &[(&str, &str)]) -> ErrorCode {
        Attributes::from_headers(headers(list))
            .expect_err("these headers are bad")
            .code
    }

    #[test]
    fn fields_are_kept_as_sent_and_other_headers_are_not() {
        let attributes = from(&[
            ("Host", "x"),
            ("expires", "whenever"),
            ("CONTENT-TYPE", "text/plain; charset=utf-8"),
            ("Cache-Control", ""),
            ("content-disposition", "attachment; filename=\"é.txt\""),
            ("x-amz-server-side-encryption", "AES256"),
            ("Content-Length", "3"),
        ]);
        assert_eq!(
            attributes.get(Field::ContentType),
            Some(&b"text/plain; charset=utf-8"[..])
        );
        assert_eq!(attributes.get(Field::Expires), Some(&b"whenever"[..]));
        assert_eq!(
            attributes.get(Field::ContentDisposition),
            Some("attachment; filename=\"é.txt\"".as_bytes())
        );
        assert_eq!(attributes.get(Field::CacheControl), None);
        assert_eq!(attributes.fields.len(), 3);
        assert_eq!(attributes.user().count(), 0);
    }

    #[test]
    fn the_default_content_type_is_not_stored() {
        assert_eq!(
            from(&[("content-type", CONTENT_TYPE_DEFAULT)]),
            Attributes::default()
        );
        assert_eq!(from(&[("content-type", "")]), Attributes::default());
    }

    #[test]
    fn aws_chunked_is_never_stored() {
        let table = [
            ("aws-chunked", None),
            ("AWS-Chunked", None),
            ("aws-chunked,", None),
            ("aws-chunked, gzip", Some("gzip")),
            ("gzip,aws-chunked", Some("gzip")),
            ("gzip, aws-chunked, br", Some("gzip,br")),
            ("gzip, br", Some("gzip, br")),
            ("aws-chunked2", Some("aws-chunked2")),
        ];
        for (sent, stored) in table {
            let attributes = from(&[("content-encoding", sent)]);
            assert_eq!(
                attributes.get(Field::ContentEncoding),
                stored.map(str::as_bytes),
                "{sent}"
            );
        }
    }

    #[test]
    fn storage_classes_are_those_of_s3() {
        for class in StorageClass::ALL {
            assert_eq!(
                from(&[("x-amz-storage-class", class.as_str())]).storage_class,
                class
            );
            assert_eq!(StorageClass::from_code(class as u8), Some(class));
        }
        for bad in ["", "standard", "COLD", "EXPRESS_ONEZONE", "OUTPOSTS"] {
            assert_eq!(
                code(&[("x-amz-storage-class", bad)]),
                ErrorCode::InvalidStorageClass,
                "{bad}"
            );
        }
    }

    #[test]
    fn redirects_stay_on_http() {
        for good in ["/a", "http://x/", "https://x/"] {
            let attributes = from(&[("x-amz-website-redirect-location", good)]);
            assert_eq!(
                attributes.get(Field::WebsiteRedirectLocation),
                Some(good.as_bytes())
            );
        }
        let long = format!("/{}", "a".repeat(2048));
        for bad in ["a", "ftp://x", "javascript:alert(1)", &long] {
            assert_eq!(
                code(&[("x-amz-website-redirect-location", bad)]),
                ErrorCode::InvalidRedirectLocation
            );
        }
    }

    #[test]
    fn user_metadata_has_lower_case_names_and_joined_values() {
        let attributes = from(&[
            ("X-Amz-Meta-Zeta", "1"),
            ("x-amz-meta-ALPHA", "A b"),
            ("x-amz-meta-zeta", "2"),
            ("x-amz-meta-empty", ""),
        ]);
        let expected: [(&str, &[u8]); 3] = [
            ("x-amz-meta-alpha", b"A b"),
            ("x-amz-meta-empty", b""),
            ("x-amz-meta-zeta", b"1,2"),
        ];
        assert_eq!(attributes.user().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_metadata_name_is_one_that_a_header_can_have() {
        for bad in ["", "a b", "a:b", "é", "a\r\nb", "(a)", "a/b", "a\0"] {
            let name = format!("x-amz-meta-{bad}");
            assert_eq!(code(&[(&name, "1")]), ErrorCode::InvalidArgument, "{bad:?}");
        }
        assert_eq!(from(&[("x-amz-meta-!#$%&'*+-.^_`|~9aZ", "1")]).user().count(), 1);
    }

    #[test]
    fn user_metadata_is_bounded_as_s3_counts_it() {
        let (value, more) = ("v".repeat(2044), "v".repeat(2045));
        assert_eq!(from(&[("x-amz-meta-name", &value)]).user().count(), 1);
        assert_eq!(code(&[("x-amz-meta-name", &more)]), ErrorCode::MetadataTooLarge);
        let name = format!("x-amz-meta-{}", "n".repeat(2049));
        assert_eq!(code(&[(&name, "")]), ErrorCode::MetadataTooLarge);
        assert_eq!(
            code(&[("x-amz-meta-a", &value[..1024]), ("x-amz-meta-b", &value[..1023])]),
            ErrorCode::MetadataTooLarge
        );
        assert_eq!(
            code(&[("x-amz-meta-a", &value[..1024]), ("x-amz-meta-A", &value[..1024])]),
            ErrorCode::MetadataTooLarge
        );
    }

    #[test]
    fn system_metadata_is_bounded_in_all_and_what_was_stored_with_more_is_read() {
        let value = "v".repeat(2048 - "Content-Disposition".len());
        let within = from(&[("content-disposition", &value)]);
        assert_eq!(within.get(Field::ContentDisposition), Some(value.as_bytes()));
        let over = [("content-disposition", value.as_str()), ("expires", "0")];
        assert_eq!(code(&over), ErrorCode::MetadataTooLarge);
        let long = "v".repeat(12_000);
        for field in Field::ALL
            .into_iter()
            .filter(|field| *field != Field::WebsiteRedirectLocation)
        {
            assert_eq!(code(&[(field.header(), &long)]), ErrorCode::MetadataTooLarge);
        }
        let mut older = Attributes::default();
        older.set(Field::ContentDisposition, long.as_bytes()).unwrap();
        assert_eq!(Attributes::decode(&older.encode()), Ok(older));
    }

    #[test]
    fn nothing_that_ends_a_header_line_is_stored() {
        for bad in ["a\r\nSet-Cookie: x", "a\nb", "a\rb", "a\0b", "a\u{7f}"] {
            assert_eq!(
                code(&[("cache-control", bad)]),
                ErrorCode::InvalidArgument,
                "{bad:?}"
            );
            assert_eq!(
                code(&[("x-amz-meta-a", bad)]),
                ErrorCode::InvalidArgument,
                "{bad:?}"
            );
            let query = [("response-content-disposition", bad)];
            assert_eq!(
                Overrides::from_query(headers(&query)).unwrap_err().code,
                ErrorCode::InvalidArgument
            );
        }
        let long = "v".repeat(HEAD_BYTES_MAX + 1);
        assert_eq!(code(&[("cache-control", &long)]), ErrorCode::InvalidArgument);
        assert_eq!(
            from(&[("cache-control", "a\tb")]).get(Field::CacheControl),
            Some(&b"a\tb"[..])
        );
    }

    #[test]
    fn what_a_listing_shows_fits_eight_bytes() {
        let kinds = [ChecksumType::FullObject, ChecksumType::Composite];
        let some = Algorithm::ALL
            .into_iter()
            .flat_map(|algorithm| kinds.map(|kind| Some((algorithm, kind))));
        for checksum in some.chain([None]) {
            for storage_class in StorageClass::ALL {
                let shown = Shown {
                    storage_class,
                    checksum,
                };
                assert_eq!(Shown::of(shown.to_bytes()), shown);
            }
        }
    }

    #[test]
    fn overrides_are_the_six_of_s3_and_the_last_counts() {
        let overrides = Overrides::from_query(headers(&[
            ("response-content-type", "text/html"),
            ("response-expires", "a"),
            ("response-expires", "b"),
            ("response-x", "c"),
            ("versionId", "d"),
        ]))
        .unwrap();
        assert_eq!(overrides.get(Field::ContentType), Some(&b"text/html"[..]));
        assert_eq!(overrides.get(Field::Expires), Some(&b"b"[..]));
        assert_eq!(overrides.0.len(), 2);
        assert!(!overrides.is_empty() && Overrides::NONE.is_empty());
        assert_eq!(
            Field::ALL
                .into_iter()
                .filter_map(Field::override_parameter)
                .count(),
            6
        );
    }
}
