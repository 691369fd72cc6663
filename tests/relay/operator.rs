//! The orders of an operator to a session: to close, and to play dead.

use std::time::Duration;

use pulsegate::heartbeat::Delivery;
use pulsegate::relay::SessionOrder;
use pulsegate::session::{Abort, EndReason, Initiator};
use tokio::time::{advance, sleep};

use crate::rig::{BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, Plan, Rig, TEXT, aborted};

const SECOND: Duration = Duration::from_secs(1);

fn close(code: u16, reason: &str) -> SessionOrder {
    SessionOrder::Close { code, reason: reason.into() }
}

#[tokio::test(start_paused = true)]
async fn both_legs_get_the_close_with_its_code_and_reason() {
    let mut rig = Rig::new();
    rig.control.give(close(1008, "closed by the operator"));
    let told = Frame::close(1008, "closed by the operator");
    let bytes = told.encode(false);
    assert_eq!(rig.client.exactly(bytes.len()).await, bytes, "whole and unmasked");
    assert_eq!(rig.app.expect().await, told);
    rig.client.send(&told).await;
    rig.app.send(&told).await;
    assert_eq!(rig.client.frame().await, None);
    assert_eq!(rig.app.frame().await, None);
    rig.client.fin().await;
    rig.app.fin().await;
    let ending = rig.ending().await;
    assert_eq!((ending.cause.initiator(), ending.cause.reason()), (Initiator::Proxy, EndReason::Admin));
    assert_eq!((ending.client_code, ending.upstream_code), (1008, 1008));
    assert_eq!(&*ending.close_reason, "closed by the operator");
    assert!(ending.duration < SECOND, "both answered: {:?}", ending.duration);
}

#[tokio::test(start_paused = true)]
async fn the_close_stands_between_two_frames() {
    let mut rig = Rig::new();
    let up = Frame::new(BINARY, &[5; 100]).encode(true);
    let down = Frame::new(BINARY, &[6; 100]).encode(false);
    rig.client.send_raw(&up[..50]).await;
    rig.app.send_raw(&down[..50]).await;
    assert_eq!(rig.app.exactly(50).await, up[..50]);
    assert_eq!(rig.client.exactly(50).await, down[..50]);
    rig.control.give(close(4000, "moved"));
    sleep(SECOND).await;
    rig.client.send_raw(&up[50..]).await;
    rig.app.send_raw(&down[50..]).await;
    assert_eq!(rig.app.exactly(up.len() - 50).await, up[50..]);
    assert_eq!(rig.client.exactly(down.len() - 50).await, down[50..]);
    assert_eq!(rig.app.expect().await, Frame::close(4000, "moved"));
    assert_eq!(rig.client.expect().await, Frame::close(4000, "moved"));
}

#[tokio::test(start_paused = true)]
async fn between_two_fragments_is_between_two_frames() {
    let mut rig = Rig::new();
    let begun = Frame { first: TEXT, payload: b"once upon".to_vec() };
    rig.client.send(&begun).await;
    rig.app.send(&begun).await;
    assert_eq!(rig.app.expect().await, begun);
    assert_eq!(rig.client.expect().await, begun);
    rig.control.give(close(4000, ""));
    assert_eq!(rig.app.expect().await, Frame::close(4000, ""));
    assert_eq!(rig.client.expect().await, Frame::close(4000, ""));
    rig.client.try_send(&Frame { first: 0x80 | CONTINUATION, payload: b"a time".to_vec() }.encode(true)).await.ok();
    assert_eq!(rig.app.frame().await, None, "nothing behind the Close");
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_does_not_end_holds_up_nobody() {
    let mut rig = Rig::new();
    let up = Frame::new(BINARY, &[5; 100]).encode(true);
    rig.client.send_raw(&up[..50]).await;
    assert_eq!(rig.app.exactly(50).await, up[..50]);
    rig.control.give(close(1008, "now"));
    assert_eq!(rig.client.expect().await, Frame::close(1008, "now"));
    assert!(rig.elapsed() <= 3 * SECOND, "{:?}", rig.elapsed());
    assert_eq!(rig.app.rest().await, b"", "half a frame is out to the app: a bare FIN");
    assert_eq!(rig.ending().await.upstream_code, 1006);
}

#[tokio::test(start_paused = true)]
async fn a_second_close_changes_nothing() {
    let mut rig = Rig::new();
    rig.control.give(close(1008, "first"));
    rig.control.give(close(4000, "second"));
    assert_eq!(rig.client.expect().await, Frame::close(1008, "first"));
    rig.control.give(close(4001, "third"));
    rig.control.give(SessionOrder::Drain { code: 1012 });
    assert_eq!(rig.app.expect().await, Frame::close(1008, "first"));
    assert_eq!(rig.client.frame().await, None, "one Close and the end");
    assert_eq!(rig.app.frame().await, None);
    assert_eq!(rig.ending().await.cause.reason(), EndReason::Admin);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_the_drain_has_told_goes_on_with_that() {
    let mut rig = Rig::new();
    let up = Frame::new(BINARY, &[5; 100]).encode(true);
    rig.client.send_raw(&up[..50]).await;
    assert_eq!(rig.app.exactly(50).await, up[..50]);
    rig.control.give(SessionOrder::Drain { code: 1012 });
    sleep(SECOND).await;
    rig.control.give(close(1008, "too late"));
    sleep(SECOND / 2).await;
    rig.client.send_raw(&up[50..]).await;
    assert_eq!(rig.client.expect().await, Frame::close(1012, "service restart"));
    assert_eq!(rig.ending().await.cause.reason(), EndReason::Drain);
}

#[tokio::test(start_paused = true)]
async fn s61_a_closing_handshake_under_way_keeps_its_codes() {
    for order in [close(1008, "enough"), SessionOrder::Drain { code: 1012 }] {
        let mut rig = Rig::new();
        rig.client.send(&Frame::close(4000, "bye")).await;
        assert_eq!(rig.app.expect().await, Frame::close(4000, "bye"));
        sleep(SECOND).await;
        rig.control.give(order);
        // The app takes longer to answer than an operator's Close waits for a frame.
        rig.client.silent(10 * SECOND).await;
        rig.app.send(&Frame::close(4000, "bye")).await;
        assert_eq!(rig.client.expect().await, Frame::close(4000, "bye"));
        assert_eq!((rig.client.frame().await, rig.app.frame().await), (None, None));
        let ending = rig.ending().await;
        assert_eq!((ending.cause.initiator(), ending.cause.reason()), (Initiator::Client, EndReason::Normal));
        assert_eq!((ending.client_code, ending.upstream_code, &*ending.close_reason), (4000, 4000, "bye"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_abort_ends_both_legs_at_once_whatever_is_under_way() {
    for closing in [false, true] {
        let mut rig = Rig::new();
        let up = Frame::new(BINARY, &[5; 100]).encode(true);
        if closing {
            rig.client.send(&Frame::close(4000, "bye")).await;
            assert_eq!(rig.app.expect().await, Frame::close(4000, "bye"));
        } else {
            rig.client.send_raw(&up[..50]).await;
            assert_eq!(rig.app.exactly(50).await, up[..50]);
        }
        let ordered = rig.elapsed();
        rig.control.give(close(1008, "slowly"));
        rig.control.give(SessionOrder::Abort(Abort::Operator));
        assert_eq!((rig.client.frame().await, rig.app.frame().await), (None, None));
        assert_eq!(rig.elapsed(), ordered);
        assert!(aborted(&rig.client_aborted));
        let ending = rig.ending().await;
        let expected = if closing { (EndReason::Normal, 4000) } else { (EndReason::Admin, 1006) };
        assert_eq!((ending.cause.reason(), ending.client_code), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn who_plays_dead_is_found_within_the_bound_whatever_the_client_does() {
    let mut rig = Rig::new();
    // The client's kernel takes everything, and what the client sends is there to be read.
    *rig.kernel.lock().unwrap() = Some(Delivery { acked: u64::MAX, unread: true });
    rig.client.send(&Frame::new(TEXT, b"still here")).await;
    assert_eq!(rig.app.expect().await.payload, b"still here");
    rig.control.give(SessionOrder::PlayDead);
    rig.control.give(SessionOrder::ProbeUpstream);
    sleep(SECOND).await;
    rig.client.send(&Frame::new(TEXT, b"nobody hears this")).await;
    rig.app.send(&Frame::new(TEXT, b"news")).await;
    assert_eq!(rig.client.expect().await.payload, b"news", "the app may speak on");
    let ping = rig.client.expect().await;
    assert_eq!(ping.opcode(), PING);
    rig.client.send(&Frame::new(PONG, &ping.payload)).await;
    assert_eq!(rig.app.expect().await, Frame::close(4408, "heartbeat timeout"), "and nothing of the client");
    assert!(rig.elapsed() <= 46 * SECOND, "interval and timeout: {:?}", rig.elapsed());
    assert_eq!(rig.client.expect().await.opcode(), CLOSE);
    let ending = rig.ending().await;
    assert_eq!((ending.cause.initiator(), ending.cause.reason()), (Initiator::Proxy, EndReason::HeartbeatTimeout));
    assert_eq!((ending.from_client.messages, ending.heartbeat.missed), (1, 1));
    assert!(ending.last_seen_ago > 30 * SECOND, "{:?}", ending.last_seen_ago);
}

#[tokio::test(start_paused = true)]
async fn who_plays_dead_can_still_be_closed() {
    let mut rig = Rig::new();
    rig.control.give(SessionOrder::PlayDead);
    rig.control.give(close(1008, "enough"));
    assert_eq!(rig.client.expect().await, Frame::close(1008, "enough"));
    assert_eq!(rig.ending().await.cause.reason(), EndReason::Admin);
}

#[tokio::test(start_paused = true)]
async fn an_abort_of_a_drain_still_closes_towards_an_app_that_takes_it() {
    let mut rig = Rig::new();
    rig.control.give(SessionOrder::Abort(Abort::Drain));
    assert_eq!(rig.client.frame().await, None);
    assert!(aborted(&rig.client_aborted));
    assert_eq!(rig.app.expect().await, Frame::close(1012, "service restart"));
    assert_eq!(rig.app.frame().await, None);
    let ending = rig.ending().await;
    assert_eq!((ending.cause.reason(), ending.client_code, ending.upstream_code), (EndReason::Drain, 1006, 1012));
}

#[tokio::test(start_paused = true)]
async fn s61_a_close_that_is_read_together_with_an_order_stands() {
    for order in [close(4000, "moved"), SessionOrder::Drain { code: 1012 }] {
        for by_client in [true, false] {
            let mut rig = Rig::new();
            sleep(SECOND).await;
            let said = Frame::close(4001, "own");
            // Nothing is awaited in between, so that the session finds both in one poll.
            if by_client {
                rig.client.send(&said).await;
            } else {
                rig.app.send(&said).await;
            }
            rig.control.give(order.clone());
            let (to, other) = if by_client { (&mut rig.app, &mut rig.client) } else { (&mut rig.client, &mut rig.app) };
            assert_eq!(to.expect().await, said, "{order:?}");
            to.send(&said).await;
            assert_eq!(to.frame().await, None, "nothing follows the Close ({order:?})");
            assert_eq!(other.expect().await, said, "{order:?}");
            to.fin().await;
            other.fin().await;
            let ending = rig.ending().await;
            assert_eq!((ending.client_code, ending.upstream_code), (4001, 4001), "{order:?}");
            assert_eq!(ending.cause.reason(), EndReason::Normal, "{order:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn s61_a_close_that_is_read_when_the_maximum_age_is_reached_stands() {
    let mut rig = Rig::with(Plan { max_age: Some(SECOND), ..Plan::default() });
    // Time for the session's first poll, which arms its timer.
    sleep(SECOND / 2).await;
    let said = Frame::close(4001, "own");
    rig.client.send(&said).await;
    // The clock moves before the session is polled.
    advance(SECOND).await;
    assert_eq!(rig.app.expect().await, said);
    rig.app.send(&said).await;
    assert_eq!(rig.client.expect().await, said);
    rig.client.fin().await;
    rig.app.fin().await;
    let ending = rig.ending().await;
    assert_eq!((ending.client_code, ending.upstream_code), (4001, 4001));
    assert_eq!((ending.cause.initiator(), ending.cause.reason()), (Initiator::Client, EndReason::Normal));
}
