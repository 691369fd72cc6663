//! The record of the unanswered pings sent to one peer, in wire order, which attributes each pong to its ping.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The maximum number of outstanding pings; the oldest are dropped beyond it.
pub const MAX_OUTSTANDING: usize = 16;

/// The pings sent to one peer, the proxy's own and the other peer's, in wire order.
///
/// Nonces decide which pongs are swallowed, never whether the peer is alive; the engine decides that.
#[derive(Debug)]
pub struct Ledger {
    /// The prefix that distinguishes this connection's own pings from all others.
    nonce: [u8; 4],
    /// The sequence number of the next own ping.
    next: u32,
    outstanding: VecDeque<Ping>,
}

#[derive(Debug)]
enum Ping {
    /// A ping of the proxy; `sent` is `None` until it has been written.
    Own { sequence: u32, sent: Option<Instant> },
    /// A ping of the other peer, relayed.
    Relayed { payload: Box<[u8]>, turn: Turn },
    /// The second sending of a relayed ping. `surplus` is true once the first sending has been answered, so that the
    /// pong of this one is redundant.
    Reissued { payload: Box<[u8]>, surplus: bool },
}

/// The progress of a relayed ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Sent; its pong is awaited.
    Awaited,
    /// Overtaken by the answer to one of the proxy's own pings; its own pong may follow until `until`.
    Overtaken { until: Instant },
    /// Sent a second time, or covered by a later ping that was.
    Reissued,
}

/// The ping that a pong answers.
#[derive(Debug, PartialEq, Eq)]
pub enum PongMatch {
    /// A ping of the proxy: swallow the pong.
    Own {
        /// The round trip of that ping, if it is still in the ledger.
        rtt: Option<Duration>,
        /// The payload of the newest unanswered relayed ping before the proxy's. A peer may answer only the latest ping
        /// (RFC 6455 §5.5.3), so the sender of that ping must be given a pong.
        owed: Option<Box<[u8]>>,
    },
    /// A relayed ping: forward the pong.
    Relayed,
    /// The second sending of a relayed ping whose pong has been forwarded: swallow the pong.
    Surplus,
    /// No known ping: forward the pong.
    Unknown,
}

impl Ledger {
    /// Creates an empty ledger whose own pings carry `nonce`.
    pub fn new(nonce: [u8; 4]) -> Self {
        Self { nonce, next: 0, outstanding: VecDeque::new() }
    }

    /// Adds an own ping and returns its payload: the nonce and a sequence number.
    pub fn add_own(&mut self) -> [u8; 8] {
        let sequence = self.next;
        self.next = self.next.wrapping_add(1);
        self.enter(Ping::Own { sequence, sent: None });
        (u64::from(u32::from_be_bytes(self.nonce)) << 32 | u64::from(sequence)).to_be_bytes()
    }

    /// Adds a ping of the other peer.
    pub fn add_relayed(&mut self, payload: &[u8]) {
        self.enter(Ping::Relayed { payload: payload.into(), turn: Turn::Awaited });
    }

    /// Records that all pings added so far have been written.
    pub fn written(&mut self, now: Instant) {
        for ping in self.outstanding.iter_mut().rev() {
            match ping {
                Ping::Own { sent: Some(_), .. } => break,
                Ping::Own { sent, .. } => *sent = Some(now),
                Ping::Relayed { .. } | Ping::Reissued { .. } => {}
            }
        }
    }

    /// Attributes a pong, and settles its ping and all pings before it.
    pub fn pong(&mut self, payload: &[u8], now: Instant) -> PongMatch {
        match self.own_sequence(payload) {
            Some(sequence) => self.settle_own(sequence, now),
            None => self.settle_relayed(payload),
        }
    }

    /// Marks the relayed pings outstanding at the answer to an own ping: those still unanswered at `until` are to be
    /// sent again. Pings added later are not marked.
    pub fn overtake(&mut self, until: Instant) {
        for ping in &mut self.outstanding {
            if let Ping::Relayed { turn: turn @ Turn::Awaited, .. } = ping {
                *turn = Turn::Overtaken { until };
            }
        }
    }

    /// Returns the time at which the first marked ping must be sent again, unless it is answered before.
    pub fn reissue_at(&self) -> Option<Instant> {
        self.outstanding.iter().filter_map(Ping::overtaken_until).min()
    }

    /// Adds the newest relayed ping due at `now` a second time and returns its payload, once per ping; its answer also
    /// covers older ones.
    pub fn reissue(&mut self, now: Instant) -> Option<Box<[u8]>> {
        let is_due = |ping: &Ping| ping.overtaken_until().is_some_and(|until| until <= now);
        let at = self.outstanding.iter().rposition(is_due)?;
        let mut newest = None;
        for ping in self.outstanding.range_mut(..=at) {
            if let Ping::Relayed { payload, turn: turn @ Turn::Overtaken { .. } } = ping {
                *turn = Turn::Reissued;
                newest = Some(payload.clone());
            }
        }
        let payload = newest?;
        self.enter(Ping::Reissued { payload: payload.clone(), surplus: false });
        Some(payload)
    }

    fn enter(&mut self, ping: Ping) {
        if self.outstanding.len() == MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back(ping);
    }

    /// Returns the sequence number if the payload is that of an own ping, current or stale.
    fn own_sequence(&self, payload: &[u8]) -> Option<u32> {
        let (nonce, sequence) = payload.split_first_chunk::<4>()?;
        let sequence = u32::from_be_bytes(sequence.try_into().ok()?);
        (*nonce == self.nonce && sequence < self.next).then_some(sequence)
    }

    fn settle_own(&mut self, sequence: u32, now: Instant) -> PongMatch {
        let found =
            self.outstanding.iter().position(|ping| matches!(ping, Ping::Own { sequence: s, .. } if *s == sequence));
        let Some(at) = found else { return PongMatch::Own { rtt: None, owed: None } };
        let (mut rtt, mut owed) = (None, None);
        let later = self.outstanding.split_off(at + 1);
        for ping in std::mem::replace(&mut self.outstanding, later) {
            match ping {
                Ping::Own { sent, .. } => rtt = sent.map(|sent| now.saturating_duration_since(sent)),
                Ping::Relayed { payload, .. } => {
                    self.expect_surplus(&payload);
                    owed = Some(payload);
                }
                Ping::Reissued { .. } => {}
            }
        }
        PongMatch::Own { rtt, owed }
    }

    /// Attributes a pong without the proxy's nonce. A ping sent once takes precedence over a second sending with the
    /// same payload: a redundant pong is harmless (RFC 6455 §5.5.3), a missing one is not.
    fn settle_relayed(&mut self, answered: &[u8]) -> PongMatch {
        if let Some(at) = self.outstanding.iter().position(|ping| ping.is_relayed(answered)) {
            self.outstanding.drain(..=at);
            self.expect_surplus(answered);
            return PongMatch::Relayed;
        }
        let Some(at) = self.outstanding.iter().position(|ping| ping.is_reissued(answered)) else {
            return PongMatch::Unknown;
        };
        match self.outstanding.drain(..=at).next_back() {
            Some(Ping::Reissued { surplus: true, .. }) => PongMatch::Surplus,
            _ => PongMatch::Relayed,
        }
    }

    /// Marks second sendings of the answered ping: their pongs will be redundant.
    fn expect_surplus(&mut self, answered: &[u8]) {
        for ping in &mut self.outstanding {
            if let Ping::Reissued { payload, surplus } = ping
                && **payload == *answered
            {
                *surplus = true;
            }
        }
    }
}

impl Ping {
    fn is_relayed(&self, with: &[u8]) -> bool {
        matches!(self, Self::Relayed { payload, .. } if **payload == *with)
    }

    fn is_reissued(&self, with: &[u8]) -> bool {
        matches!(self, Self::Reissued { payload, .. } if **payload == *with)
    }

    fn overtaken_until(&self) -> Option<Instant> {
        match self {
            Self::Relayed { turn: Turn::Overtaken { until }, .. } => Some(*until),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: [u8; 4] = [0xAB; 4];

    fn at(base: Instant, ms: u64) -> Instant {
        base + Duration::from_millis(ms)
    }

    #[test]
    fn s81_a_pong_that_was_synthesised_leaves_that_to_the_second_sending_over() {
        let mut ledger = Ledger::new(NONCE);
        let base = crate::any_instant();
        let first = ledger.add_own();
        ledger.add_relayed(b"a");
        ledger.written(base);
        assert!(matches!(ledger.pong(&first, base), PongMatch::Own { owed: None, .. }));
        ledger.overtake(at(base, 500));
        let second = ledger.add_own();
        assert_eq!(ledger.reissue(at(base, 500)).as_deref(), Some(&b"a"[..]));
        ledger.written(at(base, 500));
        let PongMatch::Own { owed, .. } = ledger.pong(&second, at(base, 600)) else { unreachable!("it is ours") };
        assert_eq!(owed.as_deref(), Some(&b"a"[..]), "the first sending stood before it");
        assert_eq!(ledger.pong(b"a", at(base, 600)), PongMatch::Surplus);
        assert_eq!(ledger.pong(b"a", at(base, 600)), PongMatch::Unknown);
    }

    #[test]
    fn s04_a_pong_to_the_apps_ping_is_forwarded() {
        let mut ledger = Ledger::new(NONCE);
        ledger.add_relayed(b"app");
        assert_eq!(ledger.pong(b"app", crate::any_instant()), PongMatch::Relayed);
        assert!(ledger.outstanding.is_empty());
    }

    #[test]
    fn s05_the_apps_ping_before_ours_is_owed_a_pong() {
        let mut ledger = Ledger::new(NONCE);
        let base = crate::any_instant();
        ledger.add_relayed(b"older");
        ledger.add_relayed(b"newer");
        let own = ledger.add_own();
        ledger.written(base);
        let answer = ledger.pong(&own, at(base, 30));
        let rtt = Some(Duration::from_millis(30));
        assert_eq!(answer, PongMatch::Own { rtt, owed: Some(b"newer"[..].into()) });
        assert_eq!(ledger.pong(b"older", base), PongMatch::Unknown, "nothing is left to settle");
    }

    #[test]
    fn s09_a_late_pong_is_measured_from_its_own_ping() {
        let mut ledger = Ledger::new(NONCE);
        let base = crate::any_instant();
        let first = ledger.add_own();
        ledger.written(base);
        let second = ledger.add_own();
        ledger.written(at(base, 1000));
        let rtt = |ms| Some(Duration::from_millis(ms));
        assert_eq!(ledger.pong(&first, at(base, 1100)), PongMatch::Own { rtt: rtt(1100), owed: None });
        assert_eq!(ledger.pong(&second, at(base, 1200)), PongMatch::Own { rtt: rtt(200), owed: None });
        assert_eq!(
            ledger.pong(&second, at(base, 1300)),
            PongMatch::Own { rtt: None, owed: None },
            "a stale one is still ours"
        );
    }

    #[test]
    fn s10_empty_pings_of_the_app_are_never_taken_for_ours() {
        let mut ledger = Ledger::new(NONCE);
        let base = crate::any_instant();
        for round in 0..100 {
            ledger.add_relayed(b"");
            let own = ledger.add_own();
            ledger.add_relayed(b"");
            ledger.written(base);
            assert_eq!(ledger.pong(b"", base), PongMatch::Relayed, "round {round}");
            let PongMatch::Own { rtt: Some(_), .. } = ledger.pong(&own, base) else { unreachable!("round {round}") };
            assert_eq!(ledger.pong(b"", base), PongMatch::Relayed, "round {round}");
        }
    }

    #[test]
    fn a_ping_that_was_never_sent_is_not_ours() {
        let mut ledger = Ledger::new(NONCE);
        let own = ledger.add_own();
        let mut unsent = own;
        unsent[7] += 1;
        assert_eq!(ledger.pong(&unsent, crate::any_instant()), PongMatch::Unknown);
        assert_eq!(ledger.pong(&own[..7], crate::any_instant()), PongMatch::Unknown);
    }

    #[test]
    fn the_ledger_is_bounded_and_forgets_the_oldest() {
        let mut ledger = Ledger::new(NONCE);
        for _ in 0..1000 {
            ledger.add_relayed(b"flood");
            ledger.add_own();
        }
        assert_eq!(ledger.outstanding.len(), MAX_OUTSTANDING);
    }

    #[test]
    fn a_relayed_ping_is_reissued_once() {
        let (mut ledger, now) = (Ledger::new(NONCE), crate::any_instant());
        ledger.add_relayed(b"x");
        assert_eq!((ledger.reissue_at(), ledger.reissue(now)), (None, None), "nothing of ours was answered");
        ledger.overtake(at(now, 5));
        assert_eq!((ledger.reissue_at(), ledger.reissue(now)), (Some(at(now, 5)), None));
        assert_eq!(ledger.reissue(at(now, 5)).as_deref(), Some(&b"x"[..]));
        ledger.overtake(at(now, 5));
        assert_eq!((ledger.reissue_at(), ledger.reissue(at(now, 9))), (None, None));
    }

    #[test]
    fn s81_only_a_ping_that_was_outstanding_then_and_still_is_gets_reissued() {
        for a_is_answered in [true, false] {
            let (mut ledger, now) = (Ledger::new(NONCE), crate::any_instant());
            let own = ledger.add_own();
            ledger.add_relayed(b"A");
            assert!(matches!(ledger.pong(&own, now), PongMatch::Own { owed: None, .. }));
            ledger.overtake(at(now, 10));
            if a_is_answered {
                assert_eq!(ledger.pong(b"A", now), PongMatch::Relayed);
                assert_eq!(ledger.reissue_at(), None, "disarmed");
            }
            ledger.add_relayed(b"B");
            let expected = (!a_is_answered).then(|| Box::<[u8]>::from(&b"A"[..]));
            assert_eq!(ledger.reissue(at(now, 10)), expected, "never B");
            assert_eq!(ledger.reissue(at(now, 1000)), None);
        }
    }

    #[test]
    fn s81_of_two_pongs_to_a_reissued_ping_the_second_is_surplus() {
        let (mut ledger, now) = (Ledger::new(NONCE), crate::any_instant());
        ledger.add_relayed(b"A");
        ledger.overtake(now);
        assert!(ledger.reissue(now).is_some());
        ledger.add_relayed(b"B");
        assert_eq!(ledger.pong(b"A", now), PongMatch::Relayed);
        assert_eq!(ledger.pong(b"A", now), PongMatch::Surplus);
        assert_eq!(ledger.pong(b"A", now), PongMatch::Unknown, "one surplus pong, not more");
        assert_eq!(ledger.pong(b"B", now), PongMatch::Relayed);
    }

    #[test]
    fn s81_a_new_ping_with_the_payload_of_a_reissued_one_gets_its_pong() {
        let (mut ledger, now) = (Ledger::new(NONCE), crate::any_instant());
        ledger.add_relayed(b"");
        ledger.overtake(now);
        assert!(ledger.reissue(now).is_some());
        assert_eq!(ledger.pong(b"", now), PongMatch::Relayed, "the second sending brought the only pong");
        ledger.add_relayed(b"");
        assert_eq!(ledger.pong(b"", now), PongMatch::Relayed, "this one is not taken for surplus");
        assert_eq!(ledger.pong(b"", now), PongMatch::Unknown);
    }

    #[test]
    fn s81_a_reissued_ping_is_owed_its_pong_once_and_a_surplus_one_is_owed_none() {
        for answered in [true, false] {
            let (mut ledger, now) = (Ledger::new(NONCE), crate::any_instant());
            ledger.add_relayed(b"A");
            ledger.overtake(now);
            assert!(ledger.reissue(now).is_some());
            if answered {
                assert_eq!(ledger.pong(b"A", now), PongMatch::Relayed);
            }
            let own = ledger.add_own();
            let owed = (!answered).then(|| Box::<[u8]>::from(&b"A"[..]));
            assert_eq!(ledger.pong(&own, now), PongMatch::Own { rtt: None, owed });
        }
    }

    #[test]
    fn s81_the_newest_app_ping_is_owed_although_an_older_one_was_reissued_behind_it() {
        let (mut ledger, now) = (Ledger::new(NONCE), crate::any_instant());
        ledger.add_relayed(b"A");
        ledger.overtake(now);
        ledger.add_relayed(b"B");
        assert!(ledger.reissue(now).is_some());
        let own = ledger.add_own();
        assert_eq!(ledger.pong(&own, now), PongMatch::Own { rtt: None, owed: Some(b"B"[..].into()) });
    }
}
