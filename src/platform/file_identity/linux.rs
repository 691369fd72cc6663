//! Identity by a descriptor that holds the file without opening it (`O_PATH`, open(2)).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};

/// The identity of a file: its device and number, which no other file gets while this value holds it.
#[derive(Debug)]
pub struct FileIdentity(File);

impl FileIdentity {
    /// The identity of the file at `path`; of a symbolic link, that of the link itself.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error where there is none, or its folder cannot be searched.
    pub fn of(path: &Path) -> io::Result<Self> {
        let held = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self(held.into()))
    }

    /// Returns whether the file is the one at `path`.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error where nothing lies there.
    pub fn is_at(&self, path: &Path) -> io::Result<bool> {
        let (held, found) = (self.0.metadata()?, fs::symlink_metadata(path)?);
        Ok((held.dev(), held.ino()) == (found.dev(), found.ino()))
    }
}
