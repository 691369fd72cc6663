//! The byte stream below a WebSocket: a TLS connection of its own, or one stream of an HTTP/2 connection (RFC 8441).

use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::client::TlsStream;

use crate::line::Shared;

/// The byte stream of a session through a proxy.
#[derive(Debug)]
pub enum Wire {
    /// A connection upgraded from HTTP/1.1.
    Tls(Box<TlsStream<TcpStream>>),
    /// A stream that answered an extended CONNECT.
    Tunnel(Tunnel),
    /// Either of them, read slowly.
    Paced(Box<Paced>),
}

impl Wire {
    /// Ends the wire without a Close: a TCP connection by RST, a stream by `RST_STREAM`.
    pub fn reset(self) -> io::Result<()> {
        match self {
            Self::Tls(stream) => stream.get_ref().0.set_zero_linger(),
            // Dropping a stream that has not ended resets it.
            Self::Tunnel(_) => Ok(()),
            Self::Paced(paced) => paced.wire.reset(),
        }
    }
}

/// The speed of a slow reader.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Bytes that are read per `pause`, and the maximum of one read.
    pub chunk: usize,
    /// The time for a `chunk`.
    pub pause: Duration,
    /// Bytes that may be unread: the receive buffer of a connection, the window of a stream.
    pub buffer: u32,
}

/// A wire that is read at a [`Pace`].
#[derive(Debug)]
pub struct Paced {
    wire: Wire,
    pace: Pace,
    next: Pin<Box<Sleep>>,
}

impl Paced {
    /// Returns the wire, slowed down.
    pub fn new(wire: Wire, pace: Pace) -> Self {
        Self { wire, pace, next: Box::pin(sleep(Duration::ZERO)) }
    }

    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.next.as_mut().poll(context));
        let room = self.pace.chunk.min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.wire).poll_read(context, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        // By bytes, not by reads: DATA frames may be small.
        let share = read as f64 / self.pace.chunk as f64;
        self.next.as_mut().reset(Instant::now() + self.pace.pause.mul_f64(share));
        Poll::Ready(Ok(()))
    }
}

/// Both directions of an HTTP/2 stream.
#[derive(Debug)]
pub struct Tunnel {
    upward: SendStream<Bytes>,
    downward: RecvStream,
    /// Bytes received and not read yet.
    unread: Bytes,
    _line: Shared,
}

impl Tunnel {
    /// Returns the tunnel on a stream of `line`, which it keeps open.
    pub fn new(line: Shared, upward: SendStream<Bytes>, downward: RecvStream) -> Self {
        Self { upward, downward, unread: Bytes::new(), _line: line }
    }

    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // A DATA frame may be empty, and the end of a read is not the end of the stream.
        while self.unread.is_empty() {
            match ready!(self.downward.poll_data(context)) {
                None => return Poll::Ready(Ok(())),
                Some(data) => self.unread = data.map_err(broken)?,
            }
        }
        let length = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..length]);
        self.unread.advance(length);
        Poll::Ready(self.downward.flow_control().release_capacity(length).map_err(broken))
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.upward.reserve_capacity(bytes.len());
        // `poll_capacity` reports growth only: what is left of an earlier grant must be checked first.
        while self.upward.capacity() == 0 {
            match ready!(self.upward.poll_capacity(context)) {
                None => return Poll::Ready(Err(ErrorKind::BrokenPipe.into())),
                Some(grown) => grown.map_err(broken)?,
            };
        }
        let length = bytes.len().min(self.upward.capacity());
        self.upward.send_data(Bytes::copy_from_slice(&bytes[..length]), false).map_err(broken)?;
        Poll::Ready(Ok(length))
    }

    fn end(&mut self) -> io::Result<()> {
        self.upward.send_data(Bytes::new(), true).map_err(broken)
    }
}

/// Maps a reset stream to the error of a reset TCP connection; every other error is reported as it is.
fn broken(error: h2::Error) -> io::Error {
    match error.reason() {
        Some(Reason::CANCEL | Reason::NO_ERROR) if error.is_reset() => ErrorKind::ConnectionReset.into(),
        _ if error.is_io() => error.into_io().unwrap_or_else(|| ErrorKind::Other.into()),
        _ => io::Error::other(error),
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tunnel(tunnel) => tunnel.poll_read(context, buffer),
            Self::Paced(paced) => paced.poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tunnel(tunnel) => tunnel.poll_write(context, bytes),
            Self::Paced(paced) => Pin::new(&mut paced.wire).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            // The connection's own task writes.
            Self::Tunnel(_) => Poll::Ready(Ok(())),
            Self::Paced(paced) => Pin::new(&mut paced.wire).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tunnel(tunnel) => Poll::Ready(tunnel.end()),
            Self::Paced(paced) => Pin::new(&mut paced.wire).poll_shutdown(context),
        }
    }
}
