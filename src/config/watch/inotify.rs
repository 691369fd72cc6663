//! inotify(7), of which only one thing is asked: whether anything has happened.

use std::io;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// Watches over folders. To tokio it is a pipe: a descriptor from which bytes come now and then.
#[derive(Debug)]
pub(super) struct Inotify(Receiver);

impl Inotify {
    /// Over none yet; needs a runtime.
    pub(super) fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Receiver::from_owned_fd_unchecked(inotify).map(Self)
    }

    /// Watches `folder` too. One that is gone by now is left out: what it lay in is watched for its return.
    pub(super) fn watch(&self, folder: &Path) -> io::Result<()> {
        match inotify::add_watch(&self.0, folder, what_may_matter()) {
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Completes when something has happened since the last time; may be dropped and asked again.
    pub(super) async fn event(&mut self) {
        // What it was does not matter. An inotify without events waits, and one that fails is as good as none.
        if !matches!(self.0.read(&mut [0; 4096]).await, Ok(1..)) {
            std::future::pending::<()>().await;
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
