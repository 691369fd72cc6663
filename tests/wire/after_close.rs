//! A session of which one side has sent its Close ends in bounded time, even if bytes keep arriving.

use std::time::{Duration, Instant};

use pulsegate_test_kit::frame::{BINARY, Role};
use tokio::time::sleep;

use crate::wire::peer::{MUTE, Peer};
use crate::wire::rig::{GRACE, QUIET, Rig, SLACK, millis, secs, together, variant};

/// Sends `frame` every 300 ms until the connection ends.
async fn keeps_sending(peer: &Peer, frame: &[u8]) {
    let started = Instant::now();
    while started.elapsed() < secs(12) && peer.try_send(frame).await.is_ok() {
        sleep(millis(300)).await;
    }
}

/// Asserts that the session ends within `bound` of `start`, on both legs, with these values in its line.
async fn ends(rig: &Rig, path: &str, start: Instant, bound: Duration, initiator: &str, code: u16) {
    let line = rig.ended(path, secs(13)).await;
    let took = line.at.saturating_duration_since(start);
    assert!(took < bound + SLACK, "{path}: ended {took:?} after the Close, bound {bound:?}: {}", line.text);
    rig.logs(path, initiator, "normal", code, code).await;
}

/// A `timeout` for the peer's half, and `close_grace` after it.
const ORDERLY: Duration = Duration::from_secs(1).saturating_add(GRACE);

async fn client_closes(path: &'static str, goes_on: bool) {
    let rig = Rig::start(QUIET).await;
    let (client, app) = rig.pair(path).await;
    client.habits(MUTE);
    app.habits(MUTE);
    client.close(1000, "bye").await;
    let start = Instant::now();
    app.closed(secs(5)).await;
    let frame = Role::Client.frame(BINARY, b"x");
    let sending = async {
        if goes_on {
            keeps_sending(&client, &frame).await;
        }
    };
    tokio::join!(sending, ends(&rig, path, start, ORDERLY, "client", 1000));
    assert!(app.record().messages().is_empty(), "something follows the Close: {:?}", app.record());
}

async fn app_closes_and_goes_on() {
    let rig = Rig::start(QUIET).await;
    let (client, app) = rig.pair("/app-closes").await;
    client.habits(MUTE);
    app.close(4001, "bye").await;
    let start = Instant::now();
    client.closed(secs(5)).await;
    let frame = Role::App.frame(BINARY, b"x");
    tokio::join!(keeps_sending(&app, &frame), ends(&rig, "/app-closes", start, ORDERLY, "upstream", 4001));
    let seen = client.record();
    assert!(seen.messages().is_empty(), "something follows the Close: {seen:?}");
}

/// Asserts that messages that are delivered in the other direction do not renew the bound for ever: `max_deferral` is
/// absolute.
async fn other_side_goes_on(closer: Role) {
    let rig = Rig::start(&format!("{QUIET}\nmax_deferral = \"4s\"\nwrite_stall = \"3s\"")).await;
    let path = format!("/other-goes-on-{closer:?}");
    let (client, app) = rig.pair(&path).await;
    client.habits(MUTE);
    app.habits(MUTE);
    let start = Instant::now();
    let (closing, other, initiator) =
        if closer == Role::Client { (&client, &app, "client") } else { (&app, &client, "upstream") };
    closing.close(4001, "bye").await;
    other.closed(secs(5)).await;
    let role = if closer == Role::Client { Role::App } else { Role::Client };
    let frame = role.frame(BINARY, b"x");
    tokio::join!(keeps_sending(other, &frame), ends(&rig, &path, start, secs(4) + GRACE, initiator, 4001));
}

#[tokio::test]
async fn s59_session_after_a_close_is_bounded_whatever_comes() {
    together(vec![
        variant("the client closes and sends on", client_closes("/goes-on", true)),
        variant("the client closes, all are silent", client_closes("/silent", false)),
        variant("the app closes and sends on", app_closes_and_goes_on()),
        variant("the client closes, the app sends on", other_side_goes_on(Role::Client)),
        variant("the app closes, the client sends on", other_side_goes_on(Role::App)),
    ])
    .await;
}

#[tokio::test]
async fn s59_beats_that_are_swallowed_do_not_renew_the_bound() {
    let profile = "mode = \"answer\"\nprofile = { send = \"pong\", expect = \"ping\" }\nwindow = \"5s\"";
    let rig = Rig::start(&format!("{QUIET}\n{profile}")).await;
    let (client, app) = rig.pair("/beats").await;
    client.habits(MUTE);
    app.habits(MUTE);
    client.text("ping").await;
    client.wait("an answer", secs(5), |record| record.texts() == ["pong"]).await;
    app.close(4001, "bye").await;
    let start = Instant::now();
    client.closed(secs(5)).await;
    let beat = Role::Client.text("ping");
    tokio::join!(keeps_sending(&client, &beat), ends(&rig, "/beats", start, ORDERLY, "upstream", 4001));
}
