//! The heartbeats that the streams of one connection follow, and the clocks of the connection that follow from them.

use std::sync::Arc;
use std::time::Duration;

use crate::heartbeat::{Mode, Policy};

/// The longest window of an adaptive heartbeat.
const ADAPTIVE_MOST: Duration = Duration::from_mins(1);

/// The heartbeats of the live streams.
#[derive(Debug, Default)]
pub(super) struct Heartbeats {
    /// Each once, and how many streams follow it.
    policies: Vec<(Arc<Policy>, usize)>,
    /// Set if `policies` has changed since [`Self::take_changed`].
    changed: bool,
}

/// The clocks that a connection follows: those of the most patient of its streams.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Clocks {
    pub(super) interval: Duration,
    pub(super) jitter: f64,
    /// Time for which a PING may go unanswered; `None` without a stream that has a heartbeat.
    pub(super) timeout: Option<Duration>,
    pub(super) stall_guard: Duration,
    pub(super) close_grace: Duration,
    pub(super) write_stall: Duration,
    /// Set if some stream has no heartbeat: only its peers may end it.
    pub(super) spares_some: bool,
}

impl Heartbeats {
    /// One more stream follows `policy`.
    pub(super) fn follow(&mut self, policy: &Arc<Policy>) {
        match self.policies.iter_mut().find(|(known, _)| Arc::ptr_eq(known, policy)) {
            Some((_, count)) => *count += 1,
            None => {
                self.policies.push((Arc::clone(policy), 1));
                self.changed = true;
            }
        }
    }

    /// A stream no longer follows `policy`.
    pub(super) fn forget(&mut self, policy: Option<&Arc<Policy>>) {
        let Some(policy) = policy else { return };
        if let Some(at) = self.policies.iter().position(|(known, _)| Arc::ptr_eq(known, policy)) {
            self.policies[at].1 -= 1;
            if self.policies[at].1 == 0 {
                self.policies.swap_remove(at);
                self.changed = true;
            }
        }
    }

    /// Returns whether the heartbeats have changed since [`Self::take_changed`].
    pub(super) fn has_changed(&self) -> bool {
        self.changed
    }

    /// Returns whether the heartbeats have changed since this was last asked.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The clocks of the connection; `None` while no stream follows a heartbeat.
    pub(super) fn clocks(&self) -> Option<Clocks> {
        let policies = || self.policies.iter().map(|(policy, _)| &**policy);
        let (first, spares_some) = (policies().next()?, policies().any(|policy| policy.mode == Mode::Off));
        let beating = || policies().filter(|policy| policy.mode != Mode::Off);
        let most = |of: fn(&Policy) -> Duration| beating().map(of).max();
        Some(Clocks {
            interval: most(|policy| policy.interval).unwrap_or(first.interval),
            jitter: beating().map(|policy| policy.jitter).fold(1.0, f64::min),
            timeout: most(bound),
            stall_guard: most(|policy| policy.stall_guard).unwrap_or(first.stall_guard),
            close_grace: most(|policy| policy.close_grace).unwrap_or(first.close_grace),
            write_stall: most(|policy| policy.write_stall).unwrap_or(first.write_stall),
            spares_some,
        })
    }
}

/// Returns the time for which a client may leave its probes unanswered under `policy`.
fn bound(policy: &Policy) -> Duration {
    let window = if policy.adaptive { policy.timeout.max(ADAPTIVE_MOST) } else { policy.timeout };
    window.saturating_mul(policy.max_missed)
}
