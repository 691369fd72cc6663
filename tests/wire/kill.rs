//! `pulsegate kill`, with `--now` and without.

use std::sync::Arc;
use std::time::Duration;

use pulsegate_test_kit::frame::{Role, TEXT};
use tokio::time::sleep;

use crate::wire::peer::{MUTE, Pace};
use crate::wire::record::End;
use crate::wire::rig::{Rig, SLACK, millis, secs, together, variant};

/// A `close_grace` that `--now` does not wait for.
const LONG_GRACE: &str = "interval = \"60s\"\ntimeout = \"5s\"\njitter = 0\nclose_grace = \"6s\"";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// The client is within a frame.
    MidFrame,
    /// The client does not read.
    Blocked,
    /// The client has sent its Close, and the app does not answer.
    Closing,
}

async fn aborts(state: State) {
    let rig = Rig::start(LONG_GRACE).await;
    let (client, app) = rig.narrow_pair("/now").await;
    client.habits(MUTE);
    app.habits(MUTE);
    match state {
        State::Idle => {}
        State::MidFrame => client.send(&Role::Client.binary(1000)[..300]).await,
        State::Blocked => {
            client.pace(Pace::Stopped);
            app.send(&Role::App.binary(400_000)).await;
        }
        State::Closing => {
            client.close(4000, "mine").await;
            app.closed(secs(5)).await;
        }
    }
    sleep(millis(300)).await;
    let killed = rig.kill("/now", &["--now"]).await;
    let at_app = app.ended(secs(15)).await;
    client.pace(Pace::Full);
    let at_client = client.ended(secs(15)).await;
    let codes = if state == State::Closing { vec![4000] } else { vec![] };
    assert_eq!(at_app.codes(), codes, "{state:?}: the app received {at_app:?}");
    assert_eq!(at_client.codes(), Vec::<u16>::new(), "{state:?}: the client received {at_client:?}");
    for (name, seen) in [("app", &at_app), ("client", &at_client)] {
        let took = seen.ended_after(killed);
        assert!(took < secs(1) + SLACK, "{state:?}: the {name}'s leg ended after {took:?}: {seen:?}");
        assert!(matches!(seen.end, Some((End::Reset(_), _))), "{state:?}: the {name} received {seen:?}");
    }
    let line = rig.ended("/now", secs(1)).await;
    assert!(line.at.saturating_duration_since(killed) < secs(1) + SLACK, "{state:?}: {}", line.text);
    let code = if state == State::Closing { 4000 } else { 1006 };
    let codes = (&line.json["close.code"], &line.json["upstream.close_code"]);
    assert_eq!(codes, (&code.into(), &code.into()), "{state:?}: {}", line.text);
    if state != State::Closing {
        rig.logs("/now", "proxy", "admin", 1006, 1006).await;
    }
}

#[tokio::test]
async fn kill_now_aborts_both_legs() {
    let states = [State::Idle, State::MidFrame, State::Blocked, State::Closing];
    together(states.map(|state| variant(format!("{state:?}"), aborts(state))).into()).await;
}

/// Without `--now`: the frame under way is completed, the messages behind it are discarded, both sides get the code.
#[tokio::test]
async fn kill_waits_for_the_frame_under_way() {
    let rig = Rig::start(LONG_GRACE).await;
    let (client, app) = rig.pair("/kill").await;
    let frame = Role::Client.frame(TEXT, &[b'x'; 1000]);
    client.send(&frame[..300]).await;
    sleep(millis(300)).await;
    let killed = rig.kill("/kill", &["--code", "4007", "--reason", "go"]).await;
    let at_client = client.closed(secs(5)).await;
    assert_eq!(at_client.closes(), [(4007, "go".into())], "the client received {at_client:?}");
    sleep(millis(300)).await;
    // The client has ended its direction by its own Close; the rest of its frame never comes.
    let at_app = app.ended(secs(15)).await;
    let took = at_app.ended_after(killed);
    assert!(took < secs(2) + secs(6) + SLACK, "the app received {at_app:?} after {took:?}");
    assert!(at_app.messages().is_empty(), "the app received {at_app:?}");
}

/// A frame that is completed within two seconds is delivered whole, and the app gets the code.
#[tokio::test]
async fn kill_lets_a_frame_be_completed() {
    let rig = Rig::start(LONG_GRACE).await;
    let (client, app) = rig.pair("/kill").await;
    client.habits(MUTE);
    let frame = Role::Client.frame(TEXT, &[b'x'; 1000]);
    client.send(&frame[..300]).await;
    sleep(millis(300)).await;
    rig.kill("/kill", &["--code", "4007", "--reason", "go"]).await;
    sleep(Duration::from_millis(500)).await;
    client.send(&[&frame[300..], &Role::Client.text("behind")].concat()).await;
    let at_app = app.ended(secs(15)).await;
    assert_eq!(at_app.texts(), ["x".repeat(1000)], "the app received {at_app:?}");
    assert_eq!(at_app.closes(), [(4007, "go".into())], "the app received {at_app:?}");
    rig.logs("/kill", "proxy", "admin", 4007, 4007).await;
}

/// A Close that reached the app shortly before the abort appears in the last line.
#[tokio::test]
async fn kill_now_right_behind_a_close_reports_the_written_code() {
    let rig = Arc::new(Rig::start(LONG_GRACE).await);
    let run = |number: u64| {
        let rig = Arc::clone(&rig);
        variant(format!("Close {} ms after the command", 5 * number), async move {
            let path = format!("/behind-{number}");
            let (client, app) = rig.pair(&path).await;
            client.habits(MUTE);
            app.habits(MUTE);
            let closing = async {
                sleep(millis(5 * number)).await;
                client.sends_close();
                // The kill may have been faster.
                let _ = client.try_send(&Role::Client.close(4000, "mine")).await;
            };
            tokio::join!(rig.kill(&path, &["--now"]), closing);
            let at_app = app.ended(secs(5)).await;
            let line = rig.ended(&path, secs(5)).await;
            if at_app.codes() == [4000] {
                let codes = (&line.json["close.code"], &line.json["upstream.close_code"]);
                assert_eq!(codes, (&4000.into(), &4000.into()), "the app received {at_app:?}: {}", line.text);
            }
        })
    };
    together((0..24).map(run).collect()).await;
}
