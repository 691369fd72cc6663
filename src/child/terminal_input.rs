//! The app's standard input where that of pulsegate is a terminal.
//!
//! The terminal sends Ctrl-C to its foreground group, and stops every other group that reads from it. The foreground group
//! is pulsegate's, so the app cannot read from that terminal. It gets a pseudoterminal instead, into which every key is
//! copied. Echo and the editing of lines are those of the pseudoterminal, whose settings the app can change: a password
//! that it asks for is not shown, and an app that reads single keys gets them at once. The first terminal only turns Ctrl-C
//! and Ctrl-\ into signals meanwhile, for pulsegate alone, as Ctrl-Z is. Ctrl-S and Ctrl-Q pause the output, unless the app
//! turns that off on its terminal (`IXON`): then they are keys like all others.

mod outer;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, OutputModes, Winsize, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr,
    tcsetwinsize,
};

use self::outer::OuterTerminal;
pub(super) use self::outer::TerminalGuard;

/// The interval of looking whether pulsegate is in the foreground, and of taking over the size of the terminal.
const TICK: Duration = Duration::from_millis(250);

/// The time for the pseudoterminal to show what was typed.
const ECHO: Duration = Duration::from_millis(200);

/// The end of input on a terminal with usual settings (Ctrl-D).
const END_OF_INPUT: &[u8] = b"\x04";

/// The number of bytes kept for an app that does not read, above which nothing more is read.
const HELD: usize = 64 * 1024;

/// A pseudoterminal for the app's standard input.
#[derive(Debug)]
pub(super) struct TerminalInput {
    ours: File,
    apps: OwnedFd,
    /// Typed, and not taken by the pseudoterminal yet.
    held: Vec<u8>,
    /// Whether the end of a line is shown that the pseudoterminal has yet to show.
    is_end_shown: bool,
    terminal: Arc<OuterTerminal>,
}

impl TerminalInput {
    /// Opens one if standard input is the terminal of this session; otherwise the app inherits it. The settings of the
    /// terminal are restored once the guard is dropped.
    pub(super) fn open() -> io::Result<Option<(Self, TerminalGuard)>> {
        let stdin = io::stdin();
        if tcgetpgrp(&stdin).is_err() {
            return Ok(None);
        }
        let terminal = Arc::new(OuterTerminal::of_stdin()?);
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        fcntl_setfd(&ours, FdFlags::CLOEXEC)?;
        fcntl_setfl(&ours, OFlags::NONBLOCK)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let name = ptsname(&ours, Vec::new())?;
        let no_controlling_terminal = OFlags::NOCTTY.bits().cast_signed();
        let apps = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(no_controlling_terminal)
            .open(Path::new(std::ffi::OsStr::from_bytes(name.as_bytes())))?;
        let mut settings = terminal.before();
        // The first terminal edits what is shown on it.
        settings.output_modes.remove(OutputModes::OPOST);
        tcsetattr(&apps, OptionalActions::Now, &settings)?;
        if let Ok(size) = tcgetwinsize(&stdin) {
            tcsetwinsize(&apps, size)?;
        }
        // Before the app starts, whose first line may be a question for a password.
        terminal.take();
        let guard = TerminalGuard(Arc::clone(&terminal));
        Ok(Some((
            Self { ours: ours.into(), apps: apps.into(), held: Vec::new(), is_end_shown: false, terminal },
            guard,
        )))
    }

    /// Returns the app's end.
    pub(super) fn for_app(&self) -> io::Result<Stdio> {
        self.apps.try_clone().map(Stdio::from)
    }

    /// Copies standard input into it, on a thread that ends with the process. The process group `app` learns of a change
    /// of the size.
    pub(super) fn relay(self, app: Option<Pid>) -> io::Result<()> {
        thread::Builder::new().name("terminal".to_owned()).spawn(move || self.copy(app)).map(drop)
    }

    /// Returns once the terminal has gone.
    fn copy(mut self, app: Option<Pid>) {
        let stdin = io::stdin();
        let tick = Timespec::try_from(TICK).ok();
        let mut buffer = [0; 4096];
        loop {
            // Reading in the background would stop this process.
            if !self.terminal.take() {
                let _ = self.ours.read(&mut buffer);
                thread::sleep(TICK);
                continue;
            }
            self.resize(app);
            let keys = if self.held.len() < HELD { PollFlags::IN } else { PollFlags::empty() };
            let room = if self.held.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            let mut ready = [PollFd::new(&stdin, keys), PollFd::new(&self.ours, PollFlags::IN | room)];
            match poll(&mut ready, tick.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            // Before a key is passed on: the app's answer to it shows that its settings are followed.
            if let Ok(settings) = tcgetattr(&self.apps) {
                self.terminal.set_flow_control(settings.input_modes.contains(InputModes::IXON));
            }
            let [typed, echo] = ready.map(|fd| fd.revents());
            if echo.contains(PollFlags::IN) {
                self.show();
            }
            if typed.is_empty() {
                self.pass();
                continue;
            }
            match rustix::io::read(stdin.as_fd(), &mut buffer) {
                Ok(0) if typed.contains(PollFlags::HUP) => return,
                Ok(0) => self.held.extend_from_slice(END_OF_INPUT),
                Ok(length) => self.typed(&buffer[..length]),
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
            self.pass();
        }
    }

    /// Takes over a change of the size. The kernel reports it to the foreground group of the pseudoterminal, which has one
    /// only if the app has made it its controlling terminal; otherwise the app gets the signal from here.
    fn resize(&self, app: Option<Pid>) {
        let (Ok(size), Ok(known)) = (tcgetwinsize(io::stdin()), tcgetwinsize(&self.ours)) else { return };
        let shape = |size: &Winsize| (size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel);
        if shape(&size) == shape(&known) || tcsetwinsize(&self.ours, size).is_err() {
            return;
        }
        if let Some(app) = app.filter(|app| tcgetpgrp(&self.ours) != Ok(*app)) {
            // It may have ended.
            let _ = kill_process_group(app, Signal::WINCH);
        }
    }

    /// Takes typed keys; the one that suspends is for pulsegate.
    fn typed(&mut self, keys: &[u8]) {
        let terminal = Arc::clone(&self.terminal);
        let mut parts = keys.split(|key| terminal.suspends(*key));
        self.held.extend_from_slice(parts.next().unwrap_or_default());
        for part in parts {
            self.pass();
            terminal.suspend();
            self.held.extend_from_slice(part);
        }
    }

    /// Writes what is held as far as the pseudoterminal takes it.
    ///
    /// The end of a line, which the app waits for, is written once the line is shown with its end: the app's answer comes
    /// after it.
    fn pass(&mut self) {
        while !self.held.is_empty() {
            let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
            let length = self.held.iter().position(is_end).map_or(self.held.len(), |at| at.max(1));
            let modes = tcgetattr(&self.apps).map_or(LocalModes::empty(), |settings| settings.local_modes);
            let is_echoed = modes.contains(LocalModes::ECHO);
            let ends_line = is_echoed && modes.contains(LocalModes::ICANON) && is_end(&self.held[0]);
            if ends_line && !self.is_end_shown {
                self.terminal.show(b"\n");
            }
            self.is_end_shown = ends_line;
            match self.ours.write(&self.held[..length]) {
                Ok(length) => drop(self.held.drain(..length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return,
            }
            let mut ready = [PollFd::new(&self.ours, PollFlags::IN)];
            if is_echoed && poll(&mut ready, Timespec::try_from(ECHO).ok().as_ref()).is_ok_and(|count| count > 0) {
                self.show();
            }
        }
    }

    /// Shows what the pseudoterminal does, without the end of a line that is shown already.
    fn show(&mut self) {
        let mut buffer = [0; 4096];
        let Ok(length) = self.ours.read(&mut buffer) else { return };
        let mut shown = buffer[..length].to_vec();
        if self.is_end_shown
            && let Some(at) = shown.iter().position(|byte| *byte == b'\n')
        {
            shown.remove(at);
            self.is_end_shown = false;
        }
        self.terminal.show(&shown);
    }
}
