//! A page that a set keeps for the daemon, on its first volume, and that promises nothing.
//!
//! In a directory it is the file `scrub`, replaced as a whole; on a device 4096 bytes at 256 KiB, between the copies of the
//! superblock, overwritten in place. A crash may leave the one before, or on a device one that is torn: whoever reads it
//! must be able to tell.
//!
//! Invariant: nothing else of the volume is changed, and losing it costs nothing that was stored.

use super::device::Device;
use super::{Store, VolumeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Bytes of the page.
pub const MEMO_BYTES: usize = 4096;
const NAME: &str = "scrub";
const NEW_NAME: &str = "scrub.new";

/// Where the page is.
pub struct Memo(Place);

enum Place {
    Directory(PathBuf),
    Device(Device),
}

impl VolumeSet {
    /// The page of this set; `None` if a volume is missing, for then nothing is written.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn memo(&self) -> io::Result<Option<Memo>> {
        let first = self.members.first().and_then(Option::as_ref);
        let Some(first) = first.filter(|_| self.missing() == 0) else {
            return Ok(None);
        };
        let place = match &first.store {
            Store::Directory(_) => Place::Directory(first.path.clone()),
            Store::Device(device) => Place::Device(device.again()?),
        };
        Ok(Some(Memo(place)))
    }
}

impl Memo {
    /// In a directory.
    pub fn at(dir: &Path) -> Memo {
        Memo(Place::Directory(dir.to_owned()))
    }

    /// What was written last; `None` if there is nothing, or it cannot be read. Blocking.
    pub fn read(&self) -> Option<Vec<u8>> {
        let bytes = match &self.0 {
            Place::Directory(dir) => fs::read(dir.join(NAME)).ok()?,
            Place::Device(device) => device.read_memo().ok()?,
        };
        (bytes.len() == MEMO_BYTES).then_some(bytes)
    }

    /// Replaces it, on stable storage. Blocking.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, page: &[u8; MEMO_BYTES]) -> io::Result<()> {
        match &self.0 {
            Place::Directory(dir) => {
                let new = dir.join(NEW_NAME);
                let mut file = File::create(&new)?;
                file.write_all(page)?;
                file.sync_data()?;
                fs::rename(&new, dir.join(NAME))
            }
            Place::Device(device) => device.write_memo(page),
        }
    }
}
