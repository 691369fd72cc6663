//! The bytes of one HTTP/2 connection, as its driver, its streams and the HTTP/2 library share them.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::frames::Frames;
use crate::relay::{Delivery, Leg};

/// Small DATA frames that reach the library before the streams get their turn. Each counts up to 256 bytes against a
/// budget of [`super::DATA_FRAME_BUDGET`] while nobody has taken it, and with the budget the connection ends; a read
/// brings some 3,000 at most.
const SMALL_FRAMES: usize = 1024;

/// The most that one write gathers.
const GATHERED: usize = 64 * 1024;

/// Of what the library hands over in pieces one record of TLS is made, by way of this worker's buffer.
type Gathered = Cell<Vec<u8>>;

thread_local! {
    static GATHER: Gathered = const { Cell::new(Vec::new()) };
}

/// One connection's bytes; clones share them.
#[derive(Debug)]
pub(super) struct Wire<C>(Arc<Mutex<Shared<C>>>);

#[derive(Debug)]
struct Shared<C> {
    stream: C,
    frames: Frames,
    /// Sifted bytes that found no room.
    spare: Vec<u8>,
    /// When the client was last heard.
    heard: Instant,
    /// Whether the stream takes no bytes.
    blocked: bool,
    /// Bytes that streams have handed to the library since all of it was last written.
    queued: u64,
    /// The furthest that [`Wire::written`] ever said.
    promised: u64,
    /// Who waits for what is queued to be written.
    waiting: Vec<Waker>,
}

impl<C> Clone for Wire<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C> Wire<C> {
    fn lock(&self) -> MutexGuard<'_, Shared<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `look` look at the frames that came in.
    pub(super) fn frames<R>(&self, look: impl FnOnce(&mut Frames) -> R) -> R {
        look(&mut self.lock().frames)
    }

    /// Whether so many small DATA frames have come that the streams must take theirs before more are read.
    pub(super) fn is_crowded(&self) -> bool {
        self.lock().frames.small() >= SMALL_FRAMES
    }

    /// When the client was last heard.
    pub(super) fn heard(&self) -> Instant {
        self.lock().heard
    }

    /// A stream has handed `bytes` to the library.
    pub(super) fn queue(&self, bytes: usize) {
        self.lock().queued += bytes as u64;
    }

    /// The library has done all it could for now: what was queued is written, unless the stream takes no bytes.
    pub(super) fn settle(&self) {
        let waiting = {
            let mut shared = self.lock();
            if shared.blocked {
                return;
            }
            shared.queued = 0;
            std::mem::take(&mut shared.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Nobody drives the connection any more: who waits for it waits in vain.
    pub(super) fn release(&self) {
        self.lock().blocked = false;
        self.settle();
    }

    /// Whether bytes can be on their way as soon as they are handed over.
    pub(super) fn poll_free(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_unless(cx, |shared| shared.blocked)
    }

    /// Waits until everything that was handed over is written.
    pub(super) fn poll_settled(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_unless(cx, |shared| shared.blocked || shared.queued > 0)
    }

    fn poll_unless(&self, cx: &mut Context<'_>, busy: impl Fn(&Shared<C>) -> bool) -> Poll<()> {
        let mut shared = self.lock();
        if !busy(&shared) {
            return Poll::Ready(());
        }
        if !shared.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            shared.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl<C: Leg> Wire<C> {
    pub(super) fn new(stream: C, now: Instant) -> Self {
        Self(Arc::new(Mutex::new(Shared {
            stream,
            frames: Frames::new(now),
            spare: Vec::new(),
            heard: now,
            blocked: false,
            queued: 0,
            promised: 0,
            waiting: Vec::new(),
        })))
    }
}

/// As one session of many sees the connection: positions are those of the whole.
impl<C: Leg> Leg for Wire<C> {
    fn delivery(&self) -> Option<Delivery> {
        let shared = self.lock();
        let mut delivery = shared.stream.delivery()?;
        // What was promised was an estimate; when all is acknowledged that there is, it has been kept.
        if shared.queued == 0 && delivery.acked >= shared.stream.written() {
            delivery.acked = delivery.acked.max(shared.promised);
        }
        Some(delivery)
    }

    /// What is queued counts as written, for that is where it will stand.
    fn written(&self) -> u64 {
        let mut shared = self.lock();
        let written = shared.stream.written() + shared.queued;
        shared.promised = shared.promised.max(written);
        written
    }

    fn set_user_timeout(&mut self, after: Duration) {
        self.lock().stream.set_user_timeout(after);
    }

    fn abort_on_drop(&mut self) {
        self.lock().stream.abort_on_drop();
    }
}

impl<C: Leg> Shared<C> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.frames.small() >= SMALL_FRAMES {
            // The streams first.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while self.spare.is_empty() && buf.remaining() > 0 {
            let start = buf.filled().len();
            if buf.remaining() <= self.frames.held().len() {
                if ready!(self.poll_spare(cx))? == 0 {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            buf.put_slice(self.frames.held());
            let before = buf.filled().len();
            let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
            let read = buf.filled().len() - before;
            if !matches!(polled, Poll::Ready(Ok(()))) || read == 0 {
                buf.set_filled(start);
                return polled;
            }
            self.heard = Instant::now();
            let kept = self.frames.sift(&mut buf.filled_mut()[start..], self.heard);
            buf.set_filled(start + kept);
            if kept > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let taken = self.spare.len().min(buf.remaining());
        buf.put_slice(&self.spare[..taken]);
        self.spare.drain(..taken);
        Poll::Ready(Ok(()))
    }

    /// Reads by way of `spare`, for a reader that wants less than what was kept back. Returns how much was read.
    fn poll_spare(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut room = [0; 64];
        let mut space = ReadBuf::new(&mut room);
        space.put_slice(self.frames.held());
        let before = space.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space))?;
        let read = space.filled().len() - before;
        if read > 0 {
            self.heard = Instant::now();
            let kept = self.frames.sift(space.filled_mut(), self.heard);
            self.spare.extend_from_slice(&space.filled()[..kept]);
        }
        Poll::Ready(Ok(read))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.blocked = polled.is_pending();
        polled
    }
}

impl<C: Leg> AsyncRead for Wire<C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_read(cx, buf)
    }
}

impl<C: Leg> AsyncWrite for Wire<C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.lock().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut pieces = pieces.iter().filter(|piece| !piece.is_empty());
        let (Some(first), second) = (pieces.next(), pieces.next()) else { return Poll::Ready(Ok(0)) };
        let Some(second) = second else { return self.lock().poll_write(cx, first) };
        GATHER.with(|gather| {
            let mut bytes = gather.take();
            bytes.clear();
            for piece in [first, second].into_iter().chain(pieces) {
                let room = GATHERED - bytes.len();
                bytes.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            let polled = self.lock().poll_write(cx, &bytes);
            gather.set(bytes);
            polled
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.lock();
        let polled = Pin::new(&mut shared.stream).poll_flush(cx);
        shared.blocked = polled.is_pending();
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().stream).poll_shutdown(cx)
    }
}
