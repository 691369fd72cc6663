//! Two thousand sessions echo while configuration and certificates are replaced fifty times, five of them with unusable
//! files.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use pulsegate_test_kit::client::{Wss, echo};
use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::frame::{BINARY, FIN, Frame, PING, PONG};
use pulsegate_test_kit::http1::Response;
use pulsegate_test_kit::open_files::raise_open_file_limit;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::turn::busy_turn;
use pulsegate_test_kit::wait::{wait_for, wait_until, within};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;

use crate::PULSEGATE;
use crate::e2e::reload::{Mount, Pair, reload_after};

/// Sessions with a connection of their own.
const OWN: usize = 1600;
/// Sessions that share connections of HTTP/2, and the number of sessions on each.
const SHARED: usize = 400;
const STREAMS: usize = 100;
const SWAPS: usize = 50;
/// The replacements with files that cannot be used.
const BAD: [usize; 5] = [7, 17, 27, 37, 47];
/// The period of a session's messages, long enough to leave the machine some capacity.
const PAUSE: Duration = Duration::from_secs(1);

/// The state that all sessions share.
#[derive(Default)]
struct Load {
    over: AtomicBool,
    opened: AtomicU64,
    echoes: AtomicU64,
}

impl Load {
    /// Returns the payload of message `turn` of session `number`.
    fn payload(number: usize, turn: usize) -> Vec<u8> {
        let length = 16 + (number * 31 + turn * 97) % 1000;
        (0..length).map(|at| u8::try_from((at * 7 + number + turn * 13) % 251).expect("below 256")).collect()
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    fn echoed(&self) {
        self.echoes.fetch_add(1, Ordering::Relaxed);
    }

    async fn session(self: Arc<Self>, number: usize, mut websocket: Wss) {
        for turn in 0.. {
            let message = Message::binary(Self::payload(number, turn));
            within(ECHO_TIMEOUT, "an echo", echo(&mut websocket, message)).await.expect("the session lives");
            self.echoed();
            if !self.goes_on() {
                return;
            }
            sleep(PAUSE).await;
        }
    }

    async fn stream(self: Arc<Self>, number: usize, mut stream: Stream) {
        for turn in 0.. {
            let payload = Self::payload(number, turn);
            stream.write(FIN | BINARY, &payload);
            let answer = within(ECHO_TIMEOUT, "an echo", stream.message()).await;
            assert!(answer == payload, "session {number} got other bytes in turn {turn}");
            self.echoed();
            if !self.goes_on() {
                return;
            }
            sleep(PAUSE).await;
        }
    }
}

const ECHO_TIMEOUT: Duration = Duration::from_secs(60);

/// A WebSocket on a stream of HTTP/2 (RFC 8441), frame by frame.
struct Stream {
    out: SendStream<Bytes>,
    body: RecvStream,
    read: BytesMut,
}

impl Stream {
    async fn open(connection: &SendRequest<Bytes>) -> Self {
        let mut connection = connection.clone().ready().await.expect("the connection lives");
        let mut request = http::Request::connect("https://localhost/echo").body(()).expect("a request");
        *request.version_mut() = http::Version::HTTP_2;
        request.headers_mut().insert("sec-websocket-version", http::HeaderValue::from_static("13"));
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        let (answer, out) = connection.send_request(request, false).expect("a stream");
        let answer = wait_for("the upgrade", answer).await.expect("an answer");
        assert_eq!(answer.status(), 200, "{answer:?}");
        Self { out, body: answer.into_body(), read: BytesMut::new() }
    }

    fn write(&mut self, first: u8, payload: &[u8]) {
        let frame = Frame::client(first, payload).bytes();
        self.out.send_data(frame.into(), false).expect("the stream lives");
    }

    /// Returns the payload of the next data frame; answers the pings before it.
    async fn message(&mut self) -> Vec<u8> {
        loop {
            let frame = self.frame().await;
            match frame.opcode() {
                BINARY => return frame.payload,
                PING => self.write(FIN | PONG, &frame.payload),
                _ => panic!("{frame:?} instead of an echo"),
            }
        }
    }

    async fn frame(&mut self) -> Frame {
        loop {
            if let Some((frame, size)) = Frame::parse(&self.read) {
                self.read.advance(size);
                return frame;
            }
            let piece = self.body.data().await.expect("the stream lives").expect("the stream lives");
            self.body.flow_control().release_capacity(piece.len()).expect("it was received");
            self.read.extend_from_slice(&piece);
        }
    }
}

/// Opens `count` sessions, with a limit on the concurrent ones so that none times out.
async fn connect(proxy: &Arc<Proxy>, load: &Arc<Load>) -> Vec<JoinHandle<()>> {
    let turnstile = Arc::new(Semaphore::new(50));
    let own = (0..OWN).map(|number| {
        let (proxy, load, turnstile) = (Arc::clone(proxy), Arc::clone(load), Arc::clone(&turnstile));
        tokio::spawn(async move {
            let turn = turnstile.acquire_owned().await.expect("it is never closed");
            let websocket = proxy.websocket("/echo").await;
            drop(turn);
            load.opened.fetch_add(1, Ordering::Relaxed);
            load.session(number, websocket).await;
        })
    });
    let mut sessions: Vec<_> = own.collect();
    for connection in 0..SHARED / STREAMS {
        let name = ServerName::try_from("localhost").expect("a valid name");
        let handshake = TlsConnector::from(proxy.pki.client_of("h2")).connect(name, proxy.tcp().await);
        let tls = wait_for("the TLS handshake", handshake).await.expect("trusted");
        let (sender, driver) = h2::client::handshake(tls).await.expect("the preface goes out");
        tokio::spawn(driver);
        // Its SETTINGS announce support for the extended CONNECT; they arrive before any answer.
        let request = http::Request::get("https://localhost/settings").body(()).expect("a request");
        let (answer, _) = sender.clone().send_request(request, true).expect("a stream");
        let _ = wait_for("any answer", answer).await;
        for stream in 0..STREAMS {
            let number = OWN + connection * STREAMS + stream;
            let stream = Stream::open(&sender).await;
            load.opened.fetch_add(1, Ordering::Relaxed);
            sessions.push(tokio::spawn(Arc::clone(load).stream(number, stream)));
        }
    }
    let all_open = async {
        while load.opened.load(Ordering::Relaxed) < (OWN + SHARED) as u64 {
            let ended = sessions.iter().filter(|session| session.is_finished()).count();
            assert_eq!(ended, 0, "sessions have ended before all were open");
            sleep(Duration::from_millis(50)).await;
        }
    };
    within(4 * ECHO_TIMEOUT, "every session opens", all_open).await;
    sessions
}

/// Returns the value of `metric`, labels included.
async fn measured(proxy: &Proxy, metric: &str) -> usize {
    let listening = proxy.logged("listening").swap_remove(0);
    let health = listening["health"].as_str().expect("it has a health port");
    let exchange = async {
        let mut stream = TcpStream::connect(health).await.expect("the proxy listens");
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.expect("the request is taken");
        Response::read(&mut stream).await.expect("an answer").body
    };
    let text = within(ECHO_TIMEOUT, "a scrape", exchange).await;
    let value = text.lines().find_map(|line| line.strip_prefix("pulsegate_")?.strip_prefix(metric)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {metric} in:\n{text}"))
}

/// Returns whether the handshake of a new client succeeds that trusts `pair`'s authority alone.
async fn is_shown(proxy: &Proxy, pair: &Pair) -> bool {
    let name = ServerName::try_from("localhost").expect("a valid name");
    let handshake = TlsConnector::from(pair.pki.client()).connect(name, proxy.tcp().await);
    within(ECHO_TIMEOUT, "the handshake or its failure", handshake).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_swaps_cost_two_thousand_sessions_nothing() {
    let _turn = busy_turn().await;
    // Two for each session in this process, the client's and the app's, and two in the proxy.
    raise_open_file_limit(6144);
    let app = FakeApp::start(|_, stream| async move { drop(stream) }).await;
    let dir = TempDir::with_prefix("pulsegate-").expect("a folder");
    let mut mount = Mount::new(dir.path());
    let mut shown = Pair::make();
    let pki = shown.mounted(&mount);
    // The timeout is long, because a busy machine is not under test here.
    let config = Config::to(PULSEGATE, &app.url)
        .admin("health = \"127.0.0.1:0\"")
        .admin("socket = \"off\"")
        .with("[limits]\nhandshake = \"60s\"");
    let port = SocketAddr::from(([127, 0, 0, 1], 0));
    let text = |turn: usize| {
        let sections = format!("[heartbeat]\ninterval = \"{}s\"\n[[route]]\npath = \"/{turn}/\"\n", 20 + turn);
        config.clone().with(&sections).toml(port, &pki)
    };
    mount.swap(&[("proxy.toml", &text(0)), ("tls.crt", &shown.certificate), ("tls.key", &shown.private_key)]);
    let file = mount.path("proxy.toml");
    let proxy = Arc::new(Proxy::follow(&file, config.clone(), pki.clone(), dir).await);
    let load = Arc::new(Load::default());
    let sessions = connect(&proxy, &load).await;

    let mut generation = 1;
    for turn in 1..=SWAPS {
        let next = Pair::make();
        let before = load.echoes.load(Ordering::Relaxed);
        let (config, key) = match BAD.iter().position(|bad| *bad == turn) {
            Some(0) => (String::new(), &next.private_key),
            Some(1) => (text(turn).replace("[upstream]", "[upstream"), &next.private_key),
            Some(2) => (text(turn).replace("interval", "intervall"), &next.private_key),
            Some(_) => (text(turn), &shown.private_key),
            None => (text(turn), &next.private_key),
        };
        mount.swap(&[("proxy.toml", &config), ("tls.crt", &next.certificate), ("tls.key", key)]);
        let report: Value = reload_after(&proxy, turn - 1).await;
        if BAD.contains(&turn) {
            assert_eq!(
                (&report["message"], &report["generation"]),
                (&"config.reload_failed".into(), &generation.into())
            );
            assert!(is_shown(&proxy, &shown).await && !is_shown(&proxy, &next).await, "the last good one is shown");
            assert_eq!(measured(&proxy, "config_last_reload_successful").await, 0);
        } else {
            generation += 1;
            assert_eq!((&report["result"], &report["generation"]), (&"applied".into(), &generation.into()), "{report}");
            assert!(is_shown(&proxy, &next).await && !is_shown(&proxy, &shown).await, "the new one is shown");
            shown = next;
        }
        let ended = sessions.iter().filter(|session| session.is_finished()).count();
        assert_eq!(ended, 0, "sessions have ended in turn {turn}");
        wait_until("an echo in this turn", || load.echoes.load(Ordering::Relaxed), |echoes| *echoes > before).await;
    }
    load.over.store(true, Ordering::Relaxed);
    for session in sessions {
        within(2 * ECHO_TIMEOUT, "the session's last echo", session)
            .await
            .expect("no session was lost, no byte was wrong");
    }
    assert_eq!(proxy.logged("config.reload_failed").len(), BAD.len());
    for (metric, value) in [
        ("config_reloads_total{result=\"ok\"}", SWAPS - BAD.len()),
        ("config_reloads_total{result=\"failed\"}", BAD.len()),
        ("config_last_reload_successful", 1),
    ] {
        assert_eq!(measured(&proxy, metric).await, value, "{metric}");
    }
    assert_eq!(proxy.logged("ws.open").len(), OWN + SHARED);
    // The clients that ended with the load have left without a Close.
    let ends = proxy.ws_closes(OWN + SHARED).await;
    let lost = ends.iter().filter(|line| line["close.initiator"] != "client").count();
    assert_eq!(lost, 0, "{:?}", ends.iter().find(|line| line["close.initiator"] != "client"));
    let Ok(proxy) = Arc::try_unwrap(proxy) else { panic!("the proxy is still shared") };
    proxy.finish().await;
}
