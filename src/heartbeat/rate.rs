//! How often the client beats by itself.

use std::time::{Duration, Instant};

/// Heartbeats of one kind that are tolerated within one second.
const PER_SECOND: u32 = 20;

/// Counts the client's heartbeats, second by second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    second: Instant,
    seen: u32,
}

impl Rate {
    pub(super) fn new(now: Instant) -> Self {
        Self { second: now, seen: 0 }
    }

    /// Counts one; `true` where it is one too many.
    pub(super) fn count(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.second) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        self.seen += 1;
        self.seen > PER_SECOND
    }
}
