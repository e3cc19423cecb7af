//! Bytes that follow from a seed, so that any range of any body can be checked without keeping it.
//!
//! Invariant: two bodies of different seeds differ in nearly every byte, and so do two places of one body: a
//! block of another version, or from another place, is told.

/// A run of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    pub seed: u64,
    pub length: u64,
}

/// What a body holds: runs, one behind the other.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Content {
    pub runs: Vec<Run>,
}

impl Content {
    pub fn of(seed: u64, length: u64) -> Content {
        Content {
            runs: vec![Run { seed, length }],
        }
    }

    pub fn length(&self) -> u64 {
        self.runs.iter().map(|run| run.length).sum()
    }

    /// Puts the bytes from `at` on into `out`.
    pub fn fill(&self, at: u64, out: &mut [u8]) {
        let (mut start, mut filled) = (0, 0);
        for run in &self.runs {
            let from = (at + filled as u64).saturating_sub(start);
            if from < run.length && filled < out.len() {
                let count = ((run.length - from) as usize).min(out.len() - filled);
                run.fill(from, &mut out[filled..filled + count]);
                filled += count;
            }
            start += run.length;
        }
        assert!(filled == out.len(), "bytes behind the end of a body");
    }

    /// Whether `bytes` are what lies from `at` on.
    pub fn is_at(&self, at: u64, bytes: &[u8]) -> bool {
        let mut expected = vec![0; bytes.len()];
        self.fill(at, &mut expected);
        expected == bytes
    }
}

impl Run {
    fn fill(&self, mut at: u64, mut out: &mut [u8]) {
        while !out.is_empty() {
            let word = self.word(at / 8).to_le_bytes();
            let skip = (at % 8) as usize;
            let count = (8 - skip).min(out.len());
            if count == 8 {
                let whole = out.len() / 8;
                for (index, chunk) in out[..whole * 8].chunks_exact_mut(8).enumerate() {
                    chunk.copy_from_slice(&self.word(at / 8 + index as u64).to_le_bytes());
                }
                at += whole as u64 * 8;
                out = &mut out[whole * 8..];
                continue;
            }
            out[..count].copy_from_slice(&word[skip..skip + count]);
            at += count as u64;
            out = &mut out[count..];
        }
    }

    fn word(&self, index: u64) -> u64 {
        (self.seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }
}
