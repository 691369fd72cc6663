//! An authority that the test plays: it knows its directory, hands out nonces and accounts, and answers all else as the test
//! says. It checks no signature.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use data_encoding::BASE64URL_NOPAD;
use pulsegate_test_kit::pki::Pki;
use pulsegate_test_kit::wait::wait_until;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A response.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Answer {
    pub(super) fn of(status: u16, body: impl Into<String>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// A problem document of ACME (RFC 8555 §6.7).
    pub(super) fn problem(status: u16, kind: &str, detail: &str) -> Self {
        let body = json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail });
        Self::of(status, body.to_string()).with("Content-Type", "application/problem+json")
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// An end of the connection without a response, and without the end that TLS has.
    pub(super) fn hang_up() -> Self {
        Self::of(0, "")
    }
}

/// A request: its path, and the payload of its JWS; null for one without.
type Asked = (String, Value);

/// A running authority.
pub(super) struct Authority {
    pub(super) directory: String,
    pub(super) pki: Pki,
    asked: Arc<Mutex<Vec<Asked>>>,
    _folder: TempDir,
}

impl Authority {
    /// Starts it; `answer` is asked first, and may leave a path to it with `None`.
    pub(super) async fn start(answer: impl Fn(&str, &str) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let folder = TempDir::with_prefix("pulsegate-authority-").expect("make a temporary directory");
        let pki = Pki::make(folder.path());
        let chain = CertificateDer::pem_file_iter(&pki.certificate).expect("a file").map(|one| one.expect("PEM"));
        let key = PrivateKeyDer::from_pem_file(&pki.private_key).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain.collect(), key)
            .expect("a pair");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("https://{}", listener.local_addr().expect("an address"));
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (known, here, answer) = (Arc::clone(&asked), base.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, known, here, answer) =
                    (acceptor.clone(), Arc::clone(&known), here.clone(), Arc::clone(&answer));
                // A client that leaves early is none of the test's.
                tokio::spawn(async move {
                    serve(tcp, acceptor, |path, payload| {
                        known.lock().expect("not poisoned").push((path.to_owned(), payload));
                        answer(&here, path).or_else(|| usual(&here, path)).unwrap_or_else(|| Answer::of(404, "nothing"))
                    })
                    .await
                });
            }
        });
        Self { directory: format!("{base}/dir"), pki, asked, _folder: folder }
    }

    /// Returns the payloads that came to `path` so far.
    pub(super) fn asked(&self, path: &str) -> Vec<Value> {
        let asked = self.asked.lock().expect("not poisoned");
        asked.iter().filter(|(at, _)| at.starts_with(path)).map(|(_, payload)| payload.clone()).collect()
    }

    /// Waits for the first request to `path`.
    pub(super) async fn was_asked(&self, path: &str) -> Value {
        wait_until(path, || self.asked(path), |asked| !asked.is_empty()).await.remove(0)
    }

    /// The file of its CA.
    pub(super) fn ca(&self) -> &PathBuf {
        &self.pki.ca
    }
}

/// The answers that every authority has.
fn usual(base: &str, path: &str) -> Option<Answer> {
    Some(match path {
        "/dir" => Answer::of(
            200,
            json!({
                "newNonce": format!("{base}/nonce"), "newAccount": format!("{base}/account"),
                "newOrder": format!("{base}/order"), "revokeCert": format!("{base}/revoke"),
                "keyChange": format!("{base}/key"), "renewalInfo": format!("{base}/renewal"),
            })
            .to_string(),
        ),
        "/nonce" => Answer::of(200, ""),
        "/account" => {
            Answer::of(201, json!({ "status": "valid" }).to_string()).with("Location", &format!("{base}/account/1"))
        }
        _ => return None,
    })
}

async fn serve(tcp: TcpStream, acceptor: TlsAcceptor, answer: impl Fn(&str, Value) -> Answer) -> Option<()> {
    let mut stream = acceptor.accept(tcp).await.ok()?;
    let mut read = Vec::new();
    let (head, length) = loop {
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
        let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        let length = end + 4 + length.unwrap_or(0);
        while read.len() < length {
            if stream.read_buf(&mut read).await.ok()? == 0 {
                return None;
            }
        }
        break (head, end + 4);
    };
    let path = head.split(' ').nth(1)?;
    let jws: Value = serde_json::from_slice(&read[length..]).unwrap_or_default();
    let payload = jws["payload"].as_str().and_then(|text| BASE64URL_NOPAD.decode(text.as_bytes()).ok());
    let payload = payload.and_then(|payload| serde_json::from_slice(&payload).ok()).unwrap_or_default();
    let Answer { status, headers, body } = answer(path, payload);
    if status == 0 {
        return None;
    }
    let length = body.len();
    let mut text = format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\nReplay-Nonce: bm9uY2U\r\n");
    for (name, value) in headers {
        write!(text, "{name}: {value}\r\n").expect("writing to a string");
    }
    text += "Connection: close\r\n\r\n";
    if !head.starts_with("HEAD ") {
        text += &body;
    }
    stream.write_all(text.as_bytes()).await.ok()?;
    stream.shutdown().await.ok()
}
