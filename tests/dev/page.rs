//! The heartbeat on the page of the echo app, in Chromium.

use pulsegate_test_kit::browser::Browser;
use pulsegate_test_kit::wait::wait_for;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Dev, get, word_after};

#[tokio::test]
async fn pings_pongs_and_a_miss_are_seen_as_they_happen() {
    let dev =
        Dev::start(&["--listen", "127.0.0.1:0", "--inspect", "127.0.0.1:0", "--interval", "300ms", "--timeout", "4s"])
            .await;
    let mut browser = Browser::visit(&format!("https://localhost:{}/", dev.port), &dev.authority).await;
    browser.shows("#state", "open").await;
    browser.shows("#beat", "pong after ").await;
    browser.shows("#rtt", " ms, shortest ").await;
    browser.shows("#missed", "0").await;
    // More beats arrive while the page is open.
    browser.shows("#beats li.pong:nth-child(6)", "").await;

    let opened = dev.log_line("ws.open").await;
    let id = word_after(&opened, "conn_id=").to_owned();
    let inspect = word_after(&dev.guide, "inspect    ").trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut api = TcpStream::connect(&inspect).await.expect("it listens");
    let request = format!(
        "POST /v1/connections/{id}/simulate-dead HTTP/1.1\r\nHost: {inspect}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    api.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    wait_for("the answer of the API", api.read_to_string(&mut answer)).await.expect("UTF-8");
    assert!(answer.starts_with("HTTP/1.1 2"), "{answer}");
    browser.shows("#beat", "ping sent, waiting for the pong").await;
    browser.shows("#missed", "1").await;
    browser.shows("#beat", "client stopped answering: last pong ").await;
    browser.shows("#code", "1012").await;
    browser.write_line(&json!({ "click": "#connect" })).await;
    browser.shows("#state", "open").await;
    browser.shows("#beat", "pong after ").await;
    browser.shows("#missed", "0").await;
    // The stream of events does not hold up the end.
    dev.end().await;
    assert!(browser.events("error").is_empty(), "{}", browser.transcript());
}

#[tokio::test]
async fn events_belong_to_a_websocket_that_is_open() {
    let dev = Dev::start(&["--listen", "127.0.0.1:0"]).await;
    let unknown = get(dev.trusted().await, "/heartbeat?page=unknown").await;
    assert!(unknown.starts_with("HTTP/1.1 404 "), "{unknown}");
    dev.end().await;
}
