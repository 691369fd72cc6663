//! The health listener: whether the process lives, is ready and has started, and its metrics.
//!
//! Probes come from outside by whatever address the orchestrator knows, so nobody's Host is looked at; nothing that is
//! served here changes anything, or tells of a single session.

use std::sync::Arc;

use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::Context;
use super::answer::{Body, Refusal, content};
use crate::drain::Phase;

/// `OpenMetrics` 1.0, as Prometheus knows it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn answer<B>(context: &Arc<Context>, request: &Request<B>) -> Response<Body> {
    let (status, word) = match request.uri().path() {
        // Also while draining: whoever restarts a process for draining cuts its sessions off.
        "/livez" => (StatusCode::OK, "alive"),
        "/readyz" => verdict(readiness(context)),
        "/startupz" => verdict(startup(context)),
        "/metrics" => (StatusCode::OK, ""),
        _ => (StatusCode::NOT_FOUND, "not_found"),
    };
    if status != StatusCode::NOT_FOUND && !matches!(*request.method(), Method::GET | Method::HEAD) {
        let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method", "use GET or HEAD");
        return refusal.with(ALLOW, HeaderValue::from_static("GET, HEAD")).into();
    }
    if word.is_empty() {
        return content(status, HeaderValue::from_static(OPEN_METRICS), context.metrics.encode());
    }
    content(status, HeaderValue::from_static("text/plain; charset=utf-8"), format!("{word}\n"))
}

/// A word that is good, or one that says why not.
fn verdict(found: Result<&'static str, &'static str>) -> (StatusCode, &'static str) {
    match found {
        Ok(word) => (StatusCode::OK, word),
        Err(word) => (StatusCode::SERVICE_UNAVAILABLE, word),
    }
}

/// Whether every worker accepts; whatever comes later, it has.
fn startup(context: &Context) -> Result<&'static str, &'static str> {
    if context.startup.is_over() { Ok("started") } else { Err("starting") }
}

/// Whether more clients should be sent here.
fn readiness(context: &Context) -> Result<&'static str, &'static str> {
    if context.shutdown.phase() >= Phase::Announced {
        return Err("draining");
    }
    startup(context)?;
    // One app that lives is worth its clients.
    let in_force = context.current.load();
    if !in_force.apps.iter().any(|app| app.pulse().is_responsive()) {
        return Err("upstream");
    }
    Ok("ready")
}
