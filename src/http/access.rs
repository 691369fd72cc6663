//! The access line of one plain request.

use std::sync::Arc;
use std::time::Instant;

use hyper::{Method, Request, StatusCode};

use super::{Connection, asked};
use crate::config::Route;
use crate::telemetry::lines;

/// The status of a request whose client left before there was an answer (nginx's word for it).
const CLIENT_GONE: u16 = 499;

/// One plain request from its head to the last byte of its answer; told when dropped.
#[derive(Debug)]
pub(super) struct Access {
    connection: Arc<Connection>,
    asked: lines::Asked,
    method: Method,
    begun: Instant,
    status: Option<StatusCode>,
    reason: Option<&'static str>,
    bytes_out: u64,
    complete: bool,
}

impl Access {
    pub(super) fn begin<B>(connection: &Arc<Connection>, route: Arc<Route>, request: &Request<B>) -> Box<Self> {
        Box::new(Self {
            connection: Arc::clone(connection),
            asked: asked(connection, route, request),
            method: request.method().clone(),
            begun: Instant::now(),
            status: None,
            reason: None,
            bytes_out: 0,
            complete: false,
        })
    }

    /// The head of the answer is known.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.connection.rules.counts(&self.asked.route).responded(self.begun.elapsed());
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
}

impl Drop for Access {
    fn drop(&mut self) {
        let status = self.status.map_or(CLIENT_GONE, |status| status.as_u16());
        let duration = self.begun.elapsed();
        let counts = self.connection.rules.counts(&self.asked.route);
        counts.request(self.method.as_str(), status, duration);
        lines::http_access(&lines::Access {
            asked: &self.asked,
            method: self.method.as_str(),
            status,
            reason: self.reason,
            bytes_out: self.bytes_out,
            complete: self.complete,
            duration,
        });
    }
}
