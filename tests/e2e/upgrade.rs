//! The WebSocket handshake, from the client to the app and back.

use pulsegate_test_kit::client::upgrade_head;
use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::frame::{FIN, Frame, TEXT};
use pulsegate_test_kit::node::{NodeApp, NodeClient};
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::PULSEGATE;

#[tokio::test]
async fn a_refusal_of_the_app_reaches_the_client_with_its_body() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let client = NodeClient::start(&proxy, "/refuse", &[]);
    let refused = client.event("refused", |_| true).await;
    assert_eq!(refused["status"], 401);
    assert_eq!(refused["headers"]["www-authenticate"], "Bearer realm=\"app\"");
    assert_eq!(refused["body"], "log in first\n");
    assert!(proxy.logged("ws.open").is_empty(), "no session was opened");
    proxy.finish().await;
}

#[tokio::test]
async fn subprotocols_are_between_the_client_and_the_app() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let client =
        NodeClient::connect(&proxy, "/ws?name=speaks", &["--protocol", "chat.v2", "--protocol", "chat.v1"]).await;
    assert_eq!(client.event("open", |_| true).await["protocol"], "chat.v2");
    let open = app.event("open", |event| event["name"] == "speaks").await;
    assert_eq!(open["protocol"], "chat.v2");
    assert_eq!(open["headers"]["sec-websocket-protocol"], "chat.v2,chat.v1");
    let line = proxy.line("a ws.open", |line| line.json["message"] == "ws.open").await.json;
    assert_eq!(line["subprotocol"], "chat.v2", "{line}");
    proxy.finish().await;
}

#[tokio::test]
async fn the_app_gets_the_client_and_the_connection_id() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut stream = proxy.tls().await;
    let request = upgrade_head("/ws?name=who&token=secret")
        + "Origin: https://app.example\r\nX-Forwarded-For: 6.6.6.6\r\nX-Pulsegate-Connection-Id: forged\r\n\r\n";
    let answer = proxy.ask(&mut stream, request.as_bytes()).await;
    assert_eq!(answer.status, 101, "{answer:?}");
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "RFC 6455 §1.3");

    let headers = app.event("open", |event| event["name"] == "who").await["headers"].clone();
    assert_eq!(headers["host"], "localhost");
    assert_eq!(headers["origin"], "https://app.example");
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(headers["x-forwarded-proto"], "https", "as for every other request");
    let line = proxy.line("a ws.open", |line| line.json["message"] == "ws.open").await.json;
    assert_eq!(headers["x-pulsegate-connection-id"], line["conn_id"], "{line}");
    assert!(headers["x-request-id"].as_str().is_some_and(|id| !id.is_empty()), "{headers}");
    assert!(!proxy.transcript().contains("secret"), "queries stay out of the log");
    proxy.finish().await;
}

#[tokio::test]
async fn a_client_leg_gets_no_frame_before_its_101_and_none_is_lost() {
    let (seen, mut early) = mpsc::unbounded_channel();
    let fake = FakeApp::start(move |request, mut stream| {
        let seen = seen.clone();
        async move {
            // Bytes before the 101 would be read here.
            let mut buffer = [0; 64];
            let premature = tokio::time::timeout(std::time::Duration::from_millis(300), stream.read(&mut buffer)).await;
            let mut answer = request.accept().into_bytes();
            answer.extend(Frame::server(FIN | TEXT, "glued to the 101").bytes());
            stream.write_all(&answer).await.expect("answer the upgrade");
            let frame = Frame::read(&mut stream).await;
            let _ = seen.send((premature.is_ok(), frame));
        }
    })
    .await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut stream = proxy.tls().await;
    let mut request = format!("{}\r\n", upgrade_head("/raw")).into_bytes();
    let early_frame = Frame::client(FIN | TEXT, "glued to the request");
    request.extend(early_frame.bytes());
    let answer = proxy.ask(&mut stream, &request).await;
    assert_eq!(answer.status, 101, "{answer:?}");

    let first = wait_for("the app's early frame", Frame::read(&mut stream)).await;
    assert_eq!(first, Some(Frame::server(FIN | TEXT, "glued to the 101")));
    let (premature, frame) = wait_for("the client's early frame", early.recv()).await.expect("the fake runs");
    assert!(!premature, "bytes reached the app before its 101");
    assert_eq!(frame, Some(early_frame));
    proxy.finish().await;
}

#[tokio::test]
async fn a_close_passes_with_its_code_and_reason_in_both_directions() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let payloads: [&[u8]; 3] = [b"\x0f\xa1x", b"\x03\xe8", b""];
    for payload in payloads {
        let close = |client: bool| (if client { Frame::client } else { Frame::server })(FIN | 0x8, payload);
        for client_begins in [true, false] {
            let mut client = proxy.upgraded("/raw").await;
            let (_, mut upstream) = wait_for("the session", sessions.recv()).await.expect("the fake runs");
            if client_begins {
                client.write_all(&close(true).bytes()).await.expect("it is open");
                client.flush().await.expect("it is open");
                assert_eq!(wait_for("the Close", Frame::read(&mut upstream)).await, Some(close(true)));
                upstream.write_all(&close(false).bytes()).await.expect("it is open");
                assert_eq!(wait_for("the echo", Frame::read(&mut client)).await, Some(close(false)));
            } else {
                upstream.write_all(&close(false).bytes()).await.expect("it is open");
                assert_eq!(wait_for("the Close", Frame::read(&mut client)).await, Some(close(false)));
                client.write_all(&close(true).bytes()).await.expect("it is open");
                client.flush().await.expect("it is open");
                assert_eq!(wait_for("the echo", Frame::read(&mut upstream)).await, Some(close(true)));
            }
            drop(upstream);
            let end = wait_for("the client leg ends", Frame::read(&mut client)).await;
            assert_eq!(end, None, "nothing comes after a Close");
        }
    }
    let closes = proxy.ws_closes(payloads.len() * 2).await;
    let who: Vec<&Value> = closes.iter().map(|line| &line["close.initiator"]).collect();
    assert_eq!(who.iter().filter(|who| **who == "client").count(), payloads.len(), "{who:?}");
    assert_eq!(who.iter().filter(|who| **who == "upstream").count(), payloads.len(), "{who:?}");
    proxy.finish().await;
}
