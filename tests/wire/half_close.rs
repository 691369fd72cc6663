//! Half-closed connections: an end of one direction leaves the other one open.

use std::time::{Duration, Instant};

use pulsegate_test_kit::frame::Role;
use tokio::time::sleep;

use crate::wire::link::Link;
use crate::wire::peer::{Connect, MUTE, Pace, Peer};
use crate::wire::rig::{BEATING, GRACE, QUIET, Rig, SLACK, Via, millis, secs, together, true_for_client, variant};

/// Asserts that an answer arrives: the client sends a request and ends its direction; the app answers later than
/// timeout + `close_grace`.
async fn answer_arrives(via: Via, heartbeat: &'static str, size: usize, with_close: bool) {
    let rig = Rig::start(heartbeat).await;
    let what = format!("{via:?}, {size} bytes, Close: {with_close}");
    let (client, app) = rig.pair_via(via, "/half", Connect { narrow: true, ..Connect::default() }).await;
    client.text("question").await;
    client.finish().await;
    let finished = Instant::now();
    let at_app = app.ended(secs(2)).await;
    assert_eq!(at_app.texts(), ["question"], "{what}: the app received {at_app:?}");
    assert!(at_app.ended_with_fin(), "{what}: the app received {at_app:?}");
    assert!(at_app.ended_after(finished) < SLACK, "{what}: the FIN is late: {at_app:?}");
    assert_eq!(at_app.codes(), Vec::<u16>::new(), "{what}: the app received {at_app:?}");
    sleep(secs(3)).await;
    if size > 100_000 {
        client.pace(Pace::Rate(200_000));
    }
    app.send(&Role::App.binary(size)).await;
    if with_close {
        app.close(4003, "answered").await;
    }
    app.finish().await;
    let seen = client.ended(secs(10)).await;
    let sizes: Vec<usize> = seen.messages().iter().map(|message| message.len()).collect();
    assert_eq!(sizes, [size], "{what}: the client received {seen:?}");
    if with_close {
        assert_eq!(seen.codes(), [4003], "{what}: the client received {seen:?}");
    }
    if via == Via::Proxy {
        let line = rig.ended("/half", secs(5)).await;
        true_for_client(&line.json, &seen, None);
    }
}

#[tokio::test]
async fn s66_answer_to_a_client_that_half_closed_arrives() {
    together(vec![
        variant("proxy", answer_arrives(Via::Proxy, QUIET, 6, false)),
        variant("proxy, with probes due", answer_arrives(Via::Proxy, BEATING, 6, false)),
        variant("proxy, Close", answer_arrives(Via::Proxy, QUIET, 6, true)),
        variant("proxy, 400 KB, slow reader", answer_arrives(Via::Proxy, QUIET, 400_000, true)),
        variant("direct", answer_arrives(Via::Direct, QUIET, 6, true)),
    ])
    .await;
}

#[tokio::test]
async fn s66_wait_for_the_app_is_bounded_by_max_deferral() {
    let rig = Rig::start(&format!("{QUIET}\nmax_deferral = \"3s\"\nwrite_stall = \"2s\"")).await;
    let (client, app) = rig.pair("/bound").await;
    client.finish().await;
    let start = Instant::now();
    app.ended(secs(2)).await;
    // Progress does not renew the bound.
    while start.elapsed() < secs(10) && app.try_send(&Role::App.text("more")).await.is_ok() {
        sleep(millis(200)).await;
    }
    let line = rig.ended("/bound", secs(5)).await;
    let took = line.at.saturating_duration_since(start);
    let bound = secs(3)..secs(3) + secs(1) + GRACE + SLACK;
    assert!((bound.start - millis(300)..bound.end).contains(&took), "ended after {took:?}: {}", line.text);
    let seen = client.ended(secs(2)).await;
    assert!(seen.texts().len() >= 10, "the client received {seen:?}");
    true_for_client(&line.json, &seen, None);
}

/// Asserts that the client's last messages arrive, which are in flight while the app closes and ends its direction.
async fn last_words_arrive(via: Via) {
    let rig = Rig::start(QUIET).await;
    let target = if via == Via::Proxy { rig.proxy.address } else { rig.app.address };
    let link = Link::to(target, millis(100), 10_000_000);
    let tls = (via == Via::Proxy).then(|| rig.proxy.pki.client());
    let client = Peer::connect(link.address, "/last", Connect { tls, ..Connect::default() }).await;
    let app = rig.app.session("/last").await;
    app.habits(MUTE);
    client.text("last words").await;
    sleep(millis(30)).await;
    app.close(1000, "enough").await;
    app.finish().await;
    let seen = app.ended(secs(5)).await;
    assert_eq!(
        (seen.texts(), seen.closes()),
        (vec!["last words".into()], vec![(1000, "enough".into())]),
        "{via:?}: {seen:?}"
    );
    let at_client = client.ended(secs(5)).await;
    assert_eq!(at_client.closes(), [(1000, "enough".into())], "{via:?}: {at_client:?}");
    if via == Via::Proxy {
        rig.logs("/last", "upstream", "normal", 1000, 1000).await;
    }
}

/// Asserts that the slow upload of a client arrives in full although the app has closed and ended its direction.
async fn upload_behind_the_close_arrives() {
    let rig = Rig::start(QUIET).await;
    let (client, app) = rig.pair("/upload").await;
    app.habits(MUTE);
    client.habits(MUTE);
    app.close(1000, "enough").await;
    app.finish().await;
    client.closed(secs(5)).await;
    for _ in 0..4 {
        client.text("more").await;
        sleep(Duration::from_millis(100)).await;
    }
    client.close(4002, "mine").await;
    let seen = app.ended(secs(5)).await;
    assert_eq!((seen.texts().len(), seen.codes()), (4, vec![4002]), "the app received {seen:?}");
}

#[tokio::test]
async fn s82_app_that_closed_and_ended_its_direction_still_listens() {
    together(vec![
        variant("proxy", last_words_arrive(Via::Proxy)),
        variant("direct", last_words_arrive(Via::Direct)),
        variant("upload", upload_behind_the_close_arrives()),
    ])
    .await;
}
