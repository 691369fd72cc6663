//! The pump: the one future of a session, which drives both legs.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::control::Control;
use super::control_frames::ControlFrames;
use super::direction::{Direction, DirectionStep};
use super::end::End;
use super::flow::Flow;
use super::leg::{Leg, Legs};
use super::memory::Share;
use super::slot::Slot;
use super::teardown::LegTeardown;
use super::terms::NegotiatedTerms;
use super::timer::{Timer, now};
use crate::heartbeat::{Delivery, Due};
use crate::session::{CloseCause, Ending};
use crate::ws::Sender;

/// One session. Nothing in it waits for anything but the one poll: a stuck write cannot hide a deadline.
#[derive(Debug)]
pub(super) struct Pump<C, U> {
    pub(super) client: Slot<C>,
    pub(super) upstream: Slot<U>,
    /// From the client to the app.
    pub(super) up: Direction,
    /// From the app to the client.
    pub(super) down: Direction,
    pub(super) rules: ControlFrames,
    /// The count of bytes held in both directions.
    share: Share,
    timer: Timer,
    /// The time at which the session reaches its maximum age.
    pub(super) expires: Option<Instant>,
    /// Since when the app takes nothing any more.
    pub(super) app_unwritable: Option<Instant>,
    /// The error of the write that has shown that.
    pub(super) app_write_error: Option<io::Error>,
    /// The end, once it is decided.
    pub(super) end: Option<Box<End>>,
    pub(super) client_end: LegTeardown,
    pub(super) app_end: LegTeardown,
}

/// The longest time for which a figure of what is held may lack what a leg has sent since.
const UNSENT_LOOK: Duration = Duration::from_secs(1);

impl<C: Leg, U: Leg> Future for Pump<C, U> {
    type Output = Ending;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ending> {
        let this = self.get_mut();
        let now = now();
        this.rules.control.register(cx.waker());
        this.relay(cx, now);
        if this.end.is_some() {
            this.tear_down(cx, now);
            if let Some(ending) = this.poll_ended() {
                return Poll::Ready(ending);
            }
        }
        let partial = this.client.partial().map_or(0, |partial| partial.len);
        let unsent = (this.upstream.unsent(), this.client.unsent());
        let to_app = this.client.read_ahead() + partial + this.up.kept() + unsent.0;
        let to_client = this.upstream.read_ahead() + this.down.kept() + unsent.1;
        this.share.set(to_app, to_client);
        let deadline = this.poll_deadline();
        this.timer.arm(deadline, cx);
        if unsent != (0, 0) {
            // Bytes that an HTTP/2 connection sends by itself wake no session, and count as held until one looks.
            this.timer.arm(Some(now + UNSENT_LOOK), cx);
        }
        this.show(deadline.is_some(), now);
        Poll::Pending
    }
}

impl<C: Leg, U: Leg> Pump<C, U> {
    pub(super) fn new(mut legs: Legs<C, U>, terms: NegotiatedTerms, control: Arc<Control>) -> Self {
        let now = now();
        // A session is judged by what is acknowledged. The kernel's own time-out takes a small window for a dead peer: to a
        // client that reads steadily but lets no full segment in, it sends probes, and counts them from the first.
        legs.client.set_user_timeout(Duration::ZERO);
        legs.client.limit_unsent(None);
        terms.liveness.record_bytes(now);
        let (limits, expires) = (terms.limits, terms.max_age.map(|age| now + age));
        let share = Share::new(Arc::clone(&terms.memory), Arc::clone(&control));
        let rules = ControlFrames::new(terms, control, now);
        Self {
            client: Slot::new(legs.client),
            upstream: Slot::new(legs.upstream),
            up: Direction::new(Sender::Client, limits, legs.client_early, &rules, now),
            down: Direction::new(Sender::Server, limits, legs.upstream_early, &rules, now),
            rules,
            share,
            timer: Timer::default(),
            expires,
            app_unwritable: None,
            app_write_error: None,
            end: None,
            client_end: LegTeardown::new(now),
            app_end: LegTeardown::new(now),
        }
    }

    /// Relays until nothing moves any more, and only then looks at orders and deadlines: what has come is delivered
    /// before an end is decided.
    fn relay(&mut self, cx: &mut Context<'_>, now: Instant) {
        self.rules.engine.woken(now);
        let (mut up, mut down) = (DirectionStep::More, DirectionStep::More);
        while up == DirectionStep::More || down == DirectionStep::More {
            if up == DirectionStep::More {
                let step = self.up.step((&mut self.client, &mut self.upstream), &mut self.rules, cx, now);
                up = self.stepped(step, cx, now);
            }
            if down == DirectionStep::More {
                let step = self.down.step((&mut self.upstream, &mut self.client), &mut self.rules, cx, now);
                down = self.stepped(step, cx, now);
            }
        }
        self.allow_for_pauses();
        self.notice(cx, now);
        if let Some(order) = self.rules.control.take() {
            self.obey(order, cx, now);
        }
        if self.timer.fired(cx, now) && self.end.is_none() {
            self.expire(cx, now);
        }
        self.expire_by_age(cx, now);
        self.up.inject(&mut self.upstream, &mut self.rules, cx, now);
        self.down.inject(&mut self.client, &mut self.rules, cx, now);
        self.conclude(cx, now);
    }

    fn stepped(
        &mut self,
        step: Result<DirectionStep, CloseCause>,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> DirectionStep {
        step.unwrap_or_else(|cause| {
            self.decide(cause, cx, now);
            DirectionStep::More
        })
    }

    /// Asks the engine about deadlines that have passed; everything there was to read has been read.
    fn expire(&mut self, cx: &mut Context<'_>, now: Instant) {
        if !self.up.inbound.vanished {
            self.rules.partial(self.client.partial());
        }
        let missed = self.rules.engine.stats().missed;
        let due = self.rules.engine.handle_timeout(now);
        self.rules.await_answer(&self.client);
        let engine = &mut self.rules.engine;
        let verdict = match due {
            Due::Nothing => None,
            Due::Look => {
                let vanished = self.up.inbound.vanished;
                // Bytes of a vanished client are not read.
                let unread = |delivery: Delivery| Delivery { unread: delivery.unread && !vanished, ..delivery };
                engine.delivery_checked(now, self.client.written(), self.client.delivery().map(unread))
            }
            Due::End(verdict) => Some(verdict),
        };
        if engine.stats().missed > missed {
            self.rules.missed();
        }
        self.rules.await_answer(&self.client);
        if let Some(verdict) = verdict {
            self.decide(verdict.into(), cx, now);
        }
    }

    /// Returns the ending, once both legs are closed.
    fn poll_ended(&mut self) -> Option<Ending> {
        if self.client_end.is_done() && self.app_end.is_done() { self.end.as_mut()?.ending.take() } else { None }
    }

    /// Publishes the live stats that have changed in this poll; `hurried`: the deadline may have changed, too.
    #[inline]
    pub(super) fn show(&self, hurried: bool, now: Instant) {
        let figures = &self.rules.control.figures;
        let received = figures.passed(self.up.inbound.traffic, self.down.inbound.traffic);
        if received {
            figures.seen(now);
        }
        if received || hurried {
            let engine = &self.rules.engine;
            figures.expect(engine.misses(), self.next_deadline(), engine.awaited());
        }
    }

    /// Returns when the session acts next if nothing comes.
    #[inline]
    fn next_deadline(&self) -> Option<Instant> {
        self.end_deadline().or_else(|| self.rules.engine.next_action_at())
    }

    /// Returns when the pump must be polled even if no leg wakes it; `None` where the timer is early enough already.
    fn poll_deadline(&mut self) -> Option<Instant> {
        if self.end.is_some() {
            return self.end_deadline();
        }
        // A session that is old enough waits for its gap, and for no time.
        let expires = self.expires.filter(|_| matches!(self.down.flow, Flow::Open));
        let unwritable = self.app_unwritable.map(|since| since + self.rules.engine.policy().timeout);
        [self.rules.engine.poll_deadline(), expires, unwritable].into_iter().flatten().min()
    }
}
