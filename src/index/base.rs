//! Which manifests count: those of the latest boot of which one says that every core had written one.
//!
//! Invariant: whoever reads a volume, a start or a check, goes by the same manifests and reads the same part of each log.

use super::{LogPosition, Manifest};
use crate::log::{LOG_START, SegmentHeader};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// The manifests that count. Without a confirmed one there are none, and all logs count.
#[derive(Default)]
pub struct Base {
    /// The boot that wrote them.
    pub epoch: Option<u32>,
    /// How many cores that boot had.
    pub cores: u16,
    /// The latest of each core.
    pub manifests: BTreeMap<u16, Manifest>,
    /// Where they, and the runs that they name, lie.
    pub segments: BTreeSet<u32>,
}

impl Base {
    /// From the manifests that were found, each with the segment that it lies in.
    pub fn of<'a>(found: impl Iterator<Item = (u32, &'a Manifest)> + Clone) -> Base {
        let confirmed = found.clone().filter(|(_, manifest)| manifest.is_confirmed);
        let Some((_, latest)) = confirmed.max_by_key(|(_, manifest)| manifest.epoch) else {
            return Base::default();
        };
        let mut base = Base {
            epoch: Some(latest.epoch),
            cores: latest.cores,
            ..Base::default()
        };
        for (segment, manifest) in found.filter(|(_, manifest)| manifest.epoch == latest.epoch) {
            base.segments.insert(segment);
            let is_newer = |known: &Manifest| known.number < manifest.number;
            if base.manifests.get(&manifest.core).is_none_or(is_newer) {
                base.manifests.insert(manifest.core, manifest.clone());
            }
        }
        let runs = base.manifests.values().flat_map(|manifest| &manifest.runs);
        let extents = runs.flat_map(|place| &place.extents);
        base.segments.extend(extents.map(|extent| extent.segment));
        base
    }

    /// Cores whose manifest is lost.
    pub fn missing(&self) -> impl Iterator<Item = u16> {
        (0..self.cores).filter(|core| !self.manifests.contains_key(core))
    }

    /// Cores whose latest manifest is lost: the log in which an older one's runs end is freed only by a later one.
    /// `is_there` says whether a segment of that generation was found.
    pub fn outdated(&self, is_there: impl Fn(u64) -> bool) -> u64 {
        let manifests = self.manifests.values();
        let ends = manifests.map(|manifest| manifest.covered.generation);
        ends.filter(|&generation| generation > 0 && !is_there(generation))
            .count() as u64
    }

    /// From where on a log is not in the runs; `None` if all of it is.
    pub fn tail_of(&self, log: &SegmentHeader) -> Option<LogPosition> {
        let whole = LogPosition {
            generation: log.generation,
            offset: LOG_START,
            batch: 0,
        };
        let Some(base) = self.epoch else {
            return Some(whole);
        };
        if log.epoch != base {
            return (log.epoch > base).then_some(whole);
        }
        let Some(manifest) = self.manifests.get(&log.core) else {
            return Some(whole);
        };
        match log.generation.cmp(&manifest.covered.generation) {
            Ordering::Less => None,
            Ordering::Equal => Some(manifest.covered),
            Ordering::Greater => Some(whole),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::SegmentKind;

    fn manifest(epoch: u32, core: u16, number: u64, is_confirmed: bool) -> Manifest {
        Manifest {
            epoch,
            core,
            cores: 2,
            number,
            is_confirmed,
            covered: LogPosition {
                generation: 10 * u64::from(epoch) + number,
                offset: 16_384,
                batch: 2,
            },
            runs: Vec::new(),
        }
    }

    fn log(epoch: u32, core: u16, generation: u64) -> SegmentHeader {
        SegmentHeader {
            kind: SegmentKind::Log,
            segment: 0,
            generation,
            epoch,
            core,
            volume_id: [0; 16],
            segment_size_bytes: 1 << 20,
        }
    }

    #[test]
    fn the_latest_boot_with_a_confirmed_manifest_counts_and_of_each_core_its_latest() {
        let found = [
            (1, manifest(1, 0, 9, true)),
            (2, manifest(2, 0, 3, false)),
            (3, manifest(2, 0, 4, true)),
            (4, manifest(3, 0, 1, false)),
        ];
        let base = Base::of(found.iter().map(|(segment, manifest)| (*segment, manifest)));
        assert_eq!((base.epoch, base.cores), (Some(2), 2));
        assert_eq!(base.manifests[&0].number, 4);
        assert_eq!(base.missing().collect::<Vec<_>>(), [1]);
        assert_eq!(base.segments, BTreeSet::from([2, 3]));
        let from =
            |epoch, core, generation| base.tail_of(&log(epoch, core, generation)).map(|from| from.batch);
        assert_eq!(from(1, 0, 99), None);
        assert_eq!(from(2, 0, 23), None);
        assert_eq!(from(2, 0, 24), Some(2));
        assert_eq!(from(2, 0, 25), Some(0));
        assert_eq!(from(2, 1, 1), Some(0));
        assert_eq!(from(3, 0, 1), Some(0));
    }

    #[test]
    fn without_a_confirmed_manifest_all_logs_count() {
        let found = [(1, manifest(1, 0, 9, false))];
        let base = Base::of(found.iter().map(|(segment, manifest)| (*segment, manifest)));
        assert_eq!((base.epoch, base.missing().count()), (None, 0));
        assert!(base.tail_of(&log(1, 0, 1)).is_some());
    }
}
