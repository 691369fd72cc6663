//! The tolerance of a connection for frames that carry nothing, and for requests and streams that come to nothing.

use std::time::Duration;

use tokio::time::Instant;

/// Frames without data that may come at once, and how soon one more may.
const FRAMES_MOST: u64 = 10_000;
const FRAME_EVERY: Duration = Duration::from_millis(1);

/// The cost of a SETTINGS frame in others: it is acknowledged, and changes the windows of all streams.
const SETTINGS_COST: u64 = 10;

/// Frames that each request allows besides itself, and each DATA frame of either side: clients widen two windows as they
/// read, some of them for every KiB.
const EARNED_BY_REQUEST: u64 = 4;
const EARNED_BY_DATA: u64 = 4;
const DATA_PER_FRAME: u64 = 1024;

/// The seconds for which a loss counts.
const WINDOW: usize = 10;

/// The measure of what a client costs beyond what it asks for.
///
/// Requests are not limited here; a client that opens streams only to reset them gives back what they allow.
#[derive(Debug)]
pub(super) struct Tolerance {
    /// Frames that may come, and when the count was last filled up.
    frames: u64,
    refilled: Instant,
    /// Losses by second, a ring.
    losses: [u32; WINDOW],
    begun: Instant,
    /// The second of the last loss after `begun`.
    last: u64,
}

impl Tolerance {
    pub(super) fn new(now: Instant) -> Self {
        Self { frames: FRAMES_MOST, refilled: now, losses: [0; WINDOW], begun: now, last: 0 }
    }

    /// A request has come.
    pub(super) fn request(&mut self) {
        self.earn(EARNED_BY_REQUEST);
    }

    /// A DATA frame has come or gone.
    pub(super) fn data(&mut self, payload: usize) {
        self.earn(EARNED_BY_DATA + payload as u64 / DATA_PER_FRAME);
    }

    /// A frame without data has come. Returns whether it may.
    #[must_use]
    pub(super) fn frame(&mut self, now: Instant) -> bool {
        self.spend(1, now)
    }

    /// As [`Self::frame`], for SETTINGS.
    #[must_use]
    pub(super) fn settings(&mut self, now: Instant) -> bool {
        self.spend(SETTINGS_COST, now)
    }

    /// As [`Self::frame`], for `RST_STREAM`.
    #[must_use]
    pub(super) fn reset(&mut self, now: Instant) -> bool {
        self.spend(EARNED_BY_REQUEST + 1, now)
    }

    /// A stream was lost at the proxy's or the app's cost: the client has abandoned a request that reached the app, or
    /// made an error for which the stream was reset.
    pub(super) fn lose(&mut self, now: Instant) {
        let second = self.advance(now);
        self.losses[second] = self.losses[second].saturating_add(1);
    }

    /// Returns the losses of the last ten seconds.
    pub(super) fn losses(&mut self) -> u32 {
        // The clock is read for connections that have some.
        if self.losses.iter().all(|losses| *losses == 0) { 0 } else { self.losses_at(Instant::now()) }
    }

    fn losses_at(&mut self, now: Instant) -> u32 {
        self.advance(now);
        self.losses.iter().fold(0, |sum, losses| sum.saturating_add(*losses))
    }

    /// Forgets the losses that no longer count, and returns the place of this second's.
    fn advance(&mut self, now: Instant) -> usize {
        let second = now.saturating_duration_since(self.begun).as_secs();
        let place = |second: u64| usize::try_from(second % WINDOW as u64).unwrap_or(0);
        let passed = second.saturating_sub(self.last).min(WINDOW as u64);
        (0..passed).for_each(|back| self.losses[place(second - back)] = 0);
        self.last = self.last.max(second);
        place(self.last)
    }

    fn earn(&mut self, frames: u64) {
        self.frames = FRAMES_MOST.min(self.frames + frames);
    }

    fn spend(&mut self, cost: u64, now: Instant) -> bool {
        if self.frames < cost {
            let earned = now.saturating_duration_since(self.refilled).as_millis() / FRAME_EVERY.as_millis();
            self.earn(u64::try_from(earned).unwrap_or(FRAMES_MOST).min(FRAMES_MOST));
            if earned > 0 {
                self.refilled = now;
            }
        }
        let is_allowed = self.frames >= cost;
        self.frames = self.frames.saturating_sub(cost);
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn losses_count_for_ten_seconds() {
        let begun = Instant::now();
        let mut tolerance = Tolerance::new(begun);
        for second in 0..20 {
            tolerance.lose(begun + SECOND * second);
        }
        assert_eq!(tolerance.losses_at(begun + SECOND * 19), 10, "those of the seconds 10 to 19");
        assert_eq!(tolerance.losses_at(begun + SECOND * 24), 5);
        assert_eq!(tolerance.losses_at(begun + SECOND * 600), 0);
        tolerance.lose(begun + SECOND * 600);
        assert_eq!(tolerance.losses_at(begun + SECOND * 609), 1);
    }

    #[test]
    fn frames_without_data_are_so_many_at_once_and_then_a_thousand_a_second() {
        let begun = Instant::now();
        let mut tolerance = Tolerance::new(begun);
        assert!((0..10_000).all(|_| tolerance.frame(begun)));
        assert!(!tolerance.frame(begun));
        assert!((0..1000).all(|_| tolerance.frame(begun + SECOND)));
        assert!(!tolerance.frame(begun + SECOND));
        assert!((0..1000).all(|_| tolerance.settings(begun + SECOND * 600)), "each counts for ten");
        assert!(!tolerance.settings(begun + SECOND * 600));
    }

    #[test]
    fn a_download_and_many_requests_allow_their_frames() {
        let begun = Instant::now();
        let mut tolerance = Tolerance::new(begun);
        for _ in 0..100_000 {
            tolerance.data(16 * 1024);
            assert!((0..8).all(|_| tolerance.frame(begun)), "two windows, widened for every 4 KiB");
            tolerance.request();
            assert!((0..3).all(|_| tolerance.frame(begun)));
        }
        let mut tolerance = Tolerance::new(begun);
        let pair = |tolerance: &mut Tolerance| {
            tolerance.request();
            tolerance.reset(begun)
        };
        let pairs = (0..100_000).take_while(|_| pair(&mut tolerance)).count();
        assert!((9_000..=11_000).contains(&pairs), "{pairs} streams opened only to be reset");
    }
}
