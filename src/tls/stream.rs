//! The decrypted byte stream of a client, over a socket that counts the bytes written.

use std::cell::Cell;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustls::server::UnbufferedServerConnection;
use rustls::{CommonState, ProtocolVersion};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::records::{MAX_PLAINTEXT, OVERHEAD, Records};
use crate::connection_limits::ConnectionPermit;
use crate::platform::{socket_options, socket_queues};
use crate::relay::{Delivery, Leg, Partial};

/// The size of a worker's buffer in bytes: enough for the largest read and for the largest write.
const SCRATCH: usize = MAX_PLAINTEXT + OVERHEAD;
/// The largest `ClientHello` that is accepted, in bytes with its record headers. Common ones have up to 2 KiB; without
/// this limit rustls would hold 64 KiB for a client that never completes one.
const HELLO_MAX: usize = 16 * 1024;
/// The smallest read from the socket, in bytes, even if the reader asks for less.
const LEAST_READ: usize = 4096;
/// The most bytes read ahead without a reader, in search of the end of the stream behind them.
const LOOK_AHEAD: usize = 1024;
const _: () = assert!(LOOK_AHEAD < socket_queues::UNREAD_COUNTED, "how many have arrived must be known that far");

/// A fatal `decode_error` alert in an unencrypted record (RFC 8446 §6.2).
const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];

thread_local! {
    /// The buffer in which this worker decrypts and encrypts records. A connection holds bytes of its own only while
    /// some are incomplete, unread or unsent.
    static BUFFER: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// A client connection over TLS.
///
/// The end of the connection without the peer's `close_notify` (RFC 8446 §6.1) is the error `UnexpectedEof`, because
/// bytes may have been cut off.
#[derive(Debug)]
pub struct ClientStream {
    socket: CountingSocket,
    records: Records,
    /// The time of the last read that ended inside a record.
    partial_at: Option<Instant>,
    /// Decrypted bytes not yet read.
    unread: PlaintextBuffer,
    outgoing: Outgoing,
}

/// Bytes not yet read; without an allocation while there are none.
#[derive(Debug, Default)]
pub(super) struct PlaintextBuffer {
    bytes: Vec<u8>,
    taken: usize,
}

/// Encrypted bytes not yet written to the socket.
#[derive(Debug, Default)]
struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
    /// Set while the socket accepts no more bytes. While unset, records of rustls' own (tickets, key updates) may be
    /// held back until the next write, to share its system call.
    blocked: bool,
    close_queued: bool,
}

impl ClientStream {
    pub(super) fn new(connection: UnbufferedServerConnection, tcp: TcpStream) -> Self {
        Self {
            socket: CountingSocket::new(tcp),
            records: Records::new(connection),
            partial_at: None,
            unread: PlaintextBuffer::default(),
            outgoing: Outgoing::default(),
        }
    }

    /// Drives the handshake to completion.
    ///
    /// # Errors
    ///
    /// The errors of the socket, unchanged, and `UnexpectedEof` if the client closes. An error of TLS is `InvalidData`
    /// around a [`rustls::Error`]; its alert has been sent where the socket accepted it.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.records.common().is_handshaking() {
            ready!(self.outgoing.poll_drain(&mut self.socket, cx))?;
            if ready!(self.poll_fill(cx, LEAST_READ, &mut |_| 0))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            if self.records.common().protocol_version().is_none() && self.records.waiting() > HELLO_MAX {
                let _ = self.outgoing.send(&mut self.socket, cx, &DECODE_ERROR);
                let error = rustls::Error::General(format!("a ClientHello of more than {HELLO_MAX} bytes"));
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        }
        match self.records.common().protocol_version() {
            // Only tickets are unsent, which may go with the first response.
            Some(ProtocolVersion::TLSv1_3) => Poll::Ready(Ok(())),
            // The server's Finished message is unsent, and the client waits for it.
            _ => self.outgoing.poll_drain(&mut self.socket, cx),
        }
    }

    /// Keeps `place`, the connection's permit among the connection limits, until its socket closes.
    pub fn hold(&mut self, place: ConnectionPermit) {
        self.socket.hold(place);
    }

    /// Returns the parameters negotiated by the handshake.
    pub(super) fn common(&self) -> &CommonState {
        self.records.common()
    }

    pub(super) fn into_tcp(self) -> TcpStream {
        self.socket.tcp
    }

    /// Reads from the socket once and decrypts the complete records. The plaintext goes to `take`, which returns the
    /// number of bytes it accepted; the remainder goes to `unread`. Returns the number of encrypted bytes read, 0 at
    /// the end of the connection.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
        take: &mut dyn FnMut(&[u8]) -> usize,
    ) -> Poll<io::Result<usize>> {
        with_buffer(|buffer| {
            let behind = self.records.waiting();
            let until = SCRATCH.min(behind + wanted.max(LEAST_READ));
            let mut space = ReadBuf::new(&mut buffer[behind..until]);
            ready!(self.socket.poll_read(cx, &mut space))?;
            let read = space.filled().len();
            if read == 0 {
                return Poll::Ready(Ok(0));
            }
            let unread = &mut self.unread;
            let decrypted = self.records.decrypt(&mut buffer[..behind + read], &mut self.outgoing.bytes, |plaintext| {
                let taken = if unread.is_empty() { take(plaintext) } else { 0 };
                unread.bytes.extend_from_slice(&plaintext[taken..]);
            });
            if let Err(error) = decrypted {
                // One attempt to send the alert; the error returned is the one of TLS.
                let _ = self.outgoing.poll_drain(&mut self.socket, cx);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
            if self.records.waiting() > 0 {
                self.partial_at = Some(tokio::time::Instant::now().into_std());
            }
            Poll::Ready(Ok(read))
        })
    }
}

impl Leg for ClientStream {
    fn delivery(&self) -> Option<Delivery> {
        self.socket.delivery()
    }

    fn written(&self) -> u64 {
        self.socket.written()
    }

    fn partial(&self) -> Option<Partial> {
        let len = self.records.waiting();
        self.partial_at.filter(|_| len > 0).map(|at| Partial { at, len })
    }

    fn unsent(&self) -> usize {
        // A record held back to share a system call (a ticket, at most) is not backlog of a slow client.
        if self.outgoing.blocked { self.outgoing.bytes.capacity() } else { 0 }
    }

    fn untransmitted(&self) -> Option<u64> {
        self.socket.untransmitted()
    }

    fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.records.peer_closed() {
            if ready!(self.socket.poll_read_ready(cx)).is_err() || self.socket.is_read_closed() {
                break;
            }
            // At most a few bytes can be a close_notify, or precede one; an upload is not read ahead.
            let arrived = socket_queues::unread(&self.socket.tcp).unwrap_or(u64::MAX);
            if self.unread.bytes.len() <= LOOK_AHEAD && arrived <= LOOK_AHEAD as u64 {
                match ready!(self.poll_fill(cx, LEAST_READ, &mut |_| 0)) {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            } else {
                self.socket.clear_readiness();
            }
        }
        Poll::Ready(())
    }

    fn abort_on_drop(&mut self) {
        self.socket.abort_on_drop();
    }

    fn set_user_timeout(&mut self, after: Duration) {
        self.socket.set_user_timeout(after);
    }

    fn limit_unsent(&mut self, bytes: Option<u32>) {
        self.socket.limit_unsent(bytes);
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if !this.unread.is_empty() {
            this.unread.read_into(buf);
            return Poll::Ready(Ok(()));
        }
        while buf.filled().len() == before && buf.remaining() > 0 && !this.records.peer_closed() {
            let wanted = buf.remaining();
            let mut take = |plaintext: &[u8]| {
                let taken = plaintext.len().min(buf.remaining());
                buf.put_slice(&plaintext[..taken]);
                taken
            };
            match this.poll_fill(cx, wanted, &mut take) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    // No write is imminent: records held back are sent now. An error returns at the next write.
                    let _ = this.outgoing.poll_drain(&mut this.socket, cx);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.outgoing.blocked {
            ready!(this.outgoing.poll_drain(&mut this.socket, cx))?;
        }
        let plaintext = &buf[..buf.len().min(MAX_PLAINTEXT)];
        with_buffer(|buffer| {
            let filled = this.records.encrypt(plaintext, buffer, &mut this.outgoing.bytes).map_err(io::Error::other)?;
            this.outgoing.send(&mut this.socket, cx, &buffer[..filled])?;
            Poll::Ready(Ok(plaintext.len()))
        })
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.outgoing.poll_drain(&mut this.socket, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.outgoing.close_queued {
            this.outgoing.close_queued = true;
            // A failure to queue the close_notify does not prevent the shutdown.
            let _ = this.records.close(&mut this.outgoing.bytes);
        }
        ready!(this.outgoing.poll_drain(&mut this.socket, cx))?;
        Pin::new(&mut this.socket.tcp).poll_shutdown(cx)
    }
}

impl PlaintextBuffer {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), taken: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }

    pub(super) fn read_into(&mut self, buf: &mut ReadBuf<'_>) {
        let taken = buf.remaining().min(self.bytes.len() - self.taken);
        buf.put_slice(&self.bytes[self.taken..self.taken + taken]);
        self.taken += taken;
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

impl Outgoing {
    /// Writes `bytes` after the unsent bytes, and keeps those that the socket does not accept.
    fn send(&mut self, socket: &mut CountingSocket, cx: &mut Context<'_>, mut bytes: &[u8]) -> io::Result<()> {
        if self.bytes.is_empty() {
            while !bytes.is_empty() {
                match socket.poll_write(cx, bytes) {
                    Poll::Ready(written) => bytes = &bytes[written?..],
                    Poll::Pending => break,
                }
            }
            if bytes.is_empty() {
                return Ok(());
            }
            self.blocked = true;
        }
        self.bytes.extend_from_slice(bytes);
        match self.poll_drain(socket, cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Writes the unsent bytes.
    fn poll_drain(&mut self, socket: &mut CountingSocket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.bytes.len() {
            match socket.poll_write(cx, &self.bytes[self.written..]) {
                Poll::Ready(written) => self.written += written?,
                Poll::Pending => {
                    self.blocked = true;
                    return Poll::Pending;
                }
            }
        }
        if !self.bytes.is_empty() {
            self.bytes = Vec::new();
            self.written = 0;
        }
        self.blocked = false;
        Poll::Ready(Ok(()))
    }
}

/// A TCP connection that counts the bytes written to it, so that the kernel's count of acknowledged bytes can be
/// compared.
#[derive(Debug)]
pub(super) struct CountingSocket {
    tcp: TcpStream,
    written: u64,
    /// Set while bytes are unread although the runtime's readiness was cleared.
    overlooked: bool,
    place: Option<ConnectionPermit>,
}

impl CountingSocket {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, written: 0, overlooked: false, place: None }
    }

    pub(super) fn hold(&mut self, place: ConnectionPermit) {
        self.place = Some(place);
    }

    pub(super) fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn delivery(&self) -> Option<Delivery> {
        let acked = socket_queues::bytes_acked(&self.tcp)?;
        // With TLS these bytes are encrypted and may be part of a record only; they still show that the client sends.
        let unread = socket_queues::unread(&self.tcp).is_some_and(|bytes| bytes > 0);
        Some(Delivery { acked, unread })
    }

    pub(super) fn untransmitted(&self) -> Option<u64> {
        socket_queues::untransmitted(&self.tcp)
    }

    pub(super) fn abort_on_drop(&self) {
        // Fails only on a socket that is no longer connected, which needs no abort.
        let _ = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
    }

    pub(super) fn set_user_timeout(&self, after: Duration) {
        socket_options::set_user_timeout(&self.tcp, after);
    }

    pub(super) fn limit_unsent(&self, bytes: Option<u32>) {
        socket_options::limit_unsent(&self.tcp, bytes);
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.overlooked {
            let room = space.initialize_unfilled();
            let wanted = room.len();
            match rustix::io::read(&self.tcp, room) {
                Ok(read) => {
                    // A read that fills less than the buffer has emptied the socket; the next event reaches the runtime
                    // again.
                    self.overlooked = read == wanted;
                    space.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::AGAIN) => self.overlooked = false,
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        Pin::new(&mut self.tcp).poll_read(cx, space)
    }

    pub(super) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_read_ready(cx)
    }

    /// Clears the runtime's readiness while bytes are unread, so that the next event wakes the reader: more bytes, or
    /// the end behind them. The unread bytes are later read directly from the socket.
    pub(super) fn clear_readiness(&mut self) {
        let _ = self.tcp.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        self.overlooked = true;
    }

    /// Returns whether the peer has closed its half of the connection (FIN) or reset it (RST), even with unread bytes
    /// before that. The runtime never clears this state once it was reported.
    pub(super) fn is_read_closed(&self) -> bool {
        let ready = pin!(self.tcp.ready(Interest::READABLE));
        match ready.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(ready)) => ready.is_read_closed(),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.tcp).poll_write(cx, bytes))?;
        self.count(written)
    }

    pub(super) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.tcp).poll_write_vectored(cx, bytes))?;
        self.count(written)
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn count(&mut self, written: usize) -> Poll<io::Result<usize>> {
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.written += written as u64;
        Poll::Ready(Ok(written))
    }
}

/// Passes this worker's buffer to `f`. It may contain bytes of earlier calls.
fn with_buffer<R>(f: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut buffer = BUFFER.take().unwrap_or_else(|| vec![0; SCRATCH].into_boxed_slice());
    let result = f(&mut buffer);
    BUFFER.set(Some(buffer));
    result
}

#[cfg(test)]
mod tests;
