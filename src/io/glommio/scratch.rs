//! Directories for tests, on the disk that holds the build and not in memory: direct I/O is the point.
//!
//! A directory lives as long as its [`Scratch`].

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Under `WEFT_TEST_DIR`, or else beside the test binary.
    pub(super) fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique = format!(
            "weft-test-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let base = std::env::var_os("WEFT_TEST_DIR")
            .map(PathBuf::from)
            .unwrap_or_else(|| {
                let binary = std::env::current_exe().unwrap();
                binary.parent().unwrap().to_owned()
            });
        let dir = base.join(unique);
        std::fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
