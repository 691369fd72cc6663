//! A drain under load: thousands of sessions over streams of HTTP/2 and connections of HTTP/1.1, and requests between
//! them.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::{FuturesUnordered, iter};
use http::Method;
use pulsegate_test_kit::client::{Tls, Wss, next_message};
use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::frame::{CLOSE, FIN, Frame};
use pulsegate_test_kit::http1;
use pulsegate_test_kit::http2::{Http2Client, Http2Response, Http2WebSocket, request};
use pulsegate_test_kit::open_files::raise_open_file_limit;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::spread::{Stalls, assert_even};
use pulsegate_test_kit::turn::busy_turn;
use pulsegate_test_kit::wait::{wait_for, within};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::PULSEGATE;

/// Connections of HTTP/2, and the sessions on each.
const CONNECTIONS: usize = 60;
const STREAMS: usize = 75;
/// Sessions of HTTP/1.1.
const SINGLE: usize = 500;
const SESSIONS: usize = CONNECTIONS * STREAMS + SINGLE;
/// Plain requests of each kind that are under way meanwhile.
const REQUESTS: usize = 20;

const WINDOW: Duration = Duration::from_secs(10);
/// What clients may take to open it all, and the proxy to let it all go, on a busy machine.
const LONG: Duration = Duration::from_secs(120);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The code that a client was told, and when.
type Told = JoinHandle<(Option<u16>, Instant)>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s40_five_thousand_sessions_are_told_1012_over_the_window() {
    let _turn = busy_turn().await;
    // Two for each session in this process, and two in the proxy.
    raise_open_file_limit(12_000);
    let (fake, mut asked) = app().await;
    let config = Config::to(PULSEGATE, &fake.url)
        .drain("delay = \"1s\"")
        .drain("window = \"10s\"")
        // The timeout is long, because a busy machine is not under test here.
        .with("[limits]\nhandshake = \"60s\"\n[heartbeat]\ninterval = \"60s\"\ntimeout = \"60s\"\n");
    let mut proxy = Proxy::start(config).await;
    let (mut clients, mut told) = within(LONG, "all HTTP/2 sessions open", streams(&proxy)).await;
    told.extend(within(LONG, "all HTTP/1.1 sessions open", singles(&proxy)).await);
    let (streamed, single) = under_way(&proxy, &mut clients[0]).await;
    let mut waiting = Vec::new();
    while waiting.len() < 2 * REQUESTS {
        waiting.push(wait_for("the app gets the requests", asked.recv()).await.expect("the fake runs"));
    }

    let stalls = Stalls::watch();
    let began = Instant::now();
    proxy.terminate();
    let mut moments = Vec::new();
    let mut answered = false;
    let mut told: FuturesUnordered<_> = told.into_iter().collect();
    while let Some(session) = within(LONG, "everybody is told", told.next()).await {
        let (code, at) = session.expect("no panic");
        assert_eq!(code, Some(1012), "after {} others; the log:\n{}", moments.len(), proxy.transcript());
        moments.push(at);
        if moments.len() > SESSIONS / 2 && !answered {
            answered = true;
            for stream in &mut waiting {
                stream.write_all(OK).await.expect("the proxy waits for the answer");
            }
        }
    }
    assert_eq!(moments.len(), SESSIONS);
    assert_even(&moments, WINDOW, stalls).await;
    for response in streamed {
        let answer = Http2Response::of(wait_for("an answer", response).await.expect("an answer")).await;
        assert_eq!((answer.status, &*answer.body), (200, "ok"));
    }
    for mut stream in single {
        let answer = wait_for("an answer", http1::Response::read(&mut stream)).await.expect("an answer");
        assert_eq!((answer.status, &*answer.body, answer.header("connection")), (200, "ok", Some("close")));
    }
    let status = proxy.exit_within(LONG).await;
    assert_eq!(status.code(), Some(0), "{status}; it wrote:\n{}", proxy.transcript());
    // One second of delay, the window, two of close_grace, and the margin.
    assert!(began.elapsed() < Duration::from_secs(1 + 10 + 2 + 5 + 1), "{:?}", began.elapsed());
    proxy.has_not_panicked();
    assert_eq!(proxy.count(|line| line.text.contains("out of time")), 0, "{}", proxy.transcript());
    let closes = proxy.ws_closes(SESSIONS).await;
    assert!(closes.iter().all(|line| line["close.reason"] == "drain" && line["upstream.close_code"] == 1012));
}

/// An app that answers each Close, and leaves plain requests to the test.
async fn app() -> (FakeApp, mpsc::UnboundedReceiver<TcpStream>) {
    let (requests, asked) = mpsc::unbounded_channel();
    let fake = FakeApp::start(move |request, mut stream| {
        let requests = requests.clone();
        async move {
            if request.path() == "/late" {
                // A finished test takes no more.
                let _ = requests.send(stream);
                return;
            }
            stream.write_all(request.accept().as_bytes()).await.expect("answer the upgrade");
            while let Some(frame) = Frame::read(&mut stream).await {
                if frame.opcode() == CLOSE {
                    let _ = stream.write_all(&Frame::server(FIN | CLOSE, frame.payload).bytes()).await;
                    return;
                }
            }
        }
    })
    .await;
    (fake, asked)
}

/// The sessions over HTTP/2, one task each, and their connections.
async fn streams(proxy: &Proxy) -> (Vec<Http2Client>, Vec<Told>) {
    let mut clients = Vec::new();
    let mut told = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = Http2Client::connect(proxy).await;
        for _ in 0..STREAMS {
            told.push(tokio::spawn(told_on(client.websocket("/ws").await)));
        }
        clients.push(client);
    }
    (clients, told)
}

async fn singles(proxy: &Proxy) -> Vec<Told> {
    let opening = iter(0..SINGLE).map(|_| proxy.websocket("/ws"));
    opening.buffer_unordered(32).map(|websocket| tokio::spawn(told_by(websocket))).collect().await
}

async fn told_on(mut websocket: Http2WebSocket) -> (Option<u16>, Instant) {
    let close = websocket.message_within(LONG).await;
    let at = Instant::now();
    let code = close.as_ref().and_then(Frame::close).map(|(code, _)| code);
    if let Some(close) = close {
        // The proxy waits for it, but not for ever.
        let answer = Frame::client(FIN | CLOSE, close.payload).bytes();
        let _ = websocket.sender.send_data(answer.into(), true);
    }
    (code, at)
}

async fn told_by(mut websocket: Wss) -> (Option<u16>, Instant) {
    use tokio_tungstenite::tungstenite::Message;
    let message = within(LONG, "a Close", next_message(&mut websocket)).await;
    let at = Instant::now();
    let code = match message {
        Ok(Message::Close(Some(frame))) => Some(frame.code.into()),
        _ => None,
    };
    // The answer goes out as the end is waited for.
    let _ = next_message(&mut websocket).await;
    (code, at)
}

/// Plain requests that the app has not answered, over HTTP/2 and over HTTP/1.1.
async fn under_way(proxy: &Proxy, client: &mut Http2Client) -> (Vec<h2::client::ResponseFuture>, Vec<Tls>) {
    let (mut streamed, mut single) = (Vec::new(), Vec::new());
    for _ in 0..REQUESTS {
        streamed.push(client.send(request(Method::GET, "/late"), true).await.0);
        let mut stream = proxy.tls().await;
        stream.write_all(b"GET /late HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("the proxy reads");
        single.push(stream);
    }
    (streamed, single)
}
