//! Feeds what the fuzzer makes to checks/value.rs, which says what is checked.
#![no_main]

#[path = "../checks/value.rs"]
mod value;

libfuzzer_sys::fuzz_target!(|data: &[u8]| value::check(data));
