//! Weft: an S3-compatible object store for one Linux machine, one thread per core.
//!
//! The layers, each naming only what stands below it: `server`, `s3`, `engine`, then `http`, `index`,
//! `log` and `io`. ARCHITECTURE.md is the map.

pub mod check;
pub mod config;
pub mod engine;
pub mod http;
pub mod index;
pub mod io;
pub mod limits;
pub mod log;
pub mod policy;
pub mod s3;
pub mod server;
pub mod volumes;
