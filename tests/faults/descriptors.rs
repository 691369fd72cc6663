//! A proxy without a free descriptor: open sessions continue, and the app is not given up.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use pulsegate_test_kit::client::{Neighbour, echo, upgrade_head};
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::proxy::{Config, Proxy, QUICK};
use pulsegate_test_kit::wait::{wait_for, wait_until};
use rustix::process::{Resource, Rlimit, prlimit};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

use crate::PULSEGATE;
use crate::app_stopped::becomes;
use crate::tool::{cpu_time, pid};

/// Several times `interval + timeout`.
const WINDOWS: Duration = Duration::from_secs(3);

async fn proxy(app: &NodeApp) -> Proxy {
    let config = Config::to(PULSEGATE, &app.url).admin("health = \"127.0.0.1:0\"").admin("socket = \"off\"");
    // The answer to a probe would leave a connection in the pool, which a session could take.
    let config = config.upstream("probe = \"off\"");
    let watch = config.listen("workers = 1").upstream("interval = \"300ms\"").upstream("timeout = \"400ms\"");
    let proxy = Proxy::start(watch.with(QUICK)).await;
    becomes(&proxy, 200).await;
    proxy
}

/// Returns the numbers of the descriptors that the proxy has open.
fn open_files(proxy: &Proxy) -> BTreeSet<usize> {
    let folder = fs::read_dir(format!("/proc/{}/fd", pid(proxy).as_raw_nonzero())).expect("the proxy runs");
    folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Limits the proxy to `count` more descriptors than it has, once they have settled. Returns the former limit.
async fn leave(proxy: &Proxy, count: usize) -> Rlimit {
    let mut last = BTreeSet::new();
    let look = || {
        let before = std::mem::replace(&mut last, open_files(proxy));
        (before, last.clone())
    };
    let (_, open) = wait_until("its descriptors", look, |(before, now)| before == now).await;
    // The limit is one of their numbers, and there may be gaps between those that are open.
    let limit = (0..).filter(|number| !open.contains(number)).nth(count).map(|number: usize| number as u64);
    let limit = Rlimit { current: limit, maximum: Some(20_000) };
    prlimit(Some(pid(proxy)), Resource::Nofile, limit).expect("root may set limits")
}

#[tokio::test]
async fn sessions_beat_on_while_no_connection_can_be_accepted() {
    let app = NodeApp::bare().await;
    let proxy = proxy(&app).await;
    let neighbours = join_all((0..5).map(|_| Neighbour::join(&proxy, "/ws"))).await;
    let before = leave(&proxy, 3).await;
    let crowd = join_all((0..30).map(|_| proxy.tcp())).await;
    proxy.line("that nothing can be accepted", |line| line.json["message"] == "accept failed").await;

    let (began, used) = (Instant::now(), cpu_time(&proxy));
    while began.elapsed() < WINDOWS {
        for neighbour in &neighbours {
            neighbour.echoes().await;
        }
        sleep(Duration::from_millis(700)).await;
    }
    let used = cpu_time(&proxy) - used;
    assert!(used < began.elapsed() / 4, "{used:?} of CPU time in {:?}", began.elapsed());
    let complaints = proxy.logged("accept failed");
    assert!(complaints.len() <= 2, "once is enough: {complaints:#?}");
    let remedy = complaints[0]["mend"].as_str().unwrap_or_default();
    assert!(remedy.contains("LimitNOFILE"), "{complaints:?}");
    assert!(proxy.logged("ws.close").is_empty(), "{}", proxy.transcript());
    assert!(proxy.logged("upstream.unreachable").is_empty(), "{}", proxy.transcript());

    // Descriptors are free again: first because the crowd closes, then because the limit is raised.
    drop(crowd);
    let mut websocket = proxy.websocket("/ws").await;
    wait_for("an echo", echo(&mut websocket, Message::text("in"))).await.expect("an echo");
    prlimit(Some(pid(&proxy)), Resource::Nofile, before).expect("root may set limits");
    join_all((0..10).map(|_| Neighbour::join(&proxy, "/ws"))).await;
    for neighbour in &neighbours {
        neighbour.echoes().await;
    }
    drop(websocket);
    proxy.finish().await;
}

#[tokio::test]
async fn s58_a_connect_without_a_descriptor_is_no_failure_of_the_app() {
    let app = NodeApp::bare().await;
    let proxy = proxy(&app).await;
    let neighbour = Neighbour::join(&proxy, "/ws").await;
    for _ in 0..3 {
        let mut client = proxy.tls().await;
        // The session's other descriptor, towards the app, exceeds the limit.
        let before = leave(&proxy, 0).await;
        let answer = proxy.ask(&mut client, format!("{}\r\n", upgrade_head("/ws")).as_bytes()).await;
        assert!([502, 503].contains(&answer.status), "{answer:?}");
        sleep(Duration::from_secs(1)).await;
        prlimit(Some(pid(&proxy)), Resource::Nofile, before).expect("root may set limits");
        becomes(&proxy, 200).await;
        neighbour.echoes().await;
    }
    let blamed = proxy.count(|line| {
        let message = line.json["message"].as_str().unwrap_or_default();
        ["upstream.unreachable", "upstream.unresponsive", "upstream.given_up"].contains(&message)
    });
    assert_eq!(blamed, 0, "{}", proxy.transcript());
    proxy.finish().await;
}

#[tokio::test]
async fn a_drain_without_descriptors_ends_in_order() {
    let app = NodeApp::bare().await;
    let mut proxy = proxy(&app).await;
    let _neighbours = join_all((0..5).map(|_| Neighbour::join(&proxy, "/ws"))).await;
    leave(&proxy, 0).await;
    let waiting = wait_for("a connect", TcpStream::connect(proxy.address)).await.expect("the kernel accepts");
    proxy.line("that nothing can be accepted", |line| line.json["message"] == "accept failed").await;
    proxy.terminate();
    let status = proxy.exit_within(Duration::from_secs(15)).await;
    assert_eq!(status.code(), Some(0), "{status}; the log:\n{}", proxy.transcript());
    let lines = proxy.logged("ws.close");
    assert_eq!(lines.len(), 5, "{lines:#?}");
    assert!(lines.iter().all(|line| line["close.code"] == 1012), "{lines:#?}");
    drop(waiting);
}
