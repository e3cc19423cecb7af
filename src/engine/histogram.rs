//! How often values of about a size came: counts in buckets whose bounds are powers of two.
//!
//! Invariant: a core writes its own and nobody else's, so observing is two additions to memory that no other core
//! touches. A copy may go to another core, to be read there.

use std::array;
use std::cell::Cell;

/// `BUCKETS` counts: of values up to 2^`FIRST`, of greater ones up to twice that, and so on; the last has all that is
/// greater still.
#[derive(Clone)]
pub struct Histogram<const FIRST: u32, const BUCKETS: usize> {
    counts: [Cell<u64>; BUCKETS],
    sum: Cell<u64>,
}

/// Nanoseconds: from 16 µs to 69 s.
pub type Durations = Histogram<14, 24>;
/// Records of a batch: from 1 to 4,096.
pub type RecordCounts = Histogram<0, 14>;
/// Bytes of a batch: from 4 KiB to 8 MiB.
pub type BatchBytes = Histogram<12, 13>;

impl<const FIRST: u32, const BUCKETS: usize> Histogram<FIRST, BUCKETS> {
    pub fn observe(&self, value: u64) {
        // The least power of two that the value does not exceed.
        let power = u64::BITS - value.saturating_sub(1).leading_zeros();
        let at = (power.saturating_sub(FIRST) as usize).min(BUCKETS - 1);
        self.counts[at].set(self.counts[at].get() + 1);
        self.sum.set(self.sum.get() + value);
    }

    /// Counts what `other` has counted too.
    pub fn add(&self, other: &Self) {
        for (count, more) in self.counts.iter().zip(&other.counts) {
            count.set(count.get() + more.get());
        }
        self.sum.set(self.sum.get() + other.sum.get());
    }

    /// Of all values.
    pub fn sum(&self) -> u64 {
        self.sum.get()
    }

    /// How many values came.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(Cell::get).sum()
    }

    /// Each bucket's greatest value, `None` for the last, and how many values are in it and in no smaller one.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = (FIRST..).map(|power| Some(1 << power)).take(BUCKETS - 1);
        bounds.chain([None]).zip(self.counts.iter().map(Cell::get))
    }
}

impl<const FIRST: u32, const BUCKETS: usize> Default for Histogram<FIRST, BUCKETS> {
    fn default() -> Self {
        Histogram {
            counts: array::from_fn(|_| Cell::new(0)),
            sum: Cell::new(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Small = Histogram<2, 4>;

    #[test]
    fn a_value_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        for (value, bound) in [
            (0, Some(4)),
            (1, Some(4)),
            (4, Some(4)),
            (5, Some(8)),
            (8, Some(8)),
            (9, Some(16)),
            (16, Some(16)),
            (17, None),
            (u64::MAX, None),
        ] {
            let histogram = Small::default();
            histogram.observe(value);
            let filled: Vec<_> = histogram.buckets().filter(|(_, count)| *count > 0).collect();
            assert_eq!(filled, [(bound, 1)], "{value}");
        }
    }

    #[test]
    fn two_are_added_bucket_by_bucket() {
        let (one, other) = (Small::default(), Small::default());
        for value in [1, 6, 100] {
            one.observe(value);
            other.observe(value * 2);
        }
        one.add(&other);
        assert_eq!((one.count(), one.sum()), (6, 321));
        let counts: Vec<u64> = one.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 1, 1, 2]);
    }
}
