//! Clocks of the proxy alone that jump or run at another speed, by libfaketime.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use pulsegate_test_kit::client::{Neighbour, Wss, echo};
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::proxy::{BOUND, Config, Proxy, QUICK};
use pulsegate_test_kit::wait::wait_for;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::PULSEGATE;

/// The delay that a busy machine may add.
const SLACK: Duration = Duration::from_millis(1500);

/// The faked clocks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clocks {
    Wall,
    All,
}

/// The clocks of one process.
struct Faked {
    file: PathBuf,
    _dir: TempDir,
}

impl Faked {
    /// Sets the clocks: an offset in seconds, and a speed.
    fn set(&self, to: &str) {
        let next = self.file.with_extension("next");
        fs::write(&next, to).expect("write the clocks");
        fs::rename(&next, &self.file).expect("write the clocks");
    }
}

/// Returns the path of the library of the Debian package `faketime`.
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").expect("/usr/lib is there").flatten().map(|entry| entry.path());
    let found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    found.expect("libfaketimeMT.so.1 is missing below /usr/lib; ./tests/install installs it")
}

async fn proxy(app: &NodeApp, clocks: Clocks, speed: &str) -> (Proxy, Faked) {
    let dir = TempDir::new().expect("a folder");
    let faked = Faked { file: dir.path().join("clocks"), _dir: dir };
    faked.set(speed);
    let mut command = Command::new("env");
    command.arg(format!("LD_PRELOAD={}", library().display()));
    command.arg(format!("FAKETIME_TIMESTAMP_FILE={}", faked.file.display())).arg("FAKETIME_NO_CACHE=1");
    if clocks == Clocks::Wall {
        command.arg("FAKETIME_DONT_FAKE_MONOTONIC=1");
    }
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    (Proxy::start_by(command, address, Config::to(PULSEGATE, &app.url).with(QUICK)).await, faked)
}

/// Reads and answers pings for `time`; returns their number.
async fn pings(websocket: &mut Wss, time: Duration) -> u32 {
    let (began, mut pings) = (Instant::now(), 0);
    while let Ok(message) = timeout(time.saturating_sub(began.elapsed()), websocket.next()).await {
        let message = message.expect("the session lives").expect("the session lives");
        assert!(message.is_ping(), "{message:?}");
        pings += 1;
    }
    pings
}

/// Asserts that a dead client is gone in `most`, and in no less than `least`, of the real time.
async fn finds_a_dead_client(proxy: &Proxy, app: &NodeApp, name: &str, least: Duration, most: Duration) {
    let _dead = proxy.upgraded(&format!("/ws?name={name}")).await;
    let began = Instant::now();
    let close = app.close_of(name).await;
    let took = close.at - began;
    assert!((least..most).contains(&took), "gone after {took:?}; the log:\n{}", proxy.transcript());
}

/// Returns the date in the proxy's last log line.
fn date(proxy: &Proxy) -> String {
    let lines = proxy.lines();
    let last = lines.last().expect("a line");
    last.json["timestamp"].as_str().expect("a timestamp").to_owned()
}

#[tokio::test]
async fn s29_no_client_is_torn_down_when_the_wall_clock_jumps() {
    let app = NodeApp::bare().await;
    let (proxy, clocks) = proxy(&app, Clocks::Wall, "+0").await;
    let neighbour = Neighbour::join(&proxy, "/ws").await;
    let mut websocket = proxy.websocket("/ws").await;
    let start = date(&proxy);
    for (turn, to) in ["+3600", "+0", "-3600", "+0 x2", "+0 x0.5"].into_iter().enumerate() {
        clocks.set(to);
        // As many as at any other time: the heartbeat follows another clock.
        let pings = pings(&mut websocket, Duration::from_millis(1500)).await;
        assert!((2..=9).contains(&pings), "{pings} pings after {to}; the log:\n{}", proxy.transcript());
        neighbour.echoes().await;
        if to.starts_with(['+', '-']) && to.ends_with("3600") {
            drop(proxy.websocket("/ws").await);
            proxy.ws_closes(turn.min(1) + 1).await;
            let day = |date: &str| date[..13].to_owned();
            assert_ne!(day(&date(&proxy)), day(&start), "the clock of the log has not jumped");
        }
    }
    wait_for("an echo", echo(&mut websocket, "still here".into())).await.expect("the session lives");
    drop(websocket);
    finds_a_dead_client(&proxy, &app, "dead", Duration::from_millis(400), BOUND + SLACK).await;
    neighbour.echoes().await;
    proxy.finish().await;
}

#[tokio::test]
async fn s29_a_session_outlives_the_certificate_by_the_wall_clock() {
    let app = NodeApp::bare().await;
    let (proxy, clocks) = proxy(&app, Clocks::Wall, "+0").await;
    let mut websocket = proxy.websocket("/ws").await;
    // The certificates of these tests end in 4096; the clock of the proxy is beyond that, and then before their time.
    for to in ["+70000000000", "-1500000000"] {
        clocks.set(to);
        assert!(pings(&mut websocket, Duration::from_millis(1500)).await >= 2, "{}", proxy.transcript());
        wait_for("an echo", echo(&mut websocket, "still here".into())).await.expect("the session lives");
    }
    drop(websocket);
    proxy.finish().await;
}

#[tokio::test]
async fn s28_a_jump_of_the_monotonic_clock_is_like_a_suspension() {
    let app = NodeApp::bare().await;
    let (proxy, clocks) = proxy(&app, Clocks::All, "+0").await;
    let neighbour = Neighbour::join(&proxy, "/ws").await;
    let mut websocket = proxy.websocket("/ws").await;
    pings(&mut websocket, Duration::from_secs(1)).await;
    for to in ["+3600", "+7200", "+7260"] {
        clocks.set(to);
        let pings = pings(&mut websocket, Duration::from_secs(2)).await;
        assert!(pings >= 2, "{pings} pings after {to}; the log:\n{}", proxy.transcript());
        neighbour.echoes().await;
    }
    // A dead client gets a fresh timeout once, and no more.
    let dead = proxy.upgraded("/ws?name=dead").await;
    sleep(Duration::from_millis(200)).await;
    clocks.set("+10800");
    let jumped = Instant::now();
    let close = app.close_of("dead").await;
    let took = close.at - jumped;
    assert!(took < BOUND + Duration::from_millis(600) + SLACK, "gone {took:?} after the jump:\n{}", proxy.transcript());
    neighbour.echoes().await;
    drop((websocket, dead));
    proxy.finish().await;
}

#[tokio::test]
async fn s29_a_heartbeat_keeps_the_pace_of_its_own_clock() {
    let app = NodeApp::bare().await;
    for (speed, factor) in [("+0 x2", 0.5), ("+0 x0.5", 2.0)] {
        let (proxy, _clocks) = proxy(&app, Clocks::All, speed).await;
        let neighbour = Neighbour::join(&proxy, "/ws").await;
        let name = format!("dead{factor}");
        let most = BOUND.mul_f64(factor) + SLACK;
        finds_a_dead_client(&proxy, &app, &name, BOUND.mul_f64(0.6 * factor), most).await;
        neighbour.echoes().await;
        proxy.finish().await;
    }
}
