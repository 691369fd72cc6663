//! Changes by inotify(7), of which one thing alone is asked: whether anything has happened.

mod folders;

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// A watch over folders. A new one is made for each set of files: a watch stays with the folder that it was made for, even
/// when another one has its name. To tokio it is a pipe: a descriptor from which bytes come now and then.
#[derive(Debug)]
pub(super) struct Watch(Receiver);

impl Watch {
    /// Watches the folders of `files`; returns one that cannot be watched too.
    pub(super) fn new<'a>(files: impl Iterator<Item = &'a Path>) -> (Option<Self>, Option<(PathBuf, io::Error)>) {
        let folders = folders::folders(files);
        match Self::empty() {
            Ok(watch) => {
                let failed =
                    folders.into_iter().find_map(|folder| watch.add(&folder).err().map(|error| (folder, error)));
                (Some(watch), failed)
            }
            Err(error) => (None, folders.into_iter().next().map(|folder| (folder, error))),
        }
    }

    fn empty() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Receiver::from_owned_fd_unchecked(inotify).map(Self)
    }

    /// Watches `folder` too. One that is gone by now is left out: the folder above it is watched for its return.
    fn add(&self, folder: &Path) -> io::Result<()> {
        match inotify::add_watch(&self.0, folder, events()) {
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn changed(&mut self) {
        // The event itself does not matter. An inotify without events waits, and one that fails reports nothing more.
        if !matches!(self.0.read(&mut [0; 4096]).await, Ok(1..)) {
            std::future::pending::<()>().await;
        }
    }
}

/// All events but reads, which the program itself makes, and writes before the file is closed: a log in the same folder
/// would report changes all day.
fn events() -> WatchFlags {
    WatchFlags::ATTRIB
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR
}
