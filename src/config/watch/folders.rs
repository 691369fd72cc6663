//! The folders in which a change can alter what a path leads to.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

#[cfg(target_os = "linux")]
use super::inotify::Inotify;
use super::{Stirs, io};

/// Links that are followed in one path; the kernel follows as many.
const LINKS_MOST: usize = 40;

/// Watches the folders of some files.
#[derive(Debug, Default)]
pub struct Folders {
    #[cfg(target_os = "linux")]
    inotify: Option<Inotify>,
    /// Why not everything is told, if so; said once.
    complaint: Option<io::ErrorKind>,
}

impl Stirs for Folders {
    #[cfg(target_os = "linux")]
    fn arm<'a>(&mut self, files: impl Iterator<Item = &'a Path>) {
        // A new one each time: a watch stays with the folder that it was made for, even when another one has its name.
        self.inotify = None;
        let folders = folders(files);
        let unwatched = match Inotify::new() {
            Ok(inotify) => {
                let inotify = self.inotify.insert(inotify);
                folders.iter().find_map(|folder| Some((folder.clone(), inotify.watch(folder).err()?)))
            }
            Err(error) => folders.into_iter().next().map(|folder| (folder, error)),
        };
        let complaint = unwatched.as_ref().map(|(_, error)| error.kind());
        if let Some((folder, error)) = unwatched.filter(|_| complaint != self.complaint) {
            tracing::warn!(folder = %folder.display(), %error, "config.unwatched");
        }
        self.complaint = complaint;
    }

    #[cfg(not(target_os = "linux"))]
    fn arm<'a>(&mut self, _files: impl Iterator<Item = &'a Path>) {}

    #[cfg(target_os = "linux")]
    async fn stir(&mut self) {
        match &mut self.inotify {
            Some(inotify) => inotify.event().await,
            None => std::future::pending().await,
        }
    }

    #[cfg(not(target_os = "linux"))]
    async fn stir(&mut self) {
        std::future::pending().await
    }
}

/// For each of `files` the folder that it lies in, and those of every symbolic link that leads there. Where one is
/// missing, the nearest above it is taken, in which it will appear.
pub(super) fn folders<'a>(files: impl Iterator<Item = &'a Path>) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for file in files {
        walk(file, &mut found);
    }
    found
}

fn walk(file: &Path, found: &mut BTreeSet<PathBuf>) {
    let mut at = PathBuf::from(".");
    let mut rest = steps(file);
    let mut links = 0;
    while let Some(step) = rest.pop_front() {
        // No link leads to where it is: above it is what lies before it in the path.
        if step == ".." && matches!(at.components().next_back(), Some(Component::Normal(_))) {
            at.pop();
            continue;
        }
        // An absolute step replaces what is there.
        let next = at.join(&step);
        if let Ok(target) = next.read_link() {
            found.insert(at.clone());
            links += 1;
            if links > LINKS_MOST {
                return;
            }
            for step in steps(&target).into_iter().rev() {
                rest.push_front(step);
            }
        } else if rest.is_empty() || !next.exists() {
            found.insert(at);
            return;
        } else {
            at = next;
        }
    }
}

fn steps(path: &Path) -> VecDeque<OsString> {
    let steps = path.components().filter(|step| *step != Component::CurDir);
    steps.map(|step| step.as_os_str().to_owned()).collect()
}
