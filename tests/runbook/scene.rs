//! A proxy as a person on call finds it: in a folder with its configuration, from which commands are run.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use pulsegate_test_kit::client::{Tls, upgrade_head};
use pulsegate_test_kit::fake_app::{AppSession, FakeApp};
use pulsegate_test_kit::pki::Pki;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::mpsc;

use crate::PULSEGATE;
use crate::runbook::paper::{Section, section};

/// The proxy, its app, and the folder.
pub(crate) struct Scene {
    pub(crate) proxy: Proxy,
    pub(crate) app: FakeApp,
    /// Sessions as the app gets them.
    pub(crate) sessions: mpsc::UnboundedReceiver<AppSession>,
    section: Section,
    folder: TempDir,
}

impl Scene {
    /// The symptom `title`, of a proxy with `more` in its configuration.
    pub(crate) async fn of(title: &str, more: impl FnOnce(Config) -> Config) -> Self {
        let section = section(title);
        let folder = TempDir::new().expect("make a temporary directory");
        let (app, sessions) = FakeApp::sessions().await;
        let socket = folder.path().join("admin.sock");
        let config = Config::to(PULSEGATE, &app.url).admin("health = \"127.0.0.1:0\"");
        let config = more(config.admin(&format!("socket = {:?}", socket.display().to_string())));
        let pki = Pki::make(folder.path());
        let file = Self::file(folder.path());
        fs::create_dir(file.parent().expect("a folder")).expect("make the folder");
        let own = TempDir::new().expect("make a temporary directory");
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        fs::write(&file, config.toml(address, &pki)).expect("write the configuration");
        let proxy = Proxy::follow(&file, config, pki, own).await;
        Self { proxy, app, sessions, section, folder }
    }

    fn file(folder: &Path) -> std::path::PathBuf {
        folder.join("config/proxy.toml")
    }

    /// Changes the configuration file.
    pub(crate) fn edit(&self, change: impl FnOnce(String) -> String) {
        let file = Self::file(self.folder.path());
        let text = fs::read_to_string(&file).expect("read the configuration");
        fs::write(file, change(text)).expect("write the configuration");
    }

    /// Kills the proxy as the kernel does when memory is short, and starts another in its place.
    pub(crate) async fn killed_and_started(self) -> Self {
        let Self { proxy, app, sessions, section, folder } = self;
        Self { proxy: proxy.crash().await, app, sessions, section, folder }
    }

    /// Opens a WebSocket on `path` with these headers: both of its ends, as bytes.
    pub(crate) async fn session(&mut self, path: &str, headers: &str) -> (Tls, TcpStream) {
        let client = open(&self.proxy, self.proxy.tls().await, path, headers).await;
        let (_, app) = wait_for("the session reaches the app", self.sessions.recv()).await.expect("the fake runs");
        (client, app)
    }

    /// Runs the command below the symptom as it stands there; its output must be what stands below it. Returns it.
    pub(crate) async fn plays(&self) -> String {
        let output = self.run(&self.section.command).await;
        println!("$ {}\n{output}", self.section.command);
        self.section.is_shown_by(&output);
        output
    }

    /// Runs `command` in a shell, and returns what it printed, errors included.
    pub(crate) async fn run(&self, command: &str) -> String {
        let binary = Path::new(PULSEGATE);
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", binary.parent().expect("a folder").display());
        let health = self.proxy.logged("listening").swap_remove(0)["health"].as_str().expect("an address").to_owned();
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{{ {command}; }} 2>&1"));
        shell.env_clear().env("PATH", path).env("METRICS", format!("http://{health}/metrics"));
        shell.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let output = wait_for(command, shell.output()).await.expect("a shell");
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

/// Upgrades `stream`, a TLS connection that leads to `proxy`.
pub(crate) async fn open(proxy: &Proxy, mut stream: Tls, path: &str, headers: &str) -> Tls {
    let answer = proxy.ask(&mut stream, format!("{}{headers}\r\n", upgrade_head(path)).as_bytes()).await;
    assert_eq!(answer.status, 101, "{answer:?}");
    stream
}
