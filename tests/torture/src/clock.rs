//! The lateness of the machine: of this process by its own clock, and of the proxy by the kernel's statistics of the
//! time that its threads were ready to run and did not.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::sleep;

const STEP: Duration = Duration::from_millis(20);

/// A record of lateness.
#[derive(Debug)]
pub struct Clock {
    samples: Arc<Mutex<Vec<(Instant, Duration)>>>,
    sampling: JoinHandle<()>,
}

impl Clock {
    /// Starts the record; `pid` is that of the proxy, if there is one.
    pub fn start(pid: Option<u32>) -> Self {
        let samples = Arc::<Mutex<Vec<_>>>::default();
        let shared = Arc::clone(&samples);
        let sampling = tokio::spawn(async move {
            let mut waited = pid.map(waiting).unwrap_or_default();
            loop {
                let before = Instant::now();
                sleep(STEP).await;
                let own = before.elapsed().saturating_sub(STEP + Duration::from_millis(2));
                let total = pid.map(waiting).unwrap_or_default();
                let of = |(thread, now): (&u32, &Duration)| {
                    now.saturating_sub(waited.get(thread).copied().unwrap_or_default())
                };
                let late = own + total.iter().map(of).max().unwrap_or_default();
                waited = total;
                if late > Duration::from_millis(5) {
                    shared.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), late));
                }
            }
        });
        Self { samples, sampling }
    }

    /// Returns the sum of the lateness between two times.
    pub fn late(&self, from: Instant, to: Instant) -> Duration {
        self.between(from, to).into_iter().sum()
    }

    /// Returns the longest time for which the whole machine stood still between two times.
    pub fn standstill(&self, from: Instant, to: Instant) -> Duration {
        self.between(from, to).into_iter().max().unwrap_or_default()
    }

    fn between(&self, from: Instant, to: Instant) -> Vec<Duration> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        // A sample is taken at the end of the lateness.
        let touches =
            |at: Instant, late: Duration| at >= from && at.checked_sub(late + STEP).is_none_or(|began| began <= to);
        samples.iter().filter(|(at, late)| touches(*at, *late)).map(|(_, late)| *late).collect()
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.sampling.abort();
    }
}

/// Returns the time that each thread of a process has waited for a CPU (`/proc/PID/task/TID/schedstat`, second field).
fn waiting(pid: u32) -> HashMap<u32, Duration> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return HashMap::new() };
    let of = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path().join("schedstat")).ok()?;
        let nanos = text.split(' ').nth(1)?.trim().parse().ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, Duration::from_nanos(nanos)))
    };
    threads.filter_map(|entry| of(entry.ok()?)).collect()
}
