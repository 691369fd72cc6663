//! The states that the engine passes through.

use std::time::{Duration, Instant};

/// Where the session stands between two probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No probe is needed yet.
    Quiet,
    /// A probe is due, but it has not left for the wire; `handed`: whose ping is on its way there.
    Queued { since: Instant, handed: Option<Whose> },
    /// A probe is on its way. `held_up`: it stood behind a backlog, and its window begins when it is seen to have
    /// arrived; until then `deadline` is the next look.
    Sent { at: Instant, deadline: Instant, held_up: bool },
    /// No probes: a Close has passed, or the mode is off.
    Still,
}

/// Whose ping serves as the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Ours,
    Apps,
}

/// The second sending of a relayed ping that ours overtook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reissue {
    None,
    /// Its own pong may come until then.
    At(Instant),
    /// It waits for a frame boundary.
    Due,
}

/// The client is not being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paused {
    pub(super) since: Instant,
    /// When the app has had time enough.
    pub(super) until: Instant,
}

/// The jittered delays of one probe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delays {
    /// After the last byte.
    pub(super) idle: Duration,
    /// After the last probe, whatever comes in.
    pub(super) busy: Duration,
}

impl Reissue {
    #[inline]
    pub(super) fn is_due(self, now: Instant) -> bool {
        match self {
            Self::None => false,
            Self::At(at) => at <= now,
            Self::Due => true,
        }
    }
}
