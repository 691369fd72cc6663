//! `/readyz` and the liveness of the app: apps that never ran, that are killed or stopped, or that refuse connections
//! and return.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pulsegate_test_kit::client::{Neighbour, Tls, close_of};
use pulsegate_test_kit::fake_app::{FakeApp, hold};
use pulsegate_test_kit::frame::{BINARY, FIN, Frame};
use pulsegate_test_kit::http1::{Response, read_head};
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::process::Process;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::{TIMEOUT, wait_for};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::PULSEGATE;

/// A liveness check that is quick enough for a test, with a `give_up` longer than the test. Its timeout is longer than the
/// pauses of a busy machine that the proxy does not notice.
const WATCH: &str = "interval = \"300ms\"\ntimeout = \"1200ms\"\ngive_up = \"60s\"";
/// As [`WATCH`], and the app is given up within the test.
const SHORT: &str = "interval = \"300ms\"\ntimeout = \"1200ms\"\ngive_up = \"2500ms\"";
/// Several rounds of [`WATCH`] and of [`SHORT`].
const LONG_ENOUGH: Duration = Duration::from_secs(4);

fn config(url: &str, upstream: &str) -> Config {
    let config = Config::to(PULSEGATE, url).admin("health = \"127.0.0.1:0\"").admin("socket = \"off\"");
    config.upstream(upstream).with("[heartbeat]\nmode = \"off\"\n")
}

/// Returns the status and the body of `/readyz`.
async fn readiness(proxy: &Proxy) -> (u16, String) {
    let line = proxy.logged("listening").swap_remove(0);
    let address = line["health"].as_str().expect("a health port").to_owned();
    let mut stream = wait_for("connect to the health port", TcpStream::connect(address)).await.expect("it listens");
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("it reads");
    let answer = wait_for("an answer", Response::read(&mut stream)).await.expect("an answer");
    (answer.status, answer.body.trim_end().to_owned())
}

/// Polls until the status is `wanted`, and returns how long that took.
async fn becomes(proxy: &Proxy, wanted: u16) -> Duration {
    let began = Instant::now();
    loop {
        let seen = readiness(proxy).await;
        if seen.0 == wanted {
            return began.elapsed();
        }
        assert!(
            began.elapsed() < TIMEOUT,
            "/readyz is not {wanted} but {seen:?}; the proxy wrote:\n{}",
            proxy.transcript()
        );
        sleep(Duration::from_millis(20)).await;
    }
}

/// Polls for `time`; the status must be `wanted` every time.
async fn stays(proxy: &Proxy, wanted: u16, time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        let seen = readiness(proxy).await;
        let transcript = || proxy.transcript();
        assert_eq!(seen.0, wanted, "{seen:?} after {:?}; the proxy wrote:\n{}", began.elapsed(), transcript());
        sleep(Duration::from_millis(20)).await;
    }
}

/// Returns the messages of the log lines about the app so far.
fn reported(proxy: &Proxy) -> Vec<String> {
    let of_the_app =
        |line: &Value| line["message"].as_str().filter(|text| text.starts_with("upstream.")).map(Into::into);
    proxy.lines().iter().filter_map(|line| of_the_app(&line.json)).collect()
}

/// Reserves a port that refuses connections, and that no other test gets.
fn reserved(address: SocketAddr) -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option");
    socket.bind(address).expect("a free port");
    let address = socket.local_addr().expect("it is bound");
    (socket, address)
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// An app in this process that answers every request with 404, and keeps the request heads.
struct Answering {
    heads: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl Answering {
    fn on(socket: TcpSocket) -> Self {
        Self::accepting(socket.listen(64).expect("it listens"))
    }

    fn accepting(listener: TcpListener) -> Self {
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&heads)));
        Self { heads, accepting }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no panic").clone()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, heads: Arc<Mutex<Vec<String>>>) {
    loop {
        let (stream, _) = listener.accept().await.expect("accept");
        let heads = Arc::clone(&heads);
        tokio::spawn(async move { answer(stream, &heads).await });
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, heads: &Mutex<Vec<String>>) {
    while let Some(head) = read_head(&mut stream).await {
        heads.lock().expect("no panic").push(head);
        if stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await.is_err() {
            return;
        }
    }
}

/// Sends one request through the proxy; returns its status.
async fn request(proxy: &Proxy) -> u16 {
    let mut stream = proxy.tls().await;
    proxy.ask(&mut stream, b"GET /request HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.status
}

/// Opens a session whose client begins a frame to the app and does not end it: no ping can follow it.
async fn half_a_frame(proxy: &Proxy, path: &str) -> Tls {
    let mut stream = proxy.upgraded(path).await;
    // A masked binary frame of 1,000 bytes, of which ten are sent.
    let mut bytes = vec![0x82, 0xfe, 0x03, 0xe8, 1, 2, 3, 4];
    bytes.extend([0; 10]);
    stream.write_all(&bytes).await.expect("it is taken");
    stream.flush().await.expect("it is taken");
    stream
}

#[tokio::test]
async fn s58_an_app_that_was_never_there_is_not_ready_and_comes() {
    let (socket, address) = reserved(any());
    let proxy = Proxy::start(config(&format!("http://{address}"), WATCH)).await;
    stays(&proxy, 503, Duration::from_millis(300)).await;
    let line = proxy.line("it is reported", |line| line.json["message"] == "upstream.unreachable").await.json;
    let cause = line["error"].as_str().unwrap_or_default();
    assert!(cause.contains(&address.to_string()) && cause.contains("os error 111"), "address and errno: {line}");
    assert_eq!(line["level"], "WARN", "{line}");
    for _ in 0..9 {
        assert_eq!(request(&proxy).await, 502);
    }
    stays(&proxy, 503, LONG_ENOUGH).await;
    assert_eq!(reported(&proxy), ["upstream.unreachable"], "once, and never once an attempt");

    let app = Answering::on(socket);
    becomes(&proxy, 200).await;
    stays(&proxy, 200, LONG_ENOUGH).await;
    assert_eq!(reported(&proxy), ["upstream.unreachable", "upstream.recovered"], "{}", proxy.transcript());
    let asked = app.heads().swap_remove(0);
    assert!(asked.starts_with("OPTIONS * HTTP/1.1\r\n"), "{asked}");
    let lower = asked.to_ascii_lowercase();
    assert!(
        lower.contains(&format!("\r\nhost: {address}\r\n")) && lower.contains("\r\nuser-agent: pulsegate/"),
        "{asked}"
    );
    proxy.finish().await;
}

#[tokio::test]
async fn s58_the_outages_of_an_app_that_is_not_watched_are_reported_once_each() {
    let (socket, address) = reserved(any());
    let proxy = Proxy::start(config(&format!("http://{address}"), "interval = \"off\"")).await;
    stays(&proxy, 200, Duration::from_millis(300)).await;
    assert!(reported(&proxy).is_empty(), "nothing has been tried: {}", proxy.transcript());
    for _ in 0..9 {
        assert_eq!(request(&proxy).await, 502);
    }
    let line = proxy.line("the outage", |line| line.json["message"] == "upstream.unreachable").await.json;
    let error = line["error"].as_str().unwrap_or_default();
    assert!(error.contains(&address.to_string()) && error.contains("os error 111"), "address and errno: {line}");
    assert_eq!((&line["level"], &line["upstream"]), (&"WARN".into(), &format!("http://{address}").into()), "{line}");
    assert_eq!(reported(&proxy), ["upstream.unreachable"], "once an outage, and never once a request");

    let app = Answering::on(socket);
    for _ in 0..3 {
        assert_eq!(request(&proxy).await, 404);
    }
    let line = proxy.line("its end", |line| line.json["message"] == "upstream.recovered").await.json;
    assert_eq!(line["level"], "WARN", "seen where the outage was: {line}");
    assert!(line["outage_s"].as_f64().is_some_and(|outage| outage > 0.0), "{line}");
    assert_eq!(reported(&proxy), ["upstream.unreachable", "upstream.recovered"]);
    assert!(app.heads().iter().all(|head| head.starts_with("GET /request ")), "no checks: {:?}", app.heads());
    stays(&proxy, 200, Duration::from_millis(300)).await;
    proxy.finish().await;
}

#[tokio::test]
async fn s58_an_app_that_is_there_is_ready_at_once_and_nothing_is_reported() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(config(&app.url, WATCH)).await;
    becomes(&proxy, 200).await;
    stays(&proxy, 200, LONG_ENOUGH).await;
    assert!(reported(&proxy).is_empty(), "{}", proxy.transcript());
    proxy.finish().await;
}

#[tokio::test]
async fn s58_an_app_that_is_killed_without_sessions_is_not_ready() {
    for probe in ["", "\nprobe = \"off\""] {
        let mut app = NodeApp::bare().await;
        let proxy = Proxy::start(config(&app.url, &format!("{WATCH}{probe}"))).await;
        becomes(&proxy, 200).await;
        app.kill().await;
        becomes(&proxy, 503).await;
        stays(&proxy, 503, LONG_ENOUGH).await;
        assert_eq!(reported(&proxy), ["upstream.unreachable"], "{}", proxy.transcript());
        proxy.finish().await;
    }
}

#[tokio::test]
async fn s58_an_app_that_is_stopped_without_sessions_is_not_ready() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(config(&app.url, WATCH)).await;
    becomes(&proxy, 200).await;
    app.stop();
    becomes(&proxy, 503).await;
    stays(&proxy, 503, LONG_ENOUGH).await;
    app.resume();
    becomes(&proxy, 200).await;
    assert_eq!(reported(&proxy), ["upstream.unresponsive", "upstream.recovered"], "{}", proxy.transcript());
    proxy.finish().await;
}

#[tokio::test]
async fn s58_an_app_without_a_handler_for_requests_is_ready() {
    // As with a WebSocket or Socket.IO server on a bare one: such a request never gets its response.
    let script = "const server = require('node:http').createServer(); \
                  server.listen(0, '127.0.0.1', () => console.log('listening ' + server.address().port));";
    let app = Process::start("bare server", Command::new("node").arg("-e").arg(script));
    let listening = app.line("the app listens", |line| line.text.starts_with("listening ")).await;
    let port = listening.text.trim_start_matches("listening ");
    let proxy = Proxy::start(config(&format!("http://127.0.0.1:{port}"), WATCH)).await;
    becomes(&proxy, 200).await;
    stays(&proxy, 200, LONG_ENOUGH).await;
    assert!(reported(&proxy).is_empty(), "{}", proxy.transcript());
    app.stop();
    becomes(&proxy, 503).await;
    app.resume();
    becomes(&proxy, 200).await;
    proxy.finish().await;
}

#[tokio::test]
async fn s58_an_app_whose_kernel_alone_accepts_is_not_ready() {
    let (socket, address) = reserved(any());
    // Two connections fit; further ones time out.
    let listener = socket.listen(1).expect("it listens");
    let proxy =
        Proxy::start(config(&format!("http://{address}"), &format!("{WATCH}\nconnect_timeout = \"200ms\""))).await;
    let line = proxy.line("it is reported", |line| line.json["message"] == "upstream.unresponsive").await.json;
    let cause = line["error"].as_str().unwrap_or_default();
    assert!(cause.starts_with("no response to OPTIONS * within 1s 200ms"), "{line}");
    stays(&proxy, 503, LONG_ENOUGH).await;
    let _app = Answering::accepting(listener);
    becomes(&proxy, 200).await;
    assert_eq!(reported(&proxy), ["upstream.unresponsive", "upstream.recovered"], "{}", proxy.transcript());
    proxy.finish().await;
}

#[tokio::test]
async fn s58_a_proxy_that_was_stopped_does_not_count_against_the_app() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(config(&app.url, WATCH)).await;
    becomes(&proxy, 200).await;
    for session in [false, true] {
        let neighbour = if session { Some(Neighbour::join(&proxy, "/ws").await) } else { None };
        for _ in 0..3 {
            proxy.stop();
            sleep(Duration::from_millis(1900)).await;
            proxy.resume();
            stays(&proxy, 200, Duration::from_millis(1500)).await;
        }
        if let Some(neighbour) = neighbour {
            neighbour.echoes().await;
        }
    }
    assert!(reported(&proxy).is_empty(), "{}", proxy.transcript());
    proxy.finish().await;
}

#[tokio::test]
async fn s58_a_refused_connect_makes_it_unready_and_the_next_one_ready() {
    let (socket, address) = reserved(any());
    let app = Answering::on(socket);
    // Only a refused connect is detected within the time of this test.
    let slow = "interval = \"1m\"\ntimeout = \"30s\"\ngive_up = \"10m\"";
    let proxy = Proxy::start(config(&format!("http://{address}"), slow)).await;
    becomes(&proxy, 200).await;
    drop(app);
    // A connect that the listener still accepts as it closes is reset, and tells nothing yet.
    let search = async {
        while readiness(&proxy).await.0 != 503 {
            request(&proxy).await;
        }
    };
    wait_for("the app refuses", search).await;
    let _app = Answering::on(reserved(address).0);
    becomes(&proxy, 200).await;
    assert_eq!(reported(&proxy), ["upstream.unreachable", "upstream.recovered"], "{}", proxy.transcript());
    proxy.finish().await;
}

#[tokio::test]
async fn s58_sessions_outlive_an_app_that_takes_no_more_of_them() {
    let mut fake = FakeApp::start(|_, stream| hold(stream)).await;
    let proxy = Proxy::start(config(&fake.url, SHORT)).await;
    becomes(&proxy, 200).await;
    let session = Neighbour::join(&proxy, "/echo").await;
    fake.go_down().await;
    assert_eq!(request(&proxy).await, 502);
    becomes(&proxy, 503).await;
    stays(&proxy, 503, LONG_ENOUGH).await;
    session.echoes().await;
    assert_eq!(
        reported(&proxy),
        ["upstream.unreachable"],
        "failed connects give no session up: {}",
        proxy.transcript()
    );
    proxy.finish().await;
}

#[tokio::test]
async fn s58_an_app_that_freezes_while_every_session_is_inside_a_frame_is_not_ready() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(config(&app.url, WATCH)).await;
    let _sessions = [half_a_frame(&proxy, "/ws?name=a").await, half_a_frame(&proxy, "/ws?name=b").await];
    becomes(&proxy, 200).await;
    app.stop();
    becomes(&proxy, 503).await;
    stays(&proxy, 503, LONG_ENOUGH).await;
    app.resume();
    becomes(&proxy, 200).await;
    assert_eq!(reported(&proxy), ["upstream.unresponsive", "upstream.recovered"], "{}", proxy.transcript());
    proxy.finish().await;
}

#[tokio::test]
async fn s58_an_app_that_lives_while_every_session_is_inside_a_frame_is_not_given_up() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(config(&app.url, SHORT)).await;
    let session = half_a_frame(&proxy, "/ws?name=slow").await;
    becomes(&proxy, 200).await;
    stays(&proxy, 200, LONG_ENOUGH * 2).await;
    assert!(reported(&proxy).is_empty() && app.events("close").is_empty(), "{}", proxy.transcript());
    drop(session);
    proxy.finish().await;
}

#[tokio::test]
async fn s58_an_app_that_freezes_while_every_session_is_blocked_is_not_ready_and_given_up() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(config(&app.url, SHORT)).await;
    let mut session = proxy.upgraded("/sink?name=up").await;
    becomes(&proxy, 200).await;
    app.stop();
    // One frame that never ends, until no more of it is taken.
    session.write_all(&[0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4]).await.expect("it is taken");
    let chunk = vec![0; 1 << 16];
    while let Ok(written) = timeout(Duration::from_millis(200), session.write_all(&chunk)).await {
        if written.is_err() {
            break;
        }
    }
    becomes(&proxy, 503).await;
    proxy.line("the app is given up", |line| line.json["message"] == "upstream.given_up").await;
    proxy.ws_close(|line| line["close.reason"] == "upstream_lost").await;
    stays(&proxy, 503, LONG_ENOUGH).await;
    app.resume();
    becomes(&proxy, 200).await;
    proxy.finish().await;
}

/// The pongs of these sessions do not arrive: one has a client that takes nothing of a large message, so that the proxy
/// reads no more of the app; of the other the app reads nothing.
#[tokio::test]
async fn s63_an_app_that_answers_requests_is_not_given_up_for_the_pongs_of_stuck_sessions() {
    // Made before there is an app that has to answer: it takes a while.
    let message = Frame::server(FIN | BINARY, vec![1; 30_000_000]).bytes();
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(config(&fake.url, SHORT)).await;
    becomes(&proxy, 200).await;
    let _slow = proxy.upgraded("/raw?slow").await;
    let (_, mut app) = wait_for("the session", sessions.recv()).await.expect("the fake runs");
    let burst = tokio::spawn(async move {
        let _ = app.write_all(&message).await;
        app
    });
    let _unread = proxy.upgraded("/raw?unread").await;
    let _app = wait_for("the session", sessions.recv()).await.expect("the fake runs");
    // Many times `give_up`, and within the clients' own interval.
    sleep(3 * LONG_ENOUGH).await;
    assert_eq!(reported(&proxy), [""; 0], "{}", proxy.transcript());
    assert!(proxy.logged("ws.close").is_empty(), "{}", proxy.transcript());
    burst.abort();
    proxy.finish().await;
}

#[tokio::test]
async fn s58_an_app_that_was_given_up_stays_unready_until_it_answers() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(config(&app.url, SHORT)).await;
    becomes(&proxy, 200).await;
    let mut session = proxy.websocket("/ws?name=held").await;
    app.stop();
    assert_eq!(close_of(&mut session).await, (1012, "upstream unresponsive".into()));
    drop(session);
    stays(&proxy, 503, LONG_ENOUGH).await;
    app.resume();
    becomes(&proxy, 200).await;
    assert_eq!(
        reported(&proxy),
        ["upstream.unresponsive", "upstream.given_up", "upstream.recovered"],
        "{}",
        proxy.transcript()
    );
    Neighbour::join(&proxy, "/ws").await.echoes().await;
    proxy.finish().await;
}

#[tokio::test]
async fn s58_only_an_app_in_doubt_is_asked() {
    let (socket, address) = reserved(any());
    let app = Answering::on(socket);
    // The interval is much longer than the pauses between the test's own requests.
    let watch = "interval = \"1500ms\"\ntimeout = \"1200ms\"\ngive_up = \"60s\"\nprobe = \"/healthz\"";
    let proxy = Proxy::start(config(&format!("http://{address}"), watch)).await;
    becomes(&proxy, 200).await;
    let began = Instant::now();
    while began.elapsed() < LONG_ENOUGH {
        assert_eq!(request(&proxy).await, 404);
        sleep(Duration::from_millis(50)).await;
    }
    let asked: Vec<_> = app.heads().into_iter().filter(|head| head.starts_with("GET /healthz HTTP/1.1\r\n")).collect();
    assert_eq!(asked.len(), 1, "at the start, and never while it answers others: {asked:?}");
    // The app is silent from here on, and no session can carry a ping.
    let search = async {
        while app.heads().iter().filter(|head| head.starts_with("GET /healthz ")).count() < 3 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let began = Instant::now();
    wait_for("it is asked again", search).await;
    assert!(began.elapsed() >= Duration::from_secs(2), "once an interval: {:?}", began.elapsed());
    assert!(reported(&proxy).is_empty(), "{}", proxy.transcript());
    proxy.finish().await;
}

#[tokio::test]
async fn s58_without_a_probe_no_request_is_made() {
    let (socket, address) = reserved(any());
    let app = Answering::on(socket);
    let proxy = Proxy::start(config(&format!("http://{address}"), &format!("{WATCH}\nprobe = \"off\""))).await;
    becomes(&proxy, 200).await;
    stays(&proxy, 200, LONG_ENOUGH).await;
    assert_eq!(app.heads(), Vec::<String>::new());
    proxy.finish().await;
}

#[tokio::test]
async fn s58_without_a_watch_readiness_is_about_the_proxy_alone() {
    let (_socket, address) = reserved(any());
    let proxy = Proxy::start(config(&format!("http://{address}"), "interval = \"off\"")).await;
    becomes(&proxy, 200).await;
    assert_eq!(request(&proxy).await, 502);
    stays(&proxy, 200, Duration::from_millis(500)).await;
    // The cause of the 502 is logged all the same.
    assert_eq!(reported(&proxy), ["upstream.unreachable"], "{}", proxy.transcript());
    proxy.finish().await;
}

#[tokio::test]
async fn s58_an_app_on_a_unix_socket_is_asked_too() {
    let dir = tempfile::TempDir::new().expect("a folder");
    let app = NodeApp::bare_on(&dir.path().join("app.sock")).await;
    let mut proxy = Proxy::start(config(&app.url, WATCH)).await;
    becomes(&proxy, 200).await;
    app.stop();
    becomes(&proxy, 503).await;
    app.resume();
    becomes(&proxy, 200).await;
    // The next app never ran.
    proxy.terminate();
    proxy.exit_within(TIMEOUT).await;
    let nowhere = format!("unix:{}", dir.path().join("absent.sock").display());
    let proxy = Proxy::start(config(&nowhere, WATCH)).await;
    stays(&proxy, 503, Duration::from_millis(500)).await;
    proxy.finish().await;
}

#[tokio::test]
async fn s58_an_app_behind_tls_is_asked_too() {
    let app = NodeApp::bare().await;
    let inner = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let tls = format!("{WATCH}\ntls = {{ ca = \"{}\" }}", inner.pki.ca.display());
    let outer = Proxy::start(config(&format!("https://localhost:{}", inner.address.port()), &tls)).await;
    becomes(&outer, 200).await;
    inner.stop();
    becomes(&outer, 503).await;
    inner.resume();
    becomes(&outer, 200).await;
    outer.finish().await;
    inner.finish().await;
}

#[tokio::test]
async fn s63_a_healthy_app_is_never_given_up_at_the_smallest_values() {
    // The smallest values that are accepted: one millisecond less is refused, see the tests of the configuration.
    let least = "interval = \"100ms\"\ntimeout = \"100ms\"\ngive_up = \"1s\"";
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(config(&app.url, least)).await;
    becomes(&proxy, 200).await;
    let idle = Neighbour::join(&proxy, "/ws?name=idle").await;
    let busy = Neighbour::join(&proxy, "/ws?name=busy").await;
    let _slow = half_a_frame(&proxy, "/ws?name=slow").await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(12) {
        busy.echoes().await;
        // Silence of many lengths, around the interval and above it.
        sleep(Duration::from_millis(u64::from(began.elapsed().subsec_nanos() % 400))).await;
    }
    idle.echoes().await;
    let given_up = reported(&proxy).into_iter().filter(|message| message == "upstream.given_up").count();
    assert_eq!(given_up, 0, "{}", proxy.transcript());
    assert!(app.events("close").is_empty(), "{}", app.transcript());
    proxy.finish().await;
}
