//! The dialer: from a URL to an open session or to a client of plain requests. TCP, TLS and the upgrade have a deadline
//! each.
//!
//! The client fixes the parameters of TLS, so that every proxy pays for the same cryptography: TLS 1.3,
//! `TLS_AES_128_GCM_SHA256`, X25519, no resumption.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName, pem};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

use crate::fetch::{Client, Connection};
use crate::head::{Head, HeadError};
use crate::line::{self, Line, Lines, Shared};
use crate::pattern::Pattern;
use crate::session::{Manners, Session, SessionError};
use crate::wire::{Pace, Paced, Tunnel, Wire};

/// A session through a proxy.
pub type ProxiedSession = Session<Wire>;

/// The version of HTTP that a dialer requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.1: one connection for each session.
    One,
    /// HTTP/2: shared connections.
    Two {
        /// Sessions on one connection.
        streams: usize,
    },
}

impl Http {
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::One => b"http/1.1",
            Self::Two { .. } => b"h2",
        }
    }
}

/// A `wss` or `https` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    scheme: &'static str,
    host: String,
    port: u16,
    path: String,
}

/// The accepted prefixes of a URL. Both stand for TLS.
const SCHEMES: [&str; 2] = ["wss://", "https://"];

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let found = SCHEMES.into_iter().find_map(|scheme| Some((scheme, text.strip_prefix(scheme)?)));
        let (scheme, rest) = found.ok_or(UrlError::Scheme)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = authority.rsplit_once(':').ok_or(UrlError::Port)?;
        let port = port.parse().map_err(|_| UrlError::Port)?;
        if host.is_empty() || host.contains(['[', ']', '@']) {
            return Err(UrlError::Host);
        }
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { scheme, host: host.into(), port, path: path.into() })
    }
}

impl Url {
    /// Returns host and port.
    fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port, path } = self;
        write!(out, "{scheme}{host}:{port}{path}")
    }
}

/// An error in parsing a URL.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum UrlError {
    /// Only TLS is measured.
    #[error("expected wss://HOST:PORT/PATH or https://HOST:PORT/PATH")]
    Scheme,
    /// The port is always written out.
    #[error("expected a port, as in wss://localhost:8443/")]
    Port,
    /// A name or an IPv4 address.
    #[error("expected a host name or an IPv4 address")]
    Host,
}

/// A dialer of sessions to one address.
#[derive(Debug)]
pub struct Dialer {
    url: Url,
    http: Http,
    lines: Lines,
    address: SocketAddr,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    sources: u8,
    patience: Duration,
    pattern: Arc<Pattern>,
    pace: Option<Pace>,
}

impl Dialer {
    /// Returns a dialer that trusts the certificates in `authority` and connects from `sources` loopback addresses in
    /// turn. Every step of a dial may take `patience`. Messages and bodies are slices of `pattern`.
    pub async fn new(
        url: Url,
        http: Http,
        authority: &Path,
        sources: u8,
        patience: Duration,
        pattern: Pattern,
    ) -> Result<Self, DialError> {
        let address = tokio::net::lookup_host((url.host.as_str(), url.port))
            .await
            .map_err(|source| DialError::Resolve { host: url.host.clone(), source })?
            .find(SocketAddr::is_ipv4)
            .ok_or_else(|| DialError::NoAddress { host: url.host.clone() })?;
        let name = ServerName::try_from(url.host.clone())?;
        let tls = Arc::new(client_config(authority, http)?);
        let lines = Lines::default();
        let pattern = Arc::new(pattern);
        Ok(Self { url, http, lines, address, name, tls, sources, patience, pattern, pace: None })
    }

    /// Returns a copy of the dialer for sessions that read slowly. They share no connection with the other sessions.
    #[must_use]
    pub fn paced(&self, pace: Pace) -> Self {
        Self {
            url: self.url.clone(),
            lines: Lines::default(),
            name: self.name.clone(),
            tls: Arc::clone(&self.tls),
            pattern: Arc::clone(&self.pattern),
            pace: Some(pace),
            ..*self
        }
    }

    /// Opens the session number `index`.
    pub async fn dial(&self, index: usize, manners: Manners) -> Result<ProxiedSession, DialError> {
        self.dial_path(index, &self.url.path, manners).await
    }

    /// Opens the session number `index` at `path` instead of the URL's path.
    pub async fn dial_path(&self, index: usize, path: &str, manners: Manners) -> Result<ProxiedSession, DialError> {
        let (wire, early) = match self.http {
            Http::One => {
                let tls = self.secure(index).await?;
                let (tls, early) = self.within("upgrade", self.upgrade(tls, path)).await?;
                (Wire::Tls(Box::new(tls)), early)
            }
            Http::Two { streams } => {
                let (shared, line) = self.line(index / streams, streams).await?;
                let tunnel = self.within("extended CONNECT", self.tunnel(shared, &line, path)).await?;
                (Wire::Tunnel(tunnel), Vec::new())
            }
        };
        let wire = match self.pace {
            Some(pace) => Wire::Paced(Box::new(Paced::new(wire, pace))),
            None => wire,
        };
        Ok(Session::new(wire, early, Arc::clone(&self.pattern), manners)?)
    }

    /// Opens the client number `index` for plain requests.
    pub async fn client(&self, index: usize) -> Result<Client, DialError> {
        let connection = match self.http {
            Http::One => Connection::http1(self.secure(index).await?),
            Http::Two { streams } => {
                let (shared, line) = self.line(index / streams, streams).await?;
                Connection::Http2 { line, shared }
            }
        };
        Ok(Client::new(self.url.authority(), &self.url.path, Arc::clone(&self.pattern), connection))
    }

    /// Returns the shared connection number `number`; opens it if it has no stream yet.
    async fn line(&self, number: usize, streams: usize) -> Result<(Shared, Line), DialError> {
        let shared = self.lines.place(number);
        let open = || async {
            let tls = self.secure(number).await?;
            let window = self.pace.map_or(line::STREAM_WINDOW, |pace| pace.buffer);
            self.within("exchange of HTTP/2 settings", Line::open(tls, streams, window)).await
        };
        let line = shared.get_or_try_init(open).await?.clone();
        Ok((shared, line))
    }

    /// Opens a TLS connection and checks the version of HTTP that ALPN agreed on.
    async fn secure(&self, index: usize) -> Result<TlsStream<TcpStream>, DialError> {
        let tcp = self.within("TCP connect", self.connect(index)).await?;
        let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(self.name.clone(), tcp);
        let tls = self.within("TLS handshake", async { tls.await.map_err(DialError::Tls) }).await?;
        // A server without ALPN uses HTTP/1.1.
        match tls.get_ref().1.alpn_protocol() {
            None if self.http == Http::One => Ok(tls),
            Some(agreed) if agreed == self.http.alpn() => Ok(tls),
            _ => Err(DialError::Alpn { wanted: String::from_utf8_lossy(self.http.alpn()) }),
        }
    }

    async fn within<T>(
        &self,
        step: &'static str,
        work: impl Future<Output = Result<T, DialError>>,
    ) -> Result<T, DialError> {
        timeout(self.patience, work).await.unwrap_or(Err(DialError::Deadline { step, patience: self.patience }))
    }

    async fn connect(&self, index: usize) -> Result<TcpStream, DialError> {
        let connect = async {
            let socket = TcpSocket::new_v4()?;
            if let Some(pace) = self.pace {
                socket.set_recv_buffer_size(pace.buffer)?;
            }
            if self.sources > 1 && self.address.ip().is_loopback() {
                let last = u8::try_from(index % usize::from(self.sources)).unwrap_or(0) + 1;
                // A port in TIME_WAIT can be used again: its last connection had another destination port.
                socket.set_reuseaddr(true)?;
                socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0))?;
            }
            let stream = socket.connect(self.address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        connect.await.map_err(|source| DialError::Connect { address: self.address, source })
    }

    async fn upgrade(
        &self,
        mut tls: TlsStream<TcpStream>,
        path: &str,
    ) -> Result<(TlsStream<TcpStream>, Vec<u8>), DialError> {
        let key = generate_key();
        let Url { host, port, .. } = &self.url;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nOrigin: https://{host}:{port}\r\n\r\n"
        );
        tls.write_all(request.as_bytes()).await.map_err(HeadError::Io)?;
        tls.flush().await.map_err(HeadError::Io)?;
        let (head, early) = Head::read(&mut tls).await?;
        if head.status() != Some(101) {
            return Err(DialError::Refused { status: head.start_line().into() });
        }
        if head.field("Sec-WebSocket-Accept") != Some(&derive_accept_key(key.as_bytes())) {
            return Err(DialError::Accept);
        }
        Ok((tls, early))
    }

    /// Opens a tunnel (RFC 8441 §5): no key and no accept, and 200 in place of the 101 of HTTP/1.1.
    async fn tunnel(&self, shared: Shared, line: &Line, path: &str) -> Result<Tunnel, DialError> {
        if !line.takes_websockets() {
            return Err(DialError::NoWebSockets);
        }
        let authority = self.url.authority();
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("https://{authority}{path}"))
            .extension(h2::ext::Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .header("origin", format!("https://{authority}"))
            .body(())?;
        let (upward, answer) = line.request(request, false).await?;
        if answer.status() != StatusCode::OK {
            return Err(DialError::Refused { status: format!("HTTP/2 {}", answer.status()) });
        }
        Ok(Tunnel::new(shared, upward, answer.into_body()))
    }
}

fn client_config(authority: &Path, http: Http) -> Result<ClientConfig, DialError> {
    let unreadable = |source| DialError::Authority { path: authority.into(), source };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).map_err(unreadable)? {
        roots.add(certificate.map_err(unreadable)?)?;
    }
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![http.alpn().to_vec()];
    Ok(config)
}

/// An error in opening a session or a client.
#[derive(Debug, Error)]
pub enum DialError {
    /// The host has no address.
    #[error("cannot resolve {host}")]
    Resolve {
        /// The host.
        host: String,
        /// The resolver's error.
        source: io::Error,
    },
    /// The host has no IPv4 address.
    #[error("{host} has no IPv4 address")]
    NoAddress {
        /// The host.
        host: String,
    },
    /// The host is not a name that a certificate can carry.
    #[error("the host is no name for a certificate")]
    Name(#[from] InvalidDnsNameError),
    /// The file of trusted certificates.
    #[error("cannot read the trusted certificates in {}; `pulsegate-load cert DIR` makes them", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: pem::Error,
    },
    /// A trusted certificate is invalid, or the TLS settings are.
    #[error("cannot set up the TLS client")]
    Setup(#[from] rustls::Error),
    /// A failure of TCP.
    #[error("cannot connect to {address}{}", advice(source))]
    Connect {
        /// The destination.
        address: SocketAddr,
        /// The kernel's error.
        source: io::Error,
    },
    /// A failure of TLS.
    #[error(
        "the TLS handshake failed (TLS 1.3, TLS_AES_128_GCM_SHA256, X25519 and one version of HTTP are offered, nothing else)"
    )]
    Tls(#[source] io::Error),
    /// The proxy does not support the version of HTTP that is to be measured.
    #[error("the proxy has not agreed on {wanted} by ALPN")]
    Alpn {
        /// The only protocol that was offered.
        wanted: Cow<'static, str>,
    },
    /// A failure of the HTTP/2 connection under a session.
    #[error("the HTTP/2 connection failed")]
    Http2(#[from] h2::Error),
    /// The proxy allows fewer streams than requested.
    #[error("the proxy allows {allowed} streams on a connection, not {wanted}: use fewer --streams")]
    Streams {
        /// The streams that the scenario requires.
        wanted: usize,
        /// The limit in the proxy's settings.
        allowed: usize,
    },
    /// Extended CONNECT is not announced (RFC 8441 §3).
    #[error("the proxy has not announced SETTINGS_ENABLE_CONNECT_PROTOCOL: it has no WebSockets over HTTP/2")]
    NoWebSockets,
    /// The URL's path is not valid in a request.
    #[error("the URL makes no request")]
    Request(#[from] http::Error),
    /// The upgrade got no valid response.
    #[error("the upgrade got no answer")]
    Head(#[from] HeadError),
    /// The upgrade was refused.
    #[error("the upgrade was refused: {status}")]
    Refused {
        /// The status line.
        status: String,
    },
    /// `Sec-WebSocket-Accept` is wrong (RFC 6455 §4.1).
    #[error("the upgrade was answered with a wrong Sec-WebSocket-Accept")]
    Accept,
    /// The bytes after the response are not WebSocket frames.
    #[error("the session began badly")]
    Early(#[from] SessionError),
    /// A step took too long.
    #[error("the {step} took longer than {patience:?}")]
    Deadline {
        /// The step.
        step: &'static str,
        /// The time that it was allowed.
        patience: Duration,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ": is the proxy running?",
        io::ErrorKind::AddrNotAvailable => ": no port is left; use more --sources",
        // EMFILE has no `ErrorKind`.
        _ if error.raw_os_error() == Some(24) => ": too many open files; raise `ulimit -n`",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_to_the_letter() {
        let url: Url = "wss://localhost:8443/socket?room=1".parse().expect("the URL is good");
        assert_eq!(url, Url { scheme: "wss://", host: "localhost".into(), port: 8443, path: "/socket?room=1".into() });
        assert_eq!(url.to_string(), "wss://localhost:8443/socket?room=1");
        assert_eq!(
            "https://localhost:1/a".parse::<Url>().map(|url| url.to_string()),
            Ok("https://localhost:1/a".into())
        );
        assert_eq!("wss://127.0.0.1:1".parse::<Url>().map(|url| url.path), Ok("/".into()));
    }

    #[test]
    fn an_invalid_url_is_explained() {
        assert_eq!("ws://localhost:1/".parse::<Url>(), Err(UrlError::Scheme));
        assert_eq!("wss://localhost/".parse::<Url>(), Err(UrlError::Port));
        assert_eq!("wss://localhost:65536/".parse::<Url>(), Err(UrlError::Port));
        assert_eq!("wss://:443/".parse::<Url>(), Err(UrlError::Host));
        assert_eq!("wss://[::1]:443/".parse::<Url>(), Err(UrlError::Host));
    }
}
