//! The stream beneath hyper: it reports how far the requests on it are, watches for the end of the connection where hyper
//! does not, and looks at the bytes that come before hyper does ([`Framing`]).

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::framing::{Framing, Noted};
use super::reader::ResponseRate;
use crate::relay::Leg;

/// The phase of the current request of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestPhase {
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

/// The progress of the requests of one connection, as its stream, its requests and its clock see it. One task uses it nearly
/// alone; the lock is for a request's body, which the app's side drops.
#[derive(Debug)]
pub(super) struct RequestProgress(Mutex<State>);

#[derive(Debug)]
struct State {
    phase: RequestPhase,
    /// Bodies of requests that are still being passed on.
    uploads: usize,
    /// Requests that have begun, and how many of them leave HTTP/1.1 in place.
    begun: u64,
    stays: u64,
    /// Targets of requests that have not begun.
    noted: VecDeque<Noted>,
    /// The task that waits for what becomes of an upgrade.
    gate: Option<Waker>,
}

impl RequestProgress {
    /// The turns of a connection whose first head is to begin now.
    pub(super) fn new() -> Self {
        Self(Mutex::new(State {
            phase: RequestPhase::Head { since: Instant::now() },
            uploads: 0,
            begun: 0,
            stays: 0,
            noted: VecDeque::new(),
            gate: None,
        }))
    }

    /// A head begins now: the connection comes back to hyper.
    pub(super) fn renew(&self) {
        self.state().phase = RequestPhase::Head { since: Instant::now() };
    }

    /// The head of a request is in. Returns its target as it was sent, where that was noted.
    pub(super) fn begin(&self) -> Option<Vec<u8>> {
        let state = &mut *self.state();
        state.phase = RequestPhase::Asked;
        state.begun += 1;
        let is_its = state.noted.front().is_some_and(|noted| noted.head == state.begun);
        if is_its { state.noted.pop_front().map(|noted| noted.target) } else { None }
    }

    /// The head of its response is known, and whether HTTP/1.1 stays behind it; the turn is to be kept with the response's
    /// body.
    pub(super) fn answer(self: Arc<Self>, stays: bool) -> Turn {
        let gate = {
            let mut state = self.state();
            state.phase = RequestPhase::Answering;
            if stays {
                state.stays = state.begun;
            }
            state.gate.take_if(|_| stays)
        };
        if let Some(gate) = gate {
            gate.wake();
        }
        Turn(self)
    }

    fn note(&self, noted: Vec<Noted>) {
        self.state().noted.extend(noted);
    }

    /// Waits until it is known that HTTP/1.1 stays behind the request of this number.
    fn poll_stays(&self, request: u64, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.stays >= request {
            return Poll::Ready(());
        }
        state.gate = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The phase where the client is waited for, and nothing of an earlier request is under way.
    pub(super) fn waiting(&self) -> Option<RequestPhase> {
        let state = self.state();
        let is_waiting =
            matches!(state.phase, RequestPhase::Head { .. } | RequestPhase::Idle { .. }) && state.uploads == 0;
        is_waiting.then_some(state.phase)
    }

    /// Returns whether the body of a response is through, but perhaps not written.
    pub(super) fn is_ending(&self) -> bool {
        self.state().phase == RequestPhase::Ending
    }

    /// Bytes of the client have arrived.
    fn arrived(&self) {
        let mut state = self.state();
        if state.uploads == 0 && matches!(state.phase, RequestPhase::Idle { .. }) {
            state.phase = RequestPhase::Head { since: Instant::now() };
        }
    }

    /// All that hyper had to write is written.
    fn flushed(&self) {
        let mut state = self.state();
        if state.phase == RequestPhase::Ending {
            state.phase = RequestPhase::Idle { since: Instant::now() };
        }
    }

    /// Returns whether a client that leaves is to be noticed: its request is in whole, or a response is on its way. While
    /// the request is arriving, hyper reads on and finds the end by itself.
    fn is_watched(&self) -> bool {
        let state = self.state();
        match state.phase {
            RequestPhase::Asked => state.uploads == 0,
            RequestPhase::Answering | RequestPhase::Ending => true,
            RequestPhase::Head { .. } | RequestPhase::Idle { .. } => false,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kept with the body of a response, whose end it reports when dropped.
#[derive(Debug)]
pub(in crate::http) struct Turn(Arc<RequestProgress>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.state().phase = RequestPhase::Ending;
    }
}

/// The body of a request, known to the connection for as long as it is passed on.
#[derive(Debug)]
pub(super) struct TrackedBody {
    incoming: Incoming,
    turns: Arc<RequestProgress>,
}

impl TrackedBody {
    pub(super) fn new(incoming: Incoming, turns: Arc<RequestProgress>) -> Self {
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
        if let RequestPhase::Idle { since } = &mut state.phase {
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
    unread: UnreadByHyper,
    turns: Arc<RequestProgress>,
    reader: ResponseRate,
}

/// Bytes that were read from the client and that hyper has not read.
#[derive(Debug)]
pub(super) struct UnreadByHyper {
    framing: Framing,
    /// Bytes that the framing has passed.
    passed: Bytes,
    /// Bytes behind them.
    ahead: Bytes,
}

impl UnreadByHyper {
    /// The unread bytes of a connection whose first bytes are `first`.
    pub(super) fn new(first: Bytes, line_most: usize) -> Self {
        Self { framing: Framing::new(line_most), passed: Bytes::new(), ahead: first }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.passed.is_empty() && self.ahead.is_empty()
    }

    /// With what hyper has read and not used in front.
    pub(super) fn behind(self, used: &[u8]) -> Self {
        Self { passed: joined(used, &self.passed), ..self }
    }

    /// The bytes behind `early`, where they are no request.
    pub(super) fn into_bytes(self, early: &[u8]) -> Bytes {
        joined(&joined(early, &self.passed), &self.ahead)
    }
}

/// A copy of both: a few bytes would hold the whole of hyper's buffer.
fn joined(one: &[u8], other: &[u8]) -> Bytes {
    let mut both = BytesMut::with_capacity(one.len() + other.len());
    both.extend_from_slice(one);
    both.extend_from_slice(other);
    both.freeze()
}

impl<C: Leg> Io<C> {
    pub(super) fn new(stream: C, unread: UnreadByHyper, turns: Arc<RequestProgress>, reader: ResponseRate) -> Self {
        Self { stream, unread, turns, reader }
    }

    pub(super) fn into_parts(self) -> (C, UnreadByHyper) {
        (self.stream, self.unread)
    }

    /// Fails if a client has left that is being answered.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.turns.is_watched() && self.stream.poll_hang_up(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the client has left"));
        }
        Ok(())
    }

    /// `written` of `waiting` bytes.
    fn checked(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
        waiting: impl FnOnce() -> usize,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(len)) => self.reader.took(*len),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                self.check(cx)?;
                self.reader.check(cx, &mut self.stream, waiting())?;
            }
        }
        written
    }
}

impl<C: Leg> AsyncRead for Io<C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let UnreadByHyper { framing, passed, ahead } = &mut this.unread;
        if !passed.is_empty() {
            take(passed, buf);
            return Poll::Ready(Ok(()));
        }
        if let Some(fault) = framing.fault() {
            return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, fault)));
        }
        if framing.is_gated() {
            ready!(this.turns.poll_stays(framing.heads(), cx));
            framing.release();
        }
        let start = buf.filled().len();
        if ahead.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        } else {
            take(ahead, buf);
        }
        if buf.filled().len() == start {
            return Poll::Ready(Ok(()));
        }
        this.turns.arrived();
        let len = framing.walk(&mut buf.filled_mut()[start..]);
        let noted = framing.take_noted();
        if !noted.is_empty() {
            this.turns.note(noted);
        }
        let rest = &buf.filled()[start + len..];
        if !rest.is_empty() {
            *ahead = joined(rest, ahead);
            buf.set_filled(start + len);
        }
        match framing.fault() {
            Some(fault) if len == 0 => Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, fault))),
            _ => Poll::Ready(Ok(())),
        }
    }
}

/// Moves bytes from the front of `from` to `buf`.
fn take(from: &mut Bytes, buf: &mut ReadBuf<'_>) {
    let len = from.len().min(buf.remaining());
    buf.put_slice(&from[..len]);
    from.advance(len);
}

impl<C: Leg> AsyncWrite for Io<C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.checked(cx, written, || buf.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.checked(cx, written, || bufs.iter().map(|buf| buf.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if Pin::new(&mut this.stream).poll_flush(cx)?.is_pending() {
            this.check(cx)?;
            this.reader.check(cx, &mut this.stream, 0)?;
            return Poll::Pending;
        }
        this.reader.took(0);
        this.turns.flushed();
        this.check(cx)?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
