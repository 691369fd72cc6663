//! Connections to the app: dialling, the pool of idle connections, exchanges of a request for a response, and the app's
//! liveness.

mod app;
mod body;
mod body_timeout;
mod byte_counts;
mod check;
mod dial;
mod driver;
mod exchange;
mod failure;
mod fault;
pub mod liveness_monitor;
mod pool;
mod source_address;
mod stream;
mod target;
mod trial;
mod unusable;

use std::sync::Arc;

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use app::{App, AppError, AppSet};
pub use body::{Upload, UploadProgress};
pub use dial::{ClientAddresses, DialError, authority};
pub use failure::RequestFailure;
pub use pool::Lease;
pub use stream::UpstreamStream;
pub use target::{RawTarget, is_refused, mask};
pub use unusable::Unusable;

use crate::config::UpstreamTarget;
use crate::telemetry::metrics::Metrics;
use dial::Dialer;
use pool::Pool;

/// The largest read or write buffer of one upstream connection, in bytes; bodies stream through it in chunks.
const BUFFER: usize = 64 * 1024;

/// The number of a worker's tasks above which its connections limit the kernel's receive buffers. Each connection has
/// one task, and requests have more.
pub(crate) const CROWD: usize = 16;

/// One worker's access to an app.
#[derive(Debug)]
pub struct Upstream {
    app: Arc<App>,
    dialer: Dialer,
    pool: Arc<Pool>,
    metrics: Arc<Metrics>,
    tracker: TaskTracker,
    /// The most lines in the head of a response.
    response_headers: usize,
    /// Closes the pool when this is dropped.
    _pool: DropGuard,
}

impl Upstream {
    /// Creates one worker's access to `app`. Its connections are counted in `metrics` and driven by tasks of `tracker`;
    /// idle ones are closed once `draining` is cancelled, or this is dropped. The head of a response may have
    /// `response_headers` lines.
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

    /// Closes the idle connections, and keeps none from now on: no new request uses this app.
    pub fn retire(&self) {
        self.pool.close();
    }

    /// Returns the most lines that the head of a response may have.
    pub fn response_headers(&self) -> usize {
        self.response_headers
    }

    /// Returns the state that all workers share.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Returns whether connections start with a PROXY header, and so belong to one client.
    pub fn sends_proxy_header(&self) -> bool {
        self.app.settings().proxy_protocol
    }

    /// Returns the address on which the app listens.
    pub fn target(&self) -> &UpstreamTarget {
        &self.app.settings().target
    }
}
