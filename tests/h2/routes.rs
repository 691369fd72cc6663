//! One connection, routes with different heartbeats: each session ends by its own.

use std::time::Duration;

use pulsegate_test_kit::fake_app::{AppSession, FakeApp};
use pulsegate_test_kit::frame::{FIN, Frame, TEXT};
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

use crate::PULSEGATE;
use crate::h2::raw::{self, DATA, END_HEADERS, HEADERS, Raw};

/// The default route is quick; the others are not.
const ROUTES: &str = "[heartbeat]\ninterval = \"500ms\"\ntimeout = \"500ms\"\njitter = 0.0\n\
    [[route]]\npath = \"/off\"\nheartbeat = { mode = \"off\" }\n\
    [[route]]\npath = \"/slow\"\nheartbeat = { interval = \"30s\", timeout = \"30s\" }\n";

/// Opens a WebSocket for `path` on `stream`, and gives the app's end of it.
async fn open(
    client: &mut Raw,
    sessions: &mut UnboundedReceiver<AppSession>,
    path: &'static str,
    stream: u32,
) -> TcpStream {
    client.send(HEADERS, END_HEADERS, stream, &raw::block(&raw::connect(path))).await;
    client.until("a 200", |frame| frame.kind == HEADERS && frame.stream == stream).await;
    wait_for("the session", sessions.recv()).await.expect("the fake runs").1
}

/// Sends a message on `stream`, which must arrive at `app`.
async fn carries(client: &mut Raw, stream: u32, app: &mut TcpStream) {
    let message = Frame::client(FIN | TEXT, "still here");
    client.send(DATA, 0, stream, &message.bytes()).await;
    assert_eq!(wait_for("the message", Frame::read(app)).await, Some(message));
}

#[tokio::test]
async fn s74_a_silent_session_lives_by_its_own_route_beside_a_quicker_default() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(ROUTES)).await;
    let mut client = Raw::connect(&proxy).await;
    let mut off = open(&mut client, &mut sessions, "/off", 1).await;
    let mut slow = open(&mut client, &mut sessions, "/slow", 3).await;
    let mut quick = open(&mut client, &mut sessions, "/raw", 5).await;
    // The client answers nothing, no PING either: the quick session ends.
    let end = wait_for("the app hears of it", Frame::read(&mut quick)).await.expect("a Close");
    assert_eq!(end.close(), Some((4408, "heartbeat timeout".into())));
    // Three windows of the default more.
    sleep(Duration::from_secs(3)).await;
    assert_eq!(proxy.ws_closes(1).await.len(), 1, "{}", proxy.transcript());
    carries(&mut client, 1, &mut off).await;
    carries(&mut client, 3, &mut slow).await;
    proxy.finish().await;
}

#[tokio::test]
async fn s74_a_ping_that_a_quicker_route_asked_for_is_judged_by_the_more_patient_one() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    // The slow route may be silent for 22 s, although it gives an answer 2 s only.
    let routes = ROUTES.replace("interval = \"30s\", timeout = \"30s\"", "interval = \"20s\", timeout = \"2s\"");
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(&routes)).await;
    let mut client = Raw::connect(&proxy).await;
    let mut slow = open(&mut client, &mut sessions, "/slow", 1).await;
    let mut quick = open(&mut client, &mut sessions, "/raw", 3).await;
    let end = wait_for("the app hears of it", Frame::read(&mut quick)).await.expect("a Close");
    assert_eq!(end.close(), Some((4408, "heartbeat timeout".into())));
    // Longer than the answer of the slow route may take.
    sleep(Duration::from_secs(3)).await;
    assert_eq!(proxy.ws_closes(1).await.len(), 1, "{}", proxy.transcript());
    carries(&mut client, 1, &mut slow).await;
    proxy.finish().await;
}

#[tokio::test]
async fn s74_a_connection_without_any_heartbeat_is_asked_nothing() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(ROUTES)).await;
    let mut client = Raw::connect(&proxy).await;
    let mut off = open(&mut client, &mut sessions, "/off", 1).await;
    sleep(Duration::from_secs(3)).await;
    carries(&mut client, 1, &mut off).await;
    assert!(proxy.logged("ws.close").is_empty(), "{}", proxy.transcript());
    proxy.finish().await;
}
