//! The checksums that S3 offers: computing them, writing them, and joining those of parts.
//!
//! A checksum is an [`Algorithm`], a [`ChecksumType`] and a [`Digest`]. Digests are big-endian, the xxHash
//! ones in their canonical order, and travel as base64. The MD5 of an ETag is not one of these: it is
//! kept apart because it has its own way through the lanes.
//!
//! Invariant: a [`Digest`] made here has exactly its algorithm's length, so equality of bytes decides.
//! These are checks against damage, not secrets; comparing them need not take constant time.
//!
//! Source: S3 user guide, "Checking object integrity"; byte orders as minio-go 7.2 `checksum.go` sends them.

mod combine;
pub mod headers;

use std::fmt;

use crate::s3::md5::Md5;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::limits::PARTS_MAX;
use combine::Combiner;

/// Bytes of the longest digest (SHA-512).
pub const DIGEST_BYTES_MAX: usize = 64;
/// Bytes of the longest digest in base64.
pub const BASE64_BYTES_MAX: usize = 88;

/// A checksum algorithm of S3. The numbers stand on disk and never change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Algorithm {
    /// CRC-32 (ISO-HDLC).
    Crc32 = 1,
    /// CRC-32C (iSCSI).
    Crc32C = 2,
    /// CRC-64 of NVMe.
    Crc64Nvme = 3,
    /// SHA-1.
    Sha1 = 4,
    /// SHA-256.
    Sha256 = 5,
    /// SHA-512.
    Sha512 = 6,
    /// MD5, as a checksum beside the ETag.
    Md5 = 7,
    /// XXH64 with seed 0.
    Xxh64 = 8,
    /// XXH3, 64 bits, seed 0.
    Xxh3 = 9,
    /// XXH3, 128 bits, seed 0.
    Xxh128 = 10,
}

/// How a checksum of an object made of parts came to be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum ChecksumType {
    /// Of the bytes of the whole object. Every object of one body has this.
    FullObject = 1,
    /// Of the concatenated digests of its parts.
    Composite = 2,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Algorithm; 10] = [
        Algorithm::Crc32,
        Algorithm::Crc32C,
        Algorithm::Crc64Nvme,
        Algorithm::Sha1,
        Algorithm::Sha256,
        Algorithm::Sha512,
        Algorithm::Md5,
        Algorithm::Xxh64,
        Algorithm::Xxh3,
        Algorithm::Xxh128,
    ];

    /// The value in `x-amz-checksum-algorithm`, `x-amz-sdk-checksum-algorithm` and `ChecksumAlgorithm`.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "CRC32",
            Algorithm::Crc32C => "CRC32C",
            Algorithm::Crc64Nvme => "CRC64NVME",
            Algorithm::Sha1 => "SHA1",
            Algorithm::Sha256 => "SHA256",
            Algorithm::Sha512 => "SHA512",
            Algorithm::Md5 => "MD5",
            Algorithm::Xxh64 => "XXHASH64",
            Algorithm::Xxh3 => "XXHASH3",
            Algorithm::Xxh128 => "XXHASH128",
        }
    }

    /// The header or trailer that carries the digest, in lower case.
    pub const fn header(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "x-amz-checksum-crc32",
            Algorithm::Crc32C => "x-amz-checksum-crc32c",
            Algorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Algorithm::Sha1 => "x-amz-checksum-sha1",
            Algorithm::Sha256 => "x-amz-checksum-sha256",
            Algorithm::Sha512 => "x-amz-checksum-sha512",
            Algorithm::Md5 => "x-amz-checksum-md5",
            Algorithm::Xxh64 => "x-amz-checksum-xxhash64",
            Algorithm::Xxh3 => "x-amz-checksum-xxhash3",
            Algorithm::Xxh128 => "x-amz-checksum-xxhash128",
        }
    }

    /// The XML element that carries the digest.
    pub const fn element(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "ChecksumCRC32",
            Algorithm::Crc32C => "ChecksumCRC32C",
            Algorithm::Crc64Nvme => "ChecksumCRC64NVME",
            Algorithm::Sha1 => "ChecksumSHA1",
            Algorithm::Sha256 => "ChecksumSHA256",
            Algorithm::Sha512 => "ChecksumSHA512",
            Algorithm::Md5 => "ChecksumMD5",
            Algorithm::Xxh64 => "ChecksumXXHASH64",
            Algorithm::Xxh3 => "ChecksumXXHASH3",
            Algorithm::Xxh128 => "ChecksumXXHASH128",
        }
    }

    /// Bytes of a digest.
    pub const fn digest_bytes(self) -> usize {
        match self {
            Algorithm::Crc32 | Algorithm::Crc32C => 4,
            Algorithm::Crc64Nvme | Algorithm::Xxh64 | Algorithm::Xxh3 => 8,
            Algorithm::Md5 | Algorithm::Xxh128 => 16,
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }
    }

    /// The algorithm of a [`Algorithm::name`], in any case.
    pub fn from_name(name: &[u8]) -> Option<Algorithm> {
        Algorithm::ALL
            .into_iter()
            .find(|algorithm| name.eq_ignore_ascii_case(algorithm.name().as_bytes()))
    }

    /// The algorithm of a [`Algorithm::header`], in any case.
    pub fn from_header(name: &str) -> Option<Algorithm> {
        Algorithm::ALL
            .into_iter()
            .find(|algorithm| name.eq_ignore_ascii_case(algorithm.header()))
    }

    /// The algorithm of an [`Algorithm::element`].
    pub fn from_element(name: &str) -> Option<Algorithm> {
        Algorithm::ALL
            .into_iter()
            .find(|algorithm| name == algorithm.element())
    }

    /// The algorithm that stands on disk as `code`.
    pub fn from_code(code: u8) -> Option<Algorithm> {
        Algorithm::ALL
            .into_iter()
            .find(|algorithm| *algorithm as u8 == code)
    }

    /// Whether parts of an upload may be joined in this way.
    ///
    /// Source: S3 user guide, "Checking object integrity", the table of full object and composite types.
    pub const fn allows(self, kind: ChecksumType) -> bool {
        match (self, kind) {
            (Algorithm::Crc32 | Algorithm::Crc32C, _) => true,
            (Algorithm::Crc64Nvme, ChecksumType::FullObject) => true,
            (Algorithm::Crc64Nvme, ChecksumType::Composite) => false,
            (_, ChecksumType::Composite) => true,
            (_, ChecksumType::FullObject) => false,
        }
    }

    /// How parts are joined when the client did not say.
    pub const fn default_type(self) -> ChecksumType {
        match self {
            Algorithm::Crc64Nvme => ChecksumType::FullObject,
            Algorithm::Crc32
            | Algorithm::Crc32C
            | Algorithm::Sha1
            | Algorithm::Sha256
            | Algorithm::Sha512
            | Algorithm::Md5
            | Algorithm::Xxh64
            | Algorithm::Xxh3
            | Algorithm::Xxh128 => ChecksumType::Composite,
        }
    }

    /// The digest of `bytes`.
    pub fn digest(self, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(self);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digest that `base64` spells, if it has this algorithm's length.
    pub fn parse_digest(self, base64: &[u8]) -> Option<Digest> {
        let mut bytes = [0; DIGEST_BYTES_MAX + 3];
        let length = STANDARD.decode_slice(base64, &mut bytes).ok()?;
        if length != self.digest_bytes() {
            return None;
        }
        Digest::new(&bytes[..length])
    }
}

impl ChecksumType {
    /// The value in `x-amz-checksum-type` and `ChecksumType`.
    pub const fn name(self) -> &'static str {
        match self {
            ChecksumType::FullObject => "FULL_OBJECT",
            ChecksumType::Composite => "COMPOSITE",
        }
    }

    /// The type of a [`ChecksumType::name`], in any case.
    pub fn from_name(name: &[u8]) -> Option<ChecksumType> {
        [ChecksumType::FullObject, ChecksumType::Composite]
            .into_iter()
            .find(|kind| name.eq_ignore_ascii_case(kind.name().as_bytes()))
    }

    /// The type that stands on disk as `code`.
    pub fn from_code(code: u8) -> Option<ChecksumType> {
        [ChecksumType::FullObject, ChecksumType::Composite]
            .into_iter()
            .find(|kind| *kind as u8 == code)
    }
}

/// The result of a [`Hasher`]: up to 64 bytes, in the order in which they are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    length: u8,
    bytes: [u8; DIGEST_BYTES_MAX],
}

impl Digest {
    /// A digest of these bytes; `None` if there are more than [`DIGEST_BYTES_MAX`].
    pub fn new(bytes: &[u8]) -> Option<Digest> {
        let mut digest = Digest {
            length: bytes.len().try_into().ok()?,
            bytes: [0; DIGEST_BYTES_MAX],
        };
        digest.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(digest)
    }

    fn of<const N: usize>(bytes: [u8; N]) -> Digest {
        const { assert!(N <= DIGEST_BYTES_MAX) };
        let mut digest = Digest {
            length: N as u8,
            bytes: [0; DIGEST_BYTES_MAX],
        };
        digest.bytes[..N].copy_from_slice(&bytes);
        digest
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// Appends the digest in base64.
    pub fn base64_into(&self, out: &mut Vec<u8>) {
        let mut text = [0; BASE64_BYTES_MAX];
        match STANDARD.encode_slice(self.as_bytes(), &mut text) {
            Ok(length) => out.extend_from_slice(&text[..length]),
            Err(_) => unreachable!("{DIGEST_BYTES_MAX} bytes fit into {BASE64_BYTES_MAX} digits"),
        }
    }

    /// The number that a CRC's bytes spell.
    fn as_number(&self) -> u64 {
        self.as_bytes()
            .iter()
            .fold(0, |number, &byte| number << 8 | u64::from(byte))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The checksum of an object, part or body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checksum {
    /// What computed it.
    pub algorithm: Algorithm,
    /// Over what.
    pub kind: ChecksumType,
    /// Parts that a composite one was made from; 0 for a full one.
    pub parts: u16,
    /// The digest, as long as the algorithm has it.
    pub digest: Digest,
}

impl Checksum {
    /// The checksum of one body.
    pub const fn of_body(algorithm: Algorithm, digest: Digest) -> Checksum {
        Checksum {
            algorithm,
            kind: ChecksumType::FullObject,
            parts: 0,
            digest,
        }
    }

    /// The checksum of an object whose parts, in order, have these digests and lengths in bytes.
    ///
    /// `None` if the algorithm does not allow `kind`, if a digest has another length than the
    /// algorithm's, or if there are no parts or more than an upload may have.
    pub fn of_parts(
        algorithm: Algorithm,
        kind: ChecksumType,
        parts: impl IntoIterator<Item = (Digest, u64)>,
    ) -> Option<Checksum> {
        let mut joiner = Joiner::new(algorithm, kind)?;
        let mut count: u16 = 0;
        for (digest, length_bytes) in parts {
            if count == PARTS_MAX || digest.as_bytes().len() != algorithm.digest_bytes() {
                return None;
            }
            count += 1;
            joiner.add(&digest, length_bytes);
        }
        if count == 0 {
            return None;
        }
        let parts = match kind {
            ChecksumType::FullObject => 0,
            ChecksumType::Composite => count,
        };
        Some(Checksum {
            algorithm,
            kind,
            parts,
            digest: joiner.finish(),
        })
    }

    /// Appends the value of the header or element: base64, and `-N` after a composite one.
    pub fn value_into(&self, out: &mut Vec<u8>) {
        self.digest.base64_into(out);
        if self.kind == ChecksumType::Composite {
            out.push(b'-');
            crate::s3::xml::text::decimal_into(out, u64::from(self.parts));
        }
    }

    /// The value of the header or element.
    pub fn value(&self) -> String {
        let mut out = Vec::with_capacity(BASE64_BYTES_MAX + 6);
        self.value_into(&mut out);
        out.into_iter().map(char::from).collect()
    }
}

/// Joins the digests of parts.
enum Joiner {
    Composite(Hasher),
    FullObject(Algorithm, Combiner),
}

impl Joiner {
    /// `None` if the algorithm does not allow `kind`.
    fn new(algorithm: Algorithm, kind: ChecksumType) -> Option<Joiner> {
        match kind {
            ChecksumType::Composite => algorithm
                .allows(kind)
                .then(|| Joiner::Composite(Hasher::new(algorithm))),
            ChecksumType::FullObject => {
                Combiner::new(algorithm).map(|combiner| Joiner::FullObject(algorithm, combiner))
            }
        }
    }

    fn add(&mut self, digest: &Digest, length_bytes: u64) {
        match self {
            Joiner::Composite(hasher) => hasher.update(digest.as_bytes()),
            Joiner::FullObject(_, combiner) => combiner.append(digest.as_number(), length_bytes),
        }
    }

    fn finish(self) -> Digest {
        match self {
            Joiner::Composite(hasher) => hasher.finish(),
            Joiner::FullObject(Algorithm::Crc64Nvme, combiner) => Digest::of(combiner.finish().to_be_bytes()),
            Joiner::FullObject(_, combiner) => Digest::of((combiner.finish() as u32).to_be_bytes()),
        }
    }
}

/// A digest in the making. Large states are boxed, so that a set of these stays small.
pub struct Hasher(State);

enum State {
    Crc32(crc32fast::Hasher),
    Crc(Algorithm, Box<crc_fast::Digest>),
    Sha(Box<ring::digest::Context>),
    Md5(Box<Md5>),
    Xxh64(Box<xxhash_rust::xxh64::Xxh64>),
    Xxh3(Algorithm, Box<xxhash_rust::xxh3::Xxh3>),
}

impl Hasher {
    /// A hasher that has seen no bytes.
    pub fn new(algorithm: Algorithm) -> Hasher {
        let sha = |kind| State::Sha(Box::new(ring::digest::Context::new(kind)));
        Hasher(match algorithm {
            Algorithm::Crc32 => State::Crc32(crc32fast::Hasher::new()),
            Algorithm::Crc32C => State::Crc(
                algorithm,
                Box::new(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi)),
            ),
            Algorithm::Crc64Nvme => State::Crc(
                algorithm,
                Box::new(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme)),
            ),
            Algorithm::Sha1 => sha(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY),
            Algorithm::Sha256 => sha(&ring::digest::SHA256),
            Algorithm::Sha512 => sha(&ring::digest::SHA512),
            Algorithm::Md5 => State::Md5(Box::default()),
            Algorithm::Xxh64 => State::Xxh64(Box::new(xxhash_rust::xxh64::Xxh64::new(0))),
            Algorithm::Xxh3 | Algorithm::Xxh128 => {
                State::Xxh3(algorithm, Box::new(xxhash_rust::xxh3::Xxh3::new()))
            }
        })
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Crc32(hasher) => hasher.update(bytes),
            State::Crc(_, hasher) => hasher.update(bytes),
            State::Sha(context) => context.update(bytes),
            State::Md5(hasher) => hasher.update(bytes),
            State::Xxh64(hasher) => hasher.update(bytes),
            State::Xxh3(_, hasher) => hasher.update(bytes),
        }
    }

    /// The digest of all bytes so far.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Crc32(hasher) => Digest::of(hasher.finalize().to_be_bytes()),
            State::Crc(Algorithm::Crc32C, hasher) => Digest::of((hasher.finalize() as u32).to_be_bytes()),
            State::Crc(_, hasher) => Digest::of(hasher.finalize().to_be_bytes()),
            State::Sha(context) => {
                let digest = context.finish();
                Digest::new(digest.as_ref()).expect("no SHA of ours is longer than SHA-512")
            }
            State::Md5(hasher) => Digest::of(hasher.finish()),
            State::Xxh64(hasher) => Digest::of(hasher.digest().to_be_bytes()),
            State::Xxh3(Algorithm::Xxh128, hasher) => Digest::of(hasher.digest128().to_be_bytes()),
            State::Xxh3(_, hasher) => Digest::of(hasher.digest().to_be_bytes()),
        }
    }
}

/// The hashers that one body needs: usually none or one, at most one for each algorithm.
#[derive(Default)]
pub struct Digests(Vec<(Algorithm, Hasher)>);

impl Digests {
    /// No hashers; does not allocate.
    pub const fn new() -> Digests {
        Digests(Vec::new())
    }

    /// Asks for a digest by `algorithm`. Asking twice is asking once. Call before the first byte.
    pub fn add(&mut self, algorithm: Algorithm) {
        if !self.0.iter().any(|(present, _)| *present == algorithm) {
            self.0.push((algorithm, Hasher::new(algorithm)));
        }
    }

    /// Whether nothing was asked for, so that bytes need not be shown.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the next bytes to all of them.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.iter_mut().for_each(|(_, hasher)| hasher.update(bytes));
    }

    /// The checksums of the body, in the order in which they were asked for.
    pub fn finish(self) -> Vec<Checksum> {
        self.0
            .into_iter()
            .map(|(algorithm, hasher)| Checksum::of_body(algorithm, hasher.finish()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(digest: Digest) -> String {
        format!("{digest:?}")
    }

    #[test]
    fn digests_are_those_of_the_published_check_values() {
        // CRCs: the catalogue's check of "123456789". SHA, MD5: RFC 1321, FIPS 180. xxHash: its own tool, xxhsum.
        let table = [
            (Algorithm::Crc32, "123456789", "cbf43926"),
            (Algorithm::Crc32C, "123456789", "e3069283"),
            (Algorithm::Crc64Nvme, "123456789", "ae8b14860a799888"),
            (Algorithm::Crc32, "", "00000000"),
            (Algorithm::Crc64Nvme, "", "0000000000000000"),
            (Algorithm::Sha1, "abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                Algorithm::Sha256,
                "abc",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (
                Algorithm::Sha512,
                "abc",
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                 2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
            (Algorithm::Md5, "abc", "900150983cd24fb0d6963f7d28e17f72"),
            (Algorithm::Xxh64, "", "ef46db3751d8e999"),
            (Algorithm::Xxh64, "abc", "44bc2cf5ad770999"),
            (Algorithm::Xxh3, "", "2d06800538d394c2"),
            (Algorithm::Xxh3, "abc", "78af5f94892f3950"),
            (Algorithm::Xxh128, "", "99aa06d3014798d86001c324468d497f"),
            (Algorithm::Xxh128, "abc", "06b05ab6733a618578af5f94892f3950"),
        ];
        for (algorithm, text, expected) in table {
            assert_eq!(
                hex(algorithm.digest(text.as_bytes())),
                expected,
                "{} of {text:?}",
                algorithm.name()
            );
        }
    }

    #[test]
    fn names_and_codes_lead_back() {
        for algorithm in Algorithm::ALL {
            assert_eq!(
                Algorithm::from_name(algorithm.name().to_lowercase().as_bytes()),
                Some(algorithm)
            );
            assert_eq!(
                Algorithm::from_header(&algorithm.header().to_uppercase()),
                Some(algorithm)
            );
            assert_eq!(Algorithm::from_element(algorithm.element()), Some(algorithm));
            assert_eq!(Algorithm::from_code(algorithm as u8), Some(algorithm));
            assert_eq!(algorithm.digest(b"x").as_bytes().len(), algorithm.digest_bytes());
            assert!(algorithm.allows(algorithm.default_type()));
        }
        assert_eq!(Algorithm::from_name(b"CRC64"), None);
        assert_eq!(Algorithm::from_header("x-amz-checksum-type"), None);
        assert_eq!(Algorithm::from_code(0), None);
        assert_eq!(Algorithm::from_code(11), None);
        for kind in [ChecksumType::FullObject, ChecksumType::Composite] {
            assert_eq!(ChecksumType::from_name(kind.name().as_bytes()), Some(kind));
            assert_eq!(ChecksumType::from_code(kind as u8), Some(kind));
        }
    }

    #[test]
    fn pieces_give_the_digest_of_the_whole() {
        let body: Vec<u8> = (0..100_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
        for algorithm in Algorithm::ALL {
            let mut hasher = Hasher::new(algorithm);
            for piece in body.chunks(977) {
                hasher.update(piece);
            }
            assert_eq!(hasher.finish(), algorithm.digest(&body), "{}", algorithm.name());
        }
    }

    #[test]
    fn base64_is_exact_in_length_and_padding() {
        for algorithm in Algorithm::ALL {
            let digest = algorithm.digest(b"body");
            let mut text = Vec::new();
            digest.base64_into(&mut text);
            assert_eq!(algorithm.parse_digest(&text), Some(digest));
            for bad in [
                &text[..text.len() - 1],
                &[&text[..], b"="].concat(),
                &[&text[..], b"AAAA"].concat(),
                b"",
                b"!",
            ] {
                assert_eq!(algorithm.parse_digest(bad), None, "{}", algorithm.name());
            }
        }
        assert_eq!(
            Algorithm::Crc32.parse_digest(b"y/Q5Jg==").map(hex).as_deref(),
            Some("cbf43926")
        );
        assert_eq!(
            Algorithm::Crc32.parse_digest(b"y/Q5Jh=="),
            None,
            "bits beyond the digest are not zero"
        );
        assert_eq!(Algorithm::Crc32.parse_digest(&[b'A'; 100_000]), None);
    }

    #[test]
    fn parts_join_to_the_crc_of_the_object() {
        let body: Vec<u8> = (0..1_000_003u32).map(|i| (i * 31 + i / 97) as u8).collect();
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32C, Algorithm::Crc64Nvme] {
            for part_bytes in [1_000_003, 500_000, 65_536, 99_999] {
                let parts = body
                    .chunks(part_bytes)
                    .map(|part| (algorithm.digest(part), part.len() as u64));
                let joined = Checksum::of_parts(algorithm, ChecksumType::FullObject, parts).unwrap();
                assert_eq!(
                    joined,
                    Checksum::of_body(algorithm, algorithm.digest(&body)),
                    "{}",
                    algorithm.name()
                );
            }
            let with_empty_last = [(algorithm.digest(b"abc"), 3), (algorithm.digest(b""), 0)];
            let joined = Checksum::of_parts(algorithm, ChecksumType::FullObject, with_empty_last).unwrap();
            assert_eq!(joined.digest, algorithm.digest(b"abc"));
        }
    }

    #[test]
    fn composite_is_the_digest_of_digests_and_says_how_many() {
        for algorithm in Algorithm::ALL
            .into_iter()
            .filter(|a| a.allows(ChecksumType::Composite))
        {
            let digests = [algorithm.digest(b"one"), algorithm.digest(b"two")];
            let joined =
                Checksum::of_parts(algorithm, ChecksumType::Composite, digests.map(|d| (d, 3))).unwrap();
            let bytes: Vec<u8> = digests
                .iter()
                .flat_map(|digest| digest.as_bytes().to_vec())
                .collect();
            assert_eq!(joined.digest, algorithm.digest(&bytes));
            assert_eq!(joined.parts, 2);
            assert!(joined.value().ends_with("-2"), "{}", joined.value());
        }
        assert_eq!(
            Checksum::of_body(Algorithm::Crc32, Algorithm::Crc32.digest(b"123456789")).value(),
            "y/Q5Jg=="
        );
    }

    #[test]
    fn parts_that_cannot_be_joined_are_refused() {
        let digest = Algorithm::Sha256.digest(b"x");
        let refused = [
            Checksum::of_parts(Algorithm::Sha256, ChecksumType::FullObject, [(digest, 1)]),
            Checksum::of_parts(
                Algorithm::Crc64Nvme,
                ChecksumType::Composite,
                [(Algorithm::Crc64Nvme.digest(b""), 0)],
            ),
            Checksum::of_parts(Algorithm::Sha1, ChecksumType::Composite, [(digest, 1)]),
            Checksum::of_parts(Algorithm::Sha256, ChecksumType::Composite, []),
            Checksum::of_parts(
                Algorithm::Sha256,
                ChecksumType::Composite,
                vec![(digest, 1); 10_001],
            ),
        ];
        assert_eq!(refused, [None; 5]);
    }

    #[test]
    fn types_are_those_that_s3_allows() {
        for algorithm in Algorithm::ALL {
            let crc = matches!(
                algorithm,
                Algorithm::Crc32 | Algorithm::Crc32C | Algorithm::Crc64Nvme
            );
            assert_eq!(algorithm.allows(ChecksumType::FullObject), crc);
            assert_eq!(
                algorithm.allows(ChecksumType::Composite),
                algorithm != Algorithm::Crc64Nvme
            );
        }
    }

    #[test]
    fn a_set_hashes_once_for_each_algorithm() {
        let mut digests = Digests::new();
        assert!(digests.is_empty());
        digests.add(Algorithm::Crc32);
        digests.add(Algorithm::Sha256);
        digests.add(Algorithm::Crc32);
        digests.update(b"1234");
        digests.update(b"56789");
        let checksums = digests.finish();
        let expected =
            [Algorithm::Crc32, Algorithm::Sha256].map(|a| Checksum::of_body(a, a.digest(b"123456789")));
        assert_eq!(checksums, expected);
    }
}
