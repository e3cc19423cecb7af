//! Feeds what the fuzzer makes to checks/sigv4.rs, which says what is checked.
#![no_main]

#[path = "../checks/sigv4.rs"]
mod sigv4;

libfuzzer_sys::fuzz_target!(|data: &[u8]| sigv4::check(data));
