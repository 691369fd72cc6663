//! A client that ends in order, on its own or on request, while the app is busy: the app gets everything sent before.

use std::time::Duration;

use pulsegate_test_kit::frame::Role;
use tokio::time::sleep;

use crate::wire::peer::{Connect, Pace, Peer};
use crate::wire::record::Record;
use crate::wire::rig::{GRACE, QUIET, Rig, Setup, Via, millis, secs, together, variant};

/// The time for which the app takes nothing: longer than timeout + `close_grace`.
const BUSY: Duration = Duration::from_secs(4);

/// As [`QUIET`], with a `timeout` that outlasts a busy app: what fits into the app's kernel is delivered at once, and the
/// wait for its Close begins then.
const LONG_TIMEOUT: &str = "interval = \"60s\"\ntimeout = \"8s\"\njitter = 0\nclose_grace = \"500ms\"";

/// Starts a rig whose app reads nothing at first; `drain` are lines of `[drain]`.
async fn busy(heartbeat: &str, drain: &str) -> Rig {
    Rig::set_up(Setup { heartbeat, drain, narrow_app: true, ..Setup::default() }).await
}

/// Returns `count` messages of `size` bytes, numbered.
fn numbered(count: usize, size: usize) -> Vec<u8> {
    let text = |number: usize| format!("{number:08}{}", "x".repeat(size - 8));
    (0..count).flat_map(|number| Role::Client.text(&text(number))).collect()
}

/// Asserts that the app has all numbered messages in order.
fn complete(app: &Record, count: usize, what: &str) {
    let numbers: Vec<String> = app.texts().iter().map(|text| text[..8].to_owned()).collect();
    let expected: Vec<String> = (0..count).map(|number| format!("{number:08}")).collect();
    assert_eq!(numbers.len(), count, "{what}: the app received {app:?}");
    assert_eq!(numbers, expected, "{what}: the app received {app:?}");
}

async fn close_arrives(via: Via, heartbeat: &'static str, count: usize, size: usize, pause: Duration) {
    let rig = busy(heartbeat, "").await;
    let what = format!("{count} x {size} bytes, {via:?}");
    let (client, app) = rig.pair_via(via, "/up", Connect::default()).await;
    let sending = async {
        client.close_after(&numbered(count, size), 1000, "bye").await;
    };
    let waking = async {
        sleep(pause).await;
        app.pace(Pace::Full);
    };
    tokio::join!(sending, waking);
    let seen = app.ended(secs(10)).await;
    complete(&seen, count, &what);
    assert_eq!(seen.closes(), [(1000, "bye".into())], "{what}: the app received {seen:?}");
    let at_client = client.ended(secs(5)).await;
    assert_eq!(at_client.closes(), [(1000, "bye".into())], "{what}: the client received {at_client:?}");
    if via == Via::Proxy {
        rig.logs("/up", "client", "normal", 1000, 1000).await;
    }
}

#[tokio::test]
async fn s55_messages_and_close_reach_an_app_that_was_busy() {
    together(vec![
        variant("1 MB", close_arrives(Via::Proxy, QUIET, 100, 10_000, BUSY)),
        variant("1 MB, direct", close_arrives(Via::Direct, QUIET, 100, 10_000, BUSY)),
        variant("280 KB, one second", close_arrives(Via::Proxy, QUIET, 28, 10_000, secs(1))),
        variant("280 KB", close_arrives(Via::Proxy, QUIET, 28, 10_000, secs(3))),
        variant("20 KB", close_arrives(Via::Proxy, LONG_TIMEOUT, 2, 10_000, BUSY)),
    ])
    .await;
}

#[tokio::test]
async fn s55_close_that_was_read_stands_when_a_kill_comes() {
    let rig = busy(LONG_TIMEOUT, "").await;
    let (client, app) = rig.pair("/kill").await;
    client.close_after(&numbered(3, 8_000), 1000, "bye").await;
    // The proxy has read all of it: a few kilobytes fit into its buffers.
    sleep(secs(1)).await;
    rig.kill("/kill", &[]).await;
    sleep(secs(2)).await;
    app.pace(Pace::Full);
    let seen = app.ended(secs(10)).await;
    complete(&seen, 3, "kill");
    assert_eq!(seen.closes(), [(1000, "bye".into())], "the app received {seen:?}");
    let at_client = client.ended(secs(5)).await;
    assert_eq!(at_client.codes(), [1000], "the client received {at_client:?}");
    rig.logs("/kill", "client", "normal", 1000, 1000).await;
}

#[tokio::test]
async fn s55_close_behind_a_backlog_stands_when_the_maximum_age_comes() {
    let rig = busy(QUIET, "delay = \"0s\"\nwindow = \"0s\"\nmax_connection_age = \"2s\"").await;
    let (client, app) = rig.pair("/age").await;
    let sending = async {
        client.close_after(&numbered(100, 10_000), 4000, "bye").await;
    };
    let waking = async {
        sleep(BUSY).await;
        app.pace(Pace::Full);
    };
    tokio::join!(sending, waking);
    let seen = app.ended(secs(10)).await;
    complete(&seen, 100, "maximum age");
    assert_eq!(seen.closes(), [(4000, "bye".into())], "the app received {seen:?}");
}

#[tokio::test]
async fn s55_close_behind_a_backlog_stands_when_a_drain_comes() {
    let rig = busy(QUIET, "").await;
    let (client, app) = rig.pair("/drain").await;
    let sending = async {
        client.close_after(&numbered(100, 10_000), 4000, "bye").await;
    };
    let waking = async {
        sleep(millis(500)).await;
        rig.proxy.terminate();
        sleep(secs(3)).await;
        app.pace(Pace::Full);
    };
    tokio::join!(sending, waking);
    let seen = app.ended(secs(10)).await;
    complete(&seen, 100, "drain");
    assert_eq!(seen.closes(), [(4000, "bye".into())], "the app received {seen:?}");
}

#[tokio::test]
async fn s55_messages_reach_an_app_that_was_busy_when_a_drain_began() {
    let rig = busy(QUIET, "").await;
    let (client, app) = rig.pair("/drain").await;
    let sending = async {
        client.send(&numbered(100, 10_000)).await;
    };
    let waking = async {
        sleep(millis(500)).await;
        rig.proxy.terminate();
        sleep(BUSY - millis(500)).await;
        app.pace(Pace::Full);
    };
    tokio::join!(sending, waking);
    ends_with_1012(&client, &app, "drain").await;
    rig.logs("/drain", "proxy", "drain", 1012, 1012).await;
}

#[tokio::test]
async fn s55_messages_reach_an_app_that_was_busy_when_the_maximum_age_came() {
    let rig = busy(QUIET, "delay = \"0s\"\nwindow = \"0s\"\nmax_connection_age = \"1s\"").await;
    let (client, app) = rig.pair("/age").await;
    let sending = async {
        client.send(&numbered(100, 10_000)).await;
    };
    let waking = async {
        sleep(BUSY).await;
        app.pace(Pace::Full);
    };
    tokio::join!(sending, waking);
    ends_with_1012(&client, &app, "maximum age").await;
    rig.logs("/age", "proxy", "max_age", 1012, 1012).await;
}

/// Asserts that the app gets the messages and 1012; the client echoes 1012 behind its messages.
async fn ends_with_1012(client: &Peer, app: &Peer, what: &str) {
    let seen = app.ended(secs(10)).await;
    complete(&seen, 100, what);
    assert_eq!(seen.codes(), [1012], "{what}: the app received {seen:?}");
    let at_client = client.ended(GRACE + secs(5)).await;
    assert_eq!(at_client.codes(), [1012], "{what}: the client received {at_client:?}");
}

/// The client leaves at once behind its Close, or behind its messages; or it breaks the protocol there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    CloseAndFin,
    Fin,
    Violation,
}

async fn leaves(leaving: Leaving) {
    let rig = busy(QUIET, "").await;
    let (client, app) = rig.pair("/leaves").await;
    let messages = numbered(100, 10_000);
    let sending = async {
        match leaving {
            Leaving::CloseAndFin => {
                client.close_after(&messages, 1000, "bye").await;
                client.finish().await;
            }
            Leaving::Fin => {
                client.send(&messages).await;
                client.finish().await;
            }
            Leaving::Violation => client.send(&[messages, Role::Client.frame(3, b"x")].concat()).await,
        }
    };
    let waking = async {
        sleep(BUSY).await;
        app.pace(Pace::Full);
    };
    tokio::join!(sending, waking);
    let seen = app.ended(secs(10)).await;
    complete(&seen, 100, &format!("{leaving:?}"));
    let codes = match leaving {
        Leaving::CloseAndFin => vec![1000],
        Leaving::Fin => vec![],
        Leaving::Violation => vec![1002],
    };
    assert_eq!(seen.codes(), codes, "{leaving:?}: the app received {seen:?}");
    app.finish().await;
    let line = rig.ended("/leaves", secs(5)).await;
    let upstream = codes.first().copied().unwrap_or(1006);
    assert_eq!(line.json["upstream.close_code"], upstream, "{leaving:?}: {}", line.text);
}

#[tokio::test]
async fn s55_messages_of_a_client_that_left_reach_an_app_that_was_busy() {
    together(vec![variant("Close and FIN", leaves(Leaving::CloseAndFin)), variant("FIN", leaves(Leaving::Fin))]).await;
}

#[tokio::test]
async fn s69_messages_before_a_violation_reach_an_app_that_was_busy() {
    leaves(Leaving::Violation).await;
}
