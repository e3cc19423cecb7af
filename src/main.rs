//! The `weft` program: flags, then a valid configuration, then the daemon or one of its tools; an exit code.
//!
//! Exit codes: 0 stopped as asked, 1 could not start or go on, 2 what was given is wrong. Every failure is one
//! line on standard error that says what to do next.

use std::io::Write;
use std::process::ExitCode;
use weft::config::flags::{self, Command, VolumesFlags};
use weft::config::{Config, Format, RawConfig, RawFormat};
use weft::{server, volumes};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let command = match flags::read() {
        Ok(command) => command,
        Err(told) => {
            // Help, the version, or what is wrong with the flags. Where it cannot be printed, the code remains.
            let _ = told.print();
            return ExitCode::from(told.exit_code() as u8);
        }
    };
    match command {
        Command::Serve(raw) => serve(raw),
        Command::Format(raw) => format(raw),
        Command::Volumes(flags) => show_volumes(&flags),
    }
}

fn serve(raw: RawConfig) -> ExitCode {
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

fn format(raw: RawFormat) -> ExitCode {
    let format = match Format::from_raw(raw) {
        Ok(format) => format,
        Err(error) => return fail(&error, EXIT_USAGE),
    };
    match volumes::format(&format) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_usage() => fail(&error, EXIT_USAGE),
        Err(error) => fail(&error, EXIT_FAILED),
    }
}

/// Shows those that can be looked at, and says why others cannot.
fn show_volumes(flags: &VolumesFlags) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    let mut shown = Vec::new();
    for path in &flags.paths {
        match volumes::summarise(path) {
            Ok(summary) => shown.push(summary),
            Err(error) => code = fail(&error, EXIT_FAILED),
        }
    }
    if shown.iter().any(|volume| volume.errors > 0) {
        code = ExitCode::from(EXIT_FAILED);
    }
    let text = match flags.json {
        true => volumes::json(&shown),
        false => volumes::table(&shown),
    };
    let _ = std::io::stdout().write_all(text.as_bytes());
    code
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    // `eprintln` panics when standard error is closed.
    let _ = writeln!(std::io::stderr(), "weft: {error}");
    ExitCode::from(code)
}
