//! Programs of the system that cause faults.

use std::fs;
use std::process::Command;
use std::time::Duration;

use pulsegate_test_kit::process::Process;
use rustix::process::{Pid, geteuid};

/// The command that installs all of them.
const INSTALL: &str = "./tests/install installs what the tests need";

/// Fails without the rights of root, which namespaces and mounts require.
pub(crate) fn needs_root() {
    assert!(geteuid().is_root(), "network and mount namespaces take root: run sudo -E cargo test --test faults");
}

/// Runs a command, which must succeed.
pub(crate) fn run(words: &[&str]) {
    if let Err(error) = attempt(words) {
        panic!("{error}");
    }
}

/// Runs a command; on failure returns its output.
pub(crate) fn attempt(words: &[&str]) -> Result<(), String> {
    let (program, arguments) = words.split_first().expect("a command has a name");
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program} does not start: {error}; {INSTALL}"))?;
    if output.status.success() {
        return Ok(());
    }
    let wrote = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {}: {wrote}", words.join(" "), output.status))
}

/// Returns the process id of `process`.
pub(crate) fn pid(process: &Process) -> Pid {
    let number = status_field(process, "Pid:").try_into().expect("a process id is small");
    Pid::from_raw(number).expect("no process has the id 0")
}

/// Returns the number behind `name` in `/proc/[pid]/status`; of sizes, the number of KiB.
pub(crate) fn status_field(process: &Process, name: &str) -> u64 {
    let status = process.status();
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {status}"))
}

/// Returns the CPU time that `process` has used, in user and system mode.
pub(crate) fn cpu_time(process: &Process) -> Duration {
    /// `USER_HZ` of the kernel's interface to programs.
    const TICKS: u64 = 100;
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid(process).as_raw_nonzero())).expect("the process runs");
    // The name in parentheses is arbitrary; utime and stime are the 12th and 13th fields after it (proc(5)).
    let (_, rest) = stat.rsplit_once(')').expect("a name in parentheses");
    let ticks: u64 =
        rest.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}
