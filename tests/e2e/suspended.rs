//! The proxy itself is stopped for longer than every window.

use std::time::Duration;

use futures_util::future::join_all;
use pulsegate_test_kit::client::{Neighbour, Tls};
use pulsegate_test_kit::frame::{FIN, Frame, PING, PONG, TEXT};
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use crate::PULSEGATE;

const HEARTBEAT: &str = "[heartbeat]\ninterval = \"1s\"\ntimeout = \"2s\"\n";
/// Twice `interval + timeout`, and far over `stall_guard`.
const STOPPED: Duration = Duration::from_secs(6);

#[tokio::test]
async fn s28_a_proxy_that_was_stopped_closes_no_live_session() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(HEARTBEAT)).await;
    let neighbours = join_all((0..20).map(|_| Neighbour::join(&proxy, "/ws"))).await;
    // This client is dead all the time; its end proves that the heartbeat resumed afterwards.
    let _dead = proxy.upgraded("/ws?name=dead").await;
    // These clients hold back their pongs until the proxy is stopped, so that every pong waits in the kernel.
    let mut held = join_all((0..5).map(|_| async {
        let mut stream = proxy.upgraded("/ws").await;
        let ping = next_ping(&mut stream).await;
        (stream, ping)
    }))
    .await;

    proxy.stop();
    for (stream, ping) in &mut held {
        stream.write_all(&Frame::client(FIN | PONG, ping.clone()).bytes()).await.expect("the kernel takes it");
        stream.flush().await.expect("the kernel takes it");
    }
    sleep(STOPPED).await;
    proxy.resume();

    for (stream, first) in &mut held {
        let ping = next_ping(stream).await;
        assert_ne!(&ping, first, "a new probe has a new payload");
        stream.write_all(&Frame::client(FIN | PONG, ping).bytes()).await.expect("the session lives");
        stream.write_all(&Frame::client(FIN | TEXT, "still here").bytes()).await.expect("the session lives");
        let echo = wait_for("the echo", Frame::read_past_pings(stream)).await.expect("the session lives");
        assert_eq!(echo, Frame::server(FIN | TEXT, "still here"));
    }
    for neighbour in &neighbours {
        neighbour.echoes().await;
    }
    let close = app.close_of("dead").await.json;
    assert_eq!(close["code"], 4408, "{close}");
    let closes = proxy.logged("ws.close");
    assert!(closes.len() <= 1, "only the dead client may go: {closes:?}");
    proxy.finish().await;
}

/// Returns the payload of the next ping. Nothing else may come before it.
async fn next_ping(stream: &mut Tls) -> Vec<u8> {
    let frame = wait_for("a ping", Frame::read(stream)).await.expect("the session lives");
    assert_eq!(frame.first, FIN | PING, "{frame:?}");
    frame.payload
}
