//! What happens to sessions, as it happens: a ring that keeps the last of it, and cursors that follow it.
//!
//! Nobody waits for a slow listener: who falls behind by more than the ring holds is told how much was lost.
//!
//! The ring is bounded in events, and with that in bytes. An event holds its session by reference, so one that has
//! ended stays in memory for as long as the ring tells of it; that is its facts and figures, 2 KiB at the very most
//! (a client's own words in it are bounded), never its task, its buffers or its connections.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;

use super::closed::Closed;
use super::live::Live;
use crate::session::ConnId;

/// How many events are kept.
pub const RING: usize = 4096;

/// Something that happened to a session.
#[derive(Clone, Debug)]
pub enum Event {
    /// It opened.
    Opened(Arc<Live>),
    /// It closed.
    Closed(Arc<Closed>),
    /// A window passed without a sign of life of its client.
    Missed {
        /// Whose.
        id: ConnId,
        /// How many in a row this makes.
        misses: u32,
        /// How many end the session.
        max: u32,
        /// When.
        at: SystemTime,
    },
}

/// What a cursor tells.
#[derive(Clone, Debug)]
pub enum Told {
    /// What happened next. Ids begin at 1 and grow by one.
    Event(u64, Event),
    /// So many events are gone, because nobody asked for them in time.
    Lost(u64),
}

/// The last [`RING`] events.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    ring: Mutex<Ring>,
    cursors: AtomicUsize,
    news: Notify,
}

#[derive(Debug, Default)]
struct Ring {
    /// How many events there have been, which is the id of the last one.
    count: u64,
    /// The last of them.
    events: VecDeque<Event>,
}

impl Events {
    /// Something happened. Where nobody listens that wakes nobody.
    pub fn publish(&self, event: Event) {
        let forgotten = self.0.ring().push(event);
        // Perhaps the last of a session: let go behind the lock.
        drop(forgotten);
        if self.0.cursors.load(Ordering::Acquire) > 0 {
            self.0.news.notify_waiters();
        }
    }

    /// A cursor behind the event with the id `last`, or behind all there are. Behind one that is yet to come stands
    /// everything: it must be another process's.
    pub fn since(&self, last: Option<u64>) -> Cursor {
        self.0.cursors.fetch_add(1, Ordering::AcqRel);
        let count = self.0.ring().count;
        let seen = last.map_or(count, |last| if last > count { 0 } else { last });
        Cursor { of: Arc::clone(&self.0), seen }
    }

    /// The id of the last event; 0 before the first one.
    pub fn newest(&self) -> u64 {
        self.0.ring().count
    }
}

/// Follows the events, each once and in order.
#[derive(Debug)]
pub struct Cursor {
    of: Arc<Shared>,
    /// The id of the last event that was told or lost.
    seen: u64,
}

impl Cursor {
    /// What happened next; waits for it. Nothing is lost where this is dropped while it waits.
    pub async fn next(&mut self) -> Told {
        loop {
            let shared = Arc::clone(&self.of);
            let mut news = std::pin::pin!(shared.news.notified());
            // Asked for before the ring is looked at, so that nothing falls between.
            news.as_mut().enable();
            if let Some(told) = self.try_next() {
                return told;
            }
            news.await;
        }
    }

    /// What happened next, if it has happened already.
    pub fn try_next(&mut self) -> Option<Told> {
        let told = self.of.ring().after(self.seen)?;
        self.seen = match told {
            Told::Event(id, _) => id,
            Told::Lost(count) => self.seen + count,
        };
        Some(told)
    }
}

impl Drop for Cursor {
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

    fn after(&self, seen: u64) -> Option<Told> {
        let forgotten = self.count - self.events.len() as u64;
        if seen < forgotten {
            return Some(Told::Lost(forgotten - seen));
        }
        let at = usize::try_from(seen - forgotten).ok()?;
        self.events.get(at).map(|event| Told::Event(seen + 1, event.clone()))
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
