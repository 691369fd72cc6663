//! The state machine of one session's heartbeat on its client leg.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::downlink::{Delivery, Downlink, Whereabouts};
use super::draw::Draw;
use super::ledger::{Answer, Ledger};
use super::phase::{Delays, Paused, Phase, Reissue, Whose};
use super::rate::PingRate;
use super::rtt::Estimator;
use super::{ClientPing, Due, Liveness, Mode, PingFate, Policy, PongFate, Stats, Verdict};
use crate::ws::{ControlFrame, Opcode};

/// How long the answer to a relayed ping may trail the answer to ours before it counts as dropped by the client.
const TRAIL: Duration = Duration::from_secs(1);

/// A probe behind a backlog is looked after when this part of its window has passed.
const FIRST_LOOK: u32 = 8;

/// One session's heartbeat on its client leg.
#[derive(Debug)]
pub struct Engine {
    policy: Arc<Policy>,
    draw: Draw,
    phase: Phase,
    ledger: Ledger,
    rtt: Estimator,
    downlink: Downlink,
    stats: Stats,
    /// Probes in a row that went unanswered.
    missed_in_a_row: u32,
    last_byte: Instant,
    last_probe: Instant,
    /// When the timer was last answered, or the deadline last set otherwise than by a read.
    checked: Instant,
    /// The jittered `interval` and `probe_when_busy` of the coming probe.
    delays: Delays,
    /// Since when the client is in the middle of one frame.
    frame_since: Option<Instant>,
    /// The client's bytes are not being read, because the app is slow.
    paused: Option<Paused>,
    /// How long clocks have been frozen since the last sign of life.
    deferred: Duration,
    reissue: Reissue,
    client_pings: PingRate,
    /// Whether the deadline may have moved earlier since it was last asked for.
    hurried: bool,
}

impl Engine {
    /// The heartbeat of a session that opens at `now`; `seed` gives its nonce and its jitter.
    pub fn new(policy: Arc<Policy>, seed: u64, now: Instant) -> Self {
        let mut draw = Draw::new(seed);
        // The first probe is spread over half the interval, so that a reconnect storm never beats in step.
        let delays = Delays {
            idle: draw.shorten(policy.interval, 0.5),
            busy: draw.shorten(policy.probe_when_busy, policy.jitter),
        };
        Self {
            phase: if policy.mode == Mode::Off { Phase::Still } else { Phase::Quiet },
            ledger: Ledger::new(draw.nonce()),
            rtt: Estimator::default(),
            downlink: Downlink::new(policy.write_stall),
            stats: Stats::default(),
            missed_in_a_row: 0,
            last_byte: now,
            last_probe: now,
            checked: now,
            delays,
            frame_since: None,
            paused: None,
            deferred: Duration::ZERO,
            reissue: Reissue::None,
            client_pings: PingRate::new(now),
            hurried: true,
            draw,
            policy,
        }
    }

    /// The figures so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Bytes of the client were read. `ended_frame`: a frame ended within them; `inside_frame`: they leave off in
    /// the middle of one.
    #[inline]
    pub fn read(&mut self, now: Instant, ended_frame: bool, inside_frame: bool) {
        self.last_byte = now;
        self.frame_since = match self.frame_since {
            _ if !inside_frame => None,
            Some(since) if !ended_frame => Some(since),
            _ => Some(now),
        };
        if ended_frame {
            self.downlink.frame_ended(now);
        }
        let alive = match self.policy.liveness {
            Liveness::AnyBytes => true,
            Liveness::AnyFrame => ended_frame,
            Liveness::PongOnly => false,
        };
        if alive {
            self.alive(now);
        }
    }

    /// A Pong of the client, unmasked.
    pub fn pong(&mut self, payload: &[u8], now: Instant) -> PongFate {
        self.hurried = true;
        self.alive(now);
        match self.ledger.pong(payload, now) {
            Answer::Relayed => {
                self.answered(now);
                PongFate::Forward
            }
            Answer::Unknown => {
                self.downlink.unclear();
                self.stats.strays += 1;
                PongFate::Forward
            }
            Answer::Own { rtt, owed } => {
                self.answered(now);
                self.stats.pongs += 1;
                if let Some(rtt) = rtt {
                    self.stats.rtt_last = Some(rtt);
                    self.rtt.sample(rtt);
                }
                if self.reissue == Reissue::None && self.phase != Phase::Still && self.ledger.may_reissue() {
                    let trail = self.rtt.smoothed().map_or(TRAIL, |srtt| TRAIL.max(srtt * 2));
                    self.reissue = Reissue::At(now + trail.min(self.policy.timeout / 2));
                }
                PongFate::Swallow { owed }
            }
        }
    }

    /// A Ping of the client.
    pub fn client_ping(&mut self, now: Instant) -> PingFate {
        let over = self.client_pings.count(now);
        match self.policy.client_ping {
            _ if over && self.policy.mode != Mode::Off => PingFate::Flood,
            ClientPing::Forward => PingFate::Forward,
            ClientPing::Answer => PingFate::Answer,
        }
    }

    /// A Ping of the app goes out to the client; it counts as the probe.
    pub fn app_ping(&mut self, payload: &[u8], now: Instant) {
        match self.phase {
            Phase::Still => return,
            Phase::Quiet | Phase::Queued { handed: None, .. } => {
                self.hurried = true;
                self.phase = Phase::Queued { since: now, handed: Some(Whose::Apps) };
            }
            Phase::Queued { handed: Some(_), .. } | Phase::Sent { .. } => {}
        }
        self.ledger.relayed(payload);
    }

    /// Whether [`Self::poll_transmit`] has a frame, to be asked at every frame boundary of the outbound stream.
    #[inline]
    pub fn wants_transmit(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Queued { handed: None, .. }) || self.reissue.is_due(now)
    }

    /// The next frame of the heartbeat's own for the client. It must go out at a frame boundary.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<ControlFrame> {
        if let Phase::Queued { handed: handed @ None, .. } = &mut self.phase {
            *handed = Some(Whose::Ours);
            self.stats.pings += 1;
            return Some(ControlFrame::new(Opcode::PING, &self.ledger.own(), None));
        }
        if !self.reissue.is_due(now) {
            return None;
        }
        self.reissue = Reissue::None;
        Some(ControlFrame::new(Opcode::PING, &self.ledger.reissue()?, None))
    }

    /// Whether a probe was handed out that has not been reported as [`Self::flushed`].
    #[inline]
    pub fn awaits_flush(&self) -> bool {
        matches!(self.phase, Phase::Queued { handed: Some(_), .. })
    }

    /// Everything for the client has left for the wire, and with it a probe. `written` is the position reached, and
    /// `delivery` tells how far the client's kernel has come (see [`Delivery::acked`]).
    pub fn flushed(&mut self, now: Instant, written: u64, delivery: Option<Delivery>) {
        let Phase::Queued { handed: Some(whose), .. } = self.phase else { return };
        let window = self.window();
        self.hurried = true;
        self.ledger.left(now);
        self.schedule_next(now);
        self.checked = now;
        self.downlink.probe_left(now, written, window, whose == Whose::Ours);
        // The kernel tells whether a probe has arrived, not when: one that has to wait its turn is looked after early.
        let held_up = self.downlink.whereabouts(delivery) == Whereabouts::Behind;
        let deadline = now + if held_up { window / FIRST_LOOK } else { window };
        self.phase = Phase::Sent { at: now, deadline, held_up };
    }

    /// Bytes for the client are waiting: the socket takes no more, or has just taken a part.
    pub fn write_blocked(&mut self, now: Instant) {
        self.hurried = true;
        self.downlink.blocked(now);
    }

    /// Nothing waits for the client any more.
    pub fn write_clear(&mut self) {
        self.downlink.clear();
    }

    /// The client is not being read from here on, because the app takes no more.
    pub fn reads_paused(&mut self, now: Instant) {
        self.hurried = true;
        let until = now + self.policy.max_deferral.saturating_sub(self.deferred);
        self.paused.get_or_insert(Paused { since: now, until });
    }

    /// The client is read again.
    pub fn reads_resumed(&mut self, now: Instant) {
        if let Some(Paused { since, .. }) = self.paused.take() {
            self.hurried = true;
            self.deferred += now.saturating_duration_since(since);
            self.shift(since, now);
            self.downlink.unheard(since, now);
            self.busy_not_before(now);
            self.checked = now;
        }
    }

    /// A Close has passed in either direction, or the end has been decided: no more probes.
    pub fn closing(&mut self) {
        self.phase = Phase::Still;
        self.reissue = Reissue::None;
    }

    /// When to call [`Self::handle_timeout`]. It may move later at any time without notice; it moves earlier only by
    /// calls other than [`Self::read`].
    pub fn deadline(&self) -> Option<Instant> {
        if self.phase == Phase::Still {
            return None;
        }
        let blocked = self.downlink.look_at();
        let reissue = match self.reissue {
            Reissue::At(at) => Some(at),
            Reissue::None | Reissue::Due => None,
        };
        if let Some(Paused { until, .. }) = self.paused {
            return earliest([Some(until), blocked, reissue]);
        }
        let phase = match self.phase {
            Phase::Quiet => self.probe_at(),
            Phase::Queued { since, .. } => since + self.policy.max_deferral,
            Phase::Sent { deadline, .. } => deadline,
            Phase::Still => return None,
        };
        let frame = self.frame_since.map(|since| since + self.policy.frame_max_time);
        earliest([Some(phase), Some(self.checked + self.reach()), blocked, frame, reissue])
    }

    /// [`Self::deadline`], if it may have moved earlier since this was last asked, or the timer has fired since.
    #[inline]
    pub fn poll_deadline(&mut self) -> Option<Instant> {
        if std::mem::take(&mut self.hurried) { self.deadline() } else { None }
    }

    /// The timer fired.
    pub fn handle_timeout(&mut self, now: Instant) -> Due {
        self.hurried = true;
        let Some(deadline) = self.deadline().filter(|deadline| *deadline <= now) else { return Due::Nothing };
        self.checked = now;
        if now.saturating_duration_since(deadline) > self.policy.stall_guard {
            self.resume_from_suspension(deadline, now);
        }
        if let Some(verdict) = self.overdue(now) {
            return Due::End(verdict);
        }
        if self.reissue.is_due(now) {
            self.reissue = Reissue::Due;
        }
        if self.phase == Phase::Quiet && self.paused.is_none() && self.probe_at() <= now {
            self.phase = Phase::Queued { since: now, handed: None };
        }
        let downlink = self.downlink.look_at().is_some_and(|at| at <= now);
        if downlink || self.deadline_passed(now) { Due::Look } else { Due::Nothing }
    }

    /// What was found after [`Due::Look`]; `None` where no kernel stands behind the leg.
    pub fn looked(&mut self, now: Instant, delivery: Option<Delivery>) -> Option<Verdict> {
        if self.phase == Phase::Still {
            return None;
        }
        // Without a kernel to ask, a client that is not being read cannot prove anything.
        let spare_flight = self.probe_has_deadline() || delivery.is_none() && self.paused.is_some();
        if self.downlink.look(now, delivery, spare_flight) {
            return Some(Verdict::SlowReader);
        }
        let Phase::Sent { at, deadline, held_up } = self.phase else { return None };
        if deadline > now || self.paused.is_some() {
            return None;
        }
        let may_defer = now.saturating_duration_since(at) < self.window() + self.policy.max_deferral;
        if may_defer && delivery.is_some_and(|delivery| delivery.unread) {
            self.phase = Phase::Sent { at, deadline: now + self.policy.stall_guard, held_up };
            return None;
        }
        match self.downlink.whereabouts(delivery) {
            // The last few bytes of a backlog that was seen to move are no lone probe.
            Whereabouts::Lost if held_up && !self.downlink.is_still(now, at, delivery) && may_defer => {
                self.phase = Phase::Sent { at, deadline: self.downlink.next_look(now), held_up };
                None
            }
            Whereabouts::Behind if self.downlink.is_still(now, at, delivery) || !may_defer => Some(Verdict::SlowReader),
            Whereabouts::Behind => {
                self.phase = Phase::Sent { at, deadline: self.downlink.next_look(now), held_up: true };
                None
            }
            // Writes move, or `look` had ended it: the client reads slowly what stands before the probe.
            Whereabouts::Arrived if self.downlink.is_blocked() && may_defer => {
                self.phase = Phase::Sent { at, deadline: self.downlink.next_look(now), held_up: true };
                None
            }
            Whereabouts::Arrived if held_up => {
                self.phase = Phase::Sent { at, deadline: now + self.window(), held_up: false };
                None
            }
            Whereabouts::Arrived | Whereabouts::Lost => self.miss(now),
        }
    }

    /// A ping was answered, which proves the way to the client. A client may be faster than the report that
    /// everything behind the ping has left too: then no second answer is to be waited for.
    fn answered(&mut self, now: Instant) {
        self.downlink.proven();
        if self.awaits_flush() {
            self.schedule_next(now);
            self.phase = Phase::Quiet;
        }
    }

    /// A probe has left; draws when the next one is due.
    fn schedule_next(&mut self, now: Instant) {
        self.last_probe = now;
        self.delays = Delays {
            idle: self.draw.shorten(self.policy.interval, self.policy.jitter),
            busy: self.draw.shorten(self.policy.probe_when_busy, self.policy.jitter),
        };
    }

    fn miss(&mut self, now: Instant) -> Option<Verdict> {
        self.stats.missed += 1;
        self.missed_in_a_row += 1;
        if self.missed_in_a_row >= self.policy.max_missed {
            return Some(Verdict::Timeout);
        }
        self.phase = Phase::Queued { since: now, handed: None };
        None
    }

    fn alive(&mut self, now: Instant) {
        self.missed_in_a_row = 0;
        self.deferred = Duration::ZERO;
        match &mut self.phase {
            Phase::Sent { deadline, .. } => {
                let promised = *deadline;
                self.phase = Phase::Quiet;
                self.busy_not_before(promised);
            }
            Phase::Queued { since, .. } => *since = now,
            Phase::Quiet | Phase::Still => {}
        }
    }

    /// Deadlines that nothing can put off any more.
    fn overdue(&self, now: Instant) -> Option<Verdict> {
        if let Some(Paused { until, .. }) = self.paused {
            return (now >= until).then_some(Verdict::UpstreamStalled);
        }
        if self.frame_since.is_some_and(|since| now >= since + self.policy.frame_max_time) {
            return Some(Verdict::Trickle);
        }
        match self.phase {
            Phase::Queued { since, .. } if now >= since + self.policy.max_deferral => {
                Some(if self.downlink.is_blocked() { Verdict::SlowReader } else { Verdict::Timeout })
            }
            _ => None,
        }
    }

    /// The timer of `from` fired late: the process was stopped or starved. What waited meanwhile is read first, and a
    /// probe on its way gets one fresh window. One such pause may be of any length; many in a row count together.
    fn resume_from_suspension(&mut self, from: Instant, now: Instant) {
        let late = now.saturating_duration_since(from);
        if self.deferred > Duration::ZERO && self.deferred + late > self.policy.max_deferral {
            return;
        }
        self.deferred += late;
        self.downlink.thaw(from, now);
        let window = self.window();
        if let Some(Paused { until, .. }) = &mut self.paused {
            // The clocks stand still already; it is the app that is owed the fresh window.
            *until = (*until + late).max(now + window);
            return;
        }
        self.shift(from, now);
        if let Phase::Sent { at, deadline, .. } = &mut self.phase {
            *at += late;
            *deadline = now + window;
        }
    }

    /// Moves every clock of the client's silence by the time that it stood still between `from` and `now`.
    fn shift(&mut self, from: Instant, now: Instant) {
        // A clock that began in the middle of it, as when the relay woke and read first, stood still for less.
        let pause = |since: Instant| now.saturating_duration_since(from.max(since));
        self.last_byte += pause(self.last_byte);
        if let Some(since) = &mut self.frame_since {
            *since += pause(*since);
        }
        match &mut self.phase {
            Phase::Sent { at, deadline, .. } => *deadline += pause(*at),
            Phase::Queued { since, .. } => *since += pause(*since),
            Phase::Quiet | Phase::Still => {}
        }
    }

    /// How far ahead the timer may be armed: a read starts a frame's clock, and in the middle of a window the clock
    /// of the next probe.
    fn reach(&self) -> Duration {
        let frame = self.policy.frame_max_time;
        if self.probe_has_deadline() { frame.min(self.delays.idle) } else { frame }
    }

    /// A busy probe that came due while none could be sent is due at `at`, not late: nobody stopped the process.
    fn busy_not_before(&mut self, at: Instant) {
        if let Some(earliest) = at.checked_sub(self.delays.busy) {
            self.last_probe = self.last_probe.max(earliest);
        }
    }

    /// When the next probe is due: after quiet, or under traffic after long enough without one.
    fn probe_at(&self) -> Instant {
        (self.last_byte + self.delays.idle).min(self.last_probe + self.delays.busy)
    }

    fn deadline_passed(&self, now: Instant) -> bool {
        self.paused.is_none() && matches!(self.phase, Phase::Sent { deadline, .. } if deadline <= now)
    }

    fn probe_has_deadline(&self) -> bool {
        matches!(self.phase, Phase::Sent { .. })
    }

    fn window(&self) -> Duration {
        if self.policy.adaptive { self.rtt.window(self.policy.timeout) } else { self.policy.timeout }
    }
}

fn earliest<const N: usize>(candidates: [Option<Instant>; N]) -> Option<Instant> {
    candidates.into_iter().flatten().min()
}

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;
