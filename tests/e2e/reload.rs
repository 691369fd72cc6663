//! The configuration changes while the proxy runs: the settings that take effect, those that wait, and those that stay.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::SinkExt;
use pulsegate_test_kit::client::{Neighbour, Tls, close_of, echo, upgrade_head};
use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::frame::{Frame, TEXT};
use pulsegate_test_kit::http1::read_head;
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::pki::Pki;
use pulsegate_test_kit::process::OutputLine;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::{TIMEOUT, wait_for, wait_until};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;

use crate::PULSEGATE;

/// A folder as Kubernetes mounts a `ConfigMap` and a Secret: every file is a link through `..data`, which is
/// swapped.
pub(crate) struct Mount {
    root: PathBuf,
    versions: u32,
}

impl Mount {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), versions: 0 }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Replaces all files at once.
    pub(crate) fn swap(&mut self, files: &[(&str, &str)]) {
        self.versions += 1;
        let version = format!("..v{}", self.versions);
        fs::create_dir(self.path(&version)).expect("a folder");
        for (name, text) in files {
            fs::write(self.path(&version).join(name), text).expect("write");
            if !self.path(name).is_symlink() {
                symlink(Path::new("..data").join(name), self.path(name)).expect("link");
            }
        }
        symlink(&version, self.path("..data_tmp")).expect("link");
        fs::rename(self.path("..data_tmp"), self.path("..data")).expect("rename");
        if self.versions > 1 {
            fs::remove_dir_all(self.path(&format!("..v{}", self.versions - 1))).expect("remove");
        }
    }
}

/// A certificate and its key in PEM, and the client that trusts their authority.
pub(crate) struct Pair {
    pub(crate) pki: Pki,
    pub(crate) certificate: String,
    pub(crate) private_key: String,
}

impl Pair {
    pub(crate) fn make() -> Self {
        let dir = TempDir::new().expect("a folder");
        let pki = Pki::make(dir.path());
        let read = |path: &Path| fs::read_to_string(path).expect("read");
        Self { certificate: read(&pki.certificate), private_key: read(&pki.private_key), pki }
    }

    /// Returns the same authority with its files in `mount`.
    pub(crate) fn mounted(&self, mount: &Mount) -> Pki {
        let mut pki = self.pki.clone();
        pki.certificate = mount.path("tls.crt");
        pki.private_key = mount.path("tls.key");
        pki
    }
}

const PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Returns whether the handshake of a new client succeeds that trusts `pair`'s authority alone.
async fn shows(proxy: &Proxy, pair: &Pair) -> bool {
    let name = ServerName::try_from("localhost").expect("a valid name");
    let handshake = TlsConnector::from(pair.pki.client()).connect(name, proxy.tcp().await);
    wait_for("the handshake or its failure", handshake).await.is_ok()
}

/// Returns the proxy's next line about a reload with an effect, after the first `seen`: the file watch may see what a
/// signal has loaded already.
pub(crate) async fn reload_after(proxy: &Proxy, seen: usize) -> Value {
    let is_one = |line: &OutputLine| match line.json["message"].as_str() {
        Some("config.reloaded") => line.json["result"] != "unchanged",
        message => message == Some("config.reload_failed"),
    };
    wait_until("another reload", || proxy.count(is_one), |count| *count > seen).await;
    let lines = proxy.lines().into_iter().filter(is_one).map(|line| line.json);
    lines.into_iter().nth(seen).expect("it was counted")
}

/// As [`Proxy::start`]; also returns the path and the text of the configuration.
pub(crate) async fn start(config: &Config) -> (Proxy, PathBuf, String) {
    let dir = TempDir::with_prefix("pulsegate-").expect("a folder");
    let pki = Pki::make(dir.path());
    let file = dir.path().join("proxy.toml");
    let text = config.toml(PORT, &pki);
    fs::write(&file, &text).expect("write");
    let proxy = Proxy::follow(&file, config.clone(), pki, dir).await;
    (proxy, file, text)
}

/// Requests `path` on a kept connection; returns the status and the body.
async fn get(proxy: &Proxy, stream: &mut Tls, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = proxy.ask(stream, request.as_bytes()).await;
    (answer.status, answer.body)
}

/// Starts an app that answers every plain request with `name`, keeps the connection, and reports the close of one.
async fn named(name: &'static str) -> (FakeApp, mpsc::UnboundedReceiver<Instant>) {
    let (ends, ended) = mpsc::unbounded_channel();
    let app = FakeApp::start(move |_, mut stream| {
        let ends = ends.clone();
        async move {
            loop {
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
                let is_open = stream.write_all(answer.as_bytes()).await.is_ok();
                if !is_open || read_head(&mut stream).await.is_none() {
                    // A finished test receives no more.
                    let _ = ends.send(Instant::now());
                    return;
                }
            }
        }
    })
    .await;
    (app, ended)
}

#[tokio::test]
async fn swaps_of_a_mounted_folder_are_followed_every_time() {
    let app = NodeApp::bare().await;
    let dir = TempDir::with_prefix("pulsegate-").expect("a folder");
    let mut mount = Mount::new(dir.path());
    let first = Pair::make();
    let pki = first.mounted(&mount);
    let config = Config::to(PULSEGATE, &app.url);
    let text =
        |interval: u32| config.clone().with(&format!("[heartbeat]\ninterval = \"{interval}s\"")).toml(PORT, &pki);
    let files = |pair: &Pair, interval: u32| {
        [("proxy.toml", text(interval)), ("tls.crt", pair.certificate.clone()), ("tls.key", pair.private_key.clone())]
    };
    let mut swap = |pair: &Pair, interval: u32| {
        let files = files(pair, interval);
        mount.swap(&files.each_ref().map(|(name, text)| (*name, text.as_str())));
    };
    swap(&first, 10);
    let path = dir.path().join("proxy.toml");
    let proxy = Proxy::follow(&path, config.clone(), pki.clone(), dir).await;
    let neighbour = Neighbour::join(&proxy, "/ws").await;
    let mut last = first;
    for turn in 0..4 {
        let next = Pair::make();
        swap(&next, 20 + turn);
        let report = reload_after(&proxy, turn as usize).await;
        assert_eq!((&report["result"], &report["trigger"]), (&"applied".into(), &"file".into()), "{report}");
        assert_eq!(report["generation"], turn + 2, "{report}");
        assert!(shows(&proxy, &next).await, "a new handshake gets the new certificate");
        assert!(!shows(&proxy, &last).await, "and not the old one");
        neighbour.echoes().await;
        last = next;
    }
    proxy.finish().await;
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_the_rest_is_applied() {
    let app = NodeApp::bare().await;
    let (proxy, file, text) = start(&Config::to(PULSEGATE, &app.url)).await;
    let port = proxy.address.port();
    let changed = text.replace("127.0.0.1:0", "127.0.0.1:1").replace("level = \"info\"", "level = \"debug\"");
    fs::write(&file, changed.replace("\"json\"", "\"human\"")).expect("write");
    let report = reload_after(&proxy, 0).await;
    assert_eq!((&report["result"], &report["generation"]), (&"partial".into(), &2.into()), "{report}");
    assert_eq!(report["requires_restart"], "listen.address, log.format", "{report}");
    // The port and the format of the log are unchanged; the new level is in force.
    assert_eq!(proxy.address.port(), port);
    drop(proxy.tcp().await);
    proxy.line("a line of level debug", |line| line.json["level"] == "DEBUG").await;
    fs::write(&file, changed.replace("debug", "warn")).expect("write");
    let report = reload_after(&proxy, 1).await;
    assert_eq!((&report["requires_restart"], &report["generation"]), (&"listen.address".into(), &3.into()), "{report}");
    // The level of these lines is below the new one.
    drop(proxy.websocket("/ws").await);
    fs::write(&file, text.replace("level =", "levle =")).expect("write");
    assert_eq!(reload_after(&proxy, 2).await["message"], "config.reload_failed");
    assert_eq!(proxy.logged("ws.open"), Vec::<Value>::new());
    proxy.finish().await;
}

#[tokio::test]
async fn connections_that_are_kept_follow_new_routes_with_their_next_request() {
    let ((one, _), (other, _)) = (named("one").await, named("other").await);
    let (proxy, file, text) = start(&Config::to(PULSEGATE, &one.url)).await;
    let mut kept = proxy.tls().await;
    let mut streams = multiplexed(&proxy).await;
    assert_eq!(get(&proxy, &mut kept, "/new/x").await, (200, "one".into()));
    assert_eq!(streams_get(&mut streams, "/new/x").await, "one");

    let routed = format!("{text}\n[[route]]\npath = \"/new/\"\nupstream = \"{}\"\n", other.url);
    fs::write(&file, &routed).expect("write");
    assert_eq!(reload_after(&proxy, 0).await["result"], "applied");
    assert_eq!(get(&proxy, &mut kept, "/new/x").await, (200, "other".into()), "added");
    assert_eq!(streams_get(&mut streams, "/new/x").await, "other");
    assert_eq!(get(&proxy, &mut kept, "/old").await, (200, "one".into()), "the others are where they were");
    let neighbour = Neighbour::join(&proxy, "/echo").await;

    fs::write(&file, &text).expect("write");
    assert_eq!(reload_after(&proxy, 1).await["result"], "applied");
    assert_eq!(get(&proxy, &mut kept, "/new/x").await, (200, "one".into()), "removed");
    assert_eq!(streams_get(&mut streams, "/new/x").await, "one");

    fs::write(&file, text.replace(&one.url, &other.url)).expect("write");
    assert_eq!(reload_after(&proxy, 2).await["result"], "applied");
    assert_eq!(get(&proxy, &mut kept, "/old").await, (200, "other".into()), "changed");
    assert_eq!(streams_get(&mut streams, "/old").await, "other");

    fs::write(&file, format!("{text}\n[limits]\nheaders = 3\n[tls_]\n")).expect("write");
    assert_eq!(reload_after(&proxy, 3).await["message"], "config.reload_failed");
    assert_eq!(streams_get(&mut streams, "/old").await, "other", "the last good one stays");
    neighbour.echoes().await;
    proxy.finish().await;
}

#[tokio::test]
async fn an_app_that_is_replaced_loses_its_idle_connections_at_once() {
    let ((old, mut ended), (new, _)) = (named("old").await, named("new").await);
    let (proxy, file, text) = start(&Config::to(PULSEGATE, &old.url)).await;
    // A client that is connected and sends nothing more must not keep them.
    let mut kept = proxy.tls().await;
    assert_eq!(get(&proxy, &mut kept, "/").await, (200, "old".into()));
    // Another configuration of the same app keeps its connections.
    fs::write(&file, format!("{text}\n[heartbeat]\ninterval = \"9s\"\n")).expect("write");
    proxy.hang_up();
    assert_eq!(reload_after(&proxy, 0).await["result"], "applied");
    assert_eq!(get(&proxy, &mut kept, "/").await, (200, "old".into()));
    assert!(ended.try_recv().is_err(), "the connection was good for a second request");

    fs::write(&file, text.replace(&old.url, &new.url)).expect("write");
    proxy.hang_up();
    let reloaded = proxy.line("it is applied", |line| line.json["generation"] == 3).await;
    let closed = wait_for("the connection closes", ended.recv()).await.expect("the app runs");
    // Without the reload it would be closed after four seconds.
    let took = closed.saturating_duration_since(reloaded.at);
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(get(&proxy, &mut kept, "/").await, (200, "new".into()));
    proxy.finish().await;
}

/// Opens one connection of HTTP/2.
async fn multiplexed(proxy: &Proxy) -> h2::client::SendRequest<Bytes> {
    let name = ServerName::try_from("localhost").expect("a valid name");
    let handshake = TlsConnector::from(proxy.pki.client_of("h2")).connect(name, proxy.tcp().await);
    let tls = wait_for("the TLS handshake", handshake).await.expect("the proxy's certificate is trusted");
    let (sender, connection) = h2::client::handshake(tls).await.expect("the preface goes out");
    tokio::spawn(connection);
    sender
}

async fn streams_get(streams: &mut h2::client::SendRequest<Bytes>, path: &str) -> String {
    let request = http::Request::get(format!("https://localhost{path}")).body(()).expect("a request");
    let (answer, _) = streams.send_request(request, true).expect("a stream");
    let mut body = wait_for("an answer", answer).await.expect("an answer").into_body();
    let mut text = Vec::new();
    while let Some(piece) = wait_for("the body", body.data()).await {
        text.extend_from_slice(&piece.expect("a whole body"));
    }
    String::from_utf8(text).expect("UTF-8")
}

#[tokio::test]
async fn a_session_keeps_the_heartbeat_that_it_was_opened_with() {
    let app = NodeApp::bare().await;
    let quick = "[heartbeat]\ninterval = \"400ms\"\ntimeout = \"600ms\"\n";
    let (proxy, file, text) = start(&Config::to(PULSEGATE, &app.url)).await;
    // Neither of the two ever answers a ping.
    let mut patient = proxy.upgraded("/ws?name=patient").await;
    fs::write(&file, format!("{text}\n{quick}")).expect("write");
    assert_eq!(reload_after(&proxy, 0).await["generation"], 2);
    let _hasty = proxy.upgraded("/ws?name=hasty").await;
    let missed = proxy.ws_close(|line| line["close.reason"] == "heartbeat_timeout").await;
    let opened = proxy.logged("ws.open");
    assert_eq!(opened.iter().map(|line| &line["config.generation"]).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(missed.json["conn_id"], opened[1]["conn_id"], "the one with the new heartbeat");
    // The first one is open: its app receives the message.
    patient.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).await.expect("write");
    let frame = wait_for("the echo", Frame::read(&mut patient)).await.expect("a frame");
    assert_eq!(frame.opcode(), TEXT, "{frame:?}");
    proxy.finish().await;
}

#[tokio::test]
async fn origins_and_limits_hold_for_the_next_upgrade_and_drain_timers_for_the_end() {
    let app = NodeApp::bare().await;
    let (mut proxy, file, text) = start(&Config::to(PULSEGATE, &app.url)).await;
    let mut websocket = proxy.websocket("/ws").await;
    let from_elsewhere = format!("{}Origin: https://elsewhere.example\r\n\r\n", upgrade_head("/ws"));
    assert_eq!(proxy.ask(&mut proxy.tls().await, from_elsewhere.as_bytes()).await.status, 101);
    let strict = "\n[origins]\nallow = [\"https://app.example\"]\n[limits]\nmessage = \"1KiB\"\n";
    let timers = "delay = \"0s\"\nwindow = \"1s\"\ncode = 1013\n";
    let quiet = "delay = \"0s\"\nwindow = \"0s\"\n";
    assert!(text.contains(quiet), "{text}");
    fs::write(&file, text.replace(quiet, timers) + strict).expect("write");
    proxy.hang_up();
    assert_eq!(reload_after(&proxy, 0).await["generation"], 2);

    assert_eq!(proxy.ask(&mut proxy.tls().await, from_elsewhere.as_bytes()).await.status, 403);
    let large = Message::binary(vec![7; 2000]);
    echo(&mut websocket, large.clone()).await.expect("the session has the limits that it was opened with");
    let mut later = proxy.websocket("/ws").await;
    later.send(large).await.expect("it is written");
    assert_eq!(close_of(&mut later).await.0, 1009);
    proxy.terminate();
    assert_eq!(close_of(&mut websocket).await, (1013, "try again later".into()));
    let announced = proxy.line("the announcement", |line| line.json["window_s"].is_number()).await.json;
    assert_eq!(announced["window_s"], 1.0, "{announced}");
    assert_eq!(proxy.exit_within(TIMEOUT).await.code(), Some(0), "{}", proxy.transcript());
}

#[tokio::test]
async fn an_editor_that_renames_and_a_file_that_vanishes_for_a_moment_are_one_change() {
    let app = NodeApp::bare().await;
    let (proxy, file, text) = start(&Config::to(PULSEGATE, &app.url)).await;
    let edited = |n: u32| format!("{text}\n[heartbeat]\ninterval = \"{n}s\"\n");
    for turn in 0..3 {
        // The way vim saves a file, backup included.
        fs::rename(&file, file.with_extension("toml~")).expect("rename");
        fs::write(&file, edited(turn + 10)).expect("write");
        let report = reload_after(&proxy, turn as usize).await;
        assert_eq!((&report["result"], &report["trigger"]), (&"applied".into(), &"file".into()), "{report}");
    }
    let mut websocket = proxy.websocket("/ws").await;
    echo(&mut websocket, Message::text("still here")).await.expect("an echo");
    websocket.close(None).await.expect("close");
    proxy.finish().await;
}
