//! The verdict: a comparison of the records with the promises.

mod cause;
mod close;
mod sequence;
mod time;

use std::time::{Duration, Instant};

use crate::plan::{Fate, Plan, Session, Step};
use crate::run::{Batch, Outcome, Pair};

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Promise {
    /// Each end receives what the other sent.
    Bytes,
    /// A Close arrives, with its code, and FIN after it.
    Close,
    /// A live client is not torn down.
    Live,
    /// A dead client is gone within its bound.
    Dead,
    /// The log and `/readyz` are correct.
    Cause,
    /// No resource is left.
    Rest,
}

/// A violation.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The promise.
    pub promise: Promise,
    /// The expected and the recorded behaviour.
    pub text: String,
    /// True if a late machine may explain it.
    pub excused: bool,
    /// True if an early end may explain it.
    pub by_end: bool,
}

/// The verdict on a seed.
#[derive(Debug)]
pub struct Verdict {
    /// Faults that count.
    pub faults: Vec<Fault>,
    /// Faults that the lateness of the machine explains.
    pub discarded: Vec<Fault>,
}

/// The tolerance for a busy machine, added to every bound beside the measured lateness.
pub const SLACK: Duration = Duration::from_millis(600);

/// One session, with the data that its judges need.
pub(crate) struct Case<'a> {
    pub(crate) batch: &'a Batch,
    pub(crate) plan: &'a Plan,
    pub(crate) session: &'a Session,
    pub(crate) seen: &'a Pair,
    pub(crate) direct: Option<&'a Pair>,
    pub(crate) path: &'a str,
    pub(crate) app: std::net::SocketAddr,
    pub(crate) faults: Vec<Fault>,
    /// A reason to doubt that client and app were alive on time.
    pub(crate) doubt: Option<String>,
}

impl Case<'_> {
    pub(crate) fn fault(&mut self, promise: Promise, text: impl Into<String>) {
        let by_end = matches!(promise, Promise::Close | Promise::Live | Promise::Cause);
        self.faults.push(Fault { promise, text: text.into(), excused: false, by_end });
    }

    /// Adds a fault for missing bytes, or for a Close in their place.
    pub(crate) fn cut(&mut self, text: impl Into<String>) {
        self.faults.push(Fault { promise: Promise::Bytes, text: text.into(), excused: false, by_end: true });
    }

    /// Adds a fault that a machine that was late between these times may explain.
    pub(crate) fn timed(&mut self, promise: Promise, from: Instant, to: Instant, text: impl Into<String>) {
        let late = self.batch.clock.late(from, to);
        let text = format!("{}; the machine was late by {} ms", text.into(), late.as_millis());
        let excused = late > Duration::from_millis(250);
        self.faults.push(Fault { promise, text, excused, by_end: excused });
    }

    /// Adds a fault for a leg that has not ended by the end of the run. A late machine explains it only if less than
    /// `needed` is left of the time since then without its lateness.
    pub(crate) fn endless(&mut self, promise: Promise, since: Instant, needed: Duration, text: impl Into<String>) {
        let to = self.seen.client.start + crate::run::deadline(self.plan);
        let (seen, late) = (to.saturating_duration_since(since), self.batch.clock.late(since, to));
        let text = format!("{} in {seen:?}; the machine was late by {} ms", text.into(), late.as_millis());
        let excused = seen.saturating_sub(late) < needed;
        // Bytes that trickle while the machine stands still are read at once, and do not count as a trickle.
        let by_end = excused || self.fate() == Fate::ClientTrickles;
        self.faults.push(Fault { promise, text, excused, by_end });
    }

    /// Excuses faults if the machine or an end of the session stood still for so long that its client does not count as
    /// live. This covers all that an early end explains, but not a wrong byte.
    fn excuse_by_doubt(&mut self) {
        let client = &self.seen.client;
        let ends = [client.gone(), self.seen.app.gone()].into_iter().flatten();
        let (from, to) = (client.opened.unwrap_or(client.start), ends.max().unwrap_or_else(Instant::now));
        let still = self.batch.clock.standstill(from, to);
        if still > Duration::from_millis(self.session.beat.timeout / 2) {
            self.doubt.get_or_insert_with(|| format!("the machine stood still for {} ms", still.as_millis()));
        }
        if let Some(doubt) = &self.doubt {
            for fault in self.faults.iter_mut().filter(|fault| fault.by_end && !fault.excused) {
                fault.excused = true;
                fault.text = format!("{} ({doubt})", fault.text);
            }
        }
    }

    /// Returns the time of a stop of the proxy from `from` on.
    pub(crate) fn stop_after(&self, from: Instant) -> Duration {
        self.batch.stopped.map_or(Duration::ZERO, |(_, to)| to.saturating_duration_since(from))
    }

    pub(crate) fn fate(&self) -> Fate {
        self.session.fate
    }
}

/// Returns true if the client's answer may take longer than a closing handshake waits (`timeout`): the app has closed,
/// and the client's link is slow, or the client reads too slowly what the link holds for it.
pub(crate) fn outlasts_its_close(case: &Case<'_>) -> bool {
    let pace = case.session.client.pace;
    let held = if pace == 0 || !case.plan.link.present { 0 } else { crate::link::HELD * 1000 / pace };
    case.fate() == Fate::AppClose && (case.plan.link.up > 0 || held > case.session.beat.timeout / 2)
}

/// Returns the bytes that the socket, or the link before it, takes for an end that does not read.
fn taken_unread(case: &Case<'_>) -> usize {
    if case.plan.link.present { 20_000 } else { 60_000 }
}

/// Returns true if the app sends more than the socket of a client that does not read takes.
pub(crate) fn has_backlog(case: &Case<'_>) -> bool {
    Plan::bytes(&case.session.app) > taken_unread(case)
}

/// Returns true if FIN cannot reach the kernel of an end, or of its link: it takes no more bytes, and its receive
/// buffer is full. The count of descriptors at the end of the batch shows that the proxy has closed its own.
pub(crate) fn is_out_of_reach(case: &Case<'_>) -> bool {
    let is_blind = |step: &Step| matches!(step, Step::Freeze(None) | Step::Vanish | Step::Partial { .. });
    let (client, app) = (&case.session.client, &case.session.app);
    let to_app = Plan::bytes(client) > 60_000 && case.fate() == Fate::AppFreezes;
    to_app && app.steps.iter().any(is_blind) || has_backlog(case) && client.steps.iter().any(is_blind)
}

/// Returns true if the client writes faster than a busy proxy reads.
pub(crate) fn is_torrent(case: &Case<'_>) -> bool {
    case.session.client.steps.iter().any(|step| matches!(step, Step::Torrent { .. }))
}

/// Returns the faults in what the two ends of a session received, for any proxy: bytes, Closes and the end.
pub fn ends_only(batch: &Batch, outcome: &Outcome) -> Vec<Fault> {
    let (Some(session), Some(seen)) = (outcome.plan.sessions.first(), outcome.proxied.first()) else {
        return Vec::new();
    };
    let direct = outcome.direct.first().and_then(Option::as_ref);
    let app = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let mut case =
        Case { batch, plan: &outcome.plan, session, seen, direct, path: "", app, faults: Vec::new(), doubt: None };
    sequence::judge(&mut case);
    close::judge(&mut case);
    case.faults
}

/// Judges one seed of a batch.
pub fn judge(batch: &Batch, outcome: &Outcome) -> Verdict {
    let mut faults = Vec::new();
    for error in &outcome.errors {
        let at = batch.stopped.map_or(0, |(from, to)| (to - from).as_millis());
        // The stages before a session have limits of a second.
        let from = batch.outcomes.iter().flat_map(|outcome| &outcome.proxied).map(|pair| pair.client.start).min();
        let still = from.map_or(Duration::ZERO, |from| batch.clock.standstill(from, Instant::now()));
        faults.push(Fault {
            promise: Promise::Live,
            text: format!("{error} (stop {at} ms; the machine stood still for {} ms)", still.as_millis()),
            excused: still > Duration::from_millis(250),
            by_end: true,
        });
    }
    for (index, session) in outcome.plan.sessions.iter().enumerate() {
        let (Some(seen), Some(path), Some(app)) =
            (outcome.proxied.get(index), outcome.paths.get(index), outcome.apps.get(index))
        else {
            continue;
        };
        let direct = outcome.direct.get(index).and_then(Option::as_ref);
        let mut case = Case {
            batch,
            plan: &outcome.plan,
            session,
            seen,
            direct,
            path,
            app: *app,
            faults: Vec::new(),
            doubt: None,
        };
        if seen.client.opened.is_some() {
            sequence::judge(&mut case);
            close::judge(&mut case);
            time::judge(&mut case);
            cause::judge(&mut case);
            case.excuse_by_doubt();
        } else if outcome.errors.is_empty() {
            case.fault(Promise::Live, format!("the session was not opened: {:?}", seen.client.refused));
        }
        for fault in &mut case.faults {
            fault.text = format!("session {index}: {}", fault.text);
        }
        faults.append(&mut case.faults);
    }
    let (discarded, faults) = faults.into_iter().partition(|fault| fault.excused);
    Verdict { faults, discarded }
}

/// Returns the faults of `/readyz` in a batch: it must be 503 once all apps are frozen, and 200 as long as one answers.
pub fn readiness(batch: &Batch, frozen: bool) -> Vec<String> {
    let first = batch.ready.iter().position(|(_, status)| *status == Some(200));
    let Some(first) = first else { return vec![format!("/readyz was never 200: {:?}", batch.ready.first())] };
    let apps = || batch.outcomes.iter().flat_map(|outcome| outcome.plan.sessions.iter().zip(&outcome.proxied));
    if !frozen {
        // 503 is correct from the drain on.
        let live =
            batch.outcomes.iter().flat_map(|outcome| &outcome.proxied).filter_map(|pair| pair.client.gone()).min();
        let wrong = batch.ready[first..]
            .iter()
            .find(|(at, status)| *status == Some(503) && live.is_some_and(|live| *at < live));
        return wrong.map(|(at, _)| format!("/readyz was 503 at {at:?} although apps answer")).into_iter().collect();
    }
    let Some(last) =
        apps().map(|(_, pair)| pair.app.died).collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max())
    else {
        return Vec::new();
    };
    let longest =
        apps().filter_map(|(session, _)| session.watched).map(|(interval, timeout, _)| interval + timeout).max();
    let bound = Duration::from_millis(longest.unwrap_or(600).max(600)) + SLACK;
    let late = batch.clock.late(last, last + bound);
    let due = last + bound + late;
    let unready = batch.ready[first..].iter().find(|(_, status)| *status == Some(503)).map(|(at, _)| *at);
    match unready {
        Some(at) if at <= due => Vec::new(),
        Some(at) => vec![format!(
            "/readyz was 503 {} ms after the last app froze; {} ms are allowed",
            (at - last).as_millis(),
            (due - last).as_millis()
        )],
        None => vec!["/readyz was never 503 although every app was frozen".to_owned()],
    }
}
