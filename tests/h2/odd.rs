//! What is legal but odd, or the fault of one stream: nothing but that stream pays for it.

use std::time::Duration;

use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::proxy::{Config, Proxy};
use tokio::time::{Instant, sleep_until};

use crate::PULSEGATE;
use crate::h2::raw::{
    self, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PROTOCOL_ERROR, RST_STREAM, Raw, WINDOW_UPDATE,
};

/// A connection with a WebSocket to the echo on each of `streams`.
async fn echoes_on(proxy: &Proxy, streams: &[u32]) -> Raw {
    let mut client = Raw::connect(proxy).await;
    for stream in streams {
        client.send(HEADERS, END_HEADERS, *stream, &raw::block(&raw::connect("/echo"))).await;
        client.until("a 200", |frame| frame.kind == HEADERS && frame.stream == *stream).await;
    }
    client
}

/// Sends a message on `stream` and expects it back.
async fn echoes(client: &mut Raw, stream: u32) {
    client.send(DATA, 0, stream, b"\x81\x82\0\0\0\0hi").await;
    let echo = client.until("an echo", |frame| frame.kind == DATA && frame.stream == stream).await;
    assert_eq!(echo.payload, b"\x81\x02hi");
}

#[tokio::test]
async fn s76_frames_of_padding_alone_end_nothing_and_use_up_no_window() {
    const PADDING: usize = 256;
    let fake = FakeApp::answering("unused").await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut client = echoes_on(&proxy, &[1, 3]).await;
    let mut frame = vec![0; PADDING];
    frame[0] = 255;
    let frame = raw::frame(DATA, PADDED, 1, &frame);
    // More than the stream's window in all.
    for frames in [300, 300] {
        client.write(&frame.repeat(frames)).await;
        let (mut of_stream, mut of_connection) = (0, 0);
        while of_stream < frames * PADDING || of_connection < frames * PADDING {
            let update = client.until("window", |frame| frame.kind == WINDOW_UPDATE).await;
            let more = u32::from_be_bytes(update.payload[..].try_into().expect("four bytes")) as usize;
            let of = if update.stream == 1 { &mut of_stream } else { &mut of_connection };
            *of += more;
        }
        assert_eq!((of_stream, of_connection), (frames * PADDING, frames * PADDING));
    }
    for stream in [1, 3] {
        echoes(&mut client, stream).await;
    }
    proxy.finish().await;
}

#[tokio::test]
async fn s76_a_slow_header_block_that_progresses_is_waited_for() {
    let fake = FakeApp::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with("[limits]\nheader_read = \"1s\"\n")).await;
    let mut client = echoes_on(&proxy, &[1]).await;
    let long = "x".repeat(120);
    let fields = (0..16).map(|number| (["x-a", "x-b"][number % 2], &*long));
    let block = raw::block(&raw::get("/").into_iter().chain(fields).collect::<Vec<_>>());
    let frame = raw::frame(HEADERS, END_HEADERS | END_STREAM, 3, &block);
    let begun = Instant::now();
    // Two seconds at 1,000 bytes a second.
    for (number, piece) in (0..).zip(frame.chunks(100)) {
        sleep_until(begun + Duration::from_millis(100) * number).await;
        client.write(piece).await;
    }
    let answer = client.until("an answer", |frame| frame.kind == HEADERS && frame.stream == 3).await;
    assert!(begun.elapsed() > Duration::from_secs(1), "{answer:?} after {:?}", begun.elapsed());
    echoes(&mut client, 1).await;
    proxy.finish().await;
}

#[tokio::test]
async fn s76_a_window_update_of_zero_costs_its_stream_alone() {
    let fake = FakeApp::answering("unused").await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut client = echoes_on(&proxy, &[1, 3]).await;
    client.send(WINDOW_UPDATE, 0, 3, &[0; 4]).await;
    let reset = client.until("a reset", |frame| frame.kind == RST_STREAM).await;
    assert_eq!((reset.stream, reset.code()), (3, Some(PROTOCOL_ERROR)));
    let line = proxy.ws_close(|_| true).await.json;
    assert_eq!(line["close.initiator"], "client", "{line}");
    echoes(&mut client, 1).await;
    assert_eq!(proxy.logged("ws.close").len(), 1);
    proxy.finish().await;
}
