//! `client_ping = "answer"` for a client that does not read: the answers that are held are bounded.

use std::fs;

use pulsegate_test_kit::frame::{PING, PONG, Role};
use tokio::time::{sleep, timeout};

use crate::wire::peer::Pace;
use crate::wire::rig::{QUIET, Rig, millis, secs, together, variant};

/// The bytes in front of the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backlog {
    /// The proxy has read a part of a frame of the app.
    PartOfAFrame,
    /// The proxy has read whole frames of the app, and reads no more of them.
    WholeFrames,
}

/// A client that takes nothing at all, and one that takes less than the answers to its Pings.
#[tokio::test]
async fn s62_answers_that_are_held_are_at_most_the_newest() {
    together(vec![
        variant("stopped, within a frame", newest_only(Backlog::PartOfAFrame, Pace::Stopped)),
        variant("barely reading, within a frame", newest_only(Backlog::PartOfAFrame, Pace::Rate(1500))),
        variant("stopped, behind frames", newest_only(Backlog::WholeFrames, Pace::Stopped)),
        variant("barely reading, behind frames", newest_only(Backlog::WholeFrames, Pace::Rate(1500))),
    ])
    .await;
}

/// Sends 80 Pings from the client behind a backlog; few Pongs result, the newest among them.
async fn newest_only(backlog: Backlog, pace: Pace) {
    let rig = Rig::start(&format!("{QUIET}\nclient_ping = \"answer\"\nwrite_stall = \"2m\"")).await;
    let (client, app) = rig.narrow_pair("/pings").await;
    client.pace(Pace::Stopped);
    match backlog {
        // The downlink is full once a send of the app makes no progress.
        Backlog::PartOfAFrame => while timeout(secs(1), app.try_send(&Role::App.binary(100_000))).await.is_ok() {},
        Backlog::WholeFrames => {
            // The kernels hold more than this; the rest is sent in small frames.
            app.send(&Role::App.binary(100_000).repeat(25)).await;
            let mut unread = 0;
            while unread < 5 {
                app.send(&Role::App.binary(20_000)).await;
                sleep(millis(10)).await;
                unread = if unread_by_the_proxy(rig.app.address.port()) > 0 { unread + 1 } else { 0 };
            }
        }
    }
    client.pace(pace);
    for number in 0..80 {
        client.send(&Role::Client.frame(PING, format!("ping {number:02}{}", "x".repeat(100)).as_bytes())).await;
        sleep(millis(55)).await;
    }
    let taken = client.record().bytes;
    client.pace(Pace::Full);
    let newest = format!("ping 79{}", "x".repeat(100)).into_bytes();
    let seen =
        client.wait("the Pong for the newest Ping", secs(20), |record| record.payloads(PONG).contains(&&*newest)).await;
    let pongs = seen.payloads(PONG).len();
    // One may have been in front of the full buffer, and one may leave whenever a part of the buffer has been sent.
    let limit = if pace == Pace::Stopped { 3 } else { 6 };
    assert!(pongs <= limit, "{backlog:?}, {pace:?}, {taken} bytes taken: {pongs} Pongs for 80 Pings: {seen:?}");
    assert!(!rig.has_ended("/pings"), "{:?}", rig.proxy.logged("ws.close"));
}

/// Returns the bytes that wait unread in the proxy's socket to the app at `port` (`rx_queue` of proc(5)).
fn unread_by_the_proxy(port: u16) -> u64 {
    let table = fs::read_to_string("/proc/net/tcp").expect("the table of sockets is readable");
    let remote = format!(":{port:04X}");
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let its = lines.filter(|columns| columns.get(2).is_some_and(|address| address.ends_with(&remote)));
    its.filter_map(|columns| u64::from_str_radix(columns.get(4)?.split_once(':')?.1, 16).ok()).sum()
}

/// Pings that are read together may have one Pong, for the newest of them (RFC 6455 §5.5.3).
#[tokio::test]
async fn s62_pings_of_a_client_that_reads_are_answered() {
    let rig = Rig::start(&format!("{QUIET}\nclient_ping = \"answer\"")).await;
    let (client, app) = rig.pair("/reads").await;
    let payloads: Vec<String> = (0..30).map(|number| format!("ping {number:02}")).collect();
    for payload in &payloads {
        client.send(&Role::Client.frame(PING, payload.as_bytes())).await;
        sleep(millis(60)).await;
    }
    let newest = payloads[29].as_bytes();
    let seen =
        client.wait("the Pong for the newest Ping", secs(5), |record| record.payloads(PONG).contains(&newest)).await;
    let pongs = seen.payloads(PONG);
    assert!(pongs.len() > 15, "{seen:?}");
    assert!(
        pongs.is_sorted() && pongs.iter().all(|pong| payloads.iter().any(|ping| ping.as_bytes() == *pong)),
        "{seen:?}"
    );
    assert_eq!(app.record().payloads(PING).len(), 0, "{:?}", app.record());
    client.close(1000, "").await;
    app.closed(secs(5)).await;
    rig.logs("/reads", "client", "normal", 1000, 1000).await;
}
