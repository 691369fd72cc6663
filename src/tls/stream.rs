//! The client's byte stream, decrypted, over a socket that knows how much went through it.

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
use crate::gate::Place;
use crate::platform::{socket_options, socket_queues};
use crate::relay::{Delivery, Leg, Partial};

/// Room for the largest read and for the largest write.
const SCRATCH: usize = MAX_PLAINTEXT + OVERHEAD;
/// The longest `ClientHello`, with its record headers. Real ones have 2 KiB; rustls would keep 64 KiB for whoever never
/// finishes one.
const HELLO_MAX: usize = 16 * 1024;
/// The least that is asked of the socket, however little the reader wants.
const LEAST_READ: usize = 4096;
/// Bytes that are read ahead of a reader that wants none, in search of the end behind them.
const LOOK_AHEAD: usize = 1024;
const _: () = assert!(LOOK_AHEAD < socket_queues::UNREAD_COUNTED, "how many have arrived must be known that far");

/// The alert, in a record that is not encrypted (RFC 8446 §6.2).
const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];

thread_local! {
    /// Records are decrypted and encrypted in this worker's buffer; a connection holds one only while something of it
    /// waits.
    static BUFFER: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// A client connection, encrypted on its outside.
///
/// The end of the stream without the peer's `close_notify` (RFC 8446 §6.1) is an `UnexpectedEof`, not an end: bytes
/// may have been cut off.
#[derive(Debug)]
pub struct ClientStream {
    socket: Socket,
    records: Records,
    /// When the last bytes of a record arrived whose end had not.
    partial_at: Option<Instant>,
    /// Decrypted bytes that nobody has read yet.
    unread: Unread,
    outgoing: Outgoing,
}

/// Decrypted bytes in waiting; without an allocation when there are none.
#[derive(Debug, Default)]
pub(super) struct Unread {
    bytes: Vec<u8>,
    taken: usize,
}

/// Encrypted bytes on their way out.
#[derive(Debug, Default)]
struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
    /// Whether the socket refused to take more. Until then what rustls itself has to say (tickets, key updates) may
    /// wait for the next write and share its system call.
    blocked: bool,
    close_queued: bool,
}

impl ClientStream {
    pub(super) fn new(connection: UnbufferedServerConnection, tcp: TcpStream) -> Self {
        Self {
            socket: Socket::new(tcp),
            records: Records::new(connection),
            partial_at: None,
            unread: Unread::default(),
            outgoing: Outgoing::default(),
        }
    }

    /// Drives the handshake to its end.
    ///
    /// # Errors
    ///
    /// Of the socket as they are; those of TLS hold a [`rustls::Error`], and the peer has been told where it can be.
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
            // What is left are tickets, which may wait for the first answer.
            Some(ProtocolVersion::TLSv1_3) => Poll::Ready(Ok(())),
            // Here it is our Finished, for which the client waits.
            _ => self.outgoing.poll_drain(&mut self.socket, cx),
        }
    }

    /// Keeps `place`, the connection's among all others, for as long as its socket is open.
    pub fn hold(&mut self, place: Place) {
        self.socket.hold(place);
    }

    /// What the handshake agreed on.
    pub(super) fn common(&self) -> &CommonState {
        self.records.common()
    }

    pub(super) fn into_tcp(self) -> TcpStream {
        self.socket.tcp
    }

    /// Reads from the socket once and decrypts what is whole: into `take`, which tells how much it took, and what it
    /// did not take into `unread`. Returns how many encrypted bytes were read; 0 at the end of the connection.
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
                // One attempt to tell the peer; what matters is the error.
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
        // What waits for company is a ticket at most, and nobody's fault.
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
            // A few bytes may be a close_notify, or stand before one; an upload is not read ahead.
            let arrived = socket_queues::unread(&self.socket.tcp).unwrap_or(u64::MAX);
            if self.unread.bytes.len() <= LOOK_AHEAD && arrived <= LOOK_AHEAD as u64 {
                match ready!(self.poll_fill(cx, LEAST_READ, &mut |_| 0)) {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            } else {
                self.socket.overlook();
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
                    // Nobody is about to write: what waits for company goes alone. A failure shows at the next write.
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
            // A connection that cannot say it is closed is closed all the same.
            let _ = this.records.close(&mut this.outgoing.bytes);
        }
        ready!(this.outgoing.poll_drain(&mut this.socket, cx))?;
        Pin::new(&mut this.socket.tcp).poll_shutdown(cx)
    }
}

impl Unread {
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
    /// Writes `bytes` behind what waits, and keeps what the socket does not take.
    fn send(&mut self, socket: &mut Socket, cx: &mut Context<'_>, mut bytes: &[u8]) -> io::Result<()> {
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

    /// Writes what waits.
    fn poll_drain(&mut self, socket: &mut Socket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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

/// A TCP connection that counts the bytes written to it: the scale on which the kernel counts acknowledgements.
#[derive(Debug)]
pub(super) struct Socket {
    tcp: TcpStream,
    written: u64,
    /// Set while unread bytes wait of which the runtime was made to forget.
    overlooked: bool,
    place: Option<Place>,
}

impl Socket {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, written: 0, overlooked: false, place: None }
    }

    pub(super) fn hold(&mut self, place: Place) {
        self.place = Some(place);
    }

    pub(super) fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn delivery(&self) -> Option<Delivery> {
        let acked = socket_queues::bytes_acked(&self.tcp)?;
        // Of TLS these are encrypted bytes: whether a whole record is among them is not known, but the client did send.
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
                    // A read that fills less has emptied the socket, and the next event is one for the runtime.
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

    /// Makes the runtime forget that bytes are unread, so that the next event wakes the reader: more bytes, or the end
    /// behind them. They are read past the runtime later.
    pub(super) fn overlook(&mut self) {
        let _ = self.tcp.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        self.overlooked = true;
    }

    /// Returns whether the peer has closed its half (FIN) or the connection is broken (RST), whatever is unread before
    /// that. The runtime never forgets it, once it was reported.
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

/// Lends this worker's buffer to `f`. What is in it is left over from others.
fn with_buffer<R>(f: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut buffer = BUFFER.take().unwrap_or_else(|| vec![0; SCRATCH].into_boxed_slice());
    let result = f(&mut buffer);
    BUFFER.set(Some(buffer));
    result
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
