//! The state machine of one session's heartbeat on its client leg.

mod deadlines;
mod messages;
mod pings;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::downlink::{Delivery, Downlink, Whereabouts};
use super::draw::Draw;
use super::ledger::Ledger;
use super::phase::{Delays, Paused, Phase, Reissue, Stopwatch, Suspensions, Wait, Whose};
use super::questions::Questions;
use super::rate::Rate;
use super::rtt::Estimator;
use super::{Gap, Liveness, Mode, Policy, Proof, Seen, Stats, Transmit};

/// A probe behind a backlog is looked after when this part of its window has passed: most are only a moment behind.
const FIRST_LOOK: u32 = 64;
/// One that is still behind it is looked after again after each such part.
const LATER_LOOK: u32 = 8;

/// One session's heartbeat on its client leg.
#[derive(Debug)]
pub struct Engine {
    policy: Arc<Policy>,
    /// What tells that the client is alive.
    proof: Proof,
    draw: Draw,
    phase: Phase,
    ledger: Ledger,
    questions: Questions,
    rtt: Estimator,
    downlink: Downlink,
    stats: Stats,
    /// The last round trip, until it is taken.
    fresh_rtt: Option<Duration>,
    /// Probes in a row that went unanswered.
    missed_in_a_row: u32,
    /// When the client was last heard; where it has to speak by itself, when its window began.
    last_byte: Instant,
    /// By how much that beginning has been put off since a sign of life.
    put_off: Duration,
    /// By how much the deadline has been put off because bytes may have been on their way.
    deferred: Duration,
    /// Whether the app has spoken since the client last was heard, where that matters.
    spoken_to: bool,
    last_probe: Instant,
    /// When the timer was last answered, or the deadline last set otherwise than by a read.
    checked: Instant,
    /// The earliest deadline that was given since: what the timer is armed for.
    armed: Option<Instant>,
    /// The jittered `interval` and `probe_when_busy` of the coming probe.
    delays: Delays,
    frame: OpenFrame,
    /// Bytes of the client that have left the socket and are no readable frame yet.
    partial: Option<Partial>,
    /// The client's bytes are not being read, because the app is slow.
    paused: Option<Paused>,
    /// Since the last sign of life.
    suspensions: Suspensions,
    /// How long bytes for the client have been held up in all, the time aside in which the client was not read.
    backlog: Stopwatch,
    reissue: Reissue,
    /// Whether the last probe is a Ping although it should have been a message: there was no room for one.
    pinged_instead: bool,
    client_pings: Rate,
    client_beats: Rate,
    /// Whether the deadline may have moved otherwise than by a read since it was last asked for.
    hurried: bool,
}

/// The frame that the client is sending.
#[derive(Clone, Copy, Debug, Default)]
struct OpenFrame {
    /// Since when one is under way.
    since: Option<Instant>,
    /// Whether it was given a fresh window after a suspension.
    extended: bool,
}

/// The beginning of a TLS record or of an HTTP/2 DATA frame.
#[derive(Clone, Copy, Debug)]
struct Partial {
    /// Since when one is under way.
    since: Option<Instant>,
    /// When its last byte arrived.
    at: Instant,
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
        let mut engine = Self {
            phase: if policy.mode == Mode::Off { Phase::Still } else { Phase::Quiet },
            proof: match policy.mode.profile() {
                Some(profile) if profile.start_after.is_some() => Proof::Pongs,
                _ => policy.proof().unwrap_or(Proof::Pongs),
            },
            ledger: Ledger::new(draw.nonce()),
            questions: Questions::default(),
            rtt: Estimator::default(),
            downlink: Downlink::new(policy.write_stall),
            stats: Stats::default(),
            fresh_rtt: None,
            missed_in_a_row: 0,
            last_byte: now,
            put_off: Duration::ZERO,
            deferred: Duration::ZERO,
            spoken_to: false,
            last_probe: now,
            checked: now,
            armed: None,
            delays,
            frame: OpenFrame::default(),
            partial: None,
            paused: None,
            suspensions: Suspensions::default(),
            backlog: Stopwatch::default(),
            reissue: Reissue::None,
            pinged_instead: false,
            client_pings: Rate::new(now),
            client_beats: Rate::new(now),
            hurried: true,
            draw,
            policy,
        };
        engine.armed = engine.deadline();
        engine
    }

    /// The figures so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// What it asks of its client.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Windows in a row that have passed without a sign of life.
    #[inline]
    pub fn misses(&self) -> u32 {
        self.missed_in_a_row
    }

    /// How many of them end the session.
    pub fn most_misses(&self) -> u32 {
        if self.must_speak() { 1 } else { self.policy.max_missed }
    }

    /// The round trip that was measured since this was last asked.
    pub fn take_rtt(&mut self) -> Option<Duration> {
        self.fresh_rtt.take()
    }

    /// Counts a window that passed without a sign of life: for a connection that is found dead by other means.
    pub fn count_miss(&mut self) {
        self.stats.missed += 1;
        self.missed_in_a_row += 1;
    }

    /// Bytes of the client were read.
    #[inline]
    pub fn read(&mut self, now: Instant, seen: Seen) {
        self.frame.since = match self.frame_began() {
            _ if !seen.inside_frame => None,
            Some(since) if !seen.ended_frame => Some(since),
            _ => Some(now),
        };
        self.partial_ended();
        if seen.ended_frame {
            self.frame.extended = false;
            self.downlink.frame_ended(now);
        }
        // A control frame shows that the client's network code lives, which may be another process than its page.
        if self.proof != Proof::Pongs && !seen.data {
            return;
        }
        if !self.must_speak() {
            self.last_byte = now;
        }
        let alive = match self.policy.liveness {
            Liveness::AnyBytes => true,
            Liveness::AnyFrame => seen.ended_frame,
            Liveness::PongOnly => false,
        };
        if alive {
            self.alive(now);
        }
    }

    /// Takes in that bytes of the client have left the socket and cannot be read yet: the beginning of a TLS record or of
    /// an HTTP/2 DATA frame, whose last byte arrived at `at`. They are bytes, no frame: a sign of life under
    /// [`Liveness::AnyBytes`] alone, and the beginning of a frame that may take `frame_max_time`. May be called again for
    /// the same bytes.
    pub fn partial(&mut self, at: Instant) {
        let last = self.partial.replace(Partial { since: self.frame_began().or(Some(at)), at });
        if last.is_some_and(|last| last.since.is_some() && at <= last.at) {
            return;
        }
        self.hurried = true;
        if self.policy.liveness == Liveness::AnyBytes {
            self.last_byte = self.last_byte.max(at);
            self.alive(at);
        }
    }

    /// Ends what [`Self::partial`] reported, as [`Self::read`] does by itself: for a record in which there was nothing to
    /// read.
    #[inline]
    pub fn partial_ended(&mut self) {
        if let Some(partial) = &mut self.partial {
            partial.since = None;
        }
    }

    /// Returns since when the client has been in the middle of a frame, readable or not.
    #[inline]
    fn frame_began(&self) -> Option<Instant> {
        self.frame.since.or(self.partial.and_then(|partial| partial.since))
    }

    /// Whether [`Self::poll_transmit`] may have a frame, to be asked wherever the outbound stream has a gap.
    #[inline]
    pub fn wants_transmit(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Queued { handed: None, .. }) || self.reissue.is_due(now)
    }

    /// The next frame of the heartbeat's own for the client, where the outbound stream has a `gap`.
    pub fn poll_transmit(&mut self, now: Instant, gap: Gap) -> Option<Transmit> {
        if let Phase::Queued { wait, handed: None } = self.phase
            && let Some(transmit) = self.probe(now, wait.since, gap)
        {
            self.phase = Phase::Queued { wait, handed: Some(Whose::Ours) };
            self.stats.pings += 1;
            return Some(transmit);
        }
        self.reissued(now)
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
        self.questions.left(now);
        self.schedule_next(now);
        self.checked = now;
        // A page may leave a question unanswered; only a Ping must be answered, and the app's are its own business.
        let must_answer = whose == Whose::Ours && (self.pinged_instead || !self.asks_by_message());
        self.downlink.probe_left(now, written, window, must_answer);
        // The kernel tells whether a probe has arrived, not when: one that has to wait its turn is looked after early.
        let held_up = self.downlink.whereabouts(delivery) == Whereabouts::Behind;
        let deadline = now + if held_up { window / FIRST_LOOK } else { window };
        self.deferred = Duration::ZERO;
        self.phase = Phase::Sent { at: now, deadline, held_up };
    }

    /// Bytes for the client are waiting: the socket takes no more, or has just taken a part.
    pub fn write_blocked(&mut self, now: Instant) {
        self.hurried = true;
        self.downlink.blocked(now);
        self.clock_backlog(now);
        self.not_yet_told(now);
    }

    /// Nothing waits for the client any more.
    pub fn write_clear(&mut self, now: Instant) {
        self.hurried = true;
        self.downlink.clear();
        self.clock_backlog(now);
        self.not_yet_told(now);
    }

    /// The client is not being read from here on, because the app takes no more.
    pub fn reads_paused(&mut self, now: Instant) {
        self.hurried = true;
        self.paused.get_or_insert(Paused { since: now, until: now + self.policy.max_deferral });
        self.clock_backlog(now);
    }

    /// The client is read again: the app has taken what was waiting for it. However often it is slow, that is progress,
    /// so each pause has a time of its own.
    pub fn reads_resumed(&mut self, now: Instant) {
        if let Some(Paused { since, .. }) = self.paused.take() {
            self.hurried = true;
            self.clock_backlog(now);
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

    /// The app has asked the client by itself, which counts as the probe.
    fn asked_by_app(&mut self, now: Instant) {
        match self.phase {
            Phase::Quiet | Phase::Queued { handed: None, .. } => {
                self.hurried = true;
                self.queue(now, Some(Whose::Apps));
            }
            Phase::Still | Phase::Queued { handed: Some(_), .. } | Phase::Sent { .. } => {}
        }
    }

    /// A probe was answered, which proves the way to the client. A client may be faster than the report that
    /// everything behind the probe has left too: then no second answer is to be waited for.
    fn answered(&mut self, now: Instant) {
        self.downlink.proven();
        if self.awaits_flush() {
            self.schedule_next(now);
            self.phase = Phase::Quiet;
        }
    }

    fn measured(&mut self, rtt: Duration) {
        self.stats.rtt_last = Some(rtt);
        self.fresh_rtt = Some(rtt);
        self.rtt.sample(rtt);
    }

    /// A probe has left; draws when the next one is due.
    fn schedule_next(&mut self, now: Instant) {
        self.last_probe = now;
        self.delays = Delays {
            idle: self.draw.shorten(self.policy.interval, self.policy.jitter),
            busy: self.draw.shorten(self.policy.probe_when_busy, self.policy.jitter),
        };
    }

    /// Takes in that the client was heard at `at`, which is the past where its bytes waited to be complete.
    fn alive(&mut self, at: Instant) {
        self.missed_in_a_row = 0;
        self.suspensions = Suspensions::default();
        if self.must_speak() {
            self.last_byte = self.last_byte.max(at);
            (self.put_off, self.deferred) = (Duration::ZERO, Duration::ZERO);
            self.spoken_to = false;
        }
        match self.phase {
            // What arrived before the probe left is no answer to it.
            Phase::Sent { at: sent, deadline, .. } if at >= sent => {
                self.phase = Phase::Quiet;
                self.busy_not_before(deadline);
            }
            Phase::Queued { wait, handed } if at > wait.since => {
                let Wait { until, look_at, .. } = wait;
                // A read moves no deadline to an earlier moment.
                let anew = self.wait(at);
                self.phase = Phase::Queued { wait: Wait { until: until.max(anew.until), look_at, ..anew }, handed };
            }
            Phase::Quiet | Phase::Queued { .. } | Phase::Sent { .. } | Phase::Still => {}
        }
    }

    /// Lets a probe that is due at `now` wait for its turn.
    fn queue(&mut self, now: Instant, handed: Option<Whose>) {
        self.phase = Phase::Queued { wait: self.wait(now), handed };
    }

    fn wait(&self, since: Instant) -> Wait {
        Wait {
            since,
            until: since + self.policy.max_deferral,
            look_at: self.downlink.next_look(since),
            backlog: self.backlog.read(since),
        }
    }

    /// Runs the clock of the backlog while bytes for the client are held up and the client is read.
    fn clock_backlog(&mut self, now: Instant) {
        self.backlog.run(self.downlink.is_blocked() && self.paused.is_none(), now);
    }

    /// Moves every clock of the client's silence by the time that it stood still between `from` and `now`.
    fn shift(&mut self, from: Instant, now: Instant) {
        self.questions.unheard(from, now);
        // A clock that began in the middle of it, as when the relay woke and read first, stood still for less.
        let pause = |since: Instant| now.saturating_duration_since(from.max(since));
        self.last_byte += pause(self.last_byte);
        let partial = self.partial.iter_mut().filter_map(|partial| partial.since.as_mut());
        for since in self.frame.since.iter_mut().chain(partial) {
            *since += pause(*since);
        }
        match &mut self.phase {
            Phase::Sent { at, deadline, .. } => *deadline += pause(*at),
            Phase::Queued { wait, .. } => wait.shift(pause(wait.since)),
            Phase::Quiet | Phase::Still => {}
        }
    }

    /// A busy probe that came due while none could be sent is due at `at`, not late: nobody stopped the process.
    fn busy_not_before(&mut self, at: Instant) {
        if let Some(earliest) = at.checked_sub(self.delays.busy) {
            self.last_probe = self.last_probe.max(earliest);
        }
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
