//! The `weft` program: flags in, exit code out.
fn main() {}
