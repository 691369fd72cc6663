//! The lines that tell of requests and sessions: `http.access`, `ws.open`, `ws.close`, `ws.reject`.
//!
//! Each is one event whose message is its name and whose fields are values: at WARN where the client got a 5xx, or a part of
//! a response, otherwise at INFO. Field names are those of OpenTelemetry's semantic conventions where these have one. A path
//! is logged without its query: tokens live there.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use super::Chain;
use crate::session::{Ending, RequestFacts, SessionFacts};

/// The target of lines of the program as a whole. (Behind it the macros want a field without dots first.)
const TARGET: &str = "pulsegate";
/// The target of the lines of plain requests: `log.level` can turn them off, or leave their warnings.
const ACCESS: &str = "pulsegate::access";

/// The first status that is a fault of the server's side (RFC 9110 §15.6).
const SERVER_ERROR: u16 = 500;

/// Bytes of a client's own words (path, user agent) that a line carries at most. A session keeps them to its end, so
/// they are bounded for memory's sake too.
const WORDS_MAX: usize = 256;

/// Returns the two fields of a client's address, `client.address` and `client.port`.
pub(crate) fn client(address: SocketAddr) -> (impl tracing::Value, u16) {
    (tracing::field::display(address.ip().to_canonical()), address.port())
}

/// A plain request and its answer.
#[derive(Debug)]
pub struct AccessRecord<'a> {
    /// The request.
    pub request: &'a RequestFacts,
    /// Its method.
    pub method: &'a str,
    /// The status it was answered with; 499 when the client left before there was one.
    pub status: u16,
    /// The reason of a response that the proxy made itself.
    pub reason: Option<&'static str>,
    /// The fault of the app, of the way to it, or of the request's body, with all its causes.
    pub error: Option<&'a str>,
    /// Bytes of the request's body that were passed on.
    pub bytes_in: u64,
    /// Bytes of the response's body that were passed on.
    pub bytes_out: u64,
    /// True if the response's body went out in whole.
    pub complete: bool,
    /// From the head of the request to the end of the response.
    pub duration: Duration,
    /// From the moment at which the request was handed to the app's side to the head of the app's response, or to the
    /// failure; `None` where it never was.
    pub upstream: Option<Duration>,
}

/// `text` as a line carries it: at most 256 bytes.
pub fn escaped(text: &[u8]) -> Box<str> {
    let text = String::from_utf8_lossy(text);
    let end = (0..=WORDS_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].into()
}

/// One event at WARN or INFO, whose level is known at run time.
macro_rules! event {
    (warn: $is_warning:expr, $($fields:tt)+) => {
        if $is_warning { tracing::warn!($($fields)+) } else { tracing::info!($($fields)+) }
    };
}

/// A header of `forwarded.strip` was removed from a request.
pub fn header_stripped(peer: SocketAddr, header: &str) {
    let (address, port) = client(peer);
    tracing::warn!(
        target: TARGET,
        header,
        client.address = address,
        client.port = port,
        mend = "add the proxy that sets it to forwarded.trusted_proxies, or set forwarded.strip without it",
        "forwarded.stripped"
    );
}

/// An app has chosen a subprotocol that its client did not offer.
pub fn subprotocol_not_offered(request: &RequestFacts, chosen: &str) {
    tracing::warn!(
        target: TARGET,
        subprotocol = chosen,
        client.address = %request.client.address(),
        client.port = request.client.port(),
        http.route = &*request.route.path,
        url.path = &*request.path,
        "ws.subprotocol_not_offered"
    );
}

/// A session begins.
pub fn ws_open(session: &SessionFacts) {
    let SessionFacts {
        id,
        config_generation,
        request,
        tls_version,
        tls_group,
        subprotocol,
        heartbeat,
        extensions_refused,
    } = session;
    let mode = &heartbeat.policy.mode;
    let (host, port) = request.server();
    tracing::info!(
        target: TARGET,
        conn_id = %id,
        client.address = %request.client.address(),
        client.port = request.client.port(),
        tls.client.server_name = request.server_name.as_deref(),
        server.address = host,
        server.port = port,
        network.protocol.version = request.http_version,
        http.route = &*request.route.path,
        url.path = &*request.path,
        user_agent.original = request.user_agent.as_deref(),
        tls.protocol.version = tls_version,
        tls.group = tls_group,
        subprotocol = subprotocol.as_deref(),
        heartbeat.mode = mode.as_str(),
        heartbeat.profile = mode.profile().map(|profile| profile.name),
        heartbeat.why = heartbeat.why,
        heartbeat.degraded = heartbeat.degraded,
        heartbeat.extensions = extensions_refused.then_some("refused"),
        config.generation = config_generation,
        request_id = request.request_id.as_deref(),
        trace_id = request.trace_id.as_deref(),
        "ws.open"
    );
}

/// A session has ended.
pub fn ws_close(session: &SessionFacts, ending: &Ending) {
    let SessionFacts { id, request, tls_version, subprotocol, .. } = session;
    let (host, port) = request.server();
    tracing::info!(
        target: TARGET,
        conn_id = %id,
        client.address = %request.client.address(),
        client.port = request.client.port(),
        server.address = host,
        server.port = port,
        network.protocol.version = request.http_version,
        http.route = &*request.route.path,
        url.path = &*request.path,
        user_agent.original = request.user_agent.as_deref(),
        tls.protocol.version = tls_version,
        subprotocol = subprotocol.as_deref(),
        trace_id = request.trace_id.as_deref(),
        duration_s = ending.duration.as_secs_f64(),
        bytes_in = ending.from_client.bytes,
        bytes_out = ending.from_upstream.bytes,
        msgs_in = ending.from_client.messages,
        msgs_out = ending.from_upstream.messages,
        pings = ending.heartbeat.pings,
        pongs = ending.heartbeat.pongs,
        missed = ending.heartbeat.missed,
        rtt_last_s = ending.heartbeat.rtt_last.map(|rtt| rtt.as_secs_f64()),
        close.initiator = ending.cause.initiator().as_str(),
        close.reason = ending.cause.reason().as_str(),
        close.code = ending.client_code,
        close.text = (!ending.close_reason.is_empty()).then_some(&*ending.close_reason),
        close.detail = ending.cause.detail(),
        upstream.close_code = ending.upstream_code,
        "ws.close"
    );
}

/// An upgrade was refused: for its own fault, which `detail` states, or for one of the app or of the way to it, which is
/// `error`.
pub fn ws_reject(
    request: &RequestFacts,
    reason: &'static str,
    status: u16,
    detail: Option<&str>,
    error: Option<&dyn Error>,
) {
    let (host, port) = request.server();
    let error = error.map(|error| Chain(error).to_string());
    event!(
        warn: status >= SERVER_ERROR,
        target: TARGET,
        reason,
        detail,
        error = error.as_deref(),
        client.address = %request.client.address(),
        client.port = request.client.port(),
        tls.client.server_name = request.server_name.as_deref(),
        server.address = host,
        server.port = port,
        network.protocol.version = request.http_version,
        http.route = &*request.route.path,
        url.path = &*request.path,
        http.response.status_code = status,
        user_agent.original = request.user_agent.as_deref(),
        request_id = request.request_id.as_deref(),
        trace_id = request.trace_id.as_deref(),
        "ws.reject"
    );
}

/// Returns whether lines of plain requests are written at all: those of failures are warnings.
pub fn may_log_access() -> bool {
    tracing::enabled!(target: ACCESS, tracing::Level::WARN)
}

/// Returns whether the line of a plain request with this outcome is written.
pub fn is_access_logged(status: u16, reason: Option<&str>, error: Option<&str>) -> bool {
    if is_failure(status, reason, error) {
        tracing::enabled!(target: ACCESS, tracing::Level::WARN)
    } else {
        tracing::enabled!(target: ACCESS, tracing::Level::INFO)
    }
}

/// Returns whether the client got a 5xx, or a part of a response: an error without a reason of the proxy's own.
fn is_failure(status: u16, reason: Option<&str>, error: Option<&str>) -> bool {
    status >= SERVER_ERROR || error.is_some() && reason.is_none()
}

/// A plain request was answered.
///
/// A 5xx is a warning whether it is the proxy's own or the app's: the client got no answer on its merits either way, and
/// `level = "warn"` is to show a failing app. The two differ by `reason`, which is the proxy's alone. So is a response that
/// the app broke off.
pub fn http_access(access: &AccessRecord<'_>) {
    let AccessRecord { request, .. } = access;
    let (host, port) = request.server();
    event!(
        warn: is_failure(access.status, access.reason, access.error),
        target: ACCESS,
        reason = access.reason,
        error = access.error,
        client.address = %request.client.address(),
        client.port = request.client.port(),
        tls.client.server_name = request.server_name.as_deref(),
        server.address = host,
        server.port = port,
        network.protocol.version = request.http_version,
        http.route = &*request.route.path,
        http.request.method = access.method,
        url.path = &*request.path,
        http.response.status_code = access.status,
        http.request.body.size = access.bytes_in,
        http.response.body.size = access.bytes_out,
        complete = access.complete,
        duration_s = access.duration.as_secs_f64(),
        upstream.duration_s = access.upstream.map(|duration| duration.as_secs_f64()),
        user_agent.original = request.user_agent.as_deref(),
        request_id = request.request_id.as_deref(),
        trace_id = request.trace_id.as_deref(),
        "http.access"
    );
}

/// Logs bytes of a client that are no valid request.
pub fn http_reject(peer: SocketAddr, reason: &'static str, status: u16) {
    let (address, port) = client(peer);
    tracing::info!(
        target: ACCESS,
        reason,
        client.address = address,
        client.port = port,
        http.response.status_code = status,
        "http.reject"
    );
}

/// An HTTP/2 connection was ended for what its client did; `code` is that of the GOAWAY (RFC 9113 §7).
pub fn h2_goaway(peer: SocketAddr, reason: &'static str, code: u32) {
    let (address, port) = client(peer);
    tracing::info!(target: TARGET, reason, client.address = address, client.port = port, code, "http2.goaway");
}

#[cfg(test)]
mod tests;
