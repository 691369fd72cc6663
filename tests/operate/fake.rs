//! An admin API whose answers a test chooses, and that records its requests.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use pulsegate_test_kit::wait::wait_for;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A received request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method and path, as `GET /v1/info`.
    pub line: String,
    /// The head in lower case.
    pub head: String,
    /// The body as JSON; null when it is none.
    pub body: Value,
}

/// An answer to a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A status and JSON.
    Json(u16, Value),
    /// These bytes, as they are.
    Raw(Vec<u8>),
    /// A stream of these events, which then stays open.
    Events(Vec<(&'static str, Value)>),
    /// Nothing: the connection closes.
    HangUp,
    /// Nothing: the connection stays open.
    Silence,
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

/// A listening fake.
pub struct Fake {
    /// The value of `--admin`.
    pub at: String,
    asked: Arc<watch::Sender<Vec<Request>>>,
    accepting: JoinHandle<()>,
    /// The folder of its socket, if it has one.
    _dir: Option<TempDir>,
}

impl Fake {
    /// Listens on a unix socket of its own.
    pub fn on_a_socket(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let dir = TempDir::new().expect("make a temporary directory");
        let path: PathBuf = dir.path().join("admin.sock");
        let listener = UnixListener::bind(&path).expect("bind the socket");
        let (asked, handler) = (Arc::<watch::Sender<Vec<Request>>>::default(), Arc::new(answer));
        let seen = Arc::clone(&asked);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&seen), Arc::clone(&handler) as Arc<Handler>));
            }
        });
        Self { at: path.display().to_string(), asked, accepting, _dir: Some(dir) }
    }

    /// Listens on a port of loopback.
    pub async fn on_a_port(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a port");
        let at = listener.local_addr().expect("bound").to_string();
        let (asked, handler) = (Arc::<watch::Sender<Vec<Request>>>::default(), Arc::new(answer));
        let seen = Arc::clone(&asked);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&seen), Arc::clone(&handler) as Arc<Handler>));
            }
        });
        Self { at, asked, accepting, _dir: None }
    }

    /// Returns the requests so far.
    pub fn asked(&self) -> Vec<Request> {
        self.asked.borrow().clone()
    }

    /// Waits for a request whose first line has `words` in it.
    pub async fn is_asked(&self, words: &str) {
        let mut asked = self.asked.subscribe();
        let asked = asked.wait_for(|requests| requests.iter().any(|request| request.line.contains(words)));
        wait_for(&format!("{words:?} in a request"), asked).await.expect("it is there as long as this");
    }

    /// Returns their first lines.
    pub fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|request| request.line).collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Serves one request with one answer.
async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    asked: Arc<watch::Sender<Vec<Request>>>,
    answer: Arc<Handler>,
) {
    let Some(request) = read(&mut stream).await else { return };
    asked.send_modify(|requests| requests.push(request.clone()));
    let reply = match answer(&request) {
        Answer::Json(status, body) => {
            let body = body.to_string();
            let kind = "Content-Type: application/json";
            format!("HTTP/1.1 {status} Status\r\n{kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
        }
        Answer::Raw(bytes) => bytes,
        Answer::Events(events) => {
            let mut chunk = "retry: 1000\n\n".to_owned();
            for (name, data) in events {
                write!(chunk, "event: {name}\r\ndata: {data}\r\n\r\n").expect("a string takes everything");
            }
            let kind = "Content-Type: text/event-stream";
            let chunk = format!("{:x}\r\n{chunk}\r\n", chunk.len());
            format!("HTTP/1.1 200 OK\r\n{kind}\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}").into_bytes()
        }
        Answer::HangUp => return,
        Answer::Silence => Vec::new(),
    };
    // The client may have closed.
    let _ = stream.write_all(&reply).await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let line = head.lines().next()?.trim_end_matches(" HTTP/1.1").to_owned();
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok()).unwrap_or(0);
    while bytes.len() < end + 4 + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = serde_json::from_slice(&bytes[end + 4..]).unwrap_or_default();
    Some(Request { line, head, body })
}

/// Returns an error in the format of the API.
pub fn error(status: u16, code: &str, message: &str) -> Answer {
    Answer::Json(status, json!({ "error": { "code": code, "message": message } }))
}

/// Returns a session with this number for an id.
pub fn conn(number: u64) -> Value {
    json!({
        "id": format!("{number:016x}"), "state": "open", "route": "/socket.io/", "path": "/socket.io/?",
        "client": format!("198.51.100.7:{}", 50_000 + number), "user_agent": "test", "sni": "app.example",
        "tls": { "version": "1.3", "group": "X25519MLKEM768" }, "protocol": "h2", "subprotocol": null, "trace_id": null,
        "opened_at": 1_000.0, "duration_s": 192.5, "last_seen_at": 1_189.0, "idle_s": 3.5,
        "heartbeat": {
            "mode": "protocol", "profile": null, "interval_s": 25.0, "timeout_s": 20.0, "misses": 1, "max": 2,
            "missed": 1, "rtt_s": 0.0412, "rtt_min_s": 0.0400, "next_deadline_at": 1_200.0
        },
        "in": { "msgs": 1_234, "bytes": 3_500, "buffered": 24 }, "out": { "msgs": 7, "bytes": 900, "buffered": 1_000 },
        "config_generation": 1, "close": null
    })
}

/// Returns the same session, closed.
pub fn closed(number: u64, sentence: &str) -> Value {
    let mut conn = conn(number);
    conn["state"] = "closed".into();
    conn["closed_at"] = 1_795_881_626.5.into();
    conn["close"] = json!({
        "initiator": "proxy", "reason": "heartbeat_timeout", "detail": null, "code": 1012, "upstream_code": 4408,
        "text": "", "sentence": sentence
    });
    conn
}

/// Returns a page of sessions.
pub fn page(conns: &[Value], total: usize, next: Option<&str>) -> Answer {
    let page = json!({ "now": 1_192.5, "generation": 4, "total": total, "connections": conns, "next_cursor": next });
    Answer::Json(200, page)
}

/// Returns the statistics of a second.
pub fn stats(at: f64, bytes: u64) -> Value {
    json!({
        "at": at, "open": 2, "opened_total": 12, "closed_total": 10, "in": { "msgs": bytes / 10, "bytes": bytes },
        "out": { "msgs": 0, "bytes": 0 }, "buffered": 0,
        "rtt": { "p50_s": 0.041, "p90_s": 0.05, "p99_s": 0.2, "max_s": 1.5, "count": 2 }, "missing": 1,
        "draining": false, "phase": "serving", "generation": 4
    })
}

/// Returns the description of the proxy.
pub fn info() -> Answer {
    let info = json!({
        "version": "9.8.7", "dev": false, "pid": 4242, "started_at": 1_000.0, "now": 1_192.0,
        "listen": "0.0.0.0:8443", "upstreams": ["http://127.0.0.1:3000"], "admin_token": false
    });
    Answer::Json(200, info)
}
