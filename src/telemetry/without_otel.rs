//! Stands in where the program is built without OpenTelemetry: there are no spans, and they cost nothing.

use ::http::{HeaderMap, Request, StatusCode};

use crate::config::Otel;
use crate::session::{ConnId, RequestFacts};

/// Where spans would go.
#[derive(Clone, Debug, Default)]
pub struct Spans(());

/// Would tell of one request for a WebSocket.
#[derive(Debug)]
pub struct Span;

impl Spans {
    /// Nowhere; the configuration refuses an endpoint.
    pub fn to(_: Option<&Otel>) -> Self {
        Self(())
    }

    /// No span.
    pub fn upgrade<B>(&self, _: &RequestFacts, _: &str, _: &Request<B>) -> Span {
        Span
    }

    /// There is nothing to wait for.
    pub fn flush(&self) {}
}

impl Span {
    /// None but the one that the client has begun.
    pub fn trace_id(&self) -> Option<Box<str>> {
        None
    }

    /// Tells nobody.
    pub fn name_session(&mut self, _: ConnId) {}

    /// `traceparent` passes untouched.
    pub fn propagate(&self, _: &mut HeaderMap) {}

    /// Tells nobody.
    pub fn switched(self, _: StatusCode) {}

    /// Tells nobody.
    pub fn refused(self, _: StatusCode, _: &'static str) {}
}
