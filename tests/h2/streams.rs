//! How many streams of each kind a connection may have, and what comes of those that its client gives up.

use pulsegate_test_kit::fake_app::{FakeApp, hold};
use pulsegate_test_kit::proxy::{Config, Proxy};

use crate::PULSEGATE;
use crate::h2::raw::{
    self, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM,
    RST_STREAM, Raw,
};

/// Codes and settings of the protocol that only these tests use.
const CANCEL: u32 = 8;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// An app that answers every upgrade, and `/slow` never.
async fn app() -> FakeApp {
    FakeApp::start(|request, mut stream| async move {
        use tokio::io::AsyncWriteExt;
        if request.header("upgrade").is_some() {
            stream.write_all(request.accept().as_bytes()).await.expect("answer the upgrade");
        } else if request.path() != "/slow" {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
            return stream.write_all(answer).await.expect("answer");
        }
        hold(stream).await;
    })
    .await
}

async fn proxy(app: &FakeApp, sections: &str) -> Proxy {
    Proxy::start(Config::to(PULSEGATE, &app.url).with(sections)).await
}

impl Raw {
    async fn open_websocket(&mut self, stream: u32, path: &'static str) {
        self.send(HEADERS, END_HEADERS, stream, &raw::block(&raw::connect(path))).await;
        self.answered(stream).await;
    }

    async fn get(&mut self, stream: u32, path: &'static str) {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &raw::block(&raw::get(path))).await;
    }

    async fn answered(&mut self, stream: u32) {
        let frame = self.until("an answer", |frame| frame.stream == stream && frame.kind != raw::WINDOW_UPDATE).await;
        assert_eq!(frame.kind, HEADERS, "stream {stream}: {frame:?}");
    }

    /// Waits for the answers of all these streams, in any order.
    async fn all_answered(&mut self, mut streams: Vec<u32>) {
        while !streams.is_empty() {
            let frame = self.until("an answer", |frame| matches!(frame.kind, HEADERS | RST_STREAM)).await;
            assert_eq!(frame.kind, HEADERS, "{frame:?}");
            streams.retain(|stream| *stream != frame.stream);
        }
    }

    async fn refused(&mut self, stream: u32) {
        let reset = self.until("a reset", |frame| frame.kind == RST_STREAM).await;
        assert_eq!((reset.stream, reset.code()), (stream, Some(REFUSED_STREAM)));
    }

    /// Opens a stream that reaches the app, and cancels it.
    async fn cancel(&mut self, stream: u32) {
        self.get(stream, "/slow").await;
        // Once the PING is answered the request is on its way.
        self.ping().await;
        self.send(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()).await;
    }

    async fn echoes(&mut self, stream: u32) {
        self.send(DATA, 0, stream, b"\x81\x82\0\0\0\0hi").await;
        let echo = self.until("an echo", |frame| frame.kind == DATA && frame.stream == stream).await;
        assert_eq!(echo.payload, b"\x81\x02hi");
    }
}

#[tokio::test]
async fn a_page_loads_beside_as_many_websockets_as_may_be_open() {
    let app = app().await;
    let proxy = proxy(&app, "").await;
    let (mut client, settings) = Raw::connect_and_tell(&proxy).await;
    assert_eq!(raw::setting(&settings, MAX_CONCURRENT_STREAMS), Some(200), "the sum of both kinds");
    for number in 0..100 {
        client.open_websocket(2 * number + 1, "/raw").await;
    }
    client.send(HEADERS, END_HEADERS, 201, &raw::block(&raw::connect("/raw"))).await;
    client.refused(201).await;
    for number in 0..50 {
        client.get(2 * number + 301, "/").await;
    }
    client.all_answered((0..50).map(|number| 2 * number + 301).collect()).await;
    client.get(501, "/").await;
    client.answered(501).await;
    drop(client);
    proxy.finish().await;
}

#[tokio::test]
async fn each_kind_of_stream_has_a_limit_of_its_own() {
    let app = app().await;
    let proxy = proxy(&app, "[limits]\nstreams = 2\nwebsocket_streams = 1\n").await;
    let (mut client, settings) = Raw::connect_and_tell(&proxy).await;
    assert_eq!(raw::setting(&settings, MAX_CONCURRENT_STREAMS), Some(3));
    client.get(1, "/slow").await;
    client.get(3, "/slow").await;
    client.ping().await;
    client.get(5, "/slow").await;
    client.refused(5).await;
    client.open_websocket(7, "/echo").await;
    client.send(HEADERS, END_HEADERS, 9, &raw::block(&raw::connect("/raw"))).await;
    client.refused(9).await;
    client.send(RST_STREAM, 0, 7, &CANCEL.to_be_bytes()).await;
    // The room is there again once the session has ended.
    proxy.ws_close(|_| true).await;
    client.open_websocket(11, "/echo").await;
    client.echoes(11).await;
    drop(client);
    proxy.finish().await;
}

#[tokio::test]
async fn http2_can_do_without_websockets_and_be_off() {
    let app = app().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).listen("http2 = \"no-websockets\"")).await;
    let (mut client, settings) = Raw::connect_and_tell(&proxy).await;
    assert_eq!(raw::setting(&settings, MAX_CONCURRENT_STREAMS), Some(100));
    assert_eq!(raw::setting(&settings, ENABLE_CONNECT_PROTOCOL), None);
    client.send(HEADERS, END_HEADERS, 1, &raw::block(&raw::connect("/echo"))).await;
    let reset = client.until("a reset", |frame| frame.kind == RST_STREAM).await;
    assert_eq!((reset.stream, reset.code()), (1, Some(PROTOCOL_ERROR)), "RFC 8441 §4: it was not offered");
    client.get(3, "/").await;
    client.answered(3).await;
    pulsegate_test_kit::client::Neighbour::join(&proxy, "/echo").await.echoes().await;
    drop(client);
    proxy.finish().await;

    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).listen("http2 = \"off\"")).await;
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a valid name");
    let connector = tokio_rustls::TlsConnector::from(proxy.pki.client_of("h2"));
    let refused = connector.connect(name, proxy.tcp().await).await.expect_err("nothing else was offered");
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    pulsegate_test_kit::client::Neighbour::join(&proxy, "/echo").await.echoes().await;
    proxy.finish().await;
}

#[tokio::test]
async fn cancelled_requests_of_a_person_cost_no_session() {
    let app = app().await;
    let proxy = proxy(&app, "").await;
    let mut client = Raw::connect(&proxy).await;
    client.open_websocket(1, "/echo").await;
    // A map that is dragged about: one by one, and a screenful at once.
    for number in 1..=200 {
        client.cancel(2 * number + 1).await;
    }
    let block = raw::block(&raw::get("/slow"));
    let screenful = |first: u32| -> Vec<u8> {
        let pair = |number: u32| {
            let stream = first + 2 * number;
            let reset = raw::frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
            [raw::frame(HEADERS, END_HEADERS | END_STREAM, stream, &block), reset].concat()
        };
        (0..150).flat_map(pair).collect()
    };
    for turn in 0..5 {
        client.write(&screenful(1001 + turn * 300)).await;
        client.echoes(1).await;
    }
    assert!(proxy.logged("http2.goaway").is_empty() && proxy.logged("ws.close").is_empty(), "{}", proxy.transcript());
    drop(client);
    proxy.finish().await;
}

#[tokio::test]
async fn abandoned_requests_end_a_connection_without_websockets() {
    let app = app().await;
    let proxy = proxy(&app, "[limits]\nresets = 50\n").await;
    let mut client = Raw::connect(&proxy).await;
    for number in 0..=50 {
        client.cancel(2 * number + 1).await;
    }
    assert_eq!(client.goaway().await, ENHANCE_YOUR_CALM);
    let line = proxy.line("a line", |line| line.json["message"] == "http2.goaway").await.json;
    assert_eq!((&line["reason"], &line["code"]), (&"resets".into(), &11.into()), "{line}");
    proxy.finish().await;
}

#[tokio::test]
async fn abandoned_requests_leave_the_websockets_of_their_connection_alone() {
    let app = app().await;
    let proxy = proxy(&app, "[limits]\nresets = 50\n").await;
    let mut client = Raw::connect(&proxy).await;
    client.open_websocket(1, "/echo").await;
    client.get(3, "/slow").await;
    for number in 0..=50 {
        client.cancel(2 * number + 5).await;
    }
    let goaway = client.until("a GOAWAY", |frame| frame.kind == GOAWAY).await;
    assert_eq!(goaway.code(), Some(NO_ERROR));
    let line = proxy.line("a line", |line| line.json["message"] == "http2.goaway").await.json;
    assert_eq!((&line["reason"], &line["code"]), (&"resets".into(), &0.into()), "{line}");
    client.echoes(1).await;
    // A client that goes on all the same is refused, and may try elsewhere.
    client.get(1001, "/").await;
    let refused = |frame: &raw::Frame| frame.kind == RST_STREAM || frame.kind == HEADERS;
    let answer = tokio::time::timeout(std::time::Duration::from_secs(1), client.until("a reset", refused)).await;
    if let Ok(reset) = answer {
        assert_eq!((reset.kind, reset.stream, reset.code()), (RST_STREAM, 1001, Some(REFUSED_STREAM)));
    }
    client.echoes(1).await;
    assert!(proxy.logged("ws.close").is_empty(), "{}", proxy.transcript());
    drop(client);
    proxy.finish().await;
}

#[tokio::test]
async fn streams_that_are_lost_by_errors_count_for_a_while_and_not_for_ever() {
    let app = app().await;
    let proxy = proxy(&app, "[limits]\nresets = 50\n").await;
    let malformed = raw::block(&[(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "?x")]);
    let connection = raw::block(&[&raw::get("/")[..], &[("connection", "close")]].concat());
    for block in [malformed, connection] {
        let mut client = Raw::connect(&proxy).await;
        client.open_websocket(1, "/echo").await;
        for number in 1..=51 {
            client.send(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &block).await;
        }
        let goaway = client.until("a GOAWAY", |frame| frame.kind == GOAWAY).await;
        assert_eq!(goaway.code(), Some(NO_ERROR));
        client.echoes(1).await;
        // Ten times as many are no accident.
        for number in 52..=520 {
            client.send(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &block).await;
        }
        drop(client);
    }
    proxy.finish().await;
}
