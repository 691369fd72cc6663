//! The PINGs of the connection (see [`super::pings`]), as its driver and its streams use them.

use std::time::Duration;

use tokio::time::Instant;

use super::pings::{InquiryAnswer, Stall};
use super::{Streams, note_shut};
use crate::relay::Delivery;

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
            None => InquiryAnswer::new(since, window),
        };
        let answer = live.answer.insert(moved);
        if answer.inquiry.is_none() && self.inquire_at.is_none_or(|at| answer.inquire_at < at) {
            self.inquire_at = Some(answer.inquire_at);
            self.is_earlier = true;
        }
    }

    /// Bytes of stream `id` have come.
    pub(in crate::http::h2) fn record_received(&mut self, id: u32) {
        if let Some(answer) = self.live.get_mut(&id).and_then(|live| live.answer.as_mut()) {
            answer.received = true;
        }
    }

    /// Returns whether bytes of stream `id` may be on their way, on a connection that was last heard at `last_received` and of
    /// which bytes wait to be read (`unread`). While the connection is heard, its answers to later PINGs decide.
    pub(in crate::http::h2) fn is_on_its_way(
        &mut self,
        id: u32,
        now: Instant,
        last_received: Instant,
        unread: bool,
    ) -> bool {
        let Some(live) = self.live.get_mut(&id) else { return unread };
        let is_quiet = live.policy.as_ref().is_none_or(|policy| now >= last_received + policy.timeout);
        match &mut live.answer {
            Some(answer) if !is_quiet => answer.may_come(now, last_received, unread, &mut self.pings),
            _ => unread,
        }
    }

    /// [`Delivery`] of stream `id`, from that of the connection.
    pub(in crate::http::h2) fn delivery(
        &mut self,
        id: u32,
        of_all: Delivery,
        now: Instant,
        last_received: Instant,
    ) -> Delivery {
        let unread = self.is_on_its_way(id, now, last_received, of_all.unread);
        Delivery { acked: self.acked(id, of_all, now, last_received), unread }
    }

    /// Returns whether stream `id` waits for a `WINDOW_UPDATE` that may be on its way, on a connection that was last heard
    /// at `last_received` and of which bytes wait to be read (`unread`); a wait may last for `write_stall`.
    pub(super) fn awaits_update(
        &mut self,
        id: u32,
        unread: bool,
        now: Instant,
        last_received: Instant,
        write_stall: Duration,
    ) -> bool {
        note_shut(&mut self.shut, self.window, now);
        let Some(live) = self.live.get_mut(&id) else { return false };
        note_shut(&mut live.shut, live.window, now);
        let Some(since) = live.shut.or(self.shut).filter(|_| live.waits()) else { return false };
        let stall = match &mut live.stall {
            Some(stall) if stall.since == since => stall,
            other => other.insert(Stall::new(since)),
        };
        let is_quiet = !unread && now >= last_received + write_stall;
        !is_quiet && stall.may_end(now, write_stall, &mut self.pings)
    }
}
