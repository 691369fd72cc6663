//! `pulsegate dev`, started by a package manager, and its end.

use std::fs;

use pulsegate_test_kit::process::Process;
use rustix::process::Pid;
use tokio::process::Command;

use super::sandbox::{LIMIT, Sandbox, program_of, programs};

/// `pulsegate dev` on free ports.
pub(super) const DEV: [&str; 5] = ["dev", "--listen", "127.0.0.1:0", "--inspect", "127.0.0.1:0"];

/// Starts the command and waits until `pulsegate dev` serves; returns also the process of the program.
pub(super) async fn serves(name: &str, mut command: Command) -> (Process, Pid) {
    let process = Process::start_without_input(name, &mut command);
    process.line_within(LIMIT, "the guide of dev", |line| line.text.contains("Ctrl-C ends it")).await;
    let found = programs(&process);
    let [program] = found[..] else { panic!("one program expected: {found:?}\n{}", process.transcript()) };
    (process, program)
}

/// Waits for the end of the process and of the program; fails unless the program has ended in order. Returns its output.
pub(super) async fn ends_with(mut process: Process, program: Pid, sandbox: &Sandbox) -> String {
    // Its output ends with the last process that writes to it.
    process.ended().await;
    assert_eq!(program_of(program), None, "{}", process.transcript());
    ended_in_order(sandbox);
    process.transcript()
}

/// Fails if `dev` has left its certificate behind, which it removes at its end.
pub(super) fn ended_in_order(sandbox: &Sandbox) {
    let left = fs::read_dir(sandbox.path("tmp")).expect("a folder").flatten().map(|entry| entry.file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().ends_with(".pem")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Fails unless SIGTERM to the command, with the arguments of `dev` added, ends the program in order.
pub(super) async fn ends_by_sigterm(sandbox: &Sandbox, mut command: Command) {
    command.args(DEV);
    let (process, program) = serves("a package manager", command).await;
    process.terminate();
    let is_it = |text: &str| text.contains("signal") && text.contains("SIGTERM");
    process.line("the signal", |line| is_it(&line.text)).await;
    let output = ends_with(process, program, sandbox).await;
    assert_eq!(output.lines().filter(|line| is_it(line)).count(), 1, "{output}");
}
