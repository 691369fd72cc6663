//! Pings and pongs: the client's, the app's, and the heartbeat's own.

use std::time::{Duration, Instant};

use super::Engine;
use crate::heartbeat::ledger::Answer;
use crate::heartbeat::phase::{Phase, Reissue};
use crate::heartbeat::{ClientPing, Mode, PingFate, PongFate, Proof, Transmit};
use crate::ws::{ControlFrame, Opcode};

/// How long the answer to a relayed ping may trail the answer to ours before it counts as dropped by the client.
const TRAIL: Duration = Duration::from_secs(1);

impl Engine {
    /// A Pong of the client, unmasked.
    pub fn pong(&mut self, payload: &[u8], now: Instant) -> PongFate {
        self.hurried = true;
        // Where the probe was a message, no Pong is an answer to it.
        let answers_probe = self.proof == Proof::Pongs || std::mem::take(&mut self.pinged_instead);
        if answers_probe {
            self.last_byte = now;
            self.alive(now);
        }
        let answer = self.ledger.pong(payload, now);
        match answer {
            Answer::Unknown => {}
            _ if answers_probe => self.answered(now),
            _ => self.downlink.proven(),
        }
        let fate = match answer {
            Answer::Relayed => PongFate::Forward,
            Answer::Surplus => PongFate::Surplus,
            Answer::Unknown => {
                self.downlink.unclear();
                self.stats.strays += 1;
                PongFate::Forward
            }
            Answer::Own { rtt, owed } => {
                self.stats.pongs += 1;
                if let Some(rtt) = rtt {
                    self.measured(rtt);
                }
                let trail = self.rtt.smoothed().map_or(TRAIL, |srtt| TRAIL.max(srtt * 2));
                self.ledger.overtake(now + trail.min(self.policy.timeout / 2));
                PongFate::Swallow { owed }
            }
        };
        self.plan_reissue();
        fate
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

    /// A Ping of the app goes out to the client; it counts as the probe where a Pong is what is waited for.
    pub fn app_ping(&mut self, payload: &[u8], now: Instant) {
        if self.phase == Phase::Still {
            return;
        }
        self.ledger.relayed(payload);
        if self.proof == Proof::Pongs {
            self.asked_by_app(now);
        }
    }

    pub(super) fn ping(&mut self) -> Transmit {
        Transmit::Control(ControlFrame::new(Opcode::PING, &self.ledger.own(), None))
    }

    /// A Ping of the app's that goes out once more, if one is due.
    pub(super) fn reissued(&mut self, now: Instant) -> Option<Transmit> {
        if !self.reissue.is_due(now) {
            return None;
        }
        self.reissue = Reissue::None;
        let payload = self.ledger.reissue(now);
        self.plan_reissue();
        Some(Transmit::Control(ControlFrame::new(Opcode::PING, &payload?, None)))
    }

    /// Arms the reissue for the first Ping of the app's that needs it, or disarms it.
    fn plan_reissue(&mut self) {
        let at = self.ledger.reissue_at().filter(|_| self.phase != Phase::Still);
        self.reissue = match (at, self.reissue) {
            (None, _) => Reissue::None,
            (Some(_), Reissue::Due) => Reissue::Due,
            (Some(at), _) => Reissue::At(at),
        };
    }
}
