//! The handle by which the rest of the program speaks to a live session, and sees how it is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use futures_util::task::AtomicWaker;

use super::timer::now;
use crate::session::{Abort, LiveCounters, LiveStats, Traffic};

/// What a live session may be asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Send one ping of the proxy's own to the app.
    ProbeUpstream,
    /// From now on nothing of the client is read, as if it had vanished: the heartbeat will find it dead.
    PlayDead,
    /// End: the proxy shuts down; the client gets Close `code`, the app Close 1012.
    Drain {
        /// What the client is told (RFC 6455 §7.4).
        code: u16,
    },
    /// End: the app has been silent for too long; the client gets Close 1012.
    UpstreamUnresponsive,
    /// End: an operator wants it to; both legs get this Close. One that is closing already goes on with that.
    Close {
        /// A code that may stand on a wire ([`may_be_sent`](crate::ws::may_be_sent)).
        code: u16,
        /// At most 123 bytes of it are sent.
        reason: Box<str>,
    },
    /// End at once: both legs are reset, and nothing more is delivered.
    Abort(Abort),
}

impl Order {
    /// Which of two orders that wait at the same time is obeyed. An order to end is displaced by an abort only.
    fn weight(&self) -> u8 {
        match self {
            Self::ProbeUpstream => 0,
            Self::PlayDead => 1,
            Self::Drain { .. } | Self::UpstreamUnresponsive | Self::Close { .. } => 2,
            Self::Abort(_) => 3,
        }
    }
}

/// Hands orders to one session and wakes it; shared between the session and whoever may speak to it.
#[derive(Debug)]
pub struct Control {
    /// Whether `order` holds one, so that a session with none need not take the lock.
    waiting: AtomicBool,
    order: Mutex<Option<Order>>,
    waker: AtomicWaker,
    pub(super) figures: LiveCounters,
}

impl Default for Control {
    /// Of a session that opens now.
    fn default() -> Self {
        Self::new(now())
    }
}

impl Control {
    /// Of a session that opens at `opened`, on the runtime's clock.
    pub fn new(opened: Instant) -> Self {
        Self {
            waiting: AtomicBool::default(),
            order: Mutex::default(),
            waker: AtomicWaker::new(),
            figures: LiveCounters::new(opened),
        }
    }

    /// Leaves `order` for the session and wakes it. An order to end is displaced by an abort only.
    pub fn give(&self, order: Order) {
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
    pub fn take(&self) -> Option<Order> {
        if !self.waiting.load(Ordering::Relaxed) {
            return None;
        }
        self.waiting.store(false, Ordering::Relaxed);
        self.order().take()
    }

    /// Whether the session has begun to end.
    pub fn is_closing(&self) -> bool {
        self.figures.is_closing()
    }

    /// Whether a ping to the app may have a pong through it: a session that holds bytes for a slow client reads nothing of
    /// the app, and one that has begun to end sends no ping.
    pub fn reads_app(&self) -> bool {
        !self.is_closing() && self.figures.held().1 == 0
    }

    /// Returns the session's figures.
    pub fn live_stats(&self) -> LiveStats {
        self.figures.live_stats()
    }

    /// What has passed in it, from the client and from the app.
    pub fn traffic(&self) -> (Traffic, Traffic) {
        self.figures.traffic()
    }

    /// When the session opened, on the runtime's clock.
    pub fn opened(&self) -> Instant {
        self.figures.opened()
    }

    /// The session is gone: its task, which a waker keeps in memory, is let go.
    pub fn retire(&self) {
        drop(self.waker.take());
    }

    /// Makes `waker` the one that the next order wakes.
    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// As a session leaves what has passed in it.
    #[cfg(test)]
    pub(crate) fn passed(&self, from_client: Traffic, from_upstream: Traffic) {
        self.figures.passed(from_client, from_upstream);
    }

    /// As a session begins to end.
    #[cfg(test)]
    pub(crate) fn close_for_test(&self) {
        self.figures.closing();
    }

    /// As a session's task registers itself.
    #[cfg(test)]
    pub(crate) fn register_for_test(&self, waker: &Waker) {
        self.register(waker);
    }

    fn order(&self) -> MutexGuard<'_, Option<Order>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
