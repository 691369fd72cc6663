//! Files for other programs: written whole or not at all.

use std::fs::{self, File, FileType, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

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
        read(path).is_ok_and(|(found, _)| found == text)
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

/// Fails if something other than a regular file is at `path`, which would be lost if it were replaced. A symbolic link is
/// such a thing: it may be another user's, in a shared folder.
pub(super) fn check_replaceable(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => check_regular(metadata.file_type()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads the regular file at `path`, and returns its text and the open file. Anything else is an error: to open a named
/// pipe would wait for its other end.
pub(super) fn read(path: &Path) -> io::Result<(String, File)> {
    check_replaceable(path)?;
    // What is there may change meanwhile.
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let mut file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    check_regular(file.metadata()?.file_type())?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok((text, file))
}

/// Opens the regular file at `path` for a lock, and makes it if there is none.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    check_replaceable(path)?;
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(SECRET);
    options.custom_flags(flags.bits().cast_signed()).open(path)
}

/// Removes the regular file at `path`, if there is one.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    check_replaceable(path)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn check_regular(kind: FileType) -> io::Result<()> {
    let found = match kind {
        _ if kind.is_file() => return Ok(()),
        _ if kind.is_dir() => "a folder",
        _ if kind.is_symlink() => "a symbolic link",
        _ if kind.is_fifo() => "a named pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("it is {found}, not a regular file")))
}

/// Writes `text` to `path` atomically. Only a regular file is replaced.
pub(super) fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    check_replaceable(path)?;
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
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_file_is_replaced_and_is_taken_away_again_if_temporary() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("ca.pem");
        fs::write(&path, "an older one").expect("written");
        let published = Published::to(&path, "a certificate").expect("published");
        assert_eq!(fs::read_to_string(published.path()).expect("there"), "a certificate");
        drop(published);
        assert!(path.exists(), "what a person asked for stays");
        drop(Published { path: path.clone(), temporary: true });
        assert!(!path.exists(), "a temporary file goes");
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0, "no half-written file is left");
    }

    #[test]
    fn what_is_no_regular_file_is_neither_replaced_nor_read_nor_removed() {
        let folder = TempDir::new().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("precious"), "keep me").expect("written");
        symlink(at("precious"), at("link")).expect("linked");
        symlink(at("nothing"), at("dangling")).expect("linked");
        fs::create_dir(at("folder")).expect("made");
        let _socket = UnixListener::bind(at("socket")).expect("bound");
        let made = Command::new("mkfifo").arg(at("pipe")).status().expect("mkfifo of coreutils");
        assert!(made.success());
        let kinds = [
            ("link", "a symbolic link"),
            ("dangling", "a symbolic link"),
            ("folder", "a folder"),
            ("socket", "a socket"),
            ("pipe", "a named pipe"),
        ];
        let files = || fs::read_dir(folder.path()).expect("readable").count();
        let before = files();
        for (name, kind) in kinds {
            let expected = format!("it is {kind}, not a regular file");
            let faults = [
                Published::to(&at(name), "a certificate").map(drop),
                super::read(&at(name)).map(drop),
                super::remove(&at(name)),
            ];
            for fault in faults {
                assert_eq!(fault.expect_err(name).to_string(), expected, "{name}");
            }
            assert!(!Published::holds(&at(name), "keep me"), "{name}");
        }
        assert_eq!((files(), fs::read_to_string(at("precious")).expect("there")), (before, "keep me".to_owned()));
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
