//! Serving one connection.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Settings;
use crate::heartbeat::UpstreamPulse;
use crate::registry::Registry;
use crate::relay::Leg;
use crate::telemetry::metrics::Metrics;

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address.
    pub address: SocketAddr,
    /// What TLS agreed on.
    pub tls: Option<TlsFacts>,
}

/// What TLS agreed on.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// Key exchange group.
    pub group: Option<&'static str>,
    /// Server name that the client asked for.
    pub sni: Option<Box<str>>,
}

/// The http stage.
#[derive(Debug)]
pub struct Edge;

impl Edge {
    /// An edge of one worker.
    pub fn new(
        _settings: &Settings,
        _registry: Arc<Registry>,
        _pulse: Arc<UpstreamPulse>,
        _metrics: Arc<Metrics>,
        _tracker: TaskTracker,
        _draining: CancellationToken,
    ) -> Self {
        Self
    }
}

/// Serves one connection.
pub async fn serve<C: Leg + Send + 'static>(_stream: C, _peer: Peer, _edge: Arc<Edge>) {}
