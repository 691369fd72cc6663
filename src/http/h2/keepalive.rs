//! The clocks of one HTTP/2 connection: whether its client still answers, and whether it is of any use.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::Instant;

use super::heartbeats::Clocks;
use super::shared_io::SharedIo;
use super::stream_receiver::Death;
use super::streams::Streams;
use crate::config::EdgeLimits;
use crate::relay::{Delivery, Leg};
use crate::suspension::{Deadline, Expiry, PauseMeter};

/// Time until the next look where no clock sets one.
const LOOK: Duration = Duration::from_mins(1);

/// Time in which a connection without streams must close when nothing arrives from the client.
const PARTING: Duration = Duration::from_secs(5);

/// Fewer unacknowledged bytes than this are the PING itself, not a backlog before it.
const BACKLOG: u64 = 256;

/// Lateness of a timer after which the process counts as stopped, where no stream has a setting for it.
const STALL_GUARD: Duration = Duration::from_secs(2);

/// The finding of the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClockFinding {
    /// All is well.
    Nothing,
    /// A PING has not been answered, nor has anything else come (RFC 9113 §6.7), or the client takes nothing. The
    /// streams that have a heartbeat are lost; `all`: there are no others.
    Dead { death: Death, all: bool },
    /// A header block takes too long.
    SlowHead,
    /// There have been no streams for a while.
    Idle,
    /// The connection was to have ended by now.
    OutOfTime,
}

/// Clocks that follow the heartbeats of the live streams as these come and go (see [`Clocks`]): no stream ends by the
/// bound of another.
pub(super) struct KeepAlive {
    pings: Option<PingPong>,
    header_read: Duration,
    /// The time that the connection may be without a stream once it has had one (`limits.keep_alive`); before that it is
    /// `header_read`.
    idle_limit: Duration,
    had_streams: bool,
    /// Part of the jitter that this connection uses, from 0 to 1: clients that came together are not asked together.
    share: f64,
    question: Option<Question>,
    idle_since: Option<Instant>,
    /// Since when the connection is to end with its last stream.
    retired: Option<Instant>,
    /// The instant by which the connection must have ended.
    until: Option<Instant>,
    /// The pauses of the process since the last look at the clocks.
    pauses: PauseMeter,
    sleep: Expiry,
}

/// A PING that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Question {
    /// The beginning of the time to answer it.
    asked: Instant,
    /// Set once it was handed to the library: while the socket takes nothing it is not, for the library reads nothing
    /// before it has written it.
    sent: bool,
    /// Bytes that the client's kernel had acknowledged when it was put.
    begun: Option<u64>,
    /// The same at the last look, and the instant at which it last moved.
    acked: Option<u64>,
    moved: Instant,
    way: Way,
    /// Set once the streams that have a heartbeat have failed for the lack of an answer.
    is_reported: bool,
}

/// The progress of a PING, as far as the looks at it have shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Unknown,
    /// A look found it on its way behind a backlog.
    HeldUp,
    /// It has arrived behind a backlog, at an unknown instant: the time to answer it begins with the look that found it.
    Arrived,
}

/// The outcome of a question that was not answered in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The answer may yet come.
    Spared,
    Lost(Death),
}

impl KeepAlive {
    pub(super) fn new(pings: Option<PingPong>, limits: &EdgeLimits, now: Instant) -> Self {
        let EdgeLimits { header_read, keep_alive, .. } = *limits;
        Self {
            pings,
            header_read,
            idle_limit: keep_alive,
            had_streams: false,
            share: fastrand::f64(),
            question: None,
            idle_since: None,
            retired: None,
            until: None,
            pauses: PauseMeter::since(now),
            sleep: Expiry::new(Deadline::fixed(now + header_read)),
        }
    }

    /// The connection is to have ended by `until`.
    pub(super) fn close_after(&mut self, until: Instant) {
        self.until = Some(until);
        self.sleep.reset(Deadline::fixed(until));
    }

    /// The connection is to end with its last stream, and soon after: a client that is gone does not close it.
    pub(super) fn retire(&mut self, now: Instant) {
        self.retired.get_or_insert(now);
        self.sleep.reset(Deadline::fixed(now + PARTING));
    }

    /// Looks at the clocks; to be called after everything that has come was read.
    pub(super) fn poll<C: Leg>(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut SharedIo<C>,
        has_streams: bool,
    ) -> ClockFinding {
        self.read_pong(cx, wire);
        if has_streams {
            self.idle_since = None;
            self.had_streams = true;
        } else {
            self.idle_since.get_or_insert_with(Instant::now);
        }
        let (changed, wants_ping) = wire.streams(|streams| {
            streams.inquire(Instant::now());
            (streams.take_changed(), streams.wants_ping())
        });
        if wants_ping || self.question.is_some_and(|question| !question.sent) {
            self.ask(Instant::now(), wire);
        }
        if changed || wants_ping {
            let next = self.next(Instant::now(), wire);
            if next < self.sleep.deadline().at() {
                self.sleep.reset(Deadline::fixed(next));
            }
        }
        while Pin::new(&mut self.sleep).poll(cx).is_ready() {
            let now = Instant::now();
            let late = now.duration_since(self.sleep.deadline().at());
            let finding = self.look(now, late, wire);
            if finding != ClockFinding::Nothing {
                return finding;
            }
            let next = self.next(now, wire);
            self.sleep.reset(Deadline::fixed(next));
        }
        ClockFinding::Nothing
    }

    fn read_pong<C: Leg>(&mut self, cx: &mut Context<'_>, wire: &SharedIo<C>) {
        if let (Some(pings), Some(_)) = (&mut self.pings, self.question)
            && matches!(pings.poll_pong(cx), Poll::Ready(Ok(_)))
        {
            self.question = None;
            wire.streams(Streams::ping_answered);
        }
    }

    /// Puts a question, unless there is one, and sends it as soon as the socket takes something.
    fn ask<C: Leg>(&mut self, now: Instant, wire: &SharedIo<C>) {
        let Some(pings) = &mut self.pings else { return };
        let question = self.question.get_or_insert_with(|| Question::put(now, wire.delivery()));
        if !question.sent && !wire.is_blocked() && pings.send_ping(Ping::opaque()).is_ok() {
            (question.sent, question.asked) = (true, now);
            wire.streams(Streams::ping_sent);
        }
    }

    fn look<C: Leg>(&mut self, now: Instant, late: Duration, wire: &SharedIo<C>) -> ClockFinding {
        if let Some(until) = self.until {
            return if now >= until { ClockFinding::OutOfTime } else { ClockFinding::Nothing };
        }
        match (self.idle_since, self.retired) {
            (Some(idle), Some(retired)) if now >= idle.max(retired) + PARTING => return ClockFinding::OutOfTime,
            (Some(idle), None) if now >= idle + self.idle() && self.block_until(wire).is_none() => {
                self.retire(now);
                return ClockFinding::Idle;
            }
            _ => {}
        }
        let clocks = wire.streams(|streams| streams.heartbeats.clocks());
        let guard = clocks.map_or(STALL_GUARD, |clocks| clocks.stall_guard);
        let paused = self.pauses.read();
        let stopped = if late > guard { late } else { paused };
        if !stopped.is_zero() {
            // The process was stopped or starved: what is waited for may be on its way.
            wire.frames(|frames| frames.excuse(stopped));
            if let Some(question) = &mut self.question {
                question.asked = now;
            }
        }
        if self.block_until(wire).is_some_and(|until| now >= until) {
            return ClockFinding::SlowHead;
        }
        let Some((clocks, timeout)) = clocks.and_then(|clocks| Some((clocks, clocks.timeout?))) else {
            return ClockFinding::Nothing;
        };
        let (last_received, interval) = (wire.last_received(), self.interval(&clocks));
        let wants_ping = wire.streams(|streams| {
            streams.inquire(now);
            streams.wants_ping()
        });
        match &mut self.question {
            None if wants_ping || now >= last_received + interval => self.ask(now, wire),
            Some(question)
                if !question.is_reported && now >= question.asked.max(last_received + interval) + timeout =>
            {
                let behind = wire.streams(|streams| streams.ping_end()).filter(|_| question.sent);
                if let Verdict::Lost(death) = question.judge(now, wire.delivery(), behind, clocks.write_stall) {
                    question.is_reported = true;
                    if !clocks.spares_some {
                        self.close_after(now + clocks.close_grace);
                    }
                    return ClockFinding::Dead { death, all: !clocks.spares_some };
                }
            }
            _ => {}
        }
        ClockFinding::Nothing
    }

    /// Returns the instant of the next look: clocks that have moved later meanwhile are noticed then, and no read re-arms a
    /// timer.
    fn next<C: Leg>(&self, now: Instant, wire: &SharedIo<C>) -> Instant {
        if let Some(until) = self.until {
            return until;
        }
        let clocks = wire.streams(|streams| streams.heartbeats.clocks());
        let alive = match (self.question, clocks.and_then(|clocks| Some((clocks, clocks.timeout?)))) {
            (Some(question), Some((clocks, timeout))) if !question.is_reported => {
                question.asked.max(wire.last_received() + self.interval(&clocks)) + timeout
            }
            (None, Some((clocks, _))) if self.pings.is_some() => wire.last_received() + self.interval(&clocks),
            _ => now + LOOK,
        };
        let alive = wire.streams(|streams| streams.inquire_at()).map_or(alive, |at| at.min(alive));
        // A block may begin at any time, and no read re-arms the timer.
        let block = self.block_until(wire);
        let idle = match (self.idle_since.unwrap_or(now), self.retired) {
            (idle, Some(retired)) => idle.max(retired) + PARTING,
            // A head that is arriving has its own time.
            (_, None) if block.is_some() => now + LOOK,
            (idle, None) => idle + self.idle(),
        };
        let block = block.unwrap_or(now + self.header_read);
        alive.min(block).min(idle).max(now + Duration::from_millis(1))
    }

    /// Returns the time that the connection may be without a stream.
    fn idle(&self) -> Duration {
        if self.had_streams { self.idle_limit } else { self.header_read }
    }

    fn interval(&self, clocks: &Clocks) -> Duration {
        clocks.interval.mul_f64(1.0 - clocks.jitter * self.share)
    }

    fn block_until<C: Leg>(&self, wire: &SharedIo<C>) -> Option<Instant> {
        wire.frames(|frames| frames.block_until(self.header_read))
    }
}

impl Question {
    fn put(now: Instant, delivery: Option<Delivery>) -> Self {
        let acked = delivery.map(|delivery| delivery.acked);
        Self { asked: now, sent: false, begun: acked, acked, moved: now, way: Way::Unknown, is_reported: false }
    }

    /// Judges whether a question that was not answered in time may yet be: while it stands behind a backlog that moves, and
    /// for as long as an answer may take after it has arrived. `behind` is where it ends among the bytes of the
    /// connection; `None`: the socket has not taken it.
    fn judge(
        &mut self,
        now: Instant,
        delivery: Option<Delivery>,
        behind: Option<u64>,
        write_stall: Duration,
    ) -> Verdict {
        let Some(Delivery { acked, unread }) = delivery else {
            // Without figures of the kernel, only a socket that takes nothing shows that the PING is held up.
            let is_blocked = behind.is_none() && now < self.moved + write_stall;
            return if is_blocked { Verdict::Spared } else { Verdict::Lost(Death::Unanswered) };
        };
        if self.acked.is_none_or(|before| acked > before) {
            (self.acked, self.moved) = (Some(acked), now);
        }
        let arrived = behind.is_some_and(|behind| acked >= behind);
        let has_backlog = behind.zip(self.begun).is_none_or(|(behind, begun)| behind.saturating_sub(begun) > BACKLOG);
        let is_behind = !arrived && has_backlog;
        let waits = is_behind && now < self.moved + write_stall;
        let just_arrived = arrived && (self.way == Way::HeldUp || self.way == Way::Unknown && has_backlog);
        if arrived {
            self.way = Way::Arrived;
        } else if waits {
            self.way = Way::HeldUp;
        }
        if unread || waits || just_arrived {
            self.asked = now;
            return Verdict::Spared;
        }
        Verdict::Lost(if is_behind { Death::Blocked } else { Death::Unanswered })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const WRITE_STALL: Duration = Duration::from_secs(45);

    fn at(acked: u64) -> Delivery {
        Delivery { acked, unread: false }
    }

    #[test]
    fn a_ping_that_nothing_stands_before_is_not_waited_for() {
        let now = Instant::now();
        let later = now + 20 * SECOND;
        let lost = Verdict::Lost(Death::Unanswered);
        let judge =
            |put: Option<Delivery>, then, behind| Question::put(now, put).judge(later, then, behind, WRITE_STALL);
        assert_eq!(judge(Some(at(1000)), Some(at(1000)), Some(1017)), lost, "it never arrived");
        assert_eq!(judge(Some(at(1000)), Some(at(1017)), Some(1017)), lost, "arrived at once, and unanswered");
        assert_eq!(judge(None, None, Some(1017)), lost, "the kernel has no figures");
    }

    #[test]
    fn a_ping_behind_a_backlog_is_waited_for_while_that_moves() {
        let now = Instant::now();
        let end = Some(1_000_000);
        let mut question = Question::put(now, Some(at(0)));
        for look in 1..=9 {
            let acked = Some(at(100_000 * u64::from(look)));
            assert_eq!(question.judge(now + 20 * SECOND * look, acked, end, WRITE_STALL), Verdict::Spared);
        }
        let arrival = now + 200 * SECOND;
        assert_eq!(question.judge(arrival, Some(at(1_000_000)), end, WRITE_STALL), Verdict::Spared, "time to answer");
        let unanswered = question.judge(arrival + 20 * SECOND, Some(at(1_000_000)), end, WRITE_STALL);
        assert_eq!(unanswered, Verdict::Lost(Death::Unanswered));

        // In the socket, or not even there.
        for behind in [end, None] {
            let mut stuck = Question::put(now, Some(at(0)));
            assert_eq!(stuck.judge(now + 20 * SECOND, Some(at(0)), behind, WRITE_STALL), Verdict::Spared);
            let blocked = stuck.judge(now + WRITE_STALL, Some(at(0)), behind, WRITE_STALL);
            assert_eq!(blocked, Verdict::Lost(Death::Blocked), "nothing moved for write_stall");
        }
    }

    #[test]
    fn s72_a_ping_that_arrived_behind_a_backlog_before_the_first_look_has_time_to_be_answered() {
        let (now, end) = (Instant::now(), Some(1_000_000));
        let mut question = Question::put(now, Some(at(0)));
        let first = now + 20 * SECOND;
        assert_eq!(
            question.judge(first, Some(at(1_000_000)), end, WRITE_STALL),
            Verdict::Spared,
            "it may just have come"
        );
        let second = question.judge(first + 20 * SECOND, Some(at(1_000_000)), end, WRITE_STALL);
        assert_eq!(second, Verdict::Lost(Death::Unanswered), "once only");
    }

    /// Returns the finding of `keepalive` within `limit`.
    async fn find(
        keepalive: &mut KeepAlive,
        wire: &mut SharedIo<Nobody>,
        has_streams: bool,
        limit: Duration,
    ) -> Option<ClockFinding> {
        let found = poll_fn(|cx| match keepalive.poll(cx, wire, has_streams) {
            ClockFinding::Nothing => Poll::Pending,
            other => Poll::Ready(other),
        });
        tokio::time::timeout(limit, found).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_streams_is_given_up_and_one_with_streams_is_not() {
        const IDLE: Duration = Duration::from_secs(75);
        let mut wire = SharedIo::new(Nobody, Instant::now());
        let mut clocks = KeepAlive::new(None, &EdgeLimits::default(), Instant::now());
        assert_eq!(find(&mut clocks, &mut wire, true, 600 * SECOND).await, None);

        let idle_since = Instant::now();
        assert_eq!(find(&mut clocks, &mut wire, false, 600 * SECOND).await, Some(ClockFinding::Idle));
        assert!(idle_since.elapsed() >= IDLE && idle_since.elapsed() <= IDLE + 10 * SECOND);
        assert_eq!(find(&mut clocks, &mut wire, false, 600 * SECOND).await, Some(ClockFinding::OutOfTime));
        assert!(idle_since.elapsed() <= IDLE + PARTING + 10 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_had_no_stream_is_given_up_after_the_time_for_a_head() {
        let begun = Instant::now();
        let mut wire = SharedIo::new(Nobody, begun);
        let mut clocks = KeepAlive::new(None, &EdgeLimits::default(), begun);
        assert_eq!(find(&mut clocks, &mut wire, false, 600 * SECOND).await, Some(ClockFinding::Idle));
        assert!(begun.elapsed() >= 10 * SECOND && begun.elapsed() <= 20 * SECOND, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn s52_a_clock_strikes_although_reads_have_spent_the_budget() {
        let mut wire = SharedIo::new(Nobody, Instant::now());
        let mut clocks = KeepAlive::new(None, &EdgeLimits::default(), Instant::now());
        clocks.close_after(Instant::now() + SECOND);
        tokio::time::advance(2 * SECOND).await;
        let found = poll_fn(|cx| {
            let mut noop = Context::from_waker(std::task::Waker::noop());
            while let Poll::Ready(restore) = tokio::task::coop::poll_proceed(&mut noop) {
                restore.made_progress();
            }
            Poll::Ready(clocks.poll(cx, &mut wire, true))
        });
        assert_eq!(found.await, ClockFinding::OutOfTime);
    }

    /// A silent client.
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
