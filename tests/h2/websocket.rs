//! WebSockets over streams: the handshake, the bridge to the app, the heartbeat, and every kind of end.

use http::HeaderValue;
use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::frame::{BINARY, CLOSE, FIN, Frame, PING, PONG, TEXT};
use pulsegate_test_kit::http2::{Http2Client, extended};
use pulsegate_test_kit::proxy::{Config, Proxy, QUICK};
use pulsegate_test_kit::wait::wait_for;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::PULSEGATE;

#[tokio::test]
async fn the_app_is_asked_for_an_upgrade_with_a_key_of_the_proxys_own() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut client = Http2Client::connect(&proxy).await;
    let mut connect = extended("websocket", "/raw?token=secret");
    let headers = connect.headers_mut();
    headers.insert("origin", HeaderValue::from_static("https://app.example"));
    headers.insert("sec-websocket-key", HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
    headers.insert("x-pulsegate-connection-id", HeaderValue::from_static("forged"));
    let mut websocket = client.websocket_by(connect).await;
    for field in ["sec-websocket-accept", "connection", "upgrade", "content-length"] {
        assert!(!websocket.headers.contains_key(field), "{field}: {:?}", websocket.headers);
    }
    let (request, mut app) = wait_for("the upgrade", sessions.recv()).await.expect("the fake runs");
    assert!(request.head.starts_with("GET /raw?token=secret HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.header("upgrade"), Some("websocket"));
    assert_eq!(request.header("connection").map(str::to_lowercase).as_deref(), Some("upgrade"));
    assert_eq!(request.header("host"), Some("localhost"));
    assert_eq!(request.header("origin"), Some("https://app.example"));
    assert_eq!(request.header("sec-websocket-version"), Some("13"));
    let key = request.header("sec-websocket-key").expect("a key");
    assert!(key.len() == 24 && key != "dGhlIHNhbXBsZSBub25jZQ==", "{key}");
    assert!(!request.head.to_lowercase().contains("\r\n:protocol"), "{}", request.head);

    let sent = Frame::client(FIN | TEXT, "from the client");
    websocket.send_frame(&sent).await;
    assert_eq!(wait_for("a frame", Frame::read(&mut app)).await, Some(sent), "masked as it was");
    let sent = Frame::server(FIN | BINARY, vec![7; 100_000]);
    app.write_all(&sent.bytes()).await.expect("open");
    assert_eq!(websocket.message().await, Some(sent));

    let open = proxy.line("a ws.open", |line| line.json["message"] == "ws.open").await.json;
    assert_eq!((&open["network.protocol.version"], &open["url.path"]), (&"2".into(), &"/raw".into()), "{open}");
    assert_eq!(request.header("x-pulsegate-connection-id"), open["conn_id"].as_str());
    assert!(!proxy.transcript().contains("secret"), "queries stay out of the log");
    drop(websocket);
    let close = proxy.ws_close(|_| true).await.json;
    assert_eq!(
        (&close["network.protocol.version"], &close["close.initiator"]),
        (&"2".into(), &"client".into()),
        "{close}"
    );
    proxy.finish().await;
}

#[tokio::test]
async fn subprotocol_and_extensions_are_between_client_and_app() {
    let fake = FakeApp::start(|request, mut stream| async move {
        let accepted = request.accept();
        let head = accepted.trim_end_matches("\r\n");
        let answer = format!(
            "{head}\r\nSec-WebSocket-Protocol: chat\r\n\
             Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\nSet-Cookie: a=1\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.expect("open");
        // Compressed frames pass as they are.
        while let Some(frame) = Frame::read(&mut stream).await {
            let _ = stream.write_all(&Frame::server(frame.first, frame.payload).bytes()).await;
        }
    })
    .await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut client = Http2Client::connect(&proxy).await;
    let mut connect = extended("websocket", "/raw");
    connect.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("soap, chat"));
    connect.headers_mut().insert("sec-websocket-extensions", HeaderValue::from_static("permessage-deflate"));
    let mut websocket = client.websocket_by(connect).await;
    assert_eq!(websocket.headers["sec-websocket-protocol"], "chat");
    assert_eq!(websocket.headers["sec-websocket-extensions"], "permessage-deflate; server_no_context_takeover");
    assert_eq!(websocket.headers["set-cookie"], "a=1");
    let compressed = FIN | pulsegate_test_kit::frame::RSV1 | BINARY;
    websocket.send_frame(&Frame::client(compressed, "anything")).await;
    assert_eq!(websocket.message().await, Some(Frame::server(compressed, "anything")));
    proxy.finish().await;
}

#[tokio::test]
async fn an_answer_that_is_no_accept_is_no_session() {
    for (answer, status, body) in [
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 6\r\nX-App: yes\r\n\r\nlog in", 401, Some("log in")),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            502,
            None,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 502, None),
    ] {
        let fake = FakeApp::answering(answer).await;
        let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
        let mut client = Http2Client::connect(&proxy).await;
        let got = client.ask_on(extended("websocket", "/raw")).await;
        assert_eq!(got.status, status, "{got:?}");
        if let Some(body) = body {
            assert_eq!((&*got.body, got.header("x-app")), (body, Some("yes")));
        }
        let line = proxy.line("a ws.reject", |line| line.json["message"] == "ws.reject").await.json;
        assert_eq!(line["network.protocol.version"], "2", "{line}");
        client.websocket("/echo").await.echoes("the connection lives").await;
        proxy.finish().await;
    }
}

#[tokio::test]
async fn own_pings_are_swallowed_and_the_apps_pass() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(QUICK)).await;
    let mut client = Http2Client::connect(&proxy).await;
    let mut websocket = client.websocket("/raw").await;
    let (_, mut app) = wait_for("the session", sessions.recv()).await.expect("the fake runs");
    let ping = websocket.frame().await.expect("the stream lives").expect("a probe");
    assert_eq!((ping.first, ping.payload.len(), ping.mask), (FIN | PING, 8, None));
    websocket.send_frame(&Frame::client(FIN | PONG, ping.payload)).await;
    app.write_all(&Frame::server(FIN | PING, "app").bytes()).await.expect("open");
    loop {
        let ping = websocket.frame().await.expect("the stream lives").expect("a ping");
        websocket.send_frame(&Frame::client(FIN | PONG, ping.payload.clone())).await;
        if ping.payload == b"app" {
            break;
        }
    }
    assert_eq!(wait_for("the app's pong", Frame::read(&mut app)).await, Some(Frame::client(FIN | PONG, "app")));
    proxy.finish().await;
}

#[tokio::test]
async fn a_silent_stream_is_torn_down_and_its_neighbour_is_not() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(QUICK)).await;
    let mut client = Http2Client::connect(&proxy).await;
    let mut silent = client.websocket("/raw").await;
    let mut neighbour = client.websocket("/echo").await;
    let (_, mut app) = wait_for("the session", sessions.recv()).await.expect("the fake runs");
    // The neighbour answers its pings all the while, and the HTTP/2 PINGs are answered by the client's library.
    let killed = wait_for("the app hears of it", async {
        loop {
            tokio::select! {
                frame = Frame::read(&mut app) => break frame,
                frame = neighbour.frame() => {
                    let frame = frame.expect("the neighbour lives").expect("the neighbour lives");
                    neighbour.send_frame(&Frame::client(FIN | PONG, frame.payload)).await;
                }
            }
        }
    })
    .await;
    assert_eq!(killed.and_then(|frame| frame.close()), Some((4408, "heartbeat timeout".into())));
    let close = loop {
        let frame = silent.frame().await.expect("a Close comes first").expect("a Close comes first");
        if frame.opcode() != PING {
            break frame;
        }
    };
    assert_eq!(close.close(), Some((1012, "heartbeat timeout".into())));
    neighbour.echoes("still here").await;
    let line = proxy.ws_close(|_| true).await.json;
    assert_eq!((&line["close.reason"], &line["missed"]), (&"heartbeat_timeout".into(), &1.into()), "{line}");
    proxy.finish().await;
}

#[tokio::test]
async fn a_close_passes_with_its_code_and_each_side_ends_its_stream() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut client = Http2Client::connect(&proxy).await;
    for by_client in [true, false] {
        let mut websocket = client.websocket("/raw").await;
        let (_, mut app) = wait_for("the session", sessions.recv()).await.expect("the fake runs");
        let payload = b"\x0f\xa1bye";
        if by_client {
            websocket.send_frame(&Frame::client(FIN | CLOSE, payload)).await;
            assert_eq!(wait_for("the Close", Frame::read(&mut app)).await, Some(Frame::client(FIN | CLOSE, payload)));
            app.write_all(&Frame::server(FIN | CLOSE, payload).bytes()).await.expect("open");
        } else {
            app.write_all(&Frame::server(FIN | CLOSE, payload).bytes()).await.expect("open");
        }
        assert_eq!(websocket.frame().await.expect("open"), Some(Frame::server(FIN | CLOSE, payload)));
        if !by_client {
            websocket.send_frame(&Frame::client(FIN | CLOSE, payload)).await;
            assert_eq!(wait_for("the Close", Frame::read(&mut app)).await, Some(Frame::client(FIN | CLOSE, payload)));
        }
        assert_eq!(websocket.frame().await.expect("END_STREAM, no reset"), None);
        websocket.end();
        drop(app);
    }
    for line in proxy.ws_closes(2).await {
        assert_eq!((&line["close.code"], &line["close.reason"]), (&4001.into(), &"normal".into()), "{line}");
    }
    client.ping().await;
    proxy.finish().await;
}

#[tokio::test]
async fn s43_an_upstream_reset_is_rst_stream_cancel_and_a_fin_is_end_stream() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut client = Http2Client::connect(&proxy).await;
    let mut neighbour = client.websocket("/echo").await;
    for reset in [true, false] {
        let mut websocket = client.websocket("/raw").await;
        let (_, app) = wait_for("the session", sessions.recv()).await.expect("the fake runs");
        if reset {
            app.set_zero_linger().expect("a TCP socket");
        }
        drop(app);
        let close = websocket.frame().await.expect("a Close comes first").expect("a Close comes first");
        assert_eq!(close.close(), Some((1012, "upstream lost".into())));
        websocket.send_frame(&Frame::client(FIN | CLOSE, b"\x03\xf4")).await;
        let end = websocket.frame().await;
        if reset {
            let error = end.expect_err("a reset");
            assert!(error.is_remote(), "{error}");
            assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
        } else {
            assert_eq!(end.expect("END_STREAM"), None);
        }
        neighbour.echoes("untouched").await;
    }
    proxy.finish().await;
}

#[tokio::test]
async fn a_clients_end_stream_and_its_reset_end_the_upstream_leg() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut client = Http2Client::connect(&proxy).await;
    for reset in [false, true] {
        let mut websocket = client.websocket("/raw").await;
        let (_, mut app) = wait_for("the session", sessions.recv()).await.expect("the fake runs");
        websocket.send_frame(&Frame::client(FIN | TEXT, "last words")).await;
        if reset {
            client.ping().await;
            websocket.sender.send_reset(h2::Reason::CANCEL);
        } else {
            websocket.end();
        }
        let last = wait_for("the last words", Frame::read(&mut app)).await;
        assert_eq!(last, Some(Frame::client(FIN | TEXT, "last words")));
        let mut rest = Vec::new();
        wait_for("the end", app.read_to_end(&mut rest)).await.expect("FIN");
        assert!(rest.is_empty(), "{rest:?}");
        if !reset {
            // The app may still speak: a half-close is carried as such.
            app.write_all(&Frame::server(FIN | TEXT, "and mine").bytes()).await.expect("open");
            drop(app);
            let mine = websocket.frame().await.expect("open");
            assert_eq!(mine, Some(Frame::server(FIN | TEXT, "and mine")));
        }
    }
    proxy.ws_closes(2).await;
    client.ping().await;
    proxy.finish().await;
}

#[tokio::test]
async fn a_message_of_many_windows_comes_back_whole() {
    let fake = FakeApp::answering("unused").await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut client = Http2Client::connect(&proxy).await;
    let mut websocket = client.websocket("/echo").await;
    let payload: Vec<u8> = (0..8_u32 << 20).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    websocket.send_frame(&Frame::client(FIN | BINARY, payload.clone())).await;
    let echo = websocket.message().await.expect("the echo");
    assert!(echo == Frame::server(FIN | BINARY, payload), "{} other bytes came back", echo.payload.len());
    proxy.finish().await;
}
