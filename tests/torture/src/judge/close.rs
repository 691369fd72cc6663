//! The end of a session: Closes, codes, FIN and RST, and the end of both legs.

use std::time::Duration;

use super::{Case, Promise, SLACK};
use crate::plan::{Fate, Heartbeat, Step};
use crate::trace::{End, Trace};

pub(super) fn judge(case: &mut Case<'_>) {
    let (client, app) = (case.seen.client.clone(), case.seen.app.clone());
    for (trace, leg) in [(&client, "client"), (&app, "app")] {
        let closes = trace.closes();
        if let Some((code, _)) = closes.iter().find(|(code, _)| matches!(code, 1006 | 1015) || *code < 1000) {
            case.fault(Promise::Close, format!("the {leg} received a Close with {code}"));
        }
        if closes.len() > 1 {
            case.fault(Promise::Close, format!("the {leg} received {} Closes: {closes:?}", closes.len()));
        }
    }
    expected(case, &client, &app);
    ends(case, &client, &app);
    if let Some(direct) = case.direct.cloned() {
        let length = |trace: &Trace| trace.end.map(|(_, at)| at.saturating_duration_since(trace.start));
        for (seen, oracle, leg) in [(&client, &direct.client, "client"), (&app, &direct.app, "app")] {
            let late = leg == "app" && super::outlasts_its_close(case);
            if seen.closes() != oracle.closes()
                && !late
                && case.fate() != Fate::ClientInvalid
                && case.fate() != Fate::ClientFin
            {
                let text = format!("the {leg} received {:?}, and without a proxy {:?}", seen.closes(), oracle.closes());
                case.fault(Promise::Close, text);
            }
            let (Some(took), Some(without)) = (length(seen), length(oracle)) else { continue };
            let stop = case.batch.stopped.map_or(Duration::ZERO, |(from, to)| to - from);
            // On one HTTP/2 connection all sessions share the link; without a proxy each has its own.
            let shared = if case.plan.sessions.len() > 1 { case.plan.length() } else { 0 };
            let allowed = without * 3 / 2 + Duration::from_millis(2000 + shared) + SLACK + stop * 2;
            if took > allowed {
                let (from, to) = (seen.start, seen.start + took);
                let text = format!("the {leg} saw the end after {took:?}, and without a proxy after {without:?}");
                case.timed(Promise::Close, from, to, text);
            }
        }
    }
}

/// Checks the one Close that each end must have received, where no direct run is the oracle.
fn expected(case: &mut Case<'_>, client: &Trace, app: &Trace) {
    let Heartbeat { miss_client, miss_upstream, .. } = &case.session.beat;
    let (miss_client, miss_upstream) = (miss_client.clone(), miss_upstream.clone());
    let steps = &case.session.client.steps;
    let reads = steps.contains(&Step::Mute) || steps.iter().any(|step| matches!(step, Step::Partial { .. }));
    let partial = app.within_frame;
    let down_partial = client.within_frame;
    let mut want = Vec::new();
    let restart = |reason: &str| Some((1012, reason.to_owned()));
    match case.fate() {
        // A reset discards the bytes that had not left the app, so that a frame may stop in the middle.
        Fate::AppReset if down_partial => {}
        Fate::AppFin | Fate::AppReset => want.push(("client", restart("upstream lost"))),
        Fate::AppFreezes if !down_partial => want.push(("client", restart("upstream unresponsive"))),
        Fate::AppInvalid => want.push(("client", restart("upstream protocol error"))),
        Fate::Drained if !down_partial => want.push(("client", restart("service restart"))),
        Fate::ClientDies => {
            // If the app floods, the end may come in the middle of a frame; the rest of the frame and any Close are
            // lost.
            let is_flooded = case.session.app.steps.iter().any(|step| matches!(step, Step::Torrent { .. }));
            let may_lack = down_partial || is_flooded && client.closes().is_empty();
            if reads && !may_lack {
                want.push(("client", Some(miss_client)));
            }
            want.push(("app", miss_upstream.filter(|_| !partial)));
        }
        _ => {}
    }
    if case.fate() == Fate::ClientInvalid && client.closes().first().map(|(code, _)| *code) != Some(1002) {
        case.fault(Promise::Close, format!("the client broke the protocol and received {:?}", client.closes()));
    }
    for (leg, close) in want {
        let closes = if leg == "client" { client.closes() } else { app.closes() };
        let right = match (&close, closes.first()) {
            (None, None) => true,
            // A slow reader counts as dead for a reason of its own.
            (Some((code, _)), Some((seen, reason))) => {
                code == seen
                    && (reason == &close.as_ref().map(|close| close.1.clone()).unwrap_or_default()
                        || reason == "slow reader")
            }
            _ => false,
        };
        if !right {
            case.fault(Promise::Close, format!("the {leg} received {closes:?} instead of {close:?}"));
        }
    }
}

fn ends(case: &mut Case<'_>, client: &Trace, app: &Trace) {
    let orderly = matches!(
        case.fate(),
        Fate::ClientClose
            | Fate::AppClose
            | Fate::ClientFin
            | Fate::AppFin
            | Fate::ClientInvalid
            | Fate::AppInvalid
            | Fate::Drained
    );
    for (trace, leg) in [(client, "client"), (app, "app")] {
        let own = trace.reset.is_some() || trace.died.is_some() && trace.hung_up.is_some();
        match trace.end {
            Some((End::Fin, _)) => {}
            // Bytes that a slow link carries after the grace are answered by RST.
            Some((end, _)) if orderly && case.plan.link.up == 0 => {
                case.fault(Promise::Close, format!("the {leg} saw {end:?} at the end of an orderly session"));
            }
            Some(_) => {}
            None if own || trace.hung_up.is_some() && !orderly => {}
            None if case.fate() == Fate::ClientBlocks || super::is_out_of_reach(case) => {}
            None => {
                let promise = if case.fate().is_death() { Promise::Dead } else { Promise::Close };
                let since = trace.opened.unwrap_or(trace.start);
                let needed = crate::run::deadline(case.plan) / 2;
                case.endless(promise, since, needed, format!("the {leg}'s connection never ended"));
            }
        }
    }
}
