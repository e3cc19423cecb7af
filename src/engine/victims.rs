//! Which segments to clean: those that give much room for little work, and not before room is short.
//!
//! Segments are taken by cost and benefit: the room that one gives, times the age of what stays, over the work of
//! reading it and writing what lives. Logs whose tombstones still shield something are of no use by themselves: those
//! are taken from the oldest on, several as one, for behind all older logs they shield nothing, and go. As free
//! segments get fewer, fuller victims will do.
//!
//! Invariant: pure; a round's victims give more room than what lives in them takes, and what lives in them fits the
//! room that the round was given.

use crate::engine::message::Content;
use crate::io::SegmentId;

/// A sealed segment that may be cleaned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    pub segment: SegmentId,
    pub content: Content,
    pub generation: u64,
    pub live_bytes: u64,
    /// Of a log: its tombstones delete what older logs may hold. Emptied, it would stay until those are gone.
    pub shields: bool,
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
/// Logs that are taken as one.
const LOGS_MAX: usize = 16;

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

/// Victims that are taken together or not at all.
struct Unit {
    segments: Vec<SegmentId>,
    live_bytes: u64,
    score: f64,
}

impl Round {
    /// The victims of a round among `candidates`; of logs, those given are all that are sealed and may be moved.
    pub fn choose(&self, candidates: &[Candidate]) -> Vec<SegmentId> {
        let alone = candidates.iter().filter(|of| !of.shields);
        let mut units: Vec<Unit> = alone.filter_map(|of| self.unit(&[*of])).collect();
        units.extend(self.oldest_logs(candidates));
        // The sort is stable: equal scores stay in order of segment.
        units.sort_by(|a, b| b.score.total_cmp(&a.score));
        let (mut victims, mut live_bytes) = (Vec::new(), 0);
        for unit in units {
            let fits = live_bytes + unit.live_bytes <= self.live_bytes_max
                && victims.len() + unit.segments.len() <= self.segments_max;
            // A log may be there by itself and among the oldest.
            if fits && !unit.segments.iter().any(|of| victims.contains(of)) {
                live_bytes += unit.live_bytes;
                victims.extend(unit.segments);
            }
        }
        victims.sort_unstable();
        victims
    }

    /// The oldest logs, as many of them as together are worth most.
    fn oldest_logs(&self, candidates: &[Candidate]) -> Option<Unit> {
        let mut logs: Vec<Candidate> = candidates.to_vec();
        logs.retain(|of| of.content == Content::Log);
        logs.sort_unstable_by_key(|of| of.generation);
        let most = logs.len().min(LOGS_MAX).min(self.segments_max);
        let runs = (1..=most).filter_map(|count| self.unit(&logs[..count]));
        runs.filter(|unit| unit.live_bytes <= self.live_bytes_max)
            .max_by(|a, b| a.score.total_cmp(&b.score))
    }

    /// `None` if they are too full to be worth it, or hold nothing: those become free by themselves.
    fn unit(&self, of: &[Candidate]) -> Option<Unit> {
        let total = of.len() as u64 * self.segment_bytes;
        let live_bytes: u64 = of.iter().map(|of| of.live_bytes).sum();
        if live_bytes == 0 || live_bytes * 32 > total * self.shortage.fullness_max() {
            return None;
        }
        let oldest = of.iter().map(|of| of.generation).min()?;
        let age = self.next_generation.saturating_sub(oldest).max(1);
        let gain = (total - live_bytes) as f64 * age as f64;
        Some(Unit {
            segments: of.iter().map(|of| of.segment).collect(),
            live_bytes,
            score: gain / (total + live_bytes) as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(segment: u32, content: Content, generation: u64, live_bytes: u64) -> Candidate {
        Candidate {
            segment: SegmentId(segment),
            content,
            generation,
            live_bytes,
            shields: content == Content::Log,
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
        let data = |segment, generation, live| candidate(segment, Content::Data, generation, live);
        // Of equal age 1 is emptier; 3 is fuller than 2, and much older; 2 does not fit any more.
        let all = [data(4, 50, 40), data(1, 50, 10), data(2, 90, 45), data(3, 10, 49)];
        assert_eq!(round(Shortage(0)).choose(&all), ids(&[1, 3, 4]));
        assert_eq!(round(Shortage(0)).choose(&all[2..]), ids(&[2, 3]));
    }

    #[test]
    fn fuller_victims_will_do_as_room_gets_short() {
        let full = |live| [candidate(1, Content::Data, 1, live)];
        for (missing, fullest) in [(0, 50), (128, 71), (256, 96)] {
            let round = round(Shortage(missing));
            assert_eq!(round.choose(&full(fullest)), ids(&[1]), "{missing}");
            assert_eq!(round.choose(&full(fullest + 2)), [], "{missing}");
        }
    }

    #[test]
    fn logs_are_taken_from_the_oldest_on_however_full_it_is() {
        let log = |segment, generation, live| candidate(segment, Content::Log, generation, live);
        // The oldest alone is not worth it; with the two behind it it is.
        let all = [log(9, 30, 0), log(7, 20, 5), log(8, 10, 90), log(6, 40, 99)];
        assert_eq!(round(Shortage(0)).choose(&all), ids(&[7, 8, 9]));
        assert_eq!(round(Shortage(0)).choose(&all[2..]), []);
    }

    #[test]
    fn a_log_that_shields_nothing_is_taken_for_itself() {
        let log = |segment, generation, live, shields| Candidate {
            shields,
            ..candidate(segment, Content::Log, generation, live)
        };
        // The emptiest shields something, and the oldest is not worth it.
        let all = [log(1, 10, 99, true), log(2, 20, 10, true), log(3, 30, 40, false)];
        assert_eq!(round(Shortage(0)).choose(&all), ids(&[3]));
        // Among the oldest, and for itself: once.
        let all = [log(1, 10, 30, true), log(2, 20, 10, false)];
        assert_eq!(round(Shortage(0)).choose(&all), ids(&[2]));
        assert_eq!(round(Shortage(0)).choose(&all[..1]), ids(&[1]));
    }

    #[test]
    fn shortage_grows_as_free_segments_get_fewer() {
        let parts: Vec<u64> = (0..12)
            .map(|free| Shortage::of(free, 2, 10).part_of(80))
            .collect();
        assert_eq!(parts, [80, 80, 80, 70, 60, 50, 40, 30, 20, 10, 0, 0]);
    }
}
