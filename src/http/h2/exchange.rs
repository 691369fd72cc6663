//! One stream of HTTP/2: a request and its answer, or a WebSocket (RFC 8441).

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use hyper::body::{Body, Frame};
use hyper::header::{ACCEPT, CONTENT_LENGTH, COOKIE, DATE, EXPECT, HOST, HeaderMap, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Response, StatusCode};

use super::leg::StreamLeg;
use super::outgoing::Outgoing;
use super::shared_io::StreamEntry;
use super::stream_receiver::{Inflow, RequestBody};
use super::streams::StreamKind;
use crate::config::{EdgeLimits, Route};
use crate::http::access::Access;
use crate::http::authority::RequestHost;
use crate::http::connection::ClientConnection;
use crate::http::handle::{add_connection_fields, handle};
use crate::http::headers::{self, CONTENT_LENGTH_MAX};
use crate::http::interim::Interim;
use crate::http::response::{self, Handled, ProxyResponse};
use crate::http::target;
use crate::relay::{Held, Leg};
use crate::telemetry::{Chain, log_events};
use crate::upstream::Upload;

/// One stream, from its request on.
pub(super) struct Exchange<C> {
    pub(super) connection: Arc<ClientConnection>,
    pub(super) entry: StreamEntry<C>,
    pub(super) respond: SendResponse<Bytes>,
    pub(super) inflow: Inflow,
}

impl<C: Leg + Send + 'static> Exchange<C> {
    /// Answers the request. If the client resets the stream meanwhile, all that is under way for it is dropped.
    pub(super) async fn run(mut self, mut request: Request<()>) {
        if self.is_cancelled().await {
            // It has cost nothing so far.
            return;
        }
        let heartbeat = self.route(&request).heartbeat.policy().clone();
        self.entry.follow(&heartbeat);
        let without_body = request.method() == Method::HEAD;
        let is_connect = request.method() == Method::CONNECT;
        if request.headers().contains_key(EXPECT) && !self.inflow.is_end_stream() {
            let mut go_on = Response::new(());
            *go_on.status_mut() = StatusCode::CONTINUE;
            // A stream that is gone shows below.
            let _ = self.respond.send_informational(go_on);
        }
        let (connection, inflow) = (Arc::clone(&self.connection), self.inflow.clone());
        let interim = Interim::of(&mut request);
        let handled = {
            let mut answered = pin!(respond_to(connection, inflow, request, is_connect));
            poll_fn(|cx| {
                let handled = answered.as_mut().poll(cx);
                for answer in interim.take(cx) {
                    let _ = self.respond.send_informational(answer);
                }
                match handled {
                    _ if self.inflow.is_malformed() => {
                        self.respond.send_reset(Reason::PROTOCOL_ERROR);
                        Poll::Ready(None)
                    }
                    Poll::Ready(handled) => Poll::Ready(Some(handled)),
                    Poll::Pending => self.respond.poll_reset(cx).map(|reset| {
                        if reset.is_ok() {
                            self.entry.abandoned();
                        }
                        None
                    }),
                }
            })
            .await
        };
        match handled {
            None => {}
            Some(Handled::Session(mut accepted, prepared)) => {
                let Self { connection, entry, mut respond, inflow } = self;
                clean(accepted.headers_mut(), None);
                if let Ok(outflow) = respond.send_response(accepted, false) {
                    entry.follow(&prepared.policy);
                    connection.edge.sessions.start(StreamLeg::new(inflow, outflow, entry), Bytes::new(), *prepared);
                }
            }
            Some(Handled::Response(mut response)) => {
                let length = response.body().size_hint().exact();
                clean(response.headers_mut(), length);
                let stall = self.connection.rules.limits.write_stall;
                self.send(response, without_body, stall).await;
            }
        }
    }

    /// Returns whether the client has taken the request back before anything was done for it.
    async fn is_cancelled(&mut self) -> bool {
        poll_fn(|cx| Poll::Ready(self.respond.poll_reset(cx).is_ready())).await
    }

    /// The route whose heartbeat the stream follows until a session has agreed on its own.
    fn route(&self, request: &Request<()>) -> &Route {
        let routes = &self.connection.rules.routes;
        routes.find(RequestHost::of(request).as_str(), &target::path(request)).unwrap_or_else(|| routes.default())
    }

    /// Sends the answer. The client may leave it where it is for `stall`.
    async fn send(mut self, response: Response<ProxyResponse>, without_body: bool, stall: Duration) {
        let (head, body) = response.into_parts();
        let ends = without_body || body.is_end_stream();
        // A body that the client has not sent yet is of no use from here on, unless the app still takes it.
        drop(self.inflow);
        match self.respond.send_response(Response::from_parts(head, ()), ends) {
            Ok(outflow) if !ends => {
                let limit = self.connection.rules.limits.memory;
                let memory = self.connection.edge.metrics.memory();
                Outgoing::new(outflow, self.entry, stall, Held::new(memory), limit).send(body).await;
            }
            Ok(_) => {}
            Err(error) => {
                let (address, port) = log_events::client(self.connection.peer.address);
                tracing::debug!(client.address = address, client.port = port, error = %Chain(&error), "http2.response");
                self.respond.send_reset(Reason::INTERNAL_ERROR);
            }
        }
    }
}

async fn respond_to(
    connection: Arc<ClientConnection>,
    inflow: Inflow,
    mut request: Request<()>,
    is_connect: bool,
) -> Handled {
    let rules = &connection.rules;
    if let Some((status, reason)) = refusal(&request, &rules.limits) {
        let routes = &rules.routes;
        let route = routes.find(None, &target::path(&request)).unwrap_or_else(|| routes.default());
        let access = Access::begin(&connection, route, &request);
        let mut refused = response::explain(status, reason, request.headers().get(ACCEPT), Some(access));
        add_connection_fields(&connection, refused.headers_mut());
        return Handled::Response(refused);
    }
    join_cookies(request.headers_mut());
    // What follows an extended CONNECT is no body: only a session reads it.
    let upload = if is_connect {
        Upload::new(Tunnel { has_ended: inflow.is_end_stream() })
    } else {
        let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        Upload::new(RequestBody::new(inflow, length))
    };
    handle(&connection, request.map(|()| upload)).await
}

/// The body of a CONNECT, which has none.
struct Tunnel {
    has_ended: bool,
}

impl Body for Tunnel {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended
    }
}

/// Returns what a stream is opened for.
pub(super) fn kind<B>(request: &Request<B>) -> StreamKind {
    if request.extensions().get::<Protocol>().is_some() { StreamKind::WebSocket } else { StreamKind::Plain }
}

/// Returns whether a request is malformed (RFC 9113 §8.1.1) although the library let it pass: a path that does not begin
/// with a slash (§8.3.1), an empty scheme, or a value with white space around it (§8.2.1).
pub(super) fn is_malformed<B>(request: &Request<B>) -> bool {
    let path = request.uri().path_and_query().map(PathAndQuery::as_str);
    let is_sound = |path: &str| path.starts_with('/') || path == "*" && request.method() == Method::OPTIONS;
    let is_empty = |scheme: &str| scheme.is_empty();
    !path.is_none_or(is_sound)
        || request.uri().scheme_str().is_some_and(is_empty)
        || !headers::are_trimmed(request.headers())
}

/// Returns the fault of a request that the library let pass.
fn refusal(request: &Request<()>, limits: &EdgeLimits) -> Option<(StatusCode, &'static str)> {
    let headers = request.headers();
    // As long as a field is in HTTP/1.1, so that the limits mean the same.
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum();
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if headers.len() > limits.headers || bytes + target > limits.header_bytes {
        return Some((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too_large"));
    }
    // The library refuses what no number holds.
    let is_too_long = |length: &HeaderValue| {
        length.to_str().is_ok_and(|text| text.parse().is_ok_and(|n: u64| n > CONTENT_LENGTH_MAX))
    };
    if headers.get_all(CONTENT_LENGTH).iter().any(is_too_long) {
        return Some((StatusCode::BAD_REQUEST, "content_length"));
    }
    // RFC 9113 §8.3.1: a Host that differs from :authority.
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let contradicts = |host: &HeaderValue| authority.is_some_and(|named| !named.eq_ignore_ascii_case(host.as_bytes()));
    headers.get_all(HOST).iter().any(contradicts).then_some((StatusCode::BAD_REQUEST, "host"))
}

/// A cookie may come in crumbs, for the sake of compression; elsewhere it is one field (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(COOKIE, whole);
    }
}

/// Removes from the headers of a response what HTTP/2 does not have (RFC 9113 §8.2.2), and adds what every response has.
fn clean(headers: &mut HeaderMap, length: Option<u64>) {
    headers::strip_hop_by_hop(headers);
    if let Some(length) = length.filter(|length| *length > 0) {
        headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    headers.entry(DATE).or_insert_with(|| {
        HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now())).expect("a date is visible ASCII")
    });
}

/// Splits what the library accepted.
pub(super) fn parts(request: Request<RecvStream>, held: Option<Held>) -> (Request<()>, Inflow) {
    let (parts, stream) = request.into_parts();
    (Request::from_parts(parts, ()), Inflow::new(stream, held))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(fields: &[(&str, &str)]) -> Request<()> {
        let request = Request::get("https://app.example/path");
        fields.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).expect("valid")
    }

    #[test]
    fn crumbs_become_one_cookie() {
        let mut request = get(&[("cookie", "a=1"), ("cookie", "b=2; c=3"), ("cookie", "d=4")]);
        join_cookies(request.headers_mut());
        assert_eq!(request.headers().get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3; d=4"]);
    }

    #[test]
    fn limits_mean_what_they_mean_in_http1() {
        let limits = EdgeLimits { headers: 2, header_bytes: 60, ..EdgeLimits::default() };
        let too_large = Some((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too_large"));
        assert_eq!(refusal(&get(&[("a", "1"), ("b", "2")]), &limits), None);
        assert_eq!(refusal(&get(&[("a", "1"), ("b", "2"), ("c", "3")]), &limits), too_large);
        assert_eq!(refusal(&get(&[("a", &"x".repeat(60))]), &limits), too_large);
    }

    #[test]
    fn a_length_that_not_every_reader_can_hold_is_refused() {
        let refusal = |length| refusal(&get(&[("content-length", length)]), &EdgeLimits::default());
        assert_eq!(refusal("9223372036854775807"), None);
        for length in ["9223372036854775808", "18446744073709551615"] {
            assert_eq!(refusal(length), Some((StatusCode::BAD_REQUEST, "content_length")));
        }
    }

    #[test]
    fn host_may_not_contradict_authority() {
        let limits = EdgeLimits::default();
        assert_eq!(refusal(&get(&[("host", "APP.example")]), &limits), None);
        assert_eq!(refusal(&get(&[("host", "evil.example")]), &limits), Some((StatusCode::BAD_REQUEST, "host")));
    }
}
