//! The states that the engine passes through.

use std::time::{Duration, Instant};

/// Where the session stands between two probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No probe is needed yet.
    Quiet,
    /// A probe is due, but it has not left for the wire; `handed`: whose ping is on its way there.
    Queued { wait: Wait, handed: Option<Whose> },
    /// A probe is on its way. `held_up`: it stood behind a backlog, and its window begins when it is seen to have
    /// arrived; until then `deadline` is the next look.
    Sent { at: Instant, deadline: Instant, held_up: bool },
    /// No probes: a Close has passed, or the mode is off.
    Still,
}

/// The time that a probe waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    /// When it became due, or the client was last heard.
    pub(super) since: Instant,
    /// When it has waited for too long.
    pub(super) until: Instant,
    /// When to look how far the bytes before it have come.
    pub(super) look_at: Instant,
    /// The time for which bytes for the client had been held up in all at `since`.
    pub(super) backlog: Duration,
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

/// Suspensions of the process, seen by the lateness of the timer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Suspensions {
    /// The lateness in all.
    pub(super) late: Duration,
    /// Whether one of them has given a fresh window.
    pub(super) refreshed: bool,
}

/// A clock that can be stopped.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stopwatch {
    /// The time counted up to the last stop.
    counted: Duration,
    /// Since when it runs.
    since: Option<Instant>,
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

impl Wait {
    /// Moves all of it by `pause`, for which nothing could happen.
    pub(super) fn shift(&mut self, pause: Duration) {
        self.since += pause;
        self.until += pause;
        self.look_at += pause;
    }
}

impl Stopwatch {
    /// Starts or stops it.
    pub(super) fn run(&mut self, runs: bool, now: Instant) {
        self.counted = self.read(now);
        self.since = runs.then_some(now);
    }

    /// Returns the time counted up to `now`.
    pub(super) fn read(&self, now: Instant) -> Duration {
        self.counted + self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Takes out the time between `from` and `now`, in which the process stood still.
    pub(super) fn thaw(&mut self, from: Instant, now: Instant) {
        if let Some(since) = &mut self.since {
            *since += now.saturating_duration_since(from.max(*since));
        }
    }
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
