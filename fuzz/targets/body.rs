//! Feeds what the fuzzer makes to checks/body.rs, which says what is checked.
#![no_main]

#[path = "../checks/body.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::check(data));
