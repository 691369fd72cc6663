//! Detection of changes to the configuration's files, however they are replaced.
//!
//! A `ConfigMap` or `Secret` is updated by swapping a symbolic link beside the files, an editor writes a new file and renames
//! it, a copy is incomplete for a moment. So a change of any kind is only a reason to look; after a quiet period the
//! contents decide. Because not every file system reports changes, the files are also read at a fixed interval.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::time::{Instant, sleep, sleep_until};

use crate::platform::file_changes::FileChanges;

use super::FileCache;

/// The target of this module's log lines, which `log.level` names.
const TARGET: &str = "pulsegate::config::watch::folders";

/// The contents of some files at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<PathBuf, FileState>);

/// The digest of one file, or the reason for which there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FileState {
    /// A file with contents of this SHA-256.
    File([u8; 32]),
    /// A pipe or a device: a second read of it waits for ever, or returns something else.
    Special,
    /// Nothing that can be read, for this reason.
    Nothing(io::ErrorKind),
}

impl Snapshot {
    /// Reads all of `files`. One that cannot be read is part of the snapshot as such.
    pub fn take(files: impl IntoIterator<Item = PathBuf>) -> Self {
        Self::of(files, &FileCache::default())
    }

    /// Looks at `files` as `cache` has them; those that it does not have are read into it.
    pub fn of(files: impl IntoIterator<Item = PathBuf>, cache: &FileCache) -> Self {
        let seen = |file: PathBuf| {
            let seen = look(&file, cache);
            (file, seen)
        };
        Self(files.into_iter().map(seen).collect())
    }

    /// Reads the same files again.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::take(self.0.keys().cloned())
    }

    /// The files, in order.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }

    /// Returns true if the files that are in both snapshots held the same.
    pub fn agrees_with(&self, other: &Self) -> bool {
        self.0.iter().all(|(file, seen)| other.0.get(file).is_none_or(|other| other == seen))
    }

    /// Returns true if `file` is in this snapshot and holds something else than in `before`, or is missing there.
    pub fn has_changed(&self, file: &Path, before: &Self) -> bool {
        self.0.get(file).is_some_and(|seen| before.0.get(file) != Some(seen))
    }

    /// Returns a file that cannot be read a second time, if there is one.
    pub fn special(&self) -> Option<&Path> {
        let found = self.0.iter().find(|(_, seen)| **seen == FileState::Special);
        found.map(|(file, _)| file.as_path())
    }
}

fn look(file: &Path, cache: &FileCache) -> FileState {
    if fs::metadata(file).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()) {
        return FileState::Special;
    }
    match cache.read(file) {
        Ok(bytes) => {
            let mut hash = [0; 32];
            hash.copy_from_slice(digest(&SHA256, &bytes).as_ref());
            FileState::File(hash)
        }
        Err(error) => FileState::Nothing(error.kind()),
    }
}

/// A source of reports that files may have changed.
pub trait ChangeSource {
    /// Watches `files` from now on, and no others. Earlier changes are not reported.
    fn arm<'a>(&mut self, files: impl Iterator<Item = &'a Path>);

    /// Completes when something has happened to them; may be dropped and called again.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;
}

/// The watch over the files of the configuration. Where a folder cannot be watched, the log says so, once for each kind of
/// error; the files are looked at every [`Cadence::poll`] all the same.
#[derive(Debug, Default)]
pub struct FileWatch {
    changes: FileChanges,
    reported: Option<io::ErrorKind>,
}

impl ChangeSource for FileWatch {
    fn arm<'a>(&mut self, files: impl Iterator<Item = &'a Path>) {
        let unwatched = self.changes.watch(files);
        let kind = unwatched.as_ref().map(|(_, error)| error.kind());
        if let Some((folder, error)) = unwatched.filter(|_| kind != self.reported) {
            tracing::warn!(target: TARGET, folder = %folder.display(), %error, "config.unwatched");
        }
        self.reported = kind;
    }

    async fn changed(&mut self) {
        self.changes.changed().await;
    }
}

/// The timing of reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cadence {
    /// The time without a change before the files are read: a replacement is seldom a single change.
    pub quiet: Duration,
    /// The time after which they are read even if changes go on.
    pub most: Duration,
    /// The time after which they are read without a reported change.
    pub poll: Duration,
}

impl Default for Cadence {
    fn default() -> Self {
        Self { quiet: Duration::from_millis(500), most: Duration::from_secs(2), poll: Duration::from_secs(60) }
    }
}

/// The reason for a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// A reported change.
    Stir,
    /// The end of [`Cadence::poll`].
    Poll,
}

/// Waits until the files are due to be read, the last read having begun at `looked`. `is_stirred` stands for a change that
/// is known already.
pub async fn due(stirs: &mut impl ChangeSource, cadence: Cadence, looked: Instant, is_stirred: bool) -> WatchEvent {
    if !is_stirred {
        tokio::select! {
            biased;
            () = stirs.changed() => {}
            () = sleep_until(looked + cadence.poll) => return WatchEvent::Poll,
        }
    }
    let latest = Instant::now() + cadence.most;
    loop {
        tokio::select! {
            biased;
            () = sleep_until(latest) => return WatchEvent::Stir,
            () = stirs.changed() => {}
            () = sleep(cadence.quiet) => return WatchEvent::Stir,
        }
    }
}

#[cfg(test)]
mod tests;
