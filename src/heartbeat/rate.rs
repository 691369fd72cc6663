//! The rate limit of the client's own heartbeats.

use std::time::{Duration, Instant};

/// The number of heartbeats of one kind allowed in a second.
const PER_SECOND: u32 = 20;
/// The maximum credit of a client. Its heartbeats may arrive in one burst after a stall of the network or of this
/// process; a minute of them is not a flood.
const MOST: u32 = 60 * PER_SECOND;

/// A token bucket for the client's heartbeats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    since: Instant,
    allowed: u32,
}

impl Rate {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, allowed: PER_SECOND }
    }

    /// Counts one heartbeat; returns whether it exceeds the limit.
    pub(super) fn count(&mut self, now: Instant) -> bool {
        let each = Duration::from_secs(1) / PER_SECOND;
        let earned = now.saturating_duration_since(self.since).as_nanos() / each.as_nanos();
        let earned = u32::try_from(earned).unwrap_or(MOST).min(MOST);
        self.since = if earned == MOST { now } else { self.since + each * earned };
        self.allowed = MOST.min(self.allowed + earned);
        let over = self.allowed == 0;
        self.allowed = self.allowed.saturating_sub(1);
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn twenty_a_second_are_tolerated_for_ever_and_one_more_is_not() {
        let base = crate::any_instant();
        let mut rate = Rate::new(base);
        for beat in 0..10_000 {
            assert!(!rate.count(base + SECOND * beat / PER_SECOND), "{beat}");
        }
        let mut rate = Rate::new(base);
        let over = (0..10_000).position(|beat| rate.count(base + SECOND * beat / (PER_SECOND + 1)));
        assert!(over.is_some_and(|beat| (400..=441).contains(&beat)), "{over:?}");
    }

    #[test]
    fn a_burst_after_silence_is_what_waited() {
        let base = crate::any_instant();
        let mut rate = Rate::new(base);
        assert!((0..PER_SECOND * 6).all(|_| !rate.count(base + 5 * SECOND)));
        assert!(rate.count(base + 5 * SECOND));
        let late = base + 86_400 * SECOND;
        assert_eq!((0..=MOST).position(|_| rate.count(late)), Some(MOST as usize), "a day of silence is not saved up");
    }
}
