//! One client connection, HTTP/1.1 or HTTP/2: reading requests, routing them, and handing each on, to `forward` when
//! it is plain, to `switch` when it asks for a WebSocket.

mod access;
mod admit;
mod client_certificate;
mod forward;
mod forwarded;
mod h1;
mod h2;
mod headers;
mod interim;
mod linger;
mod pace;
mod peer;
mod reply;
mod request_head;
mod route;
mod rules;
mod switch;
mod target;
mod timer;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use hyper::header::{ACCEPT, CONNECTION, HOST, HeaderValue, STRICT_TRANSPORT_SECURITY};
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::EdgeLimits;
use crate::generation::Current;
use crate::registry::Registry;
use crate::relay::Leg;
use crate::suspension::Expiry;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otel::Spans;
use crate::telemetry::{Chain, lines};
use crate::upgrade::{self, Prepared, Refusal, Sessions};
use crate::upstream::{self, Upload, Upstream};
use access::Access;
pub use client_certificate::ClientCertificate;
#[doc(hidden)]
pub use h2::FrameGuard;
pub use peer::{Peer, Protocol, TlsFacts};
use reply::Reply;
use rules::Rules;
pub(crate) use timer::PauseTimer;

/// Read and write buffer of one client connection at most; bodies stream through it in chunks.
const BUFFER: usize = 64 * 1024;

/// The largest Content-Length of a request; a signed number holds it too.
const LENGTH_MOST: u64 = i64::MAX as u64;

/// How long a draining proxy keeps a connection that has nothing to do, or that is still shaking hands, if the window is
/// that long. What its client has sent before it could know is answered rather than reset, and the answer tells it.
pub(crate) const KEPT: Duration = Duration::from_secs(3);

/// The connection preface of HTTP/2 (RFC 9113 §3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The answer to it where HTTP/1.1 is spoken.
const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// The answer to a head that does not end; hyper gives none.
const HEAD_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    content-type: text/plain; charset=utf-8\r\n\
    content-length: 39\r\n\
    connection: close\r\n\
    \r\n\
    The head of the request took too long.\n";

/// What all client connections of one worker share.
#[derive(Debug)]
pub struct Edge {
    current: Arc<Current>,
    /// Of the generation that was in force at the last look.
    rules: ArcSwap<Rules>,
    sessions: Sessions,
    metrics: Arc<Metrics>,
    spans: Spans,
    tracker: TaskTracker,
    draining: CancellationToken,
}

impl Edge {
    /// The edge of one worker, under the settings in force. Its tasks run in `tracker`, from now on; once `draining` is
    /// cancelled, connections end after the request in hand, or the next one if that comes soon, upgrades are refused
    /// and idle upstream connections are closed.
    pub fn new(
        current: &Arc<Current>,
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
        spans: Spans,
        tracker: TaskTracker,
        draining: CancellationToken,
    ) -> Arc<Self> {
        let rules = Rules::new(&current.load(), None, &metrics, &tracker, &draining);
        let edge = Arc::new(Self {
            current: Arc::clone(current),
            rules: ArcSwap::from_pointee(rules),
            sessions: Sessions::new(registry, Arc::clone(&metrics), tracker.clone()),
            metrics,
            spans,
            tracker,
            draining,
        });
        edge.tracker.spawn(Arc::clone(&edge).keep_up());
        edge
    }

    /// The rules in force.
    fn rules(&self) -> Arc<Rules> {
        let (rules, generation) = (self.rules.load(), self.current.load());
        if rules.generation == generation.number {
            return Guard::into_inner(rules);
        }
        let renewed = Arc::new(Rules::new(&generation, Some(&rules), &self.metrics, &self.tracker, &self.draining));
        self.rules.store(Arc::clone(&renewed));
        rules.retire(&renewed);
        renewed
    }

    /// Lets go of the rules of earlier generations, and of the pools of apps that are gone, even if nobody asks.
    async fn keep_up(self: Arc<Self>) {
        let mut changes = self.current.changes();
        loop {
            tokio::select! {
                () = self.draining.cancelled() => return,
                Ok(()) = changes.changed() => drop(self.rules()),
            }
        }
    }

    /// Completes when a connection of HTTP/1.1 is to end as soon as it has nothing to do.
    async fn parting(&self) {
        self.draining.cancelled().await;
        let window = self.current.load().settings.drain.window;
        Expiry::after(window.min(KEPT)).await;
    }
}

/// Serves one client connection until it closes, or, in HTTP/1.1, until it has become a WebSocket. Every WebSocket
/// lives in a task of its own.
pub async fn serve<C: Leg + Send + 'static>(stream: C, peer: Peer, edge: Arc<Edge>) {
    match peer.protocol() {
        Protocol::H1 => h1::serve(stream, peer, edge).await,
        Protocol::H2 => h2::serve(stream, peer, edge).await,
    }
}

/// One client connection, as a request sees it; in HTTP/2 each stream has its own.
#[derive(Debug)]
struct Connection {
    peer: Peer,
    edge: Arc<Edge>,
    rules: Arc<Rules>,
    fate: Arc<Mutex<Fate>>,
}

/// What becomes of a connection when HTTP is done with it.
#[derive(Debug)]
enum Fate {
    /// It closes.
    Http,
    /// A request offered an upgrade, so that hyper parts with the connection rather than close it.
    Asked(OnUpgrade),
    /// A 101 is on its way, the session begins behind it.
    Switched(OnUpgrade, Box<Prepared>),
    /// A 200 is to go out on this stream of HTTP/2, the session begins behind it.
    Bridged(Box<Prepared>),
}

impl Connection {
    /// As its first request will see it.
    fn new(peer: Peer, edge: Arc<Edge>) -> Arc<Self> {
        let rules = edge.rules();
        Arc::new(Self { peer, edge, rules, fate: Arc::new(Mutex::new(Fate::Http)) })
    }

    /// As the request sees it that follows those which saw `latest`: under the rules in force now.
    fn at_next_request(latest: &Mutex<Arc<Self>>) -> Arc<Self> {
        let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
        let rules = latest.edge.rules();
        if !Arc::ptr_eq(&rules, &latest.rules) {
            let Self { peer, edge, fate, .. } = &**latest;
            let (peer, edge, fate) = (peer.clone(), Arc::clone(edge), Arc::clone(fate));
            *latest = Arc::new(Self { peer, edge, rules, fate });
        }
        Arc::clone(&latest)
    }

    fn swap_fate(&self, fate: Fate) -> Fate {
        std::mem::replace(&mut *self.fate.lock().unwrap_or_else(PoisonError::into_inner), fate)
    }

    /// Remembers that hyper will part with the connection rather than close it.
    fn keep(&self, client: Option<OnUpgrade>) {
        if let Some(client) = client {
            self.swap_fate(Fate::Asked(client));
        }
    }

    /// Ends a connection whose HTTP went wrong, of which hyper has left `unread`.
    async fn failed<C: Leg>(&self, error: &hyper::Error, unread: &[u8], stream: &mut C) {
        match refused(error, unread, self.peer.address, &self.edge.metrics) {
            Some(words) => linger::close_with(stream, words).await,
            None => {
                let (address, port) = lines::client(self.peer.address);
                tracing::debug!(client.address = address, client.port = port, error = %Chain(&error), "http.connection");
            }
        }
    }
}

/// Counts and logs what hyper has refused of `client`, and returns what is still to be written: hyper answers by itself,
/// but for the preface of HTTP/2, which it leaves `unread`. `None`: all else is the network's.
pub(crate) fn refused(
    error: &hyper::Error,
    unread: &[u8],
    client: SocketAddr,
    metrics: &Metrics,
) -> Option<&'static [u8]> {
    let (reason, status) = match error {
        error if error.is_parse_too_large() => ("too_large", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        error if error.is_parse() => ("malformed", StatusCode::BAD_REQUEST),
        _ => return None,
    };
    metrics.answered("", status.as_u16());
    lines::http_reject(client, reason, status.as_u16());
    Some(if unread.starts_with(H2_PREFACE) { BAD_REQUEST } else { &[] })
}

/// Counts and logs the head of `client` that did not arrive in time, and returns the answer to it.
pub(crate) fn head_timeout(client: SocketAddr, metrics: &Metrics) -> &'static [u8] {
    let status = StatusCode::REQUEST_TIMEOUT.as_u16();
    metrics.answered("", status);
    lines::http_reject(client, "header_timeout", status);
    HEAD_TIMEOUT
}

/// HTTP/1.1 within these limits, without a limit of time.
pub(crate) fn server(limits: &EdgeLimits) -> http1::Builder {
    let mut server = http1::Builder::new();
    server
        .header_read_timeout(None)
        .max_headers(limits.headers)
        .max_header_size(limits.header_bytes)
        .max_buf_size(BUFFER.max(limits.header_bytes))
        // Clients of old look for `Sec-WebSocket-Accept` as it is written here.
        .preserve_header_case(true)
        .keep_alive(true);
    server
}

/// Answers one request. `client` is the connection behind it, where HTTP/1.1 would part with it for an upgrade.
async fn answer(connection: &Arc<Connection>, request: Request<Upload>, client: Option<OnUpgrade>) -> Response<Reply> {
    let response = respond(connection, request, client).await;
    transport_security(connection, response)
}

/// Adds what is to be on every response of a TLS connection.
fn transport_security(connection: &Connection, mut response: Response<Reply>) -> Response<Reply> {
    if let Some(hsts) = connection.rules.hsts.as_ref().filter(|_| connection.peer.tls.is_some()) {
        // What the app says for itself stands: a browser heeds the first one only (RFC 6797 §8.1).
        response.headers_mut().entry(STRICT_TRANSPORT_SECURITY).or_insert_with(|| hsts.clone());
    }
    if connection.edge.draining.is_cancelled() && connection.peer.protocol() == Protocol::H1 {
        // Whoever switches protocols has said so there.
        response.headers_mut().entry(CONNECTION).or_insert(HeaderValue::from_static("close"));
    }
    response
}

async fn respond(connection: &Arc<Connection>, request: Request<Upload>, client: Option<OnUpgrade>) -> Response<Reply> {
    if connection.peer.forbidden {
        connection.keep(client);
        return forbid(connection, &request);
    }
    let named = Named::by(&request);
    let routes = &connection.rules.routes;
    let found = routes.find(named.host(), &target::path(&request));
    let is_clear = found.is_some();
    let route = found.unwrap_or_else(|| routes.default());
    let host = named.or_of(connection.rules.upstream(route));
    if upgrade::wanted(&request) {
        if !is_clear {
            connection.keep(client);
            let asking = switch::Asking::begin(connection, Arc::clone(route), &request);
            return switch::refuse(connection, &Refusal::Path, asking, request.headers().get(ACCEPT));
        }
        // Boxed: every plain request's future would be as large as that of an upgrade.
        return Box::pin(switch::switch(connection, Arc::clone(route), host, request, client)).await;
    }
    // An upgrade to anything else (h2c, say) is not taken. RFC 9110 §7.8 leaves that to the server, and whoever
    // offers one must be ready to go on without: the request is as good as any other.
    connection.keep(client);
    let access = Access::begin(connection, route, &request);
    let refuse = |status, reason, access| reply::explain(status, reason, request.headers().get(ACCEPT), Some(access));
    match host {
        // RFC 8441 §4 has no word for it, RFC 9220 §3 does.
        _ if request.extensions().get::<::h2::ext::Protocol>().is_some() => {
            refuse(StatusCode::NOT_IMPLEMENTED, "protocol", access)
        }
        // This is no forward proxy.
        _ if request.method() == Method::CONNECT => refuse(StatusCode::METHOD_NOT_ALLOWED, "connect", access),
        None => refuse(StatusCode::BAD_REQUEST, "host", access),
        _ if !target::is_fitting(&request) => refuse(StatusCode::BAD_REQUEST, "target", access),
        _ if !is_clear => refuse(StatusCode::BAD_REQUEST, "path", access),
        // RFC 9112 §6.1: hyper has taken off the chunks, and there is nobody to take off the rest.
        _ if !headers::at_most_chunked(request.headers()) => {
            refuse(StatusCode::NOT_IMPLEMENTED, "transfer_encoding", access)
        }
        Some(host) => forward::forward(connection, access, route, host, request).await,
    }
}

/// Refuses a request of a client that is no trusted proxy, on a port where only these are served. The connection ends.
fn forbid(connection: &Arc<Connection>, request: &Request<Upload>) -> Response<Reply> {
    let access = Access::begin(connection, connection.rules.routes.default(), request);
    let accept = request.headers().get(ACCEPT);
    let mut response = reply::explain(StatusCode::FORBIDDEN, "untrusted_peer", accept, Some(access));
    if connection.peer.protocol() == Protocol::H1 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The authority that a request names: that of an absolute target, else its one Host (RFC 9112 §3.2), which must be
/// there either way.
#[derive(Debug)]
enum Named {
    /// This one.
    As(HeaderValue),
    /// None, as HTTP/1.0 may.
    Nothing,
    /// None although there must be one, or several.
    Wrongly,
}

impl Named {
    fn by<B>(request: &Request<B>) -> Self {
        let mut hosts = request.headers().get_all(HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) if is_authority(host.as_bytes()) => Some(host),
            (None, _) if request.version() != Version::HTTP_11 => None,
            _ => return Self::Wrongly,
        };
        match (request.uri().authority(), host) {
            // Whatever Host says beside it (RFC 9112 §3.2.2).
            (Some(target), _) if is_authority(target.as_str().as_bytes()) => {
                HeaderValue::from_str(target.as_str()).map_or(Self::Wrongly, Self::As)
            }
            (Some(_), _) => Self::Wrongly,
            (None, Some(host)) => Self::As(host.clone()),
            (None, None) if request.version() == Version::HTTP_10 => Self::Nothing,
            (None, None) => Self::Wrongly,
        }
    }

    /// What a route may be for.
    fn host(&self) -> Option<&str> {
        match self {
            Self::As(host) => host.to_str().ok(),
            Self::Nothing | Self::Wrongly => None,
        }
    }

    /// What the app is told: its own authority where the client may do without. `None` is a bad request.
    fn or_of(self, upstream: &Upstream) -> Option<HeaderValue> {
        match self {
            Self::As(host) => Some(host),
            Self::Nothing => HeaderValue::try_from(upstream::authority(upstream.target())).ok(),
            Self::Wrongly => None,
        }
    }
}

/// Whether `text` is a host, a port behind it or not, and nothing else: a user before it would only hide which host it
/// is (RFC 9110 §4.2.4).
fn is_authority(text: &[u8]) -> bool {
    if Plain::read(text).is_some() {
        return true;
    }
    // A port may be left out behind its colon (RFC 3986 §3.2.3).
    let is_port = |port: &str| match port.strip_prefix(':') {
        Some(digits) => {
            digits.is_empty() || digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()
        }
        None => port.is_empty(),
    };
    Authority::try_from(text).is_ok_and(|authority| {
        let (host, text) = (authority.host(), authority.as_str());
        !host.is_empty() && text.strip_prefix(host).is_some_and(is_port)
    })
}

/// An authority that is a name or an IPv4 address, with a port or not, as nearly every one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plain {
    port: Option<u16>,
}

impl Plain {
    /// `None` for all other authorities, good or not: these take a parser.
    fn read(authority: &[u8]) -> Option<Self> {
        let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        let len = authority.iter().position(|byte| !is_of_name(byte)).unwrap_or(authority.len());
        match &authority[len..] {
            _ if len == 0 => None,
            [] => Some(Self { port: None }),
            [b':', digits @ ..] if matches!(digits.len(), 1..=5) => {
                let number = digits.iter().try_fold(0_u32, |number, digit| {
                    digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0'))
                });
                Some(Self { port: Some(u16::try_from(number?).ok()?) })
            }
            _ => None,
        }
    }
}
