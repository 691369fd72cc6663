//! The TLS client of `pulsegate ping`, and of the proxy for apps behind https.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, ProtocolVersion, RootCertStore, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::contents::{Contents, PemKind};
use super::{Identity, fingerprint, identity};
use crate::config::{FileCache, Pin, TlsFault, TlsRole};

/// A TLS stream of which this side is the client.
pub type Stream<S> = tokio_rustls::client::TlsStream<S>;

/// The server certificates that a client accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Certificates signed by an authority of the system's store.
    System,
    /// Certificates signed by an authority of one PEM file, and no others.
    File(PathBuf),
    /// Certificates with one of these public keys; name, validity period and issuer are not checked.
    Keys(Vec<Pin>),
    /// Every certificate. The signature of the handshake is still verified, so the peer holds the private key of the
    /// certificate that it presents.
    AnyCertificate,
}

/// An error that prevents the set of trusted authorities from being loaded.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read, or its PEM is malformed.
    #[error("cannot read certificates from {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of reading or of decoding.
        source: pem::Error,
    },
    /// The file holds no certificate.
    #[error("{path} holds no usable certificate: a CA's certificate in PEM is expected")]
    Empty {
        /// The file.
        path: PathBuf,
        /// The kind of its contents.
        contents: Contents,
    },
    /// One certificate of the file cannot be parsed.
    #[error("{path} holds a malformed certificate")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The fault of the certificate.
        source: rustls::Error,
    },
    /// The system's store holds no usable certificate.
    #[error("this machine trusts no authority{}", first_problem(.problems))]
    NoSystemRoots {
        /// The errors met while the store was read.
        problems: Vec<rustls_native_certs::Error>,
    },
}

impl TrustError {
    /// Returns the remedy, where one is known.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Unreadable { source: pem::Error::Io(error), .. } => identity::unreadable(error),
            Self::Unreadable { .. } | Self::Malformed { .. } => {
                Some("ask the authority for its certificate in PEM: \"BEGIN CERTIFICATE\" sections".to_owned())
            }
            Self::Empty { contents: Contents::Pem(kind) | Contents::Der(kind), .. } if kind.is_key() => {
                Some("name the file of the authority's certificate".to_owned())
            }
            Self::Empty { path, contents } => contents.remedy(PemKind::Certificate, path),
            Self::NoSystemRoots { .. } => {
                Some("install the package ca-certificates, or name the authorities of the app in `ca`".to_owned())
            }
        }
    }
}

impl From<&TrustError> for TlsFault {
    fn from(error: &TrustError) -> Self {
        let file = match error {
            TrustError::Unreadable { path, .. }
            | TrustError::Empty { path, .. }
            | TrustError::Malformed { path, .. } => path.clone(),
            TrustError::NoSystemRoots { .. } => PathBuf::new(),
        };
        let because = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
        Self { role: TlsRole::Authorities, file, what: format!("{error}{because}"), help: error.help() }
    }
}

/// An error that ends a handshake as a client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// The host is neither a DNS name nor an IP address, so no certificate can name it.
    #[error("{host:?} cannot be the name in a certificate")]
    Name {
        /// The host.
        host: Box<str>,
    },
    /// No trusted authority signed the certificate chain.
    #[error("its certificate is signed by an authority that is not trusted here")]
    UnknownAuthority,
    /// The public key of the certificate is not pinned.
    #[error("its certificate has the key {seen}, which is not pinned; if its key was changed, set tls.pin to this one")]
    Pin {
        /// The pin of that key.
        seen: Pin,
    },
    /// The certificate is refused for another reason, such as its names or its validity period.
    #[error("its certificate is not acceptable{}", self_signed_hint(.0))]
    Certificate(#[source] rustls::Error),
    /// The peer answered with bytes that are not TLS.
    #[error("it does not speak TLS")]
    NotTls,
    /// Another violation of the protocol, or an alert from the peer.
    #[error("the TLS handshake failed")]
    Protocol(#[source] rustls::Error),
    /// An error of the underlying stream.
    #[error("the connection broke during the TLS handshake")]
    Io(#[source] io::Error),
}

impl ConnectorError {
    /// Returns whether the certificate was refused as untrusted, so that a pin of its key could replace the trust.
    pub fn is_untrusted(&self) -> bool {
        matches!(self, Self::UnknownAuthority | Self::Certificate(rustls::Error::InvalidCertificate(_)))
    }

    /// Returns whether the certificate was refused because it does not name the host.
    pub fn is_wrong_name(&self) -> bool {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        let Self::Certificate(rustls::Error::InvalidCertificate(why)) = self else { return false };
        matches!(why, NotValidForName | NotValidForNameContext { .. })
    }
}

/// Returns a hint if the certificate is a CA's. OpenSSL makes self-signed certificates CAs by default, and a CA's
/// certificate is refused as a server's own.
fn self_signed_hint(error: &rustls::Error) -> &'static str {
    // The error of the verifier is recognised by its text; it has no variant of its own.
    if error.to_string().contains("CaUsedAsEndEntity") {
        ", for it is a CA's; one signed by itself is made with `-addext basicConstraints=critical,CA:FALSE`"
    } else {
        ""
    }
}

/// A TLS client: performs handshakes over plain streams with one configuration.
#[derive(Clone)]
pub struct TlsClient {
    connector: TlsConnector,
}

impl TlsClient {
    /// As [`load`](Self::load), with files that are read for this client alone.
    pub fn new(trust: &Trust, identity: Option<&Identity>) -> Result<Self, TrustError> {
        Self::load(trust, identity, &FileCache::default())
    }

    /// A client that trusts what `trust` names, and presents `identity` to a server that asks for a certificate. A file of
    /// authorities is read through `cache`.
    #[expect(clippy::missing_panics_doc, reason = "the provider is fixed, and fits")]
    pub fn load(trust: &Trust, identity: Option<&Identity>, cache: &FileCache) -> Result<Self, TrustError> {
        let provider = super::provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs has cipher suites for TLS 1.2 and 1.3");
        let builder = match trust {
            Trust::System => builder.with_root_certificates(system_roots()?),
            Trust::File(path) => builder.with_root_certificates(roots_of(path, cache)?),
            Trust::Keys(pins) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(KeyHolder { provider, pins: Some(pins.clone()) })),
            Trust::AnyCertificate => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(KeyHolder { provider, pins: None }))
            }
        };
        let mut config = match identity {
            Some(identity) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&identity.key))))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Performs the handshake over `stream`. The peer has to prove that it is `host`, a DNS name or an IP address
    /// without brackets.
    ///
    /// # Errors
    ///
    /// `host` cannot stand in a certificate, the stream breaks, the peer violates the protocol, or its certificate is
    /// refused.
    pub async fn handshake<S>(&self, host: &str, stream: S) -> Result<Stream<S>, ConnectorError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| ConnectorError::Name { host: host.into() })?;
        self.connector.connect(name, stream).await.map_err(ConnectorError::from)
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// Returns version and key exchange group of a finished handshake, as text: `TLS 1.3, X25519MLKEM768`.
pub fn negotiated<S>(stream: &Stream<S>) -> String {
    let (_, session) = stream.get_ref();
    let version = session.protocol_version().and_then(|version| match version {
        ProtocolVersion::TLSv1_2 => Some("TLS 1.2"),
        ProtocolVersion::TLSv1_3 => Some("TLS 1.3"),
        other => other.as_str(),
    });
    let group = session.negotiated_key_exchange_group().and_then(|group| group.name().as_str());
    [version, group].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Returns the pin of the peer's public key; `None` if the peer presented no certificate that can be parsed.
pub fn pin_of<S>(stream: &Stream<S>) -> Option<Pin> {
    let (_, session) = stream.get_ref();
    session.peer_certificates().and_then(<[_]>::first).and_then(fingerprint::pin)
}

impl From<io::Error> for ConnectorError {
    /// Unpacks the `rustls::Error` that tokio-rustls returns inside an `io::Error`.
    fn from(error: io::Error) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => Self::UnknownAuthority,
            Ok(error @ rustls::Error::InvalidCertificate(_)) => match not_pinned(&error) {
                Some(seen) => Self::Pin { seen },
                None => Self::Certificate(error),
            },
            Ok(rustls::Error::InvalidMessage(_)) => Self::NotTls,
            Ok(other) => Self::Protocol(other),
            Err(error) => Self::Io(error),
        }
    }
}

fn system_roots() -> Result<RootCertStore, TrustError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A certificate of the system's store that cannot be parsed is skipped; the others stay trusted.
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        return Err(TrustError::NoSystemRoots { problems: found.errors });
    }
    Ok(roots)
}

/// Returns the authorities in a PEM file.
pub(super) fn roots_of(path: &Path, cache: &FileCache) -> Result<RootCertStore, TrustError> {
    let unreadable = |source| TrustError::Unreadable { path: path.into(), source };
    let text = cache.read(path).map_err(|error| unreadable(pem::Error::Io(error)))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        roots
            .add(certificate.map_err(unreadable)?)
            .map_err(|source| TrustError::Malformed { path: path.into(), source })?;
    }
    if roots.is_empty() {
        return Err(TrustError::Empty { path: path.into(), contents: Contents::of(&text) });
    }
    Ok(roots)
}

fn first_problem(problems: &[rustls_native_certs::Error]) -> String {
    problems.first().map_or_else(String::new, |problem| format!(": {problem}"))
}

/// The error of a certificate whose public key is not pinned.
#[derive(Debug, thiserror::Error)]
#[error("the key {0} is not pinned")]
struct NotPinned(Pin);

fn not_pinned(error: &rustls::Error) -> Option<Pin> {
    let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(why))) = error else { return None };
    why.downcast_ref().map(|NotPinned(seen)| *seen)
}

/// A verifier that checks the handshake's signature against the key of the certificate, and that this key is pinned;
/// with `pins` at `None` every key is accepted.
#[derive(Debug)]
struct KeyHolder {
    provider: Arc<CryptoProvider>,
    pins: Option<Vec<Pin>>,
}

impl ServerCertVerifier for KeyHolder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(pins) = &self.pins {
            let seen = fingerprint::pin(end_entity).ok_or(CertificateError::BadEncoding)?;
            if !pins.contains(&seen) {
                return Err(CertificateError::Other(OtherError(Arc::new(NotPinned(seen)))).into());
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
