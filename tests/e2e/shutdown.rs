//! SIGTERM: stop accepting, Close 1012 to every session, both legs closed, exit 0.

use std::io::ErrorKind;

use futures_util::future::join_all;
use pulsegate_test_kit::client::close_of;
use pulsegate_test_kit::frame::{CLOSE, Frame};
use pulsegate_test_kit::node::{NodeApp, NodeClient};
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::{TIMEOUT, wait_for, wait_until};
use tokio::net::TcpStream;

use crate::PULSEGATE;

#[tokio::test]
async fn sigterm_closes_every_session_with_1012_and_exits_0() {
    const SESSIONS: usize = 30;
    let app = NodeApp::bare().await;
    let mut proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut websockets = join_all((0..SESSIONS).map(|_| proxy.websocket("/ws"))).await;
    let client = NodeClient::connect(&proxy, "/ws?name=node", &[]).await;
    let mut deaf = proxy.upgraded("/ws?name=deaf").await;
    wait_until("the app has all sessions", || app.events("open").len(), |count| *count == SESSIONS + 2).await;

    proxy.terminate();
    for (code, reason) in join_all(websockets.iter_mut().map(close_of)).await {
        assert_eq!(code, 1012, "{reason}");
    }
    assert_eq!(client.event("close", |_| true).await["code"], 1012);
    // One client reads its Close and never answers; it must not delay the proxy.
    let close = wait_for("the deaf client's Close", Frame::read(&mut deaf)).await.expect("a frame before the end");
    assert_eq!((close.opcode(), close.close().map(|(code, _)| code)), (CLOSE, Some(1012)));

    let status = proxy.exit_within(TIMEOUT).await;
    assert_eq!(status.code(), Some(0), "{status}; it wrote:\n{}", proxy.transcript());
    proxy.has_not_panicked();
    wait_until("the app's close events", || app.events("close").len(), |count| *count == SESSIONS + 2).await;
    assert!(app.events("close").iter().all(|event| event["code"] == 1012), "{}", app.transcript());
    // The process may be gone before all it wrote has been read.
    let closes = proxy.ws_closes(SESSIONS + 2).await;
    assert_eq!(closes.len(), SESSIONS + 2, "one line for each session");
    assert!(closes.iter().all(|line| line["close.reason"] == "drain" && line["close.initiator"] == "proxy"));
    let refused = TcpStream::connect(proxy.address).await.expect_err("the port is closed");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn sigterm_without_a_session_exits_0_at_once() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    // A connection that never sends anything is not waited for.
    let _silent = proxy.tls().await;
    proxy.finish().await;
}

#[tokio::test]
async fn it_can_be_started_again_at_once_on_the_same_port() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let address = proxy.address;
    // The proxy begins the end, so the proxy's port keeps a connection in TIME_WAIT.
    let client = NodeClient::connect(&proxy, "/ws", &[]).await;
    let proxy = proxy.restart().await;
    client.event("close", |_| true).await;
    assert_eq!(proxy.address, address);
    NodeClient::connect(&proxy, "/ws", &[]).await;
    proxy.finish().await;
}
