//! When the configuration has changed: the files it is made of, watched in a way that survives how they are replaced.
//!
//! A `ConfigMap` or `Secret` is updated by swapping a symbolic link beside the files, an editor writes a new file and renames
//! it, a copy is half there for a moment. So what is watched are folders, not files; what happened there does not
//! matter, only that something did; when it has been quiet for a while, the contents decide. And because not every file
//! system tells of changes, they are looked at now and then without being asked to.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::time::{Instant, sleep, sleep_until};

use crate::platform::file_changes::FileChanges;

/// What some files held at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<PathBuf, Seen>);

/// What was found under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// A file with contents of this SHA-256.
    File([u8; 32]),
    /// A pipe or a device: whoever reads it twice waits for ever, or reads something else.
    Special,
    /// Nothing that can be read.
    Nothing(io::ErrorKind),
}

impl Snapshot {
    /// Reads them all.
    pub fn take(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let seen = |file: PathBuf| {
            let seen = look(&file).unwrap_or_else(|error| Seen::Nothing(error.kind()));
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

    /// Whether the files that are in both held the same.
    pub fn agrees_with(&self, other: &Self) -> bool {
        self.0.iter().all(|(file, seen)| other.0.get(file).is_none_or(|other| other == seen))
    }

    /// Whether `file` holds something else than in `before`, or was not looked at there. Of one that was not looked at
    /// here nothing is known to have changed.
    pub fn has_changed(&self, file: &Path, before: &Self) -> bool {
        self.0.get(file).is_some_and(|seen| before.0.get(file) != Some(seen))
    }

    /// A file that cannot be read a second time.
    pub fn special(&self) -> Option<&Path> {
        let found = self.0.iter().find(|(_, seen)| **seen == Seen::Special);
        found.map(|(file, _)| file.as_path())
    }
}

fn look(file: &Path) -> io::Result<Seen> {
    let kind = fs::metadata(file)?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        return Ok(Seen::Special);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, &fs::read(file)?).as_ref());
    Ok(Seen::File(hash))
}

/// Tells that something may have changed.
pub trait Stirs {
    /// Looks at where `files` lie from now on. What comes to pass before is not told.
    fn arm<'a>(&mut self, files: impl Iterator<Item = &'a Path>);

    /// Completes when something has happened there; may be dropped and asked again.
    fn stir(&mut self) -> impl Future<Output = ()> + Send;
}

/// The watch over the files of the configuration. Where a folder cannot be watched, the log says so, once for each kind of
/// error; the files are looked at every [`Cadence::poll`] all the same.
#[derive(Debug, Default)]
pub struct FileWatch {
    changes: FileChanges,
    reported: Option<io::ErrorKind>,
}

impl Stirs for FileWatch {
    fn arm<'a>(&mut self, files: impl Iterator<Item = &'a Path>) {
        let unwatched = self.changes.watch(files);
        let kind = unwatched.as_ref().map(|(_, error)| error.kind());
        if let Some((folder, error)) = unwatched.filter(|_| kind != self.reported) {
            tracing::warn!(folder = %folder.display(), %error, "config.unwatched");
        }
        self.reported = kind;
    }

    async fn stir(&mut self) {
        self.changes.changed().await;
    }
}

/// The times that a watch keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cadence {
    /// How long it must have been quiet before the files are looked at: whoever replaces one is seldom done with it.
    pub quiet: Duration,
    /// How long they are left alone where it is never quiet.
    pub most: Duration,
    /// How often they are looked at if nothing is told.
    pub poll: Duration,
}

impl Default for Cadence {
    fn default() -> Self {
        Self { quiet: Duration::from_millis(500), most: Duration::from_secs(2), poll: Duration::from_secs(60) }
    }
}

/// Why it is time to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Something has happened.
    Stir,
    /// It has been a while.
    Poll,
}

/// Waits until it is time to look at the files, the last look having been at `looked`. `is_stirred`: something is known
/// to have happened already.
pub async fn due(stirs: &mut impl Stirs, cadence: Cadence, looked: Instant, is_stirred: bool) -> Cause {
    if !is_stirred {
        tokio::select! {
            biased;
            () = stirs.stir() => {}
            () = sleep_until(looked + cadence.poll) => return Cause::Poll,
        }
    }
    let latest = Instant::now() + cadence.most;
    loop {
        tokio::select! {
            biased;
            () = sleep_until(latest) => return Cause::Stir,
            () = stirs.stir() => {}
            () = sleep(cadence.quiet) => return Cause::Stir,
        }
    }
}

#[cfg(test)]
#[path = "watch/tests.rs"]
mod tests;
