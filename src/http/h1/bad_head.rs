//! Heads of requests that are no requests: malformed, too large, or too late.

use std::net::SocketAddr;

use hyper::StatusCode;

use crate::telemetry::log_events;
use crate::telemetry::metrics::Metrics;

/// The connection preface of HTTP/2 (RFC 9113 §3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The answer to that preface where HTTP/1.1 is spoken.
const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// The answer to a head that does not end; hyper gives none.
const HEAD_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    content-type: text/plain; charset=utf-8\r\n\
    content-length: 39\r\n\
    connection: close\r\n\
    \r\n\
    The head of the request took too long.\n";

/// Counts and logs a head of `client` that hyper has refused, and returns what is still to be written: hyper answers by
/// itself, except to the preface of HTTP/2, which it leaves `unread`. `None` for a failure of the network.
pub(crate) fn reject_head(
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
    log_events::http_reject(client, reason, status.as_u16());
    Some(if unread.starts_with(H2_PREFACE) { BAD_REQUEST } else { &[] })
}

/// Counts and logs a head of `client` that did not arrive in time, and returns the answer to it.
pub(crate) fn reject_late_head(client: SocketAddr, metrics: &Metrics) -> &'static [u8] {
    let status = StatusCode::REQUEST_TIMEOUT.as_u16();
    metrics.answered("", status);
    log_events::http_reject(client, "header_timeout", status);
    HEAD_TIMEOUT
}
