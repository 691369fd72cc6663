//! Plain requests, and WebSockets over HTTP/2.

use std::time::Duration;

use pulsegate_load::scenario::{Figures, echo, idle, kept, request, silent};
use tokio::time::timeout;

use crate::PATIENCE;
use crate::server::{Habit, STREAMS, Server};

/// Runs a scenario on a server with this habit.
macro_rules! run {
    ($scenario:ident::$options:ident on $habit:expr, $arguments:expr) => {{
        let server = Server::start($habit).await;
        let options = server.options::<$scenario::$options>(&$arguments);
        timeout(PATIENCE, $scenario::run(&options)).await.expect("in time")
    }};
}

fn refused(result: anyhow::Result<Figures>) -> String {
    format!("{:#}", result.expect_err("it cannot succeed"))
}

#[tokio::test]
async fn requests_are_counted_exactly() {
    for (habit, version) in [(Habit::Upstream, "h1"), (Habit::Echo, "h2")] {
        let arguments = ["--http", version, "-n", "5", "-s", "102400", "-m", "63", "--streams", "3"];
        let figures = run!(request::Fetch on habit, arguments).expect("the bodies are right");
        assert_eq!(figures.of("requests"), Some(63.0), "{version}: {figures}");
        assert!(figures.of("latency_p99_us") > Some(0.0), "{version}: {figures}");
    }
}

#[tokio::test]
async fn kept_connections_are_held_measured_and_used_once_more() {
    let figures = run!(kept::Kept on Habit::Upstream, ["-n", "31", "--warm-up", "5"]).expect("all are kept");
    assert_eq!(figures.of("connections"), Some(31.0), "{figures}");
    // Client and server share the process here: the figure only has to exist.
    assert!(figures.of("pss_kib_per_connection_at_margin").is_some_and(f64::is_finite), "{figures}");
    let error = refused(run!(kept::Kept on Habit::Echo, ["--http", "h2", "-n", "2"]));
    assert!(error.contains("--http must be h1"), "{error}");
}

#[tokio::test]
async fn requests_are_measured_for_a_time() {
    for (habit, version) in [(Habit::Upstream, "h1"), (Habit::Echo, "h2")] {
        let arguments = ["--http", version, "-d", "400ms", "--warm-up", "100ms", "-n", "4", "--streams", "4"];
        let figures = run!(request::Fetch on habit, arguments).expect("the bodies are right");
        let requests = figures.of("requests").expect("they are counted");
        assert!(requests > 0.0, "{version}: {figures}");
        let rate = figures.of("requests_per_second").expect("the rate is a figure");
        assert!((rate - requests / 0.4).abs() < 1.0, "{version}: {figures}");
        assert!(figures.of("cpu_us_per_request").is_some(), "{version}: {figures}");
    }
}

#[tokio::test]
async fn a_wrong_body_fails_the_run() {
    let arguments = ["--http", "h2", "-n", "2", "-m", "4", "--streams", "2"];
    let error = refused(run!(request::Fetch on Habit::Corrupt, arguments));
    assert!(error.ends_with("a body differs from what was asked for"), "{error}");
}

#[tokio::test]
async fn a_request_that_is_refused_fails_the_run() {
    // This server supports WebSockets over HTTP/1.1 only.
    let error = refused(run!(request::Fetch on Habit::Echo, ["-m", "1", "-n", "1"]));
    assert!(error.contains("the request got no answer") || error.contains("was refused"), "{error}");
}

#[tokio::test]
async fn echoes_go_over_shared_connections() {
    let arguments = ["--http", "h2", "--streams", "4", "-n", "10", "-s", "70000", "-m", "55"];
    let figures = run!(echo::Echo on Habit::Echo, arguments).expect("the echoes are right");
    assert_eq!(figures.of("messages"), Some(55.0), "{figures}");
}

#[tokio::test]
async fn a_corrupted_echo_over_http2_fails_the_run() {
    let arguments = ["--http", "h2", "-n", "2", "-m", "10", "--streams", "2"];
    let error = refused(run!(echo::Echo on Habit::Corrupt, arguments));
    assert!(error.ends_with("an echo differs from the message that was sent"), "{error}");
}

#[tokio::test]
async fn idle_streams_are_held_and_measured() {
    let arguments = ["--http", "h2", "--streams", "20", "-n", "50", "--warm-up", "30", "--wave", "7"];
    let figures = run!(idle::Idle on Habit::Beat(Duration::from_millis(500)), arguments).expect("all are held");
    assert_eq!(figures.of("sessions"), Some(50.0), "{figures}");
    assert!(figures.of("pss_growth_percent").is_some_and(f64::is_finite), "{figures}");
}

#[tokio::test]
async fn a_reset_stream_is_an_ended_session() {
    let arguments = ["--http", "h2", "-n", "2", "-m", "4", "--streams", "2"];
    let error = refused(run!(echo::Echo on Habit::Reset, arguments));
    assert!(error.ends_with("the session was ended from the other side (no Close code)"), "{error}");
}

#[tokio::test]
async fn silent_streams_are_timed_to_their_close() {
    let arguments = ["--http", "h2", "-n", "12", "-w", "20s", "--streams", "6"];
    let figures = run!(silent::Silent on Habit::Beat(Duration::from_millis(200)), arguments).expect("they all end");
    assert_eq!((figures.of("torn_down"), figures.of("still_open")), (Some(12.0), Some(0.0)), "{figures}");
}

#[tokio::test]
async fn a_missing_feature_is_named() {
    let arguments = ["--http", "h2", "-n", "1", "-m", "1", "--streams", "20"];
    let error = refused(run!(echo::Echo on Habit::OnlyHttp1, arguments));
    assert!(error.ends_with("the proxy has not agreed on h2 by ALPN"), "{error}");
    let error = refused(run!(echo::Echo on Habit::NoWebSockets, arguments));
    assert!(error.contains("SETTINGS_ENABLE_CONNECT_PROTOCOL"), "{error}");
    let arguments = ["--http", "h2", "-n", "1", "-m", "1", "--streams", "21"];
    let error = refused(run!(echo::Echo on Habit::Echo, arguments));
    assert!(error.contains(&format!("allows {STREAMS} streams on a connection, not 21")), "{error}");
}
