//! Identity by what `lstat` returns.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The identity of a file: its device and number, and the time of its last write, since nothing holds the number. A file
/// with the number of a deleted one is mistaken for it if both were written in the same tick of the file system's clock.
#[derive(Debug)]
pub struct FileIdentity {
    device: u64,
    number: u64,
    written: (i64, i64),
}

impl FileIdentity {
    /// The identity of the file at `path`; of a symbolic link, that of the link itself.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error where there is none, or its folder cannot be searched.
    pub fn of(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self { device: found.dev(), number: found.ino(), written: written(&found) })
    }

    /// Returns whether the file is the one at `path`.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error where nothing lies there.
    pub fn is_at(&self, path: &Path) -> io::Result<bool> {
        let found = fs::symlink_metadata(path)?;
        Ok((self.device, self.number, self.written) == (found.dev(), found.ino(), written(&found)))
    }
}

fn written(found: &Metadata) -> (i64, i64) {
    (found.mtime(), found.mtime_nsec())
}
