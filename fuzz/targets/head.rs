//! Feeds what the fuzzer makes to checks/head.rs, which says what is checked.
#![no_main]

#[path = "../checks/head.rs"]
mod head;

libfuzzer_sys::fuzz_target!(|data: &[u8]| head::check(data));
