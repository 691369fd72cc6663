//! The app's standard input where that of pulsegate is a terminal.
//!
//! The terminal sends Ctrl-C to its foreground group, and stops every other group that reads from it. The foreground group
//! is pulsegate's, so the app cannot read from that terminal. It gets a pseudoterminal instead, into which every line is
//! copied: what it asks of a terminal works, and keys arrive with Enter.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::getpgrp;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr, tcsetwinsize};

/// The pause before looking again whether pulsegate is in the foreground.
const BACKGROUND: Duration = Duration::from_millis(250);

/// The end of input on a terminal with usual settings (Ctrl-D).
const END_OF_INPUT: &[u8] = b"\x04";

/// A pseudoterminal for the app's standard input.
#[derive(Debug)]
pub(super) struct TerminalInput {
    ours: File,
    apps: OwnedFd,
}

impl TerminalInput {
    /// Opens one if standard input is the terminal of this session; otherwise the app inherits it.
    pub(super) fn open() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if tcgetpgrp(&stdin).is_err() {
            return Ok(None);
        }
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        fcntl_setfd(&ours, FdFlags::CLOEXEC)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let name = ptsname(&ours, Vec::new())?;
        let no_controlling_terminal = OFlags::NOCTTY.bits().cast_signed();
        let apps = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(no_controlling_terminal)
            .open(Path::new(std::ffi::OsStr::from_bytes(name.as_bytes())))?;
        // The first terminal has shown what is typed.
        let mut settings = tcgetattr(&apps)?;
        settings.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&apps, OptionalActions::Now, &settings)?;
        if let Ok(size) = tcgetwinsize(&stdin) {
            tcsetwinsize(&apps, size)?;
        }
        Ok(Some(Self { ours: ours.into(), apps: apps.into() }))
    }

    /// Returns the app's end.
    pub(super) fn for_app(&self) -> io::Result<Stdio> {
        self.apps.try_clone().map(Stdio::from)
    }

    /// Copies standard input into it, on a thread that ends with the process.
    pub(super) fn relay(self) -> io::Result<()> {
        thread::Builder::new().name("terminal".to_owned()).spawn(move || self.copy()).map(drop)
    }

    /// Returns once the terminal has gone, or the app's input has ended.
    fn copy(mut self) {
        let stdin = io::stdin();
        let mut buffer = [0; 4096];
        loop {
            let mut ready = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&self.ours, PollFlags::IN)];
            match poll(&mut ready, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            let [typed, echoed] = ready.map(|fd| !fd.revents().is_empty());
            if echoed && self.ours.read(&mut buffer).is_err() {
                return;
            }
            if !typed {
                continue;
            }
            // Reading in the background would stop this process.
            if tcgetpgrp(&stdin) != Ok(getpgrp()) {
                thread::sleep(BACKGROUND);
                continue;
            }
            let written = match rustix::io::read(stdin.as_fd(), &mut buffer) {
                Ok(0) => self.ours.write_all(END_OF_INPUT),
                Ok(length) => self.ours.write_all(&buffer[..length]),
                Err(Errno::INTR) => Ok(()),
                Err(_) => return,
            };
            if written.is_err() {
                return;
            }
        }
    }
}
