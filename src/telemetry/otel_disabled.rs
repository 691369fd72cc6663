//! The replacement of `otel` in builds without OpenTelemetry: every operation is empty.

use ::http::{HeaderMap, Request, StatusCode};

use crate::config::Otel;
use crate::session::{ConnId, RequestFacts};

/// The exporter of spans; empty in this build.
#[derive(Clone, Debug, Default)]
pub struct Spans(());

/// The span of one WebSocket upgrade; empty in this build.
#[derive(Debug)]
pub struct Span;

impl Spans {
    /// Returns the empty exporter; the configuration refuses an endpoint in this build.
    pub fn to(_: Option<&Otel>) -> Self {
        Self(())
    }

    /// No span.
    pub fn upgrade<B>(&self, _: &RequestFacts, _: &str, _: &Request<B>) -> Span {
        Span
    }

    /// Does nothing.
    pub fn flush(&self) {}
}

impl Span {
    /// Returns `None`.
    pub fn trace_id(&self) -> Option<Box<str>> {
        None
    }

    /// Does nothing.
    pub fn name_session(&mut self, _: ConnId) {}

    /// Does nothing: the client's `traceparent` is forwarded unchanged.
    pub fn propagate(&self, _: &mut HeaderMap) {}

    /// Does nothing.
    pub fn switched(self, _: StatusCode) {}

    /// Does nothing.
    pub fn refused(self, _: StatusCode, _: &'static str) {}
}
