//! The byte stream of an app connection below hyper: it counts bytes, detects a blocked app, and keeps a failed write
//! from hiding a response.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::UpstreamStream;
use super::target::Rewrite;
use crate::relay::Leg;
use crate::telemetry::Chain;

/// The target of this module's log lines, which `log.level` names.
const TARGET: &str = "pulsegate::upstream::counted";

/// The flow of bytes on one connection, shared with parties that do not own its stream.
#[derive(Debug)]
pub(super) struct ByteCounts {
    /// Bytes read so far. No increase since a request was sent means that no part of a response has arrived.
    read: AtomicU64,
    /// The value of `read` when the current request was sent.
    read_before: AtomicU64,
    begun: Instant,
    /// The time since which writes have not succeeded, in milliseconds after `begun`, plus one; 0 while they succeed.
    blocked: AtomicU64,
    /// The bytes written but not acknowledged by the app's kernel, when a write last found the app blocked.
    unacked: AtomicU64,
    /// Set after a write has failed.
    broken: AtomicBool,
    /// The line of the next request, if it is to be restored; `has_rewrite` is set while there is one.
    rewrite: Mutex<Option<Rewrite>>,
    has_rewrite: AtomicBool,
}

impl ByteCounts {
    fn new() -> Self {
        Self {
            read: AtomicU64::new(0),
            read_before: AtomicU64::new(0),
            begun: Instant::now(),
            blocked: AtomicU64::new(0),
            unacked: AtomicU64::new(0),
            broken: AtomicBool::new(false),
            rewrite: Mutex::default(),
            has_rewrite: AtomicBool::new(false),
        }
    }

    /// Returns the number of bytes read.
    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Marks the start of a request.
    pub(super) fn note_request(&self) {
        self.read_before.store(self.read(), Ordering::Relaxed);
    }

    /// Sets the line that is restored in the next request.
    pub(super) fn restore(&self, rewrite: Rewrite) {
        *self.rewrite.lock().unwrap_or_else(PoisonError::into_inner) = Some(rewrite);
        self.has_rewrite.store(true, Ordering::Release);
    }

    fn take_rewrite(&self) -> Option<Rewrite> {
        self.has_rewrite.store(false, Ordering::Relaxed);
        self.rewrite.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns whether any byte of a response to the last request has arrived.
    pub(super) fn is_answered(&self) -> bool {
        self.read() > self.read_before.load(Ordering::Relaxed)
    }

    /// Returns whether writes to the app have failed for good.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Returns the time since which no write has succeeded; `None` if the last one did, or there was none.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        let passed = self.blocked.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.begun + Duration::from_millis(passed))
    }

    /// Returns the number of unacknowledged bytes at the last blocked write. A decrease means that the app reads,
    /// although not yet enough for a write to succeed.
    pub(super) fn unacked(&self) -> u64 {
        self.unacked.load(Ordering::Relaxed)
    }

    fn note_broken(&self) {
        self.broken.store(true, Ordering::Relaxed);
        self.note_blocked(true);
    }

    fn note_blocked(&self, is_blocked: bool) {
        let before = self.blocked.load(Ordering::Relaxed);
        if is_blocked != (before > 0) {
            let passed = || u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.blocked.store(if is_blocked { passed().saturating_add(1) } else { 0 }, Ordering::Relaxed);
        }
    }
}

/// The byte stream of an app connection.
///
/// hyper's client abandons an exchange when a write fails. An app that refuses an upload, however, responds first and
/// then resets the connection, so the response is in the socket, unread. A write to a connection that the app has
/// closed therefore stays pending: reading continues until it finds the response and then the end, and only after that
/// do writes fail.
#[derive(Debug)]
pub(super) struct CountedStream {
    stream: UpstreamStream,
    flow: Arc<ByteCounts>,
    /// Set after the end of the stream was read.
    has_ended: bool,
}

impl CountedStream {
    pub(super) fn new(stream: UpstreamStream) -> (Self, Arc<ByteCounts>) {
        let flow = Arc::new(ByteCounts::new());
        (Self { stream, flow: Arc::clone(&flow), has_ended: false }, flow)
    }

    /// Calls `write`, unless an earlier write has failed.
    fn poll_writing<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut UpstreamStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.flow.has_rewrite.load(Ordering::Acquire)
            && let Some(rewrite) = self.flow.take_rewrite()
        {
            self.stream.restore(rewrite);
        }
        if !self.flow.is_broken() {
            let written = write(Pin::new(&mut self.stream), cx);
            self.flow.note_blocked(written.is_pending());
            if written.is_pending() {
                self.flow.unacked.store(self.stream.unacked().unwrap_or(0), Ordering::Relaxed);
            }
            match written {
                Poll::Ready(Err(error)) if is_peer_closed(&error) && !self.has_ended => {
                    tracing::trace!(target: TARGET, error = %Chain(&error), "upstream.write");
                    self.flow.note_broken();
                    // The bytes that have arrived are read before the task waits.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                written => return written,
            }
        }
        if self.has_ended { Poll::Ready(Err(ErrorKind::BrokenPipe.into())) } else { Poll::Pending }
    }
}

/// Returns whether a write failed because the peer closed the connection, so that reading will reach an end too.
fn is_peer_closed(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted)
}

impl AsyncRead for CountedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let had_room = buf.remaining() > 0;
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        let gained = buf.filled().len() - before;
        this.flow.read.fetch_add(gained as u64, Ordering::Relaxed);
        this.has_ended |= match &polled {
            Poll::Ready(Ok(())) => had_room && gained == 0,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        polled
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_writing(cx, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_writing(cx, |stream, cx| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS accepts bytes that a later flush may fail to send.
        self.get_mut().poll_writing(cx, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
