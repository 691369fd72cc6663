//! The responses of the health listener: liveness, readiness and startup probes, and metrics.
//!
//! Orchestrators send probes to any address of the process, so the Host header is not checked. No endpoint changes
//! state or reveals a single session.

use std::borrow::Cow;
use std::sync::Arc;

use hyper::header::{ACCEPT, ALLOW, HeaderValue, VARY};
use hyper::{Method, Request, Response, StatusCode};

use super::context::Context;
use super::response::{Body, RequestRefusal, content};
use crate::drain::DrainPhase;
use crate::telemetry::metrics::TextFormat;

pub(super) fn answer<B>(context: &Arc<Context>, request: &Request<B>) -> Response<Body> {
    let (status, word) = match request.uri().path() {
        // Also while draining: a restart by the orchestrator would abort the sessions.
        "/livez" => (StatusCode::OK, "alive".into()),
        "/readyz" => verdict(readiness(context)),
        "/startupz" => verdict(startup(context)),
        "/metrics" => (StatusCode::OK, "".into()),
        _ => (StatusCode::NOT_FOUND, "not_found".into()),
    };
    if status != StatusCode::NOT_FOUND && !matches!(*request.method(), Method::GET | Method::HEAD) {
        let refusal = RequestRefusal::new(StatusCode::METHOD_NOT_ALLOWED, "method", "use GET or HEAD");
        return refusal.with(ALLOW, HeaderValue::from_static("GET, HEAD")).into();
    }
    if word.is_empty() {
        let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
        let exposition = TextFormat::negotiate(accept.unwrap_or_default());
        context.metrics.ready(readiness(context).is_ok());
        let kind = HeaderValue::from_static(exposition.content_type());
        let mut response = content(status, kind, context.metrics.encode_as(exposition));
        response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
        return response;
    }
    content(status, HeaderValue::from_static("text/plain; charset=utf-8"), format!("{word}\n"))
}

/// The body of a probe's response.
type Words = Cow<'static, str>;

/// Returns the status and body of a probe: 200 for `Ok`, 503 with the reason for `Err`.
fn verdict(found: Result<Words, Words>) -> (StatusCode, Words) {
    match found {
        Ok(words) => (StatusCode::OK, words),
        Err(words) => (StatusCode::SERVICE_UNAVAILABLE, words),
    }
}

/// Returns `Ok` once every worker accepts, and from then on; also while the app is awaited, for whose start a proxy is not
/// restarted.
fn startup(context: &Context) -> Result<Words, Words> {
    let is_complete = context.startup.is_complete() || context.startup.awaited_app().is_some();
    if is_complete { Ok("started".into()) } else { Err("starting".into()) }
}

/// Returns `Ok` while the process should receive new clients; otherwise the reason.
fn readiness(context: &Context) -> Result<Words, Words> {
    if context.shutdown.phase() >= DrainPhase::Announced {
        return Err("draining".into());
    }
    if let Some(address) = context.startup.awaited_app() {
        return Err(format!("starting: the app does not listen on {address} yet").into());
    }
    startup(context)?;
    // One responsive app is enough: its routes can be served.
    let in_force = context.current.load();
    if !in_force.apps.iter().any(|app| app.liveness().is_responsive()) {
        return Err("upstream".into());
    }
    Ok("ready".into())
}
