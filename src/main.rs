//! The `weft` program: flags, then a valid configuration, then the daemon or one of its tools; an exit code.
//!
//! Exit codes of the daemon: 0 stopped as asked, 1 could not start or go on, 2 what was given is wrong. Of `check` and
//! `inspect`: 0 all is well, 1 something is damaged, 2 there is nothing to say. Every failure is one line on standard
//! error that says what to do next.

use std::io::Write;
use std::process::ExitCode;
use weft::config::flags::{self, CheckFlags, Command, InspectFlags, VolumesFlags};
use weft::config::{Config, Format, RawConfig, RawFormat, target};
use weft::{check, server, volumes};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_DAMAGED: u8 = 1;
const EXIT_UNCHECKED: u8 = 2;

fn main() -> ExitCode {
    match flags::read() {
        Ok(Command::Serve(raw)) => serve(*raw),
        Ok(Command::Format(raw)) => format(raw),
        Ok(Command::Volumes(flags)) => show_volumes(&flags),
        Ok(Command::Check(flags)) => check(&flags),
        Ok(Command::Inspect(flags)) => inspect(&flags),
        Err(told) => {
            // Help, the version, or what is wrong with the flags. Where it cannot be printed, the code remains.
            let _ = told.print();
            ExitCode::from(told.exit_code() as u8)
        }
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

fn check(flags: &CheckFlags) -> ExitCode {
    let reports = match check::check(&flags.paths) {
        Ok(reports) => reports,
        Err(error) => return fail(&error, EXIT_UNCHECKED),
    };
    let is_clean = reports.iter().all(|report| report.clean);
    if flags.json {
        say_json(&reports);
    } else {
        reports.iter().for_each(|report| say(&report.to_string()));
    }
    match is_clean {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(EXIT_DAMAGED),
    }
}

fn inspect(flags: &InspectFlags) -> ExitCode {
    let target = match target::parse(flags) {
        Ok(target) => target,
        Err(error) => return fail(&error, EXIT_USAGE),
    };
    match check::inspect(&flags.paths, &target) {
        Ok(shown) if flags.json => say_json(&shown),
        Ok(shown) => say(&shown.to_string()),
        Err(error) => return fail(&error, EXIT_UNCHECKED),
    }
    ExitCode::SUCCESS
}

fn say_json(what: &impl serde::Serialize) {
    let text = serde_json::to_string_pretty(what).expect("reports have no maps with odd keys");
    say(&format!("{text}\n"));
}

/// `print` panics when standard output is closed.
fn say(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    // `eprintln` panics when standard error is closed.
    let _ = writeln!(std::io::stderr(), "weft: {error}");
    ExitCode::from(code)
}
