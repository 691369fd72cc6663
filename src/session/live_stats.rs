//! The figures of a live session, which its task publishes for readers on other threads.
//!
//! Only the session's own task writes them, with relaxed stores: a rare event (a ping, a miss, held bytes) at once,
//! everything else at the end of a poll that has read something. Nothing is written for a single frame, and an idle session
//! writes nothing.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::heartbeat::Awaited;

/// The traffic of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes read from the peer after the upgrade, frame headers included; without those that were discarded.
    pub bytes: u64,
    /// Payload of data frames alone, as far as it was read and scanned.
    pub payload: u64,
    /// Complete data messages.
    pub messages: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        self.bytes += more.bytes;
        self.payload += more.payload;
        self.messages += more.messages;
    }
}

/// The figures of a live session as its task last published them; each is right by itself, not all at the same instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveStats {
    /// Read from the client.
    pub from_client: Traffic,
    /// Read from the app.
    pub from_upstream: Traffic,
    /// Bytes held on the way to the app.
    pub held_to_app: usize,
    /// Bytes held on the way to the client.
    pub held_to_client: usize,
    /// The time at which bytes of the client were last read; before the first ones, the time at which the session opened.
    pub last_seen: Instant,
    /// The time at which the client last answered a probe, the app's included, or sent its own heartbeat.
    pub last_pong: Option<Instant>,
    /// The last measured round trip, in whole microseconds.
    pub rtt: Option<Duration>,
    /// The shortest measured round trip, in whole microseconds.
    pub rtt_min: Option<Duration>,
    /// The number of consecutive windows without a sign of life.
    pub misses: u32,
    /// All such windows of the session.
    pub missed: u64,
    /// Probes of the proxy's own that left for the client.
    pub pings: u64,
    /// Answers to them.
    pub pongs: u64,
    /// The time at which the heartbeat acts next unless bytes of the client arrive: a probe becomes due, or a window ends. Of a
    /// session that is closing, when it is cut off.
    pub next_deadline: Option<Instant>,
    /// The event that the heartbeat waits for until then.
    pub awaited: Awaited,
    /// True if it has begun to end.
    pub closing: bool,
}

/// The figures that a session's task writes. Times are nanoseconds since `opened`, round trips microseconds; 0 stands for
/// none of either.
#[derive(Debug)]
pub(crate) struct LiveCounters {
    opened: Instant,
    from_client: Counts,
    from_upstream: Counts,
    held_to_app: AtomicUsize,
    held_to_client: AtomicUsize,
    last_seen: AtomicU64,
    last_pong: AtomicU64,
    next_deadline: AtomicU64,
    awaited: AtomicU8,
    rtt: AtomicU32,
    rtt_min: AtomicU32,
    misses: AtomicU32,
    missed: AtomicU32,
    pings: AtomicU32,
    pongs: AtomicU32,
    closing: AtomicBool,
}

#[derive(Debug, Default)]
struct Counts {
    bytes: AtomicU64,
    payload: AtomicU64,
    messages: AtomicU64,
}

impl LiveCounters {
    pub(crate) fn new(opened: Instant) -> Self {
        Self {
            opened,
            from_client: Counts::default(),
            from_upstream: Counts::default(),
            held_to_app: AtomicUsize::default(),
            held_to_client: AtomicUsize::default(),
            last_seen: AtomicU64::default(),
            last_pong: AtomicU64::default(),
            next_deadline: AtomicU64::default(),
            awaited: AtomicU8::default(),
            rtt: AtomicU32::default(),
            rtt_min: AtomicU32::default(),
            misses: AtomicU32::default(),
            missed: AtomicU32::default(),
            pings: AtomicU32::default(),
            pongs: AtomicU32::default(),
            closing: AtomicBool::default(),
        }
    }

    /// Returns when the session opened.
    pub(crate) fn opened(&self) -> Instant {
        self.opened
    }

    /// Stores the traffic so far. Returns whether the client's has grown.
    #[inline]
    pub(crate) fn passed(&self, from_client: Traffic, from_upstream: Traffic) -> bool {
        self.from_upstream.grow(from_upstream);
        self.from_client.grow(from_client)
    }

    /// Stores the time at which bytes of the client were read.
    #[inline]
    pub(crate) fn seen(&self, now: Instant) {
        self.last_seen.store(self.at(now), Ordering::Relaxed);
    }

    /// Stores the misses in a row, the heartbeat's next deadline, and the event awaited until then.
    #[inline]
    pub(crate) fn expect(&self, misses: u32, next_deadline: Option<Instant>, awaited: Awaited) {
        self.misses.store(misses, Ordering::Relaxed);
        self.awaited.store(awaited as u8, Ordering::Relaxed);
        self.next_deadline.store(next_deadline.map_or(0, |at| self.at(at)), Ordering::Relaxed);
    }

    /// Returns the bytes held on the way to the app, and to the client.
    #[inline]
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.held_to_app.load(Ordering::Relaxed), self.held_to_client.load(Ordering::Relaxed))
    }

    /// Stores the bytes held; returns those held before.
    pub(crate) fn hold(&self, to_app: usize, to_client: usize) -> (usize, usize) {
        let before = self.held();
        self.held_to_app.store(to_app, Ordering::Relaxed);
        self.held_to_client.store(to_client, Ordering::Relaxed);
        before
    }

    /// Counts a probe of the proxy that left.
    pub(crate) fn pinged(&self) {
        count(&self.pings);
    }

    /// Counts an answer to a probe, which was the proxy's `own` or the app's, or a heartbeat of the client; `rtt` where it
    /// was measured.
    pub(crate) fn ponged(&self, now: Instant, own: bool, rtt: Option<Duration>) {
        self.last_pong.store(self.at(now), Ordering::Relaxed);
        if own {
            count(&self.pongs);
        }
        if let Some(rtt) = rtt {
            let micros = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX).max(1);
            let least = self.rtt_min.load(Ordering::Relaxed);
            self.rtt.store(micros, Ordering::Relaxed);
            self.rtt_min.store(if least == 0 { micros } else { least.min(micros) }, Ordering::Relaxed);
        }
    }

    /// Counts a window without a sign of life.
    pub(crate) fn missed(&self) {
        count(&self.missed);
    }

    /// Marks the session as closing.
    pub(crate) fn closing(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Returns whether the session is closing.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Returns the traffic from the client and from the app.
    pub(crate) fn traffic(&self) -> (Traffic, Traffic) {
        (self.from_client.traffic(), self.from_upstream.traffic())
    }

    /// Returns all figures.
    pub(crate) fn live_stats(&self) -> LiveStats {
        let (from_client, from_upstream) = self.traffic();
        let (held_to_app, held_to_client) = self.held();
        let figure = |of: &AtomicU32| of.load(Ordering::Relaxed);
        LiveStats {
            from_client,
            from_upstream,
            held_to_app,
            held_to_client,
            last_seen: self.instant(&self.last_seen).unwrap_or(self.opened),
            last_pong: self.instant(&self.last_pong),
            rtt: micros(&self.rtt),
            rtt_min: micros(&self.rtt_min),
            misses: figure(&self.misses),
            missed: figure(&self.missed).into(),
            pings: figure(&self.pings).into(),
            pongs: figure(&self.pongs).into(),
            next_deadline: self.instant(&self.next_deadline),
            awaited: Awaited::ALL.get(usize::from(self.awaited.load(Ordering::Relaxed))).copied().unwrap_or_default(),
            closing: self.closing.load(Ordering::Relaxed),
        }
    }

    #[inline]
    fn at(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.opened);
        (since.as_secs() * 1_000_000_000 + u64::from(since.subsec_nanos())).max(1)
    }

    fn instant(&self, of: &AtomicU64) -> Option<Instant> {
        match of.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(self.opened + Duration::from_nanos(nanos)),
        }
    }
}

impl Counts {
    #[inline]
    fn grow(&self, to: Traffic) -> bool {
        // Without bytes there are no messages either.
        let grown = self.bytes.load(Ordering::Relaxed) != to.bytes;
        if grown {
            self.bytes.store(to.bytes, Ordering::Relaxed);
            self.payload.store(to.payload, Ordering::Relaxed);
            self.messages.store(to.messages, Ordering::Relaxed);
        }
        grown
    }

    fn traffic(&self) -> Traffic {
        let [bytes, payload, messages] =
            [&self.bytes, &self.payload, &self.messages].map(|figure| figure.load(Ordering::Relaxed));
        Traffic { bytes, payload, messages }
    }
}

/// Counts one more; there is a single writer.
fn count(counter: &AtomicU32) {
    counter.store(counter.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
}

fn micros(of: &AtomicU32) -> Option<Duration> {
    match of.load(Ordering::Relaxed) {
        0 => None,
        micros => Some(Duration::from_micros(micros.into())),
    }
}
