//! A live session for the rest of the program.

use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use crate::heartbeat::UpstreamLiveness;
use crate::relay::{Control, SessionOrder};
use crate::session::{Abort, ConnId, LiveStats, SessionFacts};

/// The parts with which a session is entered.
#[derive(Debug)]
pub struct SessionEntry {
    /// The facts for its log lines.
    pub facts: Arc<SessionFacts>,
    /// The handle of its task.
    pub control: Arc<Control>,
    /// The liveness of its app, which identifies the app.
    pub liveness: Arc<UpstreamLiveness>,
}

/// A live session.
#[derive(Debug)]
pub struct Live {
    /// Its id.
    pub id: ConnId,
    /// Its facts.
    pub facts: Arc<SessionFacts>,
    /// The time at which it opened.
    pub opened_at: SystemTime,
    /// The same, on the clock of its [`LiveStats`].
    pub opened: Instant,
    control: Arc<Control>,
    /// Kept alive by the session's [`RegistryEntry`](super::RegistryEntry): a session that is gone keeps no app.
    liveness: Weak<UpstreamLiveness>,
}

impl Live {
    pub(super) fn new(opening: SessionEntry) -> Self {
        let SessionEntry { facts, control, liveness } = opening;
        let liveness = Arc::downgrade(&liveness);
        Self { id: facts.id, facts, opened_at: SystemTime::now(), opened: control.opened(), control, liveness }
    }

    /// Returns its live stats.
    pub fn live_stats(&self) -> LiveStats {
        self.control.live_stats()
    }

    /// Closes both legs with `code`, which must be one that may be sent ([`may_be_sent`](crate::ws::may_be_sent)), and
    /// `reason`. A session that is closing already continues with that.
    pub fn close(&self, code: u16, reason: &str) {
        self.control.give(SessionOrder::Close { code, reason: reason.into() });
    }

    /// Resets both legs at once; nothing more is delivered.
    pub fn abort(&self) {
        self.control.give(SessionOrder::Abort(Abort::Operator));
    }

    /// Stops reading from its client, as if that had vanished.
    pub fn play_dead(&self) {
        self.control.give(SessionOrder::PlayDead);
    }

    /// Returns the handle of its task.
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    pub(super) fn belongs_to(&self, liveness: &UpstreamLiveness) -> bool {
        std::ptr::eq(self.liveness.as_ptr(), liveness)
    }
}
