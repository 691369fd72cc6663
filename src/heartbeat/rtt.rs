//! Round-trip estimators (RFC 6298 §2) and the adaptive window.

use std::time::Duration;

/// The maximum adaptive window.
const WIDEST: Duration = Duration::from_mins(1);

/// The smoothed round trip and its variation.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Estimator {
    smoothed: Option<(Duration, Duration)>,
}

impl Estimator {
    /// Adds one measured round trip.
    pub(super) fn sample(&mut self, rtt: Duration) {
        self.smoothed = Some(match self.smoothed {
            None => (rtt, rtt / 2),
            Some((srtt, rttvar)) => ((srtt * 7 + rtt) / 8, (rttvar * 3 + srtt.abs_diff(rtt)) / 4),
        });
    }

    /// Returns the smoothed round trip, if one was measured.
    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed.map(|(srtt, _)| srtt)
    }

    /// Returns `timeout`, or SRTT + 8·RTTVAR up to a minute if that is longer.
    pub(super) fn window(&self, timeout: Duration) -> Duration {
        match self.smoothed {
            None => timeout,
            Some((srtt, rttvar)) => timeout.max((srtt + rttvar * 8).min(WIDEST)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn s30_a_long_round_trip_widens_the_window_up_to_the_cap() {
        let mut rtt = Estimator::default();
        assert_eq!(rtt.window(20 * SECOND), 20 * SECOND);
        rtt.sample(SECOND / 10);
        assert_eq!(rtt.window(20 * SECOND), 20 * SECOND, "never shorter than the timeout");
        for _ in 0..3 {
            rtt.sample(25 * SECOND);
        }
        assert_eq!(rtt.window(20 * SECOND), 60 * SECOND, "25 s round trips ask for more than the cap");
        for _ in 0..40 {
            rtt.sample(25 * SECOND);
        }
        let settled = rtt.window(20 * SECOND);
        assert!(settled > 25 * SECOND && settled < 30 * SECOND, "a steady path: {settled:?}");
        assert_eq!(rtt.window(90 * SECOND), 90 * SECOND, "a longer timeout stands");
    }
}
