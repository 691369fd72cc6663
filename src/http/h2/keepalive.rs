//! The clocks of one HTTP/2 connection: whether its client still answers, and whether it is of any use.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep_until};

use super::wire::Wire;
use crate::heartbeat::Policy;
use crate::relay::{Delivery, Leg};

/// How long a connection without streams is kept.
const IDLE: Duration = Duration::from_mins(1);

/// How long the last streams' connection may take to close when nothing is to be heard of the client.
const PARTING: Duration = Duration::from_secs(5);

/// Fewer unacknowledged bytes than this are the PING itself, not a backlog before it.
const BACKLOG: u64 = 256;

/// What the clocks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// All is well.
    Nothing,
    /// A PING has not been answered, nor has anything else come (RFC 9113 §6.7).
    Dead,
    /// A header block takes too long.
    SlowHead,
    /// There have been no streams for a while.
    Idle,
    /// The connection was to have ended by now.
    OutOfTime,
}

pub(super) struct KeepAlive {
    pings: Option<PingPong>,
    interval: Duration,
    timeout: Duration,
    stall_guard: Duration,
    header_read: Duration,
    write_stall: Duration,
    close_grace: Duration,
    question: Option<Question>,
    idle_since: Option<Instant>,
    /// When the connection is to have ended.
    until: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
}

/// A PING that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Question {
    /// When the time to answer it began.
    asked: Instant,
    /// Where it stands among the bytes of the connection.
    behind: u64,
    /// Whether much stands before it.
    has_backlog: bool,
    /// How far the client's kernel was at the last look, and when that last moved.
    acked: u64,
    moved: Instant,
    /// Whether it was found to be still on its way.
    held_up: bool,
}

impl KeepAlive {
    pub(super) fn new(pings: Option<PingPong>, policy: &Policy, header_read: Duration, now: Instant) -> Self {
        // Clients that came together are not to be asked together.
        let interval = policy.interval.mul_f64(1.0 - policy.jitter * fastrand::f64());
        Self {
            pings,
            interval,
            timeout: policy.timeout,
            stall_guard: policy.stall_guard,
            header_read,
            write_stall: policy.write_stall,
            close_grace: policy.close_grace,
            question: None,
            idle_since: None,
            until: None,
            sleep: Box::pin(sleep_until(now + header_read.min(interval))),
        }
    }

    /// The connection is to have ended by `until`.
    pub(super) fn part(&mut self, until: Instant) {
        self.until = Some(until);
        self.sleep.as_mut().reset(until);
    }

    /// Looks at the clocks; to be called after everything that has come was read.
    pub(super) fn poll<C: Leg>(&mut self, cx: &mut Context<'_>, wire: &Wire<C>, has_streams: bool) -> Finding {
        self.hear_pong(cx);
        if has_streams {
            self.idle_since = None;
        } else {
            self.idle_since.get_or_insert_with(Instant::now);
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let late = now.duration_since(self.sleep.deadline());
            let finding = self.look(now, late, wire);
            if finding != Finding::Nothing {
                return finding;
            }
            let next = self.next(now, wire);
            self.sleep.as_mut().reset(next);
        }
        Finding::Nothing
    }

    fn hear_pong(&mut self, cx: &mut Context<'_>) {
        if let (Some(pings), Some(_)) = (&mut self.pings, self.question)
            && pings.poll_pong(cx).is_ready()
        {
            self.question = None;
        }
    }

    fn look<C: Leg>(&mut self, now: Instant, late: Duration, wire: &Wire<C>) -> Finding {
        if let Some(until) = self.until {
            return if now >= until { Finding::OutOfTime } else { Finding::Nothing };
        }
        if self.idle_since.is_some_and(|since| now >= since + IDLE) {
            self.part(now + PARTING);
            return Finding::Idle;
        }
        let block_since = wire.frames(|frames| frames.block_since());
        if block_since.is_some_and(|since| now >= since + self.header_read) {
            return Finding::SlowHead;
        }
        let heard = wire.heard();
        match (&mut self.question, &mut self.pings) {
            // The process was stopped or starved: the answer may be on its way.
            (Some(question), _) if late > self.stall_guard => question.asked = now,
            (Some(question), _) if now >= heard.max(question.asked) + self.timeout => {
                if !question.is_on_its_way(now, wire.delivery(), self.write_stall) {
                    self.part(now + self.close_grace);
                    return Finding::Dead;
                }
            }
            (None, Some(pings)) if now >= heard + self.interval => {
                if pings.send_ping(Ping::opaque()).is_ok() {
                    self.question = Some(Question::put(now, wire.written(), wire.delivery()));
                }
            }
            _ => {}
        }
        Finding::Nothing
    }

    /// When to look again: what has moved later meanwhile is noticed then, and no read re-arms a timer.
    fn next<C: Leg>(&self, now: Instant, wire: &Wire<C>) -> Instant {
        if let Some(until) = self.until {
            return until;
        }
        let heard = wire.heard();
        let alive = match (self.question, &self.pings) {
            (Some(question), _) => heard.max(question.asked) + self.timeout,
            (None, Some(_)) => heard + self.interval,
            (None, None) => now + IDLE,
        };
        let head = wire.frames(|frames| frames.block_since()).unwrap_or(now) + self.header_read;
        let idle = self.idle_since.unwrap_or(now) + IDLE;
        alive.min(head).min(idle).max(now + Duration::from_millis(1))
    }
}

impl Question {
    fn put(now: Instant, behind: u64, delivery: Option<Delivery>) -> Self {
        let acked = delivery.map_or(behind, |delivery| delivery.acked);
        let has_backlog = behind.saturating_sub(acked) > BACKLOG;
        Self { asked: now, behind, has_backlog, acked, moved: now, held_up: false }
    }

    /// Whether a question that was not answered in time may yet be: while it stands behind a backlog that moves, and
    /// for as long as an answer may take after it has arrived.
    fn is_on_its_way(&mut self, now: Instant, delivery: Option<Delivery>, write_stall: Duration) -> bool {
        let Some(Delivery { acked, unread }) = delivery else { return false };
        let arrived = acked >= self.behind;
        if acked > self.acked {
            (self.acked, self.moved) = (acked, now);
        }
        let waits = !arrived && self.has_backlog && now < self.moved + write_stall;
        let just_arrived = arrived && std::mem::take(&mut self.held_up);
        self.held_up |= waits;
        let spared = unread || waits || just_arrived;
        if spared {
            self.asked = now;
        }
        spared
    }
}
