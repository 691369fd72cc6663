//! What would end a whole connection, and every session on it: small DATA frames that are not read, and empty ones.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::frame::{BINARY, FIN};
use pulsegate_test_kit::http2::{Http2Client, request};
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::PULSEGATE;
use crate::h2::raw::{self, DATA, END_HEADERS, FLOW_CONTROL_ERROR, HEADERS, RST_STREAM, Raw};

/// What a stream that is taken in whole always has room for: the window opens again when half of it is used.
const ROOM: usize = 64 * 1024;

/// Frames of a single byte, after which the library ends a connection if none of them has been read.
const FRAMES: usize = 50_000;

/// Sends until the peer takes no more, with room for [`FRAMES`] bytes left in the window, and gives how much it was.
async fn fill(stream: &mut h2::SendStream<Bytes>) -> usize {
    const PIECE: usize = 8 * 1024;
    let mut sent = 0;
    loop {
        stream.reserve_capacity(ROOM);
        let opened = async {
            while stream.capacity() < ROOM {
                poll_fn(|cx| stream.poll_capacity(cx)).await.expect("open").expect("open");
            }
        };
        // A reader reads within a few milliseconds; a machine that stalls for a second only makes the test lax.
        if timeout(Duration::from_secs(1), opened).await.is_err() {
            return sent;
        }
        stream.send_data(Bytes::from(vec![0; PIECE]), false).expect("open");
        sent += PIECE;
        assert!(sent < 64 << 20, "somebody reads what was to stay unread");
    }
}

/// Sends [`FRAMES`] frames of a byte each, with an echo of the neighbour's every now and then.
async fn pelt(
    stream: &mut h2::SendStream<Bytes>,
    client: &mut Http2Client,
    neighbour: &mut pulsegate_test_kit::http2::Http2WebSocket,
) {
    assert!(stream.capacity() >= FRAMES, "{} bytes of room", stream.capacity());
    for turn in 0..FRAMES {
        stream.send_data(Bytes::from_static(b"x"), false).expect("open");
        if turn % 10_000 == 0 {
            neighbour.echoes("in between").await;
        }
    }
    client.ping().await;
    neighbour.echoes("and after").await;
}

#[tokio::test]
async fn small_frames_on_a_stream_that_nobody_reads_leave_its_neighbour_alone() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut client = Http2Client::connect(&proxy).await;
    let mut neighbour = client.websocket("/echo").await;
    let mut held = client.websocket("/raw").await;
    let (_, app) = wait_for("the session", sessions.recv()).await.expect("the fake runs");
    // One frame without an end, for a WebSocket has no bytes outside of frames.
    let endless = [&[FIN | BINARY, 0x80 | 127][..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat();
    held.send(endless.clone()).await;
    let sent = fill(&mut held.sender).await;
    pelt(&mut held.sender, &mut client, &mut neighbour).await;
    assert!(proxy.logged("ws.close").is_empty(), "{}", proxy.transcript());

    // The stream itself has only been held up.
    expects(app, endless.len() + sent + FRAMES).await;
    neighbour.echoes("to the end").await;
    proxy.finish().await;
}

#[tokio::test]
async fn small_frames_of_an_upload_that_nobody_reads_leave_its_neighbour_alone() {
    let (hands, mut uploads) = mpsc::unbounded_channel();
    let fake = FakeApp::start(move |_, stream| {
        let hands = hands.clone();
        async move {
            let _ = hands.send(stream);
        }
    })
    .await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut client = Http2Client::connect(&proxy).await;
    let mut neighbour = client.websocket("/echo").await;
    let mut post = request(Method::POST, "/upload");
    let length: usize = 1 << 30;
    post.headers_mut().insert("content-length", length.into());
    let (_response, mut upload) = client.send(post, false).await;
    let sent = fill(&mut upload).await;
    pelt(&mut upload, &mut client, &mut neighbour).await;
    let app = wait_for("the upload", uploads.recv()).await.expect("the fake runs");
    expects(app, sent + FRAMES).await;
    neighbour.echoes("to the end").await;
    proxy.finish().await;
}

/// Reads so many bytes.
async fn expects(mut app: TcpStream, bytes: usize) {
    let mut read = 0;
    let mut buffer = vec![0; 64 * 1024];
    while read < bytes {
        let some = wait_for("the rest", app.read(&mut buffer)).await.expect("open");
        assert!(some > 0, "{read} of {bytes} bytes came");
        read += some;
    }
}

#[tokio::test]
async fn empty_frames_end_no_connection() {
    let fake = FakeApp::answering("unused").await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut client = Http2Client::connect(&proxy).await;
    let mut websocket = client.websocket("/echo").await;
    for turn in 0..500 {
        websocket.sender.send_data(Bytes::new(), false).expect("open");
        if turn % 100 == 0 {
            websocket.echoes("in between").await;
        }
    }
    client.ping().await;
    websocket.echoes("and after").await;
    proxy.finish().await;
}

#[tokio::test]
async fn who_ignores_the_window_loses_that_stream_alone() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut client = Raw::connect(&proxy).await;
    client.send(HEADERS, END_HEADERS, 1, &raw::block(&raw::connect("/raw"))).await;
    client.until("a 200", |frame| frame.kind == HEADERS && frame.stream == 1).await;
    let (_, _app) = wait_for("the session", sessions.recv()).await.expect("the fake runs");
    client.send(HEADERS, END_HEADERS, 3, &raw::block(&raw::connect("/echo"))).await;
    client.until("a 200", |frame| frame.kind == HEADERS && frame.stream == 3).await;
    client.send(DATA, 0, 1, &[&[FIN | BINARY, 0x80 | 127][..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat()).await;
    // What the sockets to the app take besides the window is some megabytes.
    let flood = raw::frame(DATA, 0, 1, &[0; 16 * 1024]).repeat(64);
    for _ in 0..64 {
        client.write(&flood).await;
    }
    let reset = client.until("a reset", |frame| frame.kind == RST_STREAM).await;
    assert_eq!((reset.stream, reset.code()), (1, Some(FLOW_CONTROL_ERROR)));
    client.send(DATA, 0, 3, b"\x81\x82\0\0\0\0hi").await;
    let echo = client.until("the neighbour's echo", |frame| frame.kind == DATA && frame.stream == 3).await;
    assert_eq!(echo.payload, b"\x81\x02hi");
    proxy.finish().await;
}
