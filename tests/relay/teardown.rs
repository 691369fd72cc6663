//! The end of a session: the Close of each leg, the order of the steps, and their time limits.

use std::time::Duration;

use pulsegate::heartbeat::{CloseSpec, Delivery, Mode, OnMiss, Policy, UpstreamEnd};
use pulsegate::relay::SessionOrder;
use pulsegate::session::{EndReason, Initiator};
use pulsegate::ws::Limits;

use crate::rig::{BINARY, CLOSE, Frame, PING, PONG, Plan, Rig, TEXT, aborted};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn s32_an_uploading_client_gets_the_close_while_its_bytes_are_drained() {
    let policy = Policy { frame_max_time: 30 * SECOND, ..Policy::default() };
    let mut rig = Rig::with(Plan { policy, pipe: 4096, ..Plan::default() });
    let encoded = Frame::new(BINARY, &vec![1; 50_000_000]).encode(true);
    let mut parts = encoded.chunks(10_000);
    while rig.elapsed() < 31 * SECOND {
        rig.client.send_raw_soon(parts.next().expect("enough for the whole test").to_vec());
        rig.app.drain_some().await;
        tokio::time::sleep(SECOND).await;
    }
    // The upload continues after the Close is out; none of it is refused with a reset.
    for part in parts.take(5) {
        rig.client.try_send(part).await.expect("drained, not reset");
    }
    assert_eq!(rig.client.expect().await, Frame::close(1012, "frame took too long"));
    assert!(!aborted(&rig.client_aborted));
}

#[tokio::test(start_paused = true)]
async fn s33_a_client_that_never_echoes_gets_fin_after_the_grace() {
    let mut rig = Rig::new();
    assert_eq!(rig.client.expect().await.opcode(), PING);
    assert_eq!(rig.client.expect().await.opcode(), CLOSE);
    let closed = rig.elapsed();
    assert_eq!(rig.client.frame().await, None);
    let grace = rig.elapsed().saturating_sub(closed);
    assert!(grace >= 2 * SECOND && grace <= 2 * SECOND + SECOND / 10, "{grace:?}");
    assert!(!aborted(&rig.client_aborted), "a client that wakes later reads the Close");
}

#[tokio::test(start_paused = true)]
async fn s33_a_client_with_bytes_unread_is_reset_after_the_grace() {
    let mut rig = Rig::new();
    *rig.kernel.lock().unwrap() = Some(Delivery { acked: u64::MAX, unread: false });
    assert_eq!(rig.client.expect().await.opcode(), PING);
    assert_eq!(rig.client.expect().await.opcode(), CLOSE);
    *rig.kernel.lock().unwrap() = Some(Delivery { acked: u64::MAX, unread: true });
    assert_eq!(rig.client.frame().await, None);
    assert!(aborted(&rig.client_aborted));
}

#[tokio::test(start_paused = true)]
async fn s34_a_client_that_echoes_the_close_gets_fin_at_once() {
    let mut rig = Rig::new();
    assert_eq!(rig.client.expect().await.opcode(), PING);
    let close = rig.client.expect().await;
    assert_eq!(close.opcode(), CLOSE);
    rig.client.send(&close).await;
    let echoed = rig.elapsed();
    assert_eq!(rig.client.frame().await, None);
    assert_eq!(rig.elapsed(), echoed, "no grace is waited for");
}

#[tokio::test(start_paused = true)]
async fn s35_a_complete_message_reaches_the_app_before_the_end() {
    let mut rig = Rig::with(Plan { pipe: 400, ..Plan::default() });
    assert_eq!(rig.client.expect().await.opcode(), PING);
    // The second message is more than the app's pipe takes; it waits in the session when the end is decided.
    let message = Frame::new(TEXT, &[b'm'; 300]);
    rig.client.send(&message).await;
    rig.client.send(&message).await;
    rig.control.give(SessionOrder::Drain { code: 1012 });
    tokio::time::sleep(SECOND).await;
    assert_eq!(rig.app.expect().await, message);
    assert_eq!(rig.app.expect().await, message);
    assert_eq!(rig.app.expect().await, Frame::close(1012, "service restart"));
}

#[tokio::test(start_paused = true)]
async fn s36_the_apps_close_is_relayed_intact_while_a_probe_is_out() {
    let mut rig = Rig::new();
    assert_eq!(rig.client.expect().await.opcode(), PING);
    rig.app.send(&Frame::close(4001, "x")).await;
    assert_eq!(rig.client.expect().await, Frame::close(4001, "x"));
    rig.client.send(&Frame::close(4001, "x")).await;
    assert_eq!(rig.app.expect().await, Frame::close(4001, "x"));
    assert_eq!(rig.client.frame().await, None);
    assert_eq!(rig.app.frame().await, None);
    let ending = rig.ending().await;
    assert_eq!((ending.cause.initiator(), ending.cause.reason()), (Initiator::Upstream, EndReason::Normal));
    assert_eq!((ending.client_code, ending.upstream_code, &*ending.close_reason), (4001, 4001, "x"));
}

#[tokio::test(start_paused = true)]
async fn s37_after_a_close_no_more_pings() {
    let mut rig = Rig::new();
    rig.client.send(&Frame::close(1000, "bye")).await;
    assert_eq!(rig.app.expect().await, Frame::close(1000, "bye"));
    rig.client.silent(19 * SECOND).await;
    rig.app.send(&Frame::new(TEXT, b"last words")).await;
    assert_eq!(rig.client.expect().await, Frame::new(TEXT, b"last words"), "the app may still speak");
    rig.app.send(&Frame::close(1000, "bye")).await;
    assert_eq!(rig.client.expect().await, Frame::close(1000, "bye"));
    assert_eq!(rig.client.frame().await, None);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_never_answers_a_close_does_not_hold_the_session() {
    let mut rig = Rig::new();
    rig.client.send(&Frame::close(1000, "bye")).await;
    assert_eq!(rig.app.expect().await.opcode(), CLOSE);
    assert_eq!(rig.client.frame().await, None);
    let ending = rig.ending().await;
    assert_eq!((ending.cause.initiator(), ending.cause.reason()), (Initiator::Client, EndReason::Normal));
    assert!(ending.duration <= 23 * SECOND, "timeout and grace, not {:?}", ending.duration);
}

#[tokio::test(start_paused = true)]
async fn an_empty_close_is_relayed_empty() {
    let mut rig = Rig::new();
    rig.client.send(&Frame::new(CLOSE, b"")).await;
    assert_eq!(rig.app.expect().await, Frame::new(CLOSE, b""));
    rig.app.send(&Frame::new(CLOSE, b"")).await;
    assert_eq!(rig.client.expect().await, Frame::new(CLOSE, b""));
    assert_eq!(rig.ending().await.client_code, 1005);
}

#[tokio::test(start_paused = true)]
async fn s38_what_arrives_after_the_miss_is_not_forwarded() {
    let mut rig = Rig::new();
    assert_eq!(rig.client.expect().await.opcode(), PING);
    assert_eq!(rig.client.expect().await.opcode(), CLOSE);
    rig.client.send(&Frame::new(TEXT, b"too late")).await;
    rig.client.send(&Frame::new(PONG, b"")).await;
    assert_eq!(rig.app.expect().await.opcode(), CLOSE);
    assert_eq!(rig.app.frame().await, None, "nothing behind the Close");
    assert_eq!(rig.ending().await.cause.reason(), EndReason::HeartbeatTimeout, "no resurrection");
}

#[tokio::test(start_paused = true)]
async fn s39_a_half_forwarded_client_frame_ends_in_fin_not_close() {
    let on_miss = OnMiss { upstream: UpstreamEnd::Close(CloseSpec::new(4999, "gone")), ..OnMiss::default() };
    let mut rig = Rig::with(Plan { policy: Policy { on_miss, ..Policy::default() }, ..Plan::default() });
    let encoded = Frame::new(BINARY, &[7; 1000]).encode(true);
    rig.client.send_raw(&encoded[..999]).await;
    assert_eq!(rig.app.rest().await, encoded[..999]);
    assert_eq!(rig.ending().await.upstream_code, 1006);
}

#[tokio::test(start_paused = true)]
async fn an_app_may_be_told_by_a_bare_disconnect() {
    let on_miss = OnMiss { upstream: UpstreamEnd::Disconnect, client: CloseSpec::new(4000, "missed") };
    let mut rig = Rig::with(Plan { policy: Policy { on_miss, ..Policy::default() }, ..Plan::default() });
    assert_eq!(rig.app.frame().await, None);
    assert_eq!(rig.client.expect().await.opcode(), PING);
    assert_eq!(rig.client.expect().await, Frame::close(4000, "missed"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_ends_the_app_leg_with_a_bare_fin() {
    let mut rig = Rig::new();
    rig.client.send(&Frame::new(TEXT, b"last")).await;
    let Rig { client, .. } = &mut rig;
    client.fin().await;
    assert_eq!(rig.app.expect().await, Frame::new(TEXT, b"last"));
    assert_eq!(rig.app.frame().await, None, "FIN is carried, no Close is invented");
    rig.app.send(&Frame::new(TEXT, b"half-open")).await;
    assert_eq!(rig.client.expect().await.payload, b"half-open", "a half-closed client still hears");
    rig.app.fin().await;
    assert_eq!(rig.client.frame().await, None);
    let ending = rig.ending().await;
    assert_eq!(
        (ending.cause.initiator(), ending.cause.reason(), ending.client_code),
        (Initiator::Client, EndReason::ClientLost, 1006)
    );
}

#[tokio::test(start_paused = true)]
async fn drain_tells_both_legs_1012() {
    let mut rig = Rig::new();
    rig.control.give(SessionOrder::Drain { code: 1012 });
    rig.control.give(SessionOrder::ProbeUpstream);
    let close = Frame::close(1012, "service restart");
    assert_eq!(rig.client.expect().await, close);
    rig.client.send(&close).await;
    assert_eq!(rig.app.expect().await, close);
    rig.app.send(&close).await;
    assert_eq!(rig.client.frame().await, None);
    assert_eq!(rig.app.frame().await, None);
    rig.client.fin().await;
    rig.app.fin().await;
    let ending = rig.ending().await;
    assert_eq!((ending.cause.initiator(), ending.cause.reason()), (Initiator::Proxy, EndReason::Drain));
    assert!(ending.duration < SECOND, "both answered: {:?}", ending.duration);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_within_the_grace_does_not_swallow_its_end() {
    let mut rig = Rig::new();
    // The app's ping goes unanswered, so the relay's timer is armed for its window; the drain comes just before.
    rig.app.send(&Frame::new(PING, b"")).await;
    assert_eq!(rig.client.expect().await.opcode(), PING);
    tokio::time::sleep(19 * SECOND).await;
    rig.control.give(SessionOrder::Drain { code: 1012 });
    let drained = rig.elapsed();
    let ending = rig.ending().await;
    let grace = ending.duration.saturating_sub(drained);
    assert!(grace <= 4 * SECOND + SECOND / 5, "the client's and then the app's: {grace:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_tells_the_client_the_code_it_was_given_and_the_app_1012() {
    for (code, reason) in [(1001, "going away"), (1013, "try again later"), (4999, "service restart")] {
        let mut rig = Rig::new();
        rig.control.give(SessionOrder::Drain { code });
        assert_eq!(rig.client.expect().await, Frame::close(code, reason));
        assert_eq!(rig.app.expect().await, Frame::close(1012, "service restart"));
        let ending = rig.ending().await;
        assert_eq!((ending.client_code, ending.upstream_code), (code, 1012));
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_the_frame_that_is_under_way_but_not_for_long() {
    let encoded = Frame::new(BINARY, &[7; 1000]);
    let (down, up) = (encoded.encode(false), encoded.encode(true));
    for ends in [true, false] {
        let mut rig = Rig::new();
        rig.app.send_raw(&down[..400]).await;
        rig.client.send_raw(&up[..400]).await;
        assert_eq!(rig.client.exactly(400).await, down[..400]);
        let ordered = rig.elapsed();
        rig.control.give(SessionOrder::Drain { code: 1012 });
        tokio::time::sleep(SECOND).await;
        if ends {
            rig.app.send_raw(&down[400..]).await;
            rig.client.send_raw(&up[400..]).await;
            assert_eq!(rig.client.exactly(604).await, down[400..]);
            assert_eq!(rig.client.expect().await, Frame::close(1012, "service restart"));
            assert_eq!(rig.app.expect().await, encoded);
            rig.client.send(&Frame::close(1012, "service restart")).await;
            assert_eq!(rig.app.expect().await, Frame::close(1012, "service restart"));
            assert_eq!(rig.elapsed() - ordered, SECOND);
        } else {
            assert_eq!(rig.client.rest().await, b"", "no Close inside a frame");
            assert_eq!(rig.elapsed() - ordered, 2 * SECOND, "two for the frame; the app's leg ends by itself");
            assert!(aborted(&rig.client_aborted));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_old_enough_is_told_1012() {
    let policy = Policy { mode: Mode::Off, ..Policy::default() };
    let mut rig = Rig::with(Plan { policy, max_age: Some(100 * SECOND), ..Plan::default() });
    let close = Frame::close(1012, "maximum age");
    tokio::time::sleep(99 * SECOND).await;
    rig.client.send(&Frame::new(TEXT, b"still here")).await;
    assert_eq!(rig.app.expect().await.payload, b"still here");
    assert_eq!(rig.client.expect().await, close);
    assert_eq!(rig.elapsed(), 100 * SECOND);
    rig.client.send(&close).await;
    assert_eq!(rig.app.expect().await, close);
    rig.app.send(&close).await;
    assert_eq!((rig.client.frame().await, rig.app.frame().await), (None, None));
    let ending = rig.ending().await;
    assert_eq!((ending.cause.initiator(), ending.cause.reason()), (Initiator::Proxy, EndReason::MaxAge));
    assert_eq!((ending.client_code, ending.upstream_code), (1012, 1012));
}

#[tokio::test(start_paused = true)]
async fn age_ends_no_session_in_the_middle_of_a_frame() {
    let encoded = Frame::new(BINARY, &[7; 1000]);
    let (down, up) = (encoded.encode(false), encoded.encode(true));
    let policy = Policy { mode: Mode::Off, ..Policy::default() };
    let mut rig = Rig::with(Plan { policy, max_age: Some(100 * SECOND), ..Plan::default() });
    rig.app.send_raw(&down[..400]).await;
    rig.client.send_raw(&up[..400]).await;
    assert_eq!(rig.client.exactly(400).await, down[..400]);
    rig.client.silent(500 * SECOND).await;
    rig.client.send_raw(&up[400..]).await;
    assert_eq!(rig.app.expect().await, encoded);
    rig.client.silent(10 * SECOND).await;
    rig.app.send_raw(&down[400..]).await;
    assert_eq!(rig.client.exactly(604).await, down[400..]);
    assert_eq!(rig.client.expect().await, Frame::close(1012, "maximum age"));
    assert_eq!(rig.app.expect().await, Frame::close(1012, "maximum age"));
}

#[tokio::test(start_paused = true)]
async fn a_drain_overtakes_the_end_by_age() {
    let down = Frame::new(BINARY, &[7; 1000]).encode(false);
    let policy = Policy { mode: Mode::Off, ..Policy::default() };
    let mut rig = Rig::with(Plan { policy, max_age: Some(100 * SECOND), ..Plan::default() });
    rig.app.send_raw(&down[..400]).await;
    assert_eq!(rig.client.exactly(400).await, down[..400]);
    rig.client.silent(200 * SECOND).await;
    rig.control.give(SessionOrder::Drain { code: 1012 });
    assert_eq!(rig.client.rest().await, b"", "age would have waited");
    assert_eq!(rig.ending().await.cause.reason(), EndReason::Drain);
}

/// Returns a message of the app's, and its encoding as it goes to the client.
fn message(size: usize) -> (Frame, Vec<u8>) {
    let frame = Frame::new(BINARY, &vec![7; size]);
    let encoded = frame.encode(false);
    (frame, encoded)
}

/// Reads the client's end slowly, 10 KB a second, until the stream ends.
async fn read_slowly(rig: &mut Rig) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let some = rig.client.some(10_000).await;
        if some.is_empty() {
            return all;
        }
        all.extend(some);
        tokio::time::sleep(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn s53_all_that_the_app_sent_and_its_close_reach_a_slow_client() {
    // The app ends behind its Close, or waits for the answer to it.
    for fin in [true, false] {
        let policy = Policy { mode: Mode::Off, ..Policy::default() };
        let mut rig = Rig::with(Plan { policy, pipe: 4096, ..Plan::default() });
        let (_, mut sent) = message(400_000);
        sent.extend(Frame::close(1000, "done").encode(false));
        rig.app.send_raw_soon(sent.clone());
        if fin {
            rig.app.fin_soon();
        }
        let read = read_slowly(&mut rig).await;
        assert!(read == sent, "fin: {fin}: {} bytes of {}", read.len(), sent.len());
        let ending = rig.ending().await;
        assert_eq!((ending.cause.initiator(), ending.cause.reason()), (Initiator::Upstream, EndReason::Normal));
        assert_eq!((ending.client_code, ending.upstream_code), (1000, 1000));
        assert!(ending.duration >= 40 * SECOND, "{:?}", ending.duration);
    }
}

#[tokio::test(start_paused = true)]
async fn s54_what_the_app_sent_before_it_ended_without_a_close_goes_before_the_1012() {
    let policy = Policy { mode: Mode::Off, ..Policy::default() };
    let mut rig = Rig::with(Plan { policy, pipe: 4096, ..Plan::default() });
    let (_, mut sent) = message(400_000);
    rig.app.send_raw_soon(sent.clone());
    rig.app.fin_soon();
    sent.extend(Frame::close(1012, "upstream lost").encode(false));
    let read = read_slowly(&mut rig).await;
    assert!(read == sent, "{} bytes of {}", read.len(), sent.len());
    let ending = rig.ending().await;
    assert_eq!((ending.cause.initiator(), ending.cause.reason()), (Initiator::Upstream, EndReason::UpstreamLost));
    assert_eq!((ending.client_code, ending.upstream_code), (1012, 1006));
}

#[tokio::test(start_paused = true)]
async fn s53_a_client_that_takes_nothing_holds_its_end_for_the_write_stall_and_is_not_said_to_have_got_it() {
    let mut rig = Rig::with(Plan { pipe: 4096, ..Plan::default() });
    let (_, sent) = message(40_000);
    rig.app.send_raw_soon(sent);
    rig.app.fin_soon();
    // The message is more than the pipes hold, so the app's end is not read while nothing moves.
    rig.client.some(20_000).await;
    let ending = rig.ending().await;
    assert_eq!(ending.client_code, 1006, "{ending:?}");
    assert!(ending.duration <= 60 * SECOND, "{:?}", ending.duration);
}

#[tokio::test(start_paused = true)]
async fn s55_all_that_the_client_sent_reaches_an_app_that_was_busy() {
    // At the same time a drain, an end by age, and (once the client's Close was read) an operator's order.
    for order in [None, Some(SessionOrder::Drain { code: 1012 })] {
        let mut rig = Rig::with(Plan { pipe: 4096, ..Plan::default() });
        let message = Frame::new(BINARY, &[3; 10_000]);
        let mut sent: Vec<u8> = (0..100).flat_map(|_| message.encode(true)).collect();
        sent.extend(Frame::close(1000, "bye").encode(true));
        rig.client.send_raw_soon(sent);
        if let Some(order) = order.clone() {
            tokio::time::sleep(SECOND).await;
            rig.control.give(order);
        }
        tokio::time::sleep(26 * SECOND).await;
        for count in 0..100 {
            assert_eq!(rig.app.expect().await, message, "message {count}, {order:?}");
        }
        assert_eq!(rig.app.expect().await, Frame::close(1000, "bye"));
        rig.app.send(&Frame::close(1000, "bye")).await;
        let told = if order.is_some() { Frame::close(1012, "service restart") } else { Frame::close(1000, "bye") };
        assert_eq!(rig.client.expect().await, told);
        assert_eq!((rig.client.frame().await, rig.app.frame().await), (None, None));
        let ending = rig.ending().await;
        assert_eq!(ending.upstream_code, 1000);
        assert_eq!(ending.cause.reason(), if order.is_some() { EndReason::Drain } else { EndReason::Normal });
    }
}

#[tokio::test(start_paused = true)]
async fn s55_an_end_by_age_leaves_the_clients_own_close_to_the_app() {
    let policy = Policy { mode: Mode::Off, ..Policy::default() };
    let mut rig = Rig::with(Plan { policy, max_age: Some(100 * SECOND), ..Plan::default() });
    assert_eq!(rig.client.expect().await, Frame::close(1012, "maximum age"));
    rig.client.send(&Frame::new(TEXT, b"last words")).await;
    rig.client.send(&Frame::close(4001, "mine")).await;
    assert_eq!(rig.app.expect().await, Frame::new(TEXT, b"last words"));
    assert_eq!(rig.app.expect().await, Frame::close(4001, "mine"));
    rig.app.send(&Frame::close(4001, "mine")).await;
    assert_eq!((rig.client.frame().await, rig.app.frame().await), (None, None));
    let ending = rig.ending().await;
    assert_eq!((ending.cause.reason(), ending.client_code, ending.upstream_code), (EndReason::MaxAge, 1012, 4001));
}

#[tokio::test(start_paused = true)]
async fn s59_bytes_that_are_thrown_away_do_not_keep_a_session_open() {
    for app_closes in [true, false] {
        let mut rig = Rig::new();
        let close = Frame::close(1000, "bye");
        if app_closes {
            rig.app.send(&close).await;
            assert_eq!(rig.client.expect().await, close);
        } else {
            rig.client.send(&close).await;
            assert_eq!(rig.app.expect().await, close);
        }
        let closed = rig.elapsed();
        // A frame that never ends, in single bytes, is not relayed as a whole. To the closed peer nothing of it is
        // relayed.
        let noise = if app_closes { &mut rig.app } else { &mut rig.client };
        let mut sent = 0;
        while noise.try_send(b"x").await.is_ok() && sent < 200 {
            tokio::time::sleep(SECOND / 2).await;
            sent += 1;
        }
        let ending = rig.ending().await;
        let took = ending.duration.saturating_sub(closed);
        assert!(took >= 20 * SECOND && took <= 22 * SECOND + SECOND / 2, "timeout and grace: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn s66_what_the_app_sends_behind_the_clients_fin_arrives_however_late() {
    let mut rig = Rig::new();
    rig.client.send(&Frame::new(TEXT, b"question")).await;
    rig.client.fin().await;
    assert_eq!(rig.app.expect().await, Frame::new(TEXT, b"question"));
    assert_eq!(rig.app.frame().await, None, "FIN is carried");
    tokio::time::sleep(60 * SECOND).await;
    rig.app.send(&Frame::new(TEXT, b"answer")).await;
    assert_eq!(rig.client.expect().await, Frame::new(TEXT, b"answer"));
    let ending = rig.ending().await;
    assert_eq!(ending.cause.reason(), EndReason::ClientLost);
    assert!(ending.duration <= 301 * SECOND, "max_deferral is absolute: {:?}", ending.duration);
}

#[tokio::test(start_paused = true)]
async fn s68_an_invalid_close_is_answered_and_fin_follows_at_once() {
    for (payload, code, reason) in [
        (&b"\x03"[..], 1002, "invalid close code"),
        (&[0, 0], 1002, "invalid close code"),
        (&1005_u16.to_be_bytes(), 1002, "invalid close code"),
        (b"\x03\xe8\xff\xfe", 1007, "close reason is not UTF-8"),
    ] {
        let mut rig = Rig::new();
        rig.client.send(&Frame::new(CLOSE, payload)).await;
        assert_eq!(rig.app.expect().await, Frame::close(code, reason));
        rig.app.send(&Frame::close(code, reason)).await;
        assert_eq!(rig.client.expect().await, Frame::close(code, reason), "once");
        assert_eq!((rig.client.frame().await, rig.app.frame().await), (None, None));
        assert!(rig.elapsed() < SECOND / 10, "FIN at once, not after the grace: {:?}", rig.elapsed());
        let ending = rig.ending().await;
        assert_eq!((ending.cause.reason(), ending.client_code), (EndReason::ProtocolError, code));
    }
}

#[tokio::test(start_paused = true)]
async fn s69_answers_to_what_came_before_a_violation_go_before_the_1002() {
    let mut rig = Rig::new();
    let mut sent = Frame::new(TEXT, b"question").encode(true);
    sent.extend(Frame::new(3, b"reserved").encode(true));
    sent.extend(Frame::new(TEXT, b"too late").encode(true));
    rig.client.send_raw(&sent).await;
    let told = Frame::close(1002, "reserved opcode");
    assert_eq!(rig.app.expect().await, Frame::new(TEXT, b"question"));
    assert_eq!(rig.app.expect().await, told, "and nothing behind the violation");
    tokio::time::sleep(SECOND).await;
    rig.app.send(&Frame::new(TEXT, b"answer")).await;
    rig.app.send(&told).await;
    assert_eq!(rig.client.expect().await, Frame::new(TEXT, b"answer"));
    assert_eq!(rig.client.expect().await, told);
    assert_eq!((rig.client.frame().await, rig.app.frame().await), (None, None), "once");
    assert!(rig.elapsed() < 2 * SECOND, "{:?}", rig.elapsed());
}

#[tokio::test(start_paused = true)]
async fn s69_an_app_that_goes_on_has_the_grace_and_no_more() {
    let mut rig = Rig::new();
    rig.client.send_raw(&Frame::new(3, b"reserved").encode(true)).await;
    let told = Frame::close(1002, "reserved opcode");
    assert_eq!(rig.app.expect().await, told);
    while rig.elapsed() < 2 * SECOND {
        rig.app.send(&Frame::new(TEXT, b"news")).await;
        assert_eq!(rig.client.expect().await, Frame::new(TEXT, b"news"));
        tokio::time::sleep(SECOND / 4).await;
    }
    assert_eq!(rig.client.expect().await, told);
    assert_eq!(rig.client.frame().await, None);
    assert!(rig.elapsed() < 3 * SECOND, "{:?}", rig.elapsed());
}

#[tokio::test(start_paused = true)]
async fn s69_a_close_that_the_app_began_stands_alone() {
    let mut rig = Rig::new();
    rig.app.send(&Frame::close(4000, "mine")).await;
    assert_eq!(rig.client.expect().await, Frame::close(4000, "mine"));
    rig.client.send_raw(&Frame::new(3, b"reserved").encode(true)).await;
    assert_eq!(rig.client.frame().await, None, "no second Close");
    assert_eq!(rig.app.expect().await, Frame::close(1002, "reserved opcode"));
    assert_eq!(rig.ending().await.client_code, 4000);
}

#[tokio::test(start_paused = true)]
async fn s80_the_apps_leg_of_a_killed_session_ends_within_one_grace() {
    let mut rig = Rig::with(Plan { pipe: 400, ..Plan::default() });
    // The client takes nothing, so that a frame to it is half-written.
    let (_, down) = message(100_000);
    rig.app.send_raw_soon(down);
    tokio::time::sleep(SECOND).await;
    let ordered = rig.elapsed();
    rig.control.give(SessionOrder::Close { code: 1008, reason: "closed by the operator".into() });
    assert_eq!(rig.app.expect().await, Frame::close(1008, "closed by the operator"));
    assert_eq!(rig.app.frame().await, None);
    let took = rig.elapsed() - ordered;
    assert!(took <= 2 * SECOND + SECOND / 5, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn s82_an_app_that_has_closed_and_ended_may_still_listen() {
    let mut rig = Rig::new();
    rig.app.send(&Frame::close(1000, "enough")).await;
    rig.app.fin().await;
    assert_eq!(rig.client.expect().await, Frame::close(1000, "enough"));
    tokio::time::sleep(SECOND).await;
    rig.client.send(&Frame::new(TEXT, b"last words")).await;
    rig.client.send(&Frame::close(1000, "enough")).await;
    assert_eq!(rig.app.expect().await, Frame::new(TEXT, b"last words"));
    assert_eq!(rig.app.expect().await, Frame::close(1000, "enough"));
    assert_eq!((rig.client.frame().await, rig.app.frame().await), (None, None));
    let ending = rig.ending().await;
    assert_eq!((ending.client_code, ending.upstream_code), (1000, 1000));
    assert!(ending.duration < 2 * SECOND, "{:?}", ending.duration);
}

#[tokio::test(start_paused = true)]
async fn s67_what_the_client_sent_before_a_write_to_it_failed_is_delivered() {
    for closes in [true, false] {
        let mut rig = Rig::new();
        *rig.client_broken.lock().unwrap() = Some(std::io::ErrorKind::BrokenPipe);
        rig.app.send(&Frame::new(TEXT, b"news")).await;
        tokio::time::sleep(SECOND / 10).await;
        rig.client.send(&Frame::new(TEXT, b"last words")).await;
        assert_eq!(rig.app.expect().await, Frame::new(TEXT, b"last words"));
        if closes {
            rig.client.send(&Frame::close(1000, "bye")).await;
            assert_eq!(rig.app.expect().await, Frame::close(1000, "bye"));
            rig.app.send(&Frame::close(1000, "bye")).await;
        }
        assert_eq!(rig.app.frame().await, None);
        let ending = rig.ending().await;
        let expected = if closes {
            (EndReason::Normal, 1000, None)
        } else {
            (EndReason::ClientLost, 1006, Some("connection closed while writing"))
        };
        assert_eq!(ending.cause.initiator(), Initiator::Client);
        assert_eq!((ending.cause.reason(), ending.client_code, ending.cause.detail()), expected);
        assert!(ending.duration <= 5 * SECOND, "{:?}", ending.duration);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_the_kernel_gave_up_is_a_slow_reader_and_no_normal_end() {
    let mut rig = Rig::new();
    *rig.client_broken.lock().unwrap() = Some(std::io::ErrorKind::TimedOut);
    rig.app.send(&Frame::new(TEXT, b"news")).await;
    assert_eq!(rig.app.expect().await, Frame::close(4408, "slow reader"));
    let ending = rig.ending().await;
    assert_eq!((ending.cause.reason(), ending.client_code), (EndReason::SlowReader, 1006));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_breaks_a_rule_while_the_session_ends_is_read_no_further() {
    let limits = Limits { messages_per_second: Some(2), ..Limits::default() };
    let flood: Vec<u8> = (0..5).flat_map(|_| Frame::new(TEXT, b"one too many").encode(true)).collect();
    let broken = [Frame::new(3, b"").encode(true), Frame::new(TEXT, b"behind").encode(true)].concat();
    for (sent, passes, told) in
        [(flood, 2, Frame::close(1008, "too many messages")), (broken, 0, Frame::close(1002, "reserved opcode"))]
    {
        let mut rig = Rig::with(Plan { limits, ..Plan::default() });
        rig.app.send(&Frame::close(1000, "enough")).await;
        assert_eq!(rig.client.expect().await, Frame::close(1000, "enough"));
        rig.client.send_raw(&sent).await;
        for _ in 0..passes {
            assert_eq!(rig.app.expect().await, Frame::new(TEXT, b"one too many"));
        }
        assert_eq!(rig.app.expect().await, told);
        assert_eq!((rig.app.frame().await, rig.client.frame().await), (None, None));
        let ending = rig.ending().await;
        assert_eq!((ending.cause.initiator(), ending.cause.reason()), (Initiator::Upstream, EndReason::Normal));
    }
    let mut rig = Rig::new();
    rig.client.send(&Frame::close(1000, "bye")).await;
    assert_eq!(rig.app.expect().await, Frame::close(1000, "bye"));
    rig.app.send_raw(&[Frame::new(3, b"").encode(false), Frame::new(TEXT, b"behind").encode(false)].concat()).await;
    assert_eq!(rig.client.expect().await, Frame::close(1012, "upstream protocol error"));
    assert_eq!((rig.app.frame().await, rig.client.frame().await), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_client_has_half_closed_can_still_be_ended() {
    for (order, told, reason) in [
        (SessionOrder::Drain { code: 1012 }, Frame::close(1012, "service restart"), EndReason::Drain),
        (SessionOrder::Close { code: 4000, reason: "moved".into() }, Frame::close(4000, "moved"), EndReason::Admin),
        (SessionOrder::UpstreamUnresponsive, Frame::close(1012, "upstream unresponsive"), EndReason::UpstreamLost),
    ] {
        let mut rig = Rig::new();
        rig.client.fin().await;
        assert_eq!(rig.app.frame().await, None);
        rig.app.send(&Frame::new(TEXT, b"still here")).await;
        assert_eq!(rig.client.expect().await, Frame::new(TEXT, b"still here"));
        rig.control.give(order);
        assert_eq!(rig.client.expect().await, told);
        assert_eq!(rig.client.frame().await, None);
        let ending = rig.ending().await;
        assert_eq!((ending.cause.reason(), ending.client_code), (reason, told_code(&told)));
        assert!(ending.duration <= 5 * SECOND, "{:?}", ending.duration);
    }
}

/// Returns the code of a Close.
fn told_code(close: &Frame) -> u16 {
    u16::from_be_bytes([close.payload[0], close.payload[1]])
}
