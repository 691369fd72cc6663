//! One leg of a session: a byte stream, and what the kernel knows of it.

use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::heartbeat::Delivery;

/// One leg of a session: a byte stream, and what can be learnt about how far its bytes have come.
///
/// Sockets answer from the kernel; streams without a kernel behind them (tests, simulation) keep the defaults.
pub trait Leg: AsyncRead + AsyncWrite + Unpin {
    /// How far written bytes have come, or `None` where nobody knows. Asked when a probe leaves and at its deadline,
    /// never on the way of a frame.
    fn delivery(&self) -> Option<Delivery> {
        None
    }

    /// The client is to answer within `window` from `since` on. Reported before [`Self::delivery`] is asked at the deadline
    /// of that; a stream among others gathers meanwhile what shows whether the answer is on its way.
    fn await_answer(&self, since: Instant, window: Duration) {
        let _ = (since, window);
    }

    /// Returns whether the end of the one direction costs the other nothing, whatever the peer still sends. Behind a FIN of
    /// TCP the peer may be reset.
    fn has_halves(&self) -> bool {
        false
    }

    /// Bytes handed to the socket so far, encryption overhead included, on the scale of [`Delivery::acked`].
    fn written(&self) -> u64 {
        0
    }

    /// Bytes of the peer that have left the socket, but are not readable yet: the beginning of a TLS record or of an
    /// HTTP/2 DATA frame. They are signs of life, an unfinished frame, and held memory like any other. Asked when a read
    /// returns Pending and at a deadline.
    fn partial(&self) -> Option<Partial> {
        None
    }

    /// Bytes that the leg has read ahead and keeps for the relay; counted as held, like what the relay keeps itself.
    fn read_ahead(&self) -> usize {
        0
    }

    /// Memory that is taken by bytes which the leg has accepted and could not hand to the socket yet; counted as held
    /// likewise.
    fn unsent(&self) -> usize {
        0
    }

    /// Bytes that were handed to the kernel and that the peer's kernel has not acknowledged; `None` where that cannot be
    /// told. Asked while a session ends, never on the way of a frame.
    fn unacked(&self) -> Option<u64> {
        self.delivery().map(|delivery| self.written().saturating_sub(delivery.acked))
    }

    /// Of those, bytes that have not left this host even once; `None` where that cannot be told. Asked when a leg breaks or
    /// is reset.
    fn untransmitted(&self) -> Option<u64> {
        None
    }

    /// Makes the connection fail once written bytes have gone unacknowledged for `after` (`TCP_USER_TIMEOUT`, RFC 5482); zero
    /// is the system's own time, a quarter of an hour.
    fn set_user_timeout(&mut self, after: Duration) {
        let _ = after;
    }

    /// Completes once the peer has closed its half or the connection is broken, even while bytes before that end are
    /// unread: for a reader that wants none of them for now. The waker is that of reads; a stream without a kernel behind it
    /// never completes.
    fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Pending
    }

    /// Limits the bytes that the kernel takes and may not send yet (`TCP_NOTSENT_LOWAT`); `None` is the system's own limit,
    /// some megabytes.
    fn limit_unsent(&mut self, bytes: Option<u32>) {
        let _ = bytes;
    }

    /// Makes the coming drop abort the connection (RST) rather than end it (FIN).
    fn abort_on_drop(&mut self) {}

    /// The other leg was reset: where a reset can be told without harm to what goes before it, the end is one.
    fn other_leg_reset(&mut self) {}
}

/// The beginning of a TLS record or of an HTTP/2 DATA frame whose end has not arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// When the last byte of it arrived, on the runtime's clock.
    pub at: Instant,
    /// How many bytes of it are held.
    pub len: usize,
}

/// What reads and writes fail with on a leg whose connection, which carries others too, has asked its peer for a sign
/// of life in vain.
#[derive(Debug, thiserror::Error)]
#[error("the connection's own PING was not answered")]
pub struct Unanswered;

impl From<Unanswered> for io::Error {
    fn from(unanswered: Unanswered) -> Self {
        Self::new(io::ErrorKind::TimedOut, unanswered)
    }
}

/// Both legs as the upgrade leaves them, with the bytes that were read too early.
#[derive(Debug)]
pub struct Legs<C, U> {
    /// The client leg.
    pub client: C,
    /// Read from the client behind its upgrade request.
    pub client_early: Bytes,
    /// The upstream leg.
    pub upstream: U,
    /// The bytes read from the app behind its 101.
    pub upstream_early: Bytes,
}
