//! Heartbeats that the client sends and the proxy answers.

use std::time::Duration;

use pulsegate::heartbeat::{Builtin, Policy, Role};
use pulsegate::session::{EndReason, Initiator};
use tokio::time::sleep;

use crate::rig::{BINARY, CONTINUATION, Frame, PING, Plan, Rig, TEXT};

const SECOND: Duration = Duration::from_secs(1);
const LAST: u8 = 0x80 | CONTINUATION;

fn plan() -> Plan {
    Plan { policy: Policy { mode: Builtin::ExpressText.mode(Role::Answer), ..Policy::default() }, ..Plan::default() }
}

fn text(text: &str) -> Frame {
    Frame::new(TEXT, text.as_bytes())
}

fn fragment(first: u8, payload: &[u8]) -> Frame {
    Frame { first, payload: payload.to_vec() }
}

fn masked(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(|frame| frame.encode(true)).collect()
}

#[tokio::test(start_paused = true)]
async fn s50_a_hidden_tab_that_beats_once_a_minute_is_answered_and_the_app_hears_nothing() {
    let mut rig = Rig::with(plan());
    for _ in 0..20 {
        sleep(60 * SECOND).await;
        rig.client.send(&text("ping")).await;
        assert_eq!(rig.client.exactly(6).await, b"\x81\x04pong");
    }
    rig.app.silent(60 * SECOND).await;
    rig.client.send(&text("end")).await;
    assert_eq!(rig.app.expect().await, text("end"));
}

#[tokio::test(start_paused = true)]
async fn s51_ninety_seconds_of_silence_end_both_legs() {
    let mut rig = Rig::with(plan());
    sleep(30 * SECOND).await;
    rig.client.send(&text("ping")).await;
    assert_eq!(rig.client.expect().await, text("pong"));
    let spoke = rig.elapsed();
    // Neither the app's messages nor a Pong of the client's network code are signs of life of the client.
    sleep(60 * SECOND).await;
    rig.app.send(&text("news")).await;
    assert_eq!(rig.client.expect().await, text("news"));
    rig.client.send(&Frame::new(PING, b"")).await;
    assert_eq!(rig.app.expect().await, Frame::new(PING, b""));
    assert_eq!(rig.app.expect().await, Frame::close(4408, "heartbeat timeout"));
    let silence = rig.elapsed() - spoke;
    assert!(silence >= 90 * SECOND && silence <= 91 * SECOND, "{silence:?}");
    assert_eq!(rig.client.expect().await, Frame::close(1012, "heartbeat timeout"), "no ping before it");
    assert_eq!(rig.client.frame().await, None);
    let ending = rig.ending().await;
    assert_eq!((ending.cause.initiator(), ending.cause.reason()), (Initiator::Proxy, EndReason::HeartbeatTimeout));
}

#[tokio::test(start_paused = true)]
async fn s12_twenty_beats_a_second_are_answered_and_more_end_the_session() {
    // The message over the limit arrives whole, or in fragments, of which the app must not see the last alone.
    let whole = vec![text("ping"); 21];
    let cut: Vec<_> = (0..21).flat_map(|_| [fragment(TEXT, b"pi"), fragment(LAST, b"ng")]).collect();
    for beats in [whole, cut] {
        let mut rig = Rig::with(plan());
        let (tolerated, flood) = beats.split_at(beats.len() / 21 * 20);
        rig.client.send_raw(&masked(tolerated)).await;
        for beat in 0..20 {
            assert_eq!(rig.client.expect().await, text("pong"), "answer {beat}");
        }
        rig.client.send_raw(&masked(flood)).await;
        assert_eq!(rig.client.expect().await, Frame::close(1008, "too many heartbeats"));
        assert_eq!(rig.app.expect().await, Frame::close(1008, "too many heartbeats"), "all that the app sees");
        assert_eq!(rig.app.frame().await, None);
        assert_eq!(rig.ending().await.cause.reason(), EndReason::Rate);
    }
}

#[tokio::test(start_paused = true)]
async fn s12_a_flood_behind_a_blocked_app_waits_with_the_client() {
    let mut rig = Rig::with(Plan { pipe: 4096, ..plan() });
    let upload = Frame::new(BINARY, &[9; 100_000]);
    let mut sent = upload.encode(true);
    sent.extend(masked(&vec![text("ping"); 100_000]));
    rig.client.send_raw_soon(sent);
    rig.client.silent(20 * SECOND).await;
    assert_eq!(rig.app.expect().await, upload);
    for _ in 0..20 {
        let frame = rig.client.expect().await;
        if frame != text("pong") {
            assert_eq!(frame, Frame::close(1008, "too many heartbeats"));
            break;
        }
    }
    assert_eq!(rig.app.expect().await, Frame::close(1008, "too many heartbeats"));
    assert_eq!(rig.ending().await.cause.reason(), EndReason::Rate);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_beats_and_never_reads_is_a_slow_reader() {
    let mut rig = Rig::with(Plan { pipe: 64, ..plan() });
    while rig.client.try_send(&masked(&[text("ping")])).await.is_ok() && rig.elapsed() < 120 * SECOND {
        sleep(SECOND / 15).await;
    }
    let ending = rig.ending().await;
    assert_eq!(ending.cause.reason(), EndReason::SlowReader);
    assert!(ending.duration <= 60 * SECOND, "{:?}", ending.duration);
}

#[tokio::test(start_paused = true)]
async fn s64_answers_to_a_client_that_does_not_read_wait_as_a_number_and_not_as_bytes() {
    let mut rig = Rig::with(Plan { pipe: 64, ..plan() });
    for _ in 0..30 {
        rig.client.send_raw(&masked(&vec![text("ping"); 15])).await;
        sleep(SECOND).await;
    }
    let held = rig.memory.to_client();
    assert!(held < 256, "450 answers, of which {held} bytes are held");
    let mut answers = 0;
    while let Ok(frame) = tokio::time::timeout(SECOND, rig.client.expect()).await {
        assert_eq!(frame, text("pong"));
        answers += 1;
    }
    assert_eq!(answers, 450, "one for each beat that the rate allows");
    rig.client.send(&text("ping")).await;
    assert_eq!(rig.client.expect().await, text("pong"), "it reads again");
}

#[tokio::test(start_paused = true)]
async fn a_beat_that_was_read_early_is_answered_too() {
    let early = masked(&[text("one"), text("ping"), text("ping")]);
    let (early, late) = early.split_at(early.len() - 3);
    let mut rig = Rig::with(Plan { client_early: early.to_vec(), ..plan() });
    assert_eq!(rig.client.expect().await, text("pong"));
    rig.client.silent(SECOND).await;
    rig.client.send_raw(late).await;
    assert_eq!(rig.client.expect().await, text("pong"));
    assert_eq!(rig.app.expect().await, text("one"));
    rig.app.silent(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_beat_between_other_messages_is_taken_out_and_their_order_stays() {
    let mut rig = Rig::with(plan());
    let sent = [text("one"), text("ping"), fragment(TEXT, b"pi"), fragment(LAST, b"n"), text("ping"), text("two")];
    rig.client.send_raw(&masked(&sent)).await;
    for at in [0, 2, 3, 5] {
        assert_eq!(rig.app.expect().await, sent[at]);
    }
    assert_eq!(rig.client.expect().await, text("pong"));
    assert_eq!(rig.client.expect().await, text("pong"));
    rig.client.silent(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn s64_answers_wait_for_the_end_of_a_message_of_the_apps_one_for_each_beat() {
    let mut rig = Rig::with(plan());
    rig.app.send(&fragment(TEXT, b"one")).await;
    assert_eq!(rig.client.expect().await, fragment(TEXT, b"one"));
    rig.client.send(&text("ping")).await;
    rig.client.silent(SECOND).await;
    rig.app.send(&fragment(CONTINUATION, b"two")).await;
    assert_eq!(rig.client.expect().await, fragment(CONTINUATION, b"two"));
    rig.client.silent(SECOND).await;
    rig.app.send(&fragment(LAST, b"")).await;
    assert_eq!(rig.client.expect().await, fragment(LAST, b""));
    assert_eq!(rig.client.expect().await, text("pong"));

    rig.app.send(&fragment(TEXT, b"one")).await;
    assert_eq!(rig.client.expect().await, fragment(TEXT, b"one"));
    for _ in 0..10 {
        rig.client.send_raw(&masked(&vec![text("ping"); 15])).await;
        sleep(2 * SECOND).await;
    }
    rig.app.send(&fragment(LAST, b"")).await;
    assert_eq!(rig.client.expect().await, fragment(LAST, b""));
    for answer in 0..150 {
        assert_eq!(rig.client.expect().await, text("pong"), "answer {answer}");
    }
    rig.client.silent(SECOND).await;
    rig.client.send(&text("end")).await;
    assert_eq!(rig.app.expect().await, text("end"), "none of the beats has passed");
}

#[tokio::test(start_paused = true)]
async fn the_app_may_say_the_same_words_itself() {
    let mut rig = Rig::with(plan());
    for said in ["ping", "pong"] {
        rig.app.send(&text(said)).await;
        assert_eq!(rig.client.expect().await, text(said));
    }
    rig.client.send(&text("pong")).await;
    assert_eq!(rig.app.expect().await, text("pong"), "in this mode that is a message like any other");
}

#[tokio::test(start_paused = true)]
async fn after_the_apps_close_no_beat_is_answered() {
    let mut rig = Rig::with(plan());
    rig.app.send(&Frame::close(4001, "x")).await;
    assert_eq!(rig.client.expect().await, Frame::close(4001, "x"));
    rig.client.send(&text("ping")).await;
    rig.client.silent(SECOND).await;
    rig.client.send(&Frame::close(4001, "x")).await;
    assert_eq!(rig.app.expect().await, Frame::close(4001, "x"));
    assert_eq!(rig.client.frame().await, None);
}

#[tokio::test(start_paused = true)]
async fn s64_a_burst_that_the_rate_allows_gets_one_answer_each() {
    let mut rig = Rig::with(plan());
    sleep(5 * SECOND).await;
    rig.client.send_raw(&masked(&vec![text("ping"); 30])).await;
    for answer in 0..30 {
        assert_eq!(rig.client.expect().await, text("pong"), "answer {answer}");
    }
    rig.client.silent(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn s79_beats_before_the_clients_close_are_answered_before_the_apps() {
    let mut rig = Rig::with(plan());
    let close = Frame::close(1000, "bye");
    rig.client.send_raw(&masked(&[text("ping"), text("x"), text("ping"), close.clone()])).await;
    assert_eq!(rig.app.expect().await, text("x"));
    assert_eq!(rig.app.expect().await, close);
    rig.app.send(&close).await;
    assert_eq!(rig.client.expect().await, text("pong"));
    assert_eq!(rig.client.expect().await, text("pong"));
    assert_eq!(rig.client.expect().await, close);
    assert_eq!(rig.client.frame().await, None);
}
