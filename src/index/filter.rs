//! Bloom filters of the keys of one leaf: what a filter denies is not in the leaf.
//!
//! Ten bits a key and seven probes let about one absent key in a hundred through. A filter depends on the keys
//! alone, whatever their order.

use xxhash_rust::xxh3::xxh3_64;

const BITS_PER_KEY: usize = 10;
const PROBES: u32 = 7;
const BYTES_MIN: usize = 8;

/// What filters know of a key.
pub(super) fn hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// Bytes of a filter of that many keys.
pub(super) fn bytes_for(keys: usize) -> usize {
    (keys * BITS_PER_KEY).div_ceil(8).max(BYTES_MIN)
}

/// Adds to `out` the filter of the keys with these hashes.
pub(super) fn write(hashes: &[u64], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes_for(hashes.len()), 0);
    let filter = &mut out[start..];
    for &hash in hashes {
        for bit in bits(hash, filter.len()) {
            filter[bit / 8] |= 1 << (bit % 8);
        }
    }
}

/// Whether a key with that hash may be among those of the filter. A filter of no bytes denies nothing.
pub(super) fn may_hold(filter: &[u8], hash: u64) -> bool {
    filter.is_empty() || bits(hash, filter.len()).all(|bit| filter[bit / 8] & (1 << (bit % 8)) != 0)
}

/// The bits of a key in a filter of `bytes` bytes: both halves of the hash, the second added again and again.
fn bits(hash: u64, bytes: usize) -> impl Iterator<Item = usize> {
    let (start, stride) = (hash as u32, (hash >> 32) as u32 | 1);
    let bits = bytes as u64 * 8;
    (0..PROBES).map(move |probe| {
        let spread = start.wrapping_add(probe.wrapping_mul(stride));
        ((u64::from(spread) * bits) >> 32) as usize
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_never_denied_and_little_else_passes() {
        for keys in [1_u64, 2, 7, 25, 30, 100, 200] {
            let (mut passed, mut asked) = (0, 0);
            for filter_number in 0..200_u64 {
                let name = |number: u64| hash(&[filter_number, number].map(u64::to_le_bytes).concat());
                let hashes: Vec<u64> = (0..keys).map(name).collect();
                let mut filter = Vec::new();
                write(&hashes, &mut filter);
                assert_eq!(filter.len(), bytes_for(hashes.len()));
                assert!(hashes.iter().all(|&hash| may_hold(&filter, hash)));
                asked += 1000;
                passed += (keys..keys + 1000)
                    .filter(|&n| may_hold(&filter, name(n)))
                    .count();
            }
            assert!(
                passed * 60 < asked,
                "{passed} of {asked} absent keys pass a filter of {keys}"
            );
        }
    }

    #[test]
    fn golden_bytes() {
        let mut filter = Vec::new();
        write(&[0x0123_4567_89ab_cdef, u64::MAX, 0], &mut filter);
        assert_eq!(filter, [1, 0, 0, 0, 28, 0, 0, 128]);
    }

    #[test]
    fn no_filter_denies_nothing() {
        assert!(may_hold(&[], hash(b"key")));
        assert!(!may_hold(&[0; 8], hash(b"key")));
    }
}
