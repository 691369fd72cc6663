//! The bytes held because a peer does not take them: counted for the whole process, so that they can be bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::control::Control;

/// Bytes that are held for peers: of all sessions together, what a leg has not taken yet and parts of messages that may
/// be a heartbeat; of plain requests what the client has not taken yet, over HTTP/2 what the app has not taken as well.
///
/// It is touched when a session's share changes, that is where something is kept or let go, never on the way of a frame.
#[derive(Debug, Default)]
pub struct Memory {
    to_app: AtomicU64,
    to_client: AtomicU64,
}

impl Memory {
    /// Held on the way from clients to apps.
    pub fn to_app(&self) -> u64 {
        self.to_app.load(Ordering::Relaxed)
    }

    /// Held on the way from apps to clients.
    pub fn to_client(&self) -> u64 {
        self.to_client.load(Ordering::Relaxed)
    }

    /// Held in both directions.
    pub fn total(&self) -> u64 {
        self.to_app().saturating_add(self.to_client())
    }
}

/// Bytes that are held for a peer outside of a session, given back when dropped.
#[derive(Debug)]
pub struct Held {
    of: Arc<Memory>,
    to_app: usize,
    to_client: usize,
}

impl Held {
    /// Nothing so far.
    pub fn new(of: &Arc<Memory>) -> Self {
        Self { of: Arc::clone(of), to_app: 0, to_client: 0 }
    }

    /// This much is held now.
    #[inline]
    pub fn set(&mut self, to_app: usize, to_client: usize) {
        if to_app != self.to_app {
            replace(&self.of.to_app, std::mem::replace(&mut self.to_app, to_app), to_app);
        }
        if to_client != self.to_client {
            replace(&self.of.to_client, std::mem::replace(&mut self.to_client, to_client), to_client);
        }
    }

    /// Returns whether all together hold more than `limit`.
    pub fn exceeds(&self, limit: Option<u64>) -> bool {
        limit.is_some_and(|limit| self.of.total() > limit)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0, 0);
    }
}

/// One session's share, given back when dropped. How much it is stands among the figures of its control.
#[derive(Debug)]
pub(super) struct Share {
    of: Arc<Memory>,
    session: Arc<Control>,
}

impl Share {
    pub(super) fn new(of: Arc<Memory>, session: Arc<Control>) -> Self {
        Self { of, session }
    }

    /// The session holds this much now.
    #[inline]
    pub(super) fn set(&mut self, to_app: usize, to_client: usize) {
        if (to_app, to_client) != self.session.figures.held() {
            self.change(to_app, to_client);
        }
    }

    #[cold]
    fn change(&mut self, to_app: usize, to_client: usize) {
        let before = self.session.figures.hold(to_app, to_client);
        replace(&self.of.to_app, before.0, to_app);
        replace(&self.of.to_client, before.1, to_client);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0, 0);
    }
}

fn replace(total: &AtomicU64, share: usize, new: usize) {
    // New first: a reader in between may see a little too much, never less than nothing.
    total.fetch_add(new as u64, Ordering::Relaxed);
    total.fetch_sub(share as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_is_the_sum_of_the_shares() {
        let memory = Arc::new(Memory::default());
        let session = Arc::<Control>::default();
        let mut one = Share::new(Arc::clone(&memory), Arc::clone(&session));
        let mut other = Share::new(Arc::clone(&memory), Arc::default());
        one.set(100, 20);
        assert_eq!((session.live_stats().held_to_app, session.live_stats().held_to_client), (100, 20));
        other.set(0, 3);
        assert_eq!((memory.to_app(), memory.to_client(), memory.total()), (100, 23, 123));
        one.set(40, 20);
        assert_eq!(memory.total(), 63);
        let mut plain = Held::new(&memory);
        plain.set(7, 70);
        plain.set(7, 1000);
        assert_eq!((memory.to_app(), memory.to_client()), (47, 1023));
        assert!(plain.exceeds(Some(1069)) && !plain.exceeds(Some(1070)) && !plain.exceeds(None));
        drop((one, plain));
        assert_eq!((memory.to_app(), memory.to_client()), (0, 3), "a session that is gone holds nothing");
    }
}
