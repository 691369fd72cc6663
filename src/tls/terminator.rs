//! The handshake: TLS 1.3 or 1.2, under a deadline, with an answer even for those who do not speak TLS.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{NoServerSessionStorage, ProducesTickets, UnbufferedServerConnection, VerifierBuilderError};
use rustls::{AlertDescription, CommonState, ProtocolVersion, ServerConfig};
use thiserror::Error;
use tokio::net::TcpStream;

use super::names::{self, Asked};
use super::opening::{self, Opening};
use super::terms::{Clients, Parts, Terms};
use super::{Certificate, ClientStream, fingerprint};
use crate::http::{ClientCertificate, Protocol, TlsFacts};
use crate::suspension::{self, Deadline};

/// Turns TCP connections into [`ClientStream`]s; shared by all workers, so that a ticket of one is good for all.
pub struct Terminator {
    pub(super) config: Arc<ServerConfig>,
    clients: Clients,
    certificates: Vec<Certificate>,
}

/// Why no [`Terminator`] could be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TerminatorError {
    /// The TLS library refuses to begin.
    #[error("the TLS library cannot start: {0}")]
    Library(#[from] rustls::Error),
    /// It finds no use for the authorities of clients' certificates.
    #[error("clients' certificates cannot be verified: {0}")]
    Clients(#[from] VerifierBuilderError),
}

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
    /// The client asked for no name, or for one that no certificate is for, and such clients are refused
    /// (`unrecognized_name`, RFC 6066 §3).
    #[error("no certificate for {}", .0.as_deref().unwrap_or("a client that names no server"))]
    UnknownName(Option<Arc<str>>),
    /// The client has no certificate, or not one that is believed; the alert says which.
    #[error("the client's certificate: {0}")]
    ClientCertificate(#[source] rustls::Error),
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
            Self::UnknownName(_) => "unknown_name",
            Self::ClientCertificate(rustls::Error::NoCertificatesPresented) => "no_client_certificate",
            Self::ClientCertificate(_) => "bad_client_certificate",
            Self::Refused(_) => "refused",
        }
    }

    /// Whether it happens all day where nothing is wrong: TCP health checks connect and go.
    pub fn is_routine(&self) -> bool {
        matches!(self, Self::PeerGone(_))
    }

    fn of_library(error: io::Error, asked: Asked) -> Self {
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
    /// A terminator on these terms; an identity alone is presented to everybody, of whom nothing is asked.
    pub fn new(terms: impl Into<Terms>) -> Result<Self, TerminatorError> {
        Self::with_tickets(terms.into(), |_| Ticketer::new())
    }

    /// The terminator that takes this one's place. Tickets made before are good for it, unless other clients are let in
    /// now: a ticket carries the certificate that its client showed, which nobody verifies again.
    pub fn renewed(&self, terms: Terms) -> Result<Self, TerminatorError> {
        Self::with_tickets(terms, |clients| {
            if clients.equal(&self.clients) { Ok(Arc::clone(&self.config.ticketer)) } else { Ticketer::new() }
        })
    }

    /// This one for a port on which HTTP/1.1 alone is spoken.
    #[must_use]
    pub fn http1(&self) -> Self {
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { config: Arc::new(config), clients: self.clients.clone(), certificates: self.certificates.clone() }
    }

    /// The certificates that it shows, the one for names that no other is for first.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    fn with_tickets(
        terms: Terms,
        tickets: impl FnOnce(&Clients) -> Result<Arc<dyn ProducesTickets>, rustls::Error>,
    ) -> Result<Self, TerminatorError> {
        let parts = terms.into_parts()?;
        let (clients, certificates) = (parts.clients.clone(), parts.certificates.clone());
        let ticketer = tickets(&clients)?;
        Ok(Self { config: server_config(parts, ticketer)?, clients, certificates })
    }

    /// Performs the handshake on a fresh connection, to be done by `deadline`.
    ///
    /// A peer that is refused may hold the call for one more second, in which it reads why.
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
            HandshakeError::PlainHttp => opening::part(failure.tcp, opening::USE_HTTPS).await,
            HandshakeError::UnknownName(_) | HandshakeError::ClientCertificate(_) | HandshakeError::Refused(_) => {
                opening::part(failure.tcp, &[]).await;
            }
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
        let mut asked = Asked::default();
        let greeted = poll_fn(|cx| {
            let progress = stream.poll_handshake(cx);
            asked = names::asked().unwrap_or_else(|| std::mem::take(&mut asked));
            progress
        });
        match greeted.await {
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

/// A handshake that failed, with the connection that is to be closed.
struct Failure {
    error: HandshakeError,
    tcp: TcpStream,
}

/// What every connection is offered.
fn server_config(parts: Parts, ticketer: Arc<dyn ProducesTickets>) -> Result<Arc<ServerConfig>, TerminatorError> {
    let Parts { names, versions, verifier, http2, .. } = parts;
    let mut config = ServerConfig::builder_with_provider(super::provider())
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(names));
    let offered: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
    config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
    // The provider lists its suites from the strongest to the weakest; a client's own order may not weaken that.
    config.ignore_client_order = true;
    // Resumption by tickets alone: nothing is kept per client. A client's certificate travels in its ticket; it is not
    // verified again, so a ticket (twelve hours at most) outlives a certificate that expires or is revoked meanwhile.
    config.ticketer = ticketer;
    // Each connection that resumes gets a fresh one: one is enough, and costs half of two.
    config.send_tls13_tickets = 1;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

fn facts(session: &CommonState, server_name: Option<Arc<str>>) -> TlsFacts {
    let leaf = session.peer_certificates().and_then(<[_]>::first);
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
        server_name,
        client: leaf
            .map(|leaf| Arc::new(ClientCertificate::new(fingerprint::sha256(leaf), fingerprint::subject(leaf)))),
    }
}

#[cfg(test)]
#[path = "terminator_tests.rs"]
mod tests;
