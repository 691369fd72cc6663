//! The events of sessions: a ring that keeps the last ones, and cursors that follow it.
//!
//! A slow reader delays nothing: one that falls behind by more than the ring holds learns how many events it lost.
//!
//! The ring is bounded in events, and with that in bytes. An event holds its session by reference, so one that has
//! ended stays in memory for as long as the ring holds its events; that is its facts and figures, 2 KiB at most (text of
//! the client's is bounded), never its task, its buffers or its connections.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;

use super::closed::ClosedSession;
use super::live::Live;
use crate::session::ConnId;

/// The number of events that are kept.
pub const RING: usize = 4096;

/// An event of a session.
#[derive(Clone, Debug)]
pub enum Event {
    /// It opened.
    Opened(Arc<Live>),
    /// It closed.
    Closed(Arc<ClosedSession>),
    /// A window passed without a sign of life of its client.
    Missed {
        /// The session.
        id: ConnId,
        /// The number of windows in a row, this one included.
        misses: u32,
        /// The number that ends the session.
        max: u32,
        /// The time.
        at: SystemTime,
    },
}

/// The next item of a cursor.
#[derive(Clone, Debug)]
pub enum NextEvent {
    /// The next event with its id. Ids begin at 1 and grow by one.
    Event(u64, Event),
    /// The number of events that were overwritten before they were read.
    Lost(u64),
}

/// The last [`RING`] events.
#[derive(Clone, Debug, Default)]
pub struct EventRing(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    ring: Mutex<Ring>,
    cursors: AtomicUsize,
    news: Notify,
}

#[derive(Debug, Default)]
struct Ring {
    /// The number of events so far, which is the id of the last one.
    count: u64,
    /// The last of them.
    events: VecDeque<Event>,
}

impl EventRing {
    /// Adds an event, and wakes the cursors that wait.
    pub fn publish(&self, event: Event) {
        let forgotten = self.0.ring().push(event);
        // Perhaps the last reference to a session: dropped outside the lock.
        drop(forgotten);
        if self.0.cursors.load(Ordering::Acquire) > 0 {
            self.0.news.notify_waiters();
        }
    }

    /// Returns a cursor behind the event with the id `last`, or behind all events. An id that does not exist yet must be
    /// another process's: all events follow it.
    pub fn since(&self, last: Option<u64>) -> EventCursor {
        self.0.cursors.fetch_add(1, Ordering::AcqRel);
        let count = self.0.ring().count;
        let seen = last.map_or(count, |last| if last > count { 0 } else { last });
        EventCursor { of: Arc::clone(&self.0), seen }
    }

    /// Returns the id of the last event; 0 before the first one.
    pub fn newest(&self) -> u64 {
        self.0.ring().count
    }
}

/// A reader of the events, each once and in order.
#[derive(Debug)]
pub struct EventCursor {
    of: Arc<Shared>,
    /// The id of the last event that was read or lost.
    seen: u64,
}

impl EventCursor {
    /// Waits for the next item. Cancelling loses nothing.
    pub async fn next(&mut self) -> NextEvent {
        loop {
            let shared = Arc::clone(&self.of);
            let mut news = std::pin::pin!(shared.news.notified());
            // Registered before the ring is read, so that no event is missed in between.
            news.as_mut().enable();
            if let Some(told) = self.try_next() {
                return told;
            }
            news.await;
        }
    }

    /// Returns the next item, if there is one already.
    pub fn try_next(&mut self) -> Option<NextEvent> {
        let told = self.of.ring().after(self.seen)?;
        self.seen = match told {
            NextEvent::Event(id, _) => id,
            NextEvent::Lost(count) => self.seen + count,
        };
        Some(told)
    }
}

impl Drop for EventCursor {
    fn drop(&mut self) {
        self.of.cursors.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Shared {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn push(&mut self, event: Event) -> Option<Event> {
        let forgotten = if self.events.len() == RING { self.events.pop_front() } else { None };
        self.events.push_back(event);
        self.count += 1;
        forgotten
    }

    fn after(&self, seen: u64) -> Option<NextEvent> {
        let forgotten = self.count - self.events.len() as u64;
        if seen < forgotten {
            return Some(NextEvent::Lost(forgotten - seen));
        }
        let at = usize::try_from(seen - forgotten).ok()?;
        self.events.get(at).map(|event| NextEvent::Event(seen + 1, event.clone()))
    }
}

#[cfg(test)]
mod tests;
