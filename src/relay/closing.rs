//! The end of a session: its decision, and the consequences for both directions and both legs.
//!
//! Each direction stays open, ends at its next gap, or is closed; each leg ends by itself once nothing more is accepted for
//! its peer (see [`super::teardown`]). The cause of an end determines which directions it closes, and with which Close.

use std::task::Context;
use std::time::{Duration, Instant};

use super::control::SessionOrder;
use super::end::End;
use super::failure;
use super::flow::{Flow, FlowEnd, InPlace};
use super::leg::Leg;
use super::pump::Pump;
use super::teardown::{TeardownFinding, TeardownTimeouts};
use crate::heartbeat::CloseSpec;
use crate::session::{Abort, CloseCause, LegClose, RESTART};
use crate::suspension::PauseMeter;
use crate::ws::Sender;

/// The time for which a drain or an operator waits for the end of a frame that is under way and does not move.
const FRAME_TIMEOUT: Duration = Duration::from_secs(2);

impl<C: Leg, U: Leg> Pump<C, U> {
    /// Performs an order.
    pub(super) fn obey(&mut self, order: SessionOrder, cx: &mut Context<'_>, now: Instant) {
        match order {
            SessionOrder::ProbeUpstream => self.rules.probe_app(),
            SessionOrder::PlayDead => self.up.inbound.vanished = true,
            SessionOrder::Abort(by) => self.abort(by, cx, now),
            // The first end stands, a closing handshake among them.
            _ if self.end.is_some() && !self.is_half_closed() => {}
            SessionOrder::Drain { code } => {
                self.begin(CloseCause::Drain { code }, now);
                self.close_at_gap(Some(now + FRAME_TIMEOUT), cx);
            }
            SessionOrder::Close { code, reason } => {
                self.begin(CloseCause::Admin(CloseSpec { code, reason }), now);
                self.close_at_gap(Some(now + FRAME_TIMEOUT), cx);
            }
            SessionOrder::UpstreamUnresponsive => {
                self.end = None;
                self.decide(CloseCause::UpstreamUnresponsive, cx, now);
            }
        }
    }

    /// Returns whether the client has ended its half without a Close, and the app still sends.
    fn is_half_closed(&self) -> bool {
        let no_close = self.up.inbound.close.is_none() && self.down.inbound.close.is_none();
        let is_open = no_close && matches!(self.down.flow, Flow::Open);
        is_open && self.end.as_ref().is_some_and(|end| matches!(end.cause, CloseCause::Closed { .. }))
    }

    /// Ends the session for `cause`, unless an end is under way already.
    pub(super) fn decide(&mut self, cause: CloseCause, cx: &mut Context<'_>, now: Instant) {
        if self.end.is_some() {
            // Nothing more of an offender is read, and the first cause stands.
            let (to_client, to_app) = cause.closes(&self.rules.engine.policy().on_miss);
            match cause.offender() {
                Some(Sender::Client) => self.close_up(to_app, cx),
                Some(Sender::Server) => {
                    self.app_end.fin_at_once();
                    self.close_down(to_client, cx);
                }
                None => {}
            }
            return;
        }
        let answers = cause.lets_app_answer();
        self.begin(cause, now);
        let (to_client, to_app) = self.closes();
        self.close_up(to_app, cx);
        if answers {
            let until = now + self.grace();
            if let Some(end) = &mut self.end {
                end.answers_until = Some(until);
            }
        } else {
            self.close_down(to_client, cx);
        }
    }

    /// Closes a session that has reached its maximum age at the next gap, however long that takes; the heartbeat continues
    /// until then.
    pub(super) fn expire_by_age(&mut self, cx: &mut Context<'_>, now: Instant) {
        if self.end.is_some() || self.expires.is_none_or(|at| at > now) {
            return;
        }
        if matches!(self.down.flow, Flow::Open) {
            self.await_gap_down(&CloseCause::MaxAge);
            self.down.close_at_gap(&mut self.client, &mut self.rules, cx);
        }
        if self.down.last.as_ref().is_some_and(|last| last.own) {
            self.begin(CloseCause::MaxAge, now);
        }
    }

    /// Moves the times of an end by the pauses of the process since they were last moved.
    pub(super) fn allow_for_pauses(&mut self) {
        let Some(end) = &mut self.end else { return };
        let paused = end.pauses.read();
        if paused.is_zero() {
            return;
        }
        end.decided += paused;
        let gap = end.gap_until.as_mut().map(|(until, _)| until);
        for until in [gap, end.answers_until.as_mut(), end.reads_until.as_mut()].into_iter().flatten() {
            *until += paused;
        }
        self.client_end.allow_for(paused);
        self.app_end.allow_for(paused);
    }

    /// Applies the consequences of reads, of failures, and of the time that has passed.
    pub(super) fn conclude(&mut self, cx: &mut Context<'_>, now: Instant) {
        self.notice(cx, now);
        self.force_gaps(cx, now);
        self.end_answers(cx, now);
    }

    /// Applies the failures, ends and Closes that were read. Done before orders and deadlines are considered, too: a closing
    /// handshake that has begun stands.
    pub(super) fn notice(&mut self, cx: &mut Context<'_>, now: Instant) {
        self.notice_failures(cx, now);
        self.notice_ends(cx, now);
    }

    /// Drives both legs towards their ends.
    pub(super) fn tear_down(&mut self, cx: &mut Context<'_>, now: Instant) {
        let Some(end) = &self.end else { return };
        let (orderly, decided) = (matches!(end.cause, CloseCause::Closed { .. }), end.decided);
        // What was just put there goes out at once.
        self.up.drain(&mut self.upstream, &mut self.rules, cx, now);
        self.down.drain(&mut self.client, &mut self.rules, cx, now);
        // Nothing wakes the session for a write that fails here.
        self.notice_failures(cx, now);
        self.client_end.drive(&mut self.client, &self.down, &self.up, cx, now);
        self.app_end.drive(&mut self.upstream, &self.up, &self.down, cx, now);
        self.client_end.look(&self.client, &self.down, now);
        self.app_end.look(&self.upstream, &self.up, now);
        let policy = self.rules.engine.policy();
        let time_limit = TeardownTimeouts {
            half: orderly.then_some(policy.timeout),
            grace: policy.close_grace,
            stall: policy.write_stall,
            absolute: decided + policy.max_deferral,
            quiet: self.client_end.quiet().zip(self.app_end.quiet()).map(|(client, app)| client.max(app)),
        };
        match self.client_end.review(&self.up, &time_limit, now) {
            TeardownFinding::InTime => {}
            TeardownFinding::NoAnswer => {
                self.client_end.fin_at_once();
                let (_, to_app) = self.closes();
                self.close_up(to_app, cx);
                cx.waker().wake_by_ref();
            }
            TeardownFinding::OutOfTime => self.cut_client(cx),
        }
        match self.app_end.review(&self.down, &time_limit, now) {
            TeardownFinding::InTime => {}
            TeardownFinding::NoAnswer => {
                self.app_end.fin_at_once();
                let (to_client, _) = self.closes();
                self.close_down(to_client, cx);
                cx.waker().wake_by_ref();
            }
            TeardownFinding::OutOfTime => self.cut_app(cx),
        }
        self.settle(now);
    }

    /// Returns when the end must be reviewed again.
    pub(super) fn end_deadline(&self) -> Option<Instant> {
        let end = self.end.as_ref()?;
        let gap = end.gap_until.filter(|_| self.awaits_gap()).map(|(until, _)| until);
        let answers = end.answers_until.filter(|_| !self.down.is_closed());
        let reads = end.reads_until.filter(|_| !self.up.is_closed());
        let candidates = [gap, answers, reads, self.client_end.deadline(), self.app_end.deadline()];
        candidates.into_iter().flatten().min()
    }

    /// Begins the end for `cause`.
    fn begin(&mut self, cause: CloseCause, now: Instant) {
        self.rules.ending(&cause);
        self.show(false, now);
        let stats = self.rules.control.live_stats();
        let ago = |then| now.saturating_duration_since(then);
        if self.down.was_reset() {
            self.client.other_leg_reset();
        }
        let until = now + self.grace();
        // The app's answers to a client that broke a rule come first.
        if cause.blames(Sender::Client) && !cause.lets_app_answer() {
            let gap = if matches!(cause, CloseCause::Admin(_)) { FRAME_TIMEOUT } else { Duration::ZERO };
            self.client_end.set_blame_deadline(until + gap);
        }
        if cause.blames(Sender::Server) {
            self.app_end.set_blame_deadline(until);
        }
        self.end = Some(Box::new(End {
            cause,
            decided: now,
            pauses: PauseMeter::since(now.into()),
            last_seen_ago: ago(stats.last_seen),
            last_pong_ago: stats.last_pong.map(ago),
            gap_until: None,
            answers_until: None,
            reads_until: None,
            ending: None,
        }));
    }

    /// Closes what the cause closes at the next gap: both directions for an operator, otherwise the one to the client.
    fn close_at_gap(&mut self, until: Option<Instant>, cx: &mut Context<'_>) {
        let Some(cause) = self.end.as_ref().map(|end| end.cause.clone()) else { return };
        self.await_gap_down(&cause);
        if let CloseCause::Admin(spec) = cause {
            self.up.await_gap(spec);
            self.up.close_at_gap(&mut self.upstream, &mut self.rules, cx);
        }
        self.down.close_at_gap(&mut self.client, &mut self.rules, cx);
        let read = self.down.inbound.traffic.bytes;
        if let Some(end) = &mut self.end {
            end.gap_until = until.map(|until| (until, read));
        }
    }

    fn await_gap_down(&mut self, cause: &CloseCause) {
        let (to_client, to_app) = cause.closes(&self.rules.engine.policy().on_miss);
        let LegClose::Close(spec) = to_client else { return };
        // The client's own code goes to the app, unless it only repeats ours.
        if let (LegClose::Close(replacement), false) = (to_app, matches!(cause, CloseCause::Admin(_))) {
            self.up.in_place = Some(Box::new(InPlace { of: Some(spec.code), replacement }));
        }
        self.down.await_gap(spec);
    }

    fn awaits_gap(&self) -> bool {
        self.up.awaits_gap() || self.down.awaits_gap()
    }

    /// Closes the directions whose frame under way has not ended in time.
    fn force_gaps(&mut self, cx: &mut Context<'_>, now: Instant) {
        let awaits = self.awaits_gap();
        let read = self.down.inbound.traffic.bytes;
        let Some(end) = &mut self.end else { return };
        if awaits && let Some((until, read_before)) = end.gap_until.filter(|(until, _)| *until <= now) {
            // Neither peer is to blame in a drain: a frame that moves is waited for. What is held for a slow client has the
            // leg's own time, and until it is delivered nothing more is read of the frame.
            let moves = read > read_before || self.client_end.is_delivering();
            if matches!(end.cause, CloseCause::Drain { .. }) && moves {
                end.gap_until = Some((until.max(now) + FRAME_TIMEOUT, read));
                return;
            }
            let (to_client, to_app) = self.closes();
            if self.up.awaits_gap() {
                self.close_up(to_app, cx);
            }
            if self.down.awaits_gap() {
                self.close_down(to_client, cx);
            }
        }
        self.fault_after_gap(now);
    }

    /// Begins the time of an operator's client when no frame is awaited any more.
    fn fault_after_gap(&mut self, now: Instant) {
        let until = now + self.grace();
        if !self.awaits_gap()
            && let Some(End { cause: CloseCause::Admin(_), .. }) = self.end.as_deref()
        {
            self.client_end.set_blame_deadline(until);
        }
    }

    /// Ends the time in which the app may answer what the client had sent before it broke a rule: when the app closes, ends,
    /// or is out of time.
    fn end_answers(&mut self, cx: &mut Context<'_>, now: Instant) {
        let until = now + self.grace();
        let Some(End { answers_until: Some(answers_until), cause, .. }) = self.end.as_deref() else { return };
        if !self.down.is_closed() {
            let over = *answers_until <= now;
            let LegClose::Close(replacement) = cause.closes(&self.rules.engine.policy().on_miss).0 else { return };
            // The app's Close is the answer to ours only when ours has left; until then it is the app's own.
            let in_place =
                self.up.written_close().is_some().then(|| InPlace { of: None, replacement: replacement.clone() });
            self.down.in_place = in_place.map(Box::new);
            if over || self.down.inbound.ended {
                self.close_down(LegClose::Close(replacement), cx);
            }
        }
        if self.down.is_closed() {
            self.client_end.fin_at_once();
            self.client_end.set_blame_deadline(until);
            if let Some(end) = &mut self.end {
                end.answers_until = None;
            }
        }
    }

    /// Applies failed reads and writes.
    fn notice_failures(&mut self, cx: &mut Context<'_>, now: Instant) {
        if let Some(error) = self.up.source_error.take() {
            match failure::client_lost(&error) {
                // A client that was only held up finds the Close.
                cause @ CloseCause::ClientUnanswered if self.end.is_none() => self.decide(cause, cx, now),
                cause => self.client_gone(cause, cx, now),
            }
        }
        if let Some(error) = self.down.sink_error.take() {
            // What the client had sent before is still read.
            if self.end.is_none() {
                self.begin(failure::client_lost(&error), now);
            }
            let until = now + self.grace();
            self.down.close(LegClose::Gone, &mut self.client, cx, None);
            if let Some(end) = &mut self.end {
                end.reads_until.get_or_insert(until);
            }
        }
        if let Some(error) = self.up.sink_error.take() {
            self.app_write_error.get_or_insert(error);
            // What the app has sent before is still read.
            self.up.flow = Flow::Closed;
            // The client's bytes are neither relayed nor scanned from here on, so its silence means nothing either.
            self.rules.engine.closing();
            self.app_unwritable.get_or_insert(now);
        }
        let reads_until = self.end.as_ref().and_then(|end| end.reads_until);
        if !self.up.is_closed() && reads_until.is_some_and(|until| until <= now) {
            self.up.inbound.ended = true;
        }
        if self.end.is_none()
            && self.app_unwritable.is_some_and(|since| now >= since + self.rules.engine.policy().timeout)
        {
            self.decide(failure::upstream_lost(self.app_write_error.as_ref()), cx, now);
        }
    }

    /// Applies Closes and ends that were read.
    fn notice_ends(&mut self, cx: &mut Context<'_>, now: Instant) {
        let (client, app) = (&self.up.inbound, &self.down.inbound);
        if self.end.is_none() && (client.close.is_some() || client.ended || app.close.is_some()) {
            self.up.in_place = None;
            self.begin(self.rules.closed_by_peer(), now);
        }
        if self.up.inbound.ended && !self.up.is_closed() {
            // A client that cannot be written to, and that sent no Close, is lost; any other may read on.
            let (_, to_app) = self.closes();
            self.close_up(to_app, cx);
        }
        if let Some(close) = self.up.last.as_ref().filter(|close| !close.own)
            && let Some(end) = &mut self.end
            && matches!(end.cause, CloseCause::ClientLost { .. })
        {
            self.rules.first_closed(Sender::Client, close.code, &close.reason);
            end.cause = self.rules.closed_by_peer();
        }
        if self.down.inbound.ended && !self.down.is_closed() {
            if self.end.is_none() {
                let cause = failure::upstream_lost(self.down.source_error.as_ref().or(self.app_write_error.as_ref()));
                return self.decide(cause, cx, now);
            }
            if self.end.as_ref().is_some_and(|end| end.answers_until.is_none()) {
                let (to_client, _) = self.closes();
                self.close_down(to_client, cx);
            }
        }
    }

    /// Ends both directions of a client whose connection is gone.
    fn client_gone(&mut self, cause: CloseCause, cx: &mut Context<'_>, now: Instant) {
        if self.end.is_none() {
            self.begin(cause, now);
        }
        self.down.close(LegClose::Gone, &mut self.client, cx, None);
        self.client_end.gone(&mut self.client);
        let (_, to_app) = self.closes();
        self.close_up(to_app, cx);
    }

    fn abort(&mut self, by: Abort, cx: &mut Context<'_>, now: Instant) {
        if self.end.is_none() {
            self.begin(CloseCause::Aborted(by), now);
        }
        self.down.flow = Flow::Closed;
        self.client_end.abort(&mut self.client);
        if by == Abort::Drain {
            // The app is not to blame: it gets its Close where that can go at once.
            let (_, to_app) = CloseCause::Drain { code: RESTART }.closes(&self.rules.engine.policy().on_miss);
            self.close_up(to_app, cx);
            self.up.drain(&mut self.upstream, &mut self.rules, cx, now);
            self.app_end.cut(&mut self.upstream, &self.up, cx);
        } else {
            self.up.flow = Flow::Closed;
            self.app_end.abort(&mut self.upstream);
        }
    }

    /// Cuts off a leg that is out of time. Nothing more of its peer is relayed, and the other leg is closed, too.
    fn cut_client(&mut self, cx: &mut Context<'_>) {
        self.down.flow = Flow::Closed;
        self.client_end.cut(&mut self.client, &self.down, cx);
        let (_, to_app) = self.closes();
        self.close_up(to_app, cx);
        cx.waker().wake_by_ref();
    }

    fn cut_app(&mut self, cx: &mut Context<'_>) {
        self.up.flow = Flow::Closed;
        self.app_end.cut(&mut self.upstream, &self.up, cx);
        let (to_client, _) = self.closes();
        self.close_down(to_client, cx);
        cx.waker().wake_by_ref();
    }

    fn close_down(&mut self, close: LegClose, cx: &mut Context<'_>) {
        let fin = close == LegClose::Fin && !self.down.is_closed();
        if self.down.close(close, &mut self.client, cx, None) == FlowEnd::InsideFrame {
            // Half a frame is out: no Close can be put there. A client that is not to blame still gets what was accepted
            // for it, and then FIN; where all of it has arrived, a reset costs nothing.
            let is_innocent = self.end.as_ref().is_some_and(|end| !end.cause.blames(Sender::Client));
            if is_innocent && self.client_end.is_delivering() {
                self.client_end.fin_at_once();
            } else {
                self.client_end.abort(&mut self.client);
            }
        } else if fin {
            self.client_end.fin_at_once();
        }
    }

    fn close_up(&mut self, close: LegClose, cx: &mut Context<'_>) {
        let fin = close == LegClose::Fin && !self.up.is_closed();
        let key = self.rules.key();
        if self.up.close(close, &mut self.upstream, cx, Some(key)) == FlowEnd::InsideFrame || fin {
            self.app_end.fin_at_once();
        }
    }

    /// Returns what the client and the app are sent last.
    fn closes(&self) -> (LegClose, LegClose) {
        let on_miss = &self.rules.engine.policy().on_miss;
        self.end.as_ref().map_or((LegClose::Fin, LegClose::Fin), |end| end.cause.closes(on_miss))
    }

    fn grace(&self) -> Duration {
        self.rules.engine.policy().close_grace
    }
}
