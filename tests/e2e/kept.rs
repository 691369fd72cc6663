//! Connections that are kept between two requests: the time, the cost, and that no trace of the parking is visible.

use std::time::Duration;

use pulsegate_test_kit::client::{Tls, upgrade_head};
use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::frame::{BINARY, FIN, Frame};
use pulsegate_test_kit::http1::{Response, read_head};
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::{wait_for, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use crate::PULSEGATE;

/// Longer than a connection stays with the library that serves it.
const PARKED: Duration = Duration::from_millis(600);
/// The memory that a kept connection may cost, without the noise of a heap.
const KIB_EACH: usize = 15;

/// Starts an app that keeps its connections and answers every request with a kilobyte, or with the number of bytes it
/// was sent.
async fn keeping() -> FakeApp {
    FakeApp::start(|request, mut stream| async move {
        let mut head = request.head;
        loop {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            if stream.read_exact(&mut body).await.is_err() {
                return;
            }
            let text = if body.is_empty() { "z".repeat(1024) } else { format!("{} bytes", body.len()) };
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            let Some(next) = read_head(&mut stream).await else { return };
            head = next;
        }
    })
    .await
}

async fn get(proxy: &Proxy, stream: &mut Tls) {
    let answer = proxy.ask(stream, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!((answer.status, answer.body.len()), (200, 1024), "{answer:?}");
}

#[tokio::test]
async fn a_connection_outlives_header_read_between_two_requests() {
    let app = keeping().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with("[limits]\nheader_read = \"1s\"\n")).await;
    let mut stream = proxy.tls().await;
    for pause in [0, 100, 1500, 250, 600] {
        get(&proxy, &mut stream).await;
        sleep(Duration::from_millis(pause)).await;
        let post =
            format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{}", "y".repeat(100_000));
        let answer = proxy.ask(&mut stream, post.as_bytes()).await;
        assert_eq!((answer.status, &*answer.body), (200, "100000 bytes"), "after {pause} ms: {answer:?}");
    }
    proxy.finish().await;
}

#[tokio::test]
async fn a_connection_is_closed_after_keep_alive_in_order() {
    let app = keeping().await;
    let limits = "[limits]\nheader_read = \"20s\"\nkeep_alive = \"1500ms\"\n";
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(limits)).await;
    let mut stream = proxy.tls().await;
    get(&proxy, &mut stream).await;
    sleep(Duration::from_millis(400)).await;
    get(&proxy, &mut stream).await;
    let since = Instant::now();
    let end = wait_for("the end", stream.read_to_end(&mut Vec::new())).await.expect("close_notify, and no reset");
    assert_eq!(end, 0);
    assert!(since.elapsed() > Duration::from_millis(1400), "after {:?}", since.elapsed());
    proxy.finish().await;
}

#[tokio::test]
async fn a_websocket_opens_on_a_connection_that_was_parked() {
    let (app, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut stream = proxy.tls().await;
    let refused = proxy.ask(&mut stream, format!("{}\r\n", upgrade_head("/ws?x").replace("13", "12")).as_bytes()).await;
    assert_eq!(refused.status, 426, "{refused:?}");
    sleep(PARKED).await;
    // The first frame arrives together with the request.
    let mut bytes = format!("{}\r\n", upgrade_head("/ws")).into_bytes();
    bytes.extend(Frame::client(FIN | BINARY, vec![7; 20_000]).bytes());
    let answer = proxy.ask(&mut stream, &bytes).await;
    assert_eq!(answer.status, 101, "{answer:?}");
    let (_, mut app) = wait_for("the session", sessions.recv()).await.expect("the fake runs");
    let frame = wait_for("the frame", Frame::read(&mut app)).await.expect("a frame");
    assert_eq!(frame.payload, vec![7; 20_000]);
    proxy.finish().await;
}

/// Returns the anonymous resident memory in KiB (proc(5)).
fn memory_kib(proxy: &Proxy) -> usize {
    let status = proxy.status();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("every process has some");
    line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
}

#[tokio::test]
async fn a_connection_that_is_kept_holds_no_buffers() {
    const MORE: usize = 600;
    pulsegate_test_kit::open_files::raise_open_file_limit(4096);
    let app = keeping().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).listen("workers = 1")).await;
    let mut kept = Vec::new();
    let mut before = 0;
    for at in 0..2 * MORE {
        if at == MORE {
            sleep(PARKED).await;
            before = memory_kib(&proxy);
        }
        let mut stream = proxy.tls().await;
        get(&proxy, &mut stream).await;
        kept.push(stream);
    }
    let each = || memory_kib(&proxy).saturating_sub(before) / MORE;
    let each = wait_until("KiB for each connection that is kept", each, |each| *each < KIB_EACH).await;
    println!("{each} KiB for each connection that is kept");
    for stream in &mut kept[MORE - 3..] {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it is open");
        assert_eq!(wait_for("an answer", Response::read(stream)).await.expect("an answer").status, 200);
    }
    drop(kept);
    proxy.finish().await;
}
