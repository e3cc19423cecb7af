//! Faults planted in the engine, and how many seeds each takes to be found.
//!
//! A fault that is not found is a hole in the simulation. Needs the feature `planted`.

use crate::cleaning;
use crate::damage::drill;
use crate::shrink::{Trim, shrink};
use crate::try_seed;
use crate::workload::Tally;
use std::cell::RefCell;
use std::rc::Rc;
use weft::engine::planted::{Fault, plant};

/// Each fault, and within how many seeds it must be found.
const FAULTS: [(Fault, u64); 22] = [
    (Fault::EarlyAck, 20),
    (Fault::EarlyIndex, 20),
    (Fault::LogUnsynced, 20),
    (Fault::DataUnsynced, 40),
    (Fault::UncoveredFreed, 200),
    (Fault::TombstoneDropped, 40),
    (Fault::DroppedEarly, 400),
    (Fault::ManifestUnsynced, 200),
    (Fault::RunUnsynced, 200),
    (Fault::PoisonIgnored, 400),
    (Fault::NoReadGuard, 200),
    (Fault::PendingIgnored, 40),
    (Fault::LogUnsettled, 400),
    (Fault::ManifestUnsettled, 4000),
    (Fault::EmptyEarly, 400),
    (Fault::ReplacedKept, 20),
    (Fault::EarlyRefusal, 400),
    (Fault::StaleCache, 40),
    (Fault::MovedUnchecked, 200),
    (Fault::MovedFreedEarly, 200),
    (Fault::MovedUnsynced, 200),
    (Fault::ConfigurationUnlogged, 40),
];

const SEED_BASE: u64 = 0x91a_0001;

/// The seeds that a fault took, and what gave it away.
fn seeds_to_find(fault: Fault, seeds_max: u64) -> Option<(u64, String)> {
    let tally = Rc::new(RefCell::new(Tally::default()));
    plant(Some(fault));
    let found = (0..seeds_max).find_map(|count| {
        let error = try_seed(SEED_BASE + count, Trim::NONE, &tally).err()?;
        Some((count + 1, error))
    });
    plant(None);
    found
}

/// Crashes alone do not show it: it takes damage in front of what it hides.
#[test]
fn a_watermark_that_batches_pass_is_found_by_damage() {
    plant(Some(Fault::WatermarkKept));
    let found = (0..20).find_map(|seed| Some((seed + 1, drill(seed).err()?)));
    plant(None);
    let (seeds, error) = found.expect("not found by 20 seeds");
    println!("planted WatermarkKept: found by seed {seeds} of 20: {error}");
}

/// Nor does this: nothing is damaged in a life.
#[test]
fn damage_that_is_moved_as_if_good_is_found() {
    plant(Some(Fault::MovedDamage));
    let found = (0..20).find_map(|seed| Some((seed + 1, cleaning::drill(seed).err()?)));
    plant(None);
    let (seeds, error) = found.expect("not found by 20 seeds");
    println!("planted MovedDamage: found by seed {seeds} of 20: {error}");
}

/// A change that is acknowledged too early takes one core, one client and one key to show.
#[test]
fn a_seed_that_fails_is_made_smaller() {
    let tally = Rc::new(RefCell::new(Tally::default()));
    plant(Some(Fault::EarlyAck));
    let failed =
        (0..20).find_map(|count| Some((count, try_seed(SEED_BASE + count, Trim::NONE, &tally).err()?)));
    let (count, error) = failed.expect("a seed that fails");
    let (seed, trim, told) = shrink(SEED_BASE + count, &error);
    let again = try_seed(seed, trim, &tally).err();
    plant(None);
    println!("WEFT_SIM_SEED={seed:#x} WEFT_SIM_TRIM={trim}: {told}");
    assert_eq!(again, Some(told), "what is told does fail");
    for bound in ["cores", "clients", "volumes"] {
        assert_eq!(trim.of(bound), 1, "{bound}");
    }
    assert!(trim.of("crashes") <= 2 && trim.of("keys") <= 4, "{trim}");
}

#[test]
fn every_planted_fault_is_found() {
    let only = std::env::var("WEFT_SIM_FAULT").ok();
    let mut missed = Vec::new();
    for (fault, seeds_max) in FAULTS {
        if only.as_ref().is_some_and(|only| *only != format!("{fault:?}")) {
            continue;
        }
        match seeds_to_find(fault, seeds_max) {
            Some((seeds, error)) => {
                let error: String = error.chars().take(100).collect();
                println!("planted {fault:?}: found by seed {seeds} of {seeds_max}: {error}");
            }
            None => {
                println!("planted {fault:?}: not found by {seeds_max} seeds");
                missed.push(fault);
            }
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
