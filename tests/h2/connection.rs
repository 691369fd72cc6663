//! What concerns a connection as a whole: whether it lives, and how it ends.

use std::time::Duration;

use h2::client::Builder;
use http::Method;
use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::frame::{BINARY, FIN, Frame};
use pulsegate_test_kit::http2::{Http2Client, Http2Response, extended, request};
use pulsegate_test_kit::proxy::{Config, Proxy, QUICK};
use pulsegate_test_kit::wait::{TIMEOUT, wait_for};
use tokio::io::AsyncWriteExt;

use crate::PULSEGATE;
use crate::h2::raw::{self, END_HEADERS, GOAWAY, HEADERS, PING, Raw};

#[tokio::test]
async fn a_connection_without_streams_gets_goaway_after_keep_alive_and_one_with_a_websocket_stays() {
    let (fake, _sessions) = FakeApp::sessions().await;
    let limits = "[limits]\nheader_read = \"20s\"\nkeep_alive = \"700ms\"\n";
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(limits)).await;
    let mut busy = Http2Client::connect(&proxy).await;
    let mut websocket = busy.websocket("/echo").await;
    let mut idle = Http2Client::connect(&proxy).await;
    // The app speaks WebSocket alone, and a 101 is no answer to a plain request.
    assert_eq!(idle.get("/plain").await.status, 502);
    let since = std::time::Instant::now();
    let end = wait_for("the end of the connection", &mut idle.driver).await.expect("no panic");
    end.expect("GOAWAY without an error, then the end");
    assert!(since.elapsed() >= Duration::from_millis(650), "after {:?}", since.elapsed());
    websocket.echoes("much later").await;
    assert!(!busy.driver.is_finished());
    proxy.finish().await;
}

#[tokio::test]
async fn s41_a_stream_that_takes_nothing_is_cancelled_alone() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let heartbeat = "[heartbeat]\ninterval = \"400ms\"\ntimeout = \"600ms\"\nwrite_stall = \"1500ms\"\n";
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(heartbeat)).await;
    // The client's library opens a window only as its user asks: what is never released closes it.
    let mut client = Http2Client::connect_as(&proxy, Builder::new().initial_window_size(16 * 1024)).await;
    let mut neighbour = client.websocket("/echo").await;
    let mut stuck = client.websocket("/raw").await;
    stuck.holds = true;
    let (_, mut app) = wait_for("the session", sessions.recv()).await.expect("the fake runs");
    app.write_all(&Frame::server(FIN | BINARY, vec![1; 15_000]).bytes()).await.expect("open");
    app.write_all(&Frame::server(FIN | BINARY, vec![2; 15_000]).bytes()).await.expect("open");
    assert!(stuck.frame().await.expect("it fits into the window").is_some());
    // The connection's PINGs are answered by the client's library, and the neighbour's by its own user.
    let cancelled = tokio::select! {
        frame = stuck.frame() => frame,
        frame = neighbour.message() => panic!("the neighbour got {frame:?}"),
    };
    let error = cancelled.expect_err("a reset");
    assert!(error.is_remote(), "{error}");
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
    let line = proxy.ws_close(|_| true).await.json;
    assert_eq!((&line["close.reason"], &line["url.path"]), (&"slow_reader".into(), &"/raw".into()), "{line}");
    let told = wait_for("the app hears of it", Frame::read(&mut app)).await.expect("a Close");
    assert_eq!(told.close(), Some((4408, "slow reader".into())));
    neighbour.echoes("untouched").await;
    assert_eq!(proxy.logged("ws.close").len(), 1);
    proxy.finish().await;
}

#[tokio::test]
async fn s42_a_connection_that_does_not_answer_takes_all_its_upstream_legs_down() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    // The sessions themselves are only watched, for a window of a minute: it is the connection that is found dead.
    let heartbeat = format!("{QUICK}profile = \"phoenix\"\nwindow = \"60s\"\n");
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(&heartbeat)).await;
    let mut client = Raw::connect(&proxy).await;
    let mut apps = Vec::new();
    for stream in [1, 3, 5] {
        client.send(HEADERS, END_HEADERS, stream, &raw::block(&raw::connect("/raw"))).await;
        client.until("a 200", |frame| frame.kind == HEADERS && frame.stream == stream).await;
        let (_, app) = wait_for("the session", sessions.recv()).await.expect("the fake runs");
        apps.push(app);
    }
    // The PING comes and is not answered.
    client.until_unanswered(PING).await;
    for mut app in apps {
        let end = wait_for("the app hears of it", Frame::read(&mut app)).await.expect("a Close");
        assert_eq!(end.close(), Some((4408, "heartbeat timeout".into())));
    }
    for line in proxy.ws_closes(3).await {
        assert_eq!(line["close.reason"], "heartbeat_timeout", "{line}");
    }
    let told = client.rest().await;
    assert!(told.iter().any(|frame| frame.kind == GOAWAY), "{told:?}");
    let closes = told.iter().filter(|frame| frame.payload.starts_with(b"\x88\x13\x03\xf4")).count();
    assert_eq!(closes, 3, "who was only held up finds a Close 1012: {told:?}");
    proxy.releases(0).await;
    proxy.finish().await;
}

#[tokio::test]
async fn s70_a_miss_is_counted_before_the_teardown_that_it_causes() {
    // Found dead by the sessions' own probes, and by the connection's PING.
    for profile in ["", "profile = \"phoenix\"\nwindow = \"60s\"\n"] {
        let (fake, mut sessions) = FakeApp::sessions().await;
        let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(&format!("{QUICK}{profile}"))).await;
        let mut client = Raw::connect(&proxy).await;
        let mut apps = Vec::new();
        for stream in [1, 3, 5, 7, 9] {
            client.send(HEADERS, END_HEADERS, stream, &raw::block(&raw::connect("/raw"))).await;
            client.until("a 200", |frame| frame.kind == HEADERS && frame.stream == stream).await;
            apps.push(wait_for("the session", sessions.recv()).await.expect("the fake runs"));
        }
        for line in proxy.ws_closes(5).await {
            assert_eq!(line["close.reason"], "heartbeat_timeout", "{line}");
            assert_eq!(line["missed"], 1, "{line}");
        }
        proxy.finish().await;
    }
}

#[tokio::test]
async fn a_connection_that_answers_stays() {
    let fake = FakeApp::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(QUICK)).await;
    let mut client = Http2Client::connect(&proxy).await;
    assert_eq!(client.get("/").await.status, 200);
    // The client's library answers PINGs, and nothing else is sent for many windows. The app answers once on a connection:
    // the next request waits until the proxy keeps that connection no longer.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(client.get("/").await.status, 200);
    proxy.finish().await;
}

#[tokio::test]
async fn a_drain_ends_sessions_and_lets_requests_finish() {
    let (answers, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let fake = FakeApp::start(move |_, stream| {
        let answers = answers.clone();
        async move {
            let _ = answers.send(stream);
        }
    })
    .await;
    let mut proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut client = Http2Client::connect(&proxy).await;
    let mut websocket = client.websocket("/echo").await;
    let (response, _) = client.send(request(Method::GET, "/slow"), true).await;
    let mut app = wait_for("the request", asked.recv()).await.expect("the fake runs");
    proxy.terminate();
    let close = websocket.message().await.expect("a Close");
    assert_eq!(close.close(), Some((1012, "service restart".into())));
    websocket.send_frame(&Frame::client(close.first, &b"\x03\xf4"[..])).await;
    assert_eq!(websocket.frame().await.expect("END_STREAM"), None);
    // After the GOAWAY no stream may begin.
    wait_for("the GOAWAY", async {
        while client.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    app.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("open");
    let answer = Http2Response::of(wait_for("the answer", response).await.expect("an answer")).await;
    assert_eq!((answer.status, &*answer.body), (200, "ok"));
    websocket.end();
    drop(websocket);
    let end = wait_for("the connection ends", &mut client.driver).await.expect("no panic");
    assert!(end.is_ok(), "{end:?}");
    assert_eq!(proxy.exit_within(TIMEOUT).await.code(), Some(0), "{}", proxy.transcript());
}

#[tokio::test]
async fn many_sessions_share_a_connection() {
    let fake = FakeApp::answering("unused").await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut client = Http2Client::connect(&proxy).await;
    let mut sessions = Vec::new();
    for _ in 0..100 {
        sessions.push(client.websocket_by(extended("websocket", "/echo")).await);
    }
    for (number, session) in sessions.iter_mut().enumerate() {
        session.echoes(&format!("session {number}")).await;
    }
    drop(sessions);
    proxy.ws_closes(100).await;
    proxy.finish().await;
}
