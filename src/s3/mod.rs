//! The S3 protocol: who asks for what, and how the answer is worded.
//!
//! The modules listed here are pure: bytes and values in, values and bytes out. They name no runtime,
//! clock, socket or file, so tables and fuzzers drive them alone.

pub mod checksum;
pub mod conditions;
pub mod error;
pub mod metadata;
pub mod names;
pub mod range;
pub mod xml;
