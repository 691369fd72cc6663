//! Request bodies that trickle: how long the client may take.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// A body must bring this many bytes, or its end, in the time it is given. Any link does that; who does not holds a
/// connection to the app for no good.
const LEAST: usize = 1024;

/// Why a request's body came to no good end.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// It broke off, or was malformed.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// It brought less than 1 KiB in the time it was given.
    #[error("the client sent less than {LEAST} bytes of its body within {within:?}")]
    TooSlow {
        /// That time.
        within: Duration,
    },
}

/// A request body from the client, as long as it does not trickle.
#[derive(Debug)]
pub(super) struct Patient {
    incoming: Incoming,
    clock: Clock,
}

impl Patient {
    /// `incoming`, which must bring 1 KiB `within` this time, and again.
    pub(super) fn new(incoming: Incoming, within: Duration) -> Self {
        Self { incoming, clock: Clock::new(within) }
    }
}

impl Body for Patient {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Pending => {
                ready!(this.clock.poll_over(cx));
                Poll::Ready(Some(Err(UploadError::TooSlow { within: this.clock.within })))
            }
            Poll::Ready(Some(Ok(frame))) => {
                this.clock.came(frame.data_ref().map_or(0, Bytes::len), Instant::now());
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// The client's time. It runs only while the client is waited for: when the app takes nothing, nobody asks.
#[derive(Debug)]
struct Clock {
    within: Duration,
    /// What is left of it.
    left: Duration,
    /// What has come in it.
    bytes: usize,
    /// Since when the client is waited for.
    waiting: Option<Instant>,
    /// Armed lazily: it fires early rather than be set with each piece.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    fn new(within: Duration) -> Self {
        Self { within, left: within, bytes: 0, waiting: None, timer: None }
    }

    /// A piece has come.
    fn came(&mut self, bytes: usize, now: Instant) {
        if let Some(since) = self.waiting.take() {
            self.left = self.left.saturating_sub(now.saturating_duration_since(since));
        }
        self.bytes += bytes;
        if self.bytes >= LEAST {
            (self.bytes, self.left) = (0, self.within);
        }
    }

    /// Waits for the client; ready once its time is over.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = *self.waiting.get_or_insert_with(Instant::now) + self.left;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{sleep, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn over(clock: &mut Clock) {
        poll_fn(|cx| clock.poll_over(cx)).await;
    }

    /// Waits for the client for `time`, and says whether that was too long.
    async fn waits(clock: &mut Clock, time: Duration) -> bool {
        timeout(time, over(clock)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_nothing_has_its_time_and_no_more() {
        let (mut clock, begun) = (Clock::new(60 * SECOND), Instant::now());
        over(&mut clock).await;
        assert_eq!(begun.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_buys_no_time_and_a_kibibyte_does() {
        let mut clock = Clock::new(60 * SECOND);
        for _ in 0..5 {
            assert!(!waits(&mut clock, 10 * SECOND).await);
            clock.came(1, Instant::now());
        }
        assert!(waits(&mut clock, 11 * SECOND).await, "five bytes in a minute");

        let mut clock = Clock::new(60 * SECOND);
        for _ in 0..100 {
            assert!(!waits(&mut clock, 50 * SECOND).await, "twenty bytes a second for an hour");
            clock.came(LEAST, Instant::now());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_app_takes_nothing_is_not_the_clients() {
        let mut clock = Clock::new(60 * SECOND);
        for _ in 0..3 {
            assert!(!waits(&mut clock, 19 * SECOND).await);
            clock.came(1, Instant::now());
            sleep(600 * SECOND).await;
        }
        assert!(waits(&mut clock, 4 * SECOND).await, "a minute of waiting is over");
    }
}
