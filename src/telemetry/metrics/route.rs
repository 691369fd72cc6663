//! What is counted for each route.

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
use super::requests::{self, Counts, Requests, RouteLabel};
use super::words::close_code;
use crate::session::Ending;

/// The label of requests whose route is unknown: their heads could not be read. That of a route has a slash.
const NO_ROUTE: &str = "none";

/// The handles of one route: whoever has them counts without a lock and without a search.
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
    totals: Totals,
}

/// Sums over all routes.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    /// Plain requests answered, those that are on no route included.
    pub(super) requests: Counter,
    /// Sessions opened.
    pub(super) websockets: Counter,
}

/// What became of a request for a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A session began.
    Opened,
    /// The proxy refused it.
    Rejected,
    /// The app refused it, in its own way.
    UpstreamRefused,
    /// The app was not there, or its answer was no valid 101.
    UpstreamFailed,
    /// The client left before it was answered, or before its session began.
    Abandoned,
}

/// A request for a WebSocket on its way; counted when its outcome is known, as abandoned if it is dropped before.
#[derive(Debug)]
#[must_use = "the request counts as abandoned when this is dropped"]
pub struct Attempt {
    route: Arc<RouteMetrics>,
    begun: Instant,
    outcome: Outcome,
}

/// One place in a gauge, given back when dropped.
#[derive(Debug)]
pub struct Active(Gauge<i64, AtomicI64>);

impl Outcome {
    /// The word for metrics.
    pub fn as_str(self) -> &'static str {
        UPGRADE_OUTCOMES[self as usize]
    }
}

impl RouteMetrics {
    /// Its label.
    pub fn label(&self) -> &str {
        &self.route
    }

    /// Somebody asks for a WebSocket.
    pub fn attempt(self: &Arc<Self>) -> Attempt {
        Attempt { route: Arc::clone(self), begun: Instant::now(), outcome: Outcome::Abandoned }
    }

    /// A request for a WebSocket has come to this.
    pub fn upgrade(&self, outcome: Outcome) {
        self.upgrades[outcome as usize].inc();
    }

    /// A session opened, which took so long since its request; it counts as active until the place is dropped.
    #[must_use = "the session counts as closed when this is dropped"]
    pub fn opened(&self, took: Duration) -> Active {
        self.upgrade(Outcome::Opened);
        self.upgrade_duration.observe(took);
        self.totals.websockets.inc();
        Active::enter(&self.active)
    }

    /// Counts a session that ended.
    pub fn closed(&self, ending: &Ending) {
        let labels = Closed {
            route: Arc::clone(&self.route),
            initiator: ending.cause.initiator().as_str(),
            reason: ending.cause.reason().as_str(),
            code: close_code(ending.client_code),
        };
        self.closed.get_or_create(&labels).inc();
        self.lived.observe(ending.duration);
    }

    /// A probe left for a client.
    pub fn ping(&self) {
        self.pings.inc();
    }

    /// A client answered a probe, after so long where that can be told.
    pub fn pong(&self, rtt: Option<Duration>) {
        self.pongs.inc();
        if let Some(rtt) = rtt {
            self.rtt.observe(rtt);
        }
    }

    /// A client answered its app's own probe after so long.
    pub fn measured(&self, rtt: Duration) {
        self.rtt.observe(rtt);
    }

    /// The app answered a ping of the proxy's own after so long.
    pub fn upstream_ponged(&self, rtt: Duration) {
        self.upstream_rtt.observe(rtt);
    }

    /// A session opened whose client had one that closed in the last minute.
    pub fn reconnected(&self) {
        self.reconnects.inc();
    }

    /// A plain request was answered with `code`, and its answer was through after so long.
    pub fn request(&self, method: &str, code: u16, took: Duration) {
        self.requests.answered(method, code, took);
        self.totals.requests.inc();
    }

    /// The head of the app's response to a plain request came after so long.
    pub fn responded(&self, took: Duration) {
        self.requests.responded(took);
    }

    /// A window passed without a sign of life.
    pub fn missed(&self) {
        self.missed.inc();
    }

    /// A session was given up for want of a sign of life.
    pub fn timeout(&self) {
        self.timeouts.inc();
    }
}

impl Attempt {
    /// Where its session counts.
    pub fn route(&self) -> &Arc<RouteMetrics> {
        &self.route
    }

    /// A session begins; it counts as active until the place is dropped.
    #[must_use = "the session counts as closed when this is dropped"]
    pub fn opened(mut self) -> Active {
        self.outcome = Outcome::Opened;
        self.route.opened(self.begun.elapsed())
    }

    /// There will be no session.
    pub fn ended(mut self, outcome: Outcome) {
        self.outcome = outcome;
        self.route.upgrade(outcome);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.outcome == Outcome::Abandoned {
            self.route.upgrade(Outcome::Abandoned);
        }
    }
}

impl Active {
    pub(super) fn enter(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Active {
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

/// The families whose members are [`RouteMetrics`].
#[derive(Debug)]
pub(super) struct Families {
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
    requests: requests::Families,
}

impl Default for Families {
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
            requests: requests::Families::default(),
        }
    }
}

impl Families {
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

    /// The counters of plain requests that are on no route.
    pub(super) fn unrouted(&self) -> Counts {
        self.requests.of_none(&Arc::from(NO_ROUTE))
    }

    /// The members for `route`, at zero: a rate is right from the first event on.
    pub(super) fn of(&self, route: &Arc<str>, totals: &Totals) -> RouteMetrics {
        let labels = RouteLabel { route: Arc::clone(route) };
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
