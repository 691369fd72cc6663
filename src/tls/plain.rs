//! A client connection without TLS, on a port behind a proxy that terminates TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::stream::{CountingSocket, PlaintextBuffer};
use crate::connection_limits::ConnectionPermit;
use crate::http::Protocol;
use crate::relay::{Delivery, Leg};

/// The connection preface of HTTP/2 (RFC 9113 §3.4), which a client with prior knowledge sends first (§3.3).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client connection without TLS.
#[derive(Debug)]
pub struct PlainStream {
    socket: CountingSocket,
    /// The bytes read to detect the protocol, not yet returned to the reader.
    early: PlaintextBuffer,
}

impl PlainStream {
    /// Reads the first bytes of `tcp`, which distinguish HTTP/2 with prior knowledge from HTTP/1.1.
    ///
    /// # Errors
    ///
    /// The errors of the socket, and `UnexpectedEof` if the client closes before its first byte.
    pub async fn open(mut tcp: TcpStream) -> io::Result<(Self, Protocol)> {
        tcp.set_nodelay(true)?;
        let mut head = [0; PREFACE.len()];
        let mut length = 0;
        let protocol = loop {
            match tcp.read(&mut head[length..]).await? {
                0 if length == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                0 => break Protocol::H1,
                read => length += read,
            }
            match &head[..length] {
                PREFACE => break Protocol::H2,
                begun if PREFACE.starts_with(begun) => {}
                _ => break Protocol::H1,
            }
        };
        Ok((Self { socket: CountingSocket::new(tcp), early: PlaintextBuffer::of(&head[..length]) }, protocol))
    }

    /// Keeps `place`, the connection's permit among the connection limits, until its socket closes.
    pub fn hold(&mut self, place: ConnectionPermit) {
        self.socket.hold(place);
    }
}

impl Leg for PlainStream {
    fn delivery(&self) -> Option<Delivery> {
        self.socket.delivery()
    }

    fn written(&self) -> u64 {
        self.socket.written()
    }

    fn untransmitted(&self) -> Option<u64> {
        self.socket.untransmitted()
    }

    fn limit_unsent(&mut self, bytes: Option<u32>) {
        self.socket.limit_unsent(bytes);
    }

    fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while ready!(self.socket.poll_read_ready(cx)).is_ok() && !self.socket.is_read_closed() {
            self.socket.clear_readiness();
        }
        Poll::Ready(())
    }

    fn abort_on_drop(&mut self) {
        self.socket.abort_on_drop();
    }

    fn set_user_timeout(&mut self, after: Duration) {
        self.socket.set_user_timeout(after);
    }
}

impl AsyncRead for PlainStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            self.early.read_into(buf);
            return Poll::Ready(Ok(()));
        }
        self.socket.poll_read(cx, buf)
    }
}

impl AsyncWrite for PlainStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.socket.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.socket.poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;
    use tokio::time::timeout;

    use super::super::testing::{listen, within};
    use super::*;

    /// Returns the detected protocol of a client that sends `pieces` one by one, and all bytes read from the stream.
    async fn opened(pieces: &[&[u8]]) -> io::Result<(Protocol, Vec<u8>)> {
        let (listener, address) = listen().await;
        let client = async {
            let mut tcp = TcpStream::connect(address).await.expect("connect");
            tcp.set_nodelay(true).expect("a connected socket");
            for piece in pieces {
                tcp.write_all(piece).await.expect("write");
                tokio::task::yield_now().await;
            }
            tcp.shutdown().await.expect("shutdown");
            tcp
        };
        let server = async {
            let (tcp, _) = listener.accept().await.expect("accept");
            let (mut stream, protocol) = PlainStream::open(tcp).await?;
            let mut read = Vec::new();
            stream.read_to_end(&mut read).await?;
            assert_eq!(stream.written(), 0);
            Ok((protocol, read))
        };
        let (_client, opened) = within("both ends", async { tokio::join!(client, server) }).await;
        opened
    }

    #[tokio::test]
    async fn the_preface_tells_http_2_from_http_1_and_no_byte_is_lost() {
        let behind = [PREFACE, b"\0\0\0\x04\0\0\0\0\0"].concat();
        let long = [b"POST / HTTP/1.1\r\n".as_slice(), &b"x".repeat(100_000)].concat();
        for (pieces, protocol) in [
            (&[b"GET / HTTP/1.1\r\n\r\n".as_slice()][..], Protocol::H1),
            (&[&long], Protocol::H1),
            (&[b"P", b"UT / HTTP/1.1\r\n\r\n"], Protocol::H1),
            (&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r!"], Protocol::H1),
            (&[b"PRI"], Protocol::H1),
            (&[b"\x16\x03\x01"], Protocol::H1),
            (&[PREFACE], Protocol::H2),
            (&[&behind], Protocol::H2),
            (&[b"PRI * HT", b"TP/2.0\r\n\r\nSM", b"\r\n\r\n", b"more"], Protocol::H2),
        ] {
            let read = opened(pieces).await.expect("a connection");
            assert_eq!(read, (protocol, pieces.concat()), "{:?}", String::from_utf8_lossy(pieces[0]));
        }
        let error = opened(&[]).await.expect_err("nothing came");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn the_end_is_seen_behind_bytes_that_are_not_read() {
        for len in [1, 500, 50_000] {
            let (listener, address) = listen().await;
            let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
            let mut client = client.expect("connect");
            let sent = vec![b'x'; len];
            within("write", client.write_all(&sent)).await.expect("it is open");
            let (mut stream, _) = PlainStream::open(accepted.expect("accept").0).await.expect("a connection");
            let early = timeout(Duration::from_millis(100), poll_fn(|cx| stream.poll_hang_up(cx))).await;
            assert!(early.is_err(), "{len} bytes, and open");
            drop(client);
            for look in ["first", "second"] {
                within(&format!("{len} bytes, {look} look"), poll_fn(|cx| stream.poll_hang_up(cx))).await;
            }
            // All bytes sent before the end are still there.
            let mut read = Vec::new();
            within("read", stream.read_to_end(&mut read)).await.expect("an orderly end");
            assert!(read == sent, "{len} bytes sent, {} read", read.len());
        }
    }

    #[tokio::test]
    async fn what_is_written_is_counted_and_acknowledged() {
        let (listener, address) = listen().await;
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let mut client = client.expect("connect");
        client.write_all(b"G").await.expect("write");
        let (mut stream, _) = PlainStream::open(accepted.expect("accept").0).await.expect("a connection");
        stream.write_all(b"hello").await.expect("write");
        let words = [IoSlice::new(b" wide"), IoSlice::new(b" world")];
        let wrote = poll_fn(|cx| Pin::new(&mut stream).poll_write_vectored(cx, &words)).await;
        assert_eq!(wrote.expect("write"), 11);
        assert_eq!(stream.written(), 16);
        let mut read = [0; 16];
        within("the words", client.read_exact(&mut read)).await.expect("read");
        assert_eq!(&read, b"hello wide world");
        #[cfg(all(target_os = "linux", not(feature = "portable")))]
        assert!(stream.delivery().is_some_and(|delivery| delivery.acked <= 16), "{:?}", stream.delivery());
    }
}
