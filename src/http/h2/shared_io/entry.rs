//! One stream among those of its connection, as its session sees it.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::super::streams::{StreamKind, Taken};
use super::{SharedIo, stream_error_kind};
use crate::heartbeat::Policy;
use crate::relay::{Delivery, Leg, Partial};

/// One stream's entry among those of its connection; it leaves when this is dropped.
#[derive(Debug)]
pub(in crate::http::h2) struct StreamEntry<C> {
    wire: SharedIo<C>,
    id: u32,
}

impl<C> SharedIo<C> {
    /// Enters stream `id`, which a task is about to serve.
    pub(in crate::http::h2) fn enter(&self, id: u32, kind: StreamKind) -> StreamEntry<C> {
        self.streams(|streams| streams.open(id, kind));
        StreamEntry { wire: self.clone(), id }
    }
}

/// Positions are those of the whole connection.
impl<C: Leg> StreamEntry<C> {
    /// The stream follows `policy` from here on.
    pub(in crate::http::h2) fn follow(&self, policy: &Arc<Policy>) {
        let changed = self.wire.streams(|streams| {
            streams.follow(self.id, policy);
            streams.has_changed()
        });
        if changed {
            self.wire.wake_driver();
        }
    }

    /// See [`Leg::delivery`].
    pub(in crate::http::h2) fn delivery(&self) -> Option<Delivery> {
        let (delivery, asks) = {
            let shared = &mut *self.wire.lock();
            let (of_all, last_received) = (shared.stream.delivery()?, shared.last_received());
            let delivery = shared.streams.delivery(self.id, of_all, Instant::now(), last_received);
            (delivery, shared.streams.wants_ping())
        };
        if asks {
            self.wire.wake_driver();
        }
        Some(delivery)
    }

    /// Returns how far the client has come with the response on the stream, which may stand still for `stall`.
    pub(in crate::http::h2) fn taken(&self, stall: Duration) -> Taken {
        let (taken, asks) = {
            let shared = &mut *self.wire.lock();
            let (of_all, last_received) = (shared.stream.delivery(), shared.last_received());
            let taken = shared.streams.taken(self.id, of_all, Instant::now(), last_received, stall);
            (taken, shared.streams.wants_ping())
        };
        if asks {
            self.wire.wake_driver();
        }
        taken
    }

    /// See [`Leg::await_answer`].
    pub(in crate::http::h2) fn await_answer(&self, since: Instant, window: Duration) {
        let changed = self.wire.streams(|streams| {
            streams.await_answer(self.id, since, window);
            streams.has_changed()
        });
        if changed {
            self.wire.wake_driver();
        }
    }

    /// See [`Leg::written`]. What the library holds counts as written, for that is where it will stand.
    pub(in crate::http::h2) fn written(&self) -> u64 {
        self.wire.lock().written(self.id)
    }

    /// Bytes that the library holds.
    pub(in crate::http::h2) fn unsent(&self) -> usize {
        usize::try_from(self.wire.streams(|streams| streams.unsent(self.id))).unwrap_or(usize::MAX)
    }

    /// See [`Leg::partial`].
    pub(in crate::http::h2) fn partial(&self) -> Option<Partial> {
        let part = self.wire.frames(|frames| frames.data()).filter(|part| part.stream == self.id)?;
        Some(Partial { at: part.at.into_std(), len: part.len })
    }

    /// The client has abandoned a request that had reached the app, or a session.
    pub(in crate::http::h2) fn abandoned(&self) {
        self.wire.streams(|streams| streams.abandon(self.id, Instant::now()));
        self.wire.wake_driver();
    }

    /// Bytes of the stream were read.
    pub(in crate::http::h2) fn record_received(&self) {
        self.wire.streams(|streams| streams.record_received(self.id));
    }

    /// Returns whether the connection holds so little that a response may hand it more.
    pub(in crate::http::h2) fn has_turn(&self) -> bool {
        self.wire.streams(|streams| streams.turns.has_turn())
    }

    /// Waits for that.
    pub(in crate::http::h2) fn poll_turn(&self, cx: &Context<'_>) -> Poll<()> {
        let (polled, next) = self.wire.streams(|streams| {
            let polled = streams.turns.poll(self.id, cx);
            (polled, if polled.is_ready() { streams.turns.next() } else { None })
        });
        // The next one runs after this one, and sees what this one has made of its turn.
        next.into_iter().for_each(Waker::wake);
        polled
    }

    /// `bytes` are about to be handed to the library.
    pub(in crate::http::h2) fn hand(&self, bytes: usize) {
        self.wire.streams(|streams| streams.hand(self.id, bytes));
    }

    /// Passes `polled` on; where it is pending, bytes of the stream wait for room in the windows or in the library.
    pub(in crate::http::h2) fn note_room<T>(&self, polled: Poll<T>) -> Poll<T> {
        if polled.is_pending() {
            self.wire.streams(|streams| streams.want_room(self.id));
        }
        polled
    }

    /// `END_STREAM` is about to be handed to the library.
    pub(in crate::http::h2) fn hand_end(&self) {
        self.wire.streams(|streams| streams.hand_end(self.id));
    }

    /// Waits until the socket has taken everything that was handed to the library.
    pub(in crate::http::h2) fn poll_flushed(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.wire.lock();
        match shared.streams.poll_flushed(self.id, cx) {
            Poll::Pending if shared.released || shared.failed.is_some() => Poll::Ready(Err(shared.lost())),
            polled => polled.map(Ok),
        }
    }

    /// Waits as [`Self::poll_flushed`] does, but not for bytes that nothing keeps the driver from writing.
    pub(in crate::http::h2) fn poll_free(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        {
            let shared = &mut *self.wire.lock();
            let is_driven = !shared.blocked && !shared.released && shared.failed.is_none();
            let end = shared.written(self.id);
            if is_driven && shared.streams.is_next(self.id, end) {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_flushed(cx)
    }

    /// Converts the library's error of the stream into that of a socket: that of the connection's own, if it is the
    /// reason.
    pub(in crate::http::h2) fn lost(&self, error: h2::Error) -> io::Error {
        if error.is_reset() && error.is_remote() {
            self.abandoned();
        }
        let shared = self.wire.lock();
        if error.is_reset() || shared.died.is_none() { lost(error) } else { shared.lost() }
    }

    /// The error of a stream to which nothing can be written any more, without a reason of its own.
    pub(in crate::http::h2) fn gone(&self) -> io::Error {
        self.wire.lock().lost()
    }
}

impl<C> Drop for StreamEntry<C> {
    fn drop(&mut self) {
        let changed = self.wire.streams(|streams| {
            streams.close(self.id);
            streams.has_changed()
        });
        if changed {
            self.wire.wake_driver();
        }
    }
}

/// Converts the library's error of a stream into that of a socket.
fn lost(error: h2::Error) -> io::Error {
    let kind = match error.get_io() {
        _ if error.is_reset() => io::ErrorKind::ConnectionReset,
        Some(io) => stream_error_kind(io.kind()),
        None => io::ErrorKind::BrokenPipe,
    };
    io::Error::new(kind, error)
}
