//! Delivery: everything accepted before an end reaches its peer, and so does the Close.

use std::time::Duration;

use pulsegate::relay::SessionOrder;
use pulsegate::session::{EndReason, Initiator};

use super::Case;
use crate::peer::PeerRecord;
use crate::plan::{Behaviour, Link, Reading};
use crate::wire::LegWire;

impl Case<'_> {
    /// Returns messages or a Close that did not arrive at a peer that could take them.
    pub fn undelivered(&self) -> Vec<(&'static str, String)> {
        let mut failures = Vec::new();
        let endings = self.record.endings();
        let Some((_, ending)) = endings.first() else { return failures };
        let (client, app) = (self.record.client.borrow(), self.record.app.borrow());
        let (client_end, app_end) = (self.record.client_end.borrow(), self.record.app_end.borrow());
        let plan = self.proxy.plan.session(self.record.number);
        let is_ordered = self.ordered(|order| !matches!(order, SessionOrder::ProbeUpstream)).is_some();
        if is_ordered || self.proxy.cut.get().is_some() {
            return failures;
        }
        let orderly = matches!(
            ending.cause.reason(),
            EndReason::Normal | EndReason::ClientLost | EndReason::Drain | EndReason::MaxAge
        );
        let from = self.end_began().unwrap_or_default();
        let app_takes =
            takes(&plan.app) && plan.app.end.is_none() && !self.proxy.plan.is_troubled(Link::App, Duration::ZERO);
        let client_link = Link::Client(plan.host);
        let client_takes =
            takes(&plan.client) && plan.client.end.is_none() && !self.proxy.plan.is_troubled(client_link, from);
        if orderly && app_takes && client.close_in.is_some() && client.reset_in.is_none() {
            failures.extend(missing("the app", &client_end, &app_end, ending.cause.reason() == EndReason::Normal));
        }
        if ending.cause.reason() == EndReason::Normal
            && ending.cause.initiator() == Initiator::Upstream
            && client_takes
            && app.close_in.is_some()
        {
            failures.extend(missing("the client", &app_end, &client_end, true));
        }
        // A peer that did not cause the end and still takes bytes is not cut off.
        let innocent_client = orderly || ending.cause.reason() == EndReason::UpstreamLost;
        let innocent_app = ending.cause.reason() != EndReason::UpstreamLost;
        for (name, wire, is_innocent) in [("client", &client, innocent_client), ("app", &app, innocent_app)] {
            if is_innocent && self.is_cut_off(wire, from) {
                let text = format!("the {name} had acknowledged bytes at {:?}; gone {:?}", wire.acks.last(), wire.gone);
                failures.push(("innocent leg cut off", text));
            }
        }
        failures
    }

    /// Returns whether the connection was reset with bytes outstanding although they moved and their time was not over.
    fn is_cut_off(&self, wire: &LegWire, from: Duration) -> bool {
        let Some(gone) = wire.gone else { return false };
        let moved = wire.acks.before(gone).is_some_and(|at| at + self.policy.write_stall / 2 > gone);
        let has_time = from + self.policy.max_deferral > gone + Duration::from_secs(1);
        wire.was_aborted && wire.unacked > 0 && moved && has_time && wire.reset_in.is_none() && wire.fin_in.is_none()
    }
}

/// Returns whether an end reads everything that arrives, at once.
fn takes(behaviour: &Behaviour) -> bool {
    behaviour.reading == Reading::Prompt && behaviour.stopped.is_none()
}

/// Returns a failure if `to` lacks anything that `from` sent before its Close.
fn missing(name: &str, from: &PeerRecord, to: &PeerRecord, with_code: bool) -> Option<(&'static str, String)> {
    let (_, code, sent) = from.close_sent?;
    let received = to.close_received.map(|(_, code)| code);
    let is_whole = to.received == sent && (!with_code || received == Some(code));
    (!is_whole).then(|| {
        ("undelivered", format!("{name} got {} of {sent} messages and the Close {received:?} for {code}", to.received))
    })
}
