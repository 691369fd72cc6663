//! The facts of a session that are known when it opens: its client, route, TLS, protocol, subprotocol and trace.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::conn_id::ConnId;
use crate::config::Route;
use crate::heartbeat::Selected;

/// The facts of a session that are known when it opens.
#[derive(Debug)]
pub struct SessionFacts {
    /// The id of the session.
    pub id: ConnId,
    /// The generation of the settings under which it opened.
    pub config_generation: u64,
    /// The upgrade request.
    pub request: RequestFacts,
    /// The TLS version of the client leg.
    pub tls_version: Option<&'static str>,
    /// The key exchange group of the client leg.
    pub tls_group: Option<&'static str>,
    /// The subprotocol on which both ends agreed.
    pub subprotocol: Option<Box<str>>,
    /// The heartbeat selected for it.
    pub heartbeat: Selected,
    /// True if extensions that the client offered were refused for the heartbeat's sake.
    pub extensions_refused: bool,
}

/// The address of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAddress {
    /// The other end of the connection.
    Peer(SocketAddr),
    /// The client that a trusted proxy at the other end names.
    Forwarded(IpAddr),
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(address) => address.fmt(f),
            Self::Forwarded(address) => address.fmt(f),
        }
    }
}

impl ClientAddress {
    /// The IP address of the client.
    pub fn address(self) -> IpAddr {
        match self {
            Self::Peer(address) => address.ip().to_canonical(),
            Self::Forwarded(address) => address,
        }
    }

    /// The port of the client; `None` where a proxy in front names the client.
    pub fn port(self) -> Option<u16> {
        match self {
            Self::Peer(address) => Some(address.port()),
            Self::Forwarded(_) => None,
        }
    }
}

/// The facts of a request. Text of the client's choosing is cut to 256 bytes.
#[derive(Debug)]
pub struct RequestFacts {
    /// The address of the client.
    pub client: ClientAddress,
    /// The server name of the TLS handshake (SNI).
    pub server_name: Option<Arc<str>>,
    /// The protocol of the client's connection: `h1` or `h2`.
    pub protocol: &'static str,
    /// The HTTP version of the request: `1.0`, `1.1` or `2`.
    pub http_version: &'static str,
    /// The authority of the request, cut.
    pub host: Option<Box<str>>,
    /// The `X-Request-Id` that the app receives, cut.
    pub request_id: Option<Box<str>>,
    /// The route of the request.
    pub route: Arc<Route>,
    /// The path without its query, cut.
    pub path: Box<str>,
    /// The `User-Agent`, cut.
    pub user_agent: Option<Box<str>>,
    /// The trace to which the request belongs (W3C Trace Context §3.2.2.3).
    pub trace_id: Option<Box<str>>,
}

impl RequestFacts {
    /// Returns the requested host, and the port where one is given.
    pub(crate) fn server(&self) -> (Option<&str>, Option<u16>) {
        let Some(host) = self.host.as_deref() else { return (None, None) };
        match host.rsplit_once(':') {
            // The colons of an IPv6 address stand in brackets (RFC 3986 §3.2.2).
            Some((name, port)) if !port.contains(']') => (Some(without_brackets(name)), port.parse().ok()),
            _ => (Some(without_brackets(host)), None),
        }
    }
}

/// Returns an IPv6 address without its brackets.
fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}
