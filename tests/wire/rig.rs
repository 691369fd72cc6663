//! The proxy between a scripted client and a scripted app.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::process::Output;
use std::time::{Duration, Instant};

use pulsegate_test_kit::process::OutputLine;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::PULSEGATE;
use crate::wire::app::App;
use crate::wire::peer::{Connect, Peer};
use crate::wire::record::Record;

/// The delay that a busy machine may add to any bound.
pub(crate) const SLACK: Duration = Duration::from_millis(2500);

/// A heartbeat with an interval and a timeout of one second; a leg that has its Close ends within half a second.
pub(crate) const BEATING: &str = "interval = \"1s\"\ntimeout = \"1s\"\njitter = 0\nclose_grace = \"500ms\"";

/// `interval + timeout` of [`BEATING`].
pub(crate) const BOUND: Duration = Duration::from_secs(2);

/// The `close_grace` of [`BEATING`] and [`QUIET`].
pub(crate) const GRACE: Duration = Duration::from_millis(500);

/// As [`BEATING`], with no probe within the time of a test.
pub(crate) const QUIET: &str = "interval = \"60s\"\ntimeout = \"1s\"\njitter = 0\nclose_grace = \"500ms\"";

/// The path between client and app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    Proxy,
    Direct,
}

/// A proxy, its app, and its admin socket.
pub(crate) struct Rig {
    pub(crate) app: App,
    pub(crate) proxy: Proxy,
    dir: TempDir,
}

/// The options of a [`Rig`].
#[derive(Clone, Copy, Default)]
pub(crate) struct Setup<'a> {
    /// Lines of `[heartbeat]`.
    pub(crate) heartbeat: &'a str,
    /// Lines of `[limits]`.
    pub(crate) limits: &'a str,
    /// Lines of `[drain]`.
    pub(crate) drain: &'a str,
    /// Set for an app with a small receive buffer that reads nothing at first.
    pub(crate) narrow_app: bool,
}

impl Rig {
    /// Starts the proxy with these lines of `[heartbeat]`.
    pub(crate) async fn start(heartbeat: &str) -> Self {
        Self::set_up(Setup { heartbeat, ..Setup::default() }).await
    }

    /// As [`Self::start`], with an app that has a small receive buffer and reads nothing at first.
    pub(crate) async fn narrow(heartbeat: &str) -> Self {
        Self::set_up(Setup { heartbeat, narrow_app: true, ..Setup::default() }).await
    }

    pub(crate) async fn set_up(setup: Setup<'_>) -> Self {
        let app = App::start(setup.narrow_app);
        Self::before(app, setup).await
    }

    async fn before(app: App, setup: Setup<'_>) -> Self {
        let dir = TempDir::with_prefix("pulsegate-wire-").expect("make a temporary directory");
        let socket = dir.path().join("admin.sock").display().to_string();
        let Setup { heartbeat, limits, drain, .. } = setup;
        let mut config = Config::to(PULSEGATE, &format!("http://{}", app.address))
            .listen("workers = 1")
            .upstream("interval = \"off\"")
            .admin("health = \"off\"")
            .admin(&format!("socket = {socket:?}"))
            .with(&format!("[heartbeat]\n{heartbeat}\n[limits]\n{limits}"));
        if !drain.is_empty() {
            config = config.drain(drain);
        }
        Self { app, proxy: Proxy::start(config).await, dir }
    }

    /// Opens a session on `path`; returns its client and the app's endpoint.
    pub(crate) async fn pair(&self, path: &str) -> (Peer, Peer) {
        self.pair_via(Via::Proxy, path, Connect::default()).await
    }

    /// As [`Self::pair`]; the client has a small receive buffer.
    pub(crate) async fn narrow_pair(&self, path: &str) -> (Peer, Peer) {
        self.pair_via(Via::Proxy, path, Connect { narrow: true, ..Connect::default() }).await
    }

    /// As [`Self::pair`], with the proxy or without.
    pub(crate) async fn pair_via(&self, via: Via, path: &str, how: Connect) -> (Peer, Peer) {
        let client = match via {
            Via::Proxy => {
                let how = Connect { tls: Some(self.proxy.pki.client()), ..how };
                Peer::connect(self.proxy.address, path, how).await
            }
            Via::Direct => Peer::connect(self.app.address, path, how).await,
        };
        (client, self.app.session(path).await)
    }

    /// Returns the last line of the session with this path, which must come within `limit`.
    pub(crate) async fn ended(&self, path: &str, limit: Duration) -> OutputLine {
        let is_its = |line: &OutputLine| line.json["message"] == "ws.close" && line.json["url.path"] == path;
        self.proxy.line_within(limit, &format!("ws.close of {path}"), is_its).await
    }

    /// Returns whether the session with this path has its last line.
    pub(crate) fn has_ended(&self, path: &str) -> bool {
        self.proxy.logged("ws.close").iter().any(|line| line["url.path"] == path)
    }

    /// Checks initiator, reason and codes of the last line of a session.
    pub(crate) async fn logs(&self, path: &str, initiator: &str, reason: &str, code: u16, upstream: u16) -> OutputLine {
        let line = self.ended(path, Duration::from_secs(10)).await;
        let found = summary(&line.json);
        let expected = format!("{initiator} {reason} client={code} upstream={upstream}");
        assert_eq!(found, expected, "{path}: {}", line.text);
        line
    }

    /// Closes the session with this path by the program's own command; returns the start time of the command.
    pub(crate) async fn kill(&self, path: &str, flags: &[&str]) -> Instant {
        let (started, output) = self.run_kill(path, flags).await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "kill {flags:?} of {path}: {}: {out}{err}", output.status);
        started
    }

    /// As [`Self::kill`], for a session that may have ended; `None` if it has.
    pub(crate) async fn try_kill(&self, path: &str, flags: &[&str]) -> Option<Instant> {
        let (started, output) = self.run_kill(path, flags).await;
        output.status.success().then_some(started)
    }

    async fn run_kill(&self, path: &str, flags: &[&str]) -> (Instant, Output) {
        let is_its = |line: &OutputLine| line.json["message"] == "ws.open" && line.json["url.path"] == path;
        let opened = self.proxy.line(&format!("ws.open of {path}"), is_its).await.json;
        let id = opened["conn_id"].as_str().unwrap_or_else(|| panic!("no conn_id in {opened}"));
        let socket = self.dir.path().join("admin.sock");
        let started = Instant::now();
        let mut command = Command::new(PULSEGATE);
        command.arg("kill").arg("--admin").arg(socket).args(flags).arg(id).kill_on_drop(true);
        (started, wait_for("pulsegate kill", command.output()).await.expect("the program runs"))
    }
}

/// Returns initiator, reason and codes of a `ws.close` line.
pub(crate) fn summary(line: &Value) -> String {
    let text = |key: &str| line[key].as_str().unwrap_or("?").to_owned();
    let (code, upstream) = (&line["close.code"], &line["upstream.close_code"]);
    format!("{} {} client={code} upstream={upstream}", text("close.initiator"), text("close.reason"))
}

/// Asserts that the line's code for the client is the one that was on its wire: received, or else sent, or else 1006.
pub(crate) fn true_for_client(line: &Value, client: &Record, sent: Option<u16>) {
    let wire = client.codes().first().copied().or(sent).unwrap_or(1006);
    assert_eq!(line["close.code"], wire, "the client received {client:?} and sent {sent:?}; {line}");
}

/// A variant of a test, with its name.
pub(crate) type Variant = (String, Pin<Box<dyn Future<Output = ()> + Send>>);

/// Returns a variant of a test.
pub(crate) fn variant(name: impl Into<String>, run: impl Future<Output = ()> + Send + 'static) -> Variant {
    (name.into(), Box::pin(run))
}

/// Runs all variants at the same time; fails with the names and the messages of those that failed.
pub(crate) async fn together(variants: Vec<Variant>) {
    let count = variants.len();
    let running: Vec<_> = variants.into_iter().map(|(name, run)| (name, tokio::spawn(run))).collect();
    let mut failed = Vec::new();
    for (name, task) in running {
        if let Err(error) = task.await {
            failed.push(format!("{name}: {}", message(&*error.into_panic())));
        }
    }
    assert!(failed.is_empty(), "{} of {count} variants failed:\n{}", failed.len(), failed.join("\n"));
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default()
}

/// Returns a number of seconds.
pub(crate) const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Returns a number of milliseconds.
pub(crate) const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}
