//! The metrics of each route.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::catalogue::{self, LIVES, ROUND_TRIPS, SHORT, UPGRADE_OUTCOMES, register};
use super::histogram::Histogram;
use super::labels::close_code;
use super::requests::{self, Counts, Requests, RouteLabel};
use crate::session::{EndReason, Ending, Initiator, RESTART};

/// The label of requests without a route, whose heads could not be parsed. The label of a route contains a slash.
const NO_ROUTE: &str = "none";

/// The usual ends of sessions, with the usual codes of the client's side. Their series exist from the start, so that rates
/// include the first end of a sort; the others begin with it.
const USUAL_ENDS: &[(Initiator, EndReason, u16)] = &[
    (Initiator::Client, EndReason::Normal, 1000),
    (Initiator::Client, EndReason::Normal, 1001),
    (Initiator::Client, EndReason::Normal, 1005),
    (Initiator::Client, EndReason::ClientLost, 1006),
    (Initiator::Upstream, EndReason::Normal, 1000),
    (Initiator::Upstream, EndReason::Normal, 1005),
    (Initiator::Upstream, EndReason::UpstreamLost, 1006),
    (Initiator::Upstream, EndReason::UpstreamLost, RESTART),
    (Initiator::Proxy, EndReason::UpstreamLost, 1006),
    (Initiator::Proxy, EndReason::UpstreamLost, RESTART),
    (Initiator::Proxy, EndReason::HeartbeatTimeout, 1006),
    (Initiator::Proxy, EndReason::HeartbeatTimeout, RESTART),
    (Initiator::Proxy, EndReason::SlowReader, 1006),
    (Initiator::Proxy, EndReason::SlowReader, RESTART),
    (Initiator::Proxy, EndReason::Trickle, RESTART),
    (Initiator::Proxy, EndReason::Drain, 1006),
    (Initiator::Proxy, EndReason::Drain, RESTART),
    (Initiator::Proxy, EndReason::ProtocolError, 1002),
    (Initiator::Proxy, EndReason::ProtocolError, RESTART),
    (Initiator::Proxy, EndReason::TooBig, 1009),
    (Initiator::Proxy, EndReason::TooBig, RESTART),
    (Initiator::Proxy, EndReason::Rate, 1008),
    (Initiator::Proxy, EndReason::Admin, 1008),
    (Initiator::Proxy, EndReason::MaxAge, RESTART),
];

/// The handles of one route. They count without a lock and without a lookup, except for closes, which have more labels.
#[derive(Debug)]
pub struct RouteMetrics {
    route: Arc<str>,
    /// In the order of [`UPGRADE_OUTCOMES`].
    upgrades: Box<[Counter]>,
    upgrade_duration: Histogram,
    active: Gauge,
    closed: Family<Closed, Counter>,
    lived: Histogram,
    pings: Counter,
    pongs: Counter,
    missed: Counter,
    timeouts: Counter,
    rtt: Histogram,
    upstream_rtt: Histogram,
    reconnects: Counter,
    requests: Requests,
    totals: RouteTotals,
}

/// The sums over all routes.
#[derive(Clone, Debug, Default)]
pub(super) struct RouteTotals {
    /// Answered plain requests, including those without a route.
    pub(super) requests: Counter,
    /// Opened sessions.
    pub(super) websockets: Counter,
}

/// The outcome of an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeOutcome {
    /// A session opened.
    Opened,
    /// The proxy refused the upgrade.
    Rejected,
    /// The app refused the upgrade with a response of its own.
    UpstreamRefused,
    /// The app was unreachable, or its response was no valid 101.
    UpstreamFailed,
    /// The client left before the response, or before its session opened.
    Abandoned,
}

/// An upgrade in progress; counted with its outcome, or as abandoned on drop.
#[derive(Debug)]
#[must_use = "the request counts as abandoned when this is dropped"]
pub struct UpgradeAttempt {
    route: Arc<RouteMetrics>,
    begun: Instant,
    outcome: UpgradeOutcome,
}

/// A guard that holds a gauge incremented until dropped.
#[derive(Debug)]
pub struct GaugeGuard(Gauge<i64, AtomicI64>);

impl UpgradeOutcome {
    /// Returns the label value.
    pub fn as_str(self) -> &'static str {
        UPGRADE_OUTCOMES[self as usize]
    }
}

impl RouteMetrics {
    /// Returns the label of the route.
    pub fn label(&self) -> &str {
        &self.route
    }

    /// Starts an upgrade.
    pub fn attempt(self: &Arc<Self>) -> UpgradeAttempt {
        UpgradeAttempt { route: Arc::clone(self), begun: Instant::now(), outcome: UpgradeOutcome::Abandoned }
    }

    /// Counts an upgrade with its outcome.
    pub fn upgrade(&self, outcome: UpgradeOutcome) {
        self.upgrades[outcome as usize].inc();
    }

    /// Counts a session that opened `took` after its request; it is active until the returned guard is dropped.
    #[must_use = "the session counts as closed when this is dropped"]
    pub fn opened(&self, took: Duration) -> GaugeGuard {
        self.upgrade(UpgradeOutcome::Opened);
        self.upgrade_duration.observe(took);
        self.totals.websockets.inc();
        GaugeGuard::enter(&self.active)
    }

    /// Counts a session that ended.
    pub fn closed(&self, ending: &Ending) {
        let cause = &ending.cause;
        let labels = Closed::new(&self.route, cause.initiator(), cause.reason(), ending.client_code);
        self.closed.get_or_create(&labels).inc();
        self.lived.observe(ending.duration);
    }

    /// Counts a probe sent to a client.
    pub fn ping(&self) {
        self.pings.inc();
    }

    /// Counts a client's answer to a probe; `rtt` is its round-trip time, if it could be measured.
    pub fn pong(&self, rtt: Option<Duration>) {
        self.pongs.inc();
        if let Some(rtt) = rtt {
            self.rtt.observe(rtt);
        }
    }

    /// Records the round-trip time of an app's own probe, answered by the client.
    pub fn measured(&self, rtt: Duration) {
        self.rtt.observe(rtt);
    }

    /// Records the round-trip time of a ping that the proxy sent to the app.
    pub fn upstream_ponged(&self, rtt: Duration) {
        self.upstream_rtt.observe(rtt);
    }

    /// Counts a session whose client had another one that closed within the last minute.
    pub fn reconnected(&self) {
        self.reconnects.inc();
    }

    /// Counts a plain request answered with `code`, whose response was complete after `took`.
    pub fn request(&self, method: &str, code: u16, took: Duration) {
        self.requests.answered(method, code, took);
        self.totals.requests.inc();
    }

    /// Records the time until the head of the app's response to a plain request.
    pub fn responded(&self, took: Duration) {
        self.requests.responded(took);
    }

    /// Counts a miss: a window without a sign of life.
    pub fn missed(&self) {
        self.missed.inc();
    }

    /// Counts a session ended for too many misses.
    pub fn timeout(&self) {
        self.timeouts.inc();
    }
}

impl UpgradeAttempt {
    /// Returns the metrics of the route.
    pub fn route(&self) -> &Arc<RouteMetrics> {
        &self.route
    }

    /// Counts the upgrade as opened; the session is active until the returned guard is dropped.
    #[must_use = "the session counts as closed when this is dropped"]
    pub fn opened(mut self) -> GaugeGuard {
        self.outcome = UpgradeOutcome::Opened;
        self.route.opened(self.begun.elapsed())
    }

    /// Counts the upgrade with `outcome`, without a session.
    pub fn ended(mut self, outcome: UpgradeOutcome) {
        self.outcome = outcome;
        self.route.upgrade(outcome);
    }
}

impl Drop for UpgradeAttempt {
    fn drop(&mut self) {
        if self.outcome == UpgradeOutcome::Abandoned {
            self.route.upgrade(UpgradeOutcome::Abandoned);
        }
    }
}

impl GaugeGuard {
    pub(super) fn enter(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Upgrade {
    route: Arc<str>,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Closed {
    route: Arc<str>,
    initiator: &'static str,
    reason: &'static str,
    code: &'static str,
}

impl Closed {
    fn new(route: &Arc<str>, initiator: Initiator, reason: EndReason, code: u16) -> Self {
        let (initiator, reason) = (initiator.as_str(), reason.as_str());
        Self { route: Arc::clone(route), initiator, reason, code: close_code(code) }
    }
}

/// The metric families of [`RouteMetrics`].
#[derive(Debug)]
pub(super) struct RouteFamilies {
    upgrades: Family<Upgrade, Counter>,
    upgrade_duration: Family<RouteLabel, Histogram>,
    active: Family<RouteLabel, Gauge>,
    closed: Family<Closed, Counter>,
    lived: Family<RouteLabel, Histogram>,
    pings: Family<RouteLabel, Counter>,
    pongs: Family<RouteLabel, Counter>,
    missed: Family<RouteLabel, Counter>,
    timeouts: Family<RouteLabel, Counter>,
    rtt: Family<RouteLabel, Histogram>,
    upstream_rtt: Family<RouteLabel, Histogram>,
    reconnects: Family<RouteLabel, Counter>,
    requests: requests::RequestFamilies,
}

impl Default for RouteFamilies {
    fn default() -> Self {
        Self {
            upgrades: Family::default(),
            upgrade_duration: Family::new_with_constructor(|| Histogram::new(SHORT)),
            active: Family::default(),
            closed: Family::default(),
            lived: Family::new_with_constructor(|| Histogram::new(LIVES)),
            pings: Family::default(),
            pongs: Family::default(),
            missed: Family::default(),
            timeouts: Family::default(),
            rtt: Family::new_with_constructor(|| Histogram::new(ROUND_TRIPS)),
            upstream_rtt: Family::new_with_constructor(|| Histogram::new(ROUND_TRIPS)),
            reconnects: Family::default(),
            requests: requests::RequestFamilies::default(),
        }
    }
}

impl RouteFamilies {
    pub(super) fn register(&self, registry: &mut Registry) {
        register(registry, &catalogue::UPGRADES, &self.upgrades);
        register(registry, &catalogue::UPGRADE_DURATION, &self.upgrade_duration);
        register(registry, &catalogue::WEBSOCKETS_ACTIVE, &self.active);
        register(registry, &catalogue::WEBSOCKETS_CLOSED, &self.closed);
        register(registry, &catalogue::WEBSOCKET_DURATION, &self.lived);
        register(registry, &catalogue::HEARTBEAT_PINGS, &self.pings);
        register(registry, &catalogue::HEARTBEAT_PONGS, &self.pongs);
        register(registry, &catalogue::HEARTBEAT_MISSED, &self.missed);
        register(registry, &catalogue::HEARTBEAT_TIMEOUTS, &self.timeouts);
        register(registry, &catalogue::HEARTBEAT_RTT, &self.rtt);
        register(registry, &catalogue::UPSTREAM_RTT, &self.upstream_rtt);
        register(registry, &catalogue::RECONNECTS, &self.reconnects);
        self.requests.register(registry);
    }

    /// Returns the counters of plain requests without a route.
    pub(super) fn unrouted(&self) -> Counts {
        self.requests.of_none(&Arc::from(NO_ROUTE))
    }

    /// Returns the metrics of `route`, created at zero, so that rates include the first event.
    pub(super) fn of(&self, route: &Arc<str>, totals: &RouteTotals) -> RouteMetrics {
        let labels = RouteLabel { route: Arc::clone(route) };
        for &(initiator, reason, code) in USUAL_ENDS {
            drop(self.closed.get_or_create(&Closed::new(route, initiator, reason, code)));
        }
        let upgrades = UPGRADE_OUTCOMES.iter().map(|&outcome| Upgrade { route: Arc::clone(route), outcome });
        RouteMetrics {
            upgrades: upgrades.map(|labels| self.upgrades.get_or_create_owned(&labels)).collect(),
            upgrade_duration: self.upgrade_duration.get_or_create_owned(&labels),
            active: self.active.get_or_create_owned(&labels),
            closed: self.closed.clone(),
            lived: self.lived.get_or_create_owned(&labels),
            pings: self.pings.get_or_create_owned(&labels),
            pongs: self.pongs.get_or_create_owned(&labels),
            missed: self.missed.get_or_create_owned(&labels),
            timeouts: self.timeouts.get_or_create_owned(&labels),
            rtt: self.rtt.get_or_create_owned(&labels),
            upstream_rtt: self.upstream_rtt.get_or_create_owned(&labels),
            reconnects: self.reconnects.get_or_create_owned(&labels),
            requests: self.requests.of(route),
            totals: totals.clone(),
            route: Arc::clone(route),
        }
    }
}
