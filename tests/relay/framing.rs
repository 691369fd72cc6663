//! Frames pass byte for byte, and the proxy's own go between them, never inside.

use std::sync::Arc;
use std::time::Duration;

use pulsegate::heartbeat::Policy;
use pulsegate::relay::Delivery;
use pulsegate::session::{EndReason, Initiator};
use pulsegate::ws::{Limits, RSV_ALL, RSV_DEFLATE};

use crate::rig::{BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, Plan, Rig, TEXT, aborted};

const SECOND: Duration = Duration::from_secs(1);

fn header(first: u8, length: u64) -> Vec<u8> {
    [&[first, 0x7F][..], &length.to_be_bytes()].concat()
}

#[tokio::test(start_paused = true)]
async fn s13_a_ping_waits_for_the_end_of_a_huge_downstream_frame() {
    const LENGTH: usize = 100_000_000;
    const PART: usize = LENGTH / 100;
    let mut rig = Rig::new();
    rig.app.send_raw(&header(0x80 | BINARY, LENGTH as u64)).await;
    rig.client.exactly(10).await;
    for part in 0..100u8 {
        // One part a second: the frame takes far longer than the interval.
        tokio::time::sleep(SECOND).await;
        rig.app.send_raw_soon(vec![part; PART]);
        let seen = rig.client.exactly(PART).await;
        assert!(seen.iter().all(|byte| *byte == part), "something stands inside the frame in part {part}");
    }
    assert_eq!(rig.client.expect().await.opcode(), PING, "right behind the frame");
    assert!(rig.elapsed() <= 101 * SECOND, "{:?}", rig.elapsed());
}

#[tokio::test(start_paused = true)]
async fn s13_back_to_back_frames_leave_no_gap_but_the_ping_finds_one() {
    // Each read ends inside a frame, so only the boundaries within a read are left for the ping.
    let mut rig = Rig::new();
    let frame = header(0x80 | BINARY, 70_000);
    let mut sent = frame.clone();
    let mut pinged = false;
    rig.app.send_raw(&frame).await;
    rig.client.exactly(frame.len()).await;
    for _ in 0..60 {
        tokio::time::sleep(SECOND).await;
        sent.clear();
        sent.extend(vec![b'x'; 70_000]);
        sent.extend(&frame);
        rig.app.send_raw(&sent).await;
        assert!(rig.client.exactly(70_000).await.iter().all(|byte| *byte == b'x'));
        let head = rig.client.exactly(10).await;
        if head[0] == 0x80 | PING {
            pinged = true;
            assert_eq!(rig.client.exactly(10).await, frame, "the next frame follows the ping whole");
            break;
        }
        assert_eq!(head, frame);
    }
    assert!(pinged, "no ping within a minute of back-to-back frames");
}

/// Sends one frame of 100 parts, one a second, of which the client takes `parts`.
async fn long_frame(rig: &mut Rig, kernel: bool, parts: usize) {
    const PART: usize = 10_000;
    rig.app.send_raw(&header(0x80 | BINARY, 100 * PART as u64)).await;
    rig.client.exactly(10).await;
    for part in 1..=parts {
        tokio::time::sleep(SECOND).await;
        rig.app.send_raw(&[b'x'; PART]).await;
        rig.client.exactly(PART).await;
        let acked = 10 + (part * PART) as u64;
        *rig.kernel.lock().unwrap() = kernel.then_some(Delivery { acked, unread: false });
    }
    if parts < 100 {
        rig.app.send_raw_soon(vec![b'x'; (100 - parts) * PART]);
    }
}

#[tokio::test(start_paused = true)]
async fn s57_a_client_that_takes_one_frame_promptly_outlasts_max_deferral() {
    for kernel in [true, false] {
        let policy = Policy { max_deferral: 30 * SECOND, ..Policy::default() };
        let mut rig = Rig::with(Plan { policy, ..Plan::default() });
        long_frame(&mut rig, kernel, 100).await;
        assert_eq!(rig.client.expect().await.opcode(), PING, "right behind the frame, kernel: {kernel}");
    }
}

#[tokio::test(start_paused = true)]
async fn s57_a_client_that_stops_inside_one_frame_is_gone_write_stall_later() {
    for kernel in [true, false] {
        let mut rig = Rig::new();
        long_frame(&mut rig, kernel, 40).await;
        let (stopped, client_aborted) = (rig.elapsed(), Arc::clone(&rig.client_aborted));
        let opened = rig.opened;
        // Both ends stay open; the pipe to the client fills up at once.
        let ending = rig.ending().await;
        assert_eq!(ending.cause.reason(), EndReason::SlowReader, "kernel: {kernel}");
        let took = opened.elapsed() - stopped;
        let bound = 45 * SECOND + 12 * SECOND;
        assert!(took >= 45 * SECOND && took <= bound, "kernel: {kernel}, {took:?}");
        assert!(aborted(&client_aborted), "inside a frame no Close can be put");
    }
}

#[tokio::test(start_paused = true)]
async fn s14_a_ping_goes_between_the_fragments_of_a_message() {
    let mut rig = Rig::new();
    let fragment = |first, payload: &[u8]| Frame { first, payload: payload.to_vec() };
    rig.app.send(&fragment(TEXT, b"one")).await;
    assert_eq!(rig.client.expect().await, fragment(TEXT, b"one"));
    assert_eq!(rig.client.expect().await.opcode(), PING, "while the message is open");
    rig.app.send(&fragment(0x80 | CONTINUATION, b"two")).await;
    assert_eq!(rig.client.expect().await, fragment(0x80 | CONTINUATION, b"two"));
}

#[tokio::test(start_paused = true)]
async fn s15_compressed_fragments_pass_with_their_bits() {
    let limits = Limits { rsv: RSV_DEFLATE, ..Limits::default() };
    let mut rig = Rig::with(Plan { limits, ..Plan::default() });
    let fragments =
        [(0x40 | TEXT, &b"\xf2\x48"[..]), (CONTINUATION, b"\xcd\xc9"), (0x80 | CONTINUATION, b"\xc9\x07\x00")];
    for (first, payload) in fragments {
        let frame = Frame { first, payload: payload.to_vec() };
        rig.client.send(&frame).await;
        assert_eq!(rig.app.expect().await, frame);
        rig.app.send(&frame).await;
        assert_eq!(rig.client.expect().await, frame);
    }
}

#[tokio::test(start_paused = true)]
async fn s16_an_unknown_extension_rules_its_own_frames() {
    let limits = Limits { rsv: RSV_ALL, ..Limits::default() };
    let mut rig = Rig::with(Plan { limits, ..Plan::default() });
    for first in [0xF1, 0xA2, 0x93, 0xFB] {
        let frame = Frame { first, payload: b"as it is".to_vec() };
        rig.client.send(&frame).await;
        assert_eq!(rig.app.expect().await, frame);
    }
}

#[tokio::test(start_paused = true)]
async fn s17_a_forty_megabyte_frame_outlasts_any_timeout() {
    let mut rig = Rig::new();
    let payload = vec![0; 40_000_000];
    let frame = Frame::new(BINARY, &payload);
    let encoded = frame.encode(true);
    for part in encoded.chunks(200_000) {
        tokio::time::sleep(SECOND).await;
        rig.client.send_raw(part).await;
        let seen = rig.app.exactly(if part.len() < 200_000 { part.len() } else { 200_000 }).await;
        assert_eq!(seen, part);
    }
    assert!(rig.elapsed() >= 200 * SECOND);
    rig.client.send(&Frame::new(TEXT, b"still here")).await;
    assert_eq!(rig.app.expect().await, Frame::new(TEXT, b"still here"));
}

#[tokio::test(start_paused = true)]
async fn s18_a_client_that_dies_inside_a_frame_leaves_no_partial_message() {
    let mut rig = Rig::new();
    rig.client.send(&Frame::new(TEXT, b"whole")).await;
    assert_eq!(rig.app.expect().await, Frame::new(TEXT, b"whole"));
    let encoded = Frame::new(BINARY, &[7; 1000]).encode(true);
    rig.client.send_raw(&encoded[..500]).await;
    assert_eq!(rig.app.exactly(500).await, encoded[..500]);
    assert_eq!(rig.app.rest().await, [0; 0], "a bare end: neither the rest of the frame nor a Close");
    assert!(rig.elapsed() <= 45 * SECOND, "{:?}", rig.elapsed());
    let ending = rig.ending().await;
    assert_eq!((ending.cause.reason(), ending.upstream_code), (EndReason::HeartbeatTimeout, 1006));
}

#[tokio::test(start_paused = true)]
async fn s19_no_close_goes_into_the_middle_of_a_downstream_frame() {
    let policy = Policy { max_deferral: 30 * SECOND, ..Policy::default() };
    let mut rig = Rig::with(Plan { policy, ..Plan::default() });
    rig.app.send_raw(&header(0x80 | BINARY, 100_000)).await;
    rig.client.exactly(10).await;
    assert_eq!(rig.client.rest().await, [0; 0], "cut, with nothing behind the header");
    assert!(aborted(&rig.client_aborted), "a reset, not an orderly end");
    assert_eq!(rig.app.expect().await.opcode(), CLOSE, "the app gets its Close");
}

#[tokio::test(start_paused = true)]
async fn s20_a_frame_that_trickles_in_is_cut_off() {
    let mut rig = Rig::new();
    let encoded = Frame::new(BINARY, &[0; 10_000]).encode(true);
    for byte in encoded {
        // Each byte is a sign of life; only the frame takes too long.
        if rig.client.try_send(&[byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(5 * SECOND).await;
        rig.app.drain_some().await;
        assert!(rig.elapsed() < 700 * SECOND, "still alive after {:?}", rig.elapsed());
    }
    let ending = rig.ending().await;
    assert_eq!(ending.cause.reason(), EndReason::Trickle);
    assert!(ending.duration >= 600 * SECOND && ending.duration <= 606 * SECOND, "{:?}", ending.duration);
}

#[tokio::test(start_paused = true)]
async fn a_control_frame_cut_anywhere_is_judged_whole() {
    let mut rig = Rig::new();
    let ping = rig.client.expect().await;
    for byte in Frame::new(PONG, &ping.payload).encode(true) {
        rig.client.send_raw(&[byte]).await;
        rig.app.silent(Duration::from_millis(1)).await;
    }
    rig.client.send(&Frame::new(TEXT, b"next")).await;
    assert_eq!(rig.app.expect().await, Frame::new(TEXT, b"next"));
}

#[tokio::test(start_paused = true)]
async fn bytes_read_early_come_first_on_both_legs() {
    let client_early = [Frame::new(TEXT, b"early").encode(true), Frame::new(TEXT, b"cut").encode(true)].concat();
    let (whole, half) = client_early.split_at(client_early.len() - 2);
    let mut rig = Rig::with(Plan {
        client_early: whole.to_vec(),
        upstream_early: Frame::new(TEXT, b"welcome").encode(false),
        ..Plan::default()
    });
    assert_eq!(rig.client.expect().await, Frame::new(TEXT, b"welcome"));
    assert_eq!(rig.app.expect().await, Frame::new(TEXT, b"early"));
    rig.client.send_raw(half).await;
    assert_eq!(rig.app.expect().await, Frame::new(TEXT, b"cut"));
}

#[tokio::test(start_paused = true)]
async fn frames_of_every_length_form_pass_both_ways() {
    let mut rig = Rig::new();
    for length in [0usize, 1, 125, 126, 65_535, 65_536, 200_000] {
        let payload: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let frame = Frame::new(BINARY, &payload);
        rig.client.send(&frame).await;
        assert!(rig.app.expect().await == frame, "{length} bytes up");
        rig.app.send(&frame).await;
        assert!(rig.client.expect().await == frame, "{length} bytes down");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_breaks_the_framing_is_told_and_the_app_hears_a_close() {
    let mut rig = Rig::new();
    let mut bytes = Frame::new(TEXT, b"good").encode(true);
    bytes.extend([0x83, 0x80]);
    rig.client.send_raw(&bytes).await;
    assert_eq!(rig.app.expect().await, Frame::new(TEXT, b"good"), "what came before is delivered");
    assert_eq!(rig.client.expect().await, Frame::close(1002, "reserved opcode"));
    assert_eq!(rig.app.expect().await, Frame::close(1002, "reserved opcode"));
    let ending = rig.ending().await;
    assert_eq!((ending.cause.initiator(), ending.cause.reason()), (Initiator::Proxy, EndReason::ProtocolError));
    assert_eq!(ending.cause.detail(), Some("reserved opcode"));
}

#[tokio::test(start_paused = true)]
async fn an_app_that_breaks_the_framing_is_told_and_the_client_may_come_back() {
    let mut rig = Rig::new();
    rig.app.send_raw(&[0x81, 0x81, 1, 2, 3, 4, 5]).await;
    assert_eq!(rig.app.expect().await, Frame::close(1002, "masked server frame"));
    assert_eq!(rig.client.expect().await, Frame::close(1012, "upstream protocol error"));
    assert_eq!(rig.ending().await.cause.reason(), EndReason::ProtocolError);
}

#[tokio::test(start_paused = true)]
async fn a_message_over_the_limit_ends_with_1009() {
    let limits = Limits { message: Some(10), ..Limits::default() };
    let mut rig = Rig::with(Plan { limits, ..Plan::default() });
    rig.client.send(&Frame::new(TEXT, b"ten bytes!")).await;
    assert_eq!(rig.app.expect().await.payload, b"ten bytes!");
    rig.client.send(&Frame::new(TEXT, b"eleven byte")).await;
    assert_eq!(rig.client.expect().await, Frame::close(1009, "message over the limit"));
    assert_eq!(rig.ending().await.cause.reason(), EndReason::TooBig);
}
