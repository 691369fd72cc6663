//! The generator's own delays: a late action of a client proves nothing about the proxy.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The time between two measurements.
const PERIOD: Duration = Duration::from_millis(20);
/// The shortest delay that is recorded.
const NOTED: Duration = Duration::from_millis(50);
/// The time for which delays are kept.
const MEMORY: Duration = Duration::from_secs(600);

/// The recent delays of the runtime.
#[derive(Debug, Default)]
pub(super) struct Lag(Mutex<VecDeque<(Instant, Duration)>>);

impl Lag {
    /// Records delays until it is dropped.
    pub(super) async fn watch(&self) {
        loop {
            let due = Instant::now() + PERIOD;
            sleep(PERIOD).await;
            let now = Instant::now();
            self.note(now, now - due);
        }
    }

    fn note(&self, now: Instant, late: Duration) {
        let mut delays = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if late >= NOTED {
            delays.push_back((now, late));
        }
        while delays.front().is_some_and(|(at, _)| now - *at > MEMORY) {
            delays.pop_front();
        }
    }

    /// Returns the longest delay that ended at `from` or later.
    pub(super) fn worst_since(&self, from: Instant) -> Duration {
        let delays = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        delays.iter().filter(|(at, _)| *at >= from).map(|(_, late)| *late).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_delays_of_the_time_in_question_count() {
        let lag = Lag::default();
        let start = Instant::now();
        let second = Duration::from_secs(1);
        lag.note(start + second, Duration::from_millis(900));
        lag.note(start + 2 * second, Duration::from_millis(100));
        lag.note(start + 3 * second, Duration::from_millis(10));
        assert_eq!(lag.worst_since(start), Duration::from_millis(900));
        assert_eq!(lag.worst_since(start + 2 * second), Duration::from_millis(100));
        assert_eq!(lag.worst_since(start + 3 * second), Duration::ZERO);
    }
}
