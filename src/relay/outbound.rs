//! The way out to one leg: writes at once what the leg takes and keeps only what it does not.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::coop::has_budget_remaining;

use super::leg::Leg;

/// Bytes on their way to one leg.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    /// The bytes that the leg has not taken yet; almost always empty, without an allocation.
    waiting: Vec<u8>,
    /// The number of bytes of `waiting` that were taken.
    taken: usize,
    /// Bytes that were ever given to [`Self::send`].
    accepted: u64,
    /// The error of a write of [`Self::send`], until [`Self::drain`] returns it: the kernel reports a cause once.
    error: Option<io::Error>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing waits and everything is on the wire.
    #[default]
    Clear,
    /// Something waits, here or inside the leg.
    Pending,
    /// Writing failed; what is sent is thrown away.
    Broken,
}

/// The result of an attempt to write everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drained {
    /// Everything is on the wire.
    Clear,
    /// The leg takes no more for now; `progress`: it took some.
    Blocked { progress: bool },
    /// The task has to yield first (tokio's cooperative budget): whether the leg takes more is not known.
    Starved,
}

impl Drained {
    /// The meaning of a write or flush that is pending.
    fn pending(progress: bool) -> Self {
        if has_budget_remaining() { Self::Blocked { progress } } else { Self::Starved }
    }
}

impl Outbound {
    /// Returns whether everything is on the wire (or nothing ever will be again).
    #[inline]
    pub(super) fn is_clear(&self) -> bool {
        self.state != State::Pending
    }

    pub(super) fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// Bytes that wait here.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() - self.taken
    }

    /// Bytes that were ever accepted for the leg.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// The memory that what waits takes.
    #[inline]
    pub(super) fn kept(&self) -> usize {
        self.waiting.capacity()
    }

    /// Gives up on the leg: nothing more goes out.
    pub(super) fn break_off(&mut self) {
        *self = Self { state: State::Broken, accepted: self.accepted, ..Self::default() };
    }

    /// Sends `bytes` behind what waits already. A failure shows at the next [`Self::drain`].
    pub(super) fn send<L: Leg>(&mut self, leg: &mut L, cx: &mut Context<'_>, mut bytes: &[u8]) {
        if bytes.is_empty() || self.state == State::Broken {
            return;
        }
        self.state = State::Pending;
        self.accepted += bytes.len() as u64;
        while self.waiting.is_empty() && !bytes.is_empty() && self.error.is_none() {
            match Pin::new(&mut *leg).poll_write(cx, bytes) {
                Poll::Ready(Ok(0)) => self.error = Some(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => bytes = &bytes[n..],
                Poll::Ready(Err(error)) => self.error = Some(error),
                Poll::Pending => break,
            }
        }
        self.waiting.extend_from_slice(bytes);
    }

    /// Gets out what waits, here and inside the leg.
    #[inline]
    pub(super) fn drain<L: Leg>(&mut self, leg: &mut L, cx: &mut Context<'_>) -> io::Result<Drained> {
        if self.state == State::Pending { self.drain_pending(leg, cx) } else { Ok(Drained::Clear) }
    }

    fn drain_pending<L: Leg>(&mut self, leg: &mut L, cx: &mut Context<'_>) -> io::Result<Drained> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let before = leg.written();
        let mut progress = false;
        while self.len() > 0 {
            match Pin::new(&mut *leg).poll_write(cx, &self.waiting[self.taken..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => {
                    self.taken += n;
                    progress = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(Drained::pending(progress || leg.written() > before)),
            }
        }
        self.waiting = Vec::new();
        self.taken = 0;
        match Pin::new(&mut *leg).poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                self.state = State::Clear;
                Ok(Drained::Clear)
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(Drained::pending(progress || leg.written() > before)),
        }
    }
}

#[cfg(test)]
mod tests;
