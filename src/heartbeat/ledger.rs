//! Whose pong is it? A wire-order record of the pings that one peer has yet to answer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Outstanding pings that are remembered; older ones are forgotten.
pub const MAX_OUTSTANDING: usize = 16;

/// The pings that went to one peer, the proxy's own and the other peer's, in the order of the wire.
///
/// Nonces decide which pongs are swallowed, never whether the peer is alive: that is the engine's business.
#[derive(Debug)]
pub struct Ledger {
    /// Tells this connection's own pings from everybody else's.
    nonce: [u8; 4],
    /// Sequence number of the next own ping.
    next: u32,
    outstanding: VecDeque<Ping>,
}

#[derive(Debug)]
enum Ping {
    /// Ours; `sent` is `None` until it has left for the wire.
    Own { sequence: u32, sent: Option<Instant> },
    /// The other peer's, relayed.
    Relayed { payload: Box<[u8]>, reissued: bool },
}

/// What a pong answers.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// A ping of ours: swallow the pong.
    Own {
        /// The round trip of that very ping, where it is still remembered.
        rtt: Option<Duration>,
        /// Payload of the newest relayed ping before ours that went unanswered: a peer may answer only the latest
        /// ping (RFC 6455 §5.5.3), so its sender is owed this pong.
        owed: Option<Box<[u8]>>,
    },
    /// A relayed ping: forward the pong.
    Relayed,
    /// No ping that is known: forward the pong.
    Unknown,
}

impl Ledger {
    /// An empty ledger whose own pings carry `nonce`.
    pub fn new(nonce: [u8; 4]) -> Self {
        Self { nonce, next: 0, outstanding: VecDeque::new() }
    }

    /// Enters an own ping and returns its payload: the nonce and a sequence number.
    pub fn own(&mut self) -> [u8; 8] {
        let sequence = self.next;
        self.next = self.next.wrapping_add(1);
        self.enter(Ping::Own { sequence, sent: None });
        (u64::from(u32::from_be_bytes(self.nonce)) << 32 | u64::from(sequence)).to_be_bytes()
    }

    /// Enters a ping of the other peer.
    pub fn relayed(&mut self, payload: &[u8]) {
        self.enter(Ping::Relayed { payload: payload.into(), reissued: false });
    }

    /// Everything entered so far has left for the wire.
    pub fn left(&mut self, now: Instant) {
        for ping in self.outstanding.iter_mut().rev() {
            match ping {
                Ping::Own { sent: Some(_), .. } => break,
                Ping::Own { sent, .. } => *sent = Some(now),
                Ping::Relayed { .. } => {}
            }
        }
    }

    /// Attributes a pong. It and all pings before it are settled.
    pub fn pong(&mut self, payload: &[u8], now: Instant) -> Answer {
        match self.own_sequence(payload) {
            Some(sequence) => self.settle_own(sequence, now),
            None => match self.outstanding.iter().position(|ping| ping.is_relayed(payload)) {
                Some(at) => {
                    self.outstanding.drain(..=at);
                    Answer::Relayed
                }
                None => Answer::Unknown,
            },
        }
    }

    /// Whether a relayed ping is still unanswered that has not been sent a second time.
    pub fn may_reissue(&self) -> bool {
        self.outstanding.iter().any(|ping| matches!(ping, Ping::Relayed { reissued: false, .. }))
    }

    /// Moves the newest unanswered relayed ping to the end of the wire order and returns its payload, once for each
    /// ping; older ones are covered by its answer.
    pub fn reissue(&mut self) -> Option<Box<[u8]>> {
        let at = self.outstanding.iter().rposition(|ping| matches!(ping, Ping::Relayed { reissued: false, .. }))?;
        let Some(Ping::Relayed { payload, .. }) = self.outstanding.remove(at) else { return None };
        self.outstanding.retain(|ping| !matches!(ping, Ping::Relayed { reissued: false, .. }));
        self.enter(Ping::Relayed { payload: payload.clone(), reissued: true });
        Some(payload)
    }

    fn enter(&mut self, ping: Ping) {
        if self.outstanding.len() == MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back(ping);
    }

    /// The sequence number, if the payload is that of an own ping, current or stale.
    fn own_sequence(&self, payload: &[u8]) -> Option<u32> {
        let (nonce, sequence) = payload.split_first_chunk::<4>()?;
        let sequence = u32::from_be_bytes(sequence.try_into().ok()?);
        (*nonce == self.nonce && sequence < self.next).then_some(sequence)
    }

    fn settle_own(&mut self, sequence: u32, now: Instant) -> Answer {
        let found =
            self.outstanding.iter().position(|ping| matches!(ping, Ping::Own { sequence: s, .. } if *s == sequence));
        let Some(at) = found else { return Answer::Own { rtt: None, owed: None } };
        let (mut rtt, mut owed) = (None, None);
        for ping in self.outstanding.drain(..=at) {
            match ping {
                Ping::Own { sent, .. } => rtt = sent.map(|sent| now.saturating_duration_since(sent)),
                Ping::Relayed { payload, .. } => owed = Some(payload),
            }
        }
        Answer::Own { rtt, owed }
    }
}

impl Ping {
    fn is_relayed(&self, with: &[u8]) -> bool {
        matches!(self, Self::Relayed { payload, .. } if **payload == *with)
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
    fn s04_a_pong_to_the_apps_ping_is_forwarded() {
        let mut ledger = Ledger::new(NONCE);
        ledger.relayed(b"app");
        assert_eq!(ledger.pong(b"app", crate::any_instant()), Answer::Relayed);
        assert!(ledger.outstanding.is_empty());
    }

    #[test]
    fn s05_the_apps_ping_before_ours_is_owed_a_pong() {
        let mut ledger = Ledger::new(NONCE);
        let base = crate::any_instant();
        ledger.relayed(b"older");
        ledger.relayed(b"newer");
        let own = ledger.own();
        ledger.left(base);
        let answer = ledger.pong(&own, at(base, 30));
        let rtt = Some(Duration::from_millis(30));
        assert_eq!(answer, Answer::Own { rtt, owed: Some(b"newer"[..].into()) });
        assert_eq!(ledger.pong(b"older", base), Answer::Unknown, "nothing is left to settle");
    }

    #[test]
    fn s09_a_late_pong_is_measured_from_its_own_ping() {
        let mut ledger = Ledger::new(NONCE);
        let base = crate::any_instant();
        let first = ledger.own();
        ledger.left(base);
        let second = ledger.own();
        ledger.left(at(base, 1000));
        let rtt = |ms| Some(Duration::from_millis(ms));
        assert_eq!(ledger.pong(&first, at(base, 1100)), Answer::Own { rtt: rtt(1100), owed: None });
        assert_eq!(ledger.pong(&second, at(base, 1200)), Answer::Own { rtt: rtt(200), owed: None });
        assert_eq!(
            ledger.pong(&second, at(base, 1300)),
            Answer::Own { rtt: None, owed: None },
            "a stale one is still ours"
        );
    }

    #[test]
    fn s10_empty_pings_of_the_app_are_never_taken_for_ours() {
        let mut ledger = Ledger::new(NONCE);
        let base = crate::any_instant();
        for round in 0..100 {
            ledger.relayed(b"");
            let own = ledger.own();
            ledger.relayed(b"");
            ledger.left(base);
            assert_eq!(ledger.pong(b"", base), Answer::Relayed, "round {round}");
            let Answer::Own { rtt: Some(_), .. } = ledger.pong(&own, base) else { unreachable!("round {round}") };
            assert_eq!(ledger.pong(b"", base), Answer::Relayed, "round {round}");
        }
    }

    #[test]
    fn a_ping_that_was_never_sent_is_not_ours() {
        let mut ledger = Ledger::new(NONCE);
        let own = ledger.own();
        let mut unsent = own;
        unsent[7] += 1;
        assert_eq!(ledger.pong(&unsent, crate::any_instant()), Answer::Unknown);
        assert_eq!(ledger.pong(&own[..7], crate::any_instant()), Answer::Unknown);
    }

    #[test]
    fn the_ledger_is_bounded_and_forgets_the_oldest() {
        let mut ledger = Ledger::new(NONCE);
        for _ in 0..1000 {
            ledger.relayed(b"flood");
            ledger.own();
        }
        assert_eq!(ledger.outstanding.len(), MAX_OUTSTANDING);
    }

    #[test]
    fn a_relayed_ping_is_reissued_once() {
        let mut ledger = Ledger::new(NONCE);
        ledger.relayed(b"x");
        assert!(ledger.may_reissue());
        assert_eq!(ledger.reissue().as_deref(), Some(&b"x"[..]));
        assert_eq!(ledger.reissue(), None);
        assert!(!ledger.may_reissue());
    }
}
