//! A request for a WebSocket: validated, put to the app, answered as the app answers.

use std::error::Error;
use std::sync::{Arc, Once};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, CONNECTION, CONTENT_LENGTH, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode, Version};

use super::admission::admit;
use super::connection::ClientConnection;
use super::peer::Protocol;
use super::request_head::RequestHead;
use super::response::{self, Handled, ProxyResponse};
use super::{forward, forwarded, headers, target};
use crate::config::Route;
use crate::heartbeat::Signs;
use crate::session::{ConnId, RequestFacts, SessionFacts};
use crate::telemetry::log_events;
use crate::telemetry::metrics::{UpgradeAttempt, UpgradeOutcome};
use crate::telemetry::otel::Span;
use crate::upgrade::{self, Agreement, Offer, PreparedSession, UpgradeRefusal};
use crate::upstream::Upload;

/// Seconds after which a client that was refused by a draining proxy may come back; another instance has taken over
/// by then.
const RETRY_AFTER_DRAIN: HeaderValue = HeaderValue::from_static("1");

/// The same for want of memory: slow peers take their time to catch up.
const RETRY_AFTER_MEMORY: HeaderValue = HeaderValue::from_static("5");

/// Logs the first subprotocol that an app chose without an offer, once in the life of the process.
static FIRST_NOT_OFFERED: Once = Once::new();

/// The app's answer to an upgrade request.
enum Verdict {
    /// A valid 101, and the stream behind it.
    Switched(Response<()>, Box<PreparedSession>),
    /// Any other response: the app's own way to refuse.
    Refused(Response<Incoming>, Box<UpgradeRequest>),
}

/// A request for a WebSocket that is not decided yet.
pub(super) struct UpgradeRequest {
    asked: RequestFacts,
    attempt: UpgradeAttempt,
    span: Span,
}

impl UpgradeRequest {
    /// The head of `request` is in.
    pub(super) fn begin<B>(connection: &ClientConnection, route: Arc<Route>, request: &Request<B>) -> Self {
        let attempt = connection.rules.counts(&route).attempt();
        let mut asked = RequestHead::of(connection, route, request).to_facts();
        let span = connection.edge.spans.upgrade(&asked, attempt.route().label(), request);
        // Lines and spans are to be found by one another, also where the client has begun no trace.
        asked.trace_id = span.trace_id().or(asked.trace_id);
        Self { asked, attempt, span }
    }
}

/// Puts the upgrade to the app. On its 101 a session begins once the client's own 101 has left; what the client sends
/// meanwhile stays unread in its socket. In HTTP/2 the same is true of the stream and a 200 (RFC 8441 §5).
pub(super) async fn switch(
    connection: &Arc<ClientConnection>,
    route: Arc<Route>,
    host: Option<HeaderValue>,
    request: Request<Upload>,
) -> Handled {
    let accept = request.headers().get(ACCEPT).cloned();
    let asking = UpgradeRequest::begin(connection, route, &request);
    match negotiate(connection, asking, host, request).await {
        Ok(Verdict::Switched(mut accepted, prepared)) => {
            match connection.peer.protocol() {
                Protocol::H1 => {
                    accepted.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
                    accepted.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
                    *accepted.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                }
                // It answers a key that the client has never seen.
                Protocol::H2 => drop(accepted.headers_mut().remove(SEC_WEBSOCKET_ACCEPT)),
            }
            Handled::Session(accepted, prepared)
        }
        Ok(Verdict::Refused(response, asking)) => {
            let UpgradeRequest { asked, attempt, span } = *asking;
            attempt.ended(UpgradeOutcome::UpstreamRefused);
            span.refused(response.status(), "upstream_refused");
            reject(connection, &asked, "upstream_refused", response.status(), None, None);
            Handled::Response(forward::inbound(response, Version::HTTP_11, None, None))
        }
        Err((refusal, asking)) => Handled::Response(refuse(connection, &refusal, asking, accept.as_ref())),
    }
}

/// Answers a handshake that comes to nothing; it is counted and logged.
pub(super) fn refuse(
    connection: &ClientConnection,
    refusal: &UpgradeRefusal,
    asking: UpgradeRequest,
    accept: Option<&HeaderValue>,
) -> Response<ProxyResponse> {
    let UpgradeRequest { asked, attempt, span } = asking;
    match refusal {
        UpgradeRefusal::Upstream(failure) => {
            connection.edge.metrics.upstream_error(failure.reason());
            attempt.ended(UpgradeOutcome::UpstreamFailed);
        }
        UpgradeRefusal::Switch(_) => attempt.ended(UpgradeOutcome::UpstreamFailed),
        _ => attempt.ended(UpgradeOutcome::Rejected),
    }
    let (status, reason) = (refusal.status(), refusal.reason());
    span.refused(status, reason);
    match refusal {
        UpgradeRefusal::Upstream(_) | UpgradeRefusal::Switch(_) => {
            reject(connection, &asked, reason, status, None, Some(refusal));
        }
        _ => reject(connection, &asked, reason, status, Some(&refusal.to_string()), None),
    }
    let mut response = response::explain(status, reason, accept, None);
    match refusal {
        UpgradeRefusal::Version => {
            response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            // RFC 9110 §15.5.22: a 426 names the protocol to upgrade to.
            response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        UpgradeRefusal::Draining => drop(response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_DRAIN)),
        UpgradeRefusal::Memory { .. } => drop(response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_MEMORY)),
        UpgradeRefusal::BadRequest(_)
        | UpgradeRefusal::Origin(_)
        | UpgradeRefusal::Path
        | UpgradeRefusal::Upstream(_)
        | UpgradeRefusal::Switch(_) => {}
    }
    response
}

async fn negotiate(
    connection: &ClientConnection,
    mut asking: UpgradeRequest,
    host: Option<HeaderValue>,
    request: Request<Upload>,
) -> Result<Verdict, (UpgradeRefusal, UpgradeRequest)> {
    let edge = &connection.edge;
    let offer = match Offer::read(&request) {
        _ if edge.draining.is_cancelled() => Err(UpgradeRefusal::Draining),
        _ if !target::is_fitting(&request) => Err(UpgradeRefusal::BadRequest("a target is a path and a query")),
        offer => offer,
    };
    let (mut offer, host) = match (offer, host) {
        (Ok(offer), Some(host)) => (offer, host),
        (Ok(_), None) => {
            return Err((UpgradeRefusal::BadRequest("a request has exactly one Host, which is a host"), asking));
        }
        (Err(refusal), _) => return Err((refusal, asking)),
    };
    let route = Arc::clone(&asking.asked.route);
    if let Err(refusal) = admit(connection, &route, request.headers(), &host) {
        return Err((refusal, asking));
    }
    let is_bridged = request.version() == Version::HTTP_2;
    let id = edge.sessions.next_id();
    asking.span.name_session(id);
    let (path, query) = (target::path(&request).into_owned(), target::query(&request).unwrap_or_default().into_owned());
    let mut signs = Signs { subprotocols: &[], path: &path, query: &query };
    let app = connection.rules.upstream(&route);
    let client = forward::client_addresses(connection, app, request.headers());
    let mut request = outbound(request, &offer, host, connection, id);
    asking.asked.request_id = forwarded::request_id(request.headers()).map(log_events::escaped);
    asking.span.propagate(request.headers_mut());
    let may_swallow = route.heartbeat.may_swallow(&Signs { subprotocols: &offer.subprotocols(), ..signs });
    let extensions_refused = may_swallow && offer.without_extensions();
    if extensions_refused {
        request.headers_mut().remove(SEC_WEBSOCKET_EXTENSIONS);
    }
    let mut response = match app.send_upgrade(request, client).await {
        Ok(response) => response,
        Err(failure) => return Err((failure.into(), asking)),
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // As the answer to a CONNECT it would mean the opposite (RFC 9110 §9.3.6).
        if is_bridged && response.status().is_success() {
            return Err((
                UpgradeRefusal::Switch("the upstream answered an upgrade with a success that is no 101"),
                asking,
            ));
        }
        // As on plain requests: hyper has taken off the chunks alone, and the rest of the coding would be cut off.
        if !headers::at_most_chunked(response.headers()) {
            let what = "the upstream refused with a transfer coding that was not asked for";
            return Err((UpgradeRefusal::Switch(what), asking));
        }
        return Ok(Verdict::Refused(response, Box::new(asking)));
    }
    let Agreement { subprotocol, is_offered, coding } = match offer.check(&response) {
        Ok(agreement) => agreement,
        Err(refusal) => return Err((refusal, asking)),
    };
    if !is_offered {
        let chosen = subprotocol.as_deref().unwrap_or_default();
        FIRST_NOT_OFFERED.call_once(|| log_events::subprotocol_not_offered(&asking.asked, chosen));
    }
    let Some((upstream, upstream_early)) = upgrade::take_upgraded_stream(hyper::upgrade::on(&mut response)).await
    else {
        return Err((UpgradeRefusal::Switch("the upstream closed behind its 101"), asking));
    };
    let chosen: Vec<&str> = subprotocol.iter().map(|name| &**name).collect();
    signs.subprotocols = &chosen;
    let heartbeat = route.heartbeat.select(&signs, coding);
    let policy = Arc::clone(&heartbeat.policy);
    let tls = connection.peer.tls.as_ref();
    let UpgradeRequest { asked, attempt, span } = asking;
    span.switched(if is_bridged { StatusCode::OK } else { StatusCode::SWITCHING_PROTOCOLS });
    let facts = SessionFacts {
        id,
        config_generation: connection.rules.generation,
        request: asked,
        tls_version: tls.map(|tls| tls.version),
        tls_group: tls.and_then(|tls| tls.group),
        heartbeat,
        extensions_refused,
        subprotocol,
    };
    let liveness = Arc::clone(app.app().liveness());
    let prepared = PreparedSession {
        facts,
        max_age: connection.rules.max_age,
        attempt,
        policy,
        coding,
        liveness,
        upstream,
        upstream_early,
    };
    Ok(Verdict::Switched(accepted(response), Box::new(prepared)))
}

/// The upgrade request as the app gets it: the offer's key, subprotocols and extensions as the client offered them.
fn outbound(
    request: Request<Upload>,
    offer: &Offer,
    host: HeaderValue,
    connection: &ClientConnection,
    id: ConnId,
) -> Request<Empty<Bytes>> {
    let target = target::origin_form(&request);
    let (mut head, _) = request.into_parts();
    headers::to_upstream(&mut head.headers, host, &connection.peer, &connection.rules.forwarded);
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let id = HeaderValue::try_from(id.to_string()).expect("hexadecimal digits are visible ASCII");
    head.headers.insert(headers::CONNECTION_ID, id);
    // A client of HTTP/2 has sent no key, perhaps no version, and a CONNECT.
    head.headers.insert(SEC_WEBSOCKET_KEY, offer.key().clone());
    head.headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    head.method = Method::GET;
    head.version = Version::HTTP_11;
    head.uri = target;
    Request::from_parts(head, Empty::new())
}

/// The answer that the client gets, but for its status: the app's headers, cookies and all, in the case in which they were
/// written.
fn accepted(response: Response<Incoming>) -> Response<()> {
    let (mut head, _) = response.into_parts();
    headers::strip_hop_by_hop(&mut head.headers);
    // A 101 has no body (RFC 9110 §8.6), nor has the 200 to a CONNECT.
    head.headers.remove(CONTENT_LENGTH);
    head.status = StatusCode::OK;
    Response::from_parts(head, ())
}

fn reject(
    connection: &ClientConnection,
    asked: &RequestFacts,
    reason: &'static str,
    status: StatusCode,
    detail: Option<&str>,
    error: Option<&UpgradeRefusal>,
) {
    connection.edge.metrics.rejected(reason);
    log_events::ws_reject(asked, reason, status.as_u16(), detail, error.map(|error| error as &dyn Error));
}
