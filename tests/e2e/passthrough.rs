//! Plain requests reach the app, and its answers the client, unchanged.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pulsegate_test_kit::fake_app::{FakeApp, hold};
use pulsegate_test_kit::http1::{Response, read_head};
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::PULSEGATE;

async fn ask(proxy: &Proxy, request: &str) -> Response {
    let mut stream = proxy.tls().await;
    proxy.ask(&mut stream, request.as_bytes()).await
}

#[tokio::test]
async fn the_app_sees_the_request_with_the_headers_a_proxy_adds() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let request = "PUT /request?a=%20b&c HTTP/1.1\r\nHost: shop.example:8443\r\nOrigin: https://shop.example\r\n\
        Cookie: a=1; b=2\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: gopher\r\nX-Forwarded-Host: evil.example\r\n\
        Forwarded: for=6.6.6.6\r\nConnection: keep-alive, X-Private\r\nX-Private: hop\r\nKeep-Alive: timeout=9\r\n\
        Proxy-Connection: keep-alive\r\nTE: trailers\r\nContent-Length: 0\r\n\r\n";
    let answer = ask(&proxy, request).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen: Value = serde_json::from_str(&answer.body).expect("the app answers in JSON");
    assert_eq!((&seen["method"], &seen["url"]), (&"PUT".into(), &"/request?a=%20b&c".into()));

    let headers = &seen["headers"];
    assert_eq!(headers["host"], "shop.example:8443");
    assert_eq!(headers["origin"], "https://shop.example");
    assert_eq!(headers["cookie"], "a=1; b=2");
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1", "an untrusted peer's word is overwritten");
    assert_eq!(headers["x-forwarded-proto"], "https");
    assert_eq!(headers["x-forwarded-host"], "shop.example:8443");
    assert!(headers["x-request-id"].as_str().is_some_and(|id| !id.is_empty()), "{headers}");
    for hop in ["x-private", "keep-alive", "proxy-connection", "forwarded"] {
        assert_eq!(headers[hop], Value::Null, "{hop} goes no further: {headers}");
    }
    proxy.finish().await;
}

#[tokio::test]
async fn the_client_sees_the_answer_without_what_was_meant_for_the_proxy() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    for status in [200, 404, 418, 503] {
        let answer = ask(&proxy, &format!("GET /status/{status} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert_eq!((answer.status, &*answer.body), (status, &*format!("status {status}\n")), "{answer:?}");
        assert_eq!(answer.headers("set-cookie").collect::<Vec<_>>(), ["a=1", "b=2"], "{answer:?}");
        assert_eq!(answer.header("x-powered-by"), Some("Express"), "{answer:?}");
        for hop in ["x-hop", "keep-alive"] {
            assert_eq!(answer.header(hop), None, "{answer:?}");
        }
    }
    proxy.finish().await;
}

#[tokio::test]
async fn head_has_a_length_and_no_body_and_the_connection_lives_on() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut stream = proxy.tls().await;
    stream.write_all(b"HEAD /status/200 HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it is open");
    let head = wait_for("the head", read_head(&mut stream)).await.expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.to_lowercase().contains("content-length: 11"), "{head}");
    for _ in 0..2 {
        let answer = proxy.ask(&mut stream, b"GET /status/200 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(answer.body, "status 200\n");
    }
    proxy.finish().await;
}

#[tokio::test]
async fn every_request_leaves_one_access_line_without_its_query() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let answer = ask(&proxy, "GET /status/404?token=secret HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(answer.status, 404);
    let line = proxy.line("an http.access", |line| line.json["message"] == "http.access").await.json;
    assert_eq!(line["url.path"], "/status/404", "{line}");
    assert!(!proxy.transcript().contains("secret"), "queries stay out of the log");
    proxy.finish().await;
    assert_eq!(line.as_object().map(|fields| fields.values().any(|value| value == 404)), Some(true), "{line}");
}

#[tokio::test]
async fn upstream_connections_are_used_again() {
    let connections = Arc::new(AtomicUsize::new(0));
    let fake = {
        let connections = Arc::clone(&connections);
        FakeApp::start(move |_, mut stream| {
            connections.fetch_add(1, Ordering::Relaxed);
            async move {
                while stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_ok() {
                    if read_head(&mut stream).await.is_none() {
                        return;
                    }
                }
            }
        })
        .await
    };
    // One worker: each has a pool of its own.
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut stream = proxy.tls().await;
    for _ in 0..10 {
        let answer = proxy.ask(&mut stream, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!((answer.status, &*answer.body), (200, "ok"), "{answer:?}");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    proxy.finish().await;
}

/// Starts an upstream that answers the first request of a connection and closes on the second: the keep-alive race,
/// made certain.
async fn racing(connections: Arc<AtomicUsize>) -> FakeApp {
    FakeApp::start(move |_, mut stream| {
        connections.fetch_add(1, Ordering::Relaxed);
        async move {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            let _ = read_head(&mut stream).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_lost_keep_alive_race_is_retried_for_an_idempotent_request() {
    let connections = Arc::new(AtomicUsize::new(0));
    let fake = racing(Arc::clone(&connections)).await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut stream = proxy.tls().await;
    for _ in 0..5 {
        let answer = proxy.ask(&mut stream, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!((answer.status, &*answer.body), (200, "ok"), "{answer:?}");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 5, "each connection was good for one answer");
    proxy.finish().await;
}

#[tokio::test]
async fn a_lost_keep_alive_race_is_not_retried_for_a_post() {
    let connections = Arc::new(AtomicUsize::new(0));
    let fake = racing(Arc::clone(&connections)).await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut stream = proxy.tls().await;
    let answer = proxy.ask(&mut stream, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = proxy.ask(&mut stream, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nbuy").await;
    // Sent on a fresh connection it may succeed; sent on the pooled one it fails, and is not sent a second time.
    let sent = connections.load(Ordering::Relaxed);
    assert!((answer.status, sent) == (502, 1) || (answer.status, sent) == (200, 2), "{sent} connections: {answer:?}");
    proxy.finish().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_passed_off_as_whole() {
    let fake = FakeApp::start(|_, mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").await;
    })
    .await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut stream = proxy.tls().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it is open");
    let answer = wait_for("the end of it", Response::read(&mut stream)).await;
    assert!(answer.is_none(), "{answer:?}");
    proxy.finish().await;
}

#[tokio::test]
async fn an_http_1_0_client_gets_an_answer_and_the_end() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let answer = ask(&proxy, "GET /status/200 HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
    assert_eq!((answer.status, &*answer.body), (200, "status 200\n"), "{answer:?}");
    proxy.finish().await;
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_answer_does_no_harm() {
    let fake = FakeApp::start(|_, mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nbeginning").await;
        hold(stream).await;
    })
    .await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut stream = proxy.tls().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it is open");
    wait_for("the head", read_head(&mut stream)).await.expect("an answer");
    drop(stream);
    proxy.releases(0).await;
    proxy.finish().await;
}
