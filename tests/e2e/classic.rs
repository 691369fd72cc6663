//! An app that sends its own heartbeats keeps working behind the proxy, unchanged.

use std::fs;

use pulsegate_test_kit::node::{NodeApp, NodeClient, project};
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_until;

use crate::PULSEGATE;

#[test]
fn bare_is_classic_without_its_heartbeat_lines() {
    let read = |name: &str| fs::read_to_string(project("express").join(name)).expect("the app is there");
    let (classic, bare) = (read("classic.js"), read("bare.js"));
    let rest: Vec<&str> = classic.lines().filter(|line| !line.ends_with("// heartbeat")).collect();
    assert_eq!(bare.lines().collect::<Vec<_>>(), rest);
    assert!(rest.len() + 15 < classic.lines().count(), "the classic app has a heartbeat of some size");
    let bare = bare.to_lowercase();
    for word in ["heartbeat", "settimeout", "setinterval", "ping(", "terminate("] {
        assert!(!bare.contains(word), "bare.js still says {word}");
    }
}

#[tokio::test]
async fn a_client_that_answers_the_apps_heartbeats_lives() {
    let app = NodeApp::classic(200, 5_000).await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut client = NodeClient::connect(&proxy, "/ws?name=live", &["--answer"]).await;

    let beats = || app.events("answer").iter().filter(|event| event["name"] == "live").count();
    wait_until("ten answered heartbeats", beats, |count| *count >= 10).await;
    assert!(app.events("close").is_empty(), "{}", app.transcript());

    client.write_line(&serde_json::json!({ "close": [1000, "done"] })).await;
    let close = app.close_of("live").await.json;
    assert_eq!((&close["code"], &close["reason"]), (&1000.into(), &"done".into()));
    proxy.finish().await;
}

#[tokio::test]
async fn the_apps_own_kill_of_a_silent_client_reaches_it() {
    let app = NodeApp::classic(200, 3_000).await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let answering = NodeClient::connect(&proxy, "/ws?name=live", &["--answer"]).await;
    let silent = NodeClient::connect(&proxy, "/ws?name=silent", &[]).await;

    let close = silent.event("close", |_| true).await;
    assert_eq!((&close["code"], &close["reason"]), (&4000.into(), &"heartbeat missed".into()));
    let line = proxy.ws_close(|line| line["close.code"] == 4000).await.json;
    assert_eq!(line["close.initiator"], "upstream", "{line}");
    assert_eq!(line["close.reason"], "normal", "{line}");
    assert_eq!(app.close_of("silent").await.json["code"], 4000);

    assert!(answering.events("close").is_empty(), "{}", answering.transcript());
    proxy.finish().await;
}
