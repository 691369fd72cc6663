//! The turns of the responses on one connection: which of them may hand the library more.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

/// Bytes of responses that the library holds for a connection that takes none, give or take a [`super::SEND_BUFFER`].
const HELD_MOST: u64 = 256 * 1024;

/// Bytes of responses that the library holds, and the responses that wait until there are fewer.
///
/// The client and its windows take what the library holds, so only the socket keeps it from being written: more of it
/// would bring nothing forward.
#[derive(Debug, Default)]
pub(super) struct ResponseBudget {
    held: u64,
    queue: VecDeque<(u32, Waker)>,
}

impl ResponseBudget {
    /// Returns how many bytes the library holds.
    pub(super) fn held(&self) -> usize {
        usize::try_from(self.held).unwrap_or(usize::MAX)
    }

    pub(super) fn hold(&mut self, bytes: u64) {
        self.held += bytes;
    }

    pub(super) fn release(&mut self, bytes: u64) {
        self.held -= bytes;
    }

    /// Returns whether a response may hand more to the library.
    pub(super) fn has_turn(&self) -> bool {
        self.held < HELD_MOST
    }

    /// Waits until stream `id` has its turn; streams have it in the order in which they came.
    pub(super) fn poll(&mut self, id: u32, cx: &Context<'_>) -> Poll<()> {
        if self.has_turn() {
            return Poll::Ready(());
        }
        match self.queue.iter_mut().find(|(waiting, _)| *waiting == id) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => self.queue.push_back((id, cx.waker().clone())),
        }
        Poll::Pending
    }

    /// Returns the task whose turn it is next, if it may have it. It passes the turn on, whether it has used it or not, so
    /// that none waits for a response that has nothing to send.
    pub(super) fn next(&mut self) -> Option<Waker> {
        if self.has_turn() { self.queue.pop_front().map(|(_, waker)| waker) } else { None }
    }

    /// Returns whether stream `id` waits.
    pub(super) fn is_waiting(&self, id: u32) -> bool {
        self.queue.iter().any(|(waiting, _)| *waiting == id)
    }

    /// Stream `id` has ended.
    pub(super) fn leave(&mut self, id: u32) {
        self.queue.retain(|(waiting, _)| *waiting != id);
    }

    /// Returns all tasks that wait: the connection has ended.
    pub(super) fn end(&mut self) -> impl Iterator<Item = Waker> {
        self.queue.drain(..).map(|(_, waker)| waker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_has_a_turn_in_order_once_there_is_room() {
        let mut turns = ResponseBudget::default();
        let cx = Context::from_waker(Waker::noop());
        turns.hold(HELD_MOST - 1);
        assert!(turns.poll(1, &cx).is_ready());
        turns.hold(64 * 1024);
        for id in [3, 5, 3, 7] {
            assert!(turns.poll(id, &cx).is_pending());
        }
        assert!(turns.next().is_none(), "no room");
        turns.leave(5);
        turns.release(64 * 1024);
        assert!(turns.is_waiting(3) && turns.next().is_some());
        assert!(!turns.is_waiting(3) && turns.is_waiting(7), "in the order in which they came");
        assert_eq!(turns.end().count(), 1);
        assert_eq!(turns.held(), 262_143);
    }
}
