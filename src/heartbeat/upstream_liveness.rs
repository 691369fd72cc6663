//! The liveness of the app: one probe at a time for a whole upstream process, never one per session.

mod watch;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use watch::{HealthCheck, HealthCheckResult, LivenessMonitor, ProbeSessions, Tick};

/// The resolution of the time of the last byte, in milliseconds; a coarse tick avoids writes to a shared cache line.
const TICK_MS: u64 = 10;

/// The liveness state shared by all sessions and connects of one upstream: the times of the app's last sign of life and
/// of the last probe, and whether it accepts connections.
#[derive(Debug)]
pub struct UpstreamLiveness {
    epoch: Instant,
    /// The last sign of life: bytes of a session, or a response.
    heard_ms: AtomicU64,
    /// The last response to a request; 0 before the first.
    answered_ms: AtomicU64,
    /// The proxy's last ping to the app; 0 before the first.
    probed_ms: AtomicU64,
    /// True if the last connect with an outcome was refused.
    refused: AtomicBool,
    /// True if a connect has failed in another way since the monitor's last tick.
    suspect: AtomicBool,
    /// The readiness set by the monitor.
    ready: AtomicBool,
}

/// The outcome of a connect, if it depends on the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectOutcome {
    /// A connection was opened, which the kernel of a frozen app also does.
    Opened,
    /// The app does not listen, or there is no route to it.
    Refused,
    /// No outcome in time, or a failed handshake.
    Failed,
}

impl UpstreamLiveness {
    /// Creates the state of an app that counts as alive at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            heard_ms: AtomicU64::new(0),
            answered_ms: AtomicU64::new(0),
            probed_ms: AtomicU64::new(0),
            refused: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
            ready: AtomicBool::new(true),
        }
    }

    /// Creates the state of an app that has not been reached yet: it is not ready until its monitor finds it ready.
    pub fn unreached(now: Instant) -> Self {
        Self { ready: AtomicBool::new(false), ..Self::new(now) }
    }

    /// Marks the app as ready before its monitor begins.
    pub fn assume_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Records that bytes of the app were read on some session.
    #[inline]
    pub fn record_bytes(&self, now: Instant) {
        let ms = self.since_epoch_ms(now);
        if ms > self.heard_ms.load(Ordering::Relaxed) + TICK_MS {
            self.heard_ms.store(ms, Ordering::Relaxed);
        }
    }

    /// Records a response of the app with any status. Returns whether the monitor should tick at once.
    pub fn record_response(&self, now: Instant) -> bool {
        let ms = self.since_epoch_ms(now).max(1);
        let awaited = !self.is_responsive();
        if awaited || ms > self.answered_ms.load(Ordering::Relaxed) + TICK_MS {
            self.answered_ms.store(ms, Ordering::Relaxed);
            self.heard_ms.fetch_max(ms, Ordering::Relaxed);
        }
        awaited
    }

    /// Records the outcome of a connect. Returns whether the monitor should tick at once.
    pub fn record_connect(&self, outcome: ConnectOutcome) -> bool {
        match outcome {
            // A read costs the other workers less than a write, and nearly always suffices.
            ConnectOutcome::Opened => {
                self.refused.load(Ordering::Relaxed) && self.refused.swap(false, Ordering::Relaxed)
            }
            ConnectOutcome::Refused => !self.refused.swap(true, Ordering::Relaxed),
            ConnectOutcome::Failed => !self.suspect.swap(true, Ordering::Relaxed),
        }
    }

    /// Records that the ping requested by [`Tick::Probe`] has been written.
    pub fn probe_written(&self, now: Instant) {
        self.probed_ms.store(self.since_epoch_ms(now).max(1), Ordering::Relaxed);
    }

    /// Returns whether new clients may be sent to the app.
    pub fn is_responsive(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    fn last_received(&self) -> Instant {
        self.epoch + Duration::from_millis(self.heard_ms.load(Ordering::Relaxed))
    }

    /// Returns whether the app has shown a sign of life at `asked` or later. The stored time has lost its microseconds,
    /// so `asked` is compared without its own: an answer may arrive within the same millisecond.
    fn received_since(&self, asked: Instant) -> bool {
        self.heard_ms.load(Ordering::Relaxed) >= self.since_epoch_ms(asked)
    }

    /// Returns whether the app has responded to a request at `asked` or later, with the same resolution.
    fn answered_since(&self, asked: Instant) -> bool {
        self.answered_ms.load(Ordering::Relaxed) >= self.since_epoch_ms(asked).max(1)
    }

    /// Returns the time at which the ping requested at `asked` was written, with the same resolution.
    fn probed_since(&self, asked: Instant) -> Option<Instant> {
        let probed_ms = self.probed_ms.load(Ordering::Relaxed);
        let at = self.epoch + Duration::from_millis(probed_ms);
        (probed_ms >= self.since_epoch_ms(asked).max(1)).then_some(at.max(asked))
    }

    #[expect(clippy::cast_possible_truncation, reason = "milliseconds of half a billion years")]
    fn since_epoch_ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_millis() as u64
    }
}

#[cfg(test)]
mod tests;
