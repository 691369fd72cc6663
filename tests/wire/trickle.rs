//! A TLS record that arrives in pieces: its bytes are signs of life before it can be decrypted.

use std::time::{Duration, Instant};

use pulsegate_test_kit::frame::Role;
use tokio::time::sleep;

use crate::wire::peer::{MUTE, Peer};
use crate::wire::record::Record;
use crate::wire::rig::{BEATING, BOUND, GRACE, Rig, SLACK, millis, secs, together, variant};

/// Sends `sealed` in pieces; returns early when the connection ends.
async fn trickle(client: &Peer, sealed: &[u8], piece: usize, pause: Duration) {
    for piece in sealed.chunks(piece) {
        if client.send_sealed(piece).await.is_err() {
            return;
        }
        sleep(pause).await;
    }
}

/// Asserts that a record whose pieces arrive for longer than interval + timeout delivers its message.
async fn record_arrives(size: usize, piece: usize, pause: Duration) {
    let rig = Rig::start(BEATING).await;
    let (client, app) = rig.pair("/slow").await;
    // A Pong cannot be sent within a record.
    client.habits(MUTE);
    let text = "x".repeat(size);
    let sealed = client.seal(&Role::Client.text(&text)).await;
    let started = Instant::now();
    trickle(&client, &sealed, piece, pause).await;
    let took = started.elapsed();
    let arrives = |record: &Record| !record.messages().is_empty();
    let seen = app.wait(&format!("the message arrives, its upload took {took:?}"), SLACK, arrives).await;
    assert!(took > BOUND + millis(500), "the upload took only {took:?}");
    assert!(seen.texts() == [text], "{seen:?}");
    client.close(1000, "").await;
    app.closed(secs(5)).await;
    rig.logs("/slow", "client", "normal", 1000, 1000).await;
}

#[tokio::test]
async fn s56_record_in_pieces_keeps_its_client_alive() {
    together(vec![
        variant("75 bytes every 250 ms", record_arrives(1300, 75, millis(250))),
        variant("16 KiB, 1 KiB every 250 ms", record_arrives(16_300, 1024, millis(250))),
        variant("one byte every 100 ms", record_arrives(24, 1, millis(100))),
        variant("two pieces a probe apart", record_arrives(300, 100, millis(1400))),
    ])
    .await;
}

#[tokio::test]
async fn s56_client_that_stops_within_a_record_is_gone_within_the_bound() {
    let rig = Rig::start(BEATING).await;
    let (client, app) = rig.pair("/stops").await;
    // A Pong cannot be sent within a record.
    client.habits(MUTE);
    let sealed = client.seal(&Role::Client.text(&"x".repeat(4000))).await;
    trickle(&client, &sealed[..800], 100, millis(250)).await;
    let silent = Instant::now();
    let seen = client.ended(secs(10)).await;
    let took = seen.ended_after(silent);
    assert!(took < BOUND + GRACE + SLACK, "gone after {took:?}: {seen:?}");
    let at_app = app.ended(secs(5)).await;
    assert_eq!(at_app.codes(), [4408], "{at_app:?}");
    rig.logs("/stops", "proxy", "heartbeat_timeout", 1012, 4408).await;
}

#[tokio::test]
async fn s56_record_that_is_never_complete_counts_for_frame_max_time() {
    let rig = Rig::start(&format!("{BEATING}\nframe_max_time = \"3s\"")).await;
    let (client, app) = rig.pair("/trickle").await;
    // A Pong cannot be sent within a record.
    client.habits(MUTE);
    let sealed = client.seal(&Role::Client.text(&"x".repeat(8000))).await;
    let started = Instant::now();
    trickle(&client, &sealed, 100, millis(100)).await;
    let line = rig.ended("/trickle", secs(1)).await;
    let took = line.at.saturating_duration_since(started);
    assert!((millis(2500)..secs(3) + GRACE + SLACK).contains(&took), "gone after {took:?}: {}", line.text);
    assert_eq!((&line.json["close.reason"], &line.json["close.initiator"]), (&"trickle".into(), &"proxy".into()));
    let at_app = app.ended(secs(5)).await;
    assert!(at_app.messages().is_empty(), "{at_app:?}");
}
