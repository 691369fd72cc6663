//! The rules for requests: one generation of the settings, as one worker sees it.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::forwarded::ForwardingPolicy;
use super::headers;
use super::route::Routes;
use crate::config::{EdgeLimits, Http2, Route};
use crate::generation::Generation;
use crate::telemetry::metrics::{Metrics, RouteMetrics};
use crate::upstream::Upstream;

/// The rules of one generation. A request keeps those that it began with; what it opens keeps nothing of them.
#[derive(Debug)]
pub(super) struct WorkerConfig {
    /// The number of their generation.
    pub(super) generation: u64,
    pub(super) limits: EdgeLimits,
    pub(super) http2: Http2,
    pub(super) routes: Routes,
    pub(super) forwarded: ForwardingPolicy,
    pub(super) hsts: Option<HeaderValue>,
    /// The most age of a session.
    pub(super) max_age: Option<Duration>,
    upstreams: Vec<Arc<Upstream>>,
    counts: Vec<(Arc<Route>, Arc<RouteMetrics>)>,
}

impl WorkerConfig {
    /// The rules of `generation` after `before`, from which the pools of the apps come that both have.
    pub(super) fn new(
        generation: &Generation,
        before: Option<&Self>,
        metrics: &Arc<Metrics>,
        tracker: &TaskTracker,
        draining: &CancellationToken,
    ) -> Self {
        let settings = &generation.settings;
        let lines = settings.limits.response_headers;
        let upstreams = generation.apps.iter().map(|app| {
            let is_same = |known: &&Arc<Upstream>| Arc::ptr_eq(known.app(), app) && known.response_headers() == lines;
            let known = before.and_then(|before| before.upstreams.iter().find(is_same));
            let new = || Arc::new(Upstream::new(app, lines, Arc::clone(metrics), tracker.clone(), draining));
            known.map_or_else(new, Arc::clone)
        });
        Self {
            generation: generation.number,
            limits: settings.limits,
            http2: settings.listen.http2,
            routes: Routes::new(settings.routes.clone()),
            forwarded: settings.forwarded.clone().into(),
            hsts: settings.tls.terminate().and_then(|tls| tls.hsts).map(headers::transport_security),
            max_age: settings.drain.max_connection_age,
            upstreams: upstreams.collect(),
            counts: settings.routes.iter().map(|route| (Arc::clone(route), metrics.route(route))).collect(),
        }
    }

    /// Closes the idle connections to apps that `successor` has no more: a holder of these rules, such as an idle client,
    /// would keep them for nothing.
    pub(super) fn retire(&self, successor: &Self) {
        for upstream in &self.upstreams {
            if !successor.upstreams.iter().any(|kept| Arc::ptr_eq(kept, upstream)) {
                upstream.retire();
            }
        }
    }

    /// The app of `route`.
    pub(super) fn upstream(&self, route: &Route) -> &Upstream {
        let upstream = self.upstreams.iter().find(|upstream| Arc::ptr_eq(upstream.app().settings(), &route.upstream));
        upstream.expect("the apps are those of the settings that the route comes from")
    }

    /// Returns the counters of `route`.
    pub(super) fn counts(&self, route: &Arc<Route>) -> &Arc<RouteMetrics> {
        let counts = self.counts.iter().find(|(of, _)| Arc::ptr_eq(of, route));
        counts.map(|(_, counts)| counts).expect("the route is one of the settings'")
    }
}
