//! The clocks of one HTTP/2 connection: whether its client still answers, and whether it is of any use.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::Instant;

use super::wire::Wire;
use crate::heartbeat::Policy;
use crate::relay::{Delivery, Leg};
use crate::suspension::{Deadline, Expiry};

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
    /// Since when the connection is to end with its last stream.
    retired: Option<Instant>,
    /// When the connection is to have ended.
    until: Option<Instant>,
    sleep: Expiry,
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
            retired: None,
            until: None,
            sleep: Expiry::new(Deadline::fixed(now + header_read.min(interval))),
        }
    }

    /// The connection is to have ended by `until`.
    pub(super) fn part(&mut self, until: Instant) {
        self.until = Some(until);
        self.sleep.reset(Deadline::fixed(until));
    }

    /// The connection is to end with its last stream, and soon after: a client that is gone does not close it.
    pub(super) fn retire(&mut self, now: Instant) {
        self.retired.get_or_insert(now);
        self.sleep.reset(Deadline::fixed(now + PARTING));
    }

    /// Looks at the clocks; to be called after everything that has come was read.
    pub(super) fn poll<C: Leg>(&mut self, cx: &mut Context<'_>, wire: &Wire<C>, has_streams: bool) -> Finding {
        self.hear_pong(cx);
        if has_streams {
            self.idle_since = None;
        } else {
            self.idle_since.get_or_insert_with(Instant::now);
        }
        while Pin::new(&mut self.sleep).poll(cx).is_ready() {
            let now = Instant::now();
            let late = now.duration_since(self.sleep.deadline().at());
            let finding = self.look(now, late, wire);
            if finding != Finding::Nothing {
                return finding;
            }
            let next = self.next(now, wire);
            self.sleep.reset(Deadline::fixed(next));
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
        match (self.idle_since, self.retired) {
            (Some(idle), Some(retired)) if now >= idle.max(retired) + PARTING => return Finding::OutOfTime,
            (Some(idle), None) if now >= idle + IDLE => {
                self.retire(now);
                return Finding::Idle;
            }
            _ => {}
        }
        let block_since = wire.frames(|frames| frames.block_since());
        if block_since.is_some_and(|since| now >= Deadline::since(since, self.header_read).at()) {
            return Finding::SlowHead;
        }
        let heard = wire.heard();
        if let Some(question) = &mut self.question {
            if late > self.stall_guard {
                // The process was stopped or starved: the answer may be on its way.
                question.asked = now;
            } else if now >= heard.max(question.asked) + self.timeout
                && !question.is_on_its_way(now, wire.delivery(), self.write_stall)
            {
                self.part(now + self.close_grace);
                return Finding::Dead;
            }
        } else if let Some(pings) = &mut self.pings
            && now >= heard + self.interval
            && pings.send_ping(Ping::opaque()).is_ok()
        {
            self.question = Some(Question::put(now, wire.written(), wire.delivery()));
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
        let block = Deadline::since(wire.frames(|frames| frames.block_since()).unwrap_or(now), self.header_read).at();
        let idle = match (self.idle_since.unwrap_or(now), self.retired) {
            (idle, Some(retired)) => idle.max(retired) + PARTING,
            (idle, None) => idle + IDLE,
        };
        alive.min(block).min(idle).max(now + Duration::from_millis(1))
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const WRITE_STALL: Duration = Duration::from_secs(45);

    fn at(acked: u64) -> Delivery {
        Delivery { acked, unread: false }
    }

    #[test]
    fn a_ping_that_nothing_stands_before_is_not_waited_for() {
        let now = Instant::now();
        let mut lone = Question::put(now, 1017, Some(at(1000)));
        assert!(!lone.is_on_its_way(now + 20 * SECOND, Some(at(1000)), WRITE_STALL), "lost");
        let mut arrived = Question::put(now, 1017, Some(at(1000)));
        assert!(
            !arrived.is_on_its_way(now + 20 * SECOND, Some(at(1017)), WRITE_STALL),
            "arrived at once, and unanswered"
        );
        let mut unknown = Question::put(now, 1017, None);
        assert!(!unknown.is_on_its_way(now + 20 * SECOND, None, WRITE_STALL), "nobody can tell");
    }

    #[test]
    fn a_ping_behind_a_backlog_is_waited_for_while_that_moves() {
        let now = Instant::now();
        let mut question = Question::put(now, 1_000_000, Some(at(0)));
        for look in 1..=9 {
            assert!(question.is_on_its_way(now + 20 * SECOND * look, Some(at(100_000 * u64::from(look))), WRITE_STALL));
        }
        let arrival = now + 200 * SECOND;
        assert!(question.is_on_its_way(arrival, Some(at(1_000_000)), WRITE_STALL), "the time to answer begins now");
        assert!(!question.is_on_its_way(arrival + 20 * SECOND, Some(at(1_000_000)), WRITE_STALL));

        let mut stuck = Question::put(now, 1_000_000, Some(at(0)));
        assert!(stuck.is_on_its_way(now + 20 * SECOND, Some(at(0)), WRITE_STALL));
        assert!(!stuck.is_on_its_way(now + WRITE_STALL, Some(at(0)), WRITE_STALL), "nothing moved for write_stall");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_streams_is_given_up_and_one_with_streams_is_not() {
        let wire = Wire::new(Nobody, Instant::now());
        let begun = Instant::now();
        let mut clocks = KeepAlive::new(None, &Policy::default(), 10 * SECOND, begun);
        let busy = std::future::poll_fn(|cx| match clocks.poll(cx, &wire, true) {
            Finding::Nothing => std::task::Poll::Pending,
            other => std::task::Poll::Ready(other),
        });
        assert!(tokio::time::timeout(600 * SECOND, busy).await.is_err());

        let idle_since = Instant::now();
        let mut find = async || {
            std::future::poll_fn(|cx| match clocks.poll(cx, &wire, false) {
                Finding::Nothing => std::task::Poll::Pending,
                other => std::task::Poll::Ready(other),
            })
            .await
        };
        assert_eq!(find().await, Finding::Idle);
        assert!(idle_since.elapsed() >= IDLE && idle_since.elapsed() <= IDLE + 10 * SECOND);
        assert_eq!(find().await, Finding::OutOfTime);
        assert!(idle_since.elapsed() <= IDLE + PARTING + 10 * SECOND);
    }

    /// A client that says nothing.
    struct Nobody;

    impl Leg for Nobody {}

    impl tokio::io::AsyncRead for Nobody {
        fn poll_read(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            _buf: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Pending
        }
    }

    impl tokio::io::AsyncWrite for Nobody {
        fn poll_write(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> std::task::Poll<std::io::Result<usize>> {
            std::task::Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
    }
}
