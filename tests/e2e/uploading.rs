//! A client that is busy sending still gets the reason of its close.

use pulsegate_test_kit::node::{NodeApp, NodeClient};
use pulsegate_test_kit::proxy::{BOUND, Config, Proxy, QUICK};
use serde_json::json;
use tokio::time::sleep;

use crate::PULSEGATE;

/// Uploads are no sign of life on this route: only a Pong is, and the client sends none.
const ROUTE: &str = "\
[[route]]
path = \"/sink\"
[route.heartbeat]
liveness = \"pong_only\"
probe_when_busy = \"400ms\"
";

#[tokio::test]
async fn s32_an_uploading_client_sees_1012_and_not_1006() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(QUICK).with(ROUTE)).await;
    let mut client = NodeClient::connect(&proxy, "/sink?name=uploader", &["--mute"]).await;
    client.write_line(&json!({ "upload": 1 << 20 })).await;

    let close = client.event("close", |_| true).await;
    assert_eq!(
        (&close["code"], &close["reason"]),
        (&1012.into(), &"heartbeat timeout".into()),
        "{}",
        client.transcript()
    );
    let line = proxy.ws_close(|_| true).await.json;
    assert_eq!(line["close.reason"], "heartbeat_timeout", "{line}");
    assert_eq!(line["close.code"], 1012, "{line}");

    let close = app.close_of("uploader").await.json;
    let payload = close["payload"].as_u64().unwrap_or_default();
    assert!(payload > 0, "nothing was uploaded: {close}");
    assert_eq!(payload % (1 << 20), 0, "the app got a part of a message: {close}");
    // 4408 at a frame boundary; an end without a Close (1006) when a frame is half-forwarded.
    assert!(close["code"] == 4408 || close["code"] == 1006, "{close}");
    proxy.finish().await;
}

#[tokio::test]
async fn an_uploading_client_whose_bytes_count_is_not_closed() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(QUICK)).await;
    let mut client = NodeClient::connect(&proxy, "/sink?name=uploader", &["--mute"]).await;
    client.write_line(&json!({ "upload": 1 << 20 })).await;
    client.event("uploading", |_| true).await;
    sleep(BOUND * 3).await;
    assert!(client.events("close").is_empty(), "{}", client.transcript());
    client.terminate();
    app.close_of("uploader").await;
    proxy.finish().await;
}

#[tokio::test]
async fn an_uploading_client_gets_the_close_of_a_shutdown() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut client = NodeClient::connect(&proxy, "/sink?name=uploader", &[]).await;
    client.write_line(&json!({ "upload": 1 << 20 })).await;
    client.event("uploading", |_| true).await;
    proxy.finish().await;
    assert_eq!(client.event("close", |_| true).await["code"], 1012, "{}", client.transcript());
}
