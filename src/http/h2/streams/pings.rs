//! The connection's PINGs (RFC 9113 §6.7), and what their answers show of the silence of a stream.
//!
//! A client's bytes arrive in the order in which it sends them. An answered PING that was sent after a stream had begun to
//! wait therefore shows that what the client had sent for the stream by then has been read; as long as it is not answered,
//! that may stand in a slow uplink, behind the client's own uploads, or in the socket of a proxy that was stopped. Two waits
//! are judged by this: that for the answer to a heartbeat, and that for a `WINDOW_UPDATE`. The PINGs are sent early enough
//! to be answered within the time that the wait may take.

use std::time::Duration;

use tokio::time::Instant;

/// Answers to PINGs after which what the client had sent before the first has been read. A client's library may send the
/// first ahead of what it has queued, but then that queue is on the wire before the second.
const ANSWERS: u64 = 2;

/// The PINGs of the connection.
#[derive(Debug, Default)]
pub(super) struct Pings {
    pub(super) sent: u64,
    pub(super) answered: u64,
    /// The number of the last one that a stream waits for.
    pub(super) wanted: u64,
    /// End of the last one among the bytes of the connection, once the socket has taken it.
    pub(super) end: Option<u64>,
}

/// The wait for answers to PINGs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inquiry {
    began: Instant,
    /// The number of the last PING that was sent before.
    base: u64,
}

impl Inquiry {
    fn begin(now: Instant, pings: &mut Pings) -> Self {
        let inquiry = Self { began: now, base: pings.sent };
        pings.wanted = pings.wanted.max(inquiry.end());
        inquiry
    }

    fn end(self) -> u64 {
        self.base + ANSWERS
    }

    fn is_over(self, pings: &Pings) -> bool {
        pings.answered >= self.end()
    }
}

/// The wait of a stream's heartbeat for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct InquiryAnswer {
    /// The beginning of the time to answer.
    pub(super) since: Instant,
    /// The instant at which half of that time has passed: an answer that the client has not sent by then comes late.
    pub(super) inquire_at: Instant,
    /// Set once bytes of the stream have come.
    pub(super) received: bool,
    pub(super) inquiry: Option<Inquiry>,
    /// The instant at which unread bytes of the connection put off the outcome, which they do until some have been read.
    excused: Option<Instant>,
}

impl InquiryAnswer {
    /// The wait from `since` on for an answer that may take `window`.
    pub(super) fn new(since: Instant, window: Duration) -> Self {
        Self { since, inquire_at: since + window / 2, received: false, inquiry: None, excused: None }
    }

    /// The same wait where its times have moved later, as they do by a stop of the process. PINGs that were sent late enough
    /// for it still show what they show.
    pub(super) fn moved(self, since: Instant, window: Duration) -> Self {
        let moved = Self::new(since, window);
        let holds = self.inquiry.is_some_and(|inquiry| inquiry.began >= moved.inquire_at);
        if holds { Self { since, inquire_at: moved.inquire_at, ..self } } else { moved }
    }

    /// Begins the inquiry if it is time; returns when it will be.
    pub(super) fn inquire(&mut self, now: Instant, pings: &mut Pings) -> Option<Instant> {
        if self.received || self.inquiry.is_some() {
            return None;
        }
        if self.inquire_at > now {
            return Some(self.inquire_at);
        }
        self.inquiry = Some(Inquiry::begin(now, pings));
        None
    }

    /// Returns whether the answer may be on its way, on a connection that was last heard at `last_received` and of which bytes wait
    /// to be read (`unread`).
    pub(super) fn may_come(&mut self, now: Instant, last_received: Instant, unread: bool, pings: &mut Pings) -> bool {
        if now < self.inquire_at {
            return true;
        }
        let inquiry = *self.inquiry.get_or_insert_with(|| Inquiry::begin(now, pings));
        !inquiry.is_over(pings) || unread && last_received <= *self.excused.get_or_insert(now)
    }
}

/// The wait of a stream that has bytes for the client for one of its windows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stall {
    /// The instant at which the window was used up.
    pub(super) since: Instant,
    inquiry: Option<Inquiry>,
}

impl Stall {
    /// The wait for a window that was used up at `since`.
    pub(super) fn new(since: Instant) -> Self {
        Self { since, inquiry: None }
    }

    /// Returns whether the `WINDOW_UPDATE` may be on its way although the wait has lasted for nearly `write_stall`.
    pub(super) fn may_end(&mut self, now: Instant, write_stall: Duration, pings: &mut Pings) -> bool {
        let lasted = now.duration_since(self.since);
        if lasted < write_stall / 2 {
            return false;
        }
        let inquiry = *self.inquiry.get_or_insert_with(|| Inquiry::begin(now, pings));
        lasted >= write_stall / 8 * 7 && !inquiry.is_over(pings)
    }
}
