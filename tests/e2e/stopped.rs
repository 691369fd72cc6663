//! The proxy is stopped for longer than the timers of its stages, the heartbeat's apart (see `suspended.rs`).

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use futures_util::SinkExt;
use futures_util::future::join_all;
use pulsegate_test_kit::client::{close_of, echo, next_message, upgrade_head};
use pulsegate_test_kit::fake_app::{FakeApp, RequestHead, hold};
use pulsegate_test_kit::http1::Response;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::{TIMEOUT, wait_for, wait_until};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;

use crate::PULSEGATE;

/// Longer than [`LIMITS`] and [`RESPONSE`].
const STOPPED: Duration = Duration::from_secs(3);
/// Timers that pass while the proxy is stopped; that of a request's body is six times that of its head.
const LIMITS: &str = "[limits]\nhandshake = \"2s\"\nheader_read = \"2s\"\n";
const RESPONSE: &str = "response_timeout = \"2s\"";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// Starts an app that hands each request and its connection to the test.
async fn app_in_hand() -> (FakeApp, mpsc::UnboundedReceiver<(RequestHead, TcpStream)>) {
    let (sender, requests) = mpsc::unbounded_channel();
    let fake = FakeApp::start(move |request, stream| {
        let sender = sender.clone();
        async move {
            // A finished test takes no more.
            let _ = sender.send((request, stream));
        }
    })
    .await;
    (fake, requests)
}

/// Starts an app that reads each request to its end and answers 200.
async fn answering_app() -> FakeApp {
    FakeApp::start(|request, mut stream| async move {
        let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).await.is_ok() {
            let _ = stream.write_all(OK).await;
            hold(stream).await;
        }
    })
    .await
}

/// Stops the proxy for `time`, after a pause in which it reads what was sent; `meanwhile` runs at the beginning.
async fn stopped(proxy: &Proxy, time: Duration, meanwhile: impl Future<Output = ()>) {
    sleep(Duration::from_millis(400)).await;
    proxy.stop();
    let begun = Instant::now();
    meanwhile.await;
    sleep(time.saturating_sub(begun.elapsed())).await;
    proxy.resume();
}

/// A TLS handshake with the proxy, written piece by piece.
struct Handshake {
    connection: ClientConnection,
    tcp: TcpStream,
}

impl Handshake {
    async fn begin(proxy: &Proxy) -> (Self, Vec<u8>) {
        let name = ServerName::try_from("localhost").expect("a valid name");
        let mut connection = ClientConnection::new(proxy.pki.client(), name).expect("a sound configuration");
        let mut hello = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut hello).expect("a vector takes all");
        }
        (Self { connection, tcp: proxy.tcp().await }, hello)
    }

    /// Completes it, sends `request`, and returns the answer as soon as `enough` of it is there.
    async fn ask(mut self, request: &[u8], enough: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>, String> {
        self.connection.writer().write_all(request).expect("it is kept until the handshake is over");
        let mut answer = Vec::new();
        while !enough(&answer) {
            let mut out = Vec::new();
            while self.connection.wants_write() {
                self.connection.write_tls(&mut out).expect("a vector takes all");
            }
            self.tcp.write_all(&out).await.map_err(|error| format!("write: {error}"))?;
            let mut piece = vec![0; 16 * 1024];
            let read = self.tcp.read(&mut piece).await.map_err(|error| format!("read: {error}"))?;
            if read == 0 {
                return Err("the connection ended".into());
            }
            let mut piece = &piece[..read];
            while !piece.is_empty() {
                self.connection.read_tls(&mut piece).expect("a slice can be read");
                self.connection.process_new_packets().map_err(|error| format!("TLS: {error}"))?;
            }
            let mut plaintext = vec![0; 16 * 1024];
            while let Ok(read @ 1..) = self.connection.reader().read(&mut plaintext) {
                answer.extend_from_slice(&plaintext[..read]);
            }
        }
        Ok(answer)
    }
}

#[tokio::test]
async fn s77_a_tls_handshake_that_was_half_done_is_completed() {
    let app = answering_app().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(LIMITS)).await;
    let (mut handshake, hello) = Handshake::begin(&proxy).await;
    let (first, rest) = hello.split_at(hello.len() / 2);
    handshake.tcp.write_all(first).await.expect("the proxy reads");
    stopped(&proxy, STOPPED, async { handshake.tcp.write_all(rest).await.expect("the kernel takes it") }).await;
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answer = wait_for("the answer", handshake.ask(request, |answer| answer.ends_with(b"ok"))).await;
    let answer = answer.unwrap_or_else(|error| panic!("{error}; the log:\n{}", proxy.transcript()));
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    proxy.finish().await;
}

#[tokio::test]
async fn s77_a_stop_that_ends_before_the_deadline_is_noticed_too() {
    let app = answering_app().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with("[limits]\nhandshake = \"4s\"\n")).await;
    let (mut handshake, hello) = Handshake::begin(&proxy).await;
    let (first, rest) = hello.split_at(hello.len() / 2);
    handshake.tcp.write_all(first).await.expect("the proxy reads");
    stopped(&proxy, STOPPED, async {}).await;
    // Over four seconds after the beginning, of which the proxy has run for less than two.
    sleep(Duration::from_millis(1400)).await;
    handshake.tcp.write_all(rest).await.expect("the proxy reads");
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answer = wait_for("the answer", handshake.ask(request, |answer| answer.ends_with(b"ok"))).await;
    let answer = answer.unwrap_or_else(|error| panic!("{error}; the log:\n{}", proxy.transcript()));
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    // The renewed time limit is enforced like any other.
    let mut silent = proxy.tcp().await;
    stopped(&proxy, STOPPED, async {}).await;
    let resumed = Instant::now();
    let mut rest = Vec::new();
    let _ = wait_for("a silent client is given up", silent.read_to_end(&mut rest)).await;
    let lasted = resumed.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(12)).contains(&lasted), "{lasted:?} after the stop");
    proxy.finish().await;
}

#[tokio::test]
async fn s77_a_head_that_arrives_while_the_proxy_is_stopped_is_answered() {
    let app = answering_app().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(LIMITS)).await;
    // One is in the middle of its first head, the other between two requests.
    let (mut begun, mut kept) = (proxy.tls().await, proxy.tls().await);
    let answer = proxy.ask(&mut kept, b"GET /first HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    begun.write_all(b"GET /half HTTP/1.1\r\nHos").await.expect("the proxy reads");
    begun.flush().await.expect("the proxy reads");
    stopped(&proxy, STOPPED, async {
        begun.write_all(b"t: localhost\r\n\r\n").await.expect("the kernel takes it");
        begun.flush().await.expect("the kernel takes it");
        kept.write_all(b"GET /second HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("the kernel takes it");
        kept.flush().await.expect("the kernel takes it");
    })
    .await;
    for (name, stream) in [("in a head", &mut begun), ("between requests", &mut kept)] {
        let answer = wait_for("the answer", Response::read(stream)).await;
        let answer = answer.unwrap_or_else(|| panic!("no answer {name}; the log:\n{}", proxy.transcript()));
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
    }
    drop((begun, kept));
    proxy.finish().await;
}

#[tokio::test]
async fn s77_a_proxy_header_and_a_head_on_the_plain_port_are_taken_to_their_end() {
    const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n";
    let app = answering_app().await;
    let config = Config::to(PULSEGATE, &app.url)
        .listen("proxy_protocol = { trusted = [\"127.0.0.0/8\"] }")
        .listen("redirect = \"127.0.0.1:0\"");
    let proxy = Proxy::start(config.with(LIMITS)).await;
    let listening = proxy.logged("listening");
    let plain = listening[0]["redirect"].as_str().expect("the address of the plain port");
    let (begun, rest) = LINE.split_at(20);
    let mut encrypted = proxy.tcp().await;
    encrypted.write_all(begun).await.expect("the proxy reads");
    let mut plain = wait_for("connect", TcpStream::connect(plain)).await.expect("the proxy listens");
    plain.write_all(&[LINE, b"GET / HTTP/1.1\r\nHos"].concat()).await.expect("the proxy reads");
    stopped(&proxy, STOPPED, async {
        encrypted.write_all(rest).await.expect("the kernel takes it");
        plain.write_all(b"t: localhost\r\n\r\n").await.expect("the kernel takes it");
    })
    .await;
    let answer = wait_for("the redirect", Response::read(&mut plain)).await;
    let answer = answer.unwrap_or_else(|| panic!("no redirect; the log:\n{}", proxy.transcript()));
    assert_eq!(answer.status, 308, "{answer:?}");
    let name = ServerName::try_from("localhost").expect("a valid name");
    let handshake = TlsConnector::from(proxy.pki.client()).connect(name, encrypted);
    let mut stream = wait_for("the handshake behind the header", handshake)
        .await
        .unwrap_or_else(|error| panic!("{error}; the log:\n{}", proxy.transcript()));
    let answer = proxy.ask(&mut stream, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    drop((stream, plain));
    proxy.finish().await;
}

#[tokio::test]
async fn s77_a_head_that_stays_unfinished_is_refused_after_the_stop() {
    let app = answering_app().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(LIMITS)).await;
    let mut begun = proxy.tls().await;
    begun.write_all(b"GET /half HTTP/1.1\r\nHos").await.expect("the proxy reads");
    begun.flush().await.expect("the proxy reads");
    stopped(&proxy, STOPPED, async {}).await;
    let answer = wait_for("the refusal", Response::read(&mut begun)).await;
    let answer = answer.unwrap_or_else(|| panic!("no answer; the log:\n{}", proxy.transcript()));
    assert_eq!(answer.status, 408, "{answer:?}");
    drop(begun);
    proxy.finish().await;
}

#[tokio::test]
async fn s77_answers_of_the_app_that_arrive_while_the_proxy_is_stopped_are_passed_on() {
    let (app, mut requests) = app_in_hand().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).upstream(RESPONSE)).await;
    let mut next = async || wait_for("a request", requests.recv()).await.expect("the fake runs");
    let (mut upgrade, mut plain) = (proxy.tls().await, proxy.tls().await);
    upgrade.write_all(format!("{}\r\n", upgrade_head("/ws")).as_bytes()).await.expect("the proxy reads");
    upgrade.flush().await.expect("the proxy reads");
    let (asked, mut websocket) = next().await;
    plain.write_all(b"GET /plain HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("the proxy reads");
    plain.flush().await.expect("the proxy reads");
    let (_, mut response) = next().await;
    stopped(&proxy, STOPPED, async {
        websocket.write_all(asked.accept().as_bytes()).await.expect("the kernel takes it");
        response.write_all(OK).await.expect("the kernel takes it");
    })
    .await;
    for (status, stream) in [(101, &mut upgrade), (200, &mut plain)] {
        let answer = wait_for("the answer", Response::read(stream)).await;
        let answer = answer.unwrap_or_else(|| panic!("no {status}; the log:\n{}", proxy.transcript()));
        assert_eq!(answer.status, status, "{answer:?}");
    }
    drop((upgrade, plain, websocket));
    proxy.finish().await;
}

#[tokio::test]
async fn s77_a_body_that_is_under_way_is_taken_to_its_end() {
    let app = answering_app().await;
    let limits = "[limits]\nheader_read = \"700ms\"\n";
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).upstream(RESPONSE).with(limits)).await;
    let mut stream = proxy.tls().await;
    let head = b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300\r\n\r\n";
    stream.write_all(head).await.expect("the proxy reads");
    stream.write_all(&[b'a'; 100]).await.expect("the proxy reads");
    stream.flush().await.expect("the proxy reads");
    // Six times `header_read` pass; the second piece has arrived by then, the last one arrives later still.
    stopped(&proxy, Duration::from_secs(5), async {
        stream.write_all(&[b'b'; 100]).await.expect("the kernel takes it");
        stream.flush().await.expect("the kernel takes it");
    })
    .await;
    sleep(Duration::from_millis(300)).await;
    // A refused piece may not be read; only the answer matters.
    let _ = stream.write_all(&[b'c'; 100]).await;
    let _ = stream.flush().await;
    let answer = wait_for("the answer", Response::read(&mut stream)).await;
    let answer = answer.unwrap_or_else(|| panic!("no answer; the log:\n{}", proxy.transcript()));
    assert_eq!(answer.status, 200, "{answer:?}");
    drop(stream);
    proxy.finish().await;
}

#[tokio::test]
async fn s77_a_drain_that_was_stopped_gives_each_session_its_close_and_its_line() {
    const SESSIONS: usize = 12;
    let (app, _sessions) = FakeApp::sessions().await;
    let config = Config::to(PULSEGATE, &app.url)
        .drain("delay = \"0s\"")
        .drain("window = \"2s\"")
        .with("[heartbeat]\nclose_grace = \"500ms\"\n");
    let mut proxy = Proxy::start(config).await;
    let mut websockets = join_all((0..SESSIONS).map(|_| proxy.websocket("/echo"))).await;
    join_all(websockets.iter_mut().map(|websocket| echo(websocket, Message::text("open")))).await;
    proxy.terminate();
    proxy.line("draining", |line| line.json["message"] == "drain" && line.json["phase"] == "draining").await;
    let clients = websockets.into_iter().map(|mut websocket| {
        tokio::spawn(async move {
            let close = close_of(&mut websocket).await;
            // Answers the Close and waits for the end.
            let _ = wait_for("the end", next_message(&mut websocket)).await;
            close
        })
    });
    let clients: Vec<_> = clients.collect();
    // The whole drain was to take no longer than window + close_grace + 5 s.
    stopped(&proxy, Duration::from_millis(8500), async {}).await;
    for client in join_all(clients).await {
        assert_eq!(client.expect("no panic"), (1012, "service restart".into()), "the log:\n{}", proxy.transcript());
    }
    let lines = proxy.ws_closes(SESSIONS).await;
    assert!(lines.iter().all(|line| line["close.reason"] == "drain" && line["close.code"] == 1012), "{lines:#?}");
    let status = proxy.exit_within(TIMEOUT).await;
    assert_eq!(status.code(), Some(0), "{status}; it wrote:\n{}", proxy.transcript());
    assert_eq!(proxy.count(|line| line.text.contains("out of time")), 0, "{}", proxy.transcript());
    assert_eq!(lines.len(), SESSIONS);
}

#[tokio::test]
async fn s78_messages_that_piled_up_while_the_proxy_was_stopped_are_not_too_many() {
    const PACE: Duration = Duration::from_millis(200);
    const MESSAGES: u32 = 25;
    let (app, _sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with("[limits]\nmessages_per_second = 10\n")).await;
    let mut websocket = proxy.websocket("/echo").await;
    for turn in 0..5 {
        echo(&mut websocket, Message::text(format!("before {turn}"))).await.expect("five a second are few");
        sleep(PACE).await;
    }
    proxy.stop();
    for turn in 0..MESSAGES {
        websocket.send(Message::text(format!("meanwhile {turn}"))).await.expect("the kernel takes it");
        sleep(PACE).await;
    }
    proxy.resume();
    for turn in 0..MESSAGES {
        let message = wait_for("an echo", next_message(&mut websocket)).await;
        let message = message.unwrap_or_else(|error| panic!("{turn}: {error}; the log:\n{}", proxy.transcript()));
        assert_eq!(message, Message::text(format!("meanwhile {turn}")), "the log:\n{}", proxy.transcript());
    }
    for turn in 0..5 {
        echo(&mut websocket, Message::text(format!("after {turn}"))).await.expect("five a second are few");
        sleep(PACE).await;
    }
    // The limit itself is enforced; pauses of the machine have brought more credit than that of the stop.
    for _ in 0..5000 {
        // The proxy may have closed by then.
        let _ = websocket.send(Message::text("flood")).await;
    }
    wait_until(
        "a flood is refused",
        || proxy.logged("ws.close"),
        |lines| lines.iter().any(|line| line["close.code"] == 1008),
    )
    .await;
    drop(websocket);
    proxy.finish().await;
}
