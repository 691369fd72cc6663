//! The two promises: no live client is closed, and a dead one is closed within its bound.

use std::time::{Duration, Instant};

use super::{Case, Promise, SLACK};
use crate::frame::{BINARY, PING, TEXT};
use crate::plan::{Fate, Mode, Step};
use crate::trace::Trace;

pub(super) fn judge(case: &mut Case<'_>) {
    if case.fate().is_death() {
        dead(case);
    } else if case.fate() == Fate::AppFreezes {
        frozen(case);
    } else {
        live(case);
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Returns the time at which the proxy could see the last sign of life.
fn last_sign(case: &Case<'_>) -> Option<Instant> {
    let client = &case.seen.client;
    let died = client.died?;
    let written = died.max(client.last_write.unwrap_or(died)) + ms(case.plan.link.delay);
    // Bytes that are cut into small pieces, or written faster than they are read, arrive after the last of them was
    // written.
    let is_late = case.plan.link.piece > 0 || super::is_torrent(case);
    let arrived = case.seen.app.received.iter().rev().find(|(frame, _)| matches!(frame.opcode(), TEXT | BINARY));
    Some(arrived.filter(|_| is_late).map_or(written, |(_, at)| written.max(*at)))
}

fn dead(case: &mut Case<'_>) {
    let beat = &case.session.beat;
    let (client, app) = (&case.seen.client, &case.seen.app);
    let (since, bound) = if case.fate() == Fate::ClientTrickles {
        // The last frame that was begun is the one that never ends.
        let Some(begun) = client.sent.iter().rev().find(|sent| sent.done.is_none()).or(client.sent.last()) else {
            return;
        };
        (begun.started, beat.frame_max_time + beat.bound() + beat.timeout)
    } else {
        let Some(since) = last_sign(case) else {
            return case.fault(Promise::Live, "the session ended before its client died".to_owned());
        };
        (since, beat.bound())
    };
    let app_slow: u64 =
        case.session.app.steps.iter().map(|step| if let Step::Slow { millis, .. } = step { *millis } else { 0 }).sum();
    // With more bytes in transit to the client than its socket takes, `write_stall` applies.
    let backlog = super::has_backlog(case) || case.fate() == Fate::ClientBlocks;
    let stalled = if backlog { beat.write_stall + 2 * beat.timeout + beat.interval } else { 0 };
    let blocked = if case.fate() == Fate::ClientBlocks { beat.write_stall + 1000 } else { 0 };
    let guard = if beat.stall_guard < 2000 { beat.timeout } else { 0 };
    let stop = case.stop_after(since);
    let stop = if stop.is_zero() { stop } else { stop + ms(beat.timeout) };
    // After the last whole frame of a torrent the kernels may hold some megabytes.
    let queued = if super::is_torrent(case) { 500 } else { 0 };
    let allowed = ms(bound + app_slow + stalled + blocked + guard + queued) + stop + SLACK;
    let over = |at: Instant| at.saturating_duration_since(since);
    let (app_end, client_end) = (app.first_end(), client.gone());
    let late = case.batch.clock.late(since, since + allowed);
    let allowed = allowed + late.min(ms(1000));
    let mut texts = Vec::new();
    let mut endless = Vec::new();
    match app_end {
        Some(at) if over(at) <= allowed => {}
        Some(at) => {
            texts
                .push((at, format!("the app's leg of a dead client ended {:?} after its last sign of life", over(at))));
        }
        None => endless.push("the app's leg of a dead client never ended"),
    }
    let grace = ms(beat.close_grace) + SLACK;
    match client_end {
        Some(at) if over(at) <= allowed + grace => {}
        Some(at) => texts.push((at, format!("a dead client's leg ended {:?} after its last sign of life", over(at)))),
        None if case.plan.sessions.len() > 1 || case.fate() == Fate::ClientBlocks => {}
        None if super::is_out_of_reach(case) => {}
        None if case.plan.transport != crate::plan::Transport::Http1 => {}
        None => endless.push("a dead client's leg never ended"),
    }
    if let Some(at) = app_end.filter(|at| over(*at) + ms(beat.interval.min(beat.timeout)) < Duration::from_nanos(1)) {
        texts.push((at, "the session ended before its client died".to_owned()));
    }
    for (to, text) in texts {
        let text = format!("{text}; {allowed:?} are allowed (interval {}, timeout {})", beat.interval, beat.timeout);
        case.timed(Promise::Dead, since, to, text);
    }
    for text in endless {
        case.endless(Promise::Dead, since, allowed + ms(2000), text);
    }
}

fn frozen(case: &mut Case<'_>) {
    let Some((interval, timeout, give_up)) = case.session.watched else { return };
    let Some(died) = case.seen.app.died else {
        return case.fault(Promise::Live, "the session ended before its app froze".to_owned());
    };
    let stop = case.stop_after(died);
    let noticed = ms(interval + timeout) + SLACK + stop * 2;
    let logged = case.batch.log.iter().find(|(at, line)| {
        let about = line["upstream"].as_str().is_some_and(|url| url.contains(&case.app.to_string()));
        let message = line["message"].as_str().unwrap_or_default();
        about && *at >= died && matches!(message, "upstream.unresponsive" | "upstream.unreachable")
    });
    let logged = logged.map(|(at, _)| *at);
    match logged {
        Some(at) if at <= died + noticed => {}
        Some(at) => {
            case.timed(
                Promise::Cause,
                died,
                at,
                format!("the frozen app was noticed after {:?}; {noticed:?} are allowed", at - died),
            );
        }
        None => case.timed(Promise::Cause, died, died + noticed, "the frozen app was never noticed"),
    }
    let allowed = ms(interval + timeout + give_up) + SLACK + stop * 2 + ms(timeout);
    match case.seen.client.first_end() {
        Some(at) if at <= died + allowed => {}
        at => {
            let took = at.map(|at| at - died);
            case.timed(
                Promise::Dead,
                died,
                died + allowed,
                format!("the client of a frozen app got its end after {took:?}; {allowed:?} are allowed"),
            );
        }
    }
}

/// Checks a session that the proxy ended although its client lived.
fn live(case: &mut Case<'_>) {
    let Some((ended, reason)) = verdict_of_proxy(case) else { return };
    let client = &case.seen.client;
    let start = client.opened.unwrap_or(client.start);
    match excuse(case, client, ended) {
        None => case.timed(Promise::Live, start, ended, format!("a live client was ended: {reason}")),
        Some(excuse) => {
            let text = format!("a client was ended ({reason}) that was not provably alive: {excuse}");
            case.fault(Promise::Live, text);
            if let Some(fault) = case.faults.last_mut() {
                fault.excused = true;
            }
        }
    }
    // All consequences of an early end have the same excuse.
    if let Some(fault) = case.faults.last().filter(|fault| fault.excused) {
        case.doubt = Some(fault.text.clone());
    }
}

/// Returns the time and the reason of an end by the proxy's heartbeat, from its log or from the Closes on the wire.
fn verdict_of_proxy(case: &Case<'_>) -> Option<(Instant, String)> {
    let beats = |reason: &str| matches!(reason, "heartbeat_timeout" | "slow_reader" | "trickle");
    let logged = case.batch.log.iter().find(|(_, line)| line["message"] == "ws.close" && line["url.path"] == case.path);
    if let Some((at, line)) = logged
        && let Some(reason) = line["close.reason"].as_str().filter(|reason| beats(reason))
    {
        return Some((*at, format!("{reason} in the log")));
    }
    let (client, app) = (&case.seen.client, &case.seen.app);
    let sent = |trace: &Trace| {
        trace.closes().into_iter().find(|(_, reason)| reason == "heartbeat timeout" || reason == "slow reader")
    };
    let close = sent(client).or_else(|| sent(app))?;
    let at = client.first_end().or_else(|| app.first_end())?;
    Some((at, format!("{close:?} on the wire")))
}

/// Returns a reason to doubt that the client was alive: a probe that it did not answer within half its timeout.
fn excuse(case: &Case<'_>, client: &Trace, ended: Instant) -> Option<String> {
    let half = ms(case.session.beat.timeout / 2);
    if matches!(case.session.beat.mode, Mode::Answer | Mode::Passive) {
        let window = ms(case.session.beat.window);
        let mut last = client.opened?;
        for done in client.sent.iter().filter_map(|sent| sent.done).chain([ended]) {
            if done.saturating_duration_since(last) > window / 2 + half {
                return Some(format!("it was silent from +{} to +{}", client.ms(last), client.ms(done)));
            }
            last = done;
        }
        return None;
    }
    for (_, asked) in client.received.iter().filter(|(frame, at)| frame.opcode() == PING && *at + half < ended) {
        let answered = client
            .answers
            .iter()
            .any(|answer| answer.asked == *asked && answer.done.is_some_and(|done| done <= *asked + half));
        // In the middle of a frame of its own, the client's bytes are its signs of life.
        let busy = client
            .sent
            .iter()
            .any(|sent| sent.started <= *asked + half && sent.done.is_none_or(|done| done + half >= *asked));
        let closing = client.closed().is_some() || client.finished.is_some_and(|at| at <= *asked + half);
        if !answered && !busy && !closing && !case.session.client.newest_only {
            return Some(format!("the Ping of +{} was not answered within {half:?}", client.ms(*asked)));
        }
    }
    None
}
