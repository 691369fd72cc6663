//! One leg in memory: a socket whose kernel, readiness and use of the runtime's budget follow the input.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use pulsegate::relay::{self, Delivery, Partial};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::task::coop::poll_proceed;
use tokio::time::{Instant, sleep};

/// The maximum number of operations of one leg that may find it ready late.
pub const LATE_MOST: u32 = 24;
/// The maximum delay of one of them.
pub const LATE: Duration = Duration::from_millis(15);
/// The maximum number of operations of one leg that return Pending and wake the task at once. High enough not to limit
/// an ordinary session.
const PAUSES_MOST: u32 = 2000;
/// The bytes that a leg with a buffer of its own accepts before a flush.
const BUFFER: usize = 16 * 1024;

/// The state of one leg.
#[derive(Debug, Default)]
pub struct Wire {
    /// Bytes of the peer that the relay has not read.
    inbound: VecDeque<u8>,
    /// The number of them that can be read; the others are the beginning of a record.
    readable: usize,
    partial_at: Option<Instant>,
    end_of_input: bool,
    read_error: Option<io::ErrorKind>,
    reader: Option<Waker>,
    /// Bytes that the kernel has taken from the relay.
    pub accepted: Vec<u8>,
    /// Bytes in a buffer of the leg's own, if it has one.
    unsent: Option<Vec<u8>>,
    /// The total number of bytes that the peer takes.
    window: usize,
    /// The time since which the peer takes no more, and the longest such time before.
    full_since: Option<Instant>,
    full_longest: Duration,
    /// The size of the kernel's send buffer; `None` for a leg without a kernel that can be queried.
    kernel: Option<usize>,
    write_error: Option<io::ErrorKind>,
    writer: Option<Waker>,
    /// True once the relay has ended its half; the time at which it dropped the leg is beside it.
    pub shut: bool,
    pub dropped: Option<Instant>,
    pub aborted: bool,
    moods: Vec<u8>,
    turn: usize,
    /// The kinds of operations whose last result was an artificial Pending.
    hesitated: [bool; 4],
    late_left: u32,
    pauses_left: u32,
    peer: Arc<Notify>,
}

/// A kind of operation.
#[derive(Clone, Copy)]
enum Kind {
    Read,
    Write,
    Flush,
    Shutdown,
}

impl Wire {
    pub fn new(moods: Vec<u8>, kernel: Option<usize>, buffered: bool, peer: Arc<Notify>) -> Self {
        let unsent = buffered.then(Vec::new);
        Self {
            window: usize::MAX,
            kernel,
            unsent,
            moods,
            late_left: LATE_MOST,
            pauses_left: PAUSES_MOST,
            peer,
            ..Self::default()
        }
    }

    /// Returns the bytes that have reached the peer.
    pub fn delivered(&self) -> &[u8] {
        &self.accepted[..self.accepted.len().min(self.window)]
    }

    /// Sends `bytes` from the peer; without `whole` they are a part of a record that cannot be read yet.
    pub fn push(&mut self, bytes: &[u8], whole: bool) {
        self.inbound.extend(bytes);
        if whole {
            (self.readable, self.partial_at) = (self.inbound.len(), None);
        } else if !bytes.is_empty() {
            self.partial_at = Some(Instant::now());
        }
        wake(&mut self.reader);
    }

    /// Lets the peer take `more` bytes, or everything.
    pub fn widen(&mut self, more: Option<usize>) {
        self.full_longest = self.longest_full();
        self.window = match more {
            Some(more) => self.accepted.len().min(self.window).saturating_add(more),
            None => usize::MAX,
        };
        self.full_since = (self.accepted.len() >= self.window).then(Instant::now);
        self.peer.notify_one();
        wake(&mut self.writer);
    }

    /// Returns the longest time in which the peer took no bytes, although there may have been some.
    pub fn longest_full(&self) -> Duration {
        self.full_longest.max(self.full_since.map_or(Duration::ZERO, |since| since.elapsed()))
    }

    /// Ends the peer's half.
    pub fn end(&mut self) {
        self.end_of_input = true;
        wake(&mut self.reader);
    }

    pub fn fail_reads(&mut self, kind: io::ErrorKind) {
        self.read_error = Some(kind);
        wake(&mut self.reader);
    }

    pub fn fail_writes(&mut self, kind: io::ErrorKind) {
        self.write_error = Some(kind);
        wake(&mut self.writer);
    }

    /// Returns the bytes that the kernel takes now.
    fn room(&self) -> usize {
        self.window.saturating_add(self.kernel.unwrap_or(0)).saturating_sub(self.accepted.len())
    }

    fn take(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        self.accepted.extend_from_slice(&bytes[..count]);
        if self.accepted.len() >= self.window {
            self.full_since.get_or_insert_with(Instant::now);
        }
        if count > 0 {
            self.peer.notify_one();
        }
        count
    }

    /// Moves the accepted bytes to the kernel; returns true if all were moved.
    fn move_unsent(&mut self) -> bool {
        let Some(mut unsent) = self.unsent.take() else { return true };
        let count = self.take(&unsent);
        unsent.drain(..count);
        let all = unsent.is_empty();
        self.unsent = Some(unsent);
        all
    }

    /// Delays an operation according to the input. Returns the budget that it uses if it is ready, and the maximum
    /// bytes that it may move.
    fn mood(&mut self, kind: Kind, cx: &mut Context<'_>) -> Poll<(usize, usize)> {
        let mood = if self.moods.is_empty() { 0 } else { self.moods[self.turn % self.moods.len()] };
        self.turn += 1;
        let (kind, amount) = (kind as usize, usize::from(mood >> 3));
        let hesitated = std::mem::take(&mut self.hesitated[kind]);
        let (mut cost, mut most) = (1, usize::MAX);
        match mood & 7 {
            4 => cost = amount,
            5 if !hesitated && self.pauses_left > 0 => {
                self.hesitated[kind] = true;
                self.pauses_left -= 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            6 if !hesitated && self.late_left > 0 => {
                self.hesitated[kind] = true;
                self.late_left -= 1;
                let (waker, late) = (cx.waker().clone(), LATE * mood_part(mood) / 31);
                tokio::spawn(async move {
                    sleep(late).await;
                    waker.wake();
                });
                return Poll::Pending;
            }
            7 => most = amount + 1,
            _ => {}
        }
        Poll::Ready((cost, most))
    }
}

/// Uses budget for an operation that is ready, as tokio's own sockets do; Pending if none is left.
fn spend(cost: usize, cx: &mut Context<'_>) -> Poll<()> {
    for _ in 0..cost {
        ready!(poll_proceed(cx)).made_progress();
    }
    Poll::Ready(())
}

fn mood_part(mood: u8) -> u32 {
    u32::from(mood >> 3)
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// The relay's end of a [`Wire`].
#[derive(Debug)]
pub struct Leg(pub Arc<Mutex<Wire>>);

impl Leg {
    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().expect("no test panics while it holds a wire")
    }
}

impl AsyncRead for Leg {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.wire();
        let (cost, most) = ready!(wire.mood(Kind::Read, cx));
        if wire.readable > 0 || wire.read_error.is_some() || wire.end_of_input {
            ready!(spend(cost, cx));
        }
        if wire.readable > 0 {
            let count = most.min(wire.readable).min(buf.remaining());
            let bytes: Vec<u8> = wire.inbound.drain(..count).collect();
            wire.readable -= count;
            buf.put_slice(&bytes);
            return Poll::Ready(Ok(()));
        }
        if let Some(kind) = wire.read_error {
            // Reported as by a kernel: once, and the end of the stream from then on.
            wire.read_error = None;
            wire.end_of_input = true;
            return Poll::Ready(Err(kind.into()));
        }
        if wire.end_of_input {
            return Poll::Ready(Ok(()));
        }
        wire.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Leg {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut wire = self.wire();
        let (cost, most) = ready!(wire.mood(Kind::Write, cx));
        if let Some(kind) = wire.write_error.replace(io::ErrorKind::BrokenPipe) {
            return Poll::Ready(Err(kind.into()));
        }
        wire.write_error = None;
        assert!(!wire.shut, "written behind the end of the stream");
        wire.move_unsent();
        let has_room = wire.unsent.as_ref().map_or(wire.room() > 0, |unsent| unsent.len() < BUFFER);
        if has_room {
            ready!(spend(cost, cx));
        }
        let bytes = &bytes[..bytes.len().min(most)];
        let count = match &mut wire.unsent {
            Some(unsent) => {
                let count = bytes.len().min(BUFFER.saturating_sub(unsent.len()));
                unsent.extend_from_slice(&bytes[..count]);
                count
            }
            None => wire.take(bytes),
        };
        if count == 0 {
            wire.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.wire();
        ready!(wire.mood(Kind::Flush, cx));
        if wire.move_unsent() {
            return Poll::Ready(Ok(()));
        }
        wire.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.wire();
        ready!(wire.mood(Kind::Shutdown, cx));
        if !wire.move_unsent() {
            wire.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        wire.shut = true;
        wire.peer.notify_one();
        Poll::Ready(Ok(()))
    }
}

impl relay::Leg for Leg {
    fn delivery(&self) -> Option<Delivery> {
        let wire = self.wire();
        wire.kernel?;
        Some(Delivery { acked: wire.delivered().len() as u64, unread: wire.readable > 0 })
    }

    fn written(&self) -> u64 {
        self.wire().accepted.len() as u64
    }

    fn partial(&self) -> Option<Partial> {
        let wire = self.wire();
        let at = wire.partial_at.filter(|_| wire.readable == 0)?;
        Some(Partial { at: at.into_std(), len: wire.inbound.len() })
    }

    fn unsent(&self) -> usize {
        self.wire().unsent.as_ref().map_or(0, Vec::len)
    }

    fn abort_on_drop(&mut self) {
        self.wire().aborted = true;
    }
}

impl Drop for Leg {
    fn drop(&mut self) {
        let mut wire = self.wire();
        wire.dropped = Some(Instant::now());
        wire.peer.notify_one();
    }
}
