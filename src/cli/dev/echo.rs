//! The built-in app of `pulsegate dev`: one page and a WebSocket echo, on loopback without TLS.
//!
//! It represents an app without any heartbeat code, so there is none here. The proxy in front is its only client; it
//! implements the part of HTTP that the proxy needs.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::live::PageSessions;
use crate::session::ConnId;
use crate::telemetry::Chain;

/// The path of the WebSocket.
pub(super) const PATH: &str = "/echo";

/// The path of the heartbeat as events.
const HEARTBEAT: &str = "/heartbeat";
/// The path of the certificate that a phone has to trust.
pub(super) const CERTIFICATE: &str = "/ca.crt";

const PAGE: &str = include_str!("page.html");
const HEAD_MAX: usize = 16 * 1024;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a failed accept, usually for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The port of the app, open before the app runs: connections wait in the kernel's queue.
#[derive(Debug)]
pub(super) struct Port {
    listener: std::net::TcpListener,
    address: SocketAddr,
}

impl Port {
    /// Opens a port that the system chooses.
    pub(super) fn open() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Returns the address of the port.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The content of the app's page.
#[derive(Debug)]
pub(super) struct PageContent<'a> {
    /// The silence before a ping, in the proxy's heartbeat.
    pub(super) interval: Duration,
    /// The time for its answer.
    pub(super) timeout: Duration,
    /// The address of the inspect page.
    pub(super) inspect: SocketAddr,
    /// The authority's certificate in PEM.
    pub(super) authority: &'a str,
}

/// What every connection is served with.
#[derive(Debug)]
struct Content {
    page: String,
    authority: String,
    sessions: PageSessions,
}

/// The running app; dropping it ends the app.
#[derive(Debug)]
pub(super) struct Echo {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Starts the app on `port`, on a thread of its own.
    pub(super) fn start(port: Port, content: &PageContent<'_>, sessions: PageSessions) -> io::Result<Self> {
        let Port { listener, address } = port;
        let PageContent { interval, timeout, inspect, authority } = content;
        let page = PAGE
            .replace("{interval}", &humantime::format_duration(*interval).to_string())
            .replace("{timeout}", &humantime::format_duration(*timeout).to_string())
            .replace("{inspect}", &format!("http://{inspect}/"));
        let content = Arc::new(Content { page, authority: (*authority).to_owned(), sessions });
        let stop = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stopped = stop.clone();
        let app = async move {
            let accepting = async {
                match TcpListener::from_std(listener) {
                    Ok(listener) => accept(&listener, &content).await,
                    Err(error) => tracing::error!(error = %Chain(&error), "the echo app cannot listen"),
                }
            };
            // Leaving drops the runtime, and with it every connection.
            stopped.run_until_cancelled(accepting).await;
        };
        let thread = thread::Builder::new().name("echo app".into()).spawn(move || runtime.block_on(app))?;
        tracing::debug!(target: "pulsegate::dev::app", %address, "listening");
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic on that thread was printed when it happened.
            let _ = thread.join();
        }
    }
}

/// Accepts connections endlessly.
async fn accept(listener: &TcpListener, content: &Arc<Content>) {
    let connections = TaskTracker::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let content = Arc::clone(content);
                connections.spawn(async move {
                    if let Err(error) = serve(stream, &content).await {
                        tracing::debug!(target: "pulsegate::dev::app", error = %Chain(&error), "connection broke");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(target: "pulsegate::dev::app", error = %Chain(&error), "cannot accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one request or one WebSocket; a connection serves no second one.
async fn serve(mut stream: TcpStream, content: &Content) -> Result<(), WsError> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let head = timeout(HEAD_TIMEOUT, read_head(&mut stream)).await.map_err(late)??;
    let request = Request::parse(&head);
    match &request {
        Some(Request { path: PATH, upgrade: true, page, session, .. }) => {
            let id = session.and_then(|id| id.parse().ok());
            let _named = page.zip(id).and_then(|(page, id): (_, ConnId)| content.sessions.name(page, id));
            return echo(stream, head.clone()).await;
        }
        Some(Request { path: HEARTBEAT, method: "GET", page, .. }) => {
            if let Some(id) = page.and_then(|page| content.sessions.find(page)) {
                return Ok(content.sessions.stream(stream, id).await?);
            }
        }
        _ => {}
    }
    stream.write_all(respond(request.as_ref(), content).as_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}

/// Echoes every message. The library answers pings, as every WebSocket library does.
async fn echo(stream: TcpStream, head: Vec<u8>) -> Result<(), WsError> {
    stream.set_nodelay(true)?;
    let (read, write) = stream.into_split();
    // The library parses the request itself, which has already been read.
    let replayed = tokio::io::join(io::Cursor::new(head).chain(read), write);
    let mut socket = accept_async(replayed).await?;
    while let Some(message) = socket.next().await.transpose()? {
        match message {
            Message::Text(_) | Message::Binary(_) => socket.send(message).await?,
            Message::Close(Some(frame)) => {
                let (code, reason) = (u16::from(frame.code), frame.reason.as_str());
                tracing::info!(target: "pulsegate::dev::app", code, reason, "app.close");
            }
            Message::Close(None) => tracing::info!(target: "pulsegate::dev::app", "app.close"),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
    Ok(())
}

/// Reads up to the empty line, with any bytes that arrived after it.
async fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(1024);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() >= HEAD_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the head of the request is too large"));
        }
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

/// The parts of a request that this app uses.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    /// The name that the page gave its WebSocket.
    page: Option<&'a str>,
    upgrade: bool,
    /// The id of the proxy's session.
    session: Option<&'a str>,
}

impl<'a> Request<'a> {
    fn parse(head: &'a [u8]) -> Option<Self> {
        let head = head.windows(4).position(|end| end == b"\r\n\r\n").map(|end| &head[..end])?;
        let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Self { method, path, page: query.strip_prefix("page="), ..Self::default() };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("upgrade") {
                request.upgrade |= value.trim().eq_ignore_ascii_case("websocket");
            } else if name.eq_ignore_ascii_case("x-pulsegate-connection-id") {
                request.session = Some(value.trim());
            }
        }
        Some(request)
    }
}

fn respond(request: Option<&Request<'_>>, content: &Content) -> String {
    const TEXT: &str = "text/plain; charset=utf-8";
    let readable = request.is_some_and(|request| ["GET", "HEAD"].contains(&request.method));
    let (status, kind, body) = match request.map(|request| request.path) {
        None => ("400 Bad Request", TEXT, "The echo app cannot parse this request.\n"),
        Some(PATH) => ("426 Upgrade Required\r\nUpgrade: websocket", TEXT, "This path is for WebSockets.\n"),
        Some("/" | CERTIFICATE) if !readable => {
            ("405 Method Not Allowed\r\nAllow: GET, HEAD", TEXT, "This page can only be read.\n")
        }
        Some("/") => ("200 OK", "text/html; charset=utf-8", content.page.as_str()),
        Some(CERTIFICATE) => ("200 OK", "application/x-x509-ca-cert", content.authority.as_str()),
        Some(HEARTBEAT) => ("404 Not Found", TEXT, "No WebSocket of the page has this name.\n"),
        Some(_) => ("404 Not Found", TEXT, "The echo app has / and /echo only.\n"),
    };
    let length = body.len();
    let body = if request.is_some_and(|request| request.method == "HEAD") { "" } else { body };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nCache-Control: no-store\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(head: &str) -> String {
        let sessions = PageSessions::new(Arc::new(crate::registry::Registry::new(1)));
        let content = Content { page: "the page".to_owned(), authority: "the certificate".to_owned(), sessions };
        respond(Request::parse(head.as_bytes()).as_ref(), &content)
    }

    #[test]
    fn the_page_is_at_the_root_and_nothing_else_pretends_to_be_there() {
        let page = answer("GET /?q=1 HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.ends_with("\r\n\r\nthe page"), "{page}");
        let head = answer("HEAD / HTTP/1.1\r\n\r\n");
        assert!(head.contains("Content-Length: 8\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        for (request, status) in [
            ("POST / HTTP/1.1\r\n\r\n", "405 "),
            ("GET /other HTTP/1.1\r\n\r\n", "404 "),
            ("GET /heartbeat?page=none HTTP/1.1\r\n\r\n", "404 "),
            ("DELETE /ca.crt HTTP/1.1\r\n\r\n", "405 "),
            ("GET /echo HTTP/1.1\r\n\r\n", "426 "),
            ("nonsense\r\n\r\n", "400 "),
        ] {
            let found = answer(request);
            assert!(found.starts_with(&format!("HTTP/1.1 {status}")), "{request:?} gave {found}");
        }
    }

    #[test]
    fn an_upgrade_is_known_by_its_header_in_any_case() {
        let head = b"GET /echo?page=a HTTP/1.1\r\nUPGRADE: WebSocket\r\nX-Pulsegate-Connection-Id: 1f\r\n\r\n";
        let expected = Request { method: "GET", path: PATH, page: Some("a"), upgrade: true, session: Some("1f") };
        assert_eq!(Request::parse(head), Some(expected));
        let behind = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(Request::parse(behind), Some(Request { method: "GET", path: PATH, ..Request::default() }));
    }
}
