//! Changes by a comparison of what `stat` returns, every so often.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The time between two looks at the files.
const PERIOD: Duration = Duration::from_secs(2);

/// A watch over files by their metadata.
#[derive(Debug)]
pub(super) struct Watch {
    files: Vec<(PathBuf, Option<State>)>,
    next: Instant,
}

/// The metadata of a file that change with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    device: u64,
    number: u64,
    size: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Watch {
    /// Watches `files`, the ones that symbolic links lead to; nothing of that fails.
    pub(super) fn new<'a>(files: impl Iterator<Item = &'a Path>) -> (Option<Self>, Option<(PathBuf, io::Error)>) {
        let files = files.map(|file| (file.to_owned(), State::of(file))).collect();
        (Some(Self { files, next: Instant::now() + PERIOD }), None)
    }

    pub(super) async fn changed(&mut self) {
        loop {
            sleep_until(self.next).await;
            self.next = Instant::now() + PERIOD;
            let mut changed = false;
            for (file, state) in &mut self.files {
                let now = State::of(file);
                changed |= *state != now;
                *state = now;
            }
            if changed {
                return;
            }
        }
    }
}

impl State {
    /// The state of the file that `path` leads to; `None` where there is none to be seen.
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            number: found.ino(),
            size: found.size(),
            written: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}
