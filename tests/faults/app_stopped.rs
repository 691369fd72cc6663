//! The app is stopped in the middle of an operation, and continued before or after it is given up.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use pulsegate_test_kit::client::{Wss, close_of, echo, next_message, upgrade_head};
use pulsegate_test_kit::frame::{CLOSE, Frame};
use pulsegate_test_kit::http1::Response;
use pulsegate_test_kit::node::project;
use pulsegate_test_kit::process::Process;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::{TIMEOUT, wait_for, wait_until_async};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

use crate::PULSEGATE;

/// A liveness check that detects a stopped app within 700 ms.
const WATCH: &str = "interval = \"300ms\"\ntimeout = \"400ms\"";
/// The stop: longer than [`WATCH`], and longer than the pause of the app between its two halves.
const STOPPED: Duration = Duration::from_secs(2);

/// Starts the app of these tests on a unix socket.
pub(crate) async fn app_on(socket: &Path) -> Process {
    start(socket.to_str().expect("temporary paths are UTF-8")).await.0
}

/// Starts the app on a port; returns it and its URL.
async fn app() -> (Process, String) {
    let (process, port) = start("0").await;
    (process, format!("http://127.0.0.1:{port}"))
}

async fn start(listen: &str) -> (Process, String) {
    let mut command = Command::new("node");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/app.mjs"));
    let process = Process::start("app.mjs", command.current_dir(project("express")).env("LISTEN", listen));
    let listening = process.line("the app listens", |line| line.text.starts_with("listening ")).await;
    let address = listening.text.trim_start_matches("listening ").to_owned();
    (process, address)
}

async fn proxy(url: &str, give_up: &str) -> Proxy {
    let config = Config::to(PULSEGATE, url).admin("health = \"127.0.0.1:0\"").admin("socket = \"off\"");
    let config = config.upstream(WATCH).upstream(&format!("give_up = \"{give_up}\""));
    // A client is probed as always: only the app does nothing.
    let proxy = Proxy::start(config.with("[heartbeat]\ninterval = \"500ms\"\ntimeout = \"5s\"\n")).await;
    becomes(&proxy, 200).await;
    proxy
}

/// Waits until `/readyz` has the status `wanted`.
pub(crate) async fn becomes(proxy: &Proxy, wanted: u16) {
    let line = proxy.logged("listening").swap_remove(0);
    let address = line["health"].as_str().expect("a health port");
    let status = async || {
        let mut stream = wait_for("connect to the health port", TcpStream::connect(address)).await.expect("it listens");
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("it reads");
        wait_for("an answer", Response::read(&mut stream)).await.expect("an answer").status
    };
    wait_until_async("the status of /readyz", status, |status| *status == wanted).await;
}

/// Opens a session with the app in the middle: it has done the first half of the operation that the path names.
async fn halfway(proxy: &Proxy, app: &Process, name: &str) -> Wss {
    let mut websocket = proxy.websocket(&format!("/{name}")).await;
    websocket.send(Message::text("go")).await.expect("the session is open");
    websocket.flush().await.expect("the session is open");
    app.event("half", |event| event["name"] == name).await;
    websocket
}

#[tokio::test]
async fn s58_an_app_that_is_stopped_at_any_stage_goes_on_where_it_was() {
    let (app, url) = app().await;
    let proxy = proxy(&url, "60s").await;
    let mut idle = proxy.websocket("/echo").await;
    let mut leaving = proxy.websocket("/leaving").await;
    for websocket in [&mut idle, &mut leaving] {
        wait_for("an echo", echo(websocket, Message::text("open"))).await.expect("an echo");
    }
    // The upgrade is in flight, and is answered after the stop.
    let mut late = proxy.tls().await;
    late.write_all(format!("{}\r\n", upgrade_head("/late")).as_bytes()).await.expect("the proxy reads");
    late.flush().await.expect("the proxy reads");
    app.event("asked", |_| true).await;
    let mut message = halfway(&proxy, &app, "half-message").await;
    let mut close = halfway(&proxy, &app, "close").await;
    let mut closing = halfway(&proxy, &app, "closing").await;
    let mut frame = halfway(&proxy, &app, "half-frame").await;
    app.stop();

    let closed = tokio::spawn(async move {
        let close = close_of(&mut closing).await;
        // The answer is sent with the next read.
        let _ = wait_for("the end", next_message(&mut closing)).await;
        close
    });
    leaving.close(None).await.expect("the Close goes out");
    idle.send(Message::text("meanwhile")).await.expect("the session is open");
    // The kernel accepts this one in the app's place.
    let mut accepted = proxy.tls().await;
    accepted.write_all(format!("{}\r\n", upgrade_head("/accepted")).as_bytes()).await.expect("the proxy reads");
    accepted.flush().await.expect("the proxy reads");
    becomes(&proxy, 503).await;
    sleep(STOPPED).await;
    assert_eq!(proxy.logged("upstream.given_up").len(), 0, "{}", proxy.transcript());
    app.resume();

    becomes(&proxy, 200).await;
    let log = || proxy.transcript();
    let answer =
        wait_for("the echo", next_message(&mut idle)).await.unwrap_or_else(|error| panic!("{error}\n{}", log()));
    assert_eq!(answer, Message::text("meanwhile"));
    for (name, stream) in [("late", &mut late), ("accepted", &mut accepted)] {
        let answer = wait_for("the upgrade", Response::read(stream)).await;
        assert!(answer.as_ref().is_some_and(|answer| answer.status == 101), "{name}: {answer:?}\n{}", log());
    }
    for (name, websocket) in [("half a message", &mut message), ("half a frame", &mut frame)] {
        let whole =
            wait_for(name, next_message(websocket)).await.unwrap_or_else(|error| panic!("{name}: {error}\n{}", log()));
        assert_eq!(whole, Message::binary(vec![b'x'; 1000]), "{name}");
        wait_for("an end", websocket.close(None)).await.expect("the Close goes out");
    }
    let first = wait_for("what came before the Close", next_message(&mut close)).await.expect("the session is open");
    assert_eq!(first, Message::text("first"));
    assert_eq!(close_of(&mut close).await, (4001, "app".into()), "{}", log());
    assert_eq!(closed.await.expect("no panic"), (4002, "closing".into()), "{}", log());
    assert_eq!(app.event("close", |event| event["name"] == "closing").await["code"], 4002, "{}", log());
    assert_eq!(app.event("close", |event| event["name"] == "leaving").await["code"], 1005, "{}", log());
    let left = wait_for("the end of the one that left", leaving.next()).await;
    assert!(matches!(left, Some(Ok(Message::Close(None))) | None), "{left:?}\n{}", log());
    drop((idle, late, accepted, message, frame, close));
    proxy.finish().await;
}

#[tokio::test]
async fn s58_sessions_of_an_app_that_stays_stopped_are_given_up_at_every_stage() {
    let (app, url) = app().await;
    let proxy = proxy(&url, "1500ms").await;
    let mut idle = proxy.websocket("/echo").await;
    wait_for("an echo", echo(&mut idle, Message::text("open"))).await.expect("an echo");
    let mut message = halfway(&proxy, &app, "half-message").await;
    let mut frame = proxy.upgraded("/half-frame").await;
    frame.write_all(&Frame::client(0x81, "go").bytes()).await.expect("the proxy reads");
    frame.flush().await.expect("the proxy reads");
    app.event("half", |event| event["name"] == "half-frame").await;
    app.stop();
    let began = Instant::now();
    for (name, websocket) in [("idle", &mut idle), ("in a message", &mut message)] {
        assert_eq!(close_of(websocket).await, (1012, "upstream unresponsive".into()), "{name}\n{}", proxy.transcript());
    }
    // Inside a frame no Close can be sent: the connection ends, and no byte follows the half.
    let half = wait_for("the end", Frame::read_past_pings(&mut frame)).await;
    assert!(half.as_ref().is_none_or(|frame| frame.opcode() != CLOSE), "{half:?}");
    let took = began.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(7)).contains(&took), "given up after {took:?}");
    let lines = proxy.ws_closes(3).await;
    assert!(lines.iter().all(|line| line["close.detail"] == "app silent for too long"), "{lines:#?}");
    app.resume();
    becomes(&proxy, 200).await;
    wait_for("an echo", echo(&mut proxy.websocket("/again").await, Message::text("again"))).await.expect("an echo");
    proxy.finish().await;
}

#[tokio::test]
async fn s40_a_drain_ends_within_its_bound_whether_the_app_is_stopped_or_continued() {
    for continued in [true, false] {
        let (app, url) = app().await;
        let mut proxy = proxy(&url, "60s").await;
        let mut idle = proxy.websocket("/echo").await;
        wait_for("an echo", echo(&mut idle, Message::text("open"))).await.expect("an echo");
        let mut message = halfway(&proxy, &app, "half-message").await;
        app.stop();
        proxy.terminate();
        let began = Instant::now();
        let announced = proxy.line("the drain", |line| line.json["message"] == "drain").await.json;
        let bound = Duration::from_secs_f64(announced["bound_s"].as_f64().expect("a bound"));
        let close = close_of(&mut idle).await;
        assert_eq!(close, (1012, "service restart".into()), "{}", proxy.transcript());
        if continued {
            app.resume();
        }
        let _ = close_of(&mut message).await;
        let status = proxy.exit_within(bound + TIMEOUT).await;
        let took = began.elapsed();
        assert_eq!(status.code(), Some(0), "{status}; the log:\n{}", proxy.transcript());
        assert!(took < bound + Duration::from_secs(2), "the drain took {took:?} of {bound:?}:\n{}", proxy.transcript());
        let _ = proxy.ws_closes(2).await;
        if continued {
            let close = app.event("close", |event| event["name"] == "echo").await;
            assert_eq!(close["code"], 1012, "{close}; the log:\n{}", proxy.transcript());
        } else {
            app.resume();
        }
    }
}
