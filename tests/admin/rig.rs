//! A proxy with an admin socket, and the requests to it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use pulsegate_test_kit::client::Tls;
use pulsegate_test_kit::fake_app::{AppSession, FakeApp};
use pulsegate_test_kit::http1::{Response, header_lines, read_head};
use pulsegate_test_kit::process::OutputLine;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::PULSEGATE;

/// The proxy, its app, and the folder of its unix socket.
pub(crate) struct Rig {
    pub(crate) proxy: Proxy,
    pub(crate) app: FakeApp,
    pub(crate) dir: TempDir,
    sessions: mpsc::UnboundedReceiver<AppSession>,
}

/// An answer of the admin listener.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    /// The body; null where it is no JSON.
    pub(crate) json: Value,
}

impl Rig {
    /// Starts a rig with the default settings.
    pub(crate) async fn start() -> Self {
        Self::with(|config| config).await
    }

    /// Starts a rig with more in the configuration.
    pub(crate) async fn with(more: impl FnOnce(Config) -> Config) -> Self {
        let dir = TempDir::new().expect("make a temporary directory");
        let (app, sessions) = FakeApp::sessions().await;
        let socket = dir.path().join("admin.sock");
        let config = Config::to(PULSEGATE, &app.url).admin("health = \"127.0.0.1:0\"");
        let config = config.admin(&format!("socket = {:?}", socket.display().to_string()));
        let proxy = Proxy::start(more(config)).await;
        Self { proxy, app, dir, sessions }
    }

    /// Makes a rig of a proxy that was started otherwise, with its socket in `dir`.
    pub(crate) fn around(
        proxy: Proxy,
        app: FakeApp,
        dir: TempDir,
        sessions: mpsc::UnboundedReceiver<AppSession>,
    ) -> Self {
        Self { proxy, app, dir, sessions }
    }

    /// Returns the value of `field` in the line `listening`.
    pub(crate) fn listening(&self, field: &str) -> String {
        let line = self.proxy.logged("listening").swap_remove(0);
        line[field].as_str().unwrap_or_else(|| panic!("no {field} in {line}")).to_owned()
    }

    /// Returns the path of the unix socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    /// Opens a connection to the admin socket; sends nothing.
    pub(crate) async fn connect(&self) -> UnixStream {
        let connect = async {
            loop {
                match UnixStream::connect(self.socket()).await {
                    // The kernel's queue is full at the moment.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(Duration::from_millis(5)).await,
                    connected => return connected.expect("it listens"),
                }
            }
        };
        wait_for("connect to the admin socket", connect).await
    }

    /// Opens a connection to the health port; sends nothing.
    pub(crate) async fn health(&self) -> TcpStream {
        let address = self.listening("health");
        wait_for("connect to the health port", TcpStream::connect(address)).await.expect("it listens")
    }

    /// Opens a WebSocket on `path`; returns both of its ends, as bytes, once it is in the list.
    pub(crate) async fn session(&mut self, path: &str) -> (Tls, TcpStream) {
        let client = self.proxy.upgraded(path).await;
        let (_, app) = wait_for("the session reaches the app", self.sessions.recv()).await.expect("the fake runs");
        let port = client.get_ref().0.local_addr().expect("it is connected").port();
        let opens = |line: &OutputLine| line.json["message"] == "ws.open" && line.json["client.port"] == port;
        self.proxy.line("its ws.open", opens).await;
        (client, app)
    }

    /// Sends `GET path`, which must succeed.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let reply = self.ask("GET", path, &[], "").await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply.json
    }

    /// Sends `POST path` with a JSON body, if it is not empty.
    pub(crate) async fn post(&self, path: &str, body: &str) -> Reply {
        let kind: &[&str] = if body.is_empty() { &[] } else { &["Content-Type: application/json"] };
        self.ask("POST", path, kind, body).await
    }

    /// Sends one request for localhost on a connection of its own.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Reply {
        let host = ["Host: localhost"].into_iter().chain(headers.iter().copied());
        self.send(&request(method, path, host, body)).await
    }

    /// Sends bytes on a connection of their own; returns the answer.
    pub(crate) async fn send(&self, request: &str) -> Reply {
        exchange(&mut self.connect().await, request).await
    }

    /// Returns the id of the only open session on `path`.
    pub(crate) async fn id(&self, path: &str) -> String {
        let list = self.get("/v1/connections?limit=10000").await;
        let ids: Vec<_> = connections(&list).iter().filter(|conn| conn["path"] == path).map(text_id).collect();
        assert_eq!(ids.len(), 1, "{path} in {list}");
        ids[0].clone()
    }
}

/// Returns the text of a request.
pub(crate) fn request<'a>(method: &str, path: &str, headers: impl IntoIterator<Item = &'a str>, body: &str) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    for header in headers {
        text = text + header + "\r\n";
    }
    if !body.is_empty() {
        write!(text, "Content-Length: {}\r\n", body.len()).expect("writing to a string");
    }
    text + "\r\n" + body
}

/// Sends `request` and reads the answer; one to HEAD has no body.
pub(crate) async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> Reply {
    // An answer may arrive before all of it is read.
    let _ = stream.write_all(request.as_bytes()).await;
    let _ = stream.flush().await;
    if request.starts_with("HEAD ") {
        let head = wait_for("the head of an answer", read_head(stream)).await.expect("an answer");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        return Reply { status, head, json: Value::Null };
    }
    let answer = wait_for("an answer", Response::read(stream)).await;
    let answer = answer.unwrap_or_else(|| panic!("no answer to {:?}", request.lines().next()));
    let json = serde_json::from_str(&answer.body).unwrap_or_default();
    Reply { status: answer.status, head: answer.head, json }
}

impl Reply {
    /// Returns the first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header_lines(&self.head).find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Asserts that it is a refusal: JSON, with this status and code, and a message that contains each of `words`.
    #[track_caller]
    pub(crate) fn refuses(&self, status: u16, code: &str, words: &[&str]) {
        assert_eq!((self.status, &self.json["error"]["code"]), (status, &code.into()), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        assert_eq!(keys(&self.json["error"]), ["code", "message"], "{self:?}");
        let message = self.json["error"]["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty() && message.len() < 600, "{message}");
        for word in words {
            assert!(message.contains(word), "no {word:?} in {message:?}");
        }
    }
}

/// Returns the names in an object, sorted.
#[track_caller]
pub(crate) fn keys(object: &Value) -> Vec<&str> {
    let object = object.as_object().unwrap_or_else(|| panic!("{object} is no object"));
    object.keys().map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Returns the sessions of a list.
#[track_caller]
pub(crate) fn connections(list: &Value) -> &Vec<Value> {
    list["connections"].as_array().unwrap_or_else(|| panic!("no connections in {list}"))
}

/// Returns the id of a session.
#[track_caller]
pub(crate) fn text_id(conn: &Value) -> String {
    conn["id"].as_str().unwrap_or_else(|| panic!("no id in {conn}")).to_owned()
}
