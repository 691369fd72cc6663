//! A real browser as the client: the page has no heartbeat code, Chromium answers pings by itself.

use pulsegate_test_kit::browser::Browser;
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::process::{Process, send};
use pulsegate_test_kit::proxy::{BOUND, Config, Proxy, QUICK};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::sleep;

use crate::PULSEGATE;

#[tokio::test]
async fn chromium_answers_pings_by_itself_and_shows_a_heartbeat_kill_as_1012() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(QUICK).with("close_grace = \"30s\"\n")).await;
    let mut browser = Browser::visit(&proxy.https("/?name=chromium"), &proxy.pki.ca).await;
    browser.event("open", |_| true).await;

    // The page is silent for many windows and stays connected.
    sleep(BOUND * 5).await;
    assert!(browser.events("close").is_empty(), "{}", browser.transcript());
    browser.write_line(&json!({ "send": "still here" })).await;
    browser.event("message", |event| event["data"] == "still here").await;

    // No pings are answered while Chromium's own network process is stopped, as on a laptop whose lid is closed.
    let network_service = browser.network_service();
    send(network_service, Signal::STOP);
    let at_app = app.close_of("chromium").await.json;
    assert_eq!((&at_app["code"], &at_app["reason"]), (&4408.into(), &"heartbeat timeout".into()));

    // The process continues within `close_grace`.
    send(network_service, Signal::CONT);
    let close = browser.event("close", |_| true).await;
    assert_eq!((&close["code"], &close["reason"]), (&1012.into(), &"heartbeat timeout".into()), "{close}");
    let line = proxy.ws_close(|_| true).await.json;
    assert_eq!(line["close.reason"], "heartbeat_timeout", "{line}");
    assert!(line["rtt_last_s"].as_f64().is_some_and(|rtt| rtt > 0.0), "Chromium answered before: {line}");
    browser.write_line(&json!({ "read": "#log li" })).await;
    assert_eq!(browser.event("read", |_| true).await["lines"], json!(["open", "message", "close"]));
    proxy.finish().await;
}

#[tokio::test]
async fn the_page_of_dev_shows_a_heartbeat_kill_as_1012() {
    let dir = TempDir::new().expect("make a temporary directory");
    let ca = dir.path().join("ca.pem");
    let mut command = Command::new(PULSEGATE);
    command.args(["dev", "--listen", "127.0.0.1:0", "--interval", "400ms", "--timeout", "600ms", "--ca-out"]).arg(&ca);
    let dev = Process::start("pulsegate dev", &mut command);
    let guide = dev.line("the URL of the page", |line| line.text.trim_start().starts_with("https ")).await;
    let url = guide.text.split_whitespace().last().expect("a URL stands at its end");
    dev.line("the end of the guide", |line| line.text.contains("Ctrl-C ends it")).await;

    let mut browser = Browser::visit(url, &ca).await;
    browser.shows("#state", "open").await;
    sleep(BOUND * 5).await;
    assert_eq!(dev.count(|line| line.text.contains("app.close")), 0, "{}", dev.transcript());

    let network_service = browser.network_service();
    send(network_service, Signal::STOP);
    dev.line("the app's close event", |line| line.text.contains("app.close") && line.text.contains("4408")).await;
    send(network_service, Signal::CONT);
    browser.shows("#code", "1012").await;
    browser.shows("#reason", "heartbeat timeout").await;
    browser.shows("#state", "closed").await;
}
