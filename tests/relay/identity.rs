//! The matching of pings and pongs to the client, the app and the proxy.

use std::time::Duration;

use pulsegate::heartbeat::{ClientPing, Policy};
use pulsegate::session::{EndReason, Initiator};
use tokio::time::sleep;

use crate::rig::{CLOSE, Frame, PING, PONG, Plan, Rig, TEXT};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn s01_an_idle_client_gets_one_ping_with_a_nonce_of_its_own() {
    let mut rig = Rig::new();
    let first = rig.client.expect().await;
    assert_eq!(first.first, 0x80 | PING, "FIN, RSV 0, Ping");
    assert!(rig.elapsed() <= 25 * SECOND && rig.elapsed() >= 12 * SECOND, "{:?}", rig.elapsed());
    assert_eq!(first.payload.len(), 8);
    rig.client.send(&Frame::new(PONG, &first.payload)).await;
    let second = rig.client.expect().await;
    assert_ne!(first.payload, second.payload);
    assert_eq!(first.payload[..4], second.payload[..4], "one nonce for the connection");
}

#[tokio::test(start_paused = true)]
async fn s02_the_answer_to_our_ping_never_reaches_the_app() {
    let mut rig = Rig::new();
    for _ in 0..10 {
        let ping = rig.client.expect().await;
        rig.client.send(&Frame::new(PONG, &ping.payload)).await;
    }
    rig.client.send(&Frame::new(TEXT, b"end")).await;
    assert_eq!(rig.app.expect().await, Frame::new(TEXT, b"end"), "the first thing the app sees");
}

#[tokio::test(start_paused = true)]
async fn s03_a_dead_client_is_gone_from_both_legs_within_the_bound() {
    let mut rig = Rig::new();
    assert_eq!(rig.client.expect().await.opcode(), PING);
    assert_eq!(rig.app.expect().await, Frame::close(4408, "heartbeat timeout"));
    assert!(rig.elapsed() <= 45 * SECOND, "interval + timeout, not {:?}", rig.elapsed());
    assert_eq!(rig.client.expect().await, Frame::close(1012, "heartbeat timeout"));
    assert_eq!(rig.client.frame().await, None);
    assert_eq!(rig.app.frame().await, None);
    let ending = rig.ending().await;
    assert_eq!((ending.cause.initiator(), ending.cause.reason()), (Initiator::Proxy, EndReason::HeartbeatTimeout));
    assert_eq!((ending.client_code, ending.upstream_code), (1012, 4408));
    assert_eq!((ending.heartbeat.pings, ending.heartbeat.missed), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn s04_the_apps_own_ping_and_its_pong_pass_untouched() {
    let mut rig = Rig::new();
    rig.app.send(&Frame::new(PING, b"from the app")).await;
    assert_eq!(rig.client.expect().await, Frame::new(PING, b"from the app"));
    rig.client.send(&Frame::new(PONG, b"from the app")).await;
    assert_eq!(rig.app.expect().await, Frame::new(PONG, b"from the app"));
}

#[tokio::test(start_paused = true)]
async fn s05_an_app_ping_before_ours_gets_its_pong_when_only_ours_is_answered() {
    let mut rig = Rig::new();
    rig.app.send(&Frame::new(PING, b"app")).await;
    assert_eq!(rig.client.expect().await.payload, b"app");
    // Data keeps the client alive, so that the proxy's ping follows although the app's is unanswered.
    let ours = loop {
        rig.client.send(&Frame::new(TEXT, b"alive")).await;
        assert_eq!(rig.app.expect().await.opcode(), TEXT);
        if let Ok(frame) = tokio::time::timeout(10 * SECOND, rig.client.expect()).await {
            break frame;
        }
    };
    assert_eq!((ours.opcode(), ours.payload.len()), (PING, 8));
    rig.client.send(&Frame::new(PONG, &ours.payload)).await;
    assert_eq!(rig.app.expect().await, Frame::new(PONG, b"app"));
    rig.app.silent(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn s06_an_app_ping_that_the_client_dropped_is_sent_once_more() {
    let mut rig = Rig::new();
    let ours = rig.client.expect().await;
    rig.app.send(&Frame::new(PING, b"app")).await;
    assert_eq!(rig.client.expect().await.payload, b"app");
    rig.client.send(&Frame::new(PONG, &ours.payload)).await;
    let again = rig.client.expect().await;
    assert_eq!(again, Frame::new(PING, b"app"), "reissued");
    rig.client.send(&Frame::new(PONG, b"app")).await;
    assert_eq!(rig.app.expect().await, Frame::new(PONG, b"app"));
    assert_eq!(rig.client.expect().await.payload.len(), 8, "next comes a ping of ours, no third copy");
}

#[tokio::test(start_paused = true)]
async fn s81_app_pings_that_are_answered_go_out_once_and_bring_one_pong_each() {
    let policy = Policy { interval: SECOND, timeout: 2 * SECOND, jitter: 0.0, ..Policy::default() };
    let mut rig = Rig::with(Plan { policy, ..Plan::default() });
    let (a, b) = (Frame::new(PING, b"A"), Frame::new(PING, b"B"));
    let pong = |payload: &[u8]| Frame::new(PONG, payload);
    for round in 0..3 {
        let ours = rig.client.expect().await;
        assert_eq!(ours.payload.len(), 8, "round {round}: {ours:?}");
        sleep(SECOND / 20).await;
        rig.app.send(&a).await;
        assert_eq!(rig.client.expect().await, a);
        sleep(SECOND * 3 / 20).await;
        rig.client.send(&pong(&ours.payload)).await;
        sleep(SECOND / 20).await;
        rig.client.send(&pong(b"A")).await;
        assert_eq!(rig.app.expect().await, pong(b"A"));
        sleep(SECOND * 17 / 20).await;
        rig.app.send(&b).await;
        assert_eq!(rig.client.expect().await, b);
        // A second copy would arrive here.
        rig.client.silent(SECOND / 5).await;
        rig.client.send(&pong(b"B")).await;
        assert_eq!(rig.app.expect().await, pong(b"B"));
    }
    rig.app.silent(SECOND / 10).await;
}

#[tokio::test(start_paused = true)]
async fn s81_the_surplus_pong_to_a_reissued_app_ping_does_not_reach_the_app() {
    let mut rig = Rig::new();
    let ours = rig.client.expect().await;
    rig.app.send(&Frame::new(PING, b"app")).await;
    assert_eq!(rig.client.expect().await.payload, b"app");
    rig.client.send(&Frame::new(PONG, &ours.payload)).await;
    assert_eq!(rig.client.expect().await, Frame::new(PING, b"app"), "reissued");
    for _ in 0..2 {
        rig.client.send(&Frame::new(PONG, b"app")).await;
    }
    assert_eq!(rig.app.expect().await, Frame::new(PONG, b"app"));
    rig.app.silent(SECOND).await;
    // The next ping with this payload gets its own pong.
    rig.app.send(&Frame::new(PING, b"app")).await;
    assert_eq!(rig.client.expect().await, Frame::new(PING, b"app"));
    rig.client.send(&Frame::new(PONG, b"app")).await;
    assert_eq!(rig.app.expect().await, Frame::new(PONG, b"app"));
}

#[tokio::test(start_paused = true)]
async fn s07_a_pong_with_a_damaged_payload_is_alive_and_forwarded() {
    let mut rig = Rig::new();
    let ours = rig.client.expect().await;
    let mut damaged = ours.payload.clone();
    damaged[0] ^= 0xFF;
    rig.client.send(&Frame::new(PONG, &damaged)).await;
    assert_eq!(rig.app.expect().await, Frame::new(PONG, &damaged));
    assert_eq!(rig.client.expect().await.opcode(), PING, "the next interval, not a teardown");
    rig.client.send(&Frame::close(1000, "")).await;
    assert_eq!(rig.app.expect().await.opcode(), CLOSE);
    rig.app.send(&Frame::close(1000, "")).await;
    assert_eq!(rig.ending().await.heartbeat.strays, 1, "counted");
}

#[tokio::test(start_paused = true)]
async fn s08_an_unsolicited_pong_is_forwarded_and_never_answered() {
    let mut rig = Rig::new();
    rig.client.send(&Frame::new(PONG, b"hello")).await;
    assert_eq!(rig.app.expect().await, Frame::new(PONG, b"hello"));
    rig.client.silent(10 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn s10_empty_app_pings_and_ours_are_never_mixed_up() {
    let mut rig = Rig::new();
    let mut ours = 0;
    for _ in 0..20 {
        rig.app.send(&Frame::new(PING, b"")).await;
        while let Ok(ping) = tokio::time::timeout(9 * SECOND, rig.client.expect()).await {
            ours += usize::from(!ping.payload.is_empty());
            rig.client.send(&Frame::new(PONG, &ping.payload)).await;
        }
        assert_eq!(rig.app.expect().await, Frame::new(PONG, b""));
    }
    rig.app.silent(SECOND / 100).await;
    assert!(ours <= 1, "an app that pings every 9 s needs no probe beside its own: {ours}");
}

#[tokio::test(start_paused = true)]
async fn s11_a_clients_ping_is_not_answered_in_the_apps_place() {
    let mut rig = Rig::new();
    rig.client.send(&Frame::new(PING, b"you there?")).await;
    assert_eq!(rig.app.expect().await, Frame::new(PING, b"you there?"));
    rig.client.silent(10 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_clients_ping_is_answered_here_where_the_route_says_so() {
    let policy = Policy { client_ping: ClientPing::Answer, ..Policy::default() };
    let mut rig = Rig::with(Plan { policy, ..Plan::default() });
    rig.client.send(&Frame::new(PING, b"quick")).await;
    assert_eq!(rig.client.expect().await, Frame::new(PONG, b"quick"));
    rig.app.silent(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn twenty_pings_a_second_pass_and_more_end_the_session_with_1008() {
    let mut rig = Rig::new();
    for _ in 0..20 {
        rig.client.send(&Frame::new(PING, b"x")).await;
    }
    for _ in 0..20 {
        assert_eq!(rig.app.expect().await.opcode(), PING);
    }
    rig.client.send(&Frame::new(PING, b"x")).await;
    assert_eq!(rig.client.expect().await, Frame::close(1008, "too many pings"));
    assert_eq!(rig.app.expect().await, Frame::close(1008, "too many pings"));
    assert_eq!(rig.ending().await.cause.reason(), EndReason::Rate);
}
