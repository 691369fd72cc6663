//! The time limit for request bodies that arrive slowly.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use crate::suspension::{Deadline, Expiry};

/// The least that a body must bring in each interval, in bytes, unless it ends. Any link is faster; a slower client
/// only occupies a connection to the app.
const LEAST: usize = 1024;

/// The error of a request body that arrived too slowly.
#[derive(Debug, thiserror::Error)]
#[error("the client sent less than {LEAST} bytes of its body within {within:?}")]
pub(super) struct TooSlow {
    within: Duration,
}

/// The client's time, which runs only while the body is polled and nothing has arrived. It is paused while the app
/// reads nothing.
#[derive(Debug)]
pub(super) struct BodyClock {
    within: Duration,
    /// The time left in the present interval.
    left: Duration,
    /// The bytes that arrived in the present interval.
    bytes: usize,
    /// The start of the present wait for the client.
    waiting: Option<Instant>,
    /// Set lazily: it fires early and is set again, which costs less than setting it for each piece.
    timer: Option<Expiry>,
}

impl BodyClock {
    /// Creates a clock for a body that must bring 1 KiB in each interval of `within`.
    pub(super) fn new(within: Duration) -> Self {
        Self { within, left: within, bytes: 0, waiting: None, timer: None }
    }

    /// Records the arrival of a piece of `bytes` bytes.
    pub(super) fn received(&mut self, bytes: usize, now: Instant) {
        if let Some(since) = self.waiting.take() {
            self.left = self.deadline(since).at().saturating_duration_since(now);
        }
        self.bytes += bytes;
        if self.bytes >= LEAST {
            (self.bytes, self.left) = (0, self.within);
        }
    }

    /// Waits for the client; ready once its time has passed.
    pub(super) fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<TooSlow> {
        let since = *self.waiting.get_or_insert_with(Instant::now);
        let deadline = self.deadline(since);
        let timer = self.timer.get_or_insert_with(|| Expiry::new(deadline));
        loop {
            ready!(Pin::new(&mut *timer).poll(cx));
            if timer.deadline() == deadline {
                return Poll::Ready(TooSlow { within: self.within });
            }
            timer.reset(deadline);
        }
    }

    /// Returns the end of the client's time for a wait that began at `since`. A suspension of this process restarts the
    /// time.
    fn deadline(&self, since: Instant) -> Deadline {
        Deadline::since(since, self.left).with_min_after_pause(self.within)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{advance, sleep, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn over(clock: &mut BodyClock) {
        let TooSlow { .. } = poll_fn(|cx| clock.poll_elapsed(cx)).await;
    }

    /// Waits for the client for `time`; returns whether the limit passed.
    async fn waits(clock: &mut BodyClock, time: Duration) -> bool {
        timeout(time, over(clock)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_nothing_has_its_time_and_no_more() {
        let (mut clock, begun) = (BodyClock::new(60 * SECOND), Instant::now());
        over(&mut clock).await;
        assert_eq!(begun.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_buys_no_time_and_a_kibibyte_does() {
        let mut clock = BodyClock::new(60 * SECOND);
        for _ in 0..5 {
            assert!(!waits(&mut clock, 10 * SECOND).await);
            clock.received(1, Instant::now());
        }
        assert!(waits(&mut clock, 11 * SECOND).await, "five bytes in a minute");

        let mut clock = BodyClock::new(60 * SECOND);
        for _ in 0..100 {
            assert!(!waits(&mut clock, 50 * SECOND).await, "twenty bytes a second for an hour");
            clock.received(LEAST, Instant::now());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn s77_time_in_which_the_process_was_stopped_is_not_the_clients() {
        let test = async {
            let mut clock = BodyClock::new(60 * SECOND);
            assert!(!waits(&mut clock, 59 * SECOND).await);
            advance(10 * SECOND).await;
            // The byte that arrived in the meantime is counted, and is less than the minimum.
            clock.received(1, Instant::now());
            assert!(!waits(&mut clock, 59 * SECOND).await, "time anew");
            assert!(waits(&mut clock, 2 * SECOND).await, "once");
        };
        crate::suspension::with_pause_record(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_app_takes_nothing_is_not_the_clients() {
        let mut clock = BodyClock::new(60 * SECOND);
        for _ in 0..3 {
            assert!(!waits(&mut clock, 19 * SECOND).await);
            clock.received(1, Instant::now());
            sleep(600 * SECOND).await;
        }
        assert!(waits(&mut clock, 4 * SECOND).await, "a minute of waiting is over");
    }
}
