//! Plain requests, the only ones that are counted often enough to count without a search.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::catalogue::{self, SHORT, register};
use super::histogram::Histogram;
use super::words::{self, METHODS, STATUSES};

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

/// The families whose members are [`Requests`].
#[derive(Debug)]
pub(super) struct Families {
    counts: Family<Request, Counter>,
    duration: Family<RouteLabel, Histogram>,
    upstream: Family<RouteLabel, Histogram>,
}

impl Default for Families {
    fn default() -> Self {
        Self {
            counts: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(SHORT)),
            upstream: Family::new_with_constructor(|| Histogram::new(SHORT)),
        }
    }
}

impl Families {
    pub(super) fn register(&self, registry: &mut Registry) {
        register(registry, &catalogue::HTTP_REQUESTS, &self.counts);
        register(registry, &catalogue::HTTP_REQUEST_DURATION, &self.duration);
        register(registry, &catalogue::UPSTREAM_RESPONSE_DURATION, &self.upstream);
    }

    /// The counters of requests that are on no route, and took no time that says anything.
    pub(super) fn of_none(&self, route: &Arc<str>) -> Counts {
        Counts { family: self.counts.clone(), route: Arc::clone(route), handles: OnceLock::new() }
    }

    /// The members for `route`.
    pub(super) fn of(&self, route: &Arc<str>) -> Requests {
        let labels = RouteLabel { route: Arc::clone(route) };
        Requests {
            counts: self.of_none(route),
            duration: self.duration.get_or_create_owned(&labels),
            upstream: self.upstream.get_or_create_owned(&labels),
        }
    }
}

/// Counters of one route by method and status.
#[derive(Debug)]
pub(super) struct Counts {
    family: Family<Request, Counter>,
    route: Arc<str>,
    /// One for each method and status, the statuses of a method side by side, from the first request on; a series begins
    /// with its own first request.
    handles: OnceLock<Box<[OnceLock<Counter>]>>,
}

impl Counts {
    /// A request was answered with `code`.
    pub(super) fn answered(&self, method: &str, code: u16) {
        let (method, code) = (words::method(method), words::status(code));
        let all = || std::iter::repeat_with(OnceLock::new).take(METHODS.len() * STATUSES.len()).collect();
        let handle = self.handles.get_or_init(all)[method * STATUSES.len() + code].get_or_init(|| {
            let route = Arc::clone(&self.route);
            self.family.get_or_create_owned(&Request { route, method: METHODS[method], code: STATUSES[code] })
        });
        handle.inc();
    }
}

/// The plain requests of one route: how many, by method and status, and how long they took.
#[derive(Debug)]
pub(super) struct Requests {
    counts: Counts,
    duration: Histogram,
    upstream: Histogram,
}

impl Requests {
    /// A request was answered with `code`, and its answer was through after so long.
    pub(super) fn answered(&self, method: &str, code: u16, took: Duration) {
        self.counts.answered(method, code);
        self.duration.observe(took);
    }

    /// The head of the app's response came after so long.
    pub(super) fn responded(&self, took: Duration) {
        self.upstream.observe(took);
    }
}
