//! The connection's PINGs (RFC 9113 §6.7), and what their answers show of the silence of a stream.
//!
//! A client's bytes arrive in the order in which it sends them. An answered PING that was sent after a stream had begun to
//! wait therefore shows that what the client had sent for the stream by then has been read; as long as it is not answered,
//! that may stand in a slow uplink, behind the client's own uploads, or in the socket of a proxy that was stopped. Two waits
//! are judged by this: that for the answer to a heartbeat, and that for a `WINDOW_UPDATE`. The PINGs are sent early enough
//! to be answered within the time that the wait may take.

use std::time::Duration;

use tokio::time::Instant;

use super::{Streams, note_shut};
use crate::relay::Delivery;

/// Answers to PINGs after which what the client had sent before the first has been read. A client's library may send the
/// first ahead of what it has queued, but then that queue is on the wire before the second.
const ANSWERS: u64 = 2;

/// The PINGs of the connection.
#[derive(Debug, Default)]
pub(super) struct Pings {
    sent: u64,
    answered: u64,
    /// The number of the last one that a stream waits for.
    wanted: u64,
    /// End of the last one among the bytes of the connection, once the socket has taken it.
    pub(super) end: Option<u64>,
}

/// The wait for answers to PINGs.
#[derive(Clone, Copy, Debug)]
struct Inquiry {
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
pub(super) struct Answer {
    /// When the time to answer began.
    since: Instant,
    /// When half of that time has passed: an answer that the client has not sent by then comes late.
    inquire_at: Instant,
    /// Whether bytes of the stream have come.
    heard: bool,
    inquiry: Option<Inquiry>,
    /// When unread bytes of the connection put off the outcome, which they do until some have been read.
    excused: Option<Instant>,
}

impl Answer {
    fn new(since: Instant, window: Duration) -> Self {
        Self { since, inquire_at: since + window / 2, heard: false, inquiry: None, excused: None }
    }

    /// The same wait where its times have moved later, as they do by a stop of the process. PINGs that were sent late enough
    /// for it still show what they show.
    fn moved(self, since: Instant, window: Duration) -> Self {
        let moved = Self::new(since, window);
        let holds = self.inquiry.is_some_and(|inquiry| inquiry.began >= moved.inquire_at);
        if holds { Self { since, inquire_at: moved.inquire_at, ..self } } else { moved }
    }

    /// Begins the inquiry if it is time; returns when it will be.
    fn inquire(&mut self, now: Instant, pings: &mut Pings) -> Option<Instant> {
        if self.heard || self.inquiry.is_some() {
            return None;
        }
        if self.inquire_at > now {
            return Some(self.inquire_at);
        }
        self.inquiry = Some(Inquiry::begin(now, pings));
        None
    }

    fn may_come(&mut self, now: Instant, heard: Instant, unread: bool, pings: &mut Pings) -> bool {
        if now < self.inquire_at {
            return true;
        }
        let inquiry = *self.inquiry.get_or_insert_with(|| Inquiry::begin(now, pings));
        !inquiry.is_over(pings) || unread && heard <= *self.excused.get_or_insert(now)
    }
}

/// The wait of a stream that has bytes for the client for one of its windows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stall {
    /// When the window was used up.
    since: Instant,
    inquiry: Option<Inquiry>,
}

impl Stall {
    /// Returns whether the `WINDOW_UPDATE` may be on its way although the wait has lasted for nearly `write_stall`.
    fn may_end(&mut self, now: Instant, write_stall: Duration, pings: &mut Pings) -> bool {
        let lasted = now.duration_since(self.since);
        if lasted < write_stall / 2 {
            return false;
        }
        let inquiry = *self.inquiry.get_or_insert_with(|| Inquiry::begin(now, pings));
        lasted >= write_stall / 8 * 7 && !inquiry.is_over(pings)
    }
}

/// The PINGs of the connection, and what their answers say about a stream.
impl Streams {
    pub(in crate::http::h2) fn ping_sent(&mut self) {
        self.pings.sent += 1;
        self.pings.end = None;
    }

    pub(in crate::http::h2) fn ping_answered(&mut self) {
        self.pings.answered = self.pings.sent;
    }

    /// Returns the end of the last PING among the bytes of the connection; `None` until the socket has taken it.
    pub(in crate::http::h2) fn ping_end(&self) -> Option<u64> {
        self.pings.end
    }

    /// Returns whether a stream waits for the answer to a PING that has not been sent.
    pub(in crate::http::h2) fn wants_ping(&self) -> bool {
        self.pings.wanted > self.pings.sent
    }

    /// Asks for PINGs where an answer of a stream has been waited for so long that they are needed by the end of the wait.
    pub(in crate::http::h2) fn inquire(&mut self, now: Instant) {
        if self.inquire_at.is_some_and(|at| at <= now) {
            let answers = self.live.values_mut().filter_map(|live| live.answer.as_mut());
            self.inquire_at = answers.filter_map(|answer| answer.inquire(now, &mut self.pings)).min();
        }
    }

    /// Returns when to call [`Self::inquire`].
    pub(in crate::http::h2) fn inquire_at(&self) -> Option<Instant> {
        self.inquire_at
    }

    /// The heartbeat of stream `id` waits for an answer of the client within `window` from `since` on.
    pub(in crate::http::h2) fn await_answer(&mut self, id: u32, since: Instant, window: Duration) {
        let Some(live) = self.live.get_mut(&id) else { return };
        let moved = match live.answer {
            Some(answer) if answer.since == since => return,
            Some(answer) => answer.moved(since, window),
            None => Answer::new(since, window),
        };
        let answer = live.answer.insert(moved);
        if answer.inquiry.is_none() && self.inquire_at.is_none_or(|at| answer.inquire_at < at) {
            self.inquire_at = Some(answer.inquire_at);
            self.is_earlier = true;
        }
    }

    /// Bytes of stream `id` have come.
    pub(in crate::http::h2) fn heard(&mut self, id: u32) {
        if let Some(answer) = self.live.get_mut(&id).and_then(|live| live.answer.as_mut()) {
            answer.heard = true;
        }
    }

    /// Returns whether bytes of stream `id` may be on their way, on a connection that was last heard at `heard` and of
    /// which bytes wait to be read (`unread`). While the connection is heard, its answers to later PINGs decide.
    pub(in crate::http::h2) fn is_on_its_way(&mut self, id: u32, now: Instant, heard: Instant, unread: bool) -> bool {
        let Some(live) = self.live.get_mut(&id) else { return unread };
        let is_quiet = live.policy.as_ref().is_none_or(|policy| now >= heard + policy.timeout);
        match &mut live.answer {
            Some(answer) if !is_quiet => answer.may_come(now, heard, unread, &mut self.pings),
            _ => unread,
        }
    }

    /// [`Delivery`] of stream `id`, from that of the connection.
    pub(in crate::http::h2) fn delivery(
        &mut self,
        id: u32,
        of_all: Delivery,
        now: Instant,
        heard: Instant,
    ) -> Delivery {
        let unread = self.is_on_its_way(id, now, heard, of_all.unread);
        Delivery { acked: self.acked(id, of_all, now, heard), unread }
    }

    /// Returns whether stream `id` waits for a `WINDOW_UPDATE` that may be on its way, on a connection that was last heard
    /// at `heard` and of which bytes wait to be read (`unread`); a wait may last for `write_stall`.
    pub(super) fn awaits_update(
        &mut self,
        id: u32,
        unread: bool,
        now: Instant,
        heard: Instant,
        write_stall: Duration,
    ) -> bool {
        note_shut(&mut self.shut, self.window, now);
        let Some(live) = self.live.get_mut(&id) else { return false };
        note_shut(&mut live.shut, live.window, now);
        let Some(since) = live.shut.or(self.shut).filter(|_| live.waits()) else { return false };
        let stall = match &mut live.stall {
            Some(stall) if stall.since == since => stall,
            other => other.insert(Stall { since, inquiry: None }),
        };
        let is_quiet = !unread && now >= heard + write_stall;
        !is_quiet && stall.may_end(now, write_stall, &mut self.pings)
    }
}
