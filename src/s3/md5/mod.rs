//! MD5 for ETags, computed in SIMD lanes across the uploads that one core has in flight.
//!
//! One MD5 stream is a single chain of dependent steps, and no processor runs it faster than about 0.8 GB/s.
//! Independent streams fill the gaps: [`update_many`] hashes several together, in general registers (two),
//! AVX2 or AVX-512, and [`Lanes`] gathers what a core's uploads have ready. It never makes one wait for company.
//!
//! Invariant: what is hashed together comes out as if each were hashed alone. MD5 here names content and
//! catches damage; it is no defence against anyone.
//!
//! Unsafe code is confined to this folder: intrinsics and unaligned loads (`x86`), a barrier for the compiler
//! (`scalar`), and the call of a kernel once its features were detected (`batch`).
//!
//! Source: RFC 1321.
//!
//! GB/s of all streams together, median, 64 KiB a stream and call (`cargo bench --bench md5`; two cores of an
//! AMD EPYC, Zen 4 at 3.5 GHz, shared with other work):
//!
//! | streams | 1 | 2 | 3 | 4 | 6 | 8 | 12 | 16 | 24 | 32 | 48 |
//! | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
//! | `update_many`, AVX-512 | 0.80 | 1.46 | 2.19 | 2.92 | 4.33 | 5.76 | 7.2 | 8.8 | 10.3 | 10.0 | 10.4 |
//! | through `Lanes` | 0.79 | 1.45 | 2.18 | 2.86 | 4.18 | 5.59 | 6.2 | 7.9 | 7.7 | 7.5 | 7.9 |
//! | crate `md-5`, one stream | 0.60 | | | | | | | | | | |
//!
//! From 12 streams on a run swings by a fifth with where the buffers lie: aligned ones share sets of the cache.

mod batch;
mod compress;
mod lanes;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use batch::update_many;
pub use lanes::Lanes;

use batch::Stream;
use compress::{BLOCK_BYTES, INITIAL};

/// An MD5 that is being computed.
#[derive(Clone)]
pub struct Md5 {
    state: [u32; 4],
    length_bytes: u64,
    /// The first `length_bytes % 64` bytes are those that do not fill a block yet.
    tail: [u8; BLOCK_BYTES],
}

impl Md5 {
    /// The hash of nothing so far.
    pub const fn new() -> Md5 {
        Md5 {
            state: INITIAL,
            length_bytes: 0,
            tail: [0; BLOCK_BYTES],
        }
    }

    /// Adds `data`, this stream alone. [`update_many`] and [`Lanes`] are faster for several.
    pub fn update(&mut self, data: &[u8]) {
        if let Some(stream) = self.begin(data) {
            stream.hash_alone();
        }
        self.keep_tail_of(data);
    }

    /// The digest of all bytes that were added.
    pub fn finish(mut self) -> [u8; 16] {
        let length_bits = self.length_bytes.wrapping_mul(8);
        let used = self.tail_bytes();
        // One bit, zeroes, and the length in the last eight bytes of a block.
        let padding_bytes = if used < 56 { 56 - used } else { 120 - used };
        let mut padding = [0; BLOCK_BYTES + 8];
        padding[0] = 0x80;
        padding[padding_bytes..padding_bytes + 8].copy_from_slice(&length_bits.to_le_bytes());
        self.update(&padding[..padding_bytes + 8]);

        let mut digest = [0; 16];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(self.state) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        digest
    }

    fn tail_bytes(&self) -> usize {
        (self.length_bytes % BLOCK_BYTES as u64) as usize
    }

    /// Counts `data` and fills the tail with it. Returns the whole blocks that there are now; once they are
    /// hashed, [`Md5::keep_tail_of`] the same data must follow.
    fn begin<'a>(&'a mut self, data: &'a [u8]) -> Option<Stream<'a>> {
        let used = self.tail_bytes();
        self.length_bytes = self.length_bytes.wrapping_add(data.len() as u64);
        if used + data.len() < BLOCK_BYTES {
            self.tail[used..used + data.len()].copy_from_slice(data);
            return None;
        }
        let (to_tail, data) = data.split_at((BLOCK_BYTES - used) % BLOCK_BYTES);
        self.tail[used..used + to_tail.len()].copy_from_slice(to_tail);
        let tail = if to_tail.is_empty() { &[] } else { &self.tail[..] };
        let whole = data.len() - data.len() % BLOCK_BYTES;
        Some(Stream::new(&mut self.state, tail, &data[..whole]))
    }

    /// What of `data` fills no block becomes the tail. Where no block was filled, it is already there.
    fn keep_tail_of(&mut self, data: &[u8]) {
        let used = self.tail_bytes();
        if let Some(start) = data.len().checked_sub(used) {
            self.tail[..used].copy_from_slice(&data[start..]);
        }
    }
}

impl Default for Md5 {
    fn default() -> Md5 {
        Md5::new()
    }
}

#[cfg(test)]
mod testing {
    use md5::Digest as _;

    /// Bytes that differ from one `seed` to the next.
    pub fn bytes(seed: usize, length: usize) -> Vec<u8> {
        let mut word = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed as u64 + 1);
        let mut next = || {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            (word >> 32) as u8
        };
        std::iter::repeat_with(&mut next).take(length).collect()
    }

    /// What another implementation says.
    pub fn expected(data: &[u8]) -> [u8; 16] {
        md5::Md5::digest(data).into()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{bytes, expected};
    use super::*;

    fn digest(data: &[u8]) -> [u8; 16] {
        let mut md5 = Md5::new();
        md5.update(data);
        md5.finish()
    }

    /// RFC 1321, appendix A.5.
    #[test]
    fn vectors_of_the_rfc() {
        let vectors: [(&str, u128); 7] = [
            ("", 0xd41d8cd98f00b204e9800998ecf8427e),
            ("a", 0x0cc175b9c0f1b6a831c399e269772661),
            ("abc", 0x900150983cd24fb0d6963f7d28e17f72),
            ("message digest", 0xf96b697d7cb7938d525a2f31aaf161d0),
            ("abcdefghijklmnopqrstuvwxyz", 0xc3fcd3d76192e4007dfb496cca67e13b),
            (
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
                0xd174ab98d277d9f5a5611c2c9f419d9f,
            ),
            (
                "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
                0x57edf4a22be3c955ac49da2e2107b67a,
            ),
        ];
        for (text, expected) in vectors {
            assert_eq!(digest(text.as_bytes()), expected.to_be_bytes(), "{text:?}");
        }
    }

    #[test]
    fn every_short_length_at_every_alignment() {
        let data = bytes(1, 300 + 64);
        for length in 0..=300 {
            for start in 0..64 {
                let data = &data[start..start + length];
                assert_eq!(digest(data), expected(data), "{length} bytes from {start}");
            }
        }
    }

    #[test]
    fn every_way_to_cut_in_two() {
        let data = bytes(2, 200);
        for cut in 0..=data.len() {
            let mut md5 = Md5::new();
            md5.update(&data[..cut]);
            let at_cut = md5.clone();
            md5.update(&data[cut..]);
            assert_eq!(md5.finish(), expected(&data), "cut at {cut}");
            assert_eq!(
                at_cut.finish(),
                expected(&data[..cut]),
                "a clone goes its own way"
            );
        }
    }

    #[test]
    fn random_chunks() {
        for seed in 0..50 {
            let data = bytes(seed, 10_000 + 37 * seed);
            let mut rest = &data[..];
            let mut md5 = Md5::new();
            for length in bytes(seed + 1000, data.len()) {
                let (chunk, after) = rest.split_at(usize::from(length).min(rest.len()));
                md5.update(chunk);
                rest = after;
            }
            md5.update(rest);
            assert_eq!(md5.finish(), expected(&data), "seed {seed}");
        }
    }
}
