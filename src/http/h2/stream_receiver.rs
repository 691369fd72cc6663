//! The inbound half of one stream: taken from the library as it comes, with flow control as it is used.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use h2::{Reason, RecvStream};
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::ReadBuf;

use crate::http::headers;
use crate::relay::{Held, Unanswered};

/// The inbound half of a stream; clones share it.
///
/// Bytes that are used slowly must not stay with the library: unread small frames count against the whole connection
/// (see [`super::DATA_FRAME_BUDGET`]). So the driver moves them into `spill` from time to time. The flow
/// control window (RFC 9113 §5.2) opens only as bytes are used: it bounds the spill, and stops the client.
#[derive(Clone, Debug)]
pub(super) struct Inflow(Arc<Mutex<Shared>>);

#[derive(Debug)]
struct Shared {
    stream: RecvStream,
    /// Taken and not yet used; at most a stream's window.
    spill: BytesMut,
    /// The task that reads the stream. The library knows one waker for each stream, and every poll replaces that.
    user: Option<Waker>,
    /// The failure of reads once everything that came has been used, because the connection is dead.
    dead: Option<Death>,
    /// Set once the stream is to be reset for what came on it.
    is_malformed: bool,
    /// The count of bytes that have come and were not used, where nothing else counts them.
    held: Option<Held>,
}

/// The sign by which a connection was found dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// The client has not answered a PING.
    Unanswered,
    /// The client has taken nothing for `write_stall`.
    Blocked,
}

/// The reason for which a stream cannot be read.
#[derive(Debug)]
pub(super) enum ReadFailure {
    /// The library says so.
    Stream(h2::Error),
    /// Its connection is dead.
    Connection(io::Error),
}

impl From<Death> for ReadFailure {
    fn from(death: Death) -> Self {
        Self::Connection(match death {
            Death::Unanswered => Unanswered.into(),
            Death::Blocked => io::ErrorKind::TimedOut.into(),
        })
    }
}

impl Inflow {
    /// The inbound half of `stream`; what it holds is counted in `held`.
    pub(super) fn new(stream: RecvStream, held: Option<Held>) -> Self {
        Self(Arc::new(Mutex::new(Shared {
            stream,
            spill: BytesMut::new(),
            user: None,
            dead: None,
            is_malformed: false,
            held,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether all has come and been used.
    pub(super) fn is_end_stream(&self) -> bool {
        let shared = self.lock();
        shared.spill.is_empty() && shared.stream.is_end_stream()
    }

    /// Returns whether the stream is to be reset for what came on it.
    pub(super) fn is_malformed(&self) -> bool {
        self.lock().is_malformed
    }

    /// Bytes that were taken and are still to be used.
    pub(super) fn held(&self) -> usize {
        self.lock().spill.len()
    }

    /// Fills `buf` with what is there; nothing at the end of the stream.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<(), ReadFailure>> {
        let mut shared = self.lock();
        shared.remember(cx);
        let start = buf.filled().len();
        loop {
            if shared.spill.is_empty() {
                match shared.stream.poll_data(cx) {
                    Poll::Ready(Some(Ok(data))) => {
                        let taken = data.len().min(buf.remaining());
                        buf.put_slice(&data[..taken]);
                        shared.spill.extend_from_slice(&data[taken..]);
                    }
                    // Bytes that came before are used first.
                    _ if buf.filled().len() > start => break,
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(ReadFailure::Stream(error))),
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Pending => return shared.dead.map_or(Poll::Pending, |death| Poll::Ready(Err(death.into()))),
                }
            } else {
                let taken = shared.spill.len().min(buf.remaining());
                buf.put_slice(&shared.spill[..taken]);
                shared.spill.advance(taken);
                if shared.spill.is_empty() {
                    shared.spill = BytesMut::new();
                }
            }
            if buf.remaining() == 0 {
                break;
            }
        }
        shared.release(buf.filled().len() - start);
        Poll::Ready(Ok(()))
    }

    fn poll_chunk(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let mut shared = self.lock();
        shared.remember(cx);
        let chunk = if shared.spill.is_empty() {
            match shared.stream.poll_data(cx) {
                Poll::Ready(Some(Ok(chunk))) => chunk,
                Poll::Pending if shared.dead.is_some() => return Poll::Ready(Some(Err(Reason::CANCEL.into()))),
                end => return end,
            }
        } else {
            std::mem::take(&mut shared.spill).freeze()
        };
        shared.release(chunk.len());
        Poll::Ready(Some(Ok(chunk)))
    }
}

impl Shared {
    fn remember(&mut self, cx: &Context<'_>) {
        if !self.user.as_ref().is_some_and(|user| user.will_wake(cx.waker())) {
            self.user = Some(cx.waker().clone());
        }
    }

    fn release(&mut self, bytes: usize) {
        // Fails only for more than there was.
        let _ = self.stream.flow_control().release_capacity(bytes);
        self.count();
    }

    fn count(&mut self) {
        if let Some(held) = &mut self.held {
            held.set(self.stream.flow_control().used_capacity(), 0);
        }
    }

    /// Moves what the library holds into the spill.
    fn sweep(&mut self) {
        let user = self.user.clone();
        let mut cx = Context::from_waker(user.as_ref().unwrap_or(Waker::noop()));
        // An end or an error stands until the user asks.
        while let Poll::Ready(Some(Ok(data))) = self.stream.poll_data(&mut cx) {
            self.spill.extend_from_slice(&data);
        }
    }
}

/// The inflows of all streams of one connection.
#[derive(Debug, Default)]
pub(super) struct Inflows(Vec<(u32, Weak<Mutex<Shared>>)>);

impl Inflows {
    pub(super) fn add(&mut self, inflow: &Inflow) {
        if self.0.len() == self.0.capacity() {
            self.0.retain(|(_, inflow)| inflow.strong_count() > 0);
        }
        let id = inflow.lock().stream.stream_id().into();
        self.0.push((id, Arc::downgrade(&inflow.0)));
    }

    /// The connection is dead: reads of all streams but those that it `spares` fail from here on, as soon as what has
    /// come is used.
    pub(super) fn bury(&mut self, death: Death, spares: impl Fn(u32) -> bool) {
        for (id, inflow) in &self.0 {
            let Some(inflow) = inflow.upgrade().filter(|_| !spares(*id)) else { continue };
            let mut shared = inflow.lock().unwrap_or_else(PoisonError::into_inner);
            shared.dead = Some(death);
            if let Some(user) = shared.user.take() {
                user.wake();
            }
        }
    }

    /// Data of `stream` has come.
    pub(super) fn count(&mut self, stream: u32) {
        self.visit(stream, Shared::count);
    }

    fn visit(&mut self, stream: u32, visit: impl FnOnce(&mut Shared)) {
        let found = self.0.iter().rev().find(|(id, _)| *id == stream);
        if let Some(inflow) = found.and_then(|(_, inflow)| inflow.upgrade()) {
            visit(&mut inflow.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// The message of `stream` is malformed (RFC 9113 §8.1.1).
    pub(super) fn reject(&mut self, stream: u32) {
        self.visit(stream, |shared| {
            shared.is_malformed = true;
            if let Some(user) = shared.user.take() {
                user.wake();
            }
        });
    }

    /// Takes from the library all that the streams have not used.
    pub(super) fn sweep(&mut self) {
        self.0.retain(|(_, inflow)| {
            let Some(inflow) = inflow.upgrade() else { return false };
            inflow.lock().unwrap_or_else(PoisonError::into_inner).sweep();
            true
        });
    }
}

/// An inflow as the body of a request.
#[derive(Debug)]
pub(super) struct RequestBody {
    inflow: Inflow,
    /// Bytes still to come, where the client stated a length; the library holds it to that.
    left: Option<u64>,
}

impl RequestBody {
    pub(super) fn new(inflow: Inflow, length: Option<u64>) -> Self {
        Self { inflow, left: length }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = self.get_mut();
        Poll::Ready(match ready!(this.inflow.poll_chunk(cx)) {
            Some(Ok(chunk)) => {
                this.left = this.left.map(|left| left.saturating_sub(chunk.len() as u64));
                Some(Ok(Frame::data(chunk)))
            }
            Some(Err(error)) => Some(Err(error)),
            None => {
                let mut shared = this.inflow.lock();
                match ready!(shared.stream.poll_trailers(cx)) {
                    Ok(Some(trailers)) => {
                        shared.is_malformed |= !headers::are_trimmed(&trailers);
                        let malformed = shared.is_malformed.then(|| Reason::PROTOCOL_ERROR.into());
                        Some(malformed.map_or(Ok(Frame::trailers(trailers)), Err))
                    }
                    Ok(None) => None,
                    Err(error) => Some(Err(error)),
                }
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inflow.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
