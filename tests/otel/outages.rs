//! A collector that is slow or gone costs spans, and nothing else.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pulsegate_test_kit::client::echo;
use pulsegate_test_kit::fake_app::{FakeApp, RequestHead, hold};
use pulsegate_test_kit::proxy::{Config, Proxy};
use tokio::net::{TcpListener, TcpSocket};
use tokio_tungstenite::tungstenite::Message;

use crate::PULSEGATE;
use crate::collector::{Collector, section};

/// Starts an app that echoes on `/echo`.
async fn app() -> FakeApp {
    FakeApp::start(|_: RequestHead, stream| hold(stream)).await
}

/// Runs a session that echoes once.
async fn talks(proxy: &Proxy) {
    let mut websocket = proxy.websocket("/echo").await;
    echo(&mut websocket, Message::text("hello")).await.expect("it echoes");
    websocket.close(None).await.expect("it takes the Close");
}

#[tokio::test]
async fn what_is_left_is_sent_at_the_end() {
    let (collector, app) = (Collector::start().await, app().await);
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(&collector.section())).await;
    for _ in 0..20 {
        talks(&proxy).await;
    }
    proxy.finish().await;
    assert_eq!(collector.spans().len(), 20);
}

#[tokio::test]
async fn an_outage_is_one_warning_and_its_end_one_line() {
    // Bound, so that no other program gets the port; connections are refused until the test listens.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("bind");
    let address = socket.local_addr().expect("a bound socket has an address");
    let app = app().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(&section(address))).await;
    talks(&proxy).await;
    let warning = proxy.line("a warning", |line| line.json["message"] == "otel.export_failed").await.json;
    assert_eq!((&warning["level"], &warning["endpoint"]), (&"WARN".into(), &format!("http://{address}").into()));
    assert!(warning["error"].as_str().is_some_and(|error| error.contains("refused")), "{warning}");
    let collector = Collector::on(socket.listen(16).expect("listen"));
    let begun = Instant::now();
    while collector.spans().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30), "no span comes:\n{}", proxy.transcript());
        talks(&proxy).await;
    }
    proxy.line("the end of the outage", |line| line.json["message"] == "otel.export_resumed").await;
    assert_eq!(proxy.logged("otel.export_failed").len(), 1, "{}", proxy.transcript());
    proxy.finish().await;
}

#[tokio::test]
async fn a_collector_that_answers_nothing_holds_up_neither_a_session_nor_the_end() {
    // The kernel's queue accepts connections, which are never read.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let app = app().await;
    let section = section(silent.local_addr().expect("an address"));
    let mut proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(&section)).await;
    for _ in 0..20 {
        talks(&proxy).await;
    }
    let begun = Instant::now();
    proxy.terminate();
    let status = proxy.exit_within(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(0), "{}", proxy.transcript());
    // One second for the last batch, and a margin for a busy machine; a batch alone would have five.
    assert!(begun.elapsed() < Duration::from_secs(4), "it took {:?}", begun.elapsed());
}
