//! The engine on the simulated machine: random work, crashes at any step, restarts with other cores, a model.
//!
//! Each seed is one volume's life; see `life`. Environment: `WEFT_SIM_SEED` runs one seed and prints the
//! last events of a failure, `WEFT_SIM_TRIM` bounds its life; `WEFT_SIM_BASE` sets the first seed; `WEFT_SIM_CRASHES` or `WEFT_SIM_SECONDS`
//! say how long. Neither must be set: `cargo test` runs a few seconds from a fixed base.

mod check;
mod cleaning;
mod content;
mod damage;
mod full;
mod life;
mod listing;
mod model;
mod pending;
#[cfg(feature = "planted")]
mod planted;
mod scrub;
mod shrink;
mod unfinished;
mod uploads;
mod volumes;
mod workload;

use life::{Life, Report};
use shrink::Trim;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};
use weft::io::sim::Rng;
use workload::Tally;

// A tenth of the time went into the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SEED_BASE: u64 = 0x5eed_0001;
const SECONDS: u64 = 15;
const CRASHES_OF_A_SEED_MAX: u64 = 12;
/// Events that a replayed seed prints when it fails.
const TRACE_EVENTS: usize = 400;

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    Some(parsed.unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Crashes that a seed goes through.
fn crashes_of(seed: u64) -> u64 {
    1 + Rng::new(seed ^ 0xc0ffee).below(CRASHES_OF_A_SEED_MAX)
}

fn live(seed: u64, trim: Trim, tally: &Rc<RefCell<Tally>>, trace_events: usize) -> Report {
    let crashes = crashes_of(seed).min(trim.of("crashes"));
    Life::new(seed, trim, tally.clone(), trace_events).run(crashes)
}

/// Runs a seed; says what went wrong with it.
fn try_seed(seed: u64, trim: Trim, tally: &Rc<RefCell<Tally>>) -> Result<Report, String> {
    catch_unwind(AssertUnwindSafe(|| live(seed, trim, tally, 0))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("a panic")
            .to_owned()
    })
}

#[test]
fn nothing_acknowledged_is_lost_by_any_crash() {
    let tally = Rc::new(RefCell::new(Tally::default()));
    if let Some(seed) = from_environment("WEFT_SIM_SEED") {
        let trim = Trim::from_environment();
        let life = Life::new(seed, trim, tally.clone(), 0);
        println!("seed {seed:#x}: {}", life.describe());
        let report = live(seed, trim, &tally, TRACE_EVENTS);
        println!("{}\n{:?}", report.stats, tally.borrow().counts);
        return;
    }
    let base = from_environment("WEFT_SIM_BASE").unwrap_or(SEED_BASE);
    let crashes = from_environment("WEFT_SIM_CRASHES");
    let seconds = from_environment("WEFT_SIM_SECONDS").or(crashes.is_none().then_some(SECONDS));
    let begun = Instant::now();
    let (mut seeds, mut ended, mut boots, mut steps) = (0, 0, 0, 0);
    let mut failures = Vec::new();
    while crashes.is_none_or(|crashes| ended < crashes)
        && seconds.is_none_or(|seconds| begun.elapsed() < Duration::from_secs(seconds))
    {
        let seed = base + seeds;
        seeds += 1;
        match try_seed(seed, Trim::NONE, &tally) {
            Ok(report) => {
                ended += report.stats.crashes + report.stats.kills;
                boots += report.stats.boots;
                steps += report.stats.steps;
            }
            Err(error) => {
                let life = Life::new(seed, Trim::NONE, tally.clone(), 0).describe();
                eprintln!("seed {seed:#x} failed (replay: WEFT_SIM_SEED={seed:#x}): {error}\n    {life}");
                let (smaller, trim, error) = shrink::shrink(seed, &error);
                eprintln!("smaller: WEFT_SIM_SEED={smaller:#x} WEFT_SIM_TRIM={trim}: {error}");
                failures.push(seed);
                if failures.len() as u64 >= from_environment("WEFT_SIM_FAILURES").unwrap_or(1) {
                    break;
                }
            }
        }
    }
    println!(
        "seeds {base:#x} to {:#x}: {ended} crashes, {boots} boots, {steps} steps in {:.1} s",
        base + seeds - 1,
        begun.elapsed().as_secs_f64()
    );
    println!("{:#?}", tally.borrow().counts);
    assert!(
        failures.is_empty(),
        "replay with WEFT_SIM_SEED={:#x}; all failed: {failures:x?}",
        failures[0]
    );
}

#[test]
fn a_seed_does_the_same_each_time() {
    for seed in [3, 4, 5] {
        let tally = Rc::new(RefCell::new(Tally::default()));
        let (first, second) = (
            live(seed, Trim::NONE, &tally, 0),
            live(seed, Trim::NONE, &tally, 0),
        );
        assert_eq!(first.fingerprint, second.fingerprint, "seed {seed}");
        assert_eq!(first.stats, second.stats, "seed {seed}");
    }
}
