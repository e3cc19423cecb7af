//! What tests run on: directories, on the disk that holds the build and not in memory: direct I/O is the point.
//!
//! Tests that need several cores take two, and pass by if the machine has but one.
//!
//! A directory lives as long as its [`Scratch`].

use super::{Access, CoreChoice, Machine, VolumeSet, launch};
use crate::limits::DISK_TIMEOUT;
use std::future::Future;
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

    /// The directory as the only volume.
    pub(super) fn volumes(&self, capacity_bytes: u64) -> VolumeSet {
        VolumeSet::open(std::slice::from_ref(&self.0), Some(capacity_bytes), Access::Whole).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs `body` on the first `cores` CPUs to its end.
pub(super) fn run<M, F, B>(cores: usize, volumes: VolumeSet, body: F)
where
    M: Send + 'static,
    F: Fn(Machine<M>) -> B + Send + Clone + 'static,
    B: Future<Output = ()> + 'static,
{
    let cpus = CoreChoice::Count(cores).cpus().unwrap();
    launch(&cpus, volumes, DISK_TIMEOUT, body)
        .unwrap()
        .join()
        .unwrap();
}
