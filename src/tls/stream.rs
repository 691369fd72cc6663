//! The client's byte stream, decrypted, over a socket that knows how much went through it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::ioctl_fionread;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::relay::{Delivery, Leg};
use crate::tcp_info;
use crate::telemetry::metrics::Active;

/// A client connection after its TLS handshake.
///
/// The end of the stream without the peer's `close_notify` (RFC 8446 §6.1) is an `UnexpectedEof`, not an end: bytes
/// may have been cut off.
#[derive(Debug)]
pub struct ClientStream {
    tls: TlsStream<Socket>,
}

impl ClientStream {
    pub(super) fn new(tls: TlsStream<Socket>) -> Self {
        Self { tls }
    }

    /// Keeps `place`, the connection's place in a gauge, for as long as its socket is open.
    pub fn hold(&mut self, place: Active) {
        self.tls.get_mut().0.place = Some(place);
    }

    fn socket(&self) -> &Socket {
        self.tls.get_ref().0
    }
}

impl Leg for ClientStream {
    fn delivery(&self) -> Option<Delivery> {
        let tcp = &self.socket().tcp;
        let acked = tcp_info::bytes_acked(tcp)?;
        // Encrypted bytes: whether a whole record is among them is not known, but the client did send.
        let unread = ioctl_fionread(tcp).is_ok_and(|bytes| bytes > 0);
        Some(Delivery { acked, unread })
    }

    fn written(&self) -> u64 {
        self.socket().written
    }

    fn abort_on_drop(&mut self) {
        // Fails only on a socket that is no longer connected, which needs no abort.
        let _ = SockRef::from(&self.socket().tcp).set_linger(Some(Duration::ZERO));
    }

    fn set_user_timeout(&mut self, after: Duration) {
        set_user_timeout(&self.socket().tcp, after);
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

/// Lets the kernel drop the connection when written bytes stay unacknowledged for `after` (`TCP_USER_TIMEOUT`,
/// RFC 5482): the backstop for a peer that vanished while nobody asks about it.
pub fn set_user_timeout(tcp: &TcpStream, after: Duration) {
    // A socket that refuses is already closed; where the option is unknown, the relay's own deadlines must do.
    #[cfg(target_os = "linux")]
    let _ = SockRef::from(tcp).set_tcp_user_timeout(Some(after));
    #[cfg(not(target_os = "linux"))]
    let _ = (tcp, after);
}

/// A TCP connection that counts the bytes written to it: the scale on which the kernel counts acknowledgements.
#[derive(Debug)]
pub(super) struct Socket {
    tcp: TcpStream,
    written: u64,
    place: Option<Active>,
}

impl Socket {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, written: 0, place: None }
    }

    pub(super) fn into_tcp(self) -> TcpStream {
        self.tcp
    }

    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.written += bytes as u64;
        }
        written
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, buf);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
