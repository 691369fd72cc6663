//! The live sessions: who can be spoken to, in the order in which they opened.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    live: Mutex<BTreeMap<ConnId, Arc<Control>>>,
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

    /// Enters a session; it leaves when the returned entry is dropped.
    pub fn enter(self: &Arc<Self>, id: ConnId, control: Arc<Control>) -> Entry {
        self.live().insert(id, control);
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
        self.live().values().cloned().collect()
    }

    /// The session that opened next after `id`, or the oldest one: walking with it takes all in turn.
    pub fn after(&self, id: Option<ConnId>) -> Option<(ConnId, Arc<Control>)> {
        let live = self.live();
        let from = id.map_or(Bound::Unbounded, Bound::Excluded);
        let found = live.range((from, Bound::Unbounded)).next().or_else(|| live.iter().next());
        found.map(|(id, control)| (*id, Arc::clone(control)))
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<ConnId, Arc<Control>>> {
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
    use super::*;

    #[test]
    fn walking_takes_every_session_in_turn_and_begins_again() {
        let registry = Arc::new(Registry::new(7));
        assert!(registry.after(None).is_none(), "nobody to speak to yet");
        let ids: Vec<_> = (0..3).map(|_| registry.next_id()).collect();
        let entries: Vec<_> = ids.iter().map(|id| registry.enter(*id, Arc::default())).collect();
        let mut at = None;
        let mut seen = Vec::new();
        for _ in 0..4 {
            at = registry.after(at).map(|(id, _)| id);
            seen.extend(at);
        }
        assert_eq!(seen, [ids[0], ids[1], ids[2], ids[0]]);
        drop(entries);
        assert!(registry.is_empty());
    }
}
