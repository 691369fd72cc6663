//! A client that is stopped, and continues after the teardown, reads the Close, not a reset.

use std::time::Instant;

use pulsegate_test_kit::frame::Role;
use tokio::time::sleep;

use crate::wire::peer::{MUTE, Pace};
use crate::wire::rig::{BEATING, BOUND, GRACE, Rig, SLACK, secs, together, true_for_client, variant};

async fn wakes(name: &'static str, backlog: usize, partial: bool) {
    let rig = Rig::start(BEATING).await;
    let (client, app) = rig.pair("/sleeps").await;
    let start = Instant::now();
    client.habits(MUTE);
    client.pace(Pace::Stopped);
    if backlog > 0 {
        app.send(&Role::App.binary(backlog)).await;
    }
    if partial {
        // The client was stopped within a frame of its own.
        let frame = Role::Client.binary(1000);
        client.send(&frame[..500]).await;
    }
    sleep(secs(8)).await;
    client.pace(Pace::Full);
    let seen = client.ended(secs(5)).await;
    assert_eq!(seen.closes(), [(1012, "heartbeat timeout".into())], "{name}: the client received {seen:?}");
    assert!(seen.ended_with_fin(), "{name}: the client received {seen:?}");
    assert_eq!(seen.messages().iter().map(|message| message.len()).sum::<usize>(), backlog, "{name}: {seen:?}");
    let at_app = app.ended(secs(1)).await;
    let took = at_app.ended_after(start);
    assert!(took < BOUND + GRACE + SLACK, "{name}: the app's leg ended after {took:?}: {at_app:?}");
    let expected = if partial { vec![] } else { vec![4408] };
    assert_eq!(at_app.codes(), expected, "{name}: the app received {at_app:?}");
    let upstream = if partial { 1006 } else { 4408 };
    let line = rig.logs("/sleeps", "proxy", "heartbeat_timeout", 1012, upstream).await;
    true_for_client(&line.json, &seen, None);
}

#[tokio::test]
async fn s71_client_that_slept_for_eight_seconds_reads_the_close() {
    together(vec![
        variant("idle", wakes("idle", 0, false)),
        variant("with a backlog in its kernel", wakes("backlog", 20_000, false)),
        variant("within a frame of its own", wakes("partial", 0, true)),
    ])
    .await;
}
