//! Bytes on the TLS port that are no TLS, or never become a request.

use std::time::{Duration, Instant};

use pulsegate_test_kit::client::Neighbour;
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::process::OutputLine;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::PULSEGATE;
use crate::e2e::frames::noise;

/// The time limit for a handshake and for a request head, after which the connection is closed.
const LIMITS: &str = "[limits]\nhandshake = \"600ms\"\nheader_read = \"600ms\"\n";
const LIMIT: Duration = Duration::from_millis(600);
/// The time by which a timer may seem early from outside.
const GRAIN: Duration = Duration::from_millis(50);

struct Scene {
    _app: NodeApp,
    proxy: Proxy,
    neighbour: Neighbour,
    connections: usize,
}

impl Scene {
    async fn open() -> Self {
        let app = NodeApp::bare().await;
        let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(LIMITS)).await;
        let neighbour = Neighbour::join(&proxy, "/ws").await;
        let connections = proxy.connections();
        Self { _app: app, proxy, neighbour, connections }
    }

    /// Asserts that the log has the outcome of a failed handshake.
    async fn logs(&self, outcomes: &[&str]) {
        let failed = |line: &OutputLine| line.json["message"] == "tls.handshake_failed";
        let known = |line: &OutputLine| outcomes.iter().any(|outcome| line.json["outcome"] == *outcome);
        self.proxy.line(&format!("a failed handshake, {outcomes:?}"), |line| failed(line) && known(line)).await;
    }

    /// Asserts that the neighbour works, no socket is left, and nothing panicked.
    async fn survives(self) {
        self.neighbour.echoes().await;
        self.proxy.releases(self.connections).await;
        self.proxy.finish().await;
    }
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_turned_away() {
    let scene = Scene::open().await;
    let mut stream = scene.proxy.tcp().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("the kernel takes it");
    let answer = until_the_end(&mut stream).await;
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    scene.logs(&["plain_http"]).await;
    scene.survives().await;
}

#[tokio::test]
async fn garbage_on_the_tls_port_is_turned_away() {
    let scene = Scene::open().await;
    for size in [1, 5, 4_096, 100_000] {
        let mut stream = scene.proxy.tcp().await;
        // The proxy may close before it has taken everything.
        let _ = stream.write_all(&noise(size)).await;
        until_the_end(&mut stream).await;
    }
    scene.logs(&["not_tls"]).await;
    scene.survives().await;
}

#[tokio::test]
async fn a_tls_client_that_never_finishes_is_hung_up_on() {
    let scene = Scene::open().await;
    // The first half of a ClientHello record, or nothing at all.
    for beginning in [&[][..], &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03][..]] {
        let began = Instant::now();
        let mut stream = scene.proxy.tcp().await;
        stream.write_all(beginning).await.expect("the kernel takes it");
        until_the_end(&mut stream).await;
        let took = began.elapsed();
        assert!(took + GRAIN >= LIMIT, "closed after {took:?} already");
    }
    scene.logs(&["timeout"]).await;
    scene.survives().await;
}

#[tokio::test]
async fn a_request_head_that_never_ends_is_hung_up_on() {
    let scene = Scene::open().await;
    let mut stream = scene.proxy.tls().await;
    stream.write_all(b"GET /request HTTP/1.1\r\nHost: loc").await.expect("the session lives");
    stream.flush().await.expect("the session lives");
    let answer = until_the_end(&mut stream).await;
    assert!(answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
    let reason = |line: &OutputLine| line.json["message"] == "http.reject" && line.json["reason"] == "header_timeout";
    scene.proxy.line("an http.reject for the head", reason).await;
    scene.survives().await;
}

#[tokio::test]
async fn a_client_that_rejects_the_certificate_does_no_harm() {
    let scene = Scene::open().await;
    let other_proxy = Proxy::start(Config::to(PULSEGATE, "http://127.0.0.1:9")).await;
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a valid name");
    let connector = tokio_rustls::TlsConnector::from(other_proxy.pki.client());
    let handshake = connector.connect(name, scene.proxy.tcp().await);
    wait_for("the handshake fails", handshake).await.expect_err("an unknown authority");
    scene.logs(&["alert"]).await;
    other_proxy.finish().await;
    scene.survives().await;
}

/// Returns the bytes until the other side closes, by FIN or by RST.
async fn until_the_end(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = wait_for("the proxy closes", stream.read_to_end(&mut bytes)).await;
    bytes
}
