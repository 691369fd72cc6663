//! inotify(7), of which only one thing is asked: whether anything has happened.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// Some folders, watched.
#[derive(Debug)]
pub(super) struct Inotify(AsyncFd<OwnedFd>);

impl Inotify {
    /// Watches `folders`. Those that are gone by now are left out: whoever took them away stirred another one.
    pub(super) fn over(folders: &BTreeSet<PathBuf>) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        for folder in folders {
            match inotify::add_watch(&inotify, folder, what_may_matter()) {
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        AsyncFd::new(inotify).map(Self)
    }

    /// Completes when something has happened since the last time; may be dropped and asked again.
    pub(super) async fn event(&mut self) {
        let mut events = [0; 4096];
        loop {
            let Ok(mut ready) = self.0.readable().await else { return std::future::pending().await };
            // What it was does not matter.
            match ready.try_io(|inotify| Ok(rustix::io::read(inotify.get_ref(), &mut events)?)) {
                Ok(Ok(_)) => return,
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(_)) => return std::future::pending().await,
                Err(_would_block) => {}
            }
        }
    }
}

/// All but reading, which is what the watch itself does, and writes before the file is closed: a log that lies in the
/// same folder would stir all day.
fn what_may_matter() -> WatchFlags {
    WatchFlags::ATTRIB
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR
}
