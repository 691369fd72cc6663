//! The states of the engine.

use std::time::{Duration, Instant};

/// The state of a session between two probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbePhase {
    /// No probe is needed yet.
    Quiet,
    /// A probe is due and has not been written; `handed` is the origin of the probe already handed to the relay.
    Queued { wait: Wait, handed: Option<ProbeOrigin> },
    /// A probe is in flight. `held_up` is true if it was behind a backlog, so that its window begins when it is known
    /// to have arrived; until then `deadline` is the time of the next check.
    Sent { at: Instant, deadline: Instant, held_up: bool },
    /// No probes: a Close has passed, or the mode is off.
    Still,
}

/// The waiting time of a queued probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    /// The time at which it became due, or of the client's last bytes after that.
    pub(super) since: Instant,
    /// The time at which it has waited for too long.
    pub(super) until: Instant,
    /// The time of the next check of the bytes in front of it.
    pub(super) look_at: Instant,
    /// The reading of the backlog clock at `since`.
    pub(super) backlog: Duration,
}

/// The origin of the probe in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeOrigin {
    Ours,
    Apps,
}

/// The second sending of a relayed ping that was overtaken by one of the proxy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reissue {
    None,
    /// Scheduled: its own pong may arrive until then.
    At(Instant),
    /// Waiting for a frame boundary.
    Due,
}

/// Suspensions of the process, detected by late timers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Suspensions {
    /// The total lateness.
    pub(super) late: Duration,
    /// True if one of them has already granted a fresh window.
    pub(super) refreshed: bool,
}

/// A clock that can be stopped.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stopwatch {
    /// The time counted up to the last stop.
    counted: Duration,
    /// The time of the last start; `None` while stopped.
    since: Option<Instant>,
}

/// A period in which the client is not read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paused {
    pub(super) since: Instant,
    /// The deadline for the app to accept data again.
    pub(super) until: Instant,
}

/// The jittered delays of one probe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delays {
    /// The delay after the last byte.
    pub(super) idle: Duration,
    /// The delay after the last probe, regardless of incoming data.
    pub(super) busy: Duration,
}

impl Wait {
    /// Shifts all times by `pause`, in which nothing could happen.
    pub(super) fn shift(&mut self, pause: Duration) {
        self.since += pause;
        self.until += pause;
        self.look_at += pause;
    }
}

impl Stopwatch {
    /// Starts or stops the clock.
    pub(super) fn run(&mut self, runs: bool, now: Instant) {
        self.counted = self.read(now);
        self.since = runs.then_some(now);
    }

    /// Returns the time counted up to `now`.
    pub(super) fn read(&self, now: Instant) -> Duration {
        self.counted + self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Removes the time between `from` and `now`, in which the process was suspended.
    pub(super) fn shift_by_suspension(&mut self, from: Instant, now: Instant) {
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
