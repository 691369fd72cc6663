//! The sessions that closed last.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::live::Live;
use crate::session::{ConnId, Ending, SessionFacts};

/// How many closed sessions are kept unless it is said otherwise.
pub const DEFAULT_KEPT: usize = 1000;

/// A session that has closed.
#[derive(Debug)]
pub struct Closed {
    /// Its name.
    pub id: ConnId,
    /// Who it was with, and on which terms.
    pub facts: Arc<SessionFacts>,
    /// When it opened.
    pub opened_at: SystemTime,
    /// When both its legs had closed.
    pub closed_at: SystemTime,
    /// The same, on a clock that is never set.
    since: Instant,
    /// How it ended.
    pub ending: Ending,
    /// How long its client had answered nobody's probe when the end was decided; `None`: it never has.
    pub last_pong_ago: Option<Duration>,
}

impl Closed {
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

    /// A session that opened and closed at these times.
    #[cfg(test)]
    pub(crate) fn of_times(live: &Live, ending: Ending, opened_at: SystemTime, closed_at: SystemTime) -> Self {
        Self { opened_at, closed_at, ..Self::new(live, ending) }
    }

    /// Whether this session ended `time` ago at most, and `live` has the same client.
    pub(super) fn was_of(&self, live: &Live, time: Duration) -> bool {
        self.since.elapsed() <= time && client(&self.facts) == client(&live.facts)
    }
}

/// What is known of a client from one session to the next.
fn client(facts: &SessionFacts) -> (IpAddr, Option<&str>) {
    (facts.request.client.address(), facts.request.user_agent.as_deref())
}

/// Gives clients their keys.
#[derive(Debug, Default)]
pub(super) struct Clients(RandomState);

/// Stands for a client's address and user agent where many are compared; two clients may share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientKey(u64);

impl Clients {
    pub(super) fn key_of(&self, facts: &SessionFacts) -> ClientKey {
        ClientKey(self.0.hash_one(client(facts)))
    }
}

/// The last few of them.
#[derive(Debug)]
pub(super) struct Kept {
    most: usize,
    /// Oldest first. The keys stand beside the sessions: a search for one follows no pointer.
    closed: VecDeque<(ClientKey, Arc<Closed>)>,
}

impl Kept {
    pub(super) fn new(most: usize) -> Self {
        Self { most, closed: VecDeque::new() }
    }

    /// Keeps `closed`, whose client has this key; returns the one that is forgotten for it.
    pub(super) fn push(&mut self, client: ClientKey, closed: Arc<Closed>) -> Option<Arc<Closed>> {
        if self.most == 0 {
            return Some(closed);
        }
        let forgotten = if self.closed.len() == self.most { self.closed.pop_front() } else { None };
        self.closed.push_back((client, closed));
        forgotten.map(|(_, closed)| closed)
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Arc<Closed>> {
        self.closed.iter().rev().map(|(_, closed)| closed)
    }

    /// The session of a client with this key that closed last.
    pub(super) fn last_of(&self, client: ClientKey) -> Option<&Arc<Closed>> {
        self.closed.iter().rev().find(|(key, _)| *key == client).map(|(_, closed)| closed)
    }
}
