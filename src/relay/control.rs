//! The handle by which the rest of the program speaks to a live session.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use futures_util::task::AtomicWaker;

/// What a live session may be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Send one ping of the proxy's own to the app.
    ProbeUpstream,
    /// End: the proxy shuts down; the client gets Close `code`, the app Close 1012.
    Drain {
        /// What the client is told (RFC 6455 §7.4).
        code: u16,
    },
    /// End: the app has been silent for too long; the client gets Close 1012.
    UpstreamUnresponsive,
}

/// Hands orders to one session and wakes it; shared between the session and whoever may speak to it.
#[derive(Debug, Default)]
pub struct Control {
    /// Whether `order` holds one, so that a session with none need not take the lock.
    waiting: AtomicBool,
    order: Mutex<Option<Order>>,
    waker: AtomicWaker,
}

impl Control {
    /// Leaves `order` for the session and wakes it. An order to end is never displaced by another.
    pub fn give(&self, order: Order) {
        {
            let mut slot = self.order();
            if matches!(*slot, None | Some(Order::ProbeUpstream)) {
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

    /// Makes `waker` the one that the next order wakes.
    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    fn order(&self) -> MutexGuard<'_, Option<Order>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
