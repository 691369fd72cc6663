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

/// The most that is gathered before it is written.
const GATHERED: usize = 32 * 1024;

thread_local! {
    /// What this worker gathers in, lent to whoever drives a connection.
    static GATHER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// One connection's bytes; clones share them.
///
/// The library writes and flushes each larger DATA frame by itself. Once somebody drives the connection, what it
/// writes is gathered instead, and goes out when the driver has nothing more to do ([`Wire::settle`]): the answers
/// to many streams are one record of TLS and one write to the socket.
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
    /// Whether writes are gathered.
    corked: bool,
    /// What the library has written and the stream has not: its first `taken` bytes have gone.
    gathered: Vec<u8>,
    taken: usize,
    /// Why the stream takes nothing any more, until the library is told.
    failed: Option<io::Error>,
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

    /// From here on there is a driver, which settles: writes are gathered.
    pub(super) fn cork(&self) {
        self.lock().corked = true;
    }

    /// Nobody drives the connection any more: who waits for it waits in vain.
    pub(super) fn release(&self) {
        let waiting = {
            let mut shared = self.lock();
            shared.corked = false;
            shared.blocked = false;
            shared.settled()
        };
        waiting.into_iter().for_each(Waker::wake);
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
            corked: false,
            gathered: Vec::new(),
            taken: 0,
            failed: None,
            blocked: false,
            queued: 0,
            promised: 0,
            waiting: Vec::new(),
        })))
    }

    /// The library has done all it could for now: what it has written goes out. Where the stream does not take all of
    /// it, the driver is woken when it takes more.
    pub(super) fn settle(&self, cx: &mut Context<'_>) {
        let waiting = {
            let mut shared = self.lock();
            match shared.poll_drain(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    // The library hears of it when it writes, and writes whenever it is polled.
                    shared.failed = Some(error);
                    cx.waker().wake_by_ref();
                }
            }
            shared.settled()
        };
        waiting.into_iter().for_each(Waker::wake);
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
        self.blocked = polled.is_pending();
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

impl<C> Shared<C> {
    /// All that was queued is written. Returns who waits for that.
    fn settled(&mut self) -> Vec<Waker> {
        self.queued = 0;
        std::mem::take(&mut self.waiting)
    }
}

impl<C: Leg> AsyncRead for Wire<C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_read(cx, buf)
    }
}

impl<C: Leg> AsyncWrite for Wire<C> {
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
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// A stream with nothing behind it.
    struct Pipe(DuplexStream);

    impl Leg for Pipe {}

    impl AsyncRead for Pipe {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Pipe {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    #[tokio::test]
    async fn every_byte_arrives_however_little_is_read_at_a_time() {
        let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], b"12345678"].concat();
        let empty = [0, 0, 0, 0, 0, 0, 0, 0, 1];
        let sent = [&[b'P'; 24][..], &ping, &empty, &ping, &ping].concat();
        let expected = [&[b'P'; 24][..], &ping, &ping, &ping].concat();
        for arriving in 1..20 {
            for wanted in 1..20 {
                let (mut far, near) = duplex(arriving);
                let mut wire = Wire::new(Pipe(near), Instant::now());
                let write = async {
                    far.write_all(&sent).await.expect("the wire reads");
                    drop(far);
                };
                let read = async {
                    let mut all = Vec::new();
                    let mut buffer = vec![0; wanted];
                    loop {
                        match wire.read(&mut buffer).await.expect("readable") {
                            0 => break all,
                            read => all.extend_from_slice(&buffer[..read]),
                        }
                    }
                };
                let (all, ()) = tokio::join!(read, write);
                assert_eq!(all, expected, "{arriving} bytes arriving and {wanted} wanted at a time");
            }
        }
    }

    #[tokio::test]
    async fn what_is_gathered_goes_out_at_once_and_what_finds_no_room_follows() {
        let (mut far, near) = duplex(GATHERED);
        let mut wire = Wire::new(Pipe(near), Instant::now());
        let mut cx = Context::from_waker(Waker::noop());
        wire.cork();
        let half = vec![7; GATHERED / 2];
        for _ in 0..2 {
            wire.write_all(&half).await.expect("gathered");
            wire.flush().await.expect("left to the driver");
        }
        let mut read = vec![0; 2 * GATHERED];
        let mut space = ReadBuf::new(&mut read);
        assert!(Pin::new(&mut far).poll_read(&mut cx, &mut space).is_pending(), "nothing is written yet");
        // A third finds no room before the first two are written; then there is none in the pipe.
        wire.write_all(&half).await.expect("gathered");
        wire.queue(half.len());
        wire.settle(&mut cx);
        assert!(wire.poll_free(&mut cx).is_pending(), "blocked");
        far.read_exact(&mut read[..GATHERED]).await.expect("what was gathered first");
        wire.settle(&mut cx);
        assert!(wire.poll_free(&mut cx).is_ready() && wire.poll_settled(&mut cx).is_ready());
        far.read_exact(&mut read[GATHERED..][..half.len()]).await.expect("the rest");
        assert!(read[..GATHERED + half.len()].iter().all(|byte| *byte == 7));
    }

    #[tokio::test]
    async fn a_stream_that_broke_is_told_to_the_next_who_writes() {
        let (far, near) = duplex(64);
        let mut wire = Wire::new(Pipe(near), Instant::now());
        wire.cork();
        wire.write_all(b"gathered").await.expect("gathered");
        wire.queue(8);
        drop(far);
        let mut cx = Context::from_waker(Waker::noop());
        wire.settle(&mut cx);
        assert!(wire.poll_settled(&mut cx).is_ready(), "nobody waits for what cannot come");
        assert_eq!(wire.flush().await.expect_err("it broke").kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn what_is_queued_counts_as_written_and_keeps_who_waits_for_it() {
        let (_far, near) = duplex(64);
        let wire = Wire::new(Pipe(near), Instant::now());
        wire.queue(100);
        assert_eq!(wire.written(), 100);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(wire.poll_free(&mut cx).is_ready() && wire.poll_settled(&mut cx).is_pending());
        wire.settle(&mut cx);
        assert!(wire.poll_settled(&mut cx).is_ready());
    }
}
