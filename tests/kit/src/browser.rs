//! Headless Chromium, driven by a Node process.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::Duration;

use rustix::process::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::node::project;
use crate::process::{OutputLine, Process};

/// Chromium on one page. The JSON lines that the page logs are its events.
#[derive(Debug)]
pub struct Browser {
    process: Process,
    _profile: TempDir,
}

impl Browser {
    /// Opens the page at `url`, trusts the authority in `ca`, and waits until the page is loaded.
    pub async fn visit(url: &str, ca: &Path) -> Self {
        Self::load(url, ca, &[]).await
    }

    /// As [`Self::visit`], in a browser without HTTP/2.
    pub async fn visit_by_http1(url: &str, ca: &Path) -> Self {
        Self::load(url, ca, &["--http1"]).await
    }

    /// Opens `url` with the host name `host`, without waiting.
    pub fn visit_as(host: &str, url: &str, ca: &Path) -> Self {
        Self::start("visit.js", url, ca, &["--host", host])
    }

    async fn load(url: &str, ca: &Path, flags: &[&str]) -> Self {
        let _start = start_turn().await;
        let browser = Self::start("visit.js", url, ca, flags);
        let loaded = browser.event("loaded", |_| true).await;
        assert_eq!(loaded["status"], 200, "{loaded}");
        browser
    }

    /// Opens `url` in a browser that [`Self::hide`] works on, without waiting.
    pub fn visit_to_hide(url: &str, ca: &Path) -> Self {
        Self::start("hide.js", url, ca, &[])
    }

    fn start(script: &str, url: &str, ca: &Path, flags: &[&str]) -> Self {
        let chromium = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".into());
        assert!(Path::new(&chromium).exists(), "no {chromium}: apt-get install -y chromium, or set CHROMIUM");
        let profile = TempDir::with_prefix("pulsegate-chromium-").expect("make a temporary directory");
        let mut command = Command::new("node");
        command.arg(script).arg(url).arg("--ca").arg(ca).args(flags).current_dir(project("browser"));
        if script == "hide.js" {
            command.arg("--profile").arg(profile.path());
        }
        Self { process: Process::start(script, &mut command), _profile: profile }
    }

    /// Waits until the page shows `text`.
    pub async fn shows(&mut self, selector: &str, text: &str) {
        self.write_line(&json!({ "await": [selector, text] })).await;
        self.event("shown", |event| event["selector"] == selector && event["text"] == text).await;
    }

    /// Blocks the page's only thread for `time`, and waits until it is blocked.
    pub async fn block(&mut self, time: Duration) -> OutputLine {
        self.write_line(&json!({ "block": time.as_millis() })).await;
        self.event_line("blocked", |_| true).await
    }

    /// Puts another tab in front of the page, and waits until the page reports it.
    pub async fn hide(&mut self) {
        self.write_line(&Value::Null).await;
        self.event("visibility", |event| event["visibilityState"] == "hidden").await;
    }

    /// Returns the process in which Chromium keeps all sockets.
    pub fn network_service(&self) -> Pid {
        let found = self.descendants(|command| command.contains("--utility-sub-type=network.mojom.NetworkService"));
        let [network_service] = found[..] else { panic!("one network service expected: {found:?}") };
        network_service
    }
}

/// Waits for the turn to start a browser, which lasts until the value is dropped: a start keeps all cores busy for
/// seconds, and one at a time is enough.
pub async fn start_turn() -> SemaphorePermit<'static> {
    static STARTS: Semaphore = Semaphore::const_new(1);
    STARTS.acquire().await.expect("the semaphore is never closed")
}

impl Deref for Browser {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Browser {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
