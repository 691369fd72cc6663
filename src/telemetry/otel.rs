//! Spans for an OpenTelemetry collector: one for each WebSocket upgrade, from the request to its 101 or its error.
//!
//! Attributes follow the semantic conventions for HTTP servers. Spans are queued, up to a limit, for a dedicated thread
//! that sends them in batches; a slow or absent collector costs spans and nothing else.

mod collector;

use std::net::IpAddr;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span as SdkSpan,
};

use super::Chain;
use crate::config::Otel;
use crate::session::{ClientAddress, ConnId, RequestFacts};
use collector::Collector;

/// The maximum number of queued spans; further ones are lost.
const MAX_QUEUE: usize = 2048;
/// The maximum number of spans in one request to the collector.
const MAX_BATCH: usize = 512;
/// The longest time for which a span waits for a batch to fill.
const MAX_DELAY: Duration = Duration::from_secs(1);
/// The time limit for one batch, retries included.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit for the last batch at the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The parent of the client's trace (W3C Trace Context §3.2).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The vendors' data of the client's trace (W3C Trace Context §3.3).
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The `error.type` of a span that was dropped without a response.
const ABANDONED: &str = "abandoned";

/// The exporter of spans, if one is configured; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Spans(Option<Export>);

#[derive(Clone, Debug)]
struct Export {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// The span of one WebSocket upgrade; dropped without an outcome, it ends as abandoned. Empty without an exporter, and
/// if the client's trace is not sampled.
#[derive(Debug)]
pub struct Span(Option<Box<Open>>);

#[derive(Debug)]
struct Open {
    span: SdkSpan,
    /// Set if the client sent a valid parent span.
    has_parent: bool,
}

impl Spans {
    /// Returns the exporter to the collector of `otel`. An exporter that cannot be built is logged; spans are then
    /// disabled.
    pub fn to(otel: Option<&Otel>) -> Self {
        let Some(Otel { endpoint }) = otel else { return Self::default() };
        match Export::to(endpoint) {
            Ok(export) => Self(Some(export)),
            Err(error) => {
                tracing::warn!(endpoint = &**endpoint, error = %Chain(&error), "otel.export_failed");
                Self::default()
            }
        }
    }

    /// Starts the span of an upgrade; `route` is the label of the route in metrics.
    pub fn upgrade<B>(&self, facts: &RequestFacts, route: &str, request: &Request<B>) -> Span {
        let Some(Export { tracer, .. }) = &self.0 else { return Span(None) };
        let parent = parent(request.headers());
        let has_parent = parent.span().span_context().is_valid();
        let method = method(request.method());
        let name = format!("{} {}", method.unwrap_or("HTTP"), facts.route.path);
        let builder = tracer
            .span_builder(name)
            .with_kind(SpanKind::Server)
            .with_attributes(attributes(facts, route, method, request));
        let span = tracer.build_with_context(builder, &parent);
        Span(span.is_recording().then(|| Box::new(Open { span, has_parent })))
    }

    /// Sends the remaining spans. Blocks for up to one second, so it must not run on the thread of a runtime.
    pub fn flush(&self) {
        if let Some(Export { provider, .. }) = &self.0 {
            // A failure to export has been logged.
            let _ = provider.shutdown_with_timeout(FLUSH_TIMEOUT);
        }
    }
}

impl Span {
    /// Returns the id of the trace, in hexadecimal; `None` for an empty span.
    pub fn trace_id(&self) -> Option<Box<str>> {
        let open = self.0.as_ref()?;
        Some(open.span.span_context().trace_id().to_string().into())
    }

    /// Records the id of the session that the upgrade opens.
    pub fn name_session(&mut self, id: ConnId) {
        if let Some(open) = &mut self.0 {
            open.span.set_attribute(KeyValue::new("pulsegate.connection.id", id.to_string()));
        }
    }

    /// Makes this span the parent in `headers`, which go to the app. `tracestate` is kept only with a valid parent of
    /// the client (W3C Trace Context §4.2).
    pub fn propagate(&self, headers: &mut HeaderMap) {
        let Some(open) = &self.0 else { return };
        headers.insert(TRACEPARENT, open.traceparent());
        if !open.has_parent {
            headers.remove(TRACESTATE);
        }
    }

    /// Ends the span: a session opens after a response with `status`.
    pub fn switched(mut self, status: StatusCode) {
        if let Some(open) = self.0.take() {
            open.end(Some(status), None);
        }
    }

    /// Ends the span with an error response; `reason` is one word.
    pub fn refused(mut self, status: StatusCode, reason: &'static str) {
        if let Some(open) = self.0.take() {
            open.end(Some(status), Some(reason));
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            open.end(None, Some(ABANDONED));
        }
    }
}

impl Open {
    /// Returns the value of `traceparent` (W3C Trace Context §3.2).
    fn traceparent(&self) -> HeaderValue {
        let context = self.span.span_context();
        let (trace, span, flags) = (context.trace_id(), context.span_id(), context.trace_flags().to_u8());
        let parent = HeaderValue::try_from(format!("00-{trace}-{span}-{flags:02x}"));
        parent.expect("hexadecimal digits are visible ASCII")
    }

    fn end(mut self: Box<Self>, status: Option<StatusCode>, error: Option<&'static str>) {
        if let Some(status) = status {
            self.span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        }
        if let Some(error) = error {
            self.span.set_attribute(KeyValue::new("error.type", error));
        }
        // A 4xx is no error of the server (semantic conventions for HTTP spans).
        if status.is_some_and(|status| status.is_server_error()) {
            self.span.set_status(Status::error(error.unwrap_or_default()));
        }
        self.span.end();
    }
}

impl Export {
    /// Builds the exporter with explicit settings, which the libraries would otherwise read from the environment. The
    /// environment still gives attributes of the resource and headers for the collector.
    fn to(endpoint: &str) -> Result<Self, ExporterBuildError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::at(endpoint)?)
            .with_endpoint(format!("{endpoint}/v1/traces"))
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(EXPORT_TIMEOUT)
            .build()?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(MAX_QUEUE)
            .with_max_export_batch_size(MAX_BATCH)
            .with_scheduled_delay(MAX_DELAY)
            .build();
        let resource = Resource::builder_empty()
            .with_service_name("pulsegate")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_detector(Box::new(EnvResourceDetector::new()))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .with_resource(resource)
            .build();
        Ok(Self { tracer: provider.tracer("pulsegate"), provider })
    }
}

/// Returns the context with the client's span; empty if there is more than one `traceparent` (W3C Trace Context §3.2).
fn parent(headers: &HeaderMap) -> Context {
    let empty = Context::new();
    if headers.get_all(TRACEPARENT).iter().count() > 1 {
        return empty;
    }
    TraceContextPropagator::new().extract_with_context(&empty, &HeaderExtractor(headers))
}

/// Returns the name of a known method; `None` for another one, to keep the set of values closed.
fn method(method: &Method) -> Option<&'static str> {
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
        .into_iter()
        .find(|known| method == known)
}

fn attributes<B>(
    facts: &RequestFacts,
    route: &str,
    method: Option<&'static str>,
    request: &Request<B>,
) -> Vec<KeyValue> {
    let (address, port): (IpAddr, _) = match facts.client {
        ClientAddress::Peer(peer) => (peer.ip().to_canonical(), Some(peer.port())),
        ClientAddress::Forwarded(address) => (address.to_canonical(), None),
    };
    let version = match request.version() {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    let mut attributes = vec![
        KeyValue::new("http.request.method", method.unwrap_or("_OTHER")),
        KeyValue::new("http.route", facts.route.path.to_string()),
        KeyValue::new("url.scheme", "https"),
        KeyValue::new("url.path", facts.path.to_string()),
        KeyValue::new("network.protocol.version", version),
        KeyValue::new("client.address", address.to_string()),
        KeyValue::new("pulsegate.route", route.to_owned()),
    ];
    attributes.extend(port.map(|port| KeyValue::new("client.port", i64::from(port))));
    let agent = facts.user_agent.as_deref();
    attributes.extend(agent.map(|agent| KeyValue::new("user_agent.original", agent.to_owned())));
    let name = facts.server_name.as_deref();
    attributes.extend(name.map(|name| KeyValue::new("server.address", name.to_owned())));
    attributes
}
