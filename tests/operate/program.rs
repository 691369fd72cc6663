//! The program under test, run to its end.

use std::path::Path;

use pulsegate_test_kit::process::{Finished, Process};
use tokio::process::Command;

use crate::PULSEGATE;

/// Returns the program with `arguments`, in a folder without a configuration.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(PULSEGATE);
    command.args(arguments).current_dir(Path::new(env!("CARGO_TARGET_TMPDIR")));
    command
}

/// Starts the program with `arguments`.
pub fn start(arguments: &[&str]) -> Process {
    Process::start_without_input("pulsegate", &mut command(arguments))
}

/// Runs the program with `arguments` to its end.
pub async fn run(arguments: &[&str]) -> Finished {
    start(arguments).finish().await
}

/// Runs `command` to its end.
pub async fn finish(mut command: Command) -> Finished {
    Process::run("pulsegate", &mut command).await
}
