//! News that files may have changed.

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux;
#[cfg(any(feature = "portable", not(target_os = "linux")))]
mod portable;

use std::io;
use std::path::{Path, PathBuf};

#[cfg(all(target_os = "linux", not(feature = "portable")))]
use linux::Watch;
#[cfg(any(feature = "portable", not(target_os = "linux")))]
use portable::Watch;

/// A watch over some files, by inotify(7) on the folders that lead to them: any replacement of a file is reported at once,
/// be it written, renamed, or behind a symbolic link that changes.
///
/// Portable: compares device, number, size and times of each file every 2 seconds. A change is reported up to that much
/// later, and costs one `stat` for each file and period. A write in the same tick of the file system's clock as the
/// start of the watch, which leaves the size as it was, is missed.
#[derive(Debug, Default)]
pub struct FileChanges(Option<Watch>);

impl FileChanges {
    /// Watches `files` from now on, and nothing else any more. Earlier changes are not reported. Needs a runtime. Returns a
    /// folder that cannot be watched, with the kernel's error, if there is one; the others are watched all the same.
    pub fn watch<'a>(&mut self, files: impl Iterator<Item = &'a Path>) -> Option<(PathBuf, io::Error)> {
        // The old watch ends before the new one begins, since their number is limited.
        self.0 = None;
        let (watch, failed) = Watch::new(files);
        self.0 = watch;
        failed
    }

    /// Completes when something has happened to the files since the last time; may be dropped and called again. Never
    /// completes where nothing is watched.
    pub async fn changed(&mut self) {
        match &mut self.0 {
            Some(watch) => watch.changed().await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    /// Returns whether `change` is reported, with `files` watched.
    async fn reports(files: &[PathBuf], change: impl FnOnce()) -> bool {
        let mut changes = FileChanges::default();
        assert!(changes.watch(files.iter().map(PathBuf::as_path)).is_none());
        change();
        timeout(DEADLINE, changes.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn every_change_of_a_file_is_reported() {
        let dir = TempDir::new().expect("a folder");
        let file = dir.path().join("file");
        let spare = dir.path().join("spare");
        let files = [file.clone()];
        assert!(reports(&files, || fs::write(&file, "one").expect("write")).await, "created");
        assert!(reports(&files, || fs::write(&file, "other").expect("write")).await, "written");
        fs::write(&spare, "three").expect("write");
        assert!(reports(&files, || fs::rename(&spare, &file).expect("rename")).await, "replaced");
        assert!(reports(&files, || fs::remove_file(&file).expect("remove")).await, "removed");
    }

    #[tokio::test]
    async fn a_file_behind_a_changed_link_is_reported() {
        use std::os::unix::fs::symlink;

        let dir = TempDir::new().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        for (version, text) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(at(version)).expect("a folder");
            fs::write(at(version).join("file"), text).expect("write");
        }
        // A ConfigMap is mounted so, and replaced by a rename of its link.
        symlink("..1", at("..data")).expect("link");
        symlink("..data/file", at("file")).expect("link");
        symlink("..2", at("..next")).expect("link");
        let swap = || fs::rename(at("..next"), at("..data")).expect("rename");
        assert!(reports(&[at("file")], swap).await);
    }

    #[tokio::test]
    async fn the_return_of_a_folder_is_reported() {
        let dir = TempDir::new().expect("a folder");
        let folder = dir.path().join("folder");
        let files = [folder.join("file")];
        let appears = || {
            fs::create_dir(&folder).expect("a folder");
            fs::write(&files[0], "one").expect("write");
        };
        assert!(reports(&files, appears).await, "it has appeared");
        assert!(reports(&files, || fs::rename(&folder, dir.path().join("old")).expect("rename")).await, "it has left");
    }

    #[tokio::test(start_paused = true)]
    async fn reading_is_not_reported() {
        let dir = TempDir::new().expect("a folder");
        let file = dir.path().join("file");
        fs::write(&file, "one").expect("write");
        let read = || assert_eq!(fs::read(&file).expect("read"), b"one");
        assert!(!reports(std::slice::from_ref(&file), read).await, "or every look would make another one due");
    }
}
