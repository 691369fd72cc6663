//! SIGTERM, phase by phase: announced, draining, drained; and the effect on clients of each kind.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use pulsegate_test_kit::client::{close_of, echo, next_message, upgrade_head};
use pulsegate_test_kit::fake_app::{AppSession, FakeApp};
use pulsegate_test_kit::frame::{BINARY, FIN, Frame};
use pulsegate_test_kit::http1::Response;
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::pki::Pki;
use pulsegate_test_kit::process::OutputLine;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::spread::{Stalls, assert_even};
use pulsegate_test_kit::wait::{TIMEOUT, wait_for, wait_until};
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;

use crate::PULSEGATE;

const GET: &[u8] = b"GET /late HTTP/1.1\r\nHost: localhost\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Returns a configuration with these timers.
fn timed(url: &str, delay: &str, window: &str) -> Config {
    Config::to(PULSEGATE, url).drain(&format!("delay = \"{delay}\"")).drain(&format!("window = \"{window}\""))
}

/// Returns the first line of `phase`.
async fn phase(proxy: &Proxy, phase: &str) -> OutputLine {
    proxy.line(phase, |line| line.json["message"] == "drain" && line.json["phase"] == phase).await
}

/// Starts an app that hands the connection of each request to the test.
async fn late_app() -> (FakeApp, mpsc::UnboundedReceiver<TcpStream>) {
    let (requests, asked) = mpsc::unbounded_channel();
    let fake = FakeApp::start(move |_, stream| {
        let requests = requests.clone();
        async move {
            // A finished test takes no more.
            let _ = requests.send(stream);
        }
    })
    .await;
    (fake, asked)
}

async fn exits_with(proxy: &mut Proxy, code: i32) {
    let status = proxy.exit_within(TIMEOUT).await;
    assert_eq!(status.code(), Some(code), "{status}; it wrote:\n{}", proxy.transcript());
    proxy.has_not_panicked();
}

#[tokio::test]
async fn while_the_end_is_announced_connections_are_served_and_then_no_more() {
    let app = NodeApp::bare().await;
    let mut proxy = Proxy::start(timed(&app.url, "6s", "0s")).await;
    let mut early = proxy.websocket("/ws?name=early").await;
    echo(&mut early, Message::text("open")).await.expect("the session is there, and not only its 101");
    proxy.terminate();
    let announced = phase(&proxy, "announced").await;
    for (key, value) in [("delay_s", 6.0), ("window_s", 0.0), ("bound_s", 13.0), ("sessions", 1.0)] {
        assert_eq!(announced.json[key].as_f64(), Some(value), "{key} in {}", announced.text);
    }
    assert_eq!((&announced.json["close.code"], &announced.json["afterwards"]), (&1012.into(), &"exit".into()));

    let mut late = proxy.websocket("/ws?name=late").await;
    echo(&mut late, Message::text("served")).await.expect("a session that opens in the delay is one like any other");
    echo(&mut early, Message::text("still")).await.expect("no session is closed yet");

    let draining = phase(&proxy, "draining").await;
    assert!(draining.at - announced.at > Duration::from_secs(5), "{:?}", draining.at - announced.at);
    assert_eq!(draining.json["sessions"], 2, "{}", draining.text);
    for websocket in [&mut early, &mut late] {
        assert_eq!(close_of(websocket).await, (1012, "service restart".into()));
    }
    // A worker that is busy closes its listener a moment later.
    let refused = async {
        loop {
            match TcpStream::connect(proxy.address).await {
                Ok(_) => sleep(Duration::from_millis(25)).await,
                Err(error) => return error,
            }
        }
    };
    let refused = wait_for("the port is closed", refused).await;
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    exits_with(&mut proxy, 0).await;
    phase(&proxy, "drained").await;
}

#[tokio::test]
async fn sessions_get_the_configured_code_one_after_the_other() {
    const SESSIONS: usize = 60;
    const WINDOW: Duration = Duration::from_secs(6);
    let app = NodeApp::bare().await;
    let mut proxy = Proxy::start(timed(&app.url, "0s", "6s").drain("code = 1001")).await;
    let mut websockets = join_all((0..SESSIONS).map(|_| proxy.websocket("/ws"))).await;
    let stalls = Stalls::watch();
    proxy.terminate();
    let closes = websockets.iter_mut().map(|websocket| async {
        assert_eq!(close_of(websocket).await, (1001, "going away".into()));
        Instant::now()
    });
    let moments = join_all(closes).await;
    assert_even(&moments, WINDOW, stalls).await;
    exits_with(&mut proxy, 0).await;
    wait_until("the app's close events", || app.events("close").len(), |count| *count == SESSIONS).await;
    assert!(app.events("close").iter().all(|event| event["code"] == 1012), "{}", app.transcript());
    for line in proxy.ws_closes(SESSIONS).await {
        assert_eq!((&line["close.reason"], &line["close.code"]), (&"drain".into(), &1001.into()), "{line}");
    }
}

#[tokio::test]
async fn a_request_in_flight_finishes_and_its_connection_ends() {
    let (fake, mut asked) = late_app().await;
    let mut proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut client = proxy.tls().await;
    client.write_all(GET).await.expect("the proxy reads");
    let mut app = wait_for("the request", asked.recv()).await.expect("the fake runs");
    proxy.terminate();
    phase(&proxy, "draining").await;
    app.write_all(OK).await.expect("the proxy waits");
    let answer = wait_for("the answer", Response::read(&mut client)).await.expect("an answer");
    assert_eq!((answer.status, &*answer.body, answer.header("connection")), (200, "ok", Some("close")));
    wait_for("the end of the connection", client.read_to_end(&mut Vec::new())).await.expect("an orderly one");
    exits_with(&mut proxy, 0).await;
}

#[tokio::test]
async fn clients_in_the_queue_of_a_proxy_that_drains_are_answered_and_the_next_proxy_takes_over() {
    const CLIENTS: usize = 10;
    let app = NodeApp::bare().await;
    let directories = [(); 2].map(|()| TempDir::with_prefix("pulsegate-").expect("make a temporary directory"));
    let [first, second] = directories.map(|dir| (Pki::make(dir.path()), dir));
    let config = timed(&app.url, "0s", "8s");
    let started = async |address: SocketAddr, (pki, dir): (Pki, TempDir)| {
        let file = dir.path().join("own.toml");
        std::fs::write(&file, config.toml(address, &pki)).expect("write the configuration");
        Proxy::follow(&file, config.clone(), pki, dir).await
    };
    let mut old = started(([127, 0, 0, 1], 0).into(), first).await;
    let mut session = old.websocket("/ws?name=old").await;
    echo(&mut session, Message::text("open")).await.expect("the session is there");

    // While the process is stopped, the kernel accepts clients; then it gets them and the SIGTERM at once.
    old.stop();
    let mut queued = Vec::new();
    for _ in 0..2 * CLIENTS {
        queued.push(old.tcp().await);
    }
    old.terminate();
    old.resume();
    // A client that is faster than the signal is served like any other.
    phase(&old, "draining").await;
    let (old, name) = (&mut old, ServerName::try_from("localhost").expect("a valid name"));
    for (at, tcp) in queued.into_iter().enumerate() {
        let handshake = TlsConnector::from(old.pki.client()).connect(name.clone(), tcp);
        let mut stream = wait_for("the TLS handshake", handshake).await.expect("no reset");
        let (request, expected) = match at % 2 {
            0 => ("GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), None),
            _ => (format!("{}\r\n", upgrade_head("/ws")), Some("1")),
        };
        let answer = old.ask(&mut stream, request.as_bytes()).await;
        assert_eq!(answer.header("retry-after"), expected, "client {at}: {answer:?}");
        assert_eq!(answer.status == 503, expected.is_some(), "client {at}: {answer:?}");
        assert_eq!(answer.header("connection"), Some("close"), "client {at}: {answer:?}");
    }

    // The port is free although the old proxy still has a session, and its clients reconnect to the new one.
    let refused = async {
        while TcpStream::connect(old.address).await.is_ok() {
            sleep(Duration::from_millis(25)).await;
        }
    };
    wait_for("the port is closed", refused).await;
    let new = started(old.address, second).await;
    let mut back = new.websocket("/ws?name=new").await;
    echo(&mut back, Message::text("served")).await.expect("a session of the new proxy");
    assert_eq!(close_of(&mut session).await.0, 1012);
    exits_with(old, 0).await;
    echo(&mut back, Message::text("still")).await.expect("the end of the old proxy is nothing to the new one");
    drop(back);
    new.finish().await;
}

#[tokio::test]
async fn an_upgrade_on_a_kept_connection_is_refused_with_a_retry_after() {
    let (fake, mut asked) = late_app().await;
    let mut proxy = Proxy::start(timed(&fake.url, "0s", "30s")).await;
    let mut client = proxy.tls().await;
    client.write_all(GET).await.expect("the proxy reads");
    wait_for("the request", asked.recv()).await.expect("the fake runs").write_all(OK).await.expect("the proxy reads");
    let answer = wait_for("the answer", Response::read(&mut client)).await.expect("an answer");
    assert_eq!((answer.status, answer.header("connection")), (200, None), "it is kept");
    proxy.terminate();
    phase(&proxy, "draining").await;

    let answer = proxy.ask(&mut client, format!("{}\r\n", upgrade_head("/ws")).as_bytes()).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!((answer.header("retry-after"), answer.header("connection")), (Some("1"), Some("close")));
    let line = proxy.line("the refusal", |line| line.json["message"] == "ws.reject").await.json;
    assert_eq!((&line["reason"], &line["http.response.status_code"]), (&"draining".into(), &503.into()), "{line}");
    // There was no session, so there is no wait for the window.
    exits_with(&mut proxy, 0).await;
}

#[tokio::test]
async fn a_second_signal_aborts_whatever_the_phase() {
    for (delay, window, at) in [("60s", "0s", "announced"), ("0s", "60s", "draining")] {
        let app = NodeApp::bare().await;
        let mut proxy = Proxy::start(timed(&app.url, delay, window)).await;
        let mut stream = proxy.upgraded("/ws").await;
        proxy.terminate();
        phase(&proxy, at).await;
        proxy.terminate();
        exits_with(&mut proxy, 1).await;
        let rest = wait_for("the connection ends", Frame::read_past_pings(&mut stream)).await;
        assert_eq!(rest, None, "an abort says nothing");
        proxy.line("it says so", |line| line.json["phase"] == "aborting").await;
    }
}

#[tokio::test]
async fn a_client_that_loses_its_app_during_the_drain_gets_1012_at_once() {
    const SESSIONS: usize = 20;
    let (fake, mut sessions) = FakeApp::sessions().await;
    let mut proxy = Proxy::start(timed(&fake.url, "0s", "120s").drain("code = 1001")).await;
    let mut websockets = join_all((0..SESSIONS).map(|_| proxy.websocket("/ws"))).await;
    let mut legs: Vec<AppSession> = Vec::new();
    while legs.len() < SESSIONS {
        legs.push(wait_for("a session", sessions.recv()).await.expect("the fake runs"));
    }
    proxy.terminate();
    phase(&proxy, "draining").await;
    drop((fake, legs));
    let closes = join_all(websockets.iter_mut().map(close_of)).await;
    let lost = closes.iter().filter(|close| **close == (1012, "upstream lost".into())).count();
    // In the first seconds of a window of two minutes only few have been closed.
    assert!(lost >= SESSIONS / 2, "{closes:?}");
    exits_with(&mut proxy, 0).await;
}

#[tokio::test]
async fn an_old_session_gets_1012() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(
        Config::to(PULSEGATE, &app.url)
            .drain("max_connection_age = \"2s\"")
            .drain("window = \"0s\"")
            .drain("delay = \"0s\""),
    )
    .await;
    let mut websocket = proxy.websocket("/ws?name=old").await;
    assert_eq!(close_of(&mut websocket).await, (1012, "maximum age".into()));
    // The answer is sent during the wait for the end. Without it, and without the connection's end, the session would
    // last for as long as `close_grace` allows.
    wait_for("the end of the connection", next_message(&mut websocket)).await.expect_err("nothing follows a Close");
    drop(websocket);
    let line = proxy.ws_close(|_| true).await.json;
    assert_eq!((&line["close.reason"], &line["close.initiator"]), (&"max_age".into(), &"proxy".into()), "{line}");
    let lived = line["duration_s"].as_f64().expect("a number");
    assert!((1.8..4.0).contains(&lived), "{lived} s");
    assert_eq!(app.close_of("old").await.json["code"], 1012);
    proxy.finish().await;
}

#[tokio::test]
async fn a_session_that_a_drain_cuts_off_has_its_line_too() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let grace = "[heartbeat]\nclose_grace = \"100ms\"\n";
    let mut proxy = Proxy::start(timed(&fake.url, "0s", "0s").with(grace)).await;
    let client = proxy.upgraded("/raw").await;
    // The app takes nothing, so that the client's upload holds up its Close for longer than the drain may last.
    let (_, _app) = wait_for("the session reaches the app", sessions.recv()).await.expect("the fake runs");
    let (mut reads, mut writes) = tokio::io::split(client);
    let upload = Frame::client(FIN | BINARY, vec![7; 30_000_000]).bytes();
    let upload = tokio::spawn(async move { writes.write_all(&upload).await });
    let seen = tokio::spawn(async move { Frame::read_past_pings(&mut reads).await });
    sleep(Duration::from_millis(500)).await;
    proxy.terminate();
    let line =
        proxy.line_within(Duration::from_secs(15), "its ws.close", |line| line.json["message"] == "ws.close").await;
    assert_eq!((&line.json["close.reason"], &line.json["close.initiator"]), (&"drain".into(), &"proxy".into()));
    assert_eq!((&line.json["close.code"], &line.json["upstream.close_code"]), (&1012.into(), &1006.into()));
    let seen = wait_for("what the client saw", seen).await.expect("no panic").expect("a Close");
    assert_eq!(seen.close().map(|(code, _)| code), Some(1012));
    assert!(wait_for("the upload", upload).await.expect("no panic").is_err(), "it was cut off");
    exits_with(&mut proxy, 0).await;
}
