//! The sessions that closed last.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{ConnId, Live};
use crate::relay::Ending;
use crate::telemetry::lines;

/// How many closed sessions are kept unless it is said otherwise.
pub const DEFAULT_KEPT: usize = 1000;

/// A session that has closed.
#[derive(Debug)]
pub struct Closed {
    /// Its name.
    pub id: ConnId,
    /// Who it was with, and on which terms.
    pub facts: Arc<lines::Session>,
    /// When it opened.
    pub opened_at: SystemTime,
    /// When both its legs had closed.
    pub closed_at: SystemTime,
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
            last_pong_ago: ending.last_pong_ago,
            ending,
        }
    }
}

/// The last few of them.
#[derive(Debug)]
pub(super) struct Kept {
    most: usize,
    /// Oldest first.
    closed: VecDeque<Arc<Closed>>,
}

impl Kept {
    pub(super) fn new(most: usize) -> Self {
        Self { most, closed: VecDeque::new() }
    }

    /// Keeps `closed`; returns the one that is forgotten for it.
    pub(super) fn push(&mut self, closed: Arc<Closed>) -> Option<Arc<Closed>> {
        if self.most == 0 {
            return Some(closed);
        }
        let forgotten = if self.closed.len() == self.most { self.closed.pop_front() } else { None };
        self.closed.push_back(closed);
        forgotten
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Arc<Closed>> {
        self.closed.iter().rev()
    }
}
