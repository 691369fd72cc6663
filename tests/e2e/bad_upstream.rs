//! Upstreams that are down, hang, or break the handshake.

use std::time::{Duration, Instant};

use pulsegate_test_kit::client::{Neighbour, close_of, upgrade_head};
use pulsegate_test_kit::fake_app::{FakeApp, hold};
use pulsegate_test_kit::http1::Response;
use pulsegate_test_kit::process::OutputLine;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use tokio::io::AsyncWriteExt;

use crate::PULSEGATE;

const RESPONSE_TIMEOUT: Duration = Duration::from_millis(700);
/// The time by which a timer may seem early from outside.
const GRAIN: Duration = Duration::from_millis(50);

/// A proxy in front of `fake`, with a neighbour whose session works.
struct Scene {
    proxy: Proxy,
    neighbour: Neighbour,
    connections: usize,
}

impl Scene {
    async fn open(fake: &FakeApp) -> Self {
        let config =
            Config::to(PULSEGATE, &fake.url).upstream("connect_timeout = \"700ms\"\nresponse_timeout = \"700ms\"");
        let proxy = Proxy::start(config).await;
        let neighbour = Neighbour::join(&proxy, "/echo").await;
        let connections = proxy.connections();
        Self { proxy, neighbour, connections }
    }

    async fn ask(&self, request: &str) -> Response {
        let mut stream = self.proxy.tls().await;
        let answer = self.proxy.ask(&mut stream, request.as_bytes()).await;
        let _ = stream.shutdown().await;
        answer
    }

    async fn upgrade(&self) -> Response {
        self.ask(&format!("{}\r\n", upgrade_head("/bad"))).await
    }

    /// Asserts that the log has the failed upgrade and its reason.
    async fn logs(&self, status: u16) {
        let refused = |line: &OutputLine| line.json["message"] == "ws.reject";
        let says =
            |line: &OutputLine| line.json["http.response.status_code"] == status && line.json["reason"].is_string();
        self.proxy.line(&format!("a ws.reject with {status}"), |line| refused(line) && says(line)).await;
    }

    async fn request(&self) -> Response {
        self.ask("GET /bad HTTP/1.1\r\nHost: localhost\r\n\r\n").await
    }

    async fn survives(self) {
        self.neighbour.echoes().await;
        self.proxy.releases(self.connections).await;
        self.proxy.finish().await;
    }
}

fn is_short_and_plain(answer: &Response) {
    assert!(!answer.body.is_empty() && answer.body.len() < 400, "a clear short body: {answer:?}");
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/plain"), "HTML is for those who ask for it: {answer:?}");
}

#[tokio::test]
async fn an_upstream_that_is_down_is_a_502() {
    let mut fake = FakeApp::answering("").await;
    let scene = Scene::open(&fake).await;
    fake.go_down().await;
    for answer in [scene.upgrade().await, scene.request().await] {
        assert_eq!(answer.status, 502, "{answer:?}");
        is_short_and_plain(&answer);
    }
    scene.logs(502).await;
    scene.survives().await;
}

#[tokio::test]
async fn an_upstream_that_hangs_is_a_504() {
    let fake = FakeApp::start(|_, stream| hold(stream)).await;
    let scene = Scene::open(&fake).await;
    for upgrade in [true, false] {
        let began = Instant::now();
        let answer = if upgrade { scene.upgrade().await } else { scene.request().await };
        assert_eq!(answer.status, 504, "{answer:?}");
        is_short_and_plain(&answer);
        assert!(began.elapsed() + GRAIN >= RESPONSE_TIMEOUT, "too early: {:?}", began.elapsed());
    }
    scene.logs(504).await;
    scene.survives().await;
}

#[tokio::test]
async fn an_upstream_that_hangs_up_is_a_502() {
    let fake = FakeApp::start(|_, stream| async { drop(stream) }).await;
    let scene = Scene::open(&fake).await;
    for answer in [scene.upgrade().await, scene.request().await] {
        assert_eq!(answer.status, 502, "{answer:?}");
        is_short_and_plain(&answer);
    }
    scene.logs(502).await;
    scene.survives().await;
}

#[tokio::test]
async fn an_answer_of_nonsense_is_a_502() {
    let fake = FakeApp::answering("SMTP ready\r\n\r\n").await;
    let scene = Scene::open(&fake).await;
    for answer in [scene.upgrade().await, scene.request().await] {
        assert_eq!(answer.status, 502, "{answer:?}");
        is_short_and_plain(&answer);
    }
    scene.logs(502).await;
    scene.survives().await;
}

#[tokio::test]
async fn a_200_to_an_upgrade_reaches_the_client_as_it_is() {
    let fake = FakeApp::answering("HTTP/1.1 200 OK\r\nContent-Length: 8\r\nX-App: yes\r\n\r\nnot here").await;
    let scene = Scene::open(&fake).await;
    let answer = scene.upgrade().await;
    assert_eq!((answer.status, &*answer.body), (200, "not here"), "{answer:?}");
    assert_eq!(answer.header("x-app"), Some("yes"), "{answer:?}");
    scene.logs(200).await;
    scene.survives().await;
}

#[tokio::test]
async fn a_wrong_accept_is_a_502() {
    for accept in ["Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n", ""] {
        let fake = FakeApp::start(move |_, mut stream| async move {
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{accept}\r\n"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            hold(stream).await;
        })
        .await;
        let scene = Scene::open(&fake).await;
        let answer = scene.upgrade().await;
        assert_eq!(answer.status, 502, "{answer:?}");
        is_short_and_plain(&answer);
        scene.logs(502).await;
        scene.survives().await;
    }
}

#[tokio::test]
async fn a_101_to_something_else_is_a_502() {
    let fake = FakeApp::start(|request, mut stream| async move {
        let answer = request.accept().replace("Upgrade: websocket", "Upgrade: h2c");
        let _ = stream.write_all(answer.as_bytes()).await;
        hold(stream).await;
    })
    .await;
    let scene = Scene::open(&fake).await;
    let answer = scene.upgrade().await;
    assert_eq!(answer.status, 502, "{answer:?}");
    scene.survives().await;
}

#[tokio::test]
async fn an_upstream_that_vanishes_in_a_session_is_a_1012_for_its_client() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let scene = Scene::open(&fake).await;
    let mut client = scene.proxy.websocket("/raw").await;
    drop(wait_for("the session", sessions.recv()).await);
    let (code, reason) = close_of(&mut client).await;
    assert_eq!((code, &*reason), (1012, "upstream lost"));
    let line = scene.proxy.ws_close(|line| line["close.reason"] == "upstream_lost").await.json;
    assert_eq!((&line["close.code"], &line["upstream.close_code"]), (&1012.into(), &1006.into()), "{line}");
    drop(client);
    scene.survives().await;
}
