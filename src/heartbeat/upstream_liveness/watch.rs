//! The liveness monitor of one upstream process: its pings, health checks and readiness.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::UpstreamLiveness;
use crate::heartbeat::UpstreamPolicy;

/// The lateness of a tick from which the proxy counts as stopped or starved; half the timeout if that is less. The app
/// then gets a fresh timeout.
const STALL_GUARD: Duration = Duration::from_secs(2);
/// The maximum time between two ticks while an answer is expected.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// The maximum time for a ping to be written before pings count as impossible.
const LEAVE_MAX: Duration = Duration::from_millis(500);
/// The maximum pause between two connects to an app that refuses them. They send it no request.
const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// The minimum time between two reports about an app without monitoring, as connects may fail and succeed alternately.
const REPORT_PAUSE: Duration = Duration::from_secs(1);
/// The time between two ticks for such an app while nothing is to be reported.
const UNWATCHED_LOOK: Duration = Duration::from_secs(60);

/// The action requested by a tick of the monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// No action.
    Wait,
    /// Send one ping on one session, the next in turn.
    Probe,
    /// Run a health check on a connection of its own, and pass its result to [`LivenessMonitor::checked`].
    Check(HealthCheck),
    /// A ping or a health check was not answered: the app counts as unresponsive. Its sessions are held.
    Missed {
        /// True if it was a health check.
        by_check: bool,
    },
    /// The app has become unready, or its first check has failed. Returned once until [`Tick::Recovered`].
    Unready {
        /// True if it refuses connections; otherwise it does not answer.
        refused: bool,
        /// The duration of its silence.
        silent: Duration,
    },
    /// The app is ready again.
    Recovered,
    /// The app has been silent for `give_up`: its clients get Close 1012.
    GiveUp {
        /// The duration of its silence.
        silent: Duration,
    },
}

/// The kind of a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthCheck {
    /// Opens a connection, which suffices for an app that refused one.
    Connect,
    /// Sends a request, as the kernel of a frozen app accepts connections.
    Request,
}

/// The result of a health check. Its connect and its response have already been recorded in the [`UpstreamLiveness`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthCheckResult {
    /// A response, or an accepted connection if no request was sent.
    Passed,
    /// The app refuses connections.
    Refused,
    /// No response, and none can follow.
    Failed,
    /// Not run, for a reason within the proxy.
    Skipped,
}

/// The sessions through which the app can be probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeSessions {
    /// True if there is any.
    pub any: bool,
    /// True if the one pinged last is still open.
    pub pinged: bool,
}

/// The liveness monitor of one upstream process.
#[derive(Debug)]
pub struct LivenessMonitor {
    policy: UpstreamPolicy,
    /// True if health checks are requests, which a frozen app does not answer.
    sends_requests: bool,
    state: State,
    /// The time of the last [`Tick::Probe`].
    pinged: Option<Instant>,
    /// The time from which a failed connect keeps the app in doubt.
    suspect: Option<Instant>,
    /// The check in progress.
    check: Option<Check>,
    /// The earliest time of the next request.
    next_request: Instant,
    /// The earliest time of the next connect to an app that refuses them.
    next_connect: Instant,
    /// True if [`Tick::Unready`] has been returned since the last [`Tick::Recovered`].
    reported: bool,
    /// The time of the next tick; a much later one indicates a suspension of the proxy.
    expected: Instant,
    /// The time before which silence is not counted.
    not_before: Instant,
    /// The earliest time of the next report, if the policy turns monitoring off.
    next_report: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Check {
    at: Instant,
    kind: HealthCheck,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not reached since the start.
    Unreached { tried: bool },
    /// No answer is expected.
    Listening,
    /// The answer to the ping of this time is expected.
    Pinged { at: Instant },
    /// An answer is missing.
    Unresponsive { since: Instant, next_ping: Instant },
    /// The clients of the app have been closed.
    GivenUp { since: Instant },
}

impl LivenessMonitor {
    /// Creates the monitor of the app with the state `liveness`, beginning at `now`.
    pub fn new(policy: UpstreamPolicy, now: Instant, liveness: &UpstreamLiveness) -> Self {
        let state = if liveness.is_responsive() { State::Listening } else { State::Unreached { tried: false } };
        Self {
            policy,
            sends_requests: true,
            state,
            pinged: None,
            suspect: None,
            check: None,
            next_request: now,
            next_connect: now,
            reported: false,
            expected: now,
            not_before: now,
            next_report: now,
        }
    }

    /// Disables requests: a check then only connects, which proves little about an app that is silent.
    #[must_use]
    pub fn without_requests(self) -> Self {
        Self { sends_requests: false, ..self }
    }

    /// Evaluates `liveness`, and stores the readiness of the app in it. Must be called until it returns [`Tick::Wait`],
    /// then again at [`Self::next_tick`], when `liveness` has changed, and when a check has ended. If the policy turns
    /// monitoring off, it only reports refused connects, and the app stays ready.
    pub fn tick(&mut self, now: Instant, liveness: &UpstreamLiveness, sessions: ProbeSessions) -> Tick {
        let Some(interval) = self.policy.interval else { return self.unwatched(now, liveness) };
        let late = now.saturating_duration_since(self.expected);
        if late > STALL_GUARD.min(self.policy.timeout / 2) {
            self.not_before = now;
        }
        self.expected = self.expected.max(now);
        if liveness.suspect.swap(false, Ordering::Relaxed) {
            self.suspect = Some(now);
        }
        self.apply_signs_of_life(liveness);
        let tick = self.act(now, liveness, sessions, interval);
        liveness.ready.store(self.is_ready(liveness), Ordering::Relaxed);
        if tick == Tick::Wait { self.report(now, liveness) } else { tick }
    }

    /// Records the result of the check requested by [`Tick::Check`].
    pub fn checked(
        &mut self,
        end: HealthCheckResult,
        now: Instant,
        liveness: &UpstreamLiveness,
        sessions: ProbeSessions,
    ) -> Tick {
        let Some(check) = self.check.take() else { return Tick::Wait };
        match end {
            HealthCheckResult::Passed | HealthCheckResult::Skipped => Tick::Wait,
            HealthCheckResult::Failed => self.check_failed(check, now, liveness),
            HealthCheckResult::Refused => {
                // No request has reached the app.
                self.next_request = self.next_request.min(self.next_connect);
                // Without sessions a connect suffices to clear that, and there is nothing to give up.
                if sessions.any { self.check_failed(check, now, liveness) } else { Tick::Wait }
            }
        }
    }

    /// Returns whether a check is in progress.
    pub fn is_checking(&self) -> bool {
        self.check.is_some()
    }

    /// Returns the time of the next tick, if nothing happens before.
    pub fn next_tick(&mut self, now: Instant, liveness: &UpstreamLiveness, sessions: ProbeSessions) -> Instant {
        let Some(interval) = self.policy.interval else {
            let is_due = liveness.refused.load(Ordering::Relaxed) != self.reported;
            return if is_due { self.next_report.max(now) } else { now + UNWATCHED_LOOK };
        };
        let pending = match self.state {
            State::Unreached { .. } | State::GivenUp { .. } => None,
            State::Listening => Some(self.last_heard(liveness) + interval).filter(|at| sessions.any || *at > now),
            State::Pinged { .. } | State::Unresponsive { .. } => {
                let left = self.pinged.and_then(|at| liveness.probed_since(at));
                let beside = left.map(|left| self.request_due(left));
                let left = left.map(|left| self.due(left));
                let leaves = self.pinged.map(|at| at + self.leave(interval));
                let regular = now + self.period(interval);
                [left, beside, leaves].into_iter().flatten().filter(|at| *at > now).chain([regular]).min()
            }
        };
        let check = match self.check {
            Some(check) => Some(self.due(check.at)),
            None => self.next_check(now, liveness, sessions, interval).map(|(at, _)| at),
        };
        let next = pending.into_iter().chain(check).min().unwrap_or(now + interval);
        self.expected = next.max(now + Duration::from_millis(1));
        self.expected
    }

    /// Returns the tick for an app without monitoring whose connects have begun or ceased to be refused.
    fn unwatched(&mut self, now: Instant, liveness: &UpstreamLiveness) -> Tick {
        let refused = liveness.refused.load(Ordering::Relaxed);
        if refused == self.reported || now < self.next_report {
            return Tick::Wait;
        }
        self.reported = refused;
        self.next_report = now + REPORT_PAUSE;
        if refused { Tick::Unready { refused, silent: Duration::ZERO } } else { Tick::Recovered }
    }

    fn is_ready(&self, liveness: &UpstreamLiveness) -> bool {
        !liveness.refused.load(Ordering::Relaxed) && matches!(self.state, State::Listening | State::Pinged { .. })
    }

    /// Applies signs of life.
    fn apply_signs_of_life(&mut self, liveness: &UpstreamLiveness) {
        let lives = match self.state {
            State::Unreached { .. } => liveness.answered_since(liveness.epoch),
            State::Listening => false,
            State::Pinged { at } => liveness.received_since(at),
            State::Unresponsive { since, .. } if self.suspect.is_some() => liveness.answered_since(since),
            State::Unresponsive { since, .. } => liveness.received_since(since),
            // Bytes on closing sessions may have been sent before the app froze.
            State::GivenUp { since } => liveness.answered_since(since),
        };
        if lives {
            self.state = State::Listening;
        }
        if self.suspect.is_some_and(|since| liveness.answered_since(since)) {
            self.suspect = None;
        }
    }

    fn act(&mut self, now: Instant, liveness: &UpstreamLiveness, sessions: ProbeSessions, interval: Duration) -> Tick {
        if let Some(check) = self.check
            && now >= self.due(check.at)
        {
            self.check = None;
            let missed = self.check_failed(check, now, liveness);
            if missed != Tick::Wait {
                return missed;
            }
        }
        let silent = self.silence(now, liveness);
        match self.state {
            State::Listening if sessions.any && silent >= interval => return self.ping(now),
            State::Pinged { at } => match liveness.probed_since(at) {
                Some(left) if sessions.pinged && now >= self.due(left) => return self.miss(now, false),
                // Still in flight, or the ping of a session that is closed.
                Some(_) => {}
                // The session could not send it (it ended, or is inside a frame): try the next one.
                None if sessions.any && now >= self.due(at) => return self.ping(now),
                None => {}
            },
            State::Unresponsive { .. } if sessions.any && silent >= self.policy.give_up => {
                self.state = State::GivenUp { since: now };
                return Tick::GiveUp { silent };
            }
            State::Unresponsive { since, next_ping } if sessions.any && now >= next_ping => {
                self.pinged = Some(now);
                self.state = State::Unresponsive { since, next_ping: now + self.policy.timeout };
                return Tick::Probe;
            }
            _ => {}
        }
        match self.next_check(now, liveness, sessions, interval) {
            Some((at, kind)) if self.check.is_none() && now >= at => {
                self.check = Some(Check { at: now, kind });
                if kind == HealthCheck::Request {
                    self.next_request = now + interval;
                }
                self.next_connect = now + interval.min(RECONNECT_MAX);
                Tick::Check(kind)
            }
            _ => Tick::Wait,
        }
    }

    /// Returns the next check required by the doubt about the app, with its time.
    fn next_check(
        &self,
        now: Instant,
        liveness: &UpstreamLiveness,
        sessions: ProbeSessions,
        interval: Duration,
    ) -> Option<(Instant, HealthCheck)> {
        let request =
            self.needs_request(now, liveness, sessions, interval).then_some((self.next_request, HealthCheck::Request));
        let refused = liveness.refused.load(Ordering::Relaxed);
        let connect = refused.then_some((self.next_connect, HealthCheck::Connect));
        // A request also connects: if both are due, one request suffices.
        match (request, connect) {
            (Some((request, _)), Some((connect, _))) if request > now.max(connect) => {
                Some((connect, HealthCheck::Connect))
            }
            _ => request.or(connect),
        }
    }

    /// Returns whether only a response can clear the doubt about the app: the kernel of a frozen app accepts
    /// connections.
    fn needs_request(
        &self,
        now: Instant,
        liveness: &UpstreamLiveness,
        sessions: ProbeSessions,
        interval: Duration,
    ) -> bool {
        let by_state = match self.state {
            State::Unreached { .. } | State::GivenUp { .. } => true,
            State::Listening => !sessions.any && self.silence(now, liveness) >= interval,
            // A pong may be missing for a reason within its session: an app that answers a request meanwhile is not
            // silent.
            State::Pinged { at } => {
                let is_slow = liveness.probed_since(at).is_some_and(|left| now >= self.request_due(left));
                is_slow && self.sends_requests || !self.can_ping(now, liveness, sessions, interval)
            }
            State::Unresponsive { .. } => self.sends_requests || !self.can_ping(now, liveness, sessions, interval),
        };
        by_state || self.suspect.is_some()
    }

    /// Returns whether the last ping has been written, or may still be soon.
    fn can_ping(&self, now: Instant, liveness: &UpstreamLiveness, sessions: ProbeSessions, interval: Duration) -> bool {
        let Some(at) = self.pinged else { return false };
        sessions.any && sessions.pinged && (liveness.probed_since(at).is_some() || now < at + self.leave(interval))
    }

    /// Applies the failure of `check`.
    fn check_failed(&mut self, check: Check, now: Instant, liveness: &UpstreamLiveness) -> Tick {
        match self.state {
            State::Unreached { .. } => {
                self.state = State::Unreached { tried: true };
                Tick::Missed { by_check: true }
            }
            // A failed connect leaves the app refused, and changes nothing else.
            State::Listening | State::Pinged { .. }
                if check.kind == HealthCheck::Request && !self.is_answered(check, liveness) =>
            {
                self.miss(now, true)
            }
            _ => Tick::Wait,
        }
    }

    /// Returns whether a sign of life since `check` has cleared the doubt for which it was started.
    fn is_answered(&self, check: Check, liveness: &UpstreamLiveness) -> bool {
        match self.suspect {
            Some(_) => liveness.answered_since(check.at),
            None => liveness.received_since(check.at),
        }
    }

    fn miss(&mut self, now: Instant, by_check: bool) -> Tick {
        self.state = State::Unresponsive { since: now, next_ping: now };
        Tick::Missed { by_check }
    }

    fn ping(&mut self, now: Instant) -> Tick {
        self.pinged = Some(now);
        self.state = State::Pinged { at: now };
        Tick::Probe
    }

    /// Returns the tick for a change of readiness that has not been returned yet.
    fn report(&mut self, now: Instant, liveness: &UpstreamLiveness) -> Tick {
        let refused = liveness.refused.load(Ordering::Relaxed);
        let ready = self.is_ready(liveness);
        let untried = self.state == State::Unreached { tried: false } && !refused;
        if ready == self.reported && !untried {
            self.reported = !ready;
            let silent = self.silence(now, liveness);
            return if ready { Tick::Recovered } else { Tick::Unready { refused, silent } };
        }
        Tick::Wait
    }

    /// Returns the time between two ticks while an answer is expected: a quarter of the shorter window.
    fn period(&self, interval: Duration) -> Duration {
        (interval.min(self.policy.timeout) / 4).min(LOOK_MAX)
    }

    /// Returns the maximum time for a ping to be written.
    fn leave(&self, interval: Duration) -> Duration {
        LEAVE_MAX.min(self.period(interval))
    }

    /// Returns the time from which a request is sent beside a ping written at `left` that is still without a pong.
    fn request_due(&self, left: Instant) -> Instant {
        left.max(self.not_before) + self.policy.timeout / 4
    }

    /// Returns the deadline of an answer to a ping or check sent at `left`.
    fn due(&self, left: Instant) -> Instant {
        left.max(self.not_before) + self.policy.timeout
    }

    fn last_heard(&self, liveness: &UpstreamLiveness) -> Instant {
        liveness.last_received().max(self.not_before)
    }

    fn silence(&self, now: Instant, liveness: &UpstreamLiveness) -> Duration {
        now.saturating_duration_since(self.last_heard(liveness))
    }
}
