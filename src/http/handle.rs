//! The handling of one request, of either version of HTTP: it returns the answer.

use std::sync::Arc;

use hyper::header::{ACCEPT, CONNECTION, HeaderValue, STRICT_TRANSPORT_SECURITY};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use super::access::Access;
use super::authority::RequestHost;
use super::connection::ClientConnection;
use super::peer::Protocol;
use super::response::{self, Handled, ProxyResponse};
use super::{forward, headers, target, websocket};
use crate::upgrade::{self, UpgradeRefusal};
use crate::upstream::Upload;

/// Handles one request. Every answer carries what [`add_connection_fields`] adds.
pub(super) async fn handle(connection: &Arc<ClientConnection>, request: Request<Upload>) -> Handled {
    let mut handled = route(connection, request).await;
    add_connection_fields(connection, handled.headers_mut());
    handled
}

/// Adds the fields that every response on this connection has: HSTS with TLS, and the announcement of its end while the
/// proxy drains.
pub(super) fn add_connection_fields(connection: &ClientConnection, headers: &mut HeaderMap) {
    if let Some(hsts) = connection.rules.hsts.as_ref().filter(|_| connection.peer.tls.is_some()) {
        // The app's own field stands: a browser heeds the first one only (RFC 6797 §8.1).
        headers.entry(STRICT_TRANSPORT_SECURITY).or_insert_with(|| hsts.clone());
    }
    if connection.edge.draining.is_cancelled() && connection.peer.protocol() == Protocol::H1 {
        // A 101 has the field already.
        headers.entry(CONNECTION).or_insert(HeaderValue::from_static("close"));
    }
}

/// Routes a request to its app, or refuses it.
async fn route(connection: &Arc<ClientConnection>, request: Request<Upload>) -> Handled {
    if connection.peer.forbidden {
        return Handled::Response(forbid(connection, &request));
    }
    let named = RequestHost::of(&request);
    let routes = &connection.rules.routes;
    let found = routes.find(named.as_str(), &target::path(&request));
    let is_clear = found.is_some();
    let route = found.unwrap_or_else(|| routes.default());
    let host = named.or_of(connection.rules.upstream(route));
    if upgrade::is_websocket_request(&request) {
        if !is_clear {
            let asking = websocket::UpgradeRequest::begin(connection, Arc::clone(route), &request);
            let accept = request.headers().get(ACCEPT);
            return Handled::Response(websocket::refuse(connection, &UpgradeRefusal::Path, asking, accept));
        }
        // Boxed: every plain request's future would be as large as that of an upgrade.
        return Box::pin(websocket::switch(connection, Arc::clone(route), host, request)).await;
    }
    // An upgrade to anything else (h2c, say) is not taken. RFC 9110 §7.8 leaves that to the server, and a client that
    // offers one must be ready to go on without: the request is as good as any other.
    let access = Access::begin(connection, route, &request);
    let refuse =
        |status, reason, access| response::explain(status, reason, request.headers().get(ACCEPT), Some(access));
    Handled::Response(match host {
        // RFC 8441 §4 has no word for it, RFC 9220 §3 does.
        _ if request.extensions().get::<::h2::ext::Protocol>().is_some() => {
            refuse(StatusCode::NOT_IMPLEMENTED, "protocol", access)
        }
        // This is no forward proxy.
        _ if request.method() == Method::CONNECT => refuse(StatusCode::METHOD_NOT_ALLOWED, "connect", access),
        None => refuse(StatusCode::BAD_REQUEST, "host", access),
        _ if !target::is_fitting(&request) => refuse(StatusCode::BAD_REQUEST, "target", access),
        _ if !is_clear => refuse(StatusCode::BAD_REQUEST, "path", access),
        // RFC 9112 §6.1: hyper has taken off the chunks, and nothing here takes off the other codings.
        _ if !headers::at_most_chunked(request.headers()) => {
            refuse(StatusCode::NOT_IMPLEMENTED, "transfer_encoding", access)
        }
        Some(host) => forward::forward(connection, access, route, host, request).await,
    })
}

/// Refuses a request of a client that is no trusted proxy, on a port where only these are served. The connection ends.
fn forbid(connection: &Arc<ClientConnection>, request: &Request<Upload>) -> Response<ProxyResponse> {
    let access = Access::begin(connection, connection.rules.routes.default(), request);
    let accept = request.headers().get(ACCEPT);
    let mut response = response::explain(StatusCode::FORBIDDEN, "untrusted_peer", accept, Some(access));
    if connection.peer.protocol() == Protocol::H1 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
