//! A certificate authority for one test, with a certificate for localhost.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

/// A certificate authority, with the PEM files of its own certificate and of one server.
#[derive(Clone, Debug)]
pub struct Pki {
    /// The file of the authority's own certificate, for clients.
    pub ca: PathBuf,
    /// The file of the server's chain.
    pub certificate: PathBuf,
    /// The file of the server's key.
    pub private_key: PathBuf,
    root: CertificateDer<'static>,
}

impl Pki {
    /// Makes an authority and a certificate for `localhost` and 127.0.0.1; writes all of it as PEM into `dir`.
    pub fn make(dir: &Path) -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "pulsegate test authority");
        let authority = CertifiedIssuer::self_signed(authority, key()).expect("self-sign the authority");

        let names = ["localhost", "127.0.0.1"].map(String::from);
        let mut leaf = CertificateParams::new(names).expect("both names are valid");
        leaf.distinguished_name.push(DnType::CommonName, "localhost");
        leaf.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        let leaf_key = key();
        let leaf = leaf.signed_by(&leaf_key, &authority).expect("sign the leaf");

        let write = |name: &str, pem: String| {
            let path = dir.join(name);
            fs::write(&path, pem).expect("write a PEM file");
            path
        };
        Self {
            ca: write("ca.pem", authority.pem()),
            certificate: write("server.pem", leaf.pem()),
            private_key: write("server.key", leaf_key.serialize_pem()),
            root: authority.der().clone(),
        }
    }

    /// Returns a TLS client that trusts this authority alone and offers HTTP/1.1.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.client_of("http/1.1")
    }

    /// Returns a TLS client that trusts this authority alone and offers `protocol` in ALPN.
    pub fn client_of(&self, protocol: &str) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("the authority is well-formed");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Arc::new(config)
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("generate a key")
}
