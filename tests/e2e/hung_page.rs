//! A page whose only thread is blocked: it answers pings, but neither its user nor its app.

use std::time::Duration;

use pulsegate_test_kit::browser::Browser;
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::proxy::{BOUND, Config, Proxy, QUICK};
use serde_json::json;
use tokio::time::sleep;

use crate::PULSEGATE;

/// A heartbeat of the application that the proxy sends, unknown to the page. A Chromium that shares a busy machine may
/// take a second to answer.
const SPOKEN: &str = "[heartbeat]\ninterval = \"400ms\"\ntimeout = \"2s\"\nclose_grace = \"30s\"\n\
                      profile = { send = \"heartbeat\", expect = \"heartbeat\" }\n";
/// `interval + timeout` of [`SPOKEN`].
const SPOKEN_BOUND: Duration = Duration::from_millis(2_400);
/// The delay that a busy machine may add to a bound.
const SLACK: Duration = Duration::from_secs(2);
/// The time for which the page is blocked.
const BLOCK: Duration = Duration::from_secs(8);

#[tokio::test]
async fn s23_a_hung_page_is_alive_in_protocol_mode() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(QUICK)).await;
    let mut browser = Browser::visit(&proxy.https("/answering?name=page"), &proxy.pki.ca).await;
    browser.event("open", |_| true).await;

    let blocked = browser.block(BLOCK).await.at;
    let unblocked = browser.event_line("unblocked", |_| true).await;
    let lasted = unblocked.at - blocked;
    assert!(lasted + SLACK > BLOCK && lasted > BOUND * 5, "the page was blocked for {lasted:?} only");
    assert!(app.events("close").is_empty(), "{}", app.transcript());

    browser.write_line(&json!({ "send": "still here" })).await;
    browser.event("message", |event| event["data"] == "still here").await;
    assert!(proxy.logged("ws.close").is_empty(), "{}", proxy.transcript());
    proxy.finish().await;
}

#[tokio::test]
async fn s23_a_hung_page_is_torn_down_in_app_mode_and_an_idle_one_is_not() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(SPOKEN)).await;
    let mut browser = Browser::visit(&proxy.https("/answering?name=page"), &proxy.pki.ca).await;
    browser.event("open", |_| true).await;

    // Except for its answers the page is silent for many windows, and stays connected; the app receives no answer.
    sleep(SPOKEN_BOUND * 3).await;
    browser.write_line(&json!({ "send": "still here" })).await;
    browser.event("message", |event| event["data"] == "still here").await;
    assert!(app.events("close").is_empty(), "{}", app.transcript());
    assert_eq!(browser.events("message").len(), 1, "only the app's echo is shown: {}", browser.transcript());

    let blocked = browser.block(BLOCK).await.at;
    let close = app.close_of("page").await;
    let took = close.at - blocked;
    assert!(took < SPOKEN_BOUND + SLACK, "the app got the Close only after {took:?}");
    assert!(browser.events("unblocked").is_empty(), "the page was not blocked any more");
    let close = close.json;
    assert_eq!((&close["code"], &close["reason"]), (&4408.into(), &"heartbeat timeout".into()));
    assert_eq!(close["payload"], "still here".len(), "heartbeats reached the app: {close}");

    // Within `close_grace` the page continues, and gets the reason.
    browser.event("unblocked", |_| true).await;
    let close = browser.event("close", |_| true).await;
    assert_eq!((&close["code"], &close["reason"]), (&1012.into(), &"heartbeat timeout".into()), "{close}");
    let line = proxy.ws_close(|_| true).await.json;
    assert_eq!(line["close.reason"], "heartbeat_timeout", "{line}");
    assert_eq!(proxy.logged("ws.open")[0]["heartbeat.mode"], "app", "{}", proxy.transcript());
    proxy.finish().await;
}

#[tokio::test]
async fn a_page_that_computes_for_less_than_the_window_keeps_its_session() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(&SPOKEN.replace("\"2s\"", "\"6s\""))).await;
    let mut browser = Browser::visit(&proxy.https("/answering?name=page"), &proxy.pki.ca).await;
    browser.event("open", |_| true).await;

    browser.block(Duration::from_secs(3)).await;
    browser.event("unblocked", |_| true).await;
    browser.write_line(&json!({ "send": "still here" })).await;
    browser.event("message", |event| event["data"] == "still here").await;
    assert!(proxy.logged("ws.close").is_empty(), "{}", proxy.transcript());
    proxy.finish().await;
}
