//! Feeds what the fuzzer makes to checks/xml.rs, which says what is checked.
#![no_main]

#[path = "../checks/xml.rs"]
mod xml;

libfuzzer_sys::fuzz_target!(|data: &[u8]| xml::check(data));
