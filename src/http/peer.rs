//! The client of a connection, and the facts that are known before its first request.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use hyper::header::HeaderValue;

use super::client_certificate::ClientCertificate;

/// The client of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address.
    pub address: SocketAddr,
    /// The proxy's address that the connection was made to; `None` where there is no socket.
    pub local: Option<SocketAddr>,
    /// The result of its TLS handshake; `None` on a connection without TLS.
    pub tls: Option<TlsFacts>,
    /// The protocol of a connection without TLS; with TLS, ALPN decides.
    pub cleartext: Protocol,
    /// Set where every request is answered with 403: without TLS only trusted proxies are served.
    pub forbidden: bool,
    /// The client's address as a field value, once it was asked for.
    pub cached_value: OnceLock<HeaderValue>,
}

/// The result of a TLS handshake.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    /// The version, as in `1.3`.
    pub version: &'static str,
    /// The key exchange group, as in `X25519MLKEM768`.
    pub group: Option<&'static str>,
    /// The protocol that ALPN chose (RFC 7301).
    pub protocol: Protocol,
    /// The name that the client asked for (SNI, RFC 6066 §3), in lower case.
    pub server_name: Option<Arc<str>>,
    /// The certificate that the client showed, verified.
    pub client: Option<Arc<ClientCertificate>>,
}

/// A version of HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 and 1.0.
    #[default]
    H1,
    /// HTTP/2 (RFC 9113).
    H2,
}

impl Protocol {
    /// The word for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
        }
    }
}

impl Peer {
    /// A client at `address` that speaks HTTP/1.1 without TLS and is served.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            address,
            local: None,
            tls: None,
            cleartext: Protocol::H1,
            forbidden: false,
            cached_value: OnceLock::new(),
        }
    }

    /// Returns the client's address as the field value that the app gets, made once for all requests.
    pub(super) fn address_value(&self) -> &HeaderValue {
        // A v4 client of a dual-stack listener is a v4 client.
        self.cached_value.get_or_init(|| address_value(self.address.ip().to_canonical()))
    }

    /// Returns the protocol of the connection.
    pub fn protocol(&self) -> Protocol {
        self.tls.as_ref().map_or(self.cleartext, |tls| tls.protocol)
    }
}

/// Returns an address as a field value.
pub(super) fn address_value(address: IpAddr) -> HeaderValue {
    HeaderValue::try_from(address.to_string()).expect("an address is visible ASCII")
}
