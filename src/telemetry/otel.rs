//! Spans for an OpenTelemetry collector: one for each request for a WebSocket, from its head to its 101 or its refusal.
//!
//! Attributes follow the semantic conventions for HTTP servers. Spans wait in a bounded queue for a thread of their own,
//! which sends them in batches; when the collector is slow or gone, spans are lost and nothing else.

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

/// Spans that wait for the collector at most; further ones are lost.
const QUEUE: usize = 2048;
/// Spans in one request to the collector at most.
const BATCH: usize = 512;
/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// How long one batch may take, tried several times.
const EXPORT: Duration = Duration::from_secs(10);
/// How long the end of the process waits for the last batch.
const LAST: Duration = Duration::from_secs(1);

/// W3C Trace Context §3.2 and §3.3.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Why the client of a span that was dropped has seen no answer.
const ABANDONED: &str = "abandoned";

/// Where spans go, if anywhere; a clone goes to the same place.
#[derive(Clone, Debug, Default)]
pub struct Spans(Option<Export>);

#[derive(Clone, Debug)]
struct Export {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// Tells of one request for a WebSocket, as abandoned if it is dropped before its end is told. Nothing, where the client
/// belongs to a trace that is not recorded.
#[derive(Debug)]
pub struct Span(Option<Box<Open>>);

#[derive(Debug)]
struct Open {
    span: SdkSpan,
    /// Whether the client named a span that this one belongs under.
    has_parent: bool,
}

impl Spans {
    /// To the collector that `otel` names. What keeps them from going there is told in a line, and harms nothing else.
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

    /// Somebody asks for a WebSocket; `route` is what metrics call the route.
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

    /// Sends what is left, which may take a second; nobody must be waited for on this thread.
    pub fn flush(&self) {
        if let Some(Export { provider, .. }) = &self.0 {
            // That the collector is gone was told.
            let _ = provider.shutdown_with_timeout(LAST);
        }
    }
}

impl Span {
    /// The trace that it belongs to, in hexadecimal digits.
    pub fn trace_id(&self) -> Option<Box<str>> {
        let open = self.0.as_ref()?;
        Some(open.span.span_context().trace_id().to_string().into())
    }

    /// The session would be called `id`.
    pub fn name_session(&mut self, id: ConnId) {
        if let Some(open) = &mut self.0 {
            open.span.set_attribute(KeyValue::new("pulsegate.connection.id", id.to_string()));
        }
    }

    /// Makes this span the parent of what the app does, in `headers` that go to it. What vendors have said beside the
    /// client's span stays, unless that was none (W3C Trace Context §4.2).
    pub fn propagate(&self, headers: &mut HeaderMap) {
        let Some(open) = &self.0 else { return };
        headers.insert(TRACEPARENT, open.traceparent());
        if !open.has_parent {
            headers.remove(TRACESTATE);
        }
    }

    /// A session begins behind an answer with `status`.
    pub fn switched(mut self, status: StatusCode) {
        if let Some(open) = self.0.take() {
            open.end(Some(status), None);
        }
    }

    /// The answer is an error, for this `reason`, which is one word.
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
    /// As W3C Trace Context §3.2 has it.
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
        // A server is not to blame for what it answers with 4xx.
        if status.is_some_and(|status| status.is_server_error()) {
            self.span.set_status(Status::error(error.unwrap_or_default()));
        }
        self.span.end();
    }
}

impl Export {
    /// Everything is said here that the libraries would otherwise look up in the environment, but for what only the
    /// environment knows: attributes of the resource, and headers for the collector.
    fn to(endpoint: &str) -> Result<Self, ExporterBuildError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::at(endpoint)?)
            .with_endpoint(format!("{endpoint}/v1/traces"))
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(EXPORT)
            .build()?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
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

/// The span that the client names; none where it names several (W3C Trace Context §3.2).
fn parent(headers: &HeaderMap) -> Context {
    let nobody = Context::new();
    if headers.get_all(TRACEPARENT).iter().count() > 1 {
        return nobody;
    }
    TraceContextPropagator::new().extract_with_context(&nobody, &HeaderExtractor(headers))
}

/// Methods are words of a closed set here too; `None` is one of a client's own making.
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
