//! Feeds what the fuzzer makes to checks/log.rs, which says what is checked.
#![no_main]

#[path = "../checks/log.rs"]
mod log;

libfuzzer_sys::fuzz_target!(|data: &[u8]| log::check(data));
