//! Files for other programs: written whole or not at all.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The mode of a file that everybody may read.
pub(super) const PUBLIC: u32 = 0o644;
/// The mode of a file that its owner alone may read.
pub(super) const SECRET: u32 = 0o600;

/// A file with the authority's certificate, for clients that should trust it.
#[derive(Debug)]
pub(super) struct Published {
    path: PathBuf,
    /// Set if the file is removed on drop.
    temporary: bool,
}

impl Published {
    /// Writes `pem` to `path` and leaves it there.
    pub(super) fn to(path: &Path, pem: &str) -> io::Result<Self> {
        replace(path, pem, PUBLIC)?;
        Ok(Self { path: path.into(), temporary: false })
    }

    /// Writes `pem` to the machine's folder for temporary files until this is dropped. The name derives from the port,
    /// so that commands in a shell's history stay valid from one run to the next.
    pub(super) fn temporarily(port: u16, pem: &str) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("pulsegate-dev-{port}.pem"));
        replace(&path, pem, PUBLIC)?;
        Ok(Self { path, temporary: true })
    }

    /// Returns the file at `path`, which was written earlier and stays.
    pub(super) fn kept(path: &Path) -> Self {
        Self { path: path.into(), temporary: false }
    }

    /// Returns whether the file at `path` has this text.
    pub(super) fn holds(path: &Path, text: &str) -> bool {
        fs::read_to_string(path).is_ok_and(|found| found == text)
    }

    /// Returns the path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        if self.temporary {
            // A file that is already gone counts as removed.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Writes `text` to `path` atomically. A symbolic link that another user left in a shared folder is replaced, not
/// followed.
pub(super) fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{:08x}", fastrand::u32(..)));
    let fresh = PathBuf::from(name);
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh);
    // The process may take more permissions away (umask) than a file for everybody must have.
    let written = opened.and_then(|mut file| {
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())
    });
    let placed = written.and_then(|()| fs::rename(&fresh, path));
    if placed.is_err() {
        // The first error is the one returned.
        let _ = fs::remove_file(&fresh);
    }
    placed
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn what_is_published_replaces_a_link_and_is_taken_away_again() {
        let folder = TempDir::new().expect("a folder");
        let (precious, path) = (folder.path().join("precious"), folder.path().join("ca.pem"));
        fs::write(&precious, "keep me").expect("written");
        symlink(&precious, &path).expect("linked");

        let published = Published::to(&path, "a certificate").expect("published");
        assert_eq!(fs::read_to_string(&precious).expect("still there"), "keep me");
        assert_eq!(fs::read_to_string(published.path()).expect("there"), "a certificate");
        drop(published);
        assert!(path.exists(), "what a person asked for stays");
        drop(Published { path: path.clone(), temporary: true });
        assert!(!path.exists(), "a temporary file goes");
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1, "no half-written file is left");
    }

    #[test]
    fn a_secret_is_for_its_owner_alone() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("key.pem");
        replace(&path, "a key", SECRET).expect("written");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, SECRET);
    }

    #[test]
    fn a_folder_that_does_not_exist_is_an_error() {
        let path = Path::new("/nonexistent/folder/ca.pem");
        assert_eq!(Published::to(path, "").expect_err("no such folder").kind(), io::ErrorKind::NotFound);
    }
}
