//! The state that all workers share, and what each has for itself.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::admin;
use crate::connection_limits::ConnectionLimiter;
use crate::drain::Shutdown;
use crate::generation::CurrentGeneration;
use crate::redirect::Ports;
use crate::registry::Registry;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otel::Spans;

/// The time for the workers to release what remains after an abort.
pub(super) const ABORT_GRACE: Duration = Duration::from_secs(1);

/// The listeners of one worker.
pub(super) struct Listeners {
    pub(super) tls: StdListener,
    pub(super) redirect: Option<StdListener>,
}

/// The state shared by all workers.
pub(super) struct Shared {
    pub(super) current: Arc<CurrentGeneration>,
    pub(super) registry: Arc<Registry>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) spans: Spans,
    pub(super) gate: Arc<ConnectionLimiter>,
    pub(super) ports: Ports,
    pub(super) shutdown: Shutdown,
    pub(super) startup: Arc<admin::Startup>,
}

/// Returns a runtime for this thread.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
