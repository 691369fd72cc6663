//! Proxies as the pods of a Deployment, and the events of their lives.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use pulsegate_test_kit::client::{Neighbour, Tls, echo, upgrade_head};
use pulsegate_test_kit::fake_app::{FakeApp, RequestHead, hold};
use pulsegate_test_kit::frame::{BINARY, FIN, Frame};
use pulsegate_test_kit::pki::Pki;
use pulsegate_test_kit::process::Process;
use pulsegate_test_kit::proxy::{Config, Proxy, QUICK};
use pulsegate_test_kit::wait::wait_for;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::PULSEGATE;
use crate::metrics::scrape::health;

/// Clients on `/echo` answer probes, and outlive a stop of the test; the others are given up soon.
const ROUTES: &str = r#"
[[route]]
path = "/echo"
heartbeat = { interval = "400ms", timeout = "20s" }
[[route]]
path = "/flood"
heartbeat = { interval = "25s", timeout = "20s", write_stall = "1500ms" }
[[route]]
path = "/closed"
origins = { allow = ["https://app.example"] }
"#;

/// A proxy with the labels that a `PodMonitor` gives to its metrics.
pub(crate) struct Pod {
    name: &'static str,
    job: &'static str,
    pub(crate) proxy: Proxy,
    /// Its configuration.
    file: PathBuf,
    socket: PathBuf,
    _folder: TempDir,
}

impl Pod {
    /// Starts one, of the job `job`, in front of the app at `url`.
    pub(crate) async fn start(
        (name, job): (&'static str, &'static str),
        url: &str,
        more: impl FnOnce(Config) -> Config,
    ) -> Self {
        let folder = TempDir::new().expect("make a temporary directory");
        let (file, socket) = (folder.path().join("proxy.toml"), folder.path().join("admin.sock"));
        let config = Config::to(PULSEGATE, url).admin("health = \"127.0.0.1:0\"");
        let config = more(config.admin(&format!("socket = {:?}", socket.display().to_string())));
        let pki = Pki::make(folder.path());
        fs::write(&file, config.toml(SocketAddr::from(([127, 0, 0, 1], 0)), &pki)).expect("write the configuration");
        let proxy = Proxy::follow(&file, config, pki, TempDir::new().expect("a folder")).await;
        Self { name, job, proxy, file, socket, _folder: folder }
    }

    /// As [`Self::start`], with short heartbeats, and short intervals between the probes of the app.
    pub(crate) async fn serving(name: (&'static str, &'static str), app: &FakeApp) -> Self {
        Self::start(name, &app.url, |config| {
            let config = config.upstream("interval = \"300ms\"\ntimeout = \"10s\"").with(QUICK).with(ROUTES);
            config.drain("delay = \"0s\"").drain("window = \"6s\"")
        })
        .await
    }

    /// Returns the item of `static_configs` for it.
    pub(crate) fn target(&self) -> String {
        let Self { name, job, proxy, .. } = self;
        let labels = format!("namespace: shop, job: {job}, pod: {name}, container: pulsegate, endpoint: pulsegate");
        format!("- targets: ['{}']\n  labels: {{ {labels} }}\n", health(proxy))
    }

    /// Breaks its configuration file.
    pub(crate) fn breaks_its_configuration(&self) {
        let text = fs::read_to_string(&self.file).expect("readable");
        fs::write(&self.file, text.replace("level =", "levle =")).expect("writable");
    }

    /// Drains it by a command, after which it stays.
    pub(crate) async fn drains(&self) {
        let mut command = Command::new(PULSEGATE);
        command.args(["drain", "--admin"]).arg(&self.socket);
        let drained = Process::run("pulsegate drain", &mut command).await;
        assert_eq!(drained.code, Some(0), "{drained:#?}");
    }
}

/// Starts an app that holds WebSockets on `/hold`, floods them on `/flood`, drops them on `/drop` after their first bytes,
/// refuses them on `/refused`, breaks off on `/broken`, and answers everything else with 200.
pub(crate) async fn app() -> FakeApp {
    FakeApp::start(|request: RequestHead, mut stream: TcpStream| async move {
        match request.path() {
            "/refused" => answer(&mut stream, "403 Forbidden").await,
            "/broken" => {}
            path @ ("/hold" | "/flood" | "/drop") => {
                let _ = stream.write_all(request.accept().as_bytes()).await;
                match path {
                    "/flood" => flood(stream).await,
                    "/drop" => drop(stream.read_u8().await),
                    _ => hold(stream).await,
                }
            }
            _ => answer(&mut stream, "200 OK").await,
        }
    })
    .await
}

async fn answer(stream: &mut TcpStream, status: &str) {
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    let _ = stream.write_all(answer.as_bytes()).await;
}

async fn flood(mut stream: TcpStream) {
    let frame = Frame::server(FIN | BINARY, vec![7; 65_536]).bytes();
    while stream.write_all(&frame).await.is_ok() {}
}

/// Starts an app whose kernel accepts, and that answers nothing, as a process that hangs; returns its URL.
pub(crate) async fn hanging_app() -> (TcpListener, String) {
    let hanging = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a port");
    let url = format!("http://{}", hanging.local_addr().expect("bound"));
    (hanging, url)
}

/// The events of one pod, which each turn repeats.
pub(crate) struct Life<'a> {
    pod: &'a Pod,
    neighbours: Vec<Neighbour>,
    /// Clients that answer nothing, and those that read nothing.
    silent: Vec<Tls>,
    /// An authority that has not signed the certificate.
    stranger: Pki,
    _folder: TempDir,
}

impl<'a> Life<'a> {
    /// Opens sessions that answer their heartbeats.
    pub(crate) async fn of(pod: &'a Pod) -> Self {
        let mut neighbours = Vec::new();
        for _ in 0..8 {
            neighbours.push(Neighbour::join(&pod.proxy, "/echo").await);
        }
        let folder = TempDir::new().expect("make a temporary directory");
        Self { pod, neighbours, silent: Vec::new(), stranger: Pki::make(folder.path()), _folder: folder }
    }

    /// Brings about each event once: answered and missed heartbeats, ends of several reasons, reconnects, a slow reader,
    /// an app that fails, refused upgrades, and handshakes that fail.
    pub(crate) async fn turn(&mut self) {
        let proxy = &self.pod.proxy;
        for neighbour in &self.neighbours {
            neighbour.echoes().await;
        }
        for _ in 0..4 {
            self.silent.push(proxy.upgraded("/hold").await);
        }
        self.silent.push(proxy.upgraded("/flood").await);
        for _ in 0..2 {
            drop(proxy.upgraded("/hold").await);
        }
        for _ in 0..5 {
            let mut dropped = proxy.upgraded("/drop").await;
            dropped.write_all(&Frame::client(FIN | BINARY, vec![7; 8]).bytes()).await.expect("it is open");
            dropped.flush().await.expect("it is open");
            self.silent.push(dropped);
        }
        let mut polite = proxy.websocket("/echo").await;
        echo(&mut polite, Message::text("good bye")).await.expect("it echoes");
        polite
            .close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
            .await
            .expect("it takes the Close");
        for path in ["/", "/", "/", "/broken", "/broken", "/broken"] {
            request(proxy, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n")).await;
        }
        request(proxy, &upgrade_head("/echo").replace("Version: 13", "Version: 8")).await;
        request(proxy, &format!("{}Origin: https://evil.example\r\n", upgrade_head("/closed"))).await;
        request(proxy, &upgrade_head("/refused")).await;
        let name = ServerName::try_from("localhost").expect("a valid name");
        let connector = TlsConnector::from(Arc::clone(&self.stranger.client()));
        wait_for("a handshake", connector.connect(name, proxy.tcp().await)).await.expect_err("not trusted");
    }
}

/// Sends one request on a connection of its own.
async fn request(proxy: &Proxy, head: &str) {
    let mut stream = proxy.tls().await;
    proxy.ask(&mut stream, format!("{head}\r\n").as_bytes()).await;
}

/// Opens as many connections as the limit allows, and more, which are refused.
pub(crate) async fn crowd(pod: &Pod) {
    let mut held = Vec::new();
    for _ in 0..8 {
        // A refused one may be reset before it is returned.
        held.extend(wait_for("an end of the connect", TcpStream::connect(pod.proxy.address)).await);
    }
}
