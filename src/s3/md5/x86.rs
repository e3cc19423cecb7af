//! Streams in the lanes of x86-64's vector registers: AVX2, and AVX-512 with its ternary logic and rotates.
//!
//! A kernel has a width, the streams that it hashes together; lanes without a stream of their own repeat the
//! first one. One register of four or eight lanes takes as long as one stream in general registers, two or
//! three registers side by side little longer. AVX-512 stays at 256 bits up to 24 streams: on Zen 4 a 512-bit
//! operation is two of 256.
//!
//! Invariant: a kernel is called only through [`avx2`] and [`avx512`], with as many bytes behind each pointer
//! as it reads, on a processor that [`super::batch::Instructions::detect`] found able.

#![expect(
    clippy::needless_range_loop,
    reason = "indices run over several arrays of one shape"
)]

use std::arch::x86_64::*;

use crate::s3::md5::batch::Stream;
use crate::s3::md5::compress::{BLOCK_BYTES, Word, compress};

/// Streams of the widest kernel.
const WIDTH_MAX: usize = 32;
/// Streams of the widest AVX2 kernel.
pub const AVX2_WIDTH_MAX: usize = 24;
/// Streams of the widest AVX-512 kernel.
pub const AVX512_WIDTH_MAX: usize = WIDTH_MAX;

type States = [[u32; WIDTH_MAX]; 4];
type Pointers = [*const u8; WIDTH_MAX];
/// Adds as many blocks from behind each pointer of its width to that lane's state.
type Kernel = unsafe fn(&mut States, &Pointers, usize);

/// Adds the next `blocks` blocks of each of 1 to [`AVX2_WIDTH_MAX`] streams to its state.
///
/// # Safety
/// The processor has AVX2.
pub unsafe fn avx2(streams: &mut [Stream<'_>], blocks: usize) {
    assert!(streams.len() <= AVX2_WIDTH_MAX);
    let kernel: Kernel = match streams.len() {
        ..=8 => avx2_8,
        9..=16 => avx2_16,
        _ => avx2_24,
    };
    // SAFETY: the caller vouches for AVX2, and the streams fit the kernel.
    unsafe { hash(kernel, streams, blocks) }
}

/// Adds the next `blocks` blocks of each of 1 to [`AVX512_WIDTH_MAX`] streams to its state.
///
/// # Safety
/// The processor has AVX-512 F and VL.
pub unsafe fn avx512(streams: &mut [Stream<'_>], blocks: usize) {
    assert!(streams.len() <= AVX512_WIDTH_MAX);
    let kernel: Kernel = match streams.len() {
        ..=4 => avx512_4,
        5..=8 => avx512_8,
        9..=16 => avx512_16,
        17..=24 => avx512_24,
        _ => avx512_32,
    };
    // SAFETY: the caller vouches for AVX-512 F and VL, and the streams fit the kernel.
    unsafe { hash(kernel, streams, blocks) }
}

/// # Safety
/// The processor can run `kernel`, and its width is at least the number of streams.
unsafe fn hash(kernel: Kernel, streams: &mut [Stream<'_>], blocks: usize) {
    let Some(first) = streams.first() else { return };
    let mut pointers: Pointers = [first.run().as_ptr(); WIDTH_MAX];
    let mut states: States = [[0; WIDTH_MAX]; 4];
    for (lane, stream) in streams.iter().enumerate() {
        assert!(stream.run().len() / BLOCK_BYTES >= blocks);
        pointers[lane] = stream.run().as_ptr();
        for (words, word) in states.iter_mut().zip(*stream.state) {
            words[lane] = word;
        }
    }
    // SAFETY: each pointer is the start of a run, just seen to be `blocks` blocks or longer; for the rest the
    // caller vouches.
    unsafe { kernel(&mut states, &pointers, blocks) }
    for (lane, stream) in streams.iter_mut().enumerate() {
        *stream.state = states.map(|words| words[lane]);
    }
}

macro_rules! kernels {
    ($($name:ident: $groups:literal of $vector:ident, $features:literal;)*) => { $(
        /// # Safety
        /// The processor has the features, and each pointer of the width has `blocks` blocks behind it.
        #[target_feature(enable = $features)]
        unsafe fn $name(states: &mut States, pointers: &Pointers, blocks: usize) {
            // SAFETY: the caller vouches for both.
            unsafe { run::<$vector, $groups>(states, pointers, blocks) }
        }
    )* };
}

kernels! {
    avx2_8: 1 of Avx2Lanes8, "avx2";
    avx2_16: 2 of Avx2Lanes8, "avx2";
    avx2_24: 3 of Avx2Lanes8, "avx2";
    avx512_4: 1 of Lanes4, "avx2,avx512f,avx512vl";
    avx512_8: 1 of Lanes8, "avx2,avx512f,avx512vl";
    avx512_16: 2 of Lanes8, "avx2,avx512f,avx512vl";
    avx512_24: 3 of Lanes8, "avx2,avx512f,avx512vl";
    avx512_32: 2 of Lanes16, "avx2,avx512f,avx512vl";
}

/// Loops, not closures: a closure does not inherit the kernel's features, and what it calls stays a call.
///
/// # Safety
/// As of the kernel that this is inlined into.
#[inline(always)]
#[expect(
    clippy::needless_range_loop,
    reason = "indices run over several arrays of one shape"
)]
unsafe fn run<V: Vector, const GROUPS: usize>(states: &mut States, pointers: &Pointers, blocks: usize) {
    let mut words = [[V::splat(0); GROUPS]; 4];
    for word in 0..4 {
        for group in 0..GROUPS {
            // SAFETY: the groups' lanes are the width, which is at most WIDTH_MAX.
            words[word][group] = unsafe { V::load(states[word].as_ptr().add(group * V::LANES)) };
        }
    }
    for block in 0..blocks {
        let mut message = [[V::splat(0); 16]; GROUPS];
        for group in 0..GROUPS {
            let lanes = &pointers[group * V::LANES..(group + 1) * V::LANES];
            // SAFETY: the caller vouches that `blocks` blocks lie behind each pointer.
            message[group] = unsafe { V::message(lanes, block * BLOCK_BYTES) };
        }
        compress::<V, GROUPS>(&mut words, &message);
    }
    for word in 0..4 {
        for group in 0..GROUPS {
            // SAFETY: as for the load.
            unsafe { words[word][group].store(states[word].as_mut_ptr().add(group * V::LANES)) };
        }
    }
}

/// A register of lanes. Its methods, those of [`Word`] too, run only inside a kernel with its features.
trait Vector: Word {
    const LANES: usize;
    /// # Safety
    /// `LANES` words lie at `from`.
    unsafe fn load(from: *const u32) -> Self;
    /// # Safety
    /// There is room for `LANES` words at `to`.
    unsafe fn store(self, to: *mut u32);
    /// The sixteen words of the block at `offset` bytes behind each of `LANES` pointers, word by word. A lane's
    /// block is read whole before the next lane's: aligned buffers meet in one set of the cache, which holds
    /// fewer lines than there are lanes.
    ///
    /// # Safety
    /// The blocks are there.
    unsafe fn message(lanes: &[*const u8], offset: usize) -> [Self; 16];
}

/// Four lanes, with AVX-512VL.
#[derive(Clone, Copy)]
struct Lanes4(__m128i);
/// Eight lanes, with AVX-512VL.
#[derive(Clone, Copy)]
struct Lanes8(__m256i);
/// Sixteen lanes, with AVX-512F.
#[derive(Clone, Copy)]
struct Lanes16(__m512i);
/// Eight lanes, with AVX2.
#[derive(Clone, Copy)]
struct Avx2Lanes8(__m256i);

macro_rules! settled {
    ($($name:ident: $register:ident in $class:ident, $features:literal;)*) => { $(
        /// `value`, which the compiler may not take apart again. No instruction.
        #[target_feature(enable = $features)]
        #[inline]
        fn $name(value: $register) -> $register {
            let mut value = value;
            // SAFETY: the template is a comment; it reads and writes nothing but the register it is given.
            unsafe {
                std::arch::asm!("/* {0} */", inout($class) value, options(pure, nomem, nostack, preserves_flags));
            }
            value
        }
    )* };
}

settled! {
    settled_128: __m128i in xmm_reg, "avx512f,avx512vl";
    settled_256: __m256i in ymm_reg, "avx512f,avx512vl";
    settled_512: __m512i in zmm_reg, "avx512f";
    settled_avx2: __m256i in ymm_reg, "avx2";
}

/// F, G, H and I are one `vpternlogd` each; the constants are their truth tables over (b, c, d).
macro_rules! word_with_ternary_logic {
    ($lanes:ident, $splat:ident, $add:ident, $logic:ident, $rotate:ident, $settled:ident) => {
        impl Word for $lanes {
            #[inline(always)]
            fn splat(value: u32) -> Self {
                // SAFETY: runs only inside a kernel with the features, as the methods below.
                unsafe { $lanes($splat(value.cast_signed())) }
            }

            #[inline(always)]
            fn add(self, other: Self) -> Self {
                // SAFETY: as above.
                unsafe { $lanes($add(self.0, other.0)) }
            }

            #[inline(always)]
            fn rotate<const BITS: i32, const REST: i32>(self) -> Self {
                // SAFETY: as above.
                unsafe { $lanes($rotate::<BITS>(self.0)) }
            }

            #[inline(always)]
            fn add_f(sum: Self, b: Self, c: Self, d: Self) -> Self {
                // SAFETY: as above.
                unsafe { $lanes($add($settled(sum.0), $logic::<0xca>(b.0, c.0, d.0))) }
            }

            #[inline(always)]
            fn add_g(sum: Self, b: Self, c: Self, d: Self) -> Self {
                // SAFETY: as above.
                unsafe { $lanes($add($settled(sum.0), $logic::<0xe4>(b.0, c.0, d.0))) }
            }

            #[inline(always)]
            fn add_h(sum: Self, b: Self, c: Self, d: Self) -> Self {
                // SAFETY: as above.
                unsafe { $lanes($add($settled(sum.0), $logic::<0x96>(b.0, c.0, d.0))) }
            }

            #[inline(always)]
            fn add_i(sum: Self, b: Self, c: Self, d: Self) -> Self {
                // SAFETY: as above.
                unsafe { $lanes($add($settled(sum.0), $logic::<0x39>(b.0, c.0, d.0))) }
            }
        }
    };
}

#[rustfmt::skip]
word_with_ternary_logic!(
    Lanes4, _mm_set1_epi32, _mm_add_epi32, _mm_ternarylogic_epi32, _mm_rol_epi32, settled_128
);
#[rustfmt::skip]
word_with_ternary_logic!(
    Lanes8, _mm256_set1_epi32, _mm256_add_epi32, _mm256_ternarylogic_epi32, _mm256_rol_epi32, settled_256
);
#[rustfmt::skip]
word_with_ternary_logic!(
    Lanes16, _mm512_set1_epi32, _mm512_add_epi32, _mm512_ternarylogic_epi32, _mm512_rol_epi32, settled_512
);

impl Word for Avx2Lanes8 {
    #[inline(always)]
    fn splat(value: u32) -> Self {
        // SAFETY: runs only inside a kernel with AVX2, as the methods below.
        unsafe { Avx2Lanes8(_mm256_set1_epi32(value.cast_signed())) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { Avx2Lanes8(_mm256_add_epi32(self.0, other.0)) }
    }

    #[inline(always)]
    fn rotate<const BITS: i32, const REST: i32>(self) -> Self {
        // SAFETY: as above.
        unsafe {
            Avx2Lanes8(_mm256_or_si256(
                _mm256_slli_epi32::<BITS>(self.0),
                _mm256_srli_epi32::<REST>(self.0),
            ))
        }
    }

    #[inline(always)]
    fn add_f(sum: Self, b: Self, c: Self, d: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            let mix = _mm256_xor_si256(d.0, _mm256_and_si256(b.0, _mm256_xor_si256(c.0, d.0)));
            Avx2Lanes8(_mm256_add_epi32(settled_avx2(sum.0), mix))
        }
    }

    /// The two halves of G have no bit in common, so that one of them joins the sum before `b` is known.
    #[inline(always)]
    fn add_g(sum: Self, b: Self, c: Self, d: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            let sum = _mm256_add_epi32(sum.0, _mm256_andnot_si256(d.0, c.0));
            Avx2Lanes8(_mm256_add_epi32(settled_avx2(sum), _mm256_and_si256(b.0, d.0)))
        }
    }

    #[inline(always)]
    fn add_h(sum: Self, b: Self, c: Self, d: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            let mix = _mm256_xor_si256(b.0, settled_avx2(_mm256_xor_si256(c.0, d.0)));
            Avx2Lanes8(_mm256_add_epi32(settled_avx2(sum.0), mix))
        }
    }

    #[inline(always)]
    fn add_i(sum: Self, b: Self, c: Self, d: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            let not_d = _mm256_xor_si256(d.0, _mm256_set1_epi32(-1));
            let mix = _mm256_xor_si256(c.0, _mm256_or_si256(b.0, not_d));
            Avx2Lanes8(_mm256_add_epi32(settled_avx2(sum.0), mix))
        }
    }
}

/// Four by four words in each 128 bits: rows from `$from` on, which hold four words of a lane, become columns,
/// which hold one word of four lanes, and go to `$out` from `$to` on.
macro_rules! transpose {
    ($rows:expr, $from:expr => $out:ident, $to:expr, $lanes:ident,
     $low32:ident $high32:ident $low64:ident $high64:ident) => {
        let (a, b, c, d) = ($rows[$from], $rows[$from + 1], $rows[$from + 2], $rows[$from + 3]);
        let (low, high) = ([$low32(a, b), $low32(c, d)], [$high32(a, b), $high32(c, d)]);
        $out[$to] = $lanes($low64(low[0], low[1]));
        $out[$to + 1] = $lanes($high64(low[0], low[1]));
        $out[$to + 2] = $lanes($low64(high[0], high[1]));
        $out[$to + 3] = $lanes($high64(high[0], high[1]));
    };
}

impl Vector for Lanes4 {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self {
        // SAFETY: the caller vouches for the words; runs only inside a kernel, as the methods below.
        unsafe { Lanes4(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u32) {
        // SAFETY: the caller vouches for the room.
        unsafe { _mm_storeu_si128(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn message(lanes: &[*const u8], offset: usize) -> [Self; 16] {
        let mut rows = [[Lanes4::splat(0).0; 4]; 4];
        for i in 0..4 {
            for quarter in 0..4 {
                // SAFETY: the caller vouches for the blocks; a quarter is 16 of the 64 bytes.
                rows[quarter][i] = unsafe { quarter_at(lanes[i], offset + 16 * quarter) };
            }
        }
        let mut out = [Lanes4::splat(0); 16];
        for quarter in 0..4 {
            // SAFETY: runs only inside a kernel.
            unsafe {
                transpose!(rows[quarter], 0 => out, 4 * quarter, Lanes4,
                    _mm_unpacklo_epi32 _mm_unpackhi_epi32 _mm_unpacklo_epi64 _mm_unpackhi_epi64);
            }
        }
        out
    }
}

macro_rules! vector_of_eight {
    ($lanes:ident) => {
        impl Vector for $lanes {
            const LANES: usize = 8;

            #[inline(always)]
            unsafe fn load(from: *const u32) -> Self {
                // SAFETY: the caller vouches for the words; runs only inside a kernel, as the methods below.
                unsafe { $lanes(_mm256_loadu_si256(from.cast())) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut u32) {
                // SAFETY: the caller vouches for the room.
                unsafe { _mm256_storeu_si256(to.cast(), self.0) }
            }

            #[inline(always)]
            unsafe fn message(lanes: &[*const u8], offset: usize) -> [Self; 16] {
                let mut rows = [[$lanes::splat(0).0; 8]; 2];
                for lane in 0..8 {
                    for half in 0..2 {
                        // SAFETY: the caller vouches for the blocks; a half is 32 of the 64 bytes.
                        rows[half][lane] =
                            unsafe { _mm256_loadu_si256(lanes[lane].add(offset + 32 * half).cast()) };
                    }
                }
                let mut out = [$lanes::splat(0); 16];
                for half in 0..2 {
                    let (mut first, mut last) = ([out[0]; 4], [out[0]; 4]);
                    // SAFETY: runs only inside a kernel.
                    unsafe {
                        transpose!(rows[half], 0 => first, 0, $lanes,
                            _mm256_unpacklo_epi32 _mm256_unpackhi_epi32
                            _mm256_unpacklo_epi64 _mm256_unpackhi_epi64);
                        transpose!(rows[half], 4 => last, 0, $lanes,
                            _mm256_unpacklo_epi32 _mm256_unpackhi_epi32
                            _mm256_unpacklo_epi64 _mm256_unpackhi_epi64);
                        for i in 0..4 {
                            let (first, last) = (first[i].0, last[i].0);
                            out[8 * half + i] = $lanes(_mm256_permute2x128_si256::<0x20>(first, last));
                            out[8 * half + 4 + i] = $lanes(_mm256_permute2x128_si256::<0x31>(first, last));
                        }
                    }
                }
                out
            }
        }
    };
}

vector_of_eight!(Lanes8);
vector_of_eight!(Avx2Lanes8);

impl Vector for Lanes16 {
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self {
        // SAFETY: the caller vouches for the words; runs only inside a kernel, as the methods below.
        unsafe { Lanes16(_mm512_loadu_si512(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u32) {
        // SAFETY: the caller vouches for the room.
        unsafe { _mm512_storeu_si512(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn message(lanes: &[*const u8], offset: usize) -> [Self; 16] {
        let mut rows = [[Lanes16::splat(0).0; 4]; 4];
        for i in 0..4 {
            for quarter in 0..4 {
                let at = offset + 16 * quarter;
                // SAFETY: the caller vouches for the blocks; a quarter is 16 of the 64 bytes.
                rows[quarter][i] = unsafe {
                    let row = _mm512_castsi128_si512(quarter_at(lanes[i], at));
                    let row = _mm512_inserti32x4::<1>(row, quarter_at(lanes[i + 4], at));
                    let row = _mm512_inserti32x4::<2>(row, quarter_at(lanes[i + 8], at));
                    _mm512_inserti32x4::<3>(row, quarter_at(lanes[i + 12], at))
                };
            }
        }
        let mut out = [Lanes16::splat(0); 16];
        for quarter in 0..4 {
            // SAFETY: runs only inside a kernel.
            unsafe {
                transpose!(rows[quarter], 0 => out, 4 * quarter, Lanes16,
                    _mm512_unpacklo_epi32 _mm512_unpackhi_epi32 _mm512_unpacklo_epi64 _mm512_unpackhi_epi64);
            }
        }
        out
    }
}

/// # Safety
/// 16 bytes lie at `offset` behind `lane`.
#[inline(always)]
unsafe fn quarter_at(lane: *const u8, offset: usize) -> __m128i {
    // SAFETY: the caller vouches for the bytes; SSE2 is part of x86-64.
    unsafe { _mm_loadu_si128(lane.add(offset).cast()) }
}
