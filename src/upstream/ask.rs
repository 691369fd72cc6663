//! One question to an app in doubt, on a connection made for it.

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
use crate::heartbeat::{AskEnd, Asking, ConnectOutcome, UpstreamPulse};
use crate::suspension;

/// The program and its version, for the app's log.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("pulsegate/", env!("CARGO_PKG_VERSION")));
/// The part of a response's body that is read, so that the app is spared a reset.
const BODY_MAX: usize = BUFFER;
/// The time for that.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// A question to be asked, and those who learn of the outcome.
pub(super) struct Question {
    pub(super) dialer: Arc<Dialer>,
    pub(super) pulse: Arc<UpstreamPulse>,
    pub(super) reports: Arc<Reports>,
    pub(super) asking: Asking,
}

/// The end of a question, and what was wrong if it was not answered.
pub(super) struct Ended {
    pub(super) end: AskEnd,
    pub(super) fault: Option<String>,
}

impl Ended {
    fn with(end: AskEnd) -> Self {
        Self { end, fault: None }
    }

    fn unanswered(fault: String) -> Self {
        Self { end: AskEnd::Unanswered, fault: Some(fault) }
    }
}

impl Question {
    /// Asks. The answer, or a connect that was refused, is in the pulse as soon as it is known; the watch decides how
    /// long it is waited for.
    pub(super) async fn ask(self) -> Ended {
        let begun = Instant::now();
        let stream = match self.dialer.dial().await {
            Ok(stream) => stream,
            Err(error) => {
                let late = !suspension::paused_since(begun).is_zero();
                return match error.outcome() {
                    Some(ConnectOutcome::Refused) => {
                        self.reports.connected(&self.pulse, ConnectOutcome::Refused, Some(&error));
                        Ended::with(AskEnd::Refused)
                    }
                    Some(_) if !late => Ended::unanswered(with_causes(&error)),
                    _ => Ended::with(AskEnd::NotAsked),
                };
            }
        };
        self.reports.connected(&self.pulse, ConnectOutcome::Opened, None);
        let Some(request) = request(&self.dialer.settings.target, &self.dialer.settings.probe) else {
            // No request is to be made: the connection is as much of an answer as there will be.
            self.answered();
            return Ended::with(AskEnd::Answered);
        };
        if self.asking == Asking::Connect {
            return Ended::with(AskEnd::Answered);
        }
        self.exchange(stream, request).await
    }

    async fn exchange(&self, stream: UpstreamStream, request: Request<Empty<Bytes>>) -> Ended {
        let broken = |error: hyper::Error| Ended::unanswered(format!("no response: {}", with_causes(&error)));
        let io = TokioIo::new(stream);
        let (mut sender, connection) = match http1::Builder::new().max_buf_size(BUFFER).handshake(io).await {
            Ok(opened) => opened,
            Err(error) => return broken(error),
        };
        let exchange = async {
            let response = sender.send_request(request).await?;
            self.answered();
            // The answer is there; a body that does not come is no matter.
            let _ = timeout(BODY_TIMEOUT, discard(response)).await;
            Ok(Ended::with(AskEnd::Answered))
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

/// The request as `probe` says, to the app at `target`; `None` where none is to be made.
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

/// The first line of that request, for a person to read.
pub(super) fn words(probe: &UpstreamProbe) -> String {
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
    fn s58_the_app_is_asked_about_itself() {
        let tcp = Target::Tcp { host: "::1".into(), port: 3000 };
        let request = |target: &Target, probe| super::request(target, &probe).expect("a request");
        let asked = request(&tcp, UpstreamProbe::Auto);
        assert_eq!((asked.method(), asked.uri().to_string().as_str()), (&Method::OPTIONS, "*"));
        assert_eq!(asked.headers()[HOST], "[::1]:3000");
        assert_eq!(asked.headers()[USER_AGENT], AGENT);
        let asked = request(&Target::Unix("/app.sock".into()), UpstreamProbe::Path("/healthz?deep=1".into()));
        assert_eq!((asked.method(), asked.uri().to_string().as_str()), (&Method::GET, "/healthz?deep=1"));
        assert_eq!(asked.headers()[HOST], "localhost");
        assert!(super::request(&tcp, &UpstreamProbe::Off).is_none());
    }
}
