//! Idle connections to the app, kept for the next plain request of this worker.
//!
//! Apps close idle connections on their own (Node after 5 s), and a request in transit at that moment is lost.
//! Connections are therefore closed before the app does it, and a lost request is repeated where that is safe (see
//! [`super::exchange`]).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use hyper::HeaderMap;
use hyper::client::conn::http1::SendRequest;
use hyper::header::HeaderName;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::Upload;
use super::byte_counts::ByteCounts;
use super::dial::ClientAddresses;
use super::driver::AbortGuard;
use crate::descriptors::POOLED;
use crate::suspension::Expiry;

/// The longest time that a connection stays idle: below the 5 s of `server.keepAliveTimeout` in Node.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// The margin by which a connection is closed before the time announced in `Keep-Alive: timeout=N`.
const IDLE_MARGIN: Duration = Duration::from_secs(1);

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The idle connections of one worker.
#[derive(Debug)]
pub(super) struct Pool {
    idle: Mutex<VecDeque<Idle>>,
    /// Notified when a connection is added, so that the sweeper recomputes its deadline.
    filled: Notify,
    swept: Once,
    tracker: TaskTracker,
    closing: CancellationToken,
}

#[derive(Debug)]
struct Idle {
    connection: Box<PooledConnection>,
    until: Instant,
}

/// The sending half of a connection, and the flow of its bytes.
#[derive(Debug)]
pub(super) struct PooledConnection {
    pub(super) sender: SendRequest<Upload>,
    pub(super) flow: Arc<ByteCounts>,
    pub(super) hold: AbortGuard,
    /// The timer of the response timeout; set lazily, once for several requests.
    pub(super) clock: Option<Expiry>,
    /// The client named in its PROXY header; `None` without a header, or with one for the proxy's own connection.
    pub(super) client: Option<ClientAddresses>,
    /// Set if header names keep their case.
    pub(super) keeps_case: bool,
}

impl Pool {
    /// Creates a pool that drops its connections, and accepts no more, once `closing` is cancelled.
    pub(super) fn new(tracker: TaskTracker, closing: CancellationToken) -> Self {
        Self { idle: Mutex::default(), filled: Notify::new(), swept: Once::new(), tracker, closing }
    }

    /// Takes the most recently added connection for `client` that is still alive, since the app will close that one
    /// last. `keeps_case` has to match: to preserve the case of header names costs too much for requests without such
    /// names.
    pub(super) fn take(self: &Arc<Self>, client: Option<ClientAddresses>, keeps_case: bool) -> Option<Lease> {
        let now = Instant::now();
        let mut idle = self.idle();
        let fits = |idle: &Idle| idle.connection.client == client && idle.connection.keeps_case == keeps_case;
        // Without PROXY headers `client` is always `None`, so the last connection fits.
        while let Some(at) = idle.iter().rposition(fits) {
            let Some(Idle { connection, until }) = idle.remove(at) else { break };
            if until > now && connection.sender.is_ready() {
                return Some(Lease::new(connection, Arc::clone(self)));
            }
        }
        None
    }

    /// Starts the task that closes idle connections when their time has passed, and all of them when the pool closes.
    /// Later calls do nothing.
    pub(super) fn ensure_swept(self: &Arc<Self>) {
        self.swept.call_once(|| drop(self.tracker.spawn(Arc::clone(self).sweep())));
    }

    /// Closes the pool: drops its connections, and accepts no more.
    pub(super) fn close(&self) {
        self.closing.cancel();
    }

    fn put(&self, connection: Box<PooledConnection>, keep: Duration) {
        if keep.is_zero() || self.closing.is_cancelled() || !connection.sender.is_ready() || connection.flow.is_broken()
        {
            return;
        }
        let mut idle = self.idle();
        if idle.len() == POOLED {
            idle.pop_front();
        }
        idle.push_back(Idle { connection, until: Instant::now() + keep });
        drop(idle);
        self.filled.notify_one();
    }

    async fn sweep(self: Arc<Self>) {
        loop {
            let next = self.idle().iter().map(|idle| idle.until).min();
            let due = async {
                match next {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.closing.cancelled() => break,
                () = self.filled.notified() => {}
                () = due => {
                    let now = Instant::now();
                    self.idle().retain(|idle| idle.until > now && !idle.connection.sender.is_closed());
                }
            }
        }
        self.idle().clear();
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection of the pool, in use by one exchange. [`Lease::give_back`] returns it; dropping it closes the
/// connection, even while the app does not read the request.
#[derive(Debug)]
pub struct Lease {
    pub(super) connection: Box<PooledConnection>,
    pool: Arc<Pool>,
    keep: Duration,
}

impl Lease {
    pub(super) fn new(mut connection: Box<PooledConnection>, pool: Arc<Pool>) -> Self {
        connection.hold.arm();
        Self { connection, pool, keep: IDLE_MAX }
    }

    /// Takes the time for which the app keeps the connection open from the response's headers.
    pub(super) fn read_keep_alive(&mut self, response: &HeaderMap) {
        self.keep = keep_alive(response);
    }

    /// Returns the connection to the pool; called after the complete response.
    pub fn give_back(mut self) {
        self.connection.hold.disarm();
        self.pool.put(self.connection, self.keep);
    }
}

/// Returns the time that a connection may stay idle after a response with these headers.
fn keep_alive(response: &HeaderMap) -> Duration {
    let announced = response
        .get_all(KEEP_ALIVE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|parameter| parameter.trim().split_once('='))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))
        .find_map(|(_, seconds)| seconds.trim().trim_matches('"').parse().ok())
        .map(Duration::from_secs);
    announced.map_or(IDLE_MAX, |announced| announced.saturating_sub(IDLE_MARGIN).min(IDLE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn keep(value: &'static str) -> Duration {
        keep_alive(&HeaderMap::from_iter([("keep-alive".parse().unwrap(), HeaderValue::from_static(value))]))
    }

    #[test]
    fn the_apps_keep_alive_is_undercut_by_a_second_and_capped() {
        assert_eq!(keep_alive(&HeaderMap::new()), Duration::from_secs(4));
        assert_eq!(keep("timeout=5"), Duration::from_secs(4));
        assert_eq!(keep("timeout=3, max=100"), Duration::from_secs(2));
        assert_eq!(keep("max=7, Timeout = \"2\""), Duration::from_secs(1));
        assert_eq!(keep("timeout=1"), Duration::ZERO);
        assert_eq!(keep("timeout=0"), Duration::ZERO);
        assert_eq!(keep("timeout=600"), Duration::from_secs(4));
        assert_eq!(keep("timeout=soon"), Duration::from_secs(4));
    }
}
