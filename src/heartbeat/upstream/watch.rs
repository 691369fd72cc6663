//! The watch over one upstream process: its pings, its health checks, and whether it is ready.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::UpstreamPulse;
use crate::heartbeat::UpstreamPolicy;

/// Lateness of a look that means that the proxy was stopped or starved; half the timeout where that is less. The app is
/// given a fresh timeout then.
const STALL_GUARD: Duration = Duration::from_secs(2);
/// The longest time between two looks while something is expected of the app.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// The longest time that a ping may take to leave before no ping counts as able to.
const LEAVE_MAX: Duration = Duration::from_millis(500);
/// The longest pause between two connects to an app that refuses them. It gets no request by them.
const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// The shortest time between two reports about an app that is not watched. Connects may fail and succeed in turn.
const REPORT_PAUSE: Duration = Duration::from_secs(1);
/// The time between two looks at such an app while nothing is reported about it.
const UNWATCHED_LOOK: Duration = Duration::from_secs(60);

/// What the watch asks for when it is ticked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// Nothing for now.
    Wait,
    /// Send one ping on one session, the next in turn.
    Probe,
    /// Run a health check on a connection of its own; its result goes to [`Watch::checked`].
    Check(HealthCheck),
    /// A ping or a health check went unanswered: the app counts as unresponsive. Its sessions are held.
    Missed {
        /// Whether it was a health check.
        by_check: bool,
    },
    /// The app has become unready, or its first check has failed. Returned once until [`Tick::Recovered`].
    Unready {
        /// Whether it refuses connections; otherwise it does not answer.
        refused: bool,
        /// How long it has been silent.
        silent: Duration,
    },
    /// The app is ready again.
    Recovered,
    /// The app has been silent for `give_up`: its clients get Close 1012.
    GiveUp {
        /// How long it has been silent.
        silent: Duration,
    },
}

/// A health check of an app in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthCheck {
    /// Opens a connection: enough for an app that refused one.
    Connect,
    /// Sends a request: the kernel of a frozen app accepts connections.
    Request,
}

/// The result of a health check. Its connect and its response have been recorded in the pulse before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckResult {
    /// A response, or an accepted connection where no request was sent.
    Passed,
    /// The app refuses connections.
    Refused,
    /// No response, and none will come.
    Failed,
    /// Not run, for a reason of the proxy's own.
    Skipped,
}

/// The sessions through which the app can be probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeSessions {
    /// Whether there is any.
    pub any: bool,
    /// Whether the one that was pinged last is still there.
    pub pinged: bool,
}

/// Watches one upstream process, from outside the sessions.
#[derive(Debug)]
pub struct Watch {
    policy: UpstreamPolicy,
    /// Whether health checks are requests, which a frozen app does not answer.
    sends_requests: bool,
    state: State,
    /// The time of the last [`Tick::Probe`].
    pinged: Option<Instant>,
    /// The time from which on a failed connect keeps the app in doubt.
    suspect: Option<Instant>,
    /// The check under way.
    check: Option<Check>,
    /// No request before.
    next_request: Instant,
    /// No connect before to an app that refuses them.
    next_connect: Instant,
    /// Whether [`Tick::Unready`] has been returned since the last [`Tick::Recovered`].
    reported: bool,
    /// The time of the next look; a much later one means that the proxy was suspended.
    expected: Instant,
    /// Silence before this is not counted.
    not_before: Instant,
    /// No report before, where the policy turns the watch off.
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
    /// Nothing is expected.
    Listening,
    /// The answer to the ping of this time is expected.
    Pinged { at: Instant },
    /// An answer has failed to come.
    Unresponsive { since: Instant, next_ping: Instant },
    /// Its clients were sent away.
    GivenUp { since: Instant },
}

impl Watch {
    /// A watch that begins at `now`, over the app that `pulse` is of.
    pub fn new(policy: UpstreamPolicy, now: Instant, pulse: &UpstreamPulse) -> Self {
        let state = if pulse.is_responsive() { State::Listening } else { State::Unreached { tried: false } };
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

    /// The same watch where no request is to be sent: a check only connects, which says little of an app that is silent.
    #[must_use]
    pub fn without_requests(self) -> Self {
        Self { sends_requests: false, ..self }
    }

    /// Looks at `pulse`, and leaves there whether the app is ready. To be called until it returns [`Tick::Wait`], then
    /// again at [`Self::next_look`], when something has happened to the pulse, and when a check has ended. Where
    /// the policy turns the watch off, it only reports whether connects are refused, and the app stays ready.
    pub fn tick(&mut self, now: Instant, pulse: &UpstreamPulse, sessions: ProbeSessions) -> Tick {
        let Some(interval) = self.policy.interval else { return self.unwatched(now, pulse) };
        let late = now.saturating_duration_since(self.expected);
        if late > STALL_GUARD.min(self.policy.timeout / 2) {
            self.not_before = now;
        }
        self.expected = self.expected.max(now);
        if pulse.suspect.swap(false, Ordering::Relaxed) {
            self.suspect = Some(now);
        }
        self.hear(pulse);
        let tick = self.act(now, pulse, sessions, interval);
        pulse.ready.store(self.is_ready(pulse), Ordering::Relaxed);
        if tick == Tick::Wait { self.report(now, pulse) } else { tick }
    }

    /// Takes the result of the check that [`Tick::Check`] started.
    pub fn checked(&mut self, end: CheckResult, now: Instant, pulse: &UpstreamPulse, sessions: ProbeSessions) -> Tick {
        let Some(check) = self.check.take() else { return Tick::Wait };
        match end {
            CheckResult::Passed | CheckResult::Skipped => Tick::Wait,
            CheckResult::Failed => self.check_failed(check, now, pulse),
            CheckResult::Refused => {
                // No request has reached the app.
                self.next_request = self.next_request.min(self.next_connect);
                // Without sessions a connect is enough to clear that, and there is nothing to give up.
                if sessions.any { self.check_failed(check, now, pulse) } else { Tick::Wait }
            }
        }
    }

    /// Whether the result of a check is expected.
    pub fn is_checking(&self) -> bool {
        self.check.is_some()
    }

    /// When to look again, if nothing happens before.
    pub fn next_look(&mut self, now: Instant, pulse: &UpstreamPulse, sessions: ProbeSessions) -> Instant {
        let Some(interval) = self.policy.interval else {
            let is_due = pulse.refused.load(Ordering::Relaxed) != self.reported;
            return if is_due { self.next_report.max(now) } else { now + UNWATCHED_LOOK };
        };
        let pending = match self.state {
            State::Unreached { .. } | State::GivenUp { .. } => None,
            State::Listening => Some(self.last_heard(pulse) + interval).filter(|at| sessions.any || *at > now),
            State::Pinged { .. } | State::Unresponsive { .. } => {
                let left = self.pinged.and_then(|at| pulse.probed_since(at));
                let beside = left.map(|left| self.asks_beside(left));
                let left = left.map(|left| self.due(left));
                let leaves = self.pinged.map(|at| at + self.leave(interval));
                let regular = now + self.period(interval);
                [left, beside, leaves].into_iter().flatten().filter(|at| *at > now).chain([regular]).min()
            }
        };
        let check = match self.check {
            Some(check) => Some(self.due(check.at)),
            None => self.next_check(now, pulse, sessions, interval).map(|(at, _)| at),
        };
        let next = pending.into_iter().chain(check).min().unwrap_or(now + interval);
        self.expected = next.max(now + Duration::from_millis(1));
        self.expected
    }

    /// Returns the tick for connects that have begun or ceased to be refused, of an app that is not watched.
    fn unwatched(&mut self, now: Instant, pulse: &UpstreamPulse) -> Tick {
        let refused = pulse.refused.load(Ordering::Relaxed);
        if refused == self.reported || now < self.next_report {
            return Tick::Wait;
        }
        self.reported = refused;
        self.next_report = now + REPORT_PAUSE;
        if refused { Tick::Unready { refused, silent: Duration::ZERO } } else { Tick::Recovered }
    }

    fn is_ready(&self, pulse: &UpstreamPulse) -> bool {
        !pulse.refused.load(Ordering::Relaxed) && matches!(self.state, State::Listening | State::Pinged { .. })
    }

    /// Applies signs of life.
    fn hear(&mut self, pulse: &UpstreamPulse) {
        let lives = match self.state {
            State::Unreached { .. } => pulse.answered_since(pulse.epoch),
            State::Listening => false,
            State::Pinged { at } => pulse.heard_since(at),
            State::Unresponsive { since, .. } if self.suspect.is_some() => pulse.answered_since(since),
            State::Unresponsive { since, .. } => pulse.heard_since(since),
            // Bytes on closing sessions may have been sent before the app froze.
            State::GivenUp { since } => pulse.answered_since(since),
        };
        if lives {
            self.state = State::Listening;
        }
        if self.suspect.is_some_and(|since| pulse.answered_since(since)) {
            self.suspect = None;
        }
    }

    fn act(&mut self, now: Instant, pulse: &UpstreamPulse, sessions: ProbeSessions, interval: Duration) -> Tick {
        if let Some(check) = self.check
            && now >= self.due(check.at)
        {
            self.check = None;
            let missed = self.check_failed(check, now, pulse);
            if missed != Tick::Wait {
                return missed;
            }
        }
        let silent = self.silence(now, pulse);
        match self.state {
            State::Listening if sessions.any && silent >= interval => return self.ping(now),
            State::Pinged { at } => match pulse.probed_since(at) {
                Some(left) if sessions.pinged && now >= self.due(left) => return self.miss(now, false),
                // It is under way still, or was the ping of a session that is gone.
                Some(_) => {}
                // The session could not send it (it ended, or is inside a frame): the next one may.
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
        match self.next_check(now, pulse, sessions, interval) {
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

    /// Returns the next check that the doubt about the app needs, and its time.
    fn next_check(
        &self,
        now: Instant,
        pulse: &UpstreamPulse,
        sessions: ProbeSessions,
        interval: Duration,
    ) -> Option<(Instant, HealthCheck)> {
        let request =
            self.needs_request(now, pulse, sessions, interval).then_some((self.next_request, HealthCheck::Request));
        let refused = pulse.refused.load(Ordering::Relaxed);
        let connect = refused.then_some((self.next_connect, HealthCheck::Connect));
        // A request connects, too: where both are due, it is the one.
        match (request, connect) {
            (Some((request, _)), Some((connect, _))) if request > now.max(connect) => {
                Some((connect, HealthCheck::Connect))
            }
            _ => request.or(connect),
        }
    }

    /// Whether the app is in doubt in a way that only a response clears: the kernel of a frozen app accepts connections.
    fn needs_request(&self, now: Instant, pulse: &UpstreamPulse, sessions: ProbeSessions, interval: Duration) -> bool {
        let by_state = match self.state {
            State::Unreached { .. } | State::GivenUp { .. } => true,
            State::Listening => !sessions.any && self.silence(now, pulse) >= interval,
            // A pong may be missing for a reason of its session: an app that answers a request meanwhile is no silent one.
            State::Pinged { at } => {
                let is_slow = pulse.probed_since(at).is_some_and(|left| now >= self.asks_beside(left));
                is_slow && self.sends_requests || !self.can_ping(now, pulse, sessions, interval)
            }
            State::Unresponsive { .. } => self.sends_requests || !self.can_ping(now, pulse, sessions, interval),
        };
        by_state || self.suspect.is_some()
    }

    /// Whether the last ping has left, or may still leave soon.
    fn can_ping(&self, now: Instant, pulse: &UpstreamPulse, sessions: ProbeSessions, interval: Duration) -> bool {
        let Some(at) = self.pinged else { return false };
        sessions.any && sessions.pinged && (pulse.probed_since(at).is_some() || now < at + self.leave(interval))
    }

    /// Applies the failure of `check`.
    fn check_failed(&mut self, check: Check, now: Instant, pulse: &UpstreamPulse) -> Tick {
        match self.state {
            State::Unreached { .. } => {
                self.state = State::Unreached { tried: true };
                Tick::Missed { by_check: true }
            }
            // The failure of a mere connect leaves the app refused, and changes nothing else.
            State::Listening | State::Pinged { .. }
                if check.kind == HealthCheck::Request && !self.is_answered(check, pulse) =>
            {
                self.miss(now, true)
            }
            _ => Tick::Wait,
        }
    }

    /// Whether a sign of life since `check` has cleared the doubt for which it was started.
    fn is_answered(&self, check: Check, pulse: &UpstreamPulse) -> bool {
        match self.suspect {
            Some(_) => pulse.answered_since(check.at),
            None => pulse.heard_since(check.at),
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
    fn report(&mut self, now: Instant, pulse: &UpstreamPulse) -> Tick {
        let refused = pulse.refused.load(Ordering::Relaxed);
        let ready = self.is_ready(pulse);
        let untried = self.state == State::Unreached { tried: false } && !refused;
        if ready == self.reported && !untried {
            self.reported = !ready;
            let silent = self.silence(now, pulse);
            return if ready { Tick::Recovered } else { Tick::Unready { refused, silent } };
        }
        Tick::Wait
    }

    /// The time between two looks while something is expected: a quarter of the shorter window.
    fn period(&self, interval: Duration) -> Duration {
        (interval.min(self.policy.timeout) / 4).min(LOOK_MAX)
    }

    /// The time that a ping may take to leave.
    fn leave(&self, interval: Duration) -> Duration {
        LEAVE_MAX.min(self.period(interval))
    }

    /// When a ping that left at `left` has been without a pong for long enough to send a request beside it.
    fn asks_beside(&self, left: Instant) -> Instant {
        left.max(self.not_before) + self.policy.timeout / 4
    }

    /// When an answer is due to what left at `left`.
    fn due(&self, left: Instant) -> Instant {
        left.max(self.not_before) + self.policy.timeout
    }

    fn last_heard(&self, pulse: &UpstreamPulse) -> Instant {
        pulse.last_heard().max(self.not_before)
    }

    fn silence(&self, now: Instant, pulse: &UpstreamPulse) -> Duration {
        now.saturating_duration_since(self.last_heard(pulse))
    }
}
