//! The state of the path to the client: blocked writes, and the progress of the last probe.

use std::time::{Duration, Instant};

/// The number of checks within one `write_stall`, so that a stall is detected soon after it has lasted that long.
const LOOKS: u32 = 8;
/// Fewer unacknowledged bytes than this are the probe itself, not a backlog in front of it.
const BACKLOG: u64 = 256;

/// Kernel information about the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The bytes acknowledged by the client's kernel since the connection began, on the scale of the written positions:
    /// once nothing is in flight, it equals the last of them.
    pub acked: u64,
    /// True if bytes from the client are waiting to be read.
    pub unread: bool,
}

/// The position of the last probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbePosition {
    /// Acknowledged by the client's kernel, or unknown.
    Arrived,
    /// Behind a backlog of data that moved lately: the client reads slowly.
    Behind,
    /// Alone in flight, and unacknowledged.
    Lost,
}

/// The outbound half of the client leg.
#[derive(Debug)]
pub(super) struct Downlink {
    write_stall: Duration,
    /// The start of the current block of writes without progress, and the time of the next check.
    blocked: Option<Blocked>,
    /// The last acknowledgement count seen, and the time at which it last grew.
    acks: Option<(u64, Instant)>,
    /// The bytes written, as of the last check.
    written: u64,
    /// True if the last check found progress: more bytes acknowledged, or written if no kernel reports
    /// acknowledgements.
    moved: bool,
    /// The time since which written bytes have been unacknowledged and no acknowledgement has arrived.
    unmoved_since: Option<Instant>,
    /// The probes sent since one was last proven to have arrived.
    flight: Option<Flight>,
}

#[derive(Clone, Copy, Debug)]
struct Blocked {
    since: Instant,
    look_at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    /// The time at which the oldest of them was sent.
    sent: Instant,
    /// The position of the newest one's last byte in the stream of bytes written.
    end: u64,
    look_at: Instant,
    silence: Silence,
}

/// The meaning of a missing pong if no kernel reports acknowledgements.
#[derive(Clone, Copy, Debug)]
enum Silence {
    /// None before `until`: the probe may not have reached a client that ends one frame and begins another.
    Excused { until: Instant },
    /// Evidence of a dead path since this time, at which a frame ended that the pong could have followed.
    Since(Instant),
    /// None: a pong arrived that answers no known ping, perhaps a corrupted answer, or no probe was sent that the
    /// client must answer.
    Unclear,
}

impl Flight {
    /// Returns `at`, or the end of the excuse if that is in the future and earlier: a timer due then shows whether the
    /// process was suspended at that time.
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

    /// Records that a write is waiting and cannot proceed, or that part of it was just written.
    pub(super) fn blocked(&mut self, now: Instant) {
        self.blocked = Some(Blocked { since: now, look_at: now + self.write_stall / LOOKS });
    }

    /// Records that no write is waiting any more.
    pub(super) fn clear(&mut self) {
        self.blocked = None;
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// Records that a probe was sent. Its arrival is in doubt after `window`. `must_answer` is true if every live
    /// client must answer it, which gives a meaning to a missing answer.
    pub(super) fn probe_left(&mut self, now: Instant, end: u64, window: Duration, must_answer: bool) {
        let fresh = if must_answer { Silence::Excused { until: now + window } } else { Silence::Unclear };
        let flight = self.flight.get_or_insert(Flight { sent: now, end, look_at: now + window, silence: fresh });
        flight.end = end;
        if must_answer && matches!(flight.silence, Silence::Unclear) {
            flight.silence = fresh;
            flight.look_at = flight.look_by(flight.look_at, now);
        }
    }

    /// Records that a probe was answered.
    pub(super) fn record_answer(&mut self) {
        self.flight = None;
    }

    /// Records a pong that answers no known ping.
    pub(super) fn record_unknown_pong(&mut self) {
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

    /// Returns the time of the next check.
    pub(super) fn look_at(&self) -> Option<Instant> {
        let blocked = self.blocked.map(|blocked| blocked.look_at);
        let flight = self.flight.map(|flight| flight.look_at);
        [blocked, flight].into_iter().flatten().min()
    }

    /// Shifts all clocks by the suspension of the process between `from` and `now`.
    pub(super) fn shift_by_suspension(&mut self, from: Instant, now: Instant) {
        let pause = |since: Instant| now.saturating_duration_since(from.max(since));
        if let Some(blocked) = &mut self.blocked {
            blocked.look_at += pause(blocked.since);
            blocked.since += pause(blocked.since);
        }
        self.reads_paused_between(from, now);
        if let Some(flight) = &mut self.flight {
            flight.look_at += pause(flight.sent);
            flight.sent += pause(flight.sent);
        }
        for since in self.acks.iter_mut().map(|(_, moved)| moved).chain(&mut self.unmoved_since) {
            *since += pause(*since);
        }
    }

    /// Records that the client was not read between `from` and `now`, so that its silence in that time counts for
    /// nothing.
    pub(super) fn reads_paused_between(&mut self, from: Instant, now: Instant) {
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

    /// Records the written position and the kernel's information. Returns whether the path to the client is dead:
    /// nothing has moved on it for `write_stall` although something should have. With `spare_flight` a probe that did
    /// not arrive is ignored.
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

    /// Returns the position of the last probe, at its deadline and after a [`Self::look`].
    pub(super) fn probe_position(&self, delivery: Option<Delivery>) -> ProbePosition {
        match (self.flight, delivery) {
            (Some(flight), Some(Delivery { acked, .. })) if acked < flight.end => {
                if flight.end - acked > BACKLOG {
                    ProbePosition::Behind
                } else {
                    ProbePosition::Lost
                }
            }
            _ => ProbePosition::Arrived,
        }
    }

    /// Returns whether nothing has been acknowledged for `write_stall`, counted from `since` at the earliest.
    pub(super) fn is_still(&self, now: Instant, since: Instant, delivery: Option<Delivery>) -> bool {
        let moved = delivery.and(self.acks).map_or(since, |(_, moved)| moved.max(since));
        now.saturating_duration_since(moved) >= self.write_stall
    }

    /// Returns the time of the next check: a fraction of `write_stall`, but no later than the end of a running stall.
    pub(super) fn next_look(&self, now: Instant) -> Instant {
        let regular = now + self.write_stall / LOOKS;
        self.unmoved_since
            .map(|since| since + self.write_stall)
            .filter(|at| *at > now)
            .map_or(regular, |at| at.min(regular))
    }

    /// Returns whether the last check found progress since the check before it.
    pub(super) fn has_moved(&self) -> bool {
        self.moved
    }

    /// Returns whether bytes have been in flight to the client for `write_stall` without an acknowledgement. False if
    /// everything is acknowledged, as nothing remains to acknowledge.
    pub(super) fn is_unmoved(&self, now: Instant) -> bool {
        self.unmoved_since.is_some_and(|since| now.saturating_duration_since(since) >= self.write_stall)
    }

    /// Returns whether the last check found bytes that the client has not acknowledged.
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
            // Without kernel information only an answer proves the path, and a client in the middle of a frame cannot
            // send one.
            (None, Silence::Since(at)) => now.saturating_duration_since(at) >= self.write_stall,
            (None, Silence::Excused { .. } | Silence::Unclear) => false,
        }
    }
}
