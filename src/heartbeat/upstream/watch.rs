//! The watch over one upstream process: when it is probed, when it is asked out of band, and what is concluded.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::UpstreamPulse;
use crate::heartbeat::UpstreamPolicy;

/// A look at the app that comes this much later than planned, or by half the timeout where that is less, tells of a
/// proxy that was stopped or starved: the app is given a fresh timeout.
const STALL_GUARD: Duration = Duration::from_secs(2);
/// The longest time between two looks while something is expected of the app.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// The longest time that a ping may take to leave before no ping counts as able to.
const LEAVE_MAX: Duration = Duration::from_millis(500);
/// The longest pause between two connects to an app that refuses them. It gets no request by them.
const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// What the watch asks for when it is ticked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// Nothing for now.
    Wait,
    /// Send one ping on one session, the next in turn.
    Probe,
    /// Ask the app out of band, on a connection made for it; its end is reported to [`Watch::asked`].
    Ask(Asking),
    /// A ping or a question went unanswered: the app counts as unresponsive. Its sessions are held.
    Missed {
        /// Whether it was a question out of band.
        asked: bool,
    },
    /// The app was ready, or had not been tried, and is not ready now. Told once until [`Tick::Recovered`].
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

/// What is asked of an app in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// Open a connection: enough for an app that refused one.
    Connect,
    /// Send a request: the kernel of a frozen app accepts connections.
    Request,
}

/// How a question out of band has ended. What came of its connect, or its response, is in the pulse by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskEnd {
    /// The app has answered, or has accepted the connection where no more was asked.
    Answered,
    /// The app refuses connections.
    Refused,
    /// There was no answer, and none will come.
    Unanswered,
    /// For a reason of the proxy's own the app was not asked.
    NotAsked,
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
    state: State,
    /// When the last ping was asked for, if one was.
    pinged: Option<Instant>,
    /// Since when a connect that came to nothing keeps the app in doubt.
    suspect: Option<Instant>,
    asking: Option<Question>,
    /// No request before.
    next_request: Instant,
    /// No connect before to an app that refuses them.
    next_connect: Instant,
    /// Whether [`Tick::Unready`] was the last of the two that was told.
    told: bool,
    /// When the next look was planned; a much later one tells of a suspension.
    expected: Instant,
    /// Time before this is not held against the app.
    not_before: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Question {
    at: Instant,
    asking: Asking,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not reached since the start.
    Unreached { tried: bool },
    /// Nothing is expected.
    Listening,
    /// An answer is expected to the ping that was asked for at this time.
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
            state,
            pinged: None,
            suspect: None,
            asking: None,
            next_request: now,
            next_connect: now,
            told: false,
            expected: now,
            not_before: now,
        }
    }

    /// Looks at `pulse`, and leaves there whether the app is ready. To be called until it returns [`Tick::Wait`], then
    /// again at [`Self::next_look`], when something has happened to the pulse, and when a question has ended. Does
    /// nothing where the policy turns the watch off.
    pub fn tick(&mut self, now: Instant, pulse: &UpstreamPulse, sessions: ProbeSessions) -> Tick {
        let Some(interval) = self.policy.interval else { return Tick::Wait };
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
        if tick == Tick::Wait { self.tell(now, pulse) } else { tick }
    }

    /// The question that [`Tick::Ask`] asked for has ended.
    pub fn asked(&mut self, end: AskEnd, now: Instant, pulse: &UpstreamPulse, sessions: ProbeSessions) -> Tick {
        let Some(question) = self.asking.take() else { return Tick::Wait };
        match end {
            AskEnd::Answered | AskEnd::NotAsked => Tick::Wait,
            AskEnd::Unanswered => self.unanswered(question, now, pulse),
            AskEnd::Refused => {
                // It has got no request.
                self.next_request = self.next_request.min(self.next_connect);
                // Without sessions a connect is enough to clear that, and there is nothing to give up.
                if sessions.any { self.unanswered(question, now, pulse) } else { Tick::Wait }
            }
        }
    }

    /// Whether the end of a question is waited for.
    pub fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    /// When to look again, if nothing happens before; `None` where the policy turns the watch off.
    pub fn next_look(&mut self, now: Instant, pulse: &UpstreamPulse, sessions: ProbeSessions) -> Option<Instant> {
        let interval = self.policy.interval?;
        let pending = match self.state {
            State::Unreached { .. } | State::GivenUp { .. } => None,
            State::Listening => Some(self.last_heard(pulse) + interval).filter(|at| sessions.any || *at > now),
            State::Pinged { .. } | State::Unresponsive { .. } => {
                let left = self.pinged.and_then(|at| pulse.probed_since(at)).map(|left| self.due(left));
                let leaves = self.pinged.map(|at| at + self.leave(interval));
                let regular = now + self.period(interval);
                [left, leaves].into_iter().flatten().filter(|at| *at > now).chain([regular]).min()
            }
        };
        let question = match self.asking {
            Some(question) => Some(self.due(question.at)),
            None => self.next_question(now, pulse, sessions, interval).map(|(at, _)| at),
        };
        let next = pending.into_iter().chain(question).min().unwrap_or(now + interval);
        self.expected = next.max(now + Duration::from_millis(1));
        Some(self.expected)
    }

    fn is_ready(&self, pulse: &UpstreamPulse) -> bool {
        !pulse.refused.load(Ordering::Relaxed) && matches!(self.state, State::Listening | State::Pinged { .. })
    }

    /// Takes up signs of life.
    fn hear(&mut self, pulse: &UpstreamPulse) {
        let lives = match self.state {
            State::Unreached { .. } => pulse.answered_since(pulse.epoch),
            State::Listening => false,
            State::Pinged { at } => pulse.heard_since(at),
            State::Unresponsive { since, .. } if self.suspect.is_some() => pulse.answered_since(since),
            State::Unresponsive { since, .. } => pulse.heard_since(since),
            // Bytes of sessions that are ending may have come before it froze.
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
        if let Some(question) = self.asking
            && now >= self.due(question.at)
        {
            self.asking = None;
            let missed = self.unanswered(question, now, pulse);
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
        match self.next_question(now, pulse, sessions, interval) {
            Some((at, asking)) if self.asking.is_none() && now >= at => {
                self.asking = Some(Question { at: now, asking });
                if asking == Asking::Request {
                    self.next_request = now + interval;
                }
                self.next_connect = now + interval.min(RECONNECT_MAX);
                Tick::Ask(asking)
            }
            _ => Tick::Wait,
        }
    }

    /// What is asked of the app next to clear its doubt, and when.
    fn next_question(
        &self,
        now: Instant,
        pulse: &UpstreamPulse,
        sessions: ProbeSessions,
        interval: Duration,
    ) -> Option<(Instant, Asking)> {
        let request =
            self.needs_request(now, pulse, sessions, interval).then_some((self.next_request, Asking::Request));
        let refused = pulse.refused.load(Ordering::Relaxed);
        let connect = refused.then_some((self.next_connect, Asking::Connect));
        // A request connects, too: where both are due, it is the one.
        match (request, connect) {
            (Some((request, _)), Some((connect, _))) if request > now.max(connect) => Some((connect, Asking::Connect)),
            _ => request.or(connect),
        }
    }

    /// Whether the app is in doubt in a way that only a response clears: the kernel of a frozen app accepts connections.
    fn needs_request(&self, now: Instant, pulse: &UpstreamPulse, sessions: ProbeSessions, interval: Duration) -> bool {
        let by_state = match self.state {
            State::Unreached { .. } | State::GivenUp { .. } => true,
            State::Listening => !sessions.any && self.silence(now, pulse) >= interval,
            State::Pinged { .. } | State::Unresponsive { .. } => !self.can_ping(now, pulse, sessions, interval),
        };
        by_state || self.suspect.is_some()
    }

    /// Whether the last ping has left, or may still leave soon.
    fn can_ping(&self, now: Instant, pulse: &UpstreamPulse, sessions: ProbeSessions, interval: Duration) -> bool {
        let Some(at) = self.pinged else { return false };
        sessions.any && sessions.pinged && (pulse.probed_since(at).is_some() || now < at + self.leave(interval))
    }

    /// No answer has come to `question`.
    fn unanswered(&mut self, question: Question, now: Instant, pulse: &UpstreamPulse) -> Tick {
        match self.state {
            State::Unreached { .. } => {
                self.state = State::Unreached { tried: true };
                Tick::Missed { asked: true }
            }
            // One that was for the sake of a refused connect says nothing more.
            State::Listening | State::Pinged { .. }
                if question.asking == Asking::Request && !self.is_answered(question, pulse) =>
            {
                self.miss(now, true)
            }
            _ => Tick::Wait,
        }
    }

    /// Whether there was a sign of life since `question` that clears what it was asked for.
    fn is_answered(&self, question: Question, pulse: &UpstreamPulse) -> bool {
        match self.suspect {
            Some(_) => pulse.answered_since(question.at),
            None => pulse.heard_since(question.at),
        }
    }

    fn miss(&mut self, now: Instant, asked: bool) -> Tick {
        self.state = State::Unresponsive { since: now, next_ping: now };
        Tick::Missed { asked }
    }

    fn ping(&mut self, now: Instant) -> Tick {
        self.pinged = Some(now);
        self.state = State::Pinged { at: now };
        Tick::Probe
    }

    /// Tells that the app has become unready, or ready again, if that was not told.
    fn tell(&mut self, now: Instant, pulse: &UpstreamPulse) -> Tick {
        let refused = pulse.refused.load(Ordering::Relaxed);
        let ready = self.is_ready(pulse);
        let untried = self.state == State::Unreached { tried: false } && !refused;
        if ready == self.told && !untried {
            self.told = !ready;
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
