//! The handle of a live session: orders to it, and its live stats.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use futures_util::task::AtomicWaker;

use super::timer::now;
use crate::session::{Abort, LiveCounters, LiveStats, Traffic};

/// An order to a live session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionOrder {
    /// Send one ping of the proxy's own to the app.
    ProbeUpstream,
    /// Read nothing more of the client, as if it had vanished, so that it misses its heartbeat.
    PlayDead,
    /// End: the proxy shuts down; the client gets Close `code`, the app Close 1012.
    Drain {
        /// The code of the client's Close (RFC 6455 §7.4).
        code: u16,
    },
    /// End: the app has been silent for too long; the client gets Close 1012.
    UpstreamUnresponsive,
    /// End: an operator closes it; both legs get this Close. A session that is closing already continues with that.
    Close {
        /// A code that may stand on a wire ([`may_be_sent`](crate::ws::may_be_sent)).
        code: u16,
        /// At most 123 bytes of it are sent.
        reason: Box<str>,
    },
    /// End at once: both legs are reset, and nothing more is delivered.
    Abort(Abort),
}

impl SessionOrder {
    /// Returns the precedence among orders that wait at the same time. An order to end is replaced by an abort only.
    fn weight(&self) -> u8 {
        match self {
            Self::ProbeUpstream => 0,
            Self::PlayDead => 1,
            Self::Drain { .. } | Self::UpstreamUnresponsive | Self::Close { .. } => 2,
            Self::Abort(_) => 3,
        }
    }
}

/// The handle of one session, shared between its task and the senders of orders.
#[derive(Debug)]
pub struct Control {
    /// True if `order` holds one; without one the session takes no lock.
    waiting: AtomicBool,
    order: Mutex<Option<SessionOrder>>,
    waker: AtomicWaker,
    pub(super) figures: LiveCounters,
}

impl Default for Control {
    /// Creates the handle of a session that opens now.
    fn default() -> Self {
        Self::new(now())
    }
}

impl Control {
    /// Creates the handle of a session that opens at `opened`, on the runtime's clock.
    pub fn new(opened: Instant) -> Self {
        Self {
            waiting: AtomicBool::default(),
            order: Mutex::default(),
            waker: AtomicWaker::new(),
            figures: LiveCounters::new(opened),
        }
    }

    /// Stores `order` for the session and wakes it. An order to end is replaced by an abort only.
    pub fn give(&self, order: SessionOrder) {
        {
            let mut slot = self.order();
            if slot.as_ref().is_none_or(|waiting| waiting.weight() < order.weight()) {
                *slot = Some(order);
            }
        }
        self.waiting.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Takes the waiting order, if there is one.
    #[inline]
    pub fn take(&self) -> Option<SessionOrder> {
        if !self.waiting.load(Ordering::Relaxed) {
            return None;
        }
        self.waiting.store(false, Ordering::Relaxed);
        self.order().take()
    }

    /// Returns whether the session is closing.
    pub fn is_closing(&self) -> bool {
        self.figures.is_closing()
    }

    /// Returns whether a pong of the app can be read through it: a session that holds bytes for a slow client reads nothing
    /// from the app, and one that is closing sends no ping.
    pub fn reads_app(&self) -> bool {
        !self.is_closing() && self.figures.held().1 == 0
    }

    /// Returns the session's live stats.
    pub fn live_stats(&self) -> LiveStats {
        self.figures.live_stats()
    }

    /// Returns its traffic, from the client and from the app.
    pub fn traffic(&self) -> (Traffic, Traffic) {
        self.figures.traffic()
    }

    /// Returns when the session opened, on the runtime's clock.
    pub fn opened(&self) -> Instant {
        self.figures.opened()
    }

    /// Releases the session's task, which a waker keeps in memory, once the session is gone.
    pub fn retire(&self) {
        drop(self.waker.take());
    }

    /// Makes `waker` the one that the next order wakes.
    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Stores traffic as a session does.
    #[cfg(test)]
    pub(crate) fn passed(&self, from_client: Traffic, from_upstream: Traffic) {
        self.figures.passed(from_client, from_upstream);
    }

    /// Marks the session as closing.
    #[cfg(test)]
    pub(crate) fn close_for_test(&self) {
        self.figures.closing();
    }

    /// Registers a waker as a session's task does.
    #[cfg(test)]
    pub(crate) fn register_for_test(&self, waker: &Waker) {
        self.register(waker);
    }

    fn order(&self) -> MutexGuard<'_, Option<SessionOrder>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
