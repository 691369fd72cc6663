//! The sessions that closed last.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::live::Live;
use crate::session::{ConnId, Ending, SessionFacts};

/// The default number of closed sessions that are kept.
pub const DEFAULT_KEPT: usize = 1000;

/// A session that has closed.
#[derive(Debug)]
pub struct ClosedSession {
    /// Its id.
    pub id: ConnId,
    /// Its facts.
    pub facts: Arc<SessionFacts>,
    /// The time at which it opened.
    pub opened_at: SystemTime,
    /// The time at which both its legs had closed.
    pub closed_at: SystemTime,
    /// The same, on a clock that is never set.
    since: Instant,
    /// Its end.
    pub ending: Ending,
    /// The time since its client's last answer to a probe when the end was decided; `None` without any.
    pub last_pong_ago: Option<Duration>,
}

impl ClosedSession {
    pub(super) fn new(live: &Live, ending: Ending) -> Self {
        Self {
            id: live.id,
            facts: Arc::clone(&live.facts),
            opened_at: live.opened_at,
            closed_at: SystemTime::now(),
            since: Instant::now(),
            last_pong_ago: ending.last_pong_ago,
            ending,
        }
    }

    /// Creates a session that opened and closed at these times.
    #[cfg(test)]
    pub(crate) fn of_times(live: &Live, ending: Ending, opened_at: SystemTime, closed_at: SystemTime) -> Self {
        Self { opened_at, closed_at, ..Self::new(live, ending) }
    }

    /// Returns whether this session ended at most `time` ago, and `live` has the same client.
    pub(super) fn was_of(&self, live: &Live, time: Duration) -> bool {
        self.since.elapsed() <= time && client(&self.facts) == client(&live.facts)
    }
}

/// Returns the address and the user agent, by which a client is known from one session to the next.
fn client(facts: &SessionFacts) -> (IpAddr, Option<&str>) {
    (facts.request.client.address(), facts.request.user_agent.as_deref())
}

/// The keys of clients.
#[derive(Debug, Default)]
pub(super) struct ClientKeys(RandomState);

/// A hash of a client's address and user agent, for comparisons of many; two clients may share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientKey(u64);

impl ClientKeys {
    pub(super) fn key_of(&self, facts: &SessionFacts) -> ClientKey {
        ClientKey(self.0.hash_one(client(facts)))
    }
}

/// The sessions that closed last.
#[derive(Debug)]
pub(super) struct Kept {
    most: usize,
    /// Oldest first. A search by key follows no pointer.
    closed: VecDeque<(ClientKey, Arc<ClosedSession>)>,
}

impl Kept {
    pub(super) fn new(most: usize) -> Self {
        Self { most, closed: VecDeque::new() }
    }

    /// Keeps `closed`, whose client has this key; returns the one that is dropped for it.
    pub(super) fn push(&mut self, client: ClientKey, closed: Arc<ClosedSession>) -> Option<Arc<ClosedSession>> {
        if self.most == 0 {
            return Some(closed);
        }
        let forgotten = if self.closed.len() == self.most { self.closed.pop_front() } else { None };
        self.closed.push_back((client, closed));
        forgotten.map(|(_, closed)| closed)
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Arc<ClosedSession>> {
        self.closed.iter().rev().map(|(_, closed)| closed)
    }

    /// Returns the session of a client with this key that closed last.
    pub(super) fn last_of(&self, client: ClientKey) -> Option<&Arc<ClosedSession>> {
        self.closed.iter().rev().find(|(key, _)| *key == client).map(|(_, closed)| closed)
    }
}
