//! A WebSocket's client leg over one HTTP/2 stream (RFC 8441 §5): FIN is END_STREAM, a reset is RST_STREAM(CANCEL).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::inflow::{Inflow, lost};
use super::wire::Wire;
use crate::relay::{Delivery, Leg};

/// The most that one write hands to the library: what a connection that takes no bytes holds for each stream.
const CHUNK: usize = 64 * 1024;

/// Length of a frame's header (RFC 9113 §4.1), and what encryption adds to a record.
const OVERHEAD: usize = 9 + 22;

/// One stream of many on a connection.
#[derive(Debug)]
pub(super) struct StreamLeg<C> {
    inflow: Inflow,
    outflow: SendStream<Bytes>,
    wire: Wire<C>,
    /// Whether the client's window for this stream is shut, so that the connection's progress says nothing of it.
    is_shut: bool,
    end: End,
}

/// How the stream is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With END_STREAM.
    Fin,
    /// With RST_STREAM(CANCEL), for that is how the other leg ended.
    Reset,
    /// It has ended.
    Over,
}

impl<C> StreamLeg<C> {
    pub(super) fn new(inflow: Inflow, outflow: SendStream<Bytes>, wire: Wire<C>) -> Self {
        Self { inflow, outflow, wire, is_shut: false, end: End::Fin }
    }
}

impl<C: Leg> Leg for StreamLeg<C> {
    fn delivery(&self) -> Option<Delivery> {
        if self.is_shut { None } else { self.wire.delivery() }
    }

    fn written(&self) -> u64 {
        self.wire.written()
    }

    fn set_user_timeout(&mut self, after: Duration) {
        // The connection belongs to all of its streams; its own deadline is set when it begins.
        let _ = after;
    }

    fn abort_on_drop(&mut self) {
        self.outflow.send_reset(Reason::CANCEL);
        self.end = End::Over;
    }

    fn other_leg_reset(&mut self) {
        if self.end == End::Fin {
            self.end = End::Reset;
        }
    }
}

impl<C: Leg> AsyncRead for StreamLeg<C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.inflow.poll_read(cx, buf)
    }
}

impl<C: Leg> AsyncWrite for StreamLeg<C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let bytes = &bytes[..bytes.len().min(CHUNK)];
        this.outflow.reserve_capacity(bytes.len());
        while this.outflow.capacity() == 0 {
            let polled = this.outflow.poll_capacity(cx);
            this.is_shut = polled.is_pending() && this.wire.poll_free(cx).is_ready();
            match ready!(polled) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(lost(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let taken = bytes.len().min(this.outflow.capacity());
        let data = Bytes::copy_from_slice(&bytes[..taken]);
        this.outflow.send_data(data, false).map_err(lost)?;
        this.wire.queue(taken + OVERHEAD);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_free(cx).map(Ok)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.end {
            End::Fin => this.outflow.send_data(Bytes::new(), true).map_err(lost)?,
            End::Reset => {
                // A reset overtakes what the stream has still to say.
                ready!(this.wire.poll_settled(cx));
                this.outflow.send_reset(Reason::CANCEL);
            }
            End::Over => {}
        }
        this.end = End::Over;
        Poll::Ready(Ok(()))
    }
}
