//! A limit of memory: many clients that read nothing while the app floods them.

use std::time::Duration;

use futures_util::future::join_all;
use pulsegate_test_kit::client::{Neighbour, echo, upgrade_head};
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::{wait_for, wait_until_async};
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

use crate::PULSEGATE;
use crate::app_stopped::app_on;
use crate::tool::status_field;

/// The number of clients that read nothing.
const SLOW: usize = 40;

/// The most that one session may hold for a client that reads nothing, with the buffers of its TLS records, in KiB.
const HELD: u64 = 512;

#[tokio::test]
async fn slow_readers_cost_bounded_memory_and_new_sessions_wait_until_they_are_gone() {
    let dir = tempfile::TempDir::new().expect("a folder");
    let socket = dir.path().join("app.sock");
    let _app = app_on(&socket).await;
    let sections =
        "[heartbeat]\ninterval = \"500ms\"\ntimeout = \"2s\"\nwrite_stall = \"5s\"\n[limits]\nmemory = \"256KiB\"\n";
    let proxy = Proxy::start(Config::to(PULSEGATE, &format!("unix:{}", socket.display())).with(sections)).await;
    let neighbours = join_all((0..5).map(|_| Neighbour::join(&proxy, "/ws"))).await;
    let before = status_field(&proxy, "VmRSS:");

    // They are admitted before the first of them holds much for long.
    let slow = join_all((0..SLOW).map(|_| async {
        let mut stream = proxy.tls().await;
        (proxy.ask(&mut stream, format!("{}\r\n", upgrade_head("/flood")).as_bytes()).await.status, stream)
    }))
    .await;
    let admitted = slow.iter().filter(|(status, _)| *status == 101).count();
    assert!(admitted >= 2, "{admitted} were admitted");
    sleep(Duration::from_millis(500)).await;
    let mut newcomer = proxy.tls().await;
    let answer = proxy.ask(&mut newcomer, format!("{}\r\n", upgrade_head("/ws")).as_bytes()).await;
    assert_eq!(answer.status, 503, "{admitted} hold too much: {answer:?}; the log:\n{}", proxy.transcript());
    for _ in 0..4 {
        for neighbour in &neighbours {
            neighbour.echoes().await;
        }
        sleep(Duration::from_millis(400)).await;
    }
    let most = status_field(&proxy, "VmHWM:");
    let allowed = before + HELD * admitted as u64 + 8 * 1024;
    assert!(most < allowed, "{most} KiB at most, {before} KiB before {admitted} slow readers");

    // The slow sessions are closed, and new ones fit again.
    proxy.ws_closes(admitted).await;
    let reasons: Vec<_> = proxy.logged("ws.close").iter().map(|line| line["close.reason"].clone()).collect();
    assert!(reasons.iter().all(|reason| reason == "slow_reader"), "{reasons:?}");
    let upgrade = async || {
        let mut stream = proxy.tls().await;
        proxy.ask(&mut stream, format!("{}\r\n", upgrade_head("/ws")).as_bytes()).await
    };
    wait_until_async("a WebSocket is accepted again", upgrade, |answer| answer.status == 101).await;
    let mut websocket = proxy.websocket("/ws").await;
    wait_for("an echo", echo(&mut websocket, Message::text("in"))).await.expect("an echo");
    for neighbour in &neighbours {
        neighbour.echoes().await;
    }
    drop((slow, newcomer, websocket));
    proxy.finish().await;
}
