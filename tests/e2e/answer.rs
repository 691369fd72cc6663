//! The client sends the heartbeats and the proxy answers them; the app receives none.

use std::time::{Duration, Instant};

use pulsegate_test_kit::frame::{BINARY, CONTINUATION, FIN, Frame, PING, PONG, TEXT};
use pulsegate_test_kit::node::{NodeApp, NodeClient};
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_until;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::PULSEGATE;
use crate::e2e::spoken::Spoken;

const ANSWERS: &str = "mode = \"answer\"\nwindow = \"2s\"\nprofile = { send = \"pong\", expect = \"ping\" }\n";
/// The window of [`ANSWERS`].
const WINDOW: Duration = Duration::from_secs(2);
/// The delay that a busy machine may add to a bound.
const SLACK: Duration = Duration::from_secs(2);
/// The time by which a timer may seem early from outside.
const GRAIN: Duration = Duration::from_millis(50);

#[tokio::test]
async fn s50_a_beat_is_answered_and_the_app_receives_none() {
    let mut session = Spoken::open(&ANSWERS.replace("2s", "30s")).await;
    for _ in 0..10 {
        session.client_says("ping").await;
        session.client_hears_text("pong").await;
    }
    for frame in [Frame::client(TEXT, "pi"), Frame::client(FIN | CONTINUATION, "ng")] {
        session.client_sends(&frame).await;
    }
    session.client_hears_text("pong").await;
    session.app_hears_nothing_but_a_mark().await;
    session.lives().await;
}

#[tokio::test]
async fn only_the_beat_itself_is_taken_out() {
    let mut session = Spoken::open(&ANSWERS.replace("2s", "30s")).await;
    let others = [
        Frame::client(FIN | BINARY, "ping"),
        Frame::client(FIN | TEXT, "ping "),
        Frame::client(FIN | TEXT, "PING"),
        Frame::client(FIN | TEXT, "pong"),
        Frame::client(FIN | TEXT, ""),
    ];
    for frame in &others {
        session.client_sends(frame).await;
        session.app_hears(frame).await;
    }
    // The app's messages are no heartbeats, even where one equals the text that the proxy looks for.
    session.app_sends(&Frame::server(FIN | TEXT, "ping")).await;
    session.client_hears_text("ping").await;
    session.lives().await;
}

#[tokio::test]
async fn an_answer_waits_for_the_end_of_a_fragmented_message() {
    let mut session = Spoken::open(&ANSWERS.replace("2s", "30s")).await;
    session.app_sends(&Frame::server(TEXT, "one ")).await;
    assert_eq!(session.client_hears().await, Frame::server(TEXT, "one "));
    session.client_says("ping").await;
    // The mark follows the heartbeat, so that the proxy has read both.
    session.app_hears_nothing_but_a_mark().await;
    session.app_sends(&Frame::server(FIN | CONTINUATION, "two")).await;
    assert_eq!(session.client_hears().await, Frame::server(FIN | CONTINUATION, "two"));
    session.client_hears_text("pong").await;
    session.lives().await;
}

#[tokio::test]
async fn s51_silence_for_a_window_ends_both_legs() {
    let mut session = Spoken::open(ANSWERS).await;
    session.client_says("ping").await;
    let last_word = Instant::now();
    session.client_hears_text("pong").await;
    let end = session.ends(1012).await;
    let took = end.at - last_word;
    assert!(took + GRAIN > WINDOW, "torn down after {took:?} already");
    assert!(took < WINDOW + SLACK, "torn down after {took:?}");
    assert_eq!(end.line["close.reason"], "heartbeat_timeout", "{}", end.line);
    assert_eq!(end.line["upstream.close_code"], 4408, "{}", end.line);
    assert_eq!(end.app_heard, []);
}

#[tokio::test]
async fn s51_control_frames_do_not_break_the_silence() {
    let session = Spoken::open(ANSWERS).await;
    let opened = Instant::now();
    let controls = [PONG, PING].map(|opcode| Frame::client(FIN | opcode, "alive"));
    let end = session.ends_amid(&controls, 1012).await;
    let took = end.at - opened;
    assert!(took < WINDOW + SLACK, "torn down after {took:?}");
    assert_eq!(end.line["close.reason"], "heartbeat_timeout", "{}", end.line);
    assert!(end.app_heard.iter().all(|frame| frame.opcode() == PONG), "{:?}", end.app_heard);
}

#[tokio::test]
async fn a_beat_in_every_window_is_enough() {
    let app = NodeApp::bare().await;
    let answers = format!("[heartbeat]\n{}", ANSWERS.replace("2s", "3s"));
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(&answers)).await;
    let mut client = NodeClient::connect(&proxy, "/ws?name=beating", &[]).await;
    let opened = Instant::now();
    let mut beats = 0;
    // For three windows, one heartbeat after another; each must be answered before the next.
    while opened.elapsed() < Duration::from_secs(9) {
        client.write_line(&json!({ "send": "ping" })).await;
        beats += 1;
        wait_until("one more answer", || client.events("message").len(), |answers| *answers >= beats).await;
        tokio::time::sleep(Duration::from_millis(750)).await;
    }
    let answers = client.events("message");
    assert!(answers.iter().all(|answer| answer["data"] == "pong"), "{}", client.transcript());
    assert_eq!(answers.len(), beats, "{}", client.transcript());
    client.write_line(&json!({ "close": [1000, "done"] })).await;
    let close = app.close_of("beating").await.json;
    assert_eq!((&close["code"], &close["payload"]), (&1000.into(), &0.into()), "{close}");
    assert_eq!(proxy.logged("ws.open")[0]["heartbeat.mode"], "answer", "{}", proxy.transcript());
    proxy.finish().await;
}

#[tokio::test]
async fn twenty_beats_at_once_are_answered_and_a_flood_gets_1008() {
    let mut session = Spoken::open(&ANSWERS.replace("2s", "30s")).await;
    let beat = Frame::client(FIN | TEXT, "ping").bytes();
    session.client.write_all(&beat.repeat(20)).await.expect("the session lives");
    session.client.flush().await.expect("the session lives");
    for _ in 0..20 {
        session.client_hears_text("pong").await;
    }
    session.app_hears_nothing_but_a_mark().await;

    session.client.write_all(&beat.repeat(200)).await.expect("the session lives");
    session.client.flush().await.expect("the session lives");
    let end = session.ends(1008).await;
    assert_eq!(end.line["close.reason"], "rate", "{}", end.line);
    assert_eq!(end.app_heard, [], "the app received a part of the flood");
    assert!(end.client_heard.len() <= 40, "{} answers to a flood", end.client_heard.len());
    let pong = Frame::server(FIN | TEXT, "pong");
    assert!(end.client_heard.iter().all(|frame| *frame == pong), "{:?}", end.client_heard);
}
