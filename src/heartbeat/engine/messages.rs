//! Heartbeats that are messages: the questions and answers of applications.

use std::time::{Duration, Instant};

use super::Engine;
use crate::heartbeat::phase::Phase;
use crate::heartbeat::questions::Answered;
use crate::heartbeat::{BeatFate, Gap, Mode, Proof, Transmit};

impl Engine {
    /// A question of the app's own goes out to the client; it counts as the probe.
    pub fn question(&mut self, now: Instant) {
        if self.proof == Proof::Answers && self.phase != Phase::Still {
            self.questions.apps(now, self.patience());
            self.asked_by_app(now);
        }
    }

    /// The client has sent the message that its profile expects of it.
    pub fn beat(&mut self, now: Instant) -> BeatFate {
        self.hurried = true;
        match &self.policy.mode {
            Mode::Answer(_) if self.must_speak() => {
                self.alive(now);
                if self.client_beats.count(now) { BeatFate::Flood } else { BeatFate::Answer }
            }
            Mode::App(_) | Mode::Passive(_) if self.proof == Proof::Answers => self.answer(now),
            _ => {
                self.alive(now);
                BeatFate::Forward
            }
        }
    }

    /// The message has passed with which the profile comes into force.
    pub fn start(&mut self, now: Instant) {
        if let Some(proof) = self.policy.proof() {
            self.adopt(proof, now);
        }
    }

    /// The protocol's own handshake has agreed on how it shows that the client is alive.
    pub fn agreed(&mut self, proof: Proof, now: Instant) {
        self.adopt(self.policy.proof_of(proof), now);
    }

    /// The client has sent a message that may be what its profile expects of it, but cannot be read.
    pub fn perhaps_beat(&mut self, now: Instant) {
        if self.proof != Proof::Pongs {
            self.alive(now);
        }
    }

    /// Bytes of the app were read.
    #[inline]
    pub fn app_spoke(&mut self, now: Instant) {
        match self.proof {
            Proof::SpeaksWhenQuiet(_) => self.hurried = true,
            Proof::SpeaksWhenSpokenTo(_) if !self.spoken_to => {
                self.spoken_to = true;
                self.hurried = true;
            }
            _ => return,
        }
        self.last_byte = now;
        self.put_off = Duration::ZERO;
    }

    /// Whether the client has to speak without being asked.
    #[inline]
    pub(super) fn must_speak(&self) -> bool {
        self.proof.window().is_some()
    }

    /// Whether the probes are messages.
    pub(super) fn asks_by_message(&self) -> bool {
        self.proof == Proof::Answers && matches!(self.policy.mode, Mode::App(_))
    }

    /// Until when a client that has to speak by itself may be silent.
    pub(super) fn silent_until(&self) -> Option<Instant> {
        match self.proof {
            Proof::SpeaksWhenSpokenTo(_) if !self.spoken_to => None,
            proof => proof.window().map(|window| self.last_byte + window),
        }
    }

    /// Gives a client that has to speak by itself `time` from now at least, its window at most, as if it had been heard
    /// when that would have given it as much.
    pub(super) fn spare(&mut self, now: Instant, time: Duration) {
        let Some((until, window)) = self.silent_until().zip(self.proof.window()) else { return };
        let more = (now + time.min(window)).saturating_duration_since(until);
        self.last_byte += more;
        self.put_off += more;
    }

    /// Some of what the app has said is only now on its way to the client, so that one that answers it, or beats when it
    /// hears nothing, may yet be silent for a whole window.
    pub(super) fn not_yet_told(&mut self, now: Instant) {
        if let Some(window) = self.proof.window()
            && self.put_off < self.policy.max_deferral
        {
            self.spare(now, window);
        }
    }

    /// The probe that has waited since `since`, in the form that fits into `gap`.
    pub(super) fn probe(&mut self, now: Instant, since: Instant, gap: Gap) -> Option<Transmit> {
        if !self.asks_by_message() {
            return Some(self.ping());
        }
        match (gap, self.policy.mode.profile()) {
            (Gap::Message, Some(profile)) => {
                self.questions.ours(now, self.patience());
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

    /// How long a question may go unanswered before another one is taken to be answered first: for ever where the
    /// answer may be behind a frame that has not ended, or is not being read.
    fn patience(&self) -> Duration {
        let is_heard = self.paused.is_none() && self.frame_began().is_none();
        if is_heard { self.window() } else { Duration::MAX }
    }

    /// An answer, which belongs to the oldest question.
    fn answer(&mut self, now: Instant) -> BeatFate {
        self.alive(now);
        let Some(Answered { ours, rtt }) = self.questions.answered(now, self.patience()) else {
            // To the app it is a message like any other; who sends too many of them asks for trouble.
            let asks = self.asks_by_message();
            return if asks && self.client_beats.count(now) { BeatFate::Flood } else { BeatFate::Forward };
        };
        self.answered(now);
        if let Some(rtt) = rtt {
            self.measured(rtt);
        }
        if !ours {
            return BeatFate::Forward;
        }
        self.stats.pongs += 1;
        BeatFate::Swallow
    }

    /// From now on `proof` tells that the client is alive, and its clock begins anew.
    fn adopt(&mut self, proof: Proof, now: Instant) {
        if self.proof == proof {
            return;
        }
        self.proof = proof;
        self.hurried = true;
        self.last_byte = now;
        self.put_off = Duration::ZERO;
        self.spoken_to = false;
        // What was asked before, by whomever, is no question that the new proof would see answered.
        if self.phase != Phase::Still {
            self.phase = Phase::Quiet;
            self.schedule_next(now);
        }
    }
}
