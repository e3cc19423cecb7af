//! The main thread's wait for the engines, and what it tells the operator meanwhile: a bar on a terminal, elsewhere a
//! line now and then.
//!
//! Invariant: a start that is over soon tells nothing.

use super::Start;
use super::report::warn;
use crate::engine::{RecoverError, Recovered, StartProgress};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// How long nothing is told, and how often something is; on a terminal, and elsewhere.
const DRAWN: Duration = Duration::from_millis(250);
const TOLD: Duration = Duration::from_secs(5);

/// What all of `cores` engines found, once each has started; `None` if the run ends before that.
///
/// # Errors
/// Why one of them cannot start.
pub fn wait(
    started: &Receiver<Start>,
    cores: usize,
    progress: &StartProgress,
) -> Result<Option<Recovered>, RecoverError> {
    let mut teller = Teller::new();
    let mut sum = Recovered::default();
    let mut running = 0;
    while running < cores {
        match started.recv_timeout(teller.pause()) {
            Ok(start) => {
                sum.add(&start?);
                running += 1;
            }
            Err(RecvTimeoutError::Timeout) => teller.tell(progress),
            // A core that is told to stop before its engine has started ends its half of the channel unsaid.
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
    Ok(Some(sum))
}

enum Teller {
    /// The bar, once it is drawn.
    Terminal(Option<ProgressBar>),
    Log,
}

impl Teller {
    fn new() -> Teller {
        match std::io::stderr().is_terminal() {
            true => Teller::Terminal(None),
            false => Teller::Log,
        }
    }

    fn pause(&self) -> Duration {
        match self {
            Teller::Terminal(_) => DRAWN,
            Teller::Log => TOLD,
        }
    }

    fn tell(&mut self, progress: &StartProgress) {
        let so_far = progress.so_far();
        match self {
            Teller::Log => warn(format_args!("{so_far}")),
            Teller::Terminal(bar) => {
                let bar = bar.get_or_insert_with(|| {
                    let style = ProgressStyle::with_template("  {wide_bar} {msg}");
                    ProgressBar::new(100).with_style(style.expect("the template is fixed"))
                });
                bar.set_message(so_far.to_string());
                bar.set_position(u64::from(so_far.percent));
            }
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        if let Teller::Terminal(Some(bar)) = self {
            bar.finish_and_clear();
        }
    }
}
