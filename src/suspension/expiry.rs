//! Futures that wait for a [`Deadline`].

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Deadline, is_watched};

/// The time for the runtime to read what has arrived, at a deadline. A timer for a future instant fires only after the
/// sockets were polled, and the tasks woken by them run first.
const READING: Duration = Duration::from_millis(2);

/// The error of an elapsed deadline.
#[derive(Debug, thiserror::Error)]
#[error("deadline has elapsed")]
pub struct Elapsed;

impl From<Elapsed> for io::Error {
    fn from(elapsed: Elapsed) -> Self {
        Self::new(io::ErrorKind::TimedOut, elapsed)
    }
}

/// A future that completes at a deadline, after what had arrived by then was read. A future to be completed by the
/// deadline must be polled before this one, each time.
#[derive(Debug)]
pub struct Expiry {
    deadline: Deadline,
    /// Created at the first poll, as most futures complete before the deadline.
    sleep: Option<Pin<Box<Sleep>>>,
    /// True while the sleep is the [`READING`] time.
    is_reading: bool,
}

impl Expiry {
    /// Creates a wait until `deadline`.
    pub fn new(deadline: Deadline) -> Self {
        Self { deadline, sleep: None, is_reading: false }
    }

    /// Creates a wait of `limit` from now.
    pub fn after(limit: Duration) -> Self {
        Self::new(Deadline::after(limit))
    }

    /// Replaces the deadline.
    pub fn reset(&mut self, deadline: Deadline) {
        self.deadline = deadline;
        self.is_reading = false;
        if let Some(sleep) = &mut self.sleep {
            sleep.as_mut().reset(deadline.at());
        }
    }

    /// Returns the deadline.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }
}

impl Future for Expiry {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let deadline = this.deadline;
        let sleep = this.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline.at())));
        loop {
            // Outside the task's cooperative budget: within it, a poll may return Pending without registering the
            // timer.
            ready!(pin!(unconstrained(poll_fn(|cx| sleep.as_mut().poll(cx)))).poll(cx));
            let at = deadline.at();
            let now = Instant::now();
            if at > now {
                this.is_reading = false;
                sleep.as_mut().reset(at);
            } else if !this.is_reading && is_watched() {
                this.is_reading = true;
                sleep.as_mut().reset(now + READING);
            } else {
                return Poll::Ready(());
            }
        }
    }
}

/// Waits for `future` until `deadline`. Pin the future first, so that it lies only in the caller's frame.
///
/// # Errors
///
/// [`Elapsed`] at the deadline.
pub async fn within<F: Future + Unpin>(deadline: Deadline, mut future: F) -> Result<F::Output, Elapsed> {
    let mut expiry = Expiry::new(deadline);
    poll_fn(|cx| match Pin::new(&mut future).poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => Pin::new(&mut expiry).poll(cx).map(|()| Err(Elapsed)),
    })
    .await
}

/// Waits for `future` for at most `limit` from now; see [`within`].
///
/// # Errors
///
/// [`Elapsed`] after `limit`.
pub async fn timeout<F: Future + Unpin>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    within(Deadline::after(limit), future).await
}
