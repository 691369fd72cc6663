//! Identities made in memory, and TLS clients that trust them, for the tests of this and later stages.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Identity;

/// The limit of a wait in these tests: long enough for a busy machine, and reached only by a failure.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// Returns the output of `wait`; fails after [`TIMEOUT`].
pub(crate) async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    timeout(TIMEOUT, wait).await.unwrap_or_else(|_| panic!("{what}: not within {TIMEOUT:?}"))
}

/// An identity for `localhost`, and its certificate for a client to trust.
pub(crate) struct Localhost {
    pub(crate) identity: Identity,
    pub(crate) certificate: CertificateDer<'static>,
}

pub(crate) fn localhost() -> Localhost {
    let key = KeyPair::generate().expect("key");
    let certificate = certificate(&key);
    let identity = Identity::from_der(vec![certificate.der().to_vec()], key.serialize_der()).expect("a pair");
    Localhost { identity, certificate: certificate.der().clone() }
}

pub(crate) fn certificate(key: &KeyPair) -> rcgen::Certificate {
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a valid name");
    params.self_signed(key).expect("certificate")
}

/// An authority that signs certificates of servers and of clients.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("an authority"))
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Signs a certificate for `names`, the first of which is also its subject; `alter` may change its parameters
    /// first. Returns the certificate and its private key.
    pub(crate) fn sign_altered(
        &self,
        names: &[&str],
        alter: impl FnOnce(&mut CertificateParams),
    ) -> (rcgen::Certificate, KeyPair) {
        let owned: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(owned).expect("valid names");
        params.distinguished_name.push(DnType::CommonName, names[0]);
        alter(&mut params);
        let key = KeyPair::generate().expect("key");
        (params.signed_by(&key, &self.0).expect("a certificate"), key)
    }

    pub(crate) fn sign(&self, names: &[&str]) -> (rcgen::Certificate, KeyPair) {
        self.sign_altered(names, |_| {})
    }
}

/// Returns a client configuration with the library's defaults, which trusts one certificate.
pub(crate) fn client(
    trusted: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a usable root");
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

pub(crate) async fn connect(config: &Arc<ClientConfig>, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a valid name");
    TlsConnector::from(Arc::clone(config)).connect(name, tcp).await
}

/// Returns a listener on a free port of 127.0.0.1, and its address.
pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).await.expect("bind");
    let address = listener.local_addr().expect("address");
    (listener, address)
}
