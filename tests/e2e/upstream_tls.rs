//! An app behind TLS. It is another pulsegate, so that a whole chain of them is tested as well.

use pulsegate_test_kit::client::echo;
use pulsegate_test_kit::http1::{read_chunk, read_head};
use pulsegate_test_kit::node::{NodeApp, NodeClient};
use pulsegate_test_kit::proxy::{Config, Proxy, QUICK};
use pulsegate_test_kit::wait::wait_for;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

use crate::PULSEGATE;
use crate::e2e::frames::noise;

/// Starts a proxy in front of `inner`, whose certificate it checks.
async fn before(inner: &Proxy, sections: &str) -> Proxy {
    let url = format!("https://localhost:{}", inner.address.port());
    let tls = format!("tls = {{ ca = \"{}\" }}", inner.pki.ca.display());
    Proxy::start(Config::to(PULSEGATE, &url).upstream(&tls).with(sections)).await
}

const TRUSTING: &str = "[forwarded]\ntrusted_proxies = [\"127.0.0.0/8\"]\nrfc7239 = true\n";

#[tokio::test]
async fn requests_and_sessions_pass_two_proxies() {
    let app = NodeApp::bare().await;
    let inner = Proxy::start(Config::to(PULSEGATE, &app.url).with(TRUSTING)).await;
    let outer = before(&inner, "[forwarded]\nrfc7239 = true\n").await;

    let mut stream = outer.tls().await;
    let answer = outer.ask(&mut stream, b"GET /request HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
    let seen: serde_json::Value = serde_json::from_str(&answer.body).expect("the app answers in JSON");
    let headers = &seen["headers"];
    assert_eq!(headers["host"], "shop.example");
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1, 127.0.0.1");
    let hop = "for=127.0.0.1;host=shop.example;proto=https";
    assert_eq!(headers["forwarded"], format!("{hop}, {hop}"));
    // Both log the id that the outer one has generated.
    assert_eq!(headers["x-request-id"].as_str().map(str::len), Some(32), "{headers}");

    let mut websocket = outer.websocket("/ws?name=through").await;
    for size in [0, 125, 65_536, 3 << 20] {
        echo(&mut websocket, Message::binary(noise(size))).await.expect("the session lives");
    }
    websocket.close(None).await.expect("the session lives");
    let close = app.close_of("through").await.json;
    assert_eq!(close["code"], 1005, "a Close without a code arrives as one: {close}");
    drop((stream, websocket));
    outer.finish().await;
    inner.finish().await;
}

#[tokio::test]
async fn events_pass_two_proxies_one_by_one() {
    let app = NodeApp::bare().await;
    let inner = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let outer = before(&inner, "").await;
    let mut listener = outer.tls().await;
    listener.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it is open");
    wait_for("the head", read_head(&mut listener)).await.expect("an answer");
    let mut speaker = outer.tls().await;
    for data in ["one", "two", "three"] {
        let request = format!("POST /events/{data} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(outer.ask(&mut speaker, request.as_bytes()).await.status, 200);
        let event = wait_for("an event", read_chunk(&mut listener)).await.expect("the connection lives");
        assert_eq!(event, format!("data: {data}\n\n").as_bytes());
    }
    drop((listener, speaker));
    outer.finish().await;
    inner.finish().await;
}

#[tokio::test]
async fn a_silent_client_is_detected_behind_tls_too() {
    let app = NodeApp::bare().await;
    let inner = Proxy::start(Config::to(PULSEGATE, &app.url).with("[heartbeat]\nmode = \"off\"\n")).await;
    let outer = before(&inner, QUICK).await;
    let live = NodeClient::connect(&outer, "/ws?name=live", &[]).await;
    let dead = NodeClient::connect(&outer, "/ws?name=dead", &["--mute"]).await;
    let close = dead.event("close", |_| true).await;
    assert_eq!(close["code"], 1012, "{}", dead.transcript());
    assert_eq!(app.close_of("dead").await.json["code"], 4408, "{}", app.transcript());
    assert!(live.events("close").is_empty(), "{}", live.transcript());
    drop((live, dead));
    outer.finish().await;
    inner.finish().await;
}

#[tokio::test]
async fn an_app_with_an_untrusted_certificate_is_a_502() {
    let app = NodeApp::bare().await;
    let inner = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let other_proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let url = format!("https://localhost:{}", inner.address.port());
    for tls in [
        format!("tls = {{ ca = \"{}\" }}", other_proxy.pki.ca.display()),
        format!("tls = {{ ca = \"{}\", server_name = \"shop.example\" }}", inner.pki.ca.display()),
        // The machine's own authorities have not signed it either.
        String::new(),
    ] {
        let outer = Proxy::start(Config::to(PULSEGATE, &url).upstream(&tls)).await;
        let mut stream = outer.tls().await;
        let answer = outer.ask(&mut stream, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!((answer.status, &*answer.body), (502, "502 Bad Gateway: upstream_tls\n"), "{tls}: {answer:?}");
        let line = outer.line("an http.access", |line| line.json["message"] == "http.access").await.json;
        assert_eq!(line["reason"], json!("upstream_tls"), "{line}");
        drop(stream);
        outer.finish().await;
    }
    inner.finish().await;
    other_proxy.finish().await;
}
