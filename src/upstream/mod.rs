//! The app's side: dialling it, the pool of idle connections, and one exchange of a request for a response.

mod app;
mod body;
mod check;
mod counted;
mod dial;
mod driver;
mod exchange;
mod failure;
mod fault;
mod patience;
mod pool;
pub mod pulse;
mod source;
mod stream;
mod target;
mod trial;
mod unusable;

use std::sync::Arc;

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use app::{App, AppError, Apps};
pub use body::{Upload, UploadProgress};
pub use dial::{ClientAddresses, DialError, authority};
pub use failure::Failure;
pub use pool::Lease;
pub use stream::UpstreamStream;
pub use target::{RawTarget, is_refused, mask};
pub use unusable::Unusable;

use crate::config::Target;
use crate::telemetry::metrics::Metrics;
use dial::Dialer;
use pool::Pool;

/// Read and write buffer of one upstream connection at most; bodies stream through it in chunks.
const BUFFER: usize = 64 * 1024;

/// Tasks of a worker from which on its connections share the kernel's memory for TCP: there is one for each connection, and
/// requests have more.
pub(crate) const CROWD: usize = 16;

/// The app as one worker sees it.
#[derive(Debug)]
pub struct Upstream {
    app: Arc<App>,
    dialer: Dialer,
    pool: Arc<Pool>,
    metrics: Arc<Metrics>,
    tracker: TaskTracker,
    /// Lines that the head of a response may have.
    response_headers: usize,
    /// Closes the pool when nobody uses the app any more.
    _pool: DropGuard,
}

impl Upstream {
    /// One worker's way to `app`. Its connections are counted in `metrics` and driven by tasks of `tracker`; idle ones
    /// are closed once `draining` is cancelled, or this is dropped. The head of a response may have `response_headers` lines.
    pub fn new(
        app: &Arc<App>,
        response_headers: usize,
        metrics: Arc<Metrics>,
        tracker: TaskTracker,
        draining: &CancellationToken,
    ) -> Self {
        let closing = draining.child_token();
        Self {
            app: Arc::clone(app),
            dialer: app.dialer(),
            pool: Arc::new(Pool::new(tracker.clone(), closing.clone())),
            metrics,
            tracker,
            response_headers,
            _pool: closing.drop_guard(),
        }
    }

    /// No new request is for it any more: its idle connections are closed, and none becomes idle again.
    pub fn retire(&self) {
        self.pool.close();
    }

    /// Lines that the head of a response may have.
    pub fn response_headers(&self) -> usize {
        self.response_headers
    }

    /// What all workers know of it.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Whether its connections name the client for which they are made.
    pub fn is_told_addresses(&self) -> bool {
        self.app.settings().proxy_protocol
    }

    /// Where it listens.
    pub fn target(&self) -> &Target {
        &self.app.settings().target
    }
}
