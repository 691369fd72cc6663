//! How often the client beats by itself.

use std::time::{Duration, Instant};

/// Heartbeats of one kind that are tolerated in a second.
const PER_SECOND: u32 = 20;
/// What a client may have saved up. Its heartbeats may come in one burst, after the network or this process stood
/// still; a minute of them is no flood.
const MOST: u32 = 60 * PER_SECOND;

/// Counts the client's heartbeats against what their rate allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    since: Instant,
    allowed: u32,
}

impl Rate {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, allowed: PER_SECOND }
    }

    /// Counts one; `true` where it is one too many.
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
