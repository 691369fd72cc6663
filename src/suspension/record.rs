//! The pause record of one worker, kept by a periodic tick: a late tick is a pause.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The longest interval between two ticks that is not a pause: one and a half periods. A longer stop is always
/// detected.
const NO_PAUSE: Duration = Duration::from_millis(750);

/// The maximum number of recorded pauses. An older one has been allowed for already, except by a very long deadline.
const REMEMBERED: usize = 32;

/// The pauses of one worker.
#[derive(Debug)]
pub(super) struct Record {
    last_tick: Instant,
    /// Recorded pauses, oldest first.
    pauses: VecDeque<Pause>,
}

/// An interval in which the worker did not run; its beginning is that of the last tick, up to one period early.
#[derive(Clone, Copy, Debug)]
struct Pause {
    from: Instant,
    to: Instant,
}

impl Pause {
    /// Returns the part of the pause after `since`.
    fn after(self, since: Instant) -> Duration {
        self.to.saturating_duration_since(self.from.max(since))
    }
}

impl Record {
    pub(super) fn new(now: Instant) -> Self {
        Self { last_tick: now, pauses: VecDeque::new() }
    }

    /// Records a tick of the running worker.
    pub(super) fn tick(&mut self, now: Instant) {
        if let Some(pause) = self.current(now) {
            if self.pauses.len() == REMEMBERED {
                self.pauses.pop_front();
            }
            self.pauses.push_back(pause);
        }
        self.last_tick = now;
    }

    /// Returns the total paused time between `since` and `now`.
    pub(super) fn paused(&self, since: Instant, now: Instant) -> Duration {
        self.pauses(now).map(|pause| pause.after(since)).sum()
    }

    /// Returns the deadline of a span of `limit` from `since` on, of which at least `minimum` is left after the first
    /// pause. Only pauses that began before it move it, so it is never later than the span, the minimum, and the pauses
    /// together.
    pub(super) fn deadline(&self, since: Instant, limit: Duration, minimum: Duration, now: Instant) -> Instant {
        let mut at = since + limit;
        if limit.is_zero() {
            return at;
        }
        let mut is_first = true;
        for pause in self.pauses(now).filter(|pause| pause.to > since) {
            if pause.from >= at {
                break;
            }
            at += pause.after(since);
            if is_first {
                at = at.max(pause.to + minimum);
                is_first = false;
            }
        }
        at
    }

    /// Returns all pauses, including one that has just ended and that no tick has recorded yet.
    fn pauses(&self, now: Instant) -> impl Iterator<Item = Pause> {
        self.pauses.iter().copied().chain(self.current(now))
    }

    fn current(&self, now: Instant) -> Option<Pause> {
        let is_pause = now.saturating_duration_since(self.last_tick) > NO_PAUSE;
        is_pause.then_some(Pause { from: self.last_tick, to: now })
    }
}
