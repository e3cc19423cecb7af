//! One and two streams in general registers.
//!
//! A lone upload is bound by the latency of one chain of steps, and two side by side take hardly longer than
//! one: their states, a pointer each and the temporaries just fit sixteen registers. Three do not.
//!
//! Must not: allocate, or look at a byte past the blocks that it was asked for.

use crate::s3::md5::compress::{BLOCK_BYTES, Word, compress};

/// Adds the first `blocks` blocks of each stream's data to its state. Every stream has that many.
pub fn hash<const STREAMS: usize>(states: [&mut [u32; 4]; STREAMS], data: [&[u8]; STREAMS], blocks: usize) {
    let mut state: [[u32; STREAMS]; 4] = std::array::from_fn(|word| std::array::from_fn(|s| states[s][word]));
    let data: [&[[u8; BLOCK_BYTES]]; STREAMS] = data.map(|data| &data.as_chunks().0[..blocks]);
    #[expect(clippy::needless_range_loop, reason = "the index runs over several streams")]
    for block in 0..blocks {
        let message: [[u32; 16]; STREAMS] = std::array::from_fn(|s| message(&data[s][block]));
        compress::<u32, STREAMS>(&mut state, &message);
    }
    for (s, to) in states.into_iter().enumerate() {
        *to = state.map(|word| word[s]);
    }
}

#[inline(always)]
fn message(block: &[u8; BLOCK_BYTES]) -> [u32; 16] {
    let (words, _) = block.as_chunks::<4>();
    std::array::from_fn(|i| u32::from_le_bytes(words[i]))
}

impl Word for u32 {
    #[inline(always)]
    fn splat(value: u32) -> u32 {
        value
    }

    #[inline(always)]
    fn add(self, other: u32) -> u32 {
        self.wrapping_add(other)
    }

    #[inline(always)]
    fn rotate<const BITS: i32, const REST: i32>(self) -> u32 {
        self.rotate_left(BITS as u32)
    }

    #[inline(always)]
    fn add_f(sum: u32, b: u32, c: u32, d: u32) -> u32 {
        settled(sum).wrapping_add(d ^ (b & (c ^ d)))
    }

    /// The two halves of G have no bit in common, so that one of them joins the sum before `b` is known.
    #[inline(always)]
    fn add_g(sum: u32, b: u32, c: u32, d: u32) -> u32 {
        settled(sum.wrapping_add(c & !d)).wrapping_add(b & d)
    }

    #[inline(always)]
    fn add_h(sum: u32, b: u32, c: u32, d: u32) -> u32 {
        settled(sum).wrapping_add(b ^ settled(c ^ d))
    }

    #[inline(always)]
    fn add_i(sum: u32, b: u32, c: u32, d: u32) -> u32 {
        settled(sum).wrapping_add(c ^ (b | !d))
    }
}

/// `value`, which the compiler may not take apart again. No instruction.
#[inline(always)]
fn settled(value: u32) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        let mut value = value;
        // SAFETY: the template is a comment; it reads and writes nothing but the register it is given.
        unsafe {
            std::arch::asm!("/* {0:e} */", inout(reg) value, options(pure, nomem, nostack, preserves_flags));
        }
        value
    }
    #[cfg(not(target_arch = "x86_64"))]
    value
}
