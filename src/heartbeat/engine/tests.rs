//! Tests of the engine's semantics, with arbitrary instants.

mod answered;
mod asked;
mod awaited;
mod backpressure;
mod identity;
mod long_frame;
mod messages;
mod model;
mod overlays;
mod partial;
mod passive;
mod settings;
mod time;

use std::collections::VecDeque;

use super::*;
use crate::heartbeat::{
    Builtin, ClientPing, Due, EngineVerdict, HeartbeatAction, PingAction, PongAction, Profile, Role,
};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
/// The default `write_stall`; a dead path must be detected within one further check.
const WRITE_STALL: Duration = Duration::from_secs(45);
const LOOK: Duration = Duration::from_millis(5_625);

/// Returns the default policy, with every delay but the first exact.
fn exact() -> Policy {
    Policy { jitter: 0.0, ..Policy::default() }
}

/// Returns a read that contains data.
fn seen(ended_frame: bool, inside_frame: bool) -> ReadSummary {
    ReadSummary { data: true, ended_frame, inside_frame }
}

/// Returns a policy with a text `ping` answered by a text `pong`, with the proxy in `role`.
fn express(role: Role) -> Policy {
    Policy { mode: Builtin::ExpressText.mode(role), ..exact() }
}

/// Returns a policy for a protocol that the proxy observes, with `proof` as the proof of life.
fn watched(proof: ProofOfLife) -> Policy {
    let profile = Profile { proof, ..Builtin::EngineIo.profile(Role::Passive) };
    Policy { mode: Mode::Passive(Arc::new(profile)), ..exact() }
}

/// An item to be read from the client's socket.
#[derive(Clone, Debug)]
enum Inbound {
    /// Part of an unfinished TLS record or HTTP/2 DATA frame: nothing to read yet.
    Partial,
    /// Part of an unfinished frame.
    Inside,
    /// The end of a frame, without further bytes.
    Frame,
    /// The end of a frame, and the beginning of the next.
    FrameAndMore,
    Pong(Vec<u8>),
    /// The message that the profile expects from the client.
    Beat,
}

/// The bytes acknowledged by the kernel, from the elapsed time and the bytes written so far.
type Acked = Box<dyn Fn(Duration, u64) -> u64>;

/// A driver of the engine in the order of the relay: reads first, then the timer, then probes at a frame boundary. The
/// timer is armed lazily, so a deadline moved earlier by a read is missed here as it would be there.
struct Rig {
    base: Instant,
    now: Instant,
    engine: Engine,
    timer: Option<Instant>,
    /// Bytes of the client with their time of arrival.
    socket: VecDeque<(Instant, Inbound)>,
    /// False while the client is not read because the app is slow.
    reading: bool,
    /// True if the outbound stream is at a frame boundary and the socket accepts bytes.
    boundary: bool,
    written: u64,
    acked: Option<Acked>,
    /// The kind of the outbound stream's gap, at a boundary.
    gap: Gap,
    /// The delay of the client's pong after a ping; `None` if it answers nothing.
    rtt: Option<Duration>,
    /// The delay of the page's answer after a probe message; `None` if the page hangs.
    page: Option<Duration>,
    /// The times of the proxy's probe messages, and of the app's.
    asked: Vec<Duration>,
    app_asked: Vec<Duration>,
    beats: Vec<(Duration, HeartbeatAction)>,
    /// Every ping sent, with its payload, the app's included.
    pings: Vec<(Duration, Vec<u8>)>,
    fates: Vec<(Duration, PongAction)>,
    end: Option<(Duration, EngineVerdict)>,
}

impl Rig {
    fn new(policy: Policy) -> Self {
        Self::seeded(policy, 1)
    }

    fn seeded(policy: Policy, seed: u64) -> Self {
        Self::starting_at(policy, seed, crate::any_instant())
    }

    fn starting_at(policy: Policy, seed: u64, base: Instant) -> Self {
        let engine = Engine::new(Arc::new(policy), seed, base);
        Self {
            base,
            now: base,
            timer: engine.deadline(),
            engine,
            socket: VecDeque::new(),
            reading: true,
            boundary: true,
            gap: Gap::Message,
            page: None,
            asked: Vec::new(),
            app_asked: Vec::new(),
            beats: Vec::new(),
            written: 0,
            acked: None,
            rtt: None,
            pings: Vec::new(),
            fates: Vec::new(),
            end: None,
        }
    }

    /// Adds a kernel that reports acknowledgements.
    fn kernel(mut self, acked: impl Fn(Duration, u64) -> u64 + 'static) -> Self {
        self.acked = Some(Box::new(acked));
        self
    }

    /// Adds a client that answers each ping after `rtt`.
    fn answering(mut self, rtt: Duration) -> Self {
        self.rtt = Some(rtt);
        self
    }

    /// Adds a page that answers each probe message after `rtt`, and a browser that answers each ping at once.
    fn page(mut self, rtt: Duration) -> Self {
        self.page = Some(rtt);
        self.answering(MS)
    }

    fn elapsed(&self) -> Duration {
        self.now - self.base
    }

    /// Schedules bytes to arrive in the client's socket at `at`.
    fn arrives(&mut self, at: Duration, what: Inbound) {
        let at = self.base + at;
        let behind = self.socket.partition_point(|(earlier, _)| *earlier <= at);
        self.socket.insert(behind, (at, what));
    }

    /// Schedules a client frame every `step` from `from` to `to`.
    fn frames(&mut self, mut from: Duration, to: Duration, step: Duration) {
        while from <= to {
            self.arrives(from, Inbound::Frame);
            from += step;
        }
    }

    /// Advances the time, poll by poll, to `until` or the end of the session.
    fn run(&mut self, until: Duration) {
        let until = self.base + until;
        while self.end.is_none() {
            let readable = self.socket.front().filter(|_| self.reading).map(|(at, _)| *at);
            match earliest([self.timer, readable]) {
                Some(at) if at <= until => {
                    self.now = self.now.max(at);
                    self.poll();
                }
                _ => break,
            }
        }
        if self.end.is_none() {
            self.now = self.now.max(until);
        }
    }

    /// Advances the time to `until` or the end of the session, with every timer `late`.
    fn run_late(&mut self, until: Duration, late: Duration) {
        let until = self.base + until;
        while self.end.is_none() {
            let readable = self.socket.front().filter(|_| self.reading).map(|(at, _)| *at);
            match earliest([self.timer.map(|timer| timer + late), readable]) {
                Some(at) if at <= until => {
                    self.now = self.now.max(at);
                    self.poll();
                }
                _ => return,
            }
        }
    }

    /// Advances the time until a ping has been sent, and returns its time.
    fn run_to_ping(&mut self) -> Duration {
        let before = self.pings.len();
        while self.pings.len() == before {
            let timer = self.timer.unwrap_or_else(|| unreachable!("no timer, no ping: {:?}", self.engine));
            self.run(timer - self.base);
            assert!(self.end.is_none(), "ended before a ping: {:?}", self.end);
        }
        self.elapsed()
    }

    /// Advances the time until the proxy has sent a probe message, and returns its time.
    fn run_to_question(&mut self) -> Duration {
        let before = self.asked.len();
        while self.asked.len() == before {
            let timer = self.timer.unwrap_or_else(|| unreachable!("no timer, no question: {:?}", self.engine));
            self.run(timer - self.base);
            assert!(self.end.is_none(), "ended before a question: {:?}", self.end);
        }
        self.elapsed()
    }

    /// Suspends the process for `pause`, then polls the relay once.
    fn stop(&mut self, pause: Duration) {
        self.now += pause;
        self.poll();
    }

    fn poll(&mut self) {
        self.engine.woken(self.now);
        self.read();
        if self.timer.is_some_and(|timer| timer <= self.now) {
            let verdict = match self.engine.handle_timeout(self.now) {
                Due::Nothing => None,
                Due::Look => {
                    self.read();
                    let delivery = self.delivery();
                    self.engine.delivery_checked(self.now, self.written, delivery)
                }
                Due::End(verdict) => Some(verdict),
            };
            if let Some(verdict) = verdict {
                self.end = Some((self.elapsed(), verdict));
                self.engine.closing();
            }
            self.timer = None;
        }
        self.transmit();
        let deadline = self.engine.deadline();
        assert!(deadline.is_none_or(|at| at > self.now), "the relay would spin: {:?}", self.engine);
    }

    fn delivery(&self) -> Option<Delivery> {
        let unread = self.reading && self.socket.front().is_some_and(|(at, _)| *at <= self.now);
        self.acked.as_ref().map(|acked| Delivery { acked: acked(self.elapsed(), self.written), unread })
    }

    fn read(&mut self) {
        while self.reading && self.socket.front().is_some_and(|(at, _)| *at <= self.now) {
            let Some((_, inbound)) = self.socket.pop_front() else { return };
            if matches!(inbound, Inbound::Partial) {
                self.engine.partial(self.now);
                self.rearm();
                continue;
            }
            // As in the relay, the meaning of a frame is reported before the end of the read.
            match &inbound {
                Inbound::Pong(payload) => {
                    let fate = self.engine.pong(payload, self.now);
                    self.fates.push((self.elapsed(), fate));
                }
                Inbound::Beat => {
                    let fate = self.engine.client_heartbeat(self.now);
                    self.beats.push((self.elapsed(), fate));
                }
                Inbound::Partial | Inbound::Inside | Inbound::Frame | Inbound::FrameAndMore => {}
            }
            let (ended, inside) = match inbound {
                Inbound::Partial | Inbound::Inside => (false, true),
                Inbound::FrameAndMore => (true, true),
                Inbound::Frame | Inbound::Pong(_) | Inbound::Beat => (true, false),
            };
            let before = self.engine.deadline();
            self.engine
                .read(self.now, ReadSummary { data: !matches!(inbound, Inbound::Pong(_)), ..seen(ended, inside) });
            let after = self.engine.deadline();
            let later = after.is_none_or(|after| before.is_some_and(|before| before <= after));
            assert!(later, "a read moved the deadline from {before:?} to {after:?}: {:?}", self.engine);
            self.rearm();
        }
    }

    fn transmit(&mut self) {
        while self.boundary && self.engine.wants_transmit(self.now) {
            let Some(frame) = self.engine.poll_transmit(self.now, self.gap) else { break };
            let bytes = frame.as_bytes();
            assert_eq!(usize::from(bytes[1]), bytes.len() - 2, "no mask");
            match frame {
                Transmit::Control(_) => {
                    assert_eq!(bytes[0], 0x89, "FIN, no RSV bit, opcode Ping");
                    self.ping_leaves(bytes[2..].to_vec());
                }
                Transmit::Message(_) => {
                    assert_eq!(self.gap, Gap::Message, "between messages only");
                    assert_eq!(bytes, b"\x81\x04ping", "one text frame");
                    self.asked.push(self.elapsed());
                    self.question_leaves();
                }
            }
        }
        self.rearm();
    }

    /// Relays a ping of the app.
    fn app_ping(&mut self, payload: &[u8]) {
        self.engine.app_ping(payload, self.now);
        self.ping_leaves(payload.to_vec());
        self.rearm();
    }

    /// Relays a probe message of the app.
    fn app_asks(&mut self) {
        self.app_speaks();
        self.engine.app_probe(self.now);
        self.app_asked.push(self.elapsed());
        self.question_leaves();
        self.rearm();
    }

    /// Relays a message of the app.
    fn app_speaks(&mut self) {
        self.engine.app_sent(self.now);
        self.rearm();
    }

    fn ping_leaves(&mut self, payload: Vec<u8>) {
        self.leaves(payload.len() as u64 + 2);
        self.pings.push((self.elapsed(), payload.clone()));
        if let Some(rtt) = self.rtt {
            self.arrives(self.elapsed() + rtt, Inbound::Pong(payload));
        }
    }

    fn question_leaves(&mut self) {
        self.leaves(6);
        if let Some(rtt) = self.page {
            self.arrives(self.elapsed() + rtt, Inbound::Beat);
        }
    }

    fn leaves(&mut self, bytes: u64) {
        self.written += bytes;
        if self.engine.awaits_flush() {
            let delivery = self.delivery();
            self.engine.flushed(self.now, self.written, delivery);
        }
    }

    /// Stops reading the client, as the app accepts no more.
    fn pause(&mut self) {
        self.reading = false;
        self.engine.reads_paused(self.now);
        self.rearm();
    }

    fn resume(&mut self) {
        self.reading = true;
        self.engine.reads_resumed(self.now);
        self.rearm();
        self.poll();
    }

    /// Records waiting bytes for the client: the socket is full, or has just accepted a part.
    fn block(&mut self) {
        self.boundary = false;
        self.engine.write_blocked(self.now);
        self.rearm();
    }

    /// Sends part of one app frame, `bytes` each `step`, until `until`; the socket accepts all of it.
    fn stream(&mut self, bytes: u64, step: Duration, until: Duration) {
        self.boundary = false;
        while self.end.is_none() && self.elapsed() < until {
            self.written += bytes;
            self.run(self.elapsed() + step);
        }
    }

    /// Advances the time to the end of the session, with timers that fire a little late and bytes that the kernel holds
    /// and that are never read. Returns the number of checks.
    fn looks_at_unread(&mut self, until: Duration) -> u32 {
        let mut looks = 0;
        while self.end.is_none() {
            self.now =
                self.engine.deadline().unwrap_or_else(|| unreachable!("no deadline: {:?}", self.engine)) + 2 * MS;
            let verdict = match self.engine.handle_timeout(self.now) {
                Due::Nothing => None,
                Due::Look => {
                    looks += 1;
                    let delivery = Delivery { acked: self.written, unread: true };
                    self.engine.delivery_checked(self.now, self.written, Some(delivery))
                }
                Due::End(verdict) => Some(verdict),
            };
            self.end = verdict.map(|verdict| (self.elapsed(), verdict));
            assert!(self.elapsed() < until, "never ends: {:?}", self.engine);
        }
        looks
    }

    /// Records that all bytes for the client have been written, `more` of them since the last time.
    fn clear(&mut self, more: u64) {
        self.boundary = true;
        self.written += more;
        self.engine.write_clear(self.now);
        self.rearm();
        self.poll();
    }

    /// Arms the timer again if the deadline has moved earlier, or if the timer has fired, as the relay does.
    fn rearm(&mut self) {
        self.timer = earliest([self.timer, self.engine.poll_deadline()]);
    }

    #[track_caller]
    fn assert_alive(&self) {
        assert_eq!(self.end, None, "a live client was torn down: {:?}", self.engine);
    }

    /// Asserts that the session ended with `verdict`, not before `from` and not after `to`.
    #[track_caller]
    fn assert_ended(&self, verdict: EngineVerdict, from: Duration, to: Duration) {
        let Some((at, why)) = self.end else { panic!("still open at {:?}: {:?}", self.elapsed(), self.engine) };
        assert_eq!(why, verdict, "at {at:?}");
        assert!((from..=to).contains(&at), "ended at {at:?}, not within {from:?}..={to:?}");
    }
}
