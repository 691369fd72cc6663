//! The task that drives one app connection, and the conditions other than hyper's that end it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::oneshot;

use super::byte_counts::ByteCounts;
use crate::suspension::{Deadline, Expiry};
use crate::telemetry::Chain;

/// The guard of an exchange on its connection: dropped while armed, it closes the connection.
///
/// hyper also closes the connection of an abandoned exchange, but only after writing its buffer, which never ends if
/// the app reads nothing.
#[derive(Debug)]
pub(super) struct AbortGuard {
    abort: Option<oneshot::Sender<()>>,
    is_armed: bool,
}

impl AbortGuard {
    /// Creates an armed guard, and the receiver for the driver.
    pub(super) fn new() -> (Self, oneshot::Receiver<()>) {
        let (abort, aborted) = oneshot::channel();
        (Self { abort: Some(abort), is_armed: true }, aborted)
    }

    /// Arms the guard at the start of an exchange.
    pub(super) fn arm(&mut self) {
        self.is_armed = true;
    }

    /// Disarms the guard after the complete response. The connection then closes in order, if no other exchange uses
    /// it, once the app has accepted the rest of the request.
    pub(super) fn disarm(&mut self) {
        self.is_armed = false;
    }
}

impl Drop for AbortGuard {
    fn drop(&mut self) {
        if self.is_armed
            && let Some(abort) = self.abort.take()
        {
            // Fails only if the connection has already ended.
            let _ = abort.send(());
        }
    }
}

/// Drives `connection` until it ends, or until its [`AbortGuard`] is dropped armed.
///
/// Once the app has begun to respond, it may leave the rest of the request unread, and send nothing more, for `stall`:
/// a client that closed its connection after an upload cannot be distinguished from one that waits until the upload has
/// been read. The same limit applies after the complete response, once the guard was dropped.
pub(super) async fn drive(
    connection: impl Future<Output = hyper::Result<()>>,
    mut aborted: oneshot::Receiver<()>,
    flow: Arc<ByteCounts>,
    stall: Duration,
) {
    let mut connection = pin!(connection);
    let mut stuck = StallDetector { flow, stall, clock: None };
    let mut is_released = false;
    poll_fn(|cx| {
        if let Poll::Ready(result) = connection.as_mut().poll(cx) {
            log(result);
            return Poll::Ready(());
        }
        if !is_released {
            match Pin::new(&mut aborted).poll(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(()),
                Poll::Ready(Err(_)) => is_released = true,
                Poll::Pending => {}
            }
        }
        // The response is complete, and the app reads nothing more: hyper would hold the rest of the request forever.
        if is_released && stuck.flow.is_broken() {
            return Poll::Ready(());
        }
        stuck.poll(cx)
    })
    .await;
}

/// Drives a connection that carries an upgrade, as [`drive`] does; its request has no body that could stay unread.
pub(super) async fn drive_upgrade(connection: impl Future<Output = hyper::Result<()>>, aborted: oneshot::Receiver<()>) {
    match select(pin!(connection), aborted).await {
        Either::Left((result, _)) => log(result),
        Either::Right((Err(_), connection)) => log(connection.await),
        Either::Right((Ok(()), _)) => {}
    }
}

/// The detection of an app that leaves a request unread.
struct StallDetector {
    flow: Arc<ByteCounts>,
    stall: Duration,
    /// The timer that runs while no write succeeds, with the numbers of bytes read and unacknowledged when it was set.
    /// A write succeeds only once a third of the kernel's buffer is free, which may take minutes with an app that reads
    /// slowly.
    clock: Option<(Expiry, (u64, u64))>,
}

impl StallDetector {
    /// Completes when the limit is exceeded. Polled after the connection.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(blocked) = self.flow.blocked_since() else {
            self.clock = None;
            return Poll::Pending;
        };
        loop {
            let moved = (self.flow.read(), self.flow.unacked());
            let (clock, moved_before) =
                self.clock.get_or_insert_with(|| (Expiry::new(Deadline::since(blocked, self.stall)), moved));
            ready!(Pin::new(&mut *clock).poll(cx));
            if *moved_before == moved && self.flow.is_answered() {
                tracing::debug!(stall = ?self.stall, "upstream.stalled");
                return Poll::Ready(());
            }
            *moved_before = moved;
            clock.reset(Deadline::after(self.stall));
        }
    }
}

fn log(result: hyper::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(error = %Chain(&error), "upstream.connection");
    }
}
