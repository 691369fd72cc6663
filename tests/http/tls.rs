//! An app behind TLS: an authority, a certificate for `app.test`, and one for the proxy as a client.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pulsegate::config::{UpstreamTarget, UpstreamTls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::support::{LogPage, Wire};

/// The only name in the app's certificate.
pub const NAME: &str = "app.test";

/// The app's request for a certificate of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    Nobody,
    Everybody,
}

/// The app: a listener, and the files that go with it.
pub struct TlsApp {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    dir: TempDir,
}

impl TlsApp {
    pub async fn start(asks: Asks) -> Self {
        LogPage::install();
        let dir = TempDir::with_prefix("pulsegate-http-").unwrap();
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let issue = |name: &str, usage| {
            let key = KeyPair::generate().unwrap();
            let mut leaf = CertificateParams::new([name.to_owned()]).unwrap();
            leaf.extended_key_usages.push(usage);
            (leaf.signed_by(&key, &authority).unwrap(), key)
        };
        let (server, server_key) = issue(NAME, ExtendedKeyUsagePurpose::ServerAuth);
        let (proxy, proxy_key) = issue("proxy.test", ExtendedKeyUsagePurpose::ClientAuth);
        for (file, text) in [("ca", authority.pem()), ("proxy", proxy.pem()), ("proxy.key", proxy_key.serialize_pem())]
        {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let builder = match asks {
            Asks::Nobody => builder.unwrap().with_no_client_auth(),
            Asks::Everybody => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
                builder.unwrap().with_client_cert_verifier(verifier)
            }
        };
        let key = PrivateKeyDer::try_from(server_key.serialize_der()).unwrap();
        let mut config = builder.with_single_cert(vec![server.der().clone()], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)), dir }
    }

    pub fn target(&self) -> UpstreamTarget {
        UpstreamTarget::Tcp { host: "127.0.0.1".into(), port: self.listener.local_addr().unwrap().port() }
    }

    /// Returns the settings of a proxy that trusts its authority and uses its name.
    pub fn tls(&self) -> UpstreamTls {
        UpstreamTls {
            pins: Vec::new(),
            ca: Some(self.dir.path().join("ca")),
            identity: None,
            server_name: Some(NAME.into()),
        }
    }

    /// As [`Self::tls`], with a certificate of the proxy's own.
    pub fn tls_with_identity(&self) -> UpstreamTls {
        let files = (self.dir.path().join("proxy"), self.dir.path().join("proxy.key"));
        UpstreamTls { identity: Some(files), ..self.tls() }
    }

    /// Returns the result of the handshake with the proxy's next connection.
    pub async fn handshake(&self) -> io::Result<TlsStream<TcpStream>> {
        let both = async { self.acceptor.accept(self.listener.accept().await?.0).await };
        timeout(Duration::from_secs(10), both).await.expect("the proxy did not connect")
    }

    /// Accepts the proxy's next connection.
    pub async fn accept(&self) -> Wire<TlsStream<TcpStream>> {
        Wire::new("app", self.handshake().await.unwrap())
    }
}
