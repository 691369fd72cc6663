//! The files of account, certificate and challenges: written whole or not at all, readable by their owner alone, and
//! shared by the replicas of one host.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;
use tokio_util::task::TaskTracker;

use crate::config::AcmeSettings;
use crate::telemetry::Chain;

/// A fault of the storage folder.
#[derive(Debug, Error)]
#[error("cannot {action} {}: {source} (tls.acme.storage); {}", path.display(), remedy(source))]
pub struct StorageError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl StorageError {
    fn new<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| Self { action, path: path.into(), source }
    }
}

/// Returns the remedy for a folder that cannot be used.
pub(super) fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => "set it to a folder on a volume that can be written",
        io::ErrorKind::PermissionDenied => {
            "let the user that pulsegate runs as write there, or set it to another folder"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room there",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "a file is in the way: remove it",
        _ => "set it to a folder that pulsegate can write",
    }
}

/// The right to order a certificate. It ends with this value, and with the process.
#[derive(Debug)]
pub(super) struct OrderLock(#[expect(dead_code, reason = "the lock is held as long as the file is open")] File);

/// Makes the folder, and shows that files can be written there.
///
/// # Errors
///
/// The folder cannot be made or written.
pub(super) fn prepare(settings: &AcmeSettings) -> Result<(), StorageError> {
    let folder = settings.folder();
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(StorageError::new("create", &folder))?;
    lock_file(settings)?;
    // Other replicas do the same at this moment.
    let probe = folder.join(format!("{PROBE}{:016x}", fastrand::u64(..)));
    write_new(&probe, b"").map_err(StorageError::new("write", &probe))?;
    remove(&probe)
}

/// The beginning of the name of a file that shows whether the folder can be written.
const PROBE: &str = ".probe.";

/// Removes what orders left that a kill ended: responses to challenges, and files that were not written to their end. Only
/// the holder of the lock calls it.
pub(super) fn remove_leftovers(settings: &AcmeSettings, _lock: &OrderLock) {
    let Ok(entries) = fs::read_dir(settings.folder()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_challenge = name.starts_with("http-01.") || name.starts_with("tls-alpn-01.");
        // Every one is written under the lock.
        let is_unfinished = name.starts_with('.') && name.ends_with(".new");
        if is_challenge || is_unfinished {
            match fs::remove_file(entry.path()) {
                Ok(()) => tracing::debug!(file = %entry.path().display(), "acme.leftover_removed"),
                // It does no harm.
                Err(error) => {
                    tracing::debug!(file = %entry.path().display(), error = %Chain(&error), "acme.leftover_stays");
                }
            }
        }
    }
}

/// Puts the damaged file `path` aside, so that another takes its place. Returns its new path.
pub(super) fn set_aside(path: &Path, _lock: &OrderLock) -> Result<PathBuf, StorageError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    let aside = PathBuf::from(aside);
    rename(path, &aside)?;
    Ok(aside)
}

/// Gives a file another name in its folder.
pub(super) fn rename(path: &Path, name: &Path) -> Result<(), StorageError> {
    fs::rename(path, name).and_then(|()| sync_folder(path)).map_err(StorageError::new("rename", path))
}

/// Takes the lock; `None` while another process has it.
pub(super) fn try_lock(settings: &AcmeSettings) -> Result<Option<OrderLock>, StorageError> {
    let file = lock_file(settings)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(OrderLock(file))),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(StorageError::new("lock", &settings.lock())(error.into())),
    }
}

fn lock_file(settings: &AcmeSettings) -> Result<File, StorageError> {
    let path = settings.lock();
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    opened.map_err(StorageError::new("write", &path))
}

/// Returns the contents of `path`, or `None` where there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    match fs::read(path) {
        Ok(contents) => Ok(Some(contents)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageError::new("read", path)(error)),
    }
}

/// Puts a file with `contents` in the place of `path`. A reader sees the former file or the whole new one, also after a
/// loss of power.
pub(super) fn write(path: &Path, contents: &[u8]) -> Result<(), StorageError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Process ids may be the same in two containers.
    let fresh = path.with_file_name(format!(".{name}.{:016x}.new", fastrand::u64(..)));
    let written = write_new(&fresh, contents).and_then(|()| fs::rename(&fresh, path)).and_then(|()| sync_folder(path));
    written.map_err(|error| {
        // The file may not have been made.
        let _ = fs::remove_file(&fresh);
        StorageError::new("write", path)(error)
    })
}

/// Removes a file that is there.
pub(super) fn remove(path: &Path) -> Result<(), StorageError> {
    fs::remove_file(path).map_err(StorageError::new("remove", path))
}

fn write_new(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Files that exist while an order is under way.
#[derive(Debug, Default)]
pub(super) struct ChallengeFiles(Vec<PathBuf>);

impl ChallengeFiles {
    /// Writes a file that is removed with this value.
    pub(super) async fn write(&mut self, path: PathBuf, contents: Vec<u8>) -> Result<(), StorageError> {
        self.0.push(path.clone());
        off_thread(move || write(&path, &contents)).await.unwrap_or(Ok(()))
    }
}

/// Runs work on files in a thread of its own: it blocks, for ever on a file system that does not respond. `None` after a
/// panic, which has been logged.
pub(super) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    TaskTracker::new().spawn_blocking(work).await.ok()
}

impl Drop for ChallengeFiles {
    fn drop(&mut self) {
        for path in &self.0 {
            // A file that stays holds no secret, and the next order for the name replaces it.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;

    fn settings(folder: &TempDir) -> AcmeSettings {
        let storage = folder.path().join("acme");
        AcmeSettings { storage, ..AcmeSettings::of(vec!["app.example".into()]) }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_for_their_owner_alone() {
        let folder = TempDir::new().expect("a folder");
        let settings = settings(&folder);
        prepare(&settings).expect("prepared");
        prepare(&settings).expect("prepared twice");
        write(&settings.certificate(), b"old").expect("written");
        write(&settings.certificate(), b"new").expect("written over");
        assert_eq!(read(&settings.certificate()).expect("readable").as_deref(), Some(&b"new"[..]));
        assert_eq!(read(&settings.account()).expect("missing is no error"), None);
        assert_eq!((mode(&settings.storage), mode(&settings.folder())), (0o700, 0o700));
        assert_eq!((mode(&settings.certificate()), mode(&settings.lock())), (0o600, 0o600));
        assert_eq!(names(&settings.folder()), ["app.example.pem", "lock"], "nothing is left");
    }

    #[test]
    fn a_write_that_fails_leaves_the_former_file() {
        let folder = TempDir::new().expect("a folder");
        let settings = settings(&folder);
        prepare(&settings).expect("prepared");
        // A folder cannot be replaced by a file.
        let taken = settings.folder().join("taken");
        fs::create_dir(&taken).expect("a folder");
        let error = write(&taken, b"text").expect_err("a folder is there").to_string();
        assert!(error.starts_with("cannot write ") && error.contains("(tls.acme.storage); "), "{error}");
        assert_eq!(names(&settings.folder()), ["lock", "taken"]);
    }

    #[test]
    fn leftovers_of_killed_orders_are_removed_and_nothing_else_is() {
        let folder = TempDir::new().expect("a folder");
        let settings = settings(&folder);
        prepare(&settings).expect("prepared");
        let kept = ["account.json", "app.example.pem", "notes.txt", ".probe.0123456789abcdef"];
        for file in ["http-01.token", "tls-alpn-01.app.example", ".app.example.pem.17.new"].iter().chain(&kept) {
            fs::write(settings.folder().join(file), "text").expect("written");
        }
        let lock = try_lock(&settings).expect("a lock file").expect("free");
        remove_leftovers(&settings, &lock);
        let mut kept = [&kept[..], &["lock"]].concat();
        kept.sort_unstable();
        assert_eq!(names(&settings.folder()), kept);
    }

    #[test]
    fn one_process_at_a_time_orders() {
        let folder = TempDir::new().expect("a folder");
        let settings = settings(&folder);
        prepare(&settings).expect("prepared");
        let first = try_lock(&settings).expect("a lock file").expect("free");
        assert!(try_lock(&settings).expect("a lock file").is_none(), "held");
        drop(first);
        assert!(try_lock(&settings).expect("a lock file").is_some(), "free again");
    }

    #[tokio::test]
    async fn challenges_vanish_with_their_order() {
        let folder = TempDir::new().expect("a folder");
        let settings = settings(&folder);
        prepare(&settings).expect("prepared");
        let mut files = ChallengeFiles::default();
        files.write(settings.tls_challenge("app.example"), b"a".to_vec()).await.expect("written");
        files.write(settings.http_challenge("token").expect("a token"), b"b".to_vec()).await.expect("written");
        assert_eq!(names(&settings.folder()), ["http-01.token", "lock", "tls-alpn-01.app.example"]);
        drop(files);
        assert_eq!(names(&settings.folder()), ["lock"]);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named_with_the_way_out() {
        let folder = TempDir::new().expect("a folder");
        let settings = settings(&folder);
        fs::write(&settings.storage, "a file").expect("written");
        let error = prepare(&settings).expect_err("a file is in the way").to_string();
        assert!(error.contains(&*settings.folder().to_string_lossy()), "{error}");
        assert!(error.ends_with("(tls.acme.storage); a file is in the way: remove it"), "{error}");
        fs::remove_file(&settings.storage).expect("removed");
        // No user can write below it, root neither.
        symlink("/proc/self", &settings.storage).expect("a link");
        let error = prepare(&settings).expect_err("not writable").to_string();
        assert!(error.starts_with("cannot create ") && error.contains("; "), "{error}");
    }
}
