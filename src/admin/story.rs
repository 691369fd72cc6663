//! A session's story in sentences: how it opened, what its heartbeat does, what is held, what comes next or how it ended,
//! and the sessions of the same address around it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::session_view::{Row, ViewClock};
use crate::drain::DrainPhase;
use crate::heartbeat::{Awaited, Liveness, Mode, Policy, ProofOfLife, Selected};
use crate::registry::ClosedSession;
use crate::session::{ClientAddress, Ending, Initiator, LiveStats, SessionFacts, Traffic, close_summary, span};

/// No Close came or went (RFC 6455 §7.1.5).
const NO_CLOSE: u16 = 1006;
/// A Close without a code.
const EMPTY_CLOSE: u16 = 1005;

/// One paragraph of the story.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Paragraph {
    /// Its subject, in a word or two.
    topic: &'static str,
    /// Whole sentences.
    text: String,
}

/// The facts that the story needs besides the session itself.
pub(super) struct Surroundings<'a> {
    /// The generation of the configuration.
    pub(super) generation: u64,
    /// The drain's phase.
    pub(super) phase: DrainPhase,
    /// The address's sessions that opened earlier, newest first.
    pub(super) before: &'a [Row],
    /// Those that opened later, oldest first.
    pub(super) after: &'a [Row],
}

/// Returns the story of `row`.
pub(super) fn of(row: &Row, around: &Surroundings<'_>, clock: ViewClock) -> Vec<Paragraph> {
    let facts = row.facts();
    let mut story = vec![
        Paragraph { topic: "state", text: state(row, clock) },
        Paragraph { topic: "opened", text: opened(facts, row.opened_at(), around.generation, clock) },
        Paragraph { topic: "heartbeat", text: heartbeat(&facts.heartbeat) },
    ];
    match row {
        Row::Live(_, figures) => story.extend([
            Paragraph { topic: "round trips", text: round_trips(figures, &facts.heartbeat.policy) },
            Paragraph {
                topic: "traffic",
                text: traffic(figures.from_client, figures.from_upstream) + &last_byte(figures, clock),
            },
            Paragraph { topic: "held", text: held(figures, &facts.heartbeat.policy) },
            Paragraph { topic: "next", text: next(figures, &facts.heartbeat.policy, around.phase, clock) },
        ]),
        Row::Closed(closed) => {
            let ending = &closed.ending;
            story.extend([
                Paragraph { topic: "round trips", text: last_round_trips(ending) },
                Paragraph { topic: "traffic", text: traffic(ending.from_client, ending.from_upstream) },
                Paragraph { topic: "end", text: end(closed) },
                Paragraph { topic: "client", text: client_end(ending) },
                Paragraph { topic: "app", text: app_end(ending) },
            ]);
        }
    }
    story.extend([
        Paragraph { topic: "before", text: before(row, around.before) },
        Paragraph { topic: "after", text: after(row, around.after) },
    ]);
    story
}

fn state(row: &Row, clock: ViewClock) -> String {
    let id = row.id();
    match row {
        Row::Live(live, figures) => {
            let state = if figures.closing { "closing" } else { "open" };
            format!("Connection {id} is {state}, and {} old.", span(clock.since(live.opened)))
        }
        Row::Closed(closed) => {
            format!("Connection {id} closed {} ago.", span(clock.since_time(closed.closed_at)))
        }
    }
}

/// The time of day in UTC, to the second.
fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

fn opened(facts: &SessionFacts, at: SystemTime, generation: u64, clock: ViewClock) -> String {
    let request = &facts.request;
    let http = if request.protocol == "h2" { "HTTP/2" } else { "HTTP/1.1" };
    let tls = match (facts.tls_version, facts.tls_group) {
        (Some(version), Some(group)) => format!("with TLS {version} ({group})"),
        (Some(version), None) => format!("with TLS {version}"),
        (None, _) => "without TLS".to_owned(),
    };
    let name = request.server_name.as_deref().map(|name| format!(" at {name}")).unwrap_or_default();
    let route = &request.route;
    let host = route.host.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut text = format!(
        "Opened at {}, {} ago, by {} over {http} {tls}, for {}{name}. Route {host}{} leads to the app at {}.",
        time(at),
        span(clock.since_time(at)),
        request.client,
        request.path,
        route.path,
        route.upstream,
    );
    if matches!(request.client, ClientAddress::Forwarded(_)) {
        text.push_str(" A trusted proxy reported the address.");
    }
    let mut more = |words: String| {
        // Writing to a string does not fail.
        let _ = write!(text, " {words}.");
    };
    if let Some(subprotocol) = &facts.subprotocol {
        more(format!("Subprotocol {subprotocol}"));
    }
    more(match &request.user_agent {
        Some(agent) => format!("User agent {agent:?}"),
        None => "No user agent".to_owned(),
    });
    if let Some(trace) = &request.trace_id {
        more(format!("Trace {trace}"));
    }
    let own = facts.config_generation;
    more(if own == generation {
        format!("Configuration generation {own}, the one in force")
    } else {
        format!("Configuration generation {own}; {generation} is in force for new sessions")
    });
    text
}

fn heartbeat(picked: &Selected) -> String {
    let policy = &*picked.policy;
    let mode = match policy.mode.profile() {
        Some(profile) => format!("mode {}, profile {}", policy.mode.as_str(), profile.name),
        None => format!("mode {}", policy.mode.as_str()),
    };
    let mut text = format!("{} ({mode}).", does(policy));
    if policy.mode.profile().is_some_and(|profile| profile.start_after.is_some()) {
        text.push_str(" The client is pinged until `start_after` has passed.");
    }
    if policy.mode.profile().is_some_and(|profile| profile.handshake.is_some()) && policy.window.is_none() {
        text.push_str(" The protocol's own handshake may agree on another window.");
    }
    text.push_str(match policy.liveness {
        Liveness::AnyBytes => "",
        Liveness::AnyFrame => " Only complete frames are signs of life.",
        Liveness::PongOnly => " Only answers to the heartbeat are signs of life.",
    });
    if let Some(why) = picked.why {
        let _ = write!(text, " Selected by the upgrade ({why}).");
    }
    if let Some(degraded) = picked.degraded {
        let _ = write!(text, " Limited ({degraded}).");
    }
    text
}

/// Describes the heartbeat and the time after which it ends the session; without a full stop.
fn does(policy: &Policy) -> String {
    let (interval, timeout) = (span(policy.interval), span(policy.timeout));
    let most = policy.max_missed;
    let bound = span(policy.interval + policy.timeout * most);
    let asked = |probe: &str, answer: &str| {
        let misses = if most == 1 { "one miss ends".to_owned() } else { format!("{most} misses in a row end") };
        format!(
            "After {interval} without a byte from the client {probe}, then {timeout} for {answer} or any other sign of \
             life; {misses} the session, within {bound} of the last byte"
        )
    };
    match (&policy.mode, policy.proof()) {
        (Mode::Off, _) | (_, None) => "No heartbeat: a silent client is not detected".to_owned(),
        (Mode::Protocol, _) | (Mode::Passive(_), Some(ProofOfLife::Pongs)) => asked("a ping", "the pong"),
        (Mode::App(_), _) => asked("the proxy sends the heartbeat message", "the client's answer"),
        (Mode::Answer(_), Some(proof)) => {
            let window = span(proof.window().unwrap_or_default());
            format!("The client sends heartbeats and the proxy answers them; {window} without one end the session")
        }
        (Mode::Passive(_), Some(ProofOfLife::Answers)) => {
            format!("The app sends heartbeats; the client has {timeout} to answer each of them")
        }
        (Mode::Passive(_), Some(ProofOfLife::Sends(window))) => {
            format!("The client sends heartbeats to the app; {} without one end the session", span(window))
        }
        (Mode::Passive(_), Some(ProofOfLife::SendsWhenIdle(window))) => format!(
            "The client sends heartbeats to the app when both sides are quiet; {} of silence end the session",
            span(window)
        ),
        (Mode::Passive(_), Some(ProofOfLife::SendsAfterApp(window))) => format!(
            "The client sends heartbeats to the app; {} without one after a message of the app end the session",
            span(window)
        ),
    }
}

fn round_trips(figures: &LiveStats, policy: &Policy) -> String {
    let measured = match (figures.rtt, figures.rtt_min) {
        (Some(last), Some(shortest)) => format!("The last took {}, the shortest {}; ", span(last), span(shortest)),
        _ => "None measured yet; ".to_owned(),
    };
    format!(
        "{measured}{} of {} probes answered, {}, {} of {} in a row.",
        figures.pongs,
        figures.pings,
        missed(figures.missed),
        figures.misses,
        policy.max_missed,
    )
}

fn last_round_trips(ending: &Ending) -> String {
    let figures = &ending.heartbeat;
    let measured = match figures.rtt_last {
        Some(last) => format!("The last took {}; ", span(last)),
        None => "None measured; ".to_owned(),
    };
    format!("{measured}{} of {} answered, {}.", figures.pongs, plural(figures.pings, "probe"), missed(figures.missed))
}

fn missed(windows: u64) -> String {
    format!("{} missed", plural(windows, "window"))
}

fn traffic(from_client: Traffic, from_app: Traffic) -> String {
    let flow = |traffic: Traffic| format!("{} ({})", plural(traffic.messages, "message"), bytes(traffic.bytes));
    format!("From the client {}, from the app {}.", flow(from_client), flow(from_app))
}

fn last_byte(figures: &LiveStats, clock: ViewClock) -> String {
    match figures.from_client.bytes {
        0 => " The client has sent nothing since the upgrade.".to_owned(),
        _ => format!(" The client's last byte came {} ago.", span(clock.since(figures.last_seen))),
    }
}

fn held(figures: &LiveStats, policy: &Policy) -> String {
    let (to_app, to_client) = (figures.held_to_app as u64, figures.held_to_client as u64);
    let mut text = String::new();
    if to_client > 0 {
        let (held, stall) = (bytes(to_client), span(policy.write_stall));
        let _ = write!(
            text,
            "{held} for the client, which reads more slowly than the app sends; {stall} without progress end the \
             session as slow_reader."
        );
    }
    if to_app > 0 {
        let gap = if text.is_empty() { "" } else { " " };
        let _ = write!(text, "{gap}{} for the app, which reads more slowly than the client sends.", bytes(to_app));
    }
    if text.is_empty() { "Nothing, for either side.".to_owned() } else { text }
}

/// Describes the next action of the proxy if nothing else happens.
fn next(figures: &LiveStats, policy: &Policy, phase: DrainPhase, clock: ViewClock) -> String {
    let due = figures.next_deadline.map(|at| format!("{}, in {}", time(clock.time_of(at)), span(clock.until(at))));
    let due = due.as_deref();
    let mut text = match (figures.closing, figures.awaited, due) {
        (true, _, Some(due)) => format!("The session is ending; what is left of both legs is cut at {due}."),
        (true, _, None) => "The session is ending, as soon as what was accepted is delivered.".to_owned(),
        (false, Awaited::Probe, Some(due)) => {
            let probe = if matches!(policy.mode, Mode::App(_)) { "The heartbeat message" } else { "A ping" };
            format!("{probe} is sent at {due}, unless the client sends something first.")
        }
        (false, Awaited::Gap, Some(due)) => format!(
            "A probe is due and waits behind other bytes; if the client takes none of them, the session ends at {due}."
        ),
        (false, Awaited::Answer, Some(due)) => {
            let misses = figures.misses + 1;
            let then = if misses >= policy.max_missed {
                "the session ends".to_owned()
            } else {
                format!("it is miss {misses} of {}", policy.max_missed)
            };
            format!("A probe is unanswered; without a sign of life until {due}, {then}.")
        }
        (false, Awaited::Beat, Some(due)) => {
            format!("Without a heartbeat of the client until {due}, the session ends.")
        }
        (false, Awaited::App, Some(due)) => {
            format!("The app does not take what the client sends; if that lasts until {due}, the session ends.")
        }
        (false, Awaited::AppProbe, _) => {
            "The app's next heartbeat is awaited; the client has nothing to answer.".to_owned()
        }
        (false, ..) => "Nothing is due.".to_owned(),
    };
    match phase {
        DrainPhase::Serving => {}
        DrainPhase::Announced => text.push_str(" A drain is announced and will close the session."),
        DrainPhase::Draining | DrainPhase::Drained | DrainPhase::Aborting => {
            text.push_str(" The proxy is draining and closes every session.");
        }
    }
    text
}

fn end(closed: &ClosedSession) -> String {
    let ending = &closed.ending;
    let began = match ending.cause.initiator() {
        Initiator::Client => "The client",
        Initiator::Upstream => "The app",
        Initiator::Proxy => "pulsegate",
    };
    let why = close_summary(ending, &closed.facts.heartbeat.policy);
    format!(
        "Ended at {}, after {}: {why}. {began} began it ({}).",
        time(closed.closed_at),
        span(ending.duration),
        ending.cause.reason().as_str()
    )
}

fn client_end(ending: &Ending) -> String {
    leg_end("client", ending.cause.initiator() == Initiator::Client, ending.client_code, &ending.close_reason)
}

fn app_end(ending: &Ending) -> String {
    leg_end("app", ending.cause.initiator() == Initiator::Upstream, ending.upstream_code, &ending.upstream_close_reason)
}

/// The last thing on one leg: the Close that `side` sent, or was sent.
fn leg_end(side: &str, began: bool, code: u16, reason: &str) -> String {
    let close = match (code, reason) {
        (EMPTY_CLOSE, _) => "a Close without a code (1005)".to_owned(),
        (code, "") => format!("Close {code}"),
        (code, reason) => format!("Close {code} {reason:?}"),
    };
    match (code, began) {
        (NO_CLOSE, true) => format!("The {side} sent no Close (1006)."),
        (NO_CLOSE, false) => format!("The {side} received no Close (1006)."),
        (_, true) => format!("The {side} sent {close}."),
        (_, false) => format!("The {side} received {close}."),
    }
}

fn before(row: &Row, before: &[Row]) -> String {
    let address = row.client();
    let Some(last) = before.first() else {
        return format!("No earlier session of {address} is open or remembered.");
    };
    let when = match last.closed_at() {
        Some(at) if at <= row.opened_at() => {
            format!("ended {} before this one opened", span(between(at, row.opened_at())))
        }
        Some(at) => format!("ended {} after this one opened", span(between(row.opened_at(), at))),
        None => format!("opened {} before this one", span(between(last.opened_at(), row.opened_at()))),
    };
    let all = plural(before.len() as u64, "earlier session");
    format!("{all} of {address}{}. The last, {}{}, {when}{}.", tally(before), last.id(), agent(row, last), fate(last))
}

fn after(row: &Row, after: &[Row]) -> String {
    let address = row.client();
    let Some(first) = after.first() else {
        let back = if row.closed_at().is_some() { ": the client has not come back so far" } else { "" };
        return format!("No later session of {address} is open or remembered{back}.");
    };
    let when = match row.closed_at() {
        Some(at) if at <= first.opened_at() => format!("{} after this one ended", span(between(at, first.opened_at()))),
        Some(at) => format!("{} before this one ended", span(between(first.opened_at(), at))),
        None => format!("{} after this one", span(between(row.opened_at(), first.opened_at()))),
    };
    let all = plural(after.len() as u64, "later session");
    format!(
        "{all} of {address}{}. The first, {}{}, opened {when}{}.",
        tally(after),
        first.id(),
        agent(row, first),
        fate(first)
    )
}

/// Counts the sessions among `rows` that have ended, by reason:
/// `, 2 of which ended as heartbeat_timeout and 1 as normal`.
fn tally(rows: &[Row]) -> String {
    let mut reasons = BTreeMap::<&str, usize>::new();
    for row in rows {
        if let Row::Closed(closed) = row {
            *reasons.entry(closed.ending.cause.reason().as_str()).or_default() += 1;
        }
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, count)| Reverse(*count));
    let parts: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} ended as {reason}")).collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

/// Returns whether `other` has the user agent of `row`: one address may stand for many clients.
fn agent(row: &Row, other: &Row) -> &'static str {
    let same = row.facts().request.user_agent == other.facts().request.user_agent;
    if same { "" } else { " (another user agent)" }
}

/// Describes the end of `row`, or states that it is open; continues a sentence.
fn fate(row: &Row) -> String {
    match row {
        Row::Live(..) => " and is open".to_owned(),
        Row::Closed(closed) => {
            let why = close_summary(&closed.ending, &closed.facts.heartbeat.policy);
            format!(", and lived {}: {why}", span(closed.ending.duration))
        }
    }
}

/// The time from `earlier` to `later`.
fn between(earlier: SystemTime, later: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}

/// `1 message`, `2 messages`.
fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A size with one decimal at most: `512 B`, `3.4 KiB`, `120 MiB`.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 3] = ["KiB", "MiB", "GiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    // One decimal, rounded down, as in the tables of `conns`.
    let mut tenths = u128::from(count) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    let (whole, tenth) = (tenths / 10, tenths % 10);
    if whole < 10 { format!("{whole}.{tenth} {}", UNITS[unit]) } else { format!("{whole} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests;
