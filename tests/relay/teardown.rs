//! The end of a session: what each leg is told, in which order, and how long it may take.

use std::time::Duration;

use pulsegate::heartbeat::{CloseSpec, Mode, OnMiss, Policy, UpstreamEnd};
use pulsegate::relay::{EndReason, Initiator, Order};

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
    // The upload goes on after the Close is out; none of it is refused with a reset.
    for part in parts.take(5) {
        rig.client.try_send(part).await.expect("drained, not reset");
    }
    assert_eq!(rig.client.expect().await, Frame::close(1012, "frame took too long"));
    assert!(!aborted(&rig.client_aborted));
}

#[tokio::test(start_paused = true)]
async fn s33_a_client_that_never_echoes_is_reset_after_the_grace() {
    let mut rig = Rig::new();
    assert_eq!(rig.client.expect().await.opcode(), PING);
    assert_eq!(rig.client.expect().await.opcode(), CLOSE);
    let closed = rig.elapsed();
    assert_eq!(rig.client.frame().await, None);
    let grace = rig.elapsed().saturating_sub(closed);
    assert!(grace >= 2 * SECOND && grace <= 2 * SECOND + SECOND / 10, "{grace:?}");
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
    rig.control.give(Order::Drain { code: 1012 });
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
    assert_eq!((ending.initiator, ending.reason), (Initiator::Upstream, EndReason::Normal));
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
    assert_eq!((ending.initiator, ending.reason), (Initiator::Client, EndReason::Normal));
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
    assert_eq!(rig.ending().await.reason, EndReason::HeartbeatTimeout, "no resurrection");
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
    assert_eq!((ending.initiator, ending.reason, ending.client_code), (Initiator::Client, EndReason::Normal, 1006));
}

#[tokio::test(start_paused = true)]
async fn drain_tells_both_legs_1012() {
    let mut rig = Rig::new();
    rig.control.give(Order::Drain { code: 1012 });
    rig.control.give(Order::ProbeUpstream);
    let close = Frame::close(1012, "service restart");
    assert_eq!(rig.client.expect().await, close);
    assert_eq!(rig.app.expect().await, close);
    rig.client.send(&close).await;
    rig.app.send(&close).await;
    assert_eq!(rig.client.frame().await, None);
    assert_eq!(rig.app.frame().await, None);
    rig.client.fin().await;
    rig.app.fin().await;
    let ending = rig.ending().await;
    assert_eq!((ending.initiator, ending.reason), (Initiator::Proxy, EndReason::Drain));
    assert!(ending.duration < SECOND, "both answered: {:?}", ending.duration);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_within_the_grace_does_not_swallow_its_end() {
    let mut rig = Rig::new();
    // The app's ping goes unanswered, so the relay's timer is armed for its window; the drain comes just before.
    rig.app.send(&Frame::new(PING, b"")).await;
    assert_eq!(rig.client.expect().await.opcode(), PING);
    tokio::time::sleep(19 * SECOND).await;
    rig.control.give(Order::Drain { code: 1012 });
    let drained = rig.elapsed();
    let ending = rig.ending().await;
    let grace = ending.duration.saturating_sub(drained);
    assert!(grace <= 2 * SECOND + SECOND / 10, "{grace:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_tells_the_client_the_code_it_was_given_and_the_app_1012() {
    for (code, reason) in [(1001, "going away"), (1013, "try again later"), (4999, "service restart")] {
        let mut rig = Rig::new();
        rig.control.give(Order::Drain { code });
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
        rig.control.give(Order::Drain { code: 1012 });
        tokio::time::sleep(SECOND).await;
        if ends {
            rig.app.send_raw(&down[400..]).await;
            rig.client.send_raw(&up[400..]).await;
            assert_eq!(rig.client.exactly(604).await, down[400..]);
            assert_eq!(rig.client.expect().await, Frame::close(1012, "service restart"));
            assert_eq!(rig.app.expect().await, encoded);
            assert_eq!(rig.app.expect().await, Frame::close(1012, "service restart"));
            assert_eq!(rig.elapsed() - ordered, SECOND);
        } else {
            assert_eq!(rig.client.rest().await, b"", "no Close inside a frame");
            assert_eq!(rig.elapsed() - ordered, 4 * SECOND, "two for the frame, two of grace for the app");
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
    assert_eq!(rig.app.expect().await, close);
    rig.client.send(&close).await;
    rig.app.send(&close).await;
    assert_eq!((rig.client.frame().await, rig.app.frame().await), (None, None));
    let ending = rig.ending().await;
    assert_eq!((ending.initiator, ending.reason), (Initiator::Proxy, EndReason::MaxAge));
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
    rig.control.give(Order::Drain { code: 1012 });
    assert_eq!(rig.client.rest().await, b"", "age would have waited");
    assert_eq!(rig.ending().await.reason, EndReason::Drain);
}
