//! Feeds what the fuzzer makes to checks/policy.rs, which says what is checked.
#![no_main]

#[path = "../checks/policy.rs"]
mod policy;

libfuzzer_sys::fuzz_target!(|data: &[u8]| policy::check(data));
