//! Requests that must be refused, each with the status that states the reason.

use pulsegate_test_kit::client::{Neighbour, upgrade_head};
use pulsegate_test_kit::http1::Response;
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::proxy::{Config, Proxy};
use tokio::io::AsyncWriteExt;

use crate::PULSEGATE;

/// Returns the proxy's answer to `request`, with a neighbour's session open.
async fn refusal_of(request: &str) -> Response {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let neighbour = Neighbour::join(&proxy, "/ws?name=neighbour").await;
    let connections = proxy.connections();
    let answer = {
        let mut stream = proxy.tls().await;
        let answer = proxy.ask(&mut stream, request.as_bytes()).await;
        // A client that sends no close_notify must not cause a leak either.
        let _ = stream.shutdown().await;
        answer
    };
    // One line names the refused request and the reason.
    let line = proxy.line("the refusal", |line| line.json["http.response.status_code"] == answer.status).await.json;
    assert!(line["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{line}");
    neighbour.echoes().await;
    assert_eq!(app.events("open").len(), 1, "nothing of it reached the app: {}", app.transcript());
    assert!(answer.body.len() < 400, "a short body: {}", answer.body);
    proxy.releases(connections).await;
    proxy.finish().await;
    answer
}

fn head_without(path: &str, header: &str) -> String {
    upgrade_head(path).split_inclusive("\r\n").filter(|line| !line.starts_with(header)).collect()
}

#[tokio::test]
async fn a_head_of_100_kb_is_refused() {
    let answer = refusal_of(&format!("{}X-Large: {}\r\n\r\n", upgrade_head("/ws"), "a".repeat(100_000))).await;
    assert!(matches!(answer.status, 400 | 431), "{answer:?}");
}

#[tokio::test]
async fn a_thousand_header_fields_are_refused() {
    let many = "X-Again: a\r\n".repeat(1_000);
    let answer = refusal_of(&format!("{}{many}\r\n", upgrade_head("/ws"))).await;
    assert!(matches!(answer.status, 400 | 431), "{answer:?}");
}

#[tokio::test]
async fn a_request_line_of_nonsense_is_refused() {
    let answer = refusal_of("\u{1}\u{2} nonsense\r\n\r\n").await;
    assert_eq!(answer.status, 400, "{answer:?}");
}

#[tokio::test]
async fn an_upgrade_with_a_body_is_refused() {
    let answer = refusal_of(&format!("{}Content-Length: 5\r\n\r\nhello", upgrade_head("/ws"))).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    let chunked = format!("{}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", upgrade_head("/ws"));
    let answer = refusal_of(&chunked).await;
    assert_eq!(answer.status, 400, "{answer:?}");
}

#[tokio::test]
async fn an_upgrade_by_post_is_refused() {
    let answer = refusal_of(&format!("{}\r\n", upgrade_head("/ws").replacen("GET", "POST", 1))).await;
    assert!(matches!(answer.status, 400 | 405), "{answer:?}");
}

#[tokio::test]
async fn a_wrong_version_gets_the_supported_one() {
    for version in ["Sec-WebSocket-Version: 8\r\n", "Sec-WebSocket-Version: 14\r\n"] {
        let request = head_without("/ws", "Sec-WebSocket-Version") + version + "\r\n";
        let answer = refusal_of(&request).await;
        assert_eq!(answer.status, 426, "{answer:?}");
        assert_eq!(answer.header("sec-websocket-version"), Some("13"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_missing_or_malformed_key_is_refused() {
    let sixteen_bytes = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for key in [
        "",
        "Sec-WebSocket-Key:\r\n",
        "Sec-WebSocket-Key: not base64!\r\n",
        "Sec-WebSocket-Key: c2hvcnQ=\r\n",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSBhbmQgbW9yZQ==\r\n",
        &sixteen_bytes.repeat(2),
    ] {
        let answer = refusal_of(&format!("{}{key}\r\n", head_without("/ws", "Sec-WebSocket-Key"))).await;
        assert_eq!(answer.status, 400, "with {key:?}: {answer:?}");
    }
}
