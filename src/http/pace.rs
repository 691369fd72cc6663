//! The rate at which the reader of a plain response must take it. A session has no such rate: its client only has to move.

use std::time::Duration;

/// Bytes a second that a client takes at least while bytes wait for it.
const LEAST_RATE: u64 = 240;

/// The time over which the rate is measured while more than `limits.memory` is held, unless it is shorter anyway.
pub(super) const STRICT: Duration = Duration::from_secs(5);

/// Returns whether `taken` bytes in a `window` are enough. Something is, where the window is too short for a rate.
pub(super) fn is_enough(taken: u64, window: Duration) -> bool {
    taken > 0 && Duration::from_secs(taken / LEAST_RATE) + Duration::from_secs(1) > window
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_has_a_least_rate() {
        let window = Duration::from_secs(45);
        assert!(!is_enough(0, window));
        assert!(!is_enough(45 * 100, window));
        assert!(is_enough(45 * 240, window));
        assert!(is_enough(1, Duration::from_millis(500)));
    }
}
