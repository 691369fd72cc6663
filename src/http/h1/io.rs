//! The stream beneath hyper: it reports how far the requests on it are, and watches for the end of the connection where
//! hyper does not.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::relay::Leg;

/// How far the current request of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its head is arriving, or the first one is waited for, since then.
    Head { since: Instant },
    /// It is being answered.
    Asked,
    /// The head of its response is known.
    Answering,
    /// The body of its response is through, but perhaps not written.
    Ending,
    /// There has been none since then.
    Idle { since: Instant },
}

/// How far the requests of one connection are, as its stream, its requests and its clock see it. One task uses it nearly
/// alone; the lock is for a request's body, which the app's side drops.
#[derive(Debug)]
pub(super) struct Turns(Mutex<State>);

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Bodies of requests that are still being passed on.
    uploads: usize,
}

impl Turns {
    /// Those of a connection whose first head is to begin now.
    pub(super) fn new() -> Self {
        Self(Mutex::new(State { phase: Phase::Head { since: Instant::now() }, uploads: 0 }))
    }

    /// The head of a request is in.
    pub(super) fn begin(&self) {
        self.state().phase = Phase::Asked;
    }

    /// The head of its response is known; the turn is to be kept with the response's body.
    pub(super) fn answer(self: Arc<Self>) -> Turn {
        self.state().phase = Phase::Answering;
        Turn(self)
    }

    /// The phase where the client is waited for, and nothing of an earlier request is under way.
    pub(super) fn waiting(&self) -> Option<Phase> {
        let state = self.state();
        let is_waiting = matches!(state.phase, Phase::Head { .. } | Phase::Idle { .. }) && state.uploads == 0;
        is_waiting.then_some(state.phase)
    }

    /// Returns whether the body of a response is through, but perhaps not written.
    pub(super) fn is_ending(&self) -> bool {
        self.state().phase == Phase::Ending
    }

    /// Bytes of the client have arrived.
    fn arrived(&self) {
        let mut state = self.state();
        if state.uploads == 0 && matches!(state.phase, Phase::Idle { .. }) {
            state.phase = Phase::Head { since: Instant::now() };
        }
    }

    /// All that hyper had to write is written.
    fn flushed(&self) {
        let mut state = self.state();
        if state.phase == Phase::Ending {
            state.phase = Phase::Idle { since: Instant::now() };
        }
    }

    /// Returns whether a client that leaves is to be noticed: its request is in whole, or a response is on its way. While
    /// the request is arriving, hyper reads on and finds the end by itself.
    fn is_watched(&self) -> bool {
        let state = self.state();
        match state.phase {
            Phase::Asked => state.uploads == 0,
            Phase::Answering | Phase::Ending => true,
            Phase::Head { .. } | Phase::Idle { .. } => false,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kept with the body of a response, whose end it reports when dropped.
#[derive(Debug)]
pub(in crate::http) struct Turn(Arc<Turns>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.state().phase = Phase::Ending;
    }
}

/// The body of a request, known to the connection for as long as it is passed on.
#[derive(Debug)]
pub(super) struct TrackedBody {
    incoming: Incoming,
    turns: Arc<Turns>,
}

impl TrackedBody {
    pub(super) fn new(incoming: Incoming, turns: Arc<Turns>) -> Self {
        turns.state().uploads += 1;
        Self { incoming, turns }
    }
}

impl Body for TrackedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.incoming).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        state.uploads = state.uploads.saturating_sub(1);
        if let Phase::Idle { since } = &mut state.phase {
            *since = Instant::now();
        }
    }
}

/// The stream of a client connection, as hyper gets it.
///
/// hyper's HTTP/1 looks for the end of a connection by reading, and reads only while its buffer is empty and its body
/// channel has room: one byte behind a request, or an upload that the app leaves, hides the end until the response is
/// through. It flushes whenever it is polled, though, so the stream looks for that end itself then. What hyper lacks is
/// `poll_read_closed` on its `Read`, or a service that can ask for it.
#[derive(Debug)]
pub(super) struct Io<C> {
    stream: C,
    /// Read before hyper began.
    first: Bytes,
    turns: Arc<Turns>,
}

impl<C: Leg> Io<C> {
    pub(super) fn new(stream: C, first: Bytes, turns: Arc<Turns>) -> Self {
        Self { stream, first, turns }
    }

    /// The stream, and what hyper has not read of the bytes that were read before.
    pub(super) fn into_parts(self) -> (C, Bytes) {
        (self.stream, self.first)
    }

    /// Fails if a client has left that is being answered.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.turns.is_watched() && self.stream.poll_hang_up(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the client has left"));
        }
        Ok(())
    }

    fn checked(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_pending() {
            self.check(cx)?;
        }
        written
    }
}

impl<C: Leg> AsyncRead for Io<C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            let taken = this.first.len().min(buf.remaining());
            buf.put_slice(&this.first[..taken]);
            this.first.advance(taken);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            this.turns.arrived();
        }
        Poll::Ready(Ok(()))
    }
}

impl<C: Leg> AsyncWrite for Io<C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.checked(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.checked(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if Pin::new(&mut this.stream).poll_flush(cx)?.is_pending() {
            this.check(cx)?;
            return Poll::Pending;
        }
        this.turns.flushed();
        this.check(cx)?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
