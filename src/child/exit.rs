//! The end of the app's process.

use std::fmt;

use rustix::process::WaitStatus;

/// The end of the app's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppExit {
    /// It ended by itself, with this code.
    Code(u8),
    /// A signal with this number killed it.
    Signal(u8),
}

impl AppExit {
    /// Returns the end that `status` describes.
    pub(super) fn of(status: WaitStatus) -> Self {
        let byte = |number: i32| u8::try_from(number & 0xff).unwrap_or(u8::MAX);
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Self::Code(byte(code)),
            (None, signal) => Self::Signal(byte(signal.unwrap_or_default())),
        }
    }

    /// Returns the code with which pulsegate exits in turn: the app's, or 128 and the number of the signal, as a shell's.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128_u8.saturating_add(signal),
        }
    }
}

impl fmt::Display for AppExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with {code}"),
            Self::Signal(signal) => write!(f, "was killed by signal {signal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_that_of_a_shell() {
        assert_eq!([AppExit::Code(3), AppExit::Signal(15), AppExit::Signal(9)].map(AppExit::code), [3, 143, 137]);
        assert_eq!(AppExit::Signal(9).to_string(), "was killed by signal 9");
    }
}
