//! The signatures inside an `aws-chunked` body (Amazon S3 API Reference, "Transferring Payload in Multiple
//! Chunks" and "Including Trailing Headers").
//!
//! Each signature covers the one before it, from the head's own to the trailer's: chunks can be neither
//! changed, dropped, repeated nor moved. Invariant: only a signature that was right becomes the one that the
//! next must cover, and after a wrong one nothing is right any more. It must not see the body: the caller
//! hashes each chunk and the trailer.

use super::AuthError;
use super::canonical::hex;
use super::date::Timestamp;
use ring::hmac;

/// Verifies one body's signatures in the order in which they arrive.
#[derive(Debug)]
pub struct ChunkSigner {
    key: hmac::Key,
    /// `timestamp\nscope\n`, the same in every string to sign.
    context: Box<[u8]>,
    /// The last signature that was right, or `None` after one that was wrong.
    previous: Option<[u8; 64]>,
    /// The string to sign, made anew each time in the same memory.
    scratch: Vec<u8>,
}

impl ChunkSigner {
    /// `seed` is the signature of the request's head; `scope` is `day/region/s3/aws4_request`.
    pub(super) fn new(key: hmac::Key, timestamp: &Timestamp, scope: &[u8], seed: [u8; 64]) -> Self {
        let context = [&timestamp.compact, b"\n".as_slice(), scope, b"\n"]
            .concat()
            .into_boxed_slice();
        let scratch = Vec::with_capacity(CHUNK_KIND.len() + context.len() + 3 * 65);
        Self {
            key,
            context,
            previous: Some(seed),
            scratch,
        }
    }

    /// Verifies the next chunk. The chunk of no bytes that ends the body is signed too and must be verified.
    ///
    /// `signature_hex` is the chunk's `chunk-signature`, in lower case as S3 has it.
    pub fn verify_chunk(
        &mut self,
        sha256_of_chunk: &[u8; 32],
        signature_hex: &[u8; 64],
    ) -> Result<(), AuthError> {
        self.verify(CHUNK_KIND, EMPTY_SHA256_LINE, sha256_of_chunk, signature_hex)
    }

    /// Verifies the trailer, after the last chunk.
    ///
    /// `sha256_of_canonical_trailers` is taken over `name:value\n` for each trailing field but
    /// `x-amz-trailer-signature`, in the order sent, names in lower case, values trimmed.
    pub fn verify_trailer(
        &mut self,
        sha256_of_canonical_trailers: &[u8; 32],
        signature_hex: &[u8; 64],
    ) -> Result<(), AuthError> {
        self.verify(TRAILER_KIND, b"", sha256_of_canonical_trailers, signature_hex)
    }

    fn verify(
        &mut self,
        kind: &[u8],
        middle: &[u8],
        sha256: &[u8; 32],
        signature: &[u8; 64],
    ) -> Result<(), AuthError> {
        let previous = self.previous.take().ok_or(AuthError::SignatureDoesNotMatch)?;
        self.scratch.clear();
        for piece in [kind, &self.context, &previous, b"\n", middle, &hex(sha256)] {
            self.scratch.extend_from_slice(piece);
        }
        let expected = decode_signature(signature).ok_or(AuthError::SignatureDoesNotMatch)?;
        hmac::verify(&self.key, &self.scratch, &expected).map_err(|_| AuthError::SignatureDoesNotMatch)?;
        self.previous = Some(*signature);
        Ok(())
    }
}

/// The bytes of a signature. S3 writes hexadecimal in lower case and refuses any other.
pub(super) fn decode_signature(signature: &[u8]) -> Option<[u8; 32]> {
    let bytes = super::canonical::hex_decode::<32>(signature)?;
    (!signature.iter().any(u8::is_ascii_uppercase)).then_some(bytes)
}

const CHUNK_KIND: &[u8] = b"AWS4-HMAC-SHA256-PAYLOAD\n";
const TRAILER_KIND: &[u8] = b"AWS4-HMAC-SHA256-TRAILER\n";
/// SHA-256 of nothing: a chunk has no headers of its own.
const EMPTY_SHA256_LINE: &[u8] = b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n";

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{Payload, SignatureVersion};
    use super::*;

    fn chunked_head() -> Request {
        seed("aws-v4-chunked").1
    }

    fn trailer_head() -> Request {
        seed("aws-v4-chunked-trailer").1
    }

    fn signer(head: &Request) -> (Box<ChunkSigner>, bool) {
        let authenticated = head.authenticate(NOW).unwrap();
        assert_eq!(authenticated.signed.version, SignatureVersion::V4);
        match authenticated.payload {
            Payload::Streaming {
                chunks: Some(signer),
                trailer,
            } => (signer, trailer),
            other => panic!("{other:?}"),
        }
    }

    const CHUNKS: [&[u8; 64]; 3] = [
        b"ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        b"0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        b"b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    ];
    const TRAILER_CHUNKS: [&[u8; 64]; 3] = [
        b"b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
        b"1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
        b"2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
    ];
    const TRAILER: &[u8; 64] = b"d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435";

    fn hashes() -> [[u8; 32]; 3] {
        [sha256(&[b'a'; 65536]), sha256(&[b'a'; 1024]), sha256(b"")]
    }

    #[test]
    fn aws_example_of_signed_chunks() {
        let (mut signer, trailer) = signer(&chunked_head());
        assert!(!trailer);
        for (hash, signature) in hashes().iter().zip(CHUNKS) {
            signer.verify_chunk(hash, signature).unwrap();
        }
    }

    #[test]
    fn aws_example_of_signed_chunks_with_a_trailer() {
        let (mut signer, trailer) = signer(&trailer_head());
        assert!(trailer);
        for (hash, signature) in hashes().iter().zip(TRAILER_CHUNKS) {
            signer.verify_chunk(hash, signature).unwrap();
        }
        signer
            .verify_trailer(&sha256(b"x-amz-checksum-crc32c:sOO8/Q==\n"), TRAILER)
            .unwrap();
    }

    #[test]
    fn a_changed_chunk_or_signature_is_refused_and_nothing_passes_after_it() {
        for bit in 0..256 {
            let (mut signer, _) = signer(&chunked_head());
            let mut hash = hashes()[0];
            hash[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                signer.verify_chunk(&hash, CHUNKS[0]),
                Err(AuthError::SignatureDoesNotMatch)
            );
            assert_eq!(
                signer.verify_chunk(&hashes()[0], CHUNKS[0]),
                Err(AuthError::SignatureDoesNotMatch)
            );
        }
        for bit in 0..512 {
            let (mut signer, _) = signer(&chunked_head());
            let mut signature = *CHUNKS[0];
            signature[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                signer.verify_chunk(&hashes()[0], &signature),
                Err(AuthError::SignatureDoesNotMatch)
            );
        }
    }

    #[test]
    fn chunks_cannot_be_dropped_repeated_or_moved() {
        let hashes = hashes();
        let cases: [&[usize]; 5] = [&[1], &[2], &[0, 2], &[0, 0], &[1, 0]];
        for order in cases {
            let (mut signer, _) = signer(&chunked_head());
            let all = order
                .iter()
                .try_for_each(|&i| signer.verify_chunk(&hashes[i], CHUNKS[i]));
            assert_eq!(all, Err(AuthError::SignatureDoesNotMatch), "{order:?}");
        }
    }

    #[test]
    fn a_trailer_needs_its_own_signature_after_the_last_chunk() {
        let hash = sha256(b"x-amz-checksum-crc32c:sOO8/Q==\n");
        let after_all = || {
            let (mut signer, _) = signer(&trailer_head());
            for (hash, signature) in hashes().iter().zip(TRAILER_CHUNKS) {
                signer.verify_chunk(hash, signature).unwrap();
            }
            signer
        };
        let wrong = sha256(b"x-amz-checksum-crc32c:AAAAAA==\n");
        assert_eq!(
            after_all().verify_trailer(&wrong, TRAILER),
            Err(AuthError::SignatureDoesNotMatch)
        );
        assert_eq!(
            after_all().verify_trailer(&hash, TRAILER_CHUNKS[2]),
            Err(AuthError::SignatureDoesNotMatch)
        );
        assert_eq!(
            after_all().verify_chunk(&hash, TRAILER),
            Err(AuthError::SignatureDoesNotMatch)
        );
        let (mut early, _) = signer(&trailer_head());
        assert_eq!(
            early.verify_trailer(&hash, TRAILER),
            Err(AuthError::SignatureDoesNotMatch)
        );
    }

    #[test]
    fn signatures_in_upper_case_are_refused() {
        let (mut signer, _) = signer(&chunked_head());
        let upper = CHUNKS[0].map(|b| b.to_ascii_uppercase());
        assert_eq!(
            signer.verify_chunk(&hashes()[0], &upper),
            Err(AuthError::SignatureDoesNotMatch)
        );
    }
}
