//! HTTP/2 with prior knowledge on a port without TLS (RFC 9113 §3.3).

use h2::client::Builder;
use http::{Method, Request, Version};
use pulsegate_test_kit::frame::{FIN, Frame, TEXT};
use pulsegate_test_kit::http2::Http2Client;
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;

use crate::PULSEGATE;

fn config(app: &NodeApp, trusted: &str) -> Config {
    Config::to(PULSEGATE, &app.url)
        .tls("mode = \"off\"")
        .with(&format!("[forwarded]\ntrusted_proxies = [\"{trusted}\"]\n"))
}

#[tokio::test]
async fn requests_and_websockets_share_a_connection() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(config(&app, "127.0.0.0/8")).await;
    let mut client = Http2Client::over(proxy.tcp().await, &Builder::new()).await;
    let request = Request::builder()
        .method(Method::GET)
        .uri("http://app.example/request")
        .version(Version::HTTP_2)
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-for", "198.51.100.1")
        .body(())
        .expect("a sound request");
    let answer = client.ask(request).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen: serde_json::Value = serde_json::from_str(&answer.body).expect("the app answers in JSON");
    assert_eq!(seen["headers"]["x-forwarded-proto"], "https", "{seen}");
    assert_eq!(seen["headers"]["x-forwarded-for"], "198.51.100.1, 127.0.0.1", "{seen}");
    let mut websocket = client.websocket("/ws?name=h2c").await;
    let sent = Frame::client(FIN | TEXT, "hello");
    websocket.send_frame(&sent).await;
    let echoed = websocket.message().await.expect("open");
    assert_eq!((echoed.first, echoed.payload), (sent.first, sent.payload));
    let open = proxy.line("a ws.open", |line| line.json["message"] == "ws.open").await.json;
    assert_eq!(open["network.protocol.version"], "2", "{open}");
    assert!(open.get("tls.protocol.version").is_none(), "{open}");
    drop((websocket, client));
    proxy.ws_close(|_| true).await;
    proxy.finish().await;
}

#[tokio::test]
async fn other_peers_get_403_and_a_goaway() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(config(&app, "192.0.2.0/24")).await;
    let connections = proxy.connections();
    let mut client = Http2Client::over(proxy.tcp().await, &Builder::new()).await;
    let answer = client.get("/request").await;
    assert_eq!((answer.status, answer.body.as_str()), (403, "403 Forbidden: untrusted_peer\n"), "{answer:?}");
    wait_for("the end of the connection", &mut client.driver).await.expect("no panic").expect("GOAWAY with NO_ERROR");
    let refused = |line: &pulsegate_test_kit::process::OutputLine| {
        line.json["message"] == "connection.refused" && line.json["reason"] == "untrusted_peer"
    };
    proxy.line("a refusal", refused).await;
    proxy.releases(connections).await;
    proxy.finish().await;
}
