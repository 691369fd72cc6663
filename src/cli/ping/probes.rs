//! The pings of one run: which are in flight, what came back, and the figures at the end.
//!
//! No clock and no socket: time is an argument.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// Pings remembered while they wait; the oldest is given up when more are in flight.
const IN_FLIGHT_MAX: usize = 1024;

/// The pings of one run.
#[derive(Debug)]
pub(super) struct Probes {
    /// Tells this run's pings from those of others.
    nonce: [u8; 4],
    /// How long a pong may take before its absence is told.
    patience: Duration,
    sent: u32,
    received: u32,
    in_flight: VecDeque<Probe>,
    round_trips: RoundTrips,
}

#[derive(Debug)]
struct Probe {
    seq: u32,
    sent_at: Instant,
    /// Whether its absence was told already; it may still come.
    told: bool,
}

/// What a pong turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pong {
    /// The first answer to one of ours.
    Ours {
        /// Counted from 1.
        seq: u32,
        /// From the ping's departure to now.
        rtt: Duration,
    },
    /// An answer to a ping of ours that is not in flight: answered already, or given up.
    Again {
        /// Counted from 1.
        seq: u32,
    },
    /// Not an answer to us at all; RFC 6455 §5.5.3 allows it.
    Unsolicited,
}

impl Probes {
    /// No ping yet. `nonce` marks the payloads of this run.
    pub(super) fn new(nonce: [u8; 4], patience: Duration) -> Self {
        Self { nonce, patience, sent: 0, received: 0, in_flight: VecDeque::new(), round_trips: RoundTrips::default() }
    }

    /// Notes that a ping leaves now; returns its payload.
    pub(super) fn launch(&mut self, now: Instant) -> [u8; 8] {
        self.sent += 1;
        if self.in_flight.len() == IN_FLIGHT_MAX {
            self.in_flight.pop_front();
        }
        self.in_flight.push_back(Probe { seq: self.sent, sent_at: now, told: false });
        let mut payload = [0; 8];
        payload[..4].copy_from_slice(&self.nonce);
        payload[4..].copy_from_slice(&self.sent.to_be_bytes());
        payload
    }

    /// Takes a pong in.
    pub(super) fn answered(&mut self, payload: &[u8], now: Instant) -> Pong {
        let Some(seq) = self.seq_of(payload) else { return Pong::Unsolicited };
        let Some(at) = self.in_flight.iter().position(|probe| probe.seq == seq) else {
            return Pong::Again { seq };
        };
        let rtt = self.in_flight.remove(at).map_or(Duration::ZERO, |probe| now - probe.sent_at);
        self.received += 1;
        self.round_trips.add(rtt);
        Pong::Ours { seq, rtt }
    }

    /// The next ping whose pong is overdue at `now`; each is told once.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<u32> {
        let patience = self.patience;
        let late = self.in_flight.iter_mut().find(|probe| !probe.told)?;
        (now >= late.sent_at + patience).then(|| {
            late.told = true;
            late.seq
        })
    }

    /// When [`Self::overdue`] will have something to tell, if no pong comes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let next = self.in_flight.iter().find(|probe| !probe.told)?;
        Some(next.sent_at + self.patience)
    }

    /// Pings that left.
    pub(super) fn sent(&self) -> u32 {
        self.sent
    }

    /// Pings that were answered.
    pub(super) fn received(&self) -> u32 {
        self.received
    }

    /// Round trips of the answered ones, or `None` without any.
    pub(super) fn round_trips(&self) -> Option<&RoundTrips> {
        (self.received > 0).then_some(&self.round_trips)
    }

    /// Share of the pings that were not answered, in percent; 0 before the first.
    pub(super) fn loss(&self) -> f64 {
        if self.sent == 0 {
            return 0.0;
        }
        f64::from(self.sent - self.received) * 100.0 / f64::from(self.sent)
    }

    fn seq_of(&self, payload: &[u8]) -> Option<u32> {
        let seq = u32::from_be_bytes(payload.strip_prefix(&self.nonce)?.try_into().ok()?);
        (1..=self.sent).contains(&seq).then_some(seq)
    }
}

/// Running figures over round trips, in milliseconds.
#[derive(Debug)]
pub(super) struct RoundTrips {
    count: u32,
    min: f64,
    max: f64,
    sum: f64,
    sum_of_squares: f64,
}

impl Default for RoundTrips {
    fn default() -> Self {
        Self { count: 0, min: f64::INFINITY, max: 0.0, sum: 0.0, sum_of_squares: 0.0 }
    }
}

impl RoundTrips {
    fn add(&mut self, rtt: Duration) {
        let ms = millis(rtt);
        self.count += 1;
        self.min = self.min.min(ms);
        self.max = self.max.max(ms);
        self.sum += ms;
        self.sum_of_squares += ms * ms;
    }
}

/// As ping(8) prints it; `mdev` is the standard deviation.
impl fmt::Display for RoundTrips {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = f64::from(self.count);
        let average = self.sum / count;
        // Rounding can leave the difference a hair below zero.
        let deviation = (self.sum_of_squares / count - average * average).max(0.0).sqrt();
        write!(f, "rtt min/avg/max/mdev = {:.3}/{average:.3}/{:.3}/{deviation:.3} ms", self.min, self.max)
    }
}

/// A duration in milliseconds, fractions included.
pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_round_trip_counts_from_its_own_ping_even_out_of_order() {
        let start = Instant::now();
        let mut probes = Probes::new(*b"abcd", PATIENCE);
        let first = probes.launch(start);
        let second = probes.launch(start + ms(1_000));
        assert_eq!(probes.answered(&second, start + ms(1_007)), Pong::Ours { seq: 2, rtt: ms(7) });
        assert_eq!(probes.answered(&first, start + ms(1_008)), Pong::Ours { seq: 1, rtt: ms(1_008) });
        assert_eq!((probes.sent(), probes.received()), (2, 2));
    }

    #[test]
    fn a_pong_that_is_not_an_answer_changes_nothing() {
        let now = Instant::now();
        let mut probes = Probes::new(*b"abcd", PATIENCE);
        let ours = probes.launch(now);
        let mut future = ours;
        future[7] = 9;
        for foreign in [&b""[..], b"abcd", b"zzzz\0\0\0\x01", &future, b"abcd\0\0\0\0"] {
            assert_eq!(probes.answered(foreign, now), Pong::Unsolicited, "{foreign:?}");
        }
        assert_eq!(probes.received(), 0);
        assert!(matches!(probes.answered(&ours, now), Pong::Ours { seq: 1, .. }));
        assert_eq!(probes.answered(&ours, now), Pong::Again { seq: 1 });
        assert_eq!(probes.received(), 1, "a repeated pong is not counted twice");
    }

    #[test]
    fn an_absent_pong_is_told_once_and_still_counts_when_it_comes() {
        let start = Instant::now();
        let mut probes = Probes::new(*b"abcd", PATIENCE);
        assert_eq!(probes.deadline(), None);
        let payload = probes.launch(start);
        assert_eq!(probes.deadline(), Some(start + PATIENCE));
        assert_eq!(probes.overdue(start + PATIENCE - ms(1)), None);
        assert_eq!(probes.overdue(start + PATIENCE), Some(1));
        assert_eq!(probes.overdue(start + PATIENCE), None);
        assert_eq!(probes.deadline(), None);
        let rtt = PATIENCE + ms(5);
        assert_eq!(probes.answered(&payload, start + rtt), Pong::Ours { seq: 1, rtt });
    }

    #[test]
    fn what_is_in_flight_is_bounded() {
        let now = Instant::now();
        let mut probes = Probes::new(*b"abcd", PATIENCE);
        let oldest = probes.launch(now);
        for _ in 0..IN_FLIGHT_MAX {
            probes.launch(now);
        }
        assert_eq!(probes.in_flight.len(), IN_FLIGHT_MAX);
        assert_eq!(probes.answered(&oldest, now), Pong::Again { seq: 1 }, "given up");
    }

    #[test]
    fn the_figures_are_those_of_ping() {
        let now = Instant::now();
        let mut probes = Probes::new(*b"abcd", PATIENCE);
        assert!(probes.round_trips().is_none());
        for rtt in [2, 4, 4, 4, 5, 5, 7, 9] {
            let payload = probes.launch(now);
            probes.answered(&payload, now + ms(rtt));
        }
        let lost = [probes.launch(now), probes.launch(now)];
        assert_eq!(lost.len(), 2);
        // The textbook sample: mean 5, standard deviation 2.
        let figures = probes.round_trips().map(ToString::to_string);
        let expected = "rtt min/avg/max/mdev = 2.000/5.000/9.000/2.000 ms";
        assert_eq!(figures.as_deref(), Some(expected));
        assert!((probes.loss() - 20.0).abs() < f64::EPSILON, "{}", probes.loss());
    }
}
