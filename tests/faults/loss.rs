//! Links that lose packets, on which live clients stay connected.

use std::time::Duration;

use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::proxy::{Config, Proxy};
use tempfile::TempDir;

use crate::PULSEGATE;
use crate::live::Session;
use crate::net::Net;

/// The time for which clients send: many times `interval`.
const TIME: Duration = Duration::from_secs(9);

/// Opens two sessions over HTTP/1.1 and two streams over HTTP/2, all of them on `/ws`.
pub(crate) async fn sessions(net: &Net, proxy: &Proxy) -> (pulsegate_test_kit::http2::Http2Client, Vec<Session>) {
    let (_, mut client) = net.h2(proxy).await;
    let mut sessions = Vec::new();
    for _ in 0..2 {
        sessions.push(Session::One(net.websocket(proxy, "/ws").await.1));
        sessions.push(Session::Two(client.websocket("/ws").await));
    }
    (client, sessions)
}

/// Runs all sessions at the same time; none may end, and each must be pinged.
pub(crate) async fn all_talk(proxy: &Proxy, sessions: &mut [Session], time: Duration, least_pings: u32) {
    let talks = sessions.iter_mut().map(|session| session.talks(time));
    let results = futures_util::future::join_all(talks).await;
    for result in &results {
        let enough = result.as_ref().is_ok_and(|pings| *pings >= least_pings);
        assert!(enough, "{results:?}; the log:\n{}", proxy.transcript());
    }
    assert!(proxy.logged("ws.close").is_empty(), "{}", proxy.transcript());
}

/// Runs live clients on a link that loses `percent` of the packets in either direction. A packet is sent again after
/// 0.2 s, then after twice as long each time: `timeout` allows for as many losses in a row as are likely.
async fn live_clients_stay(percent: u32, timeout: Duration, least_pings: u32) {
    let dir = TempDir::new().expect("a folder");
    let app = NodeApp::bare_on(&dir.path().join("app.sock")).await;
    let net = Net::linked();
    let timeout = timeout.as_secs();
    let heartbeat = format!("[heartbeat]\ninterval = \"400ms\"\ntimeout = \"{timeout}s\"\nwrite_stall = \"60s\"\n");
    let proxy = net.proxy(Config::to(PULSEGATE, &app.url).with(&heartbeat)).await;
    let (client, mut sessions) = sessions(&net, &proxy).await;
    net.loses(percent);
    all_talk(&proxy, &mut sessions, TIME, least_pings).await;
    net.passes();
    drop((sessions, client));
    proxy.finish().await;
}

#[tokio::test]
async fn live_clients_stay_on_a_link_that_loses_1_percent() {
    live_clients_stay(1, Duration::from_secs(2), 4).await;
}

#[tokio::test]
async fn live_clients_stay_on_a_link_that_loses_5_percent() {
    live_clients_stay(5, Duration::from_secs(5), 3).await;
}

#[tokio::test]
async fn live_clients_stay_on_a_link_that_loses_20_percent() {
    live_clients_stay(20, Duration::from_secs(40), 1).await;
}
