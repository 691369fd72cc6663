//! The pump: the one future of a session, which drives both legs.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::cause::Cause;
use super::direction::{Direction, Step};
use super::memory::Share;
use super::rules::Rules;
use super::teardown::LegEnd;
use super::timer::Timer;
use super::{Control, Ending, Leg, Legs, Order, Terms, now};
use crate::heartbeat::{CloseSpec, Delivery, Due, Mode};
use crate::ws::Sender;

/// How long a drain or an operator waits for the end of a frame that is under way.
const FRAME_PATIENCE: Duration = Duration::from_secs(2);

/// One session. Nothing in it waits for anything but the one poll: a stuck write cannot hide a deadline.
#[derive(Debug)]
pub(super) struct Pump<C, U> {
    client: C,
    upstream: U,
    /// From the client to the app.
    up: Direction,
    /// From the app to the client.
    down: Direction,
    rules: Rules,
    /// What is held in both directions, as far as it is counted.
    share: Share,
    timer: Timer,
    /// Since when nothing has come although one side has begun to end.
    wound_up: Option<Instant>,
    /// Whether the client's half-close has been carried to the app.
    fin_carried: bool,
    /// When the session is as old as it may become.
    expires: Option<Instant>,
    /// The end that only waits for a moment between two frames.
    leaving: Option<Box<Leaving>>,
    /// The end, once it is decided; nothing that comes after is relayed.
    closing: Option<Box<Closing>>,
}

/// An end that nobody is to blame for, and that can wait.
#[derive(Debug)]
struct Leaving {
    cause: Cause,
    /// When it waits no longer.
    until: Option<Instant>,
}

#[derive(Debug)]
struct Closing {
    cause: Cause,
    until: Instant,
    /// How long the client had been silent when the end was decided; what it says to that is no sign of life.
    last_seen_ago: Duration,
    last_pong_ago: Option<Duration>,
    client: LegEnd,
    upstream: LegEnd,
}

impl<C: Leg, U: Leg> Future for Pump<C, U> {
    type Output = Ending;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ending> {
        let this = self.get_mut();
        let now = now();
        this.rules.control.register(cx.waker());
        if this.closing.is_none()
            && let Err(cause) = this.relay(cx, now)
        {
            this.begin_teardown(cause, cx, now);
        }
        if this.closing.is_some() {
            // A deadline of the relay's may still be armed; once it fires it must give way to the end of the grace.
            this.timer.fired(cx, now);
        }
        if let Some(ending) = this.poll_closing(cx, now) {
            return Poll::Ready(ending);
        }
        let to_app = this.client.read_ahead() + this.up.kept() + this.upstream.unsent();
        let to_client = this.upstream.read_ahead() + this.down.kept() + this.client.unsent();
        this.share.set(to_app, to_client);
        let deadline = this.poll_deadline();
        this.timer.arm(deadline, cx);
        this.show(deadline.is_some(), now);
        Poll::Pending
    }
}

impl<C: Leg, U: Leg> Pump<C, U> {
    pub(super) fn new(mut legs: Legs<C, U>, terms: Terms, control: Arc<Control>) -> Self {
        let now = now();
        if terms.policy.mode != Mode::Off {
            legs.client.set_user_timeout(terms.policy.write_stall);
        }
        terms.pulse.heard(now);
        let (limits, expires) = (terms.limits, terms.max_age.map(|age| now + age));
        let share = Share::new(Arc::clone(&terms.memory), Arc::clone(&control));
        let rules = Rules::new(terms, control, now);
        Self {
            client: legs.client,
            upstream: legs.upstream,
            up: Direction::new(Sender::Client, limits, legs.client_early, &rules, now),
            down: Direction::new(Sender::Server, limits, legs.upstream_early, &rules, now),
            rules,
            share,
            timer: Timer::default(),
            wound_up: None,
            fin_carried: false,
            expires,
            leaving: None,
            closing: None,
        }
    }

    /// Relays until nothing moves any more, and only then looks at orders and deadlines: what has come is delivered
    /// before an end is decided.
    fn relay(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), Cause> {
        let (mut up, mut down) = (Step::More, Step::More);
        let mut moved = false;
        while up == Step::More || down == Step::More {
            if up == Step::More {
                up = self.up.step((&mut self.client, &mut self.upstream), &mut self.rules, cx, now)?;
            }
            if down == Step::More {
                down = self.down.step((&mut self.upstream, &mut self.client), &mut self.rules, cx, now)?;
            }
            moved |= up == Step::More || down == Step::More;
        }
        match self.rules.control.take() {
            None => {}
            Some(Order::ProbeUpstream) => self.rules.probe_app(),
            Some(Order::PlayDead) => self.up.inbound.vanished = true,
            Some(Order::Drain { code }) => self.leave(Cause::Drain { code }, Some(now + FRAME_PATIENCE)),
            Some(Order::UpstreamUnresponsive) => return Err(Cause::UpstreamUnresponsive),
            Some(Order::Close { code, reason }) => {
                self.leave(Cause::Admin(CloseSpec { code, reason }), Some(now + FRAME_PATIENCE));
            }
        }
        self.expire(cx, now)?;
        self.part(now)?;
        self.up.inject(&mut self.upstream, &mut self.rules, cx, now)?;
        self.down.inject(&mut self.client, &mut self.rules, cx, now)?;
        self.wind_up(cx, now, moved)
    }

    /// Asks the engine about deadlines that have passed; everything there was to read has been read.
    fn expire(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), Cause> {
        if !self.timer.fired(cx, now) {
            return Ok(());
        }
        let engine = &mut self.rules.engine;
        let missed = engine.stats().missed;
        let verdict = match engine.handle_timeout(now) {
            Due::Nothing => None,
            Due::Look => {
                let vanished = self.up.inbound.vanished;
                // What somebody who has vanished has sent is not about to be read.
                let unread = |delivery: Delivery| Delivery { unread: delivery.unread && !vanished, ..delivery };
                engine.looked(now, self.client.written(), self.client.delivery().map(unread))
            }
            Due::End(verdict) => Some(verdict),
        };
        if engine.stats().missed > missed {
            self.rules.missed();
        }
        verdict.map_or(Ok(()), |verdict| Err(Cause::Verdict(verdict)))
    }

    /// Ends the session at the next moment between two frames, at the latest at `until`. The first such end stands,
    /// unless it has time.
    fn leave(&mut self, cause: Cause, until: Option<Instant>) {
        if self.leaving.as_ref().is_none_or(|leaving| leaving.until.is_none()) {
            self.leaving = Some(Box::new(Leaving { cause, until }));
        }
    }

    /// Takes the end that waits, if this is the moment: a Close may stand between two frames only, and half a frame is
    /// of no use to anybody.
    fn part(&mut self, now: Instant) -> Result<(), Cause> {
        if self.leaving.is_none() && self.expires.is_some_and(|at| at <= now) {
            self.leave(Cause::MaxAge, None);
        }
        let Some(leaving) = self.leaving.take() else { return Ok(()) };
        let is_between =
            [&self.up, &self.down].iter().all(|way| way.inbound.scanner.at_boundary() || way.gap().is_some());
        if is_between || leaving.until.is_some_and(|until| until <= now) {
            return Err(leaving.cause);
        }
        self.leaving = Some(leaving);
        Ok(())
    }

    /// Carries half-closes, and notices when a session that has begun to end has ended.
    fn wind_up(&mut self, cx: &mut Context<'_>, now: Instant, moved: bool) -> Result<(), Cause> {
        let (client, app) = (&self.up.inbound, &self.down.inbound);
        let (client_closed, app_closed) = (client.close.is_some(), app.close.is_some());
        let ending = client_closed || app_closed || client.ended || app.ended || self.up.outbound.is_broken();
        if !ending {
            return Ok(());
        }
        if client_closed && app_closed && self.up.outbound.is_clear() && self.down.outbound.is_clear() {
            return Err(Cause::Closed);
        }
        if app.ended {
            let announced = client_closed || app_closed || client.ended;
            return Err(if announced { Cause::Closed } else { Cause::UpstreamLost });
        }
        self.rules.engine.closing();
        if client.ended && !self.fin_carried && self.up.outbound.is_clear() {
            self.fin_carried = Pin::new(&mut self.upstream).poll_shutdown(cx).is_ready();
        }
        if moved {
            self.wound_up = None;
        }
        self.rules.control.figures.closing();
        let since = *self.wound_up.get_or_insert(now);
        if now < since + self.rules.engine.policy().timeout {
            return Ok(());
        }
        let app_is_gone = self.up.outbound.is_broken() && !client.ended;
        Err(if app_is_gone { Cause::UpstreamLost } else { Cause::Closed })
    }

    fn begin_teardown(&mut self, cause: Cause, cx: &mut Context<'_>, now: Instant) {
        self.rules.ending(&cause);
        self.show(false, now);
        let vitals = self.rules.control.vitals();
        let ago = |then| now.saturating_duration_since(then);
        if self.down.inbound.reset {
            self.client.other_leg_reset();
        }
        let policy = self.rules.engine.policy();
        let (client, upstream) = cause.farewells(&policy.on_miss);
        let until = now + policy.close_grace;
        let key = self.rules.key();
        self.closing = Some(Box::new(Closing {
            cause,
            until,
            last_seen_ago: ago(vitals.last_seen),
            last_pong_ago: vitals.last_pong.map(ago),
            client: LegEnd::begin(client, &mut self.down, &mut self.client, cx, None),
            upstream: LegEnd::begin(upstream, &mut self.up, &mut self.upstream, cx, Some(key)),
        }));
    }

    fn poll_closing(&mut self, cx: &mut Context<'_>, now: Instant) -> Option<Ending> {
        let mut closing = self.closing.take()?;
        let client = closing.client.drive(&mut self.client, &mut self.down.outbound, &mut self.up.inbound, cx);
        let upstream = closing.upstream.drive(&mut self.upstream, &mut self.up.outbound, &mut self.down.inbound, cx);
        if !(client && upstream) {
            if now < closing.until {
                self.closing = Some(closing);
                return None;
            }
            closing.client.cut(&mut self.client, cx);
            closing.upstream.cut(&mut self.upstream, cx);
        }
        Some(self.ending(*closing, now))
    }

    fn ending(&mut self, closing: Closing, now: Instant) -> Ending {
        let first = self.rules.first_close.take();
        let relayed = first.as_ref().map(|first| first.code);
        let code = |end: &LegEnd, theirs: Option<u16>| {
            relayed.or(end.sent.as_ref().map(|sent| sent.code)).or(theirs).unwrap_or(1006)
        };
        Ending {
            initiator: closing.cause.initiator(first.as_ref()),
            reason: closing.cause.reason(),
            detail: closing.cause.detail(),
            offender: closing.cause.offender(),
            client_code: code(&closing.client, self.up.inbound.close),
            upstream_code: code(&closing.upstream, self.down.inbound.close),
            close_reason: match (first, closing.client.sent) {
                (Some(first), _) => first.reason,
                (None, Some(sent)) => sent.reason,
                (None, None) => Box::default(),
            },
            from_client: self.up.inbound.traffic,
            from_upstream: self.down.inbound.traffic,
            heartbeat: self.rules.engine.stats(),
            duration: now.saturating_duration_since(self.rules.control.opened()),
            last_seen_ago: closing.last_seen_ago,
            last_pong_ago: closing.last_pong_ago,
        }
    }

    /// Leaves what has changed in this poll where it is looked for; `hurried`: the deadline may have changed, too.
    #[inline]
    fn show(&self, hurried: bool, now: Instant) {
        let figures = &self.rules.control.figures;
        let heard = figures.passed(self.up.inbound.traffic, self.down.inbound.traffic);
        if heard {
            figures.seen(now);
        }
        if heard || hurried {
            figures.expect(self.rules.engine.misses(), self.next_deadline());
        }
    }

    /// When the session acts next if nothing comes.
    #[inline]
    fn next_deadline(&self) -> Option<Instant> {
        self.ends_at().or_else(|| self.rules.engine.outlook())
    }

    /// When a session that has begun to end is cut off.
    #[inline]
    fn ends_at(&self) -> Option<Instant> {
        match (&self.closing, self.wound_up) {
            (Some(closing), _) => Some(closing.until),
            (None, Some(since)) => Some(since + self.rules.engine.policy().timeout),
            (None, None) => None,
        }
    }

    /// When the pump must be polled even if no leg wakes it; `None` where the timer is early enough already.
    fn poll_deadline(&mut self) -> Option<Instant> {
        let next = self.ends_at().or_else(|| self.rules.engine.poll_deadline());
        if self.closing.is_some() {
            return next;
        }
        let parting = self.leaving.as_ref().map_or(self.expires, |leaving| leaving.until);
        [next, parting].into_iter().flatten().min()
    }
}
