//! The two guarantees: a live client is never torn down, and a dead one is gone within its bound.

use std::time::Duration;

use pulsegate::heartbeat::{Liveness, Mode};
use pulsegate::session::{EndReason, Ending};

use super::{Case, MARGIN, SLACK};
use crate::wire::{LegWire, Marks};

/// The longest window of an adaptive heartbeat.
const ADAPTIVE_MAX: Duration = Duration::from_secs(60);

impl Case<'_> {
    /// Returns the certain signs of life of a client, and those that may count as one.
    fn signs<'w>(&self, wire: &'w LegWire) -> ([&'w Marks; 1], [&'w Marks; 2]) {
        let LegWire { bytes, frames, pongs, data, beats, .. } = wire;
        let is_protocol = matches!(self.policy.mode, Mode::Protocol | Mode::Off);
        match (is_protocol, self.policy.liveness) {
            (true, Liveness::AnyBytes) => ([bytes], [bytes, bytes]),
            (true, Liveness::AnyFrame) => ([frames], [frames, frames]),
            (true, Liveness::PongOnly) => ([pongs], [pongs, pongs]),
            (false, Liveness::AnyBytes) => ([data], [bytes, bytes]),
            (false, Liveness::AnyFrame) => ([data], [frames, frames]),
            (false, Liveness::PongOnly) => ([beats], [beats, pongs]),
        }
    }

    fn certain_sign_before(&self, wire: &LegWire, at: Duration) -> Option<Duration> {
        let signs = self.signs(wire).0;
        if let Some(dead) = self.plays_dead_from() {
            return signs.into_iter().filter_map(|marks| marks.before(dead.min(at))).max();
        }
        // Bytes that arrive during a stop of the process are read when it continues.
        signs.into_iter().filter_map(|marks| marks.before(at)).max().map(|sign| self.proxy.process.awake(sign))
    }

    fn last_possible_sign(&self, wire: &LegWire) -> Duration {
        let until = self.plays_dead_from().unwrap_or(Duration::MAX);
        let last = self.signs(wire).1.into_iter().filter_map(|marks| marks.before(until)).max();
        last.map_or(self.opened, |last| last.max(self.opened))
    }

    /// Returns the time that a client has for a sign of life, at least.
    fn window(&self) -> Duration {
        match self.policy.mode {
            Mode::Answer(_) => self.policy.window.unwrap_or_default(),
            _ => self.policy.timeout * self.policy.max_missed,
        }
    }

    /// Returns the time that a client has for a sign of life, at most.
    fn longest_window(&self) -> Duration {
        let adaptive = if self.policy.adaptive { ADAPTIVE_MAX } else { Duration::ZERO };
        match self.policy.mode {
            // The window follows the quiet time.
            Mode::Answer(_) => Duration::ZERO,
            // A message that finds no gap is replaced by a ping.
            Mode::App(_) => (self.policy.timeout.max(adaptive)) * (self.policy.max_missed + 1),
            _ => self.policy.timeout.max(adaptive) * self.policy.max_missed,
        }
    }

    /// Returns the longest quiet time before the proxy probes.
    fn longest_quiet(&self) -> Duration {
        let policy = self.policy;
        match (&policy.mode, policy.liveness) {
            (Mode::Answer(_), _) => policy.window.unwrap_or_default(),
            (Mode::Protocol, Liveness::AnyBytes) => policy.interval,
            // Bytes that are no sign of life postpone the probe.
            _ => policy.interval.max(policy.probe_when_busy),
        }
    }

    /// Returns a failure for a client whose end has not begun although its time is over.
    pub fn late(&self) -> Option<(&'static str, String)> {
        if self.policy.mode == Mode::Off {
            return None;
        }
        let (policy, now) = (self.policy, self.now);
        let (client, app) = (self.record.client.borrow(), self.record.app.borrow());
        let (quiet, window) = (self.longest_quiet(), self.longest_window());
        let stall = policy.write_stall + policy.write_stall / 4;
        let sign = self.last_possible_sign(&client);
        let due = sign + quiet;
        let mut bounds = vec![due + window];
        // A backlog that moves freezes the clock, and one that does not has its own time.
        if client.unacked >= 256 || client.full_since.is_some() {
            bounds.push(due + stall + window);
        }
        bounds.extend(client.slow_acks.last().map(|at| at + stall + window.max(quiet)));
        // A client that is not read because its app takes nothing.
        if let Some(since) = app.full_since {
            bounds.push(since.max(client.bytes.last().unwrap_or_default()) + policy.max_deferral + quiet + window);
        } else if let Some(until) = app.full_last {
            bounds.push(until + quiet + window);
        }
        // A probe that waits for the end of a frame.
        if client.out_inside_since.is_some() {
            let from = due.max(client.acks.last().unwrap_or_default());
            bounds.push(from + policy.max_deferral + policy.write_stall + window);
        } else if let Some(until) = client.out_inside_last {
            bounds.push(until + window);
        }
        let bound = bounds.iter().max().copied().unwrap_or_default() + self.stopped(sign);
        if now > bound + SLACK {
            return Some(("dead client past its bound", format!("last sign {sign:?}, bounds {bounds:?}")));
        }
        self.downlink_is_dead(&client, app.full_until(now))
    }

    /// Returns a failure for a client that sends and takes nothing.
    fn downlink_is_dead(&self, client: &LegWire, app_full: Option<Duration>) -> Option<(&'static str, String)> {
        let policy = self.policy;
        if !matches!(policy.mode, Mode::Protocol) {
            return None;
        }
        let since = client.unacked_since?.max(client.acks.last().unwrap_or_default()).max(app_full.unwrap_or_default());
        let frame = client.out_inside_since.map_or(Duration::ZERO, |_| policy.max_deferral);
        let bound = since + policy.probe_when_busy + self.longest_window() + policy.write_stall * 3 / 2 + frame;
        (self.now > bound + self.stopped(since) + SLACK).then(|| {
            let text = format!("nothing acknowledged since {since:?}, {} bytes are outstanding", client.unacked);
            ("dead downlink past its bound", text)
        })
    }

    /// Returns whether the client has been taking one frame of the app, as it came, for all the time that a probe may
    /// wait.
    fn takes_a_long_frame(&self, client: &LegWire, at: Duration) -> bool {
        let policy = self.policy;
        let Some(since) = self.before.out_inside_since else { return false };
        let last_sign = self.last_possible_sign(client);
        policy.mode == Mode::Protocol
            && since < last_sign + policy.interval.mul_f64(0.5 * (1.0 - policy.jitter))
            && since + policy.max_deferral < at
            && !self.before.is_full
            && client.acks.before(at).is_some_and(|moved| moved + policy.write_stall > at + MARGIN)
    }

    /// Returns a failure for a client that was given up although it was alive.
    pub fn killed_alive(&self, ended: Duration, ending: &Ending) -> Option<(&'static str, String)> {
        const RULE: &str = "live client torn down";
        let policy = self.policy;
        let client = self.record.client.borrow();
        let own = [client.own_end(), self.record.app.borrow().own_end()].into_iter().flatten().min();
        let at = self.record.given_up().or(own).unwrap_or(ended);
        // A sign that arrives at the very instant of the decision may be too late for it.
        let sign = self.certain_sign_before(&client, at.saturating_sub(MARGIN));
        let why =
            |text: &str| Some((RULE, format!("{:?} at {at:?}: {text}; last sign {sign:?}", ending.cause.reason())));
        if policy.mode == Mode::Off {
            return why("the heartbeat is off");
        }
        if ending.cause.reason() != EndReason::Trickle && self.takes_a_long_frame(&client, at) {
            return why("it took all of a frame of the app, behind which its probe waited");
        }
        match ending.cause.reason() {
            EndReason::HeartbeatTimeout => {
                let sign = sign.unwrap_or(self.opened);
                if sign + self.window() > at + MARGIN {
                    return why("it was heard within its window");
                }
                // Acknowledgements of what was outstanding before are no progress of what is held now.
                let moved = client.slow_acks.before(at).filter(|moved| self.before.unacked_since <= Some(*moved));
                let moved = moved.is_some_and(|moved| moved + policy.write_stall > at + MARGIN);
                let has_time = self.before.unacked_since.is_some_and(|since| since + policy.max_deferral > at)
                    && sign + policy.max_deferral > at;
                // The bytes that the TLS stream of the simulation holds itself are not known.
                let is_held = self.before.is_full && !client.is_encrypted;
                if is_held && moved && has_time && !matches!(policy.mode, Mode::Answer(_)) {
                    return why("it took bytes that were held for it");
                }
            }
            EndReason::SlowReader => {
                let acked = client.acks.before(at);
                let is_over =
                    |since: Option<Duration>| since.is_none_or(|since| since + policy.max_deferral <= at + SLACK);
                let deferred = is_over(self.before.unacked_since) || is_over(sign);
                if acked.is_some_and(|acked| acked + policy.write_stall > at + MARGIN) && !deferred {
                    return why(&format!("it acknowledged bytes at {acked:?}"));
                }
            }
            EndReason::Trickle if !client.is_encrypted => {
                let since = self.before.inside_since.unwrap_or(at);
                // If its time ends in a long stop, the bytes that arrived meanwhile are read first.
                let due = since + policy.frame_max_time;
                let awake = self.proxy.process.awake(due);
                let fresh = if awake > due + policy.stall_guard { policy.timeout } else { Duration::ZERO };
                if awake + fresh > at + SLACK {
                    return why(&format!("its frame began at {since:?}"));
                }
            }
            _ => {}
        }
        None
    }
}
