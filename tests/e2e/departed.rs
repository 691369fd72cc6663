//! Clients that leave while they are being answered, and apps that abandon a request: both legs are closed.

use std::time::Duration;

use pulsegate_test_kit::client::Tls;
use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::http1::{Response, read_head};
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::{wait_for, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::PULSEGATE;

/// Clients of one kind.
const CLIENTS: usize = 20;
/// More than all buffers on the path hold, if one of them is left to fill.
const LARGE: usize = 8_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Departure {
    /// FIN, as from a process that ends.
    Closed,
    /// RST.
    Reset,
}

impl Departure {
    const ALL: [Self; 2] = [Self::Closed, Self::Reset];

    fn of(self, stream: Tls) {
        if self == Self::Reset {
            stream.get_ref().0.set_zero_linger().expect("it is open");
        }
        drop(stream);
    }
}

/// Starts an app that begins a response without an end, and hands its connection to the test.
async fn endless() -> (FakeApp, mpsc::UnboundedReceiver<TcpStream>) {
    let (streams, begun) = mpsc::unbounded_channel();
    let fake = FakeApp::start(move |_, mut stream| {
        let streams = streams.clone();
        async move {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
            stream.write_all(head.as_bytes()).await.expect("the proxy reads");
            let _ = streams.send(stream);
        }
    })
    .await;
    (fake, begun)
}

/// Sends as much of `bytes` as the path takes; the rest is lost with the connection.
async fn fill(stream: &mut Tls, bytes: &[u8]) {
    for piece in bytes.chunks(64 * 1024) {
        if timeout(Duration::from_millis(500), stream.write_all(piece)).await.is_err() {
            return;
        }
    }
    let _ = timeout(Duration::from_millis(500), stream.flush()).await;
}

#[tokio::test]
async fn a_client_that_leaves_with_bytes_unread_behind_its_request_is_noticed() {
    let (app, mut begun) = endless().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let connections = proxy.connections();
    let mut departed = 0;
    for behind in ["x", "GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        for how in Departure::ALL {
            let (mut streams, mut held) = (Vec::new(), Vec::new());
            for _ in 0..CLIENTS {
                let mut stream = proxy.tls().await;
                stream.write_all(b"GET /sse HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it is open");
                wait_for("the head", read_head(&mut stream)).await.expect("an answer");
                held.push(wait_for("the request", begun.recv()).await.expect("the fake runs"));
                stream.write_all(behind.as_bytes()).await.expect("it is open");
                stream.flush().await.expect("it is open");
                streams.push(stream);
            }
            // A health check may have been counted before.
            assert!(proxy.connections() >= 2 * CLIENTS, "{behind:?}, {how:?}");
            for stream in streams {
                how.of(stream);
            }
            proxy.releases(connections).await;
            let gone = || proxy.logged("http.access").iter().filter(|line| line["complete"] == false).count();
            departed += CLIENTS;
            wait_until("each has its line", gone, |gone| *gone == departed).await;
        }
    }
    proxy.finish().await;
}

#[tokio::test]
async fn a_client_that_leaves_behind_an_upload_that_the_app_does_not_read_is_noticed() {
    let (app, mut begun) = endless().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with("[limits]\nwrite_stall = \"2s\"\n")).await;
    let connections = proxy.connections();
    for how in Departure::ALL {
        for size in [100_000, LARGE] {
            let mut stream = proxy.tls().await;
            let head = format!("POST /sse HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.expect("it is open");
            fill(&mut stream, &vec![b'y'; size]).await;
            wait_for("the head", read_head(&mut stream)).await.expect("an answer");
            let _app = wait_for("the request", begun.recv()).await.expect("the fake runs");
            how.of(stream);
            // A FIN behind unread bytes shows once the upload has made no progress for write_stall.
            proxy.releases(connections).await;
        }
    }
    proxy.finish().await;
}

#[tokio::test]
async fn an_upload_that_stands_still_ends_nothing_while_its_response_moves() {
    let (app, mut begun) = endless().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with("[limits]\nwrite_stall = \"1s\"\n")).await;
    let mut stream = proxy.tls().await;
    let head = format!("POST /sse HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LARGE}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("it is open");
    fill(&mut stream, &vec![b'y'; LARGE]).await;
    wait_for("the head", read_head(&mut stream)).await.expect("an answer");
    let mut app = wait_for("the request", begun.recv()).await.expect("the fake runs");
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        app.write_all(b"data: 1\n\n").await.expect("the proxy reads");
        let mut event = Vec::new();
        while !event.ends_with(b"data: 1\n\n\r\n") {
            event.push(wait_for("an event", stream.read_u8()).await.expect("the response goes on"));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    drop(stream);
    proxy.finish().await;
}

#[tokio::test]
async fn an_upload_that_an_app_reads_slowly_is_delivered_whole() {
    const STALL: Duration = Duration::from_secs(2);
    let (app, mut begun) = endless().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with("[limits]\nwrite_stall = \"2s\"\n")).await;
    let (mut reader, mut writer) = tokio::io::split(proxy.tls().await);
    let upload = tokio::spawn(async move {
        let head = format!("POST /rows HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LARGE}\r\n\r\n");
        writer.write_all(head.as_bytes()).await.expect("it is open");
        writer.write_all(&vec![b'y'; LARGE]).await.expect("the upload goes on");
        writer
    });
    wait_for("the head", read_head(&mut reader)).await.expect("an answer");
    let mut app = wait_for("the request", begun.recv()).await.expect("the fake runs");
    // 160 KB a second: the kernel's buffers hold what this app reads in many times the stall, and no write succeeds
    // before a good part of them is free.
    let (mut taken, mut piece, slowly) = (0, vec![0; 32 * 1024], Instant::now() + 5 * STALL);
    while taken < LARGE {
        let read = wait_for("more of the upload", app.read(&mut piece)).await.expect("the upload goes on");
        assert_ne!(read, 0, "cut after {taken} bytes; the log:\n{}", proxy.transcript());
        taken += read;
        if Instant::now() < slowly {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    app.write_all(b"data: done\n\n").await.expect("the proxy reads");
    drop(app);
    let mut rest = Vec::new();
    while !rest.ends_with(b"0\r\n\r\n") {
        rest.push(wait_for("the end of the response", reader.read_u8()).await.expect("the response is whole"));
    }
    assert!(rest.windows(10).any(|window| window == b"data: done"), "{:?}", String::from_utf8_lossy(&rest));
    drop(upload.await.expect("no panic"));
    drop(reader);
    proxy.finish().await;
}

#[tokio::test]
async fn requests_that_time_out_while_the_app_takes_nothing_close_their_connections() {
    let (streams, mut asked) = mpsc::unbounded_channel();
    let app = FakeApp::start(move |_, stream| {
        let streams = streams.clone();
        async move { drop(streams.send(stream)) }
    })
    .await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).upstream("response_timeout = \"2s\"")).await;
    let connections = proxy.connections();
    let mut posts = Vec::new();
    for _ in 0..CLIENTS {
        let stream = proxy.tls().await;
        posts.push(tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let upload = tokio::spawn(async move {
                let head = format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LARGE}\r\n\r\n");
                let _ = writer.write_all(head.as_bytes()).await;
                let _ = writer.write_all(&vec![b'y'; LARGE]).await;
            });
            let answer = wait_for("an answer", Response::read(&mut reader)).await.expect("a whole answer");
            upload.abort();
            answer.status
        }));
    }
    for post in posts {
        assert_eq!(post.await.expect("no panic"), 504);
    }
    let mut held = Vec::new();
    while let Ok(stream) = asked.try_recv() {
        held.push(stream);
    }
    assert_eq!(held.len(), CLIENTS, "the app has read none of it, and closed nothing");
    proxy.releases(connections).await;
    proxy.finish().await;
}
