//! One leg of a session: a byte stream, and what the kernel knows of it.

use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::heartbeat::Delivery;

/// One leg of a session: a byte stream, and the kernel's knowledge of its delivery.
///
/// Sockets answer from the kernel; streams without a kernel behind them (tests, simulation) keep the defaults.
pub trait Leg: AsyncRead + AsyncWrite + Unpin {
    /// Returns how many written bytes were acknowledged; `None` where that is unknown. Called when a probe leaves and at its
    /// deadline, never for a single frame.
    fn delivery(&self) -> Option<Delivery> {
        None
    }

    /// Announces that an answer of the client is due within `window` from `since` on. Called before [`Self::delivery`] is, at
    /// the deadline; a multiplexed stream collects meanwhile whether the answer is under way.
    fn await_answer(&self, since: Instant, window: Duration) {
        let _ = (since, window);
    }

    /// Returns whether one direction can end without harm to the other, whatever the peer still sends. After a FIN of TCP the
    /// peer may be reset.
    fn has_halves(&self) -> bool {
        false
    }

    /// Returns the bytes handed to the socket so far, encryption overhead included, on the scale of [`Delivery::acked`].
    fn written(&self) -> u64 {
        0
    }

    /// Returns the bytes of the peer that have left the socket, but are not readable yet: the beginning of a TLS record or of
    /// an HTTP/2 DATA frame. They are signs of life, an unfinished frame, and held memory like any other. Called when a read
    /// returns Pending and at a deadline.
    fn partial(&self) -> Option<Partial> {
        None
    }

    /// Returns the bytes that the leg has read ahead for the relay; they count as held, like those that the relay keeps.
    fn read_ahead(&self) -> usize {
        0
    }

    /// Returns the memory in bytes of what the leg has accepted and could not hand to the socket yet; it counts as held, too.
    fn unsent(&self) -> usize {
        0
    }

    /// Returns the bytes handed to the kernel that the peer's kernel has not acknowledged; `None` where that is unknown. Called
    /// while a session ends, never for a single frame.
    fn unacked(&self) -> Option<u64> {
        self.delivery().map(|delivery| self.written().saturating_sub(delivery.acked))
    }

    /// Returns how many of those have never left this host; `None` where that is unknown. Called when a leg breaks or is reset.
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

    /// Reports that the other leg was reset: where a reset does no harm to the bytes before it, this leg ends with one, too.
    fn other_leg_reset(&mut self) {}
}

/// The beginning of a TLS record or of an HTTP/2 DATA frame whose end has not arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// The time at which its last byte arrived, on the runtime's clock.
    pub at: Instant,
    /// The number of its bytes that are held.
    pub len: usize,
}

/// The error of reads and writes on a leg whose connection, which carries others too, sent a PING that was not answered.
#[derive(Debug, thiserror::Error)]
#[error("the connection's own PING was not answered")]
pub struct Unanswered;

impl From<Unanswered> for io::Error {
    fn from(unanswered: Unanswered) -> Self {
        Self::new(io::ErrorKind::TimedOut, unanswered)
    }
}

/// Both legs after the upgrade, with the bytes that were read behind it.
#[derive(Debug)]
pub struct Legs<C, U> {
    /// The client leg.
    pub client: C,
    /// The bytes read from the client behind its upgrade request.
    pub client_early: Bytes,
    /// The upstream leg.
    pub upstream: U,
    /// The bytes read from the app behind its 101.
    pub upstream_early: Bytes,
}
