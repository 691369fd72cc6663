//! The classic recipe reversed: the heartbeat code of the app is deleted, the proxy sends the heartbeats, and the page
//! that answers them is unchanged.

use std::time::{Duration, Instant};

use pulsegate_test_kit::browser::Browser;
use pulsegate_test_kit::client::upgrade_head;
use pulsegate_test_kit::node::{NodeApp, NodeClient};
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_until;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::PULSEGATE;

/// The time limits allow for a Node client on a busy machine, which may take a second to answer.
const SPOKEN: &str = "[heartbeat]\ninterval = \"400ms\"\ntimeout = \"2s\"\n\
                      profile = { send = \"heartbeat\", expect = \"heartbeat\" }\n";
/// `interval + timeout` of [`SPOKEN`].
const BOUND: Duration = Duration::from_millis(2_400);
/// The delay that a busy machine may add to a bound.
const SLACK: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_client_that_answers_heartbeats_lives_and_the_app_sees_none_of_it() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(SPOKEN)).await;
    let mut client = NodeClient::connect(&proxy, "/ws?name=live", &["--answer"]).await;

    wait_until("many heartbeats", || client.events("beat").len(), |beats| *beats >= 12).await;
    client.write_line(&json!({ "send": "still here" })).await;
    client.event("message", |event| event["data"] == "still here").await;
    client.write_line(&json!({ "close": [1000, "done"] })).await;

    let close = app.close_of("live").await.json;
    assert_eq!((&close["code"], &close["reason"]), (&1000.into(), &"done".into()));
    assert_eq!(close["payload"], "still here".len(), "heartbeats reached the app: {close}");
    let open = &proxy.logged("ws.open")[0];
    assert_eq!((&open["heartbeat.mode"], &open["heartbeat.profile"]), (&"app".into(), &"custom".into()), "{open}");
    let line = proxy.ws_close(|_| true).await.json;
    assert_eq!((&line["close.initiator"], &line["missed"]), (&"client".into(), &0.into()), "{line}");
    assert!(line["rtt_last_s"].as_f64().is_some_and(|rtt| rtt > 0.0 && rtt < 2.0), "{line}");
    proxy.finish().await;
}

#[tokio::test]
async fn a_client_that_answers_pings_but_no_heartbeats_is_torn_down() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(SPOKEN)).await;
    let mut answering = NodeClient::connect(&proxy, "/ws?name=answering", &["--answer"]).await;
    let connections = proxy.connections();
    let silent = NodeClient::connect(&proxy, "/ws?name=silent", &[]).await;
    let opened = Instant::now();

    let close = app.close_of("silent").await;
    let took = close.at - opened;
    assert!(took < BOUND + SLACK, "the app got the Close only after {took:?}");
    let close = close.json;
    assert_eq!((&close["code"], &close["reason"]), (&4408.into(), &"heartbeat timeout".into()));
    assert_eq!(close["payload"], 0, "{close}");
    let close = silent.event("close", |_| true).await;
    assert_eq!((&close["code"], &close["reason"]), (&1012.into(), &"heartbeat timeout".into()));
    assert!(!silent.events("beat").is_empty(), "it was never asked: {}", silent.transcript());

    let line = proxy.ws_close(|_| true).await.json;
    assert_eq!(line["close.initiator"], "proxy", "{line}");
    assert_eq!(line["close.reason"], "heartbeat_timeout", "{line}");
    assert_eq!((&line["close.code"], &line["upstream.close_code"]), (&1012.into(), &4408.into()), "{line}");
    assert_eq!(line["missed"], 1, "{line}");
    proxy.releases(connections).await;

    answering.write_line(&json!({ "send": "still here" })).await;
    answering.event("message", |event| event["data"] == "still here").await;
    assert_eq!(app.events("close").len(), 1, "{}", app.transcript());
    proxy.finish().await;
}

#[tokio::test]
async fn the_page_of_the_recipe_lives_on_as_it_is() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(SPOKEN)).await;
    let mut browser = Browser::visit(&proxy.https("/answering?name=page"), &proxy.pki.ca).await;
    browser.event("open", |_| true).await;
    sleep(BOUND * 3).await;
    browser.write_line(&json!({ "send": "still here" })).await;
    browser.event("message", |event| event["data"] == "still here").await;
    browser.write_line(&json!({ "read": "#log li" })).await;
    assert_eq!(browser.event("read", |_| true).await["lines"], json!(["open", "message"]));

    proxy.terminate();
    let close = app.close_of("page").await.json;
    assert_eq!(close["payload"], "still here".len(), "heartbeats reached the app: {close}");
}

#[tokio::test]
async fn s45_the_apps_own_heartbeat_goes_on_beside_the_proxys() {
    const EVERY: Duration = Duration::from_millis(1_000);
    let app = NodeApp::classic(1_000, 5_000).await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(&SPOKEN.replace("400ms", "150ms"))).await;
    let mut client = NodeClient::connect(&proxy, "/ws?name=live", &["--answer"]).await;

    let answers = || app.count(|line| line.json["event"] == "answer");
    wait_until("the app's own heartbeats are answered", answers, |answers| *answers >= 6).await;
    client.write_line(&json!({ "send": "still here" })).await;
    client.event("message", |event| event["data"] == "still here").await;
    client.write_line(&json!({ "close": [1000, "done"] })).await;
    let close = app.close_of("live").await;
    assert_eq!(close.json["code"], 1000, "{}", close.json);

    // The app has received no more answers than it has sent probes, give or take the one of the running second.
    let open = app.event_line("open", |event| event["name"] == "live").await;
    let asked = (close.at - open.at).as_millis() / EVERY.as_millis();
    let answered = answers();
    assert!(answered as u128 <= asked + 1, "{asked} questions, {answered} answers: {}", app.transcript());
    assert_eq!(close.json["payload"], "still here".len(), "{}", close.json);
    let beats = client.events("beat").len();
    assert!(beats > answered * 2, "the proxy hardly asked: {beats} questions, {answered} the app's own");
    proxy.finish().await;
}

#[tokio::test]
async fn s47_compression_is_not_agreed_where_messages_must_be_read() {
    const SIZE: u64 = 1_000_000;
    let app = NodeApp::bare().await;
    let answer = "[[route]]\npath = \"/deflate/answer\"\n[route.heartbeat]\nmode = \"answer\"\n";
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(SPOKEN).with(answer)).await;

    // The app would compress on this path, and the client offers it.
    let mut client = NodeClient::connect(&proxy, "/deflate?name=offering", &["--deflate", "--answer"]).await;
    assert_eq!(client.event("open", |_| true).await["extensions"], "");
    let open = app.event("open", |event| event["name"] == "offering").await;
    assert_eq!(open["extensions"], "", "{open}");
    assert!(open["headers"].get("sec-websocket-extensions").is_none(), "the offer reached the app: {open}");
    client.write_line(&json!({ "fill": SIZE })).await;
    let echo = client.event("echo", |_| true).await;
    assert_eq!((&echo["same"], &echo["size"]), (&true.into(), &SIZE.into()), "{echo}");
    assert!(echo["wire"].as_u64().is_some_and(|wire| wire > SIZE), "{echo}");
    wait_until("heartbeats", || client.events("beat").len(), |beats| *beats >= 3).await;

    for path in ["/deflate?name=app", "/deflate/answer?name=answer"] {
        let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-other\r\n\
                     Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
        let mut stream = proxy.tls().await;
        let answer = proxy.ask(&mut stream, format!("{}{offer}", upgrade_head(path)).as_bytes()).await;
        assert_eq!((answer.status, answer.header("sec-websocket-extensions")), (101, None), "{answer:?}");
    }
    let _unasking = NodeClient::connect(&proxy, "/deflate?name=unasking", &[]).await;
    wait_until("every ws.open", || proxy.logged("ws.open").len(), |count| *count == 4).await;
    let said: Vec<Value> = proxy.logged("ws.open").iter().map(|line| line["heartbeat.extensions"].clone()).collect();
    assert_eq!(said, [json!("refused"), json!("refused"), json!("refused"), Value::Null], "{}", proxy.transcript());
    for name in ["app", "answer"] {
        let open = app.event("open", |event| event["name"] == name).await;
        assert!(open["headers"].get("sec-websocket-extensions").is_none(), "the offer reached the app: {open}");
    }
    proxy.finish().await;
}
