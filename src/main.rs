//! The `weft` program: flags, then a valid configuration, then the daemon; an exit code.
//!
//! Exit codes: 0 stopped as asked, 1 could not start or go on, 2 what was given is wrong. Every failure is one
//! line on standard error that says what to do next.

use std::io::Write;
use std::process::ExitCode;
use weft::config::{Config, flags};
use weft::server;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let raw = match flags::read() {
        Ok(raw) => raw,
        Err(told) => {
            // Help, the version, or what is wrong with the flags. Where it cannot be printed, the code remains.
            let _ = told.print();
            return ExitCode::from(told.exit_code() as u8);
        }
    };
    let config = match Config::from_raw(raw) {
        Ok(config) => config,
        Err(error) => return fail(&error, EXIT_USAGE),
    };
    match server::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_usage() => fail(&error, EXIT_USAGE),
        Err(error) => fail(&error, EXIT_FAILED),
    }
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    // `eprintln` panics when standard error is closed.
    let _ = writeln!(std::io::stderr(), "weft: {error}");
    ExitCode::from(code)
}
