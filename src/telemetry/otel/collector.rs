//! The HTTP client of the exporter: sends batches of spans to the collector in plain HTTP/1.1.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::http::header::HOST;
use ::http::uri::PathAndQuery;
use ::http::{HeaderValue, Request, Response, Uri};
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::ExporterBuildError;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

/// The time limit for one request to the collector.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum size of a response in bytes; it holds a count and a message.
const MAX_RESPONSE: usize = 64 * 1024;

/// The client of the collector, used by the exporter's thread.
#[derive(Debug)]
pub(super) struct Collector {
    endpoint: Box<str>,
    runtime: Runtime,
    /// Set if the last batch failed; only changes are logged.
    is_failing: AtomicBool,
}

impl Collector {
    pub(super) fn at(endpoint: &str) -> Result<Self, ExporterBuildError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| ExporterBuildError::InternalFailure(error.to_string()))?;
        Ok(Self { endpoint: endpoint.into(), runtime, is_failing: AtomicBool::new(false) })
    }

    fn report(&self, failure: Option<&str>) {
        let endpoint = &*self.endpoint;
        match (failure, self.is_failing.swap(failure.is_some(), Ordering::Relaxed)) {
            (Some(error), false) => tracing::warn!(endpoint, error, "otel.export_failed"),
            (None, true) => tracing::info!(endpoint, "otel.export_resumed"),
            (Some(_), true) | (None, false) => {}
        }
    }
}

#[async_trait]
impl HttpClient for Collector {
    /// Sends one batch. Blocks: the exporter has a thread of its own, without a runtime.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let exchange = async { tokio::time::timeout(TIMEOUT, exchange(request)).await };
        let answer = self.runtime.block_on(exchange).unwrap_or_else(|late| Err(late.into()));
        match &answer {
            Ok(response) if response.status().is_success() => self.report(None),
            Ok(response) => self.report(Some(response.status().as_str())),
            Err(error) => self.report(Some(&error.to_string())),
        }
        answer
    }
}

/// Sends one request on a new connection, because batches are seconds apart. Fails when the collector cannot be reached
/// or its response is malformed or too long.
async fn exchange(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (mut head, body) = request.into_parts();
    let authority = head.uri.authority().ok_or("the endpoint has no host")?;
    let host = authority.host().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
    head.headers.insert(HOST, HeaderValue::try_from(authority.as_str())?);
    head.uri = Uri::from(head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let (head, body) = sender.send_request(Request::from_parts(head, Full::new(body))).await?.into_parts();
        let body = Limited::new(body, MAX_RESPONSE).collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    };
    tokio::select! {
        answer = exchange => answer,
        Err(error) = connection => Err(error.into()),
    }
}
