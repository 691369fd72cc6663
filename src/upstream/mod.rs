//! The app's side: dialling it, the pool of idle connections, and one exchange of a request for a response.

mod body;
mod dial;
mod exchange;
mod failure;
mod patience;
mod pool;
pub mod pulse;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use body::Upload;
pub use dial::{DialError, authority};
pub use failure::Failure;
pub use pool::Lease;
pub use stream::UpstreamStream;

use crate::config;
use crate::config::Target;
use pool::Pool;

/// Read and write buffer of one upstream connection at most; bodies stream through it in chunks.
const BUFFER: usize = 64 * 1024;

/// The app as one worker sees it.
#[derive(Debug)]
pub struct Upstream {
    target: Target,
    connect_timeout: Duration,
    response_timeout: Duration,
    pool: Arc<Pool>,
    tracker: TaskTracker,
}

impl Upstream {
    /// The app at `settings.target`. Its connections are driven by tasks of `tracker`; idle ones are closed once
    /// `draining` is cancelled.
    pub fn new(settings: &config::Upstream, tracker: TaskTracker, draining: CancellationToken) -> Self {
        Self {
            target: settings.target.clone(),
            connect_timeout: settings.connect_timeout,
            response_timeout: settings.response_timeout,
            pool: Arc::new(Pool::new(tracker.clone(), draining)),
            tracker,
        }
    }

    /// Where it listens.
    pub fn target(&self) -> &Target {
        &self.target
    }
}
