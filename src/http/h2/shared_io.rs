//! The bytes of one HTTP/2 connection, as its driver, its streams and the HTTP/2 library share them.

mod entry;

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::egress::Egress;
use super::frame;
use super::frame_limits::{ConnectionError, Frames};
use super::streams::{StreamKind, Streams};
use crate::relay::{Delivery, Leg};
pub(super) use entry::StreamEntry;

/// Small DATA frames that reach the library before the streams get their turn. Each counts up to 256 bytes against a
/// budget of [`super::DATA_FRAME_BUDGET`] until it is taken, and the connection ends when the budget is spent; a read brings
/// some 3,000 at most.
const SMALL_FRAMES: usize = 1024;

/// The most that is read before the driver has its turn, and with it everything else on this worker: a client that sends
/// as fast as it is read would keep them waiting.
const TURN: usize = 256 * 1024;

/// Bytes that are thrown away at the end of a connection whose client has broken the protocol, so that it sees the GOAWAY
/// and no reset. One that goes on for longer has no use for it.
const DISCARDED: usize = 1024 * 1024;

/// Bytes that are read at once behind a long part of a header block that was kept back.
const SPARE: usize = 4096;

/// The most that is gathered before it is written.
const GATHERED: usize = 32 * 1024;

thread_local! {
    /// The buffer in which this worker gathers, lent to the driver of a connection.
    static GATHER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// One connection's bytes; clones share them.
///
/// The library writes and flushes each larger DATA frame by itself. Once a driver runs, what it writes is
/// gathered instead, and goes out when the driver has nothing more to do ([`SharedIo::settle`]): the answers
/// to many streams are one record of TLS and one write to the socket.
#[derive(Debug)]
pub(super) struct SharedIo<C>(Arc<Mutex<Shared<C>>>);

#[derive(Debug)]
struct Shared<C> {
    stream: C,
    frames: Frames,
    egress: Egress,
    streams: Streams,
    /// Sifted bytes that found no room.
    spare: Vec<u8>,
    /// The instant at which bytes of the client last arrived.
    last_received: Instant,
    /// Bytes of a faulty connection that were thrown away.
    discarded: usize,
    /// Bytes read since the driver last had its turn.
    turn: usize,
    /// Set while writes are gathered.
    corked: bool,
    /// Bytes that the library has written and the stream has not; the first `taken` have gone.
    gathered: Vec<u8>,
    taken: usize,
    /// The error of the stream, until it is handed to the library.
    failed: Option<io::Error>,
    /// Set while the stream takes no bytes.
    blocked: bool,
    /// Frames of the proxy's own, which go out behind the frame that the library is writing.
    injected: Vec<u8>,
    /// The error with which the socket ended the connection.
    died: Option<io::ErrorKind>,
    /// Set once the connection is not driven any more.
    released: bool,
    driver: Option<Waker>,
    /// Tasks that have waited for the socket, to be woken once nothing is locked.
    woken: Vec<Waker>,
}

/// Findings about a client from its frames.
#[derive(Debug)]
pub(super) struct ReadEvidence {
    /// The fault for which the connection is to end.
    pub(super) fault: Option<ConnectionError>,
    /// Streams that are to be reset for what came on them.
    pub(super) malformed: Vec<u32>,
    /// Streams of which data has come.
    pub(super) touched: Vec<u32>,
    /// Bytes that the connection holds for its client, those of sessions not counted that the library holds.
    pub(super) held: usize,
    /// Streams lost within ten seconds.
    pub(super) losses: u32,
    /// WebSockets that are open.
    pub(super) websockets: u32,
}

impl<C> Clone for SharedIo<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C> SharedIo<C> {
    fn lock(&self) -> MutexGuard<'_, Shared<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `look` look at the frames that came in.
    pub(super) fn frames<R>(&self, look: impl FnOnce(&mut Frames) -> R) -> R {
        look(&mut self.lock().frames)
    }

    /// Returns whether so many small DATA frames have come that the streams must take theirs before more are read.
    pub(super) fn is_crowded(&self) -> bool {
        self.lock().frames.small() >= SMALL_FRAMES
    }

    /// Lets `look` look at the live streams.
    pub(super) fn streams<R>(&self, look: impl FnOnce(&mut Streams) -> R) -> R {
        look(&mut self.lock().streams)
    }

    /// Returns what has been found about the client since this was last asked.
    pub(super) fn found(&self) -> ReadEvidence {
        let shared = &mut *self.lock();
        ReadEvidence {
            fault: shared.frames.fault(),
            malformed: shared.frames.take_malformed(),
            touched: shared.frames.take_touched(),
            held: shared.streams.turns.held() + shared.gathered.len() - shared.taken,
            losses: shared.streams.tolerance.losses(),
            websockets: shared.streams.open_of(StreamKind::WebSocket),
        }
    }

    /// Gathers writes from here on: there is a driver, which settles.
    pub(super) fn cork(&self) {
        self.lock().corked = true;
    }

    /// Returns whether the socket takes no bytes.
    pub(super) fn is_blocked(&self) -> bool {
        self.lock().blocked
    }

    /// Wakes the driver: a stream has asked for something that the driver does.
    fn wake_driver(&self) {
        let driver = self.lock().driver.clone();
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Ends the driving of the connection: every wait for it fails.
    pub(super) fn release(&self) {
        let woken = {
            let shared = &mut *self.lock();
            shared.corked = false;
            shared.blocked = false;
            shared.released = true;
            shared.driver = None;
            shared.streams.ended(&mut shared.woken);
            std::mem::take(&mut shared.woken)
        };
        woken.into_iter().for_each(Waker::wake);
    }
}

impl<C: Leg> SharedIo<C> {
    pub(super) fn new(stream: C, now: Instant) -> Self {
        Self(Arc::new(Mutex::new(Shared {
            stream,
            frames: Frames::new(now),
            egress: Egress::default(),
            streams: Streams::default(),
            spare: Vec::new(),
            last_received: now,
            discarded: 0,
            turn: 0,
            corked: false,
            gathered: Vec::new(),
            taken: 0,
            failed: None,
            blocked: false,
            injected: Vec::new(),
            died: None,
            released: false,
            driver: None,
            woken: Vec::new(),
        })))
    }

    /// Returns the instant at which bytes of the client were last read, those of an unfinished record of TLS included.
    pub(super) fn last_received(&self) -> Instant {
        self.lock().last_received()
    }

    /// The library has done all it could for now: what it has written goes out. Where the stream does not take all of
    /// it, the driver is woken when it takes more.
    pub(super) fn settle(&self, cx: &mut Context<'_>) {
        let woken = {
            let shared = &mut *self.lock();
            if !shared.driver.as_ref().is_some_and(|driver| driver.will_wake(cx.waker())) {
                shared.driver = Some(cx.waker().clone());
            }
            shared.turn = 0;
            shared.inject();
            if let Poll::Ready(Err(error)) = shared.poll_drain(cx) {
                // The library hears of it when it writes, and writes whenever it is polled.
                shared.failed = Some(error);
                shared.streams.ended(&mut shared.woken);
                cx.waker().wake_by_ref();
            }
            std::mem::take(&mut shared.woken)
        };
        woken.into_iter().for_each(Waker::wake);
    }
}

/// Returns the error of a stream for that of its connection's socket: only a reset and a time-out have a meaning there.
fn stream_error_kind(kind: io::ErrorKind) -> io::ErrorKind {
    match kind {
        io::ErrorKind::TimedOut | io::ErrorKind::ConnectionReset => kind,
        _ => io::ErrorKind::BrokenPipe,
    }
}

/// The connection as a whole.
impl<C: Leg> Leg for SharedIo<C> {
    fn delivery(&self) -> Option<Delivery> {
        self.lock().stream.delivery()
    }

    fn written(&self) -> u64 {
        self.lock().stream.written()
    }

    fn abort_on_drop(&mut self) {
        self.lock().stream.abort_on_drop();
    }
}

impl<C: Leg> Shared<C> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.frames.small() >= SMALL_FRAMES || self.turn >= TURN && self.corked {
            // The streams first.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while self.spare.is_empty() && buf.remaining() > 0 {
            if self.frames.fault().is_some() {
                if self.released {
                    return self.poll_discard(cx);
                }
                // The driver ends the connection as soon as the library has nothing more to do.
                return Poll::Pending;
            }
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
                return self.note(polled);
            }
            self.last_received = Instant::now();
            self.turn += read;
            let kept = self.frames.sift(&mut buf.filled_mut()[start..], self.last_received, &mut self.streams);
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
        let (mut little, mut large) = ([0; 64], Vec::new());
        let room = if self.frames.held().len() < little.len() {
            &mut little[..]
        } else {
            large.resize(self.frames.held().len() + SPARE, 0);
            &mut large[..]
        };
        let mut space = ReadBuf::new(room);
        space.put_slice(self.frames.held());
        let before = space.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut space);
        ready!(self.note(polled))?;
        let read = space.filled().len() - before;
        if read > 0 {
            self.last_received = Instant::now();
            let kept = self.frames.sift(space.filled_mut(), self.last_received, &mut self.streams);
            self.spare.extend_from_slice(&space.filled()[..kept]);
        }
        Poll::Ready(Ok(read))
    }

    /// Reads what a client sends whose connection is being ended, until it takes notice; nothing of it is looked at.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = [0; 4096];
        loop {
            let mut space = ReadBuf::new(&mut room);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space))?;
            if space.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.discarded += space.filled().len();
            if self.discarded > DISCARDED {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        if self.gathered.len() >= GATHERED {
            ready!(self.poll_drain(cx))?;
        }
        if self.gathered.capacity() == 0 {
            self.gathered = GATHER.take();
        }
        let before = self.gathered.len();
        for piece in pieces {
            let room = GATHERED - self.gathered.len();
            self.gathered.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        let taken = self.gathered.len() - before;
        self.egress.walk(&self.gathered[before..], Instant::now(), &mut self.streams);
        if !self.corked
            && let Poll::Ready(result) = self.poll_drain(cx)
        {
            result?;
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.failed.take() {
            Some(error) => Poll::Ready(Err(error)),
            None if self.corked => Poll::Ready(Ok(())),
            None => self.poll_drain(cx),
        }
    }

    /// Writes what was gathered, and gives the buffer back when all of it has gone.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.poll_gathered(cx);
        let polled = self.note(polled);
        self.blocked = polled.is_pending();
        if let Poll::Ready(Ok(())) = polled {
            self.streams.drained(self.stream.written(), &mut self.woken);
        }
        if polled.is_ready() && self.gathered.capacity() > 0 {
            let mut gathered = std::mem::take(&mut self.gathered);
            gathered.clear();
            self.taken = 0;
            GATHER.set(gathered);
        }
        polled
    }

    fn poll_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.taken < self.gathered.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.gathered[self.taken..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.taken += written,
            }
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}

impl<C: Leg> Shared<C> {
    fn written(&self, id: u32) -> u64 {
        self.streams.end_of(id).unwrap_or_else(|| {
            let gathered = (self.gathered.len() - self.taken) as u64;
            self.stream.written() + gathered + self.streams.unsent(id)
        })
    }

    fn last_received(&self) -> Instant {
        self.stream.partial().map_or(self.last_received, |partial| self.last_received.max(partial.at.into()))
    }
}

impl<C> Shared<C> {
    /// Remembers why the socket failed.
    fn note<T>(&mut self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled {
            self.died.get_or_insert(error.kind());
        }
        polled
    }

    /// The error of a stream whose connection has ended.
    fn lost(&self) -> io::Error {
        stream_error_kind(self.died.unwrap_or(io::ErrorKind::BrokenPipe)).into()
    }

    /// Puts what the proxy itself has to say behind what the library has written, if a frame ends there.
    fn inject(&mut self) {
        let broken = self.frames.take_broken().into_iter().map(frame::protocol_error);
        let credits = self.streams.take_credits().into_iter().map(|(id, bytes)| frame::window_update(id, bytes));
        self.injected.extend(broken.chain(credits).flatten());
        if !self.injected.is_empty() && self.egress.at_boundary() {
            if self.gathered.capacity() == 0 {
                self.gathered = GATHER.take();
            }
            self.gathered.append(&mut self.injected);
        }
    }
}

impl<C: Leg> AsyncRead for SharedIo<C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_read(cx, buf)
    }
}

impl<C: Leg> AsyncWrite for SharedIo<C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.lock().poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.lock().poll_write(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.lock();
        ready!(shared.poll_drain(cx))?;
        Pin::new(&mut shared.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
pub(super) mod tests;
