//! The soak against a stand-in for the proxy: a sound proxy passes, and each fault fails its verdict.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::{Args, FromArgMatches};
use pulsegate_load::cert;
use pulsegate_load::scenario::soak::{self, Judgement};
use tokio::net::TcpListener;
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(150);

/// A running stand-in; its process ends when this is dropped.
struct StandIn {
    process: Child,
    directory: PathBuf,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Runs a short soak against a stand-in with this fault.
async fn soak_against(fault: &str) -> Judgement {
    let app = TcpListener::bind("127.0.0.1:0").await.expect("a port is free").local_addr().expect("it is bound");
    let directory = std::env::temp_dir().join(format!("pulsegate-soak-{}-{}", std::process::id(), app.port()));
    std::fs::create_dir(&directory).expect("the directory is new");
    cert::write(&directory).expect("the directory is writable");
    let folder = directory.to_str().expect("temporary directories have plain names");
    let mut process = Command::new(env!("CARGO_BIN_EXE_pulsegate-load"))
        .args(["stand-in", "--upstream", &app.to_string(), "--directory", folder])
        .args(["--interval", "700ms", "--timeout", "1500ms", "--fault", fault])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary was built for this test");
    let mut line = String::new();
    let output = process.stdout.take().expect("it is piped");
    BufReader::new(output).read_line(&mut line).expect("the stand-in prints its addresses");
    let stand_in = StandIn { process, directory };
    let (proxy, answers) = line.trim().split_once(' ').unwrap_or_else(|| panic!("two addresses, not {line:?}"));
    let url = format!("wss://localhost:{}/", proxy.rsplit(':').next().expect("an address has a port"));
    let ca = stand_in.directory.join("ca.pem");
    let (app, pid) = (app.to_string(), stand_in.process.id().to_string());
    let arguments = [
        ["--ca", ca.to_str().expect("a plain name")],
        ["--pid", &pid],
        ["--app", &app],
        ["--admin", answers],
        ["--health", answers],
        ["--sessions", "40"],
        ["--for", "10s"],
        ["--sample", "250ms"],
        ["--interval", "700ms"],
        ["--timeout", "1500ms"],
        ["--pause", "300ms"],
        ["--idle", "3s"],
        // The stand-in supports HTTP/1.1 only and waits for slow readers.
        ["--h2-percent", "0"],
        ["--slow-percent", "0"],
        ["--memory-tolerance", "60"],
        ["--patience", "20s"],
    ];
    let command = soak::Soak::augment_args(clap::Command::new("soak"));
    let all = ["soak", &url].into_iter().chain(arguments.into_iter().flatten());
    let matches = command.try_get_matches_from(all).expect("the options are right");
    let options = soak::Soak::from_arg_matches(&matches).expect("the options are right");
    timeout(TIMEOUT, soak::run(&options)).await.expect("in time").expect("the soak comes to a verdict")
}

/// Asserts that the verdicts named `expected` go against the proxy, among others that may follow from them.
fn assert_fails(judgement: &Judgement, expected: &[&str]) {
    let Judgement { figures, failures } = judgement;
    for name in expected {
        let found = failures.iter().any(|failure| failure.starts_with(name));
        assert!(found, "{name} is missing in {failures:?}\n{figures}");
    }
}

#[tokio::test]
async fn a_sound_proxy_passes() {
    let Judgement { figures, failures } = soak_against("none").await;
    assert_eq!(failures, Vec::<String>::new(), "{figures}");
    for name in ["sessions", "ended_mute", "ended_frozen", "ended_client_reset", "ended_app_close", "ended_half_close"]
    {
        assert!(figures.of(name).is_some_and(|count| count >= 1.0), "{name}: {figures}");
    }
}

#[tokio::test]
async fn a_leaked_descriptor_fails() {
    assert_fails(&soak_against("descriptor").await, &["descriptors_left", "descriptors_growth_percent"]);
}

#[tokio::test]
async fn leaked_memory_fails() {
    assert_fails(&soak_against("memory").await, &["memory_over_tolerance_percent"]);
}

#[tokio::test]
async fn a_live_session_that_is_ended_fails() {
    assert_fails(&soak_against("kill").await, &["live_ended"]);
}

#[tokio::test]
async fn a_dead_session_that_is_left_fails() {
    assert_fails(&soak_against("undead").await, &["dead_late"]);
}

#[tokio::test]
async fn a_dead_session_of_which_the_apps_leg_is_left_fails() {
    assert_fails(&soak_against("one-leg").await, &["dead_late"]);
}

#[tokio::test]
async fn a_flipped_bit_fails() {
    assert_fails(&soak_against("flip").await, &["wrong_bytes"]);
}

#[tokio::test]
async fn an_end_that_is_counted_as_another_fails() {
    let judgement = soak_against("miscount").await;
    assert_fails(&judgement, &["close_reasons_differing"]);
    assert_eq!(judgement.failures.len(), 1, "{:?}", judgement.failures);
}
