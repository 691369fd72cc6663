//! Slow and congested connections: a live client is never torn down, however long its bytes take.

use std::cell::Cell;
use std::time::Duration;

use futures_util::future::join_all;
use h2::client::Builder;
use http::Method;
use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::frame::{BINARY, CLOSE, FIN, Frame, PING};
use pulsegate_test_kit::http2::{Http2Client, Http2WebSocket, request, tls_over};
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::{wait_for, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Barrier, mpsc};
use tokio::time::{Instant, sleep_until, timeout};

use crate::PULSEGATE;
use crate::h2::link::Link;
use crate::h2::raw::{self, DATA, END_HEADERS, HEADERS, Raw};

/// A heartbeat at which a slow link takes several windows for what is sent.
const BRISK: &str = "[heartbeat]\ninterval = \"1s\"\ntimeout = \"1s\"\nwrite_stall = \"3s\"\njitter = 0.0\n";
/// As [`BRISK`], where a record of TLS and what the link holds take a second on their way after they have been
/// acknowledged, and a pause of the machine as long again.
const PATIENT: &str = "[heartbeat]\ninterval = \"1s\"\ntimeout = \"3s\"\nwrite_stall = \"3s\"\njitter = 0.0\n";

/// A limit that is long enough for a busy machine.
const LONG: Duration = Duration::from_secs(120);

/// A client over `link` with windows as large as a browser's.
async fn browser(proxy: &Proxy, link: &Link) -> Http2Client {
    let mut settings = Builder::new();
    settings.initial_window_size(6 << 20).initial_connection_window_size(15 << 20);
    Http2Client::over(tls_over(proxy, link.connect().await).await, &settings).await
}

/// Reads a message of `len` bytes on `websocket`, and answers pings.
async fn takes(websocket: &mut Http2WebSocket, len: usize) {
    let message = websocket.message_within(LONG).await.expect("a message");
    assert_eq!((message.opcode(), message.payload.len()), (BINARY, len), "{:?}", message.close());
}

#[tokio::test]
async fn s72_a_burst_of_many_windows_over_a_slow_link_is_read_to_its_end() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(BRISK)).await;
    let link = Link::to(&proxy, 1_000_000, 60_000).await;
    let mut client = browser(&proxy, &link).await;
    let mut websocket = client.websocket("/raw").await;
    let (_, mut app) = wait_for("the session", sessions.recv()).await.expect("the fake runs");
    let len = 900_000;
    let burst = tokio::spawn(async move {
        for _ in 0..9 {
            app.write_all(&Frame::server(FIN | BINARY, vec![1; len / 9]).bytes()).await.expect("open");
        }
        app
    });
    // 15 seconds: many times interval and timeout.
    for _ in 0..9 {
        takes(&mut websocket, len / 9).await;
    }
    let _app = burst.await.expect("written");
    websocket_lives(&mut websocket).await;
    assert!(proxy.logged("ws.close").is_empty(), "{}", proxy.transcript());
    proxy.finish().await;
}

#[tokio::test]
async fn s73_many_streams_that_burst_at_once_over_a_slow_link_all_live() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(PATIENT)).await;
    let link = Link::to(&proxy, 1_000_000, 100_000).await;
    let mut client = browser(&proxy, &link).await;
    let (mut websockets, mut bursts) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        websockets.push(client.websocket("/raw").await);
        let (_, mut app) = wait_for("the session", sessions.recv()).await.expect("the fake runs");
        bursts.push(async move {
            app.write_all(&Frame::server(FIN | BINARY, vec![1; 100_000]).bytes()).await.expect("open");
            app
        });
    }
    let bursts = tokio::spawn(join_all(bursts));
    all_take(&mut websockets, 100_000).await;
    let _apps = bursts.await.expect("written");
    assert!(proxy.logged("ws.close").is_empty(), "{}", proxy.transcript());
    proxy.finish().await;
}

#[tokio::test]
async fn s73_streams_that_wait_for_the_window_of_the_connection_behind_others_live() {
    waits_for_the_connection(false).await;
}

#[tokio::test]
async fn s73_streams_that_wait_for_the_window_of_the_connection_get_what_precedes_a_close() {
    waits_for_the_connection(true).await;
}

/// Eight streams get a message at once, and `closes`: the Close and the end of their app behind it. The window of the
/// connection is the first one of RFC 9113; the last stream waits for it for seven seconds, over twice `write_stall`.
async fn waits_for_the_connection(closes: bool) {
    const STREAMS: usize = 8;
    const LEN: usize = 60_000;
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(PATIENT)).await;
    let link = Link::to(&proxy, 1_000_000, 60_000).await;
    let mut client = Http2Client::over(tls_over(&proxy, link.connect().await).await, &Builder::new()).await;
    let (mut websockets, mut apps) = (Vec::new(), Vec::new());
    for _ in 0..STREAMS {
        websockets.push(client.websocket("/raw").await);
        apps.push(wait_for("the session", sessions.recv()).await.expect("the fake runs").1);
    }
    for app in &mut apps {
        app.write_all(&Frame::server(FIN | BINARY, vec![1; LEN]).bytes()).await.expect("open");
    }
    if closes {
        for mut app in apps.drain(..) {
            app.write_all(&Frame::server(FIN | CLOSE, 1000_u16.to_be_bytes()).bytes()).await.expect("open");
        }
        let reads = websockets.iter_mut().map(async |websocket| {
            takes(websocket, LEN).await;
            let close = websocket.message_within(LONG).await.expect("a Close");
            assert_eq!(close.close(), Some((1000, String::new())));
        });
        join_all(reads).await;
    } else {
        all_take(&mut websockets, LEN).await;
        assert!(proxy.logged("ws.close").is_empty(), "{}", proxy.transcript());
    }
    proxy.finish().await;
}

/// Reads a message of `len` bytes on each of `websockets`, all of which live until the last has its message and a while
/// longer.
async fn all_take(websockets: &mut [Http2WebSocket], len: usize) {
    let all = Barrier::new(websockets.len());
    let reads = websockets.iter_mut().map(async |websocket| {
        takes(websocket, len).await;
        tokio::select! {
            ended = websocket.message_within(LONG) => panic!("the session sent {ended:?}"),
            _ = all.wait() => {}
        }
        websocket_lives(websocket).await;
    });
    join_all(reads).await;
}

/// Answers pings for more than interval and timeout, in which the session must not end.
async fn websocket_lives(websocket: &mut Http2WebSocket) {
    let ended = timeout(Duration::from_secs(6), websocket.message()).await;
    assert!(ended.is_err(), "the session sent {ended:?}");
}

#[tokio::test]
async fn s75_an_idle_websocket_beside_uploads_that_fill_the_uplink_lives() {
    let (fake, _sessions, _uploads) = uploads().await;
    // A record of TLS takes 0.7 s on this link, and 100 KB always stand before the answer to a ping: 4 s.
    let heartbeat = "[heartbeat]\ninterval = \"1s\"\ntimeout = \"3s\"\njitter = 0.0\n";
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(heartbeat)).await;
    let link = Link::to(&proxy, 25_000, 1_000_000).await;
    let mut client = browser(&proxy, &link).await;
    let mut websocket = client.websocket("/raw").await;
    let mut posts = Vec::new();
    for _ in 0..10 {
        let (response, mut body) = client.send(request(Method::POST, "/upload"), false).await;
        body.send_data(vec![0; 60_000].into(), false).expect("open");
        posts.push((response, body));
    }
    // The uploads take 24 s.
    let ended = timeout(Duration::from_secs(20), websocket.message_within(LONG)).await;
    assert!(ended.is_err(), "the session sent {ended:?}\n{}", proxy.transcript());
    assert!(proxy.logged("ws.close").is_empty(), "{}", proxy.transcript());
    drop(posts);
    proxy.finish().await;
}

/// An app that accepts WebSockets on `/raw` and reads what is uploaded elsewhere.
pub(crate) async fn uploads() -> (FakeApp, mpsc::UnboundedReceiver<TcpStream>, mpsc::UnboundedReceiver<usize>) {
    let (opened, sessions) = mpsc::unbounded_channel();
    let (reads, uploads) = mpsc::unbounded_channel();
    let fake = FakeApp::start(move |request, mut stream| {
        let (opened, reads) = (opened.clone(), reads.clone());
        async move {
            if request.path() == "/raw" {
                stream.write_all(request.accept().as_bytes()).await.expect("answer the upgrade");
                let _ = opened.send(stream);
                return;
            }
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(read) = stream.read(&mut buffer).await
                && read > 0
            {
                let _ = reads.send(read);
            }
        }
    })
    .await;
    (fake, sessions, uploads)
}

#[tokio::test]
async fn s75_a_silent_stream_on_a_busy_connection_is_found_by_the_answers_to_later_pings() {
    let (fake, _sessions, _uploads) = uploads().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(BRISK)).await;
    let mut client = Http2Client::connect(&proxy).await;
    let mut silent = client.websocket("/raw").await;
    let mut busy = client.websocket("/echo").await;
    let begun = Instant::now();
    let is_over = Cell::new(false);
    let killed = async {
        loop {
            let frame = silent.frame().await.expect("a Close comes first").expect("a Close comes first");
            if frame.opcode() != PING {
                is_over.set(true);
                return frame;
            }
        }
    };
    let noise = async {
        let mut next = begun;
        while !is_over.get() {
            busy.echoes("bytes of the connection").await;
            next += Duration::from_millis(200);
            sleep_until(next).await;
        }
    };
    let (close, ()) = tokio::join!(killed, noise);
    assert_eq!(close.opcode(), CLOSE, "{close:?}");
    // Two windows, and room for a busy machine: not the five minutes of `max_deferral`.
    assert!(begun.elapsed() < Duration::from_secs(10), "after {:?}", begun.elapsed());
    busy.echoes("still here").await;
    proxy.finish().await;
}

#[tokio::test]
async fn s56_a_data_frame_that_arrives_in_pieces_keeps_its_stream_alive() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(BRISK)).await;
    let mut client = Raw::connect(&proxy).await;
    client.send(HEADERS, END_HEADERS, 1, &raw::block(&raw::connect("/raw"))).await;
    client.until("a 200", |frame| frame.kind == HEADERS && frame.stream == 1).await;
    let (_, mut app) = wait_for("the session", sessions.recv()).await.expect("the fake runs");
    let message = Frame::client(FIN | BINARY, vec![7; 16_000]);
    let frame = raw::frame(DATA, 0, 1, &message.bytes());
    // 8 seconds, four times as long as a silent client has.
    let begun = Instant::now();
    let pieces: Vec<&[u8]> = frame.chunks(frame.len().div_ceil(32)).collect();
    for (number, piece) in (0..).zip(&pieces) {
        sleep_until(begun + Duration::from_millis(250) * number).await;
        client.write(piece).await;
    }
    let read = within(LONG, "the message", Frame::read(&mut app)).await;
    assert!(read == Some(message), "{} {:?}", proxy.transcript(), read.map(|read| read.close()));
    proxy.finish().await;
}

#[tokio::test]
async fn s80_a_blocked_connection_ends_its_sessions_as_slow_readers() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(BRISK)).await;
    let link = Link::to(&proxy, 1_000_000, 1_000_000).await;
    let mut client = browser(&proxy, &link).await;
    let _websocket = client.websocket("/raw").await;
    let (_, mut app) = wait_for("the session", sessions.recv()).await.expect("the fake runs");
    link.cut();
    let flood = tokio::spawn(async move {
        let frame = Frame::server(FIN | BINARY, vec![1; 1 << 20]).bytes();
        while app.write_all(&frame).await.is_ok() {}
    });
    let end = within(LONG, "the end", proxy.ws_close(|_| true)).await.json;
    assert_eq!(end["close.reason"], "slow_reader", "{end}");
    flood.abort();
    proxy.finish().await;
}

#[tokio::test]
async fn s80_an_idle_session_on_a_connection_that_takes_nothing_ends_with_the_cause_that_it_is() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let heartbeat = "[heartbeat]\ninterval = \"1s\"\ntimeout = \"2s\"\nwrite_stall = \"2s\"\n";
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(heartbeat)).await;
    let link = Link::to(&proxy, 1_000_000, 1_000_000).await;
    let mut client = browser(&proxy, &link).await;
    let _idle = client.websocket("/raw?idle").await;
    let (_, _idle_app) = wait_for("the session", sessions.recv()).await.expect("the fake runs");
    let _busy = client.websocket("/raw").await;
    let (_, mut app) = wait_for("the session", sessions.recv()).await.expect("the fake runs");
    link.cut();
    // One burst, which the sockets take whole: no session is blocked, and the probes stand behind it.
    app.write_all(&Frame::server(FIN | BINARY, vec![1; 150_000]).bytes()).await.expect("open");
    for line in within(LONG, "both ends", proxy.ws_closes(2)).await {
        assert_eq!(line["close.reason"], "slow_reader", "{line}");
    }
    proxy.finish().await;
}

#[tokio::test]
async fn s54_what_the_app_said_before_its_end_arrives_over_a_slow_link() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(BRISK)).await;
    let link = Link::to(&proxy, 1_000_000, 60_000).await;
    let mut client = browser(&proxy, &link).await;
    let mut websocket = client.websocket("/raw").await;
    let (_, mut app) = wait_for("the session", sessions.recv()).await.expect("the fake runs");
    // Half-closed by the client: what the app still says is on its way for longer than `close_grace`.
    websocket.end();
    let last = Frame::server(FIN | BINARY, vec![1; 300_000]);
    app.write_all(&last.bytes()).await.expect("open");
    drop(app);
    let message = websocket.frame_within(LONG).await;
    assert_eq!(message.map(|frame| frame.map(|frame| frame.payload.len())).ok(), Some(Some(300_000)));
    proxy.ws_closes(1).await;
    proxy.finish().await;
}
