//! Tests of the server configurations of a port.

use std::fs;
use std::io;
use std::net::SocketAddr;

use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ALL_VERSIONS, ClientConfig, HandshakeKind};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::testing::{Authority, TIMEOUT, client, listen, within};
use super::super::{ClientStream, HandshakeError, Terminator};
use super::*;
use crate::config::SniCertificate;
use crate::http::TlsFacts;
use crate::suspension::Deadline;

type Versions = &'static [&'static SupportedProtocolVersion];

/// Both versions, one at a time.
static EACH: [Versions; 2] = [&[&TLS13], &[&TLS12]];

/// A folder with certificates of one authority, and settings that name them.
struct Files {
    dir: TempDir,
    servers: Authority,
    clients: Authority,
    settings: config::TlsSettings,
}

impl Files {
    /// Creates a default certificate for `localhost`.
    fn new() -> Self {
        let dir = TempDir::with_prefix("pulsegate-terms-").expect("a folder");
        let mut files = Self {
            dir,
            servers: Authority::new("servers"),
            clients: Authority::new("clients"),
            settings: config::TlsSettings::of("", ""),
        };
        let (certificate, private_key) = files.pair("default", &["localhost"]);
        files.settings = config::TlsSettings::of(certificate, private_key);
        files
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).expect("write");
        path
    }

    fn pair(&self, file: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.servers.sign(names);
        (
            self.write(&format!("{file}.pem"), &certificate.pem()),
            self.write(&format!("{file}.key"), &key.serialize_pem()),
        )
    }

    /// Adds a certificate with these names, presented to clients that ask for them.
    fn named(&mut self, names: &[&str]) {
        let (certificate, private_key) = self.pair(&names[0].replace('*', "any"), names);
        let names = names.iter().map(|name| (*name).into()).collect();
        self.settings.sni.push(SniCertificate { names, certificate, private_key });
    }

    fn ask(&mut self, how: fn(PathBuf) -> ClientAuth) {
        self.settings.client_auth = how(self.write("clients.pem", &self.clients.pem()));
    }

    fn terms(&self) -> Result<ServerConfigs, ServerConfigError> {
        ServerConfigs::from_pem_files(&self.settings, &FileCache::default())
    }

    async fn open(&self) -> Port {
        let (listener, address) = listen().await;
        let terminator = Terminator::new(self.terms().expect("sound files")).expect("terminator");
        Port { terminator, listener, address }
    }

    fn client(&self, versions: Versions) -> ClientConfig {
        client(&self.servers.certificate(), versions)
    }

    fn client_with(&self, versions: Versions, (certificate, key): (rcgen::Certificate, KeyPair)) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.servers.certificate()).expect("a usable root");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8");
        ClientConfig::builder_with_provider(super::super::provider())
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate.der().clone()], key)
            .expect("a pair")
    }
}

/// A terminator and the port on which it accepts.
struct Port {
    terminator: Terminator,
    listener: TcpListener,
    address: SocketAddr,
}

/// The outcome of a handshake on both sides. In TLS 1.3 the client may finish before the server refuses it; its first
/// read then returns the error.
struct Met {
    server: Result<(ClientStream, TlsFacts), HandshakeError>,
    client: io::Result<TlsStream<TcpStream>>,
}

impl Port {
    async fn meet(&self, name: &'static str, config: ClientConfig) -> Met {
        Box::pin(self.meet_with(name, &Arc::new(config))).await
    }

    async fn meet_with(&self, name: &'static str, config: &Arc<ClientConfig>) -> Met {
        let accept = async {
            let (tcp, _) = self.listener.accept().await.expect("accept");
            let mut met = self.terminator.handshake(tcp, Deadline::after(TIMEOUT)).await;
            if let Ok((stream, _)) = &mut met {
                stream.write_all(b"x").await.expect("write");
                stream.flush().await.expect("flush");
            }
            met
        };
        let connect = async {
            let tcp = TcpStream::connect(self.address).await?;
            let name = ServerName::try_from(name).expect("a valid name");
            let mut stream = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?;
            // Receives the tickets, or the alert.
            stream.read_u8().await?;
            Ok(stream)
        };
        let (server, client) = within("handshake", Box::pin(async { tokio::join!(accept, connect) })).await;
        Met { server, client }
    }
}

impl Met {
    fn facts(self) -> TlsFacts {
        self.server.expect("a handshake").1
    }

    /// Returns the leaf certificate that the client received.
    fn leaf(&self) -> CertificateDer<'static> {
        let (_, session) = self.client.as_ref().expect("connected").get_ref();
        session.peer_certificates().expect("shown")[0].clone().into_owned()
    }

    /// Returns the outcome label of the server's refusal, and the error of the client.
    fn refusal(self) -> (&'static str, String) {
        let outcome = self.server.map(|(_, facts)| facts).expect_err("refused").outcome();
        (outcome, self.client.map(|_| "connected").expect_err("refused").to_string())
    }
}

fn assert_refused(met: Met, outcome: &str, alert: &str) {
    let (label, error) = met.refusal();
    assert_eq!(label, outcome);
    assert!(error.contains(alert), "{error} instead of {alert}");
}

#[tokio::test]
async fn each_name_gets_its_certificate_and_is_remembered() {
    let mut files = Files::new();
    files.named(&["a.example"]);
    files.named(&["*.b.example"]);
    let port = files.open().await;
    let mut leaves = Vec::new();
    for name in ["localhost", "a.example", "x.b.example"] {
        for versions in EACH {
            let met = port.meet(name, files.client(versions)).await;
            leaves.push(met.leaf());
            assert_eq!(met.facts().server_name.as_deref(), Some(name));
        }
    }
    leaves.dedup();
    assert_eq!(leaves.len(), 3, "one certificate for each name");
}

#[tokio::test]
async fn a_client_with_another_name_gets_the_default_certificate_or_an_alert() {
    let mut files = Files::new();
    files.named(&["a.example"]);
    let port = files.open().await;
    let met = port.meet("localhost", files.client(ALL_VERSIONS)).await;
    let default = met.leaf();
    let mut nameless = files.client(ALL_VERSIONS);
    nameless.enable_sni = false;
    let met = port.meet("localhost", nameless.clone()).await;
    assert_eq!(met.leaf(), default);
    assert_eq!(met.facts().server_name, None);

    files.settings.strict_sni = true;
    let port = files.open().await;
    for versions in EACH {
        let met = port.meet("other.example", files.client(versions)).await;
        assert_refused(met, "unknown_name", "UnrecognisedName");
        let mut nameless = files.client(versions);
        nameless.enable_sni = false;
        assert_refused(port.meet("localhost", nameless).await, "unknown_name", "UnrecognisedName");
        // Clients that ask for a configured name are served, also after a refusal on the same thread.
        assert_eq!(port.meet("localhost", files.client(versions)).await.leaf(), default);
        assert_ne!(port.meet("a.example", files.client(versions)).await.leaf(), default);
    }
}

#[tokio::test]
async fn modern_speaks_nothing_older_than_1_3() {
    let mut files = Files::new();
    files.settings.modern = true;
    let port = files.open().await;
    assert_eq!(port.meet("localhost", files.client(ALL_VERSIONS)).await.facts().version, "1.3");
    assert_refused(port.meet("localhost", files.client(EACH[1])).await, "refused", "ProtocolVersion");
}

#[tokio::test]
async fn a_clients_certificate_is_verified_and_known() {
    for how in [ClientAuth::Optional, ClientAuth::Required] {
        let mut files = Files::new();
        files.ask(how);
        let port = files.open().await;
        for versions in EACH {
            let shown = files.clients.sign(&["ann"]);
            let der = shown.0.der().clone();
            let client = port.meet("localhost", files.client_with(versions, shown)).await.facts().client;
            let expected = crate::http::ClientCertificate::new(fingerprint(&der), Some("CN=ann".to_owned()));
            assert_eq!(client.as_deref(), Some(&expected), "{versions:?}");
        }
    }
}

fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    super::super::fingerprint::sha256(certificate)
}

#[tokio::test]
async fn a_missing_certificate_is_accepted_if_optional_and_refused_with_an_alert_if_required() {
    for versions in EACH {
        let mut files = Files::new();
        files.ask(ClientAuth::Optional);
        let port = files.open().await;
        assert_eq!(port.meet("localhost", files.client(versions)).await.facts().client, None);
        files.ask(ClientAuth::Required);
        let port = files.open().await;
        let met = port.meet("localhost", files.client(versions)).await;
        assert_refused(met, "no_client_certificate", "CertificateRequired");
    }
}

#[tokio::test]
async fn a_wrong_certificate_is_refused_with_the_right_alert_even_where_none_would_do() {
    for how in [ClientAuth::Optional, ClientAuth::Required] {
        let mut files = Files::new();
        files.ask(how);
        let port = files.open().await;
        for versions in EACH {
            let stranger = Authority::new("strangers").sign(&["ann"]);
            let met = port.meet("localhost", files.client_with(versions, stranger)).await;
            assert_refused(met, "bad_client_certificate", "UnknownCA");
            let expired = files.clients.sign_altered(&["ann"], |params| {
                params.not_before = rcgen::date_time_ymd(2020, 1, 1);
                params.not_after = rcgen::date_time_ymd(2021, 1, 1);
            });
            let met = port.meet("localhost", files.client_with(versions, expired)).await;
            assert_refused(met, "bad_client_certificate", "CertificateExpired");
        }
    }
}

#[tokio::test]
async fn a_resumed_session_is_still_the_same_client() {
    let mut files = Files::new();
    files.ask(ClientAuth::Required);
    files.named(&["a.example"]);
    let port = files.open().await;
    for versions in EACH {
        let config = Arc::new(files.client_with(versions, files.clients.sign(&["ann"])));
        let first = port.meet_with("a.example", &config).await.facts();
        assert!(first.client.is_some());
        let second = port.meet_with("a.example", &config).await;
        let (_, session) = second.client.as_ref().expect("connected").get_ref();
        assert_eq!(session.handshake_kind(), Some(HandshakeKind::Resumed), "{versions:?}");
        let second = second.facts();
        assert_eq!((second.client, second.server_name), (first.client, first.server_name));
    }
}

#[test]
fn files_that_do_not_fit_are_named() {
    let mut files = Files::new();
    let (certificate, private_key) = files.pair("odd", &["a.example", "*.c.example"]);
    for (name, fits) in
        [("a.example", true), ("*.c.example", true), ("b.example", false), ("*.b.example", false), ("*.example", false)]
    {
        let names = vec![name.into()];
        files.settings.sni =
            vec![SniCertificate { names, certificate: certificate.clone(), private_key: private_key.clone() }];
        match files.terms() {
            Ok(_) => assert!(fits, "{name}"),
            Err(error) => {
                assert!(!fits, "{name}: {error}");
                assert!(error.to_string().contains("odd.pem") && error.to_string().contains(name), "{error}");
            }
        }
    }
    files.settings.sni =
        vec![SniCertificate { names: vec!["a.example".into()], certificate, private_key: "nowhere.key".into() }];
    let error = files.terms().expect_err("no such key").to_string();
    assert!(error.starts_with("nowhere.key: cannot be read"), "{error}");
}

#[test]
fn authorities_that_cannot_be_used_are_named() {
    let mut files = Files::new();
    let key = fs::read_to_string(&files.settings.private_key).expect("the key");
    for (name, text, says) in [
        ("empty.pem", String::new(), "no usable certificate"),
        ("key.pem", key, "no usable certificate"),
        ("cut.pem", files.clients.pem()[..100].to_owned(), "cannot read certificates"),
    ] {
        files.settings.client_auth = ClientAuth::Required(files.write(name, &text));
        let error = files.terms().expect_err(name).to_string();
        assert!(error.contains(name) && error.contains(says), "{error}");
    }
    files.settings.client_auth = ClientAuth::Optional("nowhere.pem".into());
    let error = files.terms().expect_err("no such file").to_string();
    assert!(error.contains("nowhere.pem") && error.contains("No such file"), "{error}");
}

/// Replaces the terminator of `port` with one of the files' present terms.
fn renewed(port: Port, files: &Files) -> Port {
    let terminator = port.terminator.renewed(files.terms().expect("sound files")).expect("terminator");
    Port { terminator, ..port }
}

/// Returns how the client's handshake was done: in full, or resumed by the ticket of its last session.
fn kind(met: &Met) -> Option<HandshakeKind> {
    met.client.as_ref().expect("connected").get_ref().1.handshake_kind()
}

#[tokio::test]
async fn a_ticket_outlives_other_certificates_but_not_other_authorities_of_clients() {
    for versions in EACH {
        let mut files = Files::new();
        files.ask(ClientAuth::Required);
        let certificate = files.clients.sign(&["ann.example"]);
        let config = Arc::new(files.client_with(versions, certificate));
        let port = files.open().await;
        let met = Box::pin(port.meet_with("localhost", &config)).await;
        let first = met.leaf();
        assert_eq!(kind(&met), Some(HandshakeKind::Full));

        let (certificate, private_key) = files.pair("renewed", &["localhost"]);
        files.settings.certificate = certificate;
        files.settings.private_key = private_key;
        let port = renewed(port, &files);
        let met = Box::pin(port.meet_with("localhost", &config)).await;
        assert_eq!(kind(&met), Some(HandshakeKind::Resumed), "{versions:?}");
        let fresh = port.meet("localhost", files.client_with(versions, files.clients.sign(&["bea.example"]))).await;
        assert_ne!(fresh.leaf(), first, "who has no ticket is shown the new certificate");

        // Other client certificates are accepted now, and this client's is not among them, although its ticket carries
        // it.
        files.clients = Authority::new("other clients");
        files.ask(ClientAuth::Required);
        let port = renewed(port, &files);
        let met = Box::pin(port.meet_with("localhost", &config)).await;
        assert_eq!(met.server.map(|(_, facts)| facts).expect_err("a stranger").outcome(), "bad_client_certificate");
    }
}

#[tokio::test]
async fn a_ticket_carries_no_client_once_certificates_are_not_asked_for() {
    for versions in EACH {
        let mut files = Files::new();
        files.ask(ClientAuth::Optional);
        let config = Arc::new(files.client_with(versions, files.clients.sign(&["ann.example"])));
        let port = files.open().await;
        assert!(Box::pin(port.meet_with("localhost", &config)).await.facts().client.is_some());
        files.settings.client_auth = ClientAuth::Off;
        let port = renewed(port, &files);
        let met = Box::pin(port.meet_with("localhost", &config)).await;
        assert_eq!((kind(&met), met.facts().client), (Some(HandshakeKind::Full), None), "{versions:?}");
    }
}
