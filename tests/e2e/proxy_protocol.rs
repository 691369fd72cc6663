//! The PROXY protocol: the trusted sources, and the use of the header.

use pulsegate_test_kit::client::{Tls, upgrade_head};
use pulsegate_test_kit::http1::Response;
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::process::OutputLine;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use serde_json::Value;
use std::io::ErrorKind;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::TlsConnector;

use crate::PULSEGATE;

const TRUSTED: &str = "proxy_protocol = { trusted = [\"127.0.0.0/8\"] }";
const STRANGERS: &str = "proxy_protocol = { trusted = [\"192.0.2.0/24\"] }";
const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n";

async fn tls_behind(proxy: &Proxy, header: &[u8]) -> std::io::Result<Tls> {
    let mut tcp = proxy.tcp().await;
    tcp.write_all(header).await?;
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a valid name");
    wait_for("the TLS handshake", TlsConnector::from(proxy.pki.client()).connect(name, tcp)).await
}

fn refused(reason: &'static str) -> impl Fn(&OutputLine) -> bool {
    move |line| line.json["message"] == "connection.refused" && line.json["reason"] == reason
}

#[tokio::test]
async fn the_app_and_the_log_get_the_address_in_the_header() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).listen(TRUSTED)).await;
    let v2 = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[203, 0, 113, 9, 10, 0, 0, 1, 0x9c, 0x40, 1, 0xbb]].concat();
    for (header, address) in [(LINE, "192.0.2.7"), (&v2, "203.0.113.9"), (b"PROXY UNKNOWN\r\n", "127.0.0.1")] {
        let mut stream = tls_behind(&proxy, header).await.expect("welcome");
        let request = b"GET /request HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
        let answer = proxy.ask(&mut stream, request).await;
        let seen: Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(seen["headers"]["x-forwarded-for"], address, "{seen}");
        let is_access = |line: &OutputLine| {
            let client = line.json["client.address"].as_str().unwrap_or_default();
            line.json["message"] == "http.access" && client == address
        };
        proxy.line("the address in the access line", is_access).await;
    }
    // A WebSocket too.
    let mut stream = tls_behind(&proxy, LINE).await.expect("welcome");
    let answer = proxy.ask(&mut stream, format!("{}\r\n", upgrade_head("/ws")).as_bytes()).await;
    assert_eq!(answer.status, 101, "{answer:?}");
    let open = |line: &OutputLine| {
        line.json["message"] == "ws.open"
            && line.json["client.address"] == "192.0.2.7"
            && line.json["client.port"] == 40000
    };
    proxy.line("the address in ws.open", open).await;
    drop(stream);
    proxy.finish().await;
}

#[tokio::test]
async fn curl_and_its_header_are_understood() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).listen(TRUSTED)).await;
    let mut curl = Command::new("curl");
    curl.args(["--haproxy-protocol", "--silent", "--show-error", "--http1.1", "--cacert"]);
    curl.arg(&proxy.pki.ca).arg(proxy.https("/request")).kill_on_drop(true);
    let output = wait_for("curl ends", curl.output()).await.expect("curl starts");
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(seen["headers"]["x-forwarded-for"], "127.0.0.1", "{seen}");
    proxy.finish().await;
}

#[tokio::test]
async fn a_connection_without_a_whole_header_of_a_trusted_peer_is_refused() {
    let app = NodeApp::bare().await;
    let config = Config::to(PULSEGATE, &app.url).listen(TRUSTED).with("[limits]\nhandshake = \"600ms\"\n");
    let proxy = Proxy::start(config).await;
    let connections = proxy.connections();
    tls_behind(&proxy, b"").await.expect_err("a header is required");
    proxy.line("a refusal", refused("proxy_header")).await;
    for half in [&LINE[..20], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01"] {
        assert_eq!(end_of(proxy.address, half).await, ErrorKind::ConnectionReset);
    }
    proxy.line("a refusal", refused("proxy_cut")).await;
    tls_behind(&proxy, LINE).await.expect("the next one is welcome");
    proxy.releases(connections).await;
    proxy.finish().await;

    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).listen(STRANGERS)).await;
    assert_eq!(end_of(proxy.address, LINE).await, ErrorKind::ConnectionReset);
    proxy.line("a refusal", refused("proxy_untrusted")).await;
    assert_eq!(app.events("open").len(), 0, "{}", app.transcript());
    proxy.finish().await;
}

#[tokio::test]
async fn the_redirect_asks_for_the_header_too() {
    let app = NodeApp::bare().await;
    let proxy =
        Proxy::start(Config::to(PULSEGATE, &app.url).listen(TRUSTED).listen("redirect = \"127.0.0.1:0\"")).await;
    let address = crate::e2e::listener::redirect_address(&proxy);
    let request = b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n";
    let mut tcp = TcpStream::connect(address).await.expect("it listens");
    tcp.write_all(&[LINE, request].concat()).await.expect("the kernel takes it");
    let answer = wait_for("the answer", Response::read(&mut tcp)).await.expect("an answer");
    assert_eq!((answer.status, answer.header("location")), (308, Some("https://app.example/")));
    assert_eq!(end_of(address, request).await, ErrorKind::ConnectionReset);
    proxy.finish().await;
}

/// Returns how a connection to `address` ends that sends `bytes` and waits.
async fn end_of(address: SocketAddr, bytes: &[u8]) -> ErrorKind {
    let connection = async {
        // A peer that is refused by its address may see the refusal before its connect returns.
        let mut tcp = TcpStream::connect(address).await?;
        let _ = tcp.write_all(bytes).await;
        tcp.read(&mut [0; 16]).await
    };
    wait_for("the end", connection).await.expect_err("no orderly end").kind()
}
