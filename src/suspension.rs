//! Pauses in which a worker did not run, and deadlines that allow for them.
//!
//! A process that is stopped (SIGSTOP, a frozen container, a paused virtual machine) or starved of CPU time finds its
//! timers expired when it resumes, before it has read a byte of what its peers sent meanwhile: an interrupted
//! `epoll_wait` returns no events, and the runtime fires its timers next. Every deadline of a peer is therefore a
//! [`Deadline`], and every wait for one an [`Expiry`] or a [`timeout`]:
//!
//! - At the deadline the runtime first reads what has arrived.
//! - The first pause within the span of a deadline restarts the span after the pause; each later pause is added to it.
//!
//! The lateness of a timer does not reveal a pause that ends just before the timer's instant. Each worker therefore
//! records its pauses by a coarse tick ([`with_pause_record`]). A thread without a record has no pauses: under tokio's paused
//! clock, as in simulations, all of this behaves like tokio's own timers.

mod expiry;
mod record;

use std::cell::RefCell;
use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, sleep};

pub use expiry::{Elapsed, Expiry, timeout, within};
use record::Record;

/// The interval of the tick; the record costs two wake-ups a second.
const PERIOD: Duration = Duration::from_millis(500);

thread_local! {
    /// The pause record of the worker on this thread.
    static RECORD: RefCell<Option<Record>> = const { RefCell::new(None) };
}

/// The end of a span of time granted to a peer, which moves with the pauses of this thread's worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    since: Instant,
    limit: Duration,
    /// The minimum time left after the first pause.
    minimum: Duration,
}

impl Deadline {
    /// Returns the end of a span of `limit` that begins now.
    pub fn after(limit: Duration) -> Self {
        Self::since(Instant::now(), limit)
    }

    /// Returns the end of a span of `limit` that began at `since`.
    pub fn since(since: Instant, limit: Duration) -> Self {
        Self { since, limit, minimum: limit }
    }

    /// Returns the fixed instant `at`, which no pause moves: for timers that compute their deadlines when they fire.
    pub fn fixed(at: Instant) -> Self {
        Self::since(at, Duration::ZERO)
    }

    /// Sets the minimum time left after the first pause, in place of the whole span.
    #[must_use]
    pub fn with_min_after_pause(self, minimum: Duration) -> Self {
        Self { minimum, ..self }
    }

    /// Returns the instant of the deadline, with all pauses known by now.
    pub fn at(&self) -> Instant {
        RECORD.with_borrow(|record| match record {
            Some(record) => record.deadline(self.since, self.limit, self.minimum, Instant::now()),
            None => self.since + self.limit,
        })
    }
}

/// Returns the total time for which this thread's worker was paused between `since` and now.
pub fn paused_since(since: Instant) -> Duration {
    paused_between(since, Instant::now())
}

fn paused_between(since: Instant, now: Instant) -> Duration {
    RECORD.with_borrow(|record| record.as_ref().map_or(Duration::ZERO, |record| record.paused(since, now)))
}

/// Runs `work`, the whole of a thread's work, with a record of its pauses.
pub async fn with_pause_record<T>(work: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        never = tick() => match never {},
        result = work => result,
    }
}

/// Maintains the pause record of this thread until the future is dropped.
async fn tick() -> Infallible {
    let _installed = Installed::new();
    loop {
        sleep(PERIOD).await;
        RECORD.with_borrow_mut(|record| {
            if let Some(record) = record {
                record.tick(Instant::now());
            }
        });
    }
}

/// Returns whether this thread's worker has a pause record.
fn is_watched() -> bool {
    RECORD.with_borrow(Option::is_some)
}

/// The pause record of this thread, removed on drop.
struct Installed;

impl Installed {
    fn new() -> Self {
        RECORD.set(Some(Record::new(Instant::now())));
        Self
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        RECORD.set(None);
    }
}

/// A meter of the pauses of this thread's worker, which shows each pause once.
///
/// It takes the time itself: the instant that holds for the whole of a poll may lie before a pause in the midst of it, and
/// such a pause would be new again at every reading.
#[derive(Debug)]
pub struct PauseMeter {
    /// The instant up to which pauses have been shown.
    read: Instant,
}

impl PauseMeter {
    /// Creates a meter of the pauses after `since`.
    pub fn since(since: Instant) -> Self {
        Self { read: since }
    }

    /// Returns the total time of the pauses since the last reading.
    pub fn read(&mut self) -> Duration {
        let now = Instant::now();
        let paused = paused_between(self.read, now);
        self.read = self.read.max(now);
        paused
    }
}

/// The pauses that a rate limit has not allowed for yet: everything a peer sent in a pause is read at once after it.
/// Each pause is credited once.
#[derive(Debug)]
pub struct Credit {
    left: Duration,
    pauses: PauseMeter,
}

impl Credit {
    /// Creates a credit for the pauses after `since`.
    pub fn since(since: Instant) -> Self {
        Self { left: Duration::ZERO, pauses: PauseMeter::since(since) }
    }

    /// Takes `amount` from the credit; returns whether the credit covered it.
    pub fn take(&mut self, amount: Duration) -> bool {
        self.left += self.pauses.read();
        let covered = self.left >= amount;
        if covered {
            self.left -= amount;
        }
        covered
    }
}

#[cfg(test)]
mod tests;
