//! A client that reads a response: what is held for it, and how fast it takes that.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::Instant;

use crate::http::pace::{STRICT, is_enough};
use crate::relay::{Held, Leg};
use crate::suspension::{Deadline, Expiry, paused_since};

/// The reader of the responses on one connection.
///
/// Its rate counts while bytes wait that its socket does not take. How far it has come is what its kernel has
/// acknowledged: a socket of some megabytes takes nothing for a long time although its reader moves.
///
/// The kernel's own time (`TCP_USER_TIMEOUT`), which finds a client that is gone while nothing waits here, runs on for a
/// slow one whose window opens by less than the segment that stands first. So it ends where this rate is first looked at.
#[derive(Debug)]
pub(super) struct ResponseRate {
    /// The time over which the rate is measured.
    stall: Duration,
    /// The value of `limits.memory`, in bytes.
    limit: Option<u64>,
    held: Held,
    /// Bytes that the socket has taken.
    taken: u64,
    /// Since when it takes none, and for how long it took none before, since the measure began.
    blocked: Option<Instant>,
    waited: Duration,
    /// The client's position then.
    from: Option<Progress>,
    /// Set lazily: it fires early rather than be set whenever the socket takes something.
    expiry: Option<Box<Expiry>>,
    /// Set once the rate has been looked at.
    is_judged: bool,
}

/// The position of a client in its responses.
#[derive(Clone, Copy, Debug)]
struct Progress {
    taken: u64,
    acked: Option<u64>,
}

impl ResponseRate {
    /// A client that must take its responses at the least rate, measured over `stall`. `held` counts what is held for it,
    /// together with everything else for which there is `limit`.
    pub(super) fn new(stall: Duration, held: Held, limit: Option<u64>) -> Self {
        Self {
            stall,
            limit,
            held,
            taken: 0,
            blocked: None,
            waited: Duration::ZERO,
            from: None,
            expiry: None,
            is_judged: false,
        }
    }

    /// The socket has taken `bytes` of those that wait, perhaps all.
    pub(super) fn took(&mut self, bytes: usize) {
        self.taken += bytes as u64;
        if let Some(since) = self.blocked.take() {
            self.waited += since.elapsed().saturating_sub(paused_since(since));
            self.held.set(0, 0);
        }
    }

    /// The socket of `stream` takes nothing for now, and `waiting` bytes wait for it. Fails if the client is too slow.
    pub(super) fn check<C: Leg>(&mut self, cx: &mut Context<'_>, stream: &mut C, waiting: usize) -> io::Result<()> {
        self.held.set(0, waiting + stream.unsent());
        if self.stall.is_zero() {
            return Ok(());
        }
        self.blocked.get_or_insert_with(Instant::now);
        let progress = |taken, stream: &C| Progress { taken, acked: stream.delivery().map(|delivery| delivery.acked) };
        self.from.get_or_insert_with(|| progress(self.taken, stream));
        loop {
            let window = self.window();
            let look = window.saturating_sub(self.waited).min(STRICT).min(window / 2);
            let expiry = self.expiry.get_or_insert_with(|| Box::new(Expiry::after(look)));
            if Pin::new(&mut **expiry).poll(cx).is_pending() {
                return Ok(());
            }
            if !std::mem::replace(&mut self.is_judged, true) {
                stream.set_user_timeout(Duration::ZERO);
            }
            let now = Instant::now();
            if let Some(since) = self.blocked.replace(now) {
                self.waited += now.saturating_duration_since(since).saturating_sub(paused_since(since));
            }
            if self.waited >= window && !self.begin_anew(progress(self.taken, stream), window) {
                // The client takes no more of what the kernel holds either.
                stream.abort_on_drop();
                return Err(io::Error::new(ErrorKind::TimedOut, "the client takes too little of a response"));
            }
            let left = self.window().saturating_sub(self.waited).min(STRICT).min(window / 2);
            if let Some(expiry) = &mut self.expiry {
                expiry.reset(Deadline::after(left));
            }
        }
    }

    fn window(&self) -> Duration {
        if self.held.exceeds(self.limit) { self.stall.min(STRICT) } else { self.stall }
    }

    /// Begins the next measure. Returns whether the client, which has come as far as `now`, took enough in `window`.
    fn begin_anew(&mut self, now: Progress, window: Duration) -> bool {
        let taken = self.from.map_or(0, |from| {
            let acked = now.acked.zip(from.acked).map_or(0, |(now, from)| now.saturating_sub(from));
            acked.max(now.taken - from.taken)
        });
        (self.from, self.waited) = (Some(now), Duration::ZERO);
        is_enough(taken, window)
    }
}

#[cfg(test)]
mod tests;
