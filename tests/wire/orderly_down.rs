//! An app that ends in order: everything that it sent before arrives, at the client's own speed.

use std::time::{Duration, Instant};

use pulsegate_test_kit::frame::Role;
use tokio::time::sleep;

use crate::wire::link::Link;
use crate::wire::peer::{CONFORMING, Connect, Habits, MUTE, Pace, Peer};
use crate::wire::rig::{BEATING, GRACE, QUIET, Rig, SLACK, Setup, Via, secs, together, true_for_client, variant};

/// The size of each message of the app.
const SIZE: usize = 100_000;
/// The number of messages that it sends.
const COUNT: usize = 15;
/// The bytes a second that the client reads.
const RATE: u32 = 400_000;

/// The end of the app's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Close 1000, and a FIN.
    CloseAndFin,
    /// Close 1000; a FIN once the client has answered.
    CloseThenWait,
    /// A FIN.
    Fin,
}

async fn sends_and_ends(app: &Peer, ending: Ending) {
    for _ in 0..COUNT {
        app.send(&Role::App.binary(SIZE)).await;
    }
    if ending != Ending::Fin {
        app.close(1000, "done").await;
    }
    if ending != Ending::CloseThenWait {
        app.finish().await;
    }
}

/// Asserts that a client that reads slowly gets all messages and the Close.
async fn arrives(rig: &Rig, via: Via, path: &str, ending: Ending, habits: Habits) {
    let (client, app) = rig.pair_via(via, path, Connect { narrow: true, ..Connect::default() }).await;
    client.habits(habits);
    client.pace(Pace::Rate(RATE));
    sends_and_ends(&app, ending).await;
    let seen = client.ended(secs(15)).await;
    let sizes: Vec<usize> = seen.messages().iter().map(|message| message.len()).collect();
    assert_eq!(sizes, [SIZE; COUNT], "{path} {via:?}: the client received {seen:?}");
    let expected = match (ending, via) {
        (Ending::Fin, Via::Direct) => vec![],
        (Ending::Fin, Via::Proxy) => vec![(1012, "upstream lost".to_owned())],
        _ => vec![(1000, "done".to_owned())],
    };
    assert_eq!(seen.closes(), expected, "{path} {via:?}: the client received {seen:?}");
    assert!(seen.ended_with_fin(), "{path} {via:?}: the client received {seen:?}");
    if via == Via::Proxy {
        let line = match ending {
            Ending::Fin => rig.logs(path, "upstream", "upstream_lost", 1012, 1006).await,
            _ => rig.logs(path, "upstream", "normal", 1000, 1000).await,
        };
        true_for_client(&line.json, &seen, None);
    }
}

#[tokio::test]
async fn s53_close_behind_a_backlog_arrives_with_all_of_it() {
    for_slow_readers(Ending::CloseAndFin, QUIET).await;
}

/// The window of such a client is smaller than a segment, so that the proxy's kernel sends it probes all the time.
#[tokio::test]
async fn s53_client_with_a_small_window_that_reads_steadily_outlives_the_write_stall() {
    let rig = Rig::start(&format!("{QUIET}\nwrite_stall = \"1s\"")).await;
    let (client, app) = rig.narrow_pair("/small").await;
    client.pace(Pace::Rate(50_000));
    for _ in 0..3 {
        app.send(&Role::App.binary(SIZE)).await;
    }
    app.close(1000, "done").await;
    app.finish().await;
    let started = Instant::now();
    let seen = client.ended(secs(20)).await;
    let sizes: Vec<usize> = seen.messages().iter().map(|message| message.len()).collect();
    assert_eq!(sizes, [SIZE; 3], "the client received {seen:?}");
    assert!(started.elapsed() > secs(3), "it took only {:?}", started.elapsed());
    assert_eq!(seen.codes(), [1000], "the client received {seen:?}");
    rig.logs("/small", "upstream", "normal", 1000, 1000).await;
}

#[tokio::test]
async fn s53_close_behind_a_backlog_arrives_while_probes_are_due() {
    for_slow_readers(Ending::CloseAndFin, BEATING).await;
}

#[tokio::test]
async fn s54_close_behind_a_backlog_arrives_when_the_app_waits_for_the_echo() {
    for_slow_readers(Ending::CloseThenWait, QUIET).await;
}

#[tokio::test]
async fn s54_end_without_a_close_behind_a_backlog_arrives_with_all_of_it() {
    for_slow_readers(Ending::Fin, QUIET).await;
}

async fn for_slow_readers(ending: Ending, heartbeat: &'static str) {
    let start = async || Rig::start(heartbeat).await;
    let (one, two, three) = (start().await, start().await, start().await);
    let silent = Habits { pongs: true, ..MUTE };
    let mut variants = vec![
        variant("conforming client", async move { arrives(&one, Via::Proxy, "/conforming", ending, CONFORMING).await }),
        variant("direct", async move { arrives(&two, Via::Direct, "/direct", ending, CONFORMING).await }),
    ];
    // Without an echo, an app that waits for one never ends: scenario 59 covers the bound of that.
    if ending != Ending::CloseThenWait {
        variants.push(variant("client without an echo", async move {
            arrives(&three, Via::Proxy, "/silent", ending, silent).await;
        }));
    }
    together(variants).await;
}

#[tokio::test]
async fn s53_small_loads_on_slow_links_arrive() {
    together(vec![
        variant("60 KB at 20 KB/s", small_load(60_000, 20_000)),
        variant("40 KB at 100 KB/s", small_load(40_000, 100_000)),
    ])
    .await;
}

async fn small_load(size: usize, rate: u32) {
    let rig = Rig::start(QUIET).await;
    let link = Link::to(rig.proxy.address, Duration::from_millis(20), rate);
    let how = Connect { tls: Some(rig.proxy.pki.client()), narrow: true, ..Connect::default() };
    let client = Peer::connect(link.address, "/link", how).await;
    let app = rig.app.session("/link").await;
    app.send(&Role::App.binary(size)).await;
    app.close(1000, "done").await;
    app.finish().await;
    let seen = client.ended(secs(15)).await;
    assert_eq!(seen.messages().iter().map(|message| message.len()).sum::<usize>(), size, "{seen:?}");
    assert_eq!(seen.closes(), [(1000, "done".into())], "{seen:?}");
    rig.logs("/link", "upstream", "normal", 1000, 1000).await;
}

#[tokio::test]
async fn s53_client_that_pauses_before_it_reads_gets_all_of_it() {
    let rig = Rig::start(QUIET).await;
    let (client, app) = rig.narrow_pair("/pause").await;
    client.pace(Pace::Stopped);
    sends_and_ends(&app, Ending::CloseAndFin).await;
    // Longer than timeout + close_grace, and shorter than write_stall.
    sleep(secs(1) + GRACE + SLACK).await;
    client.pace(Pace::Full);
    let seen = client.ended(secs(10)).await;
    assert_eq!(seen.messages().len(), COUNT, "{seen:?}");
    assert_eq!(seen.closes(), [(1000, "done".into())], "{seen:?}");
    rig.logs("/pause", "upstream", "normal", 1000, 1000).await;
}

#[tokio::test]
async fn s53_client_that_never_reads_again_is_gone_after_the_write_stall() {
    let heartbeat = format!("{QUIET}\nwrite_stall = \"2s\"");
    let rig = Rig::start(&heartbeat).await;
    let (client, app) = rig.narrow_pair("/stall").await;
    client.pace(Pace::Stopped);
    sends_and_ends(&app, Ending::CloseAndFin).await;
    let sent = Instant::now();
    let line = rig.ended("/stall", secs(12)).await;
    let took = line.at.saturating_duration_since(sent);
    // Nothing has moved since the Close was sent; a timeout may pass for the peer's half.
    let earliest = secs(2) - Duration::from_millis(500);
    assert!((earliest..secs(3) + GRACE + SLACK).contains(&took), "gone after {took:?}: {}", line.text);
    client.pace(Pace::Full);
    let seen = client.ended(secs(10)).await;
    true_for_client(&line.json, &seen, None);
}

/// A Close of the proxy follows everything that was read from the app, at a frame's end.
#[tokio::test]
async fn s55_close_of_the_maximum_age_comes_behind_what_was_read() {
    let drain = "delay = \"0s\"\nwindow = \"0s\"\nmax_connection_age = \"1s\"";
    let rig = Rig::set_up(Setup { heartbeat: QUIET, drain, ..Setup::default() }).await;
    let (client, app) = rig.narrow_pair("/age").await;
    client.pace(Pace::Rate(RATE));
    for _ in 0..COUNT {
        app.send(&Role::App.binary(SIZE)).await;
    }
    let seen = client.ended(secs(15)).await;
    let sizes: Vec<usize> = seen.messages().iter().map(|message| message.len()).collect();
    assert_eq!(sizes, vec![SIZE; sizes.len()], "the client received {seen:?}");
    assert!(seen.partial.is_empty(), "the client received {seen:?}");
    assert_eq!(seen.closes(), [(1012, "maximum age".into())], "the client received {seen:?}");
    assert!(seen.ended_with_fin(), "the client received {seen:?}");
    let at_app = app.ended(secs(5)).await;
    assert_eq!(at_app.codes(), [1012], "the app received {at_app:?}");
    rig.logs("/age", "proxy", "max_age", 1012, 1012).await;
}
