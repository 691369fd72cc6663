//! The parts of a request's head that its log line states.

use std::sync::Arc;

use hyper::header::{HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{HeaderMap, Request, Uri, Version};

use super::connection::ClientConnection;
use super::{forwarded, target};
use crate::config::Route;
use crate::session::{ClientAddress, RequestFacts};
use crate::telemetry::log_events;
use crate::upstream::RawTarget;

/// W3C Trace Context §3.2.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The facts of a request that its log line states, kept until it is known whether a line is written.
///
/// Its fields share the buffer that the request was read into, so that taking them costs no copy. They pin that buffer:
/// a plain request may hold one until its response is through, a session converts it at once.
#[derive(Debug)]
pub(super) struct RequestHead {
    client: ClientAddress,
    server_name: Option<Arc<str>>,
    protocol: &'static str,
    version: Version,
    uri: Uri,
    /// The target as it was sent, where that is not in `uri`.
    raw_target: Option<RawTarget>,
    /// The `X-Forwarded-Host` of a trusted proxy.
    forwarded_host: Option<HeaderValue>,
    host: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
    route: Arc<Route>,
}

impl RequestHead {
    /// Takes the facts of `request`, which goes to `route`.
    pub(super) fn of<B>(connection: &ClientConnection, route: Arc<Route>, request: &Request<B>) -> Self {
        let (settings, peer, headers) = (&connection.rules.forwarded, &connection.peer, request.headers());
        let mut head = Self {
            client: forwarded::client(settings, peer.address, headers),
            server_name: peer.tls.as_ref().and_then(|tls| tls.server_name.clone()),
            protocol: peer.protocol().as_str(),
            version: request.version(),
            uri: request.uri().clone(),
            raw_target: target::raw(request).cloned(),
            forwarded_host: None,
            host: None,
            request_id: None,
            user_agent: None,
            traceparent: None,
            route,
        };
        if forwarded::is_trusted(settings, peer.address) {
            head.forwarded_host = forwarded::host_line(headers).cloned();
            head.set_request_id(headers);
        }
        // One walk over the few fields there are costs less than three look-ups; most names have another length. The first
        // field of a name counts.
        for (name, value) in headers {
            let kept = match name.as_str().len() {
                4 if *name == HOST => &mut head.host,
                10 if *name == USER_AGENT => &mut head.user_agent,
                11 if *name == TRACEPARENT => &mut head.traceparent,
                _ => continue,
            };
            if kept.is_none() {
                *kept = Some(value.clone());
            }
        }
        head
    }

    /// Takes over the request id of `headers`, which go to the app.
    pub(super) fn set_request_id(&mut self, headers: &HeaderMap) {
        self.request_id = headers.get(forwarded::REQUEST_ID).cloned();
    }

    /// Converts it to the text of a line, which shares nothing with the request.
    pub(super) fn to_facts(&self) -> RequestFacts {
        let text = |value: &Option<HeaderValue>| value.as_ref().map(|value| log_events::escaped(value.as_bytes()));
        let forwarded_host = self.forwarded_host.as_ref().and_then(forwarded::first_value);
        let authority = self.uri.authority().map(|authority| authority.as_str().as_bytes());
        let host = || self.host.as_ref().map(HeaderValue::as_bytes);
        let path = self.raw_target.as_ref().map_or_else(|| self.uri.path().as_bytes(), RawTarget::path);
        RequestFacts {
            client: self.client,
            server_name: self.server_name.clone(),
            protocol: self.protocol,
            http_version: match self.version {
                Version::HTTP_2 => "2",
                Version::HTTP_10 => "1.0",
                _ => "1.1",
            },
            host: forwarded_host.or(authority).or_else(host).map(log_events::escaped),
            request_id: text(&self.request_id),
            route: Arc::clone(&self.route),
            path: log_events::escaped(path),
            user_agent: text(&self.user_agent),
            trace_id: self.traceparent.as_ref().and_then(|value| trace_id(value.as_bytes())),
        }
    }
}

/// Returns the trace id of a `traceparent` header (W3C Trace Context §3.2).
fn trace_id(traceparent: &[u8]) -> Option<Box<str>> {
    let id = traceparent.split(|byte| *byte == b'-').nth(1)?;
    let is_valid = id.len() == 32 && id.iter().all(u8::is_ascii_hexdigit);
    is_valid.then(|| log_events::escaped(id))
}
