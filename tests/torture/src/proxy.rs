//! The proxy under test: its configuration, its process, its log, and its own reports.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::draw::Block;
use crate::endpoint::{ASKED, BEAT};
use crate::plan::{Heartbeat, Liveness, Mode};

/// A route, with the app behind it.
#[derive(Clone, Debug)]
pub struct Route<'a> {
    /// Its path.
    pub path: String,
    /// Its heartbeat.
    pub beat: &'a Heartbeat,
    /// The address of the app.
    pub app: SocketAddr,
    /// The proxy's checks of the app's liveness: interval, timeout and `give_up` in milliseconds.
    pub watched: Option<(u64, u64, u64)>,
    /// True if the app's response is delayed, so that `response_timeout` matters.
    pub answers_late: bool,
}

/// A line of the log, with the time at which it was read.
pub type Line = (Instant, Value);

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    /// Its TLS port.
    pub address: SocketAddr,
    /// The authority that signed its certificate.
    pub authority: PathBuf,
    /// The address of `/readyz` and `/metrics`.
    pub health: SocketAddr,
    admin: PathBuf,
    log: Arc<Mutex<Vec<Line>>>,
    raw: Arc<Mutex<Vec<String>>>,
    _dir: TempDir,
}

fn ms(value: u64) -> String {
    format!("\"{value}ms\"")
}

/// The limits of a connection's stages, for a proxy that is stopped for longer than they are.
const LIMIT: u64 = 1100;

fn section(beat: &Heartbeat) -> String {
    let mut out = String::new();
    let mode = match beat.mode {
        Mode::Protocol => "protocol",
        Mode::App => "app",
        Mode::Answer => "answer",
        Mode::Passive => "passive",
        Mode::Off => "off",
    };
    let liveness = match beat.liveness {
        Liveness::AnyBytes => "any_bytes",
        Liveness::AnyFrame => "any_frame",
        Liveness::PongOnly => "pong_only",
    };
    let mut line = |key: &str, value: String| {
        let _ = writeln!(out, "{key} = {value}");
    };
    line("mode", format!("{mode:?}"));
    match beat.mode {
        Mode::App | Mode::Answer => line("profile", format!("{{ send = {ASKED:?}, expect = {BEAT:?} }}")),
        Mode::Passive => line("profile", format!("{{ expect = {BEAT:?} }}")),
        Mode::Protocol | Mode::Off => {}
    }
    if matches!(beat.mode, Mode::Answer | Mode::Passive) {
        line("window", ms(beat.window));
    }
    line("liveness", format!("{liveness:?}"));
    line("interval", ms(beat.interval));
    line("timeout", ms(beat.timeout));
    line("max_missed", beat.max_missed.to_string());
    line("jitter", format!("{:.2}", beat.jitter as f64 / 100.0));
    line("probe_when_busy", ms(beat.busy));
    line("write_stall", ms(beat.write_stall));
    line("max_deferral", ms(beat.max_deferral));
    line("frame_max_time", ms(beat.frame_max_time));
    line("close_grace", ms(beat.close_grace));
    line("stall_guard", ms(beat.stall_guard));
    line("client_ping", if beat.answers_pings { "\"answer\"".into() } else { "\"forward\"".into() });
    line("adaptive", beat.adaptive.to_string());
    let (code, reason) = &beat.miss_client;
    line("on_miss.client", format!("{{ code = {code}, reason = {reason:?} }}"));
    let upstream = beat
        .miss_upstream
        .as_ref()
        .map_or("\"disconnect\"".to_owned(), |(code, reason)| format!("{{ code = {code}, reason = {reason:?} }}"));
    line("on_miss.upstream", upstream);
    out
}

/// Returns the configuration file.
pub fn config(
    dir: &Path,
    health: SocketAddr,
    block: &Block,
    fallback: SocketAddr,
    watched: bool,
    routes: &[Route<'_>],
) -> String {
    let watch =
        if watched { "interval = \"300ms\"\ntimeout = \"300ms\"\ngive_up = \"1s\"" } else { "interval = \"off\"" };
    let mut text = format!(
        "[listen]\naddress = \"127.0.0.1:0\"\nworkers = {2}\n\
         [tls]\ncertificate = \"{0}/cert.pem\"\nprivate_key = \"{0}/key.pem\"\n\
         [upstream]\nurl = \"http://{fallback}\"\n{watch}\n\
         [drain]\ndelay = \"0s\"\nwindow = \"300ms\"\n\
         [admin]\nhealth = \"{health}\"\nsocket = \"{0}/admin.sock\"\n\
         [log]\nlevel = \"info\"\nformat = \"json\"\n\
         [heartbeat]\n{1}",
        dir.display(),
        section(&block.defaults),
        block.workers
    );
    if block.stop.is_some() {
        let _ = write!(text, "[limits]\nhandshake = {0}\nheader_read = {0}\n", ms(LIMIT));
    }
    for route in routes {
        let upstream = match route.watched {
            None => "interval = \"off\"".to_owned(),
            Some((interval, timeout, give_up)) => {
                format!("interval = {}, timeout = {}, give_up = {}", ms(interval), ms(timeout), ms(give_up))
            }
        };
        let upstream =
            if route.answers_late { format!("{upstream}, response_timeout = {}", ms(LIMIT)) } else { upstream };
        let _ = write!(
            text,
            "\n[[route]]\npath = \"{}\"\nupstream = {{ url = \"http://{}\", {upstream} }}\n[route.heartbeat]\n{}",
            route.path,
            route.app,
            section(route.beat)
        );
    }
    text
}

impl Proxy {
    /// Starts `binary` and waits until it listens.
    ///
    /// # Errors
    ///
    /// Fails if the binary does not start, with its output.
    pub async fn start(
        binary: &Path,
        block: &Block,
        fallback: SocketAddr,
        watched: bool,
        routes: &[Route<'_>],
    ) -> Result<Self> {
        let dir = TempDir::with_prefix("pulsegate-torture-")?;
        pulsegate_load::cert::write(dir.path())?;
        // The port is free from here on. In rare cases another process takes it, and the start fails with an error.
        let health = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let file = dir.path().join("proxy.toml");
        fs::write(&file, config(dir.path(), health, block, fallback, watched, routes))?;
        let mut child = Command::new(binary)
            .args(["run", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", binary.display()))?;
        let (log, raw) = (Arc::default(), Arc::default());
        follow(child.stdout.take(), &log, &raw);
        follow(child.stderr.take(), &log, &raw);
        let (authority, admin) = (dir.path().join("ca.pem"), dir.path().join("admin.sock"));
        let mut proxy = Self { child, address: health, authority, health, admin, log, raw, _dir: dir };
        let started = Instant::now();
        loop {
            let listening = proxy.lines().into_iter().find(|(_, line)| line["message"] == "listening");
            if let Some(address) = listening.and_then(|(_, line)| line["address"].as_str()?.parse().ok()) {
                proxy.address = address;
                return Ok(proxy);
            }
            if let Some(status) = proxy.child.try_wait()? {
                bail!("the proxy ended at its start: {status}: {}", proxy.raw_text());
            }
            if started.elapsed() > Duration::from_secs(20) {
                bail!("the proxy does not listen after 20 s: {}", proxy.raw_text());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns the id of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Stops or continues the process.
    pub fn stop(&self, stopped: bool) {
        self.signal(if stopped { Signal::STOP } else { Signal::CONT });
    }

    /// Begins a drain.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for its exit; [`None`] if it has not ended within `limit`.
    pub async fn exit(&mut self, limit: Duration) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status.code().unwrap_or(-1));
            }
            if started.elapsed() > limit {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns the log so far.
    pub fn lines(&self) -> Vec<Line> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the output lines that are not log lines.
    pub fn raw_text(&self) -> String {
        self.raw.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Returns the number of its open descriptors.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }

    /// Returns the value of a metric, summed over its labels.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let stream = TcpStream::connect_timeout(&self.health, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        let text = get(stream, "/metrics")?;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            (rest.starts_with([' ', '{'])).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        Some(values.sum())
    }

    /// Returns the list of live sessions in the admin API.
    pub fn sessions(&self) -> Option<Value> {
        let stream = UnixStream::connect(&self.admin).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        let text = get(stream, "/v1/connections")?;
        serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the status of `/readyz`.
pub fn ready(health: SocketAddr) -> Option<u16> {
    let stream = TcpStream::connect_timeout(&health, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    get(stream, "/readyz")?.split(' ').nth(1)?.parse().ok()
}

fn get<S: Read + Write>(mut stream: S, path: &str) -> Option<String> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

fn follow<R: Read + Send + 'static>(output: Option<R>, log: &Arc<Mutex<Vec<Line>>>, raw: &Arc<Mutex<Vec<String>>>) {
    let (log, raw) = (Arc::clone(log), Arc::clone(raw));
    let Some(output) = output else { return };
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(value) => log.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), value)),
                Err(_) => raw.lock().unwrap_or_else(PoisonError::into_inner).push(line),
            }
        }
    });
}
