//! The last line of a session in the log: its codes must be those of the wire, and its reason must be correct.

use std::time::Duration;

use serde_json::Value;

use super::{Case, Promise};
use crate::frame::CLOSE;
use crate::plan::Fate;
use crate::trace::Trace;

pub(super) fn judge(case: &mut Case<'_>) {
    let lines: Vec<Value> = case
        .batch
        .log
        .iter()
        .filter(|(_, line)| line["message"] == "ws.close" && line["url.path"] == case.path)
        .map(|(_, line)| line.clone())
        .collect();
    let [line] = &lines[..] else {
        return case.fault(Promise::Cause, format!("{} ws.close lines of {}", lines.len(), case.path));
    };
    let (initiator, reason) =
        (line["close.initiator"].as_str().unwrap_or("?"), line["close.reason"].as_str().unwrap_or("?"));
    let allowed: &[(&str, &str)] = match case.fate() {
        Fate::ClientClose => &[("client", "normal")],
        // A client that has ended its direction may still be closed by its app.
        Fate::ClientFin | Fate::ClientReset if line["close.code"] != 1006 => &[("client", "normal")],
        Fate::ClientFin | Fate::ClientReset => &[("client", "client_lost")],
        Fate::AppClose => &[("upstream", "normal")],
        Fate::AppFin | Fate::AppReset => &[("upstream", "upstream_lost")],
        Fate::ClientInvalid | Fate::AppInvalid => &[("proxy", "protocol_error")],
        Fate::ClientDies | Fate::ClientBlocks => &[("proxy", "heartbeat_timeout"), ("proxy", "slow_reader")],
        Fate::ClientTrickles => &[("proxy", "trickle")],
        Fate::AppFreezes => &[("proxy", "upstream_lost")],
        Fate::Drained => &[("proxy", "drain")],
    };
    // An end by the heartbeat is judged as the end of a live client.
    let judged = matches!(reason, "heartbeat_timeout" | "slow_reader" | "trickle") && !case.fate().is_death();
    if !allowed.contains(&(initiator, reason)) && !judged {
        case.fault(Promise::Cause, format!("the log says {reason} by {initiator} of {:?}: {line}", case.fate()));
    }
    let (client, app) = (&case.seen.client, &case.seen.app);
    let reads = case.session.client.reads_to_the_end();
    let mut faults = Vec::new();
    if reads {
        faults.extend(codes("client", &line["close.code"], client));
    }
    if !matches!(case.fate(), Fate::AppFreezes | Fate::AppReset) {
        faults.extend(codes("app", &line["upstream.close_code"], app));
    }
    for text in faults {
        case.fault(Promise::Cause, format!("{text}: {line}"));
    }
    let (_, at) = case
        .batch
        .log
        .iter()
        .find(|(_, logged)| logged == line)
        .map_or((0, case.seen.client.start), |(at, _)| (1, *at));
    let ends = [client.gone(), app.gone()].into_iter().flatten().max();
    if let Some(end) = ends.filter(|end| at > *end + Duration::from_secs(3)) {
        case.timed(Promise::Cause, end, at, format!("the last line came {:?} after both legs had ended", at - end));
    }
}

/// Returns a fault unless the logged code of one leg was received or sent by its end, or is 1006 if there was no Close.
fn codes(leg: &str, logged: &Value, trace: &Trace) -> Option<String> {
    let received =
        trace.received.iter().find(|(frame, _)| frame.opcode() == CLOSE).and_then(|(frame, _)| frame.close());
    let sent = trace.closed();
    let all: Vec<u16> = [received, sent].into_iter().flatten().map(|(code, _)| code).collect();
    let logged = logged.as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(0);
    let right = if all.is_empty() { logged == 1006 } else { all.contains(&logged) };
    (!right).then(|| format!("the log says {logged} of the {leg}'s leg, on whose wire were {all:?}"))
}
