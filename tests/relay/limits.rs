//! The limits on the messages and the memory of a session.

use std::sync::Arc;
use std::time::Duration;

use pulsegate::session::{EndReason, Initiator};
use pulsegate::ws::Limits;
use tokio::time::{sleep, timeout};

use crate::rig::{BINARY, CLOSE, CONTINUATION, Frame, PONG, Plan, Rig, TEXT};

const SECOND: Duration = Duration::from_secs(1);

fn limited(rate: u32) -> Plan {
    Plan { limits: Limits { messages_per_second: Some(rate), ..Limits::default() }, ..Plan::default() }
}

fn text(text: &str) -> Vec<u8> {
    Frame::new(TEXT, text.as_bytes()).encode(true)
}

#[tokio::test(start_paused = true)]
async fn one_message_too_many_in_a_second_ends_with_1008() {
    let mut rig = Rig::with(limited(5));
    for round in 0..3 {
        let burst: Vec<u8> = (0..5).flat_map(|at| text(&format!("{round}.{at}"))).collect();
        rig.client.send_raw(&burst).await;
        for at in 0..5 {
            assert_eq!(rig.app.expect().await.payload, format!("{round}.{at}").into_bytes());
        }
        sleep(SECOND).await;
    }
    let flood: Vec<u8> = (0..100).flat_map(|at| text(&at.to_string())).collect();
    rig.client.send_raw(&flood).await;
    for at in 0..5 {
        assert_eq!(rig.app.expect().await.payload, at.to_string().into_bytes());
    }
    let close = Frame::close(1008, "too many messages");
    assert_eq!(rig.app.expect().await, close, "and not one message more");
    assert_eq!(rig.client.expect().await, close);
    let ending = rig.ending().await;
    assert_eq!((ending.cause.initiator(), ending.cause.reason()), (Initiator::Proxy, EndReason::Rate));
    assert_eq!((ending.client_code, ending.upstream_code), (1008, 1008));
    assert_eq!(ending.cause.detail(), Some("more messages a second than the limit"));
}

#[tokio::test(start_paused = true)]
async fn fragments_are_one_message_and_control_frames_none() {
    let mut rig = Rig::with(limited(2));
    for _ in 0..2 {
        rig.client.send_raw(&Frame { first: TEXT, payload: b"a".to_vec() }.encode(true)).await;
        for _ in 0..50 {
            rig.client.send_raw(&Frame { first: CONTINUATION, payload: b"b".to_vec() }.encode(true)).await;
            rig.client.send(&Frame::new(PONG, b"unsolicited")).await;
        }
        rig.client.send(&Frame::new(CONTINUATION, b"c")).await;
    }
    let mut ends = 0;
    while ends < 2 {
        let frame = rig.app.expect().await;
        assert_ne!(frame.opcode(), CLOSE, "{frame:?}");
        ends += usize::from(frame == Frame::new(CONTINUATION, b"c"));
    }
    rig.client.send(&Frame::new(TEXT, b"too much")).await;
    assert_eq!(rig.app.expect().await, Frame::close(1008, "too many messages"));
}

#[tokio::test(start_paused = true)]
async fn the_apps_messages_are_not_limited() {
    let mut rig = Rig::with(limited(1));
    for at in 0..100_u8 {
        rig.app.send(&Frame::new(BINARY, &[at])).await;
        assert_eq!(rig.client.expect().await.payload, [at]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_refused_at_its_header_leaves_room_for_the_close() {
    let mut rig = Rig::with(limited(1));
    let mut bytes = text("fits");
    bytes.extend(&Frame::new(BINARY, &[7; 60_000]).encode(true)[..30_000]);
    rig.client.send_raw(&bytes).await;
    assert_eq!(rig.app.expect().await.payload, b"fits");
    assert_eq!(rig.app.expect().await, Frame::close(1008, "too many messages"), "no part of the message before it");
}

#[tokio::test(start_paused = true)]
async fn a_header_in_pieces_counts_once() {
    let mut rig = Rig::with(limited(3));
    for at in 0..3 {
        for byte in text(&at.to_string()) {
            rig.client.send_raw(&[byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(rig.app.expect().await.payload, at.to_string().into_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_slow_app_holds_up_is_not_held_against_the_client() {
    let mut rig = Rig::with(Plan { pipe: 512, ..limited(10) });
    // Nine messages a second of a hundred bytes; for five seconds the app takes none of them.
    let steady: Vec<Vec<u8>> = (0..45).map(|_| Frame::new(BINARY, &[3; 100]).encode(true)).collect();
    rig.client.send_raw_soon(steady.concat()[..1_000].to_vec());
    sleep(5 * SECOND).await;
    let rest = steady.concat()[1_000..].to_vec();
    let mut taken = 0;
    rig.client.send_raw_soon(rest);
    while taken < 45 {
        assert_eq!(rig.app.expect().await, Frame::new(BINARY, &[3; 100]), "after {taken}");
        taken += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_slow_peer_is_counted_until_it_is_gone() {
    let mut rig = Rig::with(Plan { pipe: 1024, ..Plan::default() });
    let (large, small) = (Frame::new(BINARY, &[3; 3000]), Frame::new(TEXT, b"x"));
    assert_eq!(rig.memory.total(), 0, "an idle session holds nothing");
    rig.client.send_raw_soon(large.encode(true));
    sleep(SECOND).await;
    let held = rig.memory.to_app();
    assert!((1..=1024).contains(&held), "{held}: the pipe is full, and one read waits");
    assert_eq!(rig.memory.to_client(), 0);
    assert_eq!(rig.app.expect().await, large);
    rig.client.send(&small).await;
    assert_eq!(rig.app.expect().await, small);
    assert_eq!(rig.memory.total(), 0);

    rig.app.send_raw_soon(large.encode(false));
    sleep(SECOND).await;
    assert!(rig.memory.to_client() > 0 && rig.memory.to_app() == 0, "{:?}", rig.memory);
    let memory = Arc::clone(&rig.memory);
    drop((rig.client, rig.app));
    let gone = async {
        while memory.total() > 0 {
            sleep(SECOND).await;
        }
    };
    timeout(600 * SECOND, gone).await.unwrap_or_else(|_| panic!("a session that is over holds {memory:?}"));
}
