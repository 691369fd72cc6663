//! The task that drives one connection to the app, and what ends it beside hyper.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::counted::Flow;
use crate::suspension::{Deadline, within};

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

/// Drives `connection` to its end, or until its [`Hold`] is dropped armed. Once that is dropped otherwise, the app may
/// take nothing of what is left for `stall` at most, as far as `flow` can tell.
pub(super) async fn drive(
    connection: impl Future<Output = hyper::Result<()>>,
    mut aborted: oneshot::Receiver<()>,
    flow: Option<Arc<Flow>>,
    stall: Duration,
) {
    let mut connection = pin!(connection);
    let is_released = poll_fn(|cx| {
        if let Poll::Ready(result) = connection.as_mut().poll(cx) {
            log(result);
            return Poll::Ready(false);
        }
        Pin::new(&mut aborted).poll(cx).map(|aborted| aborted.is_err())
    });
    if !is_released.await {
        return;
    }
    loop {
        let blocked = flow.as_ref().and_then(|flow| flow.blocked_since());
        let deadline = Deadline::since(blocked.unwrap_or_else(Instant::now), stall);
        match within(deadline, connection.as_mut()).await {
            Ok(result) => return log(result),
            Err(_) if blocked.is_some() && flow.as_ref().and_then(|flow| flow.blocked_since()) == blocked => {
                tracing::debug!(?stall, "upstream.stalled");
                return;
            }
            Err(_) => {}
        }
    }
}

fn log(result: hyper::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(error = %error, "upstream.connection");
    }
}
