//! What can be seen of a live session from outside: figures that its task leaves where anybody may look.
//!
//! Only the session's own task writes them, with relaxed stores: where something rare happens (a ping, a miss, bytes
//! that are held) as it happens, and otherwise once at the end of a poll that has read something. Nothing is written
//! on the way of a frame, and an idle session writes nothing at all.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Traffic;
use crate::heartbeat::Awaited;

/// How a live session is, as its task last left it; each figure is right by itself, not all at the same instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// Read from the client.
    pub from_client: Traffic,
    /// Read from the app.
    pub from_upstream: Traffic,
    /// Bytes held on the way to the app.
    pub held_to_app: usize,
    /// Bytes held on the way to the client.
    pub held_to_client: usize,
    /// When bytes of the client were last read; the beginning of the session before the first ones.
    pub last_seen: Instant,
    /// When the client last answered anybody's probe, or beat by itself where it has to.
    pub last_pong: Option<Instant>,
    /// The last measured round trip, in whole microseconds.
    pub rtt: Option<Duration>,
    /// The shortest measured round trip, in whole microseconds.
    pub rtt_min: Option<Duration>,
    /// Windows in a row that have passed without a sign of life.
    pub misses: u32,
    /// All such windows of the session.
    pub missed: u64,
    /// Probes of the proxy's own that left for the client.
    pub pings: u64,
    /// Answers to them.
    pub pongs: u64,
    /// When the heartbeat acts next if the client is not heard before: a probe becomes due, or a window ends. Of a
    /// session that is closing, when it is cut off.
    pub next_deadline: Option<Instant>,
    /// The event that the heartbeat waits for until then.
    pub awaited: Awaited,
    /// Whether it has begun to end.
    pub closing: bool,
}

/// Where a session's task leaves its figures. Times are nanoseconds since `opened`, round trips microseconds; 0 is
/// none of either.
#[derive(Debug)]
pub(super) struct Figures {
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

impl Figures {
    pub(super) fn new(opened: Instant) -> Self {
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

    /// When the session opened.
    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    /// What has passed so far. Returns whether more has come from the client than was left here before.
    #[inline]
    pub(super) fn passed(&self, from_client: Traffic, from_upstream: Traffic) -> bool {
        self.from_upstream.grow(from_upstream);
        self.from_client.grow(from_client)
    }

    /// Bytes of the client were read.
    #[inline]
    pub(super) fn seen(&self, now: Instant) {
        self.last_seen.store(self.at(now), Ordering::Relaxed);
    }

    /// What the heartbeat has counted in a row, and until when it waits for what.
    #[inline]
    pub(super) fn expect(&self, misses: u32, next_deadline: Option<Instant>, awaited: Awaited) {
        self.misses.store(misses, Ordering::Relaxed);
        self.awaited.store(awaited as u8, Ordering::Relaxed);
        self.next_deadline.store(next_deadline.map_or(0, |at| self.at(at)), Ordering::Relaxed);
    }

    /// What is held on the way to the app, and to the client.
    #[inline]
    pub(super) fn held(&self) -> (usize, usize) {
        (self.held_to_app.load(Ordering::Relaxed), self.held_to_client.load(Ordering::Relaxed))
    }

    /// The session holds this much now; returns what it held before.
    pub(super) fn hold(&self, to_app: usize, to_client: usize) -> (usize, usize) {
        let before = self.held();
        self.held_to_app.store(to_app, Ordering::Relaxed);
        self.held_to_client.store(to_client, Ordering::Relaxed);
        before
    }

    /// A probe of the proxy's own has left.
    pub(super) fn pinged(&self) {
        count(&self.pings);
    }

    /// The client has answered a probe, which was the proxy's `own` or not, or has beaten by itself; `rtt` if that was
    /// measured.
    pub(super) fn ponged(&self, now: Instant, own: bool, rtt: Option<Duration>) {
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

    /// A window has passed without a sign of life.
    pub(super) fn missed(&self) {
        count(&self.missed);
    }

    /// The session has begun to end.
    pub(super) fn closing(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Whether the session has begun to end.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// What has passed, from the client and from the app.
    pub(super) fn traffic(&self) -> (Traffic, Traffic) {
        (self.from_client.traffic(), self.from_upstream.traffic())
    }

    /// For whoever looks.
    pub(super) fn vitals(&self) -> Vitals {
        let (from_client, from_upstream) = self.traffic();
        let (held_to_app, held_to_client) = self.held();
        let figure = |of: &AtomicU32| of.load(Ordering::Relaxed);
        Vitals {
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
        // What has no bytes has no messages either.
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

/// One more, where nobody else counts.
fn count(counter: &AtomicU32) {
    counter.store(counter.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
}

fn micros(of: &AtomicU32) -> Option<Duration> {
    match of.load(Ordering::Relaxed) {
        0 => None,
        micros => Some(Duration::from_micros(micros.into())),
    }
}
