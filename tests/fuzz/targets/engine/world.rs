//! A model of a client, its network, the app, and the work of the relay.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use pulsegate::heartbeat::{
    Delivery, Due, Engine, EngineVerdict, Gap, Liveness, MAX_OUTSTANDING, Policy, PongAction, ReadSummary,
};

use super::chance::Chance;

/// The size of the pieces of the app's frames, and of the send buffer of the proxy's kernel.
const CHUNK: u64 = 64 << 10;
/// Nanoseconds per second.
const NANOS: u64 = 1_000_000_000;
/// The interval at which a backlog is checked.
const TICK: Duration = Duration::from_millis(50);

/// An event on its way from the client.
#[derive(Clone, Debug)]
enum Inbound {
    Frame,
    /// A part of a frame, with its end or without.
    Piece {
        ends: bool,
    },
    Pong(Vec<u8>),
}

#[expect(clippy::struct_excessive_bools, reason = "each may be true with each other")]
pub struct World {
    policy: Policy,
    pub chance: Chance,
    engine: Engine,
    base: Instant,
    now: Instant,
    timer: Option<Instant>,
    pub end: Option<(Instant, EngineVerdict)>,
    /// Events from the client, by their time of arrival.
    socket: VecDeque<(Instant, Inbound)>,
    dead: bool,
    /// The time at which the client's current frame is sent; its pongs wait for that.
    sending_until: Instant,
    /// Towards the client: bytes not written, written, and arrived, and the positions at which pings end.
    pending: u64,
    blocked: bool,
    written: u64,
    arrived: u64,
    pings: VecDeque<(u64, Vec<u8>)>,
    /// Frames of the app that wait, and the rest of the first.
    frames: VecDeque<u64>,
    frame_left: u64,
    app_pings: Vec<Vec<u8>>,
    sent_pings: Vec<Vec<u8>>,
    forwarded: Vec<Vec<u8>>,
    /// Pings whose pongs the proxy has not read, and whether these were too many at some time.
    in_flight: usize,
    crowded: bool,
    app_slow_until: Instant,
    paused: bool,
    stopped_until: Instant,
    /// Backlog time, stops and pauses that the input has used up, so that all stay within `max_deferral`.
    used: Duration,
    last_life: Instant,
    stops: u32,
}

impl World {
    pub fn new(policy: Policy, chance: Chance) -> Self {
        let now = Instant::now();
        let engine = Engine::new(Arc::new(policy.clone()), chance.seed, now);
        Self {
            policy,
            chance,
            timer: engine.deadline(),
            engine,
            base: now,
            now,
            end: None,
            socket: VecDeque::new(),
            dead: false,
            sending_until: now,
            pending: 0,
            blocked: false,
            written: 0,
            arrived: 0,
            pings: VecDeque::new(),
            frames: VecDeque::new(),
            frame_left: 0,
            app_pings: Vec::new(),
            sent_pings: Vec::new(),
            forwarded: Vec::new(),
            in_flight: 0,
            crowded: false,
            app_slow_until: now,
            paused: false,
            stopped_until: now,
            used: Duration::ZERO,
            last_life: now,
            stops: 0,
        }
    }

    /// Returns true if `time` of frozen clocks is left, and uses it up.
    fn affords(&mut self, time: Duration) -> bool {
        let affords = self.used + time < self.policy.max_deferral / 3;
        if affords {
            self.used += time;
        }
        affords
    }

    /// Applies one event, and then lets some time pass.
    pub fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let (what, much): (u8, u8) = input.arbitrary()?;
        let quarter = self.policy.timeout / 4;
        match what % 10 {
            0 | 1 => self.sends(Inbound::Frame),
            2 if self.sending_until <= self.now => {
                // If bytes alone are no sign of life, a client can give one only between frames.
                let short = self.policy.liveness != Liveness::AnyBytes;
                let (pieces, gap) = (1 + u32::from(much % 16), quarter / if short { 20 } else { 1 });
                let mut at = self.now.max(self.sending_until);
                for left in (0..pieces).rev() {
                    self.socket.push_back((at + self.chance.latency / 2, Inbound::Piece { ends: left == 0 }));
                    at += if left > 0 { gap } else { Duration::ZERO };
                }
                self.sending_until = at;
                self.sort();
            }
            3 | 4 => {
                let bytes = 1 + u64::from(much) * u64::from(much) * 16;
                if self.affords(Duration::from_nanos(bytes * NANOS / self.chance.rate)) {
                    self.frames.push_back(bytes);
                }
            }
            5 | 6 if self.app_pings.len() + self.sent_pings.len() < 12 => {
                let count = u8::try_from(self.app_pings.len() + self.sent_pings.len()).expect("few");
                self.app_pings.push(vec![b'a', b'p', b'p', count, what]);
            }
            7 => {
                let time = Duration::from_secs(u64::from(much) / 8);
                if self.affords(time) {
                    self.app_slow_until = self.now + time;
                }
            }
            8 => {
                let time = Duration::from_millis(u64::from(much) * 250);
                if self.affords(time) {
                    self.stopped_until = self.now + time;
                    self.stops += 1;
                }
            }
            _ => {}
        }
        let pause = Duration::from_millis(u64::from(input.arbitrary::<u8>()?) * 100);
        self.run(pause);
        Ok(())
    }

    fn sort(&mut self) {
        self.socket.make_contiguous().sort_by_key(|(at, _)| *at);
    }

    fn sends(&mut self, what: Inbound) {
        if !self.dead {
            let at = self.now.max(self.sending_until) + self.chance.latency / 2;
            self.socket.push_back((at, what));
            self.sort();
        }
    }

    /// Makes the client dead from now on.
    pub fn die(&mut self) {
        self.dead = true;
        let now = self.now;
        self.socket.retain(|(at, _)| *at <= now);
    }

    /// Runs until the engine gives the client up, and checks that it does so in time.
    pub fn expect_end(&mut self) {
        let policy = self.policy.clone();
        let window = if policy.adaptive { policy.timeout.max(Duration::from_secs(60)) } else { policy.timeout };
        let held = self.pending > 0 || !self.frames.is_empty() || self.frame_left > 0 || self.arrived < self.written;
        let mut most = policy.interval + window * policy.max_missed + window / 8 + TICK * 4;
        if held {
            most += policy.write_stall * 2 + window + policy.max_deferral / 3 + Duration::from_secs(5);
        }
        if self.stops > 0 || policy.stall_guard < TICK {
            most += window;
        }
        let frozen = self.app_slow_until.max(self.stopped_until).max(self.now);
        // The client may have sent only the beginning of a frame.
        while self.end.is_none() {
            self.run(TICK);
            let by = frozen.max(self.last_life) + most;
            assert!(self.now <= by, "a dead client is not given up by {:?}: {}", by - self.base, self.story());
        }
    }

    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.end.is_none() && self.now < until {
            let stop = (self.stopped_until > self.now).then_some(self.stopped_until);
            let first = self.socket.front().map(|(at, _)| *at);
            let backlog = (self.arrived < self.written || self.pending > 0).then(|| self.now + TICK);
            let app = self.paused.then_some(self.app_slow_until);
            let work = (!self.app_pings.is_empty() || !self.frames.is_empty()).then(|| self.now + TICK);
            let next = match stop {
                Some(stop) => Some(stop),
                None => [first, backlog, app, work, self.timer].into_iter().flatten().min(),
            };
            let next = next
                .unwrap_or(until)
                .clamp(self.now + Duration::from_millis(1), until.max(self.now + Duration::from_millis(1)));
            let passed = next - self.now;
            self.now = next;
            self.network(passed);
            if self.now >= self.stopped_until {
                self.relay();
            }
        }
    }

    /// Moves bytes to the client, also while the proxy is stopped.
    fn network(&mut self, passed: Duration) {
        if self.dead && !self.chance.hangs {
            return;
        }
        let taken = passed.as_nanos() * u128::from(self.chance.rate) / u128::from(NANOS) + 1;
        self.arrived = self.written.min(self.arrived.saturating_add(u64::try_from(taken).unwrap_or(u64::MAX)));
        while let Some((end, _)) = self.pings.front()
            && *end <= self.arrived
        {
            let (_, payload) = self.pings.pop_front().expect("there is one");
            self.sends(Inbound::Pong(payload));
        }
    }

    /// Runs one poll of the relay: read, then the timer, then write.
    fn relay(&mut self) {
        self.engine.woken(self.now);
        if self.paused && self.app_slow_until <= self.now {
            self.paused = false;
            self.engine.reads_resumed(self.now);
        }
        self.read();
        for turn in 0.. {
            if self.timer.is_some_and(|timer| timer <= self.now) {
                self.timer = None;
                self.timer_fired();
            }
            self.write();
            if let Some(deadline) = self.engine.poll_deadline() {
                self.timer = Some(self.timer.map_or(deadline, |timer| timer.min(deadline)));
            }
            if self.end.is_some() || self.timer.is_none_or(|timer| timer > self.now) {
                return;
            }
            assert!(turn < 4, "the engine asks again at once: {}", self.story());
        }
    }

    fn timer_fired(&mut self) {
        let verdict = match self.engine.handle_timeout(self.now) {
            Due::Nothing => None,
            Due::Look => {
                let delivery = self.delivery();
                self.engine.delivery_checked(self.now, self.written, delivery)
            }
            Due::End(verdict) => Some(verdict),
        };
        self.end = verdict.map(|verdict| (self.now, verdict));
    }

    fn delivery(&self) -> Option<Delivery> {
        self.chance.kernel.then_some(Delivery { acked: self.arrived, unread: false })
    }

    fn read(&mut self) {
        while !self.paused && self.socket.front().is_some_and(|(at, _)| *at <= self.now) {
            let (_, inbound) = self.socket.pop_front().expect("there is one");
            let mut seen = ReadSummary { data: true, ended_frame: true, inside_frame: false };
            match inbound {
                Inbound::Frame => {}
                Inbound::Piece { ends } => (seen.ended_frame, seen.inside_frame) = (ends, !ends),
                Inbound::Pong(payload) => {
                    seen.data = false;
                    self.pong(&payload);
                }
            }
            self.engine.read(self.now, seen);
            self.last_life = self.now;
            if seen.data && self.app_slow_until > self.now {
                self.paused = true;
                self.engine.reads_paused(self.now);
            }
        }
    }

    /// Handles a pong: the proxy's own stay here; each of the app's is forwarded once, even if its ping was sent
    /// several times.
    fn pong(&mut self, payload: &[u8]) {
        let fate = self.engine.pong(payload, self.now);
        let apps = payload.starts_with(b"app");
        if let PongAction::Swallow { owed } = &fate {
            assert!(!apps, "a pong for the app's ping is swallowed: {}", self.story());
            self.forwarded.extend(owed.iter().map(|payload| payload.to_vec()));
        } else if fate == PongAction::Forward {
            assert!(apps, "a pong for the proxy's own ping is forwarded: {}", self.story());
            self.forwarded.push(payload.to_vec());
        }
        // Beyond the number of pings that the proxy remembers it cannot match pongs.
        self.in_flight -= 1;
        let twice = self.forwarded.iter().filter(|other| *other == payload).count() > 1;
        assert!(self.crowded || !twice, "the app gets two pongs for one ping: {}", self.story());
    }

    fn write(&mut self) {
        loop {
            if self.pending == 0 {
                self.fill();
            }
            if self.pending == 0 && !self.blocked && !self.engine.awaits_flush() {
                return;
            }
            let room = (self.arrived + self.send_buffer()).saturating_sub(self.written).min(self.pending);
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
            }
        }
    }

    /// Returns the bytes that the kernel takes ahead of the client. One that cannot be queried takes only what passes
    /// at once: the position of a probe behind more could not be observed.
    fn send_buffer(&self) -> u64 {
        let passes = self.policy.timeout.as_secs() * self.chance.rate / 20;
        if self.chance.kernel { CHUNK } else { CHUNK.min(passes) }
    }

    /// Queues the next output: at the end of a frame pings, and then a piece of the app's next frame.
    fn fill(&mut self) {
        if self.frame_left == 0 {
            while self.engine.wants_transmit(self.now)
                && let Some(frame) = self.engine.poll_transmit(self.now, Gap::Message)
            {
                self.ping(frame.as_bytes()[2..].to_vec());
            }
            for payload in std::mem::take(&mut self.app_pings) {
                self.engine.app_ping(&payload, self.now);
                self.sent_pings.push(payload.clone());
                self.ping(payload);
            }
            self.frame_left = self.frames.pop_front().unwrap_or(0);
        }
        let piece = self.frame_left.min(CHUNK);
        self.frame_left -= piece;
        self.pending += piece;
    }

    fn ping(&mut self, payload: Vec<u8>) {
        self.pending += payload.len() as u64 + 2;
        self.in_flight += 1;
        self.crowded |= self.in_flight >= MAX_OUTSTANDING;
        self.pings.push_back((self.written + self.pending, payload));
    }

    /// Returns the state that a failure prints.
    pub fn story(&self) -> String {
        let at = |instant: Instant| instant.saturating_duration_since(self.base);
        format!(
            "{:?}, {:?}\nnow {:?}, end {:?}, last life {:?}, dead {}, pending {}, written {}, arrived {}, paused {}\n{:?}",
            self.policy,
            self.chance,
            at(self.now),
            self.end.map(|(instant, verdict)| (at(instant), verdict)),
            at(self.last_life),
            self.dead,
            self.pending,
            self.written,
            self.arrived,
            self.paused,
            self.engine
        )
    }
}
