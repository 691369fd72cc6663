//! Opening a connection to the app: name resolution, each address in turn, TLS where it is spoken, and one deadline over
//! all of it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::Instant;

use super::source::Sources;
use super::{Upstream, UpstreamStream};
use crate::config::Target;
use crate::suspension::{self, Deadline};
use crate::tls::client::{Client, HandshakeError};

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
    /// The TLS handshake with it failed.
    #[error("no TLS with the upstream at {place}")]
    Tls {
        /// The authority that was dialled.
        place: Box<str>,
        /// Why.
        source: HandshakeError,
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
            Self::Tls { .. } => "upstream_tls",
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

impl Upstream {
    /// Opens a connection within `upstream.connect_timeout`, name resolution and TLS handshake included; it is counted.
    pub(super) async fn dial(&self) -> Result<UpstreamStream, DialError> {
        let begun = Instant::now();
        let result = self.connect_by(Deadline::after(self.app.settings().connect_timeout)).await;
        match &result {
            Ok(_) => self.metrics.upstream_connect(begun.elapsed()),
            Err(error) => self.metrics.upstream_connect_error(error.reason()),
        }
        result
    }

    async fn connect_by(&self, deadline: Deadline) -> Result<UpstreamStream, DialError> {
        let settings = self.app.settings();
        let connected = async {
            let (host, port) = match &settings.target {
                Target::Tcp { host, port } => (host, *port),
                Target::Unix(path) => return unix(path).await,
            };
            let tcp = tcp(host, port, deadline, &self.sources).await?;
            match (&self.app.tls, &settings.tls) {
                (Some(client), Some(tls)) => {
                    let name = tls.server_name.as_ref().unwrap_or(host);
                    // Boxed: a handshake is large, and most apps speak none.
                    Box::pin(encrypted(client, name, tcp, &settings.target)).await
                }
                _ => Ok(UpstreamStream::Tcp(tcp)),
            }
        };
        match suspension::within(deadline, pin!(connected)).await {
            Ok(result) => result,
            Err(_) => {
                let (place, limit) = (authority(&settings.target).into(), settings.connect_timeout);
                Err(DialError::Timeout { place, limit })
            }
        }
    }
}

async fn encrypted(client: &Client, name: &str, tcp: TcpStream, target: &Target) -> Result<UpstreamStream, DialError> {
    match client.handshake(name, tcp).await {
        Ok(stream) => Ok(UpstreamStream::Tls(Box::new(stream))),
        Err(source) => Err(DialError::Tls { place: authority(target).into(), source }),
    }
}

async fn unix(path: &Path) -> Result<UpstreamStream, DialError> {
    match UnixStream::connect(path).await {
        Ok(stream) => Ok(UpstreamStream::Unix(stream)),
        Err(source) => Err(DialError::Connect { place: path.display().to_string().into(), source }),
    }
}

async fn tcp(host: &str, port: u16, deadline: Deadline, sources: &Sources) -> Result<TcpStream, DialError> {
    let unresolved = |source| DialError::Resolve { host: host.into(), source };
    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(unresolved)?.collect();
    let mut failed = unresolved(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    for (tried, address) in addresses.iter().enumerate() {
        // Each address gets an equal share of the time that is left, so that a black hole in front (an IPv6
        // address without a route, say) leaves something for those behind it.
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = deadline.at().saturating_duration_since(Instant::now()) / left;
        let source = match suspension::timeout(share, pin!(sources.connect(*address))).await {
            Ok(Ok(stream)) => {
                // Small frames must not wait for the ACK of earlier ones. Without the option all works, later.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(source)) => source,
            Err(elapsed) => elapsed.into(),
        };
        failed = DialError::Connect { place: address.to_string().into(), source };
    }
    Err(failed)
}
