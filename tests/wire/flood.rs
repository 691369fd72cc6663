//! Floods of tiny frames spend the runtime's cooperative budget in every poll; the heartbeat keeps its time all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pulsegate_test_kit::frame::{BINARY, Role};
use pulsegate_test_kit::turn::busy_turn;
use pulsegate_test_kit::wait::{wait_for, wait_until};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep;

use crate::wire::peer::{MUTE, Peer};
use crate::wire::rig::{BEATING, BOUND, GRACE, QUIET, Rig, SLACK, secs};

/// The duration of a flood.
const FLOOD: Duration = Duration::from_millis(2500);

/// An endpoint that sends empty frames without a pause. It yields after each burst, so that its reader runs too.
struct Flood {
    peer: Arc<Peer>,
    stop: Arc<AtomicBool>,
    sending: JoinHandle<()>,
}

impl Flood {
    fn start(peer: Peer, role: Role) -> Self {
        let (peer, stop) = (Arc::new(peer), Arc::<AtomicBool>::default());
        let burst = role.frame(BINARY, &[]).repeat(4096);
        let (sender, stopped) = (Arc::clone(&peer), Arc::clone(&stop));
        let sending =
            tokio::spawn(
                async move { while !stopped.load(Ordering::Relaxed) && sender.try_send(&burst).await.is_ok() {} },
            );
        Self { peer, stop, sending }
    }

    /// Ends the flood between two bursts.
    async fn stop(self) -> Arc<Peer> {
        self.stop.store(true, Ordering::Relaxed);
        self.sending.await.expect("the flood ends");
        self.peer
    }
}

#[tokio::test]
async fn s52_client_that_floods_and_falls_silent_is_gone_within_the_bound() {
    let _turn = busy_turn().await;
    let rig = Rig::start(BEATING).await;
    let (client, app) = rig.pair("/up").await;
    client.habits(MUTE);
    let flood = Flood::start(client, Role::Client);
    sleep(FLOOD).await;
    let client = flood.stop().await;
    gone_in_time(&rig, "/up", &client, &app).await;
}

#[tokio::test]
async fn s52_client_that_falls_silent_after_a_flood_of_the_app_is_gone_within_the_bound() {
    let _turn = busy_turn().await;
    let rig = Rig::start(BEATING).await;
    let (client, app) = rig.pair("/down").await;
    client.habits(MUTE);
    let flood = Flood::start(app, Role::App);
    let started = Instant::now();
    // The client's messages are its signs of life; it answers no Ping.
    while started.elapsed() < FLOOD {
        client.text("alive").await;
        sleep(Duration::from_millis(100)).await;
    }
    let app = flood.stop().await;
    gone_in_time(&rig, "/down", &client, &app).await;
}

#[tokio::test]
async fn s52_client_that_falls_silent_after_floods_of_both_sides_is_gone_within_the_bound() {
    let _turn = busy_turn().await;
    let rig = Rig::start(BEATING).await;
    let (client, app) = rig.pair("/both").await;
    client.habits(MUTE);
    let (up, down) = (Flood::start(client, Role::Client), Flood::start(app, Role::App));
    sleep(FLOOD).await;
    let (client, app) = (up.stop().await, down.stop().await);
    gone_in_time(&rig, "/both", &client, &app).await;
}

/// Asserts that both legs are gone within interval + timeout of the client's last byte at the app.
async fn gone_in_time(rig: &Rig, path: &str, client: &Peer, app: &Peer) {
    let at_app = app.closed(secs(12)).await;
    let at_client = client.ended(secs(12)).await;
    // The client's last bytes may have waited in the kernels.
    let silent = at_app.last_data_at.unwrap_or_else(|| panic!("{path}: the app received no data: {at_app:?}"));
    let took = at_client.ended_after(silent);
    let after = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(silent));
    assert!(
        took < BOUND + GRACE + SLACK,
        "{path}: gone {took:?} after the last data of the client; the app had its Close after {:?}, the client its last \
         data after {:?}; the client received {at_client:?}; the app received {at_app:?}",
        after(at_app.closed_at()),
        after(at_client.last_data_at),
    );
    assert_eq!(at_client.closes(), [(1012, "heartbeat timeout".into())], "{path}: {at_client:?}");
    assert_eq!(at_app.closes(), [(4408, "heartbeat timeout".into())], "{path}: {at_app:?}");
    let at_app = app.ended(GRACE + SLACK).await;
    assert!(at_app.ended_with_fin(), "{path}: {at_app:?}");
    rig.logs(path, "proxy", "heartbeat_timeout", 1012, 4408).await;
}

#[tokio::test]
async fn s52_kill_in_a_flood_of_the_client_acts_in_time() {
    let _turn = busy_turn().await;
    killed_in_a_flood("/up", true, false).await;
}

#[tokio::test]
async fn s52_kill_in_a_flood_of_the_app_acts_in_time() {
    let _turn = busy_turn().await;
    killed_in_a_flood("/down", false, true).await;
}

#[tokio::test]
async fn s52_kill_in_floods_of_both_sides_acts_in_time() {
    let _turn = busy_turn().await;
    killed_in_a_flood("/both", true, true).await;
}

async fn killed_in_a_flood(path: &str, up: bool, down: bool) {
    let rig = Rig::start(QUIET).await;
    let (client, app) = rig.pair(path).await;
    let (client, app) = (Arc::new(client), Arc::new(app));
    let mut floods = Vec::new();
    for (peer, role, floods_here) in [(&client, Role::Client, up), (&app, Role::App, down)] {
        if floods_here {
            let (peer, burst) = (Arc::clone(peer), role.frame(BINARY, &[]).repeat(4096));
            floods.push(tokio::spawn(async move {
                while peer.try_send(&burst).await.is_ok() {
                    yield_now().await;
                }
            }));
        }
    }
    sleep(Duration::from_secs(1)).await;
    let killed = rig.kill(path, &[]).await;
    // The wait for a frame under way is 2 s at most.
    let limit = secs(2) + GRACE + SLACK;
    wait_until(&format!("{path} has its ws.close"), || (rig.has_ended(path), killed.elapsed()), |(ended, _)| *ended)
        .await;
    let took = killed.elapsed();
    assert!(took < limit, "{path}: ws.close {took:?} after the kill");
    for flood in floods {
        wait_for("the flood ends with its connection", flood).await.expect("the flood does not panic");
    }
    let (at_client, at_app) = (client.ended(secs(10)).await, app.ended(secs(10)).await);
    let line = rig.ended(path, secs(5)).await;
    assert_eq!(line.json["close.reason"], "admin", "{path}: {}", line.text);
    assert_eq!(line.json["upstream.close_code"], 1008, "{path}: {}", line.text);
    assert_eq!(at_app.codes(), [1008], "{path}: the app received {at_app:?}");
    // A client with a backlog of the app's flood may not reach its Close within close_grace.
    if !down || !at_client.codes().is_empty() {
        assert_eq!(at_client.codes(), [1008], "{path}: the client received {at_client:?}");
        assert_eq!(line.json["close.code"], 1008, "{path}: the client received {at_client:?}: {}", line.text);
    }
}
