//! Hashes many streams' data at once, whatever their lengths.
//!
//! Streams are hashed side by side for as many blocks as the shortest of them has; then the ones that are left
//! are regrouped, the longest first, so that no long one is left to run alone while lanes are empty. When
//! there are more streams than lanes, they go in as many rounds as are needed, of about equal width.
//!
//! Invariant: a round ends at least one stream's run, so there are at most two rounds a job.

use std::cmp::Reverse;

use crate::s3::md5::Md5;
use crate::s3::md5::compress::BLOCK_BYTES;
use crate::s3::md5::scalar;
#[cfg(target_arch = "x86_64")]
use crate::s3::md5::x86;

/// Adds each job's bytes to its hash: as `Md5::update` on each, but together.
pub fn update_many(jobs: &mut [(&mut Md5, &[u8])]) {
    match jobs {
        [] => {}
        [(md5, data)] => md5.update(data),
        _ => Instructions::detect().update_many(jobs),
    }
}

/// What the processor has for hashing several streams at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Instructions {
    /// General registers, two streams at a time.
    General,
    /// AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// Whole blocks that are to be added to a state: first the one in a tail that filled up, then the data's.
pub(super) struct Stream<'a> {
    pub state: &'a mut [u32; 4],
    tail: &'a [u8],
    data: &'a [u8],
}

impl Instructions {
    #[cfg(target_arch = "x86_64")]
    pub fn detect() -> Instructions {
        let avx2 = is_x86_feature_detected!("avx2");
        if avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
            return Instructions::Avx512;
        }
        if avx2 {
            Instructions::Avx2
        } else {
            Instructions::General
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub fn detect() -> Instructions {
        Instructions::General
    }

    /// [`update_many`] with these instructions, which the processor has.
    pub fn update_many(self, jobs: &mut [(&mut Md5, &[u8])]) {
        let mut streams = Vec::with_capacity(jobs.len());
        for (md5, data) in jobs.iter_mut() {
            streams.extend(md5.begin(data));
        }
        self.hash_all(&mut streams);
        for (md5, data) in jobs {
            md5.keep_tail_of(data);
        }
    }

    fn hash_all(self, streams: &mut Vec<Stream<'_>>) {
        while !streams.is_empty() {
            streams.sort_unstable_by_key(|stream| Reverse(stream.remaining_bytes()));
            let rounds = streams.len().div_ceil(self.streams_max());
            let together = streams.len().div_ceil(rounds);
            let group = &mut streams[..together];
            let blocks = group
                .iter()
                .map(|stream| stream.run().len() / BLOCK_BYTES)
                .min()
                .unwrap_or(0);
            self.hash(group, blocks);
            for stream in group {
                stream.advance(blocks);
            }
            streams.retain(|stream| stream.remaining_bytes() > 0);
        }
    }

    /// Streams that are hashed side by side at most.
    fn streams_max(self) -> usize {
        match self {
            Instructions::General => 2,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => x86::AVX2_WIDTH_MAX,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => x86::AVX512_WIDTH_MAX,
        }
    }

    /// Adds the next `blocks` blocks of each stream to its state. One is fastest in general registers, two
    /// where there is no AVX-512.
    fn hash(self, streams: &mut [Stream<'_>], blocks: usize) {
        match (streams, self) {
            ([], _) => {}
            ([one], _) => {
                let data = one.run();
                scalar::hash([&mut *one.state], [data], blocks);
            }
            // SAFETY: `self` was detected, or a test saw that the processor has it.
            #[cfg(target_arch = "x86_64")]
            (streams, Instructions::Avx512) => unsafe { x86::avx512(streams, blocks) },
            ([one, two], _) => {
                let data = [one.run(), two.run()];
                scalar::hash([&mut *one.state, &mut *two.state], data, blocks);
            }
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            (streams, Instructions::Avx2) => unsafe { x86::avx2(streams, blocks) },
            (_, Instructions::General) => unreachable!("general registers take two streams"),
        }
    }
}

impl<'a> Stream<'a> {
    /// `tail` is one block or none, `data` any number of whole blocks.
    pub fn new(state: &'a mut [u32; 4], tail: &'a [u8], data: &'a [u8]) -> Stream<'a> {
        Stream { state, tail, data }
    }

    /// The bytes that come next and lie together: whole blocks, at least one unless nothing remains.
    pub fn run(&self) -> &'a [u8] {
        if self.tail.is_empty() {
            self.data
        } else {
            self.tail
        }
    }

    /// Adds all that there is to the state.
    pub fn hash_alone(self) {
        for data in [self.tail, self.data] {
            scalar::hash([&mut *self.state], [data], data.len() / BLOCK_BYTES);
        }
    }

    fn remaining_bytes(&self) -> usize {
        self.tail.len() + self.data.len()
    }

    fn advance(&mut self, blocks: usize) {
        let run = if self.tail.is_empty() {
            &mut self.data
        } else {
            &mut self.tail
        };
        *run = &run[blocks * BLOCK_BYTES..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::md5::testing::{bytes, expected};

    /// Every path that this processor can take.
    fn every_path() -> Vec<Instructions> {
        let mut paths = vec![Instructions::General];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                paths.push(Instructions::Avx2);
            }
            if Instructions::detect() == Instructions::Avx512 {
                paths.push(Instructions::Avx512);
            }
        }
        paths
    }

    /// Hashes `lengths.len()` messages in chunks of the lengths that `chunk_bytes` names for stream and round.
    fn check(path: Instructions, lengths: &[usize], chunk_bytes: impl Fn(usize, usize) -> usize) {
        let messages: Vec<Vec<u8>> = lengths
            .iter()
            .enumerate()
            .map(|(i, length)| bytes(i, *length))
            .collect();
        let mut hashes = vec![Md5::new(); messages.len()];
        let mut rests: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        let mut round = 0;
        while rests.iter().any(|rest| !rest.is_empty()) {
            let mut jobs = Vec::new();
            for (i, (md5, rest)) in hashes.iter_mut().zip(&mut rests).enumerate() {
                let (chunk, after) = rest.split_at(chunk_bytes(i, round).min(rest.len()));
                *rest = after;
                jobs.push((md5, chunk));
            }
            path.update_many(&mut jobs);
            round += 1;
        }
        for (i, (md5, message)) in hashes.into_iter().zip(&messages).enumerate() {
            assert_eq!(
                md5.finish(),
                expected(message),
                "{path:?}, stream {i} of {lengths:?}"
            );
        }
    }

    #[test]
    fn one_to_forty_streams_of_one_length() {
        for path in every_path() {
            for streams in 1..=40 {
                check(path, &vec![64 * 9; streams], |_, _| usize::MAX);
                check(path, &vec![1000; streams], |_, _| usize::MAX);
            }
        }
    }

    #[test]
    fn one_to_forty_streams_of_differing_lengths() {
        for path in every_path() {
            for streams in 1..=40 {
                let lengths: Vec<usize> = (0..streams).map(|i| (i * i * 97 + streams * 31) % 5000).collect();
                check(path, &lengths, |_, _| usize::MAX);
            }
        }
    }

    #[test]
    fn tails_of_every_length_in_lanes() {
        for path in every_path() {
            for streams in [3, 7, 13, 20, 31, 70] {
                check(path, &vec![3000; streams], |i, round| {
                    1 + (i * 7 + round * 61) % 300
                });
            }
        }
    }

    #[test]
    fn few_long_ones_among_many_short() {
        for path in every_path() {
            let lengths: Vec<usize> = (0..40)
                .map(|i| if i % 13 == 5 { 100_000 } else { i * 3 })
                .collect();
            check(path, &lengths, |_, _| usize::MAX);
        }
    }

    #[test]
    fn messages_at_odd_addresses() {
        for path in every_path() {
            let data = bytes(3, 2000);
            for streams in [2, 4, 8, 16, 24, 32] {
                let messages: Vec<&[u8]> = (0..streams).map(|i| &data[i..1500 + 2 * i]).collect();
                let mut hashes = vec![Md5::new(); streams];
                let mut jobs: Vec<_> = hashes.iter_mut().zip(messages.iter().copied()).collect();
                path.update_many(&mut jobs);
                for (md5, message) in hashes.into_iter().zip(messages) {
                    assert_eq!(md5.finish(), expected(message));
                }
            }
        }
    }

    #[test]
    fn nothing_to_hash() {
        update_many(&mut []);
        let mut hashes = [Md5::new(), Md5::new()];
        let [first, second] = &mut hashes;
        update_many(&mut [(first, &[]), (second, &[])]);
        assert_eq!(hashes[1].clone().finish(), expected(&[]));
    }
}
