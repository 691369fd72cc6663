//! The proxy is stopped in the middle of a header block; an app is stopped behind its last bytes.

use std::time::Duration;

use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::frame::{FIN, Frame, TEXT};
use pulsegate_test_kit::http2::Http2Client;
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::proxy::{Config, Proxy};
use tokio::time::sleep;

use crate::PULSEGATE;
use crate::h2::raw::{self, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Raw};

#[tokio::test]
async fn s77_a_header_block_that_was_under_way_costs_no_socket_of_its_connection() {
    let fake = FakeApp::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with("[limits]\nheader_read = \"2s\"\n")).await;
    let mut client = Raw::connect(&proxy).await;
    client.send(HEADERS, END_HEADERS, 1, &raw::block(&raw::connect("/echo"))).await;
    client.until("the WebSocket", |frame| frame.kind == HEADERS && frame.stream == 1).await;
    let block = raw::block(&raw::get("/"));
    let (first, rest) = block.split_at(block.len() / 2);
    let (second, third) = rest.split_at(rest.len() / 2);
    client.send(HEADERS, END_STREAM, 3, first).await;
    sleep(Duration::from_millis(400)).await;
    proxy.stop();
    client.send(CONTINUATION, 0, 3, second).await;
    sleep(Duration::from_secs(3)).await;
    proxy.resume();
    // The block has its time anew, not only what arrived meanwhile.
    sleep(Duration::from_millis(300)).await;
    client.send(CONTINUATION, END_HEADERS, 3, third).await;
    let answer = client.until("an answer", |frame| frame.kind == GOAWAY || frame.stream == 3).await;
    assert_eq!(answer.kind, HEADERS, "{answer:?}; the log:\n{}", proxy.transcript());
    client.send(DATA, 0, 1, &Frame::client(FIN | TEXT, "still here").bytes()).await;
    let echo = Frame::server(FIN | TEXT, "still here").bytes();
    client.until("the echo", |frame| frame.kind == DATA && frame.stream == 1 && frame.payload == echo).await;

    // A block that stays unfinished is given up all the same.
    client.send(HEADERS, END_STREAM, 5, first).await;
    sleep(Duration::from_millis(400)).await;
    proxy.stop();
    sleep(Duration::from_secs(3)).await;
    proxy.resume();
    client.until("a GOAWAY", |frame| frame.kind == GOAWAY).await;
    let line = proxy.line("a line", |line| line.json["message"] == "http2.goaway").await.json;
    assert_eq!(line["reason"], "header_timeout", "{line}");
    drop(client);
    proxy.finish().await;
}

#[tokio::test]
async fn s57_an_app_that_stops_is_given_up_where_nothing_but_its_last_bytes_woke_the_session() {
    let app = NodeApp::bare().await;
    let watch = "interval = \"300ms\"\ntimeout = \"400ms\"\ngive_up = \"1500ms\"";
    let config = Config::to(PULSEGATE, &app.url).upstream(watch).with("[heartbeat]\nmode = \"off\"\n");
    let proxy = Proxy::start(config).await;
    let mut client = Http2Client::connect(&proxy).await;
    let mut websocket = client.websocket("/ws").await;
    // The stream holds the echo when its session is last polled, and no heartbeat polls it again.
    websocket.echoes("the last bytes").await;
    app.stop();
    let close = websocket.message().await.expect("a Close");
    assert_eq!(close.close(), Some((1012, "upstream unresponsive".into())), "{}", proxy.transcript());
    app.resume();
    drop((websocket, client));
    proxy.finish().await;
}
