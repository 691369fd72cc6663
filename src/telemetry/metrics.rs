//! The metrics of the process, under the names that Prometheus scrapes.
//!
//! The values of labels come from small closed sets or from the configuration: never an address, a path, a connection
//! id or another value chosen by a client. Frequent events are counted without a lock.

mod catalogue;
mod collectors;
mod counter_set;
mod exposition;
mod histogram;
mod labels;
mod process;
mod requests;
mod route;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

pub use catalogue::{ALL, Label, Metric, MetricKind, Values, markdown};
pub use exposition::TextFormat;
pub(crate) use exposition::media_range;
pub use route::{GaugeGuard, RouteMetrics, UpgradeAttempt, UpgradeOutcome};

use crate::config::Route;
use crate::relay::Memory;
use crate::session::Traffic;
use catalogue::{HANDSHAKE_OUTCOMES, HANDSHAKE_SUCCESS, SHORT, TLS_GROUPS, TLS_VERSIONS, register};
use collectors::{Buffered, Certificates, Passed, unix_seconds};
use counter_set::CounterSet;
use histogram::Histogram;
use labels::{known, known_or_other};
use process::Process;
use requests::Counts;

/// The version and group of a failed handshake, and the group of one that negotiated none.
const NONE: &str = "none";

/// All metrics of this process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Metrics without the prefix, named alike by every Prometheus client library.
    process: Registry,
    unrouted: Counts,
    families: Families,
    routes: Mutex<BTreeMap<Arc<str>, Arc<RouteMetrics>>>,
    totals: Sums,
    memory: Arc<Memory>,
    passed: Passed,
    certificates: Certificates,
}

/// Returns the totals over all labels since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricTotals {
    /// Accepted client connections.
    pub connections: u64,
    /// Client connections closed before their TLS handshake.
    pub connections_refused: u64,
    /// Failed TLS handshakes of every outcome.
    pub handshakes_failed: u64,
    /// Answered plain requests.
    pub requests: u64,
    /// Refused upgrades.
    pub rejections: u64,
    /// Opened WebSocket sessions.
    pub websockets: u64,
    /// Requests and upgrades without a valid response from the app.
    pub upstream_errors: u64,
    /// Unanswered liveness probes of the app.
    pub upstream_missed: u64,
}

/// The direction of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficDirection {
    /// From clients to apps.
    In,
    /// From apps to clients.
    Out,
}

impl TrafficDirection {
    /// Returns the label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

#[derive(Debug)]
struct Families {
    routes: route::RouteFamilies,
    connections_active: Gauge,
    connections_refused: CounterSet,
    tls_handshakes: Family<Handshake, Counter>,
    tls_handshake_duration: Histogram,
    acme_orders: CounterSet,
    acme_next_order: Gauge,
    upgrade_rejections: CounterSet,
    http2_goaways: CounterSet,
    backpressure_pauses: CounterSet,
    upstream_connect_duration: Histogram,
    upstream_connect_errors: CounterSet,
    upstream_errors: CounterSet,
    upstream_missed: Counter,
    reload_successful: Gauge,
    reload_success: Gauge,
    reloads: CounterSet,
    ready: Gauge,
    draining: Gauge,
}

/// Sums over all labels of a family, counted separately because a family cannot be summed.
#[derive(Debug, Default)]
struct Sums {
    connections: Counter,
    connections_refused: Counter,
    handshakes_failed: Counter,
    rejections: Counter,
    upstream_errors: Counter,
    routes: route::RouteTotals,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Handshake {
    outcome: &'static str,
    version: &'static str,
    group: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Returns metrics at zero; the last load of the configuration counts as successful.
    pub fn new() -> Self {
        let families = Families::new();
        let (memory, passed, certificates) = (Arc::<Memory>::default(), Passed::default(), Certificates::default());
        let mut registry = families.registry();
        registry.register_collector(Box::new(Buffered(Arc::clone(&memory))));
        registry.register_collector(Box::new(passed.clone()));
        registry.register_collector(Box::new(certificates.clone()));
        let mut process = Registry::default();
        process.register_collector(Box::new(Process::starting()));
        let metrics = Self {
            registry,
            process,
            unrouted: families.routes.unrouted(),
            families,
            routes: Mutex::default(),
            totals: Sums::default(),
            memory,
            passed,
            certificates,
        };
        metrics.loaded(true);
        metrics
    }

    /// Returns the handles of `route`: the same for every route with the same host and path, also after a reload. Takes
    /// a lock, so callers keep them.
    pub fn route(&self, route: &Route) -> Arc<RouteMetrics> {
        let host = route.host.as_ref().map(ToString::to_string).unwrap_or_default();
        let label: Arc<str> = format!("{host}{}", route.path).into();
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(self.families.routes.of(&label, &self.totals.routes));
        Arc::clone(routes.entry(Arc::clone(&label)).or_insert_with(new))
    }

    /// Counts an upgrade answered with an error; `reason` is one word.
    pub fn rejected(&self, reason: &'static str) {
        self.families.upgrade_rejections.inc(reason);
        self.totals.rejections.inc();
    }

    /// Counts a successful TLS handshake that took `took`.
    pub fn handshake(&self, version: &'static str, group: Option<&str>, took: Duration) {
        let version = known(TLS_VERSIONS, version);
        let group = group.map_or(NONE, |group| known_or_other(TLS_GROUPS, group));
        self.families.tls_handshakes.get_or_create(&Handshake { outcome: HANDSHAKE_SUCCESS, version, group }).inc();
        self.families.tls_handshake_duration.observe(took);
    }

    /// Counts a failed TLS handshake; `outcome` is the reason in one word.
    pub fn handshake_failed(&self, outcome: &'static str) {
        let outcome = known(HANDSHAKE_OUTCOMES, outcome);
        self.families.tls_handshakes.get_or_create(&Handshake { outcome, version: NONE, group: NONE }).inc();
        self.totals.handshakes_failed.inc();
    }

    /// Counts a plain request without a route that was answered with `code`; its duration is not recorded. `method` is
    /// empty if the head could not be parsed.
    pub fn answered(&self, method: &str, code: u16) {
        self.unrouted.answered(method, code);
        self.totals.routes.requests.inc();
    }

    /// Counts an HTTP/2 connection ended because of its client; `reason` is one word.
    pub fn goaway(&self, reason: &'static str) {
        self.families.http2_goaways.inc(reason);
    }

    /// Counts a successful connect to an app that took `took`.
    pub fn upstream_connect(&self, took: Duration) {
        self.families.upstream_connect_duration.observe(took);
    }

    /// Counts a failed connect to an app; `reason` is one word.
    pub fn upstream_connect_error(&self, reason: &'static str) {
        self.families.upstream_connect_errors.inc(reason);
    }

    /// Counts a request or an upgrade without a valid response from its app; `reason` is one word.
    pub fn upstream_error(&self, reason: &'static str) {
        self.families.upstream_errors.inc(reason);
        self.totals.upstream_errors.inc();
    }

    /// Counts an unanswered liveness probe of an app.
    pub fn upstream_missed(&self) {
        self.families.upstream_missed.inc();
    }

    /// Counts an accepted client connection, which is active until the returned guard is dropped.
    #[must_use = "the connection counts as closed when this is dropped"]
    pub fn connection(&self) -> GaugeGuard {
        self.totals.connections.inc();
        GaugeGuard::enter(&self.families.connections_active)
    }

    /// Counts a connection closed before its TLS handshake; `reason` is one word.
    pub fn connection_refused(&self, reason: &'static str) {
        self.families.connections_refused.inc(reason);
        self.totals.connections_refused.inc();
    }

    /// Counts a session that stops reading from one peer because the other does not read.
    pub fn backpressure(&self, direction: TrafficDirection) {
        self.families.backpressure_pauses.inc(direction.as_str());
    }

    /// Counts a reload with its `result`, one word; `success` is false if the configuration was refused.
    pub fn reloaded(&self, result: &'static str, success: bool) {
        self.families.reloads.inc(result);
        self.loaded(success);
    }

    fn loaded(&self, success: bool) {
        self.families.reload_successful.set(success.into());
        if success {
            self.families.reload_success.set(unix_seconds(SystemTime::now()));
        }
    }

    /// Records a certificate presented to clients, named after its file, and its expiry.
    pub fn certificate(&self, name: &str, not_after: SystemTime) {
        self.certificates.set(name, not_after);
    }

    /// Removes all certificates.
    pub fn clear_certificates(&self) {
        self.certificates.clear();
    }

    /// Counts an attempt to get a certificate from an authority.
    pub fn acme_order(&self, result: &'static str) {
        self.families.acme_orders.inc(result);
    }

    /// Records when the next such attempt is due.
    pub fn acme_next(&self, at: SystemTime) {
        self.families.acme_next_order.set(unix_seconds(at));
    }

    /// Records whether the proxy should receive new clients.
    pub fn ready(&self, ready: bool) {
        self.families.ready.set(ready.into());
    }

    /// Records whether the proxy is draining.
    pub fn draining(&self, draining: bool) {
        self.families.draining.set(draining.into());
    }

    /// Sets the source of traffic totals since the start (from clients, from apps), read at each scrape. Both totals
    /// must never decrease.
    pub fn observe_traffic(&self, source: impl Fn() -> (Traffic, Traffic) + Send + Sync + 'static) {
        self.passed.observe(source);
    }

    /// Returns the counters of bytes buffered for slow peers.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Returns the totals over all labels since the start.
    pub fn totals(&self) -> MetricTotals {
        MetricTotals {
            connections: self.totals.connections.get(),
            connections_refused: self.totals.connections_refused.get(),
            handshakes_failed: self.totals.handshakes_failed.get(),
            requests: self.totals.routes.requests.get(),
            rejections: self.totals.rejections.get(),
            websockets: self.totals.routes.websockets.get(),
            upstream_errors: self.totals.upstream_errors.get(),
            upstream_missed: self.families.upstream_missed.get(),
        }
    }

    /// Returns all metrics in the `OpenMetrics` text format.
    pub fn encode(&self) -> String {
        self.encode_as(TextFormat::OpenMetrics)
    }

    /// Returns all metrics in the text format `exposition`.
    #[expect(clippy::missing_panics_doc, reason = "a String takes whatever is written to it")]
    pub fn encode_as(&self, exposition: TextFormat) -> String {
        let mut text = String::new();
        let written = text::encode_registry(&mut text, &self.registry)
            .and_then(|()| text::encode_registry(&mut text, &self.process))
            .and_then(|()| text::encode_eof(&mut text));
        written.expect("writing to a String does not fail");
        exposition.of(text)
    }
}

/// Returns the counters of handshakes. Those of every failure exist from the start, so that rates include the first one.
fn handshakes() -> Family<Handshake, Counter> {
    let family = Family::<_, Counter>::default();
    for outcome in HANDSHAKE_OUTCOMES.iter().filter(|outcome| **outcome != HANDSHAKE_SUCCESS) {
        drop(family.get_or_create(&Handshake { outcome, version: NONE, group: NONE }));
    }
    family
}

impl Families {
    fn new() -> Self {
        Self {
            routes: route::RouteFamilies::default(),
            connections_active: Gauge::default(),
            connections_refused: CounterSet::of(&catalogue::CONNECTIONS_REFUSED),
            tls_handshakes: handshakes(),
            tls_handshake_duration: Histogram::new(SHORT),
            acme_orders: CounterSet::of(&catalogue::ACME_ORDERS),
            acme_next_order: Gauge::default(),
            upgrade_rejections: CounterSet::of(&catalogue::UPGRADE_REJECTIONS),
            http2_goaways: CounterSet::of(&catalogue::HTTP2_GOAWAYS),
            backpressure_pauses: CounterSet::of(&catalogue::BACKPRESSURE_PAUSES),
            upstream_connect_duration: Histogram::new(SHORT),
            upstream_connect_errors: CounterSet::of(&catalogue::UPSTREAM_CONNECT_ERRORS),
            upstream_errors: CounterSet::of(&catalogue::UPSTREAM_ERRORS),
            upstream_missed: Counter::default(),
            reload_successful: Gauge::default(),
            reload_success: Gauge::default(),
            reloads: CounterSet::of(&catalogue::CONFIG_RELOADS),
            ready: Gauge::default(),
            draining: Gauge::default(),
        }
    }

    /// Returns a registry of all families under their public names; `_total` is appended to counters on output.
    fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix(catalogue::PREFIX);
        let all = &mut registry;
        let build = Family::<[(&str, &str); 1], Gauge>::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        register(all, &catalogue::BUILD_INFO, &build);
        register(all, &catalogue::CONNECTIONS_ACTIVE, &self.connections_active);
        self.connections_refused.register(all);
        register(all, &catalogue::TLS_HANDSHAKES, &self.tls_handshakes);
        register(all, &catalogue::TLS_HANDSHAKE_DURATION, &self.tls_handshake_duration);
        self.acme_orders.register(all);
        register(all, &catalogue::ACME_NEXT_ORDER, &self.acme_next_order);
        self.http2_goaways.register(all);
        self.upgrade_rejections.register(all);
        self.routes.register(all);
        self.backpressure_pauses.register(all);
        register(all, &catalogue::UPSTREAM_CONNECT_DURATION, &self.upstream_connect_duration);
        self.upstream_connect_errors.register(all);
        self.upstream_errors.register(all);
        register(all, &catalogue::UPSTREAM_MISSED, &self.upstream_missed);
        register(all, &catalogue::CONFIG_LAST_RELOAD_SUCCESSFUL, &self.reload_successful);
        register(all, &catalogue::CONFIG_LAST_RELOAD_SUCCESS, &self.reload_success);
        self.reloads.register(all);
        register(all, &catalogue::READY, &self.ready);
        register(all, &catalogue::DRAINING, &self.draining);
        registry
    }
}

#[cfg(test)]
mod tests;
