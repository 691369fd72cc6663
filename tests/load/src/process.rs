//! The cost of a process, read from `/proc`: the CPU time and the memory of a proxy and all its workers.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, sleep};

/// Clock ticks per second in `/proc/PID/stat`: `USER_HZ`, which is 100 in the ABI of every Linux port in use.
const TICKS_PER_SECOND: u64 = 100;

/// A process and its descendants: nginx's master and its worker are measured as one.
#[derive(Clone, Debug)]
pub struct Tree {
    pids: Vec<u32>,
}

impl Tree {
    /// Returns the current tree below `root`. A worker that starts later is not part of it.
    pub fn of(root: u32) -> Result<Self, ProcessError> {
        let mut family: Vec<Stat> = Vec::new();
        let listing = fs::read_dir("/proc").map_err(|source| ProcessError::Read { path: "/proc".into(), source })?;
        for entry in listing.flatten() {
            if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                // A process that has ended during the scan is not one of the tree.
                family.extend(read_stat(pid).ok());
            }
        }
        if !family.iter().any(|stat| stat.pid == root) {
            return Err(ProcessError::Absent(root));
        }
        Ok(Self { pids: descendants(root, &family) })
    }

    /// Returns the user and system time of all threads since their start, in steps of 10 ms.
    pub fn cpu(&self) -> Result<Duration, ProcessError> {
        self.pids.iter().map(|&pid| Ok(read_stat(pid)?.cpu)).sum()
    }

    /// Returns the proportional set size in bytes: private memory, and a share of shared memory.
    pub fn pss(&self) -> Result<u64, ProcessError> {
        self.pids
            .iter()
            .map(|pid| {
                let path = format!("/proc/{pid}/smaps_rollup");
                let text = read(&path)?;
                parse_pss(&text).ok_or_else(|| ProcessError::Format { path: path.into() })
            })
            .sum()
    }

    /// Returns the memory that no other process shares, in bytes.
    pub fn private_memory(&self) -> Result<u64, ProcessError> {
        self.sum_of(|pid| {
            let path = format!("/proc/{pid}/smaps_rollup");
            let text = read(&path)?;
            let fields = ["Private_Clean:", "Private_Dirty:"].map(|name| parse_kib(&text, name));
            let [Some(clean), Some(dirty)] = fields else { return Err(ProcessError::Format { path: path.into() }) };
            Ok(clean + dirty)
        })
    }

    /// Returns the number of open file descriptors.
    pub fn descriptors(&self) -> Result<u64, ProcessError> {
        self.sum_of(|pid| count_entries(&format!("/proc/{pid}/fd")))
    }

    /// Returns the number of threads.
    pub fn threads(&self) -> Result<u64, ProcessError> {
        self.sum_of(|pid| count_entries(&format!("/proc/{pid}/task")))
    }

    fn sum_of(&self, figure: impl Fn(u32) -> Result<u64, ProcessError>) -> Result<u64, ProcessError> {
        self.pids.iter().map(|&pid| figure(pid)).sum()
    }

    /// Returns the memory once it has been stable for `calm`: neither up nor down by more than 0.5 %. After `patience`
    /// returns the last reading, stable or not.
    pub async fn settled_pss(&self, calm: Duration, patience: Duration) -> Result<u64, ProcessError> {
        let deadline = Instant::now() + patience;
        let mut still_since = Instant::now();
        let mut anchor = self.pss()?;
        loop {
            sleep(Duration::from_millis(200)).await;
            let reading = self.pss()?;
            if reading.abs_diff(anchor) > anchor / 200 {
                anchor = reading;
                still_since = Instant::now();
            }
            if still_since.elapsed() >= calm || Instant::now() >= deadline {
                return Ok(reading);
            }
        }
    }

    /// Returns the CPU time once it has stopped growing, so that the work left by a finished load is included. After
    /// `patience` returns the last reading.
    pub async fn settled_cpu(&self, patience: Duration) -> Result<Duration, ProcessError> {
        let deadline = Instant::now() + patience;
        let mut last = self.cpu()?;
        loop {
            sleep(Duration::from_millis(200)).await;
            let reading = self.cpu()?;
            if reading == last || Instant::now() >= deadline {
                return Ok(reading);
            }
            last = reading;
        }
    }
}

/// The fields of `/proc/PID/stat` that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    pid: u32,
    parent: u32,
    cpu: Duration,
}

fn read_stat(pid: u32) -> Result<Stat, ProcessError> {
    let path = format!("/proc/{pid}/stat");
    let text = read(&path)?;
    parse_stat(&text).ok_or_else(|| ProcessError::Format { path: path.into() })
}

fn read(path: &str) -> Result<String, ProcessError> {
    fs::read_to_string(path).map_err(|source| ProcessError::Read { path: path.into(), source })
}

/// Parses `/proc/PID/stat` (proc(5)): the second field is the command in parentheses and may itself contain spaces and
/// parentheses.
fn parse_stat(text: &str) -> Option<Stat> {
    let (pid, _) = text.split_once(' ')?;
    let (_, rest) = text.rsplit_once(')')?;
    // The rest begins with field 3, the state.
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = number(14)? + number(15)?;
    Some(Stat {
        pid: pid.parse().ok()?,
        parent: u32::try_from(number(4)?).ok()?,
        cpu: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND),
    })
}

fn count_entries(directory: &str) -> Result<u64, ProcessError> {
    let listing = fs::read_dir(directory).map_err(|source| ProcessError::Read { path: directory.into(), source })?;
    Ok(listing.count() as u64)
}

fn parse_pss(rollup: &str) -> Option<u64> {
    parse_kib(rollup, "Pss:")
}

/// Returns the value of a field of `/proc/PID/smaps_rollup`, in bytes.
fn parse_kib(rollup: &str, name: &str) -> Option<u64> {
    let value = rollup.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

fn descendants(root: u32, family: &[Stat]) -> Vec<u32> {
    let mut found = vec![root];
    let mut known = HashSet::from([root]);
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(family.iter().filter(|stat| stat.parent == parent && known.insert(stat.pid)).map(|stat| stat.pid));
        next += 1;
    }
    found
}

/// An error in measuring a process.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// There is no such process.
    #[error("there is no process {0} to measure: it has ended, or --pid is wrong")]
    Absent(u32),
    /// A file of `/proc` cannot be read.
    #[error("cannot read {}: the process has ended, or belongs to another user", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// A file of `/proc` has not the format of proc(5).
    #[error("cannot parse {}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_contain_anything() {
        let text = "4242 (nginx: (worker) 9 9) S 4241 4242 4242 0 -1 4194624 1 2 3 4 150 75 6 7 20 0 1 0 88 1 2 3\n";
        assert_eq!(parse_stat(text), Some(Stat { pid: 4242, parent: 4241, cpu: Duration::from_millis(2250) }));
    }

    #[test]
    fn a_short_stat_is_no_stat() {
        assert_eq!(parse_stat("1 (init) S 0 1 1 0 -1 0 1 2 3 4 150"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn pss_is_the_total_and_not_one_of_its_parts() {
        let rollup = "55d0-7ffc ---p 00000000 00:00 0 [rollup]\nRss:    9000 kB\nPss:            1234 kB\n\
                      Pss_Dirty:   10 kB\nPss_Anon:  20 kB\n";
        assert_eq!(parse_pss(rollup), Some(1234 * 1024));
        assert_eq!(parse_pss("Rss: 1 kB\n"), None);
    }

    #[test]
    fn descendants_are_found_through_generations_in_any_order() {
        let stat = |pid, parent| Stat { pid, parent, cpu: Duration::ZERO };
        let family = [stat(30, 20), stat(20, 10), stat(10, 1), stat(21, 10), stat(99, 1)];
        let mut found = descendants(10, &family);
        found.sort_unstable();
        assert_eq!(found, [10, 20, 21, 30]);
    }

    #[test]
    fn this_process_can_be_measured() {
        let tree = Tree::of(std::process::id()).expect("we are running");
        assert!(tree.pss().expect("our own memory is readable") > 100 * 1024);
        let before = tree.cpu().expect("our own time is readable");
        let mut spin = 0_u64;
        while tree.cpu().expect("our own time is readable") < before + Duration::from_millis(30) {
            spin = std::hint::black_box(spin.wrapping_add(1));
        }
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = Tree::of(u32::MAX).expect_err("no process has this number");
        assert!(error.to_string().contains("4294967295"), "{error}");
    }
}
