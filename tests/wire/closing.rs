//! Both Closes are on the wire: FIN at once, and a socket that is read until the peer has ended too.

use std::time::{Duration, Instant};

use pulsegate_test_kit::frame::{BINARY, CLOSE, Role};
use tokio::time::sleep;

use crate::wire::peer::{CONFORMING, Habits, MUTE};
use crate::wire::rig::{Rig, millis, secs, together, variant};

/// A `close_grace` that can be distinguished from "at once".
const LONG_GRACE: &str = "interval = \"60s\"\ntimeout = \"5s\"\njitter = 0\nclose_grace = \"4s\"";

/// The time that "at once" may take on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Echoes a Close and leaves its direction open.
const OPEN_ENDED: Habits = Habits { finishes: false, ..CONFORMING };

async fn ends_at_once(path: &'static str, closer: Role) {
    let rig = Rig::start(LONG_GRACE).await;
    let (client, app) = rig.pair(path).await;
    client.habits(OPEN_ENDED);
    app.habits(OPEN_ENDED);
    let closing = if closer == Role::Client { &client } else { &app };
    let start = Instant::now();
    closing.close(4005, "over").await;
    for (name, peer) in [("client", &client), ("app", &app)] {
        let seen = peer.ended(secs(8)).await;
        assert!(seen.ended_with_fin(), "{path}: the {name} received {seen:?}");
        assert!(seen.ended_after(start) < AT_ONCE, "{path}: the {name} received {seen:?}");
        assert_eq!(seen.closes(), [(4005, "over".into())], "{path}: the {name} received {seen:?}");
    }
    let initiator = if closer == Role::Client { "client" } else { "upstream" };
    let line = rig.logs(path, initiator, "normal", 4005, 4005).await;
    let took = line.at.saturating_duration_since(start);
    assert!(took < AT_ONCE, "{path}: ws.close after {took:?}");
}

#[tokio::test]
async fn s68_both_legs_get_their_fin_as_soon_as_both_closes_are_written() {
    together(vec![
        variant("the client closes", ends_at_once("/client", Role::Client)),
        variant("the app closes", ends_at_once("/app", Role::App)),
    ])
    .await;
}

/// Asserts that a client whose upload follows the violation, or its Close, still reads the Close and no reset.
async fn upload_behind(path: &'static str, last: Vec<u8>, code: u16) {
    let rig = Rig::start(LONG_GRACE).await;
    let (client, _app) = rig.pair(path).await;
    client.sends_close();
    client.habits(MUTE);
    client.pace(crate::wire::peer::Pace::Stopped);
    client.send(&last).await;
    let garbage = Role::Client.binary(50_000);
    for _ in 0..6 {
        assert!(client.try_send(&garbage).await.is_ok(), "{path}: reset while it uploads: {:?}", client.record());
        sleep(millis(100)).await;
    }
    client.pace(crate::wire::peer::Pace::Full);
    let seen = client.ended(secs(5)).await;
    assert_eq!(seen.codes(), [code], "{path}: the client received {seen:?}");
    assert!(seen.ended_with_fin(), "{path}: the client received {seen:?}");
}

#[tokio::test]
async fn s68_client_that_uploads_behind_its_close_reads_the_answer() {
    together(vec![
        variant("valid Close", upload_behind("/valid", Role::Client.close(1000, ""), 1000)),
        variant("invalid Close", upload_behind("/invalid", Role::Client.frame(CLOSE, b"x"), 1002)),
        variant("reserved opcode", upload_behind("/opcode", Role::Client.frame(3, b"x"), 1002)),
        variant("unmasked frame", upload_behind("/unmasked", Role::App.frame(BINARY, b"x"), 1002)),
    ])
    .await;
}

/// Asserts that an invalid Close is answered, and followed by a FIN, at once; the app and the line do not wait.
async fn invalid_close(name: String, payload: Vec<u8>, code: u16) {
    let rig = Rig::start(LONG_GRACE).await;
    let (client, app) = rig.pair("/invalid").await;
    client.habits(MUTE);
    let start = Instant::now();
    client.send(&Role::Client.frame(CLOSE, &payload)).await;
    let seen = client.ended(secs(8)).await;
    assert_eq!(seen.codes(), [code], "{name}: the client received {seen:?}");
    assert!(seen.ended_with_fin() && seen.ended_after(start) < AT_ONCE, "{name}: the client received {seen:?}");
    let at_app = app.ended(secs(8)).await;
    assert_eq!(at_app.codes(), [code], "{name}: the app received {at_app:?}");
    let line = rig.logs("/invalid", "proxy", "protocol_error", code, code).await;
    let took = line.at.saturating_duration_since(start);
    assert!(took < AT_ONCE, "{name}: ws.close after {took:?}");
}

#[tokio::test]
async fn s68_invalid_close_is_answered_and_followed_by_a_fin_at_once() {
    let mut variants = vec![
        variant("one byte", invalid_close("one byte".into(), vec![b'x'], 1002)),
        variant("bad UTF-8", invalid_close("bad UTF-8".into(), b"\x03\xe8\xce\xba\xe1\xbd\xed\xa0\x80".to_vec(), 1007)),
    ];
    for code in [0_u16, 1005, 1006, 1015] {
        let name = format!("code {code}");
        variants.push(variant(name.clone(), invalid_close(name, code.to_be_bytes().to_vec(), 1002)));
    }
    together(variants).await;
}
