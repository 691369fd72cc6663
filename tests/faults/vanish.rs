//! Clients that vanish without a FIN or a RST, and links that are down for a while.

use std::time::{Duration, Instant};

use pulsegate_test_kit::client::next_message;
use pulsegate_test_kit::process::Process;
use pulsegate_test_kit::proxy::{BOUND, Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use tempfile::TempDir;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

use crate::PULSEGATE;
use crate::app_stopped::app_on;
use crate::live::Session;
use crate::net::Net;

/// `interval + timeout` is [`BOUND`]; the leg of a dead client lasts for `close_grace` more.
const HEARTBEAT: &str = "[heartbeat]\ninterval = \"400ms\"\ntimeout = \"600ms\"\nclose_grace = \"300ms\"\n";
const GRACE: Duration = Duration::from_millis(300);

/// The delay that a busy machine may add.
const SLACK: Duration = Duration::from_millis(1500);

async fn set_up(heartbeat: &str) -> (TempDir, Process, Net, Proxy) {
    let dir = TempDir::new().expect("a folder");
    let socket = dir.path().join("app.sock");
    let app = app_on(&socket).await;
    let net = Net::linked();
    let config = Config::to(PULSEGATE, &format!("unix:{}", socket.display())).with(heartbeat);
    // Connections to the app for its own liveness open and close, and would be counted.
    let proxy = net.proxy(config.upstream("interval = \"off\"")).await;
    (dir, app, net, proxy)
}

/// Runs a live session for five seconds; the task returns the session.
fn beside(mut session: Session) -> tokio::task::JoinHandle<Result<Session, String>> {
    tokio::spawn(async move {
        session.talks(Duration::from_secs(5)).await?;
        Ok(session)
    })
}

/// Checks that the app's endpoint of each session closed within `bound` of `began`, and that the log has it.
async fn gone(app: &Process, proxy: &Proxy, names: &[&str], began: Instant, bound: Duration) {
    for name in names {
        let close = app.event_line("close", |event| event["name"] == *name).await;
        let took = close.at.saturating_duration_since(began);
        assert!(took < bound, "the app's leg of {name} ended after {took:?}; the log:\n{}", proxy.transcript());
        let ended = proxy.ws_close(|line| line["url.path"] == format!("/{name}")).await;
        let took = ended.at.saturating_duration_since(began);
        assert!(took < bound + GRACE, "{name} was logged after {took:?}: {}", ended.text);
    }
}

#[tokio::test]
async fn s03_clients_that_vanish_are_gone_from_both_legs_within_the_bound_and_come_back() {
    let (_dir, app, net, proxy) = set_up(HEARTBEAT).await;
    let mut neighbour = Session::One(net.websocket(&proxy, "/neighbour").await.1);
    neighbour.echoes(0, &mut 0).await.expect("an echo");
    let neighbour = beside(neighbour);
    let baseline = proxy.connections();

    let (one, lone) = net.websocket(&proxy, "/lone").await;
    let (two, mut client) = net.h2(&proxy).await;
    let mut streams = Vec::new();
    for path in ["/first", "/second", "/third"] {
        streams.push(client.websocket(path).await);
    }
    net.swallows(&[one, two]);
    let began = Instant::now();
    gone(&app, &proxy, &["lone", "first", "second", "third"], began, BOUND + SLACK).await;
    proxy.releases(baseline).await;
    let released = began.elapsed();
    assert!(released < BOUND + GRACE + SLACK, "the sockets lasted {released:?}");
    for close in app.events("close") {
        assert_eq!(close["code"], 4408, "{close}");
    }

    net.passes();
    let mut back = Session::One(net.websocket(&proxy, "/back").await.1);
    back.echoes(3, &mut 0).await.expect("an echo");
    let neighbour = neighbour.await.expect("no panic");
    assert!(neighbour.is_ok(), "the session beside them: {:?}; the log:\n{}", neighbour.err(), proxy.transcript());
    drop((lone, streams, client, back));
    proxy.finish().await;
}

#[tokio::test]
async fn s22_a_client_that_vanishes_in_a_download_is_gone_within_the_write_stall() {
    const STALL: Duration = Duration::from_secs(2);
    let heartbeat = format!("{HEARTBEAT}write_stall = \"2s\"\n");
    let (_dir, app, net, proxy) = set_up(&heartbeat).await;
    let (one, mut download) = net.websocket(&proxy, "/flood").await;
    let (two, mut client) = net.h2(&proxy).await;
    let mut stream = client.websocket("/flood2").await;
    for _ in 0..5 {
        let message = wait_for("a message", next_message(&mut download)).await.expect("the download goes on");
        assert!(matches!(message, Message::Binary(_)), "{message:?}");
        wait_for("a message", stream.message()).await.expect("the download goes on");
    }
    // Both keep reading until nothing arrives: the fault is in the network, not in the reader.
    let reading = tokio::spawn(async move { while next_message(&mut download).await.is_ok() {} });
    let reading_too = tokio::spawn(async move { while let Ok(Some(_)) = stream.frame_within(STALL * 10).await {} });
    net.swallows(&[one, two]);
    let began = Instant::now();
    gone(&app, &proxy, &["flood", "flood2"], began, BOUND + STALL + SLACK).await;
    reading.abort();
    reading_too.abort();
    net.passes();
    drop(client);
    proxy.finish().await;
}

#[tokio::test]
async fn a_link_that_is_down_for_less_than_the_timeout_costs_no_session() {
    let heartbeat = "[heartbeat]\ninterval = \"400ms\"\ntimeout = \"8s\"\n";
    let (_dir, _app, net, proxy) = set_up(heartbeat).await;
    let (_, mut client) = net.h2(&proxy).await;
    let sessions = [Session::One(net.websocket(&proxy, "/one").await.1), Session::Two(client.websocket("/two").await)];
    let talking = sessions.map(beside);
    sleep(Duration::from_millis(700)).await;
    net.link("down");
    sleep(Duration::from_millis(1500)).await;
    net.link("up");
    for session in talking {
        let session = session.await.expect("no panic");
        assert!(session.is_ok(), "{:?}; the log:\n{}", session.err(), proxy.transcript());
    }
    assert!(proxy.logged("ws.close").iter().all(|line| line["close.initiator"] == "client"), "{}", proxy.transcript());
    drop(client);
    proxy.finish().await;
}
