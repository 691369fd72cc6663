//! The first process of a container: a PID namespace in which pulsegate is PID 1.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use pulsegate_test_kit::client::close_of;
use pulsegate_test_kit::process::send;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::spread::{Stalls, assert_even};
use pulsegate_test_kit::wait::wait_until;
use rustix::process::{Pid, Signal};

use super::{IN_ORDER, config, run_in};

/// Starts `run` as PID 1, as [`super::run`] does; also returns its id outside of the namespace.
pub(super) async fn first_process(config: Config, flags: &[&str], way: &[&str]) -> (Proxy, Pid) {
    assert!(rustix::process::geteuid().is_root(), "a PID namespace takes root: run the tests with sudo -E");
    let unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let proxy = run_in(&unshare, config, flags, way).await;
    let inside = proxy.descendants(|line| line.contains("pulsegate") && !line.starts_with("unshare"));
    let pid = *inside.first().unwrap_or_else(|| panic!("no pulsegate: {}", proxy.transcript()));
    (proxy, pid)
}

#[tokio::test]
async fn five_hundred_clients_are_closed_one_by_one_while_the_app_lives() {
    const SESSIONS: usize = 500;
    const WINDOW: Duration = Duration::from_secs(4);
    let config = config().drain("delay = \"0s\"").drain("window = \"4s\"");
    let (mut proxy, pid) = first_process(config, &["--stop-within", "30s"], &[]).await;
    let mut websockets = Vec::with_capacity(SESSIONS);
    while websockets.len() < SESSIONS {
        websockets.extend(join_all((0..50).map(|_| proxy.websocket("/"))).await);
    }
    let stalls = Stalls::watch();
    send(pid, Signal::TERM);
    let closes = join_all(websockets.iter_mut().map(close_of)).await;
    assert!(closes.iter().all(|(code, _)| *code == 1012), "{closes:?}");
    assert_eq!(proxy.ended().await.code(), Some(IN_ORDER), "{}", proxy.transcript());
    assert_eq!(proxy.events("sigterm")[0]["sessions"], 0, "the app outlived all sessions");
    // By the app's own clock: this process is busy with its clients.
    let ended: Vec<u64> = proxy.events("close").iter().filter_map(|event| event["at"].as_u64()).collect();
    assert_eq!(ended.len(), SESSIONS, "the app's own handlers ran");
    let (first, now) = (ended.iter().min().copied().unwrap_or_default(), Instant::now());
    let moments: Vec<Instant> = ended.iter().map(|at| now + Duration::from_millis(at - first)).collect();
    assert_even(&moments, WINDOW, stalls).await;
}

#[tokio::test]
async fn orphans_of_the_app_are_reaped() {
    let (mut proxy, pid) = first_process(config(), &[], &["orphans", "500"]).await;
    proxy.event("orphaned", |_| true).await;
    // At first the orphan runs as a child of the first process, then it is gone and not a zombie.
    let orphans = || proxy.descendants(|line| line.contains("setTimeout") && !line.contains("spawn")).len();
    wait_until("the orphan ends", orphans, |count| *count == 0).await;
    let zombies = || {
        let children = format!("/proc/{}/task/{}/children", pid.as_raw_nonzero(), pid.as_raw_nonzero());
        let children = std::fs::read_to_string(children).expect("it runs");
        children.split_whitespace().count()
    };
    wait_until("only the app is a child", zombies, |count| *count == 1).await;
    send(pid, Signal::TERM);
    assert_eq!(proxy.ended().await.code(), Some(IN_ORDER), "{}", proxy.transcript());
}
