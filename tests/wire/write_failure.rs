//! A client whose connection has failed: everything that it sent before is still delivered.

use std::time::Duration;

use pulsegate_test_kit::frame::Role;
use tokio::time::sleep;

use crate::wire::peer::Pace;
use crate::wire::rig::{QUIET, Rig, millis, secs, together, variant};

/// Sends 50 messages from the client, with a Close behind them or without, and resets its connection.
async fn delivered(stopped: bool, with_close: bool, narrow_app: bool) {
    let rig = if narrow_app { Rig::narrow(QUIET).await } else { Rig::start(QUIET).await };
    let (client, app) = rig.pair("/reset").await;
    if stopped {
        rig.proxy.stop();
    }
    let messages: Vec<u8> =
        (0..50).flat_map(|number| Role::Client.text(&format!("{number:04}{}", "x".repeat(496)))).collect();
    if with_close {
        client.close_after(&messages, 1000, "bye").await;
    } else {
        client.send(&messages).await;
    }
    // A write to the client is due when the proxy reads the reset.
    app.send(&Role::App.binary(20_000)).await;
    client.reset().await;
    if stopped {
        sleep(millis(300)).await;
        rig.proxy.resume();
    }
    for _ in 0..5 {
        sleep(Duration::from_millis(100)).await;
        if app.try_send(&Role::App.binary(1000)).await.is_err() {
            break;
        }
    }
    app.pace(Pace::Full);
    let seen = app.ended(secs(10)).await;
    let numbers: Vec<String> = seen.texts().iter().map(|text| text[..4].to_owned()).collect();
    assert_eq!(numbers, (0..50).map(|number| format!("{number:04}")).collect::<Vec<_>>(), "the app received {seen:?}");
    if with_close {
        assert_eq!(seen.closes(), [(1000, "bye".into())], "the app received {seen:?}");
        rig.logs("/reset", "client", "normal", 1000, 1000).await;
    } else {
        assert_eq!(seen.codes(), Vec::<u16>::new(), "the app received {seen:?}");
    }
}

#[tokio::test]
async fn s67_messages_of_a_client_that_reset_its_connection_are_delivered() {
    together(vec![
        variant("while the proxy was stopped", delivered(true, true, false)),
        variant("while the proxy was stopped, without a Close", delivered(true, false, false)),
        variant("while the proxy was stopped, busy app", delivered(true, true, true)),
        variant("at once, busy app", delivered(false, true, true)),
        variant("at once, busy app, without a Close", delivered(false, false, true)),
    ])
    .await;
}
