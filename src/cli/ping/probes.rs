//! The pings of one run: those in flight, the pongs received, and the figures at the end.
//!
//! No clock and no socket: time is an argument.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// The most pings in flight; the oldest one is given up beyond that.
const IN_FLIGHT_MAX: usize = 1024;

/// The pings of one run.
#[derive(Debug)]
pub(super) struct Probes {
    /// Marks the pings of this run.
    nonce: [u8; 4],
    /// The time after which a missing pong is reported.
    timeout: Duration,
    sent: u32,
    received: u32,
    in_flight: VecDeque<Probe>,
    round_trips: RoundTrips,
}

#[derive(Debug)]
struct Probe {
    seq: u32,
    sent_at: Instant,
    /// Set once the missing pong was reported; it may still arrive.
    reported: bool,
}

/// The classification of a pong.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pong {
    /// The first response to a ping of this run.
    Ours {
        /// The sequence number, from 1.
        seq: u32,
        /// The round-trip time.
        rtt: Duration,
    },
    /// A response to a ping of this run that is no longer in flight: answered before, or given up.
    Again {
        /// The sequence number, from 1.
        seq: u32,
    },
    /// No response to a ping of this run; RFC 6455 §5.5.3 permits it.
    Unsolicited,
}

impl Probes {
    /// Creates an empty record. `nonce` marks the payloads of this run; a missing pong is reported after `timeout`.
    pub(super) fn new(nonce: [u8; 4], timeout: Duration) -> Self {
        Self { nonce, timeout, sent: 0, received: 0, in_flight: VecDeque::new(), round_trips: RoundTrips::default() }
    }

    /// Records that a ping is sent at `now`; returns its payload.
    pub(super) fn record_ping(&mut self, now: Instant) -> [u8; 8] {
        self.sent += 1;
        if self.in_flight.len() == IN_FLIGHT_MAX {
            self.in_flight.pop_front();
        }
        self.in_flight.push_back(Probe { seq: self.sent, sent_at: now, reported: false });
        let mut payload = [0; 8];
        payload[..4].copy_from_slice(&self.nonce);
        payload[4..].copy_from_slice(&self.sent.to_be_bytes());
        payload
    }

    /// Records a pong, and classifies it.
    pub(super) fn record_pong(&mut self, payload: &[u8], now: Instant) -> Pong {
        let Some(seq) = self.seq_of(payload) else { return Pong::Unsolicited };
        let Some(at) = self.in_flight.iter().position(|probe| probe.seq == seq) else {
            return Pong::Again { seq };
        };
        let rtt = self.in_flight.remove(at).map_or(Duration::ZERO, |probe| now - probe.sent_at);
        self.received += 1;
        self.round_trips.add(rtt);
        Pong::Ours { seq, rtt }
    }

    /// Returns the sequence number of the next ping whose pong is overdue at `now`, each once.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<u32> {
        let timeout = self.timeout;
        let late = self.in_flight.iter_mut().find(|probe| !probe.reported)?;
        (now >= late.sent_at + timeout).then(|| {
            late.reported = true;
            late.seq
        })
    }

    /// Returns the time at which [`Self::overdue`] will return a ping, unless its pong arrives.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let next = self.in_flight.iter().find(|probe| !probe.reported)?;
        Some(next.sent_at + self.timeout)
    }

    /// Returns the number of pings sent.
    pub(super) fn sent(&self) -> u32 {
        self.sent
    }

    /// Returns the number of pings answered.
    pub(super) fn received(&self) -> u32 {
        self.received
    }

    /// Returns the round trips of the pings answered; `None` if there are none.
    pub(super) fn round_trips(&self) -> Option<&RoundTrips> {
        (self.received > 0).then_some(&self.round_trips)
    }

    /// Returns the share of the pings not answered, in percent; 0 before the first ping.
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

/// Running statistics of round trips, in milliseconds.
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

/// Formats the statistics as ping(8) does; `mdev` is the standard deviation.
impl fmt::Display for RoundTrips {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = f64::from(self.count);
        let average = self.sum / count;
        // Rounding can make the difference slightly negative.
        let deviation = (self.sum_of_squares / count - average * average).max(0.0).sqrt();
        write!(f, "rtt min/avg/max/mdev = {:.3}/{average:.3}/{:.3}/{deviation:.3} ms", self.min, self.max)
    }
}

/// Converts a duration to milliseconds with fractions.
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
        let first = probes.record_ping(start);
        let second = probes.record_ping(start + ms(1_000));
        assert_eq!(probes.record_pong(&second, start + ms(1_007)), Pong::Ours { seq: 2, rtt: ms(7) });
        assert_eq!(probes.record_pong(&first, start + ms(1_008)), Pong::Ours { seq: 1, rtt: ms(1_008) });
        assert_eq!((probes.sent(), probes.received()), (2, 2));
    }

    #[test]
    fn a_pong_that_is_not_an_answer_changes_nothing() {
        let now = Instant::now();
        let mut probes = Probes::new(*b"abcd", PATIENCE);
        let ours = probes.record_ping(now);
        let mut future = ours;
        future[7] = 9;
        for foreign in [&b""[..], b"abcd", b"zzzz\0\0\0\x01", &future, b"abcd\0\0\0\0"] {
            assert_eq!(probes.record_pong(foreign, now), Pong::Unsolicited, "{foreign:?}");
        }
        assert_eq!(probes.received(), 0);
        assert!(matches!(probes.record_pong(&ours, now), Pong::Ours { seq: 1, .. }));
        assert_eq!(probes.record_pong(&ours, now), Pong::Again { seq: 1 });
        assert_eq!(probes.received(), 1, "a repeated pong is not counted twice");
    }

    #[test]
    fn a_missing_pong_is_reported_once_and_still_counts_when_it_arrives() {
        let start = Instant::now();
        let mut probes = Probes::new(*b"abcd", PATIENCE);
        assert_eq!(probes.deadline(), None);
        let payload = probes.record_ping(start);
        assert_eq!(probes.deadline(), Some(start + PATIENCE));
        assert_eq!(probes.overdue(start + PATIENCE - ms(1)), None);
        assert_eq!(probes.overdue(start + PATIENCE), Some(1));
        assert_eq!(probes.overdue(start + PATIENCE), None);
        assert_eq!(probes.deadline(), None);
        let rtt = PATIENCE + ms(5);
        assert_eq!(probes.record_pong(&payload, start + rtt), Pong::Ours { seq: 1, rtt });
    }

    #[test]
    fn what_is_in_flight_is_bounded() {
        let now = Instant::now();
        let mut probes = Probes::new(*b"abcd", PATIENCE);
        let oldest = probes.record_ping(now);
        for _ in 0..IN_FLIGHT_MAX {
            probes.record_ping(now);
        }
        assert_eq!(probes.in_flight.len(), IN_FLIGHT_MAX);
        assert_eq!(probes.record_pong(&oldest, now), Pong::Again { seq: 1 }, "given up");
    }

    #[test]
    fn the_figures_are_those_of_ping() {
        let now = Instant::now();
        let mut probes = Probes::new(*b"abcd", PATIENCE);
        assert!(probes.round_trips().is_none());
        for rtt in [2, 4, 4, 4, 5, 5, 7, 9] {
            let payload = probes.record_ping(now);
            probes.record_pong(&payload, now + ms(rtt));
        }
        let lost = [probes.record_ping(now), probes.record_ping(now)];
        assert_eq!(lost.len(), 2);
        // A textbook sample: mean 5, standard deviation 2.
        let figures = probes.round_trips().map(ToString::to_string);
        let expected = "rtt min/avg/max/mdev = 2.000/5.000/9.000/2.000 ms";
        assert_eq!(figures.as_deref(), Some(expected));
        assert!((probes.loss() - 20.0).abs() < f64::EPSILON, "{}", probes.loss());
    }
}
