//! The app's own liveness: one probe at a time for a whole upstream process, never one per session.

mod watch;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use watch::{CheckResult, HealthCheck, ProbeSessions, Tick, Watch};

/// Resolution of the time of the last byte, in milliseconds; a coarse tick spares the cache line.
const TICK_MS: u64 = 10;

/// What the sessions and connects of one upstream know together: when the app was last heard and last probed, and
/// whether it takes connections.
#[derive(Debug)]
pub struct UpstreamPulse {
    epoch: Instant,
    /// The last sign of life: bytes of a session, or a response.
    heard_ms: AtomicU64,
    /// The last response to a request; 0 until there was one.
    answered_ms: AtomicU64,
    /// The last ping of the proxy's own to the app; 0 until one has left.
    probed_ms: AtomicU64,
    /// Whether the last connect that had an outcome was refused.
    refused: AtomicBool,
    /// Whether a connect has come to nothing in another way since the watch last looked.
    suspect: AtomicBool,
    /// As the watch has left it.
    ready: AtomicBool,
}

/// The outcome of a connect, where the app is the reason for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectOutcome {
    /// A connection was opened. The kernel of a frozen app does that too.
    Opened,
    /// The app does not listen, or no way leads to it.
    Refused,
    /// No outcome in time, or a handshake that failed.
    Failed,
}

impl UpstreamPulse {
    /// The pulse of an app that counts as heard at `now`.
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

    /// The pulse of an app that has not been reached yet: it is not ready until its watch has found it ready.
    pub fn unreached(now: Instant) -> Self {
        Self { ready: AtomicBool::new(false), ..Self::new(now) }
    }

    /// Takes the app for ready before its watch begins.
    pub fn assume_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Records that bytes of the app were read on some session.
    #[inline]
    pub fn heard(&self, now: Instant) {
        let ms = self.since_epoch_ms(now);
        if ms > self.heard_ms.load(Ordering::Relaxed) + TICK_MS {
            self.heard_ms.store(ms, Ordering::Relaxed);
        }
    }

    /// Records a response of the app, with whatever status. Returns whether the watch should look at once.
    pub fn answered(&self, now: Instant) -> bool {
        let ms = self.since_epoch_ms(now).max(1);
        let awaited = !self.is_responsive();
        if awaited || ms > self.answered_ms.load(Ordering::Relaxed) + TICK_MS {
            self.answered_ms.store(ms, Ordering::Relaxed);
            self.heard_ms.fetch_max(ms, Ordering::Relaxed);
        }
        awaited
    }

    /// Records the outcome of a connect. Returns whether the watch should look at once.
    pub fn connected(&self, outcome: ConnectOutcome) -> bool {
        match outcome {
            // A read is cheaper than a write for the other workers, and nearly always enough.
            ConnectOutcome::Opened => {
                self.refused.load(Ordering::Relaxed) && self.refused.swap(false, Ordering::Relaxed)
            }
            ConnectOutcome::Refused => !self.refused.swap(true, Ordering::Relaxed),
            ConnectOutcome::Failed => !self.suspect.swap(true, Ordering::Relaxed),
        }
    }

    /// Records that the ping that [`Tick::Probe`] asked for has left for the wire.
    pub fn probe_left(&self, now: Instant) {
        self.probed_ms.store(self.since_epoch_ms(now).max(1), Ordering::Relaxed);
    }

    /// Whether new clients may be sent to the app.
    pub fn is_responsive(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    fn last_heard(&self) -> Instant {
        self.epoch + Duration::from_millis(self.heard_ms.load(Ordering::Relaxed))
    }

    /// Whether the app was heard at `asked` or later. What is kept has lost its microseconds, so `asked` is compared
    /// without its own: an answer may come within the same millisecond.
    fn heard_since(&self, asked: Instant) -> bool {
        self.heard_ms.load(Ordering::Relaxed) >= self.since_epoch_ms(asked)
    }

    /// Whether the app has responded to a request at `asked` or later; as above.
    fn answered_since(&self, asked: Instant) -> bool {
        self.answered_ms.load(Ordering::Relaxed) >= self.since_epoch_ms(asked).max(1)
    }

    /// When the ping left that was asked for at `asked`; as above.
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
