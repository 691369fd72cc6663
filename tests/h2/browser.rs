//! Chromium opens WebSockets over the HTTP/2 connection that its page came by.

use pulsegate_test_kit::browser::Browser;
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::process::send;
use pulsegate_test_kit::proxy::{BOUND, Config, Proxy, QUICK};
use pulsegate_test_kit::wait::wait_until;
use rustix::process::Signal;
use serde_json::json;
use tokio::time::sleep;

use crate::PULSEGATE;

#[tokio::test]
async fn chromium_answers_pings_on_a_stream_and_shows_a_heartbeat_kill_as_1012() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(QUICK).with("close_grace = \"30s\"\n")).await;
    let mut browser = Browser::visit(&proxy.https("/?name=chromium"), &proxy.pki.ca).await;
    browser.event("open", |_| true).await;
    let open = proxy.line("a ws.open", |line| line.json["message"] == "ws.open").await.json;
    assert_eq!(open["network.protocol.version"], "2", "{open}");

    // The page is silent for many windows and stays connected.
    sleep(BOUND * 5).await;
    assert!(browser.events("close").is_empty(), "{}", browser.transcript());
    browser.write_line(&json!({ "send": "still here" })).await;
    browser.event("message", |event| event["data"] == "still here").await;

    // Nothing answers while Chromium's own network process is stopped, neither the session's pings nor the connection's.
    let network_service = browser.network_service();
    send(network_service, Signal::STOP);
    let at_app = app.close_of("chromium").await.json;
    assert_eq!((&at_app["code"], &at_app["reason"]), (&4408.into(), &"heartbeat timeout".into()));
    send(network_service, Signal::CONT);
    let close = browser.event("close", |_| true).await;
    assert_eq!((&close["code"], &close["reason"]), (&1012.into(), &"heartbeat timeout".into()), "{close}");
    let line = proxy.ws_close(|_| true).await.json;
    assert_eq!(
        (&line["network.protocol.version"], &line["close.reason"]),
        (&"2".into(), &"heartbeat_timeout".into()),
        "{line}"
    );
    assert!(line["rtt_last_s"].as_f64().is_some_and(|rtt| rtt > 0.0), "Chromium answered before: {line}");
    proxy.finish().await;
}

#[tokio::test]
async fn socket_io_polls_and_upgrades_over_one_connection_and_comes_back() {
    let app = NodeApp::start("libraries", "socket_io/app.js", &[]).await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(QUICK).with("profile = \"auto\"\n")).await;
    let browser = Browser::visit(&proxy.https("/"), &proxy.pki.ca).await;
    let open = browser.event("open", |_| true).await;
    assert_eq!(open["transport"], "polling", "{open}");
    let upgrade = browser.event("upgrade", |_| true).await;
    assert_eq!(upgrade["transport"], "websocket", "{upgrade}");
    browser.event("message", |event| event["data"] == "over streams").await;
    let open = proxy.line("a ws.open", |line| line.json["message"] == "ws.open").await.json;
    assert_eq!(
        (&open["network.protocol.version"], &open["heartbeat.profile"]),
        (&"2".into(), &"engine.io".into()),
        "{open}"
    );
    let polls = proxy.logged("http.access");
    assert!(polls.iter().filter(|line| line["url.path"] == "/socket.io/").count() >= 3, "{polls:?}");
    assert!(polls.iter().all(|line| line["network.protocol.version"] == "2"), "{polls:?}");

    // The library answers the app's pings; for many windows that is enough.
    sleep(BOUND * 5).await;
    assert!(browser.events("close").is_empty(), "{}", browser.transcript());
    let network_service = browser.network_service();
    send(network_service, Signal::STOP);
    let line = proxy.ws_close(|_| true).await.json;
    assert_eq!(
        (&line["network.protocol.version"], &line["close.reason"]),
        (&"2".into(), &"heartbeat_timeout".into()),
        "{line}"
    );
    let close = app.event("close", |_| true).await;
    assert_eq!(close["reason"], "transport close", "{close}");
    send(network_service, Signal::CONT);
    browser.event("close", |_| true).await;
    let opened = || browser.events("open").len();
    wait_until("the page comes back by itself", opened, |count| *count >= 2).await;
    proxy.finish().await;
}
