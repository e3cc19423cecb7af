//! The one source of chance in a simulated world: a small generator whose whole state is its seed.
//!
//! SplitMix64 (Steele, Lea, Flood 2014): fast, one word, good enough to schedule tasks and tear
//! writes. Our own so that a seed printed years ago still replays.
//!
//! Invariant: the same calls on the same seed give the same values on every machine. Nothing in
//! `sim` may take chance, time or order from anywhere else.

/// How probable something is, in millionths.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Chance(u32);

impl Chance {
    pub const NEVER: Chance = Chance(0);
    pub const ALWAYS: Chance = Chance(1_000_000);

    /// `millionths` of 1,000,000; panics above that.
    pub const fn per_million(millionths: u32) -> Chance {
        assert!(millionths <= 1_000_000);
        Chance(millionths)
    }

    /// Once in `n` times on average; `n` is at least 1.
    pub const fn one_in(n: u32) -> Chance {
        assert!(n > 0);
        Chance(1_000_000 / n)
    }
}

/// A seeded generator. Workloads may draw from one of their own.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng { state: seed }
    }

    /// A generator that goes its own way from here.
    pub fn fork(&mut self) -> Rng {
        Rng {
            state: self.next_u64() ^ 0x6a09_e667_f3bc_c908,
        }
    }

    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A value in `0..bound`; panics for 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing lies below 0");
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// An index into something of `length` elements; panics for 0.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// A value in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high && high - low < u64::MAX);
        low + self.below(high - low + 1)
    }

    pub fn coin(&mut self) -> bool {
        self.next_u64() >> 63 == 1
    }

    /// Draws nothing for a chance of never, so that faults that are off cost nothing.
    pub fn happens(&mut self, chance: Chance) -> bool {
        chance.0 > 0 && self.below(1_000_000) < u64::from(chance.0)
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_of_a_seed_is_fixed_for_ever() {
        // The first outputs of SplitMix64 for seed 1234567, from its reference implementation.
        let mut rng = Rng::new(1234567);
        assert_eq!(rng.next_u64(), 6457827717110365317);
        assert_eq!(rng.next_u64(), 3203168211198807973);
        assert_eq!(rng.next_u64(), 9817491932198370423);
    }

    #[test]
    fn bounds_hold_and_are_reached() {
        let mut rng = Rng::new(1);
        let mut seen = [false; 5];
        for _ in 0..1000 {
            seen[rng.below(5) as usize] = true;
            assert!((3..=4).contains(&rng.between(3, 4)));
        }
        assert_eq!(seen, [true; 5]);
    }

    #[test]
    fn chances_come_about_as_often_as_they_say() {
        let mut rng = Rng::new(2);
        assert!((0..1000).all(|_| !rng.happens(Chance::NEVER)));
        assert!((0..1000).all(|_| rng.happens(Chance::ALWAYS)));
        let hits = (0..10_000).filter(|_| rng.happens(Chance::one_in(10))).count();
        assert!((800..1200).contains(&hits), "{hits}");
    }

    #[test]
    fn shuffling_keeps_every_element() {
        let mut items: Vec<u32> = (0..100).collect();
        Rng::new(3).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
