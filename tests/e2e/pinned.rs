//! An app behind TLS whose certificate is trusted by its key alone, and `pulsegate check --connect`.

use std::process::{Output, Stdio};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use pulsegate_test_kit::client::upgrade_head;
use pulsegate_test_kit::fake_app::RequestHead;
use pulsegate_test_kit::http1::read_head;
use pulsegate_test_kit::process::OutputLine;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PublicKeyData, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::PULSEGATE;

/// Answers every request over TLS, with a certificate that is signed by itself, is an authority's, is for another name and
/// has expired.
struct SelfSigned {
    url: String,
    /// The pin of its key, made without the code under test.
    pin: String,
    accepting: JoinHandle<()>,
}

impl SelfSigned {
    async fn start() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["other.example".to_owned()]).expect("a valid name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(2001, 9, 9);
        let certificate = params.self_signed(&key).expect("a certificate");
        let hash = digest(&SHA256, &key.subject_public_key_info());
        let pin = format!("sha256/{}", data_encoding::BASE64.encode(hash.as_ref()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .expect("a pair");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of the system's choice");
        let url = format!("https://{}", listener.local_addr().expect("a bound socket has an address"));
        let accepting = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // A client that does not trust the certificate closes here.
                    let Ok(mut stream) = acceptor.accept(tcp).await else { return };
                    while let Some(head) = read_head(&mut stream).await {
                        let request = RequestHead { head };
                        let answer = match request.header("upgrade") {
                            Some(_) => request.accept(),
                            None => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
                        };
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { url, pin, accepting }
    }
}

impl Drop for SelfSigned {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A pin that matches no key.
const OTHER: &str = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// Runs `pulsegate check` on a configuration with `upstream` as its section of that name.
async fn check(upstream: &str, arguments: &[&str]) -> (Option<i32>, String) {
    check_with(upstream, "", arguments).await
}

/// As [`check`], with more sections.
async fn check_with(upstream: &str, sections: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let dir = tempfile::TempDir::with_prefix("pulsegate-").expect("make a temporary directory");
    let pki = pulsegate_test_kit::pki::Pki::make(dir.path());
    let file = dir.path().join("proxy.toml");
    let (certificate, key) = (pki.certificate.display(), pki.private_key.display());
    let text = format!(
        "[tls]\ncertificate = \"{certificate}\"\nprivate_key = \"{key}\"\n[upstream]\n{upstream}\n{sections}\n"
    );
    std::fs::write(&file, text).expect("write the configuration");
    let mut command = Command::new(PULSEGATE);
    command.arg("check").arg("-c").arg(&file).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let Output { status, stdout, stderr } =
        wait_for("the end of the check", command.output()).await.expect("it starts");
    assert!(stderr.is_empty(), "{}", String::from_utf8_lossy(&stderr));
    (status.code(), String::from_utf8(stdout).expect("UTF-8"))
}

#[tokio::test]
async fn a_pinned_key_is_trusted_with_any_certificate() {
    let app = SelfSigned::start().await;
    for pin in [format!("\"{}\"", app.pin), format!("[\"{OTHER}\", \"{}\"]", app.pin)] {
        let config = Config::to(PULSEGATE, &app.url).upstream(&format!("tls = {{ pin = {pin} }}"));
        let proxy = Proxy::start(config).await;
        let mut stream = proxy.tls().await;
        let answer = proxy.ask(&mut stream, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!((answer.status, &*answer.body), (200, "ok"), "{pin}: {answer:?}");
        let answer = proxy.ask(&mut stream, format!("{}\r\n", upgrade_head("/")).as_bytes()).await;
        assert_eq!(answer.status, 101, "{pin}: {answer:?}");
        drop(stream);
        proxy.finish().await;
    }
}

#[tokio::test]
async fn another_key_is_a_502_and_the_log_names_the_pin_that_was_seen() {
    let app = SelfSigned::start().await;
    let config = Config::to(PULSEGATE, &app.url)
        .upstream(&format!("tls = {{ pin = \"{OTHER}\" }}"))
        .upstream("interval = \"200ms\"\ntimeout = \"200ms\"");
    let proxy = Proxy::start(config).await;
    let mut stream = proxy.tls().await;
    let answer = proxy.ask(&mut stream, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!((answer.status, &*answer.body), (502, "502 Bad Gateway: upstream_tls\n"), "{answer:?}");
    let seen = format!("its certificate has the key {}, which is not pinned", app.pin);
    let tells = |line: &OutputLine| {
        line.json["message"] == "upstream.unresponsive"
            && line.json["error"].as_str().is_some_and(|cause| cause.contains(&seen))
    };
    proxy.line("the pin that was seen", tells).await;
    drop(stream);
    proxy.finish().await;
}

#[tokio::test]
async fn a_check_that_connects_prints_the_pin_to_use() {
    let app = SelfSigned::start().await;
    let url = format!("url = \"{}\"", app.url);
    let (code, out) = check(&url, &[]).await;
    assert_eq!(code, Some(0), "without --connect nothing is tried: {out}");
    let (code, out) = check(&url, &["--connect"]).await;
    assert_eq!(code, Some(78), "{out}");
    let error = format!("error: {}: no TLS with the upstream at ", app.url);
    assert!(out.contains(&error), "{out}");
    assert!(out.contains(&format!("tls.pin = \"{}\"", app.pin)), "{out}");

    let pinned = |pin: &str| format!("{url}\ntls = {{ pin = \"{pin}\" }}");
    let (code, out) = check(&pinned(&app.pin), &["--connect"]).await;
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains(&format!("connects     {}: answered OPTIONS *", app.url)), "{out}");
    let (code, out) = check(&pinned(OTHER), &["--connect", "--format", "json"]).await;
    assert_eq!(code, Some(78), "{out}");
    let said: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&said["valid"], &said["errors"][0]["pin"]), (&false.into(), &app.pin.clone().into()), "{said}");
    assert_eq!(said["connects"][0]["upstream"], app.url);
}

#[tokio::test]
async fn a_check_that_connects_prints_cause_and_remedy_for_every_app() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of the system's choice");
    let address = listener.local_addr().expect("a bound socket has an address");
    drop(listener);
    let refused = format!("url = \"http://{address}\"");
    let route = "[[route]]\npath = \"/a/\"\nupstream = \"unix:/nowhere/app.sock\"";
    let (code, out) = check_with(&refused, route, &["--connect"]).await;
    assert_eq!(code, Some(78), "{out}");
    assert!(out.contains(&format!("error: http://{address}: cannot connect to the upstream at {address}")), "{out}");
    assert!(out.contains("start the app, or correct `url` in [upstream]"), "{out}");
    assert!(
        out.contains("error: unix:/nowhere/app.sock: cannot connect to the upstream at /nowhere/app.sock"),
        "{out}"
    );
    let (_, out) = check_with(&refused, route, &["--connect", "--format", "json"]).await;
    let said: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(said["errors"].as_array().map(Vec::len), Some(2), "{said}");
    assert_eq!(said["errors"][0]["help"], "start the app, or correct `url` in [upstream]");
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port of the system's choice");
    let address = silent.local_addr().expect("a bound socket has an address");
    // The kernel accepts in its place.
    let (code, out) = check(&format!("url = \"http://{address}\"\ntimeout = \"500ms\""), &["--connect"]).await;
    assert_eq!(code, Some(78), "{out}");
    assert!(out.contains("OPTIONS *: no response within 500ms"), "{out}");
    drop(silent);
}
