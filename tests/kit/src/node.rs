//! Node processes: the Express app, and `ws` clients.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::process::Process;
use crate::proxy::Proxy;

/// Returns the folder of the Node project `name`, whose packages must be installed.
pub fn project(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(name);
    assert!(dir.join("node_modules").is_dir(), "{} has no node_modules: run ./tests/install", dir.display());
    dir
}

/// A listening app of a Node project.
#[derive(Debug)]
pub struct NodeApp {
    process: Process,
    /// The upstream URL for the proxy's configuration.
    pub url: String,
}

impl NodeApp {
    /// Starts the Express app without any heartbeat code, on a free port.
    pub async fn bare() -> Self {
        Self::start("express", "bare.js", &[]).await
    }

    /// Starts the Express app with the classic heartbeat recipe, at this interval and timeout.
    pub async fn classic(interval_ms: u32, timeout_ms: u32) -> Self {
        let interval = interval_ms.to_string();
        let timeout = timeout_ms.to_string();
        let environment = [("HEARTBEAT_INTERVAL_MS", &*interval), ("HEARTBEAT_TIMEOUT_MS", &*timeout)];
        Self::start("express", "classic.js", &environment).await
    }

    /// Starts the Express app without any heartbeat code on a unix socket.
    pub async fn bare_on(socket: &Path) -> Self {
        Self::start("express", "bare.js", &[("LISTEN", socket.to_str().expect("temporary paths are UTF-8"))]).await
    }

    /// Starts `script` of the project `name` and waits until it prints its address.
    pub async fn start(name: &str, script: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new("node");
        command.arg(script).current_dir(project(name)).envs(environment.iter().copied());
        let process = Process::start(script, &mut command);
        let listening = process.line("the app listens", |line| line.text.starts_with("listening ")).await;
        let address = listening.text.trim_start_matches("listening ");
        let url =
            if address.starts_with('/') { format!("unix:{address}") } else { format!("http://127.0.0.1:{address}") };
        Self { process, url }
    }

    /// Waits for the app's `close` event of the connection `name`.
    pub async fn close_of(&self, name: &str) -> crate::process::OutputLine {
        self.process.event_line("close", |event| event["name"] == name).await
    }
}

impl Deref for NodeApp {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for NodeApp {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// A `ws` client in a process of its own.
#[derive(Debug)]
pub struct NodeClient(Process);

impl NodeClient {
    /// Connects to `path` through the proxy; `flags` are those of `client.js`.
    pub async fn connect(proxy: &Proxy, path: &str, flags: &[&str]) -> Self {
        let client = Self::start(proxy, path, flags);
        client.event("open", |_| true).await;
        client
    }

    /// As [`Self::connect`], without waiting for the connection.
    pub fn start(proxy: &Proxy, path: &str, flags: &[&str]) -> Self {
        let mut command = Command::new("node");
        command.arg("client.js").arg(proxy.wss(path)).arg("--ca").arg(&proxy.pki.ca).args(flags);
        Self(Process::start("client.js", command.current_dir(project("express"))))
    }
}

impl Deref for NodeClient {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for NodeClient {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}
