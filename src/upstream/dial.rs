//! Opening a connection to the app: name resolution, each address in turn, TLS where it is spoken, and one deadline over
//! all of it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::Instant;

use super::fault::{self, Fault, no_descriptor};
use super::source::Sources;
use super::stream::Socket;
use super::{ClientAddresses, Upstream, UpstreamStream};
use crate::config::{self, Pin, Target};
use crate::descriptors;
use crate::heartbeat::ConnectOutcome;
use crate::proxy_protocol;
use crate::suspension::{self, Deadline};
use crate::tls::client::{self, Client, HandshakeError, Trust};

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

    /// Returns the outcome for the app; `None` where the proxy itself had no port, descriptor or memory left.
    pub(super) fn outcome(&self) -> Option<ConnectOutcome> {
        match self {
            Self::Resolve { source, .. } | Self::Connect { source, .. } => match fault::of(source) {
                Fault::NoWay | Fault::Refused => Some(ConnectOutcome::Refused),
                Fault::TimedOut => Some(ConnectOutcome::Failed),
                Fault::Own => None,
            },
            Self::Tls { .. } | Self::Timeout { .. } => Some(ConnectOutcome::Failed),
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

/// The way to an app: where it listens, how TLS is spoken with it, and from which addresses it is dialled.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) settings: Arc<config::Upstream>,
    pub(super) tls: Option<Client>,
    sources: Sources,
}

impl Upstream {
    /// Opens a connection within `upstream.connect_timeout`, name resolution and TLS handshake included. It is counted,
    /// and its outcome reported to the app's watch. Its PROXY header, if it has one, names `client`.
    pub(super) async fn dial(&self, client: Option<ClientAddresses>) -> Result<UpstreamStream, DialError> {
        let begun = Instant::now();
        let result = match descriptors::upstream_slot() {
            Some(slot) => self.dialer.dial(client).await.map(|mut stream| {
                stream.hold(slot);
                stream
            }),
            // As if the limit were reached: what is left of it is for the rest of the process.
            None => Err(DialError::Connect { place: authority(self.target()).into(), source: Errno::MFILE.into() }),
        };
        match &result {
            Ok(_) => self.metrics.upstream_connect(begun.elapsed()),
            Err(error) => self.metrics.upstream_connect_error(error.reason()),
        }
        // What failed while the proxy itself stood still says nothing about the app.
        let late = !suspension::paused_since(begun).is_zero();
        match &result {
            Ok(_) => self.app.connected(ConnectOutcome::Opened, None),
            Err(error) => match error.outcome() {
                Some(ConnectOutcome::Failed) if late => {}
                Some(outcome) => self.app.connected(outcome, Some(error)),
                None => {}
            },
        }
        result
    }
}

impl Dialer {
    /// The way to the app that `settings` are of, with `tls` where TLS is spoken.
    pub(super) fn new(settings: &Arc<config::Upstream>, tls: Option<&Client>) -> Self {
        let sources = Sources::new(settings.source_addresses.clone());
        Self { settings: Arc::clone(settings), tls: tls.cloned(), sources }
    }

    /// Opens a connection within `upstream.connect_timeout`, name resolution and TLS handshake included. With PROXY headers
    /// it is one for `client`, or of the proxy's own.
    pub(super) async fn dial(&self, client: Option<ClientAddresses>) -> Result<UpstreamStream, DialError> {
        let deadline = Deadline::after(self.settings.connect_timeout);
        let settings = &self.settings;
        let connected = async {
            let (host, port) = match &settings.target {
                Target::Tcp { host, port } => (host, *port),
                Target::Unix(path) => {
                    let mut stream = unix(path).await?;
                    self.introduce(client, &mut stream).await?;
                    return Ok(Socket::Unix(stream).into());
                }
            };
            let mut tcp = tcp(host, port, deadline, &self.sources).await?;
            self.introduce(client, &mut tcp).await?;
            match (&self.tls, &settings.tls) {
                (Some(client), Some(tls)) => {
                    let name = tls.server_name.as_ref().unwrap_or(host);
                    // Boxed: a handshake is large, and most apps speak none.
                    Box::pin(encrypted(client, name, tcp, &settings.target)).await
                }
                _ => Ok(Socket::Tcp(tcp).into()),
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
    /// Writes the PROXY header, if the app gets one.
    async fn introduce(
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

    /// The pin of the key that the app shows, trusted or not; `None` where no TLS comes about.
    pub(super) async fn shown_pin(&self) -> Option<Pin> {
        let anyone = Client::new(&Trust::Anyone, None).ok()?;
        match Self::new(&self.settings, Some(&anyone)).dial(None).await {
            Ok(UpstreamStream { socket: Socket::Tls(stream), .. }) => client::pin_of(&stream),
            _ => None,
        }
    }
}

async fn encrypted(client: &Client, name: &str, tcp: TcpStream, target: &Target) -> Result<UpstreamStream, DialError> {
    match client.handshake(name, tcp).await {
        Ok(stream) => Ok(Socket::Tls(Box::new(stream)).into()),
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
    // A resolver that gets no socket reports that as a name that does not resolve.
    let resolved = resolved.map_err(|source| unresolved(no_descriptor().unwrap_or(source)))?;
    let addresses: Vec<SocketAddr> = resolved.collect();
    let mut failed: Option<(Fault, SocketAddr, io::Error)> = None;
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
        // Of several addresses the failure counts that is the least evidence against the app.
        let fault = fault::of_connect(&source, *address);
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

    /// Dials `address` from `sources`; whether the app was counted as refusing, and the error.
    async fn refused(address: SocketAddr, sources: Vec<IpAddr>) -> (bool, Option<DialError>) {
        let target = Target::Tcp { host: address.ip().to_string().into(), port: address.port() };
        let settings = config::Upstream { source_addresses: sources, ..config::Upstream::at(target) };
        let app =
            Arc::new(App::open(&Arc::new(settings), Instant::now().into_std()).expect("there is nothing to read"));
        let upstream = Upstream::new(&app, 100, Arc::default(), TaskTracker::new(), &CancellationToken::new());
        let error = upstream.dial(None).await.err();
        (app.pulse().connected(ConnectOutcome::Opened), error)
    }

    #[tokio::test]
    async fn s58_a_connect_without_a_port_left_says_nothing_about_the_app() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("an address");
        let (counted, error) = refused(address, Vec::new()).await;
        assert!(!counted && error.is_none(), "{error:?}");
        // No connection can come from there (RFC 5737); the kernel reports the same error when every port is taken.
        let (counted, error) = refused(address, vec!["192.0.2.1".parse().expect("an address")]).await;
        assert!(!counted && error.is_some_and(|error| error.outcome().is_none()));
        drop(listener);
        let (counted, error) = refused(address, Vec::new()).await;
        assert!(counted, "{error:?}");
        assert!(error.is_some_and(|error| error.reason() == "refused"));
    }
}
