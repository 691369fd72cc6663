//! Metrics of plain requests, which are frequent enough to be counted without a map lookup.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::catalogue::{self, SHORT, register};
use super::histogram::Histogram;
use super::labels::{self, METHODS, STATUSES};

/// The label of what is counted for each route.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RouteLabel {
    pub(super) route: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: Arc<str>,
    method: &'static str,
    code: &'static str,
}

/// The metric families of [`Requests`].
#[derive(Debug)]
pub(super) struct RequestFamilies {
    counts: Family<Request, Counter>,
    duration: Family<RouteLabel, Histogram>,
    upstream: Family<RouteLabel, Histogram>,
}

impl Default for RequestFamilies {
    fn default() -> Self {
        Self {
            counts: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(SHORT)),
            upstream: Family::new_with_constructor(|| Histogram::new(SHORT)),
        }
    }
}

impl RequestFamilies {
    pub(super) fn register(&self, registry: &mut Registry) {
        register(registry, &catalogue::HTTP_REQUESTS, &self.counts);
        register(registry, &catalogue::HTTP_REQUEST_DURATION, &self.duration);
        register(registry, &catalogue::UPSTREAM_RESPONSE_DURATION, &self.upstream);
    }

    /// Returns the counters of requests without a route, whose duration is not recorded.
    pub(super) fn of_none(&self, route: &Arc<str>) -> Counts {
        Counts { family: self.counts.clone(), route: Arc::clone(route), handles: OnceLock::new() }
    }

    /// Returns the metrics of `route`.
    pub(super) fn of(&self, route: &Arc<str>) -> Requests {
        let labels = RouteLabel { route: Arc::clone(route) };
        Requests {
            counts: self.of_none(route),
            duration: self.duration.get_or_create_owned(&labels),
            upstream: self.upstream.get_or_create_owned(&labels),
        }
    }
}

/// The counters of one route by method and status.
#[derive(Debug)]
pub(super) struct Counts {
    family: Family<Request, Counter>,
    route: Arc<str>,
    /// One counter for each method and status, in the order of methods and then of statuses. Allocated at the first
    /// request of the route; a series is created at its own first request.
    handles: OnceLock<Box<[OnceLock<Counter>]>>,
}

impl Counts {
    /// Counts a request answered with `code`.
    pub(super) fn answered(&self, method: &str, code: u16) {
        let (method, code) = (labels::method(method), labels::status(code));
        let all = || std::iter::repeat_with(OnceLock::new).take(METHODS.len() * STATUSES.len()).collect();
        let handle = self.handles.get_or_init(all)[method * STATUSES.len() + code].get_or_init(|| {
            let route = Arc::clone(&self.route);
            self.family.get_or_create_owned(&Request { route, method: METHODS[method], code: STATUSES[code] })
        });
        handle.inc();
    }
}

/// The plain requests of one route: counts by method and status, and durations.
#[derive(Debug)]
pub(super) struct Requests {
    counts: Counts,
    duration: Histogram,
    upstream: Histogram,
}

impl Requests {
    /// Counts a request answered with `code`, whose response was complete after `took`.
    pub(super) fn answered(&self, method: &str, code: u16, took: Duration) {
        self.counts.answered(method, code);
        self.duration.observe(took);
    }

    /// Records the time until the head of the app's response.
    pub(super) fn responded(&self, took: Duration) {
        self.upstream.observe(took);
    }
}
