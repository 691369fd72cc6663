//! Every scenario against an independent TLS server, made of tungstenite, h2 and tokio-rustls: the figures must agree
//! with the server's behaviour.

mod http;
mod server;

use std::time::Duration;

use clap::{Args, Command, FromArgMatches};
use pulsegate_load::scenario::{beat, echo, handshake, idle, silent};
use tokio::net::TcpListener;
use tokio::time::timeout;

use server::{Habit, Server};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn echo_counts_exactly() {
    let server = Server::start(Habit::Echo).await;
    let options = server.options::<echo::Echo>(&["-n", "3", "-s", "70000", "-m", "50"]);
    let figures = timeout(PATIENCE, echo::run(&options)).await.expect("in time").expect("the echoes are right");
    assert_eq!(figures.of("messages"), Some(50.0), "{figures}");
    // Fifty messages may cost less than one tick of the CPU clock.
    assert!(figures.of("cpu_us_per_message").is_some_and(|cost| cost >= 0.0), "{figures}");
}

#[tokio::test]
async fn echo_measures_for_a_time() {
    let server = Server::start(Habit::Beat(Duration::from_millis(50))).await;
    let options = server.options::<echo::Echo>(&["-n", "4", "-d", "400ms", "--warm-up", "200ms"]);
    let figures = timeout(PATIENCE, echo::run(&options)).await.expect("in time").expect("the echoes are right");
    let messages = figures.of("messages").expect("they are counted");
    assert!(messages > 0.0, "{figures}");
    assert!(figures.of("messages_per_second").is_some_and(|rate| (rate - messages / 0.4).abs() < 1.0), "{figures}");
    let (p50, p99) = (figures.of("latency_p50_us"), figures.of("latency_p99_us"));
    assert!(p50 > Some(0.0) && p99 >= p50, "{figures}");
}

#[tokio::test]
async fn a_corrupted_echo_fails_the_run() {
    let server = Server::start(Habit::Corrupt).await;
    let options = server.options::<echo::Echo>(&["-n", "2", "-m", "10"]);
    let error = timeout(PATIENCE, echo::run(&options)).await.expect("in time").expect_err("every byte differs");
    assert!(format!("{error:#}").ends_with("an echo differs from the message that was sent"), "{error:#}");
}

#[tokio::test]
async fn idle_sessions_are_held_and_measured() {
    let server = Server::start(Habit::Beat(Duration::from_millis(500))).await;
    let options = server.options::<idle::Idle>(&["-n", "40", "--warm-up", "5", "--wave", "7"]);
    let figures = timeout(PATIENCE, idle::run(&options)).await.expect("in time").expect("all sessions are held");
    // Client and server share the process here: the figure only has to exist.
    assert!(figures.of("pss_baseline_kib").is_some_and(|pss| pss > 100.0), "{figures}");
    assert!(figures.of("pss_growth_percent").is_some_and(f64::is_finite), "{figures}");
}

#[tokio::test]
async fn silent_sessions_are_timed_to_their_close() {
    let server = Server::start(Habit::Beat(Duration::from_millis(200))).await;
    let options = server.options::<silent::Silent>(&["-n", "20", "-w", "20s"]);
    let figures = timeout(PATIENCE, silent::run(&options)).await.expect("in time").expect("they all end");
    assert_eq!((figures.of("torn_down"), figures.of("still_open")), (Some(20.0), Some(0.0)), "{figures}");
    assert_eq!(figures.of("pings_ignored"), Some(20.0), "{figures}");
    // A ping after one period, the close after another; the client sees the upgrade a moment after the server.
    assert!(figures.of("close_s_min").is_some_and(|seconds| seconds > 0.3), "{figures}");
    assert!(figures.of("gone_s_max") >= figures.of("close_s_max"), "{figures}");
}

#[tokio::test]
async fn silent_sessions_that_stay_open_are_reported() {
    let server = Server::start(Habit::Echo).await;
    let options = server.options::<silent::Silent>(&["-n", "3", "-w", "100ms"]);
    let figures = timeout(PATIENCE, silent::run(&options)).await.expect("in time").expect("that is a finding");
    assert_eq!((figures.of("torn_down"), figures.of("still_open")), (Some(0.0), Some(3.0)), "{figures}");
    assert_eq!(figures.of("gone_s_max"), None, "{figures}");
}

#[tokio::test]
async fn handshakes_are_counted() {
    let server = Server::start(Habit::Echo).await;
    let options = server.options::<handshake::Handshake>(&["-m", "30", "--warm-up", "5", "-c", "4"]);
    let figures = timeout(PATIENCE, handshake::run(&options)).await.expect("in time").expect("all upgrades succeed");
    assert_eq!(figures.of("upgrades"), Some(30.0), "{figures}");
    assert!(figures.of("cpu_us_per_upgrade").is_some_and(|cost| cost > 0.0), "{figures}");
}

#[tokio::test]
async fn live_sessions_answer_and_stay_open() {
    let server = Server::start(Habit::Beat(Duration::from_millis(300))).await;
    let options = server.options::<beat::Beat>(&["-n", "30", "-d", "2s"]);
    let figures = timeout(PATIENCE, beat::run(&options)).await.expect("in time").expect("they all live");
    assert_eq!(figures.of("false_teardowns"), Some(0.0), "{figures}");
    assert!(figures.of("pings_of_the_least_beaten").is_some_and(|pings| pings >= 3.0), "{figures}");
}

#[tokio::test]
async fn a_false_teardown_is_a_finding() {
    let server = Server::start(Habit::CloseAfter(Duration::from_millis(500))).await;
    let options = server.options::<beat::Beat>(&["-n", "5", "-d", "1500ms"]);
    let figures = timeout(PATIENCE, beat::run(&options)).await.expect("in time").expect("that is a finding");
    assert_eq!(figures.of("false_teardowns"), Some(5.0), "{figures}");
}

#[tokio::test]
async fn a_refused_connection_is_explained() {
    let server = Server::start(Habit::Echo).await;
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port is free").local_addr().expect("it is bound");
    let url = format!("wss://localhost:{}/", free.port());
    let ca = server.directory.join("ca.pem");
    let arguments = ["scenario", &url, "--ca", ca.to_str().expect("plain")];
    let matches = echo::Echo::augment_args(Command::new("scenario")).try_get_matches_from(arguments).expect("right");
    let options = echo::Echo::from_arg_matches(&matches).expect("right");
    let error = timeout(PATIENCE, echo::run(&options)).await.expect("in time").expect_err("no server listens");
    assert!(format!("{error:#}").contains("is the proxy running?"), "{error:#}");
}
