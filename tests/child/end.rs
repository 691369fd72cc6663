//! The end: the drain comes first, then the app; and the app's own end takes the proxy with it.

use std::time::{Duration, Instant};

use futures_util::SinkExt;
use futures_util::future::join_all;
use pulsegate_test_kit::client::close_of;
use pulsegate_test_kit::node::project;
use pulsegate_test_kit::process::Process;
use pulsegate_test_kit::wait::{TIMEOUT, wait_until};
use rustix::process::{Signal, kill_process};
use tokio_tungstenite::tungstenite::Message;

use super::{IN_ORDER, answers, app_pid, config, dev, is_gone, pid, run};

#[tokio::test]
async fn the_drain_comes_first_and_the_app_lives_through_it() {
    let config = config().drain("delay = \"0s\"").drain("window = \"2s\"");
    let mut proxy = run(config, &[], &[]).await;
    let mut websockets = join_all((0..20).map(|_| proxy.websocket("/"))).await;
    proxy.terminate();
    let closes = join_all(websockets.iter_mut().map(async |websocket| {
        // Each one works until its own Close, which may come first.
        let _ = websocket.send(Message::text("still here")).await;
        close_of(websocket).await
    }))
    .await;
    assert_eq!(proxy.ended().await.code(), Some(IN_ORDER), "{}", proxy.transcript());
    assert!(closes.iter().all(|(code, _)| *code == 1012), "{closes:?}");
    assert_eq!(proxy.events("sigterm")[0]["sessions"], 0, "the drain came first: {}", proxy.transcript());
    assert_eq!(proxy.events("close").len(), 20, "each session ended at the app while it lived");
}

#[tokio::test]
async fn the_proxy_ends_with_the_app_and_has_its_code() {
    let config = config().drain("delay = \"60s\"").drain("window = \"60s\"");
    let mut proxy = run(config, &[], &["good", "33"]).await;
    let mut websocket = proxy.websocket("/").await;
    let began = Instant::now();
    let mut stream = proxy.tls().await;
    // The app ends before it answers.
    let answer = proxy.ask(&mut stream, b"GET /exit HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(close_of(&mut websocket).await.0, 1012);
    assert_eq!(proxy.ended().await.code(), Some(33), "{}", proxy.transcript());
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "neither delay nor window are waited for: {:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn an_app_that_a_signal_kills_gives_128_and_its_number() {
    let mut proxy = run(config(), &[], &["plain"]).await;
    kill_process(app_pid(&proxy).await, Signal::KILL).expect("it runs");
    assert_eq!(proxy.ended().await.code(), Some(137), "{}", proxy.transcript());
    let mut proxy = run(config(), &[], &["plain"]).await;
    proxy.terminate();
    assert_eq!(proxy.ended().await.code(), Some(143), "{}", proxy.transcript());
}

#[tokio::test]
async fn an_app_that_ignores_sigterm_is_killed_after_its_grace_or_at_a_second_signal() {
    let mut proxy = run(config(), &["--stop-within", "2s"], &["stubborn"]).await;
    let app = app_pid(&proxy).await;
    let began = Instant::now();
    proxy.terminate();
    proxy.event("sigterm", |_| true).await;
    assert_eq!(proxy.ended().await.code(), Some(137), "{}", proxy.transcript());
    assert!(began.elapsed() > Duration::from_millis(1500), "{:?}", began.elapsed());
    is_gone(app).await;

    let mut proxy = run(config(), &["--stop-within", "1h"], &["stubborn"]).await;
    proxy.terminate();
    proxy.event("sigterm", |_| true).await;
    proxy.terminate();
    assert_eq!(proxy.ended().await.code(), Some(137), "{}", proxy.transcript());
}

#[tokio::test]
async fn a_second_signal_cuts_the_drain_short_and_the_code_is_still_the_apps() {
    let config = config().drain("delay = \"0s\"").drain("window = \"1h\"");
    let mut proxy = run(config, &[], &[]).await;
    let _websocket = proxy.websocket("/").await;
    proxy.terminate();
    proxy.line("the drain", |line| line.json["message"] == "drain" && line.json["phase"] == "draining").await;
    proxy.terminate();
    assert_eq!(proxy.ended().await.code(), Some(IN_ORDER), "{}", proxy.transcript());
    assert_eq!(proxy.logged("drain aborted").len(), 1, "{}", proxy.transcript());
    assert_eq!(proxy.logged("app.exited").len(), 1, "{}", proxy.transcript());
}

#[tokio::test]
async fn a_drain_fits_the_time_of_the_platform() {
    // The defaults take 27 s and leave the app 5 s.
    let config = config().drain("delay = \"5s\"").drain("window = \"15s\"");
    let mut proxy = run(config, &["--stop-within", "6s"], &[]).await;
    let mut websockets = join_all((0..10).map(|_| proxy.websocket("/"))).await;
    let began = Instant::now();
    proxy.terminate();
    let closes = join_all(websockets.iter_mut().map(close_of)).await;
    assert!(closes.iter().all(|(code, _)| *code == 1012), "{closes:?}");
    assert_eq!(proxy.ended().await.code(), Some(IN_ORDER), "{}", proxy.transcript());
    let plan = proxy.logged("drain").remove(0);
    assert_eq!((plan["delay_s"].as_f64(), plan["window_s"].as_f64()), (Some(0.0), Some(1.1)), "{plan}");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}; {}", began.elapsed(), proxy.transcript());
}

#[tokio::test]
async fn what_the_app_leaves_in_its_group_ends_too() {
    let mut proxy = run(config(), &[], &["leaves"]).await;
    let left = pid(&proxy.event("left", |_| true).await["child"]);
    kill_process(app_pid(&proxy).await, Signal::KILL).expect("it runs");
    assert_eq!(proxy.ended().await.code(), Some(137), "{}", proxy.transcript());
    is_gone(left).await;
}

#[tokio::test]
async fn npm_nodemon_and_tsx_are_ended_with_their_apps() {
    let folder = project("child");
    let scripts: [(&[&str], &str); 5] = [
        (&["npm", "run", "dev"], "\"listening\""),
        (&["npm", "run", "chained"], "\"listening\""),
        (&["npx", "nodemon", "app.js"], "\"listening\""),
        (&["npx", "tsx", "server.ts"], "typescript listens"),
        (&["npx", "tsx", "watch", "server.ts"], "typescript listens"),
    ];
    for (words, line) in scripts {
        let words: Vec<&str> = ["--"].iter().chain(words).copied().collect();
        let mut process = Process::start_without_input("pulsegate dev", &mut dev(&folder, &words));
        process.line(line, |output| output.text.contains(line)).await;
        process.line("the guide", |line| line.text.contains("Ctrl-C ends it")).await;
        let family = process.descendants(|_| true);
        assert!(family.len() > 1, "{words:?}: {family:?}");
        let began = Instant::now();
        process.interrupt();
        let status = process.exit_within(TIMEOUT).await;
        assert!(status.code().is_some(), "{words:?}: {status}; {}", process.transcript());
        assert!(began.elapsed() < Duration::from_secs(4), "{words:?} needed SIGKILL: {}", process.transcript());
        for pid in family {
            is_gone(pid).await;
        }
    }
}

#[tokio::test]
async fn a_killed_pulsegate_takes_the_app_with_it() {
    let mut proxy = run(config(), &[], &[]).await;
    let app = app_pid(&proxy).await;
    proxy.kill().await;
    proxy.event("sigterm", |_| true).await;
    is_gone(app).await;
}

#[tokio::test]
async fn a_signal_during_the_wait_ends_the_app() {
    let folder = project("child");
    let mut process =
        Process::start_without_input("pulsegate dev", &mut dev(&folder, &["--", "node", "app.js", "nowhere"]));
    let app = app_pid(&process).await;
    process.hang_up();
    assert_eq!(process.ended().await.code(), Some(IN_ORDER), "{}", process.transcript());
    is_gone(app).await;
}

#[tokio::test]
async fn a_hangup_of_run_reloads_and_ends_nothing() {
    let mut proxy = run(config(), &[], &[]).await;
    proxy.hang_up();
    let reloads = || proxy.lines().iter().filter(|line| line.text.contains("\"trigger\":\"signal\"")).count();
    wait_until("a reload", reloads, |count| *count > 0).await;
    answers(&proxy).await;
    proxy.terminate();
    assert_eq!(proxy.ended().await.code(), Some(IN_ORDER), "{}", proxy.transcript());
}
