//! The app as a process that pulsegate starts, waits for, and ends.
//!
//! ```text
//! AppCommand → AppProcess → until_listening → (the proxy runs) → stop
//! ```
//!
//! The app is its first process and all that descends from it: pulsegate adopts the orphans among them, so that none is left
//! at the end. It has a process group of its own: Ctrl-C and the signals of a supervisor reach pulsegate alone, which drains
//! before it passes the end on. If standard input is a terminal, the app gets a terminal of its own for it, since a group
//! in the background cannot read from the first one.

mod address;
mod command;
mod diagnosis;
mod exit;
mod orphans;
mod process;
mod readiness;
mod terminal_input;

pub use address::occupant;
pub use command::{AppCommand, SpawnError, free_port};
pub use exit::AppExit;
pub use process::AppProcess;
pub use readiness::{Readiness, Wait, report_early_exit, report_exit, report_left_behind, until_listening};
