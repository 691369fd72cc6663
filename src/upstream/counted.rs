//! The stream of a connection to the app beneath hyper: what came, what is stuck, and what a failed write must not hide.

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

/// How the bytes of one connection move, for those who do not hold its stream.
#[derive(Debug)]
pub(super) struct Flow {
    /// Bytes that were read: none since a request went out means that no part of it was answered.
    read: AtomicU64,
    /// As many as that when the current request went out.
    read_before: AtomicU64,
    begun: Instant,
    /// Since when the app takes nothing, in milliseconds after `begun` and one; 0 while it takes what comes.
    blocked: AtomicU64,
    /// Bytes that had been written and that the app's kernel had not taken when the app was last found to take nothing.
    unacked: AtomicU64,
    /// Set once a write has failed.
    broken: AtomicBool,
    /// The line of the request that is about to go out, where it is to be restored, and whether there is one.
    rewrite: Mutex<Option<Rewrite>>,
    has_rewrite: AtomicBool,
}

impl Flow {
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

    /// Returns how many bytes have been read.
    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// A request is about to go out.
    pub(super) fn note_request(&self) {
        self.read_before.store(self.read(), Ordering::Relaxed);
    }

    /// Restores the line of the request that is about to go out.
    pub(super) fn restore(&self, rewrite: Rewrite) {
        *self.rewrite.lock().unwrap_or_else(PoisonError::into_inner) = Some(rewrite);
        self.has_rewrite.store(true, Ordering::Release);
    }

    fn take_rewrite(&self) -> Option<Rewrite> {
        self.has_rewrite.store(false, Ordering::Relaxed);
        self.rewrite.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns whether the app has begun to answer the request that went out last.
    pub(super) fn is_answered(&self) -> bool {
        self.read() > self.read_before.load(Ordering::Relaxed)
    }

    /// Returns whether the app has stopped taking anything, for good.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Returns since when the app takes nothing of what is written; `None` while it does, or while nothing is.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        let passed = self.blocked.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.begun + Duration::from_millis(passed))
    }

    /// Returns how many bytes the app's kernel had not acknowledged when the connection was last driven, while it is
    /// blocked: fewer than before mean that the app reads, although too little for a write to succeed.
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

/// The stream of a connection to the app.
///
/// hyper's client gives an exchange up when a write fails, although an app that refuses an upload answers first and
/// resets the connection behind that: the answer is in the socket, unread. So a write to a connection that the app has
/// closed is one that waits, and reading decides: it finds the answer, then the end, and only then writes fail.
#[derive(Debug)]
pub(super) struct Counted {
    stream: UpstreamStream,
    flow: Arc<Flow>,
    /// Set once reading has come to its end.
    has_ended: bool,
}

impl Counted {
    pub(super) fn new(stream: UpstreamStream) -> (Self, Arc<Flow>) {
        let flow = Arc::new(Flow::new());
        (Self { stream, flow: Arc::clone(&flow), has_ended: false }, flow)
    }

    /// Writes, unless an earlier write has failed.
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
                Poll::Ready(Err(error)) if is_of_a_closed_peer(&error) && !self.has_ended => {
                    tracing::trace!(error = %Chain(&error), "upstream.write");
                    self.flow.note_broken();
                    // What has arrived is read before the connection waits.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                written => return written,
            }
        }
        if self.has_ended { Poll::Ready(Err(ErrorKind::BrokenPipe.into())) } else { Poll::Pending }
    }
}

/// Whether a write failed because the app reads no more, so that reading comes to an end too.
fn is_of_a_closed_peer(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted)
}

impl AsyncRead for Counted {
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

impl AsyncWrite for Counted {
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
        // TLS accepts bytes and may fail to hand them on later.
        self.get_mut().poll_writing(cx, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
