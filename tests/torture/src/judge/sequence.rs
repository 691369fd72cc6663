//! Both directions: the received frames must equal the sent ones, and be complete unless a cut has an explanation.

use std::time::{Duration, Instant};

use super::{Case, Promise};
use crate::endpoint::{ASKED, BEAT};
use crate::frame::{CLOSE, CONTINUATION, Frame, PING, PONG, TEXT};
use crate::plan::{Fate, Heartbeat, Mode, Step};
use crate::trace::{Sent, Trace};

pub(super) fn judge(case: &mut Case<'_>) {
    up(case);
    down(case);
}

fn payloads<'a>(frames: impl Iterator<Item = &'a Frame>, opcode: u8) -> Vec<&'a [u8]> {
    frames.filter(|frame| frame.opcode() == opcode).map(|frame| &*frame.payload).collect()
}

fn sent(trace: &Trace, opcode: u8) -> Vec<&[u8]> {
    payloads(trace.sent.iter().map(|sent| &sent.frame), opcode)
}

/// Returns the Pings that `from` did not send: the proxy's own.
fn foreign<'a>(received: &'a Trace, from: &Trace) -> Vec<&'a [u8]> {
    let own = sent(from, PING);
    let mut pings = payloads(received.received.iter().map(|(frame, _)| frame), PING);
    pings.retain(|payload| !own.contains(payload));
    pings
}

fn is_text(frame: &Frame, text: &str) -> bool {
    frame.opcode() == TEXT && frame.first & 0x80 != 0 && frame.payload == text.as_bytes()
}

/// Returns true if a Close is relayed from one end to the other. If the proxy ends the session, each end answers its
/// Close.
fn keeps_closes(case: &Case<'_>) -> bool {
    matches!(case.fate(), Fate::ClientClose | Fate::AppClose)
}

fn swallows_beats(beat: &Heartbeat) -> bool {
    matches!(beat.mode, Mode::App | Mode::Answer)
}

fn up(case: &mut Case<'_>) {
    let (client, app) = (&case.seen.client, &case.seen.app);
    let (probes, questions) = (foreign(client, app), sent(app, PING));
    let newest = case.session.client.newest_only;
    let skipped = |frame: &Frame| newest && frame.opcode() == PONG && questions.contains(&&*frame.payload);
    let swallowed = |frame: &Frame| {
        frame.opcode() == PONG && probes.contains(&&*frame.payload)
            || swallows_beats(&case.session.beat) && is_text(frame, BEAT)
            || case.session.beat.answers_pings && frame.opcode() == PING
            || skipped(frame)
    };
    // If the client received a Ping of the app twice, it answers twice, and the app's one Ping has one Pong.
    let mut owed = questions.clone();
    let mut is_surplus = |frame: &Frame| {
        let is_answer = frame.opcode() == PONG && questions.contains(&&*frame.payload);
        let place = owed.iter().position(|payload| *payload == frame.payload);
        is_answer && place.map(|place| owed.swap_remove(place)).is_none()
    };
    let mut expected = Vec::new();
    for sent in &client.sent {
        let is_close = sent.frame.opcode() == CLOSE;
        if !swallowed(&sent.frame) && !is_surplus(&sent.frame) && (keeps_closes(case) || !is_close) {
            expected.push(sent);
        }
    }
    let own = foreign(app, client);
    let watched = case.session.watched.is_some();
    let stray = app
        .received
        .iter()
        .find(|(frame, _)| frame.opcode() == PING && own.contains(&&*frame.payload) && (!watched || frame.length != 8));
    let stray = stray.map(|(frame, _)| format!("the app was asked {frame:?}, which no client sent"));
    let closes = keeps_closes(case) && client.sent.iter().any(|sent| sent.frame.opcode() == CLOSE);
    let actual: Vec<_> = app
        .received
        .iter()
        .filter(|(frame, _)| !(frame.opcode() == PING && own.contains(&&*frame.payload)))
        .filter(|(frame, _)| !skipped(frame))
        .filter(|(frame, _)| closes || frame.opcode() != CLOSE)
        .collect();
    let odd = app
        .received
        .iter()
        .find(|(frame, _)| frame.opcode() == PONG && skipped(frame) && !questions.contains(&&*frame.payload));
    let odd = odd.map(|(frame, _)| format!("the app received {frame:?}, which answers nothing"));
    let complete = matches!(
        case.fate(),
        Fate::ClientClose | Fate::AppClose | Fate::ClientFin | Fate::ClientInvalid | Fate::ClientBlocks | Fate::Drained
    ) || case.fate() == Fate::ClientDies && !case.session.client.steps.contains(&Step::Vanish);
    // The Pong after a torrent may be too late, and the bytes that were not read by then are lost with it.
    let is_too_late = case.fate() == Fate::ClientDies && super::is_torrent(case);
    let complete = complete && app.violation.is_none() && !super::outlasts_its_close(case) && !is_too_late;
    let expected: Vec<_> = expected.iter().map(|sent| (&sent.frame, sent.done)).collect();
    let (expected, actual) =
        if swallows_beats(&case.session.beat) { (hoist(expected), hoist(actual)) } else { (expected, actual) };
    let found = compare(&expected, &actual, complete);
    for text in [stray, odd].into_iter().flatten() {
        case.fault(Promise::Bytes, text);
    }
    report(case, "client to app", found);
}

fn down(case: &mut Case<'_>) {
    let (client, app) = (&case.seen.client, &case.seen.app);
    let watch = foreign(app, client);
    let expected: Vec<_> = app
        .sent
        .iter()
        .filter(|sent| !(sent.frame.opcode() == PONG && watch.contains(&&*sent.frame.payload)))
        .filter(|sent| keeps_closes(case) || sent.frame.opcode() != CLOSE)
        .map(|sent| (&sent.frame, sent.done))
        .collect();
    let probes = foreign(client, app);
    let mut faults = Vec::new();
    for (frame, _) in client.received.iter().filter(|(frame, _)| frame.opcode() == PING) {
        if probes.contains(&&*frame.payload) && frame.length != 8 {
            faults.push(format!("the client received {frame:?}, which is neither the app's nor a probe"));
        }
    }
    let may_probe = matches!(case.session.beat.mode, Mode::Protocol | Mode::App);
    if !may_probe && !probes.is_empty() {
        faults.push(format!("the client was pinged {} times in mode {:?}", probes.len(), case.session.beat.mode));
    }
    let closes = keeps_closes(case) && app.sent.iter().any(|sent| sent.frame.opcode() == CLOSE);
    let own_pings = sent(client, PING);
    let mut pings = sent(app, PING);
    let (mut asked_again, mut replies) = (Vec::new(), 0);
    let mut actual = Vec::new();
    for received in &client.received {
        let frame = &received.0;
        let dropped = match frame.opcode() {
            PING if probes.contains(&&*frame.payload) => true,
            PING => match pings.iter().position(|payload| *payload == frame.payload) {
                Some(at) => {
                    asked_again.push(pings.remove(at));
                    false
                }
                None => reissued(case, &mut asked_again, received),
            },
            PONG => case.session.beat.answers_pings && own_pings.contains(&&*frame.payload),
            TEXT if swallows_beats(&case.session.beat) && is_text(frame, ASKED) => {
                replies += 1;
                true
            }
            CLOSE => !closes,
            _ => false,
        };
        if !dropped {
            actual.push(received);
        }
    }
    // No heartbeat message is answered after the app's Close.
    let first_close = app.sent.iter().find(|sent| sent.frame.opcode() == CLOSE).map(|sent| sent.started);
    let beats = || client.sent.iter().filter(|sent| is_text(&sent.frame, BEAT));
    let due = beats()
        .filter(|sent| first_close.is_none_or(|first_close| sent.started + Duration::from_millis(100) < first_close))
        .count();
    let beats = beats().count();
    let lived = matches!(case.fate(), Fate::ClientClose | Fate::AppClose | Fate::Drained);
    if case.session.beat.mode == Mode::Answer && (replies > beats || lived && replies + 1 < due) {
        faults.push(format!("{beats} beats of the client were answered {replies} times"));
    }
    let complete =
        matches!(case.fate(), Fate::ClientClose | Fate::AppClose | Fate::ClientFin | Fate::AppFin | Fate::AppInvalid);
    let complete = complete && client.violation.is_none();
    let found = compare(&expected, &actual, complete);
    let after = |trace: &Trace, leg: &str| {
        let close = trace.received.iter().position(|(frame, _)| frame.opcode() == CLOSE)?;
        let next = trace.received.get(close + 1)?;
        Some(format!("the {leg} received {:?} after a Close", next.0))
    };
    faults.extend(after(client, "client"));
    faults.extend(after(app, "app"));
    for (trace, leg) in [(client, "client"), (app, "app")] {
        faults.extend(trace.violation.map(|violation| {
            let by_plan = matches!(case.fate(), Fate::ClientInvalid | Fate::AppInvalid);
            if by_plan { String::new() } else { format!("the {leg} received {violation}") }
        }));
    }
    faults.retain(|text| !text.is_empty());
    for text in faults {
        case.fault(Promise::Bytes, text);
    }
    report(case, "app to client", found);
}

/// Returns true if a Ping of the app may reach the client a second time: once, if the client had not answered it half a
/// timeout before (it answers the newest only, or has closed).
fn reissued(case: &Case<'_>, once: &mut Vec<&[u8]>, (frame, at): &(Frame, Instant)) -> bool {
    let half = Duration::from_millis(case.session.beat.timeout / 2);
    let answers = |sent: &Sent| sent.frame.opcode() == PONG && sent.frame.payload == frame.payload;
    let in_time = |sent: &Sent| sent.done.is_some_and(|done| done + half < *at);
    let place = once.iter().position(|payload| *payload == frame.payload);
    let answered = case.seen.client.sent.iter().any(|sent| answers(sent) && in_time(sent));
    // An answer may be unread in a proxy that was stopped.
    if case.session.client.newest_only || case.batch.stopped.is_some() {
        return true;
    }
    place.is_some_and(|place| {
        once.remove(place);
        !answered
    })
}

/// Moves control frames between the fragments of a text message before it: a message that may be a heartbeat is held
/// until its last fragment decides, and a control frame passes meanwhile.
fn hoist<T: Framed>(frames: Vec<T>) -> Vec<T> {
    let mut ordered = Vec::with_capacity(frames.len());
    let mut message = Vec::new();
    for item in frames {
        let frame = item.frame();
        let (opcode, is_last) = (frame.opcode(), frame.first & 0x80 != 0);
        match opcode {
            TEXT if !is_last => message.push(item),
            CONTINUATION if !message.is_empty() => {
                message.push(item);
                if is_last {
                    ordered.append(&mut message);
                }
            }
            _ => ordered.push(item),
        }
    }
    ordered.append(&mut message);
    ordered
}

/// An item with a frame.
trait Framed {
    fn frame(&self) -> &Frame;
}

impl Framed for &(Frame, Instant) {
    fn frame(&self) -> &Frame {
        &self.0
    }
}

impl Framed for (&Frame, Option<Instant>) {
    fn frame(&self) -> &Frame {
        self.0
    }
}

/// A difference between the sent and the received frames.
enum Difference {
    /// The rest is missing, or a Close is in its place.
    Cut(String),
    /// Another frame was received.
    Other(String),
}

fn report(case: &mut Case<'_>, direction: &str, found: Option<Difference>) {
    match found {
        Some(Difference::Cut(text)) => case.cut(format!("{direction}: {text}")),
        Some(Difference::Other(text)) => case.fault(Promise::Bytes, format!("{direction}: {text}")),
        None => {}
    }
}

/// Returns the first difference between the sent and the received frames.
fn compare(expected: &[(&Frame, Option<Instant>)], actual: &[&(Frame, Instant)], complete: bool) -> Option<Difference> {
    let differs =
        |frame: &Frame, text| if frame.opcode() == CLOSE { Difference::Cut(text) } else { Difference::Other(text) };
    let (mut at, mut used) = (0, 0);
    for (index, (frame, _)) in actual.iter().enumerate() {
        // Equal tiny messages are counted; the two ends may have split their counts differently.
        let mut wanted = frame.repeats;
        while wanted > 0 {
            match expected.get(at) {
                Some((sent, _)) if sent.is_like(frame) => {
                    let taken = wanted.min(sent.repeats - used);
                    (wanted, used) = (wanted - taken, used + taken);
                    if used == sent.repeats {
                        (at, used) = (at + 1, 0);
                    }
                }
                Some((sent, _)) => {
                    let text = format!("frame {index} is {frame:?}, and {sent:?} was sent (or its payload differs)");
                    return Some(differs(frame, text));
                }
                None => return Some(differs(frame, format!("frame {index}, {frame:?}, was never sent"))),
            }
        }
    }
    let all: u64 = expected.iter().map(|(frame, _)| frame.repeats).sum();
    let missing: u64 = expected[at..].iter().filter(|(_, done)| done.is_some()).map(|(frame, _)| frame.repeats).sum();
    let missing = if expected.get(at).is_some_and(|(_, done)| done.is_some()) { missing - used } else { missing };
    if complete && missing > 0 {
        let first = expected[at..].iter().find(|(_, done)| done.is_some()).map(|(frame, _)| frame);
        return Some(Difference::Cut(format!("{missing} of {all} frames are missing, from {first:?} on")));
    }
    None
}
