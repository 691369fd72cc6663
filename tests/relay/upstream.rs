//! The upstream leg: backpressure towards it, its loss, and its own heartbeat.

use std::time::Duration;

use pulsegate::heartbeat::{Delivery, Liveness, Policy};
use pulsegate::relay::SessionOrder;
use pulsegate::session::{EndReason, Initiator};
use tokio::time::sleep;

use crate::rig::{BINARY, Frame, PING, PONG, Plan, Rig, TEXT};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn s25_a_client_is_not_blamed_while_the_app_reads_nothing() {
    let mut rig = Rig::with(Plan { pipe: 1024, ..Plan::default() });
    let frame = Frame::new(BINARY, &[3; 3000]);
    rig.client.send_raw(&frame.encode(true)[..2800]).await;
    // The app takes nothing for four minutes; meanwhile nothing of the client is read.
    rig.client.silent(240 * SECOND).await;
    rig.client.send_raw_soon(frame.encode(true)[2800..].to_vec());
    assert_eq!(rig.app.expect().await, frame, "every byte arrives");
}

#[tokio::test(start_paused = true)]
async fn an_app_that_takes_nothing_for_max_deferral_loses_the_session() {
    let mut rig = Rig::with(Plan { pipe: 1024, ..Plan::default() });
    rig.client.send_raw(&Frame::new(BINARY, &[3; 3000]).encode(true)[..2500]).await;
    assert_eq!(rig.client.expect().await, Frame::close(1012, "upstream unresponsive"));
    assert!(rig.elapsed() >= 300 * SECOND && rig.elapsed() < 302 * SECOND, "{:?}", rig.elapsed());
    assert_eq!(rig.ending().await.cause.reason(), EndReason::UpstreamLost);
}

#[tokio::test(start_paused = true)]
async fn s22_a_client_that_takes_no_bytes_is_gone_within_write_stall() {
    let mut rig = Rig::with(Plan { pipe: 1024, ..Plan::default() });
    *rig.kernel.lock().unwrap() = Some(Delivery { acked: 500, unread: false });
    rig.app.send_raw_soon(Frame::new(BINARY, &[1; 100_000]).encode(false));
    tokio::time::sleep(SECOND).await;
    assert_eq!(rig.app.frame().await.map(|close| close.payload[2..].to_vec()), Some(b"slow reader".to_vec()));
    assert!(rig.elapsed() <= 53 * SECOND, "write_stall and one look: {:?}", rig.elapsed());
    assert_eq!(rig.ending().await.cause.reason(), EndReason::SlowReader);
}

#[tokio::test(start_paused = true)]
async fn s21_a_slow_steady_reader_lives() {
    let policy = Policy { write_stall: 10 * SECOND, ..Policy::default() };
    let mut rig = Rig::with(Plan { pipe: 1024, policy, ..Plan::default() });
    let frame = Frame::new(BINARY, &[9; 32_000]);
    rig.app.send_raw_soon(frame.encode(false));
    let encoded = frame.encode(false);
    // Half the write stall between reads, for well over two minutes.
    for part in encoded.chunks(1000) {
        tokio::time::sleep(5 * SECOND).await;
        assert_eq!(rig.client.exactly(part.len()).await, part);
    }
    assert!(rig.elapsed() > 150 * SECOND);
    let ping = rig.client.expect().await;
    assert_eq!(ping.opcode(), PING, "the probe comes behind the backlog");
    rig.client.send(&Frame::new(PONG, &ping.payload)).await;
    rig.client.send(&Frame::new(TEXT, b"alive")).await;
    assert_eq!(rig.app.expect().await.payload, b"alive");
}

#[tokio::test(start_paused = true)]
async fn a_lost_app_gives_its_client_1012_at_once() {
    let mut rig = Rig::new();
    rig.app.fin().await;
    let lost = rig.elapsed();
    assert_eq!(rig.client.expect().await, Frame::close(1012, "upstream lost"));
    assert_eq!(rig.elapsed(), lost);
    let ending = rig.ending().await;
    assert_eq!((ending.cause.initiator(), ending.cause.reason()), (Initiator::Upstream, EndReason::UpstreamLost));
    assert_eq!((ending.client_code, ending.upstream_code), (1012, 1006));
}

#[tokio::test(start_paused = true)]
async fn the_apps_last_words_arrive_even_when_it_hangs_up_behind_them() {
    let mut rig = Rig::with(Plan { pipe: 512, ..Plan::default() });
    let words = Frame::new(TEXT, &[b'w'; 2000]);
    rig.app.send_raw_soon([words.encode(false), Frame::close(1000, "done").encode(false)].concat());
    rig.app.fin_soon();
    assert_eq!(rig.client.expect().await, words);
    assert_eq!(rig.client.expect().await, Frame::close(1000, "done"));
    rig.client.send(&Frame::close(1000, "done")).await;
    assert_eq!(rig.client.frame().await, None);
    assert_eq!(rig.ending().await.cause.initiator(), Initiator::Upstream);
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_the_app_is_masked_and_its_pong_stops_here() {
    let mut rig = Rig::new();
    rig.control.give(SessionOrder::ProbeUpstream);
    let probe = rig.app.expect().await;
    assert_eq!((probe.opcode(), probe.payload.len()), (PING, 8));
    rig.app.send(&Frame::new(PONG, &probe.payload)).await;
    rig.app.send(&Frame::new(TEXT, b"next")).await;
    assert_eq!(rig.client.expect().await, Frame::new(TEXT, b"next"), "the client never sees the pong");
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_the_app_waits_for_the_end_of_the_clients_frame() {
    let mut rig = Rig::new();
    let frame = Frame::new(BINARY, &[5; 100]);
    let encoded = frame.encode(true);
    rig.client.send_raw(&encoded[..50]).await;
    rig.app.exactly(50).await;
    rig.control.give(SessionOrder::ProbeUpstream);
    tokio::time::sleep(SECOND).await;
    rig.client.send_raw(&encoded[50..]).await;
    assert_eq!(rig.app.exactly(encoded.len() - 50).await, encoded[50..]);
    assert_eq!(rig.app.expect().await.opcode(), PING);
}

#[tokio::test(start_paused = true)]
async fn an_unresponsive_app_loses_its_clients_with_1012() {
    let mut rig = Rig::new();
    rig.control.give(SessionOrder::UpstreamUnresponsive);
    assert_eq!(rig.client.expect().await, Frame::close(1012, "upstream unresponsive"));
    assert_eq!(rig.ending().await.cause.reason(), EndReason::UpstreamLost);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_is_not_blamed_while_an_app_that_takes_nothing_more_is_waited_for() {
    let liveness = Liveness::PongOnly;
    let policy = Policy { interval: 8 * SECOND, timeout: 6 * SECOND, liveness, ..Policy::default() };
    let mut rig = Rig::with(Plan { policy, ..Plan::default() });
    // The probe is in flight when the write fails.
    let ping = rig.client.expect().await;
    assert_eq!(ping.opcode(), PING);
    sleep(5 * SECOND).await;
    *rig.app_broken.lock().unwrap() = Some(std::io::ErrorKind::BrokenPipe);
    rig.client.send(&Frame::new(PING, b"c")).await;
    sleep(SECOND / 100).await;
    rig.client.send(&Frame::new(PONG, &ping.payload)).await;
    sleep(2 * SECOND).await;
    rig.client.send(&Frame::new(PONG, b"still here")).await;
    assert_eq!(rig.client.expect().await, Frame::close(1012, "upstream lost"));
    rig.client.send(&Frame::close(1012, "")).await;
    rig.client.fin().await;
    let ending = rig.ending().await;
    assert_eq!((ending.cause.reason(), ending.heartbeat.missed), (EndReason::UpstreamLost, 0));
}
