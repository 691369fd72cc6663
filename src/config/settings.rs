//! Validated settings: what the rest of the program is handed. Parsing and validation happen once, in
//! [`super::load`]; a value of these types needs no further check.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::heartbeat::{Heartbeat, UpstreamPolicy};

/// Everything `pulsegate run` needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where connections are accepted.
    pub listen: Listen,
    /// What the TLS handshake presents.
    pub tls: Tls,
    /// The app behind the proxy.
    pub upstream: Upstream,
    /// Routes, longest prefix first; the last one is the default route with the prefix `/`.
    pub routes: Vec<Arc<Route>>,
    /// Bounds that hold before a route is known.
    pub limits: EdgeLimits,
    /// How the program logs.
    pub log: Log,
}

/// The listening side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address of the TLS port.
    pub address: SocketAddr,
    /// Worker threads, one runtime and one listener each.
    pub workers: NonZeroUsize,
}

/// PEM files of the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificate chain, leaf first.
    pub certificate: PathBuf,
    /// PKCS#8, PKCS#1 or SEC1 key that belongs to the leaf.
    pub private_key: PathBuf,
}

/// The app behind the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Where it listens.
    pub target: Target,
    /// How long a connect may take, name resolution included.
    pub connect_timeout: Duration,
    /// How long the head of a response may take.
    pub response_timeout: Duration,
    /// The app's own liveness.
    pub heartbeat: UpstreamPolicy,
}

/// Where an upstream listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `http://host:port`; the host is a name or an address without brackets.
    Tcp {
        /// Host name or IP address.
        host: Box<str>,
        /// TCP port.
        port: u16,
    },
    /// `unix:/path/to/socket`.
    Unix(PathBuf),
}

impl fmt::Display for Target {
    /// The way it is written in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "http://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "http://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One route: what begins with `path` is treated as it says.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The path prefix; begins with `/`.
    pub path: Box<str>,
    /// The heartbeat of its sessions.
    pub heartbeat: Heartbeat,
    /// The limits of its sessions.
    pub limits: SessionLimits,
}

/// Bounds on a connection before its route is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeLimits {
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long the head of a request may take.
    pub header_read: Duration,
    /// Header fields in one request.
    pub headers: usize,
    /// Bytes of one request's head.
    pub header_bytes: usize,
}

impl Default for EdgeLimits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            header_read: Duration::from_secs(10),
            headers: 100,
            header_bytes: 16 * 1024,
        }
    }
}

/// Bounds on one WebSocket session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionLimits {
    /// Largest payload of one data frame in bytes; `None` is unlimited.
    pub frame: Option<u64>,
    /// Largest payload of one message, all fragments together, in bytes; `None` is unlimited.
    pub message: Option<u64>,
}

/// How the program logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Least severe level that is written.
    pub level: Level,
    /// Shape of a line.
    pub format: LogFormat,
}

/// Log levels, most severe first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Failures that need a person.
    Error,
    /// What is wrong but survived.
    Warn,
    /// One line for each session and request.
    #[default]
    Info,
    /// What a developer of pulsegate wants to see.
    Debug,
    /// Every frame.
    Trace,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}
