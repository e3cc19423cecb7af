//! Which segments to clean: those that give much room for little work, and not before room is short.
//!
//! By cost and benefit: the room that one gives, times the age of what stays, over the work of reading it and writing
//! what lives. As free segments get fewer, fuller victims will do.
//!
//! Invariant: pure; a round's victims give more room than what lives in them takes, and what lives in them fits the
//! room that the round was given.

use crate::io::SegmentId;

/// A sealed segment that may be cleaned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    pub segment: SegmentId,
    pub generation: u64,
    pub live_bytes: u64,
}

/// What a round may take.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    pub segment_bytes: u64,
    /// Generations are compared with this one: the next to be given out.
    pub next_generation: u64,
    /// Bytes that may be moved.
    pub live_bytes_max: u64,
    pub segments_max: usize,
    /// How short room is.
    pub shortage: Shortage,
}

/// From 0, as many free segments as there should be, to [`Shortage::MOST`], only those that the cleaner needs itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Shortage(u32);

/// At no shortage a victim is at most this full, in 1/32 of a segment; at the greatest one, nearly whole.
const FULLNESS_MAX_AT_EASE: u64 = 16;
const FULLNESS_MAX: u64 = 31;

impl Shortage {
    pub const NONE: Shortage = Shortage(0);
    pub const MOST: Shortage = Shortage(256);

    /// With `free` segments, if `low` of them are as many as there should be, and `least` are kept for the cleaner.
    pub fn of(free: usize, least: usize, low: usize) -> Shortage {
        let missing = low.saturating_sub(free).min(low - least);
        Shortage((missing * 256 / (low - least)) as u32)
    }

    /// `most` at the greatest shortage, and less for less.
    pub fn part_of(self, most: u64) -> u64 {
        most * u64::from(self.0) / 256
    }

    fn fullness_max(self) -> u64 {
        FULLNESS_MAX_AT_EASE + self.part_of(FULLNESS_MAX - FULLNESS_MAX_AT_EASE)
    }
}

impl Round {
    /// The victims of a round among `candidates`.
    pub fn choose(&self, candidates: &[Candidate]) -> Vec<SegmentId> {
        let mut scored: Vec<(f64, &Candidate)> = candidates
            .iter()
            .filter_map(|candidate| Some((self.score(candidate)?, candidate)))
            .collect();
        // The sort is stable: equal scores stay in order of segment.
        scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let (mut victims, mut live_bytes) = (Vec::new(), 0);
        for (_, candidate) in scored {
            if live_bytes + candidate.live_bytes <= self.live_bytes_max && victims.len() < self.segments_max {
                live_bytes += candidate.live_bytes;
                victims.push(candidate.segment);
            }
        }
        victims.sort_unstable();
        victims
    }

    /// `None` if it is too full to be worth it, or holds nothing: then it becomes free by itself.
    fn score(&self, of: &Candidate) -> Option<f64> {
        let (total, live_bytes) = (self.segment_bytes, of.live_bytes);
        if live_bytes == 0 || live_bytes * 32 > total * self.shortage.fullness_max() {
            return None;
        }
        let age = self.next_generation.saturating_sub(of.generation).max(1);
        let gain = (total - live_bytes) as f64 * age as f64;
        Some(gain / (total + live_bytes) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(segment: u32, generation: u64, live_bytes: u64) -> Candidate {
        Candidate {
            segment: SegmentId(segment),
            generation,
            live_bytes,
        }
    }

    fn round(shortage: Shortage) -> Round {
        Round {
            segment_bytes: 100,
            next_generation: 100,
            live_bytes_max: 100,
            segments_max: 8,
            shortage,
        }
    }

    fn ids(ids: &[u32]) -> Vec<SegmentId> {
        ids.iter().copied().map(SegmentId).collect()
    }

    #[test]
    fn the_emptier_and_the_older_come_first() {
        let data = candidate;
        // Of equal age 1 is emptier; 3 is fuller than 2, and much older; 2 does not fit any more.
        let all = [data(4, 50, 40), data(1, 50, 10), data(2, 90, 45), data(3, 10, 49)];
        assert_eq!(round(Shortage(0)).choose(&all), ids(&[1, 3, 4]));
        assert_eq!(round(Shortage(0)).choose(&all[2..]), ids(&[2, 3]));
    }

    #[test]
    fn fuller_victims_will_do_as_room_gets_short() {
        let full = |live| [candidate(1, 1, live)];
        for (missing, fullest) in [(0, 50), (128, 71), (256, 96)] {
            let round = round(Shortage(missing));
            assert_eq!(round.choose(&full(fullest)), ids(&[1]), "{missing}");
            assert_eq!(round.choose(&full(fullest + 2)), [], "{missing}");
        }
    }

    #[test]
    fn shortage_grows_as_free_segments_get_fewer() {
        let parts: Vec<u64> = (0..12)
            .map(|free| Shortage::of(free, 2, 10).part_of(80))
            .collect();
        assert_eq!(parts, [80, 80, 80, 70, 60, 50, 40, 30, 20, 10, 0, 0]);
    }
}
