//! The lateness of the machine: of this process by its own clock, and of the proxy by the kernel's account of the time
//! that its threads were ready to run and did not.

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
    /// Starts to record; `pid` is that of the proxy, if there is one.
    pub fn start(pid: Option<u32>) -> Self {
        let samples = Arc::<Mutex<Vec<_>>>::default();
        let shared = Arc::clone(&samples);
        let sampling = tokio::spawn(async move {
            let mut waited = pid.map_or(Duration::ZERO, waiting);
            loop {
                let before = Instant::now();
                sleep(STEP).await;
                let own = before.elapsed().saturating_sub(STEP + Duration::from_millis(2));
                let total = pid.map_or(Duration::ZERO, waiting);
                let late = own + total.saturating_sub(waited);
                waited = total;
                if late > Duration::from_millis(5) {
                    shared.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), late));
                }
            }
        });
        Self { samples, sampling }
    }

    /// The lateness between two times, added up.
    pub fn late(&self, from: Instant, to: Instant) -> Duration {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.iter().filter(|(at, _)| (from..=to + STEP).contains(at)).map(|(_, late)| *late).sum()
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.sampling.abort();
    }
}

/// The time that the threads of a process have waited for a CPU (`/proc/PID/task/TID/schedstat`, second field).
fn waiting(pid: u32) -> Duration {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let of = |path: std::path::PathBuf| fs::read_to_string(path.join("schedstat")).ok();
    let texts = threads.filter_map(|thread| of(thread.ok()?.path()));
    let nanos = texts.filter_map(|text| text.split(' ').nth(1)?.trim().parse::<u64>().ok());
    Duration::from_nanos(nanos.max().unwrap_or(0))
}
