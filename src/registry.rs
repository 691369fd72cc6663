//! The live sessions: who can be spoken to, in the order in which they opened.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::heartbeat::UpstreamPulse;
use crate::relay::Control;

/// Names one session: unique in this process, and unlikely to repeat in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// All sessions of this process.
#[derive(Debug)]
pub struct Registry {
    next: AtomicU64,
    live: Mutex<BTreeMap<ConnId, Live>>,
}

/// A live session.
#[derive(Debug)]
struct Live {
    control: Arc<Control>,
    /// That of its app, which stands for the app.
    pulse: Arc<UpstreamPulse>,
}

impl Live {
    fn belongs_to(&self, pulse: &UpstreamPulse) -> bool {
        std::ptr::eq(&raw const *self.pulse, pulse)
    }
}

impl Registry {
    /// An empty registry; `seed` gives the upper half of every [`ConnId`].
    pub fn new(seed: u32) -> Self {
        Self { next: AtomicU64::new(u64::from(seed) << 32 | 1), live: Mutex::default() }
    }

    /// A name for a session that is about to open.
    pub fn next_id(&self) -> ConnId {
        ConnId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Enters a session with the app that `pulse` is of; it leaves when the returned entry is dropped.
    pub fn enter(self: &Arc<Self>, id: ConnId, control: Arc<Control>, pulse: &Arc<UpstreamPulse>) -> Entry {
        self.live().insert(id, Live { control, pulse: Arc::clone(pulse) });
        Entry { id, registry: Arc::clone(self) }
    }

    /// How many sessions are live.
    pub fn len(&self) -> usize {
        self.live().len()
    }

    /// Whether no session is live.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The handles of all live sessions, oldest first.
    pub fn all(&self) -> Vec<Arc<Control>> {
        self.live().values().map(|live| Arc::clone(&live.control)).collect()
    }

    /// As [`Self::all`], of those with the app that `pulse` is of.
    pub fn of(&self, pulse: &UpstreamPulse) -> Vec<Arc<Control>> {
        let live = self.live();
        live.values().filter(|live| live.belongs_to(pulse)).map(|live| Arc::clone(&live.control)).collect()
    }

    /// Of the sessions with the app that `pulse` is of, the one that opened next after `id`, or the oldest one: walking
    /// with it takes all in turn.
    pub fn after(&self, id: Option<ConnId>, pulse: &UpstreamPulse) -> Option<(ConnId, Arc<Control>)> {
        let live = self.live();
        let from = id.map_or(Bound::Unbounded, Bound::Excluded);
        let mut in_turn = live.range((from, Bound::Unbounded)).chain(live.iter());
        let found = in_turn.find(|(_, live)| live.belongs_to(pulse));
        found.map(|(id, live)| (*id, Arc::clone(&live.control)))
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<ConnId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's place in the registry.
#[derive(Debug)]
pub struct Entry {
    id: ConnId,
    registry: Arc<Registry>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.live().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn walking_takes_every_session_in_turn_and_begins_again() {
        let registry = Arc::new(Registry::new(7));
        let [pulse, other] = [(); 2].map(|()| Arc::new(UpstreamPulse::new(Instant::now())));
        assert!(registry.after(None, &pulse).is_none(), "nobody to speak to yet");
        let ids: Vec<_> = (0..6).map(|_| registry.next_id()).collect();
        let app = |index| if index % 2 == 0 { &pulse } else { &other };
        let entries: Vec<_> =
            ids.iter().enumerate().map(|(n, id)| registry.enter(*id, Arc::default(), app(n))).collect();
        assert_eq!((registry.of(&pulse).len(), registry.all().len()), (3, 6));
        let mut at = None;
        let mut seen = Vec::new();
        for _ in 0..4 {
            at = registry.after(at, &pulse).map(|(id, _)| id);
            seen.extend(at);
        }
        assert_eq!(seen, [ids[0], ids[2], ids[4], ids[0]], "and none of another app");
        drop(entries);
        assert!(registry.is_empty());
    }
}
