//! The treatment of control frames: the heartbeat of both legs, and the first Close.

use std::sync::Arc;
use std::time::Instant;

use tracing::debug;

use super::control::Control;
use super::leg::{Leg, Partial};
use super::observer::Observer;
use super::outbound::Drained;
use super::terms::NegotiatedTerms;
use crate::heartbeat::{
    Engine, Gap, HeartbeatAction, Ledger, MessageKind, MessageMatcher, PingAction, PongAction, PongMatch, Profile,
    ReadSummary, Transmit, UpstreamLiveness,
};
use crate::session::{CloseCause, ConnId, Ending};
use crate::ws::{Close, ControlFrame, Opcode, Sender};

/// The target of the events that `dev` shows: never more than a few for each heartbeat.
const BEAT: &str = "pulsegate::heartbeat";

/// The decisions of a session: fed by the pump, without input or output; of a leg it reads at most how far its
/// bytes have come.
#[derive(Debug)]
pub(super) struct ControlFrames {
    pub(super) engine: Engine,
    /// The matcher of heartbeat messages, on routes with an application-level heartbeat.
    pub(super) listener: Option<Box<MessageMatcher>>,
    /// The source of orders, and the place of the live stats.
    pub(super) control: Arc<Control>,
    observer: Arc<dyn Observer>,
    id: ConnId,
    /// Pings that went to the app: the client's, and ours on behalf of the pulse.
    app_ledger: Ledger,
    liveness: Arc<UpstreamLiveness>,
    app_probe: AppProbe,
    /// A Pong in the app's place, until it can be sent.
    reply: Option<Box<ControlFrame>>,
    /// The client's own heartbeats that are still to be answered in the app's place.
    owed: Option<Box<PendingReplies>>,
    keys: fastrand::Rng,
    /// The peers whose bytes wait for the other leg.
    stalled: Stalled,
    pub(super) first_close: Option<FirstClose>,
    /// True if an end is under way.
    ending: bool,
}

/// The Close that began the closing handshake.
#[derive(Debug)]
pub(super) struct FirstClose {
    pub(super) by: Sender,
    pub(super) code: u16,
    pub(super) reason: Box<str>,
}

/// Answers to the client's heartbeats.
#[derive(Debug)]
struct PendingReplies {
    profile: Arc<Profile>,
    count: usize,
}

/// More answers than the heartbeats of a minute are not kept for a client that does not read.
const MAX_PENDING_REPLIES: usize = 60 * 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AppProbe {
    No,
    Wanted,
    Handed,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stalled {
    client: bool,
    server: bool,
}

/// The treatment of one control frame.
pub(super) enum Fate {
    /// Relay its bytes as they are.
    Pass,
    /// It stops here.
    Drop,
    /// Send this in its place.
    Replace(ControlFrame),
}

impl ControlFrames {
    pub(super) fn new(terms: NegotiatedTerms, control: Arc<Control>, now: Instant) -> Self {
        let mut keys = fastrand::Rng::with_seed(!terms.seed);
        Self {
            listener: MessageMatcher::new(&terms.policy).map(Box::new),
            engine: Engine::new(terms.policy, terms.seed, now),
            control,
            observer: terms.observer,
            id: terms.id,
            app_ledger: Ledger::new(keys.u32(..).to_be_bytes()),
            liveness: terms.liveness,
            app_probe: AppProbe::No,
            reply: None,
            owed: None,
            keys,
            stalled: Stalled::default(),
            first_close: None,
            ending: false,
        }
    }

    /// Requests a ping of the proxy's to the app.
    pub(super) fn probe_app(&mut self) {
        if !self.ending {
            self.app_probe = AppProbe::Wanted;
        }
    }

    /// Returns whether messages of `from` may matter to the heartbeat.
    pub(super) fn needs_messages(&self, from: Sender) -> bool {
        self.listener.as_ref().is_some_and(|listener| listener.may_need(from))
    }

    /// Bytes were read from the app.
    #[inline]
    pub(super) fn app_message(&mut self, now: Instant, seen: ReadSummary) {
        self.liveness.record_bytes(now);
        if seen.data {
            self.engine.app_sent(now);
        }
    }

    /// A message has turned out to matter to the heartbeat, or not.
    pub(super) fn message(&mut self, from: Sender, kind: MessageKind, now: Instant) -> Result<Fate, CloseCause> {
        match kind {
            MessageKind::Nothing => {}
            MessageKind::AppProbe => self.engine.app_probe(now),
            MessageKind::Heartbeat => return self.beat(now),
            MessageKind::Start => self.engine.start(now),
            MessageKind::Negotiated(proof) => {
                debug!(target: BEAT, conn_id = %self.id, %proof, "heartbeat.agreed");
                self.engine.agreed(proof, now);
            }
            MessageKind::Unreadable if from == Sender::Client => self.engine.unreadable_message(now),
            MessageKind::Unreadable => {}
        }
        Ok(Fate::Pass)
    }

    /// Judges a whole control frame.
    pub(super) fn control(
        &mut self,
        from: Sender,
        opcode: Opcode,
        payload: &[u8],
        now: Instant,
    ) -> Result<Fate, CloseCause> {
        match (from, opcode) {
            (Sender::Client, Opcode::PONG) => Ok(self.client_pong(payload, now)),
            (Sender::Client, Opcode::PING) => self.client_ping(payload, now),
            (Sender::Server, Opcode::PONG) => Ok(self.app_pong(payload, now)),
            (Sender::Server, Opcode::PING) => {
                self.engine.app_ping(payload, now);
                Ok(Fate::Pass)
            }
            _ => Ok(Fate::Pass),
        }
    }

    /// A Close was read: no more probes on either leg. The client is still answered until the app closes, too.
    pub(super) fn closed(&mut self, by: Sender, close: &Close<'_>) {
        self.engine.closing();
        self.app_probe = AppProbe::No;
        if by == Sender::Server {
            self.reply = None;
            self.owed = None;
        }
        // In an end that the proxy began, a Close is the answer to its own.
        if !self.ending {
            self.first_closed(by, close.code.unwrap_or(1005), close.reason);
        }
    }

    /// The Close that began the closing handshake, or stands for it.
    pub(super) fn first_closed(&mut self, by: Sender, code: u16, reason: &str) {
        self.first_close.get_or_insert_with(|| FirstClose { by, code, reason: reason.into() });
    }

    /// Returns the cause of an end that a peer began: by its Close, or, without one, the client by the end of its half.
    pub(super) fn closed_by_peer(&self) -> CloseCause {
        CloseCause::Closed { by: self.first_close.as_ref().map_or(Sender::Client, |first| first.by) }
    }

    /// Takes in the client's bytes that have left the socket and cannot be read yet.
    #[inline]
    pub(super) fn partial(&mut self, partial: Option<Partial>) {
        match partial {
            Some(Partial { at, .. }) => {
                self.engine.partial(at);
                self.control.figures.seen(at);
            }
            None => self.engine.partial_ended(),
        }
    }

    /// Returns whether [`Self::injection`] has a frame to put into the stream that `from` sends.
    #[inline]
    pub(super) fn wants_injection(&self, from: Sender, now: Instant) -> bool {
        match from {
            Sender::Client => self.app_probe == AppProbe::Wanted,
            Sender::Server => self.reply.is_some() || self.owed.is_some() || self.engine.wants_transmit(now),
        }
    }

    /// A frame of our own to put into the stream that `from` sends, where it has a `gap`.
    pub(super) fn injection(&mut self, from: Sender, gap: Gap, now: Instant) -> Option<Transmit> {
        match from {
            Sender::Client if self.app_probe == AppProbe::Wanted => {
                self.app_probe = AppProbe::Handed;
                let payload = self.app_ledger.add_own();
                Some(Transmit::Control(ControlFrame::new(Opcode::PING, &payload, Some(self.key()))))
            }
            Sender::Client => None,
            Sender::Server => {
                // To a client that takes no bytes answers would only pile up. Of the answers to its pings the newest
                // covers all (RFC 6455 §5.5.3).
                if !self.stalled.server {
                    if let Some(reply) = self.reply.take() {
                        return Some(Transmit::Control(*reply));
                    }
                    if gap == Gap::Message
                        && let Some(answer) = self.answer()
                    {
                        return Some(answer);
                    }
                }
                let pings = self.engine.stats().pings;
                let frame = self.engine.poll_transmit(now, gap)?;
                // Otherwise it is one of the app's, sent a second time.
                if self.engine.stats().pings > pings {
                    self.control.figures.pinged();
                    self.observer.pinged();
                }
                debug!(target: BEAT, conn_id = %self.id, "heartbeat.ping");
                Some(frame)
            }
        }
    }

    /// Takes in how far the stream that `from` sends was written to the other leg, `sink`.
    #[inline]
    pub(super) fn drained<T: Leg>(&mut self, from: Sender, drained: Drained, now: Instant, sink: &T) {
        match (from, drained) {
            (_, Drained::Starved) => {}
            (Sender::Client, Drained::Clear) if !self.stalled.client && self.app_probe != AppProbe::Handed => {}
            (Sender::Server, Drained::Clear) if !self.stalled.server && !self.engine.awaits_flush() => {}
            (Sender::Client, drained) => self.drained_to_app(drained, now),
            (Sender::Server, drained) => self.drained_to_client(drained, now, sink),
        }
    }

    #[cold]
    fn drained_to_app(&mut self, drained: Drained, now: Instant) {
        if let Drained::Blocked { .. } = drained {
            if !std::mem::replace(&mut self.stalled.client, true) {
                self.observer.paused(Sender::Client);
            }
            return self.engine.reads_paused(now);
        }
        if std::mem::take(&mut self.stalled.client) {
            self.engine.reads_resumed(now);
        }
        if self.app_probe == AppProbe::Handed {
            self.app_probe = AppProbe::No;
            self.app_ledger.written(now);
            self.liveness.probe_written(now);
        }
    }

    #[cold]
    fn drained_to_client<T: Leg>(&mut self, drained: Drained, now: Instant, sink: &T) {
        if let Drained::Blocked { progress } = drained {
            if progress || !self.stalled.server {
                self.engine.write_blocked(now);
            }
            if !std::mem::replace(&mut self.stalled.server, true) {
                self.observer.paused(Sender::Server);
            }
            return;
        }
        if std::mem::take(&mut self.stalled.server) {
            self.engine.write_clear(now);
        }
        if self.engine.awaits_flush() {
            self.engine.flushed(now, sink.written(), sink.delivery());
            self.await_answer(sink);
        }
    }

    /// Reports to the client's leg what the heartbeat waits for.
    pub(super) fn await_answer<T: Leg>(&self, client: &T) {
        if let Some((since, window)) = self.engine.answer_window() {
            client.await_answer(since, window);
        }
    }

    /// Returns whether the client's own heartbeats wait for their answers.
    pub(super) fn has_pending_replies(&self) -> bool {
        self.owed.is_some()
    }

    /// The masking key for a frame of our own in the direction of what `from` sends, where that is masked.
    pub(super) fn key_for_sink_of(&mut self, from: Sender) -> Option<[u8; 4]> {
        (from == Sender::Client).then(|| self.key())
    }

    /// A masking key for a frame of our own to the app (RFC 6455 §5.3).
    pub(super) fn key(&mut self) -> [u8; 4] {
        self.keys.u32(..).to_be_bytes()
    }

    /// The client's heartbeat, or its answer to one.
    fn beat(&mut self, now: Instant) -> Result<Fate, CloseCause> {
        let fate = self.engine.client_heartbeat(now);
        self.answered(fate == HeartbeatAction::Swallow, now);
        match fate {
            HeartbeatAction::Forward => Ok(Fate::Pass),
            HeartbeatAction::Flood => Err(CloseCause::HeartbeatFlood),
            HeartbeatAction::Swallow => Ok(Fate::Drop),
            HeartbeatAction::Answer => {
                if let Some(owed) = &mut self.owed {
                    owed.count = MAX_PENDING_REPLIES.min(owed.count + 1);
                } else if let Some(listener) = &self.listener {
                    self.owed = Some(Box::new(PendingReplies { profile: Arc::clone(listener.profile()), count: 1 }));
                }
                Ok(Fate::Drop)
            }
        }
    }

    /// The next answer that the client is owed.
    pub(super) fn answer(&mut self) -> Option<Transmit> {
        let mut owed = self.owed.take()?;
        let answer = Transmit::Message(Arc::clone(&owed.profile));
        owed.count -= 1;
        if owed.count > 0 {
            self.owed = Some(owed);
        }
        debug!(target: BEAT, conn_id = %self.id, "heartbeat.answer");
        Some(answer)
    }

    fn client_pong(&mut self, payload: &[u8], now: Instant) -> Fate {
        let fate = self.engine.pong(payload, now);
        self.answered(matches!(fate, PongAction::Swallow { .. }), now);
        match fate {
            PongAction::Forward => Fate::Pass,
            PongAction::Swallow { owed: None } | PongAction::Surplus => Fate::Drop,
            PongAction::Swallow { owed: Some(owed) } => {
                Fate::Replace(ControlFrame::new(Opcode::PONG, &owed, Some(self.key())))
            }
        }
    }

    /// The client has answered a probe, which was the proxy's `own` or not, or has beaten by itself.
    fn answered(&mut self, own: bool, now: Instant) {
        let rtt = self.engine.take_rtt();
        self.control.figures.ponged(now, own, rtt);
        match rtt {
            _ if own => {
                self.observer.ponged(rtt);
                let rtt_s = rtt.map(|rtt| rtt.as_secs_f64());
                debug!(target: BEAT, conn_id = %self.id, rtt_s, "heartbeat.pong");
            }
            Some(rtt) => self.observer.measured(rtt),
            None => {}
        }
    }

    /// A window has passed without a sign of life.
    pub(super) fn missed(&self) {
        let misses = self.engine.misses();
        self.control.figures.missed();
        self.observer.missed(misses, self.engine.most_misses());
        debug!(target: BEAT, conn_id = %self.id, misses, "heartbeat.missed");
    }

    /// The end is decided: no more probes.
    pub(super) fn ending(&mut self, cause: &CloseCause) {
        self.ending = true;
        self.app_probe = AppProbe::No;
        self.engine.closing();
        self.control.figures.closing();
        match cause {
            CloseCause::ClientUnanswered => {
                self.engine.count_miss();
                self.missed();
                return self.observer.timed_out();
            }
            CloseCause::HeartbeatTimeout => self.observer.timed_out(),
            CloseCause::SlowReader | CloseCause::Trickle | CloseCause::UpstreamStalled => {}
            _ => return,
        }
        debug!(target: BEAT, conn_id = %self.id, reason = cause.reason().as_str(), "heartbeat.teardown");
    }

    /// The session has ended, as far as anything is still written.
    pub(super) fn ended(&self, ending: &Ending) {
        self.observer.ended(ending);
    }

    fn client_ping(&mut self, payload: &[u8], now: Instant) -> Result<Fate, CloseCause> {
        match self.engine.client_ping(now) {
            PingAction::Flood => Err(CloseCause::PingFlood),
            PingAction::Forward => {
                self.app_ledger.add_relayed(payload);
                Ok(Fate::Pass)
            }
            PingAction::Answer => {
                self.reply = Some(Box::new(ControlFrame::new(Opcode::PONG, payload, None)));
                Ok(Fate::Drop)
            }
        }
    }

    fn app_pong(&mut self, payload: &[u8], now: Instant) -> Fate {
        match self.app_ledger.pong(payload, now) {
            PongMatch::Own { rtt, owed } => {
                if let Some(rtt) = rtt {
                    self.observer.upstream_ponged(rtt);
                }
                owed.map_or(Fate::Drop, |owed| Fate::Replace(ControlFrame::new(Opcode::PONG, &owed, None)))
            }
            PongMatch::Surplus => Fate::Drop,
            PongMatch::Relayed | PongMatch::Unknown => Fate::Pass,
        }
    }
}
