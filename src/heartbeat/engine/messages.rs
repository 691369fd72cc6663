//! Heartbeats made of messages: the probes and answers of applications.

use std::time::{Duration, Instant};

use super::Engine;
use crate::heartbeat::app_probes::Answered;
use crate::heartbeat::phase::ProbePhase;
use crate::heartbeat::{Gap, HeartbeatAction, Mode, ProofOfLife, Transmit};

impl Engine {
    /// Records a probe message sent by the app to the client; it counts as the proxy's probe.
    pub fn app_probe(&mut self, now: Instant) {
        if self.proof == ProofOfLife::Answers && self.phase != ProbePhase::Still {
            self.questions.apps(now, self.answer_timeout());
            self.probed_by_app(now);
        }
    }

    /// Records a heartbeat message that the profile expects from the client.
    pub fn client_heartbeat(&mut self, now: Instant) -> HeartbeatAction {
        self.hurried = true;
        match &self.policy.mode {
            Mode::Answer(_) if self.must_send() => {
                self.alive(now);
                if self.client_beats.count(now) { HeartbeatAction::Flood } else { HeartbeatAction::Answer }
            }
            Mode::App(_) | Mode::Passive(_) if self.proof == ProofOfLife::Answers => self.answer(now),
            _ => {
                self.alive(now);
                HeartbeatAction::Forward
            }
        }
    }

    /// Records the message that puts the profile in force.
    pub fn start(&mut self, now: Instant) {
        if let Some(proof) = self.policy.proof() {
            self.set_proof(proof, now);
        }
    }

    /// Records the proof of life that the protocol's own handshake has negotiated.
    pub fn agreed(&mut self, proof: ProofOfLife, now: Instant) {
        self.set_proof(self.policy.proof_of(proof), now);
    }

    /// Records a client message that cannot be read, but may be the expected heartbeat message.
    pub fn unreadable_message(&mut self, now: Instant) {
        if self.proof != ProofOfLife::Pongs {
            self.alive(now);
        }
    }

    /// Records a read of app bytes.
    #[inline]
    pub fn app_sent(&mut self, now: Instant) {
        match self.proof {
            ProofOfLife::SendsWhenIdle(_) => self.hurried = true,
            ProofOfLife::SendsAfterApp(_) if !self.app_has_sent => {
                self.app_has_sent = true;
                self.hurried = true;
            }
            _ => return,
        }
        self.last_byte = now;
        self.put_off = Duration::ZERO;
    }

    /// Returns whether the client must send on its own.
    #[inline]
    pub(super) fn must_send(&self) -> bool {
        self.proof.window().is_some()
    }

    /// Returns whether the probes are messages.
    pub(super) fn probes_by_message(&self) -> bool {
        self.proof == ProofOfLife::Answers && matches!(self.policy.mode, Mode::App(_))
    }

    /// Returns the time until which a client that must send on its own may be silent.
    pub(super) fn silent_until(&self) -> Option<Instant> {
        match self.proof {
            ProofOfLife::SendsAfterApp(_) if !self.app_has_sent => None,
            proof => proof.window().map(|window| self.last_byte + window),
        }
    }

    /// Gives a client that must send on its own at least `time` from now, at most its window, as if its last bytes had
    /// arrived accordingly later.
    pub(super) fn extend_silence(&mut self, now: Instant, time: Duration) {
        let Some((until, window)) = self.silent_until().zip(self.proof.window()) else { return };
        let more = (now + time.min(window)).saturating_duration_since(until);
        self.last_byte += more;
        self.put_off += more;
    }

    /// Gives the client a fresh window because app data is only now being written to it: a client that answers the app,
    /// or sends when it receives nothing, may yet be silent for a whole window.
    pub(super) fn extend_while_writing(&mut self, now: Instant) {
        if let Some(window) = self.proof.window()
            && self.put_off < self.policy.max_deferral
        {
            self.extend_silence(now, window);
        }
    }

    /// Returns the probe queued since `since`, in the form that fits into `gap`.
    pub(super) fn probe(&mut self, now: Instant, since: Instant, gap: Gap) -> Option<Transmit> {
        if !self.probes_by_message() {
            return Some(self.ping());
        }
        match (gap, self.policy.mode.profile()) {
            (Gap::Message, Some(profile)) => {
                self.questions.ours(now, self.answer_timeout());
                self.pinged_instead = false;
                Some(Transmit::Message(profile.clone()))
            }
            // The app leaves a message open: a Pong is a weaker proof, but better than none.
            (Gap::Frame, _) if now >= since + self.window() => {
                self.pinged_instead = true;
                Some(self.ping())
            }
            _ => None,
        }
    }

    /// Returns the time after which an unanswered probe no longer claims the next answer: unlimited if the answer may
    /// be behind an unfinished frame or is not being read.
    fn answer_timeout(&self) -> Duration {
        let is_heard = self.paused.is_none() && self.frame_began().is_none();
        if is_heard { self.window() } else { Duration::MAX }
    }

    /// Assigns an answer to the oldest unanswered probe.
    fn answer(&mut self, now: Instant) -> HeartbeatAction {
        self.alive(now);
        let Some(Answered { ours, rtt }) = self.questions.answered(now, self.answer_timeout()) else {
            // To the app it is a message like any other; only a flood of them is refused.
            let asks = self.probes_by_message();
            return if asks && self.client_beats.count(now) {
                HeartbeatAction::Flood
            } else {
                HeartbeatAction::Forward
            };
        };
        self.answered(now);
        if let Some(rtt) = rtt {
            self.measured(rtt);
        }
        if !ours {
            return HeartbeatAction::Forward;
        }
        self.stats.pongs += 1;
        HeartbeatAction::Swallow
    }

    /// Puts `proof` in force and restarts its clock.
    fn set_proof(&mut self, proof: ProofOfLife, now: Instant) {
        if self.proof == proof {
            return;
        }
        self.proof = proof;
        self.hurried = true;
        self.last_byte = now;
        self.put_off = Duration::ZERO;
        self.app_has_sent = false;
        // The new proof does not recognise answers to earlier probes.
        if self.phase != ProbePhase::Still {
            self.phase = ProbePhase::Quiet;
            self.schedule_next(now);
        }
    }
}
