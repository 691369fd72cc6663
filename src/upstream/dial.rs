//! Connections to the app: name resolution, each address in turn, TLS where configured, under one deadline.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::Instant;

use super::fault::{self, ConnectFault, no_descriptor};
use super::source_address::Sources;
use super::stream::{UpstreamSocket, UpstreamStream};
use crate::config::{self, Pin, UpstreamTarget};
use crate::heartbeat::ConnectOutcome;
use crate::proxy_protocol;
use crate::suspension::{self, Deadline};
use crate::tls::client::{self, ConnectorError, TlsClient, Trust};

/// The client connection for which an app connection is opened, as its PROXY header states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddresses {
    /// The client's address; its port is 0 if a proxy in front named the client without one.
    pub client: SocketAddr,
    /// The proxy's address to which the client connected.
    pub local: SocketAddr,
}

/// The error of a failed connect to the app.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name did not resolve.
    #[error("cannot resolve the upstream's name {host:?}")]
    Resolve {
        /// The name.
        host: Box<str>,
        /// The resolver's error.
        source: io::Error,
    },
    /// The app refused the connection, or is unreachable.
    #[error("cannot connect to the upstream at {place}")]
    Connect {
        /// The last address that was tried.
        place: Box<str>,
        /// The operating system's error.
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error("no TLS with the upstream at {place}")]
    Tls {
        /// The authority that was dialled.
        place: Box<str>,
        /// The error of the handshake.
        source: ConnectorError,
    },
    /// The deadline passed.
    #[error("the upstream at {place} did not accept a connection within {limit:?}")]
    Timeout {
        /// The authority that was dialled.
        place: Box<str>,
        /// The value of `upstream.connect_timeout`.
        limit: Duration,
    },
}

impl DialError {
    /// Returns the reason label of log lines and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Resolve { .. } => "resolve",
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => "refused",
            Self::Connect { .. } => "unreachable",
            Self::Tls { .. } => "upstream_tls",
            Self::Timeout { .. } => "connect_timeout",
        }
    }

    /// Returns the outcome as evidence about the app; `None` if the proxy itself had no port, descriptor or memory
    /// left.
    pub(super) fn outcome(&self) -> Option<ConnectOutcome> {
        match self {
            Self::Resolve { source, .. } | Self::Connect { source, .. } => match fault::of(source) {
                ConnectFault::NoWay | ConnectFault::Refused => Some(ConnectOutcome::Refused),
                ConnectFault::TimedOut => Some(ConnectOutcome::Failed),
                ConnectFault::Own => None,
            },
            Self::Tls { .. } | Self::Timeout { .. } => Some(ConnectOutcome::Failed),
        }
    }
}

/// Returns the authority of `target` for the Host field (RFC 9110 §4.2): IPv6 addresses in brackets, `localhost` for a
/// unix socket.
pub fn authority(target: &UpstreamTarget) -> String {
    match target {
        UpstreamTarget::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        UpstreamTarget::Tcp { host, port } => format!("{host}:{port}"),
        UpstreamTarget::Unix(_) => "localhost".to_owned(),
    }
}

/// The parameters of connections to an app: its settings, its TLS client and the source addresses.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) settings: Arc<config::UpstreamSettings>,
    pub(super) tls: Option<TlsClient>,
    sources: Sources,
}

impl Dialer {
    /// Creates a dialer for the app of `settings`, with the client `tls` for apps with TLS.
    pub(super) fn new(settings: &Arc<config::UpstreamSettings>, tls: Option<&TlsClient>) -> Self {
        let sources = Sources::new(settings.source_addresses.clone());
        Self { settings: Arc::clone(settings), tls: tls.cloned(), sources }
    }

    /// Opens a connection within `upstream.connect_timeout`, name resolution and TLS handshake included. A PROXY
    /// header, if configured, names `client`, or states that the connection is the proxy's own.
    pub(super) async fn dial(&self, client: Option<ClientAddresses>) -> Result<UpstreamStream, DialError> {
        let deadline = Deadline::after(self.settings.connect_timeout);
        let settings = &self.settings;
        let connected = async {
            let (host, port) = match &settings.target {
                UpstreamTarget::Tcp { host, port } => (host, *port),
                UpstreamTarget::Unix(path) => {
                    let mut stream = unix(path).await?;
                    self.write_proxy_header(client, &mut stream).await?;
                    return Ok(UpstreamSocket::Unix(stream).into());
                }
            };
            let mut tcp = tcp(host, port, deadline, &self.sources).await?;
            self.write_proxy_header(client, &mut tcp).await?;
            match (&self.tls, &settings.tls) {
                (Some(client), Some(tls)) => {
                    let name = tls.server_name.as_ref().unwrap_or(host);
                    // Boxed: the future of a handshake is large, and most apps use no TLS.
                    Box::pin(encrypted(client, name, tcp, &settings.target)).await
                }
                _ => Ok(UpstreamSocket::Tcp(tcp).into()),
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

impl Dialer {
    /// Writes the PROXY header, if it is configured for the app.
    async fn write_proxy_header(
        &self,
        client: Option<ClientAddresses>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), DialError> {
        if !self.settings.proxy_protocol {
            return Ok(());
        }
        let header = proxy_protocol::v2(client.map(|ClientAddresses { client, local }| (client, local)));
        let written = stream.write_all(&header).await;
        written.map_err(|source| DialError::Connect { place: authority(&self.settings.target).into(), source })
    }

    /// Returns the pin of the app's public key, trusted or not; `None` if no handshake succeeds.
    pub(super) async fn shown_pin(&self) -> Option<Pin> {
        let client = TlsClient::new(&Trust::AnyCertificate, None).ok()?;
        match Self::new(&self.settings, Some(&client)).dial(None).await {
            Ok(UpstreamStream { socket: UpstreamSocket::Tls(stream), .. }) => client::pin_of(&stream),
            _ => None,
        }
    }
}

async fn encrypted(
    client: &TlsClient,
    name: &str,
    tcp: TcpStream,
    target: &UpstreamTarget,
) -> Result<UpstreamStream, DialError> {
    match client.handshake(name, tcp).await {
        Ok(stream) => Ok(UpstreamSocket::Tls(Box::new(stream)).into()),
        Err(source) => Err(DialError::Tls { place: authority(target).into(), source }),
    }
}

async fn unix(path: &Path) -> Result<UnixStream, DialError> {
    let place = || path.display().to_string().into();
    UnixStream::connect(path).await.map_err(|source| DialError::Connect { place: place(), source })
}

async fn tcp(host: &str, port: u16, deadline: Deadline, sources: &Sources) -> Result<TcpStream, DialError> {
    let unresolved = |source| DialError::Resolve { host: host.into(), source };
    let resolved = lookup_host((host, port)).await;
    // A resolver that cannot open a socket reports a name that does not resolve.
    let resolved = resolved.map_err(|source| unresolved(no_descriptor().unwrap_or(source)))?;
    let addresses: Vec<SocketAddr> = resolved.collect();
    let mut failed: Option<(ConnectFault, SocketAddr, io::Error)> = None;
    for (tried, address) in addresses.iter().enumerate() {
        // Each address gets an equal share of the remaining time, so that an unreachable first one (an IPv6 address
        // without a route, for instance) leaves time for the others.
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = deadline.at().saturating_duration_since(Instant::now()) / left;
        let source = match suspension::timeout(share, pin!(sources.connect(*address))).await {
            Ok(Ok(stream)) => {
                // TCP_NODELAY: small frames do not wait for the acknowledgement of earlier ones. Without it they are
                // only delayed.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(source)) => source,
            Err(elapsed) => elapsed.into(),
        };
        // Among several addresses, the failure that is the weakest evidence against the app counts.
        let fault = fault::classify_connect(&source, *address);
        if failed.as_ref().is_none_or(|(least, ..)| *least <= fault) {
            failed = Some((fault, *address, source));
        }
    }
    let Some((_, address, source)) = failed else {
        return Err(unresolved(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
    };
    Err(DialError::Connect { place: address.to_string().into(), source })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::super::App;
    use super::*;
    use crate::upstream::Upstream;

    /// Dials `address` from `sources`; returns whether the app was recorded as refusing, and the error.
    async fn refused(address: SocketAddr, sources: Vec<IpAddr>) -> (bool, Option<DialError>) {
        let target = UpstreamTarget::Tcp { host: address.ip().to_string().into(), port: address.port() };
        let settings = config::UpstreamSettings { source_addresses: sources, ..config::UpstreamSettings::at(target) };
        let app =
            Arc::new(App::open(&Arc::new(settings), Instant::now().into_std()).expect("there is nothing to read"));
        let upstream = Upstream::new(&app, 100, Arc::default(), TaskTracker::new(), &CancellationToken::new());
        let error = upstream.dial(None).await.err();
        (app.liveness().record_connect(ConnectOutcome::Opened), error)
    }

    #[tokio::test]
    async fn s58_a_connect_without_a_port_left_says_nothing_about_the_app() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("an address");
        let (counted, error) = refused(address, Vec::new()).await;
        assert!(!counted && error.is_none(), "{error:?}");
        // No connection can originate from this address (RFC 5737); the kernel returns the same error when every port
        // is in use.
        let (counted, error) = refused(address, vec!["192.0.2.1".parse().expect("an address")]).await;
        assert!(!counted && error.is_some_and(|error| error.outcome().is_none()));
        drop(listener);
        let (counted, error) = refused(address, Vec::new()).await;
        assert!(counted, "{error:?}");
        assert!(error.is_some_and(|error| error.reason() == "refused"));
    }
}
