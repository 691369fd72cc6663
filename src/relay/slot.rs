//! A leg that can be closed before its session ends.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::leg::{Leg, Partial};
use crate::heartbeat::Delivery;

/// A leg, or nothing once it was closed: reads find the end of the stream then, and writes fail.
#[derive(Debug)]
pub(super) struct Slot<L>(Option<L>);

impl<L: Leg> Slot<L> {
    pub(super) fn new(leg: L) -> Self {
        Self(Some(leg))
    }

    /// Closes the leg by dropping it.
    pub(super) fn close(&mut self) {
        self.0 = None;
    }

    fn poll_with<R>(
        &mut self,
        poll: impl FnOnce(Pin<&mut L>) -> Poll<io::Result<R>>,
        closed: impl FnOnce() -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        match &mut self.0 {
            Some(leg) => poll(Pin::new(leg)),
            None => Poll::Ready(closed()),
        }
    }
}

fn broken<R>() -> io::Result<R> {
    Err(io::ErrorKind::BrokenPipe.into())
}

impl<L: Leg> AsyncRead for Slot<L> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_with(|leg| leg.poll_read(cx, buf), || Ok(()))
    }
}

impl<L: Leg> AsyncWrite for Slot<L> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_with(|leg| leg.poll_write(cx, bytes), broken)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_with(|leg| leg.poll_flush(cx), broken)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_with(|leg| leg.poll_shutdown(cx), broken)
    }
}

impl<L: Leg> Leg for Slot<L> {
    fn delivery(&self) -> Option<Delivery> {
        self.0.as_ref().and_then(Leg::delivery)
    }

    fn await_answer(&self, since: Instant, window: Duration) {
        if let Some(leg) = &self.0 {
            leg.await_answer(since, window);
        }
    }

    fn has_halves(&self) -> bool {
        self.0.as_ref().is_some_and(Leg::has_halves)
    }

    fn written(&self) -> u64 {
        self.0.as_ref().map_or(0, Leg::written)
    }

    fn partial(&self) -> Option<Partial> {
        self.0.as_ref().and_then(Leg::partial)
    }

    fn read_ahead(&self) -> usize {
        self.0.as_ref().map_or(0, Leg::read_ahead)
    }

    fn unsent(&self) -> usize {
        self.0.as_ref().map_or(0, Leg::unsent)
    }

    fn unacked(&self) -> Option<u64> {
        self.0.as_ref().and_then(Leg::unacked)
    }

    fn untransmitted(&self) -> Option<u64> {
        self.0.as_ref().and_then(Leg::untransmitted)
    }

    fn abort_on_drop(&mut self) {
        if let Some(leg) = &mut self.0 {
            leg.abort_on_drop();
        }
    }

    fn other_leg_reset(&mut self) {
        if let Some(leg) = &mut self.0 {
            leg.other_leg_reset();
        }
    }
}
