//! What the library lets pass although the RFC does not, and the code of each error.

use std::time::Duration;

use pulsegate_test_kit::client::Neighbour;
use pulsegate_test_kit::fake_app::{FakeApp, hold};
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_until;
use pulsegate_test_kit::wait::within;

use crate::PULSEGATE;
use crate::h2::raw::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR, HEADERS, PING,
    PROTOCOL_ERROR, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE,
};

const PRIORITY: u8 = 0x2;
const UNKNOWN: u8 = 0xbb;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;

/// An app that answers what has no body, and waits for the end of one.
async fn app() -> FakeApp {
    FakeApp::start(|request, mut stream| async move {
        use tokio::io::AsyncWriteExt;
        if !request.head.starts_with("POST ") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
        }
        hold(stream).await;
    })
    .await
}

#[tokio::test]
async fn a_message_that_is_malformed_costs_its_stream_alone() {
    let app = app().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut client = Raw::connect(&proxy).await;
    client.send(HEADERS, END_HEADERS, 1, &raw::block(&raw::connect("/echo"))).await;
    client.until("a 200", |frame| frame.kind == HEADERS && frame.stream == 1).await;
    let replaced = |name: &'static str, value: &'static str| {
        raw::get("/").map(|(field, known)| if field == name { (name, value) } else { (field, known) })
    };
    let with = |value: &'static str| [&raw::get("/")[..], &[("x-field", value)]].concat();
    let mut stream = 3;
    for fields in [
        // RFC 9113 §8.2.1
        with(" value"),
        with("value "),
        with("\tvalue"),
        with("value\t"),
        // §8.3.1
        replaced(":path", "?x").to_vec(),
        replaced(":path", "*").to_vec(),
        replaced(":path", "x").to_vec(),
        replaced(":path", "https://localhost/").to_vec(),
        replaced(":scheme", "").to_vec(),
    ] {
        client.send(HEADERS, END_HEADERS | END_STREAM, stream, &raw::block(&fields)).await;
        let end = client.until("an end", |frame| frame.stream == stream).await;
        assert_eq!((end.kind, end.code()), (RST_STREAM, Some(PROTOCOL_ERROR)), "{fields:?}");
        stream += 2;
    }
    // §8.1: trailers have no pseudo-header fields, however they are written.
    let post = raw::get("/upload").map(|(name, value)| (name, if name == ":method" { "POST" } else { value }));
    for trailers in [
        raw::block(&[("x-sum", "7"), (":path", "/other")]),
        raw::block(&[(":status", "200")]),
        b"\x84".to_vec(),
        raw::block(&[("x-sum", " 7")]),
    ] {
        client.send(HEADERS, END_HEADERS, stream, &raw::block(&post)).await;
        client.send(DATA, 0, stream, b"body").await;
        let (front, back) = trailers.split_at(trailers.len() / 2);
        client.send(HEADERS, END_STREAM, stream, front).await;
        client.send(CONTINUATION, END_HEADERS, stream, back).await;
        let ends = |frame: &raw::Frame| frame.stream == stream && frame.kind == RST_STREAM;
        let reset = client.until("a reset", ends).await;
        assert_eq!(reset.code(), Some(PROTOCOL_ERROR), "{trailers:?}");
        stream += 2;
    }
    client.send(DATA, 0, 1, b"\x81\x82\0\0\0\0hi").await;
    let echo = client.until("the neighbour's echo", |frame| frame.kind == DATA && frame.stream == 1).await;
    assert_eq!(echo.payload, b"\x81\x02hi");
    drop(client);
    proxy.finish().await;
}

#[tokio::test]
async fn an_error_of_the_connection_has_the_code_of_its_kind() {
    let app = app().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let neighbour = Neighbour::join(&proxy, "/echo").await;
    let window = [0, 4, 0x80, 0, 0, 0];
    let cases = [
        ("empty DATA on no stream", raw::frame(DATA, 0, 0, b""), PROTOCOL_ERROR, "protocol_error"),
        ("empty DATA on an idle stream", raw::frame(DATA, 0, 5, b""), PROTOCOL_ERROR, "protocol_error"),
        ("a reset of an idle stream", raw::frame(RST_STREAM, 0, 5, &[0; 4]), PROTOCOL_ERROR, "protocol_error"),
        ("a push", raw::frame(0x5, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]), PROTOCOL_ERROR, "protocol_error"),
        ("a short PING", raw::frame(PING, 0, 0, b"1234567"), FRAME_SIZE_ERROR, "frame_size"),
        ("half a setting", raw::frame(SETTINGS, 0, 0, &[0; 3]), FRAME_SIZE_ERROR, "frame_size"),
        ("a full acknowledgement", raw::frame(SETTINGS, ACK, 0, &[0; 6]), FRAME_SIZE_ERROR, "frame_size"),
        ("a window beyond all bounds", raw::frame(SETTINGS, 0, 0, &window), FLOW_CONTROL_ERROR, "flow_control"),
        ("an index of nothing", raw::frame(HEADERS, 5, 1, b"\xff\x49"), COMPRESSION_ERROR, "compression"),
        ("a block that is cut off", raw::frame(HEADERS, 5, 1, b"\x82\x04\x7f/"), COMPRESSION_ERROR, "compression"),
    ];
    for (what, offence, code, word) in cases {
        let mut client = Raw::connect(&proxy).await;
        client.write(&offence).await;
        assert_eq!(client.goaway().await, code, "{what}");
        proxy.line(what, |line| line.json["message"] == "http2.goaway" && line.json["reason"] == word).await;
    }
    for first in [raw::frame(PING, 0, 0, b"12345678"), raw::frame(HEADERS, 5, 1, &raw::block(&raw::get("/")))] {
        let mut client = Raw::connect_with(&proxy, &first).await;
        assert_eq!(client.goaway().await, PROTOCOL_ERROR, "RFC 9113 §3.4: it begins with SETTINGS");
    }
    neighbour.echoes().await;
    wait_until("each is logged once", || proxy.logged("http2.goaway").len(), |count| *count == 12).await;
    proxy.finish().await;
}

#[tokio::test]
async fn floods_of_frames_are_cut_off() {
    let app = app().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let neighbour = Neighbour::join(&proxy, "/echo").await;
    for (number, (what, frame)) in [
        ("PING", raw::frame(PING, 0, 0, b"12345678")),
        ("SETTINGS", raw::frame(SETTINGS, 0, 0, b"")),
        ("PRIORITY", raw::frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])),
        ("WINDOW_UPDATE", raw::frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
        ("resets", raw::frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])),
        ("unknown frames", raw::frame(UNKNOWN, 0, 0, b"")),
        ("requests that are taken back", {
            // Each stream is new to the proxy, and the first flood ends before the numbers do.
            let block = raw::block(&raw::get("/"));
            let pair = |number: u32| {
                let open = raw::frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 3, &block);
                [open, raw::frame(RST_STREAM, 0, 2 * number + 3, &[0, 0, 0, 8])].concat()
            };
            (0..20_000).flat_map(pair).collect()
        }),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = Raw::connect(&proxy).await;
        client.send(HEADERS, END_HEADERS, 1, &raw::block(&raw::connect("/echo"))).await;
        client.until("a 200", |frame| frame.kind == HEADERS && frame.stream == 1).await;
        let flood = if frame.len() > 1000 { frame } else { frame.repeat(20_000) };
        // Written while the answers are read: neither side is to wait for the other.
        let code = within(Duration::from_secs(30), what, client.floods(&flood)).await;
        assert_eq!(code, Some(ENHANCE_YOUR_CALM), "{what}");
        let lines = || proxy.logged("http2.goaway").len();
        wait_until("a line", lines, |lines| *lines == number + 1).await;
        assert_eq!(proxy.logged("http2.goaway")[number]["reason"], "flood", "{what}");
        neighbour.echoes().await;
    }
    proxy.finish().await;
}

#[tokio::test]
async fn a_client_that_widens_its_windows_for_every_piece_downloads() {
    let app = FakeApp::start(|_, mut stream| async move {
        use tokio::io::AsyncWriteExt;
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 64000000\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(head.as_bytes()).await;
        for _ in 0..64 {
            let _ = stream.write_all(&vec![7; 1_000_000]).await;
        }
    })
    .await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut client = Raw::connect(&proxy).await;
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &raw::block(&raw::get("/"))).await;
    let mut read = 0;
    while read < 64_000_000 {
        let frame = client.until("data", |frame| frame.kind == DATA).await;
        read += frame.payload.len();
        let mut updates = Vec::new();
        for piece in frame.payload.chunks(4096) {
            let len = u32::try_from(piece.len()).expect("short").to_be_bytes();
            updates.extend(raw::frame(WINDOW_UPDATE, 0, 1, &len));
            updates.extend(raw::frame(WINDOW_UPDATE, 0, 0, &len));
        }
        client.write(&updates).await;
    }
    assert!(proxy.logged("http2.goaway").is_empty(), "{}", proxy.transcript());
    drop(client);
    proxy.finish().await;
}
