//! A WebSocket's stream on an HTTP/2 connection (RFC 8441) as a byte stream. Dropped before its end, it is reset.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The largest DATA frame that is written at once.
const MOST: usize = 64 * 1024;

/// Both directions of an HTTP/2 stream.
#[derive(Debug)]
pub struct Tunnel {
    up: SendStream<Bytes>,
    down: RecvStream,
    unread: Bytes,
}

impl Tunnel {
    /// Returns the tunnel of a response to an extended CONNECT.
    pub fn new(up: SendStream<Bytes>, down: RecvStream) -> Self {
        Self { up, down, unread: Bytes::new() }
    }
}

fn failed(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error.into_io().unwrap_or_else(|| ErrorKind::ConnectionReset.into());
    }
    io::Error::new(ErrorKind::ConnectionReset, error)
}

impl AsyncRead for Tunnel {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let tunnel = self.get_mut();
        while tunnel.unread.is_empty() {
            match ready!(tunnel.down.poll_data(context)) {
                None => return Poll::Ready(Ok(())),
                Some(data) => tunnel.unread = data.map_err(failed)?,
            }
        }
        let count = tunnel.unread.len().min(buffer.remaining());
        buffer.put_slice(&tunnel.unread[..count]);
        tunnel.unread.advance(count);
        Poll::Ready(tunnel.down.flow_control().release_capacity(count).map_err(failed))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let tunnel = self.get_mut();
        let wanted = bytes.len().min(MOST);
        tunnel.up.reserve_capacity(wanted);
        while tunnel.up.capacity() == 0 {
            match ready!(tunnel.up.poll_capacity(context)) {
                None => return Poll::Ready(Err(ErrorKind::BrokenPipe.into())),
                Some(grown) => grown.map_err(failed)?,
            };
        }
        let count = wanted.min(tunnel.up.capacity());
        tunnel.up.send_data(Bytes::copy_from_slice(&bytes[..count]), false).map_err(failed)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().up.send_data(Bytes::new(), true).map_err(failed))
    }
}
