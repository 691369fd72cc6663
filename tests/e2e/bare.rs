//! The app without a line of heartbeat code: the proxy alone finds the dead client.

use std::time::{Duration, Instant};

use pulsegate_test_kit::client::Neighbour;
use pulsegate_test_kit::node::{NodeApp, NodeClient};
use pulsegate_test_kit::proxy::{BOUND, Config, Proxy, QUICK};
use pulsegate_test_kit::wait::wait_until;
use serde_json::json;
use tempfile::TempDir;

use crate::PULSEGATE;

/// The delay that a busy machine may add to a bound.
const SLACK: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_stopped_client_is_gone_from_both_legs_and_its_neighbours_are_not() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(QUICK)).await;
    let neighbour = Neighbour::join(&proxy, "/ws?name=neighbour").await;
    let mut living = NodeClient::connect(&proxy, "/ws?name=living", &[]).await;
    let connections = proxy.connections();
    let dead = NodeClient::connect(&proxy, "/ws?name=dead", &[]).await;
    app.event("open", |event| event["name"] == "dead").await;

    let stopped = Instant::now();
    dead.stop();
    let close = app.close_of("dead").await;
    let took = close.at - stopped;
    assert!(took < BOUND + SLACK, "the app got the Close only after {took:?}");
    assert_eq!((&close.json["code"], &close.json["reason"]), (&4408.into(), &"heartbeat timeout".into()));

    let line = proxy.ws_close(|_| true).await.json;
    assert_eq!(line["close.initiator"], "proxy", "{line}");
    assert_eq!(line["close.reason"], "heartbeat_timeout", "{line}");
    assert_eq!(line["close.code"], 1012, "{line}");
    assert_eq!(line["upstream.close_code"], 4408, "{line}");
    assert_eq!(line["missed"], 1, "{line}");
    assert_eq!(line["url.path"], "/ws", "a query may hold secrets and stays out of the log: {line}");
    proxy.releases(connections).await;

    neighbour.echoes().await;
    living.write_line(&json!({ "send": "still here" })).await;
    living.event("message", |event| event["data"] == "still here").await;
    assert_eq!(app.events("close").len(), 1, "{}", app.transcript());

    // Its own leg is gone as well: it detects that as soon as it runs again.
    dead.resume();
    dead.event("close", |_| true).await;
    proxy.finish().await;
}

#[tokio::test]
async fn a_client_that_continues_within_close_grace_gets_the_reason() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(QUICK).with("close_grace = \"30s\"\n")).await;
    let late = NodeClient::connect(&proxy, "/ws?name=late", &[]).await;
    late.stop();
    app.close_of("late").await;
    late.resume();
    let close = late.event("close", |_| true).await;
    assert_eq!((&close["code"], &close["reason"]), (&1012.into(), &"heartbeat timeout".into()));
    // The client has echoed the Close, so there is no wait for the rest of the grace.
    let line = proxy.ws_close(|_| true).await.json;
    assert!(line["duration_s"].as_f64().is_some_and(|duration| duration < 20.0), "{line}");
    proxy.finish().await;
}

#[tokio::test]
async fn an_app_on_a_unix_socket_gets_the_close_of_a_dead_client_too() {
    let dir = TempDir::new().expect("make a temporary directory");
    let app = NodeApp::bare_on(&dir.path().join("app.sock")).await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(QUICK)).await;
    let dead = NodeClient::connect(&proxy, "/ws?name=dead", &[]).await;
    app.event("open", |event| event["name"] == "dead").await;
    dead.stop();
    let close = app.close_of("dead").await.json;
    assert_eq!((&close["code"], &close["reason"]), (&4408.into(), &"heartbeat timeout".into()));
    dead.resume();
    proxy.finish().await;
}

#[tokio::test]
async fn a_silent_client_that_answers_pings_outlives_many_windows() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(QUICK)).await;
    let mut quiet = NodeClient::connect(&proxy, "/ws?name=quiet", &[]).await;
    let pings = || quiet.events("ping").len();
    wait_until("ten pings", pings, |count| *count >= 10).await;
    quiet.write_line(&json!({ "close": [1000, ""] })).await;

    assert_eq!(app.close_of("quiet").await.json["code"], 1000);
    let line = proxy.ws_close(|_| true).await.json;
    assert_eq!(line["close.initiator"], "client", "{line}");
    assert_eq!(line["close.reason"], "normal", "{line}");
    assert_eq!(line["missed"], 0, "{line}");
    assert!(line["rtt_last_s"].as_f64().is_some_and(|rtt| rtt > 0.0 && rtt < 1.0), "{line}");
    assert!(line["duration_s"].as_f64().is_some_and(|duration| duration > 2.0), "{line}");
    proxy.finish().await;
}

#[tokio::test]
async fn a_route_that_switches_the_heartbeat_off_leaves_a_stopped_client_alone() {
    let app = NodeApp::bare().await;
    let route = "[[route]]\npath = \"/sink\"\n[route.heartbeat]\nmode = \"off\"\n";
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(QUICK).with(route)).await;
    let spared = NodeClient::connect(&proxy, "/sink?name=spared", &[]).await;
    let dead = NodeClient::connect(&proxy, "/ws?name=dead", &[]).await;
    app.event("open", |event| event["name"] == "dead").await;
    spared.stop();
    dead.stop();
    app.close_of("dead").await;
    // The route's own client has been silent for just as long, and for one whole window more.
    tokio::time::sleep(BOUND).await;
    assert_eq!(app.events("close").len(), 1, "{}", app.transcript());
    spared.resume();
    dead.resume();
    proxy.finish().await;
}
