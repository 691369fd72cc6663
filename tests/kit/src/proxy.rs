//! The built binary in front of an app.

use std::fmt::{self, Display, Write as _};
use std::fs;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::pki::Pki;
use crate::process::{OutputLine, Process};
use crate::wait::{TIMEOUT, wait_until};

/// A heartbeat with short windows: a dead client is gone after [`BOUND`].
pub const QUICK: &str = "[heartbeat]\ninterval = \"400ms\"\ntimeout = \"600ms\"\n";

/// `interval + timeout` of [`QUICK`].
pub const BOUND: Duration = Duration::from_secs(1);

/// A running `pulsegate run`, with a certificate and a configuration of its own.
#[derive(Debug)]
pub struct Proxy {
    process: Process,
    /// The address of its TLS port.
    pub address: SocketAddr,
    /// The authority of its certificate.
    pub pki: Pki,
    config: Config,
    dir: TempDir,
}

/// A configuration file under construction, and the program that reads it.
#[derive(Clone, Debug)]
#[must_use]
pub struct Config {
    program: PathBuf,
    listen: String,
    tls: String,
    upstream: String,
    drain: Lines,
    admin: Lines,
    sections: String,
}

/// The lines of a section: a default until the test writes its own.
#[derive(Clone, Debug)]
enum Lines {
    Quiet(&'static str),
    Written(String),
}

/// A drain that lasts no longer than its sessions.
const AT_ONCE: &str = "delay = \"0s\"\nwindow = \"0s\"";

/// No health port and no admin socket: proxies of other tests might use the same.
const NOWHERE: &str = "health = \"off\"\nsocket = \"off\"";

impl Config {
    /// Returns the defaults, for the `program` in front of the app at `url`.
    pub fn to(program: impl Into<PathBuf>, url: &str) -> Self {
        Self {
            program: program.into(),
            listen: String::new(),
            tls: String::new(),
            upstream: format!("url = \"{url}\"\n"),
            drain: Lines::Quiet(AT_ONCE),
            admin: Lines::Quiet(NOWHERE),
            sections: String::new(),
        }
    }

    /// Leaves out the URL of the app, for a program that starts its app itself.
    pub fn without_url(mut self) -> Self {
        self.upstream.clear();
        self
    }

    /// Replaces the URL of the app.
    pub fn at(mut self, url: &str) -> Self {
        self.upstream = format!("url = \"{url}\"\n");
        self
    }

    /// Adds a line to the section `[listen]`.
    pub fn listen(mut self, line: &str) -> Self {
        writeln!(self.listen, "{line}").expect("writing to a string");
        self
    }

    /// Adds a line to the section `[tls]`.
    pub fn tls(mut self, line: &str) -> Self {
        writeln!(self.tls, "{line}").expect("writing to a string");
        self
    }

    /// Adds a line to the section `[upstream]`.
    pub fn upstream(mut self, line: &str) -> Self {
        writeln!(self.upstream, "{line}").expect("writing to a string");
        self
    }

    /// Adds a line to the section `[drain]`; the first one replaces the lines that make a drain quick.
    pub fn drain(mut self, line: &str) -> Self {
        self.drain.write(line);
        self
    }

    /// Adds a line to the section `[admin]`; the first one replaces the lines that open no port.
    pub fn admin(mut self, line: &str) -> Self {
        self.admin.write(line);
        self
    }

    /// Adds whole sections, headings included.
    pub fn with(mut self, sections: &str) -> Self {
        writeln!(self.sections, "{sections}").expect("writing to a string");
        self
    }

    /// Returns the text of the file.
    pub fn toml(&self, address: SocketAddr, pki: &Pki) -> String {
        let Self { listen, tls, upstream, drain, admin, sections, .. } = self;
        let (certificate, private_key) = (pki.certificate.display(), pki.private_key.display());
        format!(
            "[listen]\naddress = \"{address}\"\n{listen}\n\
             [tls]\ncertificate = \"{certificate}\"\nprivate_key = \"{private_key}\"\n{tls}\n\
             [upstream]\n{upstream}\n\
             [drain]\n{drain}\n\
             [admin]\n{admin}\n\
             [log]\nlevel = \"info\"\nformat = \"json\"\n\n{sections}"
        )
    }
}

impl Lines {
    fn write(&mut self, line: &str) {
        match self {
            Self::Quiet(_) => *self = Self::Written(format!("{line}\n")),
            Self::Written(lines) => writeln!(lines, "{line}").expect("writing to a string"),
        }
    }
}

impl Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quiet(lines) => writeln!(f, "{lines}"),
            Self::Written(lines) => f.write_str(lines),
        }
    }
}

impl Proxy {
    /// Starts the binary and waits until it listens.
    pub async fn start(config: Config) -> Self {
        let dir = TempDir::with_prefix("pulsegate-").expect("make a temporary directory");
        let pki = Pki::make(dir.path());
        Self::listen(config, SocketAddr::from(([127, 0, 0, 1], 0)), pki, dir).await
    }

    /// As [`Self::start`], in a process whose limit of open files is `open_files`.
    pub async fn start_with_open_files(config: Config, open_files: usize) -> Self {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -n {open_files} && exec \"$0\" \"$@\""));
        Self::start_by(command, SocketAddr::from(([127, 0, 0, 1], 0)), config).await
    }

    /// Ends it with SIGTERM, and starts it again on the same port, with the same certificate and configuration. Between
    /// the two the port is closed.
    pub async fn restart(self) -> Self {
        self.restart_after(async |_| {}).await
    }

    /// As [`Self::restart`], with `meanwhile` between exit and start; its argument is the address.
    pub async fn restart_after(mut self, meanwhile: impl AsyncFnOnce(SocketAddr)) -> Self {
        self.exits_in_order().await;
        meanwhile(self.address).await;
        let Self { config, address, pki, dir, .. } = self;
        Self::listen(config, address, pki, dir).await
    }

    /// Kills it, so that no session gets a Close, and starts it again as [`Self::restart`] does.
    pub async fn crash(mut self) -> Self {
        self.process.kill().await;
        let Self { config, address, pki, dir, .. } = self;
        Self::listen(config, address, pki, dir).await
    }

    async fn listen(config: Config, address: SocketAddr, pki: Pki, dir: TempDir) -> Self {
        let file = dir.path().join("proxy.toml");
        fs::write(&file, config.toml(address, &pki)).expect("write the configuration");
        Self::follow(&file, config, pki, dir).await
    }

    /// As [`Self::start`] with a configuration `file` that the test writes itself, `config` at first; `dir` lives as long
    /// as the proxy.
    pub async fn follow(file: &Path, config: Config, pki: Pki, dir: TempDir) -> Self {
        Box::pin(Self::spawn(Command::new(&config.program), file, config, pki, dir)).await
    }

    /// As [`Self::start`], listening on `address`, by a command to which the program and its arguments are added.
    pub async fn start_by(mut command: Command, address: SocketAddr, config: Config) -> Self {
        let dir = TempDir::with_prefix("pulsegate-").expect("make a temporary directory");
        let pki = Pki::make(dir.path());
        let file = dir.path().join("proxy.toml");
        fs::write(&file, config.toml(address, &pki)).expect("write the configuration");
        command.arg(&config.program);
        Box::pin(Self::spawn(command, &file, config, pki, dir)).await
    }

    async fn spawn(mut command: Command, file: &Path, config: Config, pki: Pki, dir: TempDir) -> Self {
        command.arg("run").arg("-c").arg(file);
        let process = Process::start("pulsegate", &mut command);
        let listening = process.line("it listens", |line| line.json["message"] == "listening").await;
        let address = listening.json["address"].as_str().and_then(|address| address.parse().ok());
        let Some(address) = address else { panic!("no address in {}", listening.text) };
        Self { process, address, pki, config, dir }
    }

    /// Returns a wss URL to it.
    pub fn wss(&self, path: &str) -> String {
        format!("wss://localhost:{}{path}", self.address.port())
    }

    /// Returns an https URL to it.
    pub fn https(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    /// Waits for the first `ws.close` line that `matches`.
    pub async fn ws_close(&self, matches: impl Fn(&Value) -> bool) -> OutputLine {
        self.line("a ws.close", |line| line.json["message"] == "ws.close" && matches(&line.json)).await
    }

    /// Returns the log lines so far whose message is `message`.
    pub fn logged(&self, message: &str) -> Vec<Value> {
        self.lines().into_iter().map(|line| line.json).filter(|json| json["message"] == message).collect()
    }

    /// Waits until `count` sessions have ended, and returns their `ws.close` lines.
    pub async fn ws_closes(&self, count: usize) -> Vec<Value> {
        let ended = || self.count(|line| line.json["message"] == "ws.close");
        wait_until("every session has its ws.close", ended, |ended| *ended >= count).await;
        self.logged("ws.close")
    }

    /// Waits until it has no more connections than `baseline`.
    pub async fn releases(&self, baseline: usize) {
        wait_until("the proxy closes its connections", || self.connections(), |count| *count <= baseline).await;
    }

    /// Ends it with SIGTERM; fails unless it exits with 0 and has not panicked.
    pub async fn finish(mut self) {
        self.exits_in_order().await;
    }

    async fn exits_in_order(&mut self) {
        self.process.terminate();
        let status = self.process.exit_within(TIMEOUT).await;
        assert_eq!(status.code(), Some(0), "{status}; it wrote:\n{}", self.transcript());
        self.has_not_panicked();
    }

    /// Fails if its log shows a panic, which the runtime catches and survives.
    pub fn has_not_panicked(&self) {
        assert_eq!(self.count(|line| line.text.contains("panicked at")), 0, "it panicked:\n{}", self.transcript());
    }
}

impl Deref for Proxy {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Proxy {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
