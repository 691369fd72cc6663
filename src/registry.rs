//! The sessions: the live ones in the order in which they opened, the last ones that closed, and the traffic of all.

mod closed;
mod events;
mod live;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use closed::{ClosedSession, DEFAULT_KEPT};
pub use events::{Event, EventCursor, EventRing, NextEvent, RING};
pub use live::{Live, SessionEntry};

use self::closed::{ClientKey, ClientKeys, Kept};
use crate::heartbeat::UpstreamLiveness;
use crate::relay::Control;
use crate::session::{ConnId, Ending, Traffic};

/// The time after the end of a session in which another one of its client is a reconnect.
const RECONNECT: Duration = Duration::from_secs(60);

/// All sessions of this process.
#[derive(Debug)]
pub struct Registry {
    next: AtomicU64,
    clients: ClientKeys,
    sessions: Mutex<Sessions>,
    events: EventRing,
}

/// The state that changes in one step when a session opens or ends, so that each is seen exactly once.
#[derive(Debug)]
struct Sessions {
    live: BTreeMap<ConnId, Arc<Live>>,
    closed: Kept,
    /// The traffic of the sessions that have ended, from clients and from apps.
    ended: (Traffic, Traffic),
}

/// A session, live or not.
#[derive(Clone, Debug)]
pub enum FoundSession {
    /// It is live.
    Live(Arc<Live>),
    /// It is among the last that closed.
    Closed(Arc<ClosedSession>),
}

impl Registry {
    /// Creates an empty registry; `seed` gives the upper half of every [`ConnId`].
    pub fn new(seed: u32) -> Self {
        let sessions = Sessions { live: BTreeMap::new(), closed: Kept::new(DEFAULT_KEPT), ended: Default::default() };
        Self {
            next: AtomicU64::new(u64::from(seed) << 32 | 1),
            clients: ClientKeys::default(),
            sessions: Mutex::new(sessions),
            events: EventRing::default(),
        }
    }

    /// Keeps this many closed sessions instead of [`DEFAULT_KEPT`].
    #[must_use]
    pub fn keeping(self, closed: usize) -> Self {
        self.lock().closed = Kept::new(closed);
        self
    }

    /// Returns the id of a session that is about to open.
    pub fn next_id(&self) -> ConnId {
        ConnId::new(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Enters a session, and publishes that; it leaves when the returned entry is closed or dropped.
    pub fn open(self: &Arc<Self>, opening: SessionEntry) -> RegistryEntry {
        let liveness = Arc::clone(&opening.liveness);
        let live = Arc::new(Live::new(opening));
        let client = self.clients.key_of(&live.facts);
        let mut sessions = self.lock();
        sessions.live.insert(live.id, Arc::clone(&live));
        let before = sessions.closed.last_of(client).cloned();
        drop(sessions);
        self.events.publish(Event::Opened(Arc::clone(&live)));
        let is_reconnect = before.is_some_and(|closed| closed.was_of(&live, RECONNECT));
        RegistryEntry { live, registry: Arc::clone(self), client, is_reconnect, _pulse: liveness }
    }

    /// Returns the number of live sessions.
    pub fn len(&self) -> usize {
        self.lock().live.len()
    }

    /// Returns whether no session is live.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns all live sessions, oldest first.
    pub fn sessions(&self) -> Vec<Arc<Live>> {
        self.lock().live.values().cloned().collect()
    }

    /// Returns the sessions that closed last, newest first.
    pub fn closed(&self) -> Vec<Arc<ClosedSession>> {
        self.lock().closed.newest_first().cloned().collect()
    }

    /// Returns the session with this `id`, if it is live or among the last that closed.
    pub fn find(&self, id: ConnId) -> Option<FoundSession> {
        let sessions = self.lock();
        let live = sessions.live.get(&id).cloned().map(FoundSession::Live);
        let closed =
            || sessions.closed.newest_first().find(|closed| closed.id == id).cloned().map(FoundSession::Closed);
        live.or_else(closed)
    }

    /// Returns the traffic of all sessions since the start, from clients and from apps. Neither ever decreases.
    pub fn traffic(&self) -> (Traffic, Traffic) {
        let sessions = self.lock();
        let (mut from_clients, mut from_apps) = sessions.ended;
        for live in sessions.live.values() {
            let (from_client, from_app) = live.control().traffic();
            from_clients += from_client;
            from_apps += from_app;
        }
        (from_clients, from_apps)
    }

    /// Returns the events of all sessions.
    pub fn events(&self) -> &EventRing {
        &self.events
    }

    /// Returns the handles of all live sessions, oldest first.
    pub fn all(&self) -> Vec<Arc<Control>> {
        self.lock().live.values().map(|live| Arc::clone(live.control())).collect()
    }

    /// Returns the same as [`Self::all`], of the sessions with the app whose liveness is `liveness`.
    pub fn of(&self, liveness: &UpstreamLiveness) -> Vec<Arc<Control>> {
        let sessions = self.lock();
        sessions.live.values().filter(|live| live.belongs_to(liveness)).map(|live| Arc::clone(live.control())).collect()
    }

    /// Returns, of the sessions through which the app with the liveness `liveness` can be read, the one that opened next after
    /// `id`, or the oldest one: repeated calls take all in turn.
    pub fn after(&self, id: Option<ConnId>, liveness: &UpstreamLiveness) -> Option<(ConnId, Arc<Control>)> {
        let sessions = self.lock();
        let from = id.map_or(Bound::Unbounded, Bound::Excluded);
        let mut in_turn = sessions.live.range((from, Bound::Unbounded)).chain(sessions.live.iter());
        let found = in_turn.find(|(_, live)| live.belongs_to(liveness) && live.control().reads_app());
        found.map(|(id, live)| (*id, Arc::clone(live.control())))
    }

    /// Returns whether the session with this `id` is live, and its app can be read through it.
    pub fn is_open(&self, id: ConnId) -> bool {
        self.lock().live.get(&id).is_some_and(|live| live.control().reads_app())
    }

    /// Removes a live session, whose traffic is `passed`. Returns whether it was live.
    fn leave(
        &self,
        id: ConnId,
        closed: Option<(ClientKey, &Arc<ClosedSession>)>,
        passed: impl FnOnce() -> (Traffic, Traffic),
    ) -> bool {
        let mut sessions = self.lock();
        let Some(left) = sessions.live.remove(&id) else { return false };
        let (from_client, from_app) = passed();
        sessions.ended.0 += from_client;
        sessions.ended.1 += from_app;
        let forgotten = closed.and_then(|(client, closed)| sessions.closed.push(client, Arc::clone(closed)));
        // Dropped outside the lock.
        drop(sessions);
        drop((left, forgotten));
        true
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entry of a session in the registry.
#[derive(Debug)]
pub struct RegistryEntry {
    live: Arc<Live>,
    registry: Arc<Registry>,
    client: ClientKey,
    is_reconnect: bool,
    /// Keeps the monitor of the app running while it has sessions.
    _pulse: Arc<UpstreamLiveness>,
}

impl RegistryEntry {
    /// Returns the session.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Returns whether its client had a session that closed in the last minute and is still kept. Clients with the same
    /// address and user agent count as one.
    pub fn is_reconnect(&self) -> bool {
        self.is_reconnect
    }

    /// Returns the registry in which it is entered.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Moves the session to the closed ones, and publishes that. Further calls change nothing.
    pub fn close(&self, ending: Ending) -> Arc<ClosedSession> {
        let passed = (ending.from_client, ending.from_upstream);
        let closed = Arc::new(ClosedSession::new(&self.live, ending));
        if self.registry.leave(self.live.id, Some((self.client, &closed)), || passed) {
            self.registry.events.publish(Event::Closed(Arc::clone(&closed)));
        }
        closed
    }
}

impl Drop for RegistryEntry {
    /// Removes a session that is dropped before its end; only its traffic is kept.
    fn drop(&mut self) {
        self.live.control().retire();
        self.registry.leave(self.live.id, None, || self.live.control().traffic());
    }
}

#[cfg(test)]
mod tests;
