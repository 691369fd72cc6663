//! A log that cannot be written: its reader is stopped or gone, or its disk is full.

use std::fs;
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use pulsegate_test_kit::client::Wss;
use pulsegate_test_kit::pki::Pki;
use pulsegate_test_kit::process::Process;
use pulsegate_test_kit::proxy::{BOUND, Config, QUICK};
use pulsegate_test_kit::wait::{wait_for, wait_until, within};
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::PULSEGATE;
use crate::app_stopped::app_on;
use crate::live::Session;
use crate::tool::needs_root;

/// A proxy whose log the test handles itself.
struct Proxy {
    child: Child,
    address: SocketAddr,
    pki: Pki,
    app: Process,
    dir: TempDir,
}

impl Proxy {
    /// Starts it by `command`, to which the program is added.
    async fn start(mut command: Command, address: impl AsyncFnOnce(&Path) -> SocketAddr) -> Self {
        let dir = TempDir::with_prefix("pulsegate-").expect("make a temporary directory");
        let pki = Pki::make(dir.path());
        let socket = dir.path().join("app.sock");
        let app = app_on(&socket).await;
        let file = dir.path().join("proxy.toml");
        let config = Config::to(PULSEGATE, &format!("unix:{}", socket.display())).with(QUICK);
        fs::write(&file, config.toml(SocketAddr::from(([127, 0, 0, 1], 0)), &pki)).expect("write the configuration");
        command.arg(PULSEGATE).arg("run").arg("-c").arg(&file).current_dir(dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().expect("the proxy starts");
        // The test's own end of the log's pipe is closed with the command.
        drop(command);
        let address = address(dir.path()).await;
        Self { child, address, pki, app, dir }
    }

    async fn websocket(&self, path: &str) -> Wss {
        let tcp = wait_for("connect", TcpStream::connect(self.address)).await.expect("the proxy listens");
        let name = ServerName::try_from("localhost").expect("a valid name");
        let tls = wait_for("the TLS handshake", TlsConnector::from(self.pki.client()).connect(name, tcp)).await;
        let request = format!("wss://localhost{path}").into_client_request().expect("a valid URL");
        let upgrade = tokio_tungstenite::client_async(request, tls.expect("the certificate is trusted"));
        wait_for("the upgrade", Box::pin(upgrade)).await.expect("the upgrade is accepted").0
    }

    /// Opens and closes `count` sessions, each of which costs over 1 KiB of log.
    async fn chatter(&self, count: usize) {
        for _ in 0..count {
            drop(self.websocket(&format!("/{}", "q".repeat(600))).await);
        }
    }

    fn pid(&self) -> Pid {
        let id = self.child.id().expect("it runs");
        Pid::from_raw(id.cast_signed()).expect("no process has the id 0")
    }

    async fn terminate(&mut self) -> ExitStatus {
        kill_process(self.pid(), Signal::TERM).expect("it runs");
        within(Duration::from_secs(15), "the proxy exits", self.child.wait()).await.expect("it can be waited for")
    }

    /// Asserts that a dead client is still found: its heartbeat does not depend on the log.
    async fn finds_a_dead_client(&self) {
        let dead = self.websocket("/dead").await;
        let began = Instant::now();
        let close = self.app.event_line("close", |event| event["name"] == "dead").await;
        let took = close.at - began;
        assert!(took < BOUND + Duration::from_millis(1500), "a dead client was gone after {took:?}");
        assert_eq!(close.json["code"], 4408, "{}", close.text);
        drop(dead);
    }
}

/// Runs a live session during the fault of the log.
async fn beside(proxy: &Proxy, time: Duration) -> JoinHandle<Result<u32, String>> {
    let mut session = Session::One(Box::new(proxy.websocket("/neighbour").await));
    tokio::spawn(async move { session.talks(time).await })
}

/// Returns the address in the line `listening`.
fn listening(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["message"] == "listening").then(|| line["address"].as_str()?.parse().ok())?
}

/// Starts a proxy whose log is a pipe, read as far as the line `listening`.
async fn piped() -> (Proxy, BufReader<PipeReader>) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = Command::new("env");
    command.stderr(writer);
    let mut reader = BufReader::with_capacity(1024, reader);
    let mut head = None;
    let proxy = Proxy::start(command, async |_| {
        let read = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            loop {
                line.clear();
                let count = reader.read_line(&mut line).expect("a line");
                assert_ne!(count, 0, "the log ended before the proxy listened");
                if let Some(address) = listening(&line) {
                    return (reader, address);
                }
            }
        });
        let (reader, address) = wait_for("the proxy listens", read).await.expect("no panic");
        head = Some(reader);
        address
    })
    .await;
    (proxy, head.expect("it was read"))
}

#[tokio::test]
async fn a_log_whose_reader_is_stopped_holds_nothing_up() {
    let (mut proxy, mut log) = piped().await;
    let neighbour = beside(&proxy, Duration::from_secs(5)).await;
    // Over three times the capacity of a pipe.
    proxy.chatter(200).await;
    proxy.finds_a_dead_client().await;
    let result = neighbour.await.expect("no panic");
    assert!(result.as_ref().is_ok_and(|pings| *pings > 2), "{result:?}");

    // The reader continues: no line is missing, and each is whole.
    let reading = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).expect("lines are UTF-8");
        text
    });
    let status = proxy.terminate().await;
    assert_eq!(status.code(), Some(0), "{status}");
    let text = wait_for("the rest of the log", reading).await.expect("no panic");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let count = |message: &str| lines.iter().filter(|line| line["message"] == message).count();
    assert_eq!((count("ws.open"), count("ws.close"), count("log lines lost")), (202, 202, 0));
    assert_eq!(lines.last().expect("a line")["message"], "stopped");
}

#[tokio::test]
async fn a_log_whose_reader_stays_stopped_does_not_hold_up_the_exit() {
    let (mut proxy, log) = piped().await;
    proxy.chatter(200).await;
    let began = Instant::now();
    let status = proxy.terminate().await;
    assert_eq!(status.code(), Some(0), "{status} after {:?}", began.elapsed());
    drop(log);
}

#[tokio::test]
async fn a_log_whose_reader_is_gone_costs_nothing_but_lines() {
    let (mut proxy, log) = piped().await;
    drop(log);
    let neighbour = beside(&proxy, Duration::from_secs(3)).await;
    proxy.chatter(10).await;
    proxy.finds_a_dead_client().await;
    let result = neighbour.await.expect("no panic");
    assert!(result.as_ref().is_ok_and(|pings| *pings > 1), "{result:?}");
    let status = proxy.terminate().await;
    assert_eq!(status.code(), Some(0), "{status}");
}

#[tokio::test]
async fn a_log_on_a_full_disk_costs_lines_and_is_whole_again_when_there_is_room() {
    /// The part of the disk that the ballast leaves free.
    const ROOM: u64 = 65_536 - 45_056;
    const MOUNT: &str = "mkdir disk && mount -t tmpfs -o size=64k faults disk && head -c 45056 /dev/zero >disk/ballast \
                         && exec \"$@\" 2>disk/log";
    needs_root();
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", MOUNT, "sh"]);
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // The disk is visible through the process alone; `unshare` and `sh` become the proxy.
    let mut proxy = Proxy::start(command, async |dir| {
        let folder = dir.to_path_buf();
        let found = wait_until("the proxy listens", || disk_of(&folder), Option::is_some).await;
        let (disk, address) = found.expect("settled");
        sender.send(disk).expect("the test waits");
        address
    })
    .await;
    let disk = receiver.await.expect("it was sent");
    let neighbour = beside(&proxy, Duration::from_secs(5)).await;
    let size = || fs::metadata(disk.join("log")).expect("the log is there").len();
    proxy.chatter(40).await;
    let full = wait_until("the disk is full", size, |size| *size == ROOM).await;
    proxy.finds_a_dead_client().await;
    assert_eq!(size(), full, "the disk is full");
    let text = fs::read_to_string(disk.join("log")).expect("lines are UTF-8");
    assert!(!text.ends_with('\n'), "the disk was not full in the middle of a line");

    fs::remove_file(disk.join("ballast")).expect("there is ballast");
    proxy.finds_a_dead_client().await;
    let read = || fs::read_to_string(disk.join("log")).expect("lines are UTF-8");
    let text = wait_until("the loss is reported", read, |text| text.contains("\"log lines lost\"")).await;
    let behind =
        text.strip_prefix(&*String::from_utf8_lossy(&text.as_bytes()[..usize::try_from(full).expect("small")]));
    let behind = behind.expect("a prefix").trim_start();
    for line in behind.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "not a whole line: {line}");
    }
    let lost = behind.lines().find(|line| line.contains("\"log lines lost\"")).expect("found before");
    let lost: Value = serde_json::from_str(lost).expect("a whole line");
    assert!(lost["lines"].as_u64() > Some(10), "{lost}");
    assert!(lost["error"].as_str().is_some_and(|error| error.contains("No space left")), "{lost}");
    let result = neighbour.await.expect("no panic");
    assert!(result.as_ref().is_ok_and(|pings| *pings > 2), "{result:?}");
    let status = proxy.terminate().await;
    assert_eq!(status.code(), Some(0), "{status}");
    drop(proxy.dir);
}

/// Returns the tmpfs of the proxy whose working directory is `folder`, and the address from the log on it.
fn disk_of(folder: &Path) -> Option<(PathBuf, SocketAddr)> {
    let own = |pid: &PathBuf| fs::read_link(pid.join("cwd")).is_ok_and(|cwd| cwd == folder);
    let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten().map(|entry| entry.path());
    processes.filter(own).find_map(|pid| {
        let disk = pid.join("cwd/disk");
        let log = fs::read_to_string(disk.join("log")).ok()?;
        let address = log.lines().find_map(listening)?;
        Some((disk, address))
    })
}
