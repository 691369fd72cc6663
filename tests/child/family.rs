//! The processes of the app beside its first one: zombies, workers in sessions of their own, and daemons.

use pulsegate_test_kit::node::project;
use pulsegate_test_kit::process::{Process, send};
use rustix::process::{Signal, kill_process, test_kill_process};

use super::init::first_process;
use super::{IN_ORDER, config, dev, is_gone, pid, run, run_in};
use crate::PULSEGATE;

/// A first process that starts a command, exits with it, and waits for no orphan.
const INIT: &str = "require('node:child_process').spawn(process.argv[1], process.argv.slice(2), { stdio: 'inherit' })\
    .on('exit', (code, signal) => process.exit(signal ? 1 : code))";

#[tokio::test]
async fn zombies_that_the_first_process_does_not_reap_are_not_waited_for() {
    let init = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "node", "-e", INIT];
    let mut proxy = run_in(&init, config(), &["--stop-within", "1h"], &["leaves"]).await;
    proxy.event("left", |_| true).await;
    let inside = proxy.descendants(|line| line.starts_with(PULSEGATE));
    send(*inside.first().unwrap_or_else(|| panic!("no pulsegate: {}", proxy.transcript())), Signal::TERM);
    assert_eq!(proxy.ended().await.code(), Some(143), "{}", proxy.transcript());
    assert_eq!(proxy.logged("app.killed"), [] as [serde_json::Value; 0]);
}

#[tokio::test]
async fn a_worker_in_a_session_of_its_own_gets_sigterm_and_its_grace() {
    let mut proxy = run(config(), &[], &["detached"]).await;
    let worker = pid(&proxy.event("worker", |_| true).await["pid"]);
    proxy.terminate();
    assert_eq!(proxy.ended().await.code(), Some(IN_ORDER), "{}", proxy.transcript());
    assert_eq!(proxy.events("worker sigterm").len(), 1, "{}", proxy.transcript());
    assert_eq!(proxy.events("worker ended").len(), 1, "{}", proxy.transcript());
    is_gone(worker).await;

    let (mut proxy, first) = first_process(config(), &[], &["detached"]).await;
    proxy.event("worker", |_| true).await;
    send(first, Signal::TERM);
    assert_eq!(proxy.ended().await.code(), Some(IN_ORDER), "{}", proxy.transcript());
    assert_eq!(proxy.events("worker ended").len(), 1, "{}", proxy.transcript());
}

#[tokio::test]
async fn a_worker_in_a_session_of_its_own_is_killed_after_the_grace() {
    let mut proxy = run(config(), &["--stop-within", "2s"], &["detached", "stubborn"]).await;
    let worker = pid(&proxy.event("worker", |_| true).await["pid"]);
    proxy.terminate();
    assert_eq!(proxy.ended().await.code(), Some(IN_ORDER), "{}", proxy.transcript());
    assert_eq!(proxy.logged("app.killed").len(), 1, "{}", proxy.transcript());
    is_gone(worker).await;
}

#[tokio::test]
async fn an_app_that_goes_into_the_background_is_ended_and_told_to_stay() {
    let folder = project("child");
    let mut process =
        Process::start_without_input("pulsegate dev", &mut dev(&folder, &["--", "node", "app.js", "daemon"]));
    let daemon = pid(&process.event("started", |event| event["way"] == "good").await["pid"]);
    let line = process.line("the advice", |line| line.text.contains("app.in_background")).await.text;
    for part in
        ["its first process exited with 0 and left", &format!("({})", daemon.as_raw_nonzero()), "in the foreground"]
    {
        assert!(line.contains(part), "no {part} in {line}");
    }
    assert_eq!(process.ended().await.code(), Some(0), "{}", process.transcript());
    assert_eq!(process.events("sigterm").len(), 1, "{}", process.transcript());
    is_gone(daemon).await;
}

#[tokio::test]
async fn what_was_there_before_the_app_is_left_alone() {
    let before = "sleep 600 > /dev/null 2>&1 & echo \"{\\\"event\\\":\\\"sibling\\\",\\\"pid\\\":$!}\"; exec \"$@\"";
    let mut proxy = run_in(&["sh", "-c", before, "sh"], config(), &[], &[]).await;
    let sibling = pid(&proxy.event("sibling", |_| true).await["pid"]);
    proxy.terminate();
    assert_eq!(proxy.ended().await.code(), Some(IN_ORDER), "{}", proxy.transcript());
    assert_eq!(test_kill_process(sibling), Ok(()), "it was ended; {}", proxy.transcript());
    kill_process(sibling, Signal::KILL).expect("it runs");
}
