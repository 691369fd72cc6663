//! One health check of an app in doubt, on a connection of its own.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};

use super::app::{Reports, with_causes};
use super::dial::{Dialer, authority};
use super::{BUFFER, UpstreamStream};
use crate::config::{Target, UpstreamProbe};
use crate::heartbeat::{CheckResult, ConnectOutcome, HealthCheck, UpstreamPulse};
use crate::suspension;

/// The program and its version, for the app's log.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("pulsegate/", env!("CARGO_PKG_VERSION")));
/// Bytes of a response's body that are read, to spare the app a reset.
const BODY_MAX: usize = BUFFER;
/// The time for that.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// A health check, and where its outcome goes.
pub(super) struct Check {
    pub(super) dialer: Arc<Dialer>,
    pub(super) pulse: Arc<UpstreamPulse>,
    pub(super) reports: Arc<Reports>,
    pub(super) kind: HealthCheck,
}

/// The result of a health check, and the fault where it failed.
pub(super) struct Ended {
    pub(super) result: CheckResult,
    pub(super) fault: Option<String>,
}

impl Ended {
    fn with(result: CheckResult) -> Self {
        Self { result, fault: None }
    }

    fn failed(fault: String) -> Self {
        Self { result: CheckResult::Failed, fault: Some(fault) }
    }
}

impl Check {
    /// Runs the check. A response, or a refused connect, is recorded in the pulse at once; the time limit is the watch's.
    pub(super) async fn run(self) -> Ended {
        let begun = Instant::now();
        let stream = match self.dialer.dial().await {
            Ok(stream) => stream,
            Err(error) => {
                let late = !suspension::paused_since(begun).is_zero();
                return match error.outcome() {
                    Some(ConnectOutcome::Refused) => {
                        self.reports.connected(&self.pulse, ConnectOutcome::Refused, Some(&error));
                        Ended::with(CheckResult::Refused)
                    }
                    Some(_) if !late => Ended::failed(with_causes(&error)),
                    _ => Ended::with(CheckResult::Skipped),
                };
            }
        };
        self.reports.connected(&self.pulse, ConnectOutcome::Opened, None);
        let Some(request) = request(&self.dialer.settings.target, &self.dialer.settings.probe) else {
            // Without a request the connection counts as the answer.
            self.answered();
            return Ended::with(CheckResult::Passed);
        };
        if self.kind == HealthCheck::Connect {
            return Ended::with(CheckResult::Passed);
        }
        self.exchange(stream, request).await
    }

    async fn exchange(&self, stream: UpstreamStream, request: Request<Empty<Bytes>>) -> Ended {
        let broken = |error: hyper::Error| Ended::failed(format!("no response: {}", with_causes(&error)));
        let io = TokioIo::new(stream);
        let (mut sender, connection) = match http1::Builder::new().max_buf_size(BUFFER).handshake(io).await {
            Ok(opened) => opened,
            Err(error) => return broken(error),
        };
        let exchange = async {
            let response = sender.send_request(request).await?;
            self.answered();
            // The head is the answer; the body is read only to spare the app a reset.
            let _ = timeout(BODY_TIMEOUT, discard(response)).await;
            Ok(Ended::with(CheckResult::Passed))
        };
        // The connection is driven here, and closed with this future.
        let ended = match select(pin!(exchange), pin!(connection)).await {
            Either::Left((ended, _)) => ended,
            Either::Right((_, exchange)) => exchange.await,
        };
        ended.unwrap_or_else(broken)
    }

    fn answered(&self) {
        if self.pulse.answered(Instant::now().into_std()) {
            self.reports.news.notify_one();
        }
    }
}

/// Returns the request that `probe` configures, for the app at `target`; `None` for [`UpstreamProbe::Off`].
fn request(target: &Target, probe: &UpstreamProbe) -> Option<Request<Empty<Bytes>>> {
    let (method, uri) = match probe {
        UpstreamProbe::Off => return None,
        UpstreamProbe::Auto => (Method::OPTIONS, Uri::from_static("*")),
        // The configuration has been checked.
        UpstreamProbe::Path(path) => (Method::GET, path.parse().ok()?),
    };
    let mut request = Request::new(Empty::new());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    let host = HeaderValue::try_from(authority(target)).unwrap_or(HeaderValue::from_static("localhost"));
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(USER_AGENT, AGENT);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Some(request)
}

/// The method and target of that request, for log lines.
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
        let tcp = Target::Tcp { host: "::1".into(), port: 3000 };
        let request = |target: &Target, probe| super::request(target, &probe).expect("a request");
        let check = request(&tcp, UpstreamProbe::Auto);
        assert_eq!((check.method(), check.uri().to_string().as_str()), (&Method::OPTIONS, "*"));
        assert_eq!(check.headers()[HOST], "[::1]:3000");
        assert_eq!(check.headers()[USER_AGENT], AGENT);
        let check = request(&Target::Unix("/app.sock".into()), UpstreamProbe::Path("/healthz?deep=1".into()));
        assert_eq!((check.method(), check.uri().to_string().as_str()), (&Method::GET, "/healthz?deep=1"));
        assert_eq!(check.headers()[HOST], "localhost");
        assert!(super::request(&tcp, &UpstreamProbe::Off).is_none());
    }
}
