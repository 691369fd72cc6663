//! The time by which a dead client of the model must be torn down.

use super::scenario::{Death, Way};
use super::world::{TICK, World};
use super::*;

impl World {
    /// Extends the bound for this tick: by frozen time, and by one fresh window after each freeze.
    pub(super) fn grow_bound(&mut self) {
        let window = self.window();
        let stopped = self.now < self.stopped_until;
        let backlog = self.pending > 0 || self.written - self.acked > 256;
        let stalled = stopped || backlog && !matches!(self.death, Some(Death::CablePulled));
        // A long app frame leaves no gap for a probe.
        let streaming = self.is_streaming() && !matches!(self.death, Some(Death::CablePulled));
        if stalled || self.paused || streaming {
            self.allowance += TICK;
        }
        if stalled && !self.stalled {
            self.allowance += window + LOOK;
        }
        self.stalled = stalled;
    }

    pub(super) fn window(&self) -> Duration {
        let Policy { timeout, adaptive, .. } = self.scenario.policy;
        if let Some(window) = self.engine.proof.window() {
            return window;
        }
        if adaptive { timeout.max(60 * SECOND) } else { timeout }
    }

    /// Returns the time by which a dead client must be torn down, as far as known now.
    pub(super) fn gone_by(&self) -> Duration {
        let policy = &self.scenario.policy;
        // A pulled cable under a backlog is detected by write_stall.
        let stuck =
            matches!(self.death, Some(Death::CablePulled)) && (self.pending > 0 || self.written - self.acked > 256);
        let stuck = if stuck { WRITE_STALL + LOOK } else { Duration::ZERO };
        let (since, silence) = match self.scenario.way {
            Way::Pings => (self.last_life, policy.interval + self.window() * policy.max_missed),
            // Each probe may have to wait for a gap.
            Way::Asked => {
                let waits =
                    if self.open_until > self.base { self.window() * policy.max_missed } else { Duration::ZERO };
                (self.last_life.max(self.open_until), policy.interval + self.window() * policy.max_missed + waits)
            }
            Way::Watched { asks } => (self.last_life.max(self.open_until), asks + self.window() * policy.max_missed),
            Way::Beats { .. } => (self.last_life, self.window()),
            Way::BeatsWhenQuiet { .. } => (self.last_life.max(self.last_word), self.window()),
            Way::BeatsWhenSpokenTo { spoken_to, .. } => {
                (self.last_life.max(self.open_until), spoken_to + self.window())
            }
        };
        // A probe right behind other bytes is checked early, and its window begins once it has arrived.
        let early_look = self.window() / LATER_LOOK;
        // One fresh window, however often the timer is late.
        let fresh = if policy.stall_guard < TICK { self.window() } else { Duration::ZERO };
        (since - self.base) + silence + self.allowance + stuck + early_look + fresh + 4 * TICK
    }
}
