//! The task that drives one connection to the app, and what ends it beside hyper.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::oneshot;

use super::counted::Flow;
use crate::suspension::{Deadline, Expiry};
use crate::telemetry::Chain;

/// What an exchange holds of its connection: dropped while it is armed, it closes the connection.
///
/// hyper closes a connection whose exchange is given up too, but writes what it has buffered first: to an app that takes
/// nothing, for ever.
#[derive(Debug)]
pub(super) struct Hold {
    abort: Option<oneshot::Sender<()>>,
    is_armed: bool,
}

impl Hold {
    /// An armed one, and what the driver is to be given.
    pub(super) fn new() -> (Self, oneshot::Receiver<()>) {
        let (abort, aborted) = oneshot::channel();
        (Self { abort: Some(abort), is_armed: true }, aborted)
    }

    /// An exchange begins.
    pub(super) fn arm(&mut self) {
        self.is_armed = true;
    }

    /// The exchange is over: the response has come in whole. The connection closes in order if nothing else uses it, once
    /// the app has taken the rest of the request.
    pub(super) fn disarm(&mut self) {
        self.is_armed = false;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.is_armed
            && let Some(abort) = self.abort.take()
        {
            // Fails only if the connection has ended already.
            let _ = abort.send(());
        }
    }
}

/// Drives `connection` to its end, or until its [`Hold`] is dropped armed.
///
/// Once the app has begun to answer, it may leave the rest of the request where it is, and say nothing more, for `stall`:
/// a client that has closed its connection behind an upload cannot be told from one that waits, until its upload is read.
/// Once the answer is in whole and the hold was dropped, the app may leave the rest for no longer than that either.
pub(super) async fn drive(
    connection: impl Future<Output = hyper::Result<()>>,
    mut aborted: oneshot::Receiver<()>,
    flow: Arc<Flow>,
    stall: Duration,
) {
    let mut connection = pin!(connection);
    let mut stuck = Stuck { flow, stall, clock: None };
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
        // The answer is in whole, and the app takes nothing more: hyper would hold the rest of the request for ever.
        if is_released && stuck.flow.is_broken() {
            return Poll::Ready(());
        }
        stuck.poll(cx)
    })
    .await;
}

/// As [`drive`] for a connection that carries an upgrade, whose request has no body that could be left.
pub(super) async fn drive_upgrade(connection: impl Future<Output = hyper::Result<()>>, aborted: oneshot::Receiver<()>) {
    match select(pin!(connection), aborted).await {
        Either::Left((result, _)) => log(result),
        Either::Right((Err(_), connection)) => log(connection.await),
        Either::Right((Ok(()), _)) => {}
    }
}

/// The time for which an app leaves a request where it is.
struct Stuck {
    flow: Arc<Flow>,
    stall: Duration,
    /// Runs while no write succeeds, with the bytes that had been read, and those that were not acknowledged, when it was
    /// set. A write succeeds only once a third of the kernel's buffer is free, which an app that reads slowly may take
    /// minutes to bring about.
    clock: Option<(Expiry, (u64, u64))>,
}

impl Stuck {
    /// Completes when that has taken too long; to be polled after the connection.
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
