//! Which volumes make up a set: what was found at the places that were given is judged here, before anything is changed.
//!
//! Pure: superblocks in, a verdict out. Each superblock lists the members of its set. The list only ever grows, so the
//! longest one counts. A start raises the boot epoch of every member, those that are behind first; so whatever starts
//! were cut off, no member is behind another by more than one.

use super::error::VolumeError;
use super::superblock::{Id, Superblock};
use crate::limits::VOLUMES_MAX;
use std::path::{Path, PathBuf};

/// What a place that was given holds.
pub(super) enum Found<'a> {
    /// Nothing yet.
    Empty,
    Volume(&'a Superblock),
}

/// What the places that were given are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A set yet to be made, or one whose making was cut off before its first start.
    New,
    /// The members of a set.
    Set {
        /// All of them.
        members: Vec<Id>,
        /// Members, by their place in the set, that were not given.
        missing: Vec<usize>,
        /// Empty places, by their place among what was given.
        empty: Vec<usize>,
        /// The last start.
        boot_epoch: u32,
    },
}

/// Judges what was found at each place.
///
/// # Errors
/// Whatever can never be right: volumes of several sets, one twice, an old copy.
pub(super) fn judge(found: &[(&Path, Found<'_>)]) -> Result<Verdict, VolumeError> {
    if found.len() > VOLUMES_MAX {
        return Err(VolumeError::TooMany { count: found.len() });
    }
    let volumes: Vec<(&Path, &Superblock)> = found
        .iter()
        .filter_map(|(path, found)| match found {
            Found::Volume(superblock) => Some((*path, *superblock)),
            Found::Empty => None,
        })
        .collect();
    let is_empty = |(_, (_, found)): &(usize, &(&Path, Found<'_>))| matches!(found, Found::Empty);
    let empty: Vec<usize> = found
        .iter()
        .enumerate()
        .filter(is_empty)
        .map(|(at, _)| at)
        .collect();
    let Some(&(first, longest)) = volumes.iter().max_by_key(|(_, one)| one.members.len()) else {
        return Ok(Verdict::New);
    };
    let boot_epoch = volumes.iter().map(|(_, one)| one.boot_epoch).max().unwrap_or(0);
    if boot_epoch == 0 && found.len() == longest.members.len() && !empty.is_empty() {
        return Ok(Verdict::New);
    }
    for (at, &(path, superblock)) in volumes.iter().enumerate() {
        if superblock.set != longest.set
            || superblock.shape.segment_size_bytes != longest.shape.segment_size_bytes
        {
            let (path, first) = (path.to_owned(), first.to_owned());
            return Err(VolumeError::OtherSet { path, first });
        }
        let before = volumes[..at]
            .iter()
            .find(|(_, one)| one.volume == superblock.volume);
        if let Some((before, _)) = before {
            return Err(VolumeError::Doubled {
                first: before.to_path_buf(),
                second: path.to_owned(),
            });
        }
        if !longest.members.contains(&superblock.volume) {
            let (path, first) = (path.to_owned(), first.to_owned());
            return Err(VolumeError::OtherSet { path, first });
        }
        if superblock.boot_epoch + 1 < boot_epoch {
            return Err(VolumeError::Stale {
                path: path.to_owned(),
                start: superblock.boot_epoch,
                newest: boot_epoch,
            });
        }
    }
    let is_missing = |id: &Id| volumes.iter().all(|(_, one)| one.volume != *id);
    let members = longest.members.iter().enumerate();
    Ok(Verdict::Set {
        missing: members
            .filter(|(_, id)| is_missing(id))
            .map(|(at, _)| at)
            .collect(),
        members: longest.members.clone(),
        empty,
        boot_epoch,
    })
}

impl Verdict {
    /// The refusal of a set that is not whole, or of something beside it; `None` for what can be started.
    pub fn refusal(&self, paths: &[PathBuf]) -> Option<VolumeError> {
        let Verdict::Set {
            members,
            missing,
            empty,
            ..
        } = self
        else {
            return None;
        };
        let given = |at: &usize| paths[*at].clone();
        if !missing.is_empty() {
            return Some(VolumeError::Missing {
                missing: missing.iter().map(|at| at + 1).collect(),
                members: members.len(),
                empty: empty.iter().map(given).collect(),
            });
        }
        let first = empty.first()?;
        let is_member = |at: &usize| !empty.contains(at);
        Some(VolumeError::NotAMember {
            path: paths[*first].clone(),
            members: (0..paths.len()).filter(is_member).map(|at| given(&at)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::VolumeShape;

    fn member(set: u8, volume: u8, members: &[u8], boot_epoch: u32) -> Superblock {
        Superblock {
            set: [set; 16],
            volume: [volume; 16],
            members: members.iter().map(|&id| [id; 16]).collect(),
            shape: VolumeShape {
                segment_size_bytes: 1 << 20,
                segments_max: 256,
            },
            boot_epoch,
            segments_known: 0,
            writes: 1,
            is_old: false,
        }
    }

    /// The verdict on volumes at `/0`, `/1`…; `None` is an empty place.
    fn judged(found: &[Option<Superblock>]) -> (Result<Verdict, VolumeError>, Vec<PathBuf>) {
        let paths: Vec<PathBuf> = (0..found.len()).map(|at| format!("/{at}").into()).collect();
        let pairs = paths.iter().zip(found).map(|(path, found)| {
            let found = found.as_ref().map_or(Found::Empty, Found::Volume);
            (path.as_path(), found)
        });
        let pairs: Vec<_> = pairs.collect();
        (judge(&pairs), paths.clone())
    }

    fn refusal(found: &[Option<Superblock>]) -> String {
        let (verdict, paths) = judged(found);
        match verdict {
            Err(error) => error.to_string(),
            Ok(verdict) => verdict.refusal(&paths).expect("a refusal").to_string(),
        }
    }

    #[test]
    fn all_members_in_any_order_are_a_set() {
        let (verdict, paths) = judged(&[Some(member(1, 8, &[7, 8], 4)), Some(member(1, 7, &[7, 8], 5))]);
        let verdict = verdict.unwrap();
        let whole = Verdict::Set {
            members: vec![[7; 16], [8; 16]],
            missing: vec![],
            empty: vec![],
            boot_epoch: 5,
        };
        assert_eq!(verdict, whole);
        assert!(verdict.refusal(&paths).is_none());
    }

    #[test]
    fn empty_places_are_a_new_set_and_so_is_one_whose_making_was_cut_off() {
        assert_eq!(judged(&[None, None]).0.unwrap(), Verdict::New);
        let cut_off = [Some(member(1, 7, &[7, 8], 0)), None];
        assert_eq!(judged(&cut_off).0.unwrap(), Verdict::New);
        let started = [Some(member(1, 7, &[7, 8], 1)), None];
        assert!(
            refusal(&started)
                .contains("volume 2 of the 2 of the set is missing (/1 is empty: is it mounted?)")
        );
    }

    #[test]
    fn what_is_missing_foreign_doubled_or_old_is_refused_with_words_that_help() {
        let seven = || Some(member(1, 7, &[7, 8], 5));
        for (found, words) in [
            (
                vec![seven()],
                "volume 2 of the 2 of the set is missing: give --data for each, or --degraded",
            ),
            (
                vec![Some(member(1, 8, &[6, 7, 8], 5))],
                "volumes 1, 2 of the 3 of the set are missing",
            ),
            (
                vec![seven(), Some(member(2, 8, &[7, 8], 5))],
                "does not belong to the set",
            ),
            (
                vec![seven(), Some(member(1, 9, &[9], 5))],
                "/1 does not belong to the set of /0",
            ),
            (vec![seven(), seven()], "/0 and /1 are one volume"),
            (
                vec![seven(), Some(member(1, 8, &[7, 8], 3))],
                "/1 has seen start 3, and the others of its set start 5",
            ),
            (
                vec![Some(member(1, 7, &[7], 5)), None],
                "weft format --join /0 /1",
            ),
        ] {
            let told = refusal(&found);
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn a_member_whose_joining_was_cut_off_is_one() {
        // It knows of itself; the one that was there before does not yet.
        let (verdict, paths) = judged(&[Some(member(1, 7, &[7], 5)), Some(member(1, 8, &[7, 8], 5))]);
        assert!(verdict.unwrap().refusal(&paths).is_none());
        let (verdict, paths) = judged(&[Some(member(1, 7, &[7], 5))]);
        assert!(verdict.unwrap().refusal(&paths).is_none());
    }

    #[test]
    fn more_than_a_set_may_have_are_refused() {
        let found: Vec<Option<Superblock>> = (0..=VOLUMES_MAX).map(|_| None).collect();
        assert!(matches!(judged(&found).0, Err(VolumeError::TooMany { .. })));
    }
}
