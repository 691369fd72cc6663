//! The socket of an app connection: TCP, TLS or unix.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::target::Rewrite;
use crate::descriptors::UpstreamSlot;
use crate::platform::socket_queues;
use crate::relay::Leg;
use crate::tls::client;

/// The kernel's receive buffer for an app on this machine, in bytes. The kernel would enlarge it up to 32 MiB on some
/// systems, which serves networks with delay; loopback has none, and data that slow clients do not read occupies memory
/// shared by all connections of the machine (`net.ipv4.tcp_mem`).
const RECEIVED: usize = 256 * 1024;

/// A connection to the app.
#[derive(Debug)]
pub struct UpstreamStream {
    pub(super) socket: UpstreamSocket,
    /// Held until the socket closes.
    slot: Option<UpstreamSlot>,
    /// The rewrite to apply to the bytes written next.
    rewrite: Option<Box<Rewrite>>,
}

/// The socket of a connection.
#[derive(Debug)]
pub(super) enum UpstreamSocket {
    /// TCP.
    Tcp(TcpStream),
    /// TLS over TCP. Boxed: a session holds its legs until it ends, and the state of rustls is large.
    Tls(Box<client::Stream<TcpStream>>),
    /// A unix socket.
    Unix(UnixStream),
}

impl UpstreamStream {
    /// Keeps `slot` until the socket closes.
    pub(super) fn hold(&mut self, slot: UpstreamSlot) {
        self.slot = Some(slot);
    }

    /// Sets the rewrite of the request line that is written next.
    pub(super) fn restore(&mut self, rewrite: Rewrite) {
        self.rewrite = Some(Box::new(rewrite));
    }

    /// Writes `pieces` with the request line restored.
    #[cold]
    fn poll_restoring(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Self { socket, rewrite, .. } = self;
        let restored = rewrite.as_ref().and_then(|rewrite| rewrite.apply(pieces));
        let Some((restored, before)) = restored else { return socket.poll_write_vectored(cx, pieces) };
        let written = ready!(socket.poll_write_vectored(cx, &restored))?;
        if rewrite.as_mut().is_some_and(|rewrite| rewrite.advance(written, before)) {
            *rewrite = None;
        }
        Poll::Ready(Ok(written))
    }

    /// Limits the kernel's receive buffer if the app is on this machine.
    pub(super) fn limit_received(&self) {
        let tcp = match &self.socket {
            UpstreamSocket::Tcp(tcp) => tcp,
            UpstreamSocket::Tls(tls) => tls.get_ref().0,
            UpstreamSocket::Unix(_) => return,
        };
        if tcp.peer_addr().is_ok_and(|app| app.ip().is_loopback()) {
            // Without the option the buffer grows larger, and nothing else changes.
            let _ = SockRef::from(tcp).set_recv_buffer_size(RECEIVED);
        }
    }
}

impl UpstreamSocket {
    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
            Self::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, bufs),
        }
    }
}

impl From<UpstreamSocket> for UpstreamStream {
    fn from(socket: UpstreamSocket) -> Self {
        Self { socket, slot: None, rewrite: None }
    }
}

impl Leg for UpstreamStream {
    fn unacked(&self) -> Option<u64> {
        match &self.socket {
            UpstreamSocket::Tcp(tcp) => socket_queues::unacked(tcp),
            UpstreamSocket::Tls(tls) => socket_queues::unacked(tls.get_ref().0),
            UpstreamSocket::Unix(unix) => socket_queues::unacked(unix),
        }
    }

    fn untransmitted(&self) -> Option<u64> {
        match &self.socket {
            UpstreamSocket::Tcp(tcp) => socket_queues::untransmitted(tcp),
            UpstreamSocket::Tls(tls) => socket_queues::untransmitted(tls.get_ref().0),
            // Bytes written to a unix socket are readable by the peer at once.
            UpstreamSocket::Unix(_) => Some(0),
        }
    }

    fn abort_on_drop(&mut self) {
        // A unix socket has no reset; dropping it is the closest equivalent. A TCP socket that refuses the option is
        // already closed.
        let tcp = match &self.socket {
            UpstreamSocket::Tcp(tcp) => tcp,
            UpstreamSocket::Tls(tls) => tls.get_ref().0,
            UpstreamSocket::Unix(_) => return,
        };
        let _ = tcp.set_zero_linger();
    }
}

impl AsyncRead for UpstreamStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            UpstreamSocket::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            UpstreamSocket::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            UpstreamSocket::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.rewrite.is_some() {
            return this.poll_restoring(cx, &[IoSlice::new(buf)]);
        }
        match &mut this.socket {
            UpstreamSocket::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            UpstreamSocket::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
            UpstreamSocket::Unix(unix) => Pin::new(unix).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.rewrite.is_some() {
            return this.poll_restoring(cx, bufs);
        }
        this.socket.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            // A record that was accepted may still wait for the socket.
            UpstreamSocket::Tls(tls) => Pin::new(tls).poll_flush(cx),
            UpstreamSocket::Tcp(_) | UpstreamSocket::Unix(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            UpstreamSocket::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            UpstreamSocket::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            UpstreamSocket::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
        }
    }
}
