//! Plain requests, the only ones that are counted often enough to count without a search.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::catalogue::{self, SHORT};
use super::histogram::Histogram;
use super::register;
use super::words::{self, METHODS, STATUSES};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: &'static str,
    code: &'static str,
}

/// Counters by method and status, and how long requests took.
#[derive(Debug)]
pub(super) struct Requests {
    family: Family<Request, Counter>,
    /// One for each method and status, the statuses of a method side by side; a series begins with its first request.
    handles: Box<[OnceLock<Counter>]>,
    duration: Histogram,
}

impl Default for Requests {
    fn default() -> Self {
        let handles = std::iter::repeat_with(OnceLock::new).take(METHODS.len() * STATUSES.len()).collect();
        Self { family: Family::default(), handles, duration: Histogram::new(SHORT) }
    }
}

impl Requests {
    pub(super) fn register(&self, registry: &mut Registry) {
        register(registry, &catalogue::HTTP_REQUESTS, &self.family);
        register(registry, &catalogue::HTTP_REQUEST_DURATION, &self.duration);
    }

    /// A request was answered with `code`.
    pub(super) fn answered(&self, method: &str, code: u16) {
        let (method, code) = (words::method(method), words::status(code));
        let handle = self.handles[method * STATUSES.len() + code].get_or_init(|| {
            self.family.get_or_create_owned(&Request { method: METHODS[method], code: STATUSES[code] })
        });
        handle.inc();
    }

    /// Its answer was through after so long.
    pub(super) fn took(&self, duration: Duration) {
        self.duration.observe(duration);
    }
}
