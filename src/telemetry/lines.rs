//! The lines that tell of requests and sessions: `http.access`, `ws.open`, `ws.close`, `ws.reject`.
//!
//! Each is one event at INFO whose message is its name and whose fields are values. Field names follow OpenTelemetry
//! where it has one. A path is logged without its query: tokens live there.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::config::Route;
use crate::heartbeat::Picked;
use crate::registry::ConnId;
use crate::relay::Ending;

/// Whose lines these are: the program's, not a module's. (Behind it the macros want a field without dots first.)
const TARGET: &str = "pulsegate";

/// Bytes of a client's own words (path, user agent) that a line carries at most. A session keeps them to its end, so
/// they are bounded for memory's sake too.
const WORDS_MAX: usize = 256;

/// What both lines of a session say about it.
#[derive(Debug)]
pub struct Session {
    /// Its name.
    pub id: ConnId,
    /// The generation of the settings that it was opened under.
    pub config_generation: u64,
    /// Who asked, and for what.
    pub asked: Asked,
    /// The TLS version of the client leg.
    pub tls_version: Option<&'static str>,
    /// The key exchange group of the client leg.
    pub tls_group: Option<&'static str>,
    /// The subprotocol that both ends agreed on.
    pub subprotocol: Option<Box<str>>,
    /// The heartbeat that it was given.
    pub heartbeat: Picked,
    /// Whether the client offered extensions and the heartbeat could not do with any.
    pub extensions_refused: bool,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// From the other end of the connection.
    Peer(SocketAddr),
    /// From whom a trusted proxy at the other end names.
    Forwarded(IpAddr),
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(address) => address.fmt(f),
            Self::Forwarded(address) => address.fmt(f),
        }
    }
}

impl Client {
    /// The client's address.
    pub fn address(self) -> IpAddr {
        match self {
            Self::Peer(address) => address.ip().to_canonical(),
            Self::Forwarded(address) => address,
        }
    }
}

/// What every line says about the request it began with.
#[derive(Debug)]
pub struct Asked {
    /// Who the client is.
    pub client: Client,
    /// The name that its TLS handshake asked for.
    pub server_name: Option<Arc<str>>,
    /// What is spoken with the client: `h1` or `h2`.
    pub protocol: &'static str,
    /// The route that was taken.
    pub route: Arc<Route>,
    /// The path without its query, cut to [`words`].
    pub path: Box<str>,
    /// The `User-Agent`, cut to [`words`].
    pub user_agent: Option<Box<str>>,
    /// The trace that the request belongs to (W3C Trace Context §3.2.2.3).
    pub trace_id: Option<Box<str>>,
}

/// A plain request and its answer.
#[derive(Debug)]
pub struct Access<'a> {
    /// The request.
    pub asked: &'a Asked,
    /// Its method.
    pub method: &'a str,
    /// The status it was answered with; 499 when the client left before there was one.
    pub status: u16,
    /// Why, when the answer was the proxy's own.
    pub reason: Option<&'static str>,
    /// Bytes of the response's body that were passed on.
    pub bytes_out: u64,
    /// Whether the response's body went out in whole.
    pub complete: bool,
    /// From the head of the request to the end of the response.
    pub duration: Duration,
}

/// `text` as a line carries it: at most 256 bytes.
pub fn words(text: &[u8]) -> Box<str> {
    let text = String::from_utf8_lossy(text);
    let end = (0..=WORDS_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].into()
}

/// A header of `forwarded.strip` was removed from a request.
pub fn header_stripped(client: SocketAddr, header: &str) {
    tracing::warn!(
        target: TARGET,
        header,
        client.address = %client,
        mend = "add the proxy that sets it to forwarded.trusted_proxies, or set forwarded.strip without it",
        "forwarded.stripped"
    );
}

/// An app has chosen a subprotocol that its client did not offer.
pub fn subprotocol_not_offered(asked: &Asked, chosen: &str) {
    tracing::warn!(
        target: TARGET,
        subprotocol = chosen,
        client.address = %asked.client,
        http.route = &*asked.route.path,
        url.path = &*asked.path,
        "ws.subprotocol_not_offered"
    );
}

/// A session begins.
pub fn ws_open(session: &Session) {
    let Session { id, config_generation, asked, tls_version, tls_group, subprotocol, heartbeat, extensions_refused } =
        session;
    let mode = &heartbeat.policy.mode;
    tracing::info!(
        target: TARGET,
        conn_id = %id,
        client.address = %asked.client,
        tls.client.server_name = asked.server_name.as_deref(),
        protocol = asked.protocol,
        http.route = &*asked.route.path,
        url.path = &*asked.path,
        user_agent = asked.user_agent.as_deref(),
        tls.version = tls_version,
        tls.group = tls_group,
        subprotocol = subprotocol.as_deref(),
        heartbeat.mode = mode.as_str(),
        heartbeat.profile = mode.profile().map(|profile| profile.name),
        heartbeat.why = heartbeat.why,
        heartbeat.degraded = heartbeat.degraded,
        heartbeat.extensions = extensions_refused.then_some("refused"),
        config.generation = config_generation,
        trace_id = asked.trace_id.as_deref(),
        "ws.open"
    );
}

/// A session has ended.
pub fn ws_close(session: &Session, ending: &Ending) {
    let Session { id, asked, tls_version, subprotocol, .. } = session;
    tracing::info!(
        target: TARGET,
        conn_id = %id,
        client.address = %asked.client,
        protocol = asked.protocol,
        http.route = &*asked.route.path,
        url.path = &*asked.path,
        user_agent = asked.user_agent.as_deref(),
        tls.version = tls_version,
        subprotocol = subprotocol.as_deref(),
        trace_id = asked.trace_id.as_deref(),
        duration_s = ending.duration.as_secs_f64(),
        bytes_in = ending.from_client.bytes,
        bytes_out = ending.from_upstream.bytes,
        msgs_in = ending.from_client.messages,
        msgs_out = ending.from_upstream.messages,
        pings = ending.heartbeat.pings,
        pongs = ending.heartbeat.pongs,
        missed = ending.heartbeat.missed,
        rtt_last_s = ending.heartbeat.rtt_last.map(|rtt| rtt.as_secs_f64()),
        close.initiator = ending.initiator.as_str(),
        close.reason = ending.reason.as_str(),
        close.code = ending.client_code,
        close.text = (!ending.close_reason.is_empty()).then_some(&*ending.close_reason),
        close.detail = ending.detail,
        upstream.close_code = ending.upstream_code,
        "ws.close"
    );
}

/// An upgrade was refused.
pub fn ws_reject(asked: &Asked, reason: &'static str, status: u16, detail: Option<&str>) {
    tracing::info!(
        target: TARGET,
        reason,
        client.address = %asked.client,
        tls.client.server_name = asked.server_name.as_deref(),
        protocol = asked.protocol,
        http.route = &*asked.route.path,
        url.path = &*asked.path,
        user_agent = asked.user_agent.as_deref(),
        trace_id = asked.trace_id.as_deref(),
        http.response.status_code = status,
        detail,
        "ws.reject"
    );
}

/// A plain request was answered.
pub fn http_access(access: &Access<'_>) {
    let Access { asked, .. } = access;
    tracing::info!(
        target: TARGET,
        reason = access.reason,
        client.address = %asked.client,
        tls.client.server_name = asked.server_name.as_deref(),
        protocol = asked.protocol,
        http.route = &*asked.route.path,
        http.request.method = access.method,
        url.path = &*asked.path,
        http.response.status_code = access.status,
        bytes_out = access.bytes_out,
        complete = access.complete,
        duration_s = access.duration.as_secs_f64(),
        user_agent = asked.user_agent.as_deref(),
        trace_id = asked.trace_id.as_deref(),
        "http.access"
    );
}

/// What came in is no request that could be answered on its merits.
pub fn http_reject(client: SocketAddr, reason: &'static str, status: u16) {
    tracing::info!(target: TARGET, reason, client.address = %client, http.response.status_code = status, "http.reject");
}

/// An HTTP/2 connection was ended for what its client did; `code` is that of the GOAWAY (RFC 9113 §7).
pub fn h2_goaway(client: SocketAddr, reason: &'static str, code: u32) {
    tracing::info!(target: TARGET, reason, client.address = %client, code, "http2.goaway");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_words_are_cut_at_a_character() {
        assert_eq!(&*words(b"/chat"), "/chat");
        let long = format!("/{}é tail", "a".repeat(254));
        assert_eq!(words(long.as_bytes()).len(), 255, "é would end at byte 257");
        assert_eq!(&*words(b"\xff"), "\u{fffd}");
    }
}
