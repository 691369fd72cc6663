//! The end of a started program together with the process that started it.

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux;
#[cfg(any(feature = "portable", not(target_os = "linux")))]
mod portable;

use std::os::unix::process::CommandExt;

#[cfg(all(target_os = "linux", not(feature = "portable")))]
use linux as system;
#[cfg(any(feature = "portable", not(target_os = "linux")))]
use portable as system;

/// Makes the kernel send SIGTERM to the program of `command` when the thread that starts it ends, by whatever signal
/// (`PR_SET_PDEATHSIG`, prctl(2)): that thread must live as long as its process. Descendants of the program get no signal.
///
/// Portable: nothing. A program outlives a process that was killed with SIGKILL.
pub fn ends_with_parent(command: &mut impl CommandExt) {
    system::ends_with_parent(command);
}
