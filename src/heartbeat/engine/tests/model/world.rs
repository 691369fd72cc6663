//! A small model of a client, its network, the app, and a process that may be suspended.

use super::scenario::{Cargo, Death, Event, Scenario, Way};
use super::*;

/// The resolution of the model's time, well under `stall_guard`.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// The window of a client's kernel opens by whole segments, never for the last bytes of a backlog.
const SEGMENT: u64 = 1460;
const CHUNK: u64 = 64 << 10;
const SEND_BUFFER: u64 = 256 << 10;

pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) base: Instant,
    pub(super) now: Instant,
    pub(super) engine: Engine,
    pub(super) timer: Option<Instant>,
    pub(super) end: Option<(Duration, EngineVerdict)>,
    pub(super) death: Option<Death>,
    pub(super) log: Vec<(Duration, String)>,
    // From the client.
    pub(super) socket: VecDeque<(Instant, Inbound)>,
    pub(super) uploading: Option<Instant>,
    /// A part of the upload: of a frame, or of a record, which cannot be read before its end.
    pub(super) piece: Inbound,
    pub(super) unsent: Vec<Inbound>,
    /// The origin of the probes that the answers in flight belong to.
    pub(super) answers: VecDeque<bool>,
    pub(super) skips: u32,
    pub(super) next_beat: Option<Instant>,
    pub(super) spoke: Instant,
    pub(super) app_slow_until: Instant,
    pub(super) paused: bool,
    pub(super) stopped_until: Instant,
    // To the client.
    pub(super) frames: VecDeque<u64>,
    pub(super) frame_left: u64,
    /// Long app frames still to be sent, and the end of the current one.
    pub(super) streams: VecDeque<Duration>,
    pub(super) stream_until: Instant,
    pub(super) streamed: Instant,
    pub(super) app_pings: u32,
    pub(super) app_words: u32,
    pub(super) next_word: Instant,
    pub(super) owed: u32,
    pub(super) open_until: Instant,
    pub(super) pending: u64,
    pub(super) blocked: bool,
    pub(super) written: u64,
    pub(super) acked: u64,
    pub(super) cargo: VecDeque<(u64, Cargo)>,
    pub(super) slow: Option<(u64, Instant)>,
    // Inputs of the bound.
    pub(super) last_life: Instant,
    pub(super) last_word: Instant,
    /// Answers to the proxy's probes that the app received, minus answers to the app's that it did not receive.
    pub(super) leaked: i32,
    pub(super) allowance: Duration,
    pub(super) stalled: bool,
}

impl World {
    pub(super) fn new(scenario: Scenario) -> Self {
        let base = crate::any_instant();
        let engine = Engine::new(Arc::new(scenario.policy.clone()), scenario.seed, base);
        Self {
            scenario,
            base,
            now: base,
            timer: engine.deadline(),
            engine,
            end: None,
            death: None,
            log: Vec::new(),
            socket: VecDeque::new(),
            uploading: None,
            piece: Inbound::Inside,
            unsent: Vec::new(),
            answers: VecDeque::new(),
            skips: 0,
            next_beat: Some(base),
            spoke: base,
            app_slow_until: base,
            paused: false,
            stopped_until: base,
            frames: VecDeque::new(),
            frame_left: 0,
            streams: VecDeque::new(),
            stream_until: base,
            streamed: base,
            app_pings: 0,
            app_words: 0,
            next_word: base,
            owed: 0,
            open_until: base,
            pending: 0,
            blocked: false,
            written: 0,
            acked: 0,
            cargo: VecDeque::new(),
            slow: None,
            last_life: base,
            last_word: base,
            leaked: 0,
            allowance: Duration::ZERO,
            stalled: false,
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.base
    }

    pub(super) fn note(&mut self, what: impl std::fmt::Debug) {
        self.log.push((self.now - self.base, format!("{what:?}")));
    }

    /// Plays the events up to `until`.
    pub(super) fn play(&mut self, until: Duration) {
        let mut at = self.base;
        for (pause, event) in self.scenario.events.clone() {
            at += pause;
            if at - self.base > until {
                break;
            }
            self.run(at - self.base);
            self.note(event);
            self.happens(event);
        }
        self.run(until);
    }

    pub(super) fn run(&mut self, until: Duration) {
        while self.end.is_none() && self.now - self.base < until {
            self.now += TICK;
            self.client();
            self.grow_bound();
            if self.now >= self.stopped_until {
                self.relay();
            }
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Speak => self.sends(Inbound::Frame),
            Event::Upload(lasting) => (self.uploading, self.piece) = (Some(self.now + lasting), Inbound::Inside),
            Event::Record(_) if self.uploading.is_some() => {}
            Event::Record(lasting) => (self.uploading, self.piece) = (Some(self.now + lasting), Inbound::Partial),
            // A reader too slow for it is a backlog.
            Event::Stream(_) if self.slow.is_some_and(|(_, until)| until > self.now) => {}
            Event::Stream(lasting) => self.streams.push_back(lasting),
            Event::ReadSlowly(..) if self.is_streaming() || !self.streams.is_empty() => {}
            Event::Download(bytes) => self.frames.push_back(bytes),
            Event::ReadSlowly(rate, lasting) => self.slow = Some((rate, self.now + lasting)),
            // No further slowdown: the pause as a whole must stay within max_deferral.
            Event::AppIsSlow(_) if self.paused => {}
            Event::AppIsSlow(lasting) => self.app_slow_until = self.now + lasting,
            Event::AppPings => self.app_pings += 1,
            Event::AppSpeaks => self.app_words += 1,
            Event::OpenMessage(lasting) => self.open_until = self.now + lasting,
            Event::Skip => self.skips = 1,
            Event::Stop(lasting) => self.stopped_until = self.now + lasting,
        }
    }

    /// Sends something from the client, if it is able to and not inside a frame.
    fn sends(&mut self, what: Inbound) {
        let browser = self.scenario.way != Way::Pings && matches!(what, Inbound::Pong(_));
        match self.death {
            None => {}
            Some(Death::Hung) if browser => {}
            Some(_) => return,
        }
        match (self.uploading, what) {
            (Some(_), Inbound::Frame) => {}
            (Some(_), what @ (Inbound::Pong(_) | Inbound::Beat)) => self.unsent.push(what),
            (_, what) => {
                if !matches!(what, Inbound::Pong(_)) {
                    self.spoke = self.now;
                }
                self.socket.push_back((self.now + self.scenario.rtt, what));
            }
        }
    }

    /// Sends the client's own heartbeat if it is due.
    fn beats(&mut self) {
        if self.next_beat.is_some_and(|at| at <= self.now) {
            self.next_beat = match self.scenario.way {
                Way::Beats { every, waits: false } => Some(self.now + every),
                Way::BeatsWhenQuiet { after } => Some(self.now + after),
                _ => None,
            };
            if matches!(
                self.scenario.way,
                Way::Beats { .. } | Way::BeatsWhenQuiet { .. } | Way::BeatsWhenSpokenTo { .. }
            ) {
                self.sends(Inbound::Beat);
            }
        }
    }

    /// Delivers an item to the client.
    fn receives(&mut self, cargo: Cargo) {
        match (cargo, self.scenario.way) {
            (Cargo::Ping(payload), _) => self.sends(Inbound::Pong(payload)),
            // A message sent before the probe is reported as written does not answer it.
            (Cargo::Question { .. }, _) if self.skips > 0 && !self.engine.awaits_flush() => {
                self.skips = 0;
                self.note("skips");
                self.sends(Inbound::Frame);
            }
            (Cargo::Question { ours }, _) if self.death.is_none() => {
                self.answers.push_back(ours);
                self.sends(Inbound::Beat);
            }
            (Cargo::Answer, Way::Beats { every, waits: true }) => self.next_beat = Some(self.now + every),
            (Cargo::Word, Way::BeatsWhenQuiet { after }) => self.next_beat = Some(self.now + after),
            (Cargo::Word, Way::BeatsWhenSpokenTo { after, .. }) => {
                self.next_beat.get_or_insert((self.spoke + after).max(self.now));
            }
            _ => {}
        }
    }

    /// Advances the client and the network, which run on while the process is suspended.
    fn client(&mut self) {
        if !matches!(self.death, Some(Death::CablePulled)) {
            self.acked = match self.slow.filter(|(_, until)| *until > self.now) {
                Some((rate, _)) => self.written.min(self.acked + rate / 4),
                None => self.written,
            };
            if self.written - self.acked < SEGMENT {
                self.acked = self.written;
            }
        }
        while self.cargo.front().is_some_and(|(end, _)| *end <= self.acked) {
            let Some((_, cargo)) = self.cargo.pop_front() else { return };
            // Without kernel information the wait of a probe is unknown. A probe that arrived just before its deadline
            // could not be answered in time: such a client counts as live only if it answers at once.
            let late = match self.engine.phase {
                ProbePhase::Sent { deadline, .. } => {
                    !self.scenario.kernel
                        && self.death.is_none()
                        && self.now <= deadline
                        && deadline <= self.now + self.scenario.rtt + TICK
                }
                _ => false,
            };
            match cargo {
                Cargo::Ping(payload) if late => self.socket.push_front((self.now, Inbound::Pong(payload))),
                cargo => self.receives(cargo),
            }
            if late && self.scenario.way != Way::Pings {
                self.socket.push_front((self.now, Inbound::Frame));
            }
        }
        self.beats();
        match self.uploading {
            Some(until) if until > self.now => {
                self.sends(self.piece.clone());
            }
            Some(_) => {
                self.uploading = None;
                self.sends(Inbound::Frame);
                for what in std::mem::take(&mut self.unsent) {
                    self.sends(what);
                }
            }
            None => {}
        }
    }

    /// Performs one poll of the relay.
    fn relay(&mut self) {
        self.engine.woken(self.now);
        if self.paused && self.app_slow_until <= self.now {
            self.paused = false;
            self.engine.reads_resumed(self.now);
            self.rearm();
        }
        self.read();
        if let Some(timer) = self.timer.filter(|timer| *timer <= self.now) {
            let late = self.now - timer;
            if late > self.scenario.policy.stall_guard && late <= TICK {
                self.allowance += late;
            }
            let due = self.engine.handle_timeout(self.now);
            let verdict = match due {
                Due::Nothing => None,
                Due::Look => {
                    let delivery = self.delivery();
                    self.engine.delivery_checked(self.now, self.written, delivery)
                }
                Due::End(verdict) => Some(verdict),
            };
            self.end = verdict.map(|verdict| (self.now - self.base, verdict));
            self.timer = None;
        }
        self.write();
        self.rearm();
        let spins = self.end.is_none() && self.engine.deadline().is_some_and(|at| at <= self.now);
        assert!(!spins, "the relay would spin\n{}", self.story());
    }

    fn delivery(&self) -> Option<Delivery> {
        self.scenario.kernel.then_some(Delivery { acked: self.acked, unread: false })
    }

    fn read(&mut self) {
        while !self.paused && self.socket.front().is_some_and(|(at, _)| *at <= self.now) {
            let Some((_, inbound)) = self.socket.pop_front() else { return };
            if matches!(inbound, Inbound::Partial) {
                self.engine.partial(self.now);
                self.rearm();
                if self.scenario.policy.liveness == Liveness::AnyBytes {
                    self.last_life = self.now;
                    self.allowance = Duration::ZERO;
                }
                continue;
            }
            let is_data = !matches!(inbound, Inbound::Pong(_));
            match &inbound {
                Inbound::Pong(payload) => {
                    let fate = self.engine.pong(payload, self.now);
                    self.note(fate);
                }
                Inbound::Beat => self.beat(),
                Inbound::Partial | Inbound::Inside | Inbound::Frame | Inbound::FrameAndMore => {}
            }
            let inside = matches!(inbound, Inbound::Inside);
            let before = self.engine.deadline();
            self.engine.read(self.now, ReadSummary { data: is_data, ..seen(!inside, inside) });
            let after = self.engine.deadline();
            let later = after.is_none_or(|after| before.is_some_and(|before| before <= after));
            assert!(later, "a read moved the deadline from {before:?} to {after:?}\n{}", self.story());
            self.rearm();
            // A pong counts if it may replace an answer.
            let stands_in = self.now <= self.open_until + 2 * self.window();
            if is_data || self.scenario.way == Way::Pings || stands_in {
                self.last_life = self.now;
                self.allowance = Duration::ZERO;
            }
            if is_data && self.app_slow_until > self.now {
                self.paused = true;
                self.engine.reads_paused(self.now);
                self.note("paused");
                self.rearm();
            }
        }
    }

    fn beat(&mut self) {
        let fate = self.engine.client_heartbeat(self.now);
        self.note(fate);
        match self.scenario.way {
            Way::Asked | Way::Watched { .. } => {
                let ours = self.answers.pop_front() == Some(true);
                self.leaked += i32::from(ours) - i32::from(fate == HeartbeatAction::Swallow);
            }
            _ if fate == HeartbeatAction::Answer => self.owed += 1,
            _ => {}
        }
    }

    fn write(&mut self) {
        loop {
            if self.pending == 0 {
                self.fill();
            }
            if self.pending == 0 {
                return;
            }
            let room = self.send_buffer().saturating_sub(self.written - self.acked).min(self.pending);
            self.written += room;
            self.pending -= room;
            if self.pending > 0 {
                if room > 0 || !self.blocked {
                    self.blocked = true;
                    self.engine.write_blocked(self.now);
                }
                return;
            }
            if std::mem::take(&mut self.blocked) {
                self.engine.write_clear(self.now);
            }
            if self.engine.awaits_flush() {
                let delivery = self.delivery();
                self.engine.flushed(self.now, self.written, delivery);
                self.note("flushed");
            }
        }
    }

    fn send_buffer(&self) -> u64 {
        if self.scenario.kernel && self.engine.proof.window().is_none() { SEND_BUFFER } else { 2 * SEGMENT }
    }

    pub(super) fn is_streaming(&self) -> bool {
        self.now < self.stream_until
    }

    /// Queues the next chunk of the app, with pings in front of it if a frame has ended.
    fn fill(&mut self) {
        if self.is_streaming() {
            if self.streamed < self.now {
                self.streamed = self.now;
                self.pending += self.send_buffer() / 2;
            }
            return;
        }
        if self.frame_left == 0 {
            let gap = if self.now < self.open_until { Gap::Frame } else { Gap::Message };
            if gap == Gap::Message {
                for _ in 0..std::mem::take(&mut self.owed) {
                    self.loads(6, Cargo::Answer);
                }
            }
            while self.engine.wants_transmit(self.now) {
                let Some(frame) = self.engine.poll_transmit(self.now, gap) else { break };
                self.note(frame.as_bytes()[0]);
                match frame {
                    Transmit::Control(_) => self.ping(frame.as_bytes()[2..].to_vec()),
                    Transmit::Message(_) => self.loads(6, Cargo::Question { ours: true }),
                }
            }
            for _ in 0..std::mem::take(&mut self.app_pings) {
                self.engine.app_ping(b"app", self.now);
                self.ping(b"app".to_vec());
            }
            if gap == Gap::Message {
                self.app_speaks();
            }
            self.frame_left = self.frames.pop_front().unwrap_or(0);
            if self.frame_left == 0
                && let Some(lasting) = self.streams.pop_front()
            {
                self.stream_until = self.now + lasting;
            }
        }
        let chunk = self.frame_left.min(CHUNK);
        self.frame_left -= chunk;
        self.pending += chunk;
    }

    fn app_speaks(&mut self) {
        let again = match self.scenario.way {
            Way::Watched { asks } => Some(asks),
            Way::BeatsWhenSpokenTo { spoken_to, .. } => Some(spoken_to),
            _ => None,
        };
        if let Some(again) = again.filter(|_| self.next_word <= self.now) {
            self.next_word = self.now + again;
            self.app_words += 1;
        }
        for _ in 0..std::mem::take(&mut self.app_words) {
            self.engine.app_sent(self.now);
            self.last_word = self.now;
            self.note("app speaks");
            if matches!(self.scenario.way, Way::Asked | Way::Watched { .. }) {
                self.engine.app_probe(self.now);
                self.loads(6, Cargo::Question { ours: false });
            } else {
                self.loads(6, Cargo::Word);
            }
        }
    }

    fn ping(&mut self, payload: Vec<u8>) {
        self.loads(payload.len() as u64 + 2, Cargo::Ping(payload));
    }

    fn loads(&mut self, bytes: u64, cargo: Cargo) {
        self.pending += bytes;
        self.cargo.push_back((self.written + self.pending, cargo));
    }

    fn rearm(&mut self) {
        self.timer = earliest([self.timer, self.engine.poll_deadline()]);
    }

    pub(super) fn story(&self) -> String {
        let lines: Vec<_> = self.log.iter().map(|(at, what)| format!("{:9.2} {what}", at.as_secs_f64())).collect();
        format!("{}\nend: {:?}\n{:?}", lines.join("\n"), self.end, self.engine)
    }
}
