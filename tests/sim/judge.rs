//! The judge of a simulated world. It keeps its own records: it reads the wire, the plan and the records of the ends,
//! and takes from the product only what the product reports of itself, to compare the two.

mod delivery;
mod ends;
mod liveness;
mod reports;

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use pulsegate::heartbeat::Policy;
use pulsegate::relay::SessionOrder;

use crate::proxy::{Proxy, SessionRecord};

/// The excess over a bound that does not count: a few steps of the simulation.
const SLACK: Duration = Duration::from_millis(300);
/// The distance within which two instants count as the same.
const MARGIN: Duration = Duration::from_millis(5);
/// The time that an operator's Close waits for the end of a frame.
const FRAME_WAIT: Duration = Duration::from_secs(2);

/// A rule that was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    pub at: Duration,
    pub session: Option<usize>,
    pub rule: &'static str,
    pub text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, session, rule, text } = self;
        match session {
            Some(session) => write!(f, "{at:?} session {session}: {rule}: {text}"),
            None => write!(f, "{at:?} all: {rule}: {text}"),
        }
    }
}

/// The state of a session at the last step before its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Snapshot {
    /// The start of the client's unacknowledged bytes, and whether no more could be written to it.
    pub unacked_since: Option<Duration>,
    pub is_full: bool,
    /// The start of the client's frame under way.
    pub inside_since: Option<Duration>,
    /// The start of the proxy's frame to the client under way.
    pub out_inside_since: Option<Duration>,
    /// The end of the time in which the app took nothing.
    pub app_full_until: Option<Duration>,
}

/// One session with the policy that its route had when it opened.
pub struct Case<'a> {
    pub record: &'a SessionRecord,
    pub policy: &'a Policy,
    pub opened: Duration,
    pub now: Duration,
    pub before: Snapshot,
    pub proxy: &'a Proxy,
}

/// The judge of one world.
pub struct Judge {
    proxy: Rc<Proxy>,
    snapshots: BTreeMap<usize, Snapshot>,
    failures: Vec<Failure>,
    /// Sessions whose end has been judged.
    judged: BTreeMap<usize, bool>,
}

impl Judge {
    pub fn new(proxy: Rc<Proxy>) -> Self {
        Self { proxy, snapshots: BTreeMap::new(), failures: Vec::new(), judged: BTreeMap::new() }
    }

    /// Checks the world at a quiet point between two steps.
    pub fn step(&mut self, now: Duration) {
        let proxy = Rc::clone(&self.proxy);
        for record in proxy.sessions.values() {
            let Some(opened) = record.opened.get() else { continue };
            let before = self.snapshots.get(&record.number).copied().unwrap_or_default();
            let case = Case { record, policy: policy_of(&proxy, record), opened, now, before, proxy: &proxy };
            let mut failures = Vec::new();
            if record.is_running() {
                if case.end_began().is_none() {
                    failures.extend(case.late());
                    self.snapshots.insert(record.number, case.snapshot());
                } else {
                    failures.extend(case.end_takes_too_long());
                }
            }
            let endings = record.endings();
            if let Some((at, ending)) = endings.first()
                && self.judged.insert(record.number, true).is_none()
            {
                failures.extend(case.has_no_cause(*at, ending));
            }
            failures.extend(case.misreported(&endings));
            self.report(now, Some(record.number), failures);
        }
        let failures = reports::registry(&proxy, now);
        self.report(now, None, failures);
    }

    /// Checks the world when everything is over; returns all rules that were broken.
    pub fn finish(mut self, now: Duration) -> Vec<Failure> {
        let proxy = Rc::clone(&self.proxy);
        for record in proxy.sessions.values() {
            for (name, end) in [("client", &record.client_end), ("app", &record.app_end)] {
                let faults =
                    end.borrow().faults.iter().take(2).map(|fault| ("bytes", format!("{name}: {fault}"))).collect();
                self.report(now, Some(record.number), faults);
            }
            let Some(opened) = record.opened.get() else { continue };
            let before = self.snapshots.get(&record.number).copied().unwrap_or_default();
            let case = Case { record, policy: policy_of(&proxy, record), opened, now, before, proxy: &proxy };
            let mut failures = Vec::new();
            if record.is_running() {
                failures.push(("never ended", format!("opened at {opened:?}")));
            } else {
                failures.extend(case.undelivered());
                failures.extend(case.wrong_codes());
            }
            self.report(now, Some(record.number), failures);
        }
        if proxy.memory.total() > 0 {
            let text = format!("{} bytes are held when no session is left", proxy.memory.total());
            self.report(now, None, vec![("memory", text)]);
        }
        self.failures
    }

    /// Keeps the first failure of each rule for each session.
    fn report(&mut self, at: Duration, session: Option<usize>, failures: Vec<(&'static str, String)>) {
        for (rule, text) in failures {
            if !self.failures.iter().any(|known| known.session == session && known.rule == rule) {
                self.failures.push(Failure { at, session, rule, text });
            }
        }
    }
}

/// Returns the policy that was in force on the session's route when it opened.
fn policy_of<'a>(proxy: &'a Proxy, record: &SessionRecord) -> &'a Policy {
    let generations = &proxy.plan.generations;
    let reloads = record.reloads_before.get();
    &generations[reloads.min(generations.len() - 1)][proxy.plan.session(record.number).route]
}

impl Case<'_> {
    fn snapshot(&self) -> Snapshot {
        let client = self.record.client.borrow();
        Snapshot {
            unacked_since: client.unacked_since,
            is_full: client.full_since.is_some(),
            inside_since: client.inside_since,
            out_inside_since: client.out_inside_since,
            app_full_until: self.record.app.borrow().full_until(self.now),
        }
    }

    /// Returns the time at which the end of the session began, as far as the wire shows it.
    fn end_began(&self) -> Option<Duration> {
        let (client, app) = (self.record.client.borrow(), self.record.app.borrow());
        [client.peer_end(), client.own_end(), app.peer_end(), app.own_end()].into_iter().flatten().min()
    }

    /// Returns the time of the first order to the session that `is_meant`.
    fn ordered(&self, is_meant: impl Fn(&SessionOrder) -> bool) -> Option<Duration> {
        self.record.orders.borrow().iter().find(|(_, order)| is_meant(order)).map(|(at, _)| *at)
    }

    /// Returns what the stops of the proxy's process add to a time that began at `since`: their length, and a fresh
    /// window once.
    fn stopped(&self, since: Duration) -> Duration {
        let policy = self.policy;
        let fresh = policy.interval.max(policy.window.unwrap_or_default()).max(policy.timeout);
        match self.proxy.process.stopped_between(since, self.now) {
            Duration::ZERO => Duration::ZERO,
            stopped => stopped + fresh,
        }
    }

    /// Returns the time of an operator's order from which on nothing of the client is read.
    fn plays_dead_from(&self) -> Option<Duration> {
        self.ordered(|order| matches!(order, SessionOrder::PlayDead))
    }
}
