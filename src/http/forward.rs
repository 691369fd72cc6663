//! A plain request: to the app and back, both bodies streaming.

use std::net::Ipv4Addr;
use std::sync::Arc;

use hyper::body::{Body, Incoming};
use hyper::header::{ACCEPT, HeaderValue};
use hyper::{HeaderMap, Request, Response, StatusCode, Version};

use super::access::Access;
use super::connection::ClientConnection;
use super::peer::Protocol;
use super::response::{self, ProxyResponse};
use super::{forwarded, headers, target};
use crate::config::Route;
use crate::session::ClientAddress;
use crate::upstream::{ClientAddresses, Lease, Upload, Upstream};

/// A body may take this many times what a head may, for each KiB.
const BODY_TIMEOUT_FACTOR: u32 = 6;

/// Forwards `request` and relays what the app answers; a failure becomes a short answer of the proxy's own.
pub(super) async fn forward(
    connection: &Arc<ClientConnection>,
    mut access: Box<Access>,
    route: &Route,
    host: HeaderValue,
    request: Request<Upload>,
) -> Response<ProxyResponse> {
    let edge = &connection.edge;
    let version = request.version();
    let accept = request.headers().get(ACCEPT).cloned();
    let stall = connection.rules.limits.write_stall;
    let app = connection.rules.upstream(route);
    let client = client_addresses(connection, app, request.headers());
    let request = outbound(request, host, connection);
    access.forwarded(request.headers(), request.body().progress());
    // In HTTP/2 header names are in lower case, both ways (RFC 9113 §8.2).
    let keeps_case = connection.peer.protocol() == Protocol::H1;
    let (status, reason) = match app.send(request, client, stall, keeps_case).await {
        Ok((response, lease)) => match unrelayable(&response) {
            None => {
                access.answered(response.status());
                return inbound(response, version, Some(lease), Some(access));
            }
            Some(fault) => {
                access.failed(&fault);
                (StatusCode::BAD_GATEWAY, "invalid_response")
            }
        },
        Err(failure) => {
            access.failed(&failure);
            (failure.status(), failure.reason())
        }
    };
    if status.is_server_error() {
        edge.metrics.upstream_error(reason);
    }
    response::explain(status, reason, accept.as_ref(), Some(access))
}

/// The addresses that a connection to `app` states, made for a request with these `headers`; `None` if it states none.
pub(super) fn client_addresses(
    connection: &ClientConnection,
    app: &Upstream,
    headers: &HeaderMap,
) -> Option<ClientAddresses> {
    if !app.sends_proxy_header() {
        return None;
    }
    let client = match forwarded::client(&connection.rules.forwarded, connection.peer.address, headers) {
        ClientAddress::Peer(address) => address,
        ClientAddress::Forwarded(address) => (address, 0).into(),
    };
    let local = connection.peer.local.unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into());
    Some(ClientAddresses { client, local })
}

/// A response to a plain request that makes no sense.
#[derive(Debug, thiserror::Error)]
enum Unrelayable {
    /// No other protocol was asked for (RFC 9110 §15.2.2).
    #[error("the upstream answered a plain request with 101")]
    Switching,
    /// No transfer coding was asked for (RFC 9112 §7.4).
    #[error("the upstream's response has a transfer coding that was not asked for")]
    Coding,
}

fn unrelayable(response: &Response<Incoming>) -> Option<Unrelayable> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Some(Unrelayable::Switching);
    }
    (!headers::at_most_chunked(response.headers())).then_some(Unrelayable::Coding)
}

/// Turns the app's response into the one that the client gets, which spoke `version`.
pub(super) fn inbound(
    response: Response<Incoming>,
    version: Version,
    lease: Option<Lease>,
    access: Option<Box<Access>>,
) -> Response<ProxyResponse> {
    let (mut head, body) = response.into_parts();
    let nominated = headers::strip_hop_by_hop(&mut head.headers);
    headers::frame(&mut head.headers, &body);
    // A proxy speaks its own version, not the app's (RFC 9110 §2.5). hyper lowers it for an HTTP/1.0 client, but
    // would promise such a client to keep a connection alive whose end is the end of the body.
    let delimited_by_close = version == Version::HTTP_10 && body.size_hint().exact().is_none();
    head.version = if delimited_by_close { Version::HTTP_10 } else { Version::HTTP_11 };
    Response::from_parts(head, ProxyResponse::relayed(body, nominated, lease, access))
}

fn outbound(request: Request<Upload>, host: HeaderValue, connection: &ClientConnection) -> Request<Upload> {
    let target = target::origin_form(&request);
    let (mut head, upload) = request.into_parts();
    let upload = upload.within(connection.rules.limits.header_read * BODY_TIMEOUT_FACTOR);
    let nominated = headers::to_upstream(&mut head.headers, host, &connection.peer, &connection.rules.forwarded);
    let upload = upload.cleaning_trailers(move |trailers| headers::clean_trailers(trailers, &nominated));
    headers::frame_request(&mut head.headers, &upload);
    head.uri = target;
    head.version = Version::HTTP_11;
    Request::from_parts(head, upload)
}
