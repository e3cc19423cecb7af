//! How far a check has come, drawn on a terminal: bytes, rate, time left. Elsewhere nothing is drawn.

use indicatif::{ProgressBar, ProgressStyle};

/// One stretch of work.
pub struct Progress(ProgressBar);

impl Progress {
    /// Of `total` bytes; `what` says which.
    pub fn new(what: &'static str, total: u64) -> Progress {
        let style = "  {msg:<9} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        let bar = ProgressBar::new(total).with_message(what);
        bar.set_style(ProgressStyle::with_template(style).expect("the template is fixed"));
        Progress(bar)
    }

    /// So many bytes more were read.
    pub fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
