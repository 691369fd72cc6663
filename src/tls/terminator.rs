//! The handshake: TLS 1.3 or 1.2, under a deadline, with an answer even for those who do not speak TLS.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, CommonState, ProtocolVersion, ServerConfig};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::opening::{self, Opening};
use super::{ClientStream, Identity};
use crate::http::{Protocol, TlsFacts};

/// Turns TCP connections into [`ClientStream`]s; shared by all workers, so that a ticket of one is good for all.
pub struct Terminator {
    config: Arc<ServerConfig>,
}

/// Why no [`Terminator`] could be made.
#[derive(Debug, Error)]
#[error("the TLS library cannot start: {0}")]
pub struct TerminatorError(#[from] rustls::Error);

/// Why a connection ended before its first request.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The deadline passed.
    #[error("the TLS handshake did not end in time")]
    Timeout,
    /// A plain HTTP request; it was answered with 400.
    #[error("a plain HTTP request on the TLS port")]
    PlainHttp,
    /// Bytes that are no TLS.
    #[error("no TLS on the TLS port")]
    NotTls(#[source] Option<rustls::Error>),
    /// The connection ended or broke in the middle.
    #[error("the client is gone: {0}")]
    PeerGone(#[source] io::Error),
    /// The client refused with a fatal alert (RFC 8446 §6.2), mostly because it does not trust the certificate.
    #[error("the client refused: {0:?}")]
    Alert(AlertDescription),
    /// The proxy refused with an alert: no version, cipher or protocol in common, or a broken handshake.
    #[error("refused: {0}")]
    Refused(#[source] rustls::Error),
}

impl HandshakeError {
    /// The word for logs and metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::PlainHttp => "plain_http",
            Self::NotTls(_) => "not_tls",
            Self::PeerGone(_) => "peer_gone",
            Self::Alert(_) => "alert",
            Self::Refused(_) => "refused",
        }
    }

    /// Whether it happens all day where nothing is wrong: TCP health checks connect and go.
    pub fn is_routine(&self) -> bool {
        matches!(self, Self::PeerGone(_))
    }

    fn of_library(error: io::Error) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(rustls::Error::AlertReceived(alert)) => Self::Alert(alert),
            Ok(error @ rustls::Error::InvalidMessage(_)) => Self::NotTls(Some(error)),
            Ok(error) => Self::Refused(error),
            Err(error) => Self::PeerGone(error),
        }
    }
}

impl Terminator {
    /// A terminator that presents `identity`.
    pub fn new(identity: Identity) -> Result<Self, TerminatorError> {
        Ok(Self { config: server_config(identity)? })
    }

    /// Performs the handshake on a fresh connection, to be done by `deadline`.
    ///
    /// A peer that is refused may hold the call for one more second, in which it reads why.
    pub async fn handshake(
        &self,
        tcp: TcpStream,
        deadline: Instant,
    ) -> Result<(ClientStream, TlsFacts), HandshakeError> {
        let failure = match tokio::time::timeout_at(deadline, self.negotiate(tcp)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(failure)) => *failure,
            Err(_) => return Err(HandshakeError::Timeout),
        };
        match failure.error {
            HandshakeError::PlainHttp => opening::part(failure.tcp, opening::USE_HTTPS).await,
            HandshakeError::Refused(_) => opening::part(failure.tcp, &[]).await,
            _ => {}
        }
        Err(failure.error)
    }

    async fn negotiate(&self, mut tcp: TcpStream) -> Result<(ClientStream, TlsFacts), Box<Failure>> {
        let opening = match tcp.set_nodelay(true) {
            Ok(()) => opening::look(&mut tcp).await,
            Err(error) => Err(error),
        };
        let error = match opening {
            Ok(Opening::Tls) => None,
            Ok(Opening::Http) => Some(HandshakeError::PlainHttp),
            Ok(Opening::Foreign) => Some(HandshakeError::NotTls(None)),
            Err(error) => Some(HandshakeError::PeerGone(error)),
        };
        if let Some(error) = error {
            return Err(Box::new(Failure { error, tcp }));
        }
        let connection = match UnbufferedServerConnection::new(Arc::clone(&self.config)) {
            Ok(connection) => connection,
            Err(error) => return Err(Box::new(Failure { error: HandshakeError::Refused(error), tcp })),
        };
        let mut stream = ClientStream::new(connection, tcp);
        match poll_fn(|cx| stream.poll_handshake(cx)).await {
            Ok(()) => {
                let facts = facts(stream.common());
                Ok((stream, facts))
            }
            Err(error) => Err(Box::new(Failure { error: HandshakeError::of_library(error), tcp: stream.into_tcp() })),
        }
    }
}

/// A handshake that failed, with the connection that is to be closed.
struct Failure {
    error: HandshakeError,
    tcp: TcpStream,
}

/// What every connection is offered.
pub(super) fn server_config(identity: Identity) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(super::provider())
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.key)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Resumption by tickets alone: nothing is kept per client.
    config.ticketer = Ticketer::new()?;
    // Each connection that resumes gets a fresh one: one is enough, and costs half of two.
    config.send_tls13_tickets = 1;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

fn facts(session: &CommonState) -> TlsFacts {
    TlsFacts {
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            _ => "1.2", // the only other one that is enabled
        },
        group: session.negotiated_key_exchange_group().and_then(|group| group.name().as_str()),
        protocol: match session.alpn_protocol() {
            Some(b"h2") => Protocol::H2,
            _ => Protocol::H1, // also for those who negotiate nothing
        },
    }
}

#[cfg(test)]
#[path = "terminator_tests.rs"]
mod tests;
