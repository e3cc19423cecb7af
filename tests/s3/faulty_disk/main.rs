//! A file system in memory that forgets, fails, hangs and fills up on command: test equipment.
//!
//! `faulty-disk MOUNTPOINT` mounts it (as root, through /dev/fuse) and then obeys one command a line on standard
//! input, each answered by one line on standard output, `ok ...` or `error ...`. At the end of its input it unmounts.
//!
//! | command | what it does |
//! | --- | --- |
//! | `cut SEED` | the power goes, in the middle of the next write if one comes soon; everything fails until `restore` |
//! | `restore` | the power is back: what was not synced is gone, kept or torn |
//! | `fault WHAT HOW [file=GLOB] [from=BYTE] [to=BYTE] [below=LENGTH] [times=N]` | from now on some requests fare badly ([`faults`]) |
//! | `clear` | no more faults; requests that hang are carried out |
//! | `room BYTES` | files may have so many bytes together, preallocated or not |
//! | `thin BYTES` | so many bytes may be written, whatever was preallocated |
//! | `hanging` | how many requests hang |
//! | `seen` | requests so far by kind |
//!
//! [`store`] has the files and what a power cut leaves of them, [`mount`] the kernel's side.

mod faults;
mod mount;
mod store;

use fuser::{Config, MountOption, Session};
use mount::Disk;
use std::io::{BufRead, Write};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let Some(mountpoint) = std::env::args_os().nth(1) else {
        eprintln!("faulty-disk: give a directory to mount on");
        return ExitCode::from(2);
    };
    let disk = Disk::default();
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("faulty-disk".to_owned())];
    let session = Session::new(disk.clone(), &mountpoint, &config).and_then(Session::spawn);
    let session = match session {
        Ok(session) => session,
        Err(error) => {
            eprintln!("faulty-disk: cannot mount on {}: {error}", mountpoint.display());
            return ExitCode::FAILURE;
        }
    };
    say("ok mounted");
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match obey(&disk, &line) {
            Ok(told) => say(format!("ok {told}").trim_end()),
            Err(wrong) => say(&format!("error {wrong}")),
        }
    }
    disk.clear();
    // Lazily: what a killed daemon has open is closed a moment after its end. The session ends with this process.
    let unmounted = Command::new("umount").arg("--lazy").arg(&mountpoint).status();
    drop(session.join());
    match unmounted {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) | Err(_) => ExitCode::FAILURE,
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    // Whoever is gone reads no answer.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn obey(disk: &Disk, line: &str) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["cut", seed] => Ok(disk.cut(number(seed)?)),
        ["restore"] => disk.restore().map(|()| String::new()),
        ["fault", ref rest @ ..] => disk.fault(faults::Rule::parse(rest)?).map(|()| String::new()),
        ["clear"] => Ok(format!("released={}", disk.clear())),
        ["room", bytes] => disk.bound(|store| &mut store.room_bytes, number(bytes)?),
        ["thin", bytes] => disk.bound(|store| &mut store.thin_bytes, number(bytes)?),
        ["hanging"] => Ok(disk.hanging().to_string()),
        ["seen"] => Ok(disk.seen()),
        _ => Err(format!("no such command: {line}")),
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}
