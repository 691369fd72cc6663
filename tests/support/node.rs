//! The real Express app and its real clients, each in a Node process.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::process::Process;
use super::proxy::Proxy;

/// Where the Node projects of the tests are.
pub(crate) fn project(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    assert!(dir.join("node_modules").is_dir(), "{} has no node_modules: run ./tests/install", dir.display());
    dir
}

/// An app of a Node project that listens.
#[derive(Debug)]
pub(crate) struct App {
    process: Process,
    /// The upstream URL for the proxy's configuration.
    pub(crate) url: String,
}

impl App {
    /// The app whose heartbeat lines are all deleted, on a port of its own.
    pub(crate) async fn bare() -> Self {
        Self::start("express", "bare.js", &[]).await
    }

    /// The classic recipe, with its own interval and timeout.
    pub(crate) async fn classic(interval_ms: u32, timeout_ms: u32) -> Self {
        let interval = interval_ms.to_string();
        let timeout = timeout_ms.to_string();
        let environment = [("HEARTBEAT_INTERVAL_MS", &*interval), ("HEARTBEAT_TIMEOUT_MS", &*timeout)];
        Self::start("express", "classic.js", &environment).await
    }

    /// The bare app on a unix socket.
    pub(crate) async fn bare_on(socket: &Path) -> Self {
        Self::start("express", "bare.js", &[("LISTEN", socket.to_str().expect("temporary paths are UTF-8"))]).await
    }

    /// `script` of the project `name`, as soon as it has told where it listens.
    pub(crate) async fn start(name: &str, script: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new("node");
        command.arg(script).current_dir(project(name)).envs(environment.iter().copied());
        let process = Process::start(script, &mut command);
        let listening = process.line("the app listens", |line| line.text.starts_with("listening ")).await;
        let address = listening.text.trim_start_matches("listening ");
        let url =
            if address.starts_with('/') { format!("unix:{address}") } else { format!("http://127.0.0.1:{address}") };
        Self { process, url }
    }

    /// The app's view of the connection that calls itself `name`: its `close` event.
    pub(crate) async fn close_of(&self, name: &str) -> super::process::Line {
        self.process.event_line("close", |event| event["name"] == name).await
    }
}

impl Deref for App {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for App {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// A `ws` client in a process of its own.
#[derive(Debug)]
pub(crate) struct Client(Process);

impl Client {
    /// Connects to `path` through the proxy; `flags` are those of `client.js`.
    pub(crate) async fn connect(proxy: &Proxy, path: &str, flags: &[&str]) -> Self {
        let client = Self::start(proxy, path, flags);
        client.event("open", |_| true).await;
        client
    }

    /// As [`Self::connect`], without waiting for what comes of it.
    pub(crate) fn start(proxy: &Proxy, path: &str, flags: &[&str]) -> Self {
        let mut command = Command::new("node");
        command.arg("client.js").arg(proxy.wss(path)).arg("--ca").arg(&proxy.pki.ca).args(flags);
        Self(Process::start("client.js", command.current_dir(project("express"))))
    }
}

impl Deref for Client {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}
