//! Certificates by name, clients' certificates, and both in the headers to the app and in the log.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use pulsegate_test_kit::client::{Neighbour, Tls, upgrade_head};
use pulsegate_test_kit::http1::Response;
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::PULSEGATE;

/// An authority other than that of the proxy's own certificate, and a folder for its files.
struct Authority {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        Self { dir: TempDir::with_prefix("pulsegate-tls-").expect("a folder"), issuer }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).expect("write a PEM file");
        path
    }

    fn pem(&self) -> PathBuf {
        self.write("ca.pem", &self.issuer.pem())
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a valid name");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("a certificate"), key)
    }

    /// Returns a section that presents a certificate to clients that ask for `name`.
    fn section(&self, name: &str) -> String {
        let (certificate, key) = self.sign(name);
        let certificate = self.write(&format!("{name}.pem"), &certificate.pem());
        let key = self.write(&format!("{name}.key"), &key.serialize_pem());
        format!(
            "[[tls.sni]]\nnames = [\"{name}\"]\ncertificate = \"{}\"\nprivate_key = \"{}\"\n",
            certificate.display(),
            key.display()
        )
    }

    /// Returns a client that presents a certificate of this authority.
    fn client(&self, proxy: &Proxy, name: &str) -> Arc<ClientConfig> {
        let (certificate, key) = self.sign(name);
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8");
        let mut roots = RootCertStore::empty();
        let server = fs::read_to_string(&proxy.pki.ca).expect("the proxy's authority");
        roots.add(pem(&server)).expect("a usable root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate.der().clone()], key)
            .expect("a pair");
        Arc::new(config)
    }
}

fn pem(text: &str) -> CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(text.as_bytes()).expect("one certificate")
}

async fn connect(proxy: &Proxy, config: Arc<ClientConfig>, name: &'static str) -> std::io::Result<Tls> {
    let name = ServerName::try_from(name).expect("a valid name");
    wait_for("the TLS handshake", TlsConnector::from(config).connect(name, proxy.tcp().await)).await
}

/// Returns the request as the app saw it.
fn seen(answer: &Response) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).expect("JSON")
}

const REQUEST: &str = "GET /request HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Client-Cert: Hash=forged\r\n\r\n";

#[tokio::test]
async fn the_app_gets_the_subject_of_the_clients_certificate() {
    let app = NodeApp::bare().await;
    let authority = Authority::new("another authority");
    let ca = authority.pem();
    let tls = format!("client_auth = {{ mode = \"optional\", ca = \"{}\" }}", ca.display());
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).tls(&tls)).await;

    let mut stream = connect(&proxy, authority.client(&proxy, "ann.example"), "localhost").await.expect("welcome");
    let value = seen(&proxy.ask(&mut stream, REQUEST.as_bytes()).await)["headers"]["x-forwarded-client-cert"].clone();
    let value = value.as_str().expect("the header");
    let (hash, subject) = value.split_once(';').expect("two elements");
    assert_eq!(subject, "Subject=\"CN=ann.example\"");
    let hash = hash.strip_prefix("Hash=").expect("the hash first");
    assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{value}");

    // A client without a certificate is served too, and cannot forge one.
    let mut stream = proxy.tls().await;
    let headers = seen(&proxy.ask(&mut stream, REQUEST.as_bytes()).await)["headers"].clone();
    assert!(headers.get("x-forwarded-client-cert").is_none(), "{headers}");
    proxy.finish().await;
}

#[tokio::test]
async fn a_client_without_a_valid_required_certificate_is_refused() {
    let app = NodeApp::bare().await;
    let authority = Authority::new("another authority");
    let ca = authority.pem();
    let tls = format!("client_auth = {{ mode = \"required\", ca = \"{}\" }}", ca.display());
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).tls(&tls)).await;
    let connections = proxy.connections();

    for (config, alert, outcome) in [
        (proxy.pki.client(), "CertificateRequired", "no_client_certificate"),
        (Authority::new("strangers").client(&proxy, "ann.example"), "UnknownCA", "bad_client_certificate"),
    ] {
        // With TLS 1.3 the client finishes first, and sees the refusal by reading.
        let error = match connect(&proxy, config, "localhost").await {
            Ok(mut stream) => wait_for("the alert", stream.read_u8()).await.map(drop),
            Err(error) => Err(error),
        };
        let error = error.expect_err("refused").to_string();
        assert!(error.contains(alert), "{error} instead of {alert}");
        let failed = |line: &pulsegate_test_kit::process::OutputLine| {
            line.json["message"] == "tls.handshake_failed" && line.json["outcome"] == outcome
        };
        proxy.line(outcome, failed).await;
    }
    let mut stream = connect(&proxy, authority.client(&proxy, "ann.example"), "localhost").await.expect("welcome");
    seen(&proxy.ask(&mut stream, REQUEST.as_bytes()).await);
    drop(stream);
    proxy.releases(connections).await;
    assert_eq!(app.events("open").len(), 0, "{}", app.transcript());
    proxy.finish().await;
}

#[tokio::test]
async fn each_name_has_its_certificate_and_an_unknown_one_none() {
    let app = NodeApp::bare().await;
    let authority = Authority::new("another authority");
    let config = Config::to(PULSEGATE, &app.url).tls("strict_sni = true").with(&authority.section("other.example"));
    let proxy = Proxy::start(config).await;
    let neighbour = Neighbour::join(&proxy, "/ws").await;

    let mut roots = RootCertStore::empty();
    roots.add(authority.issuer.der().clone()).expect("a usable root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    let mut stream = connect(&proxy, Arc::clone(&config), "other.example").await.expect("its certificate is there");
    let request = "GET /request HTTP/1.1\r\nHost: other.example\r\n\r\n";
    seen(&proxy.ask(&mut stream, request.as_bytes()).await);
    proxy.line("the name in the access line", |line| line.json["tls.client.server_name"] == "other.example").await;

    let refused = connect(&proxy, config, "unknown.example").await.expect_err("no certificate").to_string();
    assert!(refused.contains("UnrecognisedName"), "{refused}");
    let failed = |line: &pulsegate_test_kit::process::OutputLine| {
        line.json["outcome"] == "unknown_name"
            && line.json["error"].as_str().is_some_and(|error| error.contains("unknown.example"))
    };
    proxy.line("the refusal", failed).await;
    neighbour.echoes().await;
    drop(stream);
    proxy.finish().await;
}

#[tokio::test]
async fn every_response_says_for_how_long_https_it_is() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).tls("hsts = \"1h\"")).await;
    let mut stream = proxy.tls().await;
    for (request, status) in [
        (REQUEST.to_owned(), 200),
        ("GET /status/404 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 404),
        // Refused by the proxy.
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400),
        (format!("{}\r\n", upgrade_head("/ws")), 101),
    ] {
        let answer = proxy.ask(&mut stream, request.as_bytes()).await;
        assert_eq!(answer.status, status, "{answer:?}");
        let value: Vec<_> = answer.headers("strict-transport-security").collect();
        assert_eq!(value, ["max-age=3600"], "{request}");
        if status == 400 {
            stream = proxy.tls().await;
        }
    }
    let _ = stream.shutdown().await;
    proxy.finish().await;
}
