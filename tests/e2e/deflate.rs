//! permessage-deflate is negotiated between the client and the app (RFC 7692); the proxy relays it.

use pulsegate_test_kit::fake_app::{FakeApp, hold};
use pulsegate_test_kit::frame::{BINARY, FIN, Frame, RSV1};
use pulsegate_test_kit::node::{NodeApp, NodeClient};
use pulsegate_test_kit::proxy::{Config, Proxy, QUICK};
use pulsegate_test_kit::wait::wait_for;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::PULSEGATE;

const SIZE: u64 = 1_000_000;

#[tokio::test]
async fn both_ends_compress_through_the_proxy() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(QUICK)).await;
    let mut client = NodeClient::connect(&proxy, "/deflate?name=small", &["--deflate"]).await;

    let at_client = client.event("open", |_| true).await;
    let at_app = app.event("open", |event| event["name"] == "small").await;
    for end in [&at_client, &at_app] {
        assert_eq!(end["extensions"], "permessage-deflate", "{end}");
    }

    client.write_line(&json!({ "fill": SIZE })).await;
    let echo = client.event("echo", |_| true).await;
    assert_eq!((&echo["same"], &echo["size"]), (&true.into(), &SIZE.into()), "{echo}");
    assert!(echo["wire"].as_u64().is_some_and(|wire| wire < SIZE / 20), "the app did not compress: {echo}");

    client.write_line(&json!({ "close": [1000, "done"] })).await;
    let close = app.close_of("small").await.json;
    assert_eq!((&close["code"], &close["payload"]), (&1000.into(), &SIZE.into()), "{close}");
    assert!(close["wire"].as_u64().is_some_and(|wire| wire < SIZE / 20), "the client did not compress: {close}");
    proxy.finish().await;
}

#[tokio::test]
async fn an_extension_that_the_app_declines_is_off_at_both_ends() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut client = NodeClient::connect(&proxy, "/ws?name=plain", &["--deflate"]).await;
    assert_eq!(client.event("open", |_| true).await["extensions"], "");
    assert_eq!(app.event("open", |event| event["name"] == "plain").await["extensions"], "");
    client.write_line(&json!({ "fill": SIZE })).await;
    let echo = client.event("echo", |_| true).await;
    assert_eq!(echo["same"], true, "{echo}");
    assert!(echo["wire"].as_u64().is_some_and(|wire| wire > SIZE), "{echo}");
    proxy.finish().await;
}

#[tokio::test]
async fn a_compressed_frame_arrives_with_rsv1_set() {
    let (seen, mut frames) = tokio::sync::mpsc::unbounded_channel();
    let fake = FakeApp::start(move |request, mut stream| {
        let seen = seen.clone();
        async move {
            let agreed = "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
            let answer = request.accept();
            let answer = answer.trim_end_matches("\r\n").to_owned() + "\r\n" + agreed;
            stream.write_all(answer.as_bytes()).await.expect("answer the upgrade");
            let _ = seen.send(Frame::read(&mut stream).await);
            hold(stream).await;
        }
    })
    .await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut client = NodeClient::connect(&proxy, "/raw", &["--deflate"]).await;
    client.write_line(&json!({ "fill": 10_000 })).await;
    let frame = wait_for("the compressed frame", frames.recv()).await.flatten().expect("a frame");
    assert_eq!(frame.first, FIN | RSV1 | BINARY);
    assert!(frame.payload.len() < 1_000, "{} bytes", frame.payload.len());
    proxy.finish().await;
}
