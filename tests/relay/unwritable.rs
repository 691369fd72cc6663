//! The end of sessions with a leg that takes no more bytes, although its peer has not ended.

use pulsegate::session::{EndReason, Initiator};
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::rig::{Frame, Rig, TEXT, aborted};

const SECOND: Duration = Duration::from_secs(1);
/// The default `timeout` and `close_grace`, and a timer's error.
const HALF: Duration = Duration::from_secs(20);
const BOUND: Duration = Duration::from_millis(22_100);

/// Returns a session whose app takes nothing since a write to it failed.
async fn unwritable_app() -> Rig {
    let mut rig = Rig::new();
    *rig.app_broken.lock().unwrap() = Some(io::ErrorKind::BrokenPipe);
    rig.client.send(&Frame::new(TEXT, b"into the void")).await;
    tokio::time::sleep(SECOND).await;
    rig
}

#[tokio::test(start_paused = true)]
async fn s59_a_close_to_an_app_that_takes_nothing_has_its_bound() {
    let mut rig = unwritable_app().await;
    let closed = rig.elapsed();
    rig.client.send(&Frame::close(1000, "bye")).await;
    // Later messages of the app arrive.
    rig.app.send(&Frame::new(TEXT, b"news")).await;
    assert_eq!(rig.client.expect().await, Frame::new(TEXT, b"news"));
    assert_eq!(rig.client.frame().await, None, "FIN, for there is no answer");
    let took = rig.elapsed() - closed;
    assert!(took >= HALF && took <= BOUND, "{took:?}");
    let ending = rig.ending().await;
    assert_eq!((ending.cause.initiator(), ending.cause.reason()), (Initiator::Client, EndReason::Normal));
    assert_eq!((ending.client_code, ending.upstream_code), (1000, 1006));
    assert!(ending.duration <= closed + BOUND, "{:?}", ending.duration);
}

#[tokio::test(start_paused = true)]
async fn s59_a_close_whose_own_write_fails_has_its_bound() {
    let mut rig = Rig::new();
    *rig.app_broken.lock().unwrap() = Some(io::ErrorKind::BrokenPipe);
    rig.client.send(&Frame::close(1000, "bye")).await;
    assert_eq!(rig.client.frame().await, None);
    let ending = rig.ending().await;
    assert_eq!((ending.client_code, ending.upstream_code), (1000, 1006));
    assert!(ending.duration <= BOUND, "{:?}", ending.duration);
}

#[tokio::test(start_paused = true)]
async fn s59_an_unwritable_app_that_closes_ends_the_session_at_once() {
    let mut rig = unwritable_app().await;
    rig.client.send(&Frame::close(1000, "bye")).await;
    rig.app.send(&Frame::close(4001, "mine")).await;
    assert_eq!(rig.client.expect().await, Frame::close(4001, "mine"));
    assert_eq!((rig.client.frame().await, rig.app.frame().await), (None, None));
    let ending = rig.ending().await;
    assert_eq!((ending.client_code, ending.upstream_code), (4001, 4001));
    assert!(ending.duration < 2 * SECOND, "{:?}", ending.duration);
}

#[tokio::test(start_paused = true)]
async fn s66_a_client_that_ends_while_the_app_takes_nothing_has_its_bound() {
    let mut rig = unwritable_app().await;
    let ended = rig.elapsed();
    rig.client.fin().await;
    rig.app.send(&Frame::new(TEXT, b"news")).await;
    assert_eq!(rig.client.expect().await, Frame::new(TEXT, b"news"));
    assert_eq!(rig.client.frame().await, None);
    let ending = rig.ending().await;
    assert_eq!(ending.upstream_code, 1006);
    assert!(ending.duration <= ended + BOUND, "{:?}", ending.duration);
}

#[tokio::test(start_paused = true)]
async fn s59_a_fin_that_does_not_go_out_has_the_grace_and_costs_no_polls() {
    let mut rig = Rig::new();
    rig.client_fin_blocked.store(true, Ordering::Relaxed);
    rig.app.send(&Frame::close(1000, "enough")).await;
    assert_eq!(rig.client.expect().await, Frame::close(1000, "enough"));
    assert_eq!(rig.app.frame().await, None);
    let flag = rig.client_aborted.clone();
    let ending = rig.ending().await;
    assert_eq!((ending.client_code, ending.upstream_code), (1000, 1000));
    assert!(ending.duration >= HALF && ending.duration <= BOUND, "{:?}", ending.duration);
    assert!(aborted(&flag), "a leg without FIN is reset");
}
