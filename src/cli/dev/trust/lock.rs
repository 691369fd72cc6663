//! The lock by which one process at a time installs or removes the authority of a user.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::cli::dev::kept_ca::{KeptCaError, KeptCaFiles};
use crate::cli::dev::published;

/// The lock, released on drop. Its file is removed then, and the folder if nothing else is in it.
#[derive(Debug)]
pub(super) struct TrustLock {
    folder: PathBuf,
    path: PathBuf,
    /// Locked as long as it is open.
    _file: File,
}

impl TrustLock {
    /// Waits for the lock, after `wait` if another process has it.
    ///
    /// # Errors
    ///
    /// The file cannot be made or locked, or `wait` fails.
    pub(super) fn acquire(files: &KeptCaFiles, wait: impl Fn() -> io::Result<()>) -> Result<Self, KeptCaError> {
        let folder = files.folder().to_path_buf();
        let path = folder.join("dev-ca.lock");
        let failed = |source| KeptCaError::Io { action: "lock", path: path.clone(), source };
        let mut has_waited = false;
        loop {
            files.create_folder()?;
            let file = match published::open_lock(&path) {
                // The process that had the lock has removed the folder meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound && folder.symlink_metadata().is_err() => continue,
                opened => opened.map_err(failed)?,
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if !has_waited {
                        wait().map_err(failed)?;
                    }
                    has_waited = true;
                    file.lock().map_err(failed)?;
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            // The process that had the lock has removed this file, and a third one may have made another.
            if file.metadata().map_err(failed)?.nlink() > 0 {
                return Ok(Self { folder, path, _file: file });
            }
        }
    }
}

impl Drop for TrustLock {
    fn drop(&mut self) {
        // A file that stays is used again; a folder with other files stays.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_dir(&self.folder);
    }
}
