//! The app's leg of a killed or slow session ends within one `close_grace`.

use std::time::{Duration, Instant};

use pulsegate_test_kit::frame::Role;
use tokio::time::{sleep, timeout};

use crate::wire::peer::{MUTE, Pace};
use crate::wire::rig::{self, BEATING, BOUND, Rig, SLACK, Setup, millis, secs, together, true_for_client, variant};

/// A `close_grace` that can be distinguished from its double.
const GRACE: Duration = Duration::from_secs(3);
const SETTINGS: &str = "interval = \"60s\"\ntimeout = \"1s\"\njitter = 0\nclose_grace = \"3s\"\nwrite_stall = \"2s\"";

async fn killed(name: &'static str, blocked_client: bool, uploading: bool) {
    let rig = Rig::start(SETTINGS).await;
    let (client, app) = rig.narrow_pair("/killed").await;
    client.habits(MUTE);
    app.habits(MUTE);
    if blocked_client {
        client.pace(Pace::Stopped);
        app.send(&Role::App.binary(300_000)).await;
        sleep(millis(300)).await;
    }
    let killed = rig.kill("/killed", &[]).await;
    let garbage = Role::Client.binary(1000);
    // Bytes show the close of the app's socket: sending to it fails.
    let mut app_gone = None;
    while killed.elapsed() < 3 * GRACE {
        if uploading {
            let _ = client.try_send(&garbage).await;
        }
        if app.try_send(&Role::App.text("x")).await.is_err() {
            app_gone = Some(killed.elapsed());
            break;
        }
        sleep(millis(100)).await;
    }
    let at_app = app.ended(secs(1)).await;
    assert_eq!(at_app.codes(), [1008], "{name}: the app received {at_app:?}");
    let took = app_gone.unwrap_or_else(|| panic!("{name}: the app's leg is open after {:?}", killed.elapsed()));
    assert!(took < GRACE + SLACK, "{name}: the app's leg ended after {took:?}");
    let line = rig.ended("/killed", secs(5)).await;
    assert!(line.at.saturating_duration_since(killed) < GRACE + SLACK, "{name}: {}", line.text);
    assert_eq!(line.json["close.reason"], "admin", "{name}: {}", line.text);
    client.pace(Pace::Full);
    let at_client = client.ended(secs(5)).await;
    true_for_client(&line.json, &at_client, None);
}

/// Asserts that the uplink ends with the kill although the app takes nothing and the client is blocked within a frame.
async fn killed_before_a_blocked_app() {
    let rig = Rig::set_up(Setup { heartbeat: SETTINGS, narrow_app: true, ..Setup::default() }).await;
    let (client, app) = rig.pair("/blocked-app").await;
    client.habits(MUTE);
    app.habits(MUTE);
    let message = Role::Client.binary(100_000);
    while timeout(millis(500), client.try_send(&message)).await.is_ok() {}
    let killed = rig.kill("/blocked-app", &[]).await;
    let line = rig.ended("/blocked-app", secs(15)).await;
    let took = line.at.saturating_duration_since(killed);
    // Two seconds for the frame under way, or write_stall, which is as long; then close_grace.
    assert!(took < secs(2) + GRACE + SLACK, "ended after {took:?}: {}", line.text);
    assert_eq!(line.json["close.reason"], "admin", "{}", line.text);
    app.pace(Pace::Full);
    let at_app = app.ended(secs(5)).await;
    let wire = at_app.codes().first().copied().unwrap_or(1006);
    assert_eq!(line.json["upstream.close_code"], wire, "the app received {at_app:?}: {}", line.text);
}

/// Asserts that a client that stops reading is closed; the app, which is blocked in a send, is released within one
/// `close_grace` of the decision.
async fn slow() {
    let rig = Rig::start(SETTINGS).await;
    let (client, app) = rig.narrow_pair("/slow").await;
    client.pace(Pace::Stopped);
    app.habits(MUTE);
    let mut last = Instant::now();
    let started = Instant::now();
    let message = Role::App.binary(50_000);
    while started.elapsed() < secs(20) {
        match app.try_send(&message).await {
            Ok(()) => last = Instant::now(),
            Err(_) => break,
        }
    }
    let took = last.elapsed();
    let bound = secs(2) + GRACE;
    assert!(took < bound + SLACK, "the app's leg ended {took:?} after the last progress; bound {bound:?}");
    let line = rig.ended("/slow", secs(5)).await;
    assert_eq!(line.json["close.reason"], "slow_reader", "{}", line.text);
    let at_app = app.ended(secs(1)).await;
    assert_eq!(at_app.codes(), [4408], "the app received {at_app:?}");
    client.pace(Pace::Full);
    let at_client = client.ended(secs(5)).await;
    true_for_client(&line.json, &at_client, None);
}

#[tokio::test]
async fn s80_app_of_a_killed_or_slow_session_is_free_within_one_close_grace() {
    together(vec![
        variant("killed", killed("killed", false, false)),
        variant("killed while it uploads", killed("uploading", false, true)),
        variant("killed while the client is blocked", killed("blocked", true, false)),
        variant("killed while the app is blocked", killed_before_a_blocked_app()),
        variant("slow", slow()),
    ])
    .await;
}

/// The client of a busy app vanishes: its leg ends within the bound, and the app gets all earlier messages, and the
/// Close.
#[tokio::test]
async fn s35_messages_before_a_miss_reach_an_app_that_was_busy() {
    let rig = Rig::narrow(BEATING).await;
    let (client, app) = rig.pair("/busy").await;
    client.habits(MUTE);
    let message = Role::Client.binary(20_000);
    client.send(&message.repeat(5)).await;
    let silent = Instant::now();
    let at_client = client.ended(secs(10)).await;
    let took = at_client.ended_after(silent);
    assert!(took < BOUND + rig::GRACE + SLACK, "the client's leg ended after {took:?}: {at_client:?}");
    assert_eq!(at_client.codes(), [1012], "the client received {at_client:?}");
    sleep(secs(2)).await;
    app.pace(Pace::Full);
    let at_app = app.ended(secs(5)).await;
    let sizes: Vec<usize> = at_app.messages().iter().map(|message| message.len()).collect();
    assert_eq!((sizes, at_app.codes()), (vec![20_000; 5], vec![4408]), "the app received {at_app:?}");
    rig.logs("/busy", "proxy", "heartbeat_timeout", 1012, 4408).await;
}
