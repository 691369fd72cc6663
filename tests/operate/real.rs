//! The commands against the built binary itself, with real sessions.

use pulsegate_test_kit::client::{Wss, close_of, echo};
use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_until;
use serde_json::Value;
use tempfile::TempDir;

use crate::PULSEGATE;
use crate::operate::program::{run, start};

/// A proxy with an admin listener, and its address.
struct Operated {
    proxy: Proxy,
    _app: FakeApp,
    dir: TempDir,
    health: String,
}

impl Operated {
    /// Starts it with more `lines` of the section `[admin]`.
    async fn start(drain: &str, lines: &[&str]) -> Self {
        let dir = TempDir::new().expect("make a temporary directory");
        let app = FakeApp::answering("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
        let socket = dir.path().join("admin.sock");
        let mut config = Config::to(PULSEGATE, &app.url).drain(drain).admin("health = \"127.0.0.1:0\"");
        if !lines.iter().any(|line| line.starts_with("socket")) {
            config = config.admin(&format!("socket = {:?}", socket.display().to_string()));
        }
        for line in lines {
            config = config.admin(line);
        }
        let proxy = Proxy::start(config).await;
        let health = Self::logged(&proxy, "health");
        Self { proxy, _app: app, dir, health }
    }

    /// Returns the value of `field` in the line `listening`.
    fn logged(proxy: &Proxy, field: &str) -> String {
        let line = proxy.logged("listening").swap_remove(0);
        line[field].as_str().unwrap_or_else(|| panic!("no {field} in {line}")).to_owned()
    }

    fn socket(&self) -> String {
        self.dir.path().join("admin.sock").display().to_string()
    }

    /// Opens `count` sessions, each of which has passed a message.
    async fn sessions(&self, count: usize) -> Vec<Wss> {
        let mut sessions = Vec::new();
        for _ in 0..count {
            let mut session = self.proxy.websocket("/echo").await;
            echo(&mut session, "hello".into()).await.expect("an echo");
            sessions.push(session);
        }
        sessions
    }

    /// Returns the sessions that `conns` with `flags` lists, as JSON.
    async fn conns(&self, flags: &[&str]) -> Vec<Value> {
        let socket = self.socket();
        let run = run(&[&["conns", "--admin", &socket, "--format", "json"], flags].concat()).await;
        let mut json: Value = serde_json::from_str(&run.succeeded().out).expect("JSON");
        json["connections"].as_array_mut().map(std::mem::take).expect("a list")
    }
}

#[tokio::test]
async fn sessions_are_listed_watched_and_closed_one_by_one_and_by_filter() {
    let operated = Operated::start("delay = \"0s\"", &[]).await;
    let socket = operated.socket();
    let mut sessions = operated.sessions(14).await;
    let table = run(&["conns", "--admin", &socket]).await;
    let lines: Vec<&str> = table.succeeded().out.lines().collect();
    assert_eq!(lines.len(), 15, "{}", table.out);
    let row: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!(
        (row.len(), row[1], row[2], row[3], row[5], row[10], row[12], row[14]),
        (15, "open", "/", "/echo", "h1", "1", "1", "0B"),
        "{}",
        table.out
    );
    let top = run(&["top", "--admin", &socket]).await;
    assert_eq!(top.succeeded().out.lines().count(), 4 + 14, "{}", top.out);
    assert!(top.out.starts_with(&format!("pulsegate {}  pid ", env!("CARGO_PKG_VERSION"))), "{}", top.out);

    // One by its id, and once more: its client has received the reason, and its last line is kept.
    let first = row[0];
    let killed = run(&["kill", "--admin", &socket, first, "--code", "4001", "--reason", "because"]).await;
    assert_eq!(killed.succeeded().out, format!("closed {first}\n"));
    assert_eq!(close_of(&mut sessions[0]).await, (4001, "because".to_owned()));
    drop(sessions.remove(0));
    operated.proxy.ws_closes(1).await;
    let again = run(&["kill", "--admin", &socket, first]).await;
    assert_eq!(again.succeeded().out, format!("already closed {first}\n"));
    let closed = run(&["conns", "--admin", &socket, "--state", "closed"]).await;
    let closed: Vec<&str> = closed.succeeded().out.lines().skip(1).collect();
    assert!(closed.len() == 1 && closed[0].starts_with(first) && closed[0].contains(" 4001 "), "{closed:?}");
    let story = run(&["diagnose", "--admin", &socket, first]).await;
    for part in [
        "operator closed the session with 4001 \"because\". pulsegate began it (admin).",
        "received Close 4001 \"because\".",
    ] {
        assert!(story.succeeded().out.contains(part), "{}", story.out);
    }
    run(&["kill", "--admin", &socket, "00000000000000ff"]).await.failed(1, &["there is no session 00000000000000ff"]);

    // The rest by their network; that is more than the limit without a confirmation.
    let all = ["kill", "--admin", &socket, "--client", "127.0.0.0/8"];
    run(&all).await.failed(1, &["13 sessions match", "--yes"]);
    assert_eq!(operated.conns(&[]).await.len(), 13, "nothing was closed");
    assert_eq!(operated.conns(&["--client", "192.0.2.0/24"]).await.len(), 0);
    assert_eq!(operated.conns(&["--sort", "-bytes_in", "--limit", "5"]).await.len(), 5);
    let killed = run(&[all.as_slice(), &["--yes"]].concat()).await;
    assert!(killed.succeeded().out.ends_with("\nclosed 13 sessions\n"), "{}", killed.out);
    for session in &mut sessions {
        assert_eq!(close_of(session).await, (1008, "closed by the operator".to_owned()));
    }
    drop(sessions);
    operated.proxy.ws_closes(14).await;
    let none = run(&["kill", "--admin", &socket, "--route", "/"]).await;
    none.failed(1, &["no open session matches"]);
    operated.proxy.finish().await;
}

#[tokio::test]
async fn a_drain_is_waited_for_and_the_process_stays() {
    let operated = Operated::start("delay = \"300ms\"\nwindow = \"1s\"", &[]).await;
    let socket = operated.socket();
    let mut sessions = operated.sessions(3).await;
    assert_eq!(run(&["healthcheck", "--address", &operated.health]).await.succeeded().out, "alive\n");
    let ready = async || run(&["healthcheck", "--ready", "--address", &operated.health]).await;
    assert_eq!(ready().await.succeeded().out, "ready\n");
    let waiting = start(&["drain", "--wait", "--timeout", "30s", "--admin", &socket]);
    for session in &mut sessions {
        assert_eq!(close_of(session).await.0, 1012);
    }
    drop(sessions);
    let drained = waiting.finish().await;
    let lines: Vec<&str> = drained.succeeded().out.lines().collect();
    assert_eq!(lines.last(), Some(&"drained: 0 sessions left"), "{drained:#?}");
    let not_ready = ready().await;
    assert_eq!((not_ready.code, not_ready.out.starts_with("not ready (503 ")), (Some(1), true), "{not_ready:#?}");
    assert_eq!(run(&["healthcheck", "--address", &operated.health]).await.succeeded().out, "alive\n");
    // Again, and after the process has gone.
    assert_eq!(run(&["drain", "--wait", "--admin", &socket]).await.succeeded().out, "drained: 0 sessions left\n");
    operated.proxy.finish().await;
    let gone = run(&["drain", "--wait", "--admin", &socket]).await;
    gone.failed(1, &["there is no socket"]);
}

#[tokio::test]
async fn a_drain_that_is_only_announced_is_cancelled_and_the_proxy_serves_on() {
    let operated = Operated::start("delay = \"60s\"\nwindow = \"0s\"", &[]).await;
    let socket = operated.socket();
    let mut sessions = operated.sessions(2).await;
    let ready = async || run(&["healthcheck", "--ready", "--address", &operated.health]).await;
    let waiting = start(&["drain", "--wait", "--admin", &socket]);
    wait_until("the announcement", || operated.proxy.logged("drain").len(), |lines| *lines == 1).await;
    assert_eq!(ready().await.code, Some(1), "announced");
    let cancelled = run(&["drain", "--cancel", "--admin", &socket]).await;
    assert_eq!(cancelled.succeeded().out, "ready, accepting: 2 sessions\n");
    waiting.finish().await.failed(1, &["the drain was cancelled"]);
    assert_eq!(ready().await.succeeded().out, "ready\n");
    for session in &mut sessions {
        echo(session, "still here".into()).await.expect("an echo");
    }
    sessions.extend(operated.sessions(1).await);
    drop(sessions);
    operated.proxy.ws_closes(3).await;
    assert_eq!(run(&["drain", "--cancel", "--admin", &socket]).await.succeeded().out, "ready, accepting: 0 sessions\n");
    drop(operated);
}

#[tokio::test]
async fn over_tls_a_request_without_the_token_is_refused() {
    let files = TempDir::new().expect("make a temporary directory");
    let token = files.path().join("token").display().to_string();
    std::fs::write(&token, "0123456789abcdef0123456789abcdef\n").expect("write the token");
    let lines = ["socket = \"127.0.0.1:0\"", "tls = true", &format!("token_file = {token:?}")];
    let operated = Operated::start("delay = \"0s\"", &lines).await;
    let at = Operated::logged(&operated.proxy, "admin");
    let at = format!("https://{}", at.trim_start_matches("https://"));
    let ca = operated.proxy.pki.ca.display().to_string();
    run(&["conns", "--admin", &at, "--ca", &ca, "--token-file", &token]).await.succeeded();
    let named = ["conns", "--admin", &at, "--ca", &ca, "--token-file", &token, "--server-name", "localhost"];
    run(&named).await.succeeded();
    run(&["conns", "--admin", &at, "--ca", &ca]).await.failed(1, &["requires a token", "--token-file"]);
    let other = ["conns", "--admin", &at, "--ca", &ca, "--server-name", "other.example", "--token-file", &token];
    run(&other).await.failed(1, &["no TLS with", "--server-name"]);
    let plain = at.replace("https://", "http://");
    run(&["conns", "--admin", &plain, "--token-file", &token]).await.failed(1, &["https://"]);
    operated.proxy.finish().await;
}

#[tokio::test]
async fn top_sees_sessions_come_and_go() {
    let operated = Operated::start("delay = \"0s\"", &[]).await;
    let mut terminal =
        crate::operate::terminal::Terminal::start(&["top", "--admin", &operated.socket(), "--interval", "200ms"]);
    terminal.shows("0-0 of 0, by misses").await;
    let sessions = operated.sessions(2).await;
    let ids: Vec<String> =
        operated.conns(&[]).await.iter().filter_map(|conn| Some(conn["id"].as_str()?.into())).collect();
    terminal.shows("1-2 of 2, by misses").await;
    terminal.shows(&ids[0]).await;
    drop(sessions);
    terminal.shows("0-0 of 0, by misses").await;
    terminal.types(b"q").await;
    terminal.shows("restored").await;
    wait_until("the sessions end", || operated.proxy.logged("ws.close").len(), |ended| *ended == 2).await;
    operated.proxy.finish().await;
}
