//! Ends: each has a cause, and each completes in time on both legs.

use std::time::Duration;

use pulsegate::relay::SessionOrder;
use pulsegate::session::{EndReason, Ending, Initiator};

use super::{Case, FRAME_WAIT, MARGIN, SLACK};
use crate::plan::Link;

impl Case<'_> {
    /// Returns a failure for an end without a reason on the wire or in the plan.
    pub fn has_no_cause(&self, at: Duration, ending: &Ending) -> Option<(&'static str, String)> {
        let (client, app) = (self.record.client.borrow(), self.record.app.borrow());
        let plan = self.proxy.plan.session(self.record.number);
        let is_caused = match ending.cause.reason() {
            EndReason::HeartbeatTimeout | EndReason::SlowReader | EndReason::Trickle => {
                return self.killed_alive(at, ending);
            }
            EndReason::Normal => match ending.cause.initiator() {
                Initiator::Client => client.peer_end().is_some(),
                Initiator::Upstream => app.peer_end().is_some(),
                Initiator::Proxy => false,
            },
            EndReason::ClientLost => client.fin_in.is_some() || client.reset_in.is_some(),
            EndReason::UpstreamLost => {
                let own = [client.own_end(), app.own_end()].into_iter().flatten().min().unwrap_or(at);
                let is_stalled = app.full_last.max(self.before.app_full_until).is_some_and(|full| full + SLACK >= own)
                    && self.opened + self.policy.max_deferral <= own + SLACK;
                let gave_up = self.ordered(|order| *order == SessionOrder::UpstreamUnresponsive).is_some();
                app.fin_in.is_some() || app.reset_in.is_some() || gave_up || is_stalled
            }
            EndReason::Drain => self.proxy.drained.get().is_some(),
            EndReason::MaxAge => plan.max_age.is_some_and(|age| self.opened + age <= at + MARGIN),
            EndReason::Admin => {
                self.ordered(|order| matches!(order, SessionOrder::Close { .. } | SessionOrder::Abort(_))).is_some()
            }
            // Pings that were held up before they reached the proxy's host arrive at once.
            EndReason::Rate => {
                let is_troubled = self.proxy.plan.is_troubled(Link::Client(plan.host), self.opened);
                let is_held_up = is_troubled || plan.client.uplink.is_some() || plan.client.stopped.is_some();
                plan.client.pings.is_some() && is_held_up
            }
            EndReason::ProtocolError | EndReason::TooBig => false,
        };
        (!is_caused)
            .then(|| ("end without a cause", format!("{:?} by {:?}", ending.cause.reason(), ending.cause.initiator())))
    }

    /// Returns a failure for each end that takes longer than the table of the teardown allows.
    pub fn end_takes_too_long(&self) -> Vec<(&'static str, String)> {
        let mut failures = Vec::new();
        let Some(began) = self.end_began() else { return failures };
        let (policy, now) = (self.policy, self.now);
        let (client, app) = (self.record.client.borrow(), self.record.app.borrow());
        let (grace, own) = (policy.close_grace, [client.own_end(), app.own_end()].into_iter().flatten().min());
        let ordered = self.record.orders.borrow().last().map(|(at, _)| *at);
        // The last bytes of a peer are read only when there is room for those before them.
        let full = [client.full_until(now), app.full_until(now)].into_iter().flatten().max();
        let from = own.unwrap_or(began.max(full.unwrap_or_default())).max(ordered.unwrap_or_default());
        let bound = from + policy.max_deferral + 2 * grace + FRAME_WAIT;
        if now > bound + self.stopped(from) + SLACK {
            failures.push(("end past max_deferral", format!("began {began:?}, first act {own:?}, bound {bound:?}")));
        }
        // A client that has ended its half may keep reading for as long as its app sends.
        let handshake = client.close_in.is_some() || app.close_in.is_some() || client.close_out.is_some();
        let is_half_closed = !handshake && client.gone.is_none() && app.gone.is_none() && app.peer_end().is_none();
        let marks = [
            client.acks.last(),
            app.acks.last(),
            client.wrote_last,
            app.wrote_last,
            client.peer_end(),
            app.peer_end(),
            client.fin_in,
            app.fin_in,
            client.close_in.map(|(at, _)| at),
            app.close_in.map(|(at, _)| at),
            client.gone,
            app.gone,
            ordered,
            self.proxy.drained.get(),
        ];
        let moved = marks.into_iter().flatten().max().unwrap_or(began).max(began);
        let bound = moved + policy.write_stall + policy.timeout + 2 * grace + FRAME_WAIT;
        if !is_half_closed && now > bound + self.stopped(moved) + SLACK {
            failures
                .push(("end that stands still", format!("began {began:?}, last progress {moved:?}, bound {bound:?}")));
        }
        self.orders_are_late(&mut failures);
        failures
    }

    fn orders_are_late(&self, failures: &mut Vec<(&'static str, String)>) {
        let grace = self.policy.close_grace;
        let (client, app) = (self.record.client.borrow(), self.record.app.borrow());
        let began = self.end_began().unwrap_or(self.now);
        // A drain or an age may wait for the end of a frame that moves, and the first end prevails.
        let aged = self.proxy.plan.session(self.record.number).max_age.map(|age| self.opened + age);
        let first = [self.proxy.drained.get(), aged].into_iter().flatten().min().unwrap_or(began).min(began);
        for (at, order) in &*self.record.orders.borrow() {
            let (bound, gone) = match order {
                SessionOrder::Abort(_) => (*at, client.gone.zip(app.gone).is_some()),
                // A closing handshake that was under way continues.
                SessionOrder::Close { .. } if began >= *at => (*at + FRAME_WAIT + grace, client.gone.is_some()),
                SessionOrder::UpstreamUnresponsive if first >= *at => (*at + grace, app.gone.is_some()),
                _ => continue,
            };
            if !gone && self.now > bound + self.stopped(*at) + SLACK {
                failures.push(("order past its bound", format!("{order:?} at {at:?}, bound {bound:?}")));
            }
        }
        // The leg of a client that was given up has `close_grace` in total.
        if let Some(at) = self.record.given_up()
            && client.gone.is_none()
            && self.now > at + grace + self.stopped(at) + SLACK
        {
            failures.push(("offender's leg past close_grace", format!("given up at {at:?}")));
        }
    }
}
