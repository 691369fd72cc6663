//! Answer mode: the client asks, the proxy answers and swallows.

use crate::frames::{CLOSE, Role};
use crate::rig::{QUIET, Rig, millis, secs};

const ANSWER: &str = "mode = \"answer\"\nprofile = { send = \"pong\", expect = \"ping\" }\nwindow = \"60s\"";

async fn answering() -> Rig {
    Rig::start(&format!("{QUIET}\n{ANSWER}")).await
}

#[tokio::test]
async fn s64_each_beat_of_a_burst_is_answered() {
    let rig = answering().await;
    let (client, app) = rig.pair("/burst").await;
    client.send(&Role::Client.text("ping").repeat(30)).await;
    client.text("behind").await;
    let at_app = app.wait("the message behind the burst", secs(5), |record| !record.texts().is_empty()).await;
    assert_eq!(at_app.texts(), ["behind"], "{at_app:?}");
    let seen = client.wait("30 answers", secs(5), |record| record.texts().len() >= 30).await;
    assert_eq!(seen.texts(), vec!["pong"; 30], "{seen:?}");
    client.close(1000, "").await;
    app.closed(secs(5)).await;
    rig.logs("/burst", "client", "normal", 1000, 1000).await;
}

#[tokio::test]
async fn s79_beats_before_a_close_are_answered_before_it() {
    let rig = answering().await;
    let (client, app) = rig.pair("/close").await;
    let texts = ["ping", "x", "ping"].map(|text| Role::Client.text(text)).concat();
    client.close_after(&texts, 1000, "bye").await;
    let seen = client.ended(secs(5)).await;
    let order: Vec<_> = seen.frames.iter().map(|(frame, _)| (frame.opcode == CLOSE, frame.payload.clone())).collect();
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
