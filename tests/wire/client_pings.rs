//! `client_ping = "answer"` for a client that does not read: the answers that are held are bounded.

use tokio::time::{sleep, timeout};

use crate::frames::{PING, PONG, Role};
use crate::peer::Pace;
use crate::rig::{QUIET, Rig, millis, secs};

#[tokio::test]
async fn s62_answers_that_are_held_are_at_most_the_newest() {
    let rig = Rig::start(&format!("{QUIET}\nclient_ping = \"answer\"")).await;
    let (client, app) = rig.narrow_pair("/pings").await;
    client.pace(Pace::Stopped);
    // The way down is full once a send of the app makes no progress.
    let message = Role::App.binary(100_000);
    let mut count = 0;
    while timeout(secs(1), app.try_send(&message)).await.is_ok() {
        count += 1;
        assert!(count < 1000, "100 MB were taken for a client that reads nothing");
    }
    for number in 0..80 {
        client.send(&Role::Client.frame(PING, format!("ping {number:02}{}", "x".repeat(100)).as_bytes())).await;
        sleep(millis(55)).await;
    }
    client.pace(Pace::Full);
    let newest = format!("ping 79{}", "x".repeat(100)).into_bytes();
    let seen =
        client.wait("the Pong for the newest Ping", secs(10), |record| record.payloads(PONG).contains(&&*newest)).await;
    let pongs = seen.payloads(PONG);
    // One may have been in front of the buffer that was full.
    assert!(pongs.len() <= 3, "{} Pongs for 80 Pings of a client that did not read: {seen:?}", pongs.len());
    assert!(!rig.has_ended("/pings"), "{:?}", rig.proxy.logged("ws.close"));
}

#[tokio::test]
async fn s62_each_ping_of_a_client_that_reads_is_answered() {
    let rig = Rig::start(&format!("{QUIET}\nclient_ping = \"answer\"")).await;
    let (client, app) = rig.pair("/reads").await;
    for number in 0..30 {
        client.send(&Role::Client.frame(PING, format!("ping {number:02}").as_bytes())).await;
        sleep(millis(60)).await;
    }
    let seen = client.wait("30 Pongs", secs(5), |record| record.payloads(PONG).len() >= 30).await;
    let expected: Vec<String> = (0..30).map(|number| format!("ping {number:02}")).collect();
    assert_eq!(seen.payloads(PONG), expected.iter().map(String::as_bytes).collect::<Vec<_>>(), "{seen:?}");
    assert_eq!(app.record().payloads(PING).len(), 0, "{:?}", app.record());
    client.close(1000, "").await;
    app.closed(secs(5)).await;
    rig.logs("/reads", "client", "normal", 1000, 1000).await;
}
