//! The client leg of a connection, on ports with TLS and without.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ClientStream;
use super::plain::PlainStream;
use crate::relay::{Delivery, Leg, Partial};

/// The byte stream of a client connection.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one; a box would cost it an allocation")]
pub enum ClientLeg {
    /// A connection over TLS.
    Tls(ClientStream),
    /// Returns a connection without TLS.
    Plain(PlainStream),
}

/// Calls the same method on either stream.
macro_rules! either {
    ($leg:expr, $stream:ident => $call:expr) => {
        match $leg {
            ClientLeg::Tls($stream) => $call,
            ClientLeg::Plain($stream) => $call,
        }
    };
}

impl Leg for ClientLeg {
    fn delivery(&self) -> Option<Delivery> {
        either!(self, stream => stream.delivery())
    }

    fn written(&self) -> u64 {
        either!(self, stream => stream.written())
    }

    fn partial(&self) -> Option<Partial> {
        either!(self, stream => stream.partial())
    }

    fn unsent(&self) -> usize {
        either!(self, stream => stream.unsent())
    }

    fn untransmitted(&self) -> Option<u64> {
        either!(self, stream => stream.untransmitted())
    }

    fn limit_unsent(&mut self, bytes: Option<u32>) {
        either!(self, stream => stream.limit_unsent(bytes));
    }

    fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        either!(self, stream => stream.poll_hang_up(cx))
    }

    fn abort_on_drop(&mut self) {
        either!(self, stream => stream.abort_on_drop());
    }

    fn set_user_timeout(&mut self, after: Duration) {
        either!(self, stream => Leg::set_user_timeout(stream, after));
    }
}

impl AsyncRead for ClientLeg {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for ClientLeg {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        either!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}
