//! Validated settings: what the rest of the program is handed. Parsing and validation happen once, in
//! [`super::load_with`]; a value of these types needs no further check.

mod acme;
mod operations;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

pub use acme::*;
pub use operations::*;

use super::cidr::Cidr;
use super::forwarded::Forwarded;
use super::host::HostPattern;
use super::origins::OriginPolicy;
use super::pin::Pin;
use crate::heartbeat::{Heartbeat, Policy, UpstreamPolicy};

/// The settings of a proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The listener of client connections.
    pub listen: Listen,
    /// The mode of TLS towards clients.
    pub tls: TlsMode,
    /// The app behind the proxy, for every route that names no other.
    pub upstream: Arc<UpstreamSettings>,
    /// Routes in the order in which they are tried: those of one host, those of a wildcard (the longer first), those of
    /// any host, and among each the longest prefix first. The last one takes every host and every path.
    pub routes: Vec<Arc<Route>>,
    /// Bounds that hold before a route is known.
    pub limits: EdgeLimits,
    /// The handling of headers about the client's address.
    pub forwarded: Forwarded,
    /// The end of the process, and the greatest age of sessions.
    pub drain: Drain,
    /// Health, metrics and administration.
    pub admin: Admin,
    /// The log.
    pub log: Log,
    /// The export of spans; `None` sends none, and so does a program that was built without it.
    pub otel: Option<Otel>,
}

impl Settings {
    /// Returns every app, the default one first, each once; equal ones are one `Arc`.
    pub fn upstreams(&self) -> Vec<&Arc<UpstreamSettings>> {
        let mut all = vec![&self.upstream];
        for route in &self.routes {
            if !all.iter().any(|known| Arc::ptr_eq(known, &route.upstream)) {
                all.push(&route.upstream);
            }
        }
        all
    }

    /// Returns the longest `close_grace` of all routes.
    pub fn close_grace(&self) -> Duration {
        let graces = self.routes.iter().map(|route| route.heartbeat.policy().close_grace);
        graces.max().unwrap_or_default()
    }

    /// Returns every file that the settings name, each once; not the configuration file itself.
    pub fn files(&self) -> Vec<PathBuf> {
        let tls = self.tls.terminate();
        let own = tls.into_iter().map(|tls| [&tls.certificate, &tls.private_key]);
        let named = tls.into_iter().flat_map(|tls| &tls.sni).map(|named| [&named.certificate, &named.private_key]);
        let clients = match tls.map(|tls| &tls.client_auth) {
            None | Some(ClientAuth::Off) => None,
            Some(ClientAuth::Optional(ca) | ClientAuth::Required(ca)) => Some(ca.as_path()),
        };
        let apps = self.upstreams().into_iter().flat_map(|app| app.tls_files());
        let token = self.admin.token.as_ref().map(Token::file);
        let acme = tls.into_iter().filter_map(|tls| tls.acme.as_deref()).flat_map(AcmeSettings::read_files);
        let all = own.chain(named).flatten().map(PathBuf::as_path).chain(clients).chain(apps).chain(token).chain(acme);
        let all: BTreeSet<&Path> = all.collect();
        all.into_iter().map(Path::to_path_buf).collect()
    }

    /// Returns the routes whose WebSockets a page of any origin may open.
    pub fn open_routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter().filter(|route| *route.origins == OriginPolicy::Any)
    }
}

/// The listening side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address of the TLS port.
    pub address: SocketAddr,
    /// Worker threads, one runtime and one listener each.
    pub workers: NonZeroUsize,
    /// The PROXY header that precedes the handshake; `None` expects none.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The address of a plain HTTP port that redirects to https; `None` is no such port.
    pub redirect: Option<SocketAddr>,
    /// The use of HTTP/2.
    pub http2: Http2,
}

impl Listen {
    /// Returns the ports to which an authority and browsers connect.
    pub fn public() -> Self {
        Self { address: ([0, 0, 0, 0], 443).into(), redirect: Some(([0, 0, 0, 0], 80).into()), ..Self::default() }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            address: ([0, 0, 0, 0], 8443).into(),
            workers: available_workers(),
            proxy_protocol: None,
            redirect: None,
            http2: Http2::default(),
        }
    }
}

/// Returns the number of workers for this machine: what its CPUs, the affinity and the cgroup's quota allow, all of
/// which the standard library looks at.
pub(super) fn available_workers() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// The use of HTTP/2 on the TLS port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Http2 {
    /// Offered to clients, WebSockets over its streams included (RFC 8441).
    #[default]
    On,
    /// Offered without extended CONNECT: clients open WebSockets over HTTP/1.1 then.
    NoWebSockets,
    /// Not offered.
    Off,
}

impl Http2 {
    /// Returns its word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::NoWebSockets => "no-websockets",
            Self::Off => "off",
        }
    }
}

/// The PROXY protocol, v1 and v2: every connection must begin with its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Peers whose header is believed, never none; all others are refused.
    pub trusted: Vec<Cidr>,
}

/// The mode of TLS on the port of clients (`tls.mode`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// TLS is terminated here.
    Terminate(TlsSettings),
    /// The port speaks plain HTTP: the proxies of `forwarded.trusted_proxies`, never none, terminate TLS, and no other
    /// peer is served.
    Off,
}

impl TlsMode {
    /// Returns the settings of TLS where it is terminated here.
    pub fn terminate(&self) -> Option<&TlsSettings> {
        match self {
            Self::Terminate(tls) => Some(tls),
            Self::Off => None,
        }
    }
}

impl From<TlsSettings> for TlsMode {
    fn from(tls: TlsSettings) -> Self {
        Self::Terminate(tls)
    }
}

/// The server's side of the TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// Certificates ordered from an authority; `None` uses the files alone. `certificate` and `private_key` are then one
    /// file, that of [`AcmeSettings::certificate`], which may be missing until the first order is done.
    pub acme: Option<Box<AcmeSettings>>,
    /// Certificate chain for names that no other certificate is for, PEM, leaf first.
    pub certificate: PathBuf,
    /// PKCS#8, PKCS#1 or SEC1 key that belongs to the leaf.
    pub private_key: PathBuf,
    /// Certificates for certain names.
    pub sni: Vec<SniCertificate>,
    /// Set if a handshake without a name, or with one that no certificate is for, is refused.
    pub strict_sni: bool,
    /// Set if no version before TLS 1.3 is accepted.
    pub modern: bool,
    /// The certificates of clients.
    pub client_auth: ClientAuth,
    /// `max-age` of the `Strict-Transport-Security` that responses get (RFC 6797 §6.1.1), in whole seconds; `None` adds
    /// none.
    pub hsts: Option<Duration>,
}

impl TlsSettings {
    /// Returns one certificate for all names, and defaults for the rest.
    pub fn of(certificate: impl Into<PathBuf>, private_key: impl Into<PathBuf>) -> Self {
        Self {
            acme: None,
            certificate: certificate.into(),
            private_key: private_key.into(),
            sni: Vec::new(),
            strict_sni: false,
            modern: false,
            client_auth: ClientAuth::Off,
            hsts: None,
        }
    }
}

/// A certificate for the names that clients send in SNI (RFC 6066 §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SniCertificate {
    /// DNS names in lower case, never none and no name in two certificates; `*.` in front stands for exactly one label.
    pub names: Vec<Box<str>>,
    /// Certificate chain, PEM, leaf first.
    pub certificate: PathBuf,
    /// The key that belongs to the leaf.
    pub private_key: PathBuf,
}

/// The authentication of clients by certificate, with the PEM file of the authorities that may have signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// No certificate is requested.
    Off,
    /// A certificate is requested, and clients without one are accepted; a wrong one is refused.
    Optional(PathBuf),
    /// A certificate is required.
    Required(PathBuf),
}

/// An app behind the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// The address on which the app listens.
    pub target: UpstreamTarget,
    /// TLS towards it; `None` is plain HTTP. Never set for a unix socket.
    pub tls: Option<UpstreamTls>,
    /// Time limit of a connect, name resolution and TLS handshake included.
    pub connect_timeout: Duration,
    /// Time limit of the head of a response.
    pub response_timeout: Duration,
    /// Set if each connection begins with a PROXY header of version 2, which names the client.
    pub proxy_protocol: bool,
    /// Own addresses that connections are spread over; the kernel chooses where there is none. Always empty for a unix
    /// socket.
    pub source_addresses: Vec<IpAddr>,
    /// The app's own liveness.
    pub heartbeat: UpstreamPolicy,
    /// The request of its health check.
    pub probe: UpstreamProbe,
}

/// The request that shows whether an app lives when no session can carry a ping. Any status counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UpstreamProbe {
    /// `OPTIONS *` (RFC 9110 §9.3.7), which is about the server and no resource of it. It expects 100 (Continue), so
    /// that a server responds that has no handler for it.
    #[default]
    Auto,
    /// `GET` of this path, which may have a query.
    Path(Box<str>),
    /// None: a connection that is accepted counts.
    Off,
}

impl fmt::Display for UpstreamProbe {
    /// As it is configured.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Path(path) => path,
            Self::Off => "off",
        })
    }
}

impl UpstreamSettings {
    /// Returns the app at `target`, in plain HTTP and with defaults for the rest.
    pub fn at(target: UpstreamTarget) -> Self {
        Self {
            target,
            tls: None,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(60),
            proxy_protocol: false,
            source_addresses: Vec::new(),
            heartbeat: UpstreamPolicy::default(),
            probe: UpstreamProbe::default(),
        }
    }
}

impl UpstreamSettings {
    /// Returns the files of its TLS.
    pub fn tls_files(&self) -> impl Iterator<Item = &Path> {
        let tls = self.tls.iter();
        tls.flat_map(|tls| {
            let identity = tls.identity.iter().flat_map(|(certificate, private_key)| [certificate, private_key]);
            tls.ca.iter().chain(identity).map(PathBuf::as_path)
        })
    }
}

impl fmt::Display for UpstreamSettings {
    /// Its URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        match &self.target {
            UpstreamTarget::Tcp { .. } => write!(f, "{scheme}://{}", self.target),
            UpstreamTarget::Unix(_) => self.target.fmt(f),
        }
    }
}

/// TLS towards an app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// PEM file of the authorities that may have signed its certificate; `None` is those of the system.
    pub ca: Option<PathBuf>,
    /// The keys of which its certificate must have one. Where there are some, they alone decide: neither the authority
    /// nor the name and the dates of the certificate do.
    pub pins: Vec<Pin>,
    /// PEM files of the certificate chain and the key that the proxy shows if the app requests a certificate.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name (or IP address) that its certificate must have, and that is sent in SNI; `None` is the host of its URL.
    pub server_name: Option<Box<str>>,
}

/// The address of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamTarget {
    /// `http://host:port` or `https://host:port`; the host is a name or an address without brackets.
    Tcp {
        /// Host name or IP address.
        host: Box<str>,
        /// TCP port.
        port: u16,
    },
    /// `unix:/path/to/socket`.
    Unix(PathBuf),
}

impl fmt::Display for UpstreamTarget {
    /// `host:port`, or `unix:/path`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One route: the settings of requests for `host` whose path begins with `path`.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The path prefix; begins with `/`.
    pub path: Box<str>,
    /// The hosts; `None` is any.
    pub host: Option<HostPattern>,
    /// The app that its requests go to; shared with every route that has an equal one.
    pub upstream: Arc<UpstreamSettings>,
    /// The heartbeat of its sessions.
    pub heartbeat: Heartbeat,
    /// The limits of its sessions.
    pub limits: SessionLimits,
    /// The origins of pages that may open its sessions.
    pub origins: Arc<OriginPolicy>,
}

impl Route {
    /// Returns the route of every request to `upstream`, with defaults for the rest.
    pub fn to(upstream: Arc<UpstreamSettings>) -> Self {
        Self {
            path: "/".into(),
            host: None,
            upstream,
            heartbeat: Policy::default().into(),
            limits: SessionLimits::default(),
            origins: Arc::default(),
        }
    }
}

/// Bounds on a connection before its route is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeLimits {
    /// Time limit of a TLS handshake.
    pub handshake: Duration,
    /// Time limit of the head of a request.
    pub header_read: Duration,
    /// Longest idle time of a connection that has had a request.
    pub keep_alive: Duration,
    /// Longest time in which the client takes nothing of the response to a plain request.
    pub write_stall: Duration,
    /// The maximum number of header fields in one request.
    pub headers: usize,
    /// Bytes of one request's head.
    pub header_bytes: usize,
    /// Header fields in a response of an app.
    pub response_headers: usize,
    /// Client connections of the whole process.
    pub connections: ConnectionLimit,
    /// Client connections of one IPv4 address or one IPv6 /64; `None` is unlimited.
    pub connections_per_ip: Option<usize>,
    /// TLS handshakes a second that one IPv4 address or one IPv6 /64 may begin; `None` is unlimited.
    pub handshakes_per_ip: Option<u32>,
    /// Bytes that all sessions together may hold for slow peers; while there are more, upgrades are refused. `None` is
    /// unlimited.
    pub memory: Option<u64>,
    /// Plain requests that one HTTP/2 connection may have open at once.
    pub streams: u32,
    /// WebSockets that one HTTP/2 connection may have open at once.
    pub websocket_streams: u32,
    /// Requests that reached the app and that an HTTP/2 client may abandon within 10 s, and streams that it may lose in
    /// that time for what it did on them.
    pub resets: u32,
}

impl Default for EdgeLimits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            header_read: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            write_stall: Duration::from_secs(45),
            headers: 100,
            header_bytes: 16 * 1024,
            response_headers: 2000,
            connections: ConnectionLimit::default(),
            connections_per_ip: None,
            handshakes_per_ip: None,
            memory: None,
            streams: 100,
            websocket_streams: 100,
            resets: 1000,
        }
    }
}

/// The limit of client connections of the whole process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectionLimit {
    /// As many as the limit of open files has room for, beside a reserve.
    #[default]
    Auto,
    /// This many.
    AtMost(usize),
    /// Any number.
    Off,
}

/// Bounds on one WebSocket session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionLimits {
    /// The maximum payload of one data frame in bytes; `None` is unlimited.
    pub frame: Option<u64>,
    /// Largest payload of one message, all fragments together, in bytes; `None` is unlimited.
    pub message: Option<u64>,
    /// Messages a second that the client may send; `None` is unlimited.
    pub messages_per_second: Option<u32>,
}
