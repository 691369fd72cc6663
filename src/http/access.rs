//! The access line of one plain request.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::{HeaderMap, Method, Request, StatusCode};

use super::connection::ClientConnection;
use super::request_head::RequestHead;
use crate::config::Route;
use crate::telemetry::metrics::RouteMetrics;
use crate::telemetry::{Chain, log_events};
use crate::upstream::UploadProgress;

/// The status of a request whose client left before there was an answer (nginx's word for it).
const CLIENT_GONE: u16 = 499;

/// One plain request from its head to the last byte of its answer; logged and counted when dropped.
#[derive(Debug)]
pub(super) struct Access {
    counts: Arc<RouteMetrics>,
    /// `None` if no line is written.
    head: Option<RequestHead>,
    method: Method,
    begun: Instant,
    status: Option<StatusCode>,
    reason: Option<&'static str>,
    error: Option<Box<str>>,
    upload: Option<Arc<UploadProgress>>,
    bytes_out: u64,
    complete: bool,
    upstream: Upstream,
}

/// The part of the app in a request.
#[derive(Clone, Copy, Debug)]
enum Upstream {
    /// It has not been asked.
    Unasked,
    /// It was asked then, and has not answered yet.
    Asked(Instant),
    /// Its answer, or the failure, took so long.
    Took(Duration),
}

impl Access {
    pub(super) fn begin<B>(connection: &Arc<ClientConnection>, route: &Arc<Route>, request: &Request<B>) -> Box<Self> {
        Box::new(Self {
            counts: Arc::clone(connection.rules.counts(route)),
            head: log_events::may_log_access().then(|| RequestHead::of(connection, Arc::clone(route), request)),
            method: request.method().clone(),
            begun: Instant::now(),
            status: None,
            reason: None,
            error: None,
            upload: None,
            bytes_out: 0,
            complete: false,
            upstream: Upstream::Unasked,
        })
    }

    /// The request is handed to the app's side, with these headers and this body.
    pub(super) fn forwarded(&mut self, headers: &HeaderMap, upload: Option<Arc<UploadProgress>>) {
        if let Some(head) = &mut self.head {
            head.set_request_id(headers);
        }
        self.upload = upload;
        self.upstream = Upstream::Asked(Instant::now());
    }

    /// The head of the answer is known.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        if let Some(took) = self.upstream_ended() {
            self.counts.responded(took);
        }
    }

    /// The app gave no answer that can be passed on.
    pub(super) fn failed(&mut self, error: &dyn Error) {
        self.upstream_ended();
        self.error = Some(Chain(error).to_string().into());
    }

    /// The answer is the proxy's own, for `reason`.
    pub(super) fn explained(&mut self, status: StatusCode, reason: &'static str) {
        self.status = Some(status);
        self.reason = Some(reason);
    }

    /// A piece of the answer's body has been passed on.
    pub(super) fn passed(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
    }

    /// The answer's body is through.
    pub(super) fn completed(&mut self) {
        self.complete = true;
    }

    fn upstream_ended(&mut self) -> Option<Duration> {
        let Upstream::Asked(since) = self.upstream else { return None };
        let took = since.elapsed();
        self.upstream = Upstream::Took(took);
        Some(took)
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        let status = self.status.map_or(CLIENT_GONE, |status| status.as_u16());
        let duration = self.begun.elapsed();
        self.counts.request(self.method.as_str(), status, duration);
        let (reason, error) = (self.reason, self.error.as_deref());
        // The text is made for a line that is written: most requests have none.
        if let Some(head) = self.head.as_ref().filter(|_| log_events::is_access_logged(status, reason, error)) {
            log_events::http_access(&log_events::AccessRecord {
                request: &head.to_facts(),
                method: self.method.as_str(),
                status,
                reason,
                error,
                bytes_in: self.upload.as_ref().map_or(0, |upload| upload.bytes()),
                bytes_out: self.bytes_out,
                complete: self.complete,
                duration,
                upstream: match self.upstream {
                    Upstream::Unasked => None,
                    Upstream::Asked(since) => Some(since.elapsed()),
                    Upstream::Took(took) => Some(took),
                },
            });
        }
    }
}
