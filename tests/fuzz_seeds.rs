//! What the fuzz targets check, over their committed seeds and a fixed set of mutations of them.
//!
//! A fuzzer runs for minutes on a nightly compiler; this runs in seconds in every `cargo test`, so that a check that
//! no longer holds, or no longer compiles, is seen at once. See fuzz/README.md.
//!
//! Invariant: no chance from outside. The same seeds give the same inputs on every machine. A failure names the seed
//! file and the number of the mutation, and leaves the input in a file that `cargo fuzz run` takes.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use weft::io::sim::Rng;

#[path = "../fuzz/checks/body.rs"]
mod body;
#[path = "../fuzz/checks/head.rs"]
mod head;
#[path = "../fuzz/checks/index.rs"]
mod index;
#[path = "../fuzz/checks/log.rs"]
mod log;
#[path = "../fuzz/checks/policy.rs"]
mod policy;
#[path = "../fuzz/checks/sigv4.rs"]
mod sigv4;
#[path = "../fuzz/checks/value.rs"]
mod value;
#[path = "../fuzz/checks/xml.rs"]
mod xml;

/// Mutations of each target's seeds.
const MUTATIONS: u64 = 2_000;
/// Changes that one mutation makes, at most.
const CHANGES_MAX: u64 = 4;

#[test]
fn request_heads_hold_their_checks() {
    run("head", head::check);
}

#[test]
fn body_decoders_hold_their_checks() {
    run("body", body::check);
}

#[test]
fn signatures_hold_their_checks() {
    run("sigv4", sigv4::check);
}

#[test]
fn access_policies_hold_their_checks() {
    run("policy", policy::check);
}

#[test]
fn xml_bodies_hold_their_checks() {
    run("xml", xml::check);
}

#[test]
fn logs_hold_their_checks() {
    run("log", log::check);
}

#[test]
fn runs_of_the_index_hold_their_checks() {
    run("index", index::check);
}

#[test]
fn keys_and_values_hold_their_checks() {
    run("value", value::check);
}

#[test]
fn every_target_is_registered_and_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("fuzz/Cargo.toml")).expect("fuzz/Cargo.toml");
    let this = include_str!("fuzz_seeds.rs");
    let checks = names(&root.join("fuzz/checks"));
    assert_eq!(
        checks,
        names(&root.join("fuzz/targets")),
        "a check or its target is missing"
    );
    for name in checks.iter().map(|file| file.trim_end_matches(".rs")) {
        assert!(
            manifest.contains(&format!("path = \"targets/{name}.rs\"")),
            "{name} is no [[bin]]"
        );
        assert!(
            this.contains(&format!("run(\"{name}\", {name}::check)")),
            "{name} is not run here"
        );
    }
}

fn run(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(target);
    let seeds: Vec<Seed> = names(&folder)
        .into_iter()
        .map(|name| Seed {
            bytes: fs::read(folder.join(&name)).expect("a seed"),
            name,
        })
        .collect();
    assert!(!seeds.is_empty(), "no seeds in {}", folder.display());
    for seed in &seeds {
        hold(target, check, &seed.bytes, &format!("seed {}", seed.name));
    }
    for number in 0..MUTATIONS {
        let seed = &seeds[number as usize % seeds.len()];
        let input = mutate(&seed.bytes, &seeds, &mut Rng::new(number));
        hold(
            target,
            check,
            &input,
            &format!("mutation {number}, of seed {}", seed.name),
        );
    }
}

struct Seed {
    name: String,
    bytes: Vec<u8>,
}

/// The names of the files in `folder`, in order.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a name in UTF-8")
        })
        .collect();
    names.sort();
    names
}

/// Runs `check`; if it panics, says on what and keeps the input.
fn hold(target: &str, check: fn(&[u8]), input: &[u8], what: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(input))) {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-seeds-{target}"));
        fs::write(&path, input).expect("keep the input");
        eprintln!("{target} fails on {what}: {}", path.display());
        resume_unwind(panic);
    }
}

/// `bytes` with one to [`CHANGES_MAX`] changes: a bit flipped, the end cut off, the end of another seed put on.
fn mutate(bytes: &[u8], seeds: &[Seed], rng: &mut Rng) -> Vec<u8> {
    let mut input = bytes.to_vec();
    for _ in 0..1 + rng.below(CHANGES_MAX) {
        match rng.below(4) {
            0 => input.truncate(below(rng, input.len() + 1)),
            1 => {
                let other = &seeds[below(rng, seeds.len())].bytes;
                input.truncate(below(rng, input.len() + 1));
                input.extend_from_slice(&other[below(rng, other.len() + 1)..]);
            }
            _ if input.is_empty() => input.push(rng.below(256) as u8),
            _ => {
                let at = below(rng, input.len());
                input[at] ^= 1 << rng.below(8);
            }
        }
    }
    input
}

fn below(rng: &mut Rng, bound: usize) -> usize {
    rng.below(bound as u64) as usize
}
