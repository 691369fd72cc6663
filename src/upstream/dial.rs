//! Opening a connection to the app: name resolution, each address in turn, one deadline over all of it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::UpstreamStream;
use crate::config::Target;

/// Why the app could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Its name did not resolve.
    #[error("cannot resolve the upstream's name {host:?}")]
    Resolve {
        /// The name.
        host: Box<str>,
        /// What the resolver said.
        source: io::Error,
    },
    /// It refused, or no way led there.
    #[error("cannot connect to the upstream at {place}")]
    Connect {
        /// The last address that was tried.
        place: Box<str>,
        /// What the kernel said.
        source: io::Error,
    },
    /// It did not answer in time.
    #[error("the upstream at {place} did not accept a connection within {limit:?}")]
    Timeout {
        /// The authority that was dialled.
        place: Box<str>,
        /// `upstream.connect_timeout`.
        limit: Duration,
    },
}

impl DialError {
    /// The word for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Resolve { .. } => "resolve",
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => "refused",
            Self::Connect { .. } => "unreachable",
            Self::Timeout { .. } => "connect_timeout",
        }
    }
}

/// The authority of `target` as a Host header names it (RFC 9110 §4.2); `localhost` for a unix socket.
pub fn authority(target: &Target) -> String {
    match target {
        Target::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        Target::Tcp { host, port } => format!("{host}:{port}"),
        Target::Unix(_) => "localhost".to_owned(),
    }
}

/// Connects to `target` within `limit`, name resolution included.
pub(super) async fn dial(target: &Target, limit: Duration) -> Result<UpstreamStream, DialError> {
    let deadline = Instant::now() + limit;
    let connected = async {
        match target {
            Target::Tcp { host, port } => tcp(host, *port, deadline).await,
            Target::Unix(path) => unix(path).await,
        }
    };
    match timeout_at(deadline, connected).await {
        Ok(result) => result,
        Err(_) => Err(DialError::Timeout { place: authority(target).into(), limit }),
    }
}

async fn unix(path: &Path) -> Result<UpstreamStream, DialError> {
    match UnixStream::connect(path).await {
        Ok(stream) => Ok(UpstreamStream::Unix(stream)),
        Err(source) => Err(DialError::Connect { place: path.display().to_string().into(), source }),
    }
}

async fn tcp(host: &str, port: u16, deadline: Instant) -> Result<UpstreamStream, DialError> {
    let unresolved = |source| DialError::Resolve { host: host.into(), source };
    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(unresolved)?.collect();
    let mut failed = unresolved(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    for (tried, address) in addresses.iter().enumerate() {
        // Each address gets an equal share of the time that is left, so that a black hole in front (an IPv6
        // address without a route, say) leaves something for those behind it.
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        let source = match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Small frames must not wait for the ACK of earlier ones. Without the option all works, later.
                let _ = stream.set_nodelay(true);
                return Ok(UpstreamStream::Tcp(stream));
            }
            Ok(Err(source)) => source,
            Err(elapsed) => elapsed.into(),
        };
        failed = DialError::Connect { place: address.to_string().into(), source };
    }
    Err(failed)
}
