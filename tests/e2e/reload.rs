//! The configuration changes while the proxy runs: what takes effect, what waits, and what is left alone.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::{Neighbour, Tls, echo};
use crate::support::deadline::{settles, soon};
use crate::support::fake::Fake;
use crate::support::frames::{Frame, TEXT};
use crate::support::node::App;
use crate::support::pki::Pki;
use crate::support::plain::read_head;
use crate::support::process::Line;
use crate::support::proxy::{Config, Proxy};

/// A folder as Kubernetes mounts a ConfigMap and a Secret: every file is a link through `..data`, which is swapped.
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

    /// Makes these the files, all at once.
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

    /// Its files are those in `mount`.
    pub(crate) fn mounted(&self, mount: &Mount) -> Pki {
        let mut pki = self.pki.clone();
        pki.certificate = mount.path("tls.crt");
        pki.private_key = mount.path("tls.key");
        pki
    }
}

const PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Whether a new client that trusts `pair`'s authority alone gets through the handshake.
async fn shows(proxy: &Proxy, pair: &Pair) -> bool {
    let name = ServerName::try_from("localhost").expect("a valid name");
    let handshake = TlsConnector::from(pair.pki.client()).connect(name, proxy.tcp().await);
    soon("the handshake or its failure", handshake).await.is_ok()
}

/// The proxy's next line about a reload, after the first `seen`.
pub(crate) async fn reload_after(proxy: &Proxy, seen: usize) -> Value {
    let is_one =
        |line: &Line| matches!(line.json["message"].as_str(), Some("config.reloaded" | "config.reload_failed"));
    settles("another reload", || proxy.count(is_one), |count| *count > seen).await;
    let lines = proxy.lines().into_iter().filter(is_one).map(|line| line.json);
    lines.into_iter().nth(seen).expect("it was counted")
}

/// As [`Proxy::start`], and the text of its configuration.
async fn start(config: &Config) -> (Proxy, PathBuf, String) {
    let dir = TempDir::with_prefix("pulsegate-").expect("a folder");
    let pki = Pki::make(dir.path());
    let file = dir.path().join("proxy.toml");
    let text = config.toml(PORT, &pki);
    fs::write(&file, &text).expect("write");
    let proxy = Proxy::follow(&file, config.clone(), pki, dir).await;
    (proxy, file, text)
}

/// Asks for `path` on a connection that is kept, and gives the status and the body.
async fn get(proxy: &Proxy, stream: &mut Tls, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = proxy.ask(stream, request.as_bytes()).await;
    (answer.status, answer.body)
}

/// An app that answers every plain request with `name`, and keeps the connection.
async fn named(name: &'static str) -> Fake {
    Fake::start(move |_, mut stream| async move {
        loop {
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            if read_head(&mut stream).await.is_none() {
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn swaps_of_a_mounted_folder_are_followed_every_time() {
    let app = App::bare().await;
    let dir = TempDir::with_prefix("pulsegate-").expect("a folder");
    let mut mount = Mount::new(dir.path());
    let first = Pair::make();
    let pki = first.mounted(&mount);
    let config = Config::to(&app.url);
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
        let told = reload_after(&proxy, turn as usize).await;
        assert_eq!((&told["result"], &told["trigger"]), (&"applied".into(), &"file".into()), "{told}");
        assert_eq!(told["generation"], turn + 2, "{told}");
        assert!(shows(&proxy, &next).await, "a new handshake gets the new certificate");
        assert!(!shows(&proxy, &last).await, "and not the old one");
        neighbour.echoes().await;
        last = next;
    }
    proxy.finish().await;
}

#[tokio::test]
async fn a_file_that_cannot_be_used_changes_nothing_and_its_reason_is_one_line() {
    let app = App::bare().await;
    let (proxy, file, text) = start(&Config::to(&app.url)).await;
    let neighbour = Neighbour::join(&proxy, "/ws").await;
    let (certificate, key) = (proxy.pki.certificate.clone(), proxy.pki.private_key.clone());
    let sound = [&file, &certificate, &key].map(|path| (path.clone(), fs::read(path).expect("read")));
    let other = Pair::make();
    let half = &text[..text.find("private_key").expect("it is there") + 20];
    let write = |path: &Path, text: &str| fs::write(path, text).expect("write");
    // What is done, and what the line says of it.
    let bad: &[(&str, &dyn Fn(), &[&str])] = &[
        ("missing", &|| fs::remove_file(&file).expect("remove"), &["proxy.toml", "No such file"]),
        ("empty", &|| write(&file, ""), &["proxy.toml", "certificate", "upstream"]),
        ("half-written", &|| write(&file, half), &["proxy.toml:"]),
        ("a syntax error", &|| write(&file, &text.replace("[log]", "[log")), &["proxy.toml:"]),
        ("an unknown key", &|| write(&file, &text.replace("level =", "levle =")), &["levle", "level"]),
        ("a wrong value", &|| write(&file, &text.replace("\"info\"", "\"loud\"")), &["log.level"]),
        ("a key of another", &|| write(&key, &other.private_key), &["does not belong to the certificate"]),
        ("half a certificate", &|| write(&certificate, &other.certificate[..100]), &["server.pem", "END CERTIFICATE"]),
        ("no certificate", &|| fs::remove_file(&certificate).expect("remove"), &["server.pem", "cannot be read"]),
    ];
    let unreadable = || fs::set_permissions(&file, fs::Permissions::from_mode(0)).expect("chmod");
    let mut bad = bad.to_vec();
    // Nothing is unreadable to root.
    unreadable();
    let is_root = fs::read(&file).is_ok();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("chmod");
    if !is_root {
        bad.push(("unreadable", &unreadable, &["proxy.toml", "Permission denied"]));
    }
    for (turn, (what, spoil, says)) in bad.into_iter().enumerate() {
        spoil();
        proxy.hang_up();
        let told = reload_until(&proxy, "config.reload_failed", turn).await;
        let error = told["error"].as_str().expect("a reason");
        assert!(!error.contains('\n') && says.iter().all(|part| error.contains(part)), "{what}: {error}");
        assert_eq!(told["generation"], 1, "{what}: {told}");
        drop(proxy.websocket("/ws").await);
        neighbour.echoes().await;
        for (path, bytes) in &sound {
            let _ = fs::remove_file(path);
            fs::write(path, bytes).expect("write");
        }
        proxy.hang_up();
        let again = reload_until(&proxy, "config.reloaded", turn).await;
        assert_eq!(again["generation"], 1, "{what}: nothing was ever different: {again}");
    }
    proxy.finish().await;
}

/// The next line with this `message` after a signal, after the first `seen` that signals have caused; the watch may have
/// been quicker, and is not counted.
async fn reload_until(proxy: &Proxy, message: &str, seen: usize) -> Value {
    let is_one = |line: &Line| line.json["message"] == message && line.json["trigger"] == "signal";
    settles(message, || proxy.count(is_one), |count| *count > seen).await;
    let mut lines = proxy.lines().into_iter().filter(is_one).map(|line| line.json);
    lines.nth(seen).expect("it was counted")
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_the_rest_is_applied() {
    let app = App::bare().await;
    let (proxy, file, text) = start(&Config::to(&app.url)).await;
    let port = proxy.address.port();
    let changed = text.replace("127.0.0.1:0", "127.0.0.1:1").replace("level = \"info\"", "level = \"debug\"");
    fs::write(&file, changed.replace("\"json\"", "\"human\"")).expect("write");
    let told = reload_after(&proxy, 0).await;
    assert_eq!((&told["result"], &told["generation"]), (&"partial".into(), &2.into()), "{told}");
    assert_eq!(told["requires_restart"], "listen.address, log.format", "{told}");
    // It is where it was, and writes as it did, only more.
    assert_eq!(proxy.address.port(), port);
    drop(proxy.tcp().await);
    proxy.line("a line of level debug", |line| line.json["level"] == "DEBUG").await;
    fs::write(&file, changed.replace("debug", "warn")).expect("write");
    let told = reload_after(&proxy, 1).await;
    assert_eq!((&told["requires_restart"], &told["generation"]), (&"listen.address".into(), &3.into()), "{told}");
    // What this would log is too mild now.
    drop(proxy.websocket("/ws").await);
    fs::write(&file, text.replace("level =", "levle =")).expect("write");
    assert_eq!(reload_after(&proxy, 2).await["message"], "config.reload_failed");
    assert_eq!(proxy.logged("ws.open"), Vec::<Value>::new());
    proxy.finish().await;
}

#[tokio::test]
async fn connections_that_are_kept_follow_new_routes_with_their_next_request() {
    let (one, other) = (named("one").await, named("other").await);
    let (proxy, file, text) = start(&Config::to(&one.url)).await;
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

    fs::write(&file, text.replace(&one.url, &other.url)).expect("write");
    assert_eq!(reload_after(&proxy, 1).await["result"], "applied");
    assert_eq!(get(&proxy, &mut kept, "/old").await, (200, "other".into()), "changed");
    assert_eq!(streams_get(&mut streams, "/old").await, "other");

    fs::write(&file, format!("{text}\n[limits]\nheaders = 3\n[tls_]\n")).expect("write");
    assert_eq!(reload_after(&proxy, 2).await["message"], "config.reload_failed");
    assert_eq!(streams_get(&mut streams, "/old").await, "other", "the last good one stays");
    proxy.finish().await;
}

/// One connection of HTTP/2.
async fn multiplexed(proxy: &Proxy) -> h2::client::SendRequest<Bytes> {
    let name = ServerName::try_from("localhost").expect("a valid name");
    let handshake = TlsConnector::from(proxy.pki.client_of("h2")).connect(name, proxy.tcp().await);
    let tls = soon("the TLS handshake", handshake).await.expect("the proxy's certificate is trusted");
    let (sender, connection) = h2::client::handshake(tls).await.expect("the preface goes out");
    tokio::spawn(connection);
    sender
}

async fn streams_get(streams: &mut h2::client::SendRequest<Bytes>, path: &str) -> String {
    let request = http::Request::get(format!("https://localhost{path}")).body(()).expect("a request");
    let (answer, _) = streams.send_request(request, true).expect("a stream");
    let mut body = soon("an answer", answer).await.expect("an answer").into_body();
    let mut text = Vec::new();
    while let Some(piece) = soon("the body", body.data()).await {
        text.extend_from_slice(&piece.expect("a whole body"));
    }
    String::from_utf8(text).expect("UTF-8")
}

#[tokio::test]
async fn a_session_keeps_the_heartbeat_that_it_was_opened_with() {
    let app = App::bare().await;
    let quick = "[heartbeat]\ninterval = \"400ms\"\ntimeout = \"600ms\"\n";
    let (proxy, file, text) = start(&Config::to(&app.url)).await;
    // Neither of the two ever answers a ping.
    let mut patient = proxy.upgraded("/ws?name=patient").await;
    fs::write(&file, format!("{text}\n{quick}")).expect("write");
    assert_eq!(reload_after(&proxy, 0).await["generation"], 2);
    let _hasty = proxy.upgraded("/ws?name=hasty").await;
    let missed = proxy.ws_close(|line| line["close.reason"] == "heartbeat_timeout").await;
    let opened = proxy.logged("ws.open");
    assert_eq!(opened.iter().map(|line| &line["config.generation"]).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(missed.json["conn_id"], opened[1]["conn_id"], "the one with the new heartbeat");
    // The first one lives: its app hears it.
    patient.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).await.expect("write");
    let frame = soon("the echo", Frame::read(&mut patient)).await.expect("a frame");
    assert_eq!(frame.opcode(), TEXT, "{frame:?}");
    proxy.finish().await;
}

#[tokio::test]
async fn an_editor_that_renames_and_a_file_that_vanishes_for_a_moment_are_one_change() {
    let app = App::bare().await;
    let (proxy, file, text) = start(&Config::to(&app.url)).await;
    let edited = |n: u32| format!("{text}\n[heartbeat]\ninterval = \"{n}s\"\n");
    for turn in 0..3 {
        // As vim does it, backup and all.
        fs::rename(&file, file.with_extension("toml~")).expect("rename");
        fs::write(&file, edited(turn + 10)).expect("write");
        let told = reload_after(&proxy, turn as usize).await;
        assert_eq!((&told["result"], &told["trigger"]), (&"applied".into(), &"file".into()), "{told}");
    }
    let mut websocket = proxy.websocket("/ws").await;
    echo(&mut websocket, Message::text("still here")).await.expect("an echo");
    websocket.close(None).await.expect("close");
    proxy.finish().await;
}
