//! The usage by /proc (`proc_pid_stat(5)`, `proc_pid_status(5)`).

use std::fs;

use super::usage::{ProcessUsage, descriptors};

/// The unit of processor times in /proc (`USER_HZ`), which is part of Linux' interface on every architecture that Rust
/// builds programs for.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn now() -> ProcessUsage {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = |name| number(&status, name).map(|kibibytes| kibibytes * 1024);
    ProcessUsage {
        processor_seconds: processor_seconds(&stat),
        resident_bytes: memory("VmRSS:"),
        virtual_bytes: memory("VmSize:"),
        threads: number(&status, "Threads:"),
        descriptors: descriptors("/proc/self/fd"),
    }
}

/// Returns the processor time in `stat`: `utime` and `stime`, the 14th and 15th of the fields. The second one is a name in
/// parentheses, which may hold any character.
fn processor_seconds(stat: &str) -> Option<f64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some((next()? + next()?) / TICKS_PER_SECOND)
}

/// Returns the number of a line of `status`.
fn number(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_any_name() {
        let stat = "4711 (a ) S 9) R 1 4711 4711 0 -1 4194560 1234 0 0 0 250 75 0 0 20 0 3 0 100 1000 10";
        assert_eq!(processor_seconds(stat), Some(3.25));
        assert_eq!(processor_seconds("4711 (a) R 1 2"), None);
    }

    #[test]
    fn numbers_are_those_of_their_lines() {
        let status = "Name:\tVmRSS: 1\nVmSize:\t  512 kB\nVmRSS:\t   64 kB\nThreads:\t3\n";
        assert_eq!(number(status, "VmRSS:"), Some(64));
        assert_eq!(number(status, "Threads:"), Some(3));
        assert_eq!(number(status, "VmSwap:"), None);
    }
}
