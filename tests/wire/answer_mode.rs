//! Answer mode: the client sends the probes, the proxy answers and swallows them.

use std::time::Duration;

use pulsegate_test_kit::frame::{CLOSE, Role};
use tokio::time::{sleep, timeout};

use crate::wire::peer::Pace;
use crate::wire::rig::{QUIET, Rig, millis, secs, together, variant};

const ANSWER: &str = "mode = \"answer\"\nprofile = { send = \"pong\", expect = \"ping\" }\nwindow = \"60s\"";

async fn answering() -> Rig {
    Rig::start(&format!("{QUIET}\n{ANSWER}")).await
}

/// Sends `count` probes at once, and again after each `pause`; every one gets its answer.
async fn answered(name: &'static str, bursts: usize, count: usize, pause: Duration, blocked: bool) {
    let rig = answering().await;
    let (client, app) = rig.narrow_pair("/burst").await;
    if blocked {
        client.pace(Pace::Stopped);
        let message = Role::App.binary(100_000);
        let mut sent = 0;
        // The downlink is full once a send of the app makes no progress.
        while timeout(secs(1), app.try_send(&message)).await.is_ok() {
            sent += 1;
            assert!(sent < 1000, "100 MB were taken for a client that reads nothing");
        }
    }
    for _ in 0..bursts {
        client.send(&Role::Client.text("ping").repeat(count)).await;
        sleep(pause).await;
    }
    client.text("behind").await;
    let at_app = app.wait("the message behind the burst", secs(5), |record| !record.texts().is_empty()).await;
    assert_eq!(at_app.texts(), ["behind"], "{name}: {at_app:?}");
    client.pace(Pace::Full);
    let all = bursts * count;
    let seen = client.wait(&format!("{all} answers"), secs(20), |record| record.texts().len() >= all).await;
    assert_eq!(seen.texts(), vec!["pong"; all], "{name}: {seen:?}");
    if !blocked {
        client.close(1000, "").await;
        app.closed(secs(5)).await;
        rig.logs("/burst", "client", "normal", 1000, 1000).await;
    }
}

#[tokio::test]
async fn s64_each_beat_of_a_burst_is_answered() {
    together(vec![
        variant("20 at once", answered("20 at once", 1, 20, millis(0), false)),
        variant("10, three times", answered("10, three times", 3, 10, millis(600), false)),
        variant("15, twice", answered("15, twice", 2, 15, millis(1100), false)),
        variant("15, twice, for a client that reads later", answered("later", 2, 15, millis(1100), true)),
    ])
    .await;
}

#[tokio::test]
async fn s79_beats_before_a_close_are_answered_before_it() {
    let rig = answering().await;
    let (client, app) = rig.pair("/close").await;
    let texts = ["ping", "x", "ping"].map(|text| Role::Client.text(text)).concat();
    client.close_after(&texts, 1000, "bye").await;
    let seen = client.ended(secs(5)).await;
    let order: Vec<_> = seen.frames.iter().map(|(frame, _)| (frame.opcode() == CLOSE, frame.payload.clone())).collect();
    let pong = (false, b"pong".to_vec());
    let close = (true, [&1000_u16.to_be_bytes()[..], b"bye"].concat());
    assert_eq!(order, [pong.clone(), pong, close], "the client received {seen:?}");
    let at_app = app.ended(secs(5)).await;
    assert_eq!((at_app.texts(), at_app.codes()), (vec!["x".into()], vec![1000]), "the app received {at_app:?}");
    rig.logs("/close", "client", "normal", 1000, 1000).await;
}

#[tokio::test]
async fn s79_beats_before_a_fin_are_answered_before_the_end() {
    let rig = answering().await;
    let (client, app) = rig.pair("/fin").await;
    client.send(&["ping", "x", "ping"].map(|text| Role::Client.text(text)).concat()).await;
    client.finish().await;
    let at_app = app.ended(secs(5)).await;
    assert_eq!(at_app.texts(), ["x"], "the app received {at_app:?}");
    tokio::time::sleep(millis(300)).await;
    app.finish().await;
    let seen = client.ended(secs(5)).await;
    assert_eq!(seen.texts(), ["pong", "pong"], "the client received {seen:?}");
}
