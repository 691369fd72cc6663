//! The state machine of one session's heartbeat on its client leg.

mod deadlines;
mod messages;
mod pings;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::app_probes::AppProbes;
use super::downlink::{Delivery, Downlink, ProbePosition};
use super::ledger::Ledger;
use super::phase::{Delays, Paused, ProbeOrigin, ProbePhase, Reissue, Stopwatch, Suspensions, Wait};
use super::random::RandomSource;
use super::rate::Rate;
use super::rtt::Estimator;
use super::{Gap, HeartbeatStats, Liveness, Mode, Policy, ProofOfLife, ReadSummary, Transmit};

/// A probe behind a backlog is first checked after this fraction (1/64) of its window: most are only a moment behind.
const FIRST_LOOK: u32 = 64;
/// A probe still behind it is checked again after each further fraction (1/8).
const LATER_LOOK: u32 = 8;

/// The heartbeat of one session on its client leg.
#[derive(Debug)]
pub struct Engine {
    policy: Arc<Policy>,
    /// The proof of life required of the client.
    proof: ProofOfLife,
    draw: RandomSource,
    phase: ProbePhase,
    ledger: Ledger,
    questions: AppProbes,
    rtt: Estimator,
    downlink: Downlink,
    stats: HeartbeatStats,
    /// The last round trip, until it is taken.
    fresh_rtt: Option<Duration>,
    /// Consecutive misses.
    missed_in_a_row: u32,
    /// The time of the client's last bytes; for a client that must send on its own, the start of its window.
    last_byte: Instant,
    /// The total by which that start has been deferred since a sign of life.
    put_off: Duration,
    /// The total by which the deadline has been deferred because bytes may have been in flight.
    deferred: Duration,
    /// True if the app has sent anything since the client's last sign of life; set only for proofs that depend on it.
    app_has_sent: bool,
    last_probe: Instant,
    /// The time of the last timer event, or of the last deadline set other than by a read.
    checked: Instant,
    /// The earliest deadline reported since: the time for which the timer is armed.
    armed: Option<Instant>,
    /// The jittered `interval` and `probe_when_busy` of the next probe.
    delays: Delays,
    frame: OpenFrame,
    /// Client bytes that have left the socket and do not form a readable frame yet.
    partial: Option<Partial>,
    /// Set while the client's bytes are not read because the app is slow.
    paused: Option<Paused>,
    /// The suspensions since the last sign of life.
    suspensions: Suspensions,
    /// The total time for which bytes for the client were held up, excluding the time in which the client was not read.
    backlog: Stopwatch,
    reissue: Reissue,
    /// True if the last probe was a Ping in place of a message, for lack of a gap between two messages.
    pinged_instead: bool,
    client_pings: Rate,
    client_beats: Rate,
    /// True if the deadline may have moved other than by a read since it was last polled.
    hurried: bool,
}

/// The frame that the client is sending.
#[derive(Clone, Copy, Debug, Default)]
struct OpenFrame {
    /// The start of the frame in progress.
    since: Option<Instant>,
    /// True if it was given a fresh window after a suspension.
    extended: bool,
}

/// The beginning of a TLS record or of an HTTP/2 DATA frame.
#[derive(Clone, Copy, Debug)]
struct Partial {
    /// The start of the frame in progress.
    since: Option<Instant>,
    /// The arrival of its last byte.
    at: Instant,
}

impl Engine {
    /// Creates the heartbeat of a session that opens at `now`; `seed` determines its nonce and its jitter.
    pub fn new(policy: Arc<Policy>, seed: u64, now: Instant) -> Self {
        let mut draw = RandomSource::new(seed);
        // The first probe is spread over half the interval, so that the probes after a reconnect storm are out of step.
        let delays = Delays {
            idle: draw.shorten(policy.interval, 0.5),
            busy: draw.shorten(policy.probe_when_busy, policy.jitter),
        };
        let mut engine = Self {
            phase: if policy.mode == Mode::Off { ProbePhase::Still } else { ProbePhase::Quiet },
            proof: match policy.mode.profile() {
                Some(profile) if profile.start_after.is_some() => ProofOfLife::Pongs,
                _ => policy.proof().unwrap_or(ProofOfLife::Pongs),
            },
            ledger: Ledger::new(draw.nonce()),
            questions: AppProbes::default(),
            rtt: Estimator::default(),
            downlink: Downlink::new(policy.write_stall),
            stats: HeartbeatStats::default(),
            fresh_rtt: None,
            missed_in_a_row: 0,
            last_byte: now,
            put_off: Duration::ZERO,
            deferred: Duration::ZERO,
            app_has_sent: false,
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

    /// Returns the statistics so far.
    pub fn stats(&self) -> HeartbeatStats {
        self.stats
    }

    /// Returns the policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Returns the number of consecutive windows without a sign of life.
    #[inline]
    pub fn misses(&self) -> u32 {
        self.missed_in_a_row
    }

    /// Returns the number of consecutive misses that ends the session.
    pub fn most_misses(&self) -> u32 {
        if self.must_send() { 1 } else { self.policy.max_missed }
    }

    /// Takes the round trip measured since the last call.
    pub fn take_rtt(&mut self) -> Option<Duration> {
        self.fresh_rtt.take()
    }

    /// Counts a miss for a connection that is found dead by other means.
    pub fn count_miss(&mut self) {
        self.stats.missed += 1;
        self.missed_in_a_row += 1;
    }

    /// Records a read of client bytes.
    #[inline]
    pub fn read(&mut self, now: Instant, seen: ReadSummary) {
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
        // A control frame only proves that the client's network code is alive, which may run in another process than
        // its page.
        if self.proof != ProofOfLife::Pongs && !seen.data {
            return;
        }
        if !self.must_send() {
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

    /// Records client bytes that have left the socket and cannot be read yet: the beginning of a TLS record or of an
    /// HTTP/2 DATA frame, whose last byte arrived at `at`. They are bytes and not a frame: a sign of life only under
    /// [`Liveness::AnyBytes`], and the beginning of a frame that may take `frame_max_time`. May be called again for the
    /// same bytes.
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

    /// Ends the partial frame reported by [`Self::partial`], as [`Self::read`] does by itself: for a record that
    /// contains nothing to read.
    #[inline]
    pub fn partial_ended(&mut self) {
        if let Some(partial) = &mut self.partial {
            partial.since = None;
        }
    }

    /// Returns the start of the client frame in progress, readable or not.
    #[inline]
    fn frame_began(&self) -> Option<Instant> {
        self.frame.since.or(self.partial.and_then(|partial| partial.since))
    }

    /// Returns whether [`Self::poll_transmit`] may return a frame; to be called at every gap in the outbound stream.
    #[inline]
    pub fn wants_transmit(&self, now: Instant) -> bool {
        matches!(self.phase, ProbePhase::Queued { handed: None, .. }) || self.reissue.is_due(now)
    }

    /// Returns the next frame of the heartbeat itself for the client, at a `gap` in the outbound stream.
    pub fn poll_transmit(&mut self, now: Instant, gap: Gap) -> Option<Transmit> {
        if let ProbePhase::Queued { wait, handed: None } = self.phase
            && let Some(transmit) = self.probe(now, wait.since, gap)
        {
            self.phase = ProbePhase::Queued { wait, handed: Some(ProbeOrigin::Ours) };
            self.stats.pings += 1;
            return Some(transmit);
        }
        self.reissued(now)
    }

    /// Returns whether a probe was handed out that has not been reported as [`Self::flushed`].
    #[inline]
    pub fn awaits_flush(&self) -> bool {
        matches!(self.phase, ProbePhase::Queued { handed: Some(_), .. })
    }

    /// Records that all bytes for the client have been written, a probe among them. `written` is the position reached,
    /// and `delivery` reports the progress of the client's kernel (see [`Delivery::acked`]).
    pub fn flushed(&mut self, now: Instant, written: u64, delivery: Option<Delivery>) {
        let ProbePhase::Queued { handed: Some(whose), .. } = self.phase else { return };
        let window = self.window();
        self.hurried = true;
        self.ledger.written(now);
        self.questions.left(now);
        self.schedule_next(now);
        self.checked = now;
        // A page may leave a message probe unanswered; only a Ping must be answered. The app's own probes carry no such
        // duty.
        let must_answer = whose == ProbeOrigin::Ours && (self.pinged_instead || !self.probes_by_message());
        self.downlink.probe_left(now, written, window, must_answer);
        // The kernel reports that a probe has arrived, not the time; a probe behind a backlog is therefore checked
        // early.
        let held_up = self.downlink.probe_position(delivery) == ProbePosition::Behind;
        let deadline = now + if held_up { window / FIRST_LOOK } else { window };
        self.deferred = Duration::ZERO;
        self.phase = ProbePhase::Sent { at: now, deadline, held_up };
    }

    /// Records that bytes for the client are waiting: the socket is full, or has just accepted a part.
    pub fn write_blocked(&mut self, now: Instant) {
        self.hurried = true;
        self.downlink.blocked(now);
        self.run_backlog_clock(now);
        self.extend_while_writing(now);
    }

    /// Records that no bytes for the client are waiting any more.
    pub fn write_clear(&mut self, now: Instant) {
        self.hurried = true;
        self.downlink.clear();
        self.run_backlog_clock(now);
        self.extend_while_writing(now);
    }

    /// Records that the client is no longer read, because the app accepts no more data.
    pub fn reads_paused(&mut self, now: Instant) {
        self.hurried = true;
        self.paused.get_or_insert(Paused { since: now, until: now + self.policy.max_deferral });
        self.run_backlog_clock(now);
    }

    /// Records that the client is read again, as the app has accepted the waiting data. That is progress, so each pause
    /// has a deadline of its own, however many there are.
    pub fn reads_resumed(&mut self, now: Instant) {
        if let Some(Paused { since, .. }) = self.paused.take() {
            self.hurried = true;
            self.run_backlog_clock(now);
            self.shift(since, now);
            self.downlink.reads_paused_between(since, now);
            self.busy_not_before(now);
            self.checked = now;
        }
    }

    /// Stops probing: a Close has passed in either direction, or the session's end has been decided.
    pub fn closing(&mut self) {
        self.phase = ProbePhase::Still;
        self.reissue = Reissue::None;
    }

    /// Records a probe sent by the app, which counts as the proxy's probe.
    fn probed_by_app(&mut self, now: Instant) {
        match self.phase {
            ProbePhase::Quiet | ProbePhase::Queued { handed: None, .. } => {
                self.hurried = true;
                self.queue(now, Some(ProbeOrigin::Apps));
            }
            ProbePhase::Still | ProbePhase::Queued { handed: Some(_), .. } | ProbePhase::Sent { .. } => {}
        }
    }

    /// Records the answer to a probe, which proves the path to the client. The answer may arrive before the report that
    /// everything behind the probe has been written; then no second answer is awaited.
    fn answered(&mut self, now: Instant) {
        self.downlink.record_answer();
        if self.awaits_flush() {
            self.schedule_next(now);
            self.phase = ProbePhase::Quiet;
        }
    }

    fn measured(&mut self, rtt: Duration) {
        self.stats.rtt_last = Some(rtt);
        self.fresh_rtt = Some(rtt);
        self.rtt.sample(rtt);
    }

    /// Records that a probe was sent, and draws the delay of the next one.
    fn schedule_next(&mut self, now: Instant) {
        self.last_probe = now;
        self.delays = Delays {
            idle: self.draw.shorten(self.policy.interval, self.policy.jitter),
            busy: self.draw.shorten(self.policy.probe_when_busy, self.policy.jitter),
        };
    }

    /// Records a sign of life at `at`, which lies in the past if the client's bytes waited to be complete.
    fn alive(&mut self, at: Instant) {
        self.missed_in_a_row = 0;
        self.suspensions = Suspensions::default();
        if self.must_send() {
            self.last_byte = self.last_byte.max(at);
            (self.put_off, self.deferred) = (Duration::ZERO, Duration::ZERO);
            self.app_has_sent = false;
        }
        match self.phase {
            // Bytes that arrived before the probe was sent do not answer it.
            ProbePhase::Sent { at: sent, deadline, .. } if at >= sent => {
                self.phase = ProbePhase::Quiet;
                self.busy_not_before(deadline);
            }
            ProbePhase::Queued { wait, handed } if at > wait.since => {
                let Wait { until, look_at, .. } = wait;
                // A read never moves a deadline to an earlier time.
                let anew = self.wait(at);
                self.phase =
                    ProbePhase::Queued { wait: Wait { until: until.max(anew.until), look_at, ..anew }, handed };
            }
            ProbePhase::Quiet | ProbePhase::Queued { .. } | ProbePhase::Sent { .. } | ProbePhase::Still => {}
        }
    }

    /// Queues a probe that is due at `now` for the next gap.
    fn queue(&mut self, now: Instant, handed: Option<ProbeOrigin>) {
        self.phase = ProbePhase::Queued { wait: self.wait(now), handed };
    }

    fn wait(&self, since: Instant) -> Wait {
        Wait {
            since,
            until: since + self.policy.max_deferral,
            look_at: self.downlink.next_look(since),
            backlog: self.backlog.read(since),
        }
    }

    /// Runs the backlog clock while bytes for the client are held up and the client is read.
    fn run_backlog_clock(&mut self, now: Instant) {
        self.backlog.run(self.downlink.is_blocked() && self.paused.is_none(), now);
    }

    /// Shifts every clock of the client's silence by the time for which it stood still between `from` and `now`.
    fn shift(&mut self, from: Instant, now: Instant) {
        self.questions.reads_paused_between(from, now);
        // A clock started within that time, by a relay that resumed and read first, stood still for less.
        let pause = |since: Instant| now.saturating_duration_since(from.max(since));
        self.last_byte += pause(self.last_byte);
        let partial = self.partial.iter_mut().filter_map(|partial| partial.since.as_mut());
        for since in self.frame.since.iter_mut().chain(partial) {
            *since += pause(*since);
        }
        match &mut self.phase {
            ProbePhase::Sent { at, deadline, .. } => *deadline += pause(*at),
            ProbePhase::Queued { wait, .. } => wait.shift(pause(wait.since)),
            ProbePhase::Quiet | ProbePhase::Still => {}
        }
    }

    /// Makes a busy probe that came due while none could be sent due at `at`, so that it does not appear late: a late
    /// timer would indicate a suspension.
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
mod tests;
