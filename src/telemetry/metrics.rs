//! What is counted, under the names that a Prometheus server sees.
//!
//! Labels take their values from small closed sets; never an address, a path or a connection's name.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// All metrics of this process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Families,
    totals: Sums,
}

/// Totals over all labels since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Client connections accepted.
    pub connections: u64,
    /// Handshakes that failed, whatever the outcome.
    pub handshakes_failed: u64,
    /// Plain requests answered.
    pub requests: u64,
    /// Upgrades refused.
    pub rejections: u64,
    /// WebSocket sessions opened.
    pub websockets: u64,
    /// Connects to the app that failed.
    pub upstream_errors: u64,
    /// Probes of the app's own liveness that went unanswered.
    pub upstream_missed: u64,
}

#[derive(Debug, Default)]
struct Families {
    upgrade_rejections: Family<Reason, Counter>,
    tls_handshakes: Family<Outcome, Counter>,
    websockets_closed: Family<Closed, Counter>,
    http_requests: Family<Code, Counter>,
    http2_goaways: Family<Reason, Counter>,
    upstream_connect_errors: Family<Reason, Counter>,
    upstream_missed: Counter,
    connections_active: Gauge,
    websockets_active: Gauge,
}

/// A family cannot be summed over its labels; these count beside it.
#[derive(Debug, Default)]
struct Sums {
    connections: Counter,
    handshakes_failed: Counter,
    requests: Counter,
    rejections: Counter,
    websockets: Counter,
    upstream_errors: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Closed {
    initiator: &'static str,
    reason: &'static str,
    code: u16,
}

/// One place in a gauge, given back when dropped.
#[derive(Debug)]
pub struct Active(Gauge<i64, AtomicI64>);

impl Active {
    fn enter(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let families = Families::default();
        Self { registry: families.registry(), families, totals: Sums::default() }
    }

    /// An upgrade was refused by the proxy itself; `reason` is one word.
    pub fn rejected(&self, reason: &'static str) {
        self.families.upgrade_rejections.get_or_create(&Reason { reason }).inc();
        self.totals.rejections.inc();
    }

    /// A TLS handshake ended: `ok` or what went wrong, one word.
    pub fn handshake(&self, outcome: &'static str) {
        self.families.tls_handshakes.get_or_create(&Outcome { outcome }).inc();
        if outcome != "ok" {
            self.totals.handshakes_failed.inc();
        }
    }

    /// A session ended; `code` is the one on the client leg.
    pub fn closed(&self, initiator: &'static str, reason: &'static str, code: u16) {
        self.families.websockets_closed.get_or_create(&Closed { initiator, reason, code }).inc();
    }

    /// A plain request was answered.
    pub fn request(&self, code: u16) {
        self.families.http_requests.get_or_create(&Code { code }).inc();
        self.totals.requests.inc();
    }

    /// An HTTP/2 connection was ended for what its client did; `reason` is one word.
    pub fn goaway(&self, reason: &'static str) {
        self.families.http2_goaways.get_or_create(&Reason { reason }).inc();
    }

    /// A connect to the app failed; `reason` is one word.
    pub fn upstream_error(&self, reason: &'static str) {
        self.families.upstream_connect_errors.get_or_create(&Reason { reason }).inc();
        self.totals.upstream_errors.inc();
    }

    /// A probe of the app's own liveness went unanswered.
    pub fn upstream_missed(&self) {
        self.families.upstream_missed.inc();
    }

    /// A client connection was accepted; it counts as active until the place is dropped.
    #[must_use = "the connection counts as closed when this is dropped"]
    pub fn connection(&self) -> Active {
        self.totals.connections.inc();
        Active::enter(&self.families.connections_active)
    }

    /// A session opened; it counts as active until the place is dropped.
    #[must_use = "the session counts as closed when this is dropped"]
    pub fn websocket(&self) -> Active {
        self.totals.websockets.inc();
        Active::enter(&self.families.websockets_active)
    }

    /// Totals over all labels since the start.
    pub fn totals(&self) -> Totals {
        Totals {
            connections: self.totals.connections.get(),
            handshakes_failed: self.totals.handshakes_failed.get(),
            requests: self.totals.requests.get(),
            rejections: self.totals.rejections.get(),
            websockets: self.totals.websockets.get(),
            upstream_errors: self.totals.upstream_errors.get(),
            upstream_missed: self.families.upstream_missed.get(),
        }
    }

    /// All of them in the `OpenMetrics` text format.
    #[expect(clippy::missing_panics_doc, reason = "a String takes whatever is written to it")]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("writing to a String does not fail");
        text
    }
}

impl Families {
    /// A registry of all families under their public names; counters gain `_total` when they are written.
    fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("pulsegate");
        registry.register(
            "upgrade_rejections",
            "WebSocket upgrades that the proxy refused",
            self.upgrade_rejections.clone(),
        );
        registry.register("tls_handshakes", "TLS handshakes by how they ended", self.tls_handshakes.clone());
        registry.register(
            "websockets_closed",
            "WebSocket sessions that ended, by who ended them, why, and the client's close code",
            self.websockets_closed.clone(),
        );
        registry.register("http_requests", "Plain HTTP requests by status code", self.http_requests.clone());
        registry.register(
            "http2_goaways",
            "HTTP/2 connections that were ended for what their clients did",
            self.http2_goaways.clone(),
        );
        registry.register(
            "upstream_connect_errors",
            "Connects to the app that failed",
            self.upstream_connect_errors.clone(),
        );
        registry.register(
            "upstream_missed",
            "Probes of the app's own liveness that went unanswered",
            self.upstream_missed.clone(),
        );
        registry.register("connections_active", "Open client connections", self.connections_active.clone());
        registry.register("websockets_active", "Live WebSocket sessions", self.websockets_active.clone());
        registry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_what_a_scraper_reads() {
        let metrics = Metrics::new();
        metrics.rejected("bad_request");
        metrics.handshake("ok");
        metrics.handshake("timeout");
        metrics.closed("proxy", "heartbeat_timeout", 1001);
        metrics.request(200);
        metrics.request(200);
        metrics.upstream_error("refused");
        let text = metrics.encode();
        for line in [
            r#"pulsegate_upgrade_rejections_total{reason="bad_request"} 1"#,
            r#"pulsegate_tls_handshakes_total{outcome="ok"} 1"#,
            r#"pulsegate_tls_handshakes_total{outcome="timeout"} 1"#,
            r#"pulsegate_websockets_closed_total{initiator="proxy",reason="heartbeat_timeout",code="1001"} 1"#,
            r#"pulsegate_http_requests_total{code="200"} 2"#,
            r#"pulsegate_upstream_connect_errors_total{reason="refused"} 1"#,
            "pulsegate_connections_active 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} is missing in:\n{text}");
        }
        let totals = metrics.totals();
        assert_eq!((totals.handshakes_failed, totals.requests, totals.rejections), (1, 2, 1));
    }

    #[test]
    fn a_place_in_a_gauge_is_given_back() {
        let metrics = Metrics::new();
        let places = [metrics.websocket(), metrics.websocket()];
        assert!(metrics.encode().contains("pulsegate_websockets_active 2\n"));
        drop(places);
        assert!(metrics.encode().contains("pulsegate_websockets_active 0\n"));
        assert_eq!(metrics.totals().websockets, 2, "the total does not go back");
    }
}
