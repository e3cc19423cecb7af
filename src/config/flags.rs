//! The command line: flags, their variables, and the help.
//!
//! Only text is read here; [`super::Config::from_raw`] judges it. Credentials come from the environment alone,
//! because everyone on the machine can read a command line.

use super::RawConfig;
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

Credentials of the root user (never flags: others could read them):
  WEFT_ACCESS_KEY, WEFT_SECRET_KEY
      Needed unless every --listen is on loopback.

Exit codes:
  0  stopped by SIGTERM or SIGINT, everything acknowledged is on disk
  1  could not start or go on; the message says what to do
  2  the command line or the environment is wrong";

/// An S3-compatible object store for one Linux machine.
#[derive(Parser)]
#[command(name = "weft", version, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves a data directory until SIGTERM or SIGINT
    #[command(after_help = SERVE_HELP)]
    Serve(ServeFlags),
}

#[derive(Args)]
struct ServeFlags {
    /// Where the data lies; made if missing. One daemon at a time
    #[arg(long, value_name = "DIR", env = "WEFT_DATA")]
    data: PathBuf,
    /// Address to listen on; may be repeated (in the variable: separated by commas) [default: 127.0.0.1:9000]
    #[arg(long, value_name = "ADDR:PORT", env = "WEFT_LISTEN", value_delimiter = ',')]
    listen: Vec<String>,
    /// Address that serves /metrics (for Prometheus) and health, to anyone who can reach it [default: none]
    #[arg(long, value_name = "ADDR:PORT", env = "WEFT_ADMIN_LISTEN")]
    admin_listen: Option<String>,
    /// How many cores, as 4, or which CPUs, as 0,2 or 0-3 [default: all that the process may use]
    #[arg(long, value_name = "N|LIST", env = "WEFT_CORES")]
    cores: Option<String>,
    /// How much the volume may hold, from 256MiB [default: 80 % of what is free at the first start]
    #[arg(long, value_name = "SIZE", env = "WEFT_CAPACITY")]
    capacity: Option<String>,
    /// How much memory the daemon may take, from 256MiB a core [default: a quarter of the machine's, at most 1GiB a core]
    #[arg(long, value_name = "SIZE", env = "WEFT_MEMORY")]
    memory: Option<String>,
    /// Also take requests to BUCKET.NAME (virtual-host style)
    #[arg(long, value_name = "NAME", env = "WEFT_DOMAIN")]
    domain: Option<String>,
    /// Fail what the disk has not answered for so many seconds [default: 30]
    #[arg(long, value_name = "SECONDS", env = "WEFT_DISK_TIMEOUT")]
    disk_timeout: Option<String>,
}

/// What the process was given.
///
/// # Errors
/// What clap says: also `--help` and `--version`, which it prints and which are no failure.
pub fn read() -> Result<RawConfig, clap::Error> {
    let Cli {
        command: Command::Serve(flags),
    } = Cli::try_parse()?;
    Ok(RawConfig {
        data: flags.data,
        listen: flags.listen,
        admin_listen: flags.admin_listen,
        cores: flags.cores,
        capacity: flags.capacity,
        memory: flags.memory,
        domain: flags.domain,
        disk_timeout: flags.disk_timeout,
        access_key: variable(ACCESS_KEY_VARIABLE),
        secret_key: variable(SECRET_KEY_VARIABLE),
    })
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
