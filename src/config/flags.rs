//! The command line: flags, their variables, and the help.
//!
//! Only text is read here; [`super::Config::from_raw`] judges it. Credentials come from the environment alone,
//! because everyone on the machine can read a command line.

use super::{RawConfig, RawFormat};
use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

pub const ACCESS_KEY_VARIABLE: &str = "WEFT_ACCESS_KEY";
pub const SECRET_KEY_VARIABLE: &str = "WEFT_SECRET_KEY";

const SERVE_HELP: &str = "\
Examples:
  weft serve --data /srv/weft
      Serves /srv/weft on http://127.0.0.1:9000 to rustfsadmin / rustfssecret.

  WEFT_ACCESS_KEY=me WEFT_SECRET_KEY=my-secret-key \\
  weft serve --data /srv/weft --listen 0.0.0.0:9000 --cores 0-7 --capacity 2TiB
      Serves other machines from CPUs 0 to 7, in at most 2 TiB.

  weft serve --data /srv/weft --domain s3.example.com
      Also takes http://BUCKET.s3.example.com:9000/KEY.

  weft serve --data /srv/weft --admin-listen 127.0.0.1:9001
      Also serves http://127.0.0.1:9001/metrics, in the text format of Prometheus.

  weft serve --data /mnt/disk1/weft --data /mnt/disk2/weft
      Spreads over two disks, from the first start on. Give all of a set's volumes at every start.

  weft format /dev/nvme0n1 && weft serve --data /dev/nvme0n1
      Uses a whole block device, without a file system.

Credentials of the root user (never flags: others could read them):
  WEFT_ACCESS_KEY, WEFT_SECRET_KEY
      Needed unless every --listen is on loopback.

Exit codes:
  0  stopped by SIGTERM or SIGINT, everything acknowledged is on disk
  1  could not start or go on; the message says what to do
  2  the command line or the environment is wrong";

const FORMAT_HELP: &str = "\
Examples:
  weft format /dev/nvme0n1 /dev/nvme1n1
      Makes two empty devices a set, to be served with --data for each.

  weft format --force /dev/nvme0n1
      Does so whatever is on the device. It is destroyed.

  weft format --join /srv/weft /mnt/new/weft
      Adds the empty /mnt/new/weft to the set that /srv/weft is. Name all of its volumes; from then on give all of
      them to weft serve --data. A volume cannot be taken out again.

A directory need not be formatted: weft serve makes a volume of an empty one.

Exit codes:
  0  done
  1  refused, or failed; the message says what to do
  2  the command line is wrong";

const VOLUMES_HELP: &str = "\
Examples:
  weft volumes /srv/weft
      Shows the volume in /srv/weft, whether or not it is served.

  weft volumes --json /dev/nvme0n1 /dev/nvme1n1 | jq '.[].used_bytes'
      The same for programs.

Columns:
  size         what the volume may hold
  used         segments that hold something, live or dead
  live         what is stored; only a running daemon knows
  reclaimable  segments that are there and free to be filled again
  errors       segments that are missing, or whose header cannot be read

Exit codes:
  0  shown
  1  a volume could not be looked at, or has errors
  2  the command line is wrong";

const CHECK_HELP: &str = "\
Examples:
  weft check /srv/weft
      Reads and verifies all that is stored; shows what is damaged: segment, offset, object.

  weft check --json /srv/weft | jq '.[].findings[]'
      The same for programs.

  weft check /mnt/disk1/weft /dev/nvme1n1
      The same of a set: give all of its volumes, in any order.

It changes nothing, and refuses while a daemon runs on the volumes.

Exit codes:
  0  everything is as it was written
  1  something is damaged; the report says what and where
  2  it could not be checked; the message says why";

const INSPECT_HELP: &str = "\
Examples:
  weft inspect /srv/weft
      A line for each segment.

  weft inspect /srv/weft --segment 0000001a
      Its header, and if it is a log its batches and records.

  weft inspect /srv/weft --record 0000001a:8256
      One record, with all that it says.

  weft inspect /srv/weft --key photos/2026/cat.jpg
      Every record of the key in bucket photos, and where the bytes lie.

Of a set, give all volumes, in any order. It changes nothing, and refuses while a daemon runs on them.

Exit codes:
  0  shown
  2  there is no such thing, or it could not be read; the message says why";

/// An S3-compatible object store for one Linux machine.
#[derive(Parser)]
#[command(name = "weft", version, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Serves data directories or devices until SIGTERM or SIGINT
    #[command(after_help = SERVE_HELP)]
    Serve(ServeFlags),
    /// Makes volumes of block devices or directories, or adds some to a set
    #[command(after_help = FORMAT_HELP)]
    Format(FormatFlags),
    /// Shows volumes: their sizes, and what is wrong with them
    #[command(after_help = VOLUMES_HELP)]
    Volumes(VolumesFlags),
    /// Verifies everything that is stored, while no daemon runs
    #[command(after_help = CHECK_HELP)]
    Check(CheckFlags),
    /// Shows a segment, a record, or where a key's bytes lie, while no daemon runs
    #[command(after_help = INSPECT_HELP)]
    Inspect(InspectFlags),
}

/// What the process is to do.
pub enum Command {
    Serve(Box<RawConfig>),
    Format(RawFormat),
    Volumes(VolumesFlags),
    Check(CheckFlags),
    Inspect(InspectFlags),
}

#[derive(Args)]
struct ServeFlags {
    /// Where the data lies: a directory, made if missing, or a block device after weft format; may be repeated (in the
    /// variable: separated by commas). One daemon at a time
    #[arg(
        long,
        value_name = "DIR|DEVICE",
        env = "WEFT_DATA",
        value_delimiter = ',',
        required = true
    )]
    data: Vec<PathBuf>,
    /// If a volume is missing, serve what the others hold, read-only
    #[arg(long, env = "WEFT_DEGRADED")]
    degraded: bool,
    /// Address to listen on; may be repeated (in the variable: separated by commas) [default: 127.0.0.1:9000]
    #[arg(long, value_name = "ADDR:PORT", env = "WEFT_LISTEN", value_delimiter = ',')]
    listen: Vec<String>,
    /// Address that serves /metrics (for Prometheus) and health, to anyone who can reach it [default: none]
    #[arg(long, value_name = "ADDR:PORT", env = "WEFT_ADMIN_LISTEN")]
    admin_listen: Option<String>,
    /// How many cores, as 4, or which CPUs, as 0,2 or 0-3 [default: all that the process may use]
    #[arg(long, value_name = "N|LIST", env = "WEFT_CORES")]
    cores: Option<String>,
    /// How much each volume may hold, from 256MiB [default: 80 % of what is free at the first start, or all of a device]
    #[arg(long, value_name = "SIZE", env = "WEFT_CAPACITY")]
    capacity: Option<String>,
    /// How much memory the daemon may take, from 256MiB a core [default: a quarter of the machine's, at most 1GiB a core]
    #[arg(long, value_name = "SIZE", env = "WEFT_MEMORY")]
    memory: Option<String>,
    /// How much of what is stored to read and verify each second, as 10MiB, or 0 for none [default: all of the capacity
    /// once in two weeks]
    #[arg(long, value_name = "SIZE", env = "WEFT_SCRUB_RATE")]
    scrub_rate: Option<String>,
    /// Also take requests to BUCKET.NAME (virtual-host style)
    #[arg(long, value_name = "NAME", env = "WEFT_DOMAIN")]
    domain: Option<String>,
    /// Fail what the disk has not answered for so many seconds [default: 30]
    #[arg(long, value_name = "SECONDS", env = "WEFT_DISK_TIMEOUT")]
    disk_timeout: Option<String>,
    /// End uploads in parts that began so many days ago and were not finished, as 7 or 0.5 [default: never]
    #[arg(long, value_name = "DAYS", env = "WEFT_ABORT_UPLOADS_AFTER")]
    abort_uploads_after: Option<String>,
    /// Give up what a start reports as damaged or missing: its room is used again
    #[arg(long, env = "WEFT_ACCEPT_DAMAGE", value_parser = FalseyValueParser::new())]
    accept_damage: bool,
    /// File of further users and what they may do, read again on SIGHUP (docs/access.md) [default: the root user alone]
    #[arg(long, value_name = "FILE", env = "WEFT_USERS")]
    users: Option<PathBuf>,
}

#[derive(Args)]
struct FormatFlags {
    /// Directories or block devices
    #[arg(value_name = "DIR|DEVICE", required = true)]
    paths: Vec<PathBuf>,
    /// Destroy what is there
    #[arg(long, conflicts_with = "join")]
    force: bool,
    /// Make the empty ones members of the set that the others are
    #[arg(long)]
    join: bool,
    /// How much each new volume may hold, from 256MiB [default: 80 % of what is free, or all of a device]
    #[arg(long, value_name = "SIZE")]
    capacity: Option<String>,
    /// Bytes that are allocated at a time: a power of two from 1MiB to 1GiB [default: 1/256 of the capacity]
    #[arg(long, value_name = "SIZE", conflicts_with = "join")]
    segment_size: Option<String>,
}

#[derive(Args)]
pub struct VolumesFlags {
    /// Directories or block devices
    #[arg(value_name = "DIR|DEVICE", required = true)]
    pub paths: Vec<PathBuf>,
    /// Print an array with an object for each volume
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct CheckFlags {
    /// All volumes of a set, as given to `weft serve --data`, or of several sets
    #[arg(value_name = "DIR|DEVICE", required = true)]
    pub paths: Vec<PathBuf>,
    /// Print an array of reports, one for each set
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct InspectFlags {
    /// All volumes of a set, as given to `weft serve --data`
    #[arg(value_name = "DIR|DEVICE", required = true)]
    pub paths: Vec<PathBuf>,
    /// Show one segment: its header, batches and records
    #[arg(long, value_name = "ID", group = "target")]
    pub segment: Option<String>,
    /// Show the record at an offset of a segment
    #[arg(long, value_name = "ID:OFFSET", group = "target")]
    pub record: Option<String>,
    /// Show every record of a key, and where its bytes lie
    #[arg(long, value_name = "BUCKET/KEY", group = "target")]
    pub key: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What the process was given.
///
/// # Errors
/// What clap says: also `--help` and `--version`, which it prints and which are no failure.
pub fn read() -> Result<Command, clap::Error> {
    Ok(match Cli::try_parse()?.command {
        Subcommands::Serve(flags) => Command::Serve(Box::new(raw(flags))),
        Subcommands::Format(flags) => Command::Format(RawFormat {
            paths: flags.paths,
            force: flags.force,
            join: flags.join,
            capacity: flags.capacity,
            segment_size: flags.segment_size,
        }),
        Subcommands::Volumes(flags) => Command::Volumes(flags),
        Subcommands::Check(flags) => Command::Check(flags),
        Subcommands::Inspect(flags) => Command::Inspect(flags),
    })
}

fn raw(flags: ServeFlags) -> RawConfig {
    RawConfig {
        data: flags.data,
        degraded: flags.degraded,
        listen: flags.listen,
        admin_listen: flags.admin_listen,
        cores: flags.cores,
        capacity: flags.capacity,
        memory: flags.memory,
        scrub_rate: flags.scrub_rate,
        domain: flags.domain,
        disk_timeout: flags.disk_timeout,
        abort_uploads_after: flags.abort_uploads_after,
        accept_damage: flags.accept_damage,
        users: flags.users,
        access_key: variable(ACCESS_KEY_VARIABLE),
        secret_key: variable(SECRET_KEY_VARIABLE),
    }
}

fn variable(name: &str) -> Option<String> {
    // What is not UTF-8 becomes what no key may hold, and is refused there.
    std::env::var_os(name).map(|value| value.into_string().unwrap_or_else(|_| "\n".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_a_variable_of_its_name() {
        let mut command = Cli::command();
        let serve = command.find_subcommand_mut("serve").unwrap();
        for flag in serve.get_arguments().filter(|flag| flag.get_id() != "help") {
            let variable = format!("WEFT_{}", flag.get_id().as_str().to_uppercase());
            assert_eq!(flag.get_env().unwrap().to_str(), Some(variable.as_str()));
        }
    }
}
