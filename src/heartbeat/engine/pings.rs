//! Pings and pongs of the client, the app and the heartbeat itself.

use std::time::{Duration, Instant};

use super::Engine;
use crate::heartbeat::ledger::PongMatch;
use crate::heartbeat::phase::{ProbePhase, Reissue};
use crate::heartbeat::{ClientPing, Mode, PingAction, PongAction, ProofOfLife, Transmit};
use crate::ws::{ControlFrame, Opcode};

/// The time by which the answer to a relayed ping may trail the answer to the proxy's before it counts as dropped by
/// the client.
const TRAIL: Duration = Duration::from_secs(1);

impl Engine {
    /// Records a Pong of the client, with its payload unmasked.
    pub fn pong(&mut self, payload: &[u8], now: Instant) -> PongAction {
        self.hurried = true;
        // If the probe was a message, no Pong answers it.
        let answers_probe = self.proof == ProofOfLife::Pongs || std::mem::take(&mut self.pinged_instead);
        if answers_probe {
            self.last_byte = now;
            self.alive(now);
        }
        let answer = self.ledger.pong(payload, now);
        match answer {
            PongMatch::Unknown => {}
            _ if answers_probe => self.answered(now),
            _ => self.downlink.record_answer(),
        }
        let fate = match answer {
            PongMatch::Relayed => PongAction::Forward,
            PongMatch::Surplus => PongAction::Surplus,
            PongMatch::Unknown => {
                self.downlink.record_unknown_pong();
                self.stats.strays += 1;
                PongAction::Forward
            }
            PongMatch::Own { rtt, owed } => {
                self.stats.pongs += 1;
                if let Some(rtt) = rtt {
                    self.measured(rtt);
                }
                let trail = self.rtt.smoothed().map_or(TRAIL, |srtt| TRAIL.max(srtt * 2));
                self.ledger.overtake(now + trail.min(self.policy.timeout / 2));
                PongAction::Swallow { owed }
            }
        };
        self.plan_reissue();
        fate
    }

    /// Records a Ping of the client.
    pub fn client_ping(&mut self, now: Instant) -> PingAction {
        let over = self.client_pings.count(now);
        match self.policy.client_ping {
            _ if over && self.policy.mode != Mode::Off => PingAction::Flood,
            ClientPing::Forward => PingAction::Forward,
            ClientPing::Answer => PingAction::Answer,
        }
    }

    /// Records a Ping of the app sent to the client; it counts as the probe if a Pong is the proof of life.
    pub fn app_ping(&mut self, payload: &[u8], now: Instant) {
        if self.phase == ProbePhase::Still {
            return;
        }
        self.ledger.add_relayed(payload);
        if self.proof == ProofOfLife::Pongs {
            self.probed_by_app(now);
        }
    }

    pub(super) fn ping(&mut self) -> Transmit {
        Transmit::Control(ControlFrame::new(Opcode::PING, &self.ledger.add_own(), None))
    }

    /// Returns a Ping of the app to be sent again, if one is due.
    pub(super) fn reissued(&mut self, now: Instant) -> Option<Transmit> {
        if !self.reissue.is_due(now) {
            return None;
        }
        self.reissue = Reissue::None;
        let payload = self.ledger.reissue(now);
        self.plan_reissue();
        Some(Transmit::Control(ControlFrame::new(Opcode::PING, &payload?, None)))
    }

    /// Schedules the next Ping of the app to be sent again, or clears the schedule.
    fn plan_reissue(&mut self) {
        let at = self.ledger.reissue_at().filter(|_| self.phase != ProbePhase::Still);
        self.reissue = match (at, self.reissue) {
            (None, _) => Reissue::None,
            (Some(_), Reissue::Due) => Reissue::Due,
            (Some(at), _) => Reissue::At(at),
        };
    }
}
