//! The S3 protocol: who asks for what, and how the answer is worded.
//!
//! `auth`, `checksum`, `conditions`, `error`, `metadata`, `names`, `range`, `subresource` and `xml` are pure:
//! bytes and values in, values and bytes out. They name no runtime, clock, socket or file, so tables and fuzzers drive them
//! alone. `service` is the seam to the server below; `route` and `ops` stand on all of them and the engine.

pub mod access;
pub mod auth;
pub mod checksum;
pub mod conditions;
mod configuration;
pub mod error;
pub mod md5;
pub mod metadata;
pub mod names;
pub mod operation;
mod ops;
mod payload;
pub mod range;
mod refusal;
mod request;
mod route;
pub mod service;
pub mod subresource;
pub mod xml;

pub use route::{error_response, serve};
