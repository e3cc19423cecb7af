//! MD5's compression function, written once for every width.
//!
//! A [`Word`] is one 32-bit word of as many independent streams as it has lanes: a `u32` has one, a vector
//! register four, eight or sixteen. [`compress`] runs `GROUPS` words side by side in one flow of instructions,
//! because a step waits for the one before it and the processor has room for others meanwhile.
//!
//! A step is as long as its chain from one `b` to the next: mix, add, rotate, add. The rest of the sum (state,
//! message, sine) is known earlier, and implementations keep it apart with `settled`: the compiler, free to
//! add up in any order, puts the sine last, which costs a cycle in each of 64 steps.
//!
//! Invariant: lanes never mix; lane n of the state depends on lane n of the message alone.
//!
//! Source: RFC 1321, section 3.4.

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 64;
/// The state before the first block.
pub const INITIAL: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// One 32-bit word of each of `Self`'s lanes.
pub trait Word: Copy {
    /// `value` in every lane.
    fn splat(value: u32) -> Self;
    /// Lane by lane, modulo 2^32.
    fn add(self, other: Self) -> Self;
    /// Left by `BITS`, which is 1 to 31; `REST` is 32 less that.
    fn rotate<const BITS: i32, const REST: i32>(self) -> Self;
    /// `sum` and RFC 1321's F of the three.
    fn add_f(sum: Self, b: Self, c: Self, d: Self) -> Self;
    /// `sum` and RFC 1321's G of the three.
    fn add_g(sum: Self, b: Self, c: Self, d: Self) -> Self;
    /// `sum` and RFC 1321's H of the three.
    fn add_h(sum: Self, b: Self, c: Self, d: Self) -> Self;
    /// `sum` and RFC 1321's I of the three.
    fn add_i(sum: Self, b: Self, c: Self, d: Self) -> Self;
}

/// `floor(2^32 * abs(sin(i + 1)))`.
#[rustfmt::skip]
const SINES: [u32; 64] = [
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
];

/// Adds one block of each lane to its state. `message[g][i]` is word `i` of the blocks of group `g`.
#[inline(always)]
pub fn compress<W: Word, const GROUPS: usize>(state: &mut [[W; GROUPS]; 4], message: &[[W; 16]; GROUPS]) {
    let [mut a, mut b, mut c, mut d] = *state;

    // One step for every group: `$to` becomes `$b + rotate($to + mix($b, $c, $d) + message + sine)`.
    macro_rules! step {
        ($mix:ident, $to:ident, $b:ident, $c:ident, $d:ident, $step:expr, $word:expr, $bits:literal) => {
            for g in 0..GROUPS {
                let sum = $to[g].add(W::splat(SINES[$step]).add(message[g][($word) % 16]));
                $to[g] = W::$mix(sum, $b[g], $c[g], $d[g])
                    .rotate::<$bits, { 32 - $bits }>()
                    .add($b[g]);
            }
        };
    }
    // Four steps from `$step` on; the message's words are `$first`, `$first + $by` and so on.
    macro_rules! four_steps {
        ($mix:ident, $step:expr, $first:expr, $by:expr, $s0:literal $s1:literal $s2:literal $s3:literal) => {
            step!($mix, a, b, c, d, $step, $first, $s0);
            step!($mix, d, a, b, c, $step + 1, $first + $by, $s1);
            step!($mix, c, d, a, b, $step + 2, $first + 2 * $by, $s2);
            step!($mix, b, c, d, a, $step + 3, $first + 3 * $by, $s3);
        };
    }
    four_steps!(add_f, 0, 0, 1, 7 12 17 22);
    four_steps!(add_f, 4, 4, 1, 7 12 17 22);
    four_steps!(add_f, 8, 8, 1, 7 12 17 22);
    four_steps!(add_f, 12, 12, 1, 7 12 17 22);
    four_steps!(add_g, 16, 1, 5, 5 9 14 20);
    four_steps!(add_g, 20, 5, 5, 5 9 14 20);
    four_steps!(add_g, 24, 9, 5, 5 9 14 20);
    four_steps!(add_g, 28, 13, 5, 5 9 14 20);
    four_steps!(add_h, 32, 5, 3, 4 11 16 23);
    four_steps!(add_h, 36, 1, 3, 4 11 16 23);
    four_steps!(add_h, 40, 13, 3, 4 11 16 23);
    four_steps!(add_h, 44, 9, 3, 4 11 16 23);
    four_steps!(add_i, 48, 0, 7, 6 10 15 21);
    four_steps!(add_i, 52, 12, 7, 6 10 15 21);
    four_steps!(add_i, 56, 8, 7, 6 10 15 21);
    four_steps!(add_i, 60, 4, 7, 6 10 15 21);

    let words = [a, b, c, d];
    for w in 0..4 {
        for g in 0..GROUPS {
            state[w][g] = state[w][g].add(words[w][g]);
        }
    }
}
