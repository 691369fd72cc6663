//! The TLS handshake with clients: TLS 1.3 or 1.2, with a deadline, and a response to plain HTTP.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{NoServerSessionStorage, ProducesTickets, UnbufferedServerConnection, VerifierBuilderError};
use rustls::{AlertDescription, CommonState, ProtocolVersion, ServerConfig};
use thiserror::Error;
use tokio::net::TcpStream;

use super::server_config::{ClientVerification, Parts, ServerConfigs};
use super::sni::{self, RequestedName};
use super::sniff::{self, FirstBytes};
use super::{Certificate, ClientStream, challenge, fingerprint};
use crate::http::{ClientCertificate, Protocol, TlsFacts};
use crate::suspension::{self, Deadline};

/// The server side of the handshake: turns TCP connections into [`ClientStream`]s. All workers share one, so a session
/// ticket issued by one worker is accepted by all.
pub struct Terminator {
    pub(super) config: Arc<ServerConfig>,
    clients: ClientVerification,
    certificates: Vec<Certificate>,
}

/// An error that prevents a [`Terminator`] from being created.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TerminatorError {
    /// The TLS library cannot be initialised.
    #[error("the TLS library cannot start: {0}")]
    Library(#[from] rustls::Error),
    /// The authorities of client certificates cannot be used.
    #[error("clients' certificates cannot be verified: {0}")]
    Clients(#[from] VerifierBuilderError),
}

/// The reason for which a connection ended before its first request.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The deadline passed.
    #[error("the TLS handshake did not end in time")]
    Timeout,
    /// The client sent a plain HTTP request; the response was 400.
    #[error("a plain HTTP request on the TLS port")]
    PlainHttp,
    /// The client sent bytes that are not TLS.
    #[error("no TLS on the TLS port")]
    NotTls(#[source] Option<rustls::Error>),
    /// The client closed or reset the connection during the handshake.
    #[error("the client is gone: {0}")]
    PeerGone(#[source] io::Error),
    /// The client refused with a fatal alert (RFC 8446 §6.2), usually because it does not trust the certificate.
    #[error("the client refused: {0:?}")]
    Alert(AlertDescription),
    /// The client sent no server name, or one that no certificate covers, and `strict_sni` is set; it receives the
    /// alert `unrecognized_name` (RFC 6066 §3).
    #[error("no certificate for {}", .0.as_deref().unwrap_or("a client that names no server"))]
    UnknownName(Option<Arc<str>>),
    /// The client presented no certificate, or one that is not accepted; the alert it receives names the reason.
    #[error("the client's certificate: {0}")]
    ClientCertificate(#[source] rustls::Error),
    /// An authority saw that a name leads here, by the challenge tls-alpn-01; such a connection carries no data.
    #[error("a challenge of an authority, which is answered")]
    AcmeChallenge,
    /// The proxy refused with an alert: no version, cipher suite or protocol in common, or a violation of the protocol.
    #[error("refused: {0}")]
    Refused(#[source] rustls::Error),
}

impl HandshakeError {
    /// Returns the outcome label of log lines and metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::PlainHttp => "plain_http",
            Self::NotTls(_) => "not_tls",
            Self::PeerGone(_) => "peer_gone",
            Self::Alert(_) => "alert",
            Self::UnknownName(_) => "unknown_name",
            Self::ClientCertificate(rustls::Error::NoCertificatesPresented) => "no_client_certificate",
            Self::ClientCertificate(_) => "bad_client_certificate",
            Self::AcmeChallenge => "acme_challenge",
            Self::Refused(_) => "refused",
        }
    }

    /// Returns whether the failure is normal in operation: TCP health checks connect and close without a handshake, and
    /// authorities close after theirs.
    pub fn is_routine(&self) -> bool {
        matches!(self, Self::PeerGone(_) | Self::AcmeChallenge)
    }

    fn of_library(error: io::Error, asked: RequestedName) -> Self {
        use rustls::Error::{InvalidCertificate, NoCertificatesPresented};
        match error.downcast::<rustls::Error>() {
            Ok(_) if asked.refused => Self::UnknownName(asked.name),
            Ok(error @ (InvalidCertificate(_) | NoCertificatesPresented)) => Self::ClientCertificate(error),
            Ok(rustls::Error::AlertReceived(alert)) => Self::Alert(alert),
            Ok(error @ rustls::Error::InvalidMessage(_)) => Self::NotTls(Some(error)),
            Ok(error) => Self::Refused(error),
            Err(error) => Self::PeerGone(error),
        }
    }
}

impl Terminator {
    /// Creates a terminator with these terms. An [`Identity`](super::Identity) alone makes terms with one certificate
    /// for every name, and without client certificates.
    ///
    /// # Errors
    ///
    /// The TLS library cannot be initialised, or the authorities of client certificates cannot be used.
    pub fn new(terms: impl Into<ServerConfigs>) -> Result<Self, TerminatorError> {
        Self::with_tickets(terms.into(), |_| Ticketer::new())
    }

    /// Creates the terminator that replaces this one. Session tickets stay valid, unless the accepted client
    /// certificates change: a ticket carries the client's certificate, which is not verified again.
    ///
    /// # Errors
    ///
    /// As those of [`new`](Self::new).
    pub fn renewed(&self, terms: ServerConfigs) -> Result<Self, TerminatorError> {
        Self::with_tickets(terms, |clients| {
            if clients.equal(&self.clients) { Ok(Arc::clone(&self.config.ticketer)) } else { Ticketer::new() }
        })
    }

    /// Returns a copy for a port that offers HTTP/1.1 alone.
    #[must_use]
    pub fn http1(&self) -> Self {
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { config: Arc::new(config), clients: self.clients.clone(), certificates: self.certificates.clone() }
    }

    /// Returns the certificates that it presents, the default one first.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    fn with_tickets(
        terms: ServerConfigs,
        tickets: impl FnOnce(&ClientVerification) -> Result<Arc<dyn ProducesTickets>, rustls::Error>,
    ) -> Result<Self, TerminatorError> {
        let parts = terms.into_parts()?;
        let (clients, certificates) = (parts.clients.clone(), parts.certificates.clone());
        let ticketer = tickets(&clients)?;
        Ok(Self { config: server_config(parts, ticketer)?, clients, certificates })
    }

    /// Performs the handshake on a new connection, before `deadline`.
    ///
    /// A refused connection is kept open for up to one more second, so that the client can read the alert or the
    /// response.
    ///
    /// # Errors
    ///
    /// The reason of the failure; see [`HandshakeError`].
    pub async fn handshake(
        &self,
        tcp: TcpStream,
        deadline: Deadline,
    ) -> Result<(ClientStream, TlsFacts), HandshakeError> {
        let failure = match suspension::within(deadline, pin!(self.negotiate(tcp))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(failure)) => *failure,
            Err(_) => return Err(HandshakeError::Timeout),
        };
        match failure.error {
            HandshakeError::PlainHttp => sniff::try_close(failure.tcp, sniff::USE_HTTPS).await,
            HandshakeError::UnknownName(_)
            | HandshakeError::ClientCertificate(_)
            | HandshakeError::AcmeChallenge
            | HandshakeError::Refused(_) => {
                sniff::try_close(failure.tcp, &[]).await;
            }
            _ => {}
        }
        Err(failure.error)
    }

    async fn negotiate(&self, mut tcp: TcpStream) -> Result<(ClientStream, TlsFacts), Box<Failure>> {
        let opening = match tcp.set_nodelay(true) {
            Ok(()) => sniff::detect(&mut tcp).await,
            Err(error) => Err(error),
        };
        let error = match opening {
            Ok(FirstBytes::Tls) => None,
            Ok(FirstBytes::Http) => Some(HandshakeError::PlainHttp),
            Ok(FirstBytes::Foreign) => Some(HandshakeError::NotTls(None)),
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
        let mut asked = RequestedName::default();
        let finished = poll_fn(|cx| {
            let progress = stream.poll_handshake(cx);
            asked = sni::take_requested_name().unwrap_or_else(|| std::mem::take(&mut asked));
            progress
        });
        match finished.await {
            Ok(()) if stream.common().alpn_protocol() == Some(challenge::PROTOCOL) => {
                Err(Box::new(Failure { error: HandshakeError::AcmeChallenge, tcp: stream.into_tcp() }))
            }
            Ok(()) => {
                let facts = facts(stream.common(), asked.name);
                Ok((stream, facts))
            }
            Err(error) => {
                let error = HandshakeError::of_library(error, asked);
                Err(Box::new(Failure { error, tcp: stream.into_tcp() }))
            }
        }
    }
}

/// A failed handshake, and the connection to close.
struct Failure {
    error: HandshakeError,
    tcp: TcpStream,
}

/// Builds the configuration of the TLS library that all connections share.
fn server_config(parts: Parts, ticketer: Arc<dyn ProducesTickets>) -> Result<Arc<ServerConfig>, TerminatorError> {
    let Parts { names, versions, verifier, http2, .. } = parts;
    let challenges = names.answers_challenges();
    let mut config = ServerConfig::builder_with_provider(super::provider())
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(names));
    let offered: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
    let challenge = challenges.then_some(challenge::PROTOCOL);
    config.alpn_protocols = offered.iter().copied().chain(challenge).map(<[u8]>::to_vec).collect();
    // The provider lists its cipher suites from the strongest to the weakest; the client's order is ignored.
    config.ignore_client_order = true;
    // Sessions resume by tickets alone, without state per client. The ticket carries the client's certificate, which is
    // not verified again, so a ticket (valid for twelve hours at most) outlives a certificate that expires or is
    // revoked in the meantime.
    config.ticketer = ticketer;
    // Each resumed connection receives a new ticket, so one is enough; the default of two costs twice as much.
    config.send_tls13_tickets = 1;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

fn facts(session: &CommonState, server_name: Option<Arc<str>>) -> TlsFacts {
    let leaf = session.peer_certificates().and_then(<[_]>::first);
    TlsFacts {
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            _ => "1.2", // the only other version that is enabled
        },
        group: session.negotiated_key_exchange_group().and_then(|group| group.name().as_str()),
        protocol: match session.alpn_protocol() {
            Some(b"h2") => Protocol::H2,
            _ => Protocol::H1, // also without ALPN
        },
        server_name,
        client: leaf
            .map(|leaf| Arc::new(ClientCertificate::new(fingerprint::sha256(leaf), fingerprint::subject(leaf)))),
    }
}

#[cfg(test)]
mod tests;
