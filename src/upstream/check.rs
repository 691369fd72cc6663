//! One health check of an app, on a connection of its own.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, Version};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::app::Reports;
use super::dial::{Dialer, authority};
use super::{BUFFER, UpstreamStream};
use crate::config::{UpstreamProbe, UpstreamTarget};
use crate::heartbeat::{ConnectOutcome, HealthCheck, HealthCheckResult, UpstreamLiveness};
use crate::suspension;
use crate::telemetry::Chain;

/// The `User-Agent` of a health check.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("pulsegate/", env!("CARGO_PKG_VERSION")));
/// The most bytes of a response's body that are read, so that the close sends the app no reset.
const BODY_MAX: usize = BUFFER;
/// The time limit for the rest after the first head, interim or final.
const REST_TIMEOUT: Duration = Duration::from_secs(1);
/// The content of `OPTIONS *`. It is not empty, so that the request may ask for 100 (Continue).
const CONTENT: &[u8] = b"\n";

/// The content of a request.
type Content = UnsyncBoxBody<Bytes, Infallible>;

/// A health check and the destinations of its outcome.
pub(super) struct Check {
    pub(super) dialer: Arc<Dialer>,
    pub(super) liveness: Arc<UpstreamLiveness>,
    pub(super) reports: Arc<Reports>,
    pub(super) kind: HealthCheck,
}

/// The result of a health check, with the fault of a failed one.
pub(super) struct Ended {
    pub(super) result: HealthCheckResult,
    pub(super) fault: Option<String>,
}

impl Ended {
    fn with(result: HealthCheckResult) -> Self {
        Self { result, fault: None }
    }

    fn failed(fault: String) -> Self {
        Self { result: HealthCheckResult::Failed, fault: Some(fault) }
    }
}

impl Check {
    /// Runs the check. A response or a refused connect is recorded in `liveness` at once. The monitor sets the time
    /// limit, by dropping this future.
    pub(super) async fn run(self) -> Ended {
        let begun = Instant::now();
        let stream = match self.dialer.dial(None).await {
            Ok(stream) => stream,
            Err(error) => {
                let late = !suspension::paused_since(begun).is_zero();
                return match error.outcome() {
                    Some(ConnectOutcome::Refused) => {
                        self.reports.record_connect(&self.liveness, ConnectOutcome::Refused, Some(&error));
                        Ended::with(HealthCheckResult::Refused)
                    }
                    Some(_) if !late => Ended::failed(Chain(&error).to_string()),
                    _ => Ended::with(HealthCheckResult::Skipped),
                };
            }
        };
        self.reports.record_connect(&self.liveness, ConnectOutcome::Opened, None);
        let interim = CancellationToken::new();
        let Some(request) = request(&self.dialer.settings.target, &self.dialer.settings.probe, &interim) else {
            // Without a request, the connection counts as the response.
            self.answered();
            return Ended::with(HealthCheckResult::Passed);
        };
        if self.kind == HealthCheck::Connect {
            return Ended::with(HealthCheckResult::Passed);
        }
        self.exchange(stream, request, interim).await
    }

    /// Sends `request` over `stream`, and waits for the first response, interim or final.
    pub(super) async fn exchange(
        self,
        stream: UpstreamStream,
        mut request: Request<Content>,
        interim: CancellationToken,
    ) -> Ended {
        let io = TokioIo::new(stream);
        let (mut sender, connection) = match http1::Builder::new().max_buf_size(BUFFER).handshake(io).await {
            Ok(opened) => opened,
            Err(error) => return broken(&error),
        };
        let this = Arc::new(self);
        let (reporter, arrived) = (Arc::clone(&this), interim.clone());
        hyper::ext::on_informational(&mut request, move |_| {
            reporter.answered();
            arrived.cancel();
        });
        let exchange = async {
            let response = sender.send_request(request).await?;
            this.answered();
            // The head counts as the response; the body is read only so that the close sends the app no reset.
            let _ = suspension::timeout(REST_TIMEOUT, pin!(discard(response))).await;
            Ok(())
        };
        // The connection is driven by this future, and closed with it.
        let driven = async {
            match select(pin!(exchange), pin!(connection)).await {
                Either::Left((result, _)) => result,
                Either::Right((_, exchange)) => exchange.await,
            }
        };
        let rest_is_late = async {
            interim.cancelled().await;
            sleep(REST_TIMEOUT).await;
        };
        tokio::select! {
            biased;
            result = driven => match result {
                Err(error) if !interim.is_cancelled() => broken(&error),
                _ => Ended::with(HealthCheckResult::Passed),
            },
            () = rest_is_late => Ended::with(HealthCheckResult::Passed),
        }
    }

    fn answered(&self) {
        if self.liveness.record_response(Instant::now().into_std()) {
            self.reports.news.notify_one();
        }
    }
}

fn broken(error: &hyper::Error) -> Ended {
    Ended::failed(format!("no response: {}", Chain(error)))
}

/// Returns the request that `probe` configures, for the app at `target`; `None` for [`UpstreamProbe::Off`]. Its
/// content, if any, is sent once `interim` is cancelled.
pub(super) fn request(
    target: &UpstreamTarget,
    probe: &UpstreamProbe,
    interim: &CancellationToken,
) -> Option<Request<Content>> {
    let host = HeaderValue::try_from(authority(target)).unwrap_or(HeaderValue::from_static("localhost"));
    let request = Request::builder().version(Version::HTTP_11).header(HOST, host).header(USER_AGENT, AGENT);
    let request = request.header(CONNECTION, "close");
    let request = match probe {
        UpstreamProbe::Off => return None,
        // Many WebSocket apps have no handler for requests, and never respond to them. Their HTTP server itself sends
        // 100 (Continue) for a request with content (RFC 9110 §10.1.1).
        UpstreamProbe::Auto => request
            .method(Method::OPTIONS)
            .uri("*")
            .header(EXPECT, "100-continue")
            .header(CONTENT_TYPE, "text/plain")
            .header(CONTENT_LENGTH, CONTENT.len())
            .body(content(interim.clone())),
        UpstreamProbe::Path(path) => request.method(Method::GET).uri(&**path).body(Empty::new().boxed_unsync()),
    };
    // The path was validated with the configuration.
    request.ok()
}

/// Returns a body that yields [`CONTENT`] once `interim` is cancelled.
fn content(interim: CancellationToken) -> Content {
    let frame = async move {
        interim.cancelled().await;
        Ok(Frame::data(Bytes::from_static(CONTENT)))
    };
    StreamBody::new(stream::once(frame)).boxed_unsync()
}

/// Returns method and target of the probe's request, for log lines.
pub(super) fn describe(probe: &UpstreamProbe) -> String {
    match probe {
        UpstreamProbe::Off => "connect".to_owned(),
        UpstreamProbe::Auto => "OPTIONS *".to_owned(),
        UpstreamProbe::Path(path) => format!("GET {path}"),
    }
}

async fn discard(response: Response<Incoming>) {
    let mut body = response.into_body();
    let mut left = BODY_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s58_the_request_of_a_health_check() {
        let tcp = UpstreamTarget::Tcp { host: "::1".into(), port: 3000 };
        let interim = CancellationToken::new();
        let request = |target: &UpstreamTarget, probe| super::request(target, &probe, &interim).expect("a request");
        let check = request(&tcp, UpstreamProbe::Auto);
        assert_eq!((check.method(), check.uri().to_string().as_str()), (&Method::OPTIONS, "*"));
        assert_eq!(check.headers()[HOST], "[::1]:3000");
        assert_eq!(check.headers()[USER_AGENT], AGENT);
        assert_eq!(check.headers()[CONTENT_LENGTH], "1");
        let check = request(&UpstreamTarget::Unix("/app.sock".into()), UpstreamProbe::Path("/healthz?deep=1".into()));
        assert_eq!((check.method(), check.uri().to_string().as_str()), (&Method::GET, "/healthz?deep=1"));
        assert_eq!(check.headers()[HOST], "localhost");
        assert_eq!(check.headers().get(EXPECT), None);
        assert!(super::request(&tcp, &UpstreamProbe::Off, &interim).is_none());
    }
}
