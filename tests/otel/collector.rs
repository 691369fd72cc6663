//! A collector of spans: OTLP over HTTP, as <https://opentelemetry.io/docs/specs/otlp/#otlphttp> defines it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use pulsegate_test_kit::http1::{header_lines, read_head};
use pulsegate_test_kit::wait::wait_until;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::protobuf::Message;

/// A listening collector.
#[derive(Debug)]
pub(crate) struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    accepting: JoinHandle<()>,
}

/// A span as it arrived; the names are those of `opentelemetry/proto/trace/v1/trace.proto`.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) trace_id: String,
    pub(crate) id: String,
    /// The parent; empty in a root.
    pub(crate) parent_span_id: String,
    pub(crate) name: String,
    /// The kind; 2 is a server's.
    pub(crate) kind: Option<u64>,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) attributes: BTreeMap<String, Value>,
    /// The status; 2 is an error.
    pub(crate) status: Option<u64>,
    /// The attributes of the sender.
    pub(crate) resource: BTreeMap<String, Value>,
}

impl Collector {
    /// Listens on a port of the system's choice.
    pub(crate) async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.expect("bind to a port of the system's choice"))
    }

    /// Accepts the connections of `listener`.
    pub(crate) fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("a bound socket has an address");
        let spans = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&spans);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(collect(stream, Arc::clone(&kept)));
            }
        });
        Self { address, spans, accepting }
    }

    /// Returns the configuration section that names it.
    pub(crate) fn section(&self) -> String {
        section(self.address)
    }

    /// Returns all spans received so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the span of the upgrade to `path`, and fails if there are several.
    pub(crate) async fn span_of(&self, path: &str) -> Span {
        let of_path = || {
            let spans = self.spans().into_iter();
            spans.filter(|span| span.attributes["url.path"] == path).collect::<Vec<_>>()
        };
        let spans = wait_until(&format!("a span of {path}"), of_path, |spans| !spans.is_empty()).await;
        let [span] = &spans[..] else { panic!("several spans of one upgrade: {spans:?}") };
        span.clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Returns the configuration section that names a collector at `address`.
pub(crate) fn section(address: SocketAddr) -> String {
    format!("[otel]\nendpoint = \"http://{address}\"\n")
}

async fn collect(mut stream: TcpStream, spans: Arc<Mutex<Vec<Span>>>) {
    while let Some(head) = read_head(&mut stream).await {
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        let header = |name: &str| header_lines(&head).find(|(found, _)| found.eq_ignore_ascii_case(name));
        assert_eq!(header("content-type").map(|(_, value)| value), Some("application/x-protobuf"), "{head}");
        let length = header("content-length").and_then(|(_, value)| value.parse().ok()).expect("a length");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.expect("the body is whole");
        spans.lock().unwrap_or_else(PoisonError::into_inner).extend(read(&body));
        let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer).await.expect("the answer is taken");
    }
}

/// Parses an `ExportTraceServiceRequest`.
fn read(body: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    for of_resource in Message::read(body).messages(1) {
        let resource = of_resource.messages(1).first().map(|resource| attributes(&resource.messages(1)));
        let resource = resource.unwrap_or_default();
        for of_scope in of_resource.messages(2) {
            spans.extend(of_scope.messages(2).iter().map(|span| Span {
                trace_id: hex(span.bytes(1)),
                id: hex(span.bytes(2)),
                parent_span_id: hex(span.bytes(4)),
                name: span.text(5),
                kind: span.number(6),
                start: span.number(7).expect("a start"),
                end: span.number(8).expect("an end"),
                attributes: attributes(&span.messages(9)),
                status: span.messages(15).first().and_then(|status| status.number(3)),
                resource: resource.clone(),
            }));
        }
    }
    spans
}

/// Parses a list of `KeyValue`.
fn attributes(list: &[Message]) -> BTreeMap<String, Value> {
    let mut attributes = BTreeMap::new();
    for attribute in list {
        let value = &attribute.messages(2)[0];
        let value = value.number(3).map_or_else(|| json!(value.text(1)), |number| json!(number));
        assert!(attributes.insert(attribute.text(1), value).is_none(), "twice: {attribute:?}");
    }
    attributes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
