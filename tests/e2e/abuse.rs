//! Clients that exceed a limit or are too slow: each is refused in its own way, without an effect on a neighbour.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pulsegate_test_kit::client::{Neighbour, echo, upgrade_head};
use pulsegate_test_kit::fake_app::{FakeApp, hold};
use pulsegate_test_kit::frame::{BINARY, FIN, Frame, TEXT};
use pulsegate_test_kit::http1::Response;
use pulsegate_test_kit::open_files::raise_open_file_limit;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::turn::busy_turn;
use pulsegate_test_kit::wait::{wait_for, wait_until, within};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

use crate::PULSEGATE;

/// The incomplete steps in which a connection hangs: a TLS handshake, the head of a request, its body, a frame.
const STAGES: usize = 4;
const SLOW: usize = 2_000;
const SAMPLES: usize = 500;
/// The bound on the 99th percentile of an echo on a busy machine: far above what an echo takes.
const BOUND: Duration = Duration::from_millis(500);
/// The memory that a hanging connection may take, both legs and buffers together.
const KIB_EACH: usize = 64;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Starts an app that accepts every WebSocket, and answers no other request.
async fn silent_app() -> FakeApp {
    FakeApp::start(|request, mut stream| async move {
        if request.header("upgrade").is_some() {
            stream.write_all(request.accept().as_bytes()).await.expect("answer the upgrade");
        }
        hold(stream).await;
    })
    .await
}

/// Opens a connection that stops at `stage`.
async fn slow(proxy: &Proxy, stage: usize) -> Box<dyn Stream> {
    let head = "POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n";
    let (mut stream, beginning): (Box<dyn Stream>, Vec<u8>) = match stage {
        0 => (Box::new(proxy.tcp().await), vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01]),
        1 => (Box::new(proxy.tls().await), head.into()),
        2 => (Box::new(proxy.tls().await), format!("{head}\r\n").into()),
        _ => {
            let frame = Frame::client(FIN | BINARY, vec![7; 1_000]).bytes();
            (Box::new(proxy.upgraded("/raw").await), frame[..10].to_vec())
        }
    };
    stream.write_all(&beginning).await.expect("the kernel takes it");
    stream.flush().await.expect("the kernel takes it");
    stream
}

#[tokio::test]
async fn a_neighbour_is_well_while_two_thousand_connections_hang() {
    let _turn = busy_turn().await;
    raise_open_file_limit(4096);
    let app = silent_app().await;
    let limits = "[limits]\nhandshake = \"5m\"\nheader_read = \"5m\"\n[heartbeat]\ninterval = \"5m\"\n";
    let proxy = Arc::new(Proxy::start(Config::to(PULSEGATE, &app.url).with(limits)).await);
    let mut neighbour = proxy.websocket("/echo").await;
    let connections = proxy.connections();
    let before = memory_kib(&proxy);

    let handshakes = Arc::new(Semaphore::new(32));
    let mut opening = JoinSet::new();
    for at in 0..SLOW {
        let (proxy, handshakes) = (Arc::clone(&proxy), Arc::clone(&handshakes));
        opening.spawn(async move {
            let _turn = handshakes.acquire().await.expect("never closed");
            slow(&proxy, at % STAGES).await
        });
    }
    let mut hanging = within(Duration::from_mins(3), "all hang", opening.join_all()).await;
    let held = || proxy.connections();
    // Bodies and frames hold a connection to the app as well.
    let all = connections + SLOW + SLOW / STAGES * 2;
    wait_until("all are with the proxy", held, |count| *count >= all).await;
    let each = memory_kib(&proxy).saturating_sub(before) / SLOW;

    let mut echoes = Vec::with_capacity(SAMPLES);
    for sample in 0..SAMPLES {
        // The connections are not idle: each sends a byte now and then.
        let slow = &mut hanging[sample % SLOW];
        slow.write_all(b"x").await.expect("no connection is closed yet");
        slow.flush().await.expect("no connection is closed yet");
        let began = Instant::now();
        wait_for("the neighbour's echo", echo(&mut neighbour, Message::text(format!("{sample}"))))
            .await
            .expect("the neighbour lives");
        echoes.push(began.elapsed());
    }
    echoes.sort_unstable();
    let (median, p99) = (echoes[SAMPLES / 2], echoes[SAMPLES * 99 / 100]);
    println!("an echo beside {SLOW} slow connections: median {median:?}, p99 {p99:?}; {each} KiB for each of them");
    assert!(p99 < BOUND, "median {median:?}, p99 {p99:?}");
    assert!(each < KIB_EACH, "{each} KiB for each connection");

    drop(hanging);
    proxy.releases(connections).await;
    drop(neighbour);
    Arc::into_inner(proxy).expect("the test alone holds it").finish().await;
}

/// Returns the resident memory in KiB (proc(5)).
fn memory_kib(proxy: &Proxy) -> usize {
    let status = proxy.status();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has some");
    line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
}

#[tokio::test]
async fn a_body_that_trickles_gets_408() {
    let app = silent_app().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with("[limits]\nheader_read = \"200ms\"\n")).await;
    let neighbour = Neighbour::join(&proxy, "/echo").await;
    let connections = proxy.connections();
    let mut stream = slow(&proxy, 2).await;
    let (mut reader, mut writer) = split(&mut stream);
    let trickle = async {
        while writer.write_all(b"x").await.is_ok() && writer.flush().await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
        std::future::pending::<()>().await;
    };
    let answer = tokio::select! {
        () = trickle => unreachable!("it never ends"),
        answer = wait_for("an answer", Response::read(&mut reader)) => answer.expect("a whole answer"),
    };
    assert_eq!((answer.status, &*answer.body), (408, "408 Request Timeout: body_timeout\n"));
    let line = proxy.line("the request", |line| line.json["reason"] == "body_timeout").await.json;
    assert_eq!(line["http.response.status_code"], 408, "{line}");
    drop(stream);
    neighbour.echoes().await;
    proxy.releases(connections).await;
    proxy.finish().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_of_an_answer_releases_the_app() {
    let app = FakeApp::start(|_, mut stream| async move {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("the proxy reads");
        while stream.write_all(&[b'z'; 65_536]).await.is_ok() {}
    })
    .await;
    for heartbeat in ["", "[heartbeat]\nmode = \"off\"\n"] {
        let limits = format!("[limits]\nwrite_stall = \"1500ms\"\n{heartbeat}");
        let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(&limits)).await;
        let connections = proxy.connections();
        let mut stream = proxy.tls().await;
        stream.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it is open");
        stream.flush().await.expect("it is open");
        let line = proxy.line("the request", |line| line.json["message"] == "http.access").await.json;
        assert_eq!((&line["http.response.status_code"], &line["complete"]), (&200.into(), &false.into()), "{line}");
        proxy.releases(connections).await;
        drop(stream);
        proxy.finish().await;
    }
}

#[tokio::test]
async fn a_frame_that_trickles_ends_its_session() {
    let app = silent_app().await;
    let heartbeat = "[heartbeat]\ninterval = \"400ms\"\ntimeout = \"400ms\"\nframe_max_time = \"1s\"\n";
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(heartbeat)).await;
    let neighbour = Neighbour::join(&proxy, "/echo").await;
    let connections = proxy.connections();
    let mut stream = proxy.upgraded("/raw").await;
    let (mut reader, mut writer) = split(&mut stream);
    let trickle = async {
        for byte in Frame::client(FIN | BINARY, vec![7; 100_000]).bytes() {
            if writer.write_all(&[byte]).await.is_err() || writer.flush().await.is_err() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        std::future::pending::<()>().await;
    };
    let close = tokio::select! {
        () = trickle => unreachable!("it never ends"),
        close = wait_for("a Close", Frame::read_past_pings(&mut reader)) => close.expect("a Close before the end"),
    };
    assert_eq!(close.close().map(|(_, reason)| reason), Some("frame took too long".into()), "{close:?}");
    let line = proxy.ws_close(|line| line["close.reason"] == "trickle").await.json;
    assert_eq!(line["close.initiator"], "proxy", "{line}");
    drop(stream);
    neighbour.echoes().await;
    proxy.releases(connections).await;
    proxy.finish().await;
}

#[tokio::test]
async fn a_flood_of_messages_gets_1008_on_a_route_with_a_limit() {
    const RATE: usize = 20;
    let (fake, mut sessions) = FakeApp::sessions().await;
    let route = format!("[[route]]\npath = \"/raw/limited\"\nlimits.messages_per_second = {RATE}\n");
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(&route)).await;
    let neighbour = Neighbour::join(&proxy, "/echo").await;
    let connections = proxy.connections();
    let flood: Vec<u8> = (0..500).flat_map(|_| Frame::client(FIN | TEXT, "hello").bytes()).collect();

    for (path, is_limited) in [("/raw/limited", true), ("/raw/free", false)] {
        let mut client = proxy.upgraded(path).await;
        let (_, mut upstream) = wait_for("the session", sessions.recv()).await.expect("the fake runs");
        client.write_all(&flood).await.expect("it is open");
        client.flush().await.expect("it is open");
        let mut messages = 0;
        let after = loop {
            let frame = wait_for("a frame", Frame::read_past_pings(&mut upstream)).await.expect("no bare end");
            if frame.opcode() != TEXT {
                break Some(frame);
            }
            messages += 1;
            if messages == 500 {
                break None;
            }
        };
        if is_limited {
            // The messages of one second, and those allowed while they were read.
            assert!((RATE..RATE * 2).contains(&messages), "{messages} messages reached the app");
            let expected = Some((1008, "too many messages".to_owned()));
            assert_eq!(after.and_then(|frame| frame.close()), expected, "the Close of the app");
            let close = wait_for("a Close", Frame::read_past_pings(&mut client)).await.expect("a Close");
            assert_eq!(close.close(), expected);
            let line = proxy.ws_close(|line| line["close.reason"] == "rate").await.json;
            assert_eq!((&line["close.code"], &line["close.initiator"]), (&1008.into(), &"proxy".into()), "{line}");
        } else {
            assert_eq!((messages, after), (500, None));
        }
    }
    neighbour.echoes().await;
    proxy.releases(connections).await;
    proxy.finish().await;
}

#[tokio::test]
async fn over_the_ceiling_of_memory_upgrades_get_503_and_sessions_go_on() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with("[limits]\nmemory = \"1B\"\n")).await;
    let neighbour = Neighbour::join(&proxy, "/echo").await;
    let mut client = proxy.upgraded("/raw").await;
    let (_, upstream) = wait_for("the session", sessions.recv()).await.expect("the fake runs");

    // The app takes nothing: the buffers of both kernels fill, then the proxy's own. The kernels decide how much stays
    // in the proxy, so any amount is over the limit here.
    let message = Frame::client(FIN | BINARY, vec![7; 1 << 20]).bytes();
    let flood = async {
        while client.write_all(&message).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let refused = async {
        loop {
            let mut stream = proxy.tls().await;
            let answer = proxy.ask(&mut stream, format!("{}\r\n", upgrade_head("/raw")).as_bytes()).await;
            if answer.status != 101 {
                break answer;
            }
            // Both sockets of an early connection are closed before the next one: there may be many of them.
            wait_for("the session", sessions.recv()).await.expect("the fake runs");
        }
    };
    let answer = tokio::select! {
        () = flood => unreachable!("it never ends"),
        answer = wait_for("an upgrade is refused", refused) => answer,
    };
    assert_eq!((answer.status, &*answer.body), (503, "503 Service Unavailable: memory\n"));
    assert_eq!(answer.header("retry-after"), Some("5"), "{answer:?}");
    let line = proxy.line("a ws.reject", |line| line.json["message"] == "ws.reject").await.json;
    assert_eq!((&line["reason"], &line["http.response.status_code"]), (&"memory".into(), &503.into()), "{line}");
    neighbour.echoes().await;

    // The session that held the memory has ended; a new one fits.
    drop((client, upstream));
    let open = async {
        loop {
            let mut stream = proxy.tls().await;
            let answer = proxy.ask(&mut stream, format!("{}\r\n", upgrade_head("/raw")).as_bytes()).await;
            if answer.status == 101 {
                break;
            }
            assert_eq!(answer.status, 503, "{answer:?}");
            sleep(Duration::from_millis(50)).await;
        }
    };
    wait_for("an upgrade is accepted", open).await;
    proxy.finish().await;
}
