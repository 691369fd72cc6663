//! A WebSocket's client leg over one HTTP/2 stream (RFC 8441 §5): FIN is `END_STREAM`, a reset is
//! `RST_STREAM` with CANCEL.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::{Reason, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::shared_io::StreamEntry;
use super::stream_receiver::{Inflow, ReadFailure};
use crate::relay::{Delivery, Leg, Partial};

/// The most that one write hands to the library: what a connection that takes no bytes holds for each stream.
const CHUNK: usize = 64 * 1024;

/// One stream of many on a connection.
///
/// Bytes handed to the library are not written yet: they may stand behind the client's window, other streams, or a
/// socket that takes nothing. They are flushed when the socket has taken all of them, or nothing keeps the
/// driver from writing them.
#[derive(Debug)]
pub(super) struct StreamLeg<C> {
    inflow: Inflow,
    outflow: SendStream<Bytes>,
    entry: StreamEntry<C>,
    end: End,
}

/// The way in which the stream is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With `END_STREAM`.
    Fin,
    /// With `RST_STREAM`, for that is how the other leg ended.
    Reset,
    /// `END_STREAM` has been handed to the library.
    Ending,
    /// It has ended.
    Over,
}

impl<C> StreamLeg<C> {
    pub(super) fn new(inflow: Inflow, outflow: SendStream<Bytes>, entry: StreamEntry<C>) -> Self {
        Self { inflow, outflow, entry, end: End::Fin }
    }
}

impl<C: Leg> StreamLeg<C> {
    /// Waits until `polled` of the entry is ready, or the stream is gone.
    fn poll_unless_reset(
        &mut self,
        cx: &mut Context<'_>,
        polled: fn(&StreamEntry<C>, &Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(result) = polled(&self.entry, cx) {
            return Poll::Ready(result);
        }
        // The library never writes what it holds for a stream that was reset.
        match ready!(self.outflow.poll_reset(cx)) {
            Ok(_) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Err(error) => Poll::Ready(Err(self.entry.lost(error))),
        }
    }
}

impl<C: Leg> Leg for StreamLeg<C> {
    fn delivery(&self) -> Option<Delivery> {
        self.entry.delivery()
    }

    fn await_answer(&self, since: Instant, window: Duration) {
        self.entry.await_answer(since.into(), window);
    }

    fn has_halves(&self) -> bool {
        true
    }

    fn written(&self) -> u64 {
        self.entry.written()
    }

    fn partial(&self) -> Option<Partial> {
        self.entry.partial()
    }

    fn read_ahead(&self) -> usize {
        self.inflow.held()
    }

    fn unsent(&self) -> usize {
        self.entry.unsent()
    }

    fn untransmitted(&self) -> Option<u64> {
        Some(self.entry.unsent() as u64)
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
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = ready!(this.inflow.poll_read(cx, buf));
        if buf.filled().len() > before {
            this.entry.record_received();
        }
        Poll::Ready(read.map_err(|failure| match failure {
            ReadFailure::Stream(error) => this.entry.lost(error),
            ReadFailure::Connection(error) => error,
        }))
    }
}

impl<C: Leg> AsyncWrite for StreamLeg<C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let bytes = &bytes[..bytes.len().min(CHUNK)];
        this.outflow.reserve_capacity(bytes.len());
        while this.outflow.capacity() == 0 {
            match ready!(this.entry.note_room(this.outflow.poll_capacity(cx))) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(this.entry.lost(error))),
                None => return Poll::Ready(Err(this.entry.gone())),
            }
        }
        let taken = bytes.len().min(this.outflow.capacity());
        this.entry.hand(taken);
        let data = Bytes::copy_from_slice(&bytes[..taken]);
        this.outflow.send_data(data, false).map_err(|error| this.entry.lost(error))?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_unless_reset(cx, StreamEntry::poll_free)
    }

    /// Ready once the end of the stream is on the wire, behind everything that was written: a reset may follow then
    /// without harm.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.end == End::Fin {
            this.entry.hand_end();
            this.outflow.send_data(Bytes::new(), true).map_err(|error| this.entry.lost(error))?;
            this.end = End::Ending;
        }
        if this.end != End::Over {
            ready!(this.poll_unless_reset(cx, StreamEntry::poll_flushed))?;
        }
        if this.end == End::Reset {
            this.outflow.send_reset(Reason::CANCEL);
        }
        this.end = End::Over;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
