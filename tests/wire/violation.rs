//! A client that violates the protocol after messages that the app is about to answer.

use std::time::{Duration, Instant};

use pulsegate_test_kit::frame::{CLOSE, CONTINUATION, LengthForm, PING, Role};
use tokio::time::sleep;

use crate::wire::peer::{CONFORMING, MUTE};
use crate::wire::rig::{Rig, SLACK, Setup, millis, secs, together, variant};

/// A `close_grace` that leaves time for answers, and can be distinguished from "at once".
const LONG_GRACE: &str = "interval = \"60s\"\ntimeout = \"5s\"\njitter = 0\nclose_grace = \"3s\"";
const GRACE: Duration = Duration::from_secs(3);

/// Returns frames that violate the protocol, by name, each with the code that answers it.
fn violations() -> Vec<(&'static str, Vec<u8>, u16)> {
    vec![
        ("reserved opcode", Role::Client.frame(3, b"x"), 1002),
        ("reserved control opcode", Role::Client.frame(11, b"x"), 1002),
        ("RSV2", Role::Client.raw(0xa1, LengthForm::Minimal, b"x"), 1002),
        ("continuation of nothing", Role::Client.frame(CONTINUATION, b"x"), 1002),
        ("unmasked frame", Role::App.text("x"), 1002),
        ("long Ping", Role::Client.frame(PING, &[b'x'; 126]), 1002),
        ("fragmented Ping", Role::Client.fragment(PING, b"x"), 1002),
        ("Close of one byte", Role::Client.frame(CLOSE, b"x"), 1002),
        ("Close with code 1005", Role::Client.close(1005, ""), 1002),
        ("Close whose reason is not UTF-8", Role::Client.frame(CLOSE, b"\x03\xe8\xff\xff"), 1007),
    ]
}

/// Asserts that the app's answer, which is a little later, reaches the client before the code of the violation.
async fn answer_comes_first(name: &'static str, violation: Vec<u8>, code: u16) {
    let rig = Rig::start(LONG_GRACE).await;
    let (client, app) = rig.pair("/answer").await;
    client.habits(MUTE);
    app.habits(MUTE);
    let start = Instant::now();
    client.send(&[Role::Client.text("question"), violation, Role::Client.text("behind")].concat()).await;
    let at_app = app.closed(secs(5)).await;
    assert_eq!((at_app.texts(), at_app.codes()), (vec!["question".into()], vec![code]), "{name}: {at_app:?}");
    sleep(millis(300)).await;
    app.text("answer").await;
    // The app's answer to a Close that it did not begin is swallowed.
    app.close(code, "").await;
    app.finish().await;
    let seen = client.ended(secs(8)).await;
    assert_eq!(
        (seen.texts(), seen.codes()),
        (vec!["answer".into()], vec![code]),
        "{name}: the client received {seen:?}"
    );
    assert!(seen.ended_with_fin(), "{name}: the client received {seen:?}");
    let took = seen.ended_after(start);
    assert!(took < millis(300) + SLACK, "{name}: the end came after {took:?}: {seen:?}");
    rig.logs("/answer", "proxy", "protocol_error", code, code).await;
}

#[tokio::test]
async fn s69_answers_to_messages_before_a_violation_arrive_before_its_code() {
    let variants = violations().into_iter();
    together(variants.map(|(name, frame, code)| variant(name, answer_comes_first(name, frame, code))).collect()).await;
}

/// The wait for the app is `close_grace` at most, however much it sends.
#[tokio::test]
async fn s69_wait_for_answers_is_absolute() {
    let rig = Rig::start(LONG_GRACE).await;
    let (client, app) = rig.pair("/absolute").await;
    client.habits(MUTE);
    app.habits(MUTE);
    let start = Instant::now();
    client.send(&[Role::Client.text("question"), Role::Client.frame(3, b"x")].concat()).await;
    while start.elapsed() < secs(10) && app.try_send(&Role::App.text("more")).await.is_ok() {
        sleep(millis(100)).await;
    }
    let seen = client.ended(secs(2)).await;
    assert_eq!(seen.codes(), [1002], "the client received {seen:?}");
    assert!(seen.texts().len() > 3, "the client received {seen:?}");
    let took = seen.ended_after(start);
    assert!(took < GRACE + SLACK, "ended after {took:?}: {seen:?}");
    let line = rig.logs("/absolute", "proxy", "protocol_error", 1002, 1002).await;
    assert!(line.at.saturating_duration_since(start) < GRACE + SLACK, "{}", line.text);
}

/// A Close that the app began itself is the only one.
#[tokio::test]
async fn s69_close_of_the_app_stands_alone() {
    let rig = Rig::start(LONG_GRACE).await;
    let (client, app) = rig.pair("/stands").await;
    client.habits(MUTE);
    app.close(4001, "mine").await;
    client.closed(secs(5)).await;
    client.send(&Role::Client.frame(3, b"x")).await;
    let seen = client.ended(secs(8)).await;
    assert_eq!(seen.closes(), [(4001, "mine".into())], "the client received {seen:?}");
    app.ended(secs(8)).await;
}

/// A Close that the app begins after the violation, before it has read the proxy's, is swallowed; the violation's code
/// is sent once.
#[tokio::test]
async fn s69_close_of_the_app_behind_the_violation_is_not_a_second_one() {
    let rig = Rig::start(LONG_GRACE).await;
    let (client, app) = rig.pair("/crossing").await;
    client.habits(MUTE);
    app.habits(MUTE);
    client.send(&[Role::Client.text("question"), Role::Client.frame(3, b"x")].concat()).await;
    app.closed(secs(5)).await;
    app.text("answer").await;
    app.close(4001, "mine").await;
    app.finish().await;
    let seen = client.ended(secs(8)).await;
    assert_eq!(seen.codes(), [1002], "the client received {seen:?}");
    assert_eq!(seen.texts(), ["answer"], "the client received {seen:?}");
}

/// Asserts that the limits act at once, without a wait.
async fn limit_acts_at_once(
    name: &'static str,
    limits: &'static str,
    frames: Vec<u8>,
    code: u16,
    reason: &'static str,
) {
    let rig = Rig::set_up(Setup { heartbeat: LONG_GRACE, limits, ..Setup::default() }).await;
    let (client, app) = rig.pair("/limit").await;
    client.habits(MUTE);
    app.habits(MUTE);
    let start = Instant::now();
    client.send(&frames).await;
    let seen = client.closed(secs(8)).await;
    let took = seen.closed_at().expect("there is a Close").saturating_duration_since(start);
    assert_eq!(seen.codes(), [code], "{name}: the client received {seen:?}");
    assert!(took < secs(1), "{name}: {took:?}: the client received {seen:?}");
    rig.logs("/limit", "proxy", reason, code, code).await;
    app.habits(CONFORMING);
}

#[tokio::test]
async fn s69_limits_act_at_once() {
    let burst = Role::Client.text("x").repeat(30);
    let big = [Role::Client.text("question"), Role::Client.binary(2000)].concat();
    together(vec![
        variant("rate", limit_acts_at_once("rate", "messages_per_second = 5", burst, 1008, "rate")),
        variant("size", limit_acts_at_once("size", "message = \"1KiB\"", big, 1009, "too_big")),
    ])
    .await;
}
