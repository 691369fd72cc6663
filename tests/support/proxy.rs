//! The built binary in front of an upstream.

use std::fmt::{self, Display, Write as _};
use std::fs;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use super::deadline::{PATIENCE, settles};
use super::pki::Pki;
use super::process::{Line, Process};

/// A heartbeat that is quick enough for a test: a dead client is gone after [`BOUND`].
pub(crate) const QUICK: &str = "[heartbeat]\ninterval = \"400ms\"\ntimeout = \"600ms\"\n";

/// `interval + timeout` of [`QUICK`].
pub(crate) const BOUND: Duration = Duration::from_secs(1);

/// A running `pulsegate run`, with a certificate and a configuration of its own.
#[derive(Debug)]
pub(crate) struct Proxy {
    process: Process,
    /// Its TLS port.
    pub(crate) address: SocketAddr,
    /// Who signed its certificate.
    pub(crate) pki: Pki,
    config: Config,
    dir: TempDir,
}

/// A configuration file in the making.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    listen: String,
    tls: String,
    upstream: String,
    drain: Lines,
    admin: Lines,
    sections: String,
}

/// The lines of a section that has some of its own, for as long as nobody writes others.
#[derive(Clone, Debug)]
enum Lines {
    Quiet(&'static str),
    Written(String),
}

/// An end in order takes no longer than the sessions do.
const AT_ONCE: &str = "delay = \"0s\"\nwindow = \"0s\"";

/// No port that another test's proxy may have, too.
const NOWHERE: &str = "health = \"off\"\nsocket = \"off\"";

impl Config {
    /// Everything by default, in front of the upstream at `url`.
    pub(crate) fn to(url: &str) -> Self {
        Self {
            listen: String::new(),
            tls: String::new(),
            upstream: format!("url = \"{url}\"\n"),
            drain: Lines::Quiet(AT_ONCE),
            admin: Lines::Quiet(NOWHERE),
            sections: String::new(),
        }
    }

    /// The same in front of the upstream at `url`.
    pub(crate) fn at(mut self, url: &str) -> Self {
        self.upstream = format!("url = \"{url}\"\n");
        self
    }

    /// A line of the section `[listen]`.
    pub(crate) fn listen(mut self, line: &str) -> Self {
        writeln!(self.listen, "{line}").expect("writing to a string");
        self
    }

    /// A line of the section `[tls]`.
    pub(crate) fn tls(mut self, line: &str) -> Self {
        writeln!(self.tls, "{line}").expect("writing to a string");
        self
    }

    /// A line of the section `[upstream]`.
    pub(crate) fn upstream(mut self, line: &str) -> Self {
        writeln!(self.upstream, "{line}").expect("writing to a string");
        self
    }

    /// A line of the section `[drain]`; the first takes the place of those that make an end quick.
    pub(crate) fn drain(mut self, line: &str) -> Self {
        self.drain.write(line);
        self
    }

    /// A line of the section `[admin]`; the first takes the place of those that open no port.
    pub(crate) fn admin(mut self, line: &str) -> Self {
        self.admin.write(line);
        self
    }

    /// Whole sections, headings included.
    pub(crate) fn with(mut self, sections: &str) -> Self {
        writeln!(self.sections, "{sections}").expect("writing to a string");
        self
    }

    /// The file.
    pub(crate) fn toml(&self, address: SocketAddr, pki: &Pki) -> String {
        let Self { listen, tls, upstream, drain, admin, sections } = self;
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
    pub(crate) async fn start(config: Config) -> Self {
        let dir = TempDir::with_prefix("pulsegate-").expect("make a temporary directory");
        let pki = Pki::make(dir.path());
        Self::listen(config, SocketAddr::from(([127, 0, 0, 1], 0)), pki, dir).await
    }

    /// As [`Self::start`], in a process that may have no more than `open_files`.
    pub(crate) async fn start_with_open_files(config: Config, open_files: usize) -> Self {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -n {open_files} && exec \"$0\" \"$@\""));
        Self::start_by(command, SocketAddr::from(([127, 0, 0, 1], 0)), config).await
    }

    /// Ends it in order, and starts it anew on the same port, with the same certificate and configuration. For a
    /// moment between the two nobody listens.
    pub(crate) async fn restart(self) -> Self {
        self.restart_after(async |_| {}).await
    }

    /// As [`Self::restart`], with `meanwhile` between the end and the start; it is told the address.
    pub(crate) async fn restart_after(mut self, meanwhile: impl AsyncFnOnce(SocketAddr)) -> Self {
        self.exits_in_order().await;
        meanwhile(self.address).await;
        let Self { config, address, pki, dir, .. } = self;
        Self::listen(config, address, pki, dir).await
    }

    /// Kills it, so that no session gets a Close, and starts it anew as [`Self::restart`] does.
    pub(crate) async fn crash(mut self) -> Self {
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
    pub(crate) async fn follow(file: &Path, config: Config, pki: Pki, dir: TempDir) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_pulsegate")), file, config, pki, dir).await
    }

    /// As [`Self::start`], listening on `address`, by a command to which the program and its arguments are added.
    pub(crate) async fn start_by(mut command: Command, address: SocketAddr, config: Config) -> Self {
        let dir = TempDir::with_prefix("pulsegate-").expect("make a temporary directory");
        let pki = Pki::make(dir.path());
        let file = dir.path().join("proxy.toml");
        fs::write(&file, config.toml(address, &pki)).expect("write the configuration");
        command.arg(env!("CARGO_BIN_EXE_pulsegate"));
        Self::spawn(command, &file, config, pki, dir).await
    }

    async fn spawn(mut command: Command, file: &Path, config: Config, pki: Pki, dir: TempDir) -> Self {
        command.arg("run").arg("-c").arg(file);
        let process = Process::start("pulsegate", &mut command);
        let listening = process.line("it listens", |line| line.json["message"] == "listening").await;
        let address = listening.json["address"].as_str().and_then(|address| address.parse().ok());
        let Some(address) = address else { panic!("no address in {}", listening.text) };
        Self { process, address, pki, config, dir }
    }

    /// A wss URL to it.
    pub(crate) fn wss(&self, path: &str) -> String {
        format!("wss://localhost:{}{path}", self.address.port())
    }

    /// An https URL to it.
    pub(crate) fn https(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    /// The first `ws.close` line that `matches`.
    pub(crate) async fn ws_close(&self, matches: impl Fn(&Value) -> bool) -> Line {
        self.line("a ws.close", |line| line.json["message"] == "ws.close" && matches(&line.json)).await
    }

    /// The log lines so far whose message is `message`.
    pub(crate) fn logged(&self, message: &str) -> Vec<Value> {
        self.lines().into_iter().map(|line| line.json).filter(|json| json["message"] == message).collect()
    }

    /// Waits until `count` sessions have ended, and gives their `ws.close` lines.
    pub(crate) async fn ws_closes(&self, count: usize) -> Vec<Value> {
        let ended = || self.count(|line| line.json["message"] == "ws.close");
        settles("every session has its ws.close", ended, |ended| *ended >= count).await;
        self.logged("ws.close")
    }

    /// Waits until it holds no more connections than `baseline`.
    pub(crate) async fn releases(&self, baseline: usize) {
        settles("the proxy closes its connections", || self.connections(), |count| *count <= baseline).await;
    }

    /// Ends it in order: it must exit with 0, and must not have panicked on the way.
    pub(crate) async fn finish(mut self) {
        self.exits_in_order().await;
    }

    async fn exits_in_order(&mut self) {
        self.process.terminate();
        let status = self.process.exit_within(PATIENCE).await;
        assert_eq!(status.code(), Some(0), "{status}; it wrote:\n{}", self.transcript());
        self.has_not_panicked();
    }

    /// A panic is caught by the runtime, and survived; the log tells.
    pub(crate) fn has_not_panicked(&self) {
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
