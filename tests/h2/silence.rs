//! Silent streams on busy connections: a dead one ends in time, and one whose answer may be on its way does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::frame::{self, BINARY, CLOSE, FIN, Frame};
use pulsegate_test_kit::http2::{Http2Client, Http2WebSocket, request};
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::{wait_for, within};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::PULSEGATE;
use crate::h2::raw::{self, ACK, DATA, END_HEADERS, HEADERS, PING, Raw, WINDOW_UPDATE};
use crate::h2::slow::uploads;

/// What an end may take beyond its bound.
const SLACK: Duration = Duration::from_millis(500);

/// A limit that is long enough for a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// The first window of a stream and of a connection (RFC 9113 §6.9.2).
const WINDOW: usize = 65_535;

/// A message of several windows.
const LEN: usize = 200_000;

/// The longest lateness of the test's own timers: the machine's share of what is measured.
#[derive(Clone, Debug, Default)]
struct Lag(Arc<AtomicU64>);

impl Lag {
    /// Waits until `at`.
    async fn sleep_until(&self, at: Instant) {
        sleep_until(at).await;
        let late = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.fetch_max(late, Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// Exchanges messages with the echo on `websocket`, one in 20 ms at most, for as long as the test runs.
fn talks(mut websocket: Http2WebSocket, lag: Lag) -> JoinHandle<()> {
    tokio::spawn(async move {
        let text = "bytes of the connection".repeat(700);
        loop {
            let next = Instant::now() + Duration::from_millis(20);
            websocket.echoes(&text).await;
            lag.sleep_until(next).await;
        }
    })
}

#[tokio::test]
async fn s75_a_mute_stream_beside_live_ones_is_gone_from_both_legs_within_its_bound() {
    let timeout = Duration::from_secs(4);
    let (fake, mut sessions) = FakeApp::sessions().await;
    let heartbeat = "[heartbeat]\ninterval = \"1s\"\ntimeout = \"4s\"\njitter = 0.0\n";
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(heartbeat)).await;
    let mut client = Http2Client::connect(&proxy).await;
    let (mut deaths, mut talkers) = (Vec::new(), Vec::new());
    let lag = Lag::default();
    for _ in 0..2 {
        talkers.push(talks(client.websocket("/echo").await, lag.clone()));
    }
    for _ in 0..3 {
        let mute = client.websocket("/raw").await;
        let (_, app) = wait_for("the session", sessions.recv()).await.expect("the fake runs");
        deaths.push(tokio::spawn(dies(mute, app)));
    }
    for death in deaths {
        let death = within(LONG, "the end of both legs", death).await.expect("each leg ends as it should");
        let most = timeout + SLACK + lag.get();
        let times = [death.closed, death.ended, death.app];
        assert!(times.iter().all(|time| *time <= most), "{death:?} after the ping, at most {most:?} allowed");
        // The test may have seen the ping late.
        assert!(death.closed + SLACK + lag.get() >= timeout, "{death:?}");
    }
    for talker in talkers {
        assert!(!talker.is_finished(), "a live stream ended: {:?}\n{}", talker.await, proxy.transcript());
        talker.abort();
    }
    proxy.finish().await;
}

/// When the parts of an end came, from the ping that was not answered on.
#[derive(Debug)]
struct Death {
    closed: Duration,
    ended: Duration,
    app: Duration,
}

/// Reads both legs of a client that answers no ping.
async fn dies(mut mute: Http2WebSocket, mut app: TcpStream) -> Death {
    let ping = mute.frame_within(LONG).await.expect("the stream lives").expect("a ping comes first");
    assert_eq!(ping.opcode(), frame::PING, "{ping:?}");
    let probed = Instant::now();
    let client = async {
        let close = mute.frame_within(LONG).await.expect("the stream lives").expect("a Close");
        assert_eq!(close.close(), Some((1012, "heartbeat timeout".into())));
        let closed = probed.elapsed();
        assert_eq!(mute.frame_within(LONG).await.expect("END_STREAM behind the Close, no reset"), None);
        (closed, probed.elapsed())
    };
    let app = async {
        loop {
            let frame = Frame::read(&mut app).await.expect("a Close");
            if frame.opcode() == CLOSE {
                assert_eq!(frame.close(), Some((4408, "heartbeat timeout".into())));
                return probed.elapsed();
            }
        }
    };
    let ((closed, ended), app) = tokio::join!(client, app);
    Death { closed, ended, app }
}

/// The `write_stall` of the tests below.
const WRITE_STALL: Duration = Duration::from_secs(2);
const STALLS: &str = "[heartbeat]\ninterval = \"1s\"\ntimeout = \"2s\"\nwrite_stall = \"2s\"\njitter = 0.0\n";

/// A WebSocket on stream 1 of a raw connection whose app has sent a message of several windows, and its connection.
/// `widens` has unlimited room: the connection (0) or the stream (1).
async fn stalled(proxy: &Proxy, sessions: &mut mpsc::UnboundedReceiver<TcpStream>, widens: u32) -> (Raw, TcpStream) {
    let mut client = Raw::connect(proxy).await;
    client.send(HEADERS, END_HEADERS, 1, &raw::block(&raw::connect("/raw"))).await;
    client.until("a 200", |frame| frame.kind == HEADERS && frame.stream == 1).await;
    client.send(WINDOW_UPDATE, 0, widens, &10_000_000_u32.to_be_bytes()).await;
    let mut app = wait_for("the session", sessions.recv()).await.expect("the fake runs");
    app.write_all(&Frame::server(FIN | BINARY, vec![1; LEN]).bytes()).await.expect("open");
    (client, app)
}

/// Reads the rest of the message, of which `read` bytes have come, and answers the PINGs before it and in it.
async fn reads_on(client: &mut Raw, mut read: usize) {
    while read < LEN {
        let frame = client.next().await.expect("the connection lives");
        match (frame.kind, frame.flags) {
            (DATA, _) if frame.stream == 1 => {
                assert_eq!(frame.flags, 0, "the stream ends after {read} bytes");
                read += frame.payload.len();
            }
            (PING, 0) => client.send(PING, ACK, 0, &frame.payload).await,
            _ => assert!(frame.stream != 1, "after {read} bytes came {frame:?}"),
        }
    }
}

#[tokio::test]
async fn s41_a_window_update_that_queues_behind_uploads_is_waited_for() {
    let (fake, mut sessions, _uploads) = uploads().await;
    for (widens, shut) in [(0, 1), (1, 0)] {
        let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(STALLS)).await;
        let (mut client, _app) = stalled(&proxy, &mut sessions, widens).await;
        let post = [(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", "/upload")];
        client.send(HEADERS, END_HEADERS, 3, &raw::block(&post)).await;
        // What the client sends on the shut stream, and its answers to PINGs, come behind 5 s of an upload.
        let begun = Instant::now();
        for piece in 0..50 {
            sleep_until(begun + Duration::from_millis(100) * piece).await;
            client.send(DATA, 0, 3, &[0; 1000]).await;
        }
        client.send(WINDOW_UPDATE, 0, shut, &10_000_000_u32.to_be_bytes()).await;
        within(LONG, "the rest of the message", reads_on(&mut client, 0)).await;
        assert!(proxy.logged("ws.close").is_empty(), "{}", proxy.transcript());
        proxy.finish().await;
    }
}

#[tokio::test]
async fn s41_a_window_update_that_a_stopped_proxy_has_not_read_is_waited_for() {
    let (fake, mut sessions, _uploads) = uploads().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(STALLS)).await;
    let (mut client, _app) = stalled(&proxy, &mut sessions, 0).await;
    let mut read = 0;
    while read < WINDOW {
        let data = client.until("DATA", |frame| frame.kind == DATA && frame.stream == 1).await;
        read += data.payload.len();
    }
    let stopped = Instant::now();
    proxy.stop();
    client.send(WINDOW_UPDATE, 0, 1, &10_000_000_u32.to_be_bytes()).await;
    sleep_until(stopped + WRITE_STALL + Duration::from_millis(100)).await;
    proxy.resume();
    within(LONG, "the rest of the message", reads_on(&mut client, read)).await;
    assert!(proxy.logged("ws.close").is_empty(), "{}", proxy.transcript());
    proxy.finish().await;
}

#[tokio::test]
async fn s41_a_stream_that_is_not_read_beside_an_upload_ends_within_write_stall() {
    let (fake, mut sessions, _uploads) = uploads().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(STALLS)).await;
    // The client's library answers PINGs, and opens no window for what is not taken.
    let mut client = Http2Client::connect(&proxy).await;
    let mut unread = client.websocket("/raw").await;
    unread.holds = true;
    let mut app = wait_for("the session", sessions.recv()).await.expect("the fake runs");
    let (_response, mut upload) = client.send(request(Method::POST, "/upload"), false).await;
    let lag = Lag::default();
    let uploading = tokio::spawn({
        let lag = lag.clone();
        async move {
            loop {
                let next = Instant::now() + Duration::from_millis(50);
                upload.send_data(vec![0; 500].into(), false).expect("the upload goes on");
                lag.sleep_until(next).await;
            }
        }
    });
    let begun = Instant::now();
    app.write_all(&Frame::server(FIN | BINARY, vec![1; LEN]).bytes()).await.expect("open");
    let end = unread.frame_within(LONG).await;
    let took = begun.elapsed();
    assert!(end.as_ref().is_err_and(h2::Error::is_reset), "{end:?}");
    // The proxy looks eight times within write_stall.
    let most = WRITE_STALL + WRITE_STALL / 8 + SLACK + lag.get();
    assert!(took >= WRITE_STALL && took <= most, "after {took:?}, at most {most:?} allowed");
    let line = proxy.ws_close(|_| true).await.json;
    assert_eq!(line["close.reason"], "slow_reader", "{line}");
    assert!(!uploading.is_finished(), "the upload ended: {:?}", uploading.await);
    uploading.abort();
    proxy.finish().await;
}
