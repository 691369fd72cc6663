//! The terminal of pulsegate's standard input, while the app has one of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, getpgrp, kill_current_process_group};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr,
};

use crate::platform::terminal_keys;

/// The time in which the kernel stops the process after a signal to do so.
const STOPPING: Duration = Duration::from_millis(100);

/// The settings of the terminal before and while the app runs.
#[derive(Debug)]
pub(super) struct OuterTerminal {
    before: Termios,
    during: Termios,
    /// The terminal, for what the app's one shows.
    screen: Option<File>,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The terminal has its own settings.
    Restored,
    /// The terminal has those for the app's time.
    Taken,
    /// The app has ended.
    Over,
}

/// Restores the settings of the terminal on drop, for good.
#[derive(Debug)]
pub(in crate::child) struct TerminalGuard(pub(super) Arc<OuterTerminal>);

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        self.0.restore(State::Over);
    }
}

impl OuterTerminal {
    /// Reads the settings of standard input, which is the terminal of this session.
    pub(super) fn of_stdin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let screen = OpenOptions::new().write(true).open("/dev/tty").ok();
        Ok(Self { during: during(&before), before, screen, state: Mutex::new(State::Restored) })
    }

    /// Returns the settings before.
    pub(super) fn before(&self) -> Termios {
        self.before.clone()
    }

    /// Gives the terminal the settings for the app's time, unless it has them, or some that another program has given it.
    /// Returns whether pulsegate is in the foreground; in the background the terminal is left alone.
    pub(super) fn take(&self) -> bool {
        let mut state = self.lock();
        if !is_foreground() {
            return false;
        }
        // A shell puts its own settings back while the process is stopped.
        let is_as_before = || tcgetattr(io::stdin()).is_ok_and(|now| now.local_modes == self.before.local_modes);
        if *state != State::Over && is_as_before() && tcsetattr(io::stdin(), OptionalActions::Now, &self.during).is_ok()
        {
            *state = State::Taken;
        }
        true
    }

    /// Has Ctrl-S and Ctrl-Q pause the output, if they did before, or passes them on as keys.
    pub(super) fn set_flow_control(&self, pauses: bool) {
        let state = self.lock();
        if *state != State::Taken || !is_foreground() {
            return;
        }
        let Ok(mut now) = tcgetattr(io::stdin()) else { return };
        let pauses = pauses && self.before.input_modes.contains(InputModes::IXON);
        if now.input_modes.contains(InputModes::IXON) != pauses {
            now.input_modes.set(InputModes::IXON, pauses);
            // The terminal may have gone.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &now);
        }
    }

    /// Returns whether this key suspends pulsegate.
    pub(super) fn suspends(&self, key: u8) -> bool {
        let suspends = self.before.special_codes[SpecialCodeIndex::VSUSP];
        self.before.local_modes.contains(LocalModes::ISIG) && suspends != terminal_keys::DISABLED && key == suspends
    }

    /// Suspends pulsegate as the terminal does it by itself, but with its settings restored. Returns once it goes on.
    pub(super) fn suspend(&self) {
        self.restore(State::Restored);
        // A group that nobody could continue is not stopped.
        let _ = kill_current_process_group(Signal::TSTP);
        thread::sleep(STOPPING);
    }

    /// Writes what the app's terminal shows.
    pub(super) fn show(&self, bytes: &[u8]) {
        // Without a terminal nobody reads it.
        let _ = self.screen.as_ref().map(|mut screen| screen.write_all(bytes));
    }

    fn restore(&self, next: State) {
        let mut state = self.lock();
        if *state == State::Taken && is_foreground() {
            // The terminal may have gone.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
        }
        if *state != State::Over {
            *state = next;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether the terminal sends its keys to the group of this process. A change of its settings by another one would
/// stop that.
fn is_foreground() -> bool {
    tcgetpgrp(io::stdin()) == Ok(getpgrp())
}

/// Returns settings by which every key is passed on as it is and nothing is shown, except for keys that send a signal or
/// pause the output. Output of the app, which is not in the foreground, is allowed.
fn during(before: &Termios) -> Termios {
    let mut during = before.clone();
    during
        .local_modes
        .remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::IEXTEN | LocalModes::TOSTOP);
    during.input_modes.remove(InputModes::ICRNL | InputModes::INLCR | InputModes::IGNCR);
    during.special_codes[SpecialCodeIndex::VSUSP] = terminal_keys::DISABLED;
    during.special_codes[SpecialCodeIndex::VMIN] = 1;
    during.special_codes[SpecialCodeIndex::VTIME] = 0;
    during
}
