//! Feeds what the fuzzer makes to checks/index.rs, which says what is checked.
#![no_main]

#[path = "../checks/index.rs"]
mod index;

libfuzzer_sys::fuzz_target!(|data: &[u8]| index::check(data));
