//! A port without TLS, behind a proxy that terminates it: the peers that are served, and equal behaviour in all else.

use pulsegate_test_kit::client::upgrade_head;
use pulsegate_test_kit::frame::{CLOSE, FIN, Frame, PING, TEXT};
use pulsegate_test_kit::http1::{Response, read_chunk, read_head};
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::process::OutputLine;
use pulsegate_test_kit::proxy::{BOUND, Config, Proxy, QUICK};
use pulsegate_test_kit::wait::{TIMEOUT, wait_for};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::PULSEGATE;

const TRUSTED: &str = "[forwarded]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
const UNTRUSTED: &str = "[forwarded]\ntrusted_proxies = [\"192.0.2.0/24\"]\n";
const OFF: &str = "mode = \"off\"";

async fn ask(proxy: &Proxy, stream: &mut TcpStream, request: &[u8]) -> Response {
    stream.write_all(request).await.expect("the connection lives");
    let answer = wait_for("an answer", Response::read(stream)).await;
    answer.unwrap_or_else(|| {
        panic!("no answer to {:?}; the log:\n{}", String::from_utf8_lossy(request), proxy.transcript())
    })
}

async fn upgraded(proxy: &Proxy, path: &str) -> TcpStream {
    let mut stream = proxy.tcp().await;
    let answer = ask(proxy, &mut stream, format!("{}\r\n", upgrade_head(path)).as_bytes()).await;
    assert_eq!(answer.status, 101, "{answer:?}");
    stream
}

#[tokio::test]
async fn the_forwarded_fields_of_the_proxy_that_terminates_tls_are_kept() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).tls(OFF).with(TRUSTED)).await;
    let mut stream = proxy.tcp().await;
    for (fields, scheme, address) in [
        ("X-Forwarded-Proto: https\r\nX-Forwarded-For: 198.51.100.1\r\n", "https", "198.51.100.1, 127.0.0.1"),
        ("", "http", "127.0.0.1"),
    ] {
        // One connection for all requests: it is kept.
        let request = format!("GET /request HTTP/1.1\r\nHost: app.example\r\n{fields}\r\n");
        let answer = ask(&proxy, &mut stream, request.as_bytes()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("strict-transport-security"), None);
        let seen: Value = serde_json::from_str(&answer.body).expect("the app answers in JSON");
        let headers = &seen["headers"];
        assert_eq!((&headers["x-forwarded-proto"], &headers["x-forwarded-for"]), (&scheme.into(), &address.into()));
        assert_eq!(headers["host"], "app.example");
    }
    let access = proxy.line("an access line", |line| line.json["message"] == "http.access").await.json;
    assert_eq!(
        (&access["network.protocol.version"], &access["client.address"]),
        (&"1.1".into(), &"198.51.100.1".into()),
        "{access}"
    );
    proxy.finish().await;
}

#[tokio::test]
async fn a_websocket_is_relayed_pinged_and_ended() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).tls(OFF).with(TRUSTED).with(QUICK)).await;
    let connections = proxy.connections();
    let mut websocket = upgraded(&proxy, "/ws?name=plain").await;
    let sent = Frame::client(FIN | TEXT, "hello");
    websocket.write_all(&sent.bytes()).await.expect("open");
    let echoed = wait_for("the echo", Frame::read(&mut websocket)).await.expect("open");
    assert_eq!((echoed.first, echoed.payload), (sent.first, sent.payload));
    let ping = wait_for("a ping", Frame::read(&mut websocket)).await.expect("open");
    assert_eq!(ping.first, FIN | PING);
    // The Close is not answered.
    let begun = std::time::Instant::now();
    let close = wait_for("the Close", Frame::read(&mut websocket)).await.expect("a Close before the end");
    assert_eq!((close.first, &close.payload[..2]), (FIN | CLOSE, &1012_u16.to_be_bytes()[..]));
    assert!(begun.elapsed() < BOUND * 5, "{:?}", begun.elapsed());
    let line = proxy.ws_close(|_| true).await.json;
    assert_eq!(line["close.reason"], "heartbeat_timeout", "{line}");
    assert!(line.get("tls.protocol.version").is_none(), "{line}");
    assert_eq!(app.close_of("plain").await.json["code"], 4408);
    drop(websocket);
    proxy.releases(connections).await;
    proxy.finish().await;
}

#[tokio::test]
async fn a_drain_closes_sessions_in_order() {
    let app = NodeApp::bare().await;
    let mut proxy = Proxy::start(Config::to(PULSEGATE, &app.url).tls(OFF).with(TRUSTED)).await;
    let mut websocket = upgraded(&proxy, "/ws").await;
    proxy.terminate();
    let close = wait_for("the Close", Frame::read(&mut websocket)).await.expect("a Close before the end");
    assert_eq!((close.first, &close.payload[..2]), (FIN | CLOSE, &1012_u16.to_be_bytes()[..]));
    websocket.write_all(&Frame::client(FIN | CLOSE, close.payload).bytes()).await.expect("open");
    let mut rest = Vec::new();
    wait_for("the end", websocket.read_to_end(&mut rest)).await.expect("an orderly end");
    let status = proxy.exit_within(TIMEOUT).await;
    assert_eq!(status.code(), Some(0), "{status}; it wrote:\n{}", proxy.transcript());
}

#[tokio::test]
async fn server_sent_events_stream() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).tls(OFF).with(TRUSTED)).await;
    let mut listener = proxy.tcp().await;
    listener.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("open");
    let head = wait_for("the head", read_head(&mut listener)).await.expect("an answer");
    assert!(head.to_lowercase().contains("content-type: text/event-stream"), "{head}");
    let mut speaker = proxy.tcp().await;
    for data in ["one", "two"] {
        let request = format!("POST /events/{data} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(ask(&proxy, &mut speaker, request.as_bytes()).await.body, "{\"listeners\":1}");
        let event = wait_for("an event", read_chunk(&mut listener)).await.expect("open");
        assert_eq!(event, format!("data: {data}\n\n").as_bytes());
    }
    drop((listener, speaker));
    proxy.finish().await;
}

#[tokio::test]
async fn other_peers_get_403_and_their_connection_ends() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).tls(OFF).with(UNTRUSTED)).await;
    let connections = proxy.connections();
    let get = "GET /request HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n".to_owned();
    for request in [get, format!("{}\r\n", upgrade_head("/ws"))] {
        let mut stream = proxy.tcp().await;
        let answer = ask(&proxy, &mut stream, request.as_bytes()).await;
        assert_eq!((answer.status, answer.header("connection")), (403, Some("close")), "{answer:?}");
        assert_eq!(answer.body, "403 Forbidden: untrusted_peer\n");
        let mut rest = Vec::new();
        wait_for("the end", stream.read_to_end(&mut rest)).await.expect("an orderly end");
        assert!(rest.is_empty());
    }
    let refused =
        |line: &OutputLine| line.json["message"] == "connection.refused" && line.json["reason"] == "untrusted_peer";
    let line = proxy.line("a refusal", refused).await.json;
    assert!(line["mend"].as_str().is_some_and(|mend| mend.contains("forwarded.trusted_proxies")), "{line}");
    let access =
        |line: &OutputLine| line.json["message"] == "http.access" && line.json["http.response.status_code"] == 403;
    proxy.line("the access line of the 403", access).await;
    proxy.releases(connections).await;
    proxy.finish().await;
}

#[tokio::test]
async fn a_proxy_header_names_the_client_of_a_trusted_proxy() {
    let app = NodeApp::bare().await;
    let header = "proxy_protocol = { trusted = [\"127.0.0.0/8\"] }";
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).listen(header).tls(OFF).with(TRUSTED)).await;
    let mut stream = proxy.tcp().await;
    let request = b"PROXY TCP4 203.0.113.9 198.51.100.1 40000 443\r\n\
                    GET /request HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
    let answer = ask(&proxy, &mut stream, request).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen: Value = serde_json::from_str(&answer.body).expect("the app answers in JSON");
    let headers = &seen["headers"];
    assert_eq!(headers["x-forwarded-for"], "203.0.113.9", "{headers}");
    assert_eq!(headers["x-forwarded-proto"], "https", "{headers}");
    drop(stream);
    proxy.finish().await;
}

#[tokio::test]
async fn a_handshake_and_an_upgrade_to_h2c_are_not_taken() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).tls(OFF).with(TRUSTED)).await;
    let mut stream = proxy.tcp().await;
    let hello = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03\r\n\r\n";
    assert_eq!(ask(&proxy, &mut stream, hello).await.status, 400);
    let mut stream = proxy.tcp().await;
    let request = b"GET /request HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                    Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n";
    assert_eq!(ask(&proxy, &mut stream, request).await.status, 200, "it goes on in HTTP/1.1");
    drop(stream);
    proxy.finish().await;
}

#[tokio::test]
async fn without_http_2_its_preface_is_refused() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).listen("http2 = \"off\"").tls(OFF).with(TRUSTED)).await;
    let mut stream = proxy.tcp().await;
    assert_eq!(ask(&proxy, &mut stream, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.status, 400);
    let mut stream = proxy.tcp().await;
    assert_eq!(ask(&proxy, &mut stream, b"GET /request HTTP/1.1\r\nHost: localhost\r\n\r\n").await.status, 200);
    drop(stream);
    proxy.finish().await;
}
