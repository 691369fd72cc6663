//! What is known of the way to the client: whether writes block, and how far the last probe has come.

use std::time::{Duration, Instant};

/// Looks within one `write_stall`, so that a stall is noticed soon after it has lasted that long.
const LOOKS: u32 = 8;
/// Fewer unacknowledged bytes than this are the probe itself, not a backlog in front of it.
const BACKLOG: u64 = 256;

/// What the kernel knows of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Bytes that the client's kernel has acknowledged since the connection began. On the scale of the positions written:
    /// it has reached the last of them when nothing is on its way any more.
    pub acked: u64,
    /// Whether bytes of the client wait to be read.
    pub unread: bool,
}

/// Where the last probe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// The client's kernel has it, or nobody can tell.
    Arrived,
    /// Behind a backlog of data that moved lately: the client reads slowly.
    Behind,
    /// On its own and unacknowledged.
    Lost,
}

/// The outbound half of the client leg.
#[derive(Debug)]
pub(super) struct Downlink {
    write_stall: Duration,
    /// Since when writes have been blocked without progress, and when to look next.
    blocked: Option<Blocked>,
    /// The last acknowledgement count seen, and when it was last seen to grow.
    acks: Option<(u64, Instant)>,
    /// Bytes written, as of the last look.
    written: u64,
    /// Whether the last look saw progress: more bytes acknowledged or, where no kernel can be asked, written.
    moved: bool,
    /// Since when some of what was written has been unacknowledged and no acknowledgement has come.
    unmoved_since: Option<Instant>,
    /// The probes since one was last proven to have arrived.
    flight: Option<Flight>,
}

#[derive(Clone, Copy, Debug)]
struct Blocked {
    since: Instant,
    look_at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    /// When the oldest of them left.
    sent: Instant,
    /// Position of the newest one's last byte in the stream of bytes written.
    end: u64,
    look_at: Instant,
    silence: Silence,
}

/// What the client's lack of a pong says where no kernel can be asked.
#[derive(Clone, Copy, Debug)]
enum Silence {
    /// Nothing before this: the probe may not have reached a client that ends one frame and begins another.
    Excused { until: Instant },
    /// A frame ended then, and the pong could have followed it.
    Since(Instant),
    /// Nothing: a pong came that answers no known ping, perhaps a damaged answer; or nothing was sent that the client
    /// owes us an answer to.
    Unclear,
}

impl Flight {
    /// Returns `at`, or the end of the excuse if that is still to come and earlier: a timer that is due then tells whether
    /// the process stood still at that time.
    fn look_by(&self, at: Instant, now: Instant) -> Instant {
        match self.silence {
            Silence::Excused { until } if until > now => at.min(until),
            _ => at,
        }
    }
}

impl Downlink {
    pub(super) fn new(write_stall: Duration) -> Self {
        Self { write_stall, blocked: None, acks: None, written: 0, moved: false, unmoved_since: None, flight: None }
    }

    /// A write is waiting and cannot go out, or some of it just went.
    pub(super) fn blocked(&mut self, now: Instant) {
        self.blocked = Some(Blocked { since: now, look_at: now + self.write_stall / LOOKS });
    }

    /// Nothing is waiting any more.
    pub(super) fn clear(&mut self) {
        self.blocked = None;
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// A probe has left for the wire; its arrival is in doubt after `window`. Whether every live client `must_answer` it
    /// decides what its silence says.
    pub(super) fn probe_left(&mut self, now: Instant, end: u64, window: Duration, must_answer: bool) {
        let fresh = if must_answer { Silence::Excused { until: now + window } } else { Silence::Unclear };
        let flight = self.flight.get_or_insert(Flight { sent: now, end, look_at: now + window, silence: fresh });
        flight.end = end;
        if must_answer && matches!(flight.silence, Silence::Unclear) {
            flight.silence = fresh;
            flight.look_at = flight.look_by(flight.look_at, now);
        }
    }

    /// A probe was answered.
    pub(super) fn proven(&mut self) {
        self.flight = None;
    }

    /// A pong came that answers no known ping.
    pub(super) fn unclear(&mut self) {
        if let Some(flight) = &mut self.flight {
            flight.silence = Silence::Unclear;
        }
    }

    pub(super) fn frame_ended(&mut self, now: Instant) {
        if let Some(Flight { silence, .. }) = &mut self.flight
            && matches!(silence, Silence::Excused { until } if *until < now)
        {
            *silence = Silence::Since(now);
        }
    }

    /// When to look next.
    pub(super) fn look_at(&self) -> Option<Instant> {
        let blocked = self.blocked.map(|blocked| blocked.look_at);
        let flight = self.flight.map(|flight| flight.look_at);
        [blocked, flight].into_iter().flatten().min()
    }

    /// The process stood still between `from` and `now`.
    pub(super) fn thaw(&mut self, from: Instant, now: Instant) {
        let pause = |since: Instant| now.saturating_duration_since(from.max(since));
        if let Some(blocked) = &mut self.blocked {
            blocked.look_at += pause(blocked.since);
            blocked.since += pause(blocked.since);
        }
        self.unheard(from, now);
        if let Some(flight) = &mut self.flight {
            flight.look_at += pause(flight.sent);
            flight.sent += pause(flight.sent);
        }
        for since in self.acks.iter_mut().map(|(_, moved)| moved).chain(&mut self.unmoved_since) {
            *since += pause(*since);
        }
    }

    /// The client was not read between `from` and `now`, so its silence says nothing.
    pub(super) fn unheard(&mut self, from: Instant, now: Instant) {
        let pause = |since: Instant| now.saturating_duration_since(from.max(since));
        if let Some(flight) = &mut self.flight {
            match &mut flight.silence {
                Silence::Excused { until } => *until += pause(flight.sent),
                Silence::Since(at) => *at += pause(*at),
                Silence::Unclear => {}
            }
            flight.look_at = flight.look_by(flight.look_at, now);
        }
    }

    /// Takes in how far writing has come and what the kernel says. Returns whether the way to the client is dead: nothing
    /// has moved on it for `write_stall` although something should have. `spare_flight`: a probe that did not arrive is
    /// no reason now.
    pub(super) fn look(&mut self, now: Instant, written: u64, delivery: Option<Delivery>, spare_flight: bool) -> bool {
        self.take_progress(now, written, delivery);
        if let Some(Delivery { acked, .. }) = delivery
            && self.acks.is_none_or(|(seen, _)| acked > seen)
        {
            self.acks = Some((acked, now));
        }
        self.flight = self.flight.filter(|flight| delivery.is_none_or(|delivery| delivery.acked < flight.end));
        let stuck_writes = self.blocked.is_some_and(|blocked| self.is_still(now, blocked.since, delivery));
        let stuck_flight = !spare_flight && self.flight_is_stuck(now, delivery);
        let next = now + self.write_stall / LOOKS;
        if let Some(blocked) = &mut self.blocked
            && blocked.look_at <= now
        {
            blocked.look_at = next;
        }
        if let Some(flight) = &mut self.flight
            && flight.look_at <= now
        {
            flight.look_at = flight.look_by(next, now);
        }
        stuck_writes || stuck_flight
    }

    /// Where the last probe is, at its deadline and after a [`Self::look`].
    pub(super) fn whereabouts(&self, delivery: Option<Delivery>) -> Whereabouts {
        match (self.flight, delivery) {
            (Some(flight), Some(Delivery { acked, .. })) if acked < flight.end => {
                if flight.end - acked > BACKLOG {
                    Whereabouts::Behind
                } else {
                    Whereabouts::Lost
                }
            }
            _ => Whereabouts::Arrived,
        }
    }

    /// Whether nothing has been acknowledged for `write_stall`, counted from `since` at the earliest.
    pub(super) fn is_still(&self, now: Instant, since: Instant, delivery: Option<Delivery>) -> bool {
        let moved = delivery.and(self.acks).map_or(since, |(_, moved)| moved.max(since));
        now.saturating_duration_since(moved) >= self.write_stall
    }

    /// When to look next: soon, and where nothing moves when that has lasted for `write_stall`.
    pub(super) fn next_look(&self, now: Instant) -> Instant {
        let regular = now + self.write_stall / LOOKS;
        self.unmoved_since
            .map(|since| since + self.write_stall)
            .filter(|at| *at > now)
            .map_or(regular, |at| at.min(regular))
    }

    /// Whether the last look saw progress since the look before it.
    pub(super) fn has_moved(&self) -> bool {
        self.moved
    }

    /// Whether bytes have been on their way to the client for `write_stall` without an acknowledgement. One that has
    /// acknowledged everything is not still: there is nothing that it could acknowledge.
    pub(super) fn is_unmoved(&self, now: Instant) -> bool {
        self.unmoved_since.is_some_and(|since| now.saturating_duration_since(since) >= self.write_stall)
    }

    /// Whether the last look saw bytes that the client has not acknowledged.
    pub(super) fn has_unacknowledged(&self) -> bool {
        self.unmoved_since.is_some()
    }

    fn take_progress(&mut self, now: Instant, written: u64, delivery: Option<Delivery>) {
        self.moved = match delivery {
            Some(Delivery { acked, .. }) => acked > self.acks.map_or(0, |(seen, _)| seen),
            None => written > self.written,
        };
        self.written = written;
        self.unmoved_since = match delivery {
            Some(Delivery { acked, .. }) if acked < written => self.unmoved_since.filter(|_| !self.moved).or(Some(now)),
            _ => None,
        };
    }

    fn flight_is_stuck(&self, now: Instant, delivery: Option<Delivery>) -> bool {
        let Some(flight) = self.flight.filter(|flight| flight.look_at <= now) else { return false };
        match (delivery, flight.silence) {
            (Some(_), _) => self.is_still(now, flight.sent, delivery),
            // Without a kernel to ask, only the answer proves the way; a client in the middle of a frame cannot give it.
            (None, Silence::Since(at)) => now.saturating_duration_since(at) >= self.write_stall,
            (None, Silence::Excused { .. } | Silence::Unclear) => false,
        }
    }
}
