//! The process metrics, named alike by every Prometheus client library.

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use rustix::process::{Resource, getrlimit};

use super::catalogue::{self, Metric};
use super::collectors::begin;

/// The unit of processor times in /proc (`USER_HZ`), the same on every Linux architecture that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// The collector of process metrics. It reads /proc at each scrape; without /proc, most of the metrics are missing.
#[derive(Debug)]
pub(super) struct Process {
    started: SystemTime,
}

impl Process {
    /// Returns the collector of a process that starts now.
    pub(super) fn starting() -> Self {
        Self { started: SystemTime::now() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(seconds) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(processor_time) {
            begin(&mut encoder, &catalogue::PROCESS_CPU)?.encode_counter::<NoLabelSet, f64, f64>(&seconds, None)?;
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let memory = |name| number(&status, name).map(|kibibytes| kibibytes * 1024);
        gauge(&mut encoder, &catalogue::PROCESS_MEMORY, memory("VmRSS:"))?;
        gauge(&mut encoder, &catalogue::PROCESS_VIRTUAL_MEMORY, memory("VmSize:"))?;
        gauge(&mut encoder, &catalogue::PROCESS_THREADS, number(&status, "Threads:"))?;
        gauge(&mut encoder, &catalogue::PROCESS_OPEN_FDS, open_descriptors())?;
        gauge(&mut encoder, &catalogue::PROCESS_MAX_FDS, getrlimit(Resource::Nofile).current)?;
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        begin(&mut encoder, &catalogue::PROCESS_START_TIME)?.encode_gauge(&started)
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, metric: &'static Metric, value: Option<u64>) -> fmt::Result {
    let Some(value) = value else { return Ok(()) };
    begin(encoder, metric)?.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
}

/// Returns the processor time of `stat` (`proc_pid_stat(5)`) in seconds: the sum of `utime` and `stime`, fields 14 and
/// 15. Field 2 is a name in parentheses that may contain any character.
fn processor_time(stat: &str) -> Option<f64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some((next()? + next()?) / TICKS_PER_SECOND)
}

/// Returns the number in the line `name` of `status` (`proc_pid_status(5)`).
fn number(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Returns the number of open descriptors, without the one that is opened to count them.
fn open_descriptors() -> Option<u64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    Some(count.saturating_sub(1) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_whatever_name() {
        let stat = "4711 (a ) S 9) R 1 4711 4711 0 -1 4194560 1234 0 0 0 250 75 0 0 20 0 3 0 100 1000 10";
        assert_eq!(processor_time(stat), Some(3.25));
        assert_eq!(processor_time("4711 (a) R 1 2"), None);
    }

    #[test]
    fn numbers_are_those_of_their_lines() {
        let status = "Name:\tVmRSS: 1\nVmSize:\t  512 kB\nVmRSS:\t   64 kB\nThreads:\t3\n";
        assert_eq!(number(status, "VmRSS:"), Some(64));
        assert_eq!(number(status, "Threads:"), Some(3));
        assert_eq!(number(status, "VmSwap:"), None);
    }
}
