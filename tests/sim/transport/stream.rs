//! The byte stream of one end of a connection.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Connection;
use super::{Stack, now};
use crate::wire::LegWire;

/// The byte stream of one end of a connection; dropped, it ends as a socket of Linux does.
pub struct Stream {
    stack: Rc<Stack>,
    connection: Rc<RefCell<Connection>>,
    /// The most bytes of one read; few make many reads of a flood.
    grain: usize,
    /// Bytes that were read.
    taken: u64,
    aborts: Cell<bool>,
}

/// A handle that aborts a connection from outside of its stream.
pub struct Breaker(Rc<Stack>, Rc<RefCell<Connection>>);

impl Breaker {
    pub fn abort(&self) {
        self.1.borrow_mut().abort();
        self.0.flush(&self.1);
    }
}

impl Stream {
    pub(super) fn new(stack: Rc<Stack>, connection: Rc<RefCell<Connection>>) -> Self {
        Self { stack, connection, grain: usize::MAX, taken: 0, aborts: Cell::new(false) }
    }

    /// Bounds one read to `grain` bytes.
    pub fn set_grain(&mut self, grain: usize) {
        self.grain = grain;
    }

    /// Records in `wire` what arrives and what is acknowledged from here on.
    pub fn record(&self, wire: &Rc<RefCell<LegWire>>) {
        let mut connection = self.connection.borrow_mut();
        // Bytes from before the takeover of the stream count as arriving now.
        if !connection.buffer.is_empty() {
            wire.borrow_mut().arrived(now(), &connection.buffer);
        }
        if connection.is_at_end() {
            wire.borrow_mut().ended(now());
        }
        if connection.is_reset {
            wire.borrow_mut().reset(now());
        }
        connection.wire = Some(Rc::clone(wire));
    }

    /// Sends `bytes_per_second` at most.
    pub fn set_rate(&self, bytes_per_second: usize) {
        let every = Duration::from_millis(100);
        self.connection.borrow_mut().set_pace((bytes_per_second / 10).max(1), every);
    }

    pub fn breaker(&self) -> Breaker {
        Breaker(Rc::clone(&self.stack), Rc::clone(&self.connection))
    }

    pub fn abort(&self) {
        self.aborts.set(true);
        self.connection.borrow_mut().abort();
        self.stack.flush(&self.connection);
    }

    /// Makes the drop abort the connection.
    pub fn abort_on_drop(&self) {
        self.aborts.set(true);
    }

    pub fn taken(&self) -> u64 {
        self.taken
    }

    pub fn written(&self) -> u64 {
        self.connection.borrow().written
    }

    pub fn acked(&self) -> u64 {
        self.connection.borrow().acked
    }

    pub fn has_unread(&self) -> bool {
        !self.connection.borrow().buffer.is_empty()
    }

    pub fn untransmitted(&self) -> u64 {
        self.connection.borrow().untransmitted()
    }
}

/// Takes part in the runtime's cooperative scheduling, as its own sockets do.
fn poll_budget(cx: &mut Context<'_>) -> Poll<()> {
    pin!(tokio::task::consume_budget()).poll(cx)
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(poll_budget(cx));
        let this = &mut *self;
        if this.stack.is_unaware.borrow().get() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut connection = this.connection.borrow_mut();
        if !connection.buffer.is_empty() && !connection.is_aborted {
            let len = connection.buffer.len().min(buf.remaining()).min(this.grain);
            buf.put_slice(&connection.buffer[..len]);
            connection.buffer.advance(len);
            connection.was_read();
            drop(connection);
            this.taken += len as u64;
            this.stack.flush(&this.connection);
            return Poll::Ready(Ok(()));
        }
        if connection.is_reset || connection.is_aborted {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if connection.is_at_end() {
            return Poll::Ready(Ok(()));
        }
        connection.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(poll_budget(cx));
        let mut connection = self.connection.borrow_mut();
        if connection.is_reset || connection.is_finished() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let taken = connection.write(bytes, now());
        if taken == 0 && !bytes.is_empty() {
            connection.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        drop(connection);
        self.stack.flush(&self.connection);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut connection = self.connection.borrow_mut();
        if connection.is_reset {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        }
        connection.finish(now());
        drop(connection);
        self.stack.flush(&self.connection);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !turmoil::in_simulation() {
            return;
        }
        let mut connection = self.connection.borrow_mut();
        if self.aborts.get() {
            connection.abort();
        } else {
            connection.orphan(now());
        }
        drop(connection);
        self.stack.flush(&self.connection);
    }
}
